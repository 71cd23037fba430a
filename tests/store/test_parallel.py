"""Shards made by other processes: the same bytes, whatever happens to those processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import psutil
import pytest

from brainmu.core import Intervals, Recording
from brainmu.errors import BrainmuError, FormatError, InputError, StoreError
from brainmu.store import payload, preprocess, preprocess_many, verify

SMALL = {"chunk_kib": 16, "shard_mib": 1}
# The lazy arrays below are sent to processes that cannot import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def tree_bytes(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def many_streams(seed: int = 0, **about: Any) -> Recording:
    """int16 and float, resampled and kept, regular and not, of several shards each."""
    rng = np.random.default_rng(seed)
    x = (rng.standard_normal((400_000, 4)) * 300).astype(np.int16)
    x[5000:9000, 1] = 7
    x[100, 2] = -32768
    f = x.astype(np.float32) / 10
    f[20_000:20_500] = np.nan
    signals = {
        "kept16": {"values": x, "rate": 1000.0, "unit": "uV", "kind": "lfp", "scale": 0.195, "gaps": Intervals([[3.0, 4.5]])},
        "resampled16": {"values": x, "rate": 2000.0, "unit": "mV", "kind": "eeg", "scale": 0.001, "missing": -5},
        "kept32": {"values": f, "rate": 500.0, "unit": "uV", "kind": "eeg"},
        "resampled32": {"values": f[:, :2], "rate": 1999.7, "unit": "uV", "kind": "emg"},
        "irregular": {"values": rng.random((50_000, 3)), "times": np.cumsum(rng.random(50_000) + 0.01), "unit": "cm", "kind": "position"},
        "none": {"values": np.empty((0, 2), np.float32), "rate": 10.0, "kind": "features"},
    }
    return Recording.from_arrays(**({"id": "r", "signals": signals, "spikes": {"times": np.sort(rng.random(900)), "unit": rng.integers(0, 3, 900)}} | about))


@pytest.mark.parametrize("compression", ["none", pytest.param("lz4", marks=pytest.mark.slow)])
def test_the_bytes_of_the_serial_run(tmp_path: Path, compression: str) -> None:
    rec = many_streams()
    said: list[float] = []
    alone = preprocess(rec, tmp_path / "alone.zarr", compression=compression, **SMALL)
    together = preprocess(rec, tmp_path / "together.zarr", compression=compression, jobs=2, progress=lambda label, f: said.append(f), **SMALL)
    assert len(list(alone.path.rglob("values/c/*/0"))) >= 10
    assert tree_bytes(alone.path) == tree_bytes(together.path)
    assert said == sorted(said) and said[-1] == 1.0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alone.zarr", "together.zarr"]


@pytest.mark.realdata
@pytest.mark.slow
@pytest.mark.parametrize("name", ["nwb", "mouse-hd-neurosuite", "mouse-ieeg", "rat-linear-track"])
def test_real_recordings(tmp_path: Path, real_data: Path, name: str) -> None:
    from brainmu.formats import read_all

    manifest = Path(__file__).parents[2] / "pipelines" / name.replace("-", "_") / "brainmu.yaml"
    recordings = read_all(real_data / name, **({"manifest": manifest} if manifest.exists() else {}))[:2]
    alone = preprocess_many(recordings, tmp_path / "alone", **SMALL)
    together = preprocess_many(recordings, tmp_path / "together", jobs=2, **SMALL)
    assert [o.error for o in alone] == [o.error for o in together] == [None] * len(recordings)
    assert tree_bytes(tmp_path / "alone") == tree_bytes(tmp_path / "together")


@pytest.mark.slow
def test_many_recordings_share_the_processes(tmp_path: Path, make: Callable[..., Recording]) -> None:
    recordings = [make(k, id=f"r{k}") for k in range(3)] + [Recording("empty")]
    said: list[tuple[str, float]] = []
    together = preprocess_many(recordings, tmp_path / "together", jobs=2, progress=lambda label, f: said.append((label, f)))
    alone = preprocess_many(recordings, tmp_path / "alone")
    assert [o.error is None for o in together] == [o.error is None for o in alone] == [True, True, True, False]
    assert tree_bytes(tmp_path / "together") == tree_bytes(tmp_path / "alone")
    assert {label.partition(":")[0] for label, _ in said} >= {"r0", "r1", "r2"}
    again = preprocess_many(recordings, tmp_path / "together", jobs=2)
    assert [o.already_complete for o in again] == [True, True, True, False]


def our_processes() -> list[psutil.Process]:
    """Those that this process started to make shards, and that still run."""
    return [p for p in psutil.Process().children() if any("brainmu.store.parallel" in word for word in p.cmdline())]


# -- processes that die, fail or are given up -------------------------------------------------------------------------------
class Deadly:
    """Samples whose reading kills the process, a number of times, wherever that is not the one that made them."""

    def __init__(self, values: np.ndarray, counter: Path, times: int, at: int) -> None:
        self.values, self.counter, self.times, self.at, self.home = values, counter, times, at, os.getpid()
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        if os.getpid() != self.home and key.start <= self.at < key.stop:
            with self.counter.open("a") as f:
                f.write("x")
            if self.counter.stat().st_size <= self.times:
                os.kill(os.getpid(), signal.SIGKILL)
        return self.values[key]


def deadly(tmp_path: Path, times: int) -> tuple[Recording, Recording]:
    x = (np.random.default_rng(0).standard_normal((600_000, 4)) * 300).astype(np.int16)
    about = {"rate": 1000.0, "unit": "uV", "kind": "lfp"}
    lazy = Recording.from_arrays("r", signals={"lfp": {"values": Deadly(x, tmp_path / "counter", times, 300_000), **about}})
    return lazy, Recording.from_arrays("r", signals={"lfp": {"values": x, **about}})


@pytest.mark.slow
def test_a_process_that_is_killed_is_replaced(tmp_path: Path) -> None:
    lazy, plain = deadly(tmp_path, times=2)
    session = preprocess(lazy, tmp_path / "a.zarr", jobs=2, **SMALL)
    assert (tmp_path / "counter").stat().st_size == 3
    assert tree_bytes(session.path) == tree_bytes(preprocess(plain, tmp_path / "b.zarr", **SMALL).path)


@pytest.mark.slow
def test_a_shard_that_kills_every_process_is_named(tmp_path: Path) -> None:
    lazy, plain = deadly(tmp_path, times=99)
    with pytest.raises(StoreError, match=r"signals/lfp/values: the process that makes shard 2 ended 3 times \(killed by SIGKILL; .*\): free memory") as caught:
        preprocess(lazy, tmp_path / "a.zarr", jobs=2, **SMALL)
    assert "\n" not in str(caught.value) and (tmp_path / "counter").stat().st_size == 3
    assert not our_processes()
    assert verify(preprocess(plain, tmp_path / "a.zarr", **SMALL).path) == []  # goes on with what was made


class Damaged:
    """Samples that cannot be read from some sample on."""

    def __init__(self, error: type[Exception], *said: str) -> None:
        self.error, self.said, self.shape, self.dtype, self.home = error, said, (600_000, 4), np.dtype("int16"), os.getpid()

    def __getitem__(self, key: Any) -> np.ndarray:
        if key.stop > 400_000 and os.getpid() != self.home:
            raise self.error(*self.said)
        return np.zeros((key.stop - key.start, 4), np.int16)


class TwoArguments(Exception):
    def __init__(self, a: str, b: str) -> None:
        super().__init__(f"{a} {b}")


@pytest.mark.parametrize(
    ("error", "said", "kind", "text"),
    [
        (FormatError, ["a.dat: is damaged"], FormatError, "a.dat: is damaged"),
        pytest.param(ZeroDivisionError, ["at 3"], ZeroDivisionError, "at 3", marks=pytest.mark.slow),
        pytest.param(TwoArguments, ["un", "sendable"], RuntimeError, "TwoArguments: un sendable", marks=pytest.mark.slow),
    ],
)
def test_an_error_in_a_process_arrives_as_it_is(tmp_path: Path, error: type[Exception], said: list[str], kind: type[Exception], text: str) -> None:
    rec = Recording.from_arrays("r", signals={"lfp": {"values": Damaged(error, *said), "rate": 1000.0, "unit": "uV", "kind": "lfp"}})
    with pytest.raises(kind) as caught:
        preprocess(rec, tmp_path / "a.zarr", jobs=2, **SMALL)
    assert type(caught.value) is kind and str(caught.value) == text and "in __getitem__" in "".join(caught.value.__notes__)
    assert not (tmp_path / "a.zarr").exists() and not our_processes()


def test_what_cannot_be_sent(tmp_path: Path) -> None:
    values = Damaged(FormatError)
    values.lock = threading.Lock()
    rec = Recording.from_arrays("r", signals={"lfp": {"values": values, "rate": 1000.0, "unit": "uV", "kind": "lfp"}})
    with pytest.raises(InputError, match=r"cannot be sent to other processes .*lock.* preprocess it with jobs=1"):
        preprocess(rec, tmp_path / "a.zarr", jobs=2, **SMALL)


@pytest.mark.parametrize("jobs", [0, -1, 1.5, True, "2"])
def test_number_of_processes(tmp_path: Path, recording: Recording, jobs: Any) -> None:
    with pytest.raises(InputError, match="expected 1 or more processes"):
        preprocess(recording, tmp_path / "a.zarr", jobs=jobs)


SLOW = """
import sys, time, numpy as np
from brainmu.core import Recording
from brainmu.store import preprocess
class Slow:
    shape, dtype = (600_000, 4), np.dtype("int16")
    def __getitem__(self, key):
        time.sleep(0.6)
        return (np.arange(key.start, key.stop)[:, None] * [1, 3, 5, 7] % 2003).astype(np.int16)
rec = Recording.from_arrays("r", signals={"lfp": dict(values=Slow(), rate=1000.0, unit="uV", kind="lfp")})
print("begin", flush=True)
preprocess(rec, sys.argv[1], jobs=2, chunk_kib=16, shard_mib=1)
"""


def workers_of(child: subprocess.Popen[str]) -> list[psutil.Process]:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        found = psutil.Process(child.pid).children(recursive=True)
        if len(found) == 2:
            return found
        time.sleep(0.02)
    raise AssertionError("no two processes")


@pytest.fixture
def slow_child(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", SLOW, str(tmp_path / "a.zarr")]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert child.stdout is not None and child.stderr is not None and child.stdout.readline() == "begin\n"
    yield child
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    child.stdout.close()
    child.stderr.close()


@pytest.mark.parametrize(
    ("how", "group"),
    [
        (signal.SIGINT, True),
        pytest.param(signal.SIGKILL, False, marks=pytest.mark.slow),
        pytest.param(signal.SIGINT, False, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, False, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, True, marks=pytest.mark.slow),
    ],
)
def test_stopping_the_parent_stops_all_and_loses_nothing(tmp_path: Path, slow_child: subprocess.Popen[str], how: signal.Signals, group: bool) -> None:
    workers = workers_of(slow_child)
    shards = tmp_path / "a.zarr.partial/signals/lfp/values/c"
    while len(list(shards.glob("*/0"))) < 3:  # the first has been entered in the journal by then
        time.sleep(0.02)
    t = time.monotonic()
    os.killpg(slow_child.pid, how) if group else os.kill(slow_child.pid, how)
    _, stderr = slow_child.communicate(timeout=20)
    assert slow_child.returncode == -how
    _, alive = psutil.wait_procs(workers, timeout=5)
    assert not alive and time.monotonic() - t < 5
    assert stderr.count("Traceback") == (how is signal.SIGINT)  # only that of the parent
    kept = {p: p.stat().st_mtime_ns for p in shards.glob("*/0")}
    assert not (tmp_path / "a.zarr").exists() and kept
    x = (np.arange(600_000)[:, None] * [1, 3, 5, 7] % 2003).astype(np.int16)
    for name in ("a.zarr", "b.zarr"):
        preprocess(Recording.from_arrays("r", signals={"lfp": {"values": x, "rate": 1000.0, "unit": "uV", "kind": "lfp"}}), tmp_path / name, **SMALL)
    assert tree_bytes(tmp_path / "a.zarr") == tree_bytes(tmp_path / "b.zarr")
    first = min(kept, key=lambda p: kept[p])
    assert (tmp_path / "a.zarr" / first.relative_to(tmp_path / "a.zarr.partial")).stat().st_mtime_ns == kept[first]


@pytest.mark.slow
def test_two_runs_on_one_output_at_once(tmp_path: Path, slow_child: subprocess.Popen[str], recording: Recording) -> None:
    workers_of(slow_child)
    for jobs in (1, 2):
        with pytest.raises(StoreError, match=r"a\.zarr: is being written by another process"):
            preprocess(recording, tmp_path / "a.zarr", jobs=jobs)
    outcomes = preprocess_many([recording, many_streams(id="a")], tmp_path, jobs=2)
    assert outcomes[0].error is None and isinstance(outcomes[1].error, StoreError) and "another process" in str(outcomes[1].error)


@pytest.mark.slow
def test_an_output_folder_that_vanishes(tmp_path: Path) -> None:
    import shutil

    rec = many_streams()
    for jobs in (1, 2):
        disk = tmp_path / f"disk{jobs}"

        def vanish(label: str, fraction: float, disk: Path = disk) -> None:
            if fraction > 0.5:
                shutil.rmtree(disk, ignore_errors=True)

        with pytest.raises(StoreError, match=r"a\.zarr: cannot be written: its folder is gone") as caught:
            preprocess(rec, disk / "a.zarr", jobs=jobs, progress=vanish, **SMALL)
        assert "\n" not in str(caught.value) and not (disk / "a.zarr").exists()


@pytest.mark.slow
def test_ctrl_c_while_many_are_written(tmp_path: Path) -> None:
    def stop(label: str, fraction: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preprocess_many([many_streams(k, id=f"r{k}") for k in range(3)], tmp_path, jobs=2, progress=stop, **SMALL)
    assert not our_processes()
    assert not [p for p in tmp_path.iterdir() if not p.name.endswith(".partial")]


# -- what travels -----------------------------------------------------------------------------------------------------------
def test_large_arrays_travel_as_places_in_files(tmp_path: Path) -> None:
    x = np.arange(2_000_000, dtype=np.int32).reshape(-1, 4)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    changed = np.load(tmp_path / "x.npy", mmap_mode="c")
    changed[7] = -1
    fortran = np.memmap(tmp_path / "f.bin", np.float32, "w+", shape=(1000, 300), order="F")
    fortran[:] = np.arange(300)
    arrays = [mapped, mapped[100:900:3, 1:3], mapped[::-1], np.asarray(mapped)[5:], fortran[3:, ::2], mapped[:0], changed, x, x[:, 1], x[:3].copy()]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    streams: Any = arrays
    packed = payload.pack(streams, scratch)
    assert len(packed) < 100_000 and len(list(scratch.iterdir())) == 3
    for got, want in zip(payload.load(packed), arrays):
        np.testing.assert_array_equal(got, want)  # type: ignore[arg-type]
    assert len(payload.pack(streams, None)) > x.nbytes  # nowhere to put them: inside


def test_errors_are_one_line_each(tmp_path: Path, recording: Recording) -> None:
    for jobs in (1, 2):
        with pytest.raises(BrainmuError) as caught:
            preprocess(Recording("empty"), tmp_path / "a.zarr", jobs=jobs)
        assert "\n" not in str(caught.value)
