"""Error rates of every design of estimate_effect on nights in continuous time, from a generator apart from brainmu.synth.

python benchmarks/bench_error_rates.py [--studies 200] [--only CELL …] [--out FILE.jsonl]

Mice step by half a second between NREM, WAKE and REM. A slow pressure drives events and wakings alike; sleep discharges it; events raise it half a minute
later. Wakings begin anywhere in an epoch, brief arousals vanish in it or not, an epoch is scored by what fills most of it, and some are lost. Animals
differ in every rate (SD 0.5). Nothing an event does reaches the next epoch, and no trial does anything: every rejection is an error. In the cells `effect`
the log odds of leaving an epoch of NREM rise by 0.6 (SD 0.3 between animals) if the one before held an event, on the grid, and what is counted is how
often the interval misses it.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from brainmu.causal import estimate_effect
from brainmu.core import EventTable, Hypnogram, Recording
from brainmu.errors import BrainmuError

EPOCH, STEP = 4.0, 0.5
SUB = round(EPOCH / STEP)
EFFECT = 0.6
ONE = {"animals": 6, "hours": 2.0, "gamma": 0.8, "drive": 0.8, "rate": 1.0, "lost": 0.01, "rem": 1.0, "rate_hz": 0.25, "effect": 0.0, "seed": 0}
CELLS = {
    "4 animals": {"animals": 4},
    "6 animals": {},
    "10 animals": {"animals": 10},
    "20 animals, 1 h": {"animals": 20, "hours": 1.0},
    "pressure at 1 Hz": {"rate_hz": 1.0},
    "pressure at 1 Hz, fast": {"rate_hz": 1.0, "tau": 60.0},
    "strong confounder": {"gamma": 1.5, "drive": 1.2},
    "a tenth of epochs lost": {"lost": 0.1},
    "many events": {"rate": 4.0},
    "few events": {"rate": 0.2, "hours": 4.0},
    "uneven recordings": {"uneven": True},
    "outcome REM": {"outcome": "NREM->REM", "hours": 4.0},
    "outcome microarousal": {"outcome": "NREM->microarousal"},
    "effect, 4 animals": {"effect": EFFECT, "animals": 4},
    "effect, 10 animals": {"effect": EFFECT, "animals": 10},
}  # fmt: skip
"""What differs from ONE."""

DESIGNS = {
    "hazard": {"design": "hazard"}, "hazard, 12 s": {"design": "hazard", "horizon": 12.0}, "hazard, count": {"design": "hazard", "dose": "count"},
    "matched": {"design": "matched"}, "msm": {"design": "msm"}, "msm, 20 s": {"design": "msm", "horizon": 20.0},
    "glm, 20 s": {"design": "glm", "horizon": 20.0}, "glm, 40 s": {"design": "glm"},
    "bernoulli": {"design": "trials"}, "blocked": {"design": "trials"}, "gated": {"design": "trials"},
}  # fmt: skip


def expit(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def nights(c: dict, studies: int) -> list[list[Recording]]:
    """`studies` lists of recordings in continuous time, all animals stepped together; nothing causes a transition but the pressure."""
    rng = np.random.default_rng(c["seed"])
    m, n = c["animals"] * studies, round(c["hours"] * 3600 / STEP)
    tau, delay = c.get("tau", 900.0) / STEP, round(30 / STEP)

    def vary(x: float) -> np.ndarray:
        return x * np.exp(0.5 * rng.standard_normal(m))

    wake_h, rem_h, back_h, brief_h, event_h = vary(0.004), vary(0.004 * c["rem"]), vary(0.05), vary(0.004), vary(0.05 * c["rate"])
    state, calm, since, pressure = np.zeros(m, np.int8), np.full(m, np.inf), np.zeros(m), rng.standard_normal(m)
    stage, seen, event = np.empty((n, m), np.int8), np.empty((n, m), np.float32), np.zeros((n, m), bool)
    for t in range(n):
        stage[t], seen[t] = state, pressure
        nrem = state == 1
        since = np.where(nrem, since + STEP, 0.0)
        event[t] = nrem & (rng.random(m) < STEP * event_h * np.exp(c["drive"] * pressure))
        lift = np.exp(c["gamma"] * pressure)
        u, w = rng.random(m), STEP * wake_h * lift * (1 + np.exp(-since / 40))
        b, r = w + STEP * brief_h * lift, w + STEP * (brief_h * lift + rem_h * (since > 30))
        # A brief arousal is over within seconds; another waking lasts as it will.
        out = np.where(u < w, 0, np.where(u < b, 0, np.where(u < r, 2, 1)))
        calm = np.where(nrem & (u >= w) & (u < b), rng.exponential(5.0, m), np.where(nrem & (u < w), np.inf, calm - STEP))
        v = rng.random(m)
        rouse = np.where((calm <= 0) | (v < STEP * back_h), 1, 0)
        state = np.where(nrem, out, np.where(state == 0, rouse, np.where(v < STEP / 60, 0, 2))).astype(np.int8)
        kick = 0.01 / c["rate"] * event[t - delay] if t >= delay else 0.0
        pressure = pressure * (1 - 1 / tau) + np.sqrt(2 / tau) * rng.standard_normal(m) + kick * (tau > 400) + np.where(nrem, -1, 1) * 0.3 / tau
    return _recordings(c, studies, stage, seen, event, rng)


def on_the_grid(c: dict, studies: int) -> list[list[Recording]]:
    """The same an epoch at a time, with an effect on the next epoch's log odds."""
    rng = np.random.default_rng(c["seed"])
    m, n = c["animals"] * studies, round(c["hours"] * 3600 / EPOCH)
    base, rate = -3.0 + 0.5 * rng.standard_normal(m), -1.4 + 0.5 * rng.standard_normal(m)
    size = c["effect"] + (0.3 if c["effect"] else 0.0) * rng.standard_normal(m)
    state, age, last, pressure = np.zeros(m, np.int8), np.zeros(m), np.zeros(m), rng.standard_normal(m)
    stage, seen, event = np.empty((n, m), np.int8), np.empty((n, m), np.float32), np.zeros((n, m), bool)
    for k in range(n):
        stage[k], seen[k] = state, pressure
        nrem = state == 1
        age = np.where(nrem, age + 1, 0)
        event[k] = nrem & (rng.random(m) < expit(rate + c["drive"] * pressure))
        u, v = rng.random(m), rng.random(m)
        leave = expit(base + np.exp(-age / 10) + c["gamma"] * pressure + size * last)
        out = np.where(u < leave, 0, np.where(u < leave + 0.01, 2, 1))
        last = np.where(nrem & (out == 1), event[k], 0.0)
        state = np.where(nrem, out, np.where(state == 0, v < 0.12, np.where(v < 0.08, 0, 2))).astype(np.int8)
        pressure = pressure * (1 - 1 / 200) + np.sqrt(2 / 200) * rng.standard_normal(m)
    return _recordings(c, studies, np.repeat(stage, SUB, axis=0), np.repeat(seen, SUB, axis=0), _spread(event, rng), rng)


def _spread(event: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Events an epoch at a random step of it."""
    k, i = np.nonzero(event)
    out = np.zeros((len(event) * SUB, event.shape[1]), bool)
    out[k * SUB + rng.integers(0, SUB, len(k)), i] = True
    return out


def _recordings(c: dict, studies: int, stage: np.ndarray, seen: np.ndarray, event: np.ndarray, rng: np.random.Generator) -> list[list[Recording]]:
    n, m = len(stage) // SUB, stage.shape[1]
    cut = stage[: n * SUB].reshape(n, SUB, m)
    # By majority; a tie goes to the stage that came first.
    share = np.stack([(cut == s).sum(1) for s in range(3)], axis=-1) + 0.5 * (cut[:, 0, :, None] == np.arange(3))
    scored = share.argmax(-1).astype(np.int8)
    lost = rng.random((n, m)) < c["lost"]
    scored[lost] = -2
    every = round(1 / c["rate_hz"] / STEP)
    out = []
    for i in range(m):
        until = n if not c.get("uneven") else round(n * (0.15, 0.3, 1.0)[i % 3])
        at = np.flatnonzero(event[: until * SUB, i]) * STEP + rng.uniform(0, STEP, int(event[: until * SUB, i].sum()))
        labels = {"scoring": Hypnogram(scored[:until, i], "rodent3", EPOCH), "reactivation": EventTable(at, at + 0.05)}
        labels |= _ledgers(stage[: until * SUB, i], until * EPOCH, rng)
        signals = {"pressure": dict(values=seen[: until * SUB : every, i], rate=c["rate_hz"], kind="features", channels=["pressure"])}
        out.append(Recording.from_arrays(f"r{i}", f"m{i % c['animals']}", "mouse", signals=signals, labels=labels))
    return [out[s * c["animals"] : (s + 1) * c["animals"]] for s in range(studies)]


def _ledgers(stage: np.ndarray, hours: float, rng: np.random.Generator) -> dict[str, EventTable]:
    """Three logs of trials that do nothing: a coin at random times, blocks of four, and a gate that opens after 10 s of NREM."""
    on = np.cumsum(rng.uniform(30, 60, int(hours / 45) + 5))
    on = on[on < hours - 15]
    coin = rng.random(len(on)) < 0.3
    blocks = np.concatenate([rng.permutation([1, 1, 0, 0]) for _ in range(len(on) // 4 + 1)])[: len(on)].astype(bool)
    nrem = stage == 1
    calm = nrem & (np.convolve(nrem, np.ones(20), "full")[: len(nrem)] == 20)
    gates, last = [], -60.0
    for t in np.flatnonzero(calm) * STEP:
        if t >= last + 40 and t < hours - 15 and rng.random() < 0.05:
            gates.append(t)
            last = t
    gate = np.array(gates) + rng.uniform(0, STEP, len(gates))
    tossed = rng.random(len(gate)) < 0.5
    return {
        "bernoulli": EventTable(on, on + 0.5, assigned=coin, probability=0.3),
        "blocked": EventTable(on, on + 0.5, assigned=blocks, probability=0.5, block=np.arange(len(on)) // 4),
        "gated": EventTable(gate + 0.4, gate + 0.9, assigned=tossed, probability=0.5, gate_time=gate),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--only", nargs="*", help="cells that begin so")
    parser.add_argument("--designs", nargs="*", help="designs that begin so")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="a line of JSON each cell and design")
    args = parser.parse_args()
    for name, differs in CELLS.items():
        if args.only and not name.startswith(tuple(args.only)):
            continue
        c = ONE | differs | {"seed": args.seed + 1000 * list(CELLS).index(name)}
        studies = (on_the_grid if c["effect"] else nights)(c, args.studies)
        for design, how in DESIGNS.items():
            if (args.designs and not design.startswith(tuple(args.designs))) or (c["effect"] and design not in ("hazard", "matched")):
                continue
            row = _rate(name, design, how, c, studies)
            print(row["text"], flush=True)
            if args.out:
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")


def _rate(name: str, design: str, how: dict, c: dict, studies: list[list[Recording]]) -> dict:
    from scipy import stats

    trials = how["design"] == "trials"
    ask = {"exposure": design, "draws": 499, "horizon": 10.0} if trials else {"exposure": "reactivation", "adjust": ["pressure"], "draws": 0}
    began, found, errors = time.perf_counter(), [], []
    for recordings in studies:
        try:
            found.append(estimate_effect(recordings, outcome=c.get("outcome", "NREM->WAKE"), diagnostics=False, **(ask | how)))
        except BrainmuError as error:
            errors.append(str(error))
    missed = sum(not e.low <= c["effect"] <= e.high for e in found)
    coin = sum(e.p_value < 0.05 for e in found) if trials else None
    n = len(found)
    low, high = stats.binomtest(missed, n).proportion_ci(0.95, method="exact") if n else (float("nan"),) * 2
    est = np.array([e.estimate for e in found] or [np.nan] * 2)
    text = (
        f"{name:24s} {design:14s} missed {missed / max(n, 1):.3f} [{low:.3f}, {high:.3f}] of {n}"
        + (f", coin {coin / max(n, 1):.3f}" if trials else "")
        + f"; bias {est.mean() - c['effect']:+.3f} ({est.std() / np.sqrt(len(est)):.3f}), {time.perf_counter() - began:.0f} s"
        + (f"; {len(errors)} refused: {errors[0][:100]}" if errors else "")
    )
    return {
        "cell": name, "design": design, "missed": missed, "studies": n, "coin": coin, "bias": float(est.mean() - c["effect"]), "refused": len(errors),
        "text": text,
    }  # fmt: skip


if __name__ == "__main__":
    main()
