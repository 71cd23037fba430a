"""How arrays lie on disk: the part of zarr v3 that a store uses, written and read without zarr-python.

A read through zarr-python costs about 0.6 ms whatever its size, and what it writes depends on its version. A store holds four kinds of
array only, each a few lines of the published format: numbers in one chunk, numbers in shards along the first axis, text in one chunk, nothing.
Every chunk ends in its crc32c. `zarr.open`, `xarray.open_datatree` and tests read them as any zarr.

References
----------
Zarr core protocol v3; sharding codec v1.0 (zarr-specs.readthedocs.io).
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.errors import StoreError

__all__ = ["MISSING", "TEXT", "ArrayLayout", "decode_chunk", "encode_chunk", "read_index", "seal", "unseal"]

MISSING = -32768
"""The int16 that marks a missing sample in a store."""
TEXT = "string"
_ABSENT = 2**64 - 1
_LEVEL = 5
_FILL: dict[str, Any] = {"float32": "NaN", "float64": "NaN", "int16": MISSING, "bool": False, TEXT: ""}


@dataclass(frozen=True)
class ArrayLayout:
    """Shape, type and chunking of an array.

    Attributes
    ----------
    shape : tuple of int
    dtype : str
        A numpy name (little-endian), or "string".
    chunk : int
        Rows of a chunk.
    shard : int or None
        Rows of a shard file (a multiple of `chunk`), or None where each chunk is a file.
    packed : bool
        Whether chunks are compressed (blosc: bits of equal weight together, then lz4) or stored as they are.
    dims : tuple of str
    attrs : dict
    """

    shape: tuple[int, ...]
    dtype: str
    chunk: int
    shard: int | None = None
    packed: bool = False
    dims: tuple[str, ...] = ()
    attrs: dict[str, Any] = field(default_factory=dict)

    @property
    def itemsize(self) -> int:
        return np.dtype(self.dtype).itemsize

    @property
    def row_shape(self) -> tuple[int, ...]:
        return self.shape[1:]

    @property
    def row_bytes(self) -> int:
        return math.prod(self.row_shape) * self.itemsize

    @property
    def fill(self) -> Any:
        """The value of what was never written."""
        value = _FILL.get(self.dtype, 0)
        return np.nan if value == "NaN" else value

    @property
    def file_rows(self) -> int:
        """Rows a file holds."""
        return self.shard or self.chunk

    @property
    def n_files(self) -> int:
        return 0 if 0 in self.shape else -(-self.shape[0] // self.file_rows)

    def key(self, k: int) -> str:
        """Name of file `k`, relative to the array's folder."""
        return "/".join(["c", str(k)] + ["0"] * len(self.row_shape))

    def span(self, k: int) -> tuple[int, int]:
        """Rows [i, j) of file `k`."""
        return k * self.file_rows, min(self.shape[0], (k + 1) * self.file_rows)

    # -- metadata -------------------------------------------------------------------------------------------------
    def metadata(self) -> dict[str, Any]:
        """The array's zarr.json."""
        codecs: list[dict[str, Any]] = [{"name": "vlen-utf8"}] if self.dtype == TEXT else [{"name": "bytes", "configuration": {"endian": "little"}}]
        if self.packed:
            blosc = {"typesize": self.itemsize, "cname": "lz4", "clevel": _LEVEL, "shuffle": "bitshuffle", "blocksize": 0}
            codecs.append({"name": "blosc", "configuration": blosc})
        codecs.append({"name": "crc32c"})
        rows = [max(1, n) for n in self.row_shape]
        grid = [self.file_rows, *rows]
        if self.shard:
            index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
            inner = {"chunk_shape": [self.chunk, *rows], "codecs": codecs, "index_codecs": index, "index_location": "end"}
            codecs = [{"name": "sharding_indexed", "configuration": inner}]
        return {
            "shape": list(self.shape), "data_type": self.dtype, "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": grid}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}}, "fill_value": _FILL.get(self.dtype, 0), "codecs": codecs,
            "attributes": self.attrs, "dimension_names": list(self.dims), "zarr_format": 3, "node_type": "array", "storage_transformers": [],
        }  # fmt: skip

    @classmethod
    def from_metadata(cls, meta: dict[str, Any], where: str) -> ArrayLayout:
        """The layout that a zarr.json describes.

        Raises
        ------
        StoreError
            If it is a zarr array, but not one that a store writes.
        """
        try:
            grid = meta["chunk_grid"]["configuration"]["chunk_shape"]
            codecs, chunk, shard = meta["codecs"], int(grid[0]), None
            if codecs[0]["name"] == "sharding_indexed":
                inner = codecs[0]["configuration"]
                codecs, shard, chunk = inner["codecs"], chunk, int(inner["chunk_shape"][0])
            layout = cls(
                tuple(int(n) for n in meta["shape"]), meta["data_type"], chunk, shard, any(c["name"] == "blosc" for c in codecs),
                tuple(meta["dimension_names"]), dict(meta["attributes"]),
            )  # fmt: skip
            if layout.metadata() != meta:
                raise ValueError("codecs")
        except (KeyError, IndexError, TypeError, ValueError):
            raise StoreError(f"{where}: its zarr.json is not one that a brainmu store holds: the store is damaged or was edited, make it again") from None
        return layout


def encode_chunk(layout: ArrayLayout, rows: Any) -> bytes:
    """One chunk as bytes, crc included; `rows` (at most `layout.chunk`) are padded with the fill value."""
    if layout.dtype == TEXT:
        texts = [str(t).encode() for t in rows] + [b""] * (layout.chunk - len(rows))
        data: Any = b"".join([struct.pack("<I", len(texts)), *(struct.pack("<I", len(t)) + t for t in texts)])
    else:
        block = np.asarray(rows, dtype=np.dtype(layout.dtype).newbyteorder("<"))
        if len(block) < layout.chunk:
            full = np.full((layout.chunk, *layout.row_shape), layout.fill, dtype=block.dtype)
            full[: len(block)] = block
            block = full
        data = np.ascontiguousarray(block).tobytes()
    return seal(_pack(layout, data) if layout.packed else data)


def _pack(layout: ArrayLayout, data: bytes) -> bytes:
    from numcodecs import blosc  # pyright: ignore[reportAttributeAccessIssue]  (compiled, without stubs)

    # With several threads, blosc writes its blocks in the order in which they get done: the bytes would differ from run to run.
    before, blosc.use_threads = blosc.use_threads, False
    try:
        return blosc.compress(np.frombuffer(data, dtype=layout.dtype), b"lz4", _LEVEL, blosc.BITSHUFFLE, 0)
    finally:
        blosc.use_threads = before


def decode_chunk(layout: ArrayLayout, sealed: Any, where: str) -> Any:
    """The rows of one chunk: an array (chunk, …), or a list of str.

    Raises
    ------
    StoreError
        If its checksum does not match.
    """
    data = unseal(sealed, where)
    if layout.packed:
        from numcodecs import blosc  # pyright: ignore[reportAttributeAccessIssue]  (compiled, without stubs)

        data = blosc.decompress(data)
    if layout.dtype == TEXT:
        raw, texts, at = bytes(data), [], 4
        for _ in range(struct.unpack_from("<I", raw)[0]):
            (size,) = struct.unpack_from("<I", raw, at)
            texts.append(raw[at + 4 : at + 4 + size].decode())
            at += 4 + size
        return texts
    return np.frombuffer(data, dtype=np.dtype(layout.dtype).newbyteorder("<")).reshape(layout.chunk, *layout.row_shape)


def seal(data: Any) -> bytes:
    """Bytes followed by their crc32c."""
    import google_crc32c

    view = bytes(data)
    return b"".join([view, struct.pack("<I", google_crc32c.value(view))])


def unseal(sealed: Any, where: str) -> memoryview:
    """The bytes before the crc32c, checked. Raises StoreError where it does not match."""
    import google_crc32c

    view = memoryview(sealed)
    # An array of numpy: the one view of bytes that the checksum takes without a copy.
    if len(view) < 4 or struct.unpack("<I", view[-4:])[0] != google_crc32c.value(np.frombuffer(view[:-4], dtype=np.uint8)):
        raise StoreError(f"{where}: bytes do not match their checksum: the disk or a copy damaged the store, restore it or make it again with --overwrite")
    return view[:-4]


def shard_index(sizes: list[int], chunks: int) -> bytes:
    """The index at the end of a shard of `chunks` places whose first chunks have the given sizes in bytes."""
    entries = np.full((chunks, 2), _ABSENT, dtype="<u8")
    ends = np.cumsum(sizes, dtype=np.uint64)
    entries[: len(sizes), 0] = ends - np.asarray(sizes, dtype=np.uint64)
    entries[: len(sizes), 1] = sizes
    return seal(entries.tobytes())


def read_index(layout: ArrayLayout, shard: Any, where: str, *, whole: bool = True) -> NDArray[np.uint64]:
    """Offset and size (chunk, 2) of the chunks that a shard file (a bytes-like, or with ``whole=False`` its end) holds."""
    assert layout.shard
    places = layout.shard // layout.chunk
    view = memoryview(shard)
    if len(view) < 16 * places + 4:
        raise StoreError(f"{where}: holds {len(view)} bytes, fewer than its index: the file is truncated, restore it or make the store again with --overwrite")
    entries = np.frombuffer(unseal(view[-(16 * places + 4) :], where), dtype="<u8").reshape(places, 2)
    present = entries[entries[:, 0] != _ABSENT]
    if whole and len(present) and int(present.sum(axis=1).max()) > len(view):
        raise StoreError(f"{where}: its index points beyond its end: the file is truncated, restore it or make the store again with --overwrite")
    return present
