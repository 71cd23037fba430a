"""Heads of pretraining: hidden tokens from latents, the gist of a window from its summary, and hidden window summaries from context."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from brainmu.models.attention import Block
from brainmu.models.tokens import token_times
from brainmu.models.window_encoder import WindowEncoder
from brainmu.windows.batch import MODALITIES, Batch, Stream
from brainmu.windows.grid import SLOW_BINS
from brainmu.windows.spectra import N_BANDS, N_FEATURES
from brainmu.windows.statistics import IDENTITY_SIZE

__all__ = ["Gist", "Reconstruction", "SummaryPrediction"]


GIST_SIZE = {"field": N_BANDS, "slow": 2, "features": 1, "spikes": 1}
"""Values that sum up a channel or unit over a window: band powers; mean and log variance; the value; the count."""


@dataclass
class Reconstructed:
    """What the head makes of one stream: features in the shape of its values, or log expected counts for spikes (n, unit, bin)."""

    values: Tensor
    states: Tensor


class Reconstruction(nn.Module):
    """Every token of a stream from the latents of its window, asked for by identity and time.

    ``states`` of the spike stream, (window, bin, width), are the tap with the time resolution of the spike bins (50 ms).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query = nn.ModuleDict({m: nn.Linear(IDENTITY_SIZE[m], width) for m in ("field", "slow")})
        self.modality = nn.ParameterDict({m: nn.Parameter(0.02 * torch.randn(width)) for m in MODALITIES})
        self.read = Block(width, heads, cross=True, near=True)
        self.norm = nn.LayerNorm(width)
        self.field = nn.Linear(width, N_FEATURES)
        self.slow = nn.Linear(width, SLOW_BINS)
        self.member = nn.ModuleDict({m: nn.Linear(IDENTITY_SIZE[m], width) for m in ("features", "spikes")})

    def forward(self, batch: Batch, latents: Tensor, encoder: WindowEncoder) -> list[Reconstructed]:
        at = encoder.angles(batch.length)
        return [self._stream(s, latents[s.rows], batch.length, encoder, at) for s in batch.streams]

    def _stream(self, s: Stream, latents: Tensor, length: float, encoder: WindowEncoder, at: tuple[Tensor, Tensor]) -> Reconstructed:
        n, steps = len(s.rows), s.valid.shape[-1]
        if s.modality in ("field", "slow"):
            query = (self.query[s.modality](s.identity)[:, None] + self.modality[s.modality]).expand(-1, steps, -1).flatten(0, 1)
        else:
            query = self.modality[s.modality].expand(1 if s.modality == "features" else steps, -1)
        query = query.expand(n, -1, -1)
        when = token_times(s, length)[None]
        apart = (when[:, :, None] - encoder.times(length)[:, None, :]).abs().float()
        states = self.norm(self.read(query, encoder.rotary(when), latents, at, apart=apart))
        if s.modality in ("field", "slow"):
            return Reconstructed(getattr(self, s.modality)(states).unflatten(1, s.valid.shape[1:]), states)
        members = self.member[s.modality](s.identity) / states.shape[-1] ** 0.5
        if s.modality == "features":
            return Reconstructed(states[:, 0] @ members.T, states)
        assert s.expected is not None
        log_rate = torch.log(s.expected + 1e-4)[:, None] + torch.einsum("nbd,ud->nub", states, members)
        return Reconstructed(log_rate, states)


class Gist(nn.Module):
    """What a window was like on the whole, channel by channel, from its summary: linear in the summary, so that linear read-outs find it there.

    A stream's answer is (n, channel or unit, value); ``train.objectives.gist`` says what the values are.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        # Which parts of the summary speak of a channel depends on what is known of the channel.
        self.gate = nn.ModuleDict({m: nn.Linear(IDENTITY_SIZE[m], width) for m in MODALITIES})
        self.out = nn.ModuleDict({m: nn.Linear(width, GIST_SIZE[m]) for m in MODALITIES})

    def forward(self, batch: Batch, summary: Tensor) -> list[Tensor]:
        return [self.out[s.modality](summary[s.rows][:, None] * (1 + self.gate[s.modality](s.identity))) for s in batch.streams]


class SummaryPrediction(nn.Module):
    """Standardised window summaries from context. The scale is that of the training corpus, kept with the weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, width)
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("sd", torch.ones(width))

    def forward(self, context: Tensor) -> Tensor:
        return self.out(context)

    def standardise(self, summaries: Tensor) -> Tensor:
        return (summaries - self.mean) / self.sd
