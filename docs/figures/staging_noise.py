"""How staging declines as noise grows, planted rodents of labs that no stager saw: the figure of the explanation of sleep, and its numbers.

Usage: python docs/figures/staging_noise.py [--animals 4] [--hours 1] [--out docs/figures/staging_noise.png]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from benchmarks.bench_staging import NOISE, noise_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--animals", type=int, default=4)
    parser.add_argument("--hours", type=float, default=1.0)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".png"))
    args = parser.parse_args()
    table = noise_table(args.animals, args.hours)
    print(table.to_string(index=False, float_format=lambda v: f"{v:.3f}"))
    figure, axes = plt.subplots(1, 2, figsize=(8, 3), sharex=True, layout="constrained")
    for axis, column, label in zip(axes, ("kappa", "rem_f1"), ("kappa, mean over animals", "F1 of REM")):
        for (name, rows), style in zip(table.groupby("stager", sort=False), ("o-", "s--", "^:")):
            axis.plot(range(len(NOISE)), rows[column], style, label=name)
        axis.set(xlabel="white noise on every channel, SDs of the channel", ylabel=label, ylim=(-0.05, 1.05), xticks=range(len(NOISE)))
        axis.set_xticklabels([f"{v:g}" for v in NOISE])
    axes[0].legend(frameon=False, fontsize=8)
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
