"""From one clock to another: offset, drift and jumps, fitted to pulses that both recorded, and what the fit is worth."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainmu.core import Intervals
from brainmu.dsp.pulses import Matches, match_pulses
from brainmu.errors import InputError

__all__ = ["ClockMap", "fit_clock"]

Floats = NDArray[np.float64]

_HALVES = (12, 4)
"""Pulses on each side over which a jump is judged."""
_SIGMAS = 7.0
_SMALLEST = 50e-6
"""Jumps smaller than this, s, are left to the bends of the line."""
_FEWEST = 3
"""Pulses between two jumps."""
_STRETCH = 40
_WINDOW = 60
_PERIODS = 3
_HOLE = 12
"""Pulses in a row without partner, in both trains, after which the map is not trusted."""
_PER_KNOT = 16
"""Pulses for each knot of a bent piece."""


@dataclass(frozen=True)
class ClockMap:
    """A piecewise linear map from a stream's own time to session time, both float64 s.

    Between its knots a clock runs at a constant rate; at a jump it lost or repeated time. Beyond the first and last pulse the outer pieces go on.

    Attributes
    ----------
    starts, values, slopes : float64 (piece,)
        Own time at which a piece begins, session time there, and session seconds per own second. The first piece also holds for all earlier times.
    jumps : list of dict(at, size, after, before)
        Own time of the jump (the middle between the pulses `after` and `before` which it lies; it cannot be told nearer), and how much session time it
        skips (s, positive: the stream lost samples).
    diagnostics : dict
        offset (s, at the first pulse), ppm (over all, jumps apart), drift (s, what the clock gains or loses over the span), pulses, reference_pulses,
        matched, missing (reference pulses that the stream lacks while it ran), spurious (pulses without partner between the first and the last that
        have one), residual_rms_us, residual_max_us, first and last pulse (own s), period (s, of regular pulses), patterned (their
        small irregularities told which pulse is which).
    holes : list of (after, before)
        Own times of stretches in which no pulses pair although both trains have some: the map only spans them.
    """

    starts: Floats
    values: Floats
    slopes: Floats
    jumps: list[dict[str, float]] = field(default_factory=list)
    diagnostics: dict[str, Any] = field(default_factory=dict)
    holes: list[tuple[float, float]] = field(default_factory=list)

    @classmethod
    def constant(cls, offset: float = 0.0, ppm: float = 0.0) -> ClockMap:
        """Session time is ``own * (1 + ppm / 1e6) + offset``.

        >>> ClockMap.constant(offset=2.0, ppm=50).to_session(1000.0)
        1002.05
        """
        slope = 1 + 1e-6 * ppm
        return cls(np.zeros(1), np.array([float(offset)]), np.array([slope]), [], {"offset": float(offset), "ppm": float(ppm)})

    @property
    def is_linear(self) -> bool:
        """Whether one offset and one rate hold throughout."""
        return len(self.starts) == 1

    def to_session(self, times: ArrayLike) -> Any:
        """Session times of own times, s."""
        t = np.asarray(times, dtype=np.float64)
        k = np.clip(np.searchsorted(self.starts, t, side="right") - 1, 0, None)
        out = self.values[k] + self.slopes[k] * (t - self.starts[k])
        return float(out) if np.ndim(times) == 0 else out

    def to_own(self, times: ArrayLike) -> Any:
        """Own times of session times, s; NaN within a jump, where the stream has no time. Where a clock repeated time, its earlier run counts."""
        t = np.asarray(times, dtype=np.float64)
        entry, stop = self._session_spans()
        k = np.clip(np.searchsorted(entry, t, side="right") - 1, 0, None)
        own = self.starts[k] + (t - self.values[k]) / self.slopes[k]
        own = np.where(t >= stop[k], np.nan, own)
        return float(own) if np.ndim(times) == 0 else own

    def _session_spans(self) -> tuple[Floats, Floats]:
        """Session times at which each piece takes over, and at which it ends."""
        ends = np.r_[self.values[:-1] + self.slopes[:-1] * np.diff(self.starts), np.inf]
        entry = self.values.copy()
        entry[0] = -np.inf
        if len(entry) > 1:
            # Rounding must not open a hole between pieces that meet.
            meet = np.abs(entry[1:] - ends[:-1]) < 1e-9
            ends[:-1][meet] = entry[1:][meet]
            entry[1:] = np.maximum(entry[1:], ends[:-1])
        return entry, ends

    @property
    def uncertain(self) -> Intervals:
        """Session times that may be off: between the two pulses around each jump, which lies somewhere there (by its size), and where no pulses pair."""
        spans = [(self.to_session(j["after"]), self.to_session(j["before"])) for j in self.jumps]
        spans += [(self.to_session(a), self.to_session(b)) for a, b in self.holes]
        spans = [(min(a, b), max(a, b)) for a, b in spans]
        out = Intervals()
        for a, b in spans:
            out = out.union(Intervals([[a, b]])) if b > a else out
        return out

    def describe(self) -> dict[str, Any]:
        """The map and its diagnostics as plain numbers, as a store holds them."""
        breakpoints = [[float(a), float(b), float(1e6 * (s - 1))] for a, b, s in zip(self.starts, self.values, self.slopes)]
        return self.diagnostics | {"jumps": self.jumps, "holes": [list(h) for h in self.holes], "breakpoints": breakpoints}

    def sentence(self) -> str:
        """What the clock did, for people."""
        d = self.diagnostics
        text = f"offset {d['offset']:+.6f} s, {d['ppm']:+.2f} ppm"
        if "matched" not in d:
            return text + " (as given)"
        text += f" ({1e3 * d['drift']:+.1f} ms over {_length(d['last'] - d['first'])})"
        if self.jumps:
            shown = ", ".join(f"{1e3 * j['size']:+.1f} ms at {j['at']:.1f} s" for j in self.jumps[:4])
            text += f"; {len(self.jumps)} jump{'s' * (len(self.jumps) > 1)}: {shown}{', …' if len(self.jumps) > 4 else ''}"
        if len(self.starts) > len(self.jumps) + 1:
            text += f"; its rate changes, {len(self.starts) - len(self.jumps)} pieces"
        text += f"; {d['matched']} of {d['pulses']} pulses matched ({d['missing']} missing, {d['spurious']} spurious)"
        return text + f"; residual RMS {d['residual_rms_us']:.0f} us, largest {d['residual_max_us']:.0f} us"


def fit_clock(own: ArrayLike, reference: ArrayLike, *, offset: float | None = None, max_ppm: float = 500.0, max_jump: float = 1.0) -> ClockMap:
    """The map from a stream's clock to the reference's, from pulses that both recorded.

    Pulses are paired (:func:`brainmu.dsp.pulses.match_pulses`), jumps are found in the paired differences, and between jumps a line is fitted, or a
    bent line with as few knots as the noise of the pulses asks for (crystals drift with temperature). Robust throughout: a pulse that lies far off its
    line does not count.

    Parameters
    ----------
    own, reference : float64 (pulse,), s
        The same pulses on the two clocks, in any number missing or spurious.
    offset : float, s
        What to add to `own` to come near `reference`, if roughly known: needed where pulses are regular and the trains begin apart.
    max_ppm, max_jump : float
        Limits of what is looked for.

    Raises
    ------
    InputError
        If the trains do not belong together, or have fewer than three pulses in common.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> own = np.cumsum(rng.uniform(0.5, 1.5, 2000))
    >>> clock = fit_clock(own, own * (1 + 32e-6) - 4.0)
    >>> round(clock.diagnostics["ppm"], 3), round(clock.to_session(1000.0), 6)
    (32.0, 996.032)
    """
    p, r = np.asarray(own, dtype=np.float64).ravel(), np.asarray(reference, dtype=np.float64).ravel()
    matches = match_pulses(p, r, offset=offset, max_ppm=max_ppm, max_jump=max_jump)
    i, j = matches.own, matches.other
    if matches.period is not None:
        i, j = _by_pattern(p, r, i, j, matches.period)
    clock = _assemble(p[i], r[j], _jumps(p[i], r[j] - p[i]))
    # Near jumps the pairing lost some pulses, and took some that only happened to lie near: pair again, now that the map is known.
    reach = max_jump if matches.period is None else min(max_jump, 0.45 * matches.period)
    paired = 0
    for _ in range(6):
        noise = _noise(p[i], r[j] - p[i])
        i, j = _fill(clock, *_pair(clock, p, r, noise), p, r, noise, reach)
        if len(i) < 3:
            raise InputError(f"{len(i)} pulses pair with the reference's, expected at least 3: give the right pulses, or a rough offset")
        clock = _assemble(p[i], r[j], _jumps(p[i], r[j] - p[i]))
        if len(i) <= paired:
            break
        paired = len(i)
    clock, i, j = _simplest(clock, i, j, p, r)
    holes = _holes(clock, i, j, p, r)
    diagnostics = _diagnose(clock, p, r, i, j, matches)
    _refuse(diagnostics, holes, offset, matches.period)
    return ClockMap(clock.starts, clock.values, clock.slopes, clock.jumps, diagnostics, holes)


def _refuse(d: dict[str, Any], holes: list[tuple[float, float]], offset: float | None, period: float | None) -> None:
    """Raise where the map cannot be what was meant."""
    lost = sum(b - a for a, b in holes)
    if lost > 0.25 * (d["last"] - d["first"]):
        raise InputError(
            f"in {lost:.0f} of {d['last'] - d['first']:.0f} s no pulses pair ({d['matched']} of {d['pulses']} pulses do): the clock jumps too often, "
            "or the trains are not of one source: give the right pulses"
        )
    if d["n_jumps"] > max(8, d["matched"] / 50):
        raise InputError(
            f"the best fit has {d['n_jumps']} jumps in {d['matched']} pulses, more than a clock makes: they are paired wrongly (regular pulses after a jump "
            "of half a period or more), or are not of one source: use irregular pulses, or cut the recording at the jump"
        )
    if offset is not None and period is not None and abs(d["offset"] - offset) > 0.5 * period + 1e-4 * abs(d["first"]):
        raise InputError(f"the pulses fit at an offset of {d['offset']:.3f} s, more than half a period ({period / 2:.3g} s) from the given {offset:g} s")


def _by_pattern(
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
            moved.append((good.sum(), _noise(p[iw[good]], r[jk[good]] - p[iw[good]]) if good.sum() > 10 else np.inf, iw[good], jk[good]))
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


def _simplest(
    clock: ClockMap, i: NDArray[np.int64], j: NDArray[np.int64], p: Floats, r: Floats
) -> tuple[ClockMap, NDArray[np.int64], NDArray[np.int64]]:  # fmt: skip
    """The map without the stretches between jumps that are not needed: where the line before (or after) them pairs as many pulses.

    Barcodes look alike when shifted by one of their bars, so that a stretch may be paired wrongly at first.
    """
    k, noise = 0, _noise(p[i], r[j] - p[i])
    while k < len(clock.jumps):
        simpler = None
        for other in (_without(clock, k, before=True), _without(clock, k, before=False)):
            a, b = _pair(other, p, r, noise)
            if len(a) >= max(3, len(i)):
                found = _assemble(p[a], r[b], _jumps(p[a], r[b] - p[a]))
                if len(found.jumps) < len(clock.jumps):
                    simpler = found, a, b
                    break
        k = k + 1 if simpler is None else 0
        clock, i, j = simpler or (clock, i, j)
    return clock, i, j


def _without(clock: ClockMap, k: int, *, before: bool) -> ClockMap:
    """The map with the line before jump `k` going on until the next jump (or the line after it reaching back to the one before)."""
    at = clock.jumps[k]["at"]
    if before:
        until = clock.jumps[k + 1]["at"] if k + 1 < len(clock.jumps) else np.inf
        keep = (clock.starts < at) | (clock.starts >= until)
        return ClockMap(clock.starts[keep], clock.values[keep], clock.slopes[keep], clock.jumps[:k] + clock.jumps[k + 1 :])
    since = clock.jumps[k - 1]["at"] if k else -np.inf
    keep = (clock.starts < since) | (clock.starts >= at)
    starts, values, slopes = clock.starts[keep], clock.values[keep], clock.slopes[keep]
    first = int(np.searchsorted(starts, at))
    back = max(since, clock.starts[0]) - at
    starts, values = starts.copy(), values.copy()
    starts[first], values[first] = starts[first] + back, values[first] + slopes[first] * back
    return ClockMap(starts, values, slopes, clock.jumps[:k] + clock.jumps[k + 1 :])


def _pair(clock: ClockMap, p: Floats, r: Floats, noise: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
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


def _fill(
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


def _holes(clock: ClockMap, i: NDArray[np.int64], j: NDArray[np.int64], p: Floats, r: Floats) -> list[tuple[float, float]]:
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


# -- jumps ----------------------------------------------------------------------------------------------------------
def _jumps(t: Floats, d: Floats) -> list[int]:
    """Indices k such that the clock jumped between pulses k-1 and k; `d` is reference minus own time of the pulses at own times `t`."""
    if len(t) < 2 * _FEWEST:
        return []
    noise = _noise(t, d)
    found: list[int] = []
    pieces = [(0, len(t))]
    while pieces:
        a, b = pieces.pop()
        k = _largest_step(t[a:b], d[a:b], noise)
        if k is not None:
            found.append(a + k)
            pieces += [(a, a + k), (a + k, b)]
    return sorted(found)


def _noise(t: Floats, d: Floats) -> float:
    """Standard deviation of a pulse's timing, s: from second differences, which bends and (but for a few) jumps leave alone."""
    if len(d) < 3:
        return 1e-7
    line = d - float(np.median(np.diff(d) / np.diff(t))) * t  # unevenly spaced pulses would turn drift into noise
    order = 2 if len(d) > 3 else 1
    change = np.diff(line, order)
    return 1.4826 * float(np.median(np.abs(change - np.median(change)))) / np.sqrt(6 if order == 2 else 2) + 1e-7


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
def _assemble(t: Floats, r: Floats, cuts: list[int]) -> ClockMap:
    """The map through paired pulses, with jumps before the pulses `cuts`."""
    noise = _noise(t, r - t)
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
        return _assemble(t, r, [c for c in cuts if c != tiny])
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


# -- diagnostics ----------------------------------------------------------------------------------------------------
def _diagnose(clock: ClockMap, p: Floats, r: Floats, i: NDArray[np.int64], j: NDArray[np.int64], matches: Matches) -> dict[str, Any]:
    first, last = p[i[0]], p[i[-1]]
    residual = r[j] - clock.to_session(p[i])
    offset = float(clock.to_session(first) - first)
    drift = float((clock.to_session(last) - last) - offset)
    total = sum(jump["size"] for jump in clock.jumps)
    span = max(last - first, 1e-9)
    return {
        "offset": offset, "ppm": float(1e6 * (drift - total) / span), "drift": drift, "first": float(first), "last": float(last), "pulses": len(p),
        "reference_pulses": len(r), "matched": len(i), "missing": int(((r >= r[j[0]]) & (r <= r[j[-1]])).sum() - len(j)),
        "spurious": int(((p >= first) & (p <= last)).sum() - len(i)), "residual_rms_us": float(1e6 * np.sqrt(np.mean(residual**2))),
        "residual_max_us": float(1e6 * np.abs(residual).max()), "residual_median_us": float(1e6 * np.median(np.abs(residual))), "period": matches.period, "patterned": matches.patterned,
        "n_jumps": len(clock.jumps),
    }  # fmt: skip


def _length(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.1f} s"
