"""What a read-out is given: taps of an encoder and classical features of the same epochs, each centred on its own recording."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core.hypnogram import UNSCORED, Hypnogram
from brainmu.core.recording import Recording
from brainmu.core.signal import Signal
from brainmu.errors import InputError, MissingDataError
from brainmu.sleep.features import add_context, epoch_table
from brainmu.sleep.readout import STRETCH, Scoring

if TYPE_CHECKING:
    from brainmu.models.encoder import Encoder
    from brainmu.windows.grid import WindowGrid

__all__ = ["KINDS", "Input", "classical", "encoded", "scorings", "taps", "without_kinds"]

KINDS = ("lfp", "eeg", "eog", "emg", "features", "spikes")
"""What classical features read, and so what the encoder is shown: neither position nor speed, which tell wake by themselves."""
Floats = NDArray[np.float32]
Progress = Callable[[str, float], None]


@dataclass
class Input:
    """One input of every recording, (epoch, d) each: as it is, and as it is where some kinds are missing (the same list where none are)."""

    whole: list[Floats]
    bare: list[Floats]


def taps(encoder: Encoder, recording: Recording, epoch: float, n: int, start: float = 0.0, kinds: Sequence[str] | None = None) -> Floats:
    """Summary and context (epoch, 2 width) of `n` epochs of `epoch` s from `start` s, by an encoder whose weights stay as they are.

    `kinds` are channel kinds to show it, and "spikes"; those that classical features read where None.
    """
    return _taps(encoder, _grid(encoder, recording, epoch, n, start, kinds))


def _grid(encoder: Encoder, recording: Recording, epoch: float, n: int, start: float, kinds: Sequence[str] | None) -> WindowGrid:
    from brainmu.windows.grid import WindowGrid

    c = encoder.config
    return WindowGrid(recording, epoch, start, n, kinds=KINDS if kinds is None else kinds, patch=c.patch, bin=c.bin)


def _taps(encoder: Encoder, grid: WindowGrid) -> Floats:
    """Summary and context (epoch, 2 width); NaN where an epoch has no data, as classical features are."""
    import torch

    *both, present = encoder.encoded(grid)
    out = torch.cat(both, dim=1)
    out[~present] = torch.nan
    return out.cpu().numpy()


def scorings(recordings: Sequence[Recording], labels: str, groups: Sequence[str] | None) -> list[Scoring]:
    """The labels of each recording.

    Raises
    ------
    MissingDataError
        If a recording has none.
    InputError
        If their stages differ, or a subject lies in two groups.
    """
    out: list[Scoring] = []
    first = recordings[0].hypnogram(labels)
    for i, r in enumerate(recordings):
        h = r.hypnogram(labels)
        if h.stages != first.stages:
            raise InputError(
                f"probe: {recordings[0].id} is scored in {' '.join(first.stages)} and {r.id} in {' '.join(h.stages)}: convert all with as_rodent3()"
            )
        if not (h.codes >= 0).any():
            raise MissingDataError(f"probe: {r.id}: no epoch of label {labels!r} is scored")
        subject = r.subject or r.id
        out.append(Scoring(subject, subject if groups is None else str(groups[i]), h.codes.copy(), max(1, round(STRETCH / h.epoch))))
    for s in {d.subject for d in out}:
        inside = sorted({d.group for d in out if d.subject == s})
        if len(inside) > 1:
            raise InputError(f"probe: subject {s} lies in the groups {' and '.join(inside)}, expected all its recordings in one")
    return out


def without_kinds(recording: Recording, kinds: Iterable[str]) -> Recording:
    """The recording without the channels of some kinds ("spikes" among them); the rest stays lazy.

    Raises
    ------
    MissingDataError
        If nothing is left to read stages from.
    """
    gone = set(kinds)
    signals: dict[str, Signal] = {}
    for name, s in recording.signals.items():
        stay = ~s.channels["kind"].isin(gone).to_numpy()
        if stay.any():
            signals[name] = s if stay.all() else s.pick(stay)
    out = recording.with_fields(signals=signals, spikes=None if "spikes" in gone else recording.spikes)
    if not out.signals_of(*KINDS) and (out.spikes is None or not len(out.spikes)):
        raise MissingDataError(f"{recording.id}: nothing to read stages from is left without {', '.join(sorted(gone))}: leave out fewer kinds")
    return out


# -- inputs -----------------------------------------------------------------------------------------------------------
def classical(recordings: Sequence[Recording], bare: Sequence[Recording], labels: str, data: Sequence[Scoring], progress: Progress | None = None) -> Input:
    """Classical features with context; a column that a recording lacks is NaN there. Epochs without any data become unscored in `data`."""
    whole = []
    for i, (r, d) in enumerate(zip(recordings, data)):
        whole.append(_table(r, r.hypnogram(labels)))
        d.codes[~np.isfinite(whole[-1][0]).any(axis=1)] = UNSCORED
        if not (d.codes >= 0).any():
            raise MissingDataError(f"probe: {r.id}: no scored epoch of label {labels!r} holds data: check its start and the gaps of the signals")
        if progress is not None:
            progress("features", (i + 1) / len(recordings))
    cut = [t if b is r else _table(b, b.hypnogram(labels)) for r, b, t in zip(recordings, bare, whole)]
    names = list(dict.fromkeys(n for _, ns in whole for n in ns))

    def columns(table: tuple[NDArray[np.float64], list[str]], h: Hypnogram) -> Floats:
        x = np.full((len(table[0]), len(names)), np.nan)
        x[:, [names.index(n) for n in table[1]]] = table[0]
        return centred(add_context(x, h.epoch, h.stage_set).astype(np.float32))

    hypnograms = [r.hypnogram(labels) for r in recordings]
    full = [columns(t, h) for t, h in zip(whole, hypnograms)]
    return Input(full, [f if c is t else columns(c, h) for f, t, c, h in zip(full, whole, cut, hypnograms)])


def _table(recording: Recording, h: Hypnogram) -> tuple[NDArray[np.float64], list[str]]:
    """Features of exactly the epochs of a hypnogram; NaN beyond the data."""
    table = epoch_table(recording, h.epoch, start=h.start)
    x = np.full((len(h), table.values.shape[1]), np.nan)
    n = min(len(h), len(table.values))
    x[:n] = table.values[:n]
    return x, table.names


def encoded(
    encoders: Mapping[str, Encoder], recordings: Sequence[Recording], bare: Sequence[Recording], labels: str, kinds: Sequence[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Input]:  # fmt: skip
    """Taps of encoders of one config, by their names; each recording is read once for all of them."""
    out = {name: Input([], []) for name in encoders}
    config = next(iter(encoders.values()))
    for i, (r, b) in enumerate(zip(recordings, bare)):
        h = r.hypnogram(labels)
        for recording in [r] if b is r else [r, b]:
            grid = _grid(config, recording, h.epoch, len(h), h.start, kinds)
            for name, encoder in encoders.items():
                x = centred(_taps(encoder, grid))
                if recording is r:
                    out[name].whole.append(x)
                if recording is b:
                    out[name].bare.append(x)
        if progress is not None:
            progress("encode", (i + 1) / len(recordings))
    return out


def centred(x: NDArray[Any]) -> NDArray[Any]:
    """Columns (epoch, d) minus their mean over the recording; NaN stays."""
    ok = np.isfinite(x)
    mean = np.where(ok, x, 0).sum(axis=0, dtype=np.float64) / np.maximum(ok.sum(axis=0), 1)
    return (x - mean).astype(x.dtype)
