"""State-space decoding of many events, 50 cells, 2-ms bins: brainmu's beside non_local_detector's, same spikes, places and events.

Run: python benchmarks/bench_statespace.py [--events N] [--quick]
The peer is used if it is installed (pip install non_local_detector "jax<0.5"); otherwise its rows say so. It has two dynamics
(continuous, fragmented) where brainmu has three. It is given every event in one call, and one event after another; the first call of each,
which compiles, does not count.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from bench_replay import World, short_session

import brainmu as bm
from brainmu.core import EventTable
from brainmu.replay.contexts import Context, fit_contexts
from brainmu.replay.decode import units_and_position
from brainmu.replay.statespace import classify_dynamics

BIN = 0.002


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=400, help="of 150 ms each")
    parser.add_argument("--quick", action="store_true", help="100 events")
    args = parser.parse_args()
    if args.quick:
        args.events = 100
    recording, events = short_session(World(cells=50, events=args.events), "planted", 0)
    context = next(iter(fit_contexts(recording, *units_and_position(recording))[0].values()))
    n_bins = int(((events.stop - events.start) / BIN + 1e-6).astype(int).sum())
    print(f"{len(events)} events, {n_bins} bins of 2 ms, {len(context.fields.units)} cells, {len(context.x)} places; bins a second, median of warm calls")
    ours = timed("brainmu (three dynamics)", n_bins, lambda: classify_dynamics(recording, events, context))
    if importlib.util.find_spec("non_local_detector") is None:
        print('non_local_detector is not installed: pip install non_local_detector "jax<0.5"')
        return
    one_call, each = peer(recording, events, context)
    theirs = max(timed("non_local_detector, one call", n_bins, one_call), timed("non_local_detector, event by event", n_bins, each, 1))
    print(f"brainmu / the faster of its two: {ours / theirs:.1f}")


def timed(name: str, n_bins: int, work: Callable[[], Any], calls: int = 5) -> float:
    """Bins a second, median of calls after a first."""
    work()
    spent = []
    for _ in range(calls):
        begin = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begin)
    rate = n_bins / float(np.median(spent))
    print(f"{name:<36} {rate:>12,.0f}", flush=True)
    return rate


def peer(recording: bm.Recording, events: EventTable, context: Context) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Its classifier of continuous and fragmented content, fitted on the run: called on all events end to end, and on one after another."""
    from non_local_detector import ContFragSortedSpikesClassifier
    from non_local_detector.environment import Environment

    spikes, position = units_and_position(recording)
    run = recording.labels["run"]
    inside = (position.times >= run.start[0]) & (position.times <= run.stop[-1])
    t, x = position.times[inside], position.values[inside, :1]
    trains = [spikes.of(int(u)) for u in context.fields.units]
    ran = [s[(s >= t[0]) & (s <= t[-1])] for s in trains]
    size = float(np.ptp(x)) / len(context.x)
    model = ContFragSortedSpikesClassifier(
        environments=Environment(place_bin_size=size),
        sampling_frequency=1 / BIN,
        sorted_spikes_algorithm_params={"position_std": 0.06, "block_size": 10_000, "disable_progress_bar": True},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(t, x, ran)
    # It takes evenly spaced time only, so the events are laid end to end and their spikes moved with them.
    n = ((events.stop - events.start) / BIN + 1e-6).astype(int)
    first = np.r_[0, np.cumsum(n)[:-1]] * BIN
    moved = []
    for s in trains:
        parts = [s[(s >= a) & (s < a + k * BIN)] - a + f for a, k, f in zip(events.start, n, first)]
        moved.append(np.concatenate(parts))
    joined = np.arange(n.sum()) * BIN
    near = [[s[(s >= a) & (s < a + k * BIN)] for s in trains] for a, k in zip(events.start, n)]
    return lambda: model.predict(moved, time=joined), lambda: [model.predict(s, time=a + BIN * np.arange(k)) for s, a, k in zip(near, events.start, n)]


if __name__ == "__main__":
    main()
