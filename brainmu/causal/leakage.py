"""Ways in which an outcome or a covariate can already know the exposure, found from what streams say of their making."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from brainmu.causal.grid import EpochGrid
from brainmu.core.events import EventTable

__all__ = ["design_warnings", "find_leaks", "made_from"]


def find_leaks(grids: Sequence[EpochGrid], tables: Sequence[EventTable], adjust: Sequence[str]) -> list[str]:
    """Sentences, each a leak; empty where none is known.

    Hypnograms, event tables and signals say what they were made from in ``attrs["derived"]`` (or ``"channels"``, ``"signals"``).
    """
    said: list[str] = []
    for g, t in zip(grids, tables):
        scored_from, found_in = made_from(g.hypnogram.attrs), made_from(t.attrs)
        shared = sorted(scored_from & found_in)
        if shared:
            said.append(
                f"leak: hypnogram and exposure of {g.recording.id} come from the same signal ({', '.join(shared)}): score from EEG, EMG or another site"
            )
        for name in adjust:
            signal = g.recording.signals.get(name.partition(":")[0])
            if signal is not None and (both := sorted(made_from(signal.attrs) & found_in)):
                said.append(f"leak: covariate {name!r} of {g.recording.id} and the exposure come from the same signal ({', '.join(both)})")
    # One sentence for each kind, however many recordings share it.
    first = {s.split(" of ")[0]: s for s in reversed(said)}
    return list(first.values())


def made_from(attrs: dict[str, Any]) -> set[str]:
    """Names of the signals and channels a stream says it was made from."""
    out: set[str] = set()
    for key in ("derived", "channels", "signals", "features"):
        value = attrs.get(key)
        if isinstance(value, str):
            out.add(value)
        elif isinstance(value, Iterable) and not isinstance(value, dict):
            out |= {str(v) for v in value}
    return out


def design_warnings(lag: int, animals: int) -> list[str]:
    """Sentences on a lag of no epochs, and on few animals."""
    said = []
    if lag == 0:
        said.append(
            "lag=0 reads exposure and outcome from the same epoch: scoring leaves time after the arousal in the last epoch of a bout, "
            "which biases the estimate even without an effect; use lag=1"
        )
    if animals == 1:
        said.append("one animal: the interval covers this animal's bouts only, not other animals")
    elif animals < 4:
        said.append(f"{animals} animals: the interval rests on {animals - 1} degree{'s' if animals > 2 else ''} of freedom")
    return said
