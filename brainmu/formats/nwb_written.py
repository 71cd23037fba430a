"""NWB files that brainmu itself wrote: the recording exactly as it was, from the tables and the JSON beside them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainmu.core import EventTable, Hypnogram, Intervals, Recording, Signal, Spikes
from brainmu.core.recording import Label
from brainmu.errors import FormatError
from brainmu.formats.lazy import H5Rows

__all__ = ["is_written", "read_written"]

_SCRATCH = "brainmu"


def is_written(nwb: Any) -> bool:
    """Whether the open NWBFile was written by ``Session.to_nwb``."""
    return _SCRATCH in (nwb.scratch or {})


def read_written(path: Path, nwb: Any, series: Iterable[tuple[str, Any]]) -> Recording:
    """The recording. `series` are the (name, TimeSeries) of the file.

    Raises
    ------
    FormatError
        If a part that the JSON names is not in the file, or the JSON is of a newer brainmu.
    """
    meta = json.loads(str(nwb.scratch[_SCRATCH].data))
    if meta.get("version") != 1:
        raise FormatError(f"{path}: was written by a newer brainmu (layout {meta.get('version')!r}, this one reads 1): update brainmu")
    found = {s.name: s for _, s in series}
    tables = dict(nwb.intervals or {})
    try:
        return Recording(
            id=meta["id"], subject=meta["subject"], species=meta["species"],
            started_at=datetime.fromisoformat(meta["started_at"]) if meta["started_at"] else None,
            signals={m["name"]: _signal(path, found[m["series"]], m) for m in meta["signals"]},
            spikes=_spikes(nwb.units, meta["spikes"]) if "spikes" in meta else None,
            labels={m["name"]: _label(tables.get(m.get("table")), m) for m in meta["labels"]},
            source={"format": "nwb", "files": [str(path.resolve())], "warnings": [], "identifier": str(nwb.identifier)},
            subject_meta=meta["subject_meta"], clocks=meta["clocks"], zeitgeber=meta["zeitgeber"],
        )  # fmt: skip
    except (KeyError, TypeError) as error:
        raise FormatError(f"{path}: what brainmu noted in it does not fit its tables ({error!r}): it was changed by another program") from None


def _signal(path: Path, series: Any, m: dict[str, Any]) -> Signal:
    times = None if m["rate"] is not None else np.asarray(series.timestamps[:], dtype=np.float64)
    scale = np.asarray(m["scale"], dtype=np.float64)
    return Signal(
        H5Rows(path, series.data.name), m["rate"], m["start"], times, m["unit"], m["kind"], pd.DataFrame(m["channels"]), Intervals(m["gaps"]),
        float(scale) if scale.ndim == 0 else scale, None, m["clock"], {**m["attrs"]},
    )  # fmt: skip


def _spikes(units: Any, m: dict[str, Any]) -> Spikes:
    if units is None:
        return Spikes([], np.empty(0, dtype=np.int32))
    frame = pd.DataFrame({"id": m["ids"]} | {ours: _values(units[theirs]) for ours, theirs in m["columns"]})
    stop = np.asarray(units["spike_times"].data[:], dtype=np.int64)
    times = np.asarray(units["spike_times"].target.data[:], dtype=np.float64)
    return Spikes(times, np.repeat(np.asarray(m["ids"], dtype=np.int32), np.diff(np.r_[0, stop])), frame)


def _label(table: Any, m: dict[str, Any]) -> Label:
    columns = {ours: _values(table[theirs]) if table is not None else np.empty(0) for ours, theirs in m["columns"]}
    if m["type"] == "hypnogram":
        code = {s: i for i, s in enumerate(m["stages"])} | {"ART": -1, "UNS": -2}
        codes = np.array([code[s] for s in columns["state"]], dtype=np.int8)
        proba = np.stack([columns[f"p_{s}"] for s in m["stages"]], axis=1) if m["proba"] else None
        return Hypnogram(codes, tuple(m["stages"]), m["epoch"], m["start"], proba, m["scorer"], m["attrs"])
    start, stop = (np.asarray(table[c].data[:], dtype=np.float64) if table is not None else np.empty(0) for c in ("start_time", "stop_time"))
    if m["type"] == "intervals":
        return Intervals(np.c_[start, stop])
    events = EventTable(start, stop, attrs=m["attrs"], **columns)
    return events[np.asarray(m["order"])] if "order" in m else events


def _values(column: Any) -> Any:
    values = np.asarray(column.data[:])
    return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values], dtype=object) if values.dtype.kind in "OSU" else values
