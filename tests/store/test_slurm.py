"""The scripts for SLURM clusters, as far as they run without one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from brainmu.store import verify

HERE = Path(__file__).parents[2] / "pipelines" / "slurm"
BIN = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}


@pytest.fixture
def sources(tmp_path: Path) -> list[Path]:
    folders = [tmp_path / "day 1", tmp_path / "day2"]
    for k, folder in enumerate(folders):
        folder.mkdir()
        np.save(folder / "lfp.npy", np.random.default_rng(k).standard_normal((5000, 2)).astype(np.float32))
        (folder / "brainmu.yaml").write_text(f"id: day{k + 1}\nsignals:\n  lfp: {{file: lfp.npy, rate: 1000, unit: uV, kind: lfp}}\n")
    return folders


def test_array_is_a_shell_script() -> None:
    assert subprocess.run(["bash", "-n", HERE / "array.sh"], check=False).returncode == 0
    lines = (HERE / "array.sh").read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    assert not [line for line in lines[first:] if line.startswith("#SBATCH")]  # sbatch ignores those


@pytest.mark.slow
def test_array_task_by_task(tmp_path: Path, sources: list[Path]) -> None:
    (tmp_path / "sources.txt").write_text("".join(f"{s}\n" for s in sources))
    command = ["bash", HERE / "array.sh", tmp_path / "sources.txt", tmp_path / "stores"]
    for task in ("1", "2", "2"):
        environment = os.environ | BIN | {"SLURM_ARRAY_TASK_ID": task, "SLURM_CPUS_PER_TASK": "2"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert verify(tmp_path / "stores/day1.zarr") == verify(tmp_path / "stores/day2.zarr") == []
    beyond = subprocess.run(command, env=os.environ | BIN | {"SLURM_ARRAY_TASK_ID": "3"}, capture_output=True, text=True, check=False)
    assert beyond.returncode == 2 and "has no line 3" in beyond.stderr


@pytest.mark.slow
def test_the_job_script_of_a_worker() -> None:
    pytest.importorskip("dask_jobqueue")
    command = [sys.executable, HERE / "cluster.py", "--show", "--partition", "short", "--account", "lab", "--memory", "3GB"]
    script = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for line in ("#SBATCH -p short", "#SBATCH -A lab", "#SBATCH --cpus-per-task=1", "#SBATCH --mem=3G", "--lifetime 50m"):
        assert line in script
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


@pytest.mark.slow
def test_the_same_script_without_slurm(tmp_path: Path, sources: list[Path]) -> None:
    command = [sys.executable, HERE / "cluster.py", *sources, "--out", tmp_path / "stores", "--workers", "2", "--local"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "2 of 2 stores are complete" in done.stdout, done.stderr
    assert verify(tmp_path / "stores/day1.zarr") == verify(tmp_path / "stores/day2.zarr") == []
