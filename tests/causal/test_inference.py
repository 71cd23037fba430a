import numpy as np
import pytest

from brainmu.causal.inference import Estimate, animal_mean, random_effects, wild_bootstrap


def test_equal_weights_are_the_t_test():
    from scipy import stats

    b = np.array([0.3, -0.1, 0.4, 0.2, 0.5])
    e = animal_mean(b)
    t = stats.ttest_1samp(b, 0.0)
    assert e.p_value == pytest.approx(t.pvalue)
    assert (e.low, e.high) == pytest.approx(tuple(t.confidence_interval(0.95)))


def test_unequal_weights_keep_the_variance_unbiased():
    rng = np.random.default_rng(0)
    w = np.array([1.0, 2.0, 3.0, 6.0])
    b = rng.standard_normal((1500, 4))
    se2 = np.mean([animal_mean(x, w).se ** 2 for x in b])
    assert se2 == pytest.approx(((w / w.sum()) ** 2).sum(), rel=0.1)


@pytest.mark.parametrize("tau", [0.0, 0.3])
@pytest.mark.parametrize("animals", [4, 10])
def test_random_effects_reject_at_their_level_with_unequal_animals(tau, animals):
    rng = np.random.default_rng(3)
    v = np.geomspace(0.02, 0.5, animals)
    p = [random_effects(rng.standard_normal(animals) * np.sqrt(v + tau**2), v)[0].p_value for _ in range(700)]
    assert 0.015 < np.mean(np.array(p) < 0.05) < 0.072


def test_the_spread_between_animals_is_the_mode_of_its_posterior():
    from scipy.optimize import minimize_scalar

    b, v = np.array([0.1, 0.9, -0.4, 1.4, 0.3]), np.array([0.05, 0.1, 0.04, 0.3, 0.08])

    def minus(sd):
        w = 1 / (v + sd**2)
        m = w @ b / w.sum()
        return 0.5 * (np.log(v + sd**2).sum() + np.log(w.sum()) + w @ (b - m) ** 2) - np.log(sd)

    best = minimize_scalar(minus, bounds=(1e-3, 5), method="bounded", options={"xatol": 1e-10}).x
    assert random_effects(b, v)[1] == pytest.approx(best, abs=1e-3)


def test_wild_bootstrap_reaches_small_p_with_four_animals():
    assert wild_bootstrap([1.0, 1.1, 0.9, 1.05], draws=2000) < 0.05
    rng = np.random.default_rng(0)
    p = [wild_bootstrap(rng.standard_normal(8), draws=299, seed=i) for i in range(600)]
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.08


def test_no_degrees_of_freedom_no_interval():
    e = Estimate.t(0.5, np.nan, 0)
    assert np.isnan([e.low, e.high, e.p_value]).all()
