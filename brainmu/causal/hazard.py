"""Discrete-time cause-specific hazard: does an epoch with an event end its bout sooner than one without, all else equal?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.covariates import natural_spline, spline_knots
from brainmu.causal.grid import EpochGrid, epochs_in, events_of
from brainmu.causal.inference import Estimate, random_effects
from brainmu.causal.logistic import Fit, expit, firth_by_group, fit_or_shrink, independent_columns
from brainmu.causal.outcome import Outcome
from brainmu.causal.risk_set import RiskSet, build_risk_set
from brainmu.core.effect import Effect
from brainmu.core.events import EventTable
from brainmu.errors import DesignError

__all__ = ["HazardFit", "HazardModel", "estimate_hazard", "fit_hazard"]

AGE_DF, COVARIATE_DF, CLOCK_DF = 4, 3, 3


@dataclass(frozen=True)
class HazardModel:
    """What is asked of the risk set.

    Parameters
    ----------
    lag, width : int
        Epochs from exposure to outcome, and in the exposure window.
    blank : float, s
    adjust : tuple of str
        Signals to adjust for; adjust_window as in :func:`brainmu.causal.covariates.read_covariates`.
    content : None, str or (str, str)
        Any event; events of one content with the others beside it; or the first against the second.
    count : bool
        Events counted rather than any.
    clock : bool
        Adjust for time since sleep onset, and zeitgeber time where recordings know it.
    settle : float, s
        How long after the bout began events count; the epochs before that are left out.
    """

    lag: int = 1
    width: int = 1
    blank: float = 0.0
    adjust: tuple[str, ...] = ()
    adjust_window: float | None = None
    content: str | tuple[str, str] | None = None
    count: bool = False
    clock: bool = True
    weight: Literal["animal", "event"] = "animal"
    settle: float = 0.0

    def settled(self, epoch: float) -> int:
        """First epochs of a bout that are left out."""
        return int(np.ceil(self.settle / epoch - 1e-9))


@dataclass
class HazardFit:
    """The pooled fit and what it says of each animal.

    Attributes
    ----------
    result : Estimate
        Log odds ratio over the named population.
    pooled : float
        Log odds ratio of the pooled likelihood.
    model_se : float
        Its standard error if epochs were independent.
    between : float
        Standard deviation of the effect between animals; NaN with one animal.
    effects, variances : float64 (animals used,)
        Each animal's log odds ratio and sampling variance; `used` indexes `rows.names`.
    rows : RiskSet
        Rows that entered.
    x : float64 (n,)
        Exposure; z : float64 (n, p) everything adjusted for; names : columns of z.
    residual : float64 (n,)
        Exposure less what z predicts of it, weighted by the fit: what identifies the effect.
    """

    result: Estimate
    pooled: float
    model_se: float
    between: float
    effects: NDArray[np.float64]
    variances: NDArray[np.float64]
    used: NDArray[np.int64]
    rows: RiskSet
    x: NDArray[np.float64]
    z: NDArray[np.float64]
    names: list[str]
    fit: Fit
    residual: NDArray[np.float64]
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def risk_difference(self) -> dict[str, float]:
        """Standardised per-epoch risk difference: every epoch at risk exposed against none, baseline as fitted; animals count equally."""
        base = self.fit.eta - self.pooled * self.x
        n = len(self.rows.names)
        size = np.bincount(self.rows.animal, minlength=n)
        share = np.where(size > 0, 1 / np.maximum(size, 1), 0)[self.rows.animal] / (size > 0).sum()

        def at(b: float) -> float:
            return float(share @ (expit(base + b) - expit(base))) if np.isfinite(b) else float("nan")

        return {"estimate": at(self.result.estimate), "low": at(self.result.low), "high": at(self.result.high), "risk_unexposed": float(share @ expit(base))}


def fit_hazard(grids: Sequence[EpochGrid], tables: Sequence[EventTable], model: HazardModel, seed: int = 0) -> HazardFit:
    """Fit the hazard and combine animals.

    The pooled likelihood has animal intercepts, a natural spline of time in bout and the covariates. Each animal's own effect is then
    fitted (Firth) on the exposure freed of what the covariates predict, and animals are combined as a population: random effects with
    the Hartung–Knapp t interval.

    Raises
    ------
    DesignError
        If an arm is empty, a covariate is missing everywhere, or no animal has exposed and unexposed epochs.
    """
    return fit_rows(_risk_set(grids, tables, model, seed), model)


def fit_rows(rows: RiskSet, model: HazardModel) -> HazardFit:
    """:func:`fit_hazard` on a risk set that stands."""
    rows, dropped = complete_rows(rows)
    x, others, other_names = exposure_columns(rows, model)
    _check_exposure(rows, x)
    z, names = design_matrix(rows, model)
    return fit_exposure(rows, x, np.c_[z, others] if others.shape[1] else z, names + other_names, model.weight, dropped)


def fit_exposure(
    rows: RiskSet, x: NDArray[np.float64], z: NDArray[np.float64], names: list[str], weight: str, dropped: dict[str, int],
) -> HazardFit:  # fmt: skip
    """The effect of the column `x` (n,) beside the columns `z` (n, p), which may repeat each other."""
    keep = independent_columns(np.c_[z, x])
    if z.shape[1] not in keep:
        raise DesignError("the exposure is fully predicted by what is adjusted for: drop the covariate that repeats it")
    z, names = z[:, keep[:-1]], [names[i] for i in keep[:-1]]
    y = (rows.y == 1).astype(np.float64)
    fit, shrunk = fit_or_shrink(np.c_[z, x], y, len(np.unique(rows.animal)))
    dropped |= {"shrunk": int(shrunk)} if shrunk else {}
    return combine_animals(rows, x, z, names, fit, float(fit.coef[-1]), weight, dropped)


def combine_animals(
    rows: RiskSet, x: NDArray[np.float64], z: NDArray[np.float64], names: list[str], fit: Fit, beta: float, weight: str, dropped: dict[str, int],
    exposed: NDArray[np.bool_] | None = None,
) -> HazardFit:  # fmt: skip
    """Each animal's own effect of `x`, whose pooled coefficient in `fit` is `beta`, and their combination.

    Animals without an `exposed` row (by default one where `x` is not 0) say nothing of it: what is left of `x` in them comes of curves shared with the others.
    """
    y = (rows.y == 1).astype(np.float64)
    v = fit.p * (1 - fit.p)
    zv = z * v[:, None]
    residual = x - z @ np.linalg.lstsq(zv.T @ z, zv.T @ x, rcond=None)[0]
    n = len(rows.names)
    information = np.bincount(rows.animal, v * residual**2, n)
    hits = np.bincount(rows.animal, y, n)
    n_exposed = np.bincount(rows.animal, x != 0 if exposed is None else exposed, n)
    used = np.flatnonzero((information > 1e-3 * information.max()) & (hits > 0) & (n_exposed > 0))
    common: dict[str, Any] = {
        "pooled": beta, "model_se": float(1 / np.sqrt(information.sum())), "used": used, "rows": rows, "x": x, "z": z, "names": names, "fit": fit,
        "residual": residual, "dropped": dropped,
    }  # fmt: skip
    if len(used) < 2:
        result = _within_one_animal(rows, y - fit.p, residual, beta, float(information.sum()))
        return HazardFit(result=result, between=float("nan"), effects=np.array([beta]), variances=1 / information[used], **common)
    effects = firth_by_group(residual, y, rows.animal, n, fit.eta - beta * residual)[used]
    variances = 1 / information[used]
    result, between = random_effects(effects, variances, None if weight == "animal" else n_exposed[used])
    # What all animals share (splines, covariates) was fitted to the same transitions, which brings animals closer together than they are.
    shared, found = z.shape[1] - len(np.unique(rows.animal)), float(y.sum())
    result = Estimate.t(result.estimate, result.se * float(np.sqrt(found / max(found - shared, 1.0))), result.df)
    return HazardFit(result=result, between=between, effects=effects, variances=variances, **common)


def _within_one_animal(rows: RiskSet, score: NDArray[np.float64], residual: NDArray[np.float64], beta: float, information: float) -> Estimate:
    """One animal: bouts are the clusters, and nothing is said of other animals."""
    _, bout = np.unique(np.c_[rows.session, rows.bout], axis=0, return_inverse=True)
    s = np.bincount(bout.ravel(), score * residual)
    n = len(s)
    return Estimate.t(beta, float(np.sqrt(n / (n - 1) * (s @ s))) / information if n > 1 else float("nan"), n - 1)


def complete_rows(rows: RiskSet) -> tuple[RiskSet, dict[str, int]]:
    """Rows whose covariates are all there, of animals that reach the target at least once; and how many were left out."""
    there = np.isfinite(rows.values).all(1)
    if len(rows) and not there.any():
        missing = [c for c, v in zip(rows.covariates, rows.values.T) if not np.isfinite(v).any()]
        raise DesignError(f"covariate {', '.join(missing) or 'values'} has no sample at or before any of the {len(rows)} reference times: check its clock")
    out = rows[there]
    hits = np.bincount(out.animal, out.y == 1, len(rows.names))
    keep = hits[out.animal] > 0
    dropped = {"covariate missing": int((~there).sum()), "animal never reaches the target": int((~keep).sum())}
    return out[keep], dropped


def rows_at_risk(grids: Sequence[EpochGrid], tables: Sequence[EventTable], model: HazardModel, seed: int) -> tuple[RiskSet, dict[str, int]]:
    """The complete rows of the risk set that a model asks for, and how many were left out. Raises DesignError where none is left."""
    rows, dropped = complete_rows(_risk_set(grids, tables, model, seed))
    if not len(rows):
        raise DesignError("no epoch at risk is followed by the target: nothing to estimate; check outcome, labels and lag")
    return rows, dropped


def _risk_set(grids: Sequence[EpochGrid], tables: Sequence[EventTable], model: HazardModel, seed: int) -> RiskSet:
    return build_risk_set(
        grids, tables, lag=model.lag, width=model.width, blank=model.blank, adjust=model.adjust, adjust_window=model.adjust_window, seed=seed,
        settled=model.settled(grids[0].epoch),
    )  # fmt: skip


def exposure_columns(rows: RiskSet, model: HazardModel) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    """The exposure (n,), the contents that stand beside it (n, m), and their names."""
    dose = rows.dose.astype(np.float64) if model.count else (rows.dose > 0).astype(np.float64)
    if model.content is None:
        total = rows.dose.sum(1)
        return (total if model.count else total > 0).astype(np.float64), np.empty((len(rows), 0)), []
    wanted = (model.content,) if isinstance(model.content, str) else tuple(model.content)
    for c in wanted:
        if c not in rows.contents:
            raise DesignError(f"content {c!r} does not occur among the events, they have {', '.join(map(repr, rows.contents))}")
    i = rows.contents.index(wanted[0])
    rest = [j for j in range(len(rows.contents)) if j != i]
    beside, names = dose[:, rest], [f"content {rows.contents[j]}" for j in rest]
    if len(wanted) == 2:
        # With the sum of both beside it, the coefficient of the first is its difference from the second.
        j = rest.index(rows.contents.index(wanted[1]))
        beside[:, j] += dose[:, i]
        names[j] = f"content {wanted[0]} + {wanted[1]}"
    return dose[:, i], beside, names


def _check_exposure(rows: RiskSet, x: NDArray[np.float64]) -> None:
    n1, n0 = int((x != 0).sum()), int((x == 0).sum())
    if not len(rows) or not (rows.y == 1).any():
        raise DesignError("no epoch at risk is followed by the target: nothing to estimate; check outcome, labels and lag")
    if not n1 or not n0:
        raise DesignError(f"of {len(rows)} epochs at risk {n1} are exposed and {n0} are not, expected some of both: check the events' clock, content and lag")


def design_matrix(rows: RiskSet, model: HazardModel) -> tuple[NDArray[np.float64], list[str]]:
    """Animal intercepts, spline of time in bout, covariates and clocks, (n, p), and column names. Not yet free of repetition."""
    present = np.unique(rows.animal)
    columns = [(rows.animal[:, None] == present).astype(np.float64)]
    names = [f"animal {rows.names[j]}" for j in present]

    def smooth(values: NDArray[np.float64], df: int, name: str) -> None:
        basis = natural_spline(values, spline_knots(values, df))
        columns.append(basis)
        names.extend(f"{name} {i + 1}" for i in range(basis.shape[1]))

    smooth(np.log2(rows.age.astype(np.float64)), AGE_DF, "time in bout")
    for j, name in enumerate(rows.covariates):
        v = rows.values[:, j]
        smooth(v, COVARIATE_DF if len(np.unique(v[:5000])) > 8 else 1, name)
    if model.clock:
        smooth(rows.onset_hours, CLOCK_DF, "time since sleep onset")
        if np.isfinite(rows.zeitgeber).all() and len(rows):
            phase = rows.zeitgeber * (2 * np.pi / 24)
            columns.append(np.c_[np.sin(phase), np.cos(phase)])
            names += ["zeitgeber sin", "zeitgeber cos"]
    return np.concatenate(columns, axis=1), names


def estimate_hazard(
    grids: Sequence[EpochGrid], exposure: str | Mapping[str, EventTable], outcome: Outcome, *, horizon: float, model: HazardModel,
    diagnostics: bool = True, draws: int = 10_000, seed: int = 0, progress: Callable[[str, float], None] | None = None,
) -> Effect:  # fmt: skip
    """Log odds ratio of leaving for the target after an event. See :func:`brainmu.estimate_effect` for the arguments.

    References
    ----------
    Allison, Sociological Methodology 13:61 (1982); Hartung & Knapp, Statistics in Medicine 20:3875 (2001).
    """
    from brainmu.causal.estimand import hazard_sentence
    from brainmu.causal.hazard_diagnostics import describe_hazard

    epoch, transition = grids[0].epoch, outcome.transition
    width = epochs_in(horizon, epoch)
    if model.width != width:
        raise DesignError(f"the model's window is {model.width} epochs and the horizon {width}: expected the same")
    tables = [events_of(g.recording, exposure) for g in grids]
    check_exposure_tables(grids, tables)
    fitted = fit_hazard(grids, tables, model, seed)
    rows = fitted.rows
    report: dict[str, Any] = {}
    if diagnostics:
        report = describe_hazard(grids, tables, fitted, model, transition, draws=draws, seed=seed, progress=progress)
    n_used = len(fitted.used)
    adjusted = ", ".join(rows.covariates) or "no measured confounder"
    clocks = ", time since sleep onset" if model.clock else ""
    return Effect(
        estimand=hazard_sentence(model, outcome, horizon, epoch, adjusted, f"{n_used} animals"),
        estimate=fitted.result.estimate, low=fitted.result.low, high=fitted.result.high, p_value=fitted.result.p_value,
        unit="log odds ratio", level="observational", n_units=n_used, n_events=int(sum(len(t) for t in tables)),
        assumptions=[
            f"no cause of both events and {transition.target} is left out: adjusted for {adjusted}, time in bout{clocks} and animal",
            "covariates are measured without error at the reference time",
            "every kind of epoch could have held an event or not (positivity)",
            "censoring (artefacts, gaps, ends) does not depend on what would have followed",
        ],
        diagnostics=report, scale="log odds ratio, conditional", regime="one event more" if model.count else "at least one event against none",
        population="animals (random effects)" if model.weight == "animal" else "exposed epochs, each counting equally",
        risk_set=f"epochs scored {transition.source} with the next epoch scored, and the {model.lag} before them in the same bout",
        lag=model.lag, blank=model.blank, horizon=float(horizon), n_exposed=int((fitted.x != 0).sum()), n_transitions=int((rows.y == 1).sum()),
    )  # fmt: skip


def describe_exposure(model: HazardModel) -> str:
    """The exposure in words."""
    what = "an event" if model.content is None else f"an event of content {model.content}"
    if isinstance(model.content, tuple):
        what = f"an event of content {model.content[0]} rather than {model.content[1]}"
    return f"each {what.split(' ', 1)[1]}" if model.count else what


def check_exposure_tables(grids: Sequence[EpochGrid], tables: Sequence[EventTable]) -> None:
    """DesignError where there are no events, or none within the scoring."""
    total = sum(len(t) for t in tables)
    if not total:
        raise DesignError(f"the exposure tables of {len(grids)} recordings hold no events, expected some in each animal")
    inside = sum(int(((t.start >= g.start) & (t.start < g.stop)).sum()) for g, t in zip(grids, tables))
    if inside < 0.5 * total:
        raise DesignError(
            f"{total - inside} of {total} events lie outside the scored time, so the exposure cannot precede the outcome: "
            "expected both on the session clock, check their offset"
        )
