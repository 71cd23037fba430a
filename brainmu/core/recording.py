"""One recording: everything that was measured on one animal in one go, lazily, on one clock or several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

import numpy as np

from brainmu.core.events import EventTable
from brainmu.core.hypnogram import Hypnogram
from brainmu.core.intervals import Intervals
from brainmu.core.signal import Signal
from brainmu.core.spikes import Spikes
from brainmu.core.window import Window
from brainmu.errors import InputError, MissingDataError

__all__ = ["Label", "Recording"]

Label = Hypnogram | EventTable | Intervals


@dataclass
class Recording:
    """Signals, spikes and labels of one session of one subject.

    Attributes
    ----------
    id, subject, species : str
        Names. `species` is "" where unknown ("mouse", "rat", "human", …).
    started_at : datetime or None
        Wall-clock start, timezone-aware.
    signals : dict of Signal
    spikes : Spikes or None
    labels : dict of Hypnogram, EventTable or Intervals
    clocks : dict
        What is known of each stream's clock (offset, ppm, residuals).
    source : dict
        Where it came from: format, files, warnings (a list of sentences).
    subject_meta : dict
        group, cage, sex, batch, virus, day.
    zeitgeber : float or None, h
        Zeitgeber time (hours since lights on) at session time 0.
    """

    id: str
    subject: str = ""
    species: str = ""
    started_at: datetime | None = None
    signals: dict[str, Signal] = field(default_factory=dict)
    spikes: Spikes | None = None
    labels: dict[str, Label] = field(default_factory=dict)
    clocks: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)
    subject_meta: dict[str, Any] = field(default_factory=dict)
    zeitgeber: float | None = None

    def __post_init__(self) -> None:
        if not self.id or any(c in str(self.id) for c in "/\\\0"):
            raise InputError(f"recording id is {self.id!r}, expected a non-empty name without slashes")
        self.id = str(self.id)
        if self.started_at is not None and self.started_at.tzinfo is None:
            raise InputError(f"started_at is {self.started_at.isoformat()} without a time zone: add one (tzinfo=timezone.utc)")
        for name, label in self.labels.items():
            if not isinstance(label, (Hypnogram, EventTable, Intervals)):
                raise InputError(f"label {name!r} is a {type(label).__name__}, expected a Hypnogram, EventTable or Intervals")

    @classmethod
    def from_arrays(
        cls, id: str, subject: str = "", species: str = "", *, signals: Mapping[str, Any] | None = None, spikes: Any = None,
        labels: Mapping[str, Label] | None = None, started_at: datetime | None = None, subject_meta: Mapping[str, Any] | None = None,
        zeitgeber: float | None = None, source: Mapping[str, Any] | None = None,
    ) -> Recording:  # fmt: skip
        """A recording from arrays in memory (or anything that slices like one).

        Parameters
        ----------
        signals : mapping of name to ``dict(values=(time, channel), rate=Hz, unit=, kind=, channels=, start=s)`` or Signal
        spikes : ``dict(times=s, unit=integer ids, units=table)`` or Spikes
        labels : mapping of name to Hypnogram, EventTable or Intervals

        Raises
        ------
        InputError
            If a part does not fit its description; the message names the part.

        Examples
        --------
        >>> import numpy as np
        >>> rec = Recording.from_arrays("m1_day2", "m1", "mouse", signals={"lfp": dict(values=np.zeros((1000, 2)), rate=500.0, unit="uV", kind="lfp")})
        >>> rec.duration
        2.0
        """
        return cls(
            id=id, subject=subject, species=species, started_at=started_at,
            signals={str(k): Signal.coerce(str(k), v) for k, v in (signals or {}).items()},
            spikes=None if spikes is None else Spikes.coerce(spikes),
            labels=dict(labels or {}), subject_meta=dict(subject_meta or {}), zeitgeber=zeitgeber,
            source={"format": "arrays", **(source or {})},
        )  # fmt: skip

    def with_fields(self, **changes: Any) -> Recording:
        """A plain recording like this one (also of a Session) but for some attributes. Signals stay lazy; dicts are copied, so that either may change.

        Examples
        --------
        >>> Recording("m1_day2", "m1").with_fields(id="m1_day2_cut").subject
        'm1'
        """
        kept: dict[str, Any] = {f.name: getattr(self, f.name) for f in fields(Recording)} | changes
        for name, value in kept.items():
            kept[name] = dict(value) if isinstance(value, dict) else value
        return Recording(**kept)

    # -- extent ---------------------------------------------------------------------------------------------------
    @property
    def start(self) -> float:
        """Start of the earliest signal or spike, s (labels where there is neither)."""
        return self._extent()[0]

    @property
    def stop(self) -> float:
        """End of the latest signal or spike, s (exclusive)."""
        return self._extent()[1]

    @property
    def duration(self) -> float:
        """Length, s."""
        a, b = self._extent()
        return b - a

    def _extent(self) -> tuple[float, float]:
        spans = [(s.start, s.stop) for s in self.signals.values() if s.n_samples]
        if self.spikes is not None and len(self.spikes):
            # Half-open: the last spike lies inside.
            spans.append((float(self.spikes.times[0]), float(np.nextafter(self.spikes.times[-1], np.inf))))
        if not spans:
            for v in self.labels.values():
                if len(v):
                    spans.append((float(np.min(v.start)), float(np.max(v.stop))))
        if not spans:
            return 0.0, 0.0
        return min(a for a, _ in spans), max(b for _, b in spans)

    # -- what is in it --------------------------------------------------------------------------------------------
    def signals_of(self, *kinds: str) -> dict[str, Signal]:
        """The channels of the given kinds, as signals with only those channels. Empty where there are none."""
        out = {}
        for name, s in self.signals.items():
            which = s.channels["kind"].isin(kinds).to_numpy()
            if which.any():
                out[name] = s if which.all() else s.pick(which)
        return out

    def hypnogram(self, name: str | None = None) -> Hypnogram:
        """The hypnogram label `name`, or the only one.

        Raises
        ------
        MissingDataError
            If there is none, several and no name, or the label is something else.
        """
        found = {k: v for k, v in self.labels.items() if isinstance(v, Hypnogram)}
        return _pick_label(self, found, name, "hypnogram")

    def events(self, name: str | None = None) -> EventTable:
        """The event table `name`, or the only one. Raises MissingDataError as :meth:`hypnogram` does."""
        found = {k: v for k, v in self.labels.items() if isinstance(v, EventTable)}
        return _pick_label(self, found, name, "event table")

    def window(self, start: float, stop: float) -> Window:
        """Every modality in [start, stop), s. Raises InputError unless start < stop."""
        if not start < stop:
            raise InputError(f"window [{start}, {stop}) is empty, expected start < stop")
        spans = {k: s.span(start, stop) for k, s in self.signals.items()}
        times, units = self.spikes.span(start, stop) if self.spikes is not None else (np.empty(0), np.empty(0, dtype=np.int32))
        return Window(self.id, start, stop, {k: v for k, (_, v) in spans.items()}, {k: t for k, (t, _) in spans.items()}, times, units)

    def warn(self, sentence: str) -> None:
        """Note something that was dropped, fixed or doubtful; it goes into the store's provenance and to stderr."""
        self.source.setdefault("warnings", [])
        if sentence not in self.source["warnings"]:
            self.source["warnings"].append(sentence)

    @property
    def warnings(self) -> list[str]:
        return list(self.source.get("warnings", []))

    def doubts(self) -> list[str]:
        """What does not fit together, and is most often a wrong rate or epoch in a manifest: sentences, empty where all fits.

        A label that ends more than a tenth of the signals' length after they do (events, intervals and spikes: and more than a minute, unless they run on a
        clock of their own, which is not aligned yet), and voltage signals that start together and differ in length by more
        than a tenth.
        """
        out = []
        voltages = {k: s for k, s in self.signals_of("lfp", "eeg", "emg", "eog").items() if s.n_samples}
        if voltages:
            longest = max(voltages, key=lambda k: voltages[k].duration)
            for name, s in voltages.items():
                if s.start == voltages[longest].start and s.duration < 0.9 * voltages[longest].duration:
                    out.append(f"signal {name!r} lasts {s.duration:.0f} s and {longest!r} {voltages[longest].duration:.0f} s: check their rates")
        ends = [s.stop for s in self.signals.values() if s.n_samples]
        if ends:
            span = max(ends) - min(s.start for s in self.signals.values() if s.n_samples)
            for name, label in self.labels.items():
                if isinstance(label, Hypnogram) and len(label) and label.stop > max(ends) + 0.1 * span:
                    out.append(
                        f"label {name!r} ends at {label.stop:.0f} s and the signals at {max(ends):.0f} s: check its epoch ({label.epoch:g} s) and the rates"
                    )
            timed: dict[str, float] = {k: float(np.max(v.stop)) for k, v in self.labels.items() if isinstance(v, EventTable | Intervals) and len(v)}
            if self.spikes is not None and len(self.spikes):
                timed["spikes"] = float(self.spikes.times[-1])
            elsewhere = {stream for clock in self.clocks.values() if isinstance(clock, dict) for stream in clock.get("streams", [])}
            for what, last in timed.items():
                if what not in elsewhere and last > max(ends) + max(0.1 * span, 60.0):
                    subject = "the last spike is" if what == "spikes" else f"label {what!r} ends"
                    out.append(
                        f"{subject} at {last:.0f} s and the signals end at {max(ends):.0f} s: check time_unit, and the rate of the times and of the signals"
                    )
        return out

    def summary(self) -> str:
        """A few lines for people."""
        who = ", ".join(x for x in (f"subject {self.subject}" if self.subject else "", self.species) if x)
        lines = [f"{self.id}{' (' + who + ')' if who else ''}: {_clock(self.duration)}"]
        for name, s in self.signals.items():
            kinds = ", ".join(dict.fromkeys(s.channels["kind"]))
            rate = "irregular" if s.rate is None else f"{s.rate:g} Hz"
            lines.append(f"  signal {name}: {s.n_channels} x {kinds}, {rate}, {s.unit or 'unit unknown'}, {s.start:.1f}-{s.stop:.1f} s")
        if self.spikes is not None:
            lines.append(f"  spikes: {len(self.spikes)} of {self.spikes.n_units} units")
        lines += [f"  label {name}: {label!r}" for name, label in self.labels.items()]
        lines += [f"  note: {w}" for w in self.warnings]
        return "\n".join(lines)

    def __repr__(self) -> str:
        return self.summary()


def _clock(seconds: float) -> str:
    s = round(seconds)
    return f"{s // 3600} h {s % 3600 // 60:02d} min {s % 60:02d} s" if s >= 3600 else f"{s // 60} min {s % 60:02d} s"


def _pick_label(rec: Recording, found: Mapping[str, Any], name: str | None, what: str) -> Any:
    if name is not None:
        if name in found:
            return found[name]
        have = ", ".join(f"{k} ({type(v).__name__})" for k, v in rec.labels.items()) or "no labels"
        raise MissingDataError(f"{rec.id}: no {what} named {name!r}, the recording has {have}")
    if len(found) == 1:
        return next(iter(found.values()))
    if not found:
        raise MissingDataError(f"{rec.id}: has no {what} among its labels ({', '.join(rec.labels) or 'none'}): score it first, or pass one")
    raise MissingDataError(f"{rec.id}: has several {what}s ({', '.join(found)}): name one with labels=")


def as_list(recordings: Recording | Iterable[Recording]) -> list[Recording]:
    """One recording or many, as a list. Raises InputError where one of them is something else."""
    if isinstance(recordings, Recording):
        return [recordings]
    found: list[Any] = list(recordings) if isinstance(recordings, Iterable) and not isinstance(recordings, (str, bytes)) else [recordings]
    for r in found:
        if not isinstance(r, Recording):
            raise InputError(f"a recording is the {type(r).__name__} {str(r)[:60]!r}, expected a Recording or Session: brainmu.open('m1.zarr') opens a store")
    return found
