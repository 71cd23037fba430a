"""The folder of a spike sorter as its curator left it: Kilosort's arrays and Phy's tables."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Recording
from brainmu.errors import InputError
from brainmu.synth.native.one_clock import on_session

__all__ = ["write"]

_RATE = 30_000
_SAMPLES = 82  # of a template, as Kilosort has it
_SPACING = 20.0  # um


def write(rec: Recording, path: Path, name: str) -> None:
    """Write the folder `path`."""
    if rec.spikes is None or not len(rec.spikes):
        raise InputError(f"{rec.id}: has no spikes, which is what a sorter's folder holds")
    on_session(rec, "Phy", [], labels=False)
    left = [*rec.signals, *rec.labels]
    if left:
        rec.warn(f"Phy: {', '.join(left)} were left out, a sorter's folder holds spikes")
    path.mkdir()
    s = rec.spikes
    samples = np.rint(s.times * _RATE).astype(np.int64)
    if (samples < 0).any():
        rec.warn(f"Phy: {int((samples < 0).sum())} spikes lie before the first sample and were left out")
    keep = samples >= 0
    row = s.units.reset_index().set_index("id")["index"].reindex(s.unit_id[keep]).to_numpy()
    n_channels = max(16, 2 * s.n_units)
    np.save(path / "spike_times.npy", samples[keep].astype(np.uint64))
    np.save(path / "spike_clusters.npy", s.unit_id[keep].astype(np.int32))
    np.save(path / "spike_templates.npy", row.astype(np.uint32))
    np.save(path / "amplitudes.npy", (20.0 + 3.0 * (row % 7)).astype(np.float64))
    np.save(path / "templates.npy", _templates(rec, n_channels))
    np.save(path / "channel_map.npy", np.arange(n_channels, dtype=np.int32))
    np.save(path / "channel_positions.npy", np.c_[np.where(np.arange(n_channels) % 2, 16.0, 0.0), _SPACING * (np.arange(n_channels) // 2)])
    groups = [q if q in ("good", "mua", "noise") else "good" for q in s.units["quality"].astype(str)]
    for file, column in (("cluster_group.tsv", "group"), ("cluster_KSLabel.tsv", "KSLabel")):
        rows = "".join(f"{i}\t{g}\n" for i, g in zip(s.units["id"], groups))
        (path / file).write_text(f"cluster_id\t{column}\n{rows}", encoding="utf-8")
    if (s.units["region"].astype(str) != "").any():
        (path / "cluster_region.tsv").write_text("cluster_id\tregion\n" + "".join(f"{i}\t{r}\n" for i, r in zip(s.units["id"], s.units["region"])), "utf-8")
    text = f"dat_path = '{name}.dat'\nn_channels_dat = {n_channels}\ndtype = 'int16'\noffset = 0\nsample_rate = {_RATE}.\nhp_filtered = False\n"
    (path / "params.py").write_text(text, encoding="utf-8")


def _templates(rec: Recording, n_channels: int) -> NDArray[np.float32]:
    """A trough and an after-hyperpolarisation, narrow for interneurons, that fades along the probe (unit, sample, channel)."""
    assert rec.spikes is not None
    units = rec.spikes.units
    t = (np.arange(_SAMPLES) - 25) / _RATE * 1e3
    out = np.zeros((len(units), _SAMPLES, n_channels), dtype=np.float32)
    narrow = units["type"].astype(str).str.contains("inter").to_numpy() if "type" in units else np.zeros(len(units), dtype=bool)
    for k in range(len(units)):
        late = 0.3 if narrow[k] else 0.7  # ms from trough to peak
        wave = -np.exp(-0.5 * (t / 0.12) ** 2) + 0.35 * np.exp(-0.5 * ((t - late) / 0.2) ** 2)
        fade = np.exp(-0.5 * ((np.arange(n_channels) - (2 * k) % n_channels) / 1.5) ** 2)
        out[k] = wave[:, None] * fade
    return out
