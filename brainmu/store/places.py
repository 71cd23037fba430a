"""Where the files of a store lie: a folder, or anything fsspec reaches by a URL. What is above sees names and bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from brainmu.errors import BrainmuError, InputError, StoreError
from brainmu.store.folder import file_sha256

__all__ = ["WORK", "LocalPlace", "Place", "RemotePlace", "is_url", "place_of", "url_of"]

WORK = ".work"
"""Where a remote store being written keeps what it needs until it is whole."""
_URL = re.compile(r"^((?:[A-Za-z0-9]+::)*)([A-Za-z][A-Za-z0-9+.-]+):/+(.+)$")
_BLOCK = 1 << 24
_TRANSPORTS = frozenset({"aiobotocore", "aiohttp", "azure", "botocore", "fsspec", "gcsfs", "google", "paramiko", "requests", "s3fs", "urllib3"})
"""Packages whose errors tell of the way to a store, where they are no OSError."""


def is_url(text: str | Path) -> bool:
    """Whether `text` names a remote store (``s3://bucket/x.zarr``) and no local path.

    A Path made from a URL, which pathlib writes with one slash (``s3:/bucket/x.zarr``), counts as that URL.

    Examples
    --------
    >>> is_url("s3://bucket/x.zarr"), is_url("stores/x.zarr"), is_url("file:///data/x.zarr")
    (True, False, False)
    """
    return url_of(text) is not None


def url_of(text: str | Path) -> str | None:
    """The URL of a remote store, or None for a local path."""
    found = _URL.match(os.fspath(text))
    if found is None or found[2] in ("file", "local"):
        return None
    return f"{found[1]}{found[2]}://{found[3].rstrip('/')}"


def place_of(where: str | Path | Place, storage_options: dict[str, Any] | None = None) -> Place:
    """The place that a path or URL names.

    Raises
    ------
    InputError
        If there are storage options for a local path, or the URL has a query.
    """
    if isinstance(where, (LocalPlace, RemotePlace)):
        return where
    if not isinstance(where, (str, os.PathLike)):
        raise InputError(f"a store is named by a path or a URL, got {type(where).__name__}")
    url = url_of(where)
    if url is not None:
        return RemotePlace(url, storage_options)
    if storage_options:
        raise InputError(f"{where}: storage_options are for remote stores (scheme://…), this is a local path: leave them out")
    return LocalPlace(Path(re.sub("^(file|local):/+", "/", os.fspath(where))))


class Place(Protocol):
    """The files of one store, by their names in it (``signals/lfp/zarr.json``)."""

    def __str__(self) -> str: ...
    def read(self, name: str) -> bytes:
        """A whole file. Raises StoreError where it is missing or cannot be read."""
        ...

    def has(self, name: str) -> bool:
        """Whether the file is there."""
        ...

    def sizes(self) -> dict[str, int] | None:
        """{name: bytes} of every file, or None where they cannot be listed."""
        ...

    def sha256_of(self, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        """Each file with its SHA-256, hex."""
        ...

    def prefetch(self, names: Iterable[str]) -> None:
        """These files will be read next, once each."""
        ...


class LocalPlace:
    """A folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def read(self, name: str) -> bytes:
        try:
            return (self.path / name).read_bytes()
        except FileNotFoundError:
            raise StoreError(_missing(self.path / name)) from None

    def has(self, name: str) -> bool:
        return (self.path / name).is_file()

    def sizes(self) -> dict[str, int]:
        return {p.relative_to(self.path).as_posix(): p.lstat().st_size for p in self.path.rglob("*") if not p.is_dir()}

    def sha256_of(self, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        return ((name, file_sha256(self.path / name)) for name in names)

    def prefetch(self, names: Iterable[str]) -> None:
        """Nothing: the disk is near."""


class RemotePlace:
    """The objects below a URL, through fsspec. Crosses to other processes by its URL and options."""

    def __init__(self, url: str, storage_options: dict[str, Any] | None = None) -> None:
        self.url, self.options = url, dict(storage_options or {})
        if stray := set("?*[") & set(url):
            raise InputError(f"{url.partition('?')[0]}: the URL holds {min(stray)!r}, expected the plain address of one store; tokens go into storage_options")
        self._made_in, self._fs, self._root = 0, None, ""
        self._ahead: dict[str, bytes] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return RemotePlace, (self.url, self.options)

    def __str__(self) -> str:
        return self.url

    @property
    def fs(self) -> Any:
        """The file system; made anew in a forked process, whose parent's connections and event loop it must not touch."""
        if self._fs is None or self._made_in != os.getpid():
            import fsspec

            try:
                self._fs, root = fsspec.url_to_fs(self.url, **self.options)
            except ImportError as error:
                raise InputError(f"{self.url}: {error.msg.rstrip('.')}: pip install 'brainmu[remote]', or the package named here") from None
            except (ValueError, TypeError) as error:  # an unknown scheme, an option that it does not take
                raise InputError(f"{self.url}: {' '.join(str(error).split())}: check the scheme and the storage options") from None
            self._root, self._made_in = root.rstrip("/"), os.getpid()
        return self._fs

    def path(self, name: str) -> str:
        """Of a file, as the file system names it."""
        _ = self.fs
        return f"{self._root}/{name}" if name else self._root

    # -- reading --------------------------------------------------------------------------------------------------
    def read(self, name: str) -> bytes:
        if (known := self._ahead.pop(name, None)) is not None:
            return known
        with self.asking(name):
            return bytes(self.fs.cat_file(self.path(name)))

    def find(self, name: str) -> bytes | None:
        """A whole file, or None where it is not there."""
        with self.asking(name), contextlib.suppress(FileNotFoundError):
            return bytes(self.fs.cat_file(self.path(name)))
        return None

    def ranges(self, wanted: list[tuple[str, int, int | None]]) -> list[bytes]:
        """The bytes [a, b) of files, asked for at once; ``(name, -n, None)`` is the last `n`."""
        with self.asking():
            got = self.fs.cat_ranges([self.path(n) for n, _, _ in wanted], [a for _, a, _ in wanted], [b for _, _, b in wanted], on_error="return")
        out = []
        for (name, a, b), data in zip(wanted, got):
            with self.asking(name):
                if isinstance(data, BaseException):
                    raise data
            size = -a if b is None else b - a
            if len(data) != size:
                raise StoreError(
                    f"{self}/{name}: gave {len(data)} bytes for a range of {size}: the object is truncated, or the server does not serve byte ranges; "
                    "check it with brainmu info --verify"
                )
            out.append(bytes(data))
        return out

    def prefetch(self, names: Iterable[str]) -> None:
        wanted = [n for n in names if n not in self._ahead]
        if len(wanted) > 1:
            with self.asking():
                got = self.fs.cat_ranges([self.path(n) for n in wanted], [None] * len(wanted), [None] * len(wanted), on_error="return")
            # What fails is asked for again by the one who needs it, and told there.
            self._ahead |= {n: data for n, data in zip(wanted, got) if isinstance(data, bytes)}

    def has(self, name: str) -> bool:
        with self.asking(name):
            self.fs.invalidate_cache()
            return bool(self.fs.isfile(self.path(name)))

    @property
    def read_only(self) -> bool:
        """Whether it is the plain web, which neither takes nor lists objects."""
        protocol = self.fs.protocol
        return not {"http", "https"}.isdisjoint([protocol] if isinstance(protocol, str) else protocol)

    def sizes(self) -> dict[str, int] | None:
        if self.read_only:
            return None
        with self.asking():
            self.fs.invalidate_cache()
            try:
                found = self.fs.find(self.path(""), detail=True)
            except FileNotFoundError:
                return {}
            return {p[len(self.path("")) + 1 :]: int(d["size"]) for p, d in found.items() if p.startswith(self.path("") + "/")}

    def sha256_of(self, names: Iterable[str]) -> Iterator[tuple[str, str]]:
        sizes, together, held = self.sizes() or {}, [], 0
        for name in names:
            size = sizes[name] if name in sizes else self._size(name)
            if size > _BLOCK:
                yield name, self._sha256_in_pieces(name, size)
                continue
            if held + size > 4 * _BLOCK:
                yield from self._sha256_together(together)
                together, held = [], 0
            together.append(name)
            held += size
        yield from self._sha256_together(together)

    def _size(self, name: str) -> int:
        with self.asking(name):
            return int(self.fs.info(self.path(name))["size"] or 0)

    def _sha256_together(self, names: list[str]) -> Iterator[tuple[str, str]]:
        self.prefetch(names)
        return ((name, hashlib.sha256(self.read(name)).hexdigest()) for name in names)

    def _sha256_in_pieces(self, name: str, size: int) -> str:
        digest = hashlib.sha256()
        for a in range(0, size, 4 * _BLOCK):  # four requests at a time, and no more in memory
            for data in self.ranges([(name, b, min(b + _BLOCK, size)) for b in range(a, min(a + 4 * _BLOCK, size), _BLOCK)]):
                digest.update(data)
        return digest.hexdigest()

    # -- writing --------------------------------------------------------------------------------------------------
    def put(self, name: str, data: bytes) -> None:
        """Write an object, whole or not at all."""
        with self.asking(name):
            self.fs.pipe_file(self.path(name), data)

    def put_many(self, files: dict[str, bytes]) -> None:
        """Write objects, several at once."""
        if files:
            with self.asking():
                self.fs.pipe({self.path(name): data for name, data in files.items()})

    def create(self, name: str, data: bytes) -> bool:
        """Write an object unless it is there. Where the service cannot promise that, it is looked for first."""
        if self.has(name):
            return False
        with self.asking(name):
            try:
                self.fs.pipe_file(self.path(name), data, mode="create")
            except (NotImplementedError, TypeError):  # it knows no such mode
                self.fs.pipe_file(self.path(name), data)
            except OSError:
                if self.fs.isfile(self.path(name)):
                    return False
                raise
        return True

    def upload(self, file: Path, name: str) -> None:
        """A local file becomes the object `name`."""
        with self.asking(name):
            self.fs.put_file(str(file), self.path(name))

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects; one that is not there is no error."""
        there = list(names)
        if there:
            with self.asking(), contextlib.suppress(FileNotFoundError):
                self.fs.rm([self.path(n) for n in there])

    @contextlib.contextmanager
    def asking(self, name: str = "") -> Iterator[None]:
        """Turn what the way to the store throws into one line."""
        where = f"{self.url}/{name}" if name else self.url
        try:
            yield
        except BrainmuError:
            raise
        except FileNotFoundError:
            raise StoreError(_missing(where)) from None
        except Exception as error:
            # Each service throws its own families, of which few are OSErrors; anything that is not from there goes on as it is.
            if not isinstance(error, (OSError, TimeoutError)) and type(error).__module__.partition(".")[0] not in _TRANSPORTS:
                raise
            raise StoreError(f"{where}: {_sentence(error)}") from error


def _missing(where: Any) -> str:
    return f"{where}: is missing from the store: restore it, or make the store again with --overwrite"


def _sentence(error: Exception) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, PermissionError) or getattr(error, "status", None) in (401, 403) or "Credential" in type(error).__name__:
        return f"access denied ({said}): check the credentials (storage_options or the environment), and that they may read and list here"
    return f"cannot be reached ({said}): check the address and the network, then run the same again"
