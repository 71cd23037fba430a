"""What stands beside an observational hazard: scans, other exits, controls, sensitivity, leakage, warnings, verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.controls import covariate_response, past_controls
from brainmu.causal.grid import EpochGrid, Transition
from brainmu.causal.hazard import HazardFit, HazardModel, fit_hazard, fit_rows
from brainmu.causal.hazard_controls import like_non_events, mixed_model, scorers, shuffled_content
from brainmu.causal.inference import wild_bootstrap
from brainmu.causal.leakage import design_warnings, find_leaks
from brainmu.causal.logistic import fit_logistic, fit_multinomial, fit_or_shrink
from brainmu.causal.sensitivity import benchmark, confounder_contour, e_value, reliability, reliability_table
from brainmu.core.events import EventTable
from brainmu.errors import DesignError

__all__ = ["describe_hazard"]

LAGS = (0, 1, 2, 3, 4)
_MOVED = 0.2
"""Share of transitions that two scorers put more than an epoch apart, above which effects are hidden by it (two fifths of one at 0.4 or so, in validation)."""


def describe_hazard(
    grids: Sequence[EpochGrid], tables: Sequence[EventTable], fitted: HazardFit, model: HazardModel, transition: Transition, *, draws: int, seed: int,
    progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Everything but the number itself, as plain values."""

    def say(stage: str, share: float) -> None:
        if progress is not None:
            progress(stage, share)

    rows, r = fitted.rows, fitted.result
    say("other exits", 0.0)
    y = (rows.y == 1).astype(np.float64)
    null = fit_or_shrink(fitted.z, y, len(np.unique(rows.animal)))[0]
    out: dict[str, Any] = {
        "log_odds_ratio": r.as_dict(), "odds_ratio": {k: float(np.exp(getattr(r, k))) for k in ("estimate", "low", "high")},
        "risk_difference": fitted.risk_difference, "between_animals_sd": fitted.between,
        "pooled": {"estimate": fitted.pooled, "model_se": fitted.model_se},
        "wild_bootstrap_p": wild_bootstrap(_null_scores(fitted, y, null.p), draws=draws or 9999, seed=seed),
        "animals": _per_animal(fitted), "rows": _row_counts(rows, fitted), "covariates": list(rows.covariates),
        "multinomial": _multinomial(fitted), "positivity": _positivity(fitted),
    }  # fmt: skip
    say("naive", 0.1)
    naive = fit_rows(rows, dataclasses.replace(model, clock=False, adjust=())) if model.adjust or model.clock else fitted
    bare = _without_covariates(rows, model)
    out["unadjusted"] = _quiet(lambda: bare.result.as_dict()) if bare is not None else naive.result.as_dict()
    say("lag scan", 0.2)
    out["lag_scan"] = _lag_scan(grids, tables, model, seed, say)
    out["blank_scan"] = _blank_scan(grids, tables, model, seed)
    out["contents"] = _contents(rows, model)
    say("negative controls", 0.8)
    out["negative_controls"] = past_controls(grids, rows, fitted.x, fitted.z)
    out["shuffled_content"] = shuffled_content(grids, tables, fitted, model, seed)
    out["like_non_events"] = _quiet(lambda: like_non_events(fitted))
    out["mixed_model"] = mixed_model(fitted)
    out["covariate_response"] = covariate_response(grids, rows, fitted.x, fitted.z, model.adjust, model.adjust_window)
    say("sensitivity", 0.9)
    out["sensitivity"] = _sensitivity(grids, fitted, model, out)
    out["leaks"] = find_leaks(grids, tables, model.adjust)
    out["scoring"] = _scoring(grids, fitted) | scorers(grids, fitted, transition)
    out["warnings"] = _warnings(fitted, model, out)
    out["verdict"] = _verdict(fitted, model, out, transition)
    say("done", 1.0)
    return out


def _quiet(f: Callable[[], Any]) -> Any:
    """A diagnostic that this data cannot give is reported as the reason why."""
    try:
        return f()
    except DesignError as error:
        return {"error": str(error)}


def _without_covariates(rows: Any, model: HazardModel) -> HazardFit | None:
    """The same rows, adjusted for nothing but animal and time in bout."""
    bare = dataclasses.replace(rows, values=np.empty((len(rows), 0)), covariates=[])
    try:
        return fit_rows(bare, dataclasses.replace(model, adjust=(), clock=False))
    except DesignError:
        return None


def _null_scores(fitted: HazardFit, y: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each animal's efficient score at the fit without the effect."""
    v = p * (1 - p)
    zv = fitted.z * v[:, None]
    rx = fitted.x - fitted.z @ np.linalg.lstsq(zv.T @ fitted.z, zv.T @ fitted.x, rcond=None)[0]
    return np.bincount(fitted.rows.animal, rx * (y - p), len(fitted.rows.names))[fitted.used]


def _per_animal(fitted: HazardFit) -> list[dict[str, Any]]:
    rows = fitted.rows
    out = []
    for i, j in enumerate(fitted.used):
        mine = rows.animal == j
        x, hit = fitted.x[mine] != 0, rows.y[mine] == 1
        out.append({
            "animal": rows.names[j], "epochs": int(mine.sum()), "exposed": int(x.sum()), "transitions": int(hit.sum()),
            "transitions_exposed": int((hit & x).sum()),
            "estimate": float(fitted.effects[i]) if len(fitted.effects) > i else float("nan"),
            "se": float(np.sqrt(fitted.variances[i])) if len(fitted.variances) > i else float("nan"),
        })  # fmt: skip
    return out


def _row_counts(rows: Any, fitted: HazardFit) -> dict[str, int]:
    return {
        "at_risk": len(rows), "exposed": int((fitted.x != 0).sum()), "target": int((rows.y == 1).sum()), "other_exit": int((rows.y == 2).sum()),
        "bout_beginning_unseen": int(rows.late.sum()), **{f"left out: {k}": v for k, v in fitted.dropped.items() if k != "shrunk"},
    }  # fmt: skip


def _multinomial(fitted: HazardFit) -> dict[str, Any]:
    """Target and other exits against staying, in one model; standard errors as if epochs were independent."""
    y = fitted.rows.y.astype(np.int64)
    if not (y == 2).any():
        return {"note": "there is no other exit"}

    def fit() -> dict[str, Any]:
        # Animals that never leave for the other stage have no finite intercept for it.
        n = np.bincount(fitted.rows.animal, y == 2, len(fitted.rows.names))
        keep = n[fitted.rows.animal] > 0
        if keep.sum() < 50:
            raise DesignError("too few epochs of animals with both exits")
        x = np.c_[fitted.z, fitted.x][keep]
        x = x[:, np.abs(x).sum(0) > 0]
        coef, se = fit_multinomial(x, y[keep], 3)
        return {name: {"estimate": float(coef[i, -1]), "model_se": float(se[i, -1])} for i, name in enumerate(("target", "other_exit"))}

    return _quiet(fit)


def _positivity(fitted: HazardFit) -> dict[str, float]:
    """Probability of exposure given what is adjusted for: its range, and the share of epochs beyond 1 % and 99 %."""
    exposed = (fitted.x != 0).astype(np.float64)
    fit = _quiet(lambda: fit_logistic(fitted.z[:, fitted.z.T @ exposed > 0] if (fitted.z >= 0).all() else fitted.z, exposed, what="the exposure model"))
    if isinstance(fit, dict):
        return fit
    q = np.quantile(fit.p, [0.0, 0.01, 0.5, 0.99, 1.0])
    return {
        "min": float(q[0]),
        "p01": float(q[1]),
        "median": float(q[2]),
        "p99": float(q[3]),
        "max": float(q[4]),
        "beyond": float(((fit.p < 0.01) | (fit.p > 0.99)).mean()),
    }


def _lag_scan(
    grids: Sequence[EpochGrid], tables: Sequence[EventTable], model: HazardModel, seed: int, say: Callable[[str, float], None]
) -> list[dict[str, Any]]:
    out = []
    lags = sorted({*LAGS, model.lag})
    for i, lag in enumerate(lags):
        row = _quiet(lambda lag=lag: fit_hazard(grids, tables, dataclasses.replace(model, lag=lag), seed).result.as_dict())
        out.append({"lag": lag, "seconds": lag * grids[0].epoch} | row)
        say("lag scan", 0.2 + 0.4 * (i + 1) / len(lags))
    return out


def _blank_scan(grids: Sequence[EpochGrid], tables: Sequence[EventTable], model: HazardModel, seed: int) -> list[dict[str, Any]]:
    e = grids[0].epoch
    blanks = sorted({model.blank, 0.0, e / 4, e / 2})
    return [{"blank": b} | _quiet(lambda b=b: fit_hazard(grids, tables, dataclasses.replace(model, blank=b), seed).result.as_dict()) for b in blanks]


def _contents(rows: Any, model: HazardModel) -> dict[str, Any]:
    """Every content with the others beside it, and the differences between them."""
    names = [c for i, c in enumerate(rows.contents) if (rows.dose[:, i] > 0).any()]
    if len(names) < 2 or len(names) > 8:
        return {}
    out: dict[str, Any] = {}
    for c in names:
        out[c] = _quiet(lambda c=c: fit_rows(rows, dataclasses.replace(model, content=c)).result.as_dict())
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            out[f"{a} - {b}"] = _quiet(lambda a=a, b=b: fit_rows(rows, dataclasses.replace(model, content=(a, b))).result.as_dict())
    return out


def _sensitivity(grids: Sequence[EpochGrid], fitted: HazardFit, model: HazardModel, out: dict[str, Any]) -> dict[str, Any]:
    r, risk = fitted.result, out["risk_difference"]["risk_unexposed"]
    bound = r.low if r.estimate > 0 else r.high
    crosses = not np.isfinite(bound) or bound * r.estimate <= 0
    recordings = [g.recording for g in grids]
    seen: dict[str, Any] = {
        "e_value": e_value(r.estimate, risk), "e_value_interval": 1.0 if crosses else e_value(bound, risk), "confounder": confounder_contour(r),
        "imbalance_of_measured": dict(zip(fitted.rows.covariates, benchmark(fitted.rows.values, fitted.x != 0, fitted.rows.animal).tolist())),
    }  # fmt: skip
    if model.adjust and isinstance(out["unadjusted"].get("estimate"), float):
        seen["reliability"] = reliability_table(r, out["unadjusted"]["estimate"])
        seen["reliability_if_noise_is_white"] = {name: reliability(recordings, name, grids[0].epoch) for name in model.adjust}
    return seen


def _scoring(grids: Sequence[EpochGrid], fitted: HazardFit) -> dict[str, float]:
    """How sure the scorer was of exposed and unexposed epochs, where the hypnogram holds probabilities."""
    if any(g.hypnogram.proba is None for g in grids):
        return {}
    rows = fitted.rows
    sure = np.full(len(rows), np.nan)
    for i, g in enumerate(grids):
        mine = rows.session == i
        proba = g.hypnogram.proba
        assert proba is not None
        top = proba.max(1)
        sure[mine] = top[np.minimum(rows.k[mine] + 1, len(top) - 1)]
    x = fitted.x != 0
    return {"confidence_exposed": float(np.nanmean(sure[x])), "confidence_unexposed": float(np.nanmean(sure[~x]))}


def _warnings(fitted: HazardFit, model: HazardModel, out: dict[str, Any]) -> list[str]:
    said = [*out["leaks"], *design_warnings(model.lag, len(fitted.used))]
    r = fitted.result
    if not fitted.rows.covariates:
        said.append("no measured confounder is adjusted for: sleep pressure and the like can make this number out of nothing; read it as an association")
    for c in out["negative_controls"]:
        if c["p_value"] < 0.05 / max(len(out["negative_controls"]), 1):
            said.append(
                f"negative control fails: the exposure 'predicts' the {c['quantity']} (p = {c['p_value']:.2g}), which it cannot cause: a confounder is left"
            )
    if out["like_non_events"].get("p_value", 1.0) < 0.01:
        said.append(
            f"negative control fails: epochs without an event that are like the exposed ones 'predict' the outcome "
            f"(p = {out['like_non_events']['p_value']:.2g}): what is adjusted for acts otherwise than modelled"
        )
    agreed = out["scoring"]
    if agreed.get("p_value", 1.0) < 0.05 and abs(agreed["agreement_exposed"] - agreed["agreement_unexposed"]) > 0.02:
        said.append(
            f"scorers agree on {agreed['agreement_exposed']:.0%} of epochs after exposed and {agreed['agreement_unexposed']:.0%} after unexposed ones "
            f"(p = {agreed['p_value']:.2g}): scoring may see the exposure"
        )
    if agreed.get("moved", 0.0) > _MOVED:
        said.append(
            f"another scorer has {agreed['moved']:.0%} of these transitions more than an epoch away, or not at all: such errors hide a part of an effect, and "
            "epochs scored too long as sleep, in which there are no events, pass for a protective one; compare the lags"
        )
    for name, value in out["sensitivity"].get("reliability_if_noise_is_white", {}).items():
        if value < 0.9:
            said.append(f"covariate {name!r} looks noisy (reliability about {value:.2f} if its noise is white), adjustment is incomplete: use adjust_window")
    for c in out["covariate_response"]:
        if c["p_value"] < 0.01:
            said.append(
                f"covariate {c['covariate']!r} moves after the exposure: it mediates longer effects and carries past exposures' effects, so the estimate holds "
                "for this epoch only; use design='msm' for cumulative effects"
            )
    if out["positivity"].get("beyond", 0.0) > 0.05:
        said.append(f"positivity: {out['positivity']['beyond']:.0%} of epochs had a chance of exposure below 1 % or above 99 %")
    if fitted.dropped.get("shrunk"):
        said.append("the data are sparse: some covariate or the exposure separates the transitions, so its coefficient is held back by a weak prior")
    few = int((fitted.rows.y[fitted.x != 0] == 1).sum())
    if few < 10:
        said.append(f"only {few} transitions follow an exposed epoch")
    table = out["sensitivity"].get("reliability")
    if table and r.p_value < 0.05:
        lost = [row["reliability"] for row in table if row["low"] * row["high"] <= 0]
        if lost and max(lost) >= 0.8:
            said.append(f"the result would not hold if the covariates had a reliability of {max(lost):.1f}")
    return said


def _verdict(fitted: HazardFit, model: HazardModel, out: dict[str, Any], transition: Transition) -> str:
    r, seen = fitted.result, out["sensitivity"]
    failed = [w for w in out["warnings"] if "negative control fails" in w or "no measured confounder" in w or "looks noisy" in w or "lag=0" in w or "leak" in w]
    if not np.isfinite(r.p_value) or r.p_value >= 0.05:
        text = f"No effect on {transition} is shown; the interval admits odds ratios from {np.exp(r.low):.2f} to {np.exp(r.high):.2f}."
        return f"{text} Beware: {failed[0]}." if failed else text
    text = f"Events go with {'more' if r.estimate > 0 else 'fewer'} {transition} (odds ratio {np.exp(r.estimate):.2f})"
    if failed:
        return f"{text}, but as an association only: {failed[0]}."
    return (
        f"{text}, given what was adjusted for. A left-out cause tied to both by a risk ratio of {seen['e_value_interval']:.2f} would overturn it; "
        "a randomised trial would settle it."
    )
