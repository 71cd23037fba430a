"""Boosted trees and a recurrent network over the night, weighed against each other by subjects that neither saw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.errors import InputError
from brainmu.sleep.boosting import BoostedStager
from brainmu.sleep.decoding import Decoding
from brainmu.sleep.features import Table
from brainmu.sleep.sequences import SequenceNet

__all__ = ["FEWEST_SUBJECTS", "CombinedStager", "Stack"]

FEWEST_SUBJECTS = 6
"""Below so many subjects there are too few to weigh two stagers by, and a network over whole nights memorises them."""

Progress = Callable[[str, float], None]


@dataclass
class Stack:
    """How the probabilities of several stagers become one: a softmax of their weighted logs and a bias a stage.

    Attributes
    ----------
    weight : float64 (stager,)
    bias : float64 (stage,)
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]

    @classmethod
    def fit(cls, logs: NDArray[np.float64], codes: NDArray[np.integer], strength: float = 1e-3) -> Stack:
        """The likeliest weights for log probabilities (epoch, stager, stage) of held-out subjects and their codes (epoch,).

        References
        ----------
        Wolpert 1992, Neural Networks 5:241 (stacked generalisation).
        """
        from scipy.optimize import minimize

        n, k, stages = logs.shape
        truth = np.eye(stages)[codes]

        def loss(v: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            z = np.tensordot(logs, v[:k], axes=(1, 0)) + v[k:]
            z -= z.max(axis=1, keepdims=True)
            p = np.exp(z)
            p /= p.sum(axis=1, keepdims=True)
            error = p - truth
            value = -float(np.log(np.maximum((p * truth).sum(axis=1), 1e-12)).mean())
            slope = np.r_[np.einsum("nks,ns->k", logs, error), error.sum(axis=0)] / n
            pull = np.r_[v[:k] - 1 / k, v[k:]]
            return value + 0.5 * strength * float(pull @ pull), slope + strength * pull

        bounds = [(0.0, 3.0)] * k + [(-2.0, 2.0)] * stages
        v = minimize(loss, np.r_[np.full(k, 1 / k), np.zeros(stages)], jac=True, bounds=bounds, method="L-BFGS-B").x
        return cls(v[:k], v[k:])

    def __call__(self, probas: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Probability (epoch, stage) from those of each stager; NaN where any is."""
        z = sum(w * _log(p) for w, p in zip(self.weight, probas)) + self.bias
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)


@dataclass
class CombinedStager:
    """Boosted trees (:class:`BoostedStager`) and recurrent networks (:class:`SequenceNet`) on the same features.

    The subjects are dealt into folds. For each, trees and a network are fitted to the other subjects and asked about this one; those answers set the
    weights of the two, the decoding over the night and the confidence. Kept are trees fitted to all, and the networks of all folds, averaged.

    Parameters
    ----------
    stages : {"aasm5", "rodent3"}
    epoch : float, s
    n_stages : int
    causal, duration, seed
        As of :class:`BoostedStager`.
    folds : int
        Parts that the subjects are dealt into.
    settings : dict
        Of :class:`SequenceNet`.
    """

    stages: str
    epoch: float
    n_stages: int
    causal: bool = False
    duration: bool = True
    seed: int = 0
    folds: int = 4
    settings: dict[str, Any] = field(default_factory=dict)
    boosted: BoostedStager | None = None
    nets: list[SequenceNet] = field(default_factory=list)
    stack: Stack | None = None
    decoding: Decoding = field(default_factory=Decoding)

    def fit(self, tables: list[Table], codes: list[NDArray[np.integer]], groups: list[str], progress: Progress | None = None) -> CombinedStager:
        """Fit to tables of features and codes an epoch (negative ones are left out); groups name the subjects.

        Raises
        ------
        InputError
            With fewer subjects than can be dealt into folds.
        MissingDataError
            As :meth:`BoostedStager.fit`.
        """
        names = sorted(set(groups))
        if len(names) < 3:
            raise InputError(f"method 'combined' weighs two stagers by held-out subjects and needs three or more, got {len(names)}: use method='boosting'")
        self.boosted = self._trees()
        self.boosted.fit(tables, codes, groups, tune=False)
        if progress is not None:
            progress("trees", 0.2)
        known = [(c >= 0) & ~t.empty for c, t in zip(codes, tables)]
        held = self._held_out(tables, codes, known, groups, names, progress)
        # Rows of one length: what both stagers say of every labelled epoch of subjects they never saw.
        logs = np.concatenate([np.stack([_log(p)[known[i]] for p in pair], axis=1) for i, pair in held.items()])
        self.stack = Stack.fit(logs, np.concatenate([codes[i][known[i]] for i in held]))
        mixed = {i: self._blank(self.stack(pair), tables[i]) for i, pair in held.items()}
        self.decoding = Decoding.fit(codes, mixed, known, groups, self.n_stages, self.duration and not self.causal)
        return self

    @property
    def running(self) -> bool:
        """Fitted on tables whose scale is that of the past."""
        return self.boosted is not None and self.boosted.running

    def predict_proba(self, table: Table) -> NDArray[np.float64]:
        """Probability (epoch, stage); NaN where nothing is known of an epoch."""
        return self.decode(self.evidence(table))

    def evidence(self, table: Table) -> NDArray[np.float64]:
        """What trees and networks together say of each epoch (epoch, stage), before decoding; NaN where nothing is known."""
        if self.boosted is None or self.stack is None:
            raise InputError("the stager is not fitted: call fit first")
        return self._blank(self.stack([self._by_trees(self.boosted, table), self._by_nets(self.nets, table)]), table)

    def decode(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Evidence (epoch, stage) with how stages follow each other and last, and the confidence of held-out subjects."""
        return self.decoding(p)

    # -- parts ------------------------------------------------------------------------------------------------------
    def _trees(self) -> BoostedStager:
        # Fewer trees than alone: the network has what they would refine, and they are fitted once a fold.
        return BoostedStager(self.stages, self.epoch, self.n_stages, self.causal, False, self.seed, rounds=100)

    def _held_out(
        self, tables: list[Table], codes: list[NDArray[np.integer]], known: list[NDArray[np.bool_]], groups: list[str], names: list[str],
        progress: Progress | None,
    ) -> dict[int, list[NDArray[np.float64]]]:  # fmt: skip
        """What trees and a network say of each recording that were fitted without its subject; the networks are kept."""
        assert self.boosted is not None
        dealt = np.random.default_rng([self.seed, 5]).permutation(len(names)) % min(self.folds, len(names))
        fold = {g: int(k) for g, k in zip(names, dealt)}
        x = [self.boosted.features(t) for t in tables]
        kinds = self.boosted.kinds()
        labels = [np.where(k, c, -1) for c, k in zip(codes, known)]
        held: dict[int, list[NDArray[np.float64]]] = {}
        self.nets = []
        n = max(fold.values()) + 1
        for k in range(n):
            train = [i for i, g in enumerate(groups) if fold[g] != k]
            test = [i for i, g in enumerate(groups) if fold[g] == k]
            trees = self._trees()
            trees.fit([tables[i] for i in train], [codes[i] for i in train], [groups[i] for i in train], tune=False)
            net = SequenceNet(self.n_stages, self.causal, seed=self.seed + k, **self.settings)
            told = None if progress is None else lambda f, k=k: progress("networks", 0.2 + 0.8 * (k + 0.3 + 0.7 * f) / n)
            self.nets.append(net.fit([x[i] for i in train], [labels[i] for i in train], kinds, told))
            for i in test:
                held[i] = [self._by_trees(trees, tables[i]), net.predict_proba(x[i])]
        return held

    def _by_trees(self, boosted: BoostedStager, table: Table) -> NDArray[np.float64]:
        p = boosted.evidence(table)
        # Epochs without data get what says nothing here, and are blanked when all is done.
        return np.where(np.isfinite(p), p, 1 / self.n_stages)

    def _by_nets(self, nets: list[SequenceNet], table: Table) -> NDArray[np.float64]:
        """The geometric mean of the networks (epoch, stage)."""
        assert self.boosted is not None
        x = self.boosted.features(table)
        mean = np.mean([_log(net.predict_proba(x)) for net in nets], axis=0)
        e = np.exp(mean)
        return e / e.sum(axis=1, keepdims=True)

    def _blank(self, p: NDArray[np.float64], table: Table) -> NDArray[np.float64]:
        return np.where(table.empty[:, None], np.nan, p)

    # -- storing ----------------------------------------------------------------------------------------------------
    def to_parts(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Settings (for YAML) and arrays (for NPZ)."""
        assert self.boosted is not None and self.stack is not None
        trees, arrays = self.boosted.to_parts()
        nets = []
        for i, net in enumerate(self.nets):
            settings, weights = net.to_parts()
            nets.append(settings)
            arrays |= {f"net{i}_{k}": v for k, v in weights.items()}
        return {
            "stages": self.stages, "epoch": self.epoch, "n_stages": self.n_stages, "causal": self.causal, "duration": self.duration, "seed": self.seed,
            "folds": self.folds, "settings": self.settings, "boosted": trees, "nets": nets,
            "stack": {"weight": self.stack.weight.tolist(), "bias": self.stack.bias.tolist()},
            "decoding": self.decoding.to_dict(),
        }, arrays  # fmt: skip

    @classmethod
    def from_parts(cls, settings: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> CombinedStager:
        s = dict(settings)
        boosted = BoostedStager.from_parts(s.pop("boosted"), arrays)
        nets = []
        for i, one in enumerate(s.pop("nets")):
            mark = f"net{i}_"
            nets.append(SequenceNet.from_parts(one, {k.removeprefix(mark): v for k, v in arrays.items() if k.startswith(mark)}))
        stack, decoding = s.pop("stack"), Decoding.from_dict(s.pop("decoding"))
        return cls(**s, boosted=boosted, nets=nets, stack=Stack(np.array(stack["weight"]), np.array(stack["bias"])), decoding=decoding)


def _log(p: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.log(np.maximum(p, 1e-5))
