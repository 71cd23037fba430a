"""Encoder throughput: features and encoding in hours of recording a second, training in windows and tokens a second."""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from brainmu.core import Recording
from brainmu.models import Encoder
from brainmu.train.objectives import MaskConfig, draw_masks
from brainmu.train.tasks import WindowTask
from brainmu.windows import WindowGrid


def session(hours: float = 2.0, channels: int = 4, units: int = 40, rate: float = 1250.0) -> Recording:
    rng = np.random.default_rng(0)
    n = round(hours * 3600 * rate)
    spikes = round(hours * 3600 * units * 2)
    return Recording.from_arrays(
        "bench", "bench", signals={"lfp": dict(values=rng.standard_normal((n, channels), dtype=np.float32), rate=rate, unit="uV", kind="lfp")},
        spikes=dict(times=np.sort(rng.uniform(0, hours * 3600, spikes)), unit=rng.integers(0, units, spikes)),
    )  # fmt: skip


def run(hours: float = 2.0) -> dict[str, float]:
    """Figures by name; wall and CPU seconds both, since machines are shared."""
    recording, encoder = session(hours), Encoder().eval()
    out: dict[str, float] = {}
    for name, work in (("features", lambda: WindowGrid(recording).batch(slice(None))), ("encode", lambda: encoder.taps(WindowGrid(recording)))):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        out[f"{name}_s"], out[f"{name}_cpu_s"] = time.perf_counter() - wall, time.process_time() - cpu
    out["encode_hours_per_s"] = hours / out["encode_s"]
    grid = WindowGrid(recording)
    batch = grid.batch(np.arange(64))
    task = WindowTask(encoder, MaskConfig(), ["bench"], 10, 1e-3, 0.05, 0)
    hidden = draw_masks(batch, MaskConfig(), np.random.default_rng(0))
    for i in range(6):
        if i == 1:
            wall, cpu = time.perf_counter(), time.process_time()
        sum(task.parts(batch, hidden).values()).backward()
    out["train_windows_per_s"] = 5 * 64 / (time.perf_counter() - wall)
    out["train_windows_per_cpu_s"] = 5 * 64 / (time.process_time() - cpu)
    out["train_tokens_per_s"] = out["train_windows_per_s"] * batch.n_tokens / 64
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="half an hour instead of two hours")
    length = 0.5 if parser.parse_args().quick else 2.0
    print(f"{torch.get_num_threads()} threads, tiny encoder, {length:g} h of 4 x 1,250 Hz and 40 units")
    for name, value in run(length).items():
        print(f"{name:24s} {value:10.2f}")
