"""What a table beside the recordings says of each subject (BIDS participants.tsv, subjects.csv): group, cage, sex, batch, virus, day, species, lights on."""

from __future__ import annotations

import re
from datetime import tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pandas as pd

from brainmu.config import suggest
from brainmu.core import Recording
from brainmu.errors import FormatError, InputError, MissingDataError
from brainmu.formats.eventlogs import read_log

__all__ = ["describe_subject", "read_subjects", "subjects_beside", "zeitgeber_of"]

_SUBJECT = ("participant_id", "subject", "subject_id", "animal", "animal_id", "mouse", "rat", "id")
_RECORDING = ("recording", "recording_id", "session", "session_id", "file")
_SEXES = {"m": "M", "male": "M", "f": "F", "female": "F", "o": "O", "other": "O"}
FILES = ("participants.tsv", "subjects.csv", "subjects.tsv", "participants.csv")


def subjects_beside(path: Path) -> Path | None:
    """The table of subjects beside a recording, or in the folder above it, if there is one."""
    folder = path if path.is_dir() else path.parent
    return next((f for where in (folder, folder.parent) for n in FILES if (f := where / n).is_file()), None)


def read_subjects(path: str | Path) -> pd.DataFrame:
    """The table as text, one row a subject (or a recording), with columns `subject` and, where there is one, `recording`.

    Raises
    ------
    FormatError
        If no column names the subject, or a row names none.
    """
    p = Path(path)
    frame = read_log(p)
    lower = {str(c).strip().lower(): str(c) for c in frame.columns}
    subject = next((lower[c] for c in _SUBJECT if c in lower), None)
    if subject is None:
        raise FormatError(f"{p}: has columns {', '.join(frame.columns)}, expected one that names the subject (participant_id, subject or animal)")
    recording = next((lower[c] for c in _RECORDING if c in lower), None)
    names = {c: _key(c) for c in frame.columns} | {subject: "subject"} | ({recording: "recording"} if recording else {})
    frame = frame.rename(columns=names)
    if frame["subject"].isna().any():
        raise FormatError(f"{p}: row {int(frame.index[frame['subject'].isna()][0]) + 1} names no subject: complete or drop it")
    for column in ("subject", *(["recording"] if recording else [])):
        frame[column] = [_text(v) for v in frame[column]]
    return frame


def describe_subject(rec: Recording, table: pd.DataFrame | str | Path, *, timezone: str | None = None) -> None:
    """Put what the table says of the recording's subject into ``subject_meta``, ``species`` and ``zeitgeber``.

    What the recording knows already stays; a table that says otherwise is noted. A row that also names the recording (or session) counts for that
    recording only, so one subject may have a row a day.

    Parameters
    ----------
    rec : Recording
        Its `subject` (or, without one, its id) is looked up; "sub-01" and "01" are the same.
    table : DataFrame of :func:`read_subjects`, or path
    timezone : str
        Name of the time zone that `lights_on` is told in (``"Europe/Zurich"``); by default that of `started_at`.

    Raises
    ------
    MissingDataError
        If the table has no row for the subject.
    InputError
        If several rows fit, `lights_on` is no time of day, or the time zone does not exist.
    """
    where = str(table) if isinstance(table, str | Path) else "the table of subjects"
    frame = read_subjects(table) if isinstance(table, str | Path) else table
    row = _row(rec, frame, where)
    meta = {str(k): _plain(v) for k, v in row.items() if k not in ("subject", "recording") and not pd.isna(v)}
    if "sex" in meta:
        meta["sex"] = _SEXES.get(str(meta["sex"]).strip().lower(), meta["sex"])
    species = str(meta.pop("species", ""))
    if species and not rec.species:
        rec.species = species
    elif species and species != rec.species:
        rec.warn(f"species is {rec.species} by the recording and {species} by {where}: the recording's stays")
    if "lights_on" in meta:
        _lights(rec, meta["lights_on"], timezone, where)
    for key, value in meta.items():
        if key in rec.subject_meta and rec.subject_meta[key] != value:
            rec.warn(f"{key} is {rec.subject_meta[key]} by the recording and {value} by {where}: the recording's stays")
        else:
            rec.subject_meta[key] = value


def zeitgeber_of(rec: Recording, lights_on: Any, timezone: str | None = None) -> float | None:
    """Hours from `lights_on` ("07:00", or hours of the day) to the recording's start, 0 to 24; None where the start is not known.

    Examples
    --------
    >>> from datetime import datetime, timezone
    >>> rec = Recording.from_arrays("m1", started_at=datetime(2024, 5, 1, 10, 30, tzinfo=timezone.utc))
    >>> zeitgeber_of(rec, "07:00")
    3.5
    """
    hours = _hours(lights_on)
    if rec.started_at is None:
        return None
    zone: tzinfo | None = rec.started_at.tzinfo
    if timezone is not None:
        try:
            zone = ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError):
            raise InputError(f"time zone {timezone!r} is not known, expected a name such as Europe/Zurich or UTC") from None
    local = rec.started_at.astimezone(zone)
    return (local.hour + local.minute / 60 + local.second / 3600 + local.microsecond / 3.6e9 - hours) % 24


def _hours(value: Any) -> float:
    match = re.fullmatch(r"(\d{1,2})(?::(\d{2}))?(?::(\d{2}))?", str(value).strip())
    hours = int(match.group(1)) + int(match.group(2) or 0) / 60 + int(match.group(3) or 0) / 3600 if match else _number(value)
    if hours is None or not 0 <= hours < 24:
        raise InputError(f"lights_on is {value!r}, expected a time of day such as 07:00, or hours from 0 to 24")
    return hours


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _lights(rec: Recording, lights_on: Any, timezone: str | None, where: str) -> None:
    zeitgeber = zeitgeber_of(rec, lights_on, timezone)
    if zeitgeber is None:
        rec.warn(f"lights_on is {lights_on} by {where}, and the recording's start is not known: give started_at, then zeitgeber time is too")
    elif rec.zeitgeber is None:
        rec.zeitgeber = zeitgeber
    elif abs((rec.zeitgeber - zeitgeber + 12) % 24 - 12) > 0.01:
        rec.warn(f"zeitgeber is {rec.zeitgeber:g} h by the recording and {zeitgeber:g} h by {where}: the recording's stays")


def _row(rec: Recording, frame: pd.DataFrame, where: str) -> pd.Series:
    wanted = _bare(rec.subject or rec.id)
    rows = frame[[_bare(s) == wanted for s in frame["subject"]]]
    if not len(rows):
        known = list(dict.fromkeys(frame["subject"]))
        raise MissingDataError(
            f"{rec.id}: {where} has no subject {rec.subject or rec.id!r}{suggest(rec.subject or rec.id, known)}; it has {', '.join(known[:20])}"
        )
    if "recording" in rows:
        own = rows[[_bare(r) == _bare(rec.id) for r in rows["recording"]]]
        rows = own if len(own) else rows[rows["recording"] == ""]
        if not len(rows):
            raise MissingDataError(f"{rec.id}: {where} has rows for subject {rec.subject!r} and none for this recording: name it in the column recording")
    if len(rows) > 1:
        raise InputError(f"{rec.id}: {where} has {len(rows)} rows for subject {rec.subject or rec.id!r}: leave one, or add a column recording that names which")
    return rows.iloc[0]


def _bare(name: str) -> str:
    return re.sub(r"^(sub|ses)-", "", str(name).strip())


def _key(column: str) -> str:
    return re.sub(r"[\s-]+", "_", str(column).strip().lower())


def _text(value: Any) -> str:
    """Names as text; pandas reads 7 in a column with holes as 7.0."""
    if pd.isna(value):
        return ""
    return str(int(value)) if isinstance(value, float) and value == int(value) else str(value).strip()


def _plain(value: Any) -> Any:
    value = value.item() if hasattr(value, "item") else value
    return int(value) if isinstance(value, float) and value == int(value) else value.strip() if isinstance(value, str) else value
