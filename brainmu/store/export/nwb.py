"""A recording as an NWB 2 file: streamed, valid, and read again by ``brainmu.read`` as the recording it was."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainmu.core import EventTable, Hypnogram, Recording, Signal, Spikes
from brainmu.core.recording import Label
from brainmu.core.units import unit_factor
from brainmu.errors import InputError, NotFoundError, OutputExistsError
from brainmu.store.export.choosing import choose, plain, samples

__all__ = ["SCRATCH", "to_nwb"]

SCRATCH = "brainmu"
"""Name of the scratch entry that holds, as JSON, what NWB has no place for (epochs, kinds of channel, attributes)."""
_VOLTAGE = frozenset({"lfp", "eeg", "emg", "eog", "ecg"})
_SPECIES = {"mouse": "Mus musculus", "rat": "Rattus norvegicus", "human": "Homo sapiens"}
_CHUNK_VALUES, _BUFFER_VALUES = 1 << 18, 1 << 23
_BLOCK = 1 << 20


def to_nwb(
    recording: Recording, path: str | Path, *, signals: Iterable[str] | None = None, overwrite: bool = False, compression: str | None = "gzip",
    description: str | None = None,
) -> Path:  # fmt: skip
    """Write a recording as NWB 2 (HDF5) and return the path. Signals are streamed: memory stays flat whatever their length.

    Voltages become ElectricalSeries with an electrodes table (region as `location`), positions SpatialSeries, everything else TimeSeries;
    spikes the units table; labels TimeIntervals in ``/intervals`` (hypnograms an epoch a row with `state` and, where known, probabilities);
    gaps invalid times. Whole-number samples without a missing one stay whole numbers; others are float32 with NaN where missing.

    Parameters
    ----------
    path : path ending in .nwb
    signals : names or None
        Which signals (all).
    overwrite : bool
        Replace an existing file (kept until the new one is whole).
    compression : "gzip" or None
    description : str or None
        NWB's session description.

    Raises
    ------
    InputError
        If the path does not end in .nwb.
    OutputExistsError
        If it exists and `overwrite` is not set.
    NotFoundError
        If its folder does not exist.

    References
    ----------
    Rübel et al. (2022), The Neurodata Without Borders ecosystem for neurophysiological data science. eLife 11:e78362.
    """
    import pynwb

    p = Path(path)
    if p.suffix.lower() != ".nwb":
        raise InputError(f"{p}: ends in {p.suffix or 'nothing'!r}, expected .nwb")
    if p.exists() and not overwrite:
        raise OutputExistsError(f"{p}: exists already: choose another path, or pass overwrite=True")
    if not p.parent.is_dir():
        raise NotFoundError(f"{p}: its folder {p.parent} does not exist: make it first")
    chosen = choose(recording, signals)
    nwb = pynwb.NWBFile(
        session_description=description or f"Recording {recording.id}, written by brainmu", identifier=recording.id, session_id=recording.id,
        # NWB insists on a start. Nothing was recorded digitally in 1900, so readers (brainmu's among them) take it for unknown.
        session_start_time=recording.started_at or datetime(1900, 1, 1, tzinfo=UTC),
    )  # fmt: skip
    if recording.started_at is None:
        recording.warn("its start is not known, and NWB insists on one: session_start_time is 1900-01-01")
    _subject(nwb, recording)
    meta = _Writer(nwb, recording, compression).write(chosen)
    text = json.dumps(meta, default=lambda v: v.tolist() if hasattr(v, "tolist") else str(v))
    nwb.add_scratch(data=text, name=SCRATCH, description="What brainmu needs to read this file as the recording it was; JSON.")
    partial = p.with_name(f".{p.stem}.partial.nwb")  # pynwb warns about any other ending
    try:
        with pynwb.NWBHDF5IO(path=str(partial), mode="w") as io:
            io.write(container=nwb)
        partial.replace(p)
    finally:
        partial.unlink(missing_ok=True)
    return p


def _subject(nwb: Any, recording: Recording) -> None:
    import pynwb

    meta = recording.subject_meta
    if not (recording.subject or recording.species or meta):
        return
    known = {k: str(meta[k]) for k in ("genotype", "strain", "weight", "age") if meta.get(k)}
    sex = str(meta.get("sex") or "").strip()[:1].upper()
    rest = "; ".join(f"{k}: {v}" for k, v in meta.items() if k not in (*known, "sex") and v is not None)
    nwb.subject = pynwb.file.Subject(
        subject_id=recording.subject or None, species=_SPECIES.get(recording.species, recording.species) or None, sex=sex if sex in ("M", "F", "O") else "U",
        description=rest or None, **known,
    )  # fmt: skip


class _Writer:
    """Fills an NWBFile and collects what it has no place for."""

    def __init__(self, nwb: Any, recording: Recording, compression: str | None) -> None:
        self.nwb, self.recording, self.compression = nwb, recording, compression
        self.names: set[str] = {SCRATCH}
        self.groups: dict[str, Any] = {}
        self.electrodes = 0

    def write(self, signals: dict[str, Signal]) -> dict[str, Any]:
        rec = self.recording
        about = {"id": rec.id, "subject": rec.subject, "species": rec.species, "started_at": rec.started_at.isoformat() if rec.started_at else None}
        meta: dict[str, Any] = {
            "version": 1,
            **about,
            "zeitgeber": rec.zeitgeber,
            "clocks": rec.clocks,
            "subject_meta": rec.subject_meta,
            "signals": [],
            "labels": [],
        }
        self._electrodes(signals)
        for name, s in signals.items():
            if not s.n_samples:
                rec.warn(f"{name}: has no samples and was left out of the NWB file")
                continue
            meta["signals"].append({"name": name, **self._signal(name, s)})
        if rec.spikes is not None:
            meta["spikes"] = self._units(rec.spikes)
        for name, label in rec.labels.items():
            meta["labels"].append({"name": name, **self._label(name, label)})
        self._invalid_times(signals)
        return meta

    def _free(self, name: str) -> str:
        """The name NWB can hold, different from every other in the file."""
        clean = re.sub(r"[^\w.+-]+", "_", name) or "_"
        found = clean if clean not in self.names else next(f"{clean}_{k}" for k in range(2, 10**6) if f"{clean}_{k}" not in self.names)
        self.names.add(found)
        return found

    # -- signals ----------------------------------------------------------------------------------------------------
    def _electrodes(self, signals: dict[str, Signal]) -> None:
        """A row a voltage channel, in the order of the signals."""
        electrical = [(name, s) for name, s in signals.items() if _is_electrical(s) and s.n_samples]
        if not electrical:
            return
        device = self.nwb.create_device(name="device", description="not stated in the recording")
        axes = [a for a in ("x", "y", "z") if any(a in s.channels for _, s in electrical)]
        self.nwb.add_electrode_column(name="label", description="name of the channel, within its signal")
        for name, s in electrical:
            for row in s.channels.to_dict("records"):
                region = str(row["region"] or "unknown")
                if region not in self.groups:
                    group = re.sub(r"[/:]", "_", region)
                    self.groups[region] = self.nwb.create_electrode_group(name=group, description=f"channels of {region}", location=region, device=device)
                place = {a: float(row[a]) if row.get(a) is not None else float("nan") for a in axes}
                self.nwb.add_electrode(location=region, group=self.groups[region], label=f"{name}: {row['name']}", **place)

    def _signal(self, name: str, s: Signal) -> dict[str, Any]:
        import pynwb
        from pynwb.behavior import Position, SpatialSeries
        from pynwb.ecephys import ElectricalSeries

        key = self._free(name)
        data, kept = self._data(s)
        factor, unit = unit_factor(s.unit, kind=s.kind)
        scale: Any = np.asarray(s.scale, dtype=np.float64) if kept else np.asarray(1.0)
        grid: dict[str, Any] = {"rate": float(s.rate), "starting_time": float(s.start)} if s.rate is not None else {"timestamps": s.read_times()}
        common = {"name": key, "data": data, "description": f"{s.kind}, {s.n_channels} channels: {', '.join(s.names[:50])}", **grid}
        if _is_electrical(s):
            region = self.nwb.create_electrode_table_region(region=list(range(self.electrodes, self.electrodes + s.n_channels)), description=name)
            self.electrodes += s.n_channels
            gains = {"channel_conversion": np.broadcast_to(scale, (s.n_channels,)).copy()} if scale.ndim else {}
            whole = factor * 1e-6 * (1.0 if scale.ndim else float(scale))
            self.nwb.add_acquisition(ElectricalSeries(electrodes=region, conversion=whole, **gains, **common))
        else:
            common["conversion"] = factor * (1.0 if scale.ndim else float(scale))
            if s.kind == "position" and s.n_channels <= 3:
                module = self._module("behavior", "position and behaviour")
                if "Position" not in module.data_interfaces:
                    module.add(Position())
                series = SpatialSeries(unit="meters" if unit == "m" else unit or "unknown", reference_frame="not stated in the recording", **common)
                module["Position"].add_spatial_series(series)
            else:
                self.nwb.add_acquisition(pynwb.TimeSeries(unit=unit or "unknown", **common))
        return {
            "series": key, "rate": s.rate, "start": s.start, "unit": s.unit, "kind": s.kind, "clock": s.clock, "attrs": s.attrs,
            "scale": s.scale if kept else 1.0, "gaps": s.gaps.bounds, "channels": {str(c): s.channels[c].tolist() for c in s.channels.columns},
        }  # fmt: skip

    def _data(self, s: Signal) -> tuple[Any, bool]:
        """The samples as a streamed dataset, and whether they are the source's own whole numbers."""
        from hdmf.backends.hdf5 import H5DataIO

        vector = np.asarray(s.scale).ndim > 0
        kept = np.dtype(s.values.dtype).kind in "iu" and not _has_missing(s) and (not vector or _is_electrical(s))
        stream = _blocks(s, np.dtype(s.values.dtype) if kept else np.dtype(np.float32))
        options = {"compression": self.compression, "shuffle": True} if self.compression else {}
        return H5DataIO(data=stream, **options), kept

    def _module(self, name: str, description: str) -> Any:
        return self.nwb.processing[name] if name in self.nwb.processing else self.nwb.create_processing_module(name=name, description=description)

    # -- tables -----------------------------------------------------------------------------------------------------
    def _units(self, spikes: Spikes) -> dict[str, Any]:
        from pynwb.core import VectorData, VectorIndex
        from pynwb.misc import Units

        table = spikes.units
        order = np.argsort(spikes.unit_id, kind="stable")
        by_unit = dict(zip(*_runs(spikes.unit_id[order], order)))
        ids = table["id"].tolist()
        rows = [by_unit.get(i, np.empty(0, dtype=np.intp)) for i in ids]
        times = VectorData(name="spike_times", description="session time, s", data=spikes.times[np.concatenate(rows)] if rows else spikes.times)
        index = VectorIndex(name="spike_times_index", data=np.cumsum([len(r) for r in rows]), target=times)
        taken = {"id", "colnames", "spike_times", "obs_intervals", "electrodes", "electrode_group", "waveform_mean", "waveform_sd", "waveforms"}
        columns, names = _columns(table.drop(columns="id"), taken, {"region": "location"})
        self._doubt("units", table)
        if len(table):
            self.nwb.units = Units(name="units", description="sorted units", columns=[times, index, *columns], id=ids)
        return {"columns": names, "ids": ids}

    def _label(self, name: str, label: Label) -> dict[str, Any]:
        from pynwb.core import VectorData
        from pynwb.epoch import TimeIntervals

        if isinstance(label, Hypnogram):
            about: dict[str, Any] = {"type": "hypnogram", "stages": label.stages, "epoch": label.epoch, "start": label.start, "scorer": label.scorer}
            about |= {"proba": label.proba is not None, "attrs": label.attrs, "n": len(label)}
            text = f"sleep stages, epochs of {label.epoch:g} s, scored by {label.scorer or 'not stated'}"
            frame = label.to_frame().rename(columns={"stage": "state"}).drop(columns=["start", "duration"])
            start, stop = label.times, label.times + label.epoch
        elif isinstance(label, EventTable):
            about = {"type": "events", "attrs": label.attrs, "n": len(label)}
            # NWB wants rows in order of time; brainmu keeps the order they came in.
            order = np.lexsort((label.stop, label.start))
            if (np.diff(order) != 1).any():
                about["order"], label = np.argsort(order), label[order]
            text, frame = f"events {name}", label.to_frame().drop(columns=["start", "stop"])
            start, stop = label.start, label.stop
        else:
            about, text, frame = {"type": "intervals", "n": len(label)}, f"intervals {name}", pd.DataFrame(index=range(len(label)))
            start, stop = label.start, label.stop
        columns, about["columns"] = _columns(frame, {"id", "colnames", "start_time", "stop_time", "tags", "timeseries"}, {})
        self._doubt(f"label {name!r}", frame)
        if len(label):
            about["table"] = self._free(name)
            bounds = [VectorData(name="start_time", description="s", data=np.array(start)), VectorData(name="stop_time", description="s", data=np.array(stop))]
            table = TimeIntervals(name=about["table"], description=text, columns=[*bounds, *columns])
            if about["table"] in ("trials", "epochs"):
                setattr(self.nwb, about["table"], table)
            else:
                self.nwb.add_time_intervals(table)
        return about

    def _doubt(self, where: str, frame: pd.DataFrame) -> None:
        mixed = [str(c) for c in frame.columns if not plain(frame[c])]
        if mixed:
            self.recording.warn(f"{where}: {', '.join(mixed)} hold more than numbers or text; in NWB they are text")

    def _invalid_times(self, signals: dict[str, Signal]) -> None:
        gaps = [(a, b, name) for name, s in signals.items() for a, b in s.gaps if s.n_samples]
        if gaps:
            self.nwb.add_invalid_times_column(name="signal", description="the signal that has no samples here")
        for a, b, name in sorted(gaps):
            self.nwb.add_invalid_time_interval(start_time=a, stop_time=b, signal=name)


def _is_electrical(s: Signal) -> bool:
    return set(s.channels["kind"]) <= _VOLTAGE and unit_factor(s.unit, kind=s.kind)[1] == "uV"


def _has_missing(s: Signal) -> bool:
    if len(s.gaps):
        return True
    if s.missing is None:
        return False
    return any((np.asarray(s.values[i : i + _BLOCK]) == s.missing).any() for i in range(0, s.n_samples, _BLOCK))


def _runs(ids: Any, order: Any) -> tuple[list[int], list[Any]]:
    """Each id with the positions of its spikes."""
    edges = np.flatnonzero(np.r_[True, np.diff(ids) != 0]) if len(ids) else np.empty(0, dtype=np.intp)
    return [int(ids[e]) for e in edges], np.split(order, edges[1:]) if len(ids) else []


def _columns(frame: pd.DataFrame, taken: set[str], rename: dict[str, str]) -> tuple[list[Any], list[list[str]]]:
    """NWB columns of a table, and pairs of our name and theirs. What is neither number nor text becomes text."""
    from pynwb.core import VectorData

    columns, names = [], []
    for ours in map(str, frame.columns):
        theirs = re.sub(r"[/:]", "_", rename.get(ours, ours))
        while theirs in taken:
            theirs += "_"
        taken = taken | {theirs}
        values = frame[ours].to_numpy() if frame[ours].dtype.kind in "iufb" else [str(v) for v in frame[ours]]
        columns.append(VectorData(name=theirs, description=ours, data=values))
        names.append([ours, theirs])
    return columns, names


def _blocks(s: Signal, dtype: np.dtype[Any]) -> Any:
    """An hdmf iterator over the samples: a buffer of rows at a time, never the whole signal."""
    from hdmf.data_utils import GenericDataChunkIterator

    n, c = s.n_samples, s.n_channels
    width = min(c, 64)
    rows = max(1, min(n, _CHUNK_VALUES // width))

    class Blocks(GenericDataChunkIterator):
        def _get_data(self, selection: tuple[slice, ...]) -> Any:
            i, j, _ = selection[0].indices(n)
            block = samples(s, i, j) if dtype.kind == "f" else np.asarray(s.values[i:j])
            return block[:, selection[1]]

        def _get_maxshape(self) -> tuple[int, int]:
            return n, c

        def _get_dtype(self) -> np.dtype[Any]:
            return dtype

    return Blocks(chunk_shape=(rows, width), buffer_shape=(min(n, rows * max(1, _BUFFER_VALUES // (rows * c))), c))
