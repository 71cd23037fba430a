"""Stores made by the workers of a real Dask cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from brainmu.core import Recording
from brainmu.errors import InputError
from brainmu.store import preprocess, preprocess_many


@pytest.mark.slow
# tornado and distributed leave sockets and files to the garbage collector when a cluster closes.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_two_worker_processes_give_the_bytes_of_the_serial_run(tmp_path: Path, make: Callable[..., Recording]) -> None:
    from distributed import LocalCluster

    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50) as cluster:
        out = preprocess_many([make(k, id=f"r{k}") for k in range(3)] + [Recording("empty")], tmp_path / "stores", scheduler=cluster.scheduler_address)
    assert [o.error is None for o in out] == [True, True, True, False]
    for k in range(3):
        alone = preprocess(make(k, id=f"r{k}"), tmp_path / f"alone{k}.zarr")
        assert (alone.path / ".sha256").read_bytes() == (tmp_path / "stores" / f"r{k}.zarr" / ".sha256").read_bytes()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_scheduler_that_is_not_there(tmp_path: Path, make: Callable[..., Recording]) -> None:
    with pytest.raises(InputError, match=r"scheduler 'tcp://127.0.0.1:9' does not answer"):
        preprocess_many([make()], tmp_path, scheduler="tcp://127.0.0.1:9")
