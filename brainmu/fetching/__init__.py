"""Public data by name: listed by its archive, checked against the archive's own checksums, resumed where a download broke off.

Every data set is a YAML file (``configs/fetch/*.yaml``, or one of your own). No checksum is made up here: PhysioNet's ``SHA256SUMS.txt``, DANDI's
SHA-256 digests and Zenodo's MD5 are read from the archive over https and pinned in a lock file beside the data, so that the next run on the same
folder gets the same bytes or says that the archive changed.
"""

from __future__ import annotations

import fcntl
import fnmatch
import json
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from brainmu.config import suggest
from brainmu.errors import FetchError, NotFoundError
from brainmu.fetching.archives import Listing, RemoteFile, listing, with_checksum
from brainmu.fetching.download import Download
from brainmu.fetching.registry import Dataset, dataset, dataset_names

__all__ = ["LOCK", "Dataset", "Fetched", "RemoteFile", "dataset", "dataset_names", "fetch", "list_files"]

LOCK = "brainmu-fetch.json"
"""Name of the lock file in the folder of a download: every file with its address, size and checksum."""


@dataclass(frozen=True)
class Fetched:
    """What :func:`fetch` did.

    Attributes
    ----------
    dataset : Dataset
    folder : Path
    downloaded, present : list of str
        Files that came now, and that were there already with the right bytes.
    licence : str
        As the archive states it where it does, else as the registry does.
    notes : list of str
    """

    dataset: Dataset
    folder: Path
    downloaded: list[str]
    present: list[str]
    licence: str
    notes: list[str]


def fetch(
    name: str | Path, out: str | Path | None = None, *, files: str | Sequence[str] | None = None, jobs: int = 3, update: bool = False,
    overwrite: bool = False, progress: Callable[[str, float], None] | None = None, retries: int = 5, pause: float = 1.0,
) -> Fetched:  # fmt: skip
    """Download a public data set, or the part of it that is not there yet.

    Parameters
    ----------
    name : str or path
        A registered name (:func:`dataset_names`), or a YAML file like those in ``configs/fetch``.
    out : path or None
        The folder, by default one of the data set's name.
    files : pattern or patterns
        Only files whose path or name fits (``"sleep-cassette/SC400*"``, ``"*.nwb"``).
    jobs : int
        Downloads at a time.
    update : bool
        Ask the archive anew instead of trusting the lock file.
    overwrite : bool
        Replace local files whose bytes are not the archive's.
    retries, pause : int, s
        How often a broken download goes on from where it stopped, and how long before the first time (then twice as long each).

    Raises
    ------
    NotFoundError
        If the name, the record or a file does not exist, or no file fits `files`.
    FetchError
        If the archive cannot be reached, a file is not what its checksum says (it is removed), the disk is full, or the data need a login.
    """
    found = dataset(name)
    if found.archive == "manual":
        raise FetchError(f"{found.name}: cannot be fetched by a program: {found.how}")
    folder = Path(out) if out is not None else Path(found.name)
    if folder.exists() and not folder.is_dir():
        raise FetchError(f"{folder}: is a file, expected a folder: choose another --out")
    known = None if update else _locked(folder, found)
    listed = known or listing(found)
    chosen = _choose(listed.files, files, found)
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder):
        chosen = [with_checksum(f) for f in chosen]
        _pin(folder, found, listed, chosen)
        present, missing = _sort(folder, chosen, overwrite)
        _need_space(folder, missing)
        _download(folder, missing, jobs, progress, retries, pause)
    return Fetched(found, folder, [f.path for f in missing], [f.path for f in present], listed.licence or found.licence, listed.notes)


def list_files(name: str | Path, files: str | Sequence[str] | None = None) -> list[RemoteFile]:
    """What the archive holds of a data set, without downloading it. Raises as :func:`fetch` does."""
    found = dataset(name)
    if found.archive == "manual":
        raise FetchError(f"{found.name}: cannot be listed by a program: {found.how}")
    return _choose(listing(found).files, files, found)


def _choose(files: list[RemoteFile], patterns: str | Sequence[str] | None, found: Dataset) -> list[RemoteFile]:
    wanted = [patterns] if isinstance(patterns, str) else list(patterns or found.default_files)
    fits = [f for f in files if not wanted or any(fnmatch.fnmatchcase(f.path, p) or fnmatch.fnmatchcase(Path(f.path).name, p) for p in wanted)]
    if not fits:
        near = suggest(wanted[0] if wanted else "", [f.path for f in files]) if files else ""
        some = ", ".join(f.path for f in files[:5]) or "none"
        raise NotFoundError(
            f"{found.name}: none of its {len(files)} files fits {', '.join(wanted) or 'anything'}{near}; there are {some}{' …' * (len(files) > 5)}"
        )
    return fits


# -- the lock file --------------------------------------------------------------------------------------------------
def _locked(folder: Path, found: Dataset) -> Listing | None:
    """The listing of an earlier run in this folder, or None."""
    path = folder / LOCK
    if not path.exists():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        files = [RemoteFile(**f) for f in data["files"]]
        name, version = data["dataset"], data["version"]
    except (OSError, ValueError, KeyError, TypeError):
        raise FetchError(f"{path}: cannot be read as the lock file of a download: remove it, or choose another --out") from None
    if name != found.name or (found.version and found.version not in ("latest", version)):
        raise FetchError(f"{folder}: holds {name} {version}, not {found.name} {found.version}: choose another --out")
    return Listing(version, files, data["licence"], data["notes"])


def _pin(folder: Path, found: Dataset, listed: Listing, chosen: list[RemoteFile]) -> None:
    """Write the lock file, after making sure that no checksum pinned before changed."""
    before = _locked(folder, found)
    pinned = {f.path: f.checksum for f in before.files if f.checksum} if before else {}
    changed = [f.path for f in chosen if pinned.get(f.path, f.checksum) != f.checksum]
    if changed:
        raise FetchError(
            f"{folder}: the archive's checksum of {changed[0]} is not the one pinned in {LOCK} ({len(changed)} files differ): the archive changed; "
            f"fetch it into another --out, or remove {LOCK} to accept the new files"
        )
    full = {f.path: f for f in chosen}
    files = [full.get(f.path) or replace(f, checksum=f.checksum or pinned.get(f.path, "")) for f in listed.files]
    about = {"dataset": found.name, "version": listed.version, "licence": listed.licence, "citation": list(found.citation), "notes": listed.notes}
    text = json.dumps({**about, "files": [asdict(f) for f in files]}, indent=1, ensure_ascii=False)
    partial = folder / f"{LOCK}.partial"
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(folder / LOCK)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One download into a folder at a time."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise FetchError(f"{folder}: another brainmu fetch is downloading into it: wait for it, or choose another --out") from None
    else:
        yield
    finally:
        os.close(handle)


# -- files ----------------------------------------------------------------------------------------------------------
def _sort(folder: Path, files: list[RemoteFile], overwrite: bool) -> tuple[list[RemoteFile], list[RemoteFile]]:
    """Which are there with the right bytes, and which are to be downloaded."""
    import pooch

    present, missing = [], []
    for f in files:
        path = folder / f.path
        if not path.exists():
            missing.append(f)
        elif path.is_file() and pooch.file_hash(str(path), alg=f.checksum.partition(":")[0]) == f.checksum.partition(":")[2]:
            present.append(f)
        elif overwrite and path.is_file():
            missing.append(f)
        else:
            raise FetchError(f"{path}: is there already with other bytes than the archive's ({f.checksum}): move it away, or pass --overwrite")
    return present, missing


def _need_space(folder: Path, files: list[RemoteFile]) -> None:
    need = sum(max(f.size - _partial_size(folder / f.path), 0) for f in files if f.size)
    free = shutil.disk_usage(folder).free
    if need > free:
        raise FetchError(
            f"{folder}: needs {need / 1e9:.2f} GB and the disk has {free / 1e9:.2f} GB free: free some space, choose another --out, or fewer --files"
        )


def _partial_size(path: Path) -> int:
    part = path.with_name(path.name + ".part")
    return part.stat().st_size if part.exists() else 0


def _download(folder: Path, files: list[RemoteFile], jobs: int, progress: Callable[[str, float], None] | None, retries: int, pause: float) -> None:
    """Some files at a time; the first failure stops the rest, and what came is kept."""
    if jobs < 1:
        raise FetchError(f"jobs is {jobs}, expected 1 or more")
    stop, guard, done = threading.Event(), threading.Lock(), dict.fromkeys((f.path for f in files), 0.0)
    sizes = {f.path: float(f.size or 1) for f in files}
    by_bytes = all(f.size for f in files)

    def advance(file: RemoteFile, received: int, whole: int | None) -> None:
        with guard:
            share = received / whole if whole else 0.0
            done[file.path] = min(share, 1.0) * (sizes[file.path] if by_bytes else 1.0)
            if progress is not None:
                progress(Path(file.path).name, sum(done.values()) / (sum(sizes.values()) if by_bytes else len(files)))

    def one(file: RemoteFile) -> None:
        Download(file, folder / file.path, lambda a, b: advance(file, a, b), stop, retries, pause).run()

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        tasks = [pool.submit(one, f) for f in files]
        try:
            finished, _ = wait(tasks, return_when=FIRST_EXCEPTION)
        finally:
            # An interrupt or a failure: the others end after the block they are reading.
            if not all(t.done() and t.exception() is None for t in tasks):
                stop.set()
                pool.shutdown(cancel_futures=True)
        for error in (t.exception() for t in tasks if t in finished):
            if error is not None:
                raise error


def as_row(found: Dataset) -> dict[str, Any]:
    """A data set as a row of the list: name, species, modality, size, licence, how it comes."""
    return {
        "name": found.name, "title": found.title, "species": found.species, "modality": ", ".join(found.modality), "size": found.size, "licence": found.licence,
        "doi": found.doi, "archive": found.archive, "pipeline": found.pipeline, "checked": found.checked,
    }  # fmt: skip
