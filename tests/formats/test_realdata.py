"""Real recordings, folder by folder: what is in them as their sources state it."""

from pathlib import Path

import numpy as np
import pytest

from brainmu.formats import describe, read, read_all

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"
pytestmark = pytest.mark.realdata


def test_rat_linear_track(real_data):
    rec = read(real_data / "rat-linear-track")
    p = rec.signals["position"]
    assert p.n_samples == 118964
    assert np.median(1 / np.diff(p.times)) == pytest.approx(60, abs=0.5)
    assert rec.spikes is not None
    assert (rec.spikes.n_units, rec.spikes.units["tetrode"].nunique()) == (31, 6)
    assert rec.duration / 60 == pytest.approx(33, abs=0.5)
    assert not np.isnan(p.read()).any()


def test_mouse_hd_neurosuite(real_data):
    rec = read(real_data / "mouse-hd-neurosuite")
    whole = read(real_data / "mouse-hd-neurosuite", mua=True)
    assert rec.spikes is not None
    assert whole.spikes is not None
    assert len(whole.spikes) + 54858 == 162_564
    assert rec.spikes.n_units == 15
    assert rec.spikes.times[-1] == pytest.approx(1200, abs=1)
    assert len(rec.events("ripples")) == 428
    assert 0.02 < np.median(rec.events("ripples").duration) < 0.1
    assert rec.events("epochs").stop.tolist() == [600, 1200]


def test_nwb(real_data):
    mouse, human = read_all(real_data / "nwb")
    assert mouse.spikes is not None
    assert human.spikes is not None
    assert (mouse.spikes.n_units, len(mouse.spikes), round(mouse.duration / 60)) == (3, 21354, 18)
    assert (human.species, human.spikes.n_units, human.subject) == ("human", 35, "4")
    assert len(human.events("recognition_table")) == 180


def test_mouse_eeg_emg(real_data):
    scored, other = read_all(real_data / "mouse-eeg-emg", manifest=PIPELINES / "mouse_eeg_emg" / "brainmu.yaml")
    h = scored.hypnogram()
    assert [int(h.mask(s).sum()) for s in ("WAKE", "NREM", "REM", "UNS")] == [139, 182, 15, 2]
    assert (scored.signals["eeg"].n_samples, scored.signals["emg"].n_samples) == (270400, 270416)
    assert other.labels == {}
    assert other.duration / 60 == pytest.approx(30.6, abs=0.1)


def test_sleepedf_bandpower(real_data):
    nights = read_all(real_data / "human-sleepedf-bandpower", manifest=PIPELINES / "sleepedf_bandpower" / "brainmu.yaml")
    assert (len(nights), len({r.subject for r in nights})) == (104, 53)
    s = nights[0].signals["bandpower"]
    raw = np.load(real_data / "human-sleepedf-bandpower" / "01__1.npz")["features"]
    np.testing.assert_array_equal(s.pick(["Pz-Oz_rel_theta"]).read()[:, 0], raw[:, 1, 6])
    assert s.rate * 30 == pytest.approx(1)
    assert all(len(r.hypnogram()) == r.signals["bandpower"].n_samples for r in nights)


def test_sleepedf_hypnograms(real_data):
    found = read_all(real_data / "human-sleepedf-hypnograms")
    assert len(found) == 12
    for rec in found:
        h = rec.hypnogram()
        assert (h.epoch, h.stage_set) == (30, "aasm5")
        assert 3 < (h.mask("NREM") | h.mask("REM")).sum() * 30 / 3600 < 11
        assert rec.subject_meta["sex"] in "MF"


def test_dreams(real_data):
    folder = real_data / "human-dreams-spindles"
    recs = read_all(folder, manifest=PIPELINES / "dreams_spindles" / "brainmu.yaml")
    assert [r.signals["eeg"].rate for r in recs] == [100, 200, 50, 200]
    assert all(r.signals["eeg"].duration == 1800 for r in recs)
    assert [len(r.events("spindles_expert1")) for r in recs] == [52, 60, 5, 56]
    # The EDF's unit string UV is read as microvolt: the same numbers as the text file.
    edf = read(folder / "excerpt3.edf").signals["eeg"].pick(["C3-A1"])
    np.testing.assert_allclose(edf.read()[:, 0], recs[2].signals["eeg"].read()[:, 0], atol=1e-3)


def test_mouse_ieeg(real_data):
    folder = real_data / "mouse-ieeg"
    direct = read_all(folder)
    by_manifest = read_all(folder, manifest=PIPELINES / "mouse_ieeg" / "brainmu.yaml")
    raw = np.fromfile(next((folder / "A10").glob("*.bin")), "<f4").reshape(10, -1)
    for rec in (direct[0], by_manifest[0]):
        np.testing.assert_array_equal(rec.signals["eeg"].read(), raw.T)
        assert rec.signals["eeg"].names[0] == "C-009"
    assert [r.subject for r in by_manifest] == ["A10", "F22"]
    assert read(folder / "A10" / "A10_recording.edf").duration == 5


def test_spike_counts_and_units(real_data):
    run, sws, rem = read_all(real_data / "mouse-hd-sleep-spikes", manifest=PIPELINES / "mouse_hd_sleep_spikes" / "brainmu.yaml")
    assert [round(r.duration / 60) for r in (run, sws, rem)] == [35, 145, 16]
    assert run.signals["counts"].read(0, 1000).max() <= 10
    rec = read(real_data / "rat-hpc-units", manifest=PIPELINES / "rat_hpc_units" / "brainmu.yaml")
    assert rec.spikes is not None
    assert (rec.spikes.n_units, round(rec.duration)) == (16, 997)


def test_all_folders_describe(real_data):
    for folder in ("rat-linear-track", "mouse-hd-neurosuite", "nwb", "mouse-ieeg", "human-sleepedf-hypnograms"):
        assert describe(real_data / folder)["bytes"] > 10_000
