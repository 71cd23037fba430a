"""Marginal structural model: the effect of a window of reactivation when past reactivation has moved the confounder.

Adjusting for a confounder that the exposure itself has changed removes part of the effect; leaving it out confounds. Weighting each row by
how unlikely its exposure history was, given the confounder's history, does neither.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.controls import past_controls
from brainmu.causal.covariates import natural_spline, spline_knots
from brainmu.causal.estimand import msm_sentence
from brainmu.causal.grid import EpochGrid, Transition, epochs_in, events_of
from brainmu.causal.hazard import HazardModel, check_exposure_tables, design_matrix
from brainmu.causal.inference import Estimate, jackknife
from brainmu.causal.leakage import find_leaks
from brainmu.causal.logistic import expit, fit_logistic, fit_or_shrink, independent_columns
from brainmu.causal.outcome import Outcome
from brainmu.causal.risk_set import RiskSet, build_risk_set
from brainmu.causal.sensitivity import describe_sensitivity, failed_controls, noisy_covariates
from brainmu.core.effect import Effect
from brainmu.core.events import EventTable
from brainmu.errors import DesignError

__all__ = ["estimate_msm"]

TRUNCATIONS = (100.0, 99.9, 99.5, 99.0, 97.5, 95.0)
LEAST_ESS = 0.3
"""Below this share of the rows the verdict is that weighting does not identify the effect."""
MOST_LEFT_OUT = 40
"""Refits of the jackknife: with more animals than that they are left out in so many groups (Kott 2001, J Off Stat 17:521)."""


@dataclass
class _Panel:
    """Epochs at risk with exposure and confounders, and the rows whose outcome is read.

    `a` (m,) exposure of each epoch; `past` (m, 2) exposure of the epoch before and exposed share of the window before it; `base` (m, p)
    animal, time in bout and clocks; `confounders` (m, c); `stays` (m,) whether the `lag` epochs after it are at risk too.
    Row i of the outcome is epoch `at[i]`, with window epochs `lo[i]`..`hi[i]`.
    `near`: linear predictors of fits to more animals, two of the epochs and one of the outcome rows, from which a fit to fewer starts.
    """

    rows: RiskSet
    a: NDArray[np.float64]
    past: NDArray[np.float64]
    base: NDArray[np.float64]
    confounders: NDArray[np.float64]
    at: NDArray[np.intp]
    lo: NDArray[np.intp]
    hi: NDArray[np.intp]
    y: NDArray[np.float64]
    g: NDArray[np.float64]
    stays: NDArray[np.bool_]
    near: tuple[NDArray[np.float64] | None, NDArray[np.float64] | None, NDArray[np.float64] | None] = (None, None, None)

    def of(self, keep: NDArray[np.bool_]) -> _Panel:
        """The panel without some animals (`keep` by animal)."""
        epochs = keep[self.rows.animal]
        renumber = np.cumsum(epochs) - 1
        mine = epochs[self.at]
        base = self.base[epochs]
        return _Panel(
            self.rows[epochs], self.a[epochs], self.past[epochs], base[:, np.abs(base).sum(0) > 0], self.confounders[epochs], renumber[self.at[mine]],
            renumber[self.lo[mine]], renumber[self.hi[mine]], self.y[mine], self.g[mine], self.stays[epochs],
            tuple(None if v is None else v[part] for v, part in zip(self.near, (epochs, epochs, mine))),
        )  # fmt: skip


def estimate_msm(
    grids: Sequence[EpochGrid], exposure: str | Mapping[str, EventTable], outcome: Outcome, *, horizon: float, model: HazardModel,
    truncate: float | None = None, diagnostics: bool = True, seed: int = 0, progress: Callable[[str, float], None] | None = None,
) -> Effect:  # fmt: skip
    """Marginal log odds ratio of the target, at least one event in the last `horizon` seconds against none (or one exposed epoch more).

    See :func:`brainmu.estimate_effect` for the arguments. Weights are stabilised and, unless `truncate` says otherwise, untruncated.

    References
    ----------
    Robins, Hernán & Brumback, Epidemiology 11:550 (2000); Neugebauer et al., J Stat Plan Inference 137:419 (2007), history-restricted.
    """
    epoch, transition = grids[0].epoch, outcome.transition
    width = epochs_in(horizon, epoch)
    if not model.adjust:
        raise DesignError("design 'msm' weights by measured confounders and adjust is empty: name them (adjust=['pressure']), or use design='hazard'")
    if isinstance(model.content, tuple):
        raise DesignError(f"content is {model.content!r}: design 'msm' takes one content; contrast two estimates, or use design='hazard'")
    if truncate is not None and not 50 < truncate <= 100:
        raise DesignError(f"truncate is {truncate}, expected a percentile above 50 and at most 100 (None leaves the weights as they are)")
    tables = [events_of(g.recording, exposure) for g in grids]
    check_exposure_tables(grids, tables)
    panel = _panel(grids, tables, model, width, seed)
    n = len(panel.rows.names)
    present = np.unique(panel.rows.animal[panel.at])
    if len(present) < 2:
        raise DesignError(f"design 'msm' needs two animals or more for its interval and has {len(present)}: use design='hazard'")
    weights, predictors = _weights(panel)
    whole = _marginal(panel, weights, model, truncate)
    near = dataclasses.replace(panel, near=(*predictors, whole.eta))
    left: list[_Marginal] = []
    groups = np.array_split(present, min(len(present), MOST_LEFT_OUT))
    for i, group in enumerate(groups):
        rest = near.of(~np.isin(np.arange(n), group))
        left.append(_marginal(rest, _weights(rest)[0], model, truncate))
        if progress is not None:
            progress("leaving out animals", (i + 1) / len(groups))
    result = jackknife(whole.log_odds_ratio, [m.log_odds_ratio for m in left], whole.log_odds_se)
    result_rd = jackknife(whole.risk_difference, [m.risk_difference for m in left], whole.risk_se)
    report: dict[str, Any] = {}
    if diagnostics:
        report = _describe(grids, tables, panel, weights, model, truncate, result, result_rd, transition, seed)
    named = "one more exposed epoch" if model.count else "at least one event in the window against none, its timing as observed"
    clocks = ", time since sleep onset" if model.clock else ""
    return Effect(
        estimand=msm_sentence(model, outcome, horizon, epoch, f"{len(present)} animals"),
        estimate=result.estimate, low=result.low, high=result.high, p_value=result.p_value, unit="log odds ratio", level="observational",
        n_units=len(present), n_events=int(sum(len(t) for t in tables)),
        assumptions=[
            f"at each epoch, exposure depends on nothing else that drives {transition.target} than {', '.join(panel.rows.covariates)}, past exposure in the "
            f"bout, time in bout{clocks} and animal",
            "covariates are measured without error at the reference time", "every history could have been exposed or not (positivity)",
            "the exposure model is right, and histories before the window act through what is measured",
        ],
        diagnostics=report, scale="log odds ratio, marginal", regime=named,
        population="animals, each counting equally" if model.weight == "animal" else "epochs at risk, each counting equally",
        risk_set=f"epochs scored {transition.source} with the next epoch scored, and the {model.lag} before them in the same bout",
        lag=model.lag, blank=model.blank, horizon=float(horizon), n_exposed=int((panel.g > 0).sum()), n_transitions=int(panel.y.sum()),
    )  # fmt: skip


def _panel(grids: Sequence[EpochGrid], tables: Sequence[EventTable], model: HazardModel, width: int, seed: int) -> _Panel:
    rows = build_risk_set(grids, tables, lag=0, width=1, blank=model.blank, adjust=model.adjust, adjust_window=model.adjust_window, seed=seed)
    if model.content is not None and model.content not in rows.contents:
        raise DesignError(f"content {model.content!r} does not occur among the events, they have {', '.join(map(repr, rows.contents))}")
    dose = rows.dose[:, rows.contents.index(model.content)] if model.content is not None else rows.dose.sum(1)
    a = (dose > 0).astype(np.float64)
    total = np.r_[0.0, np.cumsum(a)]
    i = np.arange(len(rows))
    first = i - (rows.age - 1)  # row of the bout's first epoch: epochs of a bout lie one after the other
    previous = np.where(rows.age > 1, a[i - 1], 0.0)
    back = np.maximum(first, i - width)
    share = (total[i] - total[back]) / width
    there = np.isfinite(rows.values).all(1)
    if not there.any():
        raise DesignError(f"covariate {', '.join(rows.covariates)} has no sample at or before any of the {len(rows)} reference times: check its clock")
    at = np.flatnonzero(rows.age > model.lag)
    hi = at - model.lag
    lo = np.maximum(first[at], hi - width + 1)
    missing = np.r_[0, np.cumsum(~there)]
    ok = missing[hi + 1] == missing[lo]
    at, lo, hi = at[ok], lo[ok], hi[ok]
    count = total[hi + 1] - total[lo]
    bare = dataclasses.replace(rows, values=np.empty((len(rows), 0)), covariates=[])
    base = design_matrix(bare, model)[0]
    values = np.where(there[:, None], rows.values, np.nanmean(rows.values, axis=0))
    y, g = (rows.y[at] == 1).astype(np.float64), count if model.count else (count > 0) * 1.0
    panel = _Panel(rows, a, np.c_[previous, share], base, values, at, lo, hi, y, g, rows.stays(model.lag))
    hits = np.bincount(rows.animal[at], panel.y, len(rows.names))
    if not hits.any():
        raise DesignError("no epoch at risk is followed by the target: nothing to estimate; check outcome, labels and lag")
    exposed = int((panel.g > 0).sum())
    if not 0 < exposed < len(at):
        raise DesignError(f"of {len(at)} epochs at risk {exposed} are exposed, expected some of both: check the events' clock, content and lag")
    return panel.of(hits > 0)


def _weights(panel: _Panel) -> tuple[NDArray[np.float64], list[NDArray[np.float64]]]:
    """Stabilised weight of each outcome row: product over its window of P(exposure | baseline) / P(exposure | baseline, past, confounders).

    The numerator knows only what the outcome model conditions on: exposure before the window is a confounder like any other. Both models are of epochs after
    which the animal stayed at risk, as it did in every row: the last epoch of a bout is cut short by the waking within it and holds fewer events,
    and since that is so more often where the confounder is high, a model of all epochs would leave the rows unbalanced.

    Returned with the linear predictors (m,) of the two exposure models.
    """
    full = np.c_[panel.base, panel.past, _smooth(panel.confounders)]
    logs, predictors = [], []
    n_animals = len(np.unique(panel.rows.animal))
    for x, near in zip((panel.base, full), panel.near):
        x = x[:, independent_columns(x[panel.stays])]
        fit = fit_or_shrink(x[panel.stays], panel.a[panel.stays], n_animals, near=None if near is None else near[panel.stays])[0]
        predictors.append(x @ fit.coef)
        p = np.clip(expit(predictors[-1]), 1e-12, 1 - 1e-12)
        logs.append(np.where(panel.a > 0, np.log(p), np.log1p(-p)))
    running = np.r_[0.0, np.cumsum(logs[0] - logs[1])]
    return np.exp(running[panel.hi + 1] - running[panel.lo]), predictors


def _smooth(confounders: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural splines of confounders (n, c), three columns each; those with few values as they are."""
    return np.column_stack([natural_spline(v, spline_knots(v, 3 if len(np.unique(v[:5000])) > 8 else 1)) for v in confounders.T])


@dataclass(frozen=True)
class _Marginal:
    """Standardised risk difference and marginal log odds ratio; the linear predictor (row,) of the weighted outcome model they are of; and the standard errors
    that both would have if rows were all that varied (a sandwich by row: given its past, one epoch's outcome says nothing of another's)."""

    risk_difference: float
    log_odds_ratio: float
    eta: NDArray[np.float64]
    risk_se: float
    log_odds_se: float


def _marginal(
    panel: _Panel, weights: NDArray[np.float64], model: HazardModel, truncate: float | None, crude: bool = False
) -> _Marginal:  # fmt: skip
    """The weighted outcome model, standardised over the rows.

    The confounders where the window begins, which none of its exposures has moved, are in the outcome model too and averaged over: what the weights leave
    unbalanced of them, in the tails where hardly an epoch is unexposed, would otherwise pass for an effect. `crude` leaves them out.
    """
    w = weights if truncate is None or truncate == 100 else np.clip(weights, *np.percentile(weights, [100 - truncate, truncate]))
    animal = panel.rows.animal[panel.at]
    size = np.bincount(animal, w)
    share = (1 / size[animal]) if model.weight == "animal" else np.full(len(w), 1 / w.sum())
    scaled = w * share * (len(w) / (w * share).sum())
    base = panel.base[panel.at]
    x = np.c_[base, _smooth(panel.confounders[panel.lo])] if not crude else base
    x = np.c_[x[:, independent_columns(x)], panel.g]
    try:
        fit = fit_logistic(x, panel.y, scaled, near=panel.near[2])
    except DesignError:
        # Separated in a small study (or with one animal left out): a weak prior keeps it finite.
        try:
            fit = fit_logistic(x, panel.y, scaled, ridge=np.full(x.shape[1], 1e-2))
        except DesignError:
            if crude:
                raise
            # The confounders' tails predict the outcome perfectly: the weights must do alone.
            return _marginal(panel, weights, model, truncate, crude=True)
    still = fit.eta - fit.coef[-1] * panel.g
    u = (1 / np.bincount(animal)[animal]) if model.weight == "animal" else np.ones(len(w))
    u = u / u.sum()
    p1, p0 = float(u @ expit(still + fit.coef[-1])), float(u @ expit(still))
    influence = (x @ fit.covariance[:, -1]) * scaled * (panel.y - fit.p)
    se = float(np.sqrt(influence @ influence))
    # How far both move with the coefficient of the exposure.
    steep = float(u @ (expit(still + fit.coef[-1]) * expit(-still - fit.coef[-1])))
    odds = float(np.log(p1 / (1 - p1)) - np.log(p0 / (1 - p0)))
    return _Marginal(p1 - p0, odds, fit.eta, steep * se, steep / (p1 * (1 - p1)) * se)


def _describe(
    grids: Sequence[EpochGrid], tables: Sequence[EventTable], panel: _Panel, weights: NDArray[np.float64], model: HazardModel,
    truncate: float | None, result: Estimate, risk: Estimate, transition: Transition, seed: int,
) -> dict[str, Any]:  # fmt: skip
    curve = [{"percentile": t, "estimate": _marginal(panel, weights, model, t).log_odds_ratio} for t in TRUNCATIONS]
    ess = float(weights.sum() ** 2 / (weights**2).sum())
    at99 = next(row["estimate"] for row in curve if row["percentile"] == 99.0)
    raw = _marginal(panel, np.ones(len(weights)), model, None, crude=True).log_odds_ratio
    moved = abs(at99 - curve[0]["estimate"])
    out: dict[str, Any] = {
        "log_odds_ratio": result.as_dict(), "risk_difference": risk.as_dict(), "rows": {"at_risk": len(weights), "target": int(panel.y.sum())},
        "covariates": list(panel.rows.covariates), "unweighted": raw, "truncation_curve": curve, "effective_sample_size": ess, "ess_share": ess / len(weights),
        "weights": {"mean": float(weights.mean()), "max": float(weights.max()), "p99": float(np.percentile(weights, 99)), "min": float(weights.min())},
        "balance": _balance(panel, weights), "g_computation": _g_computation(panel, model, seed),
    }  # fmt: skip
    identified = ess >= LEAST_ESS * len(weights) and moved <= result.se
    out["identified_by_weighting"] = bool(identified)
    out["negative_controls"] = _past_controls(grids, panel, weights)
    unexposed = panel.y[panel.g == 0]
    out["sensitivity"] = describe_sensitivity(result, float(unexposed.mean()), [g.recording for g in grids], model.adjust, grids[0].epoch)
    out["leaks"] = find_leaks(grids, tables, model.adjust)
    said = [*out["leaks"], *failed_controls(out["negative_controls"]), *noisy_covariates(out["sensitivity"], "weighting")]
    if ess < LEAST_ESS * len(weights):
        said.append(f"not identified by weighting: the effective sample is {ess / len(weights):.0%} of the rows (less than {LEAST_ESS:.0%})")
    if moved > result.se:
        said.append(f"not identified by weighting: cutting weights at 99 % moves the estimate by {moved:.2f}, more than its standard error of {result.se:.2f}")
    if truncate is not None and truncate < 100:
        said.append(
            f"weights are truncated at {truncate:g} %: this trades variance for bias and has ruined coverage in validation; compare the truncation curve"
        )
    if abs(weights.mean() - 1) > 0.1:
        said.append(f"the mean weight is {weights.mean():.2f}, expected 1: the exposure model does not fit")
    if len(panel.rows.names) < 4:
        said.append(f"{len(panel.rows.names)} animals: the interval rests on very few degrees of freedom")
    out["warnings"] = said
    way = "more" if result.estimate > 0 else "less"
    grave = [w for w in said if any(g in w for g in ("negative control fails", "looks noisy", "leak"))]
    out["verdict"] = (
        f"Not identified by weighting; read g_computation ({out['g_computation']:+.2f}) beside it." if not identified
        else f"No marginal effect on {transition} is shown ({result.low:+.2f} to {result.high:+.2f})." if not result.p_value < 0.05
        else f"Events go with {way} {transition}, but as an association only: {grave[0]}." if grave
        else f"Imposing the exposure would make {transition} {way} likely, if nothing unmeasured drives both. A left-out cause tied to both by a risk ratio of "
        f"{out['sensitivity']['e_value_interval']:.2f} would overturn it; a randomised trial would settle it."
    )  # fmt: skip
    return out


def _past_controls(grids: Sequence[EpochGrid], panel: _Panel, weights: NDArray[np.float64]) -> list[dict[str, Any]]:
    """Does exposure in the window 'predict' how the animal slept before the bout, once weighted?"""
    # Weighted least squares, by scaling both sides.
    w = np.sqrt(weights / weights.mean())
    base = panel.base[panel.at]
    base = base[:, independent_columns(base)]
    rows = panel.rows[panel.at]
    return past_controls(grids, rows, (panel.g > 0) * w, base * w[:, None], scale=w)


def _balance(panel: _Panel, weights: NDArray[np.float64]) -> dict[str, dict[str, float]]:
    """Standardised difference of each confounder between exposed and unexposed windows at equal baseline, as observed and as weighted."""
    base = panel.base[panel.at]
    out = {}
    for name, v in zip(panel.rows.covariates, panel.confounders[panel.lo].T):
        v = v - base @ np.linalg.lstsq(base, v, rcond=None)[0]
        x = panel.g > 0

        def gap(w: NDArray[np.float64], v: NDArray[np.float64] = v, x: NDArray[np.bool_] = x) -> float:
            return float((np.average(v[x], weights=w[x]) - np.average(v[~x], weights=w[~x])) / max(v.std(), 1e-12))

        out[name] = {"observed": gap(np.ones(len(v))), "weighted": gap(weights)}
    return out


def _g_computation(panel: _Panel, model: HazardModel, seed: int) -> float:
    """The same contrast by simulation: a window's confounders are run forward under an exposed window's pattern and under none."""
    rng = np.random.default_rng(seed)
    rows, m = panel.rows, len(panel.a)
    follows = np.flatnonzero(np.r_[rows.age[1:] == rows.age[:-1] + 1, False])
    drift = np.linalg.lstsq(np.c_[np.ones(len(follows)), panel.confounders[follows], panel.a[follows]], panel.confounders[follows + 1], rcond=None)[0]
    rest = panel.confounders[follows + 1] - np.c_[np.ones(len(follows)), panel.confounders[follows], panel.a[follows]] @ drift
    base = panel.base[panel.at]
    base = base[:, independent_columns(base)]
    fit = fit_or_shrink(np.c_[base, panel.confounders[panel.at], panel.g], panel.y, len(np.unique(rows.animal)))[0]
    c = panel.confounders.shape[1]
    still = base @ fit.coef[: base.shape[1]]
    size = panel.hi - panel.lo + 1
    risk = []
    for treated in (True, False):
        state, g = panel.confounders[panel.lo].copy(), np.zeros(len(panel.at))
        donor = np.zeros(len(panel.at), dtype=np.intp)
        for s in np.unique(size):
            pool = np.flatnonzero((size == s) & (panel.g > 0))
            donor[size == s] = rng.choice(pool, (size == s).sum()) if len(pool) else -1
        for d in range(int(size.max()) + model.lag):
            running = d < size + model.lag
            inside = (d < size) & (donor >= 0)
            a = np.where(inside & treated, panel.a[np.minimum(panel.lo[donor] + d, m - 1)], 0.0)
            g += a
            # Beyond the window exposure is as it was observed without intervention: none is added here in either arm.
            moved = np.c_[np.ones(len(state)), state, a] @ drift + rest[rng.integers(len(rest), size=len(state))]
            state = np.where(running[:, None], moved, state)
        g = g if model.count else (g > 0) * 1.0
        g = np.minimum(g, 1.0) if model.count else g
        risk.append(expit(still + state @ fit.coef[base.shape[1] : base.shape[1] + c] + fit.coef[-1] * g).mean())
    return float(np.log(risk[0] / (1 - risk[0])) - np.log(risk[1] / (1 - risk[1])))
