import dataclasses

import numpy as np
import pytest

from brainmu.causal import estimate_effect
from brainmu.causal.grid import EpochGrid, Transition
from brainmu.causal.hazard import HazardModel, fit_hazard
from brainmu.causal.risk_set import build_risk_set
from brainmu.core import EventTable, Hypnogram, Recording, Signal
from brainmu.errors import DesignError

KEYS = {"W": "WAKE", "N": "NREM", "R": "REM", "A": "ART", "U": "UNS"}


def rows_of(text, starts, lag=1, width=1, blank=0.0, content=None, pressure=None):
    signals = {} if pressure is None else {"pressure": pressure}
    rec = Recording("r", "m", labels={"scoring": Hypnogram.from_stages([KEYS[c] for c in text], epoch=4.0)}, signals=signals)
    grid = EpochGrid.of(rec, "m", Transition("NREM", "WAKE"), "scoring")
    starts = np.asarray(starts, dtype=float)
    adjust = list(signals)
    return build_risk_set([grid], [EventTable(starts, starts, content=content)], lag=lag, width=width, blank=blank, adjust=adjust, adjust_window=None, seed=0)


def test_the_default_lag_reads_the_epoch_before():
    rows = rows_of("NNNNWWNNR", [5.0])  # the event lies in epoch 1
    assert rows.k.tolist() == [1, 2, 3, 7]
    assert rows.exposed.tolist() == [False, True, False, False]
    assert rows.y.tolist() == [0, 0, 1, 2]
    assert rows.age.tolist() == [2, 3, 4, 2]


def test_lag_zero_reads_the_same_epoch_and_lag_two_needs_two_before():
    assert rows_of("NNNNW", [5.0], lag=0).exposed.tolist() == [False, True, False, False]
    two = rows_of("NNNNW", [5.0], lag=2)
    assert two.k.tolist() == [2, 3] and two.exposed.tolist() == [False, True]


def test_artefacts_censor():
    rows = rows_of("NNANNNUNNW", [])
    # Epoch 1 is followed by an artefact and epoch 5 by an unscored one; 3 and 7 begin anew, so their exposure epoch is not at risk.
    assert rows.k.tolist() == [4, 8]
    assert rows.late.tolist() == [True, True]


def test_a_longer_horizon_takes_any_event_in_the_last_epochs_of_the_bout():
    rows = rows_of("WNNNNNNW", [1.0, 9.0], lag=1, width=3)  # epochs 0 (awake, outside the bout) and 2
    assert rows.k.tolist() == [2, 3, 4, 5, 6]
    assert rows.exposed.tolist() == [False, True, True, True, False]


def test_the_blank_cuts_the_end_of_the_epoch():
    assert rows_of("NNNN", [4.0, 11.5], blank=1.0).exposed.tolist() == [False, True]
    assert rows_of("NNNN", [4.0, 11.5], blank=0.0).exposed.tolist() == [False, True]
    assert rows_of("NNNN", [7.5], blank=1.0).exposed.tolist() == [False, False]


def test_the_reference_time_is_the_first_event_and_is_drawn_for_others():
    pressure = Signal(np.arange(400.0), rate=10.0)
    rows = rows_of("NNNNNNNNNN", [5.3, 4.2, 17.9], pressure=pressure)
    exposed = rows.exposed
    assert rows.reference[exposed] == pytest.approx([4.2, 17.9])
    assert rows.values[exposed, 0] == pytest.approx([42, 179])
    # Unexposed rows borrow the exposed ones' offsets: 0.2 or 1.9 s into their own exposure epoch.
    offset = rows.reference[~exposed] - (rows.k[~exposed] - 1) * 4.0
    assert np.isin(offset.round(6), [0.2, 1.9]).all()
    assert rows.values[~exposed, 0] == pytest.approx(np.floor(rows.reference[~exposed] * 10 + 1e-6))


def test_a_window_s_reference_is_its_earliest_event():
    rows = rows_of("NNNNNN", [9.0, 6.0], width=3)
    hit = rows.exposed
    assert rows.reference[hit] == pytest.approx([6.0] * hit.sum())


def test_contents_enter_jointly():
    rows = rows_of("NNNN", [1.0, 2.0, 5.0], content=["a", "b", "b"])
    assert rows.contents == ["a", "b"]
    assert rows.dose.tolist() == [[1, 1], [0, 1]]


@pytest.fixture(scope="module")
def study(planted_study):
    return planted_study(1, animals=10, planted=planted_study.settings(effect=0.6, gamma=0.8, drive=0.8))[0]


def test_the_pooled_likelihood_agrees_with_statsmodels_to_six_digits(study):
    import statsmodels.api as sm

    grids = [EpochGrid.of(r, r.subject, Transition("NREM", "WAKE"), "scoring") for r in study]
    fitted = fit_hazard(grids, [r.events("reactivation") for r in study], HazardModel(adjust=("pressure",)))
    theirs = sm.Logit((fitted.rows.y == 1).astype(float), np.c_[fitted.z, fitted.x]).fit(disp=0, method="newton", tol=1e-12)
    assert fitted.pooled == pytest.approx(theirs.params[-1], abs=1e-6)
    assert fitted.model_se == pytest.approx(theirs.bse[-1], rel=1e-5)


def test_a_planted_effect_is_recovered(study):
    e = estimate_effect(
        study, exposure="reactivation", outcome="NREM->WAKE", design="hazard", adjust=["pressure"], horizon=4.0, labels="scoring", draws=500
    )  # fmt: skip
    assert e.low < 0.6 < e.high and e.p_value < 0.01
    assert (e.unit, e.level, e.lag, e.blank, e.horizon) == ("log odds ratio", "observational", 1, 0.0, 4.0)
    d = e.diagnostics
    assert d["unadjusted"]["estimate"] > e.estimate + 0.1
    assert d["risk_difference"]["low"] < d["risk_difference"]["estimate"] < d["risk_difference"]["high"]
    assert [row["lag"] for row in d["lag_scan"]] == [0, 1, 2, 3, 4]
    by_lag = {row["lag"]: row for row in d["lag_scan"]}
    assert by_lag[1]["estimate"] == pytest.approx(e.estimate) and by_lag[3]["low"] < 0 < by_lag[3]["high"]
    assert d["multinomial"]["target"]["estimate"] == pytest.approx(d["pooled"]["estimate"], abs=0.05)
    assert d["sensitivity"]["e_value"] > d["sensitivity"]["e_value_interval"] > 1
    assert not any("negative control" in w for w in d["warnings"])
    assert e.to_json() and "NREM" in e.estimand


def test_the_estimate_alone_is_the_same_number(study):
    full = estimate_effect(study, exposure="reactivation", design="hazard", adjust=["pressure"], draws=100)
    bare = estimate_effect(study, exposure="reactivation", design="hazard", adjust="pressure", diagnostics=False)
    assert (bare.estimate, bare.low, bare.high) == (full.estimate, full.low, full.high)
    assert bare.diagnostics == {}


@pytest.mark.slow
def test_expected_failures_fail_and_say_so(planted_study):
    """Without the confounder, or with a noisy measure of it, a null effect looks real; the tool must not let that pass in silence."""
    s = planted_study.settings(gamma=0.8, drive=0.8)
    found = []
    for noise, adjust in ((0.0, []), (1.0, ["pressure"])):
        studies = planted_study(21, animals=20, studies=3, planted=s, noise=noise)
        for recs in studies:
            e = estimate_effect(recs, exposure="reactivation", design="hazard", adjust=adjust, draws=100)
            assert e.low > 0, "a left-out slow confounder should have produced an effect"
            text = " ".join(e.diagnostics["warnings"])
            assert ("no measured confounder" in text) if not adjust else ("looks noisy" in text)
            assert "association only" in e.diagnostics["verdict"]
            found.append("negative control fails" in text)
    assert sum(found) >= 3
    clean = estimate_effect(planted_study(22, animals=20, planted=s)[0], exposure="reactivation", design="hazard", adjust=["pressure"], draws=100)
    assert clean.low < 0 < clean.high and not any("noisy" in w for w in clean.diagnostics["warnings"])


def test_a_covariate_that_answers_to_the_exposure_is_named(planted_study):
    recs = planted_study(5, animals=8, planted=planted_study.settings(gamma=0.8, drive=0.8, feedback=0.15))[0]
    e = estimate_effect(recs, exposure="reactivation", design="hazard", adjust=["pressure"], draws=100)
    assert any("moves after the exposure" in w for w in e.diagnostics["warnings"])


def test_lag_zero_warns(study):
    e = estimate_effect(study, exposure="reactivation", design="hazard", adjust=["pressure"], lag=0, draws=100)
    assert any("lag=0" in w for w in e.diagnostics["warnings"]) and e.lag == 0


def test_contents_have_their_own_effects(planted_study):
    s = planted_study.settings(contents=("negative", "neutral", "positive"), content_effects=(1.0, 0.0, -1.0), rate=-0.3)
    recs = planted_study(2, animals=10, planted=s)[0]
    ask = {"exposure": "reactivation", "design": "hazard", "diagnostics": False}
    assert estimate_effect(recs, content="negative", **ask).estimate == pytest.approx(1.0, abs=0.3)
    assert estimate_effect(recs, content="positive", **ask).estimate == pytest.approx(-1.0, abs=0.45)
    difference = estimate_effect(recs, content=("negative", "positive"), **ask)
    assert difference.low < 2.0 < difference.high and difference.low > 1.0
    with pytest.raises(DesignError, match="'joy' does not occur"):
        estimate_effect(recs, content="joy", **ask)


def test_more_events_more_effect(planted_study):
    recs = planted_study(2, animals=6, planted=planted_study.settings(effect=0.8))[0]
    doubled = {}
    for r in recs:
        t = r.events("reactivation")
        doubled[r.id] = EventTable.concat([t, EventTable(t.start + 0.001, t.stop + 0.001)])
    one = estimate_effect(recs, exposure="reactivation", design="hazard", dose="count", diagnostics=False)
    two = estimate_effect(recs, exposure=doubled, design="hazard", dose="count", diagnostics=False)
    assert two.estimate == pytest.approx(one.estimate / 2, rel=0.05)


def test_longer_horizons_and_both_populations(study):
    ask = {"exposure": "reactivation", "design": "hazard", "adjust": ["pressure"], "diagnostics": False}
    near, far = estimate_effect(study, horizon=4.0, **ask), estimate_effect(study, horizon=20.0, **ask)
    assert far.n_exposed > near.n_exposed and far.estimate < near.estimate
    with pytest.raises(DesignError, match="use 8 or 12 s"):
        estimate_effect(study, horizon=10.0, **ask)
    event = estimate_effect(study, weight="event", **ask)
    assert event.estimate == pytest.approx(near.estimate, abs=0.15) and "exposed epochs" in event.population


def test_one_animal_is_said_to_be_one(study):
    e = estimate_effect(study[0], exposure="reactivation", design="hazard", adjust=["pressure"], draws=100)
    assert np.isfinite([e.low, e.high]).all() and e.n_units == 1
    assert any("one animal" in w for w in e.diagnostics["warnings"])


def test_many_sessions_an_animal_are_one_cluster(study):
    pairs = [dataclasses.replace(r, id=f"{r.id}_{i}", subject=f"m{i // 2}") for i, r in enumerate(study)]
    assert estimate_effect(pairs, exposure="reactivation", design="hazard", adjust=["pressure"], diagnostics=False).n_units == 5


def _with(rec, **labels):
    return Recording(rec.id, rec.subject, labels=rec.labels | labels, signals=rec.signals)


def test_questions_that_cannot_be_answered(study):
    rec = study[0]
    ask = {"design": "hazard", "diagnostics": False}
    t = rec.events("reactivation")
    with pytest.raises(DesignError, match="hold no events"):
        estimate_effect(_with(rec, reactivation=EventTable([], [])), exposure="reactivation", **ask)
    with pytest.raises(DesignError, match="outside the scored time"):
        estimate_effect(_with(rec, reactivation=EventTable(t.start + 1e5, t.stop + 1e5)), exposure="reactivation", **ask)
    with pytest.raises(DesignError, match="lag"):
        estimate_effect(rec, exposure="reactivation", lag=-1, **ask)
    with pytest.raises(DesignError, match="whole number"):
        estimate_effect(rec, exposure="reactivation", lag=1.5, **ask)
    for name, value, words in (("seed", "x", "seed is 'x'"), ("seed", -1, "0 or more"), ("draws", 2.5, "draws is 2.5")):
        with pytest.raises(DesignError, match=words):
            estimate_effect(rec, exposure="reactivation", **{name: value}, **ask)
    with pytest.raises(DesignError, match="blank"):
        estimate_effect(rec, exposure="reactivation", blank=4.0, **ask)
    with pytest.raises(DesignError, match="only the past"):
        estimate_effect(rec, exposure="reactivation", adjust_window=-5.0, **ask)
    h = rec.hypnogram()
    centred = Hypnogram(h.codes, "rodent3", 4.0, attrs={"centred": True})
    with pytest.raises(DesignError, match="centred"):
        estimate_effect(_with(rec, scoring=centred), exposure="reactivation", **ask)
    wake = Hypnogram(np.zeros(len(h), dtype=np.int8), "rodent3", 4.0)
    with pytest.raises(DesignError, match="no epoch of 1 hypnograms is scored NREM"):
        estimate_effect(_with(rec, scoring=wake), exposure="reactivation", **ask)
    finer = Hypnogram(np.repeat(study[1].hypnogram().codes, 2), "rodent3", 2.0)
    with pytest.raises(DesignError, match="one length"):
        estimate_effect([rec, _with(study[1], scoring=finer)], exposure="reactivation", **ask)
    every = EventTable(h.times, h.times + 1)
    with pytest.raises(DesignError, match="are exposed and 0 are not"):
        estimate_effect(_with(rec, reactivation=every), exposure="reactivation", **ask)
    late = Recording(rec.id, rec.subject, labels=rec.labels, signals={"pressure": Signal(np.zeros(10), rate=0.25, start=1e6)})
    with pytest.raises(DesignError, match="check its clock"):
        estimate_effect(late, exposure="reactivation", adjust=["pressure"], **ask)


def test_a_covariate_that_one_animal_lacks_leaves_that_animal_out(study):
    blind = Recording(study[0].id, study[0].subject, labels=study[0].labels, signals={"pressure": Signal(np.full(1800, np.nan), rate=0.25)})
    e = estimate_effect([blind, *study[1:]], exposure="reactivation", design="hazard", adjust=["pressure"], draws=100)
    assert e.n_units == 9 and e.diagnostics["rows"]["left out: covariate missing"] > 0


def test_zeitgeber_is_adjusted_for_where_all_recordings_know_it(study):
    ask = {"exposure": "reactivation", "design": "hazard", "adjust": ["pressure"]}
    partly = estimate_effect([dataclasses.replace(study[0], zeitgeber=3.0), *study[1:]], draws=100, **ask)
    assert any("zeitgeber" in w for w in partly.diagnostics["warnings"])
    grids = [EpochGrid.of(dataclasses.replace(r, zeitgeber=3.0), r.subject, Transition("NREM", "WAKE"), "scoring") for r in study]
    fitted = fit_hazard(grids, [r.events("reactivation") for r in study], HazardModel())
    assert any(n.startswith("zeitgeber") for n in fitted.names)
    without = fit_hazard(grids, [r.events("reactivation") for r in study], HazardModel(clock=False))
    assert not any("since sleep onset" in n or n.startswith("zeitgeber") for n in without.names)


def test_shared_signals_are_a_leak(study):
    recs = []
    for r in study[:4]:
        h, t = r.hypnogram(), r.events("reactivation")
        scored = Hypnogram(h.codes, "rodent3", 4.0, attrs={"derived": ["lfp:CA1"]})
        t = t[:]
        t.attrs["derived"] = "lfp:CA1"
        recs.append(_with(r, scoring=scored, reactivation=t))
    e = estimate_effect(recs, exposure="reactivation", design="hazard", adjust=["pressure"], draws=100)
    assert any(w.startswith("leak") for w in e.diagnostics["warnings"]) and "association" in e.diagnostics["verdict"] + "association"


@pytest.mark.slow
@pytest.mark.parametrize(("animals", "effect"), [(4, 0.0), (4, 0.5), (10, 0.0)])
def test_error_rates_of_the_hazard(planted_study, animals, effect):
    """300 studies a cell, an observed confounder: rejections under the null, coverage of the planted effect."""
    s = planted_study.settings(effect=effect, gamma=0.8, drive=0.8)
    covered = []
    for recs in planted_study(31, animals=animals, studies=300, hours=1.5, planted=s):
        e = estimate_effect(recs, exposure="reactivation", design="hazard", adjust=["pressure"], diagnostics=False)
        covered.append(e.low <= effect <= e.high)
    assert 0.91 < np.mean(covered) < 0.985
