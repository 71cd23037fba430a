import numpy as np
import pytest

from brainmu.causal.inference import Estimate
from brainmu.causal.sensitivity import benchmark, confounder_contour, e_value, reliability, reliability_table
from brainmu.core import Recording, Signal


def test_e_value_is_the_published_one():
    # VanderWeele & Ding (2017): RR 3.9 [1.8, 8.7] has E-values 7.26 and 3.0.
    assert e_value(np.log(3.9), 0.01) == pytest.approx(7.26, abs=0.005)
    assert e_value(np.log(1.8), 0.01) == pytest.approx(3.0, abs=0.005)
    assert e_value(-np.log(3.9), 0.01) == e_value(np.log(3.9), 0.01)
    assert e_value(np.log(4.0), 0.5) == pytest.approx(2 + np.sqrt(2))
    assert e_value(0.0, 0.01) == 1.0


@pytest.mark.parametrize("true", [0.3, 0.6, 1.0])
def test_reliability_of_an_autoregression_in_white_noise(true):
    rng = np.random.default_rng(0)
    x = np.empty(20000)
    x[0] = 0
    for i in range(1, len(x)):
        x[i] = 0.97 * x[i - 1] + np.sqrt(1 - 0.97**2) * rng.standard_normal()
    seen = np.sqrt(true) * x + np.sqrt(1 - true) * rng.standard_normal(len(x))
    rec = Recording("r", "m", signals={"pressure": Signal(seen, rate=0.25)})
    assert reliability([rec], "pressure", 4.0) == pytest.approx(true, abs=0.06)


def test_the_contour_and_the_table_start_at_the_estimate():
    e = Estimate.t(0.5, 0.1, 9)
    contour = confounder_contour(e)
    grid = np.array(contour["estimate"])
    assert grid[0, 0] == 0.5 and grid[-1, -1] == pytest.approx(-0.5) and contour["product_that_removes_significance"] == pytest.approx(e.low)
    table = reliability_table(e, unadjusted=0.8)
    assert table[0]["estimate"] == 0.5 and table[-1]["estimate"] == pytest.approx(0.2)


def test_the_benchmark_is_within_animals():
    animal = np.repeat([0, 1], 100)
    exposed = np.tile([True, False], 100)
    value = animal * 50.0 + exposed
    assert benchmark(value[:, None], exposed, animal)[0] == pytest.approx(2.0)
