"""Where the animal was and how fast it moved; and from that, when it ran and when it rested."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Intervals, Recording
from brainmu.core.units import unit_factor
from brainmu.dsp.filters import smooth
from brainmu.errors import InputError, MissingDataError
from brainmu.replay.tracked import dwell, in_hole, stretches

__all__ = ["Position", "position_of", "run_and_rest", "speed_threshold"]

_AXES = ("x", "y")


@dataclass(frozen=True)
class Position:
    """Smoothed position and speed of the animal.

    Attributes
    ----------
    times : float64 (n,), s
        Increasing; samples without a position are left out.
    values : float64 (n, 1 or 2), `unit`
    speed : float64 (n,), `unit`/s
    unit : str
        "m", or the unit as it came ("px" where the camera was not calibrated).
    names : tuple of str
        Channels used.
    dropped : int
        Samples left out because they were missing, or lost.
    lost : int
        Of these, samples at one exact place that the animal seems to jump to and back from: what trackers write where they see nothing.
    """

    times: NDArray[np.float64]
    values: NDArray[np.float64]
    speed: NDArray[np.float64]
    unit: str
    names: tuple[str, ...]
    dropped: int = 0
    lost: int = 0

    @property
    def dwell(self) -> NDArray[np.float64]:
        """Time that each sample stands for (n,), s; holes longer than 0.5 s count for nobody."""
        return dwell(self.times)

    def at(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Position (n, d) at `times` by linear interpolation; NaN outside the track record and inside holes."""
        t = np.asarray(times, dtype=np.float64)
        out = np.stack([np.interp(t, self.times, v, left=np.nan, right=np.nan) for v in self.values.T], axis=1)
        out[in_hole(self.times, t)] = np.nan
        return out


def position_of(recording: Recording, smoothing: float = 0.1) -> Position:
    """The recording's position, smoothed with a Gaussian of SD `smoothing` s.

    Uses the signal of kind "position" (the one named "position" if there are several), its channels x and y, or its first two.

    Raises
    ------
    MissingDataError
        If there is no position, or it holds fewer than 100 finite samples.
    """
    found = recording.signals_of("position")
    if not found:
        raise MissingDataError(f"{recording.id}: no position signal among {', '.join(recording.signals) or 'no signals'}: decoding needs where the animal was")
    signal = found.get("position", next(iter(found.values())))
    names = [n for a in _AXES for n in signal.names if n.lower() == a] or signal.names[:2]
    values = signal.pick(names).read().astype(np.float64)
    times = signal.read_times()
    ok = np.isfinite(values).all(1)
    ok[ok] = ~(lost := _lost(values[ok]))
    if ok.sum() < 100:
        raise MissingDataError(f"{recording.id}: {int(ok.sum())} of {len(ok)} position samples are finite and not lost, expected at least 100")
    times, values = times[ok], values[ok]
    values = _smoothed(times, values, smoothing)
    return Position(times, values, _speed(times, values), signal.unit, tuple(names), int((~ok).sum()), int(lost.sum()))


def speed_threshold(position: Position) -> float:
    """Speed, in the position's unit a second, above which the animal is said to run: 4 cm/s, 15 px/s, else 3 % of its range."""
    factor, unit = unit_factor(position.unit, kind="position")
    if unit == "m":
        return 0.04 / factor
    if unit.lower() in ("px", "pixel", "pixels"):
        return 15.0
    low, high = np.percentile(position.values, [1, 99], axis=0)
    return 0.03 * float((high - low).max())


def moving(position: Position, threshold: float, shortest: float = 0.5) -> Intervals:
    """Spans of at least `shortest` s in which the speed exceeds `threshold`."""
    return _spans(position.times, position.speed > threshold).longer_than(shortest)


def run_and_rest(recording: Recording, position: Position | None = None, shortest_rest: float = 120.0) -> tuple[Intervals, Intervals, str]:
    """When the animal ran and when it rested, and how that was told.

    The labels "run" and "rest" where the recording has them. Otherwise: rest are the stretches of at least `shortest_rest` s
    without movement (bouts of less than 0.5 s do not count), and run is everything else within the position record.

    Returns
    -------
    run, rest : Intervals
    how : str
        "labels", or a sentence that says how the epochs were derived.
    """
    labels = recording.labels
    run, rest = labels.get("run"), labels.get("rest")
    if isinstance(run, Intervals) and isinstance(rest, Intervals):
        return run, rest, "labels"
    position = position_of(recording) if position is None else position
    threshold = speed_threshold(position)
    span = Intervals([[position.times[0], position.times[-1]]])
    still = span.subtract(moving(position, threshold))
    derived = still.longer_than(shortest_rest)
    rest_out = rest if isinstance(rest, Intervals) else derived
    run_out = run if isinstance(run, Intervals) else span.subtract(rest_out)
    which = "run and rest" if not isinstance(run, Intervals) and not isinstance(rest, Intervals) else "rest" if isinstance(run, Intervals) else "run"
    how = f"{which} derived from speed: rest is at least {shortest_rest:g} s below {threshold:g} {position.unit or 'units'}/s, run the remainder"
    return run_out, rest_out, how


def _lost(values: NDArray[np.float64], least: int = 5, far: float = 0.1) -> NDArray[np.bool_]:
    """Samples (n,) at the commonest exact place, if it is entered `least` times or more and mostly from more than `far` of the extent away.

    An animal that rests is often at one exact place too, but walks there.
    """
    if len(values) < 100:
        return np.zeros(len(values), dtype=bool)
    places, which, count = np.unique(values, axis=0, return_inverse=True, return_counts=True)
    there = which.ravel() == count.argmax()
    entered = np.flatnonzero(there[1:] & ~there[:-1])
    extent = np.ptp(values[~there], axis=0).max() if (~there).any() else 0.0
    jump = np.linalg.norm(values[entered] - places[count.argmax()], axis=1)
    return there if len(entered) >= least and np.median(jump) > far * extent > 0 else np.zeros(len(values), dtype=bool)


def _smoothed(times: NDArray[np.float64], values: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
    """Gaussian smoothing within stretches without holes."""
    if sigma <= 0:
        return values
    step = float(np.median(np.diff(times)))
    out = values.copy()
    for i, j in stretches(times):
        centre = values[i:j].mean(0)  # float32 in `smooth` keeps its digits for the deviations
        out[i:j] = centre + smooth(values[i:j] - centre, sigma / step)
    return out


def _speed(times: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    speed = np.zeros(len(times))
    for i, j in stretches(times):
        if j - i >= 2:
            speed[i:j] = np.linalg.norm(np.gradient(values[i:j], times[i:j], axis=0), axis=1)
    return speed


def _spans(times: NDArray[np.float64], mask: NDArray[np.bool_]) -> Intervals:
    """Spans where `mask` (n,) is true; a span begins and ends half way to the neighbouring sample."""
    if len(times) != len(mask):
        raise InputError(f"{len(times)} times and {len(mask)} mask values: give one each")
    rows = []
    for i, j in stretches(times):
        middle = np.r_[times[i], (times[i + 1 : j] + times[i : j - 1]) / 2, times[j - 1]]
        edge = np.flatnonzero(np.diff(np.r_[False, mask[i:j], False].astype(np.int8))).reshape(-1, 2)
        rows.append(middle[edge])
    bounds = np.concatenate(rows)
    return Intervals(bounds[bounds[:, 1] > bounds[:, 0]])
