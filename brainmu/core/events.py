"""Events in time with any columns: ripples, spindles, replay, cues, trials. Events may overlap."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from brainmu.core.intervals import Intervals
from brainmu.core.signal import as_times
from brainmu.errors import FormatError, InputError, NotFoundError

__all__ = ["EventTable", "match_events"]


class EventTable:
    """Events with start, stop and peak, and any other columns.

    Rows keep the order they came in; :meth:`sorted` orders them by start.

    Parameters
    ----------
    start, stop : float64 (n,), s
        Half-open span of each event; stop >= start (a point event has stop == start).
    peak : float64 (n,), s, or None
        Time of the peak; the middle where not given.
    content : (n,) or scalar
        Which memory (track, arm, cue, context, assembly) or its valence. "" where unknown.
    kind : (n,) or scalar
        ripple, spindle, slow_wave, burst, replay, assembly, cue, stim, trial, …
    attrs : dict
        Provenance of the table (method, parameters, baseline, rate in surrogates, decoding error, …).
    **columns : (n,) or scalar
        Anything else (score, p_value, probability, assigned, delivered, block, arm, …), kept as it is.

    Columns and attrs are readable as attributes: ``events.p_value``, ``events.decoding_error``.

    Raises
    ------
    InputError
        If lengths differ, times are not finite, or an event stops before it starts.

    Examples
    --------
    >>> e = EventTable([1.0, 3.0], [1.1, 3.2], content=["A", "B"], score=[2.0, 5.0])
    >>> e.duration.round(3).tolist(), e.content.tolist(), len(e[e.score > 3])
    ([0.1, 0.2], ['A', 'B'], 1)
    """

    def __init__(
        self, start: ArrayLike, stop: ArrayLike, peak: ArrayLike | None = None, content: Any = None, kind: Any = None, *,
        attrs: dict[str, Any] | None = None, **columns: Any,
    ) -> None:  # fmt: skip
        a, b = as_times(start, "event starts"), as_times(stop, "event stops")
        if a.shape != b.shape:
            raise InputError(f"{len(a)} event starts and {len(b)} stops: give one of each an event")
        if (b < a).any():
            bad = int(np.flatnonzero(b < a)[0])
            raise InputError(f"event {bad} stops at {b[bad]} s before it starts at {a[bad]} s")
        n = len(a)
        # One frame from all columns: set one by one, they cost more than everything else here.
        data = {"start": a, "stop": b, "peak": (a + b) / 2 if peak is None else as_times(peak, "event peaks")}
        data["kind"] = _column("kind", "event" if kind is None else kind, n)
        data["content"] = _column("content", "" if content is None else content, n)
        data.update({name: _column(name, value, n) for name, value in columns.items()})
        self._frame = pd.DataFrame(data)
        self.attrs: dict[str, Any] = dict(attrs or {})

    @classmethod
    def from_frame(cls, frame: pd.DataFrame, attrs: dict[str, Any] | None = None) -> EventTable:
        """An EventTable from a DataFrame with start and stop (or onset and duration), s."""
        f = frame.rename(columns={"onset": "start"}) if "start" not in frame else frame
        f = f.rename(columns={"trial_type": "kind"}) if "kind" not in f and "trial_type" in f else f
        if "start" in f and "stop" not in f and "duration" in f:
            # BIDS writes n/a where an event has no length of its own: a point event.
            duration = np.nan_to_num(np.asarray(pd.to_numeric(f["duration"], errors="coerce"), dtype=np.float64))
            f = f.assign(stop=np.asarray(f["start"], dtype=np.float64) + duration).drop(columns="duration")
        missing = [c for c in ("start", "stop") if c not in f]
        if missing:
            raise InputError(f"event table has columns {list(frame.columns)}, expected start and stop (or onset and duration), s")
        return cls(attrs=attrs, **{str(c): f[c].to_numpy() for c in f.columns if c != "duration"})

    def to_frame(self) -> pd.DataFrame:
        """A DataFrame copy: start, stop, peak (s), kind, content, then the other columns."""
        return self._frame.copy()

    # -- BIDS -----------------------------------------------------------------------------------------------------
    def to_bids(self, path: str | Path) -> None:
        """Write a BIDS ``events.tsv``: onset, duration (s), trial_type, then the other columns; "n/a" for missing."""
        f = self._frame
        out = pd.DataFrame({"onset": f["start"], "duration": f["stop"] - f["start"], "trial_type": f["kind"]})
        for c in f.columns:
            if c not in ("start", "stop", "kind"):
                out[c] = f[c]
        out.replace("", "n/a").to_csv(path, sep="\t", index=False, na_rep="n/a", float_format="%.9g")

    @classmethod
    def from_bids(cls, path: str | Path) -> EventTable:
        """Read a BIDS ``events.tsv``."""
        p = Path(path)
        if not p.exists():
            raise NotFoundError(f"{p}: no such file, expected a BIDS events.tsv")
        try:
            frame = pd.read_csv(p, sep="\t", na_values=["n/a"], keep_default_na=False)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise FormatError(f"{p}: not a tab-separated table ({error}), expected columns onset and duration") from None
        if not {"onset", "duration"} <= set(frame.columns):
            raise FormatError(f"{p}: has columns {', '.join(map(str, frame.columns))}, expected onset and duration (BIDS events.tsv)")
        for c in frame.columns:
            # A text column of nothing but n/a comes back as numbers (NaN); these two mean text when they are empty.
            if not pd.api.types.is_numeric_dtype(frame[c]) or (c in ("trial_type", "content") and np.asarray(frame[c].isna()).all()):
                frame[c] = frame[c].astype(object).where(frame[c].notna(), "")
        return cls.from_frame(frame)

    # -- access ---------------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return len(self._frame)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        frame, attrs = self.__dict__.get("_frame"), self.__dict__.get("attrs", {})
        if frame is not None and name in frame.columns:
            return frame[name].to_numpy()
        if name in attrs:
            return attrs[name]
        known = list(frame.columns) + list(attrs) if frame is not None else []
        raise AttributeError(f"the event table has no {name!r}; it has {', '.join(map(str, known))}")

    @property
    def columns(self) -> list[str]:
        return [str(c) for c in self._frame.columns]

    @property
    def duration(self) -> NDArray[np.float64]:
        """Length of each event (n,), s."""
        return (self._frame["stop"] - self._frame["start"]).to_numpy()

    def __getitem__(self, which: Any) -> EventTable:
        """Some rows, by boolean mask, indices or slice."""
        if isinstance(which, (int, np.integer)):
            which = [int(which)]
        w = which if isinstance(which, slice) else np.asarray(which)
        out = EventTable.__new__(EventTable)
        out._frame = self._frame[w].reset_index(drop=True) if not isinstance(w, slice) and w.dtype == bool else self._frame.iloc[w].reset_index(drop=True)
        out.attrs = dict(self.attrs)
        return out

    def assign(self, **columns: Any) -> EventTable:
        """A copy with columns added or replaced."""
        f = self._frame
        return EventTable(attrs=self.attrs, **({str(c): f[c].to_numpy() for c in f.columns} | columns))

    def sorted(self) -> EventTable:
        """Ordered by start, then stop; ties keep their order."""
        f = self._frame
        return self[np.lexsort((f["stop"].to_numpy(), f["start"].to_numpy()))]

    def within(self, spans: Intervals) -> EventTable:
        """Events that lie wholly inside `spans`; a point event lies inside where its start does."""
        start, stop = self.start, self.stop
        point = stop == start
        inside = np.zeros(len(self), dtype=bool)
        if len(self):
            inside = np.where(point, spans.contains(start), spans.covers(start, np.where(point, start + 1e-9, stop)))
        return self[inside]

    def intervals(self) -> Intervals:
        """The united spans of all events (point events leave nothing)."""
        b = np.c_[self.start, self.stop]
        return Intervals.merge(b[b[:, 1] > b[:, 0]])

    def merge(self, gap: float = 0.0) -> EventTable:
        """Unite events that overlap or lie within `gap` s; each takes its other columns from the member of highest `score` (else the first)."""
        if len(self) == 0:
            return self[:]
        e = self.sorted()
        f = e._frame
        reach = np.maximum.accumulate(f["stop"].to_numpy())
        group = np.cumsum(np.r_[True, f["start"].to_numpy()[1:] > reach[:-1] + gap])
        score = f["score"].to_numpy(dtype=float) if "score" in f else np.zeros(len(f))
        order = np.lexsort((np.arange(len(f)), -np.nan_to_num(score, nan=-np.inf), group))
        best = order[np.r_[True, np.diff(group[order]) != 0]]
        out = e[best]
        first = np.flatnonzero(np.diff(group, prepend=-1))
        out._frame["start"] = f["start"].to_numpy()[first]
        out._frame["stop"] = np.maximum.reduceat(f["stop"].to_numpy(), first)
        return out

    def match(self, other: EventTable, iou: float = 0.2) -> NDArray[np.intp]:
        """One-to-one matches (m, 2) of row indices in self and `other`; see :func:`match_events`."""
        return match_events(np.c_[self.start, self.stop], np.c_[other.start, other.stop], iou)

    @staticmethod
    def concat(tables: list[EventTable]) -> EventTable:
        """Rows of all tables, NaN where a table lacks a column; attrs of the first."""
        if not tables:
            return EventTable([], [])
        frames = [t._frame for t in tables if len(t)]
        if not frames:
            return tables[0][:]
        out = EventTable.__new__(EventTable)
        out._frame = pd.concat(frames, ignore_index=True)
        out.attrs = dict(tables[0].attrs)
        return out

    def __repr__(self) -> str:
        kinds = ", ".join(f"{n} {k}" for k, n in self._frame["kind"].value_counts().items()) if len(self) else "no events"
        extra = [c for c in self.columns if c not in ("start", "stop", "peak", "kind", "content")]
        return f"EventTable({kinds}{'; ' + ', '.join(extra) if extra else ''})"


def _column(name: str, value: Any, n: int) -> Any:
    if isinstance(value, str) or np.ndim(value) == 0:
        return [value] * n
    v = np.asarray(value)
    if v.shape[:1] != (n,) or v.ndim != 1:
        raise InputError(f"event column {name!r} has shape {v.shape}, expected ({n},): one value an event")
    return v


def match_events(a: ArrayLike, b: ArrayLike, iou: float = 0.2) -> NDArray[np.intp]:
    """Greedy one-to-one matching of events by intersection over union.

    Parameters
    ----------
    a, b : float64 (n, 2) and (m, 2), s
        Start and stop of each event.
    iou : float
        Least intersection over union of a pair.

    Returns
    -------
    int (k, 2)
        Row of `a` and row of `b` of each pair, best pairs first; each row occurs at most once.
    """
    x, y = np.asarray(a, dtype=np.float64).reshape(-1, 2), np.asarray(b, dtype=np.float64).reshape(-1, 2)
    if not len(x) or not len(y):
        return np.empty((0, 2), dtype=np.intp)
    order = np.argsort(y[:, 0], kind="stable")
    ys = y[order]
    longest = float((ys[:, 1] - ys[:, 0]).max())
    lo = np.searchsorted(ys[:, 0], x[:, 0] - longest, side="left")
    hi = np.searchsorted(ys[:, 0], x[:, 1], side="left")
    n = np.maximum(hi - lo, 0)
    i = np.repeat(np.arange(len(x)), n)
    j = np.arange(n.sum()) - np.repeat(np.cumsum(n) - n, n) + np.repeat(lo, n)
    inter = np.minimum(x[i, 1], ys[j, 1]) - np.maximum(x[i, 0], ys[j, 0])
    union = np.maximum(x[i, 1], ys[j, 1]) - np.minimum(x[i, 0], ys[j, 0])
    ratio = np.where(union > 0, inter / np.where(union > 0, union, 1), 0)
    keep = (inter > 0) & (ratio >= iou)
    i, j, ratio = i[keep], order[j[keep]], ratio[keep]
    used_a, used_b = np.zeros(len(x), bool), np.zeros(len(y), bool)
    pairs = []
    for k in np.lexsort((j, i, -ratio)):
        if not used_a[i[k]] and not used_b[j[k]]:
            used_a[i[k]] = used_b[j[k]] = True
            pairs.append((i[k], j[k]))
    return np.array(pairs, dtype=np.intp).reshape(-1, 2)
