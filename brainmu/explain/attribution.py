"""What a stager used: channel, band, unit and time, with the checks that make a map evidence."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Hypnogram, Recording
from brainmu.core.hypnogram import stage_group
from brainmu.core.metrics import auroc
from brainmu.errors import InputError, MissingDataError
from brainmu.explain.asking import Answer, ask, differentiable, target_columns
from brainmu.explain.bands import BANDS
from brainmu.explain.checks import curves, ranked, similarity, verdict
from brainmu.explain.occlusion import occlude, shifted_odds
from brainmu.explain.parts import Map, Part, door_odds, doors_of, feature_ablation, randomised

if TYPE_CHECKING:
    import xarray as xr

    from brainmu.models import StageModel

__all__ = ["METHODS", "attribute"]

METHODS = ("integrated_gradients", "feature_ablation", "occlusion")
RUN = 8
"""Epochs of one run: neighbours share their context, so a run costs little more than an epoch."""

Progress = Callable[[str, float], None]


def attribute(
    stager: Any, session: Recording, target: str = "REM", *, method: str | None = None, max_epochs: int = 32, shifts: int = 2, check: bool = True,
    control: Any = None, labels: str | None = None, epochs: Sequence[int] | None = None, seed: int = 0, progress: Progress | None = None,
) -> xr.Dataset:  # fmt: skip
    """What the stager used to tell `target` from the other stages.

    Parameters
    ----------
    stager : SleepStager or StageModel
    session : Recording or Session
    target : str
        A stage; WAKE, NREM and REM also name groups of AASM stages. Epochs that the stager takes for it are explained.
    method : {"integrated_gradients", "feature_ablation", "occlusion"} or None
        Integrated gradients need an encoder inside the stager, and so does ablation of one channel's band or one unit at a time; occlusion
        asks any stager again with one channel's band shifted in time. None takes the first where it can.
    max_epochs : int
        With an encoder: at most this many epochs, in runs of eight spread over the recording.
    shifts : int
        Occlusion: random shifts that are averaged.
    check : bool
        Check whether the map is true; a map that fails is marked (``attrs["verdict"]``). Deletion and insertion must go better in its order than
        in random ones; with an encoder, the same network with random weights must show another map; and where the session is scored, the stager
        must know the target.
    control : SleepStager, StageModel or None
        A stager fitted to shuffled labels: the map must differ from its map of the same epochs. Needs an encoder.
    labels : str or None
        Hypnogram that the stager's skill is checked against; the only one of the session where None, if there is one.
    epochs : sequence of int or None
        Which epochs to explain, whatever the stager takes them for (to compare stagers); None: those it takes for the target.
    seed : int

    Returns
    -------
    xr.Dataset
        One variable a stream, in log odds of the target: field signals (time, channel, band), feature streams (epoch, channel),
        spikes (epoch, unit). ``attrs``: method, target, n_epochs, completeness_error (median over runs), steps; of the checks
        deletion_auc, insertion_auc and the same in random order, difference, randomised_weights_correlation,
        randomised_labels_correlation, skill (AUROC), verdict ("passed", or "failed: " and why).

    Raises
    ------
    MissingDataError
        If the stager takes no epoch for the target.
    InputError
        If the target or the method does not fit the stager.

    Examples
    --------
    >>> maps = attribute(stager, session, target="REM")  # doctest: +SKIP
    >>> maps["lfp"].mean("time_lfp").to_pandas()  # doctest: +SKIP

    References
    ----------
    Sundararajan et al. (2017) ICML; Adebayo J et al. (2018) Sanity checks for saliency maps. NeurIPS.
    """
    model = differentiable(stager)
    method = _method(stager, model, method)
    if control is not None and (model is None or differentiable(control) is None or method == "occlusion"):
        raise InputError("control compares maps of two encoders on the same epochs: fit both with method='encoder', and do not use occlusion")
    say = progress or (lambda _label, _fraction: None)
    say("stage", 0.0)
    answer = ask(stager, session)
    columns = target_columns(answer.stages, target)
    taken = _taken(session, answer, columns, target, epochs)
    rng = np.random.default_rng(seed)
    attrs: dict[str, Any] = {"recording": session.id, "target": target, "method": method, "unit": "log odds", "stages": list(answer.stages)}
    if method == "occlusion":
        maps = occlude(stager, session, answer, columns, shifts, rng, lambda f: say("occlude", f))
        chosen = np.flatnonzero(taken)
        maps = {k: (v[chosen], keys, modality) for k, (v, keys, modality) in maps.items()}
        attrs |= {"n_epochs": len(chosen), "shifts": shifts}
        if check:
            say("check", 0.0)
            odds = shifted_odds(stager, session, answer, columns, chosen, rng)
            attrs |= _curves(odds, maps, 3, 2, rng)
    else:
        assert model is not None
        runs = _runs(taken, max_epochs)
        maps, found = _by_encoder(model, session, runs, columns, method, lambda f: say(method, f))
        chosen = np.concatenate([np.arange(a, b) for a, b in runs])
        attrs |= {"n_epochs": len(chosen), **found}
        if check:
            say("check", 0.0)
            attrs |= _curves(_door_odds(model, session, runs, columns), maps, 8, 5, rng)
            random, _ = _by_encoder(randomised(model, seed), session, runs, columns, method, lambda f: say("check", f), quick=True)
            attrs["randomised_weights_correlation"] = similarity(maps, random)
        if control is not None:
            other = differentiable(control)
            assert other is not None
            shuffled, _ = _by_encoder(other, session, runs, target_columns(tuple(other.stages), target), method, lambda f: say("control", f), quick=True)
            attrs["randomised_labels_correlation"] = similarity(maps, shuffled)
    if check:
        attrs |= _skill(session, labels, answer, columns, target)
        attrs["verdict"] = verdict(attrs)
    attrs["beats_random"] = int(attrs["beats_random"]) if "beats_random" in attrs else None
    return _dataset(maps, answer, chosen, {k: v for k, v in attrs.items() if v is not None})


def _taken(session: Recording, answer: Answer, columns: NDArray[np.intp], target: str, epochs: Sequence[int] | None) -> NDArray[np.bool_]:
    """Which epochs are explained."""
    there = np.isfinite(answer.proba).all(1)
    if epochs is None:
        taken = np.isin(np.nan_to_num(answer.proba, nan=-1.0).argmax(1), columns) & there
        if not taken.any():
            raise MissingDataError(f"{session.id}: the stager takes no epoch for {target}, so there is nothing to explain: choose another target")
        return taken
    rows = np.asarray(epochs, dtype=np.int64)
    if rows.ndim != 1 or not len(rows) or rows.min() < 0 or rows.max() >= len(there) or not there[rows].all():
        raise InputError(f"{session.id}: epochs are to be indices with data in 0..{len(there) - 1}")
    return np.isin(np.arange(len(there)), rows)


def _method(stager: Any, model: StageModel | None, method: str | None) -> str:
    method = ("integrated_gradients" if model is not None else "occlusion") if method is None else method
    if method not in METHODS:
        raise InputError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    if method != "occlusion" and model is None:
        raise InputError(f"{stager!r} has nothing to differentiate: fit it with method='encoder', or use method='occlusion'")
    if method == "integrated_gradients" and model is not None and model.encoder.config.spike_tokens:
        raise InputError("this encoder has a token for each spike, and integrated gradients do not add up where tokens vanish: use method='feature_ablation'")
    return method


def _by_encoder(
    model: StageModel, session: Recording, runs: list[tuple[int, int]], columns: NDArray[np.intp], method: str, report: Callable[[float], None],
    quick: bool = False,
) -> tuple[Map, dict[str, Any]]:  # fmt: skip
    """A map by one of the methods that look into the encoder, and what there is to say of it."""
    if method == "feature_ablation":
        return feature_ablation(model, session, runs, columns, report), {}
    from brainmu.explain.gradients import integrate

    if quick:
        return integrate(model, session, runs, columns, report, steps=((1, 32),))[0], {}
    maps, errors, steps = integrate(model, session, runs, columns, report)
    return maps, {"completeness_error": float(np.median(errors)), "steps": steps}


def _curves(odds: Callable[..., NDArray[np.float64]], maps: Map, steps: int, orders: int, rng: np.random.Generator) -> dict[str, Any]:
    found = curves(odds, ranked(maps), steps, orders, rng)
    return {k: v for k, v in found.items() if k not in ("deletion", "insertion")}


def _door_odds(
    model: StageModel, session: Recording, runs: list[tuple[int, int]], columns: NDArray[np.intp]
) -> Callable[[Sequence[Collection[Part]]], NDArray[np.float64]]:  # fmt: skip
    """A function from sets of parts to the mean log odds (set,) of the target without them, over the epochs of the runs."""

    def odds(sets: Sequence[Collection[Part]]) -> NDArray[np.float64]:
        return np.concatenate([door_odds(door, columns, sets) for door in doors_of(model, session, runs)], axis=1).mean(1)

    return odds


def _skill(session: Recording, labels: str | None, answer: Answer, columns: NDArray[np.intp], target: str) -> dict[str, float]:
    """AUROC of the log odds against the scored target; nothing where the session is not scored, or holds no such stage."""
    scored = {k: v for k, v in session.labels.items() if isinstance(v, Hypnogram)}
    if labels is None and len(scored) != 1:
        return {}
    h = session.hypnogram(labels)
    codes = h.at(answer.times + answer.epoch / 2)
    there = (codes >= 0) & np.isfinite(answer.proba).all(1)
    group = stage_group(target)
    is_target = np.array([s in group for s in h.stages])[np.maximum(codes, 0)][there]
    value = auroc(answer.log_odds(columns)[there], is_target) if there.any() else float("nan")
    return {"skill": value} if np.isfinite(value) else {}


def _runs(taken: NDArray[np.bool_], most: int) -> list[tuple[int, int]]:
    """Runs of up to `RUN` consecutive target epochs, spread evenly over the recording, `most` epochs in all."""
    if most < 1:
        raise InputError(f"max_epochs is {most}, expected at least 1")
    edge = np.flatnonzero(np.diff(np.r_[False, taken, False].astype(np.int8))).reshape(-1, 2)
    pieces = [(i, min(i + RUN, int(b))) for a, b in edge for i in range(int(a), int(b), RUN)]
    n = max(1, min(len(pieces), most // RUN))
    spread = [pieces[i] for i in np.unique(np.linspace(0, len(pieces) - 1, n).round().astype(int))]
    return [(a, min(b, a + most)) for a, b in spread]


def _dataset(maps: Map, answer: Answer, chosen: NDArray[np.intp], attrs: dict[str, Any]) -> xr.Dataset:
    """Maps as one Dataset; the time of a stream counts from the start of the session, its steps within an epoch evenly."""
    import xarray as xr

    epochs = answer.times[chosen]
    variables = {}
    for name, (values, keys, modality) in maps.items():
        per = len(values) // len(epochs)
        times = (epochs[:, None] + np.arange(per) * (answer.epoch / per)).ravel()
        member = "unit" if modality == "spikes" else f"channel_{name}"
        coords: dict[str, Any] = {f"time_{name}": (f"time_{name}", times, {"unit": "s"}), member: np.array(keys, dtype=object)}
        dims: tuple[str, ...] = (f"time_{name}", member)
        if modality == "field":
            dims = (*dims, "band")
            coords["band"] = np.array(list(BANDS), dtype=object)
        variables[name] = xr.DataArray(values, dims=dims, coords=coords, attrs={"unit": "log odds", "modality": modality})
    return xr.Dataset(variables, attrs=attrs | {"epoch": answer.epoch})
