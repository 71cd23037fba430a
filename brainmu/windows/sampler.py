"""Which windows make up a batch: pure functions of (seed, step), so that a resumed run sees what an uninterrupted one would."""

from __future__ import annotations

import multiprocessing
import queue
import threading
import time
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from brainmu.errors import InputError
from brainmu.windows.batch import Batch, collate
from brainmu.windows.grid import WindowGrid

__all__ = ["Prefetch", "SpanSampler", "WindowSampler", "Workers"]

T = TypeVar("T")


class WindowSampler:
    """Batches of windows over recordings of unequal length and modality.

    Without weights every window of every recording comes once an epoch, in an order drawn from (seed, epoch): recordings
    count by their hours. With weights each window of a batch first draws its recording by weight, then one of its windows; no window twice in a batch
    unless the recording is exhausted.

    Parameters
    ----------
    grids : sequence of WindowGrid
    batch : int
        Windows in a batch, over all ranks.
    seed : int
    weights : sequence of float or None
        One a recording.
    rank, world : int
        This process takes windows rank, rank + world, … of each batch.

    Examples
    --------
    >>> from brainmu.core import Recording
    >>> rec = Recording.from_arrays("a", signals={"lfp": dict(values=np.random.default_rng(0).standard_normal((4000, 1)), rate=100.0, kind="lfp")})
    >>> sampler = WindowSampler([WindowGrid(rec)], batch=4, seed=1)
    >>> bool((sampler.index(7)[1] == sampler.index(7)[1]).all()), len(sampler.batch(7))
    (True, 4)
    """

    def __init__(
        self, grids: Sequence[WindowGrid], batch: int = 64, seed: int = 0, *, weights: Sequence[float] | None = None, rank: int = 0, world: int = 1
    ) -> None:
        if not grids:
            raise InputError("sampler: no recordings came, expected at least one")
        if batch < world or not 0 <= rank < world:
            raise InputError(f"sampler: batch {batch}, rank {rank} of {world}: expected batch >= world and 0 <= rank < world")
        self.grids, self.size, self.seed, self.rank, self.world = list(grids), int(batch), int(seed), rank, world
        self._ends = np.cumsum([len(g) for g in grids])
        self._weights = None
        if weights is not None:
            w = np.asarray(weights, dtype=np.float64)
            if w.shape != (len(grids),) or not np.isfinite(w).all() or (w < 0).any() or w.sum() == 0:
                raise InputError(f"sampler: weights are {list(weights)}, expected {len(grids)} numbers >= 0, not all zero")
            self._weights = w / w.sum()
        self._order: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))
        self._samples: dict[int, Batch] = {}

    @property
    def n_windows(self) -> int:
        """Windows in all recordings together."""
        return int(self._ends[-1])

    def index(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Recording (n,) and window (n,) of each window of batch `step`, over all ranks."""
        if self._weights is not None:
            return self._weighted(step)
        place = np.arange(step * self.size, (step + 1) * self.size)
        flat = np.array([self._permutation(p // self.n_windows)[p % self.n_windows] for p in place])
        session = np.searchsorted(self._ends, flat, side="right")
        return session, flat - np.r_[0, self._ends][session]

    def _weighted(self, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        rng = np.random.default_rng([self.seed, 1, step])
        session = np.sort(rng.choice(len(self.grids), self.size, p=self._weights))
        window = np.empty(self.size, dtype=np.int64)
        for s in np.unique(session):
            where, n = np.flatnonzero(session == s), len(self.grids[s])
            window[where] = rng.choice(n, len(where), replace=len(where) > n)
        return session, window

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self.seed, 0, epoch]).permutation(self.n_windows))
        return self._order[1]

    def batch(self, step: int) -> Batch:
        """Batch `step` (this rank's share)."""
        session, window = (x[self.rank :: self.world] for x in self.index(step))
        return collate([self.grids[s].batch(np.sort(window[session == s]), int(s)) for s in np.unique(session)])

    def outline(self, step: int) -> tuple[Batch, NDArray[np.bool_]]:
        """Batch `step` over all ranks without its samples, and which of its windows (n,) are this rank's.

        The streams have their shapes and rows; values and validity are one zero, repeated without memory. What is drawn from
        an outline (masks) is the same for any number of ranks.
        """
        session, window = self.index(step)
        order = np.lexsort((window, session))
        parts = []
        for s in np.unique(session):
            n = int((session == s).sum())
            sample = self._sample(int(s))
            streams = [replace(x, rows=torch.arange(n), values=_shaped(x.values, n), valid=_shaped(x.valid, n)) for x in sample.streams]
            mine = np.sort(window[session == s])
            parts.append(Batch(self.grids[s].times[mine], sample.length, np.full(n, s, dtype=np.int64), streams))
        return collate(parts), order % self.world == self.rank

    def _sample(self, session: int) -> Batch:
        if session not in self._samples:
            self._samples[session] = self.grids[session].batch([0], session)
        return self._samples[session]

    def prepare(self) -> None:
        """Compute the features that grids keep, so that processes forked from this one share them."""
        for g in self.grids:
            g.batch([0])


class SpanSampler:
    """Spans of consecutive windows, for anything that reads context.

    In each epoch every recording is tiled with spans from a random offset, and the spans come in random order: no window
    is seen twice in an epoch, and none is left out.

    Parameters
    ----------
    lengths : sequence of int
        Windows in each recording.
    span : int
        Longest span, windows. Shorter ones occur at the ends.
    batch : int
        Spans in a batch.
    """

    def __init__(self, lengths: Sequence[int], span: int, batch: int, seed: int = 0) -> None:
        if not len(lengths) or min(lengths) < 1 or span < 1 or batch < 1:
            raise InputError(f"span sampler: lengths {list(lengths)[:5]}, span {span}, batch {batch}: expected positive numbers")
        self.lengths, self.span, self.size, self.seed = [int(n) for n in lengths], int(span), int(batch), int(seed)
        # The step at which each epoch begins, as far as known, and the batches of the epoch in use.
        self._first = [0]
        self._current: tuple[int, list[list[tuple[int, int, int]]]] = (-1, [])

    def epoch(self, number: int) -> list[list[tuple[int, int, int]]]:
        """The batches of epoch `number`: lists of (recording, first window, last window exclusive)."""
        rng = np.random.default_rng([self.seed, 2, number])
        spans = []
        for r, n in enumerate(self.lengths):
            offset = int(rng.integers(0, self.span)) if n > self.span else 0
            edges = np.unique(np.r_[0, np.arange(offset, n, self.span), n])
            spans += [(r, int(a), int(b)) for a, b in pairwise(edges)]
        order = rng.permutation(len(spans))
        return [[spans[i] for i in order[k : k + self.size]] for k in range(0, len(spans), self.size)]

    def batch(self, step: int) -> list[tuple[int, int, int]]:
        """The spans of batch `step`, counted on through the epochs (which differ in their number of batches)."""
        if step < 0:
            raise InputError(f"span sampler: step is {step}, expected a number >= 0")
        while self._first[-1] <= step:
            self._first.append(self._first[-1] + len(self._of(len(self._first) - 1)))
        number = bisect_right(self._first, step) - 1
        return self._of(number)[step - self._first[number]]

    def _of(self, number: int) -> list[list[tuple[int, int, int]]]:
        if self._current[0] != number:
            self._current = (number, self.epoch(number))
        return self._current[1]


class Prefetch(Generic[T]):
    """Items ``make(first), make(first+1), … make(last-1)``, made by one thread while the previous ones are used.

    Attributes
    ----------
    stall : float, s
        Time spent waiting for an item so far.
    """

    def __init__(self, make: Callable[[int], T], first: int, last: int, depth: int = 2) -> None:
        self.make, self.first, self.last, self.depth = make, first, last, depth
        self.stall = 0.0

    def __iter__(self) -> Iterator[T]:
        ready: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(self.depth)
        stop = threading.Event()

        def work() -> None:
            for step in range(self.first, self.last):
                try:
                    item: tuple[T | None, BaseException | None] = (self.make(step), None)
                except BaseException as error:  # handed to the consumer, who raises it
                    item = (None, error)
                while not stop.is_set():
                    try:
                        ready.put(item, timeout=0.1)
                        break
                    except queue.Full:
                        continue
                if stop.is_set() or item[1] is not None:
                    return

        thread = threading.Thread(target=work, name="brainmu-prefetch", daemon=True)
        thread.start()
        try:
            for _ in range(self.first, self.last):
                began = time.perf_counter()
                item, error = ready.get()
                self.stall += time.perf_counter() - began
                if error is not None:
                    raise error
                yield item  # type: ignore[misc]
        finally:
            stop.set()
            thread.join()


class Workers(Generic[T]):
    """The items of :class:`Prefetch`, in the same order, made by forked processes: for features that one thread cannot make in time.

    Attributes
    ----------
    stall : float, s
        Time spent waiting for an item so far.

    Raises
    ------
    InputError
        Where the system cannot fork.
    """

    def __init__(self, make: Callable[[int], T], first: int, last: int, count: int) -> None:
        if "fork" not in multiprocessing.get_all_start_methods():
            raise InputError(f"workers is {count}, but this system cannot fork processes: set workers to 0 (one prefetch thread)")
        self.make, self.first, self.last, self.count = make, first, last, count
        self.stall = 0.0

    def __len__(self) -> int:
        return self.last - self.first

    def __getitem__(self, i: int) -> T:
        return self.make(self.first + i)

    def __iter__(self) -> Iterator[T]:
        from torch.utils.data import DataLoader

        # A generator of its own: the loader draws a seed for its processes, which must not come out of the caller's.
        loader = DataLoader(self, batch_size=None, num_workers=self.count, multiprocessing_context="fork", generator=torch.Generator())  # type: ignore[arg-type]
        with warnings.catch_warnings():
            # Newer Pythons warn of threads that hold locks at a fork; the workers touch numpy and torch on one thread only.
            warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
            items = iter(loader)
        for _ in range(len(self)):
            began = time.perf_counter()
            item = next(items)
            self.stall += time.perf_counter() - began
            yield item


def _shaped(x: torch.Tensor, n: int) -> torch.Tensor:
    return torch.zeros((), dtype=x.dtype).expand(n, *x.shape[1:])
