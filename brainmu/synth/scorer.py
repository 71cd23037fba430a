"""The scorer: how people turn continuous sleep into epochs, where they err and how far two of them agree.

A scorer's errors are of two kinds. Some epochs are doubtful to everybody, mostly beside transitions and in runs: there every scorer makes
up its own mind between the two stages in question. The rest are slips of one scorer. How often each stage is mistaken, and for what, is a table.
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
from brainmu.errors import InputError
from brainmu.synth.limits import check_model, number, whole

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

_TABLES = {"W": HUMAN_CONFUSION, "WAKE": RODENT_CONFUSION}


@dataclass(frozen=True)
class ScorerModel:
    """Who scores, and how well. The default: one scorer who writes the majority of the true bouts, without error.

    Parameters
    ----------
    scorers : int
        People who score the recording, each into a label of its own ("scoring", "scoring2", …).
    disagreement : float
        Scales the table of errors: 0 none, 1 as published. Two scorers at 1 agree with a kappa of about 0.75 on human nights, as
        published for AASM rules (0.76 [1]_).
    confusion : mapping of stage to mapping of stage to float, optional
        For each true stage the share of its epochs that is scored as another one; by default :data:`HUMAN_CONFUSION` or
        :data:`RODENT_CONFUSION`.
    doubt_shared : float
        Share of the errors that lies in epochs all scorers doubt. With errors as frequent as [2]_ reports against the majority, 0.8 gives
        pairs of scorers the agreement that [1]_ reports; without shared doubt they would agree far less.
    doubt_run : float, epochs
        Doubtful epochs come in runs: correlation time of the doubt. An assumption.
    doubt_transition : float
        How many times as often an epoch beside a change of stage is doubtful as one inside a bout; the neighbour's stage is favoured as
        much. Scorers err most there [2]_; the size is an assumption.
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
    """

    scorers: int = 1
    disagreement: float = 0.0
    confusion: Mapping[str, Mapping[str, float]] | None = None
    doubt_shared: float = 0.8
    doubt_run: float = 4.0
    doubt_transition: float = 4.0
    min_bout: float = 0.0
    artefact_share: float = 0.0
    scorer_error: float = 0.0

    def __post_init__(self) -> None:
        check_model(self, positive=("doubt_run", "doubt_transition"), shares=("doubt_shared", "artefact_share", "scorer_error"))
        whole("scorers", self.scorers, 1)
        for stage, row in (self.confusion or {}).items():
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
        worst = float(out.sum(1).max()) * max(2 * self.doubt_shared, 1.0)
        if worst > 1:
            raise InputError(f"disagreement is {self.disagreement:g}, expected at most {self.disagreement / worst:.3g}: {stages[int(out.sum(1).argmax())]} "
                             "would be doubted in more than all of its epochs")  # fmt: skip
        return out


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
    """Epochs that every scorer doubts, and the other stage in question (epoch,)."""

    doubtful: NDArray[np.bool_]
    other: NDArray[np.int8]
    weight: NDArray[np.float64]


def _doubts(model: ScorerModel, codes: NDArray[np.int8], errors: NDArray[np.float64], rng: np.random.Generator) -> _Doubts:
    before, after = np.r_[codes[:1], codes[:-1]], np.r_[codes[1:], codes[-1:]]
    weight = np.where((before != codes) | (after != codes), model.doubt_transition, 1.0)
    # A coin is tossed in doubt, so twice as many epochs are doubtful as become errors.
    chance = _spread(2 * model.doubt_shared * errors.sum(1), codes, weight)
    doubtful = _persistent(rng, len(codes), model.doubt_run) < chance
    return _Doubts(doubtful, _mistaken_for(model, codes, errors, _persistent(rng, len(codes), model.doubt_run)), weight)


def _persistent(rng: np.random.Generator, n: int, epochs: float) -> NDArray[np.float64]:
    """Numbers (n,), each uniform in [0, 1], that stay alike over about so many epochs."""
    a = np.exp(-1.0 / epochs)
    level = rng.standard_normal(n)
    level[1:] *= np.sqrt(1 - a * a)
    return ndtr(lfilter([1.0], [1.0, -a], level))


def _spread(wanted: NDArray[np.float64], codes: NDArray[np.int8], weight: NDArray[np.float64]) -> NDArray[np.float64]:
    """Chance (epoch,) proportional to `weight`, at most 1, whose mean over the epochs of each stage is `wanted` (stage,)."""
    out = np.zeros(len(codes))
    for s, mean in enumerate(wanted):
        w = weight[codes == s]
        if not len(w) or mean == 0:
            continue
        scale = mean / w.mean()
        for _ in range(50):
            scale *= mean / np.minimum(1.0, scale * w).mean()
        out[codes == s] = np.minimum(1.0, scale * w)
    return out


def _mistaken_for(model: ScorerModel, codes: NDArray[np.int8], errors: NDArray[np.float64], draw: NDArray[np.float64]) -> NDArray[np.int8]:
    """The stage (epoch,) that each epoch would be mistaken for: by the table, favouring the neighbours."""
    rows = errors[codes].copy()
    n = np.arange(len(codes))
    for near in (np.r_[codes[:1], codes[:-1]], np.r_[codes[1:], codes[-1:]]):
        rows[n, near] *= np.where(near != codes, model.doubt_transition, 1.0)
    total = np.cumsum(rows, axis=1)
    other = (draw[:, None] * total[:, -1:] >= total).sum(1)
    return np.where(total[:, -1] > 0, np.minimum(other, errors.shape[0] - 1), codes).astype(np.int8)


def _hesitate(
    model: ScorerModel, truth: NDArray[np.int8], codes: NDArray[np.int8], errors: NDArray[np.float64], doubts: _Doubts, rng: np.random.Generator
) -> NDArray[np.int8]:
    """What one scorer makes of `codes`: a coin where everybody doubts, and slips of its own."""
    slip, which = rng.random((2, len(truth)))
    # A scorer who has made up its mind about a doubtful stretch sticks to it.
    swayed = doubts.doubtful & (_persistent(rng, len(truth), 2 * model.doubt_run) < 0.5)
    slipped = slip < _spread((1 - model.doubt_shared) * errors.sum(1), truth, doubts.weight)
    codes = np.where(slipped, _mistaken_for(model, truth, errors, which), codes)
    return np.where(swayed, doubts.other, codes).astype(np.int8)


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
