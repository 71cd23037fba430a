"""Spectra by stage, slow-wave activity and coupling on signals whose answers are known."""

from __future__ import annotations

import numpy as np
import pytest

from brainmu.core import EventTable, Hypnogram, Intervals, Recording
from brainmu.errors import MissingDataError
from brainmu.sleep import event_coupling, slow_wave_activity, stage_spectra


def test_stage_spectra_peak_where_planted(make_mouse):
    t = stage_spectra(make_mouse(1))
    top = t[t["frequency"] > 0.9].sort_values("density").groupby("stage").tail(1).set_index("stage")["frequency"]
    assert 1 <= top["NREM"] <= 4 and 6 <= top["REM"] <= 8.5
    assert set(t["unit"]) == {"uV²/Hz"} and (t.groupby("stage")["epochs"].first() > 20).all()


def test_a_hypnogram_that_outlasts_the_recording(make_mouse):
    rec = make_mouse(2, epochs=200, rate=100.0)
    h = rec.labels["scoring"]
    longer = Hypnogram(np.tile(h.codes, 3), "rodent3", 4.0)
    assert slow_wave_activity(rec, longer)["start"].max() < 800
    elsewhere = Hypnogram(h.codes, "rodent3", 4.0, 5000.0)
    with pytest.raises(MissingDataError, match="no NREM bout"):
        slow_wave_activity(rec, elsewhere)
    with pytest.raises(MissingDataError, match="check the hypnogram's start"):
        stage_spectra(rec, elsewhere)


@pytest.mark.parametrize("falling", [True, False])
def test_slow_wave_activity_declines_as_planted(falling):
    rate, hours = 50.0, 2.0
    n = int(hours * 3600 * rate)
    t = np.arange(n) / rate
    half_life = 1.0
    amplitude = np.exp(-np.log(2) * t / 3600 / half_life / 2) if falling else 1.0
    x = amplitude * np.sin(2 * np.pi * 2 * t) + 0.02 * np.random.default_rng(0).standard_normal(n)
    codes = np.tile(np.r_[np.full(60, 1), np.full(15, 0)], 24)
    rec = Recording.from_arrays("d", signals={"eeg": {"values": x, "rate": rate, "kind": "eeg"}}, labels={"s": Hypnogram(codes, "rodent3", 4.0)})
    table = slow_wave_activity(rec)
    assert len(table) == 24
    if falling:
        assert table.attrs["half_life"] == pytest.approx(half_life, rel=0.05) and table.attrs["decline"] == pytest.approx(-50, abs=3)
    else:
        assert abs(table.attrs["decline"]) < 1


def test_coupling_found_and_not_invented():
    rng = np.random.default_rng(0)
    a = np.sort(rng.uniform(0, 3600, 300))
    point = lambda x: EventTable(x, x)  # noqa: E731
    nrem = Intervals([[0, 1500], [2000, 3700]])
    coupled = np.sort(np.r_[a[rng.random(300) < 0.5] + 0.5, rng.uniform(0, 3600, 100)])
    found = event_coupling(point(a), point(coupled), nrem).iloc[0]
    assert found["p_value"] < 0.01 and found["ratio"] > 2 and 0.4 < found["lag"] < 0.6
    p = [event_coupling(point(a), point(rng.uniform(0, 3600, 300)), nrem, draws=100, seed=k)["p_value"].iloc[0] for k in range(20)]
    assert np.mean(np.array(p) < 0.1) < 0.35
    with pytest.raises(MissingDataError, match="0 second"):
        event_coupling(point(a), point([9000.0]), nrem)
