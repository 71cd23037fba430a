"""From recordings to batches: windows on a grid, leak-free splits, samplers that are pure functions of (seed, step)."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "split": "brainmu.windows.splits",
    "Batch": "brainmu.windows.batch", "Stream": "brainmu.windows.batch", "collate": "brainmu.windows.batch",
    "CacheBudget": "brainmu.windows.grid", "WindowGrid": "brainmu.windows.grid",
    "Statistics": "brainmu.windows.statistics", "measure": "brainmu.windows.statistics",
    "Prefetch": "brainmu.windows.sampler", "SpanSampler": "brainmu.windows.sampler", "WindowSampler": "brainmu.windows.sampler",
}  # fmt: skip

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    # Resolved when first used: `split` needs no torch, and should not wait for it.
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'brainmu.windows' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
