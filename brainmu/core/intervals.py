"""Half-open spans of time: sorted, disjoint, float64 seconds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainmu.errors import InputError

__all__ = ["Intervals"]


class Intervals:
    """A set of half-open intervals ``[start, stop)``, sorted and disjoint.

    Parameters
    ----------
    bounds : float64, (n, 2), s
        Start and stop of each interval. Must be finite, sorted, disjoint and of positive length;
        use :meth:`merge` for anything else, so that no repair happens unseen. Touching intervals
        (stop of one equals start of the next) are allowed and kept apart.

    Raises
    ------
    InputError
        If the bounds are not (n, 2), not finite, empty or reversed, unsorted or overlapping.

    Examples
    --------
    >>> rest = Intervals([[0, 10], [20, 30]])
    >>> rest.intersect(Intervals([[5, 25]])).bounds.tolist()
    [[5.0, 10.0], [20.0, 25.0]]
    """

    __slots__ = ("bounds",)

    bounds: NDArray[np.float64]

    def __init__(self, bounds: ArrayLike = ()) -> None:
        b = np.asarray(bounds, dtype=np.float64)
        if b.size == 0:
            b = np.empty((0, 2))
        if b.ndim != 2 or b.shape[1] != 2:
            raise InputError(f"Intervals: got an array of shape {b.shape}, expected (n, 2): one start and one stop a row")
        if not np.isfinite(b).all():
            bad = int(np.flatnonzero(~np.isfinite(b).all(1))[0])
            raise InputError(f"Intervals: row {bad} is {b[bad].tolist()}, expected finite seconds: drop it first")
        length = b[:, 1] - b[:, 0]
        if (length <= 0).any():
            bad = int(np.flatnonzero(length <= 0)[0])
            raise InputError(f"Intervals: row {bad} is [{b[bad, 0]}, {b[bad, 1]}), expected stop > start")
        if (b[1:, 0] < b[:-1, 1]).any():
            bad = int(np.flatnonzero(b[1:, 0] < b[:-1, 1])[0])
            raise InputError(
                f"Intervals: row {bad + 1} starts at {b[bad + 1, 0]} s before row {bad} stops at {b[bad, 1]} s: "
                "use Intervals.merge(bounds) to sort and unite them"
            )
        b.setflags(write=False)
        self.bounds = b

    @classmethod
    def merge(cls, bounds: ArrayLike, gap: float = 0.0) -> Intervals:
        """Sort intervals and unite those that overlap, touch or lie within `gap` seconds of each other.

        Empty and reversed rows raise, as in the constructor.
        """
        b = np.asarray(bounds, dtype=np.float64).reshape(-1, 2)
        if len(b) == 0:
            return cls()
        for row in b:
            cls(row[None])
        b = b[np.argsort(b[:, 0], kind="stable")]
        reach = np.maximum.accumulate(b[:, 1])
        new = np.r_[True, b[1:, 0] > reach[:-1] + gap]
        first = np.flatnonzero(new)
        return cls(np.c_[b[first, 0], np.maximum.reduceat(b[:, 1], first)])

    @classmethod
    def from_mask(cls, mask: ArrayLike, rate: float, start: float = 0.0) -> Intervals:
        """Spans where a regularly sampled boolean `mask` (n,) is true; sample i covers [i, i+1) / rate."""
        m = np.asarray(mask, dtype=bool)
        edge = np.flatnonzero(np.diff(np.r_[False, m, False].astype(np.int8)))
        return cls(start + edge.reshape(-1, 2) / rate)

    @property
    def start(self) -> NDArray[np.float64]:
        """Starts (n,), s."""
        return self.bounds[:, 0]

    @property
    def stop(self) -> NDArray[np.float64]:
        """Stops (n,), s."""
        return self.bounds[:, 1]

    @property
    def duration(self) -> float:
        """Total length, s."""
        return float((self.stop - self.start).sum())

    def __len__(self) -> int:
        return len(self.bounds)

    def __iter__(self) -> Iterator[tuple[float, float]]:
        return ((float(a), float(b)) for a, b in self.bounds)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Intervals) and np.array_equal(self.bounds, other.bounds)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if len(self) == 0:
            return "Intervals(empty)"
        return f"Intervals({len(self)} in [{self.start[0]:.3f}, {self.stop[-1]:.3f}) s, {self.duration:.3f} s in all)"

    def contains(self, times: ArrayLike) -> NDArray[np.bool_]:
        """Which `times` (n,), s, lie inside (start included, stop not). NaN lies nowhere."""
        t = np.asarray(times, dtype=np.float64)
        if len(self) == 0:
            return np.zeros(t.shape, dtype=bool)
        i = np.searchsorted(self.start, t, side="right") - 1
        return (i >= 0) & (t < self.stop[np.maximum(i, 0)])

    def covers(self, start: ArrayLike, stop: ArrayLike) -> NDArray[np.bool_]:
        """Which spans [start, stop) (n,), s, lie wholly inside one interval (touching ones count as one)."""
        u = self.union(Intervals())
        a, b = np.atleast_1d(np.asarray(start, float)), np.atleast_1d(np.asarray(stop, float))
        if len(u) == 0:
            return np.zeros(len(a), dtype=bool)
        i = np.searchsorted(u.start, a, side="right") - 1
        return (i >= 0) & (b <= u.stop[np.maximum(i, 0)])

    def union(self, other: Intervals) -> Intervals:
        """Times in either; touching intervals become one."""
        return Intervals.merge(np.concatenate([self.bounds, other.bounds]))

    def intersect(self, other: Intervals) -> Intervals:
        """Times in both."""
        out: list[tuple[float, float]] = []
        i = j = 0
        a, b = self.bounds, other.bounds
        while i < len(a) and j < len(b):
            lo, hi = max(a[i, 0], b[j, 0]), min(a[i, 1], b[j, 1])
            if lo < hi:
                out.append((lo, hi))
            if a[i, 1] <= b[j, 1]:
                i += 1
            else:
                j += 1
        return Intervals(out)

    def subtract(self, other: Intervals) -> Intervals:
        """Times in self and not in other."""
        if len(self) == 0 or len(other) == 0:
            return Intervals(self.bounds)
        lo = min(self.start[0], other.start[0]) - 1.0
        hi = max(self.stop[-1], other.stop[-1]) + 1.0
        return self.intersect(other.complement(lo, hi))

    def complement(self, start: float, stop: float) -> Intervals:
        """Times in [start, stop) and not in self."""
        edges = np.r_[start, np.clip(self.bounds, start, stop).ravel(), stop].reshape(-1, 2)
        return Intervals(edges[edges[:, 1] > edges[:, 0]])

    def pad(self, before: float, after: float) -> Intervals:
        """Each interval widened by `before` and `after` seconds, then united."""
        b = np.c_[self.start - before, self.stop + after]
        return Intervals.merge(b[b[:, 1] > b[:, 0]])

    def longer_than(self, seconds: float) -> Intervals:
        """Only the intervals that last at least `seconds`."""
        return Intervals(self.bounds[self.stop - self.start >= seconds])

    def windows(self, length: float, step: float | None = None) -> NDArray[np.float64]:
        """Starts (n,), s, of windows of `length` that fit wholly inside, every `step` (default `length`)."""
        step = length if step is None else step
        # A window that misses the end by a rounding error still fits.
        n = [int(np.floor((b - a - length) / step + 1e-9)) + 1 for a, b in self]
        starts = [a + step * np.arange(max(k, 0), dtype=np.float64) for (a, _), k in zip(self, n)]
        return np.concatenate(starts) if starts else np.empty(0, dtype=np.float64)
