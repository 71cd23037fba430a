"""Position and speed from tracked points: lost points, jumps of the tracking, gaps and uneven frame times respected."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from brainmu.errors import InputError

__all__ = ["bridge_lost", "jumps", "reach", "runs_of", "smooth_position", "speed_of"]

_TAILS = 4.0
"""The Gaussian is cut off at this many SDs."""
_SHORTEST_STEP = 0.04
"""Seconds that a jump is judged over at least: at hundreds of frames a second the jitter of tracking alone is fast."""


def reach(sigma: float, bridge: float) -> float:
    """How far, s, a smoothed sample looks to either side: the tails of the Gaussian, and the points that bridge a hole there."""
    return _TAILS * sigma + bridge


def bridge_lost(times: ArrayLike, values: ArrayLike, longest: float) -> NDArray[np.float64]:
    """Lost points (a row with a NaN) interpolated linearly where the seen points around them lie at most `longest` s apart.

    Parameters
    ----------
    times : float64 (n,), s
        Increasing.
    values : float (n, axis)
    longest : float, s

    Returns
    -------
    float64 (n, axis)
        Points in longer holes, and before the first and after the last seen point, are NaN.

    Examples
    --------
    >>> bridge_lost([0, 1, 2, 5, 9], [[0.0], [np.nan], [2.0], [np.nan], [9.0]], longest=3.0)[:, 0].tolist()
    [0.0, 1.0, 2.0, nan, 9.0]
    """
    t, x = np.asarray(times, dtype=np.float64), np.array(values, dtype=np.float64)
    if x.ndim != 2 or t.shape != x.shape[:1]:
        raise InputError(f"positions: {t.shape} times came for values of shape {x.shape}, expected (n,) and (n, axis)")
    seen = np.isfinite(x).all(axis=1)
    x[~seen] = np.nan
    where, lost = np.flatnonzero(seen), np.flatnonzero(~seen)
    after = np.searchsorted(where, lost)
    inside = (after > 0) & (after < len(where))
    lost, after = lost[inside], after[inside]
    a, b = where[after - 1], where[after]
    near = t[b] - t[a] <= longest
    lost, a, b = lost[near], a[near], b[near]
    share = (t[lost] - t[a]) / (t[b] - t[a])
    x[lost] = x[a] + share[:, None] * (x[b] - x[a])
    return x


def jumps(times: ArrayLike, values: ArrayLike, top: float, longest: float = 0.5) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Points that the tracking jumped to and came back from, and steps beyond `top` that stay when these points are lost.

    Points are away if they were reached by a step faster than `top` from the seen point before, and left by another within `longest` s. (Steps of less than
    40 ms are judged as if they took 40 ms.) What lies within `longest` s of a point decides.

    Parameters
    ----------
    times : float64 (n,), s
        Increasing.
    values : float (n, axis)
    top : float
        Speed, units of `values` per second.
    longest : float, s

    Returns
    -------
    away, staying : bool (n,)
        The points to take as lost; the seen points, among the others, that a step faster than `top` ends at.

    Examples
    --------
    >>> t = np.arange(5) / 50
    >>> jumps(t, [[0.0], [0.0], [2.0], [0.01], [0.01]], top=2.0)[0].nonzero()[0].tolist()
    [2]
    """
    t, x = np.asarray(times, dtype=np.float64), np.asarray(values, dtype=np.float64)
    where = np.flatnonzero(np.isfinite(x).all(axis=1))
    away, staying = np.zeros(len(t), dtype=bool), np.zeros(len(t), dtype=bool)
    fast = _fast(t[where], x[where], top, longest)
    # Stretches of seen points begin after a fast step or a hole; only those between two fast steps are away.
    border = np.flatnonzero(fast | (np.diff(t[where]) > longest))
    for a, b in itertools.pairwise(border):
        if fast[a] and fast[b] and t[where[b + 1]] - t[where[a]] <= longest:
            away[where[a + 1 : b + 1]] = True
    rest = where[~away[where]]
    staying[rest[1:]] = _fast(t[rest], x[rest], top, longest)
    return away, staying


def _fast(t: NDArray[np.float64], x: NDArray[np.float64], top: float, longest: float) -> NDArray[np.bool_]:
    """Steps (n - 1,) faster than `top`, holes aside."""
    dt = np.diff(t)
    return (dt <= longest) & (np.linalg.norm(np.diff(x, axis=0), axis=1) > top * np.maximum(dt, _SHORTEST_STEP))


def runs_of(times: NDArray[np.float64], values: NDArray[np.float64], longest: float) -> NDArray[np.intp]:
    """First and last + 1 sample (run, 2) of each stretch of seen points without a step of more than `longest` s."""
    seen = np.isfinite(values).all(axis=1)
    joined = seen[1:] & seen[:-1] & (np.diff(times) <= longest)
    starts = np.flatnonzero(seen & ~np.r_[False, joined])
    stops = np.flatnonzero(seen & ~np.r_[joined, False]) + 1
    return np.stack([starts, stops], axis=1).astype(np.intp)


def smooth_position(times: ArrayLike, values: ArrayLike, sigma: float, bridge: float = 0.5, rate: float | None = None) -> NDArray[np.float64]:
    """Positions smoothed by a Gaussian over time, within stretches that hold no hole longer than `bridge`.

    Parameters
    ----------
    times : float64 (n,), s
    values : float (n, axis)
        A row with a NaN is a lost point.
    sigma : float, s
        SD of the Gaussian (cut off at four). 0 only bridges.
    bridge : float, s
        Lost points between seen ones at most this far apart are interpolated linearly; nothing reaches across longer holes.
    rate : float, Hz, or None
        Where the times are even, their rate (faster).

    Returns
    -------
    float64 (n, axis)
        NaN where the position is lost for longer than `bridge`.

    Raises
    ------
    InputError
        If shapes do not fit, or sigma or bridge is negative.
    """
    if not (sigma >= 0 and bridge >= 0 and np.isfinite(sigma) and np.isfinite(bridge)):
        raise InputError(f"position smoothing: sigma is {sigma} s and bridge {bridge} s, expected finite numbers >= 0")
    t = np.asarray(times, dtype=np.float64)
    x = bridge_lost(t, values, bridge)
    if sigma == 0 or not len(t):
        return x
    out = np.full_like(x, np.nan)
    for i, j in runs_of(t, x, bridge):
        # Deviations from the run's first point keep their digits, whatever the distance from the origin.
        origin = x[i]
        out[i:j] = origin + (_even(x[i:j] - origin, sigma * rate) if rate is not None else _uneven(t[i:j], x[i:j] - origin, sigma))
    return out


def _even(x: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Gaussian of `sigma` samples; at the ends only what is there takes part."""
    half = int(np.floor(_TAILS * sigma))
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) / sigma) ** 2)
    total = ndimage.correlate1d(x, kernel, axis=0, mode="constant")
    weight = ndimage.correlate1d(np.ones(len(x)), kernel, mode="constant")
    return total / weight[:, None]


def _uneven(t: NDArray[np.float64], x: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """The same at uneven times. Each sample weighs as much time as it stands for, so that dense stretches do not pull."""
    share = np.gradient(t) if len(t) > 1 else np.ones(1)
    first = np.searchsorted(t, t - _TAILS * sigma)
    last = np.searchsorted(t, t + _TAILS * sigma, side="right")
    at = np.arange(len(t))
    total, weight = np.zeros_like(x), np.zeros(len(t))
    for k in range(-int((at - first).max()), int((last - 1 - at).max()) + 1):
        i = at[(at + k >= first) & (at + k < last)]
        w = np.exp(-0.5 * ((t[i + k] - t[i]) / sigma) ** 2) * share[i + k]
        total[i] += w[:, None] * x[i + k]
        weight[i] += w
    return total / weight[:, None]


def speed_of(times: ArrayLike, positions: ArrayLike, longest: float = 0.5) -> NDArray[np.float64]:
    """Speed (n,) from positions (n, axis): the distance between a sample's neighbours over their time; one-sided at the ends of a stretch.

    NaN where the position is lost, or alone (no neighbour within `longest` s).

    Examples
    --------
    >>> speed_of([0.0, 0.5, 1.0], [[0.0, 0.0], [3.0, 4.0], [6.0, 8.0]]).tolist()
    [10.0, 10.0, 10.0]
    """
    t, x = np.asarray(times, dtype=np.float64), np.asarray(positions, dtype=np.float64)
    out = np.full(len(t), np.nan)
    for i, j in runs_of(t, x, longest):
        if j - i > 1:
            before, after = np.maximum(np.arange(i, j) - 1, i), np.minimum(np.arange(i, j) + 1, j - 1)
            out[i:j] = np.linalg.norm(x[after] - x[before], axis=1) / (t[after] - t[before])
    return out
