"""Labelled recordings for fine-tuning: windows with their stages, and the part of them that decides when to stop."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from brainmu.core.recording import Recording
from brainmu.errors import InputError, MissingDataError
from brainmu.models.stage_model import StageModel
from brainmu.windows.grid import CacheBudget, WindowGrid

__all__ = ["Labelled", "hold_out", "holds_data", "labelled", "leave_out"]

FEWEST = 20
"""Scored epochs with data that a head is fitted on at least, as boosted trees are."""


@dataclass
class Labelled:
    """A recording's windows and their stage codes (n,); negative where unscored."""

    subject: str
    grid: WindowGrid
    codes: NDArray[np.int64]


def labelled(model: StageModel, recording: Recording, labels: str, budget: CacheBudget | None = None) -> Labelled:
    """The windows of `recording` that the hypnogram `labels` covers, in the model's epochs and stages; features are kept as far as `budget` goes.

    Raises
    ------
    MissingDataError
        If there is no such hypnogram, it does not meet the data, or scores nothing.
    InputError
        If its stages cannot be brought to the model's.
    """
    hypnogram = recording.hypnogram(labels)
    wanted = model.config.stages
    if hypnogram.stage_set != wanted:
        if wanted != "rodent3":
            raise InputError(f"{recording.id}: label {labels!r} holds {' '.join(hypnogram.stages)}, which cannot be refined to {wanted}: pass stages='rodent3'")
        hypnogram = hypnogram.as_rodent3()
    epoch = model.config.epoch
    count = int(np.floor((hypnogram.stop - hypnogram.start) / epoch + 1e-6))
    if count < 1:
        raise MissingDataError(f"{recording.id}: label {labels!r} lasts {hypnogram.stop - hypnogram.start:g} s, shorter than one epoch of {epoch:g} s")
    c = model.encoder.config
    grid = WindowGrid(recording, epoch, hypnogram.start, count, kinds=model.config.kinds, patch=c.patch, bin=c.bin, cache=budget or CacheBudget(1 << 28))
    first, last = recording.start, recording.stop
    if hypnogram.stop <= first or hypnogram.start >= last:
        raise MissingDataError(
            f"{recording.id}: label {labels!r} spans {hypnogram.start:g}-{hypnogram.stop:g} s, the data {first:g}-{last:g} s: they do not meet"
        )
    codes = hypnogram.at(grid.times + epoch / 2).astype(np.int64)
    if not (codes >= 0).any():
        raise MissingDataError(f"{recording.id}: no epoch of label {labels!r} is scored")
    return Labelled(recording.subject or recording.id, grid, codes)


def holds_data(grid: WindowGrid) -> NDArray[np.bool_]:
    """Which windows (n,) hold anything a model reads; their features are kept where there is room."""
    out = np.zeros(len(grid), dtype=bool)
    for first in range(0, len(grid), 256):
        for s in grid.batch(slice(first, min(first + 256, len(grid)))).streams:
            out[first + s.rows.numpy()] |= s.valid.flatten(1).any(1).numpy()
    return out


def leave_out(data: list[Labelled], held: list[Labelled], present: list[NDArray[np.bool_]]) -> tuple[int, int]:
    """Make epochs without data unscored, in place; how many scored ones hold data, and how many do not.

    Parameters
    ----------
    data, held : what is trained on, and what decides when to stop
    present : bool (window,) of each, those of `data` first

    Raises
    ------
    MissingDataError
        If fewer than 20 scored epochs hold data.
    """
    n, absent = [0, 0], 0
    for i, (d, ok) in enumerate(zip([*data, *held], present, strict=True)):
        scored, there = d.codes >= 0, ok[: len(d.codes)]
        n[i >= len(data)] += int((scored & there).sum())
        absent += int((scored & ~there).sum())
        d.codes = np.where(there, d.codes, -1)
    names = ", ".join(d.grid.recording.id for d in data[:3])
    if n[0] == 0:
        raise MissingDataError(f"finetune: no scored epoch holds data the model reads ({names}): check the gaps of the signals")
    if sum(n) < FEWEST:
        raise MissingDataError(f"finetune: {sum(n)} scored epochs hold data ({names}), expected at least {FEWEST} to fit a stager: check the labels' times")
    return sum(n), absent


def hold_out(data: list[Labelled], stop_on: str, share: float, guard: float, seed: int) -> tuple[list[Labelled], list[Labelled], list[str]]:
    """What is trained on, what decides when to stop, and a sentence that says so; see :class:`~brainmu.train.finetuning.FinetuneConfig`.

    Raises
    ------
    InputError
        If what `stop_on` names cannot be held out.
    """
    subjects = sorted({d.subject for d in data})
    by = stop_on if stop_on != "auto" else "subjects" if len(subjects) >= 4 else "time" if len(subjects) == 1 else "none"
    if by == "none" or share == 0:
        few = stop_on == "auto" and share > 0
        why = f"{len(subjects)} subjects are too few to spare one (stop_on: subjects does)" if few else "nothing was to be held out"
        return data, [], [f"All steps were taken: {why}."]
    if by == "subjects" and len(subjects) < 2:
        raise InputError(f"finetune: stop_on is 'subjects', but all recordings are of {subjects[0]}: add subjects, or pass stop_on 'time' or 'none'")
    training, held = _by_subject(data, subjects, share, seed) if by == "subjects" else _by_time(data, share, guard)
    problem = _unfit(data, training, held)
    if problem and stop_on != "auto":
        raise InputError(f"finetune: stop_on is {by!r}, but {problem}: add labels, lower guard, or pass stop_on 'none'")
    if problem:
        return data, [], [f"All steps were taken: {problem}, so nothing was held out."]
    if by == "subjects":
        return training, held, [f"Early stopping on held-out subjects: {', '.join(sorted({d.subject for d in held}))}."]
    return training, held, [f"Early stopping on the end of each recording, {guard:g} s after the part trained on: that says nothing of new animals."]


def _by_subject(data: list[Labelled], subjects: list[str], share: float, seed: int) -> tuple[list[Labelled], list[Labelled]]:
    n = int(np.clip(round(share * len(subjects)), 1, max(1, len(subjects) - 2)))
    held = {subjects[i] for i in np.random.default_rng([seed, 3]).permutation(len(subjects))[:n]}
    return [d for d in data if d.subject not in held], [d for d in data if d.subject in held]


def _by_time(data: list[Labelled], share: float, guard: float) -> tuple[list[Labelled], list[Labelled]]:
    """The beginning of each recording, and its last share; a recording too short for both is trained on."""
    training, held = [], []
    for d in data:
        last = round(share * len(d.codes))
        first = len(d.codes) - last - int(np.ceil(guard / d.grid.window))
        if last < 1 or first < 1:
            training.append(d)
            continue
        training.append(replace(d, codes=d.codes[:first]))
        g = d.grid
        end = WindowGrid(g.recording, g.window, float(g.times[-last]), last, statistics=g.statistics, patch=g.patch, bin=g.window / g.n_bins, cache=g.budget)
        held.append(replace(d, grid=end, codes=d.codes[-last:]))
    return training, held


def _unfit(data: list[Labelled], training: list[Labelled], held: list[Labelled]) -> str:
    """Why a split cannot decide when to stop; empty where it can."""
    if not held:
        return "the recordings are too short to hold out their end"
    if not _scorable(held):
        return "what would be held out has no subject with two stages"
    return "" if _stages(training) == _stages(data) else "holding out would leave a stage without labels to train on"


def _stages(data: list[Labelled]) -> set[int]:
    return {int(k) for d in data for k in np.unique(d.codes[d.codes >= 0])}


def _scorable(data: list[Labelled]) -> bool:
    return any(len(_stages([d for d in data if d.subject == subject])) > 1 for subject in {d.subject for d in data})
