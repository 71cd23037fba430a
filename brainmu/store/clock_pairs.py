"""Which pulses pair under the map of a clock, near its jumps and in stretches that it does not explain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from brainmu.store.clocks import ClockMap

__all__ = ["fill", "holes_of", "move_by_pattern", "noise_of", "pair"]

Floats = NDArray[np.float64]

_FEWEST = 3
_STRETCH = 40
_WINDOW = 60
_PERIODS = 3
_HOLE = 12
"""Pulses in a row without partner, in both trains, after which the map is not trusted."""


def pair(clock: ClockMap, p: Floats, r: Floats, noise: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pulses and the nearest reference pulse to where the map puts them, where they are each other's nearest and lie within the noise."""
    want = clock.to_session(p)
    # The pulse next to a jump may belong to the piece on its other side.
    for jump in clock.jumps:
        near = (p > jump["after"]) & (p < jump["before"])
        if near.any():
            k = int(np.searchsorted(clock.starts, jump["at"], side="right")) - 1
            other = clock.values[k - 1] + clock.slopes[k - 1] * (p[near] - clock.starts[k - 1])
            mine = clock.values[k] + clock.slopes[k] * (p[near] - clock.starts[k])
            want[near] = np.where(_distance(other, r) < _distance(mine, r), other, mine)
    right = np.clip(np.searchsorted(r, want), 1, len(r) - 1)
    j = np.where(want - r[right - 1] <= r[right] - want, right - 1, right)
    d = np.abs(r[j] - want)
    good = d < max(5 * noise, 30e-6)
    best = np.full(len(r), np.inf)
    np.minimum.at(best, j[good], d[good])
    good &= d <= best[j]
    i, j = np.flatnonzero(good), j[good]
    keep = np.r_[True, j[1:] > np.maximum.accumulate(j)[:-1]] if len(j) else np.empty(0, dtype=bool)
    i, j = i[keep], j[keep]
    return i.astype(np.int64), j.astype(np.int64)


def fill(
    clock: ClockMap, i: NDArray[np.int64], j: NDArray[np.int64], p: Floats, r: Floats, noise: float, reach: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """The pairs, with those of stretches that the map does not explain: between two jumps that follow each other closely, and at the ends."""
    borders = np.r_[-1, i, len(p)]
    partners = np.r_[-1, j, len(r)]
    more: list[tuple[NDArray[np.int64], NDArray[np.int64]]] = []
    for k in np.flatnonzero(np.diff(borders) > _FEWEST):
        own = np.arange(borders[k] + 1, borders[k + 1])
        other = np.arange(partners[k] + 1, partners[k + 1])
        for at in range(0, len(own), _STRETCH):
            some = own[at : at + _STRETCH]
            want = _straight(clock, p[some], float(p[borders[k]] if borders[k] >= 0 else p[some[-1]]))
            near = other[(r[other] > want[0] - reach) & (r[other] < want[-1] + reach)]
            found = _shifted(want, r[near], noise, reach) if min(len(some), len(near)) >= _FEWEST else None
            if found is not None:
                more.append((some[found[0]], near[found[1]]))
                other = other[other > near[found[1][-1]]]
    if not more:
        return i, j
    a, b = np.concatenate([i, *(m[0] for m in more)]), np.concatenate([j, *(m[1] for m in more)])
    order = np.argsort(a, kind="stable")
    return a[order], b[order]


def _straight(clock: ClockMap, t: Floats, at: float) -> Floats:
    """The piece that holds at own time `at`, extended to `t`: without the jumps between."""
    k = max(0, int(np.searchsorted(clock.starts, at, side="right")) - 1)
    return clock.values[k] + clock.slopes[k] * (t - clock.starts[k])


def _shifted(want: Floats, r: Floats, noise: float, reach: float) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Pairs of `want` and `r` at the one shift, up to `reach`, that pairs most of them; None where that is too few to be no accident."""
    d = r[None, :] - want[:, None]
    width = max(8 * noise, 50e-6, 5e-6 * (want[-1] - want[0]))
    flat = np.sort(d[np.abs(d) <= reach])
    if not len(flat):
        return None
    count = np.searchsorted(flat, flat + width, side="right") - np.arange(len(flat))
    best = int(count.argmax())
    rows, columns = np.nonzero((d >= flat[best]) & (d <= flat[best] + width))
    rise = np.r_[True, (np.diff(rows) > 0) & (np.diff(columns) > 0)]
    rows, columns = rows[rise], columns[rise]
    if (np.diff(columns) <= 0).any() or len(rows) < max(_FEWEST + (len(want) > 4), 0.55 * min(len(want), len(r))):
        return None
    return rows.astype(np.int64), columns.astype(np.int64)


def holes_of(i: NDArray[np.int64], j: NDArray[np.int64], p: Floats, r: Floats) -> list[tuple[float, float]]:
    """Own times (after, before) of stretches in which both trains have pulses and none pair: what the clock did there is not known."""
    out = []
    borders, partners = np.r_[-1, i, len(p)], np.r_[-1, j, len(r)]
    for k in np.flatnonzero((np.diff(borders) > _HOLE) & (np.diff(partners) > _HOLE)):
        first = p[borders[k]] if borders[k] >= 0 else p[0]
        last = p[borders[k + 1]] if borders[k + 1] < len(p) else p[-1]
        out.append((float(first), float(last)))
    # At the ends a few are enough: nothing on the other side holds the line.
    if i[0] >= _FEWEST and j[0] >= _FEWEST and (not out or out[0][0] > p[0]):
        out.insert(0, (float(p[0]), float(p[i[0]])))
    if len(p) - 1 - i[-1] >= _FEWEST and len(r) - 1 - j[-1] >= _FEWEST and (not out or out[-1][1] < p[-1]):
        out.append((float(p[i[-1]]), float(p[-1])))
    return out


def _distance(want: Floats, r: Floats) -> Floats:
    right = np.clip(np.searchsorted(r, want), 1, len(r) - 1)
    return np.minimum(np.abs(want - r[right - 1]), np.abs(r[right] - want))


def move_by_pattern(
    p: Floats, r: Floats, i: NDArray[np.int64], j: NDArray[np.int64], period: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """Pairs of nearly regular pulses, moved by whole periods where that makes the small irregularities of both trains agree.

    The frames of a camera come at 30 Hz give or take a fraction of a millisecond: that pattern tells one pulse from the next where the pulses are timed
    better than they come, also after a jump of more than half a period.
    """
    moves = np.arange(-_PERIODS, _PERIODS + 1)
    own, other = [], []
    for a in range(0, len(i), _WINDOW):
        iw, jw = i[a : a + _WINDOW], j[a : a + _WINDOW]
        if len(iw) < 20 and own:
            iw, jw = i[len(i) - min(len(i), _WINDOW) :], j[len(i) - min(len(i), _WINDOW) :]
        moved = []
        for k in moves:
            want = r[jw] + k * period
            right = np.clip(np.searchsorted(r, want), 1, len(r) - 1)
            jk = np.where(want - r[right - 1] <= r[right] - want, right - 1, right)
            good = np.abs(r[jk] - want) < 0.3 * period
            moved.append((good.sum(), noise_of(p[iw[good]], r[jk[good]] - p[iw[good]]) if good.sum() > 10 else np.inf, iw[good], jk[good]))
        best = min(range(len(moves)), key=lambda n: moved[n][1])
        stay = _PERIODS
        # Truly regular pulses agree as well at every period: then they stay.
        alone = moved[best][1] < 0.5 * min(moved[n][1] for n in range(len(moves)) if n != best)
        take = best if alone and moved[best][0] >= 0.7 * moved[stay][0] else stay
        own.append(moved[take][2] if take != stay else iw)
        other.append(moved[take][3] if take != stay else jw)
    a, b = np.concatenate(own), np.concatenate(other)
    order = np.argsort(a, kind="stable")
    a, b = a[order], b[order]
    keep = np.r_[True, (np.diff(a) > 0) & (b[1:] > np.maximum.accumulate(b)[:-1])]
    return a[keep], b[keep]


def noise_of(t: Floats, d: Floats) -> float:
    """Standard deviation of a pulse's timing, s: from second differences, which bends and (but for a few) jumps leave alone."""
    if len(d) < 3:
        return 1e-7
    line = d - float(np.median(np.diff(d) / np.diff(t))) * t  # unevenly spaced pulses would turn drift into noise
    order = 2 if len(d) > 3 else 1
    change = np.diff(line, order)
    return 1.4826 * float(np.median(np.abs(change - np.median(change)))) / np.sqrt(6 if order == 2 else 2) + 1e-7
