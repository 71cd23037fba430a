"""Whatever brainmu saved is loaded by its folder; anything else is refused by name."""

import pytest

import brainmu as bm
from brainmu.errors import CheckpointError, NotFoundError


def test_rules_stager_and_models_come_back(tmp_path):
    from brainmu.models import Encoder, EncoderConfig, StageModel
    from brainmu.models.stage_model import StageConfig

    bm.SleepStager(stages="rodent3", epoch=4.0, method="rules").save(tmp_path / "rules")
    assert bm.load(tmp_path / "rules").method_ == "rules"
    StageModel(StageConfig(), Encoder(EncoderConfig(width=32, context_layers=1))).save(tmp_path / "model")
    assert isinstance(bm.load(tmp_path / "model"), StageModel)


def test_refusals(tmp_path):
    with pytest.raises(NotFoundError, match=r"no config\.yaml"):
        bm.load(tmp_path)
    (tmp_path / "config.yaml").write_text("type: SleepStagger\n")
    with pytest.raises(CheckpointError, match="did you mean 'SleepStager'"):
        bm.load(tmp_path)
    with pytest.raises(NotFoundError, match="no checkpoint of that name"):
        bm.load("brainmu-nonesuch")
