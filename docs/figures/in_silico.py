"""Draw effects in the model against planted ones, from what benchmarks/bench_intervene.py measured. Writes in_silico.png beside this file.

Usage: python docs/figures/in_silico.py [FOLDER]   (of results, kept as in_silico.csv; default: the in_silico.csv beside this file)
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy import stats

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from benchmarks.bench_intervene import CONTENTS, DOSES, flat, inside_one_fit, line, results  # noqa: E402

COLUMNS = ["corpus", "confounding", "content", "operation", "dose", "planted", "seeing", "estimate", "p", "se_placebos"]
SHADES = {0.25: "#a8c4e8", 0.5: "#5a8fd0", 1.0: "#1f4e8c"}
WARM = {0.25: "#f0c898", 0.5: "#e09040", 1.0: "#a04c00"}


def main(rows: pd.DataFrame, out: Path) -> None:
    figure, axes = plt.subplots(1, 4, figsize=(15, 3.8), layout="constrained", width_ratios=[1, 1, 1, 1.1])
    plain = rows[(rows["confounding"] == 0) & (rows["operation"] == "remove")]
    for ax, content, colours in ((axes[0], "negative", SHADES), (axes[1], "positive", WARM)):
        calibration(ax, plain[plain["content"] == content], colours)
        ax.set_title(f"{content.capitalize()} events removed", loc="left", fontsize=10)
    axes[0].set_ylabel("log hazard ratio in the model")
    confounding(axes[2], rows)
    nulls(axes[3], plain, rows)
    figure.savefig(out, dpi=110)
    print(f"wrote {out}")


def calibration(ax, some: pd.DataFrame, colours: dict[float, str]) -> None:
    rng = np.random.default_rng(0)
    for dose in DOSES:
        part = some[some["dose"] == dose]
        x, y = part["planted"].to_numpy() * dose, part["estimate"].to_numpy()
        fit = line(x, y)
        slope, low, high = fit["slope"]
        ax.plot(x + 0.012 * rng.standard_normal(len(x)), y, ".", color=colours[dose], markersize=4, alpha=0.8)
        ends = np.array([x.min(), x.max()])
        ax.plot(
            ends,
            fit["intercept"][0] + slope * ends,
            color=colours[dose],
            linewidth=1.4,
            label=f"{dose:.0%} of events: slope {slope:.2f} [{low:.2f}, {high:.2f}]",
        )
    whole = some["planted"].to_numpy()
    ends = np.array([whole.min(), whole.max()])
    ax.plot(ends, ends, color="#909090", linewidth=0.8, linestyle="--")
    ax.set_xlabel("planted log hazard ratio x dose")
    ax.legend(frameon=False, fontsize=7, loc="upper left")


def confounding(ax, rows: pd.DataFrame) -> None:
    whole = rows[(rows["operation"] == "remove") & (rows["dose"] == 1) & rows["content"].isin(CONTENTS)]
    for seeing, colour, name, by in ((False, "#c03030", "blind to the pressure", -0.008), (True, "#308040", "sees the pressure", 0.008)):
        part = whole[(whole["confounding"] == 0) | (whole["seeing"] == seeing)]
        levels = np.unique(part["confounding"])
        bias = [(part["estimate"] - part["planted"])[part["confounding"] == v] for v in levels]
        half = [stats.t.ppf(0.975, len(b) - 1) * b.std(ddof=1) / np.sqrt(len(b)) for b in bias]
        ax.errorbar(levels + by, [b.mean() for b in bias], yerr=half, fmt="o-", color=colour, capsize=3, markersize=4, label=name)
    fine = np.linspace(0, 0.6, 50)
    ax.plot(fine, fine**2, color="#909090", linewidth=0.8, linestyle="--", label="confounding squared: all of it")
    ax.axhline(0, color="#d0d0d0", linewidth=0.8, zorder=0)
    ax.set_xlabel("planted confounding")
    ax.set_ylabel("estimate - planted")
    ax.set_title("What confounding does to it", loc="left", fontsize=10)
    ax.legend(frameon=False, fontsize=7, loc="upper left")


def nulls(ax, plain: pd.DataFrame, rows: pd.DataFrame) -> None:
    none = plain[(plain["planted"] == 0) & plain["content"].isin(CONTENTS) & (plain["dose"] == 1)]
    inside = {
        "no effect planted:\nplacebos and refits": none["p"] > 0.05,
        "no effect planted:\nplacebos of one fit": pd.Series(inside_one_fit(none.to_dict("records"))),
        "nothing there:\nplacebos of one fit": rows[rows["content"] == "nothing"]["p"] > 0.05,
    }
    for k, held in enumerate(inside.values()):
        share = float(held.mean())
        low, high = stats.binomtest(int(held.sum()), len(held)).proportion_ci(method="wilson")
        ax.errorbar(share, k, xerr=[[share - low], [high - share]], fmt="o", color="#303030", capsize=3)
        ax.annotate(f"{int(held.sum())} of {len(held)}", (share, k - 0.18), fontsize=7, ha="left" if share < 0.5 else "right")
    ax.axvspan(0.93, 0.97, color="#d8e8d8", zorder=0)
    ax.set_yticks(range(len(inside)), list(inside), fontsize=8)
    ax.set_ylim(len(inside) - 0.5, -0.5)
    ax.set_xlim(0, 1.02)
    ax.set_xlabel("share of nulls inside their band")
    ax.set_title("Nulls", loc="left", fontsize=10)


if __name__ == "__main__":
    kept = HERE / "in_silico.csv"
    if len(sys.argv) > 1:
        pd.DataFrame(flat(results(Path(sys.argv[1]))))[COLUMNS].round(4).to_csv(kept, index=False)
    main(pd.read_csv(kept), HERE / "in_silico.png")
