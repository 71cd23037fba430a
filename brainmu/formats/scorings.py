"""Label files of other tools: sleep scorings (AccuSleep, Somnotate, visbrain, YASA, buzcode, Elan, SleepSign, BIDS, EDF+). Codes are never guessed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.config import suggest
from brainmu.core import EventTable, Hypnogram
from brainmu.core.hypnogram import CODECS
from brainmu.errors import FormatError, InputError
from brainmu.formats.arrays import load_array, members
from brainmu.formats.eventlogs import read_events, read_log
from brainmu.formats.sources import ArrayFile, need_file

__all__ = ["SCORINGS", "label_files_beside", "read_scoring"]

SCORINGS: dict[str, str] = {
    "accusleep": "AccuSleep: labels.mat, or the csv of its Python version (brain_state); codes 1 REM, 2 WAKE, 3 NREM",
    "somnotate": "Somnotate: stage and end time a line (as visbrain), or its codes 1 WAKE, 2 NREM, 3 REM, negative with artefact",
    "visbrain": "visbrain Sleep: stage and end time a line, or codes with a _description.txt beside them",
    "yasa": "YASA: a stage an epoch, as codes 0 W, 1 N1, 2 N2, 3 N3, 4 R or as names",
    "buzcode": "buzcode: *.SleepState.states.mat; codes 1 WAKE, 3 NREM, 5 REM",
    "elan": "Elan .hyp: codes 0 W, 1-4 (4 with 3 is N3), 5 R",
    "sleepsign": "SleepSign text export: epoch number, stage, date and time",
    "times": "a table of stages with their start (and stop or duration)",
    "edf": "EDF+ annotations",
    "bids": "BIDS events.tsv",
}
"""Formats of sleep scorings by name."""

_CODES = CODECS | {
    "accusleep": CODECS["accusleep"] | {-1: "UNS"},
    "elan": {0: "W", 1: "N1", 2: "N2", 3: "N3", 4: "S4", 5: "R", -1: "ART", -2: "ART"},
}
_NAMES = {
    "non-rem sleep": "NREM", "non rem": "NREM", "rem sleep": "REM", "slow wave sleep": "NREM", "undefined": "UNS", "undefined (artefact)": "UNS",
    "artefacts": "ART", "artifacts": "ART", "mt": "ART", "nde": "UNS", "n4": "N3", "rem stage": "REM", "wake state": "WAKE",
}  # fmt: skip
_SLEEPSIGN = {"w": "WAKE", "nr": "NREM", "r": "REM", "m": "ART", "no": "UNS"} | {f"{s}{k}": "ART" for s in ("w", "n", "r") for k in ("a", "b", "s")}
_STAGE_COLUMNS = ("stage", "stages", "hypno", "hypnogram", "scoring", "state", "sleep_stage", "trial_type", "staging", "description", "brain_state")
_LABEL_WORDS = ("hypnogram", "hypno", "scoring", "scored", "stages", "staging", "states", "labels", "sleep", "events", "annotations", "stim", "cues", "trials")
_LABEL_SUFFIXES = (".csv", ".tsv", ".txt", ".mat", ".npy", ".edf", ".hyp")


def read_scoring(
    path: str | Path, *, format: str | None = None, epoch: float | None = None, start: float = 0.0, map: Mapping[Any, str] | None = None, rk: bool = False,
    stages: str | None = None, scorer: str = "",
) -> Hypnogram | EventTable:  # fmt: skip
    """The hypnogram in a label file, or the events of a table that holds no sleep stages.

    Parameters
    ----------
    format : str, optional
        One of :data:`SCORINGS`. Needed for bare integers, whose meaning differs between tools; told from the file otherwise.
    epoch : float, s
        Length of an epoch, where the file does not say (bare lists) or stages lie on no clear grid.
    start : float, s
        Session time of the first epoch; added to times in the file.
    map : mapping
        What each code or name means, e.g. ``{1: "WAKE", 2: "NREM", 3: "REM"}``, instead of the tool's own codes.
    rk : bool
        Merge Rechtschaffen & Kales S3 and S4 into N3 (stated in ``attrs["merged"]``).
    stages : "aasm5" or "rodent3", optional
        Where the names leave it open.
    scorer : str

    Returns
    -------
    Hypnogram or EventTable
        ``attrs["notes"]`` holds sentences on what was dropped or is doubtful.

    Raises
    ------
    NotFoundError, FormatError
        If the file is missing, damaged, or fits no format.
    InputError
        If codes need a format, a code is not known, or the epoch is not said; the message names the codes found.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "hypno.txt"
    >>> _ = file.write_text("0\\n2\\n2\\n4\\n")
    >>> read_scoring(file, format="yasa", epoch=30.0).stages_list()
    ['W', 'N2', 'N2', 'R']
    """
    p = need_file(Path(path), "a label file")
    if format is not None and format not in SCORINGS:
        raise InputError(f"{p}: scoring format {format!r} is not known{suggest(format, SCORINGS)}; formats are {', '.join(SCORINGS)}")
    if epoch is not None and not epoch > 0:
        raise InputError(f"{p}: epoch is {epoch!r}, expected the length of an epoch in s")
    reader = _Reader(p, format, epoch, start, map, rk, stages, scorer)
    suffix = p.suffix.lower()
    if suffix in (".edf", ".bdf"):
        return reader.edf()
    if suffix == ".mat":
        return reader.mat()
    if suffix == ".npy":
        return reader.vector(ArrayFile(str(p)))
    return reader.text()


def label_files_beside(path: Path) -> list[Path]:
    """Files beside the recording `path` that by their names hold its labels: ``night_hypnogram.csv`` beside ``night.edf``, ``night.txt``, ``events.tsv``."""
    if not path.is_file():
        return []
    stem = path.stem.lower()
    # BIDS names share everything but the last part: sub-1_eeg.edf and sub-1_events.tsv.
    stems = (stem, stem.rsplit("_", 1)[0]) if re.search(r"_i?eeg$|_meg$", stem) else (stem,)
    found = []
    for other in sorted(path.parent.iterdir()):
        name = other.stem.lower()
        if other == path or other.suffix.lower() not in _LABEL_SUFFIXES or not other.is_file():
            continue
        rest = next((name[len(s) :] for s in stems if name.startswith(s)), None)
        if other.name.lower() == "events.tsv" or rest == "" or (rest and rest[0] in "_-. " and set(re.split(r"[\W_]+", rest)) & set(_LABEL_WORDS)):
            found.append(other)
    return found


class _Reader:
    """One label file on its way to a Hypnogram."""

    def __init__(
        self, path: Path, format: str | None, epoch: float | None, start: float, map: Mapping[Any, str] | None, rk: bool, stages: str | None, scorer: str
    ) -> None:  # fmt: skip
        self.path, self.format, self.epoch, self.start, self.map, self.rk, self.stage_set = path, format, epoch, start, map, rk, stages
        self.scorer, self.notes = scorer or (format or ""), list[str]()

    # -- from codes and names to stages -------------------------------------------------------------------------------
    def hypnogram(self, names: list[str], epoch: float, start: float) -> Hypnogram:
        attrs: dict[str, Any] = {"notes": self.notes} if self.notes else {}
        try:
            return Hypnogram.from_stages(names, epoch, start, scorer=self.scorer, rk=self.rk, stage_set=self.stage_set, attrs=attrs)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from None

    def named(self, values: list[Any]) -> list[str]:
        """Stage names of codes or of names as the tool spells them."""
        numbers = [_whole(v) for v in values]
        blank = [_is_blank(v) for v in values]
        if not all(blank) and all(n is not None or b for n, b in zip(numbers, blank)):
            coded = iter(self._of_codes([n for n in numbers if n is not None]))
            if holes := sum(blank):
                self.notes.append(f"{holes} epochs without a code are not scored (UNS)")
            return ["UNS" if b else next(coded) for b in blank]
        words = [str(v).strip() for v in values]
        table = {str(k): str(v) for k, v in self.map.items()} if self.map else {}
        out = {w: table.get(w) or self._of_word(w) for w in set(words)}
        if unknown := sorted(w for w, s in out.items() if s is None):
            counts = Counter(words)
            strange = ", ".join(f"{w!r} ({counts[w]})" for w in unknown[:8])
            beside = ", ".join(sorted(set(words) - set(unknown))) or "no known one"
            raise InputError(f"{self.path}: stages {strange} are not known (beside {beside}): say what they mean with map=")
        if artefacts := {w: n for w, n in Counter(words).items() if out[w] == "ART" and w.upper() != "ART"}:
            self.notes.append(f"{', '.join(f'{n} of {w!r}' for w, n in artefacts.items())} are artefact (ART)")
        return [str(out[w]) for w in words]

    def _of_word(self, word: str) -> str | None:
        key = word.lower()
        if self.format == "sleepsign" and key in _SLEEPSIGN:
            return _SLEEPSIGN[key]
        if re.search(r"\(artefact\)|\(artifact\)", key) and "undefined" not in key:
            return "ART"
        if key in _NAMES:
            return _NAMES[key]
        try:
            Hypnogram.from_stages([word], 1.0, rk=True)
        except InputError:
            return None
        return word

    def _of_codes(self, codes: list[int]) -> list[str]:
        counts = Counter(codes)
        found = ", ".join(f"{c} ({counts[c]})" for c in sorted(counts))
        if self.map is not None:
            table = {_whole(k): str(v) for k, v in self.map.items()}
            said = "map"
        elif self.format in _CODES:
            table, said = dict(_CODES[self.format]), self.format
        else:
            fits = {name: [c[k] for k in sorted(counts)] for name, c in _CODES.items() if set(counts) <= set(c)}
            could = "; ".join(f"{name} reads them as {', '.join(s)}" for name, s in fits.items()) or f"no tool known here has all of them ({', '.join(_CODES)})"
            raise InputError(f"{self.path}: holds the codes {found}, which tools use differently: {could}. Say which with format=, or give map=")
        if stray := sorted(set(counts) - set(table)):
            names = ", ".join(f"{k}={v}" for k, v in table.items())
            raise InputError(f"{self.path}: holds the codes {found}; {said} has no {stray[0]} (it has {names}): give another format=, or map=")
        if "S4" in {table[c] for c in counts}:
            self.notes.append("stage 4 (R&K) is read as N3")
            table |= {k: "N3" for k, v in table.items() if v == "S4"}
        return [table[c] for c in codes]

    # -- layouts --------------------------------------------------------------------------------------------------------
    def epochs(self, values: list[Any], epoch: float | None = None) -> Hypnogram:
        """A stage an epoch."""
        if not values:
            raise FormatError(f"{self.path}: holds no epochs")
        names = self.named(values)
        length = self.epoch or epoch
        if length is None:
            raise InputError(f"{self.path}: holds {len(values)} stages, one an epoch, and does not say how long an epoch is: pass epoch= in s")
        return self.hypnogram(names, length, self.start)

    def vector(self, ref: ArrayFile) -> Hypnogram:
        """A stage an epoch in an array file."""
        values = np.asarray(load_array(self.path, ref))
        if values.size and max(values.shape, default=1) != values.size:
            raise FormatError(f"{self.path}: {ref.key or 'the array'} has shape {values.shape}, expected one stage an epoch")
        return self.epochs(list(values.ravel()))

    def bouts(self, begin: NDArray[np.float64], end: NDArray[np.float64], values: list[Any]) -> Hypnogram:
        """Stages from `begin` to `end`, s; epochs that no bout covers are unscored."""
        if not len(begin):
            raise FormatError(f"{self.path}: holds no stages under its header")
        names = self.named(values)
        if not (np.isfinite(begin).all() and np.isfinite(end).all() and (end > begin).all()):
            raise FormatError(f"{self.path}: holds {len(begin)} stages, and one of them lacks a time or a length: correct that row")
        order = np.argsort(begin, kind="stable")
        begin, end, names = begin[order], end[order], [names[i] for i in order]
        if (over := np.flatnonzero(begin[1:] < end[:-1] - 1e-3)).size:
            raise FormatError(f"{self.path}: stages overlap at {begin[over[0] + 1]:g} s ({names[over[0]]} and {names[over[0] + 1]}), expected one at a time")
        edges = np.r_[begin, end] - begin[0]
        length = self.epoch or _common(edges)
        if length is None or np.abs(edges / length - np.rint(edges / length)).max() > 0.01:
            off = "share no epoch of at least 0.1 s" if length is None else f"do not lie on epochs of {length:g} s"
            raise InputError(
                f"{self.path}: the times of its stages {off} (the first are {', '.join(f'{e:g}' for e in np.unique(edges)[:5])} s): pass another epoch="
            )
        first, last = np.rint((begin - begin[0]) / length).astype(int), np.rint((end - begin[0]) / length).astype(int)
        out = ["UNS"] * int(last.max())
        for i, j, name in zip(first, last, names):
            out[i:j] = [name] * (j - i)
        if holes := len(out) - int((last - first).sum()):
            self.notes.append(f"{holes} epochs between stages are not scored (UNS)")
        return self.hypnogram(out, length, self.start + float(begin[0]))

    # -- files --------------------------------------------------------------------------------------------------------------
    def edf(self) -> Hypnogram | EventTable:
        from brainmu.formats.edf import read

        rec = read(self.path)
        label = rec.labels.get("scoring", rec.labels.get("annotations"))
        if not isinstance(label, (Hypnogram, EventTable)):
            raise FormatError(f"{self.path}: holds no annotations, expected an EDF+ file with some")
        label.attrs["notes"] = [*label.attrs.get("notes", []), *rec.warnings]
        if isinstance(label, Hypnogram):
            label.start += self.start
            return label
        return label.assign(start=label.start + self.start, stop=label.stop + self.start, peak=label.peak + self.start)

    def mat(self) -> Hypnogram:
        held = members(self.path)
        if any(k.split("/")[0] == "SleepState" for k in held):
            return self._buzcode()
        vectors = [k for k, (shape, kind) in held.items() if sum(n > 1 for n in shape) == 1 and kind not in ("cell", "struct", "char")]
        key = "labels" if "labels" in held else vectors[0] if len(vectors) == 1 else None
        if key is None:
            raise FormatError(f"{self.path}: holds {', '.join(held)}, expected AccuSleep's labels, buzcode's SleepState, or one vector of codes")
        return self.vector(ArrayFile(str(self.path), key=key))

    def _buzcode(self) -> Hypnogram:
        def field(name: str) -> NDArray[np.float64]:
            return np.asarray(load_array(self.path, ArrayFile(str(self.path), key=f"SleepState.idx.{name}")), dtype=np.float64).ravel()

        states, t = field("states"), field("timestamps")
        if len(states) != len(t) or len(t) < 2 or not np.allclose(np.diff(t), 1.0):
            raise FormatError(f"{self.path}: SleepState.idx holds {len(states)} states at {len(t)} times, expected one a second without a gap")
        self.format, self.scorer = "buzcode", self.scorer or "buzcode"
        names = self.named(list(states))
        # A state at second t describes the second that is centred on it.
        return self.hypnogram(names, 1.0, self.start + float(t[0]) - 0.5)

    def text(self) -> Hypnogram | EventTable:
        try:
            raw = self.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError:
            raw = self.path.read_text(encoding="latin-1")
        if "\0" in raw:
            raise FormatError(f"{self.path}: is no plain text (it holds zero bytes): save it as UTF-8 text, or as csv from a spreadsheet")
        lines = [line for line in raw.splitlines() if line.strip()]
        if not lines:
            raise FormatError(f"{self.path}: holds no lines of text")
        head = [line.strip() for line in lines[:60]]
        if self.format == "elan" or head[0].lower().startswith("time_base"):
            return self._elan(head[0], lines)
        if any(line.startswith(("*Duration_sec", "*Datafile")) for line in head[:4]) or (self.format in ("visbrain", "somnotate") and not _one_column(lines)):
            return self._stage_and_end([line for line in lines if not line.startswith("*")])
        if (at := next((k for k, line in enumerate(head) if re.match(r"epoch\s*no", line, re.IGNORECASE)), None)) is not None or self.format == "sleepsign":
            return self._sleepsign(lines[(0 if at is None else at + 1) :])
        description = self.path.with_name(f"{self.path.stem}_description.txt")
        if _one_column(lines) and description.is_file():
            return self._described(lines, description)
        if _one_column(lines):
            cells = [line.strip().strip('"') for line in lines]
            named = cells[0].lower().strip("[]") in _STAGE_COLUMNS
            if named and cells[0].lower() == "brain_state" and self.format is None and self.map is None:
                self._is_accusleep()
            return self.epochs(cells[1:] if named else cells)
        return self._table()

    def _is_accusleep(self) -> None:
        self.format, self.scorer = "accusleep", self.scorer or "accusleep"
        self.notes.append("column brain_state is AccuSleep's: codes are read as its defaults (1 REM, 2 WAKE, 3 NREM); pass map= if they were changed there")

    def _elan(self, first: str, lines: list[str]) -> Hypnogram:
        base = re.match(r"time_base\s+([\d.]+)", first, re.IGNORECASE)
        begin = next((k + 1 for k, line in enumerate(lines[:10]) if line.lower().startswith("epoch_list")), None)
        if base is None or begin is None:
            raise FormatError(f"{self.path}: its header lacks time_base or epoch_list, expected an Elan .hyp")
        self.format = "elan"
        return self.epochs([line.strip() for line in lines[begin:]], float(base.group(1)))

    def _stage_and_end(self, lines: list[str]) -> Hypnogram:
        rows = [line.rsplit(None, 1) for line in lines]
        try:
            end = np.array([float(r[1]) for r in rows])
        except (IndexError, ValueError):
            bad = next(line for line, r in zip(lines, rows) if len(r) < 2 or not _is_float(r[1]))
            raise FormatError(f"{self.path}: line {bad!r} is not a stage and the time at which it ends, as visbrain and Somnotate write it") from None
        keep = np.diff(np.r_[0.0, end]) > 0
        if (np.diff(end) < 0).any():
            raise FormatError(
                f"{self.path}: the times at which stages end go back at {end[int(np.flatnonzero(np.diff(end) < 0)[0])]:g} s: is it another format?"
            )
        return self.bouts(np.r_[0.0, end[:-1]][keep], end[keep], [r[0] for r, k in zip(rows, keep) if k])

    def _sleepsign(self, lines: list[str]) -> Hypnogram:
        rows = [m for line in lines if (m := re.match(r"\s*(\d+)[\s,]+([A-Za-z?0-9]+)(?:[\s,]+(.*))?$", line))]
        if not rows:
            raise FormatError(f"{self.path}: holds no rows of epoch number, stage and time, as SleepSign exports them")
        number = np.array([int(m.group(1)) for m in rows])
        if (back := np.flatnonzero(np.diff(number) < 1)).size:
            # SleepSign appends each new scoring to the file.
            self.notes.append(f"holds {len(back) + 1} scorings one after another; the last was read")
            rows, number = rows[back[-1] + 1 :], number[back[-1] + 1 :]
        if (np.diff(number) != 1).any():
            raise FormatError(
                f"{self.path}: epoch {number[int(np.flatnonzero(np.diff(number) != 1)[0])]} is followed by another than the next: rows are missing"
            )
        self.format = "sleepsign"
        stamps = [re.search(r"(\d{2,4}[/-]\d{1,2}[/-]\d{1,4}[ T]+)?\d{1,2}:\d{2}:\d{2}(\.\d+)?", m.group(3) or "") for m in rows]
        clock = pd.to_datetime(pd.Series([m.group(0) if m else "" for m in stamps]), errors="coerce", format="mixed")
        step = clock.diff().dt.total_seconds().dropna()
        return self.epochs([m.group(2) for m in rows], float(step.median()) if len(step) and step.median() > 0 and step.nunique() == 1 else None)

    def _described(self, lines: list[str], description: Path) -> Hypnogram:
        rows = [line.split() for line in description.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
        said = {r[0]: float(r[1]) for r in rows if len(r) == 2 and _is_float(r[1])}
        if "time" not in said or len(said) < 2:
            raise FormatError(f"{description}: expected a line 'time SECONDS' and a line 'STAGE CODE' for each stage, as visbrain writes it")
        length = said.pop("time")
        if self.map is None:
            self.map = {int(code): self._of_word(name) or name for name, code in said.items()}
        return self.epochs([line.strip() for line in lines], length)

    def _table(self) -> Hypnogram | EventTable:
        frame = read_log(self.path)
        lower = {str(c).strip().lower(): c for c in frame.columns}
        stage = next((lower[c] for c in _STAGE_COLUMNS if c in lower), None)
        if stage is None or (self.format is None and not self._holds_stages(list(frame[stage]))):
            if self.format not in (None, "bids", "times"):
                raise FormatError(f"{self.path}: has columns {', '.join(map(str, frame.columns))}, expected a column stage for format {self.format!r}")
            return read_events(self.path, start=self.start)
        if str(stage).lower() == "brain_state" and self.format is None and self.map is None:
            self._is_accusleep()
        if not {"start", "onset"} & set(lower):
            clock = next((lower[c] for c in ("time", "t", "seconds") if c in lower), None)
            if clock is None or not pd.api.types.is_numeric_dtype(frame[clock]):
                return self.epochs(list(frame[stage]))
            frame = frame.rename(columns={clock: "start"})
        values = list(frame[stage])
        events = read_events(self.path, frame=frame.drop(columns=[stage]), point=True)
        begin, end = events.start, events.stop
        if (end <= begin).all():
            # Starts alone: a stage lasts until the next, the last one as long as an epoch.
            last = self.epoch or (float(np.diff(begin)[0]) if len(begin) > 1 and np.ptp(np.diff(begin)) < 1e-6 else None)
            if last is None:
                raise InputError(f"{self.path}: stages have a start and no end, and uneven steps: pass epoch= in s, or give a column duration")
            end = np.r_[begin[1:], begin[-1] + last]
        return self.bouts(begin, end, values)

    def _holds_stages(self, values: list[Any]) -> bool:
        """Whether a column of words names sleep stages (or codes, which then need a format)."""
        if all(_whole(v) is not None for v in values):
            return True
        known = {str(k) for k in self.map or {}}
        return bool(values) and all(str(v).strip() in known or self._of_word(str(v).strip()) is not None for v in set(values))


def _whole(value: Any) -> int | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if np.isfinite(number) and number == int(number) else None


def _is_blank(value: Any) -> bool:
    return str(value).strip().lower() in ("", "nan", "n/a", "none")


def _is_float(word: str) -> bool:
    try:
        return bool(np.isfinite(float(word)))
    except ValueError:
        return False


def _one_column(lines: list[str]) -> bool:
    return not any(re.search(r"[,;\t]|\d\s+\S", line.strip().rstrip(",;")) for line in lines[:200])


def _common(edges: NDArray[np.float64]) -> float | None:
    """The longest epoch (s, at least 0.1) on whose grid all edges lie, to the millisecond."""
    ms = np.unique(np.rint(edges * 1000).astype(np.int64))
    step = int(np.gcd.reduce(ms[ms > 0])) if (ms > 0).any() else 0
    # Bouts of people are multiples of 30 s: an epoch of minutes was nobody's.
    return None if step < 100 else 30.0 if step % 30_000 == 0 else step / 1000
