"""Running position on a Trodes + MatClust session: brainmu's decoders beside pynapple's, same units, epochs, folds and bins; head direction.

Run: python benchmarks/bench_decode.py [FOLDER]   (default: the linear-track session in BRAINMU_DATA or ../shared/data)
     python benchmarks/bench_decode.py --w-maze   (planted place cells on a W-maze: easy, few cells, slow, pauses, lost tracking, drifting rates)
     python benchmarks/bench_decode.py --heading  (planted head-direction cells of synthetic recordings)
The peer is used if it is installed (pip install "brainmu[interop]"); otherwise its row says so.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
import warnings
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


def pynapple_error(spikes: bm.Spikes, position: Position, ran: Intervals, bin_size: float = 0.25, folds: int = 5, prior: str = "uniform") -> dict[str, float]:
    """pynapple.decode_bayes with 30 x 30 bins smoothed by one bin, five contiguous folds of the position record; prior "uniform" or "occupancy"."""
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
        with np.errstate(divide="ignore"):  # its occupancy prior is 0 where the animal has not been
            decoded, _ = nap.decode_bayes(curves, units, epochs=test, bin_size=bin_size, uniform_prior=prior == "uniform")
        decoded = decoded.dropna()
        error.append(np.linalg.norm(decoded.d - position.at(decoded.t), axis=1))
    error = np.concatenate(error)
    return {"median": float(np.median(error)), "mean": float(error.mean()), "n_bins": len(error)}


def nonlocal_error(spikes: bm.Spikes, position: Position, ran: Intervals, bin_size: float = 0.25, folds: int = 5) -> dict[str, float]:
    """non_local_detector's state-space decoder on the same folds and bins of time: places of a thirtieth of the extent, fields smoothed by one, and a walk
    with the step of the training parts. The most probable place counts, and the mean of the posterior beside it.
    """
    from non_local_detector import SortedSpikesDecoder
    from non_local_detector.continuous_state_transitions import RandomWalk
    from non_local_detector.environment import Environment

    times, values = position.times, position.values
    size = float(np.ptp(values, axis=0).max()) / 30
    trains = [spikes.of(int(u)) for u in spikes.units["id"]]
    edges = np.linspace(times[0], times[-1], folds + 1)
    error = []
    for a, b in pairwise(edges):
        test = ran.intersect(Intervals([[a, b]]))
        if test.duration < 5:
            continue
        training = ran.contains(times) & ~((times >= a) & (times < b))
        step = position.at(times[training] + bin_size) - values[training]
        model = SortedSpikesDecoder(
            environments=Environment(place_bin_size=size), continuous_transition_types=[[RandomWalk(movement_var=float(np.nanmean(step**2)))]],
            sampling_frequency=1 / bin_size, sorted_spikes_algorithm_params={"position_std": size, "block_size": 10_000, "disable_progress_bar": True},
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.fit(times, values, trains, is_training=training)
            found = model.predict(trains, time=np.arange(a, b - bin_size, bin_size)).acausal_posterior
        at = found.time.values + bin_size / 2
        p = np.nan_to_num(found.values)[test.contains(at)]
        places = np.c_[found.x_position.values, found.y_position.values]
        true = position.at(at[test.contains(at)])
        error.append([np.linalg.norm(x - true, axis=1) for x in (places[p.argmax(1)], p @ places / p.sum(1, keepdims=True))])
    top, mean = (np.concatenate(e) for e in zip(*error))
    return {"median": float(np.median(top)), "median of means": float(np.median(mean)), "n_bins": len(top)}


W_MAZES = {
    "30 cells": {}, "10 cells": {"cells": 10}, "slow (6-12 cm/s)": {"speed": (0.06, 0.12)}, "pauses of 5-20 s": {"pause": (5.0, 20.0)},
    "tracking lost 60 times": {"lost": 60}, "rates drift e-fold": {"drift": 1.5},
}  # fmt: skip


def w_maze(
    seed: int, *, cells: int = 30, minutes: float = 10.0, speed: tuple[float, float] = (0.25, 0.4), pause: tuple[float, float] = (1.0, 3.0),
    lost: int = 0, drift: float = 0.0, frames: float = 30.0,
) -> bm.Recording:  # fmt: skip
    """Outbound and inbound runs on three arms of 1 m, 0.5 m apart; every cell has a field somewhere along them, weaker on some of the four ways.

    `lost`: stretches of up to 0.5 s in which the tracker is elsewhere. `drift`: SD of the log of each cell's change of rate over the session.
    """
    rng = np.random.default_rng(seed)
    arms, legs, ways, n, k, here = np.array([0.0, 0.5, 1.0]), [], [], 0, 0, 1
    while n < minutes * 60 * frames:
        there = 1 if here != 1 else (0, 2)[(k := k + 1) % 2]
        corners = np.array([[arms[here], 1], [arms[here], 0], [arms[there], 0], [arms[there], 1]])
        along = np.array([0, 1, 1.5, 2.5])
        s = np.linspace(0, 2.5, int(2.5 / rng.uniform(*speed) * frames))
        leg = np.stack([np.interp(s, along, corners[:, i]) for i in (0, 1)], axis=1)
        legs.append(np.r_[leg, np.repeat(leg[-1:], int(rng.uniform(*pause) * frames), axis=0)])
        ways.append(np.full(len(legs[-1]), 2 * (here == 1) + (2 in (here, there))))
        n, here = n + len(legs[-1]), there
    xy, way = np.concatenate(legs), np.concatenate(ways)
    t = np.arange(len(xy)) / frames
    moved = np.r_[0, np.linalg.norm(np.diff(xy, axis=0), axis=1) * frames]
    arm, depth = rng.integers(0, 3, cells), rng.uniform(-0.25, 1, cells)
    centre = np.c_[arms[arm] - np.minimum(depth, 0) * (1 - 2 * (arm == 2)), np.maximum(depth, 0)]  # below 0: on the way between the arms
    same = np.isclose(xy[:, :1], centre[:, 0])
    far = np.where(same, np.abs(xy[:, 1:] - centre[:, 1]), xy[:, 1:] + centre[:, 1] + np.abs(xy[:, :1] - centre[:, 0]))
    rate = 12 * rng.lognormal(0, 0.4, cells) * rng.choice([1.0, 0.3], (4, cells))[way] * np.exp(-0.5 * (far / rng.uniform(0.08, 0.16, cells)) ** 2)
    rate *= np.clip(moved / 0.2, 0.15, 1)[:, None] * np.exp(np.outer(t / t[-1] - 0.5, rng.normal(0, drift, cells)))
    count = rng.poisson((rate + 0.2) / frames)
    i, u = np.nonzero(count)
    m = count[i, u]
    seen = xy + rng.normal(0, 0.006, xy.shape)
    for a in rng.integers(0, len(xy) - 20, lost):
        seen[a : a + rng.integers(2, 15)] = rng.uniform(-0.5, 1.5, 2)
    return bm.Recording.from_arrays(
        f"w-maze{seed}", spikes={"times": np.repeat(t[i], m) + rng.uniform(0, 1 / frames, m.sum()), "unit": np.repeat(u, m)},
        signals={"position": {"values": seen, "times": t, "unit": "m", "kind": "position", "channels": ["x", "y"]}},
    )  # fmt: skip


def w_maze_errors(seeds: int = 2) -> None:
    """Median error, cm, of each kind of W-maze session: mean over sessions."""
    print(f"{'median error, cm':24s} state space  memoryless  pynapple  with its occupancy prior")
    for name, world in W_MAZES.items():
        rows = []
        for seed in range(seeds):
            recording = w_maze(seed, **world)
            ours = cross_validated_error(recording)
            spikes, position = units_and_position(recording)
            ran = moving(position, speed_threshold(position))
            peers = [pynapple_error(spikes, position, ran, prior=p)["median"] for p in ("uniform", "occupancy")]
            rows.append([ours["state_space"], ours["memoryless"], *peers])
        mean = 100 * np.mean(rows, axis=0)
        print(f"{name:24s} {mean[0]:11.1f} {mean[1]:11.1f} {mean[2]:9.1f} {mean[3]:12.1f}", flush=True)


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
    parser.add_argument("--w-maze", action="store_true")
    parser.add_argument("folder", nargs="?", type=Path, default=data_folder())
    parser.add_argument("--quick", action="store_true", help="as without: it takes a minute")
    args = parser.parse_args()
    if args.heading:
        heading_errors()
        return
    if args.w_maze:
        w_maze_errors()
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
        for prior in ("uniform", "occupancy"):
            begin = time.perf_counter()
            peer = pynapple_error(spikes, position, moving(position, speed_threshold(position)), prior=prior)
            took = time.perf_counter() - begin
            print(f"pynapple Bayes        median {peer['median']:.1f} {ours['unit']} on {peer['n_bins']} bins, {prior} prior   ({took:.1f} s)")
    except ImportError:
        print('pynapple is not installed: pip install "brainmu[interop]" to see its row (60.6 px was measured with 0.11)')
    if importlib.util.find_spec("non_local_detector") is None:
        print('non_local_detector is not installed: pip install non_local_detector "jax<0.5"')
        return
    begin = time.perf_counter()
    peer = nonlocal_error(spikes, position, moving(position, speed_threshold(position)))
    took = time.perf_counter() - begin
    means = f"mean of the posterior: {peer['median of means']:.1f}"
    print(f"non_local_detector    median {peer['median']:.1f} {ours['unit']} ({means}) on {peer['n_bins']} bins   ({took:.1f} s)")


if __name__ == "__main__":
    main()
