"""Where edits go: events far enough apart to be read one by one, and other times of the same stage for their placebos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainmu.core import EventTable, Intervals
from brainmu.explain.edits import TAPER

__all__ = ["GUARD", "Places", "choose"]

GUARD = 0.5
"""Placebo edits stay this far from any event, s."""


@dataclass(frozen=True)
class Places:
    """Time of one stage in which edits may be placed.

    Attributes
    ----------
    start, epoch : float, s
        Start of the first epoch, and their length.
    ahead : int
        Epochs after an edit's own in which it is read.
    bouts : Intervals
        The stage, as the model takes it.
    room : Intervals
        The same, away from every event.
    """

    start: float
    epoch: float
    ahead: int
    bouts: Intervals
    room: Intervals

    @classmethod
    def of(cls, at_risk: NDArray[np.bool_], start: float, epoch: float, ahead: int, events: EventTable) -> Places:
        """From epochs (n,) that are in the stage, and events to stay away from."""
        bouts = Intervals.from_mask(at_risk, 1.0 / epoch, start)
        near = Intervals.merge(np.c_[events.start - GUARD, events.stop + GUARD]) if len(events) else Intervals()
        return cls(start, epoch, ahead, bouts, bouts.subtract(near))

    def draw(self, lengths: Sequence[float], rng: np.random.Generator) -> tuple[list[float | None], int]:
        """Starts for edits of these lengths, s, none in the read-out of another where that is possible.

        Returns
        -------
        list of float or None
            None where no time is long enough.
        int
            How many had to go near another, there being no room left.
        """
        out: list[float | None] = []
        free, crowded, reach = self.room.bounds, 0, (self.ahead + 1) * self.epoch
        for length in lengths:
            start = _draw(free, length, rng)
            if start is None:
                start = _draw(self.room.bounds, length, rng)
                crowded += start is not None
            out.append(start)
            if start is not None:
                free = _without(free, start - reach, start + length + reach)
        return out, crowded

    def destinations(self, starts: Sequence[float | None], lengths: Sequence[float], rng: np.random.Generator) -> list[float | None]:
        """For each edit another time of the same bout, away from events and from every read-out; None where there is none."""
        read = [self._read_out(s + x) for s, x in zip(starts, lengths) if s is not None]
        own = [(s - TAPER, s + x + TAPER) for s, x in zip(starts, lengths) if s is not None]
        free = (self.room.subtract(Intervals.merge(np.array([*read, *own]))) if read else self.room).bounds
        out: list[float | None] = []
        for start, length in zip(starts, lengths):
            place = None if start is None else self._same_bout(free, start, length, rng)
            out.append(place)
            if place is not None:
                free = _without(free, place - TAPER, place + length + TAPER)
        return out

    def _same_bout(self, free: NDArray[np.float64], start: float, length: float, rng: np.random.Generator) -> float | None:
        k = int(np.searchsorted(self.bouts.start, start, side="right")) - 1
        if k < 0 or start >= self.bouts.stop[k]:
            return None
        inside = np.clip(free, self.bouts.start[k], self.bouts.stop[k])
        return _draw(inside[inside[:, 1] > inside[:, 0]], length, rng)

    def _read_out(self, stop: float) -> tuple[float, float]:
        k = np.floor((stop - self.start) / self.epoch)
        return self.start + (k + 1) * self.epoch, self.start + (k + 1 + self.ahead) * self.epoch


def _draw(where: NDArray[np.float64], length: float, rng: np.random.Generator) -> float | None:
    """A start such that `length` s fit into one of the spans (n, 2), all equally likely; None where nothing is long enough."""
    slack = np.maximum(where[:, 1] - where[:, 0] - length - 2 * TAPER, 0.0)
    if not slack.sum() > 0:
        return None
    k = rng.choice(len(where), p=slack / slack.sum())
    return float(where[k, 0] + TAPER + rng.random() * slack[k])


def _without(where: NDArray[np.float64], start: float, stop: float) -> NDArray[np.float64]:
    """Sorted disjoint spans (n, 2) without what lies in [start, stop)."""
    i, j = np.searchsorted(where[:, 1], start, side="right"), np.searchsorted(where[:, 0], stop, side="left")
    if i >= j:
        return where
    ends = np.array([[where[i, 0], start], [stop, where[j - 1, 1]]])
    return np.concatenate([where[:i], ends[ends[:, 1] > ends[:, 0]], where[j:]])


def choose(
    events: EventTable, start: float, epoch: float, at_risk: NDArray[np.bool_], ahead: int, most: int, rng: np.random.Generator
) -> EventTable:  # fmt: skip
    """Events in epochs at risk, drawn at random so that no edit lies in the read-out of another."""
    first = np.floor((events.start - start) / epoch).astype(np.int64)
    last = np.floor((events.stop - start) / epoch).astype(np.int64)
    n = len(at_risk)
    ok = (first >= 0) & (last + ahead < n)
    ok[ok] = at_risk[first[ok]]
    taken = np.zeros(n + ahead + 1, dtype=bool)
    keep = []
    for i in rng.permutation(np.flatnonzero(ok)):
        # An edit in epochs first..last is read in last+1..last+ahead; another may lie in neither, nor read these.
        lo, hi = max(0, first[i] - ahead), last[i] + ahead + 1
        if not taken[lo:hi].any():
            taken[first[i] : last[i] + 1] = True
            keep.append(i)
            if len(keep) == most:
                break
    return events[np.sort(np.array(keep, dtype=np.int64))]
