"""brainmu events: slow waves say which way up they were read; every kind with the settings that are its own, and no others."""

import json

import numpy as np
import pytest

import brainmu as bm
from brainmu.cli import main
from brainmu.cli.events import _spans


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Ten minutes of a mouse's cortical LFP with positive down states every two seconds, in which units are silent."""
    rng = np.random.default_rng(0)
    t = np.arange(600 * 100) / 100
    at = np.arange(2.0, 598.0, 2.0) + rng.uniform(-0.3, 0.3, 298)
    x = 15 * rng.standard_normal(len(t)) + sum(100 * np.exp(0.4 * rng.standard_normal()) * np.exp(-0.5 * ((t - a) / 0.08) ** 2) for a in at)
    s = np.sort(rng.uniform(0, 600, 10_000))
    s = s[np.abs(s[:, None] - at[None]).min(axis=1) > 0.1]
    signals = {"lfp": {"values": x[:, None], "rate": 100.0, "unit": "uV", "kind": "lfp"}}
    rec = bm.Recording.from_arrays("m", "m", "mouse", signals=signals, spikes={"times": s, "unit": np.arange(len(s)) % 10})
    path = tmp_path_factory.mktemp("events") / "m.zarr"
    bm.preprocess(rec, path, lfp_rate=None)
    return path


def test_slow_waves_are_written_and_their_side_is_said(store, tmp_path, capsys):
    args = ["events", str(store), "--kind", "slow_wave", "--quiet"]
    assert main([*args, "--out", str(tmp_path / "a_events.tsv")]) == 0
    said = capsys.readouterr().out
    assert "down state: positive (units are silent on that side" in said
    assert main([*args, "--out", str(tmp_path / "b_events.tsv"), "--threshold", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    first, second = (bm.EventTable.from_bids(tmp_path / f"{k}_events.tsv") for k in "ab")
    assert found["against"] == "mean" and found["threshold"] == 2.0 and len(second) == found["n"] <= len(first)
    assert len(first) > 50


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    """Ninety seconds of LFP with ripples on the first of two channels, units that fire together in them, loud EMG for three seconds, and a marked artefact."""
    rng = np.random.default_rng(1)
    n, at = 90 * 1000, np.arange(3.0, 88.0, 2.5)
    t = np.arange(n) / 1000
    x = rng.standard_normal((n, 2))
    x[:, 0] += sum(4 * np.exp(-0.5 * ((t - a) / 0.02) ** 2) * np.sin(2 * np.pi * 180 * t) for a in at)
    emg = rng.standard_normal((n, 1)) * np.where((t > 40) & (t < 43), 30, 1)[:, None]
    spikes = np.r_[rng.uniform(0, 90, 1800), np.repeat(at, 40) + rng.normal(0, 0.02, 40 * len(at))]
    unit = np.r_[rng.integers(0, 20, 1800), np.tile(np.arange(40) % 20, len(at))]
    signals = {"lfp": {"values": x, "rate": 1000.0, "unit": "uV", "kind": "lfp"}, "emg": {"values": emg, "rate": 1000.0, "unit": "uV", "kind": "emg"}}
    rec = bm.Recording.from_arrays("b", "b", "mouse", signals=signals, spikes={"times": spikes, "unit": unit}, labels={"pops": bm.Intervals([[70.0, 75.0]])})
    path = tmp_path_factory.mktemp("events") / "b.zarr"
    bm.preprocess(rec, path, lfp_rate=None)
    return path


def found_by(capsys, store, out, *args):
    assert main(["events", str(store), "--out", str(out), "--json", "--quiet", *args]) == 0
    return json.loads(capsys.readouterr().out), bm.EventTable.from_bids(out)


def test_high_synchrony_events_at_a_false_rate_without_artefacts_and_muscle(busy, tmp_path, capsys):
    plain, table = found_by(capsys, busy, tmp_path / "a.tsv", "--kind", "hse")
    assert plain["n"] >= 30 and set(table.kind) == {"hse"} and plain["false_rate"] is None
    set_by, fewer = found_by(capsys, busy, tmp_path / "b.tsv", "--kind", "hse", "--false-rate", "1", "--emg", "6", "--artefacts", "pops")
    assert set_by["false_rate"] == 1.0 and set_by["threshold"] != plain["threshold"]
    assert 2.5 < set_by["vetoed_seconds"]["emg"] < 4 and set_by["vetoed_seconds"]["artefacts"] == pytest.approx(5.1)
    assert len(table.within(bm.Intervals([[70, 75]]))) and not len(fewer.within(bm.Intervals([[70, 75]]))) and not len(fewer.within(bm.Intervals([[40, 43]])))
    assert main(["events", str(busy), "--kind", "burst", "--false-rate", "1", "--out", str(tmp_path / "c.tsv"), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "in trains shifted by their own draws" in said and "so precision" in said
    # What was left out was not looked at.
    assert set_by["looked_at_s"] == pytest.approx(90 - sum(set_by["vetoed_seconds"].values()), abs=0.1)
    assert set_by["rate_per_min"] == pytest.approx(set_by["rate"]) and 0.5 < set_by["precision_interval"][0] <= set_by["precision"]


def test_ripples_of_each_channel(busy, tmp_path, capsys):
    result, table = found_by(capsys, busy, tmp_path / "a.tsv", "--kind", "ripple", "--per-channel")
    names = result["channels"]
    assert set(result["surrogate_rate"]) == set(names) and (table.channel == names[0]).sum() > 25 > 3 > (table.channel == names[1]).sum()
    assert main(["events", str(busy), "--kind", "ripple", "--per-channel", "--out", str(tmp_path / "b.tsv"), "--quiet"]) == 0
    assert f"{names[1]}: " in capsys.readouterr().out


def test_a_stage_is_looked_up_in_the_recordings_own_scoring():
    model, scoring = (bm.Hypnogram.from_stages(s, epoch=4.0) for s in (["NREM"] * 5 + ["WAKE"] * 5, ["WAKE"] * 8 + ["NREM"] * 2))
    rec = bm.Recording.from_arrays("r", spikes={"times": [0.5, 39.0], "unit": [0, 0]}, labels={"model": model, "scoring": scoring})
    assert _spans(rec, "NREM", None).bounds.tolist() == [[32.0, 40.0]]
    assert _spans(rec, "NREM", model).bounds.tolist() == [[0.0, 20.0]]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--kind", "hse", "--per-channel"], "--per-channel is for ripples"),
        (["--kind", "spindle", "--emg", "3"], "--emg is for ripples, bursts"),
        (["--kind", "slow_wave", "--false-rate", "1"], "--false-rate is for ripples, bursts"),
        (["--kind", "burst", "--channels", "a"], "--channels is for events of the LFP"),
        (["--kind", "burst", "--false-rate", "1", "--threshold", "2"], "expected one"),
        (["--kind", "ripple", "--emg", "-1"], "expected a positive number"),
        (["--kind", "ripple", "--artefacts", "none", "bad"], "or none alone"),
    ],
)
def test_settings_of_another_kind_are_one_line(tmp_path, capsys, args, says):
    assert main(["events", "x.zarr", *args, "--out", str(tmp_path / "a.tsv"), "--quiet"]) == 2
    err = capsys.readouterr().err
    assert says in err and err.strip().count("\n") == 0


def test_spindles_keep_the_seed_and_tell_how_far_they_are(busy):
    session, told = bm.open(busy), []
    one, again, other = (
        bm.find_events(
            session, "spindle", channels=["lfp_0"] if "lfp_0" in session.signals["lfp"].names else None, seed=s, progress=lambda what, done: told.append(done)
        )
        for s in (0, 0, 7)
    )
    assert told and told[-1] == 1.0
    assert one.surrogate_rate == again.surrogate_rate and (one.start == other.start).all()
    with pytest.raises(bm.BrainmuError, match="emg is for ripples"):
        bm.find_events(session, "spindle", emg=3.0)


@pytest.mark.parametrize("more", [[], ["--threshold", "3"]])
def test_spindles_are_written_and_held_against_noise(busy, tmp_path, capsys, more):
    out = tmp_path / "s_events.tsv"
    assert main(["events", str(busy), "--kind", "spindle", "--out", str(out), "--quiet", *more]) == 0
    assert "in noise of the same spectrum" in capsys.readouterr().out and out.exists()
