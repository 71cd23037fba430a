"""The infraslow fluctuation of sigma power in NREM sleep: is there one in this recording, how strong, how slow, and where in it do events fall?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from brainmu.core.events import EventTable
from brainmu.core.hypnogram import Hypnogram
from brainmu.core.intervals import Intervals
from brainmu.core.recording import Recording
from brainmu.core.signal import Signal
from brainmu.dsp.filters import envelope, overlapping_blocks
from brainmu.errors import InputError, MissingDataError
from brainmu.sleep.circular import PHASE_COLUMNS, locking
from brainmu.sleep.frames import decimated
from brainmu.sleep.sites import brain_signal, is_rodent, mask_of, scoring_of

__all__ = ["InfraslowSigma", "infraslow_sigma"]

Float = NDArray[np.float64]
STEP = 2.0
"""s between values of sigma power: a tenth of the fastest fluctuation looked for."""
FREQUENCIES = np.round(np.arange(0.005, 0.1001, 0.001), 3)
"""Hz, of the spectrum."""
SEGMENT = 300.0
"""s of the longest stretch that is transformed at once; longer bouts are cut into such stretches that overlap by half (Welch's method)."""
SEARCHED = (0.008, 0.05)
"""Hz, where a peak is looked for: Lecci et al. report about 0.02 in mice and people."""


@dataclass(frozen=True)
class InfraslowSigma:
    """The infraslow fluctuation of sigma power of one recording; see :func:`infraslow_sigma`.

    Attributes
    ----------
    summary : DataFrame
        One row a channel, and a row "mean" of all channels' mean where there are several: channel, peak_frequency_hz, period_s, peak_ratio (power at the peak
        over that of surrogates), p_value (of the highest ratio anywhere in 0.008-0.05 Hz, one-sided), depth_pct (amplitude of the fluctuation as a share of
        mean sigma power), bouts, minutes.
    spectrum : DataFrame
        channel, frequency_hz, power (variance of relative sigma power per Hz), surrogate (mean of surrogates), surrogate_95.
    series : DataFrame
        time_s, bout, sigma_pct (100 is the mean of NREM; mean of channels), phase_deg (0 is the crest of sigma power, ±180 its trough).
    """

    summary: pd.DataFrame
    spectrum: pd.DataFrame
    series: pd.DataFrame
    spans: Intervals = field(repr=False)

    def phase_at(self, times: ArrayLike) -> Float:
        """Phase (n,), degrees, of the fluctuation at each time (n,), s; NaN outside the bouts it was measured in."""
        t = np.asarray(times, dtype=np.float64)
        out = np.full(t.shape, np.nan)
        for _, part in self.series.groupby("bout"):
            at, wave = part["time_s"].to_numpy(), np.exp(1j * np.deg2rad(part["phase_deg"].to_numpy()))
            inside = (t >= at[0] - STEP / 2) & (t < at[-1] + STEP / 2)
            out[inside] = np.rad2deg(np.angle(np.interp(t[inside], at, wave.real) + 1j * np.interp(t[inside], at, wave.imag)))
        return out

    def coupling(self, events: EventTable, *, draws: int = 500, seed: int = 0) -> pd.DataFrame:
        """Whether the peaks of `events` keep to a phase: one row of n, mean_phase_deg, resultant, rayleigh_p, surrogate_resultant, p_value.

        `p_value` comes from shifting all events together along the joined bouts, which keeps their rhythms; `rayleigh_p` takes them as independent. Spindles
        are what sigma power is made of: that they lie on its crest is no finding.

        Raises
        ------
        MissingDataError
            If no event lies in the bouts.
        """
        return locking(self.phase_at, np.asarray(events.peak, dtype=np.float64), self.spans, draws=draws, seed=seed)[PHASE_COLUMNS]


def infraslow_sigma(
    recording: Recording, hypnogram: Hypnogram | None = None, *, channels: Sequence[str] | None = None, band: tuple[float, float] | None = None,
    shortest: float = 120.0, gap: float = 20.0, draws: int = 200, seed: int = 0,
) -> InfraslowSigma:  # fmt: skip
    """Measure the infraslow fluctuation of sigma power.

    Power in the band, every two seconds, relative to its mean, in bouts of NREM (N2 and N3 in people); the spectrum is the mean over
    stretches of at most five minutes, weighted by their length. The control is noise with the same short-term persistence and
    white share in bouts of the same lengths: sigma power drifts, and what drifts has power at low frequencies without any rhythm.

    Parameters
    ----------
    recording : Recording or Session
    hypnogram : Hypnogram or None
        None takes the recording's "scoring" or only hypnogram.
    channels : names or None
        As in :func:`brainmu.sleep.find_spindles`.
    band : Hz
        11-16 in people, 10-15 in rodents.
    shortest, gap : s
        Bouts of at least `shortest`; interruptions up to `gap`, such as micro-arousals, are bridged.
    draws : int
        Surrogates.
    seed : int

    Raises
    ------
    MissingDataError
        Without a hypnogram, without EEG or LFP, or with less than ten minutes of bouts that long.

    References
    ----------
    Lecci et al. 2017, Science Advances 3:e1602026; Allen & Smith 1996, J. Climate 9:3373 (red noise as the null of a spectral peak).

    Examples
    --------
    >>> import brainmu as bm
    >>> recording, truth = bm.synth.recording(hours=1, seed=2, species="human", n_channels=1)
    >>> found = bm.sleep.infraslow_sigma(recording, truth.hypnogram, draws=20)
    >>> list(found.summary.columns[:3])
    ['channel', 'peak_frequency_hz', 'period_s']
    """
    if draws < 20:
        raise InputError(f"infraslow sigma was asked for {draws} surrogates, expected at least 20")
    h = scoring_of(recording, hypnogram)
    if h is None:
        raise MissingDataError(f"{recording.id}: infraslow sigma is a matter of NREM bouts and there is no hypnogram: pass hypnogram=, or stage it first")
    low, high = band or ((10.0, 15.0) if is_rodent(recording) else (11.0, 16.0))
    signal = brain_signal(recording, channels, 2.2 * high, "infraslow sigma")
    bouts = _bouts(h, signal, shortest, gap)
    minutes = bouts.duration / 60
    if minutes < 10:
        raise MissingDataError(f"{recording.id}: {minutes:.1f} min of NREM bouts of {shortest:g} s or more with data, expected at least 10: lower `shortest`")
    level = _sigma_power(signal, low, high)
    known = _nrem_bins(h, signal, len(level))
    parts = _relative(level, known, bouts, signal.start, signal.names)
    names = [*signal.names, "mean"] if signal.n_channels > 1 else signal.names
    rows, spectra = [], []
    for c, name in enumerate(names):
        series = [p[:, c] if name != "mean" else p.mean(axis=1) for p in parts]
        row, spectrum = _measure(series, draws, np.random.default_rng([seed, c]))
        rows.append({"channel": name} | row | {"bouts": len(series), "minutes": minutes})
        spectra.append(spectrum.assign(channel=name)[["channel", *spectrum.columns]])
    middle = [p.mean(axis=1) for p in parts]
    around = float(rows[-1]["peak_frequency_hz"])
    table = pd.concat([
        pd.DataFrame({"time_s": _times(b, signal.start), "bout": k, "sigma_pct": 100 * x, "phase_deg": np.rad2deg(_phase(x, around))})
        for k, (b, x) in enumerate(zip(bouts.bounds, middle))
    ], ignore_index=True)  # fmt: skip
    return InfraslowSigma(pd.DataFrame(rows), pd.concat(spectra, ignore_index=True), table, bouts)


# -- sigma power ----------------------------------------------------------------------------------------------------
def _bouts(h: Hypnogram, signal: Signal, shortest: float, gap: float) -> Intervals:
    """Spans of NREM that count, on the grid of `STEP` from the signal's start."""
    nrem = h.mask("N2") | h.mask("N3") if h.stage_set == "aasm5" else h.mask("NREM")
    spans = Intervals.merge(Intervals.from_mask(nrem, 1.0 / h.epoch, h.start).subtract(h.intervals("REM")).bounds, gap)
    spans = spans.intersect(Intervals([[signal.start, signal.stop]])).subtract(signal.gaps)
    k = np.c_[np.ceil((spans.start - signal.start) / STEP - 1e-6), np.floor((spans.stop - signal.start) / STEP + 1e-6)] if len(spans) else np.empty((0, 2))
    bounds = signal.start + STEP * k[(k[:, 1] - k[:, 0]) * STEP >= shortest]
    return Intervals(bounds)


def _sigma_power(signal: Signal, low: float, high: float) -> Float:
    """Mean square envelope (bin, channel) of the band in bins of `STEP`; NaN where samples are missing."""
    rate = float(signal.rate or 0)
    q = max(1, int(rate // 64))
    slow = rate / q
    total = int(signal.n_samples / rate / STEP)
    out = np.full((total, signal.n_channels), np.nan)
    for first, last, lo, hi in overlapping_blocks(total, 300, 5):
        x = decimated(signal.read(round(lo * STEP * rate), round(hi * STEP * rate)), q)
        # A channel that is missing or flat over the whole block has no envelope.
        good = [c for c in range(x.shape[1]) if np.isfinite(x[:, c]).sum() > slow and np.nanstd(x[:, c]) > 0]
        if not good:
            continue
        power = envelope(x[:, good], slow, low, min(high, 0.48 * slow)).astype(np.float64) ** 2
        edges = np.minimum(np.round(np.arange(hi - lo + 1) * STEP * slow).astype(int), len(power))
        block = np.stack([power[a:b].mean(axis=0) if b > a else np.full(len(good), np.nan) for a, b in pairwise(edges)])
        out[first:last, good] = block[first - lo : last - lo]
    return out


def _nrem_bins(h: Hypnogram, signal: Signal, n: int) -> NDArray[np.bool_]:
    return mask_of(h.intervals("NREM"), signal.start, 1 / STEP, n)


def _relative(level: Float, known: NDArray[np.bool_], bouts: Intervals, start: float, names: list[str]) -> list[Float]:
    """Sigma power (bin, channel) of each bout over its mean in NREM; interruptions are bridged."""
    some = known[:, None] & np.isfinite(level)
    mean = np.where(some, level, 0.0).sum(axis=0) / np.maximum(some.sum(axis=0), 1)
    if not (mean > 0).all():
        raise MissingDataError(f"channel {names[int(np.argmin(mean))]} holds no sigma power in NREM: leave out flat or missing channels (channels=)")
    out = []
    for a, b in bouts.bounds:
        i, j = round((a - start) / STEP), round((b - start) / STEP)
        part = level[i:j] / mean
        part[~known[i:j]] = np.nan
        at = np.arange(len(part))
        for c in range(part.shape[1]):
            ok = np.isfinite(part[:, c])
            part[:, c] = np.interp(at, at[ok], part[ok, c]) if ok.any() else 1.0
        out.append(part)
    return out


def _times(bout: NDArray[np.float64], start: float) -> Float:
    n = round((bout[1] - bout[0]) / STEP)
    return bout[0] + (np.arange(n) + 0.5) * STEP


# -- spectrum and control -------------------------------------------------------------------------------------------
def _measure(series: list[Float], draws: int, rng: np.random.Generator) -> tuple[dict[str, float], pd.DataFrame]:
    cuts = [_cuts(len(x)) for x in series]
    basis = {n: _basis(n) for n in {b - a for c in cuts for a, b in c}}

    def spectrum_of(parts: list[Float]) -> Float:
        return _spectrum([x[a:b] for x, c in zip(parts, cuts) for a, b in c], basis)

    power = spectrum_of([(x - x.mean())[:, None] for x in series])[:, 0]
    lengths = [b - a for c in cuts for a, b in c]
    variance, share, persistence = _background(power, lengths, basis)
    null = spectrum_of([np.sqrt(variance) * _red_noise(len(x), draws, share, persistence, rng) for x in series])
    expected = null.mean(axis=1)
    here = (SEARCHED[0] <= FREQUENCIES) & (SEARCHED[1] >= FREQUENCIES)
    ratio, ratios = power / expected, null / expected[:, None]
    top = int(np.flatnonzero(here)[np.argmax(ratio[here])])
    p = (1 + int((ratios[here].max(axis=0) >= ratio[top]).sum())) / (draws + 1)
    near = np.abs(FREQUENCIES - FREQUENCIES[top]) <= 0.005
    excess = float(np.clip(power - expected, 0, None)[near].sum() * 0.001)
    frequency = _vertex(ratio, top)
    row = {"peak_frequency_hz": frequency, "period_s": 1 / frequency, "peak_ratio": float(ratio[top]), "p_value": p, "depth_pct": 100 * np.sqrt(2 * excess)}
    return row, pd.DataFrame({"frequency_hz": FREQUENCIES, "power": power, "surrogate": expected, "surrogate_95": np.quantile(null, 0.95, axis=1)})


def _cuts(n: int) -> list[tuple[int, int]]:
    """First and last of the stretches that `n` values are cut into."""
    longest = round(SEGMENT / STEP)
    if n <= longest:
        return [(0, n)]
    count = int(np.ceil((n - longest) / (longest / 2))) + 1
    return [(int(a), int(a) + longest) for a in np.round(np.linspace(0, n - longest, count))]


def _basis(n: int) -> NDArray[np.complex128]:
    """Rows that take the tapered, detrended transform of `n` values at `FREQUENCIES`."""
    t = np.arange(n) * STEP
    taper = np.hanning(n + 2)[1:-1]
    line = np.stack([np.ones(n), t - t.mean()], axis=1)
    detrend = np.eye(n) - line @ np.linalg.pinv(line)
    return (np.exp(-2j * np.pi * FREQUENCIES[:, None] * t) * taper * np.sqrt(2 * STEP / (taper**2).sum())) @ detrend


def _spectrum(parts: list[Float], basis: dict[int, NDArray[np.complex128]]) -> Float:
    """One-sided density (frequency, draw) of parts (time, draw), averaged with their lengths as weights."""
    weights = np.array([len(x) for x in parts], dtype=float)
    return sum(w * np.abs(basis[len(x)] @ x) ** 2 for w, x in zip(weights, parts)) / weights.sum()


def _background(power: Float, lengths: list[int], basis: dict[int, NDArray[np.complex128]]) -> tuple[float, float, float]:
    """Variance, the share of it that persists, and its correlation from step to step, of the noise that makes `power` (frequency,) likeliest (Whittle).

    Densities are what the same transforms expect of such noise, so that short stretches and detrending do not make it look less persistent than it is. The
    fluctuation itself is among what is fitted: the test errs on the side of finding none.
    """
    weight = {n: n * lengths.count(n) / sum(lengths) for n in basis}
    best, found = np.inf, (1.0, 0.0, 0.0)
    shares = np.linspace(0, 1, 41)[:, None]
    white = sum(w * (np.abs(basis[n]) ** 2).sum(axis=1) for n, w in weight.items())
    for phi in 1 - np.geomspace(0.5, 0.005, 20):
        red = sum(w * np.einsum("fi,ij,fj->f", basis[n], phi ** np.abs(np.subtract.outer(np.arange(n), np.arange(n))), basis[n].conj(), optimize=True).real
                  for n, w in weight.items())  # fmt: skip
        shape = shares * red + (1 - shares) * white
        variance = (power / shape).mean(axis=1)
        loss = np.log(variance[:, None] * shape).sum(axis=1)
        k = int(np.argmin(loss))
        if loss[k] < best:
            best, found = float(loss[k]), (float(variance[k]), float(shares[k, 0]), float(phi))
    return found


def _red_noise(n: int, draws: int, share: float, phi: float, rng: np.random.Generator) -> Float:
    """Noise (n, draws) of unit variance: a first-order autoregression with `share` of the variance, and white noise."""
    from scipy.signal import lfilter

    drive = rng.standard_normal((n, draws)) * np.sqrt(1 - phi**2)
    drive[0] /= np.sqrt(1 - phi**2)
    return np.sqrt(share) * lfilter([1.0], [1.0, -phi], drive, axis=0) + np.sqrt(1 - share) * rng.standard_normal((n, draws))


def _vertex(values: Float, top: int) -> float:
    """Frequency of a peak, Hz, from the parabola through it and its neighbours."""
    a, b, c = np.log(values[max(top - 1, 0)]), np.log(values[top]), np.log(values[min(top + 1, len(values) - 1)])
    bend = a - 2 * b + c
    return float(FREQUENCIES[top] + 0.001 * (np.clip(0.5 * (a - c) / bend, -0.5, 0.5) if bend < 0 else 0.0))


def _phase(x: Float, around: float) -> Float:
    """Phase (time,), rad, of the fluctuation within half an octave of `around` Hz either way; the series is mirrored at its ends."""
    y = np.r_[x[::-1], x, x[::-1]] - x.mean()
    f = np.abs(np.fft.fftfreq(len(y), STEP))
    with np.errstate(divide="ignore"):
        gain = np.where(f > 0, np.exp(-0.5 * (np.log2(np.maximum(f, 1e-9) / around) / 0.5) ** 2), 0.0)
    analytic = np.fft.ifft(np.fft.fft(y) * gain * 2 * (np.fft.fftfreq(len(y), STEP) > 0))
    return np.angle(analytic[len(x) : 2 * len(x)])
