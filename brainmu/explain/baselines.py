"""What an input is compared with: nothing, the mean of another stage, or a matched window of the same recording."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainmu.errors import InputError, MissingDataError
from brainmu.explain.asking import Answer, target_columns

if TYPE_CHECKING:
    from torch import Tensor

    from brainmu.models.door import Door
    from brainmu.windows.grid import WindowGrid

__all__ = ["BASELINES", "MATCHES", "Baseline", "at_level", "baseline_of", "matched", "stage_means"]

BASELINES = ("zero", "stage_mean", "matched")
MATCHES = 8
"""Matched windows that gradient SHAP draws from."""
_EPOCHS = 128
"""Epochs of a stage that its mean is taken over, spread over the recording."""


@dataclass(frozen=True)
class Baseline:
    """A baseline by name.

    Attributes
    ----------
    name : {"zero", "stage_mean", "matched"}
    stage : str
        The stage compared with; empty for "zero", and for "matched" with every other stage.
    rows : int64 (n,)
        Epochs that a mean is taken over, or matches are taken from.
    """

    name: str = "zero"
    stage: str = ""
    rows: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))


def stage_means(door: Door, grid: WindowGrid, rows: NDArray[np.int64]) -> dict[str, Tensor]:
    """Level of each stream over some epochs: field by channel and frequency (root of the mean power), others by member; read an epoch at a time."""
    from brainmu.models.door import door_inputs

    total: dict[str, Any] = {}
    count: dict[str, Any] = {}
    for k in rows[np.unique(np.linspace(0, len(rows) - 1, _EPOCHS).round().astype(int))].tolist():
        inputs, missing = door_inputs(grid, k, k + 1, door.frequencies)
        for name, x in inputs.items():
            there = ~missing[name]
            if name in door.frequencies:
                there = there.unflatten(2, (x.shape[2], -1)).all(-1)[..., None]
                x = x.square().sum(-1)
            axes = (0, 2) if name in door.frequencies else (0, *range(2, x.ndim))
            total[name] = total.get(name, 0) + (x * there).sum(axes)
            count[name] = count.get(name, 0) + there.sum(axes)
    means = {k: total[k] / count[k].clamp(min=1) for k in total}
    return {k: v.sqrt() if k in door.frequencies else v for k, v in means.items()}


def at_level(x: Tensor, level: Tensor, modality: str) -> Tensor:
    """A baseline of the shape of x (1, epoch, member, …) at the level of a stage: a field signal keeps its phases, so that its power alone differs."""
    import torch

    if modality == "field":
        size = x.square().sum(-1, keepdim=True).sqrt()
        return torch.where(size > 0, x / size.clamp(min=1e-12), torch.zeros_like(x)) * level[:, None, :, None]
    return level.view(1, 1, -1, *[1] * (x.ndim - 3)).expand_as(x).clone()


def matched(door: Door, grid: WindowGrid, rows: NDArray[np.int64], first: int, n: int) -> tuple[Tensor, ...]:
    """Inputs (match, epoch, …) of the up to `n` of `rows` that are nearest in time to each epoch of the door, which begins with epoch `first`."""
    import torch

    from brainmu.models.door import door_inputs

    # An epoch that is explained is no match, even where it was named and is of another stage itself.
    rows = rows[(rows < first) | (rows >= first + len(door.times))]
    if not len(rows):
        raise MissingDataError(f"{door.recording}: no epoch is left to match those at {door.times[0]:g} s: use baseline='zero', or explain fewer epochs")
    nearest = [rows[np.argsort(np.abs(rows - k), kind="stable")[:n]] for k in range(first, first + len(door.times))]
    of = {int(k): door_inputs(grid, int(k), int(k) + 1, door.frequencies)[0] for k in np.unique(np.concatenate(nearest))}
    return tuple(torch.stack([torch.cat([of[int(near[r])][name] for near in nearest]) for r in range(len(nearest[0]))]) for name in door.names)


def baseline_of(name: str, answer: Answer, columns: NDArray[np.intp]) -> Baseline:
    """The baseline called `name`: "zero", "stage_mean" or "matched", the latter two also as "stage_mean:NREM", "matched:NREM".

    Raises
    ------
    InputError
        If the name is another, or its stage is none of the stager's, or the target itself.
    MissingDataError
        If the stager takes no epoch for the stage.
    """
    kind, _, stage = name.partition(":") if isinstance(name, str) else ("", "", "")
    if kind not in BASELINES or (stage and kind == "zero"):
        raise InputError(f"baseline is {name!r}, expected one of {', '.join(BASELINES)}; stage_mean and matched may name a stage (stage_mean:NREM)")
    if kind == "zero":
        return Baseline()
    said = np.where(np.isfinite(answer.proba).all(1), np.nan_to_num(answer.proba, nan=-1.0).argmax(1), -1)
    others = np.setdiff1d(np.arange(len(answer.stages)), columns)
    if stage:
        wanted = target_columns(answer.stages, stage, f"baseline {name!r}: stage")
        if np.intersect1d(wanted, columns).size:
            raise InputError(f"baseline {name!r} is the target itself, expected another of the stager's stages ({' '.join(answer.stages)})")
    elif kind == "stage_mean":
        wanted = others[[np.argmax([(said == k).sum() for k in others])]]
    else:
        wanted = others
    rows = np.flatnonzero(np.isin(said, wanted))
    if not len(rows):
        raise MissingDataError(f"baseline {name!r}: the stager takes no epoch for {stage or 'another stage'}: use baseline='zero', or name another stage")
    named = "" if kind == "matched" and not stage else stage or answer.stages[int(wanted[0])]
    return Baseline(kind, named, rows.astype(np.int64))
