"""Scores of predictions against references: arrays in, numbers out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainmu.core.events import match_events
from brainmu.errors import InputError

__all__ = [
    "accuracy",
    "auroc",
    "balanced_accuracy",
    "bootstrap_interval",
    "calibration_error",
    "cohen_kappa",
    "confusion",
    "event_scores",
    "f1_by_class",
    "fraction_bias",
]


def confusion(true: ArrayLike, predicted: ArrayLike, n_classes: int) -> NDArray[np.int64]:
    """Counts (true, predicted), (K, K). Negative codes (artefact, unscored) on either side are left out."""
    t, p = _pair(true, predicted)
    keep = (t >= 0) & (p >= 0)
    t, p = t[keep], p[keep]
    if t.size and max(t.max(), p.max()) >= n_classes:
        raise InputError(f"class {max(t.max(), p.max())} is outside 0..{n_classes - 1}")
    return np.bincount(t * n_classes + p, minlength=n_classes**2).reshape(n_classes, n_classes).astype(np.int64)


def accuracy(matrix: ArrayLike) -> float:
    """Share of agreement from a confusion matrix (K, K); NaN when it is empty."""
    m = np.asarray(matrix, dtype=float)
    return float(np.trace(m) / m.sum()) if m.sum() else float("nan")


def balanced_accuracy(matrix: ArrayLike) -> float:
    """Mean recall over the classes that occur in the reference."""
    m = np.asarray(matrix, dtype=float)
    n = m.sum(1)
    return float(np.mean(np.diag(m)[n > 0] / n[n > 0])) if (n > 0).any() else float("nan")


def cohen_kappa(matrix: ArrayLike) -> float:
    """Cohen's kappa from a confusion matrix (K, K); NaN where chance agreement is 1 (one class only)."""
    m = np.asarray(matrix, dtype=float)
    n = m.sum()
    if n == 0:
        return float("nan")
    chance = float((m.sum(0) * m.sum(1)).sum() / n**2)
    return float((np.trace(m) / n - chance) / (1 - chance)) if chance < 1 else float("nan")


def f1_by_class(matrix: ArrayLike) -> NDArray[np.float64]:
    """F1 of each class (K,); NaN for a class that neither occurs nor was predicted."""
    m = np.asarray(matrix, dtype=float)
    both = m.sum(0) + m.sum(1)
    return np.divide(2 * np.diag(m), both, out=np.full(len(m), np.nan), where=both > 0)


def fraction_bias(matrix: ArrayLike) -> NDArray[np.float64]:
    """Predicted minus true share of each class (K,)."""
    m = np.asarray(matrix, dtype=float)
    return (m.sum(0) - m.sum(1)) / m.sum() if m.sum() else np.full(len(m), np.nan)


def event_scores(found: ArrayLike, planted: ArrayLike, iou: float = 0.2) -> dict[str, float]:
    """Precision, recall and F1 of events (n, 2) against references (m, 2), matched one to one by IoU.

    Precision without detections and recall without references are NaN; F1 is NaN only when both are absent.
    """
    a, b = np.asarray(found, float).reshape(-1, 2), np.asarray(planted, float).reshape(-1, 2)
    hits = len(match_events(a, b, iou))
    n = len(a) + len(b)
    return {
        "precision": hits / len(a) if len(a) else float("nan"),
        "recall": hits / len(b) if len(b) else float("nan"),
        "f1": 2 * hits / n if n else float("nan"),
        "n_found": float(len(a)),
        "n_reference": float(len(b)),
    }


def auroc(score: ArrayLike, positive: ArrayLike) -> float:
    """Area under the ROC curve; ties count half; NaN if one class is absent."""
    s, y = np.asarray(score, float), np.asarray(positive, bool)
    if y.all() or not y.any():
        return float("nan")
    order = np.argsort(s, kind="stable")
    _, inverse, count = np.unique(s[order], return_inverse=True, return_counts=True)
    rank = np.empty(len(s))
    rank[order] = (np.cumsum(count) - (count - 1) / 2)[inverse]
    return float((rank[y].sum() - y.sum() * (y.sum() + 1) / 2) / (y.sum() * (~y).sum()))


def calibration_error(proba: ArrayLike, true: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error of the top class: mean |confidence - accuracy| over equal-width bins, weighted by count."""
    p, t = np.asarray(proba, float), np.asarray(true)
    keep = (t >= 0) & np.isfinite(p).all(1)
    p, t = p[keep], t[keep]
    if not len(t):
        return float("nan")
    top, hit = p.max(1), p.argmax(1) == t
    b = np.minimum((top * bins).astype(int), bins - 1)
    return float(sum(abs(top[b == k].mean() - hit[b == k].mean()) * (b == k).mean() for k in np.unique(b)))


def bootstrap_interval(
    clusters: list[Any], statistic: Callable[[list[Any]], float], *, draws: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[float, float]:
    """Percentile interval of `statistic(list of clusters)` under resampling of whole clusters (subjects, bouts).

    NaN, NaN with fewer than two clusters.
    """
    if len(clusters) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    values = [statistic([clusters[i] for i in rng.integers(0, len(clusters), len(clusters))]) for _ in range(draws)]
    low, high = np.nanpercentile(values, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def _pair(true: ArrayLike, predicted: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    t, p = np.asarray(true), np.asarray(predicted)
    if t.shape != p.shape or t.ndim != 1:
        raise InputError(f"reference has shape {t.shape} and prediction {p.shape}, expected the same (n,)")
    return t.astype(np.int64), p.astype(np.int64)
