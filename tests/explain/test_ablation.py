"""Activations: what is put in is what the layers behind read, and what carries nothing can be taken out without loss."""

import numpy as np
import pytest
import torch

from brainmu.errors import InputError, MissingDataError
from brainmu.explain import ablate, patch, tap_names
from brainmu.explain.edits import apply_edits
from brainmu.explain.operations import removal_edits
from brainmu.explain.taps import Inside

TAPS = ("window.0", "latents", "summary", "context.0", "context")


@pytest.fixture(scope="module")
def undecided():
    """A stage model with random weights that takes some epochs for each of two stages."""
    from brainmu.models.encoder import Encoder, EncoderConfig
    from brainmu.models.stage_model import StageConfig, StageModel

    torch.manual_seed(1)
    model = StageModel(StageConfig(), Encoder(EncoderConfig(width=32, heads=2, latents=4, window_layers=1, context_layers=1))).eval()
    return model


@pytest.fixture(scope="module")
def balanced(undecided, sessions):
    """The same, with its biases set so that half of the epochs of the first session are NREM and half WAKE."""
    inside = Inside(undecided, sessions[0])
    odds = np.log(inside.proba[:, 1] / inside.proba[:, 0])
    with torch.no_grad():
        undecided.head[-1].bias += torch.tensor([float(np.median(odds)), 0.0, -20.0])
    return undecided


@pytest.mark.parametrize("tap", TAPS)
def test_writing_back_what_was_there_changes_nothing(balanced, sessions, tap):
    assert tap_names(balanced) == TAPS
    inside = Inside(balanced, sessions[0])
    assert inside.proba == pytest.approx(balanced.predict_proba(sessions[0])[0], abs=1e-5)
    rows = np.array([3, 4, 20])
    x = inside.activations(tap, rows)
    assert inside.with_activations(tap, rows, x) == pytest.approx(inside.proba, abs=1e-6)
    other = x + torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    assert np.abs(inside.with_activations(tap, rows, other) - inside.proba)[rows].max() > 1e-4


@pytest.mark.parametrize("tap", TAPS)
def test_patching_all_epochs_restores_the_clean_run(balanced, sessions, tap):
    clean = sessions[0]
    edited = apply_edits(clean, removal_edits(clean, clean.events("ripples")))
    effect = patch(balanced, edited, clean, tap, target="NREM", epochs=range(len(Inside(balanced, clean).proba)), placebos=2)
    d = effect.diagnostics
    # The head reads summary and context: what is restored behind the summary leaves the summary's own share.
    if not tap.startswith("context"):
        assert d["restored"] == pytest.approx(1.0, abs=1e-3)
    else:
        assert np.isfinite(d["restored"]) and abs(d["gap"]) > 0


@pytest.mark.parametrize("how", ["mean", "resample", "project"])
def test_ablation_hurts_more_than_a_random_change_of_equal_norm(balanced, sessions, how):
    effect = ablate(balanced, sessions[0], "summary", how, target="NREM", placebos=4)
    assert effect.estimate < 0 and effect.low <= effect.estimate <= effect.high and effect.level == "model"
    assert all("in the model" in line.lower() for line in str(effect).splitlines())
    again = ablate(balanced, sessions[0], "summary", how, target="NREM", placebos=4)
    assert again.to_json() == effect.to_json()


@pytest.mark.parametrize("tap", ["window.0", "context.0"])
def test_a_direction_that_nothing_reads_can_be_projected_out(balanced, sessions, tap):
    # A LayerNorm follows, which takes the mean over the width away: the direction of ones carries nothing.
    effect = ablate(balanced, sessions[0], tap, "project", target="NREM", direction=np.ones(32), placebos=2)
    assert np.abs(effect.diagnostics["change_events"]).max() < 1e-4 and effect.diagnostics["relative_step"] > 0
    other = np.random.default_rng(0).standard_normal(32)
    effect = ablate(balanced, sessions[0], tap, "project", target="NREM", direction=other - other.mean(), placebos=2)
    assert np.abs(effect.diagnostics["change_events"]).max() > 1e-3


def test_projection_leaves_the_recordings_mean_along_the_direction(balanced, sessions):
    from brainmu.explain.ablation import _ablated

    inside = Inside(balanced, sessions[0])
    d = np.random.default_rng(0).standard_normal(32)
    d /= np.linalg.norm(d)
    rows = np.arange(40)
    new = _ablated(inside, "summary", "project", rows, d, "NREM", np.random.default_rng(0)).numpy() @ d
    old = inside.activations("summary", rows).numpy() @ d
    assert np.ptp(new) < 1e-4 * np.ptp(old)


def test_several_animals(balanced, sessions):
    effect = ablate(balanced, sessions, "context", target="NREM", placebos=2)
    assert effect.n_units == 2 and effect.population == "animals"


def test_refusals(balanced, sessions):
    with pytest.raises(InputError, match=r"expected one of window\.0"):
        ablate(balanced, sessions[0], "logits", target="NREM")
    with pytest.raises(InputError, match="mean, resample, project"):
        ablate(balanced, sessions[0], how="zero", target="NREM")
    with pytest.raises(InputError, match="direction has shape"):
        ablate(balanced, sessions[0], how="project", target="NREM", direction=np.ones(5))
    with pytest.raises(InputError, match="expected how='project'"):
        ablate(balanced, sessions[0], how="mean", target="NREM", direction=np.ones(32))
    with pytest.raises(MissingDataError, match="no epoch for REM"):
        ablate(balanced, sessions[0], target="REM")
    with pytest.raises(InputError, match=r"epoch 1000000 is outside 0\.\."):
        ablate(balanced, sessions[0], target="NREM", epochs=[10**6])
    from brainmu.sleep import SleepStager

    with pytest.raises(InputError, match="no activations"):
        ablate(SleepStager(stages="rodent3", epoch=4.0, method="rules"), sessions[0], target="NREM")
