"""What is learnt from held-out subjects about a stager's probabilities: how to decode them over the night, and how far to trust them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core.metrics import cohen_kappa, confusion
from brainmu.sleep.durations import Durations

__all__ = ["Decoding", "fit_temperature", "tempered", "tune_durations"]

Probas = dict[int, NDArray[np.float64]]


@dataclass
class Decoding:
    """Durations of stages (None where they do not help) and a temperature, both as held-out subjects want them."""

    durations: Durations | None = None
    temperature: float = 1.0

    @classmethod
    def fit(
        cls, codes: list[NDArray[np.integer]], held_out: Probas, known: list[NDArray[np.bool_]], groups: list[str], n_stages: int, duration: bool
    ) -> Decoding:
        """As :func:`tune_durations` (left out unless `duration`) and :func:`fit_temperature`."""
        self = cls(tune_durations(codes, held_out, known, groups, n_stages) if duration else None)
        self.temperature = fit_temperature(codes, {i: self.smoothed(p) for i, p in held_out.items()}, known)
        return self

    def __call__(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Decoded probabilities (epoch, stage)."""
        return tempered(self.smoothed(p), self.temperature)

    def smoothed(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """With the durations, without the temperature."""
        return self.durations.smooth(p) if self.durations is not None and np.isfinite(p).any() else p

    def to_dict(self) -> dict[str, Any]:
        return {"durations": None if self.durations is None else self.durations.to_dict(), "temperature": self.temperature}

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Decoding:
        return cls(None if d["durations"] is None else Durations.from_dict(d["durations"]), float(d["temperature"]))


def tune_durations(codes: list[NDArray[np.integer]], held_out: Probas, known: list[NDArray[np.bool_]], groups: list[str], n_stages: int) -> Durations | None:
    """The decoding that gives held-out subjects the best mean kappa, or None where all of them make it worse.

    Choices: one or two phases a bout, how much the evidence counts, how far the training fractions are divided out.

    Parameters
    ----------
    codes : list of int (epoch,)
        Labels of each recording; bouts and transitions are counted in them.
    held_out : dict of float64 (epoch, stage)
        Probabilities by a stager that never saw the recording's subject; the key is the place in `codes`.
    known : list of bool (epoch,)
        Which epochs count.
    groups : list of str
        Subject of each recording.
    n_stages : int
    """
    names = sorted({groups[i] for i in held_out})
    which = list(held_out)

    def kappa(decode: Callable[[list[NDArray[np.float64]]], list[NDArray[np.float64]]]) -> float:
        matrix = {g: np.zeros((n_stages, n_stages), dtype=np.int64) for g in names}
        for i, p in zip(which, decode([held_out[i] for i in which])):
            ok = known[i] & np.isfinite(held_out[i]).all(axis=1)
            if ok.any():
                matrix[groups[i]] += confusion(codes[i][ok], p[ok].argmax(axis=1), n_stages)
        values = [cohen_kappa(m) for m in matrix.values()]
        return float(np.nanmean(values)) if np.isfinite(values).any() else -np.inf

    best, chosen = kappa(lambda p: p), None
    for phases in (1, 2):
        d = Durations.fit(codes, n_stages, phases=phases)
        for power in (0.4, 0.6, 0.8, 1.0):
            for prior_power in (0.0, 0.5, 1.0):
                candidate = replace(d, power=power, prior_power=prior_power)
                score = kappa(candidate.smooth_many)
                if score > best:
                    best, chosen = score, candidate
    return chosen


def fit_temperature(codes: list[NDArray[np.integer]], held_out: Probas, known: list[NDArray[np.bool_]]) -> float:
    """How far probabilities must be softened so that held-out subjects' labels are likeliest (Guo et al. 2017, ICML): stages stay, confidence changes."""

    def loss(t: float) -> float:
        total = 0.0
        for i, p in held_out.items():
            ok = known[i] & np.isfinite(p).all(axis=1)
            total -= float(np.log(np.maximum(tempered(p, t)[ok, codes[i][ok]], 1e-6)).sum())
        return total

    return float(min(np.geomspace(0.5, 4.0, 25), key=loss))


def tempered(p: NDArray[np.float64], t: float) -> NDArray[np.float64]:
    """Probabilities (epoch, stage) softened by a temperature; NaN stays."""
    q = np.maximum(p, 1e-9) ** (1 / t)
    return q / q.sum(axis=1, keepdims=True)
