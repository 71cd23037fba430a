"""Signals that are made when they are read: coloured noise in blocks, each from its own seed, cross-faded so that no border shows.

Any slice read twice, in any order, gives the same numbers; memory is bounded by a small cache of blocks.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.fft import irfft
from scipy.special import expit

__all__ = ["BlockNoise", "Streamed", "aperiodic", "band", "bump", "lookup"]

BLOCK = 32_768
"""Samples made at a time."""
_FADE = 2_048  # samples over which neighbouring blocks cross-fade


class Streamed:
    """A lazy (time, channel) float32 array whose blocks of :data:`BLOCK` rows are rendered when first read.

    Parameters
    ----------
    shape : (int, int)
    render : callable of int
        Block number to float32 (:data:`BLOCK`, channel); must be a pure function of the number.
    cache : int, bytes
        Rendered blocks kept, least recently used first out.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, shape: tuple[int, int], render: Callable[[int], NDArray[np.float32]], cache: int = 256 << 20) -> None:
        self.shape, self._render = shape, render
        self._keep = max(2, cache // (BLOCK * shape[1] * 4))
        self._blocks: OrderedDict[int, NDArray[np.float32]] = OrderedDict()

    def __len__(self) -> int:
        return self.shape[0]

    def _block(self, k: int) -> NDArray[np.float32]:
        if k in self._blocks:
            self._blocks.move_to_end(k)
        else:
            block = np.ascontiguousarray(self._render(k), dtype=np.float32)
            block.setflags(write=False)
            self._blocks[k] = block
            while len(self._blocks) > self._keep:
                self._blocks.popitem(last=False)
        return self._blocks[k]

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        rows, columns = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        if isinstance(rows, (int, np.integer)):
            i = int(rows) + (self.shape[0] if rows < 0 else 0)
            if not 0 <= i < self.shape[0]:
                raise IndexError(f"row {rows} is outside the {self.shape[0]} samples of the signal")
            out = self._block(i // BLOCK)[i % BLOCK]
            return out[columns] if columns else out
        if not isinstance(rows, slice):
            wanted = np.asarray(rows)
            wanted = np.flatnonzero(wanted) if wanted.dtype == bool else wanted
            out = np.stack([self[int(i)] for i in wanted]) if len(wanted) else np.empty((0, self.shape[1]), dtype=np.float32)
            return out[(slice(None), *columns)] if columns else out
        first, last, step = rows.indices(self.shape[0])
        if step < 0:
            raise IndexError(f"slice with step {step}, expected a positive step")
        out = np.empty((max(last - first, 0), self.shape[1]), dtype=np.float32)
        for k in range(first // BLOCK, (max(last, first) - 1) // BLOCK + 1 if last > first else first // BLOCK):
            a, b = max(first, k * BLOCK), min(last, (k + 1) * BLOCK)
            out[a - first : b - first] = self._block(k)[a - k * BLOCK : b - k * BLOCK]
        out = out[::step]
        return out[(slice(None), *columns)] if columns else out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self[:].astype(dtype or self.dtype, copy=False)


class BlockNoise:
    """Gaussian noise with a given spectrum a source, block by block.

    Parameters
    ----------
    spectra : callable of float64 (frequency,), Hz
        One-sided power spectral density (frequency, source), unit²/Hz.
    rate : float, Hz
    seed : sequence of int
        Block k is drawn from the seed sequence ``[*seed, k]``.
    coherence : callable of float, Hz, optional
        Coherence (source, source) of the sources at a frequency, positive definite and real (no lag); the first source stays as it is without.
    """

    def __init__(
        self,
        spectra: Callable[[NDArray[np.float64]], NDArray[np.float64]],
        rate: float,
        seed: tuple[int, ...],
        coherence: Callable[[float], NDArray[np.float64]] | None = None,
    ) -> None:
        n = BLOCK + _FADE
        frequency = np.fft.rfftfreq(n, 1 / rate)
        density = np.asarray(spectra(frequency), dtype=np.float64)
        self._mixing = [] if coherence is None else _mixing(frequency, coherence)
        density[0] = 0.0
        # |X|^2 of a periodogram of density S is S * rate * n / 2, half of it in each of the real and imaginary parts.
        self._amplitude = np.sqrt(density * rate * n / 4).T.astype(np.float32)
        self._n, self._seed = n, seed
        fade = np.sin(0.5 * np.pi * (np.arange(_FADE) + 0.5) / _FADE).astype(np.float32)
        self._rise, self._fall = fade, fade[::-1]
        self._tail: tuple[int, NDArray[np.float32]] | None = None

    def _raw(self, k: int) -> NDArray[np.float32]:
        rng = np.random.default_rng(np.random.SeedSequence([*self._seed, k + 1]))
        sources, bins = self._amplitude.shape
        x = rng.standard_normal((sources, bins, 2), dtype=np.float32)
        for part, mix in self._mixing:
            x[:, part] = (mix @ x[:, part].reshape(sources, -1)).reshape(sources, -1, 2)
        x = x.view(np.complex64)[..., 0]
        x *= self._amplitude
        return np.asarray(irfft(x, self._n, axis=1), dtype=np.float32)

    def block(self, k: int) -> NDArray[np.float32]:
        """Noise (source, :data:`BLOCK`) of block `k`; the array is the caller's to change."""
        before = self._tail[1] if self._tail is not None and self._tail[0] == k - 1 else self._raw(k - 1)[:, BLOCK:]
        raw = self._raw(k)
        self._tail = (k, raw[:, BLOCK:].copy())
        out = raw[:, :BLOCK]
        out[:, :_FADE] = out[:, :_FADE] * self._rise + before * self._fall
        return out


def _mixing(frequency: NDArray[np.float64], coherence: Callable[[float], NDArray[np.float64]]) -> list[tuple[slice, NDArray[np.float32]]]:
    """Ranges of frequency bins, a sixth of an octave wide from 1 Hz, and the Cholesky factor that makes independent sources coherent there."""
    edges = np.r_[0.0, 2.0 ** np.arange(0.0, np.log2(max(frequency[-1], 2.0)) + 1 / 6, 1 / 6)]
    first = np.unique(np.r_[np.searchsorted(frequency, edges), len(frequency)])
    parts = [slice(int(a), int(b)) for a, b in itertools.pairwise(first)]
    return [(part, np.linalg.cholesky(coherence(float(frequency[part].mean()))).astype(np.float32)) for part in parts]


def aperiodic(f: NDArray[np.float64], sd: float, slope: float = 2.0, knee: float = 4.0, highpass: float = 0.3, floor: float = 0.02) -> NDArray[np.float64]:
    """Power density of an aperiodic background of SD about `sd`: flat below `knee`, falling as f**-slope above, an amplifier's high-pass and a white floor."""
    shape = 1.0 / (1.0 + (f / knee) ** slope)
    step = f[1] - f[0]
    return shape * sd**2 / (shape.sum() * step) * (f / highpass) ** 4 / (1.0 + (f / highpass) ** 4) + floor


def band(f: NDArray[np.float64], low: float, high: float, sd: ArrayLike = 1.0, edge: float = 0.25) -> NDArray[np.float64]:
    """Power density of band-limited noise of SD `sd` with soft edges (`edge`: their width over the band's)."""
    width = max(edge * (high - low), 1e-3)
    shape = expit((f - low) / (width / 4)) * expit((high - f) / (width / 4))
    return shape * np.asarray(sd) ** 2 / (shape.sum() * (f[1] - f[0]))


def bump(f: NDArray[np.float64], centre: float, octaves: float, sd: ArrayLike = 1.0) -> NDArray[np.float64]:
    """Power density of noise of SD `sd` around `centre`, Hz: Gaussian on a logarithmic axis, `octaves` its SD, as rhythms of the EEG look."""
    shape = np.exp(-0.5 * (np.log2(np.maximum(f, 1e-6) / centre) / octaves) ** 2)
    return shape * np.asarray(sd) ** 2 / (shape.sum() * (f[1] - f[0]))


def lookup(values: NDArray[Any], x: NDArray[np.float64]) -> NDArray[Any]:
    """`values` (n,) at fractional indices `x` (m,), linear, ends held; many times faster than np.interp where `x` is not sorted."""
    x = np.clip(x, 0.0, len(values) - 1.0)
    k = np.minimum(x.astype(np.intp), len(values) - 2)
    return values[k] + (x - k) * (values[k + 1] - values[k])
