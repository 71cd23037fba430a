"""Attention with rotary time: scores depend on the seconds between query and key, whatever the sampling."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["Attention", "Block", "Rotary"]

Angles = tuple[Tensor, Tensor]
STEEPEST, SHALLOWEST = 8.0, 0.125
"""Slopes of the first and the last head where nearness counts, 1/s: from one patch to the whole of a window."""
ROWS = 1024
"""Tokens that pass the wide layers of a block at once where nothing is kept for a backward pass: they stay in the processor's cache."""


class Rotary(nn.Module):
    """Cosines and sines of time at log-spaced periods from `shortest` to `longest` seconds (RoFormer, Su et al. 2021, in seconds)."""

    def __init__(self, size: int, shortest: float, longest: float) -> None:
        super().__init__()
        periods = torch.logspace(math.log10(shortest), math.log10(longest), size // 2, dtype=torch.float64)
        self.register_buffer("frequency", 2 * math.pi / periods, persistent=False)

    def forward(self, time: Tensor) -> Angles:
        """Cosine and sine (…, token, size/2), float32, of times (…, token), s; the phase is formed in float64."""
        phase = time.double()[..., None] * self.frequency.double()
        return phase.cos().float(), phase.sin().float()


def rotate(x: Tensor, angles: Angles) -> Tensor:
    """Rotate pairs of x (batch, head, token, size) by angles (batch or 1, token, size/2)."""
    cos, sin = (a[:, None] for a in angles)
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1).to(x.dtype)


def rows(x: Tensor, places: Tensor) -> Tensor:
    """Rows (batch, place, size) of x (batch or 1, token, size) at places (batch, place)."""
    return x.expand(len(places), -1, -1).gather(1, places[..., None].expand(-1, -1, x.shape[-1]))


class Attention(nn.Module):
    """Multi-head attention of `x` (batch, query, width) on `source` (batch, key, width).

    With `near`, scores also fall with the seconds between query and key (ALiBi, Press et al. 2022, arXiv 2108.12409), by a
    slope of each head that is learned, and values pass through unchanged at the outset: a query begins as a mean of what
    lies near it in time, instead of having to find that out.
    """

    def __init__(self, width: int, heads: int, near: bool = False) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.out = nn.Linear(width, width)
        self.slope = nn.Parameter(torch.logspace(math.log10(STEEPEST), math.log10(SHALLOWEST), heads)) if near else None
        if near:
            with torch.no_grad():
                self.key_value.weight[width:] = torch.eye(width)
                nn.init.eye_(self.out.weight)

    def forward(
        self, x: Tensor, source: Tensor, at: Angles, source_at: Angles, mask: Tensor | None = None, causal: bool = False, apart: Tensor | None = None
    ) -> Tensor:
        """`mask` is added to the scores, or False where a key is not read; `apart` (batch or 1, query, key), s: time from keys to queries."""
        q = rotate(self._split(self.query(x)), at)
        k, v = self.key_value(source).chunk(2, dim=-1)
        k, v = rotate(self._split(k), source_at), self._split(v)
        if self.slope is not None and apart is not None:
            near = -self.slope[:, None, None].abs() * apart[:, None]
            mask = near if mask is None else mask + near
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal)
        return self.out(y.transpose(1, 2).flatten(2))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class Block(nn.Module):
    """Pre-norm attention, then a two-layer network; over itself, or over a source, with a norm of its own where `cross`."""

    def __init__(self, width: int, heads: int, dropout: float = 0.0, cross: bool = False, near: bool = False) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.source_norm = nn.LayerNorm(width) if cross else None
        self.attention = Attention(width, heads, near)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Tensor, at: Angles, source: Tensor | None = None, source_at: Angles | None = None, mask: Tensor | None = None, causal: bool = False,
        apart: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """`source` (batch, key, width) is what `x` reads, itself where None; `source_at` its angles."""
        y = self.norm(x)
        if source is None or source_at is None:
            read, source_at = y, at
        else:
            read = (self.norm if self.source_norm is None else self.source_norm)(source)
        y = self.attention(y, read, at, source_at, mask, causal, apart)
        x = x + self.dropout(y)
        return x + self.dropout(_by_rows(self.mlp, x))


def _by_rows(layers: nn.Module, x: Tensor) -> Tensor:
    """Layers that look at each row of x (batch, token, width) alone; part by part where nothing is kept for a backward pass."""
    if torch.is_grad_enabled() or x.shape[1] <= ROWS:
        return layers(x)
    return torch.cat([layers(part) for part in x.split(ROWS, dim=1)], dim=1)
