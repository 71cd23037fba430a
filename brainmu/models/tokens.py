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
    """Tokens of every stream of a batch.

    Parameters
    ----------
    width : int
    spike_tokens : bool
        A token for each bin in which a unit fired, with the unit's embedding, beside the one a bin with the sum over units.
    """

    def __init__(self, width: int, spike_tokens: bool = False) -> None:
        super().__init__()
        self.spike_tokens = spike_tokens
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
        streams, masks = batch.streams, hidden or [None] * len(batch.streams)
        measured = [self._measured(s, h, batch.length) for s, h in zip(streams, masks)]
        values = [x for x, _, _ in measured]
        for m, those in by_modality(streams).items():
            made = at_once(getattr(self, m), [values[i] for i in those])
            if m in ("field", "slow"):
                who = at_once(self.identity[m], [streams[i].identity for i in those])
                made = [(x + w[:, None]).flatten(1, 2) for x, w in zip(made, who)]
            for i, x in zip(those, made):
                values[i] = x + self.modality[m]
        values = at_once(self.norm, values)
        side = SideBySide([s.rows for s in streams], [x.shape[1] for x in values], len(batch))
        return _tokens(side, values, [ok for _, ok, _ in measured], [t for *_, t in measured])

    def _measured(self, s: Stream, h: Hidden | None, length: float) -> tuple[Tensor, Tensor, Tensor]:
        """What the layer of the modality reads, (n, …, size); where there is any, (n, token); and when, (token,) or (n, token), s."""
        if s.modality in ("field", "slow"):
            values, valid = s.values, s.valid.flatten(1)
        else:
            values, valid = self._features(s, h) if s.modality == "features" else self._spikes(s, h)
        valid, times = valid if h is None else valid & ~_token_mask(s, h), token_times(s, length)
        if s.modality != "spikes" or not self.spike_tokens:
            return values, valid, times
        spikes, fired, when = self._each_spike(s, h, length)
        return torch.cat([values, spikes], 1), torch.cat([valid, fired], 1), torch.cat([times.expand(len(when), -1), when], 1)

    def _features(self, s: Stream, h: Hidden | None) -> tuple[Tensor, Tensor]:
        seen = s.valid if h is None else s.valid & ~h.tokens
        total = (s.values * seen) @ self.member["features"](s.identity)
        return (total / seen.sum(1, keepdim=True).clamp(min=1).sqrt())[:, None], seen.any(1, keepdim=True)

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
        return summed / (total[..., None] + 0.1).sqrt(), s.valid

    def _each_spike(self, s: Stream, h: Hidden | None, length: float) -> tuple[Tensor, Tensor, Tensor]:
        fired = (s.values > 0) & s.valid[:, None]
        if h is not None:
            fired = fired & ~h.tokens[:, None]
            fired = fired if h.units is None else fired & ~h.units[:, :, None]
        bins, fired = s.values.shape[2], fired.flatten(1)
        # Each window's from the left, in the order of units and of time.
        most = max(1, int(fired.sum(1).max())) if len(fired) else 1
        place = torch.argsort(fired.to(torch.int8), dim=1, descending=True, stable=True)[:, :most]
        count = s.values.flatten(1).gather(1, place)
        values = self.member["spikes"](s.identity)[place // bins] * count[..., None]
        return values, fired.gather(1, place), ((place % bins).double() + 0.5) * (length / bins)


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


def n_tokens(s: Stream) -> int:
    """Tokens of a stream in a window, missing ones included."""
    if s.modality == "features":
        return 1
    return s.valid.shape[-1] if s.modality == "spikes" else s.valid.shape[1] * s.valid.shape[2]


def by_modality(streams: Sequence[Stream]) -> dict[str, list[int]]:
    """Places of the streams of each modality."""
    out: dict[str, list[int]] = {}
    for i, s in enumerate(streams):
        out.setdefault(s.modality, []).append(i)
    return out


def at_once(layer: nn.Module, parts: Sequence[Tensor]) -> list[Tensor]:
    """`layer` on several tensors (…, size) in one call: a batch of many recordings has a hundred small streams."""
    if len(parts) == 1:
        return [layer(parts[0])]
    made = layer(torch.cat([x.flatten(0, -2) for x in parts]))
    return [y.unflatten(0, x.shape[:-1]) for x, y in zip(parts, made.split([x.shape[:-1].numel() for x in parts]))]


class SideBySide:
    """Streams of a batch laid out with a row a window: each window's tokens from the left, in the order of its streams.

    Parameters
    ----------
    rows : list of int64 (n,)
        Windows in which each stream is.
    counts : list of int
        Tokens of each stream in a window.
    n : int
        Windows of the batch.

    Attributes
    ----------
    same : bool
        Every stream is there in every window, so that all windows have the same tokens.
    """

    def __init__(self, rows: Sequence[Tensor], counts: Sequence[int], n: int) -> None:
        self.n, self.counts = n, list(counts)
        device = rows[0].device
        every = torch.arange(n, device=device)
        self.same = all(len(r) == n for r in rows) and all(bool((r == every).all()) for r in rows)
        self.shapes = [(len(r), count) for r, count in zip(rows, counts)]
        if self.same:
            return
        offset = torch.zeros(n, dtype=torch.long, device=device)
        columns = []
        for r, count in zip(rows, counts):
            columns.append((offset[r][:, None] + torch.arange(count, device=device)).flatten())
            offset[r] += count
        self.size = int(offset.max())
        self.place = torch.cat([r.repeat_interleave(count) for r, count in zip(rows, counts)]) * self.size + torch.cat(columns)

    def put(self, parts: Sequence[Tensor], empty: float | bool) -> Tensor:
        """Parts (n of the stream, token, …) as one tensor (window, token, …), `empty` where a window has fewer tokens than others."""
        if self.same:
            return torch.cat(list(parts), 1)
        flat = torch.cat([x.flatten(0, 1) for x in parts])
        out = torch.full((self.n * self.size, *flat.shape[1:]), empty, dtype=flat.dtype, device=flat.device)
        return out.index_copy(0, self.place, flat).unflatten(0, (self.n, self.size))

    def put_times(self, times: Sequence[Tensor]) -> Tensor:
        """Times (token,) or (n, token) of each stream as (window or 1, token)."""
        if self.same and all(t.ndim == 1 for t in times):
            return torch.cat(list(times))[None]
        return self.put([t.expand(n, -1) for t, (n, _) in zip(times, self.shapes)], 0.0)

    def take(self, whole: Tensor) -> list[Tensor]:
        """The inverse of :meth:`put`."""
        if self.same:
            return list(whole.split(self.counts, 1))
        flat = whole.flatten(0, 1).index_select(0, self.place)
        return [x.unflatten(0, shape) for x, shape in zip(flat.split([n * count for n, count in self.shapes]), self.shapes)]


def _tokens(side: SideBySide, values: list[Tensor], valid: list[Tensor], times: list[Tensor]) -> Tokens:
    time = side.put_times(times).expand(side.n, -1)
    return Tokens(side.put(values, 0.0), side.put(valid, False), side.put([_bias(ok) for ok in valid], -torch.inf), time)


def _bias(valid: Tensor) -> Tensor:
    count = valid.sum(1, keepdim=True).clamp(min=1).float()
    return torch.where(valid, -count.log(), -torch.inf)
