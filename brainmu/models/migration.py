"""Weights of older checkpoint formats brought to today's, so that the model does what it did when it was saved."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FORMAT", "migrate"]

FORMAT = 2
"""Version of the layout that is written.

1: tokens by a two-layer network alone; attention blind to nearness; the empty token read only where there was nothing else.
2: a linear map beside the network, slopes of nearness, and a score of the empty token. The heads of pretraining of format 1 are not brought over.
"""

Weights = dict[str, "Tensor"]


def migrate(config: Mapping[str, Any], weights: Weights) -> Weights:
    """Weights of a checkpoint of any format up to today's, as today's model names them.

    Parameters
    ----------
    config : mapping
        The checkpoint's config; its ``format`` says which steps are taken.
    weights : dict of str to Tensor
    """
    for version in range(int(config["format"]), FORMAT):
        weights = _STEPS[version](config, weights)
    return weights


def _from_1(config: Mapping[str, Any], weights: Weights) -> Weights:
    """What format 2 added is given the values at which it does nothing, and at which it has no gradient: fine-tuning leaves the slopes at zero."""
    heads = int(config.get("encoder", {}).get("heads", 4))
    out: Weights = {}
    for name, value in weights.items():
        lift = re.fullmatch(r"(encoder\.window\.tokens\.(?:field|slow|features|spikes))\.([02]\.(?:weight|bias))", name)
        out[f"{lift[1]}.bent.{lift[2]}" if lift else name] = value
        if lift and lift[2] == "0.weight":
            out[f"{lift[1]}.straight.weight"] = torch.zeros_like(value)
            out[f"{lift[1]}.straight.bias"] = torch.zeros_like(value[:, 0])
        if name == "encoder.window.read.attention.query.weight":
            out[name.replace("query.weight", "slope")] = torch.zeros(heads)
        if name == "encoder.window.nothing":
            # Not -inf: a window without any data has nothing else to read.
            out["encoder.window.idle"] = torch.full((1,), -1e4)
    return out


_STEPS: dict[int, Callable[[Mapping[str, Any], Weights], Weights]] = {1: _from_1}
