"""EDF, EDF+ and BDF: every channel at its own rate, in its own unit, read a span of records at a time.

Read here rather than through MNE because MNE brings all channels to the highest rate, and to volts by a fixed list of unit spellings.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Recording, Signal
from brainmu.core.units import unit_factor
from brainmu.errors import FormatError
from brainmu.formats.annotations import add_annotations
from brainmu.formats.lazy import Calibrated, Rows, Spread
from brainmu.formats.sources import need_file
from brainmu.formats.timing import Grid

__all__ = ["Header", "channel_kind", "companion", "detect", "read"]


@dataclass(frozen=True)
class _Channel:
    label: str
    transducer: str
    unit: str
    physical: tuple[float, float]
    digital: tuple[int, int]
    prefilter: str
    samples: int
    offset: int  # of its first sample within a record, in samples

    @property
    def annotations(self) -> bool:
        return self.label in ("EDF Annotations", "BDF Annotations")


@dataclass(frozen=True)
class Header:
    """What the header of an EDF or BDF file says."""

    path: Path
    bdf: bool
    plus: str  # "", "C" (continuous) or "D" (with gaps)
    patient: str
    recording: str
    started_at: datetime | None
    header_bytes: int
    n_records: int
    record: float
    channels: tuple[_Channel, ...]

    @property
    def width(self) -> int:
        """Bytes a sample."""
        return 3 if self.bdf else 2

    @property
    def record_bytes(self) -> int:
        return sum(c.samples for c in self.channels) * self.width


def detect(path: Path) -> bool:
    """Whether `path` is an EDF or BDF file."""
    if not path.is_file() or path.suffix.lower() not in (".edf", ".bdf", ".rec"):
        return False
    if path.suffix.lower() != ".rec":
        return True
    with path.open("rb") as f:
        return not f.read(16).lstrip().startswith(b"<")  # SpikeGadgets' .rec begins with XML


def companion(path: Path) -> Path | None:
    """The hypnogram file beside a Sleep-EDF night (SC4001E0-PSG.edf and SC4001EC-Hypnogram.edf), if there is exactly one."""
    night = re.fullmatch(r"(.+).-PSG\.edf", path.name, re.IGNORECASE)
    found = list(path.parent.glob(f"{night.group(1)}?-[Hh]ypnogram.edf")) if night else []
    return found[0] if len(found) == 1 else None


def read(path: Path, *, annotations: str | Path | None = None, truncated: bool = False, kinds: dict[str, str] | None = None) -> Recording:
    """Signals grouped by kind, rate and unit; annotations as events; "Sleep stage …" annotations as the hypnogram "scoring".

    Parameters
    ----------
    annotations : path
        Another EDF+ file with annotations of this recording. The hypnogram beside a Sleep-EDF night is found by its name.
    truncated : bool
        Read the whole records of a file that is shorter than its header says.
    kinds : mapping
        Kind of channels by label, where the guess from the label is wrong.

    Raises
    ------
    FormatError
        If the header is damaged, or the file is shorter than it says and `truncated` is not given.
    """
    rec = Recording(id=re.sub(r"[^\w.+-]+", "_", path.stem))
    rec.source = {"format": "edf", "files": [str(path.resolve())], "warnings": []}
    header = _header(need_file(path, "EDF or BDF"))
    header = _whole(header, rec, truncated)
    rec.source["format"] = "bdf" if header.bdf else "edf"
    rec.started_at = None
    if header.started_at is not None:
        # EDF knows no time zone: the wall clock is kept as text, so that nobody takes it for UTC.
        rec.source["started_at_local"] = header.started_at.replace(tzinfo=None).isoformat()
    _patient(header, rec)
    onsets, found = _annotations(header)
    grid = _pieces(header, onsets, rec)
    _signals(header, grid, rec, kinds or {})
    add_annotations(rec, found)
    beside = Path(annotations) if annotations is not None else companion(path)
    if beside is not None:
        _other(beside, header, rec)
    if not rec.signals and not rec.labels:
        rec.warn("holds neither signals nor annotations")
    return rec


# -- header ---------------------------------------------------------------------------------------------------------
def _header(path: Path) -> Header:
    with path.open("rb") as f:
        fixed = f.read(256)
        bdf = fixed[:8] == b"\xffBIOSEMI"
        if len(fixed) < 256:
            raise FormatError(f"{path}: is truncated: {len(fixed)} bytes came, an EDF header has at least 256: copy the file again")
        if not (bdf or fixed[:8].strip() == b"0"):
            raise FormatError(f"{path}: starts with {fixed[:8]!r}, expected '0       ' (EDF) or '\\xffBIOSEMI' (BDF): is it another format?")
        text = fixed[8:].decode("latin-1")
        n = _whole_number(path, text[244:248], "number of signals")
        if not 0 <= n <= 4096:
            raise FormatError(f"{path}: number of signals is {n}, expected 1 to 4096")
        fields = f.read(256 * n)
    if len(fields) < 256 * n:
        raise FormatError(f"{path}: is truncated within its header ({256 + len(fields)} of {256 * (n + 1)} bytes): copy it again")

    def column(start: int, width: int) -> list[str]:
        return [fields[start * n + i * width : start * n + (i + 1) * width].decode("latin-1").strip() for i in range(n)]

    samples = [_whole_number(path, s, "samples a record") for s in column(216, 8)]
    if any(s < 0 for s in samples):
        raise FormatError(f"{path}: samples a record are {samples}, expected none below 0")
    offsets = np.cumsum([0, *samples])
    rows = zip(column(0, 16), column(16, 80), column(96, 8), column(104, 8), column(112, 8), column(120, 8), column(128, 8), column(136, 80))
    channels = []
    for i, (label, transducer, unit, p0, p1, d0, d1, prefilter) in enumerate(rows):
        physical = (_number(path, p0, f"physical minimum of {label}"), _number(path, p1, f"physical maximum of {label}"))
        digital = (int(_number(path, d0, f"digital minimum of {label}")), int(_number(path, d1, f"digital maximum of {label}")))
        channels.append(_Channel(label, transducer, unit, physical, digital, prefilter, samples[i], int(offsets[i])))
    reserved = text[184:228].strip()
    plus = reserved[4:5] if reserved[:4] in ("EDF+", "BDF+") else ""
    header = Header(
        path=path, bdf=bdf, plus=plus, patient=text[0:80].strip(), recording=text[80:160].strip(),
        started_at=_start(text[160:168], text[168:176], text[80:160]), header_bytes=_whole_number(path, text[176:184], "header size"),
        n_records=_whole_number(path, text[228:236], "number of records"),
        record=_number(path, text[236:244], "record duration"), channels=tuple(channels),
    )  # fmt: skip
    if header.header_bytes != 256 * (n + 1):
        raise FormatError(f"{path}: its header says it has {header.header_bytes} bytes, expected {256 * (n + 1)} for {n} signals: the header is damaged")
    if header.record <= 0 and any(not c.annotations for c in channels):
        raise FormatError(f"{path}: record duration is {header.record:g} s, expected a positive number: the rates are unknown")
    return header


def _number(path: Path, text: str, what: str) -> float:
    try:
        value = float(text.strip().replace(",", ".").rstrip("\x00"))
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise FormatError(f"{path}: {what} is {text.strip()!r}, expected a number: the header is damaged")
    return value


def _whole_number(path: Path, text: str, what: str) -> int:
    return int(_number(path, text, what))


def _start(date: str, clock: str, recording: str) -> datetime | None:
    """Wall-clock start; two-digit years from 1985 to 2084, or the four digits that EDF+ repeats."""
    try:
        day, month, year = (int(v) for v in date.split("."))
        hour, minute, second = (int(v) for v in clock.split("."))
        found = re.match(r"Startdate \d\d-\w{3}-(\d{4})", recording)
        year = int(found.group(1)) if found else year + (1900 if year >= 85 else 2000)
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None


def _whole(header: Header, rec: Recording, truncated: bool) -> Header:
    """The header with as many records as the file holds; an error, or a warning, where that differs."""
    path, size = header.path, header.path.stat().st_size - header.header_bytes
    if header.record_bytes == 0:
        raise FormatError(f"{path}: its header names no samples in any of {len(header.channels)} signals")
    have = size // header.record_bytes
    if header.n_records == -1:
        rec.warn(f"{path.name}: its header was never closed (-1 records); the {have} whole records of the file were read")
    elif have < header.n_records:
        lost = header.n_records - have
        what = f"{have} whole records of the {header.n_records} that its header names ({lost} missing, {lost * header.record:g} s)"
        if not truncated:
            raise FormatError(f"{path}: is truncated, it holds {what}: copy it again, or read what is there with truncated=True")
        rec.warn(f"{path.name} is truncated: {what} were read")
    elif size > header.n_records * header.record_bytes:
        rec.warn(f"{path.name}: {size - header.n_records * header.record_bytes} bytes after its {header.n_records} records were not read")
    n = have if header.n_records == -1 else min(have, header.n_records)
    if n == 0:
        raise FormatError(f"{path}: holds no whole record ({max(size, 0)} bytes of data, {header.record_bytes} a record)")
    return replace(header, n_records=n)


def _patient(header: Header, rec: Recording) -> None:
    """EDF+ patient field: code, sex, birthdate, name; a code X is unknown. Plain EDF says anything."""
    parts = header.patient.split()
    if header.plus and len(parts) >= 4:
        rec.subject = "" if parts[0] == "X" else parts[0]
        if parts[1] in ("M", "F"):
            rec.subject_meta["sex"] = parts[1]


# -- samples --------------------------------------------------------------------------------------------------------
class _Records(Rows):
    """Digital samples of some channels of equal rate, gathered from the records."""

    def __init__(self, header: Header, channels: list[_Channel]) -> None:
        self.path, self.start, self.width = header.path, header.header_bytes, header.width
        self.n_records, self.record_samples = header.n_records, sum(c.samples for c in header.channels)
        self.samples, self.offsets = channels[0].samples, [c.offset for c in channels]
        self.shape = (self.n_records * self.samples, len(channels))
        self.dtype = np.dtype(np.int32 if header.bdf else np.int16)

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        first, last = i // self.samples, -(-j // self.samples)
        raw = np.memmap(self.path, np.uint8, "r", self.start, (self.n_records, self.record_samples * self.width))
        out = np.empty(((last - first) * self.samples, len(self.offsets)), dtype=self.dtype)
        for k, offset in enumerate(self.offsets):
            block = np.ascontiguousarray(raw[first:last, offset * self.width : (offset + self.samples) * self.width])
            out[:, k] = block.view("<i2").ravel() if self.width == 2 else _int24(block)
        return out[i - first * self.samples : j - first * self.samples]


def _int24(block: NDArray[np.uint8]) -> NDArray[np.int32]:
    b = block.reshape(-1, 3)
    wide = np.zeros((len(b), 4), dtype=np.uint8)
    wide[:, 1:] = b  # the top three bytes, so that the shift below carries the sign
    return wide.view("<i4").ravel() >> 8


_KINDS = (
    ("eog", r"\beog|^e[12]\b|^(loc|roc)\b|eog$"), ("emg", r"emg|\bchin|submental|masseter|\btib|\bleg\b|nuchal"), ("ecg", r"\be[ck]g"),
    ("eeg", r"eeg|ecog|\bieeg|^(fp|af|fc|ft|cp|tp|po|f|c|p|o|t|a|m)(z|\d{1,2})\b|^(fpz|pz|cz|oz|fz)\b"),
    ("lfp", r"\blfp|hippoc|\bca1\b|\bca3\b|\bhpc|\bpfc"), ("sync", r"trig|status|sync|ttl|event|marker"),
)  # fmt: skip


def channel_kind(label: str, unit: str = "") -> str:
    """What a channel measures, guessed from its label; "other" where the label does not say.

    >>> channel_kind("EEG Fpz-Cz"), channel_kind("EMG submental"), channel_kind("SaO2", "%")
    ('eeg', 'emg', 'other')
    """
    name = label.strip().lower()
    for kind, pattern in _KINDS:
        if re.search(pattern, name):
            return kind if kind == "sync" or not unit or _is_voltage(unit) else "other"
    return "other"


def _is_voltage(unit: str) -> bool:
    return unit_factor(unit)[1] == "uV"


def _signals(header: Header, grid: Grid | None, rec: Recording, kinds: dict[str, str]) -> None:
    channels = [c for c in header.channels if not c.annotations and c.samples]
    known = {c.label for c in channels}
    if stray := set(kinds) - known:
        raise FormatError(f"{header.path}: kinds names the channel {sorted(stray)[0]!r}, the file has {', '.join(sorted(known))}")
    groups: dict[tuple[str, int, str], list[_Channel]] = {}
    guessed = []
    for c in channels:
        kind = kinds.get(c.label) or channel_kind(c.label, c.unit)
        if kind == "other" and c.label not in kinds and _is_voltage(c.unit):
            guessed.append(c.label)
        groups.setdefault((kind, c.samples, _unit(c, kind)[1]), []).append(c)
    if guessed and not any(k in ("eeg", "lfp") for k, *_ in groups):
        # A file of unnamed voltages: call them what EDF is made for, and say so.
        rec.warn(f"{', '.join(guessed[:6])}{'…' if len(guessed) > 6 else ''}: labels do not say what they measure, read as eeg (pass kinds= to correct)")
        merged: dict[tuple[str, int, str], list[_Channel]] = {}
        for (kind, samples, unit), members in groups.items():
            merged.setdefault(("eeg" if kind == "other" and unit == "uV" else kind, samples, unit), []).extend(members)
        groups = merged
    for (kind, samples, unit), members in groups.items():
        rate = samples / header.record
        own = members[0].label if kind == "other" and len(members) == 1 else kind
        said = "percent" if unit == "%" else unit
        names = [re.sub(r"[^\w.+-]+", "_", n).strip("_-") for n in (own, f"{kind}_{said}", f"{kind}_{rate:g}Hz", f"{kind}_{said}_{rate:g}Hz")]
        name = next(n for n in (*names, *(f"{kind}_{k}" for k in range(2, 4096))) if n and n not in rec.signals)
        rec.signals[name] = _signal(header, grid, kind, unit, rate, members, rec)


def _unit(c: _Channel, kind: str) -> tuple[float, str]:
    if kind in ("eeg", "eog", "emg", "ecg", "lfp") or _is_voltage(c.unit):
        return unit_factor(c.unit)
    return 1.0, c.unit


def _signal(header: Header, grid: Grid | None, kind: str, unit: str, rate: float, members: list[_Channel], rec: Recording) -> Signal:
    import pandas as pd

    names = [c.label or f"channel_{c.offset}" for c in members]
    if len(set(names)) < len(names):
        rec.warn(f"channel names {', '.join(sorted({n for n in names if names.count(n) > 1}))} occur more than once: numbered")
        names = [n if names.count(n) == 1 else f"{n}_{names[:i].count(n) + 1}" for i, n in enumerate(names)]
    gain, offset = [], []
    for c in members:
        span = c.digital[1] - c.digital[0]
        if span == 0 or c.physical[0] == c.physical[1]:
            rec.warn(f"channel {c.label}: its physical or digital range is empty, the values are uncalibrated")
            gain.append(1.0)
            offset.append(0.0)
            continue
        factor = _unit(c, kind)[0]
        g = (c.physical[1] - c.physical[0]) / span
        gain.append(g * factor)
        offset.append((c.physical[0] - g * c.digital[0]) * factor)
    values: Any = _Records(header, members)
    scale: Any = np.array(gain)
    if header.bdf or np.abs(np.array(offset) / scale).max() > 1e-6:
        values, scale = Calibrated(values, gain, offset), 1.0
    table = pd.DataFrame({"name": names, "transducer": [c.transducer for c in members], "prefilter": [c.prefilter for c in members]})
    if grid is None:
        return Signal(values, rate=rate, unit=unit, kind=kind, channels=table, scale=scale)
    per = round(rate / grid.rate)
    if not isinstance(values, Calibrated):
        values, scale = Calibrated(values, gain, offset), 1.0
    spread = Spread(values, grid.first * per, grid.length * per)
    return Signal(spread, rate=rate, start=grid.start, unit=unit, kind=kind, channels=table, gaps=grid.gaps)


# -- annotations ----------------------------------------------------------------------------------------------------
def _annotations(header: Header) -> tuple[NDArray[np.float64], list[tuple[float, float, str]]]:
    """Start of each record (s; empty if the file does not say) and every annotation (onset, duration, text)."""
    tracks = [c for c in header.channels if c.annotations]
    if not tracks:
        return np.empty(0), []
    raw = np.memmap(header.path, np.uint8, "r", header.header_bytes, (header.n_records, header.record_bytes))
    onsets, found = np.full(header.n_records, np.nan), []
    for k, c in enumerate(tracks):
        block = np.ascontiguousarray(raw[:, c.offset * header.width : (c.offset + c.samples) * header.width])
        for r in range(header.n_records):
            first = True
            for tal in block[r].tobytes().split(b"\x00"):
                if not tal:
                    continue
                parts = tal.split(b"\x14")
                onset, _, duration = parts[0].partition(b"\x15")
                try:
                    t, d = float(onset), float(duration) if duration else 0.0
                except ValueError:
                    raise FormatError(f"{header.path}: annotation {tal[:40]!r} in record {r + 1} is damaged, expected +onset<21>duration<20>text<20>") from None
                if first and k == 0:
                    onsets[r] = t
                first = False
                # EDF+ texts are UTF-8; BDF writers also use Latin-1.
                found += [(t, d, _text(p)) for p in parts[1:] if p]
    if np.isnan(onsets).any():
        onsets = np.empty(0)
    # Times count from the first record, whose own start may lie a fraction of a second after the header's clock.
    zero = float(onsets[0]) if len(onsets) else 0.0
    return onsets - zero, [(t - zero, d, text) for t, d, text in found]


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8").strip()
    except UnicodeDecodeError:
        return raw.decode("latin-1").strip()


def _pieces(header: Header, onsets: NDArray[np.float64], rec: Recording) -> Grid | None:
    """Where the records of a discontinuous file lie, in units of records on a grid fine enough for their starts; None if continuous."""
    if len(onsets) < 2 or header.record <= 0:
        if header.plus == "D" and header.n_records > 1:
            raise FormatError(f"{header.path}: says it has gaps (EDF+D) and names no record starts: the times of its samples are unknown")
        return None
    steps = np.diff(onsets)
    if np.abs(steps - header.record).max() < 1e-6:
        return None
    if (steps < header.record - 1e-6).any():
        bad = int(np.flatnonzero(steps < header.record - 1e-6)[0])
        raise FormatError(
            f"{header.path}: record {bad + 2} starts at {onsets[bad + 1]:g} s, before record {bad + 1} ({header.record:g} s from {onsets[bad]:g} s) ends: "
            "the records overlap and cannot be put in order"
        )
    # The coarsest grid that every channel can follow is one step of the slowest common sample.
    common = int(np.gcd.reduce([c.samples for c in header.channels if not c.annotations and c.samples]))
    rate = common / header.record
    first = np.rint(onsets * rate).astype(np.int64)
    moved = np.abs(onsets - first / rate).max()
    new = np.flatnonzero(np.r_[True, np.abs(steps - header.record) >= 1e-6])
    length = np.diff(np.r_[new, header.n_records]) * common
    grid = Grid(rate, 0.0, first[new], length.astype(np.int64))
    rec.warn(
        f"the file is discontinuous: {len(grid.gaps)} gaps of {grid.gaps.duration:.1f} s in all are missing samples"
        + (f"; pieces were moved by up to {moved * 1e3:.1f} ms to lie on the grid of samples" if moved > 1e-6 else "")
    )
    return grid


def _other(path: Path, header: Header, rec: Recording) -> None:
    """Annotations kept in a file of their own, shifted by the difference of the two wall clocks."""
    other = _whole(_header(need_file(path, "EDF+ with annotations")), rec, truncated=True)
    rec.source["files"].append(str(path.resolve()))
    shift = 0.0
    if header.started_at is not None and other.started_at is not None:
        shift = (other.started_at - header.started_at).total_seconds()
        if shift:
            rec.warn(f"{path.name} starts {shift:g} s {'after' if shift > 0 else 'before'} {header.path.name} by their headers; its annotations were shifted")
    _, found = _annotations(other)
    if not found:
        raise FormatError(f"{path}: holds no annotations, expected an EDF+ file with some")
    add_annotations(rec, [(t + shift, d, text) for t, d, text in found])
