"""Recordings whose answers are known: sleep, signals, spikes, replay and causal effects, each with its truth."""

from brainmu.synth.corpus import corpus, iter_corpus
from brainmu.synth.effects import Mechanism
from brainmu.synth.human import EEGModel
from brainmu.synth.instruments import FaultModel
from brainmu.synth.reactivation import RippleModel
from brainmu.synth.recording import PRESETS, recording
from brainmu.synth.signals import LFPModel
from brainmu.synth.sleep import HumanSleep, RodentSleep
from brainmu.synth.spikes import CellModel
from brainmu.synth.study import StudyTruth, study
from brainmu.synth.truth import PlaceFields, TrueEffect, Truth

__all__ = [
    "PRESETS",
    "CellModel",
    "EEGModel",
    "FaultModel",
    "HumanSleep",
    "LFPModel",
    "Mechanism",
    "PlaceFields",
    "RippleModel",
    "RodentSleep",
    "StudyTruth",
    "TrueEffect",
    "Truth",
    "corpus",
    "iter_corpus",
    "recording",
    "study",
]
