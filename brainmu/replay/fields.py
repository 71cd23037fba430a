"""Place fields: how fast each unit fires at each place, with the time that was spent there."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from brainmu.core import Intervals, Spikes
from brainmu.errors import InputError, MissingDataError
from brainmu.replay.position import Position

__all__ = ["PlaceFields", "place_fields", "select_units"]

_MOST_CELLS = 2500
_PRIOR_SECONDS = 0.5
"""Weight of a unit's mean rate in each estimate, as seconds of occupancy."""


@dataclass(frozen=True)
class PlaceFields:
    """Firing rates over a grid of places.

    Attributes
    ----------
    rate : float32 (unit, *bin), Hz
        NaN where the animal has not been.
    occupancy : float64 (*bin), s
        Time spent, smoothed as the rates are.
    edges : tuple of float64 (bin + 1,), `unit`
        Of each axis.
    units : int32 (unit,)
        Ids, in the order of `rate`.
    unit : str
        Of the positions.
    smoothing : float, `unit`
        SD of the Gaussian.
    seconds : float
        Time that the fields rest on.
    context : str
        Which track or environment.
    """

    rate: NDArray[np.float32]
    occupancy: NDArray[np.float64]
    edges: tuple[NDArray[np.float64], ...]
    units: NDArray[np.int32]
    unit: str
    smoothing: float
    seconds: float
    context: str = ""

    @property
    def visited(self) -> NDArray[np.bool_]:
        """Which bins (*bin) the fields are defined on."""
        return np.isfinite(self.rate[0])

    @property
    def centres(self) -> tuple[NDArray[np.float64], ...]:
        """Bin centres of each axis."""
        return tuple((e[1:] + e[:-1]) / 2 for e in self.edges)

    @property
    def points(self) -> NDArray[np.float64]:
        """Places (place, d) of the visited bins; posteriors run over these."""
        grid = np.stack(np.meshgrid(*self.centres, indexing="ij"), axis=-1)
        return grid[self.visited]

    @property
    def rates(self) -> NDArray[np.float32]:
        """Rates (unit, place), Hz, at :attr:`points`."""
        return self.rate[:, self.visited]

    @property
    def prior(self) -> NDArray[np.float64]:
        """Occupancy (place,) at :attr:`points`, summing to 1."""
        o = self.occupancy[self.visited]
        return o / o.sum()

    @property
    def peak(self) -> NDArray[np.float64]:
        """Place (unit, d) of each unit's highest rate."""
        return self.points[self.rates.argmax(1)]

    @property
    def information(self) -> NDArray[np.float64]:
        """Spatial information of each unit (unit,), bits a spike (Skaggs et al. 1993)."""
        p, r = self.prior, self.rates.astype(np.float64)
        mean = (r * p).sum(1, keepdims=True)
        ratio = r / mean
        return (p * ratio * np.log2(ratio)).sum(1)


def place_fields(
    spikes: Spikes, position: Position, during: Intervals, *, bin: float | None = None, smoothing: float | None = None, context: str = "",
    edges: tuple[NDArray[np.float64], ...] | None = None,
) -> PlaceFields:  # fmt: skip
    """Place fields of every unit of `spikes` from what happened in `during`.

    Rate = (spikes + k · mean rate) / (occupancy + k), both smoothed by the same Gaussian, where k stands for half a second of
    occupancy inside the kernel: a unit's mean where little is known of it.

    Parameters
    ----------
    bin : float or None, the position's unit
        Side of a grid cell; None takes a 60th of the longer side of the range (coarser in two dimensions if that leaves more than 2,500 cells).
    smoothing : float or None, the position's unit
        SD of the Gaussian. None chooses it by held-out Poisson likelihood over five contiguous parts of `during`.

    Raises
    ------
    MissingDataError
        If `during` holds less than 10 s of position, or there are no units.
    """
    if spikes.n_units == 0:
        raise MissingDataError("place fields: the recording has no units left, expected at least one")
    samples = during.contains(position.times)
    seconds = float(position.dwell[samples].sum())
    if seconds < 10:
        raise MissingDataError(f"place fields: {seconds:.1f} s of position lie inside the running epochs, expected at least 10 s")
    edges = _grid(position.values[samples], bin) if edges is None else edges
    parts = _parts(spikes, position, during, edges, samples)
    side = np.array([e[1] - e[0] for e in edges])
    if smoothing is None:
        smoothing = _best_smoothing(parts, edges, side)
    if not smoothing > 0:
        raise InputError(f"place-field smoothing is {smoothing}, expected a positive length in {position.unit or 'the position unit'}")
    occupancy, counts = parts.occupancy.sum(0), parts.counts.sum(0)
    rate, occ, visited = _rates(occupancy, counts, smoothing / side)
    rate[:, ~visited] = np.nan
    return PlaceFields(rate.astype(np.float32), occ, edges, spikes.units["id"].to_numpy(), position.unit, float(smoothing), seconds, context)


def select_units(spikes: Spikes, least: int = 50, fastest: float = 30.0) -> tuple[Spikes, pd.DataFrame]:
    """Units with at least `least` spikes and a mean rate below `fastest` Hz over their own extent; and the table of those left out, with the reason."""
    ids = spikes.units["id"].to_numpy()
    order = np.argsort(spikes.unit_id, kind="stable")
    cut = np.searchsorted(spikes.unit_id[order], np.sort(ids))
    bounds = dict(zip(np.sort(ids).tolist(), zip(cut.tolist(), np.r_[cut[1:], len(order)].tolist())))
    keep, reason = [], []
    for u in ids.tolist():
        a, b = bounds[u]
        t = spikes.times[order[a:b]]
        if b - a < least:
            reason.append((u, f"{b - a} spikes, fewer than {least}"))
        elif (b - a) / max(float(t[-1] - t[0]), 1e-9) >= fastest:
            reason.append((u, f"{(b - a) / (t[-1] - t[0]):.1f} Hz, not below {fastest:g}"))
        else:
            keep.append(u)
    left_out = pd.DataFrame(reason, columns=["id", "reason"])
    if not keep:
        raise MissingDataError(f"no unit of {spikes.n_units} has at least {least} spikes and fires below {fastest:g} Hz: decoding needs some")
    return spikes.pick(keep), left_out


@dataclass(frozen=True)
class _Parts:
    """Occupancy (part, *bin) and spike counts (part, unit, *bin) of contiguous parts of the running time."""

    occupancy: NDArray[np.float64]
    counts: NDArray[np.float64]


def _grid(values: NDArray[np.float64], bin: float | None) -> tuple[NDArray[np.float64], ...]:
    low, high = np.percentile(values, [0.1, 99.9], axis=0)
    span = np.maximum(high - low, 1e-9)
    if not (high - low).max() > 0:
        raise MissingDataError(f"place fields: the position is {low.tolist()} throughout, expected movement")
    side = float(span.max()) / 60 if bin is None else float(bin)
    if not side > 0:
        raise InputError(f"place-field bin is {bin}, expected a positive length")
    while bin is None and np.prod(np.ceil(span / side)) > _MOST_CELLS:
        side *= 1.05
    return tuple(lo + side * (np.arange(int(np.ceil(s / side)) + 1) + (s / side - np.ceil(s / side)) / 2) for lo, s in zip(low, span))


def _parts(spikes: Spikes, position: Position, during: Intervals, edges: tuple[NDArray[np.float64], ...], samples: NDArray[np.bool_], n: int = 5) -> _Parts:
    shape = tuple(len(e) - 1 for e in edges)
    size = int(np.prod(shape))
    dwell = np.where(samples, position.dwell, 0.0)
    part_of_sample = np.minimum((np.cumsum(dwell) / max(dwell.sum(), 1e-12) * n).astype(int), n - 1)
    cell = _cells(position.values, edges)
    ok = samples & (cell >= 0)
    occupancy = np.bincount(part_of_sample[ok] * size + cell[ok], dwell[ok], n * size).reshape(n, *shape)

    ran = during.contains(spikes.times)
    t, u = spikes.times[ran], spikes.unit_id[ran]
    at = position.at(t)
    cell = np.where(np.isfinite(at).all(1), _cells(at, edges), -1)
    nearest = np.clip(np.searchsorted(position.times, t), 0, len(position.times) - 1)
    ids = spikes.units["id"].to_numpy()
    order = np.argsort(ids)
    column = order[np.searchsorted(ids[order], u)]
    ok = cell >= 0
    flat = (part_of_sample[nearest[ok]] * spikes.n_units + column[ok]) * size + cell[ok]
    counts = np.bincount(flat, minlength=n * spikes.n_units * size).reshape(n, spikes.n_units, *shape)
    return _Parts(occupancy, counts.astype(np.float64))


def _cells(values: NDArray[np.float64], edges: tuple[NDArray[np.float64], ...]) -> NDArray[np.intp]:
    """Flat cell (n,) of each place; -1 outside the grid."""
    flat = np.zeros(len(values), dtype=np.intp)
    inside = np.ones(len(values), dtype=bool)
    for v, e in zip(values.T, edges):
        i = np.searchsorted(e, v, side="right") - 1
        inside &= (i >= 0) & (i < len(e) - 1)
        flat = flat * (len(e) - 1) + np.clip(i, 0, len(e) - 2)
    return np.where(inside, flat, -1)


def _rates(
    occupancy: NDArray[np.float64], counts: NDArray[np.float64], sigma: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Smoothed rates (unit, *bin), occupancy (*bin) and which bins have any, from raw occupancy and counts; `sigma` in bins."""
    # Seconds inside the kernel = smoothed density times the kernel's effective area.
    area = float(np.prod(np.maximum(2 * np.sqrt(np.pi) * sigma, 1.0)))
    k = _PRIOR_SECONDS / area
    occ = gaussian_filter(occupancy, sigma, mode="constant")
    num = gaussian_filter(counts, (0, *sigma), mode="constant")
    mean = counts.sum(tuple(range(1, counts.ndim))) / max(occupancy.sum(), 1e-9)
    # A unit silent while running still has a rate: half a spike in all the time there was.
    mean = np.maximum(mean, 0.5 / max(occupancy.sum(), 1e-9)).reshape(-1, *[1] * occupancy.ndim)
    visited = gaussian_filter((occupancy > 0).astype(float), np.minimum(sigma, 1.0), mode="constant") > 0.2
    visited |= occupancy > 0
    return (num + k * mean) / (occ + k), np.where(visited, occ, 0.0), visited


def _best_smoothing(parts: _Parts, edges: tuple[NDArray[np.float64], ...], side: NDArray[np.float64]) -> float:
    """The SD whose fields, fitted on four fifths of the time, give the spikes of the last fifth the highest Poisson likelihood."""
    span = max(float(e[-1] - e[0]) for e in edges)
    candidates = span / np.array([120.0, 80.0, 55.0, 38.0, 26.0, 18.0, 12.0])
    candidates = candidates[candidates >= 0.5 * side.min()]
    total_o, total_c = parts.occupancy.sum(0), parts.counts.sum(0)
    gain = []
    for sd in candidates:
        value = 0.0
        for o, c in zip(parts.occupancy, parts.counts):
            if o.sum() <= 0 or (total_o - o).sum() <= 0:
                continue
            rate, _, _ = _rates(total_o - o, total_c - c, sd / side)
            value += float((c * np.log(rate)).sum() - (rate * o).sum())
        gain.append(value)
    return float(candidates[int(np.argmax(gain))])
