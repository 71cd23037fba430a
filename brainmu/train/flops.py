"""Floating-point operations of a step of pretraining, counted from shapes, and what devices can do at most.

Matrix products only, two operations a multiply-add, the backward pass twice the forward (once where a layer reads data, which
needs no gradient). What is computed twice to save memory, or on padding, is not counted: these are the operations of the model, not of a kernel.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import torch

from brainmu.models.heads import GIST_SIZE
from brainmu.models.tokens import n_tokens
from brainmu.windows.batch import Batch, Stream
from brainmu.windows.grid import SLOW_BINS
from brainmu.windows.spectra import N_FEATURES

if TYPE_CHECKING:
    from brainmu.models.context_encoder import ContextEncoder
    from brainmu.models.window_encoder import WindowEncoder

__all__ = ["context_flops", "peak_flops", "window_flops"]

PEAKS = (
    ("H200", 989e12), ("H100 PCIe", 756e12), ("H100 NVL", 835e12), ("H100", 989e12), ("GH200", 989e12), ("B200", 2250e12),
    ("A100", 312e12), ("A800", 312e12), ("A40", 150e12), ("A30", 165e12), ("A10", 125e12),
    ("L40S", 362e12), ("L40", 181e12), ("L4", 121e12),
)  # fmt: skip
"""Dense bf16 peak, operations a second, by words of the device's name (makers' data sheets; the first that fits counts)."""


def peak_flops(device: torch.device) -> float | None:
    """Dense bf16 peak of a device, operations a second; None where it is not known (every CPU)."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS if re.search(rf"\b{part}\b", name)), None)


def window_flops(encoder: WindowEncoder, batch: Batch) -> float:
    """Operations of a training step on a batch of windows: encoder, reconstruction, summary and its gist."""
    latents, width = encoder.latents.shape
    n, layers = len(batch), len(encoder.blocks)
    first = inner = 0.0
    tokens = np.zeros(n)
    for s in batch.streams:
        a, b = _tokenised(s, width)
        first, inner = first + a, inner + b
        tokens[s.rows.cpu().numpy()] += n_tokens(s)
        a, b = _reconstructed(s, latents, width)
        first, inner = first + a, inner + b
        rows, (members, known) = len(s.rows), s.identity.shape
        first, inner = first + _linear(members, known, width), inner + _linear(rows * members, width, GIST_SIZE[s.modality])
    inner += _block(n, latents, float(tokens.mean()) + 1, width) + layers * _block(n, latents, latents, width)
    inner += _linear(n, latents * width, width)
    return 2 * first + 3 * inner


def context_flops(encoder: ContextEncoder, spans: int, windows: int, heard: float, asked: float) -> float:
    """Operations of a training step of context and prediction on `spans` spans of `windows` windows, of which `heard` are read and `asked` predicted."""
    width, kernel = encoder.missing.shape[-1], encoder.locals[0].weight.shape[-1] if len(encoder.locals) else 0
    rows, layers = spans * windows, len(encoder.blocks)
    # A depthwise convolution (forward, and both gradients) and a mixing layer in each layer.
    local = layers * (2 * rows * width * kernel + _linear(rows, width, width))
    keys, last = (windows, windows) if encoder.causal else (heard, asked)
    attention = (layers - 1) * _block(spans, windows, keys, width) + _block(spans, last, keys, width)
    return 3 * (local + attention + _linear(rows, width, width)) + 2 * _linear(rows, width, width)


def _linear(rows: float, a: int, b: int) -> float:
    return 2.0 * rows * a * b


def _block(n: int, queries: float, keys: float, width: int) -> float:
    """One block of attention: `n` sequences of `queries` on `keys`."""
    projections = _linear(n * queries, width, 2 * width) + _linear(n * keys, width, 2 * width)
    return projections + 4.0 * n * queries * keys * width + 2 * _linear(n * queries, width, 4 * width)


def _tokenised(s: Stream, width: int) -> tuple[float, float]:
    """Operations that make the tokens of a stream: on data, and inside."""
    n, (members, known) = len(s.rows), s.identity.shape
    rows = n * n_tokens(s)
    if s.modality in ("field", "slow"):
        size = N_FEATURES if s.modality == "field" else SLOW_BINS
        return 2 * _linear(rows, size, width) + _linear(members, known, width), _linear(rows, width, width)
    # Sums of identity embeddings: the embeddings need a gradient, what was measured does not.
    gathered = _linear(rows, members, width)
    return _linear(members, known, width) + gathered, 3 * _linear(rows, width, width)


def _reconstructed(s: Stream, latents: int, width: int) -> tuple[float, float]:
    """Operations that ask for every token of a stream: on data, and inside."""
    n, (members, known) = len(s.rows), s.identity.shape
    queries = n_tokens(s)
    block = _block(n, queries, latents, width)
    if s.modality in ("field", "slow"):
        return _linear(members, known, width), block + _linear(n * queries, width, N_FEATURES if s.modality == "field" else 2 * SLOW_BINS)
    return _linear(members, known, width), block + _linear(n * queries, width, members)
