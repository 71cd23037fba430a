"""Recordings to stores: every signal in one unit and at one rate, streamed, resumable, the same bytes for the same input."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

from brainmu._version import __version__
from brainmu.config import load_config
from brainmu.core import Recording
from brainmu.dsp.artefacts import Findings, join, limits_only
from brainmu.errors import ConfigError, InputError, OutputExistsError, StoreError
from brainmu.store.config import PreprocessConfig
from brainmu.store.folder import CHECKSUMS, Folder, ShardWriter, settle, writing
from brainmu.store.identity import Sources, content_sha256, json_sha256, relative_text
from brainmu.store.parts import write_labels, write_spikes
from brainmu.store.quality import quality_tables, quality_warnings
from brainmu.store.session import SCHEMA, Session, is_store, open
from brainmu.store.streams import Stream, split_by_treatment
from brainmu.store.tables import plain_layout, write_table
from brainmu.store.values import encode, safe_names
from brainmu.store.verification import listed_files

__all__ = ["prepare", "preprocess", "read_source", "resolve_config", "streams_of"]

Progress = Callable[[str, float], None]
T = TypeVar("T")


def preprocess(
    source: Recording | str | Path, out: str | Path, *, lfp_rate: float | Literal["config"] | None = "config", overwrite: bool = False,
    progress: Progress | None = None, config: PreprocessConfig | str | Path | dict[str, Any] | None = None, reader: dict[str, Any] | None = None,
    threads: int | None = None, **options: Any,
) -> Session:  # fmt: skip
    """Write a recording as a store and open it.

    The same call on the same source goes on where an interrupted one stopped, or finds the store complete
    (``session.already_complete``). Nothing is left in place of the store unless it is whole.

    Parameters
    ----------
    source : Recording or path
        Anything :func:`brainmu.formats.read` reads, or a Recording.
    out : path
        The store, usually ``*.zarr``.
    lfp_rate : float or None, Hz
        Rate that faster voltage signals are brought to (default 1250); slower ones are never upsampled, kind "features" and everything
        else that is no voltage is never resampled. None keeps every rate.
    overwrite : bool
        Replace another store at `out`; it is kept until the new one is whole.
    progress : callable
        Called with a label and a fraction from 0 to 1.
    config : name, path, dict or PreprocessConfig
        Defaults for `lfp_rate` and `options`, which are the fields of :class:`PreprocessConfig`.
    reader : dict
        Arguments for :func:`brainmu.formats.read`.
    threads : int
        For the arithmetic; the bytes do not depend on it. Default: the processors there are, at most 4.

    Raises
    ------
    OutputExistsError
        If `out` exists and is anything else.
    StoreError
        If the disk is full or read-only, another process writes `out`, or a source file changes meanwhile.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> rec = Recording.from_arrays("m1", signals={"lfp": dict(values=np.zeros((60000, 2)), rate=30000.0, unit="mV", kind="lfp")})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     preprocess(rec, f"{folder}/m1.zarr").signals["lfp"].rate
    1250.0
    """
    settings = resolve_config(config, lfp_rate, options)
    target = Path(out).absolute()
    recording = read_source(source, reader)
    report = progress or (lambda label, fraction: None)
    job = prepare(recording, settings, lambda f: report("checksums", 0.1 * f))
    settle(target)
    if target.exists() or target.is_symlink():
        session = _already_complete(target, job)
        if session is not None:
            report("already complete", 1.0)
            return session
        if not overwrite or not _replaceable(target):
            raise OutputExistsError(_exists(target))
    with writing(target, job.key) as folder, ThreadPoolExecutor(threads or min(4, os.cpu_count() or 1)) as pool:
        _write(folder, recording, job, pool, lambda label, f: report(label, 0.1 + 0.85 * f))
        report("finishing", 0.95)
        job.sources.check_unchanged()
    report("done", 1.0)
    return open(target)


@dataclasses.dataclass
class Job:
    """One recording, one configuration: what decides the bytes."""

    config: PreprocessConfig
    sources: Sources
    content: str

    @property
    def identity(self) -> str:
        """The same for the same sources, configuration and schema."""
        return json_sha256([SCHEMA, self.config.describe(), self.sources.files, self.content])

    @property
    def key(self) -> str:
        """Work is resumed by the same version only."""
        return f"{self.identity} {__version__}"


def prepare(recording: Recording, config: PreprocessConfig, progress: Callable[[float], None] | None = None) -> Job:
    """Checksum everything that decides the bytes of the store."""
    if not recording.signals and recording.spikes is None and not recording.labels:
        raise InputError(f"{recording.id}: has no signals, spikes or labels, there is nothing to store")
    return Job(config, Sources.of(recording, progress), content_sha256(recording))


def resolve_config(config: Any, lfp_rate: float | Literal["config"] | None, options: dict[str, Any]) -> PreprocessConfig:
    """The configuration with what was given beside it."""
    if isinstance(config, PreprocessConfig):
        config = dataclasses.asdict(config)
    settings = load_config(PreprocessConfig, config, **options)
    if lfp_rate == "config":
        return settings
    if lfp_rate is not None and (isinstance(lfp_rate, (bool, str)) or not isinstance(lfp_rate, (int, float))):
        raise ConfigError(f"lfp_rate is {lfp_rate!r}, expected a number of Hz or None")
    return dataclasses.replace(settings, lfp_rate=None if lfp_rate is None else float(lfp_rate))


def streams_of(recording: Recording, config: PreprocessConfig, note: Callable[[str], None]) -> list[Stream]:
    """How each signal of the recording will be stored."""
    out = [Stream(name, s, config) for name, s in split_by_treatment(recording.signals, config, note).items()]
    for stream in out:
        for sentence in stream.warnings():
            note(sentence)
    return out


def read_source(source: Any, reader: dict[str, Any] | None) -> Recording:
    """The recording that `source` is, or that lies at that path."""
    if isinstance(source, Recording):
        return source
    if not isinstance(source, (str, Path)):
        raise InputError(f"preprocess was given a {type(source).__name__}, expected a Recording or a path")
    from brainmu.formats import read

    return read(source, **(reader or {}))


def _already_complete(target: Path, job: Job) -> Session | None:
    if not is_store(target):
        return None
    try:
        session = open(target)
    except StoreError:
        return None
    if session.provenance.get("identity") != job.identity or not all((target / name).is_file() for name in listed_files(target)):
        return None
    session.already_complete = True
    return session


def _replaceable(target: Path) -> bool:
    """Whether it is a store (also a damaged one) or an empty folder: nobody's home is replaced for a slip of the keyboard."""
    return target.is_dir() and not target.is_symlink() and (is_store(target) or (target / CHECKSUMS).is_file() or not any(target.iterdir()))


def _exists(target: Path) -> str:
    if _replaceable(target):
        return f"{target}: exists and holds another store, or the same from other sources or settings: give another --out, or --overwrite to replace it"
    return f"{target}: exists and holds something that is no store, which is not replaced even with --overwrite: give another --out, or move it away"


# -- writing ------------------------------------------------------------------------------------------------------------
def _write(folder: Folder, recording: Recording, job: Job, pool: ThreadPoolExecutor, report: Progress) -> None:
    notes: list[str] = list(recording.warnings)

    def note(sentence: str) -> None:
        if sentence not in notes:
            notes.append(sentence)

    streams = streams_of(recording, job.config, note)
    total = sum(s.signal.n_samples * s.signal.n_channels for s in streams) or 1
    done = 0
    paths = safe_names([s.name for s in streams])
    folder.group("signals", {"order": paths})
    folder.group("quality", {"order": paths})
    for stream, path in zip(streams, paths):
        size = stream.signal.n_samples * stream.signal.n_channels
        findings, marked = _write_samples(folder, f"signals/{path}", stream, pool, lambda f: report(stream.name, (done + f * size) / total))  # noqa: B023
        done += size
        for sentence in quality_warnings(stream, findings, marked):
            note(sentence)
        _describe_signal(folder, path, stream, findings)
    report("labels and spikes", 1.0)
    if recording.spikes is not None:
        write_spikes(folder, recording.spikes)
    write_labels(folder, recording.labels)
    folder.group("", _root_attributes(recording, job, notes))


def _write_samples(
    folder: Folder, group: str, stream: Stream, pool: ThreadPoolExecutor, report: Callable[[float], None]
) -> tuple[Findings, int]:  # fmt: skip
    """Write the shards that are not there yet; findings of all."""
    layout, name = stream.layout, f"{group}/values"
    folder.array(name, layout)
    parts: list[Findings] = []
    marked = 0
    for k in range(layout.n_files):
        first, last = layout.span(k)
        entry = folder.done.get(f"{name}/{layout.key(k)}")
        if entry is None:
            with ShardWriter(folder, name, layout, k) as shard:
                found: list[Findings] = []
                on_mark = 0
                for rows, piece, m in _ahead(lambda ab: stream.block(*ab, pool=pool), stream.steps(first, last)):
                    shard.append(rows)
                    found.append(piece)
                    on_mark += m
                    report((first + sum(p.last - p.first for p in found) * (last - first) / max(1, _span(stream, first, last))) / max(1, stream.n))
                joined = join(found)
                shard.note = {"findings": dataclasses.asdict(joined), "marked": on_mark}
            entry = folder.done[f"{name}/{layout.key(k)}"]
        parts.append(_findings(entry["note"]["findings"]))
        marked += int(entry["note"]["marked"])
        report(last / max(1, stream.n))
    if not parts:
        parts = [stream.block(0, 0)[1]]
    # -32768 marks missing samples, so -32767 is the lowest that a present one can have.
    return limits_only(join(parts), rails=(-32767, 32767) if stream.signal.values.dtype == "int16" else None), marked


def _span(stream: Stream, first: int, last: int) -> int:
    i, j = stream.source_span(first, last)
    return j - i


def _findings(saved: dict[str, Any]) -> Findings:
    spans: dict[str, Any] = {k: [[(int(i), int(j)) for i, j in channel] for channel in saved[k]] for k in ("missing", "flat", "at_low", "at_high")}
    return Findings(**(saved | spans))


def _ahead(work: Callable[[Any], T], items: Iterator[Any]) -> Iterator[T]:
    """Results in order, the next one being made while the last is used; sources are read by one thread at a time."""
    with ThreadPoolExecutor(1) as one:
        waiting: Future[T] | None = None
        for item in items:
            following = one.submit(work, item)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


def _describe_signal(folder: Folder, path: str, stream: Stream, findings: Findings) -> None:
    s, group = stream.signal, f"signals/{path}"
    columns = write_table(folder, group, s.channels, "channel", prefix="channel_", index="name", what=f"channels of {stream.name!r}")
    if s.times is not None:
        folder.array(f"{group}/times", plain_layout((s.n_samples,), "float64", ("time",), {"units": "s"}), s.times)
    attrs = dict(s.attrs)
    if stream.resampler:
        attrs["resampled_from"] = s.rate
    folder.group(group, {
        "name": stream.name, "kind": s.kind, "rate": stream.rate, "start": s.start, "unit": stream.unit, "clock": s.clock, "columns": columns,
        "attrs": encode(attrs, f"signal {stream.name!r} attrs"),
    })  # fmt: skip
    spans, channels = quality_tables(stream, findings)
    group = f"quality/{path}"
    described = write_table(folder, group, spans, "span", prefix="span_", what="quality")
    about = write_table(folder, group, channels, "channel", prefix="channel_", index="name", what="quality")
    folder.group(group, {"name": stream.name, "n": len(spans), "columns": described, "channel_columns": about, "flat": stream.config.flat})


def _root_attributes(recording: Recording, job: Job, notes: list[str]) -> dict[str, Any]:
    source = {k: relative_text(v, recording) if isinstance(v, str) else v for k, v in recording.source.items() if k not in ("files", "warnings")}
    return {
        "brainmu_schema": SCHEMA, "brainmu_version": __version__, "id": recording.id, "subject": recording.subject, "species": recording.species,
        "started_at": recording.started_at.isoformat() if recording.started_at else None, "zeitgeber": encode(recording.zeitgeber, "zeitgeber"),
        "subject_meta": encode(dict(recording.subject_meta), "subject_meta"), "clocks": encode(dict(recording.clocks), "clocks"),
        "source": encode(source, "source"), "sources": job.sources.files, "content_sha256": job.content,
        "config": job.config.describe(), "config_sha256": json_sha256(job.config.describe()), "identity": job.identity,
        "warnings": [relative_text(n, recording) for n in notes],
    }  # fmt: skip
