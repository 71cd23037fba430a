"""What instruments add: noise, dead and drifting channels, pops, gaps, saturation, a sorter's mistakes."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from brainmu.core import EventTable, Intervals, Recording, Spikes
from brainmu.core.limits import check_model
from brainmu.errors import InputError

__all__ = ["FaultModel", "Faults", "plan_faults", "sorted_by_machine", "with_noise"]


@dataclass(frozen=True)
class FaultModel:
    """How good the instruments and the sorter are. All zero (the default): perfect.

    Parameters
    ----------
    dead_channels, drifting_channels : int
        LFP channels that hold only the amplifier's noise; whose gain wanders by a factor of about two.
    pop_rate : float, 1/s
        Electrode pops: steps of a millivolt that decay in 50 ms.
    gap_rate, gap_length : float, 1/s and s
        Missing stretches of all LFP channels.
    saturation : float, uV
        Clipping level; 0 for none.
    missed, contamination : float
        Share of spikes the sorter misses; share it adds to each unit from another unit of the recording.
    """

    dead_channels: int = 0
    drifting_channels: int = 0
    pop_rate: float = 0.0
    gap_rate: float = 0.0
    gap_length: float = 2.0
    saturation: float = 0.0
    missed: float = 0.0
    contamination: float = 0.0

    def __post_init__(self) -> None:
        check_model(self, shares=("missed", "contamination"))
        for name in ("missed", "contamination"):
            if getattr(self, name) == 1:
                raise InputError(f"{name} is 1, expected a share below 1")


@dataclass
class Faults:
    """The faults of one recording.

    Attributes
    ----------
    dead, drifting : tuple of int
        Channel numbers.
    pops : EventTable
        channel, amplitude (uV).
    gaps : Intervals
    saturation : float, uV
    """

    dead: tuple[int, ...] = ()
    drifting: tuple[int, ...] = ()
    pops: EventTable = field(default_factory=lambda: EventTable([], [], channel=[], amplitude=[]))
    gaps: Intervals = field(default_factory=Intervals)
    saturation: float = 0.0

    def apply(self, out: NDArray[np.float32], t: NDArray[np.float64], floor: NDArray[np.float32]) -> None:
        """Put the faults into a block `out` (time, channel) at times `t`; `floor` (time, channel) is what a dead channel shows."""
        for c in self.drifting:
            out[:, c] *= np.float32(1.0) + np.float32(0.6) * np.sin(2 * np.pi * t / 1700.0 + c).astype(np.float32)
        for start, channel, amplitude in zip(self.pops.start, self.pops.channel, self.pops.amplitude):
            if t[0] - 0.5 < start < t[-1]:
                a, b = np.searchsorted(t, [start, start + 0.4])
                out[a:b, int(channel)] += (amplitude * np.exp(-(t[a:b] - start) / 0.05)).astype(np.float32)
        if self.saturation:
            np.clip(out, -self.saturation, self.saturation, out=out)
        out[:, list(self.dead)] = floor[:, list(self.dead)]
        for a, b in self.gaps:
            if a < t[-1] and b > t[0]:
                i, j = np.searchsorted(t, [a - 1e-9, b - 1e-9])
                out[i:j] = np.nan


def plan_faults(model: FaultModel, n_channels: int, start: float, stop: float, rng: np.random.Generator) -> Faults:
    """Draw the faults of a recording of `n_channels`."""
    if model.dead_channels + model.drifting_channels > n_channels:
        raise InputError(f"{model.dead_channels} dead and {model.drifting_channels} drifting of {n_channels} LFP channels: give fewer")
    chosen = [int(c) for c in rng.permutation(n_channels)]
    pops = np.sort(rng.uniform(start, stop, rng.poisson(model.pop_rate * (stop - start))))
    size = rng.choice([-1.0, 1.0], len(pops)) * 1000 * np.exp(0.4 * rng.standard_normal(len(pops)))
    gaps = np.sort(rng.uniform(start, stop, rng.poisson(model.gap_rate * (stop - start))))
    length = rng.exponential(model.gap_length, len(gaps)) + 0.05
    spans = np.c_[gaps, np.minimum(gaps + length, stop)]
    return Faults(
        tuple(chosen[: model.dead_channels]), tuple(chosen[model.dead_channels :][: model.drifting_channels]),
        EventTable(pops, pops + 0.4, kind="pop", channel=rng.integers(n_channels, size=len(pops)), amplitude=size),
        Intervals.merge(spans[spans[:, 1] > spans[:, 0]]), model.saturation,
    )  # fmt: skip


def sorted_by_machine(spikes: Spikes, model: FaultModel, rng: np.random.Generator) -> Spikes:
    """The spikes as a sorter reports them: some missed, some under the name of another unit of the same region.

    Later spikes of a burst are smaller and are missed three times as often as others. Every unit ends up with the stated share of foreign spikes, as far as
    there are enough of them; they are drawn from all other spikes of the region alike, so that each unit gives in proportion to what it has.
    """
    if not (model.missed or model.contamination) or spikes.n_units < 2:
        return spikes
    chance = np.where(_within_burst(spikes), 3.0, 1.0)
    keep = rng.random(len(spikes)) >= np.minimum(model.missed * chance / chance.mean(), 1.0)
    t, u = spikes.times[keep], spikes.unit_id[keep]
    out = u.copy()
    region = spikes.units["region"].astype(str).to_numpy() if "region" in spikes.units else np.zeros(spikes.n_units, dtype=object)
    ids = spikes.units["id"].to_numpy()
    for here in np.unique(region):
        mine = ids[region == here]
        if len(mine) < 2:
            continue
        free = rng.permutation(np.flatnonzero(np.isin(u, mine)))
        for i in rng.permutation(mine):
            wanted = rng.binomial(int((u == i).sum()), model.contamination)
            taken = np.flatnonzero(u[free] != i)[:wanted]
            out[free[taken]] = i
            free = np.delete(free, taken)
    return Spikes(t, out, spikes.units)


def _within_burst(spikes: Spikes, gap: float = 0.01) -> NDArray[np.bool_]:
    """Spikes (n,) that follow another of their unit within `gap` s."""
    order = np.lexsort((spikes.times, spikes.unit_id))
    t, u = spikes.times[order], spikes.unit_id[order]
    out = np.zeros(len(t), dtype=bool)
    out[order[1:]] = (np.diff(t) < gap) & (np.diff(u) == 0)
    return out


def with_noise(recording: Recording, amount: float, seed: int = 0) -> Recording:
    """The same recording through a noisier amplifier: white noise on every channel of EEG, LFP, EOG and EMG.

    Parameters
    ----------
    recording : Recording
        Not changed; everything but those signals is shared with what comes back.
    amount : float
        SD of the noise, in SDs of each channel over the whole recording.
    seed : int
        A pure function of it and of the recording.

    Returns
    -------
    Recording
        Its noisy signals are held in memory, as float32.

    Raises
    ------
    InputError
        If the amount is negative or not finite.
    """
    if not (np.isfinite(amount) and amount >= 0):
        raise InputError(f"amount is {amount}, expected SDs of a channel >= 0")
    rng = np.random.default_rng(seed)
    signals = dict(recording.signals)
    for name, signal in recording.signals_of("eeg", "lfp", "eog", "emg").items():
        noisy = [signals[name].names.index(channel) for channel in signal.names]
        values = signals[name].read()
        sd = np.nanstd(values[:, noisy], axis=0, dtype=np.float64).astype(np.float32)
        values[:, noisy] += np.float32(amount) * sd * rng.standard_normal((len(values), len(noisy)), dtype=np.float32)
        signals[name] = signals[name].with_values(values)
    return recording.with_fields(signals=signals)
