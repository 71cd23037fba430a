"""What pretraining hides, what it asks for, and the trivial answers it must beat."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainmu.errors import ConfigError
from brainmu.models.heads import Reconstructed
from brainmu.models.tokens import Hidden
from brainmu.windows.batch import Batch, Stream
from brainmu.windows.interpolation import interpolate
from brainmu.windows.spectra import N_BANDS

__all__ = ["MaskConfig", "baselines", "draw_masks", "draw_spans", "gist", "gist_counts", "gist_losses", "losses"]


@dataclass(frozen=True)
class MaskConfig:
    """Chances of hiding.

    Attributes
    ----------
    time : float
        Share of patches hidden, half of the windows in all streams at the same moments, half in each channel by itself.
    channel, unit : float
        Chance that a channel or unit is hidden throughout a window.
    modality : float
        Chance that a whole stream is hidden, where a window has another (cross-modal prediction).
    context : float
        Share of window summaries hidden from the context encoder, in runs.
    longest : float, s
        Longest run of them. Sleep stages last minutes: of a longer gap the neighbours say nothing, and the mean is all there is to learn.
    """

    time: float = 0.25
    channel: float = 0.15
    unit: float = 0.15
    modality: float = 0.15
    context: float = 0.3
    longest: float = 128.0

    def __post_init__(self) -> None:
        for name in ("time", "channel", "unit", "modality", "context"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"masks: {name} is {getattr(self, name)}, expected a share in [0, 1]")
        if self.context == 0:
            raise ConfigError("masks: context is 0, which hides no summary and so leaves the context nothing to predict: expected a share above 0")
        if not (math.isfinite(self.longest) and self.longest > 0):
            raise ConfigError(f"masks: longest is {self.longest}, expected seconds > 0")


def draw_masks(batch: Batch, c: MaskConfig, rng: np.random.Generator) -> list[Hidden]:
    """What to hide of each stream of a batch."""
    n = len(batch)
    together = rng.random(n) < 0.5
    # Moments hidden in every stream of a window, as eighths of it: patches and bins take the eighth of their centre.
    moments = rng.random((n, 8)) < c.time
    streams_of = np.zeros(n, dtype=int)
    for s in batch.streams:
        streams_of[s.rows.numpy()] += 1
    spared = rng.random(n)
    place = np.zeros(n, dtype=int)
    out = []
    for s in batch.streams:
        rows = s.rows.numpy()
        # One stream of every window is spared, chosen at random.
        keep = place[rows] == (spared[rows] * streams_of[rows]).astype(int)
        place[rows] += 1
        gone = (rng.random(len(rows)) < c.modality) & ~keep
        out.append(_hide(s, rows, gone, together, moments, c, rng))
    return out


def _hide(
    s: Stream, rows: NDArray[np.int64], gone: NDArray[np.bool_], together: NDArray[np.bool_], moments: NDArray[np.bool_],
    c: MaskConfig, rng: np.random.Generator,
) -> Hidden:  # fmt: skip
    if s.modality == "features":
        return Hidden(torch.from_numpy((rng.random(s.valid.shape) < max(c.channel, c.time)) | gone[:, None]))
    steps = s.valid.shape[-1]
    eighth = ((np.arange(steps) + 0.5) * 8 / steps).astype(int)
    joint = moments[rows][:, eighth] & together[rows][:, None]
    if s.modality == "spikes":
        alone = (rng.random((len(rows), 8)) < c.time)[:, eighth] & ~together[rows][:, None]
        units = rng.random((len(rows), s.values.shape[1])) < c.unit
        return Hidden(torch.from_numpy(joint | alone | gone[:, None]), torch.from_numpy(units))
    shape = tuple(s.valid.shape)
    alone = (rng.random(shape) < c.time) & ~together[rows][:, None, None]
    channel = rng.random(shape[:2]) < (c.channel if shape[1] > 1 else 0.0)
    return Hidden(torch.from_numpy(joint[:, None] | alone | channel[:, :, None] | gone[:, None, None]))


def losses(batch: Batch, hidden: list[Hidden], made: list[Reconstructed]) -> dict[str, Tensor]:
    """Loss of what was hidden, by target: spectrum, waveform, slow, features (mean squared error), spikes (nats a bin and unit)."""
    return _collect(batch, hidden, lambda i, s: made[i].values)


def baselines(batch: Batch, hidden: list[Hidden]) -> dict[str, dict[str, Tensor]]:
    """The same losses for the trivial answers.

    ``mean``: the recording's mean of each feature (zero, once standardised; for spikes the unit's rate, exactly).
    ``interpolation``: between the nearest visible patches of the same channel in the window, the mean where there are none;
    for spikes the unit's mean count over the visible bins, shrunk to its rate.
    ``last``: the nearest earlier visible patch, the mean where there is none.
    """
    mean = _collect(batch, hidden, lambda i, s: _mean(s))
    line = _collect(batch, hidden, lambda i, s: _guess(s, hidden[i], "interpolation"))
    last = _collect(batch, hidden, lambda i, s: _guess(s, hidden[i], "last"))
    return {"mean": mean, "interpolation": line, "last": last}


def _collect(batch: Batch, hidden: list[Hidden], guess: Callable[[int, Stream], Tensor]) -> dict[str, Tensor]:
    """Sums over the streams of each target, divided by what was hidden."""
    total: dict[str, list[Tensor]] = {}
    for i, (s, h) in enumerate(zip(batch.streams, hidden)):
        g = guess(i, s)
        if s.modality == "spikes":
            assert h.units is not None
            where = ((h.tokens[:, None, :] | h.units[:, :, None]) & s.valid[:, None, :]).float()
            total.setdefault("spikes", []).append(torch.stack([((g.exp() - s.values * g) * where).sum(), where.sum()]))
            continue
        where = (h.tokens & s.valid).float()
        error = (g - s.values).square()
        if s.modality == "field":
            # Bands that the rate does not cover are zero in target and in no one's interest.
            bands = (s.values[..., :N_BANDS] != 0).float() * where[..., None]
            total.setdefault("spectrum", []).append(torch.stack([(error[..., :N_BANDS] * bands).sum(), bands.sum()]))
            total.setdefault("waveform", []).append(torch.stack([(error[..., N_BANDS:].mean(-1) * where).sum(), where.sum()]))
        else:
            error = error.mean(-1) if s.modality == "slow" else error
            total.setdefault(s.modality, []).append(torch.stack([(error * where).sum(), where.sum()]))
    sums = {k: torch.stack(v).sum(0) for k, v in total.items()}
    return {k: v[0] / v[1] for k, v in sums.items() if float(v[1].detach()) > 0}


def gist(s: Stream) -> tuple[Tensor, Tensor]:
    """What a window was like on the whole: values (n, channel or unit, value), and where there are any, a bool of the same shape.

    Field: log band powers, the mean over the patches there are. Slow: mean, and log(variance + 0.01). Features: the value.
    Spikes: how many more came in the window than the unit's rate lets expect, over sqrt(expected + 1), clipped at 5.
    """
    if s.modality == "spikes":
        assert s.expected is not None
        bins = s.valid.sum(1)[:, None].float()
        expected = s.expected * bins
        more = ((s.values * s.valid[:, None]).sum(2) - expected) / (expected + 1).sqrt()
        return more.clamp(-5, 5)[..., None], (bins > 0).expand_as(more)[..., None]
    if s.modality == "features":
        return s.values[..., None], s.valid[..., None]
    here, count = s.valid[..., None], s.valid.sum(2)[..., None].clamp(min=1)
    if s.modality == "field":
        powers = s.values[..., :N_BANDS]
        return (powers * here).sum(2) / count, ((powers != 0) & here).any(2)
    mean = (s.values.mean(-1, keepdim=True) * here).sum(2) / count
    variance = ((s.values - mean[..., None]).square().mean(-1, keepdim=True) * here).sum(2) / count
    return torch.cat([mean, torch.log(variance + 1e-2)], -1), here.any(2).expand(-1, -1, 2)


def _gist_target(s: Stream) -> str:
    return "spectrum" if s.modality == "field" else s.modality


def gist_losses(batch: Batch, made: list[Tensor]) -> dict[str, Tensor]:
    """Mean squared error of the gist, by target: spectrum, slow, features, spikes."""
    total: dict[str, list[Tensor]] = {}
    for s, g in zip(batch.streams, made):
        target, where = gist(s)
        name = _gist_target(s)
        total.setdefault(name, []).append(torch.stack([((g - target).square() * where).sum(), where.sum()]))
    sums = {k: torch.stack(v).sum(0) for k, v in total.items()}
    return {k: v[0] / v[1] for k, v in sums.items() if float(v[1].detach()) > 0}


def gist_counts(batch: Batch) -> dict[str, Tensor]:
    """How many values each loss of :func:`gist_losses` is a mean over."""
    out: dict[str, Tensor] = {}
    for s in batch.streams:
        name = _gist_target(s)
        out[name] = out.get(name, 0) + gist(s)[1].sum().float()
    return out


def _mean(s: Stream) -> Tensor:
    if s.modality == "spikes":
        assert s.expected is not None
        return torch.log(s.expected + 1e-4)[None, :, None].expand_as(s.values)
    return torch.zeros_like(s.values)


def _guess(s: Stream, h: Hidden, kind: str) -> Tensor:
    if s.modality == "features":
        return torch.zeros_like(s.values)
    if s.modality == "spikes":
        assert s.expected is not None and h.units is not None
        seen = (~h.tokens[:, None, :] & ~h.units[:, :, None] & s.valid[:, None, :]).float()
        # A prior worth one spike keeps silent units from an infinite loss.
        expected = s.expected[None, :, None] + 1e-4
        rate = expected * ((s.values * seen).sum(2, keepdim=True) + 1) / ((expected * seen).sum(2, keepdim=True) + 1)
        return torch.log(rate).expand_as(s.values)
    return interpolate(s.values, ~h.tokens & s.valid, kind)


def draw_spans(n: int, share: float, longest: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Runs of hidden windows (n,): about `share` of them, runs of 1 to `longest`, never all."""
    hidden = np.zeros(n, dtype=bool)
    while hidden.mean() < share:
        length = int(rng.integers(1, max(2, min(longest, n // 4) + 1)))
        first = int(rng.integers(0, n))
        hidden[first : first + length] = True
    if hidden.all():
        hidden[rng.integers(n)] = False
    return hidden
