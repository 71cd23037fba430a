"""An effect with what one needs to doubt it: its null, its interval, its animals, and the level of evidence in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    risk_assigned, risk_control), ``lag_scan`` (list of lag, estimate, low, high), ``contents`` and ``negative_controls`` (mappings of name to
    estimate, low, high).

    Raises
    ------
    InputError
        If the estimate is not finite.
    """
    if not np.isfinite(effect.estimate):
        raise InputError(f"the effect ({effect.estimand}) has no finite estimate, so there is nothing to draw")
    d = effect.diagnostics
    curves, animals = _rows(d.get("horizons"), ("seconds", "risk_assigned", "risk_control")), _rows(d.get("animals"), ("risk_assigned", "risk_control"))
    lags = _rows(d.get("lag_scan"), ("lag", "estimate", "low", "high"))
    rest = _named(d.get("contents")) | {f"control: {k}": v for k, v in _named(d.get("negative_controls")).items()}
    panels = ["null"] + ["curves"] * (len(curves) > 1) + ["animals"] * (len(animals) > 1) + ["lags"] * (len(lags) > 1) + ["forest"] * bool(rest)
    panels = panels[:4]
    fig = new_figure(3.0, width=9.0 if len(panels) > 1 else 5.4)
    axes = fig.subplots(1, len(panels), squeeze=False, gridspec_kw={"width_ratios": [1.35] + [1.0] * (len(panels) - 1)})[0]
    for panel, ax in zip(panels, axes):
        if panel == "null":
            _draw_null(ax, effect)
        elif panel == "curves":
            _draw_curves(ax, curves)
        elif panel == "animals":
            _draw_animals(ax, animals, effect)
        elif panel == "lags":
            _draw_lags(ax, lags, effect.unit)
        else:
            _draw_forest(ax, {"all": (effect.estimate, effect.low, effect.high), **rest}, effect.unit)
    if len(panels) > 1:
        panel_letters(axes.tolist())
    fig.suptitle(LEVEL_WORDS[effect.level], x=0.995, ha="right", fontsize=7.5, color=_RED if effect.level == "model" else INK)
    return finish(fig)


def intervention_figure(effect: Effect, *, changes: ArrayLike | None = None, placebo: ArrayLike | None = None) -> Figure:
    """What an in-silico edit did to the model's prediction, against placebo edits of equal size.

    Parameters
    ----------
    changes, placebo : float (event,) or None, `effect.unit`
        Change of the read-out under each edit and under its placebo, paired; ``effect.diagnostics["changes"]`` and ``["placebo"]`` where None.
        Without them only the estimate and its null are drawn.

    Raises
    ------
    InputError
        If the effect is not of level "model", or changes and placebo differ in length.
    """
    if effect.level != "model":
        raise InputError(f"the effect is of level {effect.level!r}, expected 'model': use effect_figure")
    given = effect.diagnostics.get("changes") if changes is None else changes
    other = effect.diagnostics.get("placebo") if placebo is None else placebo
    if given is None or other is None or np.ndim(given) != 1 or np.ndim(other) != 1:
        return effect_figure(effect)
    x, y = np.asarray(given, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if x.shape != y.shape:
        raise InputError(f"{len(x)} changes and {len(y)} placebo changes came, expected pairs of equal number")
    fig = new_figure(3.0)
    null, paired, spread = fig.subplots(1, 3, gridspec_kw={"width_ratios": [1.35, 0.9, 1.0]})
    _draw_null(null, effect)
    _draw_pairs(paired, x, y, effect.unit)
    edges = histogram_edges(x, y, bins=30)
    spread.hist(y, edges, color=FAINT, label="placebo edits")
    spread.hist(x, edges, histtype="step", color=ACCENT, linewidth=1.4, label="edits")
    spread.axvline(0, color=GREY, linewidth=0.6)
    spread.set_xlabel(effect.unit)
    spread.set_ylabel(f"events (n = {len(x)})")
    spread.margins(y=0.25)
    spread.legend(loc="upper right", borderaxespad=0.1)
    spread.set_title("each event", loc="left")
    panel_letters([null, paired, spread])
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
    for key, colour, name in (("risk_control", GREY, "control"), ("risk_assigned", _RED, "assigned")):
        ax.step(t, 100 * np.array([0.0] + [r[key] for r in rows]), where="post", color=colour, linewidth=1.6, label=name)
    ax.set_xlim(0, 1.04 * float(t.max()))
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


def _draw_forest(ax: Axes, rows: Mapping[str, tuple[float, float, float]], unit: str) -> None:
    names = list(rows)
    for i, (value, low, high) in enumerate(rows.values()):
        y = len(names) - 1 - i
        ax.plot([low, high], [y, y], color=ACCENT if i == 0 else INK, linewidth=1.6)
        ax.plot(value, y, "o", color=ACCENT if i == 0 else INK, markersize=4)
    ax.axvline(0, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)))
    ax.set_yticks(range(len(names)), names[::-1])
    ax.set_ylim(-0.6, len(names) - 0.4)
    ax.set_xlabel(unit)
    ax.set_title("contents and controls" if any(n.startswith("control") for n in names) else "by content", loc="left")


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
    if not isinstance(value, Mapping):
        return {}
    whole = {str(k): v for k, v in value.items() if isinstance(v, Mapping) and all(_number(v.get(x)) for x in ("estimate", "low", "high"))}
    return {k: (float(v["estimate"]), float(v["low"]), float(v["high"])) for k, v in list(whole.items())[:8]}


def _number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool) and bool(np.isfinite(value))
