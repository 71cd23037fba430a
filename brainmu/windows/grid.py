"""A recording cut into windows of equal length: standardised arrays for attribution, features for models."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from brainmu.core.recording import Recording
from brainmu.core.signal import Signal
from brainmu.errors import InputError
from brainmu.windows.batch import Batch, Stream
from brainmu.windows.mapped import give_back
from brainmu.windows.spectra import patch_features
from brainmu.windows.statistics import SignalStatistics, Statistics, measure

__all__ = ["SLOW_BINS", "CacheBudget", "WindowGrid"]

SLOW_BINS = 8
"""Samples of a slow trace in a patch."""
_BLOCK = 64


class CacheBudget:
    """Bytes that the features kept by several grids may take together.

    First come, first served: a grid asks when it is made, so which recordings are kept follows from their order alone, not from
    which happens to be read first, and a resumed run keeps the same ones. The others are read anew each time.

    Parameters
    ----------
    size : int, bytes
    """

    def __init__(self, size: int) -> None:
        if size < 0:
            raise InputError(f"cache is {size} bytes, expected a number >= 0")
        self.size, self.used = int(size), 0
        # Grids may be collected, and hand back what they took, in the midst of another's asking.
        self._lock = threading.RLock()

    def __getstate__(self) -> dict[str, int]:
        return {"size": self.size, "used": self.used}

    def __setstate__(self, state: dict[str, int]) -> None:
        self.size, self.used, self._lock = state["size"], state["used"], threading.RLock()

    def take(self, n: int) -> bool:
        """Whether `n` bytes were left; they are taken then."""
        with self._lock:
            fits = self.used + n <= self.size
            self.used += n * fits
            return fits

    def give(self, n: int) -> None:
        """Hand `n` bytes back."""
        with self._lock:
            self.used -= n


class WindowGrid:
    """The windows of one recording.

    Parameters
    ----------
    recording : Recording
    window : float, s
        Length of a window; window k spans [start + k window, start + (k+1) window).
    start : float or None, s
        Where the grid begins; the start of the earliest stream in use where None.
    count : int or None
        Windows in the grid; as many as fit where None.
    kinds : iterable of str or None
        Channel kinds to use, and "spikes".
    statistics : Statistics or None
        Scales to use; measured on the recording where None (an edited copy of a recording keeps those of the original).
    patch : float, s
        Nominal length of a patch: a window holds a whole number of patches at least this long.
    bin : float, s
        Nominal length of a spike bin.
    cache : int, bytes, or CacheBudget
        Features of the whole recording are kept (float16) once computed, if they fit; a budget is shared by several grids.
        With 0 nothing is kept and features are float32; otherwise they are rounded to float16 whether they are kept or not.

    Raises
    ------
    MissingDataError, InputError
        As :func:`brainmu.windows.statistics.measure`; or if no window fits.
    """

    def __init__(
        self, recording: Recording, window: float = 4.0, start: float | None = None, count: int | None = None, *,
        kinds: Iterable[str] | None = None, statistics: Statistics | None = None, patch: float = 1.0, bin: float = 0.05,
        cache: int | CacheBudget = 1 << 28,
    ) -> None:  # fmt: skip
        if not (np.isfinite(window) and window > 0):
            raise InputError(f"window is {window!r} s, expected a positive number")
        self.recording, self.window = recording, float(window)
        self.n_patches = max(1, int(window / patch + 1e-9))
        self.patch = window / self.n_patches
        self.n_bins = max(1, round(window / bin))
        self.statistics = measure(recording, kinds, self.patch) if statistics is None else statistics
        spans = [(recording.signals[s.signal].start, recording.signals[s.signal].stop) for s in self.statistics.signals.values()]
        if not spans:
            spans = [(recording.start, recording.stop)]
        self.start = float(min(a for a, _ in spans) if start is None else start)
        whole = int(np.floor((max(b for _, b in spans) - self.start) / window + 1e-6))
        self.count = whole if count is None else int(count)
        if self.count < 1:
            raise InputError(f"{recording.id}: lasts {max(b for _, b in spans) - self.start:g} s, shorter than one window of {window:g} s")
        self._cached: list[Stream] | None = None
        self._rounds = isinstance(cache, CacheBudget) or cache > 0
        self.budget = cache if isinstance(cache, CacheBudget) else CacheBudget(cache)
        self._caches = self._fits()
        self._give_back([(0, self.count)])

    def _fits(self) -> bool:
        sample = self._compute([(0, 1)])
        need = self.count * sum(2 * s.values.numel() + s.valid.numel() for s in sample)
        fits = self.budget.take(need)
        if fits:
            weakref.finalize(self, self.budget.give, need)
        return fits

    def __len__(self) -> int:
        return self.count

    @property
    def times(self) -> NDArray[np.float64]:
        """Start of each window (n,), s."""
        return self.start + np.arange(self.count, dtype=np.float64) * self.window

    # -- arrays that attribution differentiates -----------------------------------------------------------------------
    def arrays(self, first: int, last: int) -> dict[str, NDArray[np.float32]]:
        """Standardised inputs of windows [first, last), by stream; NaN where missing.

        Field: (window, channel, time); slow: (window, channel, bin of 1/8 patch); features: (window, channel);
        spikes: counts (window, unit, bin).
        """
        if not 0 <= first < last <= self.count:
            raise InputError(f"{self.recording.id}: windows [{first}, {last}) of {self.count} asked for, expected 0 <= first < last <= {self.count}")
        out = {}
        for name, s in self.statistics.signals.items():
            signal = self.recording.signals[s.signal]
            read = {"field": self._field, "slow": self._slow, "features": self._features}[s.modality]
            out[name] = read(signal, s, first, last)
        if self.statistics.spikes is not None:
            out["spikes"] = self._counts(first, last)
        return out

    def _field(self, signal: Signal, s: SignalStatistics, first: int, last: int) -> NDArray[np.float32]:
        assert signal.rate is not None
        n = self.n_patches * round(self.patch * signal.rate)
        at = np.round((self.start + np.arange(first, last) * self.window - signal.start) * signal.rate).astype(np.int64)
        a, b = int(at[0]), int(at[-1]) + n
        lo, hi = max(a, 0), min(b, signal.n_samples)
        block = np.full((b - a, len(s.columns)), np.nan, dtype=np.float32)
        if hi > lo:
            block[lo - a : hi - a] = s.standardise(signal.read(lo, hi))
        rows = block[(at - a)[:, None] + np.arange(n)]
        return np.ascontiguousarray(rows.transpose(0, 2, 1))

    def _slow(self, signal: Signal, s: SignalStatistics, first: int, last: int) -> NDArray[np.float32]:
        bins = self.n_patches * SLOW_BINS
        step = self.window / bins
        n = (last - first) * bins
        origin = self.start + first * self.window
        # One sample more on either side, so that sparse traces can be interpolated into the first and last bin.
        i, j = signal.index(origin), signal.index(origin + n * step)
        i, j = max(i - 1, 0), min(j + 1, signal.n_samples)
        out = np.full((n, len(s.columns)), np.nan, dtype=np.float32)
        if j > i:
            times, values = signal.read_times(i, j), s.standardise(signal.read(i, j))
            _bin_means(out, ((times - origin) / step), values)
        return np.ascontiguousarray(out.reshape(last - first, bins, -1).transpose(0, 2, 1))

    def _features(self, signal: Signal, s: SignalStatistics, first: int, last: int) -> NDArray[np.float32]:
        edges = self.start + np.arange(first, last + 1) * self.window
        at = np.array([signal.index(t) for t in edges])
        # A window without a sample of its own shows the sample whose span it lies in.
        period = self.window if signal.rate is None else 1 / signal.rate
        out = np.full((last - first, len(s.columns)), np.nan, dtype=np.float32)
        i0 = max(int(at[0]) - 1, 0)
        values, times = s.standardise(signal.read(i0, int(at[-1]))), signal.read_times(i0, int(at[-1]))
        for k, (i, j) in enumerate(pairwise(at.tolist())):
            if j > i:
                out[k] = values[i - i0 : j - i0].mean(0)
            elif i > i0 and times[i - 1 - i0] + period > edges[k]:
                out[k] = values[i - 1 - i0]
        return out

    def _counts(self, first: int, last: int) -> NDArray[np.float32]:
        units = self.statistics.spikes
        assert units is not None and self.recording.spikes is not None
        origin, n = self.start + first * self.window, (last - first) * self.n_bins
        times, ids = self.recording.spikes.span(origin, origin + (last - first) * self.window)
        order = np.argsort(units.ids)
        place = np.clip(np.searchsorted(units.ids[order], ids), 0, len(order) - 1)
        known = units.ids[order][place] == ids
        column = order[place[known]]
        row = np.minimum(((times[known] - origin) / (self.window / self.n_bins)).astype(np.int64), n - 1)
        flat = np.bincount(row * len(units.ids) + column, minlength=n * len(units.ids)).astype(np.float32)
        return np.ascontiguousarray(flat.reshape(last - first, self.n_bins, -1).transpose(0, 2, 1))

    # -- features that models read ------------------------------------------------------------------------------------
    def streams(self, arrays: dict[str, Tensor], missing: dict[str, Tensor] | None = None) -> list[Stream]:
        """Streams from the arrays of :meth:`arrays` as tensors; differentiable.

        Any number of windows, also several versions of one; rows count along the first axis. `missing` says where samples
        are missing; NaN says so where it is None.
        """
        return [self._stream(name, x, torch.isnan(x) if missing is None else missing[name]) for name, x in arrays.items()]

    def _stream(self, name: str, x: Tensor, missing: Tensor) -> Stream:
        n = len(x)
        rows = torch.arange(n, device=x.device)
        if name == "spikes":
            units = self.statistics.spikes
            assert units is not None
            expected = torch.from_numpy(units.rate * np.float32(self.window / self.n_bins)).to(x.device)
            valid = torch.ones(n, x.shape[2], dtype=torch.bool, device=x.device)
            keys = tuple(str(i) for i in units.ids)
            return Stream(name, "spikes", rows, x, valid, torch.from_numpy(units.identity).to(x.device), keys, expected)
        s = self.statistics.signals[name]
        identity = torch.from_numpy(s.identity).to(x.device)
        x = torch.where(missing, torch.zeros_like(x), x)
        if s.modality == "features":
            return Stream(name, s.modality, rows, x, ~missing, identity, s.names)
        patches = x.unflatten(2, (self.n_patches, -1))
        # A patch counts as missing when more than half of it is.
        valid = missing.unflatten(2, (self.n_patches, -1)).float().mean(-1) <= 0.5
        if s.modality == "field":
            rate = self.recording.signals[s.signal].rate
            assert rate is not None and s.reference is not None
            patches = patch_features(patches, rate, torch.from_numpy(s.reference))
        return Stream(name, s.modality, rows, patches, valid, identity, s.names)

    def batch(self, index: Sequence[int] | NDArray[np.int64] | slice, session: int = 0, *, keep: bool = True) -> Batch:
        """A batch of the windows with these indices (any order).

        `keep=False`, for a single pass over the recording, uses features that are kept already but keeps none itself.
        """
        rows = np.arange(self.count)[index] if isinstance(index, slice) else np.asarray(index, dtype=np.int64)
        if rows.size == 0 or rows.min() < 0 or rows.max() >= self.count:
            raise InputError(f"{self.recording.id}: window indices outside 0..{self.count - 1}, or none")
        if self._cached is None and self._caches and keep:
            self._cached = self._all()
        streams = self._read(rows) if self._cached is None else [_taken(s, torch.from_numpy(rows)) for s in self._cached]
        return Batch(self.times[rows], self.window, np.full(len(rows), session, dtype=np.int64), streams)

    def _all(self) -> list[Stream]:
        """Streams of the whole recording, float16, filled a block at a time: in float32 it is never there as a whole."""
        out: list[Stream] = []
        for i in range(0, self.count, _BLOCK):
            part = self._compute([(i, min(i + _BLOCK, self.count))])
            self._give_back([(i, min(i + _BLOCK, self.count))])
            out = out or [_room(s, self.count) for s in part]
            for whole, s in zip(out, part):
                whole.values[i : i + _BLOCK], whole.valid[i : i + _BLOCK] = s.values, s.valid
        return out

    def _read(self, rows: NDArray[np.int64]) -> list[Stream]:
        """Streams of these windows, runs of neighbours read together and features made of up to a block of windows at once."""
        runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
        groups: list[list[tuple[int, int]]] = [[]]
        for a, b in [(int(r[i]), int(r[min(i + _BLOCK, len(r)) - 1]) + 1) for r in runs for i in range(0, len(r), _BLOCK)]:
            if sum(y - x for x, y in groups[-1]) + b - a > _BLOCK:
                groups.append([])
            groups[-1].append((a, b))
        parts = []
        for spans in groups:
            parts.append(self._compute(spans))
            self._give_back(spans)
        streams = _merged(parts)
        # What is kept is float16: a recording must not look different for having found no room.
        return [replace(s, values=s.values.half().float()) for s in streams] if self._rounds else streams

    def _compute(self, spans: Sequence[tuple[int, int]]) -> list[Stream]:
        """Streams of the windows of some spans [first, last), one after another."""
        parts = [self.arrays(a, b) for a, b in spans]
        return self.streams({k: torch.from_numpy(np.concatenate([p[k] for p in parts]) if len(parts) > 1 else x) for k, x in parts[0].items()})

    def _give_back(self, spans: Sequence[tuple[int, int]]) -> None:
        for s in self.statistics.signals.values():
            signal = self.recording.signals[s.signal]
            for a, b in spans:
                give_back(signal.values, signal.index(self.start + a * self.window), signal.index(self.start + b * self.window))


def _bin_means(out: NDArray[np.float32], place: NDArray[np.float64], values: NDArray[np.float32]) -> None:
    """Fill bins (bin, channel) with the mean of the samples whose place (in bins) falls inside; empty bins by interpolation within 1 s worth of bins."""
    n = len(out)
    inside = (place >= 0) & (place < n)
    k = place[inside].astype(np.int64)
    for c in range(out.shape[1]):
        v = values[:, c]
        ok = np.isfinite(v[inside])
        total = np.bincount(k[ok], v[inside][ok], minlength=n)
        hits = np.bincount(k[ok], minlength=n)
        full = hits > 0
        out[full, c] = total[full] / hits[full]
        known = np.isfinite(v)
        if not full.all() and known.sum() > 1:
            empty = np.flatnonzero(~full)
            p = place[known]
            right = np.clip(np.searchsorted(p, empty + 0.5), 1, len(p) - 1)
            between = (p[right - 1] <= empty + 0.5) & (p[right] >= empty + 0.5) & (p[right] - p[right - 1] <= 2 * SLOW_BINS)
            out[empty[between], c] = np.interp(empty[between] + 0.5, p, v[known])


def _merged(parts: Sequence[list[Stream]]) -> list[Stream]:
    """The streams of consecutive parts of one recording, joined along their rows."""
    if len(parts) == 1:
        return parts[0]
    out = []
    for same in zip(*parts):
        values, valid = torch.cat([x.values for x in same]), torch.cat([x.valid for x in same])
        out.append(replace(same[0], rows=torch.arange(len(values)), values=values, valid=valid))
    return out


def _room(s: Stream, n: int) -> Stream:
    """A stream like `s` of `n` windows, float16, to be filled."""
    values = torch.empty((n, *s.values.shape[1:]), dtype=torch.float16)
    return replace(s, rows=torch.arange(n), values=values, valid=torch.empty((n, *s.valid.shape[1:]), dtype=torch.bool))


def _taken(s: Stream, pick: Tensor) -> Stream:
    return Stream(s.name, s.modality, torch.arange(len(pick)), s.values[pick].float(), s.valid[pick], s.identity, s.keys, s.expected)
