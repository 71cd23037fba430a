"""Arrays that stay on disk: opened by shape and type, read a block of rows at a time.

Each is (time, channel), holds no file open between reads and can be pickled, so a worker process reads the same file.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.errors import FormatError

__all__ = ["Calibrated", "H5Rows", "OnDemand", "RawRows", "Rows", "Spread", "Stacked"]


class Rows:
    """A lazy (time, channel) array. Subclasses set `shape` and `dtype` and read rows [i, j)."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        raise TypeError(f"{type(self).__name__} does not say how its rows are read")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        rows, columns = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        n = self.shape[0]
        if isinstance(rows, slice):
            i, j, step = rows.indices(n)
            if step > 0:
                block = self.read_rows(i, max(i, j))[::step]
            else:
                block = self[np.arange(i, j, step)]
        elif np.ndim(rows) == 0:
            k = int(rows) + (n if rows < 0 else 0)
            if not 0 <= k < n:
                raise IndexError(f"sample {int(rows)} is outside the {n} samples of the signal")
            block = self.read_rows(k, k + 1)[0]
            return block[columns] if columns else block
        else:
            w = np.asarray(rows)
            w = np.flatnonzero(w) if w.dtype == bool else w + np.where(w < 0, n, 0)
            i, j = (int(w.min()), int(w.max()) + 1) if w.size else (0, 0)
            block = self.read_rows(i, j)[w - i]
        return block[(slice(None), *columns)] if columns else block


class RawRows(Rows):
    """Numbers laid out plainly in a file. Order "C" is sample by sample, "F" is channel by channel."""

    def __init__(self, path: Path, dtype: Any, shape: tuple[int, int], order: str = "C", offset: int = 0) -> None:
        self.path, self.dtype, self.shape, self.order, self.offset = Path(path), np.dtype(dtype), shape, order, offset

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        if j <= i or 0 in self.shape:
            return np.empty((max(j - i, 0), self.shape[1]), dtype=self.dtype)
        try:
            mapped = np.memmap(self.path, self.dtype, "r", self.offset, self.shape, self.order)  # type: ignore[call-overload]
        except (ValueError, OSError) as error:
            raise FormatError(f"{self.path}: cannot be read any more ({error}): the file changed since it was opened") from None
        return np.array(mapped[i:j])


class H5Rows(Rows):
    """A dataset of an HDF5 file. `time_last` is for datasets stored (channel, time), as MATLAB 7.3 and some writers do."""

    def __init__(self, path: Path, key: str, *, time_last: bool = False) -> None:
        self.path, self.key, self.time_last = Path(path), key, time_last
        with self._open() as f:
            data = f[key]
            shape, self.dtype = tuple(int(s) for s in data.shape), np.dtype(data.dtype)
        if len(shape) == 1:
            shape = (shape[0], 1)
            self.time_last = False
        elif time_last:
            shape = shape[::-1]
        elif len(shape) > 2:
            shape = (shape[0], int(np.prod(shape[1:])))
        self.shape = (shape[0], shape[1])

    def _open(self) -> Any:
        import h5py

        try:
            return h5py.File(self.path, "r")
        except OSError as error:
            raise FormatError(f"{self.path}: not readable as HDF5 ({error}): it is truncated, or another program writes it") from None

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        with self._open() as f:
            data = f[self.key]
            try:
                block = data[..., i:j].T if self.time_last else data[i:j]
            except OSError as error:
                raise FormatError(f"{self.path}: {self.key} samples {i} to {j} cannot be read ({error}): the file is damaged, copy it again") from None
        return np.asarray(block).reshape(j - i, self.shape[1])


class OnDemand(Rows):
    """An array in a container that only reads whole (compressed .npz, .mat, text): read at first touch, then kept."""

    def __init__(self, shape: tuple[int, int], dtype: Any, load: Callable[[], NDArray[Any]]) -> None:
        self.shape, self.dtype, self._load = shape, np.dtype(dtype), load
        self._kept: NDArray[Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": None}

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        if self._kept is None:
            self._kept = np.asarray(self._load()).reshape(self.shape).astype(self.dtype, copy=False)
        return self._kept[i:j]


class Calibrated(Rows):
    """Digital values brought to physical ones: ``values * gain + offset`` (a channel each), as float32."""

    dtype = np.dtype(np.float32)

    def __init__(self, base: Any, gain: Sequence[float] | float, offset: Sequence[float] | float = 0.0) -> None:
        self.base, self.shape = base, (int(base.shape[0]), int(base.shape[1]))
        self.gain, self.offset = np.asarray(gain, dtype=np.float64), np.asarray(offset, dtype=np.float64)

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        # In float64 first: gain and offset of a 24-bit converter do not fit float32 together.
        return (np.asarray(self.base[i:j], dtype=np.float64) * self.gain + self.offset).astype(np.float32)


class Spread(Rows):
    """Pieces of a recording laid on one uniform grid; what lies between them is missing (NaN).

    `first` (k,) is the grid index of each piece, `length` (k,) its number of samples, in file order.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, base: Any, first: NDArray[np.int64], length: NDArray[np.int64]) -> None:
        self.base, self.first, self.length = base, first, length
        self.source = np.cumsum(length) - length
        self.shape = (int(first[-1] + length[-1]) if len(first) else 0, int(base.shape[1]))

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        out = np.full((j - i, self.shape[1]), np.nan, dtype=np.float32)
        a = int(np.searchsorted(self.first + self.length, i, side="right"))
        for first, length, source in zip(self.first[a:], self.length[a:], self.source[a:]):
            lo, hi = max(int(first), i), min(int(first + length), j)
            if lo >= hi:
                break
            out[lo - i : hi - i] = self.base[int(source) + lo - int(first) : int(source) + hi - int(first)]
        return out


class Stacked(Rows):
    """Arrays of equal length side by side (one file a channel)."""

    def __init__(self, parts: Sequence[Any]) -> None:
        self.parts = list(parts)
        self.shape = (int(parts[0].shape[0]), sum(int(p.shape[1]) for p in parts))
        self.dtype = np.result_type(*(p.dtype for p in parts))

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        return np.concatenate([np.asarray(p[i:j]) for p in self.parts], axis=1)
