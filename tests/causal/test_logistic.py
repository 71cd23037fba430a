import numpy as np
import pytest

from brainmu.causal.logistic import firth_by_group, fit_logistic, fit_multinomial, independent_columns
from brainmu.errors import DesignError


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x = np.c_[np.ones(600), rng.standard_normal((600, 3))]
    eta = x @ [-1.0, 0.5, -0.3, 0.8]
    y = (rng.random(600) < 1 / (1 + np.exp(-eta))).astype(float)
    return x, y, rng


def test_agrees_with_statsmodels_to_six_digits(data):
    import statsmodels.api as sm

    x, y, _ = data
    ours = fit_logistic(x, y)
    theirs = sm.Logit(y, x).fit(disp=0)
    np.testing.assert_allclose(ours.coef, theirs.params, rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(np.diag(ours.covariance)), theirs.bse, rtol=1e-5)
    assert ours.log_likelihood == pytest.approx(theirs.llf, rel=1e-9)


def test_weights_and_offset_agree_with_statsmodels(data):
    import statsmodels.api as sm

    x, y, rng = data
    w, o = rng.uniform(0.5, 2, 600), rng.standard_normal(600) * 0.3
    theirs = sm.GLM(y, x, family=sm.families.Binomial(), freq_weights=w, offset=o).fit(tol=1e-12)
    np.testing.assert_allclose(fit_logistic(x, y, w, o).coef, theirs.params, rtol=1e-6)


def test_multinomial_agrees_with_statsmodels(data):
    import statsmodels.api as sm

    x, _, rng = data
    y = rng.integers(0, 3, 600)
    coef, se = fit_multinomial(x, y, 3)
    theirs = sm.MNLogit(y, x).fit(disp=0)
    np.testing.assert_allclose(coef.T, theirs.params, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(se.T, theirs.bse, rtol=1e-5)


def test_separated_and_repeated_columns_are_refused(data):
    x, y, _ = data
    with pytest.raises(DesignError, match="no finite fit"):
        fit_logistic(np.c_[x, y], y)
    assert independent_columns(np.c_[x, x[:, 1] * 2 + 1, np.zeros(600), y]).tolist() == [0, 1, 2, 3, 6]


def test_firth_is_nearly_unbiased_and_finite_where_maximum_likelihood_is_not():
    rng = np.random.default_rng(1)
    groups, size, slope = 3000, 120, 0.7
    group = np.repeat(np.arange(groups), size)
    x = (rng.random(groups * size) < 0.3).astype(float)
    y = (rng.random(groups * size) < 1 / (1 + np.exp(2.2 - slope * x))).astype(float)
    hits = np.bincount(group, y * x, groups)
    assert (hits == 0).sum() > 3  # these have no finite maximum
    b = firth_by_group(x, y, group, groups, np.zeros(len(x)))
    assert np.isfinite(b).all()
    assert b.mean() == pytest.approx(slope, abs=0.04)


def test_firth_matches_a_direct_maximum_of_the_penalised_likelihood():
    from scipy.optimize import minimize

    rng = np.random.default_rng(2)
    x, y, o = rng.standard_normal(80), (rng.random(80) < 0.2).astype(float), 0.2 * rng.standard_normal(80)
    d = np.c_[np.ones(80), x]

    def penalised(c):
        eta = d @ c + o
        p = 1 / (1 + np.exp(-eta))
        return -(y @ eta - np.logaddexp(0, eta).sum() + 0.5 * np.linalg.slogdet((d * (p * (1 - p))[:, None]).T @ d)[1])

    best = minimize(penalised, np.zeros(2), method="BFGS", options={"gtol": 1e-9})
    assert firth_by_group(x, y, np.zeros(80, dtype=int), 1, o)[0] == pytest.approx(best.x[1], abs=1e-5)
