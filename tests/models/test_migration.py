"""Checkpoints of older formats load and do what they did."""

from __future__ import annotations

import re

import pytest
import torch
import yaml
from safetensors.torch import save_file

from brainmu.errors import CheckpointError
from brainmu.models import Encoder, EncoderConfig, load_encoder
from brainmu.models.checkpoint import plain, read_checkpoint
from brainmu.models.migration import FORMAT, migrate
from brainmu.windows.batch import Batch, Stream
from brainmu.windows.spectra import N_FEATURES
from brainmu.windows.statistics import IDENTITY_SIZE

CONFIG = EncoderConfig(width=32, heads=2, latents=4, window_layers=1, context_layers=1)


def as_format_1(encoder: Encoder) -> dict[str, torch.Tensor]:
    """The weights of an encoder as the first format named them: without what came later."""
    out = {}
    for name, value in encoder.state_dict().items():
        if ".straight." in name or name.endswith("slope") or name == "window.idle":
            continue
        out["encoder." + re.sub(r"\.bent\.", ".", name)] = value
    return out


def write(folder, weights, version):
    folder.mkdir()
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "model.safetensors")
    (folder / "config.yaml").write_text(yaml.safe_dump({"format": version, "type": "encoder", "encoder": plain(CONFIG)}))
    return folder


def batch() -> Batch:
    g = torch.Generator().manual_seed(0)
    rows = torch.arange(2)
    valid = torch.ones(3, 2, 4, dtype=torch.bool)[:2]
    s = Stream("lfp", "field", rows, torch.randn(2, 2, 4, N_FEATURES, generator=g), valid, torch.randn(2, IDENTITY_SIZE["field"], generator=g))
    return Batch(torch.tensor([0.0, 4.0, 8.0]).double().numpy(), 4.0, torch.zeros(3, dtype=torch.long).numpy(), [s])


def test_what_a_format_added_does_nothing_until_it_is_trained(tmp_path):
    """The first format's encoder is today's with slopes of zero, no straight map, and an empty token that is read only where there is nothing else."""
    torch.manual_seed(0)
    old = Encoder(CONFIG).eval()
    with torch.no_grad():
        old.window.read.attention.slope.zero_()
        old.window.idle.fill_(-torch.inf)
        for lift in (old.window.tokens.field, old.window.tokens.slow, old.window.tokens.features, old.window.tokens.spikes):
            lift.straight.weight.zero_()
            lift.straight.bias.zero_()
    new = load_encoder(write(tmp_path / "old", as_format_1(old), 1))
    assert not new.load_report.new and not new.load_report.missing
    with torch.no_grad():
        a, b = old.window(batch()), new.window(batch())
    # Two windows with data, and one without, where minus infinity would leave nothing.
    assert torch.equal(a[1], b[1]) and b[1].tolist() == [True, True, False]
    assert torch.equal(a[0][:2], b[0][:2]) and bool(torch.isfinite(b[0]).all())


def test_todays_weights_stay_as_they_are():
    weights = Encoder(CONFIG).state_dict()
    assert migrate({"format": FORMAT}, weights) is weights


@pytest.mark.parametrize("version", [0, -1, FORMAT + 1, "1", None])
def test_formats_that_never_were(tmp_path, version):
    folder = write(tmp_path / "odd", as_format_1(Encoder(CONFIG)), version)
    with pytest.raises(CheckpointError, match="format"):
        read_checkpoint(folder, ("encoder",))
