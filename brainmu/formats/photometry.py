"""Fibre photometry: pyPhotometry (.ppd), Neurophotometrics (interleaved .csv), Doric and plain .csv, with the isosbestic channel of each signal."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.config import suggest
from brainmu.core import EventTable, Recording, Signal
from brainmu.errors import FormatError, InputError
from brainmu.formats.lazy import RawRows, Rows
from brainmu.formats.sources import ArrayFile, need_file
from brainmu.formats.tables import read_table, table_layout
from brainmu.formats.timing import lay_out, seconds, settled_unit, unit_in_name

__all__ = ["detect", "read"]

_REGION = re.compile(r"^(Region\d+[GR]|[GR]\d+)$")
_LEDS = {1: 415, 2: 470, 4: 560}
"""The three lowest bits of LedState (FP3002) and Flags (FP3001); the higher ones are digital lines."""
_TIME = ("time(s)", "time", "time (s)", "timestamp", "timestamps", "t", "seconds")
Names = str | Sequence[str] | None


def detect(path: Path) -> bool:
    """Whether `path` is a .ppd, or a .csv of Neurophotometrics or Doric. Other tables need ``format="photometry"``."""
    if not path.is_file():
        return False
    if path.suffix.lower() == ".ppd":
        return True
    if path.suffix.lower() != ".csv":
        return False
    with path.open("rb") as f:
        lines = [f.readline(4096).decode("utf-8", errors="replace").lstrip("\ufeff") for _ in range(2)]
    return _is_neurophotometrics(_cells(lines[0])) or any(_is_doric(_cells(line)) for line in lines)


def _cells(line: str) -> list[str]:
    return [c.strip().strip('"') for c in line.strip().split(",")]


def _is_neurophotometrics(names: list[str]) -> bool:
    return bool({"LedState", "Flags"} & set(names)) and any(_REGION.match(n) for n in names)


def _is_doric(names: list[str]) -> bool:
    return "time(s)" in (n.lower() for n in names) and any(n.startswith(("AIn-", "DI/O-", "DI--O-", "CAM", "Raw")) or "Dem" in n for n in names)


def read(
    path: Path, *, signal: Names = None, isosbestic: Names = None, time: str | None = None, time_unit: str | None = None, rate: float | None = None,
    unit: str = "a.u.", start: float = 0.0,
) -> Recording:  # fmt: skip
    """Fluorescence as it was measured; dF/F is a derived stream (``derive: [dff]``).

    Channels carry the excitation wavelength where it is known, and signals the name of their isosbestic channel (column `isosbestic`). Times count
    from the first frame. Neurophotometrics interleaves its LEDs, so each excitation is a signal of its own (``photometry_470``, ``photometry_415``).
    Digital lines become events.

    Parameters
    ----------
    signal, isosbestic : name or list of names
        Columns (of a .ppd analog_1, analog_2, …) that hold calcium- or transmitter-dependent light, and the isosbestic one of each. Needed where the file
        does not say; a single isosbestic channel serves all signals.
    time, time_unit : str
        Column of sample times of a plain .csv, and its unit ("s", "ms", …).
    rate : float, Hz
        Instead of a time column.
    unit : str
        Of the columns of a .csv.
    start : float, s
        Session time of the first frame.

    Raises
    ------
    FormatError
        If the file is damaged or no such table.
    InputError
        If a named column does not exist, or there is no time.

    References
    ----------
    Akam & Walton (2019), pyPhotometry, Scientific Reports 9, 3521.
    """
    need_file(path, "fibre photometry")
    if rate is not None and not rate > 0:
        raise InputError(f"{path}: rate is {rate!r}, expected a positive number of Hz")
    rec = Recording(id=re.sub(r"[^\w.+-]+", "_", path.stem))
    rec.source = {"format": "photometry", "files": [str(path.resolve())], "warnings": []}
    if path.suffix.lower() == ".ppd":
        _pyphotometry(path, rec, signal, isosbestic, start)
        return rec
    with path.open("rb") as f:
        first = _cells(f.readline(4096).decode("utf-8", errors="replace").lstrip("\ufeff"))
    if _is_neurophotometrics(first):
        if signal is not None or isosbestic is not None:
            raise InputError(
                f"{path}: Neurophotometrics says its excitation in {'LedState' if 'LedState' in first else 'Flags'}: leave signal= and isosbestic= out"
            )
        _neurophotometrics(path, rec, unit, start)
    else:
        _columns(path, rec, _listed(signal), _listed(isosbestic), time, time_unit, rate, unit, start)
    return rec


def _listed(names: Names) -> list[str]:
    return [] if names is None else [names] if isinstance(names, str) else list(names)


def _wavelength(name: str) -> float:
    """Nanometres that a column name says, NaN if it says none."""
    found = [int(n) for n in re.findall(r"(?<!\d)(\d{3})(?!\d)", name) if 380 <= int(n) <= 700]
    return float(found[0]) if len(found) == 1 else np.nan


def _pair(path: Path, names: list[str], signal: list[str], isosbestic: list[str], rec: Recording) -> pd.DataFrame:
    """The channel table: which channel is the isosbestic one of which."""
    for name in (*signal, *isosbestic):
        if name not in names:
            raise InputError(f"{path}: has no channel {name!r}{suggest(name, names)}; it has {', '.join(names)}")
    wave = [_wavelength(n) for n in names]
    if not isosbestic:
        isosbestic = [n for n, w in zip(names, wave) if re.search(r"isosb|(?<![a-z])iso(?![a-z])", n.lower()) or 400 <= w <= 420]
        signal = signal or [n for n in names if n not in isosbestic] if isosbestic else signal
        if isosbestic:
            rec.warn(f"isosbestic by name: {', '.join(isosbestic)}; pass isosbestic= if that is wrong")
    if not isosbestic:
        rec.warn(f"it does not say which of {', '.join(names)} is isosbestic, so dF/F has no control: pass signal= and isosbestic=")
    signal = signal or [n for n in names if n not in isosbestic]
    if len(isosbestic) > 1 and len(isosbestic) != len(signal):
        raise InputError(
            f"{path}: {len(isosbestic)} isosbestic channels for {len(signal)} signals, expected one, or one each: pass signal= and isosbestic= in order"
        )
    of = dict(zip(signal, isosbestic * len(signal) if len(isosbestic) == 1 else isosbestic))
    role = ["isosbestic" if n in isosbestic else "signal" if n in signal else "" for n in names]
    return pd.DataFrame({"name": names, "kind": "photometry", "role": role, "isosbestic": [of.get(n, "") for n in names], "excitation": wave})


# -- pyPhotometry -----------------------------------------------------------------------------------------------------
class _Volts(Rows):
    """The upper 15 bits of each sample, in V."""

    dtype = np.dtype(np.float32)

    def __init__(self, raw: RawRows, volts: NDArray[np.float64]) -> None:
        self.raw, self.volts, self.shape = raw, volts, raw.shape

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        return ((self.raw[i:j] >> 1) * self.volts).astype(np.float32)


_MODES_WITH_CONTROL = {"2EX_1EM_pulsed": (0, 1), "1 colour time div.": (0, 1), "GCaMP/iso": (0, 1), "3EX_2EM_pulsed": (0, 2)}
"""Modes in which one photodetector sees a signal and its isosbestic excitation: which analog channels these are."""


def _pyphotometry(path: Path, rec: Recording, signal: Names, isosbestic: Names, start: float) -> None:
    with path.open("rb") as f:
        size = int.from_bytes(f.read(2), "little")
        raw = f.read(size)
    try:
        header = json.loads(raw)
        rate, volts = float(header["sampling_rate"]), header["volts_per_division"]
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"{path}: its header is no pyPhotometry header ({type(error).__name__} {error}), expected JSON as version 0.2 and later write it"
        ) from None
    if not rate > 0 or not isinstance(volts, list) or not volts:
        raise FormatError(
            f"{path}: its header says sampling_rate {rate:g} and volts_per_division {volts!r}, expected a positive rate and one voltage a channel"
        )
    n_analog, n_digital = int(header.get("n_analog_signals", 2)), int(header.get("n_digital_signals", 2))
    body = path.stat().st_size - 2 - size
    if body <= 0 or body % (2 * n_analog) or n_digital > n_analog:
        raise FormatError(f"{path}: {body} bytes after its header are not whole samples of {n_analog} channels: it is truncated, copy it again")
    samples = RawRows(path, "<u2", (body // (2 * n_analog), n_analog), "C", 2 + size)
    names = [f"analog_{k + 1}" for k in range(n_analog)]
    mode = str(header.get("mode", ""))
    chosen, control = _listed(signal), _listed(isosbestic)
    if not control and mode in _MODES_WITH_CONTROL and max(_MODES_WITH_CONTROL[mode]) < n_analog:
        a, b = _MODES_WITH_CONTROL[mode]
        chosen, control = chosen or [names[a]], [names[b]]
        rec.warn(f"mode {mode!r}: {names[b]} is taken as the isosbestic channel of {names[a]}; pass isosbestic= if that is wrong")
    # The third analog signal comes from the first photodetector again.
    scale = np.array([float(volts[k % len(volts)]) for k in range(n_analog)])
    rec.subject = str(header.get("subject_ID", ""))
    rec.source |= {"mode": mode, "version": str(header.get("version", "")), "started_at_local": str(header.get("date_time", ""))}
    rec.signals["photometry"] = Signal(
        _Volts(samples, scale), rate=rate, start=start, unit="V", kind="photometry", channels=_pair(path, names, chosen, control, rec), attrs={"mode": mode}
    )
    digital = samples[:, :n_digital] & 1
    for k in range(n_digital):
        _events(rec, f"digital_{k + 1}", digital[:, k], start + np.arange(len(digital)) / rate, 1 / rate)


def _events(rec: Recording, name: str, level: NDArray[Any], t: NDArray[np.float64], step: float) -> None:
    """Spans in which a digital line is high."""
    edges = np.flatnonzero(np.diff(np.r_[0, level > 0, 0])).reshape(-1, 2)
    if len(edges):
        stop = np.r_[t, t[-1] + step]
        rec.labels[name] = EventTable(t[edges[:, 0]], stop[edges[:, 1]], kind="ttl")


# -- Neurophotometrics --------------------------------------------------------------------------------------------------
def _neurophotometrics(path: Path, rec: Recording, unit: str, start: float) -> None:
    frame = read_table(path, ArrayFile(str(path)))
    regions = [str(c) for c in frame.columns if _REGION.match(str(c))]
    flags = "LedState" if "LedState" in frame else "Flags"
    stamp = next((c for c in ("SystemTimestamp", "Timestamp", "ComputerTimestamp") if c in frame), None)
    if stamp is None:
        raise FormatError(f"{path}: has columns {', '.join(map(str, frame.columns))}, expected SystemTimestamp or Timestamp")
    if not len(frame):
        raise FormatError(f"{path}: holds no frames under its header")
    if text := [r for r in regions if not pd.api.types.is_numeric_dtype(frame[r])]:
        raise FormatError(f"{path}: column {text[0]} holds {frame[text[0]].iloc[0]!r}, expected numbers")
    numbers = frame[[stamp, flags, *regions]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(numbers[:, :2]).all():
        raise FormatError(f"{path}: row {int(np.flatnonzero(~np.isfinite(numbers[:, :2]).all(1))[0]) + 1} has no number in {stamp} or {flags}: drop it")
    t = numbers[:, 0] * (1e-3 if stamp == "ComputerTimestamp" else 1.0)
    if len(t) < 2 or (np.diff(t) <= 0).any():
        raise FormatError(
            f"{path}: {stamp} does not increase at row {int(np.flatnonzero(np.diff(t) <= 0)[0]) + 2 if len(t) > 1 else 1}: the file mixes recordings"
        )
    rec.source["first_timestamp"] = float(t[0])
    t = t - t[0] + start
    state = numbers[:, 1].astype(np.int64)
    led = state & 7
    used = np.zeros(len(led), dtype=bool)
    for bit, nm in _LEDS.items():
        # 470 and 560 nm may light together: the green detector then sees the one, the red the other.
        together = (led == 6) & (nm != 415)
        rows = (led == bit) | together
        own = [r for r in regions if not together.any() or _colour(r) == ("R" if nm == 560 else "G")]
        if not rows.any() or not own:
            continue
        used |= rows
        values = numbers[rows][:, [2 + regions.index(r) for r in own]].astype(np.float32)
        rec.signals[f"photometry_{nm}"] = Signal(**lay_out(values, t[rows]), unit=unit, kind="photometry", channels=_regions(own, nm, set(led)))
    if not rec.signals:
        raise FormatError(f"{path}: no frame has one LED on ({flags} holds {', '.join(map(str, np.unique(state)))}): it is no interleaved recording")
    if not used.all():
        rec.warn(f"{int((~used).sum())} of {len(used)} frames with no LED or several on ({flags} {', '.join(map(str, np.unique(state[~used])))}) were left out")
    if "FrameCounter" in frame and (lost := int((np.diff(frame["FrameCounter"].to_numpy(np.int64)) - 1).clip(0).sum())):
        rec.warn(f"FrameCounter jumps over {lost} frames that are not in the file")
    for bit in range(3, 16):
        line = (state >> bit) & 1
        if 0 < line.sum() < len(line):
            _events(rec, f"digital_bit{bit}", line, t, float(np.median(np.diff(t))))


def _colour(region: str) -> str:
    return "R" if "R" in region.removeprefix("Region") else "G"


def _regions(regions: list[str], nm: int, leds: set[int]) -> pd.DataFrame:
    """Channels named by region and excitation; 470 on green and 560 on red are signals, and 415 their control."""
    role = ["isosbestic" if nm == 415 else "signal" if (nm == 560) == (_colour(r) == "R") else "" for r in regions]
    control = [f"{r}_415" if x == "signal" and 1 in leds else "" for r, x in zip(regions, role)]
    return pd.DataFrame({"name": [f"{r}_{nm}" for r in regions], "kind": "photometry", "role": role, "isosbestic": control, "excitation": float(nm)})


# -- Doric and other tables ---------------------------------------------------------------------------------------------
def _columns(
    path: Path, rec: Recording, signal: list[str], isosbestic: list[str], time: str | None, time_unit: str | None, rate: float | None, unit: str, start: float
) -> None:  # fmt: skip
    skip = 0
    with path.open(encoding="utf-8-sig", errors="replace") as f:
        lines = [_cells(f.readline()) for _ in range(2)]
    if _is_doric(lines[1]) and not _is_doric(lines[0]):
        skip = 1  # Doric writes the groups of its columns above their names.
    ref = ArrayFile(str(path), skiprows=skip, header=True)
    names = [str(n) for n in table_layout(path, ref)[1]]
    filled = [k for k, n in enumerate(names) if n]
    frame = read_table(path, ArrayFile(str(path), skiprows=skip, header=True, columns=filled))
    frame.columns = pd.Index([names[k] for k in filled])
    if time is not None and time not in frame:
        raise InputError(f"{path}: has no column {time!r}{suggest(time, frame.columns)}; it has {', '.join(frame.columns)}")
    clock = time or next((c for c in frame.columns if c.lower() in _TIME), None)
    if clock is None and rate is None:
        raise InputError(f"{path}: has columns {', '.join(frame.columns)}, none of which is a time: pass time= (a column) or rate= (Hz)")
    digital = [c for c in frame.columns if re.match(r"DI(/|--)O", c)]
    light = [c for c in frame.columns if c not in (clock, *digital) and pd.api.types.is_numeric_dtype(frame[c])]
    if signal or isosbestic:
        _pair(path, light, signal, isosbestic, rec)
        light = [c for c in light if c in (*signal, *isosbestic)]
    if not light:
        raise FormatError(f"{path}: holds no column of numbers beside its time: it has {', '.join(frame.columns)}")
    if not len(frame):
        raise FormatError(f"{path}: holds no rows under its header")
    values = frame[light].to_numpy(dtype=np.float32)
    if rate is not None:
        timing: dict[str, Any] = {"values": values, "rate": rate, "start": start}
        t = start + np.arange(len(values)) / rate
    else:
        t = seconds(frame[clock], settled_unit(clock, unit_in_name(clock)[1], time_unit, str(path)), None, f"{path} {clock}")
        if not np.isfinite(t).all() or (np.diff(t) <= 0).any():
            bad = int(np.flatnonzero(~np.isfinite(t) | np.r_[False, np.diff(t) <= 0])[0])
            raise FormatError(f"{path}: {clock} is {frame[clock].iloc[bad]} in row {bad + 1}, expected times that increase: drop or complete that row")
        rec.source["first_timestamp"] = float(t[0])
        t = t - t[0] + start
        timing = lay_out(values, t)
    rec.signals["photometry"] = Signal(**timing, unit=unit, kind="photometry", channels=_pair(path, light, signal, isosbestic, rec))
    for c in digital:
        _events(rec, re.sub(r"\W+", "_", c), frame[c].to_numpy(dtype=np.float64) > 0.5, t, float(np.median(np.diff(t))))
