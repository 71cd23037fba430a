"""What stands beside an indirect effect: its parts, who left early, controls, sensitivity to what was left out, warnings, verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from brainmu.causal.grid import EpochGrid, events_of
from brainmu.causal.inference import Estimate, animal_mean, jackknife
from brainmu.causal.leakage import made_from
from brainmu.causal.mediation_model import MediationRows, jackknifed, linear_by_animal, residual_correlation
from brainmu.causal.mediator import Mediator
from brainmu.causal.outcome import Outcome
from brainmu.causal.sensitivity import RELIABILITIES, e_value
from brainmu.causal.trial_risk import outcome_of, risk_differences
from brainmu.causal.trial_table import Trials
from brainmu.core.events import EventTable

__all__ = ["describe_mediation", "mediation_verdict"]

EFFECTS = ("total", "indirect", "direct", "indirect_control", "indirect_assigned", "direct_control", "direct_assigned")
CORRELATIONS = np.round(np.linspace(-0.8, 0.8, 81), 2)
"""Of what is left of mediator and outcome, over which the indirect effect is told."""

FAR = 3.0
"""SD by which assignment moves a mediator so far that it looks like an artefact."""


def describe_mediation(
    grids: Sequence[EpochGrid], ledger: Trials, trials: Trials, rows: MediationRows, parts: dict[str, Estimate], whole: dict[str, float],
    left: list[dict[str, float]], *, what: Mediator, names: Sequence[str], window: float, blank: float, landmark: float, rules: Mapping[str, str],
    unknown: int, lost: Sequence[str], exposure: str | Mapping[str, EventTable], earlier: MediationRows | None,
) -> dict[str, Any]:  # fmt: skip
    """Everything but the number itself, as plain values."""
    line = linear_by_animal(rows)
    ids = np.unique(trials.animal)
    out: dict[str, Any] = {k: parts[k].as_dict() for k in EFFECTS}
    out |= {
        "share_mediated": _share(parts["total"], whole, left),
        "mediator": {"what": what.quantity, "from": blank, "to": window, "shift_sd": parts["mediator_shift"].as_dict(), "per_sd": parts["per_sd"].as_dict()},
        "interaction": parts["interaction"].as_dict(),
        "linear": {k: animal_mean(line[k]).as_dict() for k in ("total", "indirect", "direct")},
        "animals": [
            {"animal": trials.names[j], "trials": int((rows.animal == i).sum()), "assigned": int(rows.assigned[rows.animal == i].sum()),
             "shift_sd": float(line["shift"][i]), "risk_per_sd": float(line["slope"][i]), "indirect": float(line["indirect"][i]),
             "direct": float(line["direct"][i])}
            for i, j in enumerate(ids)
        ],
        "flow": _flow(ledger, trials, landmark), "left_before": _left_before(ledger, landmark), "whole_horizon": _whole(ledger, rules),
        "overlap": _overlap(rows), "negative_controls": _controls(earlier),
        "before_the_onset": {} if what.kind == "column" else parts["first_covariate"].as_dict(),
        "sensitivity": _sensitivity(rows, parts, whole, left, names),
    }  # fmt: skip
    out["flow"]["not_known"] = unknown
    out["warnings"] = [
        *_sample_warnings(rows, lost, unknown), *_reading_warnings(grids, what, window, blank, exposure, out), *_model_warnings(out, parts, landmark),
    ]  # fmt: skip
    return out


def _share(total: Estimate, whole: dict[str, float], left: list[dict[str, float]]) -> dict[str, float]:
    """Indirect over total; only where the total is surely not nothing, since a ratio to nothing says nothing."""
    if not total.p_value < 0.05:
        return {}
    return jackknife(whole["indirect"] / whole["total"], [x["indirect"] / x["total"] for x in left]).as_dict()


def _flow(ledger: Trials, trials: Trials, landmark: float) -> dict[str, Any]:
    out: dict[str, Any] = {}
    early = ledger.own_epoch | (ledger.latency <= landmark + 1e-9)
    for name, of_ledger, of_trials in (("assigned", ledger.assigned, trials.assigned), ("control", ~ledger.assigned, ~trials.assigned)):
        mine = of_ledger & ledger.at_risk
        out[name] = {
            "logged": int(of_ledger.sum()), "at_risk": int(mine.sum()), "left_before": int((mine & early & np.isin(ledger.end, ["target", "exit"])).sum()),
            "cut_short_before": int((mine & early & np.isin(ledger.end, ["next", "end"])).sum()), "analysed": int(of_trials.sum()),
        }  # fmt: skip
    return out


def _left_before(ledger: Trials, landmark: float) -> dict[str, Any]:
    """What assignment does to leaving the stage before the mediator can act on the outcome: those trials are not asked about."""
    early = ledger.own_epoch | (ledger.latency <= landmark + 1e-9)
    rows = ledger.at_risk & ~(early & np.isin(ledger.end, ["next", "end"]))
    t, y = ledger[rows], early[rows].astype(np.float64)
    rd = risk_differences(t, y, t.assigned)[0]
    found = animal_mean(rd[np.isfinite(rd)]) if np.isfinite(rd).any() else Estimate.t(float("nan"), np.nan, 0)
    return {"assigned": float(y[t.assigned].mean()), "control": float(y[~t.assigned].mean())} | found.as_dict()


def _whole(ledger: Trials, rules: Mapping[str, str]) -> dict[str, float]:
    """The intention-to-treat effect from the onset on, of all trials at risk."""
    y, analysed = outcome_of(ledger, rules)
    t = ledger[analysed]
    rd = risk_differences(t, y, t.assigned)[0]
    return animal_mean(rd[np.isfinite(rd)]).as_dict()


def _overlap(rows: MediationRows) -> float:
    """Share of trials whose mediator lies within what their animal's other arm shows."""
    inside = np.zeros(len(rows), dtype=bool)
    for j in range(rows.n_animals):
        for arm in (0.0, 1.0):
            mine, other = ((rows.animal == j) & (rows.assigned == a) for a in (arm, 1 - arm))
            inside[mine] = (rows.m[mine] >= rows.m[other].min()) & (rows.m[mine] <= rows.m[other].max())
    return float(inside.mean())


def _controls(earlier: MediationRows | None) -> list[dict[str, Any]]:
    """The indirect effect through the activity before the onset: assignment cannot have moved it."""
    if earlier is None:
        return []
    return [{"quantity": "the mediator before the onset"} | jackknifed(earlier)[0]["indirect"].as_dict()]


def _sensitivity(
    rows: MediationRows, parts: dict[str, Estimate], whole: dict[str, float], left: list[dict[str, float]], names: Sequence[str]
) -> dict[str, Any]:  # fmt: skip
    """What is left of the indirect effect if something unmeasured ties mediator and outcome together, or the mediator is noisy.

    `rho` is the correlation of what the models leave of the two (Imai et al. 2010): by it the slope of the outcome on the mediator is moved. `measured` has
    what each covariate adds to that correlation when it is left out: a yardstick.
    """
    slopes = [_slope_of(rows), *(_slope_of(rows.without(j)) for j in range(len(left)))]
    moved = np.array([x["mediator_shift"] * k for x, k in zip([whole, *left], slopes)])
    curve = [
        {"rho": float(rho)} | {k: v for k, v in jackknife(at[0], at[1:]).as_dict().items() if k in ("estimate", "low", "high")}
        for rho, at in zip(CORRELATIONS, np.array([x["indirect"] for x in [whole, *left]]) - moved * (CORRELATIONS / np.sqrt(1 - CORRELATIONS**2))[:, None])
    ]
    effect = parts["indirect"]
    q = whole["indirect"] / (whole["mediator_shift"] * slopes[0]) if whole["mediator_shift"] and slopes[0] else float("nan")
    zero = float(q / np.sqrt(1 + q * q))
    sure = np.isfinite(effect.low) and effect.low * effect.high > 0
    reached = [abs(row["rho"]) for row in curve if np.isfinite(zero) and row["rho"] * zero >= 0 and not row["low"] * row["high"] > 0]
    rho = residual_correlation(rows)[0]
    groups: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        groups.setdefault("time in bout" if name.startswith("time in bout") else name, []).append(i)
    bound = effect.low if effect.estimate > 0 else effect.high
    risk = whole["risk_control"]
    return {
        "rho_that_removes_the_estimate": zero, "rho_that_removes_significance": min(reached, default=float("nan")) if sure else 0.0,
        "measured": {name: residual_correlation(rows, drop)[0] - rho for name, drop in groups.items()}, "rho": curve[10:-10:5],
        "e_value": _e_value(risk, effect.estimate), "e_value_interval": _e_value(risk, bound) if sure else 1.0,
        "mediator_reliability": [
            {"reliability": r, "indirect": effect.estimate / r, "direct": parts["total"].estimate - effect.estimate / r} for r in RELIABILITIES
        ],
    }  # fmt: skip


def _slope_of(rows: MediationRows) -> float:
    """By how much the outcome's slope moves for rho / sqrt(1 - rho**2) of 1."""
    rho, sd_m, sd_y = residual_correlation(rows)
    return sd_y / sd_m * float(np.sqrt(1 - rho**2)) if sd_m > 0 else 0.0


def _e_value(risk: float, difference: float) -> float:
    """Least risk ratio that ties a left-out cause to mediator and outcome, to explain the ratio of risks away."""
    after = risk + difference
    return e_value(float(np.log(after / risk)), 0.0) if risk > 0 and after > 0 else float("nan")


def _sample_warnings(rows: MediationRows, lost: Sequence[str], unknown: int) -> list[str]:
    said, n = [], rows.n_animals
    if n == 1:
        said.append("one animal: there is no interval, since there are no animals to leave out")
    elif n < 4:
        said.append(f"{n} animals: the interval rests on {n - 1} degree{'s' if n > 2 else ''} of freedom")
    least = min(int(((rows.animal == j) & (rows.assigned == a)).sum()) for j in range(n) for a in (0.0, 1.0))
    hits = int(rows.y.sum())
    if least < 10 or hits < 10 * n:
        said.append(f"few trials: {least} in an arm of one animal, {hits} transitions in all; product effects need several times what a total effect does")
    if lost:
        said.append(f"{len(lost)} animal{'s are' if len(lost) > 1 else ' is'} left out: {', '.join(lost[:8])}")
    if unknown > 0.05 * (len(rows) + unknown):
        said.append(f"{unknown} of {len(rows) + unknown} trials lack the mediator or a covariate and are left out")
    return said


def _reading_warnings(
    grids: Sequence[EpochGrid], what: Mediator, window: float, blank: float, exposure: str | Mapping[str, EventTable], out: dict[str, Any]
) -> list[str]:  # fmt: skip
    said = []
    centred = [g.recording.id for g in grids if g.hypnogram.attrs.get("centred")]
    if centred:
        said.append(f"the hypnogram of {centred[0]} is centred (an epoch's label used its future): who is still asleep after the window is not known then")
    signals = [g.recording.signals[what.name] for g in grids if what.name in g.recording.signals] if what.kind == "signal" else []
    if signals and signals[0].rate is not None and (step := 1 / signals[0].rate) > 0.25 * (window - blank):
        said.append(f"a sample of the mediator stands for {step:g} s: the last one of the window may reach beyond it, into the outcome")
    for g in grids:
        signal = g.recording.signals.get(what.name) if what.kind == "signal" else None
        if signal is not None and (shared := sorted(({what.name} | made_from(signal.attrs)) & made_from(g.hypnogram.attrs))):
            said.append(f"leak: hypnogram and mediator of {g.recording.id} come from the same signal ({', '.join(shared)}): score from another")
            break
    if what.kind == "column":
        said.append("a column of the ledger is taken on trust: what it was before the onset is not known, so no control or adjustment rests on it")
    lasting = np.concatenate([np.atleast_1d(t.stop - t.start) for t in (events_of(g.recording, exposure) for g in grids) if len(t)])
    on = min(float(np.median(lasting)), window) - blank
    if what.kind != "column" and on > 0.1 * (window - blank):
        said.append(
            f"the mediator is read while the stimulus is on ({on:.2g} s of its {window - blank:g} s): light, sound or current picked up by the probe would "
            "count as activity; leave it out with blank=, in both arms"
        )
    if abs(out["mediator"]["shift_sd"]["estimate"]) > FAR:
        said.append(f"assignment moves the mediator by {out['mediator']['shift_sd']['estimate']:+.1f} SD: is it the stimulation itself (an artefact)?")
    return said


def _model_warnings(out: dict[str, Any], parts: dict[str, Estimate], landmark: float) -> list[str]:
    said, early = [], out["left_before"]
    # A difference of a hundredth can hide no effect worth the name, however sure it is.
    if early["p_value"] < 0.05 and abs(early["estimate"]) > 0.01:
        said.append(
            f"assignment changes who is left: {early['assigned']:.0%} of assigned and {early['control']:.0%} of control trials leave within {landmark:g} s, so "
            "the arms are no longer alike when the outcome is read; that early effect is not part of the answer (left_before)"
        )
    elif max(early["assigned"], early["control"]) > 0.2:
        said.append(
            f"{early['assigned']:.0%} of assigned and {early['control']:.0%} of control trials leave within {landmark:g} s: the answer is about the others"
        )
    if out["overlap"] < 0.5:
        said.append(f"only {out['overlap']:.0%} of trials have a mediator that the other arm shows too: natural effects are extrapolated")
    if parts["interaction"].p_value < 0.05:
        said.append("the mediator does not act alike in both arms: read the indirect effect by arm")
    said += [
        f"negative control fails: there is an 'effect' through {c['quantity']} (p = {c['p_value']:.2g}): check the coin and the mediator's clock"
        for c in out["negative_controls"]
        if c["p_value"] < 0.05
    ]
    if out["before_the_onset"].get("p_value", 1.0) < 0.05:
        said.append(
            "activity before the onset predicts the outcome too: a slow cause moves both, and what ten seconds of activity do not tell of it is left in the "
            "indirect effect; adjust for it where it is recorded"
        )
    line, total = out["linear"]["indirect"]["estimate"], parts["indirect"]
    if np.isfinite(total.se) and abs(line - total.estimate) > total.se:
        said.append(f"straight lines by animal give {line:+.1%} through the mediator instead of {total.estimate:+.1%}: the answer hangs on the model")
    if all(parts[k].p_value < 0.05 for k in ("direct", "indirect")) and parts["direct"].estimate * total.estimate < 0:
        said.append("direct and indirect effects oppose each other: the total hides both")
    return said


def mediation_verdict(parts: dict[str, Estimate], report: dict[str, Any], outcome: Outcome, what: Mediator) -> str:
    """The answer in plain words, with what would overturn it."""
    total, through, rest = (parts[k] for k in ("total", "indirect", "direct"))
    transition = outcome.transition
    if not np.isfinite(through.p_value):
        return f"{through.estimate:+.1%} of {transition} would go through the {what.quantity}; one animal gives no interval."
    said = "; ".join(report["warnings"])
    if not through.p_value < 0.05:
        return (
            f"No effect on {transition} through the {what.quantity} is shown; the interval admits {through.low:+.1%} to {through.high:+.1%}, of a total of "
            f"{total.estimate:+.1%} ({total.low:+.1%} to {total.high:+.1%})." + (f" In doubt: {said}." if said else "")
        )
    seen = report["sensitivity"]
    measured = {k: abs(v) for k, v in seen["measured"].items()}
    yardstick = ""
    if measured:
        most = max(measured, key=measured.__getitem__)
        yardstick = f"; leaving out the {most} would make {measured[most]:.2f}"
    return (
        f"Of a change of {total.estimate:+.1%} in {transition}, {through.estimate:+.1%} goes through the {what.quantity} and {rest.estimate:+.1%} does not, if "
        f"nothing unmeasured drives both (assignment was randomised, the mediator was not). What would overturn it: a left-out cause that makes what is left "
        f"of mediator and outcome correlate by {seen['rho_that_removes_the_estimate']:+.2f} leaves nothing, by {seen['rho_that_removes_significance']:.2f} "
        f"nothing sure{yardstick}" + (f"; {said}" if said else "") + ". Moving the population itself, at random, would settle it."
    )
