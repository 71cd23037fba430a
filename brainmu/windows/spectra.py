"""The parameter-free front end: a patch of a standardised signal becomes a slow waveform and log band powers.

Differentiable in torch, so attribution reaches the samples. Bands are fixed in Hz and the waveform is cut at 32 Hz, so
signals of any rate give features of one size and meaning; bands above half the rate are marked as not covered.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

__all__ = ["BANDS", "EPSILON", "N_BANDS", "N_FEATURES", "WAVE", "band_power", "covered_bands", "patch_features", "waveform"]

_EDGES = (0.5, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 20, 25, 30, 40, 50, 65, 80, 100, 130, 160, 200, 250, 300, 400, 500, 625)
BANDS: tuple[tuple[float, float], ...] = tuple(pairwise(_EDGES))
"""Frequency bands [low, high), Hz: about an octave's third above 10 Hz, 1 Hz below; the first needs patches of 2 s."""
N_BANDS = len(BANDS)
WAVE = 64
"""Samples of the slow waveform in a patch (64 Hz for a patch of 1 s)."""
N_FEATURES = N_BANDS + WAVE
EPSILON = 1e-2
"""Added to the relative power before the logarithm. 1e-6 ruins the completeness of integrated gradients."""


def patch_features(patches: Tensor, rate: float, reference: Tensor) -> Tensor:
    """Features of signal patches.

    Parameters
    ----------
    patches : float32 (..., channel, patch, time), standardised; missing samples zero
    rate : float, Hz
    reference : float32 (channel, N_BANDS)
        Typical power of each band in each channel (see ``statistics``).

    Returns
    -------
    float32 (..., channel, patch, N_FEATURES)
        ``log(power / reference + EPSILON)`` a band (0 where not covered), then the waveform below 32 Hz.
    """
    covered = covered_bands(patches.shape[-1], rate).to(patches.device)
    power = band_power(patches, rate) / reference[:, None, :].to(patches)
    return torch.cat([torch.log(power + EPSILON) * covered, waveform(patches)], dim=-1)


def band_power(patches: Tensor, rate: float) -> Tensor:
    """Variance in each band, float32 (..., N_BANDS), of Hann-tapered patches (..., time); 0 where a band is not covered."""
    n = patches.shape[-1]
    taper, bins = _filterbank(n, float(rate), patches.device)
    z = torch.fft.rfft(patches * taper)
    return (z.real.square() + z.imag.square()) @ bins


def waveform(patches: Tensor) -> Tensor:
    """The patches (..., time) below 32 cycles a patch, as float32 (..., WAVE) samples."""
    n = patches.shape[-1]
    # The last coefficient of a transform of even length is real; leaving it out keeps the map well defined.
    keep = min(WAVE // 2, (n + 1) // 2)
    return torch.fft.irfft(torch.fft.rfft(patches)[..., :keep], n=WAVE) * (WAVE / n)


def covered_bands(n: int, rate: float) -> Tensor:
    """Which bands (N_BANDS,) a patch of `n` samples at `rate` Hz resolves, as 0 or 1."""
    bins = _filterbank(n, float(rate), torch.device("cpu"))[1]
    return (bins.sum(0) > 0).float()


@lru_cache(maxsize=32)
def _filterbank(n: int, rate: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Hann taper (n,) and the (frequency, band) matrix that sums |rfft|² to the variance in each band."""
    taper = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(n) / n) if n > 1 else np.ones(1)
    freqs = np.fft.rfftfreq(n, 1 / rate)
    low, high = np.array(BANDS).T
    # Half a bin of tolerance: 1/rate seconds of rounding in a patch must not move a frequency to the band below.
    inside = (freqs[:, None] >= low - 1e-6 * rate / n) & (freqs[:, None] < high - 1e-6 * rate / n)
    inside &= high <= rate / 2
    bins = inside * (2.0 / (n * max(float((taper**2).sum()), 1e-12)))
    return torch.tensor(taper, dtype=torch.float32, device=device), torch.tensor(bins, dtype=torch.float32, device=device)
