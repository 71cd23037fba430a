"""What may lie between a trial and its outcome: the activity of a recorded population in a window, read so that it holds nothing of what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.covariates import value_before
from brainmu.causal.grid import EpochGrid
from brainmu.core.recording import Recording
from brainmu.core.signal import Signal
from brainmu.errors import DesignError, MissingDataError

__all__ = ["Mediator", "read_activity"]

_FORMS = "'spikes', 'spikes:region=LC' (a column of the units table and its value), 'signal:NAME', 'signal:NAME:CHANNEL' or 'column:NAME' (of the trial table)"


@dataclass(frozen=True)
class Mediator:
    """A mediator in words, understood.

    Attributes
    ----------
    kind : {"spikes", "signal", "column"}
    name : str
        The signal or column; "" for spikes.
    channel : str
        Of the signal.
    column, value : str
        Which units: those whose column `column` reads `value`; all where empty.
    """

    kind: str
    name: str = ""
    channel: str = ""
    column: str = ""
    value: str = ""
    text: str = ""

    @classmethod
    def parse(cls, text: str) -> Mediator:
        """From "spikes:region=LC" and the like. Raises DesignError where it is none of them."""
        words = str(text).strip()
        kind, _, rest = words.partition(":")
        if kind == "spikes":
            key, equals, value = (p.strip() for p in rest.partition("="))
            if bool(rest) == bool(key and equals and value):
                return cls("spikes", column=key, value=value, text=words)
        elif kind == "signal" and rest:
            name, _, channel = rest.partition(":")
            return cls("signal", name, channel, text=words)
        elif kind == "column" and rest:
            return cls("column", rest, text=words)
        raise DesignError(f"mediator is {text!r}, expected {_FORMS}")

    @property
    def quantity(self) -> str:
        """What is averaged over the window, in words."""
        if self.kind == "spikes":
            return f"rate of the units with {self.column} {self.value}" if self.column else "rate of the recorded units"
        return f"mean of {self.name}{':' + self.channel if self.channel else ''}" if self.kind == "signal" else f"{self.name} as logged"


def read_activity(
    grids: Sequence[EpochGrid], session: NDArray[np.int64], mediator: Mediator, begin: NDArray[np.float64], seconds: float
) -> NDArray[np.float64]:  # fmt: skip
    """Mean activity over (begin, begin + seconds] of each trial (n,): Hz a unit, or in the signal's unit; NaN where nothing was recorded.

    Parameters
    ----------
    session : int (n,)
        Which grid each trial lies in.

    Raises
    ------
    MissingDataError
        If a recording lacks the signal, the channel, spikes or such units.
    DesignError
        If a signal is centred (its samples mix before and after), has several channels and none is named, or is sampled too rarely for the window.
    """
    out = np.full(len(begin), np.nan)
    for i, grid in enumerate(grids):
        mine = session == i
        if not mine.any():
            continue
        if mediator.kind == "spikes":
            times, n_units = _population(grid.recording, mediator)
            count = np.searchsorted(times, begin[mine] + seconds, side="right") - np.searchsorted(times, begin[mine], side="right")
            inside = (begin[mine] >= grid.recording.start - 1e-9) & (begin[mine] + seconds <= grid.recording.stop + 1e-9)
            out[mine] = np.where(inside, count / (seconds * n_units), np.nan)
        else:
            signal = _signal(grid.recording, mediator, seconds)
            out[mine] = value_before(signal, begin[mine] + seconds, seconds)[:, 0]
    return out


def _population(recording: Recording, mediator: Mediator) -> tuple[NDArray[np.float64], int]:
    """Spike times of the units asked for, and how many units they are."""
    spikes = recording.spikes
    if spikes is None or not spikes.n_units:
        raise MissingDataError(f"{recording.id}: no spikes to read {mediator.text!r} from, expected sorted units")
    if not mediator.column:
        return spikes.times, spikes.n_units
    if mediator.column not in spikes.units:
        have = ", ".join(map(str, spikes.units.columns))
        raise MissingDataError(f"{recording.id}: units have no column {mediator.column!r}, the table has {have}")
    named = spikes.units[mediator.column].astype(str)
    ids = spikes.units["id"].to_numpy()[(named == mediator.value).to_numpy()]
    if not len(ids):
        have = ", ".join(sorted(set(named))) or "none"
        raise MissingDataError(f"{recording.id}: no unit has {mediator.column} {mediator.value!r}, there are {have}")
    return spikes.times[np.isin(spikes.unit_id, ids)], len(ids)


def _signal(recording: Recording, mediator: Mediator, seconds: float) -> Signal:
    name = mediator.name
    if name not in recording.signals:
        have = ", ".join(recording.signals) or "none"
        raise MissingDataError(f"{recording.id}: no signal {name!r} as the mediator, the recording has {have}: compute it first")
    signal = recording.signals[name]
    if signal.attrs.get("centred"):
        raise DesignError(
            f"{recording.id}: signal {name!r} is centred (a sample mixes what came before and after it), so its window would hold the outcome: "
            "recompute it from the past only"
        )
    if mediator.channel:
        signal = signal.pick([mediator.channel])
    if signal.n_channels != 1:
        raise DesignError(f"{recording.id}: signal {name!r} has channels {', '.join(signal.names)}, expected one mediator: name it ('signal:{name}:CHANNEL')")
    if signal.rate is not None and signal.rate * seconds < 1 - 1e-9:
        raise DesignError(
            f"{recording.id}: signal {name!r} has a sample each {1 / signal.rate:g} s and the mediator is read over {seconds:g} s, expected one sample "
            "or more: use a longer window, or a faster signal"
        )
    return signal
