"""Integrated gradients of a stage model's log odds, in the recording's own coordinates."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainmu.core import Recording
from brainmu.explain.bands import BANDS, band_index

if TYPE_CHECKING:
    from brainmu.models import StageModel
    from brainmu.models.door import Door

__all__ = ["integrate"]

SURROUND = 32
"""Epochs of context on either side of a run; they stay as they are."""
STEPS = (32, 100, 200)
"""Numbers of integration steps, tried in turn until the map is complete."""
COMPLETE = 0.01
"""Largest |sum - difference| / max(|difference|, 0.1) of a complete map."""


def integrate(
    model: StageModel, recording: Recording, runs: list[tuple[int, int]], columns: NDArray[np.intp], report: Callable[[float], None] | None = None,
    steps: tuple[int, ...] = STEPS,
) -> tuple[dict[str, tuple[NDArray[np.float64], tuple[str, ...], str]], NDArray[np.float64], int]:  # fmt: skip
    """Attributions over `runs` of consecutive epochs (first, last).

    The path goes from "nothing" (the recording's median; for spikes each unit's expected count) to the recording, with
    field signals in the Fourier domain, so that each frequency has its own share.

    Returns
    -------
    dict of stream: (values, keys, modality)
        field: (time of patches, channel, band); slow: (time, channel); features: (time, channel); spikes: (time, unit), with
        keys the channel names or unit ids.
    float64 (run,)
        Completeness error of each run.
    int
        Most steps that were used.

    References
    ----------
    Sundararajan M, Taly A, Yan Q (2017) Axiomatic attribution for deep networks. ICML.
    """
    statistics = model.grid(recording).statistics
    parts: dict[str, list[NDArray[np.float64]]] = {}
    about: dict[str, tuple[tuple[str, ...], str]] = {}
    errors, used = [], 0
    for i, (first, last) in enumerate(runs):
        door = model.door(recording, first, last, domain="fourier", surround=SURROUND, statistics=statistics)
        maps, error, n = _complete(door, columns, steps)
        errors.append(error)
        used = max(used, n)
        for name, m in zip(door.names, maps):
            parts.setdefault(name, []).append(_shares(door, name, m))
            about[name] = (door.keys[name], door.modality[name])
        if report is not None:
            report((i + 1) / len(runs))
    return {k: (np.concatenate(v), *about[k]) for k, v in parts.items()}, np.array(errors), used


def _complete(door: Door, columns: NDArray[np.intp], steps: tuple[int, ...]) -> tuple[tuple[Tensor, ...], float, int]:
    """Maps of one run with as few steps as completeness allows, the error left, and the steps."""
    from captum.attr import IntegratedGradients

    pick = torch.zeros(len(door.stages), dtype=torch.bool)
    pick[torch.from_numpy(columns)] = True

    def score(*tensors: Tensor) -> Tensor:
        logits = door.forward(*tensors)
        odds = logits[..., pick].logsumexp(-1) - logits[..., ~pick].logsumexp(-1)
        return odds.sum(1)

    with torch.no_grad():
        difference = float((score(*door.tensors) - score(*door.baselines))[0])
    method = IntegratedGradients(score)
    maps: tuple[Tensor, ...] = ()
    error, n = np.inf, 0
    for n in steps:
        maps = method.attribute(door.tensors, door.baselines, n_steps=n, internal_batch_size=8)
        error = abs(float(sum(m.sum() for m in maps)) - difference) / max(abs(difference), 0.1)
        if error <= COMPLETE:
            break
    return tuple(m.detach() for m in maps), float(error), n


def _shares(door: Door, name: str, attribution: Tensor) -> NDArray[np.float64]:
    """One stream's map on the time axis of the run: patches of field signals by band, spikes by epoch."""
    a = attribution[0].double().numpy()
    if door.modality[name] == "field":
        a = a.sum(-1)  # real and imaginary part
        which = band_index(door.frequencies[name])
        banded = np.stack([a[..., which == b].sum(-1) for b in range(len(BANDS))], axis=-1)
        # (epoch, channel, patch, band) -> (time, channel, band)
        return banded.transpose(0, 2, 1, 3).reshape(-1, banded.shape[1], len(BANDS))
    if door.modality[name] == "slow":
        return a.transpose(0, 2, 1).reshape(-1, a.shape[1])
    if door.modality[name] == "spikes":
        return a.sum(-1)
    return a
