"""Tables of numbers that pandas wrote to HDF5 (``DataFrame.to_hdf``), read with h5py alone: DeepLabCut writes its results so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.errors import FormatError
from brainmu.formats.pickles import load_plain

__all__ = ["is_readable", "read_frame", "table_levels"]

_FIX = "write it again with to_hdf, or export it as csv"
Column = tuple[str, ...]


def table_levels(path: Path) -> list[str] | None:
    """Names of the levels of the columns (scorer, bodyparts, coords), or None if the file holds no table of pandas."""
    if not is_readable(path):
        return None
    import h5py

    with h5py.File(path, "r") as f:
        group = _group(f)
        return None if group is None else _levels(path, group)


def is_readable(path: Path) -> bool:
    """Whether the file is HDF5 and whole enough to open."""
    import h5py

    try:
        with h5py.File(path, "r"):
            return True
    except OSError:
        return False


def read_frame(path: Path) -> tuple[list[Column], NDArray[np.int64], NDArray[np.float64]]:
    """Columns (a tuple of words each), row numbers (n,) and values (n, column) of the table.

    Both layouts of pandas are read: "fixed" (blocks of columns) and "table" (one compound a row).

    Raises
    ------
    FormatError
        If there is no such table, its columns are not words on levels, or its values are not numbers.
    """
    import h5py

    try:
        with h5py.File(path, "r") as f:
            group = _group(f)
            if group is None:
                raise FormatError(f"{path}: holds no table that pandas wrote, it holds {', '.join(f) or 'nothing'}")
            return _read_fixed(path, group) if _text(group.attrs["pandas_type"]) == "frame" else _read_table(path, group)
    except OSError as error:
        # h5py says so for damaged files, and for compression filters that this build does not have (blosc).
        raise FormatError(f"{path}: cannot be read ({' '.join(str(error).split())[:120]}): copy it again, or {_FIX}") from None


def _group(f: Any) -> Any:
    found = [g for g in f.values() if "pandas_type" in g.attrs and _text(g.attrs["pandas_type"]) in ("frame", "frame_table")]
    return found[0] if found else None


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _levels(path: Path, group: Any) -> list[str]:
    if _text(group.attrs["pandas_type"]) == "frame":
        n = int(group.attrs.get("axis0_nlevels", 0))
        return [_text(group[f"axis0_level{k}"].attrs.get("name", "")) for k in range(n)]
    info = _pickled(path, group, "info")
    return [str(n) for n in info.get(1, {}).get("names") or []] if isinstance(info, dict) else []


def _pickled(path: Path, group: Any, name: str) -> Any:
    if name not in group.attrs:
        raise FormatError(f"{path}: its table lacks {name}, which pandas writes: {_FIX}")
    return load_plain(bytes(group.attrs[name]), f"{path} {name}", _FIX)


def _columns(path: Path, labels: Any) -> list[Column]:
    if not isinstance(labels, list) or not all(isinstance(c, tuple) for c in labels):
        raise FormatError(f"{path}: its columns are on one level, expected several (scorer, bodyparts, coords): {_FIX}")
    return [tuple(map(str, c)) for c in labels]


def _read_table(path: Path, group: Any) -> tuple[list[Column], NDArray[np.int64], NDArray[np.float64]]:
    (_, labels), *_ = _pickled(path, group, "non_index_axes")
    columns = _columns(path, labels)
    table = group["table"][()]
    place = {c: k for k, c in enumerate(columns)}
    values = np.full((len(table), len(columns)), np.nan)
    for name in table.dtype.names[1:]:
        held = _columns(path, _pickled(path, group["table"], f"{name}_kind"))
        block = table[name].reshape(len(table), -1)
        if block.dtype.kind not in "fiub" or block.shape[1] != len(held):
            raise FormatError(f"{path}: {name} is of type {block.dtype} for {len(held)} columns, expected numbers: {_FIX}")
        values[:, [place[c] for c in held]] = block
    return columns, _rows(path, table["index"]), values


def _read_fixed(path: Path, group: Any) -> tuple[list[Column], NDArray[np.int64], NDArray[np.float64]]:
    columns = _items(group, "axis0")
    place = {c: k for k, c in enumerate(columns)}
    rows = _rows(path, group["axis1"][()])
    values = np.full((len(rows), len(columns)), np.nan)
    for k in range(int(group.attrs["nblocks"])):
        block = group[f"block{k}_values"]
        held = _items(group, f"block{k}_items")
        if block.dtype.kind not in "fiub" or block.shape != (len(rows), len(held)):
            raise FormatError(f"{path}: block {k} is {block.shape} of type {block.dtype} for {len(held)} columns, expected numbers: {_FIX}")
        values[:, [place[c] for c in held]] = block[()]
    return columns, rows, values


def _items(group: Any, name: str) -> list[Column]:
    n = int(group.attrs.get(f"{name}_nlevels", 0))
    words = [[_text(w) for w in group[f"{name}_level{k}"][()]] for k in range(n)]
    labels = [group[f"{name}_label{k}"][()] for k in range(n)]
    return [tuple(words[k][labels[k][j]] for k in range(n)) for j in range(len(labels[0]) if n else 0)]


def _rows(path: Path, index: NDArray[Any]) -> NDArray[np.int64]:
    if index.dtype.kind not in "iu":
        raise FormatError(f"{path}: its rows are numbered by {index.dtype}, expected the numbers of video frames: {_FIX}")
    return index.astype(np.int64)
