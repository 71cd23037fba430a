"""Phases and nesting of slow waves, spindles and ripples whose coupling was planted, and of ones that know nothing of each other."""

from __future__ import annotations

import numpy as np
import pytest

import brainmu as bm
from brainmu.core import EventTable, Intervals, Recording
from brainmu.errors import InputError, MissingDataError
from brainmu.sleep import event_phases, nesting, phase_coupling
from brainmu.sleep.circular import along, back, mean_direction, rayleigh


def _waves(side: float = 1.0) -> tuple[Recording, EventTable]:
    """Twenty minutes of a 0.8 Hz wave whose troughs lie at multiples of 1.25 s, on a channel of deep or surface polarity."""
    rate, n = 50.0, 50 * 1200
    t = (np.arange(n) + 0.5) / rate
    x = -side * np.cos(2 * np.pi * 0.8 * t) * 80
    x += np.random.default_rng(0).standard_normal(n)
    rec = Recording.from_arrays("w", species="human", signals={"eeg": {"values": x, "rate": rate, "unit": "uV", "kind": "eeg", "channels": ["Fz"]}})
    trough = np.arange(1.25, 1198.0, 1.25)
    attrs = {"channels": ["Fz"], "band": [0.3, 1.5], "polarity": "negative" if side > 0 else "positive"}
    return rec, EventTable(trough - 0.3125, trough + 0.9375, trough, kind="slow_wave", attrs=attrs)


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize(("after", "phase"), [(0.625, 0.0), (0.0, 180.0), (0.3125, -90.0)])
def test_the_phase_is_the_planted_one(side, after, phase):
    rec, waves = _waves(side)
    rng = np.random.default_rng(1)
    t = np.sort(waves.peak[rng.choice(len(waves) - 2, 150, replace=False)] + after + 0.02 * rng.standard_normal(150))
    row = phase_coupling(rec, EventTable(t, t), waves, draws=100).iloc[0]
    assert abs((row["mean_phase_deg"] - phase + 180) % 360 - 180) < 4
    assert row["resultant"] > 0.95 and row["p_value"] < 0.02 and row["rayleigh_p"] < 1e-6 and row["n"] == row["n_events"] == 150
    each = event_phases(rec, EventTable(t, t), waves)
    assert len(each) == 150 and np.abs(each["lag_s"]).max() < 0.8
    assert mean_direction(each["phase_deg"])[0] == pytest.approx(row["mean_phase_deg"], abs=1e-6)


def test_events_that_know_nothing_of_the_waves_keep_to_no_phase():
    rec, waves = _waves()
    p = []
    for seed in range(20):
        t = np.random.default_rng(seed).uniform(2, 1190, 150)
        p.append(phase_coupling(rec, EventTable(t, t), waves, draws=60, seed=seed)["p_value"].iloc[0])
    assert 0.2 < np.mean(p) < 0.8 and np.mean(np.array(p) < 0.1) < 0.35


def test_nesting_of_all_three():
    rng = np.random.default_rng(2)
    nrem = Intervals([[0.0, 1500.0], [2000.0, 4100.0]])
    trough = np.arange(5.0, 4090.0, 8.0) + rng.uniform(-2, 2, 511)
    middle = np.r_[trough[rng.random(511) < 0.4] + 0.45, rng.uniform(0, 4100, 200)]
    ripple = np.r_[middle[rng.random(len(middle)) < 0.3] + 0.1, rng.uniform(0, 4100, 500)]
    slow = EventTable(trough - 0.3, trough + 0.8, trough)
    spindles = EventTable(middle - 0.4, middle + 0.4, middle)
    table = nesting(slow, spindles, EventTable(ripple - 0.03, ripple + 0.03, ripple), nrem, draws=200).set_index(["nesting", "shifted"])
    assert (table["p_value"] < 0.02).all() and (table["ratio"] > 1.2).all()
    assert 35 < table.loc[("spindle in slow wave", "spindles"), "share_pct"] < 55
    assert table.loc[("triple", "spindles and ripples"), "expected"] < table.loc[("triple", "ripples"), "expected"] < table.loc[("triple", "ripples"), "count"]


def test_spans_without_data_do_not_make_coupling():
    rec, waves = _waves()
    t = np.random.default_rng(3).uniform(2, 1190, 150)
    events = EventTable(t, t)
    long = phase_coupling(rec, events, waves, Intervals([[0.0, 10_000.0]]), draws=60)
    assert long.equals(phase_coupling(rec, events, waves, Intervals([[0.0, rec.stop]]), draws=60))
    with pytest.warns(UserWarning, match="lie before the first or after the last event"):
        nesting(events, EventTable(t - 0.4, t + 0.4, t), events, Intervals([[0.0, 3000.0]]), draws=20)


def test_nesting_is_not_invented():
    nrem, p = Intervals([[0.0, 3000.0]]), []
    for seed in range(15):
        rng = np.random.default_rng(seed)
        a, b, c = (np.sort(rng.uniform(0, 3000, n)) for n in (400, 250, 600))
        t = nesting(EventTable(a, a), EventTable(b - 0.4, b + 0.4, b), EventTable(c, c), nrem, draws=80, seed=seed)
        p.append(t["p_value"])
    assert np.mean(np.array(p) < 0.1) < 0.3


def test_a_planted_night_couples_spindles_to_up_states():
    rec, truth = bm.synth.recording(hours=1.5, seed=2, species="human", n_channels=1, spindle_coupling=0.9)
    nrem = truth.hypnogram.intervals("NREM")
    waves = bm.find_events(rec, kind="slow_wave", hypnogram=truth.hypnogram)
    row = phase_coupling(rec, truth.spindles, waves, nrem, draws=50).iloc[0]
    assert abs(row["mean_phase_deg"]) < 45 and row["p_value"] < 0.05
    loose, other = bm.synth.recording(hours=1.5, seed=2, species="human", n_channels=1, spindle_coupling=0.0)
    found = bm.find_events(loose, kind="slow_wave", hypnogram=other.hypnogram)
    assert phase_coupling(loose, other.spindles, found, nrem, draws=50)["resultant"].iloc[0] < 0.7 * row["resultant"]


def test_the_clock_of_joined_spans_goes_there_and_back():
    spans = Intervals([[0, 5], [10, 12.5], [40, 41]])
    t = np.array([0.0, 4.9, 10.0, 12.4, 40.5])
    assert np.allclose(back(along(t, spans), spans), t)
    assert rayleigh(0, 0.5) != rayleigh(0, 0.5) and rayleigh(100, 0.0) == 1.0 and rayleigh(50, 0.9) < 1e-10


def test_wrong_use():
    rec, waves = _waves()
    here = EventTable([5.0], [5.1])
    with pytest.raises(MissingDataError, match="do not say"):
        phase_coupling(rec, here, EventTable(waves.start, waves.stop))
    with pytest.raises(MissingDataError, match="none of 1 events"):
        phase_coupling(rec, EventTable([5000.0], [5001.0]), waves)
    with pytest.raises(MissingDataError, match="no waves"):
        phase_coupling(rec, here, waves[:0])
    with pytest.raises(InputError, match="reach"):
        event_phases(rec, here, waves, reach=-1)
    with pytest.raises(MissingDataError, match="no spindles"):
        nesting(waves, here[:0], here, Intervals([[0, 100]]))
    with pytest.raises(InputError, match="window"):
        nesting(waves, here, here, Intervals([[0, 100]]), window=(1.0, 0.0))


@pytest.mark.realdata
def test_spindles_of_a_real_night_ride_on_slow_waves(real_data):
    # Excerpt 5 is the only one of the half hours with more than twenty spindles in slow waves.
    x = np.loadtxt(real_data / "human-dreams-spindles" / "excerpt5.txt", skiprows=1)
    rec = Recording.from_arrays("e5", species="human", signals={"eeg": {"values": x, "rate": 200.0, "unit": "uV", "kind": "eeg", "channels": ["C3"]}})
    waves, spindles = (bm.find_events(rec, kind=k) for k in ("slow_wave", "spindle"))
    row = phase_coupling(rec, spindles, waves, draws=100).iloc[0]
    assert row["n"] > 20 and row["p_value"] < 0.1 and row["resultant"] > row["surrogate_resultant"]
    assert abs(row["mean_phase_deg"]) < 90  # on the way up and at the crest, as published
