"""The door to a stage model that attribution walks through: plain tensors in, logits out, everything differentiable."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainmu.errors import InputError
from brainmu.windows.batch import Batch
from brainmu.windows.grid import WindowGrid

if TYPE_CHECKING:
    from brainmu.models.stage_model import StageModel

__all__ = ["Door", "door_inputs"]


@dataclass
class Door:
    """Inputs of some epochs of a recording and the function from them to logits.

    ``tensors`` are what ``forward`` takes, in the order of ``names``. The first axis counts versions of the same epochs
    (1 in ``tensors``; captum stacks its steps there), the second the epochs. Missing samples are zero and stay without
    effect. Epochs outside the range give context and are held fixed.

    Attributes
    ----------
    names : tuple of str
        Streams: signal names, and "spikes".
    tensors : tuple of float32
        Field, ``domain="time"``: (1, epoch, channel, time), standardised samples.
        Field, ``domain="fourier"``: (1, epoch, channel, patch, frequency, 2), real and imaginary part of ``rfft`` of each
        patch; frequencies in ``frequencies[name]``.
        Slow: (1, epoch, channel, bin); features: (1, epoch, channel); spikes: counts (1, epoch, unit, bin).
    baselines : tuple of float32
        "Nothing": zero (the recording's median) everywhere, and for spikes each unit's expected count.
    keys : dict of tuple of str
        Channel names or unit ids of each stream, along its third axis.
    modality : dict of str
    frequencies : dict of float64 (frequency,), Hz
        Of field streams in the Fourier domain.
    times : float64 (epoch,), s
        Start of each epoch.
    epoch : float, s
    stages : tuple of str
    recording : str
    offset : int
        Epochs of context that ``forward`` reads before the first of these.

    Examples
    --------
    Integrated gradients of the REM logit of the first epoch; the attributions sum to forward(x) - forward(baseline)::

        from captum.attr import IntegratedGradients
        door = model.door(recording, 100, 101, domain="fourier")
        rem = door.stages.index("REM")
        ig = IntegratedGradients(lambda *x: door.forward(*x)[:, 0, rem])
        maps, delta = ig.attribute(door.tensors, door.baselines, n_steps=64, internal_batch_size=16, return_convergence_delta=True)
    """

    names: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    baselines: tuple[Tensor, ...]
    keys: dict[str, tuple[str, ...]]
    modality: dict[str, str]
    frequencies: dict[str, NDArray[np.float64]]
    times: NDArray[np.float64]
    epoch: float
    stages: tuple[str, ...]
    recording: str
    forward: Callable[..., Tensor] = field(repr=False)
    offset: int = 0

    @classmethod
    def of(cls, model: StageModel, grid: WindowGrid, first: int, last: int, domain: str, surround: int) -> Door:
        """See :meth:`StageModel.door`."""
        if domain not in ("time", "fourier"):
            raise InputError(f"door: domain is {domain!r}, expected 'time' or 'fourier'")
        if surround < 0:
            raise InputError(f"door: surround is {surround}, expected a number of epochs >= 0")
        modality = {k: s.modality for k, s in grid.statistics.signals.items()} | ({"spikes": "spikes"} if grid.statistics.spikes is not None else {})
        inputs, missing = door_inputs(grid, first, last, {k for k, m in modality.items() if domain == "fourier" and m == "field"})
        tensors, baselines, frequencies = [], [], {}
        for k, x in inputs.items():
            base = torch.zeros_like(x)
            if k == "spikes":
                base = base + torch.from_numpy(_expected(grid))[None, :, None]
            if domain == "fourier" and modality[k] == "field":
                frequencies[k] = np.arange(x.shape[-2]) / grid.patch
            tensors.append(x[None])
            baselines.append(base[None])
        names = tuple(inputs)
        forward = _Forward(model, grid, first, last, surround, names, missing, {k: missing[k].shape[2] for k in frequencies})
        keys = {k: tuple(str(i) for i in _unit_ids(grid)) if k == "spikes" else grid.statistics.signals[k].names for k in names}
        return cls(
            names, tuple(tensors), tuple(baselines), keys, modality, frequencies, grid.times[first:last], grid.window, model.stages,
            grid.recording.id, forward, forward.offset,
        )  # fmt: skip


def door_inputs(grid: WindowGrid, first: int, last: int, fourier: Collection[str] = ()) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs (epoch, member, …) of epochs [first, last) by stream, zero where missing, and which samples are missing; `fourier` streams by frequency."""
    arrays = {k: torch.from_numpy(v) for k, v in grid.arrays(first, last).items()}
    out = {k: torch.nan_to_num(x) for k, x in arrays.items()}
    for k in fourier:
        out[k] = torch.view_as_real(torch.fft.rfft(out[k].unflatten(2, (grid.n_patches, -1))))
    return out, {k: torch.isnan(v) for k, v in arrays.items()}


def _expected(grid: WindowGrid) -> NDArray[np.float32]:
    units = grid.statistics.spikes
    assert units is not None
    return units.rate * np.float32(grid.window / grid.n_bins)


def _unit_ids(grid: WindowGrid) -> NDArray[Any]:
    units = grid.statistics.spikes
    assert units is not None
    return units.ids


class _Forward:
    """Tensors (version, epoch, …) to logits (version, epoch, stage)."""

    def __init__(
        self, model: StageModel, grid: WindowGrid, first: int, last: int, surround: int, names: tuple[str, ...],
        missing: dict[str, Tensor], samples: dict[str, int],
    ) -> None:  # fmt: skip
        self.model, self.grid, self.names, self.missing, self.samples = model, grid, names, missing, samples
        self.n = last - first
        a, b = max(first - surround, 0), min(last + (0 if model.causal else surround), len(grid))
        self.offset, self.times = first - a, torch.from_numpy(grid.times[a:b] - grid.start)[None]
        with torch.no_grad():
            parts = [model.encoder.summary(grid.batch(slice(i, min(i + 128, b)))) for i in range(a, b, 128)]
        self.around, self.present = torch.cat([s for s, _ in parts]), torch.cat([p for _, p in parts])

    def __call__(self, *tensors: Tensor) -> Tensor:
        versions = tensors[0].shape[0]
        flat = {}
        for name, x in zip(self.names, tensors):
            x = x.flatten(0, 1)
            if name in self.samples:
                patch = self.samples[name] // self.grid.n_patches
                x = torch.fft.irfft(torch.view_as_complex(x.contiguous()), n=patch).flatten(2)
            flat[name] = x
        missing = {k: m.repeat(versions, *[1] * (m.ndim - 1)) for k, m in self.missing.items()}
        batch = Batch(np.zeros(versions * self.n), self.grid.window, np.zeros(versions * self.n, dtype=np.int64), self.grid.streams(flat, missing))
        inner = self.model.encoder.summary(batch)[0].unflatten(0, (versions, self.n))
        around = self.around.expand(versions, -1, -1)
        summaries = torch.cat([around[:, : self.offset], inner, around[:, self.offset + self.n :]], dim=1)
        context = self.model.encoder.context(summaries, self.times, self.present[None], self.grid.window)
        here = slice(self.offset, self.offset + self.n)
        return self.model.read_out(summaries[:, here], context[:, here]) - self.model.log_weight
