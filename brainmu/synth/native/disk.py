"""What the operating system refuses to write: said in one line, and without HDF5 losing its head over it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from brainmu.errors import StoreError

__all__ = ["Disk", "refused"]

_REMEDIES = {
    errno.ENOSPC: ("the disk is full", "free some space, or choose a folder on another disk"),
    errno.EDQUOT: ("the disk quota is used up", "free some space, or choose a folder on another disk"),
    errno.EROFS: ("the file system is read-only", "choose a folder on another one"),
    errno.EACCES: ("permission denied", "choose a folder that you may write to"),
    errno.EPERM: ("permission denied", "choose a folder that you may write to"),
    errno.ENOTDIR: ("a file lies where a folder should be", "choose another folder"),
    errno.EEXIST: ("a file lies where a folder should be", "choose another folder"),
    errno.ENAMETOOLONG: ("its name is too long", "give the recording a shorter id"),
}


def refused(error: OSError, target: Path) -> StoreError:
    """`error` as one line about `target`."""
    what, remedy = _REMEDIES.get(
        error.errno or 0, (error.strerror or f"only a part was taken ({error})", "see whether the disk is full, or choose another folder")
    )
    return StoreError(f"{target}: cannot be written: {what}: {remedy}; nothing was left behind")


class Disk:
    """A new file for h5py that stays usable when the disk is full.

    HDF5 cannot close a file that it could not flush: it prints a traceback for every object left open, and may crash. Here what comes after the first
    failed write is dropped, HDF5 closes in peace, and the first error is raised on leaving the context. :meth:`check` raises it earlier.
    """

    def __init__(self, path: Path) -> None:
        self.file = path.open("w+b", buffering=0)
        self.error: OSError | None = None

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        done = 0
        try:
            while self.error is None and done < len(view):
                done += self.file.write(view[done:])
        except OSError as error:
            self.error = error
        return len(view)

    def truncate(self, size: int) -> int:
        try:
            if self.error is None:
                self.file.truncate(size)
        except OSError as error:
            self.error = error
        return size

    def readinto(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        n = self.file.readinto(view) or 0
        view[n:] = bytes(len(view) - n)
        return len(view)

    def read(self, size: int = -1) -> bytes:
        return self.file.read(size) or b""

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def flush(self) -> None:
        """Nothing is held back."""

    def __enter__(self) -> Disk:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.file.close()
        if self.error is not None and (kind is None or issubclass(kind, Exception)):
            raise self.error from None
