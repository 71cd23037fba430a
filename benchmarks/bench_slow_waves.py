"""Slow waves of planted nights and mice: precision, recall and F1 at IoU >= 0.2, beside 1.25 times the mean and the other polarity.

Usage: python benchmarks/bench_slow_waves.py [--quick]
"""

from __future__ import annotations

import argparse

import numpy as np

import brainmu as bm
from brainmu.core import EventTable, Hypnogram
from brainmu.core.metrics import event_scores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one night and one mouse")
    quick = parser.parse_args().quick
    for seed in (41,) if quick else (41, 42, 43, 44):
        recording, truth = bm.synth.recording(hours=2, seed=seed, species="human")
        for name, settings in (("default", {}), ("1.25 x mean", {"threshold": 1.25})):
            found = bm.sleep.find_slow_waves(recording, hypnogram=truth.hypnogram, **settings)
            print(f"night {seed}  {name:<12}" + "".join(f"  {s}: {scores(found, truth.slow_waves, truth.hypnogram, s)}" for s in ("N2", "N3", "NREM")))
    for seed in (41,) if quick else (41, 42):
        recording, truth = bm.synth.recording(hours=1, seed=seed, species="mouse", n_cells=10)
        for polarity in ("auto", "negative"):
            found = bm.sleep.find_slow_waves(recording, hypnogram=truth.hypnogram, polarity=polarity)
            print(f"mouse {seed}  {found.polarity:<12}  NREM: {scores(found, truth.slow_waves, truth.hypnogram, 'NREM')}; {found.polarity_by}")


def scores(found: EventTable, planted: EventTable, hypnogram: Hypnogram, stage: str) -> str:
    spans = hypnogram.intervals(stage)
    a, b = found[spans.contains(found.peak)], planted[spans.contains(planted.peak)]
    s = event_scores(np.c_[a.start, a.stop], np.c_[b.start, b.stop], 0.2)
    down = np.mean(np.abs(a.peak[:, None] - b.peak[None]).min(axis=1) < 0.15) if len(a) and len(b) else float("nan")
    return f"precision {s['precision']:.2f} recall {s['recall']:.2f} F1 {s['f1']:.2f} trough at a planted one {down:.2f}"


if __name__ == "__main__":
    main()
