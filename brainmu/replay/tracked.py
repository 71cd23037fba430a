"""Samples of where the animal was or looked, at irregular times with holes: how long each stands for, and where nothing is known."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Intervals

__all__ = ["GAP", "dwell", "in_hole", "known", "stretches"]

GAP = 0.5
"""Longest hole, s, that is bridged; across longer ones there is neither position nor direction nor speed."""


def dwell(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Time that each sample stands for (n,), s; holes count for nobody."""
    step = np.diff(times)
    step = np.where(step > GAP, 0.0, step)
    return (np.r_[step, 0.0] + np.r_[0.0, step]) / 2


def stretches(times: NDArray[np.float64]) -> list[tuple[int, int]]:
    """First index and one past the last of each stretch without a hole."""
    cut = np.flatnonzero(np.diff(times) > GAP) + 1
    return list(zip(np.r_[0, cut].tolist(), np.r_[cut, len(times)].tolist()))


def known(times: NDArray[np.float64]) -> Intervals:
    """Spans between the first and the last sample of each stretch; a stretch of one sample spans nothing."""
    bounds = np.array([(times[i], times[j - 1]) for i, j in stretches(times)]).reshape(-1, 2)
    return Intervals(bounds[bounds[:, 1] > bounds[:, 0]])


def in_hole(times: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of `at` (m,) lie between two samples of `times` that are a hole apart."""
    after = np.clip(np.searchsorted(times, at, side="right"), 1, len(times) - 1)
    return times[after] - times[after - 1] > GAP
