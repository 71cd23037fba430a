"""Uncertain stages and missed events are carried into the interval, and what they cost is what was planted."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainmu import estimate_effect
from brainmu.causal.measurement import dilution, redrawn
from brainmu.core import EventTable, Hypnogram
from brainmu.errors import DesignError
from brainmu.synth import study as planted

ASK = {"exposure": "reactivation", "design": "hazard", "horizon": 4.0, "content": "negative", "diagnostics": False}


@pytest.fixture(scope="module")
def animals():
    return planted(n_animals=5, hours=1.5, seed=4, log_hazard_ratio={"negative": 0.9, "positive": 0.0}, trials=False)[0]


def with_doubt(recording, doubt):
    """The scorer sees three epochs at once, and gives away `doubt` of its certainty."""
    h = recording.labels["scoring"]
    one = np.eye(3)[h.codes]
    seen = (one + np.r_[one[:1], one[:-1]] + np.r_[one[1:], one[-1:]]) / 3
    p = one if doubt is None else seen * (1 - doubt) + doubt / 3
    return dataclasses.replace(recording, labels=recording.labels | {"scoring": Hypnogram(h.codes, h.stages, h.epoch, h.start, p)})


# -- stages ---------------------------------------------------------------------------------------------------------
def test_stages_are_drawn_as_often_as_their_probabilities_say_and_do_not_flicker(animals):
    h = with_doubt(animals[0], 0.1).labels["scoring"]
    drawn = np.array([redrawn(h, np.random.default_rng(i)).codes for i in range(400)])
    often = (drawn[:, :, None] == np.arange(3)).mean(0)
    assert np.abs(often - h.proba).max() < 5 * 0.5 / 400**0.5
    changes = (np.diff(drawn, axis=1) != 0).sum(1).mean()
    assert changes < 1.3 * (np.diff(h.codes) != 0).sum()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-2, 2), min_size=1, max_size=40), st.integers(0, 99))
def test_certain_and_unscored_epochs_stay_as_they_are(codes, seed):
    p = np.eye(3)[np.maximum(codes, 0)].astype(np.float32)
    p[np.array(codes) < 0] = np.nan
    h = Hypnogram(np.array(codes), "rodent3", 4.0, proba=p)
    assert redrawn(h, np.random.default_rng(seed)).codes.tolist() == codes


def test_uncertain_stages_widen_the_interval_and_leave_the_estimate(animals):
    plain = estimate_effect(animals, **ASK)
    certain = estimate_effect([with_doubt(r, None) for r in animals], **ASK)
    assert (certain.estimate, certain.low, certain.high) == pytest.approx((plain.estimate, plain.low, plain.high), rel=1e-9)
    doubtful = estimate_effect([with_doubt(r, 0.3) for r in animals], **ASK)
    about = doubtful.diagnostics["uncertain_stages"]
    assert doubtful.estimate == plain.estimate and doubtful.low < plain.low and doubtful.high > plain.high and doubtful.p_value > plain.p_value
    assert about["without"]["low"] == plain.low and about["sd"] > 0 and any("as probable" in a for a in doubtful.assumptions)
    again = estimate_effect([with_doubt(r, 0.3) for r in animals], stage_draws=0, **ASK)
    assert again.low == plain.low and "uncertain_stages" not in again.diagnostics


def test_the_test_of_a_randomised_trial_holds_whatever_the_scoring():
    recordings = [with_doubt(r, 0.2) for r in planted(n_animals=4, hours=1.0, seed=2)[0]]
    a = estimate_effect(recordings, exposure="trials", draws=199, diagnostics=False)
    b = estimate_effect(recordings, exposure="trials", draws=199, diagnostics=False, stage_draws=0)
    assert a.p_value == b.p_value and a.estimate == b.estimate and a.low < b.low


# -- events ---------------------------------------------------------------------------------------------------------
def test_what_is_left_of_an_effect_is_what_counting_says():
    rng = np.random.default_rng(0)
    true = rng.poisson(0.3, 400_000)
    found = rng.binomial(true, 0.5)
    false = rng.poisson(found.mean() * (1 - 0.8) / 0.8, len(true))
    k = found + false
    left = (true > 0)[k > 0].mean() - (true > 0)[k == 0].mean()
    # What was found in an epoch says a little about what was missed there only through the recording's rate.
    assert dilution([np.bincount(k)], 0.5, 0.8) == pytest.approx(left, abs=0.03)
    assert dilution([np.bincount(k)], 1.0, 1.0) == 1.0


def missed(recording, recall, rng):
    events = recording.labels["reactivation"]
    return dataclasses.replace(recording, labels=recording.labels | {"reactivation": events[rng.random(len(events)) < recall]})


def test_an_effect_of_half_found_events_is_brought_back(animals):
    rng = np.random.default_rng(1)
    whole = estimate_effect(animals, **ASK).estimate
    half = [[missed(r, 0.5, rng) for r in animals] for _ in range(6)]
    found = [estimate_effect(r, **ASK) for r in half]
    told = [estimate_effect(r, recall=(0.4, 0.6), **ASK) for r in half]
    assert np.mean([e.estimate for e in found]) < whole
    assert abs(np.mean([e.estimate for e in told]) - whole) < abs(np.mean([e.estimate for e in found]) - whole) + 0.05
    e, o = told[0], found[0]
    assert e.p_value == o.p_value and e.high - e.low > o.high - o.low and "had every event been found" in e.regime
    assert e.diagnostics["detection"]["as_found"]["estimate"] == o.estimate and any("recall 0.4 to 0.6" in a for a in e.assumptions)
    sure = estimate_effect(half[0], recall=0.5, **ASK)
    assert sure.estimate == pytest.approx(e.estimate, rel=0.02) and sure.high - sure.low < e.high - e.low


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"recall": 0.0}, "recall is 0.0, expected a share"),
        ({"precision": (0.9, 0.7)}, "lower and upper"),
        ({"recall": "half"}, "recall is 'half'"),
        ({"recall": 0.5, "design": "msm", "adjust": ["pressure"]}, "design 'msm' does not carry it"),
        ({"recall": 0.5, "content": ("negative", "positive")}, "recall is of one content"),
        ({"stage_draws": -1}, "stage_draws is -1"),
    ],
)
def test_what_cannot_be_carried_is_refused(animals, more, words):
    with pytest.raises(DesignError, match=words):
        estimate_effect(animals, **ASK | more)


# -- indicators -----------------------------------------------------------------------------------------------------
def after_waking(recording):
    """An indicator that still shows the movement: events in the first seconds of every bout of NREM, the more the shorter the bout before was waking."""
    h = recording.labels["scoring"]
    nrem = h.codes == 1
    begin = np.flatnonzero(nrem & ~np.r_[False, nrem[:-1]]) * h.epoch
    events = recording.labels["reactivation"]
    start = np.sort(np.r_[events.start, begin + 1.0])
    table = EventTable(start, start + 0.1, content="negative", attrs={"kernel": 6.0})
    return dataclasses.replace(recording, labels=recording.labels | {"reactivation": table})


@pytest.mark.parametrize("design", ["hazard", "matched", "glm"])
def test_events_within_an_indicators_decay_after_waking_do_not_count(animals, design):
    ask = ASK | {"design": design, "content": None, "horizon": 8.0 if design == "glm" else 4.0}
    seen = [after_waking(r) for r in animals]
    settled = estimate_effect(seen, **ask)
    assert "from 8 s after the bout began" in settled.risk_set
    plain = [dataclasses.replace(r, labels=r.labels | {"reactivation": r.labels["reactivation"].assign(content="negative")}) for r in animals]
    clean = estimate_effect(plain, settle=6.0, **ask)
    assert settled.estimate == pytest.approx(clean.estimate, rel=1e-9) and settled.n_transitions == clean.n_transitions
    told = estimate_effect(seen, settle=0.0, **ask | {"diagnostics": True, "draws": 19})
    assert any("decays over 6 s" in w for w in told.diagnostics["warnings"]) and told.n_transitions > settled.n_transitions


def test_settling_is_refused_where_it_is_not_carried(animals):
    with pytest.raises(DesignError, match="settle is -1"):
        estimate_effect(animals, settle=-1, **ASK)
    with pytest.raises(DesignError, match="'msm' does not carry it"):
        estimate_effect(animals, settle=4.0, **ASK | {"design": "msm", "adjust": ["pressure"]})
