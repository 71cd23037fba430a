"""What a picture needs of a long signal, read in bounded pieces: a spectrogram, a level, a downsampled trace.

A picture has about a thousand columns, so it looks at a bounded number of short windows; memory and time do not grow with hours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Recording, Signal
from brainmu.dsp.filters import bandpass
from brainmu.errors import InputError, MissingDataError

__all__ = ["clearest_channel", "display_spectrogram", "level", "pick_channel", "robust_range"]


def pick_channel(recording: Recording, channel: str | None = None, kinds: tuple[str, ...] = ("lfp", "eeg")) -> tuple[str, Signal] | None:
    """``signal/channel`` and the one-channel signal of that name, or a channel of the first of `kinds` there is; None where there is none.

    Without a name it is the first channel that is alive: whose level is at least half the median level of its neighbours.

    Raises
    ------
    MissingDataError
        If a channel is named and no regular signal has it.
    """
    regular = {name: s for name, s in recording.signals.items() if s.rate is not None}
    if channel is not None:
        for name, s in regular.items():
            for wanted in s.names:
                if channel in (wanted, f"{name}/{wanted}"):
                    return f"{name}/{wanted}", s.pick([wanted])
        have = [f"{name}/{c}" for name, s in regular.items() for c in s.names]
        raise MissingDataError(f"{recording.id}: no channel {channel!r}, the recording has {', '.join(have[:20]) or 'no regularly sampled signals'}")
    for kind in kinds:
        for name, s in recording.signals_of(kind).items():
            if s.rate is not None and s.n_samples:
                k = _alive(s)
                return f"{name}/{s.names[k]}", s.pick([k])
    return None


def _alive(signal: Signal, windows: int = 8) -> int:
    """The first channel whose RMS is at least half the median over channels; dead and disconnected ones come first too often."""
    if signal.n_channels == 1:
        return 0
    rms = np.nan_to_num(np.nanmedian(_finite_rows(level(signal, signal.start, signal.stop, columns=windows)), axis=0))
    good = rms >= 0.5 * np.median(rms)
    return int(np.argmax(good)) if good.any() else 0


def _finite_rows(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows without any number left out; zeros of one row where none has any."""
    kept = values[np.isfinite(values).any(1)]
    return np.nan_to_num(kept) if len(kept) else np.zeros((1, values.shape[1]))


def clearest_channel(
    recording: Recording, spans: NDArray[np.float64], band: tuple[float, float], kinds: tuple[str, ...] = ("lfp", "eeg"), most: int = 32
) -> str | None:
    """Name ``signal/channel`` of the channel where `band` stands out most inside `spans` (n, 2), s; None without a signal fast enough.

    Events are found on some channels and may be invisible on others: examples are shown where they are.
    """
    for kind in kinds:
        for name, s in recording.signals_of(kind).items():
            if s.rate is None or s.rate <= 2.2 * band[0] or not len(spans):
                continue
            part = s.pick(list(range(min(most, s.n_channels))))
            ratios = [r for a, b in spans[:6] if (r := _stands_out(part, a, b, band)) is not None]
            if ratios:
                best = int(np.argmax(np.nan_to_num(np.median(ratios, axis=0))))
                return f"{name}/{part.names[best]}"
    return None


def _stands_out(signal: Signal, a: float, b: float, band: tuple[float, float]) -> NDArray[np.float64] | None:
    """RMS (channel,) of the band inside [a, b) over that in the second around it; None where a channel has no sample."""
    assert signal.rate is not None
    times, values = signal.span(a - 0.5, b + 0.5)
    inside = (times >= a) & (times < b)
    if inside.sum() < 2 or (~inside).sum() < 16 or not np.isfinite(values).any(0).all():
        return None
    x = bandpass(values, signal.rate, band[0], min(band[1], 0.45 * signal.rate))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.sqrt(np.nanmean(x[inside] ** 2, 0) / np.nanmean(x[~inside] ** 2, 0)).astype(np.float64)


def display_spectrogram(
    signal: Signal, start: float, stop: float, *, fmax: float = 30.0, columns: int = 900, window: float | None = None, per_column: int = 3,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """Power of the first channel of `signal` for a picture.

    Parameters
    ----------
    window : float or None, s
        Window of a multitaper estimate (three sine tapers); None takes 4 s, down to 1 s for less than four minutes. A column averages up to
        `per_column` of them, spread evenly over its time.

    Returns
    -------
    edges : float64 (column + 1,), s
    frequency : float64 (frequency,), Hz
        Above 0, up to `fmax` or half the sampling rate.
    power : float64 (frequency, column), dB re 1 unit²/Hz
        NaN where every window of the column has missing samples.

    References
    ----------
    Riedel & Sidorenko (1995), Minimum bias multiple taper spectral estimation, IEEE Trans. Signal Process. 43 (sine tapers).
    """
    if signal.rate is None:
        raise InputError("the signal is sampled irregularly, expected a rate: a spectrogram needs regular samples")
    if not stop > start:
        raise InputError(f"spectrogram span [{start}, {stop}) is empty, expected start < stop")
    rate = signal.rate
    window = float(np.clip((stop - start) / 60, 1.0, 4.0)) if window is None else window
    n = max(8, round(min(window, stop - start) * rate))
    columns = int(max(1, min(columns, np.floor((stop - start) * rate / n * 2))))
    edges = np.linspace(start, stop, columns + 1)
    frequency = np.fft.rfftfreq(n, 1 / rate)
    keep = (frequency > 0) & (frequency <= fmax)
    tapers = np.stack([np.sqrt(2 / (n + 1)) * np.sin(np.pi * m * np.arange(1, n + 1) / (n + 1)) for m in (1, 2, 3)])
    power = np.full((int(keep.sum()), columns), np.nan)
    for k in range(columns):
        a, b = edges[k], edges[k + 1]
        count = int(np.clip(np.floor((b - a) * rate / n), 1, per_column))
        middles = a + (np.arange(count) + 0.5) * (b - a) / count
        found = [p for m in middles if (p := _multitaper(signal, m, tapers, keep)) is not None]
        if found:
            power[:, k] = np.mean(found, axis=0) * 2.0 / rate
    with np.errstate(divide="ignore", invalid="ignore"):
        return edges, frequency[keep], 10 * np.log10(np.where(power > 0, power, np.nan))


def _multitaper(signal: Signal, middle: float, tapers: NDArray[np.float64], keep: NDArray[np.bool_]) -> NDArray[np.float64] | None:
    assert signal.rate is not None
    n = tapers.shape[1]
    first = round((middle - signal.start) * signal.rate) - n // 2
    first = min(max(first, 0), signal.n_samples - n)
    if first < 0 or abs(signal.start + (first + n / 2) / signal.rate - middle) > n / signal.rate:
        return None  # the signal does not cover this column
    x = signal.read(first, first + n)[:, 0].astype(np.float64)
    if not np.isfinite(x).all():
        return None
    return np.mean(np.abs(np.fft.rfft((x - x.mean()) * tapers)[:, keep]) ** 2, axis=0)


def level(signal: Signal, start: float, stop: float, *, columns: int = 600, window: float = 1.0, mean: bool = False) -> NDArray[np.float64]:
    """One number a column and channel (column, channel): the RMS about the mean (or the mean) of a window in its middle; NaN where nothing is known."""
    edges = np.linspace(start, stop, columns + 1)
    width = min(window, (stop - start) / columns)
    out = np.full((columns, signal.n_channels), np.nan)
    for k, middle in enumerate((edges[:-1] + edges[1:]) / 2):
        if signal.rate is None or width * signal.rate < 4:
            # A window of a few samples says little of their spread: take what the whole column holds.
            i, j = signal.index(edges[k]), signal.index(edges[k + 1])
            j = min(j, i + 4096)
        else:
            i = signal.index(middle - width / 2)
            j = min(i + max(2, round(width * signal.rate)), signal.n_samples)
        if j <= i:
            continue
        x = signal.read(i, j).astype(np.float64)
        seen = np.isfinite(x).any(0)
        if seen.any():
            out[k, seen] = np.nanmean(x[:, seen], 0) if mean else np.nanstd(x[:, seen], 0)
    return out


def robust_range(values: NDArray[np.float64], low: float = 2.0, high: float = 98.0) -> tuple[float, float]:
    """Percentiles of the finite values, widened where they coincide; (0, 1) where there are none."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    if not len(finite):
        return 0.0, 1.0
    lo, hi = (float(v) for v in np.percentile(finite, [low, high]))
    if hi - lo <= 1e-9 * max(abs(lo), abs(hi), 1e-300):
        pad = max(abs(lo) * 0.05, 1e-6)
        return lo - pad, hi + pad
    return lo, hi
