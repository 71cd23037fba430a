"""Head direction from spikes: circular tuning curves, Poisson Bayes over an angle, and how well it does on time it has not seen.

References
----------
Taube, Muller & Ranck (1990), J Neurosci 10:420 (head-direction cells).
Zhang, Ginzburg, McNaughton & Sejnowski (1998), J Neurophysiol 79:1017 (Poisson Bayes).
Peyrache, Lacroix, Petersen & Buzsáki (2015), Nat Neurosci 18:569 (the same, in sleep).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Intervals, Recording, Spikes
from brainmu.errors import InputError, MissingDataError
from brainmu.replay import tracked
from brainmu.replay.decode import bins_within, counts_in, cut_folds, log_likelihood, normalise
from brainmu.replay.epochs import epochs_of, spikes_of
from brainmu.replay.fields import select_units

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["HeadDirection", "HeadTuning", "cross_validated_angular_error", "decode_angle", "head_direction_of", "head_tuning"]

_NAMES = ("heading", "head_direction", "headdirection", "hd", "yaw", "angle")
_PRIOR_SECONDS = 0.5
_SMOOTHING = (3.0, 5.0, 8.0, 12.0, 18.0, 26.0)
METHODS = ("memoryless", "state_space")


@dataclass(frozen=True)
class HeadDirection:
    """Angle of the head over time.

    Attributes
    ----------
    times : float64 (n,), s
    angle : float64 (n,), rad
        In [0, 2 pi).
    name : str
        Signal and channel it comes from.
    dropped : int
        Samples left out because they were missing.
    """

    times: NDArray[np.float64]
    angle: NDArray[np.float64]
    name: str
    dropped: int = 0

    @property
    def dwell(self) -> NDArray[np.float64]:
        """Time that each sample stands for (n,), s; holes longer than 0.5 s count for nobody."""
        return tracked.dwell(self.times)

    @property
    def known(self) -> Intervals:
        """When it is known."""
        return tracked.known(self.times)

    def at(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Angle (n,), rad, at `times`, along the shorter way between samples; NaN outside the record and inside holes."""
        t = np.asarray(times, dtype=np.float64)
        out = np.interp(t, self.times, np.unwrap(self.angle), left=np.nan, right=np.nan)
        out[tracked.in_hole(self.times, t)] = np.nan
        return np.mod(out, 2 * np.pi)


@dataclass(frozen=True)
class HeadTuning:
    """Firing rates by head direction.

    Attributes
    ----------
    rates : float32 (unit, angle), Hz
    occupancy : float64 (angle,), s
        Smoothed as the rates are.
    angles : float64 (angle,), rad
        Bin centres in [0, 2 pi).
    units : int32 (unit,)
    smoothing : float, degrees
        SD of the von Mises kernel.
    seconds : float
        Time the curves rest on.
    """

    rates: NDArray[np.float32]
    occupancy: NDArray[np.float64]
    angles: NDArray[np.float64]
    units: NDArray[np.int32]
    smoothing: float
    seconds: float

    @property
    def prior(self) -> NDArray[np.float64]:
        """Occupancy (angle,), summing to 1."""
        return self.occupancy / self.occupancy.sum()

    @property
    def preferred(self) -> NDArray[np.float64]:
        """Direction (unit,), rad, of each unit's mean vector."""
        return np.mod(np.angle(self.rates @ np.exp(1j * self.angles)), 2 * np.pi)

    @property
    def vector_length(self) -> NDArray[np.float64]:
        """Length (unit,) of each unit's mean vector: 0 for a flat curve, 1 for a single direction."""
        return np.abs(self.rates @ np.exp(1j * self.angles)) / self.rates.sum(1)


def head_direction_of(recording: Recording, name: str | None = None) -> HeadDirection:
    """The recording's head direction.

    Parameters
    ----------
    name : str or None
        Signal or channel; None takes one called heading, head_direction, hd, yaw or angle. Its unit must be rad or deg.

    Raises
    ------
    MissingDataError
        If there is none, or it holds fewer than 100 finite samples.
    InputError
        If its unit is neither.
    """
    wanted = _NAMES if name is None else (name.lower(),)
    found = [(s, c) for key, s in recording.signals.items() for c in s.names if c.lower() in wanted or (key.lower() in wanted and s.n_channels == 1)]
    if not found:
        have = ", ".join(f"{k} ({', '.join(map(str, s.names[:4]))})" for k, s in recording.signals.items()) or "no signals"
        raise MissingDataError(f"{recording.id}: no head direction {name or 'called ' + ', '.join(_NAMES)} among {have}: name its signal or channel")
    signal, channel = found[0]
    unit = signal.unit.strip().lower()
    if unit not in ("rad", "radian", "radians", "deg", "degree", "degrees", "°"):
        raise InputError(f"{recording.id}: head direction {channel!r} is in {signal.unit or 'no unit'!r}, expected rad or deg")
    values = signal.pick([channel]).read().astype(np.float64)[:, 0]
    values = values if unit.startswith("rad") else np.deg2rad(values)
    times = signal.read_times()
    ok = np.isfinite(values)
    if ok.sum() < 100:
        raise MissingDataError(f"{recording.id}: {int(ok.sum())} of {len(ok)} samples of the head direction are finite, expected at least 100")
    return HeadDirection(times[ok], np.mod(values[ok], 2 * np.pi), channel, int((~ok).sum()))


def head_tuning(spikes: Spikes, heading: HeadDirection, during: Intervals, *, bins: int = 60, smoothing: float | None = None) -> HeadTuning:
    """Tuning curves of every unit of `spikes` from what happened in `during`.

    Rate = (spikes + k · mean rate) / (occupancy + k), both smoothed around the circle by the same von Mises kernel, where k stands for half
    a second of occupancy inside it: a unit's mean where little is known of it.

    Parameters
    ----------
    smoothing : float or None, degrees
        SD of the kernel. None chooses it by held-out Poisson likelihood over five contiguous parts of `during`.

    Raises
    ------
    MissingDataError
        If `during` holds less than 10 s of head direction, or there are no units.
    """
    if spikes.n_units == 0:
        raise MissingDataError("head tuning: the recording has no units left, expected at least one")
    if bins < 8 or (smoothing is not None and not smoothing > 0):
        raise InputError(f"head tuning: {bins} bins and smoothing of {smoothing} degrees, expected at least 8 and a positive angle")
    occupancy, counts = _parts(spikes, heading, during, bins)
    seconds = float(occupancy.sum())
    if seconds < 10:
        raise MissingDataError(f"head tuning: {seconds:.1f} s of head direction lie inside the epochs, expected at least 10 s")
    smoothing = _best_smoothing(occupancy, counts) if smoothing is None else float(smoothing)
    rates, occ = _rates(occupancy.sum(0), counts.sum(0), smoothing)
    return HeadTuning(rates.astype(np.float32), occ, (np.arange(bins) + 0.5) * 2 * np.pi / bins, spikes.units["id"].to_numpy(), smoothing, seconds)


def decode_angle(
    counts: NDArray[Any], tuning: HeadTuning, seconds: float | NDArray[np.float64], *, prior: Literal["uniform", "occupancy"] = "uniform"
) -> NDArray[np.float32]:
    """Posterior (bin, angle) of the head direction, each bin on its own; `counts` (bin, unit) must follow ``tuning.units``."""
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape[1] != len(tuning.units):
        raise InputError(f"decode_angle: counts have shape {counts.shape}, expected (bin, {len(tuning.units)}): a column a unit of the tuning curves")
    logp = log_likelihood(counts, tuning.rates, seconds)
    if prior == "occupancy":
        logp += np.log(np.maximum(tuning.prior, 1e-6)).astype(np.float32)
    return normalise(logp)


def angle_posterior(recording: Recording, start: float, stop: float, tuning: HeadTuning, *, bin_size: float = 0.02) -> xr.DataArray:
    """Posterior (time, angle) of a stretch of the recording, such as a candidate event of sleep, under a uniform prior."""
    import xarray as xr

    if not bin_size > 0 or not stop - start >= bin_size:
        raise InputError(f"angle posterior: {start:g} to {stop:g} s in bins of {bin_size:g} s, expected at least one bin")
    edges = start + bin_size * np.arange(int((stop - start) / bin_size + 1e-6) + 1)
    p = decode_angle(spikes_of(recording).pick(tuning.units).counts(edges), tuning, bin_size)
    out = xr.DataArray(p, dims=("time", "angle"), coords={"time": (edges[1:] + edges[:-1]) / 2, "angle": tuning.angles}, name="posterior")
    out.coords["time"].attrs["units"], out.coords["angle"].attrs["units"] = "s", "rad"
    return out


def mean_angle(posterior: NDArray[np.float32], angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Direction (bin,), rad, of each row's mean vector."""
    return np.mod(np.angle(posterior @ np.exp(1j * angles)), 2 * np.pi)


def angular_distance(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Absolute angle between `a` and `b`, rad, at most pi."""
    return np.abs(np.angle(np.exp(1j * (np.asarray(a) - np.asarray(b)))))


def cross_validated_angular_error(
    recording: Recording, *, during: str | Intervals | None = None, heading: str | None = None, bin_size: float = 0.25, folds: int = 5,
    method: Literal["memoryless", "state_space"] = "state_space", bins: int = 60, smoothing: float | None = None, least_spikes: int = 50,
    fastest: float = 100.0, seed: int = 0, progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """How far the decoded head direction lies from the true one, on time that the tuning curves have not seen.

    The head-direction record is cut into `folds` contiguous parts of equal length; each is decoded in `bin_size` bins with tuning
    curves (and their smoothing) from the others. Nothing of a part enters its own decoder but its spikes.

    Parameters
    ----------
    during : str, Intervals or None
        A label of epochs, or epochs, to stay within; None takes all the time the head direction is known.
    heading : str or None
        Signal or channel (see :func:`head_direction_of`).
    method : {"state_space", "memoryless"}
        Whose error `median` is; both are reported. "memoryless" is Poisson Bayes with the training occupancy as prior,
        "state_space" adds a random walk around the circle with the step size of the training data, smoothed forwards and
        backwards; both take the direction of the posterior's mean vector.

    Returns
    -------
    dict
        median, mean (degrees, absolute), unit ("deg"), chance (median error against the angles of shuffled bins), bin_size, folds, folds_used,
        n_bins, n_units, method, memoryless and state_space (median of each), smoothing (degrees, of each fold), signal, cut,
        quality ("good", or "poor" if the error exceeds 0.7 of chance).

    Raises
    ------
    MissingDataError
        If there are no spikes, no head direction, or too little of it to leave any out.
    """
    if folds < 2 or method not in METHODS or not bin_size > 0:
        raise InputError(f"angular error: {folds} folds, method {method!r}, bins of {bin_size:g} s: expected 2 or more, one of {', '.join(METHODS)}, > 0")
    direction = head_direction_of(recording, heading)
    spikes, _ = select_units(spikes_of(recording), least_spikes, fastest)
    spans = direction.known if during is None else direction.known.intersect(epochs_of(recording, during, "head direction"))
    if not spans.contains(spikes.times).any():
        raise MissingDataError(f"{recording.id}: no spike lies within the head-direction record: are they on one clock?")
    parts, cut = cut_folds(spans, (direction.times[0], direction.times[-1]), folds)
    rows = []
    for k, (train, test) in enumerate(parts):
        tuning = head_tuning(spikes, direction, train, bins=bins, smoothing=smoothing)
        rows.append(_decode_fold(spikes, direction, tuning, train, test, bin_size))
        if progress:
            progress("decoding", (k + 1) / len(parts))
    truth, plain, smoothed = (np.concatenate([r[i] for r in rows]) for i in range(3))
    decoded = {"memoryless": plain, "state_space": smoothed}
    error = {k: np.rad2deg(angular_distance(v, truth)) for k, v in decoded.items()}
    chance = np.rad2deg(angular_distance(decoded[method], truth[np.random.default_rng(seed).permutation(len(truth))]))
    median = {k: float(np.median(v)) for k, v in error.items()}
    return {
        "median": median[method], "mean": float(error[method].mean()), "unit": "deg", "chance": float(np.median(chance)), "bin_size": bin_size,
        "folds": folds, "folds_used": len(rows), "n_bins": len(truth), "n_units": spikes.n_units, "method": method, **median,
        "smoothing": [r[3] for r in rows], "signal": direction.name, "cut": cut, "quality": "good" if median[method] <= 0.7 * np.median(chance) else "poor",
    }  # fmt: skip


# -- parts ----------------------------------------------------------------------------------------------------------------


def _parts(spikes: Spikes, heading: HeadDirection, during: Intervals, bins: int, n: int = 5) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Occupancy (part, angle) and spike counts (part, unit, angle) of contiguous parts of the time in `during`."""
    dwell = np.where(during.contains(heading.times), heading.dwell, 0.0)
    part = np.minimum((np.cumsum(dwell) / max(dwell.sum(), 1e-12) * n).astype(int), n - 1)
    cell = _cell(heading.angle, bins)
    occupancy = np.bincount(part * bins + cell, dwell, n * bins).reshape(n, bins)
    inside = during.contains(spikes.times)
    t, u = spikes.times[inside], spikes.unit_id[inside]
    at = heading.at(t)
    ok = np.isfinite(at)
    nearest = np.clip(np.searchsorted(heading.times, t[ok]), 0, len(heading.times) - 1)
    ids = spikes.units["id"].to_numpy()
    order = np.argsort(ids)
    column = order[np.searchsorted(ids[order], u[ok])]
    flat = (part[nearest] * spikes.n_units + column) * bins + _cell(at[ok], bins)
    return occupancy, np.bincount(flat, minlength=n * spikes.n_units * bins).reshape(n, spikes.n_units, bins).astype(np.float64)


def _cell(angle: NDArray[np.float64], bins: int) -> NDArray[np.intp]:
    return np.minimum((angle / (2 * np.pi) * bins).astype(np.intp), bins - 1)


def _kernel(bins: int, degrees: float) -> NDArray[np.float64]:
    """von Mises weights (angle, angle) of SD `degrees`; each row sums to 1."""
    at = np.arange(bins) * 2 * np.pi / bins
    k = np.exp((np.cos(at[:, None] - at) - 1) / np.deg2rad(degrees) ** 2)
    return k / k.sum(1, keepdims=True)


def _rates(occupancy: NDArray[np.float64], counts: NDArray[np.float64], degrees: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Smoothed rates (unit, angle) and occupancy (angle,)."""
    kernel = _kernel(len(occupancy), degrees)
    k = _PRIOR_SECONDS * float(kernel[0].max())  # the kernel's height is one over the bins inside it
    mean = np.maximum(counts.sum(1), 0.5) / max(occupancy.sum(), 1e-9)
    occ = occupancy @ kernel
    return (counts @ kernel + k * mean[:, None]) / (occ + k), occ


def _best_smoothing(occupancy: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    """The SD whose curves, fitted on four fifths of the time, give the spikes of the last fifth the highest Poisson likelihood."""
    gain = []
    for degrees in _SMOOTHING:
        value = 0.0
        for o, c in zip(occupancy, counts):
            if o.sum() > 0 and (occupancy.sum(0) - o).sum() > 0:
                rate, _ = _rates(occupancy.sum(0) - o, counts.sum(0) - c, degrees)
                value += float((c * np.log(rate)).sum() - (rate * o).sum())
        gain.append(value)
    return _SMOOTHING[int(np.argmax(gain))]


def _decode_fold(
    spikes: Spikes, heading: HeadDirection, tuning: HeadTuning, train: Intervals, test: Intervals, bin_size: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]:
    edges = bins_within(test, bin_size)
    truth = heading.at(edges.mean(1))
    edges, truth = edges[np.isfinite(truth)], truth[np.isfinite(truth)]
    loglik = log_likelihood(counts_in(spikes, edges), tuning.rates, edges[:, 1] - edges[:, 0])
    plain = normalise(loglik + np.log(np.maximum(tuning.prior, 1e-6)).astype(np.float32))
    t = heading.times[train.contains(heading.times) & train.contains(heading.times + bin_size)]
    turned = angular_distance(heading.at(t + bin_size), heading.at(t))
    step = float(np.sqrt(np.nanmean(turned**2)))
    smoothed = _smooth_walk(loglik, edges, tuning, max(step, 2 * np.pi / len(tuning.angles) / 2), bin_size)
    return truth, mean_angle(plain, tuning.angles), mean_angle(smoothed, tuning.angles), tuning.smoothing


def _smooth_walk(loglik: NDArray[np.float32], edges: NDArray[np.float64], tuning: HeadTuning, step: float, bin_size: float) -> NDArray[np.float32]:
    """Posterior (bin, angle) under a von Mises walk of SD `step` rad a bin with 2 % of jumps anywhere; across a pause it goes on unseen."""
    bins = len(tuning.angles)
    move = 0.98 * _kernel(bins, float(np.rad2deg(step))) + 0.02 / bins
    like = np.exp(loglik - loglik.max(1, keepdims=True)).astype(np.float64)
    pause = np.r_[0, np.clip(np.round(np.diff(edges[:, 0]) / bin_size), 1, 20)].astype(int)
    state = tuning.prior
    forward = np.empty_like(like)
    for i in range(len(like)):
        for _ in range(pause[i]):
            state = state @ move
        state = state * like[i]
        state /= state.sum()
        forward[i] = state
    back, out = np.ones(bins), np.empty(like.shape, dtype=np.float32)
    for i in range(len(like) - 1, -1, -1):
        both = forward[i] * back
        out[i] = both / both.sum()
        back = back * like[i]
        for _ in range(pause[i]):
            back = move @ back
        back /= back.max()
    return out
