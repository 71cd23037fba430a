"""A lab's own folder: arrays and tables, described by a ``brainmu.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from brainmu.core import EventTable, Hypnogram, Recording, Signal
from brainmu.errors import InputError
from brainmu.synth.native.blocks import blocks
from brainmu.synth.native.one_clock import elsewhere, is_aligned

__all__ = ["write"]


def write(rec: Recording, path: Path, name: str) -> None:
    """Write the folder `path`."""
    if not (rec.signals or rec.spikes is not None or rec.labels):
        raise InputError(f"{rec.id}: has no signals, spikes or labels, there is nothing to write")
    path.mkdir()
    entry: dict[str, Any] = {"id": name, "subject": rec.subject, "species": rec.species}
    if rec.started_at is not None:
        entry["started_at"] = rec.started_at.isoformat()
    if rec.zeitgeber is not None:
        entry["zeitgeber"] = float(rec.zeitgeber)
    if rec.subject_meta:
        entry["subject_meta"] = {k: _plain(v) for k, v in rec.subject_meta.items()}
    # Streams that were aligned are on the session's time: named with their clock's offset they would be moved once more.
    clocks = {k: spec for k, spec in rec.clocks.items() if isinstance(spec, dict) and not is_aligned(spec)}
    of = {k: clock for k, clock in elsewhere(rec).items() if clock in clocks}
    of |= {stream: clock for clock, spec in clocks.items() if clock != "session" for stream in spec.get("streams", [])}
    entry["signals"] = {k: _signal(path, k, s, of.get(k, "")) for k, s in rec.signals.items() if s.n_samples}
    if rec.spikes is not None:
        np.save(path / "spike_times.npy", rec.spikes.times)
        np.save(path / "spike_units.npy", rec.spikes.unit_id)
        rec.spikes.units.to_csv(path / "units.csv", index=False)
        entry["spikes"] = {"times": "spike_times.npy", "unit": "spike_units.npy", "units": "units.csv"} | ({"clock": of["spikes"]} if "spikes" in of else {})
    for k in (k for k, v in rec.labels.items() if not len(v)):
        rec.warn(f"manifest: label {k!r} is empty and was left out")
    entry["labels"] = {k: _label(path, k, v) | ({"clock": of[k]} if k in of else {}) for k, v in rec.labels.items() if len(v)}
    if of:
        entry["clocks"] = {k: _clock(path, k, spec) for k, spec in clocks.items()}
    entry = {k: v for k, v in entry.items() if v not in ("", {}, None)}
    (path / "brainmu.yaml").write_text(yaml.safe_dump({"version": 1, "recordings": [entry]}, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _signal(path: Path, name: str, s: Signal, clock: str) -> dict[str, Any]:
    whole = np.dtype(s.values.dtype).kind == "i" and np.ndim(s.scale) == 0
    file = f"{name}.npy"
    dtype = np.dtype(s.values.dtype if whole else np.float32)
    with (path / file).open("wb") as f:  # a memory map would kill the process on a full disk
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (s.n_samples, s.n_channels)}
        np.lib.format.write_array_header_1_0(f, header)
        for i, x in blocks(s):
            f.write(np.asarray(s.values[i : i + len(x)] if whole else x, dtype=dtype).tobytes())
    entry: dict[str, Any] = {"file": file, "unit": s.unit or "a.u.", "kind": s.kind, "transpose": False}
    if s.rate is not None:
        entry |= {"rate": s.rate, "start": s.start}
    else:
        np.save(path / f"{name}_times.npy", s.times)
        entry["times"] = f"{name}_times.npy"
    if whole:
        entry["scale"] = float(s.scale)
        entry |= {} if s.missing is None else {"missing": int(s.missing)}
    table = s.channels.astype(object).where(s.channels.notna(), None)
    entry["channels"] = [{str(k): _plain(v) for k, v in row.items() if v is not None and v != ""} for row in table.to_dict("records")]
    return entry | ({"clock": clock} if clock else {})


def _label(path: Path, name: str, label: Any) -> dict[str, Any]:
    file = f"{name}.csv"
    if isinstance(label, Hypnogram):
        (path / file).write_text("stage\n" + "\n".join(label.stages_list()) + "\n", encoding="utf-8")
        entry = {"type": "hypnogram", "file": file, "epoch": label.epoch, "start": label.start, "stages": label.stage_set, "header": True}
        return entry | ({"scorer": label.scorer} if label.scorer else {})
    if isinstance(label, EventTable):
        label.to_frame().to_csv(path / file, index=False, float_format="%.9f")
        return {"type": "events", "file": file}
    np.savetxt(path / file, label.bounds, delimiter=",", header="start,stop", comments="", fmt="%.9f")
    return {"type": "intervals", "file": file}


def _clock(path: Path, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    entry = {k: spec[k] for k in ("near", "offset", "ppm", "reference") if k in spec}
    if isinstance(spec.get("pulses"), str):
        entry["pulses"] = spec["pulses"]
    elif spec.get("pulses") is not None:
        np.save(path / f"pulses_{name}.npy", np.asarray(spec["pulses"], dtype=np.float64))
        entry["pulses"] = {"file": f"pulses_{name}.npy"}
    return entry


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value
