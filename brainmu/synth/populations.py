"""Cells beside those of CA1: head direction, and a cortical and an amygdala-like population that answer to what the hippocampus reactivates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable
from brainmu.core.limits import check_model, number
from brainmu.synth.effects import ornstein_uhlenbeck
from brainmu.synth.noise import lookup
from brainmu.synth.signals import Drivers
from brainmu.synth.track import Run
from brainmu.synth.truth import HeadTuning

__all__ = ["Companions", "PopulationModel", "heading_of", "populations"]

_HEADING_RATE = 25.0  # Hz of the latent heading
# Mean rate by state (active, quiet, NREM, REM) relative to quiet waking.
_STATE = {
    "head_direction": np.array([1.0, 0.9, 0.7, 1.0]), "pyramidal": np.array([1.1, 1.0, 0.9, 0.9]), "interneuron": np.array([1.2, 1.0, 0.8, 1.0]),
    "principal": np.array([1.1, 1.0, 0.9, 1.0]),
}  # fmt: skip


@dataclass(frozen=True)
class PopulationModel:
    """Firing outside CA1.

    Parameters
    ----------
    head_peak, head_floor : float, Hz
        Median rate of a head-direction cell in its preferred direction and away from it; the peaks are log-normal, SD 0.3. About 40 and 1 Hz [1]_.
    head_width : float, degrees
        SD of the tuning curve (von Mises).
    head_sleep : float
        How many times faster than in waking the coded direction wanders in NREM; in REM as in waking [2]_.
    cortical_rate, cortical_inter_rate : float, Hz
        Median rate of cortical pyramidal cells and interneurons in quiet waking.
    cortical_inter_share : float
        Share of interneurons.
    cortical_selective : float
        Share of the pyramidal cells that belong to the assembly of a content.
    cortical_lag, cortical_jitter : float, s
        The cortical assembly follows the start of a replay by this much; SD. Tens of milliseconds [3]_; the number is an assumption.
    cortical_coupling : float
        Chance that the assembly follows a given replay.
    cortical_gain : float, Hz
        Rate of its cells while it does, on top of their own.
    amygdala_rate : float, Hz
        Median rate of principal cells of the basolateral amygdala, which is low.
    amygdala_selective : float
        Share of them that prefer a content.
    amygdala_coupling, amygdala_gain : float and Hz
        Chance that they answer to a reactivation of that content [4]_, and their rate while it lasts.
    context_gain : float
        Factor on the rate of cells that prefer a content while the animal is in its context.
    down_rate : float
        Rate of cortical and amygdala cells in a down state relative to outside; head-direction cells keep 0.3.

    References
    ----------
    .. [1] Taube JS (1995). Head direction cells recorded in the anterior thalamic nuclei of freely moving rats. Journal of Neuroscience 15:70.
    .. [2] Peyrache A et al. (2015). Internally organized mechanisms of the head direction sense. Nature Neuroscience 18:569.
    .. [3] Ji D, Wilson MA (2007). Coordinated memory replay in the visual cortex and hippocampus during sleep. Nature Neuroscience 10:100.
    .. [4] Girardeau G, Inema I, Buzsáki G (2017). Reactivations of emotional memory in the hippocampus-amygdala system during sleep.
       Nature Neuroscience 20:1634.
    """

    head_peak: float = 30.0
    head_floor: float = 1.0
    head_width: float = 30.0
    head_sleep: float = 10.0
    cortical_rate: float = 1.5
    cortical_inter_rate: float = 9.0
    cortical_inter_share: float = 0.2
    cortical_selective: float = 0.6
    cortical_lag: float = 0.05
    cortical_jitter: float = 0.01
    cortical_coupling: float = 0.7
    cortical_gain: float = 12.0
    amygdala_rate: float = 0.6
    amygdala_selective: float = 0.6
    amygdala_coupling: float = 0.7
    amygdala_gain: float = 12.0
    context_gain: float = 2.5
    down_rate: float = 0.03

    def __post_init__(self) -> None:
        shares = ("cortical_inter_share", "cortical_selective", "cortical_coupling", "amygdala_selective", "amygdala_coupling", "down_rate")
        check_model(self, positive=("head_peak", "head_width"), shares=shares)
        for name in ("head_peak", "cortical_gain", "amygdala_gain"):
            number(name, getattr(self, name), most=1000.0)


@dataclass
class Companions:
    """The cells outside CA1.

    Attributes
    ----------
    times : list of float64 (n,), s
        Spikes of each unit, in time order.
    table : DataFrame
        One row a unit: id, region, type, prefers (content or ""), rate (Hz in quiet waking).
    head : HeadTuning or None
    """

    times: list[NDArray[np.float64]]
    table: pd.DataFrame
    head: HeadTuning | None


def heading_of(run: Run, rng: np.random.Generator) -> NDArray[np.float64]:
    """Unwrapped heading (n,), rad, on the frames of a run: where the animal goes, or last went, with scanning of the head (SD 12 degrees)."""
    step = np.gradient(run.path, axis=0)
    rate = (len(run.time) - 1) / (run.time[-1] - run.time[0])
    going = np.hypot(*step.T) * rate > 0.03
    last = np.maximum.accumulate(np.where(going, np.arange(len(going)), -1))
    last = np.where(last < 0, np.argmax(going), last)
    angle = np.arctan2(step[:, 1], step[:, 0])[last]
    # A turn takes a few hundred milliseconds.
    width = max(1, round(0.15 * rate))
    kernel = np.hanning(2 * width + 1) / np.hanning(2 * width + 1).sum()
    angle = np.convolve(np.pad(np.unwrap(angle), width, mode="edge"), kernel, mode="valid")
    return angle + np.deg2rad(12.0) * ornstein_uhlenbeck(rng, len(angle), 0.6, 1 / rate)


def populations(
    n_head: int, n_cortical: int, n_amygdala: int, model: PopulationModel, contexts: Mapping[str, str], runs: list[Run], headings: list[NDArray[np.float64]],
    d: Drivers, events: EventTable, waves: NDArray[np.float64], first_id: int, stop: float, rng: np.random.Generator,
) -> Companions:  # fmt: skip
    """Spikes of all cells outside CA1 from 0 to `stop` s.

    Parameters
    ----------
    contexts : mapping of context to content
    headings : list of float64 (n,), rad
        Heading on the frames of each run.
    events : EventTable
        Replays (start, stop, content) that cortex and amygdala answer to.
    waves : float64 (n,), s
        Middles of the down states.
    first_id : int
        Id of the first unit.
    """
    head, cortex, amygdala = (np.random.default_rng(s) for s in rng.integers(1 << 62, size=3))
    times, rows, tuning = [], [], None
    if n_head:
        tuning, spikes = _head(n_head, model, runs, headings, d, waves, first_id, stop, head)
        times += spikes
        rows += [("ADN", "head_direction", "", float(p)) for p in tuning.rate.max(1)]
    contents = list(contexts.values())
    n_inter = round(model.cortical_inter_share * n_cortical)
    for region, kind, n, rate, r in (
        ("PFC", "pyramidal", n_cortical - n_inter, model.cortical_rate, cortex), ("PFC", "interneuron", n_inter, model.cortical_inter_rate, cortex),
        ("BLA", "principal", n_amygdala, model.amygdala_rate, amygdala),
    ):  # fmt: skip
        share = {"pyramidal": model.cortical_selective, "interneuron": 0.0, "principal": model.amygdala_selective}[kind]
        coded = ["" if k >= round(share * n) else contents[k % len(contents)] for k in range(n)]
        base = rate * np.exp((0.3 if kind == "interneuron" else 0.7) * r.standard_normal(n))
        answers = _answers(events, model, region, r) if n else []
        for k in range(n):
            own = _background(base[k], kind, coded[k], contexts, runs, d, waves, model, stop, r)
            times.append(np.sort(np.r_[own, _evoked(answers, coded[k], model.cortical_gain if region == "PFC" else model.amygdala_gain, r)]))
            rows.append((region, kind, coded[k], float(base[k])))
    table = pd.DataFrame(rows, columns=["region", "type", "prefers", "rate"])
    table.insert(0, "id", np.arange(first_id, first_id + len(rows), dtype=np.int32))
    return Companions([_apart(t[(t >= 0) & (t < stop)]) for t in times], table, tuning)


def _head(
    n: int, model: PopulationModel, runs: list[Run], headings: list[NDArray[np.float64]], d: Drivers, waves: NDArray[np.float64], first_id: int, stop: float,
    rng: np.random.Generator,
) -> tuple[HeadTuning, list[NDArray[np.float64]]]:  # fmt: skip
    time = np.arange(int(np.ceil(stop * _HEADING_RATE)) + 2) / _HEADING_RATE
    # In rest the coded direction wanders by itself; on a track it is the heading.
    nrem = lookup(d.weights[:, 2], (time - d.time[0]) / (d.time[1] - d.time[0]))
    pace = 0.9 * (1 + (model.head_sleep - 1) * nrem) * ornstein_uhlenbeck(rng, len(time), 0.5, 1 / _HEADING_RATE)
    heading = np.cumsum(pace) / _HEADING_RATE
    before = 0
    for run, true in zip(runs, headings):
        a, b = np.searchsorted(time, [run.time[0], run.time[-1]])
        inside = np.interp(time[a:b], run.time, true)
        # Before and after, the wandering direction meets the true one without a leap: all of it is turned, or between two runs more and more.
        if a < b:
            turn = (inside[0] - heading[a] + np.pi) % (2 * np.pi) - np.pi
            inside = inside + 2 * np.pi * np.round((heading[a] + turn - inside[0]) / (2 * np.pi))
            heading[before:a] += turn * (np.linspace(0, 1, a - before) if before else 1.0)
            heading[b:] += inside[-1] - heading[b - 1]
            heading[a:b] = inside
            before = b
    preferred = np.sort((np.arange(n) / n * 2 * np.pi + rng.uniform(0, 2 * np.pi) + 0.3 * rng.standard_normal(n) + np.pi) % (2 * np.pi) - np.pi)
    peak, kappa = model.head_peak * np.exp(0.3 * rng.standard_normal(n)), 1 / np.deg2rad(model.head_width) ** 2
    angle = np.linspace(-np.pi, np.pi, 121)
    rate = model.head_floor + peak[:, None] * np.exp(kappa * (np.cos(angle - preferred[:, None]) - 1))
    gain, times = d.weights @ _STATE["head_direction"], []
    for u in range(n):
        top = rate[u].max() * gain.max()
        t = np.sort(rng.random(rng.poisson(top * stop))) * stop
        now = model.head_floor + peak[u] * np.exp(kappa * (np.cos(lookup(heading, t * _HEADING_RATE) - preferred[u]) - 1))
        now *= lookup(gain, (t - d.time[0]) / (d.time[1] - d.time[0])) * np.where(_near(t, waves) < 0.075, 0.3, 1.0)
        times.append(t[rng.random(len(t)) * top < now])
    return HeadTuning(preferred, rate, angle, np.arange(first_id, first_id + n, dtype=np.int32), time, heading), times


def _background(
    base: float, kind: str, prefers: str, contexts: Mapping[str, str], runs: list[Run], d: Drivers, waves: NDArray[np.float64], model: PopulationModel,
    stop: float, rng: np.random.Generator,
) -> NDArray[np.float64]:  # fmt: skip
    """Firing by state: silent in down states, more in the up state that follows, more in the context that is preferred."""
    gain = d.weights @ _STATE[kind]
    top = 1.5 * base * gain.max() * max(model.context_gain, 1.0)
    t = np.sort(rng.random(rng.poisson(top * stop))) * stop
    rate = base * lookup(gain, (t - d.time[0]) / (d.time[1] - d.time[0]))
    k = np.searchsorted(waves, t, side="right") - 1
    since = np.where(k >= 0, t - waves[np.maximum(k, 0)], np.inf) if len(waves) else np.full(len(t), np.inf)
    rate *= np.where((since > 0.1) & (since < 0.4), 1.5, 1.0)
    rate *= np.where(_near(t, waves) < 0.1, model.down_rate, 1.0)
    for run in runs:
        if prefers and contexts[run.context] == prefers:
            rate = np.where((t >= run.start) & (t < run.stop), rate * model.context_gain, rate)
    return t[rng.random(len(t)) * top < rate]


def _answers(events: EventTable, model: PopulationModel, region: str, rng: np.random.Generator) -> list[tuple[str, NDArray[np.float64]]]:
    """Content, and the spans (n, 2), s, of the answers to its reactivations: one draw for the whole population, which answers together."""
    lag, jitter, chance = (model.cortical_lag, model.cortical_jitter, model.cortical_coupling) if region == "PFC" else (0.0, 0.0, model.amygdala_coupling)
    follows, shift = rng.random(len(events)) < chance, lag + jitter * np.clip(rng.standard_normal(len(events)), -2, 2)
    spans, content = np.c_[events.start + shift, events.stop + shift][follows], np.asarray(events.content, dtype=object)[follows]
    return [(c, spans[content == c]) for c in dict.fromkeys(content)]


def _evoked(answers: list[tuple[str, NDArray[np.float64]]], prefers: str, gain: float, rng: np.random.Generator) -> NDArray[np.float64]:
    for content, spans in answers:
        if content == prefers:
            k = np.repeat(np.arange(len(spans)), rng.poisson(gain * (spans[:, 1] - spans[:, 0])))
            return spans[k, 0] + rng.random(len(k)) * (spans[k, 1] - spans[k, 0])
    return np.empty(0)


def _near(t: NDArray[np.float64], waves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Time (n,), s, from each of `t` to the nearest of `waves`."""
    if not len(waves):
        return np.full(len(t), np.inf)
    k = np.searchsorted(waves, t)
    return np.minimum(np.abs(t - waves[np.minimum(k, len(waves) - 1)]), np.abs(t - waves[np.maximum(k - 1, 0)]))


def _apart(t: NDArray[np.float64], dead: float = 0.002) -> NDArray[np.float64]:
    """Without the spikes that follow another within `dead` s."""
    while len(t):
        close = np.r_[False, np.diff(t) < dead]
        close &= ~np.r_[False, close[:-1]]
        if not close.any():
            break
        t = t[~close]
    return t
