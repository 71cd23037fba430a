"""Tracked body parts of DeepLabCut (.csv, .h5) and SLEAP (analysis .h5), one animal or several: one part as the position, all of them as the pose."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.config import suggest
from brainmu.core import Recording, Signal
from brainmu.errors import FormatError, InputError
from brainmu.formats.arrays import load_array
from brainmu.formats.pandas_hdf import Column, is_readable, read_frame, table_levels
from brainmu.formats.sources import ArrayFile, need_file
from brainmu.formats.tables import TABLE_SUFFIXES, table_names
from brainmu.formats.timing import lay_out, seconds, settled_unit, unit_in_name

__all__ = ["detect", "read"]

_DEEPLABCUT_LIKELIHOOD = 0.9
_TIME_COLUMNS = ("time", "times", "timestamp", "timestamps", "t", "seconds", "frame_time", "frame_times")


@dataclass(frozen=True)
class _Animal:
    """One tracked animal: px of each part (frame, part, 2) and how sure the tracker was (frame, part)."""

    name: str
    parts: list[str]
    xy: NDArray[np.float32]
    sure: NDArray[np.float64]


def detect(path: Path) -> bool:
    """Whether `path` is a DeepLabCut csv or h5, or a SLEAP analysis h5."""
    if not path.is_file():
        return False
    if path.suffix.lower() == ".csv":
        with path.open("rb") as f:
            return f.read(7) == b"scorer," and b"\nbodyparts," in f.read(100_000)
    return path.suffix.lower() == ".h5" and (_is_sleap(path) or "bodyparts" in (table_levels(path) or []))


def _is_sleap(path: Path) -> bool:
    if not is_readable(path):
        return False
    import h5py

    with h5py.File(path, "r") as f:
        return "tracks" in f and "node_names" in f


def read(
    path: Path,
    *,
    rate: float | None = None,
    times: str | Path | None = None,
    time_unit: str | None = None,
    time_column: str | int | None = None,
    part: str | None = None,
    track: int | str = 0,
    likelihood: float | None = None,
    pixels_per_cm: float | None = None,
    start: float = 0.0,
) -> Recording:
    """The pose, frame by frame.

    Parameters
    ----------
    rate : float, Hz
        Frames a second of the video, which neither program writes into the file.
    times : path
        Instead of `rate`: an array file (.npy, .csv, …) with each frame's time, in `time_unit` (default: as its column says, else s); `time_column` names it.
    part : str
        Body part that is the animal's position; by default the one that is seen best.
    track : int, str or "all"
        Which animal, by number or name; "all" reads every one, as ``position_<animal>`` and ``pose_<animal>``.
    likelihood : float
        Points less likely than this are missing. Default 0.9 for DeepLabCut; SLEAP's scores are not probabilities and are used only if this is given.
    pixels_per_cm : float
        Scale of the camera; without it positions stay in px.
    start : float, s
        Session time of the first frame (added to `times`).

    Raises
    ------
    InputError
        If no frame times are given, or the part or animal does not exist.
    FormatError
        If the file is damaged, or the number of times is not that of frames.
    """
    need_file(path, "tracked body parts")
    if (rate is None) == (times is None) or (rate is not None and not rate > 0):
        given = f"rate={rate!r} and times={times!r} were given" if rate is not None else "tracked video frames carry no time"
        raise InputError(f"{path}: {given}: pass rate= (frames a second of the video), or times= (a file with the time of each frame)")
    rec = Recording(id=re.sub(r"[^\w.+-]+", "_", path.stem))
    rec.source = {"format": "pose", "files": [str(path.resolve())], "warnings": []}
    if path.suffix.lower() == ".h5" and _is_sleap(path):
        animals, least = _sleap(path), likelihood
    else:
        animals = _deeplabcut(path, rec)
        least = rec.source["likelihood"] = _DEEPLABCUT_LIKELIHOOD if likelihood is None else likelihood
    timing = _Timing(path, rate, times, time_unit, time_column, start)
    chosen = _choose(path, animals, track, rec)
    for animal in chosen:
        suffix = f"_{animal.name}" if track == "all" and len(animals) > 1 else ""
        _add(rec, animal, suffix, part, least, pixels_per_cm, timing)
    return rec


def _choose(path: Path, animals: list[_Animal], track: int | str, rec: Recording) -> list[_Animal]:
    names = [a.name for a in animals]
    if track == "all":
        return animals
    if isinstance(track, str):
        if track not in names:
            raise InputError(f"{path}: has no animal {track!r}{suggest(track, names)}; it has {', '.join(names)} (or all)")
        return [animals[names.index(track)]]
    if not animals:
        raise FormatError(f"{path}: holds no animals: nothing was tracked")
    if not 0 <= track < len(animals):
        raise InputError(f"{path}: holds {len(animals)} animals and number {track} was asked for: pass track= below {len(animals)}, a name, or all")
    if len(animals) > 1:
        rec.warn(f"holds {len(animals)} animals ({', '.join(names)}), read number {track}; pass track= for another, or all")
    return [animals[track]]


def _add(
    rec: Recording, animal: _Animal, suffix: str, part: str | None, least: float | None, pixels_per_cm: float | None, timing: _Timing
) -> None:  # fmt: skip
    xy = animal.xy.copy()
    if least is not None:
        with np.errstate(invalid="ignore"):
            xy[~(animal.sure >= least)] = np.nan
    lost = np.isnan(xy).any(axis=2)
    where = f"{animal.name}: " if suffix else ""
    chosen = part
    if chosen is None:
        chosen = animal.parts[int(np.argmin(lost.mean(axis=0)))]
        rec.warn(f"{where}position is that of {chosen!r}, the part that is seen best ({1 - lost.mean(axis=0).min():.0%} of frames); pass part= for another")
    if chosen not in animal.parts:
        raise InputError(f"{rec.source['files'][0]}: {where}has no body part {chosen!r}, it has {', '.join(animal.parts)}")
    i = animal.parts.index(chosen)
    rec.warn(f"{where}{lost.mean():.1%} of points are missing (NaN), {lost[:, i].mean():.1%} of {chosen}")
    unit, scale = ("m", 0.01 / pixels_per_cm) if pixels_per_cm else ("px", 1.0)
    if unit == "px":
        rec.warn("positions are in px: pass pixels_per_cm= to have metres")
    attrs = {"part": chosen} | ({"animal": animal.name} if animal.name else {})
    common: dict[str, Any] = {"unit": unit, "scale": scale}
    rec.signals[f"position{suffix}"] = Signal(**timing.of(xy[:, i], rec), kind="position", channels=["x", "y"], attrs=attrs, **common)
    flat = [f"{n}_{axis}" for n in animal.parts for axis in "xy"]
    rec.signals[f"pose{suffix}"] = Signal(**timing.of(xy.reshape(len(xy), -1), rec), kind="behaviour", channels=flat, **common)


@dataclass(frozen=True)
class _Timing:
    """When each frame was taken."""

    path: Path
    rate: float | None
    times: str | Path | None
    unit: str | None
    column: str | int | None
    start: float

    def of(self, values: NDArray[np.float32], rec: Recording) -> dict[str, Any]:
        if self.times is None:
            return {"values": values, "rate": self.rate, "start": self.start}
        file = Path(self.times)
        file = file if file.is_absolute() or file.exists() else self.path.parent / file
        ref = ArrayFile(str(file), columns=self._column(file))
        own = None if ref.columns is None else unit_in_name(ref.columns)[1]
        unit = settled_unit(ref.columns, own, self.unit, str(file))
        t = seconds(load_array(need_file(file, "the time of each frame"), ref), unit, None, str(file)) + self.start
        if len(t) != len(values):
            raise FormatError(f"{self.path}: {len(values)} frames, and {file.name} has {len(t)} times: give one time a frame (time_column= picks a column)")
        if str(file.resolve()) not in rec.source["files"]:
            rec.source["files"].append(str(file.resolve()))
        laid = lay_out(values, t)
        if "gaps" in laid:
            rec.warn(f"frame times have {len(laid['gaps'])} gaps of {laid['gaps'].duration:.3f} s in all: dropped frames are missing (NaN)")
        return laid

    def _column(self, file: Path) -> str | int | None:
        if self.column is not None or file.suffix.lower() not in TABLE_SUFFIXES or not file.is_file():
            return self.column
        names = table_names(file, ArrayFile(str(file)))
        if names is None:
            return None
        known = names if len(names) == 1 else [n for n in names if unit_in_name(n)[0] in _TIME_COLUMNS]
        if len(known) != 1:
            raise InputError(f"{file}: has columns {', '.join(names)}: say which holds the time of each frame with time_column=")
        return known[0]


# -- DeepLabCut -----------------------------------------------------------------------------------------------------
def _deeplabcut(path: Path, rec: Recording) -> list[_Animal]:
    columns, rows, values = read_frame(path) if path.suffix.lower() == ".h5" else _csv(path)
    if not len(rows) or not columns:
        raise FormatError(f"{path}: holds no rows of numbers under its header lines")
    if (np.diff(rows) <= 0).any() or rows[0] < 0:
        raise FormatError(f"{path}: frame numbers do not increase at row {int(np.flatnonzero(np.diff(rows) <= 0)[0]) + 1}, expected one row a frame, in order")
    if rows[-1] + 1 != len(rows):
        rec.warn(f"{rows[-1] + 1 - len(rows)} of {rows[-1] + 1} frames have no row and are missing (NaN)")
        spread = np.full((int(rows[-1]) + 1, values.shape[1]), np.nan)
        spread[rows] = values
        values = spread
    # Levels are scorer, bodyparts, coords, or scorer, individuals, bodyparts, coords.
    depth = len(columns[0])
    if depth not in (3, 4):
        raise FormatError(f"{path}: its columns have {depth} levels, expected scorer, (individuals,) bodyparts, coords")
    place = {c[1:]: k for k, c in enumerate(columns)}
    if len(place) < len(columns):
        raise FormatError(f"{path}: holds two columns {' '.join(columns[0][1:])}: it mixes several scorers, export one")
    animals = []
    for name in dict.fromkeys(c[1] if depth == 4 else "" for c in columns):
        head: Column = (name,) if depth == 4 else ()
        parts = list(dict.fromkeys(c[-2] for c in columns if depth == 3 or c[1] == name))
        if absent := [n for n in parts if any((*head, n, k) not in place for k in ("x", "y", "likelihood"))]:
            raise FormatError(f"{path}: body part {absent[0]!r} lacks one of x, y, likelihood")
        xy = np.stack([values[:, [place[*head, n, "x"], place[*head, n, "y"]]] for n in parts], axis=1).astype(np.float32)
        animals.append(_Animal(name, parts, xy, np.stack([values[:, place[*head, n, "likelihood"]] for n in parts], axis=1)))
    return animals


def _csv(path: Path) -> tuple[list[Column], NDArray[np.int64], NDArray[np.float64]]:
    with path.open(encoding="utf-8", errors="replace") as f:
        head = [f.readline().split(",")[0] for _ in range(4)]
    levels = 4 if head[1] == "individuals" else 3
    try:
        frame = pd.read_csv(path, header=list(range(levels)), index_col=0)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise FormatError(f"{path}: not a DeepLabCut table ({' '.join(str(error).split())}), expected the lines scorer, bodyparts, coords") from None
    if frame.empty or any(not pd.api.types.is_numeric_dtype(t) for t in frame.dtypes):
        raise FormatError(f"{path}: holds no rows of numbers under its {levels} header lines")
    if not pd.api.types.is_integer_dtype(frame.index):
        raise FormatError(f"{path}: its rows are named {frame.index[0]!r}, expected the numbers of video frames (a table of labelled images is not read)")
    return [tuple(map(str, c)) for c in frame.columns], frame.index.to_numpy(np.int64), frame.to_numpy(np.float64)


# -- SLEAP ----------------------------------------------------------------------------------------------------------
_Axis = Literal["track", "xy", "node", "frame"]
_MATLAB_ORDER: tuple[_Axis, ...] = ("track", "xy", "node", "frame")


def _sleap(path: Path) -> list[_Animal]:
    import h5py

    with h5py.File(path, "r") as f:
        tracks = _ordered(path, f["tracks"], ("track", "frame", "node", "xy"), _MATLAB_ORDER).astype(np.float32)
        n, frames, nodes, _ = tracks.shape
        parts = _words(f["node_names"])
        names = _words(f["track_names"]) if "track_names" in f else []
        names = names if len(names) == n else [str(k) for k in range(n)] if n > 1 else [""]
        sure = np.ones((n, frames, nodes))
        if "point_scores" in f:
            sure = _ordered(path, f["point_scores"], ("track", "frame", "node"), tuple(a for a in _MATLAB_ORDER if a != "xy"))
    if len(parts) != nodes or sure.shape != (n, frames, nodes):
        raise FormatError(
            f"{path}: {len(parts)} node names and scores {sure.shape} for tracks of {n} animals, {frames} frames and {nodes} nodes: export it again"
        )
    return [_Animal(names[k], parts, tracks[k], sure[k]) for k in range(n)]


def _ordered(path: Path, data: Any, wanted: tuple[str, ...], default: tuple[str, ...]) -> NDArray[Any]:
    """The array with its axes as `wanted`; files say their order in "dims", those of SLEAP itself are in MATLAB's."""
    said = data.attrs.get("dims")
    order = tuple(json.loads(said)) if said is not None else default
    if sorted(order) != sorted(wanted) or data.ndim != len(wanted):
        raise FormatError(f"{path}: {data.name} has the axes {', '.join(map(str, order))} and shape {data.shape}, expected {', '.join(wanted)}")
    return np.asarray(data).transpose([order.index(a) for a in wanted])


def _words(data: Any) -> list[str]:
    return [n.decode() if isinstance(n, bytes) else str(n) for n in np.atleast_1d(data[()])]
