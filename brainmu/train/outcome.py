"""Heads for what comes next: the stage that follows an epoch of one stage, read linearly from a frozen encoder, with a refit without each animal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from brainmu.core.hypnogram import stage_group
from brainmu.core.recording import Recording, as_list
from brainmu.errors import InputError, MissingDataError
from brainmu.models.adapters import merged
from brainmu.models.checkpoint import load_encoder
from brainmu.models.encoder import Encoder
from brainmu.models.stage_model import STAGE_KINDS, StageConfig, StageModel
from brainmu.train.labelled import labelled
from brainmu.windows.grid import CacheBudget

__all__ = ["OutcomeHeads", "outcome_heads"]

FEWEST = 20
"""Epochs that a transition follows, at least."""
_NEVER = -30.0
"""Log odds of a stage that never followed."""


@dataclass(frozen=True)
class OutcomeHeads:
    """Heads for what follows an epoch of one stage.

    Attributes
    ----------
    model : StageModel
        Fitted on all animals. Its probabilities of an epoch are those of the stage `ahead` epochs later, given that the epoch is one of `source`.
    refits : tuple of StageModel
        The same encoder with a head fitted without each animal in turn, in the order of `subjects`: for ``intervene(..., refits=)``.
    subjects : tuple of str
    n_epochs, n_transitions : int
        Epochs of the source stage fitted on, and how many of them another stage follows.
    """

    model: StageModel
    refits: tuple[StageModel, ...]
    subjects: tuple[str, ...]
    n_epochs: int
    n_transitions: int


def outcome_heads(
    sessions: Recording | Sequence[Recording], encoder: Encoder | str | Path, *, labels: str = "scoring", source: str = "NREM", stages: str = "rodent3",
    epoch: float = 4.0, ahead: int = 1, kinds: Sequence[str] | None = None, causal: bool = True, ridge: float = 1.0,
    progress: Callable[[str, float], None] | None = None,
) -> OutcomeHeads:  # fmt: skip
    """Fit heads that tell the stage following an epoch of `source` from that epoch and the past.

    A multinomial logistic regression on both taps of the frozen encoder, whose windows are encoded once for all heads, by Newton's method to
    convergence: unlike a head trained by a number of steps, its log odds are not held back by stopping early, and the
    discrete-time hazard [1]_ they come to can be compared with a hazard ratio.

    Parameters
    ----------
    sessions : Recording or sequence of Recording
    encoder : Encoder, path or packaged name
    labels : str
        Name of the hypnogram in each recording.
    source : str
        The stage at risk, such as "NREM".
    stages : {"rodent3", "aasm5"}
    epoch : float, s
    ahead : int
        How many epochs later the outcome is.
    kinds : sequence of str or None
        Channel kinds the model reads, and "spikes"; those of stage models where None.
    causal : bool
        Context of this and earlier epochs only. Leave it so where the head is to predict.
    ridge : float
        Half of it times the squared weights, of taps scaled to unit SD, is added to the summed loss. Large values pull effects to zero.
    progress : callable(stage, fraction) or None

    Returns
    -------
    OutcomeHeads

    Raises
    ------
    MissingDataError
        If a recording lacks the labels, or fewer than 20 epochs of the source stage are followed by another.
    InputError
        If the stage is not known, `ahead` is below 1 or `ridge` negative.

    References
    ----------
    .. [1] Allison PD (1982). Discrete-time methods for the analysis of event histories. Sociol Methodol 13:61.

    Examples
    --------
    >>> heads = outcome_heads(sessions, "brainmu-tiny")  # doctest: +SKIP
    >>> intervene(heads.model, held_out, "replay", scale="log_hazard", risk="scoring", refits=heads.refits)  # doctest: +SKIP
    """
    recordings = as_list(sessions)
    if not recordings:
        raise InputError("outcome_heads: no recordings came, expected at least one with labels")
    if ahead < 1 or not ridge >= 0:
        raise InputError(f"outcome_heads: ahead is {ahead}, ridge {ridge:g}: expected an integer >= 1 and a number >= 0")
    model = _model(encoder, stages, epoch, kinds, causal)
    columns = [i for i, s in enumerate(model.stages) if s in stage_group(source)]
    if not columns:
        raise InputError(f"outcome_heads: source {source!r} is not among the stages {' '.join(model.stages)}")
    parts, subjects = [], []
    for i, r in enumerate(recordings):
        parts.append(_taps(model, r, labels, columns, ahead))
        subjects.append(r.subject or r.id)
        if progress is not None:
            progress("encode", (i + 1) / len(recordings))
    x, y = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    who = np.repeat(subjects, [len(p[1]) for p in parts])
    moved = int((~np.isin(y, columns)).sum())
    if moved < FEWEST:
        raise MissingDataError(f"outcome_heads: {moved} of {len(y)} epochs of {source} are followed by another stage, expected at least {FEWEST}")
    names = tuple(sorted(set(subjects)))
    weights = newton(x, y, columns[0], len(model.stages), ridge)
    fitted = _with_head(model, *weights)
    fitted.n_epochs = len(y)
    fitted.card = (
        f"# Outcome head\n\nThe stage {ahead} epoch{'s' if ahead > 1 else ''} of {epoch:g} s after one of {source}, from {len(y)} such epochs of "
        f"{len(names)} animals, {moved} of them followed by another stage. Its probabilities mean nothing in other stages.\n"
    )
    refits = []
    for name in names if len(names) > 1 else ():
        kept = who != name
        refits.append(_with_head(model, *newton(x[kept], y[kept], columns[0], len(model.stages), ridge, weights)))
        if progress is not None:
            progress("refit", len(refits) / len(names))
    return OutcomeHeads(fitted, tuple(refits), names, len(y), moved)


def _model(encoder: Encoder | str | Path, stages: str, epoch: float, kinds: Sequence[str] | None, causal: bool) -> StageModel:
    from dataclasses import replace

    given = encoder if isinstance(encoder, Encoder) else load_encoder(encoder)
    own = Encoder(replace(given.config, causal=causal))
    own.load_state_dict(merged(given).state_dict())
    return StageModel(StageConfig(stages, float(epoch), tuple(kinds or STAGE_KINDS)), own).eval()


@torch.no_grad()
def _taps(model: StageModel, recording: Recording, labels: str, columns: list[int], ahead: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """What the head reads (epoch, 2 width) in the epochs at risk, and the stage that follows each (epoch,)."""
    d = labelled(model, recording, labels, CacheBudget(0))
    summaries, context, present = model.encoder.encoded(d.grid)
    x = model.head[0](torch.cat([summaries, context], -1)).double().numpy()
    after = np.full(len(d.codes), -1, dtype=np.int64)
    after[:-ahead] = d.codes[ahead:]
    ok = np.isin(d.codes, columns) & (after >= 0) & present.numpy()[: len(d.codes)]
    return x[: len(ok)][ok], after[ok]


Weights = tuple[NDArray[np.float64], NDArray[np.float64]]


def newton(x: NDArray[np.float64], y: NDArray[np.int64], base: int, n_stages: int, ridge: float, begin: Weights | None = None) -> Weights:
    """Weights (stage, tap) and biases (stage,) of a ridged multinomial logistic regression; those of stage `base` are 0. `begin` is a first guess."""
    centre, scale = x.mean(0), x.std(0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    z = np.c_[np.ones(len(x)), (x - centre) / scale]
    others = [k for k in range(n_stages) if k != base and (y == k).any()]
    m, d = len(others), z.shape[1]
    hit = np.stack([y == k for k in others], 1).astype(np.float64)
    penalty = np.tile(np.r_[1e-9, np.full(d - 1, ridge + 1e-9)], m)
    w = np.zeros((m, d))
    w[:, 0] = np.log(hit.mean(0) / (1 - hit.sum(1).mean()))
    if begin is not None:
        w = np.c_[begin[1][others] + begin[0][others] @ centre, begin[0][others] * scale]

    def loss(w: NDArray[np.float64]) -> float:
        eta = z @ w.T
        top = np.maximum(eta.max(1), 0.0)
        return float((top + np.log(np.exp(-top) + np.exp(eta - top[:, None]).sum(1)) - (eta * hit).sum(1)).sum() + 0.5 * (penalty * w.ravel() ** 2).sum())

    now = loss(w)
    for _ in range(50):
        eta = z @ w.T
        top = np.maximum(eta.max(1, keepdims=True), 0.0)
        e = np.exp(eta - top)
        p = e / (np.exp(-top) + e.sum(1, keepdims=True))
        gradient = ((p - hit).T @ z).ravel() + penalty * w.ravel()
        blocks = {(i, j): z.T @ (z * (p[:, i] * ((i == j) - p[:, j]))[:, None]) for i in range(m) for j in range(i, m)}
        h = np.block([[blocks[min(i, j), max(i, j)] for j in range(m)] for i in range(m)])
        step = np.linalg.solve(h + np.diag(penalty), gradient).reshape(m, d)
        size = 1.0
        while (new := loss(w - size * step)) > now and size > 1e-6:
            size /= 2
        w, gained, now = w - size * step, now - new, new
        if gained < 1e-8 * max(1.0, abs(now)):
            break
    weight, bias = np.zeros((n_stages, d - 1)), np.full(n_stages, _NEVER)
    bias[base] = 0.0
    weight[others], bias[others] = w[:, 1:] / scale, w[:, 0] - w[:, 1:] @ (centre / scale)
    return weight, bias


def _with_head(model: StageModel, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> StageModel:
    """The same encoder, shared, with a head of these weights."""
    out = StageModel(model.config, model.encoder)
    out.head = deepcopy(model.head)
    with torch.no_grad():
        out.head[2].weight.copy_(torch.from_numpy(weight))
        out.head[2].bias.copy_(torch.from_numpy(bias))
    return out.eval()
