from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import brainmu as bm
from brainmu.core import EventTable, Intervals
from brainmu.errors import BrainmuError, InputError, MissingDataError
from brainmu.replay import angle_posterior, cross_validated_angular_error, cross_validated_label, decode_angle, decode_label, head_direction_of, head_tuning
from brainmu.replay.heading import HeadDirection, HeadTuning, angular_distance, mean_angle

RATE = 30.0


def compass(seed: int = 0, cells: int = 20, minutes: float = 6.0, turn: float = 0.0, unit: str = "rad", tuned: bool = True):
    """Head-direction cells of an animal that turns its head at random; `turn` rotates head and cells alike."""
    rng = np.random.default_rng(seed)
    n = int(minutes * 60 * RATE)
    t = np.arange(n) / RATE
    angle = np.cumsum(rng.normal(0, 0.06, n)) + turn
    preferred = np.arange(cells) / cells * 2 * np.pi + turn
    rate = 0.5 + 25 * np.exp((np.cos(angle[:, None] - preferred) - 1) / np.deg2rad(30) ** 2) * tuned
    counts = rng.poisson(rate / RATE)
    i, u = np.nonzero(counts)
    k = counts[i, u]
    times = np.repeat(t[i], k) + rng.uniform(0, 1 / RATE, k.sum())
    values = np.angle(np.exp(1j * angle)) * (1 if unit == "rad" else 180 / np.pi)
    signals = {"heading": {"values": values[:, None], "rate": RATE, "unit": unit, "kind": "behaviour", "channels": ["heading"]}}
    return bm.Recording.from_arrays("hd", signals=signals, spikes={"times": times, "unit": np.repeat(u, k)}), np.mod(preferred, 2 * np.pi)


@pytest.fixture(scope="module")
def head():
    return compass()


def test_the_planted_direction_is_decoded_within_a_few_degrees(head) -> None:
    e = cross_validated_angular_error(head[0])
    assert e["median"] < 8 < 60 < e["chance"] and e["unit"] == "deg" and e["quality"] == "good" and e["n_units"] == 20
    assert e["state_space"] <= e["memoryless"] + 0.5 and e["folds_used"] == 5 and 1300 < e["n_bins"] <= 1440


def test_cells_without_a_direction_decode_at_chance() -> None:
    e = cross_validated_angular_error(compass(1, tuned=False)[0], least_spikes=10)
    assert e["quality"] == "poor" and e["median"] > 50


def test_tuning_curves_find_the_planted_directions(head) -> None:
    rec, preferred = head
    direction = head_direction_of(rec)
    tuning = head_tuning(rec.spikes, direction, direction.known)
    assert np.rad2deg(angular_distance(tuning.preferred, preferred)).max() < 12
    assert (tuning.vector_length > 0.6).all() and tuning.prior.sum() == pytest.approx(1) and 3 <= tuning.smoothing <= 26
    flat = compass(1, tuned=False)[0]
    assert head_tuning(flat.spikes, head_direction_of(flat), direction.known).vector_length.max() < 0.3


def test_degrees_and_radians_and_any_rotation_give_the_same(head) -> None:
    plain = cross_validated_angular_error(head[0])["median"]
    assert cross_validated_angular_error(compass(unit="deg")[0])["median"] == pytest.approx(plain, rel=1e-3)
    # Turned by whole bins, what lay across 0 lies elsewhere: nothing may depend on where the circle is cut.
    assert cross_validated_angular_error(compass(turn=2 * np.pi * 23 / 60)[0])["median"] == pytest.approx(plain, rel=0.05)


@given(st.floats(-20, 20), st.floats(-20, 20), st.floats(-20, 20))
@settings(deadline=None)
def test_angular_distance_is_a_metric_on_the_circle(a: float, b: float, c: float) -> None:
    d = angular_distance
    assert 0 <= d(a, b) <= np.pi + 1e-9 and d(a, b) == pytest.approx(d(b, a), abs=1e-9) and d(a, a + 2 * np.pi) == pytest.approx(0, abs=1e-6)
    assert d(a, c) <= d(a, b) + d(b, c) + 1e-9


def test_interpolation_takes_the_shorter_way_and_holes_stay_unknown() -> None:
    t = np.r_[np.arange(100) / 10, 20 + np.arange(100) / 10]
    angle = np.where(np.arange(200) % 2, 0.1, 2 * np.pi - 0.1)
    h = HeadDirection(t, angle, "h")
    assert angular_distance(h.at(np.array([0.05])), np.zeros(1))[0] < 0.02  # not pi
    assert np.isnan(h.at(np.array([15.0, -1.0]))).all() and len(h.known) == 2 and h.dwell.sum() == pytest.approx(19.8)


def test_posterior_of_a_stretch_follows_the_head(head) -> None:
    rec, _ = head
    direction = head_direction_of(rec)
    tuning = head_tuning(rec.spikes, direction, Intervals([[60, 360]]))
    p = angle_posterior(rec, 5.0, 45.0, tuning, bin_size=0.25)
    assert p.dims == ("time", "angle") and np.allclose(p.sum("angle"), 1, atol=1e-4) and p.angle.attrs["units"] == "rad"
    error = np.rad2deg(angular_distance(mean_angle(p.values, tuning.angles), direction.at(p.time.values)))
    assert np.median(error) < 12


@pytest.mark.slow
def test_synthetic_head_direction_cells_are_decoded() -> None:
    rec, _ = bm.synth.recording(hours=0.2, seed=3, n_cells=5, n_head=16, n_channels=1, n_cortex=0, run_minutes=6)
    e = cross_validated_angular_error(rec, bin_size=0.1)
    assert e["signal"] == "heading" and e["median"] < 25 and e["quality"] == "good"


def test_bad_input_is_an_error_that_names_it(head) -> None:
    rec, _ = head
    s = rec.signals["heading"]

    def other(values=None, unit="rad", name="heading", spikes=rec.spikes):
        v = np.asarray(s.values) if values is None else values
        signals = {name: {"values": v, "rate": RATE, "unit": unit, "kind": "behaviour", "channels": [name]}}
        return bm.Recording.from_arrays("bad", signals=signals, spikes=spikes)

    tuning = HeadTuning(np.ones((2, 60), np.float32), np.ones(60), np.arange(60.0), np.arange(2), 5.0, 60.0)
    for call, words in [
        (lambda: cross_validated_angular_error(other(unit="V")), "expected rad or deg"),
        (lambda: cross_validated_angular_error(other(name="nose")), "no head direction called heading"),
        (lambda: cross_validated_angular_error(other(np.full((500, 1), np.nan))), "finite"),
        (lambda: cross_validated_angular_error(other(spikes=None)), "no spikes"),
        (lambda: cross_validated_angular_error(other(spikes={"times": np.arange(1e5, 1e5 + 100), "unit": np.zeros(100, int)})), "on one clock"),
        (lambda: cross_validated_angular_error(rec, during=Intervals([[0, 5]])), "expected at least 15 s"),
        (lambda: cross_validated_angular_error(rec, folds=1), "1 folds"),
        (lambda: head_tuning(rec.spikes, head_direction_of(rec), Intervals([[0, 300]]), bins=3), "3 bins"),
        (lambda: decode_angle(np.zeros((3, 7)), tuning, 0.1), "a column a unit"),
        (lambda: angle_posterior(rec, 5.0, 4.0, tuning), "at least one bin"),
    ]:
        with pytest.raises(BrainmuError, match=words):
            call()
    assert head_direction_of(other(name="nose"), "nose").name == "nose"


# -- labels ----------------------------------------------------------------------------------------------------------------


def cued(seed: int = 0, strength: float = 3.0):
    """Two cues in alternating minutes; half of the units prefer one each. In rest they fire eight times faster, in bursts of one content."""
    rng = np.random.default_rng(seed)
    spans = {c: Intervals([[a, a + 30.0] for a in np.arange(60.0 * k, 600, 120)]) for k, c in enumerate("AB")}
    times, units = [], []
    for k in range(16):
        for c, v in spans.items():
            rate = 2.0 * (strength if "AB"[k % 2] == c else 1.0)
            for a, b in v:
                t = rng.uniform(a, b, rng.poisson(rate * (b - a)))
                times.append(t)
                units.append(np.full(len(t), k))
    start = 700 + 3.0 * np.arange(60)
    content = rng.choice(["A", "B"], 60)
    for a, c in zip(start, content):
        for k in range(16):
            t = rng.uniform(a, a + 0.3, rng.poisson(16.0 * 0.3 * (strength if "AB"[k % 2] == c else 1.0)))
            times.append(t)
            units.append(np.full(len(t), k))
    labels = {f"cue_{c}": v for c, v in spans.items()}
    rec = bm.Recording.from_arrays("cue", spikes={"times": np.concatenate(times), "unit": np.concatenate(units)}, labels=labels)
    return rec, EventTable(start, start + 0.3, kind="burst"), content


def test_any_label_is_decoded_and_cross_validated() -> None:
    rec, events, content = cued()
    found = cross_validated_label(rec, "cue")
    assert found["accuracy"] > 0.85 and found["interval"][0] > found["chance"] == 0.5 and found["p_value"] < 0.1 and found["classes"] == ["A", "B"]
    assert set(found["recall"]) == {"A", "B"} and np.sum(found["confusion"]) == found["n_bins"]
    out = decode_label(rec, events, "cue")
    assert (out.content == content).mean() > 0.95 and (out.p_content < 0.05).mean() > 0.6
    assert (out.probability >= 0.5).all() and out.classes == ["A", "B"]


def test_units_that_prefer_nothing_tell_nothing() -> None:
    rec, events, _ = cued(1, strength=1.0)
    found = cross_validated_label(rec, "cue", folds=8)
    assert found["interval"][0] < 0.56 and 0.4 < found["accuracy"] < 0.62
    assert (decode_label(rec, events, "cue").p_content < 0.05).mean() < 0.15


def test_a_class_in_which_all_units_fire_more_hides_no_content() -> None:
    rec, events, content = cued(strength=2.0)
    s, loud = rec.spikes, rec.labels["cue_A"]
    i = loud.contains(s.times)  # four times the spikes in A, the same shares
    arrays = {"times": np.r_[s.times, *[s.times[i] + 1e-4 * k for k in (1, 2, 3)]], "unit": np.r_[s.unit_id, np.tile(s.unit_id[i], 3)]}
    out = decode_label(bm.Recording.from_arrays("loud", spikes=arrays, labels=rec.labels), events, "cue")
    assert (out.content == content).mean() > 0.95 and (out.p_content < 0.05).mean() > 0.8


def test_labels_that_cannot_be_decoded_are_errors() -> None:
    rec, events, _ = cued()
    with pytest.raises(MissingDataError, match="no label 'odour'"):
        cross_validated_label(rec, "odour")
    with pytest.raises(InputError, match="at least two"):
        cross_validated_label(rec, {"A": Intervals([[0, 30]])})
    with pytest.raises(MissingDataError, match="at least 5 bins"):
        cross_validated_label(rec, {"A": Intervals([[0, 3]]), "B": Intervals([[60, 90]])})
    with pytest.raises(InputError, match="overlap"):
        cross_validated_label(rec, {"A": Intervals([[0, 30]]), "B": Intervals([[20, 90]])})
    silent = decode_label(rec, EventTable([650.0], [650.1]), "cue", shuffles=20)
    assert silent.content.tolist() == [""] and np.isnan(silent.probability).all() and len(decode_label(rec, events[:0], "cue", shuffles=20)) == 0
