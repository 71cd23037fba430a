"""How large and how rough a signal is, window by window, and what that says: artefacts in time, noisy channels.

Windows lie at fixed places and each is measured whole (:func:`measure`), so the measures do not depend on how the signal was cut. A window and
channel keep two bytes, logarithms of the range and of the largest step; the rest are integer sums. Judgement (:func:`find_artefacts`,
:func:`find_noisy`) comes when all of a recording has been measured: 24 h of 384 channels are 66 MB.
"""

from __future__ import annotations

import base64
import functools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Artefacts", "Levels", "find_artefacts", "find_noisy", "measure", "window_length"]

_FULL_RATE = 1250.0  # faster signals are averaged to about this rate first: spikes are no artefacts
_OCTAVE = 6  # codes an octave
_LEAST = -20  # log2 of the least level that can be told, in the signal's unit
_FINE = 256  # sums are of 1/256 octaves
_LEAST_SAMPLES = 32
_MAINS = (50.0, 60.0)

FACTORS = (6.0, 3.0)
"""The least factors over their medians that range and largest step of an artefact have, however steady the channel: slow waves are five times
as large as what is between them, but no steeper."""
_COMMON_FACTOR = 2.5  # of the step, where channels agree
_SHARE = 0.5  # of the channels that a common artefact is seen on
_LEAST_COMMON = 4
_LEAST_JUDGED = 3
_Z = 5.0  # PREP's threshold, robust SD
_SPREAD = (0.2, 0.26)  # of ln(level) across channels, at least and at most: layers differ by a factor of two, and few channels spread by chance
_BATCH = 1 << 18  # values at a time: 2 MiB, about what a cache holds
_HUM = 0.25  # of the channel's deviation


def window_length(rate: float) -> int:
    """Samples of a window: about a second."""
    return max(round(rate), _LEAST_SAMPLES)


def measure(x: NDArray[np.floating[Any]], rate: float, first: int) -> dict[str, Any]:
    """Measures of consecutive windows, as what JSON can hold.

    Parameters
    ----------
    x : float (time, channel)
        Rows from the beginning of window `first` to the end of a window or of the signal; NaN is missing. A window counts for a channel if
        at least half of it is present.
    rate : float, Hz
    first : int
        Number of the first window.

    Returns
    -------
    dict
        first, count (windows), codes (text: range and largest step), and sums over windows, a list a channel: n, deviation, roughness (SD of
        the steps), hum (amplitude at 50 or 60 Hz).
    """
    length = window_length(rate)
    count, channels = -(-len(x) // length), x.shape[1]
    codes = np.zeros((count, channels, 2), dtype=np.uint8)
    sums = np.zeros((4, channels), dtype=np.int64)
    q = max(1, int(rate // _FULL_RATE))
    for k, rows in _batches(x, length, count):
        size, step, fine = _window(_thinned(rows, q), rate / q)
        found = np.stack([_coded(size), _coded(step)], axis=2)
        found[(found == 0).any(axis=2)] = 0
        codes[k : k + len(found)] = found
        good = found[:, :, 0] > 0
        sums[0] += good.sum(axis=0)
        logs = np.rint(_FINE * np.log2(np.maximum(fine, 2.0**_LEAST))).astype(np.int64)
        sums[1:] += np.where(good, logs, 0).sum(axis=1)
    n, deviation, roughness, hum = sums.tolist()
    text = base64.b64encode(zlib.compress(codes.tobytes(), 6)).decode()
    return {"first": first, "count": count, "codes": text, "n": n, "deviation": deviation, "roughness": roughness, "hum": hum}


def _batches(x: NDArray[Any], length: int, count: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    """Windows (window, channel, time) of float64 with the number of the first, some at a time: long contiguous rows are what sums are quick on.

    A last window of less than half the length is left out.
    """
    whole = len(x) // length
    together = max(1, _BATCH // (length * x.shape[1]))
    for k in range(0, whole, together):
        some = x[k * length : min(whole, k + together) * length].reshape(-1, length, x.shape[1])
        yield k, np.ascontiguousarray(some.transpose(0, 2, 1), dtype=np.float64)
    rest = x[whole * length :]
    if whole < count and 2 * len(rest) >= length:
        yield whole, np.ascontiguousarray(rest.T[None], dtype=np.float64)


def _thinned(x: NDArray[np.float64], q: int) -> NDArray[np.float64]:
    """Means of `q` samples each; the array itself, or one of its own, to be written on."""
    n = x.shape[2] // q * q
    return x[:, :, :n].reshape(*x.shape[:2], -1, q).mean(axis=3) if q > 1 else x


def _window(x: NDArray[np.float64], rate: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Range and largest step (window, channel), and deviation, roughness and hum (3, window, channel), 0 where a channel misses half."""
    absent = ~np.isfinite(x)
    steps = np.diff(x, axis=2)
    n = np.full(x.shape[:2], x.shape[2])
    if absent.any():
        n = (~absent).sum(axis=2)
        out = 2 * n < x.shape[2]
        x[out], steps[out], absent[out], n[out] = 0.0, 0.0, False, x.shape[2]
        low, high = np.where(absent, np.inf, x).min(axis=2), np.where(absent, -np.inf, x).max(axis=2)
        x -= (np.where(absent, 0.0, x).sum(axis=2) / n)[:, :, None]
        x[absent] = 0.0
        steps = np.nan_to_num(steps, nan=0.0, posinf=0.0, neginf=0.0)
    else:
        low, high = x.min(axis=2), x.max(axis=2)
        x -= (x.sum(axis=2) / n)[:, :, None]
    hum = np.zeros(x.shape[:2])
    for wave in _waves(x.shape[2], rate):  # real and imaginary part
        hum = np.maximum(hum, np.sqrt((x * wave[0]).sum(axis=2) ** 2 + (x * wave[1]).sum(axis=2) ** 2) * (x.shape[2] / n))
    largest = np.maximum(steps.max(axis=2), -steps.min(axis=2)) if steps.shape[2] else np.zeros(x.shape[:2])
    deviation, roughness = (np.sqrt((v * v).sum(axis=2) / n) for v in (x, steps))
    return high - low, largest, np.stack([deviation, roughness, hum])


@functools.lru_cache(16)
def _waves(n: int, rate: float) -> list[NDArray[np.float64]]:
    """Cosine and sine (2, n) at each mains frequency under a Hann window, scaled to give amplitudes."""
    taper = np.hanning(n + 1)[:n]
    k = np.arange(n)
    turns = [2 * np.pi * f / rate * k for f in _MAINS if rate > 2.2 * f]
    return [2 / taper.sum() * taper * np.stack([np.cos(t), np.sin(t)]) for t in turns]


def _coded(v: NDArray[np.float64]) -> NDArray[np.uint8]:
    with np.errstate(divide="ignore"):
        octaves = np.log2(v)
    code = np.clip(np.rint((np.maximum(octaves, -1e3) - _LEAST) * _OCTAVE) + 1, 1, 255)
    return np.where((v > 0) & np.isfinite(v), code, 0).astype(np.uint8)


@dataclass
class Levels:
    """The measures of a whole signal.

    Attributes
    ----------
    codes : uint8 (window, channel, 2)
        Sixths of an octave of range and largest step; 0 where a window is not judged.
    deviation, roughness, hum : float64 (channel,)
        Mean over windows of log2 of the SD within a window, of the SD of steps, and of the amplitude at 50 or 60 Hz (the larger). NaN where
        no window is judged.
    """

    codes: NDArray[np.uint8]
    deviation: NDArray[np.float64]
    roughness: NDArray[np.float64]
    hum: NDArray[np.float64]

    @classmethod
    def of(cls, pieces: Sequence[dict[str, Any]], channels: int) -> Levels:
        """From what :func:`measure` gave, in any order."""
        total = max((p["first"] + p["count"] for p in pieces), default=0)
        codes = np.zeros((total, channels, 2), dtype=np.uint8)
        sums = np.zeros((4, channels), dtype=np.int64)
        for p in pieces:
            part = np.frombuffer(zlib.decompress(base64.b64decode(p["codes"])), dtype=np.uint8)
            codes[p["first"] : p["first"] + p["count"]] = part.reshape(p["count"], channels, 2)
            sums += np.array([p["n"], p["deviation"], p["roughness"], p["hum"]], dtype=np.int64).reshape(4, channels)
        n = sums[0].astype(np.float64)
        n[n == 0] = np.nan
        return cls(codes, *(sums[1:] / n / _FINE))


@dataclass
class Artefacts:
    """Windows [first, last) with an artefact.

    Attributes
    ----------
    common : list of (first, last)
        Seen on at least half of the channels at once: movement, a knocked cable.
    own : list (channel) of lists of (first, last)
        The others.
    """

    common: list[tuple[int, int]]
    own: list[list[tuple[int, int]]]


def find_artefacts(levels: Levels, k: float, judged: NDArray[np.bool_]) -> Artefacts:
    """Windows whose range or largest step exceeds what is usual for the channel.

    A level counts if its logarithm lies more than `k` robust SDs (1.4826 MAD) above the channel's median over the recording, and if it is at least
    :data:`FACTORS` times that median. Where at least half of the channels (of four or more) show it in the same window, a step of half of `k`
    and 2.5 times the median suffices.

    Parameters
    ----------
    levels : Levels
    k : float
    judged : bool (channel,)
        Channels that are looked at.
    """
    windows, channels = levels.codes.shape[:2]
    seen = np.zeros(windows, dtype=np.int32)
    own: list[NDArray[np.intp]] = [np.empty(0, dtype=np.intp)] * channels
    for c in np.flatnonzero(judged):
        size, step = (_Usual.of(levels.codes[:, c, m]) for m in range(2))
        large = size.exceeded(levels.codes[:, c, 0], k, FACTORS[0])
        own[c] = np.flatnonzero(large | step.exceeded(levels.codes[:, c, 1], k, FACTORS[1]))
        seen += large | step.exceeded(levels.codes[:, c, 1], k / 2, _COMMON_FACTOR)
    n = int(judged.sum())
    common = seen >= max(_SHARE * n, 2) if n >= _LEAST_COMMON else np.zeros(windows, dtype=bool)
    return Artefacts(_spans(np.flatnonzero(common)), [_spans(w[~common[w]]) for w in own])


@dataclass
class _Usual:
    """Median and robust SD of a channel's codes; NaN where it has none."""

    middle: float
    spread: float

    @classmethod
    def of(cls, codes: NDArray[np.uint8]) -> _Usual:
        counts = np.bincount(codes, minlength=256)
        counts[0] = 0
        if not counts.any():
            return cls(np.nan, np.nan)
        middle = _median(counts)
        away = np.zeros(512)
        for code in np.flatnonzero(counts):
            away[round(2 * abs(code - middle))] += counts[code]
        return cls(middle, 1.4826 * _median(away) / 2)

    def exceeded(self, codes: NDArray[np.uint8], k: float, factor: float) -> NDArray[np.bool_]:
        return codes > self.middle + max(k * self.spread, _OCTAVE * np.log2(factor))


def _median(counts: NDArray[Any]) -> float:
    """The median of values that occur `counts` (value,) times, to half a value."""
    total, running = counts.sum(), np.cumsum(counts)
    return float(np.searchsorted(running, total / 2) + np.searchsorted(running, total / 2, side="right")) / 2


def find_noisy(levels: Levels, judged: NDArray[np.bool_], groups: Sequence[Any] | None = None) -> dict[int, str]:
    """Channels that stand out from the others, and why.

    The logarithms of a channel's deviation, of its share of high frequencies (SD of steps over SD) and of its share of mains hum are compared with
    the median of the channels: more than 5 robust SDs above it is noisy. The SD is taken as 0.2 to 0.26 (of ln), so that a factor of 2.7 is
    needed however alike the others are and 3.7 suffices however they differ; hum counts from a quarter of the channel's deviation on. Fewer than
    three channels are not judged.

    Parameters
    ----------
    levels : Levels
    judged : bool (channel,)
        Channels to compare (alive, of one kind).
    groups : sequence or None
        The kind of each channel: only like is compared with like.

    References
    ----------
    Bigdely-Shamlo et al. 2015, Front Neuroinform 9:16 (PREP: robust deviation and high-frequency noise, z > 5); International Brain
    Laboratory 2022, spike sorting pipeline (noisy channels by high-frequency power).
    """
    kinds = np.array([str(g) for g in groups] if groups is not None else [""] * len(judged))
    out: dict[int, str] = {}
    usable = judged & np.isfinite(levels.deviation)
    for kind in dict.fromkeys(kinds[usable].tolist()):
        which = np.flatnonzero(usable & (kinds == kind))
        if len(which) < _LEAST_JUDGED:
            continue
        size, share, hum = levels.deviation[which], (levels.roughness - levels.deviation)[which], (levels.hum - levels.deviation)[which]
        for what, value, counts in (
            ("deviation", size, np.ones(len(which), bool)), ("share of high frequencies", share, np.ones(len(which), bool)),
            ("share of mains hum", hum, hum > np.log2(_HUM)),
        ):  # fmt: skip
            centre = np.median(value)
            spread = np.clip(1.4826 * np.median(np.abs(value - centre)) * np.log(2), *_SPREAD)
            for c in np.flatnonzero(((value - centre) * np.log(2) / spread > _Z) & counts):
                out.setdefault(int(which[c]), f"{2.0 ** (value[c] - centre):.1f} times the others' {what}")
    return dict(sorted(out.items()))


def _spans(windows: NDArray[np.intp]) -> list[tuple[int, int]]:
    return [(int(part[0]), int(part[-1]) + 1) for part in _runs(windows)]


def _runs(windows: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    if len(windows):
        yield from np.split(windows, np.flatnonzero(np.diff(windows) > 1) + 1)
