"""brainmu: from raw recordings of the brain to a tested causal claim.

Names are resolved when first used, so that ``import brainmu`` stays quick.
"""

from __future__ import annotations

import importlib
from typing import Any

from brainmu._version import __version__

_PUBLIC = {
    # data
    "Recording": "brainmu.core", "Session": "brainmu.store", "Signal": "brainmu.core", "Spikes": "brainmu.core", "Intervals": "brainmu.core",
    "Hypnogram": "brainmu.core", "EventTable": "brainmu.core", "Effect": "brainmu.core", "Window": "brainmu.core",
    # verbs
    "read": "brainmu.formats", "preprocess": "brainmu.store", "open": "brainmu.store", "split": "brainmu.windows",
    "pretrain": "brainmu.train", "finetune": "brainmu.train", "load": "brainmu.loading",
    "find_events": "brainmu.replay", "find_replay": "brainmu.replay", "attribute": "brainmu.explain", "intervene": "brainmu.explain",
    "estimate_effect": "brainmu.causal", "write_report": "brainmu.report",
    # estimators
    "SleepStager": "brainmu.sleep", "ReplayDetector": "brainmu.replay",
    # errors
    "BrainmuError": "brainmu.errors",
}  # fmt: skip
_ROOMS = ("causal", "config", "core", "dsp", "errors", "explain", "formats", "models", "replay", "report", "sleep", "store", "synth", "train", "windows")

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    if name in _ROOMS:
        return importlib.import_module(f"brainmu.{name}")
    raise AttributeError(f"module 'brainmu' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])
