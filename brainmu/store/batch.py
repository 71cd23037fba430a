"""Many sources to stores, in several processes or on a Dask cluster if wanted; one that fails does not stop the others."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brainmu.core import Recording
from brainmu.errors import BrainmuError, InputError, UsageError
from brainmu.store.session import Session, open
from brainmu.store.writer import preprocess

__all__ = ["Outcome", "preprocess_many"]

Progress = Callable[[str, float], None]


@dataclass
class Outcome:
    """What became of one recording.

    Attributes
    ----------
    source : str
        The path, or the id of a Recording.
    id : str
        Of the recording; "" where it could not be read.
    path : Path or None
        The store.
    error : BrainmuError or None
        Why there is none.
    already_complete : bool
    """

    source: str
    id: str = ""
    path: Path | None = None
    error: BrainmuError | None = None
    already_complete: bool = False

    @property
    def session(self) -> Session:
        """The store, opened. Raises the error where there is none."""
        if self.error is not None:
            raise self.error
        assert self.path is not None
        return open(self.path)


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
        Processes; the stores are the same for any number.
    scheduler : str
        Address of a Dask scheduler (``tcp://host:port``) whose workers do the work instead, a recording each; sources and `out_dir` must
        have the same paths there. A recording whose worker dies is given to another.
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
    if jobs < 1:
        raise InputError(f"jobs is {jobs}, expected 1 or more processes")
    folder = Path(out_dir)
    outcomes, recordings = _read_all(sources, reader or {})
    ids = [r.id for r in recordings]
    twice = sorted({i for i in ids if ids.count(i) > 1})
    if twice:
        raise UsageError(f"two sources have the id {twice[0]!r} and would write the same store: preprocess them into different folders")
    if scheduler is not None:
        _on_cluster(scheduler, outcomes, recordings, folder, options, progress)
        return outcomes
    if jobs == 1 or len(recordings) < 2:
        for k, recording in enumerate(recordings):
            report = None if progress is None else functools.partial(_share, progress, recording.id, k, len(recordings))
            _merge(outcomes, recording, _one(recording, folder, options | {"progress": report}))
        return outcomes
    _in_processes(jobs, outcomes, recordings, folder, options, progress)
    return outcomes


def _in_processes(
    jobs: int, outcomes: list[Outcome], recordings: list[Recording], folder: Path, options: dict[str, Any], progress: Progress | None
) -> None:  # fmt: skip
    # spawn: a forked child of a process with threads (BLAS, a progress bar) can hang.
    with ProcessPoolExecutor(min(jobs, len(recordings)), mp_context=multiprocessing.get_context("spawn")) as pool:
        futures = [(recording, pool.submit(_one, recording, folder, options)) for recording in recordings]
        for k, (recording, future) in enumerate(futures):
            try:
                result = future.result()
            except BrokenProcessPool:
                # A worker was killed (often for memory). What it had finished is kept, so going on here is cheap.
                result = _one(recording, folder, options)
            _merge(outcomes, recording, result)
            if progress:
                progress(recording.id, (k + 1) / len(recordings))


def _on_cluster(
    scheduler: str, outcomes: list[Outcome], recordings: list[Recording], folder: Path, options: dict[str, Any], progress: Progress | None
) -> None:  # fmt: skip
    from distributed import Client

    try:
        client = Client(scheduler, timeout=10)
    except (OSError, ValueError) as error:
        raise InputError(f"scheduler {scheduler!r} does not answer ({error}): start one with `dask scheduler`, expected tcp://host:8786") from None
    with client:
        futures = [(r, client.submit(_one, r, folder.absolute(), options, pure=False, retries=3)) for r in recordings]
        for k, (recording, future) in enumerate(futures):
            _merge(outcomes, recording, future.result())
            if progress:
                progress(recording.id, (k + 1) / len(recordings))


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


def _one(recording: Recording, folder: Path, options: dict[str, Any]) -> tuple[Path | None, BrainmuError | None, bool]:
    path = folder / f"{recording.id}.zarr"
    try:
        return path, None, preprocess(recording, path, **options).already_complete
    except BrainmuError as error:
        return None, error, False


def _merge(outcomes: list[Outcome], recording: Recording, result: tuple[Path | None, BrainmuError | None, bool]) -> None:
    outcome = next(o for o in outcomes if o.id == recording.id and o.error is None and o.path is None)
    outcome.path, outcome.error, outcome.already_complete = result


def _share(progress: Progress, name: str, k: int, n: int, label: str, fraction: float) -> None:
    progress(f"{name}: {label}", (k + fraction) / n)
