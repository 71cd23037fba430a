"""Whole or not at all: resumed, locked, replaced, verified, the same bytes anywhere."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from brainmu.core import Intervals, Recording
from brainmu.errors import BrainmuError, NotFoundError, OutputExistsError, StoreError
from brainmu.store import open, preprocess, verify

SMALL = {"chunk_kib": 16, "shard_mib": 1}

CHILD = """
import sys, numpy as np
from brainmu.core import Intervals, Recording
from brainmu.store import preprocess
source, out, block = sys.argv[1], sys.argv[2], int(sys.argv[3])
import brainmu.store.streams
brainmu.store.streams._BLOCK_VALUES = block
x = np.load(source, mmap_mode="r")
rec = Recording.from_arrays("r", signals={"lfp": dict(values=x, rate=20000.0, unit="uV", kind="lfp", scale=0.2)}, source={"files": [source]})
print("begin", flush=True)
preprocess(rec, out, chunk_kib=16, shard_mib=1, lfp_rate=10000.0)
"""


def tree_bytes(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.npy"
    np.save(path, (np.random.default_rng(0).standard_normal((800_000, 4)) * 300).astype(np.int16))
    return path


def start(source: Path, out: Path, block: int = 1 << 18) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(source), str(out), str(block)], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert child.stdout is not None and child.stdout.readline() == "begin\n"
    child.stdout.close()
    return child


def kill_and_finish(source: Path, folder: Path, kills: int) -> None:
    undisturbed = folder / "undisturbed.zarr"
    child = start(source, undisturbed)
    t = time.perf_counter()
    assert child.wait(120) == 0
    duration = time.perf_counter() - t
    expected = tree_bytes(undisturbed)
    reached = set()
    for k in range(kills):
        out = folder / f"killed{k}.zarr"
        child = start(source, out)
        time.sleep(duration * (k + 0.5) / kills * 0.9)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        partial = out.with_name(out.name + ".partial")
        reached.add(len(list(partial.rglob("c/*/0"))) if partial.exists() else -1)
        assert not out.exists() or tree_bytes(out) == expected
        assert start(source, out).wait(120) == 0
        assert tree_bytes(out) == expected
        assert not partial.exists()
        shutil.rmtree(out)
    assert len(reached) > 1  # the kills did fall on different moments


@pytest.mark.parametrize("kills", [2])
def test_killed_runs_end_in_the_same_bytes(tmp_path: Path, source: Path, kills: int) -> None:
    kill_and_finish(source, tmp_path, kills)


def test_killed_while_the_disk_takes_the_finished_files(tmp_path: Path, source: Path) -> None:
    assert start(source, tmp_path / "undisturbed.zarr").wait(120) == 0
    out = tmp_path / "a.zarr"
    killed = CHILD.replace("print(", "import os, signal\nos.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)\nprint(", 1)
    assert subprocess.run([sys.executable, "-c", killed, str(source), str(out), str(1 << 18)], stdout=subprocess.DEVNULL).returncode == -signal.SIGKILL
    partial = tmp_path / "a.zarr.partial"
    times = {p.relative_to(partial): p.stat().st_mtime_ns for p in partial.glob("signals/lfp/values/c/*/0")}
    assert len(times) > 3 and not out.exists()
    assert start(source, out).wait(120) == 0
    assert tree_bytes(out) == tree_bytes(tmp_path / "undisturbed.zarr")
    assert {p: (out / p).stat().st_mtime_ns for p in times} == times


def test_finished_shards_are_kept_and_damaged_or_stray_ones_are_not(tmp_path: Path, source: Path) -> None:
    x = np.load(source, mmap_mode="r")
    rec = Recording.from_arrays("r", signals={"lfp": {"values": x, "rate": 1000.0, "unit": "uV", "kind": "lfp"}}, source={"files": [str(source)]})
    whole = preprocess(rec, tmp_path / "whole.zarr", **SMALL)

    def stop_late(label: str, fraction: float) -> None:
        if fraction > 0.7:
            raise KeyboardInterrupt

    out = tmp_path / "a.zarr"
    with pytest.raises(KeyboardInterrupt):
        preprocess(rec, out, progress=stop_late, **SMALL)
    partial = tmp_path / "a.zarr.partial"
    shards = sorted(partial.glob("signals/lfp/values/c/*/0"), key=lambda p: int(p.parent.name))
    assert len(shards) >= 3 and not out.exists()
    times = {p: p.stat().st_mtime_ns for p in shards}
    damaged = bytearray(shards[1].read_bytes())
    damaged[100] ^= 1
    shards[1].write_bytes(damaged)
    (partial / "signals/lfp/values/c/99").mkdir()
    (partial / "signals/lfp/values/c/99/0").write_bytes(b"stray")
    (partial / "signals/lfp/values/c/3.partial").write_bytes(b"orphan")
    preprocess(rec, out, **SMALL)
    assert tree_bytes(out) == tree_bytes(whole.path)
    kept = out / shards[0].relative_to(partial)
    assert kept.stat().st_mtime_ns == times[shards[0]]


def test_same_bytes_whatever_the_place_the_threads_and_the_blocks(tmp_path: Path, source: Path) -> None:
    (tmp_path / "else" / "where").mkdir(parents=True)
    moved = shutil.copy(source, tmp_path / "else" / "where" / "source.npy")
    a, b = tmp_path / "a.zarr", tmp_path / "else" / "b.zarr"
    assert start(source, a, block=1 << 18).wait(120) == 0
    rec = Recording.from_arrays("r", signals={"lfp": {"values": np.load(moved, mmap_mode="r"), "rate": 20000.0, "unit": "uV", "kind": "lfp", "scale": 0.2}},
                                source={"files": [str(moved)]})  # fmt: skip
    preprocess(rec, b, lfp_rate=10000.0, threads=3, **SMALL)
    assert tree_bytes(a) == tree_bytes(b)
    assert not any(str(tmp_path).encode() in data for data in tree_bytes(b).values())


def test_second_run_says_already_complete(tmp_path: Path, recording: Recording) -> None:
    first = preprocess(recording, tmp_path / "a.zarr")
    before = {p: p.stat().st_mtime_ns for p in first.path.rglob("*")}
    said = []
    again = preprocess(recording, tmp_path / "a.zarr", progress=lambda label, fraction: said.append(label))
    assert again.already_complete and not first.already_complete and said[-1] == "already complete"
    assert {p: p.stat().st_mtime_ns for p in again.path.rglob("*")} == before


def test_other_sources_or_settings_need_overwrite(tmp_path: Path, make: Callable[..., Recording]) -> None:
    out = tmp_path / "a.zarr"
    old = tree_bytes(preprocess(make(0), out).path)
    for other, options in ((make(1), {}), (make(0), {"lfp_rate": 1000.0}), (make(0, subject="m2"), {})):
        with pytest.raises(OutputExistsError, match=r"a\.zarr: exists and holds another store.*--overwrite"):
            preprocess(other, out, **options)
    assert tree_bytes(out) == old
    seen = []
    preprocess(make(1), out, overwrite=True, progress=lambda label, fraction: seen.append(tree_bytes(out) == old) if label == "finishing" else None)
    assert seen == [True] and tree_bytes(out) != old and verify(out) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr"]


def test_what_is_no_store_is_never_replaced(tmp_path: Path, recording: Recording) -> None:
    out = tmp_path / "a.zarr"
    out.mkdir()
    (out / "thesis.txt").write_text("important")
    for target in (out, out / "thesis.txt", Path("/")):
        for overwrite in (False, True):
            with pytest.raises((OutputExistsError, StoreError), match=r"something that is no store|cannot be written"):
                preprocess(recording, target, overwrite=overwrite)
    assert (out / "thesis.txt").read_text() == "important"


def test_a_damaged_store_can_be_replaced(tmp_path: Path, recording: Recording) -> None:
    out = preprocess(recording, tmp_path / "a.zarr").path
    (out / "zarr.json").write_bytes(b"{")
    with pytest.raises(OutputExistsError, match="--overwrite to replace it"):
        preprocess(recording, out)
    assert verify(preprocess(recording, out, overwrite=True).path) == []


def test_a_store_that_lost_a_file_is_not_called_complete(tmp_path: Path, recording: Recording) -> None:
    out = preprocess(recording, tmp_path / "a.zarr").path
    (out / "spikes/time/c/0").unlink()
    with pytest.raises(OutputExistsError, match="--overwrite to replace it"):
        preprocess(recording, out)
    assert verify(preprocess(recording, out, overwrite=True).path) == []


def test_a_replacement_cut_off_between_its_renames_is_undone(tmp_path: Path, recording: Recording) -> None:
    out = tmp_path / "a.zarr"
    preprocess(recording, out)
    out.rename(tmp_path / ".a.zarr.replaced")
    assert preprocess(recording, out).already_complete
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr"]


def test_two_runs_on_one_output(tmp_path: Path, source: Path, recording: Recording) -> None:
    out = tmp_path / "a.zarr"
    child = start(source, out)
    journal = tmp_path / "a.zarr.partial" / ".work" / "journal"  # written under the lock
    while not journal.exists() and child.poll() is None:
        time.sleep(0.001)
    os.killpg(child.pid, signal.SIGSTOP)  # it holds the lock as long as the test needs
    try:
        with pytest.raises(StoreError, match="is being written by another process"):
            preprocess(recording, out)
    finally:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    assert verify(preprocess(recording, out).path) == []  # the dead process holds no lock


def test_a_source_that_changes_underneath(tmp_path: Path, source: Path) -> None:
    x = np.load(source, mmap_mode="r")
    rec = Recording.from_arrays("r", signals={"lfp": {"values": x, "rate": 1000.0, "unit": "uV", "kind": "lfp"}}, source={"files": [str(source)]})

    def touch(label: str, fraction: float) -> None:
        if label == "lfp":
            os.utime(source, ns=(1, 1))

    with pytest.raises(StoreError, match=r"source\.npy: changed while it was being read"):
        preprocess(rec, tmp_path / "a.zarr", progress=touch)
    assert not (tmp_path / "a.zarr").exists()


def test_a_source_that_is_gone(tmp_path: Path) -> None:
    rec = Recording.from_arrays("r", signals={"x": {"values": np.ones(3), "rate": 1.0}}, source={"files": [str(tmp_path / "gone.npy")]})
    with pytest.raises(NotFoundError, match="no such file any more"):
        preprocess(rec, tmp_path / "a.zarr")


def mounted(folder: Path, options: str) -> bool:
    return subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, check=False).returncode == 0


def test_full_disk(tmp_path: Path, source: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not mounted(disk, "size=3m"):
        pytest.skip("mounting a small tmpfs is not allowed here")
    try:
        x = np.load(source, mmap_mode="r")
        rec = Recording.from_arrays("r", signals={"lfp": {"values": x, "rate": 1000.0, "unit": "uV", "kind": "lfp"}}, source={"files": [str(source)]})
        said: list[str] = []
        with pytest.raises(StoreError, match=r"a\.zarr: there is too little space: about 6\.4 MB more are needed and 3\.1 MB are free") as caught:
            preprocess(rec, disk / "a.zarr", progress=lambda label, fraction: said.append(label), **SMALL)
        assert said == [] and list(disk.iterdir()) == []  # before anything was read
        subprocess.run(["mount", "-o", "remount,size=8m", str(disk)], check=True)
        expected = tree_bytes(preprocess(rec, tmp_path / "undisturbed.zarr", **SMALL).path)

        def others(label: str, fraction: float) -> None:
            if label == "lfp" and fraction > 0.4:
                (disk / "others").write_bytes(bytes(3_000_000))

        for jobs in (1, 2):
            with pytest.raises(StoreError, match=r"a\.zarr: cannot be written: the disk is full .*goes on where it stopped") as caught:
                preprocess(rec, disk / "a.zarr", progress=others, jobs=jobs, **SMALL)
            assert "\n" not in str(caught.value) and not (disk / "a.zarr").exists()
            assert len(list((disk / "a.zarr.partial").glob("signals/lfp/values/c/*/0"))) >= 1
            (disk / "others").unlink()
        assert tree_bytes(preprocess(rec, disk / "a.zarr", jobs=2, **SMALL).path) == expected
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_file_size_limit_stands_for_a_full_disk_where_nothing_can_be_mounted(tmp_path: Path, source: Path) -> None:
    code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))\n{CHILD}"
    child = subprocess.run([sys.executable, "-c", code, str(source), str(tmp_path / "a.zarr"), "262144"], capture_output=True, text=True, check=False)
    assert child.returncode == 1 and "brainmu.errors.StoreError" in child.stderr and "a.zarr: cannot be written: File too large" in child.stderr
    assert not (tmp_path / "a.zarr").exists()


def test_read_only_disk(tmp_path: Path, recording: Recording) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not mounted(disk, "ro"):
        disk.chmod(0o500)
        if os.access(disk, os.W_OK):
            pytest.skip("neither mounting nor permissions make a folder read-only here")
    try:
        with pytest.raises(StoreError, match=r"a\.zarr: cannot be written: (the file system is read-only|permission denied)"):
            preprocess(recording, disk / "a.zarr")
    finally:
        subprocess.run(["umount", str(disk)], check=False, capture_output=True)


def test_verify_finds_any_flipped_byte_missing_and_extra_file(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    emg = {"values": np.random.default_rng(0).standard_normal((500, 2)), "rate": 100.0, "unit": "uV", "kind": "emg"}
    preprocess(Recording.from_arrays("r", signals={"emg": emg}, labels={"run": Intervals([[0, 1]])}), path)
    rng = np.random.default_rng(0)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    assert {".sha256", "zarr.json", "signals/emg/zarr.json", "signals/emg/values/zarr.json", "signals/emg/values/c/0/0"} <= {
        p.relative_to(path).as_posix() for p in files
    }
    for file in files:
        data = file.read_bytes()
        for at in {0, len(data) - 1, *rng.integers(0, len(data), 40 if file.name == ".sha256" else 2).tolist()}:
            broken = bytearray(data)
            broken[at] ^= 1 << int(rng.integers(0, 8))
            file.write_bytes(broken)
            assert verify(path), f"{file} byte {at}"
        file.write_bytes(data)
    assert verify(path) == []
    (path / "extra").write_text("")
    assert verify(path) == ["extra: not part of the store"]
    (path / "extra").unlink()
    (path / "signals/emg/values/c/0/0").unlink()
    assert verify(path) == ["signals/emg/values/c/0/0: missing"]


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_damage_is_noticed_on_reading_where_it_can_be(tmp_path: Path, recording: Recording, compression: str) -> None:
    path = preprocess(recording, tmp_path / "a.zarr", compression=compression).path
    for name, read in (
        ("labels/trials/start/c/0", lambda s: s.labels),
        ("spikes/time/c/0", lambda s: s.spikes),
        ("signals/lfp/values/c/0/0", lambda s: s.signals["lfp"].read()),
    ):
        file = path / name
        data = file.read_bytes()
        broken = bytearray(data)
        broken[-3 if "values" in name and compression == "none" else 3] ^= 4  # the index of a mapped shard, the body of what is decoded
        file.write_bytes(broken)
        with pytest.raises(StoreError, match="do not match their checksum"):
            read(open(path))
        file.write_bytes(data[: len(data) // 2])
        with pytest.raises(StoreError):
            read(open(path))
        file.unlink()
        with pytest.raises(StoreError, match="is missing from the store"):
            read(open(path))
        file.write_bytes(data)


def test_opening_what_is_no_store(tmp_path: Path, recording: Recording) -> None:
    path = tmp_path / "a.zarr"
    with pytest.raises(NotFoundError, match="no such store: make one with brainmu preprocess"):
        open(path)
    (tmp_path / "a.zarr.partial").mkdir()
    with pytest.raises(NotFoundError, match="unfinished: run the same brainmu preprocess again"):
        open(path)
    with pytest.raises(StoreError, match="is an unfinished store"):
        open(tmp_path / "a.zarr.partial")
    (tmp_path / "a.zarr.partial").rmdir()
    path.mkdir()
    with pytest.raises(StoreError, match="is not a store"):
        open(path)
    with pytest.raises(StoreError, match="is not a store"):
        verify(path)
    (path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(StoreError, match="but not one of brainmu"):
        open(path)
    (path / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match="cannot be read: the store is damaged"):
        open(path)
    shutil.rmtree(path)
    preprocess(recording, path)
    meta = path / "zarr.json"
    meta.write_text(meta.read_text().replace('"brainmu_schema": 1', '"brainmu_schema": 2'))
    with pytest.raises(StoreError, match="has schema 2, this brainmu reads up to 1: update brainmu"):
        open(path)
    for error in (NotFoundError, StoreError):
        assert issubclass(error, BrainmuError)


def test_output_in_a_folder_that_is_a_file(tmp_path: Path, recording: Recording) -> None:
    (tmp_path / "f").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        preprocess(recording, tmp_path / "f" / "a.zarr")
