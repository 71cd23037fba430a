"""Ripples, bursts and high-synchrony events, decoding of place, head direction and labels, replay with its significance, and assemblies.

Every detector states its baseline and the rate it would find in noise of the same spectrum; every replay event carries its
content, its two shuffles, a recalibrated p-value and the decoding error of the decoder that read it.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "find_events": "events", "find_replay": "sequences", "posterior": "sequences",
    "Context": "contexts", "fit_contexts": "contexts", "PlaceFields": "fields", "place_fields": "fields",
    "cross_validated_error": "decode", "decode": "decode", "units_and_position": "decode",
    "StateSpace": "statespace", "classify_dynamics": "statespace",
    "Position": "position", "position_of": "position", "run_and_rest": "position", "Track": "track", "fit_track": "track",
    "Assemblies": "assemblies", "fit_assemblies": "assemblies", "find_activations": "activations",
    "HeadDirection": "heading", "HeadTuning": "heading", "head_direction_of": "heading", "head_tuning": "heading", "decode_angle": "heading",
    "angle_posterior": "heading", "cross_validated_angular_error": "heading",
    "LabelRates": "categories", "cross_validated_label": "categories", "decode_label": "categories", "label_rates": "categories",
    "ReplayDetector": "detection.detector",
    "ExplainedVariance": "reactivation", "explained_variance": "reactivation", "template_strength": "reactivation",
}  # fmt: skip

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(f"brainmu.replay.{_PUBLIC[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'brainmu.replay' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
