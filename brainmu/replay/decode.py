"""Position from spikes: memoryless Poisson Bayes, a state-space smoother, and how well either does on running it has not seen.

References
----------
Zhang, Ginzburg, McNaughton & Sejnowski (1998), J Neurophysiol 79:1017 (Poisson Bayes, and its two-step form with continuity).
Brown, Frank, Tang, Quirk & Wilson (1998), J Neurosci 18:7411 (state space).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Intervals, Recording, Spikes
from brainmu.errors import InputError, MissingDataError
from brainmu.replay.contexts import run_epochs_by_context
from brainmu.replay.fields import PlaceFields, place_fields, select_units
from brainmu.replay.position import Position, moving, position_of, speed_threshold

__all__ = ["bins_within", "cross_validated_error", "decode", "log_likelihood", "point_estimate"]

Method = Literal["memoryless", "state_space"]
METHODS = ("memoryless", "state_space")


def log_likelihood(counts: NDArray[Any], rates: NDArray[Any], seconds: float | NDArray[np.float64]) -> NDArray[np.float32]:
    """Poisson log-likelihood (bin, place) of spike counts at each place, up to a constant of each bin.

    Parameters
    ----------
    counts : (bin, unit)
    rates : (unit, place), Hz
        Positive.
    seconds : float or (bin,)
        Length of the bins.
    """
    r = np.asarray(rates, dtype=np.float32)
    out = np.asarray(counts, dtype=np.float32) @ np.log(r)
    total = r.sum(0, dtype=np.float64).astype(np.float32)
    out -= np.multiply.outer(np.broadcast_to(np.asarray(seconds, dtype=np.float32), len(out)), total)
    return out


def decode(
    counts: NDArray[Any], fields: PlaceFields, seconds: float | NDArray[np.float64], *, prior: Literal["uniform", "occupancy"] = "uniform"
) -> NDArray[np.float32]:
    """Posterior (bin, place) of the place, each bin on its own; places are ``fields.points``.

    `counts` (bin, unit) must follow ``fields.units``. Replay is read with the uniform prior: what the animal did most must not
    become what it replays most.
    """
    counts = np.asarray(counts)
    if counts.ndim != 2 or counts.shape[1] != len(fields.units):
        raise InputError(f"decode: counts have shape {counts.shape}, expected (bin, {len(fields.units)}): a column a unit of the fields")
    logp = log_likelihood(counts, fields.rates, seconds)
    if prior == "occupancy":
        logp += np.log(np.maximum(fields.prior, 1e-6)).astype(np.float32)
    return normalise(logp)


def normalise(logp: NDArray[np.float32]) -> NDArray[np.float32]:
    """exp of each row of (bin, place), summing to 1."""
    p = np.exp(logp - logp.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    return p


def point_estimate(posterior: NDArray[np.float32], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The place (bin, d) of least expected distance under each row of `posterior` (bin, place): the geometric median over the places."""
    out = np.empty((len(posterior), points.shape[1]))
    p = points.astype(np.float32)
    distance = np.sqrt(np.maximum(((p[:, None] - p[None]) ** 2).sum(-1), 0))
    for i in range(0, len(posterior), 4096):
        out[i : i + 4096] = points[(posterior[i : i + 4096] @ distance).argmin(1)]
    return out


def bins_within(spans: Intervals, size: float) -> NDArray[np.float64]:
    """Bins (n, 2), s, of `size` laid from the start of each span; a last one is kept, shortened, if its centre still lies inside."""
    rows = []
    for a, b in spans:
        n = int(np.floor((b - a) / size + 0.5 + 1e-9))
        left = a + size * np.arange(n)
        rows.append(np.c_[left, np.minimum(left + size, b)])
    return np.concatenate(rows) if rows else np.empty((0, 2))


def counts_in(spikes: Spikes, bins: NDArray[np.float64]) -> NDArray[np.int32]:
    """Spike counts (bin, unit) in any bins (n, 2), s; columns follow the units table."""
    out = np.zeros((len(bins), spikes.n_units), dtype=np.int32)
    for k, u in enumerate(spikes.units["id"]):
        t = spikes.of(int(u))
        out[:, k] = np.searchsorted(t, bins[:, 1]) - np.searchsorted(t, bins[:, 0])
    return out


def cross_validated_error(
    recording: Recording, *, run: str | Intervals | Mapping[str, Intervals] | None = None, bin_size: float = 0.25, folds: int = 5,
    method: Method = "state_space", speed: float | None = None, smoothing: float | None = None,
    bin: float | None = None, least_spikes: int = 50, fastest: float = 30.0,
    seed: int = 0, progress: Callable[[str, float], None] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """How far the decoded place lies from the true one, on running that the fields have not seen.

    The position record is cut into `folds` contiguous parts of equal length; each is decoded with fields (and their smoothing)
    from the others, in `bin_size` bins, where the animal moves faster than `speed` for at least 0.5 s. Nothing of a part enters
    its own decoder but its spikes.

    Parameters
    ----------
    run : str, Intervals, mapping of names to Intervals, or None
        Epochs to stay within, as :func:`brainmu.replay.find_replay` takes them; without the label "run" they are derived from
        speed. Several contexts are decoded each with its own fields, and their errors pooled.
    method : {"state_space", "memoryless"}
        Whose error `median` is; both are reported. "memoryless" is Poisson Bayes with the training occupancy as prior and the
        most probable place; "state_space" adds a random walk with the step size of the training data, smoothed forwards and
        backwards, and takes the place of least expected distance.
    speed : float or None, unit/s
        None takes 0.04 for metres, 15 for pixels, 3 % of the range otherwise.

    Returns
    -------
    dict
        median, unit, bin_size, folds, n_bins, chance (median error against the places of shuffled bins), n_units, mean, method,
        memoryless and state_space (median of each), speed, smoothing (of each fold), folds_used, epochs (how they were told),
        by_context, cut ("position record"; "running time" where too few parts of the record hold running, or with several
        contexts), quality ("good", or "poor" if the error exceeds 0.7 of chance).

    Raises
    ------
    MissingDataError
        If there are no spikes, no position, or too little running to leave any out.
    """
    spikes, position = units_and_position(recording, least_spikes, fastest)
    threshold = speed_threshold(position) if speed is None else float(speed)
    if folds < 2 or not 0 < bin_size < np.inf:
        raise InputError(f"decoding error: {folds} folds, bins of {bin_size:g} s: expected at least 2, more than 0")
    epochs, how = run_epochs_by_context(recording, run, position)
    rows, cut, by_context = [], "", {}
    for k, (name, spans) in enumerate(epochs.items()):
        record = (float(position.times[0]), float(position.times[-1])) if len(epochs) == 1 else None
        parts, cut = cut_folds(moving(position, threshold).intersect(spans), record, folds, "running", "position record")
        mine = []
        for i, (train, test) in enumerate(parts):
            fields = place_fields(spikes, position, train, bin=bin, smoothing=smoothing)
            mine.append(_decode_fold(spikes, position, fields, train, test, bin_size))
            if progress:
                progress("decoding", (k + (i + 1) / len(parts)) / len(epochs))
        by_context[name] = float(np.median(np.concatenate([np.linalg.norm(r[METHODS.index(method) + 1] - r[0], axis=1) for r in mine])))
        rows += mine
    truth, plain, smoothed = (np.concatenate([r[i] for r in rows]) for i in range(3))
    error = {"memoryless": np.linalg.norm(plain - truth, axis=1), "state_space": np.linalg.norm(smoothed - truth, axis=1)}
    decoded = {"memoryless": plain, "state_space": smoothed}[method]
    chance = np.linalg.norm(decoded - truth[np.random.default_rng(seed).permutation(len(truth))], axis=1)
    median = {k: float(np.median(v)) for k, v in error.items()}
    return {
        "median": median[method], "unit": position.unit, "bin_size": bin_size, "folds": folds, "n_bins": len(truth),
        "chance": float(np.median(chance)), "n_units": spikes.n_units, "mean": float(error[method].mean()), "method": method, **median,
        "speed": threshold, "smoothing": [r[3] for r in rows], "folds_used": len(rows), "cut": cut, "epochs": how, "by_context": by_context,
        "quality": "good" if median[method] <= 0.7 * np.median(chance) else "poor",
    }  # fmt: skip


def units_and_position(recording: Recording, least: int = 50, fastest: float = 30.0) -> tuple[Spikes, Position]:
    """The units fit for decoding and the position, or a MissingDataError that says what the recording lacks."""
    if recording.spikes is None or not len(recording.spikes):
        raise MissingDataError(f"{recording.id}: no spikes, decoding needs sorted units")
    position = position_of(recording)
    spikes, _ = select_units(recording.spikes, least, fastest)
    inside = Intervals([[position.times[0], position.times[-1]]]).contains(spikes.times)
    if not inside.any():
        raise MissingDataError(
            f"{recording.id}: no spike lies within the position record ({position.times[0]:.1f}-{position.times[-1]:.1f} s): are they on one clock?"
        )
    return spikes, position


def cut_folds(
    spans: Intervals, record: tuple[float, float] | None, folds: int, what: str = "head direction", name: str = "head-direction record"
) -> tuple[list[tuple[Intervals, Intervals]], str]:
    """(train, test) of each fold with at least 5 s to test and 10 s to train, and what was cut into equal parts: the record, or the time in `spans`."""
    if spans.duration < 15:
        raise MissingDataError(f"decoding error: {spans.duration:.1f} s of {what}, expected at least 15 s")
    # Records often go on through rest; then equal parts of the record would leave one fold with everything.
    by_time = None if record is None else np.linspace(*record, folds + 1)
    by_content = np.interp(np.linspace(0, spans.duration, folds + 1), np.r_[0, np.cumsum(spans.stop - spans.start)], np.r_[spans.start[0], spans.stop])
    for edges, cut in ((by_time, name), (by_content, f"{what} time")):
        out = []
        for a, b in pairwise(edges) if edges is not None else ():
            part = Intervals([[a, b]])
            test, train = spans.intersect(part), spans.subtract(part)
            if test.duration >= 5 and train.duration >= 10:
                out.append((train, test))
        if len(out) >= min(3, folds):
            return out, cut
    raise MissingDataError(f"decoding error: {spans.duration:.1f} s of {what} leave fewer than {min(3, folds)} folds of 5 s: give fewer folds or more of it")


def _decode_fold(
    spikes: Spikes, position: Position, fields: PlaceFields, train: Intervals, test: Intervals, bin_size: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], float]:
    bins = bins_within(test, bin_size)
    truth = position.at(bins.mean(1))
    known = np.isfinite(truth).all(1)
    bins, truth = bins[known], truth[known]
    counts = counts_in(spikes, bins)
    loglik = log_likelihood(counts, fields.rates, bins[:, 1] - bins[:, 0])
    plain = fields.points[(loglik + np.log(np.maximum(fields.prior, 1e-6))).argmax(1)]
    posterior = smooth_walk(loglik, bins, fields, step_size(position, train, bin_size), bin_size)
    return truth, plain, point_estimate(posterior, fields.points), fields.smoothing


def step_size(position: Position, during: Intervals, seconds: float) -> float:
    """Root mean square movement along one axis in `seconds`, within `during`."""
    t = position.times[during.contains(position.times) & during.contains(position.times + seconds)]
    moved = position.at(t + seconds) - position.at(t)
    return float(np.sqrt(np.nanmean(moved**2)))


def smooth_walk(loglik: NDArray[np.float32], bins: NDArray[np.float64], fields: PlaceFields, step: float, bin_size: float) -> NDArray[np.float32]:
    """Posterior (bin, place) under a Gaussian random walk with `step` a bin that favours places as the occupancy does.

    Across a pause between bins the walk goes on unseen, for as many steps as would fit (20 at most).
    """
    walk = _Walk(fields, step)
    like = np.exp(loglik - loglik.max(1, keepdims=True)).astype(np.float64)
    pause = np.clip(np.round((bins[1:, 0] - bins[:-1, 0]) / bin_size), 1, 20).astype(int)
    n = len(like)
    forward = np.empty_like(like)
    state = fields.prior
    for i in range(n):
        if i:
            for _ in range(pause[i - 1]):
                state = walk.ahead(state)
        state = state * like[i]
        state = state / state.sum()
        forward[i] = state
    back = np.ones(like.shape[1])
    out = np.empty(like.shape, dtype=np.float32)
    for i in range(n - 1, -1, -1):
        both = forward[i] * back
        out[i] = both / both.sum()
        back = back * like[i]
        for _ in range(pause[i - 1] if i else 0):
            back = walk.behind(back)
        back = back / back.max()
    return out


class _Walk:
    """p(next | now) proportional to a Gaussian of their distance times the occupancy of `next`, with 2 % of jumps anywhere."""

    def __init__(self, fields: PlaceFields, step: float, jump: float = 0.02) -> None:
        self.visited, self.prior, self.jump = fields.visited, fields.prior, jump
        self.kernels = [_kernel(len(e) - 1, max(step / (e[1] - e[0]), 0.3)) for e in fields.edges]
        self.reach = np.maximum(self._spread(self.prior), 1e-12)

    def ahead(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        return (1 - self.jump) * self.prior * self._spread(p / self.reach) + self.jump * p.sum() * self.prior

    def behind(self, b: NDArray[np.float64]) -> NDArray[np.float64]:
        return (1 - self.jump) * self._spread(b * self.prior) / self.reach + self.jump * (b * self.prior).sum()

    def _spread(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        grid = np.zeros(self.visited.shape)
        grid[self.visited] = p
        # A Gaussian is separable, and small dense matrices are quicker than a filter that is set up anew at every step.
        grid = self.kernels[0] @ grid
        return (grid @ self.kernels[1] if grid.ndim == 2 else grid)[self.visited]


def _kernel(n: int, sigma: float) -> NDArray[np.float64]:
    """Gaussian weights (n, n) between bins, cut at 4 SD."""
    d = np.arange(n)[:, None] - np.arange(n)[None]
    k = np.exp(-0.5 * (d / sigma) ** 2) * (np.abs(d) <= 4 * sigma + 1)
    return k / (np.sqrt(2 * np.pi) * sigma)
