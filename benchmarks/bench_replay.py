"""Replay: is `p_value` calibrated in null sessions, and what does the test find? With intervals clustered by session.

Run: python benchmarks/bench_replay.py                       share of events at p < 0.05 in full synthetic recordings, planted and null
     python benchmarks/bench_replay.py --calibration         the same in many short sessions of each null family
     python benchmarks/bench_replay.py --power               recall, context and direction over cells, noise cells, length and speed
Both stop after --minutes, keep what they have in --results and go on from there; docs/figures/replay_power.py draws it.

Null families: identity (the spikes of rest dealt anew among the place cells), jitter (every spike of an event drawn anew within it),
poisson (every unit fires in an event at random by its own rate). Shown beside them: drift (identity, and every field's rate drifts over the
laps and differs in rest) and planted replay.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import brainmu as bm
from brainmu.core import EventTable, Intervals
from brainmu.core.metrics import bootstrap_interval

EFFORT = {"shuffles": 100, "null_sessions": 10, "null_shuffles": 40}
QUICK_EFFORT = {"shuffles": 50, "null_sessions": 6, "null_shuffles": 30, "smoothing": 0.08}
FAMILIES = ("identity", "jitter", "poisson", "drift", "planted")
EVERY = {"drift": 10, "planted": 10}
"""Families that are shown, not judged, get a session for so many of the others."""
MIXED = {"length": 0.09, "longest": 0.36, "events": 60}
SIZES = {"short": (5, 7), "middling": (8, 12), "long": (13, 99)}
"""Bins of 20 ms of an event."""
AXES = {"cells": (10, 20, 40, 80), "noise_cells": (0, 10, 20, 40), "length": (0.1, 0.15, 0.2, 0.25), "speed": (2.0, 4.0, 8.0, 12.0)}
UNITS = {"cells": "place cells", "noise_cells": "cells without a field", "length": "event length (s)", "speed": "speed of the content (m/s)"}
TRACK, FRAMES = 2.0, 30.0


@dataclass(frozen=True)
class World:
    """What a short session is like. Lengths in s (of each event anew between `length` and `longest`, if that is longer), speeds in m/s, rates in Hz."""

    cells: int = 40
    noise_cells: int = 0
    length: float = 0.15
    longest: float = 0.0
    speed: float = 8.0
    tracks: int = 1
    laps: float = 80.0
    events: int = 25
    peak: float = 12.0
    gain: float = 4.0
    background: float = 0.3


# -- short sessions -----------------------------------------------------------------------------------------------------


def short_session(world: World, family: str, seed: int) -> tuple[bm.Recording, EventTable]:
    """A session with its events; columns content and way (1 outbound, -1 inbound, 0 where nothing is planted)."""
    rng = np.random.default_rng((seed, FAMILIES.index(family)))
    n = world.cells + world.noise_cells
    centre = rng.uniform(0, TRACK, (world.tracks, world.cells))
    width = rng.uniform(0.08, 0.16, (world.tracks, world.cells)) * TRACK
    top = world.peak * rng.lognormal(0, 0.4, (world.tracks, world.cells))
    way = rng.choice([1.0, 0.25], (world.tracks, world.cells))  # the weaker direction of each field
    out_first = rng.random((world.tracks, world.cells)) < 0.5
    base = np.r_[np.full(world.cells, world.background), rng.uniform(1, 4, world.noise_cells)]

    def fields(k: int, s: np.ndarray, outbound: np.ndarray) -> np.ndarray:
        """Rates (time, place cell) above the background at places `s`."""
        gain = np.where(outbound[:, None] == out_first[k], 1.0, way[k])
        return gain * top[k] * np.exp(-0.5 * ((s[:, None] - centre[k]) / width[k]) ** 2)

    times, xy, spans, spikes = [], [], {}, _Spikes()
    t0 = 0.0
    for k in range(world.tracks):
        t = t0 + np.arange(int(world.laps * FRAMES)) / FRAMES
        turns = t0 + np.r_[0, np.cumsum(rng.uniform(5, 8, int(world.laps / 5) + 2))]
        lap = np.interp(t, turns, np.arange(len(turns)))
        s = TRACK * np.clip(1.15 * np.abs(lap % 2 - 1) - 0.075, 0, 1)
        moving = np.abs(np.gradient(s) * FRAMES) > 0.05
        rate = fields(k, s, np.gradient(s) > 0) * moving[:, None]
        if family == "drift":
            rate *= np.exp(np.outer((t - t[0]) / world.laps - 0.5, rng.normal(0, 0.8, world.cells)))
        spikes.poisson(t, np.c_[rate, np.zeros((len(t), world.noise_cells))] + base, 1 / FRAMES, rng)
        times.append(t)
        xy.append(np.c_[s + rng.normal(0, 0.005, len(t)), k + rng.normal(0, 0.005, len(t))])
        spans[f"run_{'ABCD'[k]}"] = Intervals([[t[0], t[-1]]])
        t0 = float(t[-1]) + 10
    start = t0 + 2 + 2.0 * np.arange(world.events)
    rest = Intervals([[t0, t0 + 4 + 2.0 * world.events]])
    deal = rng.permutation(world.cells) if family in ("identity", "drift") else np.arange(world.cells)
    changed = rng.lognormal(0, 0.7, world.cells) if family == "drift" else np.ones(world.cells)
    content, ways = rng.integers(0, world.tracks, world.events), rng.choice([1, -1], world.events)
    lengths = rng.uniform(world.length, world.longest, world.events) if world.longest > world.length else np.full(world.events, world.length)
    for a, k, w, length in zip(start, content, ways, lengths):
        u = np.arange(0, length, 0.002)
        span = min(world.speed * length, TRACK)
        s = rng.uniform(0, TRACK - span) + span * u / length
        outbound = np.full(len(u), rng.random() < 0.5)
        rate = world.gain * fields(k, s[::w], outbound)
        if family == "poisson":
            rate = np.repeat(rng.gamma(1.0, 1.0, world.cells)[None] * rate.mean(), len(u), axis=0)
        rate = np.c_[rate * changed, np.zeros((len(u), world.noise_cells))] + world.gain * base
        at, who = spikes.drawn(a + u, rate, 0.002, rng)
        if family == "jitter":
            at = rng.uniform(a, a + length, len(at))
        spikes.add(at, np.where(who < world.cells, deal[np.minimum(who, world.cells - 1)], who))
        # Content moves up the track (w = 1) or down; forward where the fields that fire are those of running that way.
        ways[start == a] = 1 if (w > 0) == outbound[0] else -1
    quiet = np.arange(rest.start[0], rest.stop[0], 0.05)
    spikes.poisson(quiet, np.repeat(base[None] * 0.5, len(quiet), axis=0), 0.05, rng)
    signals = {"position": {"values": np.concatenate(xy), "times": np.concatenate(times), "unit": "m", "kind": "position", "channels": ["x", "y"]}}
    labels = {"rest": rest, **(spans if world.tracks > 1 else {"run": spans["run_A"]})}
    recording = bm.Recording.from_arrays(f"{family}{seed}", signals=signals, spikes={**spikes.arrays(), "units": _units(n)}, labels=labels)
    names = np.array(["A", "B", "C", "D"] if world.tracks > 1 else ["run"], dtype=object)[content]
    return recording, EventTable(start, start + lengths, kind="burst", content=names, forward=ways > 0)


class _Spikes:
    def __init__(self) -> None:
        self.times: list[np.ndarray] = []
        self.units: list[np.ndarray] = []

    def drawn(self, left: np.ndarray, rate: np.ndarray, bin: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        n = rng.poisson(rate * bin)
        i, u = np.nonzero(n)
        k = n[i, u]
        return np.repeat(left[i], k) + rng.uniform(0, bin, k.sum()), np.repeat(u, k)

    def poisson(self, left: np.ndarray, rate: np.ndarray, bin: float, rng: np.random.Generator) -> None:
        self.add(*self.drawn(left, rate, bin, rng))

    def add(self, times: np.ndarray, units: np.ndarray) -> None:
        self.times.append(times)
        self.units.append(units)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"times": np.concatenate(self.times), "unit": np.concatenate(self.units)}


def _units(n: int):
    import pandas as pd

    return pd.DataFrame({"id": np.arange(n)})


def scored(world: World, family: str, seed: int, effort: dict[str, Any]) -> dict[str, int]:
    """Events of one session: how many there are, were scored, have p < 0.05; and of these, how many have the planted context and direction."""
    recording, events = short_session(world, family, seed)
    found = bm.find_replay(recording, candidates=events, least_spikes=20, seed=seed, **effort)
    called = found[found.p_value < 0.05]
    row = np.searchsorted(events.start, called.start)
    right = {"n": len(events), "scored": len(found), "called": len(called)}
    for size, (low, high) in SIZES.items():
        right |= {f"{size} {k}": int(((t.n_bins >= low) & (t.n_bins <= high)).sum()) for k, t in (("scored", found), ("called", called))}
    if family == "planted":
        right["context"] = int((called.content == events.content[row]).sum())
        right["direction"] = int(((called.direction == "forward") == events.forward[row]).sum())
    return right


# -- runs that go on where they stopped ---------------------------------------------------------------------------------


class Results:
    """Rows by name, in a JSON file that is replaced whole after every session."""

    def __init__(self, path: Path, effort: dict[str, Any] = QUICK_EFFORT) -> None:
        self.path, self.effort = path, effort
        about = {"effort": effort, "world": asdict(World())}
        self.rows: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"about": about}
        if self.rows["about"] != about:
            raise SystemExit(f"{path}: made with {self.rows['about']}, this is {about}: give another --results")

    def of(self, name: str) -> list[dict[str, int]]:
        return self.rows.setdefault(name, [])

    def add(self, name: str, row: dict[str, int]) -> None:
        self.of(name).append(row)
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(self.rows, separators=(",", ":")))
        part.replace(self.path)


def calibration_plan(sessions: int) -> Iterator[tuple[str, World, str, int]]:
    for seed in range(sessions):
        if seed % 2 == 0:
            for family in ("identity", "jitter"):
                yield f"mixed {family}", World(**MIXED), family, seed // 2
        for family in FAMILIES:
            if seed % EVERY.get(family, 1) == 0:
                yield f"calibration {family}", World(), family, seed // EVERY.get(family, 1)


def power_plan(sessions: int) -> Iterator[tuple[str, World, str, int]]:
    for seed in range(sessions):
        for axis, values in AXES.items():
            for value in values:
                yield f"power {axis} {value:g}", replace(World(tracks=2), **{axis: value}), "planted", 10_000 + seed


def go_on(results: Results, plan: Iterator[tuple[str, World, str, int]], minutes: float) -> None:
    begin, done, seen = time.process_time(), 0, {}
    for name, world, family, seed in plan:
        seen[name] = seen.get(name, 0) + 1
        if seen[name] <= len(results.of(name)):
            continue
        if time.process_time() - begin > 60 * minutes:
            print(f"stopped after {minutes:g} minutes of processor time; run again to go on")
            return
        results.add(name, scored(world, family, seed, results.effort))
        done += 1
        if done % 25 == 0:
            print(f"{done} sessions, {(time.process_time() - begin) / done:.2f} s each", flush=True)


def share(rows: list[dict[str, int]], top: str, bottom: str) -> tuple[float, float, float, int, int]:
    """Share of all events with its interval clustered by session, and the numbers of events and sessions."""
    of = lambda r: sum(x[top] for x in r) / max(sum(x[bottom] for x in r), 1)  # noqa: E731
    return (of(rows), *bootstrap_interval(rows, of), sum(x[bottom] for x in rows), len(rows))


def print_calibration(results: Results) -> None:
    print("share of scored events with p < 0.05")
    for family in FAMILIES:
        if rows := results.of(f"calibration {family}"):
            p, low, high, events, sessions = share(rows, "called", "scored")
            note = {"planted": "recall", "drift": "shown, not judged"}.get(family, "at most 0.06" if high <= 0.06 else "above 0.06 is not ruled out")
            print(f"{family:9s} {p:.4f} [{low:.4f}, {high:.4f}]  {events} events in {sessions} sessions  ({note})")
    print_mixed(results)


def print_mixed(results: Results) -> None:
    print("the same with events of 90 to 360 ms, by bins of 20 ms")
    for family in ("identity", "jitter"):
        if rows := results.of(f"mixed {family}"):
            parts = {"all": share(rows, "called", "scored"), **{size: share(rows, f"{size} called", f"{size} scored") for size in SIZES}}
            print(f"{family:9s} " + "  ".join(f"{k} {p:.3f} [{low:.3f}, {high:.3f}] of {n}" for k, (p, low, high, n, _) in parts.items()))


def print_power(results: Results) -> None:
    print("planted replay with p < 0.05, among all events; and of those, the right context of two, and the right direction")
    for axis, values in AXES.items():
        print(UNITS[axis])
        for value in values:
            if rows := results.of(f"power {axis} {value:g}"):
                p, low, high, events, sessions = share(rows, "called", "n")
                right = "  ".join(f"{of} {share(rows, of, 'called')[0]:.2f}" for of in ("context", "direction"))
                print(f"  {value:5g}  recall {p:.2f} [{low:.2f}, {high:.2f}]  {right}  ({events} events, {sessions} sessions)")


# -- full synthetic recordings ------------------------------------------------------------------------------------------


def null_session(recording: bm.Recording, family: str, seed: int) -> bm.Recording:
    """The recording with the replay of its rest destroyed."""
    rng = np.random.default_rng(seed)
    s = recording.spikes
    events = recording.labels["reactivation"]
    times, units = s.times.copy(), s.unit_id.copy()
    if family == "identity":
        ids = s.units["id"].to_numpy()
        deal = dict(zip(ids.tolist(), rng.permutation(ids).tolist()))
        rest = recording.labels["rest"].contains(times)
        units[rest] = [deal[u] for u in units[rest].tolist()]
    else:
        for a, b in zip(events.start, events.stop):
            i, j = np.searchsorted(times, [a, b])
            times[i:j] = rng.uniform(a, b, j - i)
            if family == "poisson":
                rest = s.unit_id[recording.labels["rest"].contains(s.times)]
                units[i:j] = rng.choice(rest, j - i)
    return bm.Recording.from_arrays("null", signals=recording.signals, spikes={"times": times, "unit": units, "units": s.units}, labels=recording.labels)


def full_recordings(sessions: int, hours: float, cells: int) -> None:
    rows: dict[str, list[tuple[int, int]]] = {}
    for seed in range(sessions):
        recording, _ = bm.synth.recording(hours=hours, seed=1000 + seed, n_cells=cells)
        begin = time.perf_counter()
        for family in ("planted", "identity", "jitter", "poisson"):
            session = recording if family == "planted" else null_session(recording, family, seed)
            found = bm.find_replay(session, candidates=recording.labels["reactivation"], seed=seed, **EFFORT)
            rows.setdefault(family, []).append((int((found.p_value < 0.05).sum()), len(found)))
        print(f"session {seed}: {time.perf_counter() - begin:.1f} s", flush=True)
    for family, pairs in rows.items():
        low, high = bootstrap_interval(pairs, lambda r: sum(k for k, _ in r) / max(sum(n for _, n in r), 1))
        k, n = (sum(c) for c in zip(*pairs))
        print(f"{family:9s} p < 0.05 in {k / n:.3f} [{low:.3f}, {high:.3f}] of {n} events in {len(pairs)} sessions")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calibration", action="store_true")
    parser.add_argument("--power", action="store_true")
    parser.add_argument("--sessions", type=int, help="default: 200 with --calibration, 10 with --power, else 20")
    parser.add_argument("--full", action="store_true", help="--calibration and --power with the shuffles and null sessions of find_replay itself")
    parser.add_argument("--minutes", type=float, default=60.0, help="processor time after which --calibration and --power stop")
    parser.add_argument("--results", type=Path, default=Path("replay_power.json"))
    parser.add_argument("--hours", type=float, default=0.5)
    parser.add_argument("--cells", type=int, default=40)
    parser.add_argument("--quick", action="store_true", help="two full recordings")
    args = parser.parse_args()
    if not (args.calibration or args.power):
        full_recordings(2 if args.quick else args.sessions or 20, args.hours, args.cells)
        return
    results = Results(args.results, {} if args.full else QUICK_EFFORT)
    for wanted, plan, sessions, show in (
        (args.calibration, calibration_plan, 200, print_calibration), (args.power, power_plan, 10, print_power),
    ):  # fmt: skip
        if wanted:
            go_on(results, plan(args.sessions or sessions), args.minutes)
            show(results)


if __name__ == "__main__":
    main()
