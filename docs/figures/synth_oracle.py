"""What an oracle and a naive detector make of planted replay and its decoys: the table of docs/explanation/synth.md.

Run ``python docs/figures/synth_oracle.py [SEEDS]``. The oracle is that of ``tests/synth/test_oracle.py``: a Poisson decoder with the true
fields, the best line, and two shuffles (cells, moments) at 0.05.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np

import brainmu.synth as synth

_TEST = Path(__file__).resolve().parents[2] / "tests" / "synth" / "test_oracle.py"


def measure(seed: int) -> dict[str, float]:
    """One hour with as many decoys as replays."""
    spec = importlib.util.spec_from_file_location("test_oracle", _TEST)
    oracle = importlib.util.module_from_spec(spec)
    sys.modules["test_oracle"] = oracle
    spec.loader.exec_module(oracle)
    rec, truth = synth.recording(
        hours=1.0, seed=seed, n_cells=60, fragmented=0.0, outside_ripples=0.35, shuffled_share=0.25, rate_matched_share=0.25, burst_share=0.25,
        burst_rate=0.12,
    )  # fmt: skip
    o, d = oracle.Oracle(rec, truth.place_fields), truth.replay_decoys
    a = truth.reactivation[truth.reactivation.duration > 0.1][:60]
    rows = o.table(a, 60)
    found, outside = rows[:, 1] <= 0.05, a.ripple < 0
    out = {
        "replay found": found.mean(), "replay outside ripples found": found[outside].mean(), "content right": np.mean((rows[:, 2] == 1) == (a.context == "B")),
        "direction right": np.mean((rows[found, 3] > 0) == (a.direction[found] == "forward")),
    }  # fmt: skip
    for kind in ("identity_shuffled", "rate_matched", "burst"):
        false = o.table(d[(d.kind == kind) & (d.duration > 0.1)], 60)
        out |= {f"{kind} passed": np.mean(false[:, 1] <= 0.05), f"{kind} AUC": np.mean((rows[:, :1] > false[:, 0]) + 0.5 * (rows[:, :1] == false[:, 0]))}
    high = oracle._above_three_sd(rec, truth)
    peak = (high.start + high.stop) / 2
    burst = d[(d.kind == "burst") & (d.ripple < 0)]
    return out | {
        "naive detections that are decoys": d.intervals().contains(peak).mean(),
        "naive detections that are replay": truth.reactivation.intervals().contains(peak).mean(),
        "bursts the naive detector takes": high.contains((burst.start + burst.stop) / 2).mean(),
    }  # fmt: skip


if __name__ == "__main__":
    found = [measure(s) for s in range(int(sys.argv[1]) if len(sys.argv) > 1 else 4)]
    for name in found[0]:
        x = [f[name] for f in found]
        print(f"| {name} | {np.mean(x):.2f} | {min(x):.2f} to {max(x):.2f} |")
