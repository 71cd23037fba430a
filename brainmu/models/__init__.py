"""The encoder and its heads: tokens, attention, window encoder, context encoder, stage model, checkpoints."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "Encoder": "brainmu.models.encoder", "EncoderConfig": "brainmu.models.encoder",
    "StageModel": "brainmu.models.stage_model", "Door": "brainmu.models.door",
    "load_encoder": "brainmu.models.checkpoint", "LoadReport": "brainmu.models.checkpoint",
}  # fmt: skip

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'brainmu.models' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
