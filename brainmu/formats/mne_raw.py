"""FIF, BrainVision, EEGLAB and the like through MNE, lazily: a span is read when it is asked for."""

from __future__ import annotations

import configparser
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import Intervals, Recording, Signal
from brainmu.errors import FormatError
from brainmu.formats.annotations import add_annotations
from brainmu.formats.lazy import Rows
from brainmu.formats.sources import need_file

__all__ = ["detect", "read"]

_KINDS = {"eeg": "eeg", "ecog": "eeg", "seeg": "eeg", "dbs": "lfp", "eog": "eog", "emg": "emg", "ecg": "ecg", "stim": "sync", "misc": "other", "bio": "other"}
_SUFFIXES = (".fif", ".fif.gz", ".vhdr", ".set", ".cnt")


def detect(path: Path) -> bool:
    """Whether `path` is a raw file that MNE reads and brainmu does not read itself."""
    if not path.is_file() or not path.name.lower().endswith(_SUFFIXES):
        return False
    with path.open("rb") as f:
        return f.read(10) != b"trial_date"  # an Axona .set


def read(path: Path, *, kinds: dict[str, str] | None = None) -> Recording:
    """Signals by kind in µV (MEG in its own units), annotations as labels, bad channels as column `bad`.

    Raises
    ------
    FormatError
        If MNE cannot read the file.
    """
    need_file(path, "a raw file for MNE")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        raw = _open(path)
    rec = Recording(id=re.sub(r"[^\w.+-]+", "_", re.sub(r"\.fif(\.gz)?$", "", path.name).removesuffix(path.suffix)))
    files = [str(Path(f).resolve()) for f in raw.filenames if f is not None] or [str(path.resolve())]
    rec.source = {"format": "mne", "files": list(dict.fromkeys([str(path.resolve()), *files])), "warnings": []}
    for text in dict.fromkeys(" ".join(str(w.message).split()) for w in caught):
        rec.warn(f"MNE: {text[:200]}")
    rec.started_at = raw.info["meas_date"]
    info = raw.info.get("subject_info") or {}
    rec.subject = str(info.get("his_id") or "")
    if info.get("sex") in (1, 2):
        rec.subject_meta["sex"] = "MF"[info["sex"] - 1]
    _signals(path, raw, rec, kinds or {})
    _labels(raw, rec)
    return rec


def _open(path: Path) -> Any:
    import mne

    try:
        return mne.io.read_raw(path, preload=False, verbose="error")
    except (ValueError, OSError, RuntimeError, KeyError, TypeError, NotImplementedError, configparser.Error) as error:
        raise FormatError(f"{path}: MNE cannot read it ({' '.join(str(error).split())[:200]}): it is truncated, or not what its suffix says") from None


class _MneRows(Rows):
    """Some channels of a file that MNE reads, opened anew in each process."""

    dtype = np.dtype(np.float64)

    def __init__(self, path: Path, raw: Any, picks: list[int], factor: float) -> None:
        self.path, self.picks, self.factor = path, picks, factor
        self.shape = (int(raw.n_times), len(picks))
        self._raw: Any = raw

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_raw": None}

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        if j <= i:
            return np.empty((0, self.shape[1]))
        if self._raw is None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # said when the file was opened first
                self._raw = _open(self.path)
        return self._raw.get_data(picks=self.picks, start=i, stop=j, verbose="error").T * self.factor


def _signals(path: Path, raw: Any, rec: Recording, kinds: dict[str, str]) -> None:
    types = raw.get_channel_types()
    if stray := set(kinds) - set(raw.ch_names):
        raise FormatError(f"{path}: kinds names the channel {sorted(stray)[0]!r}, the file has {', '.join(raw.ch_names[:20])}")
    groups: dict[tuple[str, str], list[int]] = {}
    for i, (name, kind) in enumerate(zip(raw.ch_names, types)):
        groups.setdefault((kinds.get(name) or _KINDS.get(kind, "other"), kind), []).append(i)
    for (kind, theirs), picks in groups.items():
        volts = theirs in ("eeg", "ecog", "seeg", "dbs", "eog", "emg", "ecg")
        table = pd.DataFrame({"name": [raw.ch_names[i] for i in picks], "bad": [raw.ch_names[i] in raw.info["bads"] for i in picks]})
        xyz = np.array([raw.info["chs"][i]["loc"][:3] for i in picks], dtype=float)
        if np.isfinite(xyz).all() and xyz.any():
            table[["x", "y", "z"]] = xyz
        unit = "uV" if volts else {"mag": "T", "grad": "T/m", "ref_meg": "T"}.get(theirs, "")
        name = kind if kind != "other" else theirs
        values = _MneRows(path, raw, picks, 1e6 if volts else 1.0)
        name = name if name not in rec.signals else f"{name}_{theirs}"
        rec.signals[name] = Signal(values, rate=float(raw.info["sfreq"]), unit=unit, kind=kind, channels=table)


def _labels(raw: Any, rec: Recording) -> None:
    # MNE counts onsets from the start of the acquisition; the first sample lies first_time later.
    found = [(float(a["onset"]) - raw.first_time, float(a["duration"]), str(a["description"])) for a in raw.annotations]
    bad = [(t, t + d) for t, d, text in found if text.upper().startswith(("BAD", "EDGE")) and d > 0]
    if bad:
        rec.labels["artefacts"] = Intervals.merge(bad)
    add_annotations(rec, [a for a in found if not a[2].upper().startswith(("BAD", "EDGE"))])
