"""What a store was made from: the checksum of every source file, and of everything in memory."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
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


@dataclass
class Sources:
    """The files of a recording, by their names below the folder they share.

    Attributes
    ----------
    files : list of dict(name, size, sha256)
        Without the checksums until :meth:`checksum`.
    """

    files: list[dict[str, Any]] = field(default_factory=list)
    _paths: list[Path] = field(default_factory=list)
    _seen: list[_Stamp] = field(default_factory=list)

    @classmethod
    def of(cls, recording: Recording) -> Sources:
        """The source files of `recording` as they are now.

        Raises
        ------
        NotFoundError
            If one is gone.
        """
        paths = sorted(set(_expanded(recording.source.get("files") or [])))
        base = _common_folder(paths)
        seen = [_Stamp.of(p) for p in paths]
        return cls([{"name": p.relative_to(base).as_posix(), "size": s.size} for p, s in zip(paths, seen)], paths, seen)

    def checksum(self, progress: Callable[[float], None] | None = None) -> None:
        """Read every file for its SHA-256."""
        total = sum(s.size for s in self._seen) or 1
        done = 0
        for path, entry in zip(self._paths, self.files):
            digest = hashlib.sha256()
            for block in _blocks(path):
                digest.update(block)
                done += len(block)
                if progress:
                    progress(min(1.0, done / total))
            entry["sha256"] = digest.hexdigest()

    def check_unchanged(self) -> None:
        """Raise StoreError if a file is not what it was when it was checksummed.

        Size, time of modification and inode must be what they were. The time of the last change of status, which no program can set back, may differ
        also because a backup linked the file or its permissions changed: then the file is read again.
        """
        for path, before, entry in zip(self._paths, self._seen, self.files):
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
