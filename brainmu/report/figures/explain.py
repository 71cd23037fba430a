"""What a head used: attribution by channel, unit, band and time, drawn on one diverging scale with its unit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from brainmu.core import EventTable, Hypnogram
from brainmu.errors import InputError
from brainmu.explain.checks import ATTENTION
from brainmu.report.figures.sleep import draw_hypnogram
from brainmu.report.figures.style import ACCENT, CONTENT, GREY, INK, finish, new_figure, panel_letters, time_axis

__all__ = ["attribution_figure", "curves_figure"]

_AXES = ("channel", "unit", "latent", "dimension", "band", "time")


def attribution_figure(
    attribution: xr.DataArray | xr.Dataset, *, hypnogram: Hypnogram | None = None, events: EventTable | None = None, most_channels: int = 24
) -> Figure:
    """Attribution maps: channel x band, channel x time (with the hypnogram above and events marked), and bars for single axes.

    Parameters
    ----------
    attribution : DataArray or Dataset
        Axes among `channel`, `unit`, `latent`, `dimension`, `band`, `time` (s, session clock), also with the stream's name behind
        (``time_lfp``); any other axis is averaged. A Dataset gives panels for each variable. ``attrs["unit"]`` names what is attributed (log odds,
        say), ``attrs["target"]`` the read-out.

    Raises
    ------
    InputError
        If no axis is known, or nothing in it is finite.
    """
    given = attribution.data_vars.items() if isinstance(attribution, xr.Dataset) else [(attribution.name or "attribution", attribution)]
    arrays = {str(k): _plain_axes(v) for k, v in given}
    shared = dict(attribution.attrs)
    panels: list[tuple[str, str, xr.DataArray]] = []
    for name, a in arrays.items():
        if a.dtype.kind in "fiu" and set(a.dims) & set(_AXES) and np.isfinite(a.to_numpy().astype(np.float64)).any():
            a = a.mean([d for d in a.dims if d not in _AXES], keep_attrs=True)
            panels += [(name, what, part) for what, part in _views(a)]
    if not panels:
        have = ", ".join(f"{k} ({', '.join(map(str, v.dims))})" for k, v in arrays.items())
        raise InputError(f"attribution holds {have or 'nothing'}, expected finite values over channel, unit, band or time")
    over_time = [p for p in panels if p[1] == "time"][:4]
    still = [p for p in panels if p[1] != "time"][:4]
    return _layout(over_time, still, shared, hypnogram, events, most_channels)


def _plain_axes(a: xr.DataArray) -> xr.DataArray:
    """The same array with ``time_lfp`` called time, ``channel_lfp`` channel."""
    short = {d: str(d).split("_")[0] for d in a.dims if str(d).split("_")[0] in _AXES and str(d) not in _AXES}
    free = {d: s for d, s in short.items() if s not in a.dims and s not in a.coords and list(short.values()).count(s) == 1}
    return a.rename(free)


def _views(a: xr.DataArray) -> list[tuple[str, xr.DataArray]]:
    """The two-dimensional (else one-dimensional) pictures that an array of up to four axes gives, others summed."""
    who = next((d for d in ("channel", "unit", "latent", "dimension") if d in a.dims), None)
    out: list[tuple[str, xr.DataArray]] = []
    rest = [d for d in a.dims if d != "time"]
    if rest:
        keep = [d for d in (who, "band") if d in a.dims]
        # Attributions add up: over an axis that is not drawn they are summed; over time they are averaged.
        still = a.mean("time", keep_attrs=True) if "time" in a.dims else a
        out.append(("still", still.sum([d for d in still.dims if d not in keep], skipna=True, keep_attrs=True).transpose(*keep)))
    if "time" in a.dims and a.sizes["time"] > 1:
        row = who or ("band" if "band" in a.dims else None)
        moving = a.sum([d for d in a.dims if d not in (row, "time")], skipna=True, keep_attrs=True)
        out.append(("time", moving.transpose(*([row] if row else []), "time")))
    return out


def _layout(
    over_time: list[tuple[str, str, xr.DataArray]], still: list[tuple[str, str, xr.DataArray]], shared: dict, hypnogram: Hypnogram | None,
    events: EventTable | None, most: int,
) -> Figure:  # fmt: skip
    heights = ([max(2.4, 1.1 + 0.15 * min(most, max(p[2].shape[0] for p in still)))] if still else []) + ([0.9] if over_time and hypnogram is not None else [])
    heights += [1.5 if p[2].ndim == 2 else 1.1 for p in over_time]
    fig = new_figure(0.5 + sum(heights))
    grid = fig.add_gridspec(len(heights), 1, height_ratios=heights)
    letters: list[Axes] = []
    row = 0
    if still:
        inner = grid[0].subgridspec(1, len(still))
        for k, (name, _, a) in enumerate(still):
            ax = fig.add_subplot(inner[0, k])
            _draw_still(fig, ax, name, a, shared, most)
            letters.append(ax)
        row = 1
    if over_time:
        spans = [_span(a) for _, _, a in over_time]
        span = (min(s[0] for s in spans), max(s[1] for s in spans))
        if hypnogram is not None:
            ax = fig.add_subplot(grid[row])
            draw_hypnogram(ax, hypnogram)
            time_axis(ax, *span, label=False)
            row += 1
        for k, (name, _, a) in enumerate(over_time):
            ax = fig.add_subplot(grid[row + k])
            _draw_moving(fig, ax, name, a, shared, events, span, most)
            time_axis(ax, *span, label=k == len(over_time) - 1)
            letters.append(ax)
    if len(letters) > 1:
        panel_letters(letters)
    target = shared.get("target") or next((a.attrs["target"] for _, _, a in [*still, *over_time] if a.attrs.get("target")), "")
    what = f"attribution to {target}: red speaks for it, blue against it" if target else "attribution: red for the target, blue against it"
    if all(a.attrs.get("unit") == ATTENTION for _, _, a in [*still, *over_time]):
        what = "attention rollout: where the network reads; not an attribution of the output"
    _title(fig, what, shared)
    return finish(fig)


def _title(fig: Figure, what: str, attrs: Mapping[Any, Any]) -> None:
    """The title; of a map that failed its checks this is said first, so that the picture cannot be used without it."""
    failed = str(attrs.get("verdict", "")).startswith("failed")
    fig.suptitle(f"FAILED ITS CHECKS: {what}" if failed else what, x=0.995, ha="right", fontsize=7.5, color=CONTENT[1] if failed else INK)


def curves_figure(attrs: Mapping[Any, Any]) -> Figure:
    """Deletion and insertion curves in the order of a map, beside random orders.

    Parameters
    ----------
    attrs : mapping
        Of a map from :func:`brainmu.explain.attribute`: curve_share, deletion, insertion, random_deletion, random_insertion (step,), and their areas.

    Raises
    ------
    InputError
        If they are not there.
    """
    wanted = ("curve_share", "deletion", "insertion", "random_deletion", "random_insertion")
    if absent := [k for k in wanted if k not in attrs]:
        raise InputError(f"the map's attributes hold no {absent[0]}, expected {', '.join(wanted)}: attribute with check=True, not by layer conductance")
    share = np.asarray(attrs["curve_share"], dtype=np.float64)
    fig = new_figure(2.4)
    for ax, what in zip(fig.subplots(1, 2, sharey=True), ("deletion", "insertion")):
        ax.axhline(0, color=GREY, linewidth=0.6)
        ax.plot(share, np.asarray(attrs[f"random_{what}"], dtype=np.float64), color=GREY, linestyle="--", label="random order (mean)")
        ax.plot(share, np.asarray(attrs[what], dtype=np.float64), color=ACCENT, marker="o", markersize=3, label="order of the map")
        area = f": area {attrs[f'{what}_auc']:.2f}, random {attrs[f'random_{what}_auc']:.2f}" if f"{what}_auc" in attrs else ""
        ax.set_xlabel("share of the parts taken away" if what == "deletion" else "share of the parts given back")
        ax.set_title(f"{what}{area}", loc="left")
    fig.axes[0].set_ylabel("log odds, of the whole input's")
    fig.axes[0].legend(loc="upper right")
    _title(fig, f"deletion and insertion for {attrs.get('target', 'the target')}", attrs)
    return finish(fig)


def _times(a: xr.DataArray) -> NDArray[np.float64]:
    return a.coords["time"].to_numpy().astype(np.float64) if "time" in a.coords else np.arange(a.sizes["time"], dtype=np.float64)


def _span(a: xr.DataArray) -> tuple[float, float]:
    t = _times(a)
    return float(t[0]), float(t[-1] + np.median(np.diff(t)))


def _on_grid(a: xr.DataArray, span: tuple[float, float], columns: int = 900) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Edges (column + 1,), s, and values (…, column), averaged over the samples of a column; NaN where nothing was attributed.

    Maps are made of some epochs only, so that the times may have holes.
    """
    t = _times(a)
    step = float(np.median(np.diff(t)))
    columns = int(np.clip(np.ceil((span[1] - span[0]) / step - 1e-6), 1, columns))
    edges = np.linspace(span[0], span[1], columns + 1)
    # A sample covers its step: columns finer than that would leave stripes.
    place = np.clip(np.searchsorted(edges, t + step / 2, side="right") - 1, 0, columns - 1)
    values = a.to_numpy().astype(np.float64).reshape(-1, len(t))
    total, n = np.zeros((len(values), columns)), np.bincount(place, minlength=columns)
    for row, out in zip(values, total):
        out += np.bincount(place, np.nan_to_num(row), minlength=columns)
    with np.errstate(invalid="ignore", divide="ignore"):
        return edges, np.where(n > 0, total / n, np.nan).reshape(*a.shape[:-1], columns)


def _unit_of(a: xr.DataArray, shared: dict) -> str:
    """The unit alone: a colour bar's label must not be longer than its panel, or the layout gives way."""
    return str(next((m[k] for m in (a.attrs, shared) for k in ("unit", "units") if m.get(k)), "a.u."))


def _strongest(a: xr.DataArray, most: int) -> tuple[xr.DataArray, str]:
    """The first axis cut to its `most` strongest entries, in their own order, and a remark that says so."""
    if a.shape[0] <= most:
        return a, ""
    strength = np.nansum(np.abs(a.to_numpy().reshape(a.shape[0], -1)), axis=1)
    keep = np.sort(np.argsort(-strength, kind="stable")[:most])
    return a.isel({a.dims[0]: keep}), f", strongest {most} of {a.shape[0]}"


def _labels(a: xr.DataArray, dim: str) -> list[str]:
    values = a.coords[dim].to_numpy() if dim in a.coords else np.arange(a.sizes[dim])
    # netCDF 3 hands names back as bytes.
    return [(v.decode() if isinstance(v, bytes) else str(v)).replace("uV", "µV") for v in values]


def _draw_still(fig: Figure, ax: Axes, name: str, a: xr.DataArray, shared: dict, most: int) -> None:
    if "band" in a.dims and a.ndim == 2 and (held := (a != 0).any(a.dims[0])).any():
        a = a[:, held.to_numpy()]  # bands above half the rate, which the recording cannot hold, are no shares of 0
    a, remark = _strongest(a, most)
    rows = _labels(a, str(a.dims[0]))
    if a.ndim == 1:
        y = np.arange(len(rows))[::-1]
        value = a.to_numpy().astype(float)
        ax.barh(y, value, 0.75, color=np.where(value >= 0, CONTENT[1], ACCENT), linewidth=0)
        ax.axvline(0, color=GREY, linewidth=0.6)
        ax.set_yticks(y, rows)
        ax.set_xlabel(_unit_of(a, shared))
    else:
        value = a.to_numpy().astype(float)
        reach = float(np.nanmax(np.abs(value))) or 1.0
        mesh = ax.pcolormesh(np.arange(value.shape[1] + 1), np.arange(len(rows) + 1), value[::-1], cmap="RdBu_r", vmin=-reach, vmax=reach, rasterized=True)
        ax.set_xticks(np.arange(value.shape[1]) + 0.5, _labels(a, str(a.dims[1])), rotation=30, ha="right", rotation_mode="anchor")
        ax.set_yticks(np.arange(len(rows)) + 0.5, rows[::-1])
        ax.set_xlabel(str(a.dims[1]))
        bar = fig.colorbar(mesh, ax=ax, pad=0.02, fraction=0.05)
        bar.set_label(_unit_of(a, shared))
        bar.outline.set_visible(False)
    ax.set_ylabel(str(a.dims[0]))
    ax.set_title(f"{name}{remark}", loc="left")


def _draw_moving(fig: Figure, ax: Axes, name: str, a: xr.DataArray, shared: dict, events: EventTable | None, span: tuple[float, float], most: int) -> None:
    remark = ""
    if a.ndim == 1:
        edges, value = _on_grid(a, span)
        middle = (edges[:-1] + edges[1:]) / 2
        ax.fill_between(middle, 0, value, where=value >= 0, color=CONTENT[1], linewidth=0, step="mid")
        ax.fill_between(middle, 0, value, where=value < 0, color=ACCENT, linewidth=0, step="mid")
        ax.axhline(0, color=GREY, linewidth=0.6)
        ax.set_ylabel(_unit_of(a, shared))
    else:
        a, remark = _strongest(a, most)
        edges, value = _on_grid(a, span)
        ax.set_facecolor("#eceff2")
        reach = float(np.nanpercentile(np.abs(value), 99.5)) or 1.0
        mesh = ax.pcolormesh(edges, np.arange(a.shape[0] + 1), np.ma.masked_invalid(value[::-1]), cmap="RdBu_r", vmin=-reach, vmax=reach,
                             rasterized=True)  # fmt: skip
        rows = _labels(a, str(a.dims[0]))[::-1]
        every = max(1, int(np.ceil(len(rows) / 8)))
        ax.set_yticks(np.arange(0, len(rows), every) + 0.5, rows[::every])
        ax.set_ylabel(str(a.dims[0]))
        bar = fig.colorbar(mesh, ax=ax, pad=0.008, fraction=0.02, aspect=14)
        bar.set_label(_unit_of(a, shared))
        bar.outline.set_visible(False)
    marked = ""
    peaks = np.empty(0) if events is None else events.peak[(events.peak >= span[0]) & (events.peak < span[1])]
    if len(peaks):  # an empty unclipped line would have an endless extent, and the layout would collapse
        ax.plot(peaks, np.full(len(peaks), 1.02), "v", color=CONTENT[2], markersize=2.5, transform=ax.get_xaxis_transform(), clip_on=False)
        marked = f"; triangles: {len(peaks)} events"
    ax.set_title(f"{name} over time{remark}{marked}", loc="left", pad=8 if marked else None)
