"""How fast recordings become stores, and in how much memory: the same at 2, 8 and 24 h.

A source file of 16 channels, int16, is written (up to 7 GB, beside a store of up to 7 GB), dropped from the page cache, and preprocessed by a process of its
own with its defaults. "GB/s" is bytes of the source over wall time, checksums of the source included; memory is the sum over all processes of the most
each held. Two kinds of source: LFP at 2.5 kHz, brought to 1,250 Hz, and wideband at 30 kHz, brought to 1,250 Hz (2 h at most).

    python benchmarks/bench_ingest.py [--quick] [--hours 2 8 24] [--jobs 1 2] [--folder /scratch] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

CHANNELS = 16
SOURCES = {"LFP 2.5 kHz": 2500.0, "wideband 30 kHz": 30000.0}
LIMIT_GB = 1.5

CHILD = """
import sys
from pathlib import Path
from brainmu.core import Recording
from brainmu.formats.lazy import RawRows
from brainmu.store import preprocess
source, out, rate, jobs = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
rows = RawRows(Path(source), "int16", (Path(source).stat().st_size // 32, 16))
lfp = dict(values=rows, rate=rate, unit="uV", kind="lfp", scale=0.195)
preprocess(Recording.from_arrays("bench", signals={"lfp": lfp}, source={"files": [source]}), out, jobs=jobs)
"""


def write_source(path: Path, rate: float, hours: float) -> int:
    """A random walk that leaks, 64 MB of it over and over; its size in bytes."""
    rng = np.random.default_rng(0)
    n = 1 << 21
    x = rng.standard_normal((n, CHANNELS), dtype=np.float32)
    for a in range(0, n, 1 << 12):  # 1/f-like in pieces: the spectrum matters little here, the values' variety does
        np.cumsum(x[a : a + (1 << 12)], axis=0, out=x[a : a + (1 << 12)])
    block = np.clip(x * 40, -32000, 32000).astype(np.int16)
    left = int(hours * 3600 * rate)
    with path.open("wb") as f:
        while left:
            f.write(block[:left].data)
            left -= min(left, n)
        f.flush()
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path.stat().st_size


def watch(pid: int, peaks: dict[int, int], stop: threading.Event) -> None:
    """The most that each process of the tree has held, bytes."""
    while not stop.wait(0.05):
        try:
            root = psutil.Process(pid)
            for p in [root, *root.children(recursive=True)]:
                for line in Path(f"/proc/{p.pid}/status").read_text().splitlines():
                    if line.startswith("VmHWM:"):
                        peaks[p.pid] = max(peaks.get(p.pid, 0), int(line.split()[1]) << 10)
        except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            continue


def ingest(source: Path, out: Path, rate: float, jobs: int) -> tuple[float, int]:
    """Wall time, s, and peak memory of all processes, bytes."""
    peaks: dict[int, int] = {}
    stop = threading.Event()
    t = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(source), str(out), str(rate), str(jobs)])
    thread = threading.Thread(target=watch, args=(child.pid, peaks, stop))
    thread.start()
    code = child.wait()
    passed = time.perf_counter() - t
    stop.set()
    thread.join()
    if code:
        raise SystemExit(f"preprocess ended with exit code {code}")
    return passed, sum(peaks.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="0.5 and 2 h")
    parser.add_argument("--hours", type=float, nargs="+")
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--folder", type=Path, help="where to write, instead of the folder for temporary files")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    hours = args.hours or ([0.5, 2.0] if args.quick else [2.0, 8.0, 24.0])
    folder = Path(tempfile.mkdtemp(prefix="brainmu-bench-", dir=args.folder))
    rows: list[dict[str, Any]] = []
    if not args.json:
        print(f"{CHANNELS} channels, int16, brought to 1,250 Hz; from a cold cache")
        print(f"{'source':<18}{'hours':>7}{'processes':>11}{'GB':>8}{'s':>8}{'GB/s':>8}{'h/s':>8}{'peak memory, GB':>18}", flush=True)
    try:
        for name, rate in SOURCES.items():
            for h in hours if rate < 10000 else [min(0.5 if args.quick else 2.0, hours[0])]:
                source = folder / "source.bin"
                size = write_source(source, rate, h)
                for jobs in args.jobs:
                    with source.open("rb") as f:
                        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
                    passed, peak = ingest(source, folder / "out.zarr", rate, jobs)
                    shutil.rmtree(folder / "out.zarr")
                    rows.append({"source": name, "hours": h, "jobs": jobs, "bytes": size, "seconds": passed, "peak_bytes": peak})
                    if not args.json:
                        each = f"{size / 1e9:>8.2f}{passed:>8.1f}{size / 1e9 / passed:>8.3f}{h / passed:>8.2f}{peak / 1e9:>18.2f}"
                        print(f"{name:<18}{h:>7g}{jobs:>11}{each}", flush=True)
                source.unlink()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if args.json:
        print(json.dumps({"channels": CHANNELS, "runs": rows, "limit_gb": LIMIT_GB}))
        return
    worst = max(r["peak_bytes"] for r in rows) / 1e9
    print(f"most memory: {worst:.2f} GB, {'within' if worst <= LIMIT_GB else 'ABOVE'} the limit of {LIMIT_GB} GB")


if __name__ == "__main__":
    main()
