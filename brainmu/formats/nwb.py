"""NWB through pynwb: electrical series, position, units, intervals, sleep states and the subject. Samples stay in the file."""

from __future__ import annotations

import re
import warnings
from datetime import UTC
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainmu.core import EventTable, Hypnogram, Intervals, Recording, Spikes
from brainmu.errors import FormatError, InputError
from brainmu.formats.nwb_own import EVENTS, SPANS, add_about, add_gaps, is_gaps, noted
from brainmu.formats.nwb_series import add_series, all_series, free_name, known
from brainmu.formats.nwb_written import is_written, read_written
from brainmu.formats.sources import need_file

__all__ = ["detect", "read"]

_SPECIES = {"mus musculus": "mouse", "rattus norvegicus": "rat", "homo sapiens": "human", "house mouse": "mouse", "norway rat": "rat"}
_STAGE_NAMES = {"wake": "WAKE", "awake": "WAKE", "waking": "WAKE", "nrem": "NREM", "sws": "NREM", "rem": "REM", "n1": "N1", "n2": "N2", "n3": "N3"}
_STAGE_COLUMNS = ("state", "stage", "sleep_state", "sleep_stage", "label", "states")


def detect(path: Path) -> bool:
    """Whether `path` is an NWB file (HDF5), or a folder with NWB in zarr (which is refused by name)."""
    return (path.is_file() and path.suffix.lower() == ".nwb") or _is_zarr(path)


def _is_zarr(path: Path) -> bool:
    if not path.is_dir():
        return False
    for name in (".zattrs", "zarr.json"):
        if (path / name).is_file():
            with (path / name).open("rb") as f:
                return b'"NWBFile"' in f.read(65536)
    return False


def read(path: Path, *, epoch: float | None = None) -> Recording:
    """One session. `epoch` (s) is the grid on which sleep-state intervals become a hypnogram: 1 s, or as a planted recording notes it, unless given.

    Raises
    ------
    FormatError
        If the file is not NWB, or is damaged.
    """
    if path.is_dir():
        raise FormatError(f"{path}: is NWB in zarr, which is not read: export it to HDF5 (hdmf_zarr's NWBZarrIO, then pynwb.NWBHDF5IO.export)")
    need_file(path, "NWB")
    with path.open("rb") as f:
        if f.read(8) != b"\x89HDF\r\n\x1a\n":
            raise FormatError(f"{path}: is not HDF5, expected NWB 2 in HDF5: it is another format, or damaged")
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
    for text in dict.fromkeys(" ".join(str(w.message).split()) for w in caught if _concerns_data(w)):
        rec.warn(f"pynwb: {text[:200]}")
    return rec


def _concerns_data(w: warnings.WarningMessage) -> bool:
    """Whether a warning of pynwb or hdmf is about this recording, and not about how the file's schema, or pynwb's own interface, changed since."""
    if issubclass(w.category, DeprecationWarning | PendingDeprecationWarning | FutureWarning | ResourceWarning | ImportWarning):
        return False
    chatter = r"deprecat|namespace|cached spec|will be removed|recommended|no longer|future (release|version)|starting_frame|external_file|not compliant"
    return not re.search(chatter, str(w.message), re.IGNORECASE)


def _session(path: Path, nwb: Any, epoch: float | None) -> Recording:
    if is_written(nwb):
        return read_written(path, nwb, all_series(nwb))
    rec = Recording(id=re.sub(r"[^\w.+-]+", "_", path.stem))
    rec.source = {"format": "nwb", "files": [str(path.resolve())], "warnings": [], "identifier": str(nwb.identifier)}
    start = nwb.session_start_time
    if start is not None and start.year > 1900:
        rec.started_at = start if start.tzinfo is not None else start.replace(tzinfo=UTC)
    _subject(nwb.subject, rec)
    _about(nwb, rec)
    _intervals(nwb, rec)
    for name, series in all_series(nwb):
        add_series(path, name, series, rec)
    told = noted(str(nwb.notes or ""), rec)
    add_about(told, rec)
    if nwb.invalid_times is not None and is_gaps(nwb.invalid_times):
        add_gaps(nwb.invalid_times, rec)
    _units(nwb, rec)
    _sleep(rec, epoch or told.get("epoch") or 1.0)
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


def _about(nwb: Any, rec: Recording) -> None:
    """What is said of the session: the animal's group and the like in subject_meta, the rest in rec.source["about"]."""
    about: dict[str, Any] = {}
    for key in ("session_description", "session_id", "lab", "institution", "keywords", "virus", "surgery", "pharmacology", "stimulus_notes", "notes"):
        value = getattr(nwb, key, None)
        if value is not None and len(value):
            about[key] = _plain(value)
    for name, meta in (getattr(nwb, "lab_meta_data", None) or {}).items():
        fields = {k: _plain(v) for k, v in meta.fields.items() if isinstance(v, str | int | float | bool | tuple | list | np.generic | np.ndarray)}
        about[name] = fields
        for key in ("group", "cage", "batch", "day", "virus", "genotype", "lights_on"):
            if key in fields and key not in rec.subject_meta:
                rec.subject_meta[key] = fields[key]
    if "virus" in about and "virus" not in rec.subject_meta:
        rec.subject_meta["virus"] = about["virus"]
    if about:
        rec.source["about"] = about


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if hasattr(value, "shape") and len(value.shape):
        value = np.asarray(value[:])  # a dataset of the file
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(v) for v in np.asarray(value).ravel().tolist()]
    return value.item() if isinstance(value, np.generic) else value


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
    frame["region"] = [known(v) for v in frame["region"]]
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
        if is_gaps(table):
            continue
        note = str(table.description or "")
        renamed = {"start": "start_", "stop": "stop_"} | ({} if note.endswith(EVENTS) else {"peak": "peak_", "kind": "kind_", "content": "content_"})
        frame = pd.DataFrame({"start": np.asarray(table["start_time"].data[:], float), "stop": np.asarray(table["stop_time"].data[:], float)})
        for column in table.colnames:
            if column in ("start_time", "stop_time", "timeseries"):
                continue
            values = table[column][:]
            if len(values) == len(frame):
                key = renamed.get(column, column)
                frame[key] = [", ".join(map(str, v)) if isinstance(v, list | tuple | np.ndarray) else v.decode() if isinstance(v, bytes) else v for v in values]
        bad = ~np.isfinite(frame[["start", "stop"]]).all(axis=1) | (frame["stop"] < frame["start"])
        if bad.any():
            rec.warn(f"intervals {name}: {int(bad.sum())} of {len(frame)} rows have no start or stop, or stop before they start: left out")
            frame = frame[~bad]
        if note.endswith(SPANS):
            rec.labels[free_name(rec.labels, name)] = Intervals(frame[["start", "stop"]].to_numpy())
            continue
        if "kind" not in frame:
            frame["kind"] = {"epochs": "epoch", "trials": "trial"}.get(name, name)
        rec.labels[free_name(rec.labels, name)] = EventTable.from_frame(frame.reset_index(drop=True), attrs={"nwb_table": name})


def _sleep(rec: Recording, epoch: float) -> None:
    """A table of sleep states becomes the hypnogram "scoring" on a grid of `epoch` s."""
    apart = {n: s for n in rec.labels if (s := _STAGE_NAMES.get(re.sub(r"(_?(epochs|intervals|times|states?|sleep|bouts))+$", "", n.lower())))}
    if len(set(apart.values())) > 1 and all(isinstance(rec.labels[n], EventTable) for n in apart):
        # One table a stage.
        found = [(a, b, s) for n, s in apart.items() for a, b in zip(rec.labels[n].start, rec.labels[n].stop)]  # type: ignore[union-attr]
        if found:
            start, stop = np.array([f[0] for f in found]), np.array([f[1] for f in found])
            _on_grid(start, stop, [f[2] for f in found], epoch, " and ".join(apart), rec)
            return
    for name, table in list(rec.labels.items()):
        if not isinstance(table, EventTable) or not re.search(r"sleep|state|hypno|scoring|brain_state", name, re.IGNORECASE):
            continue
        column = next((c for c in _STAGE_COLUMNS if c in table.columns), None)
        if column is None or not len(table):
            continue
        if _on_grid(table.start, table.stop, [str(s) for s in getattr(table, column)], epoch, name, rec):
            return


def _on_grid(start: Any, stop: Any, states: list[str], epoch: float, name: str, rec: Recording) -> bool:
    """The states of spans laid on a grid of `epoch` s as the hypnogram "scoring"; False where they are no stages."""
    n = int(np.floor((stop.max() - start.min()) / epoch + 1e-6))
    middle = start.min() + (np.arange(n) + 0.5) * epoch
    names = np.full(n, "UNS", dtype=object)
    for a, b, s in zip(start, stop, states):
        names[(middle >= a) & (middle < b)] = s
    try:
        rec.labels["scoring"] = Hypnogram.from_stages(names, epoch, float(start.min()), scorer=name)
    except InputError as error:
        rec.warn(f"intervals {name}: states could not be read as a hypnogram ({error})")
        return False
    rec.warn(f"scoring: intervals {name} laid on a grid of {epoch:g} s (an epoch takes the state at its middle)")
    return True
