"""Hypnograms in and out of files: TSV, BIDS events, EDF+ annotations, NPZ, and the integer codes of other tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

import numpy as np
import pandas as pd

from brainmu.core.effect import jsonable
from brainmu.core.hypnogram import STAGE_SETS, Hypnogram
from brainmu.errors import FormatError, InputError, NotFoundError

__all__ = ["read_hypnogram", "write_hypnogram"]

_EDF_NAMES = {"W": "Sleep stage W", "N1": "Sleep stage N1", "N2": "Sleep stage N2", "N3": "Sleep stage N3", "R": "Sleep stage R",
              "WAKE": "Sleep stage W", "NREM": "Sleep stage N", "REM": "Sleep stage R", "ART": "Movement time", "UNS": "Sleep stage ?"}  # fmt: skip


def write_hypnogram(hypnogram: Hypnogram, path: str | Path, *, codec: str | None = None) -> Path:
    """Write a hypnogram; the suffix says how.

    ``_events.tsv`` is BIDS (a row a bout, with its probability where known); other ``.tsv`` a row an epoch with probabilities; ``.edf`` EDF+ annotations
    (a bout each); ``.npz`` everything; ``.csv``, ``.txt`` and ``.npy`` the integers of another tool, named by `codec`
    (yasa, accusleep, somnotate, buzcode), with accusleep's column name in ``.csv``; ``.mat`` AccuSleep's ``labels`` or buzcode's ``SleepState`` (a state
    a second, and the spans of each). Accusleep and buzcode have no code for ART, which is written as UNS. Written whole or not at all; an existing file is
    replaced.

    Raises
    ------
    InputError
        For an unknown suffix, integers without a codec, a stage that the codec lacks, or epochs that buzcode's seconds do not hold.
    """
    p = Path(path)
    kind = _kind(p, codec)
    write: dict[str, Callable[[Hypnogram, Path], None]] = {"tsv": _to_tsv, "bids": _to_bids, "edf": _to_edf, "npz": _to_npz}
    p.parent.mkdir(parents=True, exist_ok=True)
    partial = p.with_name(f".{p.stem}.partial{p.suffix}")
    try:
        if kind == "codes":
            _to_codes(hypnogram, partial, str(codec))
        else:
            write[kind](hypnogram, partial)
        partial.replace(p)
    finally:
        partial.unlink(missing_ok=True)
    return p


def read_hypnogram(
    path: str | Path, *, codec: str | None = None, epoch: float | None = None, start: float = 0.0, stage_set: str | None = None
) -> Hypnogram:  # fmt: skip
    """Read a hypnogram that :func:`write_hypnogram` or another tool wrote.

    Parameters
    ----------
    path : str or Path
        ``.tsv``, ``_events.tsv`` (BIDS), ``.edf`` (EDF+ annotations), ``.npz``; or with `codec` the integers in ``.csv``, ``.txt``, ``.npy`` or ``.mat``
        (a single vector, AccuSleep's ``labels``), or the file as the tool itself writes it: AccuSleep's csv, buzcode's ``SleepState``, Somnotate's stages and
        end times, YASA's names.
    codec : str or None
        yasa, accusleep, somnotate or buzcode.
    epoch : float or None, s
        Needed for integers; for annotations the greatest epoch that divides all of them where not given. buzcode's states are seconds; an `epoch` of several
        takes the state in its middle.
    start : float, s
        Session time of the first integer.
    stage_set : str or None
        "aasm5" or "rodent3" where the names leave it open.

    Raises
    ------
    NotFoundError, FormatError, InputError
    """
    p = Path(path)
    if not p.exists():
        raise NotFoundError(f"{p}: no such file, expected a hypnogram")
    if p.is_dir():
        raise InputError(f"{p}: is a folder, expected the file of one hypnogram")
    kind = _kind(p, codec)
    try:
        if kind == "codes" and _is_native(p):
            return _from_native(p, str(codec), epoch, start)
        if kind == "codes":
            if epoch is None:
                raise InputError(f"{p}: holds an integer an epoch, which do not say how long an epoch is: pass epoch= in s")
            return Hypnogram.from_codes(_integers(p), str(codec), epoch, start)
        if kind == "npz":
            return _from_npz(p)
        if kind == "edf":
            return _from_bouts(*_edf_bouts(p), p, epoch, stage_set)
        frame = pd.read_csv(p, sep="\t", keep_default_na=False, na_values=["n/a"])
        return _from_tsv(frame, p, epoch, stage_set)
    except InputError as error:
        raise InputError(f"{p}: {error}" if str(p) not in str(error) else str(error)) from None
    except (ValueError, KeyError, OSError, UnicodeDecodeError, pd.errors.ParserError) as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{p}: cannot be read as a hypnogram ({' '.join(str(error).split())[:160]})") from None


def _kind(p: Path, codec: str | None) -> str:
    suffix = p.suffix.lower()
    if suffix == ".tsv":
        return "bids" if p.stem.endswith("_events") or p.stem == "events" else "tsv"
    if suffix in (".edf", ".npz"):
        return suffix[1:]
    if suffix in (".csv", ".txt", ".npy", ".mat"):
        if codec is None:
            raise InputError(f"{p}: integers mean different stages in different tools: pass codec= (yasa, accusleep, somnotate, buzcode)")
        return "codes"
    raise InputError(f"{p}: suffix {suffix!r} is not known: use .tsv, _events.tsv (BIDS), .edf (EDF+), .npz, or .csv/.npy with codec=")


# -- TSV, a row an epoch --------------------------------------------------------------------------------------------
def _to_tsv(h: Hypnogram, path: Path) -> None:
    frame = h.to_frame()
    for c in [c for c in frame if str(c).startswith("p_")]:
        frame[c] = frame[c].map(lambda v: f"{v:.6g}" if np.isfinite(v) else "n/a")
    frame.to_csv(path, sep="\t", index=False, lineterminator="\n")


def _from_tsv(frame: pd.DataFrame, p: Path, epoch: float | None, stage_set: str | None) -> Hypnogram:
    onset = next((c for c in ("start", "onset") if c in frame), None)
    stage = next((c for c in ("stage", "trial_type", "staging", "description") if c in frame), None)
    if onset is None or stage is None or "duration" not in frame:
        raise FormatError(f"{p}: has columns {', '.join(map(str, frame.columns))}, expected start (or onset), duration and stage (or trial_type)")
    begin, length = frame[onset].to_numpy(dtype=np.float64), frame["duration"].to_numpy(dtype=np.float64)
    numbers = [s for s in frame[stage] if not isinstance(s, str) and np.isfinite(s)]
    if numbers:
        raise InputError(
            f"{p}: column {stage} holds numbers ({numbers[0]:g}, …), which mean different stages in different tools: "
            "write stages by name, or save the column as .csv and pass codec="
        )
    names = [str(s) if isinstance(s, str) else "UNS" for s in frame[stage]]
    if epoch is None and stage == "trial_type" and "epoch" in frame and frame["epoch"].nunique() == 1:
        epoch = float(frame["epoch"].iloc[0])
    known = {f"p_{s}" for v in STAGE_SETS.values() for s in v} & set(map(str, frame.columns))
    regular = len(begin) > 0 and np.allclose(length, length[0]) and np.allclose(np.diff(begin), length[0], atol=1e-6)
    if known and regular and epoch is None:
        target = next(k for k, v in STAGE_SETS.items() if known == {f"p_{s}" for s in v})
        p_stage = frame[[f"p_{s}" for s in STAGE_SETS[target]]].to_numpy(dtype=np.float64)
        return Hypnogram.from_stages(names, float(length[0]), float(begin[0]), proba=_unit_rows(p_stage), stage_set=target)
    return _from_bouts(begin, length, names, p, epoch, stage_set)


def _unit_rows(p: np.ndarray) -> np.ndarray:
    return p / p.sum(axis=1, keepdims=True)


# -- bouts: BIDS events and EDF+ annotations ------------------------------------------------------------------------
def _to_bids(h: Hypnogram, path: Path) -> None:
    b = h.bouts()
    frame = pd.DataFrame({"onset": b["start"], "duration": b["duration"], "trial_type": b["stage"]})
    if h.proba is not None:
        frame["probability"] = [
            f"{float(h.proba[i : i + n].max(axis=1).mean()):.4g}" if np.isfinite(h.proba[i : i + n]).all() else "n/a" for i, n in zip(b["first"], b["epochs"])
        ]
    frame["epoch"] = h.epoch
    frame.to_csv(path, sep="\t", index=False, lineterminator="\n")


def _to_edf(h: Hypnogram, path: Path) -> None:
    from edfio import Edf, EdfAnnotation

    if h.start < 0:
        raise InputError(f"hypnogram starts at {h.start:g} s, EDF+ annotations cannot lie before 0: shift the session's clock")
    b = h.bouts()
    notes = [EdfAnnotation(float(a), float(d), _EDF_NAMES[s]) for a, d, s in zip(b["start"], b["duration"], b["stage"])]
    Edf(signals=[], annotations=notes).write(path)


def _edf_bouts(p: Path) -> tuple[np.ndarray, np.ndarray, list[str]]:
    from edfio import read_edf

    with p.open("rb") as f:
        if f.read(8).strip() != b"0":
            raise FormatError(f"{p}: does not begin as an EDF file does (version 0): export EDF+ annotations again, or choose another format")
    notes = [a for a in read_edf(p).annotations if a.text.lower().startswith(("sleep stage", "movement", "artefact", "artifact"))]
    if not notes:
        raise FormatError(f"{p}: holds no annotation that names a sleep stage ('Sleep stage W', …)")
    return np.array([a.onset for a in notes]), np.array([a.duration or 0.0 for a in notes]), [a.text for a in notes]


def _from_bouts(begin: np.ndarray, length: np.ndarray, names: list[str], p: Path, epoch: float | None, stage_set: str | None) -> Hypnogram:
    """Epochs from bouts; what no bout covers is unscored."""
    if not len(begin):
        raise FormatError(f"{p}: holds no rows, expected at least one epoch")
    if not (np.isfinite(begin).all() and np.isfinite(length).all() and (length > 0).all()):
        raise FormatError(f"{p}: a row lacks its start or a positive duration")
    order = np.argsort(begin, kind="stable")
    begin, length, names = begin[order], length[order], [names[i] for i in order]
    overlap = np.flatnonzero(begin[1:] < begin[:-1] + length[:-1] - 1e-6)
    if len(overlap):
        i = int(overlap[0])
        raise FormatError(f"{p}: stages overlap at {begin[i + 1]:g} s ({names[i]} and {names[i + 1]}): expected one stage at a time")
    step = _common_step(np.r_[begin - begin[0], length]) if epoch is None else epoch
    if not step >= 0.5:
        raise InputError(f"{p}: its bouts share no epoch longer than {step:g} s: pass epoch=, the length that they were scored in")
    n = round((begin[-1] + length[-1] - begin[0]) / step)
    middle = begin[0] + (np.arange(n) + 0.5) * step
    which = np.searchsorted(begin, middle, side="right") - 1
    inside = middle < begin[which] + length[which]
    clean = ["NREM" if s == "Sleep stage N" else s for s in names]
    stages = [clean[k] if ok else "UNS" for k, ok in zip(which, inside)]
    kales = any(s.lower() in ("sleep stage 3", "sleep stage 4", "s3", "s4") for s in clean)
    return Hypnogram.from_stages(stages, step, float(begin[0]), rk=kales, stage_set=stage_set)


def _common_step(times: np.ndarray) -> float:
    """Greatest epoch (s) that divides all times, to the millisecond."""
    ms = np.unique(np.round(times * 1000).astype(np.int64))
    step = int(np.gcd.reduce(ms[ms > 0]))
    # People's bouts are multiples of 30 s: finer epochs would claim a precision that nobody scored.
    return step / 1000 if step < 30_000 or step % 30_000 else 30.0


# -- NPZ and integers -----------------------------------------------------------------------------------------------
def _to_npz(h: Hypnogram, path: Path) -> None:
    arrays: dict[str, Any] = {"codes": h.codes, "stages": np.array(h.stages), "epoch": h.epoch, "start": h.start, "scorer": h.scorer,
                              "attrs": json.dumps(jsonable(h.attrs))}  # fmt: skip
    if h.proba is not None:
        arrays["proba"] = h.proba
    with path.open("wb") as f:
        np.savez_compressed(f, **arrays)


def _from_npz(p: Path) -> Hypnogram:
    if not is_zipfile(p):  # numpy would take anything else for a pickle
        raise FormatError(f"{p}: is not an NPZ archive or was cut off: write it again with write_hypnogram")
    with np.load(p, allow_pickle=False) as z:
        missing = {"codes", "stages", "epoch"} - set(z.files)
        if missing:
            raise FormatError(f"{p}: holds {', '.join(z.files)}, expected codes, stages and epoch")
        return Hypnogram(
            z["codes"], tuple(str(s) for s in z["stages"]), float(z["epoch"]), float(z["start"]) if "start" in z else 0.0,
            z.get("proba"), str(z["scorer"]) if "scorer" in z else "", json.loads(str(z["attrs"])) if "attrs" in z else {},
        )  # fmt: skip


def _to_codes(h: Hypnogram, path: Path, codec: str) -> None:
    codes = h.to_codes(codec)
    if path.suffix == ".npy":
        np.save(path, codes)
    elif path.suffix == ".mat":
        from scipy.io import savemat

        # Without a name of its own the file would get a second suffix.
        with path.open("wb") as f:
            savemat(f, {"SleepState": _sleep_state(h)} if codec == "buzcode" else {"labels": codes[:, None].astype(np.float64)})
    elif codec == "accusleep" and path.suffix == ".csv":
        pd.DataFrame({"brain_state": codes}).to_csv(path, index=False, lineterminator="\n")
    else:
        np.savetxt(path, codes, fmt="%d")


def _sleep_state(h: Hypnogram) -> dict[str, Any]:
    """buzcode's SleepState.states: a state a second, centred on it, and the first and last second of each bout."""
    per = round(h.epoch)
    if abs(per - h.epoch) > 1e-6 or per < 1:
        raise InputError(f"buzcode's states are whole seconds and the hypnogram's epochs are {h.epoch:g} s: write another format, or score whole seconds")
    seconds = np.repeat(h.to_codes("buzcode"), per).astype(np.float64)
    t = h.start + 0.5 + np.arange(len(seconds))
    spans = {f"{s}state": h.intervals(s).bounds + [0.5, -0.5] if h.mask(s).any() else np.empty((0, 2)) for s in ("WAKE", "NREM", "REM")}
    names = np.array(["WAKE", "", "NREM", "", "REM"], dtype=object)
    return {"ints": spans, "idx": {"states": seconds[:, None], "timestamps": t[:, None], "statenames": names}, "detectorinfo": {"detectorname": "brainmu"}}


def _is_native(p: Path) -> bool:
    """Whether a file holds more than bare integers, as its tool writes it."""
    if p.suffix == ".mat":
        return True
    if p.suffix == ".npy":
        return False
    return any(c.isalpha() for line in p.read_text(encoding="utf-8", errors="replace").splitlines() if not line.startswith("#") for c in line)


def _from_native(p: Path, codec: str, epoch: float | None, start: float) -> Hypnogram:
    from brainmu.formats.scorings import read_scoring

    h = read_scoring(p, format=codec, epoch=epoch, start=start, rk=True)
    if not isinstance(h, Hypnogram):
        raise FormatError(f"{p}: holds events and no sleep stages")
    if epoch is None or abs(h.epoch - epoch) < 1e-9:
        return h
    n = round(len(h) * h.epoch / epoch)
    return Hypnogram(h.at(h.start + (np.arange(n) + 0.5) * epoch), h.stages, epoch, h.start, None, h.scorer, h.attrs)


def _integers(p: Path) -> np.ndarray:
    if p.suffix == ".npy":
        return np.load(p, allow_pickle=False).ravel()
    table = pd.read_csv(p, header=None, sep=r"[,;\s]+", engine="python", comment="#")
    column = table.iloc[:, -1]
    numbers = pd.to_numeric(column, errors="coerce")
    if numbers.isna().iloc[1:].any():
        raise FormatError(f"{p}: line {int(np.flatnonzero(numbers.isna())[-1]) + 1} is {column[numbers.isna()].iloc[-1]!r}, expected an integer code")
    return numbers.dropna().to_numpy()
