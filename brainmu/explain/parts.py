"""The parts of an input that a map speaks of (one channel's band, a unit), and a model's answer without some of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Recording
from brainmu.explain.asking import Tempering
from brainmu.explain.bands import BANDS, band_index
from brainmu.explain.baselines import Baseline, at_level, matched, stage_means

if TYPE_CHECKING:
    from torch import Tensor

    from brainmu.models import StageModel
    from brainmu.models.door import Door
    from brainmu.windows.statistics import Statistics

__all__ = ["Doors", "Map", "Part", "door_odds", "door_parts", "feature_ablation", "randomised"]

Part = tuple[str, int, int]
"""Stream, member (channel or unit) and band; the band is -1 where the stream has none."""

SURROUND = 32
"""Epochs of context on either side of a run; they stay as they are."""
_VERSIONS = 16

Map = dict[str, tuple[NDArray[np.float64], tuple[str, ...], str]]


class Doors:
    """Doors to runs of epochs (first, last) of a recording, with field signals by frequency, a baseline, and what a stager adds to the logits.

    A door is made when it is opened, so that memory does not grow with the number of runs.
    """

    def __init__(
        self, model: StageModel, recording: Recording, runs: Sequence[tuple[int, int]], baseline: Baseline | None = None, tempering: Tempering | None = None,
        statistics: Statistics | None = None,
    ) -> None:  # fmt: skip
        self.model, self.recording, self.runs = model, recording, list(runs)
        self.baseline, self.tempering = baseline or Baseline(), tempering
        self.grid = model.eval().grid(recording, statistics)
        self._means: dict[str, Tensor] = {}

    def __len__(self) -> int:
        return len(self.runs)

    def open(self, i: int, n: int = 1) -> Door:
        """The door to run i, with up to `n` baselines along the first axis where they are matched windows."""
        first, last = self.runs[i]
        door = self.model.door(self.recording, first, last, domain="fourier", surround=SURROUND, statistics=self.grid.statistics)
        if self.tempering is not None:
            forward, temper = door.forward, self.tempering
            door = dataclasses.replace(door, forward=lambda *x: temper(forward(*x)))
        if self.baseline.name == "matched":
            return dataclasses.replace(door, baselines=matched(door, self.grid, self.baseline.rows, first, n))
        if self.baseline.name == "stage_mean":
            self._means = self._means or stage_means(door, self.grid, self.baseline.rows)
            levels = [at_level(x, self._means[k], door.modality[k]) for k, x in zip(door.names, door.tensors)]
            return dataclasses.replace(door, baselines=tuple(levels))
        return door

    def streams(self) -> dict[str, tuple[tuple[str, ...], str]]:
        """Keys (channel names, unit ids) and modality of every stream."""
        s = self.grid.statistics
        out = {k: (tuple(v.names), v.modality) for k, v in s.signals.items()}
        return out | ({"spikes": (tuple(str(i) for i in s.spikes.ids), "spikes")} if s.spikes is not None else {})


def door_parts(door: Door) -> list[Part]:
    """Every part of a door's input."""
    out: list[Part] = []
    for name in door.names:
        bands = np.unique(band_index(door.frequencies[name])).tolist() if door.modality[name] == "field" else [-1]
        out += [(name, member, band) for member in range(len(door.keys[name])) for band in bands]
    return out


def door_odds(door: Door, columns: NDArray[np.intp], without: Sequence[Collection[Part]]) -> NDArray[np.float64]:
    """Log odds (version, epoch) of the target with the parts of each version at the baseline."""
    import torch

    pick = torch.zeros(len(door.stages), dtype=torch.bool)
    pick[torch.from_numpy(columns)] = True
    out = []
    with torch.no_grad():
        for i in range(0, len(without), _VERSIONS):
            logits = door.forward(*_versions(door, without[i : i + _VERSIONS]))
            out.append((logits[..., pick].logsumexp(-1) - logits[..., ~pick].logsumexp(-1)).double().numpy())
    return np.concatenate(out)


def feature_ablation(door: Door, columns: NDArray[np.intp]) -> dict[str, NDArray[np.float64]]:
    """Fall of the log odds of the target, epoch by epoch, when one part at a time is set to the baseline.

    Returns
    -------
    dict of stream: float64
        field: (epoch, channel, band); slow and features: (epoch, channel); spikes: (epoch, unit).
    """
    parts = door_parts(door)
    odds = door_odds(door, columns, [(), *((p,) for p in parts)])
    fall = odds[:1] - odds[1:]
    out = {}
    for name in door.names:
        field = door.modality[name] == "field"
        values = np.zeros((fall.shape[1], len(door.keys[name]), len(BANDS) if field else 1))
        for (stream, member, band), f in zip(parts, fall):
            if stream == name:
                values[:, member, max(band, 0)] = f
        out[name] = values if field else values[..., 0]
    return out


def randomised(model: StageModel, seed: int = 0) -> StageModel:
    """The same network with weights that learned nothing, of the same spread, layer by layer."""
    import copy

    import torch

    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in other.parameters():
            # Shuffled in place: each layer keeps its distribution of weights and loses their arrangement.
            p.copy_(p.flatten()[torch.randperm(p.numel(), generator=generator)].view_as(p))
    return other.eval()


def _versions(door: Door, without: Sequence[Collection[Part]]) -> tuple[Tensor, ...]:
    """The door's tensors (version, epoch, …) with some parts at the baseline."""
    import torch

    out = []
    for name, x, base in zip(door.names, door.tensors, door.baselines):
        field = door.modality[name] == "field"
        gone = np.zeros((len(without), len(door.keys[name]), len(BANDS)), dtype=bool)
        for k, parts in enumerate(without):
            for stream, member, band in parts:
                if stream == name:
                    gone[k, member, band if field else slice(None)] = True
        mask = torch.from_numpy(gone[:, :, band_index(door.frequencies[name])] if field else gone[:, :, 0])
        # (version, epoch, channel, patch, frequency, part), or (version, epoch, member, …).
        mask = mask[:, None, :, None, :, None] if field else mask.view(len(without), 1, -1, *[1] * (x.ndim - 3))
        out.append(torch.where(mask, base, x))
    return tuple(out)
