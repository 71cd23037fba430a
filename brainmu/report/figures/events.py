"""Single events up close: an example ripple from raw trace to decoded position, and a few seconds of everything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from brainmu.core import EventTable, Hypnogram, Recording, Signal
from brainmu.dsp.filters import bandpass
from brainmu.errors import InputError, MissingDataError
from brainmu.report.figures.reading import clearest_channel, pick_channel
from brainmu.report.figures.style import ACCENT, CONTENT, FAINT, GREY, INK, STAGE_COLOURS, content_colours, finish, new_figure, note, time_axis

__all__ = ["best_examples", "events_figure", "snippet_figure"]


def best_examples(events: EventTable, n: int = 4) -> NDArray[np.intp]:
    """Rows of the `n` events of lowest p_value, then highest score; the first ones where there is neither."""
    frame = events.to_frame()
    keys = [np.arange(len(frame), dtype=float)]
    if "score" in frame:
        keys.append(-np.nan_to_num(frame["score"].to_numpy(dtype=float), nan=-np.inf))
    if "p_value" in frame:
        keys.append(np.nan_to_num(frame["p_value"].to_numpy(dtype=float), nan=np.inf))
    return np.lexsort(keys)[:n]


def events_figure(
    recording: Recording, events: EventTable, *, rows: Sequence[int] | None = None, channel: str | None = None, band: tuple[float, float] = (150.0, 250.0),
    order: ArrayLike | Mapping[str, ArrayLike] | None = None, posteriors: Mapping[int, xr.DataArray] | None = None, pad: float = 0.1,
) -> Figure:  # fmt: skip
    """Example events side by side: raw trace, filtered band, raster, decoded position.

    Parameters
    ----------
    rows : sequence of int or None
        Which events; None takes the four that :func:`best_examples` names.
    channel : str or None
        Channel of the traces; None takes the LFP (else EEG) channel on which `band` stands out most in the events. Without one the traces are
        left out.
    band : (float, float), Hz
        Pass band of the second row; narrowed to what the sampling rate holds, left out where it holds nothing of it.
    order : int (unit,), mapping of content to int (unit,), or None
        Unit ids from the bottom of the raster up (sorted by place field, say); None takes the units table. A mapping gives each event the
        order of its content, for units whose fields differ between environments; contents that it lacks take its first.
    posteriors : mapping of row to DataArray (time, position)
        Decoded position of events: coordinates `time` (s, session clock) and `position`, with ``units`` in their attrs.
    pad : float, s
        Shown before and after each event.

    Raises
    ------
    InputError
        If there are no events, or a row does not exist.
    MissingDataError
        If the recording has neither a channel nor spikes to show.
    """
    if not len(events):
        raise InputError(f"{recording.id}: the event table is empty, so there is no example to draw")
    if channel is None:
        first = best_examples(events, 6)
        channel = clearest_channel(recording, np.c_[events.start[first], events.stop[first]], band)
    trace = pick_channel(recording, channel)
    chosen = [int(i) for i in (_with_signal(events, trace) if rows is None else rows)]
    if not chosen or min(chosen) < 0 or max(chosen) >= len(events):
        raise InputError(f"{recording.id}: rows {chosen} were asked for, the event table has {len(events)} rows")
    has_spikes = recording.spikes is not None and len(recording.spikes) > 0
    shown = {k: p for k, p in (posteriors or {}).items() if k in chosen}
    passes = None if trace is None else _narrowed(band, trace[1])
    if trace is None and not has_spikes:
        raise MissingDataError(f"{recording.id}: has no LFP or EEG channel and no spikes, so an event shows nothing")
    panels = (["raw"] if trace else []) + (["band"] if passes else []) + (["raster"] if has_spikes else []) + (["posterior"] if shown else [])
    heights = {"raw": 0.9, "band": 0.7, "raster": 1.5, "posterior": 1.2}
    fig = new_figure(0.75 + sum(heights[p] for p in panels))
    grid = fig.subplots(len(panels), len(chosen), squeeze=False, sharex="col", gridspec_kw={"height_ratios": [heights[p] for p in panels]})
    colours = content_colours(events.content)
    for column, row in enumerate(chosen):
        a, b, peak = float(events.start[row]), float(events.stop[row]), float(events.peak[row])
        for panel, ax in zip(panels, grid[:, column]):
            if panel in ("raw", "band") and trace is not None:
                _draw_trace(ax, trace[1], a - pad, b + pad, peak, passes if panel == "band" else None)
            elif panel == "raster":
                _draw_raster(ax, recording, a - pad, b + pad, _order_of(order, str(events.content[row])), peak)
            elif row in shown:
                _draw_posterior(ax, shown[row], peak)
            else:
                note(ax, "not decoded", 0.5, 0.5, ha="center", va="center")
            ax.axvspan(1e3 * (a - peak), 1e3 * (b - peak), color=colours[str(events.content[row])], alpha=0.12, linewidth=0, zorder=0)
            ax.set_xlim(1e3 * (a - pad - peak), 1e3 * (b + pad - peak))
        grid[0, column].set_title(_heading(events, row), loc="left")
        grid[-1, column].set_xlabel("time from peak (ms)")
    _label_rows(grid, panels, trace, passes, shown, recording, _order_of(order, str(events.content[chosen[0]])))
    return finish(fig)


def _order_of(order: ArrayLike | Mapping[str, ArrayLike] | None, content: str) -> ArrayLike | None:
    return order.get(content, next(iter(order.values()), None)) if isinstance(order, Mapping) else order


def _with_signal(events: EventTable, trace: tuple[str, Signal] | None, n: int = 4) -> list[int]:
    """The best examples whose trace is there; the best ones where none is."""
    best = best_examples(events, 10 * n)
    if trace is not None:
        seen = [i for i in best if np.isfinite(trace[1].span(float(events.start[i]), float(events.stop[i]) + 1e-3)[1]).any()]
        best = np.array(seen, dtype=np.intp) if seen else best
    return best[:n].tolist()


def _narrowed(band: tuple[float, float], signal: Signal) -> tuple[float, float] | None:
    assert signal.rate is not None
    high = min(band[1], 0.45 * signal.rate)
    return (band[0], high) if high > band[0] * 1.1 else None


def _heading(events: EventTable, row: int) -> str:
    frame = events.to_frame().iloc[row]
    first = f"{frame['content']}, " if str(frame["content"]) else ""
    parts = [f"{first}at {frame['peak']:.1f} s"]
    if "p_value" in frame and np.isfinite(frame["p_value"]):
        parts.append(f"p = {frame['p_value']:.2g}")
    elif "score" in frame and np.isfinite(frame["score"]):
        parts.append(f"score {frame['score']:.1f}")
    return ", ".join(parts)


def _label_rows(
    grid: NDArray[np.object_], panels: list[str], trace: tuple[str, Signal] | None, passes: tuple[float, float] | None,
    shown: Mapping[int, xr.DataArray], recording: Recording, order: ArrayLike | None,
) -> None:  # fmt: skip
    for panel, axes in zip(panels, grid):
        if panel in ("raw", "band"):
            limit = max(float(np.abs(ax.get_ylim()).max()) for ax in axes)
            for ax in axes:
                ax.set_ylim(-limit, limit)
        for ax in axes[1:]:
            ax.tick_params(labelleft=False)
        if panel == "raw" and trace is not None:
            axes[0].set_ylabel(f"{trace[0].split('/')[-1]} ({_unit(trace[1])})")
        elif panel == "band" and trace is not None and passes is not None:
            axes[0].set_ylabel(f"{passes[0]:g}–{passes[1]:.0f} Hz\n({_unit(trace[1])})")
        elif panel == "raster" and recording.spikes is not None:
            n = recording.spikes.n_units if order is None else len(np.atleast_1d(np.asarray(order)))
            axes[0].set_ylabel(f"{n} units" + (", by place field" if order is not None else ""))
        elif panel == "posterior":
            unit = next(iter(shown.values())).coords["position"].attrs.get("units", "")
            axes[0].set_ylabel(f"decoded\nposition ({unit or 'a.u.'})")


def _unit(signal: Signal) -> str:
    return (signal.unit or "a.u.").replace("uV", "µV")


def _draw_trace(ax: Axes, signal: Signal, a: float, b: float, peak: float, band: tuple[float, float] | None) -> None:
    # The filter sees two seconds more on either side, so that its edges lie outside the picture.
    margin = 2.0 if band else 0.0
    times, values = signal.span(a - margin, b + margin)
    x = values[:, 0]
    if band and np.isfinite(x).any():
        assert signal.rate is not None
        x = bandpass(x, signal.rate, *band)
    inside = (times >= a) & (times < b)
    if not np.isfinite(x[inside]).any():
        note(ax, "no signal here", 0.5, 0.5, ha="center", va="center")
        return
    ax.plot(1e3 * (times[inside] - peak), x[inside], color=ACCENT if band else INK, linewidth=0.7)


def _draw_raster(ax: Axes, recording: Recording, a: float, b: float, order: ArrayLike | None, peak: float) -> None:
    assert recording.spikes is not None
    ids = recording.spikes.units["id"].to_numpy() if order is None else np.atleast_1d(np.asarray(order))
    place = {int(u): i for i, u in enumerate(ids)}
    times, units = recording.spikes.span(a, b)
    keep = np.isin(units, ids)
    y = np.array([place[int(u)] for u in units[keep]], dtype=float)
    size = 0.42 if len(ids) < 80 else 0.8
    ax.vlines(1e3 * (times[keep] - peak), y - size, y + size, color=INK, linewidth=0.9)
    ax.set_ylim(-0.8, len(ids) - 0.2)


def _draw_posterior(ax: Axes, posterior: xr.DataArray, peak: float) -> None:
    p = posterior.transpose("time", "position")
    t, x = p.coords["time"].to_numpy(), p.coords["position"].to_numpy()
    if p.size == 0:
        note(ax, "not decoded", 0.5, 0.5, ha="center", va="center")
        return
    values = p.to_numpy()
    top = max(float(np.nanpercentile(values, 99.5)), 1e-12)
    ax.pcolormesh(1e3 * (_edges(t) - peak), _edges(x), values.T, cmap="Greys", vmin=0, vmax=top, shading="flat", rasterized=True)


def _edges(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    c = np.asarray(centres, dtype=np.float64)
    if len(c) == 1:
        return np.array([c[0] - 0.01, c[0] + 0.01])
    middle = (c[1:] + c[:-1]) / 2
    return np.r_[2 * c[0] - middle[0], middle, 2 * c[-1] - middle[-1]]


# -- a few seconds of everything ------------------------------------------------------------------------------------------
def snippet_figure(
    recording: Recording, start: float, stop: float, *, events: EventTable | None = None, hypnogram: Hypnogram | None = None, most_channels: int = 8,
) -> Figure:  # fmt: skip
    """Raw traces and spikes in [start, stop), as they were recorded, with events shaded.

    Parameters
    ----------
    most_channels : int
        Channels drawn of each signal.

    Raises
    ------
    InputError
        If the span is empty.
    MissingDataError
        If the recording holds nothing there.
    """
    if not stop > start:
        raise InputError(f"{recording.id}: the span [{start}, {stop}) s is empty, expected start < stop")
    traces = [(k, s) for k, s in recording.signals.items() if s.n_samples and s.start < stop and s.stop > start and "features" not in set(s.channels["kind"])]
    times, units = recording.spikes.span(start, stop) if recording.spikes is not None else (np.empty(0), np.empty(0, dtype=np.int32))
    if not traces and not len(times):
        raise MissingDataError(f"{recording.id}: nothing was recorded in {start:g}-{stop:g} s (it holds {recording.start:g}-{recording.stop:g} s)")
    heights = [0.35 + 0.32 * min(s.n_channels, most_channels) for _, s in traces] + ([1.4] if len(times) else [])
    fig = new_figure(0.6 + sum(heights))
    axes = fig.subplots(len(heights), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for ax, (name, signal) in zip(axes, traces):
        _draw_stack(ax, name, signal, start, stop, most_channels)
    if len(times) and recording.spikes is not None:
        ids = recording.spikes.units["id"].to_numpy()
        y = np.searchsorted(np.sort(ids), units)
        axes[-1].vlines(times, y - 0.42, y + 0.42, color=INK, linewidth=0.6)
        axes[-1].set_ylim(-0.8, len(ids) - 0.2)
        axes[-1].set_ylabel("unit")
        axes[-1].set_title(f"spikes of {len(ids)} units (n = {len(times)})", loc="left")
    _shade(axes, start, stop, events, hypnogram)
    for ax in axes:
        time_axis(ax, start, stop, label=ax is axes[-1])
    fig.align_ylabels(axes)
    return finish(fig)


def _draw_stack(ax: Axes, name: str, signal: Signal, start: float, stop: float, most: int) -> None:
    part = signal.pick(list(range(min(most, signal.n_channels))))
    times, values = part.span(start, stop)
    # A screen shows a thousand columns: thin what is denser than eight samples a column.
    step = max(1, len(times) // 8000)
    times, values = times[::step], values[::step].astype(np.float64)
    spread = np.nanmax(np.nanpercentile(np.abs(values - np.nanmedian(values, 0)), 99, axis=0)) if np.isfinite(values).any() else 1.0
    gap = 2.2 * (spread if spread > 0 else 1.0)
    for k in range(values.shape[1]):
        middle = np.nanmedian(values[:, k]) if np.isfinite(values[:, k]).any() else 0.0
        ax.plot(times, values[:, k] - middle - k * gap, color=INK, linewidth=0.5)
    ax.set_yticks([-k * gap for k in range(values.shape[1])], part.names)
    ax.set_ylim(-(values.shape[1] - 0.35) * gap, 0.65 * gap)
    bar = float(f"{gap / 2:.0e}")
    x = start + 0.004 * (stop - start)
    ax.plot([x, x], [-bar / 2, bar / 2], color=CONTENT[1], linewidth=2, solid_capstyle="butt")
    more = f", {part.n_channels} of {signal.n_channels} channels" if part.n_channels < signal.n_channels else ""
    rate = "irregular" if signal.rate is None else f"{signal.rate:g} Hz"
    ax.set_title(f"{name} ({rate}{more}; red bar {bar:g} {_unit(signal)})", loc="left")


def _shade(axes: Sequence[Axes], start: float, stop: float, events: EventTable | None, hypnogram: Hypnogram | None) -> None:
    if events is not None and len(events):
        seen = (events.start < stop) & (events.stop > start)
        colours = content_colours(events.content)
        for a, b, c in zip(events.start[seen], events.stop[seen], events.content[seen]):
            for ax in axes:
                ax.axvspan(a, max(b, a + 1e-3), color=colours[str(c)] if str(c) else GREY, alpha=0.18, linewidth=0, zorder=0)
    if hypnogram is not None and len(hypnogram):
        top = axes[0]
        for _, bout in hypnogram.bouts().iterrows():
            a, b = max(bout["start"], start), min(bout["start"] + bout["duration"], stop)
            if a < b:
                top.plot([a, b], [1.0, 1.0], transform=top.get_xaxis_transform(), color=STAGE_COLOURS.get(bout["stage"], FAINT), linewidth=4,
                         solid_capstyle="butt", clip_on=False)  # fmt: skip
                if b - a > 0.06 * (stop - start):
                    top.text((a + b) / 2, 1.04, bout["stage"], transform=top.get_xaxis_transform(), ha="center", va="bottom", fontsize=7, color=INK)
