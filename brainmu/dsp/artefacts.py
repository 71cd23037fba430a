"""What is wrong with a raw signal, sample by sample: missing, flat and saturated spans, and channels that are dead.

Blocks are judged one by one (:func:`examine`) with a little context on each side, and their findings joined (:func:`join`): the result
does not depend on where the block borders lie. Nothing is changed or removed. What can only be judged against the rest of the recording
(noisy channels, artefacts) is in :mod:`brainmu.dsp.levels`; its measures ride along in `Findings`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.dsp.resample import column_extremes, column_sums, columns_equal

__all__ = ["Findings", "examine", "join", "limits_only"]

Spans = list[tuple[int, int]]
REPEATS = 3


@dataclass
class Findings:
    """Sample spans [first, last) of each channel, and what the channel's numbers are like.

    Attributes
    ----------
    first, last : int
        The samples examined.
    missing, flat, at_low, at_high : list (channel) of lists of (first, last)
        NaN or infinite samples; runs of equal samples of at least the length asked for; runs of at least three equal samples at the
        channel's least and greatest value (`saturated` unites them).
    low, high : float64 (channel,)
        Least and greatest value (NaN where all are missing), in steps of the source.
    count, total, squares : float64 (channel,)
        Number of present samples and the sums of their values and squares.
    beyond : list of int (channel,)
        Samples among the missing that are infinite: not recorded as missing, but not to be kept.
    levels : list of dict
        Measures of windows, as :func:`brainmu.dsp.levels.measure` gives them: block after block.
    """

    first: int
    last: int
    missing: list[Spans] = field(default_factory=list)
    flat: list[Spans] = field(default_factory=list)
    at_low: list[Spans] = field(default_factory=list)
    at_high: list[Spans] = field(default_factory=list)
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)
    count: list[int] = field(default_factory=list)
    total: list[float] = field(default_factory=list)
    squares: list[float] = field(default_factory=list)
    beyond: list[int] = field(default_factory=list)
    levels: list[dict[str, Any]] = field(default_factory=list)

    @property
    def saturated(self) -> list[Spans]:
        """Runs at either end of the range."""
        return [_united(a + b) for a, b in zip(self.at_low, self.at_high)]

    @property
    def mean(self) -> NDArray[np.float64]:
        n = np.asarray(self.count, dtype=np.float64)
        return np.divide(self.total, n, out=np.full(len(n), np.nan), where=n > 0)

    @property
    def deviation(self) -> NDArray[np.float64]:
        """Standard deviation of the present samples (channel,)."""
        n = np.asarray(self.count, dtype=np.float64)
        second = np.divide(self.squares, n, out=np.full(len(n), np.nan), where=n > 0)
        return np.sqrt(np.maximum(second - self.mean**2, 0))

    @property
    def dead(self) -> NDArray[np.bool_]:
        """Channels (channel,) that hold one value, or none, from beginning to end."""
        low, high = np.asarray(self.low), np.asarray(self.high)
        return ~(low < high)


def examine(block: NDArray[Any], first: int, *, inner: tuple[int, int], flat: int, absent: Any = None) -> Findings:
    """Findings in the samples `inner` = (i, j) of a signal, from rows that begin at sample `first`.

    Parameters
    ----------
    block : integers or floats (time, channel)
        Rows around `inner`: up to `flat` more on each side, so that runs across its borders are seen whole enough.
    first : int
        Sample number of the block's first row.
    inner : (int, int)
        The samples to report on.
    flat : int
        Equal samples in a row that make a flat span (at least 3).
    absent : integer or None
        The integer that marks a missing sample.
    """
    a, b = inner[0] - first, inner[1] - first
    core = block[a:b]
    out = Findings(*inner)
    n, channels = core.shape
    if not n:
        empty: list[Spans] = [[] for _ in range(channels)]
        none = [np.nan] * channels
        return Findings(*inner, empty, empty, empty, empty, none, none, [0] * channels, [0.0] * channels, [0.0] * channels, [0] * channels)
    bad = _absent(block, absent)
    out.missing = [_runs(bad[a:b, c], 1, inner[0]) if bad is not None else [] for c in range(channels)]
    out.beyond = [0] * channels if bad is None or core.dtype.kind != "f" else np.isinf(core).sum(axis=0).tolist()
    present = None if bad is None or not bad[a:b].any() else ~bad[a:b]
    if present is None:
        low, high = (e.astype(np.float64) for e in column_extremes(core))
        out.count = [n] * channels
    else:
        low, high = (f(core, axis=0, initial=e, where=present).astype(np.float64) for f, e in ((np.min, _top(core)), (np.max, _bottom(core))))
        low[~present.any(axis=0)] = high[~present.any(axis=0)] = np.nan
        out.count = [int(k) for k in present.sum(axis=0)]
    out.low, out.high = low.tolist(), high.tolist()
    out.total, out.squares = _moments(core, present)
    suspects = _maybe_flat(block, flat)
    out.flat = [_flat_runs(block[:, c], None if bad is None else bad[:, c], flat, first, inner) if suspects[c] else [] for c in range(channels)]
    out.at_low, out.at_high = (_runs_at(block, value, first, inner) for value in (low, high))
    return out


def join(parts: list[Findings]) -> Findings:
    """The findings of consecutive blocks as one; runs at a block's extreme that is not the joint one are dropped."""
    channels = len(parts[0].low)
    out = Findings(parts[0].first, parts[-1].last)
    with np.errstate(all="ignore"):
        low = _nan_extreme(np.fmin, [p.low for p in parts])
        high = _nan_extreme(np.fmax, [p.high for p in parts])
    out.low, out.high = low.tolist(), high.tolist()
    out.count = [sum(p.count[c] for p in parts) for c in range(channels)]
    out.total = [sum(p.total[c] for p in parts) for c in range(channels)]
    out.squares = [sum(p.squares[c] for p in parts) for c in range(channels)]
    out.beyond = [sum(p.beyond[c] for p in parts if p.beyond) for c in range(channels)]
    out.levels = [piece for p in parts for piece in p.levels]
    out.missing = [_united([s for p in parts for s in p.missing[c]]) for c in range(channels)]
    out.flat = [_united([s for p in parts for s in p.flat[c]]) for c in range(channels)]
    out.at_low = [_united([s for p in parts if p.low[c] == low[c] for s in p.at_low[c]]) for c in range(channels)]
    out.at_high = [_united([s for p in parts if p.high[c] == high[c] for s in p.at_high[c]]) for c in range(channels)]
    return out


def limits_only(found: Findings, rails: tuple[float, float] | None = None) -> Findings:
    """Findings of a whole signal, with only those runs at an extreme that are saturation.

    They are where the extreme is one of the `rails` of the integer type, or is held at least :data:`REPEATS` times: a slow wave may rest
    on its highest step once, an amplifier returns to its limit. A channel of one value is dead, not saturated.
    """
    varied = [a < b for a, b in zip(found.low, found.high)]

    def kept(spans: list[Spans], extreme: list[float], rail: float | None) -> list[Spans]:
        return [s if v and (len(s) >= REPEATS or e == rail) else [] for s, e, v in zip(spans, extreme, varied)]

    low_rail, high_rail = rails or (None, None)
    return replace(found, at_low=kept(found.at_low, found.low, low_rail), at_high=kept(found.at_high, found.high, high_rail))


def _moments(x: NDArray[Any], present: NDArray[np.bool_] | None) -> tuple[list[float], list[float]]:
    """Sums and sums of squares (channel,), in pieces that stay in the cache."""
    total, squares = np.zeros(x.shape[1]), np.zeros(x.shape[1])
    rows = max(1, (1 << 17) // x.shape[1])
    for k in range(0, len(x), rows):
        piece = x[k : k + rows].astype(np.float64)
        if present is not None:
            piece[~present[k : k + rows]] = 0.0
        total += column_sums(piece)
        with np.errstate(over="ignore"):
            piece *= piece
            squares += column_sums(piece)
    return total.tolist(), squares.tolist()


def _absent(block: NDArray[Any], absent: Any) -> NDArray[np.bool_] | None:
    if block.dtype.kind == "f":
        low, high = column_extremes(block)
        return None if (np.isfinite(low) & np.isfinite(high)).all() else ~np.isfinite(block)
    if absent is None:
        return None
    bad = block == absent
    return bad if bad.any() else None


def _maybe_flat(block: NDArray[Any], least: int) -> NDArray[np.bool_]:
    """Channels (channel,) that may hold `least` equal samples in a row: a sparse look is enough to rule most out."""
    sparse = block[:: max(1, least // 8)]
    need = max(1, min(least // max(1, least // 8) - 1, 6))
    if len(sparse) <= need:
        return np.ones(block.shape[1], dtype=bool)
    same = sparse[1:] == sparse[:-1]
    for _ in range(need - 1):
        same = same[1:] & same[: len(same) - 1]
    return same.any(axis=0)


def _flat_runs(x: NDArray[Any], bad: NDArray[np.bool_] | None, least: int, first: int, inner: tuple[int, int]) -> Spans:
    same = x[1:] == x[:-1]
    if bad is not None:
        same &= ~(bad[1:] | bad[:-1])
    edges = np.flatnonzero(np.diff(np.r_[False, same, False].astype(np.int8))).reshape(-1, 2)
    runs = [(int(i) + first, int(j) + 1 + first) for i, j in edges[edges[:, 1] - edges[:, 0] >= least - 1]]
    return _clipped(runs, inner)


def _runs_at(block: NDArray[Any], value: NDArray[np.float64], first: int, inner: tuple[int, int]) -> list[Spans]:
    """Runs of at least three samples at `value` (channel,)."""
    spans: list[Spans] = [[] for _ in value]
    known = ~np.isnan(value)
    wanted = np.where(known, value, 0).astype(block.dtype)
    hits = columns_equal(block, wanted)
    three = hits[2:] & hits[1:-1] & hits[:-2]
    for c in np.flatnonzero(np.bincount(np.flatnonzero(three) % len(value), minlength=len(value))):
        spans[c] = _clipped(_runs(hits[:, c], 3, first), inner) if known[c] else []
    return spans


def _runs(mask: NDArray[np.bool_], least: int, first: int) -> Spans:
    if not mask.any():
        return []
    edges = np.flatnonzero(np.diff(np.r_[False, mask, False].astype(np.int8))).reshape(-1, 2)
    return [(int(i) + first, int(j) + first) for i, j in edges if j - i >= least]


def _clipped(runs: Spans, inner: tuple[int, int]) -> Spans:
    clipped = [(max(i, inner[0]), min(j, inner[1])) for i, j in runs]
    return [(i, j) for i, j in clipped if i < j]


def _top(x: NDArray[Any]) -> Any:
    return np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).max


def _bottom(x: NDArray[Any]) -> Any:
    return -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min


def _united(spans: Spans) -> Spans:
    out: Spans = []
    for i, j in sorted(spans):
        if out and i <= out[-1][1]:
            out[-1] = (out[-1][0], max(j, out[-1][1]))
        else:
            out.append((i, j))
    return out


def _nan_extreme(f: np.ufunc, rows: list[list[float]]) -> NDArray[np.float64]:
    return f.reduce(np.asarray(rows, dtype=np.float64), axis=0)
