"""Recordings whose answers are known: sleep, signals, spikes, replay and causal effects, each with its truth."""

from brainmu.synth.effects import Mechanism
from brainmu.synth.sleep import HumanSleep, RodentSleep
from brainmu.synth.study import StudyTruth, study
from brainmu.synth.truth import PlaceFields, TrueEffect, Truth

__all__ = ["HumanSleep", "Mechanism", "PlaceFields", "RodentSleep", "StudyTruth", "TrueEffect", "Truth", "study"]
