"""The classical stager: boosted trees on spectral and complexity features with their surround, then how long stages last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.errors import InputError, MissingDataError
from brainmu.sleep.decoding import Decoding
from brainmu.sleep.durations import Durations
from brainmu.sleep.features import Table, add_context, context_reach
from brainmu.sleep.trees import Trees

__all__ = ["BoostedStager"]

_WHOLE_NIGHT = 4 * 3600.0  # s
_ROWS = 4096


@dataclass
class BoostedStager:
    """Boosted trees with temporal context.

    Parameters
    ----------
    stages : {"aasm5", "rodent3"}
    epoch : float, s
    causal : bool
        Use nothing after the epoch (no centred means, no later neighbours, no decoding over the night).
    duration : bool
        Decode with the transitions and durations of the training hypnograms.
    seed : int
    anchored : bool
        Columns on the recording's own scale are measured from the middle between their 5th and 95th percentile rather than from their median, which moves
        with how much an animal slept. :meth:`fit` decides: rodents, whose recordings hold an hour of sleep or of running.
    running : bool
        Fitted on tables whose scale is that of the past (and is measured so already); :meth:`fit` takes it from the tables.
    """

    stages: str
    epoch: float
    n_stages: int
    causal: bool = False
    duration: bool = True
    seed: int = 0
    rounds: int = 150
    anchored: bool = False
    running: bool = False
    names: list[str] = field(default_factory=list)
    trees: Trees | None = None
    decoding: Decoding = field(default_factory=Decoding)

    def fit(
        self, tables: list[Table], codes: list[NDArray[np.integer]], groups: list[str], progress: Callable[[str, float], None] | None = None, *,
        tune: bool = True,
    ) -> BoostedStager:  # fmt: skip
        """Fit to tables of features and codes an epoch (negative ones are left out); groups name the subjects.

        Without `tune` the trees are left as they are, undecoded: for whoever decides on held-out subjects itself.
        """
        self.names = list(dict.fromkeys(n for t in tables for n in t.names))
        self.running = any(t.running for t in tables)
        self.anchored = self.stages == "rodent3" and not self.running
        x = [self._with_context(t) for t in tables]
        missing = [self._variants(t) for t in tables]
        known = [(c >= 0) & ~t.empty for c, t in zip(codes, tables)]
        total = sum(int(k.sum()) for k in known)
        if total < 20:
            raise MissingDataError(f"{total} labelled epochs with data, expected at least 20 to fit a stager: check the labels' name and times")
        if len({int(v) for c, k in zip(codes, known) for v in np.unique(c[k])}) < 2:
            raise MissingDataError("all labelled epochs are of one stage, expected at least two: give recordings with other stages")
        self.decoding = self._tuned(x, missing, codes, known, groups, progress) if tune else Decoding()
        self.trees = self._grow(x, missing, codes, known, range(len(x)))
        if progress is not None:
            progress("trees", 1.0)
        return self

    def predict_proba(self, table: Table) -> NDArray[np.float64]:
        """Probability (epoch, stage); NaN where nothing is known of an epoch."""
        return self.decode(self.evidence(table))

    def evidence(self, table: Table) -> NDArray[np.float64]:
        """What the trees say of each epoch (epoch, stage), before decoding; NaN where nothing is known."""
        if self.trees is None:
            raise InputError("the stager is not fitted: call fit first")
        x, n = self._arranged(table), len(table.values)
        night = self._night(n)
        p = np.empty((n, self.n_stages))
        # The surround is several times what it surrounds: a day of 4-s epochs is walked in parts.
        for i in range(0, n, _ROWS):
            p[i : i + _ROWS] = self.trees.predict_proba(self._surrounded(x, night, i, min(i + _ROWS, n)))
        p[table.empty] = np.nan
        return p

    def decode(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """Evidence (epoch, stage) with how stages follow each other and last, and the confidence of held-out subjects."""
        return self.decoding(p)

    # -- parts ------------------------------------------------------------------------------------------------------
    def _arranged(self, table: Table) -> NDArray[np.float64]:
        """The columns of the fitted names, in their order; NaN where the recording lacks one."""
        at = {n: i for i, n in enumerate(table.names)}
        if not set(at) & set(self.names):
            raise MissingDataError(f"the recording offers {_kinds(table.names)}, the stager was fitted on {_kinds(self.names)}: it cannot stage this recording")
        x = np.full((len(table.values), len(self.names)), np.nan)
        for j, n in enumerate(self.names):
            if n in at:
                x[:, j] = table.values[:, at[n]]
        if self.anchored:
            own = ~self._absolute()
            x[:, own] = _between_ends(x[:, own])
        return x

    def features(self, table: Table) -> NDArray[np.float64]:
        """The fitted columns (epoch, feature) without their surround, and the place in a whole night of people; NaN where the recording lacks one."""
        x = self._arranged(table)
        return np.concatenate([x, self._night(len(x))], axis=1)

    def kinds(self) -> NDArray[np.str_]:
        """The kind of channel that each column of :meth:`features` comes from; "" for the place in the night."""
        return np.array([_kind(n) for n in self.names] + [""] * self._night(1).shape[1])

    def _with_context(self, table: Table) -> NDArray[np.float64]:
        """Every column, then the surround of those on the recording's own scale (absolute ones say enough once)."""
        x = self._arranged(table)
        return self._surrounded(x, self._night(len(x)), 0, len(x))

    def _surrounded(self, x: NDArray[np.float64], night: NDArray[np.float64], start: int, stop: int) -> NDArray[np.float64]:
        """Rows `start` to `stop` of :meth:`_with_context`."""
        absolute, reach = self._absolute(), context_reach(self.epoch, self.stages)
        first = max(0, start - reach)
        around = add_context(x[first : stop + reach, ~absolute], self.epoch, self.stages, causal=self.causal)
        return np.concatenate([x[start:stop, absolute], around[start - first : stop - first], night[start:stop]], axis=1)

    def _night(self, n: int) -> NDArray[np.float64]:
        """Hours since the start and share of the night, of people's whole nights only: a short excerpt does not know its place in the night,
        and a rodent's time of day would stand in for its sleep."""
        if self.stages != "aasm5":
            return np.empty((n, 0))
        hours = (np.arange(n) + 0.5) * self.epoch / 3600
        whole = n * self.epoch >= _WHOLE_NIGHT
        share = hours / (n * self.epoch / 3600)
        return np.stack([hours if whole else hours * np.nan, share if whole and not self.causal else hours * np.nan], axis=1)

    def _absolute(self) -> NDArray[np.bool_]:
        return np.array([n.startswith("raw ") for n in self.names])

    def _variants(self, table: Table) -> list[NDArray[np.bool_]]:
        """Columns to blank in turn, so that the trees learn to do without a kind of channel: one mask a kind where there are several."""
        kind = np.array([_kind(n) for n in self.names])
        here = sorted({_kind(n) for n, ok in zip(table.names, np.isfinite(table.values).any(axis=0)) if ok})
        absolute = self._absolute()
        copies = add_context(np.zeros((1, 1)), self.epoch, self.stages, causal=self.causal).shape[1]
        night = np.zeros(self._night(1).shape[1], dtype=bool)
        return [np.concatenate([(kind == k)[absolute], np.tile((kind == k)[~absolute], copies), night]) for k in here] if len(here) > 1 else []

    def _grow(
        self, x: list[NDArray[np.float64]], missing: list[list[NDArray[np.bool_]]], codes: list[NDArray[np.integer]], known: list[NDArray[np.bool_]],
        which: Any, rounds: int | None = None,
    ) -> Trees:  # fmt: skip
        rng = np.random.default_rng(self.seed)
        rows, classes = [], []
        for i in which:
            rows.append(x[i][known[i]])
            classes.append(codes[i][known[i]])
            for mask in missing[i]:
                some = np.flatnonzero(known[i] & (rng.random(len(known[i])) < 0.25))
                part = x[i][some].copy()
                part[:, mask] = np.nan
                rows.append(part)
                classes.append(codes[i][some])
        x_all, y_all = np.concatenate(rows), np.concatenate(classes)
        # Few rows support few trees; more of them only memorise.
        enough = int(np.clip(len(y_all) // 20, 30, rounds or self.rounds))
        return Trees.fit(x_all, y_all, self.n_stages, rounds=enough, seed=self.seed)

    def _tuned(
        self, x: list[NDArray[np.float64]], missing: list[list[NDArray[np.bool_]]], codes: list[NDArray[np.integer]], known: list[NDArray[np.bool_]],
        groups: list[str], progress: Callable[[str, float], None] | None,
    ) -> Decoding:  # fmt: skip
        """What held-out subjects say of the trees' probabilities; with too few of them to choose by, mild durations and nothing else."""
        decode = self.duration and not self.causal
        held_out = self._held_out(x, missing, codes, known, groups, progress)
        if held_out is None:
            return Decoding(Durations.fit(codes, self.n_stages, phases=2) if decode else None)
        return Decoding.fit(codes, held_out, known, groups, self.n_stages, decode)

    def _held_out(
        self, x: list[NDArray[np.float64]], missing: list[list[NDArray[np.bool_]]], codes: list[NDArray[np.integer]], known: list[NDArray[np.bool_]],
        groups: list[str], progress: Callable[[str, float], None] | None,
    ) -> dict[int, NDArray[np.float64]] | None:  # fmt: skip
        """Probabilities of each recording by trees that never saw its subject; None with fewer than three subjects."""
        names = sorted(set(groups))
        if len(names) < 3:
            return None
        folds = min(3, len(names))
        out: dict[int, NDArray[np.float64]] = {}
        for k in range(folds):
            test = [i for i, g in enumerate(groups) if names.index(g) % folds == k]
            train = [i for i in range(len(groups)) if i not in test]
            if len(np.unique(np.concatenate([codes[i][known[i]] for i in train]))) < 2:
                return None
            trees = self._grow(x, missing, codes, known, train, rounds=max(30, self.rounds // 3))
            for i in test:
                out[i] = trees.predict_proba(x[i])
                out[i][~np.isfinite(x[i]).any(axis=1)] = np.nan
            if progress is not None:
                progress("trees on held-out subjects", (k + 1) / (folds + 1))
        return out

    # -- storing ----------------------------------------------------------------------------------------------------
    def to_parts(self) -> tuple[dict[str, Any], dict[str, NDArray]]:
        """Settings (for YAML) and arrays (for NPZ)."""
        assert self.trees is not None
        settings = {"stages": self.stages, "epoch": self.epoch, "n_stages": self.n_stages, "causal": self.causal, "duration": self.duration, "seed": self.seed,
                    "rounds": self.rounds, "anchored": self.anchored, "running": self.running, "names": self.names, **self.decoding.to_dict()}  # fmt: skip
        return settings, self.trees.to_arrays("trees_")

    @classmethod
    def from_parts(cls, settings: dict[str, Any], arrays: dict[str, NDArray]) -> BoostedStager:
        s = dict(settings)
        decoding = Decoding.from_dict({k: s.pop(k) for k in ("durations", "temperature", "offset") if k in s})
        return cls(**s, trees=Trees.from_arrays(arrays, "trees_"), decoding=decoding)


def _between_ends(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Columns from -0.5 at their 5th percentile to 0.5 at their 95th; NaN stays, a column that does not vary is 0."""
    here = np.isfinite(x).any(axis=0)
    out = np.full_like(x, np.nan)
    if not here.any():
        return out
    low, high = np.nanpercentile(x[:, here], [5, 95], axis=0)
    out[:, here] = (x[:, here] - 0.5 * (low + high)) / np.where(high - low > 1e-9, high - low, 1.0)
    return out


def _kind(name: str) -> str:
    """eeg, eog, emg, spikes or features: the kind of channel that a column comes from."""
    return name.removeprefix("raw ").split(":")[0]


def _kinds(names: list[str]) -> str:
    kinds = list(dict.fromkeys(_kind(n) for n in names))
    return ", ".join(kinds) if kinds != ["features"] else f"features ({', '.join(n.split(':', 1)[1] for n in names[:4])}, …)"
