"""What the science talks about: time, signals, spikes, recordings, hypnograms, events, effects.

This room imports numpy and pandas only and is imported by every other room.
"""

from brainmu.core.effect import Effect
from brainmu.core.events import EventTable
from brainmu.core.hypnogram import STAGE_SETS, Hypnogram, stage_group
from brainmu.core.intervals import Intervals
from brainmu.core.recording import Recording
from brainmu.core.signal import Signal
from brainmu.core.spikes import Spikes
from brainmu.core.window import Window

__all__ = [
    "STAGE_SETS",
    "Effect",
    "EventTable",
    "Hypnogram",
    "Intervals",
    "Recording",
    "Signal",
    "Spikes",
    "Window",
    "stage_group",
]
