"""What preprocessing would do, before a byte is written."""

from __future__ import annotations

import dataclasses
import hashlib
import time
from pathlib import Path
from typing import Any, Literal

import numpy as np

from brainmu.core import Intervals, Recording
from brainmu.errors import InputError
from brainmu.store.config import PreprocessConfig
from brainmu.store.output import readable_size
from brainmu.store.shards import processors
from brainmu.store.streams import Stream
from brainmu.store.writer import aligned, read_source, resolve_config, streams_of

__all__ = ["format_plan", "plan"]

_TRIAL = 1 << 20
"""Values that are worked on to tell the speed of this machine."""
_STARTING = 1.0
"""Seconds until a process is at work."""


def plan(
    source: Recording | str | Path, *, lfp_rate: float | Literal["config"] | None = "config",
    config: PreprocessConfig | str | Path | dict[str, Any] | None = None, reader: dict[str, Any] | None = None, jobs: int = 1, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """What :func:`preprocess` with the same arguments would read, align, resample, mark as missing and write. Reads no samples.

    Returns
    -------
    dict
        id, duration (s), files (number) and source_bytes, store_bytes, seconds (time needed with `jobs` processes, from a trial of the same arithmetic
        on noise; slow disks and compressed sources need more), config, warnings (also what was left out), spikes, labels, clocks (the map of each), and for
        each of `signals`: name, kind, channels, clock, and rate, samples, dtype, unit and bytes `from` the source and `to` the store, `action` ("keep" or
        "resample"), `filters` and `reference` (where asked for), gaps (number) and missing (s, inside the gaps that the source states).

    Examples
    --------
    >>> import numpy as np
    >>> rec = Recording.from_arrays("m1", signals={"lfp": dict(values=np.zeros((60000, 2)), rate=30000.0, unit="mV", kind="lfp")})
    >>> signal = plan(rec)["signals"][0]
    >>> signal["action"], signal["to"]["rate"], signal["to"]["bytes"]
    ('resample', 1250.0, 20000)
    """
    settings = resolve_config(config, lfp_rate, options)
    recording = aligned(read_source(source, reader), settings)
    notes: list[str] = list(recording.warnings)
    signals = []
    streams = streams_of(recording, settings, notes.append)
    for stream in streams:
        s = stream.signal
        size = s.values.dtype.itemsize
        signals.append({
            "name": stream.name, "kind": ", ".join(dict.fromkeys(s.channels["kind"])), "channels": s.n_channels, "start": s.start, "duration": s.duration,
            "clock": s.clock, "action": "resample" if stream.resampler else "keep", "filters": stream.filters.describe() if stream.filters else [],
            "reference": settings.reference if stream.brain.any() else None, "gaps": len(s.gaps), "missing": float(s.gaps.duration),
            "from": {"rate": s.rate, "samples": s.n_samples, "dtype": str(s.values.dtype), "unit": s.unit, "bytes": s.n_samples * s.n_channels * size},
            "to": {"rate": stream.rate, "samples": stream.n, "dtype": stream.dtype, "unit": stream.unit, "bytes": stream.n * stream.layout.row_bytes},
        })  # fmt: skip
    if not signals and recording.spikes is None and not recording.labels:
        raise InputError(f"{recording.id}: has no signals, spikes or labels, there is nothing to store")
    files = [Path(f) for f in recording.source.get("files") or []]
    n_spikes = 0 if recording.spikes is None else len(recording.spikes)
    source_bytes = sum(f.stat().st_size for f in files if f.is_file())
    store_bytes = sum(s["to"]["bytes"] for s in signals) + 12 * n_spikes
    return {
        "id": recording.id, "subject": recording.subject, "species": recording.species, "duration": recording.duration, "files": len(files),
        "source_bytes": source_bytes, "store_bytes": store_bytes, "seconds": _seconds(streams, source_bytes, store_bytes, jobs), "jobs": jobs,
        "clocks": dict(recording.clocks), "signals": signals, "spikes": n_spikes,
        "units": 0 if recording.spikes is None else recording.spikes.n_units, "labels": {k: repr(v) for k, v in recording.labels.items()},
        "config": settings.describe(), "warnings": notes,
    }  # fmt: skip


def _seconds(streams: list[Stream], source_bytes: int, store_bytes: int, jobs: int) -> float:
    """Time needed, s."""
    block = np.random.default_rng(0).integers(-300, 300, _TRIAL * 2, dtype=np.int16)
    t = time.perf_counter()
    hashlib.sha256(block.tobytes()).hexdigest()
    hashing = (time.perf_counter() - t) / block.nbytes
    work = sum(_trial(stream, block[:_TRIAL]) for stream in streams) + 2 * hashing * store_bytes  # hashed, checked and written
    shards = sum(s.layout.n_files for s in streams)
    # Checksums of the sources are made by one thread beside the rest.
    busy = max(1, min(jobs, processors(), shards))
    return _STARTING + max(hashing * source_bytes, work / busy, (work + hashing * source_bytes) / processors())


def _trial(stream: Stream, noise: Any) -> float:
    """Seconds that the samples of a stream need in one process: a short piece of noise of its shape goes through the same."""
    s = stream.signal
    if not stream.n:
        return 0.0
    n = max(1, min(s.n_samples, len(noise) // max(1, s.n_channels)))
    rows = np.resize(noise, (n, s.n_channels)).astype(s.values.dtype)
    signal = dataclasses.replace(s, values=rows, gaps=Intervals(), times=None if s.times is None else s.times[:n], rate=s.rate)
    short = Stream(stream.name, signal, dataclasses.replace(stream.config, reference=None))
    t = time.perf_counter()
    for a, b in short.steps(0, short.n):
        short.block(a, b)
    return (time.perf_counter() - t) * s.n_samples / n


def format_plan(planned: dict[str, Any]) -> str:
    """A plan as lines for people."""
    lines = [
        f"{planned['id']}: {planned['duration'] / 60:.1f} min, {planned['files']} files of {readable_size(planned['source_bytes'])} "
        f"-> a store of about {readable_size(planned['store_bytes'])}, in about {_time(planned['seconds'])} with {planned['jobs']} "
        f"process{'es' * (planned['jobs'] > 1)}"
    ]
    for s in planned["signals"]:
        a, b = s["from"], s["to"]
        change = f"{_rate(a['rate'])} -> {_rate(b['rate'])}" if s["action"] == "resample" else f"{_rate(a['rate'])} kept"
        unit = f"{a['unit'] or 'unit unknown'} -> {b['unit']}" if a["unit"] != b["unit"] else b["unit"] or "unit unknown"
        lines.append(f"  {s['name']}: {s['channels']} x {s['kind']}, {change}, {a['dtype']} -> {b['dtype']}, {unit}, {readable_size(b['bytes'])}")
        extra = [f"reference {s['reference']}"] * bool(s["reference"]) + [f"filters {', '.join(map(str, s['filters']))}"] * bool(s["filters"])
        extra += [f"{s['gaps']} gaps, {s['missing']:.1f} s missing"] * bool(s["gaps"])
        extra += [f"aligned from the clock {name!r}" for name, about in planned["clocks"].items() if _aligned(about, s["name"])]
        lines += [f"    {text}" for text in extra]
    if planned["units"]:
        lines.append(f"  spikes: {planned['spikes']} of {planned['units']} units")
    lines += [f"  label {name}: {what}" for name, what in planned["labels"].items()]
    lines += [f"  note: {w}" for w in planned["warnings"]]
    return "\n".join(lines)


def _rate(rate: float | None) -> str:
    return "irregular" if rate is None else f"{rate:g} Hz"


def _aligned(about: Any, signal: str) -> bool:
    return isinstance(about, dict) and isinstance(about.get("reference"), str) and signal in about.get("streams", [])


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
