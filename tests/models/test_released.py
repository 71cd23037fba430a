"""The packaged checkpoints load by name and do what their cards say."""

from __future__ import annotations

import numpy as np
import pytest

from brainmu import synth
from brainmu.config import resource, resource_names
from brainmu.core import metrics
from brainmu.models import StageModel, load_encoder


@pytest.mark.parametrize("name", ["brainmu-tiny", "brainmu-tiny-rodent3"])
def test_packaged_whole_and_small(name):
    folder = resource("checkpoints", name)
    assert name in resource_names("checkpoints")
    assert {"model.safetensors", "config.yaml", "card.md"} <= {p.name for p in folder.iterdir()}
    assert sum(p.stat().st_size for p in folder.iterdir()) < 20e6
    card = (folder / "card.md").read_text(encoding="utf-8")
    assert "Rebuild" in card and "Licence" in card
    encoder = load_encoder(name)
    assert encoder.n_parameters < 1_000_000 and not encoder.load_report.new and not encoder.load_report.missing


def test_stage_model_on_an_animal_it_has_not_seen():
    recording, _ = synth.recording(hours=0.4, seed=4242)
    model = StageModel.load("brainmu-tiny-rodent3")
    proba, start, epoch = model.predict_proba(recording)
    true = recording.hypnogram("scoring").at(start + (np.arange(len(proba)) + 0.5) * epoch)
    assert metrics.cohen_kappa(metrics.confusion(true, proba.argmax(1), 3)) > 0.7
