"""One content or arm of randomised trials against another, and closed loops, on planted truth."""

import dataclasses

import numpy as np
import pytest

import brainmu as bm
from brainmu.causal import estimate_effect, preregister
from brainmu.core import EventTable
from brainmu.errors import DesignError


def study(seed, animals=8, hours=2.0, **planted):
    planted = {"trial_log_hazard_ratio": {"negative": 1.4}, "trial_failure": 0.0, "trial_spacing": 20.0} | planted
    return bm.synth.study(n_animals=animals, hours=hours, seed=seed, **planted)


def with_ledger(recording, change, **meta):
    table = EventTable.from_frame(change(recording.events("trials").to_frame()))
    subject_meta = dict(recording.subject_meta) | meta
    return dataclasses.replace(recording, labels=dict(recording.labels) | {"trials": table}, subject_meta=subject_meta)


def same(frame):
    return frame


def test_negative_less_neutral_within_animals():
    recordings, _ = study(3, trial_content=("negative", "neutral"))
    found = estimate_effect(recordings, exposure="trials", content=("negative", "neutral"), draws=999)
    d = found.diagnostics
    assert found.low > 0 and found.p_value < 0.05 and d["randomisation_p"] < 0.05 and d["within_animals"] and found.n_units == 8
    assert d["negative"]["estimate"] - d["neutral"]["estimate"] == pytest.approx(found.estimate, abs=1e-9)
    assert d["neutral"]["low"] < 0 < d["neutral"]["high"] and d["negative"]["low"] > 0
    assert "within animals" in found.estimand and found.scale == "difference of risk differences"
    # The planted difference: with content neutral assignment does nothing.
    truth = bm.synth.study(n_animals=1, hours=0.2, seed=0, trial_log_hazard_ratio={"negative": 1.4}, trial_failure=0.0, trial_spacing=20.0)[1]
    planted = bm.synth.interventions.simulate_interventions(truth.mechanism, truth.sleep, copies=1000, families=["trials"])["itt_risk_difference"].value
    assert found.estimate == pytest.approx(planted, abs=0.12)


def test_arms_between_animals_and_what_no_opsin_shows():
    opsin = [with_ledger(r, same, virus="opsin") for r in study(1, animals=5)[0]]
    control = study(2, animals=5, trial_log_hazard_ratio={})[0]
    control = [dataclasses.replace(with_ledger(r, same, virus="no_opsin"), id=f"c_{r.id}", subject=f"c_{r.subject}") for r in control]
    found = estimate_effect([*opsin, *control], exposure="trials", arms=("opsin", "no_opsin"), draws=999)
    d = found.diagnostics
    assert not d["within_animals"] and found.n_units == 10 and found.low > 0
    assert any("allotted at random" in w for w in d["warnings"]) and any("allotted" in a for a in found.assumptions)
    assert d["no_opsin"]["low"] < 0 < d["no_opsin"]["high"]


def test_arms_that_take_turns_within_an_animal():
    recordings, _ = study(4, trial_arms=("activation", "inhibition"))
    found = estimate_effect(recordings, exposure="trials", arms=("activation", "inhibition"), content="negative", draws=199)
    assert found.diagnostics["within_animals"] and found.estimate > 0
    with pytest.raises(DesignError, match="arm follows the assignment"):
        estimate_effect(study(4, animals=2)[0], exposure="trials", arms=("stim", "sham"))
    with pytest.raises(DesignError, match="no trial has arm 'opsin'"):
        estimate_effect(recordings, exposure="trials", arms=("opsin", "no_opsin"))
    with pytest.raises(DesignError, match="one at a time"):
        estimate_effect(recordings, exposure="trials", arms=("activation", "inhibition"), content=("negative", "neutral"))


@pytest.mark.slow
def test_error_rate_of_a_content_contrast():
    """120 studies of six animals in which both contents do the same: the interval excludes zero about one time in twenty."""
    same_effect = {"negative": 0.9, "neutral": 0.9}
    outside = 0
    for seed in range(120):
        recordings, _ = study(seed, animals=6, hours=1.5, trial_content=("negative", "neutral"), trial_log_hazard_ratio=same_effect)
        e = estimate_effect(recordings, exposure="trials", content=("negative", "neutral"), draws=0, diagnostics=False)
        outside += e.low > 0 or e.high < 0
    assert outside <= 12


def test_contents_that_were_not_matched_are_said():
    recordings, _ = study(5, animals=4, hours=1.0, trial_content=("negative", "neutral"))

    def uneven(f):
        negative = f.content == "negative"
        return f.assign(light_mw=np.where(negative, 12.0, 8.0) + 0.1 * (f.index % 3), ensemble_size=40.0)

    found = estimate_effect([with_ledger(r, uneven) for r in recordings], exposure="trials", content=("negative", "neutral"), draws=0)
    rows = {r["column"]: r["sd"] for r in found.diagnostics["alike"]}
    assert rows["light_mw"] > 1 and rows["ensemble_size"] == 0
    (said,) = [w for w in found.diagnostics["warnings"] if "light_mw" in w]
    assert "of both together" in said and "light_mw" in found.diagnostics["verdict"] + said


def test_latency_and_phase_of_a_closed_loop_by_arm():
    recordings, _ = study(6, animals=4, trial_gate="detection", detector_latency=0.05)
    rng = np.random.default_rng(0)

    def logged(f):
        return f.assign(detected=f.start - 0.05 - rng.exponential(0.01, len(f)), phase=rng.normal(0.5, 0.6, len(f)))

    good = [with_ledger(r, logged) for r in recordings]
    loop = estimate_effect(good, exposure="trials", draws=99).diagnostics["closed_loop"]
    assert loop["latency"]["assigned"]["median"] == pytest.approx(0.057, abs=0.004) and loop["latency"]["p_value"] > 0.01
    assert loop["phase"]["control"]["mean"] == pytest.approx(0.5, abs=0.2) and 0.7 < loop["phase"]["control"]["resultant"] < 0.95

    def other_sham(f):
        return logged(f).assign(phase=np.where(f.assigned, rng.normal(0.5, 0.6, len(f)), rng.uniform(-np.pi, np.pi, len(f))))

    bad = [with_ledger(r, lambda f: other_sham(f).assign(detected=lambda g: np.where(g.assigned, g.detected, g.start - 0.3))) for r in recordings]
    said = estimate_effect(bad, exposure="trials", draws=99).diagnostics["warnings"]
    assert any("latency from detection" in w for w in said) and any("phase at the onset" in w for w in said)

    unlogged = [with_ledger(r, lambda f: logged(f).assign(detected=lambda g: np.where(g.assigned, g.detected, np.nan))) for r in recordings]
    said = estimate_effect(unlogged, exposure="trials", draws=99).diagnostics["warnings"]
    assert any("sham is not logged identically" in w for w in said)
    assert estimate_effect(recordings, exposure="trials", draws=99).diagnostics["closed_loop"] == {}


def test_a_stimulation_artefact_is_left_out_of_both_arms():
    recordings, _ = study(7, animals=4, hours=1.0)

    def artefact(r):
        t = r.events("trials")
        s = r.signals["pressure"]
        v = np.zeros(s.n_samples, dtype=np.float32)
        at = np.ceil(t.start[t.assigned.astype(bool)]).astype(int)
        v[at[at < len(v)]] = 100.0  # the sample after each delivered onset
        signal = dataclasses.replace(s, values=v[:, None])
        return dataclasses.replace(r, signals=dict(r.signals) | {"pressure": signal})

    marked = [artefact(r) for r in recordings]
    ask = {"exposure": "trials", "outcome": "signal:pressure", "horizon": 10.0, "draws": 99}
    assert estimate_effect(marked, **ask).estimate > 5
    clean = estimate_effect(marked, blank=1.0, **ask)
    assert clean.estimate == 0 and clean.blank == 1.0 and "1 to 10 s after" in clean.estimand


def test_the_question_is_sealed_with_its_arms(tmp_path):
    text = preregister(tmp_path / "a.md", exposure="trials", outcome="NREM->WAKE", design="trials", arms=("opsin", "no_opsin"))
    assert "in arm opsin than in arm no_opsin" in text
