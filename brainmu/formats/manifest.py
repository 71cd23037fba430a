"""brainmu.yaml: how a folder of plain arrays says what it holds. Keys are strict; errors name file, line and the nearest right key."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import yaml

from brainmu.config import load_config, read_yaml, suggest
from brainmu.core import Recording
from brainmu.errors import BrainmuError, ConfigError, InputError, MissingDataError
from brainmu.formats.sources import ArrayFile

__all__ = ["MANIFEST", "ClockEntry", "LabelEntry", "Manifest", "RecordingEntry", "SignalEntry", "SpikesEntry", "detect", "read", "read_all"]

MANIFEST = "brainmu.yaml"
T = TypeVar("T")


@dataclass(frozen=True)
class SignalEntry(ArrayFile):
    """One signal: where its array lies (see :class:`ArrayFile`), and what it is.

    Attributes
    ----------
    files : list of str
        Several files of equal length, side by side as channels, instead of `file`.
    rate, start : float, Hz and s
    times : mapping
        Array of sample times instead of a rate; `time_unit` says its unit.
    unit, kind : str
    scale : float
        What one step of the array is in `unit`.
    missing : int
        The integer that marks a missing sample.
    channels : list
        Names, or mappings with name and kind, region, x, y, z …; two or more lists of names are combined (flatten).
    region : str
    clock : str
        Name of the clock it was recorded on, one of `clocks:`; default is the session's.
    format : "deeplabcut", "sleap" or "pose"
        The file holds tracked body parts; the signal is the position (x, y) of `part` of the animal `track`, where it is seen with `likelihood` or more.
    attrs : mapping
    """

    file: str = ""
    files: Any = None
    format: Literal["deeplabcut", "sleap", "pose"] | None = None
    part: str | None = None
    track: Any = 0
    likelihood: float | None = None
    rate: float | None = None
    start: float = 0.0
    times: Any = None
    time_unit: str | None = None
    unit: str | None = None
    kind: str | None = None
    scale: float | None = None
    missing: int | None = None
    channels: Any = None
    region: str = ""
    clock: str = ""
    attrs: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class SpikesEntry:
    """Spike times and who fired them.

    Attributes
    ----------
    times : mapping
        Array of all spike times, or (without `unit`) one cell or one array a unit.
    unit : mapping
        Array of integer ids, one a spike.
    units : mapping
        Table (csv, tsv) with a column id and any others (region, quality, …).
    time_unit : str
        s, ms, us or samples (then `rate`, Hz).
    start : float, s
        Session time of spike time zero.
    clock : str
        Name of the clock the times are on.
    """

    times: Any
    unit: Any = None
    units: Any = None
    time_unit: str | None = None
    rate: float | None = None
    start: float = 0.0
    clock: str = ""


@dataclass(frozen=True)
class ClockEntry:
    """A clock, and the sync pulses by which it is brought to the others' time.

    Attributes
    ----------
    pulses : mapping or text
        Array of the times of the pulses on this clock, or the name of an event label or of a sync signal of this recording.
    time_unit : str
        s, ms, us, min, h or samples (then `rate`, Hz).
    start : float, s
        Added to the times of the pulses.
    near : float, s
        Roughly what to add to this clock's times to have the session's, where pulses are regular.
    offset, ppm : float, s and parts per million
        The map itself, where it is known without pulses.
    reference : bool
        Its time is the session's.
    """

    pulses: Any = None
    time_unit: str | None = None
    rate: float | None = None
    start: float = 0.0
    near: float | None = None
    offset: float | None = None
    ppm: float | None = None
    reference: bool = False


@dataclass(frozen=True)
class LabelEntry(ArrayFile):
    """A hypnogram, a table of events, or intervals.

    Attributes
    ----------
    type : "hypnogram", "events" or "intervals"
    format : str
        Tool whose label file it is (accusleep, somnotate, visbrain, yasa, buzcode, elan, sleepsign, times, edf, bids), instead of `type`.
    bounds : list of [start, stop], s
        Intervals (or events) written in the manifest itself.
    epoch, start : float, s
    codec : str
        Tool whose integers these are (yasa, accusleep, somnotate, buzcode), or `map`: {1: WAKE, 2: NREM, …}.
    rk : bool
        Merge Rechtschaffen & Kales S3 and S4 into N3.
    stages : "aasm5" or "rodent3"
    scorer, kind, content : str
    time_unit : str
    rate : float
        Hz, where time_unit is samples.
    clock : str
        Name of the clock its times are on.
    rename : mapping
        {our name: column of the table}, for start, stop, duration, peak, content, kind and any other.
    """

    file: str = ""
    type: Literal["hypnogram", "events", "intervals"] | None = None
    format: str | None = None
    bounds: Any = None
    epoch: float | None = None
    start: float = 0.0
    codec: str | None = None
    map: dict[Any, Any] | None = None
    rk: bool = False
    stages: Literal["aasm5", "rodent3"] | None = None
    scorer: str = ""
    kind: str | None = None
    content: str | None = None
    time_unit: str | None = None
    rate: float | None = None
    clock: str = ""
    rename: dict[str, Any] = dataclasses.field(default_factory=dict)
    attrs: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class RecordingEntry:
    """One recording. `each` is a file pattern such as "{subject}__{night}.npz"; every match is one recording. `subjects` is a table of the animals."""

    id: Any = None
    each: str | None = None
    subject: Any = ""
    species: str = ""
    started_at: Any = None
    zeitgeber: float | None = None
    subject_meta: dict[str, Any] = dataclasses.field(default_factory=dict)
    subjects: str | None = None
    signals: dict[str, Any] = dataclasses.field(default_factory=dict)
    spikes: Any = None
    labels: dict[str, Any] = dataclasses.field(default_factory=dict)
    clocks: dict[str, Any] = dataclasses.field(default_factory=dict)
    notes: Any = None


_TOP = ("version", "root", "recordings")
_SHARED = ("subject", "species", "subject_meta", "subjects", "zeitgeber", "started_at", "notes")


class Manifest:
    """A parsed brainmu.yaml.

    Parameters
    ----------
    path : Path
        The YAML file.
    root : Path or None
        Folder that file names are relative to; default is `root:` of the manifest, or else its own folder.

    Raises
    ------
    ConfigError
        If a key is unknown or a value is wrong; the message names file and line.
    """

    def __init__(self, path: Path, root: Path | None = None) -> None:
        self.path = path
        self.data = read_yaml(path)
        # A second pass keeps the line of every key for messages; read_yaml has made sure that it parses.
        self._node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        if not self.data:
            raise ConfigError(f"{path}: is empty: draft one with `brainmu info FOLDER --write-manifest`")
        given = self.data.get("root")
        self.root = Path(root) if root is not None else (path.parent / str(given) if given else path.parent)
        self.entries = self._recordings()

    def line(self, *where: Any) -> int | None:
        """Line (from 1) of the key or list item that the steps in `where` lead to, or of the last step that exists."""
        node, line = self._node, None
        for step in where:
            nxt = None
            if isinstance(node, yaml.MappingNode):
                for key, value in node.value:
                    if key.value == str(step):
                        nxt, line = value, key.start_mark.line + 1
            elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
                nxt = node.value[step]
                line = nxt.start_mark.line + 1
            if nxt is None:
                break
            node = nxt
        return line

    def fail(self, message: str, *where: Any) -> NoReturn:
        """Raise ConfigError with file and line."""
        line = self.line(*where)
        raise ConfigError(f"{self.path}{f', line {line}' if line else ''}: {message}") from None

    def build(self, cls: type[T], data: Any, what: str, *where: Any) -> T:
        """An entry dataclass from a mapping, checked key by key."""
        if not isinstance(data, dict):
            self.fail(f"{what} is {data!r}, expected a mapping of keys to values", *where)
        names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
        for key in data:
            if key not in names:
                self.fail(f"{what}: unknown key {key!r}{suggest(str(key), names)}; known keys are {', '.join(names)}", *where, key)
        try:
            return load_config(cls, {k: v for k, v in data.items() if v is not None})
        except ConfigError as error:
            message = str(error).removeprefix(f"{cls.__name__}: ")
            key = message.split(":")[0]
            if "missing" in message:
                wanted = ", ".join(re.findall(r"'(\w+)'", message))
                self.fail(f"{what}: lacks {wanted}: fill it in", *where)
            self.fail(f"{what}: {message}", *where, *([key] if key in data else []))

    def _recordings(self) -> list[tuple[RecordingEntry, tuple[Any, ...]]]:
        listed = self.data.get("recordings")
        if listed is None:
            own = {k: v for k, v in self.data.items() if k not in _TOP}
            entries = [(own, ())]
        else:
            known = (*_TOP, *_SHARED)
            for key in self.data:
                if key not in known:
                    self.fail(f"unknown key {key!r}{suggest(str(key), known)}; beside recordings stand {', '.join(known)}", key)
            if not isinstance(listed, list) or not listed:
                self.fail(f"recordings is {listed!r}, expected a list, one item a recording", "recordings")
            shared = {k: self.data[k] for k in _SHARED if k in self.data}
            entries = [(shared | r if isinstance(r, dict) else r, ("recordings", i)) for i, r in enumerate(listed)]
        if self.data.get("version", 1) != 1:
            self.fail(f"version is {self.data['version']!r}, expected 1", "version")
        if not self.root.is_dir():
            self.fail(f"root is {self.root}, which is not a folder", "root")
        out: list[tuple[RecordingEntry, tuple[Any, ...]]] = []
        for data, where in entries:
            entry = self.build(RecordingEntry, data, "recording" if not where else f"recording {where[1] + 1}", *where)
            out += [(entry, where)] if entry.each is None else [(e, where) for e in self._each(entry, where)]
        ids = [self.id_of(e) for e, _ in out]
        for i in ids:
            if ids.count(i) > 1:
                self.fail(f"{ids.count(i)} recordings have the id {i!r}: give each its own id", *out[ids.index(i)][1], "id")
        return out

    def id_of(self, entry: RecordingEntry) -> str:
        """Id of a recording, by default the folder's name."""
        return str(entry.id) if entry.id is not None else self.root.resolve().name

    def _each(self, entry: RecordingEntry, where: tuple[Any, ...]) -> list[RecordingEntry]:
        """One entry a file that matches the pattern, its {names} filled in everywhere."""
        pattern = str(entry.each)
        names = re.findall(r"\{(\w+)\}", pattern)
        if not names or len(set(names)) < len(names):
            self.fail(f"each is {pattern!r}, expected a pattern with names in braces, each once, such as '{{subject}}_{{day}}.npz'", *where, "each")
        regex = re.compile("".join(f"(?P<{p[1:-1]}>[^/]+?)" if p.startswith("{") else re.escape(p) for p in re.split(r"(\{\w+\})", pattern)))
        depth = re.sub(r"\{\w+\}", "*", pattern)
        found = []
        for path in sorted(self.root.glob(depth)):
            match = regex.fullmatch(path.relative_to(self.root).as_posix())
            if match:
                found.append(match.groupdict())
        if not found:
            self.fail(f"each is {pattern!r} and no file in {self.root} matches it", *where, "each")
        raw = dataclasses.asdict(entry) | {"each": None}
        if raw["id"] is None:
            raw["id"] = "_".join(f"{{{n}}}" for n in names)
        return [RecordingEntry(**_filled(raw, values)) for values in found]


def _filled(value: Any, names: Mapping[str, str]) -> Any:
    """`value` with every {name} replaced, in all strings of nested mappings and lists."""
    if isinstance(value, str):
        return re.sub(r"\{(\w+)\}", lambda m: names.get(m.group(1), m.group(0)), value)
    if isinstance(value, dict):
        return {k: _filled(v, names) for k, v in value.items()}
    return [_filled(v, names) for v in value] if isinstance(value, list) else value


# -- reading --------------------------------------------------------------------------------------------------------
def detect(path: Path) -> bool:
    """Whether `path` is a manifest or a folder with one."""
    return (path.is_dir() and (path / MANIFEST).is_file()) or (path.is_file() and path.suffix.lower() in (".yaml", ".yml"))


def _open(path: Path, manifest: str | Path | None, root: str | Path | None) -> Manifest:
    if manifest is not None:
        return Manifest(Path(manifest), Path(root) if root is not None else path if path.is_dir() else path.parent)
    return Manifest(path / MANIFEST if path.is_dir() else path, Path(root) if root is not None else None)


def read(path: Path, *, recording: str | None = None, manifest: str | Path | None = None, root: str | Path | None = None) -> Recording:
    """The recording `recording` (its id) of a manifest, or the only one.

    Raises
    ------
    MissingDataError
        If there are several and none is named, or none has that id.
    """
    m = _open(path, manifest, root)
    ids = [m.id_of(e) for e, _ in m.entries]
    if recording is None and len(ids) > 1:
        shown = ", ".join(ids[:8]) + (f", … ({len(ids)} in all)" if len(ids) > 8 else "")
        raise MissingDataError(f"{m.path}: describes {len(ids)} recordings ({shown}): name one with recording=, or read all with read_all")
    if recording is not None and recording not in ids:
        raise MissingDataError(f"{m.path}: has no recording {recording!r}{suggest(recording, ids)}; it has {', '.join(ids[:20])}")
    return _recording(m, *m.entries[0 if recording is None else ids.index(recording)])


def read_all(path: Path, *, recording: str | None = None, manifest: str | Path | None = None, root: str | Path | None = None) -> list[Recording]:
    """Every recording of a manifest, in its order (or the one that `recording` names)."""
    if recording is not None:
        return [read(path, recording=recording, manifest=manifest, root=root)]
    m = _open(path, manifest, root)
    return [_recording(m, entry, where) for entry, where in m.entries]


def _recording(m: Manifest, entry: RecordingEntry, where: tuple[Any, ...]) -> Recording:
    from brainmu.formats.entries import read_clock, read_label, read_signal, read_spikes, use_file

    if not (entry.signals or entry.spikes or entry.labels):
        m.fail(f"recording {m.id_of(entry)!r} names no signals, spikes or labels", *where)
    with _Placed(m, *where, "id"):
        rec = Recording(
            id=m.id_of(entry), subject="" if entry.subject is None else str(entry.subject), species=entry.species,
            started_at=_started_at(m, entry.started_at, where), zeitgeber=entry.zeitgeber, subject_meta=dict(entry.subject_meta),
        )  # fmt: skip
    rec.source = {"format": "manifest", "files": [str(m.path.resolve())], "warnings": []}
    if entry.notes:
        rec.source["notes"] = entry.notes
    for name, data in entry.clocks.items():
        with _Placed(m, *where, "clocks", name):
            rec.clocks[str(name)] = read_clock(m, m.build(ClockEntry, data, f"clock {name!r}", *where, "clocks", name), str(name), rec)
    for name, data in entry.signals.items():
        with _Placed(m, *where, "signals", name):
            built = m.build(SignalEntry, data, f"signal {name!r}", *where, "signals", name)
            rec.signals[str(name)] = read_signal(m, built, str(name), rec)
            _on_clock(rec, str(name), built.clock)
    if entry.spikes is not None:
        with _Placed(m, *where, "spikes"):
            built_spikes = m.build(SpikesEntry, entry.spikes, "spikes", *where, "spikes")
            rec.spikes = read_spikes(m, built_spikes, rec)
            _on_clock(rec, "spikes", built_spikes.clock)
    for name, data in entry.labels.items():
        with _Placed(m, *where, "labels", name):
            built_label = m.build(LabelEntry, data, f"label {name!r}", *where, "labels", name)
            rec.labels[str(name)] = read_label(m, built_label, str(name), rec)
            _on_clock(rec, str(name), built_label.clock)
    if entry.subjects is not None:
        from brainmu.formats.subjects import describe_subject

        with _Placed(m, *where, "subjects"):
            describe_subject(rec, use_file(m, rec, entry.subjects))
    return rec


def _on_clock(rec: Recording, stream: str, clock: str) -> None:
    """Note that a stream runs on a clock of the manifest."""
    if not clock or clock == "session":
        return
    if clock not in rec.clocks:
        raise InputError(f"{stream!r} runs on the clock {clock!r}{suggest(clock, rec.clocks)}, which clocks: lacks (it has {', '.join(rec.clocks)})")
    if stream in rec.signals:
        rec.signals[stream].clock = clock
    rec.clocks[clock].setdefault("streams", []).append(stream)


class _Placed:
    """Adds the manifest's file and line to an error that does not have them."""

    def __init__(self, m: Manifest, *where: Any) -> None:
        self.m, self.where = m, where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, BrainmuError) and str(self.m.path) not in str(error):
            line = self.m.line(*self.where)
            raise type(error)(f"{error} ({self.m.path}{f', line {line}' if line else ''})") from None


def _started_at(m: Manifest, value: Any, where: tuple[Any, ...]) -> datetime | None:
    if value is None:
        return None
    try:
        when = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError:
        m.fail(f"started_at is {value!r}, expected a date and time such as 2024-05-01T10:00:00+02:00", *where, "started_at")
    if when.tzinfo is None:
        m.fail(f"started_at is {value} without a time zone: write it as {when.replace(tzinfo=UTC).isoformat()} if it is UTC", *where, "started_at")
    return when
