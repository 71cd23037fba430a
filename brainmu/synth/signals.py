"""LFP and EMG of a rodent by stage: an aperiodic background, theta, delta, gamma, spindles, slow waves, ripples and artefacts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from brainmu.core import EventTable, Signal
from brainmu.synth.effects import ornstein_uhlenbeck
from brainmu.synth.instruments import Faults
from brainmu.synth.limits import check_model
from brainmu.synth.noise import BLOCK, BlockNoise, Streamed, aperiodic, band, lookup
from brainmu.synth.reactivation import Microstructure

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
    hum : float, uV
        Amplitude of 50-Hz mains.
    floor : float, uV²/Hz
        White noise of the amplifier.
    movement : float, 1/s
        Movement artefacts in active waking, on every channel.
    emg_gain : float
        Factor on the EMG.
    emg_leak : float
        Share of the EMG that reaches the LFP channels.
    """

    gain: float = 1.0
    theta_frequency: float = 7.2
    hum: float = 2.0
    floor: float = 0.03
    movement: float = 1 / 150
    emg_gain: float = 1.0
    emg_leak: float = 0.02

    def __post_init__(self) -> None:
        check_model(self, positive=("gain", "theta_frequency", "emg_gain"))


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
        Muscle twitches in REM and movement artefacts (kind twitch, movement).
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
    for kind, rate, column, length in (("twitch", 0.08, 3, 0.12), ("movement", model.movement, 0, 0.5)):
        hit = np.flatnonzero(rng.random(len(time)) < rate * weights[:, column] / ENVELOPE_RATE)
        start = time[hit] + rng.random(len(hit)) / ENVELOPE_RATE
        span = length * np.exp(0.4 * rng.standard_normal(len(hit)))
        size = np.exp(0.5 * rng.standard_normal(len(hit))) * np.where(rng.random(len(hit)) < 0.5, 1, -1)
        tables.append(EventTable(start, start + span, kind=kind, amplitude=size))
    return EventTable.concat(tables).sorted()


@dataclass
class _Layout:
    """Where each channel lies: its share of every source."""

    region: list[str]
    gain: NDArray[np.float32]
    theta_gain: NDArray[np.float32]
    theta_shift: NDArray[np.float32]
    ripple: NDArray[np.float32]
    sharp: NDArray[np.float32]
    slow: NDArray[np.float32]
    spindle: NDArray[np.float32]
    delta: NDArray[np.float32]
    gamma: NDArray[np.float32]


def _layout(n_channels: int, n_cortex: int, rng: np.random.Generator) -> _Layout:
    """CA1 channels span the pyramidal layer to stratum radiatum; cortical ones hold slow waves and spindles."""
    n = n_channels + n_cortex
    ca1 = np.arange(n) < n_channels
    depth = np.where(ca1, np.arange(n) / max(n_channels - 1, 1), 0.0)
    f = np.float32
    wobble = np.exp(0.08 * rng.standard_normal(n))
    return _Layout(
        region=["CA1"] * n_channels + ["CTX"] * n_cortex, gain=(np.where(ca1, 1.0, 0.75) * wobble).astype(f),
        theta_gain=np.where(ca1, 0.75 + 0.5 * depth, 0.2).astype(f), theta_shift=np.where(ca1, 0.9 * depth, 0.3).astype(f),
        ripple=np.where(ca1, 1.0 - 0.55 * depth, 0.03).astype(f), sharp=np.where(ca1, 0.4 - 2.2 * depth, 0.1).astype(f),
        slow=np.where(ca1, 70.0, 170.0).astype(f), spindle=np.where(ca1, 25.0, 120.0).astype(f), delta=np.where(ca1, 1.0, 0.75).astype(f),
        gamma=np.where(ca1, 1.0, 0.7).astype(f),
    )  # fmt: skip


class _LFP:
    """Renders one block of all LFP channels."""

    def __init__(
        self, rate: float, start: float, d: Drivers, events: Microstructure, layout: _Layout, model: LFPModel, faults: Faults, seed: tuple[int, ...]
    ) -> None:
        self.rate, self.start, self.d, self.events, self.layout, self.model, self.faults = rate, start, d, events, layout, model, faults
        self.seed, self.weights = seed, self._weights()
        self.noise = BlockNoise(self._spectra, rate, seed)
        self.envelopes = {k: d.envelope(k).astype(np.float32) for k in ("background", "flat", "delta", "theta", "gamma", "emg")}
        rng = np.random.default_rng(np.random.SeedSequence([*seed, 3]))
        for name, tau in (("theta", 1.0), ("delta", 6.0), ("background", 20.0)):
            self.envelopes[name] *= np.exp(0.2 * ornstein_uhlenbeck(rng, len(d.time), tau, 1 / ENVELOPE_RATE)).astype(np.float32)
        # Slow waves deepen as a bout ages; the first seconds of NREM look like drowsiness.
        self.envelopes["delta"] *= ((1.0 - 0.45 * d.weights[:, 2] * np.exp(-d.age / 25.0)) * d.delta_gain).astype(np.float32)
        self.movements = d.bursts[d.bursts.kind == "movement"]

    def _spectra(self, f: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sources: one steep background a channel; then a flatter background, delta and gamma shared within CA1 and within the cortex; leaked EMG."""
        steep, flat = aperiodic(f, 1.0, floor=0.0), aperiodic(f, 1.0, *_FLAT, floor=0.0)
        delta, gamma = band(f, 0.7, 4.0, edge=1.4), band(f, 32.0, min(85.0, 0.4 * self.rate)) if self.rate > 100 else np.zeros(len(f))
        emg = band(f, 40.0, 0.45 * self.rate, edge=0.2) if self.rate > 120 else np.zeros(len(f))
        return np.stack([steep] * len(self.layout.gain) + [flat] * 2 + [delta] * 2 + [gamma] * 2 + [emg], axis=1)

    def __call__(self, k: int) -> NDArray[np.float32]:
        lay, model, n = self.layout, self.model, len(self.layout.gain)
        t = self.start + (k * BLOCK + np.arange(BLOCK)) / self.rate
        x = self.noise.block(k)
        e = {name: np.interp(t, self.d.time, v).astype(np.float32) for name, v in self.envelopes.items()}
        wave = np.remainder(self.d.theta_phase(t), 2 * np.pi).astype(np.float32)
        c, s = np.cos(wave), np.sin(wave)
        # Sources that several channels share: backgrounds, delta and gamma of both regions, theta and its harmonic, EMG, mains.
        shared = x[n:]
        shared[0:2] *= e["flat"]
        shared[2:4] *= e["delta"]
        shared[4:6] *= e["gamma"] * (1 + 0.5 * np.clip(e["theta"] / 120, 0, 1) * (c * np.float32(0.54) + s * np.float32(0.84)))
        shared[6] *= e["emg"]
        theta = e["theta"] * np.stack([c, s, c * c - s * s, 2 * s * c])
        hum = np.sin(2 * np.pi * np.remainder(50.0 * t, 1.0)).astype(np.float32) * np.float32(model.hum if self.rate > 110 else 0.0)
        out = x[:n]
        out *= e["background"]
        out += self.weights @ np.concatenate([shared, theta, hum[None]])
        out = np.ascontiguousarray(out.T)
        for add in (self._slow_waves, self._spindles, self._ripples, self._movement):
            add(out, t)
        out *= lay.gain * np.float32(model.gain)
        rng = np.random.default_rng(np.random.SeedSequence([*self.seed, 4, k]))
        floor = rng.standard_normal(out.shape, dtype=np.float32) * np.float32(np.sqrt(model.floor * self.rate / 2))
        out += floor
        self.faults.apply(out, t, floor)
        return out

    def _weights(self) -> NDArray[np.float32]:
        """Weight (channel, source) of every shared source."""
        lay = self.layout
        cortex = np.array([r == "CTX" for r in lay.region])
        of = [~cortex, cortex]
        shift, gain = lay.theta_shift, lay.theta_gain
        columns = [1.0 * r for r in of] + [lay.delta * r for r in of] + [lay.gamma * r for r in of]
        columns += [np.full(len(gain), self.model.emg_leak)]
        columns += [gain * np.cos(shift), -gain * np.sin(shift), 0.22 * gain * np.cos(2 * shift + 0.8), -0.22 * gain * np.sin(2 * shift + 0.8)]
        return np.stack([*columns, np.ones(len(gain))], axis=1).astype(np.float32)

    def _around(self, table: EventTable, t: NDArray[np.float64], pad: float) -> list[tuple[int, slice, NDArray[np.float64]]]:
        """Events that touch the block: row, the samples within `pad` s of the event, and their time from its middle."""
        start, stop = table.start, table.stop
        near = np.flatnonzero((stop + pad > t[0]) & (start - pad < t[-1]))
        first, last = np.searchsorted(t, start[near] - pad), np.searchsorted(t, stop[near] + pad)
        return [(int(i), slice(a, b), t[a:b] - 0.5 * (start[i] + stop[i])) for i, a, b in zip(near, first.tolist(), last.tolist())]

    def _slow_waves(self, out: NDArray[np.float32], t: NDArray[np.float64]) -> None:
        size = self.events.slow_waves.amplitude
        for i, s, x in self._around(self.events.slow_waves, t, 0.2):
            # The down state: a positive deflection at depth, followed by a smaller rebound.
            wave = np.exp(-0.5 * (x / 0.075) ** 2) - 0.45 * np.exp(-0.5 * ((x - 0.22) / 0.10) ** 2)
            out[s] += (size[i] * wave).astype(np.float32)[:, None] * self.layout.slow

    def _spindles(self, out: NDArray[np.float32], t: NDArray[np.float64]) -> None:
        table = self.events.spindles
        length, frequency, amplitude = table.duration, table.frequency, table.amplitude
        for i, s, x in self._around(table, t, 0.1):
            wave = np.exp(-0.5 * (x / (0.3 * length[i])) ** 2) * np.sin(2 * np.pi * frequency[i] * (x - 0.06 * x * np.abs(x) / length[i]))
            out[s] += (amplitude[i] * wave).astype(np.float32)[:, None] * self.layout.spindle

    def _ripples(self, out: NDArray[np.float32], t: NDArray[np.float64]) -> None:
        table = self.events.ripples
        length, frequency, amplitude = table.duration, table.frequency, table.amplitude
        for i, s, x in self._around(table, t, 0.05):
            sharp = -1.1 * amplitude[i] * np.exp(-0.5 * (x / (0.35 * length[i] + 0.012)) ** 2)
            out[s] += sharp.astype(np.float32)[:, None] * self.layout.sharp
            if frequency[i] < 0.42 * self.rate:
                # Flat-topped: the envelope stays above half its peak over most of the event.
                shape = np.exp(-0.5 * (x / (0.36 * length[i])) ** 4)
                wave = amplitude[i] * shape * np.cos(2 * np.pi * frequency[i] * (x - 0.12 * x * np.abs(x) / length[i]))
                out[s] += wave.astype(np.float32)[:, None] * self.layout.ripple

    def _movement(self, out: NDArray[np.float32], t: NDArray[np.float64]) -> None:
        length, amplitude = self.movements.duration, self.movements.amplitude if len(self.movements) else np.empty(0)
        for i, s, x in self._around(self.movements, t, 0.3):
            wave = 500 * amplitude[i] * np.exp(-0.5 * (x / (0.3 * length[i])) ** 2) * np.cos(2 * np.pi * 1.3 * x / length[i])
            out[s] += wave.astype(np.float32)[:, None]


def lfp_signal(
    rate: float,
    start: float,
    stop: float,
    d: Drivers,
    events: Microstructure,
    model: LFPModel,
    faults: Faults,
    *,
    n_channels: int,
    n_cortex: int,
    seed: tuple[int, ...],
) -> Signal:
    """The LFP of CA1 (`n_channels`, pyramidal layer first) and cortex (`n_cortex`) as a lazy Signal."""
    layout = _layout(n_channels, n_cortex, np.random.default_rng(np.random.SeedSequence([*seed, 1])))
    names = [f"CA1_{i + 1}" for i in range(n_channels)] + [f"CTX_{i + 1}" for i in range(n_cortex)]
    channels = pd.DataFrame({"name": names, "kind": "lfp", "region": layout.region})
    render = _LFP(rate, start, d, events, layout, model, faults, (*seed, 2))
    values = Streamed((int(np.floor((stop - start) * rate + 1e-6)), n_channels + n_cortex), render)
    return Signal(values, rate=rate, start=start, unit="uV", kind="lfp", channels=channels, gaps=faults.gaps)


class _EMG:
    def __init__(self, rate: float, start: float, d: Drivers, model: LFPModel, seed: tuple[int, ...]) -> None:
        self.rate, self.start, self.d, self.model = rate, start, d, model
        self.envelope = d.envelope("emg") * np.exp(0.35 * ornstein_uhlenbeck(np.random.default_rng(np.random.SeedSequence([*seed, 7])), len(d.time), 2.0, 0.25))
        self.noise = BlockNoise(self._spectra, rate, seed)
        self.bursts = (d.bursts.start, d.bursts.stop, d.bursts.kind, d.bursts.to_frame().get("amplitude", pd.Series(dtype=float)).to_numpy())

    def _spectra(self, f: NDArray[np.float64]) -> NDArray[np.float64]:
        muscle = band(f, min(25.0, 0.1 * self.rate), min(300.0, 0.45 * self.rate), edge=0.3)
        return np.stack([muscle, aperiodic(f, 3.0, slope=1.5, floor=0.02)], axis=1)

    def __call__(self, k: int) -> NDArray[np.float32]:
        t = self.start + (k * BLOCK + np.arange(BLOCK)) / self.rate
        x = self.noise.block(k)
        size = np.interp(t, self.d.time, self.envelope)
        start, stop, kind, amplitude = self.bursts
        for i in np.flatnonzero((stop > t[0]) & (start < t[-1])):
            a, b = np.searchsorted(t, [start[i], stop[i]])
            size[a:b] += (45.0 if kind[i] == "twitch" else 250.0) * np.abs(amplitude[i]) * np.hanning(b - a)
        return (self.model.emg_gain * (x[0] * size + x[1])).astype(np.float32)[:, None]


def emg_signal(rate: float, start: float, stop: float, d: Drivers, model: LFPModel, seed: tuple[int, ...]) -> Signal:
    """The raw (not rectified) EMG of the neck as a lazy Signal."""
    values = Streamed((int(np.floor((stop - start) * rate + 1e-6)), 1), _EMG(rate, start, d, model, seed))
    return Signal(values, rate=rate, start=start, unit="uV", kind="emg", channels=["EMG"])
