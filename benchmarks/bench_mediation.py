"""Bias, coverage and rejections of mediation on planted trials (brainmu.synth.mediated_study), the expected failures among them.

python benchmarks/bench_mediation.py [--studies 200] [--only CELL …]

Of the indirect effect: how often its interval misses the truth, and how often it leaves out nothing, with exact 95 % limits. In the cells marked "fails" the
truth is meant to be missed; `warned` says how often the tool's own doubt covers it: its residual correlation that would overturn the estimate, or a warning.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from brainmu.causal import mediation
from brainmu.errors import BrainmuError
from brainmu.synth import mediated_study

LC = {"mediator": "spikes:region=LC"}
CELLS: dict[str, tuple[dict, dict]] = {
    "4 animals": ({"n_animals": 4}, LC),
    "8 animals": ({}, LC),
    "20 animals": ({"n_animals": 20}, LC),
    "nothing through it": ({"through": 0.0}, LC),
    "assignment does not move it": ({"shift": 0.0}, LC),
    "neither": ({"through": 0.0, "shift": 0.0}, LC),
    "other cells": ({}, {"mediator": "spikes:region=CA1"}),
    "mediator and arm interact": ({"interaction": 0.4}, LC),
    "rare outcome": ({"base": -2.5, "trials": 100}, LC),
    "few trials": ({"trials": 24}, LC),
    "chance of assignment 0.3": ({"probability": 0.3}, LC),
    "fails: hidden cause of both": ({"through": 0.0, "hidden": 1.0}, LC),
    "fails: waking raises it, no gap": ({"through": 0.0, "shift": 1.0, "arousal": 8.0, "first": 2.0}, LC | {"gap": 0.0}),
    "waking raises it, default gap": ({"through": 0.0, "shift": 1.0, "arousal": 8.0, "first": 2.0}, LC),
    "assignment wakes at once": ({"early_effect": 0.3}, LC),
}


def main() -> None:
    from scipy import stats

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--only", nargs="*", help="cells that begin so")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    for cell, (planted, asked) in CELLS.items():
        if args.only and not cell.startswith(tuple(args.only)):
            continue
        began, found, refused = time.perf_counter(), [], 0
        for s in range(args.studies):
            recordings, truth = mediated_study(**planted, seed=100_000 * (args.seed + 1) + s)
            try:
                found.append(mediation(recordings, **asked))
            except BrainmuError:
                refused += 1
        # The other cells carry nothing of it: all is direct.
        through = 0.0 if "CA1" in asked["mediator"] else truth.indirect
        missed = sum(not e.low <= through <= e.high for e in found)
        rejected = sum(e.p_value < 0.05 for e in found)
        low, high = stats.binomtest(missed, len(found)).proportion_ci(0.95, method="exact")
        total = [e.diagnostics["total"]["estimate"] for e in found]
        rho = np.median([abs(e.diagnostics["sensitivity"]["rho_that_removes_the_estimate"]) for e in found])
        warned = np.mean([bool(e.diagnostics["warnings"]) for e in found])
        print(
            f"{cell:32s} truth {through:+.4f}: bias {np.mean([e.estimate for e in found]) - through:+.4f}, missed {missed / len(found):.3f} [{low:.3f}, "
            f"{high:.3f}] of {len(found)}, p < 0.05 in {rejected / len(found):.3f}; half width {np.median([(e.high - e.low) / 2 for e in found]):.3f}; total "
            f"{np.mean(total):+.3f} ({truth.total:+.3f}); rho {rho:.2f}; warned {warned:.2f}; {refused} refused; {time.perf_counter() - began:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
