"""Time of the causal designs (20 animals x 24 h at 4-s epochs; 10,000 draws of the randomisation test), and error rates of matching and coupling.

python benchmarks/bench_causal.py [--animals 20] [--hours 24]
python benchmarks/bench_causal.py --studies 200

With --studies: small planted studies (6 animals x 1.5 h, a slow confounder that is measured), how often the interval leaves out no effect where
there is none, and how often it holds the effect where there is one, each with exact 95 % limits.
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


def planted(animals: int, hours: float, effect: float, seed: int) -> list[Recording]:
    """A study on the grid: the log odds of waking are base + age + 0.8 * pressure, and `effect` more an epoch after an event, itself driven by pressure."""
    rng = np.random.default_rng(seed)
    n = round(hours * 3600 / EPOCH)
    base = -3.2 + 0.5 * rng.standard_normal(animals)
    state, age, pressure, last = np.zeros(animals, np.int8), np.zeros(animals), rng.standard_normal(animals), np.zeros(animals)
    stage, seen, event = np.empty((n, animals), np.int8), np.empty((n, animals)), np.zeros((n, animals), bool)
    for k in range(n):
        stage[k], seen[k] = state, pressure
        nrem = state == 1
        age = np.where(nrem, age + 1, 0)
        event[k] = nrem & (rng.random(animals) < 1 / (1 + np.exp(1.2 - 0.8 * pressure)))
        wake = 1 / (1 + np.exp(-(base + 0.6 * np.exp(-age / 10) + 0.8 * pressure + effect * last)))
        u = rng.random(animals)
        new = np.where(nrem, np.where(u < wake, 0, np.where(u < wake + 0.012, 2, 1)), np.where(state == 0, u < 0.12, np.where(u < 0.1, 0, 2)))
        last = np.where(nrem & (new == 1), event[k], 0.0)
        pressure = pressure * (1 - 1 / 300) + np.sqrt(2 / 300) * rng.standard_normal(animals)
        state = new.astype(np.int8)
    jitter = rng.random((n, animals)) * (EPOCH - 0.01)
    out = []
    for i in range(animals):
        k = np.flatnonzero(event[:, i])
        at = k * EPOCH + jitter[k, i]
        labels = {"scoring": Hypnogram(stage[:, i], "rodent3", EPOCH), "reactivation": EventTable(at, at + 0.1)}
        signals = {"pressure": dict(values=seen[:, i].astype(np.float32), rate=1 / EPOCH, kind="features")}
        out.append(Recording.from_arrays(f"s{i}", f"m{i}", "mouse", signals=signals, labels=labels))
    return out


def error_rates(studies: int) -> None:
    """Rejections without an effect and coverage with one, of matching and of coupling."""
    from scipy import stats

    ask = {"exposure": "reactivation", "adjust": ["pressure"], "diagnostics": False}
    designs = {
        "matched, propensity": {"design": "matched"},
        "matched, mahalanobis": {"design": "matched", "distance": "mahalanobis"},
        "glm, one epoch": {"design": "glm", "horizon": EPOCH},
        "glm, ten epochs": {"design": "glm", "horizon": 10 * EPOCH},
    }
    for effect in (0.0, 0.6):
        # Over ten epochs the planted effect, of one epoch, is no single number: only its absence is.
        asked = {k: v for k, v in designs.items() if not (effect and k == "glm, ten epochs")}
        found: dict[str, list] = {name: [] for name in asked}
        for s in range(studies):
            recordings = planted(6, 1.5, effect, 1000 * bool(effect) + s)
            for name, how in asked.items():
                found[name].append(estimate_effect(recordings, **ask, **how))
        for name, effects in found.items():
            missed = sum(not e.low <= effect <= e.high for e in effects)
            limits = stats.binomtest(missed, studies).proportion_ci(0.95, method="exact")
            what = "rejected" if not effect else "missed"
            bias = np.mean([e.estimate for e in effects]) - effect
            print(
                f"{name}, effect {effect:g}: {what} {missed / studies:.3f} [{limits.low:.3f}, {limits.high:.3f}] of {studies}, bias {bias:+.3f}, "
                f"half width {np.median([(e.high - e.low) / 2 for e in effects]):.2f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--animals", type=int, default=20)
    parser.add_argument("--hours", type=float, default=24.0)
    parser.add_argument("--studies", type=int, default=0, help="planted studies a cell, instead of the times")
    parser.add_argument("--quick", action="store_true", help="4 animals of 6 h")
    args = parser.parse_args()
    if args.quick:
        args.animals, args.hours = 4, 6.0
    if args.studies:
        began = time.perf_counter()
        error_rates(args.studies)
        print(f"{time.perf_counter() - began:.0f} s")
        return
    recordings = [animal(f"m{i}", args.hours, i) for i in range(args.animals)]

    def timed(what: str, **question) -> None:
        began = time.perf_counter()
        effect = estimate_effect(recordings, **question)
        n = effect.diagnostics.get("rows", {}).get("at_risk", effect.n_events)
        print(f"{what}: {time.perf_counter() - began:.1f} s ({n} rows; {effect.estimate:+.3f} [{effect.low:+.3f}, {effect.high:+.3f}])", flush=True)

    print(f"{args.animals} animals x {args.hours:g} h at {EPOCH:g}-s epochs")
    timed("hazard, estimate alone", exposure="reactivation", design="hazard", adjust=["pressure"], diagnostics=False)
    timed("hazard, with diagnostics", exposure="reactivation", design="hazard", adjust=["pressure"])
    timed("matched, with diagnostics", exposure="reactivation", design="matched", adjust=["pressure"])
    timed("glm, ten epochs, with diagnostics", exposure="reactivation", design="glm", adjust=["pressure"])
    timed("trials, 10,000 draws, with diagnostics", exposure="trials", design="trials", horizon=10.0)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
