"""Samples of a remote store: byte ranges of its objects, several at once, every chunk checked and kept in the session's cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from numpy.typing import NDArray

from brainmu.errors import StoreError
from brainmu.store.arrays import ChunkCache, SampleArray
from brainmu.store.layout import ArrayLayout, decode_chunk, read_index
from brainmu.store.places import RemotePlace

__all__ = ["RangedArray", "fetch"]

_REQUEST = 1 << 23
"""Bytes asked for in one request where chunks lie side by side."""
_AT_ONCE = 1 << 26
"""Bytes of decoded chunks that are on their way together, where the cache holds as much twice."""


class RangedArray(SampleArray):
    """Samples behind a URL. A chunk is fetched once for as long as the cache holds it."""

    def __init__(self, place: RemotePlace, name: str, layout: ArrayLayout, cache: ChunkCache) -> None:
        super().__init__(place, name, layout, cache)
        self.place: RemotePlace = place
        self._indices: dict[int, list[tuple[int, int]]] = {}

    def _get(self, chunk: int) -> NDArray[Any]:
        rows = self.cache.get((self.name, chunk))
        return fetch([(self, [chunk])])[self.name, chunk] if rows is None else rows

    def _span(self, first: int, last: int) -> Iterator[NDArray[Any]]:
        some = max(1, at_once(self.cache) // (self._chunk * self.layout.row_bytes))
        for a in range(first, last, some):
            wanted = range(a, min(last, a + some))
            found = {k: self.cache.get((self.name, k)) for k in wanted}
            got = fetch([(self, [k for k, rows in found.items() if rows is None])])
            for k in wanted:
                rows = found.pop(k)
                yield got.pop((self.name, k)) if rows is None else rows

    def missing(self, i: int, j: int) -> list[int]:
        """Chunks of rows [i, j) that the cache does not hold."""
        return [k for k in range(i // self._chunk, -(-j // self._chunk)) if self.cache.get((self.name, k)) is None] if j > i else []

    # -- where chunks lie -----------------------------------------------------------------------------------------
    def file(self, chunk: int) -> str:
        return f"{self.name}/{self.layout.key(chunk // self._per)}"

    def unknown_indices(self, chunks: Iterable[int]) -> list[int]:
        """Shards whose index must be read before these chunks can be. Uncompressed chunks lie at regular distances: none."""
        return sorted({k // self._per for k in chunks} - self._indices.keys()) if self.layout.packed else []

    def index_range(self, shard: int) -> tuple[str, int, None]:
        return f"{self.name}/{self.layout.key(shard)}", -(16 * self._per + 4), None

    def learn(self, shard: int, data: bytes) -> None:
        """Take in the index of a shard."""
        where = f"{self.place}/{self.name}/{self.layout.key(shard)}"
        index = read_index(self.layout, data, where, whole=False)
        first, last = self.layout.span(shard)
        if len(index) != -(-(last - first) // self._chunk):
            raise StoreError(f"{where}: holds {len(index)} chunks, not as many as the array: restore it, or make the store again with --overwrite")
        self._indices[shard] = [(int(a), int(a + n)) for a, n in index]

    def range(self, chunk: int) -> tuple[int, int]:
        """Bytes [a, b) of a chunk in its file."""
        k = chunk % self._per
        if self.layout.packed:
            return self._indices[chunk // self._per][k]
        size = self._chunk * self.layout.row_bytes + 4
        return k * size, (k + 1) * size


def at_once(cache: ChunkCache) -> int:
    """Decoded bytes that may be under way together beside what the cache holds."""
    return max(1 << 20, min(_AT_ONCE, cache.limit // 2))


def fetch(wanted: list[tuple[RangedArray, list[int]]]) -> dict[tuple[str, int], NDArray[Any]]:
    """{(array, chunk): rows} of chunks of arrays of one place, all asked for at once; they go into the cache too."""
    wanted = [(array, sorted(chunks)) for array, chunks in wanted if chunks]
    if not wanted:
        return {}
    place = wanted[0][0].place
    unknown = [(array, k) for array, chunks in wanted for k in array.unknown_indices(chunks)]
    for (array, k), data in zip(unknown, place.ranges([array.index_range(k) for array, k in unknown]) if unknown else []):
        array.learn(k, data)
    runs = [run for array, chunks in wanted for run in _runs(array, chunks)]
    out = {}
    for (array, chunks, name, a, _), data in zip(runs, place.ranges([(name, a, b) for _, _, name, a, b in runs])):
        view, where = memoryview(data), f"{place}/{name}"
        for chunk in chunks:
            p, q = array.range(chunk)
            rows = decode_chunk(array.layout, view[p - a : q - a], where)
            if not array.layout.packed and len(chunks) > 1:
                rows = rows.copy()  # or one chunk in the cache would hold its neighbours too
            array.cache.put((array.name, chunk), rows)
            out[array.name, chunk] = rows
    return out


def _runs(array: RangedArray, chunks: list[int]) -> list[tuple[RangedArray, list[int], str, int, int]]:
    """Chunks that lie side by side in one file, as one range of bytes (array, chunks, file, a, b)."""
    runs: list[tuple[RangedArray, list[int], str, int, int]] = []
    for chunk in chunks:
        name, (a, b) = array.file(chunk), array.range(chunk)
        if runs and runs[-1][2] == name and runs[-1][4] == a and b - runs[-1][3] <= _REQUEST:
            runs[-1] = (array, [*runs[-1][1], chunk], name, runs[-1][3], b)
        else:
            runs.append((array, [chunk], name, a, b))
    return runs
