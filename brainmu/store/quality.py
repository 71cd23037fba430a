"""What is wrong with each signal, as a table and a row a channel in ``/quality``. Samples themselves are never changed or removed for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from brainmu.core import Intervals
from brainmu.dsp.artefacts import Findings
from brainmu.store.streams import Stream

__all__ = ["quality_tables", "quality_warnings", "stored_gaps"]


def quality_tables(stream: Stream, findings: Findings) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The spans (kind, channel, start, stop) and the channels (name, dead, deviation, share missing, flat and saturated) of a signal.

    `kind` is gap (stated by the source), missing, flat or saturated; `channel` is "" where all channels are meant. Times are those of the
    source's samples, before any resampling.
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
    spans = pd.DataFrame({
        "kind": np.array([r[0] for r in rows], dtype=object), "channel": np.array([r[1] for r in rows], dtype=object),
        "start": np.array([r[2] for r in rows], dtype=np.float64), "stop": np.array([r[3] for r in rows], dtype=np.float64),
    })  # fmt: skip
    # Six digits: the order in which a processor adds must not show.
    deviation = [float(f"{d:.6g}") for d in findings.deviation * np.abs(stream.factor)]
    dead = findings.dead if stream.voltage else np.zeros(len(names), dtype=bool)
    channels = pd.DataFrame({"name": names, "dead": dead, "deviation": np.array(deviation, dtype=np.float64)})
    for kind, share in shares.items():
        channels[kind] = np.array(share, dtype=np.float64)
    return spans, channels


def quality_warnings(stream: Stream, findings: Findings, marked: int) -> list[str]:
    """Sentences about what a user should look at."""
    out = []
    n = findings.last - findings.first
    if stream.voltage and n:
        dead = [c for c, d in zip(stream.signal.names, findings.dead) if d]
        if dead:
            out.append(f"signal {stream.name!r}: {len(dead)} dead channel{'s' * (len(dead) > 1)} (one value or none throughout): {', '.join(dead[:10])}")
        for kind, spans in (("flat", findings.flat), ("saturated", findings.saturated)):
            share = np.array([sum(j - i for i, j in c) for c in spans]) / n
            bad = [c for c, x, d in zip(stream.signal.names, share, findings.dead) if x > 0.01 and not d]
            if bad:
                out.append(f"signal {stream.name!r}: {len(bad)} channel{'s' * (len(bad) > 1)} {kind} for more than 1 % of the time: {', '.join(bad[:10])}")
    if marked:
        out.append(f"signal {stream.name!r}: {marked} samples at -32768 are stored as -32767, because -32768 marks a missing sample")
    return out


def stored_gaps(spans: pd.DataFrame) -> Intervals:
    """The gaps of a stored signal: those the source stated, and spans in which every channel is missing."""
    stated = Intervals(spans.loc[spans["kind"] == "gap", ["start", "stop"]].to_numpy(dtype=np.float64))
    silent = spans[(spans["kind"] == "missing") & (spans["channel"] == "")]
    extra = [(a, b) for a, b in zip(silent["start"], silent["stop"]) if not len(stated.intersect(Intervals([[a, b]])))]
    return Intervals(sorted([*map(tuple, stated.bounds.tolist()), *extra]))


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
