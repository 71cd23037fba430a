"""Samples a block at a time, as whole numbers of a converter or as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainmu.core import EventTable, Hypnogram, Recording, Signal
from brainmu.core.units import unit_factor

__all__ = ["VOLTAGES", "blocks", "hypnogram_of", "microvolts", "peaks", "say_lost_columns", "to_counts", "voltages", "write_counts"]

VOLTAGES = ("lfp", "eeg", "emg", "eog", "ecg")
_VALUES = 1 << 22


def blocks(s: Signal, step: int | None = None) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """First row and samples (time, channel) of each block, in the signal's unit."""
    step = step or max(1, _VALUES // max(1, s.n_channels))
    for i in range(0, s.n_samples, step):
        yield i, s.read(i, min(s.n_samples, i + step))


def microvolts(s: Signal) -> float:
    """Factor that brings the signal's values to µV (1 where the unit is no voltage)."""
    factor, unit = unit_factor(s.unit, kind=s.kind)
    return factor if unit == "uV" else 1.0


def voltages(rec: Recording) -> dict[str, Signal]:
    """Regularly sampled voltages."""
    return {k: s for k, s in rec.signals.items() if s.kind in VOLTAGES and s.rate is not None and s.n_samples}


def hypnogram_of(rec: Recording, format: str) -> str | None:
    """Name of the one scoring that a format holds: the first that has epochs; others are said."""
    names = [k for k, v in rec.labels.items() if isinstance(v, Hypnogram) and len(v)]
    if len(names) > 1:
        rec.warn(f"{format}: the scorings {', '.join(names[1:])} were left out, it holds one ({names[0]})")
    return names[0] if names else None


def say_lost_columns(rec: Recording, format: str, name: str, label: EventTable, *kept: str) -> None:
    """Name the columns of an event table that the format has no place for, those aside that say nothing."""
    frame = label.to_frame().drop(columns=["start", "stop", *kept])
    lost = [str(c) for c in frame.columns if any(v == v and v not in ("", None) for v in frame[c])]
    if "kind" in lost and frame["kind"].nunique() == 1:
        lost.remove("kind")  # which the name of the label says as well
    if "peak" in lost and np.abs(frame["peak"] - (label.start + label.stop) / 2).max() < 1e-9:
        lost.remove("peak")
    if lost:
        rec.warn(f"{format}: the columns {', '.join(lost)} of {name} were left out, it holds times and a text")


def peaks(s: Signal) -> tuple[NDArray[np.float64], int]:
    """Largest absolute value of each channel, missing samples aside, and how many samples are missing."""
    top, missing = np.zeros(s.n_channels), 0
    for _, x in blocks(s):
        gone = np.isnan(x)
        missing += int(gone.sum())
        top = np.fmax(top, np.where(gone, 0, np.abs(x)).max(axis=0))
    return top, missing


def to_counts(x: NDArray[np.float32], step: float | NDArray[np.float64]) -> tuple[NDArray[np.int16], int, int]:
    """Samples as int16 steps of `step`, missing ones 0, and how many were missing and how many were clipped."""
    counts = np.rint(x / step)
    missing = ~np.isfinite(counts)
    counts[missing] = 0
    clipped = int((np.abs(counts) > 32767).sum())
    return np.clip(counts, -32768, 32767).astype("<i2"), int(missing.sum()), clipped


def write_counts(rec: Recording, s: Signal, path: Path, step: float) -> None:
    """A flat file of int16, sample by sample; what was missing or clipped is said."""
    missing = clipped = 0
    factor = microvolts(s)
    with path.open("wb") as f:
        for _, x in blocks(s):
            counts, m, c = to_counts(x * np.float32(factor), step)
            missing, clipped = missing + m, clipped + c
            f.write(counts.tobytes())
    if missing:
        rec.warn(f"{path.suffix or path.name}: {missing} missing samples were written as 0, which the format cannot tell from measured ones")
    if clipped:
        rec.warn(f"{path.suffix or path.name}: {clipped} samples beyond the converter's range were clipped")
