"""The parts of an input that a map speaks of (one channel's band, a unit), and a model's answer without some of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Recording
from brainmu.explain.bands import BANDS, band_index

if TYPE_CHECKING:
    from torch import Tensor

    from brainmu.models import StageModel
    from brainmu.models.door import Door

__all__ = ["Part", "door_odds", "door_parts", "doors_of", "feature_ablation", "randomised"]

Part = tuple[str, int, int]
"""Stream, member (channel or unit) and band; the band is -1 where the stream has none."""

SURROUND = 32
"""Epochs of context on either side of a run; they stay as they are."""
_VERSIONS = 16

Map = dict[str, tuple[NDArray[np.float64], tuple[str, ...], str]]


def doors_of(model: StageModel, recording: Recording, runs: Sequence[tuple[int, int]]) -> Iterator[Door]:
    """A door to each run of epochs (first, last), one after another, with field signals by frequency."""
    statistics = model.grid(recording).statistics
    for first, last in runs:
        yield model.door(recording, first, last, domain="fourier", surround=SURROUND, statistics=statistics)


def door_parts(door: Door) -> list[Part]:
    """Every part of a door's input."""
    out: list[Part] = []
    for name in door.names:
        bands = np.unique(band_index(door.frequencies[name])).tolist() if door.modality[name] == "field" else [-1]
        out += [(name, member, band) for member in range(len(door.keys[name])) for band in bands]
    return out


def door_odds(door: Door, columns: NDArray[np.intp], without: Sequence[Collection[Part]]) -> NDArray[np.float64]:
    """Log odds (version, epoch) of the target with the parts of each version at the baseline ("nothing")."""
    import torch

    pick = torch.zeros(len(door.stages), dtype=torch.bool)
    pick[torch.from_numpy(columns)] = True
    out = []
    with torch.no_grad():
        for i in range(0, len(without), _VERSIONS):
            logits = door.forward(*_versions(door, without[i : i + _VERSIONS]))
            out.append((logits[..., pick].logsumexp(-1) - logits[..., ~pick].logsumexp(-1)).double().numpy())
    return np.concatenate(out)


def feature_ablation(
    model: StageModel, recording: Recording, runs: Sequence[tuple[int, int]], columns: NDArray[np.intp], report: Callable[[float], None] | None = None
) -> Map:  # fmt: skip
    """Fall of the log odds of the target when one part at a time is set to "nothing".

    Returns
    -------
    dict of stream: (values, keys, modality)
        field: (epoch, channel, band); slow and features: (epoch, channel); spikes: (epoch, unit).
    """
    found: dict[str, list[NDArray[np.float64]]] = {}
    out: Map = {}
    for i, door in enumerate(doors_of(model, recording, runs)):
        parts = door_parts(door)
        odds = door_odds(door, columns, [(), *((p,) for p in parts)])
        fall = odds[:1] - odds[1:]
        for name in door.names:
            keys, modality = door.keys[name], door.modality[name]
            values = np.zeros((fall.shape[1], len(keys), len(BANDS) if modality == "field" else 1))
            for (stream, member, band), f in zip(parts, fall):
                if stream == name:
                    values[:, member, max(band, 0)] = f
            found.setdefault(name, []).append(values if modality == "field" else values[..., 0])
            out[name] = (np.concatenate(found[name]), keys, modality)
        if report is not None:
            report((i + 1) / len(runs))
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
