"""Notch and band filters in blocks, and re-referencing: zero-phase, aware of missing samples, the same bits whatever the blocks.

A filter is a symmetric FIR kernel, applied by FFT to segments that lie at fixed places of the signal, each with the filter's reach on either
side: which block is asked for, by which thread or process, does not enter the arithmetic. Missing samples (NaN) and everything beyond the
ends weigh nothing: kernels are renormalised over what is present. An output is missing where its input is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainmu.errors import InputError

__all__ = ["Band", "FilterChain", "Notch", "Stage", "filtered", "rereferenced"]

ATTENUATION = 80.0
"""Of the band's stop bands, dB; pass bands are flat to 1e-4."""
_SHAPE = 12.0  # of the notch's Kaiser window: side lobes 88 dB down
_LEAST_CERTAIN = 0.2
_NOTHING = 1e-9
_LEAST_FFT = 1 << 13
_FFT_VALUES = 1 << 20


@dataclass(frozen=True)
class Notch:
    """Takes mains hum and its harmonics out.

    At each frequency the amplitude and phase of the sinusoid are estimated under a Kaiser window (a weighted mean over the samples present,
    so also beside gaps and at the ends) and subtracted. The gain is 0 at each frequency, -3 dB at half of `width` to either side,
    -38 dB within a twentieth of it, and 1 (to 1e-4) beyond 1.2 times `width`. A constant passes unchanged.

    Parameters
    ----------
    rate : float, Hz
    frequency : float, Hz
        Usually 50 or 60.
    width : float, Hz
    harmonics : int or None
        How many multiples of `frequency`, itself included; all below half the rate where None.

    Raises
    ------
    InputError
        If `frequency` does not fit below half the rate.
    """

    rate: float
    frequency: float
    width: float = 2.0
    harmonics: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.frequency) and self.frequency > 0 and 0 < self.width <= self.frequency):
            raise InputError(f"notch is {self.frequency!r} Hz with a width of {self.width!r} Hz, expected 0 < width <= frequency")
        if self.harmonics is not None and self.harmonics < 1:
            raise InputError(f"notch takes {self.harmonics!r} harmonics, expected 1 or more (the first is the frequency itself)")
        if not self.frequencies:
            raise InputError(f"notch at {self.frequency:g} Hz: the signal is sampled at {self.rate:g} Hz and needs more than {2 * self.frequency:g} Hz")

    @functools.cached_property
    def frequencies(self) -> list[float]:
        """The multiples that lie below half the rate, Hz."""
        most = math.ceil((self.rate / 2 - self.width) / self.frequency) - 1
        return [k * self.frequency for k in range(1, (most if self.harmonics is None else min(most, self.harmonics)) + 1)]

    @functools.cached_property
    def reach(self) -> int:
        def gain(t: float) -> float:  # of the window of half-length t (s) at half the width, against its gain at 0
            u = (math.pi * self.width * t) ** 2 - _SHAPE**2
            bent = math.sin(math.sqrt(u)) / math.sqrt(u) if u > 0 else math.sinh(math.sqrt(-u)) / math.sqrt(-u) if u < 0 else 1.0
            return bent * _SHAPE / math.sinh(_SHAPE)

        from scipy import optimize

        half = optimize.brentq(lambda t: gain(t) - (1 - math.sqrt(0.5)), 1e-3 / self.width, _SHAPE / math.pi / self.width)
        return max(1, round(half * self.rate))  # type: ignore[arg-type]

    @functools.cached_property
    def _kernels(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The window, and the window times the sum of cosines."""
        k = np.arange(-self.reach, self.reach + 1)
        window = np.kaiser(len(k), _SHAPE)
        window /= window.sum()
        return window, window * sum(np.cos(2 * np.pi * f / self.rate * k) for f in self.frequencies)

    @functools.cached_property
    def whole(self) -> NDArray[np.float64]:
        """What is subtracted where nothing is missing."""
        window, waves = self._kernels
        return 2 * (waves - waves.sum() * window)

    def describe(self) -> dict[str, Any]:
        """What a store says of it."""
        return {
            "filter": "notch", "frequencies": self.frequencies, "width": self.width, "attenuation_db_at_half_width": 3.0,
            "half_length": self.reach / self.rate, "taps": 2 * self.reach + 1, "rate": self.rate,
        }  # fmt: skip

    def apply(self, x: NDArray[np.float64], present: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """`x` (channel, time) without the hum, `reach` samples shorter on either side; `present` is 1 where a sample counts."""
        window, waves = self._kernels
        inner = x[:, self.reach : x.shape[1] - self.reach]
        if present is None:
            return inner - _through(x, self)
        level, hum = _convolved(x, [window, waves])
        weight, leak = _convolved(present, [window, waves])
        weight = np.maximum(weight, window[0])
        return inner - 2 * (hum - level / weight * leak) / weight


@dataclass(frozen=True)
class Band:
    """High-pass, low-pass or band-pass by Kaiser-windowed sincs.

    The pass band (ripple 1e-4) is [`low`, `high`]. Outside, over a transition of a quarter of the edge (at least 2 Hz, at most the edge itself or
    what is left below half the rate), the gain falls through -6 dB in its middle to -80 dB at its end.

    Parameters
    ----------
    rate : float, Hz
    low, high : float or None, Hz
        None leaves that side open.

    Raises
    ------
    InputError
        If the band does not fit below half the rate.

    References
    ----------
    Widmann, Schröger & Maess 2015, J Neurosci Methods 250:34 (transition widths); Kaiser 1974.
    """

    rate: float
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        low, high = self.low, self.high
        if low is None and high is None:
            raise InputError("band has neither a lower nor an upper edge, expected at least one")
        if not 0 < (low if low is not None else 1e-9) < (high if high is not None else self.rate / 2):
            raise InputError(f"band is {low!r} to {high!r} Hz at {self.rate:g} Hz, expected 0 < low < high < {self.rate / 2:g}")
        if high is not None and high >= self.rate / 2:
            raise InputError(f"band ends at {high:g} Hz but the signal is sampled at {self.rate:g} Hz: it needs more than {2 * high:g} Hz")

    @functools.cached_property
    def transitions(self) -> tuple[float | None, float | None]:
        """Widths (Hz) of the falls below `low` and above `high`."""
        low = None if self.low is None else min(max(0.25 * self.low, 2.0), self.low)
        high = None if self.high is None else min(max(0.25 * self.high, 2.0), self.rate / 2 - self.high)
        return low, high

    @functools.cached_property
    def reach(self) -> int:
        return max(self._reach(t) for t in self.transitions if t is not None)

    def _reach(self, transition: float) -> int:
        return math.ceil((ATTENUATION - 7.95) / (2.285 * 2 * math.pi * transition / self.rate) / 2)

    @functools.cached_property
    def _kernels(self) -> list[tuple[float, NDArray[np.float64]]]:
        """Low-pass kernels and their signs: one that ends above the band, minus one that ends below it."""
        out = []
        below, above = self.transitions
        if self.high is not None and above is not None:
            out.append((1.0, self._low_pass(self.high + above / 2, above)))
        if self.low is not None and below is not None:
            out.append((-1.0, self._low_pass(self.low - below / 2, below)))
        return out

    @functools.cached_property
    def whole(self) -> NDArray[np.float64]:
        """What the kernels amount to where nothing is missing."""
        return np.sum([sign * h for sign, h in self._kernels], axis=0)

    def _low_pass(self, cut: float, transition: float) -> NDArray[np.float64]:
        reach = self._reach(transition)
        k = np.arange(-reach, reach + 1)
        h = np.sinc(2 * cut / self.rate * k) * np.kaiser(len(k), 0.1102 * (ATTENUATION - 8.7))
        return np.pad(h / h.sum(), self.reach - reach)

    def describe(self) -> dict[str, Any]:
        """What a store says of it."""
        corners = [f + s * t / 2 for f, s, t in zip((self.low, self.high), (-1, 1), self.transitions) if f is not None and t is not None]
        return {
            "filter": "band", "low": self.low, "high": self.high, "transitions": [t for t in self.transitions if t is not None], "half_amplitude_at": corners,
            "attenuation_db": ATTENUATION, "half_length": self.reach / self.rate, "taps": 2 * self.reach + 1, "rate": self.rate,
        }  # fmt: skip

    def apply(self, x: NDArray[np.float64], present: NDArray[np.float64] | None) -> NDArray[np.float64]:
        """`x` (channel, time) within the band, `reach` samples shorter on either side; `present` is 1 where a sample counts."""
        inner = x[:, self.reach : x.shape[1] - self.reach]
        if present is None:
            y = _through(x, self)
            return inner + y if self.high is None else y
        kernels = [h for _, h in self._kernels]
        out = inner.copy() if self.high is None else np.zeros(inner.shape)
        weights, certain = _convolved(present, kernels), _convolved(present, [np.abs(h) for h in kernels])
        for (sign, _), y, weight, total in zip(self._kernels, _convolved(x, kernels), weights, certain):
            # What is left of the kernel may nearly cancel (a few samples alone between long gaps): then nothing can be said.
            good = weight > _LEAST_CERTAIN * np.maximum(total, _NOTHING)
            out += sign * np.where(good, y / np.where(good, weight, 1.0), np.nan)
        return out


Stage = Notch | Band
"""A filter: `reach` (half its length, samples), ``describe()`` and ``apply(x, present)``."""


def _convolved(x: NDArray[np.float64], kernels: list[NDArray[np.float64]]) -> list[NDArray[np.float64]]:
    """Rows of `x` (channel, time) convolved with each kernel (odd length), where it lies within `x`."""
    from scipy import fft as sp_fft

    n = sp_fft.next_fast_len(x.shape[1], real=True)
    spectrum: Any = sp_fft.rfft(x, n, axis=1)
    cut = slice(len(kernels[0]) - 1, x.shape[1])
    gains: list[Any] = [sp_fft.rfft(h, n) for h in kernels]
    filtered: list[Any] = [sp_fft.irfft(spectrum * gain, n, axis=1) for gain in gains]
    return [y[:, cut] for y in filtered]


def _through(x: NDArray[np.float64], stage: Stage) -> NDArray[np.float64]:
    """Rows of `x`, which miss nothing, convolved with the stage's whole kernel: the way that nearly all samples take."""
    from scipy import fft as sp_fft

    n = sp_fft.next_fast_len(x.shape[1], real=True)
    spectrum: Any = sp_fft.rfft(x, n, axis=1)
    spectrum *= _gain(stage, n)
    filtered: Any = sp_fft.irfft(spectrum, n, axis=1, overwrite_x=True)
    return filtered[:, 2 * stage.reach : x.shape[1]]


@functools.lru_cache(maxsize=8)
def _gain(stage: Stage, n: int) -> Any:
    from scipy import fft as sp_fft

    return sp_fft.rfft(stage.whole, n)


class FilterChain:
    """Filters one after another on blocks of a signal.

    Parameters
    ----------
    stages : sequence of (Stage, columns)
        Each filter with the channels (indices, or None for all) it is for.

    Attributes
    ----------
    reach : int
        Samples on either side that an output depends on.
    segment : int
        Outputs are made in segments of this many, the k-th beginning at output ``k * segment``.
    """

    def __init__(self, stages: Sequence[tuple[Stage, NDArray[np.intp] | None]]) -> None:
        self.stages = list(stages)
        self.reach = sum(stage.reach for stage, _ in self.stages)
        self._fft = max(_LEAST_FFT, 1 << (8 * self.reach).bit_length())
        self.segment = self._fft - 2 * self.reach

    def describe(self) -> list[dict[str, Any]]:
        """What a store says of the filters, in the order in which they are applied."""
        return [stage.describe() for stage, _ in self.stages]

    def block(
        self, read: Callable[[int, int], NDArray[np.float64]], first: int, last: int, n: int, *, pool: ThreadPoolExecutor | None = None,
        dtype: type = np.float64,
    ) -> NDArray[Any]:  # fmt: skip
        """Outputs [first, last) (time, channel) of a signal of `n` samples; any block gives the bits the whole signal would.

        Parameters
        ----------
        read : callable
            ``read(i, j)`` gives input rows [i, j) (time, channel), NaN where missing; called once, in this thread.
        pool : ThreadPoolExecutor or None
            Where to run segments and channels at once.
        dtype : type
            Of the outputs.
        """
        begin, end = first // self.segment * self.segment, min(n, -(-last // self.segment) * self.segment)
        i, j = max(0, begin - self.reach), min(n, end + self.reach)
        x = np.asarray(read(i, j))
        channels = x.shape[1]
        out = np.empty((max(0, last - first), channels), dtype)
        wide = max(1, _FFT_VALUES // self._fft)

        def run(job: tuple[int, int]) -> None:
            a, c = job
            columns = np.arange(c, min(channels, c + wide))
            y = self._segment(x[:, c : c + wide], i, a, min(n, a + self.segment), n, columns)
            lo, hi = max(a, first), min(a + self.segment, last)
            out[lo - first : hi - first, c : c + wide] = y[:, lo - a : hi - a].T

        jobs = [(a, c) for a in range(begin, end, self.segment) for c in range(0, channels, wide)] if last > first else []
        for _ in map(run, jobs) if pool is None else pool.map(run, jobs):
            pass
        return out

    def _segment(self, x: NDArray[np.float64], offset: int, a: int, b: int, n: int, columns: NDArray[np.intp]) -> NDArray[np.float64]:
        """Outputs [a, b) (channel, time) of some columns, from rows that begin at `offset`."""
        low, high = a - self.reach, b + self.reach
        i, j = max(0, low), min(n, high)
        part = x[i - offset : j - offset]
        if low >= 0 and high <= n and np.isfinite(part.sum(dtype=np.float64)):
            rows = np.ascontiguousarray(part.T, dtype=np.float64)
            for stage, only in self.stages:
                y = stage.apply(rows, None)
                if only is not None:
                    kept = np.flatnonzero(~np.isin(columns, only))
                    y[kept] = rows[kept, stage.reach : rows.shape[1] - stage.reach]
                rows = y
            return rows
        rows = np.zeros((len(columns), high - low))
        rows[:, i - low : j - low] = part.T
        absent = ~np.isfinite(rows)
        present = (~absent).astype(np.float64)
        present[:, : i - low] = present[:, j - low :] = 0.0
        rows[absent] = 0.0
        for stage, only in self.stages:
            rows, present = self._stage(stage, rows, present, np.arange(len(rows)) if only is None else np.flatnonzero(np.isin(columns, only)))
        rows[present == 0] = np.nan
        return rows

    def _stage(
        self, stage: Stage, rows: NDArray[np.float64], present: NDArray[np.float64], only: NDArray[np.intp]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
        """A filter on the channels `only`, of which some samples are missing."""
        cut = slice(stage.reach, rows.shape[1] - stage.reach)
        out, kept = rows[:, cut].copy(), present[:, cut].copy()
        # Channels that miss nothing take the short way, so that another's gap does not change them.
        full = present[only].all(axis=1)
        if full.any():
            out[only[full]] = stage.apply(rows[only[full]], None)
        holed = only[~full]
        if len(holed):
            alike = bool((present[holed] == present[holed[0]]).all())
            y = stage.apply(rows[holed], present[holed[:1]] if alike else present[holed])
            kept[holed] = np.where(np.isfinite(y), kept[holed], 0.0)
            out[holed] = np.where(kept[holed] > 0, y, 0.0)
        return out, kept


def filtered(x: ArrayLike, stages: Stage | Sequence[Stage], *, threads: int = 2) -> NDArray[np.float32]:
    """A whole array (time,) or (time, channel) through one filter or several, as float32; NaN is missing.

    Examples
    --------
    >>> t = np.arange(5000) / 1000
    >>> hum = np.sin(2 * np.pi * 50 * t + 1)
    >>> bool(np.abs(filtered(hum + 7, Notch(1000.0, 50.0)) - 7).max() < 0.05)
    True
    """
    a = np.asarray(x)
    columns = a[:, None] if a.ndim == 1 else a
    chain = FilterChain([(s, None) for s in (stages if isinstance(stages, Sequence) else [stages])])
    with ThreadPoolExecutor(max(1, threads)) as pool:
        y = chain.block(lambda i, j: columns[i:j], 0, len(columns), len(columns), pool=pool, dtype=np.float32)
    return y[:, 0] if a.ndim == 1 else y


def rereferenced(x: NDArray[Any], groups: Sequence[NDArray[np.intp]], sources: Sequence[NDArray[np.intp]], how: str) -> NDArray[np.float64]:
    """Rows of `x` (time, channel) against a reference of their own.

    Parameters
    ----------
    x : float (time, channel)
        In one unit; NaN is missing.
    groups : sequence of integer arrays
        Channels that share a reference; those in no group are kept as they are.
    sources : sequence of integer arrays
        For each group, the channels the reference is made of.
    how : "average" or "median"
        Over those of `sources` that are present at a sample; where none is, the sample is missing.

    Examples
    --------
    >>> x = np.array([[1.0, 2.0, 9.0]])
    >>> rereferenced(x, [np.arange(3)], [np.array([0, 1])], "average")
    array([[-0.5,  0.5,  7.5]])
    """
    out = np.array(x, dtype=np.float64)
    for members, of in zip(groups, sources):
        part = np.ascontiguousarray(x[:, of], dtype=np.float64)
        missing = ~np.isfinite(part)
        if missing.any():
            part[missing] = np.nan
            empty = missing.all(axis=1)
            part[empty] = 0.0
            level = np.nanmean(part, axis=1) if how == "average" else np.nanmedian(part, axis=1)
            level[empty] = np.nan
        else:
            level = part.mean(axis=1) if how == "average" else np.median(part, axis=1)
        out[:, members] -= level[:, None]
    return out
