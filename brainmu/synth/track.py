"""Running on tracks: where the animal is, and where each cell fires."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Intervals
from brainmu.synth.truth import PlaceFields

__all__ = ["Run", "place_fields", "run_laps"]


@dataclass(frozen=True)
class Run:
    """One stay on one track.

    Attributes
    ----------
    context : str
    start, stop : float, s
    time : float64 (n,), s
    along : float64 (n,), m
        True place along the track; linearised in a maze, the number of the bin in a box.
    speed : float64 (n,), m/s
        Signed along a track, without a sign elsewhere.
    xy : float64 (n, 2), m
        Place in the room as a camera sees it (jitter included).
    path : float64 (n, 2), m
        True place in the room.
    """

    context: str
    start: float
    stop: float
    time: NDArray[np.float64]
    along: NDArray[np.float64]
    speed: NDArray[np.float64]
    xy: NDArray[np.float64]
    path: NDArray[np.float64]

    @property
    def pauses(self) -> Intervals:
        """Where the animal stands still."""
        rate = (len(self.time) - 1) / (self.time[-1] - self.time[0])
        return Intervals.from_mask(np.abs(self.speed) < 0.04, rate, self.start).longer_than(1.0)


def run_laps(
    context: str, number: int, start: float, stop: float, rng: np.random.Generator, *, length: float, speed: float, pause: float, rate: float, jitter: float
) -> Run:
    """Laps to and fro on a straight track of `length` m at about `speed` m/s, with rests of about `pause` s at the ends.

    Track `number` lies one metre further up the room than the one before.
    """
    n = max(2, round((stop - start) * rate))
    time = start + np.arange(n) / rate
    places, moments, t, here = [0.0], [start], start, 0
    while t < stop:
        t += rng.gamma(2.0, pause / 2)
        moments.append(t)
        places.append(here * length)
        here = 1 - here
        travel = length / (speed * np.exp(0.2 * rng.standard_normal()))
        # A smooth start and stop, with a hesitation somewhere on one lap in five.
        u = np.linspace(0, 1, 26)[1:]
        s = 0.75 * u + 0.25 * (3 * u**2 - 2 * u**3)
        stretch = np.ones(25)
        if rng.random() < 0.2:
            k = int(rng.integers(4, 21))
            stretch[k : k + 3] = 2.5
        moments += list(t + travel * np.cumsum(stretch) / 25)
        places += list((s if here else 1 - s) * length)
        t = moments[-1]
    along = np.interp(time, moments, places)
    width = max(1, round(0.25 * rate))
    padded = np.r_[np.full(width, along[0]), along, np.full(width, along[-1])]
    along = np.convolve(padded, np.hanning(2 * width + 1) / np.hanning(2 * width + 1).sum(), mode="valid")[:n]
    sway = np.convolve(rng.standard_normal(n + 2 * width), np.hanning(2 * width + 1), mode="valid")
    sway *= 0.008 / max(sway.std(), 1e-12)
    xy = np.c_[0.1 + along, 0.2 + number + sway] + jitter * rng.standard_normal((n, 2))
    return Run(context, start, stop, time, along, np.gradient(along) * rate, xy, np.c_[0.1 + along, np.full(n, 0.2 + number)])


def place_fields(
    contexts: tuple[str, ...], n_place: int, n_inter: int, rng: np.random.Generator, *, length: float, width: float, peak: float, active: float,
    inter_rate: float, bins: int = 64,
) -> PlaceFields:  # fmt: skip
    """Independent fields on every track (global remapping): each place cell has one, sometimes two, or none.

    Parameters
    ----------
    length, width, peak : float, m, m, Hz
        Track length; median SD of a field; median peak rate (log-normal, 0.25 and 0.5).
    active : float
        Chance that a cell has a field on a track.
    """
    grid = (np.arange(bins) + 0.5) * length / bins
    rate = np.zeros((len(contexts), n_place + n_inter, bins))
    for c in range(len(contexts)):
        for u in range(n_place):
            fields = (rng.random() < active) * (1 + (rng.random() < 0.15))
            rate[c, u] = 0.1
            for k in range(fields):
                centre, sd = rng.uniform(0, length), width * np.exp(0.25 * rng.standard_normal())
                rate[c, u] += peak * np.exp(0.5 * rng.standard_normal()) / (1 + k) * np.exp(-0.5 * ((grid - centre) / sd) ** 2)
    rate[:, n_place:] = (inter_rate * np.exp(0.3 * rng.standard_normal(n_inter)))[:, None]
    xy = np.stack([np.c_[0.1 + grid, np.full(bins, 0.2 + c)] for c in range(len(contexts))])
    return PlaceFields(rate, grid, xy, contexts, np.arange(n_place + n_inter, dtype=np.int32))
