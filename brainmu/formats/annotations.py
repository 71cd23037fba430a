"""Free-text annotations of EDF+ and FIF to labels: sleep stages to a hypnogram, the rest to events."""

from __future__ import annotations

import re

import numpy as np

from brainmu.core import EventTable, Hypnogram, Recording
from brainmu.errors import InputError

__all__ = ["add_annotations", "hypnogram_of"]

_STAGE = re.compile(r"^(sleep stage (w|wake|n?[1-4]|r|rem|\?)|sleep_stage_?(w|n[1-3]|r)|movement time|stage ?(w|n[1-3]|r))$", re.IGNORECASE)
_RODENT = re.compile(r"^(sleep[ _]stage[ _]?)?(wake|nrem|sws|rem|art|uns)$", re.IGNORECASE)
_NREM = re.compile(r"(nrem|sws)$", re.IGNORECASE)
_NUMBERED = re.compile(r"[1-4]$")
_EPOCHS = (30.0, 20.0, 10.0, 5.0, 4.0, 2.0, 1.0)


def add_annotations(rec: Recording, found: list[tuple[float, float, str]]) -> None:
    """Put annotations (onset s, duration s, text) into the labels of `rec`: "scoring" and "annotations".

    Stages are those of the AASM, or WAKE, NREM (SWS) and REM where NREM and no numbered stage is among them: a lone "Wake" may be anything.
    """
    pattern, stage_set = _STAGE, "aasm5"
    undivided = any(_RODENT.match(text) and _NREM.search(text) for *_, text in found)
    if undivided and not any(_STAGE.match(text) and _NUMBERED.search(text) for *_, text in found):
        pattern, stage_set = _RODENT, "rodent3"
    stages = [a for a in found if pattern.match(a[2])]
    if stages:
        h = hypnogram_of(stages, rec, stage_set)
        if h is None:
            rec.warn("sleep-stage annotations lie on no common grid of epochs: kept as events")
        else:
            rec.labels["scoring"] = h
            found = [a for a in found if not pattern.match(a[2])]
    if found:
        rest = sorted(found)
        start = np.array([t for t, _, _ in rest])
        rec.labels["annotations"] = EventTable(start, start + [d for _, d, _ in rest], kind=[text for *_, text in rest])


def hypnogram_of(stages: list[tuple[float, float, str]], rec: Recording, stage_set: str = "aasm5") -> Hypnogram | None:
    """The hypnogram that stage annotations describe, or None if they fit no grid. R&K stages 3 and 4 become N3, said in a warning."""
    rows = sorted(stages)
    start, length = np.array([t for t, _, _ in rows]), np.array([d for _, d, _ in rows])
    if len(rows) > 1:
        # Some writers give no duration: a stage lasts until the next.
        length[:-1] = np.where(length[:-1] > 0, length[:-1], np.diff(start))
    if length[-1] <= 0:
        length[-1] = np.median(length[:-1]) if len(rows) > 1 else 30.0
    edges = np.r_[start - start[0], start - start[0] + length]
    epoch = next((e for e in _EPOCHS if np.abs(edges / e - np.rint(edges / e)).max() < 1e-3), None)
    if epoch is None:
        return None
    first, n = np.rint((start - start[0]) / epoch).astype(int), np.rint(length / epoch).astype(int)
    names = np.full(int((first + n).max()), "UNS", dtype=object)
    filled = np.zeros(len(names), dtype=int)
    for k, (i, m) in enumerate(zip(first, n)):
        names[i : i + m] = re.sub(r"^sleep_stage_?|^stage ?(?=[wnr])", "Sleep stage ", rows[k][2], flags=re.IGNORECASE)
        filled[i : i + m] += 1
    if (filled > 1).any():
        rec.warn(f"{int((filled > 1).sum())} epochs carry two stages; the later annotation counts")
    if (filled == 0).any():
        rec.warn(f"{int((filled == 0).sum())} epochs between stages are not scored (UNS)")
    names = [re.sub(r"stage (wake)$", "stage W", re.sub(r"stage rem$", "stage R", s, flags=re.IGNORECASE), flags=re.IGNORECASE) for s in names]
    try:
        h = Hypnogram.from_stages(names, epoch, float(start[0]), rk=stage_set == "aasm5", stage_set=stage_set, scorer="annotations")
    except InputError as error:
        rec.warn(f"sleep-stage annotations could not be read as a hypnogram ({error})")
        return None
    if "merged" in h.attrs:
        rec.warn(f"scoring: {h.attrs['merged']}; stages are Rechtschaffen & Kales, read as AASM")
    return h
