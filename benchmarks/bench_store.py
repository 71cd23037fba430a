"""Random windows of every modality as float32, from a brainmu store and from its peers, on the same data in one run.

16 LFP channels at 1,250 Hz, 100 units, pose of 8 columns at 60 Hz. Peers: h5py and np.memmap, always; torch_brain (PyPI torch-brain) if installed.
"Cold" is the first pass over windows after the files were dropped from the page cache, where the system allows it.

    python benchmarks/bench_store.py [--quick] [--hours 2] [--json]
"""

from __future__ import annotations

import argparse
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


def store_reader(path: Path) -> Read:
    return open_store(path).window


def memmap_reader(folder: Path, rec: Recording) -> Read:
    files = {}
    for name, s in rec.signals.items():
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
        from temporaldata import Data, Interval, IrregularTimeSeries, RegularTimeSeries
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--hours", type=float)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    hours = args.hours or (0.5 if args.quick else 2.0)
    seconds = 1.0 if args.quick else 4.0
    folder = Path(tempfile.mkdtemp(prefix="brainmu-bench-"))
    rows = []
    try:
        rec = make(hours)
        readers: dict[str, tuple[Path, Callable[[], Read | None]]] = {}
        sizes = {}
        for name, options in {
            "brainmu": {}, "brainmu lz4": {"config": "preprocess/compact"},
        }.items():  # fmt: skip
            path = folder / f"{name.replace(' ', '-')}.zarr"
            preprocess(rec, path, **options)
            sizes[name] = sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
            readers[name] = (path, lambda path=path: store_reader(path))
        (folder / "memmap").mkdir()
        readers["np.memmap"] = (folder / "memmap", lambda: memmap_reader(folder / "memmap", rec))
        readers["h5py"] = (folder / "a.h5", lambda: h5py_reader(folder / "a.h5", rec))
        readers["torch_brain"] = (folder / "tb.h5", lambda: torch_brain_reader(folder / "tb.h5", rec))
        for length in (1.0, 30.0):
            starts = np.random.default_rng(1).uniform(0, hours * 3600 - length - 1, 200_000)
            for name, (path, get) in readers.items():
                read = get()
                if read is None:
                    rows.append({"reader": name, "length": length, "cold": None, "warm": None})
                    continue
                drop_cache(path)
                cold = per_second(read, starts, length, seconds / 2)
                for a in np.arange(0, hours * 3600 - 31, 30):
                    read(a, a + 30.0)
                rows.append({"reader": name, "length": length, "cold": cold, "warm": per_second(read, starts[::-1], length, seconds)})
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if args.json:
        print(json.dumps({"hours": hours, "store_bytes": sizes, "windows_per_second": rows}))
        return
    print(f"{hours:g} h of {CHANNELS} x {RATE:g} Hz, {UNITS} units, pose; windows a second")
    for length in (1.0, 30.0):
        mine = next(r for r in rows if r["reader"] == "brainmu" and r["length"] == length)
        print(f"{'window ' + format(length, 'g') + ' s':<16}{'cold':>10}{'warm':>10}{'brainmu is (cold, warm)':>28}")
        for r in (r for r in rows if r["length"] == length):
            if r["warm"] is None:
                print(f"{r['reader']:<16}{'not installed':>20}")
                continue
            print(f"{r['reader']:<16}{r['cold']:>10.0f}{r['warm']:>10.0f}{mine['cold'] / r['cold']:>20.1f}x{mine['warm'] / r['warm']:>6.1f}x")
    print(f"lz4 makes this store {1 - sizes['brainmu lz4'] / sizes['brainmu']:.0%} smaller")


if __name__ == "__main__":
    main()
