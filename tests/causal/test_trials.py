import numpy as np
import pytest

from brainmu.causal import estimate_effect
from brainmu.causal.grid import EpochGrid, Transition
from brainmu.causal.randomise import AssignmentScheme
from brainmu.causal.trial_table import collect_trials
from brainmu.core import EventTable, Hypnogram, Recording
from brainmu.errors import DesignError, MissingDataError

KEYS = {"W": "WAKE", "N": "NREM", "R": "REM", "A": "ART", "U": "UNS"}


def recording(text, onsets, subject="m", **columns):
    onsets = np.asarray(onsets, dtype=float)
    columns = {"assigned": np.arange(len(onsets)) % 2, "probability": 0.5} | columns
    trials = EventTable(onsets, onsets + columns.pop("length", 0.5), kind="trial", **columns)
    hypnogram = Hypnogram.from_stages([KEYS[c] for c in text], epoch=4.0)
    return Recording(f"r_{subject}", subject, labels={"scoring": hypnogram, "trials": trials})


def follow(text, onsets, horizon=10.0, **columns):
    grid = EpochGrid.of(recording(text, onsets, **columns), "m", Transition("NREM", "WAKE"), "scoring")
    return collect_trials([grid], "trials", horizon=horizon, scheme=None, content=None, contrast=None)


@pytest.mark.parametrize(
    ("text", "onset", "at_risk", "end", "latency"),
    [
        ("NNNWWW", 4.0, True, "target", 8.0),  # WAKE begins at 12 s, within (4, 14]
        ("NNNWWW", 2.0, True, "target", 10.0),  # exactly at the horizon: counts
        ("NNNWWW", 1.9, True, "", 10.0),  # just beyond it
        ("NNNWWW", 12.0, False, "", None),  # awake at the onset
        ("NNNRRW", 4.0, True, "exit", 8.0),
        ("NNNAWW", 4.0, True, "end", 8.0),
        ("NNN", 4.0, True, "end", 8.0),  # the recording ends within the horizon
        ("NNNNNN", 4.0, True, "", 10.0),
        ("WWN", 99.0, False, "", None),  # outside the scoring
    ],
)
def test_what_came_first_after_the_onset(text, onset, at_risk, end, latency):
    t = follow(text, [onset])
    assert (bool(t.at_risk[0]), t.end[0]) == (at_risk, end)
    if latency is not None:
        assert t.latency[0] == pytest.approx(latency)


def test_the_next_trial_ends_follow_up_of_the_one_before():
    t = follow("NNNNWWWWWW", [4.0, 10.0])
    assert t.end.tolist() == ["next", "target"]
    assert t.latency.tolist() == [6.0, 6.0]


def test_time_in_bout_and_the_state_before_the_onset():
    t = follow("WNNNWW", [9.0])
    assert t.age[0] == pytest.approx(5.0)
    assert t.before[0] and t.before_hit[0]
    # Awake by the scoring of the onset's own epoch, but asleep in the one that was over by then.
    late = follow("NNWW", [9.0])
    assert not late.at_risk[0] and late.before[0] and late.before_hit[0]


def test_a_logged_gate_vouches_for_the_epoch_it_lies_in():
    t = follow("NNWW", [9.0], gate_time=[8.9])
    assert t.at_risk[0] and t.end[0] == "target" and t.latency[0] == 0.0 and t.own_epoch[0]
    assert not follow("NNWW", [13.0], gate_time=[12.9]).at_risk[0]


def test_a_planted_effect_is_recovered_and_its_absence_too(planted_study):
    settings = planted_study.settings
    big = planted_study(3, animals=8, trials=True, planted=settings(trial_effect=1.5))[0]
    e = estimate_effect(big, exposure="trials", outcome="NREM->WAKE", design="trials", horizon=10.0, labels="scoring", draws=2000)
    assert e.p_value < 0.01 and e.low > 0 and e.level == "experimental" and e.unit == "risk difference"
    assert e.diagnostics["log_odds_ratio"]["estimate"] == pytest.approx(1.5, abs=0.6)
    assert e.n_units == 8 and e.n_exposed + (e.n_events - e.n_exposed) == e.n_events and len(e.null) == 2000
    none = planted_study(4, animals=8, trials=True)[0]
    assert estimate_effect(none, exposure="trials", draws=2000).p_value > 0.05


@pytest.mark.slow
def test_error_rates_of_trials(planted_study):
    """300 null studies of four animals: the randomisation test has its level, and the interval, floored by the trials' own error, stays below it."""
    p, outside = [], []
    for recs in planted_study(11, animals=4, studies=300, hours=1.5, trials=True):
        e = estimate_effect(recs, exposure="trials", draws=299, diagnostics=False)
        p.append(e.p_value)
        outside.append(e.low > 0 or e.high < 0)
    assert 0.02 < np.mean(np.array(p) <= 0.05) < 0.085
    assert np.mean(outside) < 0.05


def test_the_estimate_is_the_mean_of_the_animals_differences():
    rng = np.random.default_rng(0)
    recs = []
    for m in "abc":
        text = "".join("NNN" + ("WW" if rng.random() < 0.4 else "NN") + "N" for _ in range(40))
        recs.append(recording(text, np.arange(40) * 24.0 + 5, subject=m, assigned=rng.random(40) < 0.5))
    e = estimate_effect(recs, exposure="trials", draws=200)
    by_hand = []
    for r in recs:
        t = r.events("trials")
        woke = np.array([r.hypnogram().stages_list()[i * 6 + 3] == "WAKE" for i in range(40)])
        a = t.assigned.astype(bool)
        by_hand.append(woke[a].mean() - woke[~a].mean())
    assert e.estimate == pytest.approx(np.mean(by_hand))
    assert [a["risk_difference"] for a in e.diagnostics["animals"]] == pytest.approx(by_hand)


def test_unequal_logged_probabilities_are_weighted_for():
    """Trials late in the night wake more often and were assigned more often: the raw difference is confounded, the weighted one is not."""
    rng = np.random.default_rng(5)
    recs = []
    for i in range(12):
        late = np.arange(120) % 2 == 1
        p = np.where(late, 0.8, 0.2)
        coin = rng.random(120) < p
        woke = rng.random(120) < np.where(late, 0.6, 0.1)
        text = "".join("NNN" + ("WW" if w else "NN") + "N" for w in woke)
        recs.append(recording(text, np.arange(120) * 24.0 + 5, subject=f"m{i}", assigned=coin, probability=p))
    e = estimate_effect(recs, exposure="trials", draws=500)
    assert e.p_value > 0.05 and abs(e.estimate) < 0.08
    raw = estimate_effect([_without_probability(r) for r in recs], exposure="trials", scheme="bernoulli", draws=500)
    assert raw.estimate > 0.2


def _without_probability(rec):
    f = rec.events("trials").to_frame().drop(columns="probability")
    return Recording(rec.id, rec.subject, labels={"scoring": rec.hypnogram(), "trials": EventTable.from_frame(f)})


def test_blocks_are_replayed_as_blocks():
    block = np.repeat(np.arange(10), 4)
    assigned = np.tile([1, 0, 0, 1], 10)
    t = follow("N" * 400, np.arange(40) * 30.0, block=block, assigned=assigned)
    scheme = AssignmentScheme(t, None)
    assert scheme.name == "blocked"
    drawn = scheme.draw(200, np.random.default_rng(0))
    assert (drawn.reshape(200, 10, 4).sum(2) == 2).all()
    assert abs(drawn.mean(0) - 0.5).max() < 0.15
    coins = np.random.default_rng(1).random(40) < 0.5
    loose = follow("N" * 400, np.arange(40) * 30.0, block=block, assigned=coins)
    assert AssignmentScheme(loose, None).name == "bernoulli"
    assert (AssignmentScheme(loose, "blocked").draw(50, np.random.default_rng(0)).reshape(50, 10, 4).sum(2) == coins.reshape(10, 4).sum(1)).all()


def test_what_ends_follow_up_is_handled_as_asked():
    text = ("NNNR" + "NNNN" + "NNNW") * 40
    onsets = np.arange(120) * 16.0 + 4.5
    coin = np.random.default_rng(0).random(120) < 0.5
    recs = [recording(text, onsets, subject=m, assigned=coin) for m in "ab"]
    zero = estimate_effect(recs, exposure="trials", draws=0, competing="zero")
    left = estimate_effect(recs, exposure="trials", draws=0, competing={"exit": "exclude"})
    assert left.n_events == zero.n_events - 80
    assert np.isnan(zero.p_value)
    with pytest.raises(DesignError, match="competing"):
        estimate_effect(recs, exposure="trials", competing="ignore")


def test_follow_up_cut_short_is_weighted_for():
    """A third of the trials are cut by an artefact before the target could be seen: zero halves the risk, weighting keeps it."""
    rng = np.random.default_rng(2)
    text = "".join("NN" + ("A" if rng.random() < 1 / 3 else "N") + ("WW" if rng.random() < 0.5 else "NN") + "N" for _ in range(3000))
    rec = recording(text, np.arange(3000) * 24.0 + 4.5, assigned=rng.random(3000) < 0.5)
    weighted = estimate_effect(rec, exposure="trials", draws=0).diagnostics["risk_control"]
    counted = estimate_effect(rec, exposure="trials", draws=0, competing="zero").diagnostics["risk_control"]
    assert weighted == pytest.approx(0.5, abs=0.03) and counted == pytest.approx(1 / 3, abs=0.03)


def test_non_compliance_is_reported_not_analysed():
    rng = np.random.default_rng(0)
    coin = rng.random(200) < 0.5
    given = coin & (rng.random(200) < 0.7)
    woke = rng.random(200) < np.where(given, 0.8, 0.2)
    rec = recording("".join("NNN" + ("WW" if w else "NN") + "N" for w in woke), np.arange(200) * 24.0 + 5, assigned=coin, delivered=given)
    e = estimate_effect(rec, exposure="trials", draws=500)
    c = e.diagnostics["compliance"]
    assert c["delivered_among_assigned"] == pytest.approx(given.sum() / coin.sum())
    assert c["per_protocol"]["estimate"] > e.estimate
    assert c["per_delivery"]["estimate"] == pytest.approx(e.estimate / c["delivered_among_assigned"])
    assert any("were delivered" in w for w in e.diagnostics["warnings"])
    assert any("one animal" in w for w in e.diagnostics["warnings"])


def test_arms_and_contents_can_be_chosen():
    rng = np.random.default_rng(0)
    arm = rng.choice(["stim", "sham", "no_opsin"], 180)
    content = np.where(np.arange(180) % 2 == 0, "negative", "neutral")
    woke = rng.random(180) < np.where((arm == "stim") & (content == "negative"), 0.8, 0.2)
    rec = recording("".join("NNN" + ("WW" if w else "NN") + "N" for w in woke), np.arange(180) * 24.0 + 5, arm=arm, content=content)
    e = estimate_effect(rec, exposure="trials", contrast=("stim", "sham"), content="negative", draws=500)
    assert e.estimate > 0.3 and e.n_events < 90 and "stim rather than sham" in e.estimand
    both = estimate_effect(rec, exposure="trials", contrast=("stim", "sham"), draws=500)
    assert {"negative", "neutral", "negative - neutral"} <= set(both.diagnostics["contents"])
    with pytest.raises(DesignError, match="neither arm"):
        estimate_effect(rec, exposure="trials", contrast=("a", "b"))
    with pytest.raises(DesignError, match="no trials with content 'joy'"):
        estimate_effect(rec, exposure="trials", content="joy")


GOOD = ("NNNWNN" + "NNNNNN" + "NNNNNN") * 7
ONSETS = np.arange(20) * 24.0 + 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probability": 1.0}, "strictly between 0 and 1"),
        ({"assigned": np.ones(20)}, "control arm is empty"),
        ({"assigned": np.full(20, 2)}, "expected 0 and 1"),
        ({"length": 30.0}, "overlap"),
        ({"gate_time": ONSETS + 1}, "after its onset"),
        ({"delivered": 1 - np.arange(20) % 2}, "does not match the deliveries"),
        ({"delivered": np.zeros(20)}, "does not match the deliveries"),
    ],
)
def test_a_ledger_that_cannot_be_is_refused(change, message):
    with pytest.raises(DesignError, match=message):
        estimate_effect(recording(GOOD, ONSETS, **change), exposure="trials")


def test_other_questions_that_cannot_be_answered():
    rec = recording(GOOD, ONSETS)
    with pytest.raises(DesignError, match="after the outcome"):
        estimate_effect(recording(GOOD, ONSETS + 1e5), exposure="trials")
    with pytest.raises(DesignError, match="after the outcome"):
        estimate_effect(recording("NNNNWWWW" * 20, np.arange(20) * 32.0 + 17), exposure="trials")
    with pytest.raises(DesignError, match="no column 'probability'"):
        estimate_effect(_without_probability(rec), exposure="trials")
    with pytest.raises(DesignError, match="horizon"):
        estimate_effect(rec, exposure="trials", horizon=-1.0)
    with pytest.raises(DesignError, match="no trial of 20 reaches REM"):
        estimate_effect(rec, exposure="trials", outcome="NREM->REM")
    with pytest.raises(MissingDataError, match="'cues'"):
        estimate_effect(rec, exposure="cues")
    with pytest.raises(DesignError, match="design"):
        estimate_effect(rec, exposure="trials", design="regression")
    with pytest.raises(DesignError, match="hold no trials"):
        estimate_effect(recording(GOOD, [], assigned=[], probability=[]), exposure="trials")
    with pytest.raises(DesignError, match="scheme"):
        estimate_effect(rec, exposure="trials", scheme="coin")


def test_a_mapping_of_tables_and_the_seed():
    rec = recording(GOOD, ONSETS)
    table = rec.events("trials")
    a = estimate_effect(rec, exposure={rec.id: table}, seed=4, draws=300)
    b = estimate_effect(rec, exposure="trials", seed=4, draws=300)
    asked = [e.diagnostics.pop("question")["hash"] for e in (a, b)]
    assert np.array_equal(a.null, b.null) and a.to_json() == b.to_json()
    assert asked[0] != asked[1]  # a table that is handed over is not a label named in advance
    assert not np.array_equal(b.null, estimate_effect(rec, exposure="trials", seed=5, draws=300).null)
    with pytest.raises(DesignError, match="without an entry"):
        estimate_effect(rec, exposure={"other": table})


def test_the_randomisation_test_is_the_exact_one():
    """Eight trials of one animal, four assigned in one block: all 70 assignments can be listed."""
    from itertools import combinations

    woke = np.array([1, 1, 1, 0, 0, 1, 0, 0], dtype=bool)
    a = np.array([1, 1, 1, 1, 0, 0, 0, 0], dtype=bool)
    rec = recording("".join("NNN" + ("WW" if w else "NN") + "N" for w in woke), np.arange(8) * 24.0 + 5, assigned=a, block=np.zeros(8))
    e = estimate_effect(rec, exposure="trials", scheme="blocked", draws=20000)
    every = []
    for rows in combinations(range(8), 4):
        m = np.isin(np.arange(8), rows)
        every.append(woke[m].mean() - woke[~m].mean())
    exact = np.mean(np.abs(every) >= abs(e.estimate) - 1e-9)
    assert e.p_value == pytest.approx(exact, abs=0.01)


def test_trials_at_random_times_may_find_most_animals_awake():
    """Two thirds of the night awake, and of the trials: no fault of the ledger. Trials that nearly all begin in WAKE are one."""
    text = ("NNNNWWWWWWWWWWWW" * 80)[:1200]
    recs = [recording(text, np.sort(np.random.default_rng(i).choice(590, 150, replace=False)) * 8.0 + 1.0, subject=f"m{i}") for i in range(3)]
    e = estimate_effect(recs, exposure="trials", horizon=12.0, draws=0)
    assert any("start outside NREM" in w for w in e.diagnostics["warnings"])
    late = [recording(text, np.arange(70) * 64.0 + 17.0, subject=f"m{i}") for i in range(3)]
    with pytest.raises(DesignError, match="so the exposure lies after the outcome"):
        estimate_effect(late, exposure="trials", horizon=12.0)
