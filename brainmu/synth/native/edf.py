"""EDF+: 16-bit records of every channel, with stages and events as annotations (Kemp & Olivan 2003)."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainmu.core import EventTable, Hypnogram, Recording, Signal
from brainmu.errors import InputError
from brainmu.synth.native.blocks import hypnogram_of, microvolts, peaks, say_lost_columns, to_counts, voltages
from brainmu.synth.native.one_clock import on_session

__all__ = ["write"]

_BATCH = 64  # records at a time
_UNKNOWN_START = datetime(1985, 1, 1)  # the first day that EDF can say


def write(rec: Recording, path: Path, name: str) -> None:
    """Write the voltages of `rec`."""
    signals = _chosen(rec)
    record = _record_length({k: float(s.rate or 0) for k, s in signals.items()})
    per = {k: round(float(s.rate or 0) * record) for k, s in signals.items()}
    n = max(-(-s.n_samples // per[k]) for k, s in signals.items())
    factor = {k: microvolts(s) for k, s in signals.items()}
    top = {k: _physical(peaks(s)[0] * factor[k]) for k, s in signals.items()}
    notes = _annotations(rec, signals)
    tracks, width = _tracks(notes, n, record)
    with path.open("wb") as f:
        f.write(_header(rec, name, signals, per, top, n, record, width // 2))
        missing = clipped = 0
        for i in range(0, n, _BATCH):
            j, columns = min(n, i + _BATCH), []
            for k, s in signals.items():
                x = np.zeros(((j - i) * per[k], s.n_channels), dtype=np.float32)
                got = s.read(i * per[k], min(s.n_samples, j * per[k])) * np.float32(factor[k])
                x[: len(got)] = got
                counts, m, c = to_counts(x, top[k] / 32767)
                missing, clipped = missing + m, clipped + c
                columns += [counts[:, c].reshape(j - i, per[k]) for c in range(s.n_channels)]
            columns.append(np.frombuffer(b"".join(tracks[i:j]), dtype="<i2").reshape(j - i, width // 2))
            f.write(np.concatenate(columns, axis=1).astype("<i2").tobytes())
    if missing:
        rec.warn(f"EDF: {missing} missing samples were written as 0 uV and are annotated as 'gap'")
    short = [k for k, s in signals.items() if s.n_samples < n * per[k]]
    if short:
        rec.warn(f"EDF: {', '.join(short)} end within the last record, which was filled with 0 uV")


def _chosen(rec: Recording) -> dict[str, Signal]:
    found = voltages(rec)
    if not found:
        raise InputError(f"{rec.id}: has no sampled voltages ({', '.join(rec.signals) or 'no signals'}), EDF holds nothing else here")
    start = min(s.start for s in found.values())
    late = [k for k, s in found.items() if s.start - start > 0.5 / float(s.rate or 1)]
    if late:
        raise InputError(f"{rec.id}: {late[0]} starts {found[late[0]].start - start:g} s after the others, and EDF has one start for all: write it by itself")
    if abs(start) > 1e-9:
        rec.warn(f"EDF: its times count from its first sample, which is {start:g} s of the recording")
    left = [k for k in rec.signals if k not in found] + (["spikes"] if rec.spikes is not None else [])
    if left:
        rec.warn(f"EDF: {', '.join(left)} were left out, EDF holds voltages and annotations")
    return found


def _record_length(rates: dict[str, float]) -> float:
    """Shortest of the usual record lengths (s) that holds a whole number of samples of every signal."""
    for record in (1.0, 2.0, 4.0, 5.0, 8.0, 10.0, 0.5, 3.0, 6.0, 12.0, 16.0, 20.0, 30.0):
        if all(abs(r * record - round(r * record)) < 1e-6 and round(r * record) >= 1 for r in rates.values()):
            return record
    said = ", ".join(f"{k} {r:g} Hz" for k, r in rates.items())
    raise InputError(f"EDF holds a whole number of samples in every record of at most 30 s, which {said} do not have: resample, or write another format")


def _physical(top: NDArray[np.float64]) -> NDArray[np.float64]:
    """The largest value of each channel, rounded up to what eight characters can say."""
    return np.array([float(_eight(max(t, 1e-3) * 1.0001)) for t in top])


def _eight(value: float) -> str:
    for digits in range(7, -1, -1):
        text = f"{value:.{digits}f}"
        if len(text) <= 7:  # room for the minus sign of the physical minimum
            return text
    raise InputError(f"EDF cannot say {value:g} in eight characters: check the unit of the signals")


def _annotations(rec: Recording, signals: dict[str, Signal]) -> list[tuple[float, float, str]]:
    zero = min(s.start for s in signals.values())
    out: list[tuple[float, float, str]] = []
    scored = hypnogram_of(rec, "EDF")
    for name, label in on_session(rec, "EDF", signals, spikes=False).items():
        if isinstance(label, Hypnogram):
            if name != scored:
                continue
            # The texts of EDF+ are those of the AASM; a rodent's stages have none, and stand as they are.
            texts = {s: f"Sleep stage {s}" for s in label.stages} | {"ART": "Movement time", "UNS": "Sleep stage ?"}
            texts = texts if label.stage_set == "aasm5" else {}
            out += [(b.start, b.duration, texts.get(b.stage, b.stage)) for b in label.bouts().itertuples()]
        else:
            text = [name] * len(label)
            if isinstance(label, EventTable) and len(label):
                say_lost_columns(rec, "EDF", name, label, "content")
            if isinstance(label, EventTable) and any(label.content):
                text = [f"{name} {c}" for c in label.content]
            out += [(float(a), float(b - a), t) for a, b, t in zip(np.asarray(label.start), np.asarray(label.stop), text)]
    gaps = {(a, b) for s in signals.values() for a, b in s.gaps}
    out += [(a, b - a, "gap") for a, b in gaps]
    return sorted((t - zero, d, text) for t, d, text in out)


def _tracks(notes: list[tuple[float, float, str]], n: int, record: float) -> tuple[list[bytes], int]:
    """The annotation channel of every record, and its width in bytes; an annotation stands in the record where it begins (or the first, or the last)."""
    texts: list[list[bytes]] = [[f"+{i * record:g}".encode() + b"\x14\x14\x00"] for i in range(n)]
    for t, d, text in notes:
        length = b"\x15" + f"{d:.6f}".rstrip("0").rstrip(".").encode() if d > 0 else b""
        onset = f"{round(t, 6) + 0.0:+.6f}".rstrip("0").rstrip(".").encode()  # EDF+ has negative onsets: before the first sample
        texts[min(n - 1, max(0, int(t // record)))].append(onset + length + b"\x14" + text.encode() + b"\x14\x00")
    joined = [b"".join(t) for t in texts]
    width = max(len(t) for t in joined)
    width += width % 2
    return [t.ljust(width, b"\x00") for t in joined], width


def _header(
    rec: Recording, name: str, signals: dict[str, Signal], per: dict[str, int], top: dict[str, NDArray[np.float64]], n: int, record: float, note: int
) -> bytes:  # fmt: skip
    start = rec.started_at.replace(tzinfo=None) if rec.started_at is not None else _UNKNOWN_START
    sex = str(rec.subject_meta.get("sex", "X"))[:1].upper()
    patient = f"{(rec.subject or 'X').replace(' ', '_')} {sex if sex in 'MF' else 'X'} X X"
    month = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")[start.month - 1]
    session = f"Startdate {start:%d}-{month}-{start.year} {name} X X"
    labels = [(_label(c, s.kind, s.n_channels), _eight(t), per[k]) for k, s in signals.items() for c, t in zip(s.names, top[k])]
    count = len(labels) + 1
    fixed = f"{'0':<8}{patient:<80.80}{session:<80.80}{start:%d.%m.%y}{start:%H.%M.%S}{256 * (count + 1):<8}{'EDF+C':<44}{n:<8}{record:<8g}{count:<4}"
    columns = [
        [f"{c:<16.16}" for c, _, _ in labels] + [f"{'EDF Annotations':<16}"], [" " * 80] * count, [f"{'uV':<8}"] * len(labels) + [" " * 8],
        [f"{'-' + t:<8}" for _, t, _ in labels] + [f"{'-1':<8}"], [f"{t:<8}" for _, t, _ in labels] + [f"{'1':<8}"],
        [f"{'-32767':<8}"] * len(labels) + [f"{'-32768':<8}"], [f"{'32767':<8}"] * count, [" " * 80] * count,
        [f"{p:<8}" for _, _, p in labels] + [f"{note:<8}"], [" " * 32] * count,
    ]  # fmt: skip
    return (fixed + "".join("".join(c) for c in columns)).encode("ascii", "replace")


def _label(channel: str, kind: str, n: int) -> str:
    """Kind before the name, as EDF+ asks for ("EEG Fpz-Cz"), unless the name says it."""
    word = {"lfp": "LFP"}.get(kind, kind.upper())
    return channel if word.lower() in channel.lower() else f"{word} {channel}"
