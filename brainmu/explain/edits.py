"""Edited copies of a recording: what an edit is, how it is applied, and the parts of a signal that edits are made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal.windows import tukey

from brainmu.core import Recording, Signal, Spikes
from brainmu.dsp.filters import bandpass

__all__ = ["FILLER_BAND", "RIPPLE_BAND", "Edit", "apply_edits", "content", "nearest_spikes", "ripple_signals", "to_norm"]

RIPPLE_BAND = (100.0, 300.0)
"""What counts as the ripple, Hz: wider than the detection band, so that its onset and offset go with it."""

FILLER_BAND = (10.0, 100.0)
"""What a placebo changes besides the ripple band, Hz, to reach the norm of its edit."""

TAPER = 0.01
"""Fade of an edit at either end, s: an abrupt cut would leave a broadband click."""

Patch = tuple[int, NDArray[np.float32]]


@dataclass(frozen=True)
class Edit:
    """One change of a recording.

    Attributes
    ----------
    start, stop : float, s
        Span of the event (or of its placebo).
    patches : dict of (int, float32 (time, channel))
        For each signal: the first sample and what is added to the samples from there.
    drop : int64 (n,)
        Indices of the spikes that are taken out.
    put_times, put_units : float64 (m,), s, and int32 (m,)
        Spikes that are put in.
    twin : Edit or None
        The other place that belongs to the edit: where an event is shifted to.
    """

    start: float
    stop: float
    patches: dict[str, Patch] = field(default_factory=dict)
    drop: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    put_times: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    put_units: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    twin: Edit | None = None

    @property
    def norm(self) -> float:
        """Root of the summed squares of what is added, over all signals and both places, in their units."""
        return float(np.sqrt(sum(float((v.astype(np.float64) ** 2).sum()) for e in self.places() for _, v in e.patches.values())))

    def places(self) -> Iterator[Edit]:
        """The edit, and its twin where it has one."""
        yield self
        if self.twin is not None:
            yield self.twin


def apply_edits(recording: Recording, edits: Sequence[Edit]) -> Recording:
    """A recording with all `edits` made; signals stay lazy, nothing is written."""
    parts = [e for edit in edits for e in edit.places()]
    signals: dict[str, Signal] = dict(recording.signals)
    for name in {n for e in parts for n in e.patches}:
        s = recording.signals[name]
        patches = sorted((e.patches[name] for e in parts if name in e.patches), key=lambda p: p[0])
        signals[name] = s.with_values(_Patched(s, patches))
    return recording.with_fields(signals=signals, spikes=_edited_spikes(recording.spikes, parts), source={"format": "edited"})


def _edited_spikes(spikes: Spikes | None, parts: Sequence[Edit]) -> Spikes | None:
    if spikes is None or not any(len(e.drop) or len(e.put_times) for e in parts):
        return spikes
    keep = np.ones(len(spikes), dtype=bool)
    keep[np.concatenate([e.drop for e in parts])] = False
    times = np.concatenate([spikes.times[keep], *(e.put_times for e in parts)])
    units = np.concatenate([spikes.unit_id[keep], *(e.put_units for e in parts)])
    return Spikes(times, units, spikes.units)


class _Patched:
    """A lazy array: a signal in its unit, with patches added to the rows they cover."""

    def __init__(self, signal: Signal, patches: list[tuple[int, NDArray[np.float32]]]) -> None:
        self.signal, self.patches = signal, patches
        self.shape = (signal.n_samples, signal.n_channels)
        self.dtype = np.dtype(np.float32)
        self._first = np.array([p[0] for p in patches])
        self._longest = max(len(v) for _, v in patches)

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        rows = key[0] if isinstance(key, tuple) else key
        start, stop, step = rows.indices(self.shape[0])
        out = self.signal.read(start, max(stop, start))
        lo = np.searchsorted(self._first, start - self._longest)
        hi = np.searchsorted(self._first, stop)
        for first, values in self.patches[lo:hi]:
            a, b = max(first, start), min(first + len(values), stop)
            if a < b:
                out[a - start : b - start] += values[a - first : b - first]
        out = out[::step]
        return out[(slice(None), *key[1:])] if isinstance(key, tuple) and len(key) > 1 else out


def ripple_signals(recording: Recording) -> dict[str, Signal]:
    """LFP signals fast enough to hold a ripple, whole (edits address a signal's own columns)."""
    names = recording.signals_of("lfp")
    return {n: recording.signals[n] for n in names if (recording.signals[n].rate or 0) > 2 * RIPPLE_BAND[1]}


def content(signal: Signal, start: float, stop: float, band: tuple[float, float]) -> Patch | None:
    """First sample and content (time, channel) of a band of the LFP channels around [start, stop), faded; None outside the signal."""
    assert signal.rate is not None
    pad = round(0.2 * signal.rate)
    i, j = signal.index(start - TAPER), signal.index(stop + TAPER)
    if j - i < 4:
        return None
    a, b = max(0, i - pad), min(signal.n_samples, j + pad)
    x = signal.read(a, b)
    # A channel without a sample here cannot be filtered, and needs no edit.
    alive = np.isfinite(x).any(0) & signal.channels["kind"].eq("lfp").to_numpy()
    out = np.zeros((j - i, signal.n_channels), dtype=np.float32)
    if alive.any():
        part = bandpass(x[:, alive], signal.rate, *band)[i - a : j - a]
        fade = tukey(j - i, alpha=min(1.0, 2 * TAPER * signal.rate / (j - i)))[:, None]
        out[:, alive] = np.nan_to_num(part * fade)
    return i, out


def to_norm(patch: NDArray[np.float32], filler: NDArray[np.float32], norm: float) -> NDArray[np.float32]:
    """`patch` brought to a norm: with as much of `filler` added as is missing, or made smaller where it is larger.

    A patch that falls short, and whose filler is silent, stays as it is.
    """
    p, f = patch.astype(np.float64), filler.astype(np.float64)
    a, b, size = float((f * f).sum()), float((p * f).sum()), float(np.sqrt((p * p).sum()))
    if size > norm:
        return (p * (norm / size)).astype(np.float32)
    # |p + w f| = norm, solved for the least w >= 0.
    w = (-b + np.sqrt(max(b * b - a * (size**2 - norm**2), 0.0))) / a if a > 0 else 0.0
    return (p + w * f).astype(np.float32)


def nearest_spikes(spikes: Spikes | None, middle: float, n: int) -> NDArray[np.int64]:
    """Indices of the n spikes nearest in time to `middle`."""
    if spikes is None or n == 0:
        return np.empty(0, dtype=np.int64)
    k = int(np.searchsorted(spikes.times, middle))
    around = np.arange(max(0, k - n), min(len(spikes), k + n))
    return np.sort(around[np.argsort(np.abs(spikes.times[around] - middle), kind="stable")[:n]])
