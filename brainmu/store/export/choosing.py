"""What every door out asks first: is the library there, and which signals are meant."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import Recording, Signal
from brainmu.errors import MissingDataError

__all__ = ["choose", "library", "plain", "samples"]


def library(module: str, package: str) -> Any:
    """The optional library `module`. Raises MissingDataError with the command that installs `package`."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDataError(f"{package} is not installed here ({error}): pip install brainmu[interop]") from None


def choose(recording: Recording, signals: Iterable[str] | None) -> dict[str, Signal]:
    """The named signals, or all. Raises MissingDataError where one is not there."""
    if signals is None:
        return dict(recording.signals)
    names = [signals] if isinstance(signals, str) else list(signals)
    absent = [n for n in names if n not in recording.signals]
    if absent:
        raise MissingDataError(f"{recording.id}: has no signal {absent[0]!r}, it has {', '.join(recording.signals) or 'none'}")
    return {n: recording.signals[n] for n in names}


def plain(column: pd.Series) -> bool:
    """Whether a column holds numbers, or nothing but text."""
    return column.dtype.kind in "iufb" or all(isinstance(v, str) for v in column)


def samples(signal: Signal, first: int = 0, last: int | None = None) -> NDArray[np.float32]:
    """Samples [first, last) as float32 (time, channel) in the signal's unit, NaN where missing and inside gaps."""
    last = signal.n_samples if last is None else last
    values = signal.read(first, last)
    if signal.rate is not None:
        for start, stop in signal.gaps:
            i, j = max(signal.index(start), first), min(signal.index(stop), last)
            if i < j:
                values[i - first : j - first] = np.nan
    return values
