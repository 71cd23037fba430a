"""Acquisition systems through Neo's raw readers: SpikeGLX, Neuralynx, Blackrock, Plexon and the rest. A span is read when it is asked for."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainmu.core import Recording, Signal
from brainmu.core.units import unit_factor
from brainmu.errors import FormatError
from brainmu.formats.lazy import Calibrated
from brainmu.formats.neo_events import add_events, add_spikes, add_video, device_of, spikeglx_clocks, spikeglx_lines
from brainmu.formats.neo_systems import SYSTEMS, NeoRows, files_of, neo_errors, open_raw, quiet, system_of
from brainmu.formats.sources import need_file
from brainmu.formats.stamps import Joined, place

__all__ = ["detect", "read"]


def detect(path: Path) -> bool:
    """Whether Neo reads `path` as one of :data:`~brainmu.formats.neo_systems.SYSTEMS`."""
    return system_of(path) is not None


def read(path: Path, *, wideband: bool = False, kinds: dict[str, str] | None = None, ttl: bool | None = None) -> Recording:
    """Signals a stream, spikes and events of one recording.

    Parameters
    ----------
    wideband : bool
        Read the spike band (SpikeGLX .ap) although an LFP band lies beside it.
    kinds : mapping
        Kind of whole streams by name.
    ttl : bool
        Read the digital words of SpikeGLX for events: True always, False never, None where the file that holds them has at most 16 GiB.

    Raises
    ------
    FormatError
        If Neo cannot read it, or it holds several blocks.
    """
    system = system_of(path)
    if path.is_file():
        need_file(path, f"a recording of {system}")
    if system is None:
        raise FormatError(f"{path}: none of {', '.join(SYSTEMS)} fits it: name the folder (or the .nev, .plx, … file) of the recording")
    rec = Recording(id=re.sub(r"[^\w.+-]+", "_", path.resolve().stem if path.is_file() else path.resolve().name))
    rec.source = {"format": "neo", "system": system, "files": files_of(path), "warnings": []}
    with warnings.catch_warnings(record=True) as caught, quiet(), neo_errors(path, system):
        warnings.simplefilter("always")
        raw = open_raw(path, system)
        if raw.block_count() != 1:
            raise FormatError(f"{path}: holds {raw.block_count()} blocks (recordings), expected one: name the folder of one")
        names = [str(s["name"]) for s in raw.header["signal_streams"]]
        clocks = spikeglx_clocks(names, rec) if system == "SpikeGLX" else {}
        words = spikeglx_lines(path, raw, clocks, rec, ttl) if system == "SpikeGLX" else set()
        _streams(path, system, raw, rec, wideband, kinds or {}, clocks, words)
        add_spikes(system, raw, rec)
        if system != "SpikeGLX":
            add_events(system, raw, rec)
        if system == "Neuralynx":
            add_video(path, raw, rec)
    for text in dict.fromkeys(" ".join(str(w.message).split()) for w in caught if not issubclass(w.category, DeprecationWarning | ResourceWarning)):
        rec.warn(f"Neo: {text[:200]}")
    if not SYSTEMS[system].tested:
        rec.warn(f"{system} is read as Neo reads it; brainmu has no test on a valid file of it: check rates, units and kinds")
    if not rec.signals and rec.spikes is None and not rec.labels:
        raise FormatError(f"{path}: Neo reads it as {system} and finds neither signals, spikes nor events")
    return rec


def _streams(path: Path, system: str, raw: Any, rec: Recording, wideband: bool, kinds: dict[str, str], clocks: dict[str, str], words: set[str]) -> None:
    streams, channels = raw.header["signal_streams"], raw.header["signal_channels"]
    names = [str(s["name"]) for s in streams]
    lf = {n.removesuffix(".lf") for n in names if n.endswith(".lf")}
    for k, stream in enumerate(streams):
        name = names[k] or system
        if not wideband and re.search(r"\.ap(-SYNC)?$", name) and re.sub(r"\.ap(-SYNC)?$", "", name) in lf:
            if not name.endswith("-SYNC"):
                rec.source["notes"] = f"{name} (spike band) lies beside its LFP band and was not read (pass wideband=True)"
            continue
        mine = channels[channels["stream_id"] == stream["id"]]
        groups: dict[tuple[str, str], list[int]] = {}
        for i, c in enumerate(mine):
            if str(c["id"]) in words:
                continue  # its edges are events
            # Plexon's gains are in millivolts, which Neo does not say.
            units = "mV" if system == "Plexon" and not str(c["units"]) else str(c["units"])
            kind = kinds.get(name) or _kind(system, name, str(c["name"]), units)
            groups.setdefault((kind, units), []).append(i)
        for (kind, units), picks in groups.items():
            _add(path, system, raw, rec, k, mine, picks, kind, units, name, clocks.get(device_of(name), "session"))


def _kind(system: str, stream: str, channel: str, units: str) -> str:
    text = f"{stream} {channel}".lower()
    if re.search(r"sync|digital|\bdin\b|\bsy0|\bxd\d|\bdio|\bdin\d", text):
        return "sync"
    if unit_factor(units)[1] != "uV" or re.search(r"adc|aux|analog|nidq|supply|temperature|accel|\bai\d*\b|^ai-|\bainp|position|speed", text):
        return "other"
    if SYSTEMS[system].kind == "lfp":
        return next((k for k in ("emg", "eog", "ecg", "eeg") if k in text), "lfp")
    if SYSTEMS[system].kind == "eeg":
        from brainmu.formats.edf import channel_kind

        named = channel_kind(channel, units)
        return named if named != "other" else "eeg"
    return SYSTEMS[system].kind


def _add(path: Path, system: str, raw: Any, rec: Recording, k: int, mine: Any, picks: list[int], kind: str, units: str, stream: str, clock: str) -> None:
    rate = float(mine["sampling_rate"][picks[0]])
    parts = [NeoRows(path, system, raw, s, k, picks, mine["dtype"][picks[0]]) for s in range(raw.segment_count(0))]
    starts = [float(raw.get_signal_t_start(block_index=0, seg_index=s, stream_index=k)) for s in range(len(parts))]
    first = np.rint((np.array(starts) - starts[0]) * rate).astype(np.int64)
    length = np.array([p.shape[0] for p in parts], dtype=np.int64)
    values: Any = parts[0] if len(parts) == 1 else Joined(parts)
    start = starts[0]
    if system == "Plexon":
        first, length, start = _plexon_pieces(raw, int(mine["id"][picks[0]]), rate)
    elif system == "NeuroExplorer":
        first, length, start = _nex_pieces(raw, int(raw.header["signal_channels"]["id"][k]), rate)
    if (np.diff(first) < length[:-1]).any():
        raise FormatError(f"{path}: the {len(parts)} segments of {stream} overlap in time (each may start at 0): read them one at a time")
    factor, unit = unit_factor(units, kind=kind)
    gain, offset = mine["gain"][picks] * factor, mine["offset"][picks] * factor
    scale: Any = gain
    if np.abs(offset).max() > 0:
        values, scale = Calibrated(values, gain, offset), 1.0
    laid = place(values, first, length, rate, start)
    if "gaps" in laid:
        rec.warn(f"{stream}: {len(laid['gaps'])} gaps of {laid['gaps'].duration:.3f} s in all are missing samples")
    labels = [str(c) for c in mine["name"][picks]]
    if len(set(labels)) < len(labels):
        labels = [f"{n}_{i}" for n, i in zip(labels, mine["id"][picks])]
    name = "lfp" if kind == "lfp" and "lfp" not in rec.signals else re.sub(r"[^\w.+-]+", "_", stream).strip("_") or kind
    name = next(n for n in (name, f"{name}_{kind}", *(f"{name}_{i}" for i in range(2, 999))) if n not in rec.signals)
    table = pd.DataFrame({"name": labels, "source_id": [str(i) for i in mine["id"][picks]]})
    rec.signals[name] = Signal(**laid, unit=unit, kind=kind, channels=table, scale=scale, clock=clock, attrs={"stream": stream})


def _plexon_pieces(raw: Any, channel: int, rate: float) -> tuple[Any, Any, float]:
    """Where the fragments of a slow channel lie: Neo (0.14) puts them all one after the other from time 0."""
    blocks = raw._data_blocks[5][channel]
    ticks = float(raw._global_ssampling_rate)
    at = np.rint((blocks["timestamp"] - blocks["timestamp"][0]) / ticks * rate).astype(np.int64)
    length = (blocks["size"] // 2).astype(np.int64)
    # A fragment that begins within a sample of where the last one stopped goes on from it.
    expected = np.r_[0, (at + length)[:-1]]
    new = np.flatnonzero(np.r_[True, np.abs(at - expected)[1:] > 1])
    return at[new], np.add.reduceat(length, new), float(blocks["timestamp"][0]) / ticks


def _nex_pieces(raw: Any, entity: int, rate: float) -> tuple[Any, Any, float]:
    """Where the fragments of a continuous variable lie; Neo (0.14) puts them one after the other too."""
    about = raw._entity_headers[entity]
    n, offset, total = int(about["n"]), int(about["offset"]), int(about["NPointsWave"])
    seconds = raw._memmap[offset : offset + 4 * n].view("int32") / raw.global_header["freq"]
    index = raw._memmap[offset + 4 * n : offset + 8 * n].view("int32").astype(np.int64)
    at = np.rint((seconds - seconds[0]) * rate).astype(np.int64)
    return at, np.diff(np.r_[index, total]), float(seconds[0])
