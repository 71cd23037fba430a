"""What a ReplayDetector used to find its events, or to tell their content: channel, band and unit, by occlusion."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import EventTable, Recording, Spikes
from brainmu.core.limits import whole
from brainmu.errors import MissingDataError
from brainmu.explain.bands import BANDS, bands_below
from brainmu.explain.checks import check_planted, curves, ranked, recovery, similarity, verdict
from brainmu.explain.datasets import as_dataset
from brainmu.explain.occlusion import shifted
from brainmu.explain.parts import Map, Part, randomised
from brainmu.explain.saved import Saved, asked_once

if TYPE_CHECKING:
    import xarray as xr

    from brainmu.replay.detection import ReplayDetector

__all__ = ["EVENT", "attribute_events"]

EVENT = ("event", "replay")
"""Targets that mean the event itself; any other names a content."""
_READ = ("lfp", "eeg")


def attribute_events(
    detector: ReplayDetector, session: Recording, target: str = "event", *, events: EventTable | None = None, max_events: int = 32, shifts: int = 2,
    check: bool = True, seed: int = 0, progress: Callable[[str, float], None] | None = None, planted: Iterable[tuple[str, ...]] | None = None,
    parts: str | Path | None = None,
) -> xr.Dataset:  # fmt: skip
    """Fall of the log odds of events, or of their content, when one channel's band or one unit is shifted in time.

    The part goes around the end of the recording by a quarter to three quarters of it: what it does over the recording stays, and that it belongs to the
    event is lost. This is occlusion as :func:`brainmu.explain.attribute` does it with stagers.

    Parameters
    ----------
    detector : ReplayDetector
        Fitted.
    session : Recording or Session
    target : str
        "event" (or "replay"): that there is an event. A content, such as "A": that it is this one.
    events : EventTable or None
        The events to explain; None takes those that the detector finds (with that content).
    max_events : int
        At most so many, drawn at random.
    shifts : int
        Random shifts that are averaged.
    check : bool
        Deletion and insertion against random orders, and for "event" the same head with random weights: a map that fails is marked.
    seed : int
    planted : iterable of (stream, channel, band) or (stream, unit), or None
        As of :func:`brainmu.explain.attribute`: ``attrs["recovery"]`` is then the map's AUROC against it.
    parts : path or None
        A folder in which each part of the work is kept as it is done; the same call goes on from there.

    Returns
    -------
    xr.Dataset
        In log odds: field signals (event, channel, band), spikes (event, unit); the first coordinate is the start of the event, s. ``attrs`` as of
        :func:`brainmu.explain.attribute`, with n_events.

    Raises
    ------
    MissingDataError
        If there is no event to explain, or nothing that could be shifted.
    InputError
        If the detector was not shown the content, or `parts` holds those of another question.
    """
    whole("shifts", shifts, 1)
    whole("max_events", max_events, 1)
    whole("seed", seed, 0)
    say = progress or (lambda _what, _done: None)
    content = None if target in (*EVENT, detector.kind) else target
    rng = np.random.default_rng(seed)
    known = None if planted is None else check_planted(session, planted, shifted=True)
    chosen = _chosen(detector, session, content, events, max_events, rng)
    all_parts = _parts(session, content)
    if not all_parts:
        raise MissingDataError(f"{session.id}: has neither LFP nor units to explain {target} by")
    by = rng.uniform(0.25, 0.75, (len(all_parts), shifts)) * session.duration
    before = detector.log_odds(session, chosen, content)
    there = np.isfinite(before)
    if not there.any():
        raise MissingDataError(f"{session.id}: the detector has nothing to read in any of {len(chosen)} events")
    chosen, before = chosen[there], before[there]
    heads = [detector, _random(detector, seed)] if check and content is None else [detector]
    bases = [before, *(d.log_odds(session, chosen, content) for d in heads[1:])]
    question = {"recording": session.id, "target": target, "max_events": max_events, "shifts": shifts, "seed": seed, "check": check}
    saved = Saved(parts, question, np.stack([chosen.start, before]))
    falls = np.zeros((len(heads), len(all_parts), len(chosen)))
    for i, part in enumerate(all_parts):
        done = saved.get(f"occlude.{i}")
        if done is None:
            for b in by[i]:
                other = _without(session, {part}, b)
                for k, (d, base) in enumerate(zip(heads, bases)):
                    falls[k, i] += _fall(base, d.log_odds(other, chosen, content)) / shifts
            saved.put(f"occlude.{i}", falls=falls[:, i])
        else:
            falls[:, i] = done["falls"]
        say("occlude", (i + 1) / len(all_parts))
    maps = _map(session, all_parts, falls[0])
    attrs: dict[str, Any] = {
        "recording": session.id, "target": target, "method": "occlusion", "unit": "log odds", "shifts": shifts, "n_events": len(chosen),
        "n_epochs": len(chosen), "explains": f"log odds of {'the event' if content is None else f'content {content}'} by the detector's "
        f"{'head, before calibration' if content is None else 'reader of contents'}",
    }  # fmt: skip
    if check and not ranked(maps):
        attrs |= {"difference": 0.0, "verdict": verdict({"difference": 0.0})}
    elif check:
        say("deletion and insertion", 0.0)
        attrs |= curves(_odds(detector, session, chosen, content, before, rng, saved), ranked(maps), 3, 2, rng)
        if len(heads) > 1:
            attrs["randomised_weights_correlation"] = similarity(maps, _map(session, all_parts, falls[1]))
        attrs["verdict"] = verdict(attrs)
        attrs["beats_random"] = int(attrs["beats_random"])
    out = as_dataset(maps, chosen.start, float(np.median(chosen.duration)), attrs, session)
    if known is not None:
        out.attrs |= {"recovery": recovery(out, known), "planted": ["/".join(p) for p in known]}
    return out


def _chosen(
    detector: ReplayDetector, session: Recording, content: str | None, events: EventTable | None, most: int, rng: np.random.Generator
) -> EventTable:  # fmt: skip
    if content is not None:
        # Refuses a content that it does not know before the search.
        detector.log_odds(session, EventTable([], []), content)
    found = detector.predict(session) if events is None else events
    if content is not None and events is None:
        found = found[np.asarray(found.content, dtype=str) == content]
    if not len(found):
        raise MissingDataError(f"{session.id}: the detector finds no {'event' if content is None else f'event of content {content}'}, so none can be explained")
    return found[np.sort(rng.permutation(len(found))[:most])]


def _parts(session: Recording, content: str | None) -> list[Part]:
    """Every band of every LFP channel, and every unit by its row; contents are told by units alone."""
    out: list[Part] = []
    for name, s in session.signals.items() if content is None else ():
        if s.rate is not None and set(s.channels["kind"]) <= set(_READ):
            bands = [list(BANDS).index(b) for b in bands_below(s.rate)]
            out += [(name, member, band) for member in range(s.n_channels) for band in bands]
    if session.spikes is not None:
        out += [("spikes", k, -1) for k in range(len(session.spikes.units))]
    return out


def _without(session: Recording, parts: Collection[Part], by: float) -> Recording:
    """The recording with these parts shifted by `by`, s."""
    out = shifted(session, {p for p in parts if p[0] != "spikes"}, by)
    rows = [p[1] for p in parts if p[0] == "spikes"]
    if rows and session.spikes is not None:
        spikes = session.spikes
        moved = np.isin(spikes.unit_id, spikes.units["id"].to_numpy()[rows])
        a, b = session.start, session.stop
        out.spikes = Spikes(np.where(moved, a + (spikes.times - a + by) % (b - a), spikes.times), spikes.unit_id, spikes.units)
    return out


def _fall(before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far the log odds fell; where nothing is left to read, all the way to even."""
    return before - np.where(np.isfinite(after), after, 0.0)


def _odds(
    detector: ReplayDetector, session: Recording, events: EventTable, content: str | None, before: NDArray[np.float64], rng: np.random.Generator,
    saved: Saved,
) -> Callable[[Sequence[Collection[Part]]], NDArray[np.float64]]:  # fmt: skip
    """Mean log odds (set,) of the events with sets of parts shifted, all by as much."""
    by = rng.uniform(0.25, 0.75) * session.duration

    def ask_without(parts: frozenset[Part]) -> float:
        after = detector.log_odds(_without(session, parts, by), events, content)
        return float(np.where(np.isfinite(after), after, 0.0).mean())

    return asked_once(saved, {frozenset(): float(before.mean())}, ask_without)


def _map(session: Recording, parts: Sequence[Part], falls: NDArray[np.float64]) -> Map:
    """Falls (part, event) by stream: (event, channel, band), or (event, unit)."""
    out: Map = {}
    n = falls.shape[1]
    for name in dict.fromkeys(p[0] for p in parts):
        if name == "spikes":
            assert session.spikes is not None
            keys = tuple(str(i) for i in session.spikes.units["id"])
            out[name] = (np.zeros((n, len(keys))), keys, "spikes")
        else:
            keys = tuple(session.signals[name].names)
            out[name] = (np.zeros((n, len(keys), len(BANDS))), keys, "field")
    for (name, member, band), fall in zip(parts, falls):
        out[name][0][(slice(None), member, band) if band >= 0 else (slice(None), member)] = fall
    return out


def _random(detector: ReplayDetector, seed: int) -> ReplayDetector:
    """The same detector with a head that learned nothing."""
    import copy

    other = copy.copy(detector)
    other.head_ = randomised(detector.head_, seed)
    return other
