"""What a plan says, and that a place which cannot be written is refused before the sources are read."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainmu.core import Intervals, Recording
from brainmu.errors import OutputExistsError, StoreError
from brainmu.formats.lazy import RawRows
from brainmu.store import format_plan, plan, preprocess, preprocess_many

LFP = {"rate": 2000.0, "unit": "uV", "kind": "lfp"}


class Unreadable:
    """Samples that nobody may read."""

    def __init__(self, n: int, channels: int = 16) -> None:
        self.shape, self.dtype = (n, channels), np.dtype("int16")

    def __getitem__(self, key: Any) -> np.ndarray:
        raise AssertionError("was read")


def huge() -> Recording:
    return Recording.from_arrays("huge", signals={"lfp": {"values": Unreadable(10**13), **LFP}})


def test_time_size_gaps_and_clocks() -> None:
    rec = huge()
    rec.signals["lfp"].gaps = Intervals([[1.0, 2.5], [7.0, 8.0]])
    rec.signals["lfp"].clock = "box"
    rec.clocks = {"session": {"reference": True}, "box": {"ppm": 31.4, "offset": 2.5}}
    one, eight = plan(rec), plan(rec, jobs=8)
    signal = one["signals"][0]
    assert one["store_bytes"] == signal["to"]["bytes"] > 2e14 and one["clocks"]["box"]["ppm"] == 31.4
    assert (signal["gaps"], round(signal["missing"], 3), signal["clock"], signal["action"]) == (2, 2.5, "session", "resample")
    assert 3600 < one["seconds"] < 1e9 and 0 < eight["seconds"] <= 1.5 * one["seconds"]
    text = format_plan(one)
    for said in ("2 gaps, 2.5 s missing", "aligned from the clock 'box'", "with 1 process\n", " h with", "+31.40 ppm"):
        assert said in text


def test_the_time_said_is_of_the_order_of_the_time_taken(tmp_path: Path) -> None:
    x = (np.random.default_rng(0).standard_normal((1_500_000, 16)) * 300).astype(np.int16)
    rec = Recording.from_arrays("r", signals={"lfp": {"values": x, **LFP}})
    t = time.perf_counter()
    preprocess(rec, tmp_path / "a.zarr")
    taken = time.perf_counter() - t
    assert taken / 10 < plan(rec)["seconds"] < 10 * taken + 2


def test_too_little_space_is_said_at_once(tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(b"x")
    fast = {"values": Unreadable(10**13), **LFP, "rate": 1e6}  # four months
    rec = Recording.from_arrays("huge", signals={"lfp": fast}, source={"files": [str(source)]})
    for jobs in (1, 2):
        with pytest.raises(StoreError, match=r"there is too little space: about 320\.0 TB more are needed and .* are free in"):
            preprocess(rec, tmp_path / "deep" / "er" / "a.zarr", jobs=jobs, lfp_rate=None)
    assert [p.name for p in tmp_path.iterdir()] == ["source.bin"]


def test_an_output_in_the_way_is_said_before_the_sources_are_read(tmp_path: Path, recording: Recording) -> None:
    source = tmp_path / "source.bin"
    source.write_bytes(b"x")
    rec = Recording.from_arrays("small", signals={"lfp": {"values": Unreadable(1000), **LFP}}, source={"files": [str(source)]})
    store = preprocess(recording, tmp_path / "store.zarr").path
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("important")
    for out, overwrite, text in ((store, False, "another store"), (home, False, "no store"), (home, True, "no store"), (source, True, "no store")):
        with pytest.raises(OutputExistsError, match=text):
            preprocess(rec, out, overwrite=overwrite)
    with pytest.raises(StoreError, match="cannot be written: a file lies where a folder should be"):
        preprocess(rec, source / "a.zarr")
    outcomes = preprocess_many([rec], home / "thesis.txt")
    assert isinstance(outcomes[0].error, StoreError)


# -- sources that change ------------------------------------------------------------------------------------------------------
def append(path: Path) -> None:
    with path.open("ab") as f:
        f.write(b"more")


def replace(path: Path) -> None:
    """Another file of the same content and time under the name."""
    before = path.stat()
    shutil.copy(path, path.with_suffix(".new"))
    os.utime(path.with_suffix(".new"), ns=(before.st_atime_ns, before.st_mtime_ns))
    path.with_suffix(".new").replace(path)


def edit_and_set_back(path: Path) -> None:
    """Other bytes, the same size, and the time of modification as it was."""
    before = path.stat()
    with path.open("r+b") as f:
        f.write(b"changed!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def link_and_permit(path: Path) -> None:
    """What a backup does, and a user: the content is untouched."""
    path.with_suffix(".backup").hardlink_to(path)
    path.chmod(0o640)


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("change", "noticed"), [(append, True), (replace, True), (edit_and_set_back, True), (Path.touch, True), (Path.unlink, True), (link_and_permit, False)]
)
def test_a_source_that_changes_underneath(tmp_path: Path, change: Any, noticed: bool, jobs: int) -> None:
    source = tmp_path / "source.bin"
    (np.random.default_rng(0).standard_normal((400_000, 4)) * 300).astype(np.int16).tofile(source)
    rec = Recording.from_arrays("r", signals={"lfp": {"values": RawRows(source, "int16", (400_000, 4)), **LFP}}, source={"files": [str(source)]})
    done = []

    def once(label: str, fraction: float) -> None:
        # Late enough that the checksums, made beside the work, are there.
        if label == "finishing" and not done:
            done.append(change(source))

    if noticed:
        with pytest.raises(StoreError, match=r"source\.bin: changed while it was being read: wait until nothing writes it"):
            preprocess(rec, tmp_path / "a.zarr", progress=once, jobs=jobs, chunk_kib=16, shard_mib=1)
        assert done and not (tmp_path / "a.zarr").exists()
    else:
        preprocess(rec, tmp_path / "a.zarr", progress=once, jobs=jobs, chunk_kib=16, shard_mib=1)
        assert done


def test_shards_of_a_source_that_changed_between_two_runs_are_made_again(tmp_path: Path) -> None:
    source = tmp_path / "source.bin"
    x = (np.random.default_rng(0).standard_normal((400_000, 4)) * 300).astype(np.int16)
    x.tofile(source)
    rec = Recording.from_arrays("r", signals={"lfp": {"values": RawRows(source, "int16", x.shape), "rate": 1000.0, "unit": "uV", "kind": "lfp"}},
                                source={"files": [str(source)]})  # fmt: skip

    def stop(label: str, fraction: float) -> None:
        if fraction > 0.6:
            raise KeyboardInterrupt

    for out, change in (("copied", replace), ("edited", edit_and_set_back)):
        with pytest.raises(KeyboardInterrupt):
            preprocess(rec, tmp_path / f"{out}.zarr", progress=stop, chunk_kib=16, shard_mib=1)
        shards = {p.name: p.stat().st_mtime_ns for p in (tmp_path / f"{out}.zarr.partial/signals/lfp/values/c").glob("*")}
        first = tmp_path / f"{out}.zarr.partial/signals/lfp/values/c/0/0"
        before = first.stat().st_mtime_ns
        change(source)
        session = preprocess(rec, tmp_path / f"{out}.zarr", chunk_kib=16, shard_mib=1)
        now = np.fromfile(source, np.int16).reshape(x.shape)
        np.testing.assert_array_equal(session.signals["lfp"].values[:], now)
        kept = (session.path / "signals/lfp/values/c/0/0").stat().st_mtime_ns == before
        assert len(shards) > 1 and kept == (out == "copied")  # the same bytes in another file are the same source
