"""Risk-set matching: exposed epochs at risk against unexposed ones that were as long in their bout, at a like hour, under like covariates."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.estimand import matched_sentence
from brainmu.causal.grid import EpochGrid, epochs_in, events_of
from brainmu.causal.hazard import HazardModel, check_exposure_tables, rows_at_risk
from brainmu.causal.inference import Estimate, random_effects
from brainmu.causal.logistic import expit
from brainmu.causal.matching import MatchedSets, Matching, exposure_arms, match_rows
from brainmu.causal.outcome import Outcome, inverse_censoring, signal_after, signal_unit
from brainmu.causal.risk_set import RiskSet
from brainmu.core.effect import Effect
from brainmu.core.events import EventTable
from brainmu.errors import DesignError

__all__ = ["MatchedFit", "conditional_effects", "estimate_matched", "fit_matched", "matched_difference"]


@dataclass
class MatchedFit:
    """The matched sets and what they say.

    Attributes
    ----------
    result : Estimate
        What was asked: the log odds ratio over animals, or the mean difference for an outcome that is no transition.
    values : float64 (n,)
        Outcome of each row.
    difference : Estimate
        Mean of exposed epochs less that of their matches; for a transition the risk difference.
    pooled : float
        Log odds ratio of the conditional likelihood of all sets; between : its SD between animals; NaN where there is none.
    effects, variances, scores : float64 (animals used,); used : their index into `rows.names`.
        Each animal's log odds ratio, its sampling variance, and its score at no effect; empty for an outcome that is no transition.
    exposed, unexposed : bool (n,)
        The arms before matching.
    dropped : dict
        Rows left out, by reason.
    """

    result: Estimate
    values: NDArray[np.float64]
    difference: Estimate
    rows: RiskSet
    sets: MatchedSets
    exposed: NDArray[np.bool_]
    unexposed: NDArray[np.bool_]
    dropped: dict[str, int]
    pooled: float = float("nan")
    between: float = float("nan")
    effects: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    variances: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    scores: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    used: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))


def fit_matched(
    grids: Sequence[EpochGrid], tables: Sequence[EventTable], outcome: Outcome, horizon: float, model: HazardModel, matching: Matching, seed: int = 0
) -> MatchedFit:  # fmt: skip
    """Match, and compare outcomes within sets.

    Raises
    ------
    DesignError
        If an arm is empty, no exposed epoch finds a match, or none of the sets holds a transition.
    """
    rows, dropped = rows_at_risk(grids, tables, model, seed)
    values = (rows.y == 1).astype(np.float64) if outcome.kind == "transition" else _follow(grids, rows, outcome, horizon, model)
    there = np.isfinite(values)
    if not there.any():
        raise DesignError(f"{outcome.quantity} is known after none of {len(rows)} epochs at risk: check the signal's clock, or use a shorter horizon")
    rows, values, dropped = rows[there], values[there], dropped | {"outcome missing": int((~there).sum())}
    exposed, unexposed = exposure_arms(rows, model.content)
    sets = match_rows(rows, exposed, unexposed, model, matching)
    if not len(sets.exposed):
        raise DesignError(
            f"none of {int(exposed.sum())} exposed epochs finds an unexposed one at the same time in bout and within {matching.width:g} SD in "
            f"{', '.join(sets.names[1:]) or 'time'}: widen the caliper, adjust for less, or use design='hazard'"
        )
    difference = matched_difference(values, rows, sets, model.weight)
    if outcome.kind != "transition":
        n_sets = np.bincount(rows.animal[sets.exposed], minlength=len(rows.names))
        return MatchedFit(difference, values, difference, rows, sets, exposed, unexposed, dropped, used=np.flatnonzero(n_sets))
    pooled, effects, variances, used, scores = conditional_effects(values, rows, sets)
    counts = np.bincount(rows.animal[sets.exposed], minlength=len(rows.names))[used]
    if len(used) < 2:
        bouts = len(np.unique(np.c_[rows.session, rows.bout], axis=0))
        result, between = Estimate.t(pooled, float(np.sqrt(variances[0])), bouts - 1), float("nan")
    else:
        result, between = random_effects(effects, variances, None if model.weight == "animal" else counts, floored=True)
    return MatchedFit(result, values, difference, rows, sets, exposed, unexposed, dropped, pooled, between, effects, variances, scores, used)


def _follow(grids: Sequence[EpochGrid], rows: RiskSet, outcome: Outcome, horizon: float, model: HazardModel) -> NDArray[np.float64]:
    """Time to the target or mean of the signal in the `horizon` seconds after each row's epoch (n,)."""
    values, hit, cut = np.full(len(rows), np.nan), np.zeros(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
    for i, g in enumerate(grids):
        mine = rows.session == i
        k = rows.k[mine]
        begin = g.time(k + 1)
        if outcome.kind == "signal":
            values[mine] = signal_after(g, outcome, begin, horizon, g.time(k - model.lag))
            continue
        n = len(g)
        leave = np.where(g.source, n, np.arange(n))
        j = np.minimum.accumulate(leave[::-1])[::-1][np.minimum(k, n - 1)]
        inner = np.minimum(j, n - 1)
        latency = np.minimum(g.time(j) - begin, horizon)
        within = g.time(j) - begin < horizon - 1e-6 * g.epoch
        values[mine], hit[mine], cut[mine] = latency, within & (j < n) & g.target[inner], within & ((j >= n) | ~g.scored[inner])
    if outcome.kind == "time":
        # What is lost of the horizon; time that was cut short is made up for by the epochs followed longer.
        return horizon - inverse_censoring(hit, cut, values) * (horizon - values)
    return values


def conditional_effects(
    y: NDArray[np.float64], rows: RiskSet, sets: MatchedSets
) -> tuple[float, NDArray[np.float64], NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:  # fmt: skip
    """Conditional logistic regression of the outcome on exposure within sets, for all sets and for each animal.

    Given that m of the k + 1 epochs of a set are followed by the target, the exposed one is among them with log odds
    b + log(m / (k + 1 - m)): a logistic regression with an offset. Sets without a target, or of nothing else, say nothing.

    Returns
    -------
    The pooled log odds ratio; and of each animal that says something the estimate (Firth), its variance, its index, and its score at no effect.

    References
    ----------
    Breslow & Day, Statistical Methods in Cancer Research I, ch. 7 (1980); Firth, Biometrika 80:27 (1993).
    """
    there = sets.control >= 0
    hits = y[sets.exposed] + np.where(there, y[sets.control], 0.0).sum(1)
    tells = (hits > 0) & (hits < sets.size + 1)
    m, k1 = hits[tells], sets.size[tells] + 1.0
    if not tells.any():
        raise DesignError(f"none of {len(hits)} matched sets holds both an epoch followed by the target and one that is not: nothing to estimate")
    offset, won, owner = np.log(m / (k1 - m)), y[sets.exposed[tells]], rows.animal[sets.exposed[tells]]
    n = len(rows.names)
    # Where every exposed epoch of a telling set, or none, is followed by the target, the plain likelihood has no maximum.
    pooled = float(_firth(won, offset, np.zeros(len(won), dtype=np.int64), 1, penalty=len(set(won)) == 1)[0])
    effects = _firth(won, offset, owner, n)
    p = expit(offset + pooled)
    information = np.bincount(owner, p * (1 - p), n)
    used = np.flatnonzero(information > 1e-3 * information.max())
    # A control serves in several sets; its bout ends once. How much that widens the spread is counted over bouts, for all animals together.
    each = np.c_[sets.exposed, sets.control][tells]
    credit = np.where(each >= 0, y[each], 0.0) * np.c_[1 - p / m, np.tile((-p / m)[:, None], (1, each.shape[1] - 1))]
    by_row = np.bincount(each[each >= 0], credit[each >= 0], len(rows))
    inflation = max(float(by_row @ by_row) / float(information.sum()), 1.0)
    scores = np.bincount(owner, won - m / k1, n)
    return pooled, effects[used], inflation / information[used], used, scores[used]


def _firth(y: NDArray[np.float64], offset: NDArray[np.float64], group: NDArray[np.int64], n: int, penalty: bool = True) -> NDArray[np.float64]:
    """Intercept of each group beside an offset, by Firth's penalised likelihood or, pooled, by plain likelihood."""
    b = np.zeros(n)
    for _ in range(60):
        p = expit(offset + b[group])
        v = p * (1 - p)
        total = np.maximum(np.bincount(group, v, n), 1e-12)
        pull = v / total[group] * (0.5 - p) if penalty else 0.0
        step = np.clip(np.bincount(group, y - p + pull, n) / total, -2.0, 2.0)
        b = np.clip(b + step, -25.0, 25.0)
        if np.abs(step).max() < 1e-9:
            break
    return b


def matched_difference(values: NDArray[np.float64], rows: RiskSet, sets: MatchedSets, weight: str = "animal") -> Estimate:
    """Mean over animals of exposed epochs' values less their matches', (n,) values; bouts are the units within an animal."""
    n = len(rows.names)
    w = sets.weights(rows.animal, n)
    mean = np.bincount(rows.animal, w * values, n)
    active = np.abs(w)
    centre = (np.bincount(rows.animal, active * values, n) / np.maximum(np.bincount(rows.animal, active, n), 1e-12))[rows.animal]
    _, unit = np.unique(np.c_[rows.session, rows.bout], axis=0, return_inverse=True)
    unit = unit.ravel()
    score = np.bincount(unit, w * (values - centre))
    owner = np.zeros(len(score), dtype=np.int64)
    owner[unit] = rows.animal
    variance = np.bincount(owner, score**2, n)
    sets_of = np.bincount(rows.animal[sets.exposed], minlength=n)
    use = (sets_of > 0) & (variance > 0)
    if use.sum() >= 2:
        return random_effects(mean[use], variance[use], None if weight == "animal" else sets_of[use], floored=True)[0]
    j = int(np.argmax(sets_of))
    bouts = len(np.unique(unit[(rows.animal == j) & (w != 0)]))
    return Estimate.t(float(mean[j]), float(np.sqrt(variance[j])) if variance[j] > 0 else float("nan"), bouts - 1)


def estimate_matched(
    grids: Sequence[EpochGrid], exposure: str | Mapping[str, EventTable], outcome: Outcome, *, horizon: float, model: HazardModel, matching: Matching,
    diagnostics: bool = True, draws: int = 10_000, seed: int = 0, progress: Callable[[str, float], None] | None = None,
) -> Effect:  # fmt: skip
    """Exposed epochs against their matches. See :func:`brainmu.estimate_effect` for the arguments.

    References
    ----------
    Li, Propert & Rosenbaum, J Am Stat Assoc 96:870 (2001); Lu, Biometrics 61:721 (2005).
    """
    from brainmu.causal.matched_diagnostics import describe_matched

    epoch = grids[0].epoch
    if model.count:
        raise DesignError("dose is 'count': matching compares exposed with unexposed epochs; leave dose out, or use design='hazard'")
    if outcome.kind == "transition" and model.width != epochs_in(horizon, epoch):
        raise DesignError(f"the model's window is {model.width} epochs and the horizon {epochs_in(horizon, epoch)}: expected the same")
    tables = [events_of(g.recording, exposure) for g in grids]
    check_exposure_tables(grids, tables)
    if progress is not None:
        progress("matching", 0.0)
    fitted = fit_matched(grids, tables, outcome, horizon, model, matching, seed)
    rows, n = fitted.rows, len(fitted.used)
    report: dict[str, Any] = {}
    if diagnostics:
        report = describe_matched(grids, tables, fitted, outcome, horizon, model, matching, draws=draws, seed=seed, progress=progress)
    unit = "log odds ratio" if outcome.kind == "transition" else "s" if outcome.kind == "time" else signal_unit(grids, outcome)
    clocks = ", time since sleep onset" if model.clock else ""
    what = outcome.transition.target if outcome.kind == "transition" else outcome.quantity
    adjusted = ", ".join(rows.covariates) or "no measured confounder"
    r, kind = fitted.result, outcome.kind
    return Effect(
        estimand=matched_sentence(model, outcome, horizon, epoch, adjusted, f"{n} animals"),
        estimate=r.estimate, low=r.low, high=r.high, p_value=r.p_value, unit=unit, level="observational", n_units=n,
        n_events=int(sum(len(t) for t in tables)),
        assumptions=[
            f"no cause of both events and {what} is left out: matched within animals on {adjusted}, time in bout{clocks}",
            "covariates are measured without error at the reference time",
            "exposed epochs without a match are not spoken for",
            "censoring (artefacts, gaps, ends) does not depend on what would have followed",
        ],
        diagnostics=report, scale="log odds ratio, conditional on the matched set" if kind == "transition" else "difference in means",
        regime="at least one event against none" if not isinstance(model.content, tuple) else f"{model.content[0]} against {model.content[1]}",
        population="exposed epochs that found a match, " + ("animals as a random sample" if model.weight == "animal" else "each counting equally"),
        risk_set=f"epochs scored {outcome.transition.source} with the next epoch scored, and the {model.lag} before them in the same bout",
        lag=model.lag, blank=model.blank, horizon=float(horizon), n_exposed=len(fitted.sets.exposed), n_transitions=int((rows.y == 1).sum()),
    )  # fmt: skip
