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
    from torch import Tensor

    from brainmu.models import StageModel

__all__ = ["Answer", "Tempering", "ask", "beyond_the_network", "differentiable", "epoch_indices", "explains", "stages_of", "target_columns"]

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


@dataclass(frozen=True)
class Tempering:
    """What a stager adds to its encoder's logits, epoch by epoch: log odds of each stage (stage,), and a temperature."""

    offset: tuple[float, ...]
    temperature: float

    def __call__(self, logits: Tensor) -> Tensor:
        """Calibrated logits (…, stage)."""
        import torch

        return (logits.log_softmax(-1) + torch.tensor(self.offset, dtype=logits.dtype, device=logits.device)) / self.temperature

    def probabilities(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """The same of probabilities (epoch, stage); NaN stays."""
        x = (np.log(np.maximum(p, 1e-9)) + np.array(self.offset)) / self.temperature
        q = np.exp(x - x.max(1, keepdims=True))
        return q / q.sum(1, keepdims=True)


def beyond_the_network(stager: Any) -> tuple[Tempering | None, tuple[str, ...]]:
    """What a stager does to its encoder's probabilities: the part that can be differentiated along, and the names of what is left out if anything is.

    Durations are decoded over the whole night and a calibration reads other features; offset and temperature come after these, and are left out with them.
    """
    decoding, calibration = getattr(stager, "decoding_", None), getattr(stager, "calibration_", None)
    if differentiable(stager) is None or (decoding is None and calibration is None):
        return None, ()
    offset, temperature = (None, 1.0) if decoding is None else (decoding.offset, float(decoding.temperature))
    left = ["durations of stages"] if decoding is not None and decoding.durations is not None else []
    left += ["calibration on this recording"] if calibration is not None and calibration.changes else []
    adds = offset is not None or temperature != 1.0
    if left:
        return None, (*left, *(["offset and temperature"] if adds else []))
    return (Tempering(tuple(offset) if offset is not None else (0.0,) * len(stages_of(stager)), temperature) if adds else None), ()


def explains(stager: Any) -> str:
    """Whose log odds (or probabilities) an explanation of `stager` is about, in words."""
    tempering, left = beyond_the_network(stager)
    if left:
        return f"log odds of the network inside the stager, without {', '.join(left)}"
    return f"{'calibrated ' if tempering is not None else ''}log odds of the stager"


def ask(stager: Any, recording: Recording, start: float | None = None) -> Answer:
    """The probabilities of `recording` by a SleepStager or StageModel; `start` keeps the epochs of an earlier answer.

    Of a stager with an encoder: the network's, with offset and temperature where these can be explained (:func:`explains` says which).
    """
    model = differentiable(stager)
    if model is not None:
        proba, first, epoch = model.predict_proba(recording, start=start)
        tempering, p = beyond_the_network(stager)[0], np.asarray(proba, dtype=np.float64)
        return Answer(p if tempering is None else tempering.probabilities(p), first, epoch, model.stages)
    if not (hasattr(stager, "predict") and hasattr(stager, "stages")):
        raise InputError(f"{type(stager).__name__} came, expected a stager (SleepStager, StageModel): fit one, or load a packaged one (brainmu-tiny-rodent3)")
    h = stager.predict(recording, start=start)
    if h.proba is None:
        raise InputError(f"{stager!r} gives stages without probabilities: nothing to explain; fit a stager (method 'encoder' or 'boosting')")
    return Answer(h.proba.astype(np.float64), h.start, h.epoch, h.stages)


def differentiable(stager: Any) -> StageModel | None:
    """The StageModel inside `stager` (or `stager` itself), or None where there is nothing to differentiate."""
    inner = getattr(stager, "model_", stager)
    return inner if hasattr(inner, "door") else None


def stages_of(stager: Any) -> tuple[str, ...]:
    """The stages that `stager` predicts; none where it was not fitted."""
    model = differentiable(stager)
    return tuple(model.stages) if model is not None else tuple(getattr(stager, "classes_", ()))


def target_columns(stages: tuple[str, ...], target: str, what: str = "target") -> NDArray[np.intp]:
    """Columns of the probabilities that `target` stands for; WAKE, NREM and REM also name groups of AASM stages."""
    group = stage_group(target)
    columns = np.array([i for i, s in enumerate(stages) if s in group], dtype=np.intp)
    if not len(columns):
        raise InputError(f"{what} {target!r} is not among the stager's stages ({' '.join(stages)})")
    return columns


def epoch_indices(recording: Recording, epochs: Any, there: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Epochs (n,) named by index or by a mask, sorted and each once; `there` (epoch,) says which hold data.

    Raises
    ------
    InputError
        If there are none, or one is no whole number, outside the recording or without data.
    """
    given = np.atleast_1d(np.asarray(epochs))
    if given.dtype == bool:
        if given.shape != there.shape:
            raise InputError(f"{recording.id}: epochs is a mask of {given.size}, expected {len(there)}, one for each epoch")
        given = np.flatnonzero(given)
    if given.ndim != 1 or not len(given):
        raise InputError(f"{recording.id}: epochs names none, expected indices in 0..{len(there) - 1}")
    if given.dtype.kind not in "iuf" or (given != np.floor(given)).any():
        raise InputError(f"{recording.id}: epochs holds {given[0]!r}, expected whole numbers in 0..{len(there) - 1}, or a mask")
    rows = np.unique(given.astype(np.int64))
    outside = rows[(rows < 0) | (rows >= len(there))]
    if len(outside):
        raise InputError(f"{recording.id}: epoch {outside[0]} is outside 0..{len(there) - 1}")
    if not there[rows].all():
        raise InputError(f"{recording.id}: epoch {rows[~there[rows]][0]} holds no data")
    return rows
