"""The optimiser and its schedule: AdamW without decay on vectors, linear warm-up, cosine to nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

__all__ = ["optimiser", "warm_cosine"]


def optimiser(parts: Iterable[tuple[nn.Module, float]], weight_decay: float) -> torch.optim.AdamW:
    """AdamW over modules with a learning rate each; frozen parameters are left out, vectors (norms, biases) do not decay."""
    groups = []
    for module, rate in parts:
        free = [p for p in module.parameters() if p.requires_grad]
        groups.append({"params": [p for p in free if p.ndim > 1], "lr": rate, "weight_decay": weight_decay})
        groups.append({"params": [p for p in free if p.ndim <= 1], "lr": rate, "weight_decay": 0.0})
    return torch.optim.AdamW([g for g in groups if g["params"]], betas=(0.9, 0.98))


def warm_cosine(optimiser: torch.optim.Optimizer, steps: int, warm: int) -> torch.optim.lr_scheduler.LambdaLR:
    """Learning rate rises over `warm` steps and falls as a cosine to zero at `steps`."""

    def factor(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

    return torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
