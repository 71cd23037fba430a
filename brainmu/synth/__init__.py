"""Recordings whose answers are known: sleep, signals, spikes, replay and causal effects, each with its truth."""

from brainmu.synth.assemblies import AssemblyModel
from brainmu.synth.calcium import INDICATORS, CalciumModel, CalciumTruth, Indicator, PhotometryModel, PhotometryTruth, calcium, photometry
from brainmu.synth.clocks import ClockModel, TrueClock, on_clocks
from brainmu.synth.corpus import Corpus, corpus, iter_corpus, open_corpus
from brainmu.synth.decoys import DecoyModel
from brainmu.synth.experience import EXPERIENCES, Experience
from brainmu.synth.human import EEGModel
from brainmu.synth.instruments import FaultModel, with_noise
from brainmu.synth.labs import LABS, Lab
from brainmu.synth.mechanism import Mechanism
from brainmu.synth.mediated import MediatedTruth, mediated_study
from brainmu.synth.native import write
from brainmu.synth.populations import PopulationModel
from brainmu.synth.reactivation import RippleModel
from brainmu.synth.recording import PRESETS, recording
from brainmu.synth.scorer import ScorerModel
from brainmu.synth.signals import LFPModel
from brainmu.synth.sleep import HumanSleep, RodentSleep
from brainmu.synth.spikes import CellModel
from brainmu.synth.study import StudyTruth, study
from brainmu.synth.truth import HeadTuning, PlaceFields, TrueEffect, Truth

__all__ = [
    "EXPERIENCES",
    "INDICATORS",
    "LABS",
    "PRESETS",
    "AssemblyModel",
    "CalciumModel",
    "CalciumTruth",
    "CellModel",
    "ClockModel",
    "Corpus",
    "DecoyModel",
    "EEGModel",
    "Experience",
    "FaultModel",
    "HeadTuning",
    "HumanSleep",
    "Indicator",
    "LFPModel",
    "Lab",
    "Mechanism",
    "MediatedTruth",
    "PhotometryModel",
    "PhotometryTruth",
    "PlaceFields",
    "PopulationModel",
    "RippleModel",
    "RodentSleep",
    "ScorerModel",
    "StudyTruth",
    "TrueClock",
    "TrueEffect",
    "Truth",
    "calcium",
    "corpus",
    "iter_corpus",
    "mediated_study",
    "on_clocks",
    "open_corpus",
    "photometry",
    "recording",
    "study",
    "with_noise",
    "write",
]
