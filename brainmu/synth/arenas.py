"""Where an animal can be: a straight track, a maze of arms or an open box, as places with their distances and the routes through them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from brainmu.errors import InputError
from brainmu.synth.effects import ornstein_uhlenbeck
from brainmu.synth.track import Run, run_laps
from brainmu.synth.truth import PlaceFields

__all__ = ["ARENAS", "Arena", "Route", "arena_fields", "forage", "make_arena", "route_maker", "run_in"]

ARENAS = ("linear", "open", "arms")
"""Kinds of arena."""
_TRACK_BINS, _ARM_BINS, _BOX_BINS = 64, 24, 20
_WALL = 0.06  # m from a wall within which the animal turns away


@dataclass(frozen=True)
class Arena:
    """The places of one context.

    Attributes
    ----------
    kind : {"linear", "open", "arms"}
    size : float, m
        Length of the track or of an arm, side of the box.
    grid : float64 (bin,), m
        Linearised place of each bin: along the track; arm k from k * size (the centre of the maze) to (k + 1) * size; in a box the number of the bin.
    xy : float64 (bin, 2), m
        The bins in the room.
    arm : intp (bin,)
        Number of the arm, 0 where there are none.
    arms : tuple of str
        Names of the arms.
    """

    kind: str
    size: float
    grid: NDArray[np.float64]
    xy: NDArray[np.float64]
    arm: NDArray[np.intp]
    arms: tuple[str, ...] = ()

    @property
    def corner(self) -> NDArray[np.float64]:
        """The lower left corner of a box (2,), m; the end of a track; the centre of a maze."""
        if self.kind == "arms":
            return 1.5 * self.xy[0] - 0.5 * self.xy[1]
        return self.xy[0] - 0.5 * self.size / (_BOX_BINS if self.kind == "open" else _TRACK_BINS) * np.array([1.0, self.kind == "open"])

    def distance(self, k: int) -> NDArray[np.float64]:
        """Way (bin,), m, from bin `k` to every bin; between arms it leads through the centre."""
        if self.kind == "open":
            return np.hypot(*(self.xy - self.xy[k]).T)
        out = self.grid - self.arm * self.size if self.kind == "arms" else self.grid
        return np.where(self.arm == self.arm[k], np.abs(out - out[k]), out + out[k])

    def bins(self, place: NDArray[np.float64]) -> NDArray[np.intp]:
        """Bin (n,) at `place`: linearised (n,) on a track or in a maze, in the room (n, 2) in a box; m."""
        if self.kind == "open":
            column, row = np.clip(((place - self.corner) / self.size * _BOX_BINS).astype(np.intp), 0, _BOX_BINS - 1).T
            return row * _BOX_BINS + column
        total = self.size * max(len(self.arms), 1)
        return np.clip((place / total * len(self.grid)).astype(np.intp), 0, len(self.grid) - 1)


def make_arena(kind: str, number: int, size: float, arms: tuple[str, ...]) -> Arena:
    """Arena `number` of a recording, beside the ones before it."""
    if kind == "linear":
        grid = (np.arange(_TRACK_BINS) + 0.5) * size / _TRACK_BINS
        return Arena(kind, size, grid, np.c_[0.1 + grid, np.full(_TRACK_BINS, 0.2 + number)], np.zeros(_TRACK_BINS, dtype=np.intp))
    if kind == "open":
        centre = (np.arange(_BOX_BINS) + 0.5) * size / _BOX_BINS
        xy = np.stack(np.meshgrid(0.1 + number * (size + 0.3) + centre, 0.2 + centre), axis=-1).reshape(-1, 2)
        return Arena(kind, size, np.arange(_BOX_BINS**2, dtype=np.float64), xy, np.zeros(_BOX_BINS**2, dtype=np.intp))
    if kind != "arms":
        raise InputError(f"arena is {kind!r}, expected one of {', '.join(ARENAS)}")
    if len(arms) < 2 or len(set(arms)) != len(arms):
        raise InputError(f"arms are {arms}, expected two or more different names")
    if "stem" in arms[1:]:
        raise InputError(f"arms are {arms}, but a maze with a stem begins with it: give ('stem', …)")
    out = (np.arange(_ARM_BINS) + 0.5) * size / _ARM_BINS
    # A stem points down with the others spread over the upper half (a T of three); without one they stand around the centre like a cross.
    n = len(arms)
    angle = np.r_[-np.pi / 2, np.linspace(np.pi, 0, n - 1)] if arms[0] == "stem" else np.pi / 2 - 2 * np.pi * np.arange(n) / n
    middle = np.array([0.1 + size + number * (2 * size + 0.3), 0.2 + size])
    xy = np.concatenate([middle + out[:, None] * [np.cos(a), np.sin(a)] for a in angle])
    arm = np.repeat(np.arange(n), _ARM_BINS)
    return Arena(kind, size, np.tile(out, n) + arm * size, xy, arm, arms)


# -- routes: what a replay can sweep along ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Route:
    """A way through an arena: bins at equal steps of a `length` in m."""

    length: float
    bins: NDArray[np.intp]

    def at(self, where: NDArray[np.float64]) -> NDArray[np.intp]:
        """Bin at `where` (n,), m along the route."""
        return self.bins[np.clip((where / self.length * len(self.bins)).astype(np.intp), 0, len(self.bins) - 1)]


def route_maker(arena: Arena, run: Run | None, rng: np.random.Generator) -> Callable[[], Route]:
    """Where the replays of an arena lead: along the track; from one arm into one named later; in a box along a stretch of the path that was run."""
    if arena.kind == "linear":
        track = Route(arena.grid[-1] + arena.grid[0], np.arange(len(arena.grid)))
        return lambda: track
    if arena.kind == "arms":
        arms = [np.flatnonzero(arena.arm == k) for k in range(len(arena.arms))]

        def between() -> Route:
            i, j = np.sort(rng.permutation(len(arms))[:2])
            return Route(2 * arena.size, np.r_[arms[i][::-1], arms[j]])

        return between
    xy = run.path if run is not None else arena.corner + forage(arena.size, 4000, 0.025, 0.3, rng)
    s = np.r_[0.0, np.cumsum(np.hypot(*np.diff(xy, axis=0).T))]
    length = min(1.5 * arena.size, 0.9 * s[-1])

    def stretch() -> Route:
        a = rng.uniform(0, s[-1] - length)
        along = a + (np.arange(128) + 0.5) * length / 128
        return Route(length, arena.bins(np.c_[np.interp(along, s, xy[:, 0]), np.interp(along, s, xy[:, 1])]))

    return stretch


# -- behaviour -------------------------------------------------------------------------------------------------------


def run_in(
    arena: Arena, context: str, number: int, start: float, stop: float, rng: np.random.Generator, *, speed: float, pause: float, rate: float, jitter: float
) -> Run:
    """One stay in an arena: laps on a track, visits of one arm after another, or foraging in a box; see :func:`run_laps`."""
    shape = dict(speed=speed, pause=pause, rate=rate, jitter=jitter)
    if arena.kind == "linear":
        return run_laps(context, number, start, stop, rng, length=arena.size, **shape)
    if arena.kind == "open":
        n = max(2, round((stop - start) * rate))
        path = arena.corner + forage(arena.size, n, 1 / rate, speed, rng)
        pace = np.hypot(*np.gradient(path, axis=0).T) * rate
        time = start + np.arange(n) / rate
        return Run(context, start, stop, time, arena.bins(path).astype(np.float64), pace, path + jitter * rng.standard_normal((n, 2)), path)
    laps = run_laps(context, number, start, stop, rng, length=2 * arena.size, **shape)
    visit = np.cumsum(np.r_[0, np.diff(laps.along >= arena.size) != 0])
    arm = np.array(_visits(arena.arms, visit[-1] + 1, rng), dtype=np.intp)[visit]
    out = np.minimum(np.abs(laps.along - arena.size), arena.size * (1 - 1e-9))
    tip = np.stack([arena.xy[arena.arm == k][-1] for k in range(len(arena.arms))])
    path = arena.corner + (tip - arena.corner)[arm] * (out / np.hypot(*(tip[0] - arena.corner)))[:, None]
    return replace(laps, along=arm * arena.size + out, speed=np.abs(laps.speed), path=path, xy=path + jitter * rng.standard_normal(path.shape))


def _visits(arms: tuple[str, ...], n: int, rng: np.random.Generator) -> list[int]:
    """Arms in the order they are visited: never one twice running; from a stem into one of the others and back."""
    out = [0]
    while len(out) < n:
        if arms[0] == "stem":
            out.append(0 if out[-1] else int(rng.integers(1, len(arms))))
        else:
            out.append(int((out[-1] + rng.integers(1, len(arms))) % len(arms)))
    return out


def forage(side: float, n: int, dt: float, speed: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A path (n, 2), m, in a box [0, `side`)²: a correlated random walk that turns away from walls and stands still now and then."""
    turn = 1.6 * ornstein_uhlenbeck(rng, n, 0.6, dt)
    pace = speed * np.exp(0.35 * ornstein_uhlenbeck(rng, n, 2.0, dt)) * (ornstein_uhlenbeck(rng, n, 4.0, dt) > -1.1)
    # Nobody stops or starts in no time.
    width = max(1, round(0.25 / dt))
    pace = np.convolve(np.pad(pace, width, mode="edge"), np.hanning(2 * width + 1) / np.hanning(2 * width + 1).sum(), mode="valid")
    x, y, heading, half = *(side * rng.uniform(0.2, 0.8, 2)).tolist(), rng.uniform(-math.pi, math.pi), side / 2
    low, high, path = _WALL, side - _WALL, np.empty((n, 2))
    for i, (w, v) in enumerate(zip(turn.tolist(), (pace * dt).tolist())):
        dx, dy = math.cos(heading), math.sin(heading)
        if (x < low and dx < 0) or (x > high and dx > 0) or (y < low and dy < 0) or (y > high and dy > 0):
            away = (math.atan2(half - y, half - x) - heading + math.pi) % (2 * math.pi) - math.pi
            heading += math.copysign(min(abs(away), 7.0 * dt), away)
        else:
            heading += w * dt
        x, y = min(max(x + v * math.cos(heading), 0.0), side), min(max(y + v * math.sin(heading), 0.0), side)
        path[i] = x, y
    return path


# -- fields ----------------------------------------------------------------------------------------------------------


def arena_fields(
    arenas: dict[str, Arena], n_place: int, n_inter: int, rng: np.random.Generator, *, width: float, peak: float, active: float, inter_rate: float
) -> PlaceFields:
    """Independent fields in every maze or box (global remapping); the parameters are those of :func:`brainmu.synth.track.place_fields`."""
    first = next(iter(arenas.values()))
    rate = np.full((len(arenas), n_place + n_inter, len(first.grid)), 0.1)
    for c, arena in enumerate(arenas.values()):
        for u in range(n_place):
            for k in range((rng.random() < active) * (1 + (rng.random() < 0.15))):
                way = arena.distance(int(rng.integers(len(arena.grid))))
                sd = width * np.exp(0.25 * rng.standard_normal())
                rate[c, u] += peak * np.exp(0.5 * rng.standard_normal()) / (1 + k) * np.exp(-0.5 * (way / sd) ** 2)
    rate[:, n_place:] = (inter_rate * np.exp(0.3 * rng.standard_normal(n_inter)))[:, None]
    return PlaceFields(
        rate, first.grid, np.stack([a.xy for a in arenas.values()]), tuple(arenas), np.arange(n_place + n_inter, dtype=np.int32), first.kind,
        tuple(first.arms[k] for k in first.arm) if first.arms else (),
    )  # fmt: skip
