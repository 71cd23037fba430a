"""Filter + resample against scipy and MNE, resampling alone, and the whole way from a file of int16 to a store: speed and peak memory.

16 channels, in the same number of threads for all; for one thread, seconds are the processor's. (scipy's work is divided by channels, MNE's by
its n_jobs.) The filter is a band-pass from 1 Hz to 0.4 of the new rate. brainmu: Resampler and the FIR of a store (80 dB); scipy: resample_poly
with its default filter (20 output samples long, 50 dB) and sosfiltfilt of a Butterworth of order 4, or the same with a filter of brainmu's length
(50 output samples, 80 dB) and its FIR by oaconvolve; MNE: Raw.filter and Raw.resample, in both orders. The store holds float32 at 1,250 Hz with
checksums and quality.

    python benchmarks/bench_resample.py [--quick] [--threads 1 2] [--hours 0.1 0.3 1] [--json]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import tempfile
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
import threadpoolctl

from brainmu.dsp.conditioning import Band, filtered
from brainmu.dsp.resample import Resampler, resample

CHANNELS = 16


def best(work: Callable[[], Any], repeats: int, clock: Callable[[], float]) -> float:
    """Seconds of the quickest of `repeats` runs."""
    times = []
    for _ in range(repeats):
        t = clock()
        work()
        times.append(clock() - t)
    return min(times)


def compare(source: float, target: float, seconds: float, repeats: int, threads: int) -> dict[str, float]:
    """Hours of signal a second, by each of the peers: filter and resample, and resampling alone."""
    import mne

    rng = np.random.default_rng(0)
    x = (rng.standard_normal((int(seconds * source), CHANNELS)) * 100).astype(np.float32)
    columns = np.ascontiguousarray(x.T)  # the layout that suits scipy best
    r = Resampler(source, target)
    long = scipy.signal.firwin(2 * r.reach * r.up + 1, 0.9 / max(r.up, r.down), window=("kaiser", 7.857)).astype(np.float32)
    integers = x.astype(np.int16)
    low, high = 1.0, 0.4 * target
    band = Band(r.rate, low, high)
    sos = scipy.signal.butter(4, [low, high], "bandpass", fs=target, output="sos")
    fir = scipy.signal.firwin(2 * band.reach + 1, [low / 2, 1.125 * high], pass_zero=False, window=("kaiser", 7.857), fs=target)[None]
    raw = mne.io.RawArray(columns.astype(np.float64) * 1e-6, mne.create_info(CHANNELS, source, "eeg", verbose=False), verbose=False)
    pool = ThreadPoolExecutor(threads)

    def shared(work: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        return np.concatenate(list(pool.map(work, np.array_split(columns, threads))))

    def short(c: np.ndarray) -> np.ndarray:
        return scipy.signal.sosfiltfilt(sos, scipy.signal.resample_poly(c, r.up, r.down, axis=1), axis=1)

    def alike(c: np.ndarray) -> np.ndarray:
        return scipy.signal.oaconvolve(scipy.signal.resample_poly(c, r.up, r.down, axis=1, window=long), fir, mode="same", axes=1)

    work = {
        "brainmu": lambda: filtered(resample(x, source, target, threads=threads)[0], band, threads=threads),
        "brainmu int16": lambda: filtered(resample(integers, source, target, threads=threads)[0], band, threads=threads),
        "scipy": lambda: shared(short),
        "scipy, 80 dB": lambda: shared(alike),
        "MNE filter, resample": lambda: raw.copy().filter(low, high, n_jobs=threads, verbose=False).resample(target, n_jobs=threads, verbose=False),
        "MNE resample, filter": lambda: raw.copy().resample(target, n_jobs=threads, verbose=False).filter(low, high, n_jobs=threads, verbose=False),
        "resampling alone": lambda: resample(x, source, target, threads=threads),
        "scipy resampling": lambda: shared(lambda c: scipy.signal.resample_poly(c, r.up, r.down, axis=1)),
        "MNE resampling": lambda: raw.copy().resample(target, n_jobs=threads, verbose=False),
    }
    # In one thread the processor's time is counted, so that neighbours on the machine are not.
    clock = time.process_time if threads == 1 else time.perf_counter
    with warnings.catch_warnings(), pool, threadpoolctl.threadpool_limits(threads):
        warnings.simplefilter("ignore")
        return {name: seconds / 3600 / best(f, repeats, clock) for name, f in work.items()}


def ingest(path: str, hours: float, rate: float, done: Any) -> None:
    """Preprocess a file in this process of its own; put the seconds and the peak memory (MB) into `done`."""
    from brainmu.core import Recording
    from brainmu.store import preprocess

    x = np.memmap(path, np.int16, "r").reshape(-1, CHANNELS)[: int(hours * 3600 * rate)]
    rec = Recording.from_arrays(
        "bench", signals={"lfp": {"values": FileRows(path, x.shape), "rate": rate, "unit": "uV", "kind": "lfp", "scale": 0.195}}, source={"files": []}
    )
    t = time.perf_counter()
    preprocess(rec, f"{path}.{hours}.zarr")
    done.put((time.perf_counter() - t, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


class FileRows:
    """Rows of a file, read and not mapped, so that the page cache does not count as this process's memory."""

    dtype = np.dtype(np.int16)

    def __init__(self, path: str, shape: tuple[int, int]) -> None:
        self.path, self.shape = path, shape

    def __getitem__(self, key: slice) -> np.ndarray:
        n = max(0, key.stop - key.start)
        return np.fromfile(self.path, np.int16, n * CHANNELS, offset=key.start * CHANNELS * 2).reshape(n, CHANNELS)


def ingest_rows(hours: list[float], rate: float) -> list[dict[str, float]]:
    folder = Path(tempfile.mkdtemp(prefix="brainmu-bench-"))
    rows = []
    try:
        path = folder / "raw.dat"
        rng = np.random.default_rng(0)
        block = (rng.standard_normal((int(60 * rate), CHANNELS)) * 300).astype(np.int16)
        with open(path, "wb") as f:
            for _ in range(int(np.ceil(max(hours) * 60))):
                block.tofile(f)
        context = multiprocessing.get_context("spawn")
        for h in hours:
            done = context.Queue()
            child = context.Process(target=ingest, args=(str(path), h, rate, done))
            child.start()
            seconds, peak = done.get()
            child.join()
            size = h * 3600 * rate * CHANNELS * 2
            rows.append({"hours": h, "source_gb": size / 1e9, "seconds": seconds, "gb_per_s": size / 1e9 / seconds, "peak_mb": peak})
            shutil.rmtree(f"{path}.{h}.zarr")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--hours", type=float, nargs="+")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rates = (
        [(30000.0, 1250.0), (1250.0, 500.0)] if args.quick else [(30000.0, 1250.0), (24414.0625, 1250.0), (20000.0, 1250.0), (1250.0, 500.0), (512.0, 250.0)]
    )
    # First: a child starts with the peak memory of its parent.
    rows = ingest_rows(args.hours or ([0.05, 0.15] if args.quick else [0.1, 0.3, 1.0]), 20000.0)
    length = 4e6
    repeats = 2 if args.quick else 3
    table = {f"{a:g} -> {b:g} Hz, {t} threads": compare(a, b, length / CHANNELS / a * 8, repeats, t) for a, b in rates for t in args.threads}
    if args.json:
        print(json.dumps({"hours_per_second": table, "ingest": rows}))
        return
    print(f"filter + resample {CHANNELS} channels: hours of signal a second, and brainmu's (float32) lead")
    for name, result in table.items():
        print(name)
        for k, v in result.items():
            ours = result["resampling alone" if "resampling" in k else "brainmu"]
            print(f"  {k:<22}{v:>8.3g}{ours / v:>8.1f}x")
    print("file of int16 at 20 kHz -> store at 1,250 Hz")
    for r in rows:
        print(f"{r['hours']:>6g} h {r['source_gb']:>7.2f} GB {r['seconds']:>7.1f} s {r['gb_per_s']:>6.2f} GB/s   peak memory {r['peak_mb']:.0f} MB")


if __name__ == "__main__":
    main()
