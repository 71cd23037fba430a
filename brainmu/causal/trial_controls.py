"""What must not differ between the arms of randomised trials, and how strong a flaw would have to be to explain their effect away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.controls import past_quantities
from brainmu.causal.grid import EpochGrid
from brainmu.causal.inference import Estimate
from brainmu.causal.outcome import Outcome
from brainmu.causal.randomise import AssignmentScheme, randomisation_null
from brainmu.causal.sensitivity import confounder_contour, e_value, e_value_of_difference
from brainmu.causal.trial_risk import population_weights, risk_differences
from brainmu.causal.trial_table import Trials

__all__ = ["trial_controls", "trial_sensitivity"]

DRAWS = 999
"""Replays of the assignment a control."""


@dataclass
class _Places:
    session: NDArray[np.int64]
    k: NDArray[np.int64]
    age: NDArray[np.int64]
    bout: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.k)


def trial_controls(grids: Sequence[EpochGrid], scheme: AssignmentScheme, analysed: NDArray[np.bool_], weight: str, seed: int) -> list[dict[str, Any]]:
    """Does assignment 'predict' what was over before the onset? By the randomisation test, in SD of the quantity.

    The quantities are the time in bout at the onset, the share of the target stage in the last two and ten minutes before the bout, and the length of the
    bout before: a coin tossed after the gate cannot know them.
    """
    ledger = scheme.trials
    out = []
    for name, q in ({"time in bout at the onset": ledger.age} | past_quantities(grids, _places(grids, ledger))).items():
        rows = analysed & np.isfinite(q)
        if rows.sum() < 20 or np.ptp(q[rows]) == 0:
            continue
        trials, v = ledger[rows], q[rows] / q[rows].std()
        weights = population_weights(trials, weight)
        if not (weights > 0).any():
            continue
        rd = risk_differences(trials, v, trials.assigned)[0]
        found = float(np.average(rd[weights > 0], weights=weights[weights > 0]))
        null = randomisation_null(scheme, v, rows, weights, draws=DRAWS, seed=seed)
        p = float((1 + np.sum(np.abs(null - null.mean()) >= abs(found - null.mean()) - 1e-12)) / (DRAWS + 1))
        out.append({"quantity": name, "estimate": found, "p_value": p, "trials": int(rows.sum())})
    return out


def _places(grids: Sequence[EpochGrid], ledger: Trials) -> _Places:
    """The epoch that holds each trial's gate, or the one before where it woke within its own; the recording's first for trials that are not at risk."""
    n = len(ledger)
    k, age, bout = np.zeros(n, dtype=np.int64), np.ones(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    for i, g in enumerate(grids):
        mine = np.flatnonzero((ledger.session == i) & ledger.at_risk)
        seat = g.index(ledger.gate[mine]) - ledger.own_epoch[mine]
        k[mine], age[mine], bout[mine] = seat, g.age[seat], g.bout[seat]
    return _Places(ledger.session, k, age, bout)


def trial_sensitivity(
    trials: Trials, y: NDArray[np.float64], weights: NDArray[np.float64], result: Estimate, report: dict[str, Any], outcome: Outcome
) -> dict[str, Any]:  # fmt: skip
    """How tied a flaw of the coin would have to be to arm and outcome to make the number, and what trials cut short could hide.

    `bounds_if_cut_short` are the risk differences had every assigned trial that was cut short reached the target and no control one, and the other way round.
    """
    if outcome.kind != "transition":
        sd = float(np.std(y))
        bound = result.low if result.estimate > 0 else result.high
        crosses = not np.isfinite(bound) or bound * result.estimate <= 0
        return {"e_value": e_value_of_difference(result.estimate, sd), "e_value_interval": 1.0 if crosses else e_value_of_difference(bound, sd)}
    rr, lor = report["log_risk_ratio"], Estimate(**report["log_odds_ratio"])
    bound = rr["low"] if rr["estimate"] > 0 else rr["high"]
    crosses = not np.isfinite(bound) or bound * rr["estimate"] <= 0
    out: dict[str, Any] = {
        # A log risk ratio is asked as what it is: of a rare outcome the odds ratio would be the same.
        "e_value": e_value(rr["estimate"], 0.0), "e_value_interval": 1.0 if crosses else e_value(bound, 0.0), "confounder": confounder_contour(lor),
    }  # fmt: skip
    cut = np.isin(trials.end, ["next", "end"])
    hit = (trials.end == "target").astype(np.float64)
    use = weights > 0
    ends = []
    for worst in (~trials.assigned, trials.assigned):
        rd = risk_differences(trials, np.where(cut, worst, hit).astype(np.float64), trials.assigned)[0]
        ends.append(float(np.average(rd[use], weights=weights[use])))
    return out | {"bounds_if_cut_short": ends}
