"""Running position on a Trodes + MatClust session: brainmu's decoders beside pynapple's, same units, epochs, folds and bins; head direction.

Run: python benchmarks/bench_decode.py [FOLDER]   (default: the linear-track session in BRAINMU_DATA or ../shared/data)
     python benchmarks/bench_decode.py --heading  (planted head-direction cells of synthetic recordings)
The peer is used if it is installed (pip install "brainmu[interop]"); otherwise its row says so.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

import brainmu as bm
import brainmu.replay
from brainmu.core import Intervals
from brainmu.replay.decode import cross_validated_error, units_and_position
from brainmu.replay.position import Position, moving, speed_threshold


def data_folder() -> Path:
    root = os.environ.get("BRAINMU_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(root) / "rat-linear-track"


def pynapple_error(spikes: bm.Spikes, position: Position, ran: Intervals, bin_size: float = 0.25, folds: int = 5) -> dict[str, float]:
    """pynapple.decode_bayes with 30 x 30 bins smoothed by one bin, five contiguous folds of the position record."""
    import pynapple as nap

    track = nap.TsdFrame(t=position.times, d=position.values, columns=["x", "y"])
    units = nap.TsGroup({int(u): nap.Ts(spikes.of(int(u))) for u in spikes.units["id"]})
    edges = np.linspace(position.times[0], position.times[-1], folds + 1)
    error = []
    for a, b in pairwise(edges):
        test, train = (nap.IntervalSet(s.start, s.stop) for s in (ran.intersect(Intervals([[a, b]])), ran.subtract(Intervals([[a, b]]))))
        if test.tot_length() < 5:
            continue
        curves = nap.compute_tuning_curves(units, track, bins=[30, 30], epochs=train).fillna(0.0)
        curves.data[:] = np.stack([gaussian_filter(v, 1) for v in curves.data])
        decoded, _ = nap.decode_bayes(curves, units, epochs=test, bin_size=bin_size)
        decoded = decoded.dropna()
        error.append(np.linalg.norm(decoded.d - position.at(decoded.t), axis=1))
    error = np.concatenate(error)
    return {"median": round(float(np.median(error)), 1), "mean": round(float(error.mean()), 1), "n_bins": len(error)}


def heading_errors(seeds: int = 3) -> None:
    """Planted head-direction cells, by number and bin."""
    for cells in (8, 16, 32):
        sessions = [bm.synth.recording(hours=0.2, seed=s, n_cells=2, n_head=cells, n_channels=1, n_cortex=0, run_minutes=8)[0] for s in range(seeds)]
        for bin_size in (0.05, 0.25):
            found = [bm.replay.cross_validated_angular_error(r, bin_size=bin_size) for r in sessions]
            median = {k: np.mean([f[k] for f in found]).round(1) for k in ("state_space", "memoryless", "chance")}
            print(f"{cells:3d} cells, {bin_size * 1000:3.0f} ms: {median} degrees, mean of {seeds} sessions")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--heading", action="store_true")
    parser.add_argument("folder", nargs="?", type=Path, default=data_folder())
    args = parser.parse_args()
    if args.heading:
        heading_errors()
        return
    recording = bm.read(args.folder)
    spikes, position = units_and_position(recording)
    begin = time.perf_counter()
    ours = cross_validated_error(recording)
    seconds = time.perf_counter() - begin
    print(json.dumps({"units": ours["n_units"], "bins": ours["n_bins"], "unit": ours["unit"], "chance": round(ours["chance"], 1)}))
    print(f"brainmu state space   median {ours['state_space']:.1f} {ours['unit']}")
    print(f"brainmu memoryless    median {ours['memoryless']:.1f} {ours['unit']}   (both in {seconds:.1f} s)")
    try:
        begin = time.perf_counter()
        peer = pynapple_error(spikes, position, moving(position, speed_threshold(position)))
        print(f"pynapple Bayes        median {peer['median']} {ours['unit']} on {peer['n_bins']} bins   ({time.perf_counter() - begin:.1f} s)")
    except ImportError:
        print('pynapple is not installed: pip install "brainmu[interop]" to see its row (60.6 px was measured with 0.11)')


if __name__ == "__main__":
    main()
