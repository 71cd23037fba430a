"""What stands beside a matched comparison: balance, who found no match, controls, the same question by regression, sensitivity, verdict."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from brainmu.causal.controls import past_quantities
from brainmu.causal.grid import EpochGrid
from brainmu.causal.hazard import HazardModel, fit_rows
from brainmu.causal.inference import wild_bootstrap
from brainmu.causal.leakage import design_warnings, find_leaks
from brainmu.causal.matched import MatchedFit, matched_difference
from brainmu.causal.matching import MatchedSets, Matching, balance
from brainmu.causal.outcome import Outcome
from brainmu.causal.sensitivity import describe_sensitivity, e_value_of_difference, failed_controls, noisy_covariates, reliability
from brainmu.core.events import EventTable
from brainmu.errors import DesignError

__all__ = ["describe_matched"]

MOST_IMBALANCE = 0.1
"""SD by which matched epochs may differ before the balance is said to be poor."""


def describe_matched(
    grids: Sequence[EpochGrid], tables: Sequence[EventTable], fitted: MatchedFit, outcome: Outcome, horizon: float, model: HazardModel, matching: Matching, *,
    draws: int, seed: int, progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Everything but the number itself, as plain values."""
    rows, sets = fitted.rows, fitted.sets
    n_exposed = int(fitted.exposed.sum())
    uses = sets.uses(len(rows))
    used = uses[uses > 0]
    out: dict[str, Any] = {
        "difference": fitted.difference.as_dict(), "means": _means(fitted),
        "matching": {
            "distance": matching.distance, "caliper": matching.width, "on": list(sets.names), "matches": matching.matches, "exposed": n_exposed,
            "matched": len(sets.exposed), "unmatched_share": 1 - len(sets.exposed) / n_exposed, "controls_a_set": float(sets.size.mean()),
            "controls": len(used), "most_uses_of_a_control": int(used.max()), "effective_controls": float(used.sum() ** 2 / (used**2).sum()),
        },
        "balance": balance(rows, sets, fitted.exposed, fitted.unexposed, model),
        "rows": {"at_risk": len(rows), "target": int((rows.y == 1).sum()), **{f"left out: {k}": v for k, v in fitted.dropped.items()}},
        "covariates": list(rows.covariates), "animals": _per_animal(fitted),
    }  # fmt: skip
    if outcome.kind == "transition":
        out |= {
            "log_odds_ratio": fitted.result.as_dict(), "odds_ratio": {k: float(np.exp(getattr(fitted.result, k))) for k in ("estimate", "low", "high")},
            "risk_difference": fitted.difference.as_dict(), "between_animals_sd": fitted.between, "pooled": fitted.pooled,
            "wild_bootstrap_p": wild_bootstrap(fitted.scores, draws=draws or 9999, seed=seed),
        }  # fmt: skip
        if progress is not None:
            progress("the same by regression", 0.3)
        out["hazard"] = _by_regression(fitted, model)
    if progress is not None:
        progress("negative controls", 0.6)
    out["negative_controls"] = _past_controls(grids, fitted)
    out["sensitivity"] = _sensitivity(grids, fitted, outcome, model, out)
    out["leaks"] = find_leaks(grids, tables, model.adjust)
    out["warnings"] = _warnings(fitted, outcome, model, out)
    out["verdict"] = _verdict(fitted, outcome, horizon, out)
    if progress is not None:
        progress("done", 1.0)
    return out


def _means(fitted: MatchedFit) -> dict[str, float]:
    """Mean outcome of matched exposed epochs and of their matches, sets counting equally."""
    sets, v = fitted.sets, fitted.values
    there = sets.control >= 0
    return {"exposed": float(v[sets.exposed].mean()), "matches": float((np.where(there, v[sets.control], 0.0).sum(1) / sets.size).mean())}


def _per_animal(fitted: MatchedFit) -> list[dict[str, Any]]:
    rows, n = fitted.rows, len(fitted.rows.names)
    mean = np.bincount(rows.animal, fitted.sets.weights(rows.animal, n) * fitted.values, n)
    matched, exposed = np.bincount(rows.animal[fitted.sets.exposed], minlength=n), np.bincount(rows.animal, fitted.exposed, n)
    out = []
    for i, j in enumerate(fitted.used):
        row = {"animal": rows.names[j], "exposed": int(exposed[j]), "matched": int(matched[j]), "difference": float(mean[j])}
        if len(fitted.effects):
            row |= {"estimate": float(fitted.effects[i]), "se": float(np.sqrt(fitted.variances[i]))}
        out.append(row)
    return out


def _by_regression(fitted: MatchedFit, model: HazardModel) -> dict[str, Any]:
    """The same epochs by regression (design "hazard"); the reason where it cannot be fitted."""
    try:
        return fit_rows(fitted.rows, model).result.as_dict()
    except DesignError as error:
        return {"error": str(error)}


def _past_controls(grids: Sequence[EpochGrid], fitted: MatchedFit) -> list[dict[str, Any]]:
    """Do exposed epochs differ from their matches in what came before their bout? The exposure cannot have caused it."""
    out = []
    rows = fitted.rows
    for name, q in past_quantities(grids, rows).items():
        # A set counts as far as its members' past was seen.
        sets, ok = fitted.sets, np.isfinite(q)
        control = np.where((sets.control >= 0) & ok[sets.control], sets.control, -1)
        keep = ok[sets.exposed] & (control >= 0).any(1)
        if keep.sum() < 50 or np.ptp(q[ok]) == 0:
            continue
        seen = MatchedSets(sets.exposed[keep], control[keep], sets.unmatched, sets.names)
        est = matched_difference(np.where(ok, q, 0.0) / q[ok].std(), rows, seen)
        if np.isfinite(est.p_value):
            out.append({"quantity": name} | est.as_dict())
    return out


def _sensitivity(grids: Sequence[EpochGrid], fitted: MatchedFit, outcome: Outcome, model: HazardModel, out: dict[str, Any]) -> dict[str, Any]:
    recordings = [g.recording for g in grids]
    if outcome.kind == "transition":
        return describe_sensitivity(fitted.result, out["means"]["matches"], recordings, model.adjust, grids[0].epoch)
    r, sd = fitted.result, float(np.std(fitted.values))
    bound = r.low if r.estimate > 0 else r.high
    crosses = not np.isfinite(bound) or bound * r.estimate <= 0
    seen: dict[str, Any] = {"e_value": e_value_of_difference(r.estimate, sd), "e_value_interval": 1.0 if crosses else e_value_of_difference(bound, sd)}
    if model.adjust:
        seen["reliability_if_noise_is_white"] = {name: reliability(recordings, name, grids[0].epoch) for name in model.adjust}
    return seen


def _warnings(fitted: MatchedFit, outcome: Outcome, model: HazardModel, out: dict[str, Any]) -> list[str]:
    said = [*out["leaks"], *design_warnings(model.lag, len(fitted.used))]
    lost = out["matching"]["unmatched_share"]
    if not fitted.rows.covariates:
        said.append("no measured confounder is matched on: sleep pressure and the like can make this number out of nothing; read it as an association")
    if lost > 0.5:
        said.append(f"{lost:.0%} of exposed epochs found no match: the answer is about the other {1 - lost:.0%}, earlier in their bouts")
    for row in out["balance"]:
        if abs(row["after"]) > MOST_IMBALANCE:
            said.append(
                f"matched epochs still differ in {row['covariate']} by {row['after']:+.2f} SD (before matching {row['before']:+.2f}): narrow the caliper"
            )
    said += failed_controls(out["negative_controls"]) + noisy_covariates(out["sensitivity"], "matching")
    few = int(fitted.values[fitted.sets.exposed].sum()) if outcome.kind == "transition" else 10
    if few < 10:
        sparse = "" if few else ": the odds ratio is held back by a weak prior"
        said.append(f"only {few} transitions follow a matched exposed epoch{sparse}")
    return said


def _verdict(fitted: MatchedFit, outcome: Outcome, horizon: float, out: dict[str, Any]) -> str:
    r = fitted.result
    grave = ("negative control fails", "no measured confounder", "looks noisy", "lag=0", "leak", "still differ")
    failed = [w for w in out["warnings"] if any(g in w for g in grave)]
    transition = outcome.kind == "transition"
    what = str(outcome.transition) if transition else outcome.quantity
    if not np.isfinite(r.p_value) or r.p_value >= 0.05:
        span = f"odds ratios from {np.exp(r.low):.2f} to {np.exp(r.high):.2f}" if transition else f"differences from {r.low:+.3g} to {r.high:+.3g}"
        text = f"No effect on {what} is shown; the interval admits {span}."
        return f"{text} Beware: {failed[0]}." if failed else text
    size = f"(odds ratio {np.exp(r.estimate):.2f})" if transition else f"({r.estimate:+.3g} over {horizon:g} s)"
    text = f"Exposed epochs have {'more' if r.estimate > 0 else 'less'} {what} than their matches {size}"
    if failed:
        return f"{text}, but as an association only: {failed[0]}."
    strength = out["sensitivity"]["e_value_interval"]
    return f"{text}. A left-out cause tied to both by a risk ratio of {strength:.2f} would overturn it; a randomised trial would settle it."
