"""Negative controls, sensitivity and a verdict that says what would overturn it stand beside every design, and speak up where they should."""

import dataclasses

import numpy as np
import pytest

from brainmu.causal import estimate_effect
from brainmu.causal.sensitivity import e_value, e_value_of_difference
from brainmu.core import EventTable

DESIGNS = ("trials", "hazard", "msm", "matched", "glm")


def ask(recordings, design, **more):
    adjust = () if design == "trials" else ("pressure",)
    return estimate_effect(recordings, exposure="trials" if design == "trials" else "reactivation", design=design, adjust=adjust, draws=299, **more)


@pytest.fixture(scope="module")
def strong(planted_study):
    settings = planted_study.settings(effect=1.2, gamma=0.3, drive=0.3, trial_effect=1.8)
    return planted_study(5, animals=6, hours=2.0, trials=True, planted=settings)[0]


@pytest.mark.parametrize("design", DESIGNS)
def test_every_design_has_controls_sensitivity_and_a_verdict(strong, design):
    more = {"horizon": 4.0} if design == "glm" else {}
    found = ask(strong, design, **more)
    d = found.diagnostics
    assert len(d["negative_controls"]) >= 3 and {"quantity", "estimate", "p_value"} <= set(d["negative_controls"][0])
    seen = d["sensitivity"]
    assert seen["e_value"] > seen["e_value_interval"] > 1 and found.low > 0
    assert seen["confounder"]["product_that_removes_the_estimate"] > 0 and np.shape(seen["confounder"]["estimate"]) == (7, 7)
    assert "would overturn it" in d["verdict"] and f"{seen['e_value_interval']:.2f}" in d["verdict"]


@pytest.mark.parametrize("design", ["hazard", "msm", "matched", "glm"])
def test_a_noisy_confounder_is_said_whatever_the_design(planted_study, design):
    settings = planted_study.settings(gamma=1.0, drive=1.0)
    noisy = planted_study(7, animals=6, hours=2.0, noise=1.5, planted=settings)[0]
    found = ask(noisy, design)
    assert any("looks noisy" in w for w in found.diagnostics["warnings"])
    assert found.p_value > 0.05 or "association only" in found.diagnostics["verdict"]


def test_a_coin_that_looked_at_the_animal(planted_study):
    """Trials late in a bout were assigned more often than the log says: the control of time in bout fails."""
    honest = planted_study(9, animals=6, hours=2.0, trials=True, planted=planted_study.settings())[0]
    rng = np.random.default_rng(0)

    def rigged(r):
        t, h = r.events("trials"), r.hypnogram("scoring")
        k = ((t.start - h.start) // h.epoch).astype(int)
        asleep = h.mask("NREM")
        age = np.array([np.argmin(asleep[i::-1]) if not asleep[i::-1].all() else i for i in k])
        coin = rng.random(len(t)) < np.where(age > np.median(age), 0.8, 0.2)
        f = t.to_frame().assign(assigned=coin, delivered=coin)
        return dataclasses.replace(r, labels=dict(r.labels) | {"trials": EventTable.from_frame(f)})

    said = ask([rigged(r) for r in honest], "trials").diagnostics["warnings"]
    assert any("negative control fails: assignment 'predicts' the time in bout" in w for w in said)
    assert not any("negative control fails" in w for w in ask(honest, "trials").diagnostics["warnings"])


def test_trials_cut_short_bound_what_they_could_hide(strong):
    near = ask(strong, "trials", horizon=60.0)
    low, high = near.diagnostics["sensitivity"]["bounds_if_cut_short"]
    assert low <= near.estimate <= high
    whole = ask(strong, "trials", horizon=8.0)
    assert np.diff(whole.diagnostics["sensitivity"]["bounds_if_cut_short"])[0] < high - low


@pytest.mark.parametrize("design", ["trials", "matched"])
def test_differences_in_means_have_an_e_value_too(strong, design):
    d = ask(strong, design, outcome="time to WAKE", horizon=40.0).diagnostics
    assert d["sensitivity"]["e_value"] >= d["sensitivity"]["e_value_interval"] >= 1


def test_e_values_by_hand():
    rr = np.exp(0.91 * 0.5)
    assert e_value_of_difference(-1.0, 2.0) == pytest.approx(rr + np.sqrt(rr * (rr - 1)))
    assert e_value_of_difference(0.0, 1.0) == 1.0 and np.isnan(e_value_of_difference(1.0, 0.0))
    assert e_value(np.log(2.0), 0.01) == pytest.approx(2 + np.sqrt(2))
