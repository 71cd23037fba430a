"""What an event found by the learned detector was of: the shares of the units of an animal whose labelled events it has seen."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import EventTable, Recording
from brainmu.replay.categories import LabelRates
from brainmu.replay.decode import counts_in

__all__ = ["ContentReader"]

_LEAST_EVENTS, _LEAST_UNITS, _FOLDS = 5, 5, 5


@dataclass
class ContentReader:
    """Contents of the events of one animal by the shares of its units (multinomial), with a temperature chosen on events left out.

    Attributes
    ----------
    rates : LabelRates
    temperature : float
        Log-likelihoods are divided by it: counts vary more than multinomial ones.
    accuracy : float
        Share of the events left out in turn that are read rightly.
    n_events : int
    """

    rates: LabelRates
    temperature: float
    accuracy: float
    n_events: int

    @classmethod
    def fit(cls, sessions: list[tuple[Recording, EventTable]]) -> ContentReader | None:
        """From the labelled events of one animal; None without spikes, or with fewer than two contents of at least five events with spikes."""
        ids = np.unique(np.concatenate([r.spikes.units["id"].to_numpy() for r, _ in sessions if r.spikes is not None] or [np.empty(0, dtype=np.int32)]))
        counts = [_Counts.of(r, e, ids) for r, e in sessions if r.spikes is not None and len(e)]
        if not counts or not len(ids):
            return None
        table = _Counts.joined(counts)
        table = table.of_some(table.spikes.sum(1) > 0)
        names, n = np.unique(table.content[table.content != ""], return_counts=True)
        names = names[n >= _LEAST_EVENTS]
        table = table.of_some(np.isin(table.content, names))
        if len(names) < 2 or len(ids) < _LEAST_UNITS:
            return None
        true = np.searchsorted(names, table.content)
        fold = np.arange(len(true)) % _FOLDS
        loglik = np.zeros((len(true), len(names)))
        for f in range(_FOLDS):
            loglik[fold == f] = table.of_some(fold != f).rates(names, ids).log_likelihood(table.spikes[fold == f])
        at = np.arange(len(true))
        tries = np.geomspace(1, 50, 30)
        loss = [-np.log(_softmax(loglik / t)[at, true] + 1e-12).mean() for t in tries]
        return cls(table.rates(names, ids), float(tries[int(np.argmin(loss))]), float((loglik.argmax(1) == true).mean()), len(true))

    def read(self, recording: Recording, events: EventTable) -> tuple[NDArray[Any], NDArray[np.float32], str]:
        """Content and its probability of each event ("" and NaN where there is no spike of a known unit), and a sentence."""
        empty = np.full(len(events), "", dtype=object), np.full(len(events), np.nan, dtype=np.float32)
        if recording.spikes is None:
            return *empty, "not told: the recording has no spikes"
        shared = np.isin(self.rates.units, recording.spikes.units["id"].to_numpy())
        if shared.sum() < _LEAST_UNITS:
            return *empty, f"not told: {int(shared.sum())} of {len(shared)} units that it knows are here, expected at least {_LEAST_UNITS}"
        scores, heard = self.scores(recording, events)
        p = _softmax(scores)
        content = np.where(heard, np.array(self.rates.classes, dtype=object)[p.argmax(1)], "") if len(p) else empty[0]
        how = f"read from {int(shared.sum())} units; {self.accuracy:.2f} of {self.n_events} labelled events left out in turn were read rightly"
        return content, np.where(heard, p.max(1), np.nan).astype(np.float32) if len(p) else empty[1], how

    def scores(self, recording: Recording, events: EventTable) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Tempered log likelihood (event, class) of each content by the units that are here, and whether any of them spoke (event,)."""
        assert recording.spikes is not None
        shared = np.isin(self.rates.units, recording.spikes.units["id"].to_numpy())
        counts = _aligned(recording, events, self.rates.units[shared])
        known = LabelRates(self.rates.rates[:, shared], self.rates.classes, self.rates.units[shared], self.rates.seconds)
        return known.log_likelihood(counts) / self.temperature, counts.sum(1) > 0

    def to_dict(self) -> dict[str, Any]:
        """For YAML."""
        r = self.rates
        rates = {"rates": r.rates.tolist(), "classes": list(r.classes), "units": r.units.tolist(), "seconds": r.seconds.tolist()}
        return {"rates": rates, "temperature": self.temperature, "accuracy": self.accuracy, "n_events": self.n_events}

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> ContentReader:
        """The inverse of :meth:`to_dict`."""
        r = d["rates"]
        rates = LabelRates(np.array(r["rates"], dtype=np.float64), tuple(r["classes"]), np.array(r["units"], dtype=np.int32), np.array(r["seconds"]))
        return cls(rates, d["temperature"], d["accuracy"], d["n_events"])


@dataclass
class _Counts:
    """Events: spikes (event, unit), seconds that each unit was listened to in it (event, unit), content (event,)."""

    spikes: NDArray[np.float64]
    seconds: NDArray[np.float64]
    content: NDArray[Any] = field(default_factory=lambda: np.empty(0, dtype=str))

    @classmethod
    def of(cls, recording: Recording, events: EventTable, ids: NDArray[np.int32]) -> _Counts:
        assert recording.spikes is not None
        here = np.isin(ids, recording.spikes.units["id"].to_numpy())
        return cls(_aligned(recording, events, ids), events.duration[:, None] * here, np.asarray(events.content, dtype=str))

    @classmethod
    def joined(cls, parts: list[_Counts]) -> _Counts:
        return cls(*(np.concatenate([getattr(p, k) for p in parts]) for k in ("spikes", "seconds", "content")))

    def of_some(self, which: NDArray[np.bool_]) -> _Counts:
        return _Counts(self.spikes[which], self.seconds[which], self.content[which])

    def rates(self, names: NDArray[Any], ids: NDArray[np.int32]) -> LabelRates:
        """A unit that is silent in a class has half a spike there."""
        rows = [self.of_some(self.content == n) for n in names]
        rates = np.stack([np.maximum(r.spikes.sum(0), 0.5) / np.maximum(r.seconds.sum(0), 1e-3) for r in rows])
        return LabelRates(rates, tuple(str(n) for n in names), ids, np.array([r.seconds.max(1).sum() for r in rows]))


def _aligned(recording: Recording, events: EventTable, ids: NDArray[np.int32]) -> NDArray[np.float64]:
    """Spikes (event, unit) in the order of `ids`; 0 for units that are not in the recording."""
    assert recording.spikes is not None
    out = np.zeros((len(events), len(ids)))
    own = recording.spikes.units["id"].to_numpy()
    counts = counts_in(recording.spikes, np.c_[events.start, events.stop]) if len(events) else np.zeros((0, len(own)))
    for k, unit in enumerate(ids):
        column = np.flatnonzero(own == unit)
        if len(column):
            out[:, k] = counts[:, column[0]]
    return out


def _softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    e = np.exp(x - x.max(1, keepdims=True)) if len(x) else x
    return e / e.sum(1, keepdims=True) if len(x) else x
