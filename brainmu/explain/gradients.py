"""Integrated gradients and gradient SHAP of a stage model's log odds, in the recording's own coordinates."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainmu.explain.bands import BANDS, band_index

if TYPE_CHECKING:
    from brainmu.models.door import Door

__all__ = ["COMPLETE", "incompleteness", "integrate", "score_of", "shap"]

STEPS = ((1, 32), (16, 6), (32, 6), (32, 16))
"""Pieces of the path and integration steps on each, tried in turn until the map is complete."""
COMPLETE = 0.01
"""Largest |sum - difference| / max(|difference|, 0.1) of a complete map."""
DRAWS = 192
"""Random points of gradient SHAP, of each run."""
_AT_ONCE = 8


def score_of(door: Door, columns: NDArray[np.intp]) -> Callable[..., Tensor]:
    """A function from a door's tensors (version, epoch, …) to the log odds (version,) of the target, summed over epochs."""
    pick = torch.zeros(len(door.stages), dtype=torch.bool)
    pick[torch.from_numpy(columns)] = True

    def score(*tensors: Tensor) -> Tensor:
        logits = door.forward(*tensors)
        odds = logits[..., pick].logsumexp(-1) - logits[..., ~pick].logsumexp(-1)
        return odds.sum(1)

    return score


def incompleteness(total: float, difference: float) -> float:
    """|total - difference| over the difference, of which 0.1 logit at least is taken."""
    return abs(total - difference) / max(abs(difference), 0.1)


def integrate(door: Door, columns: NDArray[np.intp], steps: tuple[tuple[int, int], ...] = STEPS) -> tuple[dict[str, NDArray[np.float64]], float, int]:
    """Integrated gradients of one run of epochs.

    The path goes from the door's baseline to the recording, with field signals in the Fourier domain, so that each frequency has its own share.

    Returns
    -------
    dict of stream: float64
        field: (time of patches, channel, band); slow: (time, channel); features: (epoch, channel); spikes: (epoch, unit).
    float
        Completeness error.
    int
        Steps that were used: as few as completeness allows.

    References
    ----------
    Sundararajan M, Taly A, Yan Q (2017) Axiomatic attribution for deep networks. ICML.
    """
    from captum.attr import IntegratedGradients

    score = score_of(door, columns)

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
        error = incompleteness(float(sum(m.sum() for m in maps)), difference)
        if error <= COMPLETE:
            break
    return {name: _shares(door, name, m.detach()) for name, m in zip(door.names, maps)}, float(error), n


def shap(door: Door, columns: NDArray[np.intp], seed: int, draws: int = DRAWS) -> tuple[dict[str, NDArray[np.float64]], float, int]:
    """Gradient SHAP of one run of epochs: gradients at random points between the recording and baselines drawn at random; returns as :func:`integrate`.

    Shares add up to the mean difference over baselines in expectation only: the error is that of `draws` draws.

    References
    ----------
    Lundberg SM, Lee S-I (2017) A unified approach to interpreting model predictions. NeurIPS; Erion G et al. (2021) Nat Mach Intell.
    """
    from captum.attr import GradientShap

    score, method = score_of(door, columns), GradientShap(score_of(door, columns))
    with torch.no_grad():
        nothing = [float(score(*(b[k : k + 1] for b in door.baselines))[0]) for k in range(len(door.baselines[0]))]
        difference = float(score(*door.tensors)[0]) - float(np.mean(nothing))
    total: tuple[Tensor, ...] | None = None
    with _drawn_from(seed):
        for _ in range(0, draws, _AT_ONCE):
            part = method.attribute(door.tensors, door.baselines, n_samples=_AT_ONCE)
            total = part if total is None else tuple(t + p for t, p in zip(total, part))
    assert total is not None
    maps = [t.detach() / len(range(0, draws, _AT_ONCE)) for t in total]
    error = incompleteness(float(sum(m.sum() for m in maps)), difference)
    return {name: _shares(door, name, m) for name, m in zip(door.names, maps)}, error, draws


@contextmanager
def _drawn_from(seed: int) -> Iterator[None]:
    """Captum draws from the generators of numpy and torch themselves, whose states are given back afterwards."""
    state = np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng(devices=[]):
        np.random.seed(seed)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002


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
