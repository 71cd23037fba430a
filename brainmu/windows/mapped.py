"""Pages of mapped files are given back once read, so that what a process holds does not grow with the hours it has read."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from brainmu.store.arrays import MappedArray

__all__ = ["give_back"]


def give_back(values: Any, first: int, last: int) -> None:
    """Have the system forget that this process read rows [first, last) of `values`; the file's pages stay in the system's own cache.

    Only files mapped for reading are touched: nothing that was written can be lost. Other arrays are left alone.
    """
    inner = values
    while not isinstance(inner, (np.ndarray, MappedArray)) and hasattr(inner, "base"):  # a cut or picked signal shows part of another array
        inner = inner.base
    if last <= first or not hasattr(mmap, "MADV_DONTNEED"):
        return
    if isinstance(inner, MappedArray) and not inner.layout.packed:
        step = inner.layout.shard
    elif isinstance(inner, np.memmap):
        step = len(inner)
    else:
        return
    for row in {*range(first, last, step or 1), last - 1}:
        view = values[row : row + 1]
        while isinstance(view, np.ndarray):
            view = view.base
        if isinstance(view, mmap.mmap) and memoryview(view).readonly:
            view.madvise(mmap.MADV_DONTNEED)
