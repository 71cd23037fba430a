"""Phases: their mean direction, how closely events keep to one, and whether shifted events would as well."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from brainmu.core.intervals import Intervals
from brainmu.errors import InputError, MissingDataError

__all__ = ["PHASE_COLUMNS", "along", "back", "locking", "mean_direction", "rayleigh"]

PHASE_COLUMNS = ["n", "mean_phase_deg", "resultant", "rayleigh_p", "surrogate_resultant", "p_value"]


def mean_direction(phase_deg: ArrayLike) -> tuple[float, float]:
    """Mean direction, degrees in (-180, 180], and resultant length of phases (n,); NaN is left out.

    >>> direction, length = mean_direction([170.0, -170.0])
    >>> abs(round(direction)), round(length, 2)
    (180, 0.98)
    """
    p = np.asarray(phase_deg, dtype=np.float64)
    p = p[np.isfinite(p)]
    if not len(p):
        return float("nan"), float("nan")
    mean = np.exp(1j * np.deg2rad(p)).mean()
    return float(np.rad2deg(np.angle(mean))), float(np.abs(mean))


def rayleigh(n: int, resultant: float) -> float:
    """P value of the Rayleigh test of uniformity from the number of phases and their resultant length (Zar 1999, eq. 27.4)."""
    if n == 0 or not np.isfinite(resultant):
        return float("nan")
    r = n * resultant
    return float(min(1.0, np.exp(np.sqrt(1 + 4 * n + 4 * (n**2 - r**2)) - (1 + 2 * n))))


def locking(
    phase_at: Callable[[NDArray[np.float64]], NDArray[np.float64]], times: NDArray[np.float64], within: Intervals, *, draws: int, seed: int
) -> pd.DataFrame:
    """One row of `PHASE_COLUMNS` for events at `times` (n,), s, inside `within`.

    `phase_at` gives degrees at times, NaN where there is no phase. Surrogates shift all events together along the joined spans of `within`, circularly; their
    resultants are computed from as many phases as fall where there is a phase.
    """
    if draws < 0:
        raise InputError(f"phase coupling was asked for {draws} draws, expected 0 or more")
    clock = along(np.sort(times), within)
    phase = phase_at(back(clock, within))
    n = int(np.isfinite(phase).sum())
    if not n:
        raise MissingDataError(f"none of {len(times)} events lies where there is a phase: check `within`, and that both tables are of one recording")
    mean, resultant = mean_direction(phase)
    rng = np.random.default_rng(seed)
    length = within.duration
    shifted = [phase_at(back((clock + s) % length, within)) for s in rng.uniform(0.02 * length, 0.98 * length, draws)]
    own = _consistency(phase)
    p = (1 + sum(_consistency(q) >= own for q in shifted)) / (draws + 1) if draws else float("nan")
    surrogate = float(np.nanmean([mean_direction(q)[1] for q in shifted])) if any(np.isfinite(q).any() for q in shifted) else float("nan")
    row = {"n": n, "mean_phase_deg": mean, "resultant": resultant, "rayleigh_p": rayleigh(n, resultant), "surrogate_resultant": surrogate, "p_value": p}
    return pd.DataFrame([row])


def _consistency(phase: NDArray[np.float64]) -> float:
    """Pairwise phase consistency: does not grow as phases become fewer (Vinck et al. 2010, NeuroImage 51:112)."""
    p = phase[np.isfinite(phase)]
    n = len(p)
    return float((np.abs(np.exp(1j * np.deg2rad(p)).sum()) ** 2 - n) / (n * (n - 1))) if n > 1 else -1.0


def along(times: NDArray[np.float64], spans: Intervals) -> NDArray[np.float64]:
    """Times inside the spans, on a clock that runs only there."""
    inside = times[spans.contains(times)]
    k = np.searchsorted(spans.start, inside, side="right") - 1
    passed = np.r_[0.0, np.cumsum(spans.stop - spans.start)]
    return passed[k] + inside - spans.start[k]


def back(clock: NDArray[np.float64], spans: Intervals) -> NDArray[np.float64]:
    """Session times of readings of that clock."""
    passed = np.r_[0.0, np.cumsum(spans.stop - spans.start)]
    k = np.clip(np.searchsorted(passed, clock, side="right") - 1, 0, len(spans.start) - 1)
    return spans.start[k] + np.minimum(clock - passed[k], spans.stop[k] - spans.start[k] - 1e-9)
