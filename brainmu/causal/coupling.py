"""Point-process coupling: how the chance of a transition follows the time since an event, by regression on the history of events.

Events and transitions are two point processes. The second one's intensity is discretised to the epoch; each event within the bout adds
to its log odds a filter of the time since, made of raised cosines in log time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.controls import past_controls
from brainmu.causal.estimand import coupling_sentence
from brainmu.causal.grid import EpochGrid, events_of, exposure_of
from brainmu.causal.hazard import HazardFit, HazardModel, check_exposure_tables, combine_animals, design_matrix, rows_at_risk
from brainmu.causal.inference import Estimate, wild_bootstrap
from brainmu.causal.leakage import design_warnings, find_leaks
from brainmu.causal.logistic import fit_or_shrink, independent_columns
from brainmu.causal.outcome import Outcome
from brainmu.causal.risk_set import RiskSet, build_risk_set
from brainmu.causal.sensitivity import describe_sensitivity, failed_controls, noisy_covariates
from brainmu.core.effect import Effect
from brainmu.core.events import EventTable
from brainmu.errors import DesignError

__all__ = ["estimate_coupling", "fit_coupling", "raised_cosines"]

MOST_SHIFTS = 999
_POINTS = 12


def raised_cosines(seconds: NDArray[np.float64], first: float, last: float, n: int) -> NDArray[np.float64]:
    """Raised cosines in log time since an event, (len(seconds), n); they sum to one between `first` and `last` and are zero beyond.

    Parameters
    ----------
    seconds : float64 (m,), s
        Time since an event.
    first, last : float, s
    n : int
        1 gives a constant.

    References
    ----------
    Pillow et al., Nature 454:995 (2008).

    Examples
    --------
    >>> raised_cosines(np.array([3.0, 4.0, 10.0, 24.0, 25.0]), 4.0, 24.0, 3).sum(1).round(6).tolist()
    [0.0, 1.0, 1.0, 1.0, 0.0]
    """
    t = np.asarray(seconds, dtype=np.float64)
    inside = (t >= first - 1e-9) & (t <= last + 1e-9)
    if n == 1:
        return inside[:, None].astype(np.float64)
    # Log time from a shift that keeps the first bump as wide as a sixth of the span: log(0) where the first lag is zero.
    shift = (last - first) / 6
    at = np.log((np.clip(t, first, last) - first) / shift + 1) / np.log((last - first) / shift + 1) * (n - 1)
    away = np.clip(np.abs(at[:, None] - np.arange(n)), 0.0, 1.0)
    return 0.5 * (1 + np.cos(np.pi * away)) * inside[:, None]


@dataclass
class _History:
    """Events of one recording and the epochs they reach, both in the running number of its source epochs.

    `place` (m,) of each event; `shape` (m, width, basis) raised cosines at each epoch it reaches; `bout` (n,) of each source epoch;
    `row` (n,) its row of the risk set, -1 where it has none; `lags` (width,) epochs from an event's own.
    """

    place: NDArray[np.int64]
    shape: NDArray[np.float64]
    bout: NDArray[np.int64]
    row: NDArray[np.int64]
    lags: NDArray[np.int64]

    def reached(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Row that each source epoch reaches at each lag, (n, width), and whether it lies in the same bout and has one."""
        n = len(self.bout)
        to = np.arange(n)[:, None] + self.lags
        inside = to < n
        to = np.minimum(to, n - 1)
        rows = self.row[to]
        return rows, inside & (self.bout[to] == self.bout[:, None]) & (rows >= 0)


@dataclass
class CouplingFit:
    """The fit, and its filter.

    Attributes
    ----------
    main : HazardFit
        Of the filter's mean over the horizon.
    seconds : float64 (p,), s; filter : list of Estimate
        Log odds ratio an event at times since it.
    histories : one a recording; followed : bool (n,), whether a row follows an event.
    null_p : float64 (n,)
        Probability of the target by everything but the events.
    likelihood_ratio : dict
        Of all cosines together, as if epochs were independent.
    """

    main: HazardFit
    seconds: NDArray[np.float64]
    filter: list[Estimate]
    histories: list[_History]
    followed: NDArray[np.bool_]
    null_p: NDArray[np.float64]
    likelihood_ratio: dict[str, float]

    @property
    def basis(self) -> int:
        """Raised cosines."""
        return self.histories[0].shape.shape[2]


def fit_coupling(grids: Sequence[EpochGrid], tables: Sequence[EventTable], model: HazardModel, basis: int, seed: int = 0) -> CouplingFit:
    """Fit the filter, and combine animals for its mean and at points along it.

    Raises
    ------
    DesignError
        If a content does not occur, nothing reaches the target, or there are too few events for so many cosines.
    """
    rows, dropped = rows_at_risk(grids, tables, model, seed)
    n = min(int(basis), model.width)
    first, last = model.lag * rows.epoch, (model.lag + model.width) * rows.epoch
    columns, beside, histories = _contents(grids, tables, rows, model, n)
    counts = np.concatenate([exposure_of(g, t.start, model.blank)[0][g.at_risk] for g, t in zip(grids, tables)])
    if counts.min() == counts.max() > 0:
        raise DesignError(f"each of {len(counts)} epochs at risk holds {counts[0]} events, expected some without: there is nothing to compare them with")
    if not columns.any():
        raise DesignError(
            f"none of {len(rows)} epochs at risk follows an event of its bout by {first:g} to {last:g} s: check the events' clock, content and lag"
        )
    followed = (columns > 0).any(1)
    if model.adjust and model.width > 1:
        columns, beside, histories = _contents(grids, tables, rows, model, n, _expected(grids, tables, model, seed))
    z, names = design_matrix(rows, model)
    z, names = np.c_[z, beside], names + [f"beside {i + 1}" for i in range(beside.shape[1])]
    keep = independent_columns(np.c_[z, columns])
    if not set(range(z.shape[1], z.shape[1] + n)) <= set(keep.tolist()):
        raise DesignError(f"{int(followed.sum())} epochs follow an event, too few to tell {n} raised cosines apart: use basis={max(n - 1, 1)}")
    z, names = z[:, keep[:-n]], [names[i] for i in keep[:-n]]
    y, free = (rows.y == 1).astype(np.float64), len(np.unique(rows.animal))
    fit, shrunk = fit_or_shrink(np.c_[z, columns], y, free)
    null = fit_or_shrink(z, y, free)[0]
    dropped |= {"shrunk": 1} if shrunk else {}

    def along(direction: NDArray[np.float64]) -> HazardFit:
        """The effect of one combination of the cosines, the others beside it."""
        v = direction / (direction @ direction)
        rest = np.linalg.svd(direction[None])[2][1:].T
        return combine_animals(rows, columns @ v, np.c_[z, columns @ rest], names, fit, float(direction @ fit.coef[-n:]), model.weight, dict(dropped), followed)

    fine = np.linspace(first, last, 1001)[1:]
    main = along(raised_cosines(fine, first, last, n).mean(0))
    seconds = first + (last - first) * (np.arange(_POINTS) + 0.5) / _POINTS
    curve = [along(b).result for b in raised_cosines(seconds, first, last, n)] if n > 1 else []
    ratio = 2 * (fit.log_likelihood - null.log_likelihood)
    return CouplingFit(main, seconds if n > 1 else np.empty(0), curve, histories, followed, null.p, _chi2(ratio, n))


def _chi2(statistic: float, df: int) -> dict[str, float]:
    from scipy import stats

    return {"statistic": max(statistic, 0.0), "df": float(df), "p_value": float(stats.chi2.sf(max(statistic, 0.0), df))}


def _contents(
    grids: Sequence[EpochGrid], tables: Sequence[EventTable], rows: RiskSet, model: HazardModel, n: int, expected: _Expected | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64], list[_History]]:  # fmt: skip
    """Columns of the events asked for, those of other contents (each less what was to be expected, where that is given), and the histories of the former."""
    expected = expected or {}
    if model.content is None:
        histories = [_history(i, g, t.start, rows, model, n) for i, (g, t) in enumerate(zip(grids, tables))]
        return _sum_up(histories, len(rows), n, expected.get(None)), np.empty((len(rows), 0)), histories
    wanted = (model.content,) if isinstance(model.content, str) else tuple(model.content)
    for c in wanted:
        if c not in rows.contents:
            raise DesignError(f"content {c!r} does not occur among the events, they have {', '.join(map(repr, rows.contents))}")
    by: dict[str, NDArray[np.float64]] = {}
    kept: list[_History] = []
    for c in rows.contents:
        histories = [_history(i, g, t.start[np.asarray(t.content).astype(str) == c], rows, model, n) for i, (g, t) in enumerate(zip(grids, tables))]
        by[c] = _sum_up(histories, len(rows), n, expected.get(c))
        kept = histories if c == wanted[0] else kept
    columns = by.pop(wanted[0])
    if len(wanted) == 2:
        # With the sum of both beside it, the filter of the first is its difference from the second's.
        by[wanted[1]] = by[wanted[1]] + columns
    return columns, np.concatenate(list(by.values()), axis=1) if by else np.empty((len(rows), 0)), kept


def _history(i: int, grid: EpochGrid, starts: NDArray[np.float64], rows: RiskSet, model: HazardModel, n: int) -> _History:
    source = np.flatnonzero(grid.source)
    running = np.cumsum(grid.source) - 1
    row = np.full(len(grid), -1)
    mine = np.flatnonzero(rows.session == i)
    row[rows.k[mine]] = mine
    k = grid.index(starts)
    ok = (k >= 0) & (k < len(grid))
    k, starts = k[ok], np.asarray(starts, dtype=np.float64)[ok]
    offset = np.clip(starts - grid.time(k), 0.0, grid.epoch)
    ok = (grid.age[k] > model.settled(grid.epoch)) & ((offset < grid.epoch - model.blank) | (model.blank == 0))
    k, offset = k[ok], offset[ok]
    lags = model.lag + np.arange(model.width)
    since = (lags + 1) * grid.epoch - offset[:, None]
    first = model.lag * grid.epoch
    shape = raised_cosines(since.ravel(), first, first + model.width * grid.epoch, n).reshape(len(k), len(lags), n)
    return _History(running[k], shape, grid.bout[source], row[source], lags)


def _sum_up(histories: Sequence[_History], n_rows: int, n: int, expected: Sequence[NDArray[np.float64]] | None = None) -> NDArray[np.float64]:
    """Each cosine summed over the events before each row, (n_rows, n); less those `expected` in each source epoch, of the shape that events have on average."""
    out = np.zeros((n_rows, n))
    shapes = np.concatenate([h.shape for h in histories])
    for i, h in enumerate(histories):
        rows, ok = h.reached()
        if len(h.place):
            np.add.at(out, rows[h.place][ok[h.place]], h.shape[ok[h.place]])
        if expected is not None and len(shapes):
            np.subtract.at(out, rows[ok], (expected[i][:, None, None] * shapes.mean(0))[ok])
    return out


_Expected = dict[str | None, list[NDArray[np.float64]]]
"""By content (None: any), for each recording: events to be expected in each of its source epochs, (n,)."""


def _expected(grids: Sequence[EpochGrid], tables: Sequence[EventTable], model: HazardModel, seed: int) -> _Expected:
    """Events that each epoch would hold by what was known before its own first one: least squares on covariates, time in bout, clocks and animal.

    What drives both events and transitions moves on within the horizon, and a covariate from before the first event of all says too little of the later
    ones. Freed of what is to be expected at its own time, each event is as if dealt out by chance, while nothing that it may itself have changed is adjusted
    for. The fit is of epochs after which the animal stayed at risk, as it did after every event that a row follows.

    References
    ----------
    Robins, Mark & Newey, Biometrics 48:479 (1992); Keogh et al., Am J Epidemiol 187:1085 (2018), sequential conditional means.
    """
    rest = model.settled(grids[0].epoch)
    rows = build_risk_set(
        grids, tables, lag=0, width=1, blank=model.blank, adjust=model.adjust, adjust_window=model.adjust_window, seed=seed, settled=rest
    )  # fmt: skip
    there = np.isfinite(rows.values).all(1)
    rows = dataclasses.replace(rows, values=np.where(there[:, None], rows.values, np.nanmean(rows.values, axis=0)))
    stays, x = rows.stays(model.lag, rest), design_matrix(rows, model)[0]
    dose = np.c_[rows.dose, rows.dose.sum(1)].astype(np.float64)
    by = x @ np.linalg.lstsq(x[stays & there], dose[stays & there], rcond=None)[0]
    out: _Expected = {}
    for j, name in enumerate([*rows.contents, None]):
        out[name] = []
        for i, g in enumerate(grids):
            mine = rows.session == i
            each = np.zeros(len(g))
            each[rows.k[mine]] = by[mine, j]
            out[name].append(each[g.source])
    return out


def circular_shift(fitted: CouplingFit, draws: int, seed: int) -> dict[str, Any]:
    """Is the coupling more than that of the same events shifted, each recording's by its own random number of epochs along its source epochs?

    The statistic is the score of all cosines, in the spread of its shifts. It tests association: whatever drives both slowly passes it.
    """
    rows = fitted.main.rows
    residual = (rows.y == 1) - fitted.null_p
    rng = np.random.default_rng(seed)
    n = fitted.basis
    scores = np.zeros((draws + 1, n))
    for h in fitted.histories:
        if not len(h.place):
            continue
        to, ok = h.reached()
        left = np.where(ok, residual[to], 0.0)
        size = len(h.bout)
        for d, by in enumerate(np.r_[0, rng.integers(1, max(size, 2), draws)]):
            scores[d] += np.einsum("ml,mlb->b", left[(h.place + by) % size], h.shape)
    null = scores[1:]
    away = scores - null.mean(0)
    statistic = np.einsum("db,bc,dc->d", away, np.linalg.pinv(np.cov(null, rowvar=False).reshape(n, n)), away)
    p = (1 + int((statistic[1:] >= statistic[0] - 1e-12).sum())) / (draws + 1)
    return {"label": "association", "statistic": float(statistic[0]), "draws": draws, "p_value": float(p)}


def estimate_coupling(
    grids: Sequence[EpochGrid], exposure: str | Mapping[str, EventTable], outcome: Outcome, *, horizon: float, model: HazardModel, basis: int = 4,
    diagnostics: bool = True, draws: int = 10_000, seed: int = 0, progress: Callable[[str, float], None] | None = None,
) -> Effect:  # fmt: skip
    """Log odds ratio of the target an event, averaged over the time since it. See :func:`brainmu.estimate_effect` for the arguments.

    References
    ----------
    Truccolo et al., J Neurophysiol 93:1074 (2005); Pillow et al., Nature 454:995 (2008).
    """
    if basis != int(basis) or basis < 1:
        raise DesignError(f"basis is {basis}, expected a whole number of raised cosines: 4 is the default")
    tables = [events_of(g.recording, exposure) for g in grids]
    check_exposure_tables(grids, tables)
    fitted = fit_coupling(grids, tables, model, basis, seed)
    main, rows = fitted.main, fitted.main.rows
    report: dict[str, Any] = {}
    if diagnostics:
        report = _describe(grids, tables, fitted, model, outcome, draws=draws, seed=seed, progress=progress)
    n = len(main.used)
    adjusted = ", ".join(rows.covariates) or "no measured confounder"
    clocks = ", time since sleep onset" if model.clock else ""
    r = main.result
    return Effect(
        estimand=coupling_sentence(model, outcome, horizon, rows.epoch, adjusted, f"{n} animals"),
        estimate=r.estimate, low=r.low, high=r.high, p_value=r.p_value, unit="log odds ratio", level="observational", n_units=n,
        n_events=int(sum(len(t) for t in tables)),
        assumptions=[
            f"no cause of both events and {outcome.transition.target} is left out: adjusted for {adjusted}, time in bout{clocks} and animal",
            "covariates are measured without error before each event",
            "events add up on the log odds, and act within the bout and the horizon only",
            "censoring (artefacts, gaps, ends) does not depend on what would have followed",
        ],
        diagnostics=report, scale="log odds ratio, conditional", regime="one event more, at a time since drawn evenly from the horizon",
        population="animals (random effects)" if model.weight == "animal" else "epochs after an event, each counting equally",
        risk_set=f"epochs scored {outcome.transition.source} with the next epoch scored, and the {model.lag} before them in the same bout",
        lag=model.lag, blank=model.blank, horizon=float(horizon), n_exposed=int(fitted.followed.sum()), n_transitions=int((rows.y == 1).sum()),
    )  # fmt: skip


def _describe(
    grids: Sequence[EpochGrid], tables: Sequence[EventTable], fitted: CouplingFit, model: HazardModel, outcome: Outcome, *, draws: int, seed: int,
    progress: Callable[[str, float], None] | None,
) -> dict[str, Any]:  # fmt: skip
    main, rows = fitted.main, fitted.main.rows
    y = (rows.y == 1).astype(np.float64)
    # Scores at the fit without events; what the other cosines share with this one is not taken out of it.
    score = np.bincount(rows.animal, main.residual * (y - fitted.null_p), len(rows.names))[main.used]
    shifts = min(draws, MOST_SHIFTS)
    if progress is not None:
        progress("circular shifts", 0.3)
    out: dict[str, Any] = {
        "log_odds_ratio": main.result.as_dict(), "odds_ratio": {k: float(np.exp(getattr(main.result, k))) for k in ("estimate", "low", "high")},
        "between_animals_sd": main.between, "pooled": {"estimate": main.pooled, "model_se": main.model_se},
        "filter": [{"seconds": float(s)} | e.as_dict() for s, e in zip(fitted.seconds, fitted.filter)], "basis": fitted.basis,
        "likelihood_ratio": fitted.likelihood_ratio, "wild_bootstrap_p": wild_bootstrap(score, draws=draws or 9999, seed=seed),
        "circular_shift": circular_shift(fitted, shifts, seed) if shifts and not isinstance(model.content, tuple) else {},
        "animals": [{"animal": rows.names[j], "estimate": float(e), "se": float(np.sqrt(v))} for j, e, v in zip(main.used, main.effects, main.variances)],
        "rows": {"at_risk": len(rows), "target": int(y.sum()), **{f"left out: {k}": v for k, v in main.dropped.items() if k != "shrunk"}},
        "covariates": list(rows.covariates), "negative_controls": past_controls(grids, rows, main.x, main.z), "leaks": find_leaks(grids, tables, model.adjust),
    }  # fmt: skip
    risk = main.risk_difference["risk_unexposed"]
    out["sensitivity"] = describe_sensitivity(main.result, risk, [g.recording for g in grids], model.adjust, grids[0].epoch)
    out["warnings"] = _warnings(fitted, model, out)
    out["verdict"] = _verdict(main.result, out, outcome)
    if progress is not None:
        progress("done", 1.0)
    return out


def _warnings(fitted: CouplingFit, model: HazardModel, out: dict[str, Any]) -> list[str]:
    said = [*out["leaks"], *design_warnings(model.lag, len(fitted.main.used))]
    if not fitted.main.rows.covariates:
        said.append("no measured confounder is adjusted for: the filter and its tests show association, which a slow common cause makes out of nothing")
    said += failed_controls(out["negative_controls"]) + noisy_covariates(out["sensitivity"], "adjustment")
    if fitted.main.dropped.get("shrunk"):
        said.append("the data are sparse: some covariate or cosine separates the transitions, so its coefficient is held back by a weak prior")
    return said


def _verdict(r: Estimate, out: dict[str, Any], outcome: Outcome) -> str:
    shift = out["circular_shift"]
    also = f" The circular shift (association) gives p = {shift['p_value']:.2g}." if shift else ""
    failed = [w for w in out["warnings"] if "negative control fails" in w or "no measured confounder" in w or "looks noisy" in w or "lag=0" in w or "leak" in w]
    what = outcome.transition
    if not np.isfinite(r.p_value) or r.p_value >= 0.05:
        span = f"odds ratios an event from {np.exp(r.low):.2f} to {np.exp(r.high):.2f}"
        return f"No coupling to {what} is shown on average over the horizon; the interval admits {span}.{also}"
    text = f"Events go with {'more' if r.estimate > 0 else 'fewer'} {what} (odds ratio an event {np.exp(r.estimate):.2f} on average over the horizon)"
    if failed:
        return f"{text}, but as an association only: {failed[0]}.{also}"
    strength = f"A left-out cause tied to both by a risk ratio of {out['sensitivity']['e_value_interval']:.2f} would overturn it"
    return f"{text}, given what was adjusted for. {strength}; a randomised trial would settle it.{also}"
