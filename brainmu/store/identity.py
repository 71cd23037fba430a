"""What a store was made from: the checksum of every source file, and of everything in memory."""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from brainmu._version import __version__
from brainmu.core import Hypnogram, Intervals, Recording
from brainmu.errors import NotFoundError, StoreError
from brainmu.store.config import PreprocessConfig
from brainmu.store.folder import file_sha256
from brainmu.store.session import SCHEMA
from brainmu.store.values import encode

__all__ = ["Job", "Sources", "content_sha256", "json_sha256", "relative_text"]

_BLOCK = 1 << 22


class Sources:
    """The files of a recording, by their names below the folder they share, checksummed in a thread while others work.

    A context: leaving it ends the thread.

    Attributes
    ----------
    sizes : list of dict(name, size)
    stamps : list
        What the file system said of each file at first.
    """

    def __init__(self, recording: Recording) -> None:
        self._paths = sorted(set(_expanded(recording.source.get("files") or [])))
        base = _common_folder(self._paths)
        self.stamps = [_Stamp.of(p) for p in self._paths]
        self.sizes = [{"name": p.relative_to(base).as_posix(), "size": s.size} for p, s in zip(self._paths, self.stamps)]
        self._left, self._done = False, 0
        self._thread = ThreadPoolExecutor(1)
        self._sums = self._thread.submit(lambda: [self._sha256(p) for p in self._paths])

    def __enter__(self) -> Sources:
        return self

    def __exit__(self, *_: object) -> None:
        self._left = True
        self._thread.shutdown(cancel_futures=True)

    def _sha256(self, path: Path) -> str:
        digest = hashlib.sha256()
        for block in _blocks(path):
            if self._left:
                break
            digest.update(block)
            self._done += len(block)
        return digest.hexdigest()

    @property
    def known(self) -> bool:
        """Whether all checksums are there."""
        return self._sums.done()

    def wait(self, progress: Callable[[float], None]) -> None:
        """Return when they are, telling how far they are."""
        total = sum(s.size for s in self.stamps) or 1
        while not wait([self._sums], timeout=0.1).done:
            progress(min(1.0, self._done / total))
        progress(1.0)

    @functools.cached_property
    def files(self) -> list[dict[str, Any]]:
        """Name, size and sha256 of each; waits for them."""
        return [entry | {"sha256": digest} for entry, digest in zip(self.sizes, self._sums.result())]

    def check_unchanged(self) -> None:
        """Raise StoreError if a file is not what it was when it was checksummed.

        Size, time of modification and inode must be what they were. The time of the last change of status, which no program can set back, may differ
        also because a backup linked the file or its permissions changed: then the file is read again.
        """
        for path, before, entry in zip(self._paths, self.stamps, self.files):
            now = _Stamp.of(path) if path.exists() else None
            if now == before:
                continue
            if now is None or (now.size, now.modified, now.inode) != (before.size, before.modified, before.inode) or file_sha256(path) != entry["sha256"]:
                raise StoreError(f"{path}: changed while it was being read: wait until nothing writes it, then run the same command again")


class _Stamp(NamedTuple):
    """What the file system says of a file."""

    size: int
    modified: int
    inode: int
    changed: int

    @classmethod
    def of(cls, path: Path) -> _Stamp:
        s = path.stat()
        return cls(s.st_size, s.st_mtime_ns, s.st_ino, s.st_ctime_ns)


@dataclass
class Job:
    """One recording, one configuration: what decides the bytes."""

    config: PreprocessConfig
    sources: Sources
    content: str

    @property
    def identity(self) -> str:
        """The same for the same sources, configuration and schema."""
        return json_sha256([SCHEMA, self.config.describe(), self.sources.files, self.content])

    @property
    def key(self) -> str:
        """Work is resumed by the same version only."""
        return f"{self.identity} {__version__}"

    @property
    def known(self) -> bool:
        """Whether the checksums of the sources are there."""
        return self.sources.known

    @property
    def stamp(self) -> str:
        """Stands for :attr:`key` as long as nothing has touched the sources: the same files, in the same places, with the same times of change."""
        return f"{json_sha256([SCHEMA, self.config.describe(), self.sources.sizes, self.sources.stamps, self.content])} {__version__}"


def _blocks(path: Path) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(_BLOCK))
    with open(path, "rb", buffering=0) as f:
        while n := f.readinto(buffer):
            yield buffer[:n]


def _expanded(files: list[Any]) -> Iterator[Path]:
    for f in files:
        path = Path(f).absolute()
        if path.is_dir():
            yield from (p for p in sorted(path.rglob("*")) if p.is_file())
        elif path.exists():
            yield path
        else:
            raise NotFoundError(f"{path}: no such file any more, the recording was read from it")


def _common_folder(paths: list[Path]) -> Path:
    return Path(os.path.commonpath([p.parent for p in paths])) if paths else Path()


def relative_text(text: str, recording: Recording) -> str:
    """`text` without the folder that the source files lie in: a store names no place on this machine."""
    paths = sorted(set(_expanded(recording.source.get("files") or [])))
    base = str(_common_folder(paths))
    return text if len(base) < 2 else text.replace(base + os.sep, "").replace(base, Path(base).name)


def json_sha256(value: Any) -> str:
    """SHA-256 of a JSON-able value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def content_sha256(recording: Recording) -> str:
    """SHA-256 of what `recording` holds in memory: its tables and arrays, and samples that do not come from a listed file."""
    digest = hashlib.sha256()
    from_files = bool(recording.source.get("files"))

    def add(value: Any, what: str = "recording") -> None:
        digest.update(json.dumps(encode(value, what), sort_keys=True).encode() + b"\n")

    def add_array(a: Any) -> None:
        block = np.ascontiguousarray(a)
        digest.update(f"{block.dtype.str} {block.shape}\n".encode())
        digest.update(block.reshape(-1).view(np.uint8).data if block.size else b"")

    started = recording.started_at.isoformat() if recording.started_at else None
    add([recording.id, recording.subject, recording.species, started, recording.zeitgeber])
    add(dict(recording.subject_meta), "subject_meta")
    add(dict(recording.clocks), "clocks")
    add({k: relative_text(v, recording) if isinstance(v, str) else v for k, v in recording.source.items() if k not in ("files", "warnings")}, "source")
    for name, s in recording.signals.items():
        add([name, list(s.values.shape), str(s.values.dtype), s.rate, s.start, s.unit, s.kind, np.asarray(s.scale), s.missing, s.clock, s.channels])
        add(dict(s.attrs), f"signal {name!r} attrs")
        add_array(s.gaps.bounds)
        if s.times is not None:
            add_array(s.times)
        if not from_files or _in_memory(s.values):
            rows = max(1, _BLOCK // max(1, s.n_channels))
            for i in range(0, s.n_samples, rows):
                add_array(s.values[i : min(s.n_samples, i + rows)])
    if recording.spikes is not None:
        add_array(recording.spikes.times)
        add_array(recording.spikes.unit_id)
        add(recording.spikes.units)
    for name, label in recording.labels.items():
        add([name, type(label).__name__])
        if isinstance(label, Intervals):
            add_array(label.bounds)
            continue
        add(label.attrs, f"label {name!r} attrs")
        if isinstance(label, Hypnogram):
            add([list(label.stages), label.epoch, label.start, label.scorer, label.proba])
            add_array(label.codes)
        else:
            add(label.to_frame(), f"label {name!r}")
    return digest.hexdigest()


def _in_memory(values: Any) -> bool:
    if isinstance(values, np.memmap):
        return False
    if isinstance(values, np.ndarray):
        return True
    base = getattr(values, "base", None)
    return base is not None and _in_memory(base)
