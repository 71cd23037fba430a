"""Which pulses of two devices are the same pulse, although their clocks differ, pulses are missing and others are spurious."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainmu.errors import InputError

__all__ = ["Matches", "edges", "match_pulses"]

Floats = NDArray[np.float64]

MAX_PPM = 500.0
"""Largest difference of rate between two clocks that is looked for; crystals stay below 100."""
_TOLERANCE = 0.02
_STRETCHES = (60, 20)
_WINDOW = 40
_NEIGHBOURS = 3
_PLACES = 24
_LONG = 1000
_REGULAR = 0.9
"""A train of which this share of intervals is a multiple of one period (within the tolerance) is regular."""
_PLAIN = 0.75
"""Where more than this share of intervals is one period, pulses carry no code."""


@dataclass(frozen=True)
class Matches:
    """Pulses of one train and their partners in another.

    Attributes
    ----------
    own, other : int64 (match,)
        Indices into the two trains, both increasing.
    period : float or None, s
        Where the trains are regular: every offset that differs by this much fits nearly as well.
    patterned : bool
        Whether the small irregularities of regular trains told which pulse is which.
    rivals : int
        Number of pulses that the next best offset would pair (0 where there is none).
    """

    own: NDArray[np.int64]
    other: NDArray[np.int64]
    period: float | None = None
    rivals: int = 0
    patterned: bool = False


def match_pulses(own: ArrayLike, other: ArrayLike, *, offset: float | None = None, max_ppm: float = MAX_PPM, max_jump: float = 1.0) -> Matches:
    """Pair the pulses of two trains recorded on different clocks.

    Both trains stem from the same source. Any offset, a drift up to `max_ppm`, jumps of a clock up to `max_jump`, and missing and spurious pulses
    are allowed. First a stretch of one train is laid along the other (every shift and drift tried, the one that pairs most pulses wins); from there
    pairs are followed outwards, a window at a time, and searched for anew where a jump broke them.

    Irregular trains (barcodes, random intervals, frames with pauses) fit at one offset only. Regular ones (1 Hz) fit at many: without `offset`,
    trains that last equally long are taken to begin together, and trains of other lengths are refused; `period` says
    by what multiples the offset is open. Jumps by half a period or more cannot be seen in them.

    Parameters
    ----------
    own, other : float64 (pulse,), s
        Times of the pulses, each on its own clock, increasing.
    offset : float, s
        What to add to `own` to come near `other`, where it is roughly known (within half a period of regular trains).

    Raises
    ------
    InputError
        If a train is too short or out of order, or no offset pairs the larger part of the pulses.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> p = np.cumsum(rng.uniform(0.5, 1.5, 200))
    >>> m = match_pulses(p, np.delete(p * (1 + 40e-6) + 7.0, [3, 90]))
    >>> len(m.own), int(m.own[3]), int(m.other[3])
    (198, 4, 3)
    """
    p, r = _train(own, "own"), _train(other, "reference")
    tolerance = min(_TOLERANCE, 0.2 * float(min(np.median(np.diff(p)), np.median(np.diff(r)))))
    period = _period(p, r, tolerance)
    patterned = False
    coded = _coded_anchor(p, r, period, tolerance, offset, max_ppm, max_jump) if period is not None else None
    if coded is not None:
        period = None
        anchor, shift, slope, rivals = coded
    elif period is not None:
        anchor, shift, slope, rivals, patterned = _regular_anchor(p, r, period, offset)
    else:
        anchor, shift, slope, rivals = _anchor(p, r, tolerance, offset, max_ppm, max_jump)
    jump = max_jump if period is None else min(max_jump, 0.45 * period)
    i, j = _both_ways(p, r, anchor, shift, slope, tolerance, jump, max_ppm)
    if len(i) < max(3, 0.5 * _within(p, r, i, j)):
        raise InputError(
            f"{len(i)} of {len(p)} pulses pair with the reference's {len(r)}, fewer than half where both were running: these trains are not of one source, "
            "or the offset is wrong: give the right pulses, or a rough offset"
        )
    return Matches(i, j, period, rivals, patterned)


def edges(trace: ArrayLike, threshold: float, *, edge: str = "rising", last: bool | None = None) -> tuple[NDArray[np.int64], bool]:
    """Samples at which a sync trace crosses `threshold`, and whether it ends above it (to be passed as `last` for the next block).

    Examples
    --------
    >>> edges([0, 0, 5, 5, 0, 5], 2.5)
    (array([2, 5]), True)
    """
    x = np.asarray(trace, dtype=np.float64).ravel()
    if edge not in ("rising", "falling", "both"):
        raise InputError(f"edge is {edge!r}, expected rising, falling or both")
    high = x > threshold
    if not len(high):
        return np.empty(0, dtype=np.int64), bool(last)
    change = np.diff(np.r_[high[0] if last is None else last, high].astype(np.int8))
    at = change != 0 if edge == "both" else change == (1 if edge == "rising" else -1)
    return np.flatnonzero(at).astype(np.int64), bool(high[-1])


def _train(times: ArrayLike, what: str) -> Floats:
    t = np.asarray(times, dtype=np.float64).ravel()
    if len(t) < 3:
        raise InputError(f"{what} pulses: {len(t)} of them, expected at least 3")
    if not np.isfinite(t).all():
        raise InputError(f"{what} pulses: {int((~np.isfinite(t)).sum())} times are NaN or infinite, expected finite seconds: drop them")
    if (np.diff(t) <= 0).any():
        k = int(np.flatnonzero(np.diff(t) <= 0)[0])
        raise InputError(f"{what} pulses: times do not increase at pulse {k + 1} ({t[k]:.6f} then {t[k + 1]:.6f} s): sort them and drop duplicates")
    return t


def _period(p: Floats, r: Floats, tolerance: float) -> float | None:
    """The common period of regular trains, s, or None."""
    periods = []
    for t in (p, r):
        steps = np.diff(t)
        period = float(np.median(steps))
        # Missing pulses make multiples, a spurious one splits an interval in two.
        whole = np.abs(steps / period - np.rint(steps / period)) * period < max(tolerance, 1e-3 * period)
        periods.append(period if (whole & (np.rint(steps / period) >= 1)).mean() > _REGULAR - 0.15 else None)
    return periods[1] if None not in periods else None


# -- the anchor -----------------------------------------------------------------------------------------------------
def _anchor(p: Floats, r: Floats, tolerance: float, offset: float | None, max_ppm: float, max_jump: float) -> tuple[int, float, float, int]:
    """First pulse of a stretch of `p` that was laid along `r`; shift and slope of ``r - p`` there; pulses that the runner-up pairs."""
    best: tuple[tuple[bool, float], int, float, float, int] | None = None
    share = 0.0
    # Four SDs of a share of so many pulses: places within it of each other fit equally well.
    margin = min(0.05, 4 * np.sqrt(0.1 / min(len(p), 2 * _LONG)))
    # Short stretches as well: where pulses are minutes apart, a long one holds several jumps.
    for size in _STRETCHES:
        size = min(size, len(p))
        for at in dict.fromkeys(int(x * (len(p) - size)) for x in (0.5, 0.25, 0.75, 0.1, 0.9, 0.0, 1.0)):
            found = _lay(p[at : at + size], r, tolerance, offset, max_ppm)
            if not found:
                continue
            alone = len(found) == 1 or found[1][0] < 0.8 * found[0][0]
            if alone and found[0][0] >= 0.7 * size:
                return at, found[0][1], found[0][2], found[1][0] if len(found) > 1 else 0
            # Barcodes of near numbers look alike: of places that fit about as well, of this stretch and others (this one may lie where the
            # other train was not running), the one that goes on fitting.
            scores = [_going_on(p, r, at, shift, slope, tolerance, max_jump, max_ppm) for _, shift, slope in found]
            order = sorted(range(len(found)), key=lambda n: (-scores[n], -found[n][0]))
            hits, shift, slope = found[order[0]]
            share = max(share, hits / size)
            rival = max((found[n][0] for n in order[1:] if scores[n] > scores[order[0]] - margin), default=0)
            clear = (hits - rival) / size
            key = (clear >= 0.5, scores[order[0]] if clear >= 0.5 else clear)
            if best is None or key > best[0]:
                best = (key, at, shift, slope, rival)
        if best is not None and best[0][0] and best[0][1] > _REGULAR - 0.15:
            break
    if best is None or (not best[0][0] and best[0][1] < 0.2):
        raise InputError(
            f"no offset stands out at which a stretch of pulses pairs with the reference's {len(r)} (the best pairs {share:.0%}): these trains are not of one "
            "source, or too few pulses are shared: give the right pulses, or a rough offset"
        )
    return best[1], best[2], best[3], best[4]


def _coded_anchor(
    p: Floats, r: Floats, period: float, tolerance: float, offset: float | None, max_ppm: float, max_jump: float
) -> tuple[int, float, float, int] | None:  # fmt: skip
    """As :func:`_anchor`, for the pulses of barcodes, which lie on a grid within a code; None where the trains are plainly regular, or no code tells.

    Places on the grid cannot be counted across the pauses between codes: an error of 0.1 % in the period is a place after half a minute.
    """
    if min((np.rint(np.diff(t) / period) == 1).mean() for t in (p, r)) > _PLAIN:
        return None
    try:
        found = _anchor(p, r, tolerance, offset, max_ppm, max_jump)
    except InputError:
        return None
    return found if _going_on(p, r, *found[:3], tolerance, max_jump, max_ppm) > _REGULAR - 0.15 else None


def _going_on(p: Floats, r: Floats, at: int, shift: float, slope: float, tolerance: float, max_jump: float, max_ppm: float) -> float:
    """Share of pulses, of both trains, that pair over a longer stretch around pulse `at`, jumps followed.

    Were they not, a wrong place that ends before the next jump would beat the right one that goes on beyond it: the numbers of a counter differ by a
    single bit from those 512 further on.
    """
    q = p[max(0, at - _LONG) : at + _LONG]
    i, j = _both_ways(q, r, at - max(0, at - _LONG), shift, slope, tolerance, max_jump, max_ppm)
    if len(i) < 3:
        return 0.0
    # Where both were running, by the first and the last pair.
    first, last = q + (r[j[0]] - q[i[0]]), q + (r[j[-1]] - q[i[-1]])
    mine = int(((first >= r[0] - tolerance) & (last <= r[-1] + tolerance)).sum())
    theirs = np.searchsorted(r, [first[0] - tolerance, last[-1] + tolerance])
    return 2 * len(i) / max(1, mine + int(theirs[1] - theirs[0]))


def _lay(chunk: Floats, r: Floats, tolerance: float, offset: float | None, max_ppm: float) -> list[tuple[int, float, float]]:
    """The places along `r` at which `chunk` fits: pulses paired, offset (at the chunk's start) and drift of each, the best first."""
    span = chunk[-1] - chunk[0]
    # So fine that a wrong drift spreads the differences by less than the tolerance, in at most 400 steps.
    step = max(1e-6 * max_ppm / 200, tolerance / max(span, 1e-9))
    drifts = np.r_[0.0, np.arange(step, 1e-6 * max_ppm, step), -np.arange(step, 1e-6 * max_ppm, step)]
    near = r if offset is None else r[(r > chunk[0] + offset - 5.0) & (r < chunk[-1] + offset + 5.0)]
    if len(near) < 2:
        return []
    found: list[tuple[int, float, float]] = []
    for drift in drifts:
        d = (near[None, :] - chunk[:, None] - drift * (chunk - chunk[0])[:, None]).ravel()
        if offset is not None:
            d = d[np.abs(d - offset) < 5.0]
        d.sort()
        # Most differences within one tolerance of each other: a sliding count over the sorted ones.
        count = np.searchsorted(d, d + tolerance, side="right") - np.arange(len(d))
        if not len(d):
            continue
        enough = np.flatnonzero(count >= max(3, 0.8 * count.max()))
        for k in enough[np.argsort(-count[enough], kind="stable")][:200]:
            found.append((int(count[k]), float(np.median(d[k : k + count[k]])), float(drift)))
    places: list[tuple[int, float, float]] = []
    for hits, shift, drift in sorted(found, key=lambda f: -f[0]):
        if all(abs(shift - other) > 3 * tolerance for _, other, _ in places):
            places.append((hits, *_refined(chunk, near, shift, drift, tolerance)))
        if len(places) == _PLACES:
            break
    return places


def _refined(chunk: Floats, r: Floats, shift: float, slope: float, tolerance: float) -> tuple[float, float]:
    """Shift and slope from the pairs themselves: the steps in which drifts are tried are coarse."""
    i, _, d = _nearest(chunk, r, shift + slope * (chunk - chunk[0]), tolerance)
    if len(i) < 8:
        return shift, slope
    half = len(i) // 2
    tilt = float(np.median(d[half:]) - np.median(d[:half])) / float(np.median(chunk[i[half:]]) - np.median(chunk[i[:half]]))
    return shift + float(np.median(d - tilt * (chunk[i] - chunk[0]))), slope + tilt


def _regular_anchor(p: Floats, r: Floats, period: float, offset: float | None) -> tuple[int, float, float, int, bool]:
    """As :func:`_anchor`, for regular trains, and whether a pattern told: a pair in the middle, at the lag that `offset` gives at the first common pulse,
    that the pattern gives, or that :func:`_regular_lag` finds.
    """
    (i, a), (j, b) = _on_grid(p, period), _on_grid(r, period)
    if min(len(i), len(j)) < 3:
        raise InputError("the pulses are regular and fewer than 3 of them are in step: give the right pulses")
    by_pattern = _lag_by_pattern(p[i], a, r[j], b)
    if offset is not None:
        # At the first pulse that both have: further on the clocks have drifted apart.
        first = int(np.searchsorted(p[i], r[j[0]] - offset - 0.5 * period))
        if first == len(i):
            raise InputError(f"at an offset of {offset:g} s the trains do not overlap: check the offset")
        k = int(np.abs(r[j] - p[i[first]] - offset).argmin())
        if abs(r[j[k]] - p[i[first]] - offset) > 0.5 * period:
            raise InputError(
                f"no reference pulse lies within half a period ({period / 2:.3g} s) of the first pulse at an offset of {offset:g} s: check the offset"
            )
        lag, rival = int(b[k] - a[first]), 0
    else:
        lag, rival = by_pattern, 0
        if lag is None:
            lag, rival = _regular_lag(a, b, period, float(r[j[0]] - p[i[0]]))
    common = np.intersect1d(a + lag, b, return_indices=True)
    if len(common[0]) < 3:
        raise InputError(f"the pulses overlap in {len(common[0])} places at the given offset, expected at least 3: check the offset")
    mid = len(common[0]) // 2
    at, partner = int(i[common[1][mid]]), int(j[common[2][mid]])
    return at, float(r[partner] - p[at]), _step(r, period) / _step(p, period) - 1, rival, by_pattern is not None


def _lag_by_pattern(p: Floats, a: NDArray[np.int64], r: Floats, b: NDArray[np.int64]) -> int | None:
    """The lag at which the small irregularities of two nearly regular trains agree (frames come at 30 Hz give or take), or None where none stands out."""
    x, y = _irregularity(p, a), _irregularity(r, b)
    size = 1 << (len(x) + len(y) - 1).bit_length()
    agreement = np.fft.irfft(np.fft.rfft(y, size) * np.conj(np.fft.rfft(x, size)), size)
    lags = np.arange(-len(x) + 1, len(y))
    agreement = agreement[lags]
    best = int(agreement.argmax())
    # Neighbours of the best lag agree to the contrary (a late pulse makes one step long and the next short), others by chance.
    others = np.delete(agreement, slice(max(0, best - 2), best + 3))
    if len(others) < 10 or not x.any() or not y.any() or agreement[best] < 10 * others.std() or agreement[best] < 0.15 * np.sqrt((x**2).sum() * (y**2).sum()):
        return None
    return int(lags[best])


def _irregularity(t: Floats, place: NDArray[np.int64]) -> Floats:
    """How much longer than usual each step between neighbours on the grid is, 0 where one is missing; outliers (jumps) count little."""
    out = np.zeros(int(place[-1]) + 1)
    step = np.diff(t)
    beside = np.diff(place) == 1
    if beside.sum() < 3:
        return out
    off = step[beside] - np.median(step[beside])
    spread = 1.4826 * np.median(np.abs(off)) + 1e-12
    if spread > 2e-6:  # less is the rounding of a clock, not a pattern
        out[place[1:][beside]] = np.clip(off, -4 * spread, 4 * spread)
    return out


def _step(t: Floats, period: float) -> float:
    """The train's own period, s."""
    steps = np.diff(t)
    return float(np.median(steps[np.abs(steps - period) < 0.1 * period]))


def _regular_lag(a: NDArray[np.int64], b: NDArray[np.int64], period: float, apart: float) -> tuple[int, int]:
    """How many periods to add to the places `a` to have the places `b`, and how many pulses pair at the next best lag.

    Pauses and pulses that the source itself left out show in both trains and single out a lag. Without them nothing does but the ends: trains
    that last the same number of periods are taken to begin together; where they differ by up to three, as when pulses at the ends were lost, the lag is
    taken at which the clocks differ by less than half a period. `apart` is how far the first pulses lie apart, s.
    """
    x, y = np.zeros(int(a[-1]) + 1), np.zeros(int(b[-1]) + 1)
    x[a], y[b] = 1.0, 1.0
    lags = np.arange(-len(x) + 1, len(y))
    size = 1 << (len(x) + len(y) - 1).bit_length()
    pairs = np.rint(np.fft.irfft(np.fft.rfft(y, size) * np.conj(np.fft.rfft(x, size)), size))[lags]
    sums_x, sums_y = np.cumsum(np.r_[0.0, x]), np.cumsum(np.r_[0.0, y])
    mine = sums_x[np.minimum(len(x), len(y) - lags)] - sums_x[np.maximum(0, -lags)]
    theirs = sums_y[np.minimum(len(y), len(x) + lags)] - sums_y[np.maximum(0, lags)]
    alone = np.where(pairs >= 0.5 * min(len(a), len(b)), mine + theirs - 2 * pairs, np.inf)  # pulses without partner where both were running
    order = np.argsort(alone, kind="stable")
    best, second = alone[order[0]], alone[order[1]] if len(order) > 1 else np.inf
    rival = int(pairs[order[1]]) if np.isfinite(second) else 0
    if best + 3 * np.sqrt(best) + 3 < second < np.inf:
        return int(lags[order[0]]), rival
    if a[-1] == b[-1]:
        return 0, rival
    near = round(-apart / period)
    if max(abs(near), abs(int(a[-1] - b[-1]))) > 3:
        raise InputError(
            f"the pulses are regular (every {period:.4g} s) and the trains last {a[-1]} and {b[-1]} periods, so nothing tells which pulses belong together: "
            f"give a rough offset (within {period / 2:.3g} s), or record barcodes or irregular pulses"
        )
    return near, rival


def _on_grid(t: Floats, period: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pulses in step with most of their neighbours, and their places counted in periods; the others are spurious.

    Places are counted from pulse to pulse, so they follow the clock's drift, and across jumps of less than half a period.
    """
    phase = t / period
    padded = np.r_[np.full(_NEIGHBOURS, np.nan), phase, np.full(_NEIGHBOURS, np.nan)]
    shifts = [k for k in range(2 * _NEIGHBOURS + 1) if k != _NEIGHBOURS]
    apart = np.stack([padded[k : k + len(t)] - phase for k in shifts])
    in_step = (np.abs(apart - np.rint(apart)) < 0.1) & (np.rint(apart) != 0)
    # At an end, and beside a jump, there are neighbours on one side only.
    keep = np.flatnonzero(in_step.sum(axis=0) >= 0.5 * np.isfinite(apart).sum(axis=0))
    places = np.cumsum(np.r_[0, np.rint(np.diff(t[keep]) / period)]).astype(np.int64) if len(keep) else np.empty(0, dtype=np.int64)
    first = np.r_[True, np.diff(places) > 0] if len(keep) else np.empty(0, dtype=bool)
    return keep[first].astype(np.int64), places[first]


# -- following ------------------------------------------------------------------------------------------------------
def _both_ways(
    p: Floats, r: Floats, anchor: int, shift: float, slope: float, tolerance: float, max_jump: float, max_ppm: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """Pairs (indices into `p` and `r`), followed from pulse `anchor` to both ends."""
    forward = _follow(p[anchor:], r, shift, slope, tolerance, max_jump, max_ppm)
    # The way back is the way forth through mirrored trains.
    backward = _follow(-p[:anchor][::-1], -r[::-1], -shift, slope, tolerance, max_jump, max_ppm)
    i = np.r_[anchor - 1 - backward[0][::-1], anchor + forward[0]].astype(np.int64)
    j = np.r_[len(r) - 1 - backward[1][::-1], forward[1]].astype(np.int64)
    keep = np.r_[True, np.diff(j) > 0] if len(j) else np.empty(0, dtype=bool)
    return i[keep], j[keep]


def _follow(p: Floats, r: Floats, shift: float, slope: float, tolerance: float, max_jump: float, max_ppm: float) -> tuple[Floats, Floats]:
    """Pairs (indices into `p` and `r`) from the first pulse of `p` on, where ``r - p`` is `shift` and changes by `slope` a second."""
    own: list[NDArray[np.int64]] = []
    other: list[NDArray[np.int64]] = []
    if not len(p):
        return np.empty(0), np.empty(0)
    origin = p[0]
    k = 0
    while k < len(p):
        q = p[k : k + _WINDOW]
        i, j, d = _nearest(q, r, shift + slope * (q - origin), tolerance)
        inside = (q + shift + slope * (q - origin) > r[0] - tolerance) & (q + shift + slope * (q - origin) < r[-1] + tolerance)
        if inside.sum() >= 4 and len(i) < 0.8 * inside.sum():
            # Before the jump pulses still fit; from the first one that fits the new line on, all follow it.
            new = _search(q, r, shift + slope * (q - origin), tolerance, max_jump)
            moved = shift if new is None else shift + new
            i2, _, _ = _nearest(q, r, moved + slope * (q - origin), tolerance)
            # After a jump by a bar of a code many bars still meet another bar: a line on which clearly more meet is the right one.
            if new is not None and (len(i) < 0.6 * inside.sum() or len(i2) > 1.15 * len(i) + 1):
                old_i, old_j, cut = _cut(i, j, i2, len(q))
                own.append(old_i + k)
                other.append(old_j)
                shift = moved
                k += cut
                if cut == 0:
                    i, j, d = _nearest(q, r, shift + slope * (q - origin), tolerance)
                else:
                    continue
        own.append(i + k)
        other.append(j)
        if len(d) >= 5:
            shift, slope = _update(q[i], d, shift, slope, origin, max_ppm)
        k += len(q)
    a, b = np.concatenate(own), np.concatenate(other)
    keep = np.r_[True, b[1:] > np.maximum.accumulate(b)[:-1]] if len(b) else np.empty(0, dtype=bool)
    return a[keep], b[keep]


def _update(q: Floats, d: Floats, shift: float, slope: float, origin: float, max_ppm: float) -> tuple[float, float]:
    """Shift and slope after a window whose pairs lie `d` beside the prediction at times `q`."""
    step = float(np.median(d))
    moved = shift + step
    span = q[-1] - q[0]
    if len(d) >= 10 and span > 0:
        half = len(d) // 2
        tilt = float(np.median(d[half:]) - np.median(d[:half])) / (span / 2)
        # A jump inside the window looks like a tilt: only what a crystal can do is believed, and half of it.
        if abs(slope + tilt) < 1e-6 * max_ppm and abs(tilt) < 1e-4:
            pivot = float(np.median(q)) - origin
            return moved - 0.5 * tilt * pivot, slope + 0.5 * tilt
    return moved, slope


def _nearest(q: Floats, r: Floats, predicted: Floats, tolerance: float) -> tuple[NDArray[np.int64], NDArray[np.int64], Floats]:
    """One-to-one pairs of `q` with the nearest pulse of `r` to where it is predicted, within the tolerance; and how far beside it."""
    want = q + predicted
    right = np.clip(np.searchsorted(r, want), 1, len(r) - 1)
    j = np.where(want - r[right - 1] <= r[right] - want, right - 1, right)
    d = r[j] - want
    i = np.flatnonzero(np.abs(d) <= tolerance)
    j, d = j[i], d[i]
    if len(i) > 1 and (np.diff(j) == 0).any():
        # Two claim one partner: the nearer has it.
        order = np.lexsort((np.abs(d), j))
        first = order[np.r_[True, np.diff(j[order]) > 0]]
        first.sort()
        i, j, d = i[first], j[first], d[first]
    return i.astype(np.int64), j.astype(np.int64), d


def _search(q: Floats, r: Floats, predicted: Floats, tolerance: float, max_jump: float) -> float | None:
    """The jump of the other clock that pairs most of `q`, or None where none pairs half of its later part."""
    want = q + predicted
    lo, hi = np.searchsorted(r, [want[0] - max_jump, want[-1] + max_jump])
    d = (r[lo:hi][None, :] - want[:, None]).ravel()
    d = np.sort(d[np.abs(d) <= max_jump])
    if not len(d):
        return None
    count = np.searchsorted(d, d + tolerance, side="right") - np.arange(len(d))
    best = np.flatnonzero(count == count.max())
    middle = [float(np.median(d[k : k + count[k]])) for k in best]
    step = min(middle, key=abs)
    return step if count.max() >= 0.35 * len(q) and abs(step) > tolerance / 2 else None


def _cut(i: NDArray[np.int64], j: NDArray[np.int64], i2: NDArray[np.int64], n: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Where the pairs of the old line stop and those of the new one begin: the split that keeps most of both."""
    old, new = np.zeros(n, dtype=int), np.zeros(n, dtype=int)
    old[i], new[i2] = 1, 1
    kept = np.r_[0, np.cumsum(old)] + np.r_[np.cumsum(new[::-1])[::-1], 0]
    cut = int(kept.argmax())
    return i[i < cut], j[i < cut], cut


def _within(p: Floats, r: Floats, i: NDArray[np.int64], j: NDArray[np.int64]) -> int:
    """Pulses of the shorter train while both were running, as far as the pairs tell."""
    if not len(i):
        return min(len(p), len(r))
    shift = r[j] - p[i]
    first, last = shift[0], shift[-1]
    mine = ((p + first >= r[0] - 1) & (p + last <= r[-1] + 1)).sum()
    theirs = ((r - first >= p[0] - 1) & (r - last <= p[-1] + 1)).sum()
    return int(min(mine, theirs))
