"""Where two scorings differ: hypnograms one above the other with the differing epochs marked, and what is taken for what."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from brainmu.core import Hypnogram
from brainmu.core.metrics import accuracy, calibration_error, cohen_kappa, confusion, f1_by_class
from brainmu.errors import InputError
from brainmu.report.figures.sleep import _matrix, agreement, draw_hypnogram
from brainmu.report.figures.style import ACCENT, GREY, INK, STAGE_COLOURS, STAGE_ORDER, finish, new_figure, note, time_axis

__all__ = ["disagreement_figure"]

_MARK = "#c1121f"
_SHOWN = 4
"""Recordings drawn epoch by epoch; more would not be legible on a page."""


def disagreement_figure(pairs: Sequence[tuple[str, Hypnogram, Hypnogram]], names: tuple[str, str] = ("scorer", "stager")) -> Figure:
    """Two scorings of each recording one above the other, their disagreements marked between them, over the confusion of all recordings.

    Parameters
    ----------
    pairs : sequence of (recording, reference, hypnogram)
        All of them enter the confusion; the four that agree least are drawn.
    names : (str, str)
        Of the reference and the hypnogram.

    Raises
    ------
    InputError
        If a recording has no epoch that both scored, or stage sets differ between recordings.
    """
    if not pairs:
        raise InputError("there are no scorings to compare: give at least one recording")
    counts, stages = _pooled(pairs)
    order = sorted(range(len(pairs)), key=lambda k: _kappa(*pairs[k][1:]))[:_SHOWN]
    heights = [h for _ in order for h in (1.0, 0.22, 1.0)] + [2.6]
    fig = new_figure(0.9 + 1.02 * sum(heights))
    grid = fig.add_gridspec(len(heights), 1, height_ratios=heights)
    for row, k in enumerate(order):
        recording, reference, hypnogram = pairs[k]
        if reference.stage_set != hypnogram.stage_set:
            reference, hypnogram = reference.as_rodent3(), hypnogram.as_rodent3()
        _draw_pair([fig.add_subplot(grid[3 * row + i]) for i in range(3)], recording, reference, hypnogram, names)
    below = grid[-1].subgridspec(1, 3, width_ratios=[1.2, 0.9, 1.0])
    _draw_confusion(fig.add_subplot(below[0]), counts, stages, names, len(pairs))
    _draw_f1(fig.add_subplot(below[1]), counts, stages)
    _draw_calibration(fig.add_subplot(below[2]), pairs)
    if len(order) < len(pairs):
        fig.suptitle(f"the {len(order)} of {len(pairs)} recordings that agree least", x=0.01, ha="left", fontsize=8.5, color=GREY)
    return finish(fig)


def _pooled(pairs: Sequence[tuple[str, Hypnogram, Hypnogram]]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Confusion (reference, hypnogram) of all recordings, and its stages from the top of a hypnogram down."""
    # On the hypnogram's epochs, as brainmu.sleep.evaluate counts.
    found = [(c.T, s) for c, s in (agreement(hypnogram, reference) for _, reference, hypnogram in pairs)]
    if len({s for _, s in found}) > 1:
        raise InputError("recordings mix stage sets: convert all with as_rodent3()")
    stages = found[0][1]
    order = [stages.index(s) for s in STAGE_ORDER if s in stages]
    return np.sum([c for c, _ in found], axis=0)[np.ix_(order, order)], tuple(stages[i] for i in order)


def _kappa(reference: Hypnogram, hypnogram: Hypnogram) -> float:
    kappa = cohen_kappa(agreement(hypnogram, reference)[0])
    return kappa if np.isfinite(kappa) else 2.0


def _draw_pair(axes: list[Axes], recording: str, reference: Hypnogram, hypnogram: Hypnogram, names: tuple[str, str]) -> None:
    start, stop = min(reference.start, hypnogram.start), max(reference.stop, hypnogram.stop)
    other = reference.at(hypnogram.times + hypnogram.epoch / 2)
    both = (other >= 0) & (hypnogram.codes >= 0)
    differ = both & (other != hypnogram.codes)
    matrix = confusion(other, hypnogram.codes, len(hypnogram.stages))
    kappa = cohen_kappa(matrix)
    said = f"κ {kappa:.2f}, " if np.isfinite(kappa) else ""
    draw_hypnogram(axes[0], reference, title=f"{recording}: {said}{int(differ.sum())} of {int(both.sum())} epochs differ")
    axes[0].set_title("red: they differ; grey: not scored by both", loc="right", color=GREY)
    draw_hypnogram(axes[2], hypnogram)
    strip = axes[1]
    for mask, colour in ((differ, _MARK), (~both, "#e4e4e4")):
        spans = Hypnogram(mask.astype(int), "rodent3", hypnogram.epoch, hypnogram.start).intervals("NREM").bounds
        # A lone epoch of a long night is thinner than a pixel: its edge keeps it visible.
        strip.broken_barh([(a, b - a) for a, b in spans], (0, 1), facecolors=colour, edgecolors=colour, linewidth=0.5 if colour == _MARK else 0)
    strip.set_ylim(0, 1)
    strip.set_yticks([0.5], ["differ"])
    for ax, text in ((axes[0], names[0]), (axes[2], names[1])):
        ax.set_ylabel(text)
    for ax in axes:
        time_axis(ax, start, stop, label=ax is axes[2])
    for ax in axes[:2]:
        ax.tick_params(bottom=False)
    strip.tick_params(left=False)


def _draw_confusion(ax: Axes, counts: np.ndarray, stages: tuple[str, ...], names: tuple[str, str], recordings: int) -> None:
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    text = [[f"{100 * share[i, j]:.0f} %\n{counts[i, j]}" for j in range(len(stages))] for i in range(len(stages))]
    _matrix(ax, share, text, list(stages), list(stages))
    ax.set_xlabel(names[1])
    ax.set_ylabel(f"{names[0]} (rows are 100 %)")
    several = f", {recordings} recordings" if recordings > 1 else ""
    ax.set_title(f"κ {cohen_kappa(counts):.2f}, accuracy {100 * accuracy(counts):.0f} %{several}", loc="left")


def _draw_f1(ax: Axes, counts: np.ndarray, stages: tuple[str, ...]) -> None:
    y, f1 = np.arange(len(stages))[::-1], f1_by_class(counts)
    ax.barh(y, np.nan_to_num(f1), 0.6, color=[STAGE_COLOURS[s] for s in stages], linewidth=0)
    for at, v in zip(y, f1):
        ax.text((v if np.isfinite(v) else 0) + 0.02, at, f"{v:.2f}" if np.isfinite(v) else "no epochs", va="center", fontsize=7, color=INK)
    ax.set_xlim(0, 1.18)
    ax.set_xticks([0, 0.5, 1])
    ax.set_yticks(y, stages)
    ax.set_xlabel("F1")
    ax.set_title("agreement by stage", loc="left")


def _draw_calibration(ax: Axes, pairs: Sequence[tuple[str, Hypnogram, Hypnogram]]) -> None:
    """Accuracy by confidence, where every hypnogram has probabilities."""
    proba, truth = [], []
    for _, reference, hypnogram in pairs:
        if reference.stage_set != hypnogram.stage_set:
            reference, hypnogram = reference.as_rodent3(), hypnogram.as_rodent3()
        if hypnogram.proba is None:
            ax.set_axis_off()
            note(ax, "no probabilities,\nso no calibration", 0.5, 0.5, ha="center", va="center", color=GREY)
            return
        code = reference.at(hypnogram.times + hypnogram.epoch / 2)
        keep = (code >= 0) & np.isfinite(hypnogram.proba).all(axis=1)
        proba.append(hypnogram.proba[keep])
        truth.append(code[keep])
    p, t = np.concatenate(proba), np.concatenate(truth)
    top, right = p.max(axis=1), p.argmax(axis=1) == t
    bins = np.minimum((top * 10).astype(int), 9)
    found = [(top[bins == k].mean(), right[bins == k].mean(), int((bins == k).sum())) for k in np.unique(bins)]
    x, y, n = (np.array(v) for v in zip(*found))
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=0.6, linestyle=(0, (3, 2)))
    ax.plot(x, y, color=ACCENT, linewidth=1.0)
    ax.scatter(x, y, s=6 + 60 * n / n.sum(), color=ACCENT, linewidth=0, zorder=3)
    ax.set_xlim(min(0.3, float(x.min()) - 0.05), 1.03)
    ax.set_ylim(min(0.3, float(y.min()) - 0.05), 1.03)
    ax.set_xlabel("confidence (larger dot: more epochs)")  # a remark inside the axes would lie on one curve or another
    ax.set_ylabel("accuracy")
    ax.set_title(f"calibration: ECE {calibration_error(p, t):.3f}", loc="left")
