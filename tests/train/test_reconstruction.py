"""What is hidden, filled in by a pretrained encoder, subject by subject."""

from __future__ import annotations

import numpy as np
import pytest

from brainmu.core import Recording
from brainmu.errors import CheckpointError, InputError
from brainmu.models import Encoder, EncoderConfig
from brainmu.models.checkpoint import plain, write_checkpoint
from brainmu.train import pretrain, reconstruction_scores, reconstruction_table

ENCODER = {"width": 32, "heads": 2, "latents": 4, "window_layers": 1, "context_layers": 1}


def animal(i: int, spikes: bool = True) -> Recording:
    rng = np.random.default_rng(i)
    n = 160 * 100
    signals = {"lfp": dict(values=rng.standard_normal((n, 2)).cumsum(0), rate=100.0, unit="uV", kind="lfp")}
    k = 3000
    units = dict(times=np.sort(rng.uniform(0, 160, k)), unit=rng.integers(0, 4, k)) if spikes else None
    return Recording.from_arrays(f"a{i}", f"m{i}", "mouse", signals=signals, spikes=units)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = {"encoder": ENCODER, "steps": 3, "context_steps": 1, "batch": 8, "span": 16, "context_batch": 1}
    return pretrain([animal(i) for i in range(3)], tmp_path_factory.mktemp("run") / "run", config=config)


def test_one_row_a_subject_and_target(run):
    scores = reconstruction_scores(run.path, [animal(7), animal(8, spikes=False)], windows=40)
    assert set(zip(scores.subject, scores.target)) == {(s, t) for s in ("m7", "m8") for t in ("spectrum", "waveform")} | {("m7", "spikes")}
    assert np.isfinite(scores[["model", "mean", "interpolation", "last"]].to_numpy()).all() and (scores.windows == 40).all()
    assert scores.equals(reconstruction_scores(run.path, [animal(7), animal(8, spikes=False)], windows=40))
    table = reconstruction_table(scores)
    assert "| spectrum | 2 |" in table and "| spikes | 1 |" in table


def test_two_recordings_of_a_subject_are_one_subject(run):
    twice = [animal(7), animal(8)]
    twice[1].subject = "m7"
    assert set(reconstruction_scores(run.path, twice).subject) == {"m7"}


def test_nothing_to_score(run, tmp_path):
    with pytest.raises(InputError, match="no recordings"):
        reconstruction_scores(run.path, [])
    encoder = Encoder(EncoderConfig(**ENCODER))
    bare = write_checkpoint(tmp_path / "bare", encoder, {"type": "encoder", "encoder": plain(encoder.config)}, "")
    with pytest.raises(CheckpointError, match="no heads of pretraining"):
        reconstruction_scores(bare, animal(7))


def test_a_run_is_not_resumed_with_other_recordings(tmp_path):
    config = {"encoder": ENCODER, "steps": 2, "context_steps": 1, "batch": 8, "span": 16, "context_batch": 1}
    pretrain([animal(i) for i in range(3)], tmp_path / "run", config=config)
    with pytest.raises(CheckpointError, match="other: recordings"):
        pretrain([animal(i) for i in range(2)], tmp_path / "run", config=config, resume=True)
