"""A brainmu.yaml brings plain arrays in; what is wrong with it is said with file, line and the nearest right word."""

import re
import textwrap
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from brainmu.core import EventTable, Hypnogram, Intervals
from brainmu.errors import BrainmuError, ConfigError, FormatError, InputError, MissingDataError, NotFoundError
from brainmu.formats import describe, read, read_all, sniff
from brainmu.formats.manifest import LabelEntry, Manifest, RecordingEntry, SignalEntry, SpikesEntry

RNG = np.random.default_rng(0)
EEG = RNG.standard_normal(4000)


@pytest.fixture
def folder(tmp_path):
    """A mouse: EEG and EMG at 200 Hz, spikes, a hypnogram of integers, events and intervals."""
    np.save(tmp_path / "eeg.npy", EEG)
    np.save(tmp_path / "emg.npy", RNG.standard_normal((4008, 2)).astype("f4"))
    np.savez(tmp_path / "spikes.npz", times=np.array([100, 250, 300, 900]), unit=np.array([3, 7, 3, 7]))
    np.save(tmp_path / "states.npy", np.array([1.0, 2, 2, 3, 0]))
    (tmp_path / "trials.csv").write_text("on,arm,assigned\n1.5,A,1\n4.0,B,0\n")
    (tmp_path / "units.csv").write_text("id,region\n3,CA1\n7,CA3\n9,CA1\n")
    return tmp_path


GOOD = """\
species: mouse
subject: m1
subject_meta: {sex: F, cage: 4}
id: m1_day1
started_at: 2024-05-01T10:00:00+02:00
signals:
  eeg:
    file: eeg.npy
    rate: 200
    unit: mV
    kind: eeg
    channels: [Fz]
    region: PFC
  emg: {file: emg.npy, rate: 200, unit: a.u., kind: emg, start: 2.0, channels: [{name: left}, {name: right, kind: other}]}
spikes:
  times: {file: spikes.npz, key: times}
  unit: {file: spikes.npz, key: unit}
  units: units.csv
  time_unit: samples
  rate: 100
labels:
  scoring: {type: hypnogram, file: states.npy, epoch: 4, map: {1: WAKE, 2: NREM, 3: REM, 0: UNS}, scorer: me}
  trials: {type: events, file: trials.csv, kind: trial, rename: {start: on}}
  run: {type: intervals, bounds: [[0, 8], [10, 12.5]]}
"""


def _with(folder, text):
    (folder / "brainmu.yaml").write_text(textwrap.dedent(text))
    return folder


def test_everything_that_a_manifest_can_name(folder):
    rec = read(_with(folder, GOOD))
    assert sniff(folder) == "manifest"
    assert (rec.id, rec.subject, rec.species, rec.subject_meta) == ("m1_day1", "m1", "mouse", {"sex": "F", "cage": 4})
    assert rec.started_at is not None
    assert rec.started_at.utcoffset() is not None
    eeg, emg = rec.signals["eeg"], rec.signals["emg"]
    np.testing.assert_allclose(eeg.read(10, 20)[:, 0], EEG[10:20] * 1000, rtol=1e-6)
    assert (eeg.unit, eeg.names, eeg.channels["region"].tolist()) == ("uV", ["Fz"], ["PFC"])
    assert (emg.unit, emg.start, emg.n_samples, emg.channels["kind"].tolist()) == ("a.u.", 2.0, 4008, ["emg", "other"])
    assert any("emg" in w and "not a voltage" in w for w in rec.warnings)
    assert rec.spikes is not None
    assert rec.spikes.of(3).tolist() == [1.0, 3.0]
    assert rec.spikes.units["region"].tolist() == ["CA1", "CA3"]
    assert any("1 of 3 units have no spikes (9)" in w for w in rec.warnings)
    scoring, trials, run = rec.labels["scoring"], rec.labels["trials"], rec.labels["run"]
    assert isinstance(scoring, Hypnogram)
    assert scoring.stages_list() == ["WAKE", "NREM", "NREM", "REM", "UNS"]
    assert isinstance(trials, EventTable)
    assert (trials.start.tolist(), trials.arm.tolist(), trials.assigned.tolist(), set(trials.kind)) == ([1.5, 4.0], ["A", "B"], [1, 0], {"trial"})
    assert isinstance(run, Intervals)
    assert run.bounds.tolist() == [[0, 8], [10, 12.5]]
    assert {p.rsplit("/", 1)[1] for p in rec.source["files"]} == {"brainmu.yaml", "eeg.npy", "emg.npy", "spikes.npz", "states.npy", "trials.csv", "units.csv"}


def test_several_recordings_and_how_to_name_one(folder):
    _with(
        folder,
        """\
        species: rat
        recordings:
          - id: a
            signals: {eeg: &eeg {file: eeg.npy, rate: 200, unit: uV, kind: eeg}}
          - id: b
            species: mouse
            signals: {eeg: {<<: *eeg, start: 5}}
        """,
    )
    assert [(r.id, r.species, r.signals["eeg"].start) for r in read_all(folder)] == [("a", "rat", 0), ("b", "mouse", 5)]
    assert read(folder, recording="b").id == "b"
    with pytest.raises(MissingDataError, match=r"2 recordings .a, b.: name one with recording="):
        read(folder)
    with pytest.raises(MissingDataError, match="has no recording 'c'"):
        read(folder, recording="c")
    assert [r["id"] for r in describe(folder)["recordings"]] == ["a", "b"]


def test_one_recording_a_file_by_a_pattern(tmp_path):
    for name in ("m1__2", "m1__1", "m2__1", "other"):
        np.savez_compressed(tmp_path / f"{name}.npz", features=np.zeros((6, 2, 3), "f4"), labels=np.array([0, 1, 2, 3, 4, -100]))
    _with(
        tmp_path,
        """\
        recordings:
          - each: "{subject}__{night}.npz"
            subject: "{subject}"
            signals:
              power: {file: "{subject}__{night}.npz", key: features, flatten: true, rate: 0.0333, unit: log, kind: features, channels: [[A, B], [d, t, a]]}
            labels:
              scoring: {type: hypnogram, file: "{subject}__{night}.npz", key: labels, epoch: 30, map: {0: W, 1: N1, 2: N2, 3: N3, 4: R, -100: UNS}}
        """,
    )
    found = read_all(tmp_path)
    assert [(r.id, r.subject) for r in found] == [("m1_1", "m1"), ("m1_2", "m1"), ("m2_1", "m2")]
    assert found[0].signals["power"].names == ["A_d", "A_t", "A_a", "B_d", "B_t", "B_a"]
    assert found[0].hypnogram().stages_list() == ["W", "N1", "N2", "N3", "R", "UNS"]


def test_a_manifest_that_lies_elsewhere(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("pipeline") / "brainmu.yaml"
    elsewhere.write_text(GOOD)
    assert read(folder, manifest=elsewhere).duration > 0
    assert read(elsewhere, root=folder).id == "m1_day1"
    with pytest.raises(NotFoundError, match="no such file"):
        read(elsewhere)


def test_cells_tables_times_and_strings(tmp_path):
    cells = np.empty((1, 2), dtype=object)
    cells[0, 0], cells[0, 1] = np.array([0.5, 2.0]), np.array([1.0])
    scipy.io.savemat(tmp_path / "u.mat", {"u": cells})
    t = np.r_[np.arange(50) / 50, 2 + np.arange(50) / 50]
    (tmp_path / "pos.csv").write_text("time,x,y\n" + "\n".join(f"{a},{i},{2 * i}" for i, a in enumerate(t)))
    (tmp_path / "hyp.txt").write_text("S4\nS3\n2\nSleep stage W\n".replace("2\n", "S2\n"))
    _with(
        tmp_path,
        """\
        id: x
        signals:
          position: {file: pos.csv, columns: [x, y], times: {file: pos.csv, columns: time}, unit: cm, kind: position}
        spikes: {times: {file: u.mat, key: u}}
        labels:
          scoring: {type: hypnogram, file: hyp.txt, epoch: 20, rk: true, stages: aasm5, delimiter: tab}
        """,
    )
    rec = read(tmp_path)
    p = rec.signals["position"]
    assert (p.rate, p.unit, p.names) == (50, "m", ["x", "y"])
    assert p.gaps.bounds.tolist() == [[1.0, 2.0]]
    np.testing.assert_allclose(p.read(99, 102), [[np.nan, np.nan], [0.5, 1.0], [0.51, 1.02]])
    assert rec.spikes is not None
    assert rec.spikes.unit_id.tolist() == [0, 1, 0]
    assert rec.hypnogram().stages_list() == ["N3", "N3", "N2", "W"]
    assert any("S3, S4 (R&K) -> N3" in w for w in rec.warnings)


# Each change of the good manifest, what must be said, and on which line.
WRONG = [
    ("    rate: 200\n", "    rte: 200\n", "unknown key 'rte': did you mean 'rate'", 9, ConfigError),
    ("    rate: 200\n", "    rate: fast\n", "rate: is 'fast', expected", 9, ConfigError),
    ("    rate: 200\n", "    rate: 0\n", "rate is 0 Hz, expected a positive number", 7, InputError),
    ("    rate: 200\n", "    rate:      # <- FILL IN\n", "has neither rate nor times", 7, InputError),
    ("    unit: mV\n", "", "has no unit", 7, InputError),
    ("    kind: eeg\n", "    kind: eg\n", "kind is 'eg': did you mean", 7, InputError),
    ("    file: eeg.npy\n", "    file: eegs.npy\n", "no such file, expected an array file: did you mean eeg.npy", 7, NotFoundError),
    ("    channels: [Fz]\n", "    channels: [Fz, Cz]\n", "2 channel names for 1 channels", 7, InputError),
    ("species: mouse\n", "speces: mouse\n", "unknown key 'speces': did you mean 'species'", 1, ConfigError),
    ("signals:\n", "signals: [eeg]\nsignal_2:\n", "unknown key 'signal_2': did you mean 'signals'", 7, ConfigError),
    ("map: {1: WAKE, 2: NREM, 3: REM, 0: UNS}, ", "", "holds the codes 0, 1, 2, 3: say what they mean", 22, InputError),
    ("3: REM, 0: UNS", "0: UNS", "holds 3, which map does not name", 22, InputError),
    ("epoch: 4, ", "", "epoch is None, expected", 22, InputError),
    ("type: hypnogram", "type: hypno", "expected one of hypnogram, events, intervals", 22, ConfigError),
    ("rename: {start: on}", "rename: {start: onn}", "rename names the column 'onn', which is not there; it has on, arm, assigned", 23, InputError),
    ("rename: {start: on}", "kind: x", "key 'kind' appears twice", 23, ConfigError),
    ("rename: {start: on}", "rk: no", "rk: is 'no', expected bool", 23, ConfigError),
    ("[10, 12.5]]", "[7, 12.5]]", "interval 2 [7, 12.5] s starts before interval 1 [0, 8] s stops", 24, InputError),
    ("  time_unit: samples\n", "  time_unit: ticks\n", "time_unit is 'ticks', expected one of s, ms", 15, FormatError),
    ("  unit: {file: spikes.npz, key: unit}\n", "  unit: {file: spikes.npz, key: units}\n", "has no array 'units'", 15, FormatError),
    ("started_at: 2024-05-01T10:00:00+02:00", "started_at: 2024-05-01T10:00:00", "without a time zone", 5, ConfigError),
]


@pytest.mark.parametrize(("old", "new", "message", "line", "error"), WRONG, ids=[f"{i}" for i in range(len(WRONG))])
def test_mistakes_are_named_with_file_and_line(folder, old, new, message, line, error):
    assert old in GOOD
    _with(folder, GOOD.replace(old, new, 1))
    with pytest.raises(error) as caught:
        read(folder)
    said = str(caught.value)
    assert message in said
    assert str(folder / "brainmu.yaml") in said
    assert "\n" not in said
    assert f"line {line}" in said


def test_other_mistakes(folder):
    for text, message in [
        ("", "is empty"),
        ("id: [", "not valid YAML"),
        ("id: a\nid: b\n", "appears twice"),
        ("id: a", "names no signals, spikes or labels"),
        ("recordings: []", "expected a list"),
        ("recordings:\n  - id: a\n    labels: &l {r: {type: intervals, bounds: [[0, 1]]}}\n  - id: a\n    labels: *l\n", "2 recordings have the id 'a'"),
        ("recordings:\n  - each: '{s}.nix'\n", "no file in .* matches"),
        ("root: nowhere\nid: a\n", "is not a folder"),
        ("version: 7\nid: a\n", "version is 7, expected 1"),
    ]:
        _with(folder, text)
        with pytest.raises(ConfigError, match=message):
            read(folder)


@pytest.mark.parametrize(
    ("entry", "table", "message"),
    [
        ("labels: {r: {type: intervals, bounds: [[1], [2, 3]]}}", "", r"bounds are \[\[1\], \[2, 3\]\], expected"),
        ("labels: {r: {type: intervals, bounds: [[a, 1]]}}", "", "expected .*start, stop"),
        ("labels: {s: {type: hypnogram, file: t.csv, epoch: 4, codec: accusleep}}", "1\n9\n", "holds 9, which codec accusleep does not name"),
        ("labels: {s: {type: hypnogram, file: t.csv, epoch: 4, map: {W: WAKE}}}", "1\n2\n", "map names 'W', and t.csv holds integers"),
        ("labels: {s: {type: hypnogram, file: t.csv, epoch: 4, codec: accusleep}}", "1\nnan\n", "holds nan, expected whole numbers"),
        ("labels: {s: {type: hypnogram, file: t.csv, epoch: 4, columns: st}}", "t,st\n0,W\n4,Quiet\n", "stage 'Quiet' is not known"),
        ("labels: {s: {type: events, file: t.csv}}", "start,stop\n0,1\nx,3\n", "'start' holds 'x' in row 2, expected numbers"),
        ("labels: {s: {type: events, file: t.csv}}", "start,stop\n5,3\n", "stops at 3.0 s before it starts"),
        ("spikes: {times: {file: t.csv, columns: t}, unit: {file: t.csv, columns: u}}", "t,u\nabc,1\n", "times are not all numbers"),
        ("spikes: {times: {file: t.csv, columns: t}, unit: {file: t.csv, columns: u}}", "t,u\n1,1.5\n", "expected whole numbers"),
        ("signals: {e: {file: t.csv, columns: [x], times: {file: t.csv, columns: t}, unit: uV, kind: eeg}}", "t,x\n0,1\n5,3\n2,2\n", "times do not increase"),
        ("signals: {e: {file: ., rate: 1, unit: uV, kind: eeg}}", "", "is a folder, expected an array file"),
        ("labels: {r: {type: intervals, file: t.csv}}", "a,b\n0,2\n1,3\n", r"interval 2 \[1, 3\] s starts before interval 1 .* or use type: events"),
        ("labels: {r: {type: intervals, bounds: [[3, 1]]}}", "", r"bounds: interval 1 is \[3, 1\] s, expected numbers, the stop after the start"),
        ("labels: {s: {type: events, file: t.csv}}", "onset;duration\n5,5;1,0\n", "split by semicolons: say delimiter: ';'"),
        ("labels: {s: {type: events, file: t.csv, delimiter: ;}}", "onset;duration\n5,5;1,0\n", "holds '5,5' in row 1, .*has a decimal comma"),
        ("labels: {r: {type: intervals, file: t.csv, delimiter: ;}}", "a;b\n5,5;6,0\n", "time '5,5' has a decimal comma"),
        ("spikes: t.csv", "", "spikes is 't.csv', expected a mapping"),
    ],
)
def test_strange_contents(tmp_path, entry, table, message):
    (tmp_path / "t.csv").write_text(table)
    _with(tmp_path, f"id: a\n{entry}\n")
    with pytest.raises(BrainmuError, match=message) as caught:
        read(tmp_path)
    assert "brainmu.yaml, line" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "extra"),
    [
        ("trial,start_ms,stop_ms", ""),
        ("trial,start_ms,stop_ms", "rename: {start: start_ms, stop: stop_ms}, time_unit: ms"),
        ("trial,start_ms,stop_ms", "rename: {start: start_ms, stop: stop_ms}"),
        ("trial,cue (ms),gone_msec", "rename: {start: cue (ms), stop: gone_msec}"),
        ("trial,a,b", "rename: {start_ms: a, stop_ms: b}"),
        ("trial,a,b", "rename: {start: a, stop: b}, time_unit: ms"),
    ],
)
def test_a_unit_in_the_name_of_a_column_holds(tmp_path, table, extra):
    (tmp_path / "t.csv").write_text(f"{table}\n1,1500,2500\n2,61000,61500\n")
    _with(tmp_path, f"id: a\nlabels: {{e: {{type: events, file: t.csv, start: 10, {extra}}}}}\n")
    e = read(tmp_path).events("e")
    assert (e.start.tolist(), e.stop.tolist(), e.trial.tolist()) == ([11.5, 71.0], [12.5, 71.5], [1, 2])


def test_units_of_time_that_disagree_are_refused(tmp_path):
    (tmp_path / "t.csv").write_text("start_ms,stop_ms,unit\n1500,2500,1\n61000,61500,1\n")
    columns = "{file: t.csv, columns: start_ms}"
    for entry, held in [
        (f"signals: {{s: {{file: t.csv, columns: unit, times: {columns}, unit: a.u., kind: features%s}}}}", lambda r: r.signals["s"].times),
        (f"spikes: {{times: {columns}, unit: {{file: t.csv, columns: unit}}%s}}", lambda r: r.spikes.times),
        (f"clocks: {{c: {{pulses: {columns}%s}}}}\nlabels: {{i: {{type: intervals, bounds: [[0, 1]]}}}}", lambda r: r.clocks["c"]["pulses"]),
        ("labels: {i: {type: intervals, file: t.csv, columns: [start_ms, stop_ms]%s}}", lambda r: r.labels["i"].bounds[:, 0]),
        ("labels: {i: {type: events, file: t.csv%s}}", lambda r: r.events("i").start),
    ]:
        _with(tmp_path, "id: a\n" + entry % "")
        assert held(read(tmp_path)).tolist() == [1.5, 61.0], entry
        _with(tmp_path, "id: a\n" + entry % ", time_unit: s")
        with pytest.raises(InputError, match=r"column 'start_ms' says ms and time_unit is 's': leave time_unit out.*brainmu\.yaml, line"):
            read(tmp_path)


def test_harmless_oddities(tmp_path):
    (tmp_path / "ev.csv").write_text("start,stop\n")
    (tmp_path / "x.csv").write_text("\ufeffa,b\n1,\n3,nan\n5,6\n", encoding="utf-8")
    _with(tmp_path, "id: 7\nsubject: 0\nlabels: {e: {type: events, file: ev.csv}}\nsignals: {e: {file: x.csv, rate: 1, unit: uV, kind: eeg}}")
    (tmp_path / "mkdocs.yml").write_text("site_name: x")
    rec = read(tmp_path)
    assert (rec.id, rec.subject, len(rec.events("e")), rec.signals["e"].names) == ("7", "0", 0, ["a", "b"])
    np.testing.assert_array_equal(rec.signals["e"].read(), [[1, np.nan], [3, np.nan], [5, 6]])
    (tmp_path / "brainmu.yaml").unlink()
    with pytest.raises(FormatError, match=r"plain arrays and no brainmu.yaml"):
        read(tmp_path)


def test_the_manifest_of_the_docs_has_only_keys_that_exist(tmp_path):
    page = (Path(__file__).resolve().parents[2] / "docs" / "how-to" / "manifest.md").read_text(encoding="utf-8")
    (tmp_path / "brainmu.yaml").write_text(page.split("```yaml\n")[1].split("```")[0])
    m = Manifest(tmp_path / "brainmu.yaml")
    ((entry, where),) = m.entries
    for name, data in entry.signals.items():
        assert m.build(SignalEntry, data, name, *where).unit
    assert m.build(SpikesEntry, entry.spikes, "spikes", *where).rate == 20000
    assert [m.build(LabelEntry, data, name, *where).type for name, data in entry.labels.items()] == ["hypnogram", "events", "intervals"]
    for cls in (SignalEntry, SpikesEntry, LabelEntry, RecordingEntry):
        absent = [f for f in cls.__dataclass_fields__ if not re.search(rf"\b{f}\b", page)]
        assert not absent, f"{cls.__name__}: {absent} are not explained in the docs"


def test_nan_spike_times_are_refused(folder):
    np.savez(folder / "spikes.npz", times=np.array([1.0, np.nan, 2.0]), unit=np.array([1, 1, 1]))
    _with(folder, "id: a\nspikes: {times: {file: spikes.npz, key: times}, unit: {file: spikes.npz, key: unit}}")
    with pytest.raises(FormatError, match=r"1 of 3 spike times are NaN or infinite .the first is spike 1."):
        read(folder)


def test_opening_does_not_read_the_samples(folder):
    """The array is replaced by one of the same header and other numbers after opening: the new numbers are read."""
    rec = read(_with(folder, GOOD))
    np.save(folder / "eeg.npy", EEG + 1)
    np.testing.assert_allclose(rec.signals["eeg"].read(0, 5)[:, 0], (EEG[:5] + 1) * 1000, rtol=1e-6)


def test_label_files_of_other_tools_and_a_table_of_subjects(tmp_path: Path) -> None:
    np.save(tmp_path / "eeg.npy", np.zeros((4000, 1)))
    (tmp_path / "hypno.csv").write_text("brain_state\n" + "\n".join(["2", "3", "3", "1", "2"]) + "\n")
    (tmp_path / "subjects.csv").write_text("subject,sex,group,virus\nm1,F,stress,ChR2\nm2,M,control,\n")
    text = """
id: day1
subject: m1
species: mouse
subjects: subjects.csv
signals: {eeg: {file: eeg.npy, rate: 200, unit: uV, kind: eeg}}
labels: {scoring: {format: accusleep, file: hypno.csv, epoch: 4}}
"""
    (tmp_path / "brainmu.yaml").write_text(text)
    rec = read(tmp_path)
    assert rec.hypnogram("scoring").stages_list() == ["WAKE", "NREM", "NREM", "REM", "WAKE"]
    assert (rec.subject_meta["sex"], rec.subject_meta["group"], rec.subject_meta["virus"]) == ("F", "stress", "ChR2")
    assert sum(f.endswith(("hypno.csv", "subjects.csv")) for f in rec.source["files"]) == 2
    (tmp_path / "brainmu.yaml").write_text(text.replace("accusleep", "acusleep"))
    with pytest.raises(BrainmuError, match=r"did you mean 'accusleep'.*line 7"):
        read(tmp_path)


def test_strange_spikes_are_said(tmp_path):
    np.savez(tmp_path / "s.npz", t=np.array([5.0, 1.0, 1.0, -3.0, 9.0]), u=np.array([0, 0, 0, 1, 1]))
    _with(tmp_path, "id: a\nspikes: {times: {file: s.npz, key: t}, unit: {file: s.npz, key: u}}")
    rec = read(tmp_path)
    said = " | ".join(rec.warnings)
    for part in (
        "not in order (the first that goes back is spike 1): they were sorted",
        "1 of 5 lie before session time zero (the first at -3 s)",
        "1 of 5 are listed twice",
    ):
        assert part in said
    assert rec.spikes.times.tolist() == [-3.0, 1.0, 1.0, 5.0, 9.0]
    np.savez(tmp_path / "s.npz", t=np.array([1.0, 5.0, 0.5, 5.0]), u=np.array([0, 0, 1, 1]))  # unit after unit is a usual order
    assert read(tmp_path).warnings == []


def test_a_rate_that_cannot_be_is_refused_before_it_fills_the_memory(tmp_path):
    np.savez(tmp_path / "x.npz", x=np.zeros(1000), t=np.arange(1000) * 0.01)
    _with(tmp_path, "id: a\nsignals:\n  lfp: {file: x.npz, key: x, rate: 1000000000, unit: uV, kind: lfp}\n")
    with pytest.raises(InputError, match=r"signal 'lfp': rate is 1e\+09 Hz, expected samples a second.*brainmu\.yaml, line 3"):
        read(tmp_path)
    _with(tmp_path, "id: a\nsignals:\n  lfp: {file: x.npz, key: x, times: {file: x.npz, key: t}, time_unit: us, unit: uV, kind: lfp}\n")
    with pytest.raises(InputError, match=r"signal 'lfp': its times are 1e-08 s apart .*check time_unit .*line 3"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("dtype", "extra", "said"),
    [
        ("u2", "scale: 0.195", "holds uint16, which has no negative values"),
        ("?", "", "true and false are taken as 1 and 0 uV"),
        ("i2", "", "values are taken as 1 uV a step"),
        ("i2", "scale: 1", None),
        ("f4", "", None),
    ],
)
def test_numbers_that_are_seldom_volts(tmp_path, dtype, extra, said):
    np.save(tmp_path / "x.npy", np.ones(10, dtype=dtype))
    _with(tmp_path, f"id: a\nsignals: {{x: {{file: x.npy, rate: 100, unit: uV, kind: lfp, {extra}}}}}")
    warned = read(tmp_path).warnings
    assert warned == [] if said is None else said in warned[0]


def test_a_tracked_body_part_is_a_signal(tmp_path):
    rows = "".join(f"{k},{k},{2 * k},{0.2 if k == 3 else 0.99},7,7,1\n" for k in range(20))
    head = "scorer,a,a,a,a,a,a\nbodyparts,nose,nose,nose,tail,tail,tail\ncoords,x,y,likelihood,x,y,likelihood\n"
    (tmp_path / "v.csv").write_text(head + rows)
    text = "id: a\nsignals: {position: {file: v.csv, format: deeplabcut, part: nose, rate: 10, unit: cm, scale: 0.5, kind: position%s}}"
    _with(tmp_path, text % "")
    rec = read(tmp_path)
    xy = rec.signals["position"].read()
    assert (rec.signals["position"].names, xy.shape, np.isnan(xy[:, 0]).nonzero()[0].tolist()) == (["x", "y"], (20, 2), [3])
    np.testing.assert_allclose(xy[5], [0.025, 0.05])
    assert any("5.0% of nose" in w for w in rec.warnings)
    _with(tmp_path, text % ", likelihood: 0.1")
    assert np.isfinite(read(tmp_path).signals["position"].read()).all()
    for extra, message in ((", track: all", "track is 'all'"), (", track: 3", "number 3 was asked for")):
        _with(tmp_path, text % extra)
        with pytest.raises(InputError, match=message):
            read(tmp_path)
    (tmp_path / "v.csv").write_text("x,y\n1,2\n")
    _with(tmp_path, text % "")
    with pytest.raises(FormatError, match="this is no table of DeepLabCut"):
        read(tmp_path)
