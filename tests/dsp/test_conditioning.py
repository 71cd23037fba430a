from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from brainmu.dsp.conditioning import Band, FilterChain, Notch, Stage, filtered, rereferenced
from brainmu.errors import InputError

RATE = 1250.0
FILTERS: dict[str, list[Stage]] = {
    "notch": [Notch(RATE, 50.0)],
    "high-pass": [Band(RATE, 1.0)],
    "low-pass": [Band(RATE, None, 200.0)],
    "band": [Band(RATE, 4.0, 300.0)],
    "both": [Notch(RATE, 60.0, 4.0, 2), Band(RATE, 2.0, 400.0)],
}


def lfp_like(n: int, channels: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    slow = scipy.signal.lfilter([1.0], [1.0, -0.99], rng.standard_normal((n, channels)), axis=0)
    return slow * 20 + 300


def amplitude(stages: list[Stage], f: float, rate: float = RATE) -> float:
    """Gain at `f`, from a complex exponential far from the ends."""
    n = 2 * sum(s.reach for s in stages) + 4000
    wave = np.exp(2j * np.pi * f * np.arange(n) / rate)
    y = filtered(np.c_[wave.real, wave.imag], stages)[n // 2]
    gain = (y[0] + 1j * y[1]) / wave[n // 2]
    assert abs(gain.imag) < 1e-4 * max(1.0, abs(gain.real))  # no phase
    return float(gain.real)


@pytest.mark.parametrize("name", FILTERS)
def test_any_blocks_and_threads_give_the_same_bits(name: str) -> None:
    x = lfp_like(70000, 3)
    x[20000:23000, 1] = np.nan
    x[7, 0] = np.nan
    chain = FilterChain([(s, None) for s in FILTERS[name]])
    whole = chain.block(lambda i, j: x[i:j], 0, len(x), len(x))
    rng = np.random.default_rng(1)
    with ThreadPoolExecutor(2) as pool:
        for _ in range(12):
            a, b = np.sort(rng.integers(0, len(x) + 1, 2))
            np.testing.assert_array_equal(chain.block(lambda i, j: x[i:j], a, b, len(x), pool=pool), whole[a:b])
    np.testing.assert_array_equal(np.isnan(whole), np.isnan(x))


@pytest.mark.parametrize("name", FILTERS)
def test_close_to_one_direct_convolution(name: str) -> None:
    x = lfp_like(60000, 2)
    impulse = np.zeros(2 * sum(s.reach for s in FILTERS[name]) * 2 + 4001)
    impulse[len(impulse) // 2] = 1.0
    chain = FilterChain([(s, None) for s in FILTERS[name]])
    kernel = chain.block(lambda i, j: impulse[i:j, None], 0, len(impulse), len(impulse))[:, 0]
    np.testing.assert_allclose(kernel, kernel[::-1], atol=1e-12)  # symmetrical: nothing is shifted
    slow = scipy.signal.fftconvolve(x, kernel[:, None], mode="same", axes=0)
    inside = slice(chain.reach, -chain.reach)
    assert np.abs(filtered(x, FILTERS[name]) - slow)[inside].max() < 1e-5 * x.std()


def test_notch_takes_the_hum_and_its_harmonics_and_nothing_else() -> None:
    notch = [Notch(RATE, 50.0)]
    assert notch[0].frequencies == [50.0 * k for k in range(1, 13)]
    for f in (50.0, 100.0, 550.0):
        assert abs(amplitude(notch, f)) < 1e-4
    for f in (49.9, 50.1, 200.1):
        assert abs(amplitude(notch, f)) < 10 ** (-38 / 20)
    for f in (49.0, 51.0, 301.0):
        assert amplitude(notch, f) == pytest.approx(np.sqrt(0.5), abs=2e-3)
    for f in (1.0, 8.0, 47.6, 52.4, 75.0, 180.0, 230.0, 620.0):
        assert amplitude(notch, f) == pytest.approx(1.0, abs=2e-4)
    assert Notch(RATE, 60.0, harmonics=2).frequencies == [60.0, 120.0]
    assert amplitude([Notch(RATE, 60.0, harmonics=2)], 180.0) == pytest.approx(1.0, abs=2e-4)


def test_band_keeps_its_band_and_stops_outside() -> None:
    band: list[Stage] = [Band(RATE, 4.0, 200.0)]
    assert band[0].describe()["half_amplitude_at"] == [3.0, 225.0]
    for f in (4.0, 8.0, 100.0, 200.0):
        assert amplitude(band, f) == pytest.approx(1.0, abs=3e-4)
    for f in (3.0, 225.0):
        assert amplitude(band, f) == pytest.approx(0.5, abs=0.01)
    for f in (0.0, 1.0, 2.0, 250.0, 400.0, 600.0):
        assert abs(amplitude(band, f)) < 2e-4


@given(st.floats(-1e6, 1e6), st.integers(1, 9000), st.integers(0, 5))
@settings(deadline=None, max_examples=25)
def test_a_constant_passes_the_notch_and_the_low_pass_and_not_the_high_pass(value: float, n: int, holes: int) -> None:
    x = np.full((n, 2), value)
    rng = np.random.default_rng(holes)
    for _ in range(holes):
        a = rng.integers(0, n)
        x[a : a + rng.integers(1, 500), 0] = np.nan
    present = np.isfinite(x)
    tolerance = 1e-6 * max(1.0, abs(value))
    for stage in (Notch(RATE, 50.0), Band(RATE, None, 300.0), Band(RATE, 1.0)):
        y = filtered(x, stage)
        expected = 0.0 if stage == Band(RATE, 1.0) else value
        there = present & np.isfinite(y)
        assert np.abs(y[there] - expected).max(initial=0.0) <= tolerance
        assert there[:, 1].all() or n < 3


@pytest.mark.parametrize("name", FILTERS)
def test_a_planted_peak_stays_where_it_is(name: str) -> None:
    t = (np.arange(20000) - 9876) / RATE
    x = np.exp(-0.5 * (t / 0.02) ** 2) * np.cos(2 * np.pi * 17 * t)
    y = filtered(x, FILTERS[name])
    assert np.argmax(y) == 9876


def test_gaps_do_not_ring_and_hum_is_gone_up_to_them() -> None:
    t = np.arange(30000) / RATE
    hum = 100 * np.sin(2 * np.pi * 50 * t + 0.7)
    x = 5000 + hum
    x[10000:12000] = np.nan
    y = filtered(x, Notch(RATE, 50.0))
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    assert np.nanmax(np.abs(y - 5000)) < 0.05 * 100  # worst at the borders
    assert np.abs(y[2000:8000] - 5000).max() < 0.01
    slow = filtered(np.where(np.isnan(x), np.nan, 5000.0), Band(RATE, 1.0))
    assert np.nanmax(np.abs(slow)) < 1e-6 * 5000
    # Further from the gap than the filter reaches, it is as if there were none.
    whole = filtered(5000 + hum, Notch(RATE, 50.0))
    far = np.abs(np.arange(len(x)) - 11000) > 1000 + Notch(RATE, 50.0).reach
    np.testing.assert_allclose(y[far], whole[far], atol=1e-3)


def test_a_gap_of_one_channel_does_not_touch_another() -> None:
    x = lfp_like(30000, 2)
    holed = x.copy()
    holed[5000:9000, 0] = np.nan
    for stages in FILTERS.values():
        np.testing.assert_array_equal(filtered(holed, stages)[:, 1], filtered(x, stages)[:, 1])


@pytest.mark.parametrize("n", [0, 1, 2, 50])
def test_signals_shorter_than_the_filter(n: int) -> None:
    for stages in FILTERS.values():
        y = filtered(np.full((n, 2), 7.0), stages)
        assert y.shape == (n, 2)


def test_a_channel_without_a_sample_stays_missing() -> None:
    x = lfp_like(5000, 2)
    x[:, 0] = np.nan
    x[2500, 0] = 3.0
    for stages in FILTERS.values():
        y = filtered(x, stages)
        assert np.isnan(y[:2500, 0]).all() and np.isfinite(y[:, 1]).all()


def test_filters_that_cannot_be_are_refused() -> None:
    for make, sentence in (
        (lambda: Notch(90.0, 50.0), "needs more than 100 Hz"),
        (lambda: Notch(RATE, 50.0, 60.0), "0 < width <= frequency"),
        (lambda: Notch(RATE, float("nan")), "0 < width"),
        (lambda: Notch(RATE, 50.0, 2.0, 0), "1 or more"),
        (lambda: Band(RATE), "neither a lower nor an upper"),
        (lambda: Band(RATE, 300.0, 100.0), "0 < low < high"),
        (lambda: Band(RATE, None, 625.0), "needs more than 1250 Hz"),
        (lambda: Band(RATE, 700.0), "0 < low < high < 625"),
        (lambda: Band(RATE, float("nan"), 100.0), "0 < low < high"),
    ):
        with pytest.raises(InputError, match=sentence):
            make()


@given(st.integers(2, 9), st.integers(1, 60), st.booleans())
@settings(deadline=None, max_examples=40)
def test_reference_is_the_mean_or_median_of_the_good_channels(channels: int, n: int, holes: bool) -> None:
    rng = np.random.default_rng(n)
    x = rng.standard_normal((n, channels)) * 100
    if holes:
        x[rng.random(x.shape) < 0.3] = np.nan
    good = np.arange(channels - 1)
    half = channels // 2
    for how, f in (("average", np.nanmean), ("median", np.nanmedian)):
        y = rereferenced(x, [np.arange(half)], [good], how)
        np.testing.assert_array_equal(y[:, half:], x[:, half:])
        for row, out in zip(x, y):
            if np.isfinite(row[good]).any():
                np.testing.assert_allclose(out[:half], row[:half] - f(row[good]), rtol=1e-12, atol=1e-10)
            else:
                assert np.isnan(out[:half]).all()
