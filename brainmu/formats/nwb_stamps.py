"""Time stamps of large series in an NWB file: the grid they lie on, found in pieces of a few megabytes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.formats.timing import Grid, _tidy, as_grid

__all__ = ["LARGE", "Scan", "scan", "stream_grid"]

LARGE = 2_000_000
"""Time stamps above which they are streamed."""
_CHUNK = 1 << 20
_TOLERANCE = 0.02


@dataclass(frozen=True)
class Scan:
    """What one pass over time stamps shows: how many are not finite, how many repeat or step back."""

    unfinished: int
    backward: int


def _pieces(stamps: Any, chunk: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    for i in range(0, int(stamps.shape[0]), chunk):
        yield i, np.asarray(stamps[i : i + chunk], dtype=np.float64)


def scan(stamps: Any, chunk: int = _CHUNK) -> Scan:
    """Count what is wrong with time stamps (n,), s."""
    unfinished = backward = 0
    top = -np.inf
    for _, t in _pieces(stamps, chunk):
        unfinished += int((~np.isfinite(t)).sum())
        reach = np.maximum.accumulate(np.r_[top, t])
        backward += int((~(t > reach[:-1])).sum())
        top = float(reach[-1])
    return Scan(unfinished, backward)


def stream_grid(stamps: Any, chunk: int = _CHUNK) -> Grid | None:
    """The uniform grid of time stamps (n,), s, as :func:`~brainmu.formats.timing.as_grid` finds it, or None; three passes, little memory."""
    n = int(stamps.shape[0])
    if n <= chunk:
        return as_grid(stamps[:])
    head = np.asarray(stamps[: min(n, chunk)], dtype=np.float64)
    t0, step = float(head[0]), float(np.median(np.diff(head)))
    if step <= 0:
        return None
    breaks, jumps = _breaks(stamps, step, chunk)
    if breaks is None or len(breaks) * 20 > n:
        return None
    # Least squares of what a grid of the median step leaves over: small numbers, so nothing is lost in a day of samples.
    count = s_x = s_y = s_xx = s_xy = 0.0
    for index, left in _residuals(stamps, t0, step, breaks, jumps, chunk):
        x = index / n
        count, s_x, s_y = count + len(x), s_x + float(x.sum()), s_y + float(left.sum())
        s_xx, s_xy = s_xx + float((x * x).sum()), s_xy + float((x * left).sum())
    slope = (count * s_xy - s_x * s_y) / (count * s_xx - s_x**2) / n
    fitted, shift = step + slope, (s_y - slope * n * s_x) / count
    worst = max(float(np.abs(left - shift - slope * index).max()) for index, left in _residuals(stamps, t0, step, breaks, jumps, chunk))
    total = n + int((jumps - 1).sum())
    if worst > _TOLERANCE * fitted or total > 2 * n:
        return None
    new = np.r_[0, breaks].astype(np.int64)
    first = new + np.r_[0, np.cumsum(jumps - 1)].astype(np.int64)
    return Grid(_tidy(1.0 / fitted), t0, first, np.diff(np.r_[new, n]).astype(np.int64))


def _breaks(stamps: Any, step: float, chunk: int) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
    """Samples before which steps are missing, and how many steps lie there (one more than are missing)."""
    at: list[NDArray[np.int64]] = []
    jump: list[NDArray[np.int64]] = []
    last: float | None = None
    found = 0
    for i, t in _pieces(stamps, chunk):
        d = np.diff(t) if last is None else np.diff(np.r_[last, t])
        if not np.isfinite(d).all() or not np.isfinite(t[0]):
            return None, np.empty(0, dtype=np.int64)
        whole = np.rint(d / step).astype(np.int64)
        if (whole < 1).any():
            return None, np.empty(0, dtype=np.int64)
        where = np.flatnonzero(whole != 1)
        found += len(where)
        if found * 20 > int(stamps.shape[0]):
            return None, np.empty(0, dtype=np.int64)
        at.append(where + i + (1 if last is None else 0))
        jump.append(whole[where])
        last = float(t[-1])
    return np.concatenate(at), np.concatenate(jump)


def _residuals(
    stamps: Any, t0: float, step: float, breaks: NDArray[np.int64], jumps: NDArray[np.int64], chunk: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:  # fmt: skip
    """Grid index of each sample, and its time less that of the grid of the median step, piece by piece."""
    extra = np.cumsum(jumps - 1)
    for i, t in _pieces(stamps, chunk):
        index = np.arange(i, i + len(t), dtype=np.float64)
        a, b = np.searchsorted(breaks, [i, i + len(t) - 1], side="right")
        index += extra[a - 1] if a else 0
        for k in range(int(a), int(b)):
            index[breaks[k] - i :] += jumps[k] - 1
        yield index, (t - t0) - index * step
