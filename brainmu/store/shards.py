"""The unit of work: one shard of one stream. Its bytes follow from the source, the configuration and its number alone.

Whoever makes shards (this process, others on this machine, those of a cluster) gets streams and a sink, and gives back what it made; only the
process that holds the lock of the store keeps its journal.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from brainmu.dsp.artefacts import Findings, join, limits_only
from brainmu.store.folder import Folder, ShardWriter, Sink
from brainmu.store.streams import Stream

__all__ = ["InProcess", "Made", "Runner", "Shard", "findings_of", "make_shard", "processors"]

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Shard `k` of the array `array`, with the samples of stream number `stream`."""

    stream: int
    array: str
    k: int


@dataclass(frozen=True)
class Made:
    """A shard file that lies in its place. `note` is JSON-able: what was learnt of the samples on the way."""

    size: int
    sha256: str
    note: Any


class Runner(Protocol):
    """Makes shards, in any order."""

    def run(self, streams: list[Stream], shards: list[Shard], folder: Folder, report: Callable[[Shard, float], None]) -> Iterator[tuple[Shard, Made]]:
        """Make `shards`; `report` is told how far each is. Errors of the one who makes a shard are raised here."""
        ...


class InProcess:
    """Shards one after the other in this process; the arithmetic in `threads`."""

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or min(4, processors())

    def run(self, streams: list[Stream], shards: list[Shard], folder: Folder, report: Callable[[Shard, float], None]) -> Iterator[tuple[Shard, Made]]:
        """Make `shards`, in order."""
        for shard in shards:
            yield shard, make_shard(streams[shard.stream], folder.sink, shard, self.threads, lambda f: report(shard, f))  # noqa: B023


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_shard(stream: Stream, sink: Sink, shard: Shard, threads: int, report: Callable[[float], None]) -> Made:
    """Read, convert and write one shard."""
    first, last = stream.layout.span(shard.k)
    found: list[tuple[Any, ...]] = []
    with ThreadPoolExecutor(threads) as many, ThreadPoolExecutor(1) as one, ShardWriter(sink, shard.array, stream.layout, shard.k) as writer:
        pool = many if threads > 1 else None
        done = 0
        for rows, *about in _ahead(one, lambda ab: stream.block(*ab, pool=pool), stream.steps(first, last)):
            writer.append(rows)
            found.append(tuple(about))
            done += len(rows)
            report(done / max(1, last - first))
        note = _note(found)
    return Made(writer.size, writer.sha256, note)


def _ahead(one: ThreadPoolExecutor, work: Callable[[Any], T], items: Iterator[Any]) -> Iterator[T]:
    """Results in order, the next one being made while the last is used; sources are read by one thread at a time."""
    waiting: Future[T] | None = None
    for item in items:
        following = one.submit(work, item)
        if waiting is not None:
            yield waiting.result()
        waiting = following
    if waiting is not None:
        yield waiting.result()


# -- what is learnt of the samples on the way: (Findings, number of samples on the missing mark) a block ------------------
def _note(found: list[tuple[Any, ...]]) -> dict[str, Any]:
    return {"findings": dataclasses.asdict(join([f for f, _ in found])), "marked": sum(m for _, m in found)}


def findings_of(stream: Stream, notes: list[Any]) -> tuple[Findings, int]:
    """The findings of a whole signal and its number of samples on the missing mark, from the notes of its shards in order."""
    parts = [_findings(n["findings"]) for n in notes] or [stream.block(0, 0)[1]]
    # -32768 marks missing samples, so -32767 is the lowest that a present one can have.
    rails = (-32767, 32767) if stream.signal.values.dtype == "int16" else None
    return limits_only(join(parts), rails=rails), sum(int(n["marked"]) for n in notes)


def _findings(saved: dict[str, Any]) -> Findings:
    spans: dict[str, Any] = {k: [[(int(i), int(j)) for i, j in channel] for channel in saved[k]] for k in ("missing", "flat", "at_low", "at_high")}
    return Findings(**(saved | spans))
