"""A store being written to a remote place: objects below a URL, resumable, its root ``zarr.json`` last, so that a half-written one never opens.

Each finished shard is vouched for by a small object below ``.work/``. A run that goes on keeps the shards that the objects of the same job vouch for
and that are there in full length (an object is written whole or not at all), and removes whatever else lies there.

Two writers are kept apart by the object ``.work/writer``, which its holder rewrites every few seconds, and which is made only where there is none (services
that offer no such promise are asked first). A writer that was killed is told from one at work by whether the object changes. This is a guard against slips, not
a lock: a writer that loses touch for longer notices with its next shard that another took over, and stops; both write the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brainmu.errors import NotFoundError, OutputExistsError, StoreError
from brainmu.store.folder import CHECKSUMS, Folder, checksum_lines
from brainmu.store.layout import ArrayLayout
from brainmu.store.places import WORK, RemotePlace, place_of
from brainmu.store.session import Session, is_store, open
from brainmu.store.verification import listed_files

__all__ = ["RemoteFolder", "RemoteSink", "complete", "writing"]

BEAT = 10.0
"""Seconds after which a writer shows again that it is at work; after three without, it counts as dead."""
_JOB, _WRITER, _DONE = f"{WORK}/job", f"{WORK}/writer", f"{WORK}/done"
_PENDING = 1 << 26


@contextlib.contextmanager
def writing(url: str, job: str, *, overwrite: bool = False, storage_options: dict[str, Any] | None = None) -> Iterator[RemoteFolder]:
    """The place in which the store `url` is made by the job with that identity; on leaving without an error it is whole.

    With `overwrite` another store there is removed first, its root before all else: a remote place cannot rename, so the old store is not kept until the
    new one is whole.

    Raises
    ------
    OutputExistsError
        If something else lies there.
    StoreError
        If another process is writing it, or the place refuses or cannot be reached.
    """
    place = _remote(url, storage_options)
    if place.read_only:
        raise StoreError(f"{url}: the plain web takes no objects: give an --out on an object store (s3://…, gs://…) or a local one")
    _refuse_other(place, overwrite)
    with _Claim(place) as claim, tempfile.TemporaryDirectory(prefix="brainmu-") as scratch:
        try:
            folder = RemoteFolder(place, job, claim, Path(scratch))
            yield folder
            folder.finish()
        except OSError as error:
            if isinstance(error, (StoreError, NotFoundError, OutputExistsError)):
                raise
            raise StoreError(
                f"{url}: cannot be written: {error.strerror or error} ({error.filename or scratch}): a file is made here before it goes there; "
                "free some space, or set TMPDIR to a folder that has it"
            ) from error


def complete(url: str, identity: str, *, storage_options: dict[str, Any] | None = None) -> Session | None:
    """The store with that identity if it lies at `url` with all its objects. What a writer that died last of all left beside it is removed."""
    place = _remote(url, storage_options)
    data = place.find("zarr.json")
    if data is None or not is_store(place):
        return None
    session = open(place.url, storage_options=storage_options)
    if session.provenance.get("identity") != identity:
        return None
    there = place.sizes()
    if there is not None:
        if not {*listed_files(place), CHECKSUMS} <= there.keys():
            return None
        if left := [name for name in there if name.startswith(WORK + "/")]:
            with _Claim(place):
                place.remove(n for n in left if n != _WRITER)
    session.already_complete = True
    return session


def _remote(url: str, storage_options: dict[str, Any] | None) -> RemotePlace:
    place = place_of(url, storage_options)
    if not isinstance(place, RemotePlace):
        raise StoreError(f"{url}: is a local path, expected a URL (scheme://…)")
    return place


def _refuse_other(place: RemotePlace, overwrite: bool) -> None:
    there = place.sizes() or {}
    if not there or ("zarr.json" not in there and any(name.startswith(WORK + "/") for name in there)):
        return
    if CHECKSUMS not in there and not is_store(place):
        raise OutputExistsError(
            f"{place}: exists and holds something that is no store, which is not replaced even with --overwrite: give another --out, or move it away"
        )
    if not overwrite:
        raise OutputExistsError(
            f"{place}: exists and holds another store, or the same from other sources or settings: give another --out, or --overwrite to replace it"
        )


@dataclass(frozen=True)
class RemoteSink:
    """Shards below `url`. They are written to a local temporary file and uploaded when whole, so that an object is there in full or not at all."""

    url: str
    options: dict[str, Any] = field(repr=False)
    scratch: Path

    def begin(self, name: str) -> Path:
        """A new local file: in the writer's folder, or where that is on another machine, in the usual one."""
        handle, path = tempfile.mkstemp(prefix="brainmu-shard-", dir=self.scratch if self.scratch.is_dir() else None)
        os.close(handle)
        return Path(path)

    def commit(self, temporary: Path, name: str) -> None:
        """Upload."""
        RemotePlace(self.url, self.options).upload(temporary, name)
        temporary.unlink()


class RemoteFolder(Folder):
    """The remote place that becomes the store. Made by :func:`writing`."""

    def __init__(self, place: RemotePlace, job: str, claim: _Claim, scratch: Path) -> None:
        self.place, self.job, self.scratch, self._claim = place, job, scratch, claim
        self.done: dict[str, dict[str, Any]] = {}
        self.metadata: dict[str, dict[str, Any]] = {}
        self._pending: dict[str, bytes] = {}
        self.sink = RemoteSink(place.url, place.options, scratch)
        self._resume()

    def _resume(self) -> None:
        there = self.place.sizes() or {}
        if "zarr.json" in there:  # overwritten: from here on it does not open
            self.place.remove(["zarr.json"])
        notes = [name for name in there if name.startswith(_DONE + "/")]
        kept = {_WRITER}
        if self.place.find(_JOB) == self.job.encode():
            kept.add(_JOB)
            self.place.prefetch(notes)
            for note in notes:
                entry = _entry(self.place.read(note))
                if entry is not None and there.get(entry["file"]) == entry["size"]:
                    self.done[entry["file"]] = entry
                    kept |= {note, entry["file"]}
        self.place.remove(name for name in there if name not in kept and name != "zarr.json")
        if _JOB not in kept:
            self.place.put(_JOB, self.job.encode())

    # -- writing --------------------------------------------------------------------------------------------------
    def put(self, name: str, data: bytes) -> None:
        """Write a small object, together with others."""
        self._pending[name] = data
        self.done[name] = {"file": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        if sum(map(len, self._pending.values())) > _PENDING:
            self._flush()

    def _flush(self) -> None:
        self.place.put_many(self._pending)
        self._pending = {}

    def prepare(self, name: str, layout: ArrayLayout) -> None:
        """Nothing: objects need no folders."""

    def record(self, name: str, size: int, sha256: str, note: Any = None) -> None:
        """A shard is whole: vouch for it."""
        self._claim.check()
        line = json.dumps({"file": name, "size": size, "sha256": sha256, "note": note})
        self.done[name] = json.loads(line)
        self.place.put(f"{_DONE}/{hashlib.sha256(name.encode()).hexdigest()[:32]}.json", line.encode())

    def identify(self) -> None:
        """Nothing: the job was known from the start."""

    def finish(self) -> None:
        """Write metadata and checksums, see that everything arrived, and then the root."""
        *inner, (root, opening) = self.documents()
        for name, data in inner:
            self.put(name, data)
        self._flush()
        sums = {k: v["sha256"] for k, v in self.done.items()} | {root: hashlib.sha256(opening).hexdigest()}
        self.place.put(CHECKSUMS, checksum_lines(sums))
        there = self.place.sizes() or {}
        for name, entry in self.done.items():
            if there.get(name) != entry["size"]:
                raise StoreError(
                    f"{self.place}/{name}: holds {there.get(name, 'no')} bytes after {entry['size']} were written: another process is at work there, or the "
                    "service lost them; run the same command again"
                )
        self._claim.check()
        self.place.put(root, opening)
        self.place.remove(name for name in there if name.startswith(WORK + "/") and name != _WRITER)


def _entry(data: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(data)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) and {"file", "size", "sha256", "note"} <= set(entry) else None


class _Claim:
    """That this process is the one who writes here; kept alive by a thread."""

    def __init__(self, place: RemotePlace) -> None:
        self.place, self.token = place, uuid.uuid4().hex
        self._beats, self._stop = 0, threading.Event()
        self._thread = threading.Thread(target=self._keep, daemon=True, name="brainmu-claim")

    def __enter__(self) -> _Claim:
        while not self.place.create(_WRITER, self._text()):
            other = self.place.find(_WRITER)
            if other is None:
                continue  # it has just finished
            if not _surely_dead(other) and self._changes(other):
                raise StoreError(f"{self.place}: is being written by another process: wait for it, or give another --out")
            self.place.remove([_WRITER])
        self._thread.start()
        return self

    def _changes(self, seen: bytes) -> bool:
        until = time.monotonic() + 3 * BEAT
        while time.monotonic() < until:
            time.sleep(BEAT / 4)
            if self.place.find(_WRITER) != seen:
                return True
        return False

    def _text(self) -> bytes:
        return json.dumps({"token": self.token, "beat": self._beats, "machine": _machine(), "process": os.getpid()}).encode()

    def _keep(self) -> None:
        while not self._stop.wait(BEAT):
            self._beats += 1
            with contextlib.suppress(StoreError):  # a beat that gets lost is one of three
                if self._mine():
                    self.place.put(_WRITER, self._text())

    def _mine(self) -> bool:
        found = self.place.find(_WRITER)
        return found is not None and self.token.encode() in found

    def check(self) -> None:
        """Raise StoreError if another process took over."""
        if not self._mine():
            raise StoreError(f"{self.place}: another process began to write it while this one was out of touch: leave it to that one")

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(StoreError):  # what went wrong before says more
            if self._mine():
                self.place.remove([_WRITER])


def _machine() -> str:
    """The same for processes that see each other's numbers."""
    parts = [socket.gethostname()]
    for read in (lambda: Path("/proc/sys/kernel/random/boot_id").read_text(), lambda: str(Path("/proc/self/ns/pid").readlink())):
        with contextlib.suppress(OSError):
            parts.append(read())
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _surely_dead(writer: bytes) -> bool:
    """Whether the process that wrote this ran on this machine and is no more."""
    try:
        about = json.loads(writer)
        if about["machine"] == _machine():
            os.kill(int(about["process"]), 0)
    except ProcessLookupError:
        return True
    except (ValueError, KeyError, TypeError, OSError):
        return False  # unreadable, or another's process: it shows by its beats
    return False
