"""Layer conductance: what of the difference between the recording and the baseline flows through each activation at a named tap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brainmu.explain.gradients import COMPLETE, incompleteness, score_of
from brainmu.explain.taps import tap_module

if TYPE_CHECKING:
    from brainmu.models import StageModel
    from brainmu.models.door import Door

__all__ = ["conductance"]

STEPS = (32, 64, 200)
"""Integration steps, tried in turn until the shares add up."""


def conductance(
    model: StageModel, door: Door, columns: NDArray[np.intp], tap: str, steps: tuple[int, ...] = STEPS
) -> tuple[NDArray[np.float64], float, float, int]:  # fmt: skip
    """Conductance of one run of epochs at a tap.

    Returns
    -------
    float64 (epoch, latent, dimension) or (epoch, dimension)
    float
        Sum of all shares, those of the epochs around the run included.
    float
        Difference between recording and baseline. Before the summary everything passes the tap, and the two are equal; at the context, the rest of it
        goes to the head directly.
    int
        Steps that were used.

    References
    ----------
    Dhamdhere K, Sundararajan M, Yan Q (2019) How important is a neuron? ICLR.
    """
    from captum.attr import LayerConductance

    score, n = score_of(door, columns), len(door.times)
    probe, within = nn.Identity(), not tap.startswith("context")

    def through(_module: nn.Module, _inputs: Any, x: Tensor) -> Tensor:
        # Captum counts versions along the first axis; window taps stack the epochs of all versions there.
        return probe(x.unflatten(0, (-1, n))).flatten(0, 1) if within else probe(x)

    with torch.no_grad():
        difference = float(score(*door.tensors)[0] - score(*door.baselines)[0])
    handle = tap_module(model, tap).register_forward_hook(through)
    try:
        flow, total, used = None, 0.0, 0
        for used in steps:
            flow = LayerConductance(score, probe).attribute(door.tensors, door.baselines, n_steps=used, internal_batch_size=8)[0].detach()
            total = float(flow.sum())
            if not within or incompleteness(total, difference) <= COMPLETE:
                break
    finally:
        handle.remove()
    assert flow is not None
    here = flow if within else flow[door.offset : door.offset + n]
    return here.double().numpy(), total, difference, used
