"""Time series of an NWB file: electrical, spatial, optical, optogenetic and behavioural ones, lazily, wherever their data lie."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable, Recording, Signal
from brainmu.core.units import unit_factor
from brainmu.errors import FormatError
from brainmu.formats.lazy import Calibrated, H5Rows, Spread
from brainmu.formats.nwb_stamps import LARGE, scan, stream_grid
from brainmu.formats.timing import lay_out

__all__ = ["add_series", "all_series", "free_name", "known"]

_CHUNK = 1 << 20
_ON = 0.1  # of its greatest power: from there on a light counts as on
_TRAIN = 1.0  # s between the onsets of pulses of one train
_SPEED = {"m/s": (1.0, "m/s"), "cm/s": (1e-2, "m/s"), "mm/s": (1e-3, "m/s"), "meters/second": (1.0, "m/s"), "centimeters/second": (1e-2, "m/s")}
_PIXELS = ("px", "pixel", "pixels")


def all_series(nwb: Any) -> list[tuple[str, Any]]:
    """Every time series of acquisition, stimulus and processing, by name."""
    found: list[tuple[str, Any]] = []
    seen: set[int] = set()

    def walk(item: Any, prefix: str) -> None:
        if id(item) in seen:
            return
        seen.add(id(item))
        if hasattr(item, "data") and hasattr(item, "timestamps"):
            found.append((prefix, item))
            return
        for holder in ("electrical_series", "spatial_series", "time_series", "roi_response_series", "interval_series"):
            for s in (getattr(item, holder, None) or {}).values():
                plain = s.name in ("ElectricalSeries", "SpatialSeries", "TimeSeries", "IntervalSeries", "RoiResponseSeries")
                if holder == "roi_response_series":
                    walk(s, f"{prefix}_{s.name}" if s.name.startswith("RoiResponse") else s.name)
                else:
                    walk(s, prefix if plain else s.name)

    for place in (nwb.acquisition, getattr(nwb, "stimulus", None) or {}):
        for item in place.values():
            walk(item, item.name)
    for module in nwb.processing.values():
        for item in module.data_interfaces.values():
            walk(item, item.name)
    return found


def free_name(taken: dict[str, Any], name: str) -> str:
    """`name` without characters that a store cannot hold, numbered where it is taken."""
    name = re.sub(r"[^\w.+-]+", "_", name)
    if name not in taken:
        return name
    return next(f"{name}_{k}" for k in range(2, 1000) if f"{name}_{k}" not in taken)


def known(value: Any) -> str:
    """Text of a cell, "" where it says that nothing is known."""
    text = str(value).strip()
    return "" if text.lower() in ("nan", "none", "unknown", "n/a", "") else text


def add_series(path: Path, name: str, series: Any, rec: Recording) -> None:
    """Put one series into the signals or labels of `rec`; what cannot be read is said."""
    import h5py

    data, kind_of = series.data, type(series).__name__
    if kind_of == "AnnotationSeries" and len(np.shape(data)):
        t = np.asarray(series.timestamps[:], dtype=np.float64)
        rec.labels[free_name(rec.labels, name)] = EventTable(t, t, kind=[x.decode() if isinstance(x, bytes) else str(x) for x in data[:]])
        return
    if kind_of == "IntervalSeries" and len(np.shape(data)):
        _intervals(name, series, rec)
        return
    if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "fiub":
        rec.warn(f"{name}: is a {kind_of} without numbers in this file, left out")
        return
    if data.ndim > 2 or not data.ndim or not data.shape[0]:
        rec.warn(f"{name}: is a {kind_of} of shape {data.shape}, left out ({'images are not read' if data.ndim > 2 else 'empty'})")
        return
    # A linked series has its data in another file.
    file = Path(data.file.filename)
    if str(file.resolve()) not in rec.source["files"]:
        rec.source["files"].append(str(file.resolve()))
    if kind_of == "OptogeneticSeries":
        _light(name, series, rec)
        return
    if data.ndim == 1 and kind_of == "TimeSeries" and data.dtype.kind in "iub" and series.timestamps is not None and not _sampled(series):
        # Codes at times (TTL words, task events) are events, not a signal.
        t = np.asarray(series.timestamps[:], dtype=np.float64)
        rec.labels[free_name(rec.labels, name)] = EventTable(t, t, kind=name, value=data[:], attrs={"clock": "session"})
        return
    _signal(path, file, name, series, rec)


def _sampled(series: Any) -> bool:
    """Whether integers at time stamps are samples: many, and even."""
    n = int(series.timestamps.shape[0]) if hasattr(series.timestamps, "shape") else len(series.timestamps)
    if n < 1000:
        return False
    d = np.diff(np.asarray(series.timestamps[:2000], dtype=np.float64))
    return bool(np.median(np.abs(d - np.median(d))) < 0.02 * np.median(d))


def _signal(path: Path, file: Path, name: str, series: Any, rec: Recording) -> None:
    kind = _kind(name, series)
    factor, unit = _unit(str(series.unit or ""), kind)
    values: Any = H5Rows(file, series.data.name)
    gain = float(series.conversion if series.conversion is not None else 1.0) * factor
    offset = float(getattr(series, "offset", 0.0) or 0.0) * factor
    channel_gain = getattr(series, "channel_conversion", None)
    scale: Any = gain * np.asarray(channel_gain[:], dtype=np.float64) if channel_gain is not None else gain
    if offset:
        values, scale = Calibrated(values, scale, offset), 1.0
    laid = {"values": values, "rate": float(series.rate), "start": float(series.starting_time or 0.0)} if series.rate else None
    if laid is None:
        laid = _by_timestamps(path, name, series, values, rec)
    if kind == "position" and unit != "m":
        rec.warn(f"{name}: position is in {unit or 'an unknown unit'!r}, not metres")
    attrs = {"nwb_path": series.data.name, "description": str(series.description or "")[:200]}
    frame = getattr(series, "reference_frame", None)
    if frame:
        attrs["reference_frame"] = str(frame)[:200]
    signal = Signal(**laid, unit=unit, kind=kind, channels=_channels(name, series, values.shape[1], kind), scale=scale, attrs=attrs)
    rec.signals[free_name(rec.signals, name)] = signal


def _unit(unit: str, kind: str) -> tuple[float, str]:
    key = unit.strip().lower()
    if kind == "speed" and key in _SPEED:
        return _SPEED[key]
    if key in _PIXELS:
        return 1.0, "px"
    return unit_factor(unit, kind=kind)


def _by_timestamps(path: Path, name: str, series: Any, values: Any, rec: Recording) -> dict[str, Any]:
    stamps = series.timestamps
    n = int(stamps.shape[0]) if hasattr(stamps, "shape") else len(stamps)
    if n != values.shape[0]:
        raise FormatError(f"{path}: {name} has {values.shape[0]} samples and {n} timestamps, expected one a sample")
    if n > LARGE:
        grid = stream_grid(stamps)
        if grid is not None:
            out: dict[str, Any] = {"values": values, "rate": grid.rate, "start": grid.start}
            if len(grid.first) > 1:
                out |= {"values": Spread(values, grid.first, grid.length), "gaps": grid.gaps}
                rec.warn(f"{name}: {len(grid.gaps)} gaps of {grid.gaps.duration:.3f} s in all are missing samples")
            return out
        if (seen := scan(stamps)).unfinished:
            raise FormatError(f"{path}: {name} has {seen.unfinished} timestamps that are NaN or infinite")
    t = np.asarray(stamps[:], dtype=np.float64)
    if not np.isfinite(t).all():
        raise FormatError(f"{path}: {name} has {int((~np.isfinite(t)).sum())} timestamps that are NaN or infinite")
    forward = np.r_[True, t[1:] > np.maximum.accumulate(t)[:-1]]
    if not forward.all():
        rec.warn(f"{name}: {int((~forward).sum())} of {len(t)} timestamps repeat or step back, those samples were left out")
        if values.shape[0] * values.shape[1] > 50_000_000:
            raise FormatError(f"{path}: {name} is too large to mend its timestamps in memory: mend them in the file")
        return lay_out(np.asarray(values[:])[forward], t[forward])
    laid = lay_out(values, t)
    if "gaps" in laid:
        rec.warn(f"{name}: {len(laid['gaps'])} gaps of {laid['gaps'].duration:.3f} s in all are missing samples")
    return laid


_WORDS = (
    ("emg", ("emg",)), ("eog", ("eog",)), ("ecg", ("ecg", "ekg")), ("eeg", ("eeg", "ecog")), ("lfp", ("lfp",)), ("photometry", ("photometry", "isosbestic")),
    ("speed", ("speed", "velocity")),
    ("behaviour", ("pupil", "wheel", "lick", "accel", "whisk", "running", "gaze", "eye", "direction", "angle", "heading", "imu", "gyro")),
    ("position", ("position", "location", "trajectory")),
)  # fmt: skip


def _kind(name: str, series: Any) -> str:
    """Kind of a series, from its type, then its name and place."""
    kind, parent = type(series).__name__, getattr(series, "parent", None)
    text, above = name.lower(), type(parent).__name__
    if kind == "ElectricalSeries":
        return next((k for k in ("emg", "eog", "ecg", "eeg") if k in text), "lfp")
    if kind == "SpatialSeries":
        turning = above in ("CompassDirection", "EyeTracking", "PupilTracking") or any(w in text for w in ("direction", "angle", "heading", "gaze", "pupil"))
        return "behaviour" if turning or str(series.unit or "").lower() in ("rad", "radians", "deg", "degrees", "degree") else "position"
    if kind == "RoiResponseSeries":
        return "calcium"
    if "photometry" in kind.lower():
        return "photometry"
    for k, words in _WORDS:
        if any(w in text for w in words):
            return k
    return "behaviour" if above.startswith("Behavioral") or above in ("PupilTracking", "EyeTracking") else "other"


def _channels(name: str, series: Any, n: int, kind: str) -> Any:
    electrodes = getattr(series, "electrodes", None)
    if electrodes is not None and len(electrodes.data) == n:
        frame = _electrodes(name, electrodes)
        if not frame["name"].duplicated().any():
            return frame
    rois = getattr(series, "rois", None)
    if rois is not None and len(rois.data) == n:
        return _rois(rois)
    if kind == "position" and n <= 3:
        return ["x", "y", "z"][:n]
    return [name] if n == 1 else [f"{name}_{i}" for i in range(n)]


def _electrodes(name: str, electrodes: Any) -> pd.DataFrame:
    rows = electrodes.table.to_dataframe().iloc[np.asarray(electrodes.data[:], dtype=int)]
    frame = pd.DataFrame({"name": [f"{name}_{i}" for i in rows.index]})
    if "label" in rows and not rows["label"].duplicated().any():
        frame["name"] = rows["label"].astype(str).to_numpy()
    if "location" in rows:
        frame["region"] = [known(v) for v in rows["location"]]
    if "group_name" in rows:
        frame["group"] = rows["group_name"].astype(str).to_numpy()
    for axis in ("x", "y", "z"):
        if axis in rows and np.isfinite(pd.to_numeric(rows[axis], errors="coerce")).any():
            frame[axis] = rows[axis].astype(float).to_numpy()
    return frame


def _rois(rois: Any) -> pd.DataFrame:
    """ROIs by the ids of their plane segmentation, with every plain column of it."""
    table, which = rois.table, np.asarray(rois.data[:], dtype=int)
    ids = np.asarray(table.id[:])[which]
    frame = pd.DataFrame({"name": [f"roi_{i}" for i in ids], "roi_id": ids})
    if frame["name"].duplicated().any():
        frame["name"] = [f"roi_{i}_{k}" for k, i in enumerate(ids)]
    for column in table.colnames:
        data = getattr(table[column], "data", None)
        if column in ("pixel_mask", "voxel_mask", "image_mask") or data is None or hasattr(table[column], "target"):
            continue
        values = np.asarray(data[:])
        if values.ndim == 1 and len(values) == len(table) and values.dtype.kind in "fiubSUO":
            picked = values[which]
            if picked.dtype.kind in "fiub" or all(isinstance(v, str | bytes) for v in picked):
                key = column if column not in ("name", "kind") else f"{column}_"
                frame[key] = [v.decode() if isinstance(v, bytes) else v for v in picked.tolist()]
    return frame


# -- events ---------------------------------------------------------------------------------------------------------
def _intervals(name: str, series: Any, rec: Recording) -> None:
    """An IntervalSeries: a positive number opens an interval (the number is its type), a negative one closes it."""
    data, t = np.asarray(series.data[:]).astype(np.int64), np.asarray(series.timestamps[:], dtype=np.float64)
    start, stop, kind, lost = [], [], [], 0
    opened: dict[int, float] = {}
    for value, time in zip(data.tolist(), t.tolist()):
        if value > 0:
            lost += value in opened
            opened[value] = time
        elif -value in opened and time >= opened[-value]:
            start.append(opened.pop(-value))
            stop.append(time)
            kind.append(-value)
        else:
            lost += 1
    if lost or opened:
        rec.warn(f"{name}: {lost + len(opened)} edges of its intervals have no other edge and were left out")
    order = np.argsort(start, kind="stable")
    several = len(set(kind)) > 1
    rec.labels[free_name(rec.labels, name)] = EventTable(
        np.array(start)[order], np.array(stop)[order], kind=name, **({"value": np.array(kind)[order]} if several else {}), attrs={"clock": "session"}
    )


def _light(name: str, series: Any, rec: Recording) -> None:
    """Pulses of an optogenetic series (``NAME``), and the trains they make (``NAME_trains``)."""
    data = series.data
    n, width = int(data.shape[0]), 1 if data.ndim == 1 else int(data.shape[1])
    gain = float(series.conversion if series.conversion is not None else 1.0)
    top = max((float(np.nanmax(np.asarray(data[i : i + _CHUNK], dtype=np.float64))) for i in range(0, n, _CHUNK)), default=0.0)
    if not top * gain > 0:
        rec.warn(f"{name}: its light is never on (greatest power {top * gain:g} {series.unit or 'W'}): no pulses")
        return
    site = getattr(series, "site", None)
    where = known(getattr(site, "location", "")) or str(getattr(site, "name", "") or "")
    start, stop, power, column = _pulses(series, data, n, width, top)
    if not len(start):
        return
    about = {"clock": "session", "power_unit": str(series.unit or "W"), "site": str(getattr(site, "name", "") or ""), "threshold": _ON}
    content = where if width == 1 else [f"{where}_{c}".strip("_") for c in column]
    rec.labels[free_name(rec.labels, name)] = EventTable(start, stop, kind="stim", content=content, power=power * gain, attrs=about)
    if len(start) > 1:
        first = np.flatnonzero(np.r_[True, np.diff(start) > _TRAIN])
        if len(first) < len(start):
            last = np.r_[first[1:], len(start)]
            rec.labels[free_name(rec.labels, f"{name}_trains")] = EventTable(
                start[first], [float(stop[a:b].max()) for a, b in zip(first, last)], kind="stim_train", content=where, pulses=last - first,
                rate=[(b - a - 1) / (start[b - 1] - start[a]) if start[b - 1] > start[a] else np.nan for a, b in zip(first, last)],
                attrs={**about, "longest_interval": _TRAIN},
            )  # fmt: skip


def _pulses(
    series: Any, data: Any, n: int, width: int, top: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:  # fmt: skip
    edges: list[NDArray[np.int64]] = []
    tops: list[list[tuple[int, float]]] = [[] for _ in range(width)]
    on_before = np.zeros(width, dtype=bool)
    for i in range(0, n, _CHUNK):
        x = np.nan_to_num(np.asarray(data[i : i + _CHUNK], dtype=np.float64).reshape(-1, width))
        on = x > _ON * top
        moved, column = np.nonzero(np.diff(on.astype(np.int8), axis=0, prepend=on_before[None].astype(np.int8)))
        edges.append(np.c_[moved + i, column, on[moved, column]].astype(np.int64))
        for c in range(width):
            begin = np.unique(np.r_[0, moved[column == c]]).astype(np.int64)
            if len(x):
                tops[c] += list(zip((begin + i).tolist(), np.maximum.reduceat(x[:, c], begin).tolist()))
        on_before = on[-1]
    e = np.concatenate(edges) if edges else np.empty((0, 3), dtype=np.int64)
    e = e[np.lexsort((e[:, 0], e[:, 1]))]
    rows = []
    for c in range(width):
        mine = e[e[:, 1] == c]
        up = mine[mine[:, 2] == 1, 0]
        down = np.r_[mine[mine[:, 2] == 0, 0], n][: len(up)]
        at, height = np.array([a for a, _ in tops[c]]), np.array([h for _, h in tops[c]])
        for a, b in zip(up.tolist(), down.tolist()):
            i, j = np.searchsorted(at, [a, b])
            rows.append((a, b, float(height[i : max(j, i + 1)].max()), c))
    rows.sort()
    first, last = np.array([r[0] for r in rows], dtype=np.int64), np.array([r[1] for r in rows], dtype=np.int64)
    power, column = np.array([r[2] for r in rows]), np.array([r[3] for r in rows], dtype=np.int64)
    if series.rate:
        begin = float(series.starting_time or 0.0)
        return begin + first / float(series.rate), begin + last / float(series.rate), power, column
    t = series.timestamps
    stamps = np.asarray(t[:], dtype=np.float64)
    step = float(np.median(np.diff(stamps))) if len(stamps) > 1 else 0.0
    return stamps[first], np.r_[stamps, stamps[-1] + step][last], power, column
