from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainmu.core import EventTable, Hypnogram, Intervals, Recording, Signal, Spikes
from brainmu.dsp.resample import resample
from brainmu.errors import InputError
from brainmu.store import open, preprocess, verify
from brainmu.store.values import decode, encode, safe_names

SCALARS = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats() | st.text(max_size=5)
NESTED = st.recursive(SCALARS, lambda x: st.lists(x, max_size=3) | st.tuples(x, x) | st.dictionaries(st.text(max_size=3), x, max_size=2), max_leaves=5)
ATTRS = st.dictionaries(st.text(max_size=4), NESTED)
TAKEN = ("start", "stop", "peak", "kind", "content", "attrs", "self")
TIMES = st.floats(-1e6, 1e6)
NAMES = st.text(min_size=1, max_size=6)


def same(a: Any, b: Any) -> bool:
    """Equality in which NaN equals NaN and types count."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b))
    if isinstance(a, float):
        return a == b or (np.isnan(a) and np.isnan(b))
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return bool(a == b)


@st.composite
def event_tables(draw: st.DrawFn) -> EventTable:
    n = draw(st.integers(0, 4))
    rows = lambda of: draw(st.lists(of, min_size=n, max_size=n))  # noqa: E731
    start = np.array(rows(TIMES))
    names = draw(st.sets(st.text(min_size=1, max_size=5).filter(lambda s: s not in TAKEN), max_size=3))
    kinds = st.sampled_from([st.floats(), st.integers(-9, 9), st.booleans(), st.text(max_size=4), SCALARS])
    columns = {name: rows(draw(kinds)) for name in names}
    return EventTable(start, start + np.array(rows(st.floats(0, 10))), content=rows(st.text(max_size=3)), kind="x", attrs=draw(ATTRS), **columns)


@st.composite
def hypnograms(draw: st.DrawFn) -> Hypnogram:
    codes = np.array(draw(st.lists(st.integers(-2, 2), max_size=6)), dtype=np.int8)
    proba = None
    if draw(st.booleans()):
        p = np.array(draw(st.lists(st.tuples(*[st.floats(0.01, 1)] * 3), min_size=len(codes), max_size=len(codes)))).reshape(-1, 3)
        proba = p / p.sum(1, keepdims=True)
    return Hypnogram(codes, "rodent3", draw(st.floats(0.1, 60)), draw(TIMES), proba, draw(st.text(max_size=5)), draw(ATTRS))


@st.composite
def recordings(draw: st.DrawFn) -> Recording:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    signals: dict[str, Any] = {}
    for name in draw(st.lists(NAMES, unique=True, max_size=2)):
        n, c = draw(st.integers(0, 50)), draw(st.integers(1, 3))
        values = rng.standard_normal((n, c)).astype(draw(st.sampled_from([np.float32, np.float64])))
        values[rng.random((n, c)) < 0.1] = np.nan
        signal: dict[str, Any] = {"values": values, "unit": "z", "kind": "other", "attrs": draw(ATTRS)}
        if draw(st.booleans()):
            signal |= {"rate": draw(st.floats(0.001, 1e4)), "start": draw(TIMES)}
        else:
            signal["times"] = np.cumsum(rng.random(n) + 0.01)
        signals[name] = signal
    label = event_tables() | hypnograms() | st.just(Intervals([[0.1, 0.3], [0.3, 1e5]])) | st.just(Intervals())
    return Recording.from_arrays(
        "r",
        draw(st.text(max_size=4)),
        draw(st.sampled_from(["", "mouse"])),
        signals=signals,
        labels=draw(st.dictionaries(NAMES, label, min_size=1, max_size=2)),
        spikes=draw(st.none() | st.just(Spikes([], [])) | st.just(Spikes([0.5, 0.1], [4, 2]))),
        subject_meta=draw(ATTRS),
        zeitgeber=draw(st.none() | st.floats(0, 24)),
        started_at=draw(st.none() | st.datetimes(timezones=st.just(timezone(timedelta(hours=-3))))),
    )


def assert_same_label(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, Intervals):
        assert a == b
        return
    assert same(a.attrs, b.attrs)
    if isinstance(a, EventTable):
        pd.testing.assert_frame_equal(a.to_frame(), b.to_frame())
        assert all(same(list(a.to_frame()[c]), list(b.to_frame()[c])) for c in a.columns)
        return
    assert a == b and a.scorer == b.scorer and same(a.proba, b.proba)


@given(recordings())
@settings(deadline=None, max_examples=10, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_what_goes_in_comes_out(tmp_path_factory: pytest.TempPathFactory, rec: Recording) -> None:
    path = tmp_path_factory.mktemp("stores") / "r.zarr"
    preprocess(rec, path)
    back = open(path)
    assert (back.id, back.subject, back.species, back.started_at, back.zeitgeber) == (rec.id, rec.subject, rec.species, rec.started_at, rec.zeitgeber)
    assert same(back.subject_meta, rec.subject_meta)
    assert list(back.signals) == list(rec.signals) and list(back.labels) == list(rec.labels)
    for name, s in rec.signals.items():
        b = back.signals[name]
        assert (b.rate, b.start, b.unit, b.kind, b.clock) == (s.rate, s.start, s.unit, s.kind, s.clock)
        np.testing.assert_array_equal(b.read(), s.read())
        np.testing.assert_array_equal(b.read_times(), s.read_times())
        pd.testing.assert_frame_equal(b.channels, s.channels)
        assert same(b.attrs, s.attrs)
    for name, label in rec.labels.items():
        assert_same_label(label, back.labels[name])
    if rec.spikes is None:
        assert back.spikes is None
    else:
        assert back.spikes is not None
        np.testing.assert_array_equal(back.spikes.times, rec.spikes.times)
        np.testing.assert_array_equal(back.spikes.unit_id, rec.spikes.unit_id)
        pd.testing.assert_frame_equal(back.spikes.units, rec.spikes.units)
    assert verify(path) == []
    xr.open_datatree(path, engine="zarr").close()  # a warning would be an error


def test_the_whole_recording(tmp_path: Path, recording: Recording) -> None:
    session = preprocess(recording, tmp_path / "a.zarr")
    lfp, emg, position = session.signals["lfp"], session.signals["emg"], session.signals["position"]
    raw = np.asarray(recording.signals["lfp"].values)
    expected, rate = resample(raw, 20000.0, 1250.0)
    assert lfp.rate == rate == 1250.0 and lfp.start == 12.5 and lfp.attrs["resampled_from"] == 20000.0
    np.testing.assert_allclose(lfp.read(), expected * 0.195, rtol=1e-6)
    assert emg.values.dtype == np.int16 and emg.unit == "uV" and emg.scale == pytest.approx(1.0)
    assert np.isnan(emg.read(500, 750)).all() and np.isfinite(emg.read(0, 500)).all() and emg.gaps == Intervals([[0.5, 0.75]])
    np.testing.assert_allclose(position.read(), np.asarray(recording.signals["position"].values, dtype=np.float32) / 100, rtol=1e-6)
    assert position.unit == "m"
    np.testing.assert_array_equal(session.signals["bands"].read(), np.asarray(recording.signals["bands"].values, dtype=np.float32))
    assert session.warnings == [] and session.provenance["schema"] == 1


def test_zarr_and_xarray_see_what_the_session_sees(tmp_path: Path, recording: Recording) -> None:
    path = tmp_path / "a.zarr"
    for compression in ("none", "lz4"):
        session = preprocess(recording, path, overwrite=True, compression=compression, chunk_kib=4, shard_mib=1)
        tree = session.tree
        for name, s in session.signals.items():
            node = tree[f"signals/{name}"]
            np.testing.assert_allclose(node["values"].values, s.read(), rtol=1e-6)
            assert node["values"].dims == ("time", "channel") and list(node["channel"].values) == s.names
            np.testing.assert_array_equal(zarr.open_array(path / "signals" / name / "values", mode="r")[:], s.values[:])
        np.testing.assert_array_equal(tree["spikes/time"].values, session.spikes.times)
        assert list(tree["labels/trials/content"].values) == ["A", ""]
        assert tree.attrs["id"] == "m1_day2"


def test_lfp_rate_none_keeps_the_rate_and_the_int16(tmp_path: Path, recording: Recording) -> None:
    lfp = preprocess(recording, tmp_path / "a.zarr", lfp_rate=None).signals["lfp"]
    assert lfp.rate == 20000.0 and lfp.values.dtype == np.int16
    np.testing.assert_array_equal(lfp.values[:], recording.signals["lfp"].values)


def test_slow_signals_are_not_upsampled_and_other_kinds_never_resampled(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((5000, 1)).astype(np.float32)
    kinds = ["eeg", "features", "position", "speed", "behaviour", "calcium", "photometry", "sync", "other"]
    rates = {k: 200.0 if k == "eeg" else 5000.0 for k in kinds}
    rec = Recording.from_arrays("r", signals={k: {"values": x, "rate": rates[k], "unit": "uV" if k == "eeg" else "m", "kind": k} for k in kinds})
    session = preprocess(rec, tmp_path / "a.zarr")
    for k in kinds:
        assert session.signals[k].rate == rates[k]
        np.testing.assert_array_equal(session.signals[k].read(), x)


def test_a_signal_of_voltages_and_others_is_divided(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((5000, 3)).astype(np.float32)
    channels = pd.DataFrame({"name": ["a", "ttl", "b"], "kind": ["eeg", "sync", "eeg"]})
    session = preprocess(Recording.from_arrays("r", signals={"raw": Signal(x, 5000.0, unit="uV", kind="eeg", channels=channels)}), tmp_path / "a.zarr")
    assert session.signals["raw"].names == ["a", "b"] and session.signals["raw"].rate == 1250.0
    assert session.signals["raw_other"].names == ["ttl"] and session.signals["raw_other"].rate == 5000.0
    assert "keep 5000 Hz and are stored as 'raw_other'" in session.warnings[0]


def test_unknown_units_are_kept_and_flagged(tmp_path: Path) -> None:
    x = np.ones((100, 1))
    x[50:] = 2
    signals = {
        "eeg": {"values": x, "rate": 100.0, "unit": "ADC", "kind": "eeg"},
        "position": {"values": x, "rate": 100.0, "unit": "px", "kind": "position"},
        "dff": {"values": x, "rate": 100.0, "unit": "dF/F", "kind": "calcium"},
    }
    session = preprocess(Recording.from_arrays("r", signals=signals), tmp_path / "a.zarr")
    assert [s.unit for s in session.signals.values()] == ["ADC", "px", "dF/F"]
    assert any("'eeg': unit 'ADC'" in w for w in session.warnings) and any("'position': unit 'px'" in w for w in session.warnings)
    assert not any("dff" in w for w in session.warnings)


def test_a_session_is_a_source_too(tmp_path: Path, recording: Recording) -> None:
    first = preprocess(recording, tmp_path / "a.zarr")
    again = preprocess(first, tmp_path / "b.zarr", lfp_rate=500.0)
    assert again.signals["lfp"].rate == 500.0
    assert_same_label(again.labels["trials"], recording.labels["trials"])


def test_attributes_that_cannot_be_held_are_named(tmp_path: Path) -> None:
    rec = Recording.from_arrays("r", labels={"e": EventTable([1.0], [2.0], attrs={"f": {"inner": object()}})})
    with pytest.raises(InputError, match=r"label 'e' attrs\['f'\]\['inner'\] is a object"):
        preprocess(rec, tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()


def test_values_of_every_sort_survive_json() -> None:
    value = {
        "a": np.arange(3, dtype=np.int16), "b": np.array(["x", None], dtype=object), "c": datetime(2024, 1, 1, tzinfo=UTC), "d": {1: "x", (2, 3): {4}},
        "e": np.float32(1.5), "f": [float("inf"), float("nan")], "__is__": "user", "g": np.array([[np.nan, 1.0]]), "h": np.array(["ab", "c"]),
    }  # fmt: skip
    back = decode(encode(value))
    assert same({k: v for k, v in back.items() if k != "b"}, {k: v for k, v in value.items() if k != "b"})
    assert list(back["b"]) == ["x", None]
    frame = pd.DataFrame({"x": [1, 2], "y": ["a", None], "z": pd.Categorical(["u", "v"])}, index=[5, 7])
    pd.testing.assert_frame_equal(decode(encode(frame)), frame)


@given(st.lists(st.text(max_size=6), unique=True, max_size=8))
def test_safe_names_differ_on_any_file_system(names: list[str]) -> None:
    safe = safe_names(names)
    assert len({s.casefold() for s in safe}) == len(names)
    assert all(s and not s.startswith("__") and "/" not in s and s not in (".", "..") for s in safe)


def test_a_wrong_unit_of_time_is_said(tmp_path: Path) -> None:
    rec = Recording.from_arrays("m1", spikes={"times": [1.0, 4e9], "unit": [0, 1]})
    with pytest.raises(InputError, match=r"m1: lasts 4e\+09 s \(127 years\): check the unit of its times"):
        preprocess(rec, tmp_path / "m1.zarr")
    assert not list(tmp_path.iterdir())


def test_times_far_beyond_the_signals_are_doubted(tmp_path: Path) -> None:
    signals = {"lfp": {"values": np.random.default_rng(0).standard_normal((6000, 2)), "rate": 100.0, "unit": "mV", "kind": "lfp", "start": 3600.0}}
    good = Recording.from_arrays("m1", signals=signals, spikes=Spikes([3610.0, 3700.0], [0, 0]))
    assert preprocess(good, tmp_path / "a.zarr").provenance["warnings"] == []
    samples = Spikes(np.array([3610.0, 3659.0]) * 20_000, [0, 0])
    wrong = Recording.from_arrays("m1", signals=signals, spikes=samples, labels={"ripples": Intervals([[3600e3, 3601e3]])})
    said = "\n".join(preprocess(wrong, tmp_path / "b.zarr").provenance["warnings"])
    assert "spike" in said and "73180000 s" in said and "'ripples'" in said and "signals end at 3660 s" in said


def test_positions_in_px_are_said_once(tmp_path: Path) -> None:
    rec = Recording.from_arrays("m1", signals={"position": {"values": np.ones((60, 2)), "rate": 30.0, "unit": "px", "kind": "position"}})
    assert sum("px" in w for w in preprocess(rec, tmp_path / "a.zarr").provenance["warnings"]) == 1
    rec.warn("positions are in px: pass pixels_per_cm= to have metres")
    assert sum("px" in w for w in preprocess(rec, tmp_path / "b.zarr").provenance["warnings"]) == 1
    derived = preprocess(rec, tmp_path / "c.zarr", derive=["position_smoothed"]).provenance["warnings"]
    assert [w.split(" ")[0] for w in derived if "px" in w] == ["positions", "position_smoothed:"]
