"""All cells of a recording together: CA1 with its replays, head direction, cortex and amygdala."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable, Spikes
from brainmu.synth.arenas import Arena, arena_fields
from brainmu.synth.assemblies import Assemblies, AssemblyModel, plan_assemblies
from brainmu.synth.populations import Companions, PopulationModel, heading_of, populations
from brainmu.synth.reactivation import Microstructure
from brainmu.synth.signals import Drivers
from brainmu.synth.spikes import CellModel, Played, spike_trains, unplayed
from brainmu.synth.track import Run, place_fields
from brainmu.synth.truth import PlaceFields

__all__ = ["Cells", "CellPlan"]


@dataclass(frozen=True)
class CellPlan:
    """How many cells of which kind, and how they fire.

    Attributes
    ----------
    n_cells, n_head, n_cortical, n_amygdala : int
    contexts : mapping of context to content
    arenas : dict of context to Arena
    speed : float, m/s
    model, groups, others
        The parameters of CA1, of its assemblies, and of the cells elsewhere.
    """

    n_cells: int
    n_head: int
    n_cortical: int
    n_amygdala: int
    contexts: Mapping[str, str]
    arenas: dict[str, Arena]
    speed: float
    model: CellModel
    groups: AssemblyModel
    others: PopulationModel

    def fire(self, runs: list[Run], d: Drivers, events: Microstructure, stop: float, rng: np.random.Generator, own: tuple[np.random.Generator, ...]) -> Cells:
        """Spikes of all cells from 0 to `stop` s. `rng` draws CA1; `own` (three) its options, the headings and the cells elsewhere."""
        fields, assemblies, spikes, played = None, Assemblies.none(self.groups), None, unplayed(events)
        if self.n_cells:
            n_inter = min(round(self.model.inter_share * self.n_cells), self.n_cells - 1)
            n_place = self.n_cells - n_inter
            fields = self._fields(n_place, n_inter, rng)
            assemblies = plan_assemblies(self.groups, self.contexts, n_place, own[0])
            how = dict(arenas=self.arenas, assemblies=assemblies, own=own[0])
            spikes, played = spike_trains(fields, n_place, runs, d, events, 0.0, stop, self.model, self.speed, rng, **how)
        headings = [heading_of(r, own[1]) for r in runs] if self.n_head else []
        others = populations(
            self.n_head, self.n_cortical, self.n_amygdala, self.others, self.contexts, runs, headings, d, self._answered(played),
            np.asarray(events.slow_waves.peak), self.n_cells, stop, own[2],
        )  # fmt: skip
        return Cells(_together(spikes, others), fields, played, assemblies.table, others, headings)

    def _fields(self, n_place: int, n_inter: int, rng: np.random.Generator) -> PlaceFields:
        m, first = self.model, next(iter(self.arenas.values()))
        shape = dict(width=m.field_width, peak=m.field_peak, active=m.active, inter_rate=m.inter_rate)
        if first.kind == "linear":
            return place_fields(tuple(self.contexts), n_place, n_inter, rng, length=first.size, **shape)
        return arena_fields(self.arenas, n_place, n_inter, rng, **shape)

    def _answered(self, played: Played) -> EventTable:
        """Replays that other regions answer to: all but those before the experience."""
        after = played.reactivation[np.asarray(played.reactivation.phase) == "post"]
        awake = played.awake
        known = [self.contexts[c] for c in awake.context]
        start, stop = np.r_[after.start, awake.start], np.r_[after.stop, awake.stop]
        return EventTable(start, stop, kind="replay", content=np.array([*after.content, *known], dtype=object)).sorted()


@dataclass
class Cells:
    """The cells of one recording.

    Attributes
    ----------
    spikes : Spikes or None
    fields : PlaceFields or None
    played : Played
    assemblies : DataFrame
        context, content, members.
    others : Companions
    headings : list of float64 (n,), rad
        On the frames of each run; empty without head-direction cells.
    """

    spikes: Spikes | None
    fields: PlaceFields | None
    played: Played
    assemblies: pd.DataFrame
    others: Companions
    headings: list[NDArray[np.float64]]


def _together(spikes: Spikes | None, others: Companions) -> Spikes | None:
    if not len(others.table):
        return spikes
    units = others.table[["id", "region", "type"]].assign(quality="good")
    t = np.concatenate(others.times)
    u = np.repeat(others.table["id"].to_numpy(), [len(x) for x in others.times])
    if spikes is not None:
        t, u, units = np.r_[spikes.times, t], np.r_[spikes.unit_id, u], pd.concat([spikes.units, units], ignore_index=True)
    return Spikes(t, u, units)
