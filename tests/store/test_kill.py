"""An hour-long recording, the whole process group killed at moments spread over the measured run: the same command ends in the same bytes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

RATE, HOURS, CHANNELS = 1000, 1, 16

CHILD = """
import sys
import numpy as np, pandas as pd
from pathlib import Path
from brainmu.core import EventTable, Recording
from brainmu.formats.lazy import RawRows
from brainmu.store import preprocess
folder, out, jobs = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
rows = RawRows(folder / "lfp.bin", "int16", ((folder / "lfp.bin").stat().st_size // 32, 16))
events = pd.read_csv(folder / "events.csv")
rec = Recording.from_arrays(
    "hour", signals={"lfp": dict(values=rows, rate=1000.0, unit="uV", kind="lfp", scale=0.195)},
    labels={"stimulation": EventTable(events["start"], events["stop"], content=events["content"])},
    source={"files": [str(folder / "lfp.bin"), str(folder / "events.csv")]},
)
print("begin", flush=True)
preprocess(rec, out, jobs=jobs, lfp_rate=500.0, shard_mib=8)
"""


def tree(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def hour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hour")
    rng = np.random.default_rng(0)
    block = (rng.standard_normal((RATE * 60, CHANNELS)) * 300).astype(np.int16)
    with (folder / "lfp.bin").open("wb") as f:
        for minute in range(60 * HOURS):
            np.roll(block, minute * 977, axis=0).tofile(f)
    starts = np.sort(rng.random(500)) * 3600
    rows = [f"{a:.4f},{a + 0.5:.4f},{'AB'[i % 2]}" for i, a in enumerate(starts)]
    (folder / "events.csv").write_text("start,stop,content\n" + "\n".join(rows) + "\n")
    return folder


def start(folder: Path, out: Path, jobs: int) -> subprocess.Popen[str]:
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder), str(out), str(jobs)], stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert child.stdout is not None and child.stdout.readline() == "begin\n"
    child.stdout.close()
    return child


@pytest.mark.slow
@pytest.mark.parametrize(("jobs", "kills"), [(1, 20), (2, 6)])
def test_killed_at_any_moment(tmp_path: Path, hour: Path, jobs: int, kills: int) -> None:
    child = start(hour, tmp_path / "undisturbed.zarr", jobs)
    t = time.perf_counter()
    assert child.wait(120) == 0
    duration = time.perf_counter() - t
    expected = tree(tmp_path / "undisturbed.zarr")
    there, kept, early = [], 0, 0
    while len(there) < kills:
        out, partial = tmp_path / "out.zarr", tmp_path / "out.zarr.partial"
        child = start(hour, out, jobs)
        time.sleep(duration * (len(there) + 0.5) / kills)
        if child.poll() is not None:  # it ran faster than the one that was measured
            early += 1
            duration *= 0.8
            assert early < 10
        else:
            family = [psutil.Process(child.pid), *psutil.Process(child.pid).children(recursive=True)]
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            assert not psutil.wait_procs(family, timeout=5)[1]
            # Nothing, or everything: never a store that is not whole.
            assert not out.exists() or tree(out) == expected
            shards = {p: p.stat().st_mtime_ns for p in partial.rglob("values/c/*/0")}
            there.append(len(shards))
            assert start(hour, out, jobs).wait(120) == 0
            kept += sum((out / p.relative_to(partial)).stat().st_mtime_ns == t for p, t in shards.items())
        assert tree(out) == expected
        assert sorted(p.name for p in tmp_path.iterdir()) == ["out.zarr", "undisturbed.zarr"]
        shutil.rmtree(out)
    # The kills fell on different moments of the work, and what was finished (but for a shard in its last instant) was not made again.
    assert len(set(there)) >= max(2, kills // 5) and kept >= sum(there) - jobs * kills and kept > 0
