"""Tracked body parts of DeepLabCut (.csv) and SLEAP (analysis .h5): one part as the position, all of them as the pose."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import Recording, Signal
from brainmu.errors import FormatError, InputError
from brainmu.formats.sources import need_file

__all__ = ["detect", "read"]


def detect(path: Path) -> bool:
    """Whether `path` is a DeepLabCut csv or a SLEAP analysis h5."""
    if not path.is_file():
        return False
    if path.suffix.lower() == ".csv":
        with path.open("rb") as f:
            return f.read(7) == b"scorer," and b"\nbodyparts," in f.read(100_000)
    return path.suffix.lower() == ".h5" and _is_sleap(path)


def _is_sleap(path: Path) -> bool:
    import h5py

    if not h5py.is_hdf5(path):
        return False
    with h5py.File(path, "r") as f:
        return "tracks" in f and "node_names" in f


def read(
    path: Path,
    *,
    rate: float | None = None,
    part: str | None = None,
    track: int = 0,
    likelihood: float = 0.9,
    pixels_per_cm: float | None = None,
    start: float = 0.0,
) -> Recording:
    """The pose of one animal, frame by frame.

    Parameters
    ----------
    rate : float, Hz
        Frames a second of the video, which neither program writes into the file.
    part : str
        Body part that is the animal's position; by default the one that is seen best.
    track : int
        Which animal (SLEAP).
    likelihood : float
        Points less likely than this are missing (DeepLabCut).
    pixels_per_cm : float
        Scale of the camera; without it positions stay in px.
    start : float, s
        Session time of the first frame.

    Raises
    ------
    InputError
        If no frame rate is given, or the part does not exist.
    """
    need_file(path, "tracked body parts")
    if rate is None or not rate > 0:
        raise InputError(f"{path}: tracked video frames carry no time: pass rate= (frames a second of the video), or use a manifest with times:")
    rec = Recording(id=re.sub(r"[^\w.+-]+", "_", path.stem))
    rec.source = {"format": "pose", "files": [str(path.resolve())], "warnings": []}
    names, xy, seen = _sleap(path, track, rec) if path.suffix.lower() == ".h5" else _deeplabcut(path, likelihood, rec)
    if part is None:
        part = names[int(np.nanargmax(seen))]
        rec.warn(f"position is that of {part!r}, the part that is seen best ({np.nanmax(seen):.0%} of frames); pass part= for another")
    if part not in names:
        raise InputError(f"{path}: has no body part {part!r}, it has {', '.join(names)}")
    lost = np.isnan(xy).any(axis=2)
    rec.warn(f"{lost.mean():.1%} of points are missing (NaN), {lost[:, names.index(part)].mean():.1%} of {part}")
    unit, scale = ("m", 0.01 / pixels_per_cm) if pixels_per_cm else ("px", 1.0)
    if unit == "px":
        rec.warn("positions are in px: pass pixels_per_cm= to have metres")
    i = names.index(part)
    rec.signals["position"] = Signal(xy[:, i], rate=rate, start=start, unit=unit, kind="position", channels=["x", "y"], scale=scale, attrs={"part": part})
    flat = [f"{n}_{axis}" for n in names for axis in "xy"]
    rec.signals["pose"] = Signal(xy.reshape(len(xy), -1), rate=rate, start=start, unit=unit, kind="behaviour", channels=flat, scale=scale)
    return rec


def _deeplabcut(path: Path, likelihood: float, rec: Recording) -> tuple[list[str], NDArray[np.float32], NDArray[Any]]:
    try:
        frame = pd.read_csv(path, header=[0, 1, 2], index_col=0)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise FormatError(f"{path}: not a DeepLabCut table ({' '.join(str(error).split())}), expected the lines scorer, bodyparts, coords") from None
    if frame.empty or any(not pd.api.types.is_numeric_dtype(t) for t in frame.dtypes):
        raise FormatError(f"{path}: holds no rows of numbers under its three header lines; multi-animal tables come in through a manifest")
    names = list(dict.fromkeys(str(c[1]) for c in frame.columns))
    columns = {(str(c[1]), str(c[2])): c for c in frame.columns}
    if absent := [n for n in names if any((n, k) not in columns for k in ("x", "y", "likelihood"))]:
        raise FormatError(f"{path}: body part {absent[0]!r} lacks one of x, y, likelihood")
    xy = np.stack([frame[[columns[n, "x"], columns[n, "y"]]].to_numpy(np.float32) for n in names], axis=1)
    sure = np.stack([frame[columns[n, "likelihood"]].to_numpy(float) for n in names], axis=1) >= likelihood
    xy[~sure] = np.nan
    rec.source["likelihood"] = likelihood
    return names, xy, sure.mean(axis=0)


def _sleap(path: Path, track: int, rec: Recording) -> tuple[list[str], NDArray[np.float32], NDArray[Any]]:
    import h5py

    with h5py.File(path, "r") as f:
        tracks = f["tracks"]
        if tracks.ndim != 4 or not 0 <= track < tracks.shape[0]:
            raise InputError(
                f"{path}: tracks have shape {tracks.shape} (animal, axis, part, frame) and animal {track} was asked for: pass track= below {tracks.shape[0]}"
            )
        if tracks.shape[0] > 1:
            rec.warn(f"holds {tracks.shape[0]} animals, read number {track}; pass track= for another")
        xy = np.asarray(tracks[track], dtype=np.float32).transpose(2, 1, 0)
        names = [n.decode() if isinstance(n, bytes) else str(n) for n in f["node_names"][()]]
    return names, xy, 1 - np.isnan(xy).any(axis=2).mean(axis=0)
