"""From a path to recordings: which format it is, and the module that reads it."""

from __future__ import annotations

import importlib
import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from brainmu.config import suggest
from brainmu.core import EventTable, Hypnogram, Intervals, Recording, Signal
from brainmu.core.recording import Label
from brainmu.errors import FormatError, InputError, NotFoundError, UsageError
from brainmu.formats.arrays import ARRAY_SUFFIXES
from brainmu.formats.scorings import label_files_beside

__all__ = ["FORMATS", "describe", "read", "read_all", "sniff"]

FORMATS: dict[str, str] = {
    "manifest": "a folder of arrays with a brainmu.yaml, or the .yaml itself",
    "nwb": "NWB 2 (.nwb)",
    "bids": "BIDS datasets of EEG, iEEG and MEG (dataset_description.json, sub-*)",
    "edf": "EDF, EDF+ and BDF (.edf, .bdf)",
    "mne": "FIF, BrainVision, EEGLAB (.fif, .vhdr, .set) through MNE",
    "neurosuite": "Neurosuite (.xml with .dat, .lfp, .res.N, .clu.N, .evt)",
    "phy": "Kilosort and Phy folders (spike_times.npy, spike_clusters.npy)",
    "trodes": "Trodes .videoPositionTracking with MatClust spikes.mat",
    "colmajor": "*_ColMajor.bin with *_Meta.csv",
    "pose": "DeepLabCut (.csv, .h5) and SLEAP (analysis .h5) body parts",
    "photometry": "fibre photometry: pyPhotometry (.ppd), Neurophotometrics and Doric (.csv)",
    "suite2p": "Suite2p folders (plane*/F.npy, iscell.npy, …)",
    "intan": "Intan (.rhd, .rhs; one file, one a signal type, one a channel)",
    "axona": "Axona DacqUSB (.set with .eeg, .egf, .bin, .pos, tetrodes .1 to .32 and .cut)",
    "openephys": "Open Ephys (structure.oebin, or .continuous with .events and .spikes)",
    "neo": "SpikeGLX, Neuralynx, Blackrock, Plexon and the rest that Neo reads",
}
"""Formats by name. Each has a module with ``detect(path) -> bool`` and ``read(path, **options) -> Recording``."""

_MODULES = {name: name for name in FORMATS} | {"mne": "mne_raw", "neo": "neo_raw"}
_COMMON = ("id", "subject", "species", "subject_meta", "zeitgeber", "started_at")


def read(path: str | os.PathLike[str], *, format: str | None = None, **options: Any) -> Recording:
    """One recording from a file or folder, lazily: opening reads headers, spike times and labels, no samples.

    Parameters
    ----------
    path : path
        A file, or a folder that holds one recording.
    format : str, optional
        One of :data:`FORMATS`, where the path leaves it open.
    **options
        ``id, subject, species, subject_meta, zeitgeber, started_at`` correct what the file says; ``manifest=``, ``root=`` and
        ``recording=`` are for manifests; the others are those of the format's own reader.

    Raises
    ------
    NotFoundError
        If there is no such path.
    FormatError
        If the format is unknown or open to doubt, or the file is damaged.

    Examples
    --------
    >>> import tempfile, numpy as np, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> np.save(folder / "eeg.npy", np.zeros((400, 1)))
    >>> _ = (folder / "brainmu.yaml").write_text("id: m1\\nsignals: {eeg: {file: eeg.npy, rate: 200, unit: uV, kind: eeg}}")
    >>> read(folder).duration
    2.0
    """
    found = _places(Path(path), format, options)
    if len(found) > 1:
        shown = ", ".join(str(p.name) for p, _ in found[:8]) + (f", … ({len(found)} in all)" if len(found) > 8 else "")
        raise FormatError(f"{path}: holds several recordings ({shown}): name one of them, or take all with read_all")
    place, name = found[0]
    rec = _read_found(Path(path), place, name, options, "read")[0]
    _mention_arrays(Path(path), [(place, name)], [rec])
    return rec


def read_all(path: str | os.PathLike[str], *, format: str | None = None, **options: Any) -> list[Recording]:
    """Every recording of a file, folder or manifest, in order of name. Options and errors are those of :func:`read`."""
    found = _places(Path(path), format, options)
    recordings = [rec for place, name in found for rec in _read_found(Path(path), place, name, options, "read_all")]
    _mention_arrays(Path(path), found, recordings)
    return recordings


def sniff(path: str | os.PathLike[str]) -> str:
    """Name of the format of a file or folder, one of :data:`FORMATS`.

    Raises
    ------
    NotFoundError, FormatError
        If there is no such path, or no format, or more than one, fits.
    """
    return _places(Path(path), None, {})[0][1]


# -- finding --------------------------------------------------------------------------------------------------------
def _module(name: str) -> ModuleType:
    if name not in FORMATS:
        raise FormatError(f"format {name!r} is not known{suggest(name, FORMATS)}; formats are {', '.join(FORMATS)}")
    return importlib.import_module(f"brainmu.formats.{_MODULES[name]}")


def _places(path: Path, format: str | None, options: dict[str, Any]) -> list[tuple[Path, str]]:
    """The recordings under `path`, each with its format."""
    if not path.exists():
        near = suggest(path.name, [p.name for p in path.parent.iterdir()]) if path.parent.is_dir() else f": the folder {path.parent} does not exist"
        raise NotFoundError(f"{path}: no such file or folder{near}")
    if not path.is_file() and not path.is_dir():
        raise FormatError(f"{path}: is a device or a pipe, expected a file or a folder")
    if not os.access(path, os.R_OK):
        raise FormatError(f"{path}: may not be read: check its permissions")
    if options.get("manifest") is not None:
        if format not in (None, "manifest"):
            raise UsageError(f"manifest= and format={format!r} were both given: give one of them")
        return [(path, "manifest")]
    if format is not None:
        detect = _module(format).detect
        if path.is_dir() and not detect(path):
            inside = [(p, format) for p in sorted(path.iterdir()) if p.is_file() and detect(p)]
            if not inside:
                raise FormatError(f"{path}: holds nothing of format {format} ({FORMATS[format]})")
            return inside
        return [(path, format)]
    if path.is_file():
        return [(path, _of_file(path))]
    return _of_folder(path, depth=0)


def _of_file(path: Path) -> str:
    for name in FORMATS:
        if _module(name).detect(path):
            return name
    if path.suffix.lower() in ARRAY_SUFFIXES:
        raise FormatError(
            f"{path}: is a plain array, which does not say its rate, unit and kind: "
            f"describe it in a manifest (brainmu info {path.parent} --write-manifest drafts one)"
        )
    raise FormatError(f"{path}: format not recognised; known are {'; '.join(FORMATS.values())}. Say which with format=, or describe arrays in a manifest")


def _of_folder(path: Path, depth: int) -> list[tuple[Path, str]]:
    whole = [name for name in FORMATS if _module(name).detect(path)]
    if "manifest" in whole:
        return [(path, "manifest")]
    if len(whole) > 1:
        raise FormatError(f"{path}: could be read as {' or as '.join(whole)}: say which with format=")
    if whole:
        module = _module(whole[0])
        several = module.members(path) if hasattr(module, "members") else []
        return [(p, whole[0]) for p in several] if len(several) > 1 else [(path, whole[0])]
    # Of .yaml files only brainmu.yaml counts here; any other is somebody else's configuration.
    single = [name for name in FORMATS if name != "manifest"]
    files = [(p, name) for p in sorted(path.iterdir()) if p.is_file() and not p.name.startswith(".") for name in single if _module(name).detect(p)]
    spoken_for = {other for p, name in files if (other := getattr(_module(name), "companion", lambda _: None)(p))}
    files = [f for f in files if f[0] not in spoken_for]
    # Acquisition systems write one recording into several files of one name (.nev, .ns5).
    files = [f for i, f in enumerate(files) if f[1] != "neo" or f[0].stem not in [p.stem for p, _ in files[:i]]]
    names = list(dict.fromkeys(name for _, name in files))
    if len(names) > 1:
        raise FormatError(f"{path}: holds files of several formats ({', '.join(names)}): name one file, or say format=")
    if files:
        return files
    below: list[tuple[Path, str]] = []
    if depth < 3:
        for p in sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith(".") and os.access(p, os.R_OK | os.X_OK)):
            try:
                below += _of_folder(p, depth + 1)
            except FormatError as error:
                if "not recognised" not in str(error) and "plain arrays" not in str(error):
                    raise
    if below:
        return below
    if any(p.suffix.lower() in ARRAY_SUFFIXES for p in path.iterdir()):
        fix = f"draft one with `brainmu info {path} --write-manifest` and fill it in, or pass manifest="
        raise FormatError(f"{path}: holds plain arrays and no brainmu.yaml: {fix}")
    raise FormatError(f"{path}: format not recognised, nothing in it is known; known are {'; '.join(FORMATS.values())}")


# -- reading --------------------------------------------------------------------------------------------------------
def _read(path: Path, name: str, options: dict[str, Any], verb: str) -> list[Recording]:
    module = _module(name)
    reader: Callable[..., Any] = getattr(module, verb, module.read)
    own = {k: v for k, v in options.items() if k not in _COMMON}
    known = [p for p in inspect.signature(reader).parameters if p != "path"]
    for key in own:
        if key not in known:
            raise InputError(f"{path}: {name} has no option {key!r}{suggest(key, [*known, *_COMMON])}; it has {', '.join([*known, *_COMMON])}")
    result = reader(path, **own)
    recordings = result if isinstance(result, list) else [result]
    for rec in recordings:
        for key in _COMMON:
            if options.get(key) is not None:
                setattr(rec, key, options[key])
        if path.is_dir() and name != "manifest":
            _mention_others(path, name, rec)
        _mention_labels(path, name, rec)
        rec.__post_init__()
    return recordings


def _read_found(path: Path, place: Path, name: str, options: dict[str, Any], verb: str) -> list[Recording]:
    """Read a file that was found in the folder `path`; where it lacks something, plain arrays beside it may be what was meant."""
    try:
        return _read(place, name, options, verb)
    except InputError as error:
        arrays = _arrays_beside(path, {str(place.resolve())}) if path.is_dir() and place.parent == path and name != "manifest" else ""
        if not arrays:
            raise
        raise type(error)(f"{error}; {arrays} lie beside it, and a manifest describes them together: brainmu info {path} --write-manifest") from None


def _mention_others(path: Path, name: str, rec: Recording) -> None:
    """Say which readable files beside the recording were not read."""
    unread = [p for p in sorted(path.iterdir()) if p.is_file() and str(p.resolve()) not in rec.source["files"]]
    others = [p.name for p in unread for n in FORMATS if n not in (name, "manifest") and _module(n).detect(p)]
    if others:
        rec.warn(f"{', '.join(others)} beside it was not read: name the file to read it")


def _mention_labels(path: Path, name: str, rec: Recording) -> None:
    """Say that files beside a recording look like its labels: which tool's codes they hold only their owner knows."""
    found = [p.name for p in label_files_beside(path) if str(p.resolve()) not in rec.source["files"]] if name != "manifest" else []
    if found:
        rec.warn(f"{', '.join(found)} beside it look like labels and were not read: name them under labels: of a manifest, or use read_scoring")


def _mention_arrays(path: Path, found: list[tuple[Path, str]], recordings: list[Recording]) -> None:
    """Say that plain arrays lie beside files that were found in a folder by their format."""
    if not path.is_dir() or not recordings or not all(place.is_file() and place.parent == path for place, _ in found):
        return
    used = {f for r in recordings for f in r.source["files"]}
    if shown := _arrays_beside(path, used):
        recordings[0].warn(f"{shown} beside it was not read: plain arrays need a manifest (brainmu info {path} --write-manifest)")


def _arrays_beside(path: Path, used: set[str]) -> str:
    """Names of the plain arrays in a folder, but for those that are `used`."""
    arrays = [p.name for p in sorted(path.iterdir()) if p.suffix.lower() in ARRAY_SUFFIXES and str(p.resolve()) not in used and not _is_prose(p)]
    return ", ".join(arrays[:4]) + (f", … ({len(arrays)} in all)" if len(arrays) > 4 else "")


def _is_prose(path: Path) -> bool:
    """Whether a .txt is a readme or a licence: none of its first lines is a row of numbers."""
    if path.suffix.lower() != ".txt":
        return False
    with path.open(encoding="utf-8", errors="replace") as f:
        lines = [line.split() for _, line in zip(range(200), f)]
    return not any(row and all(re.fullmatch(r"[-+.\deE]+,?", cell) for cell in row) for row in lines)


# -- describing -----------------------------------------------------------------------------------------------------
def describe(path: str | os.PathLike[str], *, format: str | None = None, **options: Any) -> dict[str, Any]:
    """What is in a file or folder, ready for JSON.

    Returns
    -------
    dict
        ``path, format, bytes, files`` ([{path, bytes}]) and ``recordings``: for each its id, subject, species, started_at,
        start, stop and duration (s), signals, spikes, labels, warnings.
    """
    recordings = read_all(path, format=format, **options)
    files = sorted({f for r in recordings for f in r.source.get("files", [])})
    sizes = {f: Path(f).stat().st_size for f in files if Path(f).is_file()}
    return {
        "path": str(path), "format": recordings[0].source["format"], "bytes": sum(sizes.values()),
        "files": [{"path": f, "bytes": n} for f, n in sizes.items()], "recordings": [_recording(r) for r in recordings],
    }  # fmt: skip


def _recording(rec: Recording) -> dict[str, Any]:
    return {
        "id": rec.id, "subject": rec.subject, "species": rec.species, "started_at": rec.started_at.isoformat() if rec.started_at else None,
        "subject_meta": {k: _plain(v) for k, v in rec.subject_meta.items()}, "zeitgeber": rec.zeitgeber,
        "start": rec.start, "stop": rec.stop, "duration": rec.duration,
        "signals": {k: _signal(s) for k, s in rec.signals.items()},
        "spikes": None if rec.spikes is None else {
            "n_units": rec.spikes.n_units, "n_spikes": len(rec.spikes), "start": float(rec.spikes.times[0]) if len(rec.spikes) else None,
            "stop": float(rec.spikes.times[-1]) if len(rec.spikes) else None,
            "regions": sorted({str(r) for r in rec.spikes.units["region"] if r}), "columns": [str(c) for c in rec.spikes.units.columns],
            "median_rate": float(np.median(np.bincount(rec.spikes.unit_id, minlength=1)[rec.spikes.units["id"]]) / rec.duration) if rec.duration else None,
        },
        "labels": {k: _label(v) for k, v in rec.labels.items()},
        "notes": _plain(rec.source.get("notes")), "warnings": rec.warnings,
    }  # fmt: skip


def _signal(s: Signal) -> dict[str, Any]:
    return {
        "kinds": list(dict.fromkeys(s.channels["kind"])), "n_channels": s.n_channels, "channels": s.names,
        "regions": sorted({str(r) for r in s.channels["region"] if r}),
        "rate": s.rate, "n_samples": s.n_samples, "unit": s.unit, "start": s.start, "stop": s.stop, "duration": s.duration,
        "dtype": str(np.dtype(s.values.dtype)), "gaps": len(s.gaps), "gap_duration": s.gaps.duration,
    }  # fmt: skip


def _label(label: Label) -> dict[str, Any]:
    if isinstance(label, Hypnogram):
        names = [*label.stages, "ART", "UNS"]
        return {
            "type": "hypnogram", "stages": {s: int(label.mask(s).sum()) for s in names if label.mask(s).any()}, "n": len(label), "epoch": label.epoch,
            "start": label.start, "stop": label.stop, "scorer": label.scorer,
        }  # fmt: skip
    if isinstance(label, Intervals):
        return {"type": "intervals", "n": len(label), "duration": label.duration, "bounds": label.bounds.tolist() if len(label) <= 20 else None}
    assert isinstance(label, EventTable)
    kinds = label.to_frame()["kind"].astype(str).value_counts()
    return {"type": "events", "n": len(label), "kinds": {str(k): int(v) for k, v in kinds.head(20).items()}, "columns": label.columns}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
