from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st

from brainmu.dsp.resample import MAX_UP, Resampler, column_extremes, column_sums, columns_equal, ratio, resample
from brainmu.errors import InputError

RATES = [(30000.0, 1250.0), (24414.0625, 1250.0), (512.0, 250.0), (1250.0, 500.0), (2000.0, 1250.0), (29999.954846, 1250.0), (100.0, 150.0)]


def streamed(resampler: Resampler, x: np.ndarray, seed: int, threads: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n, out, k = resampler.n_out(len(x)), [], 0
    with ThreadPoolExecutor(threads) as pool:
        while k < n:
            stop = min(n, k + int(rng.integers(1, 4000 * max(1, resampler.up // resampler.down))))
            out.append(resampler.block(lambda i, j: x[i:j], k, stop, len(x), pool=pool if threads > 1 else None))
            k = stop
    return np.concatenate(out).astype(np.float32)


@pytest.mark.parametrize(("source", "target"), RATES)
def test_any_blocks_and_threads_give_the_same_bits(source: float, target: float) -> None:
    rng = np.random.default_rng(1)
    x = np.cumsum(rng.standard_normal((12000, 3)), axis=0).astype(np.float32)
    x[1000:2000, 1] = np.nan
    x[7, 0] = np.nan
    r = Resampler(source, target)
    whole, rate = resample(x, source, target, threads=2)
    assert rate == r.rate
    for seed, threads in ((0, 1), (1, 2)):
        np.testing.assert_array_equal(streamed(r, x, seed, threads), whole)


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.int8, np.int32, np.float32, np.float64])
def test_close_to_direct_convolution_in_float64(dtype: type) -> None:
    rng = np.random.default_rng(2)
    x = (rng.standard_normal((20000, 2)) * 30 + 50).astype(dtype)
    y, _ = resample(x, 1000.0, 400.0)
    r = Resampler(1000.0, 400.0)
    # The same filter, applied the slow way: stuff with zeros, convolve, keep every fifth.
    u = np.arange(-r.reach * r.up, r.reach * r.up + 1) / r.up
    beta = 0.1102 * (80 - 8.7)
    cut = 0.9 * r.up / r.down
    h = np.sinc(cut * u) * np.i0(beta * np.sqrt(np.clip(1 - (u / (r.reach + 1)) ** 2, 0, None)))
    stuffed = np.zeros((len(x) * r.up, 3))
    stuffed[:: r.up] = np.c_[x, np.ones(len(x))]
    slow = scipy.signal.fftconvolve(stuffed, h[:, None], mode="same", axes=0)[:: r.down]
    slow = slow[:, :2] / slow[:, 2:]  # each phase of the filter passes an offset unchanged
    inside = slice(60, -60)
    assert np.abs(y[inside] - slow[inside]).max() < 1e-5 * np.std(x.astype(float))


def test_pass_band_is_kept_without_delay_and_the_stop_band_removed() -> None:
    t = np.arange(60000) / 30000
    for f in (1.0, 80.0, 200.0, 495.0):
        y, rate = resample(np.sin(2 * np.pi * f * t + 0.3), 30000.0, 1250.0)
        expected = np.sin(2 * np.pi * f * np.arange(len(y)) / rate + 0.3)
        assert np.abs(y - expected)[50:-50].max() < 2e-4
    for f in (626.0, 800.0, 1250.0, 5000.0):
        assert np.abs(resample(np.sin(2 * np.pi * f * t), 30000.0, 1250.0)[0])[50:-50].max() < 2e-4


def test_offset_survives_exactly_up_to_edges_and_gaps() -> None:
    x = np.full((50000, 5), 1234.5, dtype=np.float32)
    x[20000:23000, 2] = np.nan
    y, _ = resample(x, 30000.0, 1250.0)
    present = ~np.isnan(y)
    np.testing.assert_allclose(y[present], 1234.5, rtol=1e-7)
    assert not np.isnan(y[:, [0, 1, 3, 4]]).any()


def test_missing_stays_missing_and_reaches_no_further_than_the_filter() -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((60000, 2)).astype(np.float32)
    holed = x.copy()
    holed[24000:27000, 0] = np.nan
    whole, _ = resample(x, 30000.0, 1250.0)
    y, _ = resample(holed, 30000.0, 1250.0)
    missing = np.flatnonzero(np.isnan(y[:, 0]))
    assert missing[0] in (1000, 1001) and missing[-1] in (1123, 1124) and len(missing) == missing[-1] - missing[0] + 1
    reach = Resampler(30000.0, 1250.0).reach / 24
    far = (np.arange(len(y)) < 1000 - reach - 1) | (np.arange(len(y)) > 1125 + reach + 1)
    # The grid of a segment follows its largest sample, so agreement is to rounding, not to the bit.
    np.testing.assert_allclose(y[far, 0], whole[far, 0], atol=1e-6)
    np.testing.assert_array_equal(y[:, 1], whole[:, 1])


def test_a_huge_channel_does_not_coarsen_its_neighbour() -> None:
    rng = np.random.default_rng(4)
    x = rng.standard_normal((20000, 2))
    alone, _ = resample(x[:, :1], 1000.0, 400.0)
    x[:, 1] *= 1e12
    both, _ = resample(x, 1000.0, 400.0)
    np.testing.assert_allclose(both[:, :1], alone, atol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 2, 30, 500])
def test_signals_shorter_than_the_filter(n: int) -> None:
    y, _ = resample(np.full((n, 2), 5, dtype=np.int16), 30000.0, 1250.0)
    assert y.shape == (-(-n // 24), 2)
    if n >= 30:
        np.testing.assert_array_equal(y, 5.0)


def test_infinite_samples_count_as_missing() -> None:
    x = np.ones(5000)
    x[2000:3000] = np.inf
    y, _ = resample(x, 1000.0, 500.0)
    assert np.isnan(y[1050:1450]).all() and np.isfinite(y[:950]).all()


@given(st.floats(1e-3, 1e5), st.floats(1e-3, 1e5))
@settings(deadline=None, max_examples=200)
def test_ratio_is_near_and_small(rate: float, target: float) -> None:
    f = ratio(rate, target)
    assert min(f.numerator, f.denominator) <= MAX_UP
    assert abs(float(f) * rate / target - 1) <= 1 / MAX_UP


def test_fractional_rates_state_the_rate_they_give() -> None:
    assert ratio(24414.0625, 1250.0) == Fraction(32, 625)
    r = Resampler(29999.954846, 1250.0)
    assert (r.up, r.down) == (1, 24)
    assert r.rate == pytest.approx(29999.954846 / 24, rel=1e-15)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan, np.inf])
def test_impossible_rates_are_refused(bad: float) -> None:
    with pytest.raises(InputError, match="both rates must be positive"):
        resample(np.zeros(10), 100.0, bad)


def test_text_is_refused() -> None:
    with pytest.raises(InputError, match="expected numbers"):
        resample(np.array(["a", "b"]), 100.0, 50.0)


@given(st.integers(1, 40), st.integers(0, 300), st.booleans())
@settings(deadline=None, max_examples=50)
def test_column_functions_equal_numpy(channels: int, n: int, gap: bool) -> None:
    x = np.random.default_rng(n).integers(-5, 5, (n * 9 + 1, channels)).astype(float)
    np.testing.assert_allclose(column_sums(x), x.sum(axis=0))
    np.testing.assert_array_equal(columns_equal(x, x[0]), x == x[0])
    if gap:
        x[0, 0] = np.nan
    low, high = column_extremes(x)
    np.testing.assert_array_equal(low, x.min(axis=0))
    np.testing.assert_array_equal(high, x.max(axis=0))
