"""Is an effect in the model the effect that was planted? By valence and dose, with and without confounding, and where nothing was planted.

A corpus is a dozen animals whose reactivations of four contents act on waking: one raises its hazard, one lowers it, two do nothing. A latent
pressure may drive both. One encoder, trained once on other seeds to tell which content was reactivated when, serves all corpora; on its cached
taps each corpus gets heads of its own, for what follows an epoch of NREM, and events of animals that no head has seen are taken out, replaced or put in.

python benchmarks/bench_intervene.py --out FOLDER [--corpora 140] [--jobs 2] [--quick]    (resumes: a small JSON a corpus)
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from brainmu import synth
from brainmu.core import Effect, EventTable, Intervals, Recording
from brainmu.explain import intervene
from brainmu.models.checkpoint import load_encoder, plain, write_checkpoint
from brainmu.models.encoder import Encoder, EncoderConfig
from brainmu.synth.sleep import RodentSleep
from brainmu.train import outcome_heads
from brainmu.train.outcome import newton

EPOCH = 4.0
SEED = 200_000
"""Of the corpora; the encoder is trained on seeds of its own, and what was chosen was chosen on others again."""
CONTENTS = ("negative", "positive", "neutral", "novel")
UNITS = 5
"""Units whose spikes carry a content."""
RATE, IN_EVENT = 1.5, 6.0
"""Background of each unit, Hz, and spikes each fires in an event of its content."""
SLEEP = RodentSleep(wake_rate=1 / 50, settle=5.0, long_share=0.1, quiet_median=20.0, rem_rate=1 / 200)
"""Fragmented sleep: a corpus of a day holds about a thousand wakings."""
ENCODER = EncoderConfig(width=32, heads=2, latents=2, window_layers=1, context_layers=1, dropout=0.0, causal=True)


def corpus(seed: int, beta: dict[str, float], confounding: float, n_animals: int, hours: float, seeing: bool = False) -> list[Recording]:
    """Animals with spikes, EMG (one value an epoch), labels and, where `seeing`, the pressure as measured."""
    animals, _ = synth.study(
        n_animals, hours=hours, seed=seed, trials=False, animal_sd=0.2, confounding=confounding, sleep=SLEEP,
        log_hazard_ratio=beta, reactivation_rate=dict.fromkeys(CONTENTS, 0.03),
    )  # fmt: skip
    return [_heard(a, np.random.default_rng([seed, i, 8]), seeing) for i, a in enumerate(animals)]


def _heard(animal: Recording, rng: np.random.Generator, seeing: bool) -> Recording:
    """A recording of what an animal lives through."""
    h, events = animal.labels["scoring"], animal.events("reactivation")
    stop, n = h.stop, len(CONTENTS) * UNITS
    background = rng.poisson(RATE * stop, n)
    times, units = [rng.uniform(0, stop, background.sum())], [np.repeat(np.arange(n), background)]
    kind = np.array([CONTENTS.index(c) for c in events.content])
    count = rng.poisson(IN_EVENT, (len(events), UNITS))
    who = np.repeat(np.arange(len(events)), count.sum(1))
    times.append(events.start[who] + rng.random(len(who)) * events.duration[who])
    units.append(np.repeat(np.tile(np.arange(UNITS), len(events)), count.ravel()) + UNITS * kind[who])
    order = np.argsort(np.concatenate(times))
    emg = (h.codes == 0) + 0.15 * rng.standard_normal(len(h))
    theta = (h.codes == 2) + 0.15 * rng.standard_normal(len(h))
    seen = [emg, theta]
    if seeing:
        seen.append(animal.signals["pressure"].read()[: len(h) * int(EPOCH), 0].reshape(len(h), -1).mean(1))
    levels = dict(values=np.stack(seen, 1).astype(np.float32), rate=1 / EPOCH, unit="SD", kind="features", channels=["emg", "theta", "pressure"][: len(seen)])
    return Recording.from_arrays(
        animal.id, animal.subject, "mouse", signals={"levels": levels}, labels=animal.labels,
        spikes=dict(times=np.concatenate(times)[order], unit=np.concatenate(units)[order]),
    )  # fmt: skip


# -- the encoder -----------------------------------------------------------------------------------------------------------
LAGS = 4


def targets(recording: Recording, n: int) -> NDArray[np.float32]:
    """What the encoder is to tell of each epoch (n, target): events of each content now and up to three epochs ago, stages, age of the bout."""
    h, events = recording.labels["scoring"], recording.events("reactivation")
    counts = np.zeros((n, len(CONTENTS)))
    k = np.minimum((events.start // EPOCH).astype(int), n - 1)
    np.add.at(counts, (k, [CONTENTS.index(c) for c in events.content]), 1)
    stage = np.eye(3)[np.maximum(h.codes[:n], 0)]
    age = np.zeros(n)
    for i in range(1, n):
        age[i] = age[i - 1] + 1 if h.codes[i] == h.codes[i - 1] else 0
    lagged = [np.roll(counts, lag, axis=0) * (np.arange(n) >= lag)[:, None] for lag in range(LAGS)]
    past = [np.roll(stage[:, :2], lag, axis=0) for lag in (1, 2)]
    return np.concatenate([*lagged, stage, *past, np.exp(-age[:, None] / 2)], 1).astype(np.float32)


def encoder_trained(seed: int = 90_000, n_animals: int = 8, steps: int = 600, progress: Any = None) -> Encoder:
    """One encoder whose taps say which content was reactivated in which of the last epochs, from animals of seeds no corpus has."""
    import torch

    from brainmu.windows.batch import collate
    from brainmu.windows.grid import WindowGrid

    torch.manual_seed(seed)
    encoder = Encoder(ENCODER)
    plain = dict.fromkeys(CONTENTS, 0.0)
    animals = [r for k in (0, 1) for r in corpus(seed + k, plain, 0.0, n_animals, 2.0, seeing=bool(k))]
    grids = [WindowGrid(r, EPOCH, kinds=("features", "spikes"), patch=ENCODER.patch, bin=ENCODER.bin) for r in animals]
    wanted = [torch.from_numpy(_and_pressure(r, len(g))) for r, g in zip(animals, grids)]
    scale = torch.cat([w[~w.isnan().any(1)] for w in wanted]).std(0)
    read = torch.nn.Sequential(torch.nn.LayerNorm(2 * ENCODER.width), torch.nn.Linear(2 * ENCODER.width, wanted[0].shape[1]))
    optimiser = torch.optim.AdamW([*encoder.parameters(), *read.parameters()], lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    rng, span = np.random.default_rng(seed), 64
    for step in range(steps):
        spans = [(r, int(rng.integers(len(grids[r]) - span))) for r in rng.integers(len(grids), size=8)]
        batch = collate([grids[r].batch(slice(a, a + span), i) for i, (r, a) in enumerate(spans)])
        summaries, present = (x.unflatten(0, (len(spans), span)) for x in encoder.summary(batch))
        context = encoder.context(summaries, torch.arange(span, dtype=torch.float64)[None] * EPOCH, present, EPOCH)
        error = (read(torch.cat([summaries, context], -1)) - torch.stack([wanted[r][a : a + span] for r, a in spans])) / scale
        loss = error[error.isfinite()].square().mean()
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(encoder.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress(step, float(loss.detach()), error.detach().square())
    return encoder.eval()


def _and_pressure(recording: Recording, n: int) -> NDArray[np.float32]:
    """The targets, and the pressure where it is recorded (NaN elsewhere)."""
    levels = recording.signals["levels"]
    pressure = levels.read()[:n, 2:3] if levels.n_channels > 2 else np.full((n, 1), np.nan, dtype=np.float32)
    return np.concatenate([targets(recording, n), pressure], 1)


# -- one corpus ------------------------------------------------------------------------------------------------------------
NEGATIVE, POSITIVE = (0.0, 0.3, 0.6, 0.9, 1.2), (0.0, -0.3, -0.6, -0.9)
DOSES = (0.25, 0.5, 1.0)
KINDS = ("features", "spikes")


@dataclass(frozen=True)
class Size:
    """How much of everything: animals that heads are fitted on, animals that are edited, their hours, events, placebos, steps of the encoder."""

    animals: int = 12
    hours: float = 2.0
    edited: int = 1
    edited_hours: float = 0.75
    events: int = 40
    placebos: int = 4
    steps: int = 1200


QUICK = Size(animals=5, hours=1.0, edited=1, events=15, placebos=2, steps=300)


def design(index: int, unconfounded: int) -> tuple[dict[str, float], float]:
    """What is planted in a corpus: all pairs of effects in turn, without confounding first, then with a little and with much."""
    pair = index % (len(NEGATIVE) * len(POSITIVE))
    beta = {"negative": NEGATIVE[pair % len(NEGATIVE)], "positive": POSITIVE[pair // len(NEGATIVE)], "neutral": 0.0, "novel": 0.0}
    k = (index - unconfounded) // (len(NEGATIVE) * len(POSITIVE))
    return beta, 0.0 if index < unconfounded else (0.6, 0.3)[k % 2]


def measured(index: int, unconfounded: int, size: Size, encoder: Encoder) -> dict[str, Any]:
    """Effects in the model of one corpus, beside what was planted. Of confounded ones also by heads that see the pressure."""
    beta, confounding = design(index, unconfounded)
    rows, began = [], time.process_time()
    for seeing in (False, True) if confounding else (False,):
        fitted = corpus(SEED + 2 * index, beta, confounding, size.animals, size.hours, seeing)
        edited = corpus(SEED + 2 * index + 1, beta, confounding, size.edited, size.edited_hours, seeing)
        heads = outcome_heads(fitted, encoder, kinds=KINDS)
        ask = partial(
            intervene, heads.model, edited, "reactivation", what="spikes", horizon=EPOCH, hazards=(EPOCH,), max_events=size.events, scale="log_hazard",
            risk="scoring", refits=heads.refits, seed=index,
        )  # fmt: skip
        for content in CONTENTS:
            driven = content in ("negative", "positive")
            taken = ask(operation="remove", content=content, dose=DOSES if driven else 1.0, placebos=2 if driven else size.placebos)
            rows += [_row(taken, content, "remove", d, beta[content], seeing) for d in taken.diagnostics["doses"]]
            for operation in ("replace", "insert") if driven else ():
                other = ask(operation=operation, content=content, placebos=2)
                rows += [_row(other, content, operation, d, beta[content], seeing) for d in other.diagnostics["doses"]]
        if not seeing:
            rows += [_nothing(heads.model, edited[0], (index, k), size) for k in (1, 2)]
    return {
        "index": index, "planted": beta, "confounding": confounding, "transitions": heads.n_transitions, "epochs": heads.n_epochs,
        "cpu_seconds": round(time.process_time() - began, 1), "rows": rows,
    }  # fmt: skip


def _row(effect: Effect, content: str, operation: str, dose: dict[str, float], planted: float, seeing: bool) -> dict[str, Any]:
    """One estimate, its sign turned where an event was taken away, so that it stands beside what was planted."""
    sign, r = (1 if operation == "insert" else -1), effect.diagnostics["refits"]
    low, high = sorted((sign * dose["low"], sign * dose["high"]))
    whole = dose["dose"] == 1.0
    return {
        "content": content, "operation": operation, "dose": dose["dose"], "planted": planted, "seeing": seeing, "estimate": sign * dose["estimate"],
        "low": low, "high": high, "p": dose["p_value"], "se_training": r["se_training"] if whole else None, "se_placebos": r["se_placebos"] if whole else None,
        "n": effect.n_events,
    }  # fmt: skip


def _nothing(model: Any, recording: Recording, seed: tuple[int, int], size: Size) -> dict[str, Any]:
    """Times in NREM at which nothing was, taken out as events are, beside 19 placebos: what the model's band must hold 95 times in 100."""
    rng, events = np.random.default_rng([*seed, 9]), recording.events("reactivation")
    sleep = recording.labels["scoring"].intervals("NREM")
    room = sleep.subtract(Intervals.merge(np.c_[events.start - 0.6, events.stop + 0.6])).longer_than(1.0)
    length = room.stop - room.start
    which = rng.choice(len(room), 2 * size.events, p=length / length.sum())
    start = room.start[which] + 0.02 + rng.random(len(which)) * (length[which] - 0.3)
    nothing = EventTable(start, start + rng.uniform(0.05, 0.25, len(start)), content=np.full(len(start), "nothing")).sorted()
    table = EventTable.concat([EventTable(events.start, events.stop, content=events.content), nothing])
    found = intervene(
        model, recording, table, "remove", what="spikes", content="nothing", horizon=EPOCH, hazards=(EPOCH,), max_events=size.events // 2, placebos=19,
        scale="log_hazard", risk="scoring", seed=1000 * seed[1] + seed[0],
    )  # fmt: skip
    return {"content": "nothing", "operation": "remove", "dose": 1.0, "planted": 0.0, "seeing": False, "estimate": -found.estimate, "p": found.p_value,
            "n": found.n_events}  # fmt: skip


# -- what is planted, in epochs ---------------------------------------------------------------------------------------------
def herd(animals: int = 150, beta: dict[str, float] | None = None) -> NDArray[np.float64]:
    """What a log hazard ratio comes to by epoch: coefficients (epochs ago, content) of the hazard in the next epoch, from the labels of a herd alone.

    Grouped proportional hazards (complementary log-log) on how many events of each content there were now and up to three epochs ago. An event
    acts for 10 s, so one in the epoch before acts on all of the time in which a waking makes the next epoch one of WAKE: its coefficient
    is the planted one, and what is read in the first epoch after an edited one has to be held against it.
    """
    beta = beta or {"negative": 0.8, "positive": -0.6}
    recordings, _ = synth.study(
        animals, hours=2.0, seed=70_001, trials=False, animal_sd=0.2, sleep=SLEEP, log_hazard_ratio=beta, reactivation_rate=dict.fromkeys(CONTENTS, 0.03)
    )
    x, y = [], []
    for r in recordings:
        codes = r.labels["scoring"].codes
        k = np.flatnonzero((codes[LAGS:-1] == 1) & (codes[LAGS + 1 :] != 2)) + LAGS
        told = targets(r, len(codes))[k]
        x.append(np.c_[np.ones(len(k)), told[:, : LAGS * len(CONTENTS)], told[:, LAGS * len(CONTENTS) + 3 :]])
        y.append(codes[k + 1] == 0)
    z, woke = np.concatenate(x).astype(np.float64), np.concatenate(y).astype(np.float64)

    def loss(w: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        mu = np.exp(np.clip(z @ w, -20, 3))
        p = -np.expm1(-mu)
        return float(-(woke * np.log(p) - (1 - woke) * mu).mean()), -z.T @ (woke * mu * (1 - p) / p - (1 - woke) * mu) / len(woke)

    begin = np.r_[np.log(woke.mean()), np.zeros(z.shape[1] - 1)]
    return optimize.minimize(loss, begin, jac=True, method="BFGS").x[1 : 1 + LAGS * len(CONTENTS)].reshape(LAGS, -1)


def by_labels(seed: int, animals: int = 12) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log hazard ratios (content,) of an event an epoch ago where none is planted, by the heads' regression on the labels alone, and their jackknife errors."""
    recordings, _ = synth.study(
        animals, hours=2.0, seed=seed, trials=False, animal_sd=0.2, sleep=SLEEP, log_hazard_ratio=dict.fromkeys(CONTENTS, 0.0),
        reactivation_rate=dict.fromkeys(CONTENTS, 0.03),
    )  # fmt: skip
    x, y, who = [], [], []
    for i, r in enumerate(recordings):
        codes = r.labels["scoring"].codes
        k = np.flatnonzero((codes[LAGS:-1] == 1) & (codes[LAGS + 1 :] >= 0)) + LAGS
        past = LAGS * len(CONTENTS)
        x.append(np.delete(targets(r, len(codes))[k], range(past, past + 3), axis=1).astype(np.float64))
        y.append(codes[k + 1].astype(np.int64))
        who.append(np.full(len(k), i))
    z, after, of = np.concatenate(x), np.concatenate(y), np.concatenate(who)
    whole = newton(z, after, 1, 3, 1.0)
    one_ago = slice(len(CONTENTS), 2 * len(CONTENTS))
    left = np.array([newton(z[of != i], after[of != i], 1, 3, 1.0, whole)[0][0][one_ago] for i in range(animals)])
    return whole[0][0][one_ago], np.sqrt((animals - 1) / animals * ((left - left.mean(0)) ** 2).sum(0))


# -- all of them -----------------------------------------------------------------------------------------------------------
def worked(job: tuple[int, int, Size, str, str]) -> int:
    """One corpus, kept as a file; nothing is done where the file is there."""
    import torch

    index, unconfounded, size, encoder, out = job
    path = Path(out) / f"corpus_{index:04d}.json"
    if not path.exists():
        torch.set_num_threads(1)
        part = path.with_suffix(".part")
        part.write_text(json.dumps(measured(index, unconfounded, size, load_encoder(encoder))), encoding="utf-8")
        part.replace(path)
    return index


def kept(encoder: Encoder, path: Path) -> None:
    from torch.nn import ModuleDict

    config = {"type": "encoder", "encoder": plain(encoder.config)}
    write_checkpoint(path, ModuleDict({"encoder": encoder}), config, "# Tells which content was reactivated when\n", overwrite=True)


def encoder_of(out: Path, size: Size) -> Path:
    """Where the shared encoder is; trained on first use."""
    path = out / "encoder"
    if not (path / "config.yaml").is_file():
        began = time.perf_counter()

        def say(step: int, loss: float, _error: Any) -> None:
            if (step + 1) % 100 == 0:
                print(f"encoder: step {step + 1} of {size.steps}, loss {loss:.3f}, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)

        kept(encoder_trained(steps=size.steps, progress=say), path)
    return path


def run(out: Path, corpora: int, unconfounded: int, size: Size, jobs: int) -> list[dict[str, Any]]:
    out.mkdir(parents=True, exist_ok=True)
    encoder = str(encoder_of(out, size))
    # Confounded corpora in between the others, so that a part of a run is a small version of the whole.
    order = sorted(range(corpora), key=lambda i: (i + 0.5) / unconfounded if i < unconfounded else (i - unconfounded + 0.5) / (corpora - unconfounded))
    todo = [(i, unconfounded, size, encoder, str(out)) for i in order]
    began = time.perf_counter()
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        for k, i in enumerate(pool.imap_unordered(worked, todo), 1):
            print(f"corpus {i}: {k} of {corpora}, {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return results(out)


def results(out: Path) -> list[dict[str, Any]]:
    return [json.loads(p.read_text(encoding="utf-8")) for p in sorted(out.glob("corpus_*.json"))]


# -- what came -------------------------------------------------------------------------------------------------------------
def flat(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "confounding": f["confounding"], "corpus": f["index"]} for f in found for row in f["rows"]]


def line(x: NDArray[np.float64], y: NDArray[np.float64]) -> dict[str, tuple[float, float, float]]:
    """Slope and intercept of least squares, each with a 95 % interval (sandwich errors, HC3, t)."""
    z = np.c_[np.ones(len(x)), x]
    inverse = np.linalg.inv(z.T @ z)
    w = inverse @ z.T @ y
    lever = np.einsum("ij,jk,ik->i", z, inverse, z)
    error = (y - z @ w) / (1 - lever)
    half = stats.t.ppf(0.975, len(x) - 2) * np.sqrt(np.diag(inverse @ (z.T * error**2) @ z @ inverse))
    return {name: (float(w[k]), float(w[k] - half[k]), float(w[k] + half[k])) for k, name in ((1, "slope"), (0, "intercept"))}


def inside_one_fit(nulls: list[dict[str, Any]]) -> list[bool]:
    """Whether nulls lie inside the band that placebos of one fitted model give; of the contents that had the full number of placebos."""
    wide = stats.t.ppf(0.975, Size().placebos - 1)
    return [abs(r["estimate"]) < wide * r["se_placebos"] for r in nulls if r["content"] in ("neutral", "novel")]


def within(n: int, k: int) -> str:
    low, high = stats.binomtest(k, n).proportion_ci(method="wilson")
    return f"{k} of {n}, {k / n:.1%} [{low:.1%}, {high:.1%}]"


def said(three: tuple[float, float, float]) -> str:
    return f"{three[0]:+.3f} [{three[1]:+.3f}, {three[2]:+.3f}]"


def tell(found: list[dict[str, Any]]) -> None:
    """Print calibration, confounding and nulls."""
    rows = flat(found)

    def pick(**where: Any) -> list[dict[str, Any]]:
        return [r for r in rows if all(r[k] in v if isinstance(v, tuple) else r[k] == v for k, v in where.items())]

    def calibrated(name: str, some: list[dict[str, Any]]) -> None:
        x, y = (np.array([r[k] for r in some]) for k in ("planted", "estimate"))
        dose = np.array([r["dose"] for r in some])
        if len(set(x)) > 1 and len(x) > 4:
            fit = line(x * dose, y)
            print(f"  {name:34} {len(some):4}  slope {said(fit['slope'])}  intercept {said(fit['intercept'])}")

    seconds = [f["cpu_seconds"] for f in found]
    print(f"{len(found)} corpora, median {np.median(seconds):.0f} s of CPU each, median {np.median([f['transitions'] for f in found]):.0f} wakings fitted on")
    print("estimate in the model against planted log hazard ratio x dose, unconfounded (bar: slope 0.8-1.2, intercept covering 0)")
    for content in ("negative", "positive"):
        for dose in DOSES:
            calibrated(f"{content}, removed, dose {dose:.0%}", pick(confounding=0.0, content=content, operation="remove", dose=dose))
        for operation in ("replace", "insert"):
            calibrated(f"{content}, {operation}", pick(confounding=0.0, content=content, operation=operation))
    calibrated("all contents, removed", pick(confounding=0.0, content=CONTENTS, operation="remove", dose=1.0))
    print("the same where a latent pressure drives both (slope against planted; then bias = estimate - planted)")
    for level in sorted({r["confounding"] for r in rows} - {0.0}):
        for seeing in (False, True):
            some = pick(confounding=level, seeing=seeing, content=CONTENTS, operation="remove", dose=1.0)
            calibrated(f"confounding {level:g}, {'seeing' if seeing else 'blind'}", some)
    for seeing in (False, True):
        some = [*pick(confounding=0.0, content=CONTENTS, operation="remove", dose=1.0)]
        some += [r for r in rows if r["confounding"] and r["seeing"] == seeing and r["content"] in CONTENTS and r["operation"] == "remove" and r["dose"] == 1.0]
        if len({r["confounding"] for r in some}) > 1:
            x, y = np.array([r["confounding"] for r in some]), np.array([r["estimate"] - r["planted"] for r in some])
            means = ", ".join(f"{y[x == v].mean():+.3f} at {v:g}" for v in np.unique(x))
            print(f"  bias on confounding, {'seeing' if seeing else 'blind':6}: slope {said(line(x, y)['slope'])}; mean {means}")
    print("nulls inside their band (bar: at least 200, 93-97 %)")
    nulls = [r for r in pick(confounding=0.0, operation="remove", dose=1.0, planted=0.0) if r["content"] in CONTENTS]
    if nulls:
        held = [r["p"] > 0.05 for r in nulls]
        alone = inside_one_fit(nulls)
        print(f"  contents without effect, band of placebos and refits: {within(len(held), sum(held))}")
        print(f"  the same, placebos of the one fitted model alone:     {within(len(alone), sum(alone))}")
    nothing = pick(content="nothing")
    if nothing:
        print(f"  moments at which nothing was, 19 placebos, one model: {within(len(nothing), sum(r['p'] > 0.05 for r in nothing))}")
    sure = [r for r in pick(confounding=0.0, operation="remove", dose=1.0) if r["content"] in CONTENTS]
    if sure:
        print(f"  95 % intervals that hold what was planted, all contents: {within(len(sure), sum(r['low'] <= r['planted'] <= r['high'] for r in sure))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few small corpora: a look at whether it runs")
    parser.add_argument("--out", type=Path, help="folder of results, one file a corpus; what is there is not done again")
    parser.add_argument("--corpora", type=int, default=140)
    parser.add_argument("--unconfounded", type=int, default=100, help="the first so many are without confounding")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--tell", action="store_true", help="only print what the folder holds")
    parser.add_argument("--herd", action="store_true", help="only show what a planted log hazard ratio comes to by epoch")
    parser.add_argument("--labels-only", type=int, metavar="N", help="only show how often the jackknife holds nulls of N corpora, by their labels")
    args = parser.parse_args()
    if args.labels_only:
        made = [by_labels(300_000 + k) for k in range(args.labels_only)]
        inside = np.array([np.abs(e / se) < stats.t.ppf(0.975, 11) for e, se in made])
        print(f"nulls inside the jackknife's 95 % interval, labels alone: {within(inside.size, int(inside.sum()))}")
        return
    if args.herd:
        print("log hazard ratio of waking in the next epoch by one event, planted +0.8 (negative), -0.6 (positive), 0, 0")
        for lag, row in enumerate(herd()):
            print(f"  event {lag} epochs ago: " + "  ".join(f"{c} {v:+.3f}" for c, v in zip(CONTENTS, row)))
        return
    with tempfile.TemporaryDirectory() as scratch:
        out = args.out or Path(scratch)
        if args.tell:
            tell(results(out))
        elif args.quick:
            tell(run(out, 4, 2, QUICK, args.jobs))
        else:
            tell(run(out, args.corpora, args.unconfounded, Size(), args.jobs))


if __name__ == "__main__":
    main()
