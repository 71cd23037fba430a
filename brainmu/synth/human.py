"""A human night: EEG, EOG and EMG by AASM stage, with spindles, slow waves and eye movements."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from brainmu.config import suggest
from brainmu.core import EventTable, Recording, Signal
from brainmu.errors import InputError
from brainmu.synth.effects import ornstein_uhlenbeck
from brainmu.synth.limits import check_model
from brainmu.synth.noise import BLOCK, BlockNoise, Streamed, aperiodic, band
from brainmu.synth.sleep import HumanSleep, human_bouts, score
from brainmu.synth.truth import Truth

__all__ = ["EEGModel", "human_recording"]

_STAGES = ("W", "N1", "N2", "N3", "R")
# SD of each component by stage, uV at a central or frontal electrode.
_AMPLITUDES = {
    "background": (9.0, 8.5, 11.0, 13.0, 8.0),
    "delta": (3.0, 6.0, 13.0, 38.0, 6.0),
    "theta": (2.5, 5.5, 6.0, 6.0, 5.5),
    "alpha": (11.0, 3.0, 1.5, 1.5, 2.0),
    "beta": (5.0, 3.5, 2.8, 2.2, 3.0),
    "emg": (22.0, 12.0, 7.0, 5.5, 2.2),
    "slow_eye": (8.0, 45.0, 5.0, 3.0, 6.0),
}
_MONTAGE = ("Fpz-Cz", "Pz-Oz", "C3-A2", "C4-A1", "F3-A2", "F4-A1", "O1-A2", "O2-A1")


@dataclass(frozen=True)
class EEGModel:
    """Size of the signals.

    Parameters
    ----------
    gain : float
        Factor on every EEG and EOG voltage.
    spindle_rate : float, 1/s
        In N2; half of it in N3. About 2-5 a minute in adults (Purcell 2017, Nat Commun 8:15930).
    spindle_amplitude : float, uV
        Median amplitude.
    kcomplex_rate : float, 1/s
        K-complexes in N2.
    blink_rate, saccade_rate : float, 1/s
        In W; of rapid eye movements in R.
    difficulty : float
        Spread (log SD) of the slow wandering of every amplitude: the larger, the less stages can be told apart.
    """

    gain: float = 1.0
    spindle_rate: float = 0.06
    spindle_amplitude: float = 16.0
    kcomplex_rate: float = 0.03
    blink_rate: float = 0.15
    saccade_rate: float = 0.25
    difficulty: float = 0.25

    def __post_init__(self) -> None:
        check_model(self, positive=("gain",))


@dataclass
class _Events:
    spindles: EventTable
    slow_waves: EventTable
    eyes: EventTable


def human_recording(
    hours: float, seed: int, id: str, subject: str, n_channels: int, rate: float, epoch: float, preset: str, parameters: dict[str, Any]
) -> tuple[Recording, Truth]:
    """A human night and its truth; see :func:`brainmu.synth.recording`."""
    owner = {f.name: name for name, cls in (("sleep", HumanSleep), ("eeg", EEGModel)) for f in dataclasses.fields(cls)}
    stray = sorted(set(parameters) - set(owner))
    if stray:
        raise InputError(f"a human recording has no parameter {stray[0]!r}{suggest(stray[0], owner)}; known are {', '.join(owner)}")
    chosen = {"difficulty": {"easy": 0.1, "typical": 0.25, "hard": 0.45}[preset]} | parameters
    sleep = HumanSleep(**{k: v for k, v in chosen.items() if owner[k] == "sleep"})
    eeg = EEGModel(**{k: v for k, v in chosen.items() if owner[k] == "eeg"})
    stop = hours * 3600.0
    night, micro, slow = (np.random.default_rng(c) for c in np.random.SeedSequence(seed).spawn(3))
    bouts = human_bouts(sleep, stop, night)
    events = _events(bouts, eeg, micro)
    time, weights = _weights(bouts, stop)
    wander = np.stack([ornstein_uhlenbeck(slow, len(time), 60.0, 0.5) for _ in _AMPLITUDES], axis=1) * eeg.difficulty
    envelopes = {k: weights @ np.array(v) * np.exp(wander[:, i]) for i, (k, v) in enumerate(_AMPLITUDES.items())}
    n = int(np.floor(stop * rate + 1e-6))
    names = [_MONTAGE[i] if i < len(_MONTAGE) else f"EEG{i + 1}" for i in range(n_channels)]
    signals = {}
    for key, kind, channels in (("eeg", "eeg", names), ("eog", "eog", ["EOG-L", "EOG-R"]), ("emg", "emg", ["EMG-chin"])):
        render = _Render(key, rate, time, envelopes, events, eeg, names if key == "eeg" else channels, (seed, {"eeg": 21, "eog": 22, "emg": 23}[key]))
        table = pd.DataFrame({"name": channels, "kind": kind})
        signals[key] = Signal(Streamed((n, len(channels)), render), rate=rate, unit="uV", kind=kind, channels=table)
    hypnogram = score(bouts, epoch, "aasm5", 0.0, stop)
    rec = Recording(
        id=id, subject=subject, species="human", signals=signals, labels={"scoring": hypnogram},
        source={"format": "synthetic", "files": []},
    )  # fmt: skip
    empty = EventTable([], [])
    record = {"hours": hours, "seed": seed, "preset": preset, "sleep": dataclasses.asdict(sleep), "eeg": dataclasses.asdict(eeg)}
    truth = Truth(
        id=id, bouts=bouts, hypnogram=hypnogram, ripples=empty, reactivation=empty, awake_replay=empty, spindles=events.spindles,
        slow_waves=events.slow_waves, trials=empty, place_fields=None, drivers={"time": time}, parameters=record,
    )  # fmt: skip
    return rec, truth


def _weights(bouts: pd.DataFrame, stop: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    time = np.arange(0.0, stop + 1.0, 0.5)
    k = np.clip(np.searchsorted(bouts["start"].to_numpy(), time, side="right") - 1, 0, None)
    stage = bouts["stage"].to_numpy().astype(str)[k]
    return time, gaussian_filter1d(np.stack([(stage == s).astype(float) for s in _STAGES], axis=1), 3.0, axis=0, mode="nearest")


def _events(bouts: pd.DataFrame, m: EEGModel, rng: np.random.Generator) -> _Events:
    def draw(rates: dict[str, float], refractory: float) -> NDArray[np.float64]:
        out = [
            rng.uniform(a, b, rng.poisson(rates.get(s, 0.0) * (b - a))) for s, a, b in zip(bouts["stage"], bouts["start"], bouts["stop"])
        ]  # fmt: skip
        t = np.sort(np.concatenate(out))
        return t[np.r_[True, np.diff(t) > refractory][: len(t)]]

    z = rng.standard_normal
    t = draw({"N2": m.spindle_rate, "N3": 0.5 * m.spindle_rate}, 2.5)
    length = np.clip(0.9 * np.exp(0.3 * z(len(t))), 0.5, 2.5)
    spindles = EventTable(
        t, t + length, kind="spindle", frequency=np.clip(13.2 + 0.7 * z(len(t)), 11.3, 15.7), amplitude=m.spindle_amplitude * np.exp(0.4 * z(len(t)))
    )
    t = draw({"N2": m.kcomplex_rate, "N3": 0.35}, 1.2)
    slow = EventTable(t, t + 1.0, t + 0.45, kind="slow_wave", amplitude=75.0 * np.exp(0.35 * z(len(t))))
    t = draw({"W": m.blink_rate}, 0.5)
    r = draw({"R": m.saccade_rate}, 0.2)
    sign = np.where(rng.random(len(r)) < 0.5, 1.0, -1.0)
    eyes = EventTable(
        np.r_[t, r], np.r_[t + 0.35, r + 0.8], kind=np.array(["blink"] * len(t) + ["saccade"] * len(r), dtype=object),
        amplitude=np.r_[110.0 * np.exp(0.3 * z(len(t))), sign * 70.0 * np.exp(0.4 * z(len(r)))],
    )  # fmt: skip
    return _Events(spindles, slow, eyes.sorted())


class _Render:
    """Renders one block of the EEG, the EOG or the EMG."""

    def __init__(
        self, what: str, rate: float, time: NDArray[np.float64], envelopes: dict[str, NDArray[np.float64]], events: _Events, model: EEGModel,
        names: list[str], seed: tuple[int, ...],
    ) -> None:  # fmt: skip
        self.what, self.rate, self.time, self.envelopes, self.events, self.model, self.names = what, rate, time, envelopes, events, model, names
        self.front = np.array([1.0 if n.startswith("F") else 0.35 if n.startswith(("P", "O")) else 0.8 for n in names], dtype=np.float32)
        self.noise = BlockNoise(self._spectra, rate, seed)

    def _spectra(self, f: NDArray[np.float64]) -> NDArray[np.float64]:
        n = len(self.names)
        if self.what == "emg":
            return band(f, 15.0, 0.45 * self.rate, edge=0.2)[:, None]
        background = aperiodic(f, 1.0, slope=1.7, knee=1.5, floor=1e-4)
        if self.what == "eog":
            return np.stack([background] * n + [band(f, 0.15, 0.6), band(f, 0.6, 3.5)], axis=1)
        top = 0.45 * self.rate
        shared = [band(f, 0.5, 3.5), band(f, 4.0, 7.5), band(f, 8.5, 11.5), band(f, 15.0, min(30.0, top))]
        return np.stack([background] * n + [background, *shared], axis=1)

    def __call__(self, k: int) -> NDArray[np.float32]:
        t = (k * BLOCK + np.arange(BLOCK)) / self.rate
        x = self.noise.block(k).T
        e = {name: np.interp(t, self.time, v).astype(np.float32)[:, None] for name, v in self.envelopes.items()}
        if self.what == "emg":
            return e["emg"] * x
        n = len(self.names)
        if self.what == "eog":
            mirror = np.array([1.0, -1.0], dtype=np.float32)
            out = 0.8 * e["background"] * x[:, :n] + e["slow_eye"] * x[:, n : n + 1] * mirror + 0.5 * e["delta"] * x[:, n + 1 :]
            self._eyes(out, t, mirror, np.ones(2, dtype=np.float32))
            return out * np.float32(self.model.gain)
        out = e["background"] * (0.7 * x[:, :n] + 0.7 * x[:, n : n + 1])
        for i, name in enumerate(("delta", "theta", "alpha", "beta")):
            share = self.front if name == "delta" else 1.3 - self.front * 0.6 if name == "alpha" else np.ones(n, dtype=np.float32)
            out += e[name] * x[:, n + 1 + i : n + 2 + i] * share
        self._graphs(out, t)
        self._eyes(out, t, 0.15 * self.front * (self.front == 1), 0.35 * self.front * (self.front == 1))
        return out * np.float32(self.model.gain)

    def _graphs(self, out: NDArray[np.float32], t: NDArray[np.float64]) -> None:
        table = self.events.spindles
        for start, stop, frequency, amplitude in zip(table.start, table.stop, table.frequency, table.amplitude):
            if stop + 0.2 > t[0] and start - 0.2 < t[-1]:
                a, b = np.searchsorted(t, [start - 0.2, stop + 0.2])
                x = t[a:b] - 0.5 * (start + stop)
                wave = amplitude * np.exp(-0.5 * (x / (0.27 * (stop - start))) ** 2) * np.sin(2 * np.pi * frequency * x)
                out[a:b] += wave.astype(np.float32)[:, None] * (0.5 + 0.5 * self.front)
        table = self.events.slow_waves
        for start, amplitude in zip(table.start, table.amplitude):
            if start + 1.6 > t[0] and start - 0.3 < t[-1]:
                a, b = np.searchsorted(t, [start - 0.3, start + 1.6])
                x = t[a:b] - start - 0.45
                wave = amplitude * (-np.exp(-0.5 * (x / 0.13) ** 2) + 0.75 * np.exp(-0.5 * ((x - 0.42) / 0.19) ** 2))
                out[a:b] += wave.astype(np.float32)[:, None] * self.front

    def _eyes(self, out: NDArray[np.float32], t: NDArray[np.float64], sideways: NDArray[np.float32], upwards: NDArray[np.float32]) -> None:
        table = self.events.eyes
        for start, stop, kind, amplitude in zip(table.start, table.stop, table.kind, table.amplitude):
            if stop > t[0] and start < t[-1]:
                a, b = np.searchsorted(t, [start, stop])
                x = (t[a:b] - start) / (stop - start)
                wave = amplitude * (np.sin(np.pi * x) ** 2 if kind == "blink" else np.minimum(x / 0.08, 1.0) * np.exp(-2.0 * x))
                out[a:b] += wave.astype(np.float32)[:, None] * (upwards if kind == "blink" else sideways)
