"""A one-dimensional coordinate along the track an animal ran on, found from where it has been.

Cells of a grid that were crossed at least twice form a graph; the two that lie farthest apart along it are the ends, and a
place's coordinate is how far along the way between them it lies. Arms that leave this way get a stretch of their own behind it,
and are known as a tree: how far two places lie apart, and where either lies on the way between any two ends.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from brainmu.core import Intervals
from brainmu.errors import MissingDataError
from brainmu.replay.position import Position

__all__ = ["Arm", "Track", "fit_track"]

_ARM = 0.12
"""Places beside the way between the track's ends form an arm (or an open field) where they reach farther from it than this share of its length."""
_WIDE = 1.5
"""Cells from that way within which a place is on it."""
_GAP = 0.08
"""Share of the track's length between the coordinates of two arms, so that smoothed fields do not run from the end of one into the next."""


@dataclass(frozen=True)
class Arm:
    """A stretch of the coordinate that leaves the way between the ends.

    Attributes
    ----------
    start, stop : float
        Its coordinates; it ends at `stop`.
    root : float
        Coordinate of the place where it leaves.
    depth : float
        How far `start` lies from there.
    """

    start: float
    stop: float
    root: float
    depth: float


@dataclass(frozen=True)
class Track:
    """A linear coordinate.

    Attributes
    ----------
    places : float64 (place, d)
        Cell centres on the track, the position's unit.
    coordinate : float64 (place,)
        Of each, from 0.
    segment : int (place,)
        0 the way between the ends, 1… the arms.
    length : float
        Highest coordinate; with arms that is more than there is of track, see :attr:`extent`.
    on_track : float
        Share of the running time spent in these cells.
    unit : str
    arms : tuple of Arm
        As in `segment` from 1; empty for a track that does not branch.
    """

    places: NDArray[np.float64]
    coordinate: NDArray[np.float64]
    segment: NDArray[np.intp]
    length: float
    on_track: float
    unit: str
    arms: tuple[Arm, ...] = ()

    def __repr__(self) -> str:
        return f"Track({self.extent:.4g} {self.unit}, {len(self.arms)} arms, {len(self.places)} places, {self.on_track:.1%} of the running time on it)"

    @property
    def extent(self) -> float:
        """Length of the way between the first two ends and of all arms."""
        return float(self.coordinate[self.segment == 0].max()) + sum(a.stop - a.start + a.depth for a in self.arms)

    @property
    def ends(self) -> NDArray[np.float64]:
        """Coordinates (end,): of the two that lie farthest apart, then of each arm."""
        return np.array([0.0, float(self.coordinate[self.segment == 0].max()), *(a.stop for a in self.arms)])

    @property
    def end_places(self) -> NDArray[np.float64]:
        """Places (end, d) of :attr:`ends`, the position's unit."""
        return self.places[[int(np.abs(self.coordinate - e).argmin()) for e in self.ends]]

    def distance(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
        """How far coordinates `x` (n,) lie from `y` (m,) along the track (n, m): from one arm to another by way of where they leave."""
        x, y = np.atleast_1d(x), np.atleast_1d(y)
        (bx, rx, dx), (by, ry, dy) = self._branch(x), self._branch(y)
        apart = dx[:, None] + np.abs(rx[:, None] - ry[None]) + dy[None]
        return np.where(bx[:, None] == by[None], np.abs(x[:, None] - y[None]), apart)

    def on_way(self, x: NDArray[np.float64], start: int, stop: int) -> NDArray[np.float64]:
        """How far along the way from one of the :attr:`ends` to another each coordinate `x` (n,) lies; what is beside it lies where it leaves."""
        ends = self.ends[[start, stop]]
        far = self.distance(np.asarray(x, dtype=np.float64), ends)
        return (far[:, 0] - far[:, 1] + self.distance(ends[:1], ends[1:])[0, 0]) / 2

    def _branch(self, x: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
        """Segment, coordinate at which it leaves the way between the first two ends, and distance from there, of each `x` (n,)."""
        branch, root, depth = np.zeros(len(x), dtype=np.intp), np.minimum(x, self.ends[1]), np.zeros(len(x))
        before = self.ends[1]
        for k, arm in enumerate(self.arms, 1):
            mine = x > (before + arm.start) / 2
            branch[mine], root[mine], depth[mine] = k, arm.root, np.maximum(x[mine] - arm.start + arm.depth, 0)
            before = arm.stop
        return branch, root, depth

    def project(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Coordinate (n,) of each place (n, d): the mean over the nearest cells of its segment, by inverse distance. NaN stays NaN."""
        v = np.asarray(values, dtype=np.float64).reshape(-1, self.places.shape[1])
        out = np.full(len(v), np.nan)
        ok = np.isfinite(v).all(1)
        if not ok.any():
            return out
        distance, near = cKDTree(self.places).query(v[ok], k=min(4, len(self.places)))
        distance, near = distance.reshape(ok.sum(), -1), near.reshape(ok.sum(), -1)
        weight = 1 / (distance + 1e-6 * max(self.length, 1e-9)) * (self.segment[near] == self.segment[near[:, :1]])
        out[ok] = (weight * self.coordinate[near]).sum(1) / weight.sum(1)
        return out

    def along(self, position: Position) -> Position:
        """The position in this coordinate, with the speed it had."""
        return Position(position.times, self.project(position.values)[:, None], position.speed, position.unit, ("track",), position.dropped)


def fit_track(position: Position, during: Intervals, cells: int = 40) -> Track:
    """The track on which the animal ran in `during`.

    Raises
    ------
    MissingDataError
        If there is no running, or the places do not form a track (an open field, a ring).
    """
    inside = during.contains(position.times)
    values, dwell = position.values[inside], position.dwell[inside]
    if len(values) < 100 or not np.ptp(values, axis=0).max() > 0:
        raise MissingDataError(f"track: {len(values)} position samples while running, expected at least 100 that differ")
    if values.shape[1] == 1 or np.ptp(values, axis=0).min() < 1e-3 * np.ptp(values, axis=0).max():
        return _straight(values, position.unit)
    cell, shape, low, side = _gridded(values, cells)
    keep = _crossed(cell, position.times[inside], np.prod(shape))
    if dwell[keep[cell]].sum() < 0.5 * dwell.sum():
        keep = np.bincount(cell, minlength=len(keep)) > 0
    keep = _largest(ndimage.binary_closing(np.pad(keep.reshape(shape), 2))[2:-2, 2:-2] | keep.reshape(shape))
    index = np.argwhere(keep)
    places = low + (index + 0.5) * side
    coordinate, segment, length, arms = _unroll(index, side)
    flat = keep.ravel()
    on_track = float(dwell[flat[cell]].sum() / dwell.sum())
    time_in = np.bincount(cell, dwell, len(flat))[flat]
    _refuse_folded(places, coordinate, segment, time_in, length, position.unit)
    return Track(places, coordinate, segment, float(coordinate.max()), on_track, position.unit, arms)


def _straight(values: NDArray[np.float64], unit: str) -> Track:
    axis = int(np.ptp(values, axis=0).argmax())
    low, high = np.percentile(values[:, axis], [0.1, 99.9])
    places = np.repeat(values.mean(0, keepdims=True), 200, axis=0)
    places[:, axis] = np.linspace(low, high, 200)
    return Track(places, places[:, axis] - low, np.zeros(200, dtype=np.intp), float(high - low), 1.0, unit)


def _gridded(values: NDArray[np.float64], cells: int) -> tuple[NDArray[np.intp], tuple[int, int], NDArray[np.float64], float]:
    low, high = np.percentile(values, [0.1, 99.9], axis=0)
    side = float((high - low).max()) / cells
    shape = np.maximum(np.ceil((high - low) / side).astype(int), 1)
    cell = np.clip(((values - low) / side).astype(int), 0, shape - 1)
    return cell[:, 0] * shape[1] + cell[:, 1], (int(shape[0]), int(shape[1])), low, side


def _crossed(cell: NDArray[np.intp], times: NDArray[np.float64], size: int, apart: float = 2.0) -> NDArray[np.bool_]:
    """Cells (size,) entered at least twice, `apart` s or more between; a single excursion, or being carried, makes no track."""
    order = np.lexsort((times, cell))
    c, t = cell[order], times[order]
    again = (np.diff(c) == 0) & (np.diff(t) > apart)
    out = np.zeros(size, dtype=bool)
    out[c[1:][again]] = True
    return out


def _largest(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    label, n = ndimage.label(mask, np.ones((3, 3)))
    return mask if n <= 1 else label == 1 + np.bincount(label.ravel())[1:].argmax()


def _unroll(index: NDArray[np.intp], side: float) -> tuple[NDArray[np.float64], NDArray[np.intp], float, tuple[Arm, ...]]:
    tree = cKDTree(index)
    pairs = tree.query_pairs(1.5, output_type="ndarray")
    weight = np.linalg.norm(index[pairs[:, 0]] - index[pairs[:, 1]], axis=1) * side
    graph = sparse.csr_array((weight, (pairs[:, 0], pairs[:, 1])), shape=(len(index), len(index)))
    graph = graph + graph.T
    a = int(np.asarray(dijkstra(graph, indices=0)).argmax())
    from_a = np.asarray(dijkstra(graph, indices=a))
    b = int(from_a.argmax())
    from_b = np.asarray(dijkstra(graph, indices=b))
    length = float(from_a[b])
    coordinate = np.clip((from_a - from_b + length) / 2, 0, length)
    detour = (from_a + from_b - length) / 2
    segment, arms = _arms(graph, coordinate, detour, length, side)
    return coordinate, segment, length, arms


def _arms(
    graph: sparse.csr_array, coordinate: NDArray[np.float64], detour: NDArray[np.float64], length: float, side: float
) -> tuple[NDArray[np.intp], tuple[Arm, ...]]:
    """Segment of each cell, and the arms; moves the `coordinate` of their cells behind the way between the ends."""
    segment = np.zeros(len(coordinate), dtype=np.intp)
    off = np.flatnonzero(detour > _WIDE * side)
    if not len(off):
        return segment, ()
    number, which = connected_components(graph[off][:, off], directed=False)
    arms: list[Arm] = []
    end = length
    for k in range(number):
        mine = off[which == k]
        near, far = float(detour[mine].min()), float(detour[mine].max())
        # What does not reach far is the width of the track or of a reward site: it stays where it is on the way.
        if far < _ARM * length:
            continue
        root = float(np.median(coordinate[mine][detour[mine] < near + 2 * side]))
        start = end + max(_GAP * length, side)
        coordinate[mine] = start + detour[mine] - near
        end = start + far - near
        arms.append(Arm(start, end, root, near))
        segment[mine] = len(arms)
    return segment, tuple(arms)


def _refuse_folded(
    places: NDArray[np.float64], coordinate: NDArray[np.float64], segment: NDArray[np.intp], time_in: NDArray[np.float64], length: float, unit: str
) -> None:
    """Places far apart must not share a coordinate: on a ring or in an open field they would."""
    slot = (coordinate / length * 20).astype(int) + 1000 * segment
    wide = 0.0
    for s in np.unique(slot):
        p, w = places[slot == s], time_in[slot == s] + 1e-9
        centre = np.average(p, axis=0, weights=w)
        wide += float(w[np.linalg.norm(p - centre, axis=1) > 0.15 * length].sum())
    if wide > 0.15 * time_in.sum():
        raise MissingDataError(
            f"track: {wide / time_in.sum():.0%} of the running time lies more than {0.15 * length:.3g} {unit or 'units'} beside any line through the places "
            "(a ring or an open field): give a position signal that is linear already"
        )
