"""Plain arrays in .npy, .npz, .mat, .h5, .csv, .tsv, .txt, .bin and .dat files, opened without reading their samples."""

from __future__ import annotations

import difflib
import functools
import io
import math
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.errors import FormatError
from brainmu.formats.lazy import H5Rows, OnDemand, RawRows
from brainmu.formats.sources import ArrayFile, need_file
from brainmu.formats.tables import TABLE_SUFFIXES, count_rows, open_table, read_table, table_layout

__all__ = ["ARRAY_SUFFIXES", "load_array", "members", "open_array"]

RAW_SUFFIXES = (".bin", ".dat", ".raw")
HDF5_SUFFIXES = (".h5", ".hdf5")
ARRAY_SUFFIXES = (".npy", ".npz", ".mat", *TABLE_SUFFIXES, *RAW_SUFFIXES, *HDF5_SUFFIXES)


def members(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """The arrays in a file: {name: (shape, type)}; "" for a file that holds one array without a name."""
    suffix = need_file(path, "an array file").suffix.lower()
    if suffix == ".npy":
        shape, _, dtype, _ = _npy_header(path)
        return {"": (shape, str(dtype))}
    if suffix == ".npz":
        return {name: (shape, str(dtype)) for name, (shape, dtype, *_) in _npz_headers(path).items()}
    if suffix in HDF5_SUFFIXES or (suffix == ".mat" and _is_hdf5(path)):
        return _h5_members(path)
    if suffix == ".mat":
        return _whosmat(path)
    if suffix in TABLE_SUFFIXES:
        ref = ArrayFile(str(path))
        header, names, _ = table_layout(path, ref)
        return {"": ((count_rows(path, header), len(names)), f"table: {', '.join(map(str, names))}")}
    return {"": ((path.stat().st_size,), "bytes")}


def open_array(path: Path, ref: ArrayFile) -> Any:
    """A lazy (time, channel) array of numbers.

    Raises
    ------
    NotFoundError, FormatError
        If the file is missing, empty, damaged, not numeric, or does not fit what is said of it.
    """
    suffix = need_file(path, "an array file").suffix.lower()
    if suffix == ".npy":
        out = _raw(path, *_npy_header(path), ref)
    elif suffix == ".npz":
        out = _open_npz(path, ref)
    elif suffix in HDF5_SUFFIXES or (suffix == ".mat" and _is_hdf5(path)):
        out = _open_h5(path, ref)
    elif suffix == ".mat":
        out = _open_mat(path, ref)
    elif suffix in TABLE_SUFFIXES:
        return open_table(path, ref)
    elif suffix in RAW_SUFFIXES or ref.dtype is not None:
        out = _open_raw(path, ref)
    else:
        raise FormatError(f"{path}: {suffix or 'no suffix'} is not an array file, expected one of {', '.join(ARRAY_SUFFIXES)}")
    if out.dtype.kind not in "fiub":
        raise FormatError(f"{path}: {ref.key or 'the array'} is of type {out.dtype}, expected numbers (time, channel)")
    return _take_columns(path, out, ref)


def load_array(path: Path, ref: ArrayFile) -> NDArray[Any]:
    """The whole array in its own shape and type: labels (also text), spike times, cells of arrays (as an object array)."""
    suffix = need_file(path, "an array file").suffix.lower()
    if suffix == ".npy":
        shape, _, dtype, offset = _npy_header(path)
        _check_size(path, offset, shape, dtype)
        return _checked_load(path)
    if suffix == ".npz":
        return _load_npz(path, _npz_key(path, ref.key))
    if suffix in HDF5_SUFFIXES or (suffix == ".mat" and _is_hdf5(path)):
        return _load_h5(path, ref)
    if suffix == ".mat":
        return _load_mat(path, _key(path, ref.key, list(_whosmat(path))))
    if suffix in TABLE_SUFFIXES:
        frame = read_table(path, ref)
        out = frame.to_numpy()
        return out[:, 0] if out.shape[1] == 1 else out
    if suffix in RAW_SUFFIXES:
        rows = _open_raw(path, ref if ref.n_channels else replace(ref, n_channels=1))
        return rows[:]
    raise FormatError(f"{path}: {suffix or 'no suffix'} is not an array file, expected one of {', '.join(ARRAY_SUFFIXES)}")


# -- shape ----------------------------------------------------------------------------------------------------------
def _two_dimensional(path: Path, shape: Sequence[int], ref: ArrayFile) -> tuple[int, int]:
    """Shape (time, channel) of an array of `shape`, or an error that says how to say it."""
    what = f"{path}{' ' + ref.key if ref.key else ''}"
    if math.prod(shape) == 0:
        raise FormatError(f"{what}: has shape {tuple(shape)}, which holds no samples")
    if len(shape) == 1:
        return int(shape[0]), 1
    if len(shape) == 2 and not ref.flatten:
        # MATLAB has no vectors: a row is one channel unless told otherwise.
        if shape[0] == 1 and shape[1] > 1 and not ref.transpose:
            return int(shape[1]), 1
        n, c = (shape[1], shape[0]) if ref.transpose else (shape[0], shape[1])
        if c > n and ref.transpose is None:
            raise FormatError(f"{what}: has shape {tuple(shape)}, {n} samples of {c} channels: say transpose: true if it is (channel, time), else false")
        return int(n), int(c)
    if not ref.flatten:
        raise FormatError(f"{what}: has shape {tuple(shape)}, expected (time, channel): pass flatten: true to make all axes after the first channels")
    if ref.transpose:
        raise FormatError(f"{what}: transpose and flatten were both given, expected one of them")
    return int(shape[0]), math.prod(shape[1:])


def _take_columns(path: Path, values: Any, ref: ArrayFile) -> Any:
    if ref.columns is None:
        return values
    from brainmu.core.signal import Signal

    wanted = ref.columns if isinstance(ref.columns, list) else [ref.columns]
    if not all(isinstance(c, int) and 0 <= c < values.shape[1] for c in wanted):
        raise FormatError(f"{path}: columns are {ref.columns!r}, expected indices from 0 to {values.shape[1] - 1} (names exist only in tables)")
    return Signal(values, rate=1.0).pick(wanted).values


def _check_size(path: Path, offset: int, shape: Sequence[int], dtype: np.dtype[Any]) -> None:
    expected, came = offset + math.prod(shape) * dtype.itemsize, path.stat().st_size
    if came < expected:
        raise FormatError(f"{path}: is truncated, {came} bytes came and its header {tuple(shape)} {dtype} needs {expected}: copy it again")


# -- .npy and .npz --------------------------------------------------------------------------------------------------
def _npy_header(path: Path) -> tuple[tuple[int, ...], str, np.dtype[Any], int]:
    with path.open("rb") as f:
        return _parse_npy(path, f)


def _parse_npy(path: Path, f: Any) -> tuple[tuple[int, ...], str, np.dtype[Any], int]:
    try:
        version = np.lib.format.read_magic(f)
        reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = reader(f)
    except (ValueError, EOFError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: not a .npy file ({str(error).splitlines()[0]}): save it again with numpy.save") from None
    if dtype.hasobject:
        raise FormatError(f"{path}: holds Python objects (pickled), which is refused as unsafe: save plain numbers, e.g. one array a unit in a .npz")
    return shape, "F" if fortran else "C", dtype, f.tell()


def _raw(path: Path, shape: tuple[int, ...], order: str, dtype: np.dtype[Any], offset: int, ref: ArrayFile) -> Any:
    n, c = _two_dimensional(path, shape, ref)
    _check_size(path, offset, shape, dtype)
    if ref.flatten and order == "F" and len(shape) > 2:
        return OnDemand((n, c), dtype, functools.partial(_load_flat, path, (n, c)))
    # Transposing (channel, time) in C order is (time, channel) in F order on the same bytes.
    return RawRows(path, dtype, (n, c), order if not ref.transpose else {"C": "F", "F": "C"}[order], offset)


def _load_flat(path: Path, shape: tuple[int, int]) -> NDArray[Any]:
    return _checked_load(path).reshape(shape)


def _checked_load(path: Path) -> NDArray[Any]:
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise FormatError(f"{path}: cannot be read ({str(error).splitlines()[0]}): save it again with numpy.save") from None


def _npz_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any], str, int | None]]:
    """{name: (shape, type, order, offset of the numbers in the file if stored uncompressed)}."""
    out: dict[str, tuple[tuple[int, ...], np.dtype[Any], str, int | None]] = {}
    try:
        with zipfile.ZipFile(path) as z:
            for info in z.infolist():
                if not info.filename.endswith(".npy"):
                    continue
                with z.open(info) as f:
                    shape, order, dtype, header = _parse_npy(path, io.BytesIO(f.read(4096)))
                offset = None
                if info.compress_type == zipfile.ZIP_STORED:
                    with path.open("rb") as raw:
                        raw.seek(info.header_offset)
                        local = raw.read(30)
                    offset = info.header_offset + 30 + int.from_bytes(local[26:28], "little") + int.from_bytes(local[28:30], "little") + header
                out[info.filename.removesuffix(".npy")] = (shape, dtype, order, offset)
    except (zipfile.BadZipFile, OSError) as error:
        raise FormatError(f"{path}: not a .npz file or a damaged one ({error}): copy it again, or save it again with numpy.savez") from None
    return out


def _key(path: Path, key: str | None, have: Sequence[str]) -> str:
    if key is None:
        if len(have) == 1:
            return have[0]
        raise FormatError(f"{path}: holds {len(have)} arrays ({', '.join(have)}): say which with key:")
    if key not in have and key.split(".")[0] not in have:
        near = difflib.get_close_matches(key, have, n=1)
        raise FormatError(f"{path}: has no array {key!r}, it holds {', '.join(have) or 'none'}{f': did you mean {near[0]}?' if near else ''}")
    return key


def _npz_key(path: Path, key: str | None) -> str:
    return _key(path, key, list(_npz_headers(path)))


def _open_npz(path: Path, ref: ArrayFile) -> Any:
    headers = _npz_headers(path)
    key = _key(path, ref.key, list(headers))
    shape, dtype, order, offset = headers[key]
    n, c = _two_dimensional(path, shape, replace(ref, key=key))
    if offset is not None and not (ref.flatten and order == "F"):
        return _raw(path, shape, order, dtype, offset, ref)
    return OnDemand((n, c), dtype, functools.partial(_load_npz_rows, path, key, (n, c), ref.transpose))


def _load_npz(path: Path, key: str) -> NDArray[Any]:
    try:
        with np.load(path, allow_pickle=False) as z:
            return z[key]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FormatError(f"{path}: {key} cannot be read ({str(error).splitlines()[0]}): copy the file again, or save plain numbers with numpy.savez") from None


def _load_npz_rows(path: Path, key: str, shape: tuple[int, int], transpose: bool | None) -> NDArray[Any]:
    values = _load_npz(path, key)
    return values.T if transpose else values.reshape(shape)


# -- .mat and HDF5 --------------------------------------------------------------------------------------------------
def _is_hdf5(path: Path) -> bool:
    # MATLAB 7.3 files are HDF5 behind a 512-byte user block.
    with path.open("rb") as f:
        head = f.read(520)
    return b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:520])


def _whosmat(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    import scipy.io

    try:
        return {name: (tuple(int(s) for s in shape), kind) for name, shape, kind in scipy.io.whosmat(path)}
    except (ValueError, TypeError, OSError, EOFError, NotImplementedError, scipy.io.matlab.MatReadError, zlib.error) as error:
        raise FormatError(f"{path}: not readable as a MATLAB file ({str(error).splitlines()[0]}): save it again with save -v7, or copy it again") from None


def _load_mat(path: Path, key: str) -> NDArray[Any]:
    import scipy.io

    first, *rest = key.split(".")
    try:
        value: Any = scipy.io.loadmat(path, variable_names=[first])[first]
    except (ValueError, TypeError, OSError, EOFError, KeyError, scipy.io.matlab.MatReadError, zlib.error) as error:
        raise FormatError(f"{path}: {first} cannot be read ({str(error).splitlines()[0]}): the file is damaged or truncated, copy it again") from None
    for name in rest:
        fields = getattr(value.dtype, "names", None) or ()
        if name not in fields:
            raise FormatError(f"{path}: {key!r}: no field {name!r}, there is {', '.join(fields) or 'no struct there'}")
        value = value[name]
        while value.dtype == object and value.size == 1:
            value = value.flat[0]
    return value


_MAT_TYPES = {"double": "f8", "single": "f4", "logical": "u1"} | {f"{s}int{b}": f"{s[:1] or 'i'}{b // 8}" for s in ("", "u") for b in (8, 16, 32, 64)}


def _open_mat(path: Path, ref: ArrayFile) -> Any:
    have = _whosmat(path)
    key = _key(path, ref.key, list(have))
    if "." in key or have[key][1] == "sparse":
        value = _load_mat(path, key)
        value = value.toarray() if hasattr(value, "toarray") else value
        n, c = _two_dimensional(path, value.shape, ref)
        return OnDemand((n, c), value.dtype, functools.partial(_load_mat_rows, path, key, (n, c), ref.transpose))
    shape, kind = have[key]
    if kind not in _MAT_TYPES:
        raise FormatError(f"{path}: {key} is a MATLAB {kind}, expected numbers (time, channel); it holds {', '.join(f'{k} ({v[1]})' for k, v in have.items())}")
    n, c = _two_dimensional(path, shape, replace(ref, key=key))
    return OnDemand((n, c), _MAT_TYPES[kind], functools.partial(_load_mat_rows, path, key, (n, c), ref.transpose))


def _load_mat_rows(path: Path, key: str, shape: tuple[int, int], transpose: bool | None) -> NDArray[Any]:
    value = _load_mat(path, key)
    value = value.toarray() if hasattr(value, "toarray") else value
    return value.T if transpose else value.reshape(shape)


def _h5_members(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    import h5py

    out: dict[str, tuple[tuple[int, ...], str]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("#refs#"):
            out[name] = (tuple(int(s) for s in item.shape), str(item.dtype))

    try:
        with h5py.File(path, "r") as f:
            f.visititems(visit)
    except OSError as error:
        raise FormatError(f"{path}: not readable as HDF5 ({error}): it is truncated or damaged, copy it again") from None
    return out


def _open_h5(path: Path, ref: ArrayFile) -> Any:
    have = _h5_members(path)
    key = _key(path, ref.key if ref.key is None else ref.key.replace(".", "/") if path.suffix == ".mat" else ref.key, list(have))
    if key not in have:
        raise FormatError(f"{path}: has no dataset {key!r}, it holds {', '.join(have)}")
    shape = have[key][0]
    # MATLAB writes its column-major (time, channel) as HDF5 (channel, time).
    flip = path.suffix == ".mat" and len(shape) == 2
    seen = shape[::-1] if flip else shape
    _two_dimensional(path, seen, replace(ref, key=key))
    row = len(seen) == 2 and seen[0] == 1 and seen[1] > 1 and not ref.transpose
    return H5Rows(path, key, time_last=(flip != bool(ref.transpose)) != row)


def _load_h5(path: Path, ref: ArrayFile) -> NDArray[Any]:
    import h5py

    have = _h5_members(path)
    key = _key(path, ref.key.replace(".", "/") if ref.key and path.suffix == ".mat" else ref.key, list(have))
    with h5py.File(path, "r") as f:
        if key not in f:
            raise FormatError(f"{path}: has no dataset {key!r}, it holds {', '.join(have)}")
        data = f[key]
        if h5py.check_ref_dtype(data.dtype) is not None:
            cells = np.empty(data.size, dtype=object)
            cells[:] = [np.asarray(f[r]).T for r in np.asarray(data).ravel()]
            return cells
        value = data.asstr()[()] if h5py.check_string_dtype(data.dtype) else data[()]
    return np.asarray(value).T if path.suffix == ".mat" else np.asarray(value)


# -- .bin -----------------------------------------------------------------------------------------------------------
def _open_raw(path: Path, ref: ArrayFile) -> RawRows:
    if ref.dtype is None or ref.n_channels is None:
        absent = " and ".join(k for k in ("dtype", "n_channels") if getattr(ref, k) is None)
        raise FormatError(f"{path}: a raw file does not say what it holds: give {absent} (and order: F if it is written channel by channel)")
    try:
        dtype = np.dtype(ref.dtype)
    except TypeError:
        raise FormatError(f"{path}: dtype is {ref.dtype!r}, expected a NumPy type such as int16, float32 or >i2") from None
    if dtype.kind not in "fiu":
        raise FormatError(f"{path}: dtype is {ref.dtype!r}, expected a number type such as int16 or float32")
    if ref.n_channels < 1 or ref.header_bytes < 0:
        raise FormatError(f"{path}: n_channels is {ref.n_channels} and header_bytes {ref.header_bytes}, expected at least 1 and at least 0")
    size = path.stat().st_size - ref.header_bytes
    frame = ref.n_channels * dtype.itemsize
    if size <= 0 or size % frame:
        raise FormatError(
            f"{path}: {size} bytes of samples are not a multiple of {frame} ({ref.n_channels} channels of {dtype.name}): "
            "check n_channels, dtype and header_bytes, or the copy was interrupted"
        )
    return RawRows(path, dtype, (size // frame, ref.n_channels), ref.order, ref.header_bytes)
