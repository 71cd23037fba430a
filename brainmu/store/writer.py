"""Recordings to stores: every signal in one unit and at one rate, streamed, resumable, the same bytes for the same input."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from brainmu._version import __version__
from brainmu.config import load_config
from brainmu.core import Recording
from brainmu.dsp.artefacts import Findings
from brainmu.errors import ConfigError, InputError, OutputExistsError
from brainmu.store.config import PreprocessConfig
from brainmu.store.derived import derive
from brainmu.store.folder import Folder, writing
from brainmu.store.identity import Job, Sources, content_sha256, json_sha256, relative_text
from brainmu.store.output import check_output, complete, exists_already, needed_bytes
from brainmu.store.parts import write_labels, write_spikes
from brainmu.store.places import url_of
from brainmu.store.quality import quality_tables, quality_warnings
from brainmu.store.session import SCHEMA, Session, open
from brainmu.store.shards import InProcess, Runner, Shard, findings_of
from brainmu.store.streams import Stream, split_by_treatment
from brainmu.store.tables import plain_layout, write_table
from brainmu.store.values import encode, safe_names

__all__ = ["aligned", "preprocess", "preprocess_with", "read_source", "resolve_config", "runner_for", "streams_of"]

Progress = Callable[[str, float], None]
_LONGEST = 1e8
"""Seconds (three years): more is a wrong unit of time, and an array of pointers as long as that."""


def preprocess(
    source: Recording | str | Path, out: str | Path, *, lfp_rate: float | Literal["config"] | None = "config", overwrite: bool = False,
    progress: Progress | None = None, config: PreprocessConfig | str | Path | dict[str, Any] | None = None, reader: dict[str, Any] | None = None,
    jobs: int = 1, scheduler: str | None = None, threads: int | None = None, storage_options: dict[str, Any] | None = None, **options: Any,
) -> Session:  # fmt: skip
    """Write a recording as a store and open it.

    The same call on the same source goes on where an interrupted one stopped, or finds the store complete
    (``session.already_complete``). Nothing is left in place of the store unless it is whole.

    Parameters
    ----------
    source : Recording or path
        Anything :func:`brainmu.formats.read` reads, or a Recording.
    out : path or URL
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
    jobs : int
        Processes that make the files of samples; the bytes do not depend on it.
    scheduler : str
        Address of a Dask scheduler (``tcp://host:port``) whose workers make them instead. They must see sources and `out` under the same paths.
    threads : int
        For the arithmetic of each process. Default: the processors there are, at most 4, divided among the processes.
    storage_options : dict
        Of fsspec, where `out` is a URL.

    Raises
    ------
    OutputExistsError
        If `out` exists and is anything else.
    StoreError
        If the disk is full or read-only, another process writes `out`, a source file changes meanwhile, or what makes a file of samples is killed
        again and again.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> rec = Recording.from_arrays("m1", signals={"lfp": dict(values=np.zeros((60000, 2)), rate=30000.0, unit="mV", kind="lfp")})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     preprocess(rec, f"{folder}/m1.zarr").signals["lfp"].rate
    1250.0
    """
    with runner_for(jobs, scheduler, threads) as runner:
        return preprocess_with(
            runner, source, out, lfp_rate=lfp_rate, overwrite=overwrite, progress=progress, config=config, reader=reader,
            storage_options=storage_options, **options,
        )  # fmt: skip


def preprocess_with(
    runner: Runner, source: Recording | str | Path, out: str | Path, *, lfp_rate: float | Literal["config"] | None = "config", overwrite: bool = False,
    progress: Progress | None = None, config: Any = None, reader: dict[str, Any] | None = None, storage_options: dict[str, Any] | None = None, **options: Any,
) -> Session:  # fmt: skip
    """:func:`preprocess`, its shards made by `runner`, which may serve several stores."""
    settings = resolve_config(config, lfp_rate, options)
    recording = aligned(read_source(source, reader), settings)
    report = progress or (lambda label, fraction: None)
    if not recording.signals and recording.spikes is None and not recording.labels:
        raise InputError(f"{recording.id}: has no signals, spikes or labels, there is nothing to store")
    if recording.duration > _LONGEST:
        years = recording.duration / 3.156e7
        raise InputError(f"{recording.id}: lasts {recording.duration:.3g} s ({years:.0f} years): check the unit of its times (time_unit) and its rates")
    notes: list[str] = [*recording.warnings, *recording.doubts()]
    streams = streams_of(recording, settings, notes.append)
    url, target = url_of(out), Path(out).absolute()
    with Sources(recording) as sources:
        if url is None:
            check_output(target, {"config": settings.describe(), "sources": sources.sizes}, needed_bytes(streams), overwrite)
        job = Job(settings, sources, content_sha256(recording))
        if url is not None or target.exists():
            sources.wait(lambda f: report("checksums", 0.1 * f))
            if (session := _complete(url, target, job, storage_options)) is not None:
                report("already complete", 1.0)
                return session
        with _writing(url, target, job, overwrite, storage_options) as folder:
            _write(folder, recording, streams, notes, job, runner, lambda label, f: report(label, 0.1 + 0.85 * f))
            report("finishing", 0.95)
            sources.check_unchanged()
    report("done", 1.0)
    return open(target) if url is None else open(url, storage_options=storage_options)


@contextlib.contextmanager
def runner_for(jobs: int, scheduler: str | None, threads: int | None = None, *, shared: bool = False) -> Iterator[Runner]:
    """Who makes the shards: this process, `jobs` others, or the cluster of `scheduler`."""
    if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 1:
        raise InputError(f"jobs is {jobs!r}, expected 1 or more processes")
    if scheduler is not None:
        from brainmu.store.cluster import Cluster

        with Cluster(scheduler) as cluster:
            yield cluster
    elif jobs > 1:
        from brainmu.store.parallel import Processes

        with Processes(jobs, threads, shared=shared) as processes:
            yield processes
    else:
        yield InProcess(threads)


def _complete(url: str | None, target: Path, job: Job, storage_options: dict[str, Any] | None) -> Session | None:
    if url is None:
        return complete(target, job)
    from brainmu.store import remote

    return remote.complete(url, job.identity, storage_options=storage_options)


def _writing(
    url: str | None, target: Path, job: Job, overwrite: bool, storage_options: dict[str, Any] | None
) -> contextlib.AbstractContextManager[Folder]:  # fmt: skip
    if url is not None:
        from brainmu.store import remote

        return remote.writing(url, job.key, overwrite=overwrite, storage_options=storage_options)
    if not overwrite and (target.exists() or target.is_symlink()):
        raise OutputExistsError(exists_already(target))
    return writing(target, job)


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
    signals = recording.signals | (derive(recording, config.derive, note) if config.derive else {})
    out = [Stream(name, s, config) for name, s in split_by_treatment(signals, config, note).items()]
    for stream in out:
        for sentence in stream.warnings(recording.warnings):
            note(sentence)
    return out


def aligned(recording: Recording, settings: PreprocessConfig) -> Recording:
    """The recording with all its streams on one clock."""
    from brainmu.store.alignment import align

    if settings.sync:
        recording = copy.copy(recording)
        given = {name: spec if isinstance(spec, dict) else {"pulses": spec} for name, spec in settings.sync.items()}
        recording.clocks = recording.clocks | {name: recording.clocks.get(name, {}) | spec for name, spec in given.items()}
    return align(recording, clock=settings.clock, max_drift=settings.max_drift, max_residual=settings.max_residual)


def read_source(source: Any, reader: dict[str, Any] | None) -> Recording:
    """The recording that `source` is, or that lies at that path."""
    if isinstance(source, Recording):
        return source
    if not isinstance(source, (str, Path)):
        raise InputError(f"preprocess was given a {type(source).__name__}, expected a Recording or a path")
    from brainmu.formats import read

    return read(source, **(reader or {}))


# -- writing ------------------------------------------------------------------------------------------------------------
def _write(folder: Folder, recording: Recording, streams: list[Stream], notes: list[str], job: Job, runner: Runner, report: Progress) -> None:
    paths = safe_names([s.name for s in streams])
    folder.group("signals", {"order": paths})
    folder.group("quality", {"order": paths})
    shards = [[Shard(i, f"signals/{path}/values", k) for k in range(s.layout.n_files)] for i, (s, path) in enumerate(zip(streams, paths))]
    for stream, path in zip(streams, paths):
        folder.array(f"signals/{path}/values", stream.layout)
        folder.prepare(f"signals/{path}/values", stream.layout)
    _write_samples(folder, streams, [shard for group in shards for shard in group], runner, report)
    for stream, path, group in zip(streams, paths, shards):
        # After all of them are there, and in order: what is said of a signal does not depend on who made its shards, or when.
        findings, marked = findings_of(stream, [folder.done[_file(stream, shard)]["note"] for shard in group])
        notes += quality_warnings(stream, findings, marked)
        _describe_signal(folder, path, stream, findings)
    report("labels and spikes", 1.0)
    job.sources.wait(lambda f: report("checksums", 1.0))
    if recording.spikes is not None:
        write_spikes(folder, recording.spikes)
    write_labels(folder, recording.labels)
    folder.group("", _root_attributes(recording, job, list(dict.fromkeys(notes))))


def _write_samples(folder: Folder, streams: list[Stream], shards: list[Shard], runner: Runner, report: Progress) -> None:
    """See that every shard is there."""
    sizes = {s: _span(streams[s.stream], s) * streams[s.stream].signal.n_channels for s in shards}
    total = sum(sizes.values()) or 1
    missing = [s for s in shards if _file(streams[s.stream], s) not in folder.done]
    at = dict.fromkeys(shards, 1.0) | dict.fromkeys(missing, 0.0)

    def tell(shard: Shard, fraction: float) -> None:
        at[shard] = fraction
        report(streams[shard.stream].name, sum(sizes[s] * f for s, f in at.items()) / total)

    for shard, made in runner.run(streams, missing, folder, tell):
        folder.record(_file(streams[shard.stream], shard), made.size, made.sha256, made.note)
        tell(shard, 1.0)


def _file(stream: Stream, shard: Shard) -> str:
    return f"{shard.array}/{stream.layout.key(shard.k)}"


def _span(stream: Stream, shard: Shard) -> int:
    i, j = stream.source_span(*stream.layout.span(shard.k))
    return j - i


def _describe_signal(folder: Folder, path: str, stream: Stream, findings: Findings) -> None:
    s, group = stream.signal, f"signals/{path}"
    columns = write_table(folder, group, s.channels, "channel", prefix="channel_", index="name", what=f"channels of {stream.name!r}")
    if s.times is not None:
        folder.array(f"{group}/times", plain_layout((s.n_samples,), "float64", ("time",), {"units": "s"}), s.times)
    attrs = dict(s.attrs) | stream.described()
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
