"""Checking every byte of a store, wherever it lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from brainmu.errors import NotFoundError, StoreError
from brainmu.store.folder import CHECKSUMS, checksum_lines
from brainmu.store.places import LocalPlace, Place, place_of
from brainmu.store.session import is_store

__all__ = ["listed_files", "verify"]


def verify(path: str | Path, *, storage_options: dict[str, Any] | None = None) -> list[str]:
    """What is wrong with a store: an empty list where every byte is as it was written.

    Every file is read and compared with the store's ``.sha256``; a changed byte, a missing and an extra file are each named. The same can be
    done without brainmu: ``cd STORE && sha256sum -c .sha256``. The plain web (http, https) lists no files: extra ones are not noticed there.

    Raises
    ------
    NotFoundError, StoreError
        If there is nothing at `path`, or it never was a store, or a remote one cannot be reached.
    """
    place = place_of(path, storage_options)
    if isinstance(place, LocalPlace) and not place.path.exists():
        raise NotFoundError(f"{place}: no such store")
    if not place.has(CHECKSUMS):
        if not is_store(place):
            if not isinstance(place, LocalPlace) and not place.sizes():
                raise NotFoundError(f"{place}: no such store")
            raise StoreError(f"{place}: is not a store (it has neither {CHECKSUMS} nor a zarr.json of brainmu)")
        return [f"{CHECKSUMS}: missing, nothing can be checked"]
    listed, problems = _listed(place)
    sizes = place.sizes()
    there = (set(sizes) if sizes is not None else {n for n in listed if place.has(n)}) - {CHECKSUMS}
    problems += [f"{name}: missing" for name in sorted(listed.keys() - there)]
    problems += [f"{name}: not part of the store" for name in sorted(there - listed.keys())]
    problems += [f"{name}: bytes changed" for name, found in place.sha256_of(sorted(listed.keys() & there)) if found != listed[name]]
    return problems


def listed_files(root: Path | Place) -> list[str]:
    """Names of the files that a store should have; the checksums themselves where even they are gone."""
    place = place_of(root)
    return list(_listed(place)[0]) if place.has(CHECKSUMS) else [CHECKSUMS]


def _listed(place: Place) -> tuple[dict[str, str], list[str]]:
    """{name: SHA-256} of the `.sha256` file, and what is wrong with the file itself."""
    data = place.read(CHECKSUMS)
    listed: dict[str, str] = {}
    for line in data.decode("utf-8", errors="replace").split("\n"):
        digest, _, name = line.partition("  ")
        if name:
            listed[name] = digest
    if checksum_lines(listed) != data:
        return listed, [f"{CHECKSUMS}: bytes changed"]
    return listed, []
