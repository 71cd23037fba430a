"""The head of the learned detector: a small convolution over time from traces and window latents to the log odds of an event in each bin."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from brainmu.replay.detection.inputs import BINS, N_TRACES, Sensed

__all__ = ["EventHead", "Example", "trained"]

_SEGMENT = 4
"""Windows of a training segment (2 s)."""


@dataclass
class Example:
    """A training recording: what was sensed with each set of modalities, the target (bin,), and where it holds (bin,)."""

    sensed: list[Sensed]
    target: NDArray[np.float32]
    counts: NDArray[np.bool_]


class EventHead(nn.Module):
    """Log odds (batch, bin) of an event from traces (batch, bin, trace), which modalities there are (batch, 2, bin) and latents (batch, latent, width).

    It sees about 0.2 s on either side of a bin. Latents are interpolated between their times.
    """

    mean: Tensor
    sd: Tensor

    def __init__(self, latents: int, width: int = 24) -> None:
        super().__init__()
        self.enter = nn.Conv1d(N_TRACES + 2, width, 5, padding=2)
        self.context = nn.Conv1d(latents, width, 1, bias=False) if latents else None
        self.layers = nn.ModuleList([nn.Conv1d(width, width, 5, padding=2 * d, dilation=d) for d in (1, 4, 16)])
        self.dropout = nn.Dropout(0.1)
        self.out = nn.Conv1d(width, 1, 1)
        # Scale of the latents in the training recordings.
        self.register_buffer("mean", torch.zeros(latents))
        self.register_buffer("sd", torch.ones(latents))

    def forward(self, traces: Tensor, known: Tensor, latents: Tensor) -> Tensor:
        x = self.enter(torch.cat([traces.transpose(1, 2), known], dim=1))
        if self.context is not None:
            z = self.context(((latents - self.mean) / self.sd).clamp(-5, 5).transpose(1, 2))
            x = x + F.interpolate(z, size=traces.shape[1], mode="linear", align_corners=False)
        for layer in self.layers:
            x = x + self.dropout(layer(F.gelu(x)))
        return self.out(F.gelu(x))[:, 0]

    @torch.no_grad()
    def log_odds(self, sensed: Sensed) -> NDArray[np.float32]:
        """Log odds (bin,) over a span."""
        return self(*(t[None] for t in _tensors(sensed)))[0].numpy()


def trained(
    examples: Sequence[Example], *, steps: int, batch: int = 16, learning_rate: float = 3e-3, seed: int = 0, progress: Callable[[float], None] | None = None
) -> EventHead:
    """A head fitted to examples: half of its segments hold an event, and each comes with a set of modalities by chance, so that it works with either."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    head = EventHead(examples[0].sensed[0].latents.shape[1])
    if head.context is not None:
        z = np.concatenate([s.latents[::4] for e in examples for s in e.sensed]).astype(np.float32)
        head.mean.copy_(torch.from_numpy(z.mean(0)))
        head.sd.copy_(torch.from_numpy(z.std(0) + 1e-3))
    optimiser = torch.optim.AdamW(head.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps, pct_start=0.1)
    places = _places(examples)
    head.train()
    for step in range(steps):
        parts = [_segment(examples, *_drawn(places, rng), rng) for _ in range(batch)]
        traces, known, latents, target, counts = (torch.stack(x) for x in zip(*parts))
        loss = (F.binary_cross_entropy_with_logits(head(traces, known, latents), target, reduction="none") * counts).sum() / counts.sum().clamp(min=1)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if progress and step % 20 == 0:
            progress(step / steps)
    return head.eval()


def _places(examples: Sequence[Example]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """(example, window) where a segment may begin: those with an event, and all that count."""
    rows, held = [], []
    for k, e in enumerate(examples):
        n = len(e.target) // BINS
        event = (e.target * e.counts).reshape(n, BINS).max(1) > 0.5
        counted = e.counts.reshape(n, BINS).any(1)
        first = np.arange(max(n - _SEGMENT + 1, 0))
        some = np.stack([counted[i : i + len(first)] for i in range(_SEGMENT)]).any(0) if len(first) else np.zeros(0, dtype=bool)
        inner = np.stack([event[i : i + len(first)] for i in range(_SEGMENT)]).any(0) if len(first) else np.zeros(0, dtype=bool)
        rows.append(np.c_[np.full(some.sum(), k), first[some]])
        held.append(np.c_[np.full(inner.sum(), k), first[inner]])
    return np.concatenate(held).astype(np.intp), np.concatenate(rows).astype(np.intp)


def _drawn(places: tuple[NDArray[np.intp], NDArray[np.intp]], rng: np.random.Generator) -> tuple[int, int]:
    chosen = places[0] if rng.random() < 0.5 and len(places[0]) else places[1]
    k, i = chosen[rng.integers(len(chosen))]
    return int(k), int(i)


def _segment(examples: Sequence[Example], k: int, first: int, rng: np.random.Generator) -> tuple[Tensor, ...]:
    e = examples[k]
    # All that a recording has as often as one part of it.
    use = 0 if len(e.sensed) == 1 or rng.random() < 0.5 else int(rng.integers(1, len(e.sensed)))
    s = e.sensed[use]
    a, b = first * BINS, (first + _SEGMENT) * BINS
    per = len(s.latents) // (len(e.target) // BINS)
    part = Sensed(s.traces[a:b], s.known[:, a:b], s.latents[first * per : (first + _SEGMENT) * per])
    heard = part.known.any(0)
    return (*_tensors(part), torch.from_numpy(e.target[a:b]), torch.from_numpy((e.counts[a:b] & heard).astype(np.float32)))


def _tensors(s: Sensed) -> tuple[Tensor, Tensor, Tensor]:
    return torch.from_numpy(s.traces.astype(np.float32)), torch.from_numpy(s.known.astype(np.float32)), torch.from_numpy(s.latents.astype(np.float32))
