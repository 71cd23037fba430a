"""Attributes as JSON that gives back exactly what went in: NaN, tuples, arrays, dates and tables included."""

from __future__ import annotations

import base64
import math
import re
from datetime import date, datetime
from typing import Any

import numpy as np
import pandas as pd

from brainmu.errors import InputError

__all__ = ["decode", "encode", "safe_names"]

_TAG = "__is__"


def encode(value: Any, what: str = "attribute") -> Any:
    """JSON-able form of a value made of None, bool, numbers, text, lists, tuples, sets, dicts, arrays, dates and tables.

    Raises
    ------
    InputError
        If something else is in it; the message names `what`.
    """
    if value is None or isinstance(value, (bool, str)):
        return str(value) if isinstance(value, np.str_) else value
    if isinstance(value, np.generic):
        if value.dtype in (np.float64, np.int64, np.bool_):
            return encode(value.item(), what)
        return {_TAG: "numpy", "dtype": value.dtype.str, "data": base64.b64encode(np.asarray(value).tobytes()).decode()}
    if isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {_TAG: "float", "value": repr(value)}
    if isinstance(value, list):
        return [encode(v, what) for v in value]
    if isinstance(value, (tuple, set, frozenset)):
        items = sorted(value, key=repr) if isinstance(value, (set, frozenset)) else value
        return {_TAG: type(value).__name__ if type(value) in (tuple, set, frozenset) else "tuple", "items": [encode(v, what) for v in items]}
    if isinstance(value, dict):
        if all(isinstance(k, str) for k in value) and _TAG not in value:
            return {str(k): encode(v, f"{what}[{k!r}]") for k, v in value.items()}
        return {_TAG: "dict", "items": [[encode(k, what), encode(v, f"{what}[{k!r}]")] for k, v in value.items()]}
    if isinstance(value, np.ndarray):
        if value.dtype.kind in "OT":
            return {_TAG: "objects", "shape": list(value.shape), "items": [encode(v, what) for v in value.ravel().tolist()]}
        return {_TAG: "array", "dtype": value.dtype.str, "shape": list(value.shape), "data": base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()}
    if isinstance(value, (datetime, date)) and not isinstance(value, pd.Timestamp):
        return {_TAG: "datetime" if isinstance(value, datetime) else "date", "value": value.isoformat()}
    if isinstance(value, pd.Timestamp):
        return {_TAG: "timestamp", "value": value.isoformat()}
    if isinstance(value, pd.Series):
        return {_TAG: "series", "name": encode(value.name, what), "frame": encode(value.rename("values").to_frame(), what)}
    if isinstance(value, pd.DataFrame):
        columns = [[encode(c, what), str(value[c].dtype), encode(value[c].to_numpy(), what)] for c in value.columns]
        return {_TAG: "frame", "columns": columns, "index": encode(value.index.to_numpy(), what)}
    raise InputError(f"{what} is a {type(value).__name__}, which a store cannot hold: use numbers, text, lists, dicts, arrays, dates or tables")


def decode(value: Any) -> Any:
    """What :func:`encode` was given."""
    if isinstance(value, list):
        return [decode(v) for v in value]
    if not isinstance(value, dict):
        return value
    tag = value.get(_TAG)
    if tag is None:
        return {k: decode(v) for k, v in value.items()}
    if tag == "float":
        return float(value["value"])
    if tag == "numpy":
        return np.frombuffer(base64.b64decode(value["data"]), dtype=value["dtype"])[0]
    if tag == "array":
        return np.frombuffer(base64.b64decode(value["data"]), dtype=value["dtype"]).reshape(value["shape"]).copy()
    if tag == "objects":
        out = np.empty(len(value["items"]), dtype=object)
        for i, item in enumerate(value["items"]):
            out[i] = decode(item)
        return out.reshape(value["shape"])
    if tag in ("tuple", "set", "frozenset"):
        return {"tuple": tuple, "set": set, "frozenset": frozenset}[tag](decode(v) for v in value["items"])
    if tag == "dict":
        return {decode(k): decode(v) for k, v in value["items"]}
    if tag == "datetime":
        return datetime.fromisoformat(value["value"])
    if tag == "date":
        return date.fromisoformat(value["value"])
    if tag == "timestamp":
        return pd.Timestamp(value["value"])
    if tag == "series":
        return decode(value["frame"])["values"].rename(decode(value["name"]))
    columns = {i: pd.Series(decode(v)).astype(dtype) for i, (_, dtype, v) in enumerate(value["columns"])}
    frame = pd.DataFrame(columns)
    frame.columns = pd.Index([decode(c) for c, _, _ in value["columns"]])
    frame.index = pd.Index(decode(value["index"]))
    return frame


def safe_names(names: list[str]) -> list[str]:
    """Names of folders for `names`: letters, digits, `_`, `.`, `-`; different from each other on any file system."""
    out: list[str] = []
    taken: set[str] = set()
    for name in names:
        safe = re.sub(r"[^A-Za-z0-9_.\-]", "_", name).strip(".") or "_"
        if safe.startswith("__"):
            safe = "n" + safe  # zarr keeps names that begin with two underscores for itself
        safe, stem, k = safe[:120], safe[:120], 2
        while safe.casefold() in taken:
            safe, k = f"{stem}-{k}", k + 1
        taken.add(safe.casefold())
        out.append(safe)
    return out
