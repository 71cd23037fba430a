"""Zero-phase band-pass filters, envelopes and Gaussian smoothing on arrays, in blocks, aware of missing samples.

Every filter is a gain on frequencies: flat between `low` and `high`, falling to zero as half a cosine over `transition` Hz
on either side. Its kernel is finite for practical purposes (about ``2 / transition`` s on each side), so that filtering in
overlapping blocks gives what filtering at once would, at a cost and a memory that do not depend on the band.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft as sp_fft
from scipy import ndimage

from brainmu.errors import InputError

__all__ = ["bandpass", "check_band", "envelope", "fill_missing", "gain", "overlapping_blocks", "robust_scale", "smooth"]

WORKERS = min(4, os.cpu_count() or 1)
_BLOCK = 1 << 16
_TAIL = 5.0
"""Block overlap in units of 1 / transition: what the kernel leaves outside is below 1e-4 of its norm."""


def bandpass(values: ArrayLike, rate: float, low: float, high: float, transition: float | None = None) -> NDArray[np.float32]:
    """Band-pass `values` without phase shift.

    Parameters
    ----------
    values : float (time,) or (time, channel)
        Missing samples are NaN; they are bridged linearly for the filter and NaN again in the result.
    rate : float, Hz
    low, high : float, Hz
        Edges of the pass band. ``low=0`` makes a low-pass.
    transition : float or None, Hz
        Width of the fall on either side; a quarter of the band or half of `low`, whichever is less, where None.

    Returns
    -------
    float32, the shape of `values`

    Raises
    ------
    InputError
        If the band does not fit below half the rate, or an input is all missing.

    Examples
    --------
    >>> t = np.arange(2000) / 1000.0
    >>> x = np.sin(2 * np.pi * 180 * t) + np.sin(2 * np.pi * 8 * t)
    >>> y = bandpass(x, 1000.0, 150.0, 250.0)
    >>> bool(np.abs(y[200:-200] - np.sin(2 * np.pi * 180 * t)[200:-200]).max() < 0.01)
    True
    """
    return _filtered(values, rate, low, high, transition, analytic=False)


def envelope(values: ArrayLike, rate: float, low: float, high: float, transition: float | None = None) -> NDArray[np.float32]:
    """Amplitude (the modulus of the analytic signal) of `values` between `low` and `high` Hz; arguments as in :func:`bandpass`."""
    return _filtered(values, rate, low, high, transition, analytic=True)


def smooth(values: ArrayLike, sigma: float, axis: int = 0) -> NDArray[np.float32]:
    """Gaussian smoothing with `sigma` in samples; missing (NaN) samples take no part and stay NaN, and edges are not pulled down."""
    x = np.asarray(values, dtype=np.float32)
    if sigma < 0 or not np.isfinite(sigma):
        raise InputError(f"smoothing sigma is {sigma}, expected a finite number of samples >= 0")
    if sigma == 0 or x.shape[axis] == 0:
        return x.copy()
    missing = np.isnan(x)
    if not missing.any():
        return ndimage.gaussian_filter1d(x, sigma, axis=axis, mode="nearest").astype(np.float32)
    weight = ndimage.gaussian_filter1d((~missing).astype(np.float32), sigma, axis=axis, mode="constant")
    total = ndimage.gaussian_filter1d(np.where(missing, 0, x).astype(np.float32), sigma, axis=axis, mode="constant")
    return np.where(missing, np.nan, total / np.maximum(weight, 1e-12)).astype(np.float32)


def robust_scale(values: ArrayLike, axis: int | None = None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Median, and median absolute deviation times 1.4826 (the SD of a Gaussian), ignoring NaN. Raises InputError if nothing is finite."""
    x = np.asarray(values, dtype=np.float64)
    if not np.isfinite(x).any():
        raise InputError("robust scale: no finite value came, expected at least one: check the channel or the baseline")
    middle = np.nanmedian(x, axis=axis, keepdims=True)
    spread = 1.4826 * np.nanmedian(np.abs(x - middle), axis=axis)
    return np.squeeze(middle, axis=axis), spread


def fill_missing(values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A copy of `values` (time, channel) with NaN bridged linearly a channel, and the mask of what was missing.

    A channel without a finite sample becomes zero throughout.
    """
    missing = ~np.isfinite(values)
    if not missing.any():
        return values, missing
    out = values.copy()
    n = np.arange(len(values))
    for c in np.flatnonzero(missing.any(0)):
        ok = ~missing[:, c]
        out[:, c] = np.interp(n, n[ok], values[ok, c]) if ok.any() else 0.0
    return out, missing


def check_band(rate: float, low: float, high: float, what: str = "band") -> None:
    """Raise InputError unless 0 <= low < high < rate / 2."""
    if not (np.isfinite(rate) and rate > 0):
        raise InputError(f"{what}: the sampling rate is {rate}, expected a positive number of Hz")
    if not 0 <= low < high:
        raise InputError(f"{what} is {low}-{high} Hz, expected 0 <= low < high")
    if high >= rate / 2:
        raise InputError(f"{what} is {low:g}-{high:g} Hz but the signal is sampled at {rate:g} Hz: it needs more than {2 * high:g} Hz; lower the band")


def gain(frequencies: ArrayLike, low: float, high: float, transition: float) -> NDArray[np.float32]:
    """Gain (frequency,) of the band: 1 in [low, high], falling as half a cosine to 0 over `transition` Hz outside."""
    f = np.asarray(frequencies, dtype=np.float64)
    outside = np.maximum(low - f, f - high)
    return (0.5 + 0.5 * np.cos(np.pi * np.clip(outside / transition, 0, 1))).astype(np.float32)


def overlapping_blocks(n: int, size: int, pad: int) -> Iterator[tuple[int, int, int, int]]:
    """Blocks that cover n samples: (first, last) to keep, and (from, to) to read with up to `pad` more on either side."""
    for first in range(0, n, size):
        last = min(first + size, n)
        yield first, last, max(first - pad, 0), min(last + pad, n)


def _filtered(values: ArrayLike, rate: float, low: float, high: float, transition: float | None, *, analytic: bool) -> NDArray[np.float32]:
    x = np.asarray(values, dtype=np.float32)
    if x.ndim not in (1, 2):
        raise InputError(f"filter: got an array of shape {x.shape}, expected (time,) or (time, channel)")
    check_band(rate, low, high, "pass band")
    if transition is None:
        transition = min(0.25 * (high - low), 0.5 * low if low > 0 else np.inf, rate / 2 - high)
    if len(x) == 0:
        return x.copy()
    flat = x if x.ndim == 2 else x[:, None]
    filled, missing = fill_missing(flat)
    if missing.all(0).any():
        raise InputError("filter: a channel has no finite sample, expected some: leave it out")
    out = np.empty_like(filled)
    pad = int(np.ceil(_TAIL / transition * rate))
    for first, last, a, b in overlapping_blocks(len(filled), max(_BLOCK, 4 * pad), pad):
        # Ends are mirrored about their value: a step there would ring.
        need = (pad - (first - a), pad - (b - last))
        block = _mirrored(filled[a:b].T, *need)
        y = _in_band(block, rate, low, high, transition, analytic=analytic)
        out[first:last] = y[:, pad : pad + last - first].T
    out[missing] = np.nan
    return out.reshape(x.shape)


def _mirrored(x: NDArray[np.float32], before: int, after: int) -> NDArray[np.float32]:
    """`x` (channel, time) extended by odd reflection about its ends."""
    if before <= 0 and after <= 0:
        return x
    if x.shape[1] < 2:
        return np.pad(x, ((0, 0), (max(before, 0), max(after, 0))), mode="edge")
    return np.pad(x, ((0, 0), (max(before, 0), max(after, 0))), mode="reflect", reflect_type="odd")


def _in_band(x: NDArray[np.float32], rate: float, low: float, high: float, transition: float, *, analytic: bool) -> NDArray[np.float32]:
    n = x.shape[1]
    m = sp_fft.next_fast_len(n, real=True)
    # The transform is circular: without the line between its ends a block of a drifting signal would hold a step, which rings.
    line = x[:, :1] + (x[:, -1:] - x[:, :1]) * np.linspace(0, 1, n, dtype=np.float32)
    spectrum = sp_fft.rfft(x - line, m, axis=1, workers=WORKERS)
    spectrum *= gain(np.fft.rfftfreq(m, 1 / rate), low, high, transition)
    if not analytic:
        y = sp_fft.irfft(spectrum, m, axis=1, workers=WORKERS)[:, :n]
        return y + line if low == 0 else y
    full = np.zeros((len(x), m), dtype=np.complex64)
    full[:, : spectrum.shape[1]] = 2 * spectrum
    full[:, 0] /= 2
    return np.abs(sp_fft.ifft(full, axis=1, overwrite_x=True, workers=WORKERS)[:, :n])
