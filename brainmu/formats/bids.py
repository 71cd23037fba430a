"""BIDS datasets of EEG, iEEG and MEG: every recording with its entities, events, channel status, electrodes and participant.

MNE-BIDS finds the sidecars (by the inheritance principle); samples are read by brainmu's own readers, so that channels keep their rates and units.
"""

from __future__ import annotations

import json
import re
import warnings
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from brainmu.core import EventTable, Hypnogram, Recording
from brainmu.errors import FormatError, InputError, NotFoundError
from brainmu.formats.sources import need_file

__all__ = ["detect", "members", "read"]

_TYPES = ("eeg", "ieeg", "meg")
_SUFFIXES = (".edf", ".bdf", ".vhdr", ".set", ".fif", ".nwb")
_NAME = re.compile(r"(sub-[^_/]+(?:_[a-z]+-[^_/]+)*)_(eeg|ieeg|meg)(\.[a-z.]+)", re.IGNORECASE)
_KINDS = {
    "EEG": "eeg", "ECOG": "eeg", "SEEG": "eeg", "DBS": "lfp", "LFP": "lfp", "EOG": "eog", "VEOG": "eog", "HEOG": "eog", "EMG": "emg", "ECG": "ecg",
    "TRIG": "sync", "SYSCLOCK": "sync", "MISC": "other", "AUDIO": "other", "PUPIL": "behaviour", "EYEGAZE": "behaviour", "RESP": "other", "PPG": "other",
}  # fmt: skip
_SPECIES = {"homo sapiens": "human", "human": "human", "mus musculus": "mouse", "mouse": "mouse", "rattus norvegicus": "rat", "rat": "rat"}
_SEX = {"m": "M", "male": "M", "f": "F", "female": "F", "o": "O", "other": "O"}
_STAGE = re.compile(
    r"(?:sleep[ _]?stage|stage)?[ _-]*(w|wake|awake|n[123]|s[1-4]|[1-4]|r|rem|nrem|sws|\?|movement( time)?|art(e|i)?fact|unscored)", re.IGNORECASE
)
_STAGE_COLUMNS = ("trial_type", "stage", "sleep_stage", "staging", "hypnogram", "stage_hum", "value")


def detect(path: Path) -> bool:
    """Whether `path` is a BIDS dataset (or a subject's folder of one), or a recording inside it."""
    if path.is_file():
        return path.parent.name in _TYPES and _NAME.fullmatch(path.name) is not None and path.name.lower().endswith(_SUFFIXES)
    if not path.is_dir():
        return False
    if (path / "dataset_description.json").is_file():
        with (path / "dataset_description.json").open("rb") as f:
            return b'"BIDSVersion"' in f.read(65536)
    inside = path.name in _TYPES or re.fullmatch(r"(sub|ses)-[^_/]+", path.name) is not None
    return inside and bool(_recordings(path))


def members(path: Path) -> list[Path]:
    """The recordings under a folder, in order of name."""
    return _recordings(path)


def _recordings(path: Path) -> list[Path]:
    patterns = [f"{d}*_{t}.*" for t in _TYPES for d in ((f"sub-*/{t}/", f"sub-*/ses-*/{t}/") if path.name not in _TYPES else ("",))]
    patterns += [f"{d}{t}/*_{t}.*" for t in _TYPES for d in ("", "ses-*/")] if re.match(r"(sub|ses)-", path.name) else []
    found = {p for pattern in patterns for p in path.glob(pattern) if (m := _NAME.fullmatch(p.name)) and m.group(3).lower() in _SUFFIXES}
    # Later parts of a split FIF are read with the first.
    return sorted(p for p in found if not re.search(r"_split-0*([2-9]|\d{2,})_", p.name))


def read(path: Path, *, kinds: dict[str, str] | None = None) -> Recording:
    """One recording, named by its entities (``sub-01_ses-a_task-sleep_run-1``).

    `events.tsv` becomes the label "events" (stage names the hypnogram "scoring"); channels that `channels.tsv` calls bad are so marked;
    `participants.tsv` gives sex, age, group and every other column.

    Parameters
    ----------
    kinds : mapping
        Kind of channels by name, over `channels.tsv`.

    Raises
    ------
    FormatError
        If the folder holds no recording that BIDS names, several, or a sidecar is damaged.
    """
    if path.is_dir():
        found = _recordings(path)
        if not found:
            raise FormatError(
                f"{path}: is BIDS and holds no recording named sub-LABEL[_ses-LABEL]_task-LABEL_eeg.edf (.bdf .vhdr .set .fif) in an eeg, ieeg or meg folder"
            )
        if len(found) > 1:
            raise FormatError(f"{path}: holds {len(found)} recordings ({', '.join(p.name for p in found[:4])}, …): name one")
        path = found[0]
    if path.is_symlink() and not path.exists():
        raise NotFoundError(f"{path}: is a link whose content is not here: fetch it (datalad get {path.name})")
    need_file(path, "a recording of a BIDS dataset")
    named = _NAME.fullmatch(path.name)
    if named is None:
        raise FormatError(f"{path}: is not named as BIDS names recordings (sub-LABEL_task-LABEL_eeg.edf)")
    bids = _bids_path(path)
    table = _sidecar(bids, "channels")
    rec = _signals(path, table, kinds or {})
    rec.id, rec.subject = re.sub(r"[^\w.+-]+", "_", named.group(1)), str(bids.subject)
    rec.source |= {"format": "bids", "entities": {k: str(v) for k, v in bids.entities.items() if v is not None}}
    if table is not None:
        _status(table[1], table[0], rec)
    if (electrodes := _sidecar(bids, "electrodes")) is not None:
        _electrodes(electrodes[1], electrodes[0], rec)
    _participant(bids, rec)
    _scans(path, bids, rec)
    _about(bids, rec)
    _events(bids, rec)
    return rec


def _bids_path(path: Path) -> Any:
    from mne_bids import get_bids_path_from_fname

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = get_bids_path_from_fname(path, check=False, verbose="error")
    except (KeyError, ValueError, RuntimeError) as error:
        raise FormatError(f"{path}: its name does not follow BIDS ({' '.join(str(error).split())[:200]})") from None
    # The root is above the sub- folder; MNE-BIDS may take the working folder for it.
    folder = next((p for p in path.resolve().parents if p.name.startswith("sub-")), None)
    if folder is None:
        raise FormatError(f"{path}: lies in no sub-LABEL folder, expected sub-LABEL/[ses-LABEL/]{path.parent.name}/{path.name}")
    if found.subject != folder.name.removeprefix("sub-"):
        raise FormatError(f"{path}: is named for subject {found.subject} and lies in the folder of {folder.name}: move or rename it")
    return found.update(root=folder.parent, check=False)


def _sidecar(bids: Any, suffix: str) -> tuple[Path, pd.DataFrame] | None:
    """The .tsv that applies to a recording, by inheritance."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = bids.find_matching_sidecar(suffix=suffix, extension=".tsv", on_error="ignore")
    if found is None or not Path(found).is_file():
        return None
    return Path(found), _tsv(Path(found))


def _tsv(path: Path) -> pd.DataFrame:
    need_file(path, "a tab-separated table of BIDS")
    try:
        frame = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: not a tab-separated table ({' '.join(str(error).split())})") from None
    frame.columns = pd.Index([str(c).strip() for c in frame.columns])
    return frame.map(lambda v: "" if str(v).strip().lower() in ("n/a", "nan") else str(v).strip())


# -- signals --------------------------------------------------------------------------------------------------------
def _signals(path: Path, table: tuple[Path, pd.DataFrame] | None, kinds: dict[str, str]) -> Recording:
    from brainmu.formats import edf, mne_raw, nwb

    name = path.name.lower()
    if name.endswith(".nwb"):
        return nwb.read(path)
    reader = edf.read if name.endswith((".edf", ".bdf")) else mne_raw.read
    if table is None or not {"name", "type"} <= set(table[1].columns):
        return reader(path, kinds=kinds)
    have = {n for s in reader(path).signals.values() for n in s.names}
    said = {str(n): _KINDS[t.upper()] for n, t in zip(table[1]["name"], table[1]["type"]) if t.upper() in _KINDS and n in have}
    rec = reader(path, kinds=said | kinds)
    rec.source["files"].append(str(table[0].resolve()))
    missing = [n for n in table[1]["name"] if n not in have]
    if missing:
        rec.warn(f"{table[0].name} names {len(missing)} channels that the recording has not ({', '.join(missing[:4])}{', …' if len(missing) > 4 else ''})")
    return rec


def _status(table: pd.DataFrame, path: Path, rec: Recording) -> None:
    if "name" not in table:
        raise FormatError(f"{path}: has columns {', '.join(table.columns)}, expected at least name (BIDS channels.tsv)")
    table = table.drop_duplicates("name").set_index("name")
    for signal in rec.signals.values():
        own = table.reindex(signal.channels["name"].astype(str)).fillna("")
        if "status" in table:
            bad = (own["status"].str.lower() == "bad").to_numpy()
            signal.channels["bad"] = bad | (signal.channels["bad"].to_numpy(dtype=bool) if "bad" in signal.channels else False)
        for column in ("status_description", "reference", "group", "low_cutoff", "high_cutoff", "notch"):
            if column in table and (own[column] != "").any():
                signal.channels[column] = own[column].to_numpy()
    bad = [n for s in rec.signals.values() if "bad" in s.channels for n in s.channels.loc[s.channels["bad"].astype(bool), "name"]]
    if bad:
        rec.warn(f"{path.name} calls {len(bad)} channels bad ({', '.join(map(str, bad[:6]))}{', …' if len(bad) > 6 else ''}): marked, not left out")


def _electrodes(table: pd.DataFrame, path: Path, rec: Recording) -> None:
    """Regions and places of iEEG electrodes."""
    if "name" not in table:
        return
    rec.source["files"].append(str(path.resolve()))
    table = table.drop_duplicates("name").set_index("name")
    region = next((c for c in ("region", "anat", "anatomy", "location", "label") if c in table), None)
    for signal in rec.signals.values():
        own = table.reindex(signal.channels["name"].astype(str))
        if region is not None and own[region].fillna("").ne("").any():
            signal.channels["region"] = own[region].fillna("").to_numpy()
        if {"x", "y", "z"} <= set(table.columns):
            xyz = own[["x", "y", "z"]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
            if np.isfinite(xyz).any():
                signal.channels[["x", "y", "z"]] = xyz


# -- subject and session --------------------------------------------------------------------------------------------
def _participant(bids: Any, rec: Recording) -> None:
    path = Path(bids.root) / "participants.tsv"
    row: dict[str, str] = {}
    if path.is_file():
        table = _tsv(path)
        if "participant_id" not in table:
            raise FormatError(f"{path}: has columns {', '.join(table.columns)}, expected participant_id first (BIDS participants.tsv)")
        rec.source["files"].append(str(path.resolve()))
        mine = table[table["participant_id"].str.removeprefix("sub-") == str(bids.subject)]
        if not len(mine):
            rec.warn(f"participants.tsv has no row for sub-{bids.subject}")
        row = {str(k): str(v) for k, v in mine.iloc[0].items()} if len(mine) else {}
    for key, value in row.items():
        if value and key not in ("participant_id", "species"):
            rec.subject_meta[key] = _SEX.get(value.lower(), value) if key == "sex" else _number(value)
    species = row.get("species", "")
    rec.species = _SPECIES.get(species.lower(), species) if species else "human"
    if not species:
        rec.warn("no species is named: Homo sapiens, as BIDS has it (pass species= where that is wrong)")


def _number(text: str) -> str | float | int:
    try:
        value = float(text)
    except ValueError:
        return text
    return int(value) if value.is_integer() and re.fullmatch(r"-?\d+", text) else value


def _scans(path: Path, bids: Any, rec: Recording) -> None:
    """The start that scans.tsv names; local time unless it ends in Z."""
    folder = path.parent.parent
    for file in folder.glob("*_scans.tsv"):
        table = _tsv(file)
        if not {"filename", "acq_time"} <= set(table.columns):
            continue
        mine = table[table["filename"] == f"{path.parent.name}/{path.name}"]
        if len(mine) and mine.iloc[0]["acq_time"]:
            rec.source["files"].append(str(file.resolve()))
            text = str(mine.iloc[0]["acq_time"])
            if text.endswith("Z") and rec.started_at is None:
                try:
                    rec.started_at = datetime.fromisoformat(text.replace("Z", "+00:00"))
                except ValueError:
                    raise FormatError(f"{file}: acq_time is {text!r}, expected YYYY-MM-DDThh:mm:ss") from None
            elif not text.endswith("Z"):
                rec.source["started_at_local"] = text


def _about(bids: Any, rec: Recording) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = bids.find_matching_sidecar(extension=".json", on_error="ignore")
    if found is None or not Path(found).is_file():
        return
    try:
        about = json.loads(Path(found).read_text(encoding="utf-8"))
    except ValueError as error:
        raise FormatError(f"{found}: not readable as JSON ({error})") from None
    keep = ("PowerLineFrequency", "EEGReference", "iEEGReference", "Manufacturer", "TaskName", "SoftwareFilters", "HardwareFilters", "RecordingType")
    rec.source["about"] = {k: about[k] for k in keep if about.get(k) not in (None, "", "n/a")}
    rec.source["files"].append(str(Path(found).resolve()))


# -- events ---------------------------------------------------------------------------------------------------------
def _events(bids: Any, rec: Recording) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = bids.find_matching_sidecar(suffix="events", extension=".tsv", on_error="ignore")
    if found is None or not Path(found).is_file():
        return
    path = need_file(Path(found), "a BIDS events.tsv")
    rec.source["files"].append(str(path.resolve()))
    raw = _tsv(path)
    if not {"onset", "duration"} <= set(raw.columns):
        raise FormatError(f"{path}: has columns {', '.join(raw.columns)}, expected onset and duration (BIDS events.tsv)")
    onset = pd.to_numeric(raw["onset"], errors="coerce").to_numpy(dtype=float)
    lost = ~np.isfinite(onset)
    if lost.any():
        rec.warn(f"{path.name}: {int(lost.sum())} rows have no onset and were left out")
    # MNE-BIDS writes annotations of the file into events.tsv too: one source of the same events is enough.
    for label in ("annotations", "scoring"):
        if label in rec.labels and len(raw):
            del rec.labels[label]
    raw, onset = raw[~lost].reset_index(drop=True), onset[~lost]
    length = np.maximum(np.nan_to_num(pd.to_numeric(raw["duration"], errors="coerce").to_numpy(dtype=float)), 0.0)
    for column in (c for c in _STAGE_COLUMNS if c in raw):
        is_stage = raw[column].map(lambda v: _STAGE.fullmatch(v) is not None and v != "").to_numpy(dtype=bool) & (length >= 1.0)
        # Bare numbers are codes, and those of different tools collide.
        if raw.loc[is_stage, column].str.fullmatch(r"\d").any():
            if column not in ("value", "trial_type"):
                rec.warn(f"{path.name}: column {column} holds numbers, which mean other stages in other tools: kept as events")
            continue
        if is_stage.sum() < 2:
            continue
        scored = _hypnogram(onset[is_stage], length[is_stage], raw.loc[is_stage, column].tolist(), path.name, rec)
        if scored is not None:
            rec.labels["scoring"] = scored
            raw, onset, length = raw[~is_stage].reset_index(drop=True), onset[~is_stage], length[~is_stage]
            break
    if len(raw):
        columns = {c: _column(raw[c]) for c in raw.columns if c not in ("onset", "duration", "trial_type", "start", "stop", "peak", "kind")}
        kind = raw["trial_type"].replace("", "event").to_numpy() if "trial_type" in raw else "event"
        rec.labels["events"] = EventTable(onset, onset + length, kind=kind, attrs={"source": path.name}, **columns)


def _column(values: pd.Series) -> Any:
    numbers = pd.to_numeric(values.replace("", np.nan), errors="coerce")
    whole = numbers.notna() | (values == "")
    return numbers.to_numpy(dtype=float) if whole.all() and numbers.notna().any() else values.to_numpy(dtype=object)


def _hypnogram(start: Any, length: Any, names: list[str], where: str, rec: Recording) -> Hypnogram | None:
    """Stages on the grid of epochs that all of them fit; None, said, where there is none."""
    order = np.argsort(start, kind="stable")
    start, length, names = start[order], length[order], [names[i] for i in order]
    edges = np.r_[start - start[0], start - start[0] + length]
    epoch = next((e for e in (30.0, 20.0, 10.0, 5.0, 4.0, 2.0, 1.0) if np.abs(edges / e - np.rint(edges / e)).max() < 1e-3), None)
    if epoch is None:
        rec.warn(f"{where}: its sleep stages lie on no common grid of epochs: kept as events")
        return None
    first, n = np.rint((start - start[0]) / epoch).astype(int), np.rint(length / epoch).astype(int)
    stages, filled = np.full(int((first + n).max()), "UNS", dtype=object), np.zeros(int((first + n).max()), dtype=int)
    for i, m, text in zip(first, n, names):
        found = _STAGE.fullmatch(text)
        word = found.group(1).lower() if found is not None else text
        stages[i : i + m] = f"sleep stage {word}" if word.isdigit() else word
        filled[i : i + m] += 1
    if (filled > 1).any():
        rec.warn(f"{where}: {int((filled > 1).sum())} epochs carry two stages; the later row counts")
    if (filled == 0).any():
        rec.warn(f"{where}: {int((filled == 0).sum())} epochs between stages are not scored (UNS)")
    try:
        scored = Hypnogram.from_stages(stages, epoch, float(start[0]), rk=True, scorer=where)
    except InputError as error:
        rec.warn(f"{where}: its sleep stages could not be read as a hypnogram ({error}): kept as events")
        return None
    if "merged" in scored.attrs:
        rec.warn(f"scoring: {scored.attrs['merged']}; stages are Rechtschaffen & Kales, read as AASM")
    return scored
