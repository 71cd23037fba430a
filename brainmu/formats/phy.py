"""Spike-sorting folders of Kilosort and Phy: spike times and clusters, the curator's groups, templates and amplitudes as unit features."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable, Recording, Spikes
from brainmu.errors import FormatError, InputError
from brainmu.formats.arrays import load_array
from brainmu.formats.sources import ArrayFile, need_file
from brainmu.formats.tables import read_table

__all__ = ["detect", "read"]

_SORTERS = ("kilosort4", "kilosort3", "kilosort2.5", "kilosort2", "kilosort", "sorter_output", "phy", "phy_export")


def detect(path: Path) -> bool:
    """Whether `path` is a folder with spike_times.npy and spike_clusters.npy (or spike_templates.npy)."""
    return path.is_dir() and (path / "spike_times.npy").is_file() and _clusters_file(path).is_file()


def _clusters_file(path: Path) -> Path:
    # Kilosort alone, before anyone opened Phy, has templates only.
    return path / "spike_clusters.npy" if (path / "spike_clusters.npy").is_file() else path / "spike_templates.npy"


def read(path: Path, *, groups: tuple[str, ...] | list[str] | str = ("good",), rate: float | None = None, start: float = 0.0) -> Recording:
    """The units of a sorted recording: Kilosort 2 to 4, with or without the curation of Phy.

    Spike times count from the first sample of the file that was sorted. Where several recordings were joined for it, ``params.py`` lists their files
    (`dat_path`), and the borders become the label "recordings" if those files are at hand.

    Parameters
    ----------
    groups : names, default ("good",)
        Which cluster groups to keep (good, mua, unsorted; noise). The curator's group counts, Kilosort's label where there is none.
    rate : float, Hz
        Sampling rate, where there is no params.py.
    start : float, s
        Session time of the first sample that was sorted.

    Raises
    ------
    FormatError
        If arrays differ in length or the rate is unknown.
    """
    wanted = (groups,) if isinstance(groups, str) else tuple(groups)
    place = path.resolve()
    # Folders that a sorter names for itself say nothing of the recording.
    name = place.parent.name if place.name.lower() in _SORTERS and place.parent.name else place.name
    rec = Recording(id=re.sub(r"[^\w.+-]+", "_", name))
    rec.source = {"format": "phy", "files": [], "warnings": []}
    params = _params(path, rec)
    clock = rate if rate is not None else params.get("sample_rate")
    if not isinstance(clock, int | float) or not clock > 0:
        raise FormatError(f"{path}: the sampling rate is unknown (sample_rate of params.py is {clock!r}): pass rate=30000")
    samples, clusters = _vector(path / "spike_times.npy", rec), _vector(_clusters_file(path), rec)
    if len(samples) != len(clusters):
        raise FormatError(f"{path}: {len(samples)} spike times and {len(clusters)} clusters, expected one cluster a spike: a file is truncated")
    if samples.dtype.kind not in "iuf" or clusters.dtype.kind not in "iuf" or not len(samples):
        raise FormatError(f"{path}: spike_times.npy holds {len(samples)} values of type {samples.dtype}, expected sample numbers of spikes")
    if samples.min() < 0:
        rec.warn(f"{int((samples < 0).sum())} spikes lie before the first sample and were left out")
    ids, counts = np.unique(clusters, return_counts=True)
    units = pd.DataFrame({"id": ids.astype(np.int32), "n_spikes": counts})
    units["quality"] = _groups(path, ids, rec)
    _features(path, units, clusters, float(clock), rec)
    _curation(path, units, rec)
    keep = units["quality"].isin(wanted)
    if not keep.any():
        have = ", ".join(f"{n} {q}" for q, n in units["quality"].value_counts().items())
        raise InputError(f"{path}: no cluster is {' or '.join(wanted)}, there are {have}: pass groups=")
    if not keep.all():
        left = units[~keep]
        shown = ", ".join(f"{n} {q}" for q, n in left["quality"].value_counts().items())
        rec.warn(f"left out {len(left)} clusters ({shown}; {int(left['n_spikes'].sum())} spikes); kept {int(keep.sum())} {'/'.join(wanted)}")
    chosen = np.isin(clusters, units.loc[keep, "id"]) & (samples >= 0)
    times = start + samples[chosen].astype(np.float64) / clock
    rec.spikes = Spikes(times, clusters[chosen], units[keep].reset_index(drop=True))
    _recordings(path, params, float(clock), start, rec)
    return rec


def _recordings(path: Path, params: dict[str, Any], rate: float, start: float, rec: Recording) -> None:
    """The borders of the files that were joined for sorting."""
    named = params.get("dat_path")
    files = [str(f) for f in named] if isinstance(named, list | tuple) else [str(named)] if named else []
    n, kind = params.get("n_channels_dat"), params.get("dtype", "int16")
    if len(files) < 2 or not isinstance(n, int) or n < 1:
        return
    found = [p if (p := Path(f)).is_absolute() else path / p for f in files]
    if not all(p.is_file() for p in found):
        rec.warn(f"{len(files)} recordings were joined for sorting and not all of their files are here: where one ends is unknown, times count through")
        return
    try:
        width = np.dtype(str(kind)).itemsize * n
    except TypeError:
        raise FormatError(f"{path / 'params.py'}: dtype is {kind!r}, expected the name of a NumPy type") from None
    offset = params.get("offset", 0)
    length = np.array([(p.stat().st_size - (int(offset) if isinstance(offset, int) else 0)) // width for p in found])
    edges = start + np.r_[0, np.cumsum(length)] / rate
    rec.labels["recordings"] = EventTable(edges[:-1], edges[1:], kind="recording", content=[p.name for p in found])
    rec.warn(f"{len(files)} recordings were joined for sorting: their borders are the label 'recordings', and times count through them")


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


def _features(path: Path, units: pd.DataFrame, clusters: NDArray[Any], rate: float, rec: Recording) -> None:
    """Median amplitude, and from the templates the peak channel, its place, the width and the depth; Kilosort's own positions where it has them."""
    amplitudes = _per_spike(path, "amplitudes.npy", len(clusters), rec)
    if amplitudes is not None:
        units["amplitude"] = pd.Series(amplitudes).groupby(clusters).median().reindex(units["id"]).to_numpy()
    placed = _per_spike(path, "spike_positions.npy", len(clusters), rec, columns=True)
    if placed is not None:
        middle = pd.DataFrame(placed[:, :2]).groupby(clusters).median().reindex(units["id"]).to_numpy()
        units["spike_x"], units["depth"] = middle[:, 0], middle[:, 1]
    templates = path / "templates.npy"
    used = _per_spike(path, "spike_templates.npy", len(clusters), rec)
    if not templates.is_file() or used is None:
        return
    rec.source["files"].append(str(templates.resolve()))
    shapes = _array(templates)
    if shapes.ndim != 3 or (len(used) and int(used.max()) >= len(shapes)):
        rec.warn("templates.npy does not fit the spikes: unit features were left out")
        return
    main = pd.Series(used).groupby(clusters).agg(lambda t: np.bincount(t.to_numpy(dtype=np.int64)).argmax())
    waves = np.asarray(shapes[main.reindex(units["id"]).to_numpy(dtype=np.int64)])
    height = np.ptp(waves, axis=1)
    local = height.argmax(axis=1)
    best = waves[np.arange(len(waves)), :, local]
    trough = best.argmin(axis=1)
    # Sparse templates (Phy's own export) name the channels of their columns; -1 fills up.
    peak = local
    if (sparse := path / "templates_ind.npy").is_file() or (sparse := path / "template_ind.npy").is_file():
        index = _array(sparse)
        if index.shape == (len(shapes), shapes.shape[2]):
            rec.source["files"].append(str(sparse.resolve()))
            peak = index[main.reindex(units["id"]).to_numpy(dtype=np.int64), local].astype(np.int64)
    units["peak_channel"] = peak
    width = np.array([int(w[t:].argmax()) for w, t in zip(best, trough)])
    units["trough_to_peak_samples"] = width
    units["trough_to_peak_ms"] = width / rate * 1e3
    where = _channel_table(path, "channel_positions.npy", rec)
    if where is not None and where.ndim == 2 and len(where) > peak.max():
        units["x"], units["y"] = where[peak, 0], where[peak, 1]
        if "depth" not in units and waves.shape[2] == len(where):
            # The centre of mass of the template's height along the probe.
            weight = height**2
            total = weight.sum(axis=1)
            units["depth"] = np.where(total > 0, (weight * where[:, 1]).sum(axis=1) / np.where(total > 0, total, 1.0), where[peak, 1])
    mapped = _channel_table(path, "channel_map.npy", rec)
    if mapped is not None and mapped.size > peak.max():
        units["source_channel"] = mapped.ravel()[peak].astype(np.int64)
    shanks = _channel_table(path, "channel_shanks.npy", rec)
    if shanks is not None and shanks.size > peak.max():
        units["group"] = shanks.ravel()[peak].astype(np.int64)


def _array(path: Path) -> NDArray[Any]:
    return load_array(path, ArrayFile(path.name))


def _channel_table(path: Path, name: str, rec: Recording) -> NDArray[Any] | None:
    if not (path / name).is_file():
        return None
    rec.source["files"].append(str((path / name).resolve()))
    return _array(path / name)


def _per_spike(path: Path, name: str, n: int, rec: Recording, *, columns: bool = False) -> NDArray[Any] | None:
    """An array with one value (or row) a spike; None where it is absent or, said, of another length."""
    if not (path / name).is_file():
        return None
    if str((path / name).resolve()) not in rec.source["files"]:
        rec.source["files"].append(str((path / name).resolve()))
    values = _array(path / name)
    if (values.ndim == 2 and values.shape[1] > 1) != columns or len(values if columns else values.ravel()) != n:
        rec.warn(f"{name} has the shape {values.shape}, expected one row for each of {n} spikes: it was left out")
        return None
    return values if columns else values.ravel()


def _curation(path: Path, units: pd.DataFrame, rec: Recording) -> None:
    """What the curator, or Kilosort, noted of each cluster beside its group (cluster_NAME.tsv): Amplitude, ContamPct, region, …"""
    for file in sorted(path.glob("cluster_*.tsv")):
        name = file.stem.removeprefix("cluster_")
        if name in ("group", "KSLabel", "info") or name in units:
            continue
        table = read_table(need_file(file, "what was noted of the clusters"), ArrayFile(file.name, delimiter="tab", header=True))
        column = next((c for c in table.columns if str(c) not in ("cluster_id", "id")), None)
        if "cluster_id" not in table or column is None or not len(table) or table["cluster_id"].duplicated().any():
            continue
        rec.source["files"].append(str(file.resolve()))
        values = table.set_index("cluster_id")[column].reindex(units["id"])
        units[{"Amplitude": "ks_amplitude", "ContamPct": "contamination_percent"}.get(name, name)] = (
            values.to_numpy(dtype=np.float64) if pd.api.types.is_numeric_dtype(values) else values.fillna("").astype(str).to_numpy()
        )
