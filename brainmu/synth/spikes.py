"""Spike trains: place cells and interneurons on the track and in sleep, replay inside ripples, and ripples that replay nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable, Spikes
from brainmu.synth.limits import check_model
from brainmu.synth.noise import lookup
from brainmu.synth.reactivation import Microstructure
from brainmu.synth.signals import Drivers
from brainmu.synth.track import Run
from brainmu.synth.truth import PlaceFields

__all__ = ["CellModel", "spike_trains"]

# Mean rate relative to quiet waking, by state (active, quiet, NREM, REM); interneurons fire with arousal.
_BASE = {"place": np.array([0.5, 1.0, 0.8, 0.7]), "inter": np.array([1.2, 0.9, 0.75, 1.1])}


@dataclass(frozen=True)
class CellModel:
    """Firing.

    Parameters
    ----------
    rest_rate : float, Hz
        Median rate of place cells off the track; log-normal with SD 0.9 of its logarithm [1]_.
    inter_rate : float, Hz
        Median rate of interneurons.
    inter_share : float
        Share of interneurons among the cells.
    field_width, field_peak : float, m and Hz
        Median SD and peak rate of a place field.
    active : float
        Chance that a place cell has a field on a given track.
    lap_spread : float
        SD of the log gain of a cell from second to second in its field (overdispersion [2]_).
    theta_depth : float
        Depth of theta modulation, 0 to 1; the phase precesses through the field.
    burst : float
        Chance that a place-cell spike is followed by another within 3-8 ms.
    refractory : float, s
    replay_gain : float, Hz
        Rate at the centre of the replayed place of a cell with a field of median peak.
    replay_noise : float
        Chance that a cell stays silent in a given replay; unrelated spikes come on top.
    fragmented : float
        Share of replays whose second half jumps to another place.
    compression : float
        Replayed speed over running speed; 10-20 [3]_.
    ripple_firing : float, Hz
        Mean rate of a place cell in a ripple without replay.

    References
    ----------
    .. [1] Mizuseki K, Buzsáki G (2013). Preconfigured, skewed distribution of firing rates. Cell Reports 4:1010.
    .. [2] Fenton AA, Muller RU (1998). Place cell discharge is extremely variable. PNAS 95:3182.
    .. [3] Davidson TJ, Kloosterman F, Wilson MA (2009). Hippocampal replay of extended experience. Neuron 63:497.
    """

    rest_rate: float = 0.35
    inter_rate: float = 14.0
    inter_share: float = 0.12
    field_width: float = 0.11
    field_peak: float = 10.0
    active: float = 0.75
    lap_spread: float = 0.6
    theta_depth: float = 0.6
    burst: float = 0.12
    refractory: float = 0.002
    replay_gain: float = 60.0
    replay_noise: float = 0.1
    fragmented: float = 0.1
    compression: float = 15.0
    ripple_firing: float = 3.5

    def __post_init__(self) -> None:
        check_model(
            self, positive=("field_width", "field_peak", "compression"), shares=("inter_share", "active", "theta_depth", "burst", "replay_noise", "fragmented")
        )


def spike_trains(
    fields: PlaceFields, n_place: int, runs: list[Run], d: Drivers, events: Microstructure, start: float, stop: float, model: CellModel, speed: float,
    rng: np.random.Generator,
) -> tuple[Spikes, pd.DataFrame]:  # fmt: skip
    """All spikes, and the path of every replay.

    Returns
    -------
    Spikes
    DataFrame
        One row a reactivation: path (sweep, fragmented), x_from, x_to (m along its track), n_spikes, n_cells.
    """
    n = len(fields.unit_id)
    place = np.arange(n) < n_place
    base = np.where(place, model.rest_rate * np.exp(0.9 * rng.standard_normal(n)), fields.rate[0].mean(1))
    times, ids = [], []

    def keep(t: NDArray[np.float64], u: NDArray[np.intp] | int) -> None:
        times.append(t)
        ids.append(np.broadcast_to(u, t.shape).astype(np.int32))

    gains = {k: d.weights @ v for k, v in _BASE.items()}
    theta = (d.weights[:, 0] + d.weights[:, 3]) * model.theta_depth
    preferred = rng.uniform(0, 2 * np.pi, n)
    silent = np.asarray(events.slow_waves.peak)
    for u in range(n):
        keep(_resting(base[u], gains["place" if place[u] else "inter"], theta, preferred[u], runs if place[u] else [], d, silent, start, stop, rng), u)
    for run in runs:
        keep(*_running(run, fields, n_place, d, model, rng))
    t, u, paths = _replays(events.reactivation, fields, n_place, model, speed, rng)
    keep(t, u)
    for table, shuffled in ((events.awake, False), (events.shuffled, True)):
        keep(*_replays(table, fields, n_place, model, speed, rng, shuffled)[:2])
    keep(*_decoys(events, n_place, n, base, model, rng))
    t, u = np.concatenate(times), np.concatenate(ids)
    t, u = _bursts(t, u, place, model, rng)
    inside = (t >= start) & (t < stop)
    t, u = _refractory(t[inside], u[inside], model.refractory)
    units = pd.DataFrame({"id": fields.unit_id, "region": "CA1", "quality": "good", "type": np.where(place, "place", "interneuron")})
    return Spikes(t, u, units), paths


def _resting(
    base: float, gain: NDArray[np.float64], theta: NDArray[np.float64], preferred: float, runs: list[Run], d: Drivers, silent: NDArray[np.float64],
    start: float, stop: float, rng: np.random.Generator,
) -> NDArray[np.float64]:  # fmt: skip
    """Background firing by state, with theta, silent in down states; place cells are quiet here while on the track, where their fields speak."""
    top = base * gain.max() * (1 + theta.max())
    t = start + np.sort(rng.random(rng.poisson(top * (stop - start)))) * (stop - start)
    x = (t - d.time[0]) / (d.time[1] - d.time[0])
    rate = base * lookup(gain, x) * (1 + lookup(theta, x) * np.cos(d.theta_phase(t) - preferred))
    if len(silent):
        k = np.clip(np.searchsorted(silent, t), 1, len(silent) - 1) if len(silent) > 1 else np.zeros(len(t), dtype=np.intp)
        near = np.minimum(np.abs(t - silent[k]), np.abs(t - silent[np.maximum(k - 1, 0)]))
        rate = np.where(near < 0.075, 0.08 * rate, rate)
    for run in runs:
        rate = np.where((t >= run.start) & (t < run.stop), 0.0, rate)
    return t[rng.random(len(t)) * top < rate]


def _running(
    run: Run, fields: PlaceFields, n_place: int, d: Drivers, model: CellModel, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Place-cell spikes on a track: field x speed x second-to-second gain x precessing theta."""
    c = fields.contexts.index(run.context)
    times, ids = [], []
    step, frames = fields.grid[1] - fields.grid[0], (len(run.time) - 1) / (run.time[-1] - run.time[0])
    for u in range(n_place):
        tuning = fields.rate[c, u]
        seconds = int(np.ceil(run.stop - run.start)) + 1
        vary = np.exp(model.lap_spread * np.clip(rng.standard_normal(seconds), -2, 2) - 0.5 * model.lap_spread**2)
        top = tuning.max() * vary.max() * (1 + model.theta_depth)
        t = run.start + rng.random(rng.poisson(top * (run.stop - run.start))) * (run.stop - run.start)
        i = (t - run.start) * frames
        x, v = lookup(run.along, i), lookup(run.speed, i)
        rate = lookup(tuning, (x - fields.grid[0]) / step)
        moving = np.clip(np.abs(v) / 0.10, 0.04, 1.0)
        centre = fields.grid[tuning.argmax()]
        progress = np.clip((x - centre) * np.sign(v) / (4 * model.field_width + step), -0.5, 0.5)
        phase = np.cos(d.theta_phase(t) + 2 * np.pi * 0.7 * progress)
        rate *= moving * vary[(t - run.start).astype(np.intp)] * (1 + model.theta_depth * phase)
        t = t[rng.random(len(t)) * top < rate]
        times.append(t)
        ids.append(np.full(len(t), u, dtype=np.int32))
    return np.concatenate(times), np.concatenate(ids)


def _replays(
    table: EventTable, fields: PlaceFields, n_place: int, model: CellModel, speed: float, rng: np.random.Generator, shuffled: bool = False
) -> tuple[NDArray[np.float64], NDArray[np.int32], pd.DataFrame]:
    """A sweep along the track in each event: every cell fires as the swept place passes its field. `shuffled` permutes the cells of each event."""
    length = fields.grid[-1] + fields.grid[0]
    times, ids, rows = [], [], []
    shape = fields.rate[:, :n_place] / model.field_peak
    for start, stop, context, direction in zip(table.start, table.stop, table.context, table.direction):
        swept = min(model.compression * speed * np.exp(0.2 * rng.standard_normal()) * (stop - start), 0.97 * length)
        a = rng.uniform(0, length - swept)
        first, last = (a, a + swept) if direction == "forward" else (a + swept, a)
        m = max(8, int((stop - start) / 0.002))
        u = (np.arange(m) + 0.5) / m
        where = first + (last - first) * u
        path = "fragmented" if rng.random() < model.fragmented else "sweep"
        if path == "fragmented":
            # The middle of the sweep jumps somewhere else and goes on from there.
            cut = rng.uniform(0.35, 0.65)
            where = np.where(u > cut, np.remainder(where + rng.uniform(0.3, 0.7) * length, length), where)
        place = np.clip((where / length * len(fields.grid)).astype(np.intp), 0, len(fields.grid) - 1)
        tuning = shape[fields.contexts.index(context)][:, place]
        if shuffled:
            tuning = tuning[rng.permutation(n_place)]
        # In a ripple the log-normal spread of peak rates narrows: cells speak more equally than on the track.
        rate = model.replay_gain * np.sqrt(np.maximum(tuning, 0)) * np.minimum(tuning * 4, 1.0)
        rate *= (rng.random(n_place) >= model.replay_noise)[:, None]
        counts = rng.poisson(rate * (stop - start) / m)
        cell, when = np.nonzero(counts)
        cell, when = np.repeat(cell, counts[cell, when]), np.repeat(when, counts[cell, when])
        times.append(start + (when + rng.random(len(when))) * (stop - start) / m)
        ids.append(cell.astype(np.int32))
        rows.append((path, first, last, len(cell), len(np.unique(cell))))
    paths = pd.DataFrame(rows, columns=["path", "x_from", "x_to", "n_spikes", "n_cells"])
    empty = np.empty(0)
    return np.concatenate(times) if times else empty, np.concatenate(ids) if ids else empty.astype(np.int32), paths


def _decoys(
    events: Microstructure, n_place: int, n: int, base: NDArray[np.float64], model: CellModel, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Spikes of ripples without replay, in no order; and the interneurons of every ripple."""
    start, length = events.ripples.start, events.ripples.duration
    empty = events.ripples.carries == ""
    # Some cells like ripples more than others; each ripple recruits its own selection.
    liking = np.exp(0.8 * rng.standard_normal(n_place)) * 0.7
    rate = model.ripple_firing * (length * empty)[:, None] * liking * rng.gamma(0.5, 2.0, size=(len(start), n_place))
    extra = 0.7 * model.ripple_firing * (length * ~empty)[:, None] * liking
    inter = 1.5 * length[:, None] * base[n_place:n]
    counts = rng.poisson(np.concatenate([rate + extra, inter], axis=1))
    event, unit = np.nonzero(counts)
    event, unit = np.repeat(event, counts[event, unit]), np.repeat(unit, counts[event, unit])
    return start[event] + rng.random(len(event)) * length[event], unit.astype(np.int32)


def _bursts(
    t: NDArray[np.float64], u: NDArray[np.int32], place: NDArray[np.bool_], model: CellModel, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    again = (rng.random(len(t)) < model.burst) & place[u]
    return np.r_[t, t[again] + rng.uniform(0.003, 0.008, again.sum())], np.r_[u, u[again]]


def _refractory(t: NDArray[np.float64], u: NDArray[np.int32], dead: float) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Drop spikes that follow another of the same unit within `dead` s."""
    order = np.lexsort((t, u))
    t, u = t[order], u[order]
    while True:
        close = np.r_[False, (np.diff(t) < dead) & (np.diff(u) == 0)]
        close &= ~np.r_[False, close[:-1]]
        if not close.any():
            order = np.argsort(t, kind="stable")
            return t[order], u[order]
        t, u = t[~close], u[~close]
