from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import brainmu.synth as synth
from brainmu.core import Hypnogram
from brainmu.core.metrics import accuracy, cohen_kappa
from brainmu.errors import InputError
from brainmu.synth.effects import Mechanism, live
from brainmu.synth.scorer import HUMAN_CONFUSION, RODENT_CONFUSION, ScorerModel, scorings, smooth
from brainmu.synth.sleep import HumanSleep, RodentSleep, human_bouts, score


def _night(species, seed):
    if species == "human":
        bouts = human_bouts(HumanSleep(), 28800.0, np.random.default_rng(seed))
        return score(bouts, 30.0, "aasm5", 0.0, 28800.0), bouts
    bouts = live(Mechanism(), RodentSleep(), 0.0, 7200.0, np.random.default_rng(seed)).bouts
    return score(bouts, 4.0, "rodent3", 0.0, 7200.0), bouts


def _scored(species, seed, **model):
    truth, bouts = _night(species, seed)
    return truth, list(scorings(ScorerModel(**model), truth, bouts, np.random.default_rng(0), (seed, 9)).values())


def _counts(a, b):
    out = np.zeros((len(a.stages), len(a.stages)), dtype=int)
    np.add.at(out, (a.codes, b.codes), 1)
    return out


def test_the_default_scorer_writes_the_truth():
    truth, scored = _scored("human", 0)
    assert scored == [truth]
    rec, told = synth.recording(hours=0.5, seed=2, n_cells=0)
    assert rec.labels["scoring"] == told.hypnogram
    assert [k for k, v in rec.labels.items() if isinstance(v, Hypnogram)] == ["scoring"]


@pytest.mark.parametrize("species, table", [("human", HUMAN_CONFUSION), ("mouse", RODENT_CONFUSION)])
def test_each_stage_is_mistaken_as_often_as_the_table_says(species, table):
    total = 0
    for seed in range(12):
        truth, scored = _scored(species, seed, scorers=2, disagreement=1.0)
        total = total + sum(_counts(truth, x) for x in scored)
    found = total / total.sum(1, keepdims=True)
    for i, stage in enumerate(truth.stages):
        assert 1 - found[i, i] == pytest.approx(sum(table[stage].values()), abs=0.035)
        for j, other in enumerate(truth.stages):
            if i != j:
                assert found[i, j] == pytest.approx(table[stage].get(other, 0.0), abs=0.08)  # it leans towards the neighbours
    if species == "human":
        assert np.diag(found).argmin() == truth.stages.index("N1")


@pytest.mark.parametrize("species, disagreement, low, high", [("human", 1.0, 0.64, 0.72), ("human", 0.8, 0.70, 0.79), ("mouse", 1.0, 0.8, 0.9)])
def test_two_scorers_agree_as_published(species, disagreement, low, high):
    kappa, agree = [], []
    for seed in range(8):
        _, scored = _scored(species, seed, scorers=3, disagreement=disagreement)
        for a, b in itertools.combinations(scored, 2):
            kappa.append(cohen_kappa(_counts(a, b)))
            agree.append(accuracy(_counts(a, b)))
    assert low < np.mean(kappa) < high
    if species == "mouse":
        assert 0.9 < np.mean(agree) < 0.96


def test_a_scored_night_changes_stage_about_as_often_as_the_true_one():
    ratio = []
    for seed in range(8):
        truth, (scored,) = _scored("human", seed, disagreement=1.0)
        ratio.append(np.sum(np.diff(scored.codes) != 0) / np.sum(np.diff(truth.codes) != 0))
    assert 0.8 < np.mean(ratio) < 1.3


def test_errors_crowd_at_changes_of_stage():
    truth, (scored,) = _scored("mouse", 3, disagreement=1.0)
    wrong = scored.codes != truth.codes
    edge = np.diff(truth.codes) != 0
    near = np.r_[False, edge] | np.r_[edge, False]
    assert wrong[near].mean() > 3 * wrong[~near].mean()


def test_the_first_scorers_of_many_are_those_of_few():
    _, one = _scored("human", 5, scorers=1, disagreement=0.7)
    _, three = _scored("human", 5, scorers=3, disagreement=0.7)
    assert np.array_equal(one[0].codes, three[0].codes)
    assert not np.array_equal(three[0].codes, three[1].codes)
    assert [x.scorer for x in three] == [f"synthetic expert {i}" for i in (1, 2, 3)]


def test_a_table_of_ones_own_is_kept_to():
    truth, (scored,) = _scored("human", 1, disagreement=1.0, confusion={"N2": {"N3": 0.3}})
    counts = _counts(truth, scored)
    n2, n3 = truth.stages.index("N2"), truth.stages.index("N3")
    assert counts[n2, n3] / counts[n2].sum() == pytest.approx(0.3, abs=0.08)
    counts[n2, n3] = 0
    assert np.array_equal(counts, np.diag(np.diag(counts)))


def test_artefacts_are_lost_to_every_scorer_and_only_in_waking():
    truth, scored = _scored("mouse", 2, scorers=2, artefact_share=0.2)
    lost = scored[0].codes == -1
    assert np.array_equal(lost, scored[1].codes == -1)
    assert (truth.codes[lost] == 0).all()
    assert lost.sum() / (truth.codes == 0).sum() == pytest.approx(0.2, abs=0.05)
    assert np.array_equal(scored[0].codes[~lost], truth.codes[~lost])


@given(st.lists(st.integers(0, 2), min_size=1, max_size=80), st.integers(0, 6))
def test_smoothing_leaves_no_short_run(codes, least):
    before = np.array(codes, dtype=np.int8)
    after = smooth(before, least)
    runs = np.diff(np.r_[0, np.flatnonzero(np.diff(after)) + 1, len(after)])
    assert len(after) == len(before)
    assert set(after) <= set(before)
    assert len(runs) == 1 or runs.min() >= least
    assert np.array_equal(smooth(after, least), after)
    if least <= 1:
        assert np.array_equal(after, before)


def test_recordings_carry_every_scorer_and_the_exact_truth():
    for species, hours in (("mouse", 0.5), ("human", 2.0)):
        plain, truth = synth.recording(hours=hours, seed=4, species=species, n_cells=0)
        rec, told = synth.recording(hours=hours, seed=4, species=species, n_cells=0, scorers=2, disagreement=1.0, min_bout=8.0)
        assert told.hypnogram == truth.hypnogram == plain.labels["scoring"]
        assert told.bouts.equals(truth.bouts)
        assert rec.hypnogram("scoring") != told.hypnogram
        assert rec.hypnogram("scoring2") != rec.hypnogram("scoring")
        assert told.parameters["scorer"]["disagreement"] == 1.0


def test_humans_have_the_plain_scorer_too():
    rec, truth = synth.recording(hours=4.0, seed=1, species="human", scorer_error=0.03)
    assert 0.02 < np.mean(rec.hypnogram().codes != truth.hypnogram.codes) < 0.25


@pytest.mark.parametrize(
    "change, word",
    [
        (dict(scorers=0), "scorers"), (dict(disagreement=-1.0), "disagreement"), (dict(disagreement=3.0), "at most"), (dict(min_bout=float("nan")), "min_bout"),
        (dict(confusion={"N2": {"NREM": 0.1}}, disagreement=1.0), "NREM"), (dict(confusion={"N2": {"N2": 0.1}}, disagreement=1.0), "N2"),
        (dict(confusion={"N2": {"N1": 0.7, "N3": 0.7}}), "adds up"), (dict(artefact_share=1.5), "artefact_share"),
        (dict(confusion=[0.1]), "mapping"), (dict(confusion={"N2": 0.1}), "mapping"),
    ],
)  # fmt: skip
def test_impossible_scorers_are_refused(change, word):
    with pytest.raises(InputError, match=word):
        synth.recording(hours=0.5, seed=0, species="human", **change)


def test_a_recording_of_one_stage_can_be_scored():
    truth = Hypnogram(np.zeros(20, dtype=np.int8), "rodent3", 4.0)
    bouts = live(Mechanism(), RodentSleep(), 0.0, 80.0, np.random.default_rng(0), latency=1e6).bouts
    scored = scorings(ScorerModel(disagreement=1.0, doubt_shared=1.0, artefact_share=1.0), truth, bouts, np.random.default_rng(0), (0,))["scoring"]
    assert (scored.codes == -1).all()
