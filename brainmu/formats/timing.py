"""Sample times to a regular grid where they are one, with gaps where pieces are missing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainmu.core import Intervals
from brainmu.errors import FormatError, InputError
from brainmu.formats.lazy import Spread
from brainmu.formats.tables import decimal_comma

__all__ = ["TIME_UNITS", "Grid", "as_grid", "lay_out", "seconds", "settled_unit", "unit_in_name"]

TIME_UNITS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0, "h": 3600.0}
_SPELLINGS = {
    "s": "s sec secs second seconds", "ms": "ms msec msecs millisecond milliseconds", "us": "us usec µs μs microsecond microseconds",
    "min": "min mins minutes", "h": "h hr hours", "samples": "samples",
}  # fmt: skip
_UNIT_OF = {word: unit for unit, words in _SPELLINGS.items() for word in words.split()}
_NAMED_UNIT = re.compile(rf"^(.*?)[\s_]*[(\[_\s]\s*({'|'.join(sorted(_UNIT_OF, key=len, reverse=True))})\s*[)\]]?$")


@dataclass(frozen=True)
class Grid:
    """A uniform grid (`rate` Hz, `start` s) and where pieces of samples lie on it; one piece if nothing is missing."""

    rate: float
    start: float
    first: NDArray[np.int64]
    length: NDArray[np.int64]

    @property
    def gaps(self) -> Intervals:
        """Spans between the pieces, s."""
        return Intervals(self.start + np.c_[(self.first + self.length)[:-1], self.first[1:]] / self.rate)


def as_grid(times: ArrayLike, tolerance: float = 0.02) -> Grid | None:
    """The uniform grid on which `times` (n,), s, lie within `tolerance` of a step; None if they lie on none.

    Missing samples leave gaps; more than half of the grid missing, or more than one gap in twenty samples, is not a grid.
    """
    t = np.asarray(times, dtype=np.float64)
    n = len(t)
    if n < 3:
        return None
    steps = np.diff(t)
    step = float(np.median(steps))
    if step <= 0 or (steps <= 0).any():
        return None
    # Refine the step on the stretches without a gap, so that a whole day's rounding does not add up.
    whole = np.rint(steps / step)
    if (whole < 1).any():
        return None
    single = whole == 1
    if (~single).sum() * 20 > n:
        return None
    index = np.concatenate([[0], np.cumsum(whole)])
    fit = np.polynomial.polynomial.polyfit(index, t - t[0], 1)
    resid = t - t[0] - np.polynomial.polynomial.polyval(index, fit)
    if np.abs(resid).max() > tolerance * fit[1] or index[-1] + 1 > 2 * n:
        return None
    new = np.flatnonzero(np.r_[True, ~single])
    return Grid(_tidy(1.0 / float(fit[1])), float(t[0]), index[new].astype(np.int64), np.diff(np.r_[new, n]).astype(np.int64))


def lay_out(values: Any, times: ArrayLike) -> dict[str, Any]:
    """Arguments of a Signal for `values` (time, channel) sampled at `times`: a rate where they are even (with gaps where pieces miss)."""
    t = np.asarray(times, dtype=np.float64)
    grid = as_grid(t)
    if grid is None:
        return {"values": values, "times": t}
    if len(grid.first) == 1:
        return {"values": values, "rate": grid.rate, "start": grid.start}
    return {"values": Spread(values, grid.first, grid.length), "rate": grid.rate, "start": grid.start, "gaps": grid.gaps}


def _tidy(rate: float) -> float:
    """1249.9999999997 Hz, the rounding of a time stamp, is 1250 Hz; a true clock error (parts per million) stays."""
    for digits in (0, 3):
        near = round(rate, digits)
        if near and abs(rate - near) < 1e-8 * rate:
            return float(near)
    return rate


def seconds(values: ArrayLike, unit: str, rate: float | None, where: str) -> NDArray[np.float64]:
    """Times in `unit` ("s", "ms", "us", "min", "h", or "samples" with `rate`) as float64 s, raveled."""
    try:
        t = np.asarray(values, dtype=np.float64).ravel()
    except (ValueError, TypeError) as error:
        if comma := next((c for c in np.asarray(values, dtype=object).ravel() if decimal_comma(c)), None):
            raise FormatError(f"{where}: time {comma!r} has a decimal comma: save the table with decimal points") from None
        raise FormatError(f"{where}: times are not all numbers ({error}): choose the right column, or drop those rows") from None
    if unit == "samples":
        if rate is None or not rate > 0:
            raise FormatError(f"{where}: times are in samples and the sampling rate is {rate!r}: give rate (Hz)")
        return t / rate
    if unit not in TIME_UNITS:
        raise FormatError(f"{where}: time_unit is {unit!r}, expected one of {', '.join(TIME_UNITS)}, samples")
    return t * TIME_UNITS[unit]


def unit_in_name(column: object) -> tuple[str, str | None]:
    """The name of a column without the unit of time that it ends in, and that unit: onset_ms, time (s)."""
    word = str(column).strip().lower()
    match = _NAMED_UNIT.match(word)
    return (match.group(1).strip(), _UNIT_OF[match.group(2)]) if match else (word, None)


def settled_unit(column: object, own: str | None, said: str | None, where: str) -> str:
    """The unit of a column of times: what its name says (`own`) or what was said (`said`), "s" where neither is; both must agree."""
    if own is not None and said is not None and own != said:
        raise InputError(f"{where}: column {str(column)!r} says {own} and time_unit is {said!r}: leave time_unit out, or rename the column")
    return own or said or "s"
