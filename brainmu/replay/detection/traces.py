"""What a learned detector reads of a recording, every 4 ms: band powers of the LFP and the firing of the units, each on the recording's own scale.

Any span is computed on demand, so that memory does not grow with the length of a recording. The scale of each trace is measured on up to
ten minutes spread over the whole recording (median and MAD of log power; mean and SD of the square root of a rate).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import fft as sp_fft
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from brainmu.core import Signal, Spikes
from brainmu.dsp.filters import WORKERS, fill_missing, gain
from brainmu.errors import InputError, MissingDataError

__all__ = ["BIN", "LFP_TRACES", "SPIKE_TRACES", "LfpTraces", "SpikeTraces"]

BIN = 0.004
"""Length of a bin, s; edges of events lie between bins, by interpolation."""
LFP_TRACES = ("ripple_1", "ripple_2", "ripple_3", "ripple_4", "ripple_loudest", "below", "above", "sharp_wave", "delta")
SPIKE_TRACES = ("rate_6ms", "rate_15ms", "rate_equal_units", "active_units", "rate_500ms", "log_units")

Float = NDArray[np.float32]
_PAD = 2.0
_SAMPLE_PIECES, _SAMPLE_SECONDS = 20, 30.0
_LARGEST = 12.0
_RATE_SIGMAS = (0.006, 0.015)
_EQUAL_SIGMA, _ACTIVE_WINDOW, _SLOW_SIGMA = 0.010, 0.020, 0.5
_SILENT_SECONDS = 10.0


@dataclass(frozen=True)
class LfpTraces:
    """Log power (bin, trace) of the LFP in the four quarters of the ripple band, beside it and below, averaged over channels of equal weight.

    Attributes
    ----------
    signal : Signal
        The channels in use.
    bands : list of (low, high), Hz, or None where half the sampling rate is too low
    level : float64 (band, channel)
        Median power.
    centre, spread : float64 (trace,)
    """

    signal: Signal
    bands: list[tuple[float, float] | None]
    level: NDArray[np.float64]
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]

    @classmethod
    def fit(cls, signal: Signal, ripple: tuple[float, float]) -> LfpTraces:
        """Scales from the whole recording; `ripple` is the ripple band, Hz.

        Raises
        ------
        InputError
            If the signal is irregular, or sampled too slowly for the ripple band.
        MissingDataError
            If no channel holds 10 s of data that vary.
        """
        if signal.rate is None or signal.rate / 2 <= ripple[1]:
            rate = "irregularly" if signal.rate is None else f"at {signal.rate:g} Hz"
            raise InputError(f"LFP sampled {rate}, expected a fixed rate above {2 * ripple[1]:g} Hz (ripples of {ripple[0]:g}-{ripple[1]:g} Hz)")
        low, high = 0.9 * ripple[0], ripple[1]
        edges = np.linspace(low, high, 5)
        above = (1.1 * high, min(1.6 * high, 0.45 * signal.rate))
        bands: list[tuple[float, float] | None] = [(float(a), float(b)) for a, b in pairwise(edges)]
        bands += [(0.45 * ripple[0], 0.8 * ripple[0]), above if above[1] > above[0] + 20 else None, (8.0, 30.0), (1.0, 4.0)]
        blank = cls(signal, bands, np.ones((len(bands), signal.n_channels)), np.zeros(len(LFP_TRACES)), np.ones(len(LFP_TRACES)))
        pieces = [blank._powers(a, n) for a, n in _pieces(signal.start, signal.stop)]
        seen = np.concatenate([p[:, ok] for p, ok in pieces], axis=1) if pieces else np.empty((len(bands), 0, signal.n_channels))
        if seen.shape[1] * BIN < 10:
            raise MissingDataError(f"LFP without gaps: {seen.shape[1] * BIN:.1f} s in the parts looked at, expected at least 10 s")
        level = np.median(seen, axis=1).astype(np.float64)
        alive = (level[0] > 0) & np.isfinite(level).all(0) & (level[0] > 1e-8 * level[0].max())
        if not alive.any():
            raise MissingDataError("LFP channels are flat, expected at least one that varies")
        signal, level, seen = signal.pick(alive), level[:, alive], seen[..., alive]
        scaled = cls(signal, bands, level, blank.centre, blank.spread)
        x = scaled._traces(seen)
        centre = np.median(x, axis=0).astype(np.float64)
        spread = np.maximum(1.4826 * np.median(np.abs(x - centre), axis=0), 1e-3).astype(np.float64)
        return cls(signal, bands, level, centre, spread)

    def read(self, start: float, n: int) -> tuple[Float, NDArray[np.bool_]]:
        """Traces (n, trace) of the `n` bins from `start` s on, and where there are data (n,); 0 where there are none."""
        power, known = self._powers(start, n)
        x = (self._traces(power) - self.centre) / self.spread
        x[:, [b is None for b in self._band_of]] = 0.0
        return np.where(known[:, None], np.clip(x, -_LARGEST, _LARGEST), 0.0).astype(np.float32), known

    @property
    def spectrum(self) -> NDArray[np.float64]:
        """Shape of the recording's own spectrum (band,): log of the median power density of each band over their mean; 0 for a band that is not covered."""
        width = np.array([1.0 if b is None else b[1] - b[0] for b in self.bands])
        x = np.log(np.maximum(self.level.mean(1) / width, 1e-12))
        covered = np.array([b is not None for b in self.bands])
        return np.where(covered, x - x[covered].mean(), 0.0)

    @property
    def _band_of(self) -> list[tuple[float, float] | None]:
        """The band behind each trace."""
        return [*self.bands[:5], *self.bands[4:]]

    def _powers(self, start: float, n: int) -> tuple[Float, NDArray[np.bool_]]:
        """Power (band, bin, channel) in each band, smoothed, and which bins (bin,) hold data."""
        s = self.signal
        rate = float(s.rate or 0.0)
        pad = round(_PAD / BIN)
        bins = n + 2 * pad
        m = round(bins * BIN * rate)
        first = round((start - pad * BIN - s.start) * rate)
        lo, hi = max(first, 0), min(first + m, s.n_samples)
        block = np.full((m, s.n_channels), np.nan, dtype=np.float32)
        if hi > lo:
            block[lo - first : hi - first] = s.read(lo, hi)
        filled, missing = fill_missing(block)
        gone = missing.all(1)
        filled = filled - np.median(filled, axis=0)
        spectrum = sp_fft.rfft(np.ascontiguousarray(filled.T), axis=1, workers=WORKERS)
        f = np.fft.rfftfreq(m, 1 / rate)
        spectrum *= np.exp(1j * np.pi * f * BIN).astype(np.complex64)  # values at the middle of the bins
        out = np.zeros((len(self.bands), n, s.n_channels), dtype=np.float32)
        for k, band in enumerate(self.bands):
            if band is not None:
                width = min(0.25 * (band[1] - band[0]) + 5, 0.5 * band[0], rate / 2 - band[1])
                i, j = np.searchsorted(f, [band[0] - width, band[1] + width])
                j = min(j, i + bins)
                shifted = np.zeros((s.n_channels, bins), dtype=np.complex64)
                shifted[:, : j - i] = spectrum[:, i:j] * gain(f[i:j], *band, width)
                y = sp_fft.ifft(shifted, axis=1, workers=WORKERS, overwrite_x=True)[:, pad - 25 : pad + n + 25] * np.float32(bins / m)
                power = y.real**2 + y.imag**2
                out[k] = gaussian_filter1d(power, (1.5 if k < 6 else 5.0), axis=1, mode="nearest")[:, 25:-25].T
        edge = np.minimum(np.round(np.arange(bins + 1) * BIN * rate).astype(int), m)
        outside = (edge[:-1] + first < 0) | (edge[1:] + first > s.n_samples)
        lost = np.maximum.reduceat(np.r_[gone, False].astype(np.int8), edge[:-1]) * ~outside
        # A filter smears what borders on a gap; the ends of a recording are no gaps.
        return out, ((maximum_filter1d(lost, 11) == 0) & ~outside)[pad : pad + n]

    def _traces(self, power: Float) -> Float:
        """Unscaled traces (bin, trace) of powers (band, bin, channel)."""
        relative = power / np.maximum(self.level, 1e-20)[:, None].astype(np.float32)
        mean = np.log(relative.mean(2) + 1e-2)
        loudest = np.log(relative[:4].mean(0).max(1) + 1e-2)
        return np.concatenate([mean[:4], loudest[None], mean[4:]]).T


@dataclass(frozen=True)
class SpikeTraces:
    """How the units fire (bin, trace): together, at two time scales, with every unit at equal weight, how many of them, and slowly.

    Attributes
    ----------
    spikes : Spikes
    start, stop : float, s
        Of the recording.
    weight : float64 (unit,)
        One over the root of each unit's rate: fast cells do not drown the others.
    centre, spread : float64 (trace,)
    """

    spikes: Spikes
    start: float
    stop: float
    weight: NDArray[np.float64]
    centre: NDArray[np.float64]
    spread: NDArray[np.float64]

    @classmethod
    def fit(cls, spikes: Spikes, start: float, stop: float) -> SpikeTraces:
        """Scales from the whole recording of `start` to `stop` s. Raises MissingDataError where no unit fires."""
        if not len(spikes):
            raise MissingDataError("no spikes, expected some")
        if stop - start < 1:
            raise MissingDataError(f"spikes over {max(stop - start, 0):.2f} s, expected at least 1 s")
        n = np.bincount(_columns(spikes, spikes.unit_id), minlength=spikes.n_units)
        weight = 1 / np.sqrt(np.maximum(n, 1) / (stop - start))
        blank = cls(spikes, start, stop, weight, np.zeros(len(SPIKE_TRACES)), np.ones(len(SPIKE_TRACES)))
        seen = np.concatenate([blank._traces(a, m) for a, m in _pieces(start, stop)])
        centre, spread = seen.mean(0).astype(np.float64), np.maximum(seen.std(0), 1e-3).astype(np.float64)
        centre[-1], spread[-1] = np.log(30.0), 1.0
        return cls(spikes, start, stop, weight, centre, spread)

    def read(self, start: float, n: int) -> tuple[Float, NDArray[np.bool_]]:
        """Traces (n, trace) of the `n` bins from `start` s on, and where units were heard (n,): not in 10 s or more without any spike."""
        x = (self._traces(start, n) - self.centre) / self.spread
        t = start + (np.arange(n) + 0.5) * BIN
        after = np.searchsorted(self.spikes.times, t)
        before, following = np.r_[self.start, self.spikes.times][after], np.r_[self.spikes.times, self.stop][after]
        heard = (following - before < _SILENT_SECONDS) & (t >= self.start) & (t < self.stop)
        return np.where(heard[:, None], np.clip(x, -_LARGEST, _LARGEST), 0.0).astype(np.float32), heard

    def _traces(self, start: float, n: int) -> Float:
        pad = round(_PAD / BIN)
        first, bins = start - pad * BIN, n + 2 * pad
        t, u = self.spikes.span(first, first + bins * BIN)
        at = np.minimum(((t - first) / BIN).astype(np.intp), bins - 1)
        column = _columns(self.spikes, u)
        count = np.bincount(at, minlength=bins).astype(np.float32) / BIN
        equal = np.bincount(at, self.weight[column], bins).astype(np.float32) / BIN
        width = round(_ACTIVE_WINDOW / BIN)
        # A unit is active from its spike for one window; spikes within it count once.
        order = np.lexsort((at, column))
        a, c = at[order], column[order]
        until = np.minimum(a + width, bins)
        if len(a):
            again = (np.diff(c) == 0) & (np.diff(a) < width)
            until[:-1][again] = a[1:][again]
        change = np.bincount(a, minlength=bins + 1) - np.bincount(until, minlength=bins + 1)
        active = np.roll(np.cumsum(change[:bins]).astype(np.float32), -(width // 2))
        rates = [np.sqrt(np.maximum(gaussian_filter1d(count, s / BIN), 0)) for s in _RATE_SIGMAS]
        slow = np.sqrt(np.maximum(gaussian_filter1d(count, _SLOW_SIGMA / BIN), 0))
        level = np.sqrt(np.maximum(gaussian_filter1d(equal, _EQUAL_SIGMA / BIN), 0))
        units = np.full(bins, np.log(max(self.spikes.n_units, 1)), dtype=np.float32)
        return np.stack([*rates, level, np.sqrt(np.maximum(gaussian_filter1d(active, 1.0), 0)), slow, units], axis=1)[pad : pad + n].astype(np.float32)


def _columns(spikes: Spikes, unit_id: NDArray[np.integer]) -> NDArray[np.intp]:
    """Row in the units table of each spike."""
    ids = spikes.units["id"].to_numpy()
    order = np.argsort(ids)
    return order[np.searchsorted(ids[order], unit_id)]


def _pieces(start: float, stop: float) -> list[tuple[float, int]]:
    """(start, bins) of pieces spread evenly over a recording; all of it where it is short."""
    length = stop - start
    if length <= _SAMPLE_PIECES * _SAMPLE_SECONDS:
        edges = np.arange(start, stop, _SAMPLE_SECONDS)
        return [(float(a), n) for a in edges if (n := int((min(a + _SAMPLE_SECONDS, stop) - a) / BIN)) > 0]
    return [(float(a), round(_SAMPLE_SECONDS / BIN)) for a in np.linspace(start, stop - _SAMPLE_SECONDS, _SAMPLE_PIECES)]
