"""Whether tables of events or trials fit the recordings they are held against, before any design reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from brainmu.causal.grid import EpochGrid, events_of
from brainmu.core.events import EventTable
from brainmu.errors import DesignError

__all__ = ["check_exposures"]

WORTH_A_WARNING = 0.01
"""Share of events that are unscored, or listed twice, from which it is said."""


def check_exposures(grids: Sequence[EpochGrid], exposure: str | Mapping[str, EventTable], *, trials: bool) -> list[str]:
    """Warnings on the tables of all recordings.

    Raises
    ------
    DesignError
        If events lie outside their recording, all of a recording's lie outside its scored time, trials are logged twice, or most events are.
    """
    tables = [events_of(g.recording, exposure) for g in grids]
    unscored = twice = 0
    for g, t in zip(grids, tables):
        unscored += _check_place(g, t, "trials" if trials else "events")
        twice += _check_once(g, t, trials)
    total = sum(len(t) for t in tables)
    said = []
    if unscored > WORTH_A_WARNING * total and not trials:
        said.append(f"{unscored} of {total} events begin where nothing is scored (before the hypnogram's first epoch or after its last) and do not count")
    if twice > WORTH_A_WARNING * total:
        said.append(f"{twice} of {total} events repeat another one in every column: drop them if they are the same event")
    return said


def _check_place(g: EpochGrid, t: EventTable, what: str) -> int:
    """How many events begin outside the scored time; DesignError where they cannot belong to this recording."""
    if not len(t):
        return 0
    where = g.recording.id
    first, last = min(g.recording.start, g.start), max(g.recording.stop, g.stop)
    # An event may be logged a little after the last sample.
    beyond = (t.start < first - g.epoch) | (t.start >= last + g.epoch)
    if beyond.any():
        raise DesignError(
            f"{where}: {int(beyond.sum())} of {len(t)} {what} lie outside the scored time and the recording ({first:g}-{last:g} s), the first at "
            f"{t.start[beyond][0]:g} s, so the exposure lies after the outcome, or before any: are they on another clock?"
        )
    outside = (t.start < g.start) | (t.start >= g.stop)
    if outside.all():
        raise DesignError(
            f"{where}: all {len(t)} {what} lie outside the scored time ({g.start:g}-{g.stop:g} s), so the exposure lies after the outcome, "
            "or before any: expected both on the session clock, check their offset"
        )
    return int(outside.sum())


def _check_once(g: EpochGrid, t: EventTable, trials: bool) -> int:
    """How many events are listed more than once; DesignError for trials, and where most events are."""
    f = t.to_frame()
    again = f.duplicated(subset=["start", "stop"] if trials else None).to_numpy()
    n = int(again.sum())
    if not n:
        return 0
    if trials or 2 * n >= len(t) - 1:
        what = "trials are logged" if trials else "events are listed"
        raise DesignError(
            f"{g.recording.id}: {n} of {len(t)} {what} more than once, the first at {t.start[again][0]:g} s, expected a row each: drop the repeats "
            "(table.to_frame().drop_duplicates())"
        )
    return n
