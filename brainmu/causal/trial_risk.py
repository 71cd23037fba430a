"""From the ledger to risks: which trials count, what their outcome is, and the risk difference of each animal."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.inference import Estimate, animal_mean
from brainmu.causal.outcome import inverse_censoring
from brainmu.causal.randomise import inverse_probability
from brainmu.causal.trial_table import ENDS, Trials
from brainmu.errors import DesignError

__all__ = ["COMPETING", "combine", "competing_rules", "outcome_of", "population_weights", "risk_differences"]

COMPETING = {"exit": "zero", "next": "censor", "end": "censor"}
"""Another stage first: the target was not reached. The next trial, or the end of scoring, first: unknown, weighted for."""

_WAYS = ("zero", "censor", "exclude")


def competing_rules(competing: str | Mapping[str, str] | None) -> dict[str, str]:
    """What to do with a trial that another stage, the next trial or the end of scoring cuts short."""
    if competing is None:
        return dict(COMPETING)
    given = dict.fromkeys(ENDS, competing) if isinstance(competing, str) else {**COMPETING, **competing}
    for key, way in given.items():
        if key not in ENDS or way not in _WAYS:
            raise DesignError(f"competing is {competing!r}, expected one of {', '.join(_WAYS)}, or a mapping of {', '.join(ENDS)} to one of them")
    return given


def outcome_of(ledger: Trials, rules: Mapping[str, str]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Outcome of each analysed trial and which rows of the ledger are analysed.

    "censor" weights a reached target by the inverse chance of not having been cut short by then (Kaplan–Meier of the cutting, both arms
    together, so that the outcome is fixed under the null).
    """
    drop = np.isin(ledger.end, [k for k, way in rules.items() if way == "exclude"])
    analysed = ledger.at_risk & ~drop
    end, latency = ledger.end[analysed], ledger.latency[analysed]
    hit = end == "target"
    cut = np.isin(end, [k for k, way in rules.items() if way == "censor"])
    return inverse_censoring(hit, cut, latency), analysed


def population_weights(trials: Trials, weight: str) -> NDArray[np.float64]:
    """What each animal counts for: the same, or its number of trials; an animal without both arms counts for nothing."""
    n = len(trials.names)
    n1 = np.bincount(trials.animal[trials.assigned], minlength=n)
    n0 = np.bincount(trials.animal[~trials.assigned], minlength=n)
    both = (n1 > 0) & (n0 > 0)
    return both * (1.0 if weight == "animal" else (n1 + n0).astype(np.float64))


def risk_differences(
    trials: Trials, y: NDArray[np.float64], treated: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Risk difference and both risks, an animal each (n_animals,); NaN where an arm is empty. Weighted by the logged probability."""
    n, p = len(trials.names), inverse_probability(trials)
    w1, w0 = treated / p, ~treated / (1 - p)
    with np.errstate(divide="ignore", invalid="ignore"):
        r1 = np.bincount(trials.animal, w1 * y, n) / np.bincount(trials.animal, w1, n)
        r0 = np.bincount(trials.animal, w0 * y, n) / np.bincount(trials.animal, w0, n)
    return r1 - r0, r1, r0


def combine(rd: NDArray[np.float64], weights: NDArray[np.float64], trials: Trials, y: NDArray[np.float64]) -> Estimate:
    """Mean over animals with its t interval; within the one animal where there is one."""
    use = weights > 0
    if not use.any():
        raise DesignError("no animal has trials in both arms, so none can be compared with itself: expected both arms within each animal")
    if use.sum() > 1:
        return animal_mean(rd[use], weights[use], _sampling_variances(trials, y)[use])
    rows = use[trials.animal]
    a, o = trials.assigned[rows], y[rows]
    n1, n0 = int(a.sum()), int((~a).sum())
    if min(n1, n0) < 2:
        return Estimate.t(float(rd[use][0]), np.nan, 0)
    return Estimate.t(float(rd[use][0]), float(np.sqrt(o[a].var(ddof=1) / n1 + o[~a].var(ddof=1) / n0)), n1 + n0 - 2)


def _sampling_variances(trials: Trials, y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance of each animal's risk difference by its trials alone (n_animals,); 0 where an arm has fewer than two trials."""
    n, out = len(trials.names), np.zeros(len(trials.names))
    few = np.zeros(n, dtype=bool)
    for arm in (trials.assigned, ~trials.assigned):
        animal, o = trials.animal[arm], y[arm]
        size = np.bincount(animal, minlength=n)
        mean = np.bincount(animal, o, n) / np.maximum(size, 1)
        out += np.bincount(animal, (o - mean[animal]) ** 2, n) / np.maximum(size * (size - 1), 1)
        few |= size < 2
    return np.where(few, 0.0, out)
