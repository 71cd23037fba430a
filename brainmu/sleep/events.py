"""Sleep spindles, by amplitude relative to the recording: no threshold in microvolts, which would not travel between species."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core.events import EventTable
from brainmu.core.hypnogram import Hypnogram
from brainmu.core.intervals import Intervals
from brainmu.core.recording import Recording
from brainmu.core.signal import Signal
from brainmu.dsp.filters import bandpass, envelope, overlapping_blocks, robust_scale, smooth
from brainmu.errors import MissingDataError
from brainmu.sleep.frames import decimated
from brainmu.sleep.sites import about, brain_signal, is_rodent, mask_of, scoring_of, where_to_look
from brainmu.sleep.slow_waves import find_slow_waves

__all__ = ["find_slow_waves", "find_spindles"]

Float = NDArray[np.float32]
_BLOCK, _PAD = 600.0, 10.0  # s of signal at a time, and what filters need on either side


@dataclass(frozen=True)
class SpindleSettings:
    """What counts as a spindle; see :func:`find_spindles`."""

    band: tuple[float, float]
    below: tuple[float, float]
    shortest: float
    longest: float
    threshold: float = 2.0
    edge: float = 0.8
    share: float = 0.35
    gap: float = 0.2
    sigma: float = 0.1


HUMAN_SPINDLES = SpindleSettings(band=(11.0, 16.0), below=(2.0, 9.0), shortest=0.4, longest=2.5)
RODENT_SPINDLES = SpindleSettings(band=(9.0, 16.0), below=(1.0, 7.0), shortest=0.3, longest=2.5)


def find_spindles(
    recording: Recording, within: Intervals | None = None, *, channels: Sequence[str] | None = None, hypnogram: Hypnogram | None = None,
    threshold: float | None = None, band: tuple[float, float] | None = None, shortest: float | None = None, longest: float | None = None,
    share: float | None = None, seed: int = 0, progress: Callable[[str, float], None] | None = None,
) -> EventTable:  # fmt: skip
    """Sleep spindles.

    The log of the smoothed envelope in the band is set on a robust scale of the baseline (NREM where a hypnogram is known), averaged over
    channels. A spindle rises above `threshold` while the band holds at least `share` of the power of band and slower activity
    together, and lasts as long as the envelope stays above 0.8 of the threshold amplitude.

    Parameters
    ----------
    recording : Recording or Session
    within : Intervals or None
        Where to look; None is NREM where a hypnogram is known, otherwise everywhere.
    channels : names or None
        None takes EEG, or LFP outside the hippocampus where regions are known; at most eight.
    hypnogram : Hypnogram or None
        None takes the recording's "scoring" or only hypnogram.
    threshold : float or None
        Robust SDs of log amplitude; 2 by default.
    band, shortest, longest : Hz and s
        11-16 Hz, 0.4-2.5 s in people; 9-16 Hz, 0.3-2.5 s in rodents (by `recording.species`; unknown counts as human).
    share : float
        0.35 by default.

    Returns
    -------
    EventTable
        kind "spindle"; columns ``score`` (robust SDs at the peak), ``amplitude`` (peak to peak, unit of the signal), ``frequency`` (Hz).
        attrs: method, baseline, channels, threshold, rate and surrogate_rate (events a minute; surrogates are noise of the
        same spectrum outside events), seconds looked at.

    Raises
    ------
    MissingDataError
        Without EEG or LFP sampled fast enough, or where `within` holds no data.

    References
    ----------
    Mölle et al. 2002, J. Neurosci. 22:10941 (relative thresholds); Lacourse et al. 2019, J. Neurosci. Methods 316:3 (relative sigma power);
    Theiler et al. 1992, Physica D 58:77 (surrogates).
    """
    s = RODENT_SPINDLES if is_rodent(recording) else HUMAN_SPINDLES
    s = SpindleSettings(
        band=band or s.band, below=s.below, shortest=s.shortest if shortest is None else shortest, longest=s.longest if longest is None else longest,
        threshold=s.threshold if threshold is None else float(threshold), share=s.share if share is None else float(share),
    )  # fmt: skip
    scored = scoring_of(recording, hypnogram)
    signal = brain_signal(recording, channels, 2.1 * s.band[1], "spindles")
    spans, baseline, name = where_to_look(recording, signal, within, scored)
    q = max(1, int((signal.rate or 0) // 100))
    rate = float(signal.rate or 0) / q
    power, ratio = _sigma(signal, q, rate, s, progress)
    level = np.log(np.maximum(power, 1e-30)) / 2
    level[~np.isfinite(power) | (power <= 0)] = np.nan
    here = mask_of(baseline, signal.start, rate, len(level))
    if not np.isfinite(level[here]).any():
        raise MissingDataError(f"{recording.id}: no sample of the baseline ({name}) is finite and not flat, expected some minutes")
    centre, spread = robust_scale(level[here], axis=0)
    z, p = _consensus(level, ratio, centre, spread)
    allowed = mask_of(spans, signal.start, rate, len(z))
    edges, peaks = _bursts(z, p, allowed, rate, s, float(np.mean(spread)))
    minutes = float(allowed.sum()) / rate / 60
    table = EventTable(
        signal.start + edges[:, 0] / rate, signal.start + edges[:, 1] / rate, signal.start + (peaks + 0.5) / rate, kind="spindle",
        score=z[peaks] if len(peaks) else np.empty(0),
        amplitude=2 * np.exp(np.nanmax(level[peaks], axis=1)) if len(peaks) else np.empty(0),
        frequency=np.array([_frequency(signal, signal.start + k / rate, s.band) for k in peaks]),
        attrs=about(signal, name, minutes, len(peaks)) | {"method": "log envelope relative to the recording", "threshold": s.threshold, "band": list(s.band),
                                                          "share": s.share},
    )  # fmt: skip
    table.attrs |= _surrogates(signal, q, rate, baseline, table, s, centre, spread, seed)
    return table


# -- spindles -------------------------------------------------------------------------------------------------------
def _sigma(signal: Signal, q: int, rate: float, s: SpindleSettings, progress: Callable[[str, float], None] | None) -> tuple[Float, Float]:
    """Smoothed power in the band, and its share of band and slower activity, (time, channel); a block at a time."""
    total = signal.n_samples // q
    power, ratio = (np.empty((total, signal.n_channels), dtype=np.float32) for _ in range(2))
    for first, last, lo, hi in overlapping_blocks(total, round(_BLOCK * rate), round(_PAD * rate)):
        p, r = _sigma_of(decimated(signal.read(lo * q, hi * q), q), rate, s)
        power[first:last], ratio[first:last] = p[first - lo : last - lo], r[first - lo : last - lo]
        if progress is not None:
            progress("sigma", last / total)
    return power, ratio


def _sigma_of(x: Float, rate: float, s: SpindleSettings) -> tuple[Float, Float]:
    power, slower = np.full((2, *x.shape), np.nan, dtype=np.float32)
    for c in range(x.shape[1]):
        v = x[:, c : c + 1]
        # A channel that is missing or flat over the whole block has no envelope.
        if np.isfinite(v).sum() < rate or not np.nanstd(v) > 0:
            continue
        power[:, c] = smooth(envelope(v, rate, *s.band)[:, 0] ** 2, s.sigma * rate)
        slower[:, c] = smooth(bandpass(v, rate, *s.below)[:, 0] ** 2, 0.5 * rate)
    # The envelope's square is twice the mean square of the wave.
    with np.errstate(invalid="ignore", divide="ignore"):
        return power, power / (power + slower)


def _consensus(level: Float, ratio: Float, centre: NDArray[np.float64], spread: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Robust z and share (time,), means over the channels that are known at the time; NaN where none is."""
    z = (level - centre) / np.maximum(spread, 1e-9)
    known = np.isfinite(z).sum(axis=1)
    mean = lambda v: np.where(known > 0, np.nansum(v, axis=1) / np.maximum(known, 1), np.nan)  # noqa: E731
    return mean(z), mean(np.where(np.isfinite(z), ratio, np.nan))


def _bursts(
    z: NDArray[np.float64], share: NDArray[np.float64], allowed: NDArray[np.bool_], rate: float, s: SpindleSettings, spread: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges (event, 2) and peaks (event,), as samples."""
    with np.errstate(invalid="ignore"):
        # 0.8 of the amplitude at threshold is a step down on the log scale.
        on = z > s.threshold + np.log(s.edge) / max(spread, 1e-9)
        core = (z > s.threshold) & (share > s.share) & allowed
    step = np.diff(np.r_[0, on.astype(np.int8), 0])
    first, last = np.flatnonzero(step == 1), np.flatnonzero(step == -1)
    count = np.r_[0, np.cumsum(core)]
    real = count[last] > count[first]
    first, last = first[real], last[real]
    if len(first) > 1:
        apart = first[1:] - last[:-1] >= s.gap * rate
        first, last = first[np.r_[True, apart]], last[np.r_[apart, True]]
    length = (last - first) / rate
    good = (length >= s.shortest) & (length <= s.longest)
    first, last = first[good], last[good]
    peaks = np.array([a + int(np.nanargmax(z[a:b])) for a, b in zip(first, last)], dtype=np.int64)
    return np.stack([first, last], axis=1).astype(np.int64), peaks


def _frequency(signal: Signal, at: float, band: tuple[float, float]) -> float:
    """Frequency of greatest power in the band within half a second of a time, Hz; mean over channels of the spectrum."""
    x = np.nan_to_num(signal.span(at - 0.5, at + 0.5)[1])
    if len(x) < 8:
        return float("nan")
    rate = float(signal.rate or 0)
    n = int(16 * rate)
    spectrum = (np.abs(np.fft.rfft((x - x.mean(axis=0)) * np.hanning(len(x))[:, None], n, axis=0)) ** 2).mean(axis=1)
    f = np.fft.rfftfreq(n, 1 / rate)
    k = (f >= band[0]) & (f <= band[1])
    return float(f[k][spectrum[k].argmax()])


def _surrogates(
    signal: Signal, q: int, rate: float, baseline: Intervals, found: EventTable, s: SpindleSettings, centre: NDArray[np.float64],
    spread: NDArray[np.float64], seed: int,
) -> dict[str, Any]:  # fmt: skip
    """What the same detector finds in noise of the baseline's spectrum outside events: events a minute, over up to five minutes."""
    rng = np.random.default_rng(seed)
    quiet = baseline.subtract(Intervals.merge(np.c_[found.start - 0.5, found.stop + 0.5])) if len(found) else baseline
    pieces = [b for b in quiet.bounds if b[1] - b[0] >= 5.0]
    count, seconds = 0, 0.0
    for k in rng.permutation(len(pieces)):
        a, b = pieces[k][0], min(pieces[k][1], pieces[k][0] + 60.0)
        i, j = signal.index(a) // q * q, signal.index(b) // q * q
        x = decimated(signal.read(i, j), q)
        if len(x) < 4 * rate or not np.isfinite(x).all() or not (x.std(axis=0) > 0).all():
            continue
        spectrum = np.fft.rfft(x - x.mean(axis=0), axis=0)
        # One draw of phases for all channels keeps what they share.
        noise = np.fft.irfft(spectrum * np.exp(2j * np.pi * rng.random((len(spectrum), 1))), len(x), axis=0).astype(np.float32)
        power, ratio = _sigma_of(noise, rate, s)
        z, share = _consensus(np.log(np.maximum(power, 1e-30)) / 2, ratio, centre, spread)
        count += len(_bursts(z, share, np.ones(len(z), dtype=bool), rate, s, float(np.mean(spread)))[1])
        seconds += len(x) / rate
        if seconds >= 300:
            break
    return {"surrogate_rate": count / seconds * 60 if seconds else float("nan"), "surrogate_seconds": seconds}
