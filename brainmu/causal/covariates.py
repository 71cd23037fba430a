"""What a causal analysis adjusts for: signals read at or before the reference time, never later, and smooth bases."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from brainmu.core.recording import Recording
from brainmu.core.signal import Signal
from brainmu.errors import DesignError, MissingDataError

__all__ = ["natural_spline", "read_covariates", "spline_knots", "value_before"]

_BLOCK = 1 << 20  # samples read at a time


def read_covariates(recording: Recording, names: Sequence[str], times: NDArray[np.float64], window: float | None) -> tuple[list[str], NDArray[np.float64]]:
    """The named covariates at each reference time.

    Parameters
    ----------
    names : sequence of str
        Signals ("pressure": every channel enters) or single channels ("bands:delta").
    times : float64 (n,), s
        Reference times; nothing after them is read.
    window : float or None, s
        None reads the last sample at or before the reference time; otherwise the mean over (time - window, time].

    Returns
    -------
    Column names, and values float64 (n, columns); NaN where there is no sample.

    Raises
    ------
    MissingDataError
        If the recording lacks the signal or channel.
    DesignError
        If a signal's samples use their own future (``attrs["centred"]``).
    """
    columns, values = [], []
    for name in names:
        signal_name, _, channel = name.partition(":")
        if signal_name not in recording.signals:
            have = ", ".join(recording.signals) or "none"
            raise MissingDataError(
                f"{recording.id}: no signal {signal_name!r} to adjust for, the recording has {have}: compute it first, or drop it from adjust"
            )
        signal = recording.signals[signal_name]
        if signal.attrs.get("centred"):
            raise DesignError(
                f"{recording.id}: signal {signal_name!r} is centred (its samples use their own future), so it may already know the outcome: "
                "recompute it from the past only, or drop it from adjust"
            )
        if channel:
            signal = signal.pick([channel])
        block = value_before(signal, times, window)
        columns += [f"{signal_name}:{c}" if signal.n_channels > 1 or channel else signal_name for c in signal.names]
        values.append(block)
    return columns, np.concatenate(values, axis=1) if values else np.empty((len(times), 0))


def value_before(signal: Signal, times: NDArray[np.float64], window: float | None = None) -> NDArray[np.float64]:
    """The last sample of `signal` at or before each time (n, channel), or the mean over the `window` seconds ending there.

    A sample stamped within a millionth of a step of the time counts as being at it. Before the first sample, more than one step after
    the last, and where the sample is missing, the value is NaN.
    """
    t = np.asarray(times, dtype=np.float64)
    out = np.full((len(t), signal.n_channels), np.nan)
    last = _index_before(signal, t)
    first = last if window is None else _index_before(signal, t - window) + 1
    step = signal.stop - float(signal.read_times(signal.n_samples - 1)[0]) if signal.n_samples else 0.0
    ok = (last >= 0) & (t < signal.stop + step) & (last >= first)
    first = np.maximum(first, 0)
    rows = np.flatnonzero(ok)
    rows = rows[np.lexsort((first[rows], last[rows]))]
    i = 0
    while i < len(rows):
        # Rows are in time order and the window is constant, so the first row's window begins earliest.
        lo = int(first[rows[i]])
        j = int(np.searchsorted(last[rows], lo + _BLOCK, side="right"))
        j = max(j, i + 1)
        chunk = rows[i:j]
        hi = int(last[chunk].max()) + 1
        values = signal.read(lo, hi).astype(np.float64)
        if window is None:
            out[chunk] = values[last[chunk] - lo]
        else:
            out[chunk] = _means(values, first[chunk] - lo, last[chunk] - lo + 1)
        i = j
    return out


def _means(values: NDArray[np.float64], first: NDArray[np.int64], stop: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean over rows [first, stop) of the samples that are there; NaN where none is."""
    there = np.isfinite(values)
    zero = np.zeros((1, values.shape[1]))
    total = np.concatenate([zero, np.cumsum(np.where(there, values, 0.0), axis=0)])
    count = np.concatenate([zero, np.cumsum(there, axis=0)])
    n = count[stop] - count[first]
    return np.where(n > 0, (total[stop] - total[first]) / np.maximum(n, 1), np.nan)


def _index_before(signal: Signal, t: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index of the last sample at or before each time; -1 before the first."""
    if signal.times is not None:
        return np.searchsorted(signal.times, t + 1e-9, side="right").astype(np.int64) - 1
    assert signal.rate is not None
    k = np.floor((t - signal.start) * signal.rate + 1e-6).astype(np.int64)
    return np.clip(k, -1, signal.n_samples - 1)


def spline_knots(x: NDArray[np.float64], df: int) -> NDArray[np.float64]:
    """Knots of a natural cubic spline with `df` columns, at quantiles; fewer where values coincide."""
    inner = np.quantile(x, np.linspace(0, 1, df + 1)) if len(x) else np.empty(0)
    knots = np.unique(inner)
    # The outer knots leave the extreme 2 % to the linear tails.
    if len(knots) > 2:
        knots[0], knots[-1] = np.quantile(x, [0.02, 0.98])
        knots = np.unique(knots)
    return knots


def natural_spline(x: NDArray[np.float64], knots: NDArray[np.float64]) -> NDArray[np.float64]:
    """Natural cubic spline basis without intercept: (n, len(knots) - 1), linear beyond the outer knots.

    With fewer than three knots it is `x` itself (n, 1).

    References
    ----------
    Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, 5.2.1 (2009).
    """
    x = np.asarray(x, dtype=np.float64)
    low, high = (float(knots[0]), float(knots[-1])) if len(knots) > 1 else (0.0, 1.0)
    span = high - low if high > low else 1.0
    z = (x - low) / span
    if len(knots) < 3:
        return z[:, None]
    k = (knots - low) / span
    cube = np.maximum(z[:, None] - k, 0.0) ** 3
    d = (cube[:, :-1] - cube[:, -1:]) / (k[-1] - k[:-1])
    return np.c_[z, d[:, :-1] - d[:, -1:]]
