"""The truth of a recording as one file: arrays beside a JSON text that says what they are, and nothing that could run code when read."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import importlib
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainmu.core import EventTable, Hypnogram, Intervals, Spikes
from brainmu.errors import FormatError, InputError, NotFoundError, StoreError

__all__ = ["load", "replacing", "save"]

_VERSION = 1


def save(value: Any, path: Path) -> None:
    """Write `value` to a compressed ``.npz``; the same value gives the same bytes.

    Raises
    ------
    InputError
        If a part is of a type that the file cannot hold.
    StoreError
        If the file cannot be written; what was there before stays.
    """
    arrays: dict[str, np.ndarray] = {}
    tree = {"version": _VERSION, "value": _encode(value, arrays)}
    with replacing(path) as partial, partial.open("wb") as f:
        np.savez_compressed(f, tree=np.array(json.dumps(tree)), **arrays)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write beside `path`, which takes its place when it is whole.

    Raises
    ------
    StoreError
        If the disk refuses; what was there before stays, and nothing else is left.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise StoreError(f"{path}: could not be written ({error.strerror or error}): make room or choose another place") from None


def load(path: Path) -> Any:
    """What :func:`save` wrote.

    Raises
    ------
    NotFoundError
        If there is no such file.
    FormatError
        If it is damaged, no truth of a recording, or of a newer brainmu.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file, expected the truth of a synthetic recording")
    try:
        # Opened here: numpy leaves a file open that turns out to be no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
            arrays = {k: held[k] for k in held.files}
        tree = json.loads(str(arrays.pop("tree")))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        # Of a file that is no archive numpy says how to unpickle it, which nobody should do.
        reason = "no .npz archive" if "pickle" in str(error) else error
        raise FormatError(f"{path}: is not the truth of a synthetic recording ({reason}), or damaged: write it again") from None
    if tree.get("version") != _VERSION:
        raise FormatError(f"{path}: has layout {tree.get('version')!r}, this brainmu reads {_VERSION}: update brainmu")
    try:
        return _decode(tree["value"], arrays)
    except (KeyError, TypeError, AttributeError, ImportError) as error:
        raise FormatError(f"{path}: was written by another version of brainmu ({error}): write it again") from None


def _encode(v: Any, arrays: dict[str, np.ndarray]) -> Any:
    if v is None or isinstance(v, bool | int | float | str):
        return v
    if isinstance(v, np.generic):
        return v.item()
    if isinstance(v, np.ndarray):
        if v.dtype.kind == "O":
            return {"objects": [_encode(x, arrays) for x in v.tolist()]}
        # Named by what it holds: spikes that two parts of the truth share are written once.
        name = "a" + hashlib.sha256(f"{v.dtype.str} {v.shape}".encode() + np.ascontiguousarray(v).tobytes()).hexdigest()[:24]
        arrays[name] = v
        return {"array": name}
    if isinstance(v, list):
        return [_encode(x, arrays) for x in v]
    if isinstance(v, tuple):
        return {"tuple": [_encode(x, arrays) for x in v]}
    if isinstance(v, dict):
        return {"dict": [[_encode(k, arrays), _encode(x, arrays)] for k, x in v.items()]}
    if isinstance(v, pd.DataFrame):
        return {"frame": [[str(c), _encode(v[c].to_numpy(), arrays)] for c in v.columns], "rows": len(v)}
    if isinstance(v, EventTable):
        return {"events": _encode(v.to_frame(), arrays), "attrs": _encode(v.attrs, arrays)}
    if isinstance(v, Intervals):
        return {"intervals": _encode(v.bounds, arrays)}
    if isinstance(v, Hypnogram):
        about = [v.stage_set, v.epoch, v.start, v.scorer]
        return {"hypnogram": _encode(v.codes, arrays), "about": about, "proba": _encode(v.proba, arrays), "attrs": _encode(v.attrs, arrays)}
    if isinstance(v, Spikes):
        return {"spikes": [_encode(x, arrays) for x in (v.times, v.unit_id, v.units)]}
    if isinstance(v, functools.partial):
        return {"call": _name(v.func), "args": _encode(list(v.args), arrays), "keywords": _encode(v.keywords, arrays)}
    if dataclasses.is_dataclass(v) and not isinstance(v, type):
        fields = [[f.name, _encode(getattr(v, f.name), arrays)] for f in dataclasses.fields(v) if f.init]
        return {"class": _name(type(v)), "fields": fields}
    raise InputError(f"the truth holds a {type(v).__module__}.{type(v).__qualname__}, which its file has no place for: leave it out")


def _name(thing: Any) -> str:
    if not thing.__module__.startswith("brainmu.synth.") or "<" in thing.__qualname__:
        raise InputError(f"the truth holds {thing.__module__}.{thing.__qualname__}, expected only what belongs to brainmu.synth")
    return f"{thing.__module__}:{thing.__qualname__}"


def _named(name: str) -> Any:
    module, _, attribute = name.partition(":")
    if not module.startswith("brainmu.synth.") or "." in attribute:
        raise KeyError(f"{name} is not of brainmu.synth")
    return getattr(importlib.import_module(module), attribute)


def _decode(v: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(v, list):
        return [_decode(x, arrays) for x in v]
    if not isinstance(v, dict):
        return v
    key = next(iter(v))
    inner = v[key]
    if key == "array":
        return arrays[inner]
    if key == "objects":
        out = np.empty(len(inner), dtype=object)
        out[:] = [_decode(x, arrays) for x in inner]
        return out
    if key == "tuple":
        return tuple(_decode(x, arrays) for x in inner)
    if key == "dict":
        return {_decode(k, arrays): _decode(x, arrays) for k, x in inner}
    if key == "frame":
        return pd.DataFrame({c: _decode(x, arrays) for c, x in inner}, index=range(v["rows"]))
    if key == "events":
        return EventTable.from_frame(_decode(inner, arrays), attrs=_decode(v["attrs"], arrays))
    if key == "intervals":
        return Intervals(_decode(inner, arrays))
    if key == "hypnogram":
        stages, epoch, start, scorer = v["about"]
        return Hypnogram(_decode(inner, arrays), stages, epoch, start, _decode(v["proba"], arrays), scorer, _decode(v["attrs"], arrays))
    if key == "spikes":
        return Spikes(*(_decode(x, arrays) for x in inner))
    if key == "call":
        return functools.partial(_named(inner), *_decode(v["args"], arrays), **_decode(v["keywords"], arrays))
    return _named(inner)(**{k: _decode(x, arrays) for k, x in v["fields"]})
