"""A recording as MNE's Raw."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Hypnogram, Intervals, Recording, Signal
from brainmu.core.units import unit_factor
from brainmu.errors import InputError, MissingDataError
from brainmu.store.export.choosing import choose, samples

__all__ = ["to_mne"]

VOLTAGE_KINDS = ("lfp", "eeg", "emg", "eog", "ecg")
_MNE_TYPES = {"lfp": "seeg", "eeg": "eeg", "emg": "emg", "eog": "eog", "ecg": "ecg"}


def to_mne(recording: Recording, *, kinds: Sequence[str] | None = None, signals: Iterable[str] | None = None) -> Any:
    """Signals of one rate as an ``mne.io.RawArray`` in V, with channel types, annotations and the measurement date.

    Sample 0 is the earliest sample chosen; ``raw.info["meas_date"]`` is its wall-clock time where the recording's start is known, and
    ``raw.info["description"]`` its session time. LFP is of MNE's type ``seeg``; channels that are not voltages are ``misc`` and unscaled.
    Hypnogram bouts become annotations ``<label>/<stage>``, events ``<label>/<kind>/<content>``, intervals ``<label>``. Missing samples are NaN
    under ``BAD_ACQ_SKIP``, which MNE's filters step over.

    Parameters
    ----------
    kinds : kinds of channel or None
        Which channels: lfp, eeg, emg, eog and ecg unless told otherwise, or everything in `signals` where those are named.
    signals : names or None
        Which signals.

    Raises
    ------
    InputError
        If the signals chosen have several rates (MNE holds one): choose with `signals` and make a Raw each.
    MissingDataError
        If nothing fits the choice.
    """
    import mne

    if isinstance(signals, str):
        signals = [signals]
    wanted = tuple(kinds) if kinds is not None else None if signals is not None else VOLTAGE_KINDS
    chosen = {}
    for name, s in choose(recording, signals).items():
        which = np.ones(s.n_channels, bool) if wanted is None else s.channels["kind"].isin(wanted).to_numpy()
        if which.any() and s.n_samples:
            chosen[name] = s if which.all() else s.pick(which)
    rate = _one_rate(recording, chosen, wanted)
    start = min(s.start for s in chosen.values())
    first = {name: _offset(recording, name, s, start, rate) for name, s in chosen.items()}
    n = max(first[name] + s.n_samples for name, s in chosen.items())
    names, rows = _mne_channels(chosen), []
    types: Any = []  # annotated as text in MNE, which takes a list
    values = np.full((len(names), n), np.nan)
    for name, s in chosen.items():
        at = len(rows)
        rows += s.names
        factors = _volts(recording, name, s)
        types += [_MNE_TYPES.get(k, "misc") for k in s.channels["kind"]]
        for i in range(0, s.n_samples, 1 << 20):
            j = min(i + (1 << 20), s.n_samples)
            values[at : len(rows), first[name] + i : first[name] + j] = (samples(s, i, j) * factors).T
    info = mne.create_info(names, rate, types)
    info["description"] = f"{recording.id}: sample 0 is session time {start:.9g} s"
    if recording.subject:
        info["subject_info"] = {"his_id": recording.subject}
    if recording.started_at is not None:
        info.set_meas_date((recording.started_at + timedelta(seconds=start)).astimezone(UTC))
    raw = mne.io.RawArray(values, info, copy="auto", verbose="error")
    raw.set_annotations(_annotations(mne, recording, values, rate, start, info["meas_date"]), verbose="error")
    return raw


def _one_rate(recording: Recording, chosen: dict[str, Signal], wanted: tuple[str, ...] | None) -> float:
    if not chosen:
        have = ", ".join(f"{k} ({'/'.join(dict.fromkeys(s.channels['kind']))})" for k, s in recording.signals.items()) or "no signals"
        raise MissingDataError(f"{recording.id}: no samples of kind {', '.join(wanted or ('any',))}; the recording has {have}: pass kinds= or signals=")
    irregular = [k for k, s in chosen.items() if s.rate is None]
    if irregular:
        raise InputError(f"{recording.id}: signal {irregular[0]!r} is sampled irregularly, and MNE holds even sampling only: choose others with signals=")
    rates = {k: s.rate for k, s in chosen.items()}
    if len(set(rates.values())) > 1:
        text = ", ".join(f"{k} {v:g} Hz" for k, v in rates.items())
        raise InputError(f"{recording.id}: signals have several rates ({text}), and an MNE Raw holds one: make one each, to_mne(signals={next(iter(rates))!r})")
    return float(next(iter(rates.values())))  # type: ignore[arg-type]


def _offset(recording: Recording, name: str, s: Signal, start: float, rate: float) -> int:
    place = (s.start - start) * rate
    if abs(place - round(place)) > 0.01:
        recording.warn(f"{name}: begins between two samples of the MNE grid and was moved by {(round(place) - place) / rate * 1e6:+.1f} µs")
    return round(place)


def _mne_channels(chosen: dict[str, Signal]) -> list[str]:
    plain = [c for s in chosen.values() for c in s.names]
    return plain if len(set(plain)) == len(plain) else [f"{name}:{c}" for name, s in chosen.items() for c in s.names]


def _volts(recording: Recording, name: str, s: Signal) -> NDArray[np.float64]:
    """Factor a channel to V; 1 for what is no voltage."""
    factor, unit = unit_factor(s.unit, kind=s.kind)
    voltage = s.channels["kind"].isin(VOLTAGE_KINDS).to_numpy()
    if voltage.any() and unit != "uV":
        recording.warn(f"{name}: is in {s.unit or 'an unknown unit'}, not volts: its numbers went into MNE unscaled")
        return np.ones(s.n_channels)
    return np.where(voltage, factor * 1e-6, 1.0)


def _annotations(mne: Any, recording: Recording, values: NDArray[np.float64], rate: float, start: float, meas_date: Any) -> Any:
    missing = Intervals.from_mask(np.isnan(values).any(axis=0), rate, start)
    rows: list[tuple[float, float, str]] = [(a, b, "BAD_ACQ_SKIP") for a, b in missing]
    for name, label in recording.labels.items():
        if isinstance(label, Hypnogram):
            b = label.bouts()
            rows += [(t, t + d, f"{name}/{stage}") for t, d, stage in zip(b["start"].astype(float), b["duration"].astype(float), b["stage"])]
        elif isinstance(label, Intervals):
            rows += [(a, b, name) for a, b in label]
        else:
            for a, b, kind, content in zip(label.start, label.stop, label.kind, label.content):
                words = [name, "" if str(kind) in (name, "event") else str(kind), str(content)]
                rows.append((float(a), float(b), "/".join(w for w in words if w)))
    # Outside the samples MNE would drop or cut them with a warning.
    stop = start + values.shape[1] / rate
    inside = sorted((max(a, start), min(b, stop), d) for a, b, d in rows if b >= start and a < stop)
    if len(inside) < len(rows):
        recording.warn(f"{len(rows) - len(inside)} of {len(rows)} annotations lie outside the samples and did not go into MNE")
    onset, end = np.array([r[0] for r in inside]), np.array([r[1] for r in inside])
    return mne.Annotations(onset - start, end - onset, [r[2] for r in inside], orig_time=meas_date)
