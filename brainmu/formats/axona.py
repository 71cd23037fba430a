"""Axona DacqUSB sessions: .set with .eeg/.egf (LFP), .bin (wide band), .pos (position), tetrode files .1 to .32 with .cut, .inp and .stm (events).

Read here because Neo's reader (0.14) shows no channels where there is no .bin, and knows no position, cuts or events.

References
----------
Axona Ltd, "DacqUSB file formats".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable, Recording, Signal, Spikes
from brainmu.errors import FormatError
from brainmu.formats.digital import edges_of_words, pulses
from brainmu.formats.lazy import Rows, Stacked
from brainmu.formats.sources import need_file

__all__ = ["detect", "read"]

_LOST = 1023  # the coordinate of a spot that the camera did not see
_PACKET, _HEAD = 432, 32
# Where the 64 channels lie within the samples of a packet of the .bin file.
_ORDER = np.concatenate([np.r_[32 + 8 * k : 40 + 8 * k, 8 * k : 8 * k + 8] for k in range(4)])
_CHUNK = 50_000


def detect(path: Path) -> bool:
    """Whether `path` is the .set file of an Axona session (an EEGLAB .set is another thing)."""
    if not path.is_file() or path.suffix.lower() != ".set":
        return False
    with path.open("rb") as f:
        return f.read(10) == b"trial_date"


def read(path: Path, *, wideband: bool = False, mua: bool = False) -> Recording:
    """One session: the files that share the name of the .set.

    Parameters
    ----------
    wideband : bool
        Read the .bin too, as signal "wideband". Without an .eeg or .egf it is read anyway, as "lfp".
    mua : bool
        Keep cluster 0 of each .cut (what was not clustered) as units of quality "mua". Tetrodes without a .cut are always kept so, and said.

    Raises
    ------
    FormatError
        If a file is truncated or its header lies.
    """
    text = need_file(path, "an Axona .set").read_text(encoding="cp1252", errors="replace")
    settings = _header(text)
    rec = Recording(id=re.sub(r"[^\w.+-]+", "_", path.stem))
    rec.source = {"format": "axona", "files": [str(path.resolve())], "warnings": []}
    when = f"{settings.get('trial_date', '').strip()} {settings.get('trial_time', '').strip()}".strip()
    if when:
        rec.source["started_at_local"] = when
    _lfp(path, settings, rec)
    _wideband(path, settings, rec, wideband)
    _position(path, rec)
    _spikes(path, settings, rec, mua)
    _events(path, rec)
    if not rec.signals and rec.spikes is None and not rec.labels:
        raise FormatError(f"{path}: no .eeg, .egf, .bin, .pos, tetrode (.1) or .inp file of this name lies beside it: copy the whole session")
    return rec


@dataclass(frozen=True)
class _File:
    """A file of text header and binary data: `data` bytes from `start`."""

    path: Path
    header: dict[str, str]
    start: int
    data: int

    def number(self, key: str, default: float | None = None) -> float:
        """The leading number of a header line ("250.0 hz" is 250)."""
        found = re.match(r"\s*(-?\d+(?:\.\d+)?)", self.header.get(key, ""))
        if found is None:
            if default is None:
                raise FormatError(f"{self.path}: its header has no number for {key} ({self.header.get(key)!r}): the header is damaged")
            return default
        return float(found.group(1))

    def count(self, key: str, record: int) -> int:
        """Records that the header names; an error where the file holds fewer."""
        stated, have = int(self.number(key, 0)), self.data // record
        if have < stated:
            raise FormatError(f"{self.path}: holds {have} of the {stated} records that its header names ({key}): it is truncated, copy it again")
        return stated or have


def _header(text: str) -> dict[str, str]:
    """Lines of a key, a space and a value."""
    pairs = (line.strip().partition(" ") for line in text.splitlines() if line.strip())
    return {key: value.strip() for key, _, value in pairs}


def _open(path: Path, rec: Recording, expected: str) -> _File:
    need_file(path, expected)
    with path.open("rb") as f:
        head = f.read(65536)
        size = f.seek(0, 2)
        f.seek(max(size - 12, 0))
        tail = f.read()
    at = head.find(b"data_start")
    if at < 0:
        raise FormatError(f"{path}: has no data_start in its header, expected {expected}: it is damaged, or not Axona's")
    header = _header(head[:at].decode("cp1252", errors="replace"))
    start = at + len(b"data_start")
    # "\r\ndata_end\r\n" closes the data; a file that was never closed lacks it.
    end = size - 12 if tail == b"\r\ndata_end\r\n" else size
    rec.source["files"].append(str(path.resolve()))
    return _File(path, header, start, max(end - start, 0))


# -- signals --------------------------------------------------------------------------------------------------------
class _Samples(Rows):
    """One channel of an .eeg (int8) or .egf (int16) file."""

    def __init__(self, file: _File, dtype: str, n: int) -> None:
        self.path, self.start, self.dtype, self.shape = file.path, file.start, np.dtype(np.int16), (n, 1)
        self.stored = np.dtype(dtype)

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        count = max(j - i, 0)
        return np.fromfile(self.path, self.stored, count, offset=self.start + i * self.stored.itemsize).astype(np.int16)[:, None]


def _gain(settings: dict[str, str], channel: int, path: Path, rec: Recording) -> float:
    """Microvolts at the electrode at full scale, for a channel counted from 0."""
    try:
        full, gain = float(settings.get("ADC_fullscale_mv", "1500")), float(settings[f"gain_ch_{channel}"])
    except (KeyError, ValueError):
        gain = full = 0.0
    if gain <= 0 or full <= 0:
        raise FormatError(f"{path}: names no gain for channel {channel + 1} (gain_ch_{channel}), so volts are unknown: use the .set that was recorded")
    return full * 1e3 / gain


def _lfp(path: Path, settings: dict[str, str], rec: Recording) -> None:
    egf, eeg = _numbered(path, "egf"), _numbered(path, "eeg")
    both = sorted(set(egf) & set(eeg))
    if both:
        rec.source["notes"] = f"{len(both)} .eeg files repeat the .egf at a lower rate and were not read"
    for files, suffix, key, dtype in ((egf, "egf", "num_EGF_samples", "<i2"), ({k: p for k, p in eeg.items() if k not in egf}, "eeg", "num_EEG_samples", "i1")):
        parts, scale, names, rates = [], [], [], []
        for k, file in files.items():
            f = _open(file, rec, f"an Axona .{suffix}")
            width = int(f.number("bytes_per_sample", np.dtype(dtype).itemsize))
            if width not in (1, 2):
                raise FormatError(f"{file}: bytes_per_sample is {width}, expected 1 or 2")
            stored = "i1" if width == 1 else "<i2"
            channel = int(float(settings.get(f"EEG_ch_{k}", "0") or 0))
            parts.append(_Samples(f, stored, f.count(key, width)))
            scale.append(_gain(settings, channel - 1, path, rec) / 2.0 ** (8 * width - 1))
            names.append(f"ch{channel}" if f"ch{channel}" not in names else f"ch{channel}_{k}")
            rates.append(f.number("sample_rate"))
        if not parts:
            continue
        if len(set(rates)) > 1:
            raise FormatError(f"{path}: its .{suffix} files have the rates {sorted(set(rates))}, expected one")
        short = min(p.shape[0] for p in parts)
        if any(p.shape[0] != short for p in parts):
            rec.warn(f".{suffix} files have {short} to {max(p.shape[0] for p in parts)} samples: the shortest counts")
            for p in parts:
                p.shape = (short, 1)
        name = "lfp" if "lfp" not in rec.signals else f"lfp_{rates[0]:g}Hz"
        rec.signals[name] = Signal(Stacked(parts), rate=rates[0], unit="uV", kind="lfp", channels=names, scale=np.array(scale), attrs={"stream": suffix})


def _numbered(path: Path, suffix: str) -> dict[int, Path]:
    """Files .eeg, .eeg2, .eeg3 … by number."""
    found = {}
    for p in path.parent.glob(f"{_escape(path.stem)}.{suffix}*"):
        if m := re.fullmatch(rf"\.{suffix}(\d*)", p.suffix.lower()):
            found[int(m.group(1) or 1)] = p
    return dict(sorted(found.items()))


def _escape(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


class _Packets(Rows):
    """Some of the 64 channels of a .bin file."""

    dtype = np.dtype(np.int16)

    def __init__(self, path: Path, n: int, channels: list[int]) -> None:
        self.path, self.n, self.columns, self.shape = path, n, _ORDER[channels], (3 * n, len(channels))

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        a, b = i // 3, -(-j // 3)
        words = np.fromfile(self.path, "<i2", max(b - a, 0) * _PACKET // 2, offset=a * _PACKET).reshape(-1, _PACKET // 2)
        return words[:, _HEAD // 2 : _HEAD // 2 + 192].reshape(-1, 64)[i - 3 * a : j - 3 * a, self.columns]


def _wideband(path: Path, settings: dict[str, str], rec: Recording, wanted: bool) -> None:
    file = path.with_suffix(".bin")
    if not file.is_file():
        return
    if rec.signals and not wanted:
        rec.source["notes"] = f"{rec.source.get('notes', '')}{'; ' if rec.source.get('notes') else ''}{file.name} was not read (pass wideband=True)"
        return
    need_file(file, "Axona raw data")
    n, left = divmod(file.stat().st_size, _PACKET)
    with file.open("rb") as f:
        first = f.read(8)
        f.seek(max(n - 1, 0) * _PACKET)
        last = f.read(8)
    if first[:3] != b"ADU" or not n:
        raise FormatError(f"{file}: starts with {first[:4]!r}, expected packets that start with ADU1 or ADU2: it is not Axona's, or is damaged")
    lost = int.from_bytes(last[4:], "little") - int.from_bytes(first[4:], "little") - (n - 1)
    if lost or left:
        rec.warn(f"{file.name}: packet numbers say that {lost} packets of 3 samples are lost (later times are early by them), {left} bytes are left over")
    tetrodes = [t for t in range(1, 17) if settings.get(f"collectMask_{t}", "0").strip() == "1"]
    if not tetrodes:
        raise FormatError(f"{path}: collects no tetrode (collectMask_1 to 16 are not 1), so the channels of {file.name} are unknown")
    channels = [4 * (t - 1) + k for t in tetrodes for k in range(4)]
    table = pd.DataFrame({"name": [f"ch{c + 1}" for c in channels], "group": [c // 4 + 1 for c in channels]})
    scale = np.array([_gain(settings, c, path, rec) / 2.0**15 for c in channels])
    rec.source["files"].append(str(file.resolve()))
    try:
        rate = float(settings.get("rawRate", "48000"))
    except ValueError:
        raise FormatError(f"{path}: rawRate is {settings['rawRate']!r}, expected a number of Hz") from None
    name = "wideband" if rec.signals else "lfp"
    rec.signals[name] = Signal(_Packets(file, n, channels), rate=rate, unit="uV", kind="lfp", channels=table, scale=scale, attrs={"stream": "bin"})


class _Spots(Rows):
    """Two coordinates of a .pos file in metres (or pixels); a lost spot is NaN."""

    dtype = np.dtype(np.float32)

    def __init__(self, file: _File, record: int, n: int, first: int, per_metre: float) -> None:
        self.path, self.start, self.record, self.first, self.per_metre, self.shape = file.path, file.start, record, first, per_metre, (n, 2)

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        raw = np.fromfile(self.path, np.uint8, max(j - i, 0) * self.record, offset=self.start + i * self.record).reshape(-1, self.record)
        xy = np.ascontiguousarray(raw[:, self.first : self.first + 4]).view(">u2").astype(np.float32)
        xy[(xy == _LOST).any(axis=1)] = np.nan
        return xy / np.float32(self.per_metre)


def _position(path: Path, rec: Recording) -> None:
    file = path.with_suffix(".pos")
    if not file.is_file():
        return
    f = _open(file, rec, "Axona positions")
    names = [c.strip() for c in f.header.get("pos_format", "t,x1,y1,x2,y2,numpix1,numpix2").split(",")]
    stamp, coordinate = int(f.number("bytes_per_timestamp", 4)), int(f.number("bytes_per_coord", 2))
    stated = int(f.number("num_pos_samples", 0))
    # Two-spot records carry two more words than their format names.
    record = f.data // stated if stated and f.data % stated == 0 else 20
    if stamp != 4 or coordinate != 2 or record < stamp + coordinate * (len(names) - 1):
        raise FormatError(f"{file}: a record has {record} bytes with {stamp} of time and {coordinate} a coordinate, expected at least 4 and 2 of them")
    n = f.count("num_pos_samples", record)
    rate, per_metre = f.number("sample_rate"), f.number("pixels_per_metre", 0)
    if per_metre <= 0:
        rec.warn(f"{file.name}: names no pixels_per_metre: position is in pixels")
    for spot, axis in enumerate([c for c in names if re.fullmatch(r"x\d*", c)]):
        values = _Spots(f, record, n, stamp + coordinate * (names.index(axis) - 1), per_metre if per_metre > 0 else 1.0)
        seen = np.isfinite(values[: min(n, 2000)]).any() or np.isfinite(values[:]).any()
        if seen or spot == 0:
            name = "position" if "position" not in rec.signals else f"position_{spot + 1}"
            rec.signals[name] = Signal(values, rate=rate, unit="m" if per_metre > 0 else "px", kind="position", channels=["x", "y"], attrs={"spot": spot + 1})


# -- spikes ---------------------------------------------------------------------------------------------------------
def _spikes(path: Path, settings: dict[str, str], rec: Recording, mua: bool) -> None:
    times, ids, rows, left = [], [], [], 0
    for tetrode in range(1, 33):
        file = path.with_suffix(f".{tetrode}")
        if not file.is_file():
            continue
        f = _open(file, rec, "Axona tetrode spikes")
        channels, samples = int(f.number("num_chans", 4)), int(f.number("samples_per_spike", 50))
        layout = np.dtype([("t", ">u4"), ("wave", "i1", (samples,))])
        n = f.count("num_spikes", channels * layout.itemsize)
        if not n:
            continue
        spikes = np.memmap(file, layout, "r", f.start, (n, channels))
        t = np.asarray(spikes["t"][:, 0], dtype=np.float64) / f.number("timebase")
        clusters, cut = _clusters(path, tetrode, n, rec)
        shapes = _mean_waves(spikes, clusters)
        for cluster in np.unique(clusters):
            mine = clusters == cluster
            if cut and cluster == 0 and not mua:
                left += int(mine.sum())
                continue
            quality = "good" if cut and cluster else "mua"
            shape = _shape(shapes[int(cluster)], f.number("sample_rate", 48000.0), tetrode, settings, path, rec)
            rows.append({"id": len(rows), "group": tetrode, "cluster": int(cluster), "quality": quality, "n_spikes": int(mine.sum()), **shape})
            times.append(t[mine])
            ids.append(np.full(mine.sum(), rows[-1]["id"], dtype=np.int32))
    if rows:
        rec.spikes = Spikes(np.concatenate(times), np.concatenate(ids), pd.DataFrame(rows))
    if left:
        rec.warn(f"spikes: left out {left} of cluster 0 (not clustered; pass mua=True to keep them)")
    loose = sorted({r["group"] for r in rows if r["quality"] == "mua" and r["cluster"] == 0}) if not mua else []
    if loose:
        rec.warn(f"tetrode {', '.join(map(str, loose))}: no .cut beside it, so its spikes are one multi-unit")


def _clusters(path: Path, tetrode: int, n: int, rec: Recording) -> tuple[NDArray[np.int64], bool]:
    """Cluster of each spike from NAME_N.cut (Tint) or NAME.clu.N (KlustaKwik; its cluster 1 is noise)."""
    cut, clu = path.with_name(f"{path.stem}_{tetrode}.cut"), path.with_name(f"{path.stem}.clu.{tetrode}")
    file = cut if cut.is_file() else clu
    if not file.is_file():
        return np.zeros(n, dtype=np.int64), False
    text = need_file(file, "clusters of a tetrode").read_text(encoding="cp1252", errors="replace")
    if file == cut:
        found = re.search(r"Exact_cut_for:.*?spikes:\s*\d+\s*(.*)", text, re.DOTALL)
        numbers = found.group(1).split() if found else []
    else:
        numbers = text.split()[1:]
    try:
        clusters = np.array(numbers, dtype=np.int64)
    except ValueError:
        raise FormatError(f"{file}: its clusters are not all whole numbers: it is damaged") from None
    if len(clusters) != n:
        raise FormatError(f"{file}: {len(clusters)} clusters for {n} spikes of tetrode {tetrode}: it belongs to another session, or is truncated")
    rec.source["files"].append(str(file.resolve()))
    return (clusters if file == cut else np.where(clusters <= 1, 0, clusters)), True


def _mean_waves(spikes: Any, clusters: NDArray[np.int64]) -> dict[int, NDArray[np.float64]]:
    """Mean waveform (channel, sample) of each cluster, read in pieces."""
    sums = {int(c): np.zeros(spikes["wave"].shape[1:]) for c in np.unique(clusters)}
    for i in range(0, len(clusters), _CHUNK):
        block, mine = np.asarray(spikes["wave"][i : i + _CHUNK], dtype=np.float32), clusters[i : i + _CHUNK]
        for c in np.unique(mine):
            sums[int(c)] += block[mine == c].sum(axis=0, dtype=np.float64)
    return {c: s / int((clusters == c).sum()) for c, s in sums.items()}


def _shape(wave: NDArray[np.float64], rate: float, tetrode: int, settings: dict[str, str], path: Path, rec: Recording) -> dict[str, Any]:
    volts = np.array([_gain(settings, 4 * (tetrode - 1) + k, path, rec) / 128 for k in range(len(wave))])
    wave = wave * volts[:, None]
    best = int(np.ptp(wave, axis=1).argmax())
    # DacqUSB shows spikes with their peak upward.
    peak = int(wave[best].argmax())
    after = int(wave[best][peak:].argmin())
    return {"amplitude": float(np.ptp(wave[best])), "peak_channel": 4 * (tetrode - 1) + best, "trough_to_peak_ms": after / rate * 1e3}


# -- events ---------------------------------------------------------------------------------------------------------
def _events(path: Path, rec: Recording) -> None:
    """Digital inputs and keys of the .inp (a type, and a word or a key), stimulation times of the .stm."""
    if (file := path.with_suffix(".inp")).is_file():
        f = _open(file, rec, "Axona digital inputs")
        layout = np.dtype([("t", ">u4"), ("type", "S1"), ("value", ">u2")])
        n = f.count("num_inp_samples", layout.itemsize)
        rows = np.fromfile(file, layout, n, offset=f.start)
        t = rows["t"] / f.number("timebase")
        for code, prefix in ((b"I", "ttl"), (b"O", "ttl_out")):
            mine = rows["type"] == code
            stop = float(max((s.stop for s in rec.signals.values()), default=t.max() if n else 0.0))
            for line, (at, up) in edges_of_words(rows["value"][mine].astype(np.int64), {b: b for b in range(16)}).items():
                rec.labels[f"{prefix}_{line}"] = pulses(t[mine][at], up, stop, line=line)
        keys = rows["type"] == b"K"
        if keys.any():
            rec.labels["keys"] = EventTable(t[keys], t[keys], kind="key", content=[chr(v & 0xFF) for v in rows["value"][keys].tolist()])
    if (file := path.with_suffix(".stm")).is_file():
        f = _open(file, rec, "Axona stimulation times")
        t = np.fromfile(file, ">u4", f.count("num_stm_samples", 4), offset=f.start) / f.number("timebase")
        if len(t):
            rec.labels["stim"] = EventTable(t, t, kind="stim")
