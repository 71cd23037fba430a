"""The truth of each estimand, by doing the interventions: the same moments of the same animals, run forward once treated and once not.

Both arms share every random number, so the difference is the effect and little else. Animals count equally; standard errors are those of
the Monte Carlo, over animals.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from brainmu.errors import InputError
from brainmu.synth.effects import STEP, Life, live
from brainmu.synth.experience import Experience, experience
from brainmu.synth.forward import NREM, REM, WAKE, Course, Moments, Plan, all_contents, forward
from brainmu.synth.mechanism import Mechanism
from brainmu.synth.sleep import RodentSleep
from brainmu.synth.truth import TrueEffect

__all__ = ["FAMILIES", "planted_effects", "simulate_interventions"]

FAMILIES = ("trials", "hazard", "dose", "msm", "experience")
"""What :func:`simulate_interventions` can be asked for."""

LAGS = (0, 1, 2, 3, 4)
WINDOW = 3
"""Epochs of the longer horizon."""
DOSES = (2, 3)
_HERD = 100
_SCALES = {"risk_difference": "risk difference", "risk_ratio": "risk ratio", "log_odds_ratio": "log odds ratio"}


def planted_effects(m: Mechanism, experiences: Sequence[str | Experience] = ()) -> dict[str, TrueEffect]:
    """The coefficients of the generator, and of the days it knows, as :class:`TrueEffect` by name."""
    out = {}
    stimulated = "a delivered {} stimulation"
    activates = m.trials and bool({"stim", "activation"} & set(m.trial_arms))
    for name, ratios, exit_, what, lasts in (
        ("log_hazard_ratio", m.log_hazard_ratio, "NREM→WAKE", "one more {} reactivation", m.effect_duration),
        ("rem_log_hazard_ratio", m.rem_log_hazard_ratio, "NREM→REM", "one more {} reactivation", m.effect_duration),
        ("trial_log_hazard_ratio", m.trial_log_hazard_ratio if activates else {}, "NREM→WAKE", stimulated, m.trial_duration),
        ("trial_rem_log_hazard_ratio", m.trial_rem_log_hazard_ratio if activates else {}, "NREM→REM", stimulated, m.trial_duration),
    ):
        for content, value in ratios.items():
            saturating = " where none acted before" if m.dose_saturation and "reactivation" in what else ""
            sentence = f"Log ratio of the hazard of {exit_} while {what.format(content)} acts ({lasts:g} s){saturating}, everything else equal."
            out[f"{name}[{content}]"] = TrueEffect(float(value), sentence, "log hazard ratio")
    for day in {d.name: d for d in (m.day, *map(experience, experiences))}.values():
        shifts = {"wake_hazard": ("hazard of NREM→WAKE", day.log_wake_hazard), "rem_hazard": ("hazard of NREM→REM", day.log_rem_hazard)}
        rates = {f"reactivation_rate[{day.name}, {c}]": (f"rate of {c} reactivations", day.log_reactivation_rate.get(c, 0.0)) for c in m.contents}
        for name, (what, value) in ({f"{k}[{day.name}]": v for k, v in shifts.items()} | rates).items() if day != Experience(day.name) else ():
            out[f"experience_log_{name}"] = TrueEffect(value, f"Shift of the log {what} after {day.name}, everything else equal.", "log ratio")
    return out


def simulate_interventions(
    m: Mechanism, sleep: RodentSleep, epoch: float = 4.0, copies: int = 10_000, seed: int = 0, families: Iterable[str] | None = None,
    experiences: Sequence[str | Experience] = (),
) -> dict[str, TrueEffect]:  # fmt: skip
    """True value of each estimand under `m` from `copies` simulated interventions, as :class:`TrueEffect` by name.

    Parameters
    ----------
    m, sleep
        The generator.
    epoch : float, s
        Epoch of the scored outcomes.
    copies : int
        Interventions an estimand, in a herd of one animal a hundred; the Monte Carlo error comes with each value.
    seed : int
    families : of {"trials", "hazard", "dose", "msm", "experience"}, optional
        Only these; all where left out.
    experiences : sequence of str or Experience
        Conditions to compare with the one of `m`.
    """
    wanted = FAMILIES if families is None else tuple(families)
    stray = [f for f in wanted if f not in FAMILIES]
    if stray:
        raise InputError(f"families holds {stray[0]!r}, expected of {', '.join(FAMILIES)}")
    world = _World(m, sleep, epoch, copies, seed)
    out: dict[str, TrueEffect] = {}
    if "trials" in wanted and m.trials:
        out |= dict(_trials(world))
    for content in m.contents:
        if {"hazard", "dose", "msm"} & set(wanted):
            out |= dict(_reactivations(world, content, wanted))
    if "experience" in wanted:
        out |= dict(_experiences(world, experiences, seed))
    return out


class _World:
    """A herd to draw moments from, and the way to run them on."""

    def __init__(self, m: Mechanism, sleep: RodentSleep, epoch: float, copies: int, seed: int) -> None:
        self.m, self.sleep, self.epoch, self.copies, self.seed = m, sleep, epoch, copies, seed
        self.rng = np.random.default_rng(np.random.SeedSequence([seed, 77]))
        # Where the clock acts, moments of the whole day stand for the estimand.
        self.hours = sleep.day if sleep.drive else 1.5
        size = int(np.clip(copies // 100, 4, _HERD // 4 if sleep.drive else _HERD))
        self.herd = [live(m, sleep, 0.0, 3600.0 * self.hours, child) for child in self.rng.spawn(size)]

    def run(self, x: Moments, plan: Plan, seconds: float) -> Course:
        return forward(self.m, self.sleep, self.herd, x, plan, seconds, self.epoch, (self.seed, 5))

    def gates(self, arm: str) -> Moments:
        """Moments at which trials were gated, of those that were planned to deliver `arm`."""
        names = all_contents(self.m)
        rows = []
        for i, life in enumerate(self.herd):
            t = life.trials
            mine = np.asarray(t.planned) == arm if len(self.m.trial_arms) > 1 else np.ones(len(t), dtype=bool)
            rows.append(_rows(life, t.start[mine], i, self.epoch, [names.index(c) for c in t.content[mine]]))
        return self._draw(rows)

    def epochs(self) -> Moments:
        """Beginnings of the epochs that begin in NREM, or of the NREM that begins in their first half."""
        rows = []
        for i, life in enumerate(self.herd):
            t = np.arange(0.0, life.bouts["stop"].iloc[-1], self.epoch)
            start, asleep = life.bouts["start"].to_numpy(), (life.bouts["stage"] == "NREM").to_numpy()
            late = start[asleep & (start % self.epoch < self.epoch / 2)]
            k = np.searchsorted(start, t, side="right") - 1
            at = np.sort(np.r_[t[asleep[k]], late])
            rows.append(_rows(life, at, i, self.epoch, [0] * len(at)))
        return self._draw(rows)

    def _draw(self, rows: list[NDArray[np.float64]]) -> Moments:
        """As many copies from each animal."""
        rows = [r for r in rows if len(r)]
        if not rows:
            return Moments(*np.empty((4, 0)), *np.empty((2, 0), dtype=np.intp))
        size = -(-self.copies // len(rows))
        table = np.concatenate([r[self.rng.integers(len(r), size=size)] for r in rows])
        return Moments(*table[:, :4].T, *table[:, 4:].T.astype(np.intp))


def _rows(life: Life, t: NDArray[np.float64], animal: int, epoch: float, content: Sequence[int]) -> NDArray[np.float64]:
    """Moments (n, 6): time, begin of the bout, edge of the epoch, NREM since the last REM when the bout began, animal, content."""
    start, stop = life.bouts["start"].to_numpy(), life.bouts["stop"].to_numpy()
    nrem, rem = (life.bouts["stage"] == "NREM").to_numpy(), (life.bouts["stage"] == "REM").to_numpy()
    total = np.r_[0.0, np.cumsum((stop - start) * nrem)][:-1]
    slept = total - np.maximum.accumulate(np.where(rem, total, 0.0))
    k = np.searchsorted(start, t, side="right") - 1
    return np.c_[t, start[k], np.floor(t / epoch + 1e-9) * epoch, slept[k], np.full(len(t), animal), np.asarray(content, dtype=float)]


# -- reading effects off two runs ----------------------------------------------------------------------------------
@dataclasses.dataclass
class _Arm:
    """Outcome and who counts (n,) of one run."""

    y: NDArray[np.bool_]
    counts: NDArray[np.bool_]

    def risk(self) -> tuple[float, NDArray[np.float64]]:
        """The risk, and the influence of each copy on it."""
        p = float((self.y & self.counts).sum() / max(self.counts.sum(), 1))
        return p, self.counts * (self.y - p) / max(self.counts.mean(), 1e-12)


def _effect(scale: str, treated: _Arm, control: _Arm, animal: NDArray[np.intp]) -> tuple[float, float]:
    """Value and standard error over animals."""
    (a, da), (b, db) = treated.risk(), control.risk()
    n, tiny = len(animal), 1e-9
    if scale == "risk_difference":
        value, influence = a - b, da - db
    elif scale == "risk_ratio":
        value = (a + tiny) / (b + tiny)
        influence = value * (da / (a + tiny) - db / (b + tiny))
    else:
        value = float(np.log((a + tiny) / (1 - a + tiny)) - np.log((b + tiny) / (1 - b + tiny)))
        influence = da / (a * (1 - a) + tiny) - db / (b * (1 - b) + tiny)
    return float(value), float(np.sqrt((np.bincount(animal, influence) ** 2).sum()) / n)


def _contrasts(prefix: str, label: str, sentence: str, treated: _Arm, control: _Arm, x: Moments, scales: Iterable[str]) -> Iterator[tuple[str, TrueEffect]]:
    for scale in scales:
        value, error = _effect(scale, treated, control, x.animal)
        yield f"{prefix}_{scale}{label}", TrueEffect(value, f"{_SCALES[scale].capitalize()} of {sentence}", _SCALES[scale], error)


# -- trials --------------------------------------------------------------------------------------------------------
def _trials(w: _World) -> Iterator[tuple[str, TrueEffect]]:
    """Intention to treat: each arm against sham, and all arms together as they are drawn."""
    m = w.m
    horizons = (m.trial_duration, 2 * m.trial_duration)
    seconds = max(horizons) + 2 * w.epoch
    pooled: list[tuple[Moments, Course, Course]] = []
    for arm in m.trial_arms:
        x = w.gates(arm)
        if not len(x):
            return
        pressure = _pressure(w.herd, x) if m.trial_failure_slope else np.zeros(len(x))
        given = np.random.default_rng([w.seed, 6]).random(len(x)) >= m.failure(pressure)
        sham = w.run(x, Plan(), seconds)
        runs = (x, w.run(x, Plan(arm=arm, given=given), seconds), sham)
        pooled.append(runs)
        if len(m.trial_arms) > 1:
            yield from _trial_effects(w, runs, horizons, arm)
    x, a, b = pooled[0]
    if len(pooled) > 1:
        x = Moments(*(np.concatenate([getattr(p[0], f.name) for p in pooled]) for f in dataclasses.fields(Moments)))
        a, b = (Course(*(np.concatenate([getattr(p[i], f.name) for p in pooled], axis=-1) for f in dataclasses.fields(Course))) for i in (1, 2))
    yield from _trial_effects(w, (x, a, b), horizons, "")
    yield from _trial_effects(w, (x, b, b), horizons[:1], "sham")


def _trial_effects(w: _World, runs: tuple[Moments, Course, Course], horizons: Iterable[float], arm: str) -> Iterator[tuple[str, TrueEffect]]:
    x, *courses = runs
    what = {"": "assigned minus not assigned", "sham": "sham minus nothing"}.get(arm, f"{arm} minus sham")
    for horizon in horizons:
        extra = [] if horizon == w.m.trial_duration else [f"horizon={horizon:g}"]
        label = f"[{', '.join(([arm] if arm else []) + extra)}]" if arm or extra else ""
        for prefix, stage, name in (("itt", WAKE, "WAKE"), ("itt_rem", REM, "REM")):
            arms = [_scored(c, x, stage, horizon, w.epoch) for c in courses]
            sentence = f"{name} within {horizon:g} s of the gate, {what}, by the {w.epoch:g}-s epochs (the first epoch out of NREM that starts in the window)."
            yield from _contrasts(prefix, label, sentence, *arms, x, _SCALES)
        arms = [_Arm((c.to == WAKE) & (c.left <= horizon), np.ones(len(x), dtype=bool)) for c in courses]
        value, error = _effect("risk_difference", *arms, x.animal)
        sentence = f"Risk difference of WAKE within {horizon:g} s of the gate, {what}, in continuous time."
        yield f"itt_risk_difference_exact{label}", TrueEffect(value, sentence, "risk difference", error)


def _scored(c: Course, x: Moments, stage: int, horizon: float, epoch: float) -> _Arm:
    """Whether the first epoch that is not NREM, from the gate's own on, is of `stage` and starts within the horizon."""
    edge = np.arange(len(c.stage))[:, None] * epoch - (x.at - x.edge)
    out = (c.stage != NREM) & (edge <= horizon)
    first = out.argmax(0)
    own = out[0]
    reached = out.any(0) & (c.stage[first, np.arange(len(x))] == stage)
    # A gate whose own epoch is scored as waking saw NREM and counts as woken; one whose own epoch is scored as REM was not at risk.
    return _Arm(reached, ~(own & (c.stage[0] == REM)))


def _pressure(herd: list[Life], x: Moments) -> NDArray[np.float64]:
    out = np.empty(len(x))
    for i, life in enumerate(herd):
        c = x.animal == i
        out[c] = np.interp(x.at[c], life.time, life.pressure)
    return out


# -- reactivations -------------------------------------------------------------------------------------------------
def _reactivations(w: _World, content: str, wanted: Iterable[str]) -> Iterator[tuple[str, TrueEffect]]:
    """One content, put in or kept out: by lag and horizon, by dose, and as it comes."""
    m, e = w.m, w.epoch
    x, which = w.epochs(), m.contents.index(content)
    if not len(x):
        return
    inside = np.maximum(np.round((e - (x.at - x.edge)) / STEP).astype(np.intp), 1)
    rng = np.random.default_rng([w.seed, 8])
    moments, first = rng.random((max(DOSES), len(x))), rng.random(len(x))
    for size in (1, WINDOW):
        shut = inside + (size - 1) * round(e / STEP)
        lags = LAGS if size == 1 else (1,)
        seconds, brief = (size + max(lags) + 1) * e, (size + 2) * e
        none = w.run(x, Plan(which, shut), seconds if "hazard" in wanted else brief)
        label = [] if size == 1 else [f"horizon={size * e:g}"]
        put = (moments * shut).astype(np.intp)
        against = f"with one {content} reactivation in {_span(size, e)} against none"
        if "hazard" in wanted:
            one = w.run(x, Plan(which, shut, put[:1]), seconds)
            for lag in lags:
                more = label if lag == 1 else [*label, f"lag={lag}"]
                for prefix, stage in (("epoch", WAKE), ("rem_epoch", REM)):
                    yield from _epoch_effects(prefix, content, more, against, (one, none), x, stage, size, lag, e)
        if "dose" in wanted and size == 1:
            for dose in DOSES:
                run = w.run(x, Plan(which, shut, put[:dose]), brief)
                against = f"with {dose} {content} reactivations in {_span(size, e)} against none"
                yield from _epoch_effects("dose", content, [f"dose={dose}"], against, (run, none), x, WAKE, size, 1, e)
        if "msm" in wanted and m.rates[content]:
            rate = m.rates[content] * STEP * np.exp(m.animal_sd**2 / 2)
            # When the first of a Poisson process comes, given that one comes at all; from then on they come as they do.
            start = np.minimum((-np.log1p(-first * -np.expm1(-rate * shut)) / rate).astype(np.intp), shut - 1)
            run = w.run(x, Plan(which, start, start[None]), brief)
            against = f"with at least one {content} reactivation in {_span(size, e)}, timed as they come, against none"
            yield from _epoch_effects("msm", content, label, against, (run, none), x, WAKE, size, 1, e)


def _span(size: int, epoch: float) -> str:
    return f"epoch k ({epoch:g} s)" if size == 1 else f"the {size} epochs that end with k ({size * epoch:g} s)"


def _epoch_effects(
    prefix: str, content: str, more: list[str], against: str, runs: tuple[Course, Course], x: Moments, stage: int, size: int, lag: int, epoch: float
) -> Iterator[tuple[str, TrueEffect]]:
    out = size + lag
    arms = [_Arm(c.stage[out] == stage, (c.stage[:out] == NREM).all(0)) for c in runs]
    name = "WAKE" if stage == WAKE else "REM"
    given = "NREM in k" if lag == 0 else f"NREM in k to k+{lag}"
    sentence = f"{name} in epoch k+{lag + 1} given {given}, {against} (marginal)."
    yield from _contrasts(prefix, f"[{', '.join([content, *more])}]", sentence, *arms, x, ("log_odds_ratio", "risk_difference"))


# -- experience ----------------------------------------------------------------------------------------------------
def _experiences(w: _World, others: Sequence[str | Experience], seed: int) -> Iterator[tuple[str, TrueEffect]]:
    """Whole sessions lived once after each day, by the same animals with the same random numbers to begin with."""
    base = experience(w.m.experience)
    for other in others:
        name = experience(other).name
        if name == base.name:
            continue
        counts = np.empty((len(w.herd), 2, 2))
        for i, child in enumerate(np.random.SeedSequence([seed, 79]).spawn(len(counts))):
            for j, m in enumerate((w.m, dataclasses.replace(w.m, experience=other))):
                bouts = live(m, w.sleep, 0.0, 3600.0 * w.hours, np.random.default_rng(child)).bouts
                stage, length = bouts["stage"].to_numpy(), (bouts["stop"] - bouts["start"]).to_numpy()
                counts[i, j] = np.sum((stage[:-1] == "NREM") & (stage[1:] == "WAKE")), length[stage == "NREM"].sum()
        total = counts.mean(0)
        influence = (counts[:, 1] / total[1] - counts[:, 0] / total[0]) @ [1.0, -1.0]
        value = np.log(total[1, 0] / total[1, 1]) - np.log(total[0, 0] / total[0, 1])
        sentence = f"Log ratio of the rate of NREM→WAKE per time in NREM after {name} to that after {base.name}, through baseline and reactivation together."
        yield f"experience_log_rate_ratio[{name}]", TrueEffect(float(value), sentence, "log rate ratio", float(influence.std() / np.sqrt(len(counts))))
