"""Figures by topic; each function takes brainmu's types or labelled arrays and returns a matplotlib Figure."""

from __future__ import annotations

import importlib
from typing import Any

_HOME = {
    "overview_figure": "overview",
    "hypnogram_figure": "sleep", "sleep_structure_figure": "sleep", "staging_figure": "sleep", "disagreement_figure": "disagreement",
    "events_figure": "events", "snippet_figure": "events",
    "fields_figure": "replay", "decoding_figure": "replay", "replay_figure": "replay", "track_figure": "replay",
    "attribution_figure": "explain", "curves_figure": "explain",
    "effect_figure": "effects", "intervention_figure": "effects", "training_figure": "training",
}  # fmt: skip

__all__ = list(_HOME)


def __getattr__(name: str) -> Any:
    # matplotlib loads when a figure is drawn, not when the room is named.
    if name in _HOME:
        return getattr(importlib.import_module(f"brainmu.report.figures.{_HOME[name]}"), name)
    raise AttributeError(f"module 'brainmu.report.figures' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
