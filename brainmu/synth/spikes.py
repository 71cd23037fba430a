"""Spike trains of CA1: place cells and interneurons where the animal runs and in sleep, replay, and ripples that replay nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable, Spikes
from brainmu.core.limits import check_model, whole
from brainmu.synth.arenas import Arena, route_maker
from brainmu.synth.assemblies import Assemblies
from brainmu.synth.effects import ornstein_uhlenbeck
from brainmu.synth.noise import lookup
from brainmu.synth.reactivation import Microstructure
from brainmu.synth.signals import Drivers
from brainmu.synth.sweeps import Replayer, SpikeList, roused, shared_gain
from brainmu.synth.track import Run
from brainmu.synth.truth import PlaceFields

__all__ = ["CellModel", "Played", "spike_trains", "unplayed"]

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
        Share of replays that jump to another place.
    jumps : int
        Jumps of those.
    partial, partial_span : float
        Share of replays that cover only a part of what they would at their speed and length, and which part. An assumption.
    compression, compression_spread : float
        Median replayed speed over running speed, 10-20 [3]_, and the SD of its logarithm. A sweep never leaves its track: on a short one replay is slower.
    ripple_firing : float, Hz
        Mean rate of a place cell in a ripple without replay.
    event_spread : float
        SD of the logarithm of the gain that all cells share in a ripple, with replay or without: events are rich or poor in spikes, so that their number
        tells little. An assumption.
    rate_drift, drift_tau : float, 1 and h
        SD of the logarithm of each cell's gain, which wanders over hours, and its time constant. None by default; 0.3 and 6 h are mild.

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
    replay_gain: float = 62.0
    replay_noise: float = 0.1
    fragmented: float = 0.1
    jumps: int = 1
    partial: float = 0.0
    partial_span: float = 0.35
    compression: float = 15.0
    compression_spread: float = 0.2
    ripple_firing: float = 10.0
    event_spread: float = 0.3
    rate_drift: float = 0.0
    drift_tau: float = 6.0

    def __post_init__(self) -> None:
        check_model(
            self, positive=("field_width", "field_peak", "compression", "partial_span", "drift_tau"),
            shares=("inter_share", "active", "theta_depth", "burst", "replay_noise", "fragmented", "partial", "partial_span"),
        )  # fmt: skip
        whole("jumps", self.jumps, 1)


@dataclass
class Played:
    """What the planted events turned out to be.

    Attributes
    ----------
    reactivation, awake : EventTable
        With the columns of :class:`~brainmu.synth.sweeps.Sweeps`.
    fragments : EventTable
        Of the reactivations.
    decoys : EventTable
        kind identity_shuffled, rate_matched, burst, other_map; context it imitates, ripple (row or -1), n_spikes, n_cells.
    volleys : EventTable
        Of the assemblies while the animal was in their context.
    """

    reactivation: EventTable
    awake: EventTable
    fragments: EventTable
    decoys: EventTable
    volleys: EventTable


def spike_trains(
    fields: PlaceFields, n_place: int, runs: list[Run], d: Drivers, events: Microstructure, start: float, stop: float, model: CellModel, speed: float,
    rng: np.random.Generator, *, arenas: dict[str, Arena], assemblies: Assemblies, own: np.random.Generator,
) -> tuple[Spikes, Played]:  # fmt: skip
    """All spikes of CA1, and what each planted event did; `own` draws what only some recordings have."""
    n = len(fields.unit_id)
    place = np.arange(n) < n_place
    base = np.where(place, model.rest_rate * np.exp(0.9 * rng.standard_normal(n)), fields.rate[0].mean(1))
    gains = {k: d.weights @ v for k, v in _BASE.items()}
    theta = (d.weights[:, 0] + d.weights[:, 3]) * model.theta_depth
    preferred = rng.uniform(0, 2 * np.pi, n)
    silent = np.asarray(events.slow_waves.peak)
    drift = _drift(model, n, start, stop, own)
    trains: list[SpikeList] = []
    for u in range(n):
        kind, away = ("place", runs) if place[u] else ("inter", [])
        own_time = _resting(base[u], gains[kind], theta, preferred[u], away, d, silent, start, stop, drift[u], rng)
        trains.append((own_time, np.full(len(own_time), u, dtype=np.int32)))
    trains += [_running(run, fields, arenas[run.context], n_place, d, model, drift, rng) for run in runs]
    by_context = {r.context: r for r in runs}
    replayer = Replayer(
        fields.rate[:, :n_place] / model.field_peak, arenas, {c: route_maker(a, by_context.get(c), own) for c, a in arenas.items()}, model, speed,
        lambda t: drift[:n_place, min(int((t - start) / 60.0), drift.shape[1] - 1)], own.permutation(n_place), assemblies, own,
    )  # fmt: skip
    planted, played = _planted(replayer, events, runs, base[n_place:], rng)
    trains += [*planted, _unordered(events, n_place, n, base, model, rng)]
    t, u = (np.concatenate(x) for x in zip(*trains))
    t, u = _bursts(t, u, place, model, rng)
    inside = (t >= start) & (t < stop)
    t, u = _refractory(t[inside], u[inside], model.refractory)
    units = pd.DataFrame({"id": fields.unit_id, "region": "CA1", "quality": "good", "type": np.where(place, "place", "interneuron")})
    return Spikes(t, u, units), played


def _planted(
    replayer: Replayer, events: Microstructure, runs: list[Run], inter: NDArray[np.float64], rng: np.random.Generator
) -> tuple[list[SpikeList], Played]:  # fmt: skip
    """Spikes of replays, of their decoys and of assemblies; `inter` (interneuron,), Hz, are the rates of the interneurons."""
    own, n_place = replayer.own, replayer.rate.shape[1]
    replays, awake = replayer.play(events.reactivation, rng), replayer.play(events.awake, rng)
    decoys = [replayer.play(events.shuffled, rng, "identity_shuffled"), replayer.play(events.rate_matched, own, "rate_matched")]
    decoys.append(replayer.play(events.other_map, own, "other_map"))
    contexts = own.choice(list(replayer.arenas), len(events.bursts)).astype(object)
    decoys.append(replayer.play(events.bursts.assign(context=contexts, direction="forward"), own, "burst"))
    t, u, volleys = replayer.assemblies.running(runs, own)
    table = _decoy_table(events, [x.paths for x in decoys])
    played = Played(_with(events.reactivation, replays.paths), _with(events.awake, awake.paths), replays.fragments, table, volleys)
    return [*(x.spikes for x in (replays, awake, *decoys)), roused(events.bursts, n_place, inter, own), (t, u)], played


def unplayed(events: Microstructure) -> Played:
    """The planted events of a recording without cells."""
    empty = EventTable([], [])
    return Played(events.reactivation, events.awake, empty, _decoy_table(events, []), empty)


def _decoy_table(events: Microstructure, counts: list[pd.DataFrame]) -> EventTable:
    """All decoys in time order; `counts` holds n_spikes and n_cells of each kind."""
    tables = {"identity_shuffled": events.shuffled, "rate_matched": events.rate_matched, "other_map": events.other_map, "burst": events.bursts}
    parts = [
        pd.DataFrame({"start": x.start, "stop": x.stop, "kind": kind, "context": x.context if "context" in x.columns else "", "ripple": x.ripple})
        for kind, x in tables.items()
    ]  # fmt: skip
    if counts:
        parts = [a.assign(n_spikes=b["n_spikes"].to_numpy(), n_cells=b["n_cells"].to_numpy()) for a, b in zip(parts, counts)]
    filled = [p for p in parts if len(p)]
    return EventTable.from_frame(pd.concat(filled, ignore_index=True) if filled else parts[0]).sorted()


def _with(table: EventTable, columns: pd.DataFrame) -> EventTable:
    return table.assign(**{c: columns[c].to_numpy() for c in columns})


def _drift(model: CellModel, n: int, start: float, stop: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Gain of each cell by the minute (unit, minute), about 1."""
    minutes = int((stop - start) / 60.0) + 2
    if not model.rate_drift:
        return np.ones((n, 1))
    wander = [ornstein_uhlenbeck(rng, minutes, 60.0 * model.drift_tau, 1.0) for _ in range(n)]
    return np.exp(model.rate_drift * np.stack(wander) - 0.5 * model.rate_drift**2)


def _at(drift: NDArray[np.float64], since: NDArray[np.float64]) -> NDArray[np.float64] | float:
    """Gain at `since` (n,), s, from the start."""
    return 1.0 if len(drift) == 1 else lookup(drift, since / 60.0)


def _resting(
    base: float, gain: NDArray[np.float64], theta: NDArray[np.float64], preferred: float, runs: list[Run], d: Drivers, silent: NDArray[np.float64],
    start: float, stop: float, drift: NDArray[np.float64], rng: np.random.Generator,
) -> NDArray[np.float64]:  # fmt: skip
    """Background firing by state, with theta, silent in down states; place cells are quiet here while on the track, where their fields speak."""
    top = base * gain.max() * (1 + theta.max()) * drift.max()
    t = start + np.sort(rng.random(rng.poisson(top * (stop - start)))) * (stop - start)
    x = (t - d.time[0]) / (d.time[1] - d.time[0])
    rate = base * lookup(gain, x) * (1 + lookup(theta, x) * np.cos(d.theta_phase(t) - preferred)) * _at(drift, t - start)
    if len(silent):
        k = np.clip(np.searchsorted(silent, t), 1, len(silent) - 1) if len(silent) > 1 else np.zeros(len(t), dtype=np.intp)
        near = np.minimum(np.abs(t - silent[k]), np.abs(t - silent[np.maximum(k - 1, 0)]))
        rate = np.where(near < 0.075, 0.08 * rate, rate)
    for run in runs:
        rate = np.where((t >= run.start) & (t < run.stop), 0.0, rate)
    return t[rng.random(len(t)) * top < rate]


def _running(
    run: Run, fields: PlaceFields, arena: Arena, n_place: int, d: Drivers, model: CellModel, drift: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Place-cell spikes where the animal runs: field x speed x second-to-second gain x precessing theta."""
    c = fields.contexts.index(run.context)
    times, ids = [], []
    frames = (len(run.time) - 1) / (run.time[-1] - run.time[0])
    seen = _on_track(run, fields, model) if arena.kind == "linear" else _on_the_plane(run, arena, fields.xy[c], model)
    for u in range(n_place):
        tuning = fields.rate[c, u]
        seconds = int(np.ceil(run.stop - run.start)) + 1
        vary = np.exp(model.lap_spread * np.clip(rng.standard_normal(seconds), -2, 2) - 0.5 * model.lap_spread**2)
        top = tuning.max() * vary.max() * (1 + model.theta_depth) * drift[u].max()
        t = run.start + rng.random(rng.poisson(top * (run.stop - run.start))) * (run.stop - run.start)
        i = (t - run.start) * frames
        rate, progress = seen(tuning, i)
        moving = np.clip(np.abs(lookup(run.speed, i)) / 0.10, 0.04, 1.0)
        phase = np.cos(d.theta_phase(t) + 2 * np.pi * 0.7 * progress)
        rate *= moving * vary[(t - run.start).astype(np.intp)] * (1 + model.theta_depth * phase) * _at(drift[u], t - d.time[0])
        t = t[rng.random(len(t)) * top < rate]
        times.append(t)
        ids.append(np.full(len(t), u, dtype=np.int32))
    return np.concatenate(times), np.concatenate(ids)


_Seen = Callable[[NDArray[np.float64], NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""Of a tuning curve (bin,) and frames (n,): the rate (n,), Hz, and the way through the field (n,), -0.5 to 0.5, that sets the phase."""


def _on_track(run: Run, fields: PlaceFields, model: CellModel) -> _Seen:
    step = fields.grid[1] - fields.grid[0]

    def seen(tuning: NDArray[np.float64], i: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        x, v = lookup(run.along, i), lookup(run.speed, i)
        through = (x - fields.grid[tuning.argmax()]) * np.sign(v) / (4 * model.field_width + step)
        return lookup(tuning, (x - fields.grid[0]) / step), np.clip(through, -0.5, 0.5)

    return seen


def _on_the_plane(run: Run, arena: Arena, xy: NDArray[np.float64], model: CellModel) -> _Seen:
    """In a maze or a box the way through a field is that along the direction of travel [Jeewajee et al. 2014, Phil Trans R Soc B 369:20120532]."""
    bins = arena.bins(run.path if arena.kind == "open" else run.along)
    going = np.gradient(run.path, axis=0)
    going /= np.maximum(np.hypot(*going.T), 1e-9)[:, None]

    def seen(tuning: NDArray[np.float64], i: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        k = np.minimum(i.astype(np.intp), len(bins) - 1)
        through = ((run.path[k] - xy[tuning.argmax()]) * going[k]).sum(1) / (4 * model.field_width)
        return tuning[bins[k]], np.clip(through, -0.5, 0.5)

    return seen


def _unordered(
    events: Microstructure, n_place: int, n: int, base: NDArray[np.float64], model: CellModel, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Spikes of ripples without replay, in no order; and the interneurons of every ripple."""
    start, length = events.ripples.start, events.ripples.duration
    empty = events.ripples.carries == ""
    # Some cells like ripples more than others; each ripple recruits its own selection.
    liking = np.exp(0.8 * rng.standard_normal(n_place)) * 0.7
    rich = shared_gain(model, len(start), rng)
    rate = model.ripple_firing * (rich * length * empty)[:, None] * liking * rng.gamma(0.5, 2.0, size=(len(start), n_place))
    extra = 0.25 * model.ripple_firing * (length * ~empty)[:, None] * liking
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
