"""What training and encoding hold does not grow with the hours of a recording."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import brainmu as bm
from brainmu.core import Hypnogram, Recording

RATE, CHANNELS = 250.0, 4
SHORT, LONG = 3.0, 12.0
"""Hours: 43 and 173 MB of samples."""
SCRIPT = """
import sys
import torch
import brainmu as bm
from brainmu.models import Encoder, EncoderConfig
from brainmu.train import finetune, pretrain
from brainmu.windows import WindowGrid

sizes = dict(width=16, heads=2, latents=2, window_layers=1, context_layers=1)
what, out = sys.argv[1], sys.argv[3]
session = bm.open(sys.argv[2])
if what == "encode":
    Encoder(EncoderConfig(**sizes)).taps(WindowGrid(session))
elif what == "pretrain":
    pretrain(session, out, config=dict(encoder=sizes, steps=4, batch=16, context_steps=2, span=256, cache_mib=8))
else:
    finetune(session, mode="full", config=dict(encoder=sizes, steps=4, span=800, batch=1, gradient_windows=32, cache_mib=8, stop_on="none"))
# Not ru_maxrss: on Linux a process begins with the peak of the one that started it.
print(next(int(line.split()[1]) / 1024 for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def store(hours: float, path: Path) -> Path:
    n = round(hours * 3600 * RATE)
    x = np.random.default_rng(0).standard_normal((n, CHANNELS), dtype=np.float32) * 40
    label = Hypnogram.from_stages((["WAKE"] * 20 + ["NREM"] * 20 + ["REM"] * 5) * round(hours * 20), epoch=4.0)
    signals = {"lfp": dict(values=x, rate=RATE, unit="uV", kind="lfp")}
    bm.preprocess(Recording.from_arrays("m", "m", "mouse", signals=signals, labels={"scoring": label}), path, lfp_rate=None)
    return path


def peak_mib(what: str, path: Path, out: Path) -> float:
    env = os.environ | dict(OMP_NUM_THREADS="1")
    found = subprocess.run([sys.executable, "-c", SCRIPT, what, str(path), str(out)], env=env, capture_output=True, text=True, timeout=400, check=False)
    assert found.returncode == 0, found.stderr
    return float(found.stdout.split()[-1])


@pytest.fixture(scope="module")
def stores(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("stores")
    return [store(hours, folder / f"{hours:g}.zarr") for hours in (SHORT, LONG)]


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("what", ["encode", "pretrain", "finetune"])
def test_peak_memory_is_flat(stores, tmp_path, what):
    peaks = [peak_mib(what, path, tmp_path / path.stem) for path in stores]
    added = (LONG - SHORT) * 3600 * RATE * CHANNELS * 4 / (1 << 20)
    # The statistics of a recording come from 240 patches spread over it, whose pages are there once.
    assert peaks[1] - peaks[0] < 0.5 * added, peaks
