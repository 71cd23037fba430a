"""Edited copies of a recording: an event's spikes and ripple taken away, and placebo edits of equal size elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal.windows import tukey

from brainmu.core import EventTable, Intervals, Recording, Signal, Spikes
from brainmu.dsp.filters import bandpass
from brainmu.errors import InputError, MissingDataError

__all__ = ["RIPPLE_BAND", "Edit", "apply_edits", "placebo_edits", "removal_edits"]

RIPPLE_BAND = (100.0, 300.0)
"""What counts as the ripple, Hz: wider than the detection band, so that its onset and offset go with it."""

_FILLER_BAND = (10.0, 100.0)
"""What a placebo takes out besides the ripple band, Hz, to reach the norm of its edit."""

_TAPER = 0.01
"""Fade of an edit at either end, s: an abrupt cut would leave a broadband click."""


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
    """

    start: float
    stop: float
    patches: dict[str, tuple[int, NDArray[np.float32]]] = field(default_factory=dict)
    drop: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))

    @property
    def norm(self) -> float:
        """Root of the summed squares of what is added, over all signals, in their units."""
        return float(np.sqrt(sum(float((p.astype(np.float64) ** 2).sum()) for _, p in self.patches.values())))


def removal_edits(recording: Recording, events: EventTable, what: Sequence[str] = ("spikes", "ripple")) -> list[Edit]:
    """Edits that take away each event's spikes, its ripple-band LFP, or both.

    Parameters
    ----------
    recording : Recording
    events : EventTable
    what : some of "spikes", "ripple"
        The ripple goes by subtracting the 100-300 Hz part of every LFP channel inside the event, faded over 10 ms.

    Raises
    ------
    MissingDataError
        If the recording has neither spikes nor an LFP fast enough to hold a ripple.
    """
    unknown = sorted(set(what) - {"spikes", "ripple"})
    if unknown or not what:
        raise InputError(f"what to remove is {list(what)}, expected some of spikes, ripple")
    lfp = _ripple_signals(recording) if "ripple" in what else {}
    spikes = recording.spikes if "spikes" in what else None
    if not lfp and (spikes is None or not len(spikes)):
        raise MissingDataError(f"{recording.id}: nothing to remove: there are no spikes, and no LFP sampled above {2 * RIPPLE_BAND[1]:.0f} Hz")
    out = []
    for start, stop in zip(events.start, events.stop):
        patches = {name: patch for name, s in lfp.items() if (patch := _ripple_patch(s, start, stop)) is not None}
        drop = np.empty(0, dtype=np.int64)
        if spikes is not None:
            i, j = np.searchsorted(spikes.times, [start, stop])
            drop = np.arange(i, j)
        out.append(Edit(float(start), float(stop), patches, drop))
    return out


def placebo_edits(recording: Recording, edits: Sequence[Edit], where: Sequence[Intervals], rng: np.random.Generator) -> list[Edit | None]:
    """For each edit, one of equal duration and norm at a random other time.

    The same is done there as to the event: the ripple band is taken out, and as many spikes (those nearest to the middle).
    Where there was no ripple that changes less, so some of the signal's own 10-100 Hz content is taken out too, until the
    norms are equal. (Adding the event's waveform elsewhere would have equal norm as well, but would insert a ripple.)

    Parameters
    ----------
    where : sequence of Intervals
        For each edit, the time it may move to (same stage, away from any event).

    Returns
    -------
    list of Edit or None
        None where no place is long enough.
    """
    out: list[Edit | None] = []
    for edit, spans in zip(edits, where, strict=True):
        length = edit.stop - edit.start
        room = spans.longer_than(length + 2 * _TAPER)
        slack = room.stop - room.start - length
        if not len(room):
            out.append(None)
            continue
        k = rng.choice(len(room), p=slack / slack.sum())
        start = float(room.start[k] + rng.random() * slack[k])
        patches: dict[str, tuple[int, NDArray[np.float32]]] = {}
        for name, (_, values) in edit.patches.items():
            patch = _placebo_patch(recording.signals[name], start, start + length, float(np.linalg.norm(values)))
            if patch is not None:
                patches[name] = patch
        if len(patches) < len(edit.patches):
            out.append(None)
            continue
        out.append(Edit(start, start + length, patches, _nearest_spikes(recording.spikes, start + length / 2, len(edit.drop))))
    return out


def apply_edits(recording: Recording, edits: Sequence[Edit]) -> Recording:
    """A recording with all `edits` made; signals stay lazy, nothing is written."""
    signals: dict[str, Signal] = dict(recording.signals)
    for name in {n for e in edits for n in e.patches}:
        s = recording.signals[name]
        patches = sorted((e.patches[name] for e in edits if name in e.patches), key=lambda p: p[0])
        signals[name] = s.with_values(_Patched(s, patches))
    spikes = recording.spikes
    if spikes is not None and any(len(e.drop) for e in edits):
        keep = np.ones(len(spikes), dtype=bool)
        keep[np.concatenate([e.drop for e in edits])] = False
        spikes = Spikes(spikes.times[keep], spikes.unit_id[keep], spikes.units)
    return Recording(
        id=recording.id, subject=recording.subject, species=recording.species, started_at=recording.started_at, signals=signals, spikes=spikes,
        labels=recording.labels, source={"format": "edited"}, subject_meta=recording.subject_meta, zeitgeber=recording.zeitgeber,
    )  # fmt: skip


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


def _ripple_signals(recording: Recording) -> dict[str, Signal]:
    """LFP signals fast enough to hold a ripple, whole (edits address a signal's own columns)."""
    names = recording.signals_of("lfp")
    return {n: recording.signals[n] for n in names if (recording.signals[n].rate or 0) > 2 * RIPPLE_BAND[1]}


def _ripple_patch(signal: Signal, start: float, stop: float) -> tuple[int, NDArray[np.float32]] | None:
    """What to add to the signal so that its ripple band vanishes in [start, stop); None outside the signal."""
    found = _content(signal, start, stop, RIPPLE_BAND)
    return None if found is None else (found[0], -found[1])


def _placebo_patch(signal: Signal, start: float, stop: float, norm: float) -> tuple[int, NDArray[np.float32]] | None:
    """As :func:`_ripple_patch`, with so much of the filler band taken out too that the patch has `norm`."""
    found, filler = _content(signal, start, stop, RIPPLE_BAND), _content(signal, start, stop, _FILLER_BAND)
    if found is None or filler is None:
        return None
    r, f = found[1].astype(np.float64), filler[1].astype(np.float64)
    a, b, c = float((f * f).sum()), float((r * f).sum()), float((r * r).sum()) - norm**2
    # |r + w f| = norm, solved for the least w >= 0; a louder ripple band than the event's own is taken out as it is.
    w = (-b + np.sqrt(max(b * b - a * c, 0.0))) / a if a > 0 and c < 0 else 0.0
    return found[0], -(r + w * f).astype(np.float32)


def _content(signal: Signal, start: float, stop: float, band: tuple[float, float]) -> tuple[int, NDArray[np.float32]] | None:
    """First sample and content (time, channel) of a band of the LFP channels around [start, stop), faded; None outside the signal."""
    assert signal.rate is not None
    pad = round(0.2 * signal.rate)
    i, j = signal.index(start - _TAPER), signal.index(stop + _TAPER)
    if j - i < 4:
        return None
    a, b = max(0, i - pad), min(signal.n_samples, j + pad)
    x = signal.read(a, b)
    # A channel without a sample here cannot be filtered, and needs no edit.
    alive = np.isfinite(x).any(0) & signal.channels["kind"].eq("lfp").to_numpy()
    content = np.zeros((j - i, signal.n_channels), dtype=np.float32)
    if alive.any():
        part = bandpass(x[:, alive], signal.rate, *band)[i - a : j - a]
        fade = tukey(j - i, alpha=min(1.0, 2 * _TAPER * signal.rate / (j - i)))[:, None]
        content[:, alive] = np.nan_to_num(part * fade)
    return i, content


def _nearest_spikes(spikes: Spikes | None, middle: float, n: int) -> NDArray[np.int64]:
    """Indices of the n spikes nearest in time to `middle`."""
    if spikes is None or n == 0:
        return np.empty(0, dtype=np.int64)
    k = int(np.searchsorted(spikes.times, middle))
    around = np.arange(max(0, k - n), min(len(spikes), k + n))
    return np.sort(around[np.argsort(np.abs(spikes.times[around] - middle), kind="stable")[:n]])
