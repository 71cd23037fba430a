"""Occlusion for any stager: what happens to the log odds when one channel's band no longer belongs to its moment.

The band is not silenced but shifted in time, around the end of the recording: its distribution over the recording stays as it
was, so scales measured on the recording stay too, and only its relation to the moment is lost. Shifted signals are made a block
at a time as they are read, so that memory does not grow with the recording.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Recording, Signal
from brainmu.dsp.filters import bandpass
from brainmu.explain.asking import Answer, ask
from brainmu.explain.bands import BANDS, bands_below
from brainmu.explain.parts import Map, Part
from brainmu.explain.saved import Saved, asked_once

__all__ = ["occlude", "shifted", "shifted_odds"]

_FIELD = ("lfp", "eeg", "eog", "emg")
_BLOCK = 120.0
"""Seconds of a shifted signal that are filtered at once."""
_PAD = 8.0
"""Seconds on either side that the filter sees."""
_KEPT = 2
"""Blocks of a signal that are kept for the next read."""


def occlude(
    stager: Any, recording: Recording, answer: Answer, columns: NDArray[np.intp], chosen: NDArray[np.intp], shifts: int, rng: np.random.Generator,
    saved: Saved, report: Callable[[float], None] | None = None,
) -> Map:  # fmt: skip
    """Fall of the log odds of the target in the chosen epochs when a part of the recording is shifted in time.

    Returns
    -------
    dict of stream: (values, keys, modality)
        field: (epoch, channel, band); features: (epoch, channel); spikes: (epoch, 1), all units together.
    """
    streams, parts = _streams(recording), _parts(recording)
    before = answer.log_odds(columns)[chosen]
    # Drawn at once, so that a part has the same shifts whether or not those before it were done in an earlier call.
    by = rng.uniform(0.25, 0.75, (len(parts), shifts)) * recording.duration
    out: Map = {}
    for name, (modality, keys) in streams.items():
        shape = (len(before), len(keys), len(BANDS)) if modality == "field" else (len(before), len(keys))
        out[name] = (np.zeros(shape), keys, modality)
    for i, (name, member, band) in enumerate(parts):
        done = saved.get(f"occlude.{i}")
        if done is None:
            fall = np.zeros(len(before))
            for k in range(shifts):
                after = ask(stager, shifted(recording, {(name, member, band)}, by[i, k]), answer.start)
                fall += (before - after.log_odds(columns)[chosen]) / shifts
            saved.put(f"occlude.{i}", fall=fall)
        else:
            fall = done["fall"]
        out[name][0][(slice(None), member, band) if band >= 0 else (slice(None), member)] = fall
        if report is not None:
            report((i + 1) / len(parts))
    return out


def shifted_odds(
    stager: Any, recording: Recording, answer: Answer, columns: NDArray[np.intp], chosen: NDArray[np.intp], rng: np.random.Generator,
    saved: Saved,
) -> Callable[[Sequence[Collection[Part]]], NDArray[np.float64]]:  # fmt: skip
    """A function from sets of parts to the mean log odds (set,) of the target in the chosen epochs with these parts shifted, all by as much."""
    by = rng.uniform(0.25, 0.75) * recording.duration

    def ask_without(parts: frozenset[Part]) -> float:
        said = ask(stager, shifted(recording, parts, by), answer.start) if parts else answer
        return float(np.nanmean(said.log_odds(columns)[chosen]))

    return asked_once(saved, {}, ask_without)


def _streams(recording: Recording) -> dict[str, tuple[str, tuple[str, ...]]]:
    """Modality and keys of every stream that can be shifted."""
    out: dict[str, tuple[str, tuple[str, ...]]] = {}
    for name, s in recording.signals.items():
        kinds = set(s.channels["kind"])
        if s.rate is not None and (kinds <= set(_FIELD) or kinds == {"features"}):
            out[name] = ("features" if kinds == {"features"} else "field", tuple(s.names))
    if recording.spikes is not None and len(recording.spikes):
        out["spikes"] = ("spikes", ("all units",))
    return out


def _parts(recording: Recording) -> list[Part]:
    """Everything to shift, a part at a time."""
    out: list[Part] = []
    for name, (modality, keys) in _streams(recording).items():
        bands = [list(BANDS).index(b) for b in bands_below(recording.signals[name].rate or 0.0)] if modality == "field" else [-1]
        out += [(name, member, band) for member in range(len(keys)) for band in bands]
    return out


def shifted(recording: Recording, parts: Collection[Part], by: float) -> Recording:
    """A copy of the recording with some parts moved by `by` seconds, around the end; signals stay lazy."""
    signals, spikes = dict(recording.signals), recording.spikes
    if spikes is not None and any(name == "spikes" for name, _, _ in parts):
        # Times are sorted: those that leave at the end come first. Nothing is sorted or checked again, for which a day's spikes would be copied several times.
        length = recording.duration
        leave = int(np.searchsorted(spikes.times, recording.stop - by % length))
        times = np.concatenate([spikes.times[leave:] - length, spikes.times[:leave]])
        times += by % length
        moved = copy.copy(spikes)
        moved.times, moved.unit_id = times, np.concatenate([spikes.unit_id[leave:], spikes.unit_id[:leave]])
        spikes = moved
    for name in {n for n, _, _ in parts if n != "spikes"}:
        s = recording.signals[name]
        signals[name] = s.with_values(_Shifted(s, [(m, b) for n, m, b in parts if n == name], by))
    return recording.with_fields(signals=signals, spikes=spikes, source={"format": "edited"})


class _Shifted:
    """A lazy array: a signal in its unit, some channels' bands of which come from another time."""

    def __init__(self, signal: Signal, parts: Sequence[tuple[int, int]], by: float) -> None:
        assert signal.rate is not None
        self.signal, self.shape, self.dtype = signal, (signal.n_samples, signal.n_channels), np.dtype(np.float32)
        self.by = round(by * signal.rate) % max(signal.n_samples, 1)
        names, below = list(BANDS), bands_below(signal.rate)
        self.parts = [(member, None if band < 0 else below[names[band]]) for member, band in sorted(parts)]
        self.block, self.pad = max(1, round(_BLOCK * signal.rate)), round(_PAD * signal.rate)
        self._kept: OrderedDict[int, NDArray[np.float32]] = OrderedDict()

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        rows = key[0] if isinstance(key, tuple) else key
        start, stop, step = rows.indices(self.shape[0])
        out = np.empty((max(stop - start, 0), self.shape[1]), dtype=np.float32)
        for k in range(start // self.block, -(-stop // self.block) if stop > start else 0):
            a, b = max(start, k * self.block), min(stop, (k + 1) * self.block)
            out[a - start : b - start] = self._made(k)[a - k * self.block : b - k * self.block]
        out = out[::step]
        return out[(slice(None), *key[1:])] if isinstance(key, tuple) and len(key) > 1 else out

    def _made(self, k: int) -> NDArray[np.float32]:
        """Block k; a block is always made whole, so that overlapping reads agree."""
        if k not in self._kept:
            n = self.shape[0]
            a, b = k * self.block, min((k + 1) * self.block, n)
            out = self.signal.read(a, b)
            for member, band in self.parts:
                there = np.concatenate([self._part(i, j, member, band) for i, j in _around(a - self.by, b - self.by, n)])
                out[:, member] += there - self._part(a, b, member, band)
            self._kept[k] = out
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return self._kept[k]

    def _part(self, a: int, b: int, member: int, band: tuple[float, float] | None) -> NDArray[np.float32]:
        """One channel's band in samples [a, b)."""
        if band is None:
            return self.signal.read(a, b)[:, member]
        assert self.signal.rate is not None
        i, j = max(0, a - self.pad), min(self.shape[0], b + self.pad)
        x = self.signal.read(i, j)[:, member]
        if not np.isfinite(x).any():
            return x[a - i : b - i]
        return bandpass(x, self.signal.rate, *band)[a - i : b - i]


def _around(a: int, b: int, n: int) -> list[tuple[int, int]]:
    """Samples [a, b) of a signal of n that goes on around its ends, as spans inside it."""
    a, b = (a + n, b + n) if a < 0 else (a, b)
    return [(a, b)] if b <= n else [(a, n), (0, b - n)]
