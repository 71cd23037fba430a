"""Does assignment do more with one content, or in one arm, than another? The difference of two randomised effects."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.estimand import contrast_sentence
from brainmu.causal.grid import EpochGrid
from brainmu.causal.inference import Estimate, animal_mean, welch
from brainmu.causal.outcome import Outcome, signal_unit
from brainmu.causal.randomise import AssignmentScheme, randomisation_null
from brainmu.causal.trial_gates import closed_loop
from brainmu.causal.trial_risk import population_weights, risk_differences
from brainmu.causal.trial_table import Trials
from brainmu.core.effect import Effect
from brainmu.errors import DesignError

__all__ = ["compare_sides"]

UNLIKE = 0.1
"""SD by which the trials of two contents or arms may differ in a column of the ledger before it is said."""


def compare_sides(
    ledger: Trials, y: NDArray[np.float64], analysed: NDArray[np.bool_], sides: tuple[str, Any], outcome: Outcome, weight: str, scheme: str | None,
    grids: Sequence[EpochGrid], *, blank: float, diagnostics: bool, draws: int, seed: int,
) -> Effect:  # fmt: skip
    """The effect of assignment on one side less that on the other: within animals that have both, between animals where none has.

    Parameters
    ----------
    y : float64 (analysed trials,)
    analysed : bool (trials,)
    sides : ("content" or "arm", (str, str))

    Raises
    ------
    DesignError
        If a side has no trials, or an empty arm in every animal.
    """
    kind, pair = sides
    label = (ledger.content if kind == "content" else ledger.arm).astype(str)
    rd, weights, nulls = [], [], []
    assignment = AssignmentScheme(ledger, scheme)
    for name in pair:
        mine = label == name
        part = ledger[analysed & mine]
        _check_side(name, kind, label, part)
        inside = mine[analysed]
        rd.append(risk_differences(part, y[inside], part.assigned)[0])
        weights.append(population_weights(part, weight))
        if draws:
            # The same seed replays the same assignments for both sides.
            nulls.append((assignment, y[inside], analysed & mine))
    both = (weights[0] > 0) & (weights[1] > 0)
    within = bool(both.any())
    if within:
        w = [weights[0] * both + weights[1] * both] * 2
        result = animal_mean((rd[0] - rd[1])[both], w[0][both])
    else:
        w = weights
        result = _between(rd, w)
    drawn = [randomisation_null(a, v, rows, w[i], draws=draws, seed=seed) for i, (a, v, rows) in enumerate(nulls)]
    null = drawn[0] - drawn[1] if drawn else np.empty(0)
    p_random = float((1 + np.sum(np.abs(null - null.mean()) >= abs(result.estimate - null.mean()) - 1e-12)) / (draws + 1)) if draws else float("nan")
    kept = ledger[analysed & np.isin(label, pair)]
    names = kept.names
    seen = w[0] + w[1] > 0
    report: dict[str, Any] = {}
    if diagnostics:
        report = {
            "within_animals": within, "randomisation_p": p_random, "scheme": assignment.name,
            pair[0]: animal_mean(rd[0][w[0] > 0], w[0][w[0] > 0]).as_dict(), pair[1]: animal_mean(rd[1][w[1] > 0], w[1][w[1] > 0]).as_dict(),
            "animals": [{"animal": names[j], pair[0]: float(rd[0][j]), pair[1]: float(rd[1][j])} for j in np.flatnonzero(seen)],
            "alike": _alike(kept, kept.content.astype(str) if kind == "content" else kept.arm.astype(str), pair), "closed_loop": closed_loop(ledger),
        }  # fmt: skip
        report["warnings"] = _warnings(report, kind, pair, within, int(seen.sum())) + report["closed_loop"].pop("warnings", [])
        report["verdict"] = _verdict(result, report, pair, outcome)
    among = "within animals" if within else "between animals"
    unit = "risk difference" if outcome.kind == "transition" else "s" if outcome.kind == "time" else signal_unit(grids, outcome)
    return Effect(
        estimand=contrast_sentence(outcome, ledger.horizon, kind, pair, among, f"{int(seen.sum())} animals"),
        estimate=result.estimate, low=result.low, high=result.high, p_value=result.p_value, unit=unit, level="experimental", null=null,
        n_units=int(seen.sum()), n_events=len(kept),
        assumptions=[
            f"assignment was random as logged ({assignment.name}), whatever the {kind}",
            f"{pair[0]} and {pair[1]} differ in nothing else that matters (see diagnostics alike)" if within or kind == "content"
            else f"animals were allotted to {pair[0]} or {pair[1]} at random",
            "a trial's assignment does not change the outcome of another trial",
            "the scoring did not know the assignment, and stimulation artefacts do not alter it",
        ],
        diagnostics=report, scale="difference of risk differences" if outcome.kind == "transition" else "difference of differences in means",
        regime=f"assign against do not assign, {pair[0]} against {pair[1]}", population="animals, each counting equally" if weight == "animal" else "trials",
        risk_set=f"trials that start in an epoch scored {outcome.transition.source}, or were gated on it", lag=0, blank=blank, horizon=float(ledger.horizon),
        n_exposed=int(kept.assigned.sum()), n_transitions=int((kept.end == "target").sum()),
    )  # fmt: skip


def _check_side(name: str, kind: str, label: NDArray[Any], part: Trials) -> None:
    if name not in set(label):
        have = ", ".join(repr(str(x)) for x in sorted(set(label) - {""})) or "none"
        where = "the column content" if kind == "content" else "the columns planned and arm of the ledger, or subject_meta arm, group or virus"
        raise DesignError(f"no trial has {kind} {name!r}, there are {have}: expected it in {where}")
    if not (population_weights(part, "animal") > 0).any():
        n1 = int(part.assigned.sum())
        follows = ": arm follows the assignment, so use contrast=" if kind == "arm" and (n1 == 0 or n1 == len(part)) else ""
        raise DesignError(f"{kind} {name!r} has {n1} assigned and {len(part) - n1} control trials at risk, expected both within an animal{follows}")


def _between(rd: list[NDArray[np.float64]], w: list[NDArray[np.float64]]) -> Estimate:
    """Welch's comparison of the animals of one side with those of the other."""
    one, two = (animal_mean(r[u > 0], u[u > 0]) for r, u in zip(rd, w))
    return welch(one, two)


def _alike(trials: Trials, label: NDArray[Any], pair: tuple[str, str]) -> list[dict[str, Any]]:
    """What the ledger says of the trials of either side (dose, ensemble size, acoustics, speed, …), and time in bout and session: means, and the gap in SD."""
    first, second = (label == name for name in pair)
    out = []
    for column, v in {"time in bout": trials.age, "session time": trials.onset, **trials.extra}.items():
        a, b = v[first & np.isfinite(v)], v[second & np.isfinite(v)]
        if not len(a) or not len(b):
            continue
        spread = float(np.sqrt((a.var() + b.var()) / 2))
        gap = float(a.mean() - b.mean())
        out.append(
            {
                "column": column,
                pair[0]: float(a.mean()),
                pair[1]: float(b.mean()),
                "sd": gap / spread if spread > 0 else float(np.sign(gap)) * np.inf if gap else 0.0,
            }
        )
    return out


def _warnings(report: dict[str, Any], kind: str, pair: tuple[str, str], within: bool, animals: int) -> list[str]:
    said = []
    if animals < 4:
        said.append(f"{animals} animals: the interval rests on very few degrees of freedom")
    if not within:
        said.append(f"no animal has both {pair[0]} and {pair[1]}: animals are compared with each other, so they must have been allotted at random")
    said += [
        f"trials of {pair[0]} and {pair[1]} differ in {row['column']} by {row['sd']:+.2f} SD: the contrast is of both together"
        for row in report["alike"]
        if abs(row["sd"]) > UNLIKE and row["column"] not in ("time in bout", "session time")
    ]
    return said


def _verdict(result: Estimate, report: dict[str, Any], pair: tuple[str, str], outcome: Outcome) -> str:
    percent = outcome.kind == "transition"
    low, high, size = (f"{v:+.1%}" if percent else f"{v:+.3g}" for v in (result.low, result.high, result.estimate))
    if not result.p_value < 0.05:
        return f"Assignment is not shown to do more with {pair[0]} than with {pair[1]}; the interval admits {low} to {high}. More animals would narrow it."
    doubts = "; ".join(report["warnings"]) or f"something else in which {pair[0]} and {pair[1]} differ and that the ledger does not hold"
    return f"Assignment does {size} with {pair[0]} compared with {pair[1]} (randomised). What would overturn it: {doubts}."
