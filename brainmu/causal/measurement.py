"""What is not known for certain of stages and of events, carried into the interval of an effect."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.grid import EpochGrid, exposure_of
from brainmu.core.effect import Effect
from brainmu.core.events import EventTable
from brainmu.core.hypnogram import Hypnogram
from brainmu.core.recording import Recording
from brainmu.errors import DesignError

__all__ = ["Share", "carry_detection", "carry_stages", "check_share", "dilution", "redrawn"]

Share = float | tuple[float, float]
"""A share in (0, 1], or its 95 % limits."""
_LIMIT = 1.959964
_DRAWS = 2000


# -- stages ---------------------------------------------------------------------------------------------------------
def redrawn(hypnogram: Hypnogram, rng: np.random.Generator) -> Hypnogram:
    """A hypnogram drawn from the scorer's probabilities; epochs without them, and unscored ones, stay as they are.

    Each epoch has each stage as often as its probability says. Between the middles of two neighbouring bouts all epochs share one draw, so that a border
    moves as a whole, and a doubtful bout is there or not, instead of flickering.
    """
    p = hypnogram.proba
    assert p is not None
    codes = hypnogram.codes
    begin = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
    middle = (begin + np.r_[begin[1:], len(codes)]) // 2
    stretch = np.searchsorted(middle, np.arange(len(codes)), side="right")
    u = rng.random(len(middle) + 1)[stretch]
    drawn = np.minimum((np.cumsum(p, axis=1) < u[:, None]).sum(1), p.shape[1] - 1)
    known = np.isfinite(p).all(1) & (codes >= 0)
    return Hypnogram(
        np.where(known, drawn, codes).astype(np.int8), hypnogram.stages, hypnogram.epoch, hypnogram.start, p, hypnogram.scorer, dict(hypnogram.attrs)
    )


def carry_stages(
    effect: Effect, grids: Sequence[EpochGrid], labels: str | None, ask: Callable[[list[Recording]], Effect], draws: int, seed: int
) -> Effect:  # fmt: skip
    """The effect with an interval that knows that stages are uncertain, where the hypnograms hold probabilities.

    The same question is asked of hypnograms drawn from them, and how far the answers lie apart is added to the variance (multiple imputation). The
    estimate itself stays that of the hypnograms as scored. The p-value of a randomisation test stays too: it holds whatever the scoring.

    References
    ----------
    Rubin, Multiple Imputation for Nonresponse in Surveys (1987), ch. 3.
    """
    if not draws or any(g.hypnogram.proba is None for g in grids):
        return effect
    rng = np.random.default_rng([seed, 57])
    found = []
    for _ in range(draws):
        drawn = [redrawn(g.hypnogram, rng) for g in grids]
        try:
            found.append(ask([_relabelled(g.recording, labels, h) for g, h in zip(grids, drawn)]).estimate)
        except DesignError:
            continue
    found = [v for v in found if np.isfinite(v)]
    report = {"draws": draws, "answered": len(found), "without": {"low": effect.low, "high": effect.high, "p_value": effect.p_value}}
    if len(found) < 2:
        effect.diagnostics["uncertain_stages"] = report | {"note": "drawn hypnograms do not answer the question: the interval takes the stages as certain"}
        return effect
    between = float(np.var(found, ddof=1))
    wide = _widened(effect, (1 + 1 / len(found)) * between)
    wide.diagnostics["uncertain_stages"] = report | {"mean": float(np.mean(found)), "sd": between**0.5}
    if effect.p_value < 0.05 <= wide.p_value and "verdict" in wide.diagnostics:
        wide.diagnostics["verdict"] = f"Nothing is shown once it is known that stages are uncertain. Taken as certain: {wide.diagnostics['verdict']}"
    wide.assumptions = [*effect.assumptions, f"stages are as probable as their scorer says ({len(found)} hypnograms drawn from that widen the interval)"]
    return wide


def _relabelled(recording: Recording, labels: str | None, hypnogram: Hypnogram) -> Recording:
    name = labels or next(k for k, v in recording.labels.items() if isinstance(v, Hypnogram))
    return recording.with_fields(labels=recording.labels | {name: hypnogram}, source={"format": "edited"})


def _widened(effect: Effect, variance: float) -> Effect:
    """The effect with this much variance more."""
    from scipy import stats

    away = _LIMIT * variance**0.5
    low = effect.estimate - float(np.hypot(effect.estimate - effect.low, away))
    high = effect.estimate + float(np.hypot(effect.high - effect.estimate, away))
    p, df = effect.p_value, effect.n_units - 1
    if effect.level != "experimental" and df > 0 and np.isfinite(p):
        se = (high - low) / 2 / float(stats.t.ppf(0.975, df))
        p = max(p, float(2 * stats.t.sf(abs(effect.estimate) / se, df)))
    return dataclasses.replace(effect, low=low, high=high, p_value=p)


# -- events ---------------------------------------------------------------------------------------------------------
def check_share(name: str, value: Share | None) -> None:
    """Raises DesignError where a recall or precision is neither a share nor its limits."""
    if value is None:
        return
    limits = value if isinstance(value, (tuple, list)) else (value, value)
    if len(limits) != 2 or not all(isinstance(v, (int, float, np.number)) and 0 < v <= 1 for v in limits) or limits[0] > limits[1]:
        raise DesignError(f"{name} is {value!r}, expected a share above 0 and up to 1, or its lower and upper 95 % limit")


def dilution(counts: Sequence[NDArray[np.int64]], recall: float, precision: float) -> float:
    """How much of an effect of "at least one event against none" is left when a detector finds a part of the events, and some that are none.

    It is P(an event | one was found) - P(an event | none was found): regression calibration of a misclassified exposure.

    Parameters
    ----------
    counts : one int (k,) a recording
        Windows in which 0, 1, 2, … events were found. Events that were missed come at random, at the recording's own rate.
    recall, precision : float
        Share of the events that are found; of what is found, the share that are events.

    References
    ----------
    Carroll, Ruppert, Stefanski & Crainiceanu, Measurement Error in Nonlinear Models (2006), ch. 4.
    """
    left = total = 0.0
    for c in counts:
        k = np.arange(len(c))
        exposed = float(c[1:].sum())
        if exposed:
            missed = float(k @ c) / float(c.sum()) * precision * (1 / recall - 1)
            left += float(np.exp(-missed)) * float(c[1:] @ (1 - (1 - precision) ** k[1:]))
            total += exposed
    return left / total if total else float("nan")


def carry_detection(
    effect: Effect, grids: Sequence[EpochGrid], tables: Sequence[EventTable], *, content: str | None, width: int, blank: float, counted: bool,
    recall: Share | None, precision: Share | None, seed: int,
) -> Effect:  # fmt: skip
    """The effect had every event been found and no other, with the error of recall and precision in its interval; the test of no effect stays.

    See :func:`dilution`; where events are counted, or each has its own effect, what is left of it is the precision.
    """
    if recall is None and precision is None:
        return effect
    counts = [np.bincount(_found(g, t, content, width, blank)) for g, t in zip(grids, tables)]
    rng = np.random.default_rng([seed, 58])
    r, p = (_draws(v, rng) for v in (recall, precision))
    left = np.array([b if counted else dilution(counts, a, b) for a, b in zip(r, p)])
    factor, sd = 1 / left[0], float(np.std(1 / left[1:]))
    away = _LIMIT * abs(effect.estimate) * sd
    out = dataclasses.replace(
        effect, estimate=effect.estimate * factor,
        low=effect.estimate * factor - float(np.hypot((effect.estimate - effect.low) * factor, away)),
        high=effect.estimate * factor + float(np.hypot((effect.high - effect.estimate) * factor, away)),
        regime=f"{effect.regime}; had every event been found, and no other",
        assumptions=[*effect.assumptions, f"events are missed and made up alike, whatever follows (recall {_said(recall)}, precision {_said(precision)})"],
    )  # fmt: skip
    out.diagnostics["detection"] = {
        "recall": recall, "precision": precision, "left_of_the_effect": float(left[0]),
        "as_found": {"estimate": effect.estimate, "low": effect.low, "high": effect.high},
    }  # fmt: skip
    if "verdict" in out.diagnostics:
        out.diagnostics["verdict"] += f" That is of the events as found ({effect.estimate:+.2f}); had all been found it would be {out.estimate:+.2f}."
    return out


def _found(grid: EpochGrid, table: EventTable, content: str | None, width: int, blank: float) -> NDArray[np.int64]:
    """Events found in each run of `width` epochs at risk."""
    mine = table.start if content is None else table.start[np.asarray(table.content).astype(str) == content]
    k = exposure_of(grid, mine, blank)[0][grid.at_risk]
    return np.convolve(k, np.ones(width, dtype=np.int64), mode="valid") if len(k) >= width else k


def _draws(value: Share | None, rng: np.random.Generator) -> NDArray[np.float64]:
    """The share, then draws of it: a beta distribution whose mean and spread are those of the limits."""
    if value is None or not isinstance(value, (tuple, list)) or value[0] == value[1]:
        return np.full(_DRAWS + 1, 1.0 if value is None else float(value[0] if isinstance(value, (tuple, list)) else value))
    mean, sd = sum(value) / 2, (value[1] - value[0]) / (2 * _LIMIT)
    size = max(mean * (1 - mean) / sd**2 - 1, 1e-3)
    return np.r_[mean, np.clip(rng.beta(mean * size, (1 - mean) * size, _DRAWS), 0.01, 1.0)]


def _said(value: Share | None) -> str:
    if value is None:
        return "1"
    return f"{value[0]:g} to {value[1]:g}" if isinstance(value, (tuple, list)) else f"{value:g}"
