"""What is learnt from held-out subjects about a stager's probabilities: how to decode them over the night, which stages it tells too seldom, and how far
to trust it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core.metrics import cohen_kappa, confusion, fraction_bias
from brainmu.sleep.durations import Durations

__all__ = ["Decoding", "fit_offset", "fit_temperature", "tempered", "tune_durations"]

_DEAREST = 0.005
"""Mean kappa that right stage fractions may cost held-out subjects."""

_FURTHEST = 2.0
"""Log odds by which a stage may be favoured: beyond it a stage is not confused but unknown."""

Probas = dict[int, NDArray[np.float64]]


@dataclass
class Decoding:
    """Durations of stages (None where they do not help), log odds added to each (None where fractions are right) and a temperature, as held-out subjects
    want them."""

    durations: Durations | None = None
    temperature: float = 1.0
    offset: NDArray[np.float64] | None = None

    @classmethod
    def fit(
        cls, codes: list[NDArray[np.integer]], held_out: Probas, known: list[NDArray[np.bool_]], groups: list[str], n_stages: int, duration: bool
    ) -> Decoding:
        """As :func:`tune_durations` (left out unless `duration`), then :func:`fit_offset`, then :func:`fit_temperature`."""
        self = cls(tune_durations(codes, held_out, known, groups, n_stages) if duration else None)
        smoothed = {i: self.smoothed(p) for i, p in held_out.items()}
        self.offset = fit_offset(codes, smoothed, known, groups, n_stages)
        self.temperature = fit_temperature(codes, {i: self.shifted(p) for i, p in smoothed.items()}, known)
        return self

    def __call__(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Decoded probabilities (epoch, stage)."""
        return tempered(self.shifted(self.smoothed(p)), self.temperature)

    def smoothed(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """With the durations alone."""
        return self.durations.smooth(p) if self.durations is not None and np.isfinite(p).any() else p

    def shifted(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """With the offset alone."""
        if self.offset is None:
            return p
        q = np.maximum(p, 1e-9) * np.exp(self.offset)
        return q / q.sum(axis=1, keepdims=True)

    def to_dict(self) -> dict[str, Any]:
        return {"durations": None if self.durations is None else self.durations.to_dict(), "temperature": self.temperature,
                "offset": None if self.offset is None else self.offset.tolist()}  # fmt: skip

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Decoding:
        durations, offset = d["durations"], d.get("offset")  # stagers saved by earlier versions have no offset
        return cls(
            None if durations is None else Durations.from_dict(durations), float(d["temperature"]), None if offset is None else np.array(offset, np.float64)
        )


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
    which = list(held_out)

    def kappa(decode: Callable[[list[NDArray[np.float64]]], list[NDArray[np.float64]]]) -> float:
        decoded = decode([held_out[i] for i in which])
        found = {i: np.where(np.isfinite(held_out[i]).all(axis=1), p.argmax(axis=1), -1) for i, p in zip(which, decoded)}
        return _mean_kappa(_confusions(codes, found, known, groups, n_stages))

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


def fit_offset(
    codes: list[NDArray[np.integer]], held_out: Probas, known: list[NDArray[np.bool_]], groups: list[str], n_stages: int
) -> NDArray[np.float64] | None:
    """Log odds (stage,) that bring stage fractions of held-out subjects nearer to the true ones, or None where they do not.

    The likeliest stage of every epoch makes rare and doubtful stages (N1) too rare, however right the probabilities are. The offset that would make the
    fractions right is found on some subjects and tried on the others; a quarter, half, three quarters or all of it is used, whichever leaves the fractions
    of these others nearest to the truth without costing them more than 0.005 of mean kappa. None with fewer than three subjects.

    Parameters
    ----------
    codes, held_out, known, groups, n_stages
        As :func:`tune_durations`.
    """
    names = sorted({groups[i] for i in held_out})
    if len(names) < 3:
        return None
    usable = [k & (c >= 0) for k, c in zip(known, codes)]
    logs = {i: np.log(np.maximum(np.where(np.isfinite(p), p, 1.0), 1e-9)) for i, p in held_out.items()}
    scored = {i: usable[i] & np.isfinite(p).all(axis=1) for i, p in held_out.items()}
    if not any(k.any() for k in scored.values()):
        return None

    def offset_of(which: list[int]) -> NDArray[np.float64]:
        return _matching(np.concatenate([logs[i][scored[i]] for i in which]), np.concatenate([codes[i][scored[i]] for i in which]), n_stages)

    parts = min(5, len(names))
    tried: dict[int, NDArray[np.float64]] = {}
    for part in range(parts):
        inside = {i: names.index(groups[i]) % parts == part for i in held_out}
        offset = offset_of([i for i in held_out if not inside[i]])
        tried |= {i: offset for i in held_out if inside[i]}
    best, least, share = np.inf, -np.inf, 0.0
    for s in (0.0, 0.25, 0.5, 0.75, 1.0):
        m = _confusions(codes, {i: np.where(scored[i], (logs[i] + s * tried[i]).argmax(axis=1), -1) for i in held_out}, known, groups, n_stages)
        kappa, off = _mean_kappa(m), float(np.abs(fraction_bias(np.sum(list(m.values()), axis=0))).mean())
        least = kappa - _DEAREST if s == 0 else least
        if off < best and kappa >= least:
            best, share = off, s
    return share * offset_of(list(held_out)) if share else None


def _matching(logs: NDArray[np.float64], codes: NDArray[np.integer], n_stages: int) -> NDArray[np.float64]:
    """Log odds (stage,) with which the likeliest stages of log probabilities (epoch, stage) are as frequent as the codes (epoch,)."""
    offset = np.zeros(n_stages)
    if not len(codes):
        return offset
    wanted = np.bincount(codes, minlength=n_stages) / len(codes)
    for _ in range(100):
        found = np.bincount((logs + offset).argmax(axis=1), minlength=n_stages) / len(codes)
        if np.abs(found - wanted).max() < 5e-4:
            break
        offset = offset + 0.5 * np.log((wanted + 1e-4) / (found + 1e-4))
        offset = np.clip(offset - offset.mean(), -_FURTHEST, _FURTHEST)
    return offset


def _confusions(
    codes: list[NDArray[np.integer]], found: dict[int, NDArray[np.integer]], known: list[NDArray[np.bool_]], groups: list[str], n_stages: int
) -> dict[str, NDArray[np.int64]]:
    """Confusion of each subject, over the recordings in `found`, where both are known."""
    out = {groups[i]: np.zeros((n_stages, n_stages), dtype=np.int64) for i in found}
    for i, f in found.items():
        ok = known[i] & (f >= 0)
        if ok.any():
            out[groups[i]] += confusion(codes[i][ok], f[ok], n_stages)
    return out


def _mean_kappa(matrices: dict[str, NDArray[np.int64]]) -> float:
    values = [cohen_kappa(m) for m in matrices.values()]
    return float(np.nanmean(values)) if np.isfinite(values).any() else -np.inf


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
