"""What else stands beside a hazard: exposures that should do nothing, scorers who disagree, and a mixed model of the same rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.grid import EpochGrid, Transition
from brainmu.causal.hazard import HazardFit, HazardModel, fit_exposure, fit_hazard, fit_rows
from brainmu.causal.inference import Estimate
from brainmu.causal.logistic import fit_or_shrink
from brainmu.causal.risk_set import RiskSet
from brainmu.core.events import EventTable
from brainmu.core.hypnogram import Hypnogram
from brainmu.errors import DesignError

__all__ = ["like_non_events", "mixed_model", "scorers", "shuffled_content"]

SHUFFLES, FEW_SHUFFLES = 19, 5
MANY_ROWS = 100_000
"""Rows from which only a few shuffles are made: their mean is known well then."""


def shuffled_content(
    grids: Sequence[EpochGrid], tables: Sequence[EventTable], fitted: HazardFit, model: HazardModel, seed: int
) -> dict[str, Any]:  # fmt: skip
    """The estimate with contents dealt out anew among the events of each recording: what events do whatever their content.

    Returns
    -------
    dict
        mean and sd of the estimate over shuffles, n; p_value: how often a shuffle lies as far from their mean as the estimate does (no smaller than
        1 / (n + 1)). Empty where the question is not about one content of several.
    """
    if model.content is None or len({str(c) for t in tables for c in np.asarray(t.content).astype(str)}) < 2:
        return {}
    rng = np.random.default_rng([seed, 59])
    found = []
    for _ in range(SHUFFLES if len(fitted.rows) < MANY_ROWS else FEW_SHUFFLES):
        try:
            if model.width == 1:
                fit = fit_rows(dataclasses.replace(fitted.rows, dose=_dealt(fitted.rows, rng)), model)
            else:  # windows overlap and share their events
                fit = fit_hazard(grids, [t.assign(content=rng.permutation(np.asarray(t.content).astype(str))) for t in tables], model, seed)
        except DesignError:
            continue
        found.append(fit.result.estimate)
    if len(found) < 2:
        return {"error": "contents dealt out anew do not answer the question"}
    away = np.abs(np.array(found) - np.mean(found))
    p = (1 + int((away >= abs(fitted.result.estimate - np.mean(found))).sum())) / (len(found) + 1)
    return {"mean": float(np.mean(found)), "sd": float(np.std(found, ddof=1)), "n": len(found), "p_value": p}


def _dealt(rows: RiskSet, rng: np.random.Generator) -> NDArray[np.int64]:
    """Dose (n, content) with the contents of the events dealt out anew within each recording."""
    out = np.zeros_like(rows.dose)
    of, content = (np.repeat(i, rows.dose.ravel()) for i in np.indices(rows.dose.shape).reshape(2, -1))
    for i in np.unique(rows.session):
        mine = rows.session[of] == i
        np.add.at(out, (of[mine], rng.permutation(content[mine])), 1)
    return out


def like_non_events(fitted: HazardFit) -> dict[str, Any]:
    """Epochs without an event that are like the exposed ones in all that is adjusted for, against the other unexposed ones.

    Each exposed epoch gives its place to the unexposed epoch of its animal whose odds of exposure are nearest, once. These should do nothing: where they
    "do", what is adjusted for (a power, a pressure) acts otherwise than the model lets it.
    """
    rows = fitted.rows
    exposed, free = fitted.x != 0, ~rows.exposed
    among = exposed | free
    odds = np.full(len(rows), np.nan)
    fit = fit_or_shrink(fitted.z[among], exposed[among].astype(np.float64), len(np.unique(rows.animal)))[0]
    odds[among] = fit.eta
    pseudo = np.zeros(len(rows), dtype=bool)
    for j in np.unique(rows.animal):
        mine = np.flatnonzero(free & (rows.animal == j))
        order = mine[np.argsort(odds[mine])]
        at = np.searchsorted(odds[order], odds[exposed & (rows.animal == j)])
        pseudo[order[np.clip(at, 0, len(order) - 1)]] = len(order) > 0
    if not pseudo.any() or (pseudo == free).all():
        raise DesignError("too few epochs without an event")
    there = fitted.z[free].any(0)
    other = fit_exposure(rows[free], pseudo[free].astype(np.float64), fitted.z[free][:, there], [n for n, ok in zip(fitted.names, there) if ok], "animal", {})
    return {"epochs": int(pseudo.sum())} | other.result.as_dict()


def scorers(grids: Sequence[EpochGrid], fitted: HazardFit, transition: Transition) -> dict[str, float]:
    """How often another scorer of the same recording agrees about the epoch whose stage is the outcome, after exposed and after unexposed epochs.

    Returns
    -------
    dict
        agreement_exposed, agreement_unexposed (shares), p_value (that they are alike, over animals); moved: share of the transitions that the other scorer
        has not within an epoch. Empty where nobody else scored.
    """
    rows = fitted.rows
    same = np.full(len(rows), np.nan)
    moved: list[NDArray[np.bool_]] = []
    for i, g in enumerate(grids):
        h, mine = g.hypnogram, rows.session == i
        after = rows.k[mine] + 1
        own = np.array(h.stages)[np.maximum(h.codes[after], 0)]
        for other in g.recording.labels.values():
            if not isinstance(other, Hypnogram) or other.stages != h.stages or _alike(other, h):
                continue
            codes = other.at(g.time(after) + g.epoch / 2)
            same[mine] = np.where(codes >= 0, np.array(other.stages)[np.maximum(codes, 0)] == own, np.nan)
            moved.append(_moved(h, other, transition))
            break
    there = np.isfinite(same)
    x = fitted.x != 0
    if not (there & x).any() or not (there & ~x).any():
        return {}
    gaps = [same[a & x].mean() - same[a & ~x].mean() for j in fitted.used if (a := there & (rows.animal == j))[x].any() and a[~x].any()]
    p = Estimate.t(float(np.mean(gaps)), float(np.std(gaps, ddof=1) / len(gaps) ** 0.5), len(gaps) - 1).p_value if len(gaps) > 1 else float("nan")
    return {"agreement_exposed": float(same[there & x].mean()), "agreement_unexposed": float(same[there & ~x].mean()), "p_value": p,
            "moved": float(np.concatenate(moved).mean()) if sum(map(len, moved)) else float("nan")}  # fmt: skip


def _moved(own: Hypnogram, other: Hypnogram, transition: Transition) -> NDArray[np.bool_]:
    """Whether each transition (n,) that another hypnogram covers is not within an epoch in it. None where its epochs are too long to tell."""
    if other.epoch > own.epoch:
        return np.empty(0, dtype=bool)

    def times(h: Hypnogram) -> NDArray[np.float64]:
        source, target, _ = transition.masks(h)
        return h.start + (np.flatnonzero(source[:-1] & target[1:]) + 1) * h.epoch

    mine, theirs = times(own), times(other)
    seen = np.logical_and.reduce([other.at(mine + d * own.epoch) >= 0 for d in (-1.5, -0.5, 0.5, 1.5)])
    return (np.abs(mine[:, None] - theirs).min(1, initial=np.inf) > 1.5 * own.epoch)[seen]


def _alike(a: Hypnogram, b: Hypnogram) -> bool:
    return a is b or (len(a) == len(b) and a.start == b.start and a.epoch == b.epoch and bool((a.codes == b.codes).all()))


def mixed_model(fitted: HazardFit) -> dict[str, float]:
    """Animals' log odds ratios as draws of one normal distribution, by the likelihood of all epochs at once; what is adjusted for stays as in the pooled fit.

    The integral over each animal's own ratio is taken on a grid. Beside the two-stage estimate it shows what normal approximations by animal cost.

    Returns
    -------
    dict
        estimate, se (from the curvature), between_sd.
    """
    rows, r = fitted.rows, fitted.residual
    y, n = (rows.y == 1).astype(np.float64), len(rows.names)
    rest = fitted.fit.eta - fitted.pooled * r
    grid = np.linspace(fitted.pooled - 6, fitted.pooled + 6, 121)
    by_animal = np.empty((len(fitted.used), len(grid)))
    for k, b in enumerate(grid):
        eta = rest + b * r
        by_animal[:, k] = np.bincount(rows.animal, y * eta - np.logaddexp(0.0, eta), n)[fitted.used]
    by_animal -= by_animal.max(1, keepdims=True)

    def marginal(mean: float, sd: float) -> float:
        weight = np.exp(-0.5 * ((grid - mean) / sd) ** 2)
        return float(np.log((np.exp(by_animal) @ weight) / weight.sum()).sum())

    centres, spreads = np.linspace(fitted.pooled - 2, fitted.pooled + 2, 81), np.geomspace(0.1, 2.0, 14)
    table = np.array([[marginal(m, s) for s in spreads] for m in centres])
    i, j = np.unravel_index(int(table.argmax()), table.shape)
    i = int(np.clip(i, 1, len(centres) - 2))
    step = centres[1] - centres[0]
    low, mid, high = table[i - 1 : i + 2, j]
    bend = (low - 2 * mid + high) / step**2
    return {
        "estimate": float(centres[i] - 0.5 * step * (high - low) / (low - 2 * mid + high)), "se": float((-1 / bend) ** 0.5) if bend < 0 else float("nan"),
        "between_sd": float(spreads[j]),
    }  # fmt: skip
