"""Spikes of replays and of what looks like them: sweeps, jumps, assemblies, and decoys with the cells or the times in another order."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable
from brainmu.synth.arenas import Arena, Route
from brainmu.synth.assemblies import Assemblies

__all__ = ["Replayer", "SpikeList", "Sweeps", "roused", "shared_gain"]

SpikeList = tuple[NDArray[np.float64], NDArray[np.int32]]
"""Times (n,), s, and row of the unit (n,) of some spikes."""
_LEAP = 0.2  # of the route: a larger step within 2 ms is a jump


@dataclass
class Sweeps:
    """What the events of one table did.

    Attributes
    ----------
    spikes : SpikeList
    paths : DataFrame
        One row an event: path (sweep, fragmented, assembly), x_from, x_to (m along the track, linearised in a maze, in the room for a box), n_spikes, n_cells,
        span (share of the route), speed (m/s), compression (over running speed), jumps, assembly (row or -1);
        in a maze arm_from, arm_to; in a box y_from, y_to (m).
    fragments : EventTable
        The stretches of continuous movement: one an event, more where it jumps; `event` is the row, x_from and x_to as above (y_from, y_to in a box).
    """

    spikes: SpikeList
    paths: pd.DataFrame
    fragments: EventTable


@dataclass
class Replayer:
    """Makes replays of the contexts of one animal.

    Parameters
    ----------
    rate : float64 (context, unit, bin)
        Fields of the place cells over their median peak rate.
    arenas : dict of context to Arena
    routes : dict of context to function that draws a Route
    model : CellModel
    speed : float, m/s
        Running speed, which replay compresses.
    drift : function of time (s) to float64 (unit,)
        Gain of each cell.
    other : intp (unit,)
        The cells in the order of a place that is never visited.
    assemblies : Assemblies
    own : Generator
        For what not every replay has: parts, several jumps, assemblies.
    """

    rate: NDArray[np.float64]
    arenas: dict[str, Arena]
    routes: dict[str, Callable[[], Route]]
    model: Any
    speed: float
    drift: Callable[[float], NDArray[np.float64]]
    other: NDArray[np.intp]
    assemblies: Assemblies
    own: np.random.Generator

    def play(self, table: EventTable, rng: np.random.Generator, decoy: str = "") -> Sweeps:
        """Spikes of every event of `table` (start, stop, context, direction): each cell fires as the swept place passes its field.

        `decoy`: "identity_shuffled" permutes the cells of each event; "rate_matched" moves the spikes of each cell together to another time of the event;
        "burst" does the first and scatters every spike; "other_map" sweeps through a place that was never visited (the context's fields under other cells,
        the same in all events).
        """
        times, ids, rows, parts = [], [], [], []
        linked = self.assemblies.choose(table, self.own) if not decoy else np.full(len(table), -1)
        for i, (start, stop, context, direction) in enumerate(zip(table.start, table.stop, table.context, table.direction)):
            if linked[i] >= 0:
                t, u = self.assemblies.reactivated(linked[i], start, stop, self.own)
                row = {"path": "assembly", "x_from": np.nan, "x_to": np.nan, "span": np.nan, "speed": np.nan, "compression": np.nan, "jumps": 0}
            else:
                t, u, row, pieces = self._sweep(start, stop, context, direction, rng, decoy)
                parts += [{"event": i} | p for p in pieces]
            times.append(t)
            ids.append(u)
            rows.append(row | {"n_spikes": len(u), "n_cells": len(np.unique(u)), "assembly": linked[i]})
        kind = self.arenas[next(iter(self.arenas))].kind
        ends = {"linear": [], "arms": ["arm_from", "arm_to"], "open": ["y_from", "y_to"]}[kind]
        columns = ["path", "x_from", "x_to", "n_spikes", "n_cells", "span", "speed", "compression", "jumps", "assembly", *ends]
        places = ["event", "x_from", "x_to", *(ends if kind == "open" else [])]
        f = pd.DataFrame(parts, columns=["start", "stop", *places])
        fragments = EventTable(f["start"], f["stop"], kind="fragment", **{c: f[c].to_numpy() for c in places})
        return Sweeps((_join(times, float), _join(ids, np.int32)), pd.DataFrame(rows, columns=columns), fragments)

    def _sweep(
        self, start: float, stop: float, context: str, direction: str, rng: np.random.Generator, decoy: str
    ) -> tuple[NDArray[np.float64], NDArray[np.int32], dict[str, Any], list[dict[str, Any]]]:
        m, route, n_place = self.model, self.routes[context](), self.rate.shape[1]
        length, c = route.length, list(self.arenas).index(context)
        swept = min(m.compression * self.speed * np.exp(m.compression_spread * rng.standard_normal()) * (stop - start), 0.97 * length)
        if m.partial and self.own.random() < m.partial:
            swept *= m.partial_span
        a = rng.uniform(0, length - swept)
        first, last = (a, a + swept) if direction == "forward" else (a + swept, a)
        steps = max(8, int((stop - start) / 0.002))
        u = (np.arange(steps) + 0.5) / steps
        where = first + (last - first) * u
        path = "fragmented" if rng.random() < m.fragmented else "sweep"
        if path == "fragmented":
            # The middle of the sweep jumps somewhere else and goes on from there.
            cut = rng.uniform(0.35, 0.65)
            where = np.where(u > cut, np.remainder(where + rng.uniform(0.3, 0.7) * length, length), where)
            for _ in range(m.jumps - 1):
                where = np.where(u > self.own.uniform(0.1, 0.9), np.remainder(where + self.own.uniform(0.3, 0.7) * length, length), where)
        tuning = self.rate[c][:, route.at(where)]
        if decoy in ("identity_shuffled", "burst"):
            # Among the cells with a field there: those without would give the decoy away by taking part.
            with_field = np.flatnonzero(np.ptp(self.rate[c], axis=1) > 0)
            tuning[with_field] = tuning[rng.permutation(with_field)]
        elif decoy == "other_map":
            tuning = tuning[self.other]
        # In a ripple the log-normal spread of peak rates narrows: cells speak more equally than on the track.
        rate = m.replay_gain * np.sqrt(np.maximum(tuning, 0)) * np.minimum(tuning * 4, 1.0)
        rate *= ((rng.random(n_place) >= m.replay_noise) * self.drift(start))[:, None] * shared_gain(m, 1, rng)
        counts = rng.poisson(rate * (stop - start) / steps)
        cell, when = np.nonzero(counts)
        cell, when = np.repeat(cell, counts[cell, when]), np.repeat(when, counts[cell, when])
        t = start + (when + rng.random(len(when))) * (stop - start) / steps
        if decoy == "rate_matched":
            # Each cell's spikes stay together: scattered, they would be no volley, and that alone would tell.
            t = start + np.remainder(t - start + rng.random(n_place)[cell] * (stop - start), stop - start)
        elif decoy == "burst":
            t = start + rng.random(len(t)) * (stop - start)
        row = {"path": path, "span": swept / length, "speed": swept / (stop - start), "compression": swept / (stop - start) / self.speed}
        pieces = self._pieces(self.arenas[context], route, where, start, stop)
        row |= self._ends(self.arenas[context], route, first, last) | {"jumps": len(pieces) - 1}
        return t, cell.astype(np.int32), row, pieces

    def _ends(self, arena: Arena, route: Route, first: float, last: float) -> dict[str, Any]:
        """Where a straight stretch of a route begins and ends."""
        if arena.kind == "linear":
            return {"x_from": first, "x_to": last}
        a, b = route.at(np.array([first, last]))
        if arena.kind == "arms":
            return {"x_from": arena.grid[a], "x_to": arena.grid[b], "arm_from": arena.arms[arena.arm[a]], "arm_to": arena.arms[arena.arm[b]]}
        return {"x_from": arena.xy[a, 0], "x_to": arena.xy[b, 0], "y_from": arena.xy[a, 1], "y_to": arena.xy[b, 1]}

    def _pieces(self, arena: Arena, route: Route, where: NDArray[np.float64], start: float, stop: float) -> list[dict[str, Any]]:
        """The stretches between jumps, with their own times and ends."""
        cuts = np.r_[0, np.flatnonzero(np.abs(np.diff(where)) > _LEAP * route.length) + 1, len(where)]
        moment = start + cuts * (stop - start) / len(where)
        moment[-1] = stop
        return [
            {"start": moment[k], "stop": moment[k + 1]} | self._ends(arena, route, where[cuts[k]], where[cuts[k + 1] - 1])
            for k in range(len(cuts) - 1)
        ]  # fmt: skip


def roused(table: EventTable, n_place: int, inter: NDArray[np.float64], rng: np.random.Generator) -> SpikeList:
    """Spikes of the interneurons, of rates `inter` (interneuron,), Hz, at rest, in bursts outside ripples: half as many again, as ripples bring."""
    start, length = table.start, table.duration
    counts = rng.poisson(1.5 * (length * (np.asarray(table.ripple) < 0))[:, None] * inter)
    event, unit = np.nonzero(counts)
    event, unit = np.repeat(event, counts[event, unit]), np.repeat(unit, counts[event, unit])
    return start[event] + rng.random(len(event)) * length[event], (n_place + unit).astype(np.int32)


def shared_gain(model: Any, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Gain (n,) of each event, which all cells share; 1 on average."""
    return np.exp(model.event_spread * rng.standard_normal(n) - 0.5 * model.event_spread**2)


def _join(parts: list[NDArray[Any]], dtype: Any) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)
