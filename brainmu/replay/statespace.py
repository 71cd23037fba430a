"""What moves in an event, at 2 ms: a state-space decoder that tells continuous, fragmented and stationary content apart.

Many events are decoded together, in float32: each step is one small matrix product for all of them.

References
----------
Denovellis, Gillespie, Coulter, Sosa, Chung, Eden & Frank (2021), eLife 10:e64505.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from brainmu.core import EventTable, Recording
from brainmu.core.units import unit_factor
from brainmu.errors import InputError, MissingDataError
from brainmu.replay.contexts import Context

__all__ = ["STATES", "StateSpace", "classify_dynamics", "smooth_states"]

STATES = ("continuous", "fragmented", "stationary")
_WALK_VARIANCE = 6e-4
"""Of the continuous walk in 2 ms, m² (Denovellis et al. 2021)."""
_BATCH_BINS = 50_000
_LOWEST = -40.0
"""Log-likelihood of a place against that of the best, at least: less is nothing to float32, and products of two such numbers stay normal."""

Float = NDArray[np.float32]


@dataclass(frozen=True)
class StateSpace:
    """Posterior of one event.

    `posterior` float32 (time, state, place), summing to 1 at each time; `times` (time,), s: bin centres; `places` (place,).
    """

    posterior: Float
    times: NDArray[np.float64]
    places: NDArray[np.float64]

    @property
    def states(self) -> Float:
        """Probability (time, state) of each dynamic."""
        return self.posterior @ np.ones(self.posterior.shape[2], dtype=np.float32)

    @property
    def position(self) -> Float:
        """Posterior (time, place)."""
        return self.posterior[:, 0] + self.posterior[:, 1] + self.posterior[:, 2]


def classify_dynamics(
    recording: Recording,
    events: EventTable,
    context: Context,
    *,
    bin_size: float = 0.002,
    stay: float = 0.98,
    certain: float = 0.8,
    device: str | None = None,
) -> tuple[EventTable, list[StateSpace]]:
    """`events` with the mean probability of each dynamic, and each event's posterior.

    Adds columns ``continuous``, ``fragmented``, ``stationary`` (mean over the event), ``dynamics`` (the one that is above `certain`
    for more than half of the event, else "mixed") and ``state_speed`` (median speed of the most probable place, the position's
    unit a second).

    `device` names a device of torch ("cuda"); None is numpy on the processor, which is faster there than torch.

    Raises
    ------
    MissingDataError
        If there are no spikes.
    InputError
        If `bin_size` or `stay` is out of range, or there is no such device.
    """
    if recording.spikes is None:
        raise MissingDataError(f"{recording.id}: no spikes, decoding needs sorted units")
    if not bin_size > 0 or not 0 < stay < 1:
        raise InputError(f"state space: bin_size {bin_size} s and stay {stay}, expected a positive length and a probability")
    x = context.x
    spikes = recording.spikes.pick(context.fields.units)
    n = np.maximum(((events.stop - events.start) / bin_size + 1e-6).astype(int), 1)
    counts = spikes.window_counts(events.start, n, bin_size)
    apart = context.track.distance(x, x)
    found = smooth_states(counts, context.fields.rates, apart, bin_size, walk_sd(context, bin_size), stay, device)
    out = [StateSpace(p, a + bin_size * (np.arange(k) + 0.5), x) for p, a, k in zip(found, events.start, n)]
    return events.assign(**_summary(out, n, apart, bin_size, certain)), out


def _summary(found: list[StateSpace], n: NDArray[np.int64], apart: NDArray[np.float64], bin_size: float, certain: float) -> dict[str, NDArray]:
    """The columns that `classify_dynamics` adds, from the posterior of each event, its number of bins, and the distances of places (place, place)."""
    first = np.cumsum(n) - n
    states = np.concatenate([np.empty((0, 3), dtype=np.float32), *(s.states for s in found)])
    share, mostly = (np.add.reduceat(v, first, dtype=np.float64) / n[:, None] if len(n) else v for v in (states, states > certain))
    name = np.where(mostly.max(1, initial=0) > 0.5, np.array(STATES, dtype=object)[mostly.argmax(1)], "mixed")
    best = [s.position.argmax(1) for s in found]
    step = np.concatenate([np.empty(0), *(apart[b[1:], b[:-1]] for b in best)])
    speed = pd.Series(step / bin_size).groupby(np.repeat(np.arange(len(n)), n - 1)).median().reindex(range(len(n)))
    return {**{state: share[:, i] for i, state in enumerate(STATES)}, "dynamics": name.astype(object), "state_speed": speed.to_numpy()}


def walk_sd(context: Context, bin_size: float) -> float:
    """SD of the continuous walk in one bin: 2.4 cm in 2 ms where the unit is a length, else 1.2 % of the track."""
    factor, unit = unit_factor(context.fields.unit, kind="position")
    one = np.sqrt(_WALK_VARIANCE) / factor if unit == "m" else 0.012 * float(np.ptp(context.x))
    return float(one * np.sqrt(bin_size / 0.002))


def smooth_states(
    counts: list[NDArray[np.int32]], rates: Float, x: NDArray[np.float64], bin_size: float, walk: float, stay: float = 0.98, device: str | None = None
) -> list[Float]:
    """Posterior (time, state, place) of each event, given counts (time, unit) of each; forwards, then backwards.

    `x` holds the coordinates (place,), or the distance (place, place) of any two along a track with arms.

    The dynamic stays as it is with probability `stay` a bin and turns into each of the others with half of the rest. Content that
    is continuous moves by a Gaussian of SD `walk`, fragmented content jumps anywhere, stationary content does not move; to and from
    fragmented every place is equally likely.
    """
    order = np.argsort([len(c) for c in counts], kind="stable")[::-1]
    out: list[Float] = [np.empty(0, dtype=np.float32)] * len(counts)
    i, arrays = 0, _Arrays(device)
    with threadpool_limits(1, "blas"):  # products this small only wait for each other in several threads
        while i < len(order):
            longest = len(counts[order[i]])
            batch = order[i : i + max(_BATCH_BINS // max(longest, 1), 1)]
            for k, p in zip(batch, _smooth_batch([counts[k] for k in batch], rates, x, bin_size, walk, stay, arrays)):
                out[k] = p
            i += len(batch)
    return out


class _Arrays:
    """What numpy and torch share, on one device."""

    def __init__(self, device: str | None) -> None:
        self.device, self.module = device, np
        if device is not None:
            import torch

            try:
                torch.empty(0, device=device)
            except (RuntimeError, AssertionError) as e:
                raise InputError(f"device is {device!r}, expected one that torch has here, such as 'cpu' or 'cuda': {str(e).splitlines()[0]}") from e
            self.module = torch

    def put(self, values: NDArray[np.float32]) -> Any:
        return values if self.device is None else self.module.from_numpy(values).to(self.device)

    def get(self, values: Any) -> Float:
        return values if self.device is None else values.cpu().numpy()

    def ones(self, *shape: int) -> Any:
        return self.put(np.ones(shape, dtype=np.float32))


def _smooth_batch(
    counts: list[NDArray[np.int32]], rates: Float, x: NDArray[np.float64], bin_size: float, walk: float, stay: float, arrays: _Arrays
) -> list[Float]:
    """Events sorted by falling length, so that those still running are the first rows."""
    length = np.array([len(c) for c in counts])
    n, steps, places = len(counts), int(length[0]), len(x)
    put, ones, stack, join = arrays.put, arrays.ones, arrays.module.stack, arrays.module.concatenate
    like = put(_likelihood(counts, rates, bin_size))  # (time, event, place)
    apart = x if x.ndim == 2 else x[:, None] - x[None]
    move = np.exp(-0.5 * (apart / walk) ** 2)
    move = (move / move.sum(1, keepdims=True)).astype(np.float32)
    move, back_move = put(move), put(np.ascontiguousarray(move.T))
    change = np.full((3, 3), (1 - stay) / 2, dtype=np.float32)
    np.fill_diagonal(change, stay)
    change = put(change)
    running = [int((length > t).sum()) for t in range(steps)]
    one = ones(places)  # sums over places as products with it, which are several times faster
    mean, every = one / places, ones(3 * places)
    forward = put(np.empty((n, steps, 3, places), dtype=np.float32))
    # What is fragmented has the shape of the likelihood: a number an event, not a place, is all there is to carry. Each step
    # is scaled by the total of the one before it, along with its likelihood.
    c = s = ones(n, places) / (3 * places)
    total = ones(3, n) / 3
    for t in range(steps):
        k = running[t]
        c, s, total = c[:k], s[:k], total[:, :k]
        now = like[t, :k] * (1 / total.sum(0))[:, None]
        g = (change[:, 1] @ total if t else total[1]) / places
        if t:
            from_g = (change[1, 0] / places * total[1])[:, None]
            c, s = (change[0, 0] * c + change[2, 0] * s) @ move + from_g, change[0, 2] * c + change[2, 2] * s + from_g
        c, s, flat = c * now, s * now, g[:, None] * now
        total = stack([c @ one, flat @ one, s @ one])
        forward[:k, t, 0], forward[:k, t, 1], forward[:k, t, 2] = c, flat, s
    bc = bs = ones(running[-1], places)
    bg = norm = ones(running[-1])
    for t in range(steps - 1, -1, -1):
        if t < steps - 1:
            k = running[t + 1]
            now = like[t + 1, :k] * norm[:k, None]
            ac, as_, ag = bc[:k] * now, bs[:k] * now, bg[:k] * (now @ mean)
            moved, from_g = ac @ back_move, (change[0, 1] * ag)[:, None]
            new_c = change[0, 0] * moved + change[0, 2] * as_ + from_g
            new_s = change[2, 0] * moved + change[2, 2] * as_ + from_g
            new_g = change[1, 0] * (ac @ mean) + change[1, 2] * (as_ @ mean) + change[1, 1] * ag
            more = running[t] - k  # events whose last bin this is know nothing of what follows
            norm = join([1 / (new_c @ mean + new_s @ mean + new_g), ones(more)])
            bc, bs, bg = join([new_c, ones(more, places)]), join([new_s, ones(more, places)]), join([new_g, ones(more)])
        post = forward[: running[t], t]
        post[:, 0] *= bc
        post[:, 1] *= bg[:, None]
        post[:, 2] *= bs
        post /= (post.reshape(len(post), -1) @ every)[:, None, None]
    found = arrays.get(forward)
    return [found[e, :k] for e, k in enumerate(length)]


def _likelihood(counts: list[NDArray[np.int32]], rates: Float, bin_size: float) -> Float:
    """Likelihood (time, event, place), scaled to 1 at its highest place; bins without a spike share one row of work."""
    steps, n = len(counts[0]), len(counts)
    silent = np.exp(-bin_size * (total := rates.sum(0)) + bin_size * total.min()).astype(np.float32)
    out = np.broadcast_to(silent, (steps, n, rates.shape[1])).copy()
    flat = np.concatenate(counts)
    time = np.concatenate([np.arange(len(c)) for c in counts])
    event = np.repeat(np.arange(n), [len(c) for c in counts])
    busy = flat.any(1)
    logp = flat[busy].astype(np.float32) @ np.log(rates)
    logp -= (bin_size * total).astype(np.float32)
    logp -= logp.max(1, keepdims=True)
    np.maximum(logp, _LOWEST, out=logp)
    out.reshape(-1, rates.shape[1])[(time * n + event)[busy]] = np.exp(logp, out=logp)
    return out
