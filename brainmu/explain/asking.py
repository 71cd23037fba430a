"""How explanations ask a stager: probabilities of a recording, and the log odds of a target stage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Recording
from brainmu.core.hypnogram import stage_group
from brainmu.errors import InputError

if TYPE_CHECKING:
    from brainmu.models import StageModel

__all__ = ["Answer", "ask", "differentiable", "stages_of", "target_columns"]

_FLOOR = 1e-4
"""Probabilities are kept this far from 0 and 1: the log odds of a certain answer would be infinite."""


@dataclass(frozen=True)
class Answer:
    """What a stager says of a recording: proba float64 (epoch, stage), the start of the first epoch and their length, s."""

    proba: NDArray[np.float64]
    start: float
    epoch: float
    stages: tuple[str, ...]

    @property
    def times(self) -> NDArray[np.float64]:
        """Start of each epoch (n,), s."""
        return self.start + np.arange(len(self.proba), dtype=np.float64) * self.epoch

    def log_odds(self, columns: NDArray[np.intp]) -> NDArray[np.float64]:
        """Log odds (epoch,) of the stages in `columns` against the others; NaN where the stager abstains."""
        p = np.clip(self.proba[:, columns].sum(1), _FLOOR, 1 - _FLOOR)
        return np.log(p / (1 - p))


def ask(stager: Any, recording: Recording, start: float | None = None) -> Answer:
    """The probabilities of `recording` by a SleepStager or StageModel; `start` keeps the epochs of an earlier answer."""
    model = differentiable(stager)
    if model is not None:
        proba, first, epoch = model.predict_proba(recording, start=start)
        return Answer(np.asarray(proba, dtype=np.float64), first, epoch, model.stages)
    h = stager.predict(recording, start=start)
    if h.proba is None:
        raise InputError(f"{stager!r} gives stages without probabilities: nothing to explain; fit a stager (method 'encoder' or 'boosting')")
    return Answer(h.proba.astype(np.float64), h.start, h.epoch, h.stages)


def differentiable(stager: Any) -> StageModel | None:
    """The StageModel inside `stager` (or `stager` itself), or None where there is nothing to differentiate."""
    inner = getattr(stager, "model_", stager)
    return inner if hasattr(inner, "door") else None


def stages_of(stager: Any) -> tuple[str, ...]:
    """The stages that `stager` predicts."""
    model = differentiable(stager)
    return tuple(model.stages) if model is not None else tuple(stager.classes_)


def target_columns(stages: tuple[str, ...], target: str) -> NDArray[np.intp]:
    """Columns of the probabilities that `target` stands for; WAKE, NREM and REM also name groups of AASM stages."""
    group = stage_group(target)
    columns = np.array([i for i, s in enumerate(stages) if s in group], dtype=np.intp)
    if not len(columns):
        raise InputError(f"target {target!r} is not among the stager's stages ({' '.join(stages)})")
    return columns
