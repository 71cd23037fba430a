"""Many copies of sleeping animals run forward together from given moments, under an intervention: what the truth of each effect is read from.

Two runs with the same seed share every random number, so that what differs between them is the intervention and little else.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from brainmu.synth.effects import CAP, LIMIT, STEP, Life, fading
from brainmu.synth.mechanism import Mechanism, valence
from brainmu.synth.sleep import RodentSleep

__all__ = ["NREM", "REM", "WAKE", "Course", "Moments", "Plan", "all_contents", "forward"]

WAKE, NREM, REM = 0, 1, 2
_TURNS = 4  # NREM bouts a copy may see
_BATCH = 10_000  # copies at a time, which bounds memory


@dataclass
class Moments:
    """Moments of NREM to run on from, a row a copy.

    Attributes
    ----------
    at, begin : float64 (n,), s
        The moment, and when its bout began.
    edge : float64 (n,), s
        Start of the scored epoch that it lies in.
    slept : float64 (n,), s
        NREM since the last REM, when the bout began.
    animal : int (n,)
    content : int (n,)
        What a trial at that moment is for, of :func:`all_contents`.
    """

    at: NDArray[np.float64]
    begin: NDArray[np.float64]
    edge: NDArray[np.float64]
    slept: NDArray[np.float64]
    animal: NDArray[np.intp]
    content: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.at)

    def __getitem__(self, which: slice | NDArray[np.bool_]) -> Moments:
        return Moments(*(getattr(self, f.name)[which] for f in fields(self)))


@dataclass
class Plan:
    """An intervention.

    Attributes
    ----------
    content : int
        Content whose reactivations are set; -1 for none.
    shut : int (n,), steps
        Its own reactivations are kept out until then.
    put : int (k, n), steps
        When one is put in instead.
    arm : str
        What is delivered at the moment: "stim", "activation", "inhibition", "cue", or "" for nothing.
    given : bool (n,)
        To whom.
    """

    content: int = -1
    shut: NDArray[np.intp] | None = None
    put: NDArray[np.intp] | None = None
    arm: str = ""
    given: NDArray[np.bool_] | None = None

    def part(self, which: slice) -> Plan:
        cut = [None if v is None else v[..., which] for v in (self.shut, self.put, self.given)]
        return Plan(self.content, cut[0], cut[1], self.arm, cut[2])


@dataclass
class Course:
    """What became of each copy.

    Attributes
    ----------
    stage : int8 (epoch, n)
        Majority of each scored epoch, from the one that holds the moment: 0 WAKE, 1 NREM, 2 REM.
    left : float64 (n,), s
        When NREM was first left, from the moment; inf where it was not.
    to : int8 (n,)
        Where to; -1 where it was not.
    """

    stage: NDArray[np.int8]
    left: NDArray[np.float64]
    to: NDArray[np.int8]


def all_contents(m: Mechanism) -> tuple[str, ...]:
    """The contents that are reactivated, then those that are only stimulated."""
    return (*m.contents, *(c for c in m.trial_content if c not in m.contents))


def forward(m: Mechanism, sleep: RodentSleep, herd: list[Life], x: Moments, plan: Plan, seconds: float, epoch: float, seed: tuple[int, ...]) -> Course:
    """Run every copy on for `seconds` under `plan`; the same `seed`, the same chances."""
    parts = []
    for i in range(0, len(x), _BATCH):
        which = slice(i, i + _BATCH)
        parts.append(_Copies(m, sleep, herd, x[which], plan.part(which), seconds, epoch, np.random.default_rng([*seed, i])).run())
    return Course(*(np.concatenate([getattr(p, f.name) for p in parts], axis=-1) for f in fields(Course)))


class _Copies:
    """The state of all copies, stepped together."""

    def __init__(
        self, m: Mechanism, sleep: RodentSleep, herd: list[Life], x: Moments, plan: Plan, seconds: float, epoch: float, rng: np.random.Generator
    ) -> None:
        self.m, self.sleep, self.x, self.plan, self.epoch, self.rng = m, sleep, x, plan, epoch, rng
        n, contents, self.steps, self.last = len(x), len(m.contents), round(seconds / STEP), round(m.effect_duration / STEP)
        self.everyone = np.arange(n)
        self.rates, self.push = np.array([m.rates[c] for c in m.contents]), m.feedback * np.array([valence(c) for c in m.contents])
        self.rem_beta = np.array([m.rem_log_hazard_ratio.get(c, 0.0) for c in m.contents])
        self.active = np.zeros((contents, n), dtype=np.int16)
        self.ends = np.zeros((contents, self.steps + self.last + 1, n), dtype=np.int8)
        self.latent, self.pushed, self.drive = np.empty((self.steps, n)), np.empty(n), np.empty(n)
        self.u_wake, self.u_rate, self.beta = np.empty(n), np.empty(n), np.empty((contents, n))
        self.after, self.after_until, self.after_rem = np.zeros(n), np.zeros(n), np.zeros(n)
        self.stim, self.stim_rem = (
            np.array([ratios.get(c, 0.0) for c in all_contents(m)])[x.content] for ratios in (m.trial_log_hazard_ratio, m.trial_rem_log_hazard_ratio)
        )
        grid = (np.arange(self.steps)[:, None] + 0.5) * STEP
        for i, life in enumerate(herd):
            c = np.flatnonzero(x.animal == i)
            if len(c):
                self.latent[:, c] = np.interp(x.at[c] + grid, life.time, life.own)
                self._begin(life, c)
        # Drawn for all turns at once, so that both runs of a pair see the same.
        self.threshold = rng.exponential(size=(_TURNS, n))
        self.waking = np.stack([sleep.wake_length(rng, n, push=self.drive) for _ in range(_TURNS)])
        self.dreaming = np.maximum(8.0, rng.gamma(sleep.rem_shape, sleep.rem_mean / sleep.rem_shape, size=(_TURNS, n)))

    def _begin(self, life: Life, c: NDArray[np.intp]) -> None:
        """What the copies `c` of one animal bring along: its effects, its pressure, and what still acts on it."""
        m, at = self.m, self.x.at[c]
        self.u_wake[c], self.u_rate[c] = life.animal["log_wake_hazard"] + m.day.log_wake_hazard, life.animal["log_reactivation_rate"]
        self.beta[:, c] = np.array([life.animal["log_hazard_ratio"][k] for k in m.contents]).reshape(-1, 1)
        self.drive[c] = self.sleep.push(at, np.interp(at, life.time, life.need))
        self.pushed[c] = fading(list(life.moved[:, 0]), list(life.moved[:, 1]), m.feedback_tau, np.nextafter(at, -np.inf))
        start, stop = life.reactivation.start, life.reactivation.stop
        content = np.array([m.contents.index(k) for k in life.reactivation.content], dtype=np.intp)
        first, last = np.searchsorted(start, at - m.effect_duration), np.searchsorted(start, at)
        for k in range(int((last - first).max(initial=0))):
            here = first + k < last
            who, e = c[here], (first + k)[here]
            # What this very trial cut short in the animal's life was running until it.
            until = np.where(life.acting[e] < at[here], life.acting[e], start[e] + m.effect_duration)
            self._bring(who, content[e], until - at[here], start[e] - at[here], stop[e] >= at[here])
        self._bring_trials(life, c)

    def _bring(self, who: NDArray[np.intp], content: NDArray[np.intp], left: NDArray[np.float64], since: NDArray[np.float64], runs: NDArray[np.bool_]) -> None:
        """Earlier reactivations that act for another `left` s; an inhibition ends those that still run."""
        ended = np.zeros(len(who), dtype=bool)
        if self.plan.arm == "inhibition":
            ended = runs & self.plan.given[who] & (content == self.x.content[who])
            self.pushed[who[ended]] -= self.push[content[ended]] * np.exp(since[ended] / self.m.feedback_tau)
        step = np.round(left / STEP).astype(np.intp)
        on = ~ended & (step > 0)
        self.active[content[on], who[on]] += 1
        self.ends[content[on], step[on], who[on]] += 1

    def _bring_trials(self, life: Life, c: NDArray[np.intp]) -> None:
        """An earlier activation that is still on."""
        m, t, at = self.m, life.stimulation, self.x.at[c]
        t = t[np.isin(t.kind, ("stim", "activation"))]
        k = np.searchsorted(t.start, at) - 1
        on = (k >= 0) & (at < t.start[np.maximum(k, 0)] + m.trial_duration) if len(t) else np.zeros(len(c), dtype=bool)
        if on.any():
            who, k = c[on], k[on]
            self.after[who] = [m.trial_log_hazard_ratio.get(x, 0.0) for x in t.content[k]]
            self.after_rem[who] = [m.trial_rem_log_hazard_ratio.get(x, 0.0) for x in t.content[k]]
            self.after_until[who] = t.start[k] + m.trial_duration - at[on]

    def run(self) -> Course:
        m, x, n = self.m, self.x, len(self.x)
        phase = x.at - x.edge
        self.spent = np.zeros((int(np.ceil((self.epoch + self.steps * STEP) / self.epoch)) + 1, 3, n))
        self.spent[0, NREM] = np.minimum(phase, x.at - x.begin)
        self.spent[0, WAKE] = phase - self.spent[0, NREM]
        self.state, self.turn = np.full(n, NREM, dtype=np.int8), np.zeros(n, dtype=np.intp)
        self.age, self.cum, self.until = x.at - x.begin, np.zeros(n), np.full(n, np.inf)
        self.slept = x.slept + self.age
        self.left, self.to = np.full(n, np.inf), np.full(n, -1, dtype=np.int8)
        fade = np.exp(-STEP / m.feedback_tau)
        for s in range(self.steps):
            draw = self.rng.random((2, n))
            self.active -= self.ends[:, s]
            pressure = self.latent[s] + self.pushed
            self._react(s, pressure, draw[0])
            epoch = ((phase + (s + 0.5) * STEP) / self.epoch).astype(np.intp)
            self.spent[epoch, self.state, self.everyone] += STEP
            self._leave(s, self.latent[s] + self.pushed, draw[1], epoch)
            self.pushed *= fade
        whole = int(self.steps * STEP / self.epoch + 1e-9)
        return Course(self.spent[:whole].argmax(1).astype(np.int8), self.left, self.to)

    # -- one step -------------------------------------------------------------------------------------------------
    def _react(self, s: int, pressure: NDArray[np.float64], draw: NDArray[np.float64]) -> None:
        """The reactivations of one step, and those that the plan puts in or keeps out."""
        m, plan, asleep = self.m, self.plan, self.state == NREM
        chance = np.exp(m.confounding * pressure + self.u_rate) * STEP * np.where(asleep, 1.0, np.where(self.state == WAKE, m.wake_reactivation, 0.0))
        rates = np.broadcast_to(self.rates[:, None], self.active.shape)
        lasts, factor = {"cue": (m.cue_window, m.cue_gain), "inhibition": (m.inhibition_duration, 0.0)}.get(plan.arm, (0.0, 1.0))
        if s * STEP < lasts:
            hit = plan.given & asleep & (self.x.content == np.arange(len(rates))[:, None])
            rates = np.where(hit, factor * rates, rates)
        edges = np.cumsum(rates, axis=0) * chance if s * STEP < lasts else None
        c = np.flatnonzero(draw < (self.rates.sum() * chance if edges is None else edges[-1]))
        top = np.cumsum(self.rates)[:, None] * chance[c] if edges is None else edges[:, c]
        which = np.minimum((draw[c] >= top).sum(0), len(self.rates) - 1)
        if plan.shut is not None:
            keep = (which != plan.content) | (s >= plan.shut[c])
            c, which = c[keep], which[keep]
        self._start(s, c, which)
        for moment in plan.put if plan.put is not None else ():
            c = np.flatnonzero((moment == s) & asleep)
            self._start(s, c, np.full(len(c), plan.content))

    def _start(self, s: int, c: NDArray[np.intp], which: NDArray[np.intp]) -> None:
        self.active[which, c] += 1
        self.ends[which, s + self.last, c] += 1
        self.pushed[c] = np.clip(self.pushed[c] + self.push[which], -LIMIT, LIMIT)

    def _hazards(self, s: int, pressure: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        m, plan = self.m, self.plan
        dose = m.dose(self.active)
        eta = self.u_wake + self.drive + m.confounding * pressure + (self.beta * dose).sum(0)
        eta_rem = m.day.log_rem_hazard + m.rem_confounding * pressure + self.rem_beta @ dose
        on = s * STEP < self.after_until
        eta += np.where(on, self.after, 0.0)
        eta_rem += np.where(on, self.after_rem, 0.0)
        if plan.arm in ("stim", "activation") and s * STEP < m.trial_duration:
            eta += np.where(plan.given, self.stim, 0.0)
            eta_rem += np.where(plan.given, self.stim_rem, 0.0)
        middle = STEP / 2
        wake = self.sleep.leave_nrem(self.age + middle) * np.exp(np.minimum(eta, CAP))
        rem = self.sleep.enter_rem(self.age + middle, self.slept + middle) * np.exp(np.minimum(eta_rem, CAP))
        return wake, rem

    def _leave(self, s: int, pressure: NDArray[np.float64], draw: NDArray[np.float64], epoch: NDArray[np.intp]) -> None:
        """Leave NREM where the hazard spent reaches the bout's threshold, inside the step; come back where waking or REM is over."""
        asleep = self.state == NREM
        wake, rem = self._hazards(s, pressure)
        risk = (wake + rem) * STEP * asleep
        threshold = self.threshold[np.minimum(self.turn, _TURNS - 1), self.everyone]
        out = np.flatnonzero(asleep & (self.cum + risk >= threshold))
        share = (threshold[out] - self.cum[out]) / risk[out]
        to = np.where(draw[out] * (wake[out] + rem[out]) < wake[out], WAKE, REM).astype(np.int8)
        now, turn = (s + share) * STEP, np.minimum(self.turn[out], _TURNS - 1)
        self.spent[epoch[out], NREM, out] -= (1 - share) * STEP
        self.spent[epoch[out], to, out] += (1 - share) * STEP
        first = out[self.to[out] < 0]
        self.left[first], self.to[first] = now[self.to[out] < 0], to[self.to[out] < 0]
        self.cum += risk
        self.age += STEP * asleep
        self.slept += STEP * asleep
        back = np.flatnonzero(~asleep & (self.until <= (s + 1) * STEP))
        wakes = (self.state[back] == REM) & (draw[back] < self.sleep.rem_to_wake)
        self.slept[back[self.state[back] == REM]] = 0.0
        self.until[back[wakes]] += self.waking[np.minimum(self.turn[back[wakes]], _TURNS - 1), back[wakes]]
        self.state[back] = np.where(wakes, WAKE, NREM)
        self.age[back], self.cum[back] = 0.0, 0.0
        self.state[out], self.until[out] = to, now + np.where(to == WAKE, self.waking[turn, out], self.dreaming[turn, out])
        self.turn[out] += 1
