"""Reading the arrays of a store: small ones whole, the samples of signals from mapped files without going through zarr."""

from __future__ import annotations

import functools
import mmap
import os
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from brainmu.errors import StoreError
from brainmu.store.layout import TEXT, ArrayLayout, decode_chunk, read_index, unseal
from brainmu.store.places import Place

__all__ = ["ChunkCache", "MappedArray", "SampleArray", "read_array"]

MAX_MAPS = 512
"""Files mapped at once in this process, over all stores: each holds a file descriptor."""
_AHEAD = 1 << 20
"""Bytes of a mapped file from which on the disk is told beforehand what will be read."""

_THREADS = min(4, os.cpu_count() or 1)


@functools.cache
def _decoders() -> ThreadPoolExecutor:
    """Threads that decode long spans."""
    return ThreadPoolExecutor(_THREADS, thread_name_prefix="brainmu-decode")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_decoders.cache_clear)  # a forked child has none of its parent's threads


def read_array(place: Place, name: str, layout: ArrayLayout) -> Any:
    """A whole array, checked against its checksums: a numpy array, or a list of str.

    Raises
    ------
    StoreError
        If a file is missing or damaged.
    """
    if layout.shard is not None and layout.dtype != TEXT:
        return np.concatenate([_shard_rows(place, name, layout, k) for k in range(layout.n_files)])
    if layout.n_files == 0:
        return [] if layout.dtype == TEXT else np.empty(layout.shape, dtype=layout.dtype)
    parts = [decode_chunk(layout, place.read(f"{name}/{layout.key(k)}"), f"{place}/{name}") for k in range(layout.n_files)]
    if layout.dtype == TEXT:
        return [t for part in parts for t in part][: layout.shape[0]]
    rows = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return rows[: layout.shape[0]].astype(layout.dtype)  # a copy that may be written to


def _shard_rows(place: Place, name: str, layout: ArrayLayout, k: int) -> NDArray[Any]:
    file = f"{name}/{layout.key(k)}"
    data, where = place.read(file), f"{place}/{file}"
    i, j = layout.span(k)
    chunks = [decode_chunk(layout, data[int(a) : int(a + n)], where) for a, n in read_index(layout, data, where)]
    return np.concatenate(chunks)[: j - i]


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
            if key in self._chunks or chunk.nbytes > self.limit:
                return
            self._chunks[key] = chunk
            self.size += chunk.nbytes
            while self.size > self.limit:
                self.size -= self._chunks.popitem(last=False)[1].nbytes


class SampleArray(ABC):
    """The samples of a signal, (time, channel), as they are stored. Indexing reads only the rows asked for."""

    def __init__(self, place: Place, name: str, layout: ArrayLayout, cache: ChunkCache) -> None:
        assert layout.shard
        self.place, self.name, self.layout, self.cache = place, name, layout, cache
        self.shape, self.dtype = layout.shape, np.dtype(layout.dtype)
        self._shard, self._chunk = layout.shard, layout.chunk
        self._per = layout.shard // layout.chunk

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name}, {self.shape}, {self.dtype})"

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
        """Rows [i, j); a read-only view where they lie in one chunk."""
        if j <= i:
            return np.empty((0, self.shape[1]), dtype=self.dtype)
        size = self._chunk
        first = i // size
        if first == (j - 1) // size:
            return self._get(first)[i - first * size : j - first * size]
        out = np.empty((j - i, self.shape[1]), dtype=self.dtype)
        self.fill(out, i, j)
        return out

    def fill(self, out: NDArray[Any], i: int, j: int) -> None:
        """Write rows [i, j) into `out`, converting to its type."""
        at = 0
        for block in self.pieces(i, j):
            out[at : at + len(block)] = block
            at += len(block)

    def pieces(self, i: int, j: int) -> Iterator[NDArray[Any]]:
        """Rows [i, j), not none, a chunk at a time; read-only views."""
        size = self._chunk
        first, last = i // size, (j - 1) // size
        if first == last:
            yield self._get(first)[i - first * size : j - first * size]
            return
        for k, chunk in zip(range(first, last + 1), self._span(first, last + 1)):
            yield chunk[max(i - k * size, 0) : min(j - k * size, size)]

    def _span(self, first: int, last: int) -> Iterator[NDArray[Any]]:
        """Chunks [first, last), several."""
        return map(self._get, range(first, last))

    @abstractmethod
    def _get(self, chunk: int) -> NDArray[Any]:
        """The rows of a chunk, (row, channel)."""


class MappedArray(SampleArray):
    """Samples in local files.

    Uncompressed shards are mapped into memory, and their checksums are left to :func:`brainmu.store.verify` unless `check` is set: then each chunk
    is checked when it is first touched. Chunks of compressed shards are checked and decoded when first touched, and kept in `cache`.
    """

    _open_maps: ClassVar[OrderedDict[tuple[int, int], dict[int, Any]]] = OrderedDict()

    def __init__(self, place: Place, name: str, layout: ArrayLayout, cache: ChunkCache, *, root: Path, check: bool = False) -> None:
        super().__init__(place, name, layout, cache)
        self.root = root
        self._shards: dict[int, Any] = {}
        self._raw = not layout.packed
        # One flag a chunk, kept when a map is closed and opened again.
        self._unannounced = bytearray(b"\1") * -(-self.shape[0] // self._chunk)
        self._unchecked = bytearray(b"\1") * -(-self.shape[0] // self._chunk) if check and self._raw else None

    def _get(self, chunk: int) -> NDArray[Any]:
        k = chunk // self._per
        shard = self._shards.get(k)
        if shard is None:
            shard = self._open(k)
        if self._raw:
            if self._unchecked and self._unchecked[chunk]:
                self._check(chunk, shard[1])
            return shard[0][chunk - k * self._per]
        key = (self.name, chunk)
        rows = self.cache.get(key)
        if rows is None:
            index, data, where = shard
            a, n = index[chunk - k * self._per]
            rows = decode_chunk(self.layout, data[a : a + n], where)
            self.cache.put(key, rows)
        return rows

    def _check(self, chunk: int, data: memoryview) -> None:
        size, k = self._chunk * self.layout.row_bytes + 4, chunk // self._per
        at = (chunk - k * self._per) * size
        unseal(data[at : at + size], str(self.root / self.name / self.layout.key(k)))
        assert self._unchecked is not None
        self._unchecked[chunk] = 0

    def _span(self, first: int, last: int) -> Iterator[NDArray[Any]]:
        if (last - first) * self._chunk * self.layout.row_bytes < _AHEAD:
            yield from map(self._get, range(first, last))
            return
        for k in range(first // self._per, (last - 1) // self._per + 1):
            a, b = max(first, k * self._per), min(last, (k + 1) * self._per)
            self._will_read(k, a - k * self._per, b - k * self._per)
            yield from map(self._get, range(a, b)) if self._raw else self._decoded(a, b)

    def _will_read(self, k: int, a: int, b: int) -> None:
        """Tell the disk of chunks [a, b) of shard `k`, once: it reads them in one go instead of page after page."""
        shard = self._shards.get(k) or self._open(k)
        first, last = k * self._per + a, k * self._per + b
        if not self._unannounced.count(1, first, last):
            return
        self._unannounced[first:last] = bytes(last - first)
        if self._raw:
            size = self._chunk * self.layout.row_bytes + 4
            start, stop = a * size, b * size
        else:
            start, stop = shard[0][a][0], sum(shard[0][b - 1])
        start = start // mmap.PAGESIZE * mmap.PAGESIZE
        shard[1].obj.madvise(mmap.MADV_WILLNEED, start, stop - start)

    def _decoded(self, first: int, last: int) -> Iterator[NDArray[Any]]:
        """Chunks [first, last), a few megabytes of them decoded at a time, by several threads: blosc lets go of the interpreter."""
        pool, share = _decoders(), max(1, _AHEAD // (self._chunk * self.layout.row_bytes))
        for a in range(first, last, share * _THREADS):
            parts = [range(i, min(i + share, last)) for i in range(a, min(a + share * _THREADS, last), share)]
            for part in pool.map(lambda chunks: [self._get(k) for k in chunks], parts) if len(parts) > 1 else [map(self._get, parts[0])]:
                yield from part

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
            shard = (np.ndarray(shape, dtype=self.dtype.newbyteorder("<"), buffer=data, strides=strides), data)
        self._shards[k] = shard
        maps = MappedArray._open_maps
        maps[id(self), k] = self._shards
        while len(maps) > MAX_MAPS:
            (_, old), shards = maps.popitem(last=False)
            shards.pop(old, None)
        return shard
