"""Spectra by stage, the decline of slow-wave activity over sleep, and how sleep events follow each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core.events import EventTable
from brainmu.core.hypnogram import Hypnogram
from brainmu.core.intervals import Intervals
from brainmu.core.recording import Recording
from brainmu.core.signal import Signal
from brainmu.dsp.spectra import band_power
from brainmu.errors import InputError, MissingDataError
from brainmu.sleep.circular import along
from brainmu.sleep.frames import Grid, finite_mean, spectra

__all__ = ["event_coupling", "slow_wave_activity", "stage_spectra"]


def stage_spectra(recording: Recording, hypnogram: Hypnogram | None = None, *, channels: Sequence[str] | None = None, high: float = 45.0) -> pd.DataFrame:
    """Mean power spectral density of each stage and channel.

    Parameters
    ----------
    recording : Recording or Session
    hypnogram : Hypnogram or None
        The recording's only hypnogram where None.
    channels : names or None
        All EEG and LFP channels where None.
    high : float, Hz
        Highest frequency.

    Returns
    -------
    DataFrame
        stage, channel, frequency (Hz), density, unit (of the density), epochs (how many went in).
    """
    h = recording.hypnogram() if hypnogram is None else hypnogram
    names = [*h.stages]
    rows = []
    for signal in _brain(recording, channels).values():
        freqs, total, count = _by_stage(signal, h, high)
        unit = f"{signal.unit}²/Hz" if signal.unit else "1/Hz"
        for k, stage in enumerate(names):
            for c, channel in enumerate(signal.names):
                if count[k, c]:
                    part = pd.DataFrame({"frequency": freqs, "density": total[k, c] / count[k, c]})
                    rows.append(part.assign(stage=stage, channel=channel, unit=unit, epochs=int(count[k, c])))
    if not rows:
        raise MissingDataError(f"{recording.id}: no scored epoch overlaps data: check the hypnogram's start ({h.start:.0f}-{h.stop:.0f} s)")
    return pd.concat(rows, ignore_index=True)[["stage", "channel", "frequency", "density", "unit", "epochs"]]


def slow_wave_activity(
    recording: Recording, hypnogram: Hypnogram | None = None, *, channels: Sequence[str] | None = None, band: tuple[float, float] | None = None
) -> pd.DataFrame:
    """Slow-wave activity of each NREM bout of a minute or more, as a share of the recording's NREM mean; how it declines stands in ``attrs``.

    Parameters
    ----------
    band : Hz
        0.75-4.5 for people, 0.5-4 for rodents.

    Returns
    -------
    DataFrame
        start, duration (s), activity (%, 100 is the NREM mean). ``attrs``: ``decline`` (% an hour, negative when it falls; from a line
        through log activity weighted by duration), ``half_life`` (h, NaN where it does not fall), ``bouts``.

    References
    ----------
    Borbély 1982, Hum. Neurobiol. 1:195; Huber et al. 2000, Sleep 23:1019 (mice).
    """
    h = recording.hypnogram() if hypnogram is None else hypnogram
    low, high = band or ((0.75, 4.5) if h.stage_set == "aasm5" else (0.5, 4.0))
    signal = max(_brain(recording, channels).values(), key=lambda s: s.n_channels)
    freqs, power = _per_epoch(signal, h, high + 1)
    level = band_power(power, freqs, low, high).astype(np.float64)
    mean = finite_mean(level[h.mask("NREM")], axis=0)
    activity = finite_mean(100 * level / mean, axis=1)
    rows = []
    for a, b in h.intervals("NREM").bounds:
        i, j = round((a - h.start) / h.epoch), round((b - h.start) / h.epoch)
        part = activity[i:j]
        if b - a >= 60 and np.isfinite(part).any():
            rows.append((a, b - a, float(np.nanmean(part))))
    table = pd.DataFrame(rows, columns=["start", "duration", "activity"])
    if not len(table):
        raise MissingDataError(f"{recording.id}: no NREM bout of a minute or more with data, so there is no slow-wave activity to follow")
    rate = float("nan")
    if len(table) >= 3:
        hours = (table["start"] + table["duration"] / 2) / 3600
        rate = float(np.polyfit(hours, np.log(table["activity"]), 1, w=np.sqrt(table["duration"]))[0])
    table.attrs = {"decline": 100 * float(np.expm1(rate)), "half_life": float(np.log(2) / -rate) if rate < 0 else float("nan"), "bouts": len(table),
                   "band": [low, high], "channels": signal.names}  # fmt: skip
    return table


def event_coupling(first: EventTable, second: EventTable, within: Intervals, *, window: float = 1.5, draws: int = 500, seed: int = 0) -> pd.DataFrame:
    """How often `second` peaks follow `first` peaks within `window` s, against the same events shifted in time.

    The null shifts all of `second` together along the joined spans of `within` (circularly), which keeps both rates and all rhythms.

    Parameters
    ----------
    first, second : EventTable
        Slow waves and spindles, spindles and ripples, …
    within : Intervals
        Where both could occur (NREM, say).

    Returns
    -------
    DataFrame
        One row: n_first, n_second, coupled (share of `first` that is followed), expected (mean of the null), ratio, p_value (one-sided, at least
        1 / (draws + 1)), lag (median, s).

    References
    ----------
    Staresina et al. 2015, Nat. Neurosci. 18:1679; Mölle et al. 2002, J. Neurosci. 22:10941.
    """
    if window <= 0:
        raise InputError(f"coupling window is {window:g} s, expected a positive number")
    if within.duration <= 2 * window:
        raise MissingDataError(f"events were compared in {within.duration:.1f} s, expected much more than the window of {window:g} s")
    a, b = (along(np.sort(e.peak), within) for e in (first, second))
    if not len(a) or not len(b):
        raise MissingDataError(f"{len(a)} first and {len(b)} second events lie in the spans given, expected some of both")
    lags = _next(a, b, window)
    coupled = float(np.isfinite(lags).mean())
    rng = np.random.default_rng(seed)
    length = within.duration
    null = np.array([np.isfinite(_next(a, np.sort((b + s) % length), window)).mean() for s in rng.uniform(2 * window, length - 2 * window, draws)])
    p = (1 + int((null >= coupled).sum())) / (draws + 1)
    ratio = coupled / null.mean() if null.mean() > 0 else float("nan")
    lag = float(np.nanmedian(lags)) if np.isfinite(lags).any() else float("nan")
    row = {"n_first": len(a), "n_second": len(b), "coupled": coupled, "expected": float(null.mean()), "ratio": ratio, "p_value": p, "lag": lag}
    return pd.DataFrame([row])


def _next(a: NDArray[np.float64], b: NDArray[np.float64], window: float) -> NDArray[np.float64]:
    """Lag from each a to the next b; NaN beyond the window."""
    i = np.searchsorted(b, a, side="right")
    lag = np.where(i < len(b), b[np.minimum(i, len(b) - 1)] - a, np.inf)
    return np.where(lag <= window, lag, np.nan)


def _brain(recording: Recording, channels: Sequence[str] | None) -> dict[str, Signal]:
    found = {k: s for k, s in recording.signals_of("eeg", "lfp").items() if s.rate is not None and s.rate >= 20}
    if channels is not None:
        wanted = [str(c) for c in channels]
        found = {k: s.pick([n for n in wanted if n in s.names]) for k, s in found.items() if set(wanted) & set(s.names)}
    if not found:
        raise MissingDataError(
            f"{recording.id}: no EEG or LFP{' of those names' if channels is not None else ''} among {', '.join(recording.signals) or 'no signals'}"
        )
    return found


def _per_epoch(signal: Signal, h: Hypnogram, high: float) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Density (epoch, channel, freq) of the hypnogram's epochs."""
    grid = Grid(h.start, h.epoch, len(h), max(1, round(h.epoch / 2)))
    parts = list(spectra(signal, grid, high))
    return parts[0][0], np.concatenate([p.reshape(-1, grid.per, *p.shape[1:]).mean(axis=1) for _, p in parts])


def _by_stage(signal: Signal, h: Hypnogram, high: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Sums of density (stage, channel, freq) and epochs (stage, channel) that went in."""
    freqs, power = _per_epoch(signal, h, high)
    total = np.zeros((len(h.stages), signal.n_channels, len(freqs)))
    count = np.zeros((len(h.stages), signal.n_channels), dtype=np.int64)
    for k in range(len(h.stages)):
        part = power[h.codes == k].astype(np.float64)
        ok = np.isfinite(part).all(axis=2)
        count[k] = ok.sum(axis=0)
        total[k] = np.where(ok[..., None], part, 0.0).sum(axis=0)
    return freqs, total, count
