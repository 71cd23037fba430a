"""What a model used, and what happens inside it when an event is taken away."""

from __future__ import annotations

import importlib
from typing import Any

from brainmu.explain.attribution import attribute
from brainmu.explain.intervention import intervene

_LATER = {
    "ablate": "brainmu.explain.ablation", "patch": "brainmu.explain.ablation", "tap_names": "brainmu.explain.taps",
    "agreement": "brainmu.explain.checks", "attribute_events": "brainmu.explain.event_maps", "recovery": "brainmu.explain.checks",
    "probe_taps": "brainmu.explain.touring", "restoration": "brainmu.explain.touring",
}  # fmt: skip

__all__ = ["ablate", "agreement", "attribute", "attribute_events", "intervene", "patch", "probe_taps", "recovery", "restoration", "tap_names"]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        value = getattr(importlib.import_module(_LATER[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'brainmu.explain' has no attribute {name!r}")
