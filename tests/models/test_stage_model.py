"""A stage model with adapters is saved as a plain one."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from brainmu.core import Recording
from brainmu.models import Encoder, EncoderConfig, StageModel
from brainmu.models.adapters import Adapted, add_adapters
from brainmu.models.stage_model import StageConfig


def test_a_model_with_adapters_is_saved_in_plain_weights(tmp_path):
    torch.manual_seed(0)
    model = StageModel(StageConfig(), Encoder(EncoderConfig(width=32, heads=2, latents=4, window_layers=1, context_layers=1)))
    rec = Recording.from_arrays("a", signals={"lfp": dict(values=np.random.default_rng(0).standard_normal((8000, 2)), rate=200.0, kind="lfp")})
    plain = model.predict_proba(rec)[0]
    add_adapters(model.encoder)
    np.testing.assert_array_equal(model.predict_proba(rec)[0], plain)
    for m in model.modules():
        if isinstance(m, Adapted):
            nn.init.normal_(m.up, std=0.2)
    adapted = model.predict_proba(rec)[0]
    again = StageModel.load(model.save(tmp_path / "m"))
    assert again.load_report.new == again.load_report.missing == []
    assert not any(isinstance(m, Adapted) for m in again.modules()) and any(isinstance(m, Adapted) for m in model.modules())
    np.testing.assert_allclose(again.predict_proba(rec)[0], adapted, atol=1e-5)
    assert np.abs(adapted - plain).max() > 0.01
    assert (again.notes, again.history, again.n_trained) == ([], [], 0)
