"""How pretraining went: the loss of each modality against what costs nothing to predict."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from brainmu.errors import InputError
from brainmu.report.figures.style import CONTENT, GREY, finish, new_figure, panel_letters

__all__ = ["loss_columns", "training_figure"]


_NOT_LOSSES = ("stage", "step", "epoch", "seconds", "stall", "tokens_per_s", "learning_rate", "lr", "loss", "gradient_norm", "tflops_per_s", "mfu", "memory_gb",
               "hours")  # fmt: skip
_HELD_OUT = {"val", "valid", "validation", "heldout"}
_TRIVIAL = {"baseline", "trivial", "mean"}


def loss_columns(metrics: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Loss columns by target: ``{"lfp": {"train": column, "val": column, "baseline": column}}``.

    A table with a `stage` column (as :func:`brainmu.train.pretraining.pretrain` writes it) has a column a target. In others the names tell:
    ``train/loss_lfp``, ``val_loss/lfp``, ``loss_lfp``, ``baseline/lfp``; the plain loss is "all".
    """
    if "stage" in metrics:
        return {str(c): {"train": str(c)} for c in metrics.columns if str(c) not in _NOT_LOSSES and not str(c).startswith("summary_")}
    out: dict[str, dict[str, str]] = {}
    for column in map(str, metrics.columns):
        words = [w for w in column.lower().replace("/", "_").replace(".", "_").split("_") if w]
        if "loss" not in words and not _TRIVIAL & set(words):
            continue
        part = "baseline" if _TRIVIAL & set(words) else "val" if _HELD_OUT & set(words) else "train"
        left = [w for w in words if w not in _HELD_OUT | _TRIVIAL | {"loss", "train", "epoch", "step"}]
        out.setdefault("_".join(left) or "all", {}).setdefault(part, column)
    return {k: v for k, v in out.items() if set(v) & {"train", "val"}}


def training_figure(metrics: pd.DataFrame, held_out: Mapping[str, Mapping[str, float]] | None = None, *, most: int = 6) -> Figure:
    """Loss curves, a panel a target: training, held-out, and the best trivial prediction as a dashed line.

    Parameters
    ----------
    metrics : DataFrame
        One row a log line with a `step` (or `epoch`) column; see :func:`loss_columns` for the names of the rest.
    held_out : mapping of target to mapping of predictor to loss, or None
        Losses on held-out data at the end: "model", and what costs nothing ("mean", "interpolation", "last").

    Raises
    ------
    InputError
        If no loss column is found.
    """
    found = {k: v for k, v in loss_columns(metrics).items() if any(pd.to_numeric(metrics[c], errors="coerce").notna().any() for c in v.values())}
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
        _draw_curve(ax, x, metrics, found[name], dict((held_out or {}).get(name, {})), name.replace("_", " "))
        ax.set_xlabel(x_name or "log line")
        ax.set_ylabel("loss (nats a bin and unit)" if name == "spikes" else "loss")
    if len(names) > 1:
        panel_letters(axes[: len(names)].tolist())
    return finish(fig)


def _draw_curve(ax: Axes, x: np.ndarray, metrics: pd.DataFrame, columns: dict[str, str], at_end: dict[str, float], title: str) -> None:
    ax.set_title(title, loc="left")
    final: dict[str, float] = {}
    last = 0.0
    for part, colour, width in (("train", CONTENT[5], 0.9), ("val", CONTENT[0], 1.6), ("baseline", GREY, 1.2)):
        y = pd.to_numeric(metrics[columns[part]], errors="coerce").to_numpy(dtype=float) if part in columns else np.empty(0)
        known = np.isfinite(y)
        if not known.any():
            continue
        final[part] = float(y[known][-1])
        if part != "baseline":
            last = max(last, float(x[known][-1]))
            label = {"train": "training", "val": "held out"}[part]
            ax.plot(x[known], y[known], color=colour, linewidth=width, marker="o" if known.sum() < 12 else None, markersize=2.5, label=label)
    if np.isfinite(at_end.get("model", np.nan)):
        final["val"] = at_end["model"]
        ax.plot(last, final["val"], "o", color=CONTENT[0], markersize=5, label="held out, at the end")
    trivial = {k: v for k, v in at_end.items() if k != "model" and np.isfinite(v)} or ({"trivial": final["baseline"]} if "baseline" in final else {})
    model = final.get("val", final.get("train", np.nan))
    if trivial:
        name = min(trivial, key=lambda k: trivial[k])
        ax.axhline(trivial[name], color=GREY, linewidth=1.2, linestyle=(0, (4, 2)), label=f"best trivial: {name}" if name != "trivial" else name)
        ax.set_title(f"{title}: {_gain(model, trivial[name])}", loc="left")
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.6 * (high - low))  # room for the legend
    ax.legend(loc="upper right", borderaxespad=0.1)


def _gain(model: float, trivial: float) -> str:
    if not model < trivial:
        return "not better than trivial"
    # Poisson losses may be negative: then a share has no meaning.
    return f"{trivial - model:.3g} below trivial" if model <= 0 else f"−{100 * (1 - model / trivial):.0f} % against trivial"
