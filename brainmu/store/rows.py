"""Rows that are made on demand, each once while they are asked for in ascending order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RowCache"]


class RowCache:
    """The rows of `make`, of which there are `n`. One thread at a time.

    Parameters
    ----------
    make : callable
        ``make(i, j)`` gives rows [i, j); they do not depend on which others are made with them.
    n : int
    grid : int
        `make` is called for whole multiples of so many rows (and for the last, shorter one).
    """

    def __init__(self, make: Callable[[int, int], NDArray[Any]], n: int, grid: int = 1) -> None:
        self._make, self._n, self._grid = make, n, max(1, grid)
        self._first = 0
        self._rows: NDArray[Any] | None = None

    def get(self, i: int, j: int, keep: int | None = None) -> NDArray[Any]:
        """Rows [i, j). Rows from `keep` (or `i`) on stay for the next call. What is returned must not be changed."""
        if i >= j:
            return self._make(i, i)
        last = 0 if self._rows is None else self._first + len(self._rows)
        if self._rows is None or not self._first <= i <= last:
            self._rows, self._first = None, i // self._grid * self._grid
            last = self._first
        stop = min(self._n, -(-j // self._grid) * self._grid)
        low = i if keep is None else min(i, keep)
        drop = max(0, low - self._first) // self._grid * self._grid
        if self._rows is not None and (stop > last or drop > len(self._rows) // 2):
            self._rows, self._first = self._rows[drop:], self._first + drop
        if stop > last:
            new = self._make(last, stop)
            old = self._rows
            self._rows = new if old is None or not len(old) else np.concatenate([old, new])
        assert self._rows is not None
        return self._rows[i - self._first : j - self._first]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_rows": None}
