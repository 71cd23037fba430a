"""What is read from a model's stage probabilities after an edit: one stage, the hazard of the next transition, how long a bout goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from brainmu.explain.reader import Reading

__all__ = ["Readout", "Summary", "readouts", "summarise", "summarise_animals"]


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
    """All read-outs of a reading, the probability of `aims` over `ahead` epochs first.

    Hazards and the length of the bout take the model's probabilities of successive epochs as independent of each other: the chance that
    the target is reached within h is sum_k (prod_{j<k} p_source(j)) p_aim(k), the expected time still spent is the sum of the products.
    Places with another edit inside the look-ahead are left out of these (NaN).
    """
    before, after = reading.before, reading.after
    whole = np.isfinite(after[:, :ahead]).all((1, 2)) & np.isfinite(before[:, :ahead]).all((1, 2))
    aim = np.where(whole, (after - before)[:, :ahead][..., aims].sum(-1).mean(1), np.nan)
    out = [Readout("probability", "change of predicted probability", aim, ahead * epoch)]
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
    p = float((1 + (np.abs(null) >= abs(x.mean() - replicates.mean())).sum()) / (1 + len(null)))
    # Each draw pairs an event with one of its placebos, not with their mean: the interval then carries the spread of both.
    pick = rng.integers(0, len(d), (2000, len(d)))
    paired = x[None, :] - y
    paired = np.where(np.isfinite(paired), paired, d)
    boot = paired[rng.integers(0, len(y), pick.shape), pick].mean(1)
    low, high = (float(v) for v in np.percentile(boot, [2.5, 97.5]))
    return Summary(estimate, min(low, estimate), max(high, estimate), p, len(d), null, d, usable)


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
