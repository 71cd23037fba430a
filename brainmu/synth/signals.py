"""LFP and EMG of a rodent by stage: an aperiodic background, theta, delta, gamma, spindles, slow waves, ripples and artefacts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from brainmu.core import EventTable, Signal
from brainmu.core.limits import check_model
from brainmu.synth.decoys import Decoys
from brainmu.synth.effects import ornstein_uhlenbeck
from brainmu.synth.instruments import Faults
from brainmu.synth.noise import BLOCK, BlockNoise, Streamed, aperiodic, band, lookup
from brainmu.synth.reactivation import Microstructure
from brainmu.synth.regions import Layout, coherence, layout

__all__ = ["Drivers", "LFPModel", "drivers", "emg_signal", "lfp_signal", "ripple_background"]

ENVELOPE_RATE = 4.0
"""Rate of the slow envelopes, Hz."""
_PHASE_RATE = 20.0

# Amplitude of each component by state, uV in CA1: SD for noises, amplitude for theta. Active and quiet waking blend with activity.
_STATES = ("active", "quiet", "NREM", "REM")
_AMPLITUDES = {
    "background": (62.0, 62.0, 75.0, 55.0),
    "flat": (40.0, 36.0, 28.0, 38.0),
    "delta": (30.0, 50.0, 130.0, 42.0),
    "theta": (125.0, 25.0, 14.0, 125.0),
    "gamma": (17.0, 12.0, 9.0, 18.0),
    "emg": (95.0, 27.0, 11.0, 5.0),
}
_TAILS = 5.0  # SDs of a Gaussian that are drawn on either side
_BURSTS = {"twitch": 45.0, "movement": 250.0, "emg": 500.0}  # peak on the EMG, uV
_FLAT = (1.5, 8.0)  # slope and knee (Hz) of the flatter background that arousal adds: spectra steepen in NREM


@dataclass(frozen=True)
class LFPModel:
    """Size of the signals.

    Parameters
    ----------
    gain : float
        Factor on every voltage of the LFP.
    theta_frequency : float, Hz
        Theta at rest and in REM; running adds up to 1 Hz.
    hum, hum_frequency : float, uV and Hz
        Amplitude and frequency (50 or 60) of the mains.
    hum_harmonics : float
        Amplitude of its third harmonic over that of the first; the second has 0.4 and the fifth 0.5 of that. An assumption.
    hum_wander : float
        SD of the logarithm of its amplitude, which wanders over 20 s.
    floor : float, uV²/Hz
        White noise of the amplifier.
    movement : float, 1/s
        Movement artefacts in active waking, on every channel.
    emg_burst_rate : float, 1/s
        Muscle bursts of about a second (chewing, grooming) in active waking: on the EMG, and by `emg_leak` on the LFP.
    emg_gain : float
        Factor on the EMG.
    emg_leak : float
        Share of the EMG that reaches the LFP channels.
    coherence_length : float, mm
        The coherence of the noises of two places is exp(-distance / length) at low frequencies; the length is halved at 25 Hz. Slow
        oscillations cohere over millimetres, fast ones are local [1]_, [2]_; the size is an assumption. 0: every channel's own background and
        the regions' rhythms are independent.

    References
    ----------
    .. [1] Destexhe A, Contreras D, Steriade M (1999). Spatiotemporal analysis of local field potentials and unit discharges in cat cerebral
       cortex during natural wake and sleep states. J Neurosci 19:4595.
    .. [2] Kajikawa Y, Schroeder CE (2011). How local is the local field potential? Neuron 72:847.
    """

    gain: float = 1.0
    theta_frequency: float = 7.2
    hum: float = 2.0
    hum_frequency: float = 50.0
    hum_harmonics: float = 0.0
    hum_wander: float = 0.0
    floor: float = 0.03
    movement: float = 1 / 150
    emg_burst_rate: float = 0.0
    emg_gain: float = 1.0
    emg_leak: float = 0.02
    coherence_length: float = 2.0

    def __post_init__(self) -> None:
        check_model(self, positive=("gain", "theta_frequency", "emg_gain", "hum_frequency"))


def ripple_background(model: LFPModel, low: float = 150.0, high: float = 250.0) -> float:
    """SD (uV) of the background in the ripple band in NREM, before any ripple."""
    f = np.arange(0.0, 625.0, 0.25)
    density = aperiodic(f, _AMPLITUDES["background"][2], floor=model.floor) + aperiodic(f, _AMPLITUDES["flat"][2], *_FLAT, floor=0.0)
    return float(np.sqrt(density[(f >= low) & (f < high)].sum() * 0.25)) * model.gain


@dataclass
class Drivers:
    """Slow causes of the signals on a common grid.

    Attributes
    ----------
    time : float64 (n,), s
    activity : float64 (n,)
        0 still to 1 active; 0 in sleep.
    weights : float64 (n, 4)
        Share of active wake, quiet wake, NREM and REM, smoothed over about a second.
    age : float64 (n,), s
        Time since the bout began.
    phase_start : float, s
    phase : float64 (m,), rad
        Unwrapped theta phase, 20 Hz from `phase_start`.
    bursts : EventTable
        Muscle twitches in REM, movement artefacts and muscle bursts (kind twitch, movement, emg).
    delta_gain : float64 (n,) or 1.0
        Factor on delta by the need for sleep.
    """

    time: NDArray[np.float64]
    activity: NDArray[np.float64]
    weights: NDArray[np.float64]
    age: NDArray[np.float64]
    phase_start: float
    phase: NDArray[np.float64]
    bursts: EventTable = field(repr=False)
    delta_gain: NDArray[np.float64] | float = 1.0

    def theta_phase(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """Unwrapped theta phase (n,), rad, at `t` (n,), s."""
        return lookup(self.phase, (t - self.phase_start) * _PHASE_RATE)

    def envelope(self, name: str) -> NDArray[np.float64]:
        """Amplitude (n,) of a component on the grid."""
        return self.weights @ np.array(_AMPLITUDES[name])


def drivers(
    bouts: pd.DataFrame, start: float, stop: float, speed: tuple[NDArray[np.float64], NDArray[np.float64]] | None, model: LFPModel, rng: np.random.Generator
) -> Drivers:
    """Envelopes, theta phase and bursts for a whole recording; `speed` is (time, m/s) while on a track."""
    n = int(np.ceil((stop - start) * ENVELOPE_RATE)) + 2
    time = start + np.arange(n) / ENVELOPE_RATE
    k = np.clip(np.searchsorted(bouts["start"].to_numpy(), time, side="right") - 1, 0, None)
    stage = bouts["stage"].to_numpy().astype(str)[k]
    age = time - bouts["start"].to_numpy()[k]
    wake = (stage == "WAKE") | (stage == "W")
    activity = 1 / (1 + np.exp(-1.8 * (ornstein_uhlenbeck(rng, n, 15.0, 1 / ENVELOPE_RATE) - 0.1)))
    activity = np.where(age < 3.0, np.maximum(activity, 0.7), activity) * wake
    if speed is not None and len(speed[0]):
        on = (time >= speed[0][0]) & (time <= speed[0][-1])
        activity[on] = np.clip(np.abs(np.interp(time[on], *speed)) / 0.25, 0.05, 1.0)
    weights = np.c_[activity, wake * (1 - activity), stage == "NREM", stage == "REM"].astype(np.float64)
    weights = gaussian_filter1d(weights, 0.5 * ENVELOPE_RATE, axis=0, mode="nearest")
    m = int(np.ceil((stop - start) * _PHASE_RATE)) + 2
    moments = start + np.arange(m) / _PHASE_RATE
    frequency = model.theta_frequency + 0.35 * ornstein_uhlenbeck(rng, m, 1.0, 1 / _PHASE_RATE) + np.interp(moments, time, weights[:, 0])
    phase = np.r_[0.0, np.cumsum(2 * np.pi * frequency / _PHASE_RATE)[:-1]] + rng.uniform(0, 2 * np.pi)
    return Drivers(time, activity, weights, age, start, phase, _bursts(time, weights, model, rng))


def _bursts(time: NDArray[np.float64], weights: NDArray[np.float64], model: LFPModel, rng: np.random.Generator) -> EventTable:
    tables = []
    for kind, rate, column, length in (("twitch", 0.08, 3, 0.12), ("movement", model.movement, 0, 0.5), ("emg", model.emg_burst_rate, 0, 1.2)):
        hit = np.flatnonzero(rng.random(len(time)) < rate * weights[:, column] / ENVELOPE_RATE)
        start = time[hit] + rng.random(len(hit)) / ENVELOPE_RATE
        span = length * np.exp(0.4 * rng.standard_normal(len(hit)))
        size = np.exp(0.5 * rng.standard_normal(len(hit))) * np.where(rng.random(len(hit)) < 0.5, 1, -1)
        tables.append(EventTable(start, start + span, kind=kind, amplitude=size))
    return EventTable.concat(tables).sorted()


class _LFP:
    """Renders one block of all LFP channels."""

    def __init__(
        self, rate: float, start: float, d: Drivers, events: Microstructure, decoys: Decoys, lay: Layout, model: LFPModel, faults: Faults,
        seed: tuple[int, ...], stimulation: EventTable | None = None,
    ) -> None:  # fmt: skip
        self.rate, self.start, self.d, self.events, self.decoys, self.layout, self.model, self.faults = rate, start, d, events, decoys, lay, model, faults
        self.seed, self.sources = seed, lay.sources()
        self.weights = np.c_[lay.weights(model.emg_leak), np.ones((len(lay.gain), 1 + decoys.nuisance), dtype=np.float32)]
        self.noise = BlockNoise(self._spectra, rate, seed, coherence(lay, model.coherence_length, extra=int(decoys.nuisance)))
        self.envelopes = {k: d.envelope(k).astype(np.float32) for k in ("background", "flat", "delta", "theta", "gamma", "emg")}
        rng = np.random.default_rng(np.random.SeedSequence([*seed, 3]))
        for name, tau in (("theta", 1.0), ("delta", 6.0), ("background", 20.0)):
            self.envelopes[name] *= np.exp(0.2 * ornstein_uhlenbeck(rng, len(d.time), tau, 1 / ENVELOPE_RATE)).astype(np.float32)
        # Slow waves deepen as a bout ages; the first seconds of NREM look like drowsiness.
        self.envelopes["delta"] *= ((1.0 - 0.45 * d.weights[:, 2] * np.exp(-d.age / 25.0)) * d.delta_gain).astype(np.float32)
        self.envelopes["hum"] = np.full(len(d.time), model.hum if rate > 110 else 0.0, dtype=np.float32)
        if model.hum_wander:
            child = np.random.default_rng(np.random.SeedSequence([*seed, 5]))
            self.envelopes["hum"] *= np.exp(model.hum_wander * ornstein_uhlenbeck(child, len(d.time), 20.0, 1 / ENVELOPE_RATE)).astype(np.float32)
        self.mains = np.random.default_rng(np.random.SeedSequence([*seed, 8])).uniform()  # cycles at the start
        self.stimulation = EventTable([], [], amplitude=[]) if stimulation is None else stimulation[stimulation.amplitude > 0]
        self.movements = d.bursts[d.bursts.kind == "movement"]
        self.chewing = d.bursts[d.bursts.kind == "emg"]

    def _spectra(self, f: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sources: a steep background a channel; then a flatter one, delta and gamma shared within each region; leaked EMG; the nuisance."""
        steep, flat = aperiodic(f, 1.0, floor=0.0), aperiodic(f, 1.0, *_FLAT, floor=0.0)
        gamma = band(f, 32.0, min(85.0, 0.4 * self.rate)) if self.rate > 100 else np.zeros(len(f))
        emg = band(f, 40.0, 0.45 * self.rate, edge=0.2) if self.rate > 120 else np.zeros(len(f))
        shared = {"flat": flat, "delta": band(f, 0.7, 4.0, edge=1.4), "gamma": gamma, "emg": emg}
        columns = [steep] * len(self.layout.gain) + [shared[c] for c, _ in self.sources]
        return np.stack([*columns, self.decoys.density(f)] if self.decoys.nuisance else columns, axis=1)

    def __call__(self, k: int) -> NDArray[np.float32]:
        lay, model, n = self.layout, self.model, len(self.layout.gain)
        t = self.start + (k * BLOCK + np.arange(BLOCK)) / self.rate
        x = self.noise.block(k)
        e = {name: np.interp(t, self.d.time, v).astype(np.float32) for name, v in self.envelopes.items()}
        wave = np.remainder(self.d.theta_phase(t), 2 * np.pi).astype(np.float32)
        c, s = np.cos(wave), np.sin(wave)
        e["gamma"] *= 1 + 0.5 * np.clip(e["theta"] / 120, 0, 1) * (c * np.float32(0.54) + s * np.float32(0.84))
        _add_bursts(e["emg"], self.chewing, t)
        shared = x[n : n + len(self.sources)]
        for row, (component, _) in zip(shared, self.sources):
            row *= e[component]
        theta = e["theta"] * np.stack([c, s, c * c - s * s, 2 * s * c])
        rows = [shared, theta, (e["hum"] * self._mains(t))[None]]
        if self.decoys.nuisance:
            rows.append(x[n + len(self.sources) :] * self.decoys.power(t).astype(np.float32))
        out = x[:n]
        out *= e["background"]
        out += self.weights @ np.concatenate(rows)
        out = np.ascontiguousarray(out.T)
        for add in (self._slow_waves, self._spindles, self._ripples, self._movement, self._stimulated):
            add(out, t)
        self.decoys.add(out, t, np.where(np.array(lay.region) == "CA1", lay.ripple, np.float32(0)))
        out *= lay.gain * np.float32(model.gain)
        rng = np.random.default_rng(np.random.SeedSequence([*self.seed, 4, k]))
        floor = rng.standard_normal(out.shape, dtype=np.float32) * np.float32(np.sqrt(model.floor * self.rate / 2))
        out += floor
        self.faults.apply(out, t, floor)
        return out

    def _mains(self, t: NDArray[np.float64]) -> NDArray[np.float32]:
        """Mains of unit amplitude; harmonics that do not fit below the Nyquist rate are left out, as an anti-alias filter would."""
        cycle, base = np.remainder(self.model.hum_frequency * t + self.mains, 1.0), self.model.hum_frequency
        out = np.sin(2 * np.pi * cycle)
        for order, size in ((2, 0.4), (3, 1.0), (5, 0.5)):
            if self.model.hum_harmonics and order * base < 0.45 * self.rate:
                out += self.model.hum_harmonics * size * np.sin(2 * np.pi * order * cycle + order)
        return out.astype(np.float32)

    def _around(self, table: EventTable, t: NDArray[np.float64], reach: NDArray[np.float64] | float) -> list[tuple[int, slice, NDArray[np.float64]]]:
        """Events that touch the block: row, the samples within `reach` s (one, or one an event) of the event's middle, and their time from it.

        The reach must take in the tails of what is drawn: where a Gaussian is cut off while it still has a size, the trace steps.
        """
        middle = 0.5 * (table.start + table.stop)
        begin, end = middle - reach, middle + reach
        near = np.flatnonzero((end > t[0]) & (begin < t[-1]))
        first, last = np.searchsorted(t, begin[near]), np.searchsorted(t, end[near])
        return [(int(i), slice(a, b), t[a:b] - middle[i]) for i, a, b in zip(near, first.tolist(), last.tolist())]

    def _slow_waves(self, out: NDArray[np.float32], t: NDArray[np.float64]) -> None:
        size = self.events.slow_waves.amplitude
        for i, s, x in self._around(self.events.slow_waves, t, 0.22 + _TAILS * 0.10):
            # The down state: a positive deflection at depth, followed by a smaller rebound.
            wave = np.exp(-0.5 * (x / 0.075) ** 2) - 0.45 * np.exp(-0.5 * ((x - 0.22) / 0.10) ** 2)
            out[s] += (size[i] * wave).astype(np.float32)[:, None] * self.layout.slow

    def _spindles(self, out: NDArray[np.float32], t: NDArray[np.float64]) -> None:
        table = self.events.spindles
        length, frequency, amplitude = table.duration, table.frequency, table.amplitude
        for i, s, x in self._around(table, t, _TAILS * 0.3 * length):
            wave = np.exp(-0.5 * (x / (0.3 * length[i])) ** 2) * np.sin(2 * np.pi * frequency[i] * (x - 0.06 * x * np.abs(x) / length[i]))
            out[s] += (amplitude[i] * wave).astype(np.float32)[:, None] * self.layout.spindle

    def _ripples(self, out: NDArray[np.float32], t: NDArray[np.float64]) -> None:
        table = self.events.ripples
        length, frequency, amplitude = table.duration, table.frequency, table.amplitude
        width = 0.35 * length + 0.012
        # Any phase at the peak of the envelope, in cycles: the last digits of the time are as good as a draw.
        phase = np.remainder(9973.0 * table.start, 1.0)
        for i, s, x in self._around(table, t, _TAILS * width):
            sharp = -1.1 * amplitude[i] * np.exp(-0.5 * (x / width[i]) ** 2)
            out[s] += sharp.astype(np.float32)[:, None] * self.layout.sharp
            if frequency[i] < 0.42 * self.rate:
                # Flat-topped: the envelope stays above half its peak over most of the event.
                shape = np.exp(-0.5 * (x / (0.36 * length[i])) ** 4)
                wave = amplitude[i] * shape * np.cos(2 * np.pi * (frequency[i] * (x - 0.12 * x * np.abs(x) / length[i]) + phase[i]))
                out[s] += wave.astype(np.float32)[:, None] * self.layout.ripple

    def _movement(self, out: NDArray[np.float32], t: NDArray[np.float64]) -> None:
        length, amplitude = self.movements.duration, self.movements.amplitude if len(self.movements) else np.empty(0)
        for i, s, x in self._around(self.movements, t, _TAILS * 0.3 * length):
            wave = 500 * amplitude[i] * np.exp(-0.5 * (x / (0.3 * length[i])) ** 2) * np.cos(2 * np.pi * 1.3 * x / length[i])
            out[s] += wave.astype(np.float32)[:, None]

    def _stimulated(self, out: NDArray[np.float32], t: NDArray[np.float64]) -> None:
        """The artefact of each stimulation, alike on all channels: a jump that lasts as long as the pulse and swings back below zero within 20 ms."""
        table = self.stimulation
        for i, s, x in self._around(table, t, 0.5 * table.duration + 0.3):
            since = x + 0.5 * (table.stop[i] - table.start[i])
            over = since - (table.stop[i] - table.start[i])
            wave = np.where(since < 0, 0.0, np.where(over < 0, 1.0, -0.3 * np.exp(-np.maximum(over, 0) / 0.02)))
            out[s] += (table.amplitude[i] * wave).astype(np.float32)[:, None]


def lfp_signal(
    rate: float,
    start: float,
    stop: float,
    d: Drivers,
    events: Microstructure,
    model: LFPModel,
    faults: Faults,
    decoys: Decoys | None = None,
    *,
    n_channels: int,
    n_cortex: int,
    n_amygdala: int = 0,
    seed: tuple[int, ...],
    stimulation: EventTable | None = None,
) -> Signal:
    """The LFP of CA1 (`n_channels`, pyramidal layer first), cortex (`n_cortex`) and BLA (`n_amygdala`) as a lazy Signal.

    The channel table holds each channel's place x, y, z in um from the top of CA1's shank (posterior, lateral, down).
    """
    lay = layout(n_channels, n_cortex, n_amygdala, np.random.default_rng(np.random.SeedSequence([*seed, 1])))
    names = [f"{region}_{i + 1}" for region, n in (("CA1", n_channels), ("CTX", n_cortex), ("BLA", n_amygdala)) for i in range(n)]
    channels = pd.DataFrame({"name": names, "kind": "lfp", "region": lay.region, **dict(zip("xyz", np.round(1000 * lay.place.T, 3)))})
    render = _LFP(rate, start, d, events, decoys or Decoys(), lay, model, faults, (*seed, 2), stimulation)
    values = Streamed((int(np.floor((stop - start) * rate + 1e-6)), len(names)), render)
    return Signal(values, rate=rate, start=start, unit="uV", kind="lfp", channels=channels, gaps=faults.gaps)


def _add_bursts(size: NDArray[np.floating], bursts: EventTable, t: NDArray[np.float64]) -> None:
    """Add to `size` (n,), uV, the envelopes of twitches, movements and muscle bursts at `t` (n,), s."""
    for i in np.flatnonzero((bursts.stop > t[0]) & (bursts.start < t[-1])):
        a, b = np.searchsorted(t, [bursts.start[i], bursts.stop[i]])
        shape = np.sin(np.pi * (t[a:b] - bursts.start[i]) / (bursts.stop[i] - bursts.start[i])) ** 2
        size[a:b] += (_BURSTS[bursts.kind[i]] * abs(bursts.amplitude[i]) * shape).astype(size.dtype)


class _EMG:
    def __init__(self, rate: float, start: float, d: Drivers, model: LFPModel, seed: tuple[int, ...]) -> None:
        self.rate, self.start, self.d, self.model = rate, start, d, model
        self.envelope = d.envelope("emg") * np.exp(0.35 * ornstein_uhlenbeck(np.random.default_rng(np.random.SeedSequence([*seed, 7])), len(d.time), 2.0, 0.25))
        self.noise = BlockNoise(self._spectra, rate, seed)

    def _spectra(self, f: NDArray[np.float64]) -> NDArray[np.float64]:
        muscle = band(f, min(25.0, 0.1 * self.rate), min(300.0, 0.45 * self.rate), edge=0.3)
        return np.stack([muscle, aperiodic(f, 3.0, slope=1.5, floor=0.02)], axis=1)

    def __call__(self, k: int) -> NDArray[np.float32]:
        t = self.start + (k * BLOCK + np.arange(BLOCK)) / self.rate
        x = self.noise.block(k)
        size = np.interp(t, self.d.time, self.envelope)
        _add_bursts(size, self.d.bursts, t)
        return (self.model.emg_gain * (x[0] * size + x[1])).astype(np.float32)[:, None]


def emg_signal(rate: float, start: float, stop: float, d: Drivers, model: LFPModel, seed: tuple[int, ...]) -> Signal:
    """The raw (not rectified) EMG of the neck as a lazy Signal."""
    values = Streamed((int(np.floor((stop - start) * rate + 1e-6)), 1), _EMG(rate, start, d, model, seed))
    return Signal(values, rate=rate, start=start, unit="uV", kind="emg", channels=["EMG"])
