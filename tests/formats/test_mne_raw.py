"""FIF and BrainVision as MNE and its writers make them, read span by span in µV."""

import datetime
import pickle

import mne
import numpy as np
import pytest

from brainmu.core import Intervals
from brainmu.errors import FormatError
from brainmu.formats import read, sniff

X = np.random.default_rng(0).normal(0, 50e-6, (5, 6000))


@pytest.fixture(params=[None, datetime.datetime(2024, 5, 1, tzinfo=datetime.UTC)], ids=["undated", "dated"])
def fif(tmp_path, request):
    info = mne.create_info(["Fz", "Cz", "EOG1", "EMG1", "STI"], 200.0, ["eeg", "eeg", "eog", "emg", "stim"])
    info["bads"] = ["Cz"]
    raw = mne.io.RawArray(X, info, first_samp=400, verbose="error")
    raw.set_meas_date(request.param)
    raw.set_annotations(mne.Annotations([0, 10, 5.0, 7.0], [10, 20, 0.5, 1.0], ["Sleep stage W", "Sleep stage N2", "spindle", "BAD_jump"]))
    path = tmp_path / "rec_raw.fif"
    raw.save(path, verbose="error")
    return path


def test_fif_by_kind_in_microvolt(fif):
    assert sniff(fif) == "mne"
    rec = read(fif)
    assert {k: (s.names, s.unit, s.rate) for k, s in rec.signals.items()} == {
        "eeg": (["Fz", "Cz"], "uV", 200), "eog": (["EOG1"], "uV", 200), "emg": (["EMG1"], "uV", 200), "sync": (["STI"], "", 200),
    }  # fmt: skip
    np.testing.assert_allclose(rec.signals["eeg"].read(1000, 1500), X[:2, 1000:1500].T * 1e6, rtol=1e-4, atol=1e-3)
    assert rec.signals["eeg"].channels["bad"].tolist() == [False, True]


def test_annotations_of_fif(fif):
    rec = read(fif)
    assert rec.hypnogram().stages_list() == ["W", "N2", "N2"]
    assert (rec.hypnogram().epoch, rec.hypnogram().start) == (10.0, 0.0)
    assert rec.events("annotations").kind.tolist() == ["spindle"]
    assert rec.events("annotations").start.tolist() == [5.0]
    assert rec.labels["artefacts"] == Intervals([[7, 8]])


def test_signals_travel_to_other_processes(fif):
    values = read(fif).signals["eeg"].values
    np.testing.assert_allclose(pickle.loads(pickle.dumps(values))[3:6], values[3:6])


def test_brainvision(tmp_path):
    (tmp_path / "b.eeg").write_bytes(np.round(X[:2] * 1e6 / 0.1).astype("<i2").T.tobytes())
    common = "[Common Infos]\nCodepage=UTF-8\nDataFile=b.eeg\n"
    (tmp_path / "b.vmrk").write_text(f"Brain Vision Data Exchange Marker File, Version 1.0\n{common}[Marker Infos]\nMk1=Comment,lights off,201,1,0\n")
    (tmp_path / "b.vhdr").write_text(
        f"Brain Vision Data Exchange Header File Version 1.0\n{common}MarkerFile=b.vmrk\nDataFormat=BINARY\nDataOrientation=MULTIPLEXED\n"
        "NumberOfChannels=2\nSamplingInterval=5000\n[Binary Infos]\nBinaryFormat=INT_16\n[Channel Infos]\nCh1=Fz,,0.1,µV\nCh2=Cz,,0.1,µV\n",
        encoding="utf-8",
    )
    rec = read(tmp_path / "b.vhdr")
    np.testing.assert_allclose(rec.signals["eeg"].read(0, 50), X[:2, :50].T * 1e6, atol=0.06)
    assert rec.events("annotations").start.tolist() == [1.0]
    assert {p.rsplit(".", 1)[1] for p in rec.source["files"]} >= {"vhdr"}


def test_eeglab(tmp_path):
    import scipy.io

    channels = np.array([(name, "EEG") for name in ("Fz", "Cz")], dtype=[("labels", "O"), ("type", "O")])
    events = np.array([("lights off", 201.0, 0.0)], dtype=[("type", "O"), ("latency", "O"), ("duration", "O")])
    eeg = {"data": X[:2] * 1e6, "srate": 200.0, "nbchan": 2.0, "pnts": 6000.0, "trials": 1.0, "xmin": 0.0, "xmax": 5999 / 200, "chanlocs": channels,
           "event": events, "epoch": np.empty((0, 0)), "setname": "x", "icawinv": [], "icaweights": [], "icasphere": [], "icachansind": []}  # fmt: skip
    scipy.io.savemat(tmp_path / "d.set", {"EEG": eeg}, appendmat=False)
    assert sniff(tmp_path / "d.set") == "mne"
    rec = read(tmp_path / "d.set")
    assert (rec.signals["eeg"].names, rec.signals["eeg"].rate) == (["Fz", "Cz"], 200)
    np.testing.assert_allclose(rec.signals["eeg"].read(100, 200), X[:2, 100:200].T * 1e6, rtol=1e-4, atol=1e-3)
    assert rec.events("annotations").start.tolist() == [1.0]


def test_damaged_fif(fif, tmp_path):
    for content, message in ((b"", "is empty"), (b"no fif at all" * 50, "MNE cannot read it")):
        path = tmp_path / "x_raw.fif"
        path.write_bytes(content)
        with pytest.raises(FormatError, match=message) as caught:
            read(path)
        assert "\n" not in str(caught.value)
