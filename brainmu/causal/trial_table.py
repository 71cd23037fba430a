"""The ledger of randomised trials, checked, and read out against the hypnogram.

A trial is at risk if the epoch that holds its onset (or its gate, where one was logged) is scored as the source stage; a logged gate also
vouches for a trial whose own epoch is already scored as the target while the one before is source. The target is reached at the start of
the first target epoch; it counts if that lies in (onset, onset + horizon].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.grid import EpochGrid, events_of
from brainmu.core.events import EventTable
from brainmu.errors import DesignError

__all__ = ["ENDS", "SCHEMES", "Trials", "collect_trials"]

SCHEMES = ("bernoulli", "blocked")
ENDS = ("exit", "next", "end")
"""What can end follow-up before the target: another stage, the next trial, the end of scoring (recording end, gap, artefact)."""

LONGEST_WAIT = 60.0
"""Longest from a gate to its trial's onset, s."""

_EDGE = 1e-6


@dataclass
class Trials:
    """Trials of all animals, a row each, in order of animal, session and onset.

    Attributes
    ----------
    animal : int (n,)
        Index into `names`.
    onset, horizon : float64 (n,), s and float, s
    assigned, delivered : bool (n,)
        Delivered equals assigned where the ledger has no such column.
    probability : float64 (n,)
        Logged probability of assignment.
    block : int (n,)
        Randomisation block, unique over recordings; -1 where none was logged.
    at_risk : bool (n,)
        Source stage at the onset.
    end : str (n,)
        "target", "exit", "next", "end" or "" (followed to the horizon).
    latency : float64 (n,), s
        From onset to that end; the horizon where there is none.
    own_epoch : bool (n,)
        A gated trial that had reached the target by the scoring of its own epoch, the epoch before being source; counted as reached.
    before, before_hit : bool (n,)
        The same question asked of the last epoch that was over before the onset: at risk then, and target reached from the onset's own epoch on.
    age : float64 (n,), s
        Time in bout at the onset; stage : str (n,), as scored.
    arm : str (n,)
        What the trial would deliver, or the animal's group, where arms are compared; "" elsewhere.
    gate : float64 (n,), s
        When a closed loop opened; the onset where it was not logged.
    extra : dict of float64 (n,)
        Other numeric columns of the ledger (light dose, ensemble size, phase, …).
    """

    names: list[str]
    animal: NDArray[np.int64]
    session: NDArray[np.int64]
    onset: NDArray[np.float64]
    assigned: NDArray[np.bool_]
    delivered: NDArray[np.bool_]
    probability: NDArray[np.float64]
    block: NDArray[np.int64]
    content: NDArray[Any]
    at_risk: NDArray[np.bool_]
    end: NDArray[Any]
    latency: NDArray[np.float64]
    own_epoch: NDArray[np.bool_]
    before: NDArray[np.bool_]
    before_hit: NDArray[np.bool_]
    age: NDArray[np.float64]
    stage: NDArray[Any]
    arm: NDArray[Any]
    gate: NDArray[np.float64]
    horizon: float
    epoch: float
    logged: dict[str, bool] = field(default_factory=dict)
    extra: dict[str, NDArray[np.float64]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.onset)

    def __getitem__(self, which: NDArray[np.bool_]) -> Trials:
        rows = {k: v[which] for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        extra = {k: v[which] for k, v in self.extra.items()}
        return Trials(names=self.names, horizon=self.horizon, epoch=self.epoch, logged=self.logged, extra=extra, **rows)


def collect_trials(
    grids: Sequence[EpochGrid], exposure: str | Mapping[str, EventTable], *, horizon: float, scheme: str | None, content: str | None,
    contrast: tuple[str, str] | None, arms: tuple[str, str] | None = None,
) -> Trials:  # fmt: skip
    """All trials with what happened after each; `arms` names what :attr:`Trials.arm` is looked up for.

    Raises
    ------
    DesignError
        If the ledger lacks a column, contradicts itself, or its trials overlap.
    """
    names = list(dict.fromkeys(g.subject for g in grids))
    parts, others, block_base = [], [], 0
    logged: dict[str, bool] = {}
    for session, grid in enumerate(grids):
        table = events_of(grid.recording, exposure).sorted()
        where = grid.recording.id
        if not len(table):
            continue
        if contrast is not None:
            table = _contrast(table, contrast, where)
        if content is not None:
            table = table[np.asarray(table.content).astype(str) == content]
            if not len(table):
                continue
        part = _ledger(table, where, scheme, logged)
        part["block"] = np.where(part["block"] >= 0, part["block"] + block_base, -1)
        block_base = max(block_base, int(part["block"].max(initial=-1)) + 1)
        part.update(_follow(grid, part["onset"], part["gate"], part.pop("gated"), horizon))
        n = len(part["onset"])
        part["arm"] = np.full(n, "", dtype=object) if arms is None else arm_of(grid, table, arms)
        others.append(_numeric(table))
        part["animal"], part["session"] = np.full(n, names.index(grid.subject)), np.full(n, session)
        parts.append(part)
    if not parts:
        what = f" with content {content!r}" if content is not None else ""
        raise DesignError(f"the trial tables of {len(grids)} recordings hold no trials{what}, expected at least one in each arm")
    rows = {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}
    shared = [c for c in others[0] if all(c in o for o in others)]
    extra = {c: np.concatenate([o[c] for o in others]) for c in shared}
    trials = Trials(names=names, horizon=horizon, epoch=grids[0].epoch, logged=logged, extra=extra, **rows)
    order = np.lexsort((trials.onset, trials.session, trials.animal))
    trials = trials[order]
    _check_deliveries(trials)
    return trials


_KNOWN = {"start", "stop", "peak", "kind", "content", "assigned", "delivered", "probability", "p_assigned", "block", "gate_time", "arm", "planned", "trial"}


def _numeric(table: EventTable) -> dict[str, NDArray[np.float64]]:
    """Columns of numbers that the design itself does not read."""
    frame = table.to_frame()
    return {str(c): frame[c].to_numpy(dtype=np.float64) for c in frame.select_dtypes("number").columns if str(c) not in _KNOWN}


def arm_of(grid: EpochGrid, table: EventTable, arms: tuple[str, str]) -> NDArray[Any]:
    """The arm of each trial (n,): the ledger's column `planned` or `arm`, or the animal's `arm`, `group` or `virus`, whichever knows the names."""
    columns = [np.asarray(getattr(table, c)).astype(str) for c in ("planned", "arm") if c in table.columns]
    meta = grid.recording.subject_meta
    columns += [np.full(len(table), str(meta[k])) for k in ("arm", "group", "virus") if k in meta]
    known = next((c for c in columns if np.isin(c, arms).any()), np.full(len(table), ""))
    return known.astype(object)


def _contrast(table: EventTable, contrast: tuple[str, str], where: str) -> EventTable:
    """Only two arms of a ledger with several: `assigned` is the first against the second."""
    if "arm" not in table.columns:
        raise DesignError(f"{where}: contrast {contrast[0]!r} - {contrast[1]!r} needs a column arm in the trial table, it has {', '.join(table.columns)}")
    arm = np.asarray(table.arm).astype(str)
    unknown = [c for c in contrast if c not in set(arm)]
    if len(unknown) == 2:
        raise DesignError(f"{where}: neither arm of the contrast {contrast[0]!r} - {contrast[1]!r} occurs, the arms are {', '.join(sorted(set(arm)))}")
    table = table[np.isin(arm, contrast)]
    return table.assign(assigned=np.asarray(table.arm).astype(str) == contrast[0])


def _ledger(table: EventTable, where: str, scheme: str | None, logged: dict[str, bool]) -> dict[str, NDArray[Any]]:
    """The columns of one recording's table, checked."""
    n = len(table)
    if "assigned" not in table.columns:
        raise DesignError(f"{where}: the trial table has columns {', '.join(table.columns)}, expected 'assigned' (0 or 1 as randomised)")
    assigned = _binary(table.assigned, f"{where}: assigned")
    start, stop = table.start, table.stop
    clash = np.flatnonzero((start[1:] < stop[:-1] - 1e-9) | (start[1:] <= start[:-1]))
    if len(clash):
        i = int(clash[0])
        raise DesignError(
            f"{where}: {len(clash)} trials overlap, the first at {start[i]:g}-{stop[i]:g} s and {start[i + 1]:g} s, expected one trial at a time: "
            "end each before the next, or give one row a trial"
        )
    name = next((c for c in ("probability", "p_assigned") if c in table.columns), None)
    if name is None and scheme != "bernoulli":
        raise DesignError(
            f"{where}: the trial table has no column 'probability' (of being assigned, as logged): the randomisation cannot be replayed; "
            "add it, or pass scheme='bernoulli' for one fair coin a trial"
        )
    p = np.full(n, np.nan) if name is None else _numbers(getattr(table, name), f"{where}: {name}", "the chance of assignment between 0 and 1")
    if name is not None and not (np.isfinite(p).all() and (p > 0).all() and (p < 1).all()):
        bad = p[~(np.isfinite(p) & (p > 0) & (p < 1))][0]
        raise DesignError(
            f"{where}: {name} holds {bad:g}, expected the chance of assignment strictly between 0 and 1: leave out trials that were not randomised"
        )
    logged["probability"] = logged.get("probability", True) and name is not None
    delivered = assigned.copy()
    if "delivered" in table.columns:
        delivered = _binary(table.delivered, f"{where}: delivered")
        logged["delivered"] = True
    block = np.full(n, -1)
    if "block" in table.columns:
        block = np.unique(np.asarray(table.block).astype(str), return_inverse=True)[1].astype(np.int64)
    gate = _numbers(table.gate_time, f"{where}: gate_time", "seconds on the session clock") if "gate_time" in table.columns else start
    gated = np.isfinite(gate) & ("gate_time" in table.columns)
    gate = np.where(np.isfinite(gate), gate, start)
    late = np.flatnonzero(gate > start + 1e-6)
    if len(late):
        i = int(late[0])
        raise DesignError(
            f"{where}: trial at {start[i]:g} s was gated at {gate[i]:g} s, after its onset: expected gate_time <= start (is one of them on another clock?)"
        )
    stale = np.flatnonzero(gate < start - LONGEST_WAIT)
    if len(stale):
        i = int(stale[0])
        raise DesignError(
            f"{where}: trial at {start[i]:g} s was gated at {gate[i]:g} s, {start[i] - gate[i]:g} s before its onset, expected at most {LONGEST_WAIT:g} s: "
            "is one of them on another clock?"
        )
    content = np.asarray(table.content).astype(str).astype(object)
    return {"onset": start, "assigned": assigned, "delivered": delivered, "probability": p, "block": block, "content": content, "gate": gate, "gated": gated}


def _numbers(values: Any, what: str, expected: str) -> NDArray[np.float64]:
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError):
        bad = next(v for v in np.asarray(values, dtype=object) if isinstance(v, str))
        raise DesignError(f"{what} holds {bad!r}, expected {expected}") from None


def _binary(values: Any, what: str) -> NDArray[np.bool_]:
    v = np.asarray(values)
    try:
        f = v.astype(np.float64)
    except (TypeError, ValueError):
        raise DesignError(f"{what} holds {v[0]!r}, expected 0 and 1 (or False and True)") from None
    if not np.isin(f, (0.0, 1.0)).all():
        bad = f[~np.isin(f, (0.0, 1.0))][0]
        raise DesignError(f"{what} holds {bad:g}, expected 0 and 1 (or False and True)")
    return f == 1.0


def _follow(grid: EpochGrid, onset: NDArray[np.float64], gate: NDArray[np.float64], gated: NDArray[np.bool_], horizon: float) -> dict[str, NDArray[Any]]:
    """State at the onset and what came first in (onset, onset + horizon]."""
    n, e = len(grid), grid.epoch
    k_gate = grid.index(gate)
    inside = (k_gate >= 0) & (k_gate < n)
    k = np.clip(k_gate, 0, max(n - 1, 0))
    prev = np.clip(k_gate - 1, 0, max(n - 1, 0))
    # The gate saw the source stage: an epoch scored as target after one of the source stage woke within itself, after the gate.
    own = gated & inside & (k_gate > 0) & grid.target[k] & grid.source[prev]
    at_risk = inside & (grid.source[k] | own)
    # Index of the next epoch that is not `source`, for each epoch; n where the recording ends first.
    leave = np.where(grid.source, n, np.arange(n))
    leave = np.minimum.accumulate(leave[::-1])[::-1] if n else leave
    j = leave[k]
    reach = grid.time(j)
    inner = np.minimum(j, n - 1)
    kind = np.where(j >= n, "end", np.where(grid.target[inner], "target", np.where(grid.scored[inner], "exit", "end"))).astype(object)
    limit = onset + horizon
    following = np.r_[onset[1:], np.inf]
    end = np.where(reach <= limit + _EDGE * e, kind, "")
    # A trial that begins before the exit ends follow-up of the one before it.
    cut = following < np.where(end == "", limit, reach) - 1e-9
    end = np.where(cut, "next", end).astype(object)
    end = np.where(own, "target", end)
    latency = np.where(end == "", horizon, np.clip(np.where(cut & ~own, following, reach) - onset, 0.0, None))
    end = np.where(at_risk, end, "")
    before, hit = _before(grid, onset, limit, leave)
    names = np.array([*grid.hypnogram.stages, "UNS", "ART"], dtype=object)
    stage = np.where(inside, names[grid.hypnogram.codes[k]], "UNS").astype(object)
    seat = np.where(own, prev, k)
    age = np.where(at_risk, onset - grid.time(seat - grid.age[seat] + 1), np.nan)
    return {
        "at_risk": at_risk, "end": end, "latency": np.asarray(latency, dtype=np.float64), "own_epoch": own, "before": before, "before_hit": hit,
        "age": age, "stage": stage,
    }  # fmt: skip


def _before(grid: EpochGrid, onset: NDArray[np.float64], limit: NDArray[np.float64], leave: NDArray[np.int64]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Source in the last epoch that was over before the onset, and target next by the end of the horizon."""
    n = len(grid)
    prev = grid.index(onset) - 1
    row = np.clip(prev, 0, max(n - 1, 0))
    before = (prev >= 0) & (prev < n - 1) & grid.source[row]
    j = leave[row]
    return before, before & (j < n) & grid.target[np.minimum(j, n - 1)] & (grid.time(j) <= limit + _EDGE * grid.epoch)


def _check_deliveries(trials: Trials) -> None:
    """Deliveries that contradict the assignment are an error; assigned trials that were not delivered are non-compliance."""
    if not trials.logged.get("delivered"):
        return
    a, d = trials.assigned, trials.delivered
    crossed = int((d & ~a).sum())
    given = int((a & d).sum())
    if crossed or (a.any() and given < 0.5 * a.sum()):
        raise DesignError(
            f"the assignment log does not match the deliveries: {crossed} of {int((~a).sum())} control trials were delivered and {given} of {int(a.sum())} "
            "assigned ones, expected no delivery without assignment and at least half of the assigned: correct the ledger, or drop its column "
            "'delivered' to analyse the assignment alone"
        )
