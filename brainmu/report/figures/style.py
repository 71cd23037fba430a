"""One look for every figure: sizes, colours that colour-blind readers can tell apart, and time axes in words.

Nothing here touches pyplot or the global rcParams, so a report drawn in a notebook leaves the notebook's own style alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

__all__ = ["ACCENT", "CONTENT", "GREY", "INK", "STAGE_COLOURS", "STAGE_ORDER", "content_colours", "finish", "new_figure", "panel_letters", "time_axis"]

WIDTH = 9.0
"""Width of a full figure, inches; 900 px in the report, twice that in its pixels."""

INK, GREY, FAINT = "#1b1f24", "#7a828c", "#d9dde2"
ACCENT = "#0072b2"
CONTENT = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#5d5d5d")
"""Okabe & Ito's palette, strongest contrasts first."""

STAGE_COLOURS = {
    "WAKE": "#e69f00", "W": "#e69f00",
    "REM": "#b5437f", "R": "#b5437f",
    "NREM": "#2b78b8", "N1": "#9fcbea", "N2": "#4c97d1", "N3": "#0a4a84",
    "ART": "#8d8d8d", "UNS": "#e4e4e4",
}  # fmt: skip
STAGE_ORDER = ("WAKE", "W", "REM", "R", "NREM", "N1", "N2", "N3", "ART", "UNS")
"""From the top of a hypnogram to its bottom."""

_SMALL, _NORMAL = 7.5, 8.5


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty white figure of `width` x `height` inches that lays itself out."""
    fig = Figure(figsize=(width, height), dpi=100, facecolor="white", layout="constrained")
    fig.get_layout_engine().set(w_pad=0.06, h_pad=0.05, hspace=0.03, wspace=0.03)  # type: ignore[union-attr]
    return fig


def finish(fig: Figure) -> Figure:
    """Give every axis of `fig` the common look: small type, thin spines left and bottom, titles to the left."""
    for ax in fig.axes:
        if getattr(ax, "_colorbar", None) is not None:
            ax.tick_params(labelsize=_SMALL, width=0.6, length=2.5, colors=INK)
            ax.yaxis.label.set_size(_SMALL)
            ax.xaxis.label.set_size(_SMALL)
            continue
        for side in ("top", "right"):
            ax.spines[side].set_visible(False)
        for side in ("left", "bottom"):
            ax.spines[side].set_linewidth(0.6)
            ax.spines[side].set_color(INK)
        ax.tick_params(labelsize=_SMALL, width=0.6, length=2.5, colors=INK)
        ax.xaxis.label.set_size(_NORMAL)
        ax.yaxis.label.set_size(_NORMAL)
        for title in (ax.title, ax._left_title, ax._right_title):  # type: ignore[attr-defined]
            title.set_size(_NORMAL + 0.5)
            title.set_color(INK)
        legend = ax.get_legend()
        if legend is not None:
            legend.set_frame_on(False)
            for text in legend.get_texts():
                text.set_size(_SMALL)
    return fig


def panel_letters(axes: Sequence[Axes]) -> None:
    """Bold a, b, c… before the left title of each panel."""
    for letter, ax in zip("abcdefghijkl", axes):
        title = ax.get_title(loc="left") or ax.get_title()
        ax.set_title("")
        ax.set_title(f"$\\bf{{{letter}}}$  {title}", loc="left")


def time_axis(ax: Axes, start: float, stop: float, label: bool = True) -> None:
    """Label the x axis, which is in seconds of session time, in s, min or h, whichever reads best."""
    span = stop - start
    scale, unit = (3600.0, "h") if span > 2 * 3600 else (60.0, "min") if span > 300 else (1.0, "s")
    ax.set_xlim(start, stop)
    ticks = MaxNLocator(nbins=9, steps=[1, 2, 2.5, 3, 5, 10]).tick_values(start / scale, stop / scale) * scale
    ax.set_xticks(ticks[(ticks >= start - 1e-9) & (ticks <= stop + 1e-9)])
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / scale:g}"))
    if label:
        ax.set_xlabel(f"session time ({unit})")
    else:
        ax.tick_params(labelbottom=False)


def content_colours(contents: Sequence[Any]) -> dict[str, str]:
    """A colour for each distinct content, by its sorted place; "" (unknown) is grey."""
    names = sorted({str(c) for c in contents} - {""})
    return {"": GREY} | {name: CONTENT[i % len(CONTENT)] for i, name in enumerate(names)}


def note(ax: Axes, text: str, x: float = 0.98, y: float = 0.96, **kwargs: Any) -> None:
    """A small remark in axes coordinates, by default at the upper right."""
    given: dict[str, Any] = {"ha": "right", "va": "top", "fontsize": _SMALL, "color": INK, "linespacing": 1.35}
    ax.text(x, y, text, transform=ax.transAxes, **(given | kwargs))


def histogram_edges(*samples: Any, bins: int = 40) -> np.ndarray:
    """Shared edges (bins + 1,) over all finite values of the samples; a unit span where they are constant or absent."""
    values = np.concatenate([np.ravel(np.asarray(s, dtype=np.float64)) for s in samples]) if samples else np.empty(0)
    values = values[np.isfinite(values)]
    lo, hi = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    if hi - lo <= 1e-6 * max(abs(lo), abs(hi), 1e-300):  # rounding noise is no spread
        pad = max(abs(lo) * 0.05, 1e-6)
        lo, hi = lo - pad, hi + pad
    return np.linspace(lo, hi, bins + 1)
