"""Replay: share of events at p < 0.05 in null sessions of three families, and of planted replay, with session-clustered intervals.

Run: python benchmarks/bench_replay.py [--sessions N] [--hours H]
Null families, from synthetic recordings: identity (spikes of rest dealt anew among the units), jitter (every spike of an event
drawn anew within it), poisson (spikes of an event drawn anew among the units by their rate in rest and within the event).
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import brainmu as bm
from brainmu.core.metrics import bootstrap_interval

EFFORT = {"shuffles": 100, "null_sessions": 10, "null_shuffles": 40}


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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--hours", type=float, default=0.5)
    parser.add_argument("--cells", type=int, default=40)
    args = parser.parse_args()
    share: dict[str, list[tuple[int, int]]] = {}
    for seed in range(args.sessions):
        recording, _ = bm.synth.recording(hours=args.hours, seed=1000 + seed, n_cells=args.cells)
        begin = time.perf_counter()
        for family in ("planted", "identity", "jitter", "poisson"):
            session = recording if family == "planted" else null_session(recording, family, seed)
            found = bm.find_replay(session, candidates=recording.labels["reactivation"], seed=seed, **EFFORT)
            share.setdefault(family, []).append((int((found.p_value < 0.05).sum()), len(found)))
        print(f"session {seed}: {time.perf_counter() - begin:.1f} s", flush=True)
    for family, rows in share.items():
        low, high = bootstrap_interval(rows, lambda r: sum(k for k, _ in r) / max(sum(n for _, n in r), 1))
        k, n = (sum(c) for c in zip(*rows))
        print(f"{family:9s} p < 0.05 in {k / n:.3f} [{low:.3f}, {high:.3f}] of {n} events in {len(rows)} sessions")


if __name__ == "__main__":
    main()
