"""The context encoder: a transformer over window summaries, hours long, with rotary time of day-long reach."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from brainmu.models.attention import Angles, Block, Rotary, rows

__all__ = ["ContextEncoder"]


class ContextEncoder(nn.Module):
    """Summaries (batch, window, width) in, context (batch, window, width) out.

    Bidirectional, or `causal`: then the context of a window depends on that window and earlier ones only.
    """

    def __init__(self, width: int, heads: int, layers: int, dropout: float = 0.0, kernel: int = 9, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.rotary = Rotary(width // heads, shortest=4.0, longest=172_800.0)
        self.enter = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.missing = nn.Parameter(0.02 * torch.randn(width))
        self.locals = nn.ModuleList([Local(width, kernel, causal, dropout) for _ in range(layers)])
        self.blocks = nn.ModuleList([Block(width, heads, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)

    def forward(
        self, summaries: Tensor, time: Tensor, present: Tensor | None = None, length: float = 4.0, asked: Tensor | None = None,
        within: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Context of each window.

        Parameters
        ----------
        summaries : float32 (batch, window, width)
        time : float64 (batch or 1, window), s
            Start of each window. The rotary clock runs in units of `length` / 4 s, so that epochs of any length look alike.
        present : bool (batch or 1, window) or None
            False where a window holds no data, or is hidden. Such windows read those with data, and attention reads them
            nowhere; where `causal`, each of them reads itself too.
        asked : bool (batch, window) or None
            The windows whose context is wanted; what comes out for others means nothing. The last layer then leaves them out, unless `causal`.
        within : bool (batch, window) or None
            False where a span is over and only padded to the length of the others; such windows are not `present` either. A span then
            has the same context whatever it is stacked with.
        """
        x = self.enter(summaries)
        angles = self.rotary((time - time[:, :1]) * (4.0 / length))
        mask = heard = None
        if present is not None and not bool(present.all()):
            x = torch.where(present[..., None], x, self.missing.to(x.dtype))
            if self.causal:
                mask = self._mask(present, x)
            else:
                heard, mask = _places(present.expand(len(x), -1))
        last = len(self.blocks) - 1
        for i, (local, block) in enumerate(zip(self.locals, self.blocks)):
            x = local(x, within)
            source, source_at = (None, None) if heard is None else (rows(x, heard), _angles(angles, heard))
            if i < last or asked is None or self.causal:
                x = block(x, angles, source, source_at, mask=mask, causal=self.causal and mask is None)
                continue
            places, _ = _places(asked)
            some = block(rows(x, places), _angles(angles, places), x if source is None else source, source_at or angles, mask=mask)
            x = x.scatter(1, places[..., None].expand_as(some), some)
        return self.norm(x)

    def _mask(self, present: Tensor, x: Tensor) -> Tensor:
        """What windows read where `causal`, (batch or 1, 1, window, window): themselves and earlier ones with data; bool, or added to scores on a CPU."""
        n = present.shape[-1]
        later = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)
        # On a CPU a bool mask is made into this one in every layer, and each is kept for the backward pass: all layers share one instead.
        if x.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            bias = torch.zeros(present.shape, dtype=x.dtype).masked_fill_(~present, -torch.inf)[:, None, None, :].repeat(1, 1, n, 1)
            bias.diagonal(dim1=-2, dim2=-1).zero_()
            return bias.masked_fill_(later, -torch.inf)
        mask = present[:, None, None, :] | torch.eye(n, dtype=torch.bool, device=x.device)
        return mask & ~later


def _angles(angles: Angles, places: Tensor) -> Angles:
    return rows(angles[0], places), rows(angles[1], places)


def _places(present: Tensor) -> tuple[Tensor, Tensor | None]:
    """Places (batch, place) of the windows that are present, padded to those of the span with most, and a mask (batch, 1, 1, place) where any is padding.

    Keys that are left out take no time; keys that are masked take all of theirs. A span without any gives its first window, so that there is one.
    """
    count = present.sum(1).clamp(min=1)
    most = int(count.max())
    places = present.byte().argsort(dim=1, descending=True, stable=True)[:, :most]
    among = torch.arange(most, device=present.device) < count[:, None]
    return places, None if bool(among.all()) else among[:, None, None]


class Local(nn.Module):
    """A depthwise convolution over neighbouring windows: stages persist, and attention need not learn that from scratch."""

    def __init__(self, width: int, kernel: int, causal: bool, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.weight = nn.Parameter(torch.randn(width, 1, kernel) / kernel**0.5)
        self.mix = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.causal = causal

    def forward(self, x: Tensor, within: Tensor | None = None) -> Tensor:
        k, y = self.weight.shape[-1], self.norm(x)
        if within is not None:  # as beyond the ends of the longest span
            y = y * within[..., None]
        y = F.pad(y.transpose(1, 2), (k - 1, 0) if self.causal else ((k - 1) // 2, k // 2))
        y = F.conv1d(y, self.weight, groups=x.shape[-1]).transpose(1, 2)
        return x + self.dropout(self.mix(F.gelu(y)))
