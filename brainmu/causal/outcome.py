"""What is read after an exposure: a transition, a time, the rest of a bout, or a signal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.covariates import value_before
from brainmu.causal.grid import EpochGrid, Transition
from brainmu.core.signal import Signal
from brainmu.errors import DesignError, MissingDataError

__all__ = ["Outcome", "inverse_censoring", "signal_after", "signal_unit"]

_FORMS = (
    "'NREM->WAKE', 'NREM->microarousal', 'time to WAKE', 'bout length', 'signal:NAME', 'change:NAME', 'depth:NAME' or 'rebound:NAME' "
    "(the last six 'from REM' if not from NREM)"
)


@dataclass(frozen=True)
class Outcome:
    """An outcome in words, understood.

    Attributes
    ----------
    kind : {"transition", "time", "signal"}
        Whether the target is reached; how long the source lasts until it is, at most the horizon; or the mean of a signal over the horizon.
    transition : Transition
        Who is at risk, and what ends it.
    signal : str
        A signal, or one channel of it ("bands:delta").
    change : bool
        Less the mean over as many seconds before.
    asleep : bool
        The signal counts only while the animal is in the source stage.
    """

    kind: Literal["transition", "time", "signal"]
    transition: Transition
    signal: str = ""
    change: bool = False
    asleep: bool = False
    text: str = ""

    @classmethod
    def parse(cls, text: str) -> Outcome:
        """From words: "NREM->WAKE", "time to WAKE", "bout length", "signal:bands:delta", "change:bands:delta", "depth:bands:delta" (of the
        NREM in these seconds alone), "rebound:bands:delta" (its change), each of the last six "… from REM".

        Raises DesignError where it is none of them.
        """
        words = str(text).strip()
        if "->" in words or "→" in words:
            return cls("transition", Transition.parse(words), text=words)
        body, _, source = words.partition(" from ")
        source = source.strip() or "NREM"
        if found := re.fullmatch(r"time to (\S+)", body.strip()):
            return cls("time", Transition.parse(f"{source}->{found[1]}"), text=words)
        if body.strip() == "bout length":
            return cls("time", Transition.parse(f"{source}->any"), text=words)
        if found := re.fullmatch(r"(signal|change|depth|rebound):(\S+)", body.strip()):
            change, asleep = found[1] in ("change", "rebound"), found[1] in ("depth", "rebound")
            return cls("signal", Transition.parse(f"{source}->any"), signal=found[2], change=change, asleep=asleep, text=words)
        raise DesignError(f"outcome is {text!r}, expected a transition such as {_FORMS}")

    def __str__(self) -> str:
        return self.text

    @property
    def quantity(self) -> str:
        """What is averaged, in words; for the outcomes that are no transition."""
        if self.kind == "signal":
            return f"{'change in' if self.change else 'mean of'} {self.signal}{f' while in {self.transition.source}' if self.asleep else ''}"
        if self.transition.target == "any":
            return f"time until {self.transition.source} ends"
        return f"time until {self.transition.target} is the first stage reached"


def inverse_censoring(hit: NDArray[np.bool_], cut: NDArray[np.bool_], latency: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 where the target was reached, over the chance of not having been cut short by then (Kaplan–Meier of the cutting); 0 elsewhere.

    The chance is that of all rows together, so that the values are fixed whatever arm a row belongs to.
    """
    if not cut.any():
        return hit.astype(np.float64)
    times, which = np.unique(latency[cut], return_inverse=True)
    ended = np.bincount(which)
    order = np.sort(latency)
    # A target reached at the moment of a cut counts as reached.
    at_stake = len(order) - np.searchsorted(order, times, side="right") + ended
    survival = np.r_[1.0, np.cumprod(1 - ended / at_stake)][np.searchsorted(times, latency, side="left")]
    return np.where(hit, 1 / np.maximum(survival, 1e-9), 0.0)


def signal_after(grid: EpochGrid, outcome: Outcome, begin: NDArray[np.float64], seconds: float, before: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of the outcome's signal over (begin, begin + seconds] (n,); less that over as long up to `before` where a change is asked for.

    NaN where there is no sample, or the signal ends more than a sample before the window does.

    Raises
    ------
    MissingDataError
        If the recording lacks the signal or channel.
    DesignError
        If the signal has several channels and none is named, or its samples use their own future or past beyond themselves.
    """
    name, _, channel = outcome.signal.partition(":")
    recording = grid.recording
    if name not in recording.signals:
        have = ", ".join(recording.signals) or "none"
        raise MissingDataError(f"{recording.id}: no signal {name!r} to read as the outcome, the recording has {have}: compute it first")
    signal = recording.signals[name]
    if signal.attrs.get("centred"):
        raise DesignError(f"{recording.id}: signal {name!r} is centred (its samples mix before and after), expected samples of one moment each as an outcome")
    if channel:
        signal = signal.pick([channel])
    if signal.n_channels != 1:
        raise DesignError(f"{recording.id}: signal {name!r} has channels {', '.join(signal.names)}, expected one as the outcome: name it ('{name}:CHANNEL')")
    if outcome.asleep:
        signal = signal.with_values(_Asleep(signal, grid))
    values = value_before(signal, begin + seconds, seconds)[:, 0]
    return values - value_before(signal, before, seconds)[:, 0] if outcome.change else values


class _Asleep:
    """A lazy array: a signal, missing outside the source stage.

    A sample may be of the step before its time stamp or of the step after it: it counts where the stage lasts through both (at most an epoch each).
    """

    def __init__(self, signal: Signal, grid: EpochGrid) -> None:
        self.signal, self.grid = signal, grid
        self.elsewhere = np.r_[0, np.cumsum(~grid.source)]
        self.shape, self.dtype = (signal.n_samples, signal.n_channels), np.dtype(np.float32)

    def __getitem__(self, key: Any) -> NDArray[np.float32]:
        rows, *rest = key if isinstance(key, tuple) else (key,)
        first, last, _ = rows.indices(self.shape[0])
        values = self.signal.read(first, last).astype(np.float32)
        grid, begin = self.grid, max(first - 1, 0)
        around = self.signal.read_times(begin, min(last + 1, self.shape[0]))
        t = around[first - begin : last - begin]
        before, after = np.diff(around, prepend=around[:1])[first - begin :], np.diff(around, append=around[-1:])[first - begin :]
        lo, hi = (grid.index(t + np.clip(d[: len(t)], -grid.epoch, grid.epoch)) for d in (-before, after * (1 - 1e-6)))
        lo, hi = np.clip(lo, 0, None), np.clip(hi, None, len(grid) - 1)
        there = (t >= grid.start) & (t < grid.stop) & (lo <= hi)
        lo, hi = np.where(there, lo, 0), np.where(there, hi, 0)
        values[~there | (self.elsewhere[hi + 1] > self.elsewhere[lo])] = np.nan
        return values[(slice(None), *rest)]


def signal_unit(grids: Sequence[EpochGrid], outcome: Outcome) -> str:
    """The signal's unit; "units of NAME" where it has none or several."""
    name = outcome.signal.partition(":")[0]
    units = {g.recording.signals[name].unit for g in grids if name in g.recording.signals}
    one = units.pop() if len(units) == 1 else None
    return str(one) if one else f"units of {outcome.signal}"
