"""Notes by which brainmu's own writer of lab-like NWB marks what other programs would name differently."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np

from brainmu.core import Intervals, Recording

__all__ = ["ABOUT", "EVENTS", "GAPS", "SPANS", "add_about", "add_gaps", "is_gaps", "noted"]

EVENTS = "events, columns as brainmu names them"
"""Ends the description of a table whose peak, kind and content are those of an EventTable."""
SPANS = "spans, as brainmu names them"
"""Ends the description of a table that is nothing but Intervals."""
GAPS = "signal that has no samples here, as brainmu names it"
"""Description of the column of ``invalid_times`` that names the signal."""
ABOUT = "brainmu.synth "
"""Begins the notes of a session, before JSON with what NWB has no place for."""


def is_gaps(table: Any) -> bool:
    """Whether a table of invalid times says which signal each belongs to."""
    return "signal" in table.colnames and str(table["signal"].description) == GAPS


def add_gaps(table: Any, rec: Recording) -> None:
    """Put the gaps into the signals they name."""
    start, stop = (np.asarray(table[c].data[:], dtype=np.float64) for c in ("start_time", "stop_time"))
    of = np.array([v.decode() if isinstance(v, bytes) else str(v) for v in table["signal"].data[:]])
    for name in [n for n in np.unique(of).tolist() if n in rec.signals]:
        rec.signals[name] = dataclasses.replace(rec.signals[name], gaps=Intervals.merge(np.c_[start, stop][of == name]))


def noted(notes: str, rec: Recording) -> dict[str, Any]:
    """What brainmu noted beside NWB's own fields; nothing in a file of another program."""
    if not notes.startswith(ABOUT):
        return {}
    try:
        told = json.loads(notes.removeprefix(ABOUT))
    except ValueError:
        told = None
    if not isinstance(told, dict):
        rec.warn("the notes of the session were changed by another program: zeitgeber and group are not known")
        return {}
    return told


def add_about(told: dict[str, Any], rec: Recording) -> None:
    """Put what was noted into the recording: zeitgeber, all that is known of the subject, kinds, channel names and gaps of signals."""
    if not told:
        return
    rec.zeitgeber = told.get("zeitgeber")
    rec.subject_meta = dict(told.get("subject_meta") or {})
    rec.source["about"].pop("notes")
    for name, said in (told.get("signals") or {}).items():
        s = rec.signals.get(name)
        if s is not None and len(said["channels"]) == s.n_channels:
            gaps = Intervals(said["gaps"]) if said.get("gaps") else s.gaps
            rec.signals[name] = dataclasses.replace(s, kind=said["kind"], channels=s.channels.assign(name=said["channels"], kind=said["kind"]), gaps=gaps)
