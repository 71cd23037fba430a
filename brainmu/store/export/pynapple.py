"""A recording as pynapple objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable, Hypnogram, Intervals, Recording, Signal, Spikes
from brainmu.errors import InputError
from brainmu.store.export.choosing import choose, free_name, library, plain

__all__ = ["to_pynapple"]

_MICROSECOND = 1e-6


def to_pynapple(recording: Recording, *, signals: Iterable[str] | None = None, events: Literal["refuse", "skip"] = "refuse") -> dict[str, Any]:
    """Everything as pynapple objects, by name, on the session's clock in s.

    Signals become TsdFrames (float32, channel table as metadata; samples inside gaps are left out of data and time support), spikes a TsGroup
    under ``"spikes"`` (units table as metadata), hypnograms IntervalSets of bouts with a `state` column, intervals IntervalSets, events
    IntervalSets with their columns, and point events Ts. pynapple's intervals are closed: where one touches the next, it ends 1 µs earlier.

    Parameters
    ----------
    signals : names or None
        Which signals (all). They are read into memory.
    events : "refuse" or "skip"
        What happens to an event table that an IntervalSet cannot hold. pynapple unites overlapping intervals and drops their columns, and
        drops intervals without length; so they are refused, or left out with a note.

    Raises
    ------
    InputError
        If events overlap, or point events are mixed with longer ones, and `events` is "refuse"; or if a signal and a label share a name.
    MissingDataError
        If a named signal is not there, or pynapple is not installed.

    Examples
    --------
    >>> data = session.to_pynapple(signals=["lfp"])  # doctest: +SKIP
    >>> data["lfp"].restrict(data["scoring"][data["scoring"].state == "NREM"])  # doctest: +SKIP

    References
    ----------
    Viejo et al. (2023), Pynapple, a toolbox for data analysis in neuroscience. eLife 12:RP85786.
    """
    if events not in ("refuse", "skip"):
        raise InputError(f"events is {events!r}, expected 'refuse' or 'skip'")
    nap = library("pynapple", "pynapple")
    chosen = choose(recording, signals)
    labels = {k: v for k, v in recording.labels.items() if events == "refuse" or not _noted(recording, k, v)}
    _refuse_shared_names(recording, [*chosen, *(["spikes"] if recording.spikes is not None else []), *labels])
    out: dict[str, Any] = {name: _tsd_frame(nap, s) for name, s in chosen.items()}
    if recording.spikes is not None:
        out["spikes"] = _ts_group(nap, recording.spikes, recording)
    for name, label in labels.items():
        if isinstance(label, EventTable) and (reason := _not_an_interval_set(label)):
            raise InputError(f"{recording.id}: label {name!r} cannot become a pynapple IntervalSet: {reason}; or pass events='skip'")
        out[name] = _interval_set(nap, label)
    return out


def _noted(recording: Recording, name: str, label: Any) -> bool:
    reason = _not_an_interval_set(label) if isinstance(label, EventTable) else ""
    if reason:
        recording.warn(f"label {name!r} was left out of pynapple: {reason}")
    return bool(reason)


def _not_an_interval_set(events: EventTable) -> str:
    """Why pynapple cannot hold the events, and what to do; "" where it can."""
    points = int((events.duration == 0).sum())
    if points == len(events):
        return ""
    if points:
        return f"{points} of {len(events)} events have no duration, and pynapple drops those: take table[table.duration > 0]"
    e = events.sorted()
    reach = np.maximum.accumulate(e.stop)
    bad = np.flatnonzero(e.start[1:] < reach[:-1])
    if not len(bad):
        return ""
    return (
        f"{len(bad)} of {len(e)} events overlap an earlier one (the first at {e.start[bad[0] + 1]:.3f} s), and pynapple would silently unite them "
        "and drop their columns: unite them yourself with table.merge(), or take one kind at a time"
    )


def _tsd_frame(nap: Any, s: Signal) -> Any:
    times, values = s.read_times(), s.read()
    support = Intervals([[s.start, s.stop]] if s.n_samples else [])
    if len(s.gaps) and s.rate is not None:
        # Half a sample of slack: a gap that ends where a sample lies must not take that sample with it.
        keep = ~s.gaps.contains(times + 1e-6 / s.rate)
        times, values, support = times[keep], values[keep], support.subtract(s.gaps)
    table = s.channels.drop(columns="name")
    metadata = _metadata(table, nap.TsdFrame, s.names)
    return nap.TsdFrame(t=times, d=values, columns=s.names, time_support=_closed(nap, support.bounds), metadata=metadata)


def _ts_group(nap: Any, spikes: Spikes, recording: Recording) -> Any:
    ids = spikes.units["id"].to_numpy()
    # pynapple keeps groups in the order of their keys, so the metadata must follow it.
    order = np.argsort(ids, kind="stable")
    table = spikes.units.iloc[order].set_index("id")
    metadata = pd.DataFrame(_metadata(table, nap.TsGroup), index=table.index)
    support = _closed(nap, np.array([[recording.start, recording.stop]]))
    return nap.TsGroup({int(i): nap.Ts(spikes.of(int(i)), time_support=support) for i in ids[order]}, time_support=support, metadata=metadata)


def _interval_set(nap: Any, label: Hypnogram | EventTable | Intervals) -> Any:
    if isinstance(label, Intervals):
        return _closed(nap, label.bounds)
    if isinstance(label, Hypnogram):
        bouts = label.bouts()
        bounds = np.c_[bouts["start"].to_numpy(float), bouts["start"].to_numpy(float) + bouts["duration"].to_numpy(float)]
        return _closed(nap, bounds, {"state": np.asarray(bouts["stage"].tolist(), dtype=str)})
    e = label.sorted()
    if len(e) and not e.duration.any():
        return nap.Ts(e.start)
    return _closed(nap, np.c_[e.start, e.stop], _metadata(e.to_frame().drop(columns=["start", "stop"]), nap.IntervalSet))


def _metadata(table: pd.DataFrame, owner: Any, names: Sequence[str] = ()) -> dict[str, NDArray[Any]]:
    """Columns of numbers or text under names that pynapple leaves free: neither attributes of `owner` nor `names`."""
    taken = {*dir(owner), *names, "index", "values", "columns", "time_support", "rate", "start", "end", "nap_class", "metadata_index"}
    return {free_name(c, taken): np.asarray(table[c].tolist()) for c in table.columns if plain(table[c])}


def _closed(nap: Any, bounds: NDArray[np.float64], metadata: dict[str, Any] | None = None) -> Any:
    """An IntervalSet of half-open bounds (n, 2), s; an interval that touches the next ends 1 µs before it, as pynapple itself would do."""
    start, end = bounds[:, 0].copy(), bounds[:, 1].copy()
    if len(start) > 1:
        # pynapple rounds to 1 ns.
        touching = np.round(end[:-1], 9) >= np.round(start[1:], 9)
        end[:-1][touching] = start[1:][touching] - _MICROSECOND
    return nap.IntervalSet(start=start, end=end, metadata=metadata or None)


def _refuse_shared_names(recording: Recording, names: list[str]) -> None:
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise InputError(f"{recording.id}: {twice[0]!r} names two parts of the recording, and pynapple gets a dict by name: rename the label")
