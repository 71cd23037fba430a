"""The learned detector of events: what it reads, its head, its edges and its confidence."""

from brainmu.replay.detection.detector import ReplayDetector

__all__ = ["ReplayDetector"]
