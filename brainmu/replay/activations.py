"""When an assembly is active: the strength of its template over time, and events where it exceeds what shifted trains reach.

References
----------
van de Ven, Trouche, McNamara, Allen & Dupret (2016), Neuron 92:968 (trains convolved with a Gaussian, zero diagonal).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from brainmu.core import EventTable, Intervals, Recording, Spikes
from brainmu.dsp.filters import overlapping_blocks
from brainmu.errors import InputError, MissingDataError
from brainmu.replay.assemblies import Assemblies, electrode_pairs
from brainmu.replay.bursts import run_above, shifted, spread_seconds
from brainmu.replay.epochs import epochs_of, spikes_of
from brainmu.replay.significance import tail_level

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["find_activations", "strength"]

Float = NDArray[np.float32]
Progress = Callable[[str, float], None]

_BLOCK_SECONDS = 300.0
_SURROGATE_SECONDS = 600.0
_LOWEST = 1.0
"""Weakest peak of the strength that is looked at."""
_REACH = 0.25
"""Longest half of an event, s."""


def find_activations(
    recording: Recording, assemblies: Assemblies, within: str | Intervals | None = "rest", *, false_rate: float = 0.5, threshold: float | None = None,
    step: float = 0.002, seed: int = 0, progress: Progress | None = None,
) -> EventTable:  # fmt: skip
    """When each assembly is active in `within`.

    An event is a peak of the strength above the assembly's threshold, as wide as the strength stays above half of the peak. The
    threshold is where trains that are shifted circularly, each unit by its own draw (in at most 10 min spread over `within`), give
    `false_rate` events a minute; the rate that stands in ``surrogate_rate`` comes from another draw. Shifted units keep their own
    rates and rhythms and lose all that they share, population bursts too.

    Parameters
    ----------
    threshold : float or None
        By hand, for every assembly; ``surrogate_rate`` then says what it costs.

    Returns
    -------
    EventTable
        kind "assembly", content the assembly's name; columns assembly (row of the templates), score (strength at the peak),
        n_members (of its members that fired). attrs: threshold, rate and surrogate_rate (events a minute, a list over assemblies),
        false_rate, n_units, matched, recording (of the templates), same (the column by which pairs on one electrode were left out).

    Raises
    ------
    MissingDataError
        If the recording lacks units of the templates, or `within` is empty.
    """
    if threshold is None and not 0 < false_rate < np.inf:
        raise InputError(f"assemblies: false_rate is {false_rate} a minute, expected a positive number")
    spans = epochs_of(recording, within, "assembly events")
    reader = _Reader.fit(assemblies, recording, spans, step)
    piece = spread_seconds(spans, _SURROGATE_SECONDS)
    rng = np.random.default_rng(seed)
    null = [reader.peaks(shifted(reader.spikes, piece, rng), piece) for _ in range(2)]
    minutes = piece.duration / 60
    if threshold is None:
        level = np.array([_level(p[:, 3], false_rate * minutes) for p in _by_assembly(null[0], len(assemblies))])
    else:
        level = np.full(len(assemblies), float(threshold))
    rows = reader.peaks(reader.spikes, spans, progress)
    rows = rows[rows[:, 3] >= level[rows[:, 4].astype(int)]] if len(rows) else rows
    rows = rows[np.lexsort((rows[:, 4], rows[:, 0]))]
    which = rows[:, 4].astype(int)
    attrs: dict[str, Any] = {
        "method": f"{assemblies.method} assemblies", "threshold": level.tolist(), "false_rate": None if threshold is not None else false_rate,
        "rate": (np.bincount(which, minlength=len(assemblies)) / spans.duration * 60).tolist(),
        "surrogate_rate": [float((p[:, 3] >= at).sum() / minutes) for p, at in zip(_by_assembly(null[1], len(assemblies)), level)],
        "surrogate": "unit trains shifted circularly, another draw than the threshold's", "surrogate_seconds": piece.duration, "seconds": spans.duration,
        "bin_size": assemblies.bin_size, "names": list(assemblies.names), "number": assemblies.number, "n_units": len(assemblies.units),
        "matched": list(assemblies.matched), "recording": assemblies.recording, "same": _same(assemblies, reader.spikes), "seed": seed,
    }  # fmt: skip
    return EventTable(
        rows[:, 0], rows[:, 1], rows[:, 2], content=np.array(assemblies.names, dtype=object)[which] if len(rows) else None, kind="assembly", attrs=attrs,
        assembly=which, score=rows[:, 3].astype(np.float32), n_members=_members_active(reader.spikes, rows, assemblies.members),
    )  # fmt: skip


def strength(assemblies: Assemblies, recording: Recording, spans: str | Intervals | None, step: float) -> xr.DataArray:
    """See :meth:`brainmu.replay.assemblies.Assemblies.strength`."""
    import xarray as xr

    reader = _Reader.fit(assemblies, recording, epochs_of(recording, spans, "strength"), step)
    blocks = list(reader.blocks(reader.spikes, reader.spans))
    values, times = np.concatenate([v for _, v, _ in blocks]), np.concatenate([t for t, _, _ in blocks])
    out = xr.DataArray(values, dims=("time", "assembly"), coords={"time": times, "assembly": list(assemblies.names)}, name="strength")
    out.coords["time"].attrs["units"] = "s"
    out.attrs |= {"bin_size": assemblies.bin_size, "z_scored_over": "spans", "same": _same(assemblies, reader.spikes)}
    return out


# -- parts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reader:
    """Templates ready to be read off the smoothed trains of one recording."""

    templates: Float
    spikes: Spikes
    spans: Intervals
    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    sigma: float
    step: float
    electrodes: tuple[NDArray[np.intp], ...] = ()

    @classmethod
    def fit(cls, assemblies: Assemblies, recording: Recording, spans: Intervals, step: float) -> _Reader:
        """Mean and SD of every smoothed train over `spans`."""
        if not 0 < step <= assemblies.bin_size:
            raise InputError(f"assemblies: steps of {step:g} s, expected more than 0 and at most the bin ({assemblies.bin_size:g} s)")
        spikes = spikes_of(recording)
        absent = np.setdiff1d(assemblies.units, spikes.units["id"].to_numpy())
        if len(absent):
            n = len(assemblies.units)
            raise MissingDataError(
                f"{recording.id}: {n - len(absent)} of the {n} units of these assemblies are here, unit {absent[0]} is not: "
                "carry the templates over with assemblies.carried_to(recording)"
            )
        spikes = spikes.pick(assemblies.units)
        column = {int(u): k for k, u in enumerate(assemblies.units)}
        templates = assemblies.templates[:, [column[int(u)] for u in spikes.units["id"]]]
        n_units = len(column)
        electrodes = _electrodes(spikes.units, _same(assemblies, spikes))
        blank = cls(templates, spikes, spans, np.zeros(n_units), np.ones(n_units), assemblies.bin_size / np.sqrt(12), step, electrodes)
        total, square, n = np.zeros(n_units), np.zeros(n_units), 0
        for _, x, _ in blank._trains(spikes, spans):
            total += x.sum(0, dtype=np.float64)
            square += (x.astype(np.float64) ** 2).sum(0)
            n += len(x)
        mean = total / max(n, 1)
        return replace(blank, mean=mean, sd=np.sqrt(np.maximum(square / max(n, 1) - mean**2, 0)))

    def _trains(self, spikes: Spikes, spans: Intervals, beyond: float = 0.0) -> Iterator[tuple[NDArray[np.float64], Float, slice]]:
        """(times, smoothed counts (time, unit), which rows are the block's own) of blocks of `spans`, with up to `beyond` s on either side."""
        pad, more = int(np.ceil(4 * self.sigma / self.step)), int(beyond / self.step)
        for a, b in spans:
            n = max(int(round((b - a) / self.step)), 1)
            for i, j, p, q in overlapping_blocks(n, int(_BLOCK_SECONDS / self.step), more):
                edges = a + self.step * np.arange(p - pad, q + pad + 1)
                here = Spikes(*spikes.span(edges[0], edges[-1]), spikes.units)
                x = gaussian_filter1d(here.counts(edges).astype(np.float32), self.sigma / self.step, axis=0, mode="constant", truncate=4.0)
                yield a + self.step * (np.arange(p, q) + 0.5), x[pad : pad + q - p], slice(i - p, j - p)

    def blocks(self, spikes: Spikes, spans: Intervals, beyond: float = 0.0) -> Iterator[tuple[NDArray[np.float64], Float, slice]]:
        """(times, strength (time, assembly), own rows) of blocks of `spans`."""
        scale = np.divide(1, self.sd, out=np.zeros_like(self.sd), where=self.sd > 0).astype(np.float32)
        shared = [e for e in self.electrodes if len(e) > 1]
        alone = np.setdiff1d(np.arange(len(scale)), np.concatenate([*shared, np.empty(0, dtype=np.intp)]))
        for t, x, own in self._trains(spikes, spans, beyond):
            z = (x - self.mean.astype(np.float32)) * scale
            r = (z @ self.templates.T) ** 2 - z[:, alone] ** 2 @ (self.templates[:, alone] ** 2).T
            for mine in shared:  # a unit with itself, and with others on its electrode, counts for nothing
                r -= (z[:, mine] @ self.templates[:, mine].T) ** 2
            yield t, r, own

    def peaks(self, spikes: Spikes, spans: Intervals, progress: Progress | None = None) -> NDArray[np.float64]:
        """Peaks (n, 5) of positive strength, at least three SDs of the kernel apart: start, stop, time, strength, assembly."""
        from scipy.signal import find_peaks

        rows, done, total, half = [], 0.0, max(spans.duration, 1e-9), self.step / 2
        apart, reach = max(int(3 * self.sigma / self.step), 1), int(_REACH / self.step)
        for t, r, own in self.blocks(spikes, spans, _REACH):
            for k in range(r.shape[1]):
                tops = find_peaks(np.r_[-np.inf, r[:, k], -np.inf], height=_LOWEST, distance=apart)[0] - 1
                for top in tops[(tops >= own.start) & (tops < own.stop)]:  # the others belong to the next block
                    i, j = run_above(r[:, k], int(top), 0.5 * float(r[top, k]), reach)
                    rows.append((t[i] - half, t[j - 1] + half, t[top], float(r[top, k]), k))
            done += (own.stop - own.start) * self.step
            if progress:
                progress("assemblies", min(done / total, 1.0))
        return np.array(rows, dtype=np.float64).reshape(-1, 5)


def _same(assemblies: Assemblies, spikes: Spikes) -> str:
    """The column that names the electrode; "" where this recording lacks it, which the events' attrs say."""
    return assemblies.same if assemblies.same in spikes.units.columns else ""


def _electrodes(units: pd.DataFrame, same: str) -> tuple[NDArray[np.intp], ...]:
    """Rows of the units table by electrode; every unit its own where no column is named."""
    pairs, _ = electrode_pairs(units, same)
    return tuple(np.flatnonzero(row) for row in np.unique(pairs | np.eye(len(units), dtype=bool), axis=0))


def _by_assembly(rows: NDArray[np.float64], n: int) -> list[NDArray[np.float64]]:
    return [rows[rows[:, 4] == k] for k in range(n)]


def _level(peaks: NDArray[np.float64], allowed: float) -> float:
    """Strength that `allowed` of the null `peaks` exceed: one of them where there are enough, else by their tail."""
    z = np.sort(peaks)[::-1]
    if len(z) <= allowed:
        return _LOWEST
    return float(z[int(allowed)]) if allowed >= 3 or len(z) < 10 else tail_level(z, allowed)


def _members_active(spikes: Spikes, rows: NDArray[np.float64], members: list[list[int]]) -> NDArray[np.intp]:
    out = np.zeros(len(rows), dtype=np.intp)
    for i, (a, b, _, _, k) in enumerate(rows):
        out[i] = len(np.intersect1d(spikes.span(a, b)[1], members[int(k)]))
    return out
