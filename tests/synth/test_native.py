"""Planted recordings written as other tools write them, and read back."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import yaml

import brainmu as bm
from brainmu.core import EventTable, Hypnogram, Intervals, Recording, Spikes
from brainmu.errors import InputError, OutputExistsError, StoreError
from brainmu.synth import ClockModel, calcium, on_clocks, recording, write


@pytest.fixture(scope="module")
def rec() -> Recording:
    out, _ = recording(hours=0.2, seed=1, n_cells=12)
    out.started_at = datetime(2024, 5, 1, 10, 0, tzinfo=UTC)
    # A spike more than half a step from the end of a file is not lost to rounding.
    return out


def _same_events(found, wanted, atol=1e-6):
    assert len(found) == len(wanted)
    order = np.argsort(np.asarray(wanted.start), kind="stable")
    assert np.asarray(found.start) == pytest.approx(np.asarray(wanted.start)[order], abs=atol)
    assert np.asarray(found.stop) == pytest.approx(np.asarray(wanted.stop)[order], abs=atol)


def test_nwb(rec, tmp_path):
    path = write(rec, tmp_path, format="nwb")
    assert bm.read(path, epoch=2.0).labels["scoring"].epoch == 2.0
    back = bm.read(path)
    assert back.species == "mouse"
    assert back.started_at == rec.started_at
    for name in ("lfp", "emg"):
        a, b = rec.signals[name], back.signals[name]
        assert (b.rate, b.start, b.unit, b.names, b.kind) == (a.rate, a.start, "uV", a.names, a.kind)
        x = a.read(0, 200_000)
        assert np.abs(b.read(0, 200_000) - x).max() <= 0.51 * np.abs(a.read()).max() / 32000
    assert back.signals["lfp"].channels["region"].tolist() == rec.signals["lfp"].channels["region"].tolist()
    assert np.array_equal(back.signals["position"].read(), rec.signals["position"].read(), equal_nan=True)
    for i, unit in enumerate(rec.spikes.units["id"]):
        assert np.array_equal(back.spikes.of(i), rec.spikes.of(unit))
    assert back.labels["scoring"] == rec.labels["scoring"]
    for name in ("trials", "reactivation", "run"):
        if len(rec.labels[name]):
            _same_events(back.labels[name], rec.labels[name])
    for name in ("trials", "reactivation", "context"):
        got, want = back.labels[name].to_frame(), rec.labels[name].to_frame()
        assert len(want), name
        assert got.columns.tolist() == want.columns.tolist()
        for column in want:
            assert got[column].tolist() == want[column].tolist(), (name, column)
    assert isinstance(back.labels["run"], Intervals)
    assert all(back.signals[k].gaps == s.gaps for k, s in rec.signals.items())
    assert (back.subject_meta, back.zeitgeber) == (rec.subject_meta, rec.zeitgeber)
    assert back.subject_meta["group"]
    import pynwb

    with pynwb.NWBHDF5IO(str(path), "r") as io:
        assert not pynwb.validate(io=io)


def test_nwb_holds_fluorescence(tmp_path):
    signals, _ = calcium(Spikes([1.0, 2.0, 3.0], [0, 1, 1]), 20.0)
    back = bm.read(write(Recording("m1", signals=signals), tmp_path, format="nwb"))
    assert np.array_equal(back.signals["calcium"].read(), signals["calcium"].read())
    assert back.signals["calcium"].kind == "calcium"


def test_nwb_does_not_invent_an_age(tmp_path):
    import pynwb

    labels = {"e": EventTable([0.0], [1.0])}
    for k, meta in enumerate(({}, {"age": "P40Y", "sex": "F"})):
        path = write(Recording(f"h{k}", "", "human", labels=labels, subject_meta=meta), tmp_path, format="nwb")
        with pynwb.NWBHDF5IO(str(path), "r") as io:
            subject = io.read().subject
            assert (subject.age, subject.sex, subject.subject_id) == (meta.get("age"), meta.get("sex", "U"), None)
            assert not pynwb.validate(io=io)
        assert bm.read(path).subject_meta == meta


FULL = """
import resource, signal, sys
import numpy as np
import brainmu as bm
from brainmu.core import EventTable, Recording, Spikes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
x = np.random.default_rng(0).normal(0, 100, (400_000, 2)).astype(np.float32)
spikes = Spikes(np.linspace(0, 300, 200_000), np.zeros(200_000, dtype=np.int32))
rec = Recording.from_arrays("m1", signals={"lfp": dict(values=x, rate=1250.0, unit="uV", kind="lfp")}, spikes=spikes, labels={"e": EventTable([1.0], [2.0])})
import pynwb, scipy.io
for limit, kind in [(n, k) for n in map(int, sys.argv[2:]) for k in ("nwb", "edf", "neurosuite", "phy", "manifest")]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        bm.synth.write(rec, f"{sys.argv[1]}/new/{kind}", format=kind)
    except bm.errors.StoreError as error:
        print(str(error))
"""


def test_a_disk_that_fills_up_is_said_in_one_line_and_leaves_nothing(tmp_path):
    child = subprocess.run([sys.executable, "-c", FULL, str(tmp_path), "1000", "300000"], capture_output=True, text=True, check=False)
    assert (child.returncode, child.stderr) == (0, "")
    said = child.stdout.splitlines()
    assert len(said) == 10
    assert all("m1" in line and "cannot be written: " in line and "nothing was left behind" in line for line in said)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["nwb", "edf", "neurosuite", "phy", "manifest"])
def test_a_folder_that_cannot_be_is_said(tmp_path, kind):
    (tmp_path / "file").write_text("")
    rec = Recording.from_arrays("m1", signals={"lfp": dict(values=np.ones((100, 1)), rate=100.0, unit="uV", kind="lfp")}, spikes=Spikes([0.5], [0]))
    with pytest.raises(StoreError, match="a file lies where a folder should be") as caught:
        write(rec, tmp_path / "file" / "native", format=kind)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_nwb_keeps_kinds_and_channels_that_it_has_no_field_for(tmp_path):
    rng = np.random.default_rng(0)
    signals = {
        "lfp": dict(values=rng.normal(size=(500, 2)), rate=100.0, unit="uV", kind="eeg", channels=["E1", "E2"]),
        "fibre": dict(values=rng.normal(size=(500, 2)), rate=100.0, unit="a.u.", kind="photometry", channels=["signal_470", "isosbestic_415"]),
    }
    labels = {"a b": EventTable([1.0], [2.0], tags=["x"], id=[3]), "a_b": Intervals([[1.0, 2.0]]), "invalid_times": Intervals([[3.0, 4.0]])}
    rec = Recording.from_arrays("m1", signals=signals, labels=labels, spikes=Spikes([], np.empty(0, dtype=np.int32)))
    back = bm.read(write(rec, tmp_path, format="nwb"))
    for name, s in rec.signals.items():
        assert (back.signals[name].kind, back.signals[name].names) == (s.kind, s.names)
        assert set(back.signals[name].channels["kind"]) == {s.kind}
    assert back.labels["a_b"].tags_.tolist() == ["x"]
    assert back.labels["a_b_2"] == labels["a_b"]
    assert back.labels["invalid_times_2"] == labels["invalid_times"]
    assert back.subject_meta == {}
    assert any("no units" in w for w in rec.warnings)


def test_edf_of_a_night(tmp_path):
    night, _ = recording(hours=0.5, seed=2, species="human")
    path = write(night, tmp_path, format="edf")
    back = bm.read(path)
    assert back.labels["scoring"] == night.labels["scoring"]
    assert set(back.signals) == {"eeg", "eog", "emg"}
    for name in back.signals:
        a, b = night.signals[name], back.signals[name]
        assert b.rate == a.rate
        assert b.n_samples == a.n_samples
        assert np.abs(a.read() - b.read()).max() <= 0.52 * np.abs(a.read()).max() / 32767 * 1.001 + 1e-3
    import edfio

    other = edfio.read_edf(path)  # a reader that is not ours
    assert other.num_signals == sum(s.n_channels for s in night.signals_of("eeg", "eog", "emg").values())
    assert other.annotations[0].text.startswith("Sleep stage")
    assert other.signals[0].data == pytest.approx(night.signals["eeg"].read()[:, 0], abs=0.1)


def test_edf_of_a_rodent_keeps_events_to_the_microsecond_and_says_what_it_lost(rec, tmp_path):
    back = bm.read(write(rec, tmp_path, format="edf"))
    notes = back.labels["annotations"]
    wanted = rec.labels["reactivation"]
    mine = np.array([k.startswith("reactivation") for k in notes.kind])
    _same_events(notes[mine], wanted, atol=2e-6)
    assert back.labels["scoring"] == rec.labels["scoring"]
    assert any("spikes" in w and "left out" in w for w in rec.warnings)


def test_neurosuite(rec, tmp_path):
    back = bm.read(write(rec, tmp_path, format="neurosuite"))
    a, b = rec.signals["lfp"], back.signals["lfp"]
    assert (b.rate, b.n_samples, b.unit) == (a.rate, a.n_samples, "uV")
    assert np.abs(a.read(0, 300_000) - b.read(0, 300_000)).max() <= 0.51 * 20 / 2**16 / 1000 * 1e6
    ids = rec.spikes.units["id"].to_numpy()
    for i, unit in zip(back.spikes.units["id"], ids):
        assert np.array_equal(np.rint(back.spikes.of(i) * 20_000), np.rint(rec.spikes.of(unit) * 20_000))
    assert len(back.spikes) == len(rec.spikes)
    assert back.spikes.units["region"].tolist() == rec.spikes.units["region"].tolist()
    h, truth = back.labels["scoring"], rec.labels["scoring"]
    assert np.array_equal(h.codes, truth.at(h.times + 0.5))
    assert len(h) == round(truth.stop - truth.start)
    _same_events(back.labels["events_reactivation"], rec.labels["reactivation"], atol=1e-8)


def test_neurosuite_keeps_odd_rates(tmp_path):
    for rate in (24414.0625 / 24, 1250.018812345):
        rec = Recording.from_arrays("m1", signals={"lfp": dict(values=np.ones((5000, 1)), rate=rate, unit="uV", kind="lfp")})
        back = bm.read(write(rec, tmp_path, format="neurosuite", overwrite=True))
        assert back.signals["lfp"].rate == pytest.approx(rate, rel=1e-11)  # six digits would be 18 ms off after two hours


def test_phy(rec, tmp_path):
    path = write(rec, tmp_path, format="phy")
    back = bm.read(path)
    assert np.array_equal(back.spikes.units["id"], rec.spikes.units["id"])
    for unit in back.spikes.units["id"]:
        assert np.array_equal(np.rint(back.spikes.of(unit) * 30_000), np.rint(rec.spikes.of(unit) * 30_000))
    units = back.spikes.units
    assert (units["quality"] == "good").all()
    assert units["trough_to_peak_ms"].between(0.2, 0.9).all()
    if "type" in rec.spikes.units:
        narrow = rec.spikes.units["type"].str.contains("inter").to_numpy()
        assert units["trough_to_peak_ms"][narrow].max() < units["trough_to_peak_ms"][~narrow].min()


def test_manifest_holds_everything_also_clocks(rec, tmp_path):
    there, true = on_clocks(rec, {"camera": ClockModel(streams=("position",)), "box": ClockModel(streams=("spikes", "trials"), ppm=-15.0)}, seed=5)
    path = write(there, tmp_path, format="manifest")
    yaml.safe_load((path / "brainmu.yaml").read_text())
    back = bm.read(path)
    assert (back.subject, back.species, back.started_at, back.zeitgeber) == (rec.subject, rec.species, rec.started_at, rec.zeitgeber)
    for name, s in there.signals.items():
        assert np.array_equal(back.signals[name].read(), s.read(), equal_nan=True), name
        assert (back.signals[name].rate, back.signals[name].start, back.signals[name].kind) == (s.rate, s.start, s.kind)
    assert np.array_equal(back.spikes.times, there.spikes.times)
    assert back.labels["scoring"] == there.labels["scoring"]
    assert np.abs(back.labels["run"].bounds - there.labels["run"].bounds).max() < 1e-8
    _same_events(back.labels["reactivation"], there.labels["reactivation"], atol=1e-8)
    store = bm.preprocess(back, tmp_path / "out.zarr")
    seen = np.isfinite(true["box"].to_own(rec.spikes.times))
    assert np.abs(store.spikes.times - rec.spikes.times[seen]).max() < 1e-3


@pytest.fixture(scope="module")
def clocked() -> Recording:
    """Position, spikes and trials on clocks far from the session's."""
    out, _ = recording(hours=0.15, seed=3, n_cells=6, clocks={
        "camera": {"streams": ("position",), "offset": 12.5, "ppm": 40.0}, "box": {"streams": ("spikes", "trials"), "offset": 6.0, "ppm": -15.0},
    })  # fmt: skip
    return out


@pytest.mark.parametrize(
    ("kind", "streams", "clock"),
    [("nwb", "position", "'camera' and 'box'"), ("edf", "trials", "'box'"), ("neurosuite", "spikes, trials", "'box'"), ("phy", "spikes", "'box'")],
)
def test_streams_of_another_clock_are_refused_with_the_way_out(clocked, tmp_path, kind, streams, clock):
    with pytest.raises(InputError, match=rf"{streams}.* runs? on the clocks? {clock}, .*align\(recording\), or format=\"manifest\"") as caught:
        write(clocked, tmp_path, format=kind)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_aligned_streams_are_on_the_time_of_the_session_in_every_format(clocked, tmp_path):
    plain, _ = recording(hours=0.15, seed=3, n_cells=6)
    aligned = bm.store.align(clocked)
    for kind in ("nwb", "neurosuite", "phy", "manifest"):
        back = bm.read(write(aligned, tmp_path / kind, format=kind))
        if kind == "manifest":
            back = bm.store.align(back)  # not moved a second time
        assert len(back.spikes) == len(plain.spikes)
        assert np.abs(back.spikes.times - plain.spikes.times).max() < 1e-3, kind
    back = bm.read(tmp_path / "nwb" / f"{plain.id}.nwb")
    t = plain.labels["run"].start[0] + 5.0 + np.arange(20.0)
    want = [plain.signals["position"].span(a, a + 0.1)[1][0] for a in t]
    got = [back.signals["position"].span(a, a + 0.1)[1][0] for a in t]
    assert np.nanmax(np.abs(np.array(got) - np.array(want))) < 0.05  # m; 12.5 s off would be 0.6
    _same_events(back.labels["trials"], plain.labels["trials"], atol=1e-3)


def test_a_clock_of_what_the_format_leaves_out_is_no_hindrance(rec, tmp_path):
    there, _ = on_clocks(rec, {"camera": ClockModel(streams=("position",), offset=12.5)}, seed=5)
    back = bm.read(write(there, tmp_path, format="neurosuite"))
    assert np.abs(back.labels["events_sync_session"].start - there.labels["sync_session"].start).max() < 1e-6
    assert "events_sync_camera" not in back.labels
    assert any("sync_camera" in w and "other clocks" in w for w in there.warnings)


def test_a_clock_that_only_its_signal_names_is_seen(tmp_path):
    x = np.zeros((1000, 1))
    rec = Recording.from_arrays("m1", signals={"eeg": dict(values=x, rate=100.0, unit="uV", kind="eeg", clock="box")})
    for kind in ("nwb", "edf"):
        with pytest.raises(InputError, match="eeg runs on the clock 'box'"):
            write(rec, tmp_path, format=kind)
    rec.clocks = {"box": {"offset": 6.0, "ppm": 0.0}}
    back = bm.read(write(rec, tmp_path, format="manifest"))
    assert bm.store.align(back).signals["eeg"].start == 6.0


def test_edf_holds_events_before_its_first_sample(tmp_path):
    events = EventTable([-2.5, -1e-9, 3.0], [-2.5, 0.5, 3.0], kind="sync", content=["a", "b", "c"])
    rec = Recording.from_arrays("m1", signals={"eeg": dict(values=np.ones((1000, 1)), rate=100.0, unit="uV", kind="eeg")}, labels={"sync": events})
    path = write(rec, tmp_path, format="edf")
    back = bm.read(path).labels["annotations"]
    assert back.start.tolist() == [-2.5, 0.0, 3.0]
    assert back.kind.tolist() == ["sync a", "sync b", "sync c"]
    import edfio

    assert [a.onset for a in edfio.read_edf(path).annotations] == [-2.5, 0.0, 3.0]


def test_gaps_are_said(tmp_path):
    x = np.random.default_rng(0).normal(size=(5000, 1)).astype(np.float32)
    x[100:200] = np.nan
    holed = Recording.from_arrays("m1", signals={"lfp": dict(values=x, rate=100.0, unit="mV", kind="lfp", gaps=Intervals([[1.0, 2.0]]))})
    back = bm.read(write(holed, tmp_path / "nwb", format="nwb"))
    assert any("invalid_times" in w for w in holed.warnings)
    assert back.signals["lfp"].gaps == holed.signals["lfp"].gaps
    assert np.array_equal(back.signals["lfp"].read(), 1e3 * x, equal_nan=True)
    assert "invalid_times" not in back.labels
    for kind, sentence in (("edf", "gap"), ("neurosuite", "missing")):
        rec = Recording.from_arrays("m1", signals=dict(holed.signals))
        back = bm.read(write(rec, tmp_path / kind, format=kind))
        assert any(sentence in w for w in rec.warnings), kind
        assert back.signals[next(iter(back.signals))].read()[300:400, 0] == pytest.approx(1e3 * x[300:400, 0], abs=0.5)
    back = bm.read(write(holed, tmp_path / "manifest", format="manifest"))
    assert np.isnan(back.signals["lfp"].read()[100:200]).all()


def test_odd_labels_and_names(tmp_path):
    rng = np.random.default_rng(0)
    rec = Recording.from_arrays(
        "mäuse 1 & <x>", "ß", "mouse", signals={"lfp": dict(values=rng.normal(size=(8000, 2)), rate=1000.0, unit="uV", kind="lfp", channels=["Ä", "b & <c>"])},
        spikes=Spikes([0.5, 1.0], [3, 3]),
        labels={"empty": EventTable([], []), "é & <b>": EventTable([1.0, 2.0], [1.5, 2.5], score=[np.nan, 1.0], ok=[True, False], who=["a", None]),
                "one": Hypnogram([0, -1, -2, 1], "rodent3", 2.0), "two": Hypnogram([0, 0, 1, 2], "rodent3", 2.0)},
    )  # fmt: skip
    for kind in ("nwb", "edf", "neurosuite", "manifest"):
        back = bm.read(write(rec, tmp_path / kind, format=kind))
        assert back.signals["lfp"].n_samples == 8000
        scored = back.labels.get("scoring", back.labels.get("one"))
        if kind != "neurosuite":  # which has no code for artefacts
            assert scored == rec.labels["one"], kind
    assert any("two" in w for w in rec.warnings)
    assert any("'empty' is empty" in w for w in rec.warnings)
    late = Recording.from_arrays("late", signals={"eeg": dict(values=np.ones((500, 1)), rate=100.0, unit="uV", kind="eeg", start=5.0)})
    write(late, tmp_path, format="edf")
    assert "5 s of the recording" in late.warnings[0]


def test_lost_columns_are_named(tmp_path):
    events = EventTable([1.0, 2.0], [1.5, 2.5], [1.1, 2.1], ["a", ""], "trial", arm=["sham", "light"], assigned=[False, True], gate_time=[np.nan, np.nan])
    lfp = dict(values=np.ones((5000, 1)), rate=1000.0, unit="uV", kind="lfp")
    for kind, lost in (("neurosuite", "content, arm, assigned"), ("edf", "peak, arm, assigned")):
        rec = Recording.from_arrays("m1", signals={"lfp": lfp}, labels={"trials": events, "b c": Intervals([[0.0, 1.0]]), "bc": Intervals([[2.0, 3.0]])})
        back = bm.read(write(rec, tmp_path / kind, format=kind))
        assert any(f"the columns {lost} of trials were left out" in w for w in rec.warnings), rec.warnings
        if kind == "neurosuite":  # labels whose names become one keep their files
            assert [back.labels[k].start.tolist() for k in ("events_bc", "events_bc2")] == [[0.0], [2.0]]
            assert back.labels["events_trials"].peak.tolist() == [1.1, 2.1]
    plain = Recording.from_arrays("m1", signals={"lfp": lfp}, labels={"cue": EventTable([1.0], [2.0], kind="cue")})
    write(plain, tmp_path / "plain", format="neurosuite")
    assert not plain.warnings


def test_a_folder_of_another_format_is_never_deleted(rec, tmp_path):
    for first, second in (("phy", "manifest"), ("manifest", "neurosuite"), ("neurosuite", "phy")):
        path = write(rec, tmp_path / first, format=first)
        before = sorted(p.name for p in path.iterdir())
        for overwrite in (False, True):
            with pytest.raises(OutputExistsError, match=f"holds the files of {first}, which {second} would delete"):
                write(rec, tmp_path / first, format=second, overwrite=overwrite)
        assert sorted(p.name for p in path.iterdir()) == before
    mine = tmp_path / "mine" / rec.id
    mine.mkdir(parents=True)
    (mine / "notes.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="holds other files"):
        write(rec, tmp_path / "mine", format="phy", overwrite=True)
    (tmp_path / "mine" / f"{rec.id}.edf").mkdir()
    with pytest.raises(OutputExistsError, match="is a folder"):
        write(rec, tmp_path / "mine", format="edf", overwrite=True)
    assert (mine / "notes.txt").read_text() == "mine"


def test_what_cannot_be_is_refused_by_name(rec, tmp_path):
    with pytest.raises(InputError, match="edf"):
        write(rec, tmp_path, format="ed")
    with pytest.raises(InputError, match="spikes"):
        write(Recording("m1", labels={"h": Hypnogram([0], "rodent3", 4.0)}), tmp_path, format="phy")
    with pytest.raises(InputError, match="voltages"):
        write(Recording("m1", labels={"e": EventTable([0.0], [1.0])}), tmp_path, format="edf")
    odd = Recording.from_arrays("odd", signals={"lfp": dict(values=np.zeros((100, 1)), rate=np.pi, unit="uV", kind="lfp")})
    with pytest.raises(InputError, match=r"3\.14159"):
        write(odd, tmp_path, format="edf")
    assert not list(tmp_path.iterdir())
    write(rec, tmp_path, format="phy")
    with pytest.raises(OutputExistsError, match="overwrite"):
        write(rec, tmp_path, format="phy")
    write(rec, tmp_path, format="phy", overwrite=True)


@pytest.mark.slow
def test_the_how_to_runs_as_it_stands(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "synth.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"```python\n(.*?)```", page, re.DOTALL))
    # The same calls on little data: short recordings, two animals, this process alone.
    code = re.sub(r"hours=\d+", "hours=0.1", code).replace("    12, ", "    2, ").replace("jobs=4", "jobs=1")
    code = code.replace('["silicon-probe", "neuropixels", "tetrode-drive", "telemetry"]', '["tetrode-drive", "telemetry"]')
    monkeypatch.chdir(tmp_path)
    space: dict[str, object] = {}
    exec(compile(code, "docs/how-to/synth.md", "exec"), space)
    assert len(space["train"]) == len(space["test"]) == 1
    assert space["again"].spikes is not None
    assert space["aligned"].clocks["camera"]["ppm"] == pytest.approx(40, abs=2)
