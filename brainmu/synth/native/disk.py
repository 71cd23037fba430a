"""What the operating system refuses to write: said in one line, and without HDF5 losing its head over it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from brainmu.errors import DISK_REASONS, StoreError

__all__ = ["Disk", "refused"]

_SPACE, _MINE, _OTHER = "free some space, or choose a folder on another disk", "choose a folder that you may write to", "choose another folder"
_REMEDIES = {
    errno.ENOSPC: _SPACE, errno.EDQUOT: _SPACE, errno.EROFS: "choose a folder on another one", errno.EACCES: _MINE, errno.EPERM: _MINE,
    errno.ENOTDIR: _OTHER, errno.EEXIST: _OTHER, errno.ENAMETOOLONG: "give the recording a shorter id",
}  # fmt: skip


def refused(error: OSError, target: Path) -> StoreError:
    """`error` as one line about `target`."""
    reason = DISK_REASONS.get(error.errno or 0, error.strerror or f"only a part was taken ({error})")
    remedy = _REMEDIES.get(error.errno or 0, "see whether the disk is full, or choose another folder")
    return StoreError(f"{target}: cannot be written: {reason}: {remedy}; nothing was left behind")


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
