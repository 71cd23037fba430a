"""What happens in rest besides the stages: slow waves, spindles, ripples, and the replay that some ripples carry."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable, Intervals
from brainmu.core.limits import check_model, number
from brainmu.errors import InputError
from brainmu.synth.effects import Life, Mechanism, live, replay_length
from brainmu.synth.sleep import RodentSleep

__all__ = ["Microstructure", "RippleModel", "microstructure", "rest_before"]

_SHORTEST = 0.02  # s; about three cycles
_ELSEWHERE = "elsewhere"  # content of the events of a place that is never visited


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
        Median peak amplitude, and SD of its logarithm; the lower end lies within the background. Those that carry a replay are 15 % larger.
    ripple_length, ripple_shape : float, s and 1
        Mean and shape of the length of ripples without replay: 20 ms and a gamma distribution on top. Those with replay are longer on average [2]_
        (50 ms and a gamma of mean 75 ms and shape 3), but the two overlap: length alone does not tell them apart.
    ripple_coupling : float
        Share of ripples that follow the down state of a slow wave by 80-280 ms; the locking is that of [3]_, the delays are an assumption.
    slow_wave_interval : float, s
        Mean interval of slow waves in NREM.
    shuffled_share : float
        Share of the ripples without replay that are decoys: spikes as in a replay, but with the cells' identities shuffled.
    rate_matched_share, burst_share : float
        Shares that are decoys of other kinds: the spikes of a replay, each cell as often as in one, at shuffled times; a population burst in no order.
    burst_rate : float, 1/s
        Population bursts in no order and without a ripple, in NREM.
    outside_ripples : float
        Share of the reactivations that come without a ripple [5]_.
    preplay : float
        Rate of reactivations of the tracks in a rest before they were ever run, relative to the rest after. At 0 (the default) that rest holds as many
        events, all of a place that is never visited. Whether it is above chance is disputed [6]_, [7]_.
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
    .. [5] Denovellis EL et al. (2021). Hippocampal replay of experience at real-world speeds. eLife 10:e64505.
    .. [6] Dragoi G, Tonegawa S (2011). Preplay of future place cell sequences by hippocampal cellular assemblies. Nature 469:397.
    .. [7] Silva D, Feng T, Foster DJ (2015). Trajectory events across hippocampal place cells require previous experience. Nature Neuroscience 18:1772.
    """

    ripple_rate: float = 0.30
    wake_ripple_rate: float = 0.08
    ripple_frequency: float = 176.0
    ripple_amplitude: float = 55.0
    ripple_spread: float = 0.5
    ripple_length: float = 0.065
    ripple_shape: float = 2.0
    ripple_coupling: float = 0.6
    slow_wave_interval: float = 1.3
    shuffled_share: float = 0.1
    rate_matched_share: float = 0.0
    burst_share: float = 0.0
    burst_rate: float = 0.0
    outside_ripples: float = 0.0
    preplay: float = 0.0
    awake_replay: float = 0.3
    spindle_rate: float = 0.11
    spindle_coupling: float = 0.5
    infraslow_depth: float = 0.6
    infraslow_period: float = 50.0

    def __post_init__(self) -> None:
        check_model(
            self,
            positive=("ripple_frequency", "ripple_amplitude", "ripple_length", "ripple_shape", "slow_wave_interval", "infraslow_period"),
            shares=(
                "ripple_coupling",
                "shuffled_share",
                "rate_matched_share",
                "burst_share",
                "outside_ripples",
                "preplay",
                "awake_replay",
                "spindle_coupling",
                "infraslow_depth",
            ),
        )
        number("ripple_length", self.ripple_length, _SHORTEST, above=True)
        total = self.shuffled_share + self.rate_matched_share + self.burst_share
        if total > 1 + 1e-9:
            raise InputError(f"shuffled_share, rate_matched_share and burst_share come to {total:g} of the ripples without replay, expected at most 1")


@dataclass
class Microstructure:
    """The events of one recording; reactivations point to their ripple and back, decoys (kind identity_shuffled, rate_matched, burst, other_map) to theirs."""

    ripples: EventTable
    reactivation: EventTable
    awake: EventTable
    shuffled: EventTable
    spindles: EventTable
    slow_waves: EventTable
    rate_matched: EventTable
    bursts: EventTable
    other_map: EventTable


def rest_before(
    mechanism: Mechanism, sleep: RodentSleep, life: Life, stop: float, preplay: float, rng: np.random.Generator
) -> tuple[pd.DataFrame, EventTable, EventTable]:
    """The rest of the animal of `life` from 0 to `stop` s, before it ever ran: its bouts, its reactivations of the tracks to come, and the unrelated events.

    Together the events come as often as the reactivations afterwards; the unrelated ones do nothing to sleep. There are no trials.
    """
    if stop == 0:
        return pd.DataFrame({"stage": [], "start": [], "stop": []}), EventTable([], [], content=[]), EventTable([], [])
    # What the day brings has not happened yet, but the events come as often as they will, so that only their content tells before from after.
    rate = {c: r * float(np.exp(life.animal["log_reactivation_rate"])) for c, r in mechanism.rates.items()}
    before = dataclasses.replace(
        mechanism, trials=False, feedback=0.0, animal_sd=0.0, effect_sd=0.0, log_hazard_ratio=dict(life.animal["log_hazard_ratio"]), experience="control",
        reactivation_rate={c: r * preplay for c, r in rate.items()} | {_ELSEWHERE: (1 - preplay) * sum(rate.values())},
    )  # fmt: skip
    own_sleep = dataclasses.replace(sleep, wake_rate=sleep.wake_rate * float(np.exp(life.animal["log_wake_hazard"])))
    rest = live(before, own_sleep, 0.0, stop, rng, latency=min(180.0, 0.1 * stop))
    events = rest.reactivation[rest.reactivation.stop < stop] if len(rest.reactivation) else rest.reactivation
    elsewhere = np.asarray(events.content) == _ELSEWHERE
    return rest.bouts, events[~elsewhere], events[elsewhere]


def microstructure(
    bouts: pd.DataFrame, pauses: EventTable, reactivation: EventTable, contexts: dict[str, str], model: RippleModel, background: float,
    rng: np.random.Generator, own: np.random.Generator, unrelated: EventTable | None = None, run_from: float = 0.0,
) -> Microstructure:  # fmt: skip
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
    own : Generator
        For decoys and for replays outside ripples.
    unrelated : EventTable
        When a place that is never visited was played.
    run_from : float, s
        When the running began.
    """
    unrelated = EventTable([], []) if unrelated is None else unrelated
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
    lasting = Intervals([[a, b] for a, b in _spans(bouts, "WAKE") if b - a > 20]).subtract(_running_time(run_from, still))
    calm = np.r_[_poisson(lasting, model.wake_ripple_rate, rng), _poisson(still, model.wake_ripple_rate, rng)]
    decoys = np.sort(np.r_[free[nrem.contains(free)], calm])
    outside = (own.random(len(start)) < model.outside_ripples) & _clear(reactivation, unrelated)
    ripples, row, other_row = _ripples(bouts, decoys, still, reactivation, unrelated, outside, model, background, rng)
    direction = np.where(rng.random(len(start)) < np.where(asleep, 0.7, 0.5), "forward", "reverse").astype(object)
    context = np.array([contexts[c] for c in reactivation.content], dtype=object)
    carried = reactivation.assign(context=context, direction=direction, ripple=row, amplitude=_amplitude(ripples, row))
    amplitude = np.exp(0.35 * rng.standard_normal(len(waves)))
    slow = EventTable(waves - 0.25, waves + 0.25, waves, kind="slow_wave", amplitude=amplitude)
    awake = _sweeps(ripples, "awake_replay", 0.35, rng)
    k = np.searchsorted(pauses.start, awake.start, side="right") - 1
    here = np.asarray(pauses.content, dtype=object)[k] if len(awake) else np.empty(0, dtype=object)
    shuffled = _sweeps(ripples, "shuffled", 0.7, rng)
    other = rng.choice(list(contexts.values()), len(shuffled)).astype(object)
    return Microstructure(
        ripples, carried, awake.assign(context=here, content=here), shuffled.assign(context=other), _spindles(nrem, waves, model, rng), slow,
        _imitated(_sweeps(ripples, "rate_matched", 0.7, own), contexts, own), _population_bursts(ripples, nrem, model, own),
        _unrelated(unrelated, other_row, contexts, own),
    )  # fmt: skip


def _clear(events: EventTable, others: EventTable) -> NDArray[np.bool_]:
    """Which events keep 0.2 s away from all that have a ripple of their own: one that overlaps another would lie in its ripple."""
    start, stop = np.r_[events.start, others.start], np.r_[events.stop, others.stop]
    order = np.argsort(start, kind="stable")
    before = np.r_[-np.inf, np.maximum.accumulate(stop[order])][: len(start)]
    after = np.r_[start[order], np.inf][1:]
    alone = np.empty(len(start), dtype=bool)
    alone[order] = (start[order] - before > 0.2) & (after - stop[order] > 0.2)
    return alone[: len(events)]


def _amplitude(ripples: EventTable, row: NDArray[np.intp]) -> NDArray[np.float64]:
    """Amplitude (n,), uV, of the ripple of each event; 0 for those without."""
    return np.where(row >= 0, ripples.amplitude[np.maximum(row, 0)], 0.0) if len(ripples) else np.zeros(len(row))


def _imitated(events: EventTable, contexts: dict[str, str], rng: np.random.Generator) -> EventTable:
    return events.assign(context=rng.choice(list(contexts.values()), len(events)).astype(object))


def _unrelated(events: EventTable, row: NDArray[np.intp], contexts: dict[str, str], rng: np.random.Generator) -> EventTable:
    direction = np.where(rng.random(len(events)) < 0.6, "forward", "reverse").astype(object)
    return _imitated(EventTable(events.start, events.stop, kind="other_map", direction=direction, ripple=row), contexts, rng)


def _population_bursts(ripples: EventTable, nrem: Intervals, model: RippleModel, rng: np.random.Generator) -> EventTable:
    """Bursts in no order: in ripples that carry them, and between ripples in NREM."""
    inside = np.flatnonzero(ripples.carries == "burst")
    t = _poisson(nrem, model.burst_rate, rng)
    length = replay_length(rng, len(t))
    free = nrem.subtract(Intervals.merge(np.c_[ripples.start - 0.1, ripples.stop + 0.1])) if len(ripples) else nrem
    keep = free.covers(t, t + length) & (np.diff(t, prepend=-np.inf) > 0.5) if len(t) else np.zeros(0, dtype=bool)
    t, length = t[keep], length[keep]
    start, stop = np.r_[ripples.start[inside], t], np.r_[ripples.stop[inside], t + length]
    return EventTable(start, stop, kind="burst", ripple=np.r_[inside, np.full(len(t), -1)]).sorted()


def _sweeps(ripples: EventTable, what: str, forward: float, rng: np.random.Generator) -> EventTable:
    """The ripples that carry `what`, with a direction of travel each and their row."""
    row = np.flatnonzero(ripples.carries == what)
    direction = np.where(rng.random(len(row)) < forward, "forward", "reverse").astype(object)
    return EventTable(ripples.start[row], ripples.stop[row], kind="replay" if what == "awake_replay" else what, direction=direction, ripple=row)


def _running_time(run_from: float, still: Intervals) -> Intervals:
    """From the start of the running to half a minute after the last pause on a track."""
    return Intervals([[min(still.start[0], run_from), still.stop[-1] + 30.0]]) if len(still) else Intervals()


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
    unrelated: EventTable,
    outside: NDArray[np.bool_],
    model: RippleModel,
    background: float,
    rng: np.random.Generator,
) -> tuple[EventTable, NDArray[np.intp], NDArray[np.intp]]:
    """The ripples of the events and those without, in time order and apart by 150 ms; and the ripple of each reactivation and of each unrelated event.

    The reactivations that are `outside` have none (-1).
    """
    n, extra = len(reactivation), len(unrelated)
    start, stop = np.r_[reactivation.start, unrelated.start], np.r_[reactivation.stop, unrelated.stop]
    length = np.minimum(_SHORTEST + rng.gamma(model.ripple_shape, (model.ripple_length - _SHORTEST) / model.ripple_shape, len(decoys)), 0.3)
    u, paused = rng.random(len(decoys)), still.contains(decoys)
    shares = np.cumsum([model.shuffled_share, model.rate_matched_share, model.burst_share])
    kinds = np.array(["shuffled", "rate_matched", "burst", ""], dtype=object)[np.searchsorted(shares, u, side="right")]
    carries = np.where(paused, np.where(u < model.awake_replay, "awake_replay", ""), kinds).astype(object)
    length = np.where(carries == "", length, replay_length(rng, len(decoys)))
    busy = Intervals.merge(np.c_[start - 0.15, stop + 0.15]) if len(start) else Intervals()
    fits = ~busy.contains(decoys) & ~busy.contains(decoys + length) & (np.r_[np.inf, np.diff(decoys)] > 0.4)
    fits &= decoys + length < bouts["stop"].iloc[-1]
    decoys, length, carries = decoys[fits], length[fits], carries[fits]
    begin, end = np.r_[start, decoys], np.r_[stop, decoys + length]
    replay = np.r_[np.arange(n), np.full(extra + len(decoys), -1)]
    carries = np.r_[np.repeat(np.array(["reactivation", "other_map"], dtype=object), [n, extra]), carries]
    order = np.argsort(begin, kind="stable")
    amplitude = model.ripple_amplitude * np.exp(model.ripple_spread * rng.standard_normal(len(begin)))
    amplitude[: len(start)] *= 1.15
    frequency = model.ripple_frequency * (1 + 0.08 * np.clip(rng.standard_normal(len(begin)), -2, 2))
    stage = bouts["stage"].to_numpy()[np.clip(np.searchsorted(bouts["start"].to_numpy(), begin, side="right") - 1, 0, None)]
    order = order[~np.r_[outside, np.zeros(len(begin) - n, dtype=bool)][order]]
    table = EventTable(
        begin[order], end[order], kind="ripple", amplitude=amplitude[order], frequency=frequency[order], snr=amplitude[order] / background,
        replay=replay[order], carries=carries[order], stage=stage[order].astype(object),
    )  # fmt: skip
    row = np.full(len(begin), -1, dtype=np.intp)
    row[order] = np.arange(len(order))
    return table, row[:n], row[n : n + extra]


def _spindles(nrem: Intervals, waves: NDArray[np.float64], model: RippleModel, rng: np.random.Generator) -> EventTable:
    top = 1 + model.infraslow_depth
    t = _poisson(nrem, top * model.spindle_rate, rng)
    # Where the rhythm stands at the start differs from recording to recording: the clock must not tell when spindles come.
    phase = rng.spawn(1)[0].uniform(0, 2 * np.pi)
    t = t[rng.random(len(t)) < (1 + model.infraslow_depth * np.sin(2 * np.pi * t / model.infraslow_period + phase)) / top]
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
