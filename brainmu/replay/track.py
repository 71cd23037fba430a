"""A one-dimensional coordinate along the track an animal ran on, found from where it has been.

Cells of a grid that were crossed at least twice form a graph; the two that lie farthest apart along it are the ends, and a
place's coordinate is how far along the way between them it lies. Arms that leave this way get a stretch of their own behind it.
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

__all__ = ["Track", "fit_track"]

_ARM = 0.12
"""A place farther than this share of the track's length from the way between its ends belongs to an arm (or to an open field)."""


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
        Highest coordinate.
    on_track : float
        Share of the running time spent in these cells.
    unit : str
    """

    places: NDArray[np.float64]
    coordinate: NDArray[np.float64]
    segment: NDArray[np.intp]
    length: float
    on_track: float
    unit: str

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
    coordinate, segment, length = _unroll(index, side)
    flat = keep.ravel()
    on_track = float(dwell[flat[cell]].sum() / dwell.sum())
    time_in = np.bincount(cell, dwell, len(flat))[flat]
    _refuse_folded(places, coordinate, segment, time_in, length, position.unit)
    return Track(places, coordinate, segment, float(coordinate.max()), on_track, position.unit)


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


def _unroll(index: NDArray[np.intp], side: float) -> tuple[NDArray[np.float64], NDArray[np.intp], float]:
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
    segment = np.zeros(len(index), dtype=np.intp)
    off = detour > _ARM * length
    end = length
    if off.any():
        arms, which = connected_components(graph[off][:, off], directed=False)
        rows = np.flatnonzero(off)
        for k in range(arms):
            mine = rows[which == k]
            if np.ptp(detour[mine]) < _ARM * length:
                continue
            segment[mine] = segment.max() + 1
            coordinate[mine] = end + side + detour[mine] - detour[mine].min()
            end = float(coordinate[mine].max())
    return coordinate, segment, length


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
