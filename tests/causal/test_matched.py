import numpy as np
import pytest

from brainmu.causal import estimate_effect
from brainmu.causal.grid import EpochGrid, Transition
from brainmu.causal.hazard import HazardModel
from brainmu.causal.matched import conditional_effects, fit_matched
from brainmu.causal.matching import Matching, exposure_arms
from brainmu.causal.outcome import Outcome
from brainmu.core import EventTable, Hypnogram, Recording, Signal
from brainmu.errors import DesignError

ASK = {"exposure": "reactivation", "design": "matched", "adjust": ["pressure"]}


@pytest.fixture(scope="module")
def study(planted_study):
    return planted_study(1, animals=6, planted=planted_study.settings(effect=0.7, gamma=0.8, drive=0.8))[0]


def matched(recs, matching=None, **model):
    grids = [EpochGrid.of(r, r.subject, Transition("NREM", "WAKE"), "scoring") for r in recs]
    tables = [r.events("reactivation") for r in recs]
    return fit_matched(grids, tables, Outcome.parse("NREM->WAKE"), 4.0, HazardModel(**({"adjust": ("pressure",)} | model)), matching or Matching())


@pytest.mark.parametrize("distance", ["propensity", "mahalanobis"])
def test_matches_are_of_the_same_animal_and_time_in_bout_unexposed_and_within_the_caliper(study, distance):
    f = matched(study, Matching(matches=3, distance=distance, caliper=0.3))
    rows, sets = f.rows, f.sets
    there = sets.control >= 0
    for values in (rows.animal, rows.age):
        assert (values[sets.control] == values[sets.exposed][:, None])[there].all()
    assert f.exposed[sets.exposed].all() and f.unexposed[sets.control[there]].all()
    assert there[:, 0].all() and sets.control.shape[1] == 3
    assert len(sets.exposed) + len(sets.unmatched) == f.exposed.sum()
    # No control twice in one set.
    assert all(len(set(c[c >= 0])) == (c >= 0).sum() for c in sets.control)
    if distance == "mahalanobis":
        sd = np.concatenate([rows.values[rows.animal == j, 0] - rows.values[rows.animal == j, 0].mean() for j in range(6)]).std()
        apart = np.abs(rows.values[sets.control, 0] - rows.values[sets.exposed, :1]) / sd
        assert apart[there].max() <= 0.3 + 1e-9


def test_the_conditional_likelihood_is_that_of_statsmodels(study):
    from statsmodels.discrete.conditional_models import ConditionalLogit

    f = matched(study)
    y, groups, x = [], [], []
    for s, (e, c) in enumerate(zip(f.sets.exposed, f.sets.control)):
        members = np.r_[e, c[c >= 0]]
        y += f.values[members].tolist()
        x += [1.0] + [0.0] * (len(members) - 1)
        groups += [s] * len(members)
    hits = np.bincount(groups, y)
    tells = np.isin(groups, np.flatnonzero((hits > 0) & (hits < np.bincount(groups))))
    y, x, groups = (np.asarray(v)[tells] for v in (y, x, groups))
    theirs = ConditionalLogit(y, x[:, None], groups=groups)
    ours = conditional_effects(f.values, f.rows, f.sets)[0]
    assert ours == pytest.approx(theirs.fit(disp=0).params[0], abs=1e-3)
    assert abs(theirs.score(np.array([ours]))[0]) < 1e-3  # their optimiser stops sooner than ours


def test_a_planted_effect_is_recovered_and_balance_is_made(study):
    e = estimate_effect(study, draws=200, **ASK)
    assert e.low < 0.7 < e.high and e.p_value < 0.01 and (e.unit, e.level, e.n_units) == ("log odds ratio", "observational", 6)
    d = e.diagnostics
    by = {b["covariate"]: b for b in d["balance"]}
    assert by["pressure"]["before"] > 0.3 and abs(by["pressure"]["after"]) < 0.05 and abs(by["time in bout"]["after"]) < 1e-9
    assert 0 < d["matching"]["unmatched_share"] < 0.5 and d["matching"]["matched"] == e.n_exposed
    assert d["risk_difference"]["low"] < d["means"]["exposed"] - d["means"]["matches"] < d["risk_difference"]["high"]
    assert d["sensitivity"]["e_value"] > d["sensitivity"]["e_value_interval"] > 1
    assert abs(d["hazard"]["estimate"] - e.estimate) < 0.4
    assert e.to_json() and "Among exposed epochs" in e.estimand
    bare = estimate_effect(study, diagnostics=False, **ASK)
    assert (bare.estimate, bare.low, bare.diagnostics) == (e.estimate, e.low, {})


def test_left_out_confounding_is_said(study):
    e = estimate_effect(study, exposure="reactivation", design="matched", draws=100)
    assert any("no measured confounder" in w for w in e.diagnostics["warnings"]) and "association only" in e.diagnostics["verdict"]


def test_contents_are_compared_pure(planted_study):
    s = planted_study.settings(contents=("negative", "positive"), content_effects=(1.2, -0.8), rate=0.0)
    recs = planted_study(2, animals=8, planted=s)[0]
    f = matched(recs, content="negative", adjust=())
    assert (f.rows.dose[f.exposed].sum(1) >= 1).all() and not f.rows.dose[f.unexposed].any()
    pair = estimate_effect(recs, exposure="reactivation", design="matched", content=("negative", "positive"), diagnostics=False)
    assert pair.low < 2.0 < pair.high and pair.low > 0.8
    with pytest.raises(DesignError, match="'joy' does not occur"):
        exposure_arms(f.rows, "joy")


def test_nothing_to_be_alike_but_time_in_bout(study):
    one, two = (
        estimate_effect(study, exposure="reactivation", design="matched", clock=False, distance=d, diagnostics=False) for d in ("propensity", "mahalanobis")
    )
    assert np.isfinite([one.low, two.low]).all() and two.estimate == pytest.approx(one.estimate, abs=0.3)


def test_what_matching_cannot_do(study):
    with pytest.raises(DesignError, match="matches is 0"):
        estimate_effect(study, matches=0, **ASK)
    with pytest.raises(DesignError, match="caliper is -1"):
        estimate_effect(study, caliper=-1, **ASK)
    with pytest.raises(DesignError, match="distance is 'near'"):
        estimate_effect(study, distance="near", **ASK)
    with pytest.raises(DesignError, match="dose is 'count'"):
        estimate_effect(study, dose="count", **ASK)
    with pytest.raises(DesignError, match="finds an unexposed one"):
        estimate_effect(study, caliper=1e-12, distance="mahalanobis", **ASK)


def test_one_animal_is_said_to_be_one(study):
    e = estimate_effect(study[0], draws=100, **ASK)
    assert np.isfinite([e.low, e.high]).all() and e.n_units == 1 and any("one animal" in w for w in e.diagnostics["warnings"])


def sleeper(i, lift=0.0, seconds=0.0, n=900):
    """NREM in bouts; events lift a 1-Hz signal for 20 s, and shorten what is left of the bout."""
    rng = np.random.default_rng(i)
    stages = []
    events = []
    while len(stages) < n:
        begin, event = len(stages), rng.random() < 0.5
        left = 1 + rng.geometric(0.08 + seconds * event)
        if event:
            events.append((begin + 1) * 4.0 + rng.random() * 3)
        stages += ["NREM"] * (2 + left) + ["WAKE"] * (1 + rng.geometric(0.3))
    t = np.array(events)
    x = rng.standard_normal(len(stages) * 4) + i
    for e in t:
        x[int(e) + 1 : int(e) + 21] += lift
    labels = {"scoring": Hypnogram.from_stages(stages, epoch=4.0), "reactivation": EventTable(t, t + 0.1)}
    return Recording(f"r{i}", f"m{i}", labels=labels, signals={"sigma": Signal(x, rate=1.0, unit="uV", channels=["a"])})


def test_a_signal_and_the_rest_of_the_bout_after_an_event():
    recs = [sleeper(i, lift=2.0, seconds=0.12) for i in range(6)]
    ask = {"exposure": "reactivation", "design": "matched", "draws": 100}
    lifted = estimate_effect(recs, outcome="signal:sigma", horizon=8.0, **ask)
    assert lifted.unit == "uV" and lifted.low < 2.0 < lifted.high and lifted.low > 1.0
    assert estimate_effect(recs, outcome="change:sigma", horizon=8.0, **ask).low > 1.0
    shorter = estimate_effect(recs, outcome="bout length", horizon=120.0, **ask)
    # Geometric with 0.2 instead of 0.08: 4 s * (1 / 0.2 - 1 / 0.08) less.
    assert shorter.unit == "s" and shorter.low < -30.0 < shorter.high and shorter.high < -15
    assert shorter.diagnostics["verdict"].startswith("Exposed epochs have less time until NREM ends")
    to_wake = estimate_effect(recs, outcome="time to WAKE", horizon=120.0, **ask)
    assert to_wake.estimate == pytest.approx(shorter.estimate, abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("animals", "effect"), [(4, 0.0), (6, 0.6)])
def test_error_rates_of_matching(planted_study, animals, effect):
    """200 studies a cell, an observed confounder: rejections under the null, coverage of the planted effect."""
    s = planted_study.settings(effect=effect, gamma=0.8, drive=0.8)
    found = [estimate_effect(recs, diagnostics=False, **ASK) for recs in planted_study(41, animals=animals, studies=200, hours=1.5, planted=s)]
    assert 0.90 < np.mean([e.low <= effect <= e.high for e in found]) < 0.99
    assert abs(np.mean([e.estimate for e in found]) - effect) < 0.06


def test_no_transition_after_any_matched_exposed_epoch(planted_study):
    """The plain odds ratio is infinite then: the answer stays finite, and says that a prior holds it."""
    recordings = planted_study(0, animals=1, hours=1.0, planted=planted_study.settings(rate=-2.5))[0]
    rec = recordings[0]
    h = rec.hypnogram("scoring")
    events = rec.events("reactivation")
    # Events whose next epoch but one leaves NREM are dropped, so that nothing follows an exposed epoch.
    k = ((events.start - h.start) // h.epoch).astype(int)
    stays = h.mask("NREM")[np.minimum(k + 2, len(h) - 1)]
    found = estimate_effect(rec, exposure={rec.id: events[stays]}, design="matched", draws=99)
    assert found.estimate < 0 and np.isfinite([found.low, found.high]).all() and abs(found.estimate) < 8
    assert any("held back by a weak prior" in w for w in found.diagnostics["warnings"])
