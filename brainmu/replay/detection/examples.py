"""What a learned detector is fitted on: recordings with their events, read once with every set of modalities."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brainmu.core import EventTable, Intervals, Recording
from brainmu.errors import InputError, MissingDataError
from brainmu.replay.detection.confidence import BLOCK, block_features
from brainmu.replay.detection.inputs import BINS, MODALITIES, Sensed, Senses
from brainmu.replay.detection.traces import BIN, LFP_TRACES, SPIKE_TRACES
from brainmu.replay.events import find_events

if TYPE_CHECKING:
    from brainmu.models import Encoder
    from brainmu.replay.detection.head import Example

__all__ = ["CHUNK", "Labels", "Shown", "epochs_named", "events_of", "held_apart", "own_columns", "spectrum_of"]

Labels = str | EventTable | Mapping[str, EventTable] | Sequence[EventTable]
CHUNK = 240
"""Windows read at once (2 min): whole blocks of 4 s."""


@dataclass
class Shown:
    """A recording that the detector is fitted on. `keys` name the sets of modalities in the order of ``example.sensed``."""

    example: Example
    keys: list[str]
    blocks: dict[str, NDArray[np.float64]]
    events: EventTable
    start: float
    group: str

    @classmethod
    def of(
        cls,
        encoder: Encoder | None,
        modalities: tuple[str, ...],
        r: Recording,
        events: EventTable,
        within: str | None,
        group: str,
        progress: Callable[[float], None],
    ) -> Shown:
        from brainmu.replay.detection.head import Example

        senses = Senses.of(r, encoder, modalities)
        if not senses.present or not senses.n_windows:
            why = "; ".join(f"{m}: {w}" for m, w in senses.absent.items())
            raise MissingDataError(f"{r.id}: nothing to fit on ({why or 'shorter than half a second'}): leave the recording out")
        uses = [senses.present] if len(senses.present) == 1 else [senses.present, *((m,) for m in senses.present)]
        parts: list[list[Sensed]] = []
        for first in range(0, senses.n_windows, CHUNK):
            last = min(first + CHUNK, senses.n_windows)
            parts.append([_small(s) for s in senses.read_each(first, last, uses)])
            progress(last / senses.n_windows)
        sensed = [Sensed(np.concatenate([p[k].traces for p in parts]), np.concatenate([p[k].known for p in parts], axis=1),
                         np.concatenate([p[k].latents for p in parts])) for k in range(len(uses))]  # fmt: skip
        time = senses.start + (np.arange(senses.n_windows * BINS) + 0.5) * BIN
        spans = epochs_named(r, within)
        events = events if spans is None else events.within(spans)
        target = events.intervals().contains(time).astype(np.float32) if len(events) else np.zeros(len(time), dtype=np.float32)
        counts = sensed[0].known.any(0) & (np.ones(len(time), dtype=bool) if spans is None else spans.contains(time))
        keys = ["+".join(u) for u in uses]
        blocks = {}
        for key, s in zip(keys, sensed):
            whole = s.known[[MODALITIES.index(m) for m in key.split("+")]].all(0)
            n = len(whole) // BLOCK
            blocks[key] = own_columns(block_features(s, spectrum_of(senses)), key)[whole[: n * BLOCK].reshape(n, BLOCK).all(1)]
        return cls(Example(sensed, target, counts), keys, blocks, events.sorted() if len(events) else events, senses.start, group)


def spectrum_of(senses: Senses) -> NDArray[np.float64]:
    """Shape of the LFP's spectrum (band,); empty without LFP."""
    return senses.lfp.spectrum if senses.lfp is not None else np.empty(0)


def own_columns(features: NDArray[np.float64], key: str) -> NDArray[np.float64]:
    """The columns of block features that belong to some modalities; the spectrum belongs to the LFP."""
    a, b = len(LFP_TRACES), len(LFP_TRACES) + len(SPIKE_TRACES)
    lfp, spikes = "lfp" in key.split("+"), "spikes" in key.split("+")
    own = np.r_[np.repeat([lfp, spikes], [a, b - a]), np.repeat([lfp, spikes], [a, b - a]), np.full(features.shape[1] - 2 * b, lfp)]
    return features[:, own]


def _small(s: Sensed) -> Sensed:
    """Half precision: a training recording is kept whole."""
    return Sensed(s.traces.astype(np.float16), s.known, s.latents.astype(np.float16))


def held_apart(recordings: list[Recording]) -> tuple[list[str], list[str]]:
    """What is left out in turn: subjects, or recordings where there is one subject only; and what that calls for saying."""
    subjects = [r.subject or r.id for r in recordings]
    if len(set(subjects)) > 1:
        return subjects, []
    if len(recordings) < 2:
        raise InputError(f"fit got {len(recordings)} recording, expected two or more: probabilities are calibrated on what is left out")
    return [f"{r.id}:{k}" for k, r in enumerate(recordings)], [
        f"all recordings are of {subjects[0]}: calibrated on its other recordings, not on other subjects"
    ]


def events_of(r: Recording, labels: Labels, k: int) -> EventTable:
    """The events of a recording."""
    if isinstance(labels, EventTable):
        labels = [labels]
    if isinstance(labels, Mapping):
        if r.id not in labels:
            raise MissingDataError(f"{r.id}: no events given for it, there are some for {', '.join(labels)}")
        return labels[r.id]
    if not isinstance(labels, str):
        if k >= len(labels):
            raise InputError(f"{len(labels)} event tables for at least {k + 1} recordings, expected one each")
        return labels[k]
    label = r.labels.get(labels)
    if isinstance(label, EventTable):
        return label
    if labels in ("ripple", "burst", "hse"):
        return find_events(r, labels)
    have = ", ".join(n for n, v in r.labels.items() if isinstance(v, EventTable)) or "none"
    raise MissingDataError(f"{r.id}: no events {labels!r} among its labels; there are {have}, and kinds ripple, burst and hse")


def epochs_named(r: Recording, within: str | None) -> Intervals | None:
    """The epochs of that label; None where none was named."""
    if within is None:
        return None
    spans = r.labels.get(within)
    if not isinstance(spans, Intervals):
        have = ", ".join(n for n, v in r.labels.items() if isinstance(v, Intervals)) or "none"
        raise MissingDataError(f"{r.id}: no epochs {within!r} among its labels; there are {have}")
    return spans
