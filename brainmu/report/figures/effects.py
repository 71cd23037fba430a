"""An effect with what one needs to doubt it: its null, its interval, its animals, and the level of evidence in words."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from brainmu.core import Effect
from brainmu.errors import InputError
from brainmu.report.figures.style import ACCENT, CONTENT, FAINT, GREY, INK, finish, histogram_edges, new_figure, note, panel_letters

__all__ = ["LEVEL_WORDS", "effect_figure", "intervention_figure"]

LEVEL_WORDS = {
    "experimental": "experimental: assignment was randomised",
    "observational": "observational: rests on the stated assumptions",
    "model": "in the model: says nothing of a brain",
}
_RED = CONTENT[1]


def effect_figure(effect: Effect) -> Figure:
    """The estimate and its 95 % interval over its null; then whatever the diagnostics hold: risk by arm over time, animals, lags, contents, controls.

    Reads from ``effect.diagnostics``, where present: ``horizons`` (list of seconds, risk_assigned, risk_control), ``animals`` (list of
    risk_assigned, risk_control, or of estimate, se), ``lag_scan`` (list of lag, estimate, low, high), ``contents`` and
    ``negative_controls`` (mapping of name to, or list with `quantity` of, estimate, low, high).

    Raises
    ------
    InputError
        If the estimate is not finite.
    """
    if not np.isfinite(effect.estimate):
        raise InputError(f"the effect ({effect.estimand}) has no finite estimate, so there is nothing to draw")
    d = effect.diagnostics
    everyone = {"all": (effect.estimate, effect.low, effect.high)}
    curves, animals = _rows(d.get("horizons"), ("seconds", "risk_assigned", "risk_control")), _rows(d.get("animals"), ("risk_assigned", "risk_control"))
    lags = _rows(d.get("lag_scan"), ("lag", "estimate", "low", "high"))
    each, contents, controls = _each_animal(d.get("animals")), _named(d.get("contents")), _named(d.get("negative_controls"))
    drawn: list[Callable[[Axes], None]] = [lambda ax: _draw_null(ax, effect)]
    if len(curves) > 1:
        drawn.append(lambda ax: _draw_curves(ax, curves))
    if len(animals) > 1:
        drawn.append(lambda ax: _draw_animals(ax, animals, effect))
    if len(lags) > 1:
        drawn.append(lambda ax: _draw_lags(ax, lags, effect.unit))
    if len(each) > 1 and len(each) <= 30:
        drawn.append(lambda ax: _draw_forest(ax, {**each, **everyone}, effect.unit, f"each animal (n = {len(each)})"))
    if contents:
        drawn.append(lambda ax: _draw_forest(ax, {**contents, **everyone}, effect.unit, "by content"))
    if controls:
        drawn.append(lambda ax: _draw_forest(ax, controls, "SD of the quantity", "what exposure cannot change"))
    drawn = drawn[:4]
    fig = new_figure(3.0, width=9.0 if len(drawn) > 1 else 5.4)
    axes = fig.subplots(1, len(drawn), squeeze=False, gridspec_kw={"width_ratios": [1.35] + [1.0] * (len(drawn) - 1)})[0]
    for draw, ax in zip(drawn, axes):
        draw(ax)
    if len(drawn) > 1:
        panel_letters(axes.tolist())
    fig.suptitle(LEVEL_WORDS[effect.level], x=0.995, ha="right", fontsize=7.5, color=_RED if effect.level == "model" else INK)
    return finish(fig)


def intervention_figure(effect: Effect, *, changes: ArrayLike | None = None, placebo: ArrayLike | None = None) -> Figure:
    """What an in-silico edit did to the model's prediction, against placebo edits of equal size.

    Parameters
    ----------
    changes : float (event,) or None, `effect.unit`
        Change of the read-out under each edit; ``effect.diagnostics["change_events"]`` where None.
    placebo : float (event,) or (replicate,) or None, `effect.unit`
        Change under each event's placebo (paired, where there are as many as events), or the mean of each placebo replicate;
        ``effect.diagnostics["change_placebos"]`` where None. Without either only the estimate and its null are drawn.

    Raises
    ------
    InputError
        If the effect is not of level "model".
    """
    if effect.level != "model":
        raise InputError(f"the effect is of level {effect.level!r}, expected 'model': use effect_figure")
    given = effect.diagnostics.get("change_events") if changes is None else changes
    other = effect.diagnostics.get("change_placebos") if placebo is None else placebo
    if given is None or other is None or np.ndim(given) != 1 or np.ndim(other) != 1:
        return effect_figure(effect)
    x, y = (np.array([np.nan if v is None else v for v in np.asarray(w, dtype=object)], dtype=np.float64) for w in (given, other))
    pairs = len(x) == len(y) and placebo is not None
    fig = new_figure(3.0)
    axes = fig.subplots(1, 2 + pairs, gridspec_kw={"width_ratios": [1.35, 1.0] + [0.9] * pairs}).tolist()
    _draw_null(axes[0], effect)
    _draw_changes(axes[1], x, y, effect.unit, pairs)
    if pairs:
        _draw_pairs(axes[2], x, y, effect.unit)
    panel_letters(axes)
    fig.suptitle(LEVEL_WORDS["model"], x=0.995, ha="right", fontsize=7.5, color=_RED)
    return finish(fig)


# -- panels ----------------------------------------------------------------------------------------------------------------
def _draw_null(ax: Axes, effect: Effect) -> None:
    null = effect.null[np.isfinite(effect.null)]
    low, high = (effect.low, effect.high) if np.isfinite([effect.low, effect.high]).all() else (effect.estimate, effect.estimate)
    top = 1.0
    if len(null):
        counts, edges = np.histogram(null, histogram_edges(null, bins=40))
        ax.bar(edges[:-1], counts / len(null), np.diff(edges), align="edge", color=FAINT, linewidth=0)
        top = float((counts / len(null)).max())
        draws = {"experimental": "re-randomisations", "model": "placebo draws", "observational": "null draws"}[effect.level]
        ax.set_ylabel(f"share of {draws} (n = {len(null)})")
    else:
        ax.set_yticks([])
        ax.spines["left"].set_visible(False)
    ax.axvline(0, ymax=0.8, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)))
    y = 1.12 * top if len(null) else 0.5
    ax.plot([low, high], [y, y], color=ACCENT, linewidth=2.4, solid_capstyle="butt")
    ax.plot(effect.estimate, y, "o", color=ACCENT, markersize=6)
    ax.set_ylim(0, 1.6 * top if len(null) else 1.2)
    p = "" if not np.isfinite(effect.p_value) else f"p < {1 / (len(null) + 1):.2g}" if effect.p_value == 0 and len(null) else f"p = {effect.p_value:.2g}"
    interval = f"{effect.estimate:+.3g} [{effect.low:+.3g}, {effect.high:+.3g}]".replace("-", "−") if low < high else f"{effect.estimate:+.3g}"
    where = " in the model" if effect.level == "model" else ""
    people = f"{effect.n_units} animal{'s' if effect.n_units != 1 else ''}, {effect.n_events} events"
    note(ax, f"{interval}{where}\n{', '.join(x for x in (p, people) if x)}", 0.01, 0.98, ha="left")
    ax.margins(x=0.08)
    ax.set_xlabel(f"{effect.unit}{where}")
    ax.set_title("estimate and 95 % interval", loc="left")


def _draw_curves(ax: Axes, rows: list[dict[str, float]]) -> None:
    t = np.array([0.0] + [r["seconds"] for r in rows])
    t = np.r_[t, 1.04 * t[-1]]  # so that the last step shows
    for key, colour, name in (("risk_control", GREY, "control"), ("risk_assigned", _RED, "assigned")):
        ax.step(t, 100 * np.array([0.0] + [r[key] for r in rows] + [rows[-1][key]]), where="post", color=colour, linewidth=1.6, label=name)
    ax.set_xlim(0, float(t[-1]))
    ax.margins(y=0.3)
    ax.set_ylim(0, None)
    ax.set_xlabel("time since onset (s)")
    ax.set_ylabel("reached the target (%)")
    ax.legend(loc="upper left", borderaxespad=0.1)
    ax.set_title("cumulative risk by arm", loc="left")


def _draw_animals(ax: Axes, rows: list[dict[str, float]], effect: Effect) -> None:
    control, assigned = (100 * np.array([r[k] for r in rows]) for k in ("risk_control", "risk_assigned"))
    for a, b in zip(control, assigned):
        ax.plot([0, 1], [a, b], color=GREY, linewidth=0.8, marker="o", markersize=3)
    ax.plot([0, 1], [np.nanmean(control), np.nanmean(assigned)], color=_RED, linewidth=2.2, marker="o", markersize=5)
    ax.set_xticks([0, 1], ["control", "assigned"])
    ax.set_xlim(-0.25, 1.25)
    ax.set_ylim(0, None)
    within = f" within {effect.horizon:g} s" if np.isfinite(effect.horizon) else ""
    ax.set_ylabel(f"risk{within} (%)")
    ax.set_title(f"each animal (n = {len(rows)})", loc="left")


def _draw_lags(ax: Axes, rows: list[dict[str, float]], unit: str) -> None:
    lag = np.array([r["lag"] for r in rows])
    value, low, high = (np.array([r[k] for r in rows]) for k in ("estimate", "low", "high"))
    ax.errorbar(lag, value, np.abs(np.c_[value - low, high - value].T), fmt="o-", color=ACCENT, markersize=4, linewidth=1, elinewidth=1)
    ax.axhline(0, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)))
    ax.set_xticks(lag)
    ax.set_xlabel("lag (epochs from exposure to outcome)")
    ax.set_ylabel(unit)
    ax.set_title("lag scan", loc="left")


def _draw_changes(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], unit: str, pairs: bool) -> None:
    edges = histogram_edges(x, y, bins=30)
    if pairs:
        ax.hist(y[np.isfinite(y)], edges, color=FAINT, label="placebo edits")
    else:
        ax.vlines(y, 0, 0.06, transform=ax.get_xaxis_transform(), color=GREY, linewidth=1, label=f"mean of each of {len(y)} placebo runs")
    ax.hist(x[np.isfinite(x)], edges, histtype="step", color=ACCENT, linewidth=1.4, label="edited events")
    ax.axvline(float(np.nanmean(x)), ymax=0.72, color=_RED, linewidth=1.2, label="their mean")
    ax.set_xlabel(f"{unit}, in the model")
    ax.set_ylabel(f"events (n = {len(x)})")
    ax.margins(y=0.55)
    ax.legend(loc="upper right", borderaxespad=0.1)
    ax.set_title("each event", loc="left")


def _draw_forest(ax: Axes, rows: Mapping[str, tuple[float, float, float]], unit: str, title: str) -> None:
    names = list(rows)
    for i, (name, (value, low, high)) in enumerate(rows.items()):
        y, colour = len(names) - 1 - i, ACCENT if name == "all" else INK
        ax.plot([low, high], [y, y], color=colour, linewidth=1.6)
        ax.plot(value, y, "o", color=colour, markersize=4)
    ax.axvline(0, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)))
    ax.set_yticks(range(len(names)), [textwrap.fill(n, 22) for n in names[::-1]])
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.set_xlabel(unit)
    ax.set_title(title, loc="left")


def _draw_pairs(ax: Axes, x: NDArray[np.float64], y: NDArray[np.float64], unit: str) -> None:
    shown = np.linspace(0, len(x) - 1, min(len(x), 150)).astype(int)
    for a, b in zip(y[shown], x[shown]):
        ax.plot([0, 1], [a, b], color=GREY, linewidth=0.4, alpha=0.5)
    ax.plot([0, 1], [np.nanmean(y), np.nanmean(x)], color=_RED, linewidth=2.2, marker="o", markersize=5)
    ax.axhline(0, color=GREY, linewidth=0.6)
    ax.set_xticks([0, 1], ["placebo", "edit"])
    ax.set_xlim(-0.25, 1.25)
    ax.set_ylabel(unit)
    ax.set_title(f"paired, mean in red{'' if len(shown) == len(x) else f' ({len(shown)} of {len(x)} drawn)'}", loc="left")


# -- reading diagnostics ---------------------------------------------------------------------------------------------------
def _rows(value: Any, keys: Sequence[str]) -> list[dict[str, float]]:
    """Rows that hold all `keys` as finite numbers; diagnostics come from JSON, where NaN is None."""
    if not isinstance(value, (list, tuple)):
        return []
    rows = [r for r in value if isinstance(r, Mapping) and all(_number(r.get(k)) for k in keys)]
    return [{k: float(r[k]) for k in keys} for r in rows]


def _named(value: Any) -> dict[str, tuple[float, float, float]]:
    """Name to estimate, low, high: from a mapping of names, or from rows that hold one."""
    if isinstance(value, (list, tuple)):
        value = {str(r.get("quantity") or r.get("name") or f"control {i + 1}"): r for i, r in enumerate(value) if isinstance(r, Mapping)}
    if not isinstance(value, Mapping):
        return {}
    whole = {str(k): v for k, v in value.items() if isinstance(v, Mapping) and all(_number(v.get(x)) for x in ("estimate", "low", "high"))}
    return {k: (float(v["estimate"]), float(v["low"]), float(v["high"])) for k, v in list(whole.items())[:8]}


def _each_animal(value: Any) -> dict[str, tuple[float, float, float]]:
    """Animals with an estimate and its standard error, as 95 % normal intervals."""
    if not isinstance(value, (list, tuple)):
        return {}
    rows = [r for r in value if isinstance(r, Mapping) and _number(r.get("estimate")) and _number(r.get("se"))]
    return {str(r.get("animal", i + 1)): (r["estimate"], r["estimate"] - 1.96 * r["se"], r["estimate"] + 1.96 * r["se"]) for i, r in enumerate(rows)}


def _number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) and bool(np.isfinite(value))
