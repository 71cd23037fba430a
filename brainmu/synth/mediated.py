"""Randomised trials whose effect goes partly through a population of units: what is direct and what is mediated is known."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core.events import EventTable
from brainmu.core.hypnogram import Hypnogram
from brainmu.core.recording import Recording

__all__ = ["MediatedTruth", "mediated_study"]

EPOCH, SPAN = 4.0, 80.0
WINDOW, LAST = 2.0, 20.0
"""The population is read for 2 s after the onset; a waking comes within 20 s of it or is left to chance."""
RATE, UNITS, OTHERS = 4.0, 6, 4
"""Hz and number of the units that mediate (region LC), and number of those that do not (CA1)."""


@dataclass(frozen=True)
class MediatedTruth:
    """Differences in the chance of waking from `first` to 20 s after the onset: `total` = `indirect` + `direct`, means over both arms."""

    total: float
    indirect: float
    direct: float


@dataclass
class _Drawn:
    """Trials of all animals, each (animal, trial); `rate` and `risk` by arm on the first axis, risk[a][b] for assignment a with the rate of arm b."""

    assigned: NDArray[np.bool_]
    slow: NDArray[np.float64]
    count: NDArray[np.int64]
    early: NDArray[np.bool_]
    woke: NDArray[np.bool_]
    risk: NDArray[np.float64]


def mediated_study(
    n_animals: int = 8, trials: int = 60, *, through: float = 0.6, shift: float = 1.0, direct: float = 0.3, interaction: float = 0.0, slow: float = 0.5,
    hidden: float = 0.0, early: float = 0.03, early_effect: float = 0.0, arousal: float = 0.0, first: float = 4.0, base: float = -1.2, animal_sd: float = 0.5,
    effect_sd: float = 0.3, probability: float = 0.5, seed: int = 0,
) -> tuple[list[Recording], MediatedTruth]:  # fmt: skip
    """Recordings with spikes, a hypnogram and a ledger of trials, and what goes through the units of region LC.

    A trial starts in NREM. Assignment raises the log rate of the LC units over the 2 s after the onset; the log odds of waking by 20 s depend on assignment and
    on the number of their spikes. A slow state drives both, and is seen in the rate before the onset.

    Parameters
    ----------
    n_animals, trials : int
        Animals, and trials of each.
    through : float
        Log odds of waking for an SD of the LC rate.
    shift : float, SD
        How far assignment moves that rate.
    direct, interaction : float
        Log odds of waking by assignment at the animal's mean rate; and how much more an SD of the rate does in assigned trials.
    slow, hidden : float
        On rate (SD) and log odds of waking: of a state that lasts minutes; and of one drawn anew at each onset, which nothing recorded tells of.
    early, early_effect : float
        Chance of waking at once, before the rate could act, and what assignment adds to it.
    arousal : float
        LC spikes a second and unit from the waking itself on: up to half an epoch before the epoch that is scored WAKE.
    first : float, s
        Earliest waking that the rate acts on, after the onset.
    base, animal_sd, effect_sd : float
        Log odds of waking, their SD between animals, and the SD between animals of `through`, `shift` and `direct` as a share of each.
    probability : float
        Of being assigned.

    Returns
    -------
    list of Recording, and the truth of the population of animals (from 4,000 of them).

    Examples
    --------
    >>> recordings, truth = mediated_study(2, 10, seed=1)
    >>> sorted(recordings[0].labels), recordings[0].spikes.n_units, round(truth.indirect + truth.direct - truth.total, 9)
    (['scoring', 'trials'], 10, 0.0)
    """
    how = (through, shift, direct, interaction, slow, hidden, early, early_effect, base, animal_sd, effect_sd, probability)
    rng = np.random.default_rng(seed)
    drawn = _draw(rng, n_animals, trials, *how)
    return [_recording(f"m{i}", i, drawn, arousal, first, probability, rng) for i in range(n_animals)], _truth(how)


@functools.lru_cache(maxsize=64)
def _truth(how: tuple[float, ...]) -> MediatedTruth:
    p = _draw(np.random.default_rng(10_007), 4000, 50, *how).risk.mean((2, 3))
    indirect, direct = 0.5 * (p[1, 1] - p[1, 0] + p[0, 1] - p[0, 0]), 0.5 * (p[1, 1] - p[0, 1] + p[1, 0] - p[0, 0])
    return MediatedTruth(float(p[1, 1] - p[0, 0]), float(indirect), float(direct))


def _draw(
    rng: np.random.Generator, n: int, trials: int, through: float, shift: float, direct: float, interaction: float, slow: float, hidden: float, early: float,
    early_effect: float, base: float, animal_sd: float, effect_sd: float, probability: float,
) -> _Drawn:  # fmt: skip
    def vary(x: float) -> NDArray[np.float64]:
        return x * (1 + effect_sd * rng.standard_normal((n, 1)))

    state = np.empty((n, trials))
    state[:, 0] = rng.standard_normal(n)
    for t in range(1, trials):
        # Minutes: trials are 80 s apart.
        state[:, t] = 0.8 * state[:, t - 1] + 0.6 * rng.standard_normal(n)
    unseen = rng.standard_normal((n, trials))
    assigned = rng.random((n, trials)) < probability
    mean, sd = RATE * UNITS * WINDOW, 0.3
    own = sd * (slow * state + hidden * unseen + rng.standard_normal((n, trials)))
    moved = vary(shift)
    count = np.stack([rng.poisson(mean * np.exp(own + sd * a * moved - 0.5 * sd**2)) for a in (0, 1)])
    # An SD of the count: of the state's spread and of Poisson's.
    unit = (count - mean) / np.sqrt((mean * sd) ** 2 + mean)
    odds = base + animal_sd * rng.standard_normal((n, 1)) + slow * state + hidden * unseen
    slope, straight = vary(through), vary(direct)
    risk = np.array([[1 / (1 + np.exp(-(odds + straight * a + (slope + interaction * a) * unit[b]))) for b in (0, 1)] for a in (0, 1)])
    taken = np.where(assigned, risk[1, 1], risk[0, 0])
    at_once = rng.random((n, trials)) < early + early_effect * assigned
    return _Drawn(assigned, state * slow, np.where(assigned, count[1], count[0]), at_once, rng.random((n, trials)) < taken, risk)


def _recording(name: str, i: int, d: _Drawn, arousal: float, first: float, probability: float, rng: np.random.Generator) -> Recording:
    n = d.assigned.shape[1]
    per = round(SPAN / EPOCH)
    stages = np.ones((n, per), np.int8)
    onset = np.arange(n) * SPAN + rng.uniform(24, 32, n)
    starts = np.arange(n * per + 1) * EPOCH
    times, waking = [], np.full(n, np.inf)
    for t in range(n):
        lo, hi = np.searchsorted(starts, [onset[t] + (0.0 if d.early[i, t] else first), onset[t] + LAST], side="right")
        if d.early[i, t] or d.woke[i, t]:
            k = lo if d.early[i, t] else rng.integers(lo, hi)
            stages.flat[k : k + 2] = 0
            waking[t] = max(onset[t], starts[k] + rng.uniform(-EPOCH / 2, EPOCH / 2))
        # The population follows the slow state, but for the window after the onset, which is drawn apart.
        level = RATE * UNITS * np.exp(0.3 * d.slow[i, t])
        spikes = rng.uniform(t * SPAN, (t + 1) * SPAN, rng.poisson(level * SPAN))
        spikes = spikes[(spikes <= onset[t]) | (spikes > onset[t] + WINDOW)]
        times += [spikes, rng.uniform(onset[t], onset[t] + WINDOW, d.count[i, t])]
        if arousal and np.isfinite(waking[t]):
            times.append(rng.uniform(waking[t], waking[t] + 8.0, rng.poisson(arousal * UNITS * 8.0)))
    lc = np.concatenate(times)
    lc = lc[(lc >= 0) & (lc < n * SPAN)]
    ca1 = rng.uniform(0, n * SPAN, rng.poisson(RATE * OTHERS * n * SPAN))
    unit = np.r_[rng.integers(0, UNITS, len(lc)), UNITS + rng.integers(0, OTHERS, len(ca1))]
    table = pd.DataFrame({"id": np.arange(UNITS + OTHERS), "region": ["LC"] * UNITS + ["CA1"] * OTHERS})
    trials = EventTable(onset, onset + 0.05, kind="trial", assigned=d.assigned[i], probability=probability)
    return Recording.from_arrays(
        name, name, "mouse", spikes=dict(times=np.r_[lc, ca1], unit=unit, units=table),
        labels={"scoring": Hypnogram(stages.ravel(), "rodent3", EPOCH), "trials": trials},
    )  # fmt: skip
