"""What is written is read back, by us and by the real libraries."""

from __future__ import annotations

import mne
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat

from brainmu.core import Hypnogram
from brainmu.errors import FormatError, InputError, NotFoundError
from brainmu.formats.scorings import read_scoring
from brainmu.sleep import read_hypnogram, write_hypnogram


def _scored(stages: str = "rodent3", epoch: float = 4.0, start: float = 12.0) -> Hypnogram:
    rng = np.random.default_rng(0)
    k = 3 if stages == "rodent3" else 5
    p = rng.dirichlet(np.ones(k), 60).astype(np.float32)
    codes = np.repeat(p[::4].argmax(1), 4).astype(np.int8)
    codes[5], codes[9:12] = -1, -2
    p[9:12] = np.nan
    return Hypnogram(codes, stages, epoch, start, p, "me", {"quality": "good"})


@pytest.mark.parametrize("stages", ["rodent3", "aasm5"])
@pytest.mark.parametrize("name", ["h.tsv", "h_events.tsv", "h.edf", "h.npz"])
def test_round_trip(tmp_path, stages, name):
    h = _scored(stages, 30.0 if stages == "aasm5" else 4.0)
    path = write_hypnogram(h, tmp_path / name)
    back = read_hypnogram(path, stage_set=stages, epoch=None if name in ("h.tsv", "h.npz") else h.epoch)
    assert back == h
    if name in ("h.tsv", "h.npz"):
        assert np.allclose(back.proba, h.proba, atol=1e-5, equal_nan=True)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize(("codec", "stages"), [("yasa", "aasm5"), ("accusleep", "rodent3"), ("somnotate", "rodent3"), ("buzcode", "rodent3")])
@pytest.mark.parametrize("suffix", [".csv", ".npy", ".txt"])
def test_codes_of_other_tools(tmp_path, codec, stages, suffix):
    h = Hypnogram(np.array([0, 1, 1, 2, -2, 0]), stages, 4.0)
    path = write_hypnogram(h, tmp_path / f"h{suffix}", codec=codec)
    assert read_hypnogram(path, codec=codec, epoch=4.0) == h
    with pytest.raises(InputError, match="codec="):
        read_hypnogram(path, epoch=4.0)
    with pytest.raises(InputError, match="epoch="):
        read_hypnogram(path, codec=codec)


def test_accusleep_in_its_own_files(tmp_path):
    h = Hypnogram(np.array([0, 1, 1, 2, -2, 0]), "rodent3", 2.5)
    mat = loadmat(write_hypnogram(h, tmp_path / "labels.mat", codec="accusleep"))
    assert mat["labels"].ravel().tolist() == [2, 3, 3, 1, 4, 2]
    frame = pd.read_csv(write_hypnogram(h, tmp_path / "labels.csv", codec="accusleep"))
    assert frame.columns.tolist() == ["brain_state"] and frame["brain_state"].tolist() == [2, 3, 3, 1, 4, 2]
    for name in ("labels.mat", "labels.csv"):
        assert read_hypnogram(tmp_path / name, codec="accusleep", epoch=2.5) == h
        assert read_scoring(tmp_path / name, format="accusleep", epoch=2.5) == h


def test_buzcode_in_its_own_file(tmp_path):
    h = Hypnogram(np.array([0, 1, 1, 2, -2, 0]), "rodent3", 4.0, start=8.0)
    path = write_hypnogram(h, tmp_path / "m1.SleepState.states.mat", codec="buzcode")
    assert [p.name for p in tmp_path.iterdir()] == ["m1.SleepState.states.mat"]
    state = loadmat(path, simplify_cells=True)["SleepState"]
    assert len(state["idx"]["states"]) == 24 and state["idx"]["states"][:5].tolist() == [1, 1, 1, 1, 3]
    assert state["ints"]["NREMstate"].tolist() == [12.5, 19.5] and state["idx"]["timestamps"][0] == 8.5
    back = read_hypnogram(path, codec="buzcode")
    assert back.epoch == 1.0 and back.start == 8.0 and np.array_equal(back.codes, np.repeat(h.codes, 4))
    assert read_hypnogram(path, codec="buzcode", epoch=4.0) == h
    assert read_scoring(path) == back
    with pytest.raises(InputError, match="whole seconds"):
        write_hypnogram(Hypnogram(np.array([0, 1]), "rodent3", 2.5), tmp_path / "x.mat", codec="buzcode")
    assert not (tmp_path / "x.mat").exists()


def test_somnotate_and_yasa_as_they_write_them(tmp_path):
    (tmp_path / "s.txt").write_text("*Duration_sec\t20.0\n*Datafile\tUnspecified\nawake\t8.0\nnon-REM\t16.0\nREM\t20.0\n")
    h = read_hypnogram(tmp_path / "s.txt", codec="somnotate", epoch=4.0)
    assert h.stages_list() == ["WAKE", "WAKE", "NREM", "NREM", "REM"]
    (tmp_path / "y.csv").write_text("Stage\nWAKE\nN1\nN2\nREM\n")
    assert read_hypnogram(tmp_path / "y.csv", codec="yasa", epoch=30.0).stages_list() == ["W", "N1", "N2", "R"]


def test_annotations_that_mne_writes(tmp_path):
    notes = mne.Annotations([0.0, 60.0, 120.0], [60.0, 60.0, 90.0], ["Sleep stage W", "Sleep stage N2", "Sleep stage R"])
    raw = mne.io.RawArray(np.zeros((1, 2100)), mne.create_info(["EEG Fz"], 10.0, "eeg"), verbose="ERROR")
    raw.set_annotations(notes)
    mne.export.export_raw(tmp_path / "night.edf", raw, fmt="edf", physical_range=(-1e-4, 1e-4), verbose="ERROR")
    h = read_hypnogram(tmp_path / "night.edf")
    assert h.epoch == 30.0 and h.stages_list() == ["W"] * 2 + ["N2"] * 2 + ["R"] * 3


def test_mne_reads_our_edf(tmp_path):
    h = _scored("aasm5", 30.0, 60.0)
    notes = mne.read_annotations(write_hypnogram(h, tmp_path / "h.edf"))
    assert notes.onset[0] == 60.0 and set(notes.description) <= {f"Sleep stage {s}" for s in ("W", "N1", "N2", "N3", "R", "?")} | {"Movement time"}
    assert np.isclose(notes.duration.sum(), len(h) * 30)


@pytest.mark.realdata
def test_sleep_edf_hypnogram(real_data):
    h = read_hypnogram(real_data / "human-sleepedf-hypnograms" / "SC4011EH-Hypnogram.edf")
    assert h.epoch == 30.0 and h.stage_set == "aasm5" and "N3" in h.attrs["merged"]
    assert 0.02 < h.mask("N3").mean() < 0.3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 2, -1, -2]), min_size=1, max_size=40), st.sampled_from([1.0, 2.5, 4.0]), st.floats(0, 100).map(lambda v: round(v, 1)))
def test_bids_round_trip_of_anything(tmp_path_factory, codes, epoch, start):
    h = Hypnogram(np.array(codes), "rodent3", epoch, start)
    path = write_hypnogram(h, tmp_path_factory.mktemp("bids") / "h_events.tsv")
    assert read_hypnogram(path, epoch=epoch, stage_set="rodent3") == h


def test_bouts_keep_the_epoch_they_were_scored_in(tmp_path):
    h = Hypnogram(np.array([0, 0, 2, 2]), "rodent3", 4.0)
    assert read_hypnogram(write_hypnogram(h, tmp_path / "h_events.tsv"), stage_set="rodent3") == h


def test_stages_as_numbers_and_bouts_without_a_common_epoch_are_refused(tmp_path):
    bad = tmp_path / "bad.tsv"
    pd.DataFrame({"start": [0, 30], "duration": [30, 30], "stage": [1, 2]}).to_csv(bad, sep="\t", index=False)
    with pytest.raises(InputError, match="column stage holds numbers"):
        read_hypnogram(bad)
    pd.DataFrame({"onset": [0, 1000.001], "duration": [1000.001, 5], "trial_type": ["WAKE", "REM"]}).to_csv(bad, sep="\t", index=False)
    with pytest.raises(InputError, match="pass epoch="):
        read_hypnogram(bad)
    assert len(read_hypnogram(bad, epoch=5.0)) == 201


def test_bad_files(tmp_path):
    with pytest.raises(NotFoundError):
        read_hypnogram(tmp_path / "no.tsv")
    bad = tmp_path / "bad.tsv"
    bad.write_text("a\tb\n1\t2\n")
    with pytest.raises(FormatError, match="columns a, b"):
        read_hypnogram(bad)
    pd.DataFrame({"onset": [0, 10], "duration": [20, 5], "trial_type": ["WAKE", "REM"]}).to_csv(bad, sep="\t", index=False)
    with pytest.raises(FormatError, match="overlap"):
        read_hypnogram(bad)
    pd.DataFrame({"onset": [0, 10], "duration": [10, 5], "trial_type": ["WAKE", "dreaming"]}).to_csv(bad, sep="\t", index=False)
    with pytest.raises(InputError, match="dreaming"):
        read_hypnogram(bad)
    for name, codec in (("x.npz", None), ("x.edf", None), ("x.mat", "accusleep"), ("x.mat", "buzcode")):
        (tmp_path / name).write_bytes(b"not this")
        with pytest.raises(FormatError, match=name):
            read_hypnogram(tmp_path / name, codec=codec, epoch=4.0)
    for name, says in (("x.npz", "not an NPZ archive"), ("x.edf", "does not begin as an EDF file does")):
        with pytest.raises(FormatError, match=says):
            read_hypnogram(tmp_path / name)
    with pytest.raises(InputError, match="is a folder"):
        read_hypnogram(tmp_path)
    with pytest.raises(InputError, match="suffix"):
        write_hypnogram(_scored(), tmp_path / "h.xyz")
    with pytest.raises(InputError, match="NREM has no code"):
        write_hypnogram(_scored(), tmp_path / "h.csv", codec="yasa")
    assert not (tmp_path / "h.csv").exists()
