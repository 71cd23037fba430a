"""Label files as each tool writes them; codes that collide are never guessed."""

import numpy as np
import pandas as pd
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from brainmu.core import EventTable, Hypnogram
from brainmu.errors import FormatError, InputError, NotFoundError
from brainmu.formats import read
from brainmu.formats.scorings import SCORINGS, label_files_beside, read_scoring

RODENT = ["WAKE"] * 5 + ["NREM"] * 6 + ["REM"] * 3 + ["UNS"] * 2 + ["NREM"] * 4
HUMAN = ["W", "W", "N1", "N2", "N2", "N3", "N3", "R", "R", "W"]


def stages(label) -> list[str]:
    assert isinstance(label, Hypnogram)
    return label.stages_list()


def test_accusleep(tmp_path):
    codes = Hypnogram.from_stages(RODENT, 2.5).to_codes("accusleep")
    scipy.io.savemat(tmp_path / "labels.mat", {"labels": codes[:, None]})
    h = read_scoring(tmp_path / "labels.mat", format="accusleep", epoch=2.5, start=10.0)
    assert (stages(h), h.epoch, h.start, h.scorer) == (RODENT, 2.5, 10.0, "accusleep")
    # The Python version writes one column, -1 where nothing is scored.
    pd.DataFrame({"brain_state": np.where(codes == 4, -1, codes)}).to_csv(tmp_path / "labels.csv", index=False)
    h = read_scoring(tmp_path / "labels.csv", epoch=2.5)
    assert stages(h) == RODENT
    assert "column brain_state is AccuSleep's" in h.attrs["notes"][0]
    pd.DataFrame({"brain_state": codes, "confidence_score": 0.9}).to_csv(tmp_path / "labels.csv", index=False)
    assert stages(read_scoring(tmp_path / "labels.csv", epoch=2.5)) == RODENT
    pd.DataFrame({"brain_state": [1, 2, 7]}).to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(InputError, match=r"holds the codes 1 \(1\), 2 \(1\), 7 \(1\); accusleep has no 7"):
        read_scoring(tmp_path / "labels.csv", epoch=2.5)


def test_bare_codes_are_never_guessed(tmp_path):
    for name in ("a.txt", "a.csv"):
        (tmp_path / name).write_text("1\n2\n2\n3\n")
        with pytest.raises(InputError, match=r"holds the codes 1 \(1\), 2 \(2\), 3 \(1\), which tools use differently") as error:
            read_scoring(tmp_path / name, epoch=4.0)
        for sentence in ("yasa reads them as N1, N2, N3", "accusleep reads them as REM, WAKE, NREM", "somnotate reads them as WAKE, NREM, REM"):
            assert sentence in str(error.value)
        assert stages(read_scoring(tmp_path / name, format="somnotate", epoch=4.0)) == ["WAKE", "NREM", "NREM", "REM"]
        assert stages(read_scoring(tmp_path / name, map={1: "REM", 2: "WAKE", 3: "NREM"}, epoch=4.0)) == ["REM", "WAKE", "WAKE", "NREM"]
    np.save(tmp_path / "a.npy", [1.0, 8.0])
    with pytest.raises(InputError, match="no tool known here has all of them"):
        read_scoring(tmp_path / "a.npy", epoch=4.0)
    with pytest.raises(InputError, match="does not say how long an epoch is: pass epoch="):
        read_scoring(tmp_path / "a.txt", format="yasa")
    with pytest.raises(InputError, match="scoring format 'yassa' is not known: did you mean 'yasa'"):
        read_scoring(tmp_path / "a.txt", format="yassa")
    with pytest.raises(NotFoundError):
        read_scoring(tmp_path / "b.txt")


def test_yasa(tmp_path):
    codes = Hypnogram.from_stages(HUMAN, 30.0).to_codes("yasa")
    np.savetxt(tmp_path / "h.txt", codes, fmt="%d")
    assert stages(read_scoring(tmp_path / "h.txt", format="yasa", epoch=30.0)) == HUMAN
    pd.Series(codes, name="stage").to_csv(tmp_path / "h.csv", index=False)
    assert stages(read_scoring(tmp_path / "h.csv", format="yasa", epoch=30.0)) == HUMAN
    # Names, as its Hypnogram writes them (one an epoch, numbered), need no format.
    names = pd.Series(["WAKE", "N1", "N2", "N3", "REM", "ART", "UNS"], name="Stage").rename_axis("Epoch")
    names.to_csv(tmp_path / "n.csv")
    assert stages(read_scoring(tmp_path / "n.csv", epoch=30.0)) == ["W", "N1", "N2", "N3", "R", "ART", "UNS"]
    (tmp_path / "n.txt").write_text("Wake\nS2\nS3\nREM\n")
    with pytest.raises(InputError, match=r"pass rk=True"):
        read_scoring(tmp_path / "n.txt", epoch=30.0)
    h = read_scoring(tmp_path / "n.txt", epoch=30.0, rk=True)
    assert (stages(h), h.attrs["merged"]) == (["W", "N2", "N3", "R"], "S3 (R&K) -> N3")
    (tmp_path / "n.txt").write_text("Wake\nquiet\nquiet\nREM\n")
    with pytest.raises(InputError, match=r"stages 'quiet' \(2\) are not known \(beside REM, Wake\): say what they mean with map="):
        read_scoring(tmp_path / "n.txt", epoch=30.0)
    assert stages(read_scoring(tmp_path / "n.txt", epoch=30.0, map={"quiet": "NREM"})) == ["WAKE", "NREM", "NREM", "REM"]


def test_somnotate_and_visbrain(tmp_path):
    # As Somnotate exports: names padded to one length, each with the time at which it ends.
    text = "*Duration_sec\t60.0\n*Datafile\tUnspecified\nawake           \t12.0\nnon-REM         \t40.0\nREM             \t48.0\n"
    text += "awake (artefact)\t52.0\nundefined       \t60.0\n"
    (tmp_path / "a.hyp").write_text(text)
    h = read_scoring(tmp_path / "a.hyp", start=100.0)
    assert h.epoch == 4.0
    assert stages(h) == ["WAKE"] * 3 + ["NREM"] * 7 + ["REM"] * 2 + ["ART"] + ["UNS"] * 2
    assert h.start == 100.0
    assert h.attrs["notes"] == ["1 of 'awake (artefact)' are artefact (ART)"]
    assert len(read_scoring(tmp_path / "a.hyp", epoch=1.0)) == 60
    with pytest.raises(InputError, match=r"do not lie on epochs of 5 s .the first are 0, 12, 40"):
        read_scoring(tmp_path / "a.hyp", epoch=5.0)
    (tmp_path / "a.hyp").write_text(text.replace("40.0", "forty"))
    with pytest.raises(FormatError, match="is not a stage and the time at which it ends"):
        read_scoring(tmp_path / "a.hyp")
    # visbrain's other layout: codes, and a file that says what they are.
    (tmp_path / "b.txt").write_text("5\n3\n2\n1\n0\n4\n")
    (tmp_path / "b_description.txt").write_text("time 30.0\nW 5\nN1 3\nN2 2\nN3 1\nN4 0\nREM 4\n")
    h = read_scoring(tmp_path / "b.txt")
    assert (stages(h), h.epoch) == (["W", "N1", "N2", "N3", "N3", "R"], 30.0)


def test_elan(tmp_path):
    (tmp_path / "a.hyp").write_text("time_base 30.000000\nsampling_period 0.01\nepoch_nb 6\nepoch_list\n0\n1\n3\n4\n5\n-1\n")
    h = read_scoring(tmp_path / "a.hyp")
    assert (stages(h), h.epoch, h.attrs["notes"]) == (["W", "N1", "N3", "N3", "R", "ART"], 30.0, ["stage 4 (R&K) is read as N3"])


def test_buzcode(tmp_path):
    states = np.array([1, 1, 3, 3, 3, 5, 0, 1], dtype=float)
    idx = {"states": states[:, None], "timestamps": np.arange(10.0, 18.0)[:, None]}
    scipy.io.savemat(tmp_path / "a.SleepState.states.mat", {"SleepState": {"idx": idx}})
    h = read_scoring(tmp_path / "a.SleepState.states.mat")
    assert (stages(h), h.epoch, h.start) == (["WAKE", "WAKE", "NREM", "NREM", "NREM", "REM", "UNS", "WAKE"], 1.0, 9.5)


def test_sleepsign(tmp_path):
    rows = [f"{k + 1}\t{s}\t2020/01/02 09:00:{4 * k:02d}\t0.5" for k, s in enumerate(["W", "W", "NR", "NA", "R", "M", "NO"])]
    head = ["SleepSign", "Version 3", "", "EpochNo\tStage\tDateTime\tDelta"]
    (tmp_path / "s.txt").write_text("\n".join([*head, *rows]) + "\n")
    h = read_scoring(tmp_path / "s.txt")
    assert (stages(h), h.epoch) == (["WAKE", "WAKE", "NREM", "ART", "REM", "ART", "UNS"], 4.0)
    again = [r.replace("\tW\t", "\tNR\t") for r in rows]
    (tmp_path / "s.txt").write_text("\n".join([*head, *rows, "", *again]) + "\n")
    h = read_scoring(tmp_path / "s.txt")
    assert stages(h)[:3] == ["NREM", "NREM", "NREM"]
    assert "2 scorings one after another; the last was read" in h.attrs["notes"][0]
    (tmp_path / "s.txt").write_text("\n".join([*head, rows[0], rows[2]]) + "\n")
    with pytest.raises(FormatError, match="epoch 1 is followed by another than the next"):
        read_scoring(tmp_path / "s.txt")


def test_tables_of_bouts(tmp_path):
    frame = pd.DataFrame({"onset": [0, 10, 40], "duration": [10, 20, 10], "trial_type": ["Wake", "NREM", "REM"]})
    frame.to_csv(tmp_path / "x_events.tsv", sep="\t", index=False)
    h = read_scoring(tmp_path / "x_events.tsv")
    assert (h.epoch, stages(h)) == (10.0, ["WAKE", "NREM", "NREM", "UNS", "REM"])
    assert h.attrs["notes"] == ["1 epochs between stages are not scored (UNS)"]
    # Starts alone, as scripts of Spike2 write them.
    (tmp_path / "spike2.txt").write_text("Time\tStage\n0\tW\n10\tNREM\n30\tREM\n40\tW\n")
    with pytest.raises(InputError, match="have a start and no end, and uneven steps: pass epoch="):
        read_scoring(tmp_path / "spike2.txt")
    assert stages(read_scoring(tmp_path / "spike2.txt", epoch=10.0)) == ["WAKE", "NREM", "NREM", "REM", "WAKE"]
    frame.assign(onset=[0, 5, 40]).to_csv(tmp_path / "x_events.tsv", sep="\t", index=False)
    with pytest.raises(FormatError, match=r"stages overlap at 5 s .Wake and NREM."):
        read_scoring(tmp_path / "x_events.tsv")
    frame.assign(onset=[0, 10.03, 40]).to_csv(tmp_path / "x_events.tsv", sep="\t", index=False)
    with pytest.raises(InputError, match=r"share no epoch of at least 0\.1 s"):
        read_scoring(tmp_path / "x_events.tsv")
    # Other events stay events.
    frame.assign(trial_type=["tone", "light", "tone"]).to_csv(tmp_path / "x_events.tsv", sep="\t", index=False)
    events = read_scoring(tmp_path / "x_events.tsv", start=5.0)
    assert isinstance(events, EventTable)
    assert (events.kind.tolist(), events.start.tolist()) == (["tone", "light", "tone"], [5.0, 15.0, 45.0])
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(FormatError, match="holds no lines"):
        read_scoring(tmp_path / "empty.txt")


def test_edf_annotations(tmp_path):
    from edfio import Edf, EdfAnnotation

    notes = [EdfAnnotation(30.0 * k, 30.0, f"Sleep stage {s}") for k, s in enumerate(["W", "1", "2", "4", "R"])]
    Edf(signals=[], annotations=notes).write(tmp_path / "h.edf")
    h = read_scoring(tmp_path / "h.edf", start=7.0)
    assert (stages(h), h.start, h.epoch) == (["W", "N1", "N2", "N3", "R"], 7.0, 30.0)
    Edf(signals=[], annotations=[EdfAnnotation(1.0, 2.0, "lights off")]).write(tmp_path / "e.edf")
    e = read_scoring(tmp_path / "e.edf", start=7.0)
    assert (e.start.tolist(), e.stop.tolist(), e.kind.tolist()) == ([8.0], [10.0], ["lights off"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(["W", "N1", "N2", "N3", "R", "ART", "UNS"]), min_size=1, max_size=30))
def test_codes_of_each_tool_come_back(tmp_path_factory, names):
    folder = tmp_path_factory.mktemp("codes")
    for codec in ("yasa", "accusleep", "somnotate", "buzcode"):
        h = Hypnogram.from_stages(names, 4.0, stage_set="aasm5")
        h = h if codec == "yasa" else h.as_rodent3()
        try:
            codes = h.to_codes(codec)
        except InputError:
            continue
        np.savetxt(folder / "h.txt", codes, fmt="%d")
        back = read_scoring(folder / "h.txt", format=codec, epoch=4.0, stages=h.stage_set)
        known = ~(h.mask("ART") | h.mask("UNS"))
        assert [s for s, k in zip(stages(back), known) if k] == [s for s, k in zip(h.stages_list(), known) if k]


def test_label_files_beside_a_recording_are_mentioned(tmp_path):
    from edfio import Edf, EdfSignal

    night = tmp_path / "night.edf"
    Edf([EdfSignal(np.zeros(200), 100, label="EEG")]).write(night)
    for name in ("night_hypnogram.csv", "events.tsv", "night.txt", "night2_hypnogram.csv", "nightly.csv", "notes.txt", "night_raw.csv"):
        (tmp_path / name).write_text("x\n")
    assert [p.name for p in label_files_beside(night)] == ["events.tsv", "night.txt", "night_hypnogram.csv"]
    rec = read(night)
    assert rec.labels == {}
    assert any("events.tsv, night.txt, night_hypnogram.csv beside it look like labels and were not read" in w for w in rec.warnings)
    for name in ("night_hypnogram.csv", "events.tsv", "night.txt"):
        (tmp_path / name).unlink()
    assert not any("look like labels" in w for w in read(night).warnings)
    (tmp_path / "sub-1_task-rest_eeg.edf").write_bytes(night.read_bytes())
    (tmp_path / "sub-1_task-rest_events.tsv").write_text("onset\tduration\n")
    assert [p.name for p in label_files_beside(tmp_path / "sub-1_task-rest_eeg.edf")] == ["sub-1_task-rest_events.tsv"]


def test_the_formats_are_described():
    assert all(len(v) > 10 for v in SCORINGS.values())


@pytest.mark.realdata
def test_real_scorings(real_data):
    h = read_scoring(real_data / "mouse-eeg-emg" / "States_Acq4_hr0.npy", map={0: "UNS", 1: "WAKE", 2: "NREM", 3: "REM"}, epoch=4.0)
    assert [int(h.mask(s).sum()) for s in ("WAKE", "NREM", "REM", "UNS")] == [139, 182, 15, 2]
    with pytest.raises(InputError, match=r"holds the codes 0 \(2\), 1 \(139\), 2 \(182\), 3 \(15\)"):
        read_scoring(real_data / "mouse-eeg-emg" / "States_Acq4_hr0.npy", epoch=4.0)
    for path in sorted((real_data / "human-sleepedf-hypnograms").glob("*.edf"))[:3]:
        night = read_scoring(path)
        assert isinstance(night, Hypnogram)
        assert (night.epoch, night.stage_set) == (30.0, "aasm5")
        assert night.mask("N2").sum() > 100
    spindles = read_scoring(real_data / "human-dreams-spindles" / "Hypnogram_excerpt2.txt", map={5: "W", 4: "R", 3: "N1", 2: "N2", 1: "N3", 0: "N3"}, epoch=5.0)
    assert len(spindles) == 360


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "W\nN1\n".encode("utf-16"), "is no plain text"),
        ("a.txt", b"1.5\n2\n", r"stages '1\.5' \(1\), '2' \(1\) are not known"),
        ("a.txt", b"*Duration_sec\t10\n", "holds no stages under its header"),
        ("a.txt", b"*Duration_sec\t10\nWake\t5\nREM\t3\n", "stages end go back at 5 s"),
        ("a.csv", b"0,W\n30,N1\n", "is there a header line"),
        ("a.mat", b"xxxx" * 99, "not readable as a MATLAB file"),
        ("a.edf", b"%PDF" * 99, "is it another format"),
        ("a.hyp", b"time_base 30\n0\n1\n", "lacks time_base or epoch_list"),
    ],
)
def test_damaged_label_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises((FormatError, InputError), match=message):
        read_scoring(tmp_path / name, epoch=30.0)


def test_arrays_of_codes_must_be_one_epoch_each(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((3, 2)))
    with pytest.raises(FormatError, match=r"has shape \(3, 2\), expected one stage an epoch"):
        read_scoring(tmp_path / "a.npy", format="yasa", epoch=30.0)
    (tmp_path / "a.txt").write_text("1\nnan\n2\n")
    h = read_scoring(tmp_path / "a.txt", format="yasa", epoch=30.0)
    assert (stages(h), h.attrs["notes"]) == (["N1", "UNS", "N2"], ["1 epochs without a code are not scored (UNS)"])
