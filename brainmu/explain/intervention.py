"""In-silico interventions: take an event away, ask the model again, and compare with placebo edits. An effect in the model only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Effect, EventTable, Intervals, Recording
from brainmu.errors import InputError, MissingDataError
from brainmu.explain.asking import Answer, ask, differentiable, target_columns
from brainmu.explain.edits import Edit, apply_edits, placebo_edits, removal_edits

__all__ = ["OPERATIONS", "intervene"]

OPERATIONS = ("remove",)
GUARD = 0.5
"""Placebo edits stay this far from any event, s."""


def intervene(
    stager: Any, session: Recording, events: EventTable, operation: str = "remove", *, what: Sequence[str] = ("spikes", "ripple"),
    outcome: str = "NREM->WAKE", horizon: float | None = None, placebos: int = 19, max_events: int = 200, seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Effect:  # fmt: skip
    """Edit events inside the model and read out what it predicts afterwards, beside placebo edits.

    Each event's spikes and ripple are taken out of the input. The model is asked again, and the change of the predicted
    probability of the outcome stage is read in the epochs after the event's own, which are themselves not edited. The same is
    done with placebo edits of equal duration and norm at random other times of the same stage, away from any event (see
    :func:`brainmu.explain.edits.placebo_edits`). The estimate is the mean change by events minus the mean change by placebos.

    Parameters
    ----------
    stager : SleepStager or StageModel
    session : Recording or Session
    events : EventTable
        Events that start in an epoch which the model takes for the first stage of `outcome` are edited.
    operation : {"remove"}
    what : some of "spikes", "ripple"
    outcome : str
        FROM->TO, such as "NREM->WAKE".
    horizon : float or None, s
        How long after the event's epoch the prediction is read; three epochs where None. A multiple of the epoch.
    placebos : int
        Placebo edits of each event; the p-value cannot be below 1 / (placebos + 1).
    max_events : int
        At most this many events are edited, drawn at random and far enough apart not to reach into each other's read-out.
    seed : int

    Returns
    -------
    Effect
        Level "model". ``null`` holds the placebo replicates around their mean; ``diagnostics`` the edits, their norms, how far they
        moved the model's summaries (off-manifold gate) and warnings.

    Raises
    ------
    MissingDataError
        If no event starts in the stage, or no place for placebo edits is left.
    InputError
        If the operation, the outcome or the horizon cannot be.
    """
    if operation not in OPERATIONS:
        raise InputError(f"operation is {operation!r}, expected one of {', '.join(OPERATIONS)}")
    source, aim = _outcome(outcome)
    if placebos < 1:
        raise InputError(f"placebos is {placebos}, expected at least 1: an edit without its placebo cannot be judged")
    say = progress or (lambda _label, _fraction: None)
    rng = np.random.default_rng(seed)
    say("ask", 0.0)
    reader = _Reader(stager, session)
    base = reader.answer
    ahead = _epochs_ahead(horizon, base.epoch)
    aims, from_stage = target_columns(base.stages, aim), target_columns(base.stages, source)
    best = np.nan_to_num(base.proba, nan=-1.0).argmax(1)
    at_risk = np.isin(best, from_stage) & np.isfinite(base.proba).all(1)
    chosen = _choose(events, base, at_risk, ahead, max_events, rng)
    if not len(chosen):
        raise MissingDataError(f"{session.id}: none of the {len(events)} events starts in an epoch the model takes for {source} with {ahead} epochs after it")
    say("edit", 0.0)
    edits = removal_edits(session, chosen, what)
    room = _room(events, base, at_risk)
    change, shift = reader.change(edits, aims, ahead)
    draws, shifts, lost = [], [], 0
    for r in range(placebos):
        placed = placebo_edits(session, edits, [room] * len(edits), rng)
        lost += sum(p is None for p in placed)
        delta, moved = reader.change(placed, aims, ahead)
        draws.append(delta)
        shifts.append(moved)
        say("placebo edits", (r + 1) / placebos)
    placebo = np.array(draws)  # (replicate, event)
    if not np.isfinite(placebo).any():
        raise MissingDataError(f"{session.id}: no time in {source} away from the {len(events)} events is left for placebo edits: give fewer or shorter events")
    return _effect(
        session, change, placebo, chosen, operation=operation, what=what, source=source, aim=aim, ahead=ahead, answer=base, lost=lost,
        summary_shift=(shift, float(np.nanmedian(shifts)) if np.isfinite(shifts).any() else float("nan")), causal=reader.causal, edits=edits, rng=rng,
    )  # fmt: skip


class _Reader:
    """Asks a stager about edited copies; an encoder encodes only the windows that an edit touches."""

    def __init__(self, stager: Any, session: Recording) -> None:
        self.stager, self.session, self.model = stager, session, differentiable(stager)
        self.causal = bool(self.model.causal) if self.model is not None else bool(getattr(stager, "causal", False))
        if self.model is None:
            self.answer = ask(stager, session)
            return
        self.model.eval()
        self.grid = self.model.grid(session)
        self.summaries, self.present = self.model.encoder.summaries(self.grid)
        self.answer = self._read(self.summaries)

    def change(self, edits: Sequence[Edit | None], aims: NDArray[np.intp], ahead: int) -> tuple[NDArray[np.float64], float]:
        """Mean change (edit,) of the probability of `aims` over the `ahead` epochs after each edit's own, and how far summaries moved.

        NaN for an edit that is None or has no epochs after it.
        """
        made = [e for e in edits if e is not None]
        out = np.full(len(edits), np.nan)
        if not made:
            return out, float("nan")
        edited = apply_edits(self.session, made)
        shift = float("nan")
        if self.model is None:
            after = ask(self.stager, edited, self.answer.start).proba
        else:
            after, shift = self._reencoded(edited, made)
        delta = (after - self.answer.proba)[:, aims].sum(1)
        for i, e in enumerate(edits):
            if e is not None:
                k = self._epoch_of(e.stop)
                window = delta[k + 1 : k + 1 + ahead]
                if len(window) == ahead:
                    out[i] = window.mean()
        return out, shift

    def _epoch_of(self, time: float) -> int:
        return int((time - self.answer.start) // self.answer.epoch)

    def _reencoded(self, edited: Recording, made: Sequence[Edit]) -> tuple[NDArray[np.float64], float]:
        import torch

        assert self.model is not None
        n = len(self.grid)
        # The fade of an edit may reach a little outside its span.
        touched = {k for e in made for k in (self._epoch_of(e.start - 0.02), self._epoch_of(e.stop + 0.02)) if 0 <= k < n}
        rows = np.array(sorted(touched), dtype=np.int64)
        grid = self.model.grid(edited, self.grid.statistics, self.grid.start, n)
        with torch.no_grad():
            fresh = torch.cat([self.model.encoder.summary(grid.batch(rows[i : i + 64]))[0] for i in range(0, len(rows), 64)])
            summaries = self.summaries.clone()
            moved = (fresh - summaries[rows]).norm(dim=1).median()
            # The yardstick: how far a window's summary lies from its neighbour's.
            usual = (self.summaries[1:] - self.summaries[:-1]).norm(dim=1).median()
            summaries[rows] = fresh
        return self._read(summaries).proba, float(moved / usual)

    def _read(self, summaries: Any) -> Answer:
        import torch

        assert self.model is not None
        m = self.model
        with torch.no_grad():
            context = m.encoder.contexts(summaries, self.present, self.grid.window)
            proba = (m.read_out(summaries, context) - m.log_weight).softmax(-1).double().numpy()
        proba[~self.present.numpy()] = np.nan
        return Answer(proba, self.grid.start, self.grid.window, m.stages)


def _outcome(outcome: str) -> tuple[str, str]:
    source, arrow, aim = (part.strip() for part in outcome.partition("->"))
    if not (source and arrow and aim) or source == aim:
        raise InputError(f"outcome is {outcome!r}, expected FROM->TO, such as NREM->WAKE")
    return source, aim


def _epochs_ahead(horizon: float | None, epoch: float) -> int:
    if horizon is None:
        return 3
    n = round(horizon / epoch)
    if n < 1 or abs(n * epoch - horizon) > 1e-6:
        lower = max(1, int(horizon // epoch)) * epoch
        raise InputError(f"horizon is {horizon:g} s, expected a multiple of the epoch ({epoch:g} s): {lower:g} or {lower + epoch:g}")
    return n


def _choose(events: EventTable, base: Answer, at_risk: NDArray[np.bool_], ahead: int, most: int, rng: np.random.Generator) -> EventTable:
    """Events in epochs at risk, drawn at random so that no edit lies in the read-out of another."""
    first = np.floor((events.start - base.start) / base.epoch).astype(np.int64)
    last = np.floor((events.stop - base.start) / base.epoch).astype(np.int64)
    n = len(base.proba)
    ok = (first >= 0) & (last + ahead < n)
    ok[ok] = at_risk[first[ok]]
    taken = np.zeros(n + ahead + 1, dtype=bool)
    keep = []
    for i in rng.permutation(np.flatnonzero(ok)):
        # An edit in epochs first..last is read in last+1..last+ahead; another may lie in neither, nor read these.
        lo, hi = max(0, first[i] - ahead), last[i] + ahead + 1
        if not taken[lo:hi].any():
            taken[first[i] : last[i] + 1] = True
            keep.append(i)
            if len(keep) == most:
                break
    return events[np.sort(np.array(keep, dtype=np.int64))]


def _room(events: EventTable, base: Answer, at_risk: NDArray[np.bool_]) -> Intervals:
    """Time in the stage and away from every event."""
    stage = Intervals.from_mask(at_risk, 1.0 / base.epoch, base.start)
    near = Intervals.merge(np.c_[events.start - GUARD, events.stop + GUARD]) if len(events) else Intervals()
    return stage.subtract(near)


def _effect(
    session: Recording, change: NDArray[np.float64], placebo: NDArray[np.float64], chosen: EventTable, *, operation: str, what: Sequence[str], source: str,
    aim: str, ahead: int, answer: Answer, lost: int, summary_shift: tuple[float, float], causal: bool, edits: Sequence[Edit], rng: np.random.Generator,
) -> Effect:  # fmt: skip
    with np.errstate(invalid="ignore"):
        usable = np.isfinite(change) & np.isfinite(placebo).any(0)
    d = change[usable] - np.nanmean(placebo[:, usable], axis=0)
    estimate = float(d.mean())
    replicates = np.array([np.nanmean(row[usable]) for row in placebo if np.isfinite(row[usable]).any()])
    null = replicates - replicates.mean()
    observed = float(change[usable].mean() - replicates.mean())
    p_value = float((1 + (np.abs(null) >= abs(observed)).sum()) / (1 + len(null)))
    # Each draw pairs an event with one of its placebos, not with their mean: the interval then carries the spread of both.
    pick = rng.integers(0, len(d), (2000, len(d)))
    paired = change[usable][None, :] - placebo[:, usable]
    paired = np.where(np.isfinite(paired), paired, d)
    boot = paired[rng.integers(0, len(placebo), pick.shape), pick].mean(1)
    low, high = (float(v) for v in np.percentile(boot, [2.5, 97.5]))
    warnings = ["one animal: the interval is over its events and says nothing of other animals"]
    if not causal:
        warnings.append("the model reads past and future: use a causal encoder where the read-out must not see what follows it")
    if len(null) < 19:
        warnings.append(f"with {len(null)} placebo replicates p cannot be below {1 / (1 + len(null)):.2f}")
    if lost:
        warnings.append(f"{lost} placebo edits found no place in {source} away from events and were left out")
    if np.isfinite(summary_shift[0]) and summary_shift[0] > 2:
        warnings.append(f"edits move the model's summaries {summary_shift[0]:.1f} times as far as one window is from the next: outside what it has seen")
    removed = " and ".join(what)
    return Effect(
        estimand=(
            f"In the model: change of its predicted probability of {aim} over the {ahead * answer.epoch:g} s after the event's epoch, when the {removed} of "
            f"{len(d)} events in {source} are taken out of its input, beyond placebo edits of equal duration and norm ({session.id})"
        ),
        estimate=estimate, low=min(low, estimate), high=max(high, estimate), p_value=p_value, unit="change of predicted probability", level="model",
        null=null, n_units=1, n_events=len(d),
        assumptions=[
            "it is an effect in the model, never in the brain",
            "an edited input is one the model could have met (see diagnostics: summary_shift)",
            f"placebo times in {source} differ from event times only in that no event was there",
        ],
        diagnostics={
            "operation": operation, "what": list(what), "outcome": f"{source}->{aim}", "change_events": change[usable], "change_placebos": replicates,
            "n_placebos": len(null), "placebos_without_place": lost, "causal": causal,
            "edit_norm_median": float(np.median([e.norm for e in edits])), "spikes_removed_median": float(np.median([len(e.drop) for e in edits])),
            "summary_shift": {"events": summary_shift[0], "placebos": summary_shift[1], "unit": "median distance between neighbouring windows"},
            "epochs_read": ahead, "blank": "the event's own epoch", "warnings": warnings,
        },
        scale="difference of probabilities", regime=f"{operation} {removed}", population="events", risk_set=f"epochs the model takes for {source}",
        lag=1, horizon=ahead * answer.epoch, n_exposed=len(d),
    )  # fmt: skip
