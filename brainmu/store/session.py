"""An opened store: a Recording whose samples stay on disk and are read as fast as they can be copied."""

from __future__ import annotations

import functools
import json
import math
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import Intervals, Recording, Signal, Spikes, Window
from brainmu.core.recording import Label
from brainmu.core.window import SampleTimes
from brainmu.errors import InputError, NotFoundError, StoreError
from brainmu.store import export
from brainmu.store.arrays import ChunkCache, MappedArray, read_array
from brainmu.store.layout import MISSING, ArrayLayout
from brainmu.store.parts import read_label, read_spikes, stored_gaps
from brainmu.store.places import WORK, LocalPlace, Place, RemotePlace, place_of
from brainmu.store.tables import read_table
from brainmu.store.values import decode

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["SCHEMA", "Session", "StoredSignal", "is_store", "open"]

SCHEMA = 1
_RAMP = np.arange(1 << 16, dtype=np.float64)  # counting anew takes twice as long as adding to it


class StoredSignal(Signal):
    """A Signal in a store. It reads without intermediate copies."""

    def index(self, time: float) -> int:
        """Index of the first sample at or after `time` (s), clipped to the signal."""
        if self.times is not None:
            return int(self.times.searchsorted(time))
        # As in Signal.index, without numpy's overhead on single numbers.
        n = self.values.shape[0]
        k = (time - self.start) * self.rate - 1e-6  # type: ignore[operator]
        return 0 if not k > 0 else n if k >= n else math.ceil(k)

    def read(self, first: int = 0, last: int | None = None) -> NDArray[np.float32]:
        """Samples [first, last) as float32 (time, channel) in `unit`; missing samples are NaN."""
        values = self.values
        n, channels = values.shape
        i, j = (first, last) if last is not None and 0 <= first <= last <= n else slice(first, last).indices(n)[:2]
        out = np.empty((max(j - i, 0), channels), dtype=np.float32)
        if j <= i:
            return out
        if self.missing is None:  # stored as float32
            values.fill(out, i, j)
            return out
        at, scale = 0, np.float32(self.scale)
        for raw in values.pieces(i, j):  # a piece fits the processor's cache
            part = out[at : at + len(raw)]
            np.multiply(raw, scale, out=part)
            if raw.size and raw.min() == MISSING:  # the lowest of int16
                part[raw == MISSING] = np.nan
            at += len(raw)
        return out

    def read_times(self, first: int = 0, last: int | None = None) -> NDArray[np.float64]:
        """Times (n,), s, of samples [first, last)."""
        if self.times is not None:
            return self.times[first:last]
        assert self.rate is not None
        n = (self.values.shape[0] if last is None else last) - first
        out: NDArray[np.float64] = _RAMP[:n] + first if 0 <= n <= len(_RAMP) else np.arange(first, first + n, dtype=np.float64)
        out /= self.rate
        if self.start:
            out += self.start
        return out


class Session(Recording):
    """A recording in a store, opened by :func:`open`. Signals, spikes and labels are read when first asked for.

    Attributes
    ----------
    path : Path, or str
        Of a local store; the URL of a remote one.
    tree : xarray.DataTree
        The whole store as xarray sees it, lazily.
    provenance : dict
        schema, brainmu_version, config and its checksum, sources (name, size, sha256), content_sha256, clocks, warnings, identity.
    already_complete : bool
        True where :func:`brainmu.preprocess` found the store finished.
    """

    path: Any

    def __init__(
        self, path: str | Path, *, cache_mib: int = 256, check: bool = False, storage_options: dict[str, Any] | None = None
    ) -> None:  # fmt: skip
        if not 0 <= cache_mib <= 1 << 20:
            raise InputError(f"cache_mib is {cache_mib!r}, expected 0 or more MiB")
        self._place = place_of(path, storage_options)
        self.path = self._place.path if isinstance(self._place, LocalPlace) else str(self._place)
        self._options = {"cache_mib": cache_mib, "check": check, "storage_options": storage_options}
        self.already_complete = False
        self._nodes = _metadata(self._place)
        self._cache, self._check = ChunkCache(cache_mib << 20), check
        root = self._nodes[""]["attributes"]
        self.id, self.subject, self.species = root["id"], root["subject"], root["species"]
        self.started_at = datetime.fromisoformat(root["started_at"]) if root["started_at"] else None
        self.zeitgeber = decode(root["zeitgeber"])
        self.subject_meta, self.clocks = decode(root["subject_meta"]), decode(root["clocks"])
        # A remote store is no file whose checksum could be taken: as the source of another store its content is.
        files = [str(self.path.absolute() / ".sha256")] if isinstance(self.path, Path) else []
        self.source = {"format": "brainmu store", "files": files, "warnings": list(root["warnings"])}

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process opens the store itself; nothing mapped or connected crosses.
        return _reopen, (self.path, self._options)

    # -- what is in it --------------------------------------------------------------------------------------------
    @functools.cached_property
    def signals(self) -> dict[str, Signal]:  # type: ignore[override]
        """{name: Signal}, lazy."""
        self._prefetch("signals", "quality")
        return {attrs["name"]: self._signal(group, attrs) for group, attrs in self._groups("signals")}

    @functools.cached_property
    def spikes(self) -> Spikes | None:  # type: ignore[override]
        """The spikes, or None."""
        self._prefetch("spikes")
        return read_spikes(self._read, self._nodes["spikes/units"]["attributes"]) if "spikes" in self._nodes else None

    @functools.cached_property
    def labels(self) -> dict[str, Label]:  # type: ignore[override]
        """{name: Hypnogram, EventTable or Intervals}."""
        self._prefetch("labels")
        return {attrs["name"]: read_label(self._read, group, attrs) for group, attrs in self._groups("labels")}

    def quality(self, signal: str) -> pd.DataFrame:
        """What is wrong with a signal: kind (gap, missing, flat, saturated), channel ("" for all), start and stop (s)."""
        for group, attrs in self._groups("quality"):
            if attrs["name"] == signal:
                return read_table(self._read, group, attrs["columns"], attrs["n"])
        raise NotFoundError(f"{self.path}: has no signal {signal!r}, it has {', '.join(self.signals) or 'none'}")

    def channel_quality(self, signal: str) -> pd.DataFrame:
        """A row a channel: name, dead, deviation (in the signal's unit), and the shares of time missing, flat and saturated."""
        for group, attrs in self._groups("quality"):
            if attrs["name"] == signal:
                n = self._layout(f"{group}/{attrs['channel_columns'][0]['array']}").shape[0]
                return read_table(self._read, group, attrs["channel_columns"], n)
        raise NotFoundError(f"{self.path}: has no signal {signal!r}, it has {', '.join(self.signals) or 'none'}")

    @property
    def provenance(self) -> dict[str, Any]:
        """What the store was made from, with what, and what was noticed."""
        root = self._nodes[""]["attributes"]
        keys = ("brainmu_version", "config", "config_sha256", "sources", "content_sha256", "identity", "warnings")
        return {"schema": root["brainmu_schema"], **{k: root[k] for k in keys}, "source": decode(root["source"]), "clocks": decode(root["clocks"])}

    @functools.cached_property
    def tree(self) -> xr.DataTree:
        """The store as an xarray.DataTree, lazily."""
        import xarray as xr

        options = self._options["storage_options"]
        return xr.open_datatree(self.path, engine="zarr", **({"storage_options": options} if options else {}))

    def window(self, start: float, stop: float) -> Window:
        """Every modality in [start, stop), s. Raises InputError unless start < stop."""
        if not start < stop:
            raise InputError(f"window [{start}, {stop}) is empty, expected start < stop")
        signals, times = {}, {}
        if self._remote:
            self._fetch(start, stop)
        for name, s in self.signals.items():
            i, j = s.index(start), s.index(stop)
            signals[name], times[name] = s.read(i, j), functools.partial(s.read_times, i, j)
        spikes = self.spikes
        when, who = spikes.span(start, stop) if spikes is not None else (np.empty(0), np.empty(0, dtype=np.int32))
        return Window(self.id, start, stop, signals, SampleTimes(times), when, who)

    # -- reading --------------------------------------------------------------------------------------------------
    def _groups(self, parent: str) -> list[tuple[str, dict[str, Any]]]:
        depth = parent.count("/") + 1
        found = [(k, n["attributes"]) for k, n in self._nodes.items() if k.startswith(parent + "/") and k.count("/") == depth and n["node_type"] == "group"]
        order = self._nodes.get(parent, {}).get("attributes", {}).get("order", [])
        return sorted(found, key=lambda g: order.index(g[0].rpartition("/")[2]))

    def _layout(self, name: str) -> ArrayLayout:
        if name not in self._nodes:
            raise StoreError(f"{self.path}: holds no array {name}: the store is damaged, make it again with --overwrite")
        return ArrayLayout.from_metadata(self._nodes[name], f"{self.path}/{name}")

    def _read(self, name: str) -> Any:
        return read_array(self._place, name, self._layout(name))

    def _prefetch(self, *parts: str) -> None:
        """Have the small arrays of these parts fetched together: one by one, a distant store answers slowly."""
        if not self._remote:
            return
        layouts = {k: self._layout(k) for k, n in self._nodes.items() if k.partition("/")[0] in parts and n["node_type"] == "array"}
        self._place.prefetch(f"{k}/{layout.key(i)}" for k, layout in layouts.items() if layout.shard is None for i in range(layout.n_files))

    @property
    def _remote(self) -> bool:
        return isinstance(self._place, RemotePlace)

    def _fetch(self, start: float, stop: float) -> None:
        """Have the samples of all signals in [start, stop) fetched together, where the cache can hold them."""
        from brainmu.store.ranges import RangedArray, at_once, fetch

        arrays = [(s.values, s.values.missing(s.index(start), s.index(stop))) for s in self.signals.values() if isinstance(s.values, RangedArray)]
        if sum(len(chunks) * a.layout.chunk * a.layout.row_bytes for a, chunks in arrays) <= at_once(self._cache):
            fetch(arrays)

    def _samples(self, name: str, layout: ArrayLayout) -> Any:
        if isinstance(self._place, RemotePlace):
            from brainmu.store.ranges import RangedArray

            return RangedArray(self._place, name, layout, self._cache)
        return MappedArray(self._place, name, layout, self._cache, root=self.path, check=self._check)

    def _signal(self, group: str, attrs: dict[str, Any]) -> Signal:
        layout = self._layout(f"{group}/values")
        quality = self._nodes[f"quality/{group.removeprefix('signals/')}"]["attributes"]
        gaps = Intervals()
        if quality["n"]:
            gaps = stored_gaps(read_table(self._read, f"quality/{group.removeprefix('signals/')}", quality["columns"], quality["n"]))
        times = None if attrs["rate"] is not None else self._read(f"{group}/times")
        sixteen = layout.dtype == "int16"
        return StoredSignal(
            self._samples(f"{group}/values", layout), attrs["rate"], attrs["start"], times, attrs["unit"], attrs["kind"],
            read_table(self._read, group, attrs["columns"], layout.shape[1]), gaps, layout.attrs["scale_factor"] if sixteen else 1.0,
            MISSING if sixteen else None, attrs["clock"], decode(attrs["attrs"]),
        )  # fmt: skip

    # -- doors out ------------------------------------------------------------------------------------------------
    def to_pynapple(self, **options: Any) -> dict[str, Any]:
        """Everything as pynapple objects by name; see :func:`brainmu.store.export.to_pynapple`."""
        return export.to_pynapple(self, **options)

    def to_mne(self, **options: Any) -> Any:
        """Signals of one rate as ``mne.io.RawArray``; see :func:`brainmu.store.export.to_mne`."""
        return export.to_mne(self, **options)

    def to_torch_brain(self, **options: Any) -> Any:
        """``temporaldata.Data`` for torch_brain; see :func:`brainmu.store.export.to_torch_brain`."""
        return export.to_torch_brain(self, **options)

    def to_nwb(self, path: str | Path, **options: Any) -> Path:
        """Write an NWB 2 file; see :func:`brainmu.store.export.to_nwb`."""
        return export.to_nwb(self, path, **options)

    def to_xarray(self) -> xr.DataTree:
        """Signals, spikes and labels with times, lazily; see :func:`brainmu.store.export.to_xarray`."""
        return export.to_xarray(self)


def open(
    path: str | Path, *, cache_mib: int = 256, check: bool = False, storage_options: dict[str, Any] | None = None
) -> Session:  # fmt: skip
    """Open a store.

    Parameters
    ----------
    path : path or URL
        A store that :func:`brainmu.preprocess` wrote: a folder, or any URL that fsspec reaches (``s3://bucket/x.zarr``, ``https://…``).
    cache_mib : int, MiB
        Memory for decoded chunks of compressed and of remote stores; uncompressed local ones are mapped and need none.
    check : bool
        Check the crc32c of every chunk of uncompressed local samples when it is first touched. Compressed and remote chunks always are.
    storage_options : dict
        For fsspec: credentials, ``endpoint_url``, ``anon``, …

    Raises
    ------
    NotFoundError
        If there is nothing at `path`.
    StoreError
        If it is no store, an unfinished one, one of a newer schema, a damaged one, or cannot be reached.
    """
    return Session(path, cache_mib=cache_mib, check=check, storage_options=storage_options)


def is_store(path: str | Path | Place) -> bool:
    """Whether a brainmu store (of any schema, whole or damaged) lies at `path`."""
    place = place_of(path)
    try:
        return "brainmu_schema" in json.loads(place.read("zarr.json")).get("attributes", {})
    except (OSError, ValueError, AttributeError):
        return False


def _reopen(path: str | Path, options: dict[str, Any]) -> Session:
    return open(path, **options)


def _metadata(place: Place) -> dict[str, dict[str, Any]]:
    """{name: zarr.json} of every group and array; "" is the root."""
    data = _root_local(place.path) if isinstance(place, LocalPlace) else _root_remote(place)
    try:
        root = json.loads(data)
        attributes = root["attributes"]
        schema = attributes.get("brainmu_schema")
    except (ValueError, KeyError, AttributeError, TypeError):
        raise StoreError(f"{place}: its zarr.json cannot be read: the store is damaged, restore it or make it again with --overwrite") from None
    if schema is None:
        raise StoreError(f"{place}: is a zarr store, but not one of brainmu (no brainmu_schema in its attributes): preprocess its source instead")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise StoreError(f"{place}: has schema {schema!r}, this brainmu reads up to {SCHEMA}: update brainmu")
    try:
        return {"": root, **root["consolidated_metadata"]["metadata"]}
    except (KeyError, TypeError):
        raise StoreError(f"{place}: its zarr.json lacks the consolidated metadata: restore the store, or make it again with --overwrite") from None


def _root_local(path: Path) -> bytes:
    if not path.exists():
        partial = path.with_name(path.name + ".partial")
        hint = f"; {partial.name} beside it is unfinished: run the same brainmu preprocess again to finish it" if partial.exists() else ""
        raise NotFoundError(f"{path}: no such store{hint or ': make one with brainmu preprocess'}")
    if path.name.endswith(".partial"):
        raise StoreError(f"{path}: is an unfinished store: run the same brainmu preprocess again to finish it, then open {path.name.removesuffix('.partial')}")
    if not (path / "zarr.json").is_file():
        raise StoreError(f"{path}: is not a store (it has no zarr.json), expected a folder that brainmu preprocess wrote")
    try:
        return (path / "zarr.json").read_bytes()
    except OSError:
        raise StoreError(f"{path}: its zarr.json cannot be read: the store is damaged, restore it or make it again with --overwrite") from None


def _root_remote(place: Any) -> bytes:
    data = place.find("zarr.json")
    if data is not None:
        return data
    there = place.sizes()
    if there and any(name.startswith(WORK + "/") for name in there):
        raise StoreError(f"{place}: is an unfinished store: run the same brainmu preprocess again to finish it")
    if there:
        raise StoreError(f"{place}: is not a store (it has no zarr.json), expected a place that brainmu preprocess wrote")
    raise NotFoundError(f"{place}: no such store: make one with brainmu preprocess")
