"""Zero-phase polyphase FIR resampling, in blocks, with the same bits whatever the blocks, threads or processor.

A windowed sinc is applied as small matrix products (a tile of outputs is a fixed matrix times a span of inputs), which runs
several times faster than a loop over taps. Samples and coefficients are rounded to fixed-point grids narrow enough that every
sum is exact in float64: the order of summation, hence BLAS, block size and number of threads, cannot change a bit.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainmu.errors import InputError

__all__ = ["Resampler", "ratio", "resample"]

ATTENUATION = 80.0
"""Stop-band attenuation from the output's Nyquist frequency on, dB; the pass band (ripple 1e-4) reaches 0.8 of it."""
PASS_BAND = 0.8
MAX_UP = 128
"""Largest factor of interpolation (of decimation, upwards); ratios that need more are approximated and the output's rate says so."""
MIN_WEIGHT = 0.4
"""An output is missing where less than this share of its kernel lies on present samples."""
_COEFFICIENT_BITS, _SAMPLE_BITS = 25, 27  # with sum(|h|) < 2, sums stay below 2**53
_TILE = 8
_SEGMENT_VALUES = 1 << 18


def ratio(rate: float, target: float) -> Fraction:
    """Outputs per input, a fraction whose smaller part is at most :data:`MAX_UP`.

    Exact where possible (24414.0625 Hz to 1250 Hz is 32/625). Otherwise the nearest such fraction; the output's rate is then
    ``rate * ratio``, off `target` by at most one part in ``MAX_UP``² or so, and sample times stay exact.

    >>> ratio(30000, 1250), ratio(24414.0625, 1250)
    (Fraction(1, 24), Fraction(32, 625))
    """
    if not (math.isfinite(rate) and math.isfinite(target) and rate > 0 and target > 0):
        raise InputError(f"resampling from {rate!r} Hz to {target!r} Hz: both rates must be positive")
    exact = Fraction(repr(float(target))) / Fraction(repr(float(rate)))
    if exact.numerator <= MAX_UP:
        return exact
    return exact.limit_denominator(MAX_UP) if exact > 1 else 1 / (1 / exact).limit_denominator(MAX_UP)


@dataclass(frozen=True)
class Resampler:
    """Resamples blocks of a signal from `source_rate` to `target_rate`, Hz.

    Output k is centred on input ``k * down / up``: the first samples coincide and nothing is delayed. The filter is a Kaiser-windowed
    sinc: flat to 0.8 of the output's Nyquist frequency, 80 dB down from the Nyquist frequency on, 25 output samples to each side.

    Missing samples (NaN) and everything beyond the ends weigh nothing: the kernel is renormalised over what is present, so an offset
    survives to the border and nothing rings in from a gap. An output is missing where less than 0.4 of its kernel's weight is
    present, that is where its own time lies in a gap; gaps shorter than an output sample are bridged. Outputs further than
    `reach` input samples from a gap are exactly what they would be without it.

    Examples
    --------
    >>> r = Resampler(30000, 1250)
    >>> r.rate, r.n_out(30000), r.support(100, 200, 30000)
    (1250.0, 1250, (1797, 5381))

    References
    ----------
    Crochiere & Rabiner, Multirate Digital Signal Processing (1983), polyphase filters; Ozaki et al., Numer. Algorithms 59 (2012),
    error-free matrix products.
    """

    source_rate: float
    target_rate: float

    @functools.cached_property
    def _fraction(self) -> Fraction:
        return ratio(self.source_rate, self.target_rate)

    @property
    def up(self) -> int:
        return self._fraction.numerator

    @property
    def down(self) -> int:
        return self._fraction.denominator

    @property
    def rate(self) -> float:
        """The exact output rate, Hz: what the rational ratio gives."""
        exact = float(Fraction(self.source_rate) * self._fraction)
        return float(self.target_rate) if abs(exact - self.target_rate) <= 1e-12 * self.target_rate else exact

    @functools.cached_property
    def reach(self) -> int:
        """Half-length of the filter, input samples."""
        width = (1 - PASS_BAND) / 2 * min(1.0, self.up / self.down)  # of the transition, cycles per input sample
        return math.ceil((ATTENUATION - 7.95) / (2.285 * 2 * math.pi * width) / 2)

    def n_out(self, n: int) -> int:
        """Number of outputs of `n` inputs: those that lie before the end of the last input."""
        return -(-n * self.up // self.down)

    def support(self, first: int, last: int, n: int) -> tuple[int, int]:
        """Which inputs [i, j) of `n` the outputs [first, last) depend on."""
        if last <= first:
            return 0, 0
        return min(n, max(0, first * self.down // self.up - self.reach)), min(n, (last - 1) * self.down // self.up + self.reach + 2)

    def block_support(self, first: int, last: int, n: int, channels: int) -> tuple[int, int]:
        """Which inputs [i, j) of `n` :meth:`block` reads: the support of whole segments, so that no rounding depends on the block asked for."""
        jobs = list(self._segments(first, last, channels))
        return self.support(jobs[0][0], jobs[-1][1], n) if jobs else (0, 0)

    def block(self, read: Any, first: int, last: int, n: int, *, pool: ThreadPoolExecutor | None = None) -> NDArray[np.float64]:
        """Outputs [first, last) (time, channel) of a signal of `n` samples.

        Parameters
        ----------
        read : callable
            ``read(i, j)`` gives input rows [i, j) (time, channel), integers or floats with NaN as missing. It is called in this
            thread, for no rows and then for all that are needed.
        first, last : int
            Output samples; any block gives the bits the whole signal would.
        pool : ThreadPoolExecutor or None
            Where to run segments of the block at once.
        """
        channels = np.asarray(read(0, 0)).shape[1]
        jobs = list(self._segments(first, last, channels))
        i, j = self.block_support(first, last, n, channels)
        x = np.asarray(read(i, j))
        if x.shape != (j - i, channels):
            raise InputError(f"resampling read samples [{i}, {j}) and got an array of shape {x.shape}, expected ({j - i}, {channels})")
        out = np.empty((max(0, last - first), channels), dtype=np.float64)

        def run(segment: tuple[int, int]) -> None:
            a, b = segment
            y = self._segment(x, i, a, b, n)
            lo, hi = max(a, first), min(b, last)
            out[lo - first : hi - first] = y[lo - a : hi - a]

        with one_blas_thread():
            for _ in map(run, jobs) if pool is None else pool.map(run, jobs):
                pass
        return out

    # -- segments: fixed spans of outputs, so that rounding grids do not depend on the block asked for ------------------
    @functools.cached_property
    def _tiles(self) -> list[tuple[int, NDArray[np.float64]]]:
        """For each of the tiles of a period: offset of its first input, and its matrix (output, input) in fixed point."""
        n, tiles = self._tile, []
        for g in range(math.lcm(n, self.up) // n):
            k = np.arange(g * n, (g + 1) * n)
            low = g * n * self.down // self.up - self.reach
            width = (n - 1) * self.down // self.up + 2 * self.reach + 3
            # Distance of each input from each output, exact in integers of 1/up of an input sample.
            u = ((low + np.arange(width))[None, :] * self.up - k[:, None] * self.down) / self.up
            tiles.append((low, _fixed_point(_kernel(u, self.reach, min(1.0, self.up / self.down)))))
        return tiles

    @functools.cached_property
    def _tile(self) -> int:
        # A tile that divides or is divided by `up` keeps the number of distinct matrices small.
        near = [n for n in range(_TILE, 4 * _TILE) if self.up % n == 0 or n % self.up == 0]
        return near[0] if near else _TILE

    def segment(self, channels: int) -> int:
        """Outputs that are made at a time; blocks that begin and end at multiples of it make none in vain."""
        period = self._tile * len(self._tiles)
        wanted = _SEGMENT_VALUES * self.up // (self.down * max(1, channels))
        return period * max(1, wanted // period)

    def _segments(self, first: int, last: int, channels: int) -> Iterator[tuple[int, int]]:
        size = self.segment(channels)
        for s in range(first // size, -(-last // size)):
            yield s * size, (s + 1) * size

    def _segment(self, x: NDArray[Any], offset: int, first: int, last: int, n: int) -> NDArray[np.float64]:
        """Outputs [first, last), a whole number of periods, from input rows `x` that start at `offset`."""
        low = first * self.down // self.up - self.reach
        high = last * self.down // self.up + self.reach + 2
        i, j = max(low, offset), min(high, offset + len(x))
        if i >= j:
            return np.full((last - first, x.shape[1]), np.nan)
        rows = x[i - offset : j - offset]
        padded = _scratch(high - low + 1, x.shape[1])
        padded[: i - low] = padded[j - low :] = 0.0
        inside = padded[i - low : j - low]
        step, absent = _to_grid(rows, inside)
        y = self._product(padded, last - first)
        if absent is None and low >= 0 and high <= n:
            _scaled_columns(y, step * 2.0**-_COEFFICIENT_BITS, y)
            return y
        weight = self._weights(absent, i - low, j - low, len(padded), last - first)
        _scaled_columns(y, step, y)
        with np.errstate(divide="ignore", invalid="ignore"):
            y /= weight
        y[np.broadcast_to(weight < MIN_WEIGHT * 2**_COEFFICIENT_BITS, y.shape)] = np.nan
        return y

    def _weights(self, absent: NDArray[np.bool_] | None, i: int, j: int, size: int, outputs: int) -> NDArray[np.float64]:
        """Kernel weight on present samples, (output, channel) or (output, 1) where all channels miss the same; full weight is 2**25."""
        if absent is None:
            present = np.ones((j - i, 1))
        elif (absent == absent[:, :1]).all():
            present = (~absent[:, :1]).astype(np.float64)
        else:
            present = (~absent).astype(np.float64)
        padded = np.zeros((size, present.shape[1]))
        padded[i:j] = present
        return self._product(padded, outputs)

    def _product(self, x: NDArray[np.float64], outputs: int) -> NDArray[np.float64]:
        """Fixed-point outputs (time, channel) of the padded segment `x`, whose row 0 is the first input of its first tile."""
        n, period = self._tile, len(self._tiles)
        hop = period * n * self.down // self.up
        count = outputs // (period * n)
        channels = x.shape[1]
        out = np.empty((count, period, n, channels))
        base = self._tiles[0][0]
        for g, (low, matrix) in enumerate(self._tiles):
            spans = np.lib.stride_tricks.sliding_window_view(x, matrix.shape[1], axis=0)[low - base :: hop][:count]  # (tile, channel, input)
            if channels >= 4:
                np.matmul(matrix, spans.transpose(0, 2, 1), out=out[:, g])
            else:  # a product a tile would be mostly call overhead
                for c in range(channels):
                    out[:, g, :, c] = np.ascontiguousarray(spans[:, c]) @ matrix.T
        return out.reshape(count * period * n, channels)


def resample(x: ArrayLike, rate: float, target: float, *, threads: int = 2) -> tuple[NDArray[np.float32], float]:
    """A whole array at another rate, as float32, and that rate.

    Parameters
    ----------
    x : array (time, channel) or (time,)
        Integers or floats; NaN is missing.
    rate, target : float, Hz
        The returned rate differs from `target` only where no fraction with a numerator up to 128 gives it.

    Examples
    --------
    >>> y, rate = resample(np.ones((3000, 2)), 30000.0, 1250.0)
    >>> y.shape, rate, bool((y == 1).all())
    ((125, 2), 1250.0, True)
    """
    a = np.asarray(x)
    columns = a[:, None] if a.ndim == 1 else a
    if columns.ndim != 2 or columns.dtype.kind not in "iufb":
        raise InputError(f"resampling an array of type {a.dtype} and shape {a.shape}, expected numbers (time, channel) or (time,)")
    r = Resampler(float(rate), float(target))
    with ThreadPoolExecutor(max(1, threads)) as pool:
        y = r.block(lambda i, j: columns[i:j], 0, r.n_out(len(columns)), len(columns), pool=pool)
    y = y.astype(np.float32)
    return (y[:, 0] if a.ndim == 1 else y), r.rate


def _kernel(u: NDArray[np.float64], reach: int, band: float) -> NDArray[np.float64]:
    """Kaiser-windowed sinc at distances `u` (input samples); `band` is the output's share of the input's Nyquist frequency."""
    beta = 0.1102 * (ATTENUATION - 8.7)
    cut = (1 + PASS_BAND) / 2 * band
    window = np.i0(beta * np.sqrt(np.clip(1 - (u / (reach + 1)) ** 2, 0, None))) / np.i0(beta)
    return np.where(np.abs(u) <= reach, np.sinc(cut * u) * window, 0.0)


def _fixed_point(h: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of whole numbers that sum to exactly 2**25, so that an offset passes unchanged."""
    one = 2.0**_COEFFICIENT_BITS
    w = np.rint(h / h.sum(axis=1, keepdims=True) * one)
    w[np.arange(len(w)), np.abs(w).argmax(axis=1)] += one - w.sum(axis=1)
    return w


def _to_grid(rows: NDArray[Any], out: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_] | None]:
    """Write `rows` into `out` as whole numbers of 27 bits; their step (channel,), a power of two, and where samples are missing."""
    if rows.dtype.kind == "b" or (rows.dtype.kind in "iu" and rows.dtype.itemsize <= 2):
        out[...] = rows
        return np.ones(rows.shape[1]), None
    low, high = (e.astype(np.float64) for e in column_extremes(rows))
    if (np.isfinite(low) & np.isfinite(high)).all():
        exponent = np.frexp(np.maximum(high, -low))[1] - _SAMPLE_BITS
        _scaled_columns(rows, np.ldexp(1.0, -exponent), out)
        np.rint(out, out=out)
        return np.ldexp(1.0, exponent), None
    out[...] = rows
    absent = ~np.isfinite(out)
    out[absent] = 0.0
    low, high = column_extremes(out)
    exponent = np.frexp(np.maximum(high, -low))[1] - _SAMPLE_BITS
    _scaled_columns(out, np.ldexp(1.0, -exponent), out)
    np.rint(out, out=out)
    return np.ldexp(1.0, exponent), absent


_threads = threading.local()


def _scratch(rows: int, columns: int) -> NDArray[np.float64]:
    """This thread's working memory: fresh pages for every segment would cost as much as the arithmetic."""
    kept = getattr(_threads, "kept", np.empty(0))
    if kept.size < rows * columns:
        kept = _threads.kept = np.empty(rows * columns)
    return kept[: rows * columns].reshape(rows, columns)


def column_extremes(x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Least and greatest of each column of `x` (time, channel), NaN where a column holds one."""
    wide = _wide(x)
    if wide is None:
        return x.min(axis=0), x.max(axis=0)
    low, high = (f(wide, axis=0).reshape(-1, x.shape[1]) for f in (np.min, np.max))
    rest = x[wide.size // x.shape[1] :]
    return np.concatenate([low, rest]).min(axis=0), np.concatenate([high, rest]).max(axis=0)


def column_sums(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sum of each column of `x` (time, channel)."""
    wide = _wide(x)
    if wide is None:
        return x.sum(axis=0)
    return wide.sum(axis=0).reshape(-1, x.shape[1]).sum(axis=0) + x[wide.size // x.shape[1] :].sum(axis=0)


def columns_equal(x: NDArray[Any], value: NDArray[Any]) -> NDArray[np.bool_]:
    """Where `x` (time, channel) equals its channel's `value` (channel,)."""
    wide = _wide(x)
    if wide is None:
        return x == value
    out = np.empty(x.shape, dtype=bool)
    n = wide.size // x.shape[1]
    np.equal(wide, np.tile(value, wide.shape[1] // x.shape[1]), out=out[:n].reshape(wide.shape))
    np.equal(x[n:], value, out=out[n:])
    return out


def _scaled_columns(x: NDArray[Any], factor: NDArray[np.float64], out: NDArray[np.float64]) -> None:
    """Write `x` (time, channel) times `factor` (channel,) into `out`, which may be `x`."""
    wide, into = _wide(x), _wide(out)
    if wide is None or into is None:
        np.multiply(x, factor, out=out)
        return
    n = into.size // out.shape[1]
    np.multiply(wide, np.tile(factor, into.shape[1] // x.shape[1]), out=into)
    np.multiply(x[n:], factor, out=out[n:])


def _wide(x: NDArray[Any]) -> NDArray[Any] | None:
    """Many rows of `x` as one (numpy is several times faster on long rows), leaving a rest; None where that does not help."""
    fold = 1024 // max(1, x.shape[1])
    if fold < 2 or len(x) < 2 * fold or not x.flags.c_contiguous:
        return None
    return x[: len(x) // fold * fold].reshape(-1, fold * x.shape[1])


@functools.cache
def _blas() -> Any:
    import threadpoolctl

    return threadpoolctl.ThreadpoolController()


def one_blas_thread() -> Any:
    """A context in which BLAS runs in the calling thread: the products are small and the threads are ours."""
    return _blas().limit(limits=1, user_api="blas")
