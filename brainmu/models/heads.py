"""Heads of pretraining: hidden tokens from latents, the gist of a window from its summary, and hidden window summaries from context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from brainmu.models.attention import Block
from brainmu.models.tokens import Hidden, SideBySide, at_once, by_modality, n_tokens, token_times
from brainmu.models.window_encoder import WindowEncoder
from brainmu.windows.batch import MODALITIES, Batch, Stream
from brainmu.windows.grid import SLOW_BINS
from brainmu.windows.interpolation import interpolate
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

    Slow traces are continuous, so their answer starts from the line between the neighbours that are seen, as far as it can be
    trusted, which is learned; latents add what that line misses.

    ``states`` of the spike stream, (window, bin, width), are the tap with the time resolution of the spike bins (50 ms).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.query = nn.ModuleDict({m: nn.Linear(IDENTITY_SIZE[m], width) for m in ("field", "slow")})
        self.modality = nn.ParameterDict({m: nn.Parameter(0.02 * torch.randn(width)) for m in MODALITIES})
        self.read = Block(width, heads, cross=True, near=True)
        self.norm = nn.LayerNorm(width)
        self.field = nn.Linear(width, N_FEATURES)
        self.slow = nn.Linear(width, 2 * SLOW_BINS)
        self.member = nn.ModuleDict({m: nn.Linear(IDENTITY_SIZE[m], width) for m in ("features", "spikes")})

    def forward(self, batch: Batch, latents: Tensor, encoder: WindowEncoder, hidden: Sequence[Hidden]) -> list[Reconstructed]:
        streams, length = batch.streams, batch.length
        side = SideBySide([s.rows for s in streams], [n_tokens(s) for s in streams], len(batch))
        asked = [q.expand(len(s.rows), -1, -1) for s, q in zip(streams, self._queries(streams))]
        when = side.put_times([token_times(s, length) for s in streams])
        apart = (when[:, :, None] - encoder.times(length)[:, None, :]).abs().float()
        states = self.norm(self.read(side.put(asked, 0.0), encoder.rotary(when), latents, encoder.angles(length), apart=apart))
        return self._answers(streams, side.take(states), hidden)

    def _queries(self, streams: list[Stream]) -> list[Tensor]:
        """What each token of a stream is asked for by, (token, width)."""
        out = [self.modality[s.modality].expand(n_tokens(s), -1) for s in streams]
        for m, those in by_modality(streams).items():
            if m in self.query:
                for i, who in zip(those, at_once(self.query[m], [streams[i].identity for i in those])):
                    out[i] = out[i] + who.repeat_interleave(streams[i].valid.shape[-1], 0)
        return out

    def _answers(self, streams: list[Stream], states: list[Tensor], hidden: Sequence[Hidden]) -> list[Reconstructed]:
        out = {}
        for m, those in by_modality(streams).items():
            if m in ("field", "slow"):
                for i, made in zip(those, at_once(getattr(self, m), [states[i] for i in those])):
                    out[i] = made.unflatten(1, streams[i].valid.shape[1:])
                    if m == "slow":
                        s, (more, trust) = streams[i], out[i].chunk(2, -1)
                        out[i] = interpolate(s.values, ~hidden[i].tokens & s.valid) * torch.sigmoid(trust + 2) + more
                continue
            for i, members in zip(those, at_once(self.member[m], [streams[i].identity for i in those])):
                s, members = streams[i], members / members.shape[-1] ** 0.5
                if m == "features":
                    out[i] = states[i][:, 0] @ members.T
                    continue
                assert s.expected is not None
                out[i] = torch.log(s.expected + 1e-4)[:, None] + torch.einsum("nbd,ud->nub", states[i], members)
        return [Reconstructed(out[i], states[i]) for i in range(len(streams))]


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
        out = {}
        for m, those in by_modality(batch.streams).items():
            streams = [batch.streams[i] for i in those]
            gates = at_once(self.gate[m], [s.identity for s in streams])
            made = at_once(self.out[m], [summary[s.rows][:, None] * (1 + gate) for s, gate in zip(streams, gates)])
            out |= dict(zip(those, made))
        return [out[i] for i in range(len(batch.streams))]


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
