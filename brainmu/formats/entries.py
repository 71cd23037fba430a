"""The parts of a manifest turned into signals, spikes and labels."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable, Hypnogram, Intervals, Recording, Signal, Spikes
from brainmu.core.hypnogram import CODECS
from brainmu.core.recording import Label
from brainmu.core.signal import KINDS
from brainmu.core.units import unit_factor
from brainmu.errors import FormatError, InputError
from brainmu.formats.arrays import load_array, open_array
from brainmu.formats.eventlogs import read_events
from brainmu.formats.lazy import Stacked
from brainmu.formats.manifest import ClockEntry, LabelEntry, Manifest, SignalEntry, SpikesEntry
from brainmu.formats.sources import ArrayFile, need_file
from brainmu.formats.tables import read_table, table_names
from brainmu.formats.timing import lay_out, seconds, settled_unit, unit_in_name

__all__ = ["read_clock", "read_label", "read_signal", "read_spikes", "use_file"]

_VOLTAGES = ("lfp", "eeg", "emg", "eog", "ecg")
_FASTEST = 1e6
"""Hz. A greater rate is a mistake of units; what is derived at other rates would fill all memory."""


def read_signal(m: Manifest, entry: SignalEntry, name: str, rec: Recording) -> Signal:
    """A lazy Signal; voltages are brought to µV and positions to m, unknown units are kept and noted."""
    if entry.kind is None:
        raise InputError(f"signal {name!r} has no kind: give one of {', '.join(KINDS)}")
    if entry.kind not in KINDS:
        from brainmu.config import suggest

        raise InputError(f"signal {name!r}: kind is {entry.kind!r}{suggest(entry.kind, KINDS)}; expected one of {', '.join(KINDS)}")
    if entry.unit is None:
        raise InputError(f"signal {name!r} has no unit: give the physical unit of its values (uV, mV, m, px, …), or a.u. where it is arbitrary")
    files = entry.files if entry.files is not None else [entry.file]
    if not isinstance(files, list) or not files or not all(isinstance(f, str) and f for f in files):
        raise InputError(f"signal {name!r} names no file: give file: (one) or files: (a list, side by side as channels)")
    parts = [_tracked(m, entry, name, f, rec) if entry.format else open_array(use_file(m, rec, f), _at(entry, f)) for f in files]
    if len({p.shape[0] for p in parts}) > 1:
        raise FormatError(f"signal {name!r}: its files have {', '.join(str(p.shape[0]) for p in parts)} samples, expected the same number in each")
    values = parts[0] if len(parts) == 1 else Stacked(parts)
    timing = _timing(m, entry, name, rec, values)
    factor, unit = unit_factor(entry.unit, kind=entry.kind)
    if entry.kind in _VOLTAGES and unit != "uV":
        rec.warn(f"signal {name}: its unit is {unit!r}, which is not a voltage: values stay unscaled, thresholds in µV do not apply")
    elif entry.kind == "position" and unit != "m":
        rec.warn(f"signal {name}: position is in {unit!r}, not metres: speeds and errors are in that unit")
    if entry.kind in _VOLTAGES and unit == "uV":
        _doubt_voltage(name, np.dtype(values.dtype), entry, rec)
    scale = factor * (1.0 if entry.scale is None else entry.scale)
    channels = _channels(entry, values.shape[1], m.root / files[0] if len(files) == 1 and not entry.format else None)
    if channels is None and entry.format and len(files) == 1:
        channels = ["x", "y"]
    signal = Signal(**timing, unit=unit, kind=entry.kind, channels=channels, scale=scale, missing=entry.missing, attrs=dict(entry.attrs))
    if entry.region:
        signal.channels.loc[signal.channels["region"] == "", "region"] = entry.region
    return signal


def _tracked(m: Manifest, entry: SignalEntry, name: str, file: str, rec: Recording) -> Any:
    """Position of a tracked body part (frame, 2), NaN where it was not seen."""
    from brainmu.formats import pose

    if entry.track == "all":
        raise InputError(f"signal {name!r}: track is 'all', expected one animal: name each in a signal of its own")
    path = use_file(m, rec, file)
    if not pose.detect(need_file(path, "tracked body parts")):
        raise FormatError(f"{path}: format is {entry.format}, and this is no table of DeepLabCut or analysis file of SLEAP: leave format out")
    tracked = pose.read(path, rate=1.0, part=entry.part, track=entry.track, likelihood=entry.likelihood)
    for sentence in tracked.warnings:
        if "pixels_per_cm" not in sentence:
            rec.warn(f"signal {name}: {sentence.replace('part=', 'part:').replace('track=', 'track:')}")
    return tracked.signals["position"].values


def _doubt_voltage(name: str, dtype: np.dtype[Any], entry: SignalEntry, rec: Recording) -> None:
    """Say that numbers of this type are seldom volts as they stand."""
    if dtype.kind == "b":
        rec.warn(f"signal {name}: true and false are taken as 1 and 0 {entry.unit}: is it a sync or digital line (kind: sync)?")
    elif dtype.kind == "u":
        rec.warn(f"signal {name}: holds {dtype}, which has no negative values: if it is offset binary, its mean is not 0 V; save it as signed integers")
    elif dtype.kind == "i" and entry.scale is None:
        rec.warn(
            f"signal {name}: holds {dtype} and no scale is given: values are taken as 1 {entry.unit} a step; give scale: if the amplifier's step is another"
        )


def read_spikes(m: Manifest, entry: SpikesEntry, rec: Recording) -> Spikes:
    """All spikes, from one array of times and one of unit ids, or from an array (cell) a unit."""
    ref = _reference(m, entry.times, "spikes: times")
    times = load_array(use_file(m, rec, ref.file), ref)
    where = f"{m.root / ref.file}{' ' + ref.key if ref.key else ''}"
    if entry.unit is not None:
        other = _reference(m, entry.unit, "spikes: unit")
        unit = np.asarray(load_array(use_file(m, rec, other.file), other)).ravel()
        t = seconds(times, _unit(m, ref, entry.time_unit), entry.rate, where)
    elif times.dtype == object:
        cells = [seconds(np.asarray(c, dtype=np.float64), entry.time_unit or "s", entry.rate, where) for c in times.ravel()]
        unit = np.repeat(np.arange(len(cells)), [len(c) for c in cells])
        t = np.concatenate(cells) if cells else np.empty(0)
    else:
        raise InputError(f"spikes: times is one array of shape {times.shape} and no unit is given: name the array of unit ids with unit:")
    bad = ~np.isfinite(t)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise FormatError(f"{where}: {int(bad.sum())} of {len(t)} spike times are NaN or infinite (the first is spike {first}): drop them first")
    _doubt_spikes(t + entry.start, unit, rec)
    units = None
    if entry.units is not None:
        table = _reference(m, entry.units, "spikes: units")
        units = read_table(use_file(m, rec, table.file), table)
    elif entry.unit is None:
        units = pd.DataFrame({"id": np.arange(len(cells))})
    if units is not None and "id" in units:
        silent = [int(i) for i in units["id"] if not (unit == i).any()]
        if silent:
            shown = ", ".join(map(str, silent[:10])) + ("…" if len(silent) > 10 else "")
            rec.warn(f"spikes: {len(silent)} of {len(units)} units have no spikes ({shown}), left out")
            units = units[~units["id"].isin(silent)]
    return Spikes(t + entry.start, unit, units)


def _doubt_spikes(t: NDArray[np.float64], unit: NDArray[Any], rec: Recording) -> None:
    """Say what is strange about spikes that are kept as they are: out of order, before the session, or listed twice."""
    if t.shape != unit.shape or not len(t) or unit.dtype.kind not in "iuf":
        return  # errors of Spikes
    if (back := np.diff(t) < 0).any() and (np.diff(unit) == 0)[back].any():
        rec.warn(f"spikes: their times were not in order (the first that goes back is spike {int(np.flatnonzero(back)[0]) + 1}): they were sorted")
    if (early := int((t < 0).sum())) > 0:
        rec.warn(f"spikes: {early} of {len(t)} lie before session time zero (the first at {t.min():g} s): check start and time_unit")
    order = np.lexsort((t, unit))
    twice = int(((np.diff(t[order]) == 0) & (np.diff(unit[order]) == 0)).sum())
    if twice:
        rec.warn(f"spikes: {twice} of {len(t)} are listed twice (same time and unit) and kept: drop duplicates if the sorter's file was joined from pieces")


def read_clock(m: Manifest, entry: ClockEntry, name: str, rec: Recording) -> dict[str, Any]:
    """What is known of a clock, as :func:`brainmu.store.align` takes it; pulses in files are read here."""
    out: dict[str, Any] = {k: v for k in ("near", "offset", "ppm") if (v := getattr(entry, k)) is not None}
    if entry.reference:
        out["reference"] = True
    if isinstance(entry.pulses, str) and not (m.root / entry.pulses).is_file():
        out["pulses"] = entry.pulses  # a label or a signal of this recording
    elif entry.pulses is not None:
        ref = _reference(m, entry.pulses, f"clock {name!r}: pulses")
        times = seconds(load_array(use_file(m, rec, ref.file), ref), _unit(m, ref, entry.time_unit), entry.rate, str(m.root / ref.file)) + entry.start
        out["pulses"] = times
    if not out:
        raise InputError(f"clock {name!r} says nothing: give its pulses, or offset (s) and ppm where they are known, or reference: true")
    return out


def read_label(m: Manifest, entry: LabelEntry, name: str, rec: Recording) -> Label:
    """A Hypnogram, an EventTable or Intervals."""
    if entry.format is not None:
        return _scoring(m, entry, name, rec)
    if entry.type is None:
        raise InputError(f"label {name!r} has no type: give hypnogram, events or intervals")
    if (entry.bounds is None) == (not entry.file):
        raise InputError(f"label {name!r}: give either file: or bounds: (a list of [start, stop] in s)")
    if entry.type == "hypnogram":
        return _hypnogram(m, entry, name, rec)
    if entry.type == "intervals":
        return _intervals(m, entry, name, rec)
    if entry.bounds is not None:
        b = _bounds(entry, name)
        return EventTable(b[:, 0], b[:, 1], kind=entry.kind, content=entry.content, attrs=dict(entry.attrs))
    return _events(m, entry, name, rec)


def _scoring(m: Manifest, entry: LabelEntry, name: str, rec: Recording) -> Label:
    """The label file of another tool."""
    from brainmu.formats.scorings import read_scoring

    if not entry.file:
        raise InputError(f"label {name!r}: names no file: format: {entry.format} needs one")
    label = read_scoring(
        use_file(m, rec, entry.file), format=entry.format, epoch=entry.epoch, start=entry.start, map=entry.map, rk=entry.rk, stages=entry.stages,
        scorer=entry.scorer,
    )  # fmt: skip
    for sentence in label.attrs.pop("notes", []):
        rec.warn(f"label {name}: {sentence}")
    return label


# -- parts ----------------------------------------------------------------------------------------------------------
def use_file(m: Manifest, rec: Recording, file: str) -> Path:
    """Path of a file that the manifest names, which counts as one of the recording's sources from now on."""
    path = m.root / file
    full = str(path.resolve())
    if full not in rec.source["files"]:
        rec.source["files"].append(full)
    return path


def _at(entry: ArrayFile, file: str) -> ArrayFile:
    return ArrayFile(**{k: getattr(entry, k) for k in ArrayFile.__dataclass_fields__} | {"file": file})


def _reference(m: Manifest, value: Any, what: str) -> ArrayFile:
    return m.build(ArrayFile, {"file": value} if isinstance(value, str) else value, what, "spikes")


def _unit(m: Manifest, ref: ArrayFile, said: str | None) -> str:
    """The unit of an array of times: what time_unit says, or the names of the columns of a table, such as timestamp_ms."""
    for column in table_names(m.root / ref.file, ref) or []:
        said = settled_unit(column, unit_in_name(column)[1], said, str(m.root / ref.file)) if unit_in_name(column)[1] else said
    return said or "s"


def _timing(m: Manifest, entry: SignalEntry, name: str, rec: Recording, values: Any) -> dict[str, Any]:
    """values with rate and start, or with times; evenly spaced times become a rate (with gaps, if pieces are missing)."""
    if entry.times is None:
        if entry.rate is None:
            raise InputError(f"signal {name!r} has neither rate nor times: give rate (Hz)")
        if not entry.rate > 0:
            raise InputError(f"signal {name!r}: rate is {entry.rate:g} Hz, expected a positive number")
        if entry.rate > _FASTEST:
            raise InputError(
                f"signal {name!r}: rate is {entry.rate:g} Hz, expected samples a second, at most {_FASTEST:g}: is it in mHz, or a number of samples?"
            )
        return {"values": values, "rate": entry.rate, "start": entry.start}
    if entry.rate is not None and entry.time_unit != "samples":
        raise InputError(f"signal {name!r} has both rate and times: give one of them (or time_unit: samples)")
    ref = _reference(m, entry.times, f"signal {name!r}: times")
    t = seconds(load_array(use_file(m, rec, ref.file), ref), _unit(m, ref, entry.time_unit), entry.rate, str(m.root / ref.file)) + entry.start
    if len(t) != values.shape[0]:
        raise FormatError(f"signal {name!r}: {len(t)} times in {m.root / ref.file} for {values.shape[0]} samples: give one time a sample")
    if entry.missing is not None:
        return {"values": values, "times": t}
    laid = lay_out(values, t)
    if "rate" in laid and laid["rate"] > _FASTEST:
        raise InputError(f"signal {name!r}: its times are {1 / laid['rate']:g} s apart ({laid['rate']:g} Hz): check time_unit")
    if "gaps" in laid:
        rec.warn(f"signal {name}: {len(laid['gaps'])} gaps of {laid['gaps'].duration:.3f} s in all are missing samples (NaN)")
    return laid


def _channels(entry: SignalEntry, n: int, path: Path | None) -> Any:
    given = entry.channels
    if given is None:
        return table_names(path, entry) if path is not None else None
    if not isinstance(given, list) or not given:
        raise InputError(f"channels are {given!r}, expected a list of names")
    if all(isinstance(c, dict) for c in given):
        frame = pd.DataFrame(given)
        for column in ("kind", "region"):
            if column in frame:
                frame[column] = frame[column].fillna(entry.kind if column == "kind" else entry.region)
        return frame
    if all(isinstance(c, list) for c in given):
        return ["_".join(map(str, names)) for names in itertools.product(*given)]
    return [str(c) for c in given]


def _hypnogram(m: Manifest, entry: LabelEntry, name: str, rec: Recording) -> Hypnogram:
    if entry.epoch is None or not entry.epoch > 0:
        raise InputError(f"label {name!r}: epoch is {entry.epoch!r}, expected the length of an epoch in s")
    if entry.bounds is not None:
        raise InputError(f"label {name!r}: a hypnogram is read from a file, not from bounds")
    path = use_file(m, rec, entry.file)
    ref = _at(entry, entry.file)
    if ref.header is None and ref.columns is None and any(_is_stage(n) for n in table_names(path, ref) or []):
        ref = replace(ref, header=False)  # stages by name from the first line on
    raw = np.asarray(load_array(path, ref))
    codes = raw.ravel()
    if not len(codes):
        raise FormatError(f"{path}: holds no epochs")
    if raw.ndim > 1 and max(raw.shape) != raw.size:
        raise FormatError(f"{path}: has shape {raw.shape}, expected one stage an epoch: choose one column with columns:")
    if codes.dtype.kind not in "fiub":
        stages: list[Any] = [str(s) for s in codes]
        table: dict[Any, str] | None = {str(k): str(v) for k, v in entry.map.items()} if entry.map else None
    else:
        if codes.dtype.kind == "f" and not (codes == np.rint(codes)).all():
            raise FormatError(f"{path}: holds {codes[codes != np.rint(codes)][0]}, expected whole numbers, one code an epoch")
        stages = [int(c) for c in codes]
        if entry.map is None and entry.codec is None:
            found = ", ".join(map(str, sorted(set(stages))))
            raise InputError(f"label {name!r}: {entry.file} holds the codes {found}: say what they mean with map: or codec: ({', '.join(CODECS)})")
        if entry.codec is not None and entry.codec not in CODECS:
            raise InputError(f"label {name!r}: codec is {entry.codec!r}, expected one of {', '.join(CODECS)} (or map:)")
        if any(not isinstance(k, int) for k in entry.map or {}):
            raise InputError(f"label {name!r}: map names {', '.join(map(repr, entry.map or {}))}, and {entry.file} holds integers: give each code its stage")
        table = {k: str(v) for k, v in entry.map.items()} if entry.map is not None else CODECS[str(entry.codec)]
    if table is not None:
        stray = sorted({s for s in stages if s not in table}, key=str)
        if stray:
            said = f"codec {entry.codec}" if entry.map is None else "map"
            raise InputError(f"label {name!r}: {entry.file} holds {stray[0]!r}, which {said} does not name (it names {', '.join(map(str, table))})")
        stages = [table[s] for s in stages]
    scorer = entry.scorer or (entry.codec or "")
    h = Hypnogram.from_stages(stages, entry.epoch, entry.start, scorer=scorer, rk=entry.rk, stage_set=entry.stages, attrs=dict(entry.attrs))
    if "merged" in h.attrs:
        rec.warn(f"label {name}: {h.attrs['merged']}")
    return h


def _is_stage(word: str) -> bool:
    try:
        Hypnogram.from_stages([word], 1.0, rk=True)
    except InputError:
        return False
    return True


def _bounds(entry: LabelEntry, name: str) -> Any:
    rows = entry.bounds
    if not isinstance(rows, list) or not all(isinstance(r, list) and len(r) == 2 and all(type(v) in (int, float) for v in r) for r in rows):
        raise InputError(f"label {name!r}: bounds are {rows!r}, expected [[start, stop], …] in s")
    return np.asarray(rows, dtype=np.float64).reshape(-1, 2) + entry.start


def _intervals(m: Manifest, entry: LabelEntry, name: str, rec: Recording) -> Intervals:
    if entry.bounds is not None:
        return _disjoint(_bounds(entry, name), f"label {name!r}: bounds", InputError)
    path = use_file(m, rec, entry.file)
    values = np.asarray(load_array(path, _at(entry, entry.file)))
    if values.ndim == 2 and values.shape[0] == 2 and values.shape[1] != 2 and entry.transpose is not False:
        values = values.T
    if values.ndim != 2 or values.shape[1] != 2:
        raise FormatError(f"{path}: has shape {values.shape}, expected (n, 2): start and stop of each interval (choose with columns:)")
    t = seconds(values, _unit(m, _at(entry, entry.file), entry.time_unit), entry.rate, str(path)).reshape(-1, 2)
    return _disjoint(t + entry.start, f"{path}", FormatError)


def _disjoint(b: NDArray[np.float64], where: str, error: type[InputError] | type[FormatError]) -> Intervals:
    """Intervals, or what is wrong with them in words for the author of a manifest."""
    wrong = ~np.isfinite(b).all(1) | (b[:, 1] <= b[:, 0])
    if wrong.any():
        k = int(np.flatnonzero(wrong)[0])
        raise error(f"{where}: interval {k + 1} is [{b[k, 0]:g}, {b[k, 1]:g}] s, expected numbers, the stop after the start: correct or remove it")
    if (clash := b[1:, 0] < b[:-1, 1]).any():
        k = int(np.flatnonzero(clash)[0])
        raise error(
            f"{where}: interval {k + 2} [{b[k + 1, 0]:g}, {b[k + 1, 1]:g}] s starts before interval {k + 1} [{b[k, 0]:g}, {b[k, 1]:g}] s stops: "
            "list them in order and unite those that overlap, or use type: events, which may overlap"
        )
    return Intervals(b)


def _events(m: Manifest, entry: LabelEntry, name: str, rec: Recording) -> EventTable:
    path = use_file(m, rec, entry.file)
    ref = _at(entry, entry.file)
    if path.suffix.lower() in (".csv", ".tsv", ".txt"):
        frame = read_table(path, ref)
    else:
        values = np.asarray(load_array(path, ref))
        values = values[:, None] if values.ndim == 1 else values
        frame = pd.DataFrame(values)
    table = read_events(
        path, frame=frame, rename=entry.rename, time_unit=entry.time_unit, rate=entry.rate, start=entry.start, kind=entry.kind, content=entry.content
    )
    table.attrs.update(entry.attrs)
    return table
