"""How reactivation drives sleep: the hazard model that every recording and study is simulated from, and its true effects.

Within NREM the hazard of waking at time t is

    h(t) = h0(age of the bout) * exp(confounding * L(t) + sum over contents c of beta_c * N_c(t) + trial effect + animal)

where L is the latent pressure (slow, standardised, optionally pushed by the reactivations themselves), N_c(t) counts the
reactivations of content c that started in the last `effect_duration` seconds (log-linear in dose), and reactivations themselves
come as a point process of rate  r_c * exp(confounding * L(t) + animal).  Everything acts in continuous time (a grid of 0.1 s, exits
interpolated inside a step); the epochs of a hypnogram are only how it is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.signal import lfilter

from brainmu.core import EventTable
from brainmu.errors import InputError
from brainmu.synth.limits import check_model, number
from brainmu.synth.sleep import RodentSleep, bout_table

__all__ = ["CAP", "STEP", "Life", "Mechanism", "live", "ornstein_uhlenbeck", "replay_length", "valence"]

STEP = 0.1
"""Grid of the simulation, s."""
_PIECE = 64.0  # s simulated at a time inside a bout
CAP = 10.0  # largest log ratio of a hazard to its baseline: at any larger one the next step wakes for sure
_LIMIT = 4.0  # the latent pressure is kept within this many SD, so that rates stay finite


@dataclass(frozen=True)
class Mechanism:
    """The causal structure.

    Parameters
    ----------
    log_hazard_ratio : mapping of content to float
        Effect of one reactivation on the log hazard of NREM→WAKE while it lasts. Negative memories promote waking, positive ones
        stabilise NREM [1]_; the sizes are assumptions. Contents that are missing have no effect.
    rem_log_hazard_ratio : mapping of content to float
        The same for NREM→REM; none by default.
    effect_duration : float, s
        How long after its start a reactivation acts. At 10 s it covers the whole of the next-but-one 4-s epoch.
    reactivation_rate : mapping of content to float, 1/s
        Rate in NREM at average pressure. Ripples come at about 0.3-0.5/s, and 10-30 % of them carry significant replay [2]_.
    wake_reactivation : float
        Rate in resting wake relative to NREM; none in REM.
    confounding : float
        Coefficient of the latent pressure on both log rate of reactivation and log hazard of waking. 0 switches it off.
    feedback : float, SD
        By how much a reactivation raises the pressure (a positive content lowers it); decays with `feedback_tau`.
    pressure_tau, feedback_tau : float, s
        Time constants of the pressure's own fluctuation and of the feedback.
    reliability : float in (0, 1]
        Share of the measured pressure's variance that is true; the error is as slow as the pressure itself.
    animal_sd : float
        SD between animals of the log hazard of waking and, independently, of the log rate of reactivation.
    effect_sd : float
        SD between animals of each log hazard ratio.
    trials : bool
        Run the randomised stimulation.
    trial_log_hazard_ratio : mapping of content to float
        Effect of a delivered stimulation on the log hazard of NREM→WAKE for `trial_duration`.
    trial_content : tuple of str
        Contents stimulated, drawn with equal chance.
    trial_probability : float
        Chance of assignment to stimulation.
    trial_failure : float
        Chance that an assigned stimulation is not delivered.
    trial_min_age, trial_spacing, trial_jitter : float, s
        The gate: NREM that has lasted this long, this long after the previous gate, plus an exponential wait.
    trial_duration : float, s
    trial_block : int
        Trials a block of the ledger.
    trial_scheme : {"bernoulli", "blocked"}
        Independent assignment, or exactly `trial_probability` of each block.

    References
    ----------
    .. [1] Memory reactivation underlies experience-dependent adaptive regulation of sleep (2026). Science.
    .. [2] Tirole M et al. (2022). Experience-driven rate modulation is reinstated during hippocampal replay. eLife 11:e79031.
    """

    log_hazard_ratio: Mapping[str, float] = field(default_factory=lambda: {"negative": 0.7, "positive": -0.5})
    rem_log_hazard_ratio: Mapping[str, float] = field(default_factory=dict)
    effect_duration: float = 10.0
    reactivation_rate: Mapping[str, float] = field(default_factory=lambda: {"negative": 0.04, "positive": 0.04})
    wake_reactivation: float = 0.2
    confounding: float = 0.0
    feedback: float = 0.0
    pressure_tau: float = 300.0
    feedback_tau: float = 60.0
    reliability: float = 1.0
    animal_sd: float = 0.3
    effect_sd: float = 0.0
    trials: bool = True
    trial_log_hazard_ratio: Mapping[str, float] = field(default_factory=lambda: {"negative": 0.9})
    trial_content: tuple[str, ...] = ("negative",)
    trial_probability: float = 0.5
    trial_failure: float = 0.05
    trial_min_age: float = 12.0
    trial_spacing: float = 25.0
    trial_jitter: float = 10.0
    trial_duration: float = 10.0
    trial_block: int = 8
    trial_scheme: str = "bernoulli"

    def __post_init__(self) -> None:
        positive = ("effect_duration", "pressure_tau", "feedback_tau", "trial_duration", "trial_block", "reliability")
        check_model(self, positive=positive, shares=("reliability", "trial_probability", "trial_failure"), signed=("confounding", "feedback"))
        if abs(self.confounding) > 2:
            raise InputError(
                f"confounding is {self.confounding:g}, expected at most 2: rates would differ by e to the {8 * abs(self.confounding):g} between moments"
            )
        if self.trial_scheme not in ("bernoulli", "blocked"):
            raise InputError(f"trial_scheme is {self.trial_scheme!r}, expected 'bernoulli' or 'blocked'")
        for name in ("log_hazard_ratio", "rem_log_hazard_ratio", "trial_log_hazard_ratio"):
            for content, value in getattr(self, name).items():
                number(f"{name}[{content}]", value, -5.0, most=5.0)
        if self.trials and not self.trial_content:
            raise InputError("trial_content is empty, expected at least one content to stimulate (or trials=False)")
        rates = dict(self.reactivation_rate)
        if any(not (np.isfinite(r) and r >= 0) for r in rates.values()):
            raise InputError(f"reactivation_rate is {rates}, expected a rate of zero or more (1/s) for each content")
        for name in ("log_hazard_ratio", "rem_log_hazard_ratio"):
            stray = set(getattr(self, name)) - set(rates)
            if stray:
                raise InputError(f"{name} names {sorted(stray)[0]!r}, which is never reactivated: contents are {', '.join(sorted(rates)) or 'none'}")
        # Contents of opposite valence push against each other; only their balance can run away.
        spread = sum(r * valence(c) for c, r in rates.items()) * self.feedback * self.confounding * self.feedback_tau
        if spread >= 0.95:
            raise InputError(
                f"each reactivation brings about {spread:.2f} more through the pressure (rate x feedback x confounding x feedback_tau), expected below 0.95: "
                "the process would explode"
            )

    @property
    def contents(self) -> tuple[str, ...]:
        return tuple(self.reactivation_rate)


def valence(content: str) -> float:
    """Sign with which a content pushes the pressure: -1 for positive, 0 for neutral, 1 for anything else."""
    return {"positive": -1.0, "neutral": 0.0}.get(content, 1.0)


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


def ornstein_uhlenbeck(rng: np.random.Generator, n: int, tau: float, dt: float) -> NDArray[np.float64]:
    """A stationary Gaussian process (n,) of SD 1 and time constant `tau` s, sampled every `dt` s."""
    a = np.exp(-dt / tau)
    x = rng.standard_normal(n)
    x[1:] *= np.sqrt(1 - a * a)
    return lfilter([1.0], [1.0, -a], x)


def replay_length(rng: np.random.Generator, n: int) -> NDArray[np.float64]:
    """Lengths (n,), s, of replays: gamma about 150 ms."""
    return np.clip(rng.gamma(6.0, 0.15 / 6.0, size=n), 0.08, 0.35)


def live(mechanism: Mechanism, sleep: RodentSleep, start: float, stop: float, rng: np.random.Generator, latency: float = 180.0) -> Life:
    """Simulate one animal's rest from `start` to `stop` (s); it begins awake and falls asleep after about `latency` s."""
    m = mechanism
    z = rng.standard_normal(2 + len(m.contents))
    u_wake, u_rate = m.animal_sd * z[:2]
    beta = {c: m.log_hazard_ratio.get(c, 0.0) + (m.effect_sd * e if c in m.log_hazard_ratio else 0.0) for c, e in zip(m.contents, z[2:])}
    n = int(np.ceil(stop - start)) + 2
    time = start + np.arange(n, dtype=np.float64)
    own = np.clip(ornstein_uhlenbeck(rng, n, m.pressure_tau, 1.0), -_LIMIT, _LIMIT)
    noise = ornstein_uhlenbeck(rng, n, m.pressure_tau, 1.0)
    run = _Run(m, sleep, beta, u_wake, u_rate, start, stop, own, rng)
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
    return Life(bouts, events, run.ledger(), time, own, pressure, measured, sleep.need_along(bouts, time), animal)


class _Run:
    """The moving parts of one session: the reactivations so far, the trials so far, and the way through a NREM bout."""

    def __init__(
        self, m: Mechanism, sleep: RodentSleep, beta: dict[str, float], u_wake: float, u_rate: float, start: float, stop: float,
        own: NDArray[np.float64], rng: np.random.Generator,
    ) -> None:  # fmt: skip
        self.m, self.sleep, self.rng, self.start, self.stop, self.own = m, sleep, rng, start, stop, own
        self.beta = [beta[c] for c in m.contents]
        self.rem_beta = [m.rem_log_hazard_ratio.get(c, 0.0) for c in m.contents]
        self.u_wake, self.u_rate = u_wake, u_rate
        rates = np.array([m.reactivation_rate[c] for c in m.contents])
        self.total = float(rates.sum())
        self.choose = np.cumsum(rates) / self.total if self.total else rates
        self.push = [m.feedback * valence(c) for c in m.contents]
        self.pushing = any(p != 0 for p in self.push)
        self.pushed_now, self.pushed_at = 0.0, start
        self.event_time: list[float] = []
        self.event_content: list[int] = []
        self.trial: list[tuple[float, bool, bool, int]] = []
        self.last_gate = -np.inf
        self.pending: list[bool] = []

    # -- reactivations --------------------------------------------------------------------------------------------
    def react(self, a: float, b: float, gain: float) -> None:
        """Add the reactivations of [a, b), by thinning; each may push the pressure and so the rate of the next."""
        m = self.m
        if self.total * gain == 0 or b <= a:
            return
        i, j = int(a - self.start), int(b - self.start) + 2
        piece = m.confounding * self.own[i : j + 1]
        base = self.total * gain * float(np.exp(self.u_rate))
        top, t = float(piece.max()), a
        while True:
            pushed = m.confounding * self._pushed(t) if self.pushing else 0.0
            bound = base * float(np.exp(top + max(pushed, 0.0)))
            t += self.rng.exponential(1 / bound)
            if t >= b:
                return
            u = self.rng.random(2)
            x = t - self.start
            k = int(x)
            eta = m.confounding * (self.own[k] + (x - k) * (self.own[k + 1] - self.own[k])) + (m.confounding * self._pushed(t) if self.pushing else 0.0)
            if u[0] * bound < base * np.exp(eta):
                c = int(np.searchsorted(self.choose, u[1], side="right"))
                self.event_time.append(t)
                self.event_content.append(min(c, len(self.choose) - 1))
                if self.pushing:
                    self.pushed_now = float(np.clip(self._pushed(t) + self.push[self.event_content[-1]], -_LIMIT, _LIMIT))
                    self.pushed_at = t

    def _pushed(self, t: float) -> float:
        return self.pushed_now * float(np.exp(-(t - self.pushed_at) / self.m.feedback_tau))

    def pushed(self, time: NDArray[np.float64]) -> NDArray[np.float64]:
        """The feedback of all reactivations on the pressure at `time` (n,)."""
        out = np.zeros(len(time))
        value, at = 0.0, self.start
        if not self.pushing:
            return out
        k = np.searchsorted(self.event_time, time, side="right")
        values, times = [0.0], [self.start]
        for t, c in zip(self.event_time, self.event_content):
            value = float(np.clip(value * np.exp(-(t - at) / self.m.feedback_tau) + self.push[c], -_LIMIT, _LIMIT))
            at = t
            values.append(value)
            times.append(t)
        return np.asarray(values)[k] * np.exp(-(time - np.asarray(times)[k]) / self.m.feedback_tau)

    # -- one NREM bout --------------------------------------------------------------------------------------------
    def nrem(self, begin: float, slept: float, need: float) -> tuple[float, str]:
        """Walk a NREM bout that begins at `begin` with this much sleep need; returns its end and the next stage."""
        threshold = self.rng.exponential()
        a = begin
        while a < self.stop:
            b = min(a + _PIECE, self.stop)
            mark, gates = len(self.event_time), len(self.trial)
            last, pushed = self.last_gate, (self.pushed_now, self.pushed_at)
            self.react(a, b, 1.0)
            self._gate(begin, a, b)
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

    def hazards(self, a: float, b: float, begin: float, slept: float, need: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Hazards (step,), 1/s, of waking and of REM on the grid of [a, b)."""
        m = self.m
        n = max(1, int(np.ceil((b - a) / STEP - 1e-9)))
        t = a + (np.arange(n) + 0.5) * STEP
        x = t - self.start
        eta = np.full(n, self.u_wake) + self.sleep.push(t, self.sleep.carry(need, "NREM", t - begin))
        if m.confounding:
            eta += m.confounding * (self._latent(x) + (self.pushed_grid(t) if self.pushing else 0.0))
        eta_rem = np.zeros(n)
        for k in range(len(self.event_time) - 1, -1, -1):
            if self.event_time[k] < a - m.effect_duration:
                break
            i, j = (max(0, min(n, round((self.event_time[k] + d - a) / STEP))) for d in (0.0, m.effect_duration))
            eta[i:j] += self.beta[self.event_content[k]]
            eta_rem[i:j] += self.rem_beta[self.event_content[k]]
        for gate, _, delivered, c in reversed(self.trial):
            if gate < a - m.trial_duration:
                break
            if delivered:
                i, j = (max(0, min(n, round((gate + d - a) / STEP))) for d in (0.0, m.trial_duration))
                eta[i:j] += m.trial_log_hazard_ratio.get(m.trial_content[c], 0.0)
        age = t - begin
        return self.sleep.leave_nrem(age) * np.exp(np.minimum(eta, CAP)), self.sleep.enter_rem(age, slept + age) * np.exp(np.minimum(eta_rem, CAP))

    def _latent(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        k = x.astype(np.intp)
        low = self.own[k]
        return low + (x - k) * (self.own[k + 1] - low)

    def pushed_grid(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """The feedback on the pressure on the grid of one piece; only the reactivations of the last five time constants matter."""
        out = np.zeros(len(t))
        for k in range(len(self.event_time) - 1, -1, -1):
            if self.event_time[k] < t[0] - 5 * self.m.feedback_tau:
                break
            age = t - self.event_time[k]
            out += np.where(age > 0, self.push[self.event_content[k]] * np.exp(-np.maximum(age, 0) / self.m.feedback_tau), 0.0)
        return np.clip(out, -_LIMIT, _LIMIT)

    def _forget(self, mark: int, gates: int, end: float, last: float, pushed: tuple[float, float]) -> None:
        """Take back what was drawn beyond the end of the bout."""
        while len(self.event_time) > mark and self.event_time[-1] >= end:
            self.event_time.pop()
            self.event_content.pop()
        while len(self.trial) > gates and self.trial[-1][0] >= end:
            _, assigned, _, _ = self.trial.pop()
            if self.m.trial_scheme == "blocked":
                self.pending.append(assigned)
        self.last_gate = self.trial[-1][0] if len(self.trial) > gates else last
        if self.pushing:
            self.pushed_now, self.pushed_at = pushed
            for t, c in zip(self.event_time[mark:], self.event_content[mark:]):
                self.pushed_now = float(np.clip(self._pushed(t) + self.push[c], -_LIMIT, _LIMIT))
                self.pushed_at = t

    # -- trials ---------------------------------------------------------------------------------------------------
    def _gate(self, begin: float, a: float, b: float) -> None:
        m = self.m
        if not m.trials:
            return
        while True:
            gate = max(begin + m.trial_min_age, self.last_gate + m.trial_spacing, a) + (self.rng.exponential(m.trial_jitter) if m.trial_jitter else 0.0)
            if gate >= b or gate + m.trial_duration > self.stop:
                return
            assigned = self._assign()
            delivered = bool(assigned and self.rng.random() >= m.trial_failure)
            self.trial.append((gate, assigned, delivered, int(self.rng.integers(len(m.trial_content)))))
            self.last_gate = gate

    def _assign(self) -> bool:
        m = self.m
        if m.trial_scheme == "bernoulli":
            return bool(self.rng.random() < m.trial_probability)
        if not self.pending:
            k = round(m.trial_probability * m.trial_block)
            self.pending = list(self.rng.permutation([True] * k + [False] * (m.trial_block - k)))
        return bool(self.pending.pop())

    # -- what happened --------------------------------------------------------------------------------------------
    def table(self) -> EventTable:
        t = np.asarray(self.event_time)
        length = replay_length(self.rng, len(t))
        names = np.array(self.m.contents, dtype=object)[self.event_content] if len(t) else np.empty(0, dtype=object)
        return EventTable(t, t + length, content=names, kind="reactivation", valence=names)

    def ledger(self) -> EventTable:
        m = self.m
        gate = np.array([x[0] for x in self.trial])
        assigned = np.array([x[1] for x in self.trial], dtype=bool)
        delivered = np.array([x[2] for x in self.trial], dtype=bool)
        content = np.array([m.trial_content[x[3]] for x in self.trial], dtype=object)
        return EventTable(
            gate, gate + m.trial_duration, peak=gate, content=content, kind="trial", assigned=assigned, delivered=delivered,
            probability=np.full(len(gate), m.trial_probability), block=np.arange(len(gate)) // m.trial_block, gate_time=gate,
            arm=np.where(assigned, "stim", "sham").astype(object), attrs={"scheme": m.trial_scheme},
        )  # fmt: skip
