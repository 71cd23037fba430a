"""How slow waves, spindles and ripples sit in each other: the phase at which events come, and how often all three are nested."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core.events import EventTable
from brainmu.core.intervals import Intervals
from brainmu.core.recording import Recording
from brainmu.core.signal import Signal
from brainmu.dsp.filters import bandpass, overlapping_blocks
from brainmu.errors import InputError, MissingDataError
from brainmu.sleep.circular import PHASE_COLUMNS, along, locking
from brainmu.sleep.frames import decimated
from brainmu.sleep.sites import brain_signal

__all__ = ["event_phases", "nesting", "phase_coupling"]

Float = NDArray[np.float64]
_BLOCK, _PAD = 600.0, 30.0  # s of signal at a time, and what filters need on either side


def event_phases(recording: Recording, events: EventTable, waves: EventTable, *, reach: float = 0.5) -> pd.DataFrame:
    """The phase of each event in the slow wave (or spindle) that it falls into.

    Parameters
    ----------
    recording : Recording or Session
        The one that `waves` were found in: the phase is read from the channels, the band and the polarity in ``waves.attrs``.
    events : EventTable
        Spindles in slow waves, ripples in slow waves, ripples in spindles; their peaks count.
    waves : EventTable
        From ``find_events(kind="slow_wave")`` or ``"spindle"``.
    reach : float, s
        How far outside a wave an event still belongs to it.

    Returns
    -------
    DataFrame
        One row an event in a wave: time_s, event (row of `events`), wave (row of `waves`), lag_s (from the wave's peak, a slow wave's trough),
        phase_deg: 0 at the crest of the up state (of a spindle's cycle), ±180 at the trough of the down state, negative on the way up from it.

    Raises
    ------
    MissingDataError
        If `waves` do not say where they were found, or their channels are not in the recording.

    References
    ----------
    Mölle et al. 2002, J. Neurosci. 22:10941; Staresina et al. 2015, Nat. Neurosci. 18:1679.
    """
    phase_at, _ = _phase_of(recording, waves, reach)
    times = np.asarray(events.peak, dtype=np.float64)
    phase = phase_at(times) if len(times) else np.empty(0)
    inside = np.flatnonzero(np.isfinite(phase))
    wave = _nearest(np.asarray(waves.peak, dtype=np.float64), times[inside])
    lag = times[inside] - np.asarray(waves.peak)[wave]
    return pd.DataFrame({"time_s": times[inside], "event": inside, "wave": wave, "lag_s": lag, "phase_deg": phase[inside]})


def phase_coupling(
    recording: Recording, events: EventTable, waves: EventTable, within: Intervals | None = None, *, reach: float = 0.5, draws: int = 500, seed: int = 0
) -> pd.DataFrame:
    """Whether events keep to a phase of the slow waves (or spindles) that they fall into.

    Parameters
    ----------
    recording, events, waves, reach
        As in :func:`event_phases`.
    within : Intervals or None
        Where both could occur (NREM, say); the control shifts events along it. None is from the first to the last wave.
    draws : int
        Shifts of all events together, which keeps their number and rhythm.
    seed : int

    Returns
    -------
    DataFrame
        One row: n (events in waves), n_events (in `within`), mean_phase_deg (0 is the crest of the up state), resultant (1: all at one phase), rayleigh_p
        (events taken as independent), surrogate_resultant (mean over shifts), p_value (of the pairwise phase consistency, by shifts).

    Raises
    ------
    MissingDataError
        If no event falls into a wave.

    Examples
    --------
    >>> import brainmu as bm
    >>> recording, truth = bm.synth.recording(hours=1.5, seed=2, species="human", n_channels=1, spindle_coupling=0.9)
    >>> nrem = truth.hypnogram.intervals("NREM")
    >>> waves = bm.find_events(recording, kind="slow_wave", hypnogram=truth.hypnogram)
    >>> row = bm.sleep.phase_coupling(recording, truth.spindles, waves, nrem, draws=50).iloc[0]
    >>> bool(abs(row["mean_phase_deg"]) < 45), bool(row["p_value"] < 0.05)
    (True, True)
    """
    phase_at, spans = _phase_of(recording, waves, reach)
    if within is None:
        within = Intervals([[float(spans.start[0]), float(spans.stop[-1])]])
    # A hypnogram may be longer than the signals; shifted there, an event could meet no wave.
    within = within.intersect(Intervals([[recording.start, recording.stop]]))
    times = np.asarray(events.peak, dtype=np.float64)
    row = locking(phase_at, times, within, draws=draws, seed=seed)
    row["n_events"] = int(within.contains(times).sum())
    return row[["n", "n_events", *PHASE_COLUMNS[1:]]]


def nesting(
    slow_waves: EventTable, spindles: EventTable, ripples: EventTable, within: Intervals, *, window: tuple[float, float] = (-0.2, 1.5), draws: int = 500,
    seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """How often a slow wave holds a spindle, a spindle a ripple, and a slow wave a spindle with a ripple in it.

    Parameters
    ----------
    slow_waves, spindles, ripples : EventTable
        A spindle belongs to a slow wave if its peak lies in `window` from the trough; a ripple to a spindle if its peak lies between start and stop.
    within : Intervals
        Where all three could occur (NREM, say); events elsewhere are left out. Only where there are data: a warning says if much of it looks bare.
    window : (float, float), s
        From the trough of the down state.
    draws : int
        Circular shifts along the joined spans, of one kind of event together.
    seed : int

    Returns
    -------
    DataFrame
        One row a question: ``nesting`` (spindle in slow wave, ripple in slow wave, ripple in spindle, triple), ``shifted`` (the events that the control moves),
        n_outer, n_inner, count (outer events that hold an inner one; for the triple, slow waves that hold a spindle that holds a ripple), share_pct (of outer
        events), expected (mean count under shifts), ratio, p_value (one-sided, at least 1 / (draws + 1)). The triple stands twice: with ripples shifted, which
        asks whether ripples seek the spindles of slow waves beyond their number, and with spindles and ripples shifted each on its own.

    Raises
    ------
    InputError, MissingDataError
        If the window is empty, or one of the three has no event in `within`.

    References
    ----------
    Staresina et al. 2015, Nat. Neurosci. 18:1679; Latchoumane et al. 2017, Neuron 95:424.
    """
    if not window[0] < window[1]:
        raise InputError(f"nesting window is {window[0]:g} to {window[1]:g} s, expected start before stop")
    if draws < 1:
        raise InputError(f"nesting was asked for {draws} shifts, expected at least 1")
    length = within.duration
    kept = {"slow waves": slow_waves, "spindles": spindles, "ripples": ripples}
    kept = {k: e[within.contains(e.peak)] for k, e in kept.items()}
    if empty := [k for k, e in kept.items() if not len(e)]:
        raise MissingDataError(f"no {empty[0]} in the {length:.0f} s given: nesting needs slow waves, spindles and ripples there")
    peaks = np.concatenate([e.peak for e in kept.values()])
    first, last = float(peaks.min()), float(peaks.max())
    if (bare := length - within.intersect(Intervals([[first, last]])).duration) > 0.25 * length:
        warnings.warn(
            f"nesting: {bare:.0f} s of the {length:.0f} s given lie before the first or after the last event of any kind; where they hold no data, "
            "the shifted events of the control meet nothing there and p is too small: give the spans of the recording alone",
            stacklevel=2,
        )
    trough, ripple = (np.sort(along(np.sort(e.peak), within)) for e in (kept["slow waves"], kept["ripples"]))
    s = kept["spindles"]
    s = s[np.argsort(s.peak, kind="stable")]
    peak = along(np.asarray(s.peak), within)
    before, after = np.asarray(s.peak - s.start), np.asarray(s.stop - s.peak)
    rng = np.random.default_rng(seed)

    def count(what: str, spindle_shift: float, ripple_shift: float) -> int:
        p, r = (peak + spindle_shift) % length, np.sort((ripple + ripple_shift) % length)
        holds = _holds(r, p - before, p + after)  # the spindles that hold a ripple
        if what == "ripple in spindle":
            return int(holds.sum())
        inner = r if what == "ripple in slow wave" else np.sort(p[holds] if what == "triple" else p)
        return int(_holds(inner, trough + window[0], trough + window[1]).sum())

    rows = []
    for what, moved, outer, inner in (
        ("spindle in slow wave", "spindles", len(trough), len(peak)), ("ripple in slow wave", "ripples", len(trough), len(ripple)),
        ("ripple in spindle", "ripples", len(peak), len(ripple)), ("triple", "ripples", len(trough), len(ripple)),
        ("triple", "spindles and ripples", len(trough), len(ripple)),
    ):  # fmt: skip
        found = count(what, 0.0, 0.0)
        shifts = rng.uniform(0.01 * length, 0.99 * length, (draws, 2)) * ["spindles" in moved, "ripples" in moved]
        null = np.array([count(what, a, b) for a, b in shifts])
        expected = float(null.mean())
        rows.append({
            "nesting": what, "shifted": moved, "n_outer": outer, "n_inner": inner, "count": found, "share_pct": 100 * found / outer, "expected": expected,
            "ratio": found / expected if expected > 0 else float("nan"), "p_value": (1 + int((null >= found).sum())) / (draws + 1),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _holds(times: Float, start: Float, stop: Float) -> NDArray[np.bool_]:
    """Which spans (n,) hold one of the sorted `times`."""
    return np.searchsorted(times, stop, side="right") > np.searchsorted(times, start, side="left")


# -- the phase of waves ---------------------------------------------------------------------------------------------
def _phase_of(recording: Recording, waves: EventTable, reach: float) -> tuple[Callable[[Float], Float], Intervals]:
    """A function from times to phases in degrees (NaN outside waves), and the waves' spans."""
    about = waves.attrs
    if "channels" not in about or "band" not in about:
        raise MissingDataError("the waves do not say in which channels and band they were found (attrs): take them from find_events, not from a file")
    if reach < 0:
        raise InputError(f"reach is {reach:g} s, expected 0 or more")
    if not len(waves):
        raise MissingDataError("there are no waves to read a phase from: lower the detector's threshold, or look elsewhere")
    low, high = (float(v) for v in about["band"])
    signal = brain_signal(recording, list(about["channels"]), 2.1 * high, "phases")
    flip = -1.0 if about.get("polarity") == "positive" else 1.0
    start, stop = np.asarray(waves.start, dtype=np.float64) - reach, np.asarray(waves.stop, dtype=np.float64) + reach
    spans = Intervals.merge(np.c_[start, stop])
    analytic, rate = _analytic(signal, low, high)

    def phase_at(times: Float) -> Float:
        at = (times - signal.start) * rate - 0.5
        i = np.clip(np.floor(at).astype(np.int64), 0, len(analytic) - 2)
        share = np.clip(at - i, 0.0, 1.0)
        z = flip * ((1 - share) * analytic[i] + share * analytic[i + 1])
        ok = spans.contains(times) & (np.abs(z) > 0)
        return np.where(ok, np.rad2deg(np.angle(z)), np.nan)

    return phase_at, spans


def _analytic(signal: Signal, low: float, high: float) -> tuple[NDArray[np.complex64], float]:
    """Analytic signal (time,) of the mean of the channels in the band, and its rate; zero where samples are missing."""
    from scipy.signal import hilbert

    rate = float(signal.rate or 0)
    # The phase is interpolated between samples: sixteen a cycle keep that error below a degree or two.
    q = max(1, int(rate // max(25.0, 16 * high)))
    slow = rate / q
    total = signal.n_samples // q
    out = np.zeros(total, dtype=np.complex64)
    for first, last, lo, hi in overlapping_blocks(total, round(_BLOCK * slow), round(_PAD * slow)):
        x = decimated(signal.read(lo * q, hi * q), q).mean(axis=1)
        if np.isfinite(x).sum() <= slow or not np.nanstd(x) > 0:
            continue
        y = bandpass(x, slow, low, min(high, 0.48 * slow))
        z = hilbert(np.nan_to_num(y)).astype(np.complex64)
        z[~np.isfinite(y)] = 0
        out[first:last] = z[first - lo : last - lo]
    return out, slow


def _nearest(peaks: Float, times: Float) -> NDArray[np.intp]:
    """Row of the wave whose peak is nearest each time."""
    order = np.argsort(peaks, kind="stable")
    ranked = peaks[order]
    right = np.clip(np.searchsorted(ranked, times), 0, len(ranked) - 1)
    left = np.maximum(right - 1, 0)
    return order[np.where(np.abs(ranked[left] - times) <= np.abs(ranked[right] - times), left, right)]
