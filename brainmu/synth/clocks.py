"""Devices with clocks of their own: streams on their time, the sync pulses that tie them together, and the true map."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainmu.config import suggest
from brainmu.core import EventTable, Hypnogram, Intervals, Recording, Signal, Spikes
from brainmu.core.limits import check_model, number, whole
from brainmu.core.recording import Label
from brainmu.errors import InputError

__all__ = ["ClockModel", "TrueClock", "on_clocks"]

SESSION = "session"
_HALF = 16  # taps to either side of an interpolated sample
_ROWS = 1 << 14
_WAVES = ("lfp", "eeg", "emg", "eog", "ecg", "calcium", "photometry")


@dataclass(frozen=True)
class ClockModel:
    """A device's clock, and the sync pulses that it records together with the session's clock.

    Parameters
    ----------
    streams : tuple of names
        Signals, labels and "spikes" that run on it.
    offset : float, s
        Session time at which its reading is zero; either sign (an assumption: somebody presses a second button).
    ppm : float, parts per million
        How much longer its second is; crystals are good to 10-100 (manufacturers' tolerances, an assumption).
    lost, lost_time : int and s
        How often it drops data, and for how long each time at most (an assumption: dropped packets).
    steps, step_time : int and s
        How often its reading leaps ahead, and by how much at most (an assumption: corrections over the network).
    pulses : {"random", "barcode", "counter", "regular", "frames"}
        Sync: pulses at random intervals of 0.5-1.5 of `interval`; 16-bit codes in random order, one an `interval`; the same counting up, so that
        neighbours look alike; pulses every `interval`; or every frame of a camera, `interval` apart, whose exposures wander by `wobble`.
    interval : float, s
        Of the pulses (an assumption).
    wobble : float, s
        SD of the true times of camera frames about their grid (an assumption).
    jitter : float, s
        SD of the time that either device notes of a pulse: less than a sample of 30 kHz (an assumption).
    missing, spurious : float
        Share of the pulses that either side misses, and share that it adds.
    """

    streams: tuple[str, ...] = ()
    offset: float = 3.7
    ppm: float = 32.0
    lost: int = 0
    lost_time: float = 0.1
    steps: int = 0
    step_time: float = 0.1
    pulses: str = "random"
    interval: float = 1.0
    wobble: float = 200e-6
    jitter: float = 20e-6
    missing: float = 0.02
    spurious: float = 0.02

    def __post_init__(self) -> None:
        check_model(self, positive=("interval", "lost_time", "step_time"), shares=("missing", "spurious"), signed=("offset", "ppm"))
        number("interval", self.interval, 1e-3)
        whole("lost", self.lost)
        whole("steps", self.steps)
        if self.pulses not in ("random", "barcode", "counter", "regular", "frames"):
            raise InputError(f"pulses is {self.pulses!r}, expected random, barcode, counter, regular or frames")
        if not abs(self.ppm) < 1e4:
            raise InputError(f"ppm is {self.ppm:g}, expected parts per million below 10,000")
        if isinstance(self.streams, str):
            raise InputError(f"streams is {self.streams!r}, expected a tuple of names such as ({self.streams!r},)")


@dataclass(frozen=True)
class TrueClock:
    """The true relation of a device's time to the session's: pieces on which both run on.

    Attributes
    ----------
    own, session : float64 (piece, 2), s
        Span of each piece on the device's clock and on the session's. Between two pieces the device either lost data (own time goes on, session time is
        skipped) or its reading leapt ahead (session time goes on).
    pulses : float64 (n,), s
        Session time of every true sync pulse.
    offset, ppm : float, s and parts per million
    """

    own: NDArray[np.float64]
    session: NDArray[np.float64]
    pulses: NDArray[np.float64]
    offset: float
    ppm: float

    def to_session(self, own: ArrayLike) -> Any:
        """Session time (s) of readings of the device (s); NaN for readings that it never showed."""
        return _through(self.own, self.session, own)

    def to_own(self, session: ArrayLike) -> Any:
        """Reading of the device (s) at session times (s); NaN while it recorded nothing."""
        return _through(self.session, self.own, session)

    @property
    def jumps(self) -> list[dict[str, float]]:
        """Where the device jumps: `at` (s, session) and `size` (s): positive where it lost time, negative where its reading leapt ahead."""
        size = (self.session[1:, 0] - self.session[:-1, 1]) - (self.own[1:, 0] - self.own[:-1, 1])
        return [{"at": float(a), "size": float(s)} for a, s in zip(self.session[1:, 0], size)]


def _through(source: NDArray[np.float64], target: NDArray[np.float64], times: ArrayLike) -> Any:
    t = np.asarray(times, dtype=np.float64)
    k = np.clip(np.searchsorted(source[:, 0], t, side="right") - 1, 0, len(source) - 1)
    slope = (target[0, 1] - target[0, 0]) / (source[0, 1] - source[0, 0])
    out = target[k, 0] + (t - source[k, 0]) * slope
    # Within a hole nothing was recorded; before the first and after the last piece the line goes on.
    hole = (t >= source[k, 1]) & (k < len(source) - 1)
    out = np.where(hole, np.nan, out)
    return float(out) if out.ndim == 0 else out


def plan_clock(model: ClockModel, stop: float, rng: np.random.Generator, pulses: NDArray[np.float64]) -> TrueClock:
    """A clock over the session [0, stop) s."""
    slope = 1.0 + 1e-6 * model.ppm
    n = model.lost + model.steps
    # Apart from each other and from the ends, as rare accidents are.
    grid = np.linspace(0.1, 0.9, n + 1) * stop
    at = grid[:-1] + rng.uniform(0.2, 0.8, n) * np.diff(grid)
    kinds = rng.permutation(np.r_[np.ones(model.lost), np.zeros(model.steps)])
    sizes = rng.uniform(0.3, 1.0, n) * np.where(kinds == 1, model.lost_time, model.step_time)
    own, session, o, s = [], [], (0.0 - model.offset) / slope, 0.0
    for where, kind, size in zip([*at, stop], [*kinds, -1.0], [*sizes, 0.0]):
        session.append((s, where))
        own.append((o, o + (where - s) / slope))
        s, o = where + (size if kind == 1 else 0.0), own[-1][1] + (size if kind == 0 else 0.0)
    return TrueClock(np.array(own), np.array(session), pulses, model.offset, model.ppm)


# -- pulses ----------------------------------------------------------------------------------------------------------
def pulse_train(model: ClockModel, stop: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """True session times (s) of the sync pulses in [0, stop)."""
    if model.pulses == "random":
        steps = rng.uniform(0.5, 1.5, int(2 * stop / model.interval) + 10) * model.interval
        train = np.cumsum(steps)
    elif model.pulses == "regular":
        train = (0.5 + np.arange(int(stop / model.interval) + 1)) * model.interval
    elif model.pulses == "frames":
        train = (0.5 + np.arange(int(stop / model.interval) + 1)) * model.interval
        train = np.sort(train + model.wobble * rng.standard_normal(len(train)))
    else:
        bit = min(0.03, model.interval / 40)
        n = int(stop / model.interval) + 1
        words = (np.arange(n) + int(rng.integers(1 << 14))) % (1 << 16) if model.pulses == "counter" else np.resize(rng.permutation(1 << 16), n)
        bits = np.c_[np.ones(len(words), dtype=bool), (words[:, None] >> np.arange(16)) & 1 == 1]
        times = np.arange(len(words))[:, None] * model.interval + 0.3 * model.interval + np.arange(17) * bit
        train = times[bits]
    return train[train < stop]


def _noted(t: NDArray[np.float64], model: ClockModel, rng: np.random.Generator) -> NDArray[np.float64]:
    """The pulses as one device notes them, some missing, some that nobody sent."""
    t = t[np.isfinite(t)]
    kept = t[rng.random(len(t)) >= model.missing]
    false = rng.uniform(t.min(), t.max(), rng.poisson(model.spurious * len(t))) if len(t) else t
    return np.unique(np.r_[kept + model.jitter * rng.standard_normal(len(kept)), false])


# -- streams ---------------------------------------------------------------------------------------------------------
class Retimed:
    """A signal as a device on another clock samples it: sample k at the device's time ``start + k / rate`` (time, channel), float32; lazy.

    Waves are interpolated with a windowed sinc, whatever is no wave along a line. Samples are missing where the device, or the signal, was silent.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, signal: Signal, clock: TrueClock, start: float, n: int) -> None:
        self.signal, self.clock, self.start, self.shape = signal, clock, start, (n, signal.n_channels)
        self.half = _HALF if signal.kind in _WAVES else 1

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        rows, columns = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        if not isinstance(rows, slice):
            wanted = np.atleast_1d(np.asarray(rows))
            wanted = np.flatnonzero(wanted) if wanted.dtype == bool else wanted
            out = np.concatenate([self[int(i) % self.shape[0] : int(i) % self.shape[0] + 1] for i in wanted] or [np.empty((0, self.shape[1]), np.float32)])
            out = out[0] if np.ndim(rows) == 0 else out
            return out[columns if np.ndim(rows) == 0 else (slice(None), *columns)] if columns else out
        i, j, step = rows.indices(self.shape[0])
        if step < 1:
            raise IndexError(f"slice with step {step}, expected a positive step")
        out = np.empty((max(0, j - i), self.shape[1]), dtype=np.float32)
        for a in range(i, j, _ROWS):
            b = min(j, a + _ROWS)
            out[a - i : b - i] = self._block(a, b)
        out = out[::step]
        return out[(slice(None), *columns)] if columns else out

    def _block(self, i: int, j: int) -> NDArray[np.float32]:
        s = self.signal
        assert s.rate is not None
        when = self.clock.to_session(self.start + np.arange(i, j) / s.rate)
        out = np.full((j - i, self.shape[1]), np.nan, dtype=np.float32)
        place = (when - s.start) * s.rate
        good = np.isfinite(place) & (place > -0.5) & (place < s.n_samples - 0.5)
        if not good.any():
            return out
        near = np.floor(place[good]).astype(np.intp)
        first, last = int(near.min()) - self.half, int(near.max()) + self.half + 2
        x = s.read(max(0, first), min(s.n_samples, last)).astype(np.float64)
        taps = near[:, None] + np.arange(1 - self.half, self.half + 1)
        d = place[good][:, None] - taps
        weight = np.sinc(d) * np.kaiser(2049, 9.0)[np.clip(np.rint((d / self.half + 1) * 1024), 0, 2048).astype(np.intp)] if self.half > 1 else 1 - np.abs(d)
        weight /= weight.sum(axis=1, keepdims=True)
        rows = np.clip(taps, 0, s.n_samples - 1) - max(0, first)
        for c in range(self.shape[1]):
            out[good, c] = (x[rows, c] * weight).sum(axis=1)
        return out


def _retimed(s: Signal, name: str, clock: TrueClock) -> Signal:
    if s.rate is None:
        own = clock.to_own(s.times)
        keep = np.isfinite(own)
        return dataclasses.replace(s, times=own[keep], values=s.values if keep.all() else np.asarray(s.values[:])[keep], clock=name)
    # It starts with the first sample of its own grid that lies within the signal, and ends with the last.
    reach = _own_span(clock, s.start, s.stop)
    start = np.ceil(reach[0] * s.rate - 1e-6) / s.rate
    n = int(np.floor((reach[1] - start) * s.rate + 1e-6))
    silent = [[a, b] for a, b in zip(clock.own[:-1, 1], clock.own[1:, 0]) if b > a and a < start + n / s.rate and b > start]
    gaps = [_own_span(clock, a, b) for a, b in s.gaps]
    holes = Intervals.merge(np.array([g for g in [*gaps, *silent] if g[1] > g[0]]).reshape(-1, 2))
    return Signal(
        Retimed(s, clock, float(start), n), rate=s.rate, start=float(start), unit=s.unit, kind=s.kind, channels=s.channels, gaps=holes, clock=name,
        attrs=dict(s.attrs),
    )  # fmt: skip


def _own_span(clock: TrueClock, a: float, b: float) -> tuple[float, float]:
    """Readings at the ends of a span of session time; where an end falls into lost time, at the border of what was lost."""
    out = []
    for t, side in ((a, 0), (b, 1)):
        own = clock.to_own(t)
        if np.isnan(own):
            k = int(np.searchsorted(clock.session[:, 0], t, side="right"))
            own = clock.own[k, 0] if side == 0 else clock.own[k - 1, 1]
        out.append(float(own))
    return out[0], out[1]


def _relabelled(label: Label, name: str, clock: TrueClock) -> Label:
    if isinstance(label, Intervals):
        spans = np.array([_own_span(clock, a, b) for a, b in label]).reshape(-1, 2)
        return Intervals(spans[spans[:, 1] > spans[:, 0]])
    if isinstance(label, EventTable):
        frame = label.to_frame()
        seen = np.isfinite(clock.to_own(frame["start"].to_numpy()))
        frame = frame[seen].reset_index(drop=True)
        spans = np.array([_own_span(clock, a, b) for a, b in zip(frame["start"], frame["stop"])]).reshape(-1, 2)
        peak = clock.to_own(frame["peak"].to_numpy())
        frame["start"], frame["stop"] = spans[:, 0], spans[:, 1]
        frame["peak"] = np.where(np.isfinite(peak), peak, spans.mean(axis=1))
        return EventTable.from_frame(frame, attrs=label.attrs | {"clock": name})
    # A scorer's epochs count the device's seconds: each takes the stage at its middle.
    a, b = _own_span(clock, label.start, label.stop)
    n = int(np.floor((b - a) / label.epoch + 1e-6))
    when = clock.to_session(a + (np.arange(n) + 0.5) * label.epoch)
    return Hypnogram(label.at(when), label.stages, label.epoch, a, None, label.scorer, label.attrs | {"clock": name})


def on_clocks(recording: Recording, clocks: Mapping[str, ClockModel | Mapping[str, Any]], *, seed: int = 0) -> tuple[Recording, dict[str, TrueClock]]:
    """The recording as its devices wrote it: each named stream on its device's clock, with the sync pulses both sides noted.

    One train of pulses goes to all devices: the event labels ``sync_session`` (on the session's clock) and ``sync_NAME`` (on the device's), which
    ``recording.clocks`` declares as :func:`brainmu.store.align` reads them. What is not named stays on the session's clock.

    Parameters
    ----------
    recording : Recording
    clocks : mapping of a device's name to a ClockModel, or to its fields
    seed : int

    Returns
    -------
    Recording
        Signals stay lazy; events and spikes that fell into lost time are gone.
    dict of TrueClock
        The true map of every device.

    Raises
    ------
    InputError
        If a stream does not exist or runs on two clocks, a name is taken, or devices are given different pulses.

    Examples
    --------
    >>> rec = Recording.from_arrays("m1", signals={"position": dict(values=np.zeros((4000, 2)), rate=40.0, unit="m", kind="position")})
    >>> out, true = on_clocks(rec, {"camera": {"streams": ("position",), "ppm": 50.0}})
    >>> out.signals["position"].clock, round(float(true["camera"].to_session(10.0)), 4)
    ('camera', 13.7005)
    """
    whole("seed", seed)
    models = clock_models(clocks)
    _check(recording, models)
    out = copy.copy(recording)
    out.signals, out.labels, out.clocks = dict(recording.signals), dict(recording.labels), dict(recording.clocks)
    out.source = recording.source | {"warnings": list(recording.warnings)}
    truth: dict[str, TrueClock] = {}
    children = np.random.SeedSequence([seed, 77]).spawn(len(models) + 1)
    if models:
        rng, first = np.random.default_rng(children[-1]), next(iter(models.values()))
        train = pulse_train(first, recording.stop, rng)
        here = _noted(train, first, rng)
        out.labels["sync_session"] = EventTable(here, here, kind="sync", attrs={"clock": SESSION})
        out.clocks[SESSION] = {"pulses": "sync_session", "reference": True}
    for (name, m), child in zip(models.items(), children):
        rng = np.random.default_rng(child)
        clock = truth[name] = plan_clock(m, recording.stop, rng, train)
        there = _noted(clock.to_own(clock.pulses), m, rng)
        out.labels[f"sync_{name}"] = EventTable(there, there, kind="sync", attrs={"clock": name})
        out.clocks[name] = {"pulses": f"sync_{name}", "streams": [*m.streams, f"sync_{name}"]}
        if m.pulses in ("regular", "frames"):
            # What any lab knows of its devices: roughly when each was started.
            out.clocks[name]["near"] = round(m.offset + float(rng.uniform(-0.2, 0.2)) * m.interval, 6)
        for stream in m.streams:
            _move(out, stream, name, clock)
    return out, truth


def clock_models(clocks: Any) -> dict[str, ClockModel]:
    """The clock of each device, by its name."""
    if not isinstance(clocks, Mapping):
        raise InputError(f"clocks is a {type(clocks).__name__}, expected a mapping of a device's name to a ClockModel or its fields")
    return {name: m if isinstance(m, ClockModel) else _model(name, m) for name, m in clocks.items()}


def _model(name: str, fields: Mapping[str, Any]) -> ClockModel:
    if not isinstance(fields, Mapping):
        raise InputError(f"clock {name!r} is a {type(fields).__name__}, expected a ClockModel or a mapping of its fields")
    known = [f.name for f in dataclasses.fields(ClockModel)]
    if stray := sorted(set(fields) - set(known)):
        raise InputError(f"clock {name!r} has no parameter {stray[0]!r}{suggest(stray[0], known)}; it has {', '.join(known)}")
    return ClockModel(**fields)


def _check(rec: Recording, models: Mapping[str, ClockModel]) -> None:
    known = [*rec.signals, *rec.labels, *(["spikes"] if rec.spikes is not None else [])]
    taken: dict[str, str] = {}
    if len({(m.pulses, m.interval, m.wobble) for m in models.values()}) > 1:
        raise InputError("clocks have different sync pulses, expected one train that all devices record: give all the same pulses, interval and wobble")
    for name, m in models.items():
        if name in rec.clocks or {f"sync_{name}", "sync_session"} & set(known):
            raise InputError(f"{rec.id}: the clock {name!r}, or its pulses, exist already: choose another name, or start from a recording on one clock")
        if name == SESSION:
            raise InputError("a clock is named 'session', which is the name of the reference: call it camera, fibre, …")
        for stream in m.streams:
            if stream not in known:
                raise InputError(f"clock {name!r} names the stream {stream!r}{suggest(stream, known)}; the recording has {', '.join(known)}")
            if stream in taken:
                raise InputError(f"{stream!r} is said to run on the clocks {taken[stream]!r} and {name!r}: name one")
            taken[stream] = name


def _move(rec: Recording, stream: str, name: str, clock: TrueClock) -> None:
    if stream == "spikes":
        assert rec.spikes is not None
        own = clock.to_own(rec.spikes.times)
        seen = np.isfinite(own)
        rec.spikes = Spikes(own[seen], rec.spikes.unit_id[seen], rec.spikes.units)
    elif stream in rec.signals:
        rec.signals[stream] = _retimed(rec.signals[stream], name, clock)
    else:
        rec.labels[stream] = _relabelled(rec.labels[stream], name, clock)
