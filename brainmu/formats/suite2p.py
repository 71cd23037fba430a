"""Suite2p folders: ``suite2p/plane*/F.npy`` with Fneu, spks, iscell, stat and ops."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import Recording, Signal
from brainmu.errors import FormatError, InputError
from brainmu.formats.arrays import load_array, open_array
from brainmu.formats.lazy import Rows
from brainmu.formats.pickles import load_object_array
from brainmu.formats.sources import ArrayFile, need_file

__all__ = ["detect", "read"]

T = TypeVar("T")
TRACES = ("corrected", "raw", "deconvolved")


def detect(path: Path) -> bool:
    """Whether `path` is a folder that Suite2p wrote: one with planes in it, or a plane itself."""
    return path.is_dir() and (_is_plane(path) or any(_is_plane(p) for p in _planes(path)))


def _is_plane(path: Path) -> bool:
    return (path / "F.npy").is_file() and (path / "iscell.npy").is_file()


def _planes(path: Path) -> list[Path]:
    """The plane folders of a suite2p folder, in order; "combined" is not one of them."""
    found = [p for p in path.iterdir() if p.is_dir() and re.fullmatch(r"plane\d+", p.name) and _is_plane(p)]
    if not found and _is_plane(path / "combined"):
        return [path / "combined"]
    return sorted(found, key=lambda p: int(p.name[5:]))


class Corrected(Rows):
    """Fluorescence less a share of the neuropil's, (time, roi) float32."""

    dtype = np.dtype(np.float32)

    def __init__(self, f: Any, neuropil: Any, coefficient: float) -> None:
        self.f, self.neuropil, self.coefficient, self.shape = f, neuropil, coefficient, f.shape

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        return (np.asarray(self.f[i:j], np.float64) - self.coefficient * np.asarray(self.neuropil[i:j], np.float64)).astype(np.float32)


def read(
    path: Path,
    *,
    rate: float | None = None,
    cells_only: bool = True,
    neuropil: float = 0.7,
    traces: Sequence[str] = TRACES,
    start: float = 0.0,
) -> Recording:
    """The ROIs of each plane, lazily.

    Signals, a plane each where there are several (``calcium_plane0``): ``calcium`` (F less `neuropil` times Fneu), ``fluorescence``
    (F as it is; kind "other"), ``deconvolved`` (spks; kind "features", which is never filtered). Channels are named by Suite2p's ROI number and carry
    the ROI's centre (x, y in px), its plane and its probability of being a cell. Planes are scanned one after another, so plane p of n starts p / (n fs)
    later than the first.

    Parameters
    ----------
    rate : float, Hz
        Frames a second of a plane; by default ``fs`` of ops.npy, which is then needed.
    cells_only : bool
        Only the ROIs that iscell.npy calls cells.
    neuropil : float
        Share of the neuropil that is taken away. 0.7 is Suite2p's own (Pachitariu et al. 2017; Chen et al. 2013 used it first).
    traces : sequence of "corrected", "raw", "deconvolved"
    start : float, s
        Session time of the first frame of the first plane.

    Raises
    ------
    FormatError
        If the arrays of a plane do not fit each other, or a pickle in it holds more than plain data.
    InputError
        If there is no rate.

    References
    ----------
    Pachitariu et al. (2017), Suite2p: beyond 10,000 neurons with standard two-photon microscopy, bioRxiv 061507.
    """
    if not 0 <= neuropil <= 1:
        raise InputError(f"{path}: neuropil is {neuropil!r}, expected a share between 0 and 1")
    if stray := [t for t in traces if t not in TRACES]:
        raise InputError(f"{path}: trace {stray[0]!r} is not known, expected {', '.join(TRACES)}")
    folders = [path] if _is_plane(path) else _planes(path)
    rec = Recording(id=re.sub(r"[^\w.+-]+", "_", _session_name(path)))
    rec.source = {"format": "suite2p", "files": [], "warnings": [], "neuropil": neuropil}
    planes = [_plane(p, rate, rec) for p in folders]
    if len(planes) > 1 and len({p.rate for p in planes}) > 1:
        raise FormatError(f"{path}: planes have rates {', '.join(f'{p.rate:g}' for p in planes)} Hz, expected one: pass rate=")
    if (path / "combined").is_dir() and folders[0].name != "combined":
        rec.source["notes"] = "combined/ holds the same ROIs as the planes, without the delays between planes; it was not read"
    for plane in planes:
        suffix = f"_{plane.folder.name}" if len(planes) > 1 else ""
        _add(rec, plane, suffix, start, cells_only, neuropil, traces)
    return rec


def _session_name(path: Path) -> str:
    """The session's name: that of the first folder upwards that is not one of Suite2p's own."""
    full = path.resolve()
    return next(
        (p.name for p in (full, *full.parents) if p.name and p.name not in ("suite2p", "combined") and not re.fullmatch(r"plane\d+", p.name)), "suite2p"
    )


@dataclass(frozen=True)
class _Plane:
    folder: Path
    number: int
    n_planes: int
    rate: float
    is_cell: NDArray[np.bool_]
    probability: NDArray[np.float64]
    centres: NDArray[np.float64]
    delays: NDArray[np.float64] | None  # of each ROI, where ROIs of several planes stand together


def _plane(folder: Path, rate: float | None, rec: Recording) -> _Plane:
    cells = np.asarray(load_array(_use(folder / "iscell.npy", rec), ArrayFile("iscell.npy")), dtype=np.float64)
    cells = cells[:, None] if cells.ndim == 1 else cells
    stat = _stat(folder, len(cells), rec)
    ops = _ops(folder, rec) if rate is None or (folder / "ops.npy").is_file() else {}
    fs = _setting(folder, ops, "fs", float) if rate is None and "fs" in ops else rate
    if fs is None or not fs > 0:
        raise InputError(f"{folder}: there is no frame rate ({'ops.npy lacks fs' if ops else 'no ops.npy'}): pass rate= (frames a second of a plane)")
    number = re.fullmatch(r"plane(\d+)", folder.name)
    n_planes = _setting(folder, ops, "nplanes", int) if "nplanes" in ops else 1
    bad = np.asarray(ops.get("badframes", ()))
    if bad.dtype == bool and bad.any():
        rec.warn(f"{folder.name}: Suite2p marked {int(bad.sum())} of {bad.size} frames as bad (moved); their samples are kept")
    centres = (
        np.array([np.asarray(s.get("med", (np.nan, np.nan)), dtype=np.float64)[:2] for s in stat]).reshape(-1, 2) if stat else np.full((len(cells), 2), np.nan)
    )
    delays = None
    if number is None and stat and (found := np.array([int(s.get("iplane", 0)) for s in stat])).any():
        delays = found / (fs * max(n_planes, int(found.max()) + 1))
    probability = cells[:, 1] if cells.shape[1] > 1 else np.full(len(cells), np.nan)
    return _Plane(folder, int(number.group(1)) if number else 0, n_planes, fs, cells[:, 0] > 0, probability, centres, delays)


def _use(path: Path, rec: Recording) -> Path:
    rec.source["files"].append(str(need_file(path, "an array of Suite2p").resolve()))
    return path


def _ops(folder: Path, rec: Recording) -> dict[str, Any]:
    if not (folder / "ops.npy").is_file():
        return {}
    value = load_object_array(_use(folder / "ops.npy", rec), "move ops.npy away and pass rate=")
    ops = value.item() if value.size == 1 else None
    if not isinstance(ops, dict):
        raise FormatError(f"{folder / 'ops.npy'}: holds {value.size} objects, expected one dict of settings: move it away and pass rate=")
    return ops


def _setting(folder: Path, ops: dict[str, Any], key: str, kind: type[T]) -> T:
    try:
        return kind(ops[key])  # type: ignore[call-arg]
    except (TypeError, ValueError):
        raise FormatError(f"{folder / 'ops.npy'}: {key} is {ops[key]!r}, expected a number: move ops.npy away and pass rate=") from None


def _stat(folder: Path, n: int, rec: Recording) -> list[dict[str, Any]]:
    path = folder / "stat.npy"
    if not path.is_file():
        rec.warn(f"{folder.name}: there is no stat.npy, so the ROIs have no place")
        return []
    stat = list(load_object_array(_use(path, rec), "move stat.npy away to read the traces without the places of the ROIs").ravel())
    if len(stat) != n or not all(isinstance(s, dict) for s in stat):
        raise FormatError(f"{path}: describes {len(stat)} ROIs and iscell.npy {n}, expected the same: the folder mixes two runs")
    return stat


def _add(rec: Recording, plane: _Plane, suffix: str, start: float, cells_only: bool, neuropil: float, traces: Sequence[str]) -> None:
    keep = np.flatnonzero(plane.is_cell) if cells_only else np.arange(len(plane.is_cell))
    where = plane.folder.name
    if not len(keep):
        raise FormatError(f"{plane.folder}: none of {len(plane.is_cell)} ROIs is called a cell: curate them in Suite2p, or pass cells_only=False")
    if cells_only and len(keep) < len(plane.is_cell):
        rec.warn(f"{where}: {len(keep)} of {len(plane.is_cell)} ROIs are cells by iscell.npy, the others were left out (cells_only=False reads all)")
    prefix = f"{where}_" if suffix else ""
    channels = pd.DataFrame({
        "name": [f"{prefix}roi_{k}" for k in keep], "x": plane.centres[keep, 1], "y": plane.centres[keep, 0],
        "plane": plane.number, "is_cell": plane.is_cell[keep], "cell_probability": plane.probability[keep],
    })  # fmt: skip
    offset = start
    if plane.delays is not None:
        worst = float(plane.delays[keep].max())
        rec.warn(f"{where}: ROIs of several planes stand on the clock of the first, up to {1000 * worst:.1f} ms early: read the plane folders for exact times")
    elif plane.number and plane.n_planes > 1:
        offset += plane.number / (plane.n_planes * plane.rate)
    f = _open(plane, "F.npy", rec)
    attrs = {"plane": plane.number, "xy_unit": "px"}

    def signal(values: Any, kind: str, unit: str, **more: Any) -> Signal:
        whole = Signal(values, rate=plane.rate, start=offset, unit=unit, kind=kind, attrs=attrs | more)
        picked = whole.pick(keep)
        return Signal(picked.values, rate=plane.rate, start=offset, unit=unit, kind=kind, channels=channels, attrs=attrs | more)

    if "corrected" in traces:
        if (plane.folder / "Fneu.npy").is_file():
            rec.signals[f"calcium{suffix}"] = signal(Corrected(f, _open(plane, "Fneu.npy", rec), neuropil), "calcium", "a.u.", neuropil=neuropil)
        else:
            rec.warn(f"{where}: there is no Fneu.npy, so the neuropil was not taken away")
            rec.signals[f"calcium{suffix}"] = signal(f, "calcium", "a.u.", neuropil=0.0)
    if "raw" in traces:
        rec.signals[f"fluorescence{suffix}"] = signal(f, "other", "a.u.")
    if "deconvolved" in traces and (plane.folder / "spks.npy").is_file():
        rec.signals[f"deconvolved{suffix}"] = signal(_open(plane, "spks.npy", rec), "features", "a.u.", deconvolved="Suite2p (OASIS)")


def _open(plane: _Plane, file: str, rec: Recording) -> Any:
    path = plane.folder / file
    values = open_array(path, ArrayFile(file, transpose=True))
    if values.shape[1] != len(plane.is_cell):
        raise FormatError(f"{path}: holds {values.shape[1]} ROIs and iscell.npy {len(plane.is_cell)}, expected the same: the folder mixes two runs")
    first = plane.folder / "F.npy"
    frames = open_array(first, ArrayFile("F.npy", transpose=True)).shape[0]
    if values.shape[0] != frames:
        raise FormatError(f"{path}: holds {values.shape[0]} frames and F.npy {frames}, expected the same: the folder mixes two runs")
    if str(path.resolve()) not in rec.source["files"]:
        rec.source["files"].append(str(path.resolve()))
    return values
