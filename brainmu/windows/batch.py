"""What a model sees: windows stacked, a stream a signal, with masks and time in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainmu.errors import InputError

__all__ = ["MODALITIES", "Batch", "Stream", "collate"]

MODALITIES = ("field", "slow", "features", "spikes")
"""How a stream becomes tokens: electrical potentials with a spectrum; slow traces (calcium, behaviour, position);
one-sample-a-window features; spike counts."""


@dataclass
class Stream:
    """One signal (or the spikes) of some windows of one recording.

    Attributes
    ----------
    name : str
        Name of the signal, or "spikes".
    modality : one of MODALITIES
    rows : int64 (n,)
        Which windows of the batch these are.
    values : float32
        field: (n, channel, patch, N_FEATURES); slow: (n, channel, patch, sample); features: (n, channel);
        spikes: counts (n, unit, bin).
    valid : bool
        field and slow: (n, channel, patch); features: (n, channel); spikes: (n, bin). False where missing.
    identity : float32 (channel or unit, d)
        What is known of each channel or unit: kind, region, statistics, and a fixed signature of its name.
    keys : tuple of str
        Names of the channels, or ids of the units.
    expected : float32 (unit,) or None
        Spikes: expected count in a bin, from the rate over the whole recording.
    """

    name: str
    modality: str
    rows: Tensor
    values: Tensor
    valid: Tensor
    identity: Tensor
    keys: tuple[str, ...] = ()
    expected: Tensor | None = None

    def to(self, device: torch.device | str) -> Stream:
        moved = {k: getattr(self, k).to(device) for k in ("rows", "values", "valid", "identity")}
        return replace(self, **moved, expected=None if self.expected is None else self.expected.to(device))


@dataclass
class Batch:
    """Windows of any recordings, in any mix of modalities.

    Attributes
    ----------
    start : float64 (window,), s
        Session time at which each window begins.
    length : float, s
    session : int64 (window,)
        Which recording each window is of.
    streams : list of Stream
    """

    start: NDArray[np.float64]
    length: float
    session: NDArray[np.int64]
    streams: list[Stream] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.start)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on `device`."""
        return replace(self, streams=[s.to(device) for s in self.streams])

    @property
    def n_tokens(self) -> int:
        """Tokens that are not missing."""
        return sum(int(s.valid.any(1).sum()) if s.modality == "features" else int(s.valid.sum()) for s in self.streams)


def collate(batches: Sequence[Batch]) -> Batch:
    """One batch of several; recordings need not share modalities, channels or units."""
    if not batches:
        raise InputError("collate: no batches came, expected at least one")
    lengths = {b.length for b in batches}
    if len(lengths) > 1:
        raise InputError(f"collate: windows of {sorted(lengths)} s, expected one length")
    streams, offset = [], 0
    for b in batches:
        streams += [replace(s, rows=s.rows + offset) for s in b.streams]
        offset += len(b)
    return Batch(np.concatenate([b.start for b in batches]), batches[0].length, np.concatenate([b.session for b in batches]), streams)
