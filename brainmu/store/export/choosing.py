"""What every door out asks first: is the library there, and which signals are meant."""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Recording, Signal
from brainmu.errors import MissingDataError

__all__ = ["choose", "free_name", "identifier", "library", "plain", "samples"]


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


def plain(column: Any) -> bool:
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


def identifier(name: object) -> str:
    """`name` as Python would read it as an attribute: other characters become underscores."""
    key = re.sub(r"\W", "_", unicodedata.normalize("NFKC", str(name))) or "_"
    return f"_{key}" if key[0].isdigit() else key


def free_name(name: object, taken: set[str]) -> str:
    """`name` as an identifier that is not in `taken`, which it enters."""
    key = identifier(name)
    while key in taken:
        key += "_"
    taken.add(key)
    return key
