"""A linear read-out judged fairly: folds that do not leak, labels drawn in stretches, one fit for every input, intervals over subjects and seeds.

Nothing here knows what the inputs are; :mod:`brainmu.sleep.probing` makes them.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core.metrics import confusion
from brainmu.errors import InputError, MissingDataError

__all__ = ["STRENGTHS", "STRETCH", "USUAL", "Fold", "ReadOut", "Scoring", "draw_labels", "folds_by_group", "folds_by_time", "interval", "kappa_of", "shuffled"]

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

STRETCH = 300.0
"""Labels come in stretches of so many seconds in a row, as a scorer gives them: single epochs all over a night would be easier."""
STRENGTHS = (0.001, 0.01, 0.1, 1.0)
"""Inverse strengths of the penalty that cross-validation chooses from."""
USUAL = 0.01
"""The one taken where there are too few labels to choose."""
_PARTS = 3
_MOST = 2000  # epochs that the choice is made on


@dataclass
class Scoring:
    """The labels of one recording.

    Attributes
    ----------
    subject, group : str
        Folds by subject keep a group (by default the subject) on one side.
    codes : int8 (epoch,)
        Negative where unscored.
    stretch : int
        Epochs in a stretch of labels.
    """

    subject: str
    group: str
    codes: NDArray[np.int8]
    stretch: int


@dataclass
class Fold:
    """Which epochs (epoch,) of each recording may train, and which are tested."""

    train: list[Mask]
    test: list[Mask]
    name: str = ""


# -- folds and labels -------------------------------------------------------------------------------------------------
def folds_by_group(data: Sequence[Scoring], folds: int) -> list[Fold]:
    """Each group is tested once, by a read-out that has seen none of it.

    Raises
    ------
    InputError
        If there is one group only, or fewer than two folds are asked for.
    """
    groups = sorted({d.group for d in data})
    if len(groups) < 2:
        raise InputError(
            f"probe: all recordings are of {groups[0]}, expected two or more subjects: add some, or split by time (which says nothing of new animals)"
        )
    n = min(_folds(folds), len(groups))
    out = []
    for k in range(n):
        held = {g for i, g in enumerate(groups) if i % n == k}
        test = [np.full(len(d.codes), d.group in held) for d in data]
        out.append(Fold([~m for m in test], test, ", ".join(sorted(held))))
    return out


def folds_by_time(data: Sequence[Scoring], folds: int, guard: Sequence[int]) -> list[Fold]:
    """Every recording in `folds` blocks, each tested once; `guard` epochs (one number a recording) on either side of it train nothing.

    Raises
    ------
    InputError
        If a recording is too short for so many blocks, or the guard leaves nothing to train on.
    """
    n = _folds(folds)
    out = []
    for k in range(n):
        test, train = [], []
        for d, g in zip(data, guard, strict=True):
            size = len(d.codes)
            a, b = k * size // n, (k + 1) * size // n
            if a == b:
                raise InputError(f"probe: {d.subject} has {size} epochs, too few for {n} blocks in time: ask for fewer folds")
            i = np.arange(size)
            test.append((i >= a) & (i < b))
            train.append((i < a - g) | (i >= b + g))
        if not any(m.any() for m in train):
            raise InputError(
                f"probe: the guard of {max(guard)} epochs leaves nothing to train on beside block {k + 1} of {n}: lower guard, or ask for fewer folds"
            )
        out.append(Fold(train, test, f"block {k + 1}"))
    return out


def _folds(folds: int) -> int:
    if folds < 2:
        raise InputError(f"probe: folds is {folds}, expected at least 2")
    return int(folds)


def draw_labels(data: Sequence[Scoring], allowed: Sequence[Mask], share: float, rng: np.random.Generator) -> list[Mask]:
    """Which epochs of each recording keep their label: whole stretches, drawn until the share is reached and every stage that occurs is among them.

    Parameters
    ----------
    data : labels of each recording
    allowed : bool (epoch,) each
        What may be drawn.
    share : float
        Of the stretches, in (0, 1].

    Raises
    ------
    MissingDataError
        If what may be drawn holds fewer than two stages.
    """
    ok = [m & (d.codes >= 0) for d, m in zip(data, allowed, strict=True)]
    there = {int(k) for d, m in zip(data, ok) for k in np.unique(d.codes[m])}
    if len(there) < 2:
        raise MissingDataError(f"probe: the labels to train on hold {len(there)} stage, expected at least two: add labelled recordings, or ask for fewer folds")
    places = [(i, a) for i, (d, m) in enumerate(zip(data, ok)) for a in range(0, len(m), d.stretch) if m[a : a + d.stretch].any()]
    wanted = max(1, round(share * len(places)))
    out = [np.zeros(len(m), dtype=bool) for m in ok]
    seen: set[int] = set()
    for k, j in enumerate(rng.permutation(len(places))):
        i, a = places[j]
        part = slice(a, a + data[i].stretch)
        stages = {int(c) for c in np.unique(data[i].codes[part][ok[i][part]])}
        if k >= wanted and not stages - seen:
            continue
        out[i][part] = ok[i][part]
        seen |= stages
        if k + 1 >= wanted and there <= seen:
            break
    return out


def shuffled(y: NDArray[np.int8], stretch: int, rng: np.random.Generator) -> NDArray[np.int8]:
    """The labels (n,) dealt out anew, in runs as long as a stretch or shorter, so that at least 20 change places."""
    runs = np.array_split(y, max(20, len(y) // stretch)) if len(y) >= 20 else [y[i : i + 1] for i in range(len(y))]
    return np.concatenate([runs[i] for i in rng.permutation(len(runs))])


# -- the fit ----------------------------------------------------------------------------------------------------------
class ReadOut:
    """Multinomial logistic regression, classes weighted alike, with an L2 penalty chosen by cross-validation inside the training labels.

    The choice is made in three parts of the training subjects (of the labelled stretches, where fewer than three subjects are labelled; where those are
    fewer than three too, the usual strength is taken), by Cohen's kappa, from `STRENGTHS`.

    Parameters
    ----------
    strength : float or None
        Inverse strength of the penalty; chosen where None.

    Attributes
    ----------
    strength_ : float
        Inverse strength of the penalty in use.
    """

    def __init__(self, strength: float | None = None) -> None:
        self.strength = strength

    def fit(self, x: Floats, y: NDArray[Any], subject: NDArray[Any] | None = None, stretch: NDArray[Any] | None = None) -> ReadOut:
        """Fit on inputs (n, d), already standardised, stage codes (n,), and the subject (n,) and stretch (n,) of each epoch.

        Both are needed to choose the strength; with neither, the usual one is taken.
        """
        if self.strength is None and subject is not None and stretch is not None:
            self.strength_ = _chosen(x, y, subject, stretch)
        else:
            self.strength_ = USUAL if self.strength is None else self.strength
        self.model_ = _regression(x, y, self.strength_)
        return self

    def predict(self, x: Floats) -> NDArray[np.int8]:
        """Stage codes (n,)."""
        return self.model_.predict(x)


def _regression(x: Floats, y: NDArray[np.int8], strength: float, start: Any = None) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    # A looser tolerance than scikit-learn's: beyond it kappa changes in the fourth digit.
    model = start or LogisticRegression(max_iter=300, tol=1e-3, class_weight="balanced", warm_start=True)
    model.C = strength
    with warnings.catch_warnings():
        # With many labels the weakest penalty may end before the tolerance: it is one candidate of several, and cross-validation judges it as it is.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(x, y)


def _chosen(x: Floats, y: NDArray[np.int8], subject: NDArray[Any], stretch: NDArray[Any]) -> float:
    group = subject if len(np.unique(subject)) >= _PARTS else stretch
    names = np.unique(group)
    if len(names) < _PARTS:
        return USUAL
    if len(y) > _MOST:
        some = np.linspace(0, len(y) - 1, _MOST).astype(np.int64)
        x, y, group = x[some], y[some], group[some]
    part = np.searchsorted(names, group) % _PARTS
    found = np.full((len(STRENGTHS), len(y)), -1, dtype=np.int64)
    for k in range(_PARTS):
        out = part == k
        if len(np.unique(y[~out])) < 2 or not out.any():
            continue
        model = None
        for i, strength in enumerate(STRENGTHS):  # from strong to weak, each begun where the last ended
            model = _regression(x[~out], y[~out], strength, model)
            found[i, out] = model.predict(x[out])
    tables = np.stack([confusion(y, f, int(y.max()) + 1) for f in found])
    scores = kappa_of(tables)
    return STRENGTHS[int(np.nanargmax(scores))] if np.isfinite(scores).any() else USUAL


# -- scores -----------------------------------------------------------------------------------------------------------
def kappa_of(tables: NDArray[Any]) -> NDArray[np.float64]:
    """Cohen's kappa of each confusion table (…, K true, K found); NaN where only one class is true: it would be 0 for one wrong epoch."""
    m = np.asarray(tables, dtype=np.float64)
    n = m.sum((-2, -1))
    with np.errstate(invalid="ignore", divide="ignore"):
        chance = (m.sum(-2) * m.sum(-1)).sum(-1) / n**2
        kappa = (np.trace(m, axis1=-2, axis2=-1) / n - chance) / (1 - chance)
    return np.where(((m.sum(-1) > 0).sum(-1) > 1) & (chance < 1), kappa, np.nan)


def interval(
    one: Sequence[NDArray[Any]], other: Sequence[NDArray[Any]] | None, group: NDArray[np.int64], *, within: bool, draws: int = 1000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean kappa of `one` (minus that of `other`, paired) over subjects and seeds, and the ends of its 95 % interval.

    Parameters
    ----------
    one, other : tables (seed, cluster, K, K) of each subject
    group : int (subject,)
        What is drawn as a whole: subjects of a laboratory that is left out together share what is peculiar to it.
    within : bool
        Clusters of a subject (stretches of time) are drawn anew too, which a test within animals needs.

    Notes
    -----
    A bootstrap of groups, of subjects in them, and of seeds, crossed: a seed's labels and untrained encoder meet all subjects, so seeds are drawn for all of
    them together (Owen 2007, Ann Appl Stat 1:386). Neither the choice of training subjects nor another run of pretraining enters it.
    """
    rng = np.random.default_rng(seed)
    point = _values(one, other, None)[0]
    centre = float(np.nanmean(point)) if np.isfinite(point).any() else float("nan")
    n, seeds = point.shape
    if n * seeds < 2 and not within:
        return centre, float("nan"), float("nan")
    weights = [rng.multinomial(t.shape[1], np.full(t.shape[1], 1 / t.shape[1]), size=draws) for t in one] if within else None
    values = np.broadcast_to(_values(one, other, weights), (draws, n, seeds))
    who, known = _drawn(group, draws, rng), np.isfinite(values)
    which = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws)
    total = np.einsum("ds,dk,dsk->d", who, which, np.where(known, values, 0.0))
    count = np.einsum("ds,dk,dsk->d", who, which, known.astype(np.float64))
    means = total[count > 0] / count[count > 0]
    if not len(means):
        return centre, float("nan"), float("nan")
    low, high = np.percentile(means, [2.5, 97.5])
    return centre, float(low), float(high)


def _drawn(group: NDArray[np.int64], draws: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """How often each subject comes in each draw (draw, subject): groups are drawn, then as many subjects of each as it has."""
    names = np.unique(group)
    times = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    out = np.zeros((draws, len(group)))
    for g, t in zip(names, times.T):
        inside = np.flatnonzero(group == g)
        out[:, inside] = rng.multinomial(t * len(inside), np.full(len(inside), 1 / len(inside)))
    return out


def _values(one: Sequence[NDArray[Any]], other: Sequence[NDArray[Any]] | None, weights: list[NDArray[np.int64]] | None) -> NDArray[np.float64]:
    """Kappa, or its difference, (draw, subject, seed)."""

    def kappas(tables: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        if weights is None:
            return np.stack([kappa_of(t.sum(1)) for t in tables])[None]
        return np.stack([kappa_of(np.einsum("db,sbij->dsij", w, t)) for w, t in zip(weights, tables)], axis=1)

    return kappas(one) if other is None else kappas(one) - kappas(other)
