"""Open Ephys recordings: the binary format (structure.oebin, any version) and the legacy one (.continuous, .events, .spikes).

Read here because Neo's reader (0.14) starts signals at their sample number and events at their synchronised time stamp, keeps the nominal rate of streams
whose time stamps say another, fills gaps with zeros, and reads no spikes of the binary format.

References
----------
Open Ephys GUI documentation, "Binary format" and "Open Ephys format".
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable, Recording, Signal, Spikes
from brainmu.core.units import unit_factor
from brainmu.errors import FormatError
from brainmu.formats.digital import pulses
from brainmu.formats.lazy import RawRows
from brainmu.formats.openephys_legacy import is_legacy, read_legacy
from brainmu.formats.sources import need_file
from brainmu.formats.stamps import Joined, place, runs

__all__ = ["detect", "members", "read"]

_DEPTH = ("", "*/", "*/*/", "*/*/*/")


def detect(path: Path) -> bool:
    """Whether `path` is a folder with a structure.oebin (up to three folders down) or with .continuous files."""
    return path.is_dir() and (is_legacy(path) or any(next(path.glob(f"{d}structure.oebin"), None) is not None for d in _DEPTH))


def members(folder: Path) -> list[Path]:
    """The experiments of a folder, where it holds several: each starts its clocks anew, so each is a recording."""
    found = sorted({p.parent.parent for p in _structures(folder)}, key=lambda p: _natural(str(p)))
    return found if len({p.name for p in found}) > 1 and len({p.parent for p in found}) == 1 else []


def _structures(folder: Path) -> list[Path]:
    return sorted((p for d in _DEPTH for p in folder.glob(f"{d}structure.oebin")), key=lambda p: _natural(str(p)))


def _natural(text: str) -> list[Any]:
    return [int(t) if t.isdigit() else t for t in re.split(r"(\d+)", text)]


def read(path: Path, *, wideband: bool = False, kinds: dict[str, str] | None = None) -> Recording:
    """Streams in µV, TTL lines as ``ttl_<line>`` events, messages, spikes by the clusters they were given online.

    Parameters
    ----------
    wideband : bool
        Read the spike band of a probe although its LFP band lies beside it.
    kinds : mapping
        Kind of whole streams by name.

    Raises
    ------
    FormatError
        If the folder holds several experiments, files are missing or of unequal length, or recordings overlap in time.
    """
    rec = Recording(id=re.sub(r"[^\w.+-]+", "_", path.resolve().name))
    rec.source = {"format": "openephys", "system": "Open Ephys binary", "files": [], "warnings": []}
    files = _structures(path)
    if not files:
        return read_legacy(path, rec, kinds or {})
    experiments = sorted({p.parent.parent.name for p in files}, key=_natural)
    if len(experiments) > 1:
        raise FormatError(f"{path}: holds {len(experiments)} experiments ({', '.join(experiments)}), each with clocks of its own: name the folder of one")
    nodes = sorted({_node(p) for p in files})
    streams: dict[str, _Stream] = {}
    events: list[tuple[str, dict[str, Any], Path]] = []
    spikes: list[tuple[str, dict[str, Any], Path]] = []
    for file in files:
        about = _structure(file, rec)
        prefix = f"{_node(file)}." if len(nodes) > 1 else ""
        for info in about.get("continuous") or []:
            name = prefix + str(info["folder_name"]).strip("/")
            piece = _piece(file.parent / "continuous" / str(info["folder_name"]), info, rec)
            if piece is not None:
                streams.setdefault(name, _Stream(name, info, [])).pieces.append(piece)
        events += [(prefix, info, file.parent / "events" / str(info["folder_name"])) for info in about.get("events") or []]
        spikes += [(prefix, i, file.parent / "spikes" / str(i.get("folder") or i.get("folder_name"))) for i in about.get("spikes") or []]
    clocks = _clocks(streams, rec)
    low = {_device(n) for n in streams if re.search(r"[-_. ]lfp?$", n.lower())}
    for name, stream in streams.items():
        if not wideband and re.search(r"[-_. ]ap$", name.lower()) and _device(name) in low:
            rec.source["notes"] = f"{name} (spike band) lies beside its LFP band and was not read (pass wideband=True)"
            continue
        _signals(stream, clocks[name], rec, kinds or {})
    _events(events, streams, clocks, rec)
    _spikes(spikes, streams, clocks, rec)
    if not rec.signals and not rec.labels and rec.spikes is None:
        raise FormatError(f"{path}: its structure.oebin names no stream whose folder is there: copy the whole recording")
    return rec


def _node(file: Path) -> str:
    # Record Node 101/experiment1/recording1/structure.oebin
    return file.parent.parent.parent.name


def _structure(file: Path, rec: Recording) -> dict[str, Any]:
    try:
        about = json.loads(need_file(file, "the structure.oebin of Open Ephys").read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{file}: not readable as JSON ({error}): it is truncated, copy it again") from None
    rec.source["files"].append(str(file.resolve()))
    if not isinstance(about, dict):
        raise FormatError(f"{file}: holds a {type(about).__name__}, expected an object with continuous, events and spikes")
    for stream in about.get("continuous") or []:
        channels = stream.get("channels") if isinstance(stream, dict) else None
        rate = stream.get("sample_rate") if isinstance(stream, dict) else None
        named = isinstance(channels, list) and channels and all(isinstance(c, dict) and "channel_name" in c for c in channels)
        gains = named and all(isinstance(c.get("bit_volts", 1.0), int | float) for c in channels or [])
        if not (gains and isinstance(rate, int | float) and rate > 0 and isinstance(stream.get("folder_name"), str)):
            raise FormatError(f"{file}: a continuous stream lacks its folder_name, sample_rate, or channels with channel_name and bit_volts: it is damaged")
    for key in ("events", "spikes"):
        for found in about.get(key) or []:
            if not isinstance(found, dict) or not isinstance(found.get("folder_name", found.get("folder")), str):
                raise FormatError(f"{file}: an entry of {key} lacks its folder_name: it is damaged")
            if not isinstance(found.get("sample_rate", 1.0), int | float):
                raise FormatError(f"{file}: sample_rate of {key} is {found['sample_rate']!r}, expected Hz")
    return about


# -- continuous -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Piece:
    """One recording of a stream: its samples, the stretches of its sample numbers, and the time stamps of its first and last sample (s; None without)."""

    values: RawRows
    stretches: NDArray[np.int64]
    span: tuple[float, float] | None


@dataclass
class _Stream:
    name: str
    info: dict[str, Any]
    pieces: list[_Piece]

    @property
    def rate(self) -> float:
        return float(self.info["sample_rate"])


def _device(stream: str) -> str:
    """AP and LFP bands of one probe share a clock."""
    return re.sub(r"[-_. ](ap|lfp?)$", "", stream, flags=re.IGNORECASE)


def _npy(path: Path, rec: Recording) -> NDArray[Any] | None:
    if not path.is_file():
        return None
    rec.source["files"].append(str(path.resolve()))
    try:
        return np.load(need_file(path, "a NumPy array of Open Ephys"), mmap_mode="r")
    except (ValueError, EOFError, OSError, SyntaxError, TokenError) as error:
        raise FormatError(f"{path}: not readable as .npy ({error}): it is truncated, copy it again") from None


def _piece(folder: Path, info: dict[str, Any], rec: Recording) -> _Piece | None:
    file = folder / "continuous.dat"
    if not file.is_file():
        rec.warn(f"{folder.name}: named by structure.oebin, its continuous.dat is not there: left out")
        return None
    n_channels = len(info["channels"])
    n, left = divmod(file.stat().st_size, 2 * n_channels)
    rec.source["files"].append(str(file.resolve()))
    if left:
        rec.warn(f"{folder.name}/continuous.dat: {left} bytes after its last whole sample of {n_channels} channels were not read")
    stamps, numbers = _npy(folder / "timestamps.npy", rec), _npy(folder / "sample_numbers.npy", rec)
    modern = numbers is not None
    counter = numbers if numbers is not None else stamps
    if not n:
        rec.warn(f"{folder.name}: holds no samples, left out")
        return None
    if counter is None or counter.dtype.kind not in "iu":
        rec.warn(f"{folder.name}: has no sample numbers: it is taken to start at 0 and to have no gaps")
        stretches = np.array([[0, n]], dtype=np.int64)
    else:
        if abs(len(counter) - n) > 0:
            rec.warn(f"{folder.name}: has {n} samples and {len(counter)} sample numbers, the shorter counts")
            n = min(n, len(counter))
        numbered = counter
        stretches = runs(lambda k: int(numbered[k]), n, 1, folder)
    span = None
    if modern and stamps is not None and len(stamps) >= n and stamps.dtype.kind == "f":
        a, b = float(stamps[0]), float(stamps[n - 1])
        # A stream that was never synchronised has -1 for a time.
        span = (a, b) if a >= 0 and (b > a or n == 1) and np.isfinite([a, b]).all() else None
    return _Piece(RawRows(file, "<i2", (n, n_channels)), stretches, span)


def _clocks(streams: dict[str, _Stream], rec: Recording) -> dict[str, str]:
    """The clock of each stream: "session" where time stamps are synchronised, or there is one device; else the device's own name."""
    devices = list(dict.fromkeys(_device(n) for n in streams))
    synced = {d: all(p.span is not None for n, s in streams.items() if _device(n) == d for p in s.pieces) for d in devices}
    main = next((d for d in devices if synced[d]), devices[0] if devices else "")
    clocks = {n: "session" if synced[_device(n)] or _device(n) == main else re.sub(r"[^\w.+-]+", "_", _device(n)) for n in streams}
    own = sorted({c for c in clocks.values() if c != "session"})
    if own:
        rec.warn(f"{', '.join(own)}: time stamps are not synchronised with those of {main}: each has a clock of its own, align them by a shared TTL line")
    return clocks


def _timing(stream: _Stream, rec: Recording, clock: str) -> tuple[float, float, NDArray[np.int64], NDArray[np.int64]]:
    """Rate and start of a stream on its clock, and where its stretches lie on the grid of samples."""
    first = np.concatenate([p.stretches[:, 0] for p in stream.pieces])
    length = np.concatenate([p.stretches[:, 1] for p in stream.pieces])
    spans = [p.span for p in stream.pieces]
    rate, start = stream.rate, float(first[0]) / stream.rate
    if clock == "session" and all(s is not None for s in spans):
        seconds = sum(s[1] - s[0] for s in spans if s is not None)
        counted = sum(int(p.stretches[-1].sum() - 1 - p.stretches[0, 0]) for p in stream.pieces)
        start = spans[0][0] if spans[0] is not None else start
        if seconds > 0 and counted > 0:
            ppm = (counted / seconds / rate - 1) * 1e6
            if abs(ppm) > 1000:
                raise FormatError(f"{rec.source['files'][0]}: {stream.name}: {counted} samples in {seconds:.3f} s of time stamps, said to be at {rate:g} Hz")
            # Rounding of the stamps of a short recording is no drift: one sample more or less.
            if abs(counted / rate - seconds) > 1.5 / rate:
                rec.warn(f"{stream.name}: its synchronised time stamps say {ppm:+.2f} ppm from {rate:g} Hz: its rate was corrected")
                rate = counted / seconds
        # Where a recording begins is told by its stamp; sample numbers may have run on another clock between.
        offset = np.concatenate([np.full(len(p.stretches), round((p.span[0] - start) * rate) - p.stretches[0, 0]) for p in stream.pieces if p.span is not None])
        first = first + offset
    else:
        first = first - first[0]
    if (first[1:] < (first + length)[:-1]).any():
        raise FormatError(f"{rec.source['files'][0]}: recordings of {stream.name} overlap in time (each may start at 0): name the folder of one recording")
    return rate, start, first, length


def _signals(stream: _Stream, clock: str, rec: Recording, kinds: dict[str, str]) -> None:
    info = stream.info["channels"]
    if any(p.values.shape[1] != len(info) for p in stream.pieces):
        raise FormatError(f"{rec.source['files'][0]}: recordings of {stream.name} have different channels: name the folder of one recording")
    rate, start, first, length = _timing(stream, rec, clock)
    values = stream.pieces[0].values if len(stream.pieces) == 1 else Joined([p.values for p in stream.pieces])
    laid = place(values, first, length, rate, start)
    if "gaps" in laid:
        rec.warn(f"{stream.name}: {len(laid['gaps'])} gaps of {laid['gaps'].duration:.3f} s in all are missing samples")
    groups: dict[tuple[str, str, str], list[int]] = {}
    for i, c in enumerate(info):
        part = _part(str(c["channel_name"]))
        if part == "sync":
            continue  # its edges are TTL events
        unit = str(c.get("units") or ("V" if part == "adc" else "uV"))
        kind = kinds.get(stream.name) or ("lfp" if part == "" and unit_factor(unit)[1] == "uV" else "other")
        groups.setdefault((part, kind, unit), []).append(i)
    for (part, kind, unit), picks in groups.items():
        factor, canonical = unit_factor(unit, kind=kind)
        names = [str(info[i]["channel_name"]) for i in picks]
        if len(set(names)) < len(names):
            names = [f"{n}_{i}" for n, i in zip(names, picks)]
        scale = np.array([float(info[i].get("bit_volts", 1.0)) for i in range(len(info))]) * factor
        whole = Signal(
            **laid, unit=canonical, kind=kind, channels=[f"_{i}" for i in range(len(info))], scale=scale, clock=clock, attrs={"stream": stream.name}
        )  # fmt: skip
        signal = whole if len(picks) == len(info) else whole.pick(np.array(picks))
        signal.channels["name"] = names
        base = "lfp" if kind == "lfp" and "lfp" not in rec.signals else re.sub(r"[^\w.+-]+", "_", f"{stream.name}_{part}" if part else stream.name).strip("_")
        rec.signals[next(n for n in (base, *(f"{base}_{i}" for i in range(2, 999))) if n not in rec.signals)] = signal


def _part(channel: str) -> str:
    found = re.match(r"(ADC|AUX)|.*(SYNC)", channel, re.IGNORECASE)
    return "" if found is None else (found.group(1) or found.group(2)).lower()


# -- events and spikes ----------------------------------------------------------------------------------------------
def _of_stream(prefix: str, info: dict[str, Any], folder: str, streams: dict[str, _Stream], rec: Recording) -> _Stream | None:
    """The stream that events or spikes were found in, by the first part of their folder."""
    name = prefix + folder.strip("/").split("/")[0]
    return streams.get(name) or next((s for n, s in streams.items() if n.split("/")[0] == name), None)


def _seconds(folder: Path, rate: float, unsynchronised: bool, rec: Recording) -> NDArray[np.float64] | None:
    stamps, numbers = _npy(folder / "timestamps.npy", rec), _npy(folder / "sample_numbers.npy", rec)
    if numbers is not None and (unsynchronised or stamps is None or (len(stamps) and float(np.min(stamps)) < 0)):
        return np.asarray(numbers, dtype=np.float64) / rate
    if stamps is None:
        return None
    return np.asarray(stamps, dtype=np.float64) if numbers is not None else np.asarray(stamps, dtype=np.float64) / rate


def _events(found: list[tuple[str, dict[str, Any], Path]], streams: dict[str, _Stream], clocks: dict[str, str], rec: Recording) -> None:
    lines: dict[tuple[str, str, int], list[tuple[NDArray[np.float64], NDArray[np.bool_]]]] = {}
    messages: list[tuple[NDArray[np.float64], list[str]]] = []
    for prefix, info, folder in found:
        stream = _of_stream(prefix, info, str(info["folder_name"]), streams, rec)
        rate = float(info.get("sample_rate") or (stream.rate if stream else 0.0) or 1.0)
        clock = clocks[stream.name] if stream else "session"
        t = _seconds(folder, rate, stream is not None and any(p.span is None for p in stream.pieces), rec)
        if t is None or not len(t):
            continue
        # states.npy holds +line for a rise and -line for a fall; older versions named it channel_states.npy.
        states = next((s for n in ("states", "channel_states") if (s := _npy(folder / f"{n}.npy", rec)) is not None), None)
        text = _npy(folder / "text.npy", rec)
        if states is not None:
            s = np.asarray(states).astype(np.int64)
            if len(s) != len(t):
                raise FormatError(f"{folder}: {len(s)} states at {len(t)} times, expected one each: a file is truncated")
            for line in np.unique(np.abs(s)):
                mine = np.abs(s) == line
                lines.setdefault((stream.name if stream else "", clock, int(line)), []).append((t[mine], s[mine] > 0))
        elif text is not None:
            messages.append((t, [x.decode("utf-8", "replace") if isinstance(x, bytes) else str(x) for x in np.asarray(text).ravel().tolist()]))
    several = len({device for device, _, _ in lines}) > 1
    stop = {c: max((s.stop for s in rec.signals.values() if s.clock == c), default=0.0) for c in {"session", *clocks.values()}}
    start = {c: min((s.start for s in rec.signals.values() if s.clock == c), default=0.0) for c in {"session", *clocks.values()}}
    for (device, clock, line), parts in sorted(lines.items()):
        name = re.sub(r"[^\w.+-]+", "_", f"ttl_{device}_{line}") if several else f"ttl_{line}"
        t, up = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
        rec.labels[name] = pulses(t, up, stop[clock], line=line, clock=clock, first=start[clock], device=device)
    if messages:
        t, words = np.concatenate([m[0] for m in messages]), [w for m in messages for w in m[1]]
        rec.labels["messages"] = EventTable(t, t, kind="message", content=words)


def _spikes(found: list[tuple[str, dict[str, Any], Path]], streams: dict[str, _Stream], clocks: dict[str, str], rec: Recording) -> None:
    times, ids, rows = [], [], []
    known: dict[tuple[str, int], int] = {}
    for prefix, info, folder in found:
        stream = _of_stream(prefix, info, str(info.get("folder") or info.get("folder_name")), streams, rec)
        if stream is not None and clocks[stream.name] != "session":
            rec.warn(f"spikes of {folder.name} are on the clock {clocks[stream.name]}, which is not the session's: left out")
            continue
        rate = float(info.get("sample_rate") or (stream.rate if stream else 0.0) or 30000.0)
        t = _seconds(folder, rate, stream is not None and any(p.span is None for p in stream.pieces), rec)
        clusters = _npy(folder / "clusters.npy", rec)
        if t is None or not len(t):
            continue
        c = np.zeros(len(t), dtype=np.int64) if clusters is None else np.asarray(clusters).astype(np.int64)
        if len(c) != len(t):
            raise FormatError(f"{folder}: {len(c)} clusters for {len(t)} spikes: a file is truncated")
        electrode = str(info.get("name") or folder.name)
        unit = np.empty(len(t), dtype=np.int32)
        for cluster in np.unique(c):
            key = (electrode, int(cluster))
            if key not in known:
                known[key] = len(rows)
                rows.append({"id": len(rows), "name": f"{electrode}#{cluster}", "group": electrode, "cluster": int(cluster),
                             "quality": "unsorted" if cluster == 0 else "online"})  # fmt: skip
            unit[c == cluster] = known[key]
        times.append(t)
        ids.append(unit)
    if rows:
        rec.spikes = Spikes(np.concatenate(times), np.concatenate(ids), pd.DataFrame(rows))
        rec.warn("spikes are as the acquisition system sorted them (online), not curated")
