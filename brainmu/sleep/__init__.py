"""Sleep: stage it, find its events, describe its structure, and say how far two scorings agree."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "SleepStager": "stager", "stage_by_rules": "rules", "RuleSettings": "rules",
    "find_spindles": "events", "find_slow_waves": "slow_waves",
    "statistics": "structure", "transitions": "structure", "bout_table": "structure",
    "stage_spectra": "spectral", "slow_wave_activity": "spectral", "event_coupling": "spectral",
    "cycles": "structure", "micro_arousals": "structure", "bout_survival": "structure", "fragmentation": "structure",
    "swa_decline": "homeostasis", "calibration": "reliability", "abstention": "reliability", "between_scorers": "scorers", "shuffled_control": "agreement",
    "disagreements": "agreement",
    "event_phases": "coupling", "phase_coupling": "coupling", "nesting": "coupling",
    "infraslow_sigma": "infraslow", "InfraslowSigma": "infraslow",
    "evaluate": "agreement", "evaluate_many": "agreement",
    "probe": "probing", "ProbeResult": "comparison",
    "read_hypnogram": "files", "write_hypnogram": "files",
}  # fmt: skip

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    # scikit-learn and scipy load when a name is used, not when the room is named.
    if name in _PUBLIC:
        return getattr(importlib.import_module(f"brainmu.sleep.{_PUBLIC[name]}"), name)
    raise AttributeError(f"module 'brainmu.sleep' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
