"""A whole session at a glance: every stream with its level and its gaps, the spikes, the labels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from brainmu.core import EventTable, Hypnogram, Intervals, Recording, Signal
from brainmu.errors import MissingDataError
from brainmu.report.figures.reading import level, robust_range
from brainmu.report.figures.style import ACCENT, CONTENT, GREY, INK, STAGE_COLOURS, content_colours, finish, new_figure, note, time_axis

__all__ = ["overview_figure"]

_COLUMNS = 700
_MEANS = ("position", "speed", "features", "calcium", "photometry", "behaviour", "sync")
"""Kinds whose mean says more than their spread."""


def overview_figure(recording: Recording, *, most_streams: int = 14) -> Figure:
    """Every stream over the whole session: its level, where it is missing, and the labels on the same clock.

    Voltages show their RMS, other kinds their mean (features: of each stream's first three channels); spikes show the population rate.

    Raises
    ------
    MissingDataError
        If the recording holds nothing at all.
    """
    rows: list[tuple[float, Callable[[Axes], None]]] = []
    a, b = recording.start, recording.stop
    if not b > a:
        raise MissingDataError(f"{recording.id}: holds no signals, spikes or labels, so there is nothing to draw")
    streams = [(k, s) for k, s in recording.signals.items() if s.n_samples]
    for name, s in streams[:most_streams]:
        rows.append((0.62, lambda ax, name=name, s=s: _draw_stream(ax, name, s, a, b)))  # type: ignore[misc]
    if recording.spikes is not None and len(recording.spikes):
        rows.append((0.62, lambda ax: _draw_rate(ax, recording, a, b)))
    labels = [(k, v) for k, v in recording.labels.items() if len(v)][:most_streams]
    for name, label in labels:
        rows.append((0.34, lambda ax, name=name, label=label: _draw_label(ax, name, label, a, b)))  # type: ignore[misc]
    heights = [h for h, _ in rows]
    fig = new_figure(0.6 + sum(heights) + 0.06 * len(heights))
    axes = fig.subplots(len(rows), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for ax, (_, draw) in zip(axes, rows):
        draw(ax)
        time_axis(ax, a, b, label=ax is axes[-1])
    return finish(fig)


def _name(ax: Axes, text: str) -> None:
    ax.set_ylabel(text, rotation=0, ha="right", va="center")
    ax.yaxis.set_label_coords(-0.055, 0.5)


def _draw_stream(ax: Axes, name: str, s: Signal, a: float, b: float) -> None:
    kinds = list(dict.fromkeys(s.channels["kind"]))
    as_mean = kinds[0] in _MEANS
    shown = s.pick(list(range(min(s.n_channels, 3 if as_mean else 8))))
    y = level(shown, a, b, columns=_COLUMNS, mean=as_mean)
    edges = np.linspace(a, b, _COLUMNS + 1)
    middle = (edges[:-1] + edges[1:]) / 2
    if not as_mean:
        with np.errstate(all="ignore"):
            y = np.where(np.isfinite(y).any(1), np.nanmedian(np.where(np.isfinite(y).any(1, keepdims=True), y, 0), axis=1), np.nan)[:, None]
    for k in range(y.shape[1]):
        ax.plot(middle, y[:, k], color=(CONTENT[k % len(CONTENT)] if as_mean and y.shape[1] > 1 else INK), linewidth=0.7)
    lo, hi = robust_range(y, 0.5, 99.5)
    ax.set_ylim(0 if not as_mean else lo - 0.08 * (hi - lo), hi + 0.1 * (hi - lo))
    ax.yaxis.set_major_locator(_two_ticks())
    missing = ~np.isfinite(y).any(1)
    for x0, x1 in Intervals.from_mask(missing, _COLUMNS / (b - a), a):
        ax.axvspan(x0, x1, facecolor="#f3f4f6", edgecolor="#c9ced4", hatch="////", linewidth=0, zorder=0)
    rate = "irregular" if s.rate is None else f"{s.rate:g} Hz" if s.rate >= 1 else f"every {1 / s.rate:g} s"
    unit = (s.unit or "unit unknown").replace("uV", "µV")
    what = "mean" if as_mean else "RMS"
    of = f", first {shown.n_channels}" if as_mean and shown.n_channels < s.n_channels else ""
    _name(ax, f"{name}\n{s.n_channels} × {', '.join(kinds)}, {rate}\n{what}{of} ({unit})")


def _two_ticks() -> MaxNLocator:
    return MaxNLocator(nbins=2, min_n_ticks=2)


def _draw_rate(ax: Axes, recording: Recording, a: float, b: float) -> None:
    spikes = recording.spikes
    assert spikes is not None
    edges = np.linspace(a, b, _COLUMNS + 1)
    rate = np.histogram(spikes.times, edges)[0] / np.diff(edges) / max(spikes.n_units, 1)
    ax.fill_between((edges[:-1] + edges[1:]) / 2, 0, rate, color=ACCENT, linewidth=0, alpha=0.85)
    ax.set_ylim(0, robust_range(rate, 0, 99.7)[1] * 1.1)
    ax.yaxis.set_major_locator(_two_ticks())
    _name(ax, f"spikes\n{spikes.n_units} units, n = {len(spikes)}\nmean rate (Hz)")


def _draw_label(ax: Axes, name: str, label: Hypnogram | EventTable | Intervals, a: float, b: float) -> None:
    ax.set_yticks([])
    ax.set_ylim(0, 1)
    ax.spines["left"].set_visible(False)
    if isinstance(label, Hypnogram):
        for stage, spans in label.bouts().groupby("stage"):
            ax.broken_barh(list(zip(spans["start"], spans["duration"])), (0.1, 0.8), facecolors=STAGE_COLOURS[stage], linewidth=0)
        present = [s for s in label.stages if (label.codes == label.stages.index(s)).any()]
        _key(ax, present)
        _name(ax, f"{name}\n{len(label)} epochs of {label.epoch:g} s")
    elif isinstance(label, Intervals):
        ax.broken_barh([(x, y - x) for x, y in label], (0.2, 0.6), facecolors=CONTENT[2], linewidth=0)
        _name(ax, f"{name}\n{len(label)} span{'s' if len(label) != 1 else ''}, {label.duration:.0f} s")
    else:
        _draw_events(ax, label, a, b)
        _name(ax, f"{name}\n{len(label)} event{'s' if len(label) != 1 else ''}")


def _key(ax: Axes, stages: list[str]) -> None:
    """Stage names in their colours, right of the strip."""
    for i, s in enumerate(stages):
        ax.text(1.005, 0.95 - 0.95 * (i + 0.5) / max(len(stages), 1), s, transform=ax.transAxes, fontsize=6, color=STAGE_COLOURS[s], va="center", weight="bold")


def _draw_events(ax: Axes, events: EventTable, a: float, b: float) -> None:
    if len(events) <= 40 and np.median(events.duration) > 0.01 * (b - a):  # epochs rather than moments
        colours = content_colours(events.content)
        for c in dict.fromkeys(str(v) for v in events.content):
            mine = np.array([str(v) == c for v in events.content])
            ax.broken_barh(list(zip(events.start[mine], events.duration[mine])), (0.2, 0.6), facecolors=colours[c], linewidth=0)
        wide = events.duration > 0.05 * (b - a)
        for x, c in zip(((events.start + events.stop) / 2)[wide], events.content[wide]):
            ax.text(x, 0.5, str(c), ha="center", va="center", fontsize=6.5, color="white", clip_on=True)
        return
    inside = events.peak[(events.peak >= a) & (events.peak <= b)]
    if len(inside) <= 300:
        ax.vlines(inside, 0.15, 0.85, color=CONTENT[1], linewidth=0.7)
    else:
        edges = np.linspace(a, b, 201)
        counts = np.histogram(inside, edges)[0]
        top = max(int(counts.max()), 1)
        ax.fill_between((edges[:-1] + edges[1:]) / 2, 0.05, 0.05 + 0.9 * counts / top, color=CONTENT[1], linewidth=0, step="mid")
        per_min = 60 * top / (edges[1] - edges[0])
        note(ax, f"up to {per_min:.0f}/min", 1.005, 0.5, ha="left", va="center", fontsize=6, color=GREY)
