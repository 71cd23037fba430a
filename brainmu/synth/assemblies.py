"""Cell assemblies: groups of place cells that fire together in one context, and again, in no order, when its content is reactivated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable
from brainmu.core.limits import check_model, whole
from brainmu.errors import InputError
from brainmu.synth.track import Run

__all__ = ["Assemblies", "AssemblyModel", "plan_assemblies"]


@dataclass(frozen=True)
class AssemblyModel:
    """Groups that fire together [1]_; none unless `n_assemblies` is given. The numbers are assumptions.

    Parameters
    ----------
    n_assemblies : int
        Assemblies of each context.
    assembly_size : int
        Cells of each; the assemblies of one context share none.
    assembly_share : float
        Share of the reactivations that are an assembly of their content in place of a sweep.
    assembly_rate : float, 1/s
        How often each fires while the animal is in its context.
    assembly_reach : float
        Chance that a member takes part in a volley; it then fires once or twice.
    assembly_jitter : float, s
        SD of the spikes of a volley about its middle; assemblies last about 25 ms [2]_.

    References
    ----------
    .. [1] Peyrache A et al. (2009). Replay of rule-learning related neural patterns in the prefrontal cortex during sleep. Nature Neuroscience 12:919.
    .. [2] Harris KD et al. (2003). Organization of cell assemblies in the hippocampus. Nature 424:552.
    """

    n_assemblies: int = 0
    assembly_size: int = 6
    assembly_share: float = 0.3
    assembly_rate: float = 0.5
    assembly_reach: float = 0.8
    assembly_jitter: float = 0.007

    def __post_init__(self) -> None:
        check_model(self, shares=("assembly_share", "assembly_reach"), positive=("assembly_jitter",))
        whole("n_assemblies", self.n_assemblies)
        whole("assembly_size", self.assembly_size, 2)


@dataclass
class Assemblies:
    """The assemblies of one animal.

    Attributes
    ----------
    table : DataFrame
        One row an assembly: context, content, members (tuple of unit ids).
    model : AssemblyModel
    """

    table: pd.DataFrame
    model: AssemblyModel

    @classmethod
    def none(cls, model: AssemblyModel) -> Assemblies:
        return cls(pd.DataFrame(columns=["context", "content", "members"]), model)

    def choose(self, events: EventTable, rng: np.random.Generator) -> NDArray[np.intp]:
        """Row of the assembly that each event (context) reactivates, -1 for the sweeps."""
        out = np.full(len(events), -1, dtype=np.intp)
        if not len(self.table):
            return out
        for i, context in enumerate(events.context):
            if rng.random() < self.model.assembly_share:
                out[i] = rng.choice(np.flatnonzero(self.table["context"] == context))
        return out

    def reactivated(self, row: int, start: float, stop: float, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Spikes of one reactivation: a volley every 50 ms or so."""
        n = max(1, int((stop - start) / 0.05))
        t, u = self.volleys(row, start + (np.arange(n) + 0.5 + rng.uniform(-0.2, 0.2, n)) * (stop - start) / n, rng)
        return np.clip(t, start, np.nextafter(stop, start)), u

    def volleys(self, row: int, moments: NDArray[np.float64], rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Spikes of assembly `row` at `moments` (n,), s."""
        members = np.array(self.table["members"].iloc[row], dtype=np.int32)
        counts = (rng.random((len(moments), len(members))) < self.model.assembly_reach) * rng.integers(1, 3, (len(moments), len(members)))
        k, cell = np.nonzero(counts)
        k, cell = np.repeat(k, counts[k, cell]), np.repeat(cell, counts[k, cell])
        return moments[k] + self.model.assembly_jitter * np.clip(rng.standard_normal(len(k)), -2, 2), members[cell]

    def running(self, runs: list[Run], rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.int32], EventTable]:
        """Spikes and volleys (kind assembly, content, context, assembly) while the animal is in the context of each."""
        times, ids, moments, rows = [np.empty(0)], [np.empty(0, dtype=np.int32)], [], []
        for run in runs:
            for row in np.flatnonzero(self.table["context"] == run.context):
                at = np.sort(rng.uniform(run.start + 0.05, run.stop - 0.05, rng.poisson(self.model.assembly_rate * (run.stop - run.start))))
                t, u = self.volleys(int(row), at, rng)
                times.append(t)
                ids.append(u)
                moments.append(at)
                rows.append(np.full(len(at), row))
        at = np.concatenate(moments) if moments else np.empty(0)
        row = np.concatenate(rows) if rows else np.empty(0, dtype=np.intp)
        order = np.argsort(at, kind="stable")
        at, row = at[order], row[order]
        half, lookup = 2 * self.model.assembly_jitter, self.table.iloc[row]
        events = EventTable(
            at - half, at + half, at, content=lookup["content"].to_numpy(), kind="assembly", context=lookup["context"].to_numpy(), assembly=row,
        )  # fmt: skip
        return np.concatenate(times), np.concatenate(ids), events


def plan_assemblies(model: AssemblyModel, contexts: Mapping[str, str], n_place: int, rng: np.random.Generator) -> Assemblies:
    """Draw the members of every assembly of `contexts` (content by context)."""
    if model.n_assemblies * model.assembly_size > n_place:
        raise InputError(
            f"{model.n_assemblies} assemblies of {model.assembly_size} cells need {model.n_assemblies * model.assembly_size} place cells in each context, "
            f"got {n_place}: give more cells or fewer or smaller assemblies"
        )
    rows = []
    for context, content in contexts.items():
        cells = rng.permutation(n_place)[: model.n_assemblies * model.assembly_size].reshape(model.n_assemblies, model.assembly_size)
        rows += [(context, content, tuple(int(c) for c in np.sort(group))) for group in cells]
    return Assemblies(pd.DataFrame(rows, columns=["context", "content", "members"]), model)
