"""dF/F: robust fits of the isosbestic channel and of bleaching to fibre photometry, and the running baseline of calcium imaging.

References
----------
Lerner et al. (2015), Intact-brain analyses reveal distinct information carried by SNc dopamine subcircuits, Cell 162, 635–647: the isosbestic channel,
    fitted to the signal by least squares, is the baseline F0; dF/F = (F − F0) / F0.
Simpson et al. (2024), Lights, fiber, action! A primer on in vivo fiber photometry, Neuron 112, 718–739: robust regression, bleaching by exponentials.
Pachitariu et al. (2017), Suite2p, bioRxiv 061507: the "maximin" baseline.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage, optimize

from brainmu.dsp.filters import robust_scale, smooth
from brainmu.errors import InputError

__all__ = ["ControlFit", "baseline_step", "bleaching", "bleaching_curve", "fit_control", "huber_fit", "running_baseline"]

_HUBER = 1.345
"""Residuals beyond this many robust SDs count linearly; 95 % as efficient as least squares on Gaussian noise (Huber 1981)."""
_TIMES = np.geomspace(60.0, 36_000.0, 8)
"""Time constants of bleaching, s: a minute to ten hours."""


@dataclass(frozen=True)
class ControlFit:
    """``signal ≈ intercept + slope * control``, and the share of variance that it explains."""

    intercept: float
    slope: float
    explained: float


def huber_fit(design: ArrayLike, target: ArrayLike, *, positive: bool = False, iterations: int = 100) -> NDArray[np.float64]:
    """Coefficients (k,) of a robust linear fit by iteratively reweighted least squares with Huber's weights.

    Parameters
    ----------
    design : float (n, k)
    target : float (n,)
        Rows with a missing value take no part.
    positive : bool
        Only coefficients >= 0.
    iterations : int
        At most; the fit stops when no coefficient moves by more than 1e-8 of the largest.

    Raises
    ------
    InputError
        If there are fewer finite rows than coefficients.
    """
    a, y = np.asarray(design, dtype=np.float64), np.asarray(target, dtype=np.float64)
    ok = np.isfinite(a).all(axis=1) & np.isfinite(y)
    a, y = a[ok], y[ok]
    if len(y) <= a.shape[1]:
        raise InputError(f"robust fit: {len(y)} samples are finite, expected more than the {a.shape[1]} coefficients")
    weight = np.ones(len(y))
    old = np.full(a.shape[1], np.inf)
    for _ in range(iterations):
        new = _solve(a, y, weight, positive)
        if np.abs(new - old).max() <= 1e-8 * max(np.abs(new).max(), 1e-300):
            break
        old = new
        residual = y - np.einsum("ij,j->i", a, new)
        spread = float(robust_scale(residual)[1])
        if spread == 0:
            break
        weight = np.minimum(1.0, _HUBER * spread / np.maximum(np.abs(residual), 1e-300))
    return new


def _solve(a: NDArray[np.float64], y: NDArray[np.float64], weight: NDArray[np.float64], positive: bool) -> NDArray[np.float64]:
    """Weighted least squares by normal equations: einsum adds in one order, where a threaded BLAS does not, so the same data give the same bits."""
    gram = np.einsum("ni,nj,n->ij", a, a, weight)
    right = np.einsum("ni,n,n->i", a, y, weight)
    # Slow exponentials are nearly alike: a ridge of 1e-12 of each column's own size keeps the factor real and moves no fitted curve.
    factor = np.linalg.cholesky(gram + 1e-12 * np.diag(np.diag(gram)))
    half = np.linalg.solve(factor, right)
    return optimize.nnls(factor.T, half)[0] if positive else np.linalg.solve(factor.T, half)


def fit_control(signal: ArrayLike, control: ArrayLike, *, intercept: bool = True) -> ControlFit:
    """The isosbestic `control` (n,) fitted to `signal` (n,) with Huber's weights.

    Transients of the indicator are outliers of this fit, so they pull it less than they pull ordinary least squares.

    Examples
    --------
    >>> c = np.linspace(1.0, 2.0, 200)
    >>> fit = fit_control(3.0 * c + 0.5 + 5.0 * (np.arange(200) % 50 == 0), c)
    >>> round(fit.slope, 3), round(fit.intercept, 3)
    (3.0, 0.5)
    """
    y, c = np.asarray(signal, dtype=np.float64), np.asarray(control, dtype=np.float64)
    ok = np.isfinite(y) & np.isfinite(c)
    y, c = y[ok], c[ok]
    centre = float(c.mean()) if intercept and len(c) else 0.0
    if len(c) and not np.ptp(c) > 0:
        raise InputError("isosbestic fit: the control does not change, so it explains nothing: check which channel is isosbestic")
    design = np.c_[np.ones(len(c)), c - centre] if intercept else c[:, None]
    coefficients = huber_fit(design, y)
    slope = float(coefficients[-1])
    constant = float(coefficients[0]) - slope * centre if intercept else 0.0
    total = float(((y - y.mean()) ** 2).sum()) if intercept else float((y**2).sum())
    explained = 1 - float(((y - constant - slope * c) ** 2).sum()) / total if total > 0 else 0.0
    return ControlFit(constant, slope, explained)


def bleaching(times: ArrayLike, values: ArrayLike) -> NDArray[np.float64]:
    """Amplitudes (1 + time constant,) of a constant and eight decaying exponentials (1 min to 10 h), none negative, that fit `values` robustly.

    :func:`bleaching_curve` turns them into a curve. The fit is convex, so it has one answer and needs no start.
    """
    return huber_fit(_decays(times), values, positive=True)


def bleaching_curve(times: ArrayLike, amplitudes: NDArray[np.float64]) -> NDArray[np.float64]:
    """The fitted curve (n,) at `times` (n,), s since the recording began."""
    return np.einsum("ij,j->i", _decays(times), amplitudes)


def _decays(times: ArrayLike) -> NDArray[np.float64]:
    t = np.asarray(times, dtype=np.float64)
    return np.exp(-t[:, None] * np.r_[0.0, 1 / _TIMES])


def running_baseline(values: ArrayLike, rate: float, window: float = 60.0, sigma: float = 10.0) -> NDArray[np.float64]:
    """Running maximum of the running minimum of the smoothed trace: a baseline that follows drift and passes below transients.

    It is computed on means of :func:`baseline_step` samples and interpolated, since nothing in it is faster than `sigma`.

    Parameters
    ----------
    values : float (time, channel)
        Missing samples are NaN and take no part.
    rate : float, Hz
    window : float, s
        Of minimum and maximum.
    sigma : float, s
        SD of the Gaussian before them.

    Returns
    -------
    float64 (time, channel)
    """
    if not (rate > 0 and window > 0 and sigma >= 0):
        raise InputError(f"baseline: rate is {rate} Hz, window {window} s and sigma {sigma} s, expected positive numbers")
    x = np.asarray(values, dtype=np.float64)
    if not len(x):
        return x.copy()
    step = baseline_step(rate, sigma)
    coarse = smooth(_means(x, step), sigma * rate / step).astype(np.float64)
    size = max(1, round(window * rate / step)) | 1  # odd: the same to either side
    low = ndimage.minimum_filter1d(np.where(np.isnan(coarse), np.inf, coarse), size, axis=0, mode="nearest")
    high = ndimage.maximum_filter1d(np.where(np.isinf(low), -np.inf, low), size, axis=0, mode="nearest")
    high[np.isinf(high)] = np.nan
    at = np.clip((np.arange(len(x)) + 0.5) / step - 0.5, 0, len(high) - 1)
    k = np.minimum(at.astype(np.intp), max(len(high) - 2, 0))
    share = (at - k)[:, None]
    out = high[k] * (1 - share) + high[np.minimum(k + 1, len(high) - 1)] * share
    out[np.isnan(x)] = np.nan
    return out


def baseline_step(rate: float, sigma: float) -> int:
    """Samples that :func:`running_baseline` averages: an eighth of `sigma`."""
    return max(1, int(sigma * rate / 8))


def _means(x: NDArray[np.float64], step: int) -> NDArray[np.float64]:
    """Means of every `step` rows, NaN where none is finite; the last ones may be fewer."""
    edges = np.arange(0, len(x), step)
    seen = np.isfinite(x)
    count = np.add.reduceat(seen, edges, axis=0, dtype=np.float64)
    total = np.add.reduceat(np.where(seen, x, 0.0), edges, axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
