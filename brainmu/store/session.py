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
from brainmu.errors import InputError, NotFoundError, StoreError
from brainmu.store.arrays import ChunkCache, SampleArray, read_array
from brainmu.store.layout import ArrayLayout
from brainmu.store.parts import read_label, read_spikes
from brainmu.store.quality import stored_gaps
from brainmu.store.streams import MISSING
from brainmu.store.tables import read_table
from brainmu.store.values import decode

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["SCHEMA", "Session", "StoredSignal", "is_store", "open"]

SCHEMA = 1


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
        raw = values.rows(i, j)
        np.multiply(raw, np.float32(self.scale), out=out)
        absent = raw == MISSING
        if absent.any():
            out[absent] = np.nan
        return out

    def read_times(self, first: int = 0, last: int | None = None) -> NDArray[np.float64]:
        """Times (n,), s, of samples [first, last)."""
        if self.times is not None:
            return self.times[first:last]
        assert self.rate is not None
        out: NDArray[np.float64] = np.arange(first, self.values.shape[0] if last is None else last, dtype=np.float64)
        out /= self.rate
        out += self.start
        return out


class Session(Recording):
    """A recording in a store, opened by :func:`open`. Signals, spikes and labels are read when first asked for.

    Attributes
    ----------
    path : Path
    tree : xarray.DataTree
        The whole store as xarray sees it, lazily.
    provenance : dict
        schema, brainmu_version, config and its checksum, sources (name, size, sha256), content_sha256, clocks, warnings, identity.
    already_complete : bool
        True where :func:`brainmu.preprocess` found the store finished.
    """

    def __init__(self, path: str | Path, *, cache_mib: int = 256) -> None:
        self.path = Path(path)
        self.already_complete = False
        self._nodes = _metadata(self.path)
        self._cache = ChunkCache(cache_mib << 20)
        root = self._nodes[""]["attributes"]
        self.id, self.subject, self.species = root["id"], root["subject"], root["species"]
        self.started_at = datetime.fromisoformat(root["started_at"]) if root["started_at"] else None
        self.zeitgeber = decode(root["zeitgeber"])
        self.subject_meta, self.clocks = decode(root["subject_meta"]), decode(root["clocks"])
        self.source = {"format": "brainmu store", "files": [str(self.path.absolute() / ".sha256")], "warnings": list(root["warnings"])}

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process opens the store itself; nothing mapped crosses.
        return open, (self.path,)

    # -- what is in it --------------------------------------------------------------------------------------------
    @functools.cached_property
    def signals(self) -> dict[str, Signal]:  # type: ignore[override]
        """{name: Signal}, lazy."""
        return {attrs["name"]: self._signal(group, attrs) for group, attrs in self._groups("signals")}

    @functools.cached_property
    def spikes(self) -> Spikes | None:  # type: ignore[override]
        """The spikes, or None."""
        return read_spikes(self._read, self._nodes["spikes/units"]["attributes"]) if "spikes" in self._nodes else None

    @functools.cached_property
    def labels(self) -> dict[str, Label]:  # type: ignore[override]
        """{name: Hypnogram, EventTable or Intervals}."""
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

        return xr.open_datatree(self.path, engine="zarr")

    def window(self, start: float, stop: float) -> Window:
        """Every modality in [start, stop), s. Raises InputError unless start < stop."""
        if not start < stop:
            raise InputError(f"window [{start}, {stop}) is empty, expected start < stop")
        signals, times = {}, {}
        for name, s in self.signals.items():
            i, j = s.index(start), s.index(stop)
            signals[name], times[name] = s.read(i, j), s.read_times(i, j)
        spikes = self.spikes
        when, who = spikes.span(start, stop) if spikes is not None else (np.empty(0), np.empty(0, dtype=np.int32))
        return Window(self.id, start, stop, signals, times, when, who)

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
        return read_array(self.path, name, self._layout(name))

    def _signal(self, group: str, attrs: dict[str, Any]) -> Signal:
        layout = self._layout(f"{group}/values")
        quality = self._nodes[f"quality/{group.removeprefix('signals/')}"]["attributes"]
        gaps = Intervals()
        if quality["n"]:
            gaps = stored_gaps(read_table(self._read, f"quality/{group.removeprefix('signals/')}", quality["columns"], quality["n"]))
        times = None if attrs["rate"] is not None else self._read(f"{group}/times")
        sixteen = layout.dtype == "int16"
        return StoredSignal(
            SampleArray(self.path, f"{group}/values", layout, self._cache), attrs["rate"], attrs["start"], times, attrs["unit"], attrs["kind"],
            read_table(self._read, group, attrs["columns"], layout.shape[1]), gaps, layout.attrs["scale_factor"] if sixteen else 1.0,
            MISSING if sixteen else None, attrs["clock"], decode(attrs["attrs"]),
        )  # fmt: skip


def open(path: str | Path, *, cache_mib: int = 256) -> Session:
    """Open a store.

    Parameters
    ----------
    path : path
        A store that :func:`brainmu.preprocess` wrote.
    cache_mib : int
        Memory for decoded chunks of compressed stores; uncompressed ones are mapped and need none.

    Raises
    ------
    NotFoundError
        If there is nothing at `path`.
    StoreError
        If it is no store, an unfinished one, one of a newer schema, or a damaged one.
    """
    return Session(path, cache_mib=cache_mib)


def is_store(path: Path) -> bool:
    """Whether a brainmu store (of any schema, whole or damaged) lies at `path`."""
    try:
        return "brainmu_schema" in json.loads((path / "zarr.json").read_bytes()).get("attributes", {})
    except (OSError, ValueError, AttributeError):
        return False


def _metadata(path: Path) -> dict[str, dict[str, Any]]:
    """{name: zarr.json} of every group and array; "" is the root."""
    if not path.exists():
        partial = path.with_name(path.name + ".partial")
        hint = f"; {partial.name} beside it is unfinished: run the same brainmu preprocess again to finish it" if partial.exists() else ""
        raise NotFoundError(f"{path}: no such store{hint or ': make one with brainmu preprocess'}")
    if path.name.endswith(".partial"):
        raise StoreError(f"{path}: is an unfinished store: run the same brainmu preprocess again to finish it, then open {path.name.removesuffix('.partial')}")
    if not (path / "zarr.json").is_file():
        raise StoreError(f"{path}: is not a store (it has no zarr.json), expected a folder that brainmu preprocess wrote")
    try:
        root = json.loads((path / "zarr.json").read_bytes())
        attributes = root["attributes"]
        schema = attributes.get("brainmu_schema")
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        raise StoreError(f"{path}: its zarr.json cannot be read: the store is damaged, restore it or make it again with --overwrite") from None
    if schema is None:
        raise StoreError(f"{path}: is a zarr store, but not one of brainmu (no brainmu_schema in its attributes): preprocess its source instead")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise StoreError(f"{path}: has schema {schema!r}, this brainmu reads up to {SCHEMA}: update brainmu")
    try:
        return {"": root, **root["consolidated_metadata"]["metadata"]}
    except (KeyError, TypeError):
        raise StoreError(f"{path}: its zarr.json lacks the consolidated metadata: the store is damaged, restore it or make it again with --overwrite") from None
