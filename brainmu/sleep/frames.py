"""What a stager looks at: spectral and complexity measures of every channel every two seconds, in memory that does not grow with the samples.

A grid of epochs is cut into equal frames; a frame's spectrum comes from a longer window around it (4 s), so that
delta is resolved at any epoch length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainmu.core.recording import Recording
from brainmu.core.signal import Signal
from brainmu.dsp.spectra import aperiodic_slope, band_power, line_free, sliding_spectrum
from brainmu.errors import InputError, MissingDataError

__all__ = ["BANDS", "Grid", "brain_measures", "decimated", "finite_mean", "grid_of", "lfp_emg", "muscle_level", "spectra"]

BANDS: dict[str, tuple[float, float]] = {
    "slow": (0.5, 1.5), "delta": (1.0, 4.0), "theta": (4.0, 8.0), "alpha": (8.0, 12.0), "sigma": (11.0, 16.0),
    "beta": (16.0, 30.0), "gamma": (30.0, 45.0),
    "low_theta": (2.0, 5.0), "rodent_theta": (5.0, 10.0), "theta_surround": (2.0, 20.0), "broad": (0.5, 45.0),
}  # fmt: skip
"""Frequency bands, Hz. The rodent bands are those of Watson et al. 2016."""

WINDOW = 4.0
"""Spectral window, s: half a cycle of uncertainty at 0.25 Hz, and still shorter than a micro-arousal and its surround."""

MUSCLE_WINDOW = 2.0
"""Window of the muscle level, s: no frequency below 10 Hz has to be resolved."""

STEP = 2.0
"""Longest frame, s: half a spectral window, so that every sample counts about alike."""

_CHUNK = 600.0  # s of signal held at a time


@dataclass(frozen=True)
class Grid:
    """`n` epochs of `epoch` s from `start` s, each of `per` equal frames."""

    start: float
    epoch: float
    n: int
    per: int

    @property
    def step(self) -> float:
        """Length of a frame, s."""
        return self.epoch / self.per

    @property
    def centres(self) -> NDArray[np.float64]:
        """Middle of each frame (n * per,), s."""
        return self.start + (np.arange(self.n * self.per) + 0.5) * self.step

    def per_epoch(self, frames: NDArray[np.floating]) -> NDArray[np.float64]:
        """Mean over the frames of each epoch: (n * per, …) to (n, …); NaN where an epoch has no finite frame."""
        x = np.asarray(frames, dtype=np.float64).reshape(self.n, self.per, *frames.shape[1:])
        count = np.isfinite(x).sum(axis=1)
        return np.where(count > 0, np.nansum(x, axis=1) / np.maximum(count, 1), np.nan)


def finite_mean(x: NDArray[np.float64], axis: int) -> NDArray[np.float64]:
    """Mean along an axis of what is finite; NaN where nothing is, such as in epochs beyond the data."""
    known = np.isfinite(x)
    n = known.sum(axis=axis)
    return np.where(n > 0, np.where(known, x, 0.0).sum(axis=axis) / np.maximum(n, 1), np.nan)


def grid_of(recording: Recording, signals: list[Signal], epoch: float, start: float | None = None) -> Grid:
    """The epochs that cover `signals` (all of the recording where the list is empty).

    Raises InputError where the recording is shorter than an epoch, or `start` lies behind it.
    """
    if signals:
        first, stop = min(s.start for s in signals), max(s.stop for s in signals)
    else:
        first, stop = recording.start, recording.stop
    if start is not None and not start < stop:
        raise InputError(f"{recording.id}: start is {start:g} s, expected a time before the end of the recording ({first:.1f}-{stop:.1f} s)")
    first = first if start is None else start
    n = int(np.floor((stop - first) / epoch + 1e-6))
    if n < 1:
        raise InputError(f"{recording.id}: is {stop - first:.1f} s long, expected at least one epoch of {epoch:g} s")
    return Grid(first, epoch, n, max(1, round(epoch / STEP)))


def brain_measures(
    signal: Signal, grid: Grid, *, shape: bool = True, local: bool = False, progress: Callable[[float], None] | None = None
) -> dict[str, NDArray[np.float32]]:
    """Measures (frame, channel) of EEG, LFP or EOG channels.

    ``log_<band>`` (log10 density), ``total`` (log10 power 0.5-45 Hz), ``slope`` (aperiodic, 4-90 Hz, as a positive steepness),
    and with `shape` Hjorth ``mobility`` and ``complexity``, ``kurtosis``, ``permutation_entropy``.
    The slope leaves out frequencies that stand above the line in ten minutes together, and kurtosis is about the mean of these; with `local` both look at a
    frame alone, so that nothing later has a say.
    """
    _check_rate(signal, 20.0)
    out: dict[str, list[NDArray[np.float32]]] = {}
    for done, (x, rate, first) in _chunks(signal, grid, target=200.0):
        f, power = sliding_spectrum(x, rate, first, min(WINDOW, len(x) / rate), high=min(100.0, 0.45 * rate))
        free = line_free(f)
        part = {}
        for name, (low, high) in BANDS.items():
            part[f"log_{name}"] = _log(band_power(power, f, low, min(high, f[-1] + 1e-6) if name == "broad" else high, where=free if high > 40 else None))
        if shape:
            part |= _hjorth(power, f, free) | _disorder(x, rate, first, round(min(WINDOW, len(x) / rate) * rate), grid.step, local)
        part["total"] = _log(power[..., (f >= 0.5) & (f < 45) & free].sum(-1) * (f[1] - f[0]))
        part["slope"] = -aperiodic_slope(power, f, 4.0, min(90.0, f[-1]), each=local)
        for name, value in part.items():
            out.setdefault(name, []).append(np.asarray(value, dtype=np.float32))
        if progress is not None:
            progress(done)
    return {k: np.concatenate(v) for k, v in out.items()}


def spectra(signal: Signal, grid: Grid, high: float) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float32]]]:
    """Frequencies and density (frame, channel, freq) up to `high` Hz, some whole epochs at a time."""
    _check_rate(signal, 20.0)
    for _, (x, rate, first) in _chunks(signal, grid, target=max(200.0, 4 * high)):
        yield sliding_spectrum(x, rate, first, min(WINDOW, len(x) / rate), high=high)


def muscle_level(signal: Signal, grid: Grid) -> tuple[NDArray[np.float32], list[str]]:
    """log10 amplitude (frame, channel) of EMG, raw (10-200 Hz) or already rectified, and what was assumed of each channel."""
    _check_rate(signal, 40.0)
    n = signal.n_samples
    probe = np.concatenate([signal.read(i, i + 2000) for i in np.linspace(0, max(0, n - 2000), 20).astype(int)])
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(probe)
        # A trace that (almost) never crosses zero has been rectified or is an envelope.
        rectified = (((probe < 0) & finite).sum(0) < 0.001 * finite.sum(0)) & (np.nanmax(np.where(finite, probe, 0), axis=0) > 0)
    parts = []
    for _, (x, rate, first) in _chunks(signal, grid, target=450.0, window=MUSCLE_WINDOW):
        f, power = sliding_spectrum(x, rate, first, min(MUSCLE_WINDOW, len(x) / rate), high=min(200.0, 0.45 * rate))
        level = 0.5 * _log(power[..., (f >= 10) & line_free(f)].sum(-1) * (f[1] - f[0]))
        if rectified.any():
            window = round(min(MUSCLE_WINDOW, len(x) / rate) * rate)
            length = min(max(1, round(max(grid.step, 1.0) * rate)), window)
            level[:, rectified] = _log(_sums(x[:, rectified], first + (window - length) // 2, length) / length)
        parts.append(level.astype(np.float32))
    said = [f"{name} is taken as rectified EMG (never negative)" for name, r in zip(signal.names, rectified) if r]
    return np.concatenate(parts), said


def lfp_emg(signal: Signal, grid: Grid) -> NDArray[np.float32]:
    """EMG from LFP (frame,): mean zero-lag correlation of 300-600 Hz between sites.

    Muscle activity is volume conducted, so distant sites share it; spikes and ripples are local. Needs the source rate
    (>= 1,250 Hz) and at least two sites; hippocampal sites are left out where regions are known.

    Raises
    ------
    MissingDataError
        Below 1,250 Hz or with fewer than two usable sites: the message says which.

    References
    ----------
    Schomburg et al. 2014, Neuron 84:470; Watson et al. 2016, Neuron 90:839.
    """
    from scipy import signal as ss

    if signal.rate is None or signal.rate < 1250 - 1e-6:
        have = "irregular times" if signal.rate is None else f"{signal.rate:g} Hz"
        raise MissingDataError(
            f"EMG from LFP needs the 300-600 Hz band, so >= 1250 Hz; the LFP has {have}: give an EMG channel, or preprocess with lfp_rate=None"
        )
    region = signal.channels["region"].fillna("").astype(str).str.lower()
    outside = ~region.str.contains(r"ca[1-3]|hippo|hpc|dentate|\bdg\b")
    sites = np.flatnonzero(outside.to_numpy())
    if len(sites) < 2:
        n_hip = int((~outside).sum())
        raise MissingDataError(
            f"EMG from LFP needs at least two sites outside the hippocampus; of {signal.n_channels} LFP channels {n_hip} are hippocampal: give an EMG channel"
        )
    sites = sites[np.unique(np.linspace(0, len(sites) - 1, min(len(sites), 8)).astype(int))]
    picked = signal.pick(sites)
    high = min(600.0, 0.48 * signal.rate)
    sos = ss.butter(3, [min(300.0, 0.5 * high), high], btype="bandpass", fs=signal.rate, output="sos")
    pairs = np.triu_indices(len(sites), 1)
    parts = []
    for _, (x, rate, first) in _chunks(picked, grid, target=np.inf):
        y = ss.sosfiltfilt(sos, np.nan_to_num(x), axis=0) if len(x) > 50 else np.zeros_like(x)
        y[~np.isfinite(x)] = np.nan
        n = round(min(WINDOW, len(x) / rate) * rate)
        part = np.full(len(first), np.nan, dtype=np.float32)
        for k in np.flatnonzero((first >= 0) & (first + n <= len(x))):
            z = y[first[k] : first[k] + n]
            if np.isfinite(z).all() and (z.std(0) > 0).all():
                part[k] = np.corrcoef(z.T)[pairs].mean()
        parts.append(part)
    return np.concatenate(parts)


# -- reading in chunks ----------------------------------------------------------------------------------------------
def _chunks(signal: Signal, grid: Grid, target: float, window: float = WINDOW) -> Iterator[tuple[float, tuple[NDArray[np.float32], float, NDArray[np.int64]]]]:
    """Fraction done, then (samples (time, channel), their rate Hz, first sample of each frame's window): a chunk of frames at a time.

    Samples come decimated by a whole factor to about `target` Hz. Windows at either end of the signal are moved inside it.
    """
    rate = float(signal.rate or 0)
    q = max(1, int(rate // target)) if np.isfinite(target) else 1
    out_rate = rate / q
    total = signal.n_samples // q
    n = round(min(window, total / out_rate) * out_rate)
    if total < 4 or n < 4:
        raise InputError(f"signal of {signal.n_samples} samples at {rate:g} Hz is too short to stage: expected at least {window:g} s")
    starts = np.round((grid.centres - signal.start) * out_rate - n / 2).astype(np.int64)
    reach = n / 2 + 0.5 * out_rate * max(grid.step, 1.0)
    covered = (starts >= -reach) & (starts + n <= total + reach)
    starts = np.where(covered, np.clip(starts, 0, total - n), -1 - total)
    per = max(1, round(_CHUNK / grid.epoch)) * grid.per  # whole epochs
    for a in range(0, len(starts), per):
        s = starts[a : a + per]
        real = s[s >= 0]
        if not len(real):
            yield min(1.0, (a + per) / len(starts)), (np.full((n, signal.n_channels), np.nan, dtype=np.float32), out_rate, np.zeros(len(s), dtype=np.int64))
            continue
        low, high = int(real[0]), int(real[-1]) + n
        pad = 8
        lo, hi = max(0, low - pad), min(total, high + pad)
        x = decimated(signal.read(lo * q, hi * q), q)
        if np.isinf(x).any():  # missing like any other, or it would spoil what is measured against the whole chunk
            x = np.where(np.isinf(x), np.float32(np.nan), x)
        yield min(1.0, (a + per) / len(starts)), (x, out_rate, np.where(s >= 0, s - lo, -1 - len(x)))


def decimated(x: NDArray[np.float32], q: int) -> NDArray[np.float32]:
    """Every q-th sample after a linear-phase low-pass; a missing sample spoils what it touches and nothing else."""
    if q == 1:
        return x
    from scipy.signal import firwin, upfirdn

    taps = firwin(8 * q + 1, 0.9 / q).astype(np.float32)
    bad = ~np.isfinite(x)
    spoiled = bad.any()
    n = len(x) // q
    # Nine output samples of lead-in fill the filter; its centre then lies in the middle of each output's q inputs.
    padded = np.pad(np.where(bad, np.float32(0), x) if spoiled else x, ((5 * q - (q - 1) // 2, 5 * q), (0, 0)), mode="edge")
    y = upfirdn(taps, padded, up=1, down=q, axis=0)[9 : 9 + n].astype(np.float32)
    if spoiled:
        y[bad[: n * q].reshape(n, q, -1).any(1)] = np.nan
    return y


def _check_rate(signal: Signal, least: float) -> None:
    if signal.rate is None:
        raise MissingDataError(f"a {signal.kind} signal has irregular sample times, expected a regular rate: resample it first (brainmu preprocess)")
    if signal.rate < least:
        raise MissingDataError(
            f"a {signal.kind} signal has {signal.rate:g} Hz, expected at least {least:g} Hz (a stream of one value an epoch is kind='features')"
        )


# -- measures of shape ----------------------------------------------------------------------------------------------
def _hjorth(power: NDArray[np.float32], f: NDArray[np.float64], free: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
    """Hjorth mobility (as log10 Hz) and complexity from spectral moments, 0.5-45 Hz (Hjorth 1970, EEG Clin. Neurophysiol. 29:306)."""
    k = (f >= 0.5) & (f < 45) & free
    p = power[..., k]
    m0, m2, m4 = (p @ (f[k] ** order).astype(np.float32) for order in (0, 2, 4))
    return {"mobility": 0.5 * (_log(m2) - _log(m0)), "complexity": 0.5 * (_log(m4) - 2 * _log(m2) + _log(m0))}


def _disorder(x: NDArray[np.float32], rate: float, first: NDArray[np.int64], window: int, step: float, local: bool) -> dict[str, NDArray[np.float64]]:
    """Permutation entropy and log10 kurtosis of each frame's own samples.

    The entropy is of the order of three values 10 ms apart, 1 for noise (Bandt & Pompe 2002, Phys. Rev. Lett. 88:174102).
    """
    length = min(max(round(step * rate), 8), window)
    begin = first + (window - length) // 2
    if local:
        second, fourth = _central_sums(x, begin, length)
    else:
        mean = np.nanmean(x, axis=0, keepdims=True) if np.isfinite(x).any(axis=0).all() else np.float32(0)
        away = x - mean
        # Powers of two change no digit of a measure without a unit, and keep fourth powers of any unit inside float32.
        square = np.ldexp(away, -np.frexp(np.nanmax(np.abs(away), axis=0, initial=0))[1]) ** 2
        second, fourth = _sums(square, begin, length), _sums(square**2, begin, length)
    lag = max(1, round(0.01 * rate))
    a, b, c = x[: -2 * lag], x[lag:-lag], x[2 * lag :]
    # The three comparisons of a triplet name its order; a missing value makes the sums, and so the entropy, missing.
    pattern = (a < b) * np.int8(4) + (b < c) * np.int8(2) + (a < c) * np.int8(1)
    pattern = np.pad(pattern, ((0, 2 * lag), (0, 0)), mode="edge")
    entropy = np.zeros(second.shape)
    for k in (0, 1, 2, 5, 6, 7):
        p = _sums(pattern == k, begin, length) / length
        entropy -= p * np.log(np.maximum(p, 1e-12))
    with np.errstate(invalid="ignore", divide="ignore"):
        return {"kurtosis": _log(length * fourth / second**2), "permutation_entropy": np.where(np.isfinite(second), entropy / np.log(6), np.nan)}


def _sums(x: NDArray[np.generic], begin: NDArray[np.int64], length: int) -> NDArray[np.float64]:
    """Sums (frame, channel) of `length` samples from each `begin`; NaN for a frame outside `x`."""
    out = np.full((len(begin), x.shape[1]), np.nan)
    ok = (begin >= 0) & (begin + length <= len(x))
    if ok.any():
        padded = np.concatenate([x, x[-1:]])  # reduceat wants every bound inside
        bounds = np.stack([begin[ok], begin[ok] + length], axis=1).ravel()
        out[ok] = np.add.reduceat(padded, bounds, axis=0, dtype=np.int32 if x.dtype == bool else None)[::2]
    return out


def _central_sums(x: NDArray[np.float32], begin: NDArray[np.int64], length: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sums (frame, channel) of the second and fourth powers about the frame's own mean."""
    second, fourth = np.full((len(begin), x.shape[1]), np.nan), np.full((len(begin), x.shape[1]), np.nan)
    for k in np.flatnonzero((begin >= 0) & (begin + length <= len(x))):
        v = x[begin[k] : begin[k] + length].astype(np.float64)
        square = (v - v.mean(axis=0)) ** 2
        second[k], fourth[k] = square.sum(axis=0), (square**2).sum(axis=0)
    return second, fourth


def _log(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """log10, with exact zeros (a flat channel) as NaN rather than minus infinity."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.asarray(x) > 0, np.log10(np.maximum(x, 1e-30)), np.nan)
