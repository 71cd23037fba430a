"""NWB through pynwb: electrical series, position, units, intervals, sleep states and the subject. Samples stay in the file."""

from __future__ import annotations

import re
import warnings
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainmu.core import EventTable, Hypnogram, Recording, Signal, Spikes
from brainmu.core.units import unit_factor
from brainmu.errors import FormatError, InputError
from brainmu.formats.lazy import Calibrated, H5Rows
from brainmu.formats.nwb_written import is_written, read_written
from brainmu.formats.sources import need_file
from brainmu.formats.timing import lay_out

__all__ = ["detect", "read"]

_SPECIES = {"mus musculus": "mouse", "rattus norvegicus": "rat", "homo sapiens": "human", "house mouse": "mouse", "norway rat": "rat"}
_STAGE_COLUMNS = ("state", "stage", "sleep_state", "sleep_stage", "label", "states")


def detect(path: Path) -> bool:
    """Whether `path` is an NWB file (HDF5)."""
    return path.is_file() and path.suffix.lower() == ".nwb"


def read(path: Path, *, epoch: float = 1.0) -> Recording:
    """One session. `epoch` (s) is the grid on which sleep-state intervals become a hypnogram.

    Raises
    ------
    FormatError
        If the file is not NWB, or is damaged.
    """
    need_file(path, "NWB")
    with path.open("rb") as f:
        if f.read(8) != b"\x89HDF\r\n\x1a\n":
            raise FormatError(f"{path}: is not HDF5, expected NWB 2 in HDF5: an NWB-Zarr folder must be exported to HDF5 first")
    import pynwb

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            with pynwb.NWBHDF5IO(str(path), "r", load_namespaces=True) as io:
                rec = _session(path, io.read(), epoch)
        except (OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, FormatError | InputError):
                raise
            raise FormatError(f"{path}: pynwb cannot read it ({' '.join(str(error).split())[:200]}): it is truncated or does not follow NWB 2") from None
    for text in dict.fromkeys(" ".join(str(w.message).split()) for w in caught):
        rec.warn(f"pynwb: {text[:200]}")
    return rec


def _session(path: Path, nwb: Any, epoch: float) -> Recording:
    if is_written(nwb):
        return read_written(path, nwb, _series(nwb))
    rec = Recording(id=re.sub(r"[^\w.+-]+", "_", path.stem))
    rec.source = {"format": "nwb", "files": [str(path.resolve())], "warnings": [], "identifier": str(nwb.identifier)}
    start = nwb.session_start_time
    if start is not None and start.year > 1900:
        rec.started_at = start if start.tzinfo is not None else start.replace(tzinfo=UTC)
    _subject(nwb.subject, rec)
    _intervals(nwb, rec)
    for name, series in _series(nwb):
        _add_series(path, name, series, rec)
    _units(nwb, rec)
    _sleep(rec, epoch)
    return rec


def _subject(subject: Any, rec: Recording) -> None:
    if subject is None:
        return
    rec.subject = str(subject.subject_id or "")
    species = str(subject.species or "").strip()
    rec.species = _SPECIES.get(species.lower(), species)
    for ours, theirs in (("sex", "sex"), ("genotype", "genotype"), ("strain", "strain"), ("age", "age"), ("weight", "weight")):
        value = getattr(subject, theirs, None)
        if value:
            rec.subject_meta[ours] = str(value)


# -- time series ----------------------------------------------------------------------------------------------------
def _series(nwb: Any) -> list[tuple[str, Any]]:
    """Every TimeSeries of acquisition and processing with a name that is unique in the session."""
    found: list[tuple[str, Any]] = []

    def walk(item: Any, prefix: str) -> None:
        kind = type(item).__name__
        if hasattr(item, "data") and hasattr(item, "timestamps"):
            found.append((prefix, item))
        elif kind in ("LFP", "FilteredEphys"):
            for s in item.electrical_series.values():
                walk(s, s.name if s.name not in ("ElectricalSeries",) else prefix)
        elif kind in ("Position", "CompassDirection"):
            for s in item.spatial_series.values():
                walk(s, s.name)
        elif hasattr(item, "time_series"):
            for s in item.time_series.values():
                walk(s, s.name)
        elif hasattr(item, "roi_response_series"):
            for s in item.roi_response_series.values():
                walk(s, f"{prefix}_{s.name}" if s.name.startswith("RoiResponse") else s.name)

    for item in nwb.acquisition.values():
        walk(item, item.name)
    for module in nwb.processing.values():
        for item in module.data_interfaces.values():
            walk(item, item.name)
    return found


def _add_series(path: Path, name: str, series: Any, rec: Recording) -> None:
    import h5py

    data = series.data
    if not isinstance(data, h5py.Dataset) or data.dtype.kind not in "fiub":
        if len(np.shape(data)) and type(series).__name__ == "AnnotationSeries":
            t = np.asarray(series.timestamps[:], dtype=np.float64)
            rec.labels[_free(rec.labels, name)] = EventTable(t, t, kind=[str(x) for x in data[:]])
        else:
            rec.warn(f"{name}: is a {type(series).__name__} without numbers in this file, left out")
        return
    if data.ndim > 2 or not data.shape[0]:
        rec.warn(f"{name}: is a {type(series).__name__} of shape {data.shape}, left out ({'empty' if not data.shape[0] else 'images are not read'})")
        return
    kind = _kind(name, series)
    if data.ndim == 1 and type(series).__name__ == "TimeSeries" and data.dtype.kind in "iub" and series.timestamps is not None:
        # Codes at times (TTL words, task events) are events, not a signal.
        t = np.asarray(series.timestamps[:], dtype=np.float64)
        rec.labels[_free(rec.labels, name)] = EventTable(t, t, kind=name, value=data[:])
        return
    factor, unit = unit_factor(str(series.unit or ""), kind=kind)
    values: Any = H5Rows(path, data.name)
    gain = float(series.conversion if series.conversion is not None else 1.0) * factor
    offset = float(getattr(series, "offset", 0.0) or 0.0) * factor
    channel_gain = getattr(series, "channel_conversion", None)
    scale: Any = gain * np.asarray(channel_gain[:], dtype=np.float64) if channel_gain is not None else gain
    if offset:
        values, scale = Calibrated(values, scale, offset), 1.0
    laid = {"values": values, "rate": float(series.rate), "start": float(series.starting_time or 0.0)} if series.rate else None
    if laid is None:
        laid = _by_timestamps(name, series, values, rec)
        if laid is None:
            return
    if kind == "position" and unit != "m":
        rec.warn(f"{name}: position is in {unit or 'an unknown unit'!r}, not metres")
    attrs = {"nwb_path": data.name, "description": str(series.description or "")[:200]}
    signal = Signal(**laid, unit=unit, kind=kind, channels=_channels(name, series, values.shape[1], kind), scale=scale, attrs=attrs)
    rec.signals[_free(rec.signals, name)] = signal


def _by_timestamps(name: str, series: Any, values: Any, rec: Recording) -> dict[str, Any] | None:
    t = np.asarray(series.timestamps[:], dtype=np.float64)
    if len(t) != values.shape[0]:
        raise FormatError(f"{rec.source['files'][0]}: {name} has {values.shape[0]} samples and {len(t)} timestamps, expected one a sample")
    if not np.isfinite(t).all():
        raise FormatError(f"{rec.source['files'][0]}: {name} has {int((~np.isfinite(t)).sum())} timestamps that are NaN or infinite")
    forward = np.r_[True, t[1:] > np.maximum.accumulate(t)[:-1]]
    if not forward.all():
        rec.warn(f"{name}: {int((~forward).sum())} of {len(t)} timestamps repeat or step back, those samples were left out")
        if values.shape[0] * values.shape[1] > 50_000_000:
            raise FormatError(f"{rec.source['files'][0]}: {name} is too large to mend its timestamps in memory: mend them in the file")
        return lay_out(np.asarray(values[:])[forward], t[forward])
    laid = lay_out(values, t)
    if "gaps" in laid:
        rec.warn(f"{name}: {len(laid['gaps'])} gaps of {laid['gaps'].duration:.3f} s in all are missing samples")
    return laid


def _kind(name: str, series: Any) -> str:
    """Kind of a series, from its type, then its name and place."""
    kind, text = type(series).__name__, name.lower()
    if kind == "ElectricalSeries":
        found = next((k for k in ("emg", "eog", "ecg", "eeg") if k in text), "lfp")
        return found
    if kind == "SpatialSeries":
        return "position" if "direction" not in text and "angle" not in text else "behaviour"
    if kind in ("RoiResponseSeries",):
        return "calcium"
    if "fiberphotometry" in kind.lower() or "photometry" in text:
        return "photometry"
    for k, words in (("emg", ("emg",)), ("eeg", ("eeg", "ecog")), ("lfp", ("lfp",)), ("position", ("position",)), ("speed", ("speed", "velocity"))):
        if any(w in text for w in words):
            return k
    parent = type(getattr(series, "parent", None)).__name__
    return "behaviour" if parent.startswith("Behavioral") or any(w in text for w in ("pupil", "wheel", "lick", "run")) else "other"


def _channels(name: str, series: Any, n: int, kind: str) -> Any:
    electrodes = getattr(series, "electrodes", None)
    if electrodes is not None and len(electrodes.data) == n:
        rows = electrodes.table.to_dataframe().iloc[np.asarray(electrodes.data[:], dtype=int)]
        frame = pd.DataFrame({"name": [f"{name}_{i}" for i in rows.index]})
        if "label" in rows and not rows["label"].duplicated().any():
            frame["name"] = rows["label"].astype(str).to_numpy()
        if "location" in rows:
            frame["region"] = [_known(v) for v in rows["location"]]
        if "group_name" in rows:
            frame["group"] = rows["group_name"].astype(str).to_numpy()
        for axis in ("x", "y", "z"):
            if axis in rows and np.isfinite(pd.to_numeric(rows[axis], errors="coerce")).any():
                frame[axis] = rows[axis].astype(float).to_numpy()
        if not frame["name"].duplicated().any():
            return frame
    if kind == "position" and n <= 3:
        return ["x", "y", "z"][:n]
    return [name] if n == 1 else [f"{name}_{i}" for i in range(n)]


def _known(value: Any) -> str:
    text = str(value).strip()
    return "" if text.lower() in ("nan", "none", "unknown", "n/a", "") else text


def _free(taken: dict[str, Any], name: str) -> str:
    name = re.sub(r"[^\w.+-]+", "_", name)
    if name not in taken:
        return name
    return next(f"{name}_{k}" for k in range(2, 1000) if f"{name}_{k}" not in taken)


# -- units ----------------------------------------------------------------------------------------------------------
def _units(nwb: Any, rec: Recording) -> None:
    units = nwb.units
    if units is None or not len(units) or "spike_times" not in units.colnames:
        return
    index = np.asarray(units["spike_times"].data[:], dtype=np.int64)
    times = np.asarray(units["spike_times"].target.data[:], dtype=np.float64)
    n = np.diff(np.r_[0, index])
    bad = ~np.isfinite(times)
    if bad.any():
        raise FormatError(f"{rec.source['files'][0]}: {int(bad.sum())} of {len(times)} spike times are NaN or infinite: drop them in the file")
    frame = _unit_table(units, nwb)
    frame.insert(0, "id", np.arange(len(n), dtype=np.int32))
    frame["nwb_id"] = np.asarray(units.id[:])
    frame["n_spikes"] = n
    unit = np.repeat(frame["id"].to_numpy(), n)
    if (n == 0).any():
        rec.warn(f"{int((n == 0).sum())} of {len(n)} units have no spikes and were left out")
        frame = frame[n > 0]
    rec.spikes = Spikes(times, unit, frame)


def _unit_table(units: Any, nwb: Any) -> pd.DataFrame:
    """One row a unit: region, quality, group, and every plain column of numbers or text."""
    out: dict[str, Any] = {}
    for name in units.colnames:
        column = units[name]
        if name in ("spike_times", "obs_intervals", "waveforms", "waveform_mean", "waveform_sd", "electrodes", "electrode_group") or hasattr(column, "target"):
            continue
        data = np.asarray(column.data[:])
        if data.ndim == 1 and (data.dtype.kind in "fiub" or all(isinstance(v, str | bytes) for v in data)):
            key = {"location": "region", "brain_area": "region", "brain_region": "region", "group": "unit_group"}.get(name, name)
            out[key] = [v.decode() if isinstance(v, bytes) else v for v in data.tolist()]
    frame = pd.DataFrame(out, index=range(len(units)))
    if "id" in frame:
        frame = frame.rename(columns={"id": "source_id"})
    if "region" not in frame:
        frame["region"] = _regions_by_electrode(units, nwb)
    frame["region"] = [_known(v) for v in frame["region"]]
    if "quality" in frame:
        frame["quality"] = frame["quality"].astype(str)
    if "electrode_group" in units.colnames:
        frame["group"] = [str(g.name) for g in units["electrode_group"].data[:]] if len(units) else []
    return frame


def _regions_by_electrode(units: Any, nwb: Any) -> list[str]:
    """Location of the first electrode of each unit."""
    blank = [""] * len(units)
    if "electrodes" not in units.colnames or nwb.electrodes is None or "location" not in nwb.electrodes.colnames:
        return blank
    column = units["electrodes"]
    locations = [str(v) for v in nwb.electrodes["location"].data[:]]
    if hasattr(column, "target"):
        stop = np.asarray(column.data[:], dtype=int)
        start, rows = np.r_[0, stop[:-1]], np.asarray(column.target.data[:], dtype=int)
        return [locations[rows[a]] if b > a else "" for a, b in zip(start, stop)]
    return [locations[int(v)] for v in np.asarray(column.data[:], dtype=int)]


# -- intervals ------------------------------------------------------------------------------------------------------
def _intervals(nwb: Any, rec: Recording) -> None:
    tables = dict(nwb.intervals or {})
    for module in nwb.processing.values():
        tables |= {k: v for k, v in module.data_interfaces.items() if type(v).__name__ == "TimeIntervals"}
    for name, table in tables.items():
        frame = pd.DataFrame({"start": np.asarray(table["start_time"].data[:], float), "stop": np.asarray(table["stop_time"].data[:], float)})
        for column in table.colnames:
            if column in ("start_time", "stop_time", "timeseries"):
                continue
            values = table[column][:]
            if len(values) == len(frame):
                key = {"start": "start_", "stop": "stop_", "peak": "peak_", "kind": "kind_", "content": "content_"}.get(column, column)
                frame[key] = [", ".join(map(str, v)) if isinstance(v, list | tuple | np.ndarray) else v.decode() if isinstance(v, bytes) else v for v in values]
        bad = ~np.isfinite(frame[["start", "stop"]]).all(axis=1) | (frame["stop"] < frame["start"])
        if bad.any():
            rec.warn(f"intervals {name}: {int(bad.sum())} of {len(frame)} rows have no start or stop, or stop before they start: left out")
            frame = frame[~bad]
        kind = {"epochs": "epoch", "trials": "trial"}.get(name, name)
        frame["kind"] = kind
        rec.labels[_free(rec.labels, name)] = EventTable.from_frame(frame.reset_index(drop=True), attrs={"nwb_table": name})


def _sleep(rec: Recording, epoch: float) -> None:
    """A table of sleep states becomes the hypnogram "scoring" on a grid of `epoch` s."""
    for name, table in list(rec.labels.items()):
        if not isinstance(table, EventTable) or not re.search(r"sleep|state|hypno|scoring|brain_state", name, re.IGNORECASE):
            continue
        column = next((c for c in _STAGE_COLUMNS if c in table.columns), None)
        if column is None or not len(table):
            continue
        start, stop, states = table.start, table.stop, [str(s) for s in getattr(table, column)]
        n = int(np.floor((stop.max() - start.min()) / epoch + 1e-6))
        middle = start.min() + (np.arange(n) + 0.5) * epoch
        names = np.full(n, "UNS", dtype=object)
        for a, b, s in zip(start, stop, states):
            names[(middle >= a) & (middle < b)] = s
        try:
            rec.labels["scoring"] = Hypnogram.from_stages(names, epoch, float(start.min()), scorer=name)
        except InputError as error:
            rec.warn(f"intervals {name}: states could not be read as a hypnogram ({error})")
            continue
        rec.warn(f"scoring: intervals {name} laid on a grid of {epoch:g} s (an epoch takes the state at its middle)")
        return
