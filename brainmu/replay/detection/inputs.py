"""A recording as the learned detector meets it: traces every 4 ms beside the encoder's window latents, a span at a time, with either modality left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Intervals, Recording
from brainmu.errors import InputError, MissingDataError
from brainmu.replay.detection.traces import BIN, LFP_TRACES, SPIKE_TRACES, LfpTraces, SpikeTraces
from brainmu.replay.events import lfp_channels

if TYPE_CHECKING:
    from brainmu.models import Encoder
    from brainmu.windows import WindowGrid

__all__ = ["BINS", "MODALITIES", "N_TRACES", "WINDOW", "Sensed", "Senses"]

MODALITIES = ("lfp", "spikes")
N_TRACES = len(LFP_TRACES) + len(SPIKE_TRACES)
WINDOW = 0.5
"""Length of the encoder's windows, s: its latents then lie some 60 ms apart, where those of the 4-s windows of staging lie 0.5 s apart."""
BINS = round(WINDOW / BIN)
_PATCH, _SPIKE_BIN = 0.1, 0.01
_RODENT_RIPPLES, _HUMAN_RIPPLES = (150.0, 250.0), (80.0, 150.0)
Float = NDArray[np.float32]


@dataclass
class Sensed:
    """A span of a recording.

    Attributes
    ----------
    traces : float32 (bin, trace)
        LFP traces, then spike traces; 0 where there are no data.
    known : bool (2, bin)
        Whether there are LFP and spikes.
    latents : float32 (latent, width)
        Of the encoder, in the order of time; width 0 without an encoder.
    """

    traces: Float
    known: NDArray[np.bool_]
    latents: Float


@dataclass
class Senses:
    """Reads spans of one recording. `absent` says of each modality that cannot be used why."""

    recording: Recording
    lfp: LfpTraces | None
    spikes: SpikeTraces | None
    start: float
    n_windows: int
    absent: dict[str, str]
    encoder: Encoder | None = None
    _grids: dict[tuple[str, ...], WindowGrid] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, recording: Recording, encoder: Encoder | None, modalities: tuple[str, ...] = MODALITIES) -> Senses:
        """Scales of a recording; what it lacks, or what cannot be used, is named in `absent`."""
        absent: dict[str, str] = {m: "not asked for" for m in MODALITIES if m not in modalities}
        lfp = spikes = None
        if "lfp" in modalities:
            try:
                lfp = _lfp(recording)
            except (MissingDataError, InputError) as error:
                absent["lfp"] = str(error)
        if "spikes" in modalities:
            try:
                if recording.spikes is None:
                    raise MissingDataError("no spikes in the recording")
                spikes = SpikeTraces.fit(recording.spikes, recording.start, recording.stop)
            except MissingDataError as error:
                absent["spikes"] = str(error)
        start, stop = recording.start, recording.stop
        if lfp is not None and spikes is None:
            start, stop = lfp.signal.start, lfp.signal.stop
        return cls(recording, lfp, spikes, start, max(int(np.ceil((stop - start) / WINDOW - 1e-6)), 0), absent, encoder)

    @property
    def present(self) -> tuple[str, ...]:
        """Modalities that can be used."""
        return tuple(m for m in MODALITIES if m not in self.absent)

    @property
    def span(self) -> Intervals:
        """What is looked at."""
        return Intervals([[self.start, self.start + self.n_windows * WINDOW]]) if self.n_windows else Intervals()

    def read(self, first: int, last: int, use: tuple[str, ...] | None = None) -> Sensed:
        """Windows [first, last), with only the modalities of `use` (None: all that are present)."""
        return self.read_each(first, last, [self.present if use is None else use])[0]

    def read_each(self, first: int, last: int, uses: Sequence[tuple[str, ...]]) -> list[Sensed]:
        """Windows [first, last) with each set of modalities in turn."""
        n = (last - first) * BINS
        start, cut = self.start + first * WINDOW, len(LFP_TRACES)
        traces, known = np.zeros((n, N_TRACES), dtype=np.float32), np.zeros((2, n), dtype=bool)
        wanted = {m for use in uses for m in use}
        if self.lfp is not None and "lfp" in wanted:
            traces[:, :cut], known[0] = self.lfp.read(start, n)
        if self.spikes is not None and "spikes" in wanted:
            traces[:, cut:], known[1] = self.spikes.read(start, n)
        out = []
        for use in uses:
            kept = np.array(["lfp" in use, "spikes" in use])
            columns = np.repeat(kept, [cut, N_TRACES - cut])
            out.append(Sensed(traces * columns, known & kept[:, None], self._latents(first, last, use)))
        return out

    def _latents(self, first: int, last: int, use: tuple[str, ...]) -> Float:
        if self.encoder is None:
            return np.zeros((last - first, 0), dtype=np.float32)
        import torch

        grid = self._grid(use)
        with torch.no_grad():
            latents, _ = self.encoder.window(grid.batch(slice(first, last), keep=False))
        return latents.flatten(0, 1).numpy()

    def _grid(self, use: tuple[str, ...]) -> WindowGrid:
        """The recording's windows with only the modalities of `use`, on one scale."""
        from brainmu.windows import WindowGrid
        from brainmu.windows.statistics import measure

        if use not in self._grids:
            if not self._grids:
                kinds = [str(self.lfp.signal.channels["kind"].iloc[0])] if self.lfp is not None else []
                whole = measure(self.recording, [*kinds, *(["spikes"] if self.spikes is not None else [])], _PATCH)
            else:
                whole = self._grids[self.present].statistics
            own = replace(whole, signals=whole.signals if "lfp" in use else {}, spikes=whole.spikes if "spikes" in use else None)
            statistics = {self.present: whole, use: own}
            for key, s in statistics.items():
                self._grids[key] = WindowGrid(self.recording, WINDOW, self.start, self.n_windows, statistics=s, patch=_PATCH, bin=_SPIKE_BIN, cache=0)
        return self._grids[use]


def _lfp(recording: Recording) -> LfpTraces:
    everything = Intervals([[recording.start, recording.stop]]) if recording.duration > 0 else Intervals()
    ripple = _HUMAN_RIPPLES if recording.species.lower() == "human" else _RODENT_RIPPLES
    signal, _ = lfp_channels(recording, None, everything, ripple)
    return LfpTraces.fit(signal, ripple)
