"""Tables as one array a column, whatever their columns hold, and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from brainmu.store.folder import Folder
from brainmu.store.layout import TEXT, ArrayLayout
from brainmu.store.values import decode, encode, safe_names

__all__ = ["plain_layout", "read_table", "write_table"]

_NUMBERS = {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float32", "float64"}
_WHOLE = 1 << 24
_SHARD = 1 << 26

Reader = Callable[[str], Any]


def plain_layout(shape: tuple[int, ...], dtype: str, dims: tuple[str, ...], attrs: dict[str, Any] | None = None) -> ArrayLayout:
    """One chunk where the array is small (16 MB), otherwise chunks of 1 MB in shards of 64 MB."""
    n = max(1, shape[0])
    row = 1 if dtype == TEXT else max(1, int(np.prod(shape[1:])) * np.dtype(dtype).itemsize)
    if dtype == TEXT or n * row <= _WHOLE:
        return ArrayLayout(shape, dtype, n, None, False, dims, attrs or {})
    chunk = max(1, (1 << 20) // row)
    return ArrayLayout(shape, dtype, chunk, chunk * max(1, _SHARD // (chunk * row)), False, dims, attrs or {})


def write_table(
    folder: Folder, group: str, frame: pd.DataFrame, dim: str, *, prefix: str = "", index: str | None = None, what: str = "table"
) -> list[dict[str, Any]]:  # fmt: skip
    """Write the columns of `frame` as arrays of `group`; the description of the columns goes into the group's attributes.

    The column `index` takes the name of the dimension, so that xarray labels the dimension with it.
    """
    described = []
    arrays = safe_names([dim, *(f"{prefix}{c}" for c in frame.columns)])[1:]
    arrays = [dim if name == index else array for name, array in zip(frame.columns, arrays)]
    for position, array in enumerate(arrays):
        series = frame.iloc[:, position]
        name = frame.columns[position]
        column: dict[str, Any] = {"name": encode(name, what), "array": array, "dtype": str(series.dtype)}
        values = series.to_numpy()
        if series.dtype == "category":
            categories = series.cat.categories
            column |= {"categories": encode(categories.to_numpy(), what), "category_dtype": str(categories.dtype), "ordered": bool(series.cat.ordered)}
            values = series.cat.codes.to_numpy()
        if str(values.dtype) in _NUMBERS:
            data: Any = values
            layout = plain_layout((len(frame),), str(values.dtype), (dim,))
        else:
            items = series.tolist()
            if all(type(v) is str for v in items):
                data = items
            else:
                column["json"] = True
                data = [json.dumps(encode(v, f"{what} column {name!r}"), allow_nan=False) for v in items]
            layout = plain_layout((len(frame),), TEXT, (dim,))
        folder.array(f"{group}/{array}", layout, data)
        described.append(column)
    return described


def read_table(read: Reader, group: str, described: list[dict[str, Any]], n: int) -> pd.DataFrame:
    """The table that :func:`write_table` wrote; `read` gives the array of a name."""
    columns: dict[int, Any] = {}
    for i, column in enumerate(described):
        values = read(f"{group}/{column['array']}")
        if column.get("json"):
            values = [decode(json.loads(v)) for v in values]
        if "categories" in column:
            categories = pd.Index(decode(column["categories"])).astype(column["category_dtype"])
            columns[i] = pd.Categorical.from_codes(values, categories=categories, ordered=column["ordered"])
        elif isinstance(values, list):
            items = np.empty(n, dtype=object)
            items[:] = values
            columns[i] = pd.Series(items, dtype=object) if column["dtype"] == "object" else pd.Series(items, dtype=object).astype(column["dtype"])
        else:
            columns[i] = pd.Series(values, dtype=column["dtype"])
    frame = pd.DataFrame(columns, index=pd.RangeIndex(n))
    frame.columns = pd.Index([decode(c["name"]) for c in described], dtype=None if described else object)
    return frame
