"""Streams become tokens: one a patch and channel, one a spike bin, one a sample of features.

A token is what was measured plus who measured it. "Who" is a projection of the identity vector (kind, region, statistics,
signature; see ``windows.statistics``), so a channel or unit never seen before has an embedding before any fine-tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from brainmu.windows.batch import MODALITIES, Batch, Stream
from brainmu.windows.grid import SLOW_BINS
from brainmu.windows.spectra import N_FEATURES
from brainmu.windows.statistics import IDENTITY_SIZE

__all__ = ["Hidden", "Tokenizer", "Tokens"]


@dataclass
class Tokens:
    """Tokens of a batch, padded.

    Attributes
    ----------
    values : float32 (window, token, width)
    valid : bool (window, token)
    bias : float32 (window, token)
        Added to attention scores: minus the log of the number of tokens of the stream, -inf where there is no token. So at
        the outset every stream is heard alike, however many channels, units or bins it has.
    time : float64 (window, token), s from the start of the window
    """

    values: Tensor
    valid: Tensor
    bias: Tensor
    time: Tensor


@dataclass
class Hidden:
    """What of a stream the encoder must not see (pretraining).

    Attributes
    ----------
    tokens : bool, the shape of the stream's `valid`
    units : bool (n, unit) or None
        Spikes: units left out of every bin of a window.
    """

    tokens: Tensor
    units: Tensor | None = None


class Tokenizer(nn.Module):
    """Tokens of every stream of a batch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.identity = nn.ModuleDict({m: nn.Linear(IDENTITY_SIZE[m], width) for m in MODALITIES})
        self.modality = nn.ParameterDict({m: nn.Parameter(0.02 * torch.randn(width)) for m in MODALITIES})
        self.field = Lift(N_FEATURES, width)
        self.slow = Lift(SLOW_BINS, width)
        # Sums of identity embeddings weighted by what was measured: permutation-invariant, any number of members.
        self.member = nn.ModuleDict({m: nn.Linear(IDENTITY_SIZE[m], width) for m in ("features", "spikes")})
        self.features = Lift(width, width)
        self.spikes = Lift(width, width)
        self.norm = nn.LayerNorm(width)
        # What was measured speaks first; with few animals a loud identity is an invitation to learn them by heart.
        for layer in self.identity.values():
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, batch: Batch, hidden: Sequence[Hidden] | None = None) -> Tokens:
        parts = []
        for i, s in enumerate(batch.streams):
            h = None if hidden is None else hidden[i]
            values, valid = getattr(self, f"_{s.modality}")(s, h)
            if h is not None:
                valid = valid & ~_token_mask(s, h)
            parts.append((s.rows, self.norm(values + self.modality[s.modality]), valid, token_times(s, batch.length)))
        return _padded(parts, len(batch))

    def _field(self, s: Stream, _: Hidden | None) -> tuple[Tensor, Tensor]:
        who = self.identity[s.modality](s.identity)
        return (self.field(s.values) + who[:, None]).flatten(1, 2), s.valid.flatten(1)

    def _slow(self, s: Stream, _: Hidden | None) -> tuple[Tensor, Tensor]:
        who = self.identity[s.modality](s.identity)
        return (self.slow(s.values) + who[:, None]).flatten(1, 2), s.valid.flatten(1)

    def _features(self, s: Stream, h: Hidden | None) -> tuple[Tensor, Tensor]:
        seen = s.valid if h is None else s.valid & ~h.tokens
        total = (s.values * seen) @ self.member["features"](s.identity)
        total = total / seen.sum(1, keepdim=True).clamp(min=1).sqrt()
        return self.features(total)[:, None], seen.any(1, keepdim=True)

    def _spikes(self, s: Stream, h: Hidden | None) -> tuple[Tensor, Tensor]:
        # Deviation from the expected count, over the SD of the summed Poisson counts: silence is information too.
        assert s.expected is not None
        expected = s.expected[None, :, None]
        deviation = s.values - expected
        total = expected.sum(1).expand(len(s.values), -1)
        if h is not None and h.units is not None:
            seen = (~h.units).float()[:, :, None]
            deviation, total = deviation * seen, (expected * seen).sum(1)
        summed = torch.einsum("nub,ud->nbd", deviation, self.member["spikes"](s.identity))
        return self.spikes(summed / (total[..., None] + 0.1).sqrt()), s.valid


class Lift(nn.Module):
    """What was measured (…, size) to (…, width): a linear map beside a two-layer network, so that waveforms get through from the first step."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.straight = nn.Linear(size, width)
        self.bent = nn.Sequential(nn.Linear(size, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return self.straight(x) + self.bent(x)


def _token_mask(s: Stream, h: Hidden) -> Tensor:
    """Hidden tokens (n, token)."""
    if s.modality == "features":
        return h.tokens.all(1, keepdim=True)
    return h.tokens.flatten(1)


def token_times(s: Stream, length: float) -> Tensor:
    """Centre of each token (token,), s from the start of the window, float64."""
    if s.modality == "features":
        return torch.full((1,), length / 2, dtype=torch.float64, device=s.values.device)
    steps = s.valid.shape[-1]
    centres = (torch.arange(steps, dtype=torch.float64, device=s.values.device) + 0.5) * (length / steps)
    return centres if s.modality == "spikes" else centres.repeat(s.valid.shape[1])


def _padded(parts: list[tuple[Tensor, Tensor, Tensor, Tensor]], n: int) -> Tokens:
    """Streams side by side, each window's tokens from the left."""
    everywhere = all(len(rows) == n for rows, *_ in parts)
    if everywhere and all(bool((rows == torch.arange(n, device=rows.device)).all()) for rows, *_ in parts):
        time = torch.cat([t for *_, t in parts]).expand(n, -1)
        valid = torch.cat([ok for *_, ok, _ in parts], 1)
        return Tokens(torch.cat([v for _, v, *_ in parts], 1), valid, torch.cat([_bias(ok) for *_, ok, _ in parts], 1), time)
    device = parts[0][1].device
    offset = torch.zeros(n, dtype=torch.long, device=device)
    places = []
    for rows, values, *_ in parts:
        places.append((rows[:, None], offset[rows][:, None] + torch.arange(values.shape[1], device=device)))
        offset[rows] += values.shape[1]
    size = int(offset.max())
    values = torch.zeros(n, size, parts[0][1].shape[-1], dtype=parts[0][1].dtype, device=device)
    valid = torch.zeros(n, size, dtype=torch.bool, device=device)
    bias = torch.full((n, size), -torch.inf, device=device)
    time = torch.zeros(n, size, dtype=torch.float64, device=device)
    for place, (_, v, ok, t) in zip(places, parts):
        values = values.index_put(place, v)
        valid[place] = ok
        bias[place] = _bias(ok)
        time[place] = t.expand(len(v), -1)
    return Tokens(values, valid, bias, time)


def _bias(valid: Tensor) -> Tensor:
    count = valid.sum(1, keepdim=True).clamp(min=1).float()
    return torch.where(valid, -count.log(), -torch.inf)
