"""Staging: hours of recording a second beside YASA and USleep, and memory against the length of the recording.

Run: python benchmarks/bench_staging_speed.py [--quick] [--only speed memory]
Peers are used where they are installed (pip install yasa braindecode), otherwise their rows say so. USleep (braindecode) has random weights and is given
windows at its own rate: its row is the network alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from bench_encoder import peak

import brainmu as bm
from brainmu.core import Hypnogram, Recording
from brainmu.sleep import SleepStager

PRETRAINED = "brainmu-tiny-rodent3"
RODENT = {"rate": 200.0, "second": "emg", "stages": "rodent3", "epoch": 4.0}
HUMAN = {"rate": 100.0, "second": "eog", "stages": "aasm5", "epoch": 30.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="shorter recordings")
    parser.add_argument("--only", nargs="+", choices=["speed", "memory"], default=["speed", "memory"])
    parser.add_argument("--job", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job:
        print(json.dumps(staged(*args.job)))
        return
    with tempfile.TemporaryDirectory() as folder:
        models = fitted(Path(folder))
        for part in args.only:
            {"speed": speed, "memory": memory}[part](models, Path(folder), args.quick)


def fitted(folder: Path) -> dict[str, tuple[str, dict]]:
    """Name of what is timed -> (what `stager` takes, what its recordings are like). Fitted on little: it is the time that counts."""
    mice, people = ([night(1.0, seed=seed, **kind) for seed in range(3)] for kind in (RODENT, HUMAN))
    out = {"rules, 4 s, 200 Hz": ("rules", RODENT), f"{PRETRAINED}, 4 s, 200 Hz": (PRETRAINED, RODENT)}
    for method in ("boosting", "combined"):
        for name, train, kind in (("4 s, 200 Hz", mice, RODENT), ("30 s, 100 Hz", people, HUMAN)):
            model = SleepStager(stages=kind["stages"], method=method).fit(train)
            out[f"{method}, {name}"] = (str(model.save(folder / f"{method}_{kind['stages']}")), kind)
    model = SleepStager(encoder="brainmu-tiny", mode="probe", config={"steps": 5}).fit(people)
    size = sum(p.numel() for p in model.model_.parameters()) / 1e6
    out[f"encoder of {size:.1f} M, 30 s, 100 Hz"] = (str(model.save(folder / "encoder")), HUMAN)
    return out


def stager(model: str) -> SleepStager:
    return SleepStager(stages="rodent3", method="rules") if model == "rules" else SleepStager.load(model)


def night(hours: float, rate: float, second: str, stages: str, epoch: float, seed: int = 0) -> Recording:
    """Noise whose slow power and second channel follow a random hypnogram."""
    rng = np.random.default_rng(seed)
    n = int(hours * 3600 / epoch)
    codes = np.repeat(rng.integers(0, 3 if stages == "rodent3" else 5, n // 10 + 1), 10)[:n]
    gain = np.repeat(1.0 + codes, int(epoch * rate))
    x = rng.standard_normal((len(gain), 2))
    x[:, 0] += 3 * gain * np.sin(2 * np.pi * 2 * np.arange(len(gain)) / rate)
    x[:, 1] *= gain
    signals = {k: {"values": x[:, i : i + 1], "rate": rate, "unit": "uV", "kind": k} for i, k in enumerate(("eeg", second))}
    return Recording.from_arrays(f"night_{second}_{seed}", f"s{seed}", signals=signals, labels={"scoring": Hypnogram(codes, stages, epoch)})


# -- speed ----------------------------------------------------------------------------------------------------------
def speed(models: dict[str, tuple[str, dict]], folder: Path, quick: bool) -> None:
    """Median of three calls after a first, features to hypnogram."""
    hours = 2.0 if quick else 8.0
    print(f"two channels, {hours:g} h in memory       warm s   h/s")
    recordings = {kind["stages"]: night(hours, **kind) for kind in (RODENT, HUMAN)}
    for name, (model, kind) in models.items():
        report(name, hours, partial(stager(model).predict, recordings[kind["stages"]]))
    for name, peer in (("yasa", yasa_calls), ("braindecode", usleep_calls)):
        if importlib.util.find_spec(name) is None:
            print(f"{name}: absent")
        else:
            report(*peer(recordings["aasm5"], hours))


def report(name: str, hours: float, work: Callable[[], object]) -> None:
    work()
    spent = []
    for _ in range(3):
        begin = time.perf_counter()
        work()
        spent.append(time.perf_counter() - begin)
    print(f"{name:<36} {np.median(spent):6.2f} {hours / np.median(spent):5.1f}", flush=True)


def yasa_calls(human: Recording, hours: float) -> tuple[str, float, Callable[[], object]]:
    import mne
    import yasa

    values = np.concatenate([s.read() for s in human.signals.values()], axis=1).T * 1e-6
    raw = mne.io.RawArray(values, mne.create_info(["C4", "EOG"], 100.0, ["eeg", "eog"], verbose=False), verbose=False)
    return "YASA, 30 s, 100 Hz", hours, lambda: yasa.SleepStaging(raw, eeg_name="C4", eog_name="EOG").predict()


def usleep_calls(human: Recording, hours: float) -> tuple[str, float, Callable[[], object]]:
    import torch
    from braindecode.models import USleep

    model = USleep(n_chans=2, sfreq=128, n_outputs=5, input_window_seconds=30).eval()
    size = sum(p.numel() for p in model.parameters()) / 1e6
    spans = torch.randn(int(hours * 120) // 32, 32, 2, 30 * 128)  # it was trained on spans of 35 windows

    def work() -> None:
        with torch.inference_mode():
            for span in spans:
                model(span[None])

    return f"USleep of {size:.1f} M, 30 s, 128 Hz", hours, work


# -- memory ---------------------------------------------------------------------------------------------------------
def memory(models: dict[str, tuple[str, dict]], folder: Path, quick: bool) -> None:
    """A process each, from a store: the peak of its own memory."""
    lengths = (1, 4) if quick else (2, 8, 24)
    print("\nfrom a store, a process each (first call)")
    print("| | " + " | ".join(f"{h} h: s, peak GB" for h in lengths) + " | last beside the first |")
    print("|---|" + "---|" * (len(lengths) + 1))
    stores = {}
    for kind in (RODENT, HUMAN):
        for h in lengths:
            stores[kind["stages"], h] = str(bm.preprocess(night(h, **kind), folder / f"{kind['stages']}_{h}.zarr").path)
    for name, (model, kind) in models.items():
        rows = [alone(model, stores[kind["stages"], h]) for h in lengths]
        print(f"| {name} | " + " | ".join(f"{r['seconds']:.1f}, {r['peak']:.2f}" for r in rows) + f" | x{rows[-1]['peak'] / rows[0]['peak']:.2f} |", flush=True)


def staged(model: str, store: str) -> dict[str, float]:
    """Seconds of a first call, and the peak of its own memory, GB."""
    begin = time.perf_counter()
    with own_memory() as own:
        stager(model).predict(bm.open(store))
    return {"seconds": time.perf_counter() - begin, "peak": own[0]}


@contextmanager
def own_memory() -> Iterator[list[float]]:
    """The peak, GB, of the memory that is the program's own: pages of a mapped store are the system's to take back. Known when the block ends."""
    own = [0.0]
    done = threading.Event()

    def watch() -> None:
        status = Path("/proc/self/status")
        while not done.wait(0.005):
            own[0] = max(own[0], next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("RssAnon")) * 1024 / 1e9)

    watcher = threading.Thread(target=watch)
    if sys.platform.startswith("linux"):
        watcher.start()
    try:
        yield own
    finally:
        done.set()
        own[0] = own[0] or peak()


def alone(model: str, store: str) -> dict[str, float]:
    done = subprocess.run([sys.executable, __file__, "--job", model, store], capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
