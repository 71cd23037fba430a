"""Population bursts: when the sorted units together fire above their baseline.

References
----------
Davidson, Kloosterman & Wilson (2009), Neuron 63:497 (multiunit rate, Gaussian of SD 15 ms, edges at the mean).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from brainmu.core import EventTable, Intervals, Recording, Spikes
from brainmu.dsp.filters import overlapping_blocks
from brainmu.errors import MissingDataError

__all__ = ["find_bursts", "widened"]

_BIN = 0.002
_BLOCK_SECONDS = 600.0
_SURROGATE_SECONDS = 600.0


def find_bursts(
    recording: Recording, spans: Intervals, baseline: Intervals, *, robust: bool, threshold: float = 2.0, sigma: float = 0.015,
    edge: float = 0.2, shortest: float = 0.05, longest: float = 1.0, least_units: int = 3, seed: int = 0,
) -> EventTable:  # fmt: skip
    """Stretches of `spans` in which the smoothed multiunit rate peaks at z >= `threshold`.

    z is against the mean and SD of the rate in `baseline` (its median and MAD if `robust`). An event ends where the rate has
    fallen to `edge` of its peak's height over the mean (0 is the mean itself, as in Davidson et al.; with few units noise then
    joins neighbours). The surrogate rate is what the same detector finds when every unit's train is shifted circularly by its own
    draw, in at most 10 min of the baseline.
    """
    spikes = recording.spikes
    if spikes is None or not len(spikes):
        raise MissingDataError(f"{recording.id}: no spikes, population bursts need some")
    centre, spread = _baseline(spikes.times, baseline, sigma, robust)
    rule = _Rule(threshold, sigma, edge, shortest, longest, least_units)
    rows = _detect(spikes, spans, centre, spread, rule)
    piece = _first_seconds(baseline, _SURROGATE_SECONDS)
    shifted = _shifted(spikes, piece, np.random.default_rng(seed))
    false = _detect(shifted, piece, centre, spread, rule)
    found = np.array(rows, dtype=np.float64).reshape(-1, 6)
    attrs: dict[str, Any] = {
        "method": "multiunit rate", "threshold": threshold, "sigma": sigma, "edge": edge, "shortest": shortest, "longest": longest, "least_units": least_units,
        "mean_rate": centre, "sd_rate": spread, "rate": len(found) / spans.duration * 60 if spans.duration else 0.0,
        "surrogate_rate": len(false) / piece.duration * 60, "surrogate": "unit trains shifted circularly", "surrogate_seconds": piece.duration,
    }  # fmt: skip
    return EventTable(
        found[:, 0], found[:, 1], found[:, 2], kind="burst", attrs=attrs, score=found[:, 3].astype(np.float32),
        n_units=found[:, 4].astype(int), n_spikes=found[:, 5].astype(int),
    )  # fmt: skip


def _rate(times: NDArray[np.float64], a: float, b: float, sigma: float) -> NDArray[np.float32]:
    """Smoothed multiunit rate (bin,), Hz, in 2-ms bins over [a, b); spikes beyond are seen through the kernel."""
    pad = int(np.ceil(4 * sigma / _BIN))
    n = max(int(round((b - a) / _BIN)), 1)
    edges = a + _BIN * (np.arange(n + 2 * pad + 1) - pad)
    i, j = np.searchsorted(times, [edges[0], edges[-1]])
    count = np.bincount(np.minimum(((times[i:j] - edges[0]) / _BIN).astype(np.intp), n + 2 * pad - 1), minlength=n + 2 * pad)
    return gaussian_filter1d((count / _BIN).astype(np.float32), sigma / _BIN, mode="constant")[pad : pad + n]


def _baseline(times: NDArray[np.float64], baseline: Intervals, sigma: float, robust: bool) -> tuple[float, float]:
    step = max(int(sigma / _BIN), 1)  # nearer samples repeat each other
    parts = [
        _rate(times, a + i * _BIN, a + j * _BIN, sigma)[::step]
        for a, b in baseline
        for i, j, _, _ in overlapping_blocks(int((b - a) / _BIN), int(_BLOCK_SECONDS / _BIN), 0)
    ]
    rate = np.concatenate(parts).astype(np.float64) if parts else np.empty(0)
    if not len(rate) or not rate.any():
        raise MissingDataError(f"population bursts: no spike in the {baseline.duration:.1f} s of baseline, expected some")
    if robust:
        centre = float(np.median(rate))
        spread = 1.4826 * float(np.median(np.abs(rate - centre)))
        if spread > 0:
            return centre, spread
    return float(rate.mean()), float(rate.std())


@dataclass(frozen=True)
class _Rule:
    threshold: float
    sigma: float
    edge: float
    shortest: float
    longest: float
    least_units: int


def _detect(spikes: Spikes, spans: Intervals, centre: float, spread: float, rule: _Rule) -> list[tuple[float, float, float, float, int, int]]:
    rows = []
    pad = int(rule.longest / _BIN)
    for a, b in spans:
        for i, j, lo, hi in overlapping_blocks(int((b - a) / _BIN), int(_BLOCK_SECONDS / _BIN), pad):
            z = (_rate(spikes.times, a + lo * _BIN, a + hi * _BIN, rule.sigma) - centre) / spread
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


def _first_seconds(spans: Intervals, seconds: float) -> Intervals:
    """The first `seconds` of `spans`."""
    out, left = [], seconds
    for a, b in spans:
        if left <= 0:
            break
        out.append((a, min(b, a + left)))
        left -= b - a
    return Intervals(out)


def _shifted(spikes: Spikes, piece: Intervals, rng: np.random.Generator) -> Spikes:
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
