"""What was planted: the answers that come with every synthetic recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable, Hypnogram

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["PlaceFields", "TrueEffect", "Truth"]


@dataclass(frozen=True)
class TrueEffect:
    """A planted effect.

    Attributes
    ----------
    value : float
        The truth, in `unit`.
    estimand : str
        The sentence it answers.
    unit : str
        "log hazard ratio", "log odds ratio", "risk difference".
    standard_error : float
        Monte Carlo error of `value`; 0 where it is a parameter of the generator.
    """

    value: float
    estimand: str
    unit: str
    standard_error: float = 0.0


@dataclass(frozen=True)
class PlaceFields:
    """True tuning of every unit on every track.

    Attributes
    ----------
    rate : float64 (context, unit, bin), Hz
        Mean firing rate at each place while running; constant for interneurons.
    grid : float64 (bin,), m
        Centre of each bin along the track.
    xy : float64 (context, bin, 2), m
        The same places in the room.
    contexts : tuple of str
    unit_id : int32 (unit,)
    """

    rate: NDArray[np.float64]
    grid: NDArray[np.float64]
    xy: NDArray[np.float64]
    contexts: tuple[str, ...]
    unit_id: NDArray[np.int32]

    def to_xarray(self) -> xr.DataArray:
        """Rate (context, unit, position), Hz, with coordinates."""
        import xarray as xr

        coords = {"context": list(self.contexts), "unit": self.unit_id, "position": ("position", self.grid, {"unit": "m"})}
        return xr.DataArray(self.rate, dims=("context", "unit", "position"), coords=coords, name="place_field", attrs={"unit": "Hz"})


@dataclass
class Truth:
    """Everything that was planted in one synthetic recording.

    Attributes
    ----------
    bouts : DataFrame
        Exact bouts in continuous time: stage, start, stop (s). The scored epochs are the majority of these.
    hypnogram : Hypnogram
        What a perfect scorer of epochs would write.
    ripples : EventTable
        Every ripple: amplitude (uV), frequency (Hz), snr (amplitude over the background's SD in the band), stage, `carries` (reactivation,
        awake_replay, shuffled: a decoy with the cells of a replay in shuffled order, or nothing) and `replay` (row of `reactivation` or -1).
    reactivation : EventTable
        Every reactivation in rest; content is the valence, `context` the track, `direction` forward or reverse, `path` sweep or fragmented,
        `x_from` and `x_to` (m along the track), `ripple` its row there.
    awake_replay : EventTable
        Replay in pauses on the track.
    spindles, slow_waves : EventTable
    place_fields : PlaceFields or None
    trials : EventTable
        The ledger of the randomised stimulation.
    drivers : dict of float64 (time,)
        Latent causes on the grid ``drivers["time"]`` (s): "pressure", "activity".
    faults : Faults or None
        Dead and drifting channels, pops, gaps.
    parameters : dict
        Every parameter of the generator, as used.
    """

    id: str
    bouts: pd.DataFrame
    hypnogram: Hypnogram
    ripples: EventTable
    reactivation: EventTable
    awake_replay: EventTable
    spindles: EventTable
    slow_waves: EventTable
    trials: EventTable
    place_fields: PlaceFields | None
    drivers: dict[str, NDArray[np.float64]]
    parameters: dict[str, Any]
    faults: Any = None
    planted: dict[str, TrueEffect] = field(default_factory=dict)
    simulate: Callable[[], dict[str, TrueEffect]] | None = field(default=None, repr=False)

    @cached_property
    def effects(self) -> dict[str, TrueEffect]:
        """The coefficients, and what each estimand comes to when the interventions are simulated (a few seconds on first use)."""
        return dict(self.planted) | (self.simulate() if self.simulate is not None else {})

    def summary(self) -> str:
        """What was planted, for people; with the simulated effects once :attr:`effects` was asked for."""
        h = self.hypnogram
        shares = ", ".join(f"{s} {np.mean(h.codes == i):.0%}" for i, s in enumerate(h.stages))
        lines = [f"{self.id}: {shares}; {len(self.bouts)} bouts, {len(self.ripples)} ripples, {len(self.spindles)} spindles"]
        contents, counts = np.unique(np.asarray(self.reactivation.content, dtype=str), return_counts=True)
        lines.append(f"  reactivations: {', '.join(f'{n} {c}' for c, n in zip(contents, counts)) or 'none'}")
        if len(self.trials):
            lines.append(f"  trials: {len(self.trials)}, {int(self.trials.assigned.sum())} assigned, {int(self.trials.delivered.sum())} delivered")
        known = self.effects if "effects" in self.__dict__ else self.planted
        lines += [f"  {name}: {e.value:+.3f} {e.unit}. {e.estimand}" for name, e in known.items()]
        return "\n".join(lines)
