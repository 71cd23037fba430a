"""Activations of a stage model at named taps: read them, write others in their place, and see what the model then says."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brainmu.core import Recording
from brainmu.errors import InputError
from brainmu.explain.asking import beyond_the_network, differentiable
from brainmu.models.encoder import overlapping_spans

if TYPE_CHECKING:
    from brainmu.models import StageModel
    from brainmu.windows.statistics import Statistics

__all__ = ["Inside", "tap_module", "tap_names"]

_BATCH = 64


def tap_names(stager: Any) -> tuple[str, ...]:
    """The taps of a stager's encoder, from the input on: ``window.0`` … and ``latents`` (latent, width); ``summary``, ``context.0`` … and ``context`` (width,).

    Raises InputError where the stager holds no encoder.
    """
    return tuple(_taps(_model(stager)))


def _model(stager: Any) -> StageModel:
    model = differentiable(stager)
    if model is None:
        raise InputError(f"{stager!r} has no activations to look at: fit it with method='encoder'")
    return model


def _taps(model: StageModel) -> dict[str, nn.Module]:
    e = model.encoder
    window = {f"window.{i}": block for i, block in enumerate(e.window.blocks)} | {"latents": e.window.norm, "summary": e.summarise}
    return window | {f"context.{i}": block for i, block in enumerate(e.context.blocks)} | {"context": e.context.norm}


def tap_module(model: StageModel, tap: str) -> nn.Module:
    """The module whose output a tap is. Raises InputError where there is none of the name."""
    found = _taps(model)
    if tap not in found:
        raise InputError(f"tap is {tap!r}, expected one of {', '.join(found)}")
    return found[tap]


class Inside:
    """A stage model at work on one recording.

    Parameters
    ----------
    stager : SleepStager or StageModel
    recording : Recording
    statistics : Statistics or None
        Scales of the recording that this one is an edited copy of.
    """

    def __init__(self, stager: Any, recording: Recording, statistics: Statistics | None = None) -> None:
        self.model, self.tempering = _model(stager).eval(), beyond_the_network(stager)[0]
        self.grid = self.model.grid(recording, statistics)
        self.summaries, self.present = self.model.encoder.summaries(self.grid)
        self.stages, self.proba = self.model.stages, self._read(self.summaries)

    def activations(self, tap: str, rows: NDArray[np.int64]) -> Tensor:
        """Activations (row, …) at a tap of some epochs."""
        module = tap_module(self.model, tap)
        if not tap.startswith("context"):
            return torch.cat([self._encode(rows[i : i + _BATCH], module, None)[1] for i in range(0, len(rows), _BATCH)])
        kept: dict[int, Tensor] = {}
        self._read(self.summaries, module, lambda x, first: kept.update({int(r): x[0, r - first] for r in rows if 0 <= r - first < x.shape[1]}))
        return torch.stack([kept[int(r)] for r in rows])

    def with_activations(self, tap: str, rows: NDArray[np.int64], values: Tensor) -> NDArray[np.float64]:
        """Probabilities (epoch, stage) with the activations (row, …) of some epochs replaced at a tap."""
        module = tap_module(self.model, tap)
        if not tap.startswith("context"):
            summaries = self.summaries.clone()
            parts = [self._encode(rows[i : i + _BATCH], module, values[i : i + _BATCH])[0] for i in range(0, len(rows), _BATCH)]
            summaries[rows] = torch.cat(parts)
            return self._read(summaries)

        def put(x: Tensor, first: int) -> Tensor:
            here = (rows >= first) & (rows < first + x.shape[1])
            x = x.clone()
            x[0, rows[here] - first] = values[torch.from_numpy(here)]
            return x

        return self._read(self.summaries, module, put)

    # -- parts ----------------------------------------------------------------------------------------------------------
    @torch.no_grad()
    def _encode(self, rows: NDArray[np.int64], module: nn.Module, values: Tensor | None) -> tuple[Tensor, Tensor]:
        """Summaries of some epochs, and what passed the module; `values` pass in its place where given."""
        seen: list[Tensor] = []

        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor | None:
            seen.append(output)
            return values

        handle = module.register_forward_hook(hook)
        try:
            summary = self.model.encoder.summary(self.grid.batch(rows))[0]
        finally:
            handle.remove()
        return summary, seen[-1]

    @torch.no_grad()
    def _read(self, summaries: Tensor, module: nn.Module | None = None, change: Callable[[Tensor, int], Any] | None = None) -> NDArray[np.float64]:
        """Probabilities (epoch, stage); `change(x, first)` sees (1, epoch, width) of each span at a module of the context, from epoch `first` on."""
        encoder, n = self.model.encoder, len(summaries)
        time = torch.arange(n, dtype=torch.float64) * self.grid.window
        proba = np.empty((n, len(self.model.stages)))
        for own, seen in overlapping_spans(n):
            handle = None
            if module is not None and change is not None:
                handle = module.register_forward_hook(lambda _m, _i, x, a=seen.start: change(x, a))
            try:
                x = encoder.context(summaries[None, seen], time[None, seen], self.present[None, seen], self.grid.window)[0]
            finally:
                if handle is not None:
                    handle.remove()
            logits = self.model.read_out(summaries[own], x[own.start - seen.start : own.stop - seen.start]) - self.model.log_weight
            proba[own] = logits.softmax(-1).numpy()
        proba[~self.present.numpy()] = np.nan
        return proba if self.tempering is None else self.tempering.probabilities(proba)
