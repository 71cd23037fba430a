"""The window encoder: a few latents, spread over the window's time, read whatever tokens are present (Perceiver; POYO)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from brainmu.models.attention import Angles, Block, Rotary
from brainmu.models.tokens import Hidden, Tokenizer
from brainmu.windows.batch import Batch

__all__ = ["WindowEncoder"]


class WindowEncoder(nn.Module):
    """Latents and a summary of each window.

    A missing modality, another probe or a new animal changes the number of tokens and nothing else.

    References
    ----------
    Jaegle et al. 2021, arXiv 2103.03206 (Perceiver); Azabou et al. 2023, arXiv 2310.16046 (POYO).
    """

    def __init__(self, width: int, heads: int, latents: int, layers: int, dropout: float = 0.0, spike_tokens: bool = False) -> None:
        super().__init__()
        self.tokens = Tokenizer(width, spike_tokens)
        self.rotary = Rotary(width // heads, shortest=0.05, longest=120.0)
        self.latents = nn.Parameter(0.02 * torch.randn(latents, width))
        # Always present: a window without any data still has something to read, and a latent with nothing near it need not
        # take what is far for near. `idle` is its score, that of everything there being 0.
        self.nothing = nn.Parameter(0.02 * torch.randn(width))
        self.idle = nn.Parameter(torch.full((1,), -2.0))
        self.read = Block(width, heads, dropout, cross=True, near=True)
        self.blocks = nn.ModuleList([Block(width, heads, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)

    def forward(self, batch: Batch, hidden: Sequence[Hidden] | None = None) -> tuple[Tensor, Tensor]:
        """Latents (window, latent, width), and which windows hold any data (window,)."""
        tokens = self.tokens(batch, hidden)
        n = len(batch)
        present = tokens.valid.any(1)
        source = torch.cat([self.nothing.expand(n, 1, -1), tokens.values], dim=1)
        time = torch.cat([torch.zeros_like(tokens.time[:, :1]), tokens.time], dim=1)
        bias = torch.cat([self.idle.expand(n, 1), tokens.bias], dim=1)
        # Windows of one recording share their token times: one row of angles serves all.
        shared = time[:1] if bool((time == time[:1]).all()) else time
        apart = (self.times(batch.length)[:, :, None] - shared[:, None, :]).abs().float()
        apart[:, :, 0] = 0.0
        at = self.angles(batch.length)
        x = self.read(self.latents.expand(n, -1, -1), at, source, self.rotary(shared), bias[:, None, None, :], apart=apart)
        for block in self.blocks:
            x = block(x, at)
        return self.norm(x), present

    def angles(self, length: float) -> Angles:
        """Rotary angles of the latents."""
        return self.rotary(self.times(length))

    def times(self, length: float) -> Tensor:
        """Times of the latents, which lie evenly over the window: float64 (1, latent), s."""
        n = len(self.latents)
        return (torch.arange(n, device=self.latents.device, dtype=torch.float64) + 0.5)[None] * (length / n)
