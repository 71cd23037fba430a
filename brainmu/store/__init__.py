"""Recordings as aligned, checksummed zarr stores: written once, whole or not at all, read by window."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brainmu.store.alignment import align
    from brainmu.store.batch import preprocess_many
    from brainmu.store.clock_fit import fit_clock
    from brainmu.store.clocks import ClockMap
    from brainmu.store.config import PreprocessConfig
    from brainmu.store.places import is_url
    from brainmu.store.planning import format_plan, plan
    from brainmu.store.session import Session, open
    from brainmu.store.verification import verify
    from brainmu.store.writer import preprocess

__all__ = ["ClockMap", "PreprocessConfig", "Session", "align", "fit_clock", "format_plan", "is_url", "open", "plan", "preprocess", "preprocess_many", "verify"]

_HOME = {
    "ClockMap": "clocks", "PreprocessConfig": "config", "Session": "session",
    "align": "alignment", "fit_clock": "clock_fit", "format_plan": "planning", "is_url": "places", "open": "session", "plan": "planning",
    "preprocess": "writer", "preprocess_many": "batch", "verify": "verification",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"brainmu.store.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'brainmu.store' has no attribute {name!r}")
