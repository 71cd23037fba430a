"""What happens in rest besides the stages: slow waves, spindles, ripples, and the replay that some ripples carry."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable, Intervals
from brainmu.synth.effects import replay_length
from brainmu.synth.limits import check_model

__all__ = ["Microstructure", "RippleModel", "microstructure"]


@dataclass(frozen=True)
class RippleModel:
    """Ripples, slow waves and spindles.

    Parameters
    ----------
    ripple_rate, wake_ripple_rate : float, 1/s
        Ripples without replay in NREM and in resting wake or pauses on the track. Together with those that carry a reactivation
        they come to about 0.4/s in NREM [1]_.
    ripple_frequency : float, Hz
        Mean frequency; SD 8 %. About 170-180 Hz in mice and 160-170 Hz in rats [1]_.
    ripple_amplitude, ripple_spread : float, uV and 1
        Median peak amplitude, and SD of its logarithm; the lower end lies within the background.
    ripple_length, ripple_shape : float, s and 1
        Gamma distribution of ripples without replay; those with replay are longer [2]_.
    ripple_coupling : float
        Share of ripples that follow the down state of a slow wave by 50-250 ms [3]_.
    slow_wave_interval : float, s
        Mean interval of slow waves in NREM.
    shuffled_share : float
        Share of the ripples without replay that are decoys: spikes as in a replay, but with the cells' identities shuffled.
    awake_replay : float
        Share of the ripples in pauses on the track that replay that track.
    spindle_rate : float, 1/s
        Spindles in NREM.
    spindle_coupling : float
        Share of spindles that begin on an up state, 0.2 s after the down state of a slow wave; the rest come at any phase.
    infraslow_depth, infraslow_period : float, 1 and s
        The rate of spindles waxes and wanes by this share with this period (infraslow sigma of 0.02 Hz [4]_).

    References
    ----------
    .. [1] Buzsáki G (2015). Hippocampal sharp wave-ripple. Hippocampus 25:1073.
    .. [2] Fernández-Ruiz A et al. (2019). Long-duration hippocampal sharp wave ripples improve memory. Science 364:1082.
    .. [3] Sirota A et al. (2003). Communication between neocortex and hippocampus during sleep in rodents. PNAS 100:2065.
    .. [4] Lecci S et al. (2017). Coordinated infraslow neural and cardiac oscillations. Science Advances 3:e1602026.
    """

    ripple_rate: float = 0.30
    wake_ripple_rate: float = 0.08
    ripple_frequency: float = 176.0
    ripple_amplitude: float = 55.0
    ripple_spread: float = 0.5
    ripple_length: float = 0.055
    ripple_shape: float = 5.0
    ripple_coupling: float = 0.6
    slow_wave_interval: float = 1.3
    shuffled_share: float = 0.1
    awake_replay: float = 0.3
    spindle_rate: float = 0.11
    spindle_coupling: float = 0.5
    infraslow_depth: float = 0.6
    infraslow_period: float = 50.0

    def __post_init__(self) -> None:
        check_model(
            self,
            positive=("ripple_frequency", "ripple_amplitude", "ripple_length", "ripple_shape", "slow_wave_interval", "infraslow_period"),
            shares=("ripple_coupling", "shuffled_share", "awake_replay", "spindle_coupling", "infraslow_depth"),
        )


@dataclass
class Microstructure:
    """The events of one recording; reactivations point to their ripple and back."""

    ripples: EventTable
    reactivation: EventTable
    awake: EventTable
    shuffled: EventTable
    spindles: EventTable
    slow_waves: EventTable


def microstructure(
    bouts: pd.DataFrame, pauses: EventTable, reactivation: EventTable, contexts: dict[str, str], model: RippleModel, background: float, rng: np.random.Generator
) -> Microstructure:
    """Slow waves, spindles and ripples around the given reactivations.

    Parameters
    ----------
    bouts : DataFrame
        stage, start, stop (s).
    pauses : EventTable
        Standing still on a track; content is the track.
    reactivation : EventTable
        When which content was reactivated.
    contexts : dict
        Track by content.
    background : float, uV
        SD of the background in the ripple band, for the signal-to-noise ratio of each ripple.
    """
    nrem = _spans(bouts, "NREM")
    waves = _renewal(nrem, model.slow_wave_interval, 3.0, rng)
    start = np.asarray(reactivation.start)
    asleep = nrem.contains(start)
    waves = _attach(waves, start[asleep & (rng.random(len(start)) < model.ripple_coupling)], rng)
    free = _poisson(nrem, model.ripple_rate, rng)
    locked = (rng.random(len(free)) < model.ripple_coupling) & (len(waves) > 0)
    if locked.any():
        free[locked] = rng.choice(waves, locked.sum()) + rng.uniform(0.08, 0.28, locked.sum())
    still = pauses.intervals()
    lasting = Intervals([[a, b] for a, b in _spans(bouts, "WAKE") if b - a > 20]).subtract(_running_time(bouts, still))
    calm = np.r_[_poisson(lasting, model.wake_ripple_rate, rng), _poisson(still, model.wake_ripple_rate, rng)]
    decoys = np.sort(np.r_[free[nrem.contains(free)], calm])
    ripples, row = _ripples(bouts, decoys, still, reactivation, model, background, rng)
    direction = np.where(rng.random(len(start)) < np.where(asleep, 0.7, 0.5), "forward", "reverse").astype(object)
    context = np.array([contexts[c] for c in reactivation.content], dtype=object)
    carried = reactivation.assign(context=context, direction=direction, ripple=row, amplitude=ripples.amplitude[row] if len(row) else np.empty(0))
    amplitude = np.exp(0.35 * rng.standard_normal(len(waves)))
    slow = EventTable(waves - 0.25, waves + 0.25, waves, kind="slow_wave", amplitude=amplitude)
    awake = _sweeps(ripples, "awake_replay", 0.35, rng)
    k = np.searchsorted(pauses.start, awake.start, side="right") - 1
    here = np.asarray(pauses.content, dtype=object)[k] if len(awake) else np.empty(0, dtype=object)
    shuffled = _sweeps(ripples, "shuffled", 0.7, rng)
    other = rng.choice(list(contexts.values()), len(shuffled)).astype(object)
    return Microstructure(ripples, carried, awake.assign(context=here, content=here), shuffled.assign(context=other), _spindles(nrem, waves, model, rng), slow)


def _sweeps(ripples: EventTable, what: str, forward: float, rng: np.random.Generator) -> EventTable:
    """The ripples that carry `what`, with a direction of travel each and their row."""
    row = np.flatnonzero(ripples.carries == what)
    direction = np.where(rng.random(len(row)) < forward, "forward", "reverse").astype(object)
    return EventTable(ripples.start[row], ripples.stop[row], kind="replay" if what == "awake_replay" else what, direction=direction, ripple=row)


def _running_time(bouts: pd.DataFrame, still: Intervals) -> Intervals:
    """From the first to half a minute after the last pause on a track."""
    return Intervals([[min(still.start[0], bouts["start"].iloc[0]), still.stop[-1] + 30.0]]) if len(still) else Intervals()


def _spans(bouts: pd.DataFrame, stage: str) -> Intervals:
    b = bouts[bouts["stage"] == stage]
    return Intervals(b[["start", "stop"]].to_numpy(dtype=float))


def _poisson(spans: Intervals, rate: float, rng: np.random.Generator) -> NDArray[np.float64]:
    if rate == 0 or len(spans) == 0:
        return np.empty(0)
    length = spans.stop - spans.start
    u = np.sort(rng.random(rng.poisson(rate * length.sum()))) * length.sum()
    k = np.searchsorted(np.cumsum(length), u, side="right")
    k = np.minimum(k, len(length) - 1)
    return spans.start[k] + u - np.r_[0.0, np.cumsum(length)][k]


def _renewal(spans: Intervals, mean: float, shape: float, rng: np.random.Generator) -> NDArray[np.float64]:
    out = []
    for a, b in spans:
        t = a + np.cumsum(rng.gamma(shape, mean / shape, size=int(2 * (b - a) / mean) + 8))
        out.append(t[t < b - 0.3])
    return np.concatenate(out) if out else np.empty(0)


def _attach(waves: NDArray[np.float64], targets: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Move the nearest wave so that its down state ends shortly before each target."""
    if not len(waves) or not len(targets):
        return waves
    moved = waves.copy()
    k = np.clip(np.searchsorted(waves, targets), 0, len(waves) - 1)
    moved[k] = targets - rng.uniform(0.08, 0.28, len(targets))
    moved.sort()
    return moved[np.r_[True, np.diff(moved) > 0.35]]


def _ripples(
    bouts: pd.DataFrame,
    decoys: NDArray[np.float64],
    still: Intervals,
    reactivation: EventTable,
    model: RippleModel,
    background: float,
    rng: np.random.Generator,
) -> tuple[EventTable, NDArray[np.intp]]:
    """The ripples of the reactivations and those without, in time order and apart by 150 ms; and the ripple of each reactivation."""
    start, stop = np.asarray(reactivation.start), np.asarray(reactivation.stop)
    length = np.clip(rng.gamma(model.ripple_shape, model.ripple_length / model.ripple_shape, len(decoys)), 0.02, 0.3)
    u, paused = rng.random(len(decoys)), still.contains(decoys)
    carries = np.where(paused & (u < model.awake_replay), "awake_replay", np.where(~paused & (u < model.shuffled_share), "shuffled", "")).astype(object)
    length = np.where(carries == "", length, replay_length(rng, len(decoys)))
    busy = Intervals.merge(np.c_[start - 0.15, stop + 0.15]) if len(start) else Intervals()
    fits = ~busy.contains(decoys) & ~busy.contains(decoys + length) & (np.r_[np.inf, np.diff(decoys)] > 0.4)
    fits &= decoys + length < bouts["stop"].iloc[-1]
    decoys, length, carries = decoys[fits], length[fits], carries[fits]
    begin, end = np.r_[start, decoys], np.r_[stop, decoys + length]
    replay = np.r_[np.arange(len(start)), np.full(len(decoys), -1)]
    carries = np.r_[np.full(len(start), "reactivation", dtype=object), carries]
    order = np.argsort(begin, kind="stable")
    amplitude = model.ripple_amplitude * np.exp(model.ripple_spread * rng.standard_normal(len(begin)))
    amplitude[: len(start)] *= 1.15
    frequency = model.ripple_frequency * (1 + 0.08 * np.clip(rng.standard_normal(len(begin)), -2, 2))
    stage = bouts["stage"].to_numpy()[np.clip(np.searchsorted(bouts["start"].to_numpy(), begin, side="right") - 1, 0, None)]
    table = EventTable(
        begin[order], end[order], kind="ripple", amplitude=amplitude[order], frequency=frequency[order], snr=amplitude[order] / background,
        replay=replay[order], carries=carries[order], stage=stage[order].astype(object),
    )  # fmt: skip
    row = np.empty(len(begin), dtype=np.intp)
    row[order] = np.arange(len(begin))
    return table, row[: len(start)]


def _spindles(nrem: Intervals, waves: NDArray[np.float64], model: RippleModel, rng: np.random.Generator) -> EventTable:
    top = 1 + model.infraslow_depth
    t = _poisson(nrem, top * model.spindle_rate, rng)
    t = t[rng.random(len(t)) < (1 + model.infraslow_depth * np.sin(2 * np.pi * t / model.infraslow_period)) / top]
    if len(waves) and len(t):
        after = rng.random(len(t)) < model.spindle_coupling
        k = np.clip(np.searchsorted(waves, t), 0, len(waves) - 1)
        t = np.sort(np.where(after, waves[k] + 0.2, t))
    length = np.clip(0.7 * np.exp(0.3 * rng.standard_normal(len(t))), 0.35, 2.0)
    keep = np.r_[True, np.diff(t) > 2.0][: len(t)] & nrem.covers(t, t + length) if len(t) else np.zeros(0, dtype=bool)
    t, length = t[keep], length[keep]
    return EventTable(
        t, t + length, kind="spindle", frequency=12.5 + 1.2 * np.clip(rng.standard_normal(len(t)), -2, 2), amplitude=np.exp(0.35 * rng.standard_normal(len(t)))
    )
