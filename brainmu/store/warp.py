"""A signal of one clock on a uniform grid of another, where the map between them bends or jumps: interpolated sample by sample, lazily."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Signal
from brainmu.formats.lazy import Rows
from brainmu.store.clocks import ClockMap

__all__ = ["Warped"]

_BETA = 9.0
_ROWS = 1 << 14


class Warped(Rows):
    """Samples of `signal` at session times ``start + k / rate``, (time, channel) float32 in its unit.

    Each is a Kaiser-windowed sinc interpolation around its own place in the source (32 taps below 5 kHz, 8 above, where what sleep and replay are made
    of lies far below the Nyquist frequency): flat to 0.8 of the Nyquist frequency, off by less than 1e-4 there. Missing samples weigh nothing; a sample
    whose nearest neighbour is missing, that lies in a jump of the clock, or beyond the source, is missing. The value of a sample does not depend on
    which block it is read in.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, signal: Signal, clock: ClockMap, start: float, rate: float, n: int) -> None:
        assert signal.rate is not None
        self.signal, self.clock, self.start, self.rate = signal, clock, start, rate
        self.shape = (n, signal.n_channels)
        self.half = 16 if signal.rate <= 5000 else 4
        self.base = signal.values  # what the checksum of a recording in memory looks at

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        out = np.empty((max(0, j - i), self.shape[1]), dtype=np.float32)
        for a in range(i, j, _ROWS):
            b = min(j, a + _ROWS)
            out[a - i : b - i] = self._rows(a, b)
        return out

    def _rows(self, a: int, b: int) -> NDArray[np.float32]:
        s = self.signal
        assert s.rate is not None
        place = (self.clock.to_own(self.start + np.arange(a, b) / self.rate) - s.start) * s.rate
        inside = (place > -0.5) & (place < s.n_samples - 0.5)
        if not inside.any():
            return np.full((b - a, self.shape[1]), np.nan, dtype=np.float32)
        place = np.where(inside, place, np.nan)
        lo = max(0, int(np.floor(np.nanmin(place))) - self.half)
        hi = min(s.n_samples, int(np.floor(np.nanmax(place))) + self.half + 2)
        values = s.read(lo, hi).astype(np.float64)
        for p, q in s.gaps:
            values[max(0, s.index(p) - lo) : max(0, s.index(q) - lo)] = np.nan
        return _interpolate(values, np.where(inside, place - lo, 0.0), inside, self.half)


def _interpolate(x: NDArray[np.float64], place: NDArray[np.float64], inside: NDArray[np.bool_], half: int) -> NDArray[np.float32]:
    """Values of `x` (time, channel) at the fractional sample numbers `place`."""
    present = np.isfinite(x)
    whole = bool(present.all())
    filled = x if whole else np.where(present, x, 0.0)
    floor = np.floor(place).astype(np.int64)
    fraction = place - floor
    total = np.zeros((len(place), x.shape[1]))
    weight = np.zeros((len(place), 1 if whole else x.shape[1]))
    for tap in range(1 - half, half + 1):  # tap by tap: the order of summation is the same in every block
        k = floor + tap
        valid = (k >= 0) & (k < len(x))
        k = np.clip(k, 0, len(x) - 1)
        u = tap - fraction
        h = np.where(valid, np.sinc(u) * np.i0(_BETA * np.sqrt(np.clip(1 - (u / half) ** 2, 0, None))), 0.0)[:, None]
        total += h * filled[k]
        weight += h if whole else h * present[k]
    with np.errstate(divide="ignore", invalid="ignore"):
        out = total / weight
    nearest = np.clip(np.rint(place).astype(np.int64), 0, len(x) - 1)
    out[~inside] = np.nan
    if not whole:
        out[~present[nearest]] = np.nan
    return out.astype(np.float32)
