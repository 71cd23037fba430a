"""Integrated gradients of a stage model's log odds, in the recording's own coordinates."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainmu.core import Recording
from brainmu.explain.bands import BANDS, band_index
from brainmu.explain.parts import doors_of

if TYPE_CHECKING:
    from brainmu.models import StageModel
    from brainmu.models.door import Door

__all__ = ["integrate"]

STEPS = ((1, 32), (16, 6), (32, 6), (32, 16))
"""Pieces of the path and integration steps on each, tried in turn until the map is complete."""
COMPLETE = 0.01
"""Largest |sum - difference| / max(|difference|, 0.1) of a complete map."""


def integrate(
    model: StageModel, recording: Recording, runs: list[tuple[int, int]], columns: NDArray[np.intp], report: Callable[[float], None] | None = None,
    steps: tuple[tuple[int, int], ...] = STEPS,
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
    parts: dict[str, list[NDArray[np.float64]]] = {}
    about: dict[str, tuple[tuple[str, ...], str]] = {}
    errors, used = [], 0
    for i, door in enumerate(doors_of(model, recording, runs)):
        maps, error, n = _complete(door, columns, steps)
        errors.append(error)
        used = max(used, n)
        for name, m in zip(door.names, maps):
            parts.setdefault(name, []).append(_shares(door, name, m))
            about[name] = (door.keys[name], door.modality[name])
        if report is not None:
            report((i + 1) / len(runs))
    return {k: (np.concatenate(v), *about[k]) for k, v in parts.items()}, np.array(errors), used


def _complete(door: Door, columns: NDArray[np.intp], steps: tuple[tuple[int, int], ...]) -> tuple[tuple[Tensor, ...], float, int]:
    """Maps of one run with as few steps as completeness allows, the error left, and the steps."""
    from captum.attr import IntegratedGradients

    pick = torch.zeros(len(door.stages), dtype=torch.bool)
    pick[torch.from_numpy(columns)] = True

    def score(*tensors: Tensor) -> Tensor:
        logits = door.forward(*tensors)
        odds = logits[..., pick].logsumexp(-1) - logits[..., ~pick].logsumexp(-1)
        return odds.sum(1)

    def point(share: float) -> tuple[Tensor, ...]:
        return tuple(b + share * (x - b) for x, b in zip(door.tensors, door.baselines))

    @torch.no_grad()
    def profile(shares: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.array([float(score(*point(float(s)))[0]) for s in shares])

    difference = float(np.diff(profile(np.array([0.0, 1.0])))[0])
    method = IntegratedGradients(score)
    walked: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    maps: tuple[Tensor, ...] = ()
    error, n = np.inf, 0
    for pieces, n_steps in steps:
        if pieces > 1 and walked is None:
            walked = _walk(profile)
        cuts = np.array([0.0, 1.0]) if walked is None else _cuts(*walked, pieces)
        parts = [method.attribute(point(b), point(a), n_steps=n_steps, internal_batch_size=8) for a, b in itertools.pairwise(cuts.tolist())]
        maps = tuple(torch.stack(m).sum(0) for m in zip(*parts))
        n = pieces * n_steps
        error = abs(float(sum(m.sum() for m in maps)) - difference) / max(abs(difference), 0.1)
        if error <= COMPLETE:
            break
    return tuple(m.detach() for m in maps), float(error), n


def _walk(profile: Callable[[NDArray[np.float64]], NDArray[np.float64]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Places on the path from baseline to recording, and the score there, closer where it changes.

    A network that is sure of itself is flat almost everywhere and falls off a cliff somewhere: evenly placed steps miss the cliff, whatever their number.
    """
    at = np.linspace(0, 1, 33)
    score = profile(at)
    for _ in range(12):
        change = np.abs(np.diff(score))
        steep = np.flatnonzero((change > 0.03 * change.sum()) & (np.diff(at) > 1e-6))
        if not len(steep):
            break
        between = np.concatenate([np.linspace(at[k], at[k + 1], 4)[1:-1] for k in steep])
        order = np.argsort(np.r_[at, between])
        at, score = np.r_[at, between][order], np.r_[score, profile(between)][order]
    return at, score


def _cuts(at: NDArray[np.float64], score: NDArray[np.float64], pieces: int) -> NDArray[np.float64]:
    """Borders of `pieces` parts of the path over which the score changes about equally."""
    change = np.abs(np.diff(score))
    mass = np.r_[0.0, np.cumsum(change / max(change.sum(), 1e-12) + 0.3 * np.diff(at))]
    return np.interp(np.linspace(0, mass[-1], pieces + 1), mass, at)


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
