"""The table and the figure: every answer by its kind of evidence, with the planted truth where there is one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

COLOURS = {"experimental": "#0072B2", "observational": "#D55E00", "model": "#009E73"}
PANELS = {"experimental": "Randomised trials", "observational": "Observation", "model": "In the model (not the brain)"}
UNITS = {
    "log odds ratio": "log odds ratio of waking",
    "risk difference": "difference in the chance of waking",
    "change of predicted probability": "predicted probability of waking, events removed less as recorded",
}


def table(effects: dict[str, dict[str, Any]], truth: dict[str, float], quality: dict[str, Any]) -> str:
    """Markdown: one row an effect, the verdicts, and what the steps before were worth."""
    lines = ["# Does reactivation drive sleep?", "", "| question | evidence | estimate | 95 % interval | p | planted | unit | animals | E-value |"]
    lines.append("|---|---|---|---|---|---|---|---|---|")
    for name, e in effects.items():
        seen = e["diagnostics"].get("sensitivity", {})
        p = "" if e["p_value"] is None else f"{e['p_value']:.3g}"
        values = [name, e["level"], number(e["estimate"]), f"{number(e['low'])} to {number(e['high'])}", p, number(truth.get(name)), e["unit"], e["n_units"]]
        lines.append("| " + " | ".join(str(v) for v in [*values, number(seen.get("e_value"), "")]) + " |")
    lines += ["", "## Verdicts", ""]
    lines += [f"- **{name}.** {e['diagnostics']['verdict']}" for name, e in effects.items() if e["diagnostics"].get("verdict")]
    warned = [f"- **{name}.** {w}" for name, e in effects.items() for w in e["diagnostics"].get("warnings", [])]
    lines += ["", "## Warnings", "", *(warned or ["- none"])]
    if quality:
        lines += ["", "## The steps before, against what was planted", ""]
        lines += [f"- {k}: {', '.join(f'{a} {b}' for a, b in v.items()) if isinstance(v, dict) else ', '.join(map(str, v))}" for k, v in quality.items()]
    return "\n".join([*lines, ""])


def number(x: float | None, sign: str = "+") -> str:
    """Three figures; a dash where there is none."""
    return "-" if x is None else f"{x:{sign}.3g}"


def draw(effects: dict[str, dict[str, Any]], truth: dict[str, float], path: Path) -> None:
    """Left a panel for each kind of evidence; right the sensitivity of one observational answer and its lag scan."""
    levels = [lv for lv in PANELS if any(e["level"] == lv for e in effects.values())]
    groups = {lv: {n: e for n, e in effects.items() if e["level"] == lv} for lv in levels}
    height = 1.8 + 0.34 * len(effects) + 0.5 * len(levels)
    fig = plt.figure(figsize=(12, max(height, 5.5)), layout="constrained")
    left, right = fig.subfigures(1, 2, width_ratios=[1.5, 1])
    axes = left.subplots(len(levels), 1, squeeze=False, gridspec_kw={"height_ratios": [len(groups[lv]) + 1.5 for lv in levels]})[:, 0]
    for ax, level in zip(axes, levels):
        forest(ax, groups[level], truth, COLOURS[level])
        ax.set_title(PANELS[level], loc="left", fontsize=10, fontweight="bold")
    if truth:
        axes[0].plot([], [], "D", mfc="none", mec="k", ms=7, label="planted")
        axes[0].legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    chosen = next((n for n in ("hazard: negative", *effects) if "confounder" in effects.get(n, {}).get("diagnostics", {}).get("sensitivity", {})), None)
    if chosen is not None:
        top, bottom = right.subplots(2, 1)
        contour(top, effects[chosen], chosen)
        lags(bottom, effects[chosen], chosen)
    fig.savefig(path, dpi=150)
    plt.close(fig)


def forest(ax: Axes, group: dict[str, dict[str, Any]], truth: dict[str, float], colour: str) -> None:
    """Estimates and intervals, the planted value as a diamond; an interval that leaves the axis ends in an arrow."""
    known = [abs(v) for n, e in group.items() for v in (e["estimate"], truth.get(n)) if v is not None]
    ends = [abs(v) for e in group.values() for v in (e["low"], e["high"]) if v is not None]
    # A few intervals may be far wider than the rest: they end in arrows rather than squeeze the others.
    most = float(np.quantile(ends, 0.75 if len(group) > 3 else 1.0)) if ends else 0.0
    reach = 1.08 * max(most, min(max(known), 3 * most) if most else max(known), 1e-9)
    for i, (name, e) in enumerate(group.items()):
        if e["low"] is not None and e["high"] is not None:
            ax.plot([max(e["low"], -reach), min(e["high"], reach)], [i, i], color=colour, lw=2, solid_capstyle="butt")
            for end, marker in ((e["low"], "<"), (e["high"], ">")):
                if abs(end) > reach:
                    ax.plot(np.sign(end) * reach, i, marker, color=colour, ms=6, clip_on=False)
        if abs(e["estimate"]) <= reach:
            ax.plot(e["estimate"], i, "o", color=colour, ms=6)
        if name in truth:
            ax.plot(truth[name], i, "D", mfc="none", mec="k", ms=7)
    ax.axvline(0, color="0.6", lw=1, zorder=0)
    ax.set(xlim=(-reach, reach), ylim=(len(group) - 0.4, -0.6))
    ax.set_yticks(np.arange(len(group)), list(group), fontsize=8)
    ax.tick_params(axis="x", labelsize=8)
    unit = next(iter(group.values()))["unit"]
    ax.set_xlabel(UNITS.get(unit, unit), fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)


def contour(ax: Axes, e: dict[str, Any], name: str) -> None:
    """The estimate had there been a confounder of that strength, and the measured ones as a yardstick."""
    seen = e["diagnostics"]["sensitivity"]
    c = seen["confounder"]
    x, y = (np.linspace(0, max(c[k]), 101) for k in ("imbalance_sd", "strength_log_odds"))
    drawn = ax.contour(x, y, e["estimate"] - np.sign(e["estimate"]) * np.outer(y, x), levels=8, colors="0.4", linewidths=0.8, linestyles="solid")
    ax.clabel(drawn, fontsize=7, fmt="%.2g")
    needed = c["product_that_removes_the_estimate"]
    line = np.linspace(0.02, x.max(), 200)
    ax.plot(line, np.minimum(needed / line, y.max() * 2), color="k", lw=2, label="nothing is left")
    lost = c["product_that_removes_significance"]
    if lost:
        ax.plot(line, np.minimum(lost / line, y.max() * 2), color="k", lw=1, ls="--", label="the interval reaches 0")
    for i, (covariate, imbalance) in enumerate(seen.get("imbalance_of_measured", {}).items()):
        ax.axvline(abs(imbalance), color=COLOURS["observational"], lw=1, ls=":", label=f"measured: {covariate}" if i < 3 else None)
    ax.set(xlim=(0, x.max()), ylim=(0, y.max()))
    ax.set_xlabel("SD by which a left-out cause is higher in exposed epochs", fontsize=8)
    ax.set_ylabel("its log odds ratio of waking, an SD", fontsize=8)
    ax.set_title(f"{name}: if a cause was left out", loc="left", fontsize=10, fontweight="bold")
    ax.tick_params(labelsize=8)
    ax.legend(fontsize=7, loc="upper left", bbox_to_anchor=(0, -0.16), ncols=3, frameon=False, borderaxespad=0)


def lags(ax: Axes, e: dict[str, Any], name: str) -> None:
    """The estimate by the time from exposure to outcome."""
    rows = [r for r in e["diagnostics"].get("lag_scan", []) if "estimate" in r and r["low"] is not None and r["high"] is not None]
    for r in rows:
        first = r["lag"] == e["lag"]
        ax.plot([r["seconds"]] * 2, [r["low"], r["high"]], color=COLOURS["observational"], lw=2 if first else 1, alpha=1 if first else 0.5)
        ax.plot(r["seconds"], r["estimate"], "o", color=COLOURS["observational"], alpha=1 if first else 0.5)
    ax.axhline(0, color="0.6", lw=1, zorder=0)
    ax.set_xlabel("time from the exposed epoch to the one whose end is read, s", fontsize=8)
    ax.set_ylabel("log odds ratio of waking", fontsize=8)
    ax.set_title(f"{name}: by lag (in full colour: reported)", loc="left", fontsize=10, fontweight="bold")
    ax.tick_params(labelsize=8)
    ax.spines[["top", "right"]].set_visible(False)
