"""Interventions on activations: ablate them, project a direction out, or patch in those of another run. Effects in the model only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainmu.core import Effect, Recording
from brainmu.core.limits import whole
from brainmu.core.metrics import bootstrap_interval
from brainmu.core.recording import as_list
from brainmu.errors import InputError, MissingDataError
from brainmu.explain.asking import Answer, epoch_indices, explains, target_columns
from brainmu.explain.readouts import placebo_p, summarise_animals

if TYPE_CHECKING:
    from torch import Tensor

    from brainmu.explain.taps import Inside

__all__ = ["HOW", "ablate", "patch"]

HOW = ("mean", "resample", "project")
_REFERENCE = 512
"""Epochs that means, directions and resampled activations are taken from."""


def ablate(
    stager: Any, session: Recording | Sequence[Recording], tap: str = "context", how: str = "mean", *, target: str = "REM",
    direction: ArrayLike | None = None, epochs: Sequence[int] | None = None, max_epochs: int = 256, placebos: int = 19, seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Effect:  # fmt: skip
    """What the model loses when its activations at a tap carry less.

    Read out is the log odds of `target`, in the epochs whose activations are replaced; beside them changes of equal norm in random directions.

    Parameters
    ----------
    stager : SleepStager or StageModel
        With an encoder.
    session : Recording or Session, or several
    tap : str
        One of :func:`brainmu.explain.tap_names`: "window.0", …, "latents", "summary", "context.0", …, "context".
    how : {"mean", "resample", "project"}
        Replace by the mean over the recording, by that of a random other epoch, or take out only what lies along `direction`.
    target : str
        A stage; WAKE, NREM and REM also name groups of AASM stages.
    direction : float (width,) or the shape of the tap, or None
        For "project"; None is the difference between the means of target and other epochs.
    epochs : sequence of int or None
        Which epochs; None: those that the stager takes for the target, `max_epochs` of them spread over the recording.
    placebos : int
        Draws of random directions; p cannot be below 1 / (placebos + 1) with one animal.
    seed : int

    Returns
    -------
    Effect
        Level "model", in log odds of the target: change by the ablation beyond that by random changes of equal norm, per epoch; with one
        animal an interval over bouts, otherwise over animals. ``diagnostics``: tap, how, norm, ``change_events`` (epoch,), ``change_placebos``.

    Raises
    ------
    InputError
        If the stager has no encoder, or tap, method, direction or epochs do not fit.
    MissingDataError
        If the stager takes no epoch for the target.

    Examples
    --------
    >>> ablate(stager, session, "summary", "project", target="REM")  # doctest: +SKIP
    """
    if how not in HOW:
        raise InputError(f"how is {how!r}, expected one of {', '.join(HOW)}")
    if direction is not None and how != "project":
        raise InputError(f"a direction came with how={how!r}, expected how='project'")

    def changed(inside: Inside, rows: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        return _ablated(inside, tap, how, rows, direction, target, rng)

    said = {
        "mean": "replaced by their mean over the recording", "resample": "replaced by those of random other epochs",
        "project": f"rid of the direction {'that tells the target from the rest' if direction is None else 'given'}",
    }[how]  # fmt: skip
    pairs = [(s, None) for s in as_list(session)]
    return _measured(stager, pairs, tap, changed, said, target, epochs, max_epochs, placebos, seed, {"how": how}, progress)


def patch(
    stager: Any, session: Recording, source: Recording, tap: str = "context", *, target: str = "REM", epochs: Sequence[int] | None = None,
    max_epochs: int = 256, placebos: int = 19, seed: int = 0, progress: Callable[[str, float], None] | None = None,
) -> Effect:  # fmt: skip
    """How much of the model's answer to `source` comes back when its activations at a tap are put into the run on `session`.

    `session` is an edited copy of `source` (see :func:`brainmu.explain.edits.apply_edits`), or another recording of the same length; the scales
    of `source` serve for both.

    Parameters
    ----------
    epochs : sequence of int or None
        Whose activations are put in; None: those that the stager takes for the target in `source`.

    Returns
    -------
    Effect
        As :func:`ablate`. ``diagnostics["restored"]``: the change as a share of the gap between the two runs, in the same epochs.

    Raises
    ------
    InputError, MissingDataError
        As :func:`ablate`; also if the two have different numbers of epochs.
    """

    def changed(inside: Inside, rows: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
        return clean.activations(tap, rows)

    from brainmu.explain.taps import Inside

    clean = Inside(stager, source)
    said = f"replaced by those of the run on {source.id if source.id != session.id else 'the unedited recording'}"
    return _measured(stager, [(session, clean)], tap, changed, said, target, epochs, max_epochs, placebos, seed, {"how": "patch"}, progress)


def _ablated(
    inside: Inside, tap: str, how: str, rows: NDArray[np.int64], direction: ArrayLike | None, target: str, rng: np.random.Generator
) -> Tensor:  # fmt: skip
    """New activations (row, …)."""
    import torch

    x = inside.activations(tap, rows)
    there = np.flatnonzero(np.isfinite(inside.proba).all(1))
    some = np.sort(rng.permutation(there)[:_REFERENCE])
    if how == "resample":
        return inside.activations(tap, rng.choice(np.setdiff1d(there, rows) if len(there) > len(rows) else there, len(rows)))
    reference = inside.activations(tap, some)
    mean = reference.mean(0)
    if how == "mean":
        return mean.expand_as(x).clone()
    if direction is None:
        is_target = torch.from_numpy(np.isin(inside.proba[some].argmax(1), target_columns(inside.stages, target)))
        if not bool(is_target.any()) or bool(is_target.all()):
            raise MissingDataError(f"no direction tells {target} from other stages: the stager takes {'all' if bool(is_target.all()) else 'no'} epochs for it")
        d = reference[is_target].mean(0) - reference[~is_target].mean(0)
    else:
        d = torch.as_tensor(np.asarray(direction, dtype=np.float32))
        if d.shape not in (x.shape[1:], x.shape[-1:]) or not bool(torch.isfinite(d).all()) or float(d.norm()) == 0:
            shapes = " or ".join(str(tuple(s)) for s in dict.fromkeys((x.shape[1:], x.shape[-1:])))
            raise InputError(f"direction has shape {tuple(d.shape)}, expected a finite one of {shapes}, not zero")
    d = d / d.norm()
    along = tuple(range(1, x.ndim)) if d.shape == x.shape[1:] else (x.ndim - 1,)
    return x - ((x - mean) * d).sum(along, keepdim=True) * d


def _measured(
    stager: Any, pairs: Sequence[tuple[Recording, Inside | None]], tap: str, changed: Callable[..., Tensor], said: str, target: str,
    epochs: Sequence[int] | None, max_epochs: int, placebos: int, seed: int, about: dict[str, Any], progress: Callable[[str, float], None] | None,
) -> Effect:  # fmt: skip
    """The effect of writing new activations at a tap, session by session."""
    from brainmu.explain.taps import Inside

    if placebos < 1:
        raise InputError(f"placebos is {placebos}, expected at least 1: a change without its placebo cannot be judged")
    whole("max_epochs", max_epochs, 1)
    whole("seed", seed, 0)
    changes, draws, bouts, subjects, norms, gaps = [], [], [], [], [], []
    for i, (recording, clean) in enumerate(pairs):
        rng = np.random.default_rng(seed)
        inside = Inside(stager, recording, None if clean is None else clean.grid.statistics)
        if clean is not None and len(clean.proba) != len(inside.proba):
            raise InputError(f"{recording.id}: has {len(inside.proba)} epochs and the source {len(clean.proba)}, expected the same number")
        columns = target_columns(inside.stages, target)
        rows = _rows(recording, (clean or inside).proba, columns, epochs, max_epochs, target)
        x, new = inside.activations(tap, rows), changed(inside, rows, rng)
        before = _odds(inside, inside.proba, columns)[rows]
        changes.append(_odds(inside, inside.with_activations(tap, rows, new), columns)[rows] - before)
        step = (new - x).flatten(1).norm(dim=1)
        found = []
        for r in range(placebos):
            found.append(_odds(inside, inside.with_activations(tap, rows, _elsewhere(x, step, rng)), columns)[rows] - before)
            if progress is not None:
                progress("placebo changes", (i + (r + 1) / placebos) / len(pairs))
        draws.append(np.array(found))
        bouts.append(np.split(np.arange(len(rows)), np.flatnonzero(np.diff(rows) != 1) + 1))
        subjects.append(recording.subject or recording.id)
        norms.append(float(step.median() / x.flatten(1).norm(dim=1).median()))
        if clean is not None:
            gaps.append(float((_odds(clean, clean.proba, columns)[rows] - before).mean()))
    if gaps:
        about = about | {"gap": gaps[0], "restored": float(changes[0].mean()) / gaps[0] if abs(gaps[0]) > 1e-9 else float("nan")}
    return _effect(pairs, tap, said, target, changes, draws, bouts, subjects, norms, about | {"explains": explains(stager)}, seed)


def _rows(
    recording: Recording, proba: NDArray[np.float64], columns: NDArray[np.intp], epochs: Sequence[int] | None, most: int, target: str
) -> NDArray[np.int64]:  # fmt: skip
    there = np.isfinite(proba).all(1)
    if epochs is not None:
        return epoch_indices(recording, epochs, there)
    rows = np.flatnonzero(np.isin(np.nan_to_num(proba, nan=-1.0).argmax(1), columns) & there)
    if not len(rows):
        raise MissingDataError(f"{recording.id}: the stager takes no epoch for {target}: choose another target, or name epochs")
    return rows[np.unique(np.linspace(0, len(rows) - 1, max(1, most)).round().astype(np.int64))]


def _odds(inside: Inside, proba: NDArray[np.float64], columns: NDArray[np.intp]) -> NDArray[np.float64]:
    return Answer(proba, inside.grid.start, inside.grid.window, inside.stages).log_odds(columns)


def _elsewhere(x: Tensor, step: Tensor, rng: np.random.Generator) -> Tensor:
    """`x` (row, …) changed by as much in a random direction."""
    import torch

    away = torch.from_numpy(rng.standard_normal(tuple(x.shape)).astype(np.float32))
    size = away.flatten(1).norm(dim=1)
    return x + away * (step / size).view(-1, *[1] * (x.ndim - 1))


def _effect(
    pairs: Sequence[tuple[Recording, Any]], tap: str, said: str, target: str, changes: list[NDArray[np.float64]], draws: list[NDArray[np.float64]],
    bouts: list[list[NDArray[np.int64]]], subjects: list[str], norms: list[float], about: dict[str, Any], seed: int,
) -> Effect:  # fmt: skip
    beyond = [c - d.mean(0) for c, d in zip(changes, draws)]
    animals, n = sorted(set(subjects)), sum(map(len, changes))
    replicates, value = np.concatenate(draws, axis=1).mean(1), float(np.concatenate(changes).mean())
    if len(animals) > 1:
        each = np.array([np.concatenate([b for b, s in zip(beyond, subjects) if s == a]).mean() for a in animals])
        top = summarise_animals(each, np.random.default_rng(seed))
        estimate, low, high, p, null = top.estimate, top.low, top.high, top.p_value, top.null
        warnings = []
    else:
        clusters = [b[k] for b, runs in zip(beyond, bouts) for k in runs]
        estimate, null = float(np.concatenate(beyond).mean()), replicates - replicates.mean()
        low, high = bootstrap_interval(clusters, lambda some: float(np.concatenate(some).mean()), seed=seed)
        p = placebo_p(value, replicates)
        few = f"the epochs lie in {len(clusters)} bout{'' if len(clusters) == 1 else 's'}"
        alone = f"one animal, and {few}: there is no interval" if len(clusters) < 2 else "one animal: the interval is over its bouts"
        warnings = [f"{alone} and says nothing of other animals" if len(clusters) > 1 else alone]
    ids = ", ".join(r.id for r, _ in pairs)
    return Effect(
        estimand=(
            f"In the model: change of its log odds of {target} in {n} epochs, when their activations at tap {tap} are {said}, "
            f"beyond changes of equal norm in random directions ({ids})"
        ),
        estimate=estimate, low=min(low, estimate), high=max(high, estimate), p_value=p, unit="log odds", level="model", null=null,
        n_units=len(animals), n_events=n,
        assumptions=[
            "it is an effect in the model, never in the brain", "activations put in are ones the layers behind could have met",
        ],
        diagnostics=about | {
            "tap": tap, "target": target, "change_events": np.concatenate(changes), "change_placebos": replicates, "n_bouts": sum(map(len, bouts)),
            "relative_step": float(np.mean(norms)), "warnings": warnings,
        },
        scale="log odds", regime=f"{about['how']} at {tap}", population="animals" if len(animals) > 1 else "epochs", n_exposed=n,
    )  # fmt: skip
