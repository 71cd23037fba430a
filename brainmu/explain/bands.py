"""The frequency bands that attributions are summed into: contiguous, so that nothing is lost between them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["BANDS", "band_index", "bands_below", "bands_held"]

BANDS: dict[str, tuple[float, float]] = {
    "slow": (0.0, 0.5),
    "delta": (0.5, 4.0),
    "theta": (4.0, 10.0),
    "sigma": (10.0, 16.0),
    "beta": (16.0, 30.0),
    "gamma": (30.0, 100.0),
    "ripple": (100.0, 250.0),
    "fast": (250.0, np.inf),
}
"""Name and half-open range, Hz."""


def band_index(frequencies: ArrayLike) -> NDArray[np.intp]:
    """Which of :data:`BANDS` each frequency (n,) of a spectrum, Hz, falls into. Its last one, half the rate, closes the band below."""
    f, low = np.asarray(frequencies, dtype=np.float64), np.array([b[0] for b in BANDS.values()])
    out = np.searchsorted(low, f, side="right") - 1
    return np.where((f == f.max(initial=0.0)) & (f == low[out]) & (f > 0), out - 1, out)


def bands_held(rate: float) -> tuple[str, ...]:
    """The bands that a spectrum of a signal of `rate` Hz has."""
    return tuple(name for name, (low, _) in BANDS.items() if low < rate / 2)


def bands_below(rate: float, least: float = 0.5) -> dict[str, tuple[float, float]]:
    """The bands that a signal of `rate` Hz can hold above `least` Hz, cut at nine tenths of half the rate."""
    top = 0.45 * rate
    return {name: (max(lo, least), min(hi, top)) for name, (lo, hi) in BANDS.items() if hi > least and max(lo, least) < top}
