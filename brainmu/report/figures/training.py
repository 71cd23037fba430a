"""How pretraining went: the loss of each modality against what costs nothing to predict."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from brainmu.errors import InputError
from brainmu.report.figures.style import CONTENT, GREY, finish, new_figure, note, panel_letters

__all__ = ["loss_columns", "training_figure"]


def loss_columns(metrics: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Loss columns by modality: ``{"lfp": {"train": column, "val": column, "baseline": column}}``.

    Understood are names like ``train/loss_lfp``, ``val_loss/lfp``, ``loss_lfp``, ``baseline/lfp``, ``val/baseline_lfp``; the plain loss is "all".
    """
    out: dict[str, dict[str, str]] = {}
    for column in map(str, metrics.columns):
        words = [w for w in column.lower().replace("/", "_").replace(".", "_").split("_") if w]
        trivial = bool({"baseline", "trivial", "mean"} & set(words))
        if "loss" not in words and not trivial:
            continue
        part = "val" if {"val", "valid", "validation", "heldout"} & set(words) else "train"
        left = [w for w in words if w not in ("loss", "baseline", "trivial", "mean", "val", "valid", "validation", "heldout", "train", "epoch", "step")]
        out.setdefault("_".join(left) or "all", {}).setdefault("baseline" if trivial else part, column)
    return {k: v for k, v in out.items() if set(v) & {"train", "val"}}


def training_figure(metrics: pd.DataFrame, *, most: int = 6) -> Figure:
    """Loss curves, a panel a modality: training, held-out, and the trivial baseline as a dashed line.

    Parameters
    ----------
    metrics : DataFrame
        One row a log line with a `step` (or `epoch`) column; see :func:`loss_columns` for the names of the rest.

    Raises
    ------
    InputError
        If no loss column is found.
    """
    found = loss_columns(metrics)
    found = {k: v for k, v in found.items() if any(pd.to_numeric(metrics[c], errors="coerce").notna().any() for c in v.values())}
    if not found:
        raise InputError(f"training metrics have columns {', '.join(map(str, metrics.columns))}, expected at least one with 'loss' in its name")
    names = list(found)[:most]
    x_name = next((c for c in ("step", "epoch") if c in metrics), None)
    x = metrics[x_name].to_numpy(dtype=float) if x_name else np.arange(len(metrics), dtype=float)
    columns = min(3, len(names))
    rows = int(np.ceil(len(names) / columns))
    fig = new_figure(0.4 + 2.1 * rows, width=9.0 if columns > 1 else 5.4)
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    for ax, name in zip(axes, names):
        _draw_curve(ax, x, metrics, found[name])
        ax.set_xlabel(x_name or "log line")
        ax.set_ylabel("loss")
        ax.set_title(name, loc="left")
    if len(names) > 1:
        panel_letters(axes[: len(names)].tolist())
    return finish(fig)


def _draw_curve(ax: Axes, x: np.ndarray, metrics: pd.DataFrame, columns: dict[str, str]) -> None:
    final: dict[str, float] = {}
    for part, colour, width in (("train", CONTENT[5], 0.9), ("val", CONTENT[0], 1.6), ("baseline", GREY, 1.2)):
        if part not in columns:
            continue
        y = pd.to_numeric(metrics[columns[part]], errors="coerce").to_numpy(dtype=float)
        known = np.isfinite(y)
        if not known.any():
            continue
        final[part] = float(y[known][-1])
        if part == "baseline":
            ax.axhline(final[part], color=colour, linewidth=width, linestyle=(0, (4, 2)), label="trivial")
        else:
            ax.plot(x[known], y[known], color=colour, linewidth=width, marker="o" if known.sum() < 12 else None, markersize=2.5,
                    label={"train": "training", "val": "held out"}[part])  # fmt: skip
    ax.legend(loc="upper right", borderaxespad=0.1)
    model = final.get("val", final.get("train"))
    if model is not None and final.get("baseline", 0) > 0:
        note(ax, f"{100 * (1 - model / final['baseline']):+.0f} % against trivial".replace("+-", "−").replace("+", "−", 1) if model < final["baseline"]
             else "not better than trivial", 0.03, 0.05, ha="left", va="bottom")  # fmt: skip
