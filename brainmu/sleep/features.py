"""What the classical stager learns from: one row an epoch, the same columns whatever the recording holds.

Channels are found by kind, never by name; every measure is put on the recording's own scale, so another number of
channels, another unit or gain changes nothing. What a recording lacks is NaN, which the trees understand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from brainmu.core.recording import Recording
from brainmu.core.signal import Signal
from brainmu.errors import InputError, MissingDataError
from brainmu.sleep.frames import Grid, brain_measures, finite_mean, grid_of, muscle_level

__all__ = ["BURN_IN", "CONTEXT", "Table", "add_context", "context_reach", "epoch_table"]

BURN_IN = 300.0
"""Data before a running scale begins, s; ten epochs at least."""

CONTEXT: dict[str, dict[str, tuple[float, ...]]] = {
    "aasm5": {"centred": (150.0, 450.0, 1230.0), "past": (120.0,), "neighbours": (30.0,)},
    "rodent3": {"centred": (20.0, 60.0, 180.0), "past": (30.0, 120.0), "neighbours": (4.0, 8.0)},
}
"""Context of an epoch, s: triangular centred means, means over the past, and single neighbours before and after."""

_SHAPES = ("log_slow", "log_delta", "log_theta", "log_alpha", "log_sigma", "log_beta", "log_gamma", "log_rodent_theta", "total", "slope",
           "mobility", "complexity", "kurtosis", "permutation_entropy")  # fmt: skip
_RATIOS = {
    "delta_share": ("log_delta", "log_broad"), "theta_delta": ("log_rodent_theta", "log_delta"), "theta_share": ("log_rodent_theta", "log_theta_surround"),
    "alpha_theta": ("log_alpha", "log_theta"), "sigma_beta": ("log_sigma", "log_beta"), "delta_beta": ("log_delta", "log_beta"),
}  # fmt: skip


@dataclass
class Table:
    """Features of one recording.

    Attributes
    ----------
    grid : Grid
    values : float64 (epoch, feature)
        NaN where the recording lacks something.
    names : list of str
        ``<kind>:<measure>``; the kind says what a recording may lack (eeg, eog, emg, spikes, features).
        ``raw <kind>:<measure>`` is on an absolute scale, the others are on the recording's own.
    running : bool
        Whether that scale is the one of the past of each epoch rather than of the whole recording.
    """

    grid: Grid
    values: NDArray[np.float64]
    names: list[str]
    running: bool = False

    @property
    def empty(self) -> NDArray[np.bool_]:
        """Epochs (n,) about which nothing is known."""
        return ~np.isfinite(self.values).any(axis=1)

    def resized(self, n: int) -> Table:
        """The first `n` epochs, with empty ones behind where there are fewer."""
        short = max(0, n - len(self.values))
        values = np.concatenate([self.values[:n], np.full((short, self.values.shape[1]), np.nan)])
        return Table(replace(self.grid, n=n), values, self.names, self.running)


def epoch_table(
    recording: Recording, epoch: float, *, start: float | None = None, running: bool = False, progress: Callable[[str, float], None] | None = None
) -> Table:
    """Features of every epoch of a recording, on the recording's own scale.

    Streams of ``kind="features"`` are taken as they are where there are any; otherwise EEG/LFP, EOG, EMG and spikes. With `running` the scale of an epoch is
    that of what came before it and of itself: nothing later changes it, but for the second by which the last spectral window of an epoch reaches beyond it,
    and the first five minutes, which have no scale yet, are left empty.

    Raises
    ------
    MissingDataError
        If there is nothing to stage from.
    InputError
        If the recording is shorter than an epoch.
    """
    streams = recording.signals_of("features")
    kinds = {"eeg": recording.signals_of("eeg", "lfp"), "eog": recording.signals_of("eog"), "emg": recording.signals_of("emg")}
    kinds = {k: {n: s for n, s in v.items() if s.rate is not None and s.rate >= 40} for k, v in kinds.items()}
    spikes = recording.spikes
    used = [*streams.values()] or [s for v in kinds.values() for s in v.values()]
    if not used and (spikes is None or not len(spikes)):
        have = ", ".join(f"{k} ({s.kind})" for k, s in recording.signals.items()) or "no signals"
        raise MissingDataError(f"{recording.id}: staging needs EEG, LFP, EOG, EMG (>= 40 Hz), spikes or a features stream; the recording has {have}")
    grid = grid_of(recording, used, epoch, start)
    if streams:
        return _table(grid, [_stream(name, s, grid, running) for name, s in streams.items()], running)
    parts = []
    for i, (kind, signals) in enumerate(kinds.items()):
        parts += _muscle(signals, grid, running) if kind == "emg" else _brain(kind, signals, grid, running)
        if progress is not None:
            progress("features", (i + 1) / (len(kinds) + 1))
    if spikes is not None and len(spikes):
        parts.append(_population(recording, grid, running))
    return _table(grid, parts, running)


def add_context(values: NDArray[np.float64], epoch: float, stages: str, *, causal: bool = False) -> NDArray[np.float64]:
    """Features (epoch, k · feature) with what surrounds them.

    `causal` leaves out everything after the epoch (centred means and later neighbours), for stagings that will
    serve as an outcome; what remains are the epoch, earlier neighbours and means over the past.
    """
    spans = CONTEXT[stages]
    out = [values]
    out += [_running_mean(values, max(1, round(s / epoch)), past=True) for s in spans["past"]]
    if causal:
        out += [_running_mean(values, max(1, round(s / epoch)), past=True) for s in spans["centred"]]
    else:
        out += [_triangular_mean(values, max(1, round(s / epoch))) for s in spans["centred"]]
    for s in spans["neighbours"]:
        lag = max(1, round(s / epoch))
        out.append(_shifted(values, lag))
        if not causal:
            out.append(_shifted(values, -lag))
    return np.concatenate(out, axis=1)


def context_reach(epoch: float, stages: str) -> int:
    """How many epochs before or after an epoch `add_context` looks at, at most."""
    return max(max(1, round(s / epoch)) for spans in CONTEXT[stages].values() for s in spans)


def _table(grid: Grid, parts: list[tuple[NDArray[np.float64], list[str]]], running: bool) -> Table:
    values, names = _joined(parts)
    if running:
        own = np.array([not n.startswith("raw ") for n in names])
        values[~np.isfinite(values[:, own]).any(axis=1)] = np.nan
    return Table(grid, values, names, running)


# -- by kind --------------------------------------------------------------------------------------------------------
def _brain(kind: str, signals: dict[str, Signal], grid: Grid, running: bool) -> list[tuple[NDArray[np.float64], list[str]]]:
    """Measures of EEG, LFP or EOG: each channel on its own scale, then the mean over channels; ratios also on their absolute scale."""
    names = [f"{kind}:{m}" for m in (*_SHAPES, *_RATIOS)] + [f"raw {kind}:{m}" for m in _RATIOS]
    if not signals:
        return [(np.full((grid.n, len(names)), np.nan), names)]
    own: list[NDArray[np.float64]] = []
    absolute: list[NDArray[np.float64]] = []
    for s in signals.values():
        which = np.unique(np.linspace(0, s.n_channels - 1, min(s.n_channels, 16)).astype(int))
        m = brain_measures(s.pick(which) if len(which) < s.n_channels else s, grid, local=running)
        m |= {name: m[a] - m[b] for name, (a, b) in _RATIOS.items()}
        per = {k: grid.per_epoch(m[k]) for k in (*_SHAPES, *_RATIOS)}
        flat = ~np.isfinite(per["log_delta"])
        for values in per.values():  # a channel without a spectrum has no shape either
            values[flat] = np.nan
        own.append(np.stack([_own_scale(per[k], grid, running) for k in (*_SHAPES, *_RATIOS)], axis=2))  # (epoch, channel, measure)
        absolute.append(np.stack([per[k] for k in _RATIOS], axis=2))
    a, b = (finite_mean(np.concatenate(v, axis=1), axis=1) for v in (own, absolute))
    return [(np.concatenate([a, b], axis=1), names)]


def _muscle(signals: dict[str, Signal], grid: Grid, running: bool) -> list[tuple[NDArray[np.float64], list[str]]]:
    names = ["emg:level", "emg:top", "emg:spread"]
    if not signals:
        return [(np.full((grid.n, 3), np.nan), names)]
    level = np.concatenate([muscle_level(s, grid)[0] for s in signals.values()], axis=1)
    frames = level.reshape(grid.n, grid.per, -1).astype(np.float64)
    finite = np.isfinite(frames)
    top = np.where(finite.any(1), np.where(finite, frames, -np.inf).max(1), np.nan)
    mean = grid.per_epoch(level)
    own = [finite_mean(_own_scale(v, grid, running)[:, :, None], axis=1)[:, 0] for v in (mean, top, top - mean)]
    return [(np.stack(own, axis=1), names)]


def _population(recording: Recording, grid: Grid, running: bool) -> tuple[NDArray[np.float64], list[str]]:
    """What a population of unknown neurons tells: rate, share active, silent periods, and slow and theta modulation of the summed rate."""
    spikes = recording.spikes
    assert spikes is not None
    edges = grid.start + np.arange(grid.n + 1) * grid.epoch
    of = np.searchsorted(edges, spikes.times, side="right") - 1
    inside = (of >= 0) & (of < grid.n)
    counts = np.zeros((grid.n, spikes.n_units))
    ids = spikes.units["id"].to_numpy()
    order = np.argsort(ids)
    np.add.at(counts, (of[inside], order[np.searchsorted(ids[order], spikes.unit_id[inside])]), 1)
    bins = max(8, round(grid.epoch / 0.02))
    fine = np.bincount(
        np.clip(((spikes.times[inside] - grid.start) / grid.epoch * bins).astype(np.int64), 0, grid.n * bins - 1), minlength=grid.n * bins
    ).reshape(grid.n, bins).astype(np.float64)  # fmt: skip
    total = counts.sum(1)
    usual = np.cumsum(counts, axis=0) / np.arange(1, grid.n + 1)[:, None] if running else counts.mean(0)
    relative = counts / np.maximum(usual, 1e-9)
    power = np.abs(np.fft.rfft(fine - fine.mean(1, keepdims=True), axis=1)) ** 2
    f = np.fft.rfftfreq(bins, grid.epoch / bins)
    # Powers are set against what a Poisson train of the same rate would show, so rate and rhythm stay apart.
    poisson = np.maximum(total, 1)[:, None]
    band = {n: np.log10((power[:, (f >= a) & (f < b)] / poisson).mean(1) + 0.05) if ((f >= a) & (f < b)).any() else np.full(grid.n, np.nan)
            for n, (a, b) in {"slow": (0.5, 4.0), "theta": (5.0, 10.0), "sigma": (10.0, 16.0)}.items()}  # fmt: skip
    columns = {
        "rate": np.log10(total + 1), "active": (counts > 0).mean(1), "spread": np.log10(relative.std(1) + 0.05), "silent": (fine == 0).mean(1),
        "burst": np.log10(fine.var(1) / np.maximum(fine.mean(1), 1e-9) + 0.05), **band,
    }  # fmt: skip
    x = np.stack(list(columns.values()), axis=1)
    first, last = spikes.times[0], spikes.times[-1]
    x[(edges[1:] <= first) | (edges[:-1] > last)] = np.nan
    return _own_scale(x, grid, running), [f"spikes:{k}" for k in columns]


def _stream(name: str, s: Signal, grid: Grid, running: bool) -> tuple[NDArray[np.float64], list[str]]:
    """A features stream, averaged into epochs: on its own scale, and as it came."""
    names = [f"features:{name}/{c}" for c in s.names]
    x = np.full((grid.n, s.n_channels), np.nan)
    block = max(1, 2_000_000 // max(1, s.n_channels))
    total, count = np.zeros_like(x), np.zeros_like(x)
    for i in range(0, s.n_samples, block):
        j = min(i + block, s.n_samples)
        v, t = s.read(i, j).astype(np.float64), s.read_times(i, j)
        e = np.floor((t - grid.start) / grid.epoch + 1e-6).astype(np.int64)
        ok = (e >= 0) & (e < grid.n)
        np.add.at(total, e[ok], np.where(np.isfinite(v[ok]), v[ok], 0.0))
        np.add.at(count, e[ok], np.isfinite(v[ok]))
    x = np.where(count > 0, total / np.maximum(count, 1), np.nan)
    return np.concatenate([_own_scale(x, grid, running), x], axis=1), names + [f"raw {n}" for n in names]


# -- arrays ---------------------------------------------------------------------------------------------------------
def _own_scale(x: NDArray[np.float64], grid: Grid, running: bool) -> NDArray[np.float64]:
    """Columns minus their median, over their 5th to 95th percentile; a column that does not vary is 0. `running` as :func:`_running_scale`."""
    if running:
        return _running_scale(x, max(10, round(BURN_IN / grid.epoch)))
    finite = np.isfinite(x)
    if not finite.any():
        return x
    safe = np.where(finite.any(axis=0), x, 0.0)
    low, mid, high = np.nanpercentile(safe, [5, 50, 95], axis=0)
    span = high - low
    return np.where(finite, (x - mid) / np.where(span > 1e-9, span, 1.0), np.nan)


def _running_scale(x: NDArray[np.float64], burn_in: int) -> NDArray[np.float64]:
    """Columns minus the middle between the 5th and 95th percentile of their past, over the distance of these; NaN for the first `burn_in` values of a column.

    The middle of the ends stands still while the median moves with how much of the past was sleep. Percentiles are taken anew whenever the past has grown
    by a twentieth.
    """
    finite = np.isfinite(x)
    enough = np.cumsum(finite, axis=0) >= burn_in
    out = np.full_like(x, np.nan)
    first = burn_in - 1
    while first < len(x):
        stop = min(len(x), max(first + 1, int(1.05 * first)))
        here = enough[first]
        if here.any():
            low, high = np.nanpercentile(x[: first + 1, here], [5, 95], axis=0)
            span = high - low
            out[first:stop, here] = (x[first:stop, here] - 0.5 * (low + high)) / np.where(span > 1e-9, span, 1.0)
        first = stop
    return out


def _joined(parts: list[tuple[NDArray[np.float64], list[str]]]) -> tuple[NDArray[np.float64], list[str]]:
    names = [n for _, ns in parts for n in ns]
    if len(set(names)) < len(names):
        raise InputError("two features streams hold channels of the same name: rename one")
    return np.concatenate([x for x, _ in parts], axis=1), names


def _running_mean(x: NDArray[np.float64], n: int, *, past: bool) -> NDArray[np.float64]:
    """Mean of each row and the n - 1 before it (of those that are finite)."""
    ok = np.isfinite(x)
    total = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(np.where(ok, x, 0.0), axis=0)])
    count = np.concatenate([np.zeros((1, x.shape[1])), np.cumsum(ok, axis=0)])
    stop = np.arange(1, len(x) + 1)
    begin = np.maximum(stop - n, 0)
    k = count[stop] - count[begin]
    return np.where(k > 0, (total[stop] - total[begin]) / np.maximum(k, 1), np.nan)


def _triangular_mean(x: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """Triangular mean over n rows centred on each, of those that are finite (ends use what there is)."""
    from scipy.ndimage import convolve1d

    half = max(1, n // 2)
    w = half + 1 - np.abs(np.arange(-half, half + 1.0))
    ok = np.isfinite(x)
    total = convolve1d(np.where(ok, x, 0.0), w, axis=0, mode="constant")
    weight = convolve1d(ok.astype(np.float64), w, axis=0, mode="constant")
    return np.where(weight > 0.5, total / np.maximum(weight, 1e-12), np.nan)


def _shifted(x: NDArray[np.float64], lag: int) -> NDArray[np.float64]:
    """Row i holds row i - lag; NaN beyond the ends."""
    out = np.full_like(x, np.nan)
    if 0 < abs(lag) < len(x):
        out[max(lag, 0) : len(x) + min(lag, 0)] = x[max(-lag, 0) : len(x) - max(lag, 0)]
    return out
