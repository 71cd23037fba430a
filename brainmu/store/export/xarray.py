"""A recording as an xarray.DataTree with times, lazily."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core.indexing import IndexingSupport, IndexSelResult, LazilyIndexedArray, explicit_indexing_adapter
from xarray.indexes import RangeIndex

from brainmu.core import Hypnogram, Intervals, Recording, Signal
from brainmu.core.recording import Label
from brainmu.store.export.choosing import samples

__all__ = ["TimeIndex", "to_xarray"]


def to_xarray(recording: Recording) -> xr.DataTree:
    """A DataTree with times: ``/signals/<name>``, ``/spikes``, ``/labels/<name>``.

    A signal's `values` (time, channel) are read when computed, in its unit with NaN where missing; its `time` (s) is a lazy range for regular
    signals. ``channel`` holds names, and the channel table follows as coordinates (`kind`, `region`, …). Spikes lie along ``spike``, the columns
    of the units table as ``unit_<name>`` along ``unit``; hypnograms along ``time``, events along ``event``, intervals along ``interval``.
    Slashes in names become underscores.

    Examples
    --------
    >>> tree = session.to_xarray()  # doctest: +SKIP
    >>> tree["signals/lfp"]["values"].sel(time=slice(600, 660), channel="CA1_1").plot()  # doctest: +SKIP
    """
    about = {"id": recording.id, "subject": recording.subject, "species": recording.species}
    if recording.started_at is not None:
        about["started_at"] = recording.started_at.isoformat()
    nodes: dict[str, Any] = {"/": xr.Dataset(attrs=about)}
    for name, s in recording.signals.items():
        nodes[f"/signals/{_leaf(name)}"] = _signal_dataset(s)
    if recording.spikes is not None:
        sp = recording.spikes
        units = {f"unit_{_leaf(c)}": ("unit", _column(sp.units[c])) for c in sp.units.columns if c != "id"}
        nodes["/spikes"] = xr.Dataset(
            {"time": ("spike", sp.times, {"units": "s"}), "unit_id": ("spike", sp.unit_id), **units}, coords={"unit": sp.units["id"].to_numpy()}
        )
    for name, label in recording.labels.items():
        nodes[f"/labels/{_leaf(name)}"] = _label_dataset(label)
    return xr.DataTree.from_dict(nodes)


def _signal_dataset(s: Signal) -> xr.Dataset:
    if s.rate is not None:
        index = TimeIndex.linspace(s.start, s.start + s.n_samples / s.rate, s.n_samples, endpoint=False, dim="time")
        coordinates = xr.Coordinates.from_xindex(index)
    else:
        coordinates = xr.Coordinates({"time": s.read_times()})
    values = xr.Variable(("time", "channel"), LazilyIndexedArray(_Samples(s)), {"units": s.unit, "kind": s.kind})
    attrs = {"rate": s.rate, "start": s.start, "gaps": s.gaps.bounds.ravel().tolist()} if s.rate is not None else {"gaps": s.gaps.bounds.ravel().tolist()}
    data = xr.Dataset({"values": values}, coords=coordinates, attrs=attrs)
    table = {_channel_column(c): ("channel", _column(s.channels[c])) for c in s.channels.columns}
    data = data.assign_coords(table)
    data["time"].attrs["units"] = "s"
    return data


class TimeIndex(RangeIndex):
    """The times of a regular signal without storing them; ``sel`` takes spans (both ends included, as in pandas) as well as nearest times."""

    def isel(self, indexers: Any) -> Any:
        found = super().isel(indexers)
        return TimeIndex(found.transform) if isinstance(found, RangeIndex) else found  # type: ignore[arg-type]

    def sel(self, labels: dict[Any, Any], method: str | None = None, tolerance: Any = None) -> Any:
        label = labels[self.dim]
        if method is not None or (isinstance(label, slice) and label.step is not None):
            return super().sel(labels, method=method, tolerance=tolerance)
        if not isinstance(label, slice):
            place = (np.asarray(label, dtype=np.float64) - self.start) / self.step
            off = (np.abs(place - np.rint(place)) > 1e-3) | (np.rint(place) < 0) | (np.rint(place) >= self.size)
            if off.any():
                raise KeyError(f"{np.asarray(label)[off].ravel()[0]} s is not the time of a sample: use method='nearest', or a slice")
            return super().sel(labels, method="nearest", tolerance=tolerance)
        # As in Signal.index: what lies within a millionth of a step of a sample lies on it.
        first = 0 if label.start is None else int(np.clip(np.ceil((label.start - self.start) / self.step - 1e-6), 0, self.size))
        last = self.size if label.stop is None else int(np.clip(np.floor((label.stop - self.start) / self.step + 1e-6) + 1, first, self.size))
        return IndexSelResult({self.dim: slice(first, last)})


class _Samples(BackendArray):
    """The samples as xarray's own lazy array: float32, read by block when computed."""

    def __init__(self, signal: Signal) -> None:
        self.signal = signal
        self.shape = (signal.n_samples, signal.n_channels)
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: Any) -> Any:
        return explicit_indexing_adapter(key, self.shape, IndexingSupport.BASIC, self._read)

    def _read(self, key: tuple[Any, ...]) -> Any:
        rows, columns = key
        if not isinstance(rows, slice):
            k = int(rows) % self.shape[0]
            return samples(self.signal, k, k + 1)[0][columns]
        # Only the span asked for is read; the step is applied within it.
        picked = range(*rows.indices(self.shape[0]))
        low, high = (min(picked), max(picked) + 1) if len(picked) else (0, 0)
        block = samples(self.signal, low, high)[:: abs(picked.step)]
        return (block[::-1] if picked.step < 0 else block)[:, columns]


def _label_dataset(label: Label) -> xr.Dataset:
    if isinstance(label, Hypnogram):
        data = {"stage": ("time", np.asarray(label.stages_list(), dtype=object))}
        coordinates: dict[str, Any] = {"time": ("time", label.times, {"units": "s"})}
        if label.proba is not None:
            data["proba"] = (("time", "stage_name"), label.proba)  # type: ignore[assignment]
            coordinates["stage_name"] = np.asarray(label.stages, dtype=object)
        return xr.Dataset(data, coords=coordinates, attrs={"epoch": label.epoch, "scorer": label.scorer, "stages": list(label.stages)})
    if isinstance(label, Intervals):
        return xr.Dataset({"start": ("interval", label.start), "stop": ("interval", label.stop)})
    frame = label.to_frame()
    return xr.Dataset({_leaf(c): ("event", _column(frame[c])) for c in frame.columns})


def _leaf(name: object) -> str:
    """A name that a DataTree takes: slashes lead into groups there."""
    return str(name).replace("/", "_")


def _channel_column(name: object) -> str:
    return "channel" if name == "name" else f"{_leaf(name)}_" if name in ("time", "values", "channel") else _leaf(name)


def _column(values: Any) -> NDArray[Any]:
    """A table's column as an array; text as objects (numpy's fixed-width text warns in zarr)."""
    return values.to_numpy() if values.dtype.kind in "iufb" else np.asarray(values.tolist(), dtype=object)
