"""Splits that do not leak: by subject, or on request by time with a guard band."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from brainmu.core.events import EventTable
from brainmu.core.hypnogram import Hypnogram
from brainmu.core.intervals import Intervals
from brainmu.core.recording import Label, Recording, as_list
from brainmu.core.signal import Signal
from brainmu.core.spikes import Spikes
from brainmu.errors import InputError

__all__ = ["cut", "split"]


def split(
    sessions: Recording | Sequence[Recording], by: str = "subject", test: float = 0.3, seed: int = 0, *, guard: float = 600.0
) -> tuple[list[Recording], list[Recording]]:
    """Split recordings into training and test sets that share no subject (or, on request, no time).

    Parameters
    ----------
    sessions : Recording or sequence of Recording
    by : {"subject", "time"}
        "subject" puts all recordings of a subject on one side. "time" cuts every recording in two: the first part trains,
        the last `test` of it tests, and `guard` seconds between them belong to neither. A test within animals says nothing
        about new animals.
    test : float
        Share of subjects (or of time) in the test set, in (0, 1). At least one subject lies on either side.
    seed : int
        Draws the subjects.
    guard : float, s
        Width of the band that ``by="time"`` leaves out.

    Raises
    ------
    InputError
        If there is one subject only, a recording names no subject, or nothing is left beside the guard band.

    Examples
    --------
    >>> recs = [Recording.from_arrays(f"s{i}", subject=f"m{i % 3}") for i in range(6)]
    >>> train, held_out = split(recs, test=0.3, seed=0)
    >>> {r.subject for r in train} & {r.subject for r in held_out}, len(train), len(held_out)
    (set(), 4, 2)
    """
    recordings = as_list(sessions)
    if not recordings:
        raise InputError("split: no recordings came, expected at least two subjects")
    if not 0 < test < 1:
        raise InputError(f"split: test is {test}, expected a share in (0, 1)")
    if by == "subject":
        return _by_subject(recordings, test, seed)
    if by == "time":
        return _by_time(recordings, test, guard)
    raise InputError(f"split: by is {by!r}, expected 'subject' or 'time'")


def _by_subject(recordings: list[Recording], test: float, seed: int) -> tuple[list[Recording], list[Recording]]:
    nameless = [r.id for r in recordings if not r.subject]
    if nameless:
        raise InputError(f"split: recording {nameless[0]} names no subject, so leaving subjects out cannot be checked: set its subject, or pass by='time'")
    subjects = sorted({r.subject for r in recordings})
    if len(subjects) < 2:
        raise InputError(f"split: all {len(recordings)} recordings are of subject {subjects[0]}, expected at least two subjects: add some, or pass by='time'")
    n = int(np.clip(round(test * len(subjects)), 1, len(subjects) - 1))
    held = {subjects[i] for i in np.random.default_rng(seed).permutation(len(subjects))[:n]}
    return [r for r in recordings if r.subject not in held], [r for r in recordings if r.subject in held]


def _by_time(recordings: list[Recording], test: float, guard: float) -> tuple[list[Recording], list[Recording]]:
    if not (np.isfinite(guard) and guard >= 0):
        raise InputError(f"split: guard is {guard}, expected seconds >= 0")
    train, held = [], []
    for r in recordings:
        a, b = r.start, r.stop
        border = b - test * (b - a)
        first, last = border - guard / 2, border + guard / 2
        if not a < first < last <= b or last >= b:
            raise InputError(f"split: {r.id} lasts {b - a:.0f} s, and a guard of {guard:g} s leaves nothing on one side: lower guard=")
        train.append(cut(r, a, first, f"{r.id}.train"))
        held.append(cut(r, last, b, f"{r.id}.test"))
    return train, held


class _Rows:
    """A lazy array that shows rows [first, last) of another."""

    def __init__(self, base: Any, first: int, last: int) -> None:
        self.base, self.first = base, first
        self.shape = (last - first, *base.shape[1:])
        self.dtype = base.dtype

    def __getitem__(self, key: Any) -> Any:
        rows, rest = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        n = self.shape[0]
        if isinstance(rows, slice):
            i, j, step = rows.indices(n)
            return self.base[(slice(i + self.first, max(i, j) + self.first, step), *rest)]
        return self.base[(np.arange(n)[rows] + self.first, *rest)]


def cut(recording: Recording, start: float, stop: float, id: str | None = None) -> Recording:
    """The part of a recording in [start, stop), s, lazily; times stay on the session's clock."""
    signals = {}
    for name, s in recording.signals.items():
        i, j = s.index(start), s.index(stop)
        if i == j:
            continue
        times = None if s.times is None else s.times[i:j]
        first = s.start if s.rate is None else s.start + i / s.rate
        signals[name] = Signal(
            _Rows(s.values, i, j), rate=s.rate, start=first, times=times, unit=s.unit, kind=s.kind, channels=s.channels,
            gaps=s.gaps.intersect(Intervals([[start, stop]])), scale=s.scale, missing=s.missing, clock=s.clock, attrs=dict(s.attrs),
        )  # fmt: skip
    spikes = None
    if recording.spikes is not None:
        times, units = recording.spikes.span(start, stop)
        spikes = Spikes(times, units, recording.spikes.units)
    labels = {k: _cut_label(v, start, stop) for k, v in recording.labels.items()}
    return recording.with_fields(id=id or recording.id, signals=signals, spikes=spikes, labels=labels)


def _cut_label(label: Label, start: float, stop: float) -> Label:
    if isinstance(label, Hypnogram):
        # Only whole epochs: half an epoch would carry the other side's label across.
        i = int(np.clip(np.ceil((start - label.start) / label.epoch - 1e-9), 0, len(label)))
        j = int(np.clip(np.floor((stop - label.start) / label.epoch + 1e-9), i, len(label)))
        proba = None if label.proba is None else label.proba[i:j]
        return Hypnogram(label.codes[i:j], label.stages, label.epoch, label.start + i * label.epoch, proba, label.scorer, dict(label.attrs))
    if isinstance(label, EventTable):
        return label[(label.start >= start) & (label.stop <= stop)]
    return label.intersect(Intervals([[start, stop]]))
