"""What is done to an event inside the model, and the placebo of each: the same at another time, brought to the same norm."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import EventTable, Intervals, Recording, Signal
from brainmu.core.limits import number
from brainmu.errors import InputError, MissingDataError
from brainmu.explain.edits import FILLER_BAND, RIPPLE_BAND, TAPER, Edit, Patch, content, nearest_spikes, ripple_signals, to_norm
from brainmu.explain.placing import Places

__all__ = ["OPERATIONS", "Operation", "check_factor", "operation_of", "parts_of", "placebo_edits", "removal_edits"]

_CANDIDATES = 64
"""Segments looked through for the one that is most like an event, of a pool of so many:"""
_POOL = 512
_TEMPLATES = 200
"""Events at most that a synthetic event is modelled on."""
_JITTER = 0.005
"""SD of the times of spikes that are put in beside others, s."""


SpikeChange = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int32]]
"""Indices of spikes to drop; times (s) and units of spikes to put in."""


def parts_of(what: str | Sequence[str]) -> tuple[str, ...]:
    """("spikes", "ripple") for "both"; raises InputError for anything else."""
    parts = ("spikes", "ripple") if what == "both" else (what,) if isinstance(what, str) else tuple(what)
    if not parts or set(parts) - {"spikes", "ripple"}:
        raise InputError(f"what is {what!r}, expected some of spikes, ripple (or both)")
    return tuple(p for p in ("spikes", "ripple") if p in parts)


def check_factor(factor: float) -> None:
    """Raises InputError for a factor that cannot be, or that changes nothing."""
    if number("factor", factor) == 1:
        raise InputError("factor is 1, which changes nothing: expected another number of at least 0, such as 0.5 or 2")


class Operation(abc.ABC):
    """One way to change events of a recording.

    Parameters
    ----------
    recording : Recording
    what : some of "spikes", "ripple"
        The ripple is the 100-300 Hz part of every LFP channel, faded over 10 ms.
    events : EventTable
        What a synthetic event is modelled on (insert).
    donors : Intervals
        Time of the same stage away from events, from which segments are taken (replace).
    factor : float
        What the ripple, and the number of spikes, are multiplied by (scale).

    Raises
    ------
    MissingDataError
        If the recording has neither spikes nor an LFP fast enough to hold a ripple, as far as asked for.
    """

    said = "changed"
    """What is done to an event, for a sentence."""
    band = RIPPLE_BAND
    second_place = False
    """Whether an edit needs a destination."""

    def __init__(
        self, recording: Recording, what: Sequence[str], events: EventTable, donors: Intervals, factor: float, rng: np.random.Generator
    ) -> None:  # fmt: skip
        self.recording, self.events, self.donors, self.factor, self.rng = recording, events, donors, factor, rng
        self.lfp: dict[str, Signal] = ripple_signals(recording) if "ripple" in what else {}
        spikes = recording.spikes if "spikes" in what else None
        self.spikes = spikes if spikes is not None and len(spikes) else None
        if not self.lfp and self.spikes is None:
            raise MissingDataError(
                f"{recording.id}: nothing to {self.name}: there are no {' and no '.join(self._lacks(what))}; events of this recording cannot be edited so"
            )

    @property
    def name(self) -> str:
        return type(self).__name__.lower()

    def edit(self, start: float, stop: float, destination: float | None = None) -> Edit | None:
        """What is done to the event in [start, stop), s; None where it cannot be."""
        made = self._signal_changes(start, stop, destination)
        inside = np.empty(0, dtype=np.int64) if self.spikes is None else np.arange(*np.searchsorted(self.spikes.times, [start, stop]))
        return None if made is None else self._assembled(start, stop, destination, {n: p for n, (p, _) in made.items()}, inside, None)

    def placebo(self, like: Edit, start: float, destination: float | None = None) -> Edit | None:
        """The same at another time, of the duration and the norm of `like`, with as many spikes.

        Where the same operation changes less than it does to an event, so much of the signal's own 10-100 Hz content is changed in the
        same way that the norms are equal. (Adding the event's waveform elsewhere would have equal norm as well, but would insert a ripple.)
        """
        stop = start + like.stop - like.start
        made = self._signal_changes(start, stop, destination)
        if made is None or set(like.patches) - set(made):
            return None
        patches = {}
        for name, ((first, values), filler) in made.items():
            if name in like.patches:
                norm = float(np.linalg.norm(like.patches[name][1].astype(np.float64)))
                patches[name] = (first, to_norm(values, filler, norm))
        chosen = nearest_spikes(self.spikes, (start + stop) / 2, self._n_chosen(like))
        return self._assembled(start, stop, destination, patches, chosen, like)

    # -- parts that operations differ in --------------------------------------------------------------------------------
    @abc.abstractmethod
    def _change(self, signal: Signal, start: float, stop: float, destination: float | None, band: tuple[float, float]) -> Patch | None:
        """What to add to a signal, of one band; None outside it."""

    def _spike_change(self, start: float, stop: float, destination: float | None, chosen: NDArray[np.int64], like: Edit | None) -> SpikeChange:
        """Spikes to drop, times and units to put in; `chosen` are those of the event, `like` the edit whose placebo it is."""
        return chosen, np.empty(0), np.empty(0, dtype=np.int32)

    def _n_chosen(self, like: Edit) -> int:
        return len(like.drop)

    # -- what they share ------------------------------------------------------------------------------------------------
    def _signal_changes(self, start: float, stop: float, destination: float | None) -> dict[str, tuple[Patch, NDArray[np.float32]]] | None:
        """For each signal the patch, and the same operation on the filler band; None where a destination is needed and lacks."""
        if self.second_place and destination is None:
            return None
        out = {}
        for name, s in self.lfp.items():
            patch, filler = self._change(s, start, stop, destination, self.band), self._change(s, start, stop, destination, FILLER_BAND)
            if patch is not None and filler is not None:
                out[name] = (patch, filler[1])
        return out

    def _assembled(
        self, start: float, stop: float, destination: float | None, patches: dict[str, Patch], chosen: NDArray[np.int64], like: Edit | None
    ) -> Edit:  # fmt: skip
        none = np.empty(0, dtype=np.int64), np.empty(0), np.empty(0, dtype=np.int32)
        drop, times, units = none if self.spikes is None else self._spike_change(start, stop, destination, chosen, like)
        return Edit(float(start), float(stop), patches, drop, times, units)

    @staticmethod
    def _lacks(what: Sequence[str]) -> list[str]:
        names = {"spikes": "spikes", "ripple": f"LFP sampled above {2 * RIPPLE_BAND[1]:.0f} Hz"}
        return [names[w] for w in what]


class Remove(Operation):
    """The ripple is subtracted, the spikes are dropped."""

    said = "taken out of its input"

    def _change(self, signal: Signal, start: float, stop: float, destination: float | None, band: tuple[float, float]) -> Patch | None:
        found = content(signal, start, stop, band)
        return None if found is None else (found[0], -found[1])


class Scale(Operation):
    """The ripple and the number of spikes are multiplied by a factor: spikes are thinned, or others put in close beside them."""

    said = "scaled in its input"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        check_factor(self.factor)
        self.said = f"scaled by {self.factor:g} in its input"

    def _change(self, signal: Signal, start: float, stop: float, destination: float | None, band: tuple[float, float]) -> Patch | None:
        found = content(signal, start, stop, band)
        return None if found is None else (found[0], np.float32(self.factor - 1) * found[1])

    def _spike_change(self, start: float, stop: float, destination: float | None, chosen: NDArray[np.int64], like: Edit | None) -> SpikeChange:
        assert self.spikes is not None
        if self.factor < 1:
            n = len(chosen) if like is not None else self.rng.binomial(len(chosen), 1 - self.factor)
            return np.sort(self.rng.permutation(chosen)[:n]), np.empty(0), np.empty(0, dtype=np.int32)
        n = len(like.put_times) if like is not None else self.rng.poisson((self.factor - 1) * len(chosen))
        if not len(chosen) or not n:
            return np.empty(0, dtype=np.int64), np.empty(0), np.empty(0, dtype=np.int32)
        twice = self.rng.choice(chosen, n)
        times = np.clip(self.spikes.times[twice] + _JITTER * self.rng.standard_normal(n), start, np.nextafter(stop, start))
        return np.empty(0, dtype=np.int64), times, self.spikes.unit_id[twice]

    def _n_chosen(self, like: Edit) -> int:
        return len(like.drop) + len(like.put_times)


class Permute(Operation):
    """Which unit fired which spike is shuffled within the event: every unit keeps its number of spikes, the population its course."""

    said = "given to other units, rates kept, in its input"

    def __init__(self, recording: Recording, what: Sequence[str], *args: Any, **kwargs: Any) -> None:
        if "spikes" not in what:
            raise InputError("permute shuffles the identity of spikes, and 'what' leaves them out: pass what='spikes'")
        super().__init__(recording, ("spikes",), *args, **kwargs)

    def _change(self, signal: Signal, start: float, stop: float, destination: float | None, band: tuple[float, float]) -> Patch | None:
        return None

    def _spike_change(self, start: float, stop: float, destination: float | None, chosen: NDArray[np.int64], like: Edit | None) -> SpikeChange:
        assert self.spikes is not None
        return chosen, self.spikes.times[chosen], self.rng.permutation(self.spikes.unit_id[chosen])


def _exchanged(signal: Signal, start: float, stop: float, destination: float | None, band: tuple[float, float]) -> Patch | None:
    """The band of a span taken out and that of an equal span from `destination` (s) put in its place; None where either lies outside the signal."""
    assert destination is not None
    here, there = content(signal, start, stop, band), content(signal, destination, destination + stop - start, band)
    if here is None or there is None:
        return None
    n = min(len(here[1]), len(there[1]))
    return here[0], there[1][:n] - here[1][:n]


class Shift(Operation):
    """The event changes places with a quiet moment of the same bout: ripple and spikes go there, and what was there comes back."""

    said = "moved elsewhere in the bout in its input"
    second_place = True

    def _change(self, signal: Signal, start: float, stop: float, destination: float | None, band: tuple[float, float]) -> Patch | None:
        return _exchanged(signal, start, stop, destination, band)

    def _assembled(
        self, start: float, stop: float, destination: float | None, patches: dict[str, Patch], chosen: NDArray[np.int64], like: Edit | None
    ) -> Edit:  # fmt: skip
        assert destination is not None
        by, none = destination - start, (np.empty(0, dtype=np.int64), np.empty(0), np.empty(0, dtype=np.int32))
        one, two = none, none
        if self.spikes is not None:
            times, units = self.spikes.times, self.spikes.unit_id
            there = np.setdiff1d(np.arange(*np.searchsorted(times, [destination, destination + stop - start])), chosen)
            # A placebo moves the spikes nearest to its middle, which may lie a little outside its span.
            one, two = (chosen, times[there] - by, units[there]), (there, times[chosen] + by, units[chosen])
        twin = {n: (self.lfp[n].index(destination - TAPER), -values) for n, (_, values) in patches.items()}
        return Edit(float(start), float(stop), patches, *one, twin=Edit(float(destination), float(destination + stop - start), twin, *two))


class Replace(Operation):
    """The event is replaced by a moment of the same stage without one, of like power (1-100 Hz) and like spike rate around it.

    Signals are replaced between 10 and 300 Hz: slower waves go on as they were, so that nothing jumps at the borders.
    """

    said = "replaced in its input by matched moments without an event"
    band = (10.0, 300.0)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        room = self.donors.longer_than(4 * TAPER)
        slack = room.stop - room.start - 2 * TAPER
        k = self.rng.choice(len(room), _POOL, p=slack / slack.sum()) if len(room) else np.empty(0, dtype=np.int64)
        self.pool, self.until = room.start[k] + TAPER + self.rng.random(len(k)) * slack[k], room.stop[k]
        self.likeness = np.array([self._likeness(t) for t in self.pool])
        scale = np.nanstd(self.likeness, axis=0) if len(k) else np.ones(1)
        self.scale = np.where(scale > 0, scale, 1.0)

    def edit(self, start: float, stop: float, destination: float | None = None) -> Edit | None:
        donor = self._donor(start, stop)
        return None if donor is None else super().edit(start, stop, donor)

    def placebo(self, like: Edit, start: float, destination: float | None = None) -> Edit | None:
        donor = self._donor(start, start + like.stop - like.start)
        return None if donor is None else super().placebo(like, start, donor)

    def _change(self, signal: Signal, start: float, stop: float, destination: float | None, band: tuple[float, float]) -> Patch | None:
        return _exchanged(signal, start, stop, destination, band)

    def _spike_change(self, start: float, stop: float, destination: float | None, chosen: NDArray[np.int64], like: Edit | None) -> SpikeChange:
        assert self.spikes is not None and destination is not None
        i, j = np.searchsorted(self.spikes.times, [destination, destination + stop - start])
        return chosen, self.spikes.times[i:j] - destination + start, self.spikes.unit_id[i:j]

    def _donor(self, start: float, stop: float) -> float | None:
        """Start of the segment, of some drawn at random, whose surround is most like that of [start, stop)."""
        length = stop - start
        fits = (self.pool + length + TAPER <= self.until) & ((self.pool >= stop + 2 * TAPER) | (self.pool + length <= start - 2 * TAPER))
        if not fits.any():
            return None
        some = self.rng.choice(np.flatnonzero(fits), min(_CANDIDATES, int(fits.sum())), replace=False)
        away = np.nansum(((self.likeness[some] - self._likeness((start + stop) / 2)) / self.scale) ** 2, axis=1)
        return float(self.pool[some[int(np.argmin(away))]])

    def _likeness(self, middle: float) -> NDArray[np.float64]:
        """Log power of each LFP signal without the ripple band, and root of the spike count, of the second around a moment without its middle fifth."""
        out = []
        for s in self.lfp.values():
            _, x = s.span(middle - 0.5, middle + 0.5)
            # First differences of means over 5 ms: fast to have, and deaf to offset and ripple alike.
            n = max(1, round(0.005 * (s.rate or 0)))
            coarse = x[: len(x) // n * n].reshape(-1, n, x.shape[1]).mean(1) if len(x) >= 2 * n else np.full((2, x.shape[1]), np.nan)
            out.append(np.log(np.nanvar(coarse) + 1e-9) if np.isfinite(coarse).any() else np.nan)
        if self.spikes is not None:
            a, b, c, d = np.searchsorted(self.spikes.times, [middle - 0.5, middle - 0.1, middle + 0.1, middle + 0.5])
            out.append(np.sqrt(b - a + d - c))
        return np.array(out, dtype=np.float64)


class Insert(Operation):
    """A synthetic event where there was none, modelled on the given events: their ripple amplitude and frequency, each unit's rate in them.

    Its placebo makes the signal's own 10-100 Hz content louder, by the same norm, and puts in as many spikes of units drawn by
    their rate in the whole recording: the ripple and the content are what it lacks.
    """

    said = "put into its input where there was none"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        pick = self.rng.permutation(len(self.events))[:_TEMPLATES]
        model = self.events[np.sort(pick)]
        self.loudness = {n: self._measured(s, model) for n, s in self.lfp.items()}
        if self.spikes is not None:
            ids, spans = self.spikes.units["id"].to_numpy(), self.events.intervals()
            inside = spans.contains(self.spikes.times)
            count = np.array([(self.spikes.unit_id[inside] == u).sum() for u in ids], dtype=np.float64)
            self.ids, self.rates = ids, count / max(spans.duration, 1e-9)
            self.usual = np.array([(self.spikes.unit_id == u).sum() for u in ids], dtype=np.float64)
            self.usual /= max(self.usual.sum(), 1.0)

    @staticmethod
    def _measured(signal: Signal, events: EventTable) -> tuple[NDArray[np.float64], float]:
        """RMS of the ripple band of each channel in the events, and its frequency, Hz."""
        assert signal.rate is not None
        n = round(0.4 * signal.rate)
        power, total, square = np.zeros(n // 2 + 1), 0, np.zeros(signal.n_channels)
        for a, b in zip(events.start, events.stop):
            found = content(signal, a, b, RIPPLE_BAND)
            if found is not None:
                square, total = square + (found[1].astype(np.float64) ** 2).sum(0), total + len(found[1])
                power += (np.abs(np.fft.rfft(found[1], n, axis=0)) ** 2).sum(1)
        return np.sqrt(square / max(total, 1)), float(np.argmax(power) * signal.rate / n)

    def placebo(self, like: Edit, start: float, destination: float | None = None) -> Edit | None:
        stop, patches = start + like.stop - like.start, {}
        for name, (_, values) in like.patches.items():
            own = content(self.lfp[name], start, stop, FILLER_BAND)
            if own is None:
                return None
            patches[name] = (own[0], to_norm(np.zeros_like(own[1]), own[1], float(np.linalg.norm(values.astype(np.float64)))))
        return self._assembled(start, stop, None, patches, np.empty(0, dtype=np.int64), like)

    def _change(self, signal: Signal, start: float, stop: float, destination: float | None, band: tuple[float, float]) -> Patch | None:
        assert signal.rate is not None
        i, j = signal.index(start - TAPER), signal.index(stop + TAPER)
        if j - i < 4:
            return None
        name = next(n for n, s in self.lfp.items() if s is signal)
        rms, frequency = self.loudness[name]
        t = np.arange(j - i) / signal.rate
        envelope = np.exp(-0.5 * ((t - t.mean()) / (t[-1] / 5)) ** 2)
        wave = envelope * np.sin(2 * np.pi * frequency * t + self.rng.uniform(0, 2 * np.pi))
        return i, (wave[:, None] * rms / max(float(np.sqrt((wave**2).mean())), 1e-9)).astype(np.float32)

    def _spike_change(self, start: float, stop: float, destination: float | None, chosen: NDArray[np.int64], like: Edit | None) -> SpikeChange:
        none = np.empty(0, dtype=np.int64)
        if like is not None:
            n = len(like.put_times)
            units = self.rng.choice(self.ids, n, p=self.usual) if n else np.empty(0)
        else:
            units = np.repeat(self.ids, self.rng.poisson(self.rates * (stop - start)))
        return none, self.rng.uniform(start, stop, len(units)), units.astype(np.int32)


_KINDS: dict[str, type[Operation]] = {"remove": Remove, "replace": Replace, "shift": Shift, "permute": Permute, "scale": Scale, "insert": Insert}
OPERATIONS = tuple(_KINDS)


def operation_of(
    name: str, recording: Recording, what: str | Sequence[str], events: EventTable, donors: Intervals, rng: np.random.Generator, factor: float = 0.5
) -> Operation:  # fmt: skip
    """The operation of that name. Raises InputError where there is none."""
    if name not in _KINDS:
        raise InputError(f"operation is {name!r}, expected one of {', '.join(OPERATIONS)}")
    return _KINDS[name](recording, parts_of(what), events, donors, factor, rng)


def removal_edits(recording: Recording, events: EventTable, what: str | Sequence[str] = ("spikes", "ripple")) -> list[Edit]:
    """Edits that take away each event's spikes, its ripple-band LFP, or both. Raises as :class:`Operation` does."""
    made = operation_of("remove", recording, what, events, Intervals(), np.random.default_rng(0))
    edits = [made.edit(a, b) for a, b in zip(events.start, events.stop)]
    return [e for e in edits if e is not None]


def placebo_edits(recording: Recording, edits: Sequence[Edit], where: Sequence[Intervals], rng: np.random.Generator) -> list[Edit | None]:
    """For each edit of :func:`removal_edits` one of equal duration and norm at a random other time; None where no place is long enough.

    Parameters
    ----------
    where : sequence of Intervals
        For each edit, the time it may move to (same stage, away from any event).
    """
    what = [n for n, there in (("spikes", any(len(e.drop) for e in edits)), ("ripple", any(e.patches for e in edits))) if there]
    if not what:
        return [None] * len(edits)
    made = operation_of("remove", recording, what, EventTable([], []), Intervals(), rng)
    out: list[Edit | None] = []
    for edit, spans in zip(edits, where, strict=True):
        (start,), _ = Places(recording.start, 1.0, 0, spans, spans).draw([edit.stop - edit.start], rng)
        out.append(None if start is None else made.placebo(edit, start))
    return out
