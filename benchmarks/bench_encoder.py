"""The encoder at scale: throughput, memory against hours of recording, time and memory against context, and input of SleepFM's size.

Tables, each one in processes of its own where memory is measured:

- features, encoding and a training step of the tiny encoder on 4 channels at 1,250 Hz and 40 units;
- peak memory of encoding and of a few steps of pretraining on planted recordings of 2, 8 and 24 hours from a store, beside that of 2;
- a training step of a context encoder of width 256, 6 layers and 4 heads (64 a head, as base and large have) over 720 to 11,520 windows, a third of them
  hidden and asked for;
- windows of 10 channels at 128 Hz and 5 s, 60 to a span of 5 minutes: the size of SleepFM's input. SleepFM itself is not run: no package of that
  name is installed by pip, so there is no ratio.

Usage: python benchmarks/bench_encoder.py [--quick] [--only throughput hours context sleepfm]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import brainmu as bm
from brainmu.config import load_config
from brainmu.core import Recording
from brainmu.models import Encoder
from brainmu.models.context_encoder import ContextEncoder
from brainmu.train import PretrainConfig, pretrain
from brainmu.train.objectives import MaskConfig, draw_masks
from brainmu.train.tasks import WindowTask
from brainmu.windows import WindowGrid


def session(hours: float, channels: int = 4, units: int = 40, rate: float = 1250.0, kind: str = "lfp") -> Recording:
    rng = np.random.default_rng(0)
    n, spikes = round(hours * 3600 * rate), round(hours * 3600 * units * 2)
    return Recording.from_arrays(
        "bench", "bench", signals={kind: dict(values=rng.standard_normal((n, channels), dtype=np.float32), rate=rate, unit="uV", kind=kind)},
        spikes=dict(times=np.sort(rng.uniform(0, hours * 3600, spikes)), unit=rng.integers(0, units, spikes)) if units else None,
    )  # fmt: skip


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds, since machines are shared."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def throughput(quick: bool) -> None:
    hours, windows = 0.5 if quick else 2.0, 64
    recording, encoder = session(hours), Encoder().eval()
    features, encode = timed(lambda: WindowGrid(recording).batch(slice(None))), timed(lambda: encoder.taps(WindowGrid(recording)))
    batch = WindowGrid(recording).batch(np.arange(windows))
    task = WindowTask(encoder, MaskConfig(), ["bench"], 10, 1e-3, 0.05, 0)
    hidden = draw_masks(batch, MaskConfig(), np.random.default_rng(0))
    sum(task.parts(batch, hidden).values()).backward()
    train = [x / 5 for x in timed(lambda: [sum(task.parts(batch, hidden).values()).backward() for _ in range(5)])]
    print(f"tiny encoder, {hours:g} h of 4 x 1,250 Hz and 40 units, {batch.n_tokens // windows} tokens a window\n")
    print("| | hours/s | hours/CPU s | windows/s | tokens/s |\n|---|---|---|---|---|")
    for name, (wall, cpu) in (("features", features), ("features and encoding", encode)):
        print(f"| {name} | {hours / wall:.3f} | {hours / cpu:.3f} | {hours * 900 / wall:.0f} | {hours * 900 / wall * batch.n_tokens / windows:,.0f} |")
    wall, cpu = train
    print(f"| training step | {windows / 900 / wall:.3f} | {windows / 900 / cpu:.3f} | {windows / wall:.0f} | {batch.n_tokens / wall:,.0f} |")


# -- memory against hours -------------------------------------------------------------------------------------------------
def hours(quick: bool) -> None:
    lengths = (1, 4) if quick else (2, 8, 24)
    print("planted mouse, LFP 4 and EMG 1 channels at 250 Hz, 20 cells as spikes and as calcium; no features kept: each window is read from the store\n")
    print("| hours | store, MB | encoding: s | peak, GB | beside the first | pretraining: s/step | stall | peak, GB | beside the first |")
    print("|---|---|---|---|---|---|---|---|---|")
    first: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for h in lengths:
            bm.synth.corpus(1, hours=h, lfp_rate=250.0, n_channels=3, n_cells=20, calcium=True, out=f"{folder}/h{h}")
            store = next(Path(folder, f"h{h}").glob("*.zarr"))
            found = {job: alone(job, str(store), f"{folder}/run{h}") for job in ("encode", "pretrain")}
            for job, r in found.items():
                first.setdefault(job, r["peak"])
            size = sum(f.stat().st_size for f in store.rglob("*") if f.is_file()) / 1e6
            e, p = found["encode"], found["pretrain"]
            print(f"| {h} | {size:.0f} | {e['seconds']:.1f} | {e['peak']:.2f} | {e['peak'] / first['encode']:.2f} | {p['seconds']:.2f} | "
                  f"{p['stall']:.3f} | {p['peak']:.2f} | {p['peak'] / first['pretrain']:.2f} |", flush=True)  # fmt: skip


def encode(store: str, _: str) -> dict[str, float]:
    return {"seconds": timed(lambda: Encoder().taps(WindowGrid(bm.open(store))))[0]}


def few_steps(store: str, out: str) -> dict[str, float]:
    rows: list[dict[str, float]] = []
    pretrain(bm.open(store), out, config=dict(steps=20, context_steps=3, batch=64, cache_mib=0, tensorboard=False), on_log=rows.append)
    steps = [r for r in rows if r["stage"] == "window"]
    return {"seconds": float(np.median([r["seconds"] for r in steps])), "stall": steps[-1]["stall"]}


# -- time and memory against context --------------------------------------------------------------------------------------
def context(quick: bool) -> None:
    print("| windows | at 4 s, h | s a step | CPU s | peak, GB | beside 720: CPU s | memory above imports |\n|---|---|---|---|---|---|---|")
    none = alone("context", "8")
    first: dict[str, float] = {}
    for n in (720, 1440, 2880) if quick else (720, 1440, 2880, 5760, 11520):
        r = alone("context", str(n))
        first = first or r
        above = (r["peak"] - none["peak"]) / max(first["peak"] - none["peak"], 1e-9)
        print(f"| {n:,} | {n / 900:.1f} | {r['wall']:.2f} | {r['cpu']:.2f} | {r['peak']:.2f} | {r['cpu'] / first['cpu']:.1f} | {above:.1f} |", flush=True)


def context_step(windows: str) -> dict[str, float]:
    n = int(windows)
    torch.manual_seed(0)
    encoder = ContextEncoder(256, 4, 6, 0.1)
    summaries, time_, seen = torch.randn(1, n, 256), torch.arange(n, dtype=torch.float64)[None] * 4, torch.rand(1, n) > 1 / 3
    optimiser = torch.optim.AdamW(encoder.parameters())

    def step() -> None:
        optimiser.zero_grad()
        encoder(summaries, time_, seen, asked=~seen)[~seen].square().mean().backward()
        optimiser.step()

    wall, cpu = timed(step)
    return {"wall": wall, "cpu": cpu}


# -- SleepFM's size -------------------------------------------------------------------------------------------------------
SPAN, SECONDS = 60, 5.0


def sleepfm(quick: bool) -> None:
    spans = 1 if quick else 4
    recording = session(spans * SPAN * SECONDS / 3600, channels=10, units=0, rate=128.0, kind="eeg")
    print(f"10 channels at 128 Hz, windows of {SECONDS:g} s, {SPAN} to a span, {spans} spans a batch; features made each time\n")
    print("| encoder | weights | training: windows/s | hours/s | inference: windows/s | hours/s |\n|---|---|---|---|---|---|")
    for name in ("tiny", "small"):
        torch.manual_seed(0)
        encoder = Encoder(load_config(PretrainConfig, f"pretrain/{name}").encoder)
        n = spans * SPAN
        found = [min(timed(work)[0] for _ in range(3)) for work in on_spans(encoder, recording, spans)]
        print(f"| {name} | {encoder.n_parameters:,} | " + " | ".join(f"{n / s:,.0f} | {n * SECONDS / 3600 / s:.3f}" for s in found) + " |", flush=True)


def on_spans(encoder: Encoder, recording: Recording, spans: int) -> tuple[Callable[[], None], Callable[[], None]]:
    """A training step of both encoders, and inference, on all windows of a recording."""
    grid = WindowGrid(recording, SECONDS, cache=0)
    task = WindowTask(encoder, MaskConfig(), ["bench"], 10, 1e-3, 0.05, 0)
    at = torch.arange(SPAN, dtype=torch.float64)[None] * SECONDS

    def train() -> None:
        batch = grid.batch(slice(None))
        sum(task.parts(batch, draw_masks(batch, MaskConfig(), np.random.default_rng(0))).values()).backward()
        with torch.no_grad():
            summaries = encoder.summary(batch)[0]
        encoder.context(summaries.unflatten(0, (spans, SPAN)), at, None, SECONDS).square().mean().backward()

    @torch.no_grad()
    def infer() -> None:
        encoder.context(encoder.summary(grid.batch(slice(None)))[0].unflatten(0, (spans, SPAN)), at, None, SECONDS)

    return train, infer


# -- a process each -------------------------------------------------------------------------------------------------------
JOBS: dict[str, Callable[..., dict[str, float]]] = {"encode": encode, "pretrain": few_steps, "context": context_step}


def alone(job: str, *args: str) -> dict[str, float]:
    """A job in a process of its own, and the peak of its resident memory, GB."""
    done = subprocess.run([sys.executable, __file__, "--job", job, *args], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def peak() -> float:
    """Peak of resident memory, GB. Linux says it for the program itself; elsewhere it may begin with that of the parent process."""
    if sys.platform.startswith("linux"):
        return next(int(line.split()[1]) * 1024 / 1e9 for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    from brainmu.train.logs import peak_memory

    return peak_memory(torch.device("cpu"))


def main() -> None:
    tables = {"throughput": throughput, "hours": hours, "context": context, "sleepfm": sleepfm}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter recordings and contexts")
    parser.add_argument("--only", nargs="+", choices=tables, default=list(tables), help="some of the tables")
    parser.add_argument("--job", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(JOBS[args.job[0]](*args.job[1:]) | {"peak": peak()}))
        return
    print(f"{torch.get_num_threads()} threads")
    for name in args.only:
        print(f"\n-- {name}", flush=True)
        tables[name](args.quick)


if __name__ == "__main__":
    main()
