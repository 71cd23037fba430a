"""Place fields, how well they decode, and what the population replayed."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from brainmu.core import EventTable
from brainmu.errors import InputError
from brainmu.replay.contexts import Context
from brainmu.replay.fields import PlaceFields
from brainmu.report.figures.style import ACCENT, CONTENT, FAINT, GREY, INK, content_colours, finish, histogram_edges, new_figure, note, panel_letters, time_axis

__all__ = ["decoding_figure", "fields_figure", "replay_figure", "track_figure"]

_RED = CONTENT[1]
_SILENT = 1.0
"""Peak rate, Hz, below which a unit has no row among the fields."""


def fields_figure(fields: PlaceFields | Mapping[str, PlaceFields], *, most: int = 24) -> Figure:
    """Place fields: along a track every unit as a row sorted by its peak (one panel a context); in two dimensions a map a unit.

    Rows of all contexts are sorted by the first, so that remapping shows. Units that never reach 1 Hz have no row.

    Parameters
    ----------
    most : int
        Maps drawn in two dimensions, those of most spatial information first.

    Raises
    ------
    InputError
        If there are no units.
    """
    named = {fields.context or "track": fields} if isinstance(fields, PlaceFields) else dict(fields)
    first = next(iter(named.values()), None)
    if first is None or not len(first.units):
        raise InputError("there are no place fields to draw, expected at least one unit")
    return _rows_of_fields(named) if len(first.edges) == 1 else _maps(first, most)


def _rows_of_fields(named: dict[str, PlaceFields]) -> Figure:
    first = next(iter(named.values()))
    # A unit that is silent everywhere has no field; its noise, stretched to full scale, would look like one.
    loudest = {int(u): max(float(np.nanmax(f.rate[list(f.units).index(u)])) for f in named.values() if u in f.units) for u in first.units}
    order = np.array([i for i in np.argsort(first.peak[:, 0], kind="stable") if loudest[int(first.units[i])] >= _SILENT], dtype=np.intp)
    silent = len(first.units) - len(order)
    order = np.argsort(first.peak[:, 0], kind="stable") if not len(order) else order
    ids = first.units[order]
    n = len(named)
    fig = new_figure(float(np.clip(1.3 + 0.045 * len(ids), 2.6, 5.5)), width=9.0 if n > 1 else 6.5)
    axes = fig.subplots(1, n + 1, gridspec_kw={"width_ratios": [*[1.0] * n, 0.55]}, squeeze=False)[0]
    mesh = None
    for k, (ax, (name, f)) in enumerate(zip(axes, named.items())):
        at = {int(u): i for i, u in enumerate(f.units)}
        rate = np.stack([f.rate[at[int(u)]] if int(u) in at else np.full(f.rate.shape[1], np.nan) for u in ids])
        with np.errstate(invalid="ignore"):
            top = np.nanmax(np.where(np.isfinite(rate), rate, -np.inf), axis=1, keepdims=True)
            relative = np.where(top > 0, rate / top, np.nan)
        ax.set_facecolor("#eceff2")
        edges = f.edges[0]
        mesh = ax.pcolormesh(edges, np.arange(len(ids) + 1), np.ma.masked_invalid(relative), cmap="magma", vmin=0, vmax=1, rasterized=True)
        ax.set_xlabel(f"position along the track ({f.unit or 'unit unknown'})")
        ax.set_title(f"{name} ({f.seconds:.0f} s of running)" if n > 1 else f"{f.seconds:.0f} s of running", loc="left")
        if k:
            ax.tick_params(labelleft=False)
    axes[0].yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    axes[0].set_ylabel(f"unit, sorted by peak{' in ' + next(iter(named)) if n > 1 else ''}")
    bar = fig.colorbar(mesh, ax=axes[:-1].tolist(), pad=0.01, fraction=0.03, aspect=30)
    bar.set_label("rate / peak rate of the unit")
    bar.outline.set_visible(False)
    _peak_rates(axes[-1], first)
    if 0 < silent < len(first.units):
        axes[-1].set_title(f"n = {len(first.units)} units, {silent} silent", loc="left")
    panel_letters(axes.tolist())
    return finish(fig)


def _peak_rates(ax: Axes, f: PlaceFields) -> None:
    peaks = np.nanmax(f.rates, axis=1)
    ax.hist(peaks, histogram_edges(peaks, bins=14), color=ACCENT, linewidth=0)
    ax.set_xlabel("peak rate (Hz)")
    ax.set_ylabel("units")
    ax.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.set_title(f"n = {len(peaks)} units", loc="left")


def _maps(f: PlaceFields, most: int) -> Figure:
    order = np.argsort(-f.information, kind="stable")[:most]
    columns = 8
    rows = int(np.ceil(len(order) / columns))
    x, y = f.edges[0], f.edges[1]
    fig = new_figure(0.55 + 1.35 * rows)
    axes = fig.subplots(rows, columns, squeeze=False).ravel()
    for ax in axes[len(order) :]:
        ax.set_axis_off()
    for ax, k in zip(axes, order):
        top = float(np.nanmax(f.rate[k]))
        ax.pcolormesh(x, y, np.ma.masked_invalid(f.rate[k].T), cmap="magma", vmin=0, vmax=max(top, 1e-9), rasterized=True)
        ax.set_aspect("equal")
        ax.set_facecolor("#eceff2")
        ax.set_xticks([])
        ax.set_yticks([])
        for spine in ax.spines.values():
            spine.set_visible(False)
        ax.set_title(f"unit {f.units[k]}, {top:.1f} Hz", loc="left")
    fig.suptitle(
        f"{len(order)} of {len(f.units)} units, most spatial information first; each map {x[-1] - x[0]:.3g} × {y[-1] - y[0]:.3g} {f.unit or '(unit unknown)'},"
        " from 0 Hz (black) to the peak rate named",
        x=0.01, ha="left", fontsize=8, color=INK,
    )  # fmt: skip
    finish(fig)
    for ax in axes[: len(order)]:
        ax.spines[:].set_visible(False)
        ax._left_title.set_size(7)  # type: ignore[attr-defined]
    return fig


def track_figure(contexts: Mapping[str, Context], *, most: int = 3) -> Figure:
    """Where the animal ran in each context, coloured by the coordinate along its track, and that coordinate over time.

    A coordinate that jumps, or a track that misses part of the path, spoils every field and every decoded event: look here first.

    Parameters
    ----------
    contexts : mapping of name to Context
        From :func:`brainmu.replay.contexts.fit_contexts`.

    Raises
    ------
    InputError
        If there are no contexts.
    """
    named = dict(list(contexts.items())[:most])
    if not named:
        raise InputError("there are no contexts to draw, expected at least one")
    fig = new_figure(0.4 + 2.2 * len(named))
    grid = fig.subplots(len(named), 2, squeeze=False, gridspec_kw={"width_ratios": [1, 2.2]})
    for (name, c), (path, time) in zip(named.items(), grid):
        unit = c.track.unit or "unit unknown"
        places = c.track.places
        y = places[:, 1] if places.shape[1] > 1 else np.zeros(len(places))
        dots = path.scatter(places[:, 0], y, c=c.track.coordinate, s=7, cmap="viridis", linewidths=0, rasterized=True)
        path.set_aspect("equal", adjustable="datalim")
        path.set_xlabel(f"x ({unit})")
        path.set_ylabel(f"y ({unit})" if places.shape[1] > 1 else "")
        path.set_title(f"{name}: track of {c.track.extent:.3g} {unit}", loc="left")
        bar = fig.colorbar(dots, ax=path, fraction=0.05, pad=0.02)
        bar.set_label(f"along the track ({unit})")
        bar.outline.set_visible(False)
        times, values = c.position.times, c.position.values[:, 0]
        inside = c.epochs.contains(times)
        ran = c.ran.contains(times)
        time.plot(times[inside], values[inside], ".", color=FAINT, markersize=1.2, rasterized=True, label="still")
        time.plot(times[ran], values[ran], ".", color=ACCENT, markersize=1.2, rasterized=True, label="running")
        shown = times[inside]
        if len(shown):
            time_axis(time, float(shown[0]), float(shown[-1]))
        time.set_ylabel(f"along the track ({unit})")
        time.legend(loc="upper right", markerscale=6, ncols=2, borderaxespad=0.1, handlelength=0.8)
        time.margins(y=0.2)
        time.set_title(f"{c.ran.duration:.0f} s of running, {100 * c.track.on_track:.0f} % of it on the track", loc="left")
    panel_letters([ax for row in grid for ax in row])
    return finish(fig)


# -- decoding ------------------------------------------------------------------------------------------------------------
def decoding_figure(true: ArrayLike, decoded: ArrayLike, *, unit: str = "m", bin_size: float | None = None, folds: int | None = None, seed: int = 0) -> Figure:
    """Decoded against true position on running the decoder had not seen, and the errors against chance.

    Parameters
    ----------
    true, decoded : float (bin,) or (bin, dimension), `unit`
    bin_size : float or None, s
    folds : int or None
        Of the cross-validation, to be stated.
    seed : int
        Of the shuffle that gives chance: the same decoded positions against the true ones of other bins.

    Raises
    ------
    InputError
        If the shapes differ or no bin is finite in both.
    """
    t, d = (np.asarray(v, dtype=np.float64) for v in (true, decoded))
    t, d = (v[:, None] if v.ndim == 1 else v for v in (t, d))
    if t.shape != d.shape:
        raise InputError(f"true positions have shape {t.shape} and decoded ones {d.shape}, expected the same")
    known = np.isfinite(t).all(1) & np.isfinite(d).all(1)
    t, d = t[known], d[known]
    if not len(t):
        raise InputError("no time bin has both a true and a decoded position, so there is no decoding to draw")
    error = np.linalg.norm(t - d, axis=1)
    chance = np.linalg.norm(t - d[np.random.default_rng(seed).permutation(len(d))], axis=1)
    fig = new_figure(3.0)
    left, middle, right = fig.subplots(1, 3, gridspec_kw={"width_ratios": [1, 1.5, 1]})
    u = unit or "unit unknown"
    lo, hi = float(min(t[:, 0].min(), d[:, 0].min())), float(max(t[:, 0].max(), d[:, 0].max()))
    edges = histogram_edges([lo, hi], bins=40)
    counts, _, _ = np.histogram2d(t[:, 0], d[:, 0], bins=(edges, edges))
    with np.errstate(invalid="ignore"):
        left.pcolormesh(edges, edges, (counts / np.maximum(counts.sum(1, keepdims=True), 1)).T, cmap="Greys", rasterized=True)
    left.plot([lo, hi], [lo, hi], color=_RED, linewidth=0.7)
    axis = "" if t.shape[1] == 1 else " x"
    left.set_xlabel(f"true{axis} ({u})")
    left.set_ylabel(f"decoded{axis} ({u})")
    left.set_title("share of decoded, by true", loc="left")
    part = slice(0, min(len(t), 240))
    steps = np.arange(part.stop) * (bin_size or 1.0)
    middle.plot(steps, t[part, 0], color=INK, linewidth=1.2, label="true")
    middle.plot(steps, d[part, 0], ".", color=_RED, markersize=3, label="decoded")
    middle.set_xlabel("running time (s)" if bin_size else "running time (bins)")
    middle.set_ylabel(f"position{axis} ({u})")
    middle.set_ylim(lo - 0.02 * (hi - lo), hi + 0.22 * (hi - lo))
    middle.legend(loc="upper right", ncols=2, borderaxespad=0.1)
    middle.set_title(f"first {part.stop} of {len(t)} bins", loc="left")
    _errors(right, error, chance, u)
    how = ", ".join(x for x in (f"{folds} folds" if folds else "", f"bins of {1e3 * bin_size:.0f} ms" if bin_size else "") if x)
    right.set_title(how or "decoding error", loc="left")
    panel_letters([left, middle, right])
    return finish(fig)


def _errors(ax: Axes, error: NDArray[np.float64], chance: NDArray[np.float64], unit: str) -> None:
    share = np.arange(1, len(error) + 1) / len(error)
    for values, colour, name in ((error, ACCENT, "decoded"), (chance, GREY, "chance")):
        ax.plot(np.sort(values), share, color=colour, linewidth=1.5, label=f"{name}, median {np.median(values):.3g} {unit}")
    ax.set_xlim(0, float(np.percentile(chance, 99)) or None)
    ax.set_ylim(0, 1.35)
    ax.set_yticks([0, 0.5, 1])
    ax.set_xlabel(f"error ({unit})")
    ax.set_ylabel(f"share of bins (n = {len(error)})")
    ax.legend(loc="upper left", borderaxespad=0.1, handlelength=1.2)


# -- what was replayed ----------------------------------------------------------------------------------------------------
def replay_figure(events: EventTable, *, null: ArrayLike | None = None, score: str = "score", alpha: float = 0.05) -> Figure:
    """Candidate events at a glance: score against its null, p-values against uniform, contents, durations.

    Parameters
    ----------
    null : float (n,) or None
        Scores of shuffled events; ``events.attrs["null_scores"]`` where None.
    score : str
        Column drawn; left out where the table has none of that name.

    Raises
    ------
    InputError
        If there are no events.
    """
    if not len(events):
        raise InputError("the replay table is empty: no candidate event was scored, so there is nothing to draw")
    frame = events.to_frame()
    panels: list[str] = (["score"] if score in frame else []) + (["p"] if "p_value" in frame else []) + ["content", "duration"]
    fig = new_figure(2.6)
    axes = fig.subplots(1, len(panels), squeeze=False)[0]
    p = frame["p_value"].to_numpy(dtype=float) if "p_value" in frame else None
    for panel, ax in zip(panels, axes):
        if panel == "score":
            given = events.attrs.get("null_scores") if null is None else null
            # The table holds quantiles of its null, so their number says nothing.
            label = "" if null is not None else f"{events.attrs['null_sessions']} null sessions" if "null_sessions" in events.attrs else ""
            _scores(ax, frame[score].to_numpy(dtype=float), None if given is None else np.ravel(np.asarray(given, dtype=float)), score, label)
        elif panel == "p" and p is not None:
            _p_values(ax, p, alpha)
        elif panel == "content":
            _contents(ax, events, p, alpha)
        else:
            _durations(ax, events)
    panel_letters(axes.tolist())
    return finish(fig)


def _scores(ax: Axes, values: NDArray[np.float64], null: NDArray[np.float64] | None, name: str, label: str = "") -> None:
    values = values[np.isfinite(values)]
    edges = histogram_edges(values, *([] if null is None else [null]), bins=30)
    if null is not None and np.isfinite(null).any():
        null = null[np.isfinite(null)]
        ax.hist(null, edges, weights=np.full(len(null), 1 / len(null)), color=FAINT, label=label or f"shuffled (n = {len(null)})")
    ax.hist(
        values, edges, weights=np.full(len(values), 1 / max(len(values), 1)), histtype="step", color=ACCENT, linewidth=1.4, label=f"events (n = {len(values)})"
    )
    ax.set_xlabel(name.replace("_", " "))
    ax.set_ylabel("share")
    ax.margins(y=0.3)
    ax.legend(loc="upper right", borderaxespad=0.1, handlelength=1.2)
    ax.set_title("score" + (" against its null" if null is not None else ""), loc="left")


def _p_values(ax: Axes, p: NDArray[np.float64], alpha: float) -> None:
    p = p[np.isfinite(p)]
    ax.hist(p, np.linspace(0, 1, 21), color=ACCENT, linewidth=0)
    ax.axhline(len(p) / 20, color=_RED, linewidth=1, linestyle=(0, (4, 2)))
    ax.margins(y=0.45)
    note(ax, f"dashed: chance alone\n{np.count_nonzero(p < alpha)} of {len(p)} at p < {alpha:g}\n({alpha * len(p):.1f} expected by chance)")
    ax.set_xlim(0, 1)
    ax.set_xlabel("p-value")
    ax.set_ylabel("events")
    ax.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.set_title("significance", loc="left")


def _contents(ax: Axes, events: EventTable, p: NDArray[np.float64] | None, alpha: float) -> None:
    content = np.array([str(c) for c in events.content])
    colours = content_colours(content)
    names = sorted(set(content), key=lambda c: (c == "", c))
    for i, name in enumerate(names):
        mine = content == name
        ax.bar(i, mine.sum(), 0.7, color=colours[name], alpha=0.35 if p is not None else 1.0, linewidth=0)
        text = f"{mine.sum()}"
        if p is not None:
            found = int((mine & (p < alpha)).sum())
            ax.bar(i, found, 0.7, color=colours[name], linewidth=0)
            text = f"{found} of {mine.sum()}"
        ax.text(i, mine.sum(), text, ha="center", va="bottom", fontsize=7, color=INK)
    ax.set_xticks(range(len(names)), [n or "unknown" for n in names])
    ax.set_xlim(-0.8, len(names) - 0.2)
    ax.margins(y=0.12)
    ax.set_ylabel("events")
    ax.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.set_xlabel("content" + (f" (full colour: p < {alpha:g})" if p is not None else ""))
    ax.set_title("what", loc="left")


def _durations(ax: Axes, events: EventTable) -> None:
    ms = 1e3 * events.duration
    ax.hist(ms, histogram_edges(ms, bins=25), color=ACCENT, linewidth=0)
    ax.axvline(float(np.median(ms)), color=_RED, linewidth=1)
    ax.margins(y=0.15)
    note(ax, f"median {np.median(ms):.0f} ms")
    ax.set_xlabel("duration (ms)")
    ax.set_ylabel("events")
    ax.yaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.set_title(f"how long (n = {len(ms)})", loc="left")
