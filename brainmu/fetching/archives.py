"""What an archive holds, from the archive itself: paths, addresses, sizes and published checksums."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote, urlsplit

from brainmu.errors import FetchError, NotFoundError
from brainmu.fetching.registry import Dataset

__all__ = ["SERVERS", "Listing", "RemoteFile", "listing", "request", "with_checksum"]

SERVERS = {"physionet": "https://physionet.org/files", "dandi": "https://api.dandiarchive.org/api", "zenodo": "https://zenodo.org/api", "list": ""}
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers after which it is worth asking again."""
_HEADERS = {"User-Agent": "brainmu-fetch", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class RemoteFile:
    """One file of an archive. `checksum` is ``algorithm:hex``, "" where the archive gives it on `details` only."""

    path: str
    url: str
    size: int | None
    checksum: str
    details: str = ""


@dataclass(frozen=True)
class Listing:
    """Every file of one version of a data set, the licence the archive states ("" where it does not), and what was left out."""

    version: str
    files: list[RemoteFile]
    licence: str = ""
    notes: list[str] = field(default_factory=list)


def listing(found: Dataset) -> Listing:
    """The files of a data set, from its archive.

    Raises
    ------
    NotFoundError
        If the archive has no such record.
    FetchError
        If it cannot be reached, or answers something else than it documents.
    """
    server = (found.server or SERVERS[found.archive]).rstrip("/")
    readers: dict[str, Callable[[Dataset, str], Listing]] = {"physionet": _physionet, "dandi": _dandi, "zenodo": _zenodo, "list": _listed}
    try:
        out = readers[found.archive](found, server)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise FetchError(f"{found.name}: {found.archive} answered something else than it documents ({error!r}): try again later, or report it") from None
    for f in out.files:
        path = PurePosixPath(f.path)
        if path.is_absolute() or ".." in path.parts or "\\" in f.path or not path.name:
            raise FetchError(f"{found.name}: the archive names a file {f.path!r}, which would lie outside the folder: refused")
    return replace(out, files=sorted(out.files, key=lambda f: f.path))


def with_checksum(file: RemoteFile) -> RemoteFile:
    """The file with its checksum, asked for where the listing had none."""
    if file.checksum:
        return file
    digest = _dandi_digest(json.loads(request(file.details).text))
    if not digest:
        raise FetchError(f"{file.path}: DANDI has not computed its SHA-256 yet: try again in some hours, or leave it out with --files")
    return replace(file, checksum=digest)


# -- archives -------------------------------------------------------------------------------------------------------
def _physionet(found: Dataset, server: str) -> Listing:
    """PhysioNet: SHA256SUMS.txt in the root of every version; it lists neither itself nor sizes."""
    root = f"{server}/{found.id}/{found.version}"
    files = []
    for line in request(f"{root}/SHA256SUMS.txt").text.splitlines():
        if not line.strip():
            continue
        digest, _, path = line.strip().partition(" ")
        path = path.strip().removeprefix("*").removeprefix("./")
        files.append(RemoteFile(path, f"{root}/{quote(path)}", None, f"sha256:{_hex(digest, 64)}"))
    return Listing(found.version, files)


def _dandi(found: Dataset, server: str) -> Listing:
    """DANDI's REST API: assets of a version, a page at a time, with their metadata (the digest among it) where the server sends it along."""
    root = f"{server}/dandisets/{found.id}"
    version = found.version
    if version == "latest":
        newest = json.loads(request(f"{root}/").text).get("most_recent_published_version")
        version = newest["version"] if newest else "draft"
    about = json.loads(request(f"{root}/versions/{version}/").text)
    licence = ", ".join(str(x).removeprefix("spdx:") for x in about.get("license") or [])
    files, notes, page = [], [], f"{root}/versions/{version}/assets/?metadata=1&page_size=500"
    if version == "draft":
        notes.append("the data set is a draft, which its owners may change; the lock file pins what came")
    while page:
        answer = json.loads(request(page).text)
        for asset in answer["results"]:
            if asset.get("zarr"):
                notes.append(f"{asset['path']}: is a Zarr asset, which is left out: use the dandi client for it")
                continue
            details = f"{root}/versions/{version}/assets/{asset['asset_id']}/"
            digest = _dandi_digest(asset.get("metadata") or {})
            files.append(RemoteFile(asset["path"], f"{details}download/", int(asset["size"]), digest, details))
        page = answer["next"]
    return Listing(version, files, licence, notes)


def _dandi_digest(metadata: dict[str, Any]) -> str:
    digest = (metadata.get("digest") or {}).get("dandi:sha2-256")
    return f"sha256:{_hex(digest, 64)}" if digest else ""


def _zenodo(found: Dataset, server: str) -> Listing:
    """Zenodo's record API, which gives an MD5 a file."""
    record = json.loads(request(f"{server}/records/{found.id}").text)
    about = record.get("metadata") or {}
    files = []
    for f in record["files"]:
        algorithm, _, digest = str(f["checksum"]).partition(":")
        if algorithm != "md5":
            raise ValueError(f"checksum {f['checksum']!r}")
        files.append(RemoteFile(f["key"], f["links"]["self"], int(f["size"]), f"md5:{_hex(digest, 32)}"))
    return Listing(str(about.get("version") or found.id), files, str((about.get("license") or {}).get("id") or ""))


def _listed(found: Dataset, server: str) -> Listing:
    """Addresses and checksums that stand in the description itself."""
    return Listing(found.version, [RemoteFile(f.path, f.url, f.size, f"sha256:{_hex(f.sha256, 64)}") for f in found.files])


def _hex(text: str, length: int) -> str:
    if len(text) != length or set(text.lower()) - set("0123456789abcdef"):
        raise ValueError(f"checksum {text!r}")
    return text.lower()


# -- asking ---------------------------------------------------------------------------------------------------------
def request(url: str, *, headers: dict[str, str] | None = None, stream: bool = False, tries: int = 3) -> Any:
    """An answered GET (``requests.Response`` of status 200, 206 or 416), over https or this machine's loopback only.

    Raises
    ------
    NotFoundError
        404 or 410.
    FetchError
        If the server cannot be reached after some tries, refuses, or leads to an address without encryption.
    """
    import requests

    for attempt in range(tries):
        secure(url)
        try:
            answer = requests.get(url, headers={**_HEADERS, **(headers or {})}, stream=stream, timeout=(20, 60))
        except requests.RequestException as error:
            reason = f"cannot be reached ({type(error).__name__})"
        else:
            for hop in (*answer.history, answer):
                secure(hop.url)
            if answer.status_code in (200, 206, 416):
                return answer
            answer.close()
            if answer.status_code in (404, 410):
                raise NotFoundError(
                    f"{url}: the server has no such file or record ({answer.status_code}): check the name and version, or see the data set's page"
                )
            if answer.status_code not in TRANSIENT:
                raise FetchError(f"{url}: the server refused ({answer.status_code} {answer.reason}): it may need a login, see the data set's page")
            reason = f"answered {answer.status_code} {answer.reason}"
        if attempt + 1 < tries:
            time.sleep(0.2 * 2**attempt)
    raise FetchError(f"{url}: {reason}, {tries} times: check the connection or try again later; the same command goes on from what came")


def secure(url: str) -> None:
    """Refuse an address that is neither https nor on this machine: checksums read without encryption prove nothing."""
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")):
        raise FetchError(f"{url}: is not https: refused, since neither the files nor their checksums could be trusted")
