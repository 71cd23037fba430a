"""Heads for what comes next: what they say is what follows, refits leave one animal out, and what cannot be is refused."""

import numpy as np
import pytest
import torch

from brainmu.core import Hypnogram, Recording
from brainmu.errors import InputError, MissingDataError
from brainmu.models import Encoder, EncoderConfig
from brainmu.train import outcome_heads
from brainmu.train.outcome import newton


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(0)
    return Encoder(EncoderConfig(width=16, heads=2, latents=2, window_layers=1, context_layers=1, dropout=0.0))


def animal(seed, n=900):
    """NREM in which a flag (a channel of 0 and 1) triples the chance that WAKE follows; WAKE lasts two epochs."""
    rng = np.random.default_rng(seed)
    flag = rng.random(n) < 0.3
    codes = np.ones(n, dtype=np.int64)
    for k in range(n - 1):
        before = codes[max(0, k - 1)]
        codes[k + 1] = (0 if rng.random() < (0.3 if flag[k] else 0.1) else 1) if codes[k] == 1 else (0 if before == 1 else 1)
    levels = dict(values=flag[:, None].astype(np.float32), rate=0.25, unit="1", kind="features", channels=["flag"])
    return Recording.from_arrays(f"s{seed}", f"m{seed}", signals={"levels": levels}, labels={"scoring": Hypnogram(codes, "rodent3", 4.0)}), flag, codes


def test_a_head_says_how_often_a_stage_follows(encoder):
    made = [animal(s) for s in range(4)]
    heads = outcome_heads([m[0] for m in made], encoder, kinds=["features"])
    at_risk = [(f[:-1][c[:-1] == 1], c[1:][c[:-1] == 1] == 0) for _, f, c in made]
    flag, woke = (np.concatenate(x) for x in zip(*at_risk))
    assert heads.n_epochs == len(woke) and heads.n_transitions == woke.sum() and heads.model.causal
    p = np.concatenate([heads.model.predict_proba(r)[0][:-1][c[:-1] == 1, 0] for r, _, c in made])
    # Maximum likelihood: the mean prediction is the share that woke, on the whole; and about so with and without the flag.
    assert p.mean() == pytest.approx(woke.mean(), abs=1e-4)
    assert p[flag].mean() == pytest.approx(woke[flag].mean(), abs=0.02) and p[~flag].mean() == pytest.approx(woke[~flag].mean(), abs=0.02)


def test_refits_leave_one_animal_out_and_share_the_encoder(encoder):
    made = [animal(s)[0] for s in range(3)]
    heads = outcome_heads(made, encoder, kinds=["features"])
    assert heads.subjects == ("m0", "m1", "m2") and len(heads.refits) == 3
    alone = outcome_heads(made[1:], encoder, kinds=["features"]).model
    assert heads.refits[0].encoder is heads.model.encoder
    np.testing.assert_allclose(heads.refits[0].predict_proba(made[0])[0], alone.predict_proba(made[0])[0], atol=1e-4)
    assert not np.allclose(heads.refits[0].predict_proba(made[0])[0], heads.model.predict_proba(made[0])[0], atol=1e-4)
    assert outcome_heads(made[:1], encoder, kinds=["features"]).refits == ()


def test_saved_heads_say_the_same(encoder, tmp_path):
    from brainmu.models import StageModel

    made = animal(0)[0]
    model = outcome_heads([made], encoder, kinds=["features"]).model
    again = StageModel.load(model.save(tmp_path / "head"))
    np.testing.assert_allclose(again.predict_proba(made)[0], model.predict_proba(made)[0], atol=1e-6)
    assert "mean nothing in other stages" in again.card


def test_newton_ends_where_the_gradient_is_zero():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((400, 3)) * [1.0, 5.0, 0.1] + 2.0
    y = rng.choice(3, 400, p=[0.2, 0.7, 0.1])
    weight, bias = newton(x, y, base=1, n_stages=3, ridge=0.0)
    p = np.exp(x @ weight.T + bias)
    p /= p.sum(1, keepdims=True)
    hit = np.eye(3)[y]
    np.testing.assert_allclose((p - hit).T @ np.c_[np.ones(400), x], 0.0, atol=1e-3)
    assert not weight[1].any() and bias[1] == 0
    never, low = newton(x, np.minimum(y, 1), base=1, n_stages=3, ridge=1.0)
    assert low[2] < -20 and not never[2].any()


def test_refusals(encoder):
    with pytest.raises(InputError, match="no recordings"):
        outcome_heads([], encoder)
    with pytest.raises(InputError, match="ahead is 0"):
        outcome_heads(animal(0)[0], encoder, ahead=0)
    with pytest.raises(InputError, match="not among the stages"):
        outcome_heads(animal(0)[0], encoder, source="N3")
    with pytest.raises(MissingDataError, match="expected at least 20"):
        outcome_heads(animal(0, 40)[0], encoder, kinds=["features"])
