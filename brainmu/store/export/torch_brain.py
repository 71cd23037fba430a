"""A recording as temporaldata.Data, torch_brain's container."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable, Hypnogram, Intervals, Recording, Signal
from brainmu.core.recording import Label
from brainmu.errors import InputError
from brainmu.store.export.choosing import choose, free_name, identifier, library, samples

__all__ = ["to_torch_brain"]


def to_torch_brain(recording: Recording, *, signals: Iterable[str] | None = None) -> Any:
    """A ``temporaldata.Data``, the container that torch_brain's datasets and samplers slice; ``data.save(path)`` writes it.

    It holds ``session.id`` and ``subject`` (id, species); each signal as a RegularTimeSeries or IrregularTimeSeries with `values`
    (time, channel) and its channel table as ``<name>_channels``; gaps as ``<name>_gaps``; ``spikes`` (timestamps, `unit_index` into ``units``);
    labels as Intervals (hypnograms an epoch a row with `state`). ``domain`` spans the recording. Names are made valid identifiers.

    Raises
    ------
    InputError
        If two parts come out under the same name.
    MissingDataError
        If a named signal is not there, or torch_brain is not installed.
    """
    td = library("temporaldata", "torch-brain")
    chosen = choose(recording, signals)
    domain = td.Interval(np.array([recording.start]), np.array([recording.stop]))
    parts: dict[str, Any] = {
        "session": td.Data(id=recording.id),
        "subject": td.Data(id=recording.subject, species=recording.species),
    }

    def add(name: str, value: Any) -> None:
        key = identifier(name)
        if key in parts or key == "domain":
            raise InputError(f"{recording.id}: two parts would be called {key!r} in torch_brain: rename the signal or label {name!r}")
        parts[key] = value

    for name, s in chosen.items():
        if s.rate is not None:
            add(name, td.RegularTimeSeries(sampling_rate=s.rate, domain_start=s.start, values=samples(s)))
        else:
            add(name, td.IrregularTimeSeries(s.read_times(), values=samples(s), domain="auto"))
        add(f"{name}_channels", td.ArrayDict(**_arrays(s.channels)))
        if len(s.gaps):
            add(f"{name}_gaps", td.Interval(s.gaps.start.copy(), s.gaps.stop.copy()))
    if recording.spikes is not None:
        spikes = recording.spikes
        row = pd.Series(np.arange(spikes.n_units), index=spikes.units["id"])
        add("spikes", td.IrregularTimeSeries(spikes.times, unit_index=row.loc[spikes.unit_id].to_numpy(np.int64), domain=domain))
        add("units", td.ArrayDict(**_arrays(spikes.units)))
    for name, label in recording.labels.items():
        add(name, _td_interval(td, label))
    if not all(text.isascii() for text in _texts(recording, chosen)):
        recording.warn("some names or columns hold letters beyond ASCII, which temporaldata cannot save: rename them before data.save(path)")
    return td.Data(**parts, domain=domain)


def _texts(recording: Recording, chosen: dict[str, Signal]) -> Iterator[str]:
    """Every text that ends up in an array of text."""
    tables = [s.channels for s in chosen.values()] + ([recording.spikes.units] if recording.spikes is not None else [])
    tables += [v.to_frame() for v in recording.labels.values() if isinstance(v, EventTable)]
    for table in tables:
        for name in table.columns:
            if table[name].dtype.kind not in "iufb":
                yield from map(str, table[name])


def _td_interval(td: Any, label: Label) -> Any:
    if isinstance(label, Intervals):
        return td.Interval(label.start.copy(), label.stop.copy())
    if isinstance(label, Hypnogram):
        frame = label.to_frame().rename(columns={"stage": "state"})
        return td.Interval(label.times, label.times + label.epoch, **_arrays(frame.drop(columns=["start", "duration"])))
    e = label.sorted()
    return td.Interval(e.start, e.stop, timekeys=["start", "end", "peak"], **_arrays(e.to_frame().drop(columns=["start", "stop"])))


def _arrays(table: pd.DataFrame) -> dict[str, NDArray[Any]]:
    """Columns as plain arrays: numbers as they are, everything else as text."""
    out: dict[str, NDArray[Any]] = {}
    taken = {"start", "end", "timekeys", "keys"}
    for name in table.columns:
        values = np.asarray(table[name].tolist() if table[name].dtype.kind not in "iufb" else table[name])
        out[free_name(name, taken)] = values if values.dtype.kind in "iufb" else np.array([str(v) for v in table[name]], dtype=str)
    return out
