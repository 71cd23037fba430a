"""Spectra on arrays: sliding power spectra (Hann or multitaper), band power, and the slope of the aperiodic part."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainmu.errors import InputError

__all__ = ["aperiodic_slope", "band_power", "line_free", "sliding_spectrum"]


def sliding_spectrum(
    x: ArrayLike, rate: float, starts: ArrayLike, window: float, *, high: float | None = None, tapers: float | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Power spectral density of windows of `x` that begin at given samples.

    Parameters
    ----------
    x : float (time,) or (time, channel)
        Samples, NaN where missing; infinite ones are missing too.
    rate : float, Hz
    starts : int (frame,)
        First sample of each window; a window that leaves `x` or holds a missing sample is NaN.
    window : float, s
        Length of a window.
    high : float or None, Hz
        Frequencies above it are not returned (saves memory).
    tapers : float or None
        Time-bandwidth product of a multitaper estimate (2 NW - 1 Slepian tapers); None is one Hann taper.

    Returns
    -------
    freqs : float64 (freq,), Hz
    power : float32 (frame, channel, freq), unit² / Hz
        One-sided; each window's mean is removed.

    References
    ----------
    Welch 1967, IEEE Trans. Audio Electroacoustics 15:70; Thomson 1982, Proc. IEEE 70:1055.

    Examples
    --------
    >>> t = np.arange(2000) / 100.0
    >>> f, p = sliding_spectrum(np.sin(2 * np.pi * 8 * t), 100.0, [0, 500], window=4.0)
    >>> float(f[p[0, 0].argmax()])
    8.0
    """
    from scipy import fft
    from scipy.signal import windows

    data = np.asarray(x)
    data = data[:, None] if data.ndim == 1 else data
    if data.ndim != 2:
        raise InputError(f"spectrum of an array of shape {data.shape}, expected (time,) or (time, channel)")
    n = round(window * rate)
    if n < 4:
        raise InputError(f"spectral window of {window:g} s holds {n} samples at {rate:g} Hz, expected at least 4: use a longer window")
    first = np.asarray(starts, dtype=np.int64)
    if tapers is None:
        taper = windows.hann(n, sym=False)[None]
    else:
        taper = np.asarray(windows.dpss(n, tapers, max(1, int(2 * tapers) - 1)))
    # Each taper has unit energy, so tapers average and different windows agree on the density.
    taper = (taper / np.linalg.norm(taper, axis=1, keepdims=True)).astype(np.float32)
    freqs = fft.rfftfreq(n, 1 / rate)
    keep = freqs <= (np.inf if high is None else high)
    power = np.full((len(first), data.shape[1], int(keep.sum())), np.nan, dtype=np.float32)
    inside = np.flatnonzero((first >= 0) & (first + n <= len(data)))
    if not len(inside):
        return freqs[keep], power
    shown = np.lib.stride_tricks.sliding_window_view(data, n, axis=0)
    block = max(1, 4_000_000 // (n * data.shape[1]))
    for i in range(0, len(inside), block):
        part = inside[i : i + block]
        frames = shown[first[part]].astype(np.float32)
        total = np.zeros((len(part), data.shape[1], len(keep)), dtype=np.float32)
        with np.errstate(invalid="ignore"):  # an infinite sample leaves its window's mean, and so all of it, NaN
            frames -= frames.mean(axis=2, keepdims=True)
            for w in taper:
                z = fft.rfft(frames * w, axis=2)
                total += z.real**2 + z.imag**2
        power[part] = total[..., keep] * np.float32(2 / rate / len(taper))
    return freqs[keep], power


def band_power(
    power: NDArray[np.floating], freqs: NDArray[np.float64], low: float, high: float, *, where: NDArray[np.bool_] | None = None
) -> NDArray[np.float64]:
    """Mean density (…,) over frequencies in [low, high); NaN where the spectrum holds none (beyond Nyquist, say).

    Parameters
    ----------
    power : float (…, freq)
    freqs : float64 (freq,), Hz
    low, high : float, Hz
    where : bool (freq,) or None
        Frequencies that may be used, from :func:`line_free` for instance.
    """
    k = (freqs >= low) & (freqs < high)
    k = k if where is None else k & where
    # A band that the recording covers by half or less is another band.
    if not k.any() or freqs[-1] < low + 0.5 * (high - low):
        return np.full(power.shape[:-1], np.nan)
    return power[..., k].mean(axis=-1, dtype=np.float64)


def line_free(freqs: NDArray[np.float64], width: float = 1.5) -> NDArray[np.bool_]:
    """Frequencies (freq,) at least `width` Hz away from 50 and 60 Hz and their harmonics."""
    f = np.asarray(freqs, dtype=np.float64)
    away = np.ones(f.shape, dtype=bool)
    for mains in (50.0, 60.0):
        harmonic = np.maximum(np.round(f / mains), 1) * mains
        away &= np.abs(f - harmonic) >= width
    return away


def aperiodic_slope(power: NDArray[np.floating], freqs: NDArray[np.float64], low: float, high: float, *, each: bool = False) -> NDArray[np.float64]:
    """Slope (…,) of log10 power over log10 frequency in [low, high), robust to oscillatory peaks.

    A straight line is fitted twice; the second time without the frequencies whose mean residual is in the top
    fifth (oscillations stand above the aperiodic line, never below it). Points are weighted so that each octave counts alike.
    Mains frequencies are left out. NaN where the band is not covered.

    The mean is over all spectra given, so each has a say in the slope of the others; with `each` a spectrum's own residuals decide, and
    the slope of a frame depends on that frame alone.

    References
    ----------
    Watson et al. 2016, Neuron 90:839 (slope of 4-90 Hz as the slow-wave measure); Donoghue et al. 2020, Nat. Neurosci. 23:1655.
    """
    k = (freqs >= low) & (freqs < high) & (freqs > 0) & line_free(freqs)
    if k.sum() < 4 or freqs[-1] < low + 0.5 * (high - low):
        return np.full(power.shape[:-1], np.nan)
    x = np.log10(freqs[k])
    y = np.log10(np.maximum(power[..., k], 1e-30))
    weight = 1 / freqs[k]
    slope, centre, level = _line(x, y, weight)
    if each:
        own = y - level[..., None] - slope[..., None] * (x - centre).astype(y.dtype)
        fifth = int(0.8 * (len(x) - 1))
        calm_each = own <= np.partition(own, fifth, axis=-1)[..., fifth, None]
        with np.errstate(invalid="ignore"):  # a missing spectrum has no calm frequencies and no slope
            return _line(x, y, weight * calm_each)[0]
    # The mean residual needs only means, so no array of residuals is made.
    rows = y.reshape(-1, len(x))
    whole = np.isfinite(rows).all(axis=1)
    if not whole.any():
        return slope
    typical = rows[whole].mean(axis=0) - level.ravel()[whole].mean() - slope.ravel()[whole].mean() * (x - centre)
    calm = typical <= np.quantile(typical, 0.8)
    return _line(x[calm], y[..., calm], weight[calm])[0]


def _line(x: NDArray[np.float64], y: NDArray[np.float64], weight: NDArray[np.float64]) -> tuple[NDArray[np.float64], Any, NDArray[np.float64]]:
    """Weighted least squares along the last axis: slope (…,), the weighted centre of x, and the height (…,) there; a weight a point, or one a value of y."""
    if weight.ndim > 1:
        w = weight / weight.sum(axis=-1, keepdims=True)
        centre, level = w @ x, (w * y).sum(axis=-1)
        return ((w * y) @ x - centre * level) / (w @ x**2 - centre**2), centre, level
    w = weight / weight.sum()
    centre = float((w * x).sum())
    level = y @ w.astype(y.dtype)
    slope = (y @ (w * (x - centre)).astype(y.dtype)) / float((w * (x - centre) ** 2).sum())
    return slope, centre, level
