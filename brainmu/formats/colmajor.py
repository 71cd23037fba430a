"""Intracranial EEG as pairs of ``*_ColMajor.bin`` (all samples of one channel, then the next) and ``*_Meta.csv``, as NeuRodent reads them."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

import pandas as pd

from brainmu.core import Recording, Signal
from brainmu.core.units import unit_factor
from brainmu.errors import FormatError
from brainmu.formats.arrays import open_array
from brainmu.formats.sources import ArrayFile, need_file
from brainmu.formats.tables import read_table

__all__ = ["detect", "members", "read"]

_BIN, _META = "_ColMajor.bin", "_Meta.csv"
_COLUMNS = ("BinColumn", "Label", "SampleRate", "Units", "Precision")


def members(path: Path) -> list[Path]:
    """The .bin files of a folder that have their Meta.csv beside them."""
    return [p for p in sorted(path.glob(f"*{_BIN}")) if _meta(p).exists()] if path.is_dir() else []


def detect(path: Path) -> bool:
    """Whether `path` is such a .bin, or a folder with some."""
    return path.name.endswith(_BIN) and _meta(path).exists() if path.is_file() else bool(members(path))


def _meta(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(_BIN) + _META)


def read(path: Path, *, kind: str = "eeg") -> Recording:
    """One recording: a signal of `kind` with the channels, rate and unit that Meta.csv names.

    Raises
    ------
    FormatError
        If the two files do not fit each other; several pairs in a folder, of which none was named.
    """
    if path.is_dir():
        found = members(path)
        if len(found) > 1:
            raise FormatError(f"{path}: holds {len(found)} recordings ({', '.join(p.name for p in found)}): name one of them")
        path = found[0]
    meta = need_file(_meta(path), "channel table")
    table = read_table(meta, ArrayFile(str(meta)))
    absent = [c for c in _COLUMNS if c not in table]
    if absent:
        raise FormatError(f"{meta}: has columns {', '.join(map(str, table.columns))}, expected {', '.join(_COLUMNS)}")
    one = {}
    for column in ("SampleRate", "Units", "Precision"):
        values = table[column].unique()
        if len(values) != 1:
            raise FormatError(f"{meta}: {column} differs between channels ({', '.join(map(str, values))}), expected one for all")
        one[column] = values[0]
    table = table.sort_values("BinColumn").reset_index(drop=True)
    if table["BinColumn"].tolist() != list(range(1, len(table) + 1)):
        raise FormatError(f"{meta}: BinColumn is {table['BinColumn'].tolist()}, expected 1 to {len(table)} once each")
    values = open_array(path, ArrayFile(str(path), dtype=str(one["Precision"]), n_channels=len(table), order="F"))
    factor, unit = unit_factor(str(one["Units"]), kind=kind)
    channels = pd.DataFrame({"name": table["Label"].astype(str)})
    if "ProbeInfo" in table:
        channels["probe"] = table["ProbeInfo"].astype(str)
    rec = Recording(id=re.sub(r"[^\w.+-]+", "_", path.name.removesuffix(_BIN)))
    rec.source = {"format": "colmajor", "files": [str(path.resolve()), str(meta.resolve())], "warnings": []}
    rec.signals[kind] = Signal(values, rate=float(one["SampleRate"]), unit=unit, kind=kind, channels=channels, scale=factor)
    if "LastEdit" in table and isinstance(table["LastEdit"].iloc[0], str):
        # Local time of a file edit, no time zone: kept as text, it is not a start time.
        rec.source["last_edit"] = datetime.fromisoformat(table["LastEdit"].iloc[0]).isoformat()
    return rec
