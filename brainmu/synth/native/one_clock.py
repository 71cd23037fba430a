"""What a file that has one clock may hold of a recording whose devices have several."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from brainmu.core import Intervals, Recording
from brainmu.core.recording import Label
from brainmu.errors import InputError

__all__ = ["elsewhere", "is_aligned", "on_session"]

_SESSION = "session"


def is_aligned(spec: Any) -> bool:
    """Whether an entry of ``recording.clocks`` is the map by which :func:`brainmu.store.align` has brought its streams to the session's time already."""
    return isinstance(spec, dict) and "breakpoints" in spec


def on_session(rec: Recording, format: str, signals: Iterable[str], *, spikes: bool = True, labels: bool = True) -> dict[str, Label]:
    """The labels that a file of one clock holds: all but the sync pulses as other devices noted them, which are said.

    Raises
    ------
    InputError
        If a stream that the file would hold runs on another clock than the session's: its times would be wrong by the offset of that clock.
    """
    other = elsewhere(rec)
    noted = {spec["pulses"] for spec in rec.clocks.values() if isinstance(spec, dict) and isinstance(spec.get("pulses"), str)}
    left = [k for k in rec.labels if k in other and k in noted]
    held = [*signals, *(["spikes"] if spikes and rec.spikes is not None else []), *((k for k, v in rec.labels.items() if len(v)) if labels else [])]
    wrong = [k for k in held if k in other and k not in left]
    if wrong:
        clocks = [repr(c) for c in dict.fromkeys(other[k] for k in wrong)]
        raise InputError(
            f"{rec.id}: {', '.join(wrong)} run{'s' * (len(wrong) == 1)} on the clock{'s' * (len(clocks) > 1)} {' and '.join(clocks)}, "
            f"and {format} has one clock for all: "
            'write brainmu.store.align(recording), or format="manifest", which keeps clocks'
        )
    if left and labels:
        rec.warn(f"{format}: {', '.join(left)} were left out, they are times of other clocks")
    return {k: v for k, v in rec.labels.items() if k not in left}


def elsewhere(rec: Recording) -> dict[str, str]:
    """Streams that do not run on the session's clock, and the clock on which they run."""
    specs = {name: spec for name, spec in rec.clocks.items() if isinstance(spec, dict)}
    session = {_SESSION, "", *(name for name, spec in specs.items() if spec.get("reference") is True)}
    if len(session) == 2 and _SESSION not in specs:
        # As brainmu.store.align takes it: the first clock whose pulses are known.
        session |= {next((name for name, spec in specs.items() if "pulses" in spec), _SESSION)}
    session |= {name for name, spec in specs.items() if is_aligned(spec)}
    out = {k: v.clock for k, v in rec.signals.items()}
    out |= {k: str(v.attrs.get("clock", "")) for k, v in rec.labels.items() if not isinstance(v, Intervals)}
    for name, spec in specs.items():
        out |= dict.fromkeys([*spec.get("streams", []), *([spec["pulses"]] if isinstance(spec.get("pulses"), str) else [])], name)
    return {k: clock for k, clock in out.items() if clock not in session}
