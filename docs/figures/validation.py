"""Error rates of the effect designs on planted truth: the table and the figure of the explanation of causality.

Usage: python docs/figures/validation.py [FOLDER]

FOLDER is what `python -m brainmu.causal.validate --out FOLDER` wrote; its summary becomes docs/figures/validation.csv. Without it the figure is drawn
from that table again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

from brainmu.causal.validate import cells, summarise

TABLE = Path(__file__).with_suffix(".csv")
COLOURS = {"trials": "#4c78a8", "hazard": "#e45756", "msm": "#72b7b2", "matched": "#b279a2", "glm": "#eeb140", "detected": "#9d755d", "scored": "#79706e"}
FEWEST = {"hold": 100, "fail": 30}
"""Cells with fewer studies are left out."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, nargs="?", help="results of brainmu.causal.validate")
    args = parser.parse_args()
    if args.folder is not None:
        done = [c for c in cells() if len(rows_of(args.folder / f"{c.key}.csv")) >= FEWEST[c.expect]]
        summarise(done, args.folder).round(4).to_csv(TABLE, index=False)
    table = pd.read_csv(TABLE)
    print(as_markdown(table[table["expect"] == "hold"]))
    print(failures_as_markdown(table[table["expect"] == "fail"]))
    draw(table, TABLE.with_suffix(".png"))


def rows_of(path: Path) -> pd.DataFrame:
    return pd.read_csv(path) if path.exists() else pd.DataFrame()


def as_markdown(table: pd.DataFrame) -> str:
    """Cell by cell, the numbers of animals side by side: rejections where there is no effect, coverage where there is one; and studies at each number."""
    animals = sorted(table["animals"].unique())
    lines = ["| cell | " + " | ".join(f"{n} animals" for n in animals) + " | studies |", "|---|" + "---|" * (len(animals) + 1)]
    for name, rows in table.groupby("cell", sort=False):
        rows = rows.set_index("animals")
        what = "rejected" if is_null(rows) else "covered"
        shown = [f"{rows[what][n]:.3f} [{rows[f'{what}_low'][n]:.3f}, {rows[f'{what}_high'][n]:.3f}]" if n in rows.index else "" for n in animals]
        studies = ", ".join(f"{rows['studies'][n]:,}" if n in rows.index else "0" for n in animals)
        lines.append(f"| {name}, {what} | " + " | ".join(shown) + f" | {studies} |")
    return "\n".join(lines)


def failures_as_markdown(table: pd.DataFrame) -> str:
    """Analyses that must go wrong, each with the most animals it was asked of, and how often the tool's own warning is on."""
    lines = ["| analysis that must fail | animals | studies | no effect: rejected | what is true: covered | warned |", "|---|---|---|---|---|---|"]
    for name, rows in table.groupby("cell", sort=False):
        r = rows.loc[rows["animals"].idxmax()]
        shown = [f"{r[w]:.3f} [{r[f'{w}_low']:.3f}, {r[f'{w}_high']:.3f}]" for w in ("rejected", "covered")]
        lines.append(f"| {name} | {r['animals']} | {r['studies']:,} | {shown[0] if r['truth'] == 0 else ''} | {shown[1]} | {r['warned']:.2f} |")
    return "\n".join(lines)


def is_null(rows: pd.DataFrame) -> bool:
    return bool((rows["truth"] == 0).all())


def draw(table: pd.DataFrame, path: Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    held = table[table["expect"] == "hold"]
    effect = held["truth"] != 0
    panels = (
        ("rejected", held[~effect], "no effect: how often p < 0.05", (0.05, 0.07)),
        ("covered", held[effect], "an effect: how often the interval holds it", (0.95, 0.92)),
        ("rejected", held[held["cell"].str.endswith("-effect")], "an effect: how often p < 0.05 (power)", ()),
    )
    places = {n: i for i, n in enumerate(sorted(table["animals"].unique()))}
    for axis, (what, rows, title, lines) in zip(axes, panels):
        groups = list(rows.groupby("cell", sort=False))
        for i, (name, part) in enumerate(groups):
            x = part["animals"].map(places) + (i - (len(groups) - 1) / 2) * 0.12
            error = [part[what] - part[f"{what}_low"], part[f"{what}_high"] - part[what]]
            mark = "s" if "feedback" in name else "o"
            axis.errorbar(x, part[what], error, fmt=mark, ms=4, capsize=2, color=COLOURS[name.partition("-")[0]], label=name)
        for value, style in zip(lines, ("-", "--")):
            axis.axhline(value, color="0.5", lw=0.8, ls=style)
        axis.set(title=title, xlabel="animals", xticks=list(places.values()))
        axis.set_xticklabels([str(n) for n in places])
        axis.legend(frameon=False, fontsize=7)
    axes[0].set_ylim(0, 0.12)
    axes[1].set_ylim(0.85, 1.0)
    axes[2].set_ylim(0, 1.02)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
