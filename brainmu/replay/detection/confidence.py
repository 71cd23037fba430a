"""What a learned detector knows about itself: how sure it may be of an event, and whether an input is like those it was fitted on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core.metrics import calibration_error
from brainmu.replay.detection.edges import FEATURES, FLOOR
from brainmu.replay.detection.inputs import Sensed

__all__ = ["BLOCK", "Calibration", "Novelty", "block_features"]

BLOCK = 1000
"""Bins (4 s) of which it is asked at once whether they are like the training recordings."""
LEAST_LOG_ODDS = float(np.log(FLOOR / (1 - FLOOR)))
_QUANTILE = 0.995
_KEPT = 2000


@dataclass
class Calibration:
    """Probability of a candidate from its FEATURES, by logistic regression on candidates of held-out subjects.

    Attributes
    ----------
    mean, scale, weight : float64 (feature,)
    bias : float
    minutes : float
        Held-out time behind it.
    false : float64 (n,)
        Probabilities of the false candidates of that time, highest first: they set the threshold of a false rate.
    error : float
        Expected calibration error on those candidates.
    n_events, n_candidates : int
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    weight: NDArray[np.float64]
    bias: float
    minutes: float = 0.0
    false: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    error: float = float("nan")
    n_events: int = 0
    n_candidates: int = 0

    @classmethod
    def fit(cls, features: NDArray[np.float64], true: NDArray[np.bool_], minutes: float, n_events: int) -> Calibration | None:
        """None where fewer than five candidates are events.

        One event at the mean and one false candidate at the least that is a candidate are added: few false ones promise no certainty.
        """
        from sklearn.linear_model import LogisticRegression

        if true.sum() < 5:
            return None
        mean, scale = features.mean(0), np.maximum(features.std(0), 1e-6)
        least = np.array([LEAST_LOG_ODDS, LEAST_LOG_ODDS, mean[2]])
        x = np.concatenate([(features - mean) / scale, np.stack([np.zeros(len(mean)), (least - mean) / scale])])
        fitted = LogisticRegression(C=1.0, max_iter=500).fit(x, np.r_[true, True, False])
        out = cls(mean, scale, fitted.coef_[0].astype(np.float64), float(fitted.intercept_[0]), minutes, n_events=n_events, n_candidates=len(true))
        p = out.probability(features)
        out.false = np.sort(p[~true])[::-1][:_KEPT]
        out.error = calibration_error(np.c_[1 - p, p], true.astype(int))
        return out

    def log_odds(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Calibrated log odds (n,) of candidates (n, feature)."""
        return (features - self.mean) / self.scale @ self.weight + self.bias

    def probability(self, features: NDArray[np.float64]) -> NDArray[np.float64]:
        """Probability (n,) that a candidate is an event."""
        return 1 / (1 + np.exp(-self.log_odds(features)))

    def threshold(self, false_rate: float) -> float:
        """Least probability at which the held-out subjects hold at most `false_rate` false events a minute."""
        k = int(false_rate * self.minutes)
        return float(np.nextafter(self.false[k], 2)) if k < len(self.false) else 0.0

    def to_dict(self) -> dict[str, Any]:
        """For YAML."""
        return {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in self.__dict__.items()}

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Calibration:
        """The inverse of :meth:`to_dict`."""
        out = cls(**{k: np.array(v, dtype=np.float64) if isinstance(v, list) else v for k, v in d.items()})
        if not len(out.mean) == len(out.scale) == len(out.weight) == len(FEATURES):
            raise ValueError(f"calibration of {len(out.weight)} features, expected {len(FEATURES)}")
        return out


@dataclass
class Novelty:
    """How far a block lies from those of the training recordings: Mahalanobis distance with a shrunk covariance, and the level above which it is unlike them.

    The level is the 99.5th percentile of the blocks of subjects that were left out in turn.
    """

    mean: NDArray[np.float64]
    precision: NDArray[np.float64]
    level: float = np.inf

    @classmethod
    def fit(cls, parts: Sequence[NDArray[np.float64]]) -> Novelty:
        """From blocks (n, feature) of each group of subjects."""
        held = [_shape(np.concatenate([*parts[:k], *parts[k + 1 :]])).distance(p) for k, p in enumerate(parts) if len(parts) > 1 and len(p)]
        out = _shape(np.concatenate(parts))
        out.level = float(np.quantile(np.concatenate(held), _QUANTILE)) if held else np.inf
        return out

    def distance(self, blocks: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance (n,) of blocks (n, feature)."""
        d = blocks - self.mean
        return np.sqrt(np.maximum(np.einsum("ni,ij,nj->n", d, self.precision, d), 0))


def _shape(blocks: NDArray[np.float64]) -> Novelty:
    from sklearn.covariance import LedoitWolf

    fitted = LedoitWolf().fit(blocks)
    return Novelty(fitted.location_.astype(np.float64), fitted.precision_.astype(np.float64))


def block_features(sensed: Sensed, spectrum: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean and SD of every trace in whole blocks of 4 s, and the shape of the recording's own spectrum: (block, feature)."""
    n = len(sensed.traces) // BLOCK
    x = sensed.traces[: n * BLOCK].astype(np.float64).reshape(n, BLOCK, sensed.traces.shape[1])
    if not n:
        return np.empty((0, 2 * sensed.traces.shape[1] + len(spectrum)))
    own = np.broadcast_to(spectrum, (n, len(spectrum)))
    return np.concatenate([x.mean(1), x.std(1), own], axis=1)
