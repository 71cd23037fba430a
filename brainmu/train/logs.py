"""What training says about itself: a row a step in metrics.csv, the same as TensorBoard events, throughput and memory."""

from __future__ import annotations

import csv
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from brainmu.errors import ConfigError

if TYPE_CHECKING:
    from lightning.pytorch.loggers import TensorBoardLogger

__all__ = ["append_row", "event_logger", "forget_after", "peak_memory"]

COLUMNS = ("stage", "step", "loss", "spectrum", "waveform", "slow", "features", "spikes", "summary_spectrum", "summary_slow",
           "summary_features", "summary_spikes", "context", "learning_rate", "seconds", "tokens_per_s", "stall",
           "gradient_norm", "tflops_per_s", "mfu", "memory_gb", "hours")  # fmt: skip
"""Columns of metrics.csv. `stall`: share of the time so far spent waiting for data; `mfu`: share of the device's dense bf16 peak;
`memory_gb`: the most held so far (CUDA's allocator, else resident); `hours`: of recording seen in this stage, over all processes."""


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add a row to a metrics.csv, with the header where it is new."""
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, COLUMNS, extrasaction="raise")
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def forget_after(path: Path, stage: str, step: int) -> None:
    """Drop rows of `stage` past `step` (steps taken after the checkpoint that a resumed run takes again) and a row torn by a kill."""
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as f:
        rows = [r for r in csv.DictReader(f) if None not in r.values() and r["step"].isdigit() and (r["stage"] != stage or int(r["step"]) <= step)]
    part = path.with_suffix(".partial")
    part.unlink(missing_ok=True)
    for r in rows:
        append_row(part, r)
    # Replaced in one go: a second kill leaves either the old rows or the new ones.
    if rows:
        part.replace(path)
    else:
        path.unlink()


def event_logger(folder: Path, stage: str, wanted: bool | None, done: int) -> TensorBoardLogger | None:
    """Lightning's writer of TensorBoard events into ``tensorboard/<stage>``; None where not wanted.

    Parameters
    ----------
    wanted : bool or None
        None: where tensorboardX or tensorboard is installed.
    done : int
        Events past this step are taken back: a resumed run writes them again.

    Raises
    ------
    ConfigError
        If events are wanted and neither package is installed.
    """
    have = find_spec("tensorboardX") is not None or find_spec("tensorboard") is not None
    if wanted and not have:
        raise ConfigError("pretrain: tensorboard is true, but neither tensorboardX nor tensorboard is installed: pip install tensorboardX")
    if wanted is False or not have:
        return None
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(folder, name="tensorboard", version=stage, purge_step=done + 1 if done else None)


def peak_memory(device: torch.device) -> float:
    """The most memory held so far, GB: by CUDA's allocator on a GPU, else resident in this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
