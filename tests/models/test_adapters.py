"""Adapters begin as nothing, are all that is trained, and fold into plain weights."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from brainmu.errors import ConfigError, InputError
from brainmu.models import Encoder, EncoderConfig
from brainmu.models.adapters import Adapted, AdapterConfig, add_adapters, merge_adapters, merged

SMALL = EncoderConfig(width=32, heads=2, latents=4, window_layers=2, context_layers=1, dropout=0.0)


def encoder() -> Encoder:
    torch.manual_seed(0)
    return Encoder(SMALL).eval()


def context(e: Encoder) -> torch.Tensor:
    x = torch.randn(2, 12, 32, generator=torch.Generator().manual_seed(1))
    return e.context(x, torch.arange(12.0)[None] * 4)


def disturb(e: Encoder) -> None:
    with torch.no_grad():
        for m in e.modules():
            if isinstance(m, Adapted):
                m.up.normal_(std=0.1)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 6), st.floats(0.1, 64), st.booleans())
def test_a_merged_layer_is_the_adapted_one(n_in, n_out, rank, alpha, bias):
    linear = nn.Linear(n_in, n_out, bias=bias)
    x = torch.randn(5, n_in)
    before = linear(x)
    layer = Adapted(linear, AdapterConfig(rank, alpha))
    assert torch.equal(layer(x), before)
    nn.init.normal_(layer.up)
    unmerged = layer(x)
    plain = layer.plain()
    assert isinstance(plain, nn.Linear) and torch.allclose(plain(x), unmerged, rtol=1e-4, atol=1e-4 * alpha)


def test_every_attention_and_feed_forward_layer_gets_one_and_nothing_else_is_left_to_train():
    e = encoder()
    before = context(e)
    free = add_adapters(e, AdapterConfig(rank=3))
    named = {k for k, p in e.named_parameters() if p.requires_grad}
    assert all(k.endswith((".down", ".up")) for k in named) and len(named) == len(free)
    # The reading block, two window blocks and a context block, each with five linear layers; no convolution, no token layer.
    assert len({k.rsplit(".", 1)[0] for k in named}) == 4 * 5
    assert all(".attention." in k or ".mlp." in k for k in named)
    width, wide = 32, 4 * 32
    assert sum(p.numel() for p in free) == 4 * 3 * ((width + width) + (width + 2 * width) + (width + width) + 2 * (width + wide))
    assert torch.equal(context(e), before)


def test_merging_keeps_the_function_and_the_names_of_a_plain_encoder():
    e, plain = encoder(), encoder()
    add_adapters(e)
    disturb(e)
    unmerged = context(e)
    copy = merged(e)
    assert copy is not e and any(isinstance(m, Adapted) for m in e.modules())
    assert merge_adapters(e) is e and merged(e) is e
    assert list(e.state_dict()) == list(copy.state_dict()) == list(plain.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(e.state_dict().values(), copy.state_dict().values()))
    assert [type(m) for m in e.modules()] == [type(m) for m in plain.modules()]
    assert torch.allclose(context(e), unmerged, atol=1e-5) and not torch.allclose(unmerged, context(plain), atol=1e-2)


def test_what_cannot_be_adapted():
    e = encoder()
    add_adapters(e)
    with pytest.raises(InputError, match="some already"):
        add_adapters(e)
    with pytest.raises(InputError, match="Linear has no attention"):
        add_adapters(nn.Linear(2, 2))
    for bad in (dict(rank=0), dict(alpha=0.0), dict(alpha=float("nan")), dict(dropout=1.0)):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            AdapterConfig(**bad)
