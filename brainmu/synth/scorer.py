"""The scorer: how a person turns continuous sleep into epochs, and where that person errs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import Hypnogram
from brainmu.synth.limits import check_model

__all__ = ["ScorerModel", "scorings"]


@dataclass(frozen=True)
class ScorerModel:
    """How good the scorer is. All zero (the default): the majority of the true bouts, without error.

    Parameters
    ----------
    scorer_error : float
        Chance that an unambiguous epoch is mis-scored (REM twice as often, as experts do [1]_); epochs near a transition are
        taken for the neighbour in proportion to how mixed they are.

    References
    ----------
    .. [1] Barger Z et al. (2019). Robust, automated sleep scoring by a compact neural network. PLoS ONE 14:e0224642.
    """

    scorer_error: float = 0.0

    def __post_init__(self) -> None:
        check_model(self, shares=("scorer_error",))


def scorings(model: ScorerModel, truth: Hypnogram, bouts: pd.DataFrame, rng: np.random.Generator, seed: tuple[int, ...]) -> dict[str, Hypnogram]:
    """The hypnogram of every scorer by the name of its label."""
    return {"scoring": _slips(model, truth, bouts, rng)}


def shares(truth: Hypnogram, bouts: pd.DataFrame) -> NDArray[np.float64]:
    """Share (epoch, stage) of every epoch that was spent in each stage."""
    edges = truth.start + np.arange(len(truth) + 1) * truth.epoch
    knots = np.r_[bouts["start"].to_numpy(), bouts["stop"].to_numpy()[-1:]]
    spent = [np.diff(np.interp(edges, knots, np.r_[0.0, np.cumsum(np.diff(knots) * (bouts["stage"] == s).to_numpy())])) for s in truth.stages]
    return np.stack(spent, axis=1) / truth.epoch


def _slips(model: ScorerModel, truth: Hypnogram, bouts: pd.DataFrame, rng: np.random.Generator) -> Hypnogram:
    """Mixed epochs go to the neighbour in proportion, clear ones are now and then mistaken."""
    if not model.scorer_error:
        return truth
    codes = truth.codes.copy()
    share = shares(truth, bouts)
    order = np.argsort(share, axis=1)
    second, mixed = order[:, -2], share[np.arange(len(codes)), order[:, -2]]
    swap = rng.random(len(codes)) < mixed
    codes[swap] = second[swap]
    dream = truth.mask("R" if "R" in truth.stages else "REM")
    slip = rng.random(len(codes)) < model.scorer_error * np.where(dream, 2.0, 1.0)
    codes[slip] = np.where(rng.random(slip.sum()) < 0.5, np.roll(codes, 1)[slip], rng.integers(len(truth.stages), size=slip.sum()))
    return Hypnogram(codes, truth.stages, truth.epoch, truth.start, scorer="synthetic expert")
