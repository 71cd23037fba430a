"""dF/F: robust fits recover what was planted, and outliers do not pull them."""

import numpy as np
import pytest

from brainmu.dsp.photometry import bleaching, bleaching_curve, fit_control, huber_fit, running_baseline
from brainmu.errors import InputError

RNG = np.random.default_rng(4)


def test_transients_do_not_pull_the_fit():
    t = np.arange(20_000) / 20.0
    control = 1.0 + 0.3 * np.exp(-t / 400) + 0.02 * np.sin(t / 3) + 0.002 * RNG.standard_normal(len(t))
    transients = np.where(t % 40 < 4, 0.3 * np.exp(-(t % 40)), 0.0)
    signal = (0.4 + 1.7 * control) * (1 + transients) + 0.004 * RNG.standard_normal(len(t))
    fit = fit_control(signal, control)
    ordinary = np.polyfit(control, signal, 1)
    assert fit.slope == pytest.approx(1.7, rel=0.02)
    assert abs(fit.intercept - 0.4) < abs(ordinary[1] - 0.4)
    baseline = fit.intercept + fit.slope * control
    assert np.corrcoef(signal / baseline - 1, transients)[0, 1] > 0.98
    assert 0 < fit.explained < 1


def test_least_squares_where_there_are_no_outliers():
    a = np.c_[np.ones(500), RNG.standard_normal((500, 2))]
    y = a @ [1.0, -2.0, 3.0] + 0.1 * RNG.standard_normal(500)
    np.testing.assert_allclose(huber_fit(a, y), np.linalg.lstsq(a, y, rcond=None)[0], atol=0.01)
    np.testing.assert_allclose(huber_fit(a, a @ [1.0, -2.0, 3.0]), [1, -2, 3], atol=1e-8)
    y[:50] += 100.0
    np.testing.assert_allclose(huber_fit(a, y), [1, -2, 3], atol=0.05)
    y[100:] = np.nan
    assert np.isfinite(huber_fit(a, y)).all()
    assert (huber_fit(a, y, positive=True) >= 0).all()


@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_the_unit_does_not_matter(unit):
    control = 1 + 0.05 * np.sin(np.arange(200) / 20)
    fit = fit_control(2 * unit * control, unit * control)
    np.testing.assert_allclose((fit.intercept / unit, fit.slope), (0, 2), atol=1e-6)
    t = np.arange(3000.0)
    decay = unit * (1 + np.exp(-t / 400))
    np.testing.assert_allclose(bleaching_curve(t, bleaching(t, decay)), decay, rtol=0.02)


def test_bleaching_is_a_sum_of_decays():
    t = np.arange(0, 7200, 5.0)
    truth = 2.0 + 1.5 * np.exp(-t / 250) + 0.7 * np.exp(-t / 3000)
    noisy = truth + 0.01 * RNG.standard_normal(len(t)) + np.where(RNG.random(len(t)) < 0.05, 1.0, 0.0)
    amplitudes = bleaching(t, noisy)
    assert (amplitudes >= 0).all()
    np.testing.assert_allclose(bleaching_curve(t, amplitudes), truth, rtol=0.02)


def test_baseline_passes_below_transients_and_beside_gaps():
    rate = 10.0
    t = np.arange(6000) / rate
    drift = 100 + 0.02 * t
    x = np.c_[drift + np.where(t % 30 < 3, 50.0, 0.0), drift]
    x[2000:2300] = np.nan
    base = running_baseline(x, rate, window=60.0, sigma=1.0)
    assert np.isnan(base[2000:2300]).all()
    seen = np.isfinite(base[:, 0])
    assert seen.sum() == 5700
    assert np.abs(base[seen] / x[seen] - 1)[:, 1].max() < 0.02
    assert np.abs(base[seen, 0] - drift[seen]).max() < 3


def test_what_is_refused():
    with pytest.raises(InputError, match="does not change"):
        fit_control(np.arange(10.0), np.ones(10))
    with pytest.raises(InputError, match="2 samples are finite"):
        fit_control([1.0, 2.0, np.nan], [1.0, 3.0, 2.0])
    with pytest.raises(InputError, match="expected positive numbers"):
        running_baseline(np.ones((5, 1)), -1.0)
