"""Spike-sorting folders of Kilosort and Phy: spike times and clusters, the curator's groups, templates and amplitudes as unit features."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import Recording, Spikes
from brainmu.errors import FormatError, InputError
from brainmu.formats.arrays import load_array
from brainmu.formats.sources import ArrayFile, need_file
from brainmu.formats.tables import read_table

__all__ = ["detect", "read"]


def detect(path: Path) -> bool:
    """Whether `path` is a folder with spike_times.npy and spike_clusters.npy (or spike_templates.npy)."""
    return path.is_dir() and (path / "spike_times.npy").is_file() and _clusters_file(path).is_file()


def _clusters_file(path: Path) -> Path:
    # Kilosort alone, before anyone opened Phy, has templates only.
    return path / "spike_clusters.npy" if (path / "spike_clusters.npy").is_file() else path / "spike_templates.npy"


def read(path: Path, *, groups: tuple[str, ...] | list[str] | str = ("good",), rate: float | None = None) -> Recording:
    """The units of a sorted recording.

    Parameters
    ----------
    groups : names, default ("good",)
        Which cluster groups to keep (good, mua, unsorted; noise). The curator's group counts, Kilosort's label where there is none.
    rate : float, Hz
        Sampling rate, where there is no params.py.

    Raises
    ------
    FormatError
        If arrays differ in length or the rate is unknown.
    """
    wanted = (groups,) if isinstance(groups, str) else tuple(groups)
    rec = Recording(id=re.sub(r"[^\w.+-]+", "_", path.resolve().name))
    rec.source = {"format": "phy", "files": [], "warnings": []}
    params = _params(path, rec)
    clock = rate if rate is not None else params.get("sample_rate")
    if not isinstance(clock, int | float) or not clock > 0:
        raise FormatError(f"{path}: the sampling rate is unknown (sample_rate of params.py is {clock!r}): pass rate=30000")
    samples, clusters = _vector(path / "spike_times.npy", rec), _vector(_clusters_file(path), rec)
    if len(samples) != len(clusters):
        raise FormatError(f"{path}: {len(samples)} spike times and {len(clusters)} clusters, expected one cluster a spike: a file is truncated")
    ids, counts = np.unique(clusters, return_counts=True)
    units = pd.DataFrame({"id": ids.astype(np.int32), "n_spikes": counts})
    units["quality"] = _groups(path, ids, rec)
    _features(path, units, clusters, rec)
    keep = units["quality"].isin(wanted)
    if not keep.any():
        have = ", ".join(f"{n} {q}" for q, n in units["quality"].value_counts().items())
        raise InputError(f"{path}: no cluster is {' or '.join(wanted)}, there are {have}: pass groups=")
    if not keep.all():
        left = units[~keep]
        shown = ", ".join(f"{n} {q}" for q, n in left["quality"].value_counts().items())
        rec.warn(f"left out {len(left)} clusters ({shown}; {int(left['n_spikes'].sum())} spikes); kept {int(keep.sum())} {'/'.join(wanted)}")
    chosen = np.isin(clusters, units.loc[keep, "id"])
    rec.spikes = Spikes(samples[chosen] / clock, clusters[chosen], units[keep].reset_index(drop=True))
    return rec


def _vector(path: Path, rec: Recording) -> NDArray[Any]:
    rec.source["files"].append(str(path.resolve()))
    return load_array(path, ArrayFile(path.name)).ravel()


def _params(path: Path, rec: Recording) -> dict[str, Any]:
    """Plain assignments of params.py; nothing in it is run."""
    file = path / "params.py"
    if not file.is_file():
        return {}
    rec.source["files"].append(str(file.resolve()))
    out: dict[str, Any] = {}
    try:
        tree = ast.parse(need_file(file, "parameters of Phy").read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise FormatError(f"{file}: not readable as Python assignments ({error}): write sample_rate = 30000. on a line of its own") from None
    for node in tree.body:
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            try:
                out[node.targets[0].id] = ast.literal_eval(node.value)
            except ValueError:
                continue  # an expression such as a path: not needed here
    return out


def _groups(path: Path, ids: NDArray[Any], rec: Recording) -> list[str]:
    """The group of each cluster: cluster_group over cluster_info over Kilosort's own label; else "unsorted"."""
    labels: dict[int, str] = {}
    for name, column in (("cluster_KSLabel", "KSLabel"), ("cluster_info", "group"), ("cluster_group", "group")):
        file = next((p for s in (".tsv", ".csv") if (p := path / f"{name}{s}").is_file()), None)
        if file is None:
            continue
        table = read_table(file, ArrayFile(file.name, delimiter="tab", header=True))
        key = next((k for k in ("cluster_id", "id") if k in table), None)
        if key is None or column not in table:
            if name == "cluster_info":
                continue
            raise FormatError(f"{file}: has columns {', '.join(map(str, table.columns))}, expected cluster_id and {column}")
        rec.source["files"].append(str(file.resolve()))
        labels |= {int(i): str(g) for i, g in zip(table[key], table[column]) if isinstance(g, str)}
    return [labels.get(int(i), "unsorted") for i in ids]


def _features(path: Path, units: pd.DataFrame, clusters: NDArray[Any], rec: Recording) -> None:
    """Median amplitude, and from the templates the peak channel, its position and the trough-to-peak width in samples."""
    if (file := path / "amplitudes.npy").is_file():
        amplitudes = _vector(file, rec)
        if len(amplitudes) == len(clusters):
            median = pd.Series(amplitudes).groupby(clusters).median()
            units["amplitude"] = median.reindex(units["id"]).to_numpy()
    templates, of_spike = path / "templates.npy", path / "spike_templates.npy"
    if not (templates.is_file() and of_spike.is_file()):
        return
    rec.source["files"].append(str(templates.resolve()))
    shapes = load_array(templates, ArrayFile("templates.npy"))
    used = _vector(of_spike, rec) if str(of_spike.resolve()) not in rec.source["files"] else load_array(of_spike, ArrayFile("x")).ravel()
    if shapes.ndim != 3 or len(used) != len(clusters) or (len(used) and int(used.max()) >= len(shapes)):
        rec.warn("templates.npy does not fit the spikes: unit features were left out")
        return
    main = pd.Series(used).groupby(clusters).agg(lambda t: np.bincount(t.to_numpy(dtype=np.int64)).argmax())
    waves = shapes[main.reindex(units["id"]).to_numpy(dtype=np.int64)]
    peak = np.ptp(waves, axis=1).argmax(axis=1)
    best = waves[np.arange(len(waves)), :, peak]
    trough = best.argmin(axis=1)
    units["peak_channel"] = peak
    units["trough_to_peak_samples"] = [int(w[t:].argmax()) for w, t in zip(best, trough)]
    if (file := path / "channel_positions.npy").is_file():
        rec.source["files"].append(str(file.resolve()))
        where = load_array(file, ArrayFile(file.name))
        if where.ndim == 2 and len(where) > peak.max():
            units["x"], units["y"] = where[peak, 0], where[peak, 1]
