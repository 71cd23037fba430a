"""The causal structure: planted coefficients found again, mechanisms that leave no trace once taken out."""

from __future__ import annotations

import numpy as np
import pytest

import brainmu.synth as synth
from brainmu.core import Intervals
from brainmu.errors import InputError
from brainmu.synth.interventions import FAMILIES, simulate_interventions
from brainmu.synth.mechanism import Mechanism
from brainmu.synth.sleep import RodentSleep

NOTHING = {"log_hazard_ratio": {"negative": 0.0, "positive": 0.0}, "trial_log_hazard_ratio": {}}
CLOSED = {"trial_gate": "detection", "trial_spacing": 12.0}


# -- an oracle: Poisson regression on exact bouts, exposures and pressure -----------------------------------------
def _rows(truth, exit_, grid=0.5, exact_dose=False):
    """One row a `grid` s of NREM: whether the bout left for `exit_`, doses of both contents, pressure, stimulated, log baseline."""
    rows, m, s = [], truth.mechanism, truth.sleep
    for life in truth.lives:
        b = life.bouts
        start, stop, stage = b.start.to_numpy(), b.stop.to_numpy(), b.stage.to_numpy()
        content = np.asarray(life.reactivation.content)
        events = [(np.sort(life.reactivation.start[content == c]), np.sort(life.acting[content == c])) for c in ("negative", "positive")]
        on = life.stimulation[np.isin(life.stimulation.kind, ("stim", "activation"))].start
        slept = 0.0
        for i in range(len(b)):
            if stage[i] == "NREM":
                t = np.arange(start[i], stop[i], grid)
                left = np.zeros(len(t))
                left[-1] = i + 1 < len(b) and stage[i + 1] == exit_
                long = np.minimum(stop[i] - t, grid)
                mid = t + long / 2
                dose = [np.searchsorted(a, mid) - np.searchsorted(z, mid) for a, z in events]
                stimulated = np.searchsorted(on, mid) - np.searchsorted(on, mid - m.trial_duration)
                age = mid - start[i]
                base = s.leave_nrem(age) if exit_ == "WAKE" else s.enter_rem(age, slept + age)
                rows.append(np.c_[left, *dose, np.interp(mid, life.time, life.pressure), stimulated, np.log(base * long)])
                slept += stop[i] - start[i]
            elif stage[i] == "REM":
                slept = 0.0
    return np.concatenate(rows)


def _fit(y, x, offset):
    """Poisson regression by Newton's method: coefficients and standard errors, the intercept last."""
    x = np.c_[x, np.ones(len(y))]
    b = np.zeros(x.shape[1])
    for _ in range(40):
        mu = np.exp(x @ b + offset)
        information = (x * mu[:, None]).T @ x
        step = np.linalg.solve(information, x.T @ (y - mu))
        b += step
        if np.abs(step).max() < 1e-9:
            break
    return b, np.sqrt(np.diag(np.linalg.inv(information)))


PLANTED = dict(
    log_hazard_ratio={"negative": 0.7, "positive": -0.5}, rem_log_hazard_ratio={"negative": -0.6, "positive": 0.5}, confounding=0.5, rem_confounding=-0.4,
    trial_log_hazard_ratio={"negative": 0.9}, trial_rem_log_hazard_ratio={"negative": -0.7}, animal_sd=0.0,
)  # fmt: skip
WAKE_TRUTH, REM_TRUTH = (0.7, -0.5, 0.5, 0.9, 0.0), (-0.6, 0.5, -0.4, -0.7, 0.0)


def _z(truth):
    out = []
    for exit_, planted in (("WAKE", WAKE_TRUTH), ("REM", REM_TRUTH)):
        x = _rows(truth, exit_)
        b, error = _fit(x[:, 0], x[:, 1:5], x[:, 5])
        out.append((b - planted) / error)
    return np.concatenate(out)


def test_an_oracle_recovers_both_hazards():
    z = _z(synth.study(n_animals=8, hours=6.0, seed=21, **PLANTED)[1])
    assert np.abs(z).max() < 3.5


@pytest.mark.slow
def test_an_oracle_covers_the_planted_coefficients_over_seeds():
    z = np.array([_z(synth.study(n_animals=8, hours=6.0, seed=s, **PLANTED)[1]) for s in range(12)])
    assert np.abs(z).max() < 4
    assert 0.88 < (np.abs(z) < 1.96).mean() <= 1
    assert np.abs(z.mean(0)).max() < 3.5 / np.sqrt(len(z))


@pytest.mark.parametrize("saturation", [0.0, 1.0])
def test_dose_is_linear_unless_it_saturates(saturation):
    m = dict(log_hazard_ratio={"negative": 0.6, "positive": 0.0}, reactivation_rate={"negative": 0.12, "positive": 0.02}, dose_saturation=saturation)
    _, truth = synth.study(n_animals=8, hours=5.0, seed=5, trials=False, animal_sd=0.0, **m)
    x = _rows(truth, "WAKE")
    doses = np.minimum(x[:, 1], 3)
    b, error = _fit(x[:, 0], doses[:, None] == [1, 2, 3], x[:, 5])
    assert abs(b[0] - 0.6) < 3.2 * error[0]
    assert abs(b[1] - 0.6 * truth.mechanism.dose([2])[0]) < 3.2 * error[1]
    assert (b[1] < 1.05) == (saturation > 0)
    assert truth.mechanism.dose([1])[0] == pytest.approx(1.0)


def test_the_day_before_shifts_hazards_and_rates():
    _, truth = synth.study(n_animals=24, hours=4.0, seed=8, experience=("control", "stress"), trials=False, animal_sd=0.0)
    assert sorted(truth.groups) == ["control"] * 12 + ["stress"] * 12
    x = {g: [life for life, mine in zip(truth.lives, truth.groups) if mine == g] for g in ("control", "stress")}
    rate = {}
    for group, lives in x.items():
        nrem = sum((b.stop - b.start)[b.stage == "NREM"].sum() for b in (life.bouts for life in lives))
        asleep = [Intervals(b[b.stage == "NREM"][["start", "stop"]].to_numpy()) for b in (life.bouts for life in lives)]
        rate[group] = [sum((span.contains(e.start) & (e.content == c)).sum() for span, e in zip(asleep, (v.reactivation for v in lives))) / nrem for c in
                       ("negative", "positive")]  # fmt: skip
    ratio = np.log(np.divide(rate["stress"], rate["control"]))
    day = synth.EXPERIENCES["stress"].log_reactivation_rate
    assert ratio == pytest.approx([day["negative"], day["positive"]], abs=0.15)
    rows = {g: _rows(type(truth)(truth.mechanism, truth.sleep, [], lives, {}), "WAKE") for g, lives in x.items()}
    both = np.concatenate([np.c_[rows[g], np.full(len(rows[g]), g == "stress")] for g in rows])
    b, error = _fit(both[:, 0], both[:, [1, 2, 6]], both[:, 5])
    assert abs(b[2] - 0.3) < 3.2 * error[2]
    assert truth.planted["experience_log_wake_hazard[stress]"].value == 0.3


def test_groups_stand_in_the_recordings_and_their_sizes_are_even():
    recordings, truth = synth.study(n_animals=7, hours=0.2, seed=1, experience=["control", "stress", "novelty"])
    assert [r.subject_meta["group"] for r in recordings] == truth.groups
    assert sorted(np.unique(truth.groups, return_counts=True)[1]) == [2, 2, 3]
    assert {tuple(synth.study(n_animals=6, hours=0.1, seed=s, experience=["control", "stress"])[1].groups) for s in range(6)} != {tuple(truth.groups)}
    assert synth.study(n_animals=1, hours=0.1, seed=1)[0][0].subject_meta["group"] == "control"


# -- trials -------------------------------------------------------------------------------------------------------
def test_closed_loop_gates_come_at_detections_and_false_alarms():
    _, truth = synth.study(n_animals=8, hours=3.0, seed=2, detector_sensitivity=0.8, detector_false_alarms=0.01, **CLOSED)
    m = truth.mechanism
    hits = alarms = 0
    for life in truth.lives:
        gate, found = life.trials.gate_time, life.detected
        hit = found >= 0
        assert np.allclose(gate[hit], life.reactivation.start[found[hit]] + m.detector_latency)
        assert (life.reactivation.content[found[hit]] == "negative").all()
        assert (np.diff(gate) >= m.trial_spacing - 1e-9).all()
        hits, alarms = hits + hit.sum(), alarms + (~hit).sum()
    # Of what opens the gate, 0.8 x 0.04 1/s are reactivations and 0.01 1/s false alarms.
    assert hits / (hits + alarms) == pytest.approx(0.8 * 0.04 / (0.8 * 0.04 + 0.01), abs=0.05)


def test_inhibition_cuts_the_detected_reactivation_and_ends_its_effect():
    _, truth = synth.study(n_animals=4, hours=3.0, seed=3, feedback=0.3, trial_arms=("inhibition",), **CLOSED)
    cut = 0
    for life in truth.lives:
        full = life.reactivation.start + truth.mechanism.effect_duration
        rows = life.detected[life.trials.delivered.astype(bool) & (life.detected >= 0)]
        gates = life.trials.gate_time[life.trials.delivered.astype(bool) & (life.detected >= 0)]
        assert np.array_equal(life.acting[rows], gates) and np.array_equal(life.reactivation.stop[rows], gates)
        others = np.setdiff1d(np.arange(len(full)), rows)
        short = others[life.acting[others] < full[others]]
        # Nothing else is cut, but what happened to run when a false alarm was acted on.
        assert np.isin(life.acting[short], life.stimulation.start).all()
        cut += len(rows)
        for t in life.stimulation.start:
            mine = life.reactivation.start[life.reactivation.content == "negative"]
            assert not ((mine > t) & (mine < t + truth.mechanism.inhibition_duration)).any()
    assert cut > 50


def test_cues_bring_reactivations_of_their_content_only():
    _, truth = synth.study(n_animals=10, hours=3.0, seed=4, trial_arms=("cue",), cue_gain=6.0, cue_window=5.0, **NOTHING)
    after = {True: [], False: []}
    for life in truth.lives:
        nrem = Intervals(life.bouts[life.bouts.stage == "NREM"][["start", "stop"]].to_numpy())
        whole = nrem.covers(life.trials.start, life.trials.start + 5.0)
        for t, given in zip(life.trials.start[whole], life.trials.delivered[whole]):
            near = life.reactivation.content[(life.reactivation.start > t) & (life.reactivation.start < t + 5.0)]
            after[bool(given)].append([np.sum(near == "negative"), np.sum(near == "positive")])
    cued, sham = (np.mean(after[k], axis=0) / 5.0 for k in (True, False))
    assert cued[0] / sham[0] == pytest.approx(6.0, rel=0.25)
    assert cued[1] / sham[1] == pytest.approx(1.0, abs=0.35)


def test_the_ledger_of_several_arms_names_what_was_planned_before_the_coin():
    recordings, truth = synth.study(n_animals=3, hours=2.0, seed=9, trial_arms=("activation", "inhibition", "cue"), trial_artefact=300.0)
    for rec, life in zip(recordings, truth.lives):
        t = rec.labels["trials"]
        assert set(t.arm) <= {"activation", "inhibition", "cue", "sham"}
        assert ((t.arm == "sham") == ~t.assigned.astype(bool)).all() and (t.arm[t.assigned] == t.planned[t.assigned]).all()
        s = life.stimulation
        assert (
            np.array_equal(s.start, t.start[t.delivered])
            and np.array_equal(s.kind, t.arm[t.delivered])
            and np.array_equal(s.trial, np.flatnonzero(t.delivered))
        )
        assert (s.amplitude > 100).all()


def test_failures_follow_the_pressure_if_told_to():
    _, truth = synth.study(n_animals=10, hours=3.0, seed=2, trial_failure=0.3, trial_failure_slope=1.5, confounding=0.2, feedback=0.1)
    pressure = [np.interp(v.trials.start, v.time, v.pressure)[v.trials.assigned.astype(bool)] for v in truth.lives]
    failed = np.concatenate([~v.trials.delivered.astype(bool)[v.trials.assigned.astype(bool)] for v in truth.lives])
    p = np.concatenate(pressure)
    assert failed[p > 0.7].mean() > failed[p < -0.7].mean() + 0.25


def test_artefacts_stand_in_the_lfp_where_something_was_delivered_and_nowhere_else():
    short = dict(hours=0.4, seed=3, n_cells=0, n_channels=2, trial_spacing=12.0)
    (rec, truth), (clean, _) = (synth.recording(**short, trial_artefact=size) for size in (800.0, 0.0))
    assert len(truth.stimulation) > 2 and rec.subject_meta["group"] == "control"
    lfp = rec.signals["lfp"]
    added = np.asarray(lfp.read()) - np.asarray(clean.signals["lfp"].read())
    t = np.arange(len(added)) / lfp.rate
    near = np.zeros(len(t), dtype=bool)
    for start, stop, size in zip(truth.stimulation.start, truth.stimulation.stop, truth.stimulation.amplitude):
        near |= (t >= start - 0.001) & (t < stop + 0.35)
        assert added[(t > start + 0.0008) & (t < stop - 0.0008)] == pytest.approx(size, rel=0.3)
    assert not added[~near].any()


# -- what is taken out leaves no trace -----------------------------------------------------------------------------
@pytest.mark.parametrize(
    "change",
    [{}, {"trial_arms": ("activation", "inhibition", "cue"), "trial_rem_log_hazard_ratio": {"negative": 0.0}}, {**CLOSED, "trial_arms": ("inhibition",)}],
)
def test_a_null_world_has_effects_of_exactly_zero(change):
    m = Mechanism(**{**NOTHING, "confounding": 0.6, "rem_confounding": 0.3, **change})
    told = simulate_interventions(m, RodentSleep(), copies=300, seed=1)
    assert len(told) > 60
    for name, effect in told.items():
        assert effect.value == (1.0 if effect.unit == "risk ratio" else 0.0), name


@pytest.mark.slow
def test_each_mechanism_leaves_its_own_trace_and_none_without():
    def told(family, **change):
        return simulate_interventions(Mechanism(**{**NOTHING, "confounding": 0.8, **change}), RodentSleep(), copies=3000, families=[family])

    # Feedback alone acts through the pressure: up for the negative, down for the positive.
    fed = told("hazard", feedback=0.8, confounding=1.0, reactivation_rate={"negative": 0.01, "positive": 0.01})
    up, down = (fed[f"epoch_risk_difference[{c}]"] for c in ("negative", "positive"))
    assert up.value > 3 * up.standard_error and down.value < -3 * down.standard_error
    rem = told("hazard", rem_log_hazard_ratio={"negative": 1.0})
    assert rem["rem_epoch_log_odds_ratio[negative]"].value > 0.4 > abs(rem["rem_epoch_log_odds_ratio[positive]"].value)
    cue = told("trials", log_hazard_ratio={"negative": 1.2, "positive": 0.0}, trial_arms=("cue",), cue_gain=8.0)
    assert cue["itt_risk_difference"].value > 3 * cue["itt_risk_difference"].standard_error
    # A cue that brings no reactivation, or reactivations that do nothing: no effect.
    assert told("trials", log_hazard_ratio={"negative": 1.2, "positive": 0.0}, trial_arms=("cue",), cue_gain=1.0)["itt_risk_difference"].value == 0.0
    stop = told("trials", log_hazard_ratio={"negative": 1.2, "positive": 0.0}, trial_arms=("inhibition",), **CLOSED)
    assert stop["itt_risk_difference"].value < -3 * stop["itt_risk_difference"].standard_error


def test_effects_have_names_errors_and_sentences():
    told = simulate_interventions(Mechanism(), RodentSleep(), copies=400, experiences=["stress"], families=FAMILIES)
    for name in ("itt_risk_difference", "itt_risk_ratio", "itt_log_odds_ratio", "itt_risk_difference_exact", "itt_rem_risk_difference",
                 "itt_risk_difference[sham]", "itt_risk_difference[horizon=20]", "epoch_log_odds_ratio[negative]", "epoch_log_odds_ratio[positive, lag=3]",
                 "epoch_risk_difference[negative, horizon=12]", "rem_epoch_log_odds_ratio[negative]", "dose_log_odds_ratio[negative, dose=3]",
                 "msm_log_odds_ratio[negative]", "msm_log_odds_ratio[negative, horizon=12]", "experience_log_rate_ratio[stress]"):  # fmt: skip
        assert told[name].estimand.endswith(".") and np.isfinite(told[name].value) and told[name].standard_error >= 0, name
    assert told["experience_log_rate_ratio[stress]"].value > 0.2
    doses = [told[f"dose_risk_difference[negative, dose={d}]"].value for d in (2, 3)]
    assert 0 < told["epoch_risk_difference[negative]"].value < doses[0] < doses[1]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (dict(trial_gate="door"), "trial_gate"), (dict(trial_arms=("laser",)), "laser"), (dict(trial_arms="cue"), "trial_arms"),
        (dict(trial_arms=()), "trial_arms"),
        (dict(trial_arms=("cue", "cue")), "trial_arms"), (dict(trial_arms=("cue",), trial_spacing=1.0), "cue_window"), (dict(experience="stres"), "stress"),
        (dict(experience=()), "experience"), (dict(experience=None), "experience"), (dict(experience=[3]), "experience"),
        (dict(experience=("stress", "stress")), "experience"), (dict(dose_saturation=-1.0), "dose_saturation"),
        (dict(rem_confounding=9.0), "rem_confounding"), (dict(detector_sensitivity=1.2), "detector_sensitivity"), (dict(trial_content=("x",), **CLOSED), "'x'"),
        (dict(trial_rem_log_hazard_ratio={"negative": 50.0}), "trial_rem_log_hazard_ratio"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_by_name(change, word):
    with pytest.raises(InputError, match=word):
        synth.study(**({"n_animals": 1, "hours": 0.2} | change))


def test_families_that_do_not_exist_are_refused():
    with pytest.raises(InputError, match="hazards"):
        simulate_interventions(Mechanism(), RodentSleep(), families=["hazards"])


def test_strange_but_possible_worlds_run():
    for change in (
        dict(reactivation_rate={"negative": 0.0}, log_hazard_ratio={}), dict(trial_probability=0.0), dict(trial_probability=1.0),
        dict(trial_jitter=0.0, trial_arms=("cue",)),
        dict(detector_false_alarms=0.0, detector_sensitivity=0.0, **CLOSED), dict(detector_latency=1.0, trial_arms=("inhibition",), **CLOSED),
        dict(trial_scheme="blocked", **CLOSED), dict(trial_failure=1.0, trial_failure_slope=2.0), dict(inhibition_duration=30.0, trial_arms=("inhibition",)),
        dict(dose_saturation=50.0), dict(trial_content=("negative", "positive"), trial_arms=("inhibition", "stim"), feedback=0.3, confounding=0.4),
    ):  # fmt: skip
        _, truth = synth.study(n_animals=1, hours=1.0, seed=4, **change)
        told = simulate_interventions(truth.mechanism, truth.sleep, copies=60, families=["trials"])
        assert all(np.isfinite(e.value) for e in told.values()), change
