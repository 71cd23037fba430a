"""Replay: candidate events of rest, decoded with the fields of running, with their content, direction and significance."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import EventTable, Intervals, Recording, Spikes
from brainmu.core.units import unit_factor
from brainmu.errors import InputError, MissingDataError
from brainmu.replay.bursts import widened
from brainmu.replay.contexts import Context, fit_contexts
from brainmu.replay.decode import cross_validated_error, decode, units_and_position
from brainmu.replay.position import Position, run_and_rest
from brainmu.replay.significance import (
    Candidates,
    Significance,
    benjamini_hochberg,
    calibrated,
    exchanged_fields,
    log_evidence,
    test_sequences,
    tuned,
)  # fmt: skip

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["find_replay", "posterior"]

Progress = Callable[[str, float], None]

_LEAST_TUNED = 4
_FEWEST_PASSES = 4
"""Tuned units without which a result is flagged: three have six deals, and one in three keeps or mirrors their order."""


def find_replay(
    recording: Recording, run: str | Intervals | Mapping[str, Intervals] | None = "run", rest: str | Intervals | None = "rest", *,
    candidates: str | EventTable | None = None, bin_size: float = 0.02, shuffles: int = 500, null_sessions: int = 40, null_shuffles: int = 25,
    least_cells: int = 5, least_bins: int = 5, least_spikes: int = 50, fastest: float = 30.0, smoothing: float | None = None,
    speed: float | None = None, seed: int = 0, progress: Progress | None = None,
) -> EventTable:  # fmt: skip
    """Candidate events in `rest`, each with the trajectory that its spikes decode to and how likely chance would do as well.

    Each event is binned at `bin_size`, decoded by Poisson Bayes with a uniform prior, and scored by the weighted correlation of
    time and place; on a track with arms by the strongest of those along each way from end to end. Two shuffles, `shuffles` draws
    each: every unit's train rolled within the event (temporal), every unit's field rolled along the track (spatial); their scores
    are strongest ones too. The joint statistic is the sum of the two z-scores. It is recalibrated on null sessions made from this
    recording by dealing the place fields anew among the units tuned to place: `p_value` is the share of null events whose joint
    statistic is as high, each measured by what events of its length and number of cells reach by chance.

    Parameters
    ----------
    run : str, Intervals, mapping of names to Intervals, or None
        Running epochs; several contexts come as a mapping, as labels ``run_A``, ``run_B``…, or as an EventTable with content.
        Derived from speed, and flagged in ``attrs["epochs"]``, where the label "run" is absent.
    rest : str, Intervals or None
        Where events are looked for; likewise.
    candidates : "ripple", "burst", "hse", EventTable or None
        Ripples, each widened to the population burst around it, population bursts, or high-synchrony events; None takes ripples where
        there is LFP, else bursts.
    null_sessions, null_shuffles : int
        Null sessions, and shuffles of each kind in every one of them. The events of one session resemble each other (most of all
        where cells are few), so p < 0.05 asks for forty: with fewer it may be met more often than that by chance.
    least_cells, least_bins : int
        Active cells and bins that an event needs to be scored.

    Returns
    -------
    EventTable
        One row a scored event: ``score`` (absolute weighted correlation), ``p_value``, ``p_temporal``, ``p_spatial``, ``q_value``
        (Benjamini–Hochberg over the table), ``z_temporal``, ``z_spatial``, ``content`` (the context in which these units would fire
        most likely, given how many spikes there are),
        ``log_odds`` (of it against the next), ``p_content`` (fields swapped between contexts), ``direction`` (forward, reverse, or
        "" where the animal ran one way only), ``direction_log_odds``, ``span`` and ``speed`` (the position's unit, and a second),
        ``n_cells``, ``n_bins``; on a track with arms also ``way``, from which end towards which, as numbered in ``attrs["ends"]``
        (the place of each). attrs: ``decoding_error``, ``quality`` ("poor" where the decoder cannot decode running, or fewer than
        four of the units, ``n_tuned``, are tuned to place), ``nulls``, ``epochs``, ``baseline``, ``null_scores`` (200 quantiles of
        `score` in the null sessions), ``warnings`` (if any) and the parameters.

    Raises
    ------
    MissingDataError
        Without units, position, enough running, rest, or cells with fields.
    InputError
        If run and rest overlap.
    """
    if shuffles < 20 or null_sessions < 1 or null_shuffles < 10:
        raise InputError(f"replay: {shuffles} shuffles, {null_sessions} null sessions of {null_shuffles}: expected at least 20, 1 and 10")
    spikes, position = units_and_position(recording, least_spikes, fastest)
    contexts, how = fit_contexts(recording, spikes, position, run, smoothing=smoothing, speed=speed)
    cells = _place_cells(spikes, contexts, least_cells)
    spikes = spikes.pick(cells)
    rest_spans, rest_how = _rest(recording, rest, contexts, position)
    found, source = _candidates(recording, candidates, rest_spans, seed)
    binned, kept = _binned(spikes, found, bin_size, least_cells, least_bins)
    error = cross_validated_error(
        recording, run={k: c.epochs for k, c in contexts.items()}, speed=speed, smoothing=smoothing, least_spikes=least_spikes, fastest=fastest, seed=seed
    )
    attrs = {
        "method": "Poisson Bayes, uniform prior, weighted correlation", "decoding_error": error, "quality": error["quality"],
        "nulls": _nulls(shuffles, null_sessions, null_shuffles), "epochs": {"run": how, "rest": rest_how, "rest_seconds": rest_spans.duration},
        "contexts": list(contexts), "smoothing": {k: c.fields.smoothing for k, c in contexts.items()}, "unit": position.unit, "bin_size": bin_size,
        "shuffles": shuffles, "null_sessions": null_sessions, "null_shuffles": null_shuffles, "seed": seed, "n_units": len(cells),
        "n_candidates": len(found), "n_scored": len(kept), "least_cells": least_cells, "least_bins": least_bins, **source,
    }  # fmt: skip
    warnings = _warnings(recording, position, contexts, error)
    attrs |= {"warnings": warnings} if warnings else {}
    found = found[kept]
    if not len(found):
        return _empty(attrs)
    rates = {k: _rates_of(c, cells) for k, c in contexts.items()}
    attrs["n_tuned"] = n_tuned = int(_tuned_somewhere(rates).sum())
    if n_tuned < _LEAST_TUNED:
        attrs["quality"] = "poor"
        said = f"{n_tuned} of {len(cells)} units are tuned to place (0.2 bits a spike), expected at least {_LEAST_TUNED}: p_value has no null to stand on"
        attrs["warnings"] = [*attrs.get("warnings", []), said]
    return _score(found, binned, contexts, rates, cells, attrs, progress, (shuffles, null_sessions, null_shuffles), seed)


def posterior(recording: Recording, start: float, stop: float, context: Context, *, bin_size: float = 0.02) -> xr.DataArray:
    """Posterior (time, position) of an event in one context (from :func:`brainmu.replay.contexts.fit_contexts`), for pictures.

    Coordinates are bin centres, s, and places along the track, in the position's unit.
    """
    import xarray as xr

    if recording.spikes is None:
        raise MissingDataError(f"{recording.id}: no spikes, decoding needs sorted units")
    spikes = recording.spikes.pick(context.fields.units)
    edges = start + bin_size * np.arange(max(int((stop - start) / bin_size + 1e-6), 1) + 1)
    p = decode(spikes.counts(edges), context.fields, bin_size)
    out = xr.DataArray(p, dims=("time", "position"), coords={"time": (edges[1:] + edges[:-1]) / 2, "position": context.x}, name="posterior")
    out.coords["time"].attrs["units"] = "s"
    out.coords["position"].attrs["units"] = context.fields.unit
    out.attrs["context"] = context.name
    return out


# -- what goes in -------------------------------------------------------------------------------------------------------


def _place_cells(spikes: Spikes, contexts: dict[str, Context], least: int) -> NDArray[np.int32]:
    """Units with 20 spikes or more while running and a field of at least 1 Hz in some context."""
    ids = spikes.units["id"].to_numpy()
    keep = np.zeros(len(ids), dtype=bool)
    for c in contexts.values():
        ran = c.ran.contains(spikes.times)
        n = np.array([(spikes.unit_id[ran] == u).sum() for u in ids])
        keep |= (n >= 20) & (c.fields.rates.max(1) >= 1.0)
    if keep.sum() < least:
        raise MissingDataError(
            f"replay: {int(keep.sum())} of {len(ids)} units fire at least 20 spikes on the track with a field of 1 Hz or more, expected at least {least}"
        )
    return ids[keep]


def _rates_of(context: Context, cells: NDArray[np.int32]) -> NDArray[np.float32]:
    return context.fields.rates[np.isin(context.fields.units, cells)]


def _rest(recording: Recording, rest: str | Intervals | None, contexts: dict[str, Context], position: Any) -> tuple[Intervals, str]:
    if isinstance(rest, Intervals):
        spans, how = rest, "given"
    else:
        label = recording.labels.get(rest or "rest")
        if label is None and rest not in (None, "rest"):
            raise MissingDataError(f"{recording.id}: no label {rest!r}, the recording has {', '.join(recording.labels) or 'none'}")
        if label is not None and not isinstance(label, Intervals):
            raise MissingDataError(f"{recording.id}: label {rest or 'rest'!r} is a {type(label).__name__}, expected Intervals")
        spans, how = (label, "labels") if label is not None else run_and_rest(recording, position)[1:]
    if not len(spans):
        raise MissingDataError(f"{recording.id}: no rest found (no stretch of 2 min without movement), expected some: give rest epochs")
    both = sum(spans.intersect(c.epochs).duration for c in contexts.values())
    if both > 0.01 * spans.duration:
        raise InputError(f"{recording.id}: run and rest overlap by {both:.1f} s, expected disjoint epochs: subtract one from the other")
    return spans, how


def _candidates(recording: Recording, candidates: str | EventTable | None, rest: Intervals, seed: int) -> tuple[EventTable, dict[str, Any]]:
    from brainmu.replay.events import find_events

    if isinstance(candidates, EventTable):
        return candidates.within(rest), {"candidates": "given"}
    kind = ("ripple" if recording.signals_of("lfp") else "burst") if candidates is None else candidates
    if kind not in ("burst", "hse", "ripple"):
        raise InputError(f"replay candidates are {kind!r}, expected 'ripple', 'burst', 'hse' or an EventTable")
    table = find_events(recording, kind, within=rest, seed=seed)
    if kind == "ripple":
        table = widened(recording, table, rest)
    about = {"candidates": "ripple, widened to the population burst" if kind == "ripple" else kind}
    return table, about | {k: table.attrs[k] for k in ("rate", "surrogate_rate", "baseline", "threshold") if k in table.attrs}


def _binned(spikes: Spikes, events: EventTable, size: float, least_cells: int, least_bins: int) -> tuple[Candidates, NDArray[np.intp]]:
    """Counts of the events that are long and rich enough, and their rows; silent bins at either end are cut off."""
    if not size > 0:
        raise InputError(f"replay: bin_size is {size} s, expected a positive length")
    n = np.maximum(((events.stop - events.start) / size + 1e-6).astype(int), 0)
    keep, rows = [], []
    for k, c in enumerate(spikes.window_counts(events.start, n, size)):
        busy = np.flatnonzero(c.any(1))
        if len(busy) and busy[-1] - busy[0] + 1 >= least_bins and (c.any(0)).sum() >= least_cells:
            keep.append(k)
            rows.append(c[busy[0] : busy[-1] + 1])
    empty = [np.zeros((0, spikes.n_units), dtype=np.int32)]
    return Candidates.of(rows or empty, size), np.array(keep, dtype=np.intp)


# -- scoring ------------------------------------------------------------------------------------------------------------


def _score(
    found: EventTable, binned: Candidates, contexts: dict[str, Context], rates: dict[str, NDArray[np.float32]], cells: NDArray[np.int32],
    attrs: dict[str, Any], progress: Progress | None, effort: tuple[int, int, int], seed: int,
) -> EventTable:  # fmt: skip
    shuffles, null_sessions, null_shuffles = effort
    rng = np.random.default_rng(seed)
    names = list(contexts)
    tick = _ticker(progress, shuffles + null_sessions * null_shuffles, len(names))
    evidence = np.stack([log_evidence(binned, binned.counts, rates[k]) for k in names], axis=1)
    content = evidence.argmax(1)
    result = _test_by_content(binned, content, contexts, rates, shuffles, rng, tick)
    null, null_r = [], []
    for _ in range(null_sessions):
        dealt = _exchanged(rates, rng)
        other = np.stack([log_evidence(binned, binned.counts, dealt[k]) for k in names], axis=1).argmax(1)
        dealt_result = _test_by_content(binned, other, contexts, dealt, null_shuffles, rng, tick)
        null.append(dealt_result["joint"])
        null_r.append(np.abs(dealt_result["r"]))
    n_bins, n_cells = np.diff(np.r_[binned.first, len(binned.counts)]), (np.add.reduceat(binned.counts, binned.first, axis=0) > 0).sum(1)
    p = calibrated(result["joint"], np.stack(null), np.log(n_bins) + 0.5 * np.log(n_cells))
    log_odds, p_content = _content_odds(binned, rates, evidence, shuffles, rng)
    way = result["way"].astype(np.intp)
    direction, odds = _directions(binned, content, way, contexts, cells, result["slope"])
    columns = {
        "score": np.abs(result["r"]), "p_value": p, "p_temporal": result["p_temporal"], "p_spatial": result["p_spatial"],
        "q_value": benjamini_hochberg(p), "z_temporal": result["z_temporal"], "z_spatial": result["z_spatial"], "r": result["r"],
        "log_odds": log_odds, "p_content": p_content, "direction": direction, "direction_log_odds": odds, "span": result["span"],
        "speed": np.abs(result["slope"]), "n_cells": n_cells, "n_bins": n_bins,
    }  # fmt: skip
    if any(len(c.ways) > 1 for c in contexts.values()):
        columns["way"] = _way_names(content, way, contexts, result["slope"])
        attrs["ends"] = {k: c.track.end_places.tolist() for k, c in contexts.items() if len(c.ways) > 1}
    # The figure of scores needs the shape of their null, not all of it.
    attrs["null_scores"] = np.quantile(np.concatenate(null_r), (np.arange(200) + 0.5) / 200).round(4).tolist()
    attrs["null_joint"] = {"median": float(np.median(np.concatenate(null))), "q95": float(np.quantile(np.concatenate(null), 0.95))}
    return EventTable(found.start, found.stop, found.peak, content=np.array(names, dtype=object)[content], kind="replay", attrs=attrs, **columns)


def _test_by_content(
    binned: Candidates, content: NDArray[np.intp], contexts: dict[str, Context], rates: dict[str, NDArray[np.float32]], shuffles: int,
    rng: np.random.Generator, tick: Callable[[], None] | None,
) -> dict[str, NDArray[np.float64]]:  # fmt: skip
    """Scores and shuffles of every event in the context it was read as."""
    keys = ("r", "slope", "span", "way", "joint", "p_temporal", "p_spatial", "z_temporal", "z_spatial")
    out = {k: np.zeros(len(binned)) for k in keys}
    for i, name in enumerate(contexts):
        mine = np.flatnonzero(content == i)
        if not len(mine):
            continue
        part = binned.pick(mine)
        x = np.stack([w.x for w in contexts[name].ways]).astype(np.float32)
        s: Significance = test_sequences(part, rates[name], x, shuffles, rng, tick)
        length = np.diff(np.r_[part.first, len(part.counts)]) * part.size
        values = {
            "r": s.sequence.r, "slope": s.sequence.slope, "span": np.minimum(np.abs(s.sequence.slope) * length, np.ptp(x, axis=1)[s.sequence.way]),
            "way": s.sequence.way, "joint": s.joint,
            "p_temporal": s.p_temporal, "p_spatial": s.p_spatial, "z_temporal": s.z_temporal, "z_spatial": s.z_spatial,
        }  # fmt: skip
        for k in keys:
            out[k][mine] = values[k]
    return out


def _tuned_somewhere(rates: dict[str, NDArray[np.float32]]) -> NDArray[np.bool_]:
    """Units (unit,) among which null sessions deal the fields: those tuned to place in any context."""
    return np.any([tuned(r) for r in rates.values()], axis=0)


def _exchanged(rates: dict[str, NDArray[np.float32]], rng: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Field shapes dealt anew among the units tuned to place in any context, the same deal in every context."""
    which = _tuned_somewhere(rates)
    seed = int(rng.integers(2**32))
    return {k: exchanged_fields(r, which, np.random.default_rng(seed)) for k, r in rates.items()}


def _content_odds(
    binned: Candidates, rates: dict[str, NDArray[np.float32]], evidence: NDArray[np.float64], shuffles: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log odds of the likeliest context against the next, and the share of field swaps between contexts (unit by unit) that reach it."""
    if evidence.shape[1] < 2:
        return np.full(len(binned), np.nan), np.full(len(binned), np.nan)
    ordered = np.sort(evidence, axis=1)
    odds = ordered[:, -1] - ordered[:, -2]
    n = max(r.shape[1] for r in rates.values())
    grid = np.linspace(0, 1, n)
    same = np.stack([[np.interp(grid, np.linspace(0, 1, r.shape[1]), row) for row in r] for r in rates.values()]).astype(np.float32)
    # Swapped fields must weigh as much as those beside them, or the swaps of a context in which all cells fire more would know less than it does.
    same /= same.mean((1, 2), keepdims=True)
    above = np.zeros(len(binned))
    for _ in range(shuffles):
        deal = rng.permuted(np.repeat(np.arange(len(same))[:, None], same.shape[1], axis=1), axis=0)
        swapped = np.take_along_axis(same, deal[:, :, None], axis=0)
        e = np.sort(np.stack([log_evidence(binned, binned.counts, s) for s in swapped], axis=1), axis=1)
        above += e[:, -1] - e[:, -2] >= odds - 1e-9
    return odds, (1 + above) / (1 + shuffles)


def _directions(
    binned: Candidates, content: NDArray[np.intp], way: NDArray[np.intp], contexts: dict[str, Context], cells: NDArray[np.int32], slope: NDArray[np.float64]
) -> tuple[NDArray[np.object_], NDArray[np.float64]]:
    """forward where the decoded movement goes the way in which the animal ran when these cells fired like this; reverse otherwise."""
    out, odds = np.full(len(binned), "", dtype=object), np.full(len(binned), np.nan)
    for i, c in enumerate(contexts.values()):
        for k, w in enumerate(c.ways):
            mine = np.flatnonzero((content == i) & (way == k))
            if not len(mine) or w.outbound is None or w.inbound is None:
                continue
            part = binned.pick(mine)
            keep = np.isin(c.fields.units, cells)
            out_way, in_way = (log_evidence(part, part.counts, f.rates[keep]) for f in (w.outbound, w.inbound))
            outbound = out_way >= in_way
            out[mine] = np.where((slope[mine] > 0) == outbound, "forward", "reverse")
            odds[mine] = np.abs(out_way - in_way)
    return out, odds


def _way_names(content: NDArray[np.intp], way: NDArray[np.intp], contexts: dict[str, Context], slope: NDArray[np.float64]) -> NDArray[np.object_]:
    """From which end of the track towards which the decoded place moves, such as "0>2"; "" in a context without arms."""
    ways = [c.ways for c in contexts.values()]
    ends = [(ways[c][k].start, ways[c][k].stop) if len(ways[c]) > 1 else None for c, k in zip(content, way)]
    return np.array(["" if e is None else f"{e[0]}>{e[1]}" if up else f"{e[1]}>{e[0]}" for e, up in zip(ends, slope > 0)], dtype=object)


def _ticker(progress: Progress | None, total: int, contexts: int) -> Callable[[], None] | None:
    if progress is None:
        return None
    done = [0]

    def tick() -> None:
        done[0] += 1
        if done[0] % 10 == 0:
            progress("shuffles", min(done[0] / (total * contexts), 1.0))

    return tick


# -- what is said about it -----------------------------------------------------------------------------------------------


def _warnings(recording: Recording, position: Position, contexts: dict[str, Context], error: dict[str, Any]) -> list[str]:
    out = []
    if error["quality"] == "poor":
        how = f"{error['median']:.3g} {error['unit']} off while running, chance is {error['chance']:.3g}"
        out.append(f"{recording.id}: decoding is poor ({how}): replay read with it says nothing")
    s = recording.spikes
    order = np.lexsort((s.unit_id, s.times)) if s is not None else []
    twice = float(((np.diff(s.times[order]) == 0) & (np.diff(s.unit_id[order]) == 0)).mean()) if s is not None and len(s) > 1 else 0.0
    if twice > 0.01:
        out.append(f"{recording.id}: {twice:.0%} of the spikes stand twice (same unit, same time): evidence counts twice; drop the copies")
    if position.lost:
        out.append(
            f"{recording.id}: {position.lost} position samples are at one exact place that is jumped to and from: tracking was lost, they count as missing"
        )
    factor, unit = unit_factor(position.unit, kind="position")
    for name, c in contexts.items():
        if (n := _passes(c)) < _FEWEST_PASSES:
            out.append(f"{recording.id}: the animal went {n} times along the track {name!r}, expected {_FEWEST_PASSES} or more: fields of so few may be chance")
        lost = 1 - position.dwell[c.epochs.contains(position.times)].sum() / c.epochs.duration
        if lost > 0.1:
            out.append(f"{recording.id}: {lost:.0%} of the running epochs of {name!r} have no position (holes longer than 0.5 s)")
        metres = c.track.extent * factor
        if unit == "m" and not 0.1 <= metres <= 50:
            out.append(f"{recording.id}: track {name!r} is {metres:.3g} m long, expected 0.1 to 50: is {position.unit!r} the position's unit?")
    return out


def _passes(context: Context) -> int:
    """How often the animal went from the first quarter of a way to its last, or back; of the way it used most."""
    inside = context.epochs.contains(context.position.times)
    at = context.position.values[inside, 0]
    most = 0
    for way in context.ways:
        x = context.track.on_way(at[np.isfinite(at)], way.start, way.stop)
        low, high = np.nanmin(x), np.nanmax(x)
        quarter = np.where(x < low + (high - low) / 4, -1, np.where(x > high - (high - low) / 4, 1, 0))
        most = max(most, int((np.diff(quarter[quarter != 0]) != 0).sum()))
    return most


def _nulls(shuffles: int, sessions: int, session_shuffles: int) -> dict[str, str]:
    return {
        "temporal": f"each unit's train rolled circularly within the event, {shuffles} draws",
        "spatial": f"each unit's field rolled circularly along the track, {shuffles} draws",
        "joint": f"sum of the two z-scores, recalibrated on {sessions} null sessions (fields dealt anew among tuned units), {session_shuffles} shuffles each, "
        "every event measured by the null of events of its length and number of cells",
    }


def _empty(attrs: dict[str, Any]) -> EventTable:
    numbers = ("score", "p_value", "p_temporal", "p_spatial", "q_value", "z_temporal", "z_spatial", "r", "log_odds", "p_content")
    more = ("direction", "direction_log_odds", "span", "speed", "n_cells", "n_bins")
    return EventTable([], [], kind="replay", attrs=attrs, **{k: np.empty(0) for k in numbers + more})
