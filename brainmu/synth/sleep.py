"""Sleep as bouts in continuous time, and the majority of them in each epoch.

Rodents alternate WAKE, NREM and REM as a semi-Markov process: how long a bout has lasted and how much NREM was slept since the
last REM set the hazards of leaving it. Humans walk through W N1 N2 N3 R in cycles. Transitions fall anywhere inside an epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from brainmu.core import STAGE_SETS, EventTable, Hypnogram
from brainmu.core.limits import check_model, number
from brainmu.errors import InputError

__all__ = ["DRIVE_FROM", "HumanSleep", "RodentSleep", "bout_table", "human_arousals", "human_bouts", "score"]

DRIVE_FROM = 12.0
"""Recordings of this many hours or more feel the clock and the need for sleep, unless told otherwise."""

_NEED = 0.3  # process S at which the need for sleep neither adds to nor takes from the hazards: its mean over the day
_MEAN_DARK = 0.45  # night at which the clock neither adds nor takes: about its mean over the day
_DUSK = 0.25  # h
_HUMAN_DAY = 86400.0  # s
_LIMIT = 5.0  # bounds of a log ratio, so that no parameter overflows


@dataclass(frozen=True)
class RodentSleep:
    """Bout lengths and hazards of a rodent, in its light phase unless the clock and the need for sleep drive it.

    The defaults give a mouse about 55–65 % NREM, 5–9 % REM, NREM bouts of about a minute broken by micro-arousals, and REM bouts
    of about a minute, in the range of [1]_ and [2]_.

    Parameters
    ----------
    wake_rate : float, 1/s
        Hazard of NREM→WAKE in an established bout, before any cause acts on it.
    settle : float, s
        The hazard of leaving NREM rises from 0.2 to 1 of its value with this time constant as a bout ages.
    rem_rate : float, 1/s
        Hazard of NREM→REM once enough NREM was slept.
    rem_after : float, s
        NREM since the last REM at which that hazard is half its value.
    rem_mean, rem_shape : float, s and 1
        Gamma distribution of REM bouts.
    rem_to_wake : float
        Share of REM bouts that end in waking (the rest return to NREM).
    micro_share : float
        Share of awakenings from NREM that are micro-arousals.
    micro_median, quiet_median, long_median : float, s
        Log-normal medians of micro-arousals, of ordinary and of long waking.
    long_share : float
        Share of the ordinary awakenings that become long.
    drive : bool
        Let the clock and the need for sleep act: on the hazard of waking, on how long waking lasts, and on delta. Off: the same hazards at
        any hour. :func:`~brainmu.synth.recording` and :func:`~brainmu.synth.study` switch it on from 12 h.
    zeitgeber : float, h
        Hours since lights-on at session time 0.
    day, light : float, h
        Length of the day and of its light phase.
    circadian : float
        Log ratio of the hazard of waking in the dark to that in the light. An assumption, set so that a mouse sleeps about 60-65 % of the
        light and 30-40 % of the dark [1]_.
    homeostatic : float
        Change of the log hazard of waking per unit of process S above 0.3 (less waking the more sleep is needed). An assumption.
    consolidation : float
        Log ratio of long waking's length per log ratio of the hazard of waking: nights hold hours of waking, not only more of it. An assumption.
    need : float in [0, 1]
        Process S at the beginning of the sleep simulated.
    need_rise, need_fall : float, h
        Time constants with which process S rises to 1 out of NREM and falls to 0 in it [3]_, of the order of those fitted to mice [4]_.
    need_delta : float
        Change of the log amplitude of delta per unit of process S above 0.3; power changes twice as much. An assumption.

    References
    ----------
    .. [1] Franken P, Malafosse A, Tafti M (1999). Genetic determinants of sleep regulation in inbred mice. Sleep 22:155.
    .. [2] Watson BO et al. (2016). Network homeostasis and state dynamics of neocortical sleep. Neuron 90:839.
    .. [3] Borbély AA (1982). A two process model of sleep regulation. Hum Neurobiol 1:195.
    .. [4] Franken P, Chollet D, Tafti M (2001). The homeostatic regulation of sleep need is under genetic control. J Neurosci 21:2610.
    """

    wake_rate: float = 1 / 110
    settle: float = 15.0
    rem_rate: float = 1 / 90
    rem_after: float = 320.0
    rem_mean: float = 65.0
    rem_shape: float = 2.5
    rem_to_wake: float = 0.75
    micro_share: float = 0.6
    micro_median: float = 7.0
    quiet_median: float = 45.0
    long_median: float = 260.0
    long_share: float = 0.25
    drive: bool = False
    zeitgeber: float = 2.0
    day: float = 24.0
    light: float = 12.0
    circadian: float = 0.4
    homeostatic: float = 1.8
    consolidation: float = 7.5
    need: float = 0.3
    need_rise: float = 8.0
    need_fall: float = 2.0
    need_delta: float = 1.2

    def __post_init__(self) -> None:
        check_model(
            self,
            positive=("settle", "rem_mean", "rem_shape", "micro_median", "quiet_median", "long_median", "day", "need_rise", "need_fall"),
            shares=("rem_to_wake", "micro_share", "long_share", "need"),
        )
        number("zeitgeber", self.zeitgeber, most=self.day)
        if not isinstance(self.drive, (bool, np.bool_)):
            raise InputError(f"drive is {self.drive!r}, expected True or False")
        if self.light > self.day:
            raise InputError(f"light is {self.light:g} h of a day of {self.day:g} h, expected at most the day")

    def leave_nrem(self, age: ArrayLike) -> NDArray[np.float64]:
        """Baseline hazard (n,), 1/s, of NREM→WAKE at bout age (n,), s."""
        return self.wake_rate * (1.0 - 0.8 * np.exp(-np.asarray(age, dtype=np.float64) / self.settle))

    def enter_rem(self, age: ArrayLike, slept: ArrayLike) -> NDArray[np.float64]:
        """Baseline hazard (n,), 1/s, of NREM→REM at bout age (n,), s, with `slept` (n,), s, of NREM since the last REM."""
        ready = 1.0 / (1.0 + np.exp(-(np.asarray(slept, dtype=np.float64) - self.rem_after) / 45.0))
        return self.rem_rate * ready * -np.expm1(-np.asarray(age, dtype=np.float64) / self.settle)

    def wake_length(self, rng: np.random.Generator, n: int = 1, after_rem: bool = False, push: ArrayLike = 0.0) -> NDArray[np.float64]:
        """Lengths (n,), s, of waking bouts; `push` (see :meth:`push`) makes them ordinary rather than micro-arousals, long rather than ordinary, and longer."""
        x = np.asarray(push, dtype=np.float64)
        kind, long = rng.random((2, n))
        micro = kind < _odds(0.7 if after_rem else self.micro_share, -x)
        long_median = self.long_median * np.exp(np.clip(self.consolidation * x, -_LIMIT, _LIMIT))
        median = np.where(micro, self.micro_median, np.where(long < _odds(self.long_share, x), long_median, self.quiet_median))
        return median * np.exp(np.where(micro, 0.45, 0.6) * rng.standard_normal(n))

    def rem_length(self, rng: np.random.Generator) -> float:
        """One REM bout, s."""
        return float(max(8.0, rng.gamma(self.rem_shape, self.rem_mean / self.rem_shape)))

    # -- the clock and the need for sleep -------------------------------------------------------------------------
    def push(self, t: ArrayLike, need: ArrayLike) -> NDArray[np.float64]:
        """What clock and need add to the log hazard of waking at session time `t` (n,), s, with process S at `need` (n,)."""
        t = np.asarray(t, dtype=np.float64)
        if not self.drive:
            return np.zeros(np.broadcast(t, need).shape)
        return np.clip(self.circadian * (self.dark(t) - _MEAN_DARK) - self.homeostatic * (np.asarray(need, dtype=np.float64) - _NEED), -_LIMIT, _LIMIT)

    def dark(self, t: ArrayLike) -> NDArray[np.float64]:
        """How much it is night for a nocturnal animal at session time `t` (n,), s: 0 in the light, 1 in the dark, with dusks of about half an hour."""
        hour = np.mod(self.zeitgeber + np.asarray(t, dtype=np.float64) / 3600.0, self.day)
        if self.light in (0.0, self.day):
            return np.full(hour.shape, float(self.light == 0.0))
        # Distance to the nearest change of lights, positive in the dark.
        into = np.where(hour < self.light, -np.minimum(hour, self.light - hour), np.minimum(hour - self.light, self.day - hour))
        return 0.5 * (1.0 + np.tanh(into / _DUSK))

    def carry(self, need: ArrayLike, stage: str, seconds: ArrayLike) -> NDArray[np.float64]:
        """Process S (n,) after `seconds` (n,) of `stage`, from `need` (n,)."""
        need, hours = np.asarray(need, dtype=np.float64), np.asarray(seconds, dtype=np.float64) / 3600.0
        return need * np.exp(-hours / self.need_fall) if stage == "NREM" else 1.0 - (1.0 - need) * np.exp(-hours / self.need_rise)

    def need_along(self, bouts: pd.DataFrame, time: NDArray[np.float64]) -> NDArray[np.float64]:
        """Process S (n,) at `time` (n,), s, given the bouts."""
        level, at = [self.need], bouts["start"].to_numpy(dtype=float)
        for stage, a, b in zip(bouts["stage"], bouts["start"], bouts["stop"]):
            level.append(float(self.carry(level[-1], stage, b - a)))
        k = np.clip(np.searchsorted(at, time, side="right") - 1, 0, None)
        from_, age = np.asarray(level)[k], np.maximum(time - at[k], 0.0)
        return np.where((bouts["stage"] == "NREM").to_numpy()[k], self.carry(from_, "NREM", age), self.carry(from_, "WAKE", age))

    def delta_gain(self, need: ArrayLike) -> NDArray[np.float64]:
        """Factor (n,) on the amplitude of delta at process S of `need` (n,)."""
        return np.exp(self.need_delta * (np.asarray(need, dtype=np.float64) - _NEED))


def _odds(share: float, log_ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    """A share (n,) whose odds are multiplied by exp(log_ratio (n,))."""
    return share * np.exp(log_ratio) / (1.0 - share + share * np.exp(log_ratio))


# Where a bout of each stage leads in the NREM and in the REM part of a cycle; N2 leads to N3 with a chance that falls over the night.
_NEXT = {
    "NREM": {"W": {"N1": 0.93, "N2": 0.07}, "N1": {"N2": 0.82, "W": 0.18}, "N2": {"N3": 0.72, "N1": 0.20, "W": 0.08}, "N3": {"N2": 0.92, "N1": 0.04, "W": 0.04},
             "R": {"N1": 0.55, "N2": 0.20, "W": 0.25}},
    "REM": {"W": {"N1": 0.85, "R": 0.15}, "N1": {"R": 0.60, "N2": 0.25, "W": 0.15}, "N2": {"R": 0.68, "N1": 0.22, "W": 0.10},
            "N3": {"N2": 0.92, "N1": 0.04, "W": 0.04}, "R": {"N1": 0.66, "N2": 0.16, "W": 0.18}},
}  # fmt: skip


@dataclass(frozen=True)
class HumanSleep:
    """A night of an adult: a semi-Markov walk through W N1 N2 N3 R inside cycles of about 90 minutes, N3 early, REM late.

    Shares, bout lengths and transitions follow 12 nights of healthy adults of Sleep-EDF (lights out to lights on, Rechtschaffen and
    Kales turned into AASM) and published norms [1]_; the documentation shows them side by side.

    Parameters
    ----------
    cycle : float, s
        Length of a cycle; shorter in recordings that would not hold one.
    latency : float, s
        Waking before sleep.
    time_in_bed : float, h
        From lights out, at 0, to lights on; then waking until the next night, 24 h after the last. Adults spend 7 to 9 h in bed; an assumption.
    deepest : float
        Scales the chance of N2→N3: 1 young, 0.5 old.
    wake_long : float
        Share of awakenings that last minutes.
    night_sd : float
        SD between nights of the log length of the bouts of each stage. Set to the spread of stage shares over the scored nights.
    arousal_rate : float, 1/s
        Arousals of N2 and R; half as many again in N1, a third in N3. 11 an hour at 18 to 30 years, 22 at 61 to 70 [2]_; how they spread over
        the stages is an assumption.
    arousal_median : float, s
        Log-normal median of their length, between the 3 s that make an arousal and the 15 s that make an epoch awake (AASM manual [3]_).

    References
    ----------
    .. [1] Ohayon MM et al. (2004). Meta-analysis of quantitative sleep parameters from childhood to old age. Sleep 27:1255.
    .. [2] Bonnet MH, Arand DL (2007). EEG arousal norms by age. J Clin Sleep Med 3:271.
    .. [3] Iber C et al. (2007). The AASM manual for the scoring of sleep and associated events. American Academy of Sleep Medicine.
    """

    cycle: float = 5400.0
    latency: float = 900.0
    time_in_bed: float = 9.0
    deepest: float = 1.0
    wake_long: float = 0.12
    night_sd: float = 0.25
    arousal_rate: float = 11 / 3600
    arousal_median: float = 7.0

    def __post_init__(self) -> None:
        check_model(self, positive=("cycle", "arousal_median", "time_in_bed"), shares=("wake_long",))
        number("time_in_bed", self.time_in_bed, most=_HUMAN_DAY / 3600)

    def length(self, stage: str, deep: float, rng: np.random.Generator) -> float:
        """One bout, s; the medians in minutes are those of the scored nights. Deep sleep flickers at its edges and then holds."""
        median, spread = {"W": (0.8, 0.6), "N1": (0.95, 0.8), "N2": (2.4, 1.2), "N3": (0.6, 0.7), "R": (3.9, 1.05)}[stage]
        if stage == "W" and rng.random() < self.wake_long:
            median, spread = 8.0, 0.8
        if stage == "N3" and rng.random() < min(0.06 + 0.2 * deep, 0.5):
            median, spread = 9.0 + 4.0 * deep, 0.6
        return 60.0 * median * float(np.exp(spread * np.clip(rng.standard_normal(), -2.5, 2.0)))


def bout_table(stages: list[str], start: list[float], stop: float) -> pd.DataFrame:
    """Bouts as stage, start, stop (s); neighbours of equal stage are united and empty ones dropped."""
    names, begin = [], []
    ends = [*start[1:], stop]
    for s, a, b in zip(stages, start, ends):
        if b <= a or (names and names[-1] == s):
            continue
        names.append(s)
        begin.append(a)
    return pd.DataFrame({"stage": names, "start": begin, "stop": [*begin[1:], stop]})


def score(bouts: pd.DataFrame, epoch: float, stage_set: str, start: float, stop: float) -> Hypnogram:
    """What a perfect scorer writes: the stage that fills most of each whole epoch in [start, stop)."""
    names = STAGE_SETS[stage_set]
    n = int(np.floor((stop - start) / epoch + 1e-9))
    edges = start + np.arange(n + 1) * epoch
    a, b = bouts["start"].to_numpy(dtype=float), bouts["stop"].to_numpy(dtype=float)
    knots = np.r_[a, b[-1:]] if len(a) else np.array([start, stop])
    share = np.empty((n, len(names)))
    for i, s in enumerate(names):
        spent = np.r_[0.0, np.cumsum((b - a) * (bouts["stage"] == s).to_numpy())]
        share[:, i] = np.diff(np.interp(edges, knots, spent))
    return Hypnogram(share.argmax(1).astype(np.int8), stage_set, epoch, start, scorer="majority of the true bouts")


def human_bouts(model: HumanSleep, duration: float, rng: np.random.Generator) -> pd.DataFrame:
    """Bouts of W N1 N2 N3 R covering [0, duration) s: a night from lights out at 0, and where there is time, the day and the nights that follow."""
    stages, starts = [], []
    for lights_out in np.arange(0.0, duration, _HUMAN_DAY).tolist():
        lights_on = min(lights_out + 3600.0 * model.time_in_bed, duration)
        _night(model, lights_out, lights_on, rng, stages, starts)
        stages.append("W")
        starts.append(lights_on)
    return bout_table(stages, starts, duration)


def _night(model: HumanSleep, lights_out: float, lights_on: float, rng: np.random.Generator, stages: list[str], starts: list[float]) -> None:
    """Add the bouts of one night to `stages` and `starts`."""
    duration = lights_on - lights_out
    cycle = min(model.cycle, 0.8 * duration)
    pace = cycle / model.cycle
    onset = min(model.latency, 0.12 * duration) * float(np.exp(0.3 * rng.standard_normal()))
    own = dict(zip(STAGE_SETS["aasm5"], np.exp(model.night_sd * np.clip(rng.spawn(1)[0].standard_normal(5), -2.0, 2.0)).tolist()))
    stages.append("W")
    starts.append(lights_out)
    stage, t = "N1", onset
    while t < duration:
        night = min((t - onset) / 27000.0, 1.0) if pace == 1.0 else 0.4
        phase = (t - onset) / cycle % 1.0
        deep = model.deepest * max(0.0, 1.0 - 1.15 * night) * (0.35 + 1.3 * np.sin(np.pi * min(phase / 0.75, 1.0)))
        stages.append(stage)
        starts.append(lights_out + t)
        t += model.length(stage, float(deep), rng) * pace * own[stage]
        chance = dict(_NEXT["REM" if phase > 0.84 - 0.26 * night else "NREM"][stage])
        if "N3" in chance:
            chance["N3"] *= min(float(deep) * 1.2 + 0.12, 1.3)
        p = np.array(list(chance.values()))
        stage = str(rng.choice(list(chance), p=p / p.sum()))


# Rate of arousals in each stage over that in N2.
_AROUSED = {"W": 0.0, "N1": 1.5, "N2": 1.0, "N3": 1 / 3, "R": 1.0}


def human_arousals(model: HumanSleep, bouts: pd.DataFrame, rng: np.random.Generator) -> EventTable:
    """Arousals of 3 to 15 s inside the bouts, each after 10 s or more of sleep; they change no stage."""
    start, stop, stage = [], [], []
    for s, a, b in zip(bouts["stage"], bouts["start"], bouts["stop"]):
        t = np.sort(rng.uniform(a, b, rng.poisson(model.arousal_rate * _AROUSED[s] * (b - a))))
        length = np.clip(model.arousal_median * np.exp(0.45 * rng.standard_normal(len(t))), 3.0, 15.0)
        slept = a
        for x, d in zip(t.tolist(), length.tolist()):
            if x >= slept + 10.0 and x + d < b:
                start.append(x)
                stop.append(x + d)
                stage.append(s)
                slept = x + d
    return EventTable(start, stop, kind="arousal", stage=np.array(stage, dtype=object))
