"""A Trodes position file (.videoPositionTracking) with MatClust units (spikes.mat), as the Frank and Kemere labs write them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable, Recording, Signal, Spikes
from brainmu.errors import FormatError, NotFoundError
from brainmu.formats.arrays import load_array
from brainmu.formats.sources import ArrayFile, need_file

__all__ = ["detect", "read"]

_POSITION = ".videopositiontracking"
_END = b"<End settings>\n"


def detect(path: Path) -> bool:
    """Whether `path` is a position file or a folder with one."""
    if path.is_file():
        return path.suffix.lower() == _POSITION
    return path.is_dir() and any(p.suffix.lower() == _POSITION for p in path.iterdir())


def read(path: Path, *, spikes: str | Path | None = None, pixels_per_cm: float | None = None) -> Recording:
    """Position and, where there is a spikes.mat, every unit that fired.

    Parameters
    ----------
    spikes : path
        The MatClust file; by default the only .mat in the folder with a variable `spikes`.
    pixels_per_cm : float
        Scale of the camera; by default that of the header. Position stays in px where it is unknown.

    Raises
    ------
    FormatError
        If the header is missing or the records do not fit it.
    """
    folder = path if path.is_dir() else path.parent
    tracks = [path] if path.is_file() else sorted(p for p in folder.iterdir() if p.suffix.lower() == _POSITION)
    if len(tracks) > 1:
        raise FormatError(f"{folder}: holds {len(tracks)} position files ({', '.join(p.name for p in tracks)}): name one of them")
    track = need_file(tracks[0], "Trodes position")
    rec = Recording(id=re.sub(r"[^\w.+-]+", "_", folder.resolve().name), species="")
    rec.source = {"format": "trodes", "files": [str(track.resolve())], "warnings": []}
    rec.signals["position"] = _position(track, rec, pixels_per_cm)
    mat = folder / spikes if spikes is not None else _find_spikes(folder)
    if mat is not None:
        rec.source["files"].append(str(mat.resolve()))
        _units(mat, rec)
    else:
        rec.warn("no spikes.mat beside the position: the recording has no spikes")
    return rec


def _position(track: Path, rec: Recording, pixels_per_cm: float | None) -> Signal:
    header, fields, start = _header(track)
    dtype = np.dtype([(name, kind) for name, kind in fields])
    size = track.stat().st_size - start
    if size % dtype.itemsize or not size:
        raise FormatError(f"{track}: {size} bytes after the header are not whole records of {dtype.itemsize} bytes: the file is truncated, copy it again")
    clock = float(header.get("clockrate", "30000"))
    if not clock > 0:
        raise FormatError(f"{track}: clockrate is {header['clockrate']}, expected a positive number of Hz")
    data = np.fromfile(track, dtype=dtype, offset=start)
    t = data["time"].astype(np.int64)
    xy = np.c_[data["xloc"], data["yloc"]].astype(np.float32)
    # The camera's clock stands still or steps back where a frame came twice; the first of each is kept.
    keep = np.r_[True, t[1:] > np.maximum.accumulate(t)[:-1]]
    if not keep.all():
        rec.warn(f"position: {int((~keep).sum())} of {len(t)} frames repeat or precede an earlier time and were left out")
        t, xy, data = t[keep], xy[keep], data[keep]
    lost = (xy <= 0).any(axis=1)
    if lost.any():
        rec.warn(f"position: {int(lost.sum())} of {len(t)} frames have no position (0, 0) and are missing (NaN)")
        xy[lost] = np.nan
    names, second = ["x", "y"], [n for n in ("xloc2", "yloc2") if n in dtype.names]
    if second and all(data[n].any() for n in second):
        two = np.c_[data["xloc2"], data["yloc2"]].astype(np.float32)
        two[(two <= 0).any(axis=1)] = np.nan
        xy, names = np.c_[xy, two], ["x", "y", "x2", "y2"]
    scale = pixels_per_cm or float((header.get("pixel scale", "0").split() or ["0"])[0])
    attrs = {"camera": header.get("camera resolution", ""), "clock_rate": clock}
    if scale > 0:
        return Signal(xy, times=t / clock, unit="m", kind="position", channels=names, scale=0.01 / scale, attrs=attrs)
    rec.warn("position is in px: the header gives no pixel scale (pass pixels_per_cm= to have metres)")
    return Signal(xy, times=t / clock, unit="px", kind="position", channels=names, attrs=attrs)


def _header(track: Path) -> tuple[dict[str, str], list[tuple[str, str]], int]:
    with track.open("rb") as f:
        head = f.read(16384)
    end = head.find(_END)
    if not head.startswith(b"<Start settings>") or end < 0:
        raise FormatError(f"{track}: has no Trodes header (<Start settings> … <End settings>): is it a position file?")
    lines = head[:end].decode("latin-1").splitlines()[1:]
    header = {k.strip().lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    fields = re.findall(r"<(\w+) (\w+)>", header.get("fields", ""))
    kinds = {"uint32": "<u4", "uint16": "<u2", "int32": "<i4", "int16": "<i2", "double": "<f8", "float": "<f4", "uint64": "<u8", "uint8": "u1"}
    if not {"time", "xloc", "yloc"} <= {n for n, _ in fields} or any(k not in kinds for _, k in fields):
        raise FormatError(f"{track}: Fields are {header.get('fields', 'missing')!r}, expected <time uint32><xloc uint16><yloc uint16>…")
    return header, [(n, kinds[k]) for n, k in fields], end + len(_END)


# -- MatClust -------------------------------------------------------------------------------------------------------
def _find_spikes(folder: Path) -> Path | None:
    from brainmu.formats.arrays import members

    found = [p for p in sorted(folder.glob("*.mat")) if "spikes" in members(p)]
    if len(found) > 1:
        raise FormatError(f"{folder}: {', '.join(p.name for p in found)} all hold spikes: name one with spikes=")
    return found[0] if found else None


def _units(mat: Path, rec: Recording) -> None:
    if not mat.exists():
        raise NotFoundError(f"{mat}: no such file, expected MatClust spikes")
    root = load_array(mat, ArrayFile(str(mat), key="spikes"))
    times, rows, spans, empty, bad = [], [], [], 0, 0
    for where, leaf in _leaves(root):
        if leaf.dtype.names is None or not leaf.size:
            empty += 1
            continue
        if "time" not in leaf.dtype.names:
            raise FormatError(f"{mat}: the cell at {where} has fields {', '.join(leaf.dtype.names)}, expected time (MatClust spikes)")
        t = np.asarray(leaf["time"][0, 0], dtype=np.float64).ravel()
        bad += int((~np.isfinite(t)).sum())
        t = t[np.isfinite(t)]
        if "timerange" in leaf.dtype.names and np.size(leaf["timerange"][0, 0]) == 2:
            spans.append(np.asarray(leaf["timerange"][0, 0], dtype=np.float64).ravel())
        if not len(t):
            empty += 1
            continue
        # The last two levels are tetrode and cell; those before are day and epoch.
        indices = where
        rows.append({"id": len(rows), "day": indices[-4] if len(indices) > 3 else 0, "epoch": indices[-3] if len(indices) > 2 else 0,
                     "tetrode": indices[-2] if len(indices) > 1 else 0, "cell": indices[-1], "n_spikes": len(t)})  # fmt: skip
        times.append(t)
    if not rows:
        raise FormatError(f"{mat}: spikes holds {empty} cells and none has a spike time")
    if bad:
        raise FormatError(f"{mat}: {bad} spike times are NaN or infinite: drop them in the file, the reader cannot know what they stand for")
    unit = np.repeat(np.arange(len(rows)), [len(t) for t in times])
    rec.spikes = Spikes(np.concatenate(times), unit, pd.DataFrame(rows))
    if empty:
        rec.source["notes"] = f"{empty} empty cells of {mat.name} hold no unit; {len(rows)} units have at least one spike"
    if spans:
        bounds = np.unique(np.array(spans), axis=0)
        bounds = bounds[bounds[:, 1] > bounds[:, 0]]
        rec.labels["sorted_span"] = EventTable(bounds[:, 0], bounds[:, 1], kind="epoch", content="span that the spike sorter looked at")


def _leaves(x: Any, where: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], NDArray[Any]]]:
    """Every innermost cell with its indices, counted from 1 as MATLAB does."""
    if x.dtype == object:
        for i in range(x.size):
            yield from _leaves(np.asarray(x.ravel(order="F")[i]), (*where, i + 1))
    else:
        yield where, x
