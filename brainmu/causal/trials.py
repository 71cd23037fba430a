"""The effect of randomised trials by intention to treat: every trial counts as it was assigned, delivered or not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.estimand import trial_sentence
from brainmu.causal.grid import EpochGrid
from brainmu.causal.outcome import Outcome, signal_after, signal_unit
from brainmu.causal.randomise import AssignmentScheme, randomisation_null
from brainmu.causal.trial_contrast import UNLIKE, compare_sides
from brainmu.causal.trial_diagnostics import describe_trials, trial_verdict
from brainmu.causal.trial_risk import combine, competing_rules, outcome_of, population_weights, risk_differences
from brainmu.causal.trial_table import SCHEMES, Trials, collect_trials
from brainmu.core.effect import Effect
from brainmu.core.events import EventTable
from brainmu.errors import DesignError

__all__ = ["estimate_trials"]


def estimate_trials(
    grids: Sequence[EpochGrid], exposure: str | Mapping[str, EventTable], outcome: Outcome, *, horizon: float,
    content: str | tuple[str, str] | None = None, contrast: tuple[str, str] | None = None, arms: tuple[str, str] | None = None,
    weight: Literal["animal", "event"] = "animal", competing: str | Mapping[str, str] | None = None,
    scheme: str | None = None, blank: float = 0.0, adjust: Sequence[str] = (), diagnostics: bool = True, draws: int = 10_000, seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Effect:  # fmt: skip
    """Intention-to-treat difference in risks or means of randomised trials, with the randomisation test that replays their log.

    See :func:`brainmu.estimate_effect` for the arguments.

    References
    ----------
    Fisher, The Design of Experiments (1935); Rosenbaum, Observational Studies, ch. 2 (2002).
    """
    if not (np.isfinite(horizon) and horizon > 0):
        raise DesignError(f"horizon is {horizon!r} s, expected a positive number of seconds after the onset")
    if scheme is not None and scheme not in SCHEMES:
        raise DesignError(f"scheme is {scheme!r}, expected one of {', '.join(SCHEMES)}")
    if not 0 <= blank < horizon:
        raise DesignError(f"blank is {blank:g} s, expected at least 0 and less than the horizon of {horizon:g} s")
    if blank and outcome.kind != "signal":
        raise DesignError(f"blank is {blank:g} s: trials leave time out of a signal only ('signal:NAME'), not of '{outcome}'")
    rules, transition = competing_rules(competing), outcome.transition
    one = content if isinstance(content, str) else None
    ledger = collect_trials(grids, exposure, horizon=horizon, scheme=scheme, content=one, contrast=contrast, arms=arms)
    y, analysed = _outcomes(grids, ledger, outcome, rules, blank)
    adjusted: dict[str, dict[str, float]] = {}
    if adjust:
        y, analysed, adjusted = without_covariates(grids, ledger, y, analysed, outcome, adjust, blank)
    if arms is not None or isinstance(content, tuple):
        sides = ("arm", arms) if arms is not None else ("content", content)
        contrasted = compare_sides(ledger, y, analysed, sides, outcome, weight, scheme, grids, blank=blank, diagnostics=diagnostics, draws=draws, seed=seed)
        return _told(contrasted, adjusted)
    _check_arms(grids, ledger, analysed, outcome)
    assignment = AssignmentScheme(ledger, scheme)
    trials = ledger[analysed]
    weights = population_weights(trials, weight)
    rd, risk1, risk0 = risk_differences(trials, y, trials.assigned)
    result = combine(rd, weights, trials, y)
    null, p_value = np.empty(0), float("nan")
    if draws:
        null = randomisation_null(assignment, y, analysed, weights, draws=draws, seed=seed, progress=progress)
        # The mean of the null is not exactly zero for weighted risks; the distance from it is what counts.
        centre = float(null.mean())
        p_value = float((1 + np.sum(np.abs(null - centre) >= abs(result.estimate - centre) - 1e-12)) / (draws + 1))
    report: dict[str, Any] = {}
    if diagnostics:
        report = describe_trials(ledger, trials, analysed, y, rules, weights, rd, risk1, risk0, result, assignment, outcome, p_value, grids, weight, seed)
        report["verdict"] = trial_verdict(result, p_value, report, outcome, horizon)
    animals = f"{len(rd[np.isfinite(rd)])} animals" if len(trials.names) > 1 else f"animal {trials.names[0]}"
    unit = "risk difference" if outcome.kind == "transition" else "s" if outcome.kind == "time" else signal_unit(grids, outcome)
    effect = Effect(
        estimand=trial_sentence(outcome, horizon, one, contrast, animals, blank),
        estimate=result.estimate, low=result.low, high=result.high, p_value=p_value, unit=unit, level="experimental", null=null,
        n_units=int(np.isfinite(rd).sum()), n_events=len(trials),
        assumptions=[
            f"assignment was random as logged ({assignment.name})",
            "a trial's assignment does not change the outcome of another trial (see diagnostics carry_over)",
            "the scoring did not know the assignment, and stimulation artefacts do not alter it",
            *([f"arms differ in how deep {transition.source} is, not in which of it is read (assignment may also change when an animal sleeps)"]
              if outcome.asleep else []),
            *(["trials cut short are missing at random"] if "censor" in rules.values() and np.isin(trials.end, ["next", "end"]).any() else []),
        ],
        diagnostics=report, scale="risk difference" if outcome.kind == "transition" else "difference in means", regime="assign against do not assign",
        population="animals, each counting equally" if weight == "animal" else "trials, each counting equally",
        risk_set=f"trials that start in an epoch scored {transition.source}, or were gated on it", lag=0, blank=blank, horizon=float(horizon),
        n_exposed=int(trials.assigned.sum()), n_transitions=int((trials.end == "target").sum()),
    )  # fmt: skip
    return _told(effect, adjusted)


def without_covariates(
    grids: Sequence[EpochGrid], ledger: Trials, y: NDArray[np.float64], analysed: NDArray[np.bool_], outcome: Outcome, adjust: Sequence[str],
    blank: float,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], dict[str, dict[str, float]]]:  # fmt: skip
    """A signal's values freed of what goes with other signals in the same seconds (light on a pupil), within animals and arms.

    Returns
    -------
    Values and trials that are left, those without a sample of a covariate taken out; and by covariate its slope, and how far the arms differ in it, in SD
    within animals.
    """
    columns = {}
    for name in adjust:
        x = np.full(len(ledger), np.nan)
        for i, g in enumerate(grids):
            mine = ledger.session == i
            if mine.any():
                onset = ledger.onset[mine]
                x[mine] = signal_after(g, dataclasses.replace(outcome, signal=name), onset + blank, ledger.horizon - blank, onset)
        columns[name] = x
    x = np.stack(list(columns.values()), axis=1)
    there = np.isfinite(x).all(1)
    values = np.full(len(ledger), np.nan)
    values[analysed] = y
    keep = analysed & there
    if not keep.any():
        raise DesignError(f"{', '.join(adjust)} has no sample in the seconds after any trial: check the signal's clock")
    x, values, animal, arm = x[keep], values[keep], ledger.animal[keep], ledger.assigned[keep]
    group = 2 * animal + arm
    inside = x - _group_means(x, group)
    slope = np.linalg.lstsq(inside, values - _group_means(values[:, None], group)[:, 0], rcond=None)[0]
    centred = x - _group_means(x, animal)
    spread = np.maximum(centred.std(0), 1e-12)
    apart = (centred[arm].mean(0) - centred[~arm].mean(0)) / spread if arm.any() and not arm.all() else np.full(len(adjust), np.nan)
    found = {name: {"slope": float(b), "arms_apart_sd": float(d)} for name, b, d in zip(adjust, slope, apart)}
    return values - centred @ slope, keep, found


def _group_means(x: NDArray[np.float64], group: NDArray[np.integer]) -> NDArray[np.float64]:
    """Mean (n, column) of each row's group."""
    n = np.maximum(np.bincount(group), 1)
    return np.stack([(np.bincount(group, column) / n)[group] for column in x.T], axis=1)


def _told(effect: Effect, adjusted: Mapping[str, Mapping[str, float]]) -> Effect:
    """The effect with what it was adjusted for, and a warning where assignment moves that itself."""
    if adjusted:
        effect.diagnostics["adjusted"] = dict(adjusted)
        effect.assumptions = [*effect.assumptions, f"assignment does not act through {', '.join(adjusted)}, which the signal is freed of (linearly)"]
        moved = [f"{k} by {v['arms_apart_sd']:+.2f} SD" for k, v in adjusted.items() if abs(v["arms_apart_sd"]) > UNLIKE]
        if moved:
            said = f"the arms differ in {', '.join(moved)}: if assignment moves it, the adjusted difference is only the part that does not pass through it"
            effect.diagnostics["warnings"] = [*effect.diagnostics.get("warnings", []), said]
    return effect


def _outcomes(
    grids: Sequence[EpochGrid], ledger: Trials, outcome: Outcome, rules: Mapping[str, str], blank: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:  # fmt: skip
    """What is averaged for each analysed trial, and which trials of the ledger are."""
    if outcome.kind == "signal":
        return _signal_of(grids, ledger, outcome, blank)
    y, analysed = outcome_of(ledger, rules)
    if outcome.kind == "time":
        # What is lost of the horizon; a target that was reached is weighted for the trials cut short before it.
        y = ledger.horizon - y * (ledger.horizon - ledger.latency[analysed])
    return y, analysed


def _signal_of(grids: Sequence[EpochGrid], ledger: Trials, outcome: Outcome, blank: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The signal after each analysed trial, and which trials of the ledger are at risk and have one."""
    values = np.full(len(ledger), np.nan)
    for i, g in enumerate(grids):
        mine = ledger.session == i
        if mine.any():
            onset = ledger.onset[mine]
            values[mine] = signal_after(g, outcome, onset + blank, ledger.horizon - blank, onset)
    analysed = ledger.at_risk & np.isfinite(values)
    if ledger.at_risk.any() and not analysed.any():
        raise DesignError(
            f"{outcome.quantity} has no sample within {ledger.horizon:g} s of any of {int(ledger.at_risk.sum())} trials: check the signal's clock"
        )
    return values[analysed], analysed


def _check_arms(grids: Sequence[EpochGrid], ledger: Trials, analysed: NDArray[np.bool_], outcome: Outcome) -> None:
    transition = outcome.transition
    reached = (np.isin(ledger.stage, list(transition.landed)) & ~ledger.at_risk).mean()
    outside = (ledger.stage == "UNS").mean()
    # Trials at random times find the target as often as the animals are in it; twice as near to always is no chance.
    landed = np.concatenate([np.isin(np.array(g.hypnogram.stages)[g.hypnogram.codes[g.scored]], list(transition.landed)) for g in grids])
    usual = float(landed.mean()) if len(landed) else 0.0
    if reached > max(0.5, 0.5 + 0.5 * usual) or outside > 0.5:
        what = f"{reached:.0%} start when {transition.target} has already been reached" if reached > 0.5 else f"{outside:.0%} start where nothing is scored"
        raise DesignError(
            f"of {len(ledger)} trials {what}, so the exposure lies after the outcome: expected onsets in {transition.source}; is the ledger on another clock?"
        )
    n1, n0 = int((analysed & ledger.assigned).sum()), int((analysed & ~ledger.assigned).sum())
    if not n1 or not n0:
        arm = "assigned" if not n1 else "control"
        raise DesignError(
            f"the {arm} arm is empty: {n1} assigned and {n0} control trials start in {transition.source} (of {len(ledger)} logged), expected some of both"
        )
    if outcome.kind != "signal" and not (ledger.end[analysed] == "target").any():
        landing = "another stage" if transition.target == "any" else transition.target
        raise DesignError(f"no trial of {int(analysed.sum())} reaches {landing} within {ledger.horizon:g} s, expected some: use a longer horizon")
