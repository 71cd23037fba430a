"""The environments an animal ran in: each with its epochs, its track, and the place fields along it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from brainmu.core import EventTable, Intervals, Recording, Spikes
from brainmu.errors import InputError, MissingDataError
from brainmu.replay.fields import PlaceFields, place_fields
from brainmu.replay.position import Position, moving, run_and_rest, speed_threshold
from brainmu.replay.track import Track, fit_track

__all__ = ["Context", "Way", "fit_contexts", "run_epochs_by_context"]


@dataclass(frozen=True)
class Way:
    """From one end of a track to another; a track without arms has one.

    Attributes
    ----------
    start, stop : int
        The ends, as numbered in ``track.ends``.
    x : float64 (place,)
        Coordinate on this way of the fields' places; those on other arms lie where the arm leaves.
    outbound, inbound : PlaceFields or None
        From runs towards `stop` and towards `start`; None where there are less than 10 s of either.
    """

    start: int
    stop: int
    x: NDArray[np.float64]
    outbound: PlaceFields | None = field(default=None, repr=False)
    inbound: PlaceFields | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Context:
    """One environment.

    Attributes
    ----------
    name : str
        What the events' `content` says.
    epochs : Intervals
        When the animal was in it.
    ran : Intervals
        When it ran there.
    track : Track
    position : Position
        Along the track.
    fields : PlaceFields
        Along the track; units as in `fields.units`.
    outbound, inbound : PlaceFields or None
        From runs towards higher and lower coordinates; None where there are less than 10 s of either.
    ways : tuple of Way
        Between any two ends of the track: one, or three of a W or T. Sequences are scored along each.
    """

    name: str
    epochs: Intervals
    ran: Intervals
    track: Track
    position: Position
    fields: PlaceFields
    outbound: PlaceFields | None = field(default=None, repr=False)
    inbound: PlaceFields | None = field(default=None, repr=False)
    ways: tuple[Way, ...] = field(default=(), repr=False)

    def __repr__(self) -> str:
        return f"Context({self.name!r}, {self.ran.duration:.0f} s of running, {len(self.fields.units)} units, {self.track!r})"

    @property
    def x(self) -> NDArray[np.float64]:
        """Coordinates (place,) of the fields' visited bins."""
        return self.fields.points[:, 0]


def fit_contexts(
    recording: Recording, spikes: Spikes, position: Position, run: str | Intervals | Mapping[str, Intervals] | None = "run", *,
    smoothing: float | None = None, bin: float | None = None, speed: float | None = None,
) -> tuple[dict[str, Context], str]:  # fmt: skip
    """Every context of `run` with its track and fields, and how the epochs were told.

    Raises
    ------
    MissingDataError
        If a context holds less than 10 s of running, or its places form no track.
    InputError
        If epochs of two contexts overlap.
    """
    epochs, how = run_epochs_by_context(recording, run, position)
    threshold = speed_threshold(position) if speed is None else speed
    ran_all = moving(position, threshold)
    out = {}
    for name, spans in epochs.items():
        ran = ran_all.intersect(spans)
        if ran.duration < 10:
            raise MissingDataError(
                f"{recording.id}: {ran.duration:.1f} s faster than {threshold:g} {position.unit}/s in context {name!r}, expected at least 10 s: too few laps"
            )
        track = fit_track(position, ran)
        along = track.along(position)
        fields = place_fields(spikes, along, ran, smoothing=smoothing, bin=bin, context=name)
        both = _directional(spikes, along, along.values[:, 0], ran, fields)
        out[name] = Context(name, spans, ran, track, along, fields, *both, _ways(spikes, track, along, ran, fields, both))
    return out, how


def run_epochs_by_context(
    recording: Recording, run: str | Intervals | Mapping[str, Intervals] | None, position: Position | None = None
) -> tuple[dict[str, Intervals], str]:
    """Running epochs by context name.

    `run` is a mapping of names to Intervals; Intervals; or a label's name: then every label ``<name>_<context>`` is a context,
    or every content of an EventTable of that name, or the label itself, divided by the contents of an EventTable "context" if there
    is one. Without any, epochs are derived from speed.
    """
    if isinstance(run, Mapping):
        out, how = dict(run), "given"
    elif isinstance(run, Intervals):
        out, how = {"run": run}, "given"
    else:
        out, how = _from_labels(recording, run or "run", position)
    for name, spans in out.items():
        if not isinstance(spans, Intervals):
            raise InputError(f"context {name!r} is a {type(spans).__name__}, expected Intervals")
        if not len(spans):
            raise MissingDataError(f"context {name!r} has no epochs")
    names = list(out)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            both = out[a].intersect(out[b]).duration
            if both > 0:
                raise InputError(f"run epochs of contexts {a!r} and {b!r} overlap by {both:.1f} s, expected disjoint epochs")
    return out, how


def _from_labels(recording: Recording, name: str, position: Position | None) -> tuple[dict[str, Intervals], str]:
    labels = recording.labels
    parts = {k[len(name) + 1 :]: v for k, v in labels.items() if k.startswith(f"{name}_") and isinstance(v, Intervals) and len(v)}
    if parts:
        return parts, "labels"
    label = labels.get(name)
    if isinstance(label, EventTable):
        return _by_content(label, name), "labels"
    tracks = labels.get("context")
    if isinstance(label, Intervals) and isinstance(tracks, EventTable) and len(tracks):
        return {k: both for k, v in _by_content(tracks, name).items() if len(both := v.intersect(label))}, "labels"
    if isinstance(label, Intervals) and len(label):
        return {name: label}, "labels"
    if name != "run":
        raise MissingDataError(f"{recording.id}: no label {name!r} or {name}_…, the recording has {', '.join(labels) or 'none'}")
    run, _, how = run_and_rest(recording, position)
    if not len(run):
        raise MissingDataError(f"{recording.id}: no running found in the position, expected some: give run epochs")
    return {"run": run}, how


def _by_content(table: EventTable, otherwise: str) -> dict[str, Intervals]:
    content = table.content.astype(str)
    return {c or otherwise: table[content == c].intervals() for c in dict.fromkeys(content.tolist())}


def _ways(
    spikes: Spikes, track: Track, along: Position, ran: Intervals, fields: PlaceFields, both: tuple[PlaceFields | None, PlaceFields | None]
) -> tuple[Way, ...]:
    """Every way between two ends; the coordinate of an arm is no continuation of the track's, so direction too is a matter of the way."""
    x = fields.points[:, 0]
    if not track.arms:
        return (Way(0, 1, x, *both),)
    s, out = along.values[:, 0], []
    known = np.isfinite(s)
    for i, j in combinations(range(len(track.ends)), 2):
        on = np.full(len(s), np.nan)
        on[known] = track.on_way(s[known], i, j)
        out.append(Way(i, j, track.on_way(x, i, j), *_directional(spikes, along, on, ran, fields)))
    return tuple(out)


def _directional(spikes: Spikes, along: Position, s: NDArray[np.float64], ran: Intervals, fields: PlaceFields) -> tuple[PlaceFields | None, PlaceFields | None]:
    """Fields of running towards higher and towards lower `s` (time,), on the grid of `fields`."""
    velocity = np.gradient(np.nan_to_num(s, nan=float(np.nanmean(s))), along.times)
    out: list[PlaceFields | None] = []
    for sign in (1, -1):
        fast = Position(along.times, along.values, np.maximum(sign * velocity, 0), along.unit, along.names)
        spans = moving(fast, 0.5 * float(np.median(along.speed[ran.contains(along.times)]))).intersect(ran)
        enough = spans.duration >= 10
        one = place_fields(spikes, along, spans, smoothing=fields.smoothing, edges=fields.edges) if enough else None
        out.append(one)
    return out[0], out[1]
