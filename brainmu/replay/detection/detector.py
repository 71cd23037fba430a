"""ReplayDetector: replay or ripples from the encoder's window latents, with edges between 4-ms bins, a calibrated probability, and leave to say nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import EventTable, Intervals, Recording
from brainmu.core.recording import as_list
from brainmu.errors import InputError, MissingDataError
from brainmu.replay.detection.confidence import BLOCK, Calibration, Novelty, block_features
from brainmu.replay.detection.contents import ContentReader
from brainmu.replay.detection.edges import events_in
from brainmu.replay.detection.examples import CHUNK, Labels, Shown, epochs_named, events_of, held_apart, own_columns, spectrum_of
from brainmu.replay.detection.inputs import BINS, MODALITIES, WINDOW, Sensed, Senses
from brainmu.replay.detection.traces import BIN
from brainmu.replay.events import KINDS

if TYPE_CHECKING:
    from brainmu.models import Encoder
    from brainmu.replay.detection.head import EventHead

__all__ = ["ReplayDetector"]

Progress = Callable[[str, float], None]
_EDGE = 8  # windows more on either side, so that filters and head see past the cut
_BESIDE = 2  # windows beside an event's own that are enough to judge it
_IOU = 0.2
_LEAST_EVENTS = 20


class ReplayDetector:
    """Finds replay, or whatever events it was shown, in LFP, spikes or both.

    A small head reads the window latents of a frozen encoder beside band powers of the LFP and the firing of the units every 4 ms. Probabilities are
    calibrated, and the limit of what is like the training recordings is set, on subjects that were left out in turn.

    Parameters
    ----------
    encoder : str, Path or None
        A pretrained encoder (folder or packaged name), used as it is; None reads the traces alone.
    modalities : tuple of {"lfp", "spikes"}
        What it may read. Recordings may lack either.
    probability : float
        Events below this probability are not reported.
    shortest, longest : float, s
        Of an event.
    steps : int
        Optimisation steps of a head.
    folds : int
        Groups of subjects left out in turn.
    seed : int

    Attributes
    ----------
    head_ : EventHead
    calibration_ : dict of Calibration
        For each set of modalities ("lfp", "spikes", "lfp+spikes").
    novelty_ : dict of Novelty
    content_ : dict of ContentReader
        By subject, where its labelled events had two contents or more and spikes.
    labels_ : str
        What it was shown.
    n_sessions_, n_subjects_, n_events_ : int
    notes_ : list of str
        What fitting has to say.

    Examples
    --------
    >>> ReplayDetector(encoder=None, modalities=("spikes",))
    ReplayDetector(encoder=None, modalities=('spikes',))
    """

    def __init__(
        self, encoder: str | Path | None = "brainmu-tiny", *, modalities: Sequence[str] = MODALITIES, probability: float = 0.5, shortest: float = 0.02,
        longest: float = 1.0, steps: int = 300, folds: int = 3, seed: int = 0,
    ) -> None:  # fmt: skip
        wanted = (modalities,) if isinstance(modalities, str) else tuple(modalities)
        if not wanted or set(wanted) - set(MODALITIES):
            raise InputError(f"modalities are {wanted!r}, expected some of {', '.join(MODALITIES)}")
        if not 0 <= probability <= 1:
            raise InputError(f"probability is {probability:g}, expected 0 to 1")
        if not 0 <= shortest < longest <= WINDOW * _EDGE / 2:
            raise InputError(f"shortest and longest are {shortest:g} and {longest:g} s, expected 0 <= shortest < longest <= {WINDOW * _EDGE / 2:g}")
        if steps < 1 or folds < 2:
            raise InputError(f"steps is {steps} and folds {folds}, expected at least 1 and 2")
        self.encoder, self.probability, self.shortest, self.longest = encoder, float(probability), float(shortest), float(longest)
        self.modalities = tuple(m for m in MODALITIES if m in wanted)
        self.steps, self.folds, self.seed = int(steps), int(folds), seed
        self._encoder: Encoder | None = None

    # -- scikit-learn manners ---------------------------------------------------------------------------------------------
    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments it was made with."""
        return {n: getattr(self, n) for n in ("encoder", "modalities", "probability", "shortest", "longest", "steps", "folds", "seed")}

    def __repr__(self) -> str:
        usual = ReplayDetector.__init__.__kwdefaults__ | {"encoder": "brainmu-tiny"}
        return f"ReplayDetector({', '.join(f'{k}={v!r}' for k, v in self.get_params().items() if v != usual[k])})"

    def fit(
        self, sessions: Recording | Iterable[Recording], labels: Labels = "reactivation", *, within: str | None = None, progress: Progress | None = None
    ) -> ReplayDetector:
        """Fit to recordings with known events.

        Parameters
        ----------
        sessions : Recording, Session, or many
            Of two subjects or more; of one subject, two recordings or more, with a note.
        labels : str, or EventTable(s)
            Name of a label of events in every recording; or a kind (``"ripple"``, ``"burst"``, ``"hse"``), for what the classical detector finds; or the
            events themselves, one table a recording or a mapping by recording id.
        within : str or None
            Label of the epochs (Intervals) in which the events are all marked; None is everywhere.

        Raises
        ------
        MissingDataError
            If a recording lacks the label or anything to read, or there are fewer than 20 events.
        InputError
            If there is one recording only.
        """
        recordings = as_list(sessions)
        groups, notes = held_apart(recordings)
        tables = [events_of(r, labels, k) for k, r in enumerate(recordings)]
        self.labels_ = labels if isinstance(labels, str) else "given"
        self.n_sessions_, self.n_subjects_, self.notes_ = len(recordings), len(set(groups)), notes
        shown = [
            Shown.of(self._loaded(), self.modalities, r, t, within, g, _part(progress, "read", k, len(recordings)))
            for k, (r, t, g) in enumerate(zip(recordings, tables, groups))
        ]
        self.n_events_ = sum(len(s.events) for s in shown)
        if self.n_events_ < _LEAST_EVENTS:
            raise MissingDataError(f"fit got {self.n_events_} events in {len(recordings)} recordings, expected at least {_LEAST_EVENTS}")
        self._fit_heads(shown, progress)
        self.content_ = self._fit_content(recordings, tables)
        return self

    def predict(
        self, session: Recording, within: Intervals | None = None, *, probability: float | None = None, false_rate: float | None = None,
        progress: Progress | None = None,
    ) -> EventTable:  # fmt: skip
        """Events of a recording.

        Parameters
        ----------
        session : Recording or Session
        within : Intervals or None
            Where to look; None looks everywhere.
        probability : float or None
            Least probability; None takes the detector's.
        false_rate : float or None
            Instead: events a minute that were false in held-out subjects.

        Returns
        -------
        EventTable
            start, stop, peak (s), kind "replay" (or what it was shown), content with content_probability ("" where not told), score (calibrated log
            odds), probability, modalities (what was there to read). attrs: modalities, absent (what could not be used, and why), abstained (seconds by
            reason), abstained_spans (the same as spans, s), seconds (looked at), rate, held_out (what calibration rests on), content.
            Where it has nothing to read, or the input is unlike what it was fitted on, there are no events and the reason stands in `abstained`.
        """
        if not isinstance(session, Recording):
            raise InputError(f"predict takes one recording, got a {type(session).__name__}: call it for each")
        if probability is not None and false_rate is not None:
            raise InputError("probability and false_rate both given, expected one: the false rate sets the least probability")
        for name, value, most in (("probability", probability, 1.0), ("false_rate", false_rate, np.inf)):
            if value is not None and not (0 <= value <= most and np.isfinite(value)):
                raise InputError(f"{name} is {value:g}, expected a number from 0 on" + (" to 1" if most == 1 else ""))
        self._fitted()
        senses = Senses.of(session, self._loaded(), self.modalities)
        rows, keys, silent = self._look(senses, progress)
        least = {k: c.threshold(false_rate) if false_rate is not None else self.probability if probability is None else probability
                 for k, c in self.calibration_.items()}  # fmt: skip
        keep = np.array([p >= least[k] for p, k in zip(rows[:, 4], keys)], dtype=bool)
        rows, keys = rows[keep], keys[keep]
        where = senses.span if within is None else senses.span.intersect(within)
        silent = {k: v.intersect(where) for k, v in silent.items()}
        looked = where
        for spans in silent.values():
            looked = looked.subtract(spans) if len(looked) and len(spans) else looked
        events = EventTable(rows[:, 0], rows[:, 1], rows[:, 2], kind=self.kind, score=rows[:, 3].astype(np.float32), probability=rows[:, 4].astype(np.float32),
                            modalities=keys)  # fmt: skip
        events = events.within(looked) if len(events) else events
        events = self._with_content(session, events)
        silent = {k: v for k, v in silent.items() if v.duration > 0}
        warnings = [f"{session.id}: the detector says nothing about {v.duration:.1f} s: {k}" for k, v in silent.items()]
        held = {k: {"calibration_error": c.error, "minutes": c.minutes, "n_events": c.n_events, "least_probability": least[k]}
                for k, c in self.calibration_.items()}  # fmt: skip
        events.attrs |= {
            "method": "ReplayDetector", "labels": self.labels_, "modalities": list(senses.present), "absent": senses.absent, "false_rate": false_rate,
            "abstained": {k: v.duration for k, v in silent.items()}, "abstained_spans": {k: v.bounds.tolist() for k, v in silent.items()},
            "seconds": looked.duration, "rate": len(events) / looked.duration * 60 if looked.duration else 0.0, "held_out": held,
            "encoder": str(self.encoder), "warnings": warnings,
        }  # fmt: skip
        return events

    def score(self, sessions: Recording | Iterable[Recording], labels: Labels = "reactivation", *, within: str | None = None) -> float:
        """Average precision of the events (one-to-one at an intersection over union of 0.2), the mean over recordings that hold any."""
        out = []
        for k, r in enumerate(as_list(sessions)):
            spans = epochs_named(r, within)
            truth = events_of(r, labels, k)
            truth = truth if spans is None else truth.within(spans)
            if len(truth):
                out.append(average_precision(self.predict(r, spans, probability=0.0), truth))
        if not out:
            raise MissingDataError("score: no recording holds any labelled event, expected some")
        return float(np.mean(out))

    def log_odds(self, session: Recording, events: EventTable, content: str | None = None) -> NDArray[np.float64]:
        """What the detector makes of events at known times.

        Parameters
        ----------
        session : Recording or Session
        events : EventTable
        content : str or None
            None: log odds of an event, by the head, before calibration. Else of this content against the others the animal's events had.

        Returns
        -------
        float64 (event,)
            The mean over the event's 4-ms bins; NaN where the recording holds nothing to read, or no spike of a known unit.

        Raises
        ------
        InputError
            If the content was not shown for this animal.
        """
        self._fitted()
        if content is not None:
            return self._content_odds(session, events, content)
        senses = Senses.of(session, self._loaded(), self.modalities)
        use, _ = self._used(senses)
        out = np.full(len(events), np.nan)
        at = np.floor((events.peak - senses.start) / WINDOW).astype(np.int64)
        for k in np.unique(at[(at >= 0) & (at < senses.n_windows)]) if use else ():
            lo, hi = max(k - _BESIDE, 0), min(k + _BESIDE + 1, senses.n_windows)
            sensed = senses.read(lo, hi, use)
            odds = np.where(sensed.known.any(0), self.head_.log_odds(sensed), np.nan)
            for i in np.flatnonzero(at == k):
                a, b = (round((t - senses.start - lo * WINDOW) / BIN) for t in (events.start[i], events.stop[i]))
                part = odds[max(a, 0) : max(b, a + 1)]
                out[i] = np.nanmean(part) if np.isfinite(part).any() else np.nan
        return out

    @property
    def kind(self) -> str:
        """Of the events it reports: that of the classical detector it imitates, else replay."""
        self._fitted()
        return self.labels_ if self.labels_ in KINDS else "replay"

    # -- fitting ----------------------------------------------------------------------------------------------------------
    def _fit_heads(self, shown: list[Shown], progress: Progress | None) -> None:
        """A head on all subjects; before it one without each group of them, for what the rest needs to know of unseen subjects."""
        from brainmu.replay.detection.head import trained

        groups = sorted({s.group for s in shown})
        parts = [set(groups[k :: min(self.folds, len(groups))]) for k in range(min(self.folds, len(groups)))]
        found: dict[str, list[tuple[NDArray[np.float64], NDArray[np.bool_], float, int]]] = {}
        for k, part in enumerate(parts):
            step = _part(progress, "fit", k, len(parts) + 1)
            head = trained([s.example for s in shown if s.group not in part], steps=self.steps, seed=self.seed, progress=step)
            for s in shown:
                for key, sensed in zip(s.keys, s.example.sensed):
                    if s.group in part:
                        found.setdefault(key, []).append(self._held_out(head, s, sensed))
        self.calibration_ = {}
        for key, rows in found.items():
            features, true = np.concatenate([r[0] for r in rows]), np.concatenate([r[1] for r in rows])
            made = Calibration.fit(features, true, sum(r[2] for r in rows), sum(r[3] for r in rows))
            if made is None:
                self.notes_.append(f"{key}: {int(true.sum())} of {len(true)} candidates in held-out subjects are events, too few to calibrate; not used")
            else:
                self.calibration_[key] = made
        if not self.calibration_:
            raise MissingDataError(f"fit found too few events in held-out subjects ({'; '.join(self.notes_)}): give more recordings or more steps")
        self.novelty_ = {}
        for key in self.calibration_:
            blocks = [[s.blocks[key] for s in shown if s.group in part and key in s.blocks] for part in parts]
            self.novelty_[key] = Novelty.fit([np.concatenate(b) for b in blocks if b])
        self.head_: EventHead = trained(
            [s.example for s in shown], steps=self.steps, seed=self.seed, progress=_part(progress, "fit", len(parts), len(parts) + 1)
        )

    def _held_out(self, head: EventHead, s: Shown, sensed: Sensed) -> tuple[NDArray[np.float64], NDArray[np.bool_], float, int]:
        """Features of the candidates of a recording, which of them are events, minutes and number of events."""
        rows = events_in(head.log_odds(sensed), s.start, shortest=self.shortest, longest=self.longest)
        at = np.clip(((rows[:, 2] - s.start) / BIN).astype(int), 0, len(s.example.counts) - 1)
        rows = rows[s.example.counts[at] & sensed.known[:, at].any(0)]
        found = EventTable(rows[:, 0], rows[:, 1])
        true = np.zeros(len(rows), dtype=bool)
        true[found.match(s.events, _IOU)[:, 0]] = True
        return rows[:, 3:], true, float(s.example.counts.sum()) * BIN / 60, len(s.events)

    def _fit_content(self, recordings: list[Recording], tables: list[EventTable]) -> dict[str, ContentReader]:
        out: dict[str, ContentReader] = {}
        for who in sorted({r.subject or r.id for r in recordings}):
            reader = ContentReader.fit([(r, t) for r, t in zip(recordings, tables) if (r.subject or r.id) == who])
            if reader is not None:
                out[who] = reader
        return out

    # -- looking ----------------------------------------------------------------------------------------------------------
    def _look(self, senses: Senses, progress: Progress | None) -> tuple[NDArray[np.float64], NDArray[Any], dict[str, Intervals]]:
        """Events (n, 5) with start, stop, peak, log odds and probability, the modalities behind each, and where nothing is said, by reason."""
        use, reason = self._used(senses)
        if not use:
            return np.empty((0, 5)), np.empty(0, dtype=object), {reason: senses.span}
        rows, keys, silent = [], [], {}
        for first in range(0, senses.n_windows, CHUNK):
            last = min(first + CHUNK, senses.n_windows)
            lo, hi = max(first - _EDGE, 0), min(last + _EDGE, senses.n_windows)
            sensed = senses.read(lo, hi, use)
            begin = senses.start + lo * WINDOW
            inner = slice((first - lo) * BINS, (last - lo) * BINS)
            found = events_in(self.head_.log_odds(sensed), begin, shortest=self.shortest, longest=self.longest)
            at = np.clip(((found[:, 2] - begin) / BIN).astype(int), 0, len(sensed.traces) - 1)
            mine = (at >= inner.start) & (at < inner.stop)
            for row, k in zip(found[mine], at[mine]):
                key = "+".join(m for m, there in zip(MODALITIES, sensed.known[:, k]) if there)
                if key in self.calibration_:
                    odds = self.calibration_[key].log_odds(row[None, 3:])[0]
                    rows.append((*row[:3], odds, 1 / (1 + np.exp(-odds))))
                    keys.append(key)
            for reason, mask in self._silence(senses, _cut(sensed, inner)).items():
                silent.setdefault(reason, []).append(Intervals.from_mask(mask, 1 / BIN, senses.start + first * WINDOW).bounds)
            if progress is not None:
                progress("detect", last / senses.n_windows)
        spans = {k: Intervals.merge(np.concatenate(v), gap=BIN / 2) for k, v in silent.items()}
        return np.array(rows, dtype=np.float64).reshape(-1, 5), np.array(keys, dtype=object), spans

    def _used(self, senses: Senses) -> tuple[tuple[str, ...], str]:
        """Modalities that are read, the most that it was fitted on and that are here; none, and why."""
        able = [tuple(k.split("+")) for k in self.calibration_ if set(k.split("+")) <= set(senses.present)]
        if able:
            return max(able, key=len), ""
        why = "; ".join(f"{m}: {w}" for m, w in senses.absent.items() if m in self.modalities)
        if not senses.present:
            return (), f"nothing to read ({why})"
        return (), f"fitted on {', '.join(self.calibration_)}, the recording has {'+'.join(senses.present)} alone ({why})"

    def _silence(self, senses: Senses, sensed: Sensed) -> dict[str, NDArray[np.bool_]]:
        """Bins about which nothing is said, by reason; each bin has one."""
        n = len(sensed.traces)
        key = np.array(["", "lfp", "spikes", "lfp+spikes"], dtype=object)[sensed.known[0] + 2 * sensed.known[1]]
        out = {"neither LFP nor spikes there": key == ""}
        for k in ("lfp", "spikes", "lfp+spikes"):
            if k not in self.calibration_ and (key == k).any():
                out[f"fitted on {', '.join(self.calibration_)}, here is {k} alone"] = key == k
        unlike = np.zeros(n, dtype=bool)
        features = block_features(sensed, spectrum_of(senses))
        for b in range(len(features)):
            part = slice(b * BLOCK, (b + 1) * BLOCK)
            there = key[part][0]
            # A block that holds two sets of modalities is neither like the one nor like the other, and is let pass.
            if there in self.novelty_ and (key[part] == there).all():
                novelty = self.novelty_[there]
                unlike[part] = novelty.distance(own_columns(features[b : b + 1], there))[0] > novelty.level
        out["unlike the recordings it was fitted on"] = unlike
        return {k: v for k, v in out.items() if v.any()}

    def _with_content(self, session: Recording, events: EventTable) -> EventTable:
        who = session.subject or session.id
        if who in self.content_:
            content, p, how = self.content_[who].read(session, events)
        else:
            shown = ", ".join(self.content_) or "no animal"
            content, p, how = "", np.full(len(events), np.nan, dtype=np.float32), f"not told: contents were shown for {shown}, not for {who}"
        out = events.assign(content=content, content_probability=p)
        out.attrs["content"] = how
        return out

    def _content_odds(self, session: Recording, events: EventTable, content: str) -> NDArray[np.float64]:
        who = session.subject or session.id
        reader = self.content_.get(who)
        if reader is None or content not in reader.rates.classes:
            shown = f"of {who}: {', '.join(reader.rates.classes)}" if reader is not None else f"of {', '.join(self.content_) or 'no animal'}, not of {who}"
            raise InputError(f"content {content!r} was not shown to the detector; it knows those {shown}")
        if session.spikes is None:
            return np.full(len(events), np.nan)
        scores, heard = reader.scores(session, events)
        mine = np.array([c == content for c in reader.rates.classes])
        others = np.logaddexp.reduce(scores[:, ~mine], axis=1)
        return np.where(heard, scores[:, mine][:, 0] - others, np.nan)

    # -- parts ------------------------------------------------------------------------------------------------------------
    def _fitted(self) -> None:
        if not hasattr(self, "head_"):
            raise InputError("the detector is not fitted: call fit(sessions, labels=...) first, or load one that was saved")

    def _loaded(self) -> Encoder | None:
        """The frozen encoder, read once."""
        if self.encoder is not None and self._encoder is None:
            from brainmu.models import load_encoder

            self._encoder = load_encoder(self.encoder)
        return self._encoder

    # -- storing ----------------------------------------------------------------------------------------------------------
    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the detector as a folder: config.yaml, weights and arrays (no pickles), the encoder with it. Written whole or not at all.

        Raises
        ------
        OutputExistsError
            If the folder exists and `overwrite` is not given, or it is something else.
        """
        from brainmu.replay.detection.files import save

        self._fitted()
        return save(self, Path(folder), overwrite)

    @classmethod
    def load(cls, folder: str | Path) -> ReplayDetector:
        """A detector from the folder that :meth:`save` wrote.

        Raises
        ------
        NotFoundError
            If there is no such folder.
        CheckpointError
            If it is no detector, of a later format, or damaged.
        """
        from brainmu.replay.detection.files import load

        return load(Path(folder))


def average_precision(found: EventTable, truth: EventTable) -> float:
    """Area under precision against recall of events (with ``probability``), matched one to one."""
    hit = np.zeros(len(found), dtype=bool)
    hit[found.match(truth, _IOU)[:, 0]] = True
    hit = hit[np.argsort(-found.probability, kind="stable")] if len(found) else hit
    return float((np.cumsum(hit) / np.arange(1, len(hit) + 1) * hit).sum() / len(truth))


def _cut(s: Sensed, part: slice) -> Sensed:
    return Sensed(s.traces[part], s.known[:, part], s.latents[:0])


def _part(progress: Progress | None, what: str, k: int, n: int) -> Callable[[float], None]:
    """Progress of part k of n."""
    return lambda done: progress(what, (k + done) / n) if progress is not None else None
