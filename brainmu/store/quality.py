"""What is wrong with each signal, as a table and a row a channel in ``/quality``. Samples themselves are never changed or removed for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from brainmu.core import Intervals
from brainmu.dsp.artefacts import Findings
from brainmu.dsp.levels import Levels, find_artefacts, find_noisy, window_length
from brainmu.store.streams import Stream

__all__ = ["Verdict", "judge", "quality_tables", "quality_warnings"]

_MUCH = 0.05
_PLAUSIBLE = (0.1, 10_000.0)
"""µV. Raw EEG and EMG have a few to a thousand, LFP up to some thousands; slow drift of a DC amplifier may add some thousands."""


def quality_tables(stream: Stream, findings: Findings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The spans (kind, channel, start, stop) and the channels (name, dead, noisy, deviation, share of time that is missing, flat, …) of a signal.

    `kind` is gap (stated by the source), missing, flat, saturated or artefact; `channel` is "" where all channels are meant (an artefact that at least
    half of them show at once). Times are those of the source's samples, before any resampling; artefacts, which are found in the samples as they
    are stored, are told to a window of a second.
    """
    s = stream.signal
    names = s.names
    rows: list[tuple[str, str, float, float]] = [("gap", "", float(a), float(b)) for a, b in s.gaps]
    shares: dict[str, list[float]] = {}
    total = max(1, findings.last - findings.first)
    common = _in_all(findings.missing)
    rows += [("missing", "", *_seconds(stream, i, j)) for i, j in common]
    for kind, spans in (("missing", findings.missing), ("flat", findings.flat), ("saturated", findings.saturated)):
        shares[kind] = [sum(j - i for i, j in channel) / total for channel in spans]
        for name, channel in zip(names, spans):
            own = [x for x in channel if x not in common] if kind == "missing" else channel
            rows += [(kind, name, *_seconds(stream, i, j)) for i, j in own]
    verdict = judge(stream, findings)
    rows += [("artefact", "", *span) for span in verdict.common]
    rows += [("artefact", name, *span) for name, own in zip(names, verdict.own) for span in own]
    spans = pd.DataFrame({
        "kind": np.array([r[0] for r in rows], dtype=object), "channel": np.array([r[1] for r in rows], dtype=object),
        "start": np.array([r[2] for r in rows], dtype=np.float64), "stop": np.array([r[3] for r in rows], dtype=np.float64),
    })  # fmt: skip
    # Six digits: the order in which a processor adds must not show.
    deviation = [float(f"{d:.6g}") for d in findings.deviation * np.abs(stream.factor)]
    dead = findings.dead if stream.voltage else np.zeros(len(names), dtype=bool)
    noisy = np.array([c in verdict.noisy for c in range(len(names))], dtype=bool)
    channels = pd.DataFrame({"name": names, "dead": dead, "noisy": noisy, "deviation": np.array(deviation, dtype=np.float64)})
    shares["artefact"] = verdict.shares
    for kind, share in shares.items():
        channels[kind] = np.array(share, dtype=np.float64)
    return spans, channels


@dataclass
class Verdict:
    """What only the whole recording tells.

    Attributes
    ----------
    noisy : dict
        {channel number: why}.
    common, own : spans (start, stop), s, and a list of them a channel
        Artefacts that at least half of the channels show at once, and the others.
    shares : list of float (channel,)
        Of the signal's length.
    """

    noisy: dict[int, str]
    common: list[tuple[float, float]]
    own: list[list[tuple[float, float]]]
    shares: list[float]


def judge(stream: Stream, findings: Findings) -> Verdict:
    """Noisy channels and artefacts of a brain signal; nothing of any other."""
    channels = stream.signal.n_channels
    empty = Verdict({}, [], [[] for _ in range(channels)], [0.0] * channels)
    if not findings.levels or stream.rate is None:
        return empty
    levels = Levels.of(findings.levels, channels)
    judged = stream.brain & ~findings.dead
    found = find_artefacts(levels, stream.config.artefact, judged)
    length, rate, start = window_length(stream.rate), stream.rate, stream.signal.start

    def seconds(spans: list[tuple[int, int]]) -> list[tuple[float, float]]:
        return [(start + i * length / rate, start + min(j * length, stream.n) / rate) for i, j in spans]

    total = max(stream.n / rate, 1e-12)
    verdict = Verdict(find_noisy(levels, judged, list(stream.signal.channels["kind"])), seconds(found.common), [seconds(s) for s in found.own], [])
    verdict.shares = [sum(b - a for a, b in [*own, *(verdict.common if ok else [])]) / total for own, ok in zip(verdict.own, judged)]
    return verdict


def quality_warnings(stream: Stream, findings: Findings, marked: int) -> list[str]:
    """Sentences about what a user should look at."""
    out = []
    n = findings.last - findings.first
    names, who = stream.signal.names, f"signal {stream.name!r}"
    beyond = sum(findings.beyond)
    if beyond:
        out.append(f"{who}: {_count(beyond, 'sample')} {'is' if beyond == 1 else 'are'} infinite or too large for float32, kept as missing")
    if n and not any(findings.count):
        out.append(f"{who}: holds no finite value" if names else f"{who}: has no channel")
    elif stream.voltage and n:
        dead = [c for c, d in zip(names, findings.dead) if d]
        if dead:
            out.append(f"{who}: {_count(len(dead), 'dead channel')} (one value or none throughout): {_list(dead)}")
        for kind, spans in (("flat", findings.flat), ("saturated", findings.saturated)):
            share = np.array([sum(j - i for i, j in c) for c in spans]) / n
            bad = [c for c, x, d in zip(names, share, findings.dead) if x > 0.01 and not d]
            if bad:
                out.append(f"{who}: {_count(len(bad), 'channel')} {kind} for more than 1 % of the time: {_list(bad)}")
        out += _doubts(stream, findings)
    if stream.reference is not None:
        left, kept = [f"{c} ({why})" for c, why in stream.reference.left_out.items()], stream.reference.kept
        if left:
            out.append(f"{who}: the {stream.reference.how} reference leaves out {_list(left)}")
        if kept:
            out.append(f"{who}: {_count(len(kept), 'channel')} of groups with fewer than three good ones keep the reference of the recording: {_list(kept)}")
    if marked:
        out.append(f"signal {stream.name!r}: {marked} samples at -32768 are stored as -32767, because -32768 marks a missing sample")
    return out


def _doubts(stream: Stream, findings: Findings) -> list[str]:
    """Noisy channels, much artefact, and a size that no brain or muscle has."""
    names, who, out = stream.signal.names, f"signal {stream.name!r}", []
    verdict = judge(stream, findings)
    noisy = [f"{names[c]} ({why})" for c, why in verdict.noisy.items()]
    if noisy:
        out.append(f"{who}: {_count(len(noisy), 'noisy channel')}: {_list(noisy)}")
    common = sum(b - a for a, b in verdict.common) * (stream.rate or 0.0) / max(1, stream.n)
    if common > _MUCH:
        out.append(f"{who}: {100 * common:.0f} % of the time is an artefact on at least half of the channels at once: movement, or a loose contact")
    alive = ~findings.dead
    if stream.unit == "uV" and alive.any():
        typical = float(np.median((findings.deviation * np.abs(stream.factor))[alive]))
        if not _PLAUSIBLE[0] <= typical <= _PLAUSIBLE[1]:
            unit = stream.signal.unit
            out.append(
                f"{who}: its standard deviation is {typical:.3g} uV, expected {_PLAUSIBLE[0]:g} to {_PLAUSIBLE[1]:g}: "
                f"most often the unit ({unit!r}) or the scale of the source is wrong"
            )
    return out


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n > 1)}"


def _list(which: list[str]) -> str:
    return ", ".join(which[:10]) + (", …" if len(which) > 10 else "")


def _in_all(missing: list[list[tuple[int, int]]]) -> list[tuple[int, int]]:
    """Spans in which all channels are missing, sample numbers."""
    if not missing:
        return []
    common = missing[0]
    for other in missing[1:]:
        if other == common:
            continue
        joint: Any = Intervals(common).intersect(Intervals(other)).bounds
        common = [(int(a), int(b)) for a, b in joint]
    return common


def _seconds(stream: Stream, i: int, j: int) -> tuple[float, float]:
    s = stream.signal
    if s.times is not None:
        return float(s.times[i]), float(s.times[j]) if j < len(s.times) else s.stop
    assert s.rate is not None
    return s.start + i / s.rate, s.start + j / s.rate
