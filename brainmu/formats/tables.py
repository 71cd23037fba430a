"""Tables of numbers and text: .csv, .tsv and .txt, with or without a line of names."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.errors import FormatError
from brainmu.formats.lazy import OnDemand
from brainmu.formats.sources import ArrayFile

__all__ = ["TABLE_SUFFIXES", "count_rows", "decimal_comma", "open_table", "read_table", "table_layout", "table_names"]

TABLE_SUFFIXES = (".csv", ".tsv", ".txt")


def _separator(path: Path, ref: ArrayFile) -> str:
    if ref.delimiter is not None:
        return {"tab": "\t", "space": r"\s+", "whitespace": r"\s+", "comma": ","}.get(ref.delimiter, ref.delimiter)
    return {".csv": ",", ".tsv": "\t"}.get(path.suffix.lower(), r"\s+")


def table_layout(path: Path, ref: ArrayFile) -> tuple[int, list[Any], bool]:
    """Lines before the first row of numbers, column names (or indices), and whether there was a header line."""
    try:
        with path.open(encoding="utf-8-sig") as f:
            lines = [f.readline() for _ in range(ref.skiprows + 200)][ref.skiprows :]
    except UnicodeDecodeError as error:
        raise FormatError(f"{path}: not a text table ({error}): is it a binary file with a wrong suffix?") from None
    first = next((k for k, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise FormatError(f"{path}: holds no table after {ref.skiprows} skipped lines")
    sep = _separator(path, ref)
    cells = [c.strip().strip('"') for c in (lines[first].split() if sep == r"\s+" else lines[first].rstrip("\n").split(sep))]
    if not (ref.header if ref.header is not None else not any(_is_number(c) or c in ("", "nan", "NaN", "n/a") for c in cells)):
        return ref.skiprows + first, list(range(len(cells))), False
    return ref.skiprows + first + 1, cells, True


def decimal_comma(cell: object) -> str:
    """What to say of a cell such as 5,5; empty for any other."""
    return " with a decimal point (it has a decimal comma: save the table with points)" if re.fullmatch(r"\s*[-+]?\d*,\d+\s*", str(cell)) else ""


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def count_rows(path: Path, header: int) -> int:
    """Lines that are not blank after the first `header` lines."""
    with path.open("rb") as f:
        return sum(1 for k, line in enumerate(f) if k >= header and line.strip())


def read_table(path: Path, ref: ArrayFile, *, numeric: bool = False) -> pd.DataFrame:
    """A whole table, its columns named by its header line or by index; `numeric` refuses text."""
    header, names, _ = table_layout(path, ref)
    sep = _separator(path, ref)
    use = _wanted(path, ref, names)
    if not count_rows(path, header):
        return pd.DataFrame({names[i]: pd.Series(dtype=np.float64) for i in use})
    try:
        frame = pd.read_csv(path, sep=sep, header=None, skiprows=header, skip_blank_lines=True, na_values=["n/a"], encoding="utf-8-sig", low_memory=False)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, ValueError) as error:
        raise FormatError(f"{path}: not a table ({' '.join(str(error).split())}), expected columns separated by {sep!r}: say delimiter: or skiprows:") from None
    if frame.shape[1] != len(names):
        if sep == "," and len(names) == 1 and ";" in str(names[0]):
            raise FormatError(f"{path}: its columns are split by semicolons: say delimiter: ';' (and where numbers have decimal commas, save them with points)")
        raise FormatError(f"{path}: its first line has {len(names)} columns and the rows have {frame.shape[1]}: say skiprows: or delimiter:")
    frame.columns = pd.Index(names, dtype=object)
    frame = frame.iloc[:, use]
    if numeric:
        for c in frame.columns:
            if not pd.api.types.is_numeric_dtype(frame[c]):
                bad = frame.index[pd.to_numeric(frame[c], errors="coerce").isna() & frame[c].notna()]
                row = int(bad[0]) if len(bad) else 0
                cell = frame[c].iloc[row]
                raise FormatError(f"{path}: column {c!r} holds {cell!r} in row {row + 1}, expected numbers{decimal_comma(cell)}: choose others with columns:")
    return frame


def _wanted(path: Path, ref: ArrayFile, names: Sequence[Any]) -> list[int]:
    """Indices of the columns that `ref` takes, by name or index."""
    if ref.columns is None:
        return list(range(len(names)))
    out = []
    for c in ref.columns if isinstance(ref.columns, list) else [ref.columns]:
        if (c not in names) if not isinstance(c, int) else not 0 <= c < len(names):
            near = difflib.get_close_matches(str(c), [str(n) for n in names], n=1)
            raise FormatError(f"{path}: has no column {c!r}, it has {', '.join(map(str, names))}{f': did you mean {near[0]}?' if near else ''}")
        out.append(c if isinstance(c, int) else names.index(c))
    return out


def open_table(path: Path, ref: ArrayFile) -> OnDemand:
    """The numbers of a table, counted by its lines now and parsed when they are first read."""
    header, names, _ = table_layout(path, ref)
    width = len(_wanted(path, ref, names))
    n = count_rows(path, header)
    if not n:
        raise FormatError(f"{path}: holds no rows of numbers after its {header} header lines")
    return OnDemand((n, width), np.float64, functools.partial(_table_values, path, ref, n))


def _table_values(path: Path, ref: ArrayFile, n: int) -> NDArray[np.float64]:
    values = read_table(path, ref, numeric=True).to_numpy(dtype=np.float64)
    if len(values) != n:
        raise FormatError(f"{path}: {n} lines and {len(values)} rows of numbers: the file changed since it was opened, or quotes span lines")
    return values


def table_names(path: Path, ref: ArrayFile) -> list[str] | None:
    """Column names of a table as far as it has a header line and `ref` takes them, else None."""
    if path.suffix.lower() not in TABLE_SUFFIXES:
        return None
    _, names, named = table_layout(path, ref)
    if not named:
        return None
    return [str(names[i]) for i in _wanted(path, ref, names)]
