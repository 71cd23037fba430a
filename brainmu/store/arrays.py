"""Reading the arrays of a store: small ones whole, the samples of signals from mapped files without going through zarr."""

from __future__ import annotations

import mmap
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from brainmu.errors import StoreError
from brainmu.store.layout import TEXT, ArrayLayout, decode_chunk, read_index

__all__ = ["ChunkCache", "SampleArray", "read_array"]

MAX_MAPS = 512
"""Files mapped at once in this process, over all stores: each holds a file descriptor."""


def read_array(root: Path, name: str, layout: ArrayLayout) -> Any:
    """A whole array, checked against its checksums: a numpy array, or a list of str.

    Raises
    ------
    StoreError
        If a file is missing or damaged.
    """
    if layout.shard is not None and layout.dtype != TEXT:
        return np.concatenate([_shard_rows(root, name, layout, k) for k in range(layout.n_files)])
    if layout.n_files == 0:
        return [] if layout.dtype == TEXT else np.empty(layout.shape, dtype=layout.dtype)
    parts = [decode_chunk(layout, _file(root / name / layout.key(k)), str(root / name)) for k in range(layout.n_files)]
    if layout.dtype == TEXT:
        return [t for part in parts for t in part][: layout.shape[0]]
    rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return rows[: layout.shape[0]].astype(layout.dtype)  # a copy that may be written to


def _shard_rows(root: Path, name: str, layout: ArrayLayout, k: int) -> NDArray[Any]:
    path = root / name / layout.key(k)
    data, where = _file(path), str(path)
    i, j = layout.span(k)
    chunks = [decode_chunk(layout, data[int(a) : int(a + n)], where) for a, n in read_index(layout, data, where)]
    return np.concatenate(chunks)[: j - i]


def _file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise StoreError(f"{path}: is missing from the store: restore it, or make the store again with --overwrite") from None


class ChunkCache:
    """Decoded chunks, the least recently used dropped beyond `limit` bytes. Shared by the arrays of a session."""

    def __init__(self, limit: int = 1 << 28) -> None:
        self.limit, self.size = limit, 0
        self._chunks: OrderedDict[Any, NDArray[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Any) -> NDArray[Any] | None:
        with self._lock:
            found = self._chunks.get(key)
            if found is not None:
                self._chunks.move_to_end(key)
            return found

    def put(self, key: Any, chunk: NDArray[Any]) -> None:
        with self._lock:
            if key in self._chunks:
                return
            self._chunks[key] = chunk
            self.size += chunk.nbytes
            while self.size > self.limit and len(self._chunks) > 1:
                self.size -= self._chunks.popitem(last=False)[1].nbytes


class SampleArray:
    """The samples of a signal, (time, channel), as they are stored. Indexing reads only the rows asked for.

    Uncompressed shards are mapped into memory and their checksums are left to :func:`brainmu.store.verify`; chunks of compressed ones
    are checked and decoded when first touched, and kept in `cache`.
    """

    _open_maps: ClassVar[OrderedDict[tuple[int, int], dict[int, Any]]] = OrderedDict()

    def __init__(self, root: Path, name: str, layout: ArrayLayout, cache: ChunkCache) -> None:
        assert layout.shard
        self.root, self.name, self.layout, self.cache = root, name, layout, cache
        self.shape, self.dtype = layout.shape, np.dtype(layout.dtype)
        self._shards: dict[int, Any] = {}
        self._shard, self._chunk = layout.shard, layout.chunk
        self._raw = not layout.packed

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"SampleArray({self.name}, {self.shape}, {self.dtype})"

    def __getitem__(self, key: Any) -> NDArray[Any]:
        rows, columns = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        if type(rows) is slice:
            i, j, step = rows.indices(self.shape[0])
            block = self.rows(i, j)[::step] if step > 0 else self.rows(j + 1, i + 1)[::step]
        elif np.ndim(rows) == 0:
            k = int(rows) + (self.shape[0] if rows < 0 else 0)
            if not 0 <= k < self.shape[0]:
                raise IndexError(f"sample {int(rows)} is outside the {self.shape[0]} samples of the signal")
            block = self.rows(k, k + 1)[0]
            return block[columns] if columns else block
        else:
            which = np.asarray(rows)
            which = np.flatnonzero(which) if which.dtype == bool else np.where(which < 0, which + self.shape[0], which)
            low, high = (int(which.min()), int(which.max()) + 1) if which.size else (0, 0)
            block = self.rows(low, high)[which - low]
        return block[(slice(None), *columns)] if columns else block

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        out = self.rows(0, self.shape[0])
        return np.array(out) if dtype is None else out.astype(dtype)

    def rows(self, i: int, j: int) -> NDArray[Any]:
        """Rows [i, j); a read-only view of the file where they lie in one chunk of it."""
        if j <= i:
            return np.empty((0, self.shape[1]), dtype=self.dtype)
        size = self._chunk
        first, last = i // size, (j - 1) // size
        if first == last:
            start = first * size
            return self._get(first)[i - start : j - start]
        out = np.empty((j - i, self.shape[1]), dtype=self.dtype)
        self.fill(out, i, j)
        return out

    def fill(self, out: NDArray[Any], i: int, j: int) -> None:
        """Write rows [i, j) into `out`, converting to its type."""
        size, at = self._chunk, 0
        for k in range(i // size, (j - 1) // size + 1):
            a, b = max(i - k * size, 0), min(j - k * size, size)
            out[at : at + b - a] = self._get(k)[a:b]
            at += b - a

    def _get(self, chunk: int) -> NDArray[Any]:
        per = self._shard // self._chunk
        k = chunk // per
        shard = self._shards.get(k)
        if shard is None:
            shard = self._open(k)
        if self._raw:
            return shard[chunk - k * per]
        key = (id(self), chunk)
        rows = self.cache.get(key)
        if rows is None:
            index, data, where = shard
            a, n = index[chunk - k * per]
            rows = decode_chunk(self.layout, data[int(a) : int(a + n)], where)
            self.cache.put(key, rows)
        return rows

    def _open(self, k: int) -> Any:
        path = self.root / self.name / self.layout.key(k)
        try:
            with open(path, "rb") as f:
                mapped = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
        except (FileNotFoundError, ValueError):
            raise StoreError(f"{path}: is missing from the store or empty: restore it, or make the store again with --overwrite") from None
        data, where = memoryview(mapped), str(path)
        index = read_index(self.layout, data, where)
        if len(index) != -(-(self.layout.span(k)[1] - self.layout.span(k)[0]) // self._chunk):
            raise StoreError(f"{path}: holds {len(index)} chunks, fewer than the array: restore it, or make the store again with --overwrite")
        shard: Any = (index.tolist(), data, where)
        if self._raw:
            size = self._chunk * self.layout.row_bytes + 4
            if (index != np.stack([np.arange(len(index)) * size, np.full(len(index), size)], axis=1)).any():
                raise StoreError(f"{path}: its chunks do not lie one after another: the file is damaged, restore it or make the store again with --overwrite")
            # Chunks are followed by four bytes of checksum each: a strided view steps over them.
            row = self.layout.row_bytes
            shape, strides = (len(index), self._chunk, self.shape[1]), (size, row, self.layout.itemsize)
            shard = np.ndarray(shape, dtype=self.dtype.newbyteorder("<"), buffer=data, strides=strides)
        self._shards[k] = shard
        maps = SampleArray._open_maps
        maps[id(self), k] = self._shards
        while len(maps) > MAX_MAPS:
            (_, old), shards = maps.popitem(last=False)
            shards.pop(old, None)
        return shard
