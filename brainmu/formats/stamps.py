"""Sample counters to stretches without a gap, and stretches to signals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Intervals
from brainmu.errors import FormatError
from brainmu.formats.lazy import Rows, Spread

__all__ = ["Joined", "place", "runs", "sample_times"]


def runs(stamp: Callable[[int], int], n: int, width: int, path: Path, wrap: int = 0) -> NDArray[np.int64]:
    """Stretches (k, 2) of even counters: the first counter and the number of samples of each.

    Found by bisection, so that a file of hours costs a few reads: a span whose ends fit has no gap inside, as counters only ever jump ahead.

    Parameters
    ----------
    stamp : function
        The counter at the first sample of a block.
    n, width : int
        Number of blocks, and samples of each.
    wrap : int
        Where the counter starts anew (2**32); 0 for never.

    Raises
    ------
    FormatError
        If a counter goes backwards.

    Examples
    --------
    >>> runs([0, 10, 50, 60].__getitem__, 4, 10, Path("x")).tolist()
    [[0, 20], [50, 20]]
    """
    first = stamp(0)

    def at(k: int) -> int:
        return first + (stamp(k) - first) % wrap if wrap else stamp(k)

    breaks: list[int] = []
    spans = [(0, first, n - 1, at(n - 1))]
    while spans:
        a, ta, b, tb = spans.pop()
        if tb - ta == (b - a) * width:
            continue
        if tb - ta < (b - a) * width or (wrap and b == a + 1 and tb - ta > wrap // 2):
            raise FormatError(f"{path}: time stamps go backwards after sample {a * width} ({stamp(a)}, later {stamp(b)}): files were joined, or are damaged")
        if b == a + 1:
            breaks.append(b)
            continue
        m = (a + b) // 2
        tm = at(m)
        spans += [(m, tm, b, tb), (a, ta, m, tm)]
    edges = np.array([0, *sorted(breaks), n], dtype=np.int64)
    return np.c_[[at(int(b)) for b in edges[:-1]], np.diff(edges) * width].astype(np.int64)


class Joined(Rows):
    """Pieces of equal channels one after the other."""

    def __init__(self, parts: list[Any]) -> None:
        self.parts, self.stops = parts, np.cumsum([p.shape[0] for p in parts])
        self.starts = self.stops - [p.shape[0] for p in parts]
        self.shape, self.dtype = (int(self.stops[-1]), int(parts[0].shape[1])), np.dtype(parts[0].dtype)

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        found = [p[max(i - int(a), 0) : min(j, int(b)) - int(a)] for p, a, b in zip(self.parts, self.starts, self.stops) if a < j and b > i]
        return np.concatenate(found) if found else np.empty((0, self.shape[1]), dtype=self.dtype)


def place(values: Any, first: NDArray[np.int64], length: NDArray[np.int64], rate: float, start: float) -> dict[str, Any]:
    """Arguments of a Signal for `values` whose stretches begin at the grid indices `first` (k,) and have `length` (k,) samples: gaps where they are apart."""
    new = np.flatnonzero(np.r_[True, first[1:] != (first + length)[:-1]]) if len(first) else np.empty(0, dtype=np.int64)
    if len(new) < 2:
        return {"values": values, "rate": rate, "start": start}
    at, n = first[new], np.add.reduceat(length, new)
    gaps = Intervals(start + np.c_[(at + n)[:-1], at[1:]] / rate)
    return {"values": Spread(values, at, n), "rate": rate, "start": start, "gaps": gaps}


def sample_times(samples: NDArray[np.int64], first: NDArray[np.int64], length: NDArray[np.int64], rate: float, start: float) -> NDArray[np.float64]:
    """Session times (n,), s, of samples counted in the file, across its gaps."""
    source = np.cumsum(length) - length
    piece = np.clip(np.searchsorted(source, samples, side="right") - 1, 0, len(first) - 1)
    return start + (first[piece] + samples - source[piece]) / rate
