"""A human night: EEG, EOG and EMG by AASM stage, with spindles, slow waves and eye movements."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from brainmu.config import suggest
from brainmu.core import EventTable, Recording, Signal
from brainmu.core.limits import check_model
from brainmu.errors import InputError
from brainmu.synth.effects import ornstein_uhlenbeck
from brainmu.synth.noise import BLOCK, BlockNoise, Streamed, aperiodic, band, bump
from brainmu.synth.scorer import ScorerModel, scorings
from brainmu.synth.sleep import HumanSleep, human_arousals, human_bouts, score
from brainmu.synth.truth import Truth

__all__ = ["EEGModel", "human_recording"]

_STAGES = ("W", "N1", "N2", "N3", "R")
# SD of each component by stage, uV at a central or frontal electrode; the shares of power at Fpz-Cz are near those of scored nights (Sleep-EDF).
_AMPLITUDES = {
    "background": (9.0, 8.5, 11.0, 13.0, 8.0),
    "delta": (8.0, 7.5, 13.0, 38.0, 6.5),
    "theta": (2.3, 3.8, 4.8, 6.0, 4.0),
    "alpha": (11.0, 3.0, 1.5, 1.5, 2.0),
    "beta": (4.0, 2.4, 1.5, 1.2, 2.0),
    "emg": (22.0, 12.0, 7.0, 5.5, 2.2),
    "slow_eye": (8.0, 45.0, 5.0, 3.0, 6.0),
}
# Derivations and where each lies on the head, mm right of and in front of the vertex.
_MONTAGE = {
    "Fpz-Cz": (0, 50), "Pz-Oz": (0, -75), "C3-A2": (-55, 0), "C4-A1": (55, 0), "F3-A2": (-45, 50), "F4-A1": (45, 50), "O1-A2": (-25, -90), "O2-A1": (25, -90),
}  # fmt: skip
_TAILS = 5.0  # SDs of a Gaussian that are drawn on either side
_UP = 0.42  # s from the trough of a slow wave to the peak of its up state
_OPEN_EYES = (0.3, 1.0)  # alpha with open eyes over its amplitude with closed ones


HUMAN_PRESETS: dict[str, dict[str, float]] = {"easy": {"difficulty": 0.1}, "typical": {}, "hard": {"difficulty": 0.45}}
"""What each preset changes in a human night."""


@dataclass(frozen=True)
class EEGModel:
    """Size of the signals.

    Parameters
    ----------
    gain : float
        Factor on every EEG and EOG voltage.
    spindle_rate : float, 1/s
        In N2; half of it in N3. About 2-5 a minute in adults (Purcell 2017, Nat Commun 8:15930).
    spindle_frequency : float, Hz
        Mean of the person's spindles, SD 0.7; people differ by about 0.5 (an assumption).
    spindle_amplitude : float, uV
        Median amplitude.
    spindle_coupling : float
        Share of spindles within 3 s of a slow wave or K-complex that lie on its up state (fast spindles, Mölle 2011, Sleep 34:1411).
    infraslow_depth, infraslow_period : float, 1 and s
        The rate of spindles waxes and wanes by this share with this period (Lecci 2017, Science Advances 3:e1602026).
    kcomplex_rate : float, 1/s
        K-complexes in N2.
    blink_rate, saccade_rate : float, 1/s
        In W with open eyes, as a mean over W; of rapid eye movements in R.
    eyes_closed : float
        Share of W with closed eyes, where alpha is; with open eyes its amplitude is 0.3 of that. The mean power does not depend on it.
    twitch_rate, movement_rate : float, 1/s
        Chin twitches in R, which break its atonia; body movements in W, on the EMG, the EEG and the EOG. Assumptions.
    hum, hum_frequency : float, uV and Hz
        Mains on the EEG and the EOG.
    coherence_length : float, mm
        The coherence of what two electrodes do not share by stage is exp(-distance / length); an assumption.
    difficulty : float
        Spread (log SD) of the slow wandering of every amplitude: the larger, the less stages can be told apart.
    """

    gain: float = 1.0
    spindle_rate: float = 0.06
    spindle_frequency: float = 13.2
    spindle_amplitude: float = 16.0
    spindle_coupling: float = 0.4
    infraslow_depth: float = 0.4
    infraslow_period: float = 50.0
    kcomplex_rate: float = 0.03
    blink_rate: float = 0.15
    saccade_rate: float = 0.25
    eyes_closed: float = 0.6
    twitch_rate: float = 0.06
    movement_rate: float = 1 / 90
    hum: float = 0.0
    hum_frequency: float = 50.0
    coherence_length: float = 60.0
    difficulty: float = 0.25

    def __post_init__(self) -> None:
        check_model(self, positive=("gain", "infraslow_period", "hum_frequency"), shares=("spindle_coupling", "infraslow_depth", "eyes_closed"))


@dataclass
class _Events:
    spindles: EventTable
    slow_waves: EventTable
    eyes: EventTable
    muscle: EventTable
    closed: NDArray[np.float64]
    """1 with closed eyes, 0 with open ones, on the grid of the envelopes."""


def human_recording(
    hours: float, seed: int, id: str, subject: str, n_channels: int, rate: float, epoch: float, preset: str, parameters: dict[str, Any]
) -> tuple[Recording, Truth]:
    """A human night and its truth; see :func:`brainmu.synth.recording`."""
    owner = {f.name: name for name, cls in (("sleep", HumanSleep), ("eeg", EEGModel), ("scorer", ScorerModel)) for f in dataclasses.fields(cls)}
    stray = sorted(set(parameters) - set(owner))
    if stray:
        raise InputError(f"a human recording has no parameter {stray[0]!r}{suggest(stray[0], owner)}; known are {', '.join(owner)}")
    chosen = HUMAN_PRESETS[preset] | parameters
    sleep = HumanSleep(**{k: v for k, v in chosen.items() if owner[k] == "sleep"})
    eeg = EEGModel(**{k: v for k, v in chosen.items() if owner[k] == "eeg"})
    scorer = ScorerModel(**{k: v for k, v in chosen.items() if owner[k] == "scorer"})
    stop = hours * 3600.0
    night, micro, slow = (np.random.default_rng(c) for c in np.random.SeedSequence(seed).spawn(3))
    bouts = human_bouts(sleep, stop, night)
    arousals = human_arousals(sleep, bouts, np.random.default_rng(np.random.SeedSequence([seed, 42])))
    time, weights = _weights(bouts, stop)
    events = _events(bouts, time, eeg, micro, np.random.default_rng(np.random.SeedSequence([seed, 52])))
    wander = np.stack([ornstein_uhlenbeck(slow, len(time), 60.0, 0.5) for _ in _AMPLITUDES], axis=1) * eeg.difficulty
    envelopes = {k: weights @ np.array(v) * np.exp(wander[:, i]) for i, (k, v) in enumerate(_AMPLITUDES.items())}
    envelopes["alpha"] = envelopes["alpha"] * _alpha(events.closed, weights[:, 0], eeg)
    _arouse(envelopes, arousals, time)
    n = int(np.floor(stop * rate + 1e-6))
    names = [list(_MONTAGE)[i] if i < len(_MONTAGE) else f"EEG{i + 1}" for i in range(n_channels)]
    signals = {}
    for key, kind, channels in (("eeg", "eeg", names), ("eog", "eog", ["EOG-L", "EOG-R"]), ("emg", "emg", ["EMG-chin"])):
        render = _Render(key, rate, time, envelopes, events, eeg, names if key == "eeg" else channels, (seed, {"eeg": 21, "eog": 22, "emg": 23}[key]))
        table = pd.DataFrame({"name": channels, "kind": kind})
        signals[key] = Signal(Streamed((n, len(channels)), render), rate=rate, unit="uV", kind=kind, channels=table)
    hypnogram = score(bouts, epoch, "aasm5", 0.0, stop)
    rec = Recording(
        id=id, subject=subject, species="human", signals=signals,
        labels=scorings(scorer, hypnogram, bouts, np.random.default_rng(np.random.SeedSequence([seed, 43])), (seed, 41)),
        source={"format": "synthetic", "files": []},
    )  # fmt: skip
    empty = EventTable([], [])
    record = {"hours": hours, "seed": seed, "preset": preset, "sleep": dataclasses.asdict(sleep), "eeg": dataclasses.asdict(eeg)}
    record["scorer"] = dataclasses.asdict(scorer)
    truth = Truth(
        id=id, bouts=bouts, hypnogram=hypnogram, ripples=empty, reactivation=empty, awake_replay=empty, spindles=events.spindles,
        slow_waves=events.slow_waves, eyes=events.eyes, artefacts=events.muscle, arousals=arousals, trials=empty,
        place_fields=None, drivers={"time": time}, parameters=record,
    )  # fmt: skip
    return rec, truth


def _weights(bouts: pd.DataFrame, stop: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    time = np.arange(0.0, stop + 1.0, 0.5)
    k = np.clip(np.searchsorted(bouts["start"].to_numpy(), time, side="right") - 1, 0, None)
    stage = bouts["stage"].to_numpy().astype(str)[k]
    return time, gaussian_filter1d(np.stack([(stage == s).astype(float) for s in _STAGES], axis=1), 3.0, axis=0, mode="nearest")


def _arouse(envelopes: dict[str, NDArray[np.float64]], arousals: EventTable, time: NDArray[np.float64]) -> None:
    """Let every arousal raise alpha, beta and the chin's tone, and halve delta (sizes are assumptions); changes the envelopes (n,) on `time` (n,), s."""
    if not len(arousals):
        return
    k = np.clip(np.searchsorted(arousals.start, time, side="right") - 1, 0, None)
    level = gaussian_filter1d(((time >= arousals.start[k]) & (time < arousals.stop[k])).astype(float), 0.8)
    for name, size in (("alpha", 8.0), ("beta", 5.0), ("emg", 10.0)):
        envelopes[name] = envelopes[name] + size * level
    envelopes["delta"] = envelopes["delta"] * (1.0 - 0.5 * level)


def _alpha(closed: NDArray[np.float64], wake: NDArray[np.float64], m: EEGModel) -> NDArray[np.float64]:
    """Factor (n,) on the amplitude of alpha by the eyes, where awake, of mean square 1."""
    low, high = _OPEN_EYES
    norm = np.sqrt(m.eyes_closed * high**2 + (1 - m.eyes_closed) * low**2)
    return 1.0 + wake * ((low + (high - low) * closed) / norm - 1.0)


def _eyes_closed(time: NDArray[np.float64], share: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """1 with closed eyes, 0 with open ones: spells of about 20 s that alternate, in `share` of the time closed."""
    n = int(time[-1] / 10.0) + 4
    spells = rng.gamma(2.0, 10.0, (n, 2)) * 2 * np.array([share, 1 - share]) + 1e-6
    ends = np.cumsum(spells.ravel())
    return (np.searchsorted(ends, time, side="right") % 2 == 0).astype(np.float64)


def _on_up_states(t: NDArray[np.float64], length: NDArray[np.float64], slow: EventTable, m: EEGModel, rng: np.random.Generator) -> NDArray[np.float64]:
    """Starts (n,), s, of spindles after the infraslow rhythm and the slow waves had their say; not sorted."""
    grid = np.arange(-2 * m.infraslow_period, (t[-1] if len(t) else 0.0) + 2 * m.infraslow_period, 0.25)
    # Uniform moments u become moments of density 1 + depth sin(2 pi t / period) where u is the integral of that density.
    swing = m.infraslow_depth * m.infraslow_period / (2 * np.pi)
    phase = rng.spawn(1)[0].uniform(0, 2 * np.pi)  # another in every night
    t = np.interp(t, grid - swing * np.cos(2 * np.pi * grid / m.infraslow_period + phase), grid)
    if len(slow) == 0:
        return t
    up = np.asarray(slow.peak) + _UP
    k = np.clip(np.searchsorted(up, t + length / 2), 1, len(up) - 1) if len(up) > 1 else np.zeros(len(t), dtype=np.intp)
    k = np.where(np.abs(up[k] - t - length / 2) < np.abs(up[np.maximum(k - 1, 0)] - t - length / 2), k, np.maximum(k - 1, 0))
    moved = (rng.random(len(t)) < m.spindle_coupling) & (np.abs(up[k] - t - length / 2) < 3.0)
    return np.where(moved, up[k] + 0.1 * rng.standard_normal(len(t)) - length / 2, t)


def _events(bouts: pd.DataFrame, time: NDArray[np.float64], m: EEGModel, rng: np.random.Generator, more: np.random.Generator) -> _Events:
    def draw(rates: dict[str, float], refractory: float) -> NDArray[np.float64]:
        out = [
            rng.uniform(a, b, rng.poisson(rates.get(s, 0.0) * (b - a))) for s, a, b in zip(bouts["stage"], bouts["start"], bouts["stop"])
        ]  # fmt: skip
        t = np.sort(np.concatenate(out))
        return t[np.r_[True, np.diff(t) > refractory][: len(t)]]

    z = rng.standard_normal
    s = draw({"N2": m.spindle_rate, "N3": 0.5 * m.spindle_rate}, 2.5)
    length = np.clip(0.9 * np.exp(0.3 * z(len(s))), 0.5, 2.5)
    frequency, amplitude = np.clip(m.spindle_frequency + 0.7 * z(len(s)), 10.5, 16.5), m.spindle_amplitude * np.exp(0.4 * z(len(s)))
    t = draw({"N2": m.kcomplex_rate, "N3": 0.35}, 1.2)
    kind = np.where(_stage(bouts, t) == "N2", "k_complex", "slow_wave").astype(object)
    slow = EventTable(t, t + 1.0, t + 0.45, kind=kind, amplitude=75.0 * np.exp(0.35 * z(len(t))))
    s = _on_up_states(s, length, slow, m, more)
    asleep = np.isin(_stage(bouts, s), ["N2", "N3"]) & np.isin(_stage(bouts, s + length), ["N2", "N3"])
    order = np.argsort(s, kind="stable")
    order = order[asleep[order]]
    order = order[np.r_[True, np.diff(s[order]) > 1.5][: len(order)]]
    spindles = EventTable(s[order], (s + length)[order], kind="spindle", frequency=frequency[order], amplitude=amplitude[order])
    closed = _eyes_closed(time, m.eyes_closed, more)
    # Blinks are drawn at the mean rate; those that fall on closed eyes wait until they open.
    t = draw({"W": m.blink_rate}, 0.5)
    t = t + _until_open(closed, time, t)
    t = np.unique(t[_stage(bouts, t) == "W"])
    t = t[np.r_[True, np.diff(t) > 0.5][: len(t)]]
    r = draw({"R": m.saccade_rate}, 0.2)
    sign = np.where(rng.random(len(r)) < 0.5, 1.0, -1.0)
    eyes = EventTable(
        np.r_[t, r], np.r_[t + 0.35, r + 0.8], kind=np.array(["blink"] * len(t) + ["saccade"] * len(r), dtype=object),
        amplitude=np.r_[110.0 * np.exp(0.3 * z(len(t))), sign * 70.0 * np.exp(0.4 * z(len(r)))],
    )  # fmt: skip
    return _Events(spindles, slow, eyes.sorted(), _muscle(bouts, m, more), closed)


def _stage(bouts: pd.DataFrame, t: NDArray[np.float64]) -> NDArray[np.str_]:
    return bouts["stage"].to_numpy().astype(str)[np.clip(np.searchsorted(bouts["start"].to_numpy(), t, side="right") - 1, 0, None)]


def _until_open(closed: NDArray[np.float64], time: NDArray[np.float64], t: NDArray[np.float64]) -> NDArray[np.float64]:
    """How long (n,), s, the eyes stay closed from `t` (n,) on."""
    opening = time[np.flatnonzero(closed == 0)]
    if len(opening) == 0:
        return np.zeros(len(t))
    k = np.searchsorted(opening, t)
    last = closed[np.clip(np.searchsorted(time, t) - 1, 0, None)] == 1
    return np.where(last & (k < len(opening)), opening[np.minimum(k, len(opening) - 1)] - t, 0.0)


def _muscle(bouts: pd.DataFrame, m: EEGModel, rng: np.random.Generator) -> EventTable:
    """Twitches in R and body movements in W; amplitude is a factor of median 1."""
    tables = []
    for kind, stage, rate, length in (("twitch", "R", m.twitch_rate, 0.15), ("movement", "W", m.movement_rate, 2.5)):
        spans = bouts[bouts["stage"] == stage]
        start = np.sort(np.concatenate([rng.uniform(a, b, rng.poisson(rate * (b - a))) for a, b in zip(spans["start"], spans["stop"])] or [np.empty(0)]))
        span = length * np.exp(0.4 * rng.standard_normal(len(start)))
        tables.append(EventTable(start, start + span, kind=kind, amplitude=np.exp(0.4 * rng.standard_normal(len(start)))))
    return EventTable.concat(tables).sorted()


class _Render:
    """Renders one block of the EEG, the EOG or the EMG."""

    def __init__(
        self, what: str, rate: float, time: NDArray[np.float64], envelopes: dict[str, NDArray[np.float64]], events: _Events, model: EEGModel,
        names: list[str], seed: tuple[int, ...],
    ) -> None:  # fmt: skip
        self.what, self.rate, self.time, self.envelopes, self.events, self.model, self.names = what, rate, time, envelopes, events, model, names
        self.mains = np.random.default_rng(np.random.SeedSequence([seed[0], 8])).uniform()  # cycles at the start, alike on all electrodes
        self.front = np.array([1.0 if n.startswith("F") else 0.35 if n.startswith(("P", "O")) else 0.8 for n in names], dtype=np.float32)
        self.noise = BlockNoise(self._spectra, rate, seed, self._coherence() if what == "eeg" and model.coherence_length else None)

    def _coherence(self) -> Callable[[float], NDArray[np.float64]]:
        """Every electrode's own background is like that of its neighbours; those without a known place are independent."""
        n = len(self.names)
        place = np.array([_MONTAGE.get(name, (np.inf, np.inf)) for name in self.names], dtype=np.float64)
        known = np.isfinite(place[:, 0])
        matrix = np.eye(n + 5)
        apart = np.linalg.norm(place[known][:, None] - place[known][None], axis=2)
        matrix[np.ix_(np.flatnonzero(known), np.flatnonzero(known))] = np.exp(-apart / self.model.coherence_length)
        return lambda f: matrix

    def _spectra(self, f: NDArray[np.float64]) -> NDArray[np.float64]:
        n = len(self.names)
        if self.what == "emg":
            return band(f, 15.0, 0.45 * self.rate, edge=0.2)[:, None]
        background = aperiodic(f, 1.0, slope=1.8, knee=1.5, floor=2e-5)
        if self.what == "eog":
            return np.stack([background] * n + [band(f, 0.15, 0.6), bump(f, 1.1, 0.75)], axis=1)
        shared = [bump(f, 1.1, 0.75), bump(f, 5.5, 0.3), bump(f, 9.8, 0.14), bump(f, 20.0, 0.4) * (f < 0.45 * self.rate)]
        return np.stack([background] * n + [background, *shared], axis=1)

    def __call__(self, k: int) -> NDArray[np.float32]:
        t = (k * BLOCK + np.arange(BLOCK)) / self.rate
        x = self.noise.block(k).T
        e = {name: np.interp(t, self.time, v).astype(np.float32)[:, None] for name, v in self.envelopes.items()}
        if self.what == "emg":
            size = e["emg"]
            for s, shape, kind in self._muscle(t):
                size[s, 0] += {"twitch": 14.0, "movement": 60.0}[kind] * shape
            return size * x
        n = len(self.names)
        if self.what == "eog":
            mirror = np.array([1.0, -1.0], dtype=np.float32)
            out = 0.8 * e["background"] * x[:, :n] + e["slow_eye"] * x[:, n : n + 1] * mirror + 0.5 * e["delta"] * x[:, n + 1 :]
            self._graphs(out, t, 0.4)  # K-complexes and slow waves reach the eyes' electrodes
            self._eyes(out, t, mirror, np.ones(2, dtype=np.float32))
            self._artefacts(out, t)
            return out * np.float32(self.model.gain)
        out = e["background"] * (0.7 * x[:, :n] + 0.7 * x[:, n : n + 1])
        for i, name in enumerate(("delta", "theta", "alpha", "beta")):
            share = self.front if name == "delta" else 1.3 - self.front * 0.85 if name == "alpha" else np.ones(n, dtype=np.float32)
            out += e[name] * x[:, n + 1 + i : n + 2 + i] * share
        self._graphs(out, t)
        self._eyes(out, t, 0.15 * self.front * (self.front == 1), 0.35 * self.front * (self.front == 1))
        self._artefacts(out, t)
        return out * np.float32(self.model.gain)

    def _graphs(self, out: NDArray[np.float32], t: NDArray[np.float64], share: float = 1.0) -> None:
        table = self.events.spindles
        for start, stop, frequency, amplitude in zip(table.start, table.stop, table.frequency, table.amplitude):
            middle, width = 0.5 * (start + stop), 0.27 * (stop - start)
            a, b = np.searchsorted(t, [middle - _TAILS * width, middle + _TAILS * width])
            if a < b:
                x = t[a:b] - middle
                wave = amplitude * np.exp(-0.5 * (x / width) ** 2) * np.sin(2 * np.pi * frequency * x)
                out[a:b] += wave.astype(np.float32)[:, None] * (share * (0.5 + 0.5 * self.front))
        table = self.events.slow_waves
        for start, amplitude in zip(table.start, table.amplitude):
            a, b = np.searchsorted(t, start + 0.45 + np.array([-_TAILS * 0.13, _UP + _TAILS * 0.19]))
            if a < b:
                x = t[a:b] - start - 0.45
                wave = amplitude * (-np.exp(-0.5 * (x / 0.13) ** 2) + 0.75 * np.exp(-0.5 * ((x - _UP) / 0.19) ** 2))
                out[a:b] += wave.astype(np.float32)[:, None] * (share * self.front)

    def _muscle(self, t: NDArray[np.float64]) -> list[tuple[slice, NDArray[np.float32], str]]:
        """Twitches and movements that touch the block: samples, envelope, kind."""
        table, out = self.events.muscle, []
        for i in np.flatnonzero((table.stop > t[0]) & (table.start < t[-1])):
            a, b = np.searchsorted(t, [table.start[i], table.stop[i]])
            shape = table.amplitude[i] * np.sin(np.pi * (t[a:b] - table.start[i]) / (table.stop[i] - table.start[i])) ** 2
            out.append((slice(a, b), shape.astype(np.float32), str(table.kind[i])))
        return out

    def _artefacts(self, out: NDArray[np.float32], t: NDArray[np.float64]) -> None:
        """Electrodes that sway with a movement of the body, and mains."""
        for s, shape, kind in self._muscle(t):
            if kind == "movement":
                sway = np.sin(2 * np.pi * 0.9 * (t[s] - t[s.start]))
                out[s] += (80.0 * shape * sway).astype(np.float32)[:, None] * np.linspace(1.0, 0.5, out.shape[1], dtype=np.float32)
        if self.model.hum and self.model.hum_frequency < 0.45 * self.rate:
            out += (self.model.hum * np.sin(2 * np.pi * np.remainder(self.model.hum_frequency * t + self.mains, 1.0))).astype(np.float32)[:, None]

    def _eyes(self, out: NDArray[np.float32], t: NDArray[np.float64], sideways: NDArray[np.float32], upwards: NDArray[np.float32]) -> None:
        table = self.events.eyes
        for start, stop, kind, amplitude in zip(table.start, table.stop, table.kind, table.amplitude):
            # The eye comes back slowly from a saccade: its potential is drawn until it is gone, a blink as long as it lasts.
            a, b = np.searchsorted(t, [start, stop if kind == "blink" else start + 5 * (stop - start)])
            if a < b:
                x = (t[a:b] - start) / (stop - start)
                wave = amplitude * (np.sin(np.pi * x) ** 2 if kind == "blink" else np.minimum(x / 0.08, 1.0) * np.exp(-2.0 * x))
                out[a:b] += wave.astype(np.float32)[:, None] * (upwards if kind == "blink" else sideways)
