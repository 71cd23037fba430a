"""Is the order in an event more than chance? Sequence scores of many events at once, under two shuffles, recalibrated on null sessions.

All bins of all events lie in one array, so a shuffle of every event is one matrix product: thousands of events and a thousand
shuffles take minutes.

References
----------
Davidson, Kloosterman & Wilson (2009), Neuron 63:497 (decoded trajectories in candidate events).
Grosmark & Buzsáki (2016), Science 351:1440 (weighted correlation).
Tirole, Huelin Gorriz, Takigawa, Kukovska & Bendor (2022), eLife 11:e79031 (shuffles applied jointly).
Takigawa et al., eLife 85635 (true false-positive rates of replay detection).
van der Meer, Kemere & Diba (2020), Phil Trans B 375:20190231 (second-order comparisons).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainmu.replay.decode import log_likelihood

__all__ = ["Candidates", "Significance", "benjamini_hochberg", "log_evidence", "test_sequences", "weighted_correlation"]

Float = NDArray[np.float32]
_FINEST = 0.0625
"""No bin is trusted to more than this share of the track."""
_ALIKE_VALUES, _ALIKE_SHARE = 150, 0.1
"""Null values, and share of the events, that say at least what events of one size reach by chance."""
_BATCH_BINS = 4000
"""Bins of all events and shuffles that go through one product."""


@dataclass(frozen=True)
class Candidates:
    """Bins of many events, end to end.

    Attributes
    ----------
    counts : float32 (bin, unit)
    event : int (bin,)
        Row of the event, ascending.
    time : float32 (bin,), s
        Bin centre from the event's middle.
    first : int (event,)
        First bin of each event.
    size : float, s
        Length of a bin.
    """

    counts: Float
    event: NDArray[np.intp]
    time: Float
    first: NDArray[np.intp]
    size: float

    @classmethod
    def of(cls, counts: list[NDArray[np.int32]], size: float) -> Candidates:
        """From the counts (bin, unit) of each event."""
        n = np.array([len(c) for c in counts], dtype=np.intp)
        first = np.r_[0, np.cumsum(n)[:-1]].astype(np.intp)
        event = np.repeat(np.arange(len(n)), n)
        time = (np.arange(n.sum()) - np.repeat(first + (n - 1) / 2, n)) * size
        return cls(np.concatenate(counts).astype(np.float32), event, time.astype(np.float32), first, size)

    def __len__(self) -> int:
        return len(self.first)

    def pick(self, which: NDArray[np.intp]) -> Candidates:
        """Only some events, in the order given."""
        last = np.r_[self.first[1:], len(self.counts)]
        rows = [np.arange(self.first[e], last[e]) for e in which]
        n = np.array([len(r) for r in rows], dtype=np.intp)
        flat = np.concatenate(rows) if rows else np.empty(0, dtype=np.intp)
        first = np.r_[0, np.cumsum(n)[:-1]].astype(np.intp) if len(n) else np.empty(0, dtype=np.intp)
        return Candidates(self.counts[flat], np.repeat(np.arange(len(n)), n), self.time[flat], first, self.size)

    def tiled(self, copies: int) -> Candidates:
        """All events again and again, `copies` times in all."""
        n, bins = len(self), len(self.counts)
        again = np.arange(copies)[:, None]
        return Candidates(
            np.tile(self.counts, (copies, 1)), (self.event + n * again).ravel(), np.tile(self.time, copies), (self.first + bins * again).ravel(), self.size
        )  # fmt: skip

    def rolled(self, rng: np.random.Generator) -> Float:
        """Counts with each unit's train shifted circularly within each event, every unit by its own draw."""
        n = np.diff(np.r_[self.first, len(self.counts)])
        shift = (rng.random((len(self), self.counts.shape[1]), dtype=np.float32) * n[:, None]).astype(np.int32)
        place = (np.arange(len(self.counts)) - self.first[self.event]).astype(np.int32)[:, None] + shift[self.event]
        place -= np.where(place >= n[self.event][:, None], n[self.event][:, None], 0).astype(np.int32)
        return np.take_along_axis(self.counts, place + self.first[self.event][:, None], axis=0)


@dataclass(frozen=True)
class Sequence:
    """Scores (event,) of one decoding: weighted correlation r, slope (`unit`/s), and the way (row of `x`) on which r is strongest."""

    r: Float
    slope: Float
    way: NDArray[np.intp]


def weighted_correlation(candidates: Candidates, counts: Float, rates: Float, x: Float) -> Sequence:
    """Correlation of time and decoded place in each event, every place weighted by its posterior probability.

    A bin weighs as much as it is sure of the place: by the inverse of its posterior's variance plus that of a sixteenth of the
    track. Bins without a spike carry no weight: their posterior is the prior. `rates` (unit, place), `x` (place,) are the context's.
    Of a track with arms `x` (way, place) holds the coordinates on each way from end to end, and the event takes the way of the
    strongest correlation; shuffles do the same.
    """
    return _correlate(candidates, log_likelihood(counts, rates, candidates.size), counts.sum(1) > 0, x)


def _correlate(candidates: Candidates, logp: Float, heard: NDArray[np.bool_], x: Float) -> Sequence:
    """:func:`weighted_correlation` from log-likelihoods (bin, place), which are used up, and which bins hold a spike."""
    logp -= logp.max(1, keepdims=True)
    np.exp(logp, out=logp)
    ways = np.atleast_2d(x)
    span = np.maximum(np.ptp(ways, axis=1, keepdims=True), 1e-9)
    u = (ways - ways.mean(1, keepdims=True)) / span
    moment = (logp @ np.concatenate([np.ones_like(u[:1]), u, u**2]).T).astype(np.float64)
    one, square = np.split(moment[:, 1:] / moment[:, :1], 2, axis=1)
    found = [_correlate_way(candidates, m, s, heard) for m, s in zip(one.T, square.T)]
    r, slope = np.stack([f[0] for f in found]), np.stack([f[1] for f in found]) * span
    way = np.abs(r).argmax(0)
    r, slope = (np.take_along_axis(v, way[None], axis=0)[0] for v in (r, slope))
    return Sequence(np.clip(r, -1, 1).astype(np.float32), slope.astype(np.float32), way)


def _correlate_way(
    candidates: Candidates, mean: NDArray[np.float64], square: NDArray[np.float64], heard: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Correlation and slope (event,) from the mean and mean square (bin,) of each bin's place, in shares of the way."""
    t = candidates.time.astype(np.float64)
    weight = heard / (np.maximum(square - mean**2, 0) + _FINEST**2)
    columns = np.stack([weight, weight * t, weight * t * t, weight * mean, weight * square, weight * t * mean], axis=1)
    w, st, stt, sx, sxx, stx = np.add.reduceat(columns, candidates.first, axis=0).T
    w = np.maximum(w, 1e-9)
    covariance = stx / w - st * sx / w**2
    var_t, var_x = stt / w - (st / w) ** 2, sxx / w - (sx / w) ** 2
    ok = (var_t > 1e-12) & (var_x > 1e-9)
    r = np.where(ok, covariance / np.sqrt(np.where(ok, var_t * var_x, 1)), 0)
    return r, np.where(var_t > 1e-12, covariance / np.maximum(var_t, 1e-12), 0)


def log_evidence(candidates: Candidates, counts: Float, rates: Float) -> NDArray[np.float64]:
    """Log probability (event,) of which units fire under a context, every place equally likely in every bin; up to a constant of the event.

    Given how many spikes a bin holds: replay is faster and denser than running by a factor nobody knows, and with the rates
    themselves the context (or the direction of running) in which the cells fire more would be read into every dense event.
    """
    share = np.log(rates / rates.sum(0))
    logp = np.asarray(counts, dtype=np.float32) @ share.astype(np.float32)
    top = logp.max(1)
    each = top + np.log(np.exp(logp - top[:, None]).mean(1))
    return np.add.reduceat(each.astype(np.float64), candidates.first)


@dataclass(frozen=True)
class Significance:
    """What the shuffles say of each event (event,).

    `p_temporal`, `p_spatial`: share of shuffles that score as high. `z_…`: the score in SDs of its shuffles. `joint`: both z-scores
    together (their sum over the root of two).
    """

    sequence: Sequence
    p_temporal: NDArray[np.float64]
    p_spatial: NDArray[np.float64]
    z_temporal: NDArray[np.float64]
    z_spatial: NDArray[np.float64]

    @property
    def joint(self) -> NDArray[np.float64]:
        return (self.z_temporal + self.z_spatial) / np.sqrt(2)


def test_sequences(
    candidates: Candidates, rates: Float, x: Float, shuffles: int, rng: np.random.Generator, tick: Callable[[], None] | None = None
) -> Significance:
    """Score every event and its shuffles: each unit's train rolled in time, and each unit's field rolled along the track."""
    found = weighted_correlation(candidates, candidates.counts, rates, x)
    score = np.abs(found.r)
    tally = {kind: _Tally(score) for kind in ("temporal", "spatial")}
    # Small sets of events would spend their time between the products: many shuffles of them go through together.
    copies = int(np.clip(_BATCH_BINS // max(len(candidates.counts), 1), 1, shuffles))
    heard = np.tile(candidates.counts.sum(1) > 0, copies)
    many = candidates.tiled(copies)
    for done in range(0, shuffles, copies):
        r = min(copies, shuffles - done)
        if r < copies:
            many, heard = candidates.tiled(r), heard[: r * len(candidates.counts)]
        tally["temporal"].add(np.abs(weighted_correlation(many, many.rolled(rng), rates, x).r).reshape(r, -1))
        logp = _spatial_likelihood(candidates, rates, r, rng)
        tally["spatial"].add(np.abs(_correlate(many, logp, heard, x).r).reshape(r, -1))
        for _ in range(r if tick else 0):
            tick()
    return Significance(found, tally["temporal"].p, tally["spatial"].p, tally["temporal"].z, tally["spatial"].z)


test_sequences.__test__ = False  # type: ignore[attr-defined]  # its name makes pytest take it for a test


def _spatial_likelihood(candidates: Candidates, rates: Float, copies: int, rng: np.random.Generator) -> Float:
    """Log-likelihoods (copy · bin, place) of the candidates under `copies` draws of rolled fields."""
    many = np.stack([rolled_fields(rates, rng) for _ in range(copies)])
    flat = candidates.counts @ np.log(many).transpose(1, 0, 2).reshape(len(rates), -1)
    logp = flat.reshape(len(flat), copies, -1).transpose(1, 0, 2) - np.float32(candidates.size) * many.sum(1)[:, None]
    return logp.reshape(copies * len(flat), -1)


def rolled_fields(rates: Float, rng: np.random.Generator) -> Float:
    """Every unit's field (unit, place) shifted circularly along the track by its own draw."""
    n = rates.shape[1]
    shift = rng.integers(0, n, len(rates))
    return np.take_along_axis(rates, (np.arange(n)[None] + shift[:, None]) % n, axis=1)


def exchanged_fields(rates: Float, which: NDArray[np.bool_], rng: np.random.Generator) -> Float:
    """Field shapes (unit, place) dealt anew among the units `which` (unit,); every unit keeps its mean rate, the others all they have."""
    mean = rates.mean(1, keepdims=True)
    dealt = np.arange(len(rates))
    dealt[which] = rng.permutation(dealt[which])
    return (rates / mean)[dealt] * mean


def tuned(rates: Float, least: float = 0.2) -> NDArray[np.bool_]:
    """Units (unit,) with at least `least` bits a spike about the place, every place equally likely.

    Only they are dealt anew in null sessions: an interneuron's flat field given to a place cell, and the reverse, would leave null
    events poorer in places than real ones.
    """
    ratio = rates / rates.mean(1, keepdims=True)
    return (ratio * np.log2(ratio)).mean(1) >= least


class _Tally:
    """Running count, mean and SD of shuffled scores (event,), with the observed scores to compare."""

    def __init__(self, score: Float) -> None:
        self.score = score.astype(np.float64)
        self.n, self.above = 0, np.zeros(len(score))
        self.total, self.square = np.zeros(len(score)), np.zeros(len(score))

    def add(self, shuffled: Float) -> None:
        """Scores (draw, event) of some shuffles."""
        self.n += len(shuffled)
        self.above += (shuffled >= self.score - 1e-6).sum(0)
        self.total += shuffled.sum(0, dtype=np.float64)
        self.square += (shuffled.astype(np.float64) ** 2).sum(0)

    @property
    def p(self) -> NDArray[np.float64]:
        return (1 + self.above) / (1 + self.n)

    @property
    def z(self) -> NDArray[np.float64]:
        mean = self.total / max(self.n, 1)
        sd = np.sqrt(np.maximum(self.square / max(self.n, 1) - mean**2, 1e-6))
        return (self.score - mean) / sd


def calibrated(joint: NDArray[np.float64], null: NDArray[np.float64], size: NDArray[np.float64]) -> NDArray[np.float64]:
    """p (event,) of joint statistics (event,): share of null ones (session, event) at or above each, counting the event itself.

    Long events and events of many cells reach higher by chance than others. So every statistic, null or not, is first measured by
    the null of events of its own `size` (event,): from their median, in steps from there to their 95th percentile.
    """
    enough = min(max(int(np.ceil(_ALIKE_VALUES / len(null))), int(np.ceil(_ALIKE_SHARE * len(joint)))), len(joint))
    middle, step = np.empty(len(joint)), np.empty(len(joint))
    for value in np.unique(size):
        far = np.abs(size - value)
        alike = null[:, far <= np.partition(far, enough - 1)[enough - 1]]
        here = size == value
        middle[here], step[here] = np.median(alike), np.quantile(alike, 0.95) - np.median(alike)
    step = np.maximum(step, 1e-3)
    ordered = np.sort(((null - middle) / step).ravel())
    above = len(ordered) - np.searchsorted(ordered, (joint - middle) / step - 1e-9, side="left")
    return (1 + above) / (1 + len(ordered))


def benjamini_hochberg(p: ArrayLike) -> NDArray[np.float64]:
    """Least false discovery rate (n,) at which each of the p-values (n,) is called (Benjamini & Hochberg 1995).

    >>> benjamini_hochberg([0.01, 0.04, 0.03, 0.5]).round(3).tolist()
    [0.04, 0.053, 0.053, 0.5]
    """
    q = np.asarray(p, dtype=np.float64)
    n = len(q)
    if n == 0:
        return q.copy()
    order = np.argsort(q)[::-1]
    out = np.empty(n)
    out[order] = np.minimum.accumulate(q[order] * n / np.arange(n, 0, -1))
    return np.minimum(out, 1.0)


def tail_level(z: NDArray[np.float64], allowed: float) -> float:
    """Where `allowed` of the descending peaks `z` are expected to lie above, by an exponential fit to the highest 60 of them."""
    top = z[:60]
    if len(top) < 10:
        return 0.0
    base = top[-1]
    scale = float((top[:-1] - base).mean())
    return float(base + scale * np.log((len(top) - 1) / allowed))
