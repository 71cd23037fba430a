"""The scorer: how people turn continuous sleep into epochs, where they err and how far two of them agree.

A scorer's errors are of two kinds. Around every change of stage lies a stretch that everybody doubts, and each scorer puts the change near one
end of it or the other. The rest are slips of one scorer, in short runs. How often each stage is mistaken, and for what, is a table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.signal import lfilter
from scipy.special import ndtr

from brainmu.core import Hypnogram
from brainmu.core.limits import check_model, number, whole
from brainmu.errors import InputError

__all__ = ["HUMAN_CONFUSION", "RODENT_CONFUSION", "ScorerModel", "scorings"]

HUMAN_CONFUSION: dict[str, dict[str, float]] = {
    "W": {"N1": 0.105, "N2": 0.030, "N3": 0.004, "R": 0.020},
    "N1": {"W": 0.130, "N2": 0.170, "R": 0.070},
    "N2": {"W": 0.015, "N1": 0.050, "N3": 0.060, "R": 0.023},
    "N3": {"W": 0.004, "N1": 0.002, "N2": 0.320},
    "R": {"W": 0.020, "N1": 0.040, "N2": 0.035},
}
"""Share of the epochs of each AASM stage that one of 2,500 scorers scores as something else than the majority does: R 9.5 %, N3 32.6 % and N1 37 %
(Rosenberg RS, Van Hout S 2013, J Clin Sleep Med 9:81; W and N2 about 15 %). What they are mistaken for is an assumption after the difficulties named
there: N2 and N3, the last W before sleep, the first N2 after N1, the first R after N2."""

RODENT_CONFUSION: dict[str, dict[str, float]] = {
    "WAKE": {"NREM": 0.045, "REM": 0.005},
    "NREM": {"WAKE": 0.050, "REM": 0.020},
    "REM": {"WAKE": 0.040, "NREM": 0.080},
}
"""The same for rodents: an assumption, so that a scorer errs in about 6 % of epochs and most in REM. Rat scorers agreed on 83 % of epochs of four states
(Gross BA et al. 2009, J Neurosci Methods 184:10); two scorers of mice on 94.5 % (Van Gelder RN et al. 1991, Sleep 14:48)."""

_REACH = (0.6, 1.0)  # how far into its side of a doubtful stretch a scorer moves the change
_MOVED = 0.5 * sum(_REACH) / 2  # share of the doubtful epochs that a scorer mistakes: one side of two, and that far
_TABLES = {"W": HUMAN_CONFUSION, "WAKE": RODENT_CONFUSION}


@dataclass(frozen=True)
class ScorerModel:
    """Who scores, and how well. The default: one scorer who writes the majority of the true bouts, without error.

    Parameters
    ----------
    scorers : int
        People who score the recording, each into a label of its own ("scoring", "scoring2", …).
    disagreement : float
        Scales the table of errors: 0 none, 1 as published. Two scorers at 1 agree on human nights with a kappa of about 0.68, at 0.8 of
        about 0.74; published are 0.76 within one project [1]_, 0.68 [4]_ and 0.66 [5]_ between laboratories.
    confusion : mapping of stage to mapping of stage to float, optional
        For each true stage the share of its epochs that is scored as another one; by default :data:`HUMAN_CONFUSION` or
        :data:`RODENT_CONFUSION`. How often a stage is mistaken is kept exactly; for what leans towards the stages it borders on.
    doubt_shared : float
        Share of the errors that lies in the doubtful stretches around changes of stage, which all scorers share; scorers err most there [2]_.
        The size is an assumption: it leaves a scored night with about as many changes of stage as the true one.
    doubt_spread : float, epochs
        By how much the stretches differ in length (SD). An assumption.
    slip_run : float, epochs
        Correlation time of a scorer's own slips. An assumption.
    min_bout : float, s
        Smoothing: a shorter run of epochs is given to the longer of its neighbours. 0: none.
    artefact_share : float
        Share of the epochs of waking that are lost to movement and scored ART by everybody. An assumption; 0: none.
    scorer_error : float
        A plainer scorer, without the table: chance that an unambiguous epoch is mis-scored (REM twice as often, as experts do [3]_);
        epochs near a transition are taken for the neighbour in proportion to how mixed they are.

    References
    ----------
    .. [1] Danker-Hopfe H et al. (2009). Interrater reliability for sleep scoring according to the Rechtschaffen & Kales and the new AASM
       standard. J Sleep Res 18:74.
    .. [2] Rosenberg RS, Van Hout S (2013). The American Academy of Sleep Medicine inter-scorer reliability program: sleep stage scoring.
       J Clin Sleep Med 9:81.
    .. [3] Barger Z et al. (2019). Robust, automated sleep scoring by a compact neural network. PLoS ONE 14:e0224642.
    .. [4] Danker-Hopfe H et al. (2004). Interrater reliability between scorers from eight European sleep laboratories in subjects with
       different sleep disorders. J Sleep Res 13:63.
    .. [5] Cesari M et al. (2021). Interrater sleep stage scoring reliability between manual scoring from two European sleep centers and
       automatic scoring. J Clin Sleep Med 17:1237.
    """

    scorers: int = 1
    disagreement: float = 0.0
    confusion: Mapping[str, Mapping[str, float]] | None = None
    doubt_shared: float = 0.85
    doubt_spread: float = 3.0
    slip_run: float = 5.0
    min_bout: float = 0.0
    artefact_share: float = 0.0
    scorer_error: float = 0.0

    def __post_init__(self) -> None:
        check_model(self, positive=("slip_run",), shares=("doubt_shared", "artefact_share", "scorer_error"))
        whole("scorers", self.scorers, 1)
        for stage, row in _rows(self.confusion or {}):
            for other, share in row.items():
                number(f"confusion[{stage}][{other}]", share, most=1.0)
            if sum(row.values()) > 1:
                raise InputError(f"confusion[{stage}] adds up to {sum(row.values()):g}, expected at most 1")

    def errors(self, stages: tuple[str, ...]) -> NDArray[np.float64]:
        """Share (stage, stage) of the epochs of each stage that is scored as each other one; zero on the diagonal.

        Raises
        ------
        InputError
            If the table names a stage that is not one of `stages`, or errors are too frequent to be shared doubts.
        """
        table = self.confusion if self.confusion is not None else _TABLES[stages[0]]
        out = np.zeros((len(stages), len(stages)))
        for stage, row in table.items():
            for other, share in row.items():
                stray = [s for s in (stage, other) if s not in stages]
                if stray or stage == other:
                    raise InputError(f"confusion[{stage}][{other}] is not an error between two of {' '.join(stages)}")
                out[stages.index(stage), stages.index(other)] = self.disagreement * share
        worst = float(out.sum(1).max()) * max(self.doubt_shared / _MOVED, 1.0)
        if worst > 1:
            raise InputError(f"disagreement is {self.disagreement:g}, expected at most {self.disagreement / worst:.3g}: {stages[int(out.sum(1).argmax())]} "
                             "would be doubted in more than all of its epochs")  # fmt: skip
        return out


def _rows(table: Mapping[str, Mapping[str, float]]) -> list[tuple[str, Mapping[str, float]]]:
    if not isinstance(table, Mapping) or not all(isinstance(row, Mapping) for row in table.values()):
        raise InputError(f"confusion is {table!r}, expected a mapping of stage to a mapping of stage to a share, such as {{'N2': {{'N3': 0.06}}}}")
    return list(table.items())


def scorings(model: ScorerModel, truth: Hypnogram, bouts: pd.DataFrame, rng: np.random.Generator, seed: tuple[int, ...]) -> dict[str, Hypnogram]:
    """The hypnogram of every scorer by the name of its label.

    `truth` is what a perfect scorer writes, `rng` serves ``scorer_error`` of the first scorer, `seed` everything else: the first scorers of many are
    those of few.
    """
    errors = model.errors(truth.stages)
    shared, *own = (np.random.default_rng(c) for c in np.random.SeedSequence(seed).spawn(1 + model.scorers))
    doubts = _doubts(model, truth.codes, errors, shared)
    lost = (truth.codes == 0) & (shared.random(len(truth)) < model.artefact_share)
    out = {}
    for i, person in enumerate(own):
        codes = _slips(model, truth, bouts, rng if i == 0 else person)
        codes = _hesitate(model, truth.codes, codes, errors, doubts, person)
        codes = smooth(codes, round(model.min_bout / truth.epoch))
        codes[lost] = -1
        same = np.array_equal(codes, truth.codes)
        name = truth.scorer if same else "synthetic expert" if model.scorers == 1 else f"synthetic expert {i + 1}"
        out["scoring" if i == 0 else f"scoring{i + 1}"] = Hypnogram(codes, truth.stages, truth.epoch, truth.start, scorer=name)
    return out


@dataclass
class _Doubts:
    """Stretches that every scorer doubts.

    Attributes
    ----------
    change : intp (epoch,)
        The change of stage that each epoch is nearest to.
    before : bool (epoch,)
        Whether the epoch lies before it.
    depth : float64 (epoch,)
        How deep in that side of the stretch, 0 to 1; inf outside.
    other : int8 (epoch,)
        The stage in question beside the true one.
    """

    change: NDArray[np.intp]
    before: NDArray[np.bool_]
    depth: NDArray[np.float64]
    other: NDArray[np.int8]


def _doubts(model: ScorerModel, codes: NDArray[np.int8], errors: NDArray[np.float64], rng: np.random.Generator) -> _Doubts:
    n = len(codes)
    changes = np.flatnonzero(np.diff(codes)) + 1
    reach, draw = rng.standard_normal((2, len(changes))), rng.random((len(changes), 2))
    if not len(changes) or not errors.any():
        return _Doubts(np.zeros(n, dtype=np.intp), np.zeros(n, dtype=bool), np.full(n, np.inf), codes)
    k = np.arange(n)
    right = np.clip(np.searchsorted(changes, k, side="right"), 0, len(changes) - 1)
    left = np.clip(right - 1, 0, None)
    change = np.where(np.abs(k + 0.5 - changes[left]) < np.abs(k + 0.5 - changes[right]), left, right)
    before = k < changes[change]
    away = np.where(before, changes[change] - 1 - k, k - changes[change])
    neighbour = codes[np.where(before, changes[change], changes[change] - 1)]
    # Stretches reach further where the table says that this stage is taken for that neighbour; what it never is comes last.
    share = errors[codes, neighbour] / np.maximum(errors[codes].max(1), 1e-300)
    other = np.where(share > 0, neighbour, _mistaken_for(errors, codes, draw[change, before.astype(int)])).astype(np.int8)
    score = model.doubt_spread * (reach[before.astype(int), change] + np.where(share > 0, np.log(np.maximum(share, 1e-300)), -1e3)) - away
    depth = np.full(n, np.inf)
    for s, wanted in enumerate(model.doubt_shared * errors.sum(1) / _MOVED):
        mine = np.flatnonzero(codes == s)
        depth[mine[np.argsort(-score[mine], kind="stable")[: round(wanted * len(mine))]]] = 0.0
    side = 2 * change + before
    length = np.bincount(side[depth == 0], minlength=2 * len(changes))
    return _Doubts(change, before, np.where(depth == 0, (away + 0.5) / np.maximum(length[side], 1), np.inf), other)


def _mistaken_for(errors: NDArray[np.float64], codes: NDArray[np.int8], draw: NDArray[np.float64]) -> NDArray[np.int8]:
    """The stage (epoch,) that each epoch would be mistaken for by the table."""
    total = np.cumsum(errors[codes], axis=1)
    other = (draw[:, None] * total[:, -1:] >= total).sum(1)
    return np.where(total[:, -1] > 0, np.minimum(other, errors.shape[0] - 1), codes).astype(np.int8)


def _hesitate(
    model: ScorerModel, truth: NDArray[np.int8], codes: NDArray[np.int8], errors: NDArray[np.float64], doubts: _Doubts, rng: np.random.Generator
) -> NDArray[np.int8]:
    """What one scorer makes of `codes`: every change of stage put early or late, and slips of its own."""
    n, changes = len(truth), int(doubts.change.max(initial=0)) + 1
    early, far = rng.random(changes) < 0.5, rng.uniform(*_REACH, changes)
    slipped = _persistent(rng, n, model.slip_run) < ((1 - model.doubt_shared) * errors.sum(1))[truth]
    codes = np.where(slipped, _mistaken_for(errors, truth, _persistent(rng, n, model.slip_run)), codes)
    moved = (early[doubts.change] == doubts.before) & (doubts.depth < far[doubts.change])
    return np.where(moved, doubts.other, codes).astype(np.int8)


def _persistent(rng: np.random.Generator, n: int, epochs: float) -> NDArray[np.float64]:
    """Numbers (n,), each uniform in [0, 1], that stay alike over about so many epochs."""
    a = np.exp(-1.0 / epochs)
    level = rng.standard_normal(n)
    level[1:] *= np.sqrt(1 - a * a)
    return ndtr(lfilter([1.0], [1.0, -a], level))


def smooth(codes: NDArray[np.int8], least: int) -> NDArray[np.int8]:
    """Codes (epoch,) in which every run of fewer than `least` epochs, shortest first, is given to the longer of its neighbours (a tie: the one before)."""
    codes = codes.copy()
    while least > 1 and len(codes):
        edges = np.r_[0, np.flatnonzero(np.diff(codes)) + 1, len(codes)]
        length = np.diff(edges)
        i = int(length.argmin())
        if len(length) == 1 or length[i] >= least:
            break
        before, after = length[i - 1] if i else -1, length[i + 1] if i + 1 < len(length) else -1
        codes[edges[i] : edges[i + 1]] = codes[edges[i] - 1] if before >= after else codes[edges[i + 1]]
    return codes


def _slips(model: ScorerModel, truth: Hypnogram, bouts: pd.DataFrame, rng: np.random.Generator) -> NDArray[np.int8]:
    """Codes in which mixed epochs go to the neighbour in proportion, and clear ones are now and then mistaken."""
    codes = truth.codes.copy()
    if not model.scorer_error:
        return codes
    edges = truth.start + np.arange(len(truth) + 1) * truth.epoch
    knots = np.r_[bouts["start"].to_numpy(), bouts["stop"].to_numpy()[-1:]]
    spent = [np.diff(np.interp(edges, knots, np.r_[0.0, np.cumsum(np.diff(knots) * (bouts["stage"] == s).to_numpy())])) for s in truth.stages]
    share = np.stack(spent, axis=1) / truth.epoch
    order = np.argsort(share, axis=1)
    second, mixed = order[:, -2], share[np.arange(len(codes)), order[:, -2]]
    swap = rng.random(len(codes)) < mixed
    codes[swap] = second[swap]
    dream = truth.mask("R" if "R" in truth.stages else "REM")
    slip = rng.random(len(codes)) < model.scorer_error * np.where(dream, 2.0, 1.0)
    codes[slip] = np.where(rng.random(slip.sum()) < 0.5, np.roll(codes, 1)[slip], rng.integers(len(truth.stages), size=slip.sum()))
    return codes
