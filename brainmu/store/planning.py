"""What preprocessing would do, before a byte is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from brainmu.core import Recording
from brainmu.errors import InputError
from brainmu.store.config import PreprocessConfig
from brainmu.store.output import readable_size
from brainmu.store.writer import aligned, read_source, resolve_config, streams_of

__all__ = ["format_plan", "plan"]


def plan(
    source: Recording | str | Path, *, lfp_rate: float | Literal["config"] | None = "config",
    config: PreprocessConfig | str | Path | dict[str, Any] | None = None, reader: dict[str, Any] | None = None, **options: Any,
) -> dict[str, Any]:  # fmt: skip
    """What :func:`preprocess` with the same arguments would read, resample and write. Reads no samples.

    Returns
    -------
    dict
        id, duration (s), files (number) and source_bytes, store_bytes, config, warnings, spikes, labels, and for each of `signals`: name,
        kind, channels, unit, and rate, samples, dtype and bytes `from` the source and `to` the store, and `action` ("keep" or "resample").

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
    for stream in streams_of(recording, settings, notes.append):
        s = stream.signal
        size = s.values.dtype.itemsize
        signals.append({
            "name": stream.name, "kind": ", ".join(dict.fromkeys(s.channels["kind"])), "channels": s.n_channels, "start": s.start, "duration": s.duration,
            "action": "resample" if stream.resampler else "keep",
            "from": {"rate": s.rate, "samples": s.n_samples, "dtype": str(s.values.dtype), "unit": s.unit, "bytes": s.n_samples * s.n_channels * size},
            "to": {"rate": stream.rate, "samples": stream.n, "dtype": stream.dtype, "unit": stream.unit, "bytes": stream.n * stream.layout.row_bytes},
        })  # fmt: skip
    if not signals and recording.spikes is None and not recording.labels:
        raise InputError(f"{recording.id}: has no signals, spikes or labels, there is nothing to store")
    files = [Path(f) for f in recording.source.get("files") or []]
    n_spikes = 0 if recording.spikes is None else len(recording.spikes)
    return {
        "id": recording.id, "subject": recording.subject, "species": recording.species, "duration": recording.duration, "files": len(files),
        "source_bytes": sum(f.stat().st_size for f in files if f.is_file()),
        "store_bytes": sum(s["to"]["bytes"] for s in signals) + 12 * n_spikes, "signals": signals, "spikes": n_spikes,
        "units": 0 if recording.spikes is None else recording.spikes.n_units, "labels": {k: repr(v) for k, v in recording.labels.items()},
        "config": settings.describe(), "warnings": notes,
    }  # fmt: skip


def format_plan(planned: dict[str, Any]) -> str:
    """A plan as lines for people."""
    lines = [
        f"{planned['id']}: {planned['duration'] / 60:.1f} min, {planned['files']} files of {readable_size(planned['source_bytes'])} "
        f"-> a store of about {readable_size(planned['store_bytes'])}"
    ]
    for s in planned["signals"]:
        a, b = s["from"], s["to"]
        change = f"{_rate(a['rate'])} -> {_rate(b['rate'])}" if s["action"] == "resample" else f"{_rate(a['rate'])} kept"
        unit = f"{a['unit'] or 'unit unknown'} -> {b['unit']}" if a["unit"] != b["unit"] else b["unit"] or "unit unknown"
        lines.append(f"  {s['name']}: {s['channels']} x {s['kind']}, {change}, {a['dtype']} -> {b['dtype']}, {unit}, {readable_size(b['bytes'])}")
    if planned["units"]:
        lines.append(f"  spikes: {planned['spikes']} of {planned['units']} units")
    lines += [f"  label {name}: {what}" for name, what in planned["labels"].items()]
    lines += [f"  note: {w}" for w in planned["warnings"]]
    return "\n".join(lines)


def _rate(rate: float | None) -> str:
    return "irregular" if rate is None else f"{rate:g} Hz"
