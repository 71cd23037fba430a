"""Streams on their way to another process: small, whatever arrays they hold.

Lazy readers are sent as they are and open their files anew. An array that is mapped from a file is sent as that place in the file; one that lies
in memory, and is large, is put into a file first, so that it is neither copied into every process nor sent with every piece of work.
"""

from __future__ import annotations

import io
import mmap
import pickle
import threading
import uuid
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
from numpy.typing import NDArray

from brainmu.errors import InputError
from brainmu.store.streams import Stream

__all__ = ["load", "pack"]

LARGE = 1 << 20
"""Bytes from which an array in memory goes through a file."""


def pack(streams: list[Stream], folder: Path | None) -> bytes:
    """Streams as bytes; large arrays in memory as files in `folder`, if there is one.

    Raises
    ------
    InputError
        If a stream reads through something that cannot be sent (an open connection, a generator).
    """
    out = io.BytesIO()
    try:
        _Pickler(out, folder).dump(streams)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise InputError(f"the recording cannot be sent to other processes ({' '.join(str(error).split())[:200]}): preprocess it with jobs=1") from None
    return out.getvalue()


_kept = threading.local()


def load(payload: Path | bytes) -> list[Stream]:
    """The streams in a payload or in the file that holds one; kept for the next shard of the same.

    Each thread gets its own: readers are not made for several threads at a time.
    """
    if getattr(_kept, "key", None) != payload:
        _kept.key = _kept.streams = None
        data = payload if isinstance(payload, bytes) else payload.read_bytes()
        _kept.key, _kept.streams = payload, pickle.loads(data)
    return _kept.streams


class _Pickler(cloudpickle.CloudPickler):
    # cloudpickle, because a lazy array's class may be defined in the script or notebook that runs.
    def __init__(self, out: io.BytesIO, folder: Path | None) -> None:
        super().__init__(out, protocol=5)
        self._folder = folder

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.ndarray) and obj.dtype.kind in "fiub":
            place = _place(obj)
            if place is not None:
                return _mapped, place
            if self._folder is not None and obj.nbytes >= LARGE:
                path = self._folder / f"{uuid.uuid4().hex}.npy"
                np.save(path, obj)
                return np.load, (path, "r")
        return super().reducer_override(obj)


def _place(a: NDArray[Any]) -> tuple[Any, ...] | None:
    """File, offset, type, shape and strides of an array that shows a mapped file, or None."""
    root: Any = a
    while isinstance(root, np.ndarray) and not isinstance(root.base, mmap.mmap):
        root = root.base
    if not isinstance(root, np.memmap) or root.filename is None or root.mode not in ("r", "r+", "w+") or not a.size:
        return None  # "c" keeps changes in memory
    offset = root.offset + a.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    return str(Path(root.filename).absolute()), offset, a.dtype, a.shape, a.strides


def _mapped(file: str, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...], strides: tuple[int, ...]) -> NDArray[Any]:
    with open(file, "rb") as f:
        data = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    return np.ndarray(shape, dtype, buffer=data, offset=offset, strides=strides)
