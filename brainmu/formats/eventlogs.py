"""Tables of events: stimulation, cue and trial logs, BIDS events.tsv. One reader for all, by the names of their columns."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core import EventTable
from brainmu.errors import FormatError, InputError
from brainmu.formats.sources import need_file
from brainmu.formats.tables import decimal_comma
from brainmu.formats.timing import TIME_UNITS, seconds, settled_unit, unit_in_name

__all__ = ["read_events", "read_log"]

_START = ("start", "onset", "time", "timestamp", "t", "begin", "start_time", "onset_time", "stim_on", "on")
_STOP = ("stop", "end", "offset", "stop_time", "end_time", "stim_off", "off")
_LENGTH = ("duration", "length", "dur")
_TIMES = {*_START, *_STOP, *_LENGTH, "peak"}
_BINARY = {
    "1": True,
    "0": False,
    "1.0": True,
    "0.0": False,
    "true": True,
    "false": False,
    "yes": True,
    "no": False,
    "y": True,
    "n": False,
    "on": True,
    "off": False,
}


def read_log(path: Path) -> pd.DataFrame:
    """A table with a header line, its columns split by tab, comma, semicolon or white space; "n/a" is missing."""
    need_file(path, "a table of events")
    separators = {".tsv": ["\t"], ".csv": [",", ";", "\t"]}.get(path.suffix.lower(), ["\t", ",", ";", r"\s+"])
    problem, narrow = "", None
    for sep in separators:
        try:
            with warnings.catch_warnings():
                # Rows longer than the header would otherwise lose their last cells, or become an index.
                warnings.simplefilter("error", pd.errors.ParserWarning)
                frame = pd.read_csv(
                    path, sep=sep, na_values=["", "n/a", "NA", "NaN", "nan"], keep_default_na=False, encoding="utf-8-sig", index_col=False, engine=_engine(sep)
                )
        except (pd.errors.ParserWarning, pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, ValueError) as error:
            problem = problem or " ".join(str(error).split())
            continue
        frame.columns = pd.Index([str(c).strip() for c in frame.columns])
        if frame.shape[1] > 1:
            return frame
        narrow = frame
    if narrow is None or problem:
        raise FormatError(f"{path}: not a table ({problem[:160]}), expected a header line and rows of as many cells, split by tab or comma")
    return narrow


def _engine(sep: str) -> Literal["c", "python"]:
    return "python" if len(sep) > 1 else "c"


def read_events(
    path: str | Path, *, rename: Mapping[str, Any] | None = None, time_unit: str | None = None, rate: float | None = None, start: float = 0.0,
    kind: str | None = None, content: str | None = None, frame: pd.DataFrame | None = None, point: bool = True,
) -> EventTable:  # fmt: skip
    """Events of a log (.csv, .tsv, .txt with a header line).

    Columns are known by their names: onset or start, stop or duration (either may carry its unit: ``onset_ms``, ``time (s)``), kind or trial_type,
    content. All other columns are kept; of a trial log, `assigned` and `delivered` must be yes or no (1/0, true/false, yes/no, on/off),
    and `probability` lies between 0 and 1.

    Parameters
    ----------
    rename : mapping
        ``{our name: column of the file}`` where the names are others. A unit in the file's name holds: ``{"start": "cue_ms"}`` is in ms.
    time_unit : str
        "s", "ms", "us", "min", "h" or "samples" (then `rate`, Hz), where the column names do not say. Default s.
    start : float, s
        Added to all times.
    kind, content : str
        Of all events, where no column says.
    frame : DataFrame
        The table itself, already read; `path` then only names it.
    point : bool
        Without stop and duration, events are points.

    Raises
    ------
    FormatError
        If it is no table, a time is missing or not a number, or an event stops before it starts.
    InputError
        If no column is the onset, or a trial column holds something else than it should; the message names what was found.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "cues.csv"
    >>> _ = file.write_text("onset_ms,duration_ms,assigned,delivered,block\\n1500,200,1,yes,a\\n4000,200,0,no,a\\n")
    >>> cues = read_events(file, kind="cue")
    >>> cues.start.tolist(), cues.stop.tolist(), cues.delivered.tolist()
    ([1.5, 4.0], [1.7, 4.2], [True, False])
    """
    p = Path(path)
    table = (read_log(p) if frame is None else frame).copy()
    if absent := [c for c in (rename or {}).values() if c not in table]:
        raise InputError(f"{p}: rename names the column {absent[0]!r}, which is not there; it has {', '.join(map(str, table.columns))}")
    table.columns = _renamed(p, list(table.columns), rename or {})
    found = {role: _column(p, table, names) for role, names in (("start", _START), ("stop", _STOP), ("duration", _LENGTH))}
    if found["start"] is None:
        hint = " (is there a header line?)" if any(_number(c) for c in table.columns) else ""
        raise InputError(f"{p}: has columns {', '.join(table.columns)}{hint}, none of which is the onset of an event: say which with rename={{'start': …}}")
    times = {role: _times(p, table, *place, time_unit, rate) for role, place in found.items() if place is not None}
    if "stop" in times and "duration" in times and not np.allclose(times["stop"] - times["start"], times["duration"], atol=2e-3, equal_nan=True):
        stop, length = (found[k][0] for k in ("stop", "duration") if found[k] is not None)  # type: ignore[index]
        raise FormatError(f"{p}: its stop ({stop}) and duration ({length}) contradict each other: leave one out, or rename it")
    begin = times["start"]
    end = times["stop"] if "stop" in times else begin + np.nan_to_num(times["duration"]) if "duration" in times else begin if point else None
    if end is None:
        raise InputError(f"{p}: has neither stop nor duration among {', '.join(table.columns)}")
    end = np.where(np.isfinite(end), end, begin)  # BIDS writes n/a for an event without a length: a point
    peak = _column(p, table, ("peak",))
    rest = table.drop(columns=[place[0] for place in (*found.values(), peak) if place is not None])
    rest = rest.rename(columns={"trial_type": "kind"}) if "kind" not in rest and "trial_type" in rest else rest
    if taken := [c for c in ("self", "attrs") if c in rest]:
        raise InputError(f"{p}: a column is called {taken[0]!r}, which a table of events needs for itself: rename it")
    columns: dict[str, Any] = {str(c): _checked(p, str(c), rest[c]) for c in rest.columns}
    for name, value in (("kind", kind), ("content", content)):
        if value is not None:
            columns.setdefault(name, value)
    if peak is not None:
        columns["peak"] = _times(p, table, *peak, time_unit, rate) + start
    try:
        return EventTable(begin + start, end + start, **columns)
    except InputError as error:
        raise FormatError(f"{p}: {error}") from None


def _renamed(path: Path, names: list[Any], rename: Mapping[str, Any]) -> pd.Index:
    """Our names for the columns; a time keeps the unit that its own name ends in (cue_ms becomes start_ms)."""
    out = [str(n) for n in names]
    for ours, theirs in rename.items():
        (stem, unit), (_, old) = unit_in_name(ours), unit_in_name(theirs)
        if old is not None and unit is not None and old != unit:
            raise InputError(f"{path}: rename makes the column {theirs!r} ({old}) {ours!r} ({unit}): give both the same unit")
        keeps = old is not None and unit is None and stem in _TIMES
        out[names.index(theirs)] = f"{ours}_{old}" if keeps else ours
    if twice := sorted({n for n in out if out.count(n) > 1}):
        raise InputError(f"{path}: has two columns {twice[0]!r}{' after rename' if rename else ''}: rename one of them")
    return pd.Index(out, dtype=object)


def _column(path: Path, table: pd.DataFrame, names: tuple[str, ...]) -> tuple[str, str | None] | None:
    """The column that is one of `names`, the earlier the better, and the unit that its own name says."""
    plain: dict[str, tuple[str, str | None]] = {}
    for column in table.columns:
        stem, unit = unit_in_name(column)
        plain.setdefault(re.sub(r"[\s_]+", "_", str(column).strip().lower()), (str(column), None))
        plain.setdefault(re.sub(r"[\s_]+", "_", stem), (str(column), unit))
    return next((plain[n] for n in names if n in plain), None)


def _times(path: Path, table: pd.DataFrame, column: str, own: str | None, unit: str | None, rate: float | None) -> NDArray[np.float64]:
    unit = settled_unit(column, own, unit, str(path))
    values = table[column]
    if not pd.api.types.is_numeric_dtype(values):
        text = values.astype(str).str.strip()
        if len(text) and text.str.fullmatch(r"\d{1,2}:\d{2}:\d{2}(\.\d+)?").all():
            raise InputError(f"{path}: column {column!r} holds clock times ({text.iloc[0]}), expected seconds of the session: convert them first")
        numbers = pd.to_numeric(text, errors="coerce")
        if (bad := text[numbers.isna() & ~values.isna() & (text != "")]).size:
            raise FormatError(
                f"{path}: column {column!r} holds {bad.iloc[0]!r} in row {int(bad.index[0]) + 1}, expected numbers{decimal_comma(bad.iloc[0])} "
                f"({', '.join(TIME_UNITS)} or samples)"
            )
        values = numbers
    out = seconds(values, unit, rate, f"{path} {column}")
    if column.lower().split("_")[0].split(" ")[0] not in _LENGTH and not np.isfinite(out).all() and (column.lower() not in _STOP):
        raise FormatError(f"{path}: row {int(np.flatnonzero(~np.isfinite(out))[0]) + 1} has no time in column {column!r}: complete or drop it")
    return out


def _number(word: Any) -> bool:
    try:
        float(str(word))
    except ValueError:
        return False
    return True


def _checked(path: Path, name: str, values: pd.Series) -> NDArray[Any]:
    """A column as it is kept: yes and no as bool, probabilities in range, text without NaN."""
    if name in ("assigned", "delivered"):
        words = pd.Series(["missing" if pd.isna(v) else str(v).strip().lower() for v in values], dtype=object)
        if stray := sorted(set(words) - set(_BINARY)):
            held = ", ".join(f"{w!r} ({n})" for w, n in words.value_counts().sort_index().items())
            raise InputError(f"{path}: column {name!r} holds {held}, expected yes or no (1/0, true/false): {stray[0]!r} is neither; put arms in a column arm")
        return words.map(_BINARY).to_numpy(dtype=bool)
    if name in ("probability", "p_assigned"):
        p = pd.to_numeric(values, errors="coerce").to_numpy(dtype=np.float64)
        if ((p < 0) | (p > 1)).any():
            raise InputError(f"{path}: column {name!r} holds {p[(p < 0) | (p > 1)][0]:g}, expected probabilities between 0 and 1")
        return p
    if pd.api.types.is_numeric_dtype(values) and not (name in ("kind", "content") and values.isna().all()):
        return values.to_numpy()
    return values.astype(object).where(values.notna(), "").to_numpy(dtype=object)
