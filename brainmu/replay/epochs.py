"""Spikes and epochs that an analysis asks for, or the error that says what the recording has instead."""

from __future__ import annotations

from brainmu.core import Intervals, Recording, Spikes
from brainmu.errors import MissingDataError
from brainmu.replay.position import run_and_rest

__all__ = ["epochs_of", "spikes_of"]


def spikes_of(recording: Recording) -> Spikes:
    """The recording's spikes; a MissingDataError where there are none."""
    if recording.spikes is None or not len(recording.spikes):
        raise MissingDataError(f"{recording.id}: no spikes, sorted units are needed")
    return recording.spikes


def epochs_of(recording: Recording, spans: str | Intervals | None, what: str) -> Intervals:
    """Epochs given as such, by their label, or as "run" and "rest" derived from speed; None is the extent of the spikes."""
    if spans is None:
        t = spikes_of(recording).times
        out = Intervals([[float(t[0]), float(t[-1]) + 1e-6]])
    elif isinstance(spans, Intervals):
        out = spans
    else:
        label = recording.labels.get(spans)
        if label is None and spans in ("run", "rest"):
            run, rest, _ = run_and_rest(recording)
            label = run if spans == "run" else rest
        if label is None:
            raise MissingDataError(f"{recording.id}: no label {spans!r} for {what}, the recording has {', '.join(recording.labels) or 'none'}")
        if not isinstance(label, Intervals):
            raise MissingDataError(f"{recording.id}: label {spans!r} is a {type(label).__name__}, expected Intervals for {what}")
        out = label
    if not out.duration > 0:
        raise MissingDataError(f"{recording.id}: the epochs for {what} are empty, expected some seconds")
    return out
