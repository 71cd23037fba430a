"""Spindles against two experts on the DREAMS excerpts, beside yasa.spindles_detect: F1 at IoU >= 0.2, one setting for all.

Usage: python benchmarks/bench_spindles.py [--quick]      (needs the folder of real recordings, BRAINMU_DATA)
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
from pathlib import Path

import numpy as np

from brainmu.core import Recording
from brainmu.core.metrics import event_scores
from brainmu.sleep import find_spindles

RATES = {1: 100.0, 3: 50.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="no difference here: four half hours")
    parser.parse_args()
    given = os.environ.get("BRAINMU_DATA")
    folder = (Path(given) if given else Path(__file__).resolve().parents[2] / "shared" / "data") / "human-dreams-spindles"
    if not folder.is_dir():
        print("the DREAMS excerpts are absent (set BRAINMU_DATA)")
        return
    ours, theirs, mutual, gain, spent = [], [], [], [], 0.0
    print("excerpt   brainmu (expert 1, 2)   YASA          experts")
    for path in sorted(folder.glob("excerpt*.txt")):
        i = int(path.stem.removeprefix("excerpt"))
        x, rate = np.loadtxt(path, skiprows=1), RATES.get(i, 200.0)
        experts = [scored(p) for s in (1, 2) if (p := folder / f"Visual_scoring{s}_excerpt{i}.txt").exists()]
        rec = Recording.from_arrays(path.stem, species="human", signals={"eeg": {"values": x, "rate": rate, "unit": "uV", "kind": "eeg"}})
        begin = time.perf_counter()
        e = find_spindles(rec)
        spent += time.perf_counter() - begin
        a = [f1(np.c_[e.start, e.stop], v) for v in experts]
        b = [f1(yasa_spindles(x, rate), v) for v in experts] if importlib.util.find_spec("yasa") else [float("nan")] * len(experts)
        m = f1(experts[0], experts[1]) if len(experts) == 2 else float("nan")
        print(f"{i:<9} {' '.join(f'{v:.2f}' for v in a):<23} {' '.join(f'{v:.2f}' for v in b):<13} {m:.2f}")
        ours, theirs, mutual, gain = ours + a, theirs + b, [*mutual, m], [*gain, float(np.mean(a) - np.mean(b))]
    print(f"mean      {np.mean(ours):.3f}                   {np.mean(theirs):.3f}         {np.nanmean(mutual):.3f}      ({spent:.1f} s)")
    each = " ".join(f"{v:+.2f}" for v in gain)
    print(f"minus YASA, by excerpt: {each}, mean {np.mean(gain):+.2f}; minus the experts' mutual F1 {np.mean(ours) - np.nanmean(mutual):+.2f}")


def scored(path: Path) -> np.ndarray:
    v = np.loadtxt(path, skiprows=1)
    return np.c_[v[:, 0], v[:, 0] + v[:, 1]]


def f1(a: np.ndarray, b: np.ndarray) -> float:
    """F1 of events of 0.3-3 s, matched one to one at IoU >= 0.2."""
    a, b = (x[(x[:, 1] - x[:, 0] >= 0.3) & (x[:, 1] - x[:, 0] <= 3.0)] for x in (a.reshape(-1, 2), b.reshape(-1, 2)))
    return event_scores(a, b, 0.2)["f1"]


def yasa_spindles(x: np.ndarray, rate: float) -> np.ndarray:
    """What yasa finds; nothing where it fails (it cannot filter at 50 Hz)."""
    import yasa

    try:
        found = yasa.spindles_detect(x, rate, freq_sp=(11, 16), verbose="ERROR")
    except ValueError as error:
        print(f"          yasa: {error}")
        return np.empty((0, 2))
    return np.empty((0, 2)) if found is None else found.summary()[["Start", "End"]].to_numpy()


if __name__ == "__main__":
    main()
