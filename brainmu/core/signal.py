"""A sampled signal, lazy: nothing is read until a span is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from brainmu.core.intervals import Intervals
from brainmu.core.units import canonical_unit
from brainmu.errors import InputError, MissingDataError

__all__ = ["KINDS", "LazyArray", "Signal", "channel_table"]

KINDS = ("lfp", "eeg", "emg", "eog", "ecg", "calcium", "photometry", "position", "speed", "behaviour", "features", "sync", "other")
"""What a channel measures. `features` are never filtered or resampled; `sync` never enters a model."""


@runtime_checkable
class LazyArray(Protocol):
    """Anything two-dimensional that reads a slice of rows when indexed: numpy, memmap, zarr, h5py, a file reader."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, key: Any, /) -> Any: ...


class _Columns:
    """A lazy array that shows some columns of another."""

    def __init__(self, base: LazyArray, columns: NDArray[np.intp]) -> None:
        self.base, self.columns = base, columns
        self.shape = (base.shape[0], len(columns))
        self.dtype = base.dtype

    def __getitem__(self, key: Any) -> NDArray[Any]:
        rows = key[0] if isinstance(key, tuple) else key
        block = np.asarray(self.base[rows])[..., self.columns]
        return block[(slice(None), *key[1:])] if isinstance(key, tuple) and len(key) > 1 else block


def channel_table(channels: Any, n: int, kind: str) -> pd.DataFrame:
    """The channel table of a signal: index 0..n-1, columns name, kind, region, x, y, z (and any more that came).

    `channels` is None, a list of names, or a DataFrame with at least `name`.
    """
    if channels is None:
        frame = pd.DataFrame({"name": [f"{kind}_{i}" for i in range(n)]})
    elif isinstance(channels, pd.DataFrame):
        frame = channels.reset_index(drop=True).copy()
    else:
        frame = pd.DataFrame({"name": [str(c) for c in channels]})
    if "name" not in frame:
        raise InputError(f"channel table has columns {list(frame.columns)}, expected at least 'name'")
    if len(frame) != n:
        raise InputError(f"{len(frame)} channel names for {n} channels of {kind}: give one name a column of values (time, channel)")
    if frame["name"].duplicated().any():
        twice = frame.loc[frame["name"].duplicated(), "name"].tolist()[0]
        raise InputError(f"channel name {twice!r} appears twice: channel names must differ within a signal")
    if "kind" not in frame:
        frame["kind"] = kind
    if "region" not in frame:
        frame["region"] = ""
    unknown = sorted(set(frame["kind"]) - set(KINDS))
    if unknown:
        raise InputError(f"channel kind {unknown[0]!r} is not known: use one of {', '.join(KINDS)}")
    return frame


@dataclass
class Signal:
    """Channels sampled together, on a regular grid or at given times.

    Parameters
    ----------
    values : array-like, (time, channel)
        Any :class:`LazyArray`. A one-dimensional array becomes one channel.
    rate : float or None, Hz
        Sampling rate, any positive number, also below 1. None for irregular signals.
    start : float, s
        Session time of the first sample.
    times : float64 (time,), s, or None
        Sample times of an irregular signal; strictly increasing.
    unit : str
        Physical unit of ``values * scale``. Unknown units are kept and flagged, never scaled.
    kind : str
        Default kind of the channels, one of :data:`KINDS`.
    channels : DataFrame, list of str or None
        One row a channel: name, kind, region, x, y, z.
    gaps : Intervals
        Spans without data (samples inside are missing).
    scale : float or (channel,) array
        What one step of `values` is in `unit` (1.0 for floats).
    missing : int or None
        The integer that marks a missing sample, if any. NaN marks it in floats.
    clock : str
        Name of the clock the stream was recorded on; "session" when aligned.
    attrs : dict
        Provenance: ``derived`` (what it was computed from), ``centred`` (True if a sample uses its future), …

    Raises
    ------
    InputError
        If shapes, rates or times do not fit together.
    """

    values: Any
    rate: float | None = None
    start: float = 0.0
    times: NDArray[np.float64] | None = None
    unit: str = ""
    kind: str = "other"
    channels: Any = None
    gaps: Intervals = field(default_factory=Intervals)
    scale: Any = 1.0
    missing: int | None = None
    clock: str = "session"
    attrs: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.values, LazyArray) or not hasattr(self.values, "shape"):
            self.values = np.asarray(self.values)
        if len(self.values.shape) == 1:
            self.values = np.asarray(self.values)[:, None]
        if len(self.values.shape) != 2:
            raise InputError(f"signal values have shape {tuple(self.values.shape)}, expected (time, channel)")
        if np.dtype(self.values.dtype).kind not in "fiub":
            raise InputError(f"signal values are of type {self.values.dtype}, expected numbers")
        n, c = self.values.shape
        if self.times is not None:
            if self.rate is not None:
                raise InputError("signal has both rate and times: give a rate (regular) or times (irregular), not both")
            self.times = np.asarray(self.times, dtype=np.float64)
            if self.times.shape != (n,):
                raise InputError(f"signal has {n} samples and times of shape {self.times.shape}, expected ({n},)")
            if not np.isfinite(self.times).all():
                raise InputError(f"signal times hold {int((~np.isfinite(self.times)).sum())} NaN or infinite values, expected finite seconds")
            if n > 1 and not (np.diff(self.times) > 0).all():
                bad = int(np.flatnonzero(np.diff(self.times) <= 0)[0])
                raise InputError(
                    f"signal times do not increase at sample {bad + 1} ({self.times[bad]:.6f} then {self.times[bad + 1]:.6f} s): sort them and drop duplicates"
                )
            self.start = float(self.times[0]) if n else 0.0
        else:
            if self.rate is None or not np.isfinite(self.rate) or self.rate <= 0:
                raise InputError(f"signal rate is {self.rate!r}, expected a positive number of Hz (or give times)")
            self.rate = float(self.rate)
            if not np.isfinite(self.start):
                raise InputError(f"signal start is {self.start!r}, expected finite seconds")
            self.start = float(self.start)
        if self.kind not in KINDS:
            raise InputError(f"signal kind {self.kind!r} is not known: use one of {', '.join(KINDS)}")
        self.channels = channel_table(self.channels, c, self.kind)
        self.unit = canonical_unit(self.unit)

    # -- size ---------------------------------------------------------------------------------------------------
    @property
    def n_samples(self) -> int:
        return int(self.values.shape[0])

    @property
    def n_channels(self) -> int:
        return int(self.values.shape[1])

    @property
    def names(self) -> list[str]:
        """Channel names."""
        return [str(n) for n in self.channels["name"]]

    @property
    def stop(self) -> float:
        """End of the last sample, s (exclusive)."""
        if self.times is not None:
            n = len(self.times)
            step = float(np.median(np.diff(self.times))) if n > 1 else 0.0
            return float(self.times[-1]) + step if n else self.start
        assert self.rate is not None
        return self.start + self.n_samples / self.rate

    @property
    def duration(self) -> float:
        return self.stop - self.start

    def __repr__(self) -> str:
        rate = "irregular" if self.rate is None else f"{self.rate:g} Hz"
        return f"Signal({self.kind}, {self.n_samples} x {self.n_channels}, {rate}, {self.start:.3f}-{self.stop:.3f} s, {self.unit or 'unit unknown'})"

    # -- reading ------------------------------------------------------------------------------------------------
    def index(self, time: float) -> int:
        """Index of the first sample at or after `time` (s), clipped to the signal."""
        if self.times is not None:
            return int(np.searchsorted(self.times, time, side="left"))
        assert self.rate is not None
        # A sample that lies within a millionth of a step of `time` counts as lying on it.
        return int(np.clip(np.ceil((time - self.start) * self.rate - 1e-6), 0, self.n_samples))

    def read(self, first: int = 0, last: int | None = None) -> NDArray[np.float32]:
        """Samples [first, last) as float32 (time, channel) in `unit`; missing samples are NaN."""
        last = self.n_samples if last is None else last
        raw = np.asarray(self.values[first:last])
        out = raw.astype(np.float32)
        if self.missing is not None and np.dtype(self.values.dtype).kind in "iu":
            out[raw == self.missing] = np.nan
        scale = np.asarray(self.scale, dtype=np.float32)
        if not (scale.ndim == 0 and scale == 1):
            out *= scale
        return out

    def read_times(self, first: int = 0, last: int | None = None) -> NDArray[np.float64]:
        """Times (n,), s, of samples [first, last)."""
        last = self.n_samples if last is None else last
        if self.times is not None:
            return self.times[first:last]
        assert self.rate is not None
        return self.start + np.arange(first, last) / self.rate

    def span(self, start: float, stop: float) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Times (n,), s, and values (n, channel) of the samples in [start, stop)."""
        i, j = self.index(start), self.index(stop)
        return self.read_times(i, j), self.read(i, j)

    def pick(self, which: Sequence[str] | Sequence[int] | NDArray[Any]) -> Signal:
        """The same signal with only some channels, by name, index or boolean mask; still lazy.

        Raises
        ------
        MissingDataError
            If a name is not a channel of the signal.
        """
        w = np.asarray(which)
        if w.dtype == bool:
            columns = np.flatnonzero(w)
        elif w.dtype.kind in "iu":
            columns = w.astype(np.intp)
        else:
            names = self.names
            absent = [str(x) for x in w if str(x) not in names]
            if absent:
                raise MissingDataError(f"channel {absent[0]!r} is not in the signal, which has {', '.join(names[:20])}")
            columns = np.array([names.index(str(x)) for x in w], dtype=np.intp)
        scale = np.asarray(self.scale)
        return Signal(
            values=_Columns(self.values, columns), rate=self.rate, start=self.start, times=self.times, unit=self.unit, kind=self.kind,
            channels=self.channels.iloc[columns], gaps=self.gaps, scale=scale[columns] if scale.ndim else self.scale,
            missing=self.missing, clock=self.clock, attrs=dict(self.attrs),
        )  # fmt: skip

    def with_values(self, values: Any) -> Signal:
        """The same signal with other values (time, channel), in `unit`; a plain Signal, wherever the old values lay."""
        return Signal(
            values=values, rate=self.rate, start=self.start, times=self.times, unit=self.unit, kind=self.kind, channels=self.channels, gaps=self.gaps,
            clock=self.clock, attrs=dict(self.attrs),
        )  # fmt: skip

    @classmethod
    def coerce(cls, name: str, value: Any) -> Signal:
        """A Signal from a Signal, or from a mapping of its arguments; errors name the signal."""
        if isinstance(value, Signal):
            return value
        if not isinstance(value, Mapping):
            raise InputError(f"signal {name!r} is a {type(value).__name__}, expected a Signal or dict(values=…, rate=…, unit=…, kind=…)")
        try:
            return cls(**value)
        except TypeError as error:
            raise InputError(f"signal {name!r}: {str(error).split('() ')[-1]}; expected values, rate or times, start, unit, kind, channels") from None
        except InputError as error:
            raise InputError(f"signal {name!r}: {error}") from None


def as_times(values: ArrayLike, what: str) -> NDArray[np.float64]:
    """Finite float64 seconds (n,), or an error that names `what`."""
    t = np.asarray(values, dtype=np.float64)
    t = np.atleast_1d(t)
    if t.ndim != 1:
        raise InputError(f"{what} have shape {t.shape}, expected (n,)")
    if not np.isfinite(t).all():
        raise InputError(f"{what} hold {int((~np.isfinite(t)).sum())} NaN or infinite values, expected finite seconds: drop them first")
    return t
