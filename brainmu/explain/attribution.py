"""What a stager used: channel, band, unit and time, with the checks that make a map evidence."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Hypnogram, Recording
from brainmu.core.hypnogram import stage_group
from brainmu.core.limits import whole
from brainmu.core.metrics import auroc
from brainmu.errors import InputError, MissingDataError
from brainmu.explain.asking import Answer, ask, beyond_the_network, differentiable, epoch_indices, explains, target_columns
from brainmu.explain.baselines import Baseline, baseline_of
from brainmu.explain.checks import agreement, check_planted, curves, ranked, recovery, similarity, verdict
from brainmu.explain.datasets import as_dataset, with_rollout
from brainmu.explain.event_maps import attribute_events
from brainmu.explain.occlusion import occlude, shifted_odds
from brainmu.explain.parts import Doors, Map, randomised
from brainmu.explain.runs import Asked, map_of, odds_of, runs_of
from brainmu.explain.saved import Saved
from brainmu.replay.detection import ReplayDetector

if TYPE_CHECKING:
    import xarray as xr

    from brainmu.models import StageModel

__all__ = ["METHODS", "attribute"]

METHODS = ("integrated_gradients", "gradient_shap", "feature_ablation", "layer_conductance", "occlusion")

Progress = Callable[[str, float], None]


def attribute(
    stager: Any, session: Recording, target: str = "REM", *, method: str | None = None, max_epochs: int = 32, shifts: int = 2, check: bool = True,
    control: Any = None, labels: str | None = None, epochs: Sequence[int] | None = None, seed: int = 0, progress: Progress | None = None,
    baseline: str = "zero", tap: str = "summary", rollout: bool = False, parts: str | Path | None = None, planted: Iterable[tuple[str, ...]] | None = None,
) -> xr.Dataset:  # fmt: skip
    """What the stager used to tell `target` from the other stages.

    Parameters
    ----------
    stager : SleepStager or StageModel
        Or a ReplayDetector: then `target` is "event" or a content, the events it finds are explained (`max_epochs` of them), by occlusion, as
        :func:`brainmu.explain.attribute_events` does.
    session : Recording or Session
    target : str
        A stage; WAKE, NREM and REM also name groups of AASM stages. Epochs that the stager takes for it are explained.
    method : {"integrated_gradients", "gradient_shap", "feature_ablation", "layer_conductance", "occlusion"} or None
        All but occlusion need an encoder inside the stager: gradients on the way from the baseline to the recording, at even or at random points;
        one channel's band or one unit at a time set to the baseline; or what flows through each activation at a `tap`. Occlusion asks any stager
        again with one channel's band shifted in time. None takes the first where it can.
    max_epochs : int
        With an encoder: at most this many epochs, in runs of eight spread over the recording.
    shifts : int
        Occlusion: random shifts that are averaged.
    check : bool
        Check whether the map is true; a map that fails is marked (``attrs["verdict"]``). Deletion and insertion must go better in its order than
        in random ones; with an encoder, the same network with random weights must show another map; and where the session is scored, the stager
        must know the target. Beside that stands how far another method ranks the parts alike: feature ablation, or integrated gradients beside it.
    control : SleepStager, StageModel or None
        A stager fitted to shuffled labels: the map must differ from its map of the same epochs. Needs an encoder.
    labels : str or None
        Hypnogram that the stager's skill is checked against; the only one of the session where None, if there is one.
    epochs : sequence of int or None
        Which epochs to explain, whatever the stager takes them for (to compare stagers); None: those it takes for the target.
    seed : int
    baseline : {"zero", "stage_mean", "matched"}
        What the input is compared with. "zero": nothing, which is the recording's median and each unit's expected count. "stage_mean": the mean level of
        another stage (of power, for field signals), the commonest or a named one ("stage_mean:NREM"). "matched": the epoch nearest in time that the stager
        takes for another stage, or for a named one; gradient SHAP draws from the nearest eight. Not for occlusion.
    tap : str
        Layer conductance: one of :func:`brainmu.explain.tap_names`.
    rollout : bool
        Put attention rollout beside the map, as variables ``attention_…`` (share of attention). It is not an attribution of the output, the target does not
        enter, and ``attrs["attention_note"]`` says how much of it is there with random weights too.
    parts : path or None
        A folder in which each part of the work is kept as it is done. The same call goes on from there after it was cut off.
    planted : iterable of (stream, channel, band) or (stream, unit), or None
        Where the answer is known, what the simulator used: the map is scored against it, see :func:`brainmu.explain.recovery`.

    Returns
    -------
    xr.Dataset
        One variable a stream, in log odds of the target: field signals (time, channel, band), feature streams (epoch, channel), spikes (epoch, unit), with
        the region of each channel and unit beside it where it is known (``region_lfp``, ``region_unit``); layer conductance has one variable, the tap,
        (epoch, latent, dimension) or (epoch, dimension). ``attrs``: method, target,
        baseline, n_epochs, completeness_error (median over runs), steps, share_through_tap; explains (which log odds: an encoder stager's decoding
        over the night is not part of them) and network_agreement (share of epochs where that makes no difference); of the checks deletion_auc,
        insertion_auc and the same in random order, their curves, difference, randomised_weights_correlation, randomised_labels_correlation,
        agreement (rank correlation with the map by agreement_with, and its 95 % limits over epochs, agreement_low and agreement_high), skill (AUROC),
        recovery (AUROC, where `planted` says what there is to find), verdict ("passed", or "failed: " and why).

    Raises
    ------
    MissingDataError
        If the stager takes no epoch for the target, or for the stage of the baseline.
    InputError
        If the target, the method, the baseline or the tap does not fit the stager, or `parts` holds those of another question.

    Examples
    --------
    >>> maps = attribute(stager, session, target="REM")  # doctest: +SKIP
    >>> maps["lfp"].mean("time_lfp").to_pandas()  # doctest: +SKIP

    References
    ----------
    Sundararajan et al. (2017) ICML; Adebayo J et al. (2018) Sanity checks for saliency maps. NeurIPS.
    """
    if isinstance(stager, ReplayDetector):
        if method not in (None, "occlusion") or baseline != "zero" or rollout or control is not None or epochs is not None:
            raise InputError("events of a ReplayDetector are explained by occlusion alone: leave method, baseline, rollout, control and epochs out")
        return attribute_events(
            stager, session, target, max_events=max_epochs, shifts=shifts, check=check, seed=seed, progress=progress, planted=planted, parts=parts
        )
    model = differentiable(stager)
    method = _method(stager, model, method, control)
    for name, value in (("max_epochs", max_epochs), ("shifts", shifts)):
        whole(name, value, 1)
    whole("seed", seed, 0)
    if check and labels is not None:
        session.hypnogram(labels)  # refuses a name that is none before the work
    if method == "layer_conductance":
        from brainmu.explain.taps import tap_module

        assert model is not None
        tap_module(model, tap)
    if planted is not None:
        planted = check_planted(session, planted, shifted=method == "occlusion")
        if method == "occlusion" and any(p[0] == "spikes" and len(p) > 1 for p in planted):
            raise InputError("planted names single units and occlusion shifts all units together: use another method, or 'spikes' for all of them")
        if method == "layer_conductance":
            raise InputError("planted came with layer_conductance, whose map is of the model's own dimensions and not of what was planted: use another method")
    say = progress or (lambda _label, _fraction: None)
    say("stage", 0.0)
    answer, reads = _answer(stager, session)
    columns = target_columns(answer.stages, target)
    taken = _taken(session, answer, columns, target, epochs)
    against = baseline_of(baseline, answer, columns)
    if method == "occlusion" and (baseline != "zero" or rollout):
        what = "rollout=True" if rollout else f"baseline={baseline!r}"
        raise InputError(f"{what} came with occlusion, which shifts bands in time and looks into no encoder: leave it out, or use another method")
    attrs: dict[str, Any] = {"recording": session.id, "target": target, "method": method, "unit": "log odds", "stages": list(answer.stages), **reads}
    question = {"recording": session.id, "target": target, "method": method, "max_epochs": max_epochs, "shifts": shifts, "seed": seed, "baseline": baseline,
                "tap": tap if method == "layer_conductance" else "", "epochs": None if epochs is None else np.asarray(epochs).tolist(),
                "control": None if control is None else _identity(control)}  # fmt: skip
    saved, rng = Saved(parts, question, answer.proba), np.random.default_rng(seed)
    if method == "occlusion":
        chosen = np.flatnonzero(taken)
        maps = occlude(stager, session, answer, columns, chosen, shifts, rng, saved, lambda f: say("occlude", f))
        attrs |= {"shifts": shifts}
        if check:
            say("check", 0.0)
            attrs |= curves(shifted_odds(stager, session, answer, columns, chosen, rng, saved), ranked(maps), 3, 2, rng)
    else:
        assert model is not None
        runs = runs_of(taken, max_epochs)
        chosen = np.concatenate([np.arange(a, b) for a, b in runs])
        if epochs is not None and len(chosen) < taken.sum():
            attrs["epochs_left_out"] = int(taken.sum()) - len(chosen)
        attrs |= {"baseline": baseline} | ({"baseline_stage": against.stage} if against.stage else {})
        doors, asked = Doors(model, session, runs, against, beyond_the_network(stager)[0]), Asked(method, tap, seed)
        read = doors.streams()
        unread = [p[0] for p in planted or () if p[0] not in read]
        if unread:
            raise InputError(f"planted {unread[0]!r} is no stream that this stager reads: it reads {', '.join(read)}")
        maps, found = map_of(doors, columns, asked, saved, "map", lambda f: say(method, f))
        attrs |= found
        random = Doors(randomised(model, seed), session, runs, against, statistics=doors.grid.statistics) if check else None
        if random is not None:
            if method != "layer_conductance":
                say("deletion and insertion", 0.0)
                attrs |= curves(odds_of(doors, columns, saved, "curves", lambda f: say("deletion and insertion", f)), ranked(maps), 8, 5, rng)
            other, _ = map_of(random, columns, asked, saved, "random", lambda f: say("randomised weights", f), quick=True)
            attrs["randomised_weights_correlation"] = similarity(maps, other)
            beside = _other_method(method, model)
            if beside is not None:
                say(beside, 0.0)
                second, _ = map_of(doors, columns, Asked(beside, tap, seed), saved, "beside", lambda f: say(beside, f), quick=True)
                attrs |= _agreement(beside, *(as_dataset(m, answer.times[chosen], answer.epoch, {}, session) for m in (maps, second)), seed)
        if control is not None:
            attrs["randomised_labels_correlation"] = _control(control, session, runs, against, target, asked, maps, saved, lambda f: say("control", f))
    attrs["n_epochs"] = len(chosen)
    if check:
        attrs |= _skill(session, labels, answer, columns, target)
        attrs["verdict"] = verdict(attrs)
    attrs["beats_random"] = int(attrs["beats_random"]) if "beats_random" in attrs else None
    out = as_dataset(maps, answer.times[chosen], answer.epoch, {k: v for k, v in attrs.items() if v is not None}, session)
    if planted is not None:
        out.attrs |= {"recovery": recovery(out, planted), "planted": ["/".join(p) for p in planted]}
    if rollout:
        say("attention rollout", 0.0)
        out = with_rollout(out, doors, random, chosen, answer)
    return out


def _other_method(method: str, model: StageModel) -> str | None:
    """The method whose map is held against one by `method`: one that takes parts away for gradients, and the other way round. None where there is none."""
    if method == "layer_conductance":
        return None
    if method != "feature_ablation":
        return "feature_ablation"
    return None if model.encoder.config.spike_tokens else "integrated_gradients"


def _agreement(method: str, maps: xr.Dataset, other: xr.Dataset, seed: int) -> dict[str, Any]:
    """How far another method ranks the parts alike; nothing where there are fewer than three."""
    try:
        found = agreement(maps, other, seed=seed)
    except InputError:
        return {}
    if not np.isfinite(found["correlation"]):
        return {}
    return {"agreement_with": method, "agreement": found["correlation"], "agreement_low": found["low"], "agreement_high": found["high"]}


def _answer(stager: Any, session: Recording) -> tuple[Answer, dict[str, Any]]:
    """What is explained, epoch by epoch, and in words: calibrated where that is possible, else the network alone, and how far it agrees with the stager."""
    answer = ask(stager, session)
    if not beyond_the_network(stager)[1]:
        return answer, {"explains": explains(stager)}
    final = np.asarray(stager.predict(session, start=answer.start).proba, dtype=np.float64)[: len(answer.proba)]
    there = np.isfinite(answer.proba[: len(final)]).all(1) & np.isfinite(final).all(1)
    same = float((answer.proba[: len(final)].argmax(1) == final.argmax(1))[there].mean()) if there.any() else float("nan")
    return answer, {"explains": explains(stager), "network_agreement": same}


def _identity(control: Any) -> str:
    """A digest of a stager's weights: parts of a map against one control do not serve another."""
    model = differentiable(control)
    assert model is not None
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _control(
    control: Any, session: Recording, runs: list[tuple[int, int]], against: Baseline, target: str, asked: Asked, maps: Map, saved: Saved,
    report: Callable[[float], None],
) -> float:  # fmt: skip
    """Rank correlation of the map with that of a stager fitted to shuffled labels."""
    other = differentiable(control)
    assert other is not None
    doors = Doors(other, session, runs, against, beyond_the_network(control)[0])
    return similarity(maps, map_of(doors, target_columns(tuple(other.stages), target), asked, saved, "control", report, quick=True)[0])


def _taken(session: Recording, answer: Answer, columns: NDArray[np.intp], target: str, epochs: Sequence[int] | None) -> NDArray[np.bool_]:
    """Which epochs are explained."""
    there = np.isfinite(answer.proba).all(1)
    if epochs is None:
        taken = np.isin(np.nan_to_num(answer.proba, nan=-1.0).argmax(1), columns) & there
        if not taken.any():
            raise MissingDataError(f"{session.id}: the stager takes no epoch for {target}, so there is nothing to explain: choose another target")
        return taken
    return np.isin(np.arange(len(there)), epoch_indices(session, epochs, there))


def _method(stager: Any, model: StageModel | None, method: str | None, control: Any) -> str:
    method = ("integrated_gradients" if model is not None else "occlusion") if method is None else method
    if method not in METHODS:
        raise InputError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
    if method != "occlusion" and model is None:
        raise InputError(f"{stager!r} has nothing to differentiate: fit it with method='encoder', or use method='occlusion'")
    if method not in ("occlusion", "feature_ablation") and model is not None and model.encoder.config.spike_tokens:
        words = method.replace("_", " ")
        raise InputError(f"this encoder has a token for each spike, and {words} does not add up where tokens vanish: use method='feature_ablation'")
    if control is not None and (model is None or differentiable(control) is None or method == "occlusion"):
        raise InputError("control compares maps of two encoders on the same epochs: fit both with method='encoder', and do not use occlusion")
    return method


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
