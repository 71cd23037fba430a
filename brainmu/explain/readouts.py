"""What is read from a model's stage probabilities after an edit: one stage, the hazard of the next transition, how long a bout goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from brainmu.explain.reader import Reading

__all__ = ["SCALES", "Readout", "Summary", "readouts", "summarise", "summarise_animals", "with_training"]

SCALES = {
    "probability": ("change of predicted probability", "difference of probabilities"),
    "log_hazard": ("log hazard ratio", "log hazard ratio"),
}
"""Read-outs that can be the estimate: their unit, and their scale."""
_FLOOR = 1e-6


@dataclass(frozen=True)
class Readout:
    """One number a place: its change by the edit.

    Attributes
    ----------
    name, unit : str
    change : float64 (place,)
    seconds : float
        How long after the first epoch that is read it looks.
    """

    name: str
    unit: str
    change: NDArray[np.float64]
    seconds: float


def readouts(
    reading: Reading, source: NDArray[np.intp], aims: NDArray[np.intp], epoch: float, ahead: int, hazards: Sequence[float], longest: float
) -> list[Readout]:  # fmt: skip
    """All read-outs of a reading, the probability of `aims` over `ahead` epochs first, then its log hazard, the mean over these epochs.

    Hazards and the length of the bout take the model's probabilities of successive epochs as independent of each other: the chance that
    the target is reached within h is sum_k (prod_{j<k} p_source(j)) p_aim(k), the expected time still spent is the sum of the products.
    Places with another edit inside the look-ahead are left out of these (NaN).
    """
    before, after = reading.before, reading.after
    whole = np.isfinite(after[:, :ahead]).all((1, 2)) & np.isfinite(before[:, :ahead]).all((1, 2))
    aim = np.where(whole, (after - before)[:, :ahead][..., aims].sum(-1).mean(1), np.nan)
    log_hazard = _log_hazard(after[:, :ahead], source, aims) - _log_hazard(before[:, :ahead], source, aims)
    out = [
        Readout("probability", SCALES["probability"][0], aim, ahead * epoch),
        Readout("log_hazard", SCALES["log_hazard"][0], np.where(whole, log_hazard.mean(1), np.nan), ahead * epoch),
    ]
    for h in sorted(set(hazards)):
        n = max(1, int(np.ceil(h / epoch - 1e-9)))
        change = _reached(after[:, :n], source, aims) - _reached(before[:, :n], source, aims)
        out.append(Readout(f"hazard_{h:g}s", "change of the chance of the transition", np.where(reading.clean >= n, change, np.nan), n * epoch))
    n = max(1, int(longest / epoch + 1e-9))
    change = (_stay(after[:, :n], source).sum(1) - _stay(before[:, :n], source).sum(1)) * epoch
    out.append(
        Readout(
            "bout",
            f"change of the expected time still spent in the bout, of the next {n * epoch:g} s, s",
            np.where(reading.clean >= n, change, np.nan),
            n * epoch,
        )
    )
    latents = np.where(np.isfinite(reading.latents[:, :ahead]).all(1), reading.latents[:, :ahead].mean(1), np.nan)
    out.append(Readout("latents", "shift of the context, in distances between neighbouring windows", latents, ahead * epoch))
    return out


def _log_hazard(proba: NDArray[np.float64], source: NDArray[np.intp], aims: NDArray[np.intp]) -> NDArray[np.float64]:
    """Log hazard (place, epoch) of the aim among source and aim: log(-log(1 - p)), in which proportional hazards add up whatever the epoch [1]_.

    .. [1] Prentice RL, Gloeckler LA (1978). Regression analysis of grouped survival data. Biometrics 34:57.
    """
    to, stays = proba[..., aims].sum(-1), proba[..., source].sum(-1)
    p = np.clip(to / np.maximum(to + stays, _FLOOR), _FLOOR, 1 - _FLOOR)
    return np.log(-np.log1p(-p))


def _stay(proba: NDArray[np.float64], source: NDArray[np.intp]) -> NDArray[np.float64]:
    """Chance (place, epoch) of having stayed in the source stage up to and with each epoch."""
    return np.cumprod(proba[..., source].sum(-1), axis=1)


def _reached(proba: NDArray[np.float64], source: NDArray[np.intp], aims: NDArray[np.intp]) -> NDArray[np.float64]:
    """Chance (place,) that the source stage is left for the aim within the epochs given."""
    stay = _stay(proba, source)
    still = np.concatenate([np.ones_like(stay[:, :1]), stay[:, :-1]], axis=1)
    return (still * proba[..., aims].sum(-1)).sum(1)


@dataclass(frozen=True)
class Summary:
    """Events minus placebos: estimate, 95 % interval, two-sided p, null draws, and each event's or animal's own value."""

    estimate: float
    low: float
    high: float
    p_value: float
    n: int
    null: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    each: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    usable: NDArray[np.bool_] = field(default_factory=lambda: np.empty(0, dtype=bool))


_NONE = Summary(float("nan"), float("nan"), float("nan"), float("nan"), 0)


def summarise(change: NDArray[np.float64], placebo: NDArray[np.float64], rng: np.random.Generator) -> Summary:
    """Mean change by events (event,) beyond that by placebos (replicate, event), with an interval over events and placebos."""
    usable = np.isfinite(change) & np.isfinite(placebo).any(0)
    if not usable.any():
        return _NONE
    x, y = change[usable], placebo[:, usable]
    d = x - np.nanmean(y, axis=0)
    estimate = float(d.mean())
    replicates = np.array([np.nanmean(row) for row in y if np.isfinite(row).any()])
    null = replicates - replicates.mean()
    p = placebo_p(float(x.mean()), replicates)
    # Each draw pairs an event with one of its placebos, not with their mean: the interval then carries the spread of both.
    pick = rng.integers(0, len(d), (2000, len(d)))
    paired = x[None, :] - y
    paired = np.where(np.isfinite(paired), paired, d)
    boot = paired[rng.integers(0, len(y), pick.shape), pick].mean(1)
    low, high = (float(v) for v in np.percentile(boot, [2.5, 97.5]))
    return Summary(estimate, min(low, estimate), max(high, estimate), p, len(d), null, d, usable)


def placebo_p(value: float, replicates: NDArray[np.float64]) -> float:
    """Two-sided p of a value among replicates that it could change places with.

    All deviate from the mean of all, the value included: from the mean of the replicates alone it would lie too far off, and p be too small.
    """
    middle = np.append(replicates, value).mean()
    return float((1 + (np.abs(replicates - middle) >= abs(value - middle) - 1e-15).sum()) / (1 + len(replicates)))


def summarise_animals(values: NDArray[np.float64], rng: np.random.Generator) -> Summary:
    """Mean over animals (one value each): t interval and p over animals; the null flips the signs of animals.

    Four animals have sixteen sign patterns: the p value is that of t, and the flips are there to look at.
    """
    from scipy import stats

    v = values[np.isfinite(values)]
    n = len(v)
    if n < 2:
        return _NONE if n == 0 else Summary(float(v[0]), float("nan"), float("nan"), float("nan"), 1, each=v)
    mean, se = float(v.mean()), float(v.std(ddof=1) / np.sqrt(n))
    half = float(stats.t.ppf(0.975, n - 1)) * se
    p = float(2 * stats.t.sf(abs(mean) / se, n - 1)) if se > 0 else float(mean == 0)
    signs = np.array([[1 if k >> i & 1 else -1 for i in range(n)] for k in range(2**n)]) if n <= 10 else rng.choice([-1, 1], (2000, n))
    return Summary(mean, mean - half, mean + half, p, n, signs @ v / n, v)


def with_training(summary: Summary, refits: NDArray[np.float64], replicates: NDArray[np.float64]) -> tuple[Summary, dict[str, float]]:
    """A summary whose interval and p also hold how the head would have come out of other training animals.

    Parameters
    ----------
    summary : Summary
        By the head fitted on all animals.
    refits : float64 (animal,)
        The estimate by each head fitted without one animal: a jackknife.
    replicates : float64 (replicate,)
        Mean change by placebos, whose scatter is that of the read-out in one model.

    Returns
    -------
    Summary
        Interval and p of t on (animals - 1) degrees of freedom.
    dict of str to float
        Both standard errors.
    """
    from scipy import stats

    v, r = refits[np.isfinite(refits)], replicates[np.isfinite(replicates)]
    n = len(v)
    trained = float(np.sqrt((n - 1) / n * ((v - v.mean()) ** 2).sum())) if n > 1 else float("nan")
    placed = float(np.sqrt(r.var(ddof=1) * (1 + 1 / len(r)))) if len(r) > 1 else 0.0
    se = float(np.hypot(trained, placed))
    errors = {"se_training": trained, "se_placebos": placed}
    if not se > 0:
        return replace(summary, low=float("nan"), high=float("nan"), p_value=float("nan")), errors
    half, p = float(stats.t.ppf(0.975, n - 1)) * se, float(2 * stats.t.sf(abs(summary.estimate) / se, n - 1))
    return replace(summary, low=summary.estimate - half, high=summary.estimate + half, p_value=p), errors
