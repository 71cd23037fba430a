"""The legacy Open Ephys format: one .continuous file a channel, all_channels.events, .spikes files; every file with a text header of 1,024 bytes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import Recording, Signal, Spikes
from brainmu.errors import FormatError
from brainmu.formats.digital import pulses
from brainmu.formats.lazy import Rows, Stacked
from brainmu.formats.sources import need_file
from brainmu.formats.stamps import Joined, place, runs

__all__ = ["is_legacy", "read_legacy"]

_HEAD = 1024
_RECORD = np.dtype([("time", "<i8"), ("n", "<u2"), ("recording", "<u2"), ("samples", ">i2", (1024,)), ("mark", "u1", (10,))])
_MARK = bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 255])
_EVENT = np.dtype([("time", "<i8"), ("position", "<i2"), ("type", "u1"), ("processor", "u1"), ("id", "u1"), ("channel", "u1"), ("recording", "<u2")])
_TTL = 3


def is_legacy(folder: Path) -> bool:
    """Whether a folder holds .continuous files."""
    return next(folder.glob("*.continuous"), None) is not None


def read_legacy(path: Path, rec: Recording, kinds: dict[str, str]) -> Recording:
    """Channels of each processor and kind as one signal, TTL lines as events, spikes."""
    rec.source["system"] = "Open Ephys legacy"
    groups: dict[tuple[str, str], dict[int, list[tuple[int, Path]]]] = {}
    for file in sorted(path.glob("*.continuous")):
        # 100_CH1.continuous, 100_RhythmData-A_CH1.continuous; _2 and so on for what was recorded after a stop.
        found = re.fullmatch(r"(\d+)(?:_(.+?))??_(CH|ADC|AUX)?(\d+)(?:_(\d+))?", file.stem)
        if found is None:
            rec.warn(f"{file.name}: its name is not PROCESSOR_CHn: left out")
            continue
        processor, _, kind, channel, part = found.groups()
        groups.setdefault((processor, kind or "CH"), {}).setdefault(int(part or 1), []).append((int(channel), file))
    if not groups:
        raise FormatError(f"{path}: none of its .continuous files is named PROCESSOR_CHn.continuous, as Open Ephys names them")
    several = len({processor for processor, _ in groups}) > 1
    for (processor, kind), parts in sorted(groups.items(), key=lambda g: (g[0][1] != "CH", g[0])):
        _signal(processor, kind, parts, several, rec, kinds)
    _events(path, rec)
    _spikes(path, rec)
    return rec


def _header(file: Path, rec: Recording) -> dict[str, str]:
    with need_file(file, "an Open Ephys file").open("rb") as f:
        head = f.read(_HEAD)
    text = head.decode("latin-1")
    if len(head) < _HEAD or "header." not in text:
        raise FormatError(f"{file}: has no header of {_HEAD} bytes with lines header.name = value: it is truncated, or not Open Ephys'")
    rec.source["files"].append(str(file.resolve()))
    return {k: v.strip().strip("'") for k, v in re.findall(r"header\.(\w+)\s*=\s*([^;]*);", text)}


def _number(file: Path, header: dict[str, str], key: str) -> float:
    try:
        return float(header[key])
    except (KeyError, ValueError):
        raise FormatError(f"{file}: header.{key} is {header.get(key)!r}, expected a number: the header is damaged") from None


class _Records(Rows):
    """The samples of a .continuous file."""

    dtype = np.dtype(np.int16)

    def __init__(self, path: Path, n: int) -> None:
        self.path, self.n, self.shape = path, n, (n * 1024, 1)

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        a, b = i // 1024, -(-j // 1024)
        raw = np.fromfile(self.path, _RECORD, max(b - a, 0), offset=_HEAD + a * _RECORD.itemsize)
        return raw["samples"].reshape(-1)[i - a * 1024 : j - a * 1024].astype(np.int16)[:, None]


def _open(file: Path, rec: Recording) -> tuple[dict[str, str], _Records, NDArray[np.int64]]:
    header = _header(file, rec)
    n, left = divmod(file.stat().st_size - _HEAD, _RECORD.itemsize)
    if n < 1:
        raise FormatError(f"{file}: holds no whole record of 1,024 samples: nothing was recorded, or it is truncated")
    if left:
        rec.warn(f"{file.name}: {left} bytes after its last whole record were not read")
    last = np.fromfile(file, _RECORD, 1, offset=_HEAD + (n - 1) * _RECORD.itemsize)[0]
    if bytes(last["mark"]) != _MARK or int(last["n"]) != 1024:
        raise FormatError(f"{file}: its last record does not end with the mark 0 1 … 8 255: it is damaged, or not Open Ephys'")

    def stamp(k: int) -> int:
        return int(np.fromfile(file, "<i8", 1, offset=_HEAD + k * _RECORD.itemsize)[0])

    return header, _Records(file, n), runs(stamp, n, 1024, file)


def _signal(processor: str, kind: str, parts: dict[int, list[tuple[int, Path]]], several: bool, rec: Recording, kinds: dict[str, str]) -> None:
    values, first, length, scale = [], [], [], np.empty(0)
    numbers = [c for c, _ in sorted(next(iter(parts.values())))]
    rate = 0.0
    for part in sorted(parts):
        opened = [_open(file, rec) for _, file in sorted(parts[part])]
        files = [file for _, file in sorted(parts[part])]
        if [c for c, _ in sorted(parts[part])] != numbers:
            raise FormatError(f"{files[0].parent}: part {part} of processor {processor} has other channels than part 1: copy the whole folder")
        short = min(o[1].shape[0] for o in opened)
        stretches = opened[0][2]
        for file, (_, rows, own) in zip(files, opened):
            if rows.shape[0] != short:
                rec.warn(f"{file.name}: {(rows.shape[0] - short) // 1024} records more than the shortest channel were not read")
                rows.shape, own = (short, 1), _cut(own, short)
            if not np.array_equal(own, _cut(stretches, short)):
                raise FormatError(f"{file}: its gaps lie elsewhere than those of {files[0].name}: the channels cannot be put side by side, name fewer files")
        stretches = _cut(stretches, short)
        rates = {_number(f, o[0], "sampleRate") for f, o in zip(files, opened)}
        if len(rates) > 1 or (rate and rates != {rate}):
            raise FormatError(f"{files[0].parent}: channels of processor {processor} have the rates {sorted(rates | {rate} - {0.0})}, expected one")
        rate = rates.pop()
        scale = np.array([_number(f, o[0], "bitVolts") for f, o in zip(files, opened)])
        values.append(Stacked([o[1] for o in opened]))
        first.append(stretches[:, 0])
        length.append(stretches[:, 1])
    at, n = np.concatenate(first), np.concatenate(length)
    start = float(at[0]) / rate
    if (at[1:] < (at + n)[:-1]).any():
        raise FormatError(f"{rec.source['files'][0]}: its parts overlap in time: they are recordings of their own, move them apart")
    laid = place(values[0] if len(values) == 1 else Joined(values), at - at[0], n, rate, start)
    if "gaps" in laid:
        rec.warn(f"processor {processor}, {kind}: {len(laid['gaps'])} gaps of {laid['gaps'].duration:.3f} s in all are missing samples")
    name = f"{processor}_{kind}" if several else kind
    measured = kinds.get(name) or ("lfp" if kind == "CH" else "other")
    # bitVolts is in µV for headstage channels and in V for the others.
    factor = 1.0 if kind == "CH" else 1e6
    rec.signals["lfp" if measured == "lfp" and "lfp" not in rec.signals else name] = Signal(
        **laid, unit="uV", kind=measured, channels=[f"{kind}{c}" for c in numbers], scale=scale * factor, attrs={"stream": name}
    )


def _cut(stretches: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """The stretches of the first `n` samples."""
    start = np.cumsum(stretches[:, 1]) - stretches[:, 1]
    out = stretches[start < n].copy()
    out[-1, 1] = n - start[len(out) - 1]
    return out


def _events(path: Path, rec: Recording) -> None:
    files = sorted(p for p in path.glob("*.events") if p.name != "messages.events")
    rows = []
    for file in files:
        header = _header(file, rec)
        if "sampleRate" not in header:
            continue
        raw = np.fromfile(file, _EVENT, offset=_HEAD)
        raw = raw[raw["type"] == _TTL]
        t = raw["time"] / _number(file, header, "sampleRate")
        rows.append(pd.DataFrame({"t": t, "up": raw["id"] == 1, "processor": raw["processor"], "line": raw["channel"]}))
    table = pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()
    if not len(table):
        return
    several = table["processor"].nunique() > 1
    start, stop = min(s.start for s in rec.signals.values()), max(s.stop for s in rec.signals.values())
    for (processor, line), mine in table.groupby(["processor", "line"]):
        name = f"ttl_{processor}_{line}" if several else f"ttl_{line}"
        rec.labels[name] = pulses(mine["t"], mine["up"], stop, line=int(line), first=start, device=str(processor))


def _spikes(path: Path, rec: Recording) -> None:
    times, ids, rows = [], [], []
    for file in sorted(path.glob("*.spikes")):
        header = _header(file, rec)
        with file.open("rb") as f:
            f.seek(_HEAD)
            head = f.read(23)
        if len(head) < 23:
            continue
        n_channels, n_samples = int.from_bytes(head[19:21], "little"), int.from_bytes(head[21:23], "little")
        layout = np.dtype([
            ("type", "u1"), ("time", "<i8"), ("software", "<i8"), ("source", "<u2"), ("n_channels", "<u2"), ("n_samples", "<u2"), ("sorted", "<u2"),
            ("electrode", "<u2"), ("channel", "<u2"), ("colour", "u1", (3,)), ("pca", "<f4", (2,)), ("rate", "<u2"), ("wave", "<u2", (n_channels, n_samples)),
            ("gain", "<f4", (n_channels,)), ("threshold", "<u2", (n_channels,)), ("recording", "<u2"),
        ])  # fmt: skip
        if not 0 < n_channels <= 64 or not 0 < n_samples <= 1024:
            raise FormatError(f"{file}: its first spike has {n_channels} channels of {n_samples} samples: it is damaged")
        n = (file.stat().st_size - _HEAD) // layout.itemsize
        raw = np.memmap(file, layout, "r", _HEAD, (n,))
        t, unit = np.asarray(raw["time"]) / _number(file, header, "sampleRate"), np.asarray(raw["sorted"])
        for cluster in np.unique(unit):
            quality = "unsorted" if cluster == 0 else "online"
            rows.append({"id": len(rows), "name": f"{file.stem}#{cluster}", "group": file.stem, "cluster": int(cluster), "quality": quality})
            times.append(t[unit == cluster])
            ids.append(np.full(int((unit == cluster).sum()), rows[-1]["id"], dtype=np.int32))
    if rows:
        rec.spikes = Spikes(np.concatenate(times), np.concatenate(ids), pd.DataFrame(rows))
        rec.warn("spikes are as the acquisition system sorted them (online), not curated")
