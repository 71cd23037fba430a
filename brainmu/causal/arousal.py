"""Arousal threshold: at which level of a probe tone half of the probes wake, and whether an arm moves it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.exposures import check_exposures
from brainmu.causal.grid import EpochGrid, check_epoch, events_of, subjects_of
from brainmu.causal.inference import Estimate, animal_mean, jackknife, welch
from brainmu.causal.logistic import fit_or_shrink
from brainmu.causal.outcome import Outcome
from brainmu.causal.trial_table import Trials, collect_trials
from brainmu.core.effect import Effect
from brainmu.core.events import EventTable
from brainmu.core.recording import Recording, as_list
from brainmu.errors import DesignError

__all__ = ["arousal_threshold"]


def arousal_threshold(
    sessions: Recording | Iterable[Recording], *, exposure: str | Mapping[str, EventTable] = "probes", level: str = "level", outcome: str = "NREM->WAKE",
    horizon: float = 10.0, arms: tuple[str, str] | None = None, labels: str | None = "scoring",
) -> Effect:  # fmt: skip
    """The level at which half of the probes are followed by the transition, or how far an arm moves it.

    A logistic dose-response with a slope that all animals share and a threshold of each animal's own; the interval is a jackknife over animals.

    Parameters
    ----------
    sessions : Recording or Session, or several
    exposure : str or mapping of recording id to EventTable
        The probes: `start`, and the column that `level` names (dB, say). Levels must have been drawn at random.
    outcome : str
        A transition; it is first reached in (onset, onset + horizon].
    arms : (str, str) or None
        The threshold in the first arm less that in the second: within animals where the table's column `planned` or `arm` has both, else between animals
        (`arm`, `group` or `virus` of `subject_meta`). Above zero the first arm sleeps deeper.

    Returns
    -------
    Effect
        In units of the level. `diagnostics`: the dose-response by level and arm, the slope, each animal's threshold, warnings.

    Raises
    ------
    DesignError
        If there is no column of levels or only one level, the chance does not rise with the level, or an arm is empty.

    References
    ----------
    Neckelmann & Ursin, Sleep 16:467 (1993), arousal threshold in rats.
    """
    recordings = as_list(sessions)
    subjects, notes = subjects_of(recordings)
    wanted = Outcome.parse(outcome)
    if wanted.kind != "transition":
        raise DesignError(f"outcome is '{wanted}', expected a transition such as 'NREM->WAKE': a threshold needs an answer of yes or no")
    if not (np.isfinite(horizon) and horizon > 0):
        raise DesignError(f"horizon is {horizon!r} s, expected a positive number of seconds after the onset")
    grids = [EpochGrid.of(r, s, wanted.transition, labels) for r, s in zip(recordings, subjects)]
    check_epoch(grids)
    notes += check_exposures(grids, exposure, trials=True)
    # A probe is no coin: the columns of one stand in, and are not read.
    tables = {g.recording.id: _as_ledger(events_of(g.recording, exposure), level, g.recording.id) for g in grids}
    ledger = collect_trials(grids, tables, horizon=horizon, scheme="bernoulli", content=None, contrast=None, arms=arms)
    known = ledger.at_risk & ~np.isin(ledger.end, ["next", "end"])
    probes = ledger[known & (np.isin(ledger.arm.astype(str), arms) if arms else True)]
    dose, y = probes.extra["probe_level"], (probes.end == "target").astype(np.float64)
    _check(probes, dose, y, arms)
    first = probes.arm.astype(str) == arms[0] if arms else np.zeros(len(probes), dtype=bool)
    n = len(probes.names)
    present = np.unique(probes.animal)
    within = bool(arms) and any(len(set(first[probes.animal == j])) == 2 for j in present)
    whole = _fit(probes.animal, dose, y, first if within else None, n)
    if not whole["slope"] > 0:
        raise DesignError(
            f"the chance of {wanted.transition.target} does not rise with {level!r} (slope {whole['slope']:+.3g}), so there is no threshold: check the levels"
        )
    left = [_fit(probes.animal[k], dose[k], y[k], first[k] if within else None, n) for k in (probes.animal != j for j in present)] if len(present) > 1 else []
    slope = jackknife(whole["slope"], [x["slope"] for x in left])
    own = whole["threshold"]
    if within:
        result, kind = jackknife(whole["shift"], [x["shift"] for x in left]), "within animals"
    elif arms:
        side = np.array([first[probes.animal == j].any() for j in range(n)])
        result, kind = welch(animal_mean(own[present][side[present]]), animal_mean(own[present][~side[present]])), "between animals"
    else:
        result, kind = animal_mean(own[present]), ""
    unit = str(level)
    report = {
        "slope": slope.as_dict(), "thresholds": {probes.names[j]: float(own[j]) for j in present}, "levels": _curve(dose, y, first, arms),
        "within_animals": within, "warnings": notes + _warnings(dose, own[present], slope, present, kind, within, arms),
    }  # fmt: skip
    report["verdict"] = _verdict(result, report, arms, unit, wanted)
    what = f"the level ({level}) of a probe after which {wanted.transition.target} is the first stage reached within {horizon:g} s half of the time"
    return Effect(
        estimand=(f"How far does arm {arms[0]} move, against arm {arms[1]}, {kind}, {what}" if arms else f"What is {what}") + f", in {len(present)} animals?",
        estimate=result.estimate, low=result.low, high=result.high, p_value=result.p_value if arms else float("nan"), unit=unit, level="experimental",
        n_units=len(present), n_events=len(probes),
        assumptions=[
            "levels were drawn at random, whatever the state of the animal", "the log odds rise in a straight line with the level, as steeply in every animal",
            *([f"{'probes' if within else 'animals'} were allotted to {arms[0]} or {arms[1]} at random"] if arms else []),
            "probes do not reach into each other, and the scoring did not hear them",
        ],
        diagnostics=report, scale="threshold", regime=f"{arms[0]} against {arms[1]}" if arms else "", population="animals",
        risk_set=f"probes that start in an epoch scored {wanted.transition.source}", horizon=float(horizon), n_exposed=len(probes), n_transitions=int(y.sum()),
    )  # fmt: skip


def _as_ledger(table: EventTable, level: str, where: str) -> EventTable:
    if level not in table.columns:
        raise DesignError(f"{where}: the probes have columns {', '.join(table.columns)}, expected {level!r}: name the column of levels with level=")
    try:
        values = np.asarray(getattr(table, level), dtype=np.float64)
    except (TypeError, ValueError):
        raise DesignError(f"{where}: column {level!r} holds text, expected numbers such as dB") from None
    if not np.isfinite(values).all():
        raise DesignError(f"{where}: column {level!r} holds {values[~np.isfinite(values)][0]}, expected a finite level for each probe")
    frame = table.to_frame().drop(columns=["delivered", "gate_time", "probability"], errors="ignore")
    return EventTable.from_frame(frame.assign(assigned=False, probe_level=values))


def _check(probes: Trials, dose: NDArray[np.float64], y: NDArray[np.float64], arms: tuple[str, str] | None) -> None:
    if not len(probes) or len(np.unique(dose)) < 2:
        raise DesignError(f"{len(probes)} probes at risk have {len(np.unique(dose))} levels, expected two levels or more in the source stage")
    if not 0 < y.sum() < len(y):
        raise DesignError(f"{int(y.sum())} of {len(y)} probes wake, expected some that do and some that do not: use other levels or another horizon")
    for name in arms or ():
        if name not in set(probes.arm.astype(str)):
            raise DesignError(f"no probe at risk is of arm {name!r}: expected it in the columns planned or arm, or in subject_meta arm, group or virus")


def _fit(animal: NDArray[np.int64], dose: NDArray[np.float64], y: NDArray[np.float64], first: NDArray[np.bool_] | None, n: int) -> dict[str, Any]:
    """Slope, each animal's threshold (n,), and how far the first arm moves it."""
    seen = np.unique(animal)
    centre = float(dose.mean())
    x = (animal[:, None] == seen).astype(np.float64)
    more = [] if first is None else [first.astype(np.float64)]
    fit, _ = fit_or_shrink(np.column_stack([x, *more, dose - centre]), y, len(seen))
    slope = float(fit.coef[-1])
    threshold = np.full(n, np.nan)
    threshold[seen] = centre - fit.coef[: len(seen)] / slope
    return {"slope": slope, "threshold": threshold, "shift": -float(fit.coef[len(seen)]) / slope if more else float("nan")}


def _curve(dose: NDArray[np.float64], y: NDArray[np.float64], first: NDArray[np.bool_], arms: tuple[str, str] | None) -> list[dict[str, Any]]:
    out = []
    for name, rows in ((arms[0], first), (arms[1], ~first)) if arms else (("", ~first),):
        for v in np.unique(dose[rows]):
            mine = rows & (dose == v)
            out.append({"arm": name, "level": float(v), "probes": int(mine.sum()), "chance": float(y[mine].mean())})
    return out


def _warnings(
    dose: NDArray[np.float64], own: NDArray[np.float64], slope: Estimate, present: NDArray[np.int64], kind: str, within: bool, arms: tuple[str, str] | None
) -> list[str]:  # fmt: skip
    said = []
    beyond = int(((own < dose.min()) | (own > dose.max())).sum())
    if beyond:
        said.append(f"the threshold of {beyond} of {len(own)} animals lies outside the levels tried ({dose.min():g} to {dose.max():g}): it is an extrapolation")
    if not slope.low > 0:
        said.append("the slope is not surely above zero, so thresholds are badly known")
    if len(present) < 4:
        said.append(f"{len(present)} animals: the interval rests on very few degrees of freedom")
    if arms and not within:
        said.append(f"no animal has both {arms[0]} and {arms[1]}: {kind}, so they must have been allotted at random")
    return said


def _verdict(r: Estimate, report: dict[str, Any], arms: tuple[str, str] | None, unit: str, outcome: Outcome) -> str:
    span = f"{r.low:.3g} to {r.high:.3g} {unit}"
    if arms is None:
        return f"Half of the probes are followed by {outcome.transition.target} at {r.estimate:.3g} {unit} ({span})."
    if not r.p_value < 0.05:
        return f"{arms[0]} is not shown to move the arousal threshold; the interval admits {span}. More probes near the threshold, or animals, would narrow it."
    doubts = "; ".join(report["warnings"]) or "levels that were not drawn at random, or a scorer who knew the arm"
    return f"{arms[0]} {'raises' if r.estimate > 0 else 'lowers'} the arousal threshold by {abs(r.estimate):.3g} {unit}. What would overturn it: {doubts}."
