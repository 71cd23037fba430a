"""Pickles inside scientific files (Suite2p's ops.npy, the column names of pandas' HDF5), read without running what they name."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.errors import FormatError

__all__ = ["load_object_array", "load_plain"]

_NUMPY = ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
_ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"), ("collections", "OrderedDict"), ("datetime", "datetime"), ("datetime", "date")}
_ALLOWED |= {("datetime", "timedelta"), ("builtins", "complex"), ("builtins", "bytearray"), ("builtins", "set"), ("builtins", "slice")}
_ALLOWED |= {(f"numpy.{core}.{name.split('.')[0]}", name.split(".")[1]) for core in ("core", "_core") for name in _NUMPY}


def _path_text(*parts: str) -> str:
    return "/".join(parts)


class _Refused(pickle.UnpicklingError):
    """A name that is no plain data."""


class _Plain(pickle.Unpickler):
    """Admits numbers, text, lists, dicts and numpy arrays of them; anything else that a pickle could call is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "pathlib" and name.endswith("Path"):
            return _path_text
        if (module, name) in _ALLOWED or (module == "numpy.dtypes" and name.endswith("DType")):
            return super().find_class(module, name)
        raise _Refused(f"it names {module}.{name}")


def load_plain(data: bytes | io.BufferedReader, where: str, fix: str) -> Any:
    """The object of a pickle, if it holds nothing but plain data.

    Parameters
    ----------
    where, fix : str
        What is read, and what the user can do, for the message.

    Raises
    ------
    FormatError
        If the pickle is damaged, or names a class or function that is no plain data (it is not run).
    """
    stream = io.BytesIO(data) if isinstance(data, bytes) else data
    try:
        return _Plain(stream).load()
    except _Refused as error:
        raise FormatError(f"{where}: its pickle holds more than numbers, text, lists and arrays ({error}), which is refused as unsafe: {fix}") from None
    except (pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, ImportError, OverflowError, MemoryError) as error:
        raise FormatError(f"{where}: its pickle is damaged ({' '.join(str(error).split())[:120] or type(error).__name__}): {fix}") from None


def load_object_array(path: Path, fix: str) -> NDArray[Any]:
    """A .npy file of plain Python objects (dicts, lists, arrays); a .npy file of numbers comes back as it is.

    Raises
    ------
    FormatError
        If it is no .npy file, or :func:`load_plain` refuses what is in it.
    """
    with path.open("rb") as f:
        try:
            version = np.lib.format.read_magic(f)
            reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = reader(f)
        except (ValueError, EOFError, UnicodeDecodeError) as error:
            raise FormatError(f"{path}: not a .npy file ({str(error).splitlines()[0]}): {fix}") from None
        if not dtype.hasobject:
            return np.load(path, allow_pickle=False)
        array = np.asarray(load_plain(f, str(path), fix), dtype=object)
    if array.size != np.prod(shape, dtype=int):
        raise FormatError(f"{path}: holds {array.size} objects and its header says {tuple(shape)}: {fix}")
    return array.reshape(shape)
