"""Randomised stimulation while the animal sleeps: when a trial comes, what it is assigned, what is delivered, and the ledger of it all."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from brainmu.core import EventTable
from brainmu.synth.mechanism import Mechanism

__all__ = ["Stimulator", "Trial"]

_PULSE = 0.005  # s; what a stimulation artefact lasts on the LFP


class Trial(NamedTuple):
    """One gate: `content` and `arm` index the mechanism's, `event` is the reactivation that was detected (-1: none was)."""

    gate: float
    assigned: bool
    delivered: bool
    content: int
    arm: int
    event: int


class Stimulator:
    """Gates, coins and deliveries of one session.

    Draws that every mechanism makes come from the session's own stream; those of arms, detectors and artefacts from a stream of their own.
    """

    def __init__(self, m: Mechanism, stop: float, rng: np.random.Generator, own: np.random.Generator) -> None:
        self.m, self.stop, self.rng, self.own = m, stop, rng, own
        self.made: list[Trial] = []
        self.last_gate = -np.inf
        self.pending: list[bool] = []
        self.found, self.found_event = np.inf, -1
        index = {c: i for i, c in enumerate(m.contents)}
        self.sought = {index[c]: i for i, c in enumerate(m.trial_content) if c in index}
        self.target = [index.get(c, -1) for c in m.trial_content]

    # -- gates ----------------------------------------------------------------------------------------------------
    def due(self, begin: float, a: float) -> float:
        """The next gate by the clock after `a`, s, in a bout that began at `begin`; or the next false alarm."""
        m = self.m
        if not m.trials:
            return np.inf
        if m.trial_gate == "detection":
            return a + self.own.exponential(1 / m.detector_false_alarms) if m.detector_false_alarms else np.inf
        earliest = max(begin + m.trial_min_age, self.last_gate + m.trial_spacing, a)
        return earliest + (self.rng.exponential(m.trial_jitter) if m.trial_jitter else 0.0)

    def fits(self, gate: float, begin: float) -> bool:
        """Whether a trial may be gated now."""
        m = self.m
        return gate + m.trial_duration <= self.stop and gate >= max(begin + m.trial_min_age, self.last_gate + m.trial_spacing)

    def watch(self, t: float, content: int, event: int) -> None:
        """The detector looks at a reactivation that starts at `t`."""
        m = self.m
        if m.trials and m.trial_gate == "detection" and content in self.sought and self.found == np.inf and self.own.random() < m.detector_sensitivity:
            self.found, self.found_event = t + m.detector_latency, event

    def gate(self, at: float, pressure: float, content: int | None = None, event: int = -1) -> Trial:
        """Make a trial at `at`: assign it, and try to deliver."""
        m = self.m
        assigned = self._assign()
        delivered = bool(assigned and self.rng.random() >= float(m.failure(pressure)))
        which = int(self.rng.integers(len(m.trial_content))) if content is None else self.sought[content]
        arm = int(self.own.integers(len(m.trial_arms))) if len(m.trial_arms) > 1 else 0
        trial = Trial(at, assigned, delivered, which, arm, event)
        self.made.append(trial)
        self.last_gate = at
        return trial

    def _assign(self) -> bool:
        m = self.m
        if m.trial_scheme == "bernoulli":
            return bool(self.rng.random() < m.trial_probability)
        if not self.pending:
            k = round(m.trial_probability * m.trial_block)
            self.pending = list(self.rng.permutation([True] * k + [False] * (m.trial_block - k)))
        return bool(self.pending.pop())

    def forget(self, kept: int, end: float, last: float) -> None:
        """Take back the trials after the first `kept` that were drawn beyond `end`."""
        while len(self.made) > kept and self.made[-1].gate >= end:
            assigned = self.made.pop().assigned
            if self.m.trial_scheme == "blocked":
                self.pending.append(assigned)
        self.last_gate = self.made[-1].gate if len(self.made) > kept else last

    # -- what they do ---------------------------------------------------------------------------------------------
    def does(self, trial: Trial, *arms: str) -> bool:
        return trial.delivered and self.m.trial_arms[trial.arm] in arms

    def gains(self, t: float) -> tuple[NDArray[np.float64] | None, float]:
        """Factors (content,) on the rates of reactivation at `t`, None for ones, and when they change."""
        m = self.m
        out, change = np.ones(len(m.contents)), np.inf
        for trial in reversed(self.made):
            if trial.gate < t - max(m.cue_window, m.inhibition_duration):
                break
            for arm, lasts, factor in (("cue", m.cue_window, m.cue_gain), ("inhibition", m.inhibition_duration, 0.0)):
                if self.does(trial, arm) and t < trial.gate + lasts:
                    out[self.target[trial.content]] *= factor
                    change = min(change, trial.gate + lasts)
        return (None if change == np.inf else out), change

    # -- what happened --------------------------------------------------------------------------------------------
    def ledger(self) -> EventTable:
        """One row a gate, as the experimenter logs it."""
        m = self.m
        gate = np.array([x.gate for x in self.made])
        assigned = np.array([x.assigned for x in self.made], dtype=bool)
        delivered = np.array([x.delivered for x in self.made], dtype=bool)
        content = np.array([m.trial_content[x.content] for x in self.made], dtype=object)
        planned = np.array([m.trial_arms[x.arm] for x in self.made], dtype=object)
        several = {"planned": planned} if len(m.trial_arms) > 1 else {}
        return EventTable(
            gate, gate + m.trial_duration, peak=gate, content=content, kind="trial", assigned=assigned, delivered=delivered,
            probability=np.full(len(gate), m.trial_probability), block=np.arange(len(gate)) // m.trial_block, gate_time=gate,
            arm=np.where(assigned, planned, "sham").astype(object), **several, attrs={"scheme": m.trial_scheme},
        )  # fmt: skip

    def deliveries(self) -> EventTable:
        """Every delivered stimulation: kind is the arm, `trial` its row of the ledger, `amplitude` of its artefact (uV)."""
        m = self.m
        row = np.array([i for i, x in enumerate(self.made) if x.delivered], dtype=np.intp)
        start = np.array([self.made[i].gate for i in row])
        size = m.trial_artefact * np.exp(0.2 * self.own.standard_normal(len(row)))
        kind = np.array([m.trial_arms[self.made[i].arm] for i in row], dtype=object)
        content = np.array([m.trial_content[self.made[i].content] for i in row], dtype=object)
        return EventTable(start, start + _PULSE, peak=start, content=content, kind=kind, amplitude=size, trial=row)

    def detections(self) -> NDArray[np.intp]:
        """Row (trial,) of the reactivation that each gate was opened by; -1 where none was."""
        return np.array([x.event for x in self.made], dtype=np.intp)
