"""Gradient-boosted trees as plain arrays: fitted by scikit-learn, applied and stored without it.

The arrays are what is kept, in memory and on disk, so a stager predicts the same under any later version of
scikit-learn, and loading one runs no code (a pickle would).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.errors import MissingDataError

__all__ = ["Trees"]


@dataclass
class Trees:
    """Sums of regression trees, one sum a class, through a softmax.

    Attributes
    ----------
    feature : int32 (node,)
        Column that a node splits; -1 at a leaf.
    threshold : float64 (node,)
        Rows with a value at or below it go left.
    missing_left : bool (node,)
        Where NaN goes.
    left, right : int32 (node,)
        Children, as indices of nodes.
    value : float64 (node,)
        What a leaf adds to the score of its class.
    roots : int32 (round, class)
        First node of each tree.
    baseline : float64 (class,)
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    missing_left: NDArray[np.bool_]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: NDArray[np.float64]
    roots: NDArray[np.int32]
    baseline: NDArray[np.float64]

    def __post_init__(self) -> None:
        # Height of each node above its deepest leaf: how many steps a row needs from there.
        self._height = np.zeros(len(self.feature), dtype=np.int32)
        inner = np.flatnonzero(self.feature >= 0)
        while len(inner):
            higher = 1 + np.maximum(self._height[self.left[inner]], self._height[self.right[inner]])
            if (higher == self._height[inner]).all():
                break
            self._height[inner] = higher

    @classmethod
    def fit(
        cls, x: NDArray[np.float64], y: NDArray[np.integer], n_classes: int, *, rounds: int = 150,
        rate: float = 0.1, leaves: int = 31, smallest_leaf: int = 40, columns: float = 0.2, seed: int = 0,
    ) -> Trees:  # fmt: skip
        """Fit to rows x (n, feature) with classes y (n,) in 0..n_classes-1; classes that do not occur get a probability of about 0.

        References
        ----------
        Ke et al. 2017, NeurIPS (LightGBM); scikit-learn's HistGradientBoostingClassifier.
        """
        from sklearn.ensemble import HistGradientBoostingClassifier

        present = np.unique(y)
        if len(present) < 2:
            baseline = np.full(n_classes, -30.0)
            baseline[present] = 0.0
            empty = np.empty(0)
            return cls(*(empty.astype(t) for t in (np.int32, float, bool, np.int32, np.int32, float)), np.empty((0, n_classes), np.int32), baseline)
        # scikit-learn cannot bin a column without a number, and one that never varies teaches nothing.
        useful = np.array([j for j in range(x.shape[1]) if np.isfinite(x[:, j]).any() and np.nanmax(x[:, j]) > np.nanmin(x[:, j])], dtype=np.intp)
        if not len(useful):
            raise MissingDataError("no feature varies over the labelled epochs: check for flat or missing channels")
        model = HistGradientBoostingClassifier(
            max_iter=rounds, learning_rate=rate, max_leaf_nodes=leaves, min_samples_leaf=min(smallest_leaf, max(2, len(y) // 20)),
            l2_regularization=1.0, max_features=columns, early_stopping=False, random_state=seed,
        ).fit(x[:, useful], y)  # fmt: skip
        return cls._from_sklearn(model, present, n_classes, useful)

    @classmethod
    def _from_sklearn(cls, model: Any, present: NDArray[np.integer], n_classes: int, columns: NDArray[np.intp]) -> Trees:
        # Two classes are one sum of trees for the second; its negative is implied by a score of 0 for the first.
        column = present if len(present) > 2 else present[1:]
        nodes, roots, offset = [], [], 0
        for round_ in model._predictors:
            row = np.full(n_classes, -1, dtype=np.int32)
            for k, tree in zip(column, round_):
                n = tree.nodes.copy()
                row[k] = offset
                n["left"] += offset
                n["right"] += offset
                nodes.append(n)
                offset += len(n)
            roots.append(row)
        n = np.concatenate(nodes)
        leaf = n["is_leaf"].astype(bool)
        own = np.arange(len(n), dtype=np.int32)
        baseline = np.full(n_classes, -30.0)
        baseline[present] = 0.0
        baseline[column] = model._baseline_prediction.ravel()
        return cls(
            np.where(leaf, -1, columns[n["feature_idx"]]).astype(np.int32), n["num_threshold"].astype(np.float64), n["missing_go_to_left"].astype(bool),
            np.where(leaf, own, n["left"]).astype(np.int32), np.where(leaf, own, n["right"]).astype(np.int32), n["value"].astype(np.float64),
            np.array(roots, dtype=np.int32), baseline,
        )  # fmt: skip

    def scores(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum of trees (row, class), before the softmax."""
        out = np.tile(self.baseline, (len(x), 1))
        if not len(self.roots) or not len(x):
            return out
        # A tree at a time: its few nodes stay in the processor's first cache while all rows walk down together.
        flat = np.ascontiguousarray(x).ravel()
        offset = np.arange(len(x)) * x.shape[1]
        column = np.maximum(self.feature, 0).astype(np.intp)
        any_missing = bool(np.isnan(flat).any())
        for row in self.roots:
            for k in np.flatnonzero(row >= 0):
                at = np.full(len(x), row[k], dtype=np.intp)
                for _ in range(self._height[row[k]]):
                    v = flat.take(offset + column.take(at))
                    # NaN compares false, so it goes right unless the node says otherwise.
                    go_left = v <= self.threshold.take(at)
                    if any_missing:
                        go_left |= np.isnan(v) & self.missing_left.take(at)
                    at = np.where(go_left, self.left.take(at), self.right.take(at))
                out[:, k] += self.value.take(at)
        return out

    def predict_proba(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability (row, class)."""
        s = self.scores(x)
        e = np.exp(s - s.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def to_arrays(self, prefix: str) -> dict[str, NDArray]:
        return {f"{prefix}{k}": getattr(self, k) for k in self.__dataclass_fields__}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray], prefix: str) -> Trees:
        return cls(**{k: np.asarray(arrays[f"{prefix}{k}"]) for k in cls.__dataclass_fields__})
