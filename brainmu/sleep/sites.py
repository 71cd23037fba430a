"""Where sleep events are looked for: which signal, which channels, which spans, and what they are measured against."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core.hypnogram import Hypnogram
from brainmu.core.intervals import Intervals
from brainmu.core.recording import Recording
from brainmu.core.signal import Signal
from brainmu.errors import MissingDataError

__all__ = ["about", "brain_signal", "is_rodent", "mask_of", "scoring_of", "unlike_stages", "where_to_look"]

_LEAST_BASELINE = 60.0  # s


def is_rodent(recording: Recording) -> bool:
    """Whether the species is a mouse or a rat; an unknown one counts as human."""
    return recording.species.lower() in ("mouse", "rat", "mus musculus", "rattus norvegicus")


def unlike_stages(recording: Recording, stages: str) -> list[str]:
    """Sentences where a recording cannot show the stages.

    It is of another species (or names none, and EOG speaks for people), holds EMG alone, or has muscles, eyes and heart among the EEG by their names.
    """
    from brainmu.formats.edf import channel_kind

    said = []
    human = recording.species.lower() in ("human", "homo sapiens")
    if (stages == "rodent3" and human) or (stages == "aasm5" and is_rodent(recording)):
        said.append(f"the recording is of {recording.species}, and the stages {stages} are of {'rodents' if human else 'people'}")
    elif stages == "rodent3" and not recording.species and recording.signals_of("eog"):
        said.append("the recording holds EOG and names no species: if it is of people, the stages rodent3 are not theirs")
    kinds = {k for s in recording.signals.values() for k in s.channels["kind"]}
    if "emg" in kinds and not kinds & {"eeg", "lfp", "eog", "features"} and (recording.spikes is None or not len(recording.spikes)):
        said.append("the recording holds EMG alone, and muscle tone does not tell the stages of sleep apart")
    odd = [str(n) for s in recording.signals_of("eeg", "lfp").values() for n in s.names if channel_kind(str(n)) in ("eog", "emg", "ecg")]
    if odd:
        said.append(f"channels {', '.join(odd[:6])} are among the EEG or LFP, and their names say EOG, EMG or ECG: give each channel its kind")
    return said


def scoring_of(recording: Recording, given: Hypnogram | None) -> Hypnogram | None:
    """The hypnogram that was given, else the recording's "scoring", else its only one."""
    if given is not None:
        return given
    found = {k: v for k, v in recording.labels.items() if isinstance(v, Hypnogram)}
    return found.get("scoring") or (next(iter(found.values())) if len(found) == 1 else None)


def brain_signal(recording: Recording, channels: Sequence[str] | None, least: float, what: str) -> Signal:
    """The EEG or LFP signal to look in, with the channels to use."""
    found = {k: s for k, s in (recording.signals_of("eeg") or recording.signals_of("lfp")).items() if s.rate is not None and s.rate >= least}
    if not found:
        raise MissingDataError(f"{recording.id}: {what} need EEG or LFP of at least {least:.0f} Hz among {', '.join(recording.signals) or 'no signals'}")
    if channels is not None:
        wanted = [str(c) for c in channels]
        for s in found.values():
            if set(wanted) <= set(s.names):
                return s.pick(wanted)
        raise MissingDataError(f"{recording.id}: channels {', '.join(wanted)} are not together in one signal; there are "
                               f"{', '.join(n for s in found.values() for n in s.names[:20])}")  # fmt: skip
    signal = max(found.values(), key=lambda s: s.n_channels)
    region = signal.channels["region"].fillna("").astype(str).str.lower()
    outside = ~region.str.contains(r"ca[1-3]|hippo|hpc|dentate").to_numpy()
    which = np.flatnonzero(outside) if outside.any() else np.arange(signal.n_channels)
    which = which[np.unique(np.linspace(0, len(which) - 1, min(len(which), 8)).astype(int))]
    return signal.pick(which) if len(which) < signal.n_channels else signal


def where_to_look(recording: Recording, signal: Signal, within: Intervals | None, scored: Hypnogram | None) -> tuple[Intervals, Intervals, str]:
    """Where to look, what to measure against, and the name of that.

    Raises MissingDataError where the hypnogram lies outside the signal: the session would silently stand in for its NREM.
    """
    everywhere = Intervals([[signal.start, signal.stop]]) if signal.n_samples else Intervals()
    if signal.n_samples:
        refuse_other_times(recording, scored, signal.start, signal.stop)
    nrem = scored.intervals("NREM").intersect(everywhere) if scored is not None else Intervals()
    known = nrem.duration >= _LEAST_BASELINE
    spans = (within.intersect(everywhere) if within is not None else nrem if known else everywhere).subtract(signal.gaps)
    if spans.duration <= 0:
        raise MissingDataError(f"{recording.id}: no data where events were looked for: check `within` against {signal.start:.0f}-{signal.stop:.0f} s")
    return (spans, nrem.subtract(signal.gaps), "NREM") if known else (spans, everywhere.subtract(signal.gaps), "session")


def refuse_other_times(recording: Recording, scored: Hypnogram | None, start: float, stop: float) -> None:
    """Raises MissingDataError where a hypnogram lies wholly outside the data."""
    if scored is not None and len(scored) and not (scored.start < stop and start < scored.stop):
        raise MissingDataError(
            f"{recording.id}: the hypnogram has {scored.start:.0f}-{scored.stop:.0f} s and the data {start:.0f}-{stop:.0f} s, "
            "expected times in common: check the start of the hypnogram"
        )


def mask_of(spans: Intervals, start: float, rate: float, n: int) -> NDArray[np.bool_]:
    """Which of `n` samples (n,) have their middle inside the spans."""
    return spans.contains(start + (np.arange(n) + 0.5) / rate)


def about(signal: Signal, baseline: str, minutes: float, n: int) -> dict[str, Any]:
    """Attributes of a table of events: what they were measured against, where, for how long, and how many a minute."""
    return {"baseline": baseline, "channels": signal.names, "seconds": minutes * 60, "rate": n / minutes if minutes else float("nan")}
