"""Whether a store can be written to a place at all: asked before hours of work, and again when it is known what would be written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from brainmu.errors import OutputExistsError, StoreError
from brainmu.store.folder import CHECKSUMS, disk_error, probe, settle
from brainmu.store.identity import Job
from brainmu.store.session import Session, is_store, open
from brainmu.store.streams import Stream
from brainmu.store.verification import listed_files

__all__ = ["check_output", "complete", "needed_bytes", "readable_size"]

PACKED = 0.5
"""Share of their size that packed samples are expected to need at least."""


def check_output(target: Path, expected: dict[str, Any], size: int, overwrite: bool) -> None:
    """See that `target` can become a store of `size` bytes, or may already be the one that has the attributes `expected`.

    Raises
    ------
    OutputExistsError
        If it exists, and is another store (unless `overwrite`) or no store.
    StoreError
        If it cannot be written: no permission, too little space, another process at it.
    """
    try:
        settle(target)
        if target.exists() or target.is_symlink():
            if not replaceable(target) or not (overwrite or _may_be(target, expected)):
                raise OutputExistsError(exists_already(target))
            if not overwrite:
                return
        probe(target)
        _check_space(target, size)
    except StoreError:
        raise
    except OSError as error:
        if isinstance(error, OutputExistsError):
            raise
        raise disk_error(error, target) from error


def _may_be(target: Path, expected: dict[str, Any]) -> bool:
    """Whether the store there could be the one wanted, as far as can be told without reading the sources."""
    try:
        found = open(target).provenance
    except StoreError:
        return False
    sources = [{k: s[k] for k in ("name", "size")} for s in found["sources"]]
    return {"config": found["config"], "sources": sources} == expected


def _check_space(target: Path, size: int) -> None:
    partial = target.with_name(target.name + ".partial")
    there = sum(p.stat().st_size for p in partial.rglob("c/**/*") if p.is_file()) if partial.exists() else 0
    place = next(p for p in [partial, *target.parents] if p.exists())
    free = shutil.disk_usage(place).free
    if size - there > free:
        raise StoreError(
            f"{target}: there is too little space: about {readable_size(size - there)} more are needed and {readable_size(free)} are free in {place}: "
            "free some, or give an --out on another disk"
        )


def needed_bytes(streams: list[Stream]) -> int:
    """What the samples of a store need at least."""
    return int(sum(s.n * s.layout.row_bytes * (PACKED if s.layout.packed else 1) for s in streams))


def complete(target: Path, job: Job) -> Session | None:
    """The store of just this job, if it lies at `target` and is whole."""
    if not is_store(target):
        return None
    try:
        session = open(target)
    except StoreError:
        return None
    if session.provenance.get("identity") != job.identity or not all((target / name).is_file() for name in listed_files(target)):
        return None
    session.already_complete = True
    return session


def replaceable(target: Path) -> bool:
    """Whether it is a store (also a damaged one) or an empty folder: nobody's home is replaced for a slip of the keyboard."""
    return target.is_dir() and not target.is_symlink() and (is_store(target) or (target / CHECKSUMS).is_file() or not any(target.iterdir()))


def exists_already(target: Path) -> str:
    """The sentence to refuse with."""
    if replaceable(target):
        return f"{target}: exists and holds another store, or the same from other sources or settings: give another --out, or --overwrite to replace it"
    return f"{target}: exists and holds something that is no store, which is not replaced even with --overwrite: give another --out, or move it away"


def readable_size(n: float) -> str:
    """Bytes for people: "1.5 GB"."""
    for unit in ("B", "KB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"
