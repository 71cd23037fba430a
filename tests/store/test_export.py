"""Doors out, each against the real library: what went in comes out, on the session's clock."""

from __future__ import annotations

import datetime
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainmu.core import EventTable, Hypnogram, Intervals, Recording, Signal, Spikes
from brainmu.errors import FormatError, InputError, MissingDataError, NotFoundError, OutputExistsError
from brainmu.formats import read, read_all
from brainmu.store import Session, export, preprocess
from brainmu.store.export.choosing import samples

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"


@pytest.fixture(params=["recording", "session"])
def source(request: pytest.FixtureRequest, recording: Recording, tmp_path: Path) -> Recording:
    return recording if request.param == "recording" else preprocess(recording, tmp_path / "a.zarr")


def test_importing_the_doors_imports_no_library() -> None:
    code = (
        "import sys, brainmu.store.session, brainmu.store.export; from brainmu.store.export import to_pynapple, to_torch_brain, to_nwb, to_mne;"
        "print(sorted({'pynapple','mne','temporaldata','pynwb','torch','xarray'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_session_has_the_five_doors(recording: Recording, tmp_path: Path) -> None:
    session = preprocess(recording, tmp_path / "a.zarr")
    assert session.to_nwb(tmp_path / "a.nwb").exists()
    assert session.to_mne(signals="emg").info["sfreq"] == 1000
    assert session.to_xarray()["signals/lfp"].sizes["channel"] == 3
    assert hasattr(Session, "to_pynapple") and hasattr(Session, "to_torch_brain")


# -- NWB ------------------------------------------------------------------------------------------------------------
def same(a: Recording, b: Recording) -> None:
    """`b` is `a`: samples within a float32 step, spikes and labels exact."""
    assert (a.id, a.subject, a.species, a.started_at, a.zeitgeber) == (b.id, b.subject, b.species, b.started_at, b.zeitgeber)
    assert list(a.signals) == list(b.signals) and list(a.labels) == list(b.labels)
    for name, s in a.signals.items():
        t = b.signals[name]
        assert (s.rate, s.start, s.unit, s.kind) == (t.rate, t.start, t.unit, t.kind) and s.gaps == t.gaps
        np.testing.assert_array_equal(s.read_times(), t.read_times())
        np.testing.assert_allclose(t.read(), samples(s), rtol=1e-6, atol=0, equal_nan=True)
        pd.testing.assert_frame_equal(s.channels, t.channels, check_dtype=False)
    assert (a.spikes is None) == (b.spikes is None)
    if a.spikes is not None and b.spikes is not None:
        np.testing.assert_array_equal(a.spikes.times, b.spikes.times)
        for unit in a.spikes.units["id"]:
            np.testing.assert_array_equal(a.spikes.of(unit), b.spikes.of(unit))
        pd.testing.assert_frame_equal(a.spikes.units, b.spikes.units, check_dtype=False)
    for name, label in a.labels.items():
        other = b.labels[name]
        assert type(label) is type(other)
        if isinstance(label, EventTable):
            pd.testing.assert_frame_equal(label.to_frame(), other.to_frame(), check_dtype=False)  # type: ignore[union-attr]
        else:
            assert label == other
        if isinstance(label, Hypnogram) and label.proba is not None:
            np.testing.assert_array_equal(label.proba, other.proba)  # type: ignore[union-attr]


def test_nwb_gives_the_recording_back(source: Recording, tmp_path: Path) -> None:
    import pynwb

    path = export.to_nwb(source, tmp_path / "out.nwb")
    assert pynwb.validate(path=str(path)) == []
    same(source, read(path))
    assert list(tmp_path.glob("*.partial*")) == [] and list(tmp_path.glob(".*")) == []


def test_nwb_says_the_same_to_others(recording: Recording, tmp_path: Path) -> None:
    """What another program finds with pynwb alone: volts, metres, regions, states, gaps, the animal."""
    import pynwb

    recording.subject_meta |= {"sex": "female", "age": "P90D", "genotype": "WT"}
    lfp = recording.signals["lfp"]
    lfp.channels["region"] = ["CA1", "CA1", ""]
    with pynwb.NWBHDF5IO(str(export.to_nwb(recording, tmp_path / "a.nwb")), "r") as io:
        nwb = io.read()
        s = nwb.acquisition["lfp"]
        assert s.data.dtype == np.int16 and s.rate == 20000.0 and s.starting_time == 12.5  # the source's own numbers
        np.testing.assert_allclose(s.data[:100] * s.conversion, lfp.read(0, 100) * 1e-6, rtol=1e-6)
        assert s.electrodes.to_dataframe()["location"].tolist() == ["CA1", "CA1", "unknown"]
        emg = nwb.acquisition["emg"]
        np.testing.assert_allclose(emg.data[:10] * emg.conversion, recording.signals["emg"].read(0, 10) * 1e-3, rtol=1e-6)
        assert np.isnan(emg.data[500:750]).all()
        position = nwb.processing["behavior"]["Position"]["position"]
        np.testing.assert_allclose(position.data[:] * position.conversion, recording.signals["position"].read() / 100, rtol=1e-6)
        assert position.unit == "meters"
        assert nwb.intervals["scoring"]["state"][:].tolist() == ["WAKE", "NREM", "REM", "UNS"]
        assert nwb.trials is nwb.intervals["trials"] if "trials" in nwb.intervals else len(nwb.trials) == 2
        assert nwb.invalid_times["start_time"][:].tolist() == [0.5] and nwb.invalid_times["signal"][0] == "emg"
        assert (nwb.subject.species, nwb.subject.sex, nwb.subject.age) == ("Mus musculus", "F", "P90D")
        assert nwb.units["location"][:].tolist() == list("abcd")
        np.testing.assert_array_equal(nwb.units["spike_times"][0], recording.spikes.of(3))  # type: ignore[union-attr]


@given(data=st.data())
@settings(max_examples=8, deadline=None)
def test_any_recording_survives_nwb(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    draw = data.draw
    n, c = draw(st.integers(1, 40)), draw(st.integers(1, 3))
    dtype = draw(st.sampled_from([np.int16, np.int32, np.float32, np.float64]))
    values = np.asarray(draw(st.lists(st.integers(-32767, 32767), min_size=n * c, max_size=n * c))).reshape(n, c).astype(dtype)
    vector = draw(st.booleans())
    scale = np.linspace(0.1, 0.3, c) if vector else draw(st.sampled_from([1.0, 0.195]))
    rate, start, unit = (draw(st.sampled_from(choices)) for choices in ([0.1, 1 / 30, 1249.96, 30000.0], [-3.25, 0.0, 1e5], ["uV", "V", "px", ""]))
    kind, missing = draw(st.sampled_from(["lfp", "position", "features"])), draw(st.sampled_from([None, -32767]))
    signal = Signal(values, rate, start, unit=unit, kind=kind, scale=scale, missing=missing if dtype is np.int16 else None)
    labels = {
        "sleep/states": Hypnogram.from_stages(["W", "N2", "ART", "R"][: draw(st.integers(0, 4))], 30.0, 15.5, stage_set="aasm5"),
        "trials": EventTable([3.0, 1.0], [3.0, 8.0], tags=["a", ""], start_time=[1, 2], timeseries=[True, False]),
        "none": EventTable([], []),
        "epochs": Intervals([[0, 1], [1, 2]]),
    }
    spikes = draw(st.sampled_from([None, Spikes([], []), Spikes([0.5, 0.5, 2.0], [9, 4, 9], pd.DataFrame({"id": [9, 2, 4], "colnames": ["x", "y", "z"]}))]))
    rec = Recording("night:1", "s", signals={"a:b": signal, "a_b": signal}, labels=labels, spikes=spikes, subject_meta={"cage": 3, "virus": None})
    path = tmp_path_factory.mktemp("nwb") / "x.nwb"
    export.to_nwb(rec, path, compression=None)
    same(rec, read(path))


def test_nwb_is_streamed(tmp_path: Path) -> None:
    class Long:
        shape, dtype = (2_000_000, 16), np.dtype(np.float32)

        def __getitem__(self, key: slice) -> np.ndarray:
            return np.zeros((len(range(*key.indices(self.shape[0]))), 16), dtype=np.float32)

    rec = Recording("long", signals={"lfp": Signal(Long(), 1250.0, unit="uV", kind="lfp")})
    tracemalloc.start()
    export.to_nwb(rec, tmp_path / "long.nwb", compression=None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 110e6 < 2_000_000 * 16 * 4  # of 128 MB


def test_nwb_outputs_are_refused_or_replaced_whole(recording: Recording, tmp_path: Path) -> None:
    path = export.to_nwb(recording, tmp_path / "a.nwb")
    before = path.read_bytes()
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        export.to_nwb(recording, path)
    with pytest.raises(InputError, match=r"expected \.nwb"):
        export.to_nwb(recording, tmp_path / "a.h5")
    with pytest.raises(NotFoundError, match="make it first"):
        export.to_nwb(recording, tmp_path / "absent" / "a.nwb")

    class Broken:
        shape, dtype = (100, 1), np.dtype(np.float32)

        def __getitem__(self, key: slice) -> np.ndarray:
            raise FormatError("the source went away")

    with pytest.raises(FormatError, match="went away"):
        export.to_nwb(Recording("x", signals={"a": Signal(Broken(), 1.0)}), path, overwrite=True)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["a.nwb"]
    assert export.to_nwb(recording, path, overwrite=True, signals=["emg"]) == path and list(read(path).signals) == ["emg"]


# -- MNE ------------------------------------------------------------------------------------------------------------
def test_mne_holds_volts_stages_events_and_gaps(source: Recording) -> None:
    raw = export.to_mne(source, signals="emg")
    emg = source.signals["emg"]
    factor = {"mV": 1e-3, "uV": 1e-6}[emg.unit]
    np.testing.assert_allclose(raw.get_data().T, samples(emg) * factor, rtol=1e-6, equal_nan=True)
    assert raw.get_channel_types() == ["emg"] * 3 and raw.info["sfreq"] == 1000 and raw.ch_names == emg.names
    assert raw.info["meas_date"] == source.started_at and raw.info["subject_info"]["his_id"] == "m1"
    found = {(d, round(o, 6), round(n, 6)) for d, o, n in zip(raw.annotations.description, raw.annotations.onset, raw.annotations.duration)}
    assert {("scoring/WAKE", 0.0, 1.0), ("scoring/REM", 2.0, 1.0), ("BAD_ACQ_SKIP", 0.5, 0.25), ("trials/trial/A", 0.5, 0.5), ("run", 1.0, 1.5)} <= found
    assert any("outside the samples" in w for w in source.warnings)  # the unscored epoch after the end
    # The filter steps over the gap: only the gap itself stays missing.
    filtered = raw.filter(5, 100, picks="emg", verbose="error").get_data()
    assert np.isnan(filtered[:, 500:750]).all() and np.isfinite(filtered[:, :500]).all() and np.isfinite(filtered[:, 750:]).all()


def test_mne_places_signals_of_one_rate_on_one_grid(make: Callable[..., Recording]) -> None:
    x = np.arange(1000.0)[:, None]
    rec = make(
        signals={
            "eeg": {"values": x, "rate": 100.0, "unit": "uV", "kind": "eeg", "channels": ["a"], "start": 10.0},
            "eog": {"values": x, "rate": 100.0, "unit": "a.u.", "kind": "eog", "channels": ["a"], "start": 12.004},
            "pos": {"values": x, "rate": 100.0, "unit": "m", "kind": "position", "channels": ["x"]},
            "slow": {"values": x, "rate": 1.0, "unit": "uV", "kind": "emg"},
        }
    )
    with pytest.raises(InputError, match="several rates"):
        export.to_mne(rec)
    raw = export.to_mne(rec, kinds=["eeg", "eog"])
    assert raw.ch_names == ["eeg:a", "eog:a"] and len(raw.times) == 1200 and "session time 10 s" in raw.info["description"]
    assert raw.info["meas_date"] == rec.started_at + datetime.timedelta(seconds=10)  # type: ignore[operator]
    got = raw.get_data()
    np.testing.assert_allclose(got[0, :1000], x[:, 0] * 1e-6)
    np.testing.assert_array_equal(got[1, 200:], x[:, 0])  # no volts: as it came, and said
    assert any("unscaled" in w for w in rec.warnings) and any("-4000.0 µs" in w for w in rec.warnings)
    assert export.to_mne(rec, signals=["pos"]).get_channel_types() == ["misc"]
    with pytest.raises(MissingDataError, match="no samples of kind ecg"):
        export.to_mne(rec, kinds=["ecg"])
    with pytest.raises(InputError, match="irregularly"):
        export.to_mne(make(), signals=["position"])


# -- xarray ---------------------------------------------------------------------------------------------------------
def test_xarray_reads_when_asked_and_knows_the_time(source: Recording) -> None:
    tree = export.to_xarray(source)
    for name, s in source.signals.items():
        values = tree[f"signals/{name}"]["values"]
        np.testing.assert_allclose(values["time"].values, s.read_times(), rtol=1e-15)
        np.testing.assert_array_equal(values.values, samples(s))
        assert values.attrs["units"] == s.unit and values["channel"].values.tolist() == s.names
    lfp, s = tree["signals/lfp"]["values"], source.signals["lfp"]
    part = lfp.sel(time=slice(12.75, 13.0))
    i, j = s.index(12.75), s.index(13.0)
    np.testing.assert_array_equal(part.values, s.read(i, j + 1))  # both ends, as in pandas
    np.testing.assert_array_equal(lfp.sel(time=slice(12.75, 13.0), channel="CA1_1").values, part.values[:, 0])
    np.testing.assert_array_equal(lfp.sel(time=13.0).values, s.read()[s.index(13.0)])
    np.testing.assert_array_equal(lfp.sel(time=13.0001, method="nearest").values, s.read()[s.index(13.0001 - 0.5 / s.rate)])  # type: ignore[operator]
    for wrong in (13.0001231, 1.0, 15.5):
        with pytest.raises(KeyError, match="is not the time of a sample"):
            lfp.sel(time=wrong)
    np.testing.assert_array_equal(part.sel(time=slice(12.8, 12.9)).values, s.read(s.index(12.8), s.index(12.9) + 1))
    np.testing.assert_array_equal(lfp.isel(time=slice(100, 10, -7), channel=[2, 0]).values, samples(s)[100:10:-7][:, [2, 0]])
    np.testing.assert_array_equal(lfp.isel(time=-1).values, samples(s)[-1])
    np.testing.assert_array_equal(lfp.isel(time=[5, 2, 900]).values, samples(s)[[5, 2, 900]])
    np.testing.assert_array_equal(lfp.sel(channel="CA1_2").values, samples(s)[:, 1])
    assert tree["labels/scoring"]["stage"].values.tolist() == source.hypnogram().stages_list()
    assert tree["labels/trials"]["assigned"].values.tolist() == [True, False]
    spikes = tree["spikes"]
    np.testing.assert_array_equal(spikes["time"].values, source.spikes.times)  # type: ignore[union-attr]
    assert spikes["unit_region"].sel(unit=1).item() == "c"


def test_xarray_stays_lazy() -> None:
    reads: list[slice] = []

    class Watched:
        shape, dtype = (10**9, 2), np.dtype(np.float32)

        def __getitem__(self, key: slice) -> np.ndarray:
            reads.append(key)
            return np.zeros((len(range(*key.indices(self.shape[0]))), 2), dtype=np.float32)

    tree = export.to_xarray(Recording("long", signals={"lfp": Signal(Watched(), 1250.0, unit="uV", kind="lfp")}))
    window = tree["signals/lfp"]["values"].sel(time=slice(600, 601))
    assert reads == [] and window.shape == (1251, 2)
    assert window.mean().item() == 0 and reads == [slice(750000, 751251, None)]


# -- pynapple -------------------------------------------------------------------------------------------------------
def test_pynapple_holds_everything_on_the_session_clock(source: Recording) -> None:
    nap = pytest.importorskip("pynapple", reason="pynapple (extra interop) is not installed")
    data = export.to_pynapple(source)
    assert {k: type(v).__name__ for k, v in data.items()} == {
        "lfp": "TsdFrame", "emg": "TsdFrame", "position": "TsdFrame", "bands": "TsdFrame", "spikes": "TsGroup", "scoring": "IntervalSet",
        "trials": "IntervalSet", "run": "IntervalSet",
    }  # fmt: skip
    for name, s in source.signals.items():
        keep = np.isfinite(samples(s)).all(axis=1)
        np.testing.assert_allclose(data[name].t, s.read_times()[keep], atol=1e-9)
        np.testing.assert_array_equal(data[name].values, samples(s)[keep])
        assert data[name].columns.tolist() == s.names and data[name].metadata["kind"].tolist() == s.channels["kind"].tolist()
    np.testing.assert_allclose(data["emg"].time_support.values, [[0, 0.5], [0.75, 3.0]])
    spikes = source.spikes
    assert spikes is not None and data["spikes"].index.tolist() == [0, 1, 2, 3] and data["spikes"]["region"].tolist() == list("bcda")
    for unit in range(4):
        np.testing.assert_allclose(data["spikes"][unit].t, spikes.of(unit), atol=1e-9)
    scoring = data["scoring"]
    assert scoring["state"].tolist() == ["WAKE", "NREM", "REM", "UNS"]
    np.testing.assert_allclose(scoring.values, [[0, 1], [1, 2], [2, 3], [3, 4]], atol=1.1e-6)
    assert data["trials"]["content"].tolist() == ["", "A"] and data["trials"]["assigned"].tolist() == [False, True]
    nrem = data["lfp"].restrict(nap.IntervalSet(13, 14))
    np.testing.assert_array_equal(nrem.values, source.signals["lfp"].read()[source.signals["lfp"].index(13) : source.signals["lfp"].index(14) + 1])


def test_overlapping_events_refuse_to_become_an_interval_set(make: Callable[..., Recording]) -> None:
    nap = pytest.importorskip("pynapple", reason="pynapple (extra interop) is not installed")
    rec = make(signals={}, labels={"ripples": EventTable([0.0, 5.0, 0.5, 0.7], [1.0, 6.0, 0.6, 2.0], kind="ripple"), "ttl": EventTable([1.0, 0.5], [1.0, 0.5])})
    with pytest.raises(InputError, match=r"'ripples' cannot become a pynapple IntervalSet: 2 of 4 events overlap .* table.merge\(\)"):
        export.to_pynapple(rec)
    data = export.to_pynapple(rec, events="skip")
    assert "ripples" not in data and any("'ripples' was left out" in w for w in rec.warnings)
    assert isinstance(data["ttl"], nap.Ts) and data["ttl"].t.tolist() == [0.5, 1.0]
    rec.labels["ripples"] = rec.events("ripples").merge()
    assert len(export.to_pynapple(rec)["ripples"]) == 2
    rec.labels["mixed"] = EventTable([0.0, 2.0], [1.0, 2.0])
    with pytest.raises(InputError, match="1 of 2 events have no duration"):
        export.to_pynapple(rec)
    with pytest.raises(InputError, match="expected 'refuse' or 'skip'"):
        export.to_pynapple(rec, events="drop")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="'lfp' names two parts"):
        export.to_pynapple(make(labels={"lfp": Intervals([[0, 1]])}))
    with pytest.raises(MissingDataError, match="has no signal 'lpf'"):
        export.to_pynapple(make(), signals="lpf")


@pytest.fixture
def odd() -> Recording:
    """Names and columns that other libraries keep for themselves, or cannot hold."""
    return Recording(
        "odd",
        signals={
            "a/b µ": Signal(np.zeros((50, 2)), 10.0, unit="µV", kind="lfp", channels=pd.DataFrame({"name": ["x", "y"], "x": [1.0, np.nan], "time": [0, 1]})),
            "none": Signal(np.zeros((0, 1)), 10.0),
        },
        spikes=Spikes([1.0, 2.0], [5, 3], pd.DataFrame({"id": [5, 3], "rate": [1.0, 2.0], "time": ["é", "b"], "0": [1, 2]})),
        labels={
            "e/x": EventTable([1.0, 2.0], [1.5, 2.5], **{"end": [1, 2], "c/d": ["a", "b"], "mixed": np.array([None, "b"], dtype=object), "timekeys": [0, 1]})
        },
    )


def test_odd_names_pass_every_door(odd: Recording, tmp_path: Path) -> None:
    import pynwb

    path = export.to_nwb(odd, tmp_path / "odd.nwb")
    assert pynwb.validate(path=str(path)) == [] and list(read(path).signals) == ["a/b µ"]
    assert read(path).events().mixed.tolist() == ["nan", "b"] and any("'e/x': mixed hold more" in w for w in odd.warnings)
    tree = export.to_xarray(odd)
    assert tree["signals/a_b µ"]["time_"].values.tolist() == [0, 1] and tree["labels/e_x"]["c_d"].values.tolist() == ["a", "b"]
    assert tree["spikes"]["unit_time"].values.tolist() == ["é", "b"] and tree["spikes"]["time"].values.tolist() == [1.0, 2.0]
    assert export.to_mne(odd).ch_names == ["x", "y"]


def test_odd_names_in_pynapple(odd: Recording) -> None:
    pytest.importorskip("pynapple", reason="pynapple (extra interop) is not installed")
    data = export.to_pynapple(odd)
    assert data["a/b µ"].metadata["x_"].tolist()[0] == 1.0 and data["spikes"]["rate_"].tolist() == [2.0, 1.0] and data["e/x"]["c_d"].tolist() == ["a", "b"]


def test_odd_names_in_torch_brain(odd: Recording) -> None:
    pytest.importorskip("temporaldata", reason="torch-brain (extra interop) is not installed")
    data = export.to_torch_brain(odd)
    assert data.e_x.end_.tolist() == [1, 2] and data.e_x.timekeys_.tolist() == [0, 1] and data.a_b_µ.values.shape == (50, 2)
    assert any("cannot save" in w for w in odd.warnings)


def test_without_the_library_the_fix_is_named(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynapple", None)
    with pytest.raises(MissingDataError, match=r"pip install brainmu\[interop\]"):
        export.to_pynapple(recording)


# -- torch_brain ----------------------------------------------------------------------------------------------------
def test_torch_brain_saves_and_reads_it_again(source: Recording, tmp_path: Path) -> None:
    temporaldata = pytest.importorskip("temporaldata", reason="torch-brain (extra interop) is not installed")
    export.to_torch_brain(source).save(tmp_path / "a.h5")
    with temporaldata.Data.load(tmp_path / "a.h5") as data:
        assert (data.session.id, data.subject.id, data.subject.species) == ("m1_day2", "m1", "mouse")
        assert (data.domain.start[0], data.domain.end[0]) == (source.start, source.stop)
        for name, s in source.signals.items():
            part = getattr(data, name)
            np.testing.assert_array_equal(part.values, samples(s))
            np.testing.assert_allclose(part.timestamps, s.read_times(), atol=1e-9)
        spikes = source.spikes
        assert spikes is not None
        np.testing.assert_array_equal(data.spikes.timestamps, spikes.times)
        np.testing.assert_array_equal(data.units.id[data.spikes.unit_index], spikes.unit_id)
        assert data.scoring.state.tolist() == source.hypnogram().stages_list() and data.trials.assigned.tolist() == [False, True]
        np.testing.assert_array_equal(data.emg_gaps.start, [0.5])
    with temporaldata.Data.load(tmp_path / "a.h5") as data:
        window = data.slice(13.0, 13.5, reset_origin=False)
        expected = source.window(13.0, 13.5)
        np.testing.assert_array_equal(window.lfp.values, expected.signals["lfp"])
        np.testing.assert_array_equal(window.spikes.timestamps, expected.spike_times)


def test_torch_brain_names_that_collide_are_refused(make: Callable[..., Recording]) -> None:
    pytest.importorskip("temporaldata", reason="torch-brain (extra interop) is not installed")
    with pytest.raises(InputError, match="'session' in torch_brain"):
        export.to_torch_brain(make(labels={"session": Intervals([[0, 1]])}))


# -- real recordings ------------------------------------------------------------------------------------------------
REAL = {
    "rat-linear-track": {}, "mouse-hd-neurosuite": {}, "nwb/A8604-211122.nwb": {}, "mouse-eeg-emg": {"manifest": PIPELINES / "mouse_eeg_emg/brainmu.yaml"},
    "human-dreams-spindles": {"manifest": PIPELINES / "dreams_spindles/brainmu.yaml"}, "rat-hpc-units": {"manifest": PIPELINES / "rat_hpc_units/brainmu.yaml"},
}  # fmt: skip


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_real_recordings_survive_nwb(name: str, real_data: Path, tmp_path: Path) -> None:
    import pynwb

    for recording in read_all(real_data / name, **REAL[name]):
        path = export.to_nwb(recording, tmp_path / f"{recording.id}.nwb", compression=None)
        assert pynwb.validate(path=str(path)) == []
        same(recording, read(path))


@pytest.mark.realdata
def test_real_overlapping_events_are_refused(real_data: Path) -> None:
    pytest.importorskip("pynapple", reason="pynapple (extra interop) is not installed")
    recording = read(next((real_data / "nwb").glob("sub-4*.nwb")))
    with pytest.raises(InputError, match="3 of 180 events overlap an earlier one"):
        export.to_pynapple(recording)
