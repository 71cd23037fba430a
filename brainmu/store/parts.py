"""The parts of a recording other than samples (labels, spikes, channel tables, findings about quality) as groups of a store, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from brainmu.core import EventTable, Hypnogram, Intervals, Spikes
from brainmu.core.recording import Label
from brainmu.errors import StoreError
from brainmu.store.folder import Folder
from brainmu.store.tables import Reader, plain_layout, read_table, write_table
from brainmu.store.values import decode, encode, safe_names

__all__ = ["POINTER_STEP", "read_label", "read_spikes", "stored_gaps", "write_labels", "write_spikes"]

POINTER_STEP = 10.0
"""Seconds between entries of the spikes' pointer array."""


def write_labels(folder: Folder, labels: dict[str, Label]) -> None:
    """``/labels/<name>`` for each label."""
    paths = safe_names(list(labels))
    folder.group("labels", {"order": paths})
    for name, path in zip(labels, paths):
        label, group = labels[name], f"labels/{path}"
        attrs: dict[str, Any] = {"name": name, "n": len(label)}
        if isinstance(label, Hypnogram):
            attrs |= _write_hypnogram(folder, group, label)
        elif isinstance(label, EventTable):
            columns = write_table(folder, group, label.to_frame(), "event", what=f"label {name!r}")
            attrs |= {"type": "events", "columns": columns, "attrs": encode(label.attrs, f"label {name!r} attrs")}
        else:
            folder.array(f"{group}/bounds", plain_layout((len(label), 2), "float64", ("interval", "bound"), {"units": "s"}), label.bounds)
            attrs |= {"type": "intervals"}
        folder.group(group, attrs)


def _write_hypnogram(folder: Folder, group: str, label: Hypnogram) -> dict[str, Any]:
    meaning = {str(i): s for i, s in enumerate(label.stages)} | {"-1": "ART", "-2": "UNS"}
    folder.array(f"{group}/codes", plain_layout((len(label),), "int8", ("epoch",), {"meaning": meaning}), label.codes)
    if label.proba is not None:
        folder.array(f"{group}/proba", plain_layout(label.proba.shape, "float32", ("epoch", "stage")), label.proba)
    return {
        "type": "hypnogram", "stages": list(label.stages), "epoch": label.epoch, "start": label.start, "scorer": label.scorer,
        "proba": label.proba is not None, "attrs": encode(label.attrs, "hypnogram attrs"),
    }  # fmt: skip


def read_label(read: Reader, group: str, attrs: dict[str, Any]) -> Label:
    """The label in a group."""
    kind = attrs.get("type")
    if kind == "hypnogram":
        proba = read(f"{group}/proba") if attrs["proba"] else None
        return Hypnogram(read(f"{group}/codes"), tuple(attrs["stages"]), attrs["epoch"], attrs["start"], proba, attrs["scorer"], decode(attrs["attrs"]))
    if kind == "events":
        frame = read_table(read, group, attrs["columns"], attrs["n"])
        out = EventTable.__new__(EventTable)  # the constructor would go through the columns one by one and may change their types
        out._frame, out.attrs = frame, decode(attrs["attrs"])
        return out
    if kind == "intervals":
        return Intervals(np.array(read(f"{group}/bounds")).reshape(-1, 2))
    raise StoreError(f"{group}: is a label of type {kind!r}, which this version of brainmu does not know: update brainmu")


def write_spikes(folder: Folder, spikes: Spikes) -> None:
    """``/spikes``: time, unit_id, a pointer to the first spike of every ten seconds, and the units table."""
    n = len(spikes)
    start = float(np.floor(spikes.times[0] / POINTER_STEP) * POINTER_STEP) if n else 0.0
    edges = start + POINTER_STEP * np.arange(int((spikes.times[-1] - start) // POINTER_STEP) + 2 if n else 0)
    pointer = np.searchsorted(spikes.times, edges, side="left").astype(np.int64)
    folder.array("spikes/time", plain_layout((n,), "float64", ("spike",), {"units": "s"}), spikes.times)
    folder.array("spikes/unit_id", plain_layout((n,), "int32", ("spike",)), spikes.unit_id)
    folder.array("spikes/pointer", plain_layout(pointer.shape, "int64", ("step",), {"start": start, "step": POINTER_STEP}), pointer)
    columns = write_table(folder, "spikes/units", spikes.units, "unit", prefix="unit_", index="id", what="units table")
    folder.group("spikes/units", {"columns": columns, "n": len(spikes.units)})
    folder.group("spikes", {"n": n})


def read_spikes(read: Reader, attrs: dict[str, Any]) -> Spikes:
    """The spikes of a store; they were checked when they were written, so the constructor's checks are not repeated."""
    out = Spikes.__new__(Spikes)
    out.times, out.unit_id = read("spikes/time"), read("spikes/unit_id")
    out.units = read_table(read, "spikes/units", attrs["columns"], attrs["n"])
    return out


def stored_gaps(spans: pd.DataFrame) -> Intervals:
    """The gaps of a stored signal: those the source stated, and spans in which every channel is missing."""
    stated = Intervals(spans.loc[spans["kind"] == "gap", ["start", "stop"]].to_numpy(dtype=np.float64))
    silent = spans[(spans["kind"] == "missing") & (spans["channel"] == "")]
    extra = [(a, b) for a, b in zip(silent["start"], silent["stop"]) if not len(stated.intersect(Intervals([[a, b]])))]
    return Intervals(sorted([*map(tuple, stated.bounds.tolist()), *extra]))
