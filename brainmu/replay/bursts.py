"""Population bursts and high-synchrony events: when the sorted units together fire above their baseline, or many of them at once.

References
----------
Davidson, Kloosterman & Wilson (2009), Neuron 63:497 (multiunit rate, Gaussian of SD 15 ms, edges at the mean).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from brainmu.core import EventTable, Intervals, Recording, Spikes
from brainmu.dsp.filters import overlapping_blocks
from brainmu.errors import InputError, MissingDataError
from brainmu.replay.significance import tail_level

__all__ = ["find_bursts", "find_hse", "widened"]

_BIN = 0.002
_BLOCK_SECONDS = 600.0
_SURROGATE_SECONDS = 600.0
_LOWEST = 1.0
_WORDS = {"burst": "population bursts", "hse": "high-synchrony events"}


def find_bursts(
    recording: Recording, spans: Intervals, baseline: Intervals, *, robust: bool, threshold: float | None = 2.0, sigma: float = 0.015,
    edge: float = 0.2, shortest: float = 0.05, longest: float = 1.0, least_units: int = 3, false_rate: float | None = None, seed: int = 0,
) -> EventTable:  # fmt: skip
    """Stretches of `spans` in which the smoothed multiunit rate peaks at z >= `threshold`.

    z is against the mean and SD of the rate in `baseline` (its median and MAD if `robust`). An event ends where the rate has
    fallen to `edge` of its peak's height over the mean (0 is the mean itself, as in Davidson et al.; with few units noise then
    joins neighbours). The surrogate rate is what the same detector finds when every unit's train is shifted circularly by its own
    draw, in at most 10 min spread over the baseline. With `false_rate` (events a minute) the threshold is set by such a draw, and the
    surrogate rate comes from another.
    """
    rule = _Rule(threshold, lambda s, a, b: _rate(s.times, a, b, sigma), max(int(sigma / _BIN), 1), edge, shortest, longest, least_units)
    return _find(recording, spans, baseline, rule, robust, false_rate, seed, {"kind": "burst", "method": "multiunit rate", "sigma": sigma})


def find_hse(
    recording: Recording, spans: Intervals, baseline: Intervals, *, robust: bool, threshold: float | None = 3.0, window: float = 0.02, sigma: float = 0.005,
    edge: float = 0.2, shortest: float = 0.05, longest: float = 1.0, least_units: int = 5, least_share: float = 0.1, false_rate: float | None = None,
    seed: int = 0,
) -> EventTable:  # fmt: skip
    """High-synchrony events: stretches of `spans` in which the number of units that fire within `window` s peaks at z >= `threshold`.

    A unit counts once however often it fires, so that the bursts of one cell make no event. Each event holds at least
    `least_units` units and `least_share` of all. Edges, baseline and surrogates are as for :func:`find_bursts`; the number is
    smoothed by a Gaussian of SD `sigma` s.
    """
    if not window > 0:
        raise InputError(f"high-synchrony events: window is {window} s, expected a positive length")
    n = 0 if recording.spikes is None else recording.spikes.n_units
    least = max(least_units, int(np.ceil(least_share * n)))
    rule = _Rule(threshold, lambda s, a, b: _active_units(s, a, b, window, sigma), max(int(window / _BIN), 1), edge, shortest, longest, least)
    about = {"kind": "hse", "method": f"distinct units in {window * 1000:g} ms", "window": window, "sigma": sigma, "least_share": least_share}
    return _find(recording, spans, baseline, rule, robust, false_rate, seed, about)


Trace = Callable[[Spikes, float, float], NDArray[np.float32]]


@dataclass(frozen=True)
class _Rule:
    """What an event is: `trace` gives the statistic in 2-ms bins over [a, b), of which every `apart`-th is new."""

    threshold: float | None
    trace: Trace
    apart: int
    edge: float
    shortest: float
    longest: float
    least_units: int


def _find(
    recording: Recording, spans: Intervals, baseline: Intervals, rule: _Rule, robust: bool, false_rate: float | None, seed: int, about: dict[str, Any]
) -> EventTable:
    spikes = recording.spikes
    if spikes is None or not len(spikes):
        raise MissingDataError(f"{recording.id}: no spikes, {_WORDS[about['kind']]} need some")
    if false_rate is not None and not 0 < false_rate < np.inf:
        raise InputError(f"{_WORDS[about['kind']]}: false_rate is {false_rate} a minute, expected a positive number")
    firing = len(np.unique(spikes.unit_id))
    if firing < rule.least_units:
        raise MissingDataError(f"{recording.id}: {firing} units fire, {_WORDS[about['kind']]} of {rule.least_units} or more need as many (least_units)")
    if not 0 < rule.shortest < rule.longest:
        raise InputError(f"{_WORDS[about['kind']]}: shortest is {rule.shortest:g} s and longest {rule.longest:g} s, expected 0 < shortest < longest")
    centre, spread = _baseline(spikes, baseline, rule, robust, _WORDS[about["kind"]])
    piece = spread_seconds(baseline, _SURROGATE_SECONDS)
    rng = np.random.default_rng(seed)
    if false_rate is not None:
        calm = _detect(shifted(spikes, piece, rng), piece, centre, spread, replace(rule, threshold=_LOWEST))
        z = np.sort([r[3] for r in calm])[::-1]
        rule = replace(rule, threshold=max(tail_level(z, false_rate * piece.duration / 60), _LOWEST))
    elif rule.threshold is None:
        raise InputError(f"{_WORDS[about['kind']]}: no threshold and no false_rate, expected one of them")
    rows = _detect(spikes, spans, centre, spread, rule)
    false = _detect(shifted(spikes, piece, rng), piece, centre, spread, rule)
    # Rates differ outside the baseline, and with them how often units coincide by chance.
    beyond = spread_seconds(spans.subtract(baseline), _SURROGATE_SECONDS)
    elsewhere = _detect(shifted(spikes, beyond, rng), beyond, centre, spread, rule) if beyond.duration >= 10 else []
    found = np.array(rows, dtype=np.float64).reshape(-1, 6)
    attrs: dict[str, Any] = {
        **{k: v for k, v in about.items() if k != "kind"}, "threshold": rule.threshold, "false_rate": false_rate, "edge": rule.edge, "shortest": rule.shortest,
        "longest": rule.longest, "least_units": rule.least_units, "mean_rate": centre, "sd_rate": spread,
        "rate": len(found) / spans.duration * 60 if spans.duration else 0.0, "surrogate_rate": len(false) / piece.duration * 60,
        "surrogate": "unit trains shifted circularly", "surrogate_seconds": piece.duration,
    }  # fmt: skip
    if beyond.duration >= 10:
        attrs |= {"surrogate_rate_beyond": len(elsewhere) / beyond.duration * 60, "surrogate_seconds_beyond": beyond.duration}
    return EventTable(
        found[:, 0], found[:, 1], found[:, 2], kind=about["kind"], attrs=attrs, score=found[:, 3].astype(np.float32),
        n_units=found[:, 4].astype(int), n_spikes=found[:, 5].astype(int),
    )  # fmt: skip


def _active_units(spikes: Spikes, a: float, b: float, window: float, sigma: float) -> NDArray[np.float32]:
    """How many units (bin,) fire within half a `window` of the middle of each 2-ms bin over [a, b), smoothed."""
    pad = int(np.ceil(4 * sigma / _BIN))
    n = max(int(round((b - a) / _BIN)), 1) + 2 * pad
    first = a - pad * _BIN
    t, u = spikes.span(first - window, first + n * _BIN + window)
    order = np.lexsort((t, u))
    t, u = t[order], u[order]
    # Spikes of a unit that follow each other within the window make one stretch in which it is active.
    new = np.flatnonzero(np.r_[True, (np.diff(u) != 0) | (np.diff(t) > window)]) if len(t) else np.empty(0, dtype=np.intp)
    begin, end = t[new] - window / 2, t[np.r_[new[1:], len(t)].astype(np.intp) - 1] + window / 2 if len(t) else t
    change = np.zeros(n + 1)
    np.add.at(change, np.clip(np.ceil((begin - first) / _BIN - 0.5).astype(np.intp), 0, n), 1)
    np.add.at(change, np.clip(np.ceil((end - first) / _BIN - 0.5).astype(np.intp), 0, n), -1)
    count = np.cumsum(change[:n]).astype(np.float32)
    return (gaussian_filter1d(count, sigma / _BIN, mode="nearest") if sigma > 0 else count)[pad : n - pad]


def _rate(times: NDArray[np.float64], a: float, b: float, sigma: float) -> NDArray[np.float32]:
    """Smoothed multiunit rate (bin,), Hz, in 2-ms bins over [a, b); spikes beyond are seen through the kernel."""
    pad = int(np.ceil(4 * sigma / _BIN))
    n = max(int(round((b - a) / _BIN)), 1)
    edges = a + _BIN * (np.arange(n + 2 * pad + 1) - pad)
    i, j = np.searchsorted(times, [edges[0], edges[-1]])
    count = np.bincount(np.minimum(((times[i:j] - edges[0]) / _BIN).astype(np.intp), n + 2 * pad - 1), minlength=n + 2 * pad)
    return gaussian_filter1d((count / _BIN).astype(np.float32), sigma / _BIN, mode="constant")[pad : pad + n]


def _baseline(spikes: Spikes, baseline: Intervals, rule: _Rule, robust: bool, what: str) -> tuple[float, float]:
    parts = [
        rule.trace(spikes, a + i * _BIN, a + j * _BIN)[:: rule.apart]  # nearer samples repeat each other
        for a, b in baseline
        for i, j, _, _ in overlapping_blocks(int((b - a) / _BIN), int(_BLOCK_SECONDS / _BIN), 0)
    ]
    rate = np.concatenate(parts).astype(np.float64) if parts else np.empty(0)
    if not len(rate) or not rate.any():
        raise MissingDataError(f"{what}: no spike in the {baseline.duration:.1f} s of baseline, expected some")
    if robust:
        centre = float(np.median(rate))
        spread = 1.4826 * float(np.median(np.abs(rate - centre)))
        if spread > 0:
            return centre, spread
    return float(rate.mean()), float(rate.std())


def _detect(spikes: Spikes, spans: Intervals, centre: float, spread: float, rule: _Rule) -> list[tuple[float, float, float, float, int, int]]:
    rows = []
    pad = int(rule.longest / _BIN)
    for a, b in spans:
        for i, j, lo, hi in overlapping_blocks(int((b - a) / _BIN), int(_BLOCK_SECONDS / _BIN), pad):
            z = (rule.trace(spikes, a + lo * _BIN, a + hi * _BIN) - centre) / spread
            found = []
            for top in np.flatnonzero((z >= rule.threshold) & (z == maximum_filter1d(z, int(0.05 / _BIN) | 1))):
                if i <= lo + top < j:  # otherwise it belongs to the next block
                    p, q = run_above(z, int(top), rule.edge * float(z[top]), pad)
                    found.append((a + (lo + p) * _BIN, min(a + (lo + q) * _BIN, b), a + (lo + top + 0.5) * _BIN, float(z[top])))
            rows += _merged(found)
    out = []
    for start, stop, peak, z in rows:
        _, units = spikes.span(start, stop)
        n = len(np.unique(units))
        if rule.shortest <= stop - start <= rule.longest and n >= rule.least_units:
            out.append((start, stop, peak, z, n, len(units)))
    return out


def run_above(values: NDArray[Any], top: int, level: float, reach: int) -> tuple[int, int]:
    """First index and one past the last of the run around `top` in which `values` stay at or above `level`, at most `reach` either way."""
    lo, hi = max(top - reach, 0), min(top + reach + 1, len(values))
    left, right = np.flatnonzero(values[lo : top + 1] < level), np.flatnonzero(values[top:hi] < level)
    return (lo + int(left[-1]) + 1 if len(left) else lo), (top + int(right[0]) if len(right) else hi)


def _merged(found: list[tuple[float, float, float, float]]) -> list[tuple[float, float, float, float]]:
    """Events in order that overlap become one, with the peak of the highest."""
    out: list[tuple[float, float, float, float]] = []
    for event in found:
        if out and event[0] < out[-1][1]:
            last = out.pop()
            high = max(last, event, key=lambda e: e[3])
            event = (min(last[0], event[0]), max(last[1], event[1]), high[2], high[3])
        out.append(event)
    return out


def widened(recording: Recording, events: EventTable, spans: Intervals, *, sigma: float = 0.015, edge: float = 0.2, longest: float = 0.5) -> EventTable:
    """`events` (ripples) widened to the population burst around each: as far as the multiunit rate stays above `edge` of its height.

    Events that come to overlap become one. An event whose multiunit rate does not exceed the mean of `spans` stays as it is.
    """
    spikes = recording.spikes
    if spikes is None or not len(events):
        return events
    centre = sum(len(spikes.span(a, b)[0]) for a, b in spans) / max(spans.duration, 1e-9)
    start, stop = events.start.copy(), events.stop.copy()
    reach = int(longest / _BIN)
    for k, (a, b) in enumerate(zip(events.start, events.stop)):
        rate = _rate(spikes.times, a - longest, b + longest, sigma) - centre
        inner = rate[reach : len(rate) - reach]
        top = reach + int(inner.argmax())
        if rate[top] > 0:
            p, q = run_above(rate, top, edge * float(rate[top]), reach)
            start[k], stop[k] = min(a, a - longest + p * _BIN), max(b, a - longest + q * _BIN)
    return events.assign(start=start, stop=stop).merge()


def spread_seconds(spans: Intervals, seconds: float, piece: float = 60.0) -> Intervals:
    """About `seconds` of `spans` in pieces of `piece` s spread evenly over them; all of `spans` where they are no longer than that."""
    if spans.duration <= seconds:
        return spans
    start = np.r_[0, np.cumsum(spans.stop - spans.start)]
    at = np.linspace(0, start[-1] - piece, max(int(seconds / piece), 1))
    rows = []
    for lo in at:
        for k in range(len(spans)):
            a, b = max(lo, start[k]), min(lo + piece, start[k + 1])
            if b > a:
                rows.append((a - start[k] + spans.start[k], b - start[k] + spans.start[k]))
    return Intervals.merge(rows)


def shifted(spikes: Spikes, piece: Intervals, rng: np.random.Generator) -> Spikes:
    """The spikes inside `piece`, each unit's train rotated by its own draw along the united time of the piece."""
    start = np.r_[0, np.cumsum(piece.stop - piece.start)]
    inside = piece.contains(spikes.times)
    t, u = spikes.times[inside], spikes.unit_id[inside]
    which = np.searchsorted(piece.start, t, side="right") - 1
    along = t - piece.start[which] + start[which]
    ids = spikes.units["id"].to_numpy()
    draw = rng.uniform(0, start[-1], len(ids))
    order = np.argsort(ids)
    along = (along + draw[order[np.searchsorted(ids[order], u)]]) % start[-1]
    which = np.minimum(np.searchsorted(start, along, side="right") - 1, len(piece) - 1)
    return Spikes(along - start[which] + piece.start[which], u, spikes.units)
