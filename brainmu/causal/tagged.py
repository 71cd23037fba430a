"""Bursts of a tagged ensemble beside those of untagged cells like it: an exposure and the exposure it must beat."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable, Intervals, Recording
from brainmu.core.hypnogram import Hypnogram
from brainmu.errors import InputError, MissingDataError
from brainmu.replay import find_events

__all__ = ["tagged_events"]

FEWEST = 4
"""Cells that an ensemble needs for its bursts to be more than one cell's."""
FALSE_RATE = 0.2
"""Bursts a minute that shifted trains may give."""
_WORTH_A_WARNING = 0.15
"""Mean distance of the log10 rates of matched cells, from which it is said."""


def tagged_events(
    session: Recording,
    tagged: str | NDArray[np.bool_] = "tagged",
    *,
    within: str | Intervals | None = "NREM",
    labels: str | None = None,
    seed: int = 0,
    **settings: Any,
) -> EventTable:
    """Population bursts of the tagged cells, and of as many untagged ones of like rate.

    Each tagged cell is paired with one untagged cell so that the log rates within `within` lie as near as they can in all (an optimal assignment); cells of
    the same region only, where regions are known. Both ensembles pass the same detector, each against its own baseline. What follows the bursts of the tagged
    cells and not those of their matches is not due to size, rate or how often cells like these fire together:
    ``estimate_effect(sessions, exposure={s.id: tagged_events(s) for s in sessions}, design="hazard", content=("tagged", "untagged"), ...)``.

    Parameters
    ----------
    session : Recording or Session
        With spikes.
    tagged : str or bool (unit,)
        A column of the units table (True, 1 or "yes" is tagged), or a mask in its order.
    within : str, Intervals or None
        A stage, or spans, in which rates are matched and bursts looked for; None is everywhere.
    labels : str or None
        Name of the hypnogram that `within` is a stage of; the only one where None.
    seed : int
    **settings
        Of :func:`brainmu.find_events` for bursts (``threshold``, ``shortest``, …). Without ``threshold`` each ensemble's is set so that its own trains,
        shifted, would give `FALSE_RATE` bursts a minute (``false_rate``): chance makes many bursts of few cells.

    Returns
    -------
    EventTable
        Sorted by start; content is "tagged" or "untagged". ``attrs``: tagged and untagged (unit ids, pair by pair), rates (Hz, of each pair),
        rate (events a minute, of each ensemble), warnings.

    Raises
    ------
    MissingDataError
        If there are no spikes, fewer than four tagged cells, or fewer untagged cells than tagged ones.
    InputError
        If the column or the mask does not fit.

    References
    ----------
    The match by size and rate: Liu X et al. (2012), Nature 484:381 (engram cells against others); Grosmark & Buzsáki (2016), Science 351:1440 (rate).
    """
    if session.spikes is None or not len(session.spikes):
        raise MissingDataError(f"{session.id}: no spikes, bursts of tagged cells need some")
    units = session.spikes.units
    is_tagged = _mask(session, units, tagged)
    spans = session.hypnogram(labels).intervals(within) if isinstance(within, str) else within
    rates = _rates(session, spans)
    pairs = _pairs(session, units, is_tagged, rates)
    tables, per_minute, warnings = [], {}, []
    by = settings if "threshold" in settings else {"false_rate": FALSE_RATE} | settings
    for name, rows in (("tagged", pairs[:, 0]), ("untagged", pairs[:, 1])):
        ids = units["id"].to_numpy()[rows]
        part = Recording(
            id=session.id, subject=session.subject, species=session.species, spikes=session.spikes.pick(ids),
            labels={k: v for k, v in session.labels.items() if isinstance(v, Hypnogram)},
        )  # fmt: skip
        found = find_events(part, kind="burst", within=spans, seed=seed, **by)
        per_minute[name] = float(found.attrs.get("rate", np.nan))
        tables.append(EventTable(found.start, found.stop, found.peak, content=name, kind="burst", score=found.score))
    apart = np.abs(np.diff(np.log10(np.maximum(rates[pairs], 1e-3)), axis=1)).mean()
    if apart > _WORTH_A_WARNING:
        warnings.append(f"matched cells differ in rate by a factor of {10**apart:.2f} on average: there are too few untagged cells like the tagged ones")
    ids = units["id"].to_numpy()[pairs]
    attrs = {"tagged": ids[:, 0].tolist(), "untagged": ids[:, 1].tolist(), "rates": rates[pairs].tolist(), "rate": per_minute, "warnings": warnings,
             "method": "bursts of tagged cells and of untagged ones matched in number, rate and region"}  # fmt: skip
    out = EventTable.concat(tables).sorted()
    out.attrs.update(attrs)
    return out


def _mask(session: Recording, units: pd.DataFrame, tagged: str | NDArray[np.bool_]) -> NDArray[np.bool_]:
    if isinstance(tagged, str):
        if tagged not in units:
            raise InputError(f"{session.id}: the units table has no column {tagged!r}, it has {', '.join(map(str, units.columns))}")
        mask = units[tagged].map(lambda v: str(v).strip().lower() in ("true", "1", "1.0", "yes", "tagged")).to_numpy(dtype=bool)
    else:
        mask = np.asarray(tagged)
        if mask.dtype != bool or mask.shape != (len(units),):
            raise InputError(f"{session.id}: tagged is {mask.dtype} of shape {mask.shape}, expected a mask of the {len(units)} units or a column's name")
    if mask.sum() < FEWEST:
        raise MissingDataError(f"{session.id}: {int(mask.sum())} of {len(units)} cells are tagged, an ensemble needs {FEWEST} or more")
    return mask


def _rates(session: Recording, spans: Intervals | None) -> NDArray[np.float64]:
    """Rate (unit,), Hz, in the order of the units table."""
    spikes = session.spikes
    assert spikes is not None
    bounds = np.array([[session.start, session.stop]]) if spans is None else spans.bounds
    seconds = float(np.diff(bounds, axis=1).sum())
    if not seconds > 0:
        raise MissingDataError(f"{session.id}: nothing of the recording is within the spans that bursts are to lie in")
    parts = [spikes.span(a, b)[1] for a, b in bounds]
    ids = spikes.units["id"].to_numpy()
    order = np.argsort(ids)
    out = np.zeros(len(ids))
    out[order] = np.bincount(np.searchsorted(ids[order], np.concatenate(parts)), minlength=len(ids))
    return out / seconds


def _pairs(session: Recording, units: pd.DataFrame, tagged: NDArray[np.bool_], rates: NDArray[np.float64]) -> NDArray[np.intp]:
    """Rows (pair, 2) of a tagged and an untagged cell."""
    from scipy.optimize import linear_sum_assignment

    a, b = np.flatnonzero(tagged), np.flatnonzero(~tagged)
    log = np.log10(np.maximum(rates, 1e-3))
    cost = np.abs(log[a][:, None] - log[b])
    regions = units["region"].astype(str).to_numpy()
    # Another region is worse than any rate, and is refused below.
    cost = cost + 100.0 * (regions[a][:, None] != regions[b])
    if len(b) < len(a):
        raise MissingDataError(f"{session.id}: {len(b)} untagged cells for {len(a)} tagged ones, expected as many or more")
    i, j = linear_sum_assignment(cost)
    if (cost[i, j] >= 100.0).any():
        where = regions[a[i[cost[i, j] >= 100.0]][0]]
        raise MissingDataError(f"{session.id}: too few untagged cells in region {where!r} to match the tagged ones there")
    return np.c_[a[i], b[j]]
