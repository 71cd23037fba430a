"""Ripples: short bursts of narrow-band power shared by the channels, found at a stated rate of false detections.

1. From up to ten minutes of the baseline, each channel's spectrum (median over windows, so that events do not count; mains lines
   stay in it) becomes a whitening gain: coloured noise and hum then weigh no more than anything else.
2. The statistic is the highest response, over frequencies in the band, of Gaussian wave packets as long as a ripple: their power
   averaged over channels, its root as a z-score on the baseline's median and MAD. A packet lets in a quarter of the band's noise.
3. Surrogates of the same baseline (events silenced, phases drawn anew, one draw for all channels, so that their coherence stays)
   go through the same detector; the threshold is where they give `false_rate` events a minute.
4. Each candidate's own spectrum must peak in the band and exceed the bands beside it: transients, muscle and high gamma do not.

References
----------
Kay et al. (2016), Nature 531:185 (consensus over channels). Karlsson & Frank (2009), Nat Neurosci 12:913.
Fernández-Ruiz et al. (2019), Science 364:1082 (long ripples matter). Theiler et al. (1992), Physica D 58:77 (surrogates).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft as sp_fft
from scipy.ndimage import gaussian_filter1d, maximum_filter1d, median_filter

from brainmu.core import EventTable, Intervals, Signal
from brainmu.dsp.filters import WORKERS, check_band, fill_missing, gain
from brainmu.errors import InputError, MissingDataError
from brainmu.replay.bursts import run_above
from brainmu.replay.significance import tail_level

__all__ = ["Detector", "find_ripples", "find_ripples_by_channel"]

_BLOCK_SECONDS = 40.0
_PAD_SECONDS = 1.0
_SAMPLE_SECONDS = 600.0
_BEYOND_SECONDS = 300.0
_STEP_RATE = 200.0
"""Rate of the statistic, Hz: each packet's band is shifted to 0 Hz and cut out in the frequency domain, so no more is needed.
The envelope that gives the edges has twice this rate."""

Float = NDArray[np.float32]


@dataclass(frozen=True)
class RippleSettings:
    """What a ripple is. Lengths in s, frequencies in Hz."""

    band: tuple[float, float] = (150.0, 250.0)
    threshold: float | None = None
    false_rate: float = 0.1
    packet: float = 0.0125
    edge_sigma: float = 0.004
    edge: float = 0.3
    shortest: float = 0.015
    longest: float = 0.5
    gap: float = 0.015
    lowest: float = 3.0
    flank_low: float = 1.0
    flank_high: float = 0.5

    def __post_init__(self) -> None:
        if not self.band[0] > 0:
            raise InputError(f"ripple band is {self.band[0]:g}-{self.band[1]:g} Hz, expected 0 < low < high: a ripple must exceed the band below it")
        if not 0 < self.shortest < self.longest:
            raise InputError(f"ripples: shortest is {self.shortest:g} s and longest {self.longest:g} s, expected 0 < shortest < longest")
        for name in ("threshold", "false_rate", "packet"):
            value = getattr(self, name)
            if value is not None and not 0 < value < np.inf:
                raise InputError(f"ripples: {name} is {value:g}, expected a positive number")


def find_ripples(
    signal: Signal, spans: Intervals, baseline: Intervals, settings: RippleSettings = RippleSettings(), *, seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> EventTable:  # fmt: skip
    """Ripples of the channels of `signal` inside `spans`; see the module for the method.

    Columns: score (peak z), frequency (Hz, of the whitened spectrum's peak), amplitude (whitened, in baseline units).
    attrs: threshold, rate and surrogate_rate (events a minute), baseline statistics, vetoed (how many candidates, by reason).

    Raises
    ------
    InputError
        If the band does not fit below half the sampling rate, or the signal is irregular.
    MissingDataError
        If the baseline holds less than 10 s without gaps, or no channel is usable.
    """
    detector = Detector.fit(signal, baseline, settings, seed)
    candidates = []
    total = max(spans.duration, 1e-9)
    done = missing = 0.0
    for a, b in spans:
        for start, block, keep in _blocks(detector.signal, a, b):
            missing += _missing(block, start, keep, detector.signal.rate or 0.0)
            candidates.append(detector.detect(block, start, keep))
            done += keep[1] - keep[0]
            if progress:
                progress("ripples", min(done / total, 1.0))
    rows = np.concatenate(candidates) if candidates else np.empty((0, 7))
    table = detector.table(rows, max(spans.duration - missing, 0.0))
    table.attrs["missing_seconds"] = missing
    table.attrs |= detector.beyond(spans.subtract(baseline), seed)
    return table


def find_ripples_by_channel(
    signal: Signal, spans: Intervals, baseline: Intervals, settings: RippleSettings = RippleSettings(), *, seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> EventTable:  # fmt: skip
    """Ripples of every channel of `signal` by itself, beside those that the channels share.

    Each channel has its own whitening, baseline, threshold and surrogates, so `false_rate` holds a channel: the union over n channels
    may hold n times as many false events.

    Returns
    -------
    EventTable
        One row a ripple and channel, by start. Columns as in :func:`find_ripples`, and channel, consensus (a ripple shared by the channels
        overlaps it), n_channels (channels with a ripple that overlaps it, its own counted). attrs: threshold, rate, surrogate_rate
        and vetoed by channel; consensus (rate, surrogate_rate and threshold of the shared ones); unusable (channels that are flat).
    """
    shared = find_ripples(signal, spans, baseline, settings, seed=seed)
    keys = ("threshold", "rate", "surrogate_rate", "vetoed", *(k for k in ("surrogate_rate_beyond",) if k in shared.attrs))
    tables, by_channel = [], {k: {} for k in keys}
    usable: list[str] = shared.channels
    for k, name in enumerate(usable):
        table = find_ripples(signal.pick([name]), spans, baseline, settings, seed=seed)
        tables.append(table.assign(channel=name))
        for key, values in by_channel.items():
            values[name] = table.attrs[key]
        if progress:
            progress("ripples by channel", (k + 1) / len(usable))
    out = EventTable.concat(tables).sorted()
    out = out.assign(consensus=_overlaps(out, shared), n_channels=np.sum([_overlaps(out, t) for t in tables], axis=0, dtype=int))
    out.attrs |= by_channel | {
        "method": "whitened wave packets, every channel by itself", "channels": usable, "unusable": [n for n in signal.names if n not in usable],
        "consensus": {k: shared.attrs[k] for k in ("rate", "surrogate_rate", "threshold")}, "warnings": shared.attrs.get("warnings", []),
    }  # fmt: skip
    return out


_LENGTHS_KEPT = 8


class _Weights(NamedTuple):
    """Lengths of the transforms, and where in the spectrum weights (channel, frequency) of each packet and of the whole band begin."""

    n: int
    size: int
    packets: list[tuple[int, Float]]
    fine_size: int
    band: tuple[int, Float]


@dataclass(frozen=True)
class Detector:
    """A ripple detector fitted to a baseline."""

    signal: Signal
    settings: RippleSettings
    frequencies: NDArray[np.float64]
    spectrum: NDArray[np.float64]
    level: NDArray[np.float64]
    centre: float
    spread: float
    calm: float
    threshold: float
    surrogate_rate: float
    surrogate_seconds: float
    warnings: tuple[str, ...] = ()
    _kept: dict[int, _Weights] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def fit(cls, signal: Signal, baseline: Intervals, settings: RippleSettings, seed: int = 0) -> Detector:
        """Spectrum, centre and spread from the baseline; threshold from its surrogates."""
        if signal.rate is None:
            raise InputError("ripples: the signal is irregular, expected a fixed rate: resample it first")
        check_band(signal.rate, *settings.band, what="ripple band")
        pieces = _sample(signal, baseline)
        good = _usable(pieces)
        if not good.any():
            raise MissingDataError("ripples: every channel is flat or missing throughout the baseline, expected at least one that is not")
        warnings = _channel_warnings(signal.names, pieces, good)
        signal = signal if good.all() else signal.pick(good)
        pieces = [p[good] for p in pieces]
        frequencies, spectrum = _spectrum(pieces, signal.rate)
        blank = cls(signal, settings, frequencies, spectrum, np.ones(1), 0.0, 1.0, 1.0, np.inf, 0.0, 0.0)
        views = [blank._view(p) for p in pieces]
        level = np.median(np.concatenate([v.packets[:, _trim(v.packets.shape[1])] for v in views], axis=1), axis=1)
        values = np.concatenate([np.sqrt((v.packets / level[:, None]).max(0))[_trim(v.packets.shape[1])] for v in views])
        centre, spread = float(np.median(values)), 1.4826 * float(np.median(np.abs(values - np.median(values))))
        calm = float(np.median(np.concatenate([v.envelope[_trim(len(v.envelope))] for v in views])))
        fitted = replace(blank, level=level, centre=centre, spread=spread, calm=calm, threshold=settings.threshold or settings.lowest)
        threshold, rate, seconds = fitted._calibrate(pieces, np.random.default_rng(seed))
        return replace(fitted, threshold=threshold, surrogate_rate=rate, surrogate_seconds=seconds, warnings=warnings)

    # -- the statistic ----------------------------------------------------------------------------------------------------
    @property
    def centres(self) -> NDArray[np.float64]:
        """Frequencies of the packets, Hz: about one of their SDs apart."""
        low, high = self.settings.band
        return np.linspace(low, high, int(np.ceil((high - low) * 2 * np.pi * self.settings.packet / 1.1)) + 1)

    def _view(self, block: Float) -> _View:
        """Power of the packets (frequency, time) and envelope of the whole band, averaged over channels, of a block (channel, time)."""
        n = block.shape[1]
        w = self._weights(n)
        spectrum = sp_fft.rfft(block, w.n, axis=1, workers=WORKERS)
        packets = np.zeros((len(w.packets), len(block), w.size), dtype=np.complex64)
        for row, (a, weight) in zip(packets, w.packets):
            np.multiply(spectrum[:, a : a + weight.shape[1]], weight, out=row[:, : weight.shape[1]])
        power = _power(packets) * np.float32((w.size / w.n) ** 2)
        a, weight = w.band
        whole = np.zeros((len(block), w.fine_size), dtype=np.complex64)
        np.multiply(spectrum[:, a : a + weight.shape[1]], weight, out=whole[:, : weight.shape[1]])
        fine = _power(whole) * np.float32((w.fine_size / w.n) ** 2)
        rate = self.signal.rate or 0.0
        step, fine_step = w.n / rate / w.size, w.n / rate / w.fine_size
        envelope = np.sqrt(gaussian_filter1d(fine[: max(int(n / rate / fine_step), 1)], self.settings.edge_sigma / fine_step, mode="nearest"))
        return _View(power[:, : max(int(n / rate / step), 1)], step, envelope, fine_step)

    def _weights(self, n: int) -> _Weights:
        """What the spectrum of a block of `n` samples is multiplied with; blocks are of few lengths, so it is kept."""
        if n in self._kept:
            return self._kept[n]
        if len(self._kept) >= _LENGTHS_KEPT:
            self._kept.clear()
        rate, (low, high) = self.signal.rate or 0.0, self.settings.band
        m = sp_fft.next_fast_len(n, real=True)
        f = np.fft.rfftfreq(m, 1 / rate)
        width = min(20.0, rate / 2 - high)
        wide = 4 / (2 * np.pi * self.settings.packet)
        i, j = np.searchsorted(f, [max(low - max(wide, width), 0), high + max(wide, width)])
        f = f[i:j]
        white = self._whitening(f)
        size = sp_fft.next_fast_len(max(int(round(m * _STEP_RATE / rate)), int(2 * wide * m / rate) + 2))
        packets = []
        for centre in self.centres:
            a, b = np.searchsorted(f, [centre - wide, centre + wide])
            packets.append((int(i + a), white[:, a:b] * np.exp(-0.5 * ((f[a:b] - centre) * 2 * np.pi * self.settings.packet) ** 2).astype(np.float32)))
        band = (int(i), (white * gain(f, low, high, width)).astype(np.float32))
        self._kept[n] = _Weights(m, size, packets, max(2 * size, sp_fft.next_fast_len(j - i)), band)
        return self._kept[n]

    def _z(self, view: _View) -> Float:
        return ((np.sqrt((view.packets / self.level[:, None].astype(np.float32)).max(0)) - self.centre) / self.spread).astype(np.float32)

    def _whitening(self, f: NDArray[np.float64]) -> Float:
        """Gain (channel, frequency) that gives the baseline unit density."""
        return np.stack([1 / np.sqrt(np.interp(f, self.frequencies, s)) for s in self.spectrum]).astype(np.float32)

    # -- detection --------------------------------------------------------------------------------------------------------
    def detect(self, block: Float, start: float, keep: tuple[float, float], threshold: float | None = None) -> NDArray[np.float64]:
        """Candidates (n, 7): start, stop, peak (s), z, frequency (Hz), amplitude, reason of veto (0 none, 1 flank, 2 length); peak in `keep`."""
        s = self.settings
        filled, missing = fill_missing(block.T)
        gone = missing.any(1)
        filled = np.ascontiguousarray(filled.T)
        view = self._view(filled)
        z, fine, step = self._z(view), view.envelope, view.fine_step
        level = self.threshold if threshold is None else threshold
        near = maximum_filter1d(z, int(0.05 / view.step) | 1)
        rows = []
        reach, slack = int(s.longest / step), max(int(0.012 / step), 1)
        for top in np.flatnonzero((z >= level) & (z == near)):
            at = start + top * view.step
            if not keep[0] <= at < keep[1]:
                continue
            middle = min(int(round(top * view.step / step)), len(fine) - 1)
            crest = max(middle - slack, 0) + int(fine[max(middle - slack, 0) : middle + slack + 1].argmax())
            a, b = run_above(fine, crest, self.calm + s.edge * (float(fine[crest]) - self.calm), reach)
            span = (start + a * step, start + b * step)
            i, j = ((np.array(span) - start + [-0.05, 0.05]) * (self.signal.rate or 0.0)).astype(int)
            if gone[max(i, 0) : j].any():
                continue
            rows.append((*span, at, float(z[top]), 0.0, float(fine[crest]) / self.calm, 0.0))
        out = _united(np.array(rows, dtype=np.float64).reshape(-1, 7), s.gap)
        if len(out):
            out[:, 4], out[:, 6] = self._veto(filled, out, start)
        return out

    def _veto(self, block: Float, rows: NDArray[np.float64], start: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Peak frequency of each candidate and the reason against it, from its own whitened spectrum."""
        s, rate = self.settings, self.signal.rate or 0.0
        n = int(0.128 * rate)
        first = np.clip(((rows[:, 2] - start) * rate).astype(int) - n // 2, 0, max(block.shape[1] - n, 0))
        windows = np.stack([block[:, i : i + n] for i in first])
        windows = windows - windows.mean(2, keepdims=True)
        taper = np.hanning(windows.shape[2]).astype(np.float32)
        spectra = np.abs(np.fft.rfft(windows * taper, axis=2)) ** 2
        f = np.fft.rfftfreq(windows.shape[2], 1 / rate)
        density = spectra * 2 / (rate * float((taper**2).sum()))
        excess = (density / np.stack([np.interp(f, self.frequencies, p) for p in self.spectrum])[None]).mean(1) - 1
        low, high = s.band
        inside = (f >= low) & (f <= high)
        below = (f >= 0.55 * low) & (f <= low - 20)
        above = (f >= high + 30) & (f <= min(high + 230, 0.45 * rate))
        r = excess[:, inside].mean(1)
        bad = np.zeros(len(rows))
        bad[excess[:, below].mean(1) > s.flank_low * r] = 1
        if above.sum() >= 3:
            bad[excess[:, above].mean(1) > s.flank_high * r] = 1
        wide = (f >= 0.55 * low) & (f <= min(high + 230, 0.45 * rate))
        peak = f[wide][excess[:, wide].argmax(1)]
        bad[(peak < low - 10) | (peak > high + 10)] = 1
        length = rows[:, 1] - rows[:, 0]
        bad[(length < s.shortest) | (length > s.longest)] = 2
        return peak, bad

    # -- the threshold ----------------------------------------------------------------------------------------------------
    def _calibrate(self, pieces: list[Float], rng: np.random.Generator) -> tuple[float, float, float]:
        """Threshold at which surrogates of the baseline give `false_rate` events a minute, their rate there, and how long they were."""
        s, rate = self.settings, self.signal.rate or 0.0
        scores, seconds = [], 0.0
        for piece in pieces:
            surrogate = self._surrogate(piece, rng)
            n = surrogate.shape[1] / rate
            rows = self.detect(surrogate, 0.0, (0.0, n), threshold=1.5)
            scores.append(rows[rows[:, 6] == 0, 3])
            seconds += n
        z = np.sort(np.concatenate(scores))[::-1]
        minutes = seconds / 60
        if s.threshold is not None:
            return s.threshold, float((z >= s.threshold).sum() / minutes), seconds
        level = max(tail_level(z, s.false_rate * minutes), s.lowest)
        return level, float((z >= level).sum() / minutes), seconds

    def beyond(self, spans: Intervals, seed: int) -> dict[str, float]:
        """Surrogates of what is looked at but is not baseline: there the noise may be louder, and with it what is found in noise."""
        try:
            pieces = _sample(self.signal, spans, _BEYOND_SECONDS)
        except MissingDataError:  # too short or too full of holes to say
            return {}
        rng, n, seconds = np.random.default_rng([seed, 1]), 0, 0.0
        for piece in pieces:
            length = piece.shape[1] / (self.signal.rate or 0.0)
            rows = self.detect(self._surrogate(piece, rng), 0.0, (0.0, length))
            n += int((rows[:, 6] == 0).sum())
            seconds += length
        return {"surrogate_rate_beyond": n / seconds * 60, "surrogate_seconds_beyond": seconds}

    def _surrogate(self, piece: Float, rng: np.random.Generator) -> Float:
        """Noise with the whitened spectrum and coherence of the event-free part of `piece` (channel, time), coloured as the baseline is."""
        n = piece.shape[1]
        rate = self.signal.rate or 0.0
        f = np.fft.rfftfreq(n, 1 / rate)
        white = self._whitening(f) * gain(f, 40.0, rate / 2, 20.0)
        flat = sp_fft.irfft(sp_fft.rfft(piece, axis=1, workers=WORKERS) * white, n, axis=1, workers=WORKERS)
        view = self._view(piece)
        busy = maximum_filter1d((self._z(view) > 4).astype(np.float32), 13)
        quiet = 1 - gaussian_filter1d(busy, 2.5)
        envelope = np.interp(np.arange(n) / rate, np.arange(len(quiet)) * view.step, quiet).astype(np.float32)
        share = float((envelope**2).mean())
        spectrum = sp_fft.rfft(flat * envelope / np.sqrt(max(share, 0.05)), axis=1, workers=WORKERS)
        phase = np.exp(2j * np.pi * rng.random(spectrum.shape[1], dtype=np.float32)).astype(np.complex64)
        colour = np.divide(1, self._whitening(f), dtype=np.float32)
        return sp_fft.irfft(spectrum * phase * colour, n, axis=1, workers=WORKERS).astype(np.float32)

    # -- the result -------------------------------------------------------------------------------------------------------
    def table(self, rows: NDArray[np.float64], seconds: float) -> EventTable:
        """The candidates that stand in `seconds` of signal, as a table with its provenance."""
        rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
        good = rows[rows[:, 6] == 0]
        minutes = max(seconds / 60, 1e-9)
        s = self.settings
        attrs: dict[str, Any] = {
            "method": "whitened wave packets, consensus over channels", "channels": self.signal.names, "band": list(s.band), "threshold": self.threshold,
            "false_rate": s.false_rate if s.threshold is None else None, "rate": len(good) / minutes, "surrogate_rate": self.surrogate_rate,
            "surrogate": "phases drawn anew, one draw for all channels, events silenced", "surrogate_seconds": self.surrogate_seconds,
            "packet": s.packet, "shortest": s.shortest, "longest": s.longest, "gap": s.gap,
            "baseline_centre": self.centre, "baseline_spread": self.spread,
            "vetoed": {"spectrum": int((rows[:, 6] == 1).sum()), "length": int((rows[:, 6] == 2).sum())},
        }  # fmt: skip
        attrs |= {"warnings": list(self.warnings)} if self.warnings else {}
        return EventTable(
            good[:, 0], good[:, 1], good[:, 2], kind="ripple", attrs=attrs, score=good[:, 3].astype(np.float32),
            frequency=good[:, 4].astype(np.float32), amplitude=good[:, 5].astype(np.float32),
        )  # fmt: skip


# -- parts -----------------------------------------------------------------------------------------------------------------


def _blocks(signal: Signal, a: float, b: float) -> Iterator[tuple[float, Float, tuple[float, float]]]:
    """(start, block (channel, time), (from, to) of what to keep) over [a, b), with a second of overlap."""
    rate = signal.rate or 0.0
    i, j = signal.index(a), signal.index(b)
    size, pad = int(_BLOCK_SECONDS * rate), int(_PAD_SECONDS * rate)
    for first in range(i, j, size):
        last = min(first + size, j)
        lo, hi = max(first - pad, 0), min(last + pad, signal.n_samples)
        if hi - lo < 0.2 * rate:
            continue
        block = np.ascontiguousarray(signal.read(lo, hi).T)
        yield signal.start + lo / rate, block, (signal.start + first / rate, signal.start + last / rate)


def _missing(block: Float, start: float, keep: tuple[float, float], rate: float) -> float:
    """Seconds of `keep` in which a channel of `block` (channel, time) has no sample: nothing is found there."""
    i, j = (int(round((t - start) * rate)) for t in keep)
    return float((~np.isfinite(block[:, i:j]).all(0)).sum()) / rate


def _sample(signal: Signal, baseline: Intervals, most_seconds: float = _SAMPLE_SECONDS) -> list[Float]:
    """Up to ten minutes (`most_seconds`) of the baseline without missing samples, as pieces (channel, time) of at most 40 s spread evenly over it."""
    rate = signal.rate or 0.0
    inside = baseline.intersect(Intervals([[signal.start, signal.stop]])) if signal.n_samples else Intervals()
    cuts = []
    for a, b in inside:
        n = max(int(np.ceil((b - a) / _BLOCK_SECONDS)), 1)
        edges = np.linspace(a, b, n + 1)
        cuts += [(p, q) for p, q in pairwise(edges) if q - p >= 2.0]
    if not cuts:
        raise MissingDataError(f"ripples: {inside.duration:.1f} s of baseline overlap the signal, expected a stretch of 2 s or more")
    most = max(int(most_seconds / max(np.mean([q - p for p, q in cuts]), 2.0)), 1)
    if len(cuts) > most:
        cuts = [cuts[k] for k in np.linspace(0, len(cuts) - 1, most).astype(int)]
    pieces = []
    for a, b in cuts:
        block = signal.read(signal.index(a), signal.index(b))
        dead = ~np.isfinite(block).any(0)
        filled, missing = fill_missing(block)
        if missing[:, ~dead].mean() < 0.05 if (~dead).any() else False:
            pieces.append(np.ascontiguousarray(filled.T))
    seconds = sum(p.shape[1] for p in pieces) / rate
    if seconds < 5:
        raise MissingDataError(f"ripples: {seconds:.1f} s of the baseline are free of gaps, expected at least 5 s: name another baseline or channels")
    return pieces


def _usable(pieces: list[Float]) -> NDArray[np.bool_]:
    """Channels that vary."""
    spread = np.stack([p.std(1) for p in pieces])
    return np.median(spread, axis=0) > 1e-6 * max(float(np.median(spread)), 1e-12)


def _channel_warnings(names: Sequence[str], pieces: list[Float], good: NDArray[np.bool_]) -> tuple[str, ...]:
    """Which channels are left out because they are flat, and which clip: more than 0.1 % of their samples lie at their extremes."""
    flat = [n for n, ok in zip(names, good) if not ok]
    out = [f"ripples: {_listed(flat)} flat or missing in the baseline: left out"] if flat else []
    low, high = (np.stack([f(p, axis=1) for p in pieces]) for f in (np.min, np.max))
    low, high = low.min(0)[:, None], high.max(0)[:, None]
    railed = sum(((p <= low) | (p >= high)).sum(1) for p in pieces) / sum(p.shape[1] for p in pieces)
    clipped = [f"{n} ({r:.1%} of samples)" for n, r, ok in zip(names, railed, good) if ok and r > 0.001]
    if clipped:
        out.append(f"ripples: {_listed(clipped)} clipped; clipping makes power in the band: look at the raw trace, or name other channels")
    return tuple(out)


def _listed(names: list[str]) -> str:
    return f"channel{'s' if len(names) > 1 else ''} {', '.join(names)} {'are' if len(names) > 1 else 'is'}"


def _spectrum(pieces: list[Float], rate: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Frequencies and power density (channel, frequency) of the baseline: median over windows of 1 s, smooth but for mains lines."""
    n = int(rate)
    taper = np.hanning(n).astype(np.float32)
    spectra = []
    for p in pieces:
        m = p.shape[1] // n
        if m:
            w = p[:, : m * n].reshape(len(p), m, n)
            spectra.append(np.abs(sp_fft.rfft((w - w.mean(2, keepdims=True)) * taper, axis=2, workers=WORKERS)) ** 2)
    density = np.median(np.concatenate(spectra, axis=1), axis=1) / np.log(2) * 2 / (rate * float((taper**2).sum()))
    f = np.fft.rfftfreq(n, 1 / rate)
    smooth = gaussian_filter1d(np.log(median_filter(density, (1, 21), mode="nearest") + 1e-30), 3, axis=1, mode="nearest")
    line = maximum_filter1d(density, 3, axis=1)
    floor = np.exp(smooth)
    out = np.where((line > 4 * floor) & (f > 20), np.maximum(line, floor), floor)
    # A low-passed recording has nothing near half its rate: what is not there must not be amplified.
    return f, np.maximum(out, 1e-4 * np.median(floor[:, (f > 50) & (f < 0.45 * rate)], axis=1, keepdims=True))


@dataclass(frozen=True)
class _View:
    """What the detector sees of a block: packets (frequency, time) every `step` s, envelope (time,) every `fine_step` s."""

    packets: Float
    step: float
    envelope: Float
    fine_step: float


def _power(shifted: NDArray[np.complex64]) -> Float:
    """Power over time (…, time), averaged over channels, of spectra (…, channel, frequency) brought down to 0 Hz; `shifted` is used up."""
    a = sp_fft.ifft(shifted, axis=-1, workers=WORKERS, overwrite_x=True)
    return (a.real**2 + a.imag**2).mean(-2)


def _trim(n: int) -> slice:
    """All but the ends, a quarter of a second or a quarter of the length."""
    k = min(100, n // 4)
    return slice(k, n - k)


def _overlaps(events: EventTable, others: EventTable) -> NDArray[np.bool_]:
    """Which of `events` (n,) overlap any of `others`."""
    spans = others.intervals()
    if not len(spans):
        return np.zeros(len(events), dtype=bool)
    first = np.searchsorted(spans.stop, events.start, side="right")
    return (first < len(spans)) & (spans.start[np.minimum(first, len(spans) - 1)] < events.stop)


def _united(rows: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Candidates that overlap or lie within `gap` become one, with the peak of the strongest."""
    if len(rows) < 2:
        return rows
    rows = rows[np.argsort(rows[:, 0], kind="stable")]
    group = np.cumsum(np.r_[True, rows[1:, 0] > np.maximum.accumulate(rows[:, 1])[:-1] + gap]) - 1
    out = np.empty((group[-1] + 1, rows.shape[1]))
    for g in range(len(out)):
        mine = rows[group == g]
        out[g] = mine[mine[:, 3].argmax()]
        out[g, 0], out[g, 1] = mine[:, 0].min(), mine[:, 1].max()
    return out
