"""Digital words, events and spikes of the systems that Neo reads, as labels that can synchronise clocks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable, Recording, Signal, Spikes
from brainmu.formats.digital import edges_of_words, pulses
from brainmu.formats.neo_systems import NeoRows

__all__ = ["add_events", "add_spikes", "add_video", "device_of", "spikeglx_clocks", "spikeglx_lines"]

_SCAN_LIMIT = 16 << 30  # bytes of a file that are read for its digital word without being asked


# -- SpikeGLX -------------------------------------------------------------------------------------------------------
def device_of(stream: str) -> str:
    """The box that a SpikeGLX stream comes from: imec0 of imec0.ap and imec0.ap-SYNC."""
    return stream.split(".")[0].split("-")[0]


def spikeglx_clocks(names: list[str], rec: Recording) -> dict[str, str]:
    """The clock of each device: the first probe is the session's, every other device has its own."""
    devices = sorted({device_of(n) for n in names}, key=lambda d: (not d.startswith("imec"), d))
    clocks = {d: "session" if i == 0 else d for i, d in enumerate(devices)}
    if len(devices) > 1:
        rec.warn(f"{', '.join(devices[1:])}: each runs on a clock of its own and is not aligned with {devices[0]}: align by the sync line they share")
    return clocks


def spikeglx_lines(path: Path, raw: Any, clocks: dict[str, str], rec: Recording, ttl: bool | None) -> set[str]:
    """Edges of every digital word as ``ttl_<line>`` (``ttl_<device>_<line>`` of several devices). Returns the channels that were read."""
    streams, channels = raw.header["signal_streams"], raw.header["signal_channels"]
    words: dict[str, list[tuple[int, int, str]]] = {}
    for k, stream in enumerate(streams):
        mine = channels[channels["stream_id"] == stream["id"]]
        for i, c in enumerate(mine):
            if re.match(r"SY\d|XD\d|D[WG]?\d+$", str(c["name"])) or str(stream["name"]).endswith("-SYNC"):
                words.setdefault(device_of(str(stream["name"])), []).append((k, i, str(c["id"])))
    read: set[str] = set()
    for device, found in words.items():
        # The same word lies in the .ap and the .lf of a probe: the faster is exact, the slower is small.
        rates = {k: float(channels[channels["stream_id"] == streams["id"][k]]["sampling_rate"][0]) for k, _, _ in found}
        cost = {k: _bytes(path, str(streams["name"][k])) for k, _, _ in found}
        allowed = [k for k in rates if ttl or cost[k] <= _SCAN_LIMIT]
        if ttl is False:
            continue
        if not allowed:
            rec.warn(f"{device}: its digital word was not read for events, as that reads {min(cost.values()) / 2**30:.0f} GiB (pass ttl=True)")
            continue
        best = max(allowed, key=lambda k: rates[k])
        read |= {source for _, _, source in found}
        for place, (k, i, _) in enumerate(f for f in found if f[0] == best):
            _edges(path, raw, k, i, 16 * place, device, clocks, rec, len(words) > 1)
    return read


def _bytes(path: Path, stream: str) -> int:
    name = stream.removesuffix("-SYNC")
    return sum(p.stat().st_size for p in path.rglob(f"*{name}.bin"))


def _edges(path: Path, raw: Any, k: int, i: int, offset: int, device: str, clocks: dict[str, str], rec: Recording, several: bool) -> None:
    mine = raw.header["signal_channels"][raw.header["signal_channels"]["stream_id"] == raw.header["signal_streams"]["id"][k]]
    rate = float(mine["sampling_rate"][i])
    at: dict[int, list[NDArray[np.float64]]] = {}
    up: dict[int, list[NDArray[np.bool_]]] = {}
    first = stop = 0.0
    for s in range(raw.segment_count(0)):
        rows = NeoRows(path, "SpikeGLX", raw, s, k, [i], mine["dtype"][i])
        start = float(raw.get_signal_t_start(block_index=0, seg_index=s, stream_index=k))
        first, stop = (start if s == 0 else first), start + rows.shape[0] / rate
        for line, (samples, rising) in edges_of_words(rows, {b: offset + b for b in range(16)}).items():
            at.setdefault(line, []).append(start + samples / rate)
            up.setdefault(line, []).append(rising)
    for line in sorted(at):
        name = f"ttl_{device}_{line}" if several else f"ttl_{line}"
        t, rising = np.concatenate(at[line]), np.concatenate(up[line])
        rec.labels[name] = pulses(t, rising, stop, line=line, clock=clocks[device], first=first, device=device)


# -- spikes ---------------------------------------------------------------------------------------------------------
def add_spikes(system: str, raw: Any, rec: Recording) -> None:
    """Units as the system sorted them online; unit 0 of a channel is what it did not sort."""
    times, ids, rows = [], [], []
    seen: set[tuple[str, str]] = set()
    for k, c in enumerate(raw.header["spike_channels"]):
        tetrode = re.fullmatch(r"ch(.+)#(\d+)#(\d+)", str(c["name"])) if system == "Neuralynx" else None
        if tetrode is not None:
            # Neo lists the units of a tetrode once for each of its four wires.
            key = (tetrode.group(1), tetrode.group(3))
            if key in seen:
                continue
            seen.add(key)
        t = [
            raw.rescale_spike_timestamp(raw.get_spike_timestamps(block_index=0, seg_index=s, spike_channel_index=k), dtype="float64")
            for s in range(raw.segment_count(0))
        ]
        joined = np.concatenate(t) if t else np.empty(0)
        if not len(joined):
            continue
        source, name = str(c["id"]), str(c["name"])
        number = re.search(r"#(\d+)$", source) or re.search(r"#(\d+)$", name)
        quality = "unsorted" if number is not None and number.group(1) == "0" else "online"
        rows.append({"id": len(rows), "name": name, "source_id": source, "quality": quality, "n_spikes": len(joined)})
        times.append(joined)
        ids.append(np.full(len(joined), rows[-1]["id"], dtype=np.int32))
    if rows:
        rec.spikes = Spikes(np.concatenate(times), np.concatenate(ids), pd.DataFrame(rows))
        rec.warn("spikes are as the acquisition system sorted them (online), not curated")


# -- events ---------------------------------------------------------------------------------------------------------
def add_events(system: str, raw: Any, rec: Recording) -> None:
    """Event channels as tables; the words of digital ports as ``ttl_<line>`` pulses."""
    found = {str(c["name"]): _event_channel(raw, k) for k, c in enumerate(raw.header["event_channels"])}
    if system == "Neuralynx":
        found = _neuralynx(found, rec)
    elif system == "Blackrock":
        for name in ("digital_input_port", "serial_input_port"):
            if name in found and len(found[name][0]):
                t, _, text = found[name]
                if name == "digital_input_port":
                    _words(t, np.array(text, dtype=np.int64), "ttl", rec)
                    found[name] = (np.empty(0), np.empty(0), [])
    for name, (start, stop, text) in found.items():
        if len(start):
            key = re.sub(r"[^\w.+-]+", "_", name).strip("_") or "events"
            key = next(n for n in (key, *(f"{key}_{i}" for i in range(2, 999))) if n not in rec.labels)
            rec.labels[key] = EventTable(start, stop, kind=[x or name for x in text], attrs={"channel": name, "clock": "session"})


def _event_channel(raw: Any, k: int) -> tuple[NDArray[np.float64], NDArray[np.float64], list[str]]:
    start, stop, text = [np.empty(0)], [np.empty(0)], []
    for s in range(raw.segment_count(0)):
        t, duration, label = raw.get_event_timestamps(block_index=0, seg_index=s, event_channel_index=k)
        if not len(t):
            continue
        seconds = raw.rescale_event_timestamp(t, dtype="float64", event_channel_index=k)
        length = np.zeros(len(seconds)) if duration is None else raw.rescale_epoch_duration(duration, dtype="float64", event_channel_index=k)
        start.append(seconds)
        stop.append(seconds + np.maximum(np.nan_to_num(length), 0.0))
        text += [x.decode("latin-1") if isinstance(x, bytes) else str(x) for x in label]
    return np.concatenate(start), np.concatenate(stop), text


def _words(t: NDArray[np.float64], words: NDArray[np.int64], prefix: str, rec: Recording) -> None:
    """The word that a port showed from each time on."""
    order = np.argsort(t, kind="stable")
    ends = [s.stop for s in rec.signals.values()]
    for line, (at, up) in edges_of_words(words[order], {b: b for b in range(32)}).items():
        rec.labels[f"{prefix}_{line}"] = pulses(t[order][at], up, max([*ends, float(t.max())]), line=line)


def _neuralynx(found: dict[str, Any], rec: Recording) -> dict[str, Any]:
    """Neo splits the event file by event and word: put it together again, the ports to lines and the rest to one table."""
    ports: dict[str, list[tuple[float, int]]] = {}
    rest: list[tuple[float, str]] = []
    for name, (start, _, text) in found.items():
        ttl = re.search(r"ttl=(-?\d+)", name)
        for t, label in zip(start.tolist(), text):
            port = re.search(r"port (\d+) value \(0x([0-9A-Fa-f]+)\)", label)
            if port:
                ports.setdefault(port.group(1), []).append((t, int(port.group(2), 16)))
            elif ttl is not None and "TTL" in label:
                ports.setdefault("0", []).append((t, int(ttl.group(1)) & 0xFFFF))
            else:
                rest.append((t, label))
    for port, rows in ports.items():
        rows.sort(key=lambda r: r[0])
        t, words = np.array([r[0] for r in rows]), np.array([r[1] for r in rows], dtype=np.int64)
        _words(t, words, "ttl" if len(ports) == 1 else f"ttl_{port}", rec)
    if not rest:
        return {}
    rest.sort(key=lambda r: r[0])
    t = np.array([r[0] for r in rest])
    return {"events": (t, t, [r[1] for r in rest])}


# -- Neuralynx video ------------------------------------------------------------------------------------------------
_NVT = np.dtype([
    ("stx", "<u2"), ("id", "<u2"), ("size", "<u2"), ("time", "<u8"), ("points", "<u4", (400,)), ("crc", "<i2"), ("x", "<i4"), ("y", "<i4"), ("angle", "<i4"),
    ("targets", "<i4", (50,)),
])  # fmt: skip


def add_video(path: Path, raw: Any, rec: Recording) -> None:
    """Positions of Neuralynx .nvt files in pixels; (0, 0) is an animal that was not seen."""
    from brainmu.formats.timing import lay_out

    for file in sorted(p for p in path.iterdir() if p.suffix.lower() == ".nvt"):
        n = (file.stat().st_size - 16384) // _NVT.itemsize
        if n < 1:
            continue
        rows = np.memmap(file, _NVT, "r", 16384, (n,))
        t = np.asarray(rows["time"], dtype=np.float64) / 1e6 - float(raw.global_t_start)
        xy = np.c_[rows["x"], rows["y"]].astype(np.float32)
        forward = np.r_[True, t[1:] > np.maximum.accumulate(t)[:-1]]
        if not forward.all():
            rec.warn(f"{file.name}: {int((~forward).sum())} frames repeat a time or step back and were left out")
            t, xy = t[forward], xy[forward]
        xy[(xy == 0).all(axis=1)] = np.nan
        name = next(k for k in ("position", *(f"position_{i}" for i in range(2, 99))) if k not in rec.signals)
        rec.signals[name] = Signal(**lay_out(xy, t), unit="px", kind="position", channels=["x", "y"], attrs={"stream": file.name})
        rec.warn(f"{file.name}: position is in pixels, not metres")
