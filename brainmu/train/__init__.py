"""Training: masked pretraining of the encoder, and fine-tuning of heads on it."""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "FinetuneConfig": "brainmu.train.finetuning", "finetune": "brainmu.train.finetuning",
    "OutcomeHeads": "brainmu.train.outcome", "outcome_heads": "brainmu.train.outcome",
    "PretrainConfig": "brainmu.train.pretraining", "Run": "brainmu.train.pretraining", "pretrain": "brainmu.train.pretraining",
    "reconstruction_scores": "brainmu.train.reconstruction", "reconstruction_table": "brainmu.train.reconstruction",
}  # fmt: skip

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        value = getattr(importlib.import_module(_PUBLIC[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'brainmu.train' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
