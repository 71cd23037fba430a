"""BIDS datasets as MNE-BIDS writes them: entities, stages, bad channels, participants, and what is not BIDS."""

import json
import shutil

import mne
import numpy as np
import pytest

from brainmu.errors import FormatError
from brainmu.formats import read, read_all, sniff

RNG = np.random.default_rng(0)
RATE = 100.0


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    from mne_bids import BIDSPath, write_raw_bids

    root = tmp_path_factory.mktemp("bids")
    data = {}
    for subject, session, kind in (("01", "a", "eeg"), ("01", "b", "eeg"), ("02", None, "ieeg")):
        x = RNG.normal(0, 50e-6, (4, 9000))
        types = ["eeg", "eeg", "eog", "emg"] if kind == "eeg" else ["ecog", "seeg", "ecog", "misc"]
        info = mne.create_info(["A1", "A2", "B1", "C1"], RATE, types)
        info["line_freq"] = 50
        raw = mne.io.RawArray(x, info, verbose="error")
        raw.info["bads"] = ["A2"]
        stages = ["Sleep stage W", "Sleep stage N2", "Sleep stage R"]
        raw.set_annotations(mne.Annotations([0, 30, 60, 12.5], [30, 30, 30, 0.5], [*stages, "lights off"]))
        path = BIDSPath(subject=subject, session=session, task="sleep", run="1", datatype=kind, root=root)
        write_raw_bids(raw, path, format="EDF", allow_preload=True, overwrite=True, verbose="error")
        data[subject, session] = x
    table = (root / "participants.tsv").read_text().splitlines()
    head = table[0].split("\t")
    rows = [dict(zip(head, line.split("\t"), strict=True)) for line in table[1:]]
    text = "participant_id\tage\tsex\tgroup\tspecies\tstrain\n"
    for r in rows:
        rodent = r["participant_id"] == "sub-02"
        text += f"{r['participant_id']}\t" + ("n/a\tM\tctl\tmus musculus\tC57\n" if rodent else "34\tfemale\tctl\tn/a\tn/a\n")
    (root / "participants.tsv").write_text(text)
    return root, data


@pytest.fixture
def dataset(written, tmp_path):
    root, data = written
    shutil.copytree(root, tmp_path / "ds", dirs_exist_ok=True)
    return tmp_path / "ds", data


def test_every_recording_of_a_dataset(dataset):
    root, data = dataset
    assert sniff(root) == "bids"
    recs = {r.id: r for r in read_all(root)}
    assert list(recs) == ["sub-01_ses-a_task-sleep_run-1", "sub-01_ses-b_task-sleep_run-1", "sub-02_task-sleep_run-1"]
    rec = recs["sub-01_ses-a_task-sleep_run-1"]
    assert (rec.subject, rec.source["entities"]["session"], rec.source["about"]["PowerLineFrequency"]) == ("01", "a", 50)
    assert {k: s.names for k, s in rec.signals.items()} == {"eeg": ["A1", "A2"], "eog": ["B1"], "emg": ["C1"]}
    np.testing.assert_allclose(rec.signals["eeg"].read(100, 900), data["01", "a"][:2, 100:900].T * 1e6, rtol=1e-4, atol=0.2)
    assert rec.signals["eeg"].channels["bad"].tolist() == [False, True]
    assert any("1 channels bad (A2)" in w for w in rec.warnings)
    assert (rec.species, rec.subject_meta["sex"], rec.subject_meta["age"], rec.subject_meta["group"]) == ("human", "F", 34, "ctl")
    mouse = recs["sub-02_task-sleep_run-1"]
    assert (mouse.species, mouse.subject_meta["sex"], mouse.subject_meta["strain"], "age" in mouse.subject_meta) == ("mouse", "M", "C57", False)
    assert set(mouse.signals["eeg"].names) == {"A1", "A2", "B1"}


def test_stages_and_events(dataset):
    root, _ = dataset
    rec = read(root / "sub-02")
    h = rec.hypnogram("scoring")
    assert (h.stages_list(), h.epoch, h.start) == (["W", "N2", "R"], 30.0, 0.0)
    events = rec.events("events")
    assert (events.kind.tolist(), events.start.tolist()) == (["lights off"], [12.5])
    assert "annotations" not in rec.labels


@pytest.mark.parametrize(
    ("column", "names", "expected"),
    [
        ("trial_type", ["W", "N2", "REM"], ["W", "N2", "R"]), ("trial_type", ["wake", "NREM", "REM"], ["WAKE", "NREM", "REM"]),
        ("stage", ["0", "2", "4"], None), ("sleep_stage", ["S2", "S3", "S4"], ["N2", "N3", "N3"]),
    ],
)  # fmt: skip
def test_spellings_of_stages(dataset, column, names, expected):
    root, _ = dataset
    path = next((root / "sub-02" / "ieeg").glob("*_events.tsv"))
    rows = "".join(f"{4 * k}\t4\t{n}\n" for k, n in enumerate(names))
    path.write_text(f"onset\tduration\t{column}\n{rows}50\t0\tn/a\n")
    rec = read(root / "sub-02")
    if expected is None:
        assert "scoring" not in rec.labels
        assert len(rec.events("events")) == 4
    else:
        assert rec.hypnogram().stages_list() == expected
        assert rec.events("events").start.tolist() == [50]


def test_one_file_and_its_sidecars_by_inheritance(dataset):
    root, _ = dataset
    path = next((root / "sub-02" / "ieeg").glob("*.edf"))
    own = next((root / "sub-02" / "ieeg").glob("*_events.tsv"))
    own.unlink()
    (root / "task-sleep_events.tsv").write_text("onset\tduration\ttrial_type\tvalue\n1.5\tn/a\tcue\t3\n")
    electrodes = next((root / "sub-02" / "ieeg").glob("*_electrodes.tsv"), root / "sub-02" / "ieeg" / "sub-02_electrodes.tsv")
    electrodes.write_text("name\tx\ty\tz\tsize\tregion\nA1\t1\t2\t3\t1\thippocampus\nA2\tn/a\tn/a\tn/a\t1\tcortex\n")
    rec = read(path)
    assert rec.id == "sub-02_task-sleep_run-1"
    assert (rec.events("events").kind.tolist(), rec.events("events").value.tolist()) == (["cue"], [3])
    channels = rec.signals["eeg"].channels.set_index("name")
    assert (channels.loc["A1", "region"], channels.loc["A1", "z"], channels.loc["A2", "region"]) == ("hippocampus", 3.0, "cortex")


def test_edf_keeps_its_own_rates(tmp_path):
    import edfio

    folder = tmp_path / "sub-m1" / "eeg"
    folder.mkdir(parents=True)
    (tmp_path / "dataset_description.json").write_text(json.dumps({"Name": "x", "BIDSVersion": "1.9.0"}))
    signals = [edfio.EdfSignal(RNG.normal(0, 50, 2000), 200.0, label="ch1", physical_dimension="uV"),
               edfio.EdfSignal(RNG.normal(0, 50, 4000), 400.0, label="ch2", physical_dimension="uV")]  # fmt: skip
    edfio.Edf(signals).write(folder / "sub-m1_task-sleep_eeg.edf")
    (folder / "sub-m1_task-sleep_channels.tsv").write_text("name\ttype\tunits\tstatus\nch1\tEEG\tuV\tgood\nch2\tEMG\tuV\tbad\nch9\tEEG\tuV\tgood\n")
    rec = read(tmp_path)
    assert {k: (s.rate, s.names) for k, s in rec.signals.items()} == {"eeg": (200, ["ch1"]), "emg": (400, ["ch2"])}
    assert any("names 1 channels that the recording has not (ch9)" in w for w in rec.warnings)
    assert any("Homo sapiens" in w for w in rec.warnings)


def test_what_is_not_valid(tmp_path, dataset):
    root, _ = dataset
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.9.0"}')
    with pytest.raises(FormatError, match="holds no recording named sub-LABEL"):
        read(empty)
    events = next((root / "sub-02" / "ieeg").glob("*_events.tsv"))
    whole = events.read_text()
    events.write_text("time\tname\n1\tx\n")
    with pytest.raises(FormatError, match="expected onset and duration"):
        read(root / "sub-02")
    events.write_text(whole)
    (root / "participants.tsv").write_text("name\tage\nsub-02\t3\n")
    with pytest.raises(FormatError, match="expected participant_id"):
        read(root / "sub-02")
    (root / "participants.tsv").write_text("participant_id\tage\nsub-09\t3\n")
    assert any("no row for sub-02" in w for w in read(root / "sub-02").warnings)
    wrong = root / "sub-03" / "ieeg"
    wrong.mkdir(parents=True)
    for p in (root / "sub-02" / "ieeg").iterdir():
        shutil.copy(p, wrong / p.name)
    with pytest.raises(FormatError, match="named for subject 02 and lies in the folder of sub-03") as caught:
        read(root / "sub-03")
    assert "\n" not in str(caught.value)
