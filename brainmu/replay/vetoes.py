"""Where events are not looked for: while the animal moves, in artefacts that were marked, and under muscle activity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from brainmu.core import EventTable, Intervals, Recording, Signal
from brainmu.dsp.filters import bandpass, fill_missing, overlapping_blocks
from brainmu.errors import InputError, MissingDataError
from brainmu.replay.position import moving, position_of, speed_threshold

__all__ = ["artefact_spans", "emg_spans", "movement_spans"]

_NAMES = ("artefact", "artefacts", "artifact", "artifacts", "bad")
_PAD = 0.05
_BLOCK_SECONDS = 600.0
_EMG_STEP = 0.01
_EMG_SIGMA = 0.05


def movement_spans(session: Recording, movement: bool) -> tuple[Intervals, str]:
    """When the animal moved, unless `movement` says to keep that, and a sentence."""
    if movement:
        return Intervals(), "kept"
    if not session.signals_of("position"):
        return Intervals(), "unknown (no position)"
    position = position_of(session)
    limit = speed_threshold(position)
    fast = moving(position, limit, shortest=0.1)
    return fast, f"left out above {limit:g} {position.unit or 'units'}/s"


def artefact_spans(session: Recording, given: Intervals | EventTable | str | Sequence[str] | None) -> tuple[Intervals, str]:
    """Marked artefacts, 50 ms wider on either side, and where they come from.

    None takes the labels artefact(s), artifact(s) and bad that the recording has; an empty sequence takes none.

    Raises
    ------
    MissingDataError
        If a label that was named is absent.
    """
    if isinstance(given, (Intervals, EventTable)):
        spans, how = given if isinstance(given, Intervals) else given.intervals(), "given"
    else:
        marked = [n for n in _NAMES if isinstance(session.labels.get(n), (Intervals, EventTable))]
        names = marked if given is None else [given] if isinstance(given, str) else list(given)
        parts = []
        for n in names:
            label = session.labels.get(n)
            if not isinstance(label, (Intervals, EventTable)):
                have = ", ".join(session.labels) or "none"
                raise MissingDataError(f"{session.id}: artefacts {n!r} are not a label of epochs or events, the recording has {have}")
            parts.append(label if isinstance(label, Intervals) else label.intervals())
        spans = Intervals.merge(np.concatenate([p.bounds for p in parts])) if parts else Intervals()
        how = ", ".join(names) or "none marked"
    return (spans.pad(_PAD, _PAD) if len(spans) else spans), how


def emg_spans(session: Recording, threshold: float | None, baseline: Intervals) -> tuple[Intervals, str]:
    """When the EMG lies more than `threshold` robust SDs above its level in `baseline`, 50 ms wider on either side, and a sentence.

    The level is the logarithm of the root mean square above 20 Hz under a Gaussian of SD 50 ms; several channels are averaged.

    Raises
    ------
    MissingDataError
        If there is no EMG, or none in the baseline.
    """
    if threshold is None:
        return Intervals(), "not asked for" if session.signals_of("emg") else "none"
    if not 0 < threshold < np.inf:
        raise InputError(f"events: emg is {threshold:g} SD, expected a positive number")
    found = session.signals_of("emg")
    if not found:
        raise MissingDataError(f"{session.id}: no EMG among {', '.join(session.signals) or 'no signals'}: leave emg out, or add the signal")
    signal = max(found.values(), key=lambda s: s.rate or 0)
    t, level = _emg_level(signal)
    inside = baseline.contains(t) & np.isfinite(level)
    step = float(t[1] - t[0]) if len(t) > 1 else _EMG_STEP
    if inside.sum() * step < 10:
        raise MissingDataError(f"{session.id}: {inside.sum() * step:.1f} s of EMG lie in the baseline, expected at least 10 s")
    centre = float(np.median(level[inside]))
    spread = 1.4826 * float(np.median(np.abs(level[inside] - centre)))
    if not spread > 0:
        raise MissingDataError(f"{session.id}: the EMG is flat throughout the baseline, expected one that varies")
    high = np.nan_to_num(level, nan=centre) > centre + threshold * spread
    spans = Intervals.from_mask(high, 1 / step, float(t[0]) - step / 2)
    return (spans.pad(_PAD, _PAD) if len(spans) else spans), f"left out above {threshold:g} SD of the baseline"


def _emg_level(signal: Signal) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Times and log root mean square (time,) of the EMG every 10 ms, read in blocks."""
    rate: Any = signal.rate
    if rate is None or rate < 100:
        raise InputError(f"events: the EMG is sampled {'irregularly' if rate is None else f'at {rate:g} Hz'}, expected a fixed rate of 100 Hz or more")
    step = max(int(round(_EMG_STEP * rate)), 1)
    pad = int(rate)
    out = []
    for i, j, lo, hi in overlapping_blocks(signal.n_samples, int(_BLOCK_SECONDS * rate) // step * step, pad):
        x, missing = fill_missing(signal.read(lo, hi))
        power = (bandpass(x - x.mean(0), rate, 20.0, 0.45 * rate) ** 2).mean(1)
        power = gaussian_filter1d(power, _EMG_SIGMA * rate, mode="nearest")
        power[missing.all(1)] = np.nan
        out.append(np.log(np.maximum(power[i - lo : j - lo : step], 1e-20)) / 2)
    level = np.concatenate(out).astype(np.float64) if out else np.empty(0)
    return signal.start + np.arange(len(level)) * step / rate, level
