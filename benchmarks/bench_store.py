"""Random windows of every modality as float32, from a brainmu store and from its peers, on the same data in one run.

16 LFP channels at 1,250 Hz, 100 units, pose of 8 columns at 60 Hz. Peers: h5py and np.memmap, always; torch_brain (PyPI torch-brain) if installed.
"Cold" is the first pass over windows after the files were dropped from the page cache, where the system allows it.

    python benchmarks/bench_store.py [--quick] [--hours 2] [--json]
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from brainmu.core import Recording
from brainmu.store import open as open_store
from brainmu.store import preprocess
from brainmu.store.arrays import MappedArray

RATE, CHANNELS, UNITS, POSE_RATE, POSE = 1250.0, 16, 100, 60.0, 8
Read = Callable[[float, float], Any]


def make(hours: float) -> Recording:
    rng = np.random.default_rng(0)
    n, m = int(hours * 3600 * RATE), int(hours * 3600 * POSE_RATE)
    spikes = int(hours * 3600 * UNITS * 5)
    lfp = np.cumsum(rng.standard_normal((n, CHANNELS), dtype=np.float32), axis=0)
    return Recording.from_arrays(
        "bench",
        signals={
            "lfp": {"values": lfp - lfp.mean(0), "rate": RATE, "unit": "uV", "kind": "lfp"},
            "pose": {"values": rng.random((m, POSE), dtype=np.float32), "rate": POSE_RATE, "unit": "m", "kind": "position"},
        },
        spikes={"times": np.sort(rng.random(spikes)) * hours * 3600, "unit": rng.integers(0, UNITS, spikes)},
    )


def drop_cache(folder: Path) -> None:
    MappedArray._open_maps.clear()  # what is mapped is not dropped
    gc.collect()
    for path in folder.rglob("*") if folder.is_dir() else [folder]:
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(handle)


def per_second(read: Read, starts: np.ndarray, length: float, seconds: float) -> float:
    """Windows read a second."""
    t, k = time.perf_counter(), 0
    while (passed := time.perf_counter() - t) < seconds and k < len(starts):
        read(starts[k], starts[k] + length)
        k += 1
    return k / passed


def store_reader(path: Path, **options: Any) -> Read:
    return open_store(path, **options).window


def memmap_reader(folder: Path, rec: Recording) -> Read:
    files = {}
    for name, s in rec.signals.items():
        if not (folder / f"{name}.npy").exists():
            np.save(folder / f"{name}.npy", s.values)
        files[name] = np.load(folder / f"{name}.npy", mmap_mode="r")
    times, units = rec.spikes.times, rec.spikes.unit_id

    def read(a: float, b: float) -> Any:
        i, j = np.searchsorted(times, [a, b])
        return [np.array(files[k][int(a * r) : int(b * r)], dtype=np.float32) for k, r in (("lfp", RATE), ("pose", POSE_RATE))], times[i:j], units[i:j]

    return read


def h5py_reader(path: Path, rec: Recording) -> Read:
    with h5py.File(path, "w") as f:
        for name, s in rec.signals.items():
            f.create_dataset(name, data=s.values, chunks=(4096, s.n_channels))
        f["times"], f["units"] = rec.spikes.times, rec.spikes.unit_id
    f = h5py.File(path, "r")
    times, units = f["times"][:], f["units"][:]

    def read(a: float, b: float) -> Any:
        i, j = np.searchsorted(times, [a, b])
        return [f[k][int(a * r) : int(b * r)] for k, r in (("lfp", RATE), ("pose", POSE_RATE))], times[i:j], units[i:j]

    return read


def torch_brain_reader(path: Path, rec: Recording) -> Read | None:
    try:
        from torch_brain.data import Data, Interval, IrregularTimeSeries, RegularTimeSeries
    except ImportError:
        return None
    whole = Interval(0.0, rec.duration)
    data = Data(
        lfp=RegularTimeSeries(sampling_rate=RATE, domain_start=0.0, value=rec.signals["lfp"].values),
        pose=RegularTimeSeries(sampling_rate=POSE_RATE, domain_start=0.0, value=rec.signals["pose"].values),
        spikes=IrregularTimeSeries(timestamps=rec.spikes.times, unit_index=rec.spikes.unit_id, domain=whole),
        domain=whole,
    )
    with h5py.File(path, "w") as f:
        data.to_hdf5(f)
    opened = Data.from_hdf5(h5py.File(path, "r"), lazy=True)

    def read(a: float, b: float) -> Any:
        w = opened.slice(a, b)
        return w.lfp.value, w.pose.value, w.spikes.timestamps, w.spikes.unit_index

    return read


def windows(readers: dict[str, tuple[Path, Callable[[], Read | None]]], hours: float, seconds: float, rounds: int) -> list[dict[str, Any]]:
    """Windows a second of each reader, cold and warm; the readers take turns, and the median of the rounds counts."""
    rows = []
    for length in (1.0, 30.0):
        starts = np.random.default_rng(1).uniform(0, hours * 3600 - length - 1, 200_000)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
        for k in range(rounds):
            for name, (path, get) in readers.items():
                read = None
                drop_cache(path)
                read = get()
                if read is None:
                    continue
                cold = per_second(read, starts[k * 20_000 :], length, seconds / 2)
                for a in np.arange(0, hours * 3600 - 31, 30):
                    read(a, a + 30.0)
                found[name].append((cold, per_second(read, starts[::-1][k * 20_000 :], length, seconds)))
        for name, pairs in found.items():
            cold, warm = np.median(pairs, axis=0).tolist() if pairs else (None, None)
            rows.append({"reader": name, "length": length, "cold": cold, "warm": warm})
    return rows


def plainly(path: Path) -> None:
    """What cat does: every byte of every file through one small buffer."""
    buffer = bytearray(1 << 20)
    for file in sorted(p for p in path.rglob("c/**/*") if p.is_file()):
        with open(file, "rb", buffering=0) as f:
            while f.readinto(buffer):
                pass


def sequential(stores: dict[str, tuple[Path, dict[str, Any]]], rounds: int) -> list[dict[str, Any]]:
    """GB/s (of samples as they are stored) of reading the whole LFP as float32, beside reading the same files without looking at them."""
    rows = []
    for name, (path, options) in stores.items():
        speeds: dict[str, list[float]] = {}
        size = sum(p.stat().st_size for p in (path / "signals/lfp/values").rglob("*"))
        for _ in range(rounds):
            for how, read in (("plain", lambda p=path: plainly(p / "signals/lfp/values")), ("brainmu", lambda p=path, o=options: everything(p, o))):
                drop_cache(path)
                for state in ("cold", "warm"):
                    t = time.perf_counter()
                    read()
                    speeds.setdefault(f"{how} {state}", []).append(size / (time.perf_counter() - t) / 1e9)
        rows.append({"reader": name, **{k: float(np.median(v)) for k, v in speeds.items()}})
    return rows


def everything(path: Path, options: dict[str, Any]) -> None:
    """The whole LFP as float32, a minute at a time, as one reads what does not fit into memory."""
    s = open_store(path, **options).signals["lfp"]
    step = int(60 * RATE)
    for i in range(0, s.n_samples, step):
        s.read(i, min(i + step, s.n_samples))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--hours", type=float)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    hours = args.hours or (0.5 if args.quick else 2.0)
    seconds, rounds = (0.5, 1) if args.quick else (2.0, 3)
    folder = Path(tempfile.mkdtemp(prefix="brainmu-bench-"))
    try:
        rec = make(hours)
        readers: dict[str, tuple[Path, Callable[[], Read | None]]] = {}
        sizes, stores = {}, {}
        for name, options in {"brainmu": {}, "brainmu lz4": {"config": "preprocess/compact"}}.items():
            path = folder / f"{name.replace(' ', '-')}.zarr"
            preprocess(rec, path, **options)
            sizes[name] = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
            stores[name] = (path, {"cache_mib": 256})
            readers[name] = (path, lambda path=path: store_reader(path, cache_mib=512))
        checked = folder / "brainmu.zarr"
        readers["brainmu checked"] = (checked, lambda: store_reader(checked, check=True))
        stores["brainmu checked"] = (checked, {"check": True})
        (folder / "memmap").mkdir()
        readers["np.memmap"] = (folder / "memmap", lambda: memmap_reader(folder / "memmap", rec))
        readers["h5py"] = (folder / "a.h5", functools.cache(lambda: h5py_reader(folder / "a.h5", rec)))
        readers["torch_brain"] = (folder / "tb.h5", functools.cache(lambda: torch_brain_reader(folder / "tb.h5", rec)))
        for _, get in readers.values():
            get()
        rows, runs = windows(readers, hours, seconds, rounds), sequential(stores, rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if args.json:
        print(json.dumps({"hours": hours, "store_bytes": sizes, "windows_per_second": rows, "sequential_gb_per_second": runs}))
        return
    show(rows, runs, sizes, hours)


def show(rows: list[dict[str, Any]], runs: list[dict[str, Any]], sizes: dict[str, int], hours: float) -> None:
    print(f"{hours:g} h of {CHANNELS} x {RATE:g} Hz, {UNITS} units, pose; windows a second; lz4 with 512 MiB of cache")
    for length in (1.0, 30.0):
        mine = next(r for r in rows if r["reader"] == "brainmu" and r["length"] == length)
        packed = next(r for r in rows if r["reader"] == "brainmu lz4" and r["length"] == length)
        print(f"{'window ' + format(length, 'g') + ' s':<16}{'cold':>10}{'warm':>10}{'brainmu is (cold, warm)':>28}{'brainmu lz4 is':>24}")
        for r in (r for r in rows if r["length"] == length):
            if r["warm"] is None:
                print(f"{r['reader']:<16}{'not installed':>20}")
                continue
            ratios = [m[state] / r[state] for m in (mine, packed) for state in ("cold", "warm")]
            print(f"{r['reader']:<16}{r['cold']:>10.0f}{r['warm']:>10.0f}{ratios[0]:>20.1f}x{ratios[1]:>6.1f}x{ratios[2]:>16.1f}x{ratios[3]:>6.1f}x")
    print(f"{'all of the LFP, GB/s':<22}{'cold':>8}{'warm':>8}{'of plain reading (cold, warm)':>34}")
    for r in runs:
        shares = [r[f"brainmu {state}"] / r[f"plain {state}"] for state in ("cold", "warm")]
        print(f"{r['reader']:<22}{r['brainmu cold']:>8.2f}{r['brainmu warm']:>8.2f}{shares[0]:>26.2f}x{shares[1]:>6.2f}x")
    print(f"lz4 makes this store {1 - sizes['brainmu lz4'] / sizes['brainmu']:.0%} smaller")


if __name__ == "__main__":
    main()
