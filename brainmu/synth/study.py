"""Studies without signals: hypnograms, reactivations, pressure and randomised trials of many animals, fast enough for thousands of studies."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from brainmu.core import Recording, Signal
from brainmu.errors import InputError
from brainmu.synth.effects import Life, Mechanism, live
from brainmu.synth.interventions import planted_effects, simulate_interventions
from brainmu.synth.limits import number, whole
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
    """

    mechanism: Mechanism
    sleep: RodentSleep
    animals: list[dict[str, Any]]
    lives: list[Life] = field(repr=False)
    parameters: dict[str, Any]

    @property
    def log_hazard_ratio(self) -> dict[str, float]:
        return dict(self.mechanism.log_hazard_ratio)

    @property
    def planted(self) -> dict[str, TrueEffect]:
        """The coefficients of the generator."""
        return planted_effects(self.mechanism)

    @cached_property
    def effects(self) -> dict[str, TrueEffect]:
        """The coefficients, and what each estimand comes to when the interventions are simulated (a few seconds on first use)."""
        return self.planted | simulate_interventions(self.mechanism, self.sleep, epoch=self.parameters["epoch"], seed=self.parameters["seed"])


def study(
    n_animals: int = 10, *, hours: float = 2.0, seed: int = 0, epoch: float = 4.0, log_hazard_ratio: Mapping[str, float] | None = None,
    confounding: float = 0.0, feedback: float = 0.0, animal_sd: float = 0.3, trials: bool = True, sleep: RodentSleep | None = None, **mechanism: Any,
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
    known = {f.name for f in dataclasses.fields(Mechanism)}
    stray = sorted(set(mechanism) - known)
    if stray:
        raise InputError(f"study has no parameter {stray[0]!r}: the mechanism has {', '.join(sorted(known))}")
    fields: dict[str, Any] = dict(mechanism) | dict(confounding=confounding, feedback=feedback, animal_sd=animal_sd, trials=trials)
    if log_hazard_ratio is not None:
        fields["log_hazard_ratio"] = dict(log_hazard_ratio)
        fields.setdefault("reactivation_rate", dict.fromkeys([*log_hazard_ratio, "negative", "positive"], 0.04))
    m, s = Mechanism(**fields), sleep or RodentSleep(drive=hours >= DRIVE_FROM)
    lives = [live(m, s, 0.0, hours * 3600.0, np.random.default_rng(child)) for child in np.random.SeedSequence(seed).spawn(n_animals)]
    recordings = [_recording(life, i, hours * 3600.0, epoch) for i, life in enumerate(lives)]
    parameters = {"n_animals": n_animals, "hours": hours, "seed": seed, "epoch": epoch, **dataclasses.asdict(m), "sleep": dataclasses.asdict(s)}
    return recordings, StudyTruth(m, s, [x.animal for x in lives], lives, parameters)


def _recording(life: Life, index: int, stop: float, epoch: float) -> Recording:
    name = f"mouse{index + 1:02d}"
    n = int(stop)
    pressure = Signal(life.measured[:n, None], rate=1.0, unit="SD", kind="other", channels=["pressure"], attrs={"description": "latent pressure as measured"})
    return Recording(
        id=f"{name}_study", subject=name, species="mouse", signals={"pressure": pressure}, source={"format": "synthetic", "files": []},
        labels={"scoring": score(life.bouts, epoch, "rodent3", 0.0, stop), "reactivation": life.reactivation, "trials": life.trials},
    )  # fmt: skip
