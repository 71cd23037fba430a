"""Duration-aware decoding: how stages follow each other and how long they last, applied to an epoch-by-epoch stager.

A hidden Markov chain whose stages are split into phases in series (so that very short bouts are unlikely: a
semi-Markov chain with negative-binomial durations) and whose evidence is the stager's probability, tempered because
neighbouring epochs share context and so repeat each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Durations"]


@dataclass
class Durations:
    """Transitions and durations of stages.

    Attributes
    ----------
    leave : float64 (stage, stage)
        Probability of the next stage given that a bout ends; zero diagonal.
    mean : float64 (stage,), epochs
        Mean length of a bout.
    phases : int
        Phases in series of a bout; 1 is a plain Markov chain.
    prior : float64 (stage,)
        Stage fractions in training, divided out of the evidence.
    power : float
        Exponent of the evidence, in (0, 1].
    prior_power : float
        How far the training fractions are divided out, 0 to 1.
    """

    leave: NDArray[np.float64]
    mean: NDArray[np.float64]
    phases: int
    prior: NDArray[np.float64]
    power: float = 0.8
    prior_power: float = 0.5

    @classmethod
    def fit(cls, codes: list[NDArray[np.integer]], n_stages: int, *, phases: int = 1) -> Durations:
        """From hypnograms as codes; negative codes break bouts. Rare transitions get a small pseudo-count."""
        leave = np.full((n_stages, n_stages), 0.05)
        length, bouts, count = np.full(n_stages, 2.0), np.ones(n_stages), np.ones(n_stages)
        for c in codes:
            first = np.flatnonzero(np.r_[True, np.diff(c) != 0])
            run, stage = np.diff(np.r_[first, len(c)]), c[first]
            for k in range(n_stages):
                length[k] += run[stage == k].sum()
                bouts[k] += (stage == k).sum()
                count[k] += run[stage == k].sum()
            a, b = stage[:-1], stage[1:]
            ok = (a >= 0) & (b >= 0)
            np.add.at(leave, (a[ok], b[ok]), 1.0)
        np.fill_diagonal(leave, 0.0)
        return cls(leave / leave.sum(1, keepdims=True), np.maximum(length / bouts, 1.01), phases, count / count.sum())

    def smooth(self, proba: NDArray[np.floating]) -> NDArray[np.float64]:
        """Posterior probability (epoch, stage) given the whole night (forward-backward). Rows of NaN carry no evidence and stay NaN."""
        return self.smooth_many([proba])[0]

    def smooth_many(self, probas: Sequence[NDArray[np.floating]]) -> list[NDArray[np.float64]]:
        """:meth:`smooth` of several recordings, all of them one step at a time."""
        if not any(len(p) for p in probas):
            return [np.asarray(p, dtype=np.float64).copy() for p in probas]
        known = [np.isfinite(p).all(axis=1) for p in probas]
        move, begin = self._chain()
        longest = max(len(p) for p in probas)
        # Past its end a recording carries no evidence, which changes nothing before it.
        evidence = np.ones((longest, len(probas), len(begin)))
        for i, (p, k) in enumerate(zip(probas, known)):
            evidence[: len(p), i] = self._evidence(p, k)
        forward = np.empty_like(evidence)
        scale = np.empty((longest, len(probas), 1))
        state = begin * evidence[0]
        for i in range(longest):
            if i:
                state = (state @ move) * evidence[i]
            scale[i] = state.sum(axis=1, keepdims=True)
            state = state / scale[i]
            forward[i] = state
        back = np.ones(evidence.shape[1:])
        for i in range(longest - 1, -1, -1):
            now = evidence[i] * back / scale[i]
            forward[i] *= back
            back = now @ move.T
        out = []
        for i, (p, k) in enumerate(zip(probas, known)):
            q = forward[: len(p), i].reshape(len(p), -1, self.phases).sum(axis=2)
            q /= q.sum(axis=1, keepdims=True)
            q[~k] = np.nan
            out.append(q)
        return out

    def path(self, proba: NDArray[np.floating]) -> NDArray[np.int64]:
        """The single most probable course of stages (epoch,) (Viterbi)."""
        known = np.isfinite(proba).all(axis=1)
        evidence = np.log(self._evidence(proba, known))
        move, begin = self._chain()
        with np.errstate(divide="ignore"):
            step, score = np.log(move), np.log(begin) + evidence[0]
        came = np.zeros((len(evidence), len(begin)), dtype=np.int32)
        for i in range(1, len(evidence)):
            reach = score[:, None] + step
            came[i] = reach.argmax(axis=0)
            score = reach.max(axis=0) + evidence[i]
        state = np.empty(len(evidence), dtype=np.int64)
        state[-1] = score.argmax()
        for i in range(len(evidence) - 1, 0, -1):
            state[i - 1] = came[i, state[i]]
        return state // self.phases

    def _evidence(self, proba: NDArray[np.floating], known: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Likelihood (epoch, stage · phases) up to a factor."""
        p = np.where(known[:, None], proba, 1.0)
        e = np.maximum(p, 1e-4) ** self.power
        e[known] /= self.prior ** (self.power * self.prior_power)
        return np.repeat(e / e.max(axis=1, keepdims=True), self.phases, axis=1)

    def _chain(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Transition matrix and first probabilities over stage x phase."""
        k, d = len(self.mean), self.phases
        # A phase lasts mean / phases epochs; shorter than one epoch cannot be, so short-lived stages use what they have.
        on = np.minimum(1.0, d / self.mean)
        move = np.zeros((k * d, k * d))
        for s in range(k):
            for q in range(d):
                i = s * d + q
                move[i, i] = 1 - on[s]
                if q + 1 < d:
                    move[i, i + 1] += on[s]
                else:
                    move[i, np.arange(k) * d] += on[s] * self.leave[s]
        begin = np.repeat(self.prior / d, d)
        return move, begin

    def to_dict(self) -> dict[str, Any]:
        return {"leave": self.leave.tolist(), "mean": self.mean.tolist(), "phases": self.phases, "prior": self.prior.tolist(),
                "power": self.power, "prior_power": self.prior_power}  # fmt: skip

    @classmethod
    def from_dict(cls, d: dict[str, Any]) -> Durations:
        return cls(np.array(d["leave"]), np.array(d["mean"]), int(d["phases"]), np.array(d["prior"]), float(d["power"]), float(d["prior_power"]))
