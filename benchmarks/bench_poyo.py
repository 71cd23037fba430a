"""The window encoder beside POYO (torch_brain): spikes a second and hours of recording a second, training and inference, on the same spikes.

Both start from spike times in memory, in windows of a second, batches of 64, and include the making of tokens. POYO's sizes are those of its 1.3M
model (width 64, 6 layers, 128 latents a second) and it learns to predict a velocity at 100 moments; the encoder learns what it is pretrained on.

Usage: python benchmarks/bench_poyo.py [--quick]
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import time
from collections.abc import Callable

import numpy as np
import torch

from brainmu.core import Recording
from brainmu.models import Encoder, EncoderConfig
from brainmu.train.objectives import MaskConfig, draw_masks
from brainmu.train.tasks import WindowTask
from brainmu.windows import WindowGrid

WINDOW, BATCH, UNITS, RATE, WIDTH, LAYERS, LATENTS = 1.0, 64, 100, 5.0, 64, 6, 128


def spikes(seconds: float) -> Recording:
    rng = np.random.default_rng(0)
    n = rng.poisson(seconds * UNITS * RATE)
    return Recording.from_arrays("bench", "bench", spikes=dict(times=np.sort(rng.uniform(0, seconds, n)), unit=rng.integers(0, UNITS, n)))


def ours(recording: Recording, latents: int) -> tuple[Callable[[int], None], Callable[[int], None]]:
    config = EncoderConfig(width=WIDTH, heads=4, latents=latents, window_layers=LAYERS, window=WINDOW)
    encoder, rng = Encoder(config), np.random.default_rng(0)
    task = WindowTask(encoder, MaskConfig(), ["bench"], 10, 1e-3, 0.05, 0)
    # No cache: the features are made from the spike times each time.
    grid = WindowGrid(recording, WINDOW, start=0.0, cache=0)

    def train(i: int) -> None:
        batch = grid.batch(slice(i * BATCH, (i + 1) * BATCH))
        sum(task.parts(batch, draw_masks(batch, MaskConfig(), rng)).values()).backward()

    def infer(i: int) -> None:
        with torch.no_grad():
            encoder.eval().summary(grid.batch(slice(i * BATCH, (i + 1) * BATCH)))

    return train, infer


def poyo(recording: Recording) -> tuple[Callable[[int], None], Callable[[int], None]] | None:
    if importlib.util.find_spec("torch_brain") is None:
        return None
    from temporaldata import ArrayDict, Data, IrregularTimeSeries
    from torch_brain.batching import collate
    from torch_brain.models import POYO

    sizes = dict(dim=WIDTH, depth=LAYERS, dim_head=64, num_latents_per_step=16, cross_heads=2, self_heads=8)
    model = POYO(sequence_length=WINDOW, latent_step=1 / 8, dim_out=2, **sizes)
    names = np.array([f"bench/{u}" for u in range(UNITS)])
    model.unit_emb.initialize_vocab(names.tolist())
    model.session_emb.initialize_vocab(["bench"])
    units, session = ArrayDict(id=names), Data(id="bench", domain=None)
    at = torch.linspace(0, WINDOW, 100).expand(BATCH, -1)

    def batch(i: int) -> dict[str, torch.Tensor]:
        rows = []
        for k in range(i * BATCH, (i + 1) * BATCH):
            times, unit = recording.spikes.span(k * WINDOW, (k + 1) * WINDOW)
            train = IrregularTimeSeries(timestamps=times - k * WINDOW, unit_index=unit.astype(np.int64), domain="auto")
            rows.append(model.tokenize(Data(spikes=train, units=units, session=session, domain="auto")))
        made = collate(rows)
        return {k: v.float() if v.dtype == torch.float64 else v for k, v in made.items()}

    def train(i: int) -> None:
        model.train()(**batch(i), output_timestamps=at).square().mean().backward()

    def infer(i: int) -> None:
        with torch.no_grad():
            model.eval()(**batch(i), output_timestamps=at)

    return train, infer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer batches")
    batches = 4 if parser.parse_args().quick else 16
    recording = spikes((batches + 1) * BATCH * WINDOW)
    peer = poyo(recording)
    made = {f"brainmu, {LATENTS} latents": ours(recording, LATENTS), "brainmu, 8 latents": ours(recording, 8)}
    if peer is not None:
        made["POYO, 128 latents"] = peer
    print(f"{torch.get_num_threads()} threads, {UNITS} units at {RATE:g} Hz, windows of {WINDOW:g} s, batches of {BATCH}, width {WIDTH}, {LAYERS} layers\n")
    seconds = {k: [float("inf")] * 2 for k in made}
    for works in made.values():
        for work in works:
            work(batches)
    # In turns, the best of three rounds: whatever else runs on the machine falls on all alike.
    for _, (name, works) in itertools.product(range(3), made.items()):
        for j, work in enumerate(works):
            began = time.perf_counter()
            for i in range(batches):
                work(i)
            seconds[name][j] = min(seconds[name][j], time.perf_counter() - began)
    span = batches * BATCH * WINDOW
    n = int((recording.spikes.times < span).sum())
    print("| | training, spikes/s | hours/s | inference, spikes/s | hours/s |\n|---|---|---|---|---|")
    for name, (train, infer) in seconds.items():
        print(f"| {name} | {n / train:,.0f} | {span / 3600 / train:.3f} | {n / infer:,.0f} | {span / 3600 / infer:.3f} |")
    if peer is None:
        print("\nPOYO: torch_brain is not installed (pip install 'brainmu[interop]')")
        return
    for j, what in enumerate(("training", "inference")):
        a, b, c = (seconds[k][j] for k in made)
        print(f"\n{what}: {c / a:.1f} times POYO with as many latents, {c / b:.1f} times with those of the tiny encoder", end="")
    print()


if __name__ == "__main__":
    main()
