"""Checking every byte of a store."""

from __future__ import annotations

from pathlib import Path

from brainmu.errors import NotFoundError, StoreError
from brainmu.store.folder import CHECKSUMS, checksum_lines, file_sha256
from brainmu.store.session import is_store

__all__ = ["listed_files", "verify"]


def verify(path: str | Path) -> list[str]:
    """What is wrong with a store: an empty list where every byte is as it was written.

    Every file is read and compared with the store's ``.sha256``; a changed byte, a missing and an extra file are each named. The same can be
    done without brainmu: ``cd STORE && sha256sum -c .sha256``.

    Raises
    ------
    NotFoundError, StoreError
        If there is nothing at `path`, or it never was a store.
    """
    root = Path(path)
    if not root.exists():
        raise NotFoundError(f"{root}: no such store")
    sums = root / CHECKSUMS
    if not sums.is_file():
        if not is_store(root):
            raise StoreError(f"{root}: is not a store (it has neither {CHECKSUMS} nor a zarr.json of brainmu)")
        return [f"{CHECKSUMS}: missing, nothing can be checked"]
    listed, problems = _listed(sums)
    there = {p.relative_to(root).as_posix() for p in root.rglob("*") if not p.is_dir()} - {CHECKSUMS}
    problems += [f"{name}: missing" for name in sorted(listed.keys() - there)]
    problems += [f"{name}: not part of the store" for name in sorted(there - listed.keys())]
    problems += [f"{name}: bytes changed" for name in sorted(listed.keys() & there) if file_sha256(root / name) != listed[name]]
    return problems


def listed_files(root: Path) -> list[str]:
    """Names of the files that a store should have; the checksums themselves where even they are gone."""
    return list(_listed(root / CHECKSUMS)[0]) if (root / CHECKSUMS).is_file() else [CHECKSUMS]


def _listed(path: Path) -> tuple[dict[str, str], list[str]]:
    """{name: SHA-256} of a `.sha256` file, and what is wrong with the file itself."""
    data = path.read_bytes()
    listed: dict[str, str] = {}
    for line in data.decode("utf-8", errors="replace").split("\n"):
        digest, _, name = line.partition("  ")
        if name:
            listed[name] = digest
    if checksum_lines(listed) != data:
        return listed, [f"{CHECKSUMS}: bytes changed"]
    return listed, []
