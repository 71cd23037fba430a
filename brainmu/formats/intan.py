"""Intan RHD and RHS: one file, one file a signal type, one file a channel; pieces that a recording was cut into; digital lines and stimulation as events.

Read here rather than through Neo, whose reader (0.14) fails on valid files with temperature sensors (headers 1.1 to 1.5), refuses files with a gap,
and reads the digital words and the time stamps of a whole file at once.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable, Recording, Signal
from brainmu.core.units import unit_factor
from brainmu.errors import FormatError
from brainmu.formats.digital import edges_of_words, pulses
from brainmu.formats.intan_header import Channel, Header, block_dtype, read_header
from brainmu.formats.lazy import RawRows, Rows, Spread, Stacked
from brainmu.formats.sources import need_file
from brainmu.formats.stamps import Joined, runs, sample_times
from brainmu.formats.timing import Grid

__all__ = ["detect", "members", "read"]

_SUFFIXES = (".rhd", ".rhs")
# Volts (or degrees) a step and the step that is zero, by what a channel measures.
_STEPS = {"amplifier": (0.195e-6, 0), "auxiliary": (37.4e-6, 0), "supply": (74.8e-6, 0), "temperature": (0.01, 0), "dc": (19.23e-3, 512)}
_ANALOG = {0: (50.354e-6, 0), 1: (152.59e-6, 32768), 13: (312.5e-6, 32768)}
_PREFIX = {"amplifier": "amp", "auxiliary": "aux", "supply": "vdd", "dc": "dc", "stim": "stim"}
_SIGNED = ("amplifier", "temperature")
_CHUNK = 1 << 17  # samples that are read at a time for events
_WRAP = 1 << 32  # time stamps have 32 bits: at 30 kHz they start anew after 40 hours, signed ones turn negative after 20


def detect(path: Path) -> bool:
    """Whether `path` is an .rhd or .rhs file, a folder with info.rhd, or a folder of files that one recording was cut into."""
    if path.is_dir():
        from brainmu.formats.neurosuite import bases

        # A session that was brought into the Neurosuite layout keeps its info.rhd: its .xml knows more.
        return (_info(path) is not None or bool(_pieces(path))) and not bases(path)
    return path.is_file() and path.suffix.lower() in _SUFFIXES


def members(folder: Path) -> list[Path]:
    """The recordings of a folder of traditional files: none where they are pieces of one."""
    found = _pieces(folder) if _info(folder) is None else []
    return [] if len(found) < 2 or _continue(found) else found


def _info(folder: Path) -> Path | None:
    return next((p for s in _SUFFIXES if (p := folder / f"info{s}").is_file()), None)


def _pieces(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in _SUFFIXES and not p.name.startswith("."))


def _continue(files: list[Path]) -> bool:
    """Whether every file goes on where the one before it stops, with the same channels."""
    try:
        parts = [_Traditional(p) for p in files]
    except FormatError:
        return False
    alike = all((p.header.rate, p.header.channels) == (parts[0].header.rate, parts[0].header.channels) for p in parts)
    # Within a second: the software closes one file and opens the next while it samples.
    return alike and all(0 <= (b.start - a.stop) % _WRAP <= a.header.rate for a, b in pairwise(parts))


def read(path: Path) -> Recording:
    """Amplifier channels as "lfp" (µV), auxiliary, supply, temperature and analogue inputs, digital lines as ``ttl_<line>`` events, stimulation as "stim".

    Raises
    ------
    FormatError
        If a header is damaged, a file is shorter than a block, or times go backwards.
    """
    files = [path] if path.is_file() else _pieces(path)
    info = _info(path) if path.is_dir() else (path if path.stem.lower() == "info" else None)
    for file in [info] if info is not None else files:
        need_file(file, "an Intan recording")
    if info is not None:
        header = read_header(info)
        folder = info.parent.resolve()
        rec = _recording(folder.name, header, [str(p.resolve()) for p in sorted(folder.iterdir()) if p.is_file() and p.suffix.lower() in (*_SUFFIXES, ".dat")])
        streams, times = _folder_streams(info.parent, header, rec)
    else:
        parts = [_Traditional(p) for p in files]
        header = parts[0].header
        rec = _recording(path.stem if path.is_file() else path.resolve().name, header, [str(p.resolve()) for p in files])
        for p in parts:
            if p.left:
                rec.warn(f"{p.header.path.name}: {p.left} bytes after its last whole block were not read: the recording was cut off while it was written")
        streams = {k: (parts[0].view(k) if len(parts) == 1 else Joined([p.view(k) for p in parts])) for k in parts[0].kinds}
        times = np.concatenate([p.runs for p in parts])
        # A later file whose stamps have turned over goes on counting.
        times[:, 0] += _WRAP * np.cumsum(np.r_[False, np.diff(times[:, 0]) < -(_WRAP // 2)])
    grid = _grid(header, times, rec)
    for kind, values in streams.items():
        if kind in ("digital_in", "digital_out"):
            _ttl(header, kind, values, grid, rec)
        elif kind == "stim":
            _stim(header, values, grid, rec)
        else:
            _signal(header, kind, values, grid, rec)
    if header.notes:
        rec.source["notes"] = "; ".join(header.notes)
    return rec


def _recording(name: str, header: Header, files: list[str]) -> Recording:
    rec = Recording(id=re.sub(r"[^\w.+-]+", "_", name))
    rec.source = {"format": "intan", "system": f"Intan {header.family.upper()} {header.version[0]}.{header.version[1]}", "files": files, "warnings": []}
    when = re.search(r"_(\d{6})_(\d{6})$", name)
    if when:
        d, t = when.groups()
        rec.source["started_at_local"] = f"20{d[:2]}-{d[2:4]}-{d[4:]}T{t[:2]}:{t[2:4]}:{t[4:]}"
    return rec


# -- where samples lie ----------------------------------------------------------------------------------------------
class _Traditional:
    """One file of header and blocks; `runs` (k, 2) are the first time stamp and number of samples of each stretch without a gap."""

    def __init__(self, path: Path) -> None:
        self.header = read_header(need_file(path, "an Intan recording"))
        self.dtype = block_dtype(self.header)
        size = path.stat().st_size - self.header.size
        self.n_blocks, self.left = divmod(size, self.dtype.itemsize)
        if self.n_blocks < 1:
            what = f"{size} bytes of data after its header, a block of {self.header.block} samples has {self.dtype.itemsize}"
            raise FormatError(f"{path}: holds {what}: nothing was recorded, or the file is truncated")
        self.runs = runs(self._stamp, self.n_blocks, self.header.block, path, _WRAP)
        self.start, self.stop = int(self.runs[0, 0]), int(self.runs[-1].sum())

    @property
    def kinds(self) -> list[str]:
        return [str(k) for k in self.dtype.names or () if k != "time"]

    def _stamp(self, block: int) -> int:
        code = self.dtype["time"].base
        return int(np.fromfile(self.header.path, code, 1, offset=self.header.size + block * self.dtype.itemsize)[0])

    def view(self, kind: str) -> _Blocks:
        return _Blocks(self.header.path, self.header.size, self.dtype, self.n_blocks, kind)


class _Blocks(Rows):
    """One kind of channel of a traditional file, its samples gathered from the blocks; unsigned amplifier steps as int16."""

    def __init__(self, path: Path, offset: int, dtype: np.dtype[Any], n: int, kind: str) -> None:
        self.path, self.offset, self.blocks, self.n, self.kind = path, offset, dtype, n, kind
        channels, self.width = dtype[kind].shape
        self.flip = kind in ("amplifier",)
        self.shape, self.dtype = (n * self.width, channels), np.dtype(np.int16) if self.flip else dtype[kind].base

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        if j <= i:
            return np.empty((0, self.shape[1]), dtype=self.dtype)
        a, b = i // self.width, -(-j // self.width)
        # Whole blocks in one piece: a mapped file would fault once for each block of a narrow channel.
        whole = np.fromfile(self.path, self.blocks, b - a, offset=self.offset + a * self.blocks.itemsize)
        if len(whole) != b - a:
            raise FormatError(f"{self.path}: cannot be read any more, it ends within samples {i} to {j}: the file changed since it was opened")
        block = whole[self.kind].transpose(0, 2, 1).reshape(-1, self.shape[1])[i - a * self.width : j - a * self.width]
        # The converter counts from the middle of its range: turning the top bit round gives the signed step.
        return (block ^ np.uint16(0x8000)).view(np.int16) if self.flip else np.ascontiguousarray(block)


def _folder_streams(folder: Path, h: Header, rec: Recording) -> tuple[dict[str, Any], NDArray[np.int64]]:
    """Lazy values of each kind, and the runs of time.dat."""
    clock = RawRows(need_file(folder / "time.dat", "the time stamps of an Intan folder (int32)"), "<i4", ((folder / "time.dat").stat().st_size // 4, 1))
    if not clock.shape[0]:
        raise FormatError(f"{clock.path}: holds no time stamp: nothing was recorded")
    stretches = runs(lambda k: int(clock[k][0]), clock.shape[0], 1, clock.path, _WRAP)
    out: dict[str, Any] = {}
    kinds = {k: h.of(k) for k in ("amplifier", "auxiliary", "supply", "analog_in", "analog_out", "digital_in", "digital_out")}
    if h.family == "rhs":
        kinds |= {"dc": h.of("amplifier"), "stim": h.of("amplifier")}
    whole = {"amplifier": "amplifier", "auxiliary": "auxiliary", "supply": "supply", "analog_in": "analogin", "analog_out": "analogout",
             "digital_in": "digitalin", "digital_out": "digitalout", "dc": "dcamplifier", "stim": "stim"}  # fmt: skip
    for kind, channels in kinds.items():
        if not channels:
            continue
        code, file = "<i2" if kind in _SIGNED else "<u2", folder / f"{whole[kind]}.dat"
        if file.is_file():
            out[kind] = _columns(file, code, 1 if kind.startswith("digital") else len(channels))
            continue
        prefix = _PREFIX.get(kind, "board")
        found = [(c, p) for c in channels if (p := folder / f"{prefix}-{c.native}.dat").is_file()]
        if found:
            out[kind] = _PerChannel(Stacked(_even([_columns(p, code, 1) for _, p in found], found, rec)), [c for c, _ in found])
        if len(found) < len(channels) and (found or kind == "amplifier"):
            rec.warn(f"{len(channels) - len(found)} of {len(channels)} channels of kind {kind} have no file in the folder and were left out")
    if not out:
        raise FormatError(f"{folder}: holds info.{h.family} and no data file (amplifier.dat or amp-A-000.dat): copy the whole folder")
    return out, stretches


def _columns(path: Path, code: str, n: int) -> RawRows:
    samples, left = divmod(path.stat().st_size, 2 * n)
    if left:
        raise FormatError(f"{path}: {path.stat().st_size} bytes are not a multiple of {n} channels of 16 bits, as info names them: it is truncated")
    return RawRows(path, code, (samples, n))


def _even(parts: list[RawRows], found: list[tuple[Channel, Path]], rec: Recording) -> list[RawRows]:
    n = min(p.shape[0] for p in parts)
    for p, (c, _) in zip(parts, found):
        if p.shape[0] != n:
            rec.warn(f"{p.path.name}: {p.shape[0] - n} samples more than the shortest file of its kind were not read ({c.native})")
            p.shape = (n, 1)
    return parts


class _PerChannel(Rows):
    """One file a channel, and which channels have one."""

    def __init__(self, base: Stacked, channels: list[Channel]) -> None:
        self.base, self.channels, self.shape, self.dtype = base, channels, base.shape, base.dtype

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        return self.base.read_rows(i, j)


# -- to a recording -------------------------------------------------------------------------------------------------
def _grid(h: Header, stretches: NDArray[np.int64], rec: Recording) -> Grid:
    first, length = stretches[:, 0], stretches[:, 1]
    joined = np.flatnonzero(np.r_[True, first[1:] != (first + length)[:-1]])
    if (first[1:] < (first + length)[:-1]).any():
        raise FormatError(f"{rec.source['files'][0]}: its files overlap in time (each starts at {first[0]}): they are separate recordings, name one of them")
    grid = Grid(h.rate, float(first[0]) / h.rate, (first - first[0])[joined], np.add.reduceat(length, joined))
    if len(grid.first) > 1:
        rec.warn(f"{len(grid.gaps)} gaps of {grid.gaps.duration:.3f} s in all are missing samples")
    return grid


def _signal(h: Header, kind: str, values: Any, grid: Grid, rec: Recording) -> None:
    channels = getattr(values, "channels", None) or h.of("amplifier" if kind == "dc" else kind)
    names = [f"temperature_{i}" for i in range(h.n_temperatures)] if kind == "temperature" else [c.custom for c in channels]
    if len(set(names)) < len(names):
        names = [f"{c.custom} ({c.native})" for c in channels]
    table = pd.DataFrame({"name": names})
    if kind != "temperature":
        table["source_id"] = [c.native for c in channels]
    if kind == "amplifier":
        table["impedance"] = [c.impedance for c in channels]
    if kind in ("analog_in", "analog_out"):
        mode = 13 if h.family == "rhs" else h.board_mode
        if mode not in _ANALOG:
            rec.warn(f"{kind}: board mode {mode} is not one that Intan documents: its steps are read as those of a 16-bit converter of ±5 V")
        volts, zero = _ANALOG.get(mode, _ANALOG[1])
    else:
        volts, zero = _STEPS[kind]
    factor, unit = (1.0, "DegC") if kind == "temperature" else unit_factor("V")
    total = int(grid.length.sum())
    # Streams that are sampled more slowly have a whole fraction of the amplifiers' samples.
    slower = max(round(total / values.shape[0]), 1) if values.shape[0] else 1
    if values.shape[0] != -(-total // slower) and values.shape[0] != total // slower:
        if len(grid.first) > 1:
            raise FormatError(f"{rec.source['files'][0]}: {kind} has {values.shape[0]} samples and there are {total} time stamps with gaps: one is truncated")
        rec.warn(f"{kind}: has {values.shape[0]} samples where the time stamps say {total // slower}")
    laid, extra = _lay(values, grid, slower, zero)
    name = "lfp" if kind == "amplifier" else kind
    rec.signals[name] = Signal(
        laid, rate=grid.rate / slower, start=grid.start, unit=unit, kind="lfp" if kind == "amplifier" else "other", channels=table,
        scale=volts * factor, attrs={"stream": kind}, **extra,
    )  # fmt: skip


class _Shifted(Rows):
    """Unsigned steps counted from the one that is zero, as int32."""

    dtype = np.dtype(np.int32)

    def __init__(self, base: Any, zero: int) -> None:
        self.base, self.zero, self.shape = base, zero, (int(base.shape[0]), int(base.shape[1]))

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        return np.asarray(self.base[i:j]).astype(np.int32) - self.zero


def _lay(values: Any, grid: Grid, slower: int, zero: int) -> tuple[Any, dict[str, Any]]:
    laid = _Shifted(values, zero) if zero else values
    if len(grid.first) == 1:
        return laid, {}
    first, length = grid.first // slower, grid.length // slower
    return Spread(laid, first, length), {"gaps": grid.gaps}


def _times(grid: Grid, samples: NDArray[np.int64]) -> NDArray[np.float64]:
    return sample_times(samples, grid.first, grid.length, grid.rate, grid.start)


def _ttl(h: Header, kind: str, words: Any, grid: Grid, rec: Recording) -> None:
    stop = grid.start + float(grid.first[-1] + grid.length[-1]) / grid.rate
    own = getattr(words, "channels", None)
    if own is not None:
        # One file a channel holds 0 or 1.
        found = [(c, edges_of_words(_Column(words, k), {0: 0}, chunk=_CHUNK).get(0)) for k, c in enumerate(own)]
    else:
        # A shared word holds each line at its place on the board.
        edges = edges_of_words(words, {c.order: c.order for c in h.of(kind)}, chunk=_CHUNK)
        found = [(c, edges.get(c.order)) for c in h.of(kind)]
    for c, edge in found:
        if edge is None:
            continue
        digits = re.search(r"(\d+)$", c.native)
        line = int(digits.group(1)) if digits else c.order
        name = f"ttl_{line}" if kind == "digital_in" else f"ttl_out_{line}"
        rec.labels[name] = pulses(_times(grid, edge[0]), edge[1], stop, line=line, first=grid.start, channel=c.native, name=c.custom)


class _Column:
    def __init__(self, base: Any, k: int) -> None:
        self.base, self.k, self.shape = base, k, (base.shape[0],)

    def __getitem__(self, key: slice) -> NDArray[Any]:
        return np.asarray(self.base[key])[:, self.k]


def _stim(h: Header, words: Any, grid: Grid, rec: Recording, chunk: int = _CHUNK) -> None:
    """Stretches of equal, non-zero current on a channel, in the order of time: one row a phase of a pulse."""
    channels = getattr(words, "channels", None) or h.of("amplifier")
    rows: list[tuple[int, int, int, float]] = []
    n, last = words.shape[0], np.zeros(words.shape[1], dtype=np.int64)
    begun = np.zeros(words.shape[1], dtype=np.int64)
    for i in range(0, n + 1, chunk):
        raw = np.asarray(words[i : min(i + chunk, n)]).astype(np.int64)
        current = (raw & 0xFF) * np.where(raw & 0x100, -1, 1)
        if i + chunk > n:
            current = np.concatenate([current, np.zeros((1, current.shape[1]), dtype=np.int64)])
        moved, channel = np.nonzero(np.diff(current, axis=0, prepend=last[None]))
        for m, k in zip(moved.tolist(), channel.tolist()):
            before = current[m - 1, k] if m else last[k]
            if before:
                rows.append((int(begun[k]), i + m, k, float(before)))
            begun[k] = i + m
        last = current[-1]
    if not rows:
        return
    rows.sort()
    a, b, k, level = (np.array(v) for v in zip(*rows))
    start, last_sample = _times(grid, a), _times(grid, b - 1)
    where, current = [channels[i].custom for i in k], level * h.stim_step * 1e6
    rec.labels["stim"] = EventTable(start, last_sample + 1 / grid.rate, kind="stim", content=where, current=current, attrs={"current_unit": "uA"})
