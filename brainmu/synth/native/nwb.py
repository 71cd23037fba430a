"""NWB 2 as a lab's own pipeline writes it (pynwb alone): samples as the converter's integers, states as bouts."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainmu.core import EventTable, Hypnogram, Recording, Signal
from brainmu.core.recording import Label
from brainmu.errors import InputError
from brainmu.formats.nwb_own import ABOUT, EVENTS, GAPS, SPANS
from brainmu.formats.nwb_series import free_name
from brainmu.synth.native.blocks import VOLTAGES, microvolts, peaks, to_counts
from brainmu.synth.native.disk import Disk
from brainmu.synth.native.one_clock import on_session

__all__ = ["write"]

_SPECIES = {"mouse": "Mus musculus", "rat": "Rattus norvegicus", "human": "Homo sapiens"}
_BUFFER = 1 << 22
_UNIT_FIELDS = ("spike_times", "obs_intervals", "electrodes", "electrode_group", "waveforms", "waveform_mean", "waveform_sd")
_TABLE_FIELDS = ("id", "colnames", "columns", "start_time", "stop_time", "tags", "timeseries")
_UNKNOWN_START = datetime(1900, 1, 1, tzinfo=UTC)


def write(rec: Recording, path: Path, name: str) -> None:
    """Write the file `path`."""
    import h5py
    import pynwb

    if not (rec.signals or rec.spikes is not None or rec.labels):
        raise InputError(f"{rec.id}: has no signals, spikes or labels, there is nothing to write")
    labels = on_session(rec, "NWB", [k for k, s in rec.signals.items() if s.n_samples])
    nwb = pynwb.NWBFile(
        session_description="planted recording", identifier=rec.id, session_id=name, session_start_time=rec.started_at or _UNKNOWN_START,
        notes=ABOUT + json.dumps(_beside(rec), default=_plain),
    )  # fmt: skip
    sex = str(rec.subject_meta.get("sex", "U"))[:1].upper()
    known = {k: str(rec.subject_meta[k]) for k in ("age", "genotype", "strain", "weight") if rec.subject_meta.get(k)}
    nwb.subject = pynwb.file.Subject(
        subject_id=rec.subject or None, species=_SPECIES.get(rec.species, rec.species or None), sex=sex if sex in "MFO" else "U", **known
    )
    with Disk(path) as disk:
        _fill(_Writer(nwb, rec, disk), rec, labels)
        with h5py.File(disk, "w") as file, pynwb.NWBHDF5IO(file=file, mode="w") as io:
            io.write(container=nwb)


def _fill(writer: _Writer, rec: Recording, labels: dict[str, Label]) -> None:
    voltage = {k: s for k, s in rec.signals.items() if s.kind in VOLTAGES and s.n_samples}
    writer.electrodes(voltage)
    for k, s in rec.signals.items():
        if s.n_samples:
            (writer.electrical if k in voltage else writer.other)(k, s)
    writer.invalid_times(voltage)
    writer.units()
    writer.labels(labels)


def _beside(rec: Recording) -> dict[str, Any]:
    """What NWB has no field for."""
    signals: dict[str, dict[str, Any]] = {_clean(k): {"kind": s.kind, "channels": s.names} for k, s in rec.signals.items() if s.n_samples}
    for k, s in rec.signals.items():
        # Those of voltages are NWB's invalid times; a camera's are not, which would make sleep invalid.
        if s.n_samples and s.kind not in VOLTAGES:
            signals[_clean(k)]["gaps"] = s.gaps.bounds.tolist()
    epoch = next((v.epoch for v in rec.labels.values() if isinstance(v, Hypnogram) and len(v)), None)
    return {"zeitgeber": rec.zeitgeber, "subject_meta": rec.subject_meta, "epoch": epoch, "signals": signals}


class _Writer:
    """Fills the file."""

    def __init__(self, nwb: Any, rec: Recording, disk: Disk) -> None:
        self.nwb, self.rec, self.disk = nwb, rec, disk
        self.rows: dict[str, list[int]] = {}
        self.device = nwb.create_device(name="probe", description="made up")

    # -- voltages
    def electrodes(self, voltage: dict[str, Signal]) -> None:
        if not voltage:
            return
        self.nwb.add_electrode_column(name="label", description="name of the channel")
        groups: dict[str, Any] = {}
        # NWB's table has the places of all electrodes or of none.
        placed = any(set("xyz") & set(s.channels) for s in voltage.values())
        n = 0
        for k, s in voltage.items():
            for row in s.channels.itertuples():
                where = str(row.region) or "unknown"
                group = f"{k}_{getattr(row, 'group', 0)}"
                if group not in groups:
                    groups[group] = self.nwb.create_electrode_group(name=group, description=k, location=where, device=self.device)
                at = {a: float(getattr(row, a, np.nan)) for a in "xyz"} if placed else {}
                self.nwb.add_electrode(group=groups[group], location=str(row.region) or "unknown", label=str(row.name), **at)
                self.rows.setdefault(k, []).append(n)
                n += 1

    def electrical(self, name: str, s: Signal) -> None:
        import pynwb

        factor = np.float32(microvolts(s))
        top, missing = peaks(s)
        # One step of a converter that just holds the largest value; volts are what NWB wants. Whole numbers have no place for what is missing.
        step = 1.0 if missing else max(float(top.max(initial=0.0) * factor), 1e-3) / 32000
        if missing:
            self.rec.warn(f"NWB: {name} misses {missing} samples, so it is written as float32 (NaN); its gaps are in invalid_times")
        series = pynwb.ecephys.ElectricalSeries(
            name=_clean(name), data=self._streamed(s, "float32" if missing else "int16", lambda x: x * factor if missing else to_counts(x * factor, step)[0]),
            electrodes=self.nwb.create_electrode_table_region(region=self.rows[name], description=name), conversion=step * 1e-6, **_timing(s),
        )  # fmt: skip
        if s.kind == "lfp":
            # The container first: a region of a table must lie in the same file as the table.
            container = pynwb.ecephys.LFP(name=f"LFP_{_clean(name)}")
            self._module("ecephys", "processed").add(container)
            container.add_electrical_series(series)
        else:
            self.nwb.add_acquisition(series)

    def invalid_times(self, voltage: dict[str, Signal]) -> None:
        gaps = sorted((float(a), float(b), _clean(k)) for k, s in voltage.items() for a, b in s.gaps)
        if gaps:
            self.nwb.add_invalid_times_column(name="signal", description=GAPS)
        for a, b, name in gaps:
            self.nwb.add_invalid_time_interval(start_time=a, stop_time=b, signal=name)

    # -- everything else
    def other(self, name: str, s: Signal) -> None:
        import pynwb

        data = self._streamed(s, "float32", lambda x: x)
        if s.kind == "position":
            series = pynwb.behavior.SpatialSeries(
                name=_clean(name), data=data, reference_frame="corner of the room", unit={"m": "meters"}.get(s.unit, s.unit or "a.u."), **_timing(s)
            )
            self._module("behavior", "tracking").add(pynwb.behavior.Position(spatial_series=series, name=f"Position_{_clean(name)}"))
        elif s.kind == "calcium":
            container = pynwb.ophys.Fluorescence(name=f"Fluorescence_{_clean(name)}")
            self._module("ophys", "imaging").add(container)
            container.add_roi_response_series(
                pynwb.ophys.RoiResponseSeries(name=_clean(name), data=data, rois=self._rois(s), unit=s.unit or "a.u.", **_timing(s))
            )
        else:
            about = f"{s.kind}: {', '.join(s.names)}"
            self.nwb.add_acquisition(pynwb.TimeSeries(name=_clean(name), data=data, unit=s.unit or "a.u.", description=about, **_timing(s)))

    def _rois(self, s: Signal) -> Any:
        import pynwb

        channel = pynwb.ophys.OpticalChannel(name="green", description="green", emission_lambda=510.0)
        plane = self.nwb.create_imaging_plane(
            name="plane", optical_channel=channel, description="somata", device=self.device, excitation_lambda=920.0, indicator="GCaMP",
            location=str(s.channels["region"].iloc[0]) or "unknown", imaging_rate=s.rate,
        )  # fmt: skip
        segmentation = pynwb.ophys.ImageSegmentation(name="ImageSegmentation")
        self._module("ophys", "imaging").add(segmentation)
        table = segmentation.create_plane_segmentation(name="rois", description="cells", imaging_plane=plane)
        for k in range(s.n_channels):
            table.add_roi(pixel_mask=[(k % 512, k // 512, 1.0)])
        return table.create_roi_table_region(region=list(range(s.n_channels)), description="all cells")

    def _module(self, name: str, description: str) -> Any:
        return self.nwb.processing[name] if name in self.nwb.processing else self.nwb.create_processing_module(name=name, description=description)

    def _streamed(self, s: Signal, dtype: str, turn: Any) -> Any:
        from hdmf.backends.hdf5.h5_utils import H5DataIO
        from hdmf.data_utils import GenericDataChunkIterator

        check = self.disk.check

        class Samples(GenericDataChunkIterator):
            """Rows of the signal, turned into what is stored."""

            def _get_data(self, selection: tuple[slice, ...]) -> np.ndarray:
                check()
                rows = selection[0]
                return turn(s.read(rows.start, rows.stop))[:, selection[1]]

            def _get_maxshape(self) -> tuple[int, int]:
                return (s.n_samples, s.n_channels)

            def _get_dtype(self) -> np.dtype[Any]:
                return np.dtype(dtype)

        rows = max(1, min(s.n_samples, _BUFFER // s.n_channels))
        chunk = max(1, min(rows, (1 << 17) // s.n_channels))
        rows = min(s.n_samples, rows // chunk * chunk)
        return H5DataIO(Samples(buffer_shape=(rows, s.n_channels), chunk_shape=(chunk, s.n_channels)), compression="gzip", compression_opts=4)

    # -- spikes and labels
    def units(self) -> None:
        spikes = self.rec.spikes
        if spikes is None:
            return
        if not spikes.n_units:
            self.rec.warn("NWB: the spikes have no units and were left out")
            return
        frame = spikes.units.rename(columns={"region": "location", "type": "cell_type"})
        frame["location"] = [str(v) or "unknown" for v in frame["location"]]
        frame = _plain_columns(frame.drop(columns=[c for c in _UNIT_FIELDS if c in frame]))
        more = [c for c in frame.columns if c != "id"]
        for column in more:
            self.nwb.add_unit_column(name=column, description=column)
        for row in frame.to_dict("records"):
            self.nwb.add_unit(id=int(row["id"]), spike_times=spikes.of(int(row["id"])), **{c: row[c] for c in more})

    def labels(self, labels: dict[str, Label]) -> None:
        import pynwb

        taken: dict[str, None] = {"invalid_times": None}
        scorings = [k for k, v in labels.items() if isinstance(v, Hypnogram)]
        for name, label in labels.items():
            if not len(label):
                self.rec.warn(f"NWB: label {name!r} is empty and was left out")
                continue
            key = free_name(taken, "sleep_states" if scorings[:1] == [name] else f"{name}_states" if name in scorings else name)
            taken[key] = None
            note = "" if isinstance(label, Hypnogram) else f": {EVENTS if isinstance(label, EventTable) else SPANS}"
            table = pynwb.epoch.TimeIntervals(name=key, description=f"{name}{note}")
            if isinstance(label, Hypnogram):
                table.add_column(name="state", description="stage")
                for b in label.bouts().itertuples():
                    table.add_interval(start_time=float(b.start), stop_time=float(b.start + b.duration), state=str(b.stage))
            elif isinstance(label, EventTable):
                _rows(table, label)
            else:
                for a, b in label:
                    table.add_interval(start_time=float(a), stop_time=float(b))
            self.nwb.add_time_intervals(table)


def _rows(table: Any, label: EventTable) -> None:
    frame = _plain_columns(label.to_frame().rename(columns={c: f"{c}_" for c in _TABLE_FIELDS}))
    more = [c for c in frame.columns if c not in ("start", "stop")]
    for c in more:
        table.add_column(name=c, description=c)
    for row in frame.to_dict("records"):
        table.add_interval(start_time=float(row["start"]), stop_time=float(row["stop"]), **{c: row[c] for c in more})


def _plain_columns(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns that are all text or all numbers each, named by text."""
    texts = {c: ["" if v is None or v != v else str(v) for v in frame[c]] for c in frame.columns if frame[c].dtype.kind not in "fiub"}
    return frame.assign(**texts).rename(columns=str)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else str(value)


def _timing(s: Signal) -> dict[str, Any]:
    return {"timestamps": s.times} if s.rate is None else {"rate": float(s.rate), "starting_time": float(s.start)}


def _clean(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", name) or "_"
