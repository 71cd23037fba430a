"""What a report is made of: recordings, hypnograms, events, effects, maps and runs, recognised from objects, files and folders."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from brainmu.core import Effect, EventTable, Hypnogram, Recording, stage_group
from brainmu.errors import FormatError, InputError, NotFoundError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Material", "Run", "gather"]


@dataclass
class Run:
    """A training run: its metrics (a row a log line), held-out losses beside trivial ones (target to predictor to loss), its configuration."""

    metrics: pd.DataFrame | None = None
    config: dict[str, Any] = field(default_factory=dict)
    held_out: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass
class Material:
    """Everything given, by name, each kind in the order it came."""

    recordings: dict[str, Recording] = field(default_factory=dict)
    hypnograms: dict[str, Hypnogram] = field(default_factory=dict)
    events: dict[str, EventTable] = field(default_factory=dict)
    effects: dict[str, Effect] = field(default_factory=dict)
    maps: dict[str, xr.Dataset | xr.DataArray] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    comparison: list[dict[str, Any]] = field(default_factory=list)

    def of(self, kind: str, recording: Recording) -> dict[str, Any]:
        """Hypnograms or events that belong to `recording`: named after it, or any where there is only one recording."""
        out = {}
        for name, value in getattr(self, kind).items():
            if len(self.recordings) == 1 or value.attrs.get("recording") == recording.id or self._owner(name) == recording.id:
                out[_short(name, recording.id)] = value
        return out

    def orphans(self, kind: str) -> dict[str, Any]:
        """Those that belong to none."""
        owned = {id(v) for r in self.recordings.values() for v in self.of(kind, r).values()}
        return {k: v for k, v in getattr(self, kind).items() if id(v) not in owned}

    def _owner(self, name: str) -> str | None:
        # The longest id wins, so that m1_day2 does not fall to m1.
        return max((r for r in self.recordings if name.startswith(r) or f"_{r}" in name), key=len, default=None)


def _short(name: str, recording: str) -> str:
    return name.replace(recording, "").strip("_- .") or name


def gather(given: Any) -> Material:
    """Sort what was given into a Material.

    Parameters
    ----------
    given : path, object, (name, path or object), or an iterable or mapping of them
        Recordings, hypnograms, event tables, effects, attribution maps (xarray), training metrics (DataFrame with a loss), planted-against-found
        tables (DataFrame or list of rows with quantity, planted, found), or files and folders that hold them.

    Raises
    ------
    NotFoundError
        If a path does not exist.
    FormatError
        If a file is none of these, or damaged.
    InputError
        If nothing came, or an object is none of these.
    """
    material = Material()
    items = _items(given)
    if not items:
        raise InputError("nothing to report on: give at least one store, recording or result file")
    for name, item in items:
        if isinstance(item, (str, os.PathLike)) and not isinstance(item, Recording):
            path = Path(item)
            _add_path(material, name or path.name, path)
        elif not _add(material, name, item):
            raise InputError(f"cannot report on a {type(item).__name__}: give recordings, hypnograms, event tables, effects, xarray maps, tables, or paths")
    return material


def _items(given: Any) -> list[tuple[str, Any]]:
    if isinstance(given, Mapping) and not (set(given) & {"estimand", "comparison"}):
        return [(str(k), v) for k, v in given.items()]
    single = (str, os.PathLike, Recording, Hypnogram, EventTable, Effect, pd.DataFrame, Mapping)
    if isinstance(given, single) or hasattr(given, "dims") or not isinstance(given, Iterable):
        return [("", given)]
    return [(str(x[0]), x[1]) if isinstance(x, tuple) and len(x) == 2 else ("", x) for x in given]


def _add(material: Material, name: str, item: Any) -> bool:
    if isinstance(item, Recording):
        if item.id in material.recordings:
            raise InputError(f"two recordings are called {item.id!r}: give each its own id")
        material.recordings[item.id] = item
    elif isinstance(item, Hypnogram):
        _put(material.hypnograms, name or item.scorer or "hypnogram", item)
    elif isinstance(item, EventTable):
        _put(material.events, name or (str(item.kind[0]) if len(item) else "events"), item)
    elif isinstance(item, Effect):
        _put(material.effects, name or item.level, item)
    elif hasattr(item, "dims") and hasattr(item, "coords"):
        _put(material.maps, name or str(getattr(item, "name", None) or "attribution"), item)
    elif isinstance(item, pd.DataFrame) or (isinstance(item, list) and item and all(isinstance(r, Mapping) for r in item)):
        return _add_table(material, name, pd.DataFrame(item))
    else:
        return False
    return True


def _put(where: dict[str, Any], name: str, value: Any) -> None:
    k, key = 2, name
    while key in where:
        key, k = f"{name} {k}", k + 1
    where[key] = value


def _add_table(material: Material, name: str, frame: pd.DataFrame) -> bool:
    columns = {str(c) for c in frame.columns}
    if {"quantity", "planted", "found"} <= columns:
        material.comparison += [{str(k): v for k, v in r.items()} for r in frame.to_dict("records")]
    elif any("loss" in c.lower() for c in columns):
        _put(material.runs, name or "training", Run(frame))
    else:
        return False
    return True


# -- files and folders ------------------------------------------------------------------------------------------------------
def _add_path(material: Material, name: str, path: Path) -> None:
    if not path.exists():
        raise NotFoundError(f"{path}: no such file or folder, expected a store or a result file")
    stem = name.removesuffix(".zarr") if path.is_dir() else path.stem.removesuffix("_events") if name == path.name else name
    if path.is_dir():
        _add_folder(material, stem, path)
        return
    suffix = path.suffix.lower()
    if suffix == ".tsv":
        _add(material, stem, _read_tsv(path))
    elif suffix == ".npz":
        from brainmu.sleep.files import read_hypnogram

        _add(material, stem, read_hypnogram(path))
    elif suffix == ".json":
        _add_json(material, stem, path)
    elif suffix == ".csv":
        if not _add_table(material, stem, _read_csv(path)):
            raise FormatError(f"{path}: is neither training metrics (a column with 'loss') nor planted against found (quantity, planted, found)")
    elif suffix == ".nc":
        _add(material, stem, _read_netcdf(path))
    elif suffix == ".edf" and (hypnogram := _edf_hypnogram(path)) is not None:
        _add(material, stem, hypnogram)
    else:
        _add_recording_file(material, path)


def _add_folder(material: Material, name: str, path: Path) -> None:
    if (path / "zarr.json").is_file():
        attributes = _json(path / "zarr.json").get("attributes", {})
        if any("brainmu" in str(k) or k in ("schema", "schema_version") for k in attributes):
            import brainmu.store

            _add(material, name, brainmu.store.open(path))
        else:
            _add(material, name, _read_zarr(path))
    elif (metrics := next((m for m in (path / "metrics.csv", *sorted(path.glob("**/metrics.csv"))) if m.is_file()), None)) is not None:
        _put(material.runs, name, Run(_read_csv(metrics), _config(path), _held_out(path / "report.json")))
    elif (path / "config.yaml").is_file():
        _put(material.runs, name, Run(None, _config(path)))
    elif stores := sorted(p for p in path.glob("*.zarr") if (p / "zarr.json").is_file()):
        for store in stores:
            _add_folder(material, store.stem, store)
    else:
        _add_recording_file(material, path)


def _held_out(path: Path) -> dict[str, dict[str, float]]:
    """Held-out losses by target of the model and of what costs nothing to predict; empty where the run has no such file or another."""
    data = _json(path) if path.is_file() else {}
    rows = data.items() if isinstance(data, dict) else ()
    return {str(k): {n: float(v) for n, v in row.items() if isinstance(v, (int, float))} for k, row in rows if isinstance(row, dict) and "model" in row}


def _config(path: Path) -> dict[str, Any]:
    from brainmu.config import read_yaml

    return read_yaml(path / "config.yaml") if (path / "config.yaml").is_file() else {}


def _add_recording_file(material: Material, path: Path) -> None:
    import brainmu.formats

    _add(material, "", brainmu.formats.read(path))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: is not valid JSON ({' '.join(str(error).split())[:120]})") from None


def _add_json(material: Material, name: str, path: Path) -> None:
    data = _json(path)
    if isinstance(data, dict) and isinstance(data.get("effect"), dict):
        data = data["effect"]
    if isinstance(data, dict) and {"estimand", "estimate", "level"} <= set(data):
        _put(material.effects, name, _effect(data, path))
        return
    rows = data.get("comparison") if isinstance(data, dict) else data
    if isinstance(rows, list) and rows and all(isinstance(r, dict) for r in rows) and _add_table(material, name, pd.DataFrame(rows)):
        return
    have = ", ".join(list(data)[:8]) if isinstance(data, dict) else f"a {type(data).__name__}"
    raise FormatError(f"{path}: holds {have}, expected an effect (estimand, estimate, level, …) or planted against found (quantity, planted, found)")


def _effect(data: dict[str, Any], path: Path) -> Effect:
    known = {f.name for f in dataclasses.fields(Effect)}
    # Strict JSON has no NaN: null stands for it.
    numbers = {"estimate", "low", "high", "p_value", "horizon", "blank"}
    given = {k: (float("nan") if v is None and k in numbers else v) for k, v in data.items() if k in known}
    given["null"] = np.array([np.nan if v is None else v for v in given.get("null") or []], dtype=np.float64)
    try:
        return Effect(**given)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{path}: is not a whole effect ({' '.join(str(error).split())[:160]})") from None


def _read_csv(path: Path, sep: str = ",") -> pd.DataFrame:
    try:
        return pd.read_csv(path, sep=sep)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        raise FormatError(f"{path}: cannot be read as a table ({' '.join(str(error).split())[:120]})") from None


def _read_tsv(path: Path) -> Hypnogram | EventTable:
    """A hypnogram where the rows name stages, an event table otherwise."""
    from brainmu.sleep.files import read_hypnogram

    frame = _read_csv(path, "\t")
    named = next((c for c in ("stage", "staging", "trial_type") if c in frame), None)
    if named is not None and len(frame) and all(_is_stage(v) for v in frame[named].unique()):
        return read_hypnogram(path)
    return EventTable.from_bids(path)


def _is_stage(value: Any) -> bool:
    try:
        return bool(stage_group(str(value).strip()))
    except InputError:
        return False


def _edf_hypnogram(path: Path) -> Hypnogram | None:
    """The hypnogram of an EDF+ that holds annotations only; None where it holds signals."""
    from edfio import read_edf

    try:
        if len(read_edf(path).signals):
            return None
    except (ValueError, OSError):
        return None
    from brainmu.sleep.files import read_hypnogram

    return read_hypnogram(path)


def _read_netcdf(path: Path) -> xr.Dataset:
    import xarray as xr

    try:
        with xr.open_dataset(path) as found:
            return found.load()
    except (ValueError, OSError, KeyError) as error:
        raise FormatError(f"{path}: cannot be read as NetCDF ({' '.join(str(error).split())[:120]})") from None


def _read_zarr(path: Path) -> xr.Dataset:
    import xarray as xr

    try:
        with xr.open_zarr(path) as found:
            return found.load()
    except (ValueError, OSError, KeyError) as error:
        raise FormatError(f"{path}: is a zarr folder but neither a store nor a map ({' '.join(str(error).split())[:120]})") from None
