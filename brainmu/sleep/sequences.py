"""A small recurrent network over a whole recording's epochs: what came before and after an epoch, minutes to hours away, in one pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from brainmu.errors import MissingDataError
from brainmu.models.encoder import overlapping_spans

__all__ = ["SequenceNet"]

_CLIP = 6.0
"""Features are kept within so many SDs of training: a movement must not drown an hour."""
_SPAN = 4096
"""Epochs read at once: what is a thousand epochs away no longer reaches an answer, and a night of people is read as a whole."""


class _Network(nn.Module):
    """Epochs (recording, epoch, feature) to logits (recording, epoch, stage)."""

    def __init__(self, features: int, stages: int, width: int, layers: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.enter = nn.Sequential(nn.Linear(features, width), nn.GELU(), nn.Dropout(dropout))
        self.over_time = nn.GRU(width, width, layers, batch_first=True, bidirectional=not causal, dropout=dropout if layers > 1 else 0.0)
        self.dropout = nn.Dropout(dropout)
        # The epoch itself stands beside its context, so that the recurrence need not carry it along.
        self.leave = nn.Linear(width * (2 if causal else 3), stages)

    def forward(self, x: Tensor) -> Tensor:
        own = self.enter(x)
        context, _ = self.over_time(own)
        return self.leave(torch.cat([self.dropout(context), own], dim=-1))


@dataclass
class SequenceNet:
    """A recurrent network on the features of epochs.

    Parameters
    ----------
    n_stages : int
    causal : bool
        Read only epochs before and including the one judged.
    width, layers : int
        Of the recurrence.
    passes : float
        How often an epoch is seen in training, unless that makes more than `most` epochs in all (days of 4-s epochs teach enough in fewer passes).
    span, batch : int
        Consecutive epochs in a training example, and examples in a step.
    rate, decay, dropout, noise, smoothing : float
        Learning rate at its highest, weight decay, dropout, SD of noise on standardised features, label smoothing.
    jitter : float
        SD of the gain and of the offset that each column of an example gets: other amplifiers, other heads.
    drop : float
        Chance that a column is missing in an example.
    blank : float
        Chance that a kind of channel is missing in an example, where there are several.
    seed : int
    """

    n_stages: int
    causal: bool = False
    width: int = 64
    layers: int = 2
    passes: float = 12.0
    most: int = 1_500_000
    span: int = 200
    batch: int = 16
    rate: float = 2e-3
    decay: float = 1e-2
    dropout: float = 0.3
    noise: float = 0.2
    smoothing: float = 0.05
    jitter: float = 0.2
    drop: float = 0.2
    blank: float = 0.25
    seed: int = 0
    centre: NDArray[np.float64] | None = None
    scale: NDArray[np.float64] | None = None
    network: _Network | None = field(default=None, repr=False)

    def fit(
        self, x: list[NDArray[np.float64]], codes: list[NDArray[np.integer]], kinds: NDArray[Any] | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> SequenceNet:  # fmt: skip
        """Fit to features (epoch, feature) and codes (epoch,) of recordings; negative codes are left out.

        `kinds` (feature,) says which columns may be missing together; "" marks those that never are.
        """
        stacked = np.concatenate(x)
        if not np.isfinite(stacked).any():
            raise MissingDataError("no feature has a value: check for flat or missing channels")
        known = np.where(np.isfinite(stacked).any(axis=0), stacked, 0.0)
        self.centre = np.nanmean(known, axis=0)
        spread = np.nanstd(known, axis=0)
        self.scale = np.where(spread > 1e-9, spread, 1.0)
        inputs = [self._standardised(v) for v in x]
        targets = [torch.from_numpy(np.where(c >= 0, c, -100).astype(np.int64)) for c in codes]
        may_miss = [] if kinds is None else sorted(set(kinds) - {""})
        groups = [torch.from_numpy(kinds == k) for k in may_miss] if len(may_miss) > 1 else []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.network = _Network(stacked.shape[1], self.n_stages, self.width, self.layers, self.dropout, self.causal)
            self._train(self.network, inputs, targets, groups, progress)
        return self

    def _train(
        self, network: _Network, inputs: list[Tensor], targets: list[Tensor], groups: list[Tensor], progress: Callable[[float], None] | None
    ) -> None:  # fmt: skip
        rng = np.random.default_rng([self.seed, 11])
        length = np.array([len(v) for v in inputs])
        span = int(min(self.span, length.max()))
        steps = max(50, round(min(self.passes * length.sum(), self.most) / (span * self.batch)))
        optimiser = torch.optim.AdamW(network.parameters(), lr=self.rate, weight_decay=self.decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, self.rate, total_steps=steps, pct_start=0.15)
        network.train()
        for step in range(steps):
            x, y = self._examples(inputs, targets, length, span, rng)
            one = (self.batch, 1, x.shape[2])
            x = x * (1 + self.jitter * torch.randn(one)) + self.jitter * torch.randn(one) + self.noise * torch.randn_like(x)
            x = x * (torch.rand(one) >= self.drop)
            for group in groups:
                hidden = torch.rand(self.batch) < self.blank / len(groups)
                x = x.masked_fill(hidden[:, None, None] & group, 0.0)
            if bool((y >= 0).any()):
                loss = F.cross_entropy(network(x).flatten(0, 1), y.flatten(), ignore_index=-100, label_smoothing=self.smoothing)
                optimiser.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(network.parameters(), 1.0)
                optimiser.step()
            schedule.step()
            if progress is not None and (step + 1) % 10 == 0:
                progress((step + 1) / steps)
        network.eval()

    def _examples(
        self, inputs: list[Tensor], targets: list[Tensor], length: NDArray[np.integer], span: int, rng: np.random.Generator
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        """Spans (batch, span, feature) and codes (batch, span), drawn so that every epoch is as likely; they may hang over the ends."""
        x = torch.zeros(self.batch, span, inputs[0].shape[1])
        y = torch.full((self.batch, span), -100)
        for row, i in enumerate(rng.choice(len(inputs), self.batch, p=length / length.sum())):
            first = int(rng.integers(-(span // 2), max(length[i] - span // 2, 1 - span // 2)))
            a, b = max(first, 0), min(first + span, int(length[i]))
            x[row, : b - a], y[row, : b - a] = inputs[i][a:b], targets[i][a:b]
        return x, y

    @torch.no_grad()
    def predict_proba(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability (epoch, stage) over a whole recording's features (epoch, feature)."""
        assert self.network is not None
        if not len(x):
            return np.empty((0, self.n_stages))
        out = np.empty((len(x), self.n_stages))
        for own, seen in overlapping_spans(len(x), _SPAN):
            said = self.network(self._standardised(x[seen])[None])[0].softmax(-1)
            out[own] = said[own.start - seen.start : own.stop - seen.start].numpy()
        return out

    def _standardised(self, x: NDArray[np.float64]) -> Tensor:
        """Features on the scale of training; what is missing is 0, the mean of training."""
        assert self.centre is not None and self.scale is not None
        z = np.clip((x - self.centre) / self.scale, -_CLIP, _CLIP)
        return torch.from_numpy(np.nan_to_num(z)).float()

    # -- storing ----------------------------------------------------------------------------------------------------
    def to_parts(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Settings (for YAML) and arrays (for NPZ)."""
        assert self.network is not None and self.centre is not None and self.scale is not None
        settings = {k: getattr(self, k) for k in self.__dataclass_fields__ if k not in ("centre", "scale", "network")}
        weights = {f"weight_{k}": v.numpy() for k, v in self.network.state_dict().items()}
        return settings, {"centre": self.centre, "scale": self.scale, **weights}

    @classmethod
    def from_parts(cls, settings: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> SequenceNet:
        self = cls(**settings, centre=arrays["centre"], scale=arrays["scale"])
        with torch.random.fork_rng(devices=[]):
            self.network = _Network(len(arrays["centre"]), self.n_stages, self.width, self.layers, self.dropout, self.causal)
        self.network.load_state_dict({k.removeprefix("weight_"): torch.from_numpy(v) for k, v in arrays.items() if k.startswith("weight_")})
        self.network.eval()
        return self
