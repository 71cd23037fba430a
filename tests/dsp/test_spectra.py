"""Spectra against theory and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import signal as ss

from brainmu.dsp.spectra import aperiodic_slope, band_power, line_free, sliding_spectrum
from brainmu.errors import InputError


@pytest.mark.parametrize("tapers", [None, 3.0])
def test_density_integrates_to_variance(tapers):
    x = np.random.default_rng(0).standard_normal(200_000)
    f, p = sliding_spectrum(x, 200.0, np.arange(0, 199_000, 400), 4.0, tapers=tapers)
    assert p.mean(0)[0, 1:-1].sum() * (f[1] - f[0]) == pytest.approx(1.0, rel=0.03)


def test_same_as_scipy():
    x = np.random.default_rng(1).standard_normal(4000)
    f, p = sliding_spectrum(x, 100.0, [0, 200, 400], 4.0)
    ours = p.mean(0)[0]
    theirs = ss.welch(x[:800], 100.0, nperseg=400, noverlap=200)
    assert np.allclose(f, theirs[0]) and np.allclose(ours[1:-1], theirs[1][1:-1], rtol=2e-3)


def test_missing_and_outside_are_nan():
    x = np.zeros((1000, 2))
    x[500, 1] = np.nan
    _, p = sliding_spectrum(x + np.random.default_rng(0).standard_normal((1000, 2)), 100.0, [-5, 0, 450, 950], 1.0)
    assert np.isnan(p[[0, 3]]).all() and np.isnan(p[2, 1]).all() and np.isfinite(p[2, 0]).all() and np.isfinite(p[1]).all()
    with pytest.raises(InputError, match="longer window"):
        sliding_spectrum(x, 100.0, [0], 0.02)


def test_slope_survives_a_peak():
    f = np.arange(1, 400) / 4
    p = 10 * f**-2.0 * (1 + 20 * np.exp(-((f - 8) ** 2) / 2))
    assert aperiodic_slope(p, f, 4, 90) == pytest.approx(-2.0, abs=0.15)
    assert np.isnan(aperiodic_slope(p, f, 150, 300))


def test_a_slope_of_its_own_does_not_depend_on_other_spectra():
    rng = np.random.default_rng(0)
    f = np.arange(1, 400) / 4
    p = 10 * f**-2.0 * rng.gamma(2, 0.5, (40, len(f))) * (1 + 20 * np.exp(-((f - 8) ** 2) / 2))
    other = p.copy()
    other[20:] *= 1 + 50 * np.exp(-((f - 30) ** 2) / 8)
    other[30] = np.nan
    assert not np.array_equal(aperiodic_slope(p, f, 4, 90)[:20], aperiodic_slope(other, f, 4, 90)[:20])
    own = aperiodic_slope(p, f, 4, 90, each=True)
    assert np.array_equal(own[:20], aperiodic_slope(other, f, 4, 90, each=True)[:20])
    assert np.isnan(aperiodic_slope(other, f, 4, 90, each=True)[30]) and own.mean() == pytest.approx(-2.0, abs=0.4)


def test_an_infinite_sample_is_a_missing_one():
    x = np.random.default_rng(0).standard_normal(1000)
    y = x.copy()
    x[[100, 700]], y[[100, 700]] = np.inf, np.nan
    assert np.array_equal(sliding_spectrum(x, 100.0, [0, 200, 400, 600], 2.0)[1], sliding_spectrum(y, 100.0, [0, 200, 400, 600], 2.0)[1], equal_nan=True)


def test_band_power():
    f = np.arange(0, 50.5, 0.5)
    p = np.ones((3, len(f)))
    assert np.allclose(band_power(p, f, 1, 4), 1) and np.isnan(band_power(p, f, 40, 90)).all()
    assert not line_free(np.array([50.0, 60.5, 119.0])).any() and line_free(np.array([45.0, 55.0, 110.0])).all()
