"""The truth of each effect by hand: the documented equations in plain Python, one copy and one step at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest

import brainmu.synth as synth
from brainmu.synth.effects import live
from brainmu.synth.interventions import simulate_interventions
from brainmu.synth.mechanism import Mechanism
from brainmu.synth.sleep import RodentSleep

WORLD = dict(
    log_hazard_ratio={"negative": 0.8, "positive": -0.6}, rem_log_hazard_ratio={"negative": -0.5, "positive": 0.6}, confounding=0.5, rem_confounding=-0.3,
    feedback=0.1, dose_saturation=0.3, effect_sd=0.1, reactivation_rate={"negative": 0.06, "positive": 0.05}, experience="stress",
    trial_arms=("activation", "inhibition", "cue"), trial_gate="detection", trial_spacing=15.0, detector_sensitivity=0.8, trial_failure=0.1,
    trial_failure_slope=0.8, trial_rem_log_hazard_ratio={"negative": -0.4}, inhibition_duration=1.5,
)  # fmt: skip
EPOCH, DT, CONTENTS = 4.0, 0.2, ("negative", "positive")


class _Copy:
    """One animal at one moment of NREM, run on in plain Python."""

    def __init__(self, m, sleep, life, at, rng):
        self.m, self.s, self.life, self.at, self.rng, self.day = m, sleep, life, at, rng, synth.EXPERIENCES["stress"]
        stages, starts, stops, event_start, event_stop, event_content = self._tables(life)
        k = int(np.searchsorted(starts, at, side="right")) - 1
        self.begin, self.slept = starts[k], 0.0
        while k > 0 and stages[k - 1] != "REM":
            k -= 1
            self.slept += (stops[k] - starts[k]) * (stages[k] == "NREM")
        # What still acts (until, content), what moved the pressure (when, by), and what runs now.
        self.acting, self.moves, self.running = [], [], []
        first, last = np.searchsorted(event_start, [at - 600.0, at])
        for i in range(first, last):
            t, c = event_start[i], CONTENTS.index(event_content[i])
            natural, until = t + m.effect_duration, life.acting[i]
            push = m.feedback * (1 if c == 0 else -1)
            self.moves.append((t, push))
            if until < at and until < natural:
                self.moves.append((until, -push * math.exp(-(until - t) / m.feedback_tau)))
            else:
                until = natural
                if event_stop[i] >= at:
                    self.running.append((t, c, push, natural))
            if until > at:
                self.acting.append((until, c))
        self.moves = [(at, sum(size * math.exp(-(at - when) / m.feedback_tau) for when, size in self.moves))]

    @staticmethod
    def _tables(life):
        if "tables" not in vars(life):
            b, e = life.bouts, life.reactivation
            life.tables = [x.tolist() for x in (b.stage.to_numpy(), b.start.to_numpy(), b.stop.to_numpy(), e.start, e.stop, e.content)]
        return life.tables

    def pressure(self, t):
        pushed = sum(size * math.exp(-(t - when) / self.m.feedback_tau) for when, size in self.moves if when <= t)
        i = min(int(t - self.life.time[0]), len(self.life.own) - 2)
        own = self.life.own[i] + min(t - self.life.time[0] - i, 1.0) * (self.life.own[i + 1] - self.life.own[i])
        return own + pushed

    def woken_for(self):
        if self.rng.random() < self.s.micro_share:
            return self.s.micro_median * math.exp(0.45 * self.rng.standard_normal())
        median = self.s.long_median if self.rng.random() < self.s.long_share else self.s.quiet_median
        return median * math.exp(0.6 * self.rng.standard_normal())

    def dose(self, n):
        return (1 - math.exp(-self.m.dose_saturation * n)) / (1 - math.exp(-self.m.dose_saturation))

    def run(self, seconds, arm="", content=0, shut=0.0, put=()):
        """Stage of each scored epoch from the one that holds the moment; `put` and `shut` in s from the moment, `content` is set."""
        m, s, rng, edge = self.m, self.s, self.rng, math.floor(self.at / EPOCH + 1e-9) * EPOCH
        failure = 1 / (1 + math.exp(-(math.log(m.trial_failure / (1 - m.trial_failure)) + m.trial_failure_slope * self.pressure(self.at)))) if arm else 1.0
        arm = arm if rng.random() >= failure else ""
        if arm == "inhibition":
            for t, c, push, natural in self.running:
                if c == 0:
                    self.acting.remove((natural, c))
                    self.moves.append((self.at, -push * math.exp(-(self.at - t) / m.feedback_tau)))
        spent = [[0.0] * 3 for _ in range(int((self.at - edge + seconds) // EPOCH) + 2)]
        nrem_before = min(self.at - edge, self.at - self.begin)
        spent[0][1], spent[0][0] = nrem_before, self.at - edge - nrem_before
        put, state, age, until = sorted(put), 1, self.at - self.begin, math.inf
        slept, animal, random = self.slept + age, self.life.animal, rng.random
        for step in range(round(seconds / DT)):
            t = self.at + (step + 0.5) * DT
            self.acting = [x for x in self.acting if x[0] > t]
            pressure = self.pressure(t)
            if state != 2:
                for c, name in enumerate(CONTENTS):
                    rate = m.reactivation_rate[name] * math.exp(
                        self.day.log_reactivation_rate[name] + animal["log_reactivation_rate"] + m.confounding * pressure
                    )
                    rate *= 1.0 if state == 1 else m.wake_reactivation
                    if c == 0 and state == 1:
                        rate *= (
                            m.cue_gain
                            if arm == "cue" and t < self.at + m.cue_window
                            else 0.0
                            if arm == "inhibition" and t < self.at + m.inhibition_duration
                            else 1.0
                        )
                    if random() < rate * DT and not (c == content and t < self.at + shut):
                        self._react(t, c)
            while put and t >= self.at + put[0]:
                put.pop(0)
                self._react(t, content)
            spent[int((t - edge) / EPOCH)][state] += DT
            if state != 1:
                if t >= until:
                    slept = 0.0 if state == 2 else slept
                    if state == 2 and random() < s.rem_to_wake:
                        state, until = 0, t + self.woken_for()
                    else:
                        state, age = 1, 0.0
                continue
            n = [sum(1 for x in self.acting if x[1] == c) for c in (0, 1)]
            eta = animal["log_wake_hazard"] + self.day.log_wake_hazard + m.confounding * pressure
            eta += sum(animal["log_hazard_ratio"][name] * self.dose(n[c]) for c, name in enumerate(CONTENTS))
            eta_rem = self.day.log_rem_hazard + m.rem_confounding * pressure + sum(m.rem_log_hazard_ratio[x] * self.dose(n[c]) for c, x in enumerate(CONTENTS))
            if arm == "activation" and t < self.at + m.trial_duration:
                eta, eta_rem = eta + m.trial_log_hazard_ratio["negative"], eta_rem + m.trial_rem_log_hazard_ratio["negative"]
            wake = s.wake_rate * (1 - 0.8 * math.exp(-age / s.settle)) * math.exp(eta)
            rem = s.rem_rate / (1 + math.exp(-(slept - s.rem_after) / 45.0)) * (1 - math.exp(-age / s.settle)) * math.exp(eta_rem)
            age, slept = age + DT, slept + DT
            if random() < (wake + rem) * DT:
                state = 0 if random() * (wake + rem) < wake else 2
                until = t + (self.woken_for() if state == 0 else max(8.0, rng.gamma(s.rem_shape, s.rem_mean / s.rem_shape)))
        return [max(range(3), key=lambda k: row[k] + 1e-6 * random()) for row in spent]

    def _react(self, t, c):
        self.acting.append((t + self.m.effect_duration, c))
        self.moves.append((t, self.m.feedback * (1 if c == 0 else -1)))


def _moments(lives, kind, per_animal, rng):
    for i, life in enumerate(lives):
        if kind == "epochs":
            b = life.bouts[life.bouts.stage == "NREM"]
            t = np.arange(0.0, life.bouts.stop.iloc[-1], EPOCH)
            k = np.searchsorted(b.start.to_numpy(), t, side="right") - 1
            at = np.r_[t[(k >= 0) & (t < b.stop.to_numpy()[np.maximum(k, 0)])], b.start[b.start % EPOCH < EPOCH / 2]]
        else:
            at = life.trials.start[life.trials.planned == kind]
        for t in rng.choice(at, per_animal):
            yield i, life, t


def _log_odds(table):
    """Log odds ratio and risk difference of hits (animal, arm, [hits, n])."""
    p = table[:, :, 0].sum(0) / table[:, :, 1].sum(0)
    return np.array([np.log(p[0] / (1 - p[0])) - np.log(p[1] / (1 - p[1])), p[0] - p[1]])


def _agrees(told, name, table):
    n = len(table)
    value = _log_odds(table)
    left = np.array([_log_odds(np.delete(table, i, axis=0)) for i in range(n)])
    error = np.sqrt((n - 1) / n * ((left - left.mean(0)) ** 2).sum(0))
    for scale, v, e in zip(("log_odds_ratio", "risk_difference"), value, error):
        known = told[name.format(scale)]
        assert abs(v - known.value) < 3.7 * np.hypot(e, known.standard_error), (name.format(scale), v, e, known)


@pytest.fixture(scope="module")
def world():
    m, sleep = Mechanism(**WORLD), RodentSleep()
    lives = [live(m, sleep, 0.0, 5400.0, np.random.default_rng(c)) for c in np.random.SeedSequence(99).spawn(100)]
    return m, sleep, lives, simulate_interventions(m, sleep, copies=10_000, families=["trials", "hazard", "dose", "msm"])


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["activation", "inhibition", "cue"])
def test_each_arm_agrees_with_ten_thousand_trials_done_by_hand(world, arm):
    m, sleep, lives, told = world
    rng = np.random.default_rng(1)
    horizons = (m.trial_duration, 2 * m.trial_duration)
    woke, dreamt = np.zeros((2, len(horizons), len(lives), 2, 2))
    for j, given in enumerate((arm, "")):
        for i, life, at in _moments(lives, arm, 100, rng):
            stage = _Copy(m, sleep, life, at, rng).run(horizons[-1] + EPOCH, arm=given)
            phase = at % EPOCH
            if stage[0] == 2:
                continue
            for h, horizon in enumerate(horizons):
                left = next((s for k, s in enumerate(stage) if s != 1 and k * EPOCH - phase <= horizon), 1)
                woke[h, i, j] += left == 0, 1
                dreamt[h, i, j] += left == 2, 1
    for h, label in enumerate((arm, f"{arm}, horizon={horizons[1]:g}")):
        _agrees(told, f"itt_{{}}[{label}]", woke[h])
        _agrees(told, f"itt_rem_{{}}[{label}]", dreamt[h])


@pytest.mark.slow
@pytest.mark.parametrize(("what", "content"), [("lag", 0), ("lag", 1), ("dose=2", 0), ("dose=3", 0), ("horizon=12", 0), ("msm", 0), ("msm, horizon=12", 0)])
def test_reactivations_put_in_and_kept_out_by_hand_agree(world, what, content):
    m, sleep, lives, told = world
    rng, name = np.random.default_rng(2), CONTENTS[content]
    size, dose = 3 if "horizon" in what else 1, int(what[-1]) if "dose" in what else 1
    lags = (0, 1, 2, 3, 4) if what == "lag" else (1,)
    woke, dreamt = np.zeros((2, len(lags), len(lives), 2, 2))
    for j in (0, 1):
        for i, life, at in _moments(lives, "epochs", 100, rng):
            shut = size * EPOCH - at % EPOCH
            put = [] if j else list(rng.random(dose) * shut)
            copy = _Copy(m, sleep, life, at, rng)
            kept = shut
            if "msm" in what and not j:
                # Those that come of themselves, drawn until at least one does: keep out what comes before the first.
                rate = m.rates[name] * math.exp(m.animal_sd**2 / 2)
                while (first := rng.exponential(1 / rate)) >= shut:
                    pass
                kept, put = first, [first]
            stage = copy.run((size + max(lags) + 1) * EPOCH - at % EPOCH, content=content, shut=kept, put=put)
            for a, lag in enumerate(lags):
                if all(x == 1 for x in stage[: size + lag]):
                    woke[a, i, j] += stage[size + lag] == 0, 1
                    dreamt[a, i, j] += stage[size + lag] == 2, 1
    prefix = next((p for p in ("dose", "msm") if p in what), "epoch")
    label = [name] + [x for x in what.split(", ") if "=" in x]
    for a, lag in enumerate(lags):
        where = ", ".join(label + ([f"lag={lag}"] if lag != 1 else []))
        _agrees(told, f"{prefix}_{{}}[{where}]", woke[a])
        if what == "lag":
            _agrees(told, f"rem_epoch_{{}}[{where}]", dreamt[a])
