"""Low-rank adapters (LoRA): a few weights beside frozen linear layers, folded into them once trained."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from brainmu.errors import ConfigError, InputError
from brainmu.models.attention import Block

__all__ = ["Adapted", "AdapterConfig", "add_adapters", "merge_adapters", "merged"]

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class AdapterConfig:
    """Size of the adapters.

    Attributes
    ----------
    rank : int
        Rank of the change of each weight matrix.
    alpha : float
        The change is scaled by alpha / rank, so that the learning rate need not follow the rank.
    dropout : float
        Chance that an input of an adapter is dropped in training.
    """

    rank: int = 8
    alpha: float = 16.0
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"adapters: rank is {self.rank}, expected an integer >= 1")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ConfigError(f"adapters: alpha is {self.alpha}, expected a positive number")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"adapters: dropout is {self.dropout}, expected a chance in [0, 1)")


class Adapted(nn.Module):
    """A frozen linear layer and a trained change of low rank: W x + b + (alpha / rank) B A x.

    B begins at zero, so that the layer begins exactly as it was.

    References
    ----------
    Hu et al. 2021, arXiv 2106.09685 (LoRA).
    """

    def __init__(self, linear: nn.Linear, c: AdapterConfig) -> None:
        super().__init__()
        self.linear = linear.requires_grad_(False)
        self.scale = c.alpha / c.rank
        like = {"dtype": linear.weight.dtype, "device": linear.weight.device}
        self.down = nn.Parameter(torch.empty(c.rank, linear.in_features, **like))
        self.up = nn.Parameter(torch.zeros(linear.out_features, c.rank, **like))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + self.scale * (self.dropout(x) @ self.down.T) @ self.up.T

    @torch.no_grad()
    def plain(self) -> nn.Linear:
        """The linear layer with the change folded in."""
        self.linear.weight += self.scale * self.up @ self.down
        return self.linear.requires_grad_(True)


def add_adapters(module: nn.Module, config: AdapterConfig | None = None) -> list[nn.Parameter]:
    """Freeze `module` and put an adapter beside each linear layer of attention and feed-forward in it.

    Returns
    -------
    list of Parameter
        What is left to train.

    Raises
    ------
    InputError
        If the module has adapters already, or no attention.
    """
    c = config or AdapterConfig()
    if any(True for _ in _adapted(module)):
        raise InputError("adapters: the model has some already, merge those first")
    module.requires_grad_(False)
    blocks = [m for m in module.modules() if isinstance(m, Block)]
    if not blocks:
        raise InputError(f"adapters: {type(module).__name__} has no attention blocks to adapt")
    for block in blocks:
        for parent in (block.attention, block.mlp):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(parent, name, Adapted(child, c))
    return [p for p in module.parameters() if p.requires_grad]


def merge_adapters(module: M) -> M:
    """Fold every adapter of `module` into its linear layer, in place: the same function at the speed and in the weights of a model without any."""
    for parent, name, adapted in list(_adapted(module)):
        setattr(parent, name, adapted.plain())
    return module


def merged(module: M) -> M:
    """`module` itself where it has no adapters, else a copy with them folded in."""
    return merge_adapters(copy.deepcopy(module)) if any(True for _ in _adapted(module)) else module


def _adapted(module: nn.Module) -> Iterator[tuple[nn.Module, str, Adapted]]:
    for parent in module.modules():
        for name, child in parent.named_children():
            if isinstance(child, Adapted):
                yield parent, name, child
