"""The causal structure: what reactivation, pressure, experience and stimulation do to sleep, in numbers."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainmu.core.limits import check_model, number
from brainmu.errors import InputError
from brainmu.synth.experience import Experience, experience

__all__ = ["ARMS", "VALENCES", "Mechanism", "check_content", "valence"]

ARMS = ("stim", "activation", "inhibition", "cue")
"""What a trial may deliver; "stim" and "activation" are one thing under two names. The control arm is always "sham"."""

VALENCES = {"negative": 1.0, "neutral": 0.0, "positive": -1.0}
"""Sign with which contents push the pressure; contents of one's own push like negative ones."""


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
    dose_saturation : float
        Dose: n reactivations of a content that act together count as (1 - exp(-dose_saturation n)) / (1 - exp(-dose_saturation)); one counts as one
        whatever the dose_saturation. 0 is log-linear, the default; an assumption either way.
    reactivation_rate : mapping of content to float, 1/s
        Rate in NREM at average pressure. Ripples come at about 0.3-0.5/s, and 10-30 % of them carry significant replay [2]_.
    wake_reactivation : float
        Rate in resting wake relative to NREM; none in REM.
    confounding : float
        Coefficient of the latent pressure on both log rate of reactivation and log hazard of waking. 0 switches it off.
    rem_confounding : float
        Coefficient of the latent pressure on the log hazard of NREM→REM; none by default.
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
    experience : str or Experience
        The day before: "control", "stress", "novelty" (see :data:`~brainmu.synth.experience.EXPERIENCES`) or one's own.
    trials : bool
        Run the randomised stimulation.
    trial_log_hazard_ratio : mapping of content to float
        Effect of a delivered activation on the log hazard of NREM→WAKE for `trial_duration`.
    trial_rem_log_hazard_ratio : mapping of content to float
        The same on NREM→REM; none by default.
    trial_content : tuple of str
        Contents stimulated, drawn with equal chance; with `trial_gate="detection"` the contents that the detector looks for.
    trial_probability : float
        Chance of assignment to stimulation.
    trial_failure : float
        Chance that an assigned stimulation is not delivered, at average pressure.
    trial_failure_slope : float
        Change of the log odds of that failure per SD of the latent pressure (an interlock that holds back when the animal is aroused).
    trial_gate : {"time", "detection"}
        Gates come by the clock (`trial_min_age`, `trial_spacing`, `trial_jitter`), or when a reactivation is detected, closed-loop [3]_; the first
        two then still hold.
    detector_sensitivity : float
        Share of the reactivations of `trial_content` that are detected; an assumption.
    detector_false_alarms : float, 1/s
        Detections without a reactivation in NREM; an assumption.
    detector_latency : float, s
        From the start of the reactivation to the gate; an assumption. Below 0.08 every reactivation is met while it runs.
    trial_arms : tuple of {"stim", "activation", "inhibition", "cue"}
        What trials deliver, drawn with equal chance at each gate, before the assignment. "stim" and "activation" act on the hazard directly.
        "inhibition" cuts short the reactivations of the content that run, ends their effect, and lets none start for `inhibition_duration`.
        "cue" plays a sound that was paired with the content: only its reactivations can carry an effect (targeted memory reactivation [4]_).
    inhibition_duration : float, s
        An assumption; a disruption outlasts the replay.
    cue_gain : float
        Factor on the content's rate of reactivation in the `cue_window` after a delivered cue; an assumption.
    cue_window : float, s
        An assumption.
    trial_min_age, trial_spacing, trial_jitter : float, s
        The gate: NREM that has lasted this long, this long after the previous gate, plus an exponential wait.
    trial_duration : float, s
    trial_block : int
        Trials a block of the ledger.
    trial_scheme : {"bernoulli", "blocked"}
        Independent assignment, or exactly `trial_probability` of each block.
    trial_artefact : float, uV
        Amplitude of the stimulation artefact on the LFP; 0 for none, the default.

    References
    ----------
    .. [1] Memory reactivation underlies experience-dependent adaptive regulation of sleep (2026). Science.
    .. [2] Tirole M et al. (2022). Experience-driven rate modulation is reinstated during hippocampal replay. eLife 11:e79031.
    .. [3] Girardeau G et al. (2009). Selective suppression of hippocampal ripples impairs spatial memory. Nat Neurosci 12:1222.
    .. [4] Bendor D, Wilson MA (2012). Biasing the content of hippocampal replay during sleep. Nat Neurosci 15:1439.
    """

    log_hazard_ratio: Mapping[str, float] = field(default_factory=lambda: {"negative": 0.7, "positive": -0.5})
    rem_log_hazard_ratio: Mapping[str, float] = field(default_factory=dict)
    effect_duration: float = 10.0
    dose_saturation: float = 0.0
    reactivation_rate: Mapping[str, float] = field(default_factory=lambda: {"negative": 0.04, "positive": 0.04})
    wake_reactivation: float = 0.2
    confounding: float = 0.0
    rem_confounding: float = 0.0
    feedback: float = 0.0
    pressure_tau: float = 300.0
    feedback_tau: float = 60.0
    reliability: float = 1.0
    animal_sd: float = 0.3
    effect_sd: float = 0.0
    experience: str | Experience = "control"
    trials: bool = True
    trial_log_hazard_ratio: Mapping[str, float] = field(default_factory=lambda: {"negative": 0.9})
    trial_rem_log_hazard_ratio: Mapping[str, float] = field(default_factory=dict)
    trial_content: tuple[str, ...] = ("negative",)
    trial_probability: float = 0.5
    trial_failure: float = 0.05
    trial_failure_slope: float = 0.0
    trial_gate: str = "time"
    detector_sensitivity: float = 0.7
    detector_false_alarms: float = 0.005
    detector_latency: float = 0.04
    trial_arms: tuple[str, ...] = ("stim",)
    inhibition_duration: float = 0.3
    cue_gain: float = 5.0
    cue_window: float = 4.0
    trial_min_age: float = 12.0
    trial_spacing: float = 25.0
    trial_jitter: float = 10.0
    trial_duration: float = 10.0
    trial_block: int = 8
    trial_scheme: str = "bernoulli"
    trial_artefact: float = 0.0

    def __post_init__(self) -> None:
        positive = ("effect_duration", "pressure_tau", "feedback_tau", "trial_duration", "trial_block", "reliability", "inhibition_duration", "cue_window")
        shares = ("reliability", "trial_probability", "trial_failure", "detector_sensitivity")
        check_model(self, positive=positive, shares=shares, signed=("confounding", "rem_confounding", "feedback", "trial_failure_slope"))
        for name in ("confounding", "rem_confounding"):
            if abs(getattr(self, name)) > 2:
                raise InputError(
                    f"{name} is {getattr(self, name):g}, expected at most 2: rates would differ by e to the {8 * abs(getattr(self, name)):g} between moments"
                )
        for name in ("reactivation_rate", "log_hazard_ratio", "rem_log_hazard_ratio", "trial_log_hazard_ratio", "trial_rem_log_hazard_ratio"):
            if not isinstance(getattr(self, name), Mapping):
                raise InputError(f"{name} is {getattr(self, name)!r}, expected a mapping of content to number, such as {{'negative': 0.7}}")
        for name in ("log_hazard_ratio", "rem_log_hazard_ratio", "trial_log_hazard_ratio", "trial_rem_log_hazard_ratio"):
            for content, value in getattr(self, name).items():
                number(f"{name}[{content}]", value, -5.0, most=5.0)
        if not isinstance(self.trials, bool):
            raise InputError(f"trials is {self.trials!r}, expected True or False")
        rates = dict(self.reactivation_rate)
        for content in rates:
            check_content(content)
        if any(not (np.isfinite(r) and r >= 0) for r in rates.values()):
            raise InputError(f"reactivation_rate is {rates}, expected a rate of zero or more (1/s) for each content")
        self._check_trials()
        self._check_contents()

    def _check_trials(self) -> None:
        for name, known in (("trial_scheme", ("bernoulli", "blocked")), ("trial_gate", ("time", "detection"))):
            if getattr(self, name) not in known:
                raise InputError(f"{name} is {getattr(self, name)!r}, expected {' or '.join(map(repr, known))}")
        if not self.trials:
            return
        for name, what in (("trial_content", "content to stimulate"), ("trial_arms", f"of {', '.join(ARMS)}")):
            given = getattr(self, name)
            if isinstance(given, str) or not given or len(set(given)) != len(given):
                raise InputError(f"{name} is {given!r}, expected a tuple of at least one {what} (or trials=False)")
        stray = [a for a in self.trial_arms if a not in ARMS]
        if stray:
            raise InputError(f"trial_arms names {stray[0]!r}, expected of {', '.join(ARMS)} (the control is always 'sham')")
        k = self.trial_probability * self.trial_block
        if self.trial_scheme == "blocked" and (abs(k - round(k)) > 1e-9 or not 0 < round(k) < self.trial_block):
            raise InputError(
                f"trial_probability is {self.trial_probability:g} of a trial_block of {self.trial_block}, which is {k:g} trials, expected a whole number "
                "between 1 and one less than the block: the logged probability would be false"
            )
        unknown = sorted(set(self.trial_content) - set(self.reactivation_rate))
        if unknown and self.interactive:
            raise InputError(f"trial_content names {unknown[0]!r}, which is never reactivated, and gates or arms need its reactivations")
        if "cue" in self.trial_arms and self.trial_spacing < self.cue_window:
            raise InputError(f"trial_spacing is {self.trial_spacing:g} s, expected at least the cue_window of {self.cue_window:g} s: cues would overlap")

    def _check_contents(self) -> None:
        for name in ("log_hazard_ratio", "rem_log_hazard_ratio"):
            stray = set(getattr(self, name)) - set(self.reactivation_rate)
            if stray:
                known = ", ".join(sorted(self.reactivation_rate)) or "none"
                raise InputError(f"{name} names {sorted(stray)[0]!r}, which is never reactivated: contents are {known}")
        # Contents of opposite valence push against each other; only their balance can run away.
        spread = sum(r * valence(c) for c, r in self.rates.items()) * self.feedback * self.confounding * self.feedback_tau
        if spread >= 0.95:
            raise InputError(
                f"each reactivation brings about {spread:.2f} more through the pressure (rate x feedback x confounding x feedback_tau), expected below 0.95: "
                "the process would explode"
            )

    @property
    def contents(self) -> tuple[str, ...]:
        return tuple(self.reactivation_rate)

    @property
    def day(self) -> Experience:
        """The experience of the day before."""
        return experience(self.experience)

    @property
    def rates(self) -> dict[str, float]:
        """Rate of reactivation of each content after that day, 1/s."""
        shift = self.day.log_reactivation_rate
        return {c: r * float(np.exp(shift[c])) if c in shift else r for c, r in self.reactivation_rate.items()}

    @property
    def interactive(self) -> bool:
        """Whether trials and reactivations act on each other, so that they must be drawn together, one after the other."""
        return self.trials and (self.trial_gate == "detection" or bool({"inhibition", "cue"} & set(self.trial_arms)))

    def dose(self, count: ArrayLike) -> NDArray[np.float64]:
        """What `count` (n,) reactivations of one content that act together amount to, in units of one."""
        n = np.asarray(count, dtype=np.float64)
        return n if self.dose_saturation == 0 else np.expm1(-self.dose_saturation * n) / np.expm1(-self.dose_saturation)

    def failure(self, pressure: ArrayLike) -> NDArray[np.float64]:
        """Chance (n,) that a stimulation fails at `pressure` (n,), SD."""
        if self.trial_failure_slope == 0 or self.trial_failure in (0.0, 1.0):
            return np.full(np.shape(pressure), self.trial_failure)
        odds = np.log(self.trial_failure / (1 - self.trial_failure)) + self.trial_failure_slope * np.asarray(pressure, dtype=np.float64)
        return 1.0 / (1.0 + np.exp(-odds))


def check_content(content: str) -> None:
    """Refuse what is nearly, but not quite, the name of a content that has a valence: a slip would make a content of its own."""
    near = difflib.get_close_matches(str(content), VALENCES, n=1, cutoff=0.75)
    if content not in VALENCES and near:
        raise InputError(f"the content {content!r} is nearly {near[0]!r}: write that, or give one's own a name less like it")


def valence(content: str) -> float:
    """Sign with which a content pushes the pressure: -1 for positive, 0 for neutral, 1 for anything else."""
    return VALENCES.get(content, 1.0)
