"""Everything in a recording on one clock: each stream's times mapped once, in float64, or refused with the numbers."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.config import suggest
from brainmu.core import EventTable, Hypnogram, Intervals, Recording, Signal, Spikes
from brainmu.core.recording import Label
from brainmu.dsp.pulses import edges
from brainmu.errors import InputError, MissingDataError
from brainmu.store.clock_fit import fit_clock
from brainmu.store.clocks import ClockMap
from brainmu.store.warp import Warped

__all__ = ["align", "pulse_times"]

SESSION = "session"
_ROWS = 1 << 20
_BEYOND = 300.0
"""Seconds beyond the last pulse to which a map is extrapolated without a word."""


def align(recording: Recording, *, clock: str | None = None, max_drift: float = 0.005, max_residual: float = 0.005) -> Recording:
    """The recording with every stream on the session's clock.

    ``recording.clocks`` says what is known of each clock: ``{name: {"pulses": …, "streams": [...]}}``. `pulses` are the times (s) at which the shared sync
    pulses came on that clock, or the name of an event label or of a sync signal that holds them; `streams` names the signals, labels and "spikes" that
    run on it (signals also say so by their own ``clock``). ``"offset"`` (s) and ``"ppm"`` state a map that is known; ``"near"`` (s) gives a rough offset
    where pulses are regular. A map that is one line is absorbed in a signal's rate and start; a bent or broken one lays its samples on a uniform grid.
    Spikes and events take their mapped times; hypnograms keep their epoch and are laid on the session's time by the middle of each epoch.

    Parameters
    ----------
    clock : str
        Which clock is the session's. Default: the one named "session", else the one marked ``"reference": True``, else the first that has pulses.
        "none" aligns nothing, and checks that nothing need be.
    max_drift : float, s
        With "none": the largest error of a stream's time that is accepted.
    max_residual : float, s
        How far a pulse may lie from the fitted map.

    Returns
    -------
    Recording
        The same object where there is nothing to align. Its ``clocks`` hold the maps (offset, ppm, breakpoints, jumps, residuals).

    Raises
    ------
    InputError
        If a clock drifts, or its pulses scatter, beyond the limits; or the pulses do not belong together.

    Examples
    --------
    >>> pulses = np.cumsum(np.random.default_rng(0).uniform(0.5, 1.5, 100))
    >>> rec = Recording.from_arrays("m1", signals={"emg": dict(values=np.zeros((1000, 1)), rate=10.0, unit="uV", kind="emg", clock="box")})
    >>> rec.clocks = {"session": {"pulses": pulses}, "box": {"pulses": (pulses - 3.0) / (1 + 50e-6)}}
    >>> s = align(rec).signals["emg"]
    >>> round(s.start, 6), round(s.rate, 6)
    (3.0, 9.9995)
    """
    specs = {name: spec for name, spec in recording.clocks.items() if isinstance(spec, dict)}
    known = any({"pulses", "offset", "ppm"} & set(spec) for spec in specs.values())
    if any("breakpoints" in spec for spec in specs.values()):
        return recording
    if not known:
        _suggest_sync(recording)
        return recording
    streams = _streams(recording, specs)
    reference = _reference(recording, specs, clock)
    maps = {name: _map(recording, name, specs, reference, max_residual) for name in streams if name != reference}
    maps = {name: m for name, m in maps.items() if m is not None}
    if clock == "none":
        for name, m in maps.items():
            _refuse_drift(recording, name, reference, m, streams[name], max_drift)
        maps = {}
    out = copy.copy(recording)
    out.source = recording.source | {"warnings": list(recording.warnings)}
    out.signals, out.labels = dict(recording.signals), dict(recording.labels)
    out.clocks = {name: {"reference": True, "streams": streams.get(name, [])} if name == reference else {} for name in specs}
    for name, m in maps.items():
        out.clocks[name] = m.describe() | {"reference": reference, "streams": streams[name]}
        for stream in streams[name]:
            _move(out, stream, name, m)
        out.warn(f"clock {name!r} against {reference!r}: {m.sentence()}")
        _say_doubts(out, name, m, recording, streams[name])
    for stream in streams.get(reference, []):
        if stream in out.signals and out.signals[stream].clock != SESSION:
            out.signals[stream] = _on(out.signals[stream], reference)
    if clock == "none":
        out.clocks = {name: {} for name in specs}
    return out


def _suggest_sync(rec: Recording) -> None:
    """Where streams run on other clocks and nothing is known of them: name the lines that may hold shared pulses."""
    foreign = sorted({s.clock for s in rec.signals.values() if s.clock not in ("", SESSION)})
    lines: dict[str, list[str]] = {}
    for name, label in rec.labels.items():
        if isinstance(label, EventTable) and "clock" in label.attrs and len(label) >= 3:
            lines.setdefault(str(label.attrs["clock"]), []).append(name)
    for clock in foreign:
        if clock in lines and SESSION in lines:
            rec.warn(
                f"clock {clock!r} is not aligned; if {' or '.join(lines[SESSION][:4])} and {' or '.join(lines[clock][:4])} hold the same pulses, pass "
                f"--sync session={lines[SESSION][0]} --sync {clock}={lines[clock][0]}"
            )


# -- which clocks, which streams ------------------------------------------------------------------------------------
def _streams(rec: Recording, specs: dict[str, Any]) -> dict[str, list[str]]:
    """Names of the streams on each clock; what is not named runs on the one called "session", or on the reference."""
    known = [*rec.signals, *rec.labels, *(["spikes"] if rec.spikes is not None else [])]
    out: dict[str, list[str]] = {name: [] for name in specs}
    for name, spec in specs.items():
        for stream in spec.get("streams", []):
            if stream not in known:
                raise InputError(f"{rec.id}: clock {name!r} names the stream {stream!r}{suggest(stream, known)}; the recording has {', '.join(known)}")
            out[name].append(stream)
        pulses = spec.get("pulses")
        if isinstance(pulses, str) and pulses in known and pulses not in out[name]:
            out[name].append(pulses)
    own = {name: s.clock for name, s in rec.signals.items()}
    own |= {name: str(v.attrs.get("clock", "")) for name, v in rec.labels.items() if not isinstance(v, Intervals)}
    for stream, clock in own.items():
        if clock in specs and clock != SESSION and stream not in out[clock]:
            out[clock].append(stream)
    if SESSION in specs:
        out[SESSION] += [s for s in known if not any(s in names for names in out.values())]
    twice = [s for s in known if sum(s in names for names in out.values()) > 1]
    if twice:
        raise InputError(f"{rec.id}: {twice[0]!r} is said to run on several clocks ({', '.join(n for n in out if twice[0] in out[n])}): name one")
    return out


def _reference(rec: Recording, specs: dict[str, Any], clock: str | None) -> str:
    """The clock that gives the session's time."""
    if clock not in (None, "none"):
        assert clock is not None
        if clock not in specs and clock != SESSION:
            raise InputError(f"{rec.id}: has no clock {clock!r}{suggest(clock, specs)}; it has {', '.join(specs)}")
        return clock
    marked = [name for name, spec in specs.items() if spec.get("reference") is True]
    if len(marked) > 1:
        raise InputError(f"{rec.id}: the clocks {' and '.join(marked)} are both marked as the reference: mark one")
    if marked:
        return marked[0]
    if SESSION in specs or not any("pulses" in spec for spec in specs.values()):
        return SESSION
    return next(name for name, spec in specs.items() if "pulses" in spec)


def pulse_times(recording: Recording, name: str, pulses: Any) -> NDArray[np.float64]:
    """Times (n,), s, of the sync pulses of clock `name`: given as numbers, as the name of an event label (its starts), or of a sync signal (rising edges).

    Raises
    ------
    MissingDataError
        If there is no such label or signal.
    """
    if not isinstance(pulses, str):
        return np.asarray(pulses, dtype=np.float64).ravel()
    label = recording.labels.get(pulses)
    if isinstance(label, (EventTable, Intervals)):
        starts = np.asarray(label.start, dtype=np.float64)
        # A line that was high already when the recording began has no rising edge there.
        begun = isinstance(label, EventTable) and label.attrs.get("open_start") and len(starts)
        return np.unique(starts[1:] if begun else starts)
    if pulses in recording.signals:
        return _edges_of(recording.signals[pulses])
    known = [*recording.labels, *recording.signals]
    raise MissingDataError(f"{recording.id}: the pulses of clock {name!r} are {pulses!r}{suggest(pulses, known)}, which is no event label and no signal")


def _edges_of(signal: Signal) -> NDArray[np.float64]:
    """Rising edges of the first channel, half-way between its extremes."""
    low, high = np.inf, -np.inf
    for i in range(0, signal.n_samples, _ROWS):
        x = signal.read(i, min(signal.n_samples, i + _ROWS))[:, 0]
        if np.isfinite(x).any():
            low, high = min(low, float(np.nanmin(x))), max(high, float(np.nanmax(x)))
    if not high > low:
        return np.empty(0)
    found: list[NDArray[np.float64]] = []
    last: bool | None = None
    for i in range(0, signal.n_samples, _ROWS):
        at, last = edges(signal.read(i, min(signal.n_samples, i + _ROWS))[:, 0], 0.5 * (low + high), last=last)
        found.append(signal.read_times(i, min(signal.n_samples, i + _ROWS))[at])
    return np.concatenate(found)


# -- the maps -------------------------------------------------------------------------------------------------------
def _map(rec: Recording, name: str, specs: dict[str, Any], reference: str, max_residual: float) -> ClockMap | None:
    spec = specs[name]
    if "offset" in spec or "ppm" in spec:
        return ClockMap.constant(float(spec.get("offset") or 0.0), float(spec.get("ppm") or 0.0))
    other = specs.get(reference, {})
    if spec.get("pulses") is None or other.get("pulses") is None:
        lacking = name if spec.get("pulses") is None else reference
        rec.warn(f"clock {name!r}: no pulses of {lacking!r} are known, so its streams are not aligned to {reference!r}")
        return None
    try:
        m = fit_clock(pulse_times(rec, name, spec["pulses"]), pulse_times(rec, reference, other["pulses"]), offset=spec.get("near"))
    except InputError as error:
        raise InputError(f"{rec.id}: clock {name!r} against {reference!r}: {error}") from None
    worst = 1e-6 * m.diagnostics["residual_max_us"]
    if worst > max_residual:
        raise InputError(
            f"{rec.id}: pulses of clock {name!r} lie up to {1e3 * worst:.1f} ms from where {reference!r} puts them "
            f"(RMS {m.diagnostics['residual_rms_us'] / 1e3:.2f} ms, {m.diagnostics['matched']} pulses, limit {1e3 * max_residual:g} ms): "
            "check the pulses, or raise --max-residual"
        )
    return m


def _refuse_drift(rec: Recording, name: str, reference: str, m: ClockMap, streams: list[str], limit: float) -> None:
    """Raise where a stream that is to stay unaligned is off by more than the limit."""
    spans = [_span(rec, s) for s in streams]
    if not spans:
        return
    start, stop = min(a for a, _ in spans), max(b for _, b in spans)
    at = np.unique(np.r_[start, stop, m.starts[(m.starts > start) & (m.starts < stop)]])
    off = m.to_session(at) - at
    worst = float(off[np.abs(off).argmax()])
    if abs(worst) > limit:
        drift = float(off[-1] - off[0])
        raise InputError(
            f"{rec.id}: {', '.join(streams)} on clock {name!r} drift {1e3 * drift:+.1f} ms over {(stop - start) / 3600:.2g} h against {reference!r} "
            f"and are up to {1e3 * abs(worst):.1f} ms off (limit {1e3 * limit:g} ms): align them (--clock {reference}), or raise --max-drift"
        )


def _span(rec: Recording, stream: str) -> tuple[float, float]:
    if stream == "spikes":
        assert rec.spikes is not None
        t = rec.spikes.times
        return (float(t[0]), float(t[-1])) if len(t) else (0.0, 0.0)
    part: Any = rec.signals[stream] if stream in rec.signals else rec.labels[stream]
    return float(np.min(part.start)), float(np.max(part.stop))


def _say_doubts(out: Recording, name: str, m: ClockMap, rec: Recording, streams: list[str]) -> None:
    d = m.diagnostics
    if d.get("period") and not d.get("patterned"):
        near = rec.clocks[name].get("near") if isinstance(rec.clocks.get(name), dict) else None
        if near is None:
            out.warn(
                f"clock {name!r}: its pulses are regular and both trains are taken to begin together, so its offset is open by multiples of "
                f"{d['period']:.4g} s: check it, or give a rough offset (near)"
            )
        for j in m.jumps[:5]:
            other = j["size"] - np.copysign(d["period"], j["size"])
            out.warn(
                f"clock {name!r}: its pulses are regular: its jump of {1e3 * j['size']:+.1f} ms at {j['at']:.1f} s may as well be one of {1e3 * other:+.1f} ms"
            )
    if "last" in d:
        for stream in streams:
            a, b = _span(rec, stream)
            beyond = max(d["first"] - a, b - d["last"])
            if beyond > _BEYOND:
                out.warn(f"{stream} runs {beyond:.0f} s beyond the pulses of clock {name!r}; its rate there is taken to go on")
    if m.jumps:
        out.warn(f"clock {name!r}: around its {len(m.jumps)} jumps, {m.uncertain.duration:.1f} s in all, times may be off by the size of the jump")
    for a, b in m.holes[:5]:
        out.warn(f"clock {name!r}: from {m.to_session(a):.0f} to {m.to_session(b):.0f} s no pulses pair, times there are those of the line across it")


# -- moving streams -------------------------------------------------------------------------------------------------
def _move(rec: Recording, stream: str, name: str, m: ClockMap) -> None:
    """Put one stream of `rec` on the session's clock."""
    if stream == "spikes":
        assert rec.spikes is not None
        rec.spikes = Spikes(m.to_session(rec.spikes.times), rec.spikes.unit_id, rec.spikes.units)
    elif stream in rec.signals:
        rec.signals[stream] = _moved_signal(rec, stream, rec.signals[stream], name, m)
    else:
        rec.labels[stream] = _moved_label(rec.labels[stream], m)


def _on(s: Signal, name: str, **changes: Any) -> Signal:
    """The signal on the session's clock, saying which it was recorded on."""
    fields = {f.name: getattr(s, f.name) for f in dataclasses.fields(Signal)} | {"clock": SESSION, "attrs": s.attrs | {"clock": name}}
    return Signal(**(fields | changes))


def _moved_signal(rec: Recording, stream: str, s: Signal, name: str, m: ClockMap) -> Signal:
    gaps = _moved_intervals(s.gaps, m)
    if s.times is not None:
        times = m.to_session(s.times)
        ahead = np.r_[True, times[1:] > np.maximum.accumulate(times)[:-1]] if len(times) else np.empty(0, dtype=bool)
        if ahead.all():
            return _on(s, name, times=times, gaps=gaps)
        rec.warn(f"signal {stream!r}: {int((~ahead).sum())} samples were recorded twice over where its clock jumped back, and left out")
        return _on(s, name, times=times[ahead], gaps=gaps, values=np.asarray(s.values[:])[ahead])
    assert s.rate is not None
    if m.is_linear:
        return _on(s, name, start=m.to_session(s.start), rate=s.rate / float(m.slopes[0]), gaps=gaps)
    start, stop = m.to_session(s.start), m.to_session(s.stop)
    n = int(np.floor((stop - start) * s.rate + 1e-6))
    warped = Warped(s, m, start, s.rate, n)
    skipped = [[a, b] for a, b in _holes(m) if b > start and a < stop]
    return _on(s, name, start=start, values=warped, scale=1.0, missing=None, gaps=gaps.union(Intervals(skipped)) if skipped else gaps)


def _holes(m: ClockMap) -> list[tuple[float, float]]:
    """Session times that the stream skipped."""
    return [(m.to_session(j["at"]) - j["size"], m.to_session(j["at"])) for j in m.jumps if j["size"] > 0]


def _moved_intervals(spans: Intervals, m: ClockMap) -> Intervals:
    if not len(spans):
        return spans
    bounds = m.to_session(spans.bounds)
    bounds = bounds[bounds[:, 1] > bounds[:, 0]]
    return Intervals.merge(bounds) if len(bounds) > 1 and (bounds[1:, 0] < bounds[:-1, 1]).any() else Intervals(bounds)


def _moved_label(label: Label, m: ClockMap) -> Label:
    if isinstance(label, Intervals):
        return _moved_intervals(label, m)
    if isinstance(label, EventTable):
        frame = label.to_frame()
        for column in ("start", "stop", "peak"):
            if column in frame:
                frame[column] = m.to_session(frame[column].to_numpy(dtype=np.float64))
        frame["stop"] = np.maximum(frame["stop"], frame["start"])
        return EventTable.from_frame(frame, attrs=dict(label.attrs))
    start = m.to_session(label.start)
    n = int(np.floor((m.to_session(label.stop) - start) / label.epoch + 0.5))
    own = m.to_own(start + (np.arange(n) + 0.5) * label.epoch)
    k = np.clip(np.floor((own - label.start) / label.epoch + 1e-9), 0, len(label) - 1)
    lost = np.isnan(k)
    k = np.where(lost, 0, k).astype(np.int64)
    codes = np.where(lost, np.int8(-2), label.codes[k]).astype(np.int8)
    proba = None if label.proba is None else label.proba[k]
    return Hypnogram(codes, label.stages, label.epoch, start, proba, label.scorer, dict(label.attrs))
