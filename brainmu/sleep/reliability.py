"""Whether a stager's probabilities mean what they say, and what it costs to leave doubtful epochs unscored."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core.hypnogram import UNSCORED, Hypnogram
from brainmu.core.metrics import accuracy, cohen_kappa, confusion
from brainmu.errors import InputError, MissingDataError

__all__ = ["THRESHOLDS", "abstain_from", "abstention", "calibration", "doubts"]

THRESHOLDS = (0.0, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
"""Confidences at which abstention is told; 0 is every epoch."""

Pairs = Iterable[tuple[Hypnogram, Hypnogram]]


def calibration(hypnogram: Hypnogram | Pairs, reference: Hypnogram | None = None, *, bins: int = 10) -> pd.DataFrame:
    """How often the most probable stage is right, by how probable it was said to be.

    Parameters
    ----------
    hypnogram : Hypnogram with probabilities, or iterable of (hypnogram, reference)
        Epochs of all pairs are pooled.
    reference : Hypnogram
    bins : int
        Of equal width between 0 and 1.

    Returns
    -------
    DataFrame
        confidence_low, confidence_high, n, confidence (mean), accuracy, low, high (95 %, Wilson; epochs are taken as independent, so they are too
        narrow). Empty bins are left out. ``attrs``: ``ece`` (expected calibration error: mean gap weighted by n), ``mce`` (largest gap),
        ``brier`` (mean squared error of all probabilities, 0 to 2), ``n``, ``overconfidence`` (mean confidence less accuracy).

    Raises
    ------
    MissingDataError
        Without probabilities, or without a scored epoch in common.

    References
    ----------
    Guo et al. 2017, ICML (ECE and reliability diagrams); Brier 1950, Mon. Weather Rev. 78:1.
    """
    if bins < 1:
        raise InputError(f"calibration was asked for {bins} bins, expected at least 1")
    p, truth = _pooled(hypnogram, reference)
    top, right = p.max(axis=1), p.argmax(axis=1) == truth
    which = np.minimum((top * bins).astype(int), bins - 1)
    rows = []
    for k in np.unique(which):
        here = which == k
        n, share = int(here.sum()), float(right[here].mean())
        low, high = _wilson(share, n)
        rows.append((k / bins, (k + 1) / bins, n, float(top[here].mean()), share, low, high))
    table = pd.DataFrame(rows, columns=["confidence_low", "confidence_high", "n", "confidence", "accuracy", "low", "high"])
    gap = (table["confidence"] - table["accuracy"]).abs()
    onehot = np.eye(p.shape[1])[truth]
    table.attrs = {"ece": float((gap * table["n"]).sum() / len(top)), "mce": float(gap.max()), "brier": float(((p - onehot) ** 2).sum(axis=1).mean()),
                   "n": len(top), "overconfidence": float(top.mean() - right.mean())}  # fmt: skip
    return table


def abstention(hypnogram: Hypnogram | Pairs, reference: Hypnogram | None = None, *, thresholds: Sequence[float] = THRESHOLDS) -> pd.DataFrame:
    """What is gained and lost by leaving epochs unscored whose most probable stage is below a confidence.

    Parameters
    ----------
    hypnogram, reference
        As in :func:`calibration`.
    thresholds : sequence of float

    Returns
    -------
    DataFrame
        threshold, abstained_pct (of the epochs that the reference scored), n (kept), accuracy, kappa, and for each stage ``abstained_<stage>_pct``:
        abstaining that falls on one stage bends the fractions of what is left.

    Raises
    ------
    InputError, MissingDataError
        If a threshold is no probability; as in :func:`calibration`.
    """
    if any(not 0 <= t <= 1 for t in thresholds):
        raise InputError(f"abstention thresholds are {list(thresholds)}, expected probabilities")
    p, truth, stages = _pooled_named(hypnogram, reference)
    top, best, rows = p.max(axis=1), p.argmax(axis=1), []
    for t in thresholds:
        keep = top >= t
        m = confusion(truth[keep], best[keep], len(stages))
        row = {"threshold": float(t), "abstained_pct": 100 * float((~keep).mean()), "n": int(keep.sum()), "accuracy": accuracy(m), "kappa": cohen_kappa(m)}
        of = {f"abstained_{s}_pct": 100 * float((~keep)[truth == i].mean()) if (truth == i).any() else float("nan") for i, s in enumerate(stages)}
        rows.append(row | of)
    return pd.DataFrame(rows)


def doubts(h: Hypnogram) -> list[str]:
    """What makes a hypnogram look wrong without any reference, in sentences: one stage (nearly) throughout, much that is missing, too short a recording.

    A stager's probabilities are right for recordings like those it was fitted on. Noise or a dead channel is unlike them, and is staged with confidence.
    """
    scored = h.codes[h.codes >= 0]
    said = []
    if 0 < len(h) * h.epoch < 300:
        said.append(f"{len(h) * h.epoch:.0f} s is too short for a scale of its own: five minutes are the least, half an hour is wanted")
    if len(scored):
        share = np.bincount(scored, minlength=len(h.stages)) / len(scored)
        if share.max() == 1 or (share.max() > 0.97 and len(scored) * h.epoch >= 1800):
            said.append(
                f"{h.stages[int(share.argmax())]} makes {share.max():.0%} of {len(scored) * h.epoch / 60:.1f} min: noise and dead channels look like that"
            )
    if len(scored) < 0.8 * len(h):
        said.append(f"{1 - len(scored) / len(h):.0%} of the recording is unscored: no data there, or (causal) no scale yet")
    return said


def abstain_from(h: Hypnogram, sure: NDArray[np.floating], confidence: float, share: float | None) -> None:
    """Leave epochs of a hypnogram unscored: those with `sure` (epoch,) below `confidence`, or the least certain `share` of all; ``attrs`` say how many."""
    doubtful = (h.codes >= 0) & (sure < confidence)
    if share is not None:
        scored = np.flatnonzero(h.codes >= 0)
        doubtful = np.zeros(len(h.codes), dtype=bool)
        doubtful[scored[np.argsort(sure[scored], kind="stable")[: int(share * len(h.codes) + 1e-9)]]] = True
    h.codes[doubtful] = UNSCORED
    h.attrs["abstained"] = float(doubtful.mean())


def _pooled(hypnogram: Hypnogram | Pairs, reference: Hypnogram | None) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    return _pooled_named(hypnogram, reference)[:2]


def _pooled_named(hypnogram: Hypnogram | Pairs, reference: Hypnogram | None) -> tuple[NDArray[np.float64], NDArray[np.int64], tuple[str, ...]]:
    """Probabilities (epoch, stage), true codes (epoch,) and stages of all epochs that have both."""
    from brainmu.sleep.agreement import aligned

    if isinstance(hypnogram, Hypnogram):
        if reference is None:
            raise InputError("calibration compares with a reference and none came: pass the scorer's hypnogram as the second argument")
        pairs: list[tuple[Hypnogram, Hypnogram]] = [(hypnogram, reference)]
    else:
        pairs = list(hypnogram)
    proba, truth, stages = [], [], set()
    for h, ref in pairs:
        if h.proba is None:
            raise MissingDataError(f"a hypnogram ({h.scorer or 'without a scorer'}) has no probabilities, so there is nothing to calibrate")
        h, _, r = aligned(h, ref)
        assert h.proba is not None
        keep = (r >= 0) & np.isfinite(h.proba).all(axis=1)
        proba.append(h.proba[keep].astype(np.float64))
        truth.append(r[keep].astype(np.int64))
        stages.add(h.stages)
    if len(stages) > 1:
        raise InputError(f"the hypnograms mix stage sets {' and '.join(' '.join(s) for s in sorted(stages))}: convert all with as_rodent3()")
    if not truth or not sum(map(len, truth)):
        raise MissingDataError("no epoch has both probabilities and a scored reference: check the hypnograms' start times and labels")
    return np.concatenate(proba), np.concatenate(truth), next(iter(stages))


def _wilson(share: float, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927)."""
    z = 1.96
    middle, reach = (share + z**2 / (2 * n)) / (1 + z**2 / n), z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return float(max(0.0, middle - reach)), float(min(1.0, middle + reach))
