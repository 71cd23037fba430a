"""Acquisition systems through Neo's raw readers: SpikeGLX, Open Ephys, Intan, Neuralynx, Blackrock, Plexon. A span is read when it is asked for."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable, Recording, Signal, Spikes
from brainmu.core.units import unit_factor
from brainmu.errors import FormatError
from brainmu.formats.lazy import Calibrated, Rows, Spread
from brainmu.formats.sources import need_file

__all__ = ["SYSTEMS", "detect", "read", "system_of"]


# Neo has no error of its own: its parsers raise whatever they meet in a damaged file.
_NEO_ERRORS = (ValueError, OSError, LookupError, TypeError, AttributeError, AssertionError, RuntimeError, ArithmeticError, struct.error, EOFError)


def _files(path: Path, *patterns: str) -> bool:
    return path.is_dir() and any(next(path.glob(p), None) is not None for p in patterns)


SYSTEMS: dict[str, tuple[str, Callable[[Path], bool]]] = {
    "SpikeGLX": ("SpikeGLXRawIO", lambda p: _files(p, "*.ap.meta", "*.lf.meta", "*.nidq.meta", "*/*.ap.meta", "*/*.lf.meta")),
    "Neuralynx": ("NeuralynxRawIO", lambda p: _files(p, "*.ncs", "*.Ncs")),
    "Blackrock": ("BlackrockRawIO", lambda p: p.is_file() and bool(re.fullmatch(r"\.(ns[1-6]|nev)", p.suffix.lower()))),
    "Plexon": ("PlexonRawIO", lambda p: p.is_file() and p.suffix.lower() == ".plx"),
}
"""Systems by name: the class in ``neo.rawio`` and what tells that a path is one."""

# Gaps shorter than a millisecond are the time stamps' own jitter; longer ones become missing samples.
_ARGUMENTS: dict[str, dict[str, Any]] = {"Plexon": {"progress_bar": False}, "Neuralynx": {"gap_tolerance_ms": 1.0}, "Blackrock": {"gap_tolerance_ms": 1.0}}


def system_of(path: Path) -> str | None:
    """Name of the acquisition system of a file or folder, or None."""
    return next((name for name, (_, test) in SYSTEMS.items() if test(path)), None)


def detect(path: Path) -> bool:
    """Whether Neo reads `path` as one of :data:`SYSTEMS`."""
    return system_of(path) is not None


def read(path: Path, *, wideband: bool = False, kinds: dict[str, str] | None = None) -> Recording:
    """Signals a stream, spikes and events of one recording.

    Parameters
    ----------
    wideband : bool
        Read the spike band (SpikeGLX .ap) although an LFP band lies beside it.
    kinds : mapping
        Kind of whole streams by name.

    Raises
    ------
    FormatError
        If Neo cannot read it, or it holds several blocks.
    """
    system = system_of(path)
    if path.is_file():
        need_file(path, f"a recording of {system}")
    if system is None:
        raise FormatError(f"{path}: none of {', '.join(SYSTEMS)} fits it: name the folder (or the .rhd, .nev, .plx file) of the recording")
    rec = Recording(id=re.sub(r"[^\w.+-]+", "_", path.resolve().stem if path.is_file() else path.resolve().name))
    rec.source = {"format": "neo", "system": system, "files": _all_files(path), "warnings": []}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        raw = _open(path, system)
        if raw.block_count() != 1:
            raise FormatError(f"{path}: holds {raw.block_count()} blocks (recordings), expected one: name the folder of one")
        _streams(path, system, raw, rec, wideband, kinds or {})
        _spikes(raw, rec)
        _events(raw, rec)
    for text in dict.fromkeys(" ".join(str(w.message).split()) for w in caught):
        rec.warn(f"Neo: {text[:200]}")
    if not rec.signals and rec.spikes is None:
        raise FormatError(f"{path}: Neo reads it as {system} and finds neither signals nor spikes")
    return rec


def _all_files(path: Path) -> list[str]:
    if path.is_file():
        # Blackrock and Intan keep a recording in several files of one name.
        return [str(p.resolve()) for p in sorted(path.parent.glob(path.stem + ".*"))]
    return [str(p.resolve()) for p in sorted(path.rglob("*")) if p.is_file() and not p.name.startswith(".")]


def _open(path: Path, system: str) -> Any:
    cls = getattr(importlib.import_module("neo.rawio"), SYSTEMS[system][0])
    arguments: dict[str, Any] = {"dirname" if cls.rawmode == "one-dir" or path.is_dir() else "filename": str(path)}
    arguments |= _ARGUMENTS.get(system, {})
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            raw = cls(**arguments)
            raw.parse_header()
    except _NEO_ERRORS as error:
        raise FormatError(f"{path}: Neo cannot read it as {system} ({type(error).__name__}: {' '.join(str(error).split())[:200]})") from None
    return raw


class _NeoRows(Rows):
    """Some channels of one stream and segment, opened anew in each process."""

    def __init__(self, path: Path, system: str, raw: Any, segment: int, stream: int, channels: list[int], dtype: Any) -> None:
        self.path, self.system, self.segment, self.stream, self.channels, self.dtype = path, system, segment, stream, channels, np.dtype(dtype)
        self.shape = (int(raw.get_signal_size(block_index=0, seg_index=segment, stream_index=stream)), len(channels))
        self._raw: Any = raw

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_raw": None}

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        if j <= i:
            return np.empty((0, self.shape[1]), dtype=self.dtype)
        if self._raw is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # said when the recording was opened first
                self._raw = _open(self.path, self.system)
        block = self._raw.get_analogsignal_chunk(
            block_index=0, seg_index=self.segment, i_start=i, i_stop=j, stream_index=self.stream, channel_indexes=self.channels
        )
        return np.asarray(block)


class _Joined(Rows):
    """Segments one after the other."""

    def __init__(self, parts: list[_NeoRows]) -> None:
        self.parts = parts
        self.stops = np.cumsum([p.shape[0] for p in parts])
        self.shape, self.dtype = (int(self.stops[-1]), parts[0].shape[1]), parts[0].dtype

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        out = [p[max(i - (stop - p.shape[0]), 0) : max(j - (stop - p.shape[0]), 0)] for p, stop in zip(self.parts, self.stops)]
        return np.concatenate(out)


def _streams(path: Path, system: str, raw: Any, rec: Recording, wideband: bool, kinds: dict[str, str]) -> None:
    streams, channels = raw.header["signal_streams"], raw.header["signal_channels"]
    names = [str(s["name"]) for s in streams]
    lf = {n.removesuffix(".lf") for n in names if n.endswith(".lf")}
    for k, stream in enumerate(streams):
        name = names[k]
        if not wideband and name.endswith(".ap") and name.removesuffix(".ap") in lf:
            rec.source["notes"] = f"{name} (spike band) lies beside its LFP band and was not read (pass wideband=True)"
            continue
        mine = channels[channels["stream_id"] == stream["id"]]
        groups: dict[tuple[str, str], list[int]] = {}
        for i, c in enumerate(mine):
            kind = kinds.get(name) or _kind(name, str(c["name"]), str(c["units"]))
            groups.setdefault((kind, str(c["units"])), []).append(i)
        for (kind, units), picks in groups.items():
            _add(path, system, raw, rec, k, mine, picks, kind, units, name)


def _kind(stream: str, channel: str, units: str) -> str:
    text = f"{stream} {channel}".lower()
    if re.search(r"sync|digital|\bdin\b|\bsy0", text):
        return "sync"
    if re.search(r"adc|aux|analog|nidq|supply|temperature|accel", text) or unit_factor(units)[1] != "uV":
        return "other"
    return "lfp"


def _add(path: Path, system: str, raw: Any, rec: Recording, k: int, mine: Any, picks: list[int], kind: str, units: str, stream: str) -> None:
    rate = float(mine["sampling_rate"][picks[0]])
    parts = [_NeoRows(path, system, raw, s, k, picks, mine["dtype"][picks[0]]) for s in range(raw.segment_count(0))]
    starts = [float(raw.get_signal_t_start(block_index=0, seg_index=s, stream_index=k)) for s in range(len(parts))]
    factor, unit = unit_factor(units, kind=kind)
    gain, offset = mine["gain"][picks] * factor, mine["offset"][picks] * factor
    values: Any = parts[0] if len(parts) == 1 else _Joined(parts)
    scale: Any = gain
    gaps: dict[str, Any] = {}
    first = np.rint((np.array(starts) - starts[0]) * rate).astype(np.int64)
    length = np.array([p.shape[0] for p in parts], dtype=np.int64)
    apart = len(parts) > 1 and (np.diff(first) != length[:-1]).any()
    if np.abs(offset).max() > 0 or apart:
        values, scale = Calibrated(values, gain, offset), 1.0
    if apart:
        if (np.diff(first) < length[:-1]).any():
            raise FormatError(f"{path}: the {len(parts)} segments of {stream} overlap in time (each may start at 0): read them one at a time")
        from brainmu.core import Intervals

        values = Spread(values, first, length)
        gaps["gaps"] = Intervals(np.c_[starts[0] + (first + length)[:-1] / rate, starts[0] + first[1:] / rate])
        rec.warn(f"{stream}: {len(parts) - 1} gaps of {gaps['gaps'].duration:.3f} s in all are missing samples")
    labels = [str(c) for c in mine["name"][picks]]
    if len(set(labels)) < len(labels):
        labels = [f"{n}_{i}" for n, i in zip(labels, mine["id"][picks])]
    name = "lfp" if kind == "lfp" and "lfp" not in rec.signals else re.sub(r"[^\w.+-]+", "_", stream).strip("_") or kind
    name = next(n for n in (name, f"{name}_{kind}", *(f"{name}_{i}" for i in range(2, 999))) if n not in rec.signals)
    table = pd.DataFrame({"name": labels, "source_id": [str(i) for i in mine["id"][picks]]})
    rec.signals[name] = Signal(values, rate=rate, start=starts[0], unit=unit, kind=kind, channels=table, scale=scale, attrs={"stream": stream}, **gaps)


def _spikes(raw: Any, rec: Recording) -> None:
    header = raw.header["spike_channels"]
    times, ids, rows = [], [], []
    for k, c in enumerate(header):
        t = [
            raw.rescale_spike_timestamp(raw.get_spike_timestamps(block_index=0, seg_index=s, spike_channel_index=k), dtype="float64")
            for s in range(raw.segment_count(0))
        ]
        joined = np.concatenate(t) if t else np.empty(0)
        if not len(joined):
            continue
        rows.append({"id": len(rows), "name": str(c["name"]), "source_id": str(c["id"]), "n_spikes": len(joined)})
        times.append(joined)
        ids.append(np.full(len(joined), rows[-1]["id"], dtype=np.int32))
    if rows:
        rec.spikes = Spikes(np.concatenate(times), np.concatenate(ids), pd.DataFrame(rows))
        rec.warn("spikes are as the acquisition system sorted them (online), not curated")


def _events(raw: Any, rec: Recording) -> None:
    for k, c in enumerate(raw.header["event_channels"]):
        start, stop, text = [], [], []
        for s in range(raw.segment_count(0)):
            t, duration, label = raw.get_event_timestamps(block_index=0, seg_index=s, event_channel_index=k)
            seconds = raw.rescale_event_timestamp(t, dtype="float64", event_channel_index=k)
            length = np.zeros(len(seconds)) if duration is None else raw.rescale_epoch_duration(duration, dtype="float64", event_channel_index=k)
            start.append(seconds)
            stop.append(seconds + np.nan_to_num(length))
            text += [str(x) for x in label]
        if text:
            name = re.sub(r"[^\w.+-]+", "_", str(c["name"])).strip("_") or f"events_{k}"
            rec.labels[name if name not in rec.labels else f"{name}_{k}"] = EventTable(np.concatenate(start), np.concatenate(stop), kind=text)
