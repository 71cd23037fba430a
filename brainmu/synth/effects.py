"""How reactivation drives sleep: the hazard model that every recording and study is simulated from, and its true effects.

Within NREM the hazard of waking at time t is

    h(t) = h0(age of the bout) * exp(confounding * L(t) + sum over contents c of beta_c * f(N_c(t)) + trial effect + day + animal)

where L is the latent pressure (slow, standardised, optionally pushed by the reactivations themselves), N_c(t) counts the
reactivations of content c that started in the last `effect_duration` seconds (f is the identity unless the dose saturates), and
reactivations themselves come as a point process of rate  r_c * exp(confounding * L(t) + day + animal).  The hazard of REM has the same
form with coefficients of its own.  Everything acts in continuous time (a grid of 0.1 s, exits interpolated inside a step); the epochs
of a hypnogram are only how it is looked at.
"""

from __future__ import annotations

import math
from bisect import bisect, bisect_right
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.signal import lfilter

from brainmu.core import EventTable
from brainmu.synth.mechanism import Mechanism, valence
from brainmu.synth.sleep import RodentSleep, bout_table
from brainmu.synth.trials import Stimulator

__all__ = ["CAP", "LIMIT", "STEP", "Life", "Mechanism", "fading", "live", "ornstein_uhlenbeck", "replay_length", "valence"]

STEP = 0.1
"""Grid of the simulation, s."""
_PIECE = 64.0  # s simulated at a time inside a bout
CAP = 10.0  # largest log ratio of a hazard to its baseline: at any larger one the next step wakes for sure
LIMIT = 4.0  # the latent pressure is kept within this many SD, so that rates stay finite


@dataclass
class Life:
    """One animal's simulated session.

    Attributes
    ----------
    bouts : DataFrame
        stage, start, stop (s).
    reactivation, trials : EventTable
    time : float64 (n,), s
        Grid of the pressure, 1 Hz.
    own, pressure, measured : float64 (n,), SD
        The pressure's own fluctuation; with what the reactivations pushed; and as an observer measures it.
    need : float64 (n,)
        Process S of the sleep model, 0 to 1.
    animal : dict
        Its random effects.
    acting : float64 (reactivation,), s
        When each reactivation stops acting: `effect_duration` after its start, or when it was cut short.
    moved : float64 (n, 2)
        When reactivations moved the pressure, s, and how far from its own it then was, SD.
    detected : int (trial,)
        Row of the reactivation that opened each gate; -1 where none did.
    stimulation : EventTable
        What was delivered: kind (arm), content, `trial` (row of the ledger), `amplitude` of the artefact (uV).
    """

    bouts: pd.DataFrame
    reactivation: EventTable
    trials: EventTable
    time: NDArray[np.float64]
    own: NDArray[np.float64]
    pressure: NDArray[np.float64]
    measured: NDArray[np.float64]
    need: NDArray[np.float64]
    animal: dict[str, Any]
    acting: NDArray[np.float64]
    moved: NDArray[np.float64]
    detected: NDArray[np.intp]
    stimulation: EventTable


def ornstein_uhlenbeck(rng: np.random.Generator, n: int, tau: float, dt: float) -> NDArray[np.float64]:
    """A stationary Gaussian process (n,) of SD 1 and time constant `tau` s, sampled every `dt` s."""
    a = np.exp(-dt / tau)
    x = rng.standard_normal(n)
    x[1:] *= np.sqrt(1 - a * a)
    return lfilter([1.0], [1.0, -a], x)


def replay_length(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Lengths (n,), s, of replays: from 50 ms, 125 ms on average, and so wide that many plain ripples last as long."""
    return np.minimum(0.05 + rng.gamma(3.0, 0.075 / 3.0, size=n), 0.40)


def live(mechanism: Mechanism, sleep: RodentSleep, start: float, stop: float, rng: np.random.Generator, latency: float = 180.0) -> Life:
    """Simulate one animal's rest from `start` to `stop` (s); it begins awake and falls asleep after about `latency` s."""
    m = mechanism
    z = rng.standard_normal(2 + len(m.contents))
    u_wake, u_rate = m.animal_sd * z[:2]
    beta = {c: m.log_hazard_ratio.get(c, 0.0) + (m.effect_sd * e if c in m.log_hazard_ratio else 0.0) for c, e in zip(m.contents, z[2:])}
    n = int(np.ceil(stop - start)) + 2
    time = start + np.arange(n, dtype=np.float64)
    own = np.clip(ornstein_uhlenbeck(rng, n, m.pressure_tau, 1.0), -LIMIT, LIMIT)
    noise = ornstein_uhlenbeck(rng, n, m.pressure_tau, 1.0)
    run = _Run(m, sleep, beta, u_wake + m.day.log_wake_hazard, u_rate, start, stop, own, rng)
    stages, starts, t, slept, stage, need = ["WAKE"], [start], start, 0.0, "WAKE", sleep.need
    length = latency * float(np.exp(0.4 * rng.standard_normal()))
    while t < stop:
        if stage == "NREM":
            end, following = run.nrem(t, slept, need)
            slept += end - t
        else:
            end = t + length
            if stage == "WAKE":
                run.react(t, min(end, stop), m.wake_reactivation)
            following = "NREM" if stage == "WAKE" or rng.random() > sleep.rem_to_wake else "WAKE"
        need = float(sleep.carry(need, stage, end - t))
        push = float(sleep.push(end, need))
        length = sleep.rem_length(rng) if following == "REM" else float(sleep.wake_length(rng, 1, stage == "REM", push)[0]) if following == "WAKE" else 0.0
        slept = 0.0 if stage == "REM" else slept
        t, stage = end, following
        if t < stop:
            stages.append(stage)
            starts.append(t)
    events = run.table()
    pressure = own + run.pushed(time)
    measured = pressure if m.reliability == 1 else np.sqrt(m.reliability) * pressure + np.sqrt(1 - m.reliability) * noise
    animal = {"log_wake_hazard": float(u_wake), "log_reactivation_rate": float(u_rate), "log_hazard_ratio": beta}
    bouts = bout_table(stages, starts, stop)
    return Life(
        bouts, events, run.trials.ledger(), time, own, pressure, measured, sleep.need_along(bouts, time), animal,
        run.acting(), np.c_[run.push_time, run.push_value], run.trials.detections(), run.trials.deliveries(),
    )  # fmt: skip


class _Run:
    """The moving parts of one session: the reactivations so far, the trials so far, and the way through a NREM bout."""

    def __init__(
        self, m: Mechanism, sleep: RodentSleep, beta: dict[str, float], u_wake: float, u_rate: float, start: float, stop: float,
        own: NDArray[np.float64], rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.m, self.sleep, self.rng, self.start, self.stop, self.own = m, sleep, rng, start, stop, own
        # What not every mechanism draws has a stream of its own, so that adding it leaves the rest as it was.
        self.aside, stimulating = rng.spawn(2)
        self.trials = Stimulator(m, stop, rng, stimulating)
        self.beta = [beta[c] for c in m.contents]
        self.rem_beta = [m.rem_log_hazard_ratio.get(c, 0.0) for c in m.contents]
        self.u_wake, self.u_rem, self.u_rate = u_wake, m.day.log_rem_hazard, u_rate
        self.rates = np.array([m.rates[c] for c in m.contents])
        self.total = float(self.rates.sum())
        self.choose = (np.cumsum(self.rates) / self.total if self.total else self.rates).tolist()
        self.push = [m.feedback * valence(c) for c in m.contents]
        self.pushing = any(p != 0 for p in self.push)
        self.pushed_now, self.pushed_at = 0.0, start
        self.push_time: list[float] = []
        self.push_size: list[float] = []
        self.push_value: list[float] = []
        self.event_time: list[float] = []
        self.event_content: list[int] = []
        self.event_length: list[float] = []
        self.cut: dict[int, float] = {}

    # -- reactivations --------------------------------------------------------------------------------------------
    def react(self, a: float, b: float, gain: float) -> None:
        """Add the reactivations of [a, b), by thinning; each may push the pressure and so the rate of the next."""
        if self.total * gain == 0 or b <= a:
            return
        top, t = self._top(a, b), a
        while True:
            new = self._next(t, b, self.total * gain * math.exp(self.u_rate), self.choose, top)
            if new is None:
                return
            t = new[0]
            self._add(*new)

    def _top(self, a: float, b: float) -> float:
        i, j = int(a - self.start), int(b - self.start) + 2
        return float((self.m.confounding * self.own[i : j + 1]).max())

    def _next(self, t: float, end: float, base: float, choose: list[float], top: float) -> tuple[float, int] | None:
        """Time and content of the next reactivation before `end`, if any, at a rate of `base` (1/s) at average pressure."""
        confounding, own, start, rng = self.m.confounding, self.own, self.start, self.rng
        while True:
            pushed = confounding * self._pushed(t) if self.pushing else 0.0
            bound = base * math.exp(top + max(pushed, 0.0))
            t += rng.exponential(1 / bound)
            if t >= end:
                return None
            keep, content = rng.random(2).tolist()
            x = t - start
            k = int(x)
            low = float(own[k])
            eta = confounding * (low + (x - k) * (float(own[k + 1]) - low)) + (confounding * self._pushed(t) if self.pushing else 0.0)
            if keep * bound < base * math.exp(eta):
                return t, min(bisect_right(choose, content), len(choose) - 1)

    def _add(self, t: float, c: int) -> None:
        self.event_time.append(t)
        self.event_content.append(c)
        if self.m.interactive:
            self.event_length.append(float(replay_length(self.aside, 1)[0]))
        if self.pushing:
            self._move(t, self.push[c])

    def _move(self, t: float, size: float) -> None:
        """Move the pressure by `size` SD at `t`."""
        self.push_time.append(t)
        self.push_size.append(size)
        self.pushed_now, self.pushed_at = min(max(self._pushed(t) + size, -LIMIT), LIMIT), t
        self.push_value.append(self.pushed_now)

    def _pushed(self, t: float) -> float:
        return self.pushed_now * math.exp(-(t - self.pushed_at) / self.m.feedback_tau)

    def pushed(self, time: NDArray[np.float64]) -> NDArray[np.float64]:
        """The feedback of all reactivations on the pressure at `time` (n,)."""
        return fading(self.push_time, self.push_value, self.m.feedback_tau, time)

    # -- one NREM bout --------------------------------------------------------------------------------------------
    def nrem(self, begin: float, slept: float, need: float) -> tuple[float, str]:
        """Walk a NREM bout that begins at `begin` with this much sleep need; returns its end and the next stage."""
        threshold = self.rng.exponential()
        self.trials.found = np.inf
        a = begin
        while a < self.stop:
            b = min(a + _PIECE, self.stop)
            mark, gates = len(self.event_time), len(self.trials.made)
            last, pushed = self.trials.last_gate, (len(self.push_time), self.pushed_now, self.pushed_at)
            if self.m.interactive:
                self._together(begin, a, b)
            else:
                self.react(a, b, 1.0)
                self._gates(begin, a, b)
            wake, rem = self.hazards(a, b, begin, slept, need)
            spent = np.cumsum(wake + rem) * STEP
            if spent[-1] < threshold:
                threshold -= spent[-1]
                a = b
                continue
            i = int(np.searchsorted(spent, threshold))
            before = spent[i - 1] if i else 0.0
            end = min(a + (i + (threshold - before) / (spent[i] - before)) * STEP, b)
            following = "WAKE" if self.rng.random() * (wake[i] + rem[i]) < wake[i] else "REM"
            self._forget(mark, gates, end, last, pushed)
            return end, following
        return self.stop, "WAKE"

    def _gates(self, begin: float, a: float, b: float) -> None:
        """Trials of [a, b) that neither depend on reactivations nor change them."""
        while self.m.trials:
            gate = self.trials.due(begin, a)
            if gate >= b or gate + self.m.trial_duration > self.stop:
                return
            self.trials.gate(gate, self._pressure(gate) if self.m.trial_failure_slope else 0.0)

    def _together(self, begin: float, a: float, b: float) -> None:
        """Reactivations and trials of [a, b), one after the other, each acting on those that follow."""
        tr, top, t, due = self.trials, self._top(a, b), a, self.trials.due(begin, a)
        while True:
            factors, change = tr.gains(t)
            rates = self.rates if factors is None else self.rates * factors
            total = float(rates.sum())
            end = min(b, due, tr.found, change)
            new = self._next(t, end, total * math.exp(self.u_rate), (np.cumsum(rates) / total).tolist(), top) if total else None
            if new is not None:
                t = new[0]
                self._add(*new)
                tr.watch(t, new[1], len(self.event_time) - 1)
                continue
            t = end
            if t >= b:
                return
            if t == tr.found:
                if tr.fits(t, begin):
                    self._deliver(t, self.event_content[tr.found_event], tr.found_event)
                tr.found = np.inf
            elif t == due:
                if tr.fits(t, begin):
                    self._deliver(t)
                due = tr.due(begin, t)
                if due + self.m.trial_duration > self.stop:
                    due = np.inf

    def _deliver(self, gate: float, content: int | None = None, event: int = -1) -> None:
        trial = self.trials.gate(gate, self._pressure(gate), content, event)
        if not self.trials.does(trial, "inhibition"):
            return
        for i in range(len(self.event_time) - 1, -1, -1):
            t = self.event_time[i]
            if t < gate - 1.0:
                break
            if self.event_content[i] == self.trials.target[trial.content] and gate < t + self.event_length[i] and i not in self.cut:
                self.cut[i] = gate
                if self.pushing:
                    self._move(gate, -self.push[self.event_content[i]] * float(np.exp(-(gate - t) / self.m.feedback_tau)))

    def _pressure(self, t: float) -> float:
        return float(self._latent(np.array([t - self.start]))[0] + self.pushed(np.array([t]))[0])

    def hazards(self, a: float, b: float, begin: float, slept: float, need: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Hazards (step,), 1/s, of waking and of REM on the grid of [a, b)."""
        m = self.m
        n = max(1, int(np.ceil((b - a) / STEP - 1e-9)))
        t = a + (np.arange(n) + 0.5) * STEP
        x = t - self.start
        eta, eta_rem = np.full(n, self.u_wake) + self.sleep.push(t, self.sleep.carry(need, "NREM", t - begin)), np.full(n, self.u_rem)
        if m.confounding or m.rem_confounding:
            pressure = self._latent(x) + (self._pushed_along(t) if self.pushing else 0.0)
            eta += m.confounding * pressure
            eta_rem += m.rem_confounding * pressure
        self._reactivated(a, n, eta, eta_rem)
        for trial in reversed(self.trials.made):
            if trial.gate < a - m.trial_duration:
                break
            if self.trials.does(trial, "stim", "activation"):
                i, j = self._steps(trial.gate, trial.gate + m.trial_duration, a, n)
                content = m.trial_content[trial.content]
                eta[i:j] += m.trial_log_hazard_ratio.get(content, 0.0)
                eta_rem[i:j] += m.trial_rem_log_hazard_ratio.get(content, 0.0)
        age = t - begin
        return self.sleep.leave_nrem(age) * np.exp(np.minimum(eta, CAP)), self.sleep.enter_rem(age, slept + age) * np.exp(np.minimum(eta_rem, CAP))

    def _reactivated(self, a: float, n: int, eta: NDArray[np.float64], eta_rem: NDArray[np.float64]) -> None:
        """Add what the reactivations that act in the piece do to both log hazards (step,)."""
        count = np.zeros((len(self.beta), n)) if self.m.dose_saturation else None
        if not any(self.beta) and not any(self.rem_beta):
            return
        for k in range(len(self.event_time) - 1, -1, -1):
            t, c = self.event_time[k], self.event_content[k]
            if t < a - self.m.effect_duration:
                break
            i, j = self._steps(t, min(t + self.m.effect_duration, self.cut.get(k, np.inf)), a, n)
            if count is not None:
                count[c, i:j] += 1
                continue
            if self.beta[c]:
                eta[i:j] += self.beta[c]
            if self.rem_beta[c]:
                eta_rem[i:j] += self.rem_beta[c]
        if count is not None:
            dose = self.m.dose(count)
            eta += np.asarray(self.beta) @ dose
            eta_rem += np.asarray(self.rem_beta) @ dose

    @staticmethod
    def _steps(begin: float, end: float, a: float, n: int) -> tuple[int, int]:
        """First and last step (exclusive) of the piece from `a` that [begin, end) covers."""
        return max(0, min(n, round((begin - a) / STEP))), max(0, min(n, round((end - a) / STEP)))

    def _latent(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        k = x.astype(np.intp)
        low = self.own[k]
        return low + (x - k) * (self.own[k + 1] - low)

    def _pushed_along(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """The feedback on the pressure on the grid of one piece."""
        first = max(bisect(self.push_time, t[0]) - 1, 0)
        at, value = self.push_time[first:], self.push_value[first:]
        return fading(at, value, self.m.feedback_tau, t)

    def _forget(self, mark: int, gates: int, end: float, last: float, pushed: tuple[int, float, float]) -> None:
        """Take back what was drawn beyond the end of the bout."""
        while len(self.event_time) > mark and self.event_time[-1] >= end:
            self.event_time.pop()
            self.event_content.pop()
            if self.event_length:
                self.event_length.pop()
        self.trials.forget(gates, end, last)
        self.cut = {i: at for i, at in self.cut.items() if at < end}
        if self.pushing:
            first, self.pushed_now, self.pushed_at = pushed
            again = [(t, size) for t, size in zip(self.push_time[first:], self.push_size[first:]) if t < end]
            del self.push_time[first:], self.push_size[first:], self.push_value[first:]
            for t, size in again:
                self._move(t, size)

    # -- what happened --------------------------------------------------------------------------------------------
    def table(self) -> EventTable:
        t = np.asarray(self.event_time)
        length = np.asarray(self.event_length) if self.m.interactive else replay_length(self.rng, len(t))
        names = np.array(self.m.contents, dtype=object)[self.event_content] if len(t) else np.empty(0, dtype=object)
        stop = t + length
        for i, at in self.cut.items():
            stop[i] = at
        return EventTable(t, stop, content=names, kind="reactivation", valence=names)

    def acting(self) -> NDArray[np.float64]:
        """When each reactivation stops acting (n,), s."""
        out = np.asarray(self.event_time) + self.m.effect_duration
        for i, at in self.cut.items():
            out[i] = at
        return out


def fading(at: list[float], value: list[float], tau: float, time: NDArray[np.float64]) -> NDArray[np.float64]:
    """A level (n,) at `time` (n,), s, that is `value` at each of the times `at` (sorted), decays with `tau` s in between, and is 0 before the first."""
    if not at:
        return np.zeros(len(time))
    k = np.searchsorted(at, time, side="right") - 1
    known = np.maximum(k, 0)
    return np.where(k >= 0, np.asarray(value)[known] * np.exp(-np.maximum(time - np.asarray(at)[known], 0.0) / tau), 0.0)
