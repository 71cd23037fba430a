"""The rows of a discrete-time hazard: epochs at risk, what they were exposed to, and what was known by then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.covariates import read_covariates
from brainmu.causal.grid import EpochGrid, exposure_of
from brainmu.core.events import EventTable
from brainmu.errors import DesignError

__all__ = ["RiskSet", "build_risk_set"]


@dataclass
class RiskSet:
    """One row an epoch at risk whose exposure window lies in the same bout.

    Attributes
    ----------
    epoch : float, s
    names : list of str
        Animals; contents, covariates : names of the columns of `dose` and `values`.
    animal, session, k : int (n,)
        Which animal, which recording, which epoch the outcome is read from.
    age : int (n,)
        Epochs at risk so far in the bout, 1 for the first.
    late : bool (n,)
        The bout's beginning was not seen.
    y : int8 (n,)
        0 stays (or leaves unseen), 1 the target, 2 another exit, at epoch k + 1.
    dose : int (n, contents)
        Events in the exposure window.
    reference : float64 (n,), s
        Start of the first event in the window; drawn from the exposed rows' distribution for unexposed ones.
    onset_hours : float64 (n,), h
        From sleep onset to the beginning of the exposure window.
    zeitgeber : float64 (n,), h
        From lights on to the same; NaN where the recording does not know.
    values : float64 (n, covariates)
    """

    epoch: float
    names: list[str]
    contents: list[str]
    covariates: list[str]
    animal: NDArray[np.int64]
    session: NDArray[np.int64]
    k: NDArray[np.int64]
    age: NDArray[np.int64]
    bout: NDArray[np.int64]
    late: NDArray[np.bool_]
    y: NDArray[np.int8]
    dose: NDArray[np.int64]
    reference: NDArray[np.float64]
    onset_hours: NDArray[np.float64]
    zeitgeber: NDArray[np.float64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, which: NDArray[np.bool_]) -> RiskSet:
        rows = {k: v[which] for k, v in vars(self).items() if isinstance(v, np.ndarray)}
        return RiskSet(epoch=self.epoch, names=self.names, contents=self.contents, covariates=self.covariates, **rows)

    def stays(self, lag: int, settled: int = 0) -> NDArray[np.bool_]:
        """Whether the `lag` epochs after each row's (n,) are at risk too, of rows of single epochs (`lag` 0, `width` 1, `settled` epochs left out)."""
        out = np.zeros(len(self), dtype=bool)
        # Rows of a bout lie one after the other.
        out[np.flatnonzero(self.age > lag + settled) - lag] = True
        return out

    @property
    def exposed(self) -> NDArray[np.bool_]:
        """At least one event of any content in the window."""
        return self.dose.sum(1) > 0


def build_risk_set(
    grids: Sequence[EpochGrid], tables: Sequence[EventTable], *, lag: int, width: int, blank: float, adjust: Sequence[str],
    adjust_window: float | None, seed: int, settled: int = 0,
) -> RiskSet:  # fmt: skip
    """The risk set of all recordings.

    Parameters
    ----------
    lag : int
        Epochs between the last exposure epoch and the epoch whose outcome is read; all of them at risk.
    width : int
        Epochs in the exposure window; cut at the beginning of the bout.
    blank : float, s
        End of each epoch in which events do not count.
    settled : int
        First epochs of each bout whose events do not count, and which are no exposure window's.
    """
    rng = np.random.default_rng(seed)
    names = list(dict.fromkeys(g.subject for g in grids))
    contents = sorted({str(c) for t in tables if len(t) for c in set(np.asarray(t.content).astype(str))}) or [""]
    drafts = [_draft(g, t, contents, lag, width, blank, settled) for g, t in zip(grids, tables)]
    pool = [(d["size"][d["exposed"]], d["offset"][d["exposed"]]) for d in drafts]
    size, offset = np.concatenate([p[0] for p in pool]), np.concatenate([p[1] for p in pool])
    columns: list[str] = []
    parts = []
    for i, (g, d) in enumerate(zip(grids, drafts)):
        reference = d["begin"] + np.where(d["exposed"], d["offset"], _draw(d["size"], size, offset, g.epoch, rng))
        columns, values = read_covariates(g.recording, adjust, reference, adjust_window)
        n = len(reference)
        asleep = np.flatnonzero(g.scored & ~g.hypnogram.mask("WAKE"))
        onset = float(g.time(asleep[0])) if len(asleep) else g.start
        zt = np.full(n, np.nan) if g.recording.zeitgeber is None else (g.recording.zeitgeber + d["begin"] / 3600) % 24
        parts.append({
            "animal": np.full(n, names.index(g.subject)), "session": np.full(n, i), "k": d["k"], "age": d["age"], "bout": d["bout"], "late": d["late"],
            "y": d["y"], "dose": d["dose"], "reference": reference, "onset_hours": (d["begin"] - onset) / 3600, "zeitgeber": zt, "values": values,
        })  # fmt: skip
    widths = {p["values"].shape[1] for p in parts}
    if len(widths) > 1:
        raise DesignError(
            f"recordings give {' or '.join(map(str, sorted(widths)))} columns for adjust={list(adjust)}: name channels that all have ('signal:channel')"
        )
    rows = {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
    return RiskSet(epoch=grids[0].epoch, names=names, contents=contents, covariates=columns, **rows)


def _draft(grid: EpochGrid, table: EventTable, contents: list[str], lag: int, width: int, blank: float, settled: int) -> dict[str, NDArray]:
    """Rows of one recording, before covariates are read."""
    k = np.flatnonzero(grid.at_risk & (grid.age > lag + settled))
    last = k - lag
    size = np.minimum(width, grid.age[last] - settled)
    label = np.asarray(table.content).astype(str) if len(table) else np.empty(0, dtype=str)
    dose = np.empty((len(k), len(contents)), dtype=np.int64)
    first = np.full(len(grid), np.nan)
    for c, name in enumerate(contents):
        count, at = exposure_of(grid, table.start[label == name], blank)
        running = np.r_[0, np.cumsum(count)]
        dose[:, c] = running[last + 1] - running[last + 1 - size]
        first = np.fmin(first, at)
    offset = np.full(len(k), np.nan)
    for back in range(width):  # the latest epoch first, so that the earliest event of the window stays
        inside = back < size
        here = first[np.where(inside, last - back, 0)]
        hit = inside & np.isfinite(here)
        offset = np.where(hit, (size - 1 - back) * grid.epoch + here, offset)
    nxt = k + 1
    y = np.where(grid.target[nxt], 1, np.where(grid.source[nxt], 0, 2)).astype(np.int8)
    return {
        "k": k, "age": grid.age[k], "bout": grid.bout[k], "late": grid.late[k], "y": y, "dose": dose, "exposed": np.isfinite(offset), "offset": offset,
        "size": size, "begin": grid.time(last - size + 1),
    }  # fmt: skip


def _draw(wanted: NDArray[np.int64], size: NDArray[np.int64], offset: NDArray[np.float64], epoch: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """An offset of an exposed row with as wide a window, for each row; uniform over the window where no row was exposed."""
    out = np.empty(len(wanted))
    for s in np.unique(wanted):
        rows = wanted == s
        pool = offset[size == s]
        out[rows] = rng.choice(pool, rows.sum()) if len(pool) else rng.uniform(0, s * epoch, rows.sum())
    return out
