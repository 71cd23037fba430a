"""Many sources to stores, in several processes or on a Dask cluster if wanted; one that fails does not stop the others."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainmu.core import Recording
from brainmu.errors import BrainmuError, StoreError, UsageError
from brainmu.store.places import url_of
from brainmu.store.session import Session, open
from brainmu.store.shards import Runner
from brainmu.store.writer import preprocess_with, runner_for

__all__ = ["Outcome", "preprocess_many"]

Progress = Callable[[str, float], None]
_TOGETHER = 8
"""Recordings in hand at once where a cluster makes their shards."""


@dataclass
class Outcome:
    """What became of one recording.

    Attributes
    ----------
    source : str
        The path, or the id of a Recording.
    id : str
        Of the recording; "" where it could not be read.
    path : Path, URL or None
        The store.
    error : BrainmuError or None
        Why there is none.
    already_complete : bool
    storage_options : dict or None
        With which the store is opened.
    """

    source: str
    id: str = ""
    path: Path | str | None = None
    error: BrainmuError | None = None
    already_complete: bool = False
    storage_options: dict[str, Any] | None = None

    @property
    def session(self) -> Session:
        """The store, opened. Raises the error where there is none."""
        if self.error is not None:
            raise self.error
        assert self.path is not None
        return open(self.path, storage_options=self.storage_options)


def preprocess_many(
    sources: Iterable[Recording | str | Path], out_dir: str | Path, *, jobs: int = 1, scheduler: str | None = None, progress: Progress | None = None,
    reader: dict[str, Any] | None = None, **options: Any,
) -> list[Outcome]:  # fmt: skip
    """Preprocess every recording in `sources` into ``out_dir/<id>.zarr``.

    Parameters
    ----------
    sources : Recordings or paths
        A folder may hold several recordings.
    jobs : int
        Processes; the stores are the same for any number. They take the files of samples of whichever recordings have some left to make, and as
        many recordings are in hand at once, so all are busy with one long recording and with many short ones.
    scheduler : str
        Address of a Dask scheduler (``tcp://host:port``) whose workers make them instead; sources and `out_dir` must have the same paths there.
        What a worker that dies was making is given to another.
    reader : dict
        Arguments for :func:`brainmu.formats.read_all`.
    **options
        As for :func:`preprocess`.

    Returns
    -------
    list of Outcome
        In the order of the sources. A source that fails carries its error; the others are finished.

    Raises
    ------
    UsageError
        If two recordings have the same id and would write the same store.
    """
    folder = url_of(out_dir) or Path(out_dir)
    outcomes, recordings = _read_all(sources, reader or {})
    for outcome in outcomes:
        outcome.storage_options = options.get("storage_options")
    ids = [r.id for r in recordings]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise UsageError(f"two sources have the id {twice[0]!r} and would write the same store: preprocess them into different folders")
    together = 1 if scheduler is None and jobs == 1 else min(len(recordings), _TOGETHER if scheduler else jobs)
    tell = _Share(progress, len(recordings))
    threads = options.pop("threads", None)
    # The runner is left first: a writer that waits for a shard hears that there will be none.
    with ThreadPoolExecutor(max(1, together)) as writers, runner_for(jobs, scheduler, threads, shared=together > 1) as runner:
        results = [writers.submit(_one, runner, r, folder, options | {"progress": functools.partial(tell, k, r.id)}) for k, r in enumerate(recordings)]
        try:
            for recording, result in zip(recordings, results):
                _merge(outcomes, recording, result.result())
        except BaseException:
            # Ctrl-C, or a fault: whoever still writes hears of it with his next progress, or from the processes' end.
            tell.stop()
            for result in results:
                result.cancel()
            raise
    return outcomes


class _Share:
    """Progress of all from the progress of each; the writers' threads take turns."""

    def __init__(self, progress: Progress | None, n: int) -> None:
        self._progress, self._at, self._lock, self._stopped = progress, [0.0] * n, threading.Lock(), False

    def __call__(self, k: int, name: str, label: str, fraction: float) -> None:
        if self._stopped:
            raise StoreError("the work was stopped: run the same command again to go on")
        with self._lock:
            self._at[k] = fraction
            if self._progress:
                self._progress(f"{name}: {label}", sum(self._at) / len(self._at))

    def stop(self) -> None:
        self._stopped = True


def _read_all(sources: Iterable[Recording | str | Path], reader: dict[str, Any]) -> tuple[list[Outcome], list[Recording]]:
    outcomes: list[Outcome] = []
    recordings: list[Recording] = []
    for source in sources:
        if isinstance(source, Recording):
            found = [source]
        else:
            from brainmu.formats import read_all

            try:
                found = read_all(source, **reader)
            except BrainmuError as error:
                outcomes.append(Outcome(str(source), error=error))
                continue
        outcomes += [Outcome(r.id if isinstance(source, Recording) else str(source), r.id) for r in found]
        recordings += found
    return outcomes, recordings


def _one(runner: Runner, recording: Recording, folder: Path | str, options: dict[str, Any]) -> tuple[Path | str | None, BrainmuError | None, bool]:
    path = f"{folder}/{recording.id}.zarr" if isinstance(folder, str) else folder / f"{recording.id}.zarr"
    try:
        return path, None, preprocess_with(runner, recording, path, **options).already_complete
    except BrainmuError as error:
        return None, error, False


def _merge(outcomes: list[Outcome], recording: Recording, result: tuple[Path | str | None, BrainmuError | None, bool]) -> None:
    outcome = next(o for o in outcomes if o.id == recording.id and o.error is None and o.path is None)
    outcome.path, outcome.error, outcome.already_complete = result
