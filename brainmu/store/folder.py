"""A store being written: ``<out>.partial/`` under a lock, resumable, checksummed, renamed when whole.

Killed at any moment it leaves either no store or a whole one. What was finished is listed, with its checksum, in a journal, and kept by the
next run of the same job; anything else in the folder is removed by it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from brainmu.errors import DISK_REASONS, StoreError
from brainmu.store.layout import ArrayLayout, encode_chunk, shard_index

__all__ = ["CHECKSUMS", "Folder", "FolderSink", "ShardWriter", "Sink", "checksum_lines", "disk_error", "file_sha256", "probe", "settle", "writing"]

CHECKSUMS = ".sha256"
_WORK = ".work"
_READ = 1 << 22


class JobKey(Protocol):
    """What decides the bytes of a store."""

    @property
    def stamp(self) -> str:
        """Stands for `key` as long as nothing touches the sources; known at once."""
        ...

    @property
    def key(self) -> str:
        """From the checksums of the sources; waits for them."""
        ...

    @property
    def known(self) -> bool:
        """Whether `key` need not wait."""
        ...


class Folder:
    """The folder that becomes the store. Made by :func:`writing`.

    Attributes
    ----------
    done : dict
        {file: its size, sha256 and note} of what is whole.
    sink : Sink
        Where those who make shards put them; they are told to :meth:`record`.
    scratch : Path
        A local folder for what must outlive no run.
    """

    def __init__(self, root: Path, job: JobKey) -> None:
        self.root, self.job = root, job
        self.done: dict[str, dict[str, Any]] = {}
        self.metadata: dict[str, dict[str, Any]] = {}
        self._identified = False
        self._resume()
        self.scratch = root / _WORK / f"run-{uuid.uuid4().hex}"
        self.scratch.mkdir()
        self.sink: Sink = FolderSink(root, self.scratch)

    def _resume(self) -> None:
        """Keep what the journal of the same job vouches for; remove the rest."""
        work = self.root / _WORK
        journal = work / "journal"
        lines = journal.read_text(encoding="utf-8", errors="replace").splitlines() if journal.is_file() else []
        stamp, key, entries = lines[0] if lines else "", "", [_entry(line) for line in lines[1:]]
        for entry in entries:
            key = entry.get("job", key)
        kept = []
        # What was read from files that are still the same is as good as what has the same checksums, and known at once.
        if lines and (stamp == self.job.stamp or (key and key == self.job.key)):
            for entry in entries:
                if "file" in entry and self._matches(entry):
                    self.done[entry["file"]] = entry
                    kept.append(json.dumps(entry))
        self._remove_all_but({*self.done, f"{_WORK}/journal"})
        work.mkdir(parents=True, exist_ok=True)
        # Replaced at once: a kill in this moment must not cost what is finished.
        fresh = work / "journal.new"
        self._journal = open(fresh, "w", encoding="utf-8")  # noqa: SIM115  (kept open while the folder is)
        self._journal.write("\n".join([self.job.stamp, *kept]) + "\n")
        self._journal.flush()
        fresh.replace(journal)

    def _remove_all_but(self, kept: set[str]) -> None:
        for old in self.root.glob(f"{_WORK}/run-*"):
            old.rename(old.with_name(f"old-{old.name}"))  # from here on no process of that run finds its files
        for path in sorted(self.root.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                with contextlib.suppress(OSError):  # not empty
                    path.rmdir()
            elif path.relative_to(self.root).as_posix() not in kept:
                path.unlink()

    def _matches(self, entry: dict[str, Any]) -> bool:
        path = self.root / entry["file"]
        return path.is_file() and path.stat().st_size == entry["size"] and file_sha256(path) == entry["sha256"]

    # -- writing --------------------------------------------------------------------------------------------------
    def put(self, name: str, data: bytes) -> None:
        """Write a small file whole."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.done[name] = {"file": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def prepare(self, name: str, layout: ArrayLayout) -> None:
        """Make what the shards of an array need before others write them (folders, here)."""
        for k in range(layout.n_files):
            (self.root / name / layout.key(k)).parent.mkdir(parents=True, exist_ok=True)

    def record(self, name: str, size: int, sha256: str, note: Any = None) -> None:
        """A shard is whole: vouch for it, with what was learnt on the way (JSON-able), so that another run need not do it again."""
        line = json.dumps({"file": name, "size": size, "sha256": sha256, "note": note})
        self.done[name] = json.loads(line)  # as a later run would read it
        self._journal.write(line + "\n")
        self._journal.flush()
        self.identify()

    def identify(self) -> None:
        """Put the job's key into the journal once it is known: copies of the same sources can go on, too."""
        if self.job.known and not self._identified:
            self._identified = True
            self._journal.write(json.dumps({"job": self.job.key}) + "\n")
            self._journal.flush()

    def group(self, name: str, attrs: dict[str, Any]) -> None:
        """A zarr group; "" is the root, whose file is written last by :meth:`finish`."""
        self.metadata[name] = {"attributes": attrs, "zarr_format": 3, "node_type": "group"}

    def array(self, name: str, layout: ArrayLayout, values: Any = None) -> None:
        """A zarr array; `values` are written here unless its shards are written by others."""
        self.metadata[name] = layout.metadata()
        if values is None:
            return
        if layout.shard:
            self.prepare(name, layout)
        for k in range(layout.n_files):
            i, j = layout.span(k)
            key = f"{name}/{layout.key(k)}"
            if layout.shard is None:
                self.put(key, encode_chunk(layout, values[i:j]))
                continue
            if key in self.done:
                continue
            with ShardWriter(self.sink, name, layout, k) as shard:
                for a in range(i, j, layout.chunk):
                    shard.append(np.asarray(values[a : min(j, a + layout.chunk)]))
            self.record(key, shard.size, shard.sha256)

    def documents(self) -> Iterator[tuple[str, bytes]]:
        """Name and content of every zarr.json; the root's, without which nothing opens, comes last."""
        for name, meta in self.metadata.items():
            if name:
                yield f"{name}/zarr.json", _json(meta)
        inside = {k: v for k, v in sorted(self.metadata.items()) if k}
        yield "zarr.json", _json(self.metadata[""] | {"consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": inside}})

    def finish(self) -> None:
        """Write metadata and checksums, and see everything onto the disk."""
        for name, data in self.documents():
            self.put(name, data)
        (self.root / CHECKSUMS).write_bytes(checksum_lines({k: v["sha256"] for k, v in self.done.items()}))
        work = self.root / _WORK
        with ThreadPoolExecutor(16) as pool:  # the file system commits what is asked for at once together
            list(pool.map(_sync, [p for p in [*self.root.rglob("*"), self.root] if work not in (p, *p.parents)]))
        # The journal goes last of all: a kill while a slow disk takes the files must not cost what is finished.
        old = self.scratch.rename(self.scratch.with_name("old-run"))
        shutil.rmtree(old)
        self._journal.close()
        shutil.rmtree(work)


class Sink(Protocol):
    """Where the shard files of a store go. It is sent to the processes that make them, so it holds no open file."""

    def begin(self, name: str) -> Path:
        """A new local file for the shard `name`, which nobody else writes."""
        ...

    def commit(self, temporary: Path, name: str) -> None:
        """The file is whole: it takes its place."""
        ...


@dataclass(frozen=True)
class FolderSink:
    """Shards below `root`. They are written in `work`, a folder of this run only, and moved to their place when whole.

    The next run removes `work`, so whatever still writes for a run that was given up (a cluster's worker that lost touch) finds no folder, and
    fails, instead of moving a file into the work of others.
    """

    root: Path
    work: Path

    def begin(self, name: str) -> Path:
        """A new file in `work`."""
        path = self.work / uuid.uuid4().hex
        path.touch(exist_ok=False)
        return path

    def commit(self, temporary: Path, name: str) -> None:
        """Rename; the folder was made by the one who holds the lock."""
        temporary.replace(self.root / name)


class ShardWriter:
    """One shard file, chunk after chunk, hashed on the way; it appears under its name when whole, with its `size` and `sha256`."""

    def __init__(self, sink: Sink, array: str, layout: ArrayLayout, k: int) -> None:
        self.sink, self.layout, self.name = sink, layout, f"{array}/{layout.key(k)}"
        self.size, self.sha256 = 0, ""
        self._sizes: list[int] = []
        self._hash = hashlib.sha256()
        self._pending: list[np.ndarray] = []
        self._rows = 0

    def __enter__(self) -> ShardWriter:
        self.temporary = self.sink.begin(self.name)
        self._file = open(self.temporary, "wb")
        return self

    def append(self, rows: np.ndarray) -> None:
        """The next rows, any number of them."""
        while len(rows):
            take = rows[: self.layout.chunk - self._rows]
            self._pending.append(take)
            self._rows += len(take)
            rows = rows[len(take) :]
            if self._rows == self.layout.chunk:
                self._flush()

    def _flush(self) -> None:
        data = encode_chunk(self.layout, self._pending[0] if len(self._pending) == 1 else np.concatenate(self._pending))
        self._pending, self._rows = [], 0
        self._sizes.append(len(data))
        self._write(data)

    def _write(self, data: bytes) -> None:
        self._hash.update(data)
        self._file.write(data)
        self.size += len(data)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            try:
                if self._rows:
                    self._flush()
                assert self.layout.shard
                self._write(shard_index(self._sizes, self.layout.shard // self.layout.chunk))
                self._file.close()
                self.sink.commit(self.temporary, self.name)
            except BaseException:
                self._discard()
                raise
            self.sha256 = self._hash.hexdigest()
        else:
            self._discard()

    def _discard(self) -> None:
        # What could not be written must not keep the disk full; closing writes the rest of the buffer, which may fail again.
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            self.temporary.unlink()


@contextlib.contextmanager
def writing(out: Path, job: JobKey) -> Iterator[Folder]:
    """The folder in which the store `out` is made by the job with that identity; on leaving without an error it takes the place of `out`.

    Raises
    ------
    StoreError
        If another process is writing it, or the disk refuses.
    """
    partial = out.with_name(out.name + ".partial")
    try:
        with _locked(partial, out):
            folder = Folder(partial, job)
            try:
                yield folder
                folder.finish()
            finally:
                folder._journal.close()
            old = _replaced(out)
            if out.exists():
                out.rename(old)
            partial.rename(out)
            shutil.rmtree(old, ignore_errors=True)
            _sync(out)
            _sync(out.parent)
    except StoreError:
        raise
    except OSError as error:
        raise disk_error(error, out) from error


def settle(out: Path) -> None:
    """Undo a replacement that was cut off: if the old store was moved away and the new one is not yet in place, put it back."""
    if not out.name or not _replaced(out).is_dir():
        return
    old = _replaced(out)
    partial = out.with_name(out.name + ".partial")
    with _locked(partial, out):
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(out)
        with contextlib.suppress(OSError):  # it holds work to go on with
            partial.rmdir()


def probe(out: Path) -> None:
    """See that `out` can be written and that nobody else does, leaving no trace.

    Raises
    ------
    StoreError
        If another process writes it.
    OSError
        If the disk refuses.
    """
    partial = out.with_name(out.name + ".partial")
    place = next(p for p in [partial, *partial.parents] if p.exists())
    if place not in (partial, out.parent):  # nobody writes where there is no folder yet, and others may be about to make it
        _touch(place)
        return
    try:
        with _locked(partial, out):
            _touch(partial)
    finally:
        if place != partial:
            with contextlib.suppress(OSError):
                partial.rmdir()


def _touch(folder: Path) -> None:
    test = folder / f".probe-{uuid.uuid4().hex}"
    test.touch()
    test.unlink()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def checksum_lines(sums: dict[str, str]) -> bytes:
    """The `.sha256` file: what ``sha256sum -c .sha256`` reads."""
    return "".join(f"{sums[name]}  {name}\n" for name in sorted(sums)).encode()


@contextlib.contextmanager
def _locked(partial: Path, out: Path) -> Iterator[None]:
    # The lock lies on the folder itself: no lock file to leave behind, and the kernel drops it when its holder dies.
    while True:
        try:
            partial.mkdir(parents=True)
        except FileNotFoundError:
            continue  # another thread's probe has just removed the parent that it had made
        except FileExistsError:
            pass
        if not partial.is_dir():
            raise StoreError(f"{partial}: is a file, where {out.name} is to be written: move it away")
        try:
            handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue  # another process has just finished and renamed it
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise StoreError(f"{out}: is being written by another process: wait for it, or give another --out") from None
            if partial.is_dir() and os.fstat(handle).st_ino == partial.stat().st_ino:
                yield
                return
        finally:
            os.close(handle)


def disk_error(error: OSError, out: Path) -> StoreError:
    """What the operating system refused, and what to do about it."""
    import errno

    elsewhere, onward = "give an --out in a folder that you may write to", "the same command then goes on where it stopped"
    remedy = {
        errno.ENOSPC: f"free some space, or write to another disk; {onward}", errno.EDQUOT: f"free some space; {onward}",
        errno.EROFS: "give an --out on another one", errno.EACCES: elsewhere, errno.EPERM: elsewhere,
        errno.EEXIST: "give another --out", errno.ENOTDIR: "give another --out", errno.ENOENT: f"see that the disk is there; {onward}",
    }.get(error.errno or 0, f"check the path and the disk; {onward}")  # fmt: skip
    reason = DISK_REASONS.get(error.errno or 0, error.strerror or str(error))
    return StoreError(f"{out}: cannot be written: {reason} ({error.filename or out.parent}): {remedy}")


def _replaced(out: Path) -> Path:
    return out.with_name(f".{out.name}.replaced")


def _entry(line: str) -> dict[str, Any]:
    """A line of the journal: ``{file, size, sha256, note}``, ``{job}``, or {} for the one that was being written when the process was killed."""
    try:
        entry = json.loads(line)
    except ValueError:
        return {}
    return entry if isinstance(entry, dict) and ({"file", "size", "sha256", "note"} <= set(entry) or "job" in entry) else {}


def _json(value: Any) -> bytes:
    return (json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
