"""Draw the calibration and the power of replay's p-value from what benchmarks/bench_replay.py measured. Writes replay_power.png beside this file.

Usage: python docs/figures/replay_power.py [RESULTS]   (of --full; default: replay_power.json beside this file)
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from benchmarks.bench_replay import AXES, FAMILIES, UNITS, Results, share  # noqa: E402

COLOURS = {"called": "#303030", "context": "#3060a0", "direction": "#d08020"}
NAMES = {"called": "found at p < 0.05", "context": "right context of two", "direction": "right direction"}


def main(results: Results, out: Path) -> None:
    figure, axes = plt.subplots(1, 5, figsize=(15, 3.4), layout="constrained", width_ratios=[1.3, 1, 1, 1, 1])
    calibration(axes[0], results)
    for ax, (axis, values) in zip(axes[1:], AXES.items()):
        power(ax, results, axis, values)
    axes[1].set_ylabel("share of planted events")
    axes[1].legend(frameon=False, fontsize=8, loc="lower right")
    figure.savefig(out, dpi=110)
    print(f"wrote {out}")


def calibration(ax, results: Results) -> None:
    families = [f for f in FAMILIES if f != "planted" and results.of(f"calibration {f}")]
    for k, family in enumerate(families):
        p, low, high, events, sessions = share(results.of(f"calibration {family}"), "called", "scored")
        ax.errorbar(p, k, xerr=[[p - low], [high - p]], fmt="o", color="#909090" if family == "drift" else "#303030", capsize=3)
        ax.annotate(f"{events} events, {sessions} sessions", (0.002, k - 0.28), fontsize=7)
    ax.set_yticks(range(len(families)), families)
    ax.set_ylim(len(families) - 0.5, -0.6)
    ax.axvline(0.05, color="#c03030", linewidth=0.8, linestyle="--")
    ax.axvline(0.06, color="#c03030", linewidth=0.8)
    ax.set_xlim(0, 0.1)
    ax.set_xlabel("share of null events at p < 0.05\n(95 %, clustered by session)")
    ax.set_title("Null sessions", loc="left", fontsize=10)


def power(ax, results: Results, axis: str, values: tuple[float, ...]) -> None:
    there = [v for v in values if results.of(f"power {axis} {v:g}")]
    for column, of in (("called", "n"), ("context", "called"), ("direction", "called")):
        rows = [share(results.of(f"power {axis} {v:g}"), column, of) for v in there]
        middle = [r[0] for r in rows]
        ax.plot(there, middle, "o-", color=COLOURS[column], label=NAMES[column], markersize=4, linewidth=1.2)
        ax.fill_between(there, [r[1] for r in rows], [r[2] for r in rows], color=COLOURS[column], alpha=0.15, linewidth=0)
    ax.set_ylim(0, 1.03)
    ax.set_xlabel(UNITS[axis])
    ax.set_title({"cells": "Cells", "noise_cells": "Noise cells", "length": "Length", "speed": "Speed"}[axis], loc="left", fontsize=10)


if __name__ == "__main__":
    main(Results(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "replay_power.json", {}), HERE / "replay_power.png")
