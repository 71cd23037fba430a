"""Occlusion for any stager: what happens to the log odds when one channel's band no longer belongs to its moment.

The band is not silenced but shifted in time, around the end of the recording: its distribution over the recording stays as it
was, so scales measured on the recording stay too, and only its relation to the moment is lost.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Recording, Spikes
from brainmu.dsp.filters import bandpass
from brainmu.explain.asking import Answer, ask
from brainmu.explain.bands import BANDS, bands_below

__all__ = ["occlude"]

_FIELD = ("lfp", "eeg", "eog", "emg")


def occlude(
    stager: Any, recording: Recording, answer: Answer, columns: NDArray[np.intp], shifts: int, rng: np.random.Generator,
    report: Callable[[float], None] | None = None,
) -> dict[str, tuple[NDArray[np.float64], tuple[str, ...], str]]:  # fmt: skip
    """Fall of the log odds of the target, epoch by epoch, when a part of the recording is shifted in time.

    Returns
    -------
    dict of stream: (values, keys, modality)
        field: (epoch, channel, band); features: (epoch, channel); spikes: (epoch, 1), all units together.
    """
    jobs = _jobs(recording)
    before = answer.log_odds(columns)
    out: dict[str, tuple[NDArray[np.float64], tuple[str, ...], str]] = {}
    for name, modality, keys in dict.fromkeys((n, m, k) for n, m, k, _, _ in jobs):
        shape = (len(before), len(keys), len(BANDS)) if modality == "field" else (len(before), len(keys))
        out[name] = (np.zeros(shape), keys, modality)
    for i, (name, modality, _, channel, band) in enumerate(jobs):
        fall = np.zeros(len(before))
        for _ in range(shifts):
            by = rng.uniform(0.25, 0.75) * recording.duration
            after = ask(stager, _shifted(recording, name, modality, channel, band, by), answer.start)
            fall += (before - after.log_odds(columns)[: len(before)]) / shifts
        place = (slice(None), channel, list(BANDS).index(band)) if modality == "field" else (slice(None), channel)
        out[name][0][place] = fall
        if report is not None:
            report((i + 1) / len(jobs))
    return out


def _jobs(recording: Recording) -> list[tuple[str, str, tuple[str, ...], int, str]]:
    """(stream, modality, keys, channel, band) of everything to shift."""
    jobs = []
    for name, s in recording.signals.items():
        kinds = s.channels["kind"].tolist()
        if s.rate is None:
            continue
        if set(kinds) <= set(_FIELD):
            jobs += [(name, "field", tuple(s.names), c, band) for c in range(s.n_channels) for band in bands_below(s.rate)]
        elif set(kinds) == {"features"}:
            jobs += [(name, "features", tuple(s.names), c, "") for c in range(s.n_channels)]
    if recording.spikes is not None and len(recording.spikes):
        jobs.append(("spikes", "spikes", ("all units",), 0, ""))
    return jobs


def _shifted(recording: Recording, name: str, modality: str, channel: int, band: str, by: float) -> Recording:
    """A copy of the recording with one part moved by `by` seconds, around the end."""
    signals, spikes = dict(recording.signals), recording.spikes
    if modality == "spikes":
        assert spikes is not None
        a, b = recording.start, recording.stop
        spikes = Spikes(a + (spikes.times - a + by) % (b - a), spikes.unit_id, spikes.units)
    else:
        s = recording.signals[name]
        assert s.rate is not None
        values = s.read()
        x = values[:, channel]
        part = bandpass(x, s.rate, *bands_below(s.rate)[band]) if modality == "field" else x.copy()
        values[:, channel] = x - part + np.roll(part, round(by * s.rate))
        signals[name] = s.with_values(values)
    return Recording(
        id=recording.id, subject=recording.subject, species=recording.species, signals=signals, spikes=spikes, labels=recording.labels,
        source={"format": "edited"}, zeitgeber=recording.zeitgeber,
    )  # fmt: skip
