"""The coordinate of a track with arms, and replay on one."""

from __future__ import annotations

import numpy as np
import pytest

import brainmu as bm
from brainmu.core import EventTable, Intervals
from brainmu.replay.contexts import fit_contexts
from brainmu.replay.decode import units_and_position
from brainmu.replay.position import position_of
from brainmu.replay.statespace import classify_dynamics
from brainmu.replay.track import fit_track

ARMS = {"left": [(0, 0), (0, 100), (-50, 100), (-50, 0)], "right": [(0, 0), (0, 100), (50, 100), (50, 0)]}
"""From the foot of the middle arm of a W, cm."""


def _walk(corners: list[tuple[float, float]], n: int) -> np.ndarray:
    c = np.array(corners, dtype=float)
    s = np.r_[0, np.cumsum(np.hypot(*np.diff(c, axis=0).T))]
    at = np.linspace(0, s[-1], n)
    return np.c_[np.interp(at, s, c[:, 0]), np.interp(at, s, c[:, 1])]


def _w_maze(seed: int = 0, cells: int = 40, laps: int = 10, events: int = 30) -> tuple[bm.Recording, EventTable]:
    """Laps on a W, alternating between its outer arms, then rest with runs of the same cells from the middle arm into one of them and back."""
    rng, rate = np.random.default_rng(seed), 30.0
    xy = []
    for k in range(laps):
        out = _walk(ARMS["right" if k % 2 else "left"], 190)
        xy += [out, np.repeat(out[-1:], 60, axis=0), out[::-1], np.repeat(out[:1], 60, axis=0)]
    xy = np.concatenate(xy)
    t = np.arange(len(xy)) / rate
    # Evenly along both arms, so that each end has cells.
    field = np.concatenate([_walk(ARMS[a], cells // 2) for a in ARMS])
    tuning = lambda p: 12 * np.exp(-0.5 * ((p[:, None] - field[None]) ** 2).sum(2) / 12**2)  # noqa: E731
    moving = np.r_[0, np.hypot(*np.diff(xy, axis=0).T)] > 0.1
    counts = rng.poisson((tuning(xy) * moving[:, None] + 0.3) / rate)
    i, u = np.nonzero(counts)
    times, units = [np.repeat(t[i], counts[i, u])], [np.repeat(u, counts[i, u])]
    start = t[-1] + 20 + 4.0 * np.arange(events)
    side, back = np.array(["left", "right"])[np.arange(events) % 2], np.arange(events) // 2 % 2 == 1
    for a, s, reverse in zip(start, side, back):
        way = _walk(ARMS[s], 200)
        f = rng.poisson(5 * tuning(way[::-1] if reverse else way) / 1000)
        i, u = np.nonzero(f)
        times.append(a + i / 1000)
        units.append(u)
    labels = {"run": Intervals([[0, t[-1]]]), "rest": Intervals([[t[-1] + 10, start[-1] + 10]])}
    position = {"values": xy + rng.normal(0, 1, xy.shape), "rate": rate, "unit": "cm", "kind": "position", "channels": ["x", "y"]}
    spikes = {"times": np.concatenate(times), "unit": np.concatenate(units)}
    rec = bm.Recording.from_arrays("w", signals={"position": position}, spikes=spikes, labels=labels)
    return rec, EventTable(start, start + 0.2, content=side, back=back)


@pytest.fixture(scope="module")
def maze() -> tuple[bm.Recording, EventTable]:
    return _w_maze()


@pytest.mark.parametrize("stem", [100.0, 60.0])
def test_an_arm_is_unrolled_from_where_it_leaves_the_track(stem: float) -> None:
    """The first stretch of an arm, or all of one that is short for the track, once shared the coordinate of the junction."""
    reach = [(0, 0), (0, stem), (-100, stem), (-100, 0)]
    laps = [w for k in range(6) for w in (_walk([(-x if k % 2 else x, y) for x, y in reach], 150),) for w in (w, w[::-1])]
    xy = np.concatenate(laps) + np.random.default_rng(0).normal(0, 0.5, (len(laps) * 150, 2))
    rec = bm.Recording.from_arrays("w", signals={"position": {"values": xy, "rate": 30.0, "unit": "cm", "kind": "position", "channels": ["x", "y"]}})
    position = position_of(rec)
    track = fit_track(position, Intervals([[0, position.times[-1]]]))
    middle = track.project(np.c_[np.zeros(9), np.linspace(5, stem - 25, 9)])
    assert (np.diff(middle) < 0).all() and abs(middle[0] - middle[-1] - (stem - 30)) < 5


def test_distances_on_a_track_with_arms_are_walked(maze) -> None:
    position = position_of(maze[0])
    track = fit_track(position, maze[0].labels["run"])
    assert abs(track.extent - 400) < 20 and track.length - track.extent > 10
    foot, middle, left, right = track.project(np.array([(0, 3), (0, 50), (-50, 3), (50, 3)]))
    d = track.distance(np.array([foot, middle, left]), np.array([foot, left, right]))
    want = np.array([[0, 244, 244], [47, 197, 197], [244, 0, 294]])
    assert np.abs(d - want).max() < 15
    end = np.abs(track.end_places - [(0, 0)]).sum(1).argmin()
    other = np.abs(track.end_places - [(-50, 0)]).sum(1).argmin()
    on = track.on_way(np.array([foot, middle, left, right]), end, other)
    assert np.abs(on - [0, 47, 244, 97]).max() < 15, "the right arm lies where it leaves the way into the left one"


def test_replay_into_every_arm_is_found_and_told(maze) -> None:
    """In one coordinate the way into one of two outer arms turns back on itself, and none of its replay was ever called."""
    rec, events = maze
    found = bm.find_replay(rec, candidates=events, shuffles=50, null_sessions=4, null_shuffles=30)
    assert len(found) == len(events)
    called = found.p_value < 0.05
    for side in ("left", "right"):
        assert called[events.content == side].mean() > 0.8, side
    foot = {k: str(np.abs(np.array(found.attrs["ends"]["run"]) - p[-1]).sum(1).argmin()) for k, p in ARMS.items()}
    middle = str(np.abs(np.array(found.attrs["ends"]["run"]) - (0, 0)).sum(1).argmin())
    want = [f"{foot[s]}>{middle}" if b else f"{middle}>{foot[s]}" for s, b in zip(events.content, events.back)]
    assert (found.way == np.array(want, dtype=object))[called].mean() > 0.9
    assert set(found.direction[called]) <= {"forward", "reverse"}


def test_content_that_runs_through_a_junction_is_continuous(maze) -> None:
    rec, events = maze
    spikes, position = units_and_position(rec)
    context = fit_contexts(rec, spikes, position)[0]["run"]
    table, _ = classify_dynamics(rec, events, context)
    by_side = [np.mean(table.continuous[events.content == s]) for s in ARMS]
    assert min(by_side) > 0.4 and abs(by_side[0] - by_side[1]) < 0.2
    assert "1 arms" in repr(context) and len(repr(context)) < 300
