"""Sleep spindles and slow waves, by amplitude relative to the recording: no threshold in microvolts, which would not travel between species."""

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
from brainmu.errors import InputError, MissingDataError
from brainmu.sleep.frames import decimated

__all__ = ["find_slow_waves", "find_spindles"]

Float = NDArray[np.float32]
_BLOCK, _PAD = 600.0, 10.0  # s of signal at a time, and what filters need on either side
_LEAST_BASELINE = 60.0  # s


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
    s = RODENT_SPINDLES if _is_rodent(recording) else HUMAN_SPINDLES
    s = SpindleSettings(
        band=band or s.band, below=s.below, shortest=s.shortest if shortest is None else shortest, longest=s.longest if longest is None else longest,
        threshold=s.threshold if threshold is None else float(threshold), share=s.share if share is None else float(share),
    )  # fmt: skip
    scored = _hypnogram(recording, hypnogram)
    signal = _signal(recording, channels, 2.1 * s.band[1], "spindles")
    spans, baseline, name = _where(recording, signal, within, scored)
    q = max(1, int((signal.rate or 0) // 100))
    rate = float(signal.rate or 0) / q
    power, ratio = _sigma(signal, q, rate, s, progress)
    level = np.log(np.maximum(power, 1e-30)) / 2
    level[~np.isfinite(power) | (power <= 0)] = np.nan
    here = _mask(baseline, signal.start, rate, len(level))
    if not np.isfinite(level[here]).any():
        raise MissingDataError(f"{recording.id}: no sample of the baseline ({name}) is finite and not flat, expected some minutes")
    centre, spread = robust_scale(level[here], axis=0)
    z, p = _consensus(level, ratio, centre, spread)
    allowed = _mask(spans, signal.start, rate, len(z))
    edges, peaks = _bursts(z, p, allowed, rate, s, float(np.mean(spread)))
    minutes = float(allowed.sum()) / rate / 60
    table = EventTable(
        signal.start + edges[:, 0] / rate, signal.start + edges[:, 1] / rate, signal.start + (peaks + 0.5) / rate, kind="spindle",
        score=z[peaks] if len(peaks) else np.empty(0),
        amplitude=2 * np.exp(np.nanmax(level[peaks], axis=1)) if len(peaks) else np.empty(0),
        frequency=np.array([_frequency(signal, signal.start + k / rate, s.band) for k in peaks]),
        attrs=_about(signal, name, minutes, len(peaks)) | {"method": "log envelope relative to the recording", "threshold": s.threshold, "band": list(s.band),
                                                          "share": s.share},
    )  # fmt: skip
    table.attrs |= _surrogates(signal, q, rate, baseline, table, s, centre, spread, seed)
    return table


def find_slow_waves(
    recording: Recording, within: Intervals | None = None, *, channels: Sequence[str] | None = None, hypnogram: Hypnogram | None = None,
    threshold: float | None = None, band: tuple[float, float] | None = None, polarity: str = "negative", progress: Callable[[str, float], None] | None = None,
) -> EventTable:  # fmt: skip
    """Slow waves: a half-wave down and the half-wave up that follows, large for the recording.

    Parameters
    ----------
    recording : Recording or Session
    within, channels, hypnogram
        As in :func:`find_spindles`; of several channels the one with most slow power is taken, unless named (then their mean).
    threshold : float or None
        How far the half-wave and the peak-to-peak amplitude exceed their means over all half-waves of the baseline; 1.25 by default.
    band : Hz
        0.3-1.5 in people (down 0.3-1.5 s, up 0.1-1 s), 0.5-4 in rodents (down and up 0.08-1 s).
    polarity : {"negative", "positive"}
        Of the down state: negative at the surface, positive in deep layers of cortex.

    Returns
    -------
    EventTable
        kind "slow_wave": start and stop at the zero crossings, peak at the trough of the down state; columns ``score`` (amplitude over
        the baseline's mean), ``amplitude`` (peak to peak), ``slope`` (trough to next zero crossing, unit/s), ``frequency`` (Hz).

    References
    ----------
    Massimini et al. 2004, J. Neurosci. 24:6862; Mölle et al. 2002, J. Neurosci. 22:10941 (1.25 times the mean).
    """
    if polarity not in ("negative", "positive"):
        raise InputError(f"polarity is {polarity!r}, expected 'negative' (surface) or 'positive' (deep layers)")
    rodent = _is_rodent(recording)
    low, high = band or ((0.5, 4.0) if rodent else (0.3, 1.5))
    factor = 1.25 if threshold is None else float(threshold)
    down_s, up_s = ((0.08, 1.0), (0.08, 1.0)) if rodent else ((0.3, 1.5), (0.1, 1.0))
    scored = _hypnogram(recording, hypnogram)
    signal = _signal(recording, channels, 8 * high, "slow waves")
    spans, baseline, name = _where(recording, signal, within, scored)
    q = max(1, int((signal.rate or 0) // max(25.0, 12 * high)))
    rate = float(signal.rate or 0) / q
    x = _slow(signal, q, rate, (low, high), baseline, named=channels is not None, progress=progress)
    x = x if polarity == "negative" else -x
    waves = _half_waves(x, rate, down_s, up_s)
    middle = (waves["trough"]).astype(np.int64)
    in_base = _mask(baseline, signal.start, rate, len(x))[middle] if len(middle) else np.empty(0, bool)
    allowed = _mask(spans, signal.start, rate, len(x))
    if not in_base.any():
        keep = np.zeros(len(middle), dtype=bool)
        score = np.zeros(len(middle))
    else:
        depth, ptp = waves["depth"], waves["ptp"]
        score = ptp / ptp[in_base].mean()
        keep = (depth >= factor * depth[in_base].mean()) & (score >= factor)
        keep &= allowed[waves["start"].astype(np.int64)] & allowed[np.minimum(waves["stop"].astype(np.int64), len(x) - 1)]
    w = {k: v[keep] for k, v in waves.items()}
    minutes = float(allowed.sum()) / rate / 60
    return EventTable(
        signal.start + w["start"] / rate, signal.start + w["stop"] / rate, signal.start + (w["trough"] + 0.5) / rate, kind="slow_wave", score=score[keep],
        amplitude=w["ptp"], slope=w["depth"] / np.maximum((w["cross"] - w["trough"]) / rate, 1 / rate), frequency=rate / np.maximum(w["stop"] - w["start"], 1),
        attrs=_about(signal, name, minutes, int(keep.sum())) | {"method": "half-waves relative to the recording", "threshold": factor, "band": [low, high],
                                                                "polarity": polarity},
    )  # fmt: skip


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


# -- slow waves -----------------------------------------------------------------------------------------------------
def _slow(
    signal: Signal, q: int, rate: float, band: tuple[float, float], baseline: Intervals, *, named: bool, progress: Callable[[str, float], None] | None
) -> NDArray[np.float64]:
    """Band-passed signal (time,): of the channel with most power in the band in the baseline, or the mean of named ones."""
    total = signal.n_samples // q
    out = np.full((total, signal.n_channels), np.nan, dtype=np.float32)
    for first, last, lo, hi in overlapping_blocks(total, round(_BLOCK * rate), round(3 * _PAD * rate)):
        x = decimated(signal.read(lo * q, hi * q), q)
        for c in range(x.shape[1]):
            if np.isfinite(x[:, c]).sum() > rate and np.nanstd(x[:, c]) > 0:
                out[first:last, c] = bandpass(x[:, c], rate, *band)[first - lo : last - lo]
        if progress is not None:
            progress("slow waves", last / total)
    if signal.n_channels == 1:
        return out[:, 0].astype(np.float64)
    if named:
        return out.mean(axis=1, dtype=np.float64)
    here = out[_mask(baseline, signal.start, rate, total)]
    spread = np.nanstd(np.where(np.isfinite(here), here, 0.0), axis=0) if len(here) else np.nanstd(out, axis=0)
    return out[:, int(np.argmax(spread))].astype(np.float64)


def _half_waves(x: NDArray[np.float64], rate: float, down_s: tuple[float, float], up_s: tuple[float, float]) -> dict[str, NDArray[np.float64]]:
    """Down half-waves followed by up half-waves of allowed lengths: start, cross, stop, trough (samples), depth and ptp (unit)."""
    sign = np.where(np.isfinite(x), np.sign(x), 0).astype(np.int8)
    sign[sign == 0] = 1
    change = np.flatnonzero(np.diff(sign) != 0) + 1
    rows = []
    for a, b, c in zip(change, change[1:], change[2:]):
        if sign[a] > 0 or not (down_s[0] <= (b - a) / rate <= down_s[1] and up_s[0] <= (c - b) / rate <= up_s[1]):
            continue
        part = x[a:c]
        if not np.isfinite(part).all():
            continue
        k = int(np.argmin(part[: b - a]))
        rows.append((a, b, c, a + k, -part[k], part[b - a :].max() - part[k]))
    columns = np.array(rows, dtype=np.float64).reshape(-1, 6).T
    return dict(zip(("start", "cross", "stop", "trough", "depth", "ptp"), columns))


# -- where and in what ----------------------------------------------------------------------------------------------
def _is_rodent(recording: Recording) -> bool:
    return recording.species.lower() in ("mouse", "rat", "mus musculus", "rattus norvegicus")


def _hypnogram(recording: Recording, given: Hypnogram | None) -> Hypnogram | None:
    if given is not None:
        return given
    found = {k: v for k, v in recording.labels.items() if isinstance(v, Hypnogram)}
    return found.get("scoring") or (next(iter(found.values())) if len(found) == 1 else None)


def _signal(recording: Recording, channels: Sequence[str] | None, least: float, what: str) -> Signal:
    """The EEG or LFP signal to look in, with the channels to use."""
    found = {k: s for k, s in (recording.signals_of("eeg") or recording.signals_of("lfp")).items() if s.rate is not None and s.rate >= least}
    if not found:
        raise MissingDataError(f"{recording.id}: {what} need EEG or LFP of at least {least:.0f} Hz among {', '.join(recording.signals) or 'no signals'}")
    if channels is not None:
        wanted = [str(c) for c in channels]
        for s in found.values():
            if set(wanted) <= set(s.names):
                return s.pick(wanted)
        raise MissingDataError(f"{recording.id}: channels {', '.join(wanted)} are not together in one signal; there are "
                               f"{', '.join(n for s in found.values() for n in s.names[:20])}")  # fmt: skip
    signal = max(found.values(), key=lambda s: s.n_channels)
    region = signal.channels["region"].fillna("").astype(str).str.lower()
    outside = ~region.str.contains(r"ca[1-3]|hippo|hpc|dentate").to_numpy()
    which = np.flatnonzero(outside) if outside.any() else np.arange(signal.n_channels)
    which = which[np.unique(np.linspace(0, len(which) - 1, min(len(which), 8)).astype(int))]
    return signal.pick(which) if len(which) < signal.n_channels else signal


def _where(recording: Recording, signal: Signal, within: Intervals | None, scored: Hypnogram | None) -> tuple[Intervals, Intervals, str]:
    """Where to look, what to measure against, and the name of that."""
    everywhere = Intervals([[signal.start, signal.stop]]) if signal.n_samples else Intervals()
    nrem = scored.intervals("NREM").intersect(everywhere) if scored is not None else Intervals()
    known = nrem.duration >= _LEAST_BASELINE
    spans = (within.intersect(everywhere) if within is not None else nrem if known else everywhere).subtract(signal.gaps)
    if spans.duration <= 0:
        raise MissingDataError(f"{recording.id}: no data where events were looked for: check `within` against {signal.start:.0f}-{signal.stop:.0f} s")
    return (spans, nrem.subtract(signal.gaps), "NREM") if known else (spans, everywhere.subtract(signal.gaps), "session")


def _mask(spans: Intervals, start: float, rate: float, n: int) -> NDArray[np.bool_]:
    return spans.contains(start + (np.arange(n) + 0.5) / rate)


def _about(signal: Signal, baseline: str, minutes: float, n: int) -> dict[str, Any]:
    return {"baseline": baseline, "channels": signal.names, "seconds": minutes * 60, "rate": n / minutes if minutes else float("nan")}
