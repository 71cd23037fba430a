"""Hidden steps filled in from those that are seen."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["interpolate"]


def interpolate(values: Tensor, seen: Tensor, kind: str = "interpolation") -> Tensor:
    """Values (…, step, feature) filled in from the steps that are `seen` (…, step): linearly, or by the last one; zero where there are none."""
    steps = seen.shape[-1]
    index = torch.arange(steps, device=values.device).expand(seen.shape)
    before = torch.where(seen, index, -1).cummax(-1).values
    after = torch.where(seen, index, steps).flip(-1).cummin(-1).values.flip(-1)
    has_before, has_after = (before >= 0)[..., None], (after < steps)[..., None]
    left = values.gather(-2, before.clamp(min=0)[..., None].expand_as(values)) * has_before
    if kind == "last":
        return left
    right = values.gather(-2, after.clamp(max=steps - 1)[..., None].expand_as(values)) * has_after
    share = ((index - before).float() / (after - before).clamp(min=1))[..., None]
    both = left * (1 - share) + right * share
    return torch.where(has_before & has_after, both, left + right)
