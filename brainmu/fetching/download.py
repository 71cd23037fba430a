"""One file from a server to its place: by pooch, with a downloader that goes on where a transfer broke off."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from brainmu.errors import FetchError
from brainmu.fetching.archives import RemoteFile, request

__all__ = ["Download"]

_BLOCK = 1 << 16
"""Bytes read at a time; where a transfer breaks off, up to so many that came are asked for again."""


class _BrokeOffError(Exception):
    """The transfer ended too early."""


class Download:
    """The download of one file. What came of it lies in ``<name>.part`` until it is whole and its checksum is right.

    Parameters
    ----------
    file : RemoteFile
    target : Path
    advance : function of (bytes received, bytes in all or None)
    stop : Event
        Set by another thread to end after the current block.
    retries, pause : int, s
        How often to go on after a break, and how long to wait before the first time.
    """

    def __init__(
        self, file: RemoteFile, target: Path, advance: Callable[[int, int | None], None], stop: threading.Event, retries: int, pause: float
    ) -> None:  # fmt: skip
        self.file, self.target, self.advance, self.stop = file, target, advance, stop
        self.retries, self.pause = retries, pause
        self.part = target.with_name(target.name + ".part")
        self.resumed = False

    def run(self) -> None:
        """Download and check. Raises FetchError or NotFoundError."""
        import pooch

        pooch.get_logger().setLevel("ERROR")
        self.target.parent.mkdir(parents=True, exist_ok=True)
        for last in (False, True):
            fresh = not self.part.exists()
            try:
                # pooch compares the checksum of what the downloader made, and moves it into place only if it fits.
                pooch.retrieve(self.file.url, self.file.checksum, fname=self.target.name, path=self.target.parent, downloader=self)
                return
            except ValueError:
                # Parts of two versions of a file make neither: once more from the start. What came in one go is simply wrong.
                if last or (fresh and not self.resumed):
                    raise FetchError(
                        f"{self.target}: what {self.file.url} sent is not what the archive's checksum says ({self.file.checksum}): it was removed; "
                        "try again, and report it to the archive if it stays so"
                    ) from None
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise FetchError(f"{self.target}: the disk is full: free some space and run the same command, it goes on from what came") from None
                raise

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        """pooch's downloader: write `url` to `output_file`."""
        reason = ""
        for attempt in range(self.retries + 1):
            if self.stop.is_set():
                raise FetchError(f"{self.target}: stopped; the same command goes on from what came")
            try:
                self._pull(url)
                self.part.replace(output_file)
                return
            except _BrokeOffError as error:
                reason = str(error)
            self.stop.wait(self.pause * 2**attempt)
        raise FetchError(f"{url}: {reason}, {self.retries + 1} times: check the connection; the same command goes on from what came")

    def _pull(self, url: str) -> None:
        """Bytes from where the part ends; raises _BrokeOff where they end too early."""
        import requests

        have = self.part.stat().st_size if self.part.exists() else 0
        if self.file.size is not None and have == self.file.size:
            return
        answer = request(url, headers={"Range": f"bytes={have}-"} if have else {}, stream=True)
        with answer:
            if answer.status_code == 416:
                # Nothing lies beyond what came: either it is whole (the checksum tells), or the file is another now.
                whole = answer.headers.get("Content-Range", "").rpartition("/")[2]
                if whole != str(have):
                    self.part.unlink()
                    raise _BrokeOffError("has fewer bytes than came before")
                return
            goes_on = answer.status_code == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            have = have if goes_on else 0
            self.resumed |= goes_on
            length = answer.headers.get("Content-Length")
            whole = have + int(length) if length is not None else self.file.size
            try:
                with self.part.open("ab" if goes_on else "wb") as f:
                    for block in answer.iter_content(_BLOCK):
                        f.write(block)
                        have += len(block)
                        self.advance(have, whole)
                        if self.stop.is_set():
                            raise FetchError(f"{self.target}: stopped; the same command goes on from what came")
            except requests.RequestException as error:
                raise _BrokeOffError(f"broke off after {have} bytes ({type(error).__name__})") from None
        if whole is not None and have != whole:
            raise _BrokeOffError(f"broke off after {have} of {whole} bytes")
