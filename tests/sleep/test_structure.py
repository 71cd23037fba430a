"""Numbers worked out by hand, and what must hold of any hypnogram."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainmu.core import Hypnogram
from brainmu.errors import InputError
from brainmu.sleep import evaluate, evaluate_many, read_hypnogram, statistics, transitions
from brainmu.sleep.agreement import disagreements
from brainmu.sleep.structure import bout_survival, bout_table, cycles, fragmentation, micro_arousals


def _value(table, measure, stage=""):
    row = table[(table["measure"] == measure) & (table["stage"] == stage)]
    assert len(row) == 1
    return row["value"].iloc[0]


def test_a_night_by_hand():
    # 2 W, 1 N1, 3 N2, 1 W, 1 N2, 2 R, of 30 s
    t = statistics(Hypnogram(np.array([0, 0, 1, 2, 2, 2, 0, 2, 4, 4]), "aasm5", 30.0))
    assert _value(t, "sleep onset latency") == 1.0
    assert _value(t, "total sleep time") == 3.5
    assert _value(t, "REM latency from sleep onset") == 3.0
    assert _value(t, "wake after sleep onset") == 0.5
    assert _value(t, "sleep efficiency") == 70.0
    assert _value(t, "sleep maintenance efficiency") == pytest.approx(87.5)
    assert _value(t, "share of sleep", "N2") == pytest.approx(100 * 4 / 7)
    assert _value(t, "bout length, mean", "N2") == 60.0
    assert set(t.columns) == {"measure", "stage", "value", "unit"} and (t["unit"] != "").all()


def test_no_sleep_gives_nan_not_zero():
    t = statistics(Hypnogram(np.zeros(5, int), "rodent3", 4.0))
    assert np.isnan(_value(t, "sleep onset latency")) and np.isnan(_value(t, "REM latency from sleep onset"))
    with pytest.raises(InputError, match="no epochs"):
        statistics(Hypnogram(np.empty(0, int), "rodent3", 4.0))


def test_bouts_transitions_survival():
    h = Hypnogram(np.array([0, 0, 1, 1, 1, 0, 1, 1, -2, 1, 1, 1]), "rodent3", 4.0)
    b = bout_table(h)
    assert b["censored"].tolist() == [True, False, False, True, False, True]
    t = transitions(h).set_index(["from", "to"])
    assert t.loc[("NREM", "WAKE"), "count"] == 1 and t.loc[("WAKE", "NREM"), "count"] == 2
    assert t.loc[("NREM", "WAKE"), "probability"] == pytest.approx(1 / 6)
    # Of bouts of 12, 8 and 12 s one was seen from beginning to end: a bout that had begun before is at least as long as was seen of it.
    s = bout_survival(h, "NREM")
    assert s["duration"].tolist() == [8.0, 12.0] and s["survival"].tolist() == pytest.approx([1.0, 0.5])
    first = bout_survival(h, "WAKE")
    assert first["duration"].tolist() == [4.0, 8.0] and first["ended"].tolist() == [1, 0]
    assert micro_arousals(h)["start"].tolist() == [20.0]


def test_unscored_epochs_count_in_no_amount():
    # W, N2, movement, N2, R, unscored, N2, W
    t = statistics(Hypnogram(np.array([0, 2, -1, 2, 4, -2, 2, 0]), "aasm5", 30.0))
    assert _value(t, "unscored") == 1.0 and _value(t, "sleep efficiency") == pytest.approx(100 * 4 / 6)
    assert _value(t, "sleep period") == 3.0 and _value(t, "sleep maintenance efficiency") == 100.0
    assert _value(t, "REM latency from sleep onset") == 1.5


def test_a_hypnogram_without_epochs_has_no_bouts():
    empty = Hypnogram(np.empty(0, int), "aasm5", 30.0)
    assert bout_table(empty).columns.tolist() == ["stage", "start", "duration", "previous", "next", "censored"]
    assert not len(bout_table(empty)) and not len(micro_arousals(empty)) and not len(cycles(empty))


def test_cycles():
    codes = [0] * 20 + ([2] * 40 + [4] * 10 + [0] * 2 + [4] * 5) + [2] * 50 + [4] * 20 + [2] * 30
    c = cycles(Hypnogram(np.array(codes), "aasm5", 30.0))
    assert c["start"].tolist() == [600.0, 77 * 30.0] and c["rem"].tolist() == [7.5, 10.0]


@pytest.mark.realdata
def test_real_nights_have_plausible_structure(real_data):
    files = sorted((real_data / "human-sleepedf-hypnograms").glob("*Hypnogram.edf"))
    latency, broken, half = [], [], []
    for path in files:
        h = read_hypnogram(path)
        latency.append(_value(statistics(h), "REM latency from sleep onset"))
        t = fragmentation(h).set_index("measure")["value"]
        broken.append(t["sleep fragmentation index"])
        half.append(t["half-life of sleep"])
        assert len(cycles(h)) in range(2, 9)
    assert len(files) >= 10 and 50 < np.median(latency) < 150  # min, in adults without a disorder
    assert 2 < np.median(broken) < 20 and 120 < np.median(half) < 7200


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(-2, 2), min_size=2, max_size=60))
def test_shares_and_probabilities_sum_to_one(codes):
    h = Hypnogram(np.array(codes), "rodent3", 4.0)
    t = statistics(h)
    share = t.loc[t["measure"] == "share of scored time", "value"]
    if (h.codes >= 0).any():
        assert share.sum() == pytest.approx(100)
    p = transitions(h).groupby("from")["probability"].sum(min_count=1).dropna()
    assert np.allclose(p, 1)


def test_evaluate_by_hand():
    a = Hypnogram(np.array([0, 0, 1, 1, 1, 2, 2, -2]), "rodent3", 4.0, proba=np.eye(3)[[0, 0, 1, 1, 1, 2, 2, 2]])
    b = Hypnogram(np.array([0, 1, 1, 1, 1, 2, 0, 2]), "rodent3", 4.0)
    e = evaluate(a, b)
    assert e["n"] == 7 and e["n_left_out"] == 1 and e["accuracy"] == pytest.approx(5 / 7)
    assert e["f1"]["NREM"] == pytest.approx(6 / 7) and e["fraction_bias"]["REM"] == pytest.approx(1 / 7)
    assert e["ece"] == pytest.approx(2 / 7) and e["chance"]["commonest_stage"] == pytest.approx(4 / 7)
    assert e["kappa_interval"][0] <= e["kappa"] <= e["kappa_interval"][1]
    d = disagreements(a, b)
    assert d["start"].tolist() == [4.0, 24.0] and d["reference"].tolist() == ["NREM", "WAKE"]


def test_other_grid_and_stage_set():
    human = Hypnogram(np.repeat([0, 2, 3, 4], 5), "aasm5", 30.0)
    fine = Hypnogram(np.repeat([0, 1, 1, 2], 50), "rodent3", 3.0)
    assert evaluate(fine, human)["kappa"] == 1.0
    with pytest.raises(InputError, match="share no scored epoch"):
        evaluate(fine, Hypnogram(np.array([0, 1]), "rodent3", 4.0, start=1e6))


def test_random_scoring_is_chance():
    rng = np.random.default_rng(0)
    pairs = [(f"s{k}", *(Hypnogram(rng.integers(0, 3, 300), "rodent3", 4.0) for _ in range(2))) for k in range(12)]
    r = evaluate_many(pairs)
    low, high = r["kappa_subjects_interval"]
    assert low < 0 < high and high - low < 0.1 and r["n_subjects"] == 12 and len(r["subjects"]) == 12


def test_fragmentation_by_hand():
    # An hour of sleep in which the animal wakes twice, for 8 s and for a minute; its bouts are of 1600 s, 1200 s, and 800 s cut by the end.
    codes = [0] * 15 + [1] * 400 + [0] * 2 + [1] * 300 + [0] * 15 + [1] * 100 + [2] * 100
    t = fragmentation(Hypnogram(np.array(codes), "rodent3", 4.0)).set_index("measure")
    assert t.loc["awakenings", "value"] == 2.0 and t.loc["brief awakenings", "value"] == 1.0 and t.loc["stage shifts", "value"] == 3.0
    assert t.loc["arousals from NREM", "value"] == pytest.approx(2 / (800 * 4 / 3600)) and t.loc["arousals from REM", "value"] == 0
    assert (t["low"] <= t["value"]).all() and t.loc["awakenings", "high"] > 4
    assert t.loc["half-life of sleep", "value"] == 1200 and t.loc["half-life of sleep", "unit"] == "s"
    with pytest.raises(InputError, match="no sleep"):
        fragmentation(Hypnogram(np.zeros(5, int), "rodent3", 4.0))


def test_shifts_to_n1_count_in_people():
    t = fragmentation(Hypnogram(np.array([2] * 60 + [1] + [2] * 30 + [0] + [4] * 29), "aasm5", 30.0)).set_index("measure")
    assert t.loc["sleep fragmentation index", "value"] == pytest.approx(2 / 1.0) and t.loc["awakenings", "value"] == pytest.approx(1.0)


def test_survival_of_all_stages_with_limits():
    h = Hypnogram(np.repeat(np.tile([0, 1], 30), np.random.default_rng(0).integers(1, 30, 60)), "rodent3", 4.0)
    s = bout_survival(h)
    assert s.columns[0] == "stage" and set(s["stage"]) == {"WAKE", "NREM"}
    assert ((s["low"] <= s["survival"]) & (s["survival"] <= s["high"])).all()
    t = transitions(h)
    moved = t[t["count"] > 0]
    moved = moved[moved["from"] != moved["to"]]
    assert ((moved["rate_low"] < moved["rate"]) & (moved["rate"] < moved["rate_high"])).all()
