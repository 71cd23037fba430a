"""Sleep stages, one an epoch. Strings are canonical; the integer codes of other tools collide and need a named codec."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from brainmu.core.intervals import Intervals
from brainmu.errors import InputError

__all__ = ["ARTEFACT", "CODECS", "STAGE_SETS", "UNSCORED", "Hypnogram", "stage_group"]

STAGE_SETS: dict[str, tuple[str, ...]] = {
    "aasm5": ("W", "N1", "N2", "N3", "R"),
    "rodent3": ("WAKE", "NREM", "REM"),
}
"""Stage sets by name. Codes of a :class:`Hypnogram` index into one of them; ART is -1, UNS is -2."""

ARTEFACT, UNSCORED = -1, -2

_GROUPS: dict[str, frozenset[str]] = {
    "WAKE": frozenset({"WAKE", "W"}),
    "NREM": frozenset({"NREM", "N1", "N2", "N3"}),
    "REM": frozenset({"REM", "R"}),
}

_ALIASES = {
    "w": "W", "wake": "WAKE", "awake": "WAKE", "waking": "WAKE", "wakefulness": "WAKE", "sleep stage w": "W",
    "n1": "N1", "n2": "N2", "n3": "N3", "s1": "N1", "s2": "N2", "n": "NREM", "nrem": "NREM", "sws": "NREM", "nonrem": "NREM", "non-rem": "NREM",
    "sleep stage n1": "N1", "sleep stage n2": "N2", "sleep stage n3": "N3",
    "sleep stage 1": "N1", "sleep stage 2": "N2", "sleep stage r": "R", "r": "R", "rem": "REM",
    "art": "ART", "artefact": "ART", "artifact": "ART", "movement": "ART", "movement time": "ART", "m": "ART",
    "uns": "UNS", "unscored": "UNS", "unknown": "UNS", "sleep stage ?": "UNS", "?": "UNS", "": "UNS", "nan": "UNS", "none": "UNS",
}  # fmt: skip

_RECHTSCHAFFEN_KALES = {"s3": "N3", "s4": "N3", "sleep stage 3": "N3", "sleep stage 4": "N3"}

CODECS: dict[str, dict[int, str]] = {
    "yasa": {0: "W", 1: "N1", 2: "N2", 3: "N3", 4: "R", -1: "ART", -2: "UNS"},
    "accusleep": {1: "REM", 2: "WAKE", 3: "NREM", 4: "UNS"},
    "somnotate": {1: "WAKE", 2: "NREM", 3: "REM", -1: "ART", -2: "ART", -3: "ART", 0: "UNS"},
    "buzcode": {1: "WAKE", 3: "NREM", 5: "REM", 0: "UNS"},
}
"""Integer codes of other tools: YASA; AccuSleep; Somnotate (awake, non-REM, REM; negatives are the same with artefact);
buzcode SleepState.states (TheStateEditor)."""


def stage_group(stage: str) -> frozenset[str]:
    """The stage names that `stage` stands for: WAKE, NREM and REM also name groups of AASM stages.

    >>> sorted(stage_group("NREM"))
    ['N1', 'N2', 'N3', 'NREM']
    """
    known = set(STAGE_SETS["aasm5"]) | set(STAGE_SETS["rodent3"]) | {"ART", "UNS"}
    if stage not in known:
        raise InputError(f"stage {stage!r} is not known: use one of {', '.join(sorted(known))}")
    return _GROUPS.get(stage, frozenset({stage}))


def _canonical(stage: Any) -> str:
    s = str(stage).strip()
    if s in ("W", "N1", "N2", "N3", "R", "WAKE", "NREM", "REM", "ART", "UNS"):
        return s
    key = s.lower()
    if key in _ALIASES:
        return _ALIASES[key]
    if key in _RECHTSCHAFFEN_KALES:
        raise InputError(f"stage {s!r} is a Rechtschaffen & Kales stage: pass rk=True to merge S3 and S4 into N3 (the merge is then stated)")
    raise InputError(f"stage {s!r} is not known: use W N1 N2 N3 R, or WAKE NREM REM, or ART (artefact), UNS (unscored)")


class Hypnogram:
    """Sleep stages on a regular grid of epochs.

    Parameters
    ----------
    codes : int8 (n,)
        Index into `stages`; -1 ART (artefact), -2 UNS (unscored).
    stages : sequence of str
        The stage set, ``STAGE_SETS["aasm5"]`` or ``STAGE_SETS["rodent3"]`` (or its name).
    epoch : float, s
        Length of an epoch.
    start : float, s
        Session time at which the first epoch begins.
    proba : float32 (n, K) or None
        Probability of each stage; rows sum to 1 (or are NaN where unscored).
    scorer : str
        Who or what scored it.
    attrs : dict
        Provenance: ``merged`` (R&K stages), ``centred`` (True where an epoch's label used its future), …

    Examples
    --------
    >>> h = Hypnogram.from_stages(["WAKE", "NREM", "NREM", "REM"], epoch=4.0)
    >>> h.intervals("NREM").bounds.tolist()
    [[4.0, 12.0]]
    """

    def __init__(
        self, codes: ArrayLike, stages: Sequence[str] | str, epoch: float, start: float = 0.0, proba: ArrayLike | None = None,
        scorer: str = "", attrs: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        names = STAGE_SETS[stages] if isinstance(stages, str) and stages in STAGE_SETS else stages
        if isinstance(names, str) or tuple(names) not in STAGE_SETS.values():
            raise InputError(f"stages are {stages!r}, expected 'aasm5' (W N1 N2 N3 R) or 'rodent3' (WAKE NREM REM)")
        self.stages: tuple[str, ...] = tuple(names)
        raw = np.atleast_1d(np.asarray(codes))
        if raw.ndim != 1 or (raw.size and raw.dtype.kind not in "iu"):
            raise InputError(f"hypnogram codes are {raw.dtype} of shape {raw.shape}, expected integers (n,): use Hypnogram.from_stages for names")
        if raw.size and (raw.min() < UNSCORED or raw.max() >= len(self.stages)):
            bad = raw[(raw < UNSCORED) | (raw >= len(self.stages))][0]
            raise InputError(
                f"hypnogram code {bad} is outside -2..{len(self.stages) - 1} of {' '.join(self.stages)}: use Hypnogram.from_codes with the tool's name"
            )
        self.codes: NDArray[np.int8] = raw.astype(np.int8)
        if not (np.isfinite(epoch) and epoch > 0):
            raise InputError(f"hypnogram epoch is {epoch!r} s, expected a positive number")
        if not np.isfinite(start):
            raise InputError(f"hypnogram start is {start!r} s, expected a finite number")
        self.epoch, self.start = float(epoch), float(start)
        self.proba: NDArray[np.float32] | None = None
        if proba is not None:
            p = np.asarray(proba, dtype=np.float32)
            if p.shape != (len(self.codes), len(self.stages)):
                raise InputError(f"hypnogram proba has shape {p.shape}, expected ({len(self.codes)}, {len(self.stages)})")
            with np.errstate(invalid="ignore"):
                if (p < -1e-4).any() or (np.abs(np.nansum(p, 1) - 1) > 1e-2)[np.isfinite(p).all(1)].any():
                    raise InputError("hypnogram proba rows must be non-negative and sum to 1")
            self.proba = p
        self.scorer = scorer
        self.attrs: dict[str, Any] = dict(attrs or {})

    # -- making one -----------------------------------------------------------------------------------------------
    @classmethod
    def from_stages(
        cls, stages: Iterable[Any], epoch: float, start: float = 0.0, *, proba: ArrayLike | None = None, scorer: str = "", rk: bool = False,
        stage_set: str | None = None, attrs: dict[str, Any] | None = None,
    ) -> Hypnogram:  # fmt: skip
        """A hypnogram from stage names.

        Common spellings are understood ("Wake", "SWS", "Sleep stage 2"). The set is AASM if N1, N2 or N3
        occurs or all are W/R, rodent if NREM, WAKE or REM occurs; `stage_set` decides where names leave it open.
        `rk=True` merges Rechtschaffen & Kales S3 and S4 into N3 and states it in ``attrs["merged"]``.
        """
        raw = list(stages)
        attrs = dict(attrs or {})
        if rk:
            merged = {str(s).strip() for s in raw if str(s).strip().lower() in _RECHTSCHAFFEN_KALES}
            raw = [_RECHTSCHAFFEN_KALES.get(str(s).strip().lower(), s) for s in raw]
            if merged:
                attrs["merged"] = f"{', '.join(sorted(merged))} (R&K) -> N3"
        lut = {s: _canonical(s) for s in set(raw)}
        names = [lut[s] for s in raw]
        found = set(names) - {"ART", "UNS"}
        if stage_set is None:
            if found & {"N1", "N2", "N3"}:
                if "NREM" in found:
                    raise InputError(f"stages mix {sorted(found)}: NREM stands beside N1/N2/N3, expected one of W N1 N2 N3 R or WAKE NREM REM")
                stage_set = "aasm5"
            else:
                stage_set = "aasm5" if found and found <= {"W", "R"} else "rodent3"
        if stage_set not in STAGE_SETS:
            raise InputError(f"stage_set is {stage_set!r}, expected one of {', '.join(STAGE_SETS)}")
        target = STAGE_SETS[stage_set]
        to_set = {"WAKE": "W", "REM": "R"} if stage_set == "aasm5" else {"W": "WAKE", "R": "REM", "N1": "NREM", "N2": "NREM", "N3": "NREM"}
        code = {s: i for i, s in enumerate(target)} | {"ART": ARTEFACT, "UNS": UNSCORED}
        final = {s: to_set.get(s, s) for s in set(names)}
        for s in final.values():
            if s not in code:
                raise InputError(f"stage {s!r} is not in the set {stage_set} ({' '.join(target)})")
        return cls(np.array([code[final[s]] for s in names], dtype=np.int8), target, epoch, start, proba, scorer, attrs)

    @classmethod
    def from_codes(cls, codes: ArrayLike, codec: str, epoch: float, start: float = 0.0, scorer: str = "") -> Hypnogram:
        """A hypnogram from another tool's integers (`codec`: yasa, accusleep, somnotate, buzcode).

        Raises
        ------
        InputError
            If a code does not exist in that tool.
        """
        table = _codec(codec)
        c = np.asarray(codes)
        if c.dtype.kind == "f" and np.isfinite(c).all() and (c == c.astype(int)).all():
            c = c.astype(int)
        stray = sorted(set(c.ravel().tolist()) - set(table))
        if stray:
            raise InputError(f"code {stray[0]} does not exist in {codec}, which has {', '.join(f'{k}={v}' for k, v in table.items())}")
        return cls.from_stages([table[int(k)] for k in c.ravel()], epoch, start, scorer=scorer or codec, stage_set="aasm5" if codec == "yasa" else "rodent3")

    # -- what is in it --------------------------------------------------------------------------------------------
    def __len__(self) -> int:
        return len(self.codes)

    @property
    def stop(self) -> float:
        """End of the last epoch, s."""
        return self.start + len(self) * self.epoch

    @property
    def times(self) -> NDArray[np.float64]:
        """Start of each epoch (n,), s."""
        return self.start + np.arange(len(self), dtype=np.float64) * self.epoch

    @property
    def stage_set(self) -> str:
        return next(k for k, v in STAGE_SETS.items() if v == self.stages)

    def stages_list(self) -> list[str]:
        """Stage names, one an epoch; ART and UNS included."""
        names = [*self.stages, "UNS", "ART"]  # -2 and -1 index from the end
        return [names[c] for c in self.codes]

    def mask(self, stage: str) -> NDArray[np.bool_]:
        """Which epochs (n,) are `stage`; WAKE, NREM and REM also stand for AASM groups."""
        group = stage_group(stage)
        wanted = [i for i, s in enumerate(self.stages) if s in group]
        wanted += [ARTEFACT] * ("ART" in group) + [UNSCORED] * ("UNS" in group)
        return np.isin(self.codes, wanted)

    def intervals(self, stage: str) -> Intervals:
        """Spans of `stage` in session time."""
        return Intervals.from_mask(self.mask(stage), 1.0 / self.epoch, self.start)

    def at(self, times: ArrayLike) -> NDArray[np.int8]:
        """Code at each time (n,), s; UNS outside."""
        t = np.asarray(times, dtype=np.float64)
        i = np.floor((t - self.start) / self.epoch + 1e-9)
        ok = np.isfinite(i) & (i >= 0) & (i < len(self))
        out = np.full(t.shape, UNSCORED, dtype=np.int8)
        out[ok] = self.codes[i[ok].astype(np.int64)]
        return out

    def bouts(self) -> pd.DataFrame:
        """Runs of equal stage: columns stage, start (s), duration (s), first (epoch index), epochs."""
        if not len(self):
            return pd.DataFrame({"stage": [], "start": [], "duration": [], "first": [], "epochs": []})
        first = np.flatnonzero(np.r_[True, np.diff(self.codes) != 0])
        length = np.diff(np.r_[first, len(self)])
        names = [*self.stages, "UNS", "ART"]
        return pd.DataFrame({
            "stage": [names[c] for c in self.codes[first]], "start": self.start + first * self.epoch,
            "duration": length * self.epoch, "first": first, "epochs": length,
        })  # fmt: skip

    def as_rodent3(self) -> Hypnogram:
        """The same hypnogram in WAKE NREM REM (N1, N2, N3 become NREM; probabilities are summed)."""
        if self.stage_set == "rodent3":
            return self
        lut = np.array([0, 1, 1, 1, 2, UNSCORED, ARTEFACT], dtype=np.int8)
        p = None
        if self.proba is not None:
            p = np.stack([self.proba[:, 0], self.proba[:, 1:4].sum(1), self.proba[:, 4]], axis=1)
        return Hypnogram(lut[self.codes], "rodent3", self.epoch, self.start, p, self.scorer, self.attrs)

    def to_codes(self, codec: str) -> NDArray[np.int64]:
        """Integers of another tool (`codec`: yasa, accusleep, somnotate, buzcode).

        Raises
        ------
        InputError
            If a stage has no code there (N2 in AccuSleep, NREM in YASA).
        """
        table = _codec(codec)
        back: dict[str, int] = {}
        for k, v in table.items():
            back.setdefault(v, k)
        if "UNS" in back:
            back.setdefault("ART", back["UNS"])
        if codec == "yasa":
            back |= {"WAKE": 0, "REM": 4}
        stages = self.stages_list()
        absent = sorted(set(stages) - set(back))
        if absent:
            raise InputError(f"stage {absent[0]} has no code in {codec}: convert with as_rodent3() first, or choose another codec")
        return np.array([back[s] for s in stages], dtype=np.int64)

    def to_frame(self) -> pd.DataFrame:
        """One row an epoch: start (s), duration (s), stage, and a probability a stage where known."""
        frame = pd.DataFrame({"start": self.times, "duration": np.full(len(self), self.epoch), "stage": self.stages_list()})
        if self.proba is not None:
            for i, s in enumerate(self.stages):
                frame[f"p_{s}"] = self.proba[:, i]
        return frame

    def __eq__(self, other: Any) -> bool:
        return (
            isinstance(other, Hypnogram) and self.stages == other.stages and np.array_equal(self.codes, other.codes)
            and self.epoch == other.epoch and self.start == other.start
        )  # fmt: skip

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        parts = [f"{s} {np.mean(self.codes == i):.0%}" for i, s in enumerate(self.stages)] if len(self) else []
        return f"Hypnogram({len(self)} epochs of {self.epoch:g} s from {self.start:g} s: {', '.join(parts)})"


def _codec(name: str) -> dict[int, str]:
    if name not in CODECS:
        raise InputError(f"codec {name!r} is not known: use one of {', '.join(CODECS)}")
    return CODECS[name]
