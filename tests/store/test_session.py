from __future__ import annotations

import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainmu.core import Intervals, Recording, Signal
from brainmu.errors import ConfigError, FormatError, InputError, NotFoundError, UsageError
from brainmu.store import PreprocessConfig, Session, arrays, format_plan, open, plan, preprocess, preprocess_many
from brainmu.store.writer import resolve_config


@pytest.fixture(params=["none", "lz4"])
def session(request: pytest.FixtureRequest, tmp_path: Path, recording: Recording) -> Session:
    return preprocess(recording, tmp_path / "a.zarr", compression=request.param, chunk_kib=2, shard_mib=1)


def test_windows_hold_what_the_signals_hold(session: Session) -> None:
    plain = Recording("x", signals={k: Signal(s.read(), s.rate, s.start, s.times, s.unit, s.kind) for k, s in session.signals.items()}, spikes=session.spikes)
    for start, stop in ((12.5, 13.5), (0.0, 3.0), (13.0001, 13.0002), (-5.0, 500.0), (600.0, 700.0), (14.123, 15.4)):
        a, b = session.window(start, stop), plain.window(start, stop)
        for name in session.signals:
            np.testing.assert_array_equal(a.signals[name], b.signals[name])
            np.testing.assert_array_equal(a.times[name], b.times[name])
            assert a.signals[name].dtype == np.float32 and a.signals[name].flags.writeable
        np.testing.assert_array_equal(a.spike_times, b.spike_times)
    with pytest.raises(InputError, match="expected start < stop"):
        session.window(2.0, 2.0)


@given(st.floats(-10, 60) | st.sampled_from([np.inf, -np.inf]))
@settings(max_examples=40, deadline=None)
def test_index_equals_that_of_a_plain_signal(time: float) -> None:
    from brainmu.store.session import StoredSignal

    for rate, start in ((1250.0, 12.5), (1 / 30, 0.0), (24414.0625 / 3, -2.0)):
        values = np.zeros((500, 1))
        assert StoredSignal(values, rate, start).index(time) == Signal(values, rate, start).index(time)
    times = np.array([0.0, 1.5, 7.25])
    assert StoredSignal(values[:3], times=times).index(time) == Signal(values[:3], times=times).index(time)


def test_reading_by_any_index(session: Session) -> None:
    values = session.signals["lfp"].values
    whole = values[:]
    n = len(whole)
    rng = np.random.default_rng(0)
    for key in (
        5, -1, slice(3, 900), slice(None, None, -3), slice(10, 2, -1), slice(-20, None), (slice(0, 700), 1), (slice(5, 9), [0, 2]), slice(7, 7),
        rng.integers(0, n, 20), rng.random(n) < 0.1, (3, slice(0, 2)),
    ):  # fmt: skip
        np.testing.assert_array_equal(values[key], whole[key])
    with pytest.raises(IndexError):
        values[n]
    s = session.signals["lfp"]
    np.testing.assert_array_equal(s.read(n - 3), s.read()[-3:])
    np.testing.assert_array_equal(s.read(5, 10**9), s.read()[5:])
    assert s.read(4, 4).shape == (0, 3)
    np.testing.assert_array_equal(s.pick(["CA1_3"]).read(10, 20), s.read(10, 20)[:, 2:])


def test_few_files_stay_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "MAX_MAPS", 2)
    x = np.random.default_rng(0).standard_normal((700_000, 2)).astype(np.float32)
    s = preprocess(Recording.from_arrays("r", signals={"a": {"values": x, "rate": 10.0}}), tmp_path / "a.zarr", chunk_kib=64, shard_mib=1).signals["a"]
    np.testing.assert_array_equal(s.read(), x)
    assert len(s.values._shards) <= 2


def test_the_cache_of_decoded_chunks_stays_within_its_limit(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((700_000, 2)).astype(np.float32)
    preprocess(Recording.from_arrays("r", signals={"a": {"values": x, "rate": 10.0}}), tmp_path / "a.zarr", compression="lz4", chunk_kib=64)
    session = open(tmp_path / "a.zarr", cache_mib=1)
    np.testing.assert_array_equal(session.signals["a"].read(), x)
    assert 0 < session._cache.size <= 1 << 20


def test_a_session_crosses_to_another_process_by_its_path(session: Session) -> None:
    there = pickle.loads(pickle.dumps(session))
    np.testing.assert_array_equal(there.signals["lfp"].read(0, 50), session.signals["lfp"].read(0, 50))


def test_opening_needs_neither_zarr_nor_xarray_nor_scipy(session: Session) -> None:
    code = f"""
import sys
from brainmu.store import open
open({str(session.path)!r}).window(12.5, 13.0)
print([m for m in ("zarr", "xarray", "scipy", "torch", "mne") if m in sys.modules])
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_quality_marks_faults_and_changes_nothing(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((40000, 4)) * 300).astype(np.int16)
    x[10000:12000, 0] = 11
    x[:, 1] = 0
    x[[5, 6, 7, 8], 2] = 32767
    x[9, 3] = -32768
    rec = Recording.from_arrays("r", signals={"lfp": {"values": x, "rate": 1000.0, "unit": "uV", "kind": "lfp", "start": 100.0, "channels": list("abcd")}})
    session = preprocess(rec, tmp_path / "a.zarr")
    expected = x.copy()
    expected[9, 3] = -32767
    np.testing.assert_array_equal(session.signals["lfp"].values[:], expected)
    spans = session.quality("lfp")
    assert spans.values.tolist() == [
        ["flat", "a", 110.0, 112.0], ["flat", "b", 100.0, 140.0], ["saturated", "c", 100.005, 100.009],
        ["artefact", "c", 100.0, 101.0], ["artefact", "d", 100.0, 101.0],
    ]  # fmt: skip
    channels = session.channel_quality("lfp")
    assert channels["dead"].tolist() == [False, True, False, False] and channels["flat"].tolist() == [0.05, 1.0, 0.0, 0.0]
    assert channels["deviation"].iloc[0] == pytest.approx(300, rel=0.05)
    said = " ".join(session.warnings)
    assert "1 dead channel (one value or none throughout): b" in said and "1 channel flat for more than 1 % of the time: a" in said
    assert "1 samples at -32768 are stored as -32767" in said
    with pytest.raises(NotFoundError, match="has no signal 'eeg', it has lfp"):
        session.quality("eeg")


def test_what_every_channel_misses_becomes_a_gap(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((4000, 2))
    x[1000:1500] = np.nan
    x[1400:1700, 1] = np.nan
    session = preprocess(Recording.from_arrays("r", signals={"lfp": {"values": x, "rate": 1000.0, "unit": "uV", "kind": "lfp"}}), tmp_path / "a.zarr")
    assert session.signals["lfp"].gaps == Intervals([[1.0, 1.5]])
    assert ["missing", "lfp_1", 1.0, 1.7] in session.quality("lfp").values.tolist()


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.uint8, np.uint16, np.int32, np.float16, np.float64, ">i2", ">f4"])
@pytest.mark.parametrize("rate", [1000.0, 5000.0])
def test_every_type_of_number(tmp_path: Path, dtype: str, rate: float) -> None:
    x = (np.random.default_rng(0).random((6000, 2)) * 100).astype(dtype)
    session = preprocess(Recording.from_arrays("r", signals={"lfp": {"values": x, "rate": rate, "unit": "uV", "kind": "lfp"}}), tmp_path / "a.zarr")
    s = session.signals["lfp"]
    assert s.rate == min(rate, 1250.0) and np.isfinite(s.read()).all()
    if rate == 1000.0:
        np.testing.assert_array_equal(s.read(), x.astype(np.float32))


def test_missing_marks_of_integers(tmp_path: Path) -> None:
    x = (np.random.default_rng(0).standard_normal((20000, 2)) * 100).astype(np.int16)
    x[4000:9000, 1] = 999
    for rate in (1000.0, 10000.0):
        rec = Recording.from_arrays("r", signals={"lfp": {"values": x, "rate": rate, "unit": "uV", "kind": "lfp", "missing": 999}})
        y = preprocess(rec, tmp_path / f"{rate}.zarr").signals["lfp"].read()
        share = np.isnan(y).mean(axis=0)
        assert share[0] == 0 and share[1] == pytest.approx(0.25, abs=0.002)


def test_scales_that_differ_by_channel(tmp_path: Path) -> None:
    x = np.arange(2000, dtype=np.int16).reshape(-1, 2)
    rec = Recording.from_arrays("r", signals={"lfp": {"values": x, "rate": 1000.0, "unit": "mV", "kind": "lfp", "scale": np.array([0.5, 2.0])}})
    s = preprocess(rec, tmp_path / "a.zarr").signals["lfp"]
    np.testing.assert_array_equal(s.read(), x * np.float32([500, 2000]))


def test_a_source_shorter_than_it_says(tmp_path: Path) -> None:
    class Truncated:
        shape, dtype = (1000, 2), np.dtype(np.float32)

        def __getitem__(self, key: slice) -> np.ndarray:
            return np.zeros((max(0, min(key.stop, 500) - key.start), 2), dtype=np.float32)

    with pytest.raises(FormatError, match="the source is truncated"):
        preprocess(Recording.from_arrays("r", signals={"a": {"values": Truncated(), "rate": 10.0}}, source={"files": []}), tmp_path / "a.zarr")


def test_nothing_to_store(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no signals, spikes or labels"):
        preprocess(Recording("empty"), tmp_path / "a.zarr")
    with pytest.raises(InputError, match="expected a Recording or a path"):
        preprocess(42, tmp_path / "a.zarr")  # type: ignore[arg-type]


def test_configuration(tmp_path: Path, recording: Recording) -> None:
    assert resolve_config("preprocess/default", "config", {}) == PreprocessConfig()
    assert resolve_config("preprocess/compact", "config", {}).compression == "lz4"
    assert resolve_config("preprocess/default", None, {}).lfp_rate is None
    assert resolve_config({"lfp_rate": 500.0}, "config", {}).lfp_rate == 500.0
    for options, message in (
        ({"lfp_rat": 5.0}, "unknown key 'lfp_rat': did you mean 'lfp_rate'"),
        ({"compression": "gzip"}, "expected one of none, lz4"),
        ({"lfp_rate": -1.0}, "expected a positive number of Hz"),
        ({"lfp_rate": "fast"}, "expected a number of Hz or None"),
        ({"flat": 0.0}, "expected a positive number"),
        ({"chunk_kib": 0}, "expected a chunk of 1 KiB"),
    ):
        with pytest.raises(ConfigError, match=message):
            preprocess(recording, tmp_path / "a.zarr", **options)


def test_plan_says_what_preprocess_does(tmp_path: Path, recording: Recording) -> None:
    planned = plan(recording)
    session = preprocess(recording, tmp_path / "a.zarr")
    for s in planned["signals"]:
        stored = session.signals[s["name"]]
        assert (s["to"]["rate"], s["to"]["samples"], s["to"]["unit"], s["to"]["dtype"]) == (
            stored.rate,
            stored.n_samples,
            stored.unit,
            str(stored.values.dtype),
        )
    text = format_plan(planned)
    assert "lfp: 3 x lfp, 20000 Hz -> 1250 Hz, int16 -> float32" in text and "position: 2 x position, irregular kept" in text


@pytest.mark.parametrize("jobs", [1, 2])
def test_one_bad_source_does_not_stop_the_others(tmp_path: Path, make: Callable[..., Recording], jobs: int) -> None:
    (tmp_path / "bad.edf").write_bytes(b"not an edf")
    sources = [make(0, id="a"), tmp_path / "bad.edf", Recording("empty"), make(1, id="b")]
    out = preprocess_many(sources, tmp_path / "stores", jobs=jobs)
    assert [(o.id, o.path is not None, o.error is not None) for o in out] == [
        ("a", True, False), ("", False, True), ("empty", False, True), ("b", True, False),
    ]  # fmt: skip
    assert out[0].session.id == "a" and not out[0].already_complete
    alone = preprocess(make(1, id="b"), tmp_path / "alone.zarr")
    assert (alone.path / ".sha256").read_bytes() == (tmp_path / "stores" / "b.zarr" / ".sha256").read_bytes()
    assert preprocess_many(sources, tmp_path / "stores")[3].already_complete
    with pytest.raises(FormatError):
        _ = out[1].session


def test_two_recordings_of_one_name_are_refused(tmp_path: Path, make: Callable[..., Recording]) -> None:
    with pytest.raises(UsageError, match="two sources have the id 'm1_day2'"):
        preprocess_many([make(0), make(1)], tmp_path)


@pytest.mark.realdata
def test_real_recordings_become_stores(tmp_path: Path, real_data: Path) -> None:
    from brainmu.store import verify

    outcomes = preprocess_many([real_data / "rat-linear-track", real_data / "mouse-hd-neurosuite", real_data / "mouse-ieeg"], tmp_path)
    assert len(outcomes) == 4 and all(o.error is None for o in outcomes)
    for outcome in outcomes:
        assert verify(outcome.session.path) == []
        assert str(real_data).encode() not in (outcome.session.path / "zarr.json").read_bytes()
