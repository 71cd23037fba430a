"""Time of the causal designs: a hazard of 20 animals x 24 h at 4-s epochs, and 10,000 draws of the randomisation test.

python benchmarks/bench_causal.py [--animals 20] [--hours 24]
"""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

from brainmu.causal import estimate_effect
from brainmu.core import EventTable, Hypnogram, Recording

EPOCH = 4.0


def animal(name: str, hours: float, seed: int) -> Recording:
    """A day of one animal: bouts of geometric length, events and trials in NREM, a pressure sampled once an epoch."""
    rng = np.random.default_rng(seed)
    n = round(hours * 3600 / EPOCH)
    stages, state = np.empty(n, np.int8), 0
    u = rng.random(n)
    for k in range(n):
        stages[k] = state
        state = {0: 1 if u[k] < 0.08 else 0, 1: 0 if u[k] < 0.03 else (2 if u[k] < 0.04 else 1), 2: 0 if u[k] < 0.08 else 2}[state]
    nrem = np.flatnonzero(stages == 1)
    k = nrem[rng.random(len(nrem)) < 0.2]
    at = k * EPOCH + rng.random(len(k)) * 3.9
    on = nrem[:: max(len(nrem) // 200, 8)] * EPOCH + 1.0
    labels = {
        "scoring": Hypnogram(stages, "rodent3", EPOCH),
        "reactivation": EventTable(at, at + 0.1),
        "trials": EventTable(on, on + 0.1, assigned=rng.random(len(on)) < 0.5, probability=0.5),
    }
    pressure = np.cumsum(rng.standard_normal(n)).astype(np.float32) / np.sqrt(n)
    return Recording.from_arrays(
        name, name, "mouse", signals={"pressure": dict(values=pressure, rate=1 / EPOCH, kind="features")}, labels=labels, zeitgeber=0.0
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--animals", type=int, default=20)
    parser.add_argument("--hours", type=float, default=24.0)
    args = parser.parse_args()
    recordings = [animal(f"m{i}", args.hours, i) for i in range(args.animals)]

    def timed(what: str, **question) -> None:
        began = time.perf_counter()
        effect = estimate_effect(recordings, **question)
        n = effect.diagnostics.get("rows", {}).get("at_risk", effect.n_events)
        print(f"{what}: {time.perf_counter() - began:.1f} s ({n} rows; {effect.estimate:+.3f} [{effect.low:+.3f}, {effect.high:+.3f}])", flush=True)

    print(f"{args.animals} animals x {args.hours:g} h at {EPOCH:g}-s epochs")
    timed("hazard, estimate alone", exposure="reactivation", design="hazard", adjust=["pressure"], diagnostics=False)
    timed("hazard, with diagnostics", exposure="reactivation", design="hazard", adjust=["pressure"])
    timed("trials, 10,000 draws, with diagnostics", exposure="trials", design="trials", horizon=10.0)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
