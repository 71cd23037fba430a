from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from brainmu.dsp.filters import bandpass, envelope, fill_missing, gain, robust_scale, smooth
from brainmu.errors import InputError

RATE = 1000.0


def test_bandpass_passes_the_band_and_stops_the_rest() -> None:
    t = np.arange(4000) / RATE
    inside, below, above = (np.sin(2 * np.pi * f * t) for f in (200.0, 90.0, 320.0))
    y = bandpass(inside + below + above, RATE, 150.0, 250.0)
    assert np.abs(y - inside)[300:-300].max() < 2e-3


def test_filtering_in_blocks_equals_filtering_at_once() -> None:
    x = np.cumsum(np.random.default_rng(0).normal(size=(200_000, 2)), axis=0).astype(np.float32)
    whole, part = bandpass(x, RATE, 100.0, 200.0), bandpass(x[50_000:90_000], RATE, 100.0, 200.0)
    scale = whole.std()
    assert np.abs(whole[51_000:89_000] - part[1_000:-1_000]).max() < 1e-3 * scale


def test_envelope_agrees_with_hilbert_of_the_filtered_signal() -> None:
    x = np.random.default_rng(1).normal(size=20_000)
    e = envelope(x, RATE, 150.0, 250.0)
    h = np.abs(signal.hilbert(bandpass(x, RATE, 150.0, 250.0).astype(float)))
    assert np.abs(e - h)[500:-500].max() < 1e-2 * h.std()


@given(sigma=st.floats(0.3, 30), level=st.floats(-1e3, 1e3), n=st.integers(1, 400))
@settings(deadline=None, max_examples=40)
def test_smoothing_keeps_a_constant(sigma: float, level: float, n: int) -> None:
    assert np.allclose(smooth(np.full(n, level), sigma), level, rtol=1e-4, atol=1e-3)


def test_missing_samples_stay_missing_and_do_not_spread() -> None:
    x = np.random.default_rng(2).normal(size=(5000, 2)).astype(np.float32)
    x[1000:1100, 0] = np.nan
    for y in (bandpass(x, RATE, 50.0, 100.0), smooth(x, 5.0)):
        assert np.array_equal(np.isnan(y), np.isnan(x))
    clean = bandpass(np.where(np.isnan(x), 0, x)[:, 1], RATE, 50.0, 100.0)
    assert np.allclose(bandpass(x, RATE, 50.0, 100.0)[:, 1], clean, atol=1e-5)


def test_smooth_of_a_step_with_a_gap_ignores_the_gap() -> None:
    x = np.ones(100, np.float32)
    x[40:60] = np.nan
    assert np.nanmax(np.abs(smooth(x, 8.0) - 1)) < 1e-5


def test_gain_is_flat_inside_and_zero_outside() -> None:
    g = gain(np.arange(500.0), 150, 250, 20)
    assert (g[150:251] == 1).all() and (g[:130] == 0).all() and (g[271:] == 0).all() and (np.diff(g[130:150]) > 0).all()


def test_robust_scale_of_a_gaussian_with_outliers() -> None:
    x = np.random.default_rng(3).normal(5, 2, size=100_000)
    x[:2000] = 1e6
    middle, spread = robust_scale(x)
    assert abs(middle - 5) < 0.1 and abs(spread - 2) < 0.1


def test_fill_missing_bridges_linearly() -> None:
    x = np.array([[0.0], [np.nan], [2.0]], np.float32)
    filled, missing = fill_missing(x)
    assert filled[:, 0].tolist() == [0, 1, 2] and missing[:, 0].tolist() == [False, True, False] and np.isnan(x[1, 0])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: bandpass(np.zeros(100), 400.0, 150.0, 250.0), "sampled at 400 Hz"),
        (lambda: bandpass(np.zeros(100), 1000.0, 250.0, 150.0), "low < high"),
        (lambda: bandpass(np.zeros((2, 2, 2)), 1000.0, 10.0, 20.0), "shape"),
        (lambda: envelope(np.full(100, np.nan), 1000.0, 10.0, 20.0), "no finite sample"),
        (lambda: smooth(np.zeros(3), -1.0), "sigma"),
        (lambda: robust_scale([np.nan]), "no finite"),
    ],
)
def test_bad_input_says_what_was_expected(call, words: str) -> None:
    with pytest.raises(InputError, match=words):
        call()


def test_short_and_empty_inputs() -> None:
    assert bandpass(np.zeros((0, 3)), RATE, 10.0, 20.0).shape == (0, 3)
    assert bandpass(np.zeros(1), RATE, 10.0, 20.0).shape == (1,)
    assert np.isfinite(bandpass(np.arange(7.0), RATE, 10.0, 20.0)).all()
