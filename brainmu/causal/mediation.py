"""Does what a randomised trial does to sleep go through a recorded population? Natural direct and indirect effects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.covariates import natural_spline, read_covariates, spline_knots
from brainmu.causal.exposures import check_exposures
from brainmu.causal.grid import EpochGrid, check_epoch, subjects_of
from brainmu.causal.mediation_diagnostics import describe_mediation, mediation_verdict
from brainmu.causal.mediation_model import MediationRows, jackknifed
from brainmu.causal.mediator import Mediator, read_activity
from brainmu.causal.outcome import Outcome, inverse_censoring
from brainmu.causal.randomise import inverse_probability
from brainmu.causal.trial_risk import competing_rules
from brainmu.causal.trial_table import Trials, collect_trials
from brainmu.core.effect import Effect
from brainmu.core.events import EventTable
from brainmu.core.recording import Recording, as_list
from brainmu.errors import DesignError

__all__ = ["mediation"]

BASELINE = 10.0
"""Least seconds before the onset over which the mediator is read to adjust for it: a slow cause shows better in a longer mean."""

FEWEST = 4
"""Trials an arm that an animal must have to be analysed."""


def mediation(
    sessions: Recording | Iterable[Recording], *, mediator: str, exposure: str | Mapping[str, EventTable] = "trials", outcome: str = "NREM->WAKE",
    window: float = 2.0, blank: float = 0.0, gap: float | None = None, horizon: float = 20.0, adjust: Sequence[str] = (), baseline: float | None = None,
    labels: str | None = "scoring", content: str | None = None, contrast: tuple[str, str] | None = None, scheme: str | None = None,
    competing: str | Mapping[str, str] | None = None,
) -> Effect:  # fmt: skip
    """How much of a randomised trial's effect on sleep goes through a recorded population?

    Assignment, then the mediator in (onset + blank, onset + window], then the transition in (onset + window + gap, onset + horizon]. Trials whose animal has
    left the stage by onset + window + gap cannot answer and are left out; the effect of assignment on leaving so early stands beside.

    Parameters
    ----------
    sessions : Recording or Session, or several
    mediator : str
        "spikes" (all units), "spikes:region=LC" (the units with this value in a column of their table), "signal:NAME" or "signal:NAME:CHANNEL" (mean over the
        window), or "column:NAME" of the trial table.
    exposure : str or mapping of recording id to EventTable
        The ledger of randomised trials, as for :func:`brainmu.estimate_effect`.
    outcome : str
        A transition.
    window, blank : float, s
        The mediator's window after the onset, and what is left out at its beginning in both arms (a stimulation artefact).
    gap : float or None, s
        Between the window and the first outcome. None: half an epoch, since an epoch is scored by what fills most of it, so that a waking may precede
        the epoch it is scored in by that much.
    horizon : float, s
        Seconds after the onset by which the transition must come.
    adjust : sequence of str
        Signals to adjust for, the last sample at or before the onset; the mediator before the onset and the time in bout always are.
    baseline : float or None, s
        How long before the onset the mediator is averaged for that. None: ten seconds, or the window where it is longer.
    labels, content, contrast, scheme, competing
        As for :func:`brainmu.estimate_effect`; `content` is one.

    Returns
    -------
    Effect
        The natural indirect effect as a difference in risk, the mean of what it is in either arm; animals count equally, the interval is a jackknife over them.
        Level "observational": assignment is randomised, the mediator is not. `diagnostics`: `total`, `direct`, `indirect` and both by arm, each animal, who
        left early, negative controls, `sensitivity` (the correlation of residuals that would overturn it, E-value, noise of the mediator), warnings, verdict.

    Raises
    ------
    DesignError
        If the mediator does not vary, its window reaches the outcome, no animal has enough trials of both arms, or as for trials.
    MissingDataError
        If a recording lacks the mediator.

    References
    ----------
    Imai, Keele & Yamamoto, Statistical Science 25:51 (2010); VanderWeele, Explanation in Causal Inference (2015).
    """
    recordings = as_list(sessions)
    subjects, notes = subjects_of(recordings)
    wanted, what = Outcome.parse(outcome), Mediator.parse(mediator)
    if wanted.kind != "transition":
        raise DesignError(f"outcome is '{wanted}', expected a transition such as 'NREM->WAKE': mediation is asked of risks")
    grids = [EpochGrid.of(r, s, wanted.transition, labels) for r, s in zip(recordings, subjects)]
    epoch = check_epoch(grids)
    between = 0.5 * epoch if gap is None else float(gap)
    _check_times(window, blank, between, horizon, epoch)
    notes += check_exposures(grids, exposure, trials=True)
    ledger = collect_trials(grids, exposure, horizon=float(horizon), scheme=scheme, content=content, contrast=contrast)
    rules = competing_rules(competing)
    landmark = float(window) + between
    kept = survivors(ledger, landmark) & ~np.isin(ledger.end, [k for k, way in rules.items() if way == "exclude"])
    trials = ledger[kept]
    _check_arms(trials, ledger, landmark, wanted)
    span = max(BASELINE, float(window)) if baseline is None else float(baseline)
    values = _activity(grids, trials, what, blank, window)
    names, z = _covariates(grids, trials, what, span, adjust)
    ok = np.isfinite(values) & np.isfinite(z).all(1)
    if not ok.any():
        raise DesignError(f"{what.quantity} and what is adjusted for are not known for any of {len(trials)} trials: check their clock")
    rows, used, lost = _rows(trials[ok], values[ok], z[ok], rules, what)
    parts, whole, left = jackknifed(rows)
    result = parts["indirect"]
    analysed = trials[ok][used]
    report = describe_mediation(
        grids, ledger, analysed, rows, parts, whole, left, what=what, names=names, window=float(window), blank=float(blank), landmark=landmark, rules=rules,
        unknown=int((~ok).sum()), lost=lost, exposure=exposure, earlier=_earlier(grids, analysed, what, window, blank, rows, names),
    )  # fmt: skip
    report["warnings"] = notes + report["warnings"]
    report["verdict"] = mediation_verdict(parts, report, wanted, what)
    adjusted = ", ".join(n for n in names if not n.startswith("time in bout"))
    return Effect(
        estimand=_sentence(wanted, what, float(window), float(blank), landmark, float(horizon), f"{rows.n_animals} animals", contrast, content),
        estimate=result.estimate, low=result.low, high=result.high, p_value=result.p_value, unit="risk difference", level="observational",
        n_units=rows.n_animals, n_events=len(rows),
        assumptions=[
            "assignment was random as logged",
            f"nothing but assignment, time in bout, animal{' and ' + adjusted if adjusted else ''} drives both the {what.quantity} and what follows: "
            "the mediator was not randomised",
            "nothing that assignment changes on its way, other than the mediator, drives both of them",
            f"the {what.quantity} is measured without error and stands for the population; what is not seen of it counts as direct",
            f"trials still in {wanted.transition.source} {landmark:g} s after the onset stand for those asked about, in both arms alike",
            "log odds of the outcome rise in a straight line with the mediator, as steeply in every animal (see diagnostics linear)",
        ],
        diagnostics=report, scale="natural indirect effect, risk difference", regime="assign against do not assign, the mediator as under one or the other",
        population="animals, each counting equally",
        risk_set=f"trials that start in {wanted.transition.source} and are in it {landmark:g} s later", blank=float(blank), horizon=float(horizon),
        n_exposed=int(rows.assigned.sum()), n_transitions=int(rows.y.sum()),
    )  # fmt: skip


def survivors(ledger: Trials, landmark: float) -> NDArray[np.bool_]:
    """Trials whose animal is still in the source stage, and seen to be, `landmark` seconds after the onset."""
    return ledger.at_risk & ~ledger.own_epoch & ((ledger.end == "") | (ledger.latency > landmark + 1e-9))


def _check_times(window: float, blank: float, gap: float, horizon: float, epoch: float) -> None:
    for name, v in {"window": window, "horizon": horizon}.items():
        if not (np.isfinite(v) and v > 0):
            raise DesignError(f"{name} is {v!r} s, expected a positive number of seconds after the onset")
    if not 0 <= blank < window:
        raise DesignError(f"blank is {blank:g} s, expected at least 0 and less than the mediator's window of {window:g} s")
    if not (np.isfinite(gap) and gap >= 0):
        raise DesignError(f"gap is {gap!r} s, expected at least 0 s between the mediator's window and the outcome")
    if horizon < window + gap + epoch:
        raise DesignError(
            f"the outcome is read from {window + gap:g} to {horizon:g} s after the onset, which holds no whole {epoch:g} s epoch: expected a horizon of "
            f"{window + gap + epoch:g} s or more, or a shorter window"
        )


def _check_arms(trials: Trials, ledger: Trials, landmark: float, outcome: Outcome) -> None:
    n1, n0 = int(trials.assigned.sum()), int((~trials.assigned).sum())
    source = outcome.transition.source
    if not n1 or not n0:
        arm = "assigned" if not n1 else "control"
        raise DesignError(
            f"the {arm} arm is empty: {n1} assigned and {n0} control trials of {len(ledger)} are in {source} from the onset to {landmark:g} s later, "
            "expected some of both"
        )
    if not (trials.end == "target").any():
        raise DesignError(f"no trial of {len(trials)} reaches {outcome.transition.target} between {landmark:g} and {ledger.horizon:g} s: use a longer horizon")


def _activity(grids: Sequence[EpochGrid], trials: Trials, mediator: Mediator, blank: float, window: float) -> NDArray[np.float64]:
    if mediator.kind == "column":
        if mediator.name not in trials.extra:
            have = ", ".join(trials.extra) or "none"
            raise DesignError(f"the trial tables have no column of numbers {mediator.name!r} as the mediator, they have {have}")
        return trials.extra[mediator.name]
    return read_activity(grids, trials.session, mediator, trials.onset + blank, window - blank)


def _covariates(
    grids: Sequence[EpochGrid], trials: Trials, mediator: Mediator, span: float, adjust: Sequence[str]
) -> tuple[list[str], NDArray[np.float64]]:  # fmt: skip
    """The mediator before the onset, the time in bout as a spline, and the signals asked for: names and columns (n, c)."""
    names, columns = [], []
    if mediator.kind != "column":
        names.append(f"{mediator.quantity} in the {span:g} s before the onset")
        columns.append(read_activity(grids, trials.session, mediator, trials.onset - span, span))
    age = np.log(np.maximum(trials.age, 0.0) + trials.epoch)
    spline = natural_spline(age, spline_knots(age, 3))
    names += [f"time in bout {i + 1}" for i in range(spline.shape[1])]
    columns += list(spline.T)
    wanted = (adjust,) if isinstance(adjust, str) else tuple(adjust)
    if wanted:
        read: list[NDArray[np.float64]] = []
        for i, grid in enumerate(grids):
            mine = np.flatnonzero(trials.session == i)
            if len(mine):
                titles, v = read_covariates(grid.recording, wanted, trials.onset[mine], None)
                read = read or [np.full(len(trials), np.nan) for _ in titles]
                for j in range(len(titles)):
                    read[j][mine] = v[:, j]
        names += titles
        columns += read
    return names, np.column_stack(columns)


def _rows(
    trials: Trials, values: NDArray[np.float64], z: NDArray[np.float64], rules: Mapping[str, str], mediator: Mediator
) -> tuple[MediationRows, NDArray[np.bool_], list[str]]:  # fmt: skip
    """What is modelled, which trials those are, and the animals left out. Activity and covariates are taken within animals."""
    use, lost = np.zeros(len(trials), dtype=bool), []
    m, within = np.zeros(len(trials)), z.copy()
    for j in np.unique(trials.animal):
        mine = trials.animal == j
        a = trials.assigned[mine]
        if min(a.sum(), (~a).sum()) < FEWEST:
            lost.append(f"{trials.names[j]} ({int(a.sum())} assigned and {int((~a).sum())} control trials)")
            continue
        v = values[mine]
        spread = np.sqrt(sum(((v[s] - v[s].mean()) ** 2).sum() for s in (a, ~a)) / max(len(v) - 2, 1))
        if spread <= 1e-9 * max(1.0, float(np.abs(v).max())):
            lost.append(f"{trials.names[j]} (its mediator does not vary within arms)")
            continue
        use[mine] = True
        m[mine] = (v - v.mean()) / spread
        within[mine] -= within[mine].mean(0)
    if not use.any():
        raise DesignError(
            f"no animal is left: {', '.join(lost)}; expected {FEWEST} trials of each arm still in the stage after the window, "
            f"and {mediator.quantity} that varies"
        )
    t = trials[use]
    cut = np.isin(t.end, [k for k, way in rules.items() if way == "censor"])
    p = inverse_probability(t)
    coin = np.where(t.assigned, t.assigned.mean() / p, (~t.assigned).mean() / (1 - p))
    spread = within[use].std(0)
    rows = MediationRows(
        animal=np.unique(t.animal, return_inverse=True)[1], assigned=t.assigned.astype(np.float64), y=(t.end == "target").astype(np.float64), m=m[use],
        z=within[use] / np.where(spread > 0, spread, 1.0), seen=inverse_censoring(~cut, cut, t.latency), coin=coin / coin.mean(),
    )  # fmt: skip
    return rows, use, lost


def _earlier(
    grids: Sequence[EpochGrid], trials: Trials, mediator: Mediator, window: float, blank: float, rows: MediationRows, names: Sequence[str]
) -> MediationRows | None:  # fmt: skip
    """The same rows with the mediator of as long before the onset in the place of the mediator, which assignment cannot have moved."""
    if mediator.kind == "column":
        return None
    v = read_activity(grids, trials.session, mediator, trials.onset - (window - blank), window - blank)
    out = np.zeros(len(v))
    for j in range(rows.n_animals):
        mine = rows.animal == j
        spread = float(np.nanstd(v[mine]))
        if not np.isfinite(v[mine]).all() or spread == 0:
            return None
        out[mine] = (v[mine] - v[mine].mean()) / spread
    # The activity before the onset is not adjusted for itself.
    later = np.array([not n.endswith("before the onset") for n in names])
    return MediationRows(**vars(rows) | {"m": out, "z": rows.z[:, later]})


def _sentence(
    outcome: Outcome, mediator: Mediator, window: float, blank: float, landmark: float, horizon: float, animals: str, contrast: tuple[str, str] | None,
    content: str | None,
) -> str:  # fmt: skip
    t = outcome.transition
    trial = f"a trial of arm {contrast[0]} rather than {contrast[1]}" if contrast else f"a trial assigned{' with content ' + content if content else ''}"
    when = "" if mediator.kind == "column" else f" from {blank:g} to {window:g} s after its onset"
    return (
        f"How much does {trial} during {t.source} change the chance that {t.target} is the first stage reached from {landmark:g} to {horizon:g} s after its "
        f"onset, by changing the {mediator.quantity}{when}, among trials still in {t.source} by then, in {animals}?"
    )
