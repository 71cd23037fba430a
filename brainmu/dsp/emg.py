"""Muscle tone from the LFP: what 300-600 Hz has in common between distant sites."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import Signal
from brainmu.dsp.conditioning import Band, FilterChain
from brainmu.dsp.resample import Resampler
from brainmu.errors import InputError, MissingDataError

__all__ = ["CAUTION", "HIPPOCAMPUS", "emg_from_lfp_signal"]

CAUTION = "EMG from LFP is a correlation between sites at 300-600 Hz: spikes and shared noise of the amplifier are in it, it is no electromyogram"
"""What a user of such a signal must know; also in its ``attrs["derived"]``."""
HIPPOCAMPUS = r"ca[1-4]|hippo|hpc|dentate|\bdg\b|subic"
"""Regions (regular expression, any case) whose sites are left out: ripples reach into the band."""
LEAST_RATE = 1250.0
_WORKING_RATE = 2000.0
_MOST_SITES = 16
_BATCH = 64
_LEAST_PRESENT = 0.5


def emg_from_lfp_signal(
    signal: Signal, *, sites: Sequence[str] | None = None, window: float = 0.5, band: tuple[float, float] = (300.0, 600.0), name: str = "lfp"
) -> Signal:
    """Zero-lag correlation of 300-600 Hz between separate sites outside the hippocampus, in windows of half a second.

    Muscle activity is volume conducted, so distant sites share it, while most spikes and ripples are local. Most, not all: spike-like transients that sites
    have in common (synchronous firing, a shared reference or amplifier, movement of the cable) correlate without any muscle, so check the result against
    a real electromyogram or movement where there is one. Give the signal as it was recorded: the band is gone once it has been resampled to less than
    1,250 Hz.

    Parameters
    ----------
    signal : Signal
        LFP or EEG; only channels of these kinds are used. Nothing is read before a span of the result is asked for.
    sites : sequence of str or None
        Names of channels, one a site. None takes the first good channel of each shank (else group, else region, as the channel table has them; and
        by probe), hippocampal regions left out; of EEG, every channel. At most sixteen, evenly chosen.
    window : float, s
    band : (float, float), Hz
    name : str
        What the source is called in ``attrs["derived"]``.

    Returns
    -------
    Signal
        Kind "emg", unit "1" (-1 to 1), float32, one channel, ``1 / window`` Hz; a sample lies in the middle of its window. NaN where fewer than two sites
        have data for half of it. The same however it is sliced. ``attrs``: derived (from, method, sites, band, window, caution), centred (True).

    Raises
    ------
    MissingDataError
        Below 1,250 Hz, or with fewer than two separate sites; the message says what there is.
    InputError
        If `window` or `band` cannot be.

    References
    ----------
    Schomburg et al. 2014, Neuron 84:470; Watson et al. 2016, Neuron 90:839 (buzcode's bz_EMGFromLFP).

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((5000, 2)) + np.random.default_rng(1).standard_normal((5000, 1))
    >>> lfp = Signal(x, 1250.0, kind="lfp", unit="uV", channels=["left", "right"])
    >>> emg = emg_from_lfp_signal(lfp, sites=["left", "right"])
    >>> emg.rate, emg.start, bool((abs(emg.read()[1:-1] - 0.5) < 0.2).all())
    (2.0, 0.25, True)
    """
    if signal.rate is None or signal.rate < 0.999 * LEAST_RATE:  # a drifting clock makes 1,250 Hz a little less
        have = "irregular times" if signal.rate is None else f"{signal.rate:g} Hz"
        raise MissingDataError(f"EMG from LFP needs 300-600 Hz, so at least {LEAST_RATE:g} Hz; {name!r} has {have}: derive it from the recording as it came")
    low, high = band
    if not 0 < low < high or high >= min(signal.rate, _WORKING_RATE) / 2:
        raise InputError(f"EMG from LFP: band is {low:g}-{high:g} Hz, expected 0 < low < high < {min(signal.rate, _WORKING_RATE) / 2:g}")
    if not (math.isfinite(window) and window * (high - low) >= 10):
        raise InputError(f"EMG from LFP: windows are {window!r} s, expected at least {10 / (high - low):.2g} s for a correlation to mean something")
    chosen = _named(signal, sites, name) if sites is not None else _separate(signal, name)
    values = _Correlation(signal.pick(np.asarray(chosen, dtype=np.intp)), window, (low, high))
    derived = {
        "from": name, "method": "mean zero-lag correlation between sites", "sites": [signal.names[c] for c in chosen], "band": [low, high],
        "window": window, "caution": CAUTION,
    }  # fmt: skip
    return Signal(
        values, rate=1 / window, start=signal.start + window / 2, unit="1", kind="emg", channels=["emg_from_lfp"], clock=signal.clock,
        attrs={"derived": derived, "centred": True},
    )  # fmt: skip


def _named(signal: Signal, sites: Sequence[str], name: str) -> list[int]:
    signal.pick(list(sites))  # says which name is not there
    chosen = list(dict.fromkeys(signal.names.index(str(x)) for x in sites))
    if len(chosen) < 2:
        raise MissingDataError(f"EMG from LFP needs at least two sites, {len(chosen)} of {name!r} given: name channels of separate shanks or electrodes")
    return chosen


def _separate(signal: Signal, name: str) -> list[int]:
    """A channel of each site."""
    table = signal.channels
    brain = table["kind"].isin(["lfp", "eeg"])
    outside = ~table["region"].fillna("").astype(str).str.lower().str.contains(HIPPOCAMPUS, regex=True)
    bad = table["bad"].fillna(False).astype(bool).to_numpy() if "bad" in table else np.zeros(len(table), dtype=bool)
    usable = table[(brain & outside).to_numpy() & ~bad]
    keys = [str(k) for k in usable.index] if set(usable["kind"]) == {"eeg"} else _site_keys(usable)
    # The first channel of each: later ones do not replace it.
    chosen = [] if keys is None else sorted(dict(zip(reversed(keys), reversed(usable.index.tolist()))).values())
    if len(chosen) < 2:
        inside = int((brain & ~outside).sum())
        why = f"{len(usable)} of {len(table)} channels are good lfp or eeg outside the hippocampus ({inside} inside)"
        if keys is None and len(usable) > 1:
            why = "its channel table has no shank, group or region to tell sites apart"
        raise MissingDataError(f"EMG from LFP needs at least two separate sites; of {name!r} {why}: name a channel of each in sites=, or use an EMG")
    return [int(chosen[k]) for k in np.unique(np.linspace(0, len(chosen) - 1, min(len(chosen), _MOST_SITES)).astype(int))]


def _site_keys(table: pd.DataFrame) -> list[str] | None:
    """The site of each channel, None where the table has nothing to tell them apart."""
    for column in ("shank", "group", "region"):
        if column in table and any(str(v) for v in table[column].fillna("")):
            parts = [table[c].fillna("").astype(str) for c in (["probe", column] if "probe" in table else [column])]
            return ["/".join(key) for key in zip(*parts)]
    return None


class _Correlation:
    """Correlations (window, 1), computed in batches of windows at fixed places when they are asked for."""

    dtype = np.dtype(np.float32)

    def __init__(self, signal: Signal, window: float, band: tuple[float, float]) -> None:
        assert signal.rate is not None
        self.signal = signal
        self.resampler = Resampler(signal.rate, _WORKING_RATE) if signal.rate > 1.25 * _WORKING_RATE else None
        self.rate = self.resampler.rate if self.resampler else signal.rate
        self.n = self.resampler.n_out(signal.n_samples) if self.resampler else signal.n_samples
        self.filter = FilterChain([(Band(self.rate, *band), None)])
        self.window = window
        self.shape = (int(signal.n_samples / signal.rate / window + 1e-9), 1)
        self._gaps = [(signal.index(a), signal.index(b)) for a, b in signal.gaps]
        self._batch: tuple[int, NDArray[np.float32]] | None = None

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        rows, rest = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        which = np.arange(self.shape[0])[rows]
        out = np.empty((which.size, 1), dtype=np.float32)
        flat = which.ravel()
        for k in range(int(flat.min()) // _BATCH, int(flat.max()) // _BATCH + 1) if flat.size else ():
            mine = flat // _BATCH == k
            if mine.any():
                out[mine] = self._of(k)[flat[mine] - k * _BATCH]
        out = out.reshape(*which.shape, 1)
        return out[(..., *rest)] if rest else out

    def _of(self, k: int) -> NDArray[np.float32]:
        """Batch `k`; the last one asked for is kept."""
        kept = self._batch
        if kept is not None and kept[0] == k:
            return kept[1]
        first, last = k * _BATCH, min(self.shape[0], (k + 1) * _BATCH)
        edges = np.ceil(np.arange(first, last + 1) * (self.window * self.rate) - 1e-6).astype(int)
        edges = np.minimum(edges, self.n)
        x = self.filter.block(self._sampled, int(edges[0]), int(edges[-1]), self.n)
        batch = np.array([_mean_correlation(x[a:b]) for a, b in zip(edges[:-1] - edges[0], edges[1:] - edges[0])], dtype=np.float32)[:, None]
        self._batch = (k, batch)
        return batch

    def _sampled(self, i: int, j: int) -> NDArray[np.float64]:
        if self.resampler is None:
            return self._source(i, j).astype(np.float64)
        return self.resampler.block(self._source, i, j, self.signal.n_samples)

    def _source(self, i: int, j: int) -> NDArray[np.float32]:
        x = self.signal.read(i, j)
        holes = [(max(a, i) - i, min(b, j) - i) for a, b in self._gaps if a < j and b > i]
        if holes:
            x = x.copy()
        for a, b in holes:
            x[a:b] = np.nan
        return x


def _mean_correlation(x: NDArray[np.float64]) -> float:
    """Mean over pairs of columns of `x` (time, site), of the samples that all usable sites have; NaN where fewer than two are usable."""
    present = np.isfinite(x)
    usable = present.mean(axis=0) >= _LEAST_PRESENT if len(x) else np.zeros(x.shape[1], dtype=bool)
    rows = present[:, usable].all(axis=1)
    if usable.sum() < 2 or rows.mean() < _LEAST_PRESENT:
        return np.nan
    z = x[rows][:, usable]
    z = z - z.mean(axis=0)
    power = np.sqrt((z * z).sum(axis=0))
    z = z[:, power > 0] / power[power > 0]
    sites = z.shape[1]
    if sites < 2:
        return np.nan
    # The sum over all pairs at once: |sum of unit vectors|² counts each pair twice and each vector once.
    together = z.sum(axis=1)
    return float(((together * together).sum() - sites) / (sites * (sites - 1)))
