"""A fitted stager, adapted to one animal by a few labelled minutes of it; where the minutes do not show that it helps, nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core.hypnogram import UNSCORED, Hypnogram
from brainmu.core.metrics import cohen_kappa, confusion
from brainmu.errors import MissingDataError
from brainmu.sleep.features import Table

__all__ = ["Calibration", "labels_on"]

_FEWEST = 20
_LEAST_GAIN = 0.005
"""Log likelihood an epoch; what gains less changes hardly a stage."""

_AT_ODDS = 0.4
"""Kappa below which a stager and labels do not mean the same (experts agree at about 0.76)."""

_NO_PATTERN = 0.2
"""Kappa with left-out labels below which a correction has learnt how many there are of each and nothing else."""

_STRENGTHS = (10.0, 30.0, 100.0, 300.0)
_BLOCKS = 5


@dataclass
class Calibration:
    """What is added to a stager's log probabilities for one animal: a bias a stage, and weights of the animal's features.

    Attributes
    ----------
    names : list of str
        Columns of the table of features.
    centre, scale : float64 (feature,)
        Of the labelled epochs' recording.
    weight : float64 (feature, stage)
    bias : float64 (stage,)
    present : list of int
        Stages that the labels hold; the others keep the probability that the stager gives them.
    gain : float
        Log likelihood gained an epoch on labelled blocks that were left out in turn; 0 where nothing was changed.
    n_epochs : int
    note : str
        What was done, and why.
    doubts : list of str
        Sentences where the labels look wrong: at odds with the stager, with each other, or outside the recording. They join the reasons of a hypnogram.
    """

    names: list[str]
    centre: NDArray[np.float64]
    scale: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: NDArray[np.float64]
    present: list[int]
    gain: float
    n_epochs: int
    note: str
    doubts: list[str] = field(default_factory=list)

    @property
    def changes(self) -> bool:
        """Whether anything is added."""
        return bool(self.bias.any() or self.weight.any())

    @classmethod
    def fit(cls, table: Table, proba: NDArray[np.float64], codes: NDArray[np.integer]) -> Calibration:
        """From features, probabilities (epoch, stage) and codes (epoch,) of one recording; negative codes are not labelled.

        The labelled epochs are cut into blocks in time, each left out in turn: among corrections of several strengths the one is taken that makes the
        left-out labels likeliest, if it does so by 0.005 an epoch and by more than the standard error over blocks; otherwise nothing is changed. Nor is it
        where what was learnt does not tell the stages of left-out labels apart: those contradict each other.

        Raises
        ------
        MissingDataError
            With fewer than 20 labelled epochs that hold data.
        """
        known = np.flatnonzero((codes >= 0) & np.isfinite(proba).all(axis=1) & ~table.empty)
        if len(known) < _FEWEST:
            raise MissingDataError(f"{len(known)} labelled epochs hold data, calibration needs {_FEWEST} or more: label more minutes of this animal")
        centre, scale = _scales(table.values)
        z, logs, y = _scaled(table.values, centre, scale)[known], _log(proba)[known], codes[known].astype(np.int64)
        n, k = len(known), proba.shape[1]
        nothing = cls(table.names, centre, scale, np.zeros((z.shape[1], k)), np.zeros(k), sorted(set(y.tolist())), 0.0, n, "")
        agreed, alike = _kappa(y, logs.argmax(axis=1), k), float((y == logs.argmax(axis=1)).mean())
        if agreed < _AT_ODDS and alike < 0.8:  # where nearly all is one stage kappa is low and means little
            nothing.doubts.append(
                f"labels and stager agree in {alike:.0%} of epochs (kappa {agreed:.2f}) before calibration: check that no stages are swapped, no times shifted"
            )
        if len(nothing.present) < 2:
            nothing.note = "nothing changed: the labels hold one stage only"
            return nothing
        blocks = np.array_split(np.arange(n), _BLOCKS)
        before = np.array([_likelihood(_normalised(logs[b]), y[b]) for b in blocks])
        best, chosen, found = _LEAST_GAIN, None, 1.0
        for strength in _STRENGTHS:
            gains, said = np.empty(len(blocks)), np.empty(n, dtype=np.int64)
            for i, b in enumerate(blocks):
                rest = np.setdiff1d(np.arange(n), b)
                w, c = _solve(z[rest], logs[rest], y[rest], strength)
                corrected = _corrected(logs[b], z[b] @ w + c, np.unique(y[rest]))
                gains[i], said[b] = _likelihood(corrected, y[b]) - before[i], corrected.argmax(axis=1)
            gain = float(gains.mean())
            if gain > best and gain > gains.std(ddof=1) / np.sqrt(len(blocks)):
                best, chosen, found = gain, strength, _kappa(y, said, k)
        if chosen is not None and found < _NO_PATTERN and np.bincount(y).max() < 0.9 * n:
            nothing.doubts.append(f"the labels contradict each other: what some of them teach agrees with the others at a kappa of {found:.2f}")
            nothing.note = f"nothing changed: from part of the {n} labelled epochs the others cannot be told"
            return nothing
        if chosen is None:
            nothing.note = f"nothing changed: on left-out blocks of the {n} labelled epochs no correction was better than none"
            return nothing
        weight, bias = _solve(z, logs, y, chosen)
        note = f"corrected by {n} labelled epochs: labels of left-out blocks became {np.exp(best) - 1:.1%} likelier an epoch"
        return cls(table.names, centre, scale, weight, bias, nothing.present, best, n, note, nothing.doubts)

    def __call__(self, table: Table, proba: NDArray[np.float64]) -> NDArray[np.float64]:
        """Corrected probabilities (epoch, stage); NaN stays. Columns the recording lacks count as average."""
        if not self.changes:
            return proba
        at = {n: i for i, n in enumerate(table.names)}
        x = np.stack([table.values[:, at[n]] if n in at else np.full(len(proba), np.nan) for n in self.names], axis=1)
        p = np.exp(_corrected(_log(proba), _scaled(x, self.centre, self.scale) @ self.weight + self.bias, np.array(self.present)))
        return np.where(np.isfinite(proba), p, np.nan)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for YAML."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in vars(self).items()}

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Calibration:
        given: dict[str, Any] = {k: np.array(v, dtype=np.float64) if k in ("centre", "scale", "weight", "bias") else v for k, v in d.items()}
        return cls(**given)


def labels_on(h: Hypnogram, start: float, n: int, epoch: float, minutes: float | None) -> tuple[NDArray[np.int64], list[str]]:
    """Codes (epoch,) of `n` epochs from `start` s, of the first so many scored minutes; and what to say where labels lie outside of them.

    Raises MissingDataError where so many do that the others are too few.
    """
    scored = h.times[h.codes >= 0] + h.epoch / 2
    stop = start + n * epoch
    outside = int(((scored < start) | (scored >= stop)).sum())
    said = f"{outside} of {len(scored)} labelled epochs lie outside the recording (it has {start:.0f}-{stop:.0f} s, the labels {h.start:.0f}-{h.stop:.0f} s)"
    if outside and len(scored) - outside < _FEWEST:
        raise MissingDataError(f"{said}, calibration needs {_FEWEST} or more inside: check the start of the hypnogram")
    codes = h.at(start + (np.arange(n) + 0.5) * epoch).astype(np.int64)
    if minutes is not None:
        codes[np.cumsum(codes >= 0) * epoch > minutes * 60 + 1e-6] = UNSCORED
    return codes, [said] if outside > 0.1 * len(scored) else []


def _kappa(y: NDArray[np.integer], said: NDArray[np.integer], k: int) -> float:
    """Cohen's kappa; 1 where both name one stage throughout."""
    kappa = cohen_kappa(confusion(y, said, k))
    return kappa if np.isfinite(kappa) else 1.0


def _solve(
    z: NDArray[np.float64], logs: NDArray[np.float64], y: NDArray[np.integer], strength: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """Weights (feature, stage) and bias (stage,) of a ridge-held softmax beside given logs; contrasts among the stages that occur, 0 for the others."""
    from scipy.optimize import minimize

    f = z.shape[1]
    present = np.unique(y)
    k = len(present)
    given, truth = logs[:, present], (y[:, None] == present).astype(np.float64)

    def loss(v: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        w, b = v[: f * k].reshape(f, k), v[f * k :]
        s = given + z @ w + b
        s = s - s.max(axis=1, keepdims=True)
        log_p = s - np.log(np.exp(s).sum(axis=1, keepdims=True))
        error = np.exp(log_p) - truth
        value = -float((log_p * truth).sum()) + 0.5 * strength * float((w**2).sum()) + 0.5 * float((b**2).sum())
        return value, np.r_[(z.T @ error + strength * w).ravel(), error.sum(axis=0) + b]

    v = minimize(loss, np.zeros((f + 1) * k), jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    weight, bias = np.zeros((f, logs.shape[1])), np.zeros(logs.shape[1])
    w, b = v[: f * k].reshape(f, k), v[f * k :]
    weight[:, present], bias[present] = w - w.mean(axis=1, keepdims=True), b - b.mean()
    return weight, bias


def _corrected(logs: NDArray[np.float64], added: NDArray[np.float64], present: NDArray[np.integer]) -> NDArray[np.float64]:
    """Log probabilities (epoch, stage) with a correction of the stages that are present among each other; the others keep the probability they had.

    Were all stages set against each other, whatever speaks for one of those that were labelled would speak against the others, of which nothing was learnt.
    """
    out = _normalised(logs)
    mass = _log_sum(out[:, present])
    out[:, present] = mass + _normalised(out[:, present] + added[:, present])
    return out


def _likelihood(log_p: NDArray[np.float64], y: NDArray[np.integer]) -> float:
    """Mean of log probabilities (epoch, stage) at codes (epoch,); a single epoch counts to 1e-3 at most."""
    return float(np.maximum(log_p[np.arange(len(y)), y], np.log(1e-3)).mean())


def _normalised(s: NDArray[np.float64]) -> NDArray[np.float64]:
    return s - _log_sum(s)


def _log_sum(s: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log of the sum of exponentials, (epoch, 1)."""
    top = s.max(axis=1, keepdims=True)
    return top + np.log(np.exp(s - top).sum(axis=1, keepdims=True))


def _scales(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    finite = np.isfinite(x)
    count = np.maximum(finite.sum(axis=0), 1)
    centre = np.where(finite, x, 0.0).sum(axis=0) / count
    spread = np.sqrt((np.where(finite, x - centre, 0.0) ** 2).sum(axis=0) / count)
    return centre, np.where(spread > 1e-9, spread, np.inf)


def _scaled(x: NDArray[np.float64], centre: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standardised features; missing ones, and those that do not vary, are 0."""
    return np.clip(np.nan_to_num((x - centre) / scale), -4, 4)


def _log(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(np.maximum(p, 1e-4))
