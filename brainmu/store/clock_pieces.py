"""The pieces of a clock's map through paired pulses: where it jumps, and lines between jumps, bent as little as the noise allows."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

from brainmu.store.clock_pairs import noise_of
from brainmu.store.clocks import ClockMap

__all__ = ["assemble", "find_jumps"]

Floats = NDArray[np.float64]

_HALVES = (12, 4)
"""Pulses on each side over which a jump is judged."""
_SIGMAS = 7.0
_SMALLEST = 50e-6
"""Jumps smaller than this, s, are left to the bends of the line."""
_FEWEST = 3
"""Pulses between two jumps."""
_PER_KNOT = 16
"""Pulses for each knot of a bent piece."""


# -- jumps ----------------------------------------------------------------------------------------------------------
def find_jumps(t: Floats, d: Floats) -> list[int]:
    """Indices k such that the clock jumped between pulses k-1 and k; `d` is reference minus own time of the pulses at own times `t`."""
    if len(t) < 2 * _FEWEST:
        return []
    noise = noise_of(t, d)
    found: list[int] = []
    pieces = [(0, len(t))]
    while pieces:
        a, b = pieces.pop()
        k = _largest_step(t[a:b], d[a:b], noise)
        if k is not None:
            found.append(a + k)
            pieces += [(a, a + k), (a + k, b)]
    return sorted(found)


def _largest_step(t: Floats, d: Floats, noise: float) -> int | None:
    """Where the clearest jump lies, or None where every difference is what noise and a smooth drift do."""
    n = len(t)
    if n < 2 * _FEWEST:
        return None
    slope = float(np.median(np.diff(d) / np.diff(t)))
    line = d - slope * t
    k = np.arange(1, n)
    jump, score = np.zeros(n - 1), np.zeros(n - 1)
    for half in _HALVES:  # short sides find jumps that follow each other closely, long ones small jumps
        step = _side_medians(line, half, +1)[1:] - _side_medians(line, half, -1)[:-1]
        size = np.minimum(np.minimum(k, n - k), half)
        # The standard error of a difference of medians of `size` pulses each.
        clear = np.where(size >= _FEWEST, np.abs(step) / (np.maximum(_SIGMAS * 1.2533 * noise * np.sqrt(2.0 / size), _SMALLEST)), 0.0)
        jump, score = np.where(clear > score, step, jump), np.maximum(clear, score)
    near = int(score.argmax())
    if score[near] < 1:
        return None
    # The medians blur the place by a few pulses: the largest single step nearby is it.
    single = np.abs(np.diff(line))
    lo, hi = max(_FEWEST - 1, near - _HALVES[0]), min(n - _FEWEST, near + _HALVES[0] + 1)
    best = lo + int(single[lo:hi].argmax()) if hi > lo else near
    best = best if score[best] >= 1 else near
    # A drift that bends gently is no jump: most of one happens in a single step.
    return best + 1 if single[max(0, best - 1) : best + 2].max() > max(0.5 * abs(jump[best]), 1.5 * noise) else None


def _side_medians(line: Floats, half: int, side: int) -> Floats:
    """Median of up to `half` values up to (side -1) or from (side +1) each one on."""
    n = len(line)
    nothing = np.full(half - 1, np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(np.r_[nothing, line, nothing], half)
    rows = windows[:n] if side < 0 else windows[half - 1 :]
    whole = slice(half - 1, n) if side < 0 else slice(0, max(0, n - half + 1))
    out = np.full(n, np.nan)
    out[whole] = np.median(rows[whole], axis=1)
    for k in np.flatnonzero(np.isnan(out)):
        out[k] = np.nanmedian(rows[k])
    return out


# -- pieces ---------------------------------------------------------------------------------------------------------
def assemble(t: Floats, r: Floats, cuts: list[int]) -> ClockMap:
    """The map through paired pulses, with jumps before the pulses `cuts`."""
    noise = noise_of(t, r - t)
    borders = [0, *cuts, len(t)]
    spans = list(itertools.pairwise(borders))
    common = _slope(t, r, spans)
    starts: list[float] = []
    values: list[float] = []
    slopes: list[float] = []
    jumps: list[dict[str, float]] = []
    for a, b in spans:
        knots, heights = _bent_line(t[a:b], r[a:b] - t[a:b], noise, common)
        begin = knots[0] if a == 0 else 0.5 * (t[a - 1] + t[a])
        own = np.r_[begin, knots[1:-1]]
        rates = np.diff(heights) / np.diff(knots)
        piece_values = np.r_[begin + heights[0] + rates[0] * (begin - knots[0]), knots[1:-1] + heights[1:-1]]
        if a:
            previous = values[-1] + slopes[-1] * (begin - starts[-1])
            jumps.append({"at": float(begin), "size": float(piece_values[0] - previous), "after": float(t[a - 1]), "before": float(t[a])})
        starts += own.tolist()
        values += piece_values.tolist()
        slopes += (1 + rates).tolist()
    tiny = next((cut for cut, jump in zip(cuts, jumps) if abs(jump["size"]) < _SMALLEST), None)
    if tiny is not None:
        return assemble(t, r, [c for c in cuts if c != tiny])
    return ClockMap(np.array(starts), np.array(values), np.array(slopes), jumps)


def _slope(t: Floats, r: Floats, spans: list[tuple[int, int]]) -> float:
    """The rate that the whole recording has, for pieces too short to tell their own."""
    parts = [(t[a:b], (r - t)[a:b]) for a, b in spans if b - a >= 3]
    if not parts:
        return 0.0
    x = np.concatenate([p - p.mean() for p, _ in parts])
    y = np.concatenate([d - d.mean() for _, d in parts])
    return float((x * y).sum() / (x * x).sum())


def _bent_line(t: Floats, d: Floats, noise: float, common: float) -> tuple[Floats, Floats]:
    """Knots (own s) and heights (s) of the continuous line through the differences `d`, bent as little as the noise allows."""
    if len(t) < 3:
        centre, height = float(np.mean(t)), float(np.median(d))
        ends = np.array([t[0], max(t[-1], t[0] + 1.0)])
        return ends, height + common * (ends - centre)
    pieces = 1
    while True:
        knots = np.linspace(t[0], t[-1], pieces + 1)
        heights, residual = _robust_line(t, d, knots)
        width = min(len(t), 2 * _HALVES[0] + 1)
        drift = np.abs(_running_mean(np.clip(residual, -4 * noise, 4 * noise), width)).max()
        # What is left must look like noise when averaged over neighbours.
        if drift < max(4.5 * noise / np.sqrt(width), 2e-6) or len(t) / (2 * pieces) < _PER_KNOT:
            return knots, heights
        pieces *= 2


def _robust_line(t: Floats, d: Floats, knots: Floats) -> tuple[Floats, Floats]:
    """Heights at the knots by least squares, reweighted (Huber) so that stray pulses count little; and the residuals."""
    centre = float(np.median(d))
    k = np.clip(np.searchsorted(knots, t, side="right") - 1, 0, len(knots) - 2)
    share = (t - knots[k]) / (knots[k + 1] - knots[k])
    weight = np.ones(len(t))
    heights = np.zeros(len(knots))
    for _ in range(8):
        heights = _tridiagonal(k, share, weight, d - centre, len(knots))
        residual = d - centre - (heights[k] * (1 - share) + heights[k + 1] * share)
        spread = 1.4826 * float(np.median(np.abs(residual))) + 1e-9
        weight = np.minimum(1.0, 2.0 * spread / np.maximum(np.abs(residual), 1e-12))
    return heights + centre, residual


def _tridiagonal(k: NDArray[np.int64], share: Floats, weight: Floats, y: Floats, n: int) -> Floats:
    """Least squares of hat functions: a banded system of as many unknowns as knots."""
    from scipy.linalg import solveh_banded

    left, right = 1 - share, share
    diagonal = np.bincount(k, weight * left**2, n) + np.bincount(k + 1, weight * right**2, n) + 1e-12
    beside = np.bincount(k + 1, weight * left * right, n)
    target = np.bincount(k, weight * left * y, n) + np.bincount(k + 1, weight * right * y, n)
    return np.asarray(solveh_banded(np.stack([beside, diagonal]), target), dtype=np.float64)


def _running_mean(x: Floats, width: int) -> Floats:
    total = np.cumsum(np.r_[0.0, x])
    return (total[width:] - total[:-width]) / width
