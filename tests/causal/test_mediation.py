import dataclasses

import numpy as np
import pytest

from brainmu.causal import estimate_effect, mediation
from brainmu.causal.mediation_model import MediationRows, decompose, linear_by_animal, residual_correlation
from brainmu.core import EventTable, Hypnogram, Recording
from brainmu.errors import DesignError, MissingDataError
from brainmu.synth import mediated_study

LC = "spikes:region=LC"


@pytest.fixture(scope="module")
def study():
    return mediated_study(12, 80, seed=4)


@pytest.fixture(scope="module")
def found(study):
    return mediation(study[0], mediator=LC)


def with_trials(recordings, change):
    """The same recordings with other ledgers: `change` takes a recording and its frame."""
    return [dataclasses.replace(r, labels=dict(r.labels) | {"trials": EventTable.from_frame(change(r, r.events("trials").to_frame()))}) for r in recordings]


def said(effect, words):
    return any(words in w for w in effect.diagnostics["warnings"])


def rows_of(n, animals=1, seed=0, shift=1.0, slope=0.8, direct=0.4, linear=False):
    rng = np.random.default_rng(seed)
    a, animal = (rng.random(n) < 0.5).astype(float), np.arange(n) % animals
    z = rng.standard_normal((n, 1))
    m = shift * a + 0.5 * z[:, 0] + rng.standard_normal(n)
    risk = 0.3 + 0.1 * a + 0.05 * m + 0.02 * z[:, 0] if linear else 1 / (1 + np.exp(1.0 - direct * a - slope * m - 0.4 * z[:, 0]))
    y = risk if linear else (rng.random(n) < risk).astype(float)
    return MediationRows(animal, a, y, m, z, np.ones(n), np.ones(n))


def test_what_goes_through_the_population_and_what_does_not(study, found):
    truth, parts = study[1], found.diagnostics
    assert truth.total == pytest.approx(truth.indirect + truth.direct)
    for name in ("total", "indirect", "direct"):
        assert parts[name]["low"] < getattr(truth, name) < parts[name]["high"]
    assert parts["total"]["estimate"] == pytest.approx(parts["indirect"]["estimate"] + parts["direct"]["estimate"])
    assert found.estimate == parts["indirect"]["estimate"] and found.low > 0 and found.unit == "risk difference" and found.level == "observational"
    assert parts["total"]["estimate"] == pytest.approx(parts["indirect_assigned"]["estimate"] + parts["direct_control"]["estimate"])
    assert parts["linear"]["indirect"]["estimate"] == pytest.approx(found.estimate, abs=0.02)
    assert parts["share_mediated"]["estimate"] == pytest.approx(found.estimate / parts["total"]["estimate"])
    assert "rate of the units with region LC from 0 to 2 s after its onset" in found.estimand and any("not randomised" in a for a in found.assumptions)
    assert "goes through" in parts["verdict"] and "What would overturn it" in parts["verdict"] and found.n_units == 12
    assert parts["negative_controls"][0]["low"] < 0 < parts["negative_controls"][0]["high"]


def test_the_total_is_that_of_the_trials_themselves(study, found):
    itt = estimate_effect(study[0], exposure="trials", design="trials", horizon=20.0, diagnostics=False, draws=0)
    assert found.diagnostics["whole_horizon"]["estimate"] == pytest.approx(itt.estimate)
    assert found.diagnostics["total"]["estimate"] == pytest.approx(itt.estimate, abs=0.03)


def test_other_cells_carry_nothing(study):
    other = mediation(study[0], mediator="spikes:region=CA1")
    assert other.low < 0 < other.high and other.high < 0.02 and other.diagnostics["direct"]["low"] > 0
    assert "No effect on NREM->WAKE through" in other.diagnostics["verdict"] and other.diagnostics["sensitivity"]["rho_that_removes_significance"] == 0.0


def test_agrees_with_statsmodels():
    """One animal, logistic outcome and straight mediator: the average mediated and direct effects of statsmodels' parametric simulation."""
    import pandas as pd
    import statsmodels.api as sm
    from statsmodels.genmod.families import Binomial
    from statsmodels.stats.mediation import Mediation

    rows = rows_of(3000, seed=1)
    d = pd.DataFrame({"a": rows.assigned, "m": rows.m, "y": rows.y, "z": rows.z[:, 0]})
    peer = Mediation(sm.GLM.from_formula("y ~ a * m + z", d, family=Binomial()), sm.OLS.from_formula("m ~ a + z", d), "a", "m")
    table = peer.fit(method="parametric", n_rep=100).summary()
    mine = decompose(rows)
    for name, theirs in {"indirect": "ACME (average)", "direct": "ADE (average)", "total": "Total effect"}.items():
        assert mine[name] == pytest.approx(table.loc[theirs, "Estimate"], abs=0.012)


def test_straight_lines_by_hand():
    """The outcome is a straight line of assignment and mediator, so that the slopes are exact."""
    rows = rows_of(400, animals=4, linear=True)
    line = linear_by_animal(rows)
    assert np.allclose(line["slope"], 0.05) and np.allclose(line["direct"], 0.1) and np.allclose(line["indirect"], 0.05 * line["shift"])
    assert residual_correlation(rows)[0] == pytest.approx(1.0)


def test_a_hidden_cause_makes_one_up_and_the_sensitivity_says_how_weak_it_may_be():
    recordings, truth = mediated_study(12, 80, through=0.0, hidden=1.0, seed=5)
    e = mediation(recordings, mediator=LC)
    assert truth.indirect == pytest.approx(0.0, abs=1e-12) and e.low > 0
    seen = e.diagnostics["sensitivity"]
    assert 0 < seen["rho_that_removes_significance"] < seen["rho_that_removes_the_estimate"] < 0.5
    assert f"{seen['rho_that_removes_the_estimate']:+.2f} leaves nothing" in e.diagnostics["verdict"]
    at = min(seen["rho"], key=lambda row: abs(row["rho"] - seen["rho_that_removes_the_estimate"]))
    assert abs(at["estimate"]) < 0.4 * e.estimate
    half = next(row for row in seen["mediator_reliability"] if row["reliability"] == 0.5)
    assert half["indirect"] == pytest.approx(2 * e.estimate)


def test_who_left_early_is_said():
    recordings, _ = mediated_study(8, 60, early_effect=0.3, seed=6)
    e = mediation(recordings, mediator=LC)
    early = e.diagnostics["left_before"]
    assert early["assigned"] - early["control"] == pytest.approx(0.3, abs=0.1) and early["p_value"] < 0.05 and said(e, "assignment changes who is left")
    flow = e.diagnostics["flow"]
    for arm in ("assigned", "control"):
        assert flow[arm]["at_risk"] == flow[arm]["left_before"] + flow[arm]["cut_short_before"] + flow[arm]["analysed"]
    assert flow["assigned"]["analysed"] + flow["control"]["analysed"] == e.n_events


def test_a_coin_that_looked_at_the_population(study):
    """Assigned where the population was active before the onset: the control through that activity must fail."""

    def rigged(r, frame):
        lc = r.spikes.pick(np.arange(6)).times
        count = np.array([((lc > t - 2) & (lc <= t)).sum() for t in frame["start"]])
        return frame.assign(assigned=count + np.random.default_rng(0).normal(0, 3, len(count)) > np.median(count))

    e = mediation(with_trials(study[0], rigged), mediator=LC)
    assert said(e, "negative control fails") and e.diagnostics["negative_controls"][0]["p_value"] < 0.05


def test_doubts_are_said(study):
    recordings = study[0]
    lasting = with_trials(recordings[:6], lambda r, f: f.assign(stop=f["start"] + 1.0))
    assert said(mediation(lasting, mediator=LC), "while the stimulus is on") and not said(mediation(lasting, mediator=LC, blank=1.0), "stimulus is on")
    assert said(mediation(recordings[:3], mediator=LC), "3 animals")
    few = with_trials(recordings, lambda r, f: f.iloc[::5])
    assert said(mediation(few, mediator=LC), "few trials")
    strong = mediated_study(10, 100, through=0.3, interaction=1.5, seed=7)[0]
    assert said(mediation(strong, mediator=LC), "not act alike in both arms")
    slow = mediated_study(10, 100, slow=1.2, seed=8)[0]
    assert said(mediation(slow, mediator=LC), "activity before the onset predicts the outcome too")
    silent = [dataclasses.replace(r, spikes=r.spikes.pick([9])) if i == 0 else r for i, r in enumerate(recordings[:6])]
    for r in silent[:1]:
        r.spikes.units.loc[:, "region"] = "LC"
        r.spikes.times, r.spikes.unit_id = np.array([0.5, 6000.0]), np.array([9, 9], dtype=np.int32)
    assert said(mediation(silent, mediator=LC), "its mediator does not vary")


def test_an_artefact_is_recognised(study):
    def flash(r):
        on = r.events("trials").start[r.events("trials").assigned.astype(bool)]
        more = np.repeat(on, 400) + np.tile(np.linspace(0.01, 0.2, 400), len(on))
        times, unit = np.r_[r.spikes.times, more], np.r_[r.spikes.unit_id, np.zeros(len(more), int)]
        return dataclasses.replace(r, spikes=type(r.spikes)(times, unit, r.spikes.units))

    e = mediation([flash(r) for r in study[0][:6]], mediator=LC)
    assert said(e, "is it the stimulation itself") and said(e, "natural effects are extrapolated")
    assert not said(mediation([flash(r) for r in study[0][:6]], mediator=LC, blank=0.25), "is it the stimulation itself")


def test_a_signal_and_a_column(study):
    def rate(r):
        edges = np.arange(0, 80 * 80 + 0.5, 0.5)
        return np.histogram(r.spikes.pick(np.arange(6)).times, edges)[0] / 3.0

    def signal(**attrs):
        out = []
        for r in study[0]:
            # A sample is stamped at the end of the half second that it counts.
            lc = dict(values=rate(r)[:, None].astype(np.float32), rate=2.0, start=0.5, kind="features", unit="Hz", attrs=attrs)
            out.append(Recording.from_arrays(r.id, r.subject, "mouse", signals={"lc": lc}, spikes=r.spikes, labels=r.labels))
        return out

    spikes, by_signal = mediation(study[0], mediator=LC), mediation(signal(), mediator="signal:lc")
    assert by_signal.estimate == pytest.approx(spikes.estimate, abs=0.03) and said(by_signal, "stands for 0.5 s") is False
    assert said(mediation(signal(), mediator="signal:lc", blank=0.5), "stands for 0.5 s")
    with pytest.raises(DesignError, match="centred"):
        mediation(signal(centred=True), mediator="signal:lc")
    with pytest.raises(DesignError, match="a sample each"):
        mediation(signal(), mediator="signal:lc", window=0.3)
    counted = with_trials(study[0], lambda r, f: f.assign(lc=[((r.spikes.times > t) & (r.spikes.times <= t + 2)).sum() for t in f["start"]]))
    column = mediation(counted, mediator="column:lc")
    assert column.low > 0 and said(column, "taken on trust") and column.diagnostics["negative_controls"] == []
    leak = signal()
    leak[0].labels["scoring"].attrs["derived"] = ["lc"]
    assert said(mediation(leak, mediator="signal:lc"), "leak: hypnogram and mediator")


def test_what_cannot_be_answered(study):
    recordings = study[0][:3]
    for asked, words in (
        ({"mediator": "the amygdala"}, "mediator is 'the amygdala', expected 'spikes'"),
        ({"mediator": LC, "outcome": "bout length"}, "expected a transition"),
        ({"mediator": LC, "horizon": 6.0}, "holds no whole 4 s epoch"),
        ({"mediator": LC, "window": -1.0}, "window is -1"),
        ({"mediator": LC, "blank": 2.0}, "blank is 2 s"),
        ({"mediator": LC, "gap": -1.0}, "gap is -1"),
        ({"mediator": "column:rate"}, "no column of numbers 'rate'"),
        ({"mediator": LC, "exposure": {r.id: r.events("trials")[r.events("trials").assigned.astype(bool)] for r in recordings}}, "control arm is empty"),
    ):
        with pytest.raises(DesignError, match=words):
            mediation(recordings, **asked)
    with pytest.raises(MissingDataError, match="no unit has region 'LH', there are CA1, LC"):
        mediation(recordings, mediator="spikes:region=LH")
    with pytest.raises(MissingDataError, match="no column 'layer'"):
        mediation(recordings, mediator="spikes:layer=5")
    with pytest.raises(MissingDataError, match="no signal 'lc' as the mediator"):
        mediation(recordings, mediator="signal:lc")
    bare = [dataclasses.replace(r, spikes=None) for r in recordings]
    with pytest.raises(MissingDataError, match="no spikes"):
        mediation(bare, mediator=LC)
    still = with_trials(recordings, lambda r, f: f.assign(one=1.0))
    with pytest.raises(DesignError, match="does not vary within arms"):
        mediation(still, mediator="column:one")
    asleep = [dataclasses.replace(r, labels=dict(r.labels) | {"scoring": Hypnogram.from_stages(["NREM"] * 1600, epoch=4.0)}) for r in recordings]
    with pytest.raises(DesignError, match="reaches WAKE between 4 and 20 s"):
        mediation(asleep, mediator=LC)
    assert np.isnan(mediation(recordings[:1], mediator=LC).low)


@pytest.mark.slow
def test_waking_does_not_pass_for_its_own_cause():
    """Units that fire at waking: with the default gap nothing goes through them, without one a positive effect is made up."""
    kept, none = [], []
    for s in range(15):
        recordings, _ = mediated_study(8, 60, through=0.0, slow=0.0, arousal=20.0, first=2.0, seed=900 + s)
        kept.append(mediation(recordings, mediator=LC).estimate)
        none.append(mediation(recordings, mediator=LC, gap=0.0).estimate)
    se = np.std(kept, ddof=1) / np.sqrt(len(kept))
    assert abs(np.mean(kept)) < 3 * se and np.mean(np.subtract(none, kept)) > 0.005


@pytest.mark.slow
def test_coverage():
    """100 studies of eight animals: the 95 % interval holds the truth in 88 or more (chance falls below that in 1 of 200)."""
    held = 0
    for s in range(100):
        recordings, truth = mediated_study(8, 60, seed=2000 + s)
        e = mediation(recordings, mediator=LC)
        held += e.low <= truth.indirect <= e.high
    assert held >= 88
