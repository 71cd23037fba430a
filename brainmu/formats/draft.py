"""A first brainmu.yaml for a folder of plain arrays: everything that can be seen, and a question where it cannot."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from brainmu.errors import FormatError, NotFoundError
from brainmu.formats.arrays import ARRAY_SUFFIXES, load_array, members, open_array
from brainmu.formats.sources import ArrayFile

__all__ = ["draft_manifest"]

_ASK = "      # <- FILL IN: "
_KIND_WORDS = {
    "emg": ("emg", "muscle"), "eog": ("eog",), "ecg": ("ecg", "ekg"), "eeg": ("eeg", "ecog"), "lfp": ("lfp", "csc", "ephys"),
    "position": ("position", "pos", "xy", "tracking", "trajectory"), "speed": ("speed", "velocity"), "calcium": ("calcium", "dff", "roi", "fluor"),
    "photometry": ("photometry", "isosbestic", "gcamp"),
    "behaviour": ("behaviour", "behavior", "wheel", "pupil", "accelerometer", "accel", "whisker", "licking"),
    "features": ("features", "bandpower", "counts"),
}  # fmt: skip
_LABEL_WORDS = ("states", "state", "labels", "label", "hypnogram", "hypno", "stages", "scoring", "score", "sleep")
_SPIKE_WORDS = ("spikes", "spike", "units", "clusters", "cells")
_TIME_WORDS = ("times", "time", "timestamps", "onsets", "onset", "t", "ts")
_TABLE_WORDS = ("events", "event", "trials", "trial", "ripples", "spindles", "cues", "stim", "log")


@dataclass(frozen=True)
class _Array:
    file: str
    key: str
    shape: tuple[int, ...]
    dtype: str
    role: str  # signal kind, "hypnogram", "spikes", "events", "times" or "?"
    group: str
    codes: str = ""  # what a hypnogram holds
    skiprows: int = 0


def draft_manifest(folder: str | os.PathLike[str]) -> str:
    """YAML for the arrays in `folder`, to be filled in where it says FILL IN.

    Raises
    ------
    NotFoundError, FormatError
        If there is no such folder, or it holds no array file.
    """
    root = Path(folder)
    if not root.exists():
        raise NotFoundError(f"{root}: no such folder")
    if not root.is_dir():
        raise FormatError(f"{root}: is a file, expected the folder that holds the arrays")
    files = [p for p in sorted(root.rglob("*")) if p.is_file() and p.suffix.lower() in ARRAY_SUFFIXES and len(p.relative_to(root).parts) < 3]
    arrays = [a for p in files for a in _arrays(p, root)]
    if not arrays:
        raise FormatError(f"{root}: holds no array file ({', '.join(ARRAY_SUFFIXES)}), there is nothing to describe")
    groups: dict[str, list[_Array]] = {}
    for a in arrays:
        groups.setdefault(a.group, []).append(a)
    if len(groups) > 1 and (alike := _pattern(groups)) is not None:
        groups = {alike: next(iter(groups.values()))}
    lines = [
        "# Draft of a brainmu manifest. Fill in what is marked, delete what is not wanted, then: brainmu info FOLDER",
        "# Every key is explained in docs/how-to/manifest.md.",
        "species: ''" + _ASK + "mouse, rat, human, …",
        "subject: ''" + _ASK + "name of the animal or person (or one under each recording)",
        "recordings:",
    ]
    for group, members_ in groups.items():
        lines += _recording(group, members_, root)
    return "\n".join(lines) + "\n"


def _arrays(path: Path, root: Path) -> list[_Array]:
    file = path.relative_to(root).as_posix()
    try:
        found = members(path)
    except (FormatError, NotFoundError):
        # A damaged array is named when the manifest is read.
        return []
    skip = 0
    if path.suffix.lower() == ".txt":
        skip = _text_header(path)
        if skip < 0:
            return []
        # Counted again from where the numbers begin.
        table = open_array(path, ArrayFile(file, skiprows=skip))
        found = {"": (tuple(int(n) for n in table.shape), "numbers")}
    out = []
    for key, (shape, dtype) in found.items():
        words = re.split(r"[^a-z]+", f"{path.stem} {key}".lower())
        role = _role(words, shape, dtype)
        if role is None:
            continue
        known = {w for ws in (*_KIND_WORDS.values(), _LABEL_WORDS, _SPIKE_WORDS, _TABLE_WORDS, _TIME_WORDS) for w in ws}
        group = "_".join(w for w in re.split(r"[\s_.-]+", path.stem) if w.lower() not in known)
        codes = _codes(path, ArrayFile(file, key=key or None, skiprows=skip)) if role == "hypnogram" and max(shape, default=0) < 100_000 else ""
        out.append(_Array(file, key, shape, dtype, role, group, codes, skip))
    return out


def _text_header(path: Path) -> int:
    """Lines before the numbers of a .txt; -1 if it is prose (licences and notes end in .txt as well)."""
    with path.open(encoding="utf-8", errors="replace") as f:
        lines = [f.readline() for _ in range(12)]
    numeric = [bool(re.fullmatch(r"[\s\d.,;eE+-]+|nan", line.strip())) and bool(line.strip()) for line in lines]
    first = next((i for i, ok in enumerate(numeric) if ok), -1)
    return first if 0 <= first <= 3 and all(ok or not line for ok, line in zip(numeric[first:], lines[first:])) else -1


def _codes(path: Path, ref: ArrayFile) -> str:
    """The codes in a label array with how often each occurs, if there are few."""
    try:
        values, counts = np.unique(np.asarray(load_array(path, ref)), return_counts=True)
    except (FormatError, TypeError):
        return ""
    if len(values) > 12 or values.dtype.kind not in "iufU":
        return ""
    return ", ".join(f"{v:g} ({n})" if values.dtype.kind != "U" else f"{v} ({n})" for v, n in zip(values, counts))


def _role(words: list[str], shape: tuple[int, ...], dtype: str) -> str | None:
    if any(w in words for w in _LABEL_WORDS):
        return "hypnogram" if len([n for n in shape if n > 1]) <= 1 else "events"
    for kind, known in _KIND_WORDS.items():
        if any(w in words for w in known):
            return kind
    if any(w in words for w in _SPIKE_WORDS) or dtype in ("cell",):
        return "spikes"
    if any(w in words for w in _TIME_WORDS) and len([n for n in shape if n > 1]) == 1:
        return "times"
    if any(w in words for w in _TABLE_WORDS) or (dtype.startswith("table") and "table: 0" not in dtype):
        return "events"
    if dtype in ("struct", "char", "object", "sparse", "function") or math.prod(shape) < 2:
        return None
    return "?"


def _pattern(groups: dict[str, list[_Array]]) -> str | None:
    """The pattern "{subject}__{night}.npz" where every group is one file and their names differ in numbers or words only."""
    files = [{a.file for a in g} for g in groups.values()]
    if len(files) < 4 or any(len(f) != 1 for f in files):
        return None
    names = [next(iter(f)) for f in files]
    skeletons = {re.sub(r"[A-Za-z0-9]+", "*", n.rsplit(".", 1)[0]) + "." + n.rsplit(".", 1)[1] for n in names}
    if len(skeletons) != 1:
        return None
    fields = iter(["subject", "session", "part", "part2", "part3"])
    parts = next(iter(skeletons)).split("*")
    if not 1 <= len(parts) - 1 <= 4:
        return None
    return "".join(p + (f"{{{next(fields)}}}" if i < len(parts) - 1 else "") for i, p in enumerate(parts))


def _recording(group: str, arrays: list[_Array], root: Path) -> list[str]:
    lines = []
    if "{" in group:
        names = re.findall(r"\{(\w+)\}", group)
        lines += [f'  - each: "{group}"   # one recording a file; the names in braces may be used below', f'    id: "{"_".join(f"{{{n}}}" for n in names)}"']
        lines += ['    subject: "{subject}"'] if "subject" in names else []
        arrays = [replace(a, file=group) for a in arrays]
    else:
        lines.append(f"  - id: {re.sub(r'[^A-Za-z0-9.+-]+', '_', group).strip('_') or re.sub(r'[^A-Za-z0-9.+-]+', '_', root.resolve().name)}")
    signals = [a for a in arrays if a.role not in ("hypnogram", "spikes", "events", "times")]
    times = [a for a in arrays if a.role == "times"]
    longest = max((max(a.shape) for a in signals if a.shape), default=0)
    taken: set[str] = set()
    if signals:
        lines.append("    signals:")
        for a in signals:
            lines += _signal(a, taken, times)
    spikes = [a for a in arrays if a.role == "spikes"]
    if spikes:
        lines += ["    spikes:"]
        for i, a in enumerate(spikes):
            word = "times" if i == 0 else "unit" if i == 1 else f"# also seen: {a.file} {a.key}"
            lines.append(f"      {word}: {_place(a)}   # {_seen(a)}" if i < 2 else f"      {word}")
        lines.append("      time_unit: s" + _ASK + "s, ms, us, or samples (then rate: Hz)")
    labels = [a for a in arrays if a.role in ("hypnogram", "events")]
    if labels:
        lines.append("    labels:")
        for k, a in enumerate(labels):
            lines += _label(a, k, longest)
    return lines


def _seen(a: _Array) -> str:
    return f"{' x '.join(map(str, a.shape))} {a.dtype}"


def _place(a: _Array) -> str:
    return f"{{file: {_quoted(a.file)}{f', key: {a.key}' if a.key else ''}}}"


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[\w./-]+", text) else '"' + text.replace('"', '\\"') + '"'


def _signal(a: _Array, taken: set[str], times: list[_Array]) -> list[str]:
    base = a.role if a.role != "?" else re.sub(r"\W+", "_", a.key or Path(a.file).stem).lower()
    name = next(n for n in (base, *(f"{base}_{k}" for k in range(2, 999))) if n not in taken)
    taken.add(name)
    lines = [f"      {name}:", f"        file: {_quoted(a.file)}   # {_seen(a)}"]
    if a.key:
        lines.append(f"        key: {a.key}")
    raw = a.dtype == "bytes"
    if raw:
        lines += ["        dtype: int16" + _ASK + "type of a sample", "        n_channels:" + _ASK + "number of channels"]
        lines += ["        order: C   # C: sample by sample, F: channel by channel"]
    elif len(a.shape) == 2 and 1 < a.shape[0] < a.shape[1]:
        lines.append("        transpose: true   # more columns than rows: read as (channel, time)")
    elif len(a.shape) > 2:
        lines.append("        flatten: true   # axes after the first become channels")
    if a.skiprows:
        lines.append(f"        skiprows: {a.skiprows}")
    lines.append("        rate:" + _ASK + "sampling rate, Hz")
    for t in times:
        if max(t.shape) == max(a.shape, default=0):
            lines.append(f"        # times: {_place(t)}   # or these sample times instead of rate")
    lines.append("        unit:" + _ASK + "uV, mV, V, m, cm, px, … or a.u.")
    lines.append(f"        kind: {a.role}" if a.role != "?" else "        kind:" + _ASK + "lfp, eeg, emg, eog, calcium, position, features, …")
    n = 0 if raw else math.prod(a.shape[1:]) if len(a.shape) > 2 else min(a.shape) if len(a.shape) == 2 else 1
    if n > 1:
        lines.append(f"        # channels: [name, …]   # {n} names")
    return lines


def _label(a: _Array, k: int, longest: int) -> list[str]:
    if a.role == "events":
        name = re.sub(r"\W+", "_", Path(a.file).stem.lower() if "{" not in a.file else f"events_{k}")
        lines = [f"      {name}:", "        type: events", f"        file: {_quoted(a.file)}   # {_seen(a)}"]
        lines += [f"        skiprows: {a.skiprows}"] if a.skiprows else []
        return [
            *lines,
            "        # rename: {start: …, stop: …}   # if its columns are not named start and stop (or onset and duration); 0, 1, … without a header",
        ]
    n = max(a.shape) if a.shape else 0
    hint = ""
    if n and longest > n:
        hint = f" ({longest // n} samples an epoch)" if longest % n == 0 else f" (about {longest / n:.0f} samples an epoch)"
    name = "scoring" if k == 0 else f"scoring_{k + 1}"
    lines = [f"      {name}:", "        type: hypnogram", f"        file: {_quoted(a.file)}   # {_seen(a)}{hint}"]
    if a.key:
        lines.append(f"        key: {a.key}")
    if a.skiprows:
        lines.append(f"        skiprows: {a.skiprows}")
    lines.append("        epoch:" + _ASK + "length of an epoch, s")
    if "str" not in a.dtype and "<U" not in a.dtype:
        held = f"; it holds {a.codes}" if a.codes else ""
        lines.append("        map: {}" + _ASK + f"what each code means, e.g. {{1: WAKE, 2: NREM, 3: REM, 0: UNS}}{held}")
    return lines
