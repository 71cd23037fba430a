"""The epoch grid: who is at risk when, what ends a bout, and which epochs hold an event.

Epoch k spans [t_k, t_k + e). It is at risk if it is scored `source` and epoch k+1 is scored; the outcome of epoch k is
what k+1 is. Artefacts, unscored epochs, gaps and the ends of a recording censor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainmu.core.events import EventTable
from brainmu.core.hypnogram import Hypnogram, stage_group
from brainmu.core.recording import Recording
from brainmu.errors import DesignError, InputError

__all__ = ["EpochGrid", "Transition", "check_epoch", "epochs_in", "events_of", "exposure_of", "subjects_of"]

_EDGE = 1e-6  # of an epoch: times are compared on the grid with this slack, because t_k = start + k * e rounds


MICROAROUSAL = 15.0
"""Longest a waking between two epochs of the source may last to be a micro-arousal, s."""

_KINDS_OF_EXIT = ("any", "microarousal", "awakening")


@dataclass(frozen=True)
class Transition:
    """An outcome such as ``"NREM->WAKE"``: who is at risk (`source`) and what counts (`target`).

    Besides stages the target may be "any" (every other stage), "microarousal" (WAKE of at most 15 s, then the source again) or
    "awakening" (WAKE that lasts longer).
    """

    source: str
    target: str

    @classmethod
    def parse(cls, text: str) -> Transition:
        """From ``"NREM->WAKE"``. Raises DesignError where it is not two different known stages."""
        parts = [p.strip() for p in str(text).replace("→", "->").split("->")]
        if len(parts) != 2 or not all(parts):
            raise DesignError(f"outcome is {text!r}, expected a transition such as 'NREM->WAKE'")
        try:
            stage = {"any": "", "microarousal": "WAKE", "awakening": "WAKE"}.get(parts[1], parts[1])
            overlap = stage_group(parts[0]) & (stage_group(stage) if stage else frozenset())
        except InputError as error:
            raise DesignError(f"outcome {text!r}: {error}") from None
        if overlap:
            raise DesignError(f"outcome {text!r} goes from a stage to itself ({', '.join(sorted(overlap))}), expected two different stages")
        return cls(*parts)

    def __str__(self) -> str:
        return f"{self.source}->{self.target}"

    @property
    def landed(self) -> frozenset[str]:
        """Stages in which an animal has already left for the target; empty for "any"."""
        return frozenset() if self.target == "any" else frozenset(stage_group("WAKE" if self.target in _KINDS_OF_EXIT else self.target))

    def masks(self, h: Hypnogram) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
        """Which epochs are source, target and scored, each (n,).

        A waking whose end was not seen, so that it may or may not be a micro-arousal, is not scored.

        Raises DesignError where an epoch is too long to hold a micro-arousal.
        """
        source, scored = h.mask(self.source), h.codes >= 0
        if self.target not in _KINDS_OF_EXIT:
            return source, h.mask(self.target), scored
        if self.target == "any":
            return source, scored & ~source, scored
        if h.epoch > MICROAROUSAL:
            raise DesignError(
                f"outcome '{self}' needs epochs of at most {MICROAROUSAL:g} s, a micro-arousal's length, and these last {h.epoch:g} s: score finer"
            )
        wake = h.mask("WAKE")
        edge = np.diff(np.r_[False, wake, False].astype(np.int8))
        begin, stop = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)
        brief = (stop - begin) * h.epoch <= MICROAROUSAL + 1e-6
        seen = np.r_[scored, False][stop]
        back = np.r_[source, False][stop]
        lasting = self.target == "awakening"
        run = np.repeat(np.arange(len(begin)), stop - begin)
        target = np.zeros(len(h), dtype=bool)
        target[wake] = (~brief if lasting else brief & seen & back)[run]
        unknown = np.zeros(len(h), dtype=bool)
        unknown[wake] = (brief & ~seen)[run]
        return source, target, scored & ~unknown


@dataclass
class EpochGrid:
    """One recording's epochs as a causal analysis sees them.

    Attributes
    ----------
    source, target, scored : bool (n,)
        Stage of each epoch: at-risk stage, outcome stage, anything scored.
    at_risk : bool (n,)
        `source` and the next epoch scored.
    age : int (n,)
        Epochs since the bout of `source` began, 1 for its first epoch; 0 outside.
    bout : int (n,)
        Running number of the bout; -1 outside.
    late : bool (n,)
        The bout's beginning was not seen (it follows a gap, an artefact or the start of the recording).
    """

    recording: Recording
    hypnogram: Hypnogram
    subject: str
    epoch: float
    start: float
    source: NDArray[np.bool_]
    target: NDArray[np.bool_]
    scored: NDArray[np.bool_]
    at_risk: NDArray[np.bool_]
    age: NDArray[np.int64]
    bout: NDArray[np.int64]
    late: NDArray[np.bool_]

    @classmethod
    def of(cls, recording: Recording, subject: str, transition: Transition, labels: str | None) -> EpochGrid:
        """The grid of one recording under its hypnogram `labels`."""
        h = recording.hypnogram(labels)
        source, target, scored = transition.masks(h)
        n = len(h)
        next_scored = np.r_[scored[1:], False] if n else np.empty(0, dtype=bool)
        first = source & ~np.r_[False, source[:-1]] if n else source
        bout = np.where(source, np.cumsum(first) - 1, -1)
        begin = np.flatnonzero(first)
        at = np.arange(n)
        age = np.where(source, at - begin[np.maximum(bout, 0)] + 1, 0) if len(begin) else np.zeros(n, dtype=np.int64)
        unseen = np.array([b == 0 or not scored[b - 1] for b in begin], dtype=bool)
        late = source & unseen[np.maximum(bout, 0)] if len(begin) else np.zeros(n, dtype=bool)
        return cls(recording, h, subject, h.epoch, h.start, source, target, scored, source & next_scored, age, bout, late)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def stop(self) -> float:
        """End of the last epoch, s."""
        return self.start + len(self) * self.epoch

    def time(self, k: NDArray[np.integer] | int) -> NDArray[np.float64]:
        """Start of epoch k, s."""
        return self.start + np.asarray(k) * self.epoch

    def index(self, times: NDArray[np.float64]) -> NDArray[np.int64]:
        """Epoch that holds each time; may lie outside 0..n-1."""
        return np.floor((np.asarray(times, dtype=np.float64) - self.start) / self.epoch + _EDGE).astype(np.int64)


def exposure_of(grid: EpochGrid, starts: NDArray[np.float64], blank: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Events an epoch, and when the first one began.

    Parameters
    ----------
    starts : float64 (m,), s
        Event starts, in any order.
    blank : float, s
        End of the epoch in which events do not count: an event counts in [t_k, t_k + e - blank).

    Returns
    -------
    count : int (n,)
    first : float64 (n,), s
        Offset of the first event from t_k; NaN where there is none.
    """
    n, e = len(grid), grid.epoch
    k = grid.index(starts)
    offset = np.clip(np.asarray(starts, dtype=np.float64) - grid.time(k), 0.0, e)
    keep = (k >= 0) & (k < n) & (offset < e - blank - _EDGE * e * (blank > 0))
    k, offset = k[keep], offset[keep]
    count = np.bincount(k, minlength=n).astype(np.int64)
    first = np.full(n, np.inf)
    np.minimum.at(first, k, offset)
    return count, np.where(np.isfinite(first), first, np.nan)


def check_epoch(grids: Sequence[EpochGrid]) -> float:
    """The epoch length (s) all hypnograms share; DesignError where they differ."""
    lengths = sorted({g.epoch for g in grids})
    if len(lengths) > 1:
        raise DesignError(f"hypnograms have epochs of {', '.join(f'{x:g}' for x in lengths)} s, expected one length: rescore, or analyse them apart")
    return lengths[0]


def epochs_in(horizon: float, epoch: float) -> int:
    """Epochs in `horizon` seconds. Raises DesignError, naming the neighbours, unless it is a positive multiple of `epoch`."""
    if not np.isfinite(horizon) or horizon <= 0:
        raise DesignError(f"horizon is {horizon!r} s, expected a positive number of seconds: {epoch:g} s is one epoch")
    n = round(horizon / epoch)
    if n < 1 or abs(horizon - n * epoch) > 1e-6 * epoch:
        below = int(horizon // epoch) * epoch
        near = f"{below:g} or {below + epoch:g}" if below > 0 else f"{epoch:g}"
        raise DesignError(f"horizon is {horizon:g} s, expected a multiple of the {epoch:g} s epoch: use {near} s")
    return n


def subjects_of(recordings: Sequence[Recording]) -> tuple[list[str], list[str]]:
    """The animal of each recording, and warnings. Raises DesignError where animals cannot be told apart."""
    if not recordings:
        raise DesignError("no sessions were given, expected at least one Recording or Session")
    stray = [type(r).__name__ for r in recordings if not isinstance(r, Recording)]
    if stray:
        raise InputError(f"sessions hold a {stray[0]}, expected Recordings or Sessions: open stores with brainmu.open(path)")
    anonymous = [r.id for r in recordings if not r.subject]
    if anonymous and len(recordings) > 1:
        raise DesignError(
            f"{len(anonymous)} of {len(recordings)} recordings name no animal (first {anonymous[0]}): animals are the clusters, set recording.subject"
        )
    warnings = [f"recording {anonymous[0]} names no animal; it is taken as one animal"] if anonymous else []
    seen: set[tuple[str, str]] = set()
    for r in recordings:
        if (r.subject, r.id) in seen:
            raise DesignError(f"recording {r.id} of animal {r.subject!r} was given twice: give each session once")
        seen.add((r.subject, r.id))
    return [r.subject or r.id for r in recordings], warnings


def events_of(recording: Recording, exposure: str | Mapping[str, EventTable]) -> EventTable:
    """The exposure events of one recording: a label by name, or an entry of a mapping by recording id."""
    if isinstance(exposure, str):
        return recording.events(exposure)
    if not isinstance(exposure, Mapping):
        raise InputError(f"exposure is a {type(exposure).__name__}, expected the name of an event label, or a mapping of recording id to EventTable")
    if recording.id not in exposure:
        raise DesignError(f"exposure is a mapping without an entry for recording {recording.id}, it has {', '.join(map(str, list(exposure)[:8])) or 'none'}")
    table = exposure[recording.id]
    if not isinstance(table, EventTable):
        raise InputError(f"exposure of recording {recording.id} is a {type(table).__name__}, expected an EventTable")
    return table
