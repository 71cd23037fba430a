from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import brainmu as bm
from brainmu.core import Intervals
from brainmu.errors import BrainmuError, InputError, MissingDataError
from brainmu.replay.decode import bins_within, cross_validated_error, decode, log_likelihood, point_estimate
from brainmu.replay.fields import place_fields, select_units
from brainmu.replay.position import position_of, run_and_rest
from brainmu.replay.track import fit_track


def test_position_is_decoded_far_better_than_chance(make_session) -> None:
    e = cross_validated_error(make_session().recording)
    assert e["median"] < 0.05 < 0.2 < e["chance"]
    assert e["quality"] == "good" and e["unit"] == "m" and e["folds"] == 5 and e["bin_size"] == 0.25 and e["n_units"] == 40


def test_units_that_fire_anywhere_decode_at_chance(make_session) -> None:
    rec = make_session().recording
    s = rec.spikes
    stop = rec.labels["run"].stop[0]
    t = np.where(s.times < stop, np.random.default_rng(0).uniform(0, stop, len(s)), s.times)
    e = cross_validated_error(bm.Recording.from_arrays("x", signals=rec.signals, spikes={"times": t, "unit": s.unit_id}, labels=rec.labels))
    assert e["quality"] == "poor" and e["median"] > 0.8 * e["chance"]


def test_a_part_is_decoded_by_the_others_alone(make_session) -> None:
    rec = make_session().recording
    p = rec.signals["position"]
    xy = np.asarray(p.values).copy()
    late = p.times >= p.times.mean()
    xy[late, 0] = 1.1 - xy[late, 0]  # the second half mirrored: whoever has seen only the other half is wrong in both
    signals = {"position": {"values": xy, "times": p.times, "unit": "m", "kind": "position", "channels": ["x", "y"]}}
    e = cross_validated_error(bm.Recording.from_arrays("m", signals=signals, spikes=rec.spikes, labels=rec.labels), folds=2)
    assert e["memoryless"] > 0.3 and e["state_space"] > 0.3 and cross_validated_error(rec, folds=2)["median"] < 0.05


def test_each_context_is_decoded_with_its_own_fields(two_tracks) -> None:
    e = cross_validated_error(two_tracks.recording)
    assert set(e["by_context"]) == {"A", "B"} and e["median"] < 0.05


def test_shifting_all_times_changes_nothing(make_session) -> None:
    rec = make_session(laps=120.0, bursts=4).recording
    shift = 5000.0
    p = rec.signals["position"]
    moved = bm.Recording.from_arrays(
        "m", signals={"position": {"values": np.asarray(p.values), "times": p.times + shift, "unit": "m", "kind": "position", "channels": ["x", "y"]}},
        spikes={"times": rec.spikes.times + shift, "unit": rec.spikes.unit_id}, labels={k: Intervals(v.bounds + shift) for k, v in rec.labels.items()},
    )  # fmt: skip
    a, b = cross_validated_error(rec), cross_validated_error(moved)
    assert a["n_bins"] == b["n_bins"] and a["median"] == pytest.approx(b["median"], rel=0.02)


def test_place_fields_find_the_planted_peaks(make_session) -> None:
    rec = make_session().recording
    position = position_of(rec)
    fields = place_fields(rec.spikes, position, rec.labels["run"])
    assert fields.rate.shape[0] == 40 and np.isfinite(fields.rates).all() and (fields.rates > 0).all()
    peaks = np.random.default_rng(0).uniform(0, 1, 40)  # as the session draws them
    inner = (peaks > 0.1) & (peaks < 0.9)
    assert np.median(np.abs(fields.peak[:, 0] - 0.05 - peaks)[inner]) < 0.04
    assert fields.prior.sum() == pytest.approx(1) and (fields.information > 0.3).mean() > 0.9


@given(seed=st.integers(0, 1000), bins=st.integers(1, 20), units=st.integers(1, 10), places=st.integers(2, 30))
@settings(deadline=None, max_examples=30)
def test_posterior_sums_to_one_and_follows_bayes(seed: int, bins: int, units: int, places: int) -> None:
    rng = np.random.default_rng(seed)
    counts, rates = rng.poisson(1.0, (bins, units)), rng.uniform(0.1, 20, (units, places))
    logp = log_likelihood(counts, rates, 0.02)
    from scipy.stats import poisson

    exact = poisson.logpmf(counts[:, :, None], rates[None] * 0.02).sum(1)
    a, b = logp - logp.max(1, keepdims=True), exact - exact.max(1, keepdims=True)
    assert np.allclose(a, b, atol=1e-3)


def test_bins_keep_a_last_one_whose_centre_is_inside() -> None:
    b = bins_within(Intervals([[0, 1.0], [2.0, 2.4], [3.0, 3.1]]), 0.25)
    assert b.tolist() == [[0, 0.25], [0.25, 0.5], [0.5, 0.75], [0.75, 1.0], [2.0, 2.25], [2.25, 2.4]]


def test_point_estimate_is_the_median_place() -> None:
    points = np.array([[0.0], [1.0], [10.0]])
    p = np.array([[0.3, 0.3, 0.4], [0.0, 0.0, 1.0]], dtype=np.float32)
    assert point_estimate(p, points)[:, 0].tolist() == [1.0, 10.0]


def test_epochs_come_from_speed_where_labels_are_absent(make_session) -> None:
    rec = make_session().recording
    p = rec.signals["position"]
    still = np.r_[p.times, p.times[-1] + 1 / 30 + np.arange(300 * 30) / 30]
    xy = np.concatenate([np.asarray(p.values), np.repeat(np.asarray(p.values)[-1:], 300 * 30, axis=0)])
    bare = bm.Recording.from_arrays(
        "b", spikes=rec.spikes, signals={"position": {"values": xy, "times": still, "unit": "m", "kind": "position", "channels": ["x", "y"]}}
    )
    run, rest, how = run_and_rest(bare)
    assert "derived from speed" in how and abs(rest.duration - 300) < 10 and abs(run.duration - 240) < 10


def test_track_of_a_w_maze_gives_each_arm_its_own_stretch() -> None:
    def leg(a, b, n=60):
        return np.linspace(a, b, n)

    left, foot_l, mid, foot_m, right, foot_r = (0, 1), (0, 0), (0.5, 1), (0.5, 0), (1, 1), (1, 0)
    lap = np.concatenate([leg(left, foot_l), leg(foot_l, foot_m), leg(foot_m, mid), leg(mid, foot_m), leg(foot_m, foot_r), leg(foot_r, right)])
    lap = np.concatenate([lap, lap[::-1]])
    xy = np.tile(lap, (8, 1)) + np.random.default_rng(0).normal(0, 0.005, (8 * len(lap), 2))
    rec = bm.Recording.from_arrays("w", signals={"position": {"values": xy, "rate": 30.0, "unit": "m", "kind": "position", "channels": ["x", "y"]}})
    position = position_of(rec)
    track = fit_track(position, Intervals([[0, position.times[-1]]]))
    at = track.project(np.array([left, foot_l, mid, foot_r, right]))
    assert track.segment.max() == 1 and abs(track.on_track - 1) < 0.02
    ends = {round(float(at[0])), round(float(at[4]))}
    assert ends == {0, 3} and at[2] > 3.2  # the middle arm lies behind the way from left to right


@pytest.mark.parametrize(("settings", "words"), [({"bin_size": 0}, "bins of 0 s"), ({"bin_size": -0.1}, "more than 0"), ({"folds": 1}, "1 folds")])
def test_bins_and_folds_that_cannot_be_are_refused(make_session, settings, words) -> None:
    with pytest.raises(InputError, match=words):
        cross_validated_error(make_session(bursts=2, laps=60.0).recording, **settings)


def test_an_open_field_is_refused_as_a_track() -> None:
    rng = np.random.default_rng(0)
    xy = np.clip(np.cumsum(rng.normal(0, 0.03, (20_000, 2)), axis=0), None, None)
    xy = np.abs((xy % 2) - 1)
    rec = bm.Recording.from_arrays("o", signals={"position": {"values": xy, "rate": 30.0, "unit": "m", "kind": "position", "channels": ["x", "y"]}})
    position = position_of(rec)
    with pytest.raises(MissingDataError, match="open field"):
        fit_track(position, Intervals([[0, position.times[-1]]]))


def _without(rec: bm.Recording, **changes) -> bm.Recording:
    parts = {"signals": rec.signals, "spikes": rec.spikes, "labels": rec.labels} | changes
    return bm.Recording.from_arrays("bad", **parts)


def test_bad_input_is_an_error_that_names_it(make_session) -> None:
    rec = make_session(laps=60.0, bursts=4).recording
    p = rec.signals["position"]

    def position(values, times=p.times):
        return {"position": {"values": values, "times": times, "unit": "m", "kind": "position", "channels": ["x", "y"]}}

    xy = np.asarray(p.values)
    cases = [
        (_without(rec, spikes=None), "no spikes"),
        (_without(rec, signals={}), "no position"),
        (_without(rec, signals=position(np.full_like(xy, np.nan))), "finite"),
        (_without(rec, signals=position(np.ones_like(xy))), "running"),
        (_without(rec, spikes={"times": rec.spikes.times + 1e5, "unit": rec.spikes.unit_id}), "on one clock"),
        (_without(rec, spikes={"times": [1.0, 2.0], "unit": [0, 0]}), "at least 50 spikes"),
        (_without(rec, labels={"run": Intervals([[0, 6]])}), "expected at least 15 s"),
    ]
    for bad, words in cases:
        with pytest.raises(BrainmuError, match=words):
            cross_validated_error(bad)


def test_holes_in_the_position_are_left_out_not_bridged(make_session) -> None:
    rec = make_session().recording
    p = rec.signals["position"]
    xy = np.asarray(p.values).copy()
    xy[1500:2100] = np.nan
    holed = _without(rec, signals={"position": {"values": xy, "times": p.times, "unit": "m", "kind": "position", "channels": ["x", "y"]}})
    position = position_of(holed)
    assert position.dropped == 600 and np.isnan(position.at(np.array([p.times[1800]]))).all()
    assert cross_validated_error(holed)["median"] < 0.05


def test_samples_where_the_tracker_saw_nothing_count_as_missing(make_session) -> None:
    rec = make_session().recording
    p = rec.signals["position"]
    xy = np.asarray(p.values).copy()
    starts = np.random.default_rng(0).choice(len(xy) - 5, 150, replace=False)
    lost = np.unique(starts[:, None] + np.arange(5))
    xy[lost] = -1.0
    position = position_of(_without(rec, signals={"position": {"values": xy, "times": p.times, "unit": "m", "kind": "position", "channels": ["x", "y"]}}))
    assert position.lost == position.dropped == len(lost)
    resting = np.asarray(p.values).copy()
    resting[2000:5000] = resting[2000]  # an animal that sits still at one exact place was not jumping
    still = _without(rec, signals={"position": {"values": resting, "times": p.times, "unit": "m", "kind": "position", "channels": ["x", "y"]}})
    assert position_of(still).lost == position_of(rec).lost == 0


def test_units_without_spikes_are_left_out_with_the_reason(make_session) -> None:
    s = make_session().recording.spikes
    import pandas as pd

    more = bm.Spikes(s.times, s.unit_id, pd.DataFrame({"id": np.arange(42)}))
    kept, out = select_units(more)
    assert kept.n_units == 40 and out["id"].tolist() == [40, 41] and "0 spikes" in out["reason"][0]


def test_decode_refuses_counts_of_other_units(make_session) -> None:
    rec = make_session().recording
    fields = place_fields(rec.spikes, position_of(rec), rec.labels["run"])
    with pytest.raises(InputError, match="a column a unit"):
        decode(np.zeros((3, 7)), fields, 0.02)


@pytest.mark.realdata
def test_rat_linear_track_is_decoded_better_than_by_pynapple(real_data) -> None:
    e = cross_validated_error(bm.read(real_data / "rat-linear-track"))
    # Measured with pynapple 0.11 on the same units, folds and bins: 60.6 px (benchmarks/bench_decode.py).
    assert e["unit"] == "px" and e["n_units"] == 29 and e["cut"] == "position record"
    assert e["memoryless"] < 45 and e["median"] < 30
