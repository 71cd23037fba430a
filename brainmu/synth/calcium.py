"""Light from spikes: ROI fluorescence and fibre photometry, with bleaching, neuropil, motion and noise, made when read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.signal import lfilter

from brainmu.config import suggest
from brainmu.core import EventTable, Signal, Spikes
from brainmu.core.limits import check_model, number, whole
from brainmu.errors import InputError
from brainmu.synth.effects import ornstein_uhlenbeck
from brainmu.synth.noise import BLOCK, Streamed

__all__ = ["INDICATORS", "CalciumModel", "CalciumTruth", "Indicator", "PhotometryModel", "PhotometryTruth", "calcium", "photometry"]

_LOOK_BACK = 20.0  # decay times after which a spike has no light left (2e-9 of its peak)
_MEDIAN_STEP = 0.954  # median of the absolute difference of two draws of Gaussian noise, over its SD


@dataclass(frozen=True)
class Indicator:
    """What one spike looks like.

    Parameters
    ----------
    amplitude : float, dF/F
        Peak after a single spike.
    rise : float, s
        From the spike to the peak.
    decay : float, s
        From the peak to half of it.
    """

    amplitude: float
    rise: float
    decay: float

    def __post_init__(self) -> None:
        check_model(self)
        for name in ("amplitude", "rise", "decay"):
            number(name, getattr(self, name), above=True)
        if self.rise >= self.decay / _SLOWEST:
            raise InputError(f"rise is {self.rise:g} s and decay {self.decay:g} s, expected a peak that comes before {self.decay / _SLOWEST:.3g} s")

    @cached_property
    def constants(self) -> tuple[float, float, float]:
        """Time constants of rise and decay (s), and the height of their difference's peak."""

        def rising(d: float) -> float:
            return float(brentq(lambda r: np.log(d / r) * d * r / (d - r) - self.rise, 1e-9 * d, (1 - 1e-6) * d))

        def height(t: float, d: float) -> float:
            return float(np.exp(-t / d) - np.exp(-t / rising(d)))

        # The rise goes on beneath the fall, which so takes longer than its own exponential: both constants at once.
        d = float(brentq(lambda d: height(self.rise + self.decay, d) / height(self.rise, d) - 0.5, 1.0001 * self.rise, self.decay / np.log(2)))
        return rising(d), d, height(self.rise, d)

    def response(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """dF/F at `t` (s) after one spike; 0 before it."""
        r, d, top = self.constants
        after = np.maximum(t, 0.0)
        return self.amplitude * np.where(t >= 0, np.exp(-after / d) - np.exp(-after / r), 0.0) / top


_SLOWEST = 1.6784  # half-time over time of the peak of t exp(-t), the slowest rise there is
INDICATORS = {"GCaMP6f": Indicator(0.19, 0.045, 0.142), "GCaMP6s": Indicator(0.23, 0.179, 0.550)}
"""Single spikes in layer 2/3 of mouse visual cortex: Chen TW et al. (2013), Ultrasensitive fluorescent proteins, Nature 499:295, supplementary table 3."""


@dataclass(frozen=True)
class CalciumModel:
    """Two-photon or miniscope imaging of somata.

    Parameters
    ----------
    indicator : {"GCaMP6f", "GCaMP6s"} or Indicator
        Peak, rise and decay of one spike's light [1]_.
    frame_rate : float, Hz
        Of the microscope; 30 is a resonant scanner's or a miniscope's (an assumption).
    amplitude_spread : float
        SD of the log amplitude from cell to cell (an assumption).
    hill : float
        Exponent of light over calcium: 1 linear, above 1 bursts give more than their spikes' sum, as GCaMP6 does below saturation [1]_.
    saturation : float, dF/F
        Highest dF/F that can be reached; 0 for none (an assumption).
    baseline, baseline_spread : float, a.u. and SD of the log
        Median light of a resting cell, and how much cells differ (assumptions).
    noise : float, %/sqrt(Hz)
        Standardised noise level [2]_: the median step of dF/F from frame to frame, in percent, over the root of the frame rate. 1 is excellent, 8 poor.
    neuropil : float
        Light of the surround that lands in a cell's ROI, over the cell's own at rest. The factor to subtract is often taken as 0.7 [1]_.
    bleach, bleach_time : float, share and s
        Light that is lost in the end, and the time constant of the loss (assumptions).
    motion_rate, motion_length, motion_size : float, 1/s, s and SD over F
        Brief shifts of the plane, that brighten some ROIs and dim others (assumptions).
    output : {"raw", "dff"}
        Fluorescence (a.u.), or dF/F against the true baseline and bleaching, which keeps noise, neuropil and motion. The neuropil is part of that
        baseline: a spike's dF/F is smaller by 1 + neuropil than the indicator's.

    References
    ----------
    .. [1] Chen TW et al. (2013). Ultrasensitive fluorescent proteins for imaging neuronal activity. Nature 499:295.
    .. [2] Rupprecht P et al. (2021). A database and deep learning toolbox for noise-optimized, generalized spike inference. Nat Neurosci 24:1324.
    """

    indicator: str | Indicator = "GCaMP6f"
    frame_rate: float = 30.0
    amplitude_spread: float = 0.3
    hill: float = 1.0
    saturation: float = 0.0
    baseline: float = 500.0
    baseline_spread: float = 0.4
    noise: float = 2.0
    neuropil: float = 0.5
    bleach: float = 0.15
    bleach_time: float = 1800.0
    motion_rate: float = 1 / 60
    motion_length: float = 0.6
    motion_size: float = 0.05
    output: str = "raw"

    def __post_init__(self) -> None:
        check_model(self, positive=("frame_rate", "hill", "baseline", "bleach_time", "motion_length"), shares=("bleach",))
        number("frame_rate", self.frame_rate, 0.5, most=1000.0)
        _kinetics(self.indicator)
        if self.output not in ("raw", "dff"):
            raise InputError(f"output is {self.output!r}, expected raw or dff")


@dataclass(frozen=True)
class PhotometryModel:
    """Fibre photometry: a calcium-dependent channel (470 nm) and its isosbestic one (415 nm).

    Parameters
    ----------
    indicator : {"GCaMP6f", "GCaMP6s"} or Indicator
        Rise and decay of the light [1]_; its amplitude is not used.
    drive : str
        What makes the light: "spikes", or the name of an event label such as "reactivation" (a kind of event).
    sampling_rate : float, Hz
        Of either channel; 130 is usual for time-division pyPhotometry [2]_, 100 here.
    response : float, dF/F
        Of the whole population when every cell fires one spike at once (an assumption).
    event_response : float, dF/F
        Peak after one event, where events drive the light (an assumption).
    baseline, isosbestic : float, a.u.
        Light of either channel at the start (assumptions).
    leak : float
        Share of the signal's dF/F that the isosbestic channel shows (an assumption; 0 at the true isosbestic point).
    bleach, bleach_time : float, share and s
        Of the signal's light (assumptions).
    isosbestic_bleach, isosbestic_time : float, share and s
        Of the isosbestic channel's, which bleaches at another pace (assumptions).
    motion_rate, motion_length, motion_size : float, 1/s, s and share of F
        Bends of the fibre: dips and bumps that both channels share [3]_ (sizes are assumptions).
    drift : float, SD over F
        Slow shared wandering, with a time constant of a minute (an assumption).
    noise : float, SD over F
        Of one sample of either channel, each its own (an assumption).

    References
    ----------
    .. [1] Chen TW et al. (2013). Ultrasensitive fluorescent proteins for imaging neuronal activity. Nature 499:295.
    .. [2] Akam T, Walton ME (2019). pyPhotometry: open source Python based hardware and software for fiber photometry. Sci Rep 9:3521.
    .. [3] Lerner TN et al. (2015). Intact-brain analyses reveal distinct information carried by SNc dopamine subcircuits. Cell 162:635.
    """

    indicator: str | Indicator = "GCaMP6f"
    drive: str = "spikes"
    sampling_rate: float = 100.0
    response: float = 0.5
    event_response: float = 0.08
    baseline: float = 1.0
    isosbestic: float = 0.6
    leak: float = 0.02
    bleach: float = 0.3
    bleach_time: float = 2400.0
    isosbestic_bleach: float = 0.25
    isosbestic_time: float = 600.0
    motion_rate: float = 1 / 45
    motion_length: float = 0.8
    motion_size: float = 0.06
    drift: float = 0.01
    noise: float = 0.003

    def __post_init__(self) -> None:
        positive = ("sampling_rate", "baseline", "isosbestic", "bleach_time", "isosbestic_time", "motion_length")
        check_model(self, positive=positive, shares=("leak", "bleach", "isosbestic_bleach"))
        _kinetics(self.indicator)


def _kinetics(indicator: str | Indicator) -> Indicator:
    if isinstance(indicator, Indicator):
        return indicator
    if indicator not in INDICATORS:
        raise InputError(f"indicator is {indicator!r}{suggest(str(indicator), INDICATORS)}, expected {', '.join(INDICATORS)} or an Indicator")
    return INDICATORS[indicator]


# -- light of spikes -------------------------------------------------------------------------------------------------
def summed(times: NDArray[np.float64], indicator: Indicator, rate: float, start: float, first: int, n: int, size: NDArray[np.float64] | None = None) -> Any:
    """Responses of unit height to events at `times` (s, sorted), summed, at the frames [first, first + n) (float64 (n,)).

    A frame sees exactly what the events before it left, wherever they fell between frames.
    """
    r, d, top = indicator.constants
    back = int(np.ceil(_LOOK_BACK * d * rate))
    a = start + (first - back) / rate
    i, j = np.searchsorted(times, [a, start + (first + n - 1) / rate], side="right")
    t = times[i:j]
    k = np.clip(np.ceil((t - a) * rate - 1e-9).astype(np.intp), 0, back + n - 1)
    lag = np.maximum(a + k / rate - t, 0.0)
    weight = np.ones(len(t)) if size is None else size[i:j]
    out = np.zeros(back + n)
    for sign, tau in ((1.0, d), (-1.0, r)):
        x = np.bincount(k, weight * np.exp(-lag / tau), minlength=back + n)
        out += sign * lfilter([1.0], [1.0, -np.exp(-1.0 / (rate * tau))], x)
    return out[back:] / top


def _fading(t: NDArray[np.float64], share: float, time: float) -> NDArray[np.float64]:
    """Light that is left at `t` (s) after the lamp went on."""
    return 1.0 - share + share * np.exp(-t / time)


def _shifts(rate: float, length: float, start: float, stop: float, rng: np.random.Generator) -> EventTable:
    """Movements: log-normal lengths and sizes, either sign."""
    at = np.sort(rng.uniform(start, stop, rng.poisson(rate * (stop - start))))
    span = length * np.exp(0.4 * rng.standard_normal(len(at)))
    size = np.exp(0.5 * rng.standard_normal(len(at))) * rng.choice([-1.0, 1.0], len(at))
    return EventTable(at, at + span, kind="motion", amplitude=size)


def _displacement(events: EventTable, t: NDArray[np.float64]) -> NDArray[np.float64]:
    """The movements at `t` (n,), s, sorted: a raised cosine each."""
    out = np.zeros(len(t))
    for i in np.flatnonzero((events.stop > t[0]) & (events.start < t[-1])):
        a, b = np.searchsorted(t, [events.start[i], events.stop[i]])
        x = (t[a:b] - events.start[i]) / (events.stop[i] - events.start[i])
        out[a:b] += events.amplitude[i] * 0.5 * (1 - np.cos(2 * np.pi * x))
    return out


def _blocks(render: Callable[[int], Any], n: int, channels: int) -> Streamed:
    return Streamed((n, channels), render, cache=64 << 20)


@dataclass
class CalciumTruth:
    """What the ROIs were made from.

    Attributes
    ----------
    model : CalciumModel
    spikes : Spikes
        The spikes that made the light (not those that a sorter found).
    start : float, s
    n_frames : int
    amplitude, baseline, motion_gain : float64 (roi,), dF/F, a.u., 1
        Peak of one spike, light at rest, and what a movement of unit size does.
    motion : EventTable
        Movements; amplitude (SD).
    seed : tuple of int
    """

    model: CalciumModel
    spikes: Spikes
    start: float
    n_frames: int
    amplitude: NDArray[np.float64]
    baseline: NDArray[np.float64]
    motion_gain: NDArray[np.float64]
    motion: EventTable
    seed: tuple[int, ...]

    @cached_property
    def clean(self) -> Signal:
        """dF/F of every cell without neuropil, bleaching, motion and noise (time, roi); lazy."""
        return self._signal(_Clean(self), "dF/F")

    def _signal(self, render: Callable[[int], Any], unit: str) -> Signal:
        ids = self.spikes.units["id"].to_numpy()
        table = pd.DataFrame({"name": [f"roi_{i}" for i in ids], "kind": "calcium", "unit_id": ids, "region": self.spikes.units["region"].to_numpy()})
        return Signal(_blocks(render, self.n_frames, len(ids)), rate=self.model.frame_rate, start=self.start, unit=unit, kind="calcium", channels=table)


class _Clean:
    """dF/F of a block of frames (time, roi), noiseless."""

    def __init__(self, truth: CalciumTruth) -> None:
        self.truth, self.indicator = truth, _kinetics(truth.model.indicator)
        self.trains = [truth.spikes.of(int(i)) for i in truth.spikes.units["id"]]

    def concentration(self, k: int) -> NDArray[np.float64]:
        """Calcium (time, roi): 1 is the peak of one spike."""
        rate, start = self.truth.model.frame_rate, self.truth.start
        return np.stack([summed(t, self.indicator, rate, start, k * BLOCK, BLOCK) for t in self.trains], axis=1)

    def light(self, c: NDArray[np.float64]) -> NDArray[np.float64]:
        m = self.truth.model
        f = self.truth.amplitude * (np.maximum(c, 0.0) ** m.hill if m.hill != 1 else c)
        return f / (1 + f / m.saturation) if m.saturation else f

    def __call__(self, k: int) -> NDArray[np.float32]:
        return self.light(self.concentration(k)).astype(np.float32)


class _Roi:
    """Fluorescence of a block of frames: the ROIs, or the neuropil alone."""

    def __init__(self, truth: CalciumTruth, surround: bool = False) -> None:
        self.truth, self.clean, self.surround = truth, _Clean(truth), surround

    def __call__(self, k: int) -> NDArray[np.float32]:
        tr, m = self.truth, self.truth.model
        t = tr.start + (k * BLOCK + np.arange(BLOCK)) / m.frame_rate
        c = self.clean.concentration(k)
        around = 1.0 + c.mean(axis=1) * float(np.mean(tr.amplitude))
        left = _fading(t - tr.start, m.bleach, m.bleach_time)
        moved = _displacement(tr.motion, t)
        if self.surround:
            return (np.median(tr.baseline) * around * left * (1 + 0.3 * m.motion_size * moved))[:, None].astype(np.float32)
        f = (1.0 + self.clean.light(c) + m.neuropil * around[:, None]) * left[:, None] * np.maximum(1 + moved[:, None] * tr.motion_gain, 0.1)
        rng = np.random.default_rng(np.random.SeedSequence([*tr.seed, 1, k]))
        # Of dF/F over the whole light at rest, neuropil included, which is what a user can measure.
        sd = (1 + m.neuropil) * m.noise / 100 * np.sqrt(m.frame_rate) / _MEDIAN_STEP
        # Photons: the variance follows the light.
        f += rng.standard_normal(f.shape) * sd * np.sqrt(np.maximum(f, 0.0) / (1 + m.neuropil))
        if m.output == "dff":
            return (f / ((1 + m.neuropil) * left[:, None]) - 1).astype(np.float32)
        return (f * tr.baseline).astype(np.float32)


def _frames(start: float, stop: float, rate: float) -> int:
    number("stop", stop - start, above=True)
    return int(np.floor((stop - start) * rate + 1e-6))


def calcium(
    spikes: Spikes, stop: float, *, start: float = 0.0, model: CalciumModel | None = None, seed: int = 0
) -> tuple[dict[str, Signal], CalciumTruth]:  # fmt: skip
    """Imaging of the cells that fired `spikes`, an ROI a unit.

    Parameters
    ----------
    spikes : Spikes
    stop, start : float, s
        Span of the frames.
    model : CalciumModel or None
    seed : int

    Returns
    -------
    dict of Signal
        "calcium" (kind calcium, a.u. or dF/F, columns unit_id and region) and, for raw output, "neuropil" (the surround's light), both lazy.
    CalciumTruth
        Its `clean` is the dF/F that a perfect microscope would see.

    Examples
    --------
    >>> signals, truth = calcium(Spikes([1.0, 1.5, 4.0], [0, 0, 1]), 10.0)
    >>> signals["calcium"].n_channels, signals["calcium"].unit, round(float(truth.clean.read().max()), 2)
    (2, 'a.u.', 0.21)
    """
    model = model or CalciumModel()
    whole("seed", seed)
    if not spikes.n_units:
        raise InputError("calcium needs units, the spikes have none")
    rng = np.random.default_rng(np.random.SeedSequence([seed, 81, 0]))
    n, amplitude = spikes.n_units, _kinetics(model.indicator).amplitude
    truth = CalciumTruth(
        model, spikes, float(start), _frames(start, stop, model.frame_rate), amplitude * np.exp(model.amplitude_spread * rng.standard_normal(n)),
        model.baseline * np.exp(model.baseline_spread * rng.standard_normal(n)), model.motion_size * rng.standard_normal(n),
        _shifts(model.motion_rate, model.motion_length, start, stop, rng), (seed, 81),
    )  # fmt: skip
    out = {"calcium": truth._signal(_Roi(truth), "a.u." if model.output == "raw" else "dF/F")}
    if model.output == "raw" and model.neuropil:
        values = _blocks(_Roi(truth, surround=True), truth.n_frames, 1)
        out["neuropil"] = Signal(values, rate=model.frame_rate, start=truth.start, unit="a.u.", kind="other", channels=["neuropil"])
    return out, truth


# -- photometry ------------------------------------------------------------------------------------------------------
@dataclass
class PhotometryTruth:
    """What the light of the fibre was made from.

    Attributes
    ----------
    model : PhotometryModel
    times : float64 (n,), s
        Spikes of all cells, or events.
    response : float, dF/F
        Peak that one of them adds.
    start : float, s
    n_samples : int
    motion : EventTable
        Bends of the fibre; amplitude in units of the model's `motion_size`.
    drift : float64 (k,)
        Slow shared wandering, 1 Hz from `start`.
    seed : tuple of int
    """

    model: PhotometryModel
    times: NDArray[np.float64]
    response: float
    start: float
    n_samples: int
    motion: EventTable
    drift: NDArray[np.float64]
    seed: tuple[int, ...]

    @cached_property
    def clean(self) -> Signal:
        """dF/F without bleaching, motion and noise; lazy."""
        values = _blocks(_CleanFibre(self), self.n_samples, 1)
        return Signal(values, rate=self.model.sampling_rate, start=self.start, unit="dF/F", kind="photometry", channels=["signal_470"])

    def shared(self, t: NDArray[np.float64]) -> NDArray[np.float64]:
        """What motion adds at `t` (n,), s, sorted, over the light: the same in both channels."""
        slow = np.interp(t - self.start, np.arange(len(self.drift)), self.drift)
        return np.maximum(self.model.motion_size * _displacement(self.motion, t) + slow, -0.9)


class _CleanFibre:
    def __init__(self, truth: PhotometryTruth) -> None:
        self.truth, self.indicator = truth, _kinetics(truth.model.indicator)

    def dff(self, k: int) -> NDArray[np.float64]:
        tr = self.truth
        return tr.response * summed(tr.times, self.indicator, tr.model.sampling_rate, tr.start, k * BLOCK, BLOCK)

    def __call__(self, k: int) -> NDArray[np.float32]:
        return self.dff(k)[:, None].astype(np.float32)


class _Fibre(_CleanFibre):
    """Light of a block: the signal and the isosbestic channel."""

    def __call__(self, k: int) -> NDArray[np.float32]:
        tr, m = self.truth, self.truth.model
        t = tr.start + (k * BLOCK + np.arange(BLOCK)) / m.sampling_rate
        dff, moved = self.dff(k), 1 + tr.shared(t)
        light = np.stack([
            m.baseline * _fading(t - tr.start, m.bleach, m.bleach_time) * (1 + dff) * moved,
            m.isosbestic * _fading(t - tr.start, m.isosbestic_bleach, m.isosbestic_time) * (1 + m.leak * dff) * moved,
        ], axis=1)  # fmt: skip
        rng = np.random.default_rng(np.random.SeedSequence([*tr.seed, 1, k]))
        light += rng.standard_normal(light.shape) * m.noise * np.array([m.baseline, m.isosbestic])
        return light.astype(np.float32)


def photometry(
    source: Spikes | EventTable, stop: float, *, start: float = 0.0, model: PhotometryModel | None = None, seed: int = 0
) -> tuple[dict[str, Signal], PhotometryTruth]:  # fmt: skip
    """Light from a fibre over a population, driven by its spikes or by events.

    Parameters
    ----------
    source : Spikes or EventTable
        Spikes of a population (every unit counts the same), or events that each bring a transient at their start.
    stop, start : float, s
    model : PhotometryModel or None
    seed : int

    Returns
    -------
    dict of Signal
        "photometry" (kind photometry, a.u.): channels "signal_470" and "isosbestic_415", whose table says what belongs together. Lazy.
    PhotometryTruth

    Examples
    --------
    >>> signals, truth = photometry(EventTable([5.0, 12.0], [5.0, 12.0]), 60.0)
    >>> signals["photometry"].names, round(float(truth.clean.read().max()), 3)
    (['signal_470', 'isosbestic_415'], 0.08)
    """
    model = model or PhotometryModel()
    whole("seed", seed)
    rng = np.random.default_rng(np.random.SeedSequence([seed, 82, 0]))
    n = _frames(start, stop, model.sampling_rate)
    many = isinstance(source, Spikes)
    times = np.asarray(source.times, dtype=np.float64) if isinstance(source, Spikes) else np.sort(np.asarray(source.start, dtype=np.float64))
    if isinstance(source, Spikes) and not source.n_units:
        raise InputError("photometry needs units, the spikes have none")
    truth = PhotometryTruth(
        model, times, model.response / source.n_units if isinstance(source, Spikes) and many else model.event_response, float(start), n,
        _shifts(model.motion_rate, model.motion_length, start, stop, rng), model.drift * ornstein_uhlenbeck(rng, int(np.ceil(stop - start)) + 2, 60.0, 1.0),
        (seed, 82),
    )  # fmt: skip
    table = pd.DataFrame({
        "name": ["signal_470", "isosbestic_415"], "kind": "photometry", "wavelength": [470.0, 415.0], "role": ["signal", "isosbestic"],
        "isosbestic": ["isosbestic_415", ""],
    })  # fmt: skip
    return {
        "photometry": Signal(_blocks(_Fibre(truth), n, 2), rate=model.sampling_rate, start=float(start), unit="a.u.", kind="photometry", channels=table)
    }, truth


def chosen(cls: type[Any], given: Any, name: str) -> Any:
    """A model from True, a mapping of its fields, or the model itself; None for False and None."""
    if given is None or given is False:
        return None
    if given is True:
        return cls()
    if isinstance(given, cls):
        return given
    if not isinstance(given, dict):
        raise InputError(f"{name} is a {type(given).__name__}, expected True, a {cls.__name__} or a mapping of its fields")
    known = [f.name for f in dataclasses.fields(cls)]
    if stray := sorted(set(given) - set(known)):
        raise InputError(f"{name} has no parameter {stray[0]!r}{suggest(stray[0], known)}; it has {', '.join(known)}")
    return cls(**given)
