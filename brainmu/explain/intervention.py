"""In-silico interventions: change an event, ask the model again, and compare with placebo edits. An effect in the model only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Effect, EventTable, Recording
from brainmu.core.limits import whole
from brainmu.core.recording import as_list
from brainmu.errors import InputError, MissingDataError
from brainmu.explain.asking import Answer, stages_of, target_columns
from brainmu.explain.edits import Edit
from brainmu.explain.operations import OPERATIONS, Operation, check_factor, operation_of, parts_of
from brainmu.explain.placing import Places, choose
from brainmu.explain.reader import Reader, Reading
from brainmu.explain.readouts import SCALES, Readout, readouts
from brainmu.explain.verdict import effect_of

__all__ = ["OPERATIONS", "intervene"]

HAZARDS = (10.0, 20.0, 60.0)
"""Look-ahead of the hazard of the next transition, s."""
LONGEST = 60.0
"""How far ahead the expected length of a bout is followed, s."""

Say = Callable[[str, float], None]


def intervene(
    stager: Any, session: Recording | Sequence[Recording], events: EventTable | str | Sequence[EventTable], operation: str = "remove", *,
    what: str | Sequence[str] = ("spikes", "ripple"), outcome: str = "NREM->WAKE", horizon: float | None = None, placebos: int = 19,
    max_events: int = 200, content: str | Sequence[str] | None = None, dose: float | Sequence[float] = 1.0, factor: float = 0.5, blank: float = 0.0,
    blind: bool = False, hazards: Sequence[float] = HAZARDS, gate: str | Path | None = None, scale: str = "probability", risk: str | None = None,
    refits: Sequence[Any] = (), seed: int = 0, progress: Say | None = None,
) -> Effect:  # fmt: skip
    """Edit events inside the model and read out what it predicts afterwards, beside placebo edits.

    The model is asked again with the events changed, and the change of the predicted probability of the outcome stage is read in the
    epochs after the event's own, which are themselves not edited. The same is done with placebo edits of equal duration and norm at
    random other times of the same stage, away from any event. The estimate is the mean change by events minus that by placebos.

    Parameters
    ----------
    stager : SleepStager or StageModel
    session : Recording or Session, or several
    events : EventTable, name of an event label, or a table a session
        Events that start in an epoch which the model takes for the first stage of `outcome` are edited.
    operation : {"remove", "replace", "shift", "permute", "scale", "insert"}
        Take the event out; put a moment of the same stage in its place, of like power and spike rate; let it change places with a quiet
        moment of the bout; give its spikes to other units, rates kept; multiply it by `factor`; put a synthetic one, modelled on
        `events`, where there is none.
    what : some of "spikes", "ripple", or "both"
    outcome : str
        FROM->TO, such as "NREM->WAKE".
    horizon : float or None, s
        How long the prediction is read; three epochs where None. A multiple of the epoch.
    placebos : int
        Placebo edits of each event; with one animal the p-value cannot be below 1 / (placebos + 1).
    max_events : int
        At most this many events a session are edited, drawn at random and far enough apart not to reach into each other's read-out.
    content : str, sequence of str, or None
        Only events of this content (all stay out of the way of placebos). What a synthetic event carries, with "insert".
    dose : float or sequence of float
        Share of the events that are edited; all are read. Of several doses the greatest gives the estimate, ``diagnostics["doses"]`` has each.
    factor : float
        For "scale".
    blank : float, s
        Epochs that begin sooner than this after the event are not read.
    blind : bool
        Epochs that are read do not see the edited streams themselves: their windows are encoded without them.
    hazards : sequence of float, s
        Look-ahead of the chance of the transition (``diagnostics["readouts"]``), rounded up to whole epochs.
    gate : path, packaged name, or None
        A pretrained encoder (such as "brainmu-tiny"): how far its pretraining loss moves by the edits is reported, and flags them.
    scale : {"probability", "log_hazard"}
        What the estimate is: the change of the probability, or of the log hazard of the outcome stage against the first (complementary log-log),
        the mean over the epochs read. For heads of :func:`brainmu.train.outcome_heads` the latter is a log hazard ratio of the transition.
    risk : str or None
        Name of a hypnogram of the sessions: events, placebos and all epochs that are read lie in its stage, not in the stage that the model predicts.
        A model of what comes next does not say what is.
    refits : sequence of SleepStager or StageModel
        The stager's head fitted without each of its training animals in turn, on the same encoder. The interval and p then hold what other training
        animals would have made of the head (a jackknife, with t); without them the model is taken as it is.
    seed : int

    Returns
    -------
    Effect
        Level "model". With one animal, interval and p are over events and placebo replicates, and ``null`` holds the replicates around
        their mean. With several, each counts once: a t interval over animals, ``null`` their sign flips. ``diagnostics``: ``readouts``
        (log hazard, hazards, bout, latents), ``course`` (change of each stage, epoch by epoch), ``doses``, ``gate``, ``leakage``, norms and warnings.

    Raises
    ------
    MissingDataError
        If no event starts in the stage, none is left with that content, or no place for placebo edits is.
    InputError
        If the operation, the outcome, the horizon or the dose cannot be.

    Examples
    --------
    >>> intervene(stager, session, ripples, "remove", what="ripple", content="A")  # doctest: +SKIP
    """
    if operation not in OPERATIONS:
        raise InputError(f"operation is {operation!r}, expected one of {', '.join(OPERATIONS)}")
    source, aim = _outcome(outcome)
    if placebos < 1:
        raise InputError(f"placebos is {placebos}, expected at least 1: an edit without its placebo cannot be judged")
    if operation == "scale":
        check_factor(factor)
    whole("max_events", max_events, 1)
    whole("seed", seed, 0)
    if horizon is not None and (isinstance(horizon, str) or not (np.isfinite(horizon) and horizon > 0)):
        raise InputError(f"horizon is {horizon!r} s, expected a positive multiple of the epoch")
    if len(refits) == 1:
        raise InputError("refits holds one head, expected one without each training animal, two or more: their spread is the error of training")
    if not (np.isfinite(blank) and blank >= 0):
        raise InputError(f"blank is {blank:g} s, expected a number >= 0")
    if not all(np.isfinite(h) and h > 0 for h in hazards):
        raise InputError(f"hazards are {list(hazards)} s, expected numbers > 0")
    if scale not in SCALES:
        raise InputError(f"scale is {scale!r}, expected {' or '.join(map(repr, SCALES))}")
    parts = parts_of(what)
    q = Question(
        operation, ("spikes",) if operation == "permute" and "spikes" in parts else parts, source, aim, horizon, placebos, max_events,
        _names(content), _doses(dose), factor, blank, blind, tuple(float(h) for h in hazards), gate, scale, risk, seed,
    )  # fmt: skip
    sessions = as_list(session)
    if not sessions:
        raise InputError("intervene: no recordings came, expected at least one")
    tables = _tables(sessions, events)
    # What cannot be is told before the model reads hours of recording.
    stages = stages_of(stager)
    for stage in (source, aim) if stages else ():
        target_columns(stages, stage, "outcome: stage")
    for recording, table in zip(sessions, tables):
        _of_content(recording, table, q.content)
    found = []
    for i, (recording, table) in enumerate(zip(sessions, tables)):
        part = None if progress is None else lambda label, fraction, i=i: progress(label, (i + fraction) / len(sessions))
        found.append(_one(stager, recording, table, q, part or (lambda _label, _fraction: None), refits))
    return effect_of(found, q)


@dataclass(frozen=True)
class Question:
    """What is asked of each session; see :func:`intervene`."""

    operation: str
    what: tuple[str, ...]
    source: str
    aim: str
    horizon: float | None
    placebos: int
    max_events: int
    content: tuple[str, ...]
    doses: tuple[float, ...]
    factor: float
    blank: float
    blind: bool
    hazards: tuple[float, ...]
    gate: str | Path | None
    scale: str
    risk: str | None
    seed: int


@dataclass
class Found:
    """What one session answered.

    ``change[dose][readout]`` is (event,), ``placebo[dose][readout]`` (replicate, event); ``course`` the mean change (epoch, stage) by events
    and by placebos at the greatest dose. ``refits`` holds the same changes by each refitted head.
    """

    id: str
    subject: str
    epoch: float
    ahead: int
    stages: tuple[str, ...]
    said: str
    edits: list[Edit]
    n_chosen: int
    causal: bool
    reads: list[str]
    units: dict[str, str]
    change: list[dict[str, NDArray[np.float64]]] = field(default_factory=list)
    placebo: list[dict[str, NDArray[np.float64]]] = field(default_factory=list)
    course: tuple[NDArray[np.float64], NDArray[np.float64]] = (np.empty((0, 0)), np.empty((0, 0)))
    shift: tuple[float, float] = (np.nan, np.nan)
    novel: tuple[float, float] = (np.nan, np.nan)
    earlier: float = np.nan
    until_read: float = np.nan
    lost: int = 0
    unmade: int = 0
    crowded: int = 0
    loss: dict[str, Any] | None = None
    refits: list[Found] = field(default_factory=list)


def _one(stager: Any, session: Recording, events: EventTable, q: Question, say: Say, refits: Sequence[Any]) -> Found:
    rng = np.random.default_rng(q.seed)
    say("ask", 0.0)
    reader = Reader(stager, session, _edited_streams(session, q.what) if q.blind else (), refits)
    base = reader.answer
    ahead, skip = _epochs_ahead(q.horizon, base.epoch), int(np.ceil(q.blank / base.epoch - 1e-9))
    source, aims = target_columns(base.stages, q.source), target_columns(base.stages, q.aim)
    at_risk = _at_risk(session, base, source, q, ahead + skip)
    mine = _of_content(session, events, q.content)
    places = Places.of(at_risk, base.start, base.epoch, ahead + skip, events)
    operation = operation_of(q.operation, session, q.what, mine, places.room, rng, q.factor)
    sites = _sites(mine, places, rng, q.max_events) if q.operation == "insert" else mine
    chosen = choose(sites, base.start, base.epoch, at_risk, ahead + skip, q.max_events, rng)
    if not len(chosen):
        raise MissingDataError(f"{session.id}: none of the {len(mine)} events starts in an epoch {_whose(q)} {q.source} with {ahead + skip} epochs after it")
    if q.operation == "insert":
        places = Places.of(at_risk, base.start, base.epoch, ahead + skip, EventTable.concat([events, chosen]))
    say("edit", 0.0)
    edits = _edits(operation, chosen, places, rng)
    reach = max(ahead, *(int(np.ceil(h / base.epoch - 1e-9)) for h in q.hazards), int(LONGEST / base.epoch + 1e-9))
    look = _Look(reader, source, aims, ahead, skip, reach, q)
    out = Found(
        session.id, session.subject or session.id, base.epoch, ahead, base.stages, operation.said, [e for e in edits if e is not None], len(chosen),
        reader.causal, _reads(reader, session, q.what), {},
    )  # fmt: skip
    out.unmade = sum(e is None for e in edits)
    if not out.edits:
        raise MissingDataError(
            f"{session.id}: none of the {len(chosen)} events could be edited by {q.operation}: no other time of the stage is long enough, or no signal there"
        )
    order = rng.permutation(len(edits))
    readings = [look(_share(edits, order, d), chosen.stop) for d in q.doses]
    draws: list[list[Looked]] = [[] for _ in q.doses]
    first_placed: list[Edit] = []
    for r in range(q.placebos):
        placed, crowded = _placebos(operation, edits, places, rng)
        out.crowded += crowded
        out.lost += sum(p is None and e is not None for p, e in zip(placed, edits))
        first_placed = first_placed or [p for p in placed if p is not None]
        stops = np.array([np.nan if p is None else p.stop for p in placed])
        for k, d in enumerate(q.doses):
            draws[k].append(look(_share(placed, order, d), stops))
        say("placebo edits", (r + 1) / q.placebos)
    _keep(out, readings, draws, edits, base.start, base.epoch, skip)
    if not any(np.isfinite(p["probability"]).any() for p in out.placebo):
        raise MissingDataError(
            f"{session.id}: no time in {q.source} away from the {len(events)} events is left for placebo edits: give fewer or shorter events"
        )
    if q.gate is not None:
        from brainmu.explain.gate import loss_shift

        out.loss = loss_shift(q.gate, session, out.edits, first_placed, q.seed)
    return out


def _at_risk(session: Recording, base: Answer, source: NDArray[np.intp], q: Question, after: int) -> NDArray[np.bool_]:
    """Epochs (n,) of the first stage: the model's own, or those of a hypnogram which `after` more epochs of that stage follow."""
    there = np.isfinite(base.proba).all(1)
    if q.risk is None:
        return np.isin(np.nan_to_num(base.proba, nan=-1.0).argmax(1), source) & there
    h = session.hypnogram(q.risk)
    ok = np.isin(h.at(base.times + base.epoch / 2), target_columns(h.stages, q.source)) & there
    padded = np.r_[ok, np.zeros(after, dtype=bool)]
    return np.logical_and.reduce([padded[k : k + len(ok)] for k in range(after + 1)])


def _whose(q: Question) -> str:
    return "the model takes for" if q.risk is None else f"that {q.risk!r} scores"


Looked = tuple[Reading, list[Readout], list[list[Readout]]]
"""A reading, its read-outs, and those of each refitted head."""


class _Look:
    """Reads edits at places, and makes read-outs of the readings."""

    def __init__(self, reader: Reader, source: Any, aims: Any, ahead: int, skip: int, reach: int, q: Question) -> None:
        self.reader, self.source, self.aims, self.ahead, self.skip, self.reach, self.q = reader, source, aims, ahead, skip, reach, q

    def __call__(self, edits: Sequence[Edit | None], stops: NDArray[np.float64]) -> Looked:
        reading = self.reader.read(edits, stops, 1 + self.skip, self.reach)
        return reading, self._readouts(reading), [self._readouts(replace(reading, before=b, after=a)) for b, a in reading.refits]

    def _readouts(self, reading: Reading) -> list[Readout]:
        return readouts(reading, self.source, self.aims, self.reader.answer.epoch, self.ahead, self.q.hazards, LONGEST)


def _keep(
    out: Found, readings: list[Looked], draws: list[list[Looked]], edits: Sequence[Edit | None], start: float, epoch: float, skip: int
) -> None:  # fmt: skip
    """Readings of events and placebos as arrays, in `out`."""
    out.units = {r.name: r.unit for r in readings[-1][1]}
    out.refits = [replace(out, change=[], placebo=[]) for _ in readings[-1][2]]
    for (_, reads, refits), replicates in zip(readings, draws):
        _keep_changes(out, reads, [again for _, again, _ in replicates])
        for j, (by, found) in enumerate(zip(refits, out.refits)):
            _keep_changes(found, by, [again[j] for *_, again in replicates])
    top, others = readings[-1][0], [reading for reading, *_ in draws[-1]]

    def course(r: Reading) -> NDArray[np.float64]:
        there = (r.after - r.before)[np.isfinite(r.after).all((1, 2))]
        return there.mean(0) if len(there) else np.full(r.after.shape[1:], np.nan)

    out.course = course(top), _mean([course(r) for r in others])
    out.shift = top.shift, float(_mean([np.array(r.shift) for r in others]))
    out.novel = top.novel, float(_mean([np.array(r.novel) for r in others]))
    out.earlier = float(_mean([np.array(r.earlier) for r in (top, *others)]))
    ends = np.array([max(p.stop for p in e.places()) if e.twin is None else e.stop for e in edits if e is not None])
    out.until_read = float(((np.floor((ends - start) / epoch) + 1 + skip) * epoch + start - ends).min())


def _keep_changes(out: Found, reads: Sequence[Readout], replicates: Sequence[Sequence[Readout]]) -> None:
    out.change.append({r.name: r.change for r in reads})
    out.placebo.append({r.name: np.array([again[k].change for again in replicates]) for k, r in enumerate(reads)})


def _mean(values: Sequence[Any]) -> Any:
    """Mean over what is finite; NaN where nothing is."""
    stacked = np.array(values, dtype=np.float64)
    count = np.isfinite(stacked).sum(0)
    return np.where(count > 0, np.nansum(stacked, axis=0) / np.maximum(count, 1), np.nan)


# -- edits -----------------------------------------------------------------------------------------------------------------
def _edits(operation: Operation, chosen: EventTable, places: Places, rng: np.random.Generator) -> list[Edit | None]:
    ends = _destinations(operation, list(chosen.start), chosen.duration, places, rng)
    return [operation.edit(a, b, d) for a, b, d in zip(chosen.start, chosen.stop, ends)]


def _placebos(operation: Operation, edits: Sequence[Edit | None], places: Places, rng: np.random.Generator) -> tuple[list[Edit | None], int]:
    """A placebo for each edit (None where there is no place for it), and how many lie near another."""
    lengths = [0.0 if e is None else e.stop - e.start for e in edits]
    made = [i for i, e in enumerate(edits) if e is not None]
    starts: list[float | None] = [None] * len(edits)
    drawn, crowded = places.draw([lengths[i] for i in made], rng)
    for i, s in zip(made, drawn):
        starts[i] = s
    ends = _destinations(operation, starts, lengths, places, rng)
    return [None if e is None or s is None else operation.placebo(e, s, d) for e, s, d in zip(edits, starts, ends)], crowded


def _destinations(
    operation: Operation, starts: Sequence[float | None], lengths: Sequence[float] | NDArray[np.float64], places: Places, rng: np.random.Generator
) -> list[float | None]:  # fmt: skip
    return places.destinations(starts, list(lengths), rng) if operation.second_place else [None] * len(starts)


def _share(edits: Sequence[Edit | None], order: NDArray[np.int64], dose: float) -> list[Edit | None]:
    """The first `dose` of the edits in a random order, the same one for every dose, so that doses are nested."""
    kept = set(order[: max(1, round(dose * len(order)))].tolist())
    return [e if i in kept else None for i, e in enumerate(edits)]


def _sites(events: EventTable, places: Places, rng: np.random.Generator, most: int) -> EventTable:
    """Times in the stage and away from events, as long as events are, where synthetic ones go."""
    lengths = rng.choice(events.duration, min(most, len(events)))
    starts, _ = places.draw(lengths.tolist(), rng)
    kept = [(s, s + x) for s, x in zip(starts, lengths.tolist()) if s is not None]
    return EventTable([a for a, _ in kept], [b for _, b in kept]).sorted()


def _of_content(session: Recording, events: EventTable, content: tuple[str, ...]) -> EventTable:
    if not content:
        return events
    have = np.asarray(events.content).astype(str)
    mine = events[np.isin(have, content)]
    if not len(mine):
        raise MissingDataError(f"{session.id}: no event has content {' or '.join(map(repr, content))}, events have {', '.join(sorted(set(have))) or 'none'}")
    return mine


def _edited_streams(session: Recording, what: Sequence[str]) -> list[str]:
    return [*(session.signals_of("lfp") if "ripple" in what else ()), *(("spikes",) if "spikes" in what else ())]


def _reads(reader: Reader, session: Recording, what: Sequence[str]) -> list[str]:
    """Edited streams that the stager reads."""
    edited = _edited_streams(session, what)
    if reader.model is None:
        return edited
    s = reader.grid.statistics
    read = {x.signal for x in s.signals.values()} | ({"spikes"} if s.spikes is not None else set())
    return [n for n in edited if n in read]


# -- what came -------------------------------------------------------------------------------------------------------------
def _tables(sessions: Sequence[Recording], events: EventTable | str | Sequence[EventTable]) -> list[EventTable]:
    if isinstance(events, str):
        return [s.events(events) for s in sessions]
    tables = [events] if isinstance(events, EventTable) else list(events)
    if len(tables) != len(sessions):
        raise InputError(f"{len(tables)} event tables came for {len(sessions)} sessions: give one for each, or the name of an event label")
    return tables


def _names(content: str | Sequence[str] | None) -> tuple[str, ...]:
    return () if content is None else (content,) if isinstance(content, str) else tuple(map(str, content))


def _doses(dose: float | Sequence[float]) -> tuple[float, ...]:
    try:
        doses = tuple(sorted({float(d) for d in np.atleast_1d(np.asarray(dose, dtype=np.float64))}))
    except (TypeError, ValueError):
        doses = ()
    if not doses or not all(0 < d <= 1 for d in doses):
        raise InputError(f"dose is {dose!r}, expected shares of the events in (0, 1]")
    return doses


def _outcome(outcome: str) -> tuple[str, str]:
    source, arrow, aim = (part.strip() for part in outcome.partition("->"))
    if not (source and arrow and aim):
        raise InputError(f"outcome is {outcome!r}, expected FROM->TO, such as NREM->WAKE")
    if source == aim:
        raise InputError(f"outcome is {outcome!r}, expected two different stages, such as NREM->WAKE")
    return source, aim


def _epochs_ahead(horizon: float | None, epoch: float) -> int:
    if horizon is None:
        return 3
    n = round(horizon / epoch)
    if n < 1 or abs(n * epoch - horizon) > 1e-6:
        lower = max(1, int(horizon // epoch)) * epoch
        raise InputError(f"horizon is {horizon:g} s, expected a multiple of the epoch ({epoch:g} s): {lower:g} or {lower + epoch:g}")
    return n
