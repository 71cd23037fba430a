"""What was planted: the answers that come with every synthetic recording."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable, Hypnogram, Spikes

if TYPE_CHECKING:
    import xarray as xr

    from brainmu.synth.calcium import CalciumTruth, PhotometryTruth
    from brainmu.synth.clocks import TrueClock

__all__ = ["HeadTuning", "PlaceFields", "TrueEffect", "Truth"]


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
        "log hazard ratio", "log odds ratio", "risk difference", "risk ratio", "log ratio" or "log rate ratio".
    standard_error : float
        Monte Carlo error of `value`; 0 where it is a parameter of the generator.
    """

    value: float
    estimand: str
    unit: str
    standard_error: float = 0.0


@dataclass(frozen=True)
class PlaceFields:
    """True tuning of every unit in every context.

    Attributes
    ----------
    rate : float64 (context, unit, bin), Hz
        Mean firing rate at each place while running; constant for interneurons.
    grid : float64 (bin,), m
        Centre of each bin along the track. In a maze linearised: arm k from its length times k (the centre) outwards. In a box the number of the bin.
    xy : float64 (context, bin, 2), m
        The same places in the room.
    contexts : tuple of str
    unit_id : int32 (unit,)
    arena : {"linear", "open", "arms"}
    arm : tuple of str (bin,)
        Name of the arm of each bin; empty where there are none.
    """

    rate: NDArray[np.float64]
    grid: NDArray[np.float64]
    xy: NDArray[np.float64]
    contexts: tuple[str, ...]
    unit_id: NDArray[np.int32]
    arena: str = "linear"
    arm: tuple[str, ...] = ()

    def to_xarray(self) -> xr.DataArray:
        """Rate (context, unit, position), Hz, with coordinates; (context, unit, y, x) from the corner of an open box."""
        import xarray as xr

        coords: dict[str, Any] = {"context": list(self.contexts), "unit": self.unit_id}
        if self.arena == "open":
            side = round(len(self.grid) ** 0.5)
            step = self.xy[0, 1, 0] - self.xy[0, 0, 0]
            coords |= {name: (name, (np.arange(side) + 0.5) * step, {"unit": "m"}) for name in ("y", "x")}
            values, dims = self.rate.reshape(*self.rate.shape[:2], side, side), ("context", "unit", "y", "x")
        else:
            coords["position"] = ("position", self.grid, {"unit": "m"})
            values, dims = self.rate, ("context", "unit", "position")
            if self.arm:
                coords["arm"] = ("position", list(self.arm))
        return xr.DataArray(values, dims=dims, coords=coords, name="place_field", attrs={"unit": "Hz"})


@dataclass(frozen=True)
class HeadTuning:
    """True tuning of the head-direction cells, and the direction they code at each moment.

    Attributes
    ----------
    preferred : float64 (unit,), rad
    rate : float64 (unit, angle), Hz
        Awake; other states scale it.
    angle : float64 (angle,), rad
        -pi to pi.
    unit_id : int32 (unit,)
    time : float64 (n,), s
    heading : float64 (n,), rad
        What the cells code, unwrapped: the true heading on the tracks, and a wandering one in rest, slow in waking and REM, fast in NREM.
    """

    preferred: NDArray[np.float64]
    rate: NDArray[np.float64]
    angle: NDArray[np.float64]
    unit_id: NDArray[np.int32]
    time: NDArray[np.float64]
    heading: NDArray[np.float64]


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
        Every reactivation in rest; content is the valence, `context` the track, `direction` forward or reverse, `path` sweep, fragmented or assembly,
        `x_from` and `x_to` (m along the track, linearised in a maze with `arm_from` and `arm_to`, in the room with `y_from` and `y_to` for a box),
        `span` (share of the track or route), `speed` (m/s), `compression` (over running speed), `jumps`, `assembly` (row or -1), `n_spikes`, `n_cells`,
        `phase` (pre or post the running), `ripple` its row there or -1 outside ripples.
    awake_replay : EventTable
        Replay in pauses on the track.
    spindles, slow_waves : EventTable
    arousals : EventTable
        Human arousals of 3 to 15 s inside a stage; those of rodents are bouts of WAKE.
    place_fields : PlaceFields or None
    fragments : EventTable
        The stretches of continuous movement of the reactivations: `event` is the row, x_from, x_to its own ends; one an event, more where it jumps.
    replay_decoys : EventTable
        What looks like replay and is none: kind identity_shuffled, rate_matched (the spikes of a replay at shuffled times), burst (no order; with and without
        a ripple) and other_map (sweeps through a place that is never visited, before the running); context it imitates, ripple (row or -1), n_spikes, n_cells.
    assemblies : DataFrame
        Groups of place cells that fire together: context, content, members (unit ids).
    volleys : EventTable
        When each assembly (row) fired in its context.
    populations : DataFrame
        Cells outside CA1: id, region, type, prefers (the content they answer to), rate (Hz).
    head_direction : HeadTuning or None
    trials : EventTable
        The ledger of the randomised stimulation.
    stimulation : EventTable
        What was delivered: kind (arm), content, `trial` (row of `trials`), `amplitude` of the artefact (uV).
    detected : int (trial,)
        Row of the reactivation that opened each closed-loop gate; -1 for false alarms and gates by the clock.
    drivers : dict of float64 (time,)
        Latent causes on the grid ``drivers["time"]`` (s): "pressure", "activity", "need" (process S).
    decoys : EventTable
        What naive methods take for ripples, each clear of every real one (kind gamma, spike_leak; peak, amplitude in uV, frequency), and the
        spans of a power that follows the stage but says nothing about sleep (kind nuisance).
    artefacts : EventTable
        Twitches in REM, movements and muscle bursts (kind twitch, movement, emg; amplitude is a signed factor); pops and gaps are in `faults`.
    eyes : EventTable
        Blinks and rapid eye movements of humans (kind blink, saccade; amplitude in uV).
    faults : Faults or None
        Dead and drifting channels, pops, gaps.
    spikes : Spikes or None
        Every spike as it was fired; those of the recording are what a sorter made of them.
    calcium, photometry : CalciumTruth, PhotometryTruth or None
        What the light was made from; `clean` is the trace without noise, motion and bleaching.
    clocks : dict of TrueClock
        The true map of every device's time.
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
    decoys: EventTable = field(default_factory=lambda: EventTable([], [], kind=[]))
    stimulation: EventTable = field(default_factory=lambda: EventTable([], [], kind=[]))
    detected: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    artefacts: EventTable = field(default_factory=lambda: EventTable([], [], kind=[]))
    eyes: EventTable = field(default_factory=lambda: EventTable([], [], kind=[]))
    planted: dict[str, TrueEffect] = field(default_factory=dict)
    spikes: Spikes | None = field(default=None, repr=False)
    calcium: CalciumTruth | None = field(default=None, repr=False)
    photometry: PhotometryTruth | None = field(default=None, repr=False)
    clocks: dict[str, TrueClock] = field(default_factory=dict)
    simulate: Callable[[], dict[str, TrueEffect]] | None = field(default=None, repr=False)
    arousals: EventTable = field(default_factory=lambda: EventTable([], []))
    fragments: EventTable = field(default_factory=lambda: EventTable([], []))
    replay_decoys: EventTable = field(default_factory=lambda: EventTable([], []))
    assemblies: pd.DataFrame | None = None
    volleys: EventTable = field(default_factory=lambda: EventTable([], []))
    populations: pd.DataFrame | None = None
    head_direction: HeadTuning | None = None

    @cached_property
    def effects(self) -> dict[str, TrueEffect]:
        """The coefficients, and what each estimand comes to when the interventions are simulated (a few seconds on first use)."""
        return dict(self.planted) | (self.simulate() if self.simulate is not None else {})

    def __repr__(self) -> str:
        return f"<Truth of {self.summary()}>"

    def summary(self) -> str:
        """What was planted, for people; with the simulated effects once :attr:`effects` was asked for."""
        h = self.hypnogram
        shares = ", ".join(f"{s} {np.mean(h.codes == i):.0%}" for i, s in enumerate(h.stages)) if len(h) else "no whole epoch"
        lines = [f"{self.id}: {shares}; {len(self.bouts)} bouts, {len(self.ripples)} ripples, {len(self.spindles)} spindles"]
        contents, counts = np.unique(np.asarray(self.reactivation.content, dtype=str), return_counts=True)
        lines.append(f"  reactivations: {', '.join(f'{n} {c}' for c, n in zip(contents, counts)) or 'none'}")
        if len(self.trials):
            lines.append(f"  trials: {len(self.trials)}, {int(self.trials.assigned.sum())} assigned, {int(self.trials.delivered.sum())} delivered")
        known = self.effects if "effects" in self.__dict__ else self.planted
        lines += [f"  {name}: {e.value:+.3f} {e.unit}. {e.estimand}" for name, e in known.items()]
        return "\n".join(lines)

    def save(self, path: str | Path) -> None:
        """Write all of it, but for signals (which their parameters make again), to a ``.npz`` that :meth:`load` reads."""
        from brainmu.synth.saving import save

        save(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> Truth:
        """The truth that :meth:`save` wrote.

        Raises
        ------
        NotFoundError, FormatError
            If there is no such file, or it is damaged or something else.
        """
        from brainmu.errors import FormatError
        from brainmu.synth.saving import load

        found = load(Path(path))
        if not isinstance(found, cls):
            raise FormatError(f"{path}: holds a {type(found).__name__}, expected the truth of a recording")
        return found
