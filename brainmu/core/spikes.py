"""Sorted spike times with the table of the units that fired them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from brainmu.core.signal import as_times
from brainmu.errors import InputError, MissingDataError

__all__ = ["Spikes"]


class Spikes:
    """Spike times of many units, sorted by time.

    Parameters
    ----------
    times : float64 (n,), s
        Spike times. Sorted on construction together with `unit_id` (no spike is lost by it).
    unit_id : int32 (n,)
        Which unit fired: values of ``units["id"]``.
    units : DataFrame or None
        One row a unit: id, region, quality and any waveform features. None lists the ids that fired.

    Raises
    ------
    InputError
        If lengths differ, times are not finite, ids are not whole numbers, or a spike names a unit that is not in the table.

    Examples
    --------
    >>> s = Spikes([0.2, 0.1, 0.3], [7, 3, 7])
    >>> s.times.tolist(), s.unit_id.tolist(), s.of(7).tolist()
    ([0.1, 0.2, 0.3], [3, 7, 7], [0.2, 0.3])
    """

    __slots__ = ("times", "unit_id", "units")

    def __init__(self, times: ArrayLike, unit_id: ArrayLike, units: pd.DataFrame | None = None) -> None:
        t = as_times(times, "spike times")
        raw = np.atleast_1d(np.asarray(unit_id))
        if raw.shape != t.shape:
            raise InputError(f"{len(t)} spike times and {raw.shape} unit ids: give one id a spike")
        if len(raw) and (raw.dtype.kind not in "iuf" or (raw.astype(np.int32) != raw).any()):
            raise InputError(f"unit ids are of type {raw.dtype}, expected whole numbers that fit int32")
        u = raw.astype(np.int32)
        if units is None:
            units = pd.DataFrame({"id": np.unique(u)})
        units = units.reset_index(drop=True).copy()
        if "id" not in units:
            raise InputError(f"units table has columns {list(units.columns)}, expected at least 'id'")
        units["id"] = units["id"].astype(np.int32)
        if units["id"].duplicated().any():
            raise InputError(f"unit id {units.loc[units['id'].duplicated(), 'id'].tolist()[0]} appears twice in the units table")
        stray = np.setdiff1d(u, units["id"])
        if len(stray):
            raise InputError(f"spikes name unit {stray[0]}, which is not in the units table ({len(units)} units)")
        if "region" not in units:
            units["region"] = ""
        if "quality" not in units:
            units["quality"] = ""
        if len(t) > 1 and (np.diff(t) < 0).any():
            order = np.argsort(t, kind="stable")
            t, u = t[order], u[order]
        self.times: NDArray[np.float64] = t
        self.unit_id: NDArray[np.int32] = u
        self.units: pd.DataFrame = units

    def __len__(self) -> int:
        return len(self.times)

    @property
    def n_units(self) -> int:
        return len(self.units)

    def __repr__(self) -> str:
        if not len(self):
            return f"Spikes(0 spikes, {self.n_units} units)"
        return f"Spikes({len(self)} spikes, {self.n_units} units, {self.times[0]:.3f}-{self.times[-1]:.3f} s)"

    def of(self, unit: int) -> NDArray[np.float64]:
        """Spike times (n,), s, of one unit."""
        return self.times[self.unit_id == unit]

    def span(self, start: float, stop: float) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Times (n,), s, and unit ids (n,) of the spikes in [start, stop)."""
        i, j = np.searchsorted(self.times, [start, stop], side="left")
        return self.times[i:j], self.unit_id[i:j]

    def pick(self, ids: ArrayLike) -> Spikes:
        """Only the units with these ids (their order in the table is kept)."""
        wanted = np.asarray(ids)
        absent = np.setdiff1d(wanted, self.units["id"])
        if len(absent):
            raise MissingDataError(f"unit {absent[0]} is not among the {self.n_units} units of the recording")
        keep = np.isin(self.unit_id, wanted)
        return Spikes(self.times[keep], self.unit_id[keep], self.units.loc[np.isin(self.units["id"].to_numpy(), wanted)])

    def counts(self, edges: ArrayLike) -> NDArray[np.int32]:
        """Spike counts (bin, unit) between consecutive `edges` (n+1,), s; columns follow the units table.

        Bins are half-open; a spike at the last edge is not counted.
        """
        e = np.asarray(edges, dtype=np.float64)
        times, ids = self.span(e[0], e[-1])
        b = np.searchsorted(e, times, side="right") - 1
        return self._tally(b, ids, len(e) - 1)

    def window_counts(self, starts: ArrayLike, n_bins: ArrayLike, bin_size: float) -> list[NDArray[np.int32]]:
        """Spike counts (bin, unit) of many windows at once: `n_bins` (window,) bins of `bin_size` s from each of `starts` (window,), s.

        As `counts` for the edges ``start + bin_size * arange(n_bins + 1)`` of each window; windows may overlap.
        """
        a, n = np.asarray(starts, dtype=np.float64), np.asarray(n_bins, dtype=np.int64)
        first, last = np.searchsorted(self.times, a), np.searchsorted(self.times, a + bin_size * n)
        many = last - first
        window = np.repeat(np.arange(len(a)), many)
        row = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many) + first[window]
        t = self.times[row]
        b = np.clip(((t - a[window]) / bin_size).astype(np.int64), 0, n[window] - 1)
        # Division and multiplication round differently: the edge itself decides.
        b -= a[window] + bin_size * b > t
        b += a[window] + bin_size * (b + 1) <= t
        offset = np.cumsum(n) - n
        counts = self._tally(offset[window] + b, self.unit_id[row], int(n.sum()))
        return [counts[i : i + k] for i, k in zip(offset, n)]

    def _tally(self, bins: NDArray[np.int64], ids: NDArray[np.int32], n: int) -> NDArray[np.int32]:
        """How many spikes (bin, unit) there are of each unit in each of `n` bins."""
        known = self.units["id"].to_numpy()
        order = np.argsort(known)
        column = order[np.searchsorted(known[order], ids)]
        return np.bincount(bins * self.n_units + column, minlength=n * self.n_units).reshape(n, self.n_units).astype(np.int32)

    @classmethod
    def coerce(cls, value: Any) -> Spikes:
        """Spikes from Spikes or from ``dict(times=…, unit=…, units=…)``."""
        if isinstance(value, Spikes):
            return value
        if not isinstance(value, Mapping):
            raise InputError(f"spikes are a {type(value).__name__}, expected Spikes or dict(times=…, unit=…)")
        v = dict(value)
        ids = v.pop("unit", None) if "unit" in v else v.pop("unit_id", None)
        extra = sorted(set(v) - {"times", "units"})
        if extra or "times" not in v or ids is None:
            raise InputError(f"spikes have keys {sorted(value)}, expected times, unit and optionally units")
        return cls(v["times"], ids, v.get("units"))
