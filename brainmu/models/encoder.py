"""The encoder at two scales, its sizes, and the taps that heads read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brainmu.errors import ConfigError
from brainmu.models.checkpoint import LoadReport
from brainmu.models.context_encoder import ContextEncoder
from brainmu.models.tokens import Hidden
from brainmu.models.window_encoder import WindowEncoder
from brainmu.windows.batch import Batch
from brainmu.windows.grid import WindowGrid

__all__ = ["Encoder", "EncoderConfig", "overlapping_spans"]

CHUNK = 128
"""Windows encoded at once: memory does not grow with the length of a recording."""
CONTEXT = 5760
"""Longest span of windows that attend to each other (6.4 h at 4 s)."""


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of an encoder.

    Attributes
    ----------
    width, heads : int
    latents : int
        Latents a window, spread evenly over its time.
    window_layers, context_layers : int
    kernel : int
        Windows that the local convolution of a context layer spans.
    window : float, s
        Window length the encoder was trained on; others work, since tokens carry seconds.
    patch, bin : float, s
        Length of a signal patch and of a spike bin.
    dropout : float
    causal : bool
        Context from this and earlier windows only.
    spike_tokens : bool
        A token for each bin in which a unit fired, beside the one a bin with the sum over units: which unit fired when is kept
        apart (with a `bin` of 0.005 s, to 5 ms), for as many more tokens as there are spikes. The weights are the same. Integrated
        gradients do not add up for such encoders, since tokens appear and vanish: explain them by occlusion.
    """

    width: int = 96
    heads: int = 4
    latents: int = 8
    window_layers: int = 2
    context_layers: int = 2
    kernel: int = 9
    window: float = 4.0
    patch: float = 1.0
    bin: float = 0.05
    dropout: float = 0.1
    causal: bool = False
    spike_tokens: bool = False

    def __post_init__(self) -> None:
        for name, shortest in (("window", 0.0), ("patch", 0.01), ("bin", 0.0005)):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) > 0 and getattr(self, name) >= shortest):
                raise ConfigError(f"encoder {name} is {getattr(self, name)}, expected seconds {f'>= {shortest:g}' if shortest else '> 0'}")
        for name, least in (("width", 1), ("heads", 1), ("latents", 1), ("kernel", 1), ("window_layers", 0), ("context_layers", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"encoder {name} is {getattr(self, name)}, expected an integer >= {least}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"encoder dropout is {self.dropout}, expected a share in [0, 1)")
        if self.bin > self.window:
            raise ConfigError(f"encoder bin is {self.bin:g} s, longer than a window of {self.window:g} s: expected a part of it, such as 0.05")
        if self.width % (4 * self.heads):
            raise ConfigError(f"encoder width {self.width} with {self.heads} heads: expected a multiple of 4 x heads")


class Encoder(nn.Module):
    """Window encoder and context encoder.

    Taps, by name: ``latents`` (window, latent, width), in the order of time within the window; ``summary`` (window, width);
    ``context`` (window, width). The latents of a 4-s window of the tiny encoder lie 0.5 s apart; ``heads.Reconstruction`` and
    any head that needs finer time queries them with rotary time.
    """

    def __init__(self, config: EncoderConfig | None = None) -> None:
        super().__init__()
        self.config = c = config or EncoderConfig()
        self.window = WindowEncoder(c.width, c.heads, c.latents, c.window_layers, c.dropout, c.spike_tokens)
        self.summarise = nn.Linear(c.latents * c.width, c.width)
        self.context = ContextEncoder(c.width, c.heads, c.context_layers, c.dropout, c.kernel, c.causal)
        self.load_report: LoadReport | None = None

    def summary(self, batch: Batch, hidden: Sequence[Hidden] | None = None) -> tuple[Tensor, Tensor]:
        """Summary (window, width) of each window, and which windows hold any data (window,)."""
        latents, present = self.window(batch, hidden)
        return self.summarise(latents.flatten(1)), present

    @torch.no_grad()
    def summaries(self, grid: WindowGrid, progress: Callable[[str, float], None] | None = None, *, keep: bool = False) -> tuple[Tensor, Tensor]:
        """Summaries (window, width) of a whole recording and which windows hold data, without gradient, in chunks of flat memory.

        `keep`: whether the grid is to keep the features for a further pass, where it has room.
        """
        device = next(self.parameters()).device
        # Filled as it comes: small pieces kept between large passing ones would keep a hole of the heap each.
        values = torch.empty(len(grid), self.config.width, device=device)
        present = torch.empty(len(grid), dtype=torch.bool, device=device)
        for i in range(0, len(grid), CHUNK):
            chunk = slice(i, min(i + CHUNK, len(grid)))
            values[chunk], present[chunk] = self.summary(grid.batch(chunk, keep=keep).to(device))
            if progress is not None:
                progress("encode", chunk.stop / len(grid))
        return values, present

    def contexts(self, summaries: Tensor, present: Tensor, length: float) -> Tensor:
        """Context (window, width) of a whole recording's summaries (window, width), in overlapping spans where it is very long."""
        return torch.cat([x for _, x in self.contexts_by_span(summaries, present, length)])

    def contexts_by_span(self, summaries: Tensor, present: Tensor, length: float) -> Iterator[tuple[slice, Tensor]]:
        """As :meth:`contexts`, a span at a time: its windows, and their context (window, width)."""
        time = torch.arange(len(summaries), dtype=torch.float64, device=summaries.device) * length
        for own, seen in overlapping_spans(len(summaries)):
            x = self.context(summaries[None, seen], time[None, seen], present[None, seen], length)
            yield own, x[0, own.start - seen.start : own.stop - seen.start]

    @torch.no_grad()
    def encoded(self, grid: WindowGrid) -> tuple[Tensor, Tensor, Tensor]:
        """``summary`` and ``context`` (window, width) of a recording, without dropout, and which windows hold any data (window,)."""
        was, _ = self.training, self.eval()
        summaries, present = self.summaries(grid)
        context = self.contexts(summaries, present, grid.window)
        self.train(was)
        return summaries, context, present

    def taps(self, grid: WindowGrid) -> dict[str, NDArray[np.float32]]:
        """``summary`` and ``context`` (window, width) of a recording, as arrays."""
        summaries, context, _ = self.encoded(grid)
        return {"summary": summaries.cpu().numpy(), "context": context.cpu().numpy()}

    @property
    def n_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())


def overlapping_spans(n: int, size: int = CONTEXT) -> list[tuple[slice, slice]]:
    """The part of `n` rows that each span answers for, and the part that it sees: all where n <= size, else half of `size` and a quarter on either side."""
    if n <= size:
        return [(slice(0, n), slice(0, n))]
    around, step = size // 4, size // 2
    return [(slice(i, min(i + step, n)), slice(max(i - around, 0), min(i + step + around, n))) for i in range(0, n, step)]
