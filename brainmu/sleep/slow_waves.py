"""Slow waves: half-wave pairs that are large for the recording, the down state told from the up state."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from brainmu.core.events import EventTable
from brainmu.core.hypnogram import Hypnogram
from brainmu.core.intervals import Intervals
from brainmu.core.recording import Recording
from brainmu.core.signal import Signal
from brainmu.dsp.filters import bandpass, overlapping_blocks
from brainmu.errors import InputError
from brainmu.sleep.frames import decimated
from brainmu.sleep.sites import about, brain_signal, is_rodent, mask_of, scoring_of, where_to_look

__all__ = ["find_slow_waves"]

_BLOCK, _PAD = 600.0, 30.0  # s of signal at a time, and what filters need on either side
_PROBED = 400  # half-waves a side that tell which side is the down state
_SURE = 4.0  # SE by which the two sides must differ


def find_slow_waves(
    recording: Recording, within: Intervals | None = None, *, channels: Sequence[str] | None = None, hypnogram: Hypnogram | None = None,
    threshold: float | None = None, band: tuple[float, float] | None = None, polarity: str = "auto", progress: Callable[[str, float], None] | None = None,
) -> EventTable:  # fmt: skip
    """Slow waves: a half-wave down and the half-wave up that follows, large for the recording.

    Parameters
    ----------
    recording : Recording or Session
    within, channels, hypnogram
        As in :func:`brainmu.sleep.find_spindles`; of several channels the one with most slow power is taken, unless named (then their mean).
    threshold : float or None
        How far the half-wave and the peak-to-peak amplitude exceed their means over all half-waves of the baseline; 1.25 in rodents. None in people asks for
        4 times their lower quartiles instead; ``attrs["against"]`` says which.
    band : Hz
        0.3-1.5 in people (down 0.3-1.5 s, up 0.1-1 s), 0.5-4 in rodents (down and up 0.08-1 s).
    polarity : {"auto", "negative", "positive"}
        Of the down state: negative at the surface, positive in deep layers of cortex. "auto" takes EEG as negative; in LFP the down state is the side on which
        units are silent, else the side with less gamma, else positive; ``attrs["polarity_by"]`` says which of these it was.

    Returns
    -------
    EventTable
        kind "slow_wave": start and stop at the zero crossings, peak at the trough of the down state; columns ``score`` (amplitude over
        the baseline's mean), ``amplitude`` (peak to peak), ``slope`` (trough to next zero crossing, unit/s), ``frequency`` (Hz).

    Notes
    -----
    Mölle's 1.25 times the mean, meant for deep sleep, moves with what is looked at: it is lenient where most half-waves are the background of N2, and
    severe where most are slow waves. The lower quartile is the background's in both. The factor of 4 was chosen on planted nights. Large waves of N3's own
    delta are found besides the planted ones; they are slow waves in all but name. Rodents' slow waves follow each other so closely that the quartile is theirs.

    References
    ----------
    Massimini et al. 2004, J. Neurosci. 24:6862; Mölle et al. 2002, J. Neurosci. 22:10941 (1.25 times the mean); Vyazovskiy et al. 2009, Neuron 63:865
    (units are silent in the deep-positive half-wave).
    """
    if polarity not in ("auto", "negative", "positive"):
        raise InputError(f"polarity is {polarity!r}, expected 'auto', 'negative' (surface) or 'positive' (deep layers)")
    rodent = is_rodent(recording)
    low, high = band or ((0.5, 4.0) if rodent else (0.3, 1.5))
    factor, against = (float(threshold), "mean") if threshold is not None else (1.25, "mean") if rodent else (4.0, "lower quartile")
    lengths = ((0.08, 1.0), (0.08, 1.0)) if rodent else ((0.3, 1.5), (0.1, 1.0))
    scored = scoring_of(recording, hypnogram)
    signal = brain_signal(recording, channels, 8 * high, "slow waves")
    spans, baseline, name = where_to_look(recording, signal, within, scored)
    q = max(1, int((signal.rate or 0) // max(25.0, 12 * high)))
    rate = float(signal.rate or 0) / q
    x, used = _slow(signal, q, rate, (low, high), baseline, named=channels is not None, progress=progress)
    here = mask_of(baseline, signal.start, rate, len(x))
    side, by = _polarity(recording, signal.pick(used), x, here, rate, lengths) if polarity == "auto" else (polarity, "given")
    waves = _half_waves(x if side == "negative" else -x, rate, *lengths)
    allowed = mask_of(spans, signal.start, rate, len(x))
    keep, score = _large(waves, here, factor, against)
    keep &= allowed[waves["start"].astype(np.int64)] & allowed[np.minimum(waves["stop"].astype(np.int64), len(x) - 1)]
    w = {k: v[keep] for k, v in waves.items()}
    minutes = float(allowed.sum()) / rate / 60
    return EventTable(
        signal.start + w["start"] / rate, signal.start + w["stop"] / rate, signal.start + (w["trough"] + 0.5) / rate, kind="slow_wave", score=score[keep],
        amplitude=w["ptp"], slope=w["depth"] / np.maximum((w["cross"] - w["trough"]) / rate, 1 / rate), frequency=rate / np.maximum(w["stop"] - w["start"], 1),
        attrs=about(signal, name, minutes, int(keep.sum())) | {
            "channels": [signal.names[c] for c in used], "method": "half-waves relative to the recording", "threshold": factor, "against": against,
            "band": [low, high], "polarity": side, "polarity_by": by,
        },
    )  # fmt: skip


def _large(waves: dict[str, NDArray[np.float64]], here: NDArray[np.bool_], factor: float, against: str) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which half-wave pairs (n,) exceed `factor` times the baseline's mean or lower quartile in depth and height, and the height over the baseline's mean."""
    in_base = here[waves["trough"].astype(np.int64)]
    if not in_base.any():
        return np.zeros(len(in_base), dtype=bool), np.zeros(len(in_base))
    level = np.mean if against == "mean" else lambda v: np.quantile(v, 0.25)
    keep = np.logical_and(*(waves[k] >= factor * level(waves[k][in_base]) for k in ("depth", "ptp")))
    return keep, waves["ptp"] / waves["ptp"][in_base].mean()


# -- which side is down ---------------------------------------------------------------------------------------------
def _polarity(
    recording: Recording, signal: Signal, x: NDArray[np.float64], here: NDArray[np.bool_], rate: float, lengths: tuple[tuple[float, float], tuple[float, float]]
) -> tuple[str, str]:
    """Side of the down state in `signal`, whose band-passed trace is `x`, and how it was told."""
    if signal.kind == "eeg":
        return "negative", "EEG is taken from the surface"
    times = []
    for trace in (x, -x):
        w = _half_waves(trace, rate, *lengths)
        middle = w["trough"].astype(np.int64)
        inside = np.flatnonzero(here[middle])
        # The largest quarter, whatever the mean is: where all waves are alike none exceeds it by much.
        best = inside[np.argsort(-w["ptp"][inside], kind="stable")[: min(_PROBED, len(inside) // 4)]]
        times.append(signal.start + (np.sort(w["trough"][best]) + 0.5) / rate)
    if min(map(len, times)) >= 20:
        told: list[tuple[str, Callable[[], float]]] = [
            ("units are silent", lambda: _firing(recording, *times)),
            ("gamma is low", lambda: _gamma(signal, *times)),
        ]
        for what, measure in told:
            if abs(difference := measure()) > _SURE:
                return ("negative" if difference < 0 else "positive"), f"{what} on that side ({abs(difference):.0f} SE)"
    return "positive", "neither units nor gamma told; LFP is taken from deep layers"


def _firing(recording: Recording, troughs: NDArray[np.float64], peaks: NDArray[np.float64]) -> float:
    """Spikes within 50 ms of troughs less those of peaks, a wave, in standard errors; 0 without spikes."""
    if recording.spikes is None or not len(recording.spikes):
        return 0.0
    t = np.asarray(recording.spikes.times)
    return _difference(*(np.searchsorted(t, at + 0.05) - np.searchsorted(t, at - 0.05) for at in (troughs, peaks)))


def _gamma(signal: Signal, troughs: NDArray[np.float64], peaks: NDArray[np.float64]) -> float:
    """Log power of 30-90 Hz within 50 ms of troughs less that of peaks, in standard errors; 0 where the rate does not hold it."""
    rate = float(signal.rate or 0)
    if rate < 200:
        return 0.0

    def level(times: NDArray[np.float64]) -> NDArray[np.float64]:
        out = []
        for at in times[:: max(1, len(times) // 100)]:  # windows are read one at a time: a hundred tell
            part = signal.span(at - 0.3, at + 0.3)[1]
            if len(part) >= 0.5 * rate and np.isfinite(part).all():
                fast = bandpass(part, rate, 30.0, min(90.0, 0.4 * rate))
                middle, reach = len(part) // 2, max(1, round(0.05 * rate))
                out.append(np.log(np.mean(fast[middle - reach : middle + reach] ** 2) + 1e-30))
        return np.array(out)

    return _difference(level(troughs), level(peaks))


def _difference(a: NDArray[np.generic], b: NDArray[np.generic]) -> float:
    """Mean of `a` less mean of `b` in standard errors; 0 where it cannot be told."""
    if min(len(a), len(b)) < 20:
        return 0.0
    error = np.sqrt(np.var(a) / len(a) + np.var(b) / len(b))
    return float((np.mean(a) - np.mean(b)) / error) if error > 0 else 0.0


# -- half-waves -----------------------------------------------------------------------------------------------------
def _slow(
    signal: Signal, q: int, rate: float, band: tuple[float, float], baseline: Intervals, *, named: bool, progress: Callable[[str, float], None] | None
) -> tuple[NDArray[np.float64], list[int]]:
    """Band-passed signal (time,) of the channel with most power in the band in the baseline, or the mean of named ones, and which channels that is."""
    total = signal.n_samples // q
    out = np.full((total, signal.n_channels), np.nan, dtype=np.float32)
    for first, last, lo, hi in overlapping_blocks(total, round(_BLOCK * rate), round(_PAD * rate)):
        x = decimated(signal.read(lo * q, hi * q), q)
        for c in range(x.shape[1]):
            if np.isfinite(x[:, c]).sum() > rate and np.nanstd(x[:, c]) > 0:
                out[first:last, c] = bandpass(x[:, c], rate, *band)[first - lo : last - lo]
        if progress is not None:
            progress("slow waves", last / total)
    if signal.n_channels == 1:
        return out[:, 0].astype(np.float64), [0]
    if named:
        return out.mean(axis=1, dtype=np.float64), list(range(signal.n_channels))
    here = out[mask_of(baseline, signal.start, rate, total)]
    spread = np.nanstd(np.where(np.isfinite(here), here, 0.0), axis=0) if len(here) else np.nanstd(out, axis=0)
    best = int(np.argmax(spread))
    return out[:, best].astype(np.float64), [best]


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
