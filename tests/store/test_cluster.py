"""Stores made by the workers of a real Dask cluster."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainmu.core import Recording
from brainmu.errors import InputError, StoreError
from brainmu.formats.lazy import RawRows
from brainmu.store import preprocess, preprocess_many, verify

# tornado and distributed leave sockets and files to the garbage collector when a cluster closes.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")]
SMALL = {"chunk_kib": 16, "shard_mib": 1}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50) as started:
        yield started


@pytest.fixture
def night(tmp_path: Path) -> Recording:
    """A recording in a file, of some thirty shards."""
    path = tmp_path / "night.bin"
    (np.random.default_rng(0).standard_normal((1_000_000, 16)) * 300).astype(np.int16).tofile(path)
    rows = RawRows(path, "int16", (1_000_000, 16))
    return Recording.from_arrays("night", signals={"lfp": {"values": rows, "rate": 1000.0, "unit": "uV", "kind": "lfp"}}, source={"files": [str(path)]})


def tree_bytes(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def test_two_worker_processes_give_the_bytes_of_the_serial_run(tmp_path: Path, make: Callable[..., Recording], cluster: Any) -> None:
    recordings = [make(k, id=f"r{k}") for k in range(3)] + [Recording("empty")]
    out = preprocess_many(recordings, tmp_path / "stores", scheduler=cluster.scheduler_address)
    assert [o.error is None for o in out] == [True, True, True, False]
    for k in range(3):
        alone = preprocess(make(k, id=f"r{k}"), tmp_path / f"alone{k}.zarr")
        assert tree_bytes(alone.path) == tree_bytes(tmp_path / "stores" / f"r{k}.zarr")


def test_a_worker_killed_in_the_middle(tmp_path: Path, night: Recording, cluster: Any) -> None:
    expected = tree_bytes(preprocess(night, tmp_path / "alone.zarr", **SMALL).path)
    victims = [worker.process.pid for worker in cluster.workers.values()]
    killed: list[int] = []

    def kill(label: str, fraction: float) -> None:
        if fraction > 0.3 and not killed:
            killed.append(victims[0])
            os.kill(victims[0], signal.SIGKILL)

    session = preprocess(night, tmp_path / "a.zarr", scheduler=cluster.scheduler_address, progress=kill, **SMALL)
    assert killed and tree_bytes(session.path) == expected
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zarr", "alone.zarr", "night.bin"]


def test_work_that_was_given_up_does_not_reach_the_next_run(tmp_path: Path, night: Recording, cluster: Any) -> None:
    def stop(label: str, fraction: float) -> None:
        if fraction > 0.3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        preprocess(night, tmp_path / "a.zarr", scheduler=cluster.scheduler_address, progress=stop, **SMALL)
    # Other settings, so other bytes under the same names, while the workers may still be at the old ones.
    other = preprocess(night, tmp_path / "a.zarr", flat=0.25, **SMALL)
    time.sleep(1)
    assert verify(other.path) == []
    assert not (tmp_path / "a.zarr.partial").exists()


def test_errors_of_a_worker_arrive(tmp_path: Path, night: Recording, cluster: Any) -> None:
    source = Path(night.source["files"][0])

    def cut(label: str, fraction: float) -> None:
        if fraction > 0.2:
            os.truncate(source, 1000)

    with pytest.raises(Exception, match=r"night\.bin: (cannot be read any more|changed while)") as caught:
        preprocess(night, tmp_path / "a.zarr", scheduler=cluster.scheduler_address, progress=cut, **SMALL)
    assert "\n" not in str(caught.value) and not (tmp_path / "a.zarr").exists()


def test_an_output_that_the_workers_do_not_see(tmp_path: Path, night: Recording, cluster: Any) -> None:
    # A worker that lies elsewhere finds no folder; here it is taken away under the workers' eyes.
    from brainmu.store.cluster import _make
    from brainmu.store.folder import FolderSink
    from brainmu.store.shards import Shard

    with pytest.raises(StoreError, match="a worker of the cluster finds no such folder: give an --out on a file system that all workers share"):
        _make(tmp_path / "gone" / "streams", FolderSink(tmp_path, tmp_path / "gone"), Shard(0, "signals/lfp/values", 0))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:9", "nonsense://x"])
def test_a_scheduler_that_is_not_there(tmp_path: Path, make: Callable[..., Recording], address: str) -> None:
    with pytest.raises(InputError, match=f"scheduler '{re.escape(address)}' does not answer"):
        preprocess_many([make()], tmp_path, scheduler=address)
    assert threading.active_count() < 50
