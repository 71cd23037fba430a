"""Refitted heads, the scale of log hazards, and epochs at risk by the scoring: what an effect in the model is worth against what was planted."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest

from brainmu.core import Hypnogram
from brainmu.errors import InputError
from brainmu.explain import intervene
from brainmu.explain.readouts import Summary, _log_hazard, placebo_p, with_training

ASK = dict(events="ripples", what="spikes", placebos=3, horizon=4.0, hazards=(4.0,), risk="scoring")


@pytest.fixture(scope="module")
def asleep(sessions):
    """The same recordings, scored as NREM for four minutes."""
    out = []
    for s in sessions:
        s = copy.copy(s)
        s.labels = {**s.labels, "scoring": Hypnogram(np.r_[np.ones(60, dtype=int), np.zeros(30, dtype=int)], "rodent3", 4.0)}
        out.append(s)
    return out


@pytest.fixture(scope="module")
def others(decided):
    """Heads a little different from the stager's, on the same encoder."""
    import torch

    out = []
    for k in range(4):
        m = copy.deepcopy(decided)
        with torch.no_grad():
            m.head[2].weight += 0.05 * torch.randn(m.head[2].weight.shape, generator=torch.Generator().manual_seed(k))
        out.append(m)
    return out


def test_proportional_hazards_add_up_on_the_log_hazard_scale():
    p = np.array([0.02, 0.1, 0.4])
    faster = 1 - (1 - p) ** np.exp(0.7)

    def stages(wake):
        return np.stack([wake, 1 - wake], -1)[None]

    change = _log_hazard(stages(faster), np.array([1]), np.array([0])) - _log_hazard(stages(p), np.array([1]), np.array([0]))
    np.testing.assert_allclose(change, 0.7, atol=1e-9)


def testplacebo_p_is_exact():
    # Twenty values that may change places: one in twenty is the farthest out.
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((40_000, 20))
    share = np.mean([placebo_p(float(x[0]), x[1:]) <= 0.05 for x in draws])
    assert share == pytest.approx(0.05, abs=0.004)


def test_the_jackknife_of_a_mean_is_its_standard_error():
    x = np.random.default_rng(1).standard_normal(9)
    without = np.array([np.delete(x, i).mean() for i in range(9)])
    s, errors = with_training(Summary(float(x.mean()), -9.0, 9.0, 1.0, 5), without, np.array([0.0, 0.0]))
    assert errors["se_training"] == pytest.approx(x.std(ddof=1) / 3) and errors["se_placebos"] == 0
    from scipy.stats import ttest_1samp

    assert s.p_value == pytest.approx(ttest_1samp(x, 0.0).pvalue)
    assert (s.low, s.high) == pytest.approx(tuple(ttest_1samp(x, 0.0).confidence_interval()))


def test_refits_put_their_scatter_into_the_interval(decided, asleep, others):
    alone = intervene(decided, asleep[0], **ASK)
    with_refits = intervene(decided, asleep[0], **ASK, refits=others)
    r = with_refits.diagnostics["refits"]
    assert with_refits.estimate == alone.estimate and r["n"] == 4 and len(set(r["estimates"])) == 4
    assert r["without_training"]["low"] == alone.low and r["se_training"] > 0 and with_refits.population == "training animals"
    assert with_refits.low < with_refits.estimate < with_refits.high
    # Each refit answers as it would alone.
    assert r["estimates"][2] == pytest.approx(intervene(others[2], asleep[0], **ASK).estimate, abs=1e-6)
    same = intervene(decided, asleep[0], **ASK, refits=[decided, decided])
    assert same.diagnostics["refits"]["se_training"] == pytest.approx(0, abs=1e-12)
    assert any("refits" in a for a in alone.assumptions) and not alone.diagnostics["refits"]


def test_several_animals_with_refits(decided, asleep, others):
    effect = intervene(decided, asleep, **ASK, refits=others, dose=[0.5, 1.0], scale="log_hazard")
    assert effect.scale == effect.unit == "log hazard ratio" and "log hazard of NREM to WAKE" in effect.estimand
    top = effect.diagnostics["doses"][-1]
    assert (top["estimate"], top["low"], top["high"]) == (effect.estimate, effect.low, effect.high)
    assert effect.diagnostics["readouts"]["log_hazard"]["estimate"] == pytest.approx(effect.estimate)


def test_placebos_that_the_model_has_not_seen_are_said(decided, asleep):
    from brainmu.explain.verdict import _warnings

    class Strange:
        shift, novel, loss, causal, earlier, until_read, reads, lost, crowded, unmade = (1.0, 1.0), (0.05, 0.9), None, True, 0.0, 1.0, ["spikes"], 0, 0, 0
        edits = (SimpleNamespace(places=lambda: [SimpleNamespace(patches=[], drop=[0], put_times=[])]),)

    class Asked:
        blank, blind, what, source, operation = 0.0, False, ("spikes",), "NREM", "insert"

    said = _warnings([Strange()], Asked(), 5, 19)
    assert len(said) == 1 and "90% of the windows of placebo edits" in said[0]


def test_epochs_at_risk_by_the_scoring(decided, asleep):
    effect = intervene(decided, asleep[0], **ASK)
    # Events of the first 59 epochs, of which another one of NREM follows.
    could = int((asleep[0].events("ripples").start < 59 * 4.0).sum())
    assert could - 2 <= effect.n_events <= could and effect.risk_set == "epochs that scoring scores NREM"


def test_refusals(untrained, decided, asleep):
    import torch

    other = copy.deepcopy(untrained)
    with torch.no_grad():
        next(other.encoder.parameters()).add_(1.0)
    with pytest.raises(InputError, match="another encoder"):
        intervene(untrained, asleep[0], **ASK, refits=[other, other])
    with pytest.raises(InputError, match="scale is 'odds'"):
        intervene(untrained, asleep[0], **ASK, scale="odds")
    from brainmu.sleep import SleepStager

    with pytest.raises(InputError, match="one encoder"):
        intervene(SleepStager(stages="rodent3", epoch=4.0, method="rules"), asleep[0], **ASK, refits=[decided, decided])
