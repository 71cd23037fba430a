"""Replaying the assignment of a randomised experiment: what the estimate would have been had the coin fallen otherwise."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.trial_table import Trials
from brainmu.errors import DesignError

__all__ = ["AssignmentScheme", "randomisation_null"]

_CHUNK = 512  # draws at a time, so that memory stays at chunk x trials


class AssignmentScheme:
    """How the trials were assigned, able to assign them again.

    Parameters
    ----------
    trials : Trials
        The whole ledger, not only the trials at risk: a block is permuted as it was randomised.
    scheme : {"bernoulli", "blocked"} or None
        None reads it off the ledger: "blocked" where every block of a size holds the same number of assigned trials, otherwise "bernoulli".

    Attributes
    ----------
    name : str
        "bernoulli" (independent coins of the logged probability), "blocked" (permuted within block),
        "permuted" (Bernoulli without a logged probability: permuted within animal, the numbers kept).
    """

    def __init__(self, trials: Trials, scheme: str | None) -> None:
        self.trials = trials
        if scheme == "blocked" and (trials.block < 0).any():
            raise DesignError("scheme 'blocked' needs a column 'block' in the trial table: add it, or use scheme='bernoulli'")
        if scheme is None:
            scheme = "blocked" if _looks_blocked(trials) else "bernoulli"
        if scheme == "bernoulli" and not np.isfinite(trials.probability).all():
            scheme = "permuted"
        self.name = scheme
        group = trials.block if scheme == "blocked" else trials.animal
        self._groups: list[tuple[NDArray[np.intp], NDArray[np.int64]]] = [] if scheme == "bernoulli" else _groups_by_size(group, trials.assigned)

    def draw(self, n: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Assignments (n, trials), each as likely as the one that was made."""
        t = self.trials
        if self.name == "bernoulli":
            return rng.random((n, len(t)), dtype=np.float32) < t.probability.astype(np.float32)
        out = np.zeros((n, len(t)), dtype=bool)
        for rows, n_assigned in self._groups:
            keys = rng.random((n, *rows.shape), dtype=np.float32)
            rank = keys.argsort(axis=-1).argsort(axis=-1)
            out[:, rows] = rank < n_assigned[:, None]
        return out


def _looks_blocked(trials: Trials) -> bool:
    if (trials.block < 0).any():
        return False
    _, block = np.unique(trials.block, return_inverse=True)
    size, share = np.bincount(block), np.bincount(block, trials.assigned)
    if size.max() < 2 or len(size) == len(trials):
        return False
    fixed = [len(set(share[size == s])) == 1 for s in np.unique(size) if (size == s).sum() > 1 and s > 1]
    # A single block, or blocks cut short at the end of a session, cannot contradict it; one full size with unequal shares does.
    return bool(fixed) and all(fixed)


def _groups_by_size(group: NDArray[np.int64], assigned: NDArray[np.bool_]) -> list[tuple[NDArray[np.intp], NDArray[np.int64]]]:
    """Rows of the groups of each size, (groups, size), and how many of each are assigned."""
    order = np.argsort(group, kind="stable")
    _, first, size = np.unique(group[order], return_index=True, return_counts=True)
    out = []
    for s in np.unique(size):
        rows = order[first[size == s][:, None] + np.arange(s)]
        out.append((rows, assigned[rows].sum(1)))
    return out


def randomisation_null(
    scheme: AssignmentScheme, y: NDArray[np.float64], analysed: NDArray[np.bool_], weights: NDArray[np.float64], *, draws: int, seed: int,
    progress: Callable[[str, float], None] | None = None,
) -> NDArray[np.float64]:  # fmt: skip
    """Risk differences (draws,) under the sharp null that no trial's outcome depends on its assignment.

    Parameters
    ----------
    y : float64 (analysed trials,)
    analysed : bool (trials,)
        Rows of the ledger that enter the estimate.
    weights : float64 (animals,)
        What each animal counts for.
    """
    t = scheme.trials
    rng = np.random.default_rng(seed)
    p, animal = inverse_probability(t)[analysed], t.animal[analysed]
    edges = np.r_[np.flatnonzero(np.r_[True, np.diff(animal) != 0]), len(animal)]
    # Four sums an animal give both arms' weighted risks: assigned outcomes and weights, and the same for everyone.
    columns = np.c_[y / p, 1 / p, y / (1 - p), 1 / (1 - p)]
    total = np.add.reduceat(columns, edges[:-1], axis=0)
    u = weights[animal[edges[:-1]]]
    out = np.empty(draws)
    for i in range(0, draws, _CHUNK):
        n = min(_CHUNK, draws - i)
        a = scheme.draw(n, rng)[:, analysed].astype(np.float64)
        s = np.stack([a[:, lo:hi] @ columns[lo:hi] for lo, hi in itertools.pairwise(edges)], axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            rd = s[..., 0] / s[..., 1] - (total[:, 2] - s[..., 2]) / (total[:, 3] - s[..., 3])
        ok = (s[..., 1] > 1e-9) & (total[:, 3] - s[..., 3] > 1e-9)
        w = u * ok
        out[i : i + n] = (np.where(ok, rd, 0.0) * w).sum(1) / np.maximum(w.sum(1), 1e-12)
        if progress is not None:
            progress("randomisation test", (i + n) / draws)
    return out


def inverse_probability(trials: Trials) -> NDArray[np.float64]:
    """Probability that each trial is weighted by: as logged; a constant where none was."""
    return np.where(np.isfinite(trials.probability), trials.probability, 0.5)
