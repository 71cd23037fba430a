"""The public data sets that brainmu knows by name: one YAML file each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from brainmu.config import load_config, resource_names, suggest
from brainmu.errors import ConfigError, NotFoundError

__all__ = ["Dataset", "FileEntry", "dataset", "dataset_names"]


@dataclass(frozen=True)
class FileEntry:
    """One file of an archive of kind "list"."""

    path: str
    url: str
    sha256: str
    size: int | None = None


@dataclass(frozen=True)
class Dataset:
    """A public data set.

    Attributes
    ----------
    title, species, size, licence : str
    modality : what was recorded (eeg, emg, lfp, spikes, position, sleep stages, …)
    citation : what the authors ask to cite, each with its DOI where there is one
    archive : who holds it, and so where files and checksums are asked for
    id, version : in that archive; version "latest" is the newest published one
    page : for people
    reads : what brainmu makes of it
    pipeline : folder of ``pipelines/`` that turns it into stores
    checked : what of this entry has been tried, and what not
    default_files : patterns taken where none are given
    files : for archive "list"
    how : for archive "manual"
    server : another address of the archive (a mirror); https unless on this machine
    """

    title: str
    archive: Literal["physionet", "dandi", "zenodo", "list", "manual"]
    species: str
    modality: tuple[str, ...]
    licence: str
    citation: tuple[str, ...]
    reads: str
    checked: str
    pipeline: str = ""
    doi: str = ""
    page: str = ""
    size: str = ""
    id: str = ""
    version: str = ""
    default_files: tuple[str, ...] = ()
    files: tuple[FileEntry, ...] = ()
    how: str = ""
    server: str = ""
    name: str = ""


def dataset_names() -> list[str]:
    """Registered names, sorted."""
    return sorted(n.removeprefix("fetch/") for n in resource_names("configs") if n.startswith("fetch/"))


def dataset(name: str | Path) -> Dataset:
    """A registered data set, or one described in a YAML file of your own.

    Raises
    ------
    NotFoundError
        If there is no such name; the nearest one is named.
    ConfigError
        If the description is incomplete or wrong.
    """
    text = str(name)
    if Path(text).suffix in (".yaml", ".yml"):
        found = load_config(Dataset, Path(text)) if Path(text).exists() else None
        if found is None:
            raise NotFoundError(f"{text}: no such file, expected the description of a data set")
        found = replace(found, name=found.name or Path(text).stem)
    else:
        names = dataset_names()
        if text not in names:
            raise NotFoundError(f"{text}: no data set of that name{suggest(text, names)}; brainmu fetch --list names {', '.join(names)}")
        found = replace(load_config(Dataset, f"fetch/{text}"), name=text)
    needs = {"physionet": ("id", "version"), "dandi": ("id", "version"), "zenodo": ("id",), "list": ("files",), "manual": ("how",)}[found.archive]
    absent = [k for k in needs if not getattr(found, k)]
    if absent:
        raise ConfigError(f"{text}: archive is {found.archive} and {absent[0]} is not given: give {', '.join(needs)}")
    return found
