"""Studies without signals: hypnograms, reactivations, pressure and randomised trials of many animals, fast enough for thousands of studies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from brainmu.config import suggest
from brainmu.core import EventTable, Recording, Signal
from brainmu.core.limits import number, whole
from brainmu.errors import InputError
from brainmu.synth.effects import Life, Mechanism, live
from brainmu.synth.experience import Experience, assign_groups
from brainmu.synth.experience import experience as named
from brainmu.synth.interventions import planted_effects, simulate_interventions
from brainmu.synth.scorer import ScorerModel, scorings
from brainmu.synth.sleep import DRIVE_FROM, RodentSleep, score
from brainmu.synth.truth import TrueEffect

__all__ = ["StudyTruth", "study"]


@dataclass
class StudyTruth:
    """What was planted in a study.

    Attributes
    ----------
    mechanism : Mechanism
    sleep : RodentSleep
    animals : list of dict
        Each animal's random effects.
    lives : list of Life
        Exact bouts, reactivations and latent pressure of each animal.
    parameters : dict
    groups : list of str
        The day before each animal's rest.
    """

    mechanism: Mechanism
    sleep: RodentSleep
    animals: list[dict[str, Any]]
    lives: list[Life] = field(repr=False)
    parameters: dict[str, Any]
    groups: list[str] = field(default_factory=list)
    experiences: tuple[Experience, ...] = ()

    @property
    def log_hazard_ratio(self) -> dict[str, float]:
        return dict(self.mechanism.log_hazard_ratio)

    @property
    def planted(self) -> dict[str, TrueEffect]:
        """The coefficients of the generator."""
        return planted_effects(self.mechanism, self.experiences)

    @cached_property
    def effects(self) -> dict[str, TrueEffect]:
        """The coefficients, and what each estimand comes to when the interventions are simulated (a few seconds on first use)."""
        known = {"epoch": self.parameters["epoch"], "seed": self.parameters["seed"]}
        return self.planted | simulate_interventions(self.mechanism, self.sleep, experiences=self.experiences, **known)

    def effects_after(self, day: str) -> dict[str, TrueEffect]:
        """What each estimand comes to in the animals of one group (:attr:`effects` are those of the first).

        Raises
        ------
        InputError
            If no animal lived through that day.
        """
        own = {d.name: d for d in self.experiences}
        if day not in own:
            raise InputError(f"no animal had the day {day!r}{suggest(day, own)}; the groups are {', '.join(own)}")
        m = dataclasses.replace(self.mechanism, experience=own[day])
        return planted_effects(m) | simulate_interventions(m, self.sleep, epoch=self.parameters["epoch"], seed=self.parameters["seed"])


def study(
    n_animals: int = 10, *, hours: float = 2.0, seed: int = 0, epoch: float = 4.0, log_hazard_ratio: Mapping[str, float] | None = None,
    confounding: float = 0.0, feedback: float = 0.0, animal_sd: float = 0.3, trials: bool = True, sleep: RodentSleep | None = None,
    experience: str | Experience | Sequence[str | Experience] = "control", recall: float = 1.0, precision: float = 1.0, scorer: ScorerModel | None = None,
    **mechanism: Any,
) -> tuple[list[Recording], StudyTruth]:  # fmt: skip
    """A study of `n_animals`, each a Recording with labels "scoring", "reactivation", "trials" and a 1-Hz signal "pressure".

    Parameters
    ----------
    n_animals : int
    hours : float, h
        Length of each animal's rest.
    seed : int
        Same seed, same study.
    epoch : float, s
        Length of the scored epochs (majority of the true bouts).
    log_hazard_ratio, confounding, feedback, animal_sd, trials
        See :class:`~brainmu.synth.Mechanism`.
    sleep : RodentSleep, optional
        Bout lengths and baseline hazards; by default with the circadian and homeostatic drive from 12 h on.
    experience : str, Experience or sequence of them
        The day before: "control", "stress", "novelty" or one's own. Of several, each animal is given one at random, in groups as equal as can be;
        `effects` is the truth of the first, `effects_after` of any, and `experience_…` compares the others with the first. The group stands in
        ``subject_meta["group"]``.
    recall, precision : float
        What the label "reactivation" holds: this share of the reactivations, each found by the same chance, and as many false ones, at any time in
        NREM, that this share of them all is true. 1 and 1: the reactivations themselves, which ``StudyTruth.lives`` always holds.
    scorer : ScorerModel, optional
        Who scores; by default one who makes no error. Labels "scoring", "scoring2", ….
    **mechanism
        Any other field of :class:`~brainmu.synth.Mechanism` (`effect_duration`, `reactivation_rate`, `reliability`, …).

    Returns
    -------
    list of Recording, StudyTruth

    Raises
    ------
    InputError
        If a number is out of range or a parameter is not known.

    Examples
    --------
    >>> recordings, truth = study(n_animals=2, hours=0.5, seed=1)
    >>> recordings[0].subject, truth.log_hazard_ratio
    ('mouse01', {'negative': 0.7, 'positive': -0.5})
    """
    whole("n_animals", n_animals, 1)
    whole("seed", seed)
    number("hours", hours, 1 / 60)
    number("epoch", epoch, above=True)
    days = tuple(named(x) for x in (experience if isinstance(experience, (list, tuple)) else (experience,)))
    if not days or len({d.name for d in days}) != len(days):
        raise InputError(f"experience is {experience!r}, expected a condition or several different ones")
    known = {f.name for f in dataclasses.fields(Mechanism)} - {"experience"}
    stray = sorted(set(mechanism) - known)
    if stray:
        raise InputError(f"study has no parameter {stray[0]!r}: the mechanism has {', '.join(sorted(known))}")
    number("recall", recall, above=True, most=1.0)
    number("precision", precision, above=True, most=1.0)
    if scorer is not None and not isinstance(scorer, ScorerModel):
        raise InputError(f"scorer is {scorer!r}, expected a ScorerModel")
    if sleep is not None and not isinstance(sleep, RodentSleep):
        raise InputError(f"sleep is {sleep!r}, expected a RodentSleep")
    if log_hazard_ratio is not None and not isinstance(log_hazard_ratio, Mapping):
        raise InputError(f"log_hazard_ratio is {log_hazard_ratio!r}, expected a mapping of content to number, such as {{'negative': 0.7}}")
    fields: dict[str, Any] = dict(mechanism) | dict(confounding=confounding, feedback=feedback, animal_sd=animal_sd, trials=trials, experience=days[0])
    if log_hazard_ratio is not None:
        fields["log_hazard_ratio"] = dict(log_hazard_ratio)
        fields.setdefault("reactivation_rate", dict.fromkeys([*log_hazard_ratio, "negative", "positive"], 0.04))
    m, s = Mechanism(**fields), sleep or RodentSleep(drive=hours >= DRIVE_FROM)
    own = {d.name: dataclasses.replace(m, experience=d) for d in days}
    groups = [d.name for d in assign_groups(days, n_animals, np.random.default_rng(np.random.SeedSequence([seed, 81])))]
    children = np.random.SeedSequence(seed).spawn(n_animals)
    lives = [live(own[g], s, 0.0, hours * 3600.0, np.random.default_rng(child)) for g, child in zip(groups, children)]
    observed = scorer or ScorerModel()
    recordings = [_recording(life, i, g, hours * 3600.0, epoch, recall, precision, observed, seed) for i, (life, g) in enumerate(zip(lives, groups))]
    parameters = {
        "n_animals": n_animals, "hours": hours, "seed": seed, "epoch": epoch, "recall": recall, "precision": precision,
        "scorer": dataclasses.asdict(observed), **dataclasses.asdict(m), "sleep": dataclasses.asdict(s),
    }  # fmt: skip
    return recordings, StudyTruth(m, s, [x.animal for x in lives], lives, parameters, groups, days)


def _recording(
    life: Life, index: int, group: str, stop: float, epoch: float, recall: float, precision: float, scorer: ScorerModel, seed: int
) -> Recording:  # fmt: skip
    name = f"mouse{index + 1:02d}"
    n = int(stop)
    pressure = Signal(life.measured[:n, None], rate=1.0, unit="SD", kind="other", channels=["pressure"], attrs={"description": "latent pressure as measured"})
    found, flaws = (np.random.default_rng(np.random.SeedSequence([seed, k, index])) for k in (82, 83))
    return Recording(
        id=f"{name}_study", subject=name, species="mouse", signals={"pressure": pressure}, source={"format": "synthetic", "files": []},
        subject_meta={"group": group},
        labels={
            **scorings(scorer, score(life.bouts, epoch, "rodent3", 0.0, stop), life.bouts, flaws, (seed, 84, index)),
            "reactivation": _detected(life, stop, recall, precision, found), "trials": life.trials,
        },
    )  # fmt: skip


def _detected(life: Life, stop: float, recall: float, precision: float, rng: np.random.Generator) -> EventTable:
    """The reactivations that a detector finds, and its false ones."""
    events = life.reactivation
    if recall == precision == 1.0 or not len(events):
        return events
    kept = events[rng.random(len(events)) < recall]
    nrem = life.bouts[(life.bouts["stage"] == "NREM") & (life.bouts["start"] < stop)]
    begin = nrem["start"].to_numpy()
    length = np.minimum(nrem["stop"].to_numpy(), stop) - begin
    slept = np.cumsum(length)
    n = rng.poisson(len(kept) * (1 / precision - 1)) if len(kept) and length.sum() else 0
    # False ones look like those that were found: their content and duration are of one drawn at random.
    like = kept[rng.integers(len(kept), size=n)] if n else kept[:0]
    place = rng.random(n) * length.sum()
    at = np.searchsorted(slept, place, side="right")
    start = begin[at] + place - (slept - length)[at]
    false = EventTable(start, start + like.duration, content=like.content, kind=like.kind)
    both = EventTable.concat([EventTable(kept.start, kept.stop, kept.peak, content=kept.content, kind=kept.kind), false])
    return both.sorted()
