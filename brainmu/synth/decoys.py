"""What naive methods take for something else: gamma and spikes that leak into the ripple band, and power that follows the stage but causes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from brainmu.core import EventTable
from brainmu.core.limits import check_model
from brainmu.errors import InputError
from brainmu.synth.noise import band
from brainmu.synth.truth import TrueEffect

__all__ = ["DecoyModel", "Decoys", "plan_decoys"]

_WAVEFORM = 0.0004  # s; SD of a spike's trough behind the anti-alias filter of an LFP
_EMPTY = EventTable([], [], [], kind=[], amplitude=[], frequency=[])


@dataclass(frozen=True)
class DecoyModel:
    """Decoys of ripples and of attribution. None by default.

    Parameters
    ----------
    gamma_burst_rate : float, 1/s
        Bursts of high gamma (60-100 Hz, 50-250 ms, sharp-troughed, so that their harmonic lies in the ripple band) in REM and active waking, in CA1.
    gamma_burst_amplitude : float, uV
        Median peak; SD 0.4 of its logarithm. An assumption.
    spike_leak_rate : float, 1/s
        Bursts of unsorted spikes (8 to 30 at irregular moments of 30-120 ms) in every state: broadband energy above 100 Hz that is no
        oscillation [1]_, without a sharp wave.
    spike_leak_amplitude : float, uV
        Median size of one spike on the channel of the pyramidal layer; SD 0.4 of its logarithm. An assumption.
    nuisance_power : float, uV
        SD of a noise 4 Hz wide that an instrument adds to every LFP channel while the animal is in `nuisance_stage`. It carries nothing about sleep:
        give it another stage in another recording and whatever relied on it fails. A map by power alone ranks it first.
    nuisance_frequency : float, Hz
        Its centre.
    nuisance_stage : {"WAKE", "NREM", "REM"}
        The stage it happens to follow.

    References
    ----------
    .. [1] Scheffer-Teixeira R et al. (2013). On high-frequency field oscillations (>100 Hz) and the spectral leakage of spiking activity.
       J Neurosci 33:1535.
    """

    gamma_burst_rate: float = 0.0
    gamma_burst_amplitude: float = 150.0
    spike_leak_rate: float = 0.0
    spike_leak_amplitude: float = 200.0
    nuisance_power: float = 0.0
    nuisance_frequency: float = 36.0
    nuisance_stage: str = "NREM"

    def __post_init__(self) -> None:
        check_model(self)
        if self.nuisance_frequency < 5.0:
            raise InputError(f"nuisance_frequency is {self.nuisance_frequency!r}, expected a number of at least 5")
        if self.nuisance_stage not in ("WAKE", "NREM", "REM"):
            raise InputError(f"nuisance_stage is {self.nuisance_stage!r}, expected one of WAKE, NREM, REM")


@dataclass
class Decoys:
    """The decoys of one recording.

    Attributes
    ----------
    table : EventTable
        kind gamma, spike_leak or nuisance; peak (s), amplitude (uV), frequency (Hz; NaN for spikes).
    spikes : float64 (n, 2)
        Time (s) and size (uV) of every leaked spike, in time order.
    nuisance_time, nuisance_envelope : float64 (m,), s and uV
    frequency : float, Hz
        Centre of the nuisance.
    """

    table: EventTable = field(default_factory=lambda: _EMPTY)
    spikes: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 2)))
    nuisance_time: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    nuisance_envelope: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    frequency: float = 0.0

    @property
    def nuisance(self) -> bool:
        """Whether there is a nuisance source."""
        return len(self.nuisance_time) > 0

    def planted(self) -> dict[str, TrueEffect]:
        """What the nuisance does to sleep: nothing."""
        sentence = f"Hazard of waking from NREM by the power at {self.frequency:g} Hz, all else as it is: nothing that sleeps reads it."
        return {"nuisance_log_hazard_ratio": TrueEffect(0.0, sentence, "log hazard ratio")} if self.nuisance else {}

    def density(self, f: NDArray[np.float64]) -> NDArray[np.float64]:
        """Power density of the nuisance, of SD 1."""
        return band(f, self.frequency - 2.0, self.frequency + 2.0)

    def power(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """SD (n,), uV, of the nuisance at `t` (n,), s."""
        return np.interp(t, self.nuisance_time, self.nuisance_envelope)

    def add(self, out: NDArray[np.float32], t: NDArray[np.float64], share: NDArray[np.float32]) -> None:
        """Put gamma bursts and leaked spikes into a block `out` (time, channel) at times `t`; `share` (channel,) is where they are seen."""
        rate = (len(t) - 1) / (t[-1] - t[0])
        table = self.table
        # Five SDs of the envelope on either side: cut off earlier, the trace would step.
        reach = 1.5 * (table.stop - table.start)
        bursts = np.flatnonzero((np.asarray(table.kind) == "gamma") & (table.peak + reach > t[0]) & (table.peak - reach < t[-1])) if len(table) else []
        for i in bursts:
            if table.frequency[i] > 0.42 * rate:
                continue
            a, b = np.searchsorted(t, [table.peak[i] - reach[i], table.peak[i] + reach[i]])
            x = t[a:b] - table.peak[i]
            shape = np.exp(-0.5 * (x / (0.2 * reach[i])) ** 2)
            phase = 2 * np.pi * table.frequency[i] * x
            harmonic = 0.5 * np.cos(2 * phase) if 2 * table.frequency[i] < 0.42 * rate else 0.0
            out[a:b] -= (table.amplitude[i] / 1.5 * shape * (np.cos(phase) + harmonic)).astype(np.float32)[:, None] * share
        if rate > 600 and len(self.spikes):
            self._leak(out, t, rate, share)

    def _leak(self, out: NDArray[np.float32], t: NDArray[np.float64], rate: float, share: NDArray[np.float32]) -> None:
        first, last = np.searchsorted(self.spikes[:, 0], [t[0] - 0.005, t[-1] + 0.005])
        when, size = self.spikes[first:last].T
        reach = np.arange(-int(0.002 * rate) - 1, int(0.004 * rate) + 2)
        row = np.round((when - t[0]) * rate).astype(np.intp)[:, None] + reach
        inside = (row >= 0) & (row < len(t))
        x = t[np.clip(row, 0, len(t) - 1)] - when[:, None]
        wave = -np.exp(-0.5 * (x / _WAVEFORM) ** 2) + 0.3 * np.exp(-0.5 * ((x - 0.0011) / (1.6 * _WAVEFORM)) ** 2)
        line = np.bincount(row[inside], (size[:, None] * wave)[inside], len(t)).astype(np.float32)
        for channel in np.flatnonzero(share):
            out[:, channel] += share[channel] * line


def plan_decoys(
    model: DecoyModel, bouts: pd.DataFrame, time: NDArray[np.float64], weights: NDArray[np.float64], ripples: EventTable, seed: tuple[int, ...]
) -> Decoys:
    """Draw the decoys of a recording, each at least 0.15 s from every ripple.

    Parameters
    ----------
    bouts : DataFrame
        stage, start, stop (s).
    time, weights : float64 (n,) and (n, 4)
        Shares of active waking, quiet waking, NREM and REM on a grid.
    ripples : EventTable
    """
    rng = np.random.default_rng(np.random.SeedSequence(list(seed)))
    gamma, gamma_length = _moments(model.gamma_burst_rate * (weights[:, 0] + weights[:, 3]), time, (0.05, 0.12, 0.25), ripples, rng)
    leak, leak_length = _moments(np.full(len(time), model.spike_leak_rate), time, (0.03, 0.06, 0.12), ripples, rng)
    clear = np.array([not ((gamma < b + 0.15) & (gamma + gamma_length > a - 0.15)).any() for a, b in zip(leak, leak + leak_length)], dtype=bool)
    leak, leak_length = leak[clear], leak_length[clear]
    sizes = [a * np.exp(0.4 * rng.standard_normal(n)) for a, n in ((model.gamma_burst_amplitude, len(gamma)), (model.spike_leak_amplitude, len(leak)))]
    spikes = [
        np.c_[a + length * np.sort(rng.random(n)), size * np.exp(0.25 * rng.standard_normal(n))]
        for a, length, size, n in zip(leak, leak_length, sizes[1], np.clip(rng.poisson(0.25 * leak_length * 1000), 8, 30))
    ]
    tables = [
        EventTable(gamma, gamma + gamma_length, gamma + gamma_length / 2, kind="gamma", amplitude=sizes[0], frequency=rng.uniform(60, 100, len(gamma))),
        EventTable(leak, leak + leak_length, leak + leak_length / 2, kind="spike_leak", amplitude=sizes[1], frequency=np.full(len(leak), np.nan)),
    ]
    plan = Decoys(spikes=np.concatenate(spikes) if spikes else np.empty((0, 2)), frequency=model.nuisance_frequency)
    plan.spikes = plan.spikes[np.argsort(plan.spikes[:, 0], kind="stable")]
    if model.nuisance_power:
        on = bouts[bouts["stage"] == model.nuisance_stage]
        start, stop = on["start"].to_numpy(dtype=float), on["stop"].to_numpy(dtype=float)
        tables.append(EventTable(start, stop, 0.5 * (start + stop), kind="nuisance", amplitude=model.nuisance_power, frequency=model.nuisance_frequency))
        column = {"WAKE": weights[:, 0] + weights[:, 1], "NREM": weights[:, 2], "REM": weights[:, 3]}[model.nuisance_stage]
        wander = np.exp(0.1 * gaussian_filter1d(rng.standard_normal(len(time)), 40.0) * 10.0)
        plan.nuisance_time, plan.nuisance_envelope = time, model.nuisance_power * column * wander
    plan.table = EventTable.concat([t for t in tables if len(t)]).sorted() if any(len(t) for t in tables) else _EMPTY
    return plan


def _moments(
    rate: NDArray[np.float64], time: NDArray[np.float64], lengths: tuple[float, float, float], ripples: EventTable, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Start and length of events at `rate` (n,), 1/s, on the grid `time`; clear of ripples, of each other and of the ends."""
    step = time[1] - time[0]
    hit = np.flatnonzero(rng.random(len(time)) < rate * step)
    start = time[hit] + rng.random(len(hit)) * step
    least, median, most = lengths
    length = np.clip(median * np.exp(0.4 * rng.standard_normal(len(start))), least, most)
    near = np.searchsorted(ripples.start, start + length + 0.15)
    before = np.r_[-np.inf, np.maximum.accumulate(np.asarray(ripples.stop))][near]
    fits = (before < start - 0.15) & (start + length < time[-1] - 1.0) & (np.r_[np.inf, np.diff(start)] > 0.4)
    return start[fits], length[fits]
