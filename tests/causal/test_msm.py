import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest

from brainmu.causal import estimate_effect
from brainmu.errors import DesignError

ASK = {"exposure": "reactivation", "design": "msm", "adjust": ["pressure"]}


@pytest.fixture(scope="module")
def study(planted_study):
    return planted_study(1, animals=6, hours=1.5, planted=planted_study.settings(effect=0.6, gamma=0.8, drive=0.8))[0]


def test_weighting_recovers_the_effect_and_balances_the_confounder(study):
    e = estimate_effect(study, **ASK)
    assert e.low < 0.6 < e.high and e.p_value < 0.05 and e.scale == "log odds ratio, marginal"
    d = e.diagnostics
    assert d["unweighted"] > e.estimate + 0.1
    assert abs(d["balance"]["pressure"]["weighted"]) < 0.1 < d["balance"]["pressure"]["observed"]
    assert d["identified_by_weighting"] and 0.3 < d["ess_share"] < 1
    assert d["weights"]["mean"] == pytest.approx(1.0, abs=0.05)
    assert d["g_computation"] == pytest.approx(e.estimate, abs=0.15)
    assert d["truncation_curve"][0]["estimate"] == pytest.approx(e.estimate)
    assert d["risk_difference"]["low"] < d["risk_difference"]["estimate"]
    bare = estimate_effect(study, diagnostics=False, **ASK)
    assert (bare.estimate, bare.low, bare.high) == (e.estimate, e.low, e.high)


def test_windows_and_doses(study):
    window = estimate_effect(study, horizon=20.0, diagnostics=False, **ASK)
    count = estimate_effect(study, horizon=20.0, dose="count", diagnostics=False, **ASK)
    assert 0 < count.estimate < window.estimate < 0.6 and window.n_exposed > 0


def test_weights_with_a_long_tail_are_said_to_identify_nothing(planted_study):
    recs = planted_study(3, animals=6, planted=planted_study.settings(gamma=0.8, drive=3.0, rate=-1.0))[0]
    e = estimate_effect(recs, horizon=40.0, **ASK)
    assert not e.diagnostics["identified_by_weighting"]
    assert any("not identified by weighting" in w for w in e.diagnostics["warnings"]) and e.diagnostics["verdict"].startswith("Not identified")


def test_truncation_warns(study):
    e = estimate_effect(study, truncate=99.0, **ASK)
    assert any("truncated at 99 %" in w for w in e.diagnostics["warnings"])
    with pytest.raises(DesignError, match="percentile"):
        estimate_effect(study, truncate=10.0, **ASK)


def test_questions_it_cannot_answer(study):
    with pytest.raises(DesignError, match="adjust is empty"):
        estimate_effect(study, exposure="reactivation", design="msm")
    with pytest.raises(DesignError, match="two animals or more"):
        estimate_effect(study[0], **ASK)
    with pytest.raises(DesignError, match="takes one content"):
        estimate_effect(study, content=("a", "b"), **ASK)
    with pytest.raises(DesignError, match="does not occur"):
        estimate_effect(study, content="joy", **ASK)


def test_the_order_of_recordings_does_not_matter(study):
    a, b = estimate_effect(study, diagnostics=False, **ASK), estimate_effect(study[::-1], diagnostics=False, **ASK)
    # Signals sampled once an epoch: the drawn reference times do not enter.
    assert a.estimate == pytest.approx(b.estimate, abs=1e-8) and a.low == pytest.approx(b.low, abs=1e-6)


def test_missing_covariates_leave_their_windows_out(study):
    rec = study[0]
    s = rec.signals["pressure"]
    values = s.read()
    values[: len(values) // 2] = np.nan
    half = dataclasses.replace(rec, signals={"pressure": dataclasses.replace(s, values=values)})
    whole, less = (estimate_effect([r, *study[1:]], **ASK).diagnostics["rows"]["at_risk"] for r in (rec, half))
    assert less < whole


@pytest.mark.slow
def test_nothing_is_found_in_continuous_time():
    """Wakings anywhere in an epoch, a confounder with tails: events that do nothing had a mean log odds ratio of 0.11 (SE 0.03) by weights alone."""
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "bench_error_rates.py"
    spec = importlib.util.spec_from_file_location("bench_error_rates", path)
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    found = [estimate_effect(r, diagnostics=False, **ASK).estimate for r in bench.nights(bench.ONE | {"seed": 77}, 40)]
    assert abs(np.mean(found)) < 0.06
