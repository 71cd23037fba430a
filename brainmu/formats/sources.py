"""Where an array lies in a file, and the check that the file is there at all."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from brainmu.errors import FormatError, NotFoundError

__all__ = ["ArrayFile", "need_file"]


@dataclass(frozen=True)
class ArrayFile:
    """Where an array lies and how it is laid out.

    Attributes
    ----------
    file : str
        Path, relative to the root of the manifest.
    key : str
        Variable of a .npz or .mat file, dataset path of an HDF5 file; dots lead into MATLAB structs.
    columns : list of names or indices
        Columns of a table, or channels of an array, to take (default all).
    dtype, n_channels, order, header_bytes
        Of a .bin: NumPy type name, channels, "C" (sample by sample) or "F" (channel by channel), bytes to skip.
    skiprows, header, delimiter
        Of a table: lines to skip first; whether a line of column names follows (default: yes if it holds no number); what separates columns.
    transpose : bool or None
        The array is (channel, time). None refuses more channels than samples.
    flatten : bool
        Axes after the first become channels.
    """

    file: str
    key: str | None = None
    columns: Any = None
    dtype: str | None = None
    n_channels: int | None = None
    order: Literal["C", "F"] = "C"
    header_bytes: int = 0
    skiprows: int = 0
    header: bool | None = None
    delimiter: str | None = None
    transpose: bool | None = None
    flatten: bool = False


def need_file(path: Path, expected: str) -> Path:
    """The path, if it is a readable file that is not empty.

    Raises
    ------
    NotFoundError
        If there is no such file; the message names the nearest one beside it.
    FormatError
        If it is empty, a folder, or may not be read.
    """
    if path.is_dir():
        raise FormatError(f"{path}: is a folder, expected {expected}")
    if not path.exists():
        beside = [p.name for p in path.parent.iterdir()] if path.parent.is_dir() else []
        near = difflib.get_close_matches(path.name, beside, n=1)
        hint = f": did you mean {near[0]}?" if near else ("" if path.parent.is_dir() else f": the folder {path.parent} does not exist")
        raise NotFoundError(f"{path}: no such file, expected {expected}{hint}")
    try:
        with path.open("rb") as f:
            if not f.read(1):
                raise FormatError(f"{path}: is empty (0 bytes), expected {expected}: was the copy interrupted?")
    except OSError as error:
        raise FormatError(f"{path}: cannot be read ({error.strerror or error}): check its permissions") from None
    return path
