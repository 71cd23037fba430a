"""Attention rollout: from where in a window the latents read. Not an attribution of the output; it stands beside one, with its own check."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainmu.explain.parts import Map
from brainmu.models.attention import Attention, rotate
from brainmu.models.tokens import n_tokens

if TYPE_CHECKING:
    from brainmu.models import StageModel
    from brainmu.windows.batch import Stream
    from brainmu.windows.grid import WindowGrid

__all__ = ["rollout"]


@torch.no_grad()
def rollout(model: StageModel, grid: WindowGrid, rows: NDArray[np.int64], report: Callable[[float], None] | None = None) -> Map:
    """Share of the attention of each epoch's latents that goes to each channel, bin or stream, layer by layer and through the residual paths.

    Heads and latents are averaged. Shares of an epoch sum to 1 less what goes to the token that stands for nothing. What was read is not what decided:
    the class that is asked for does not enter.

    Returns
    -------
    dict of stream: (values, keys, modality)
        field and slow: (time of patches, channel); features and spikes: (epoch, 1), all members together.

    References
    ----------
    Abnar S, Zuidema W (2020) Quantifying attention flow in transformers. ACL; Jain S, Wallace BC (2019) Attention is not explanation. NAACL.
    """
    found: dict[str, list[NDArray[np.float64]]] = {}
    keys: dict[str, tuple[tuple[str, ...], str]] = {}
    for i in range(0, len(rows), 64):
        batch = grid.batch(rows[i : i + 64])
        shares = _window_shares(model, batch)
        counts = [n_tokens(s) for s in batch.streams]
        # Where each spike has a token they follow the bins of their stream, which is the last.
        counts[-1] += shares.shape[1] - 1 - sum(counts)
        for s, x in zip(batch.streams, shares[:, 1:].split(counts, 1)):
            found.setdefault(s.name, []).append(_by_member(s, x))
            keys[s.name] = (s.keys if s.modality in ("field", "slow") else ("all units" if s.modality == "spikes" else "all channels",), s.modality)
        if report is not None:
            report(min(i + 64, len(rows)) / len(rows))
    return {k: (np.concatenate(v), *keys[k]) for k, v in found.items()}


def _window_shares(model: StageModel, batch: Any) -> Tensor:
    """Attention (epoch, token) of the latents, mean over latents; the first token stands for nothing."""
    window = model.encoder.window
    seen: list[Tensor] = []

    def keep(module: Any, args: tuple[Any, ...], _output: Tensor) -> None:
        seen.append(_weights(module, *args).mean(1))

    handles = [b.attention.register_forward_hook(keep) for b in (window.read, *window.blocks)]
    try:
        window(batch)
    finally:
        for h in handles:
            h.remove()
    flow = seen[0]
    for layer in seen[1:]:
        # Half of what a latent holds came past the attention, by the residual path.
        flow = 0.5 * flow + 0.5 * layer @ flow
    return flow.mean(1)


def _weights(
    attention: Attention, x: Tensor, source: Tensor, at: Any, source_at: Any, mask: Tensor | None = None, causal: bool = False, apart: Tensor | None = None
) -> Tensor:  # fmt: skip
    """Attention weights (batch, head, query, key), as :class:`Attention` forms them."""
    q = rotate(attention.query(x).unflatten(-1, (attention.heads, -1)).transpose(1, 2), at)
    k = attention.key_value(source).chunk(2, dim=-1)[0]
    k = rotate(k.unflatten(-1, (attention.heads, -1)).transpose(1, 2), source_at)
    scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    if attention.slope is not None and apart is not None:
        scores = scores - attention.slope[:, None, None].abs() * apart[:, None]
    return (scores if mask is None else scores + mask).softmax(-1)


def _by_member(s: Stream, x: Tensor) -> NDArray[np.float64]:
    """Tokens (epoch, token) of a stream as (time, channel), or summed."""
    if s.modality in ("field", "slow"):
        return x.unflatten(1, tuple(s.valid.shape[1:])).transpose(1, 2).flatten(0, 1).double().numpy()
    return x.sum(1, keepdim=True).double().numpy()
