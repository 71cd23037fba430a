"""Inputs compared by what a linear read-out makes of them: every fold, share of the labels and seed, a control, and one table at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.core.metrics import f1_by_class
from brainmu.sleep.probe_inputs import Input
from brainmu.sleep.readout import USUAL, Fold, ReadOut, Scoring, draw_labels, interval, kappa_of, shuffled

__all__ = ["INPUTS", "SHARES", "ProbeResult", "compare_inputs"]

SHARES = (0.01, 0.05, 0.25, 1.0)
"""Shares of the labels that are tried."""
FEW, LEAST = 8, 5
"""Subjects below which a percentile bootstrap covers clearly less than it says."""
INPUTS = ("classical", "untrained", "pretrained")


@dataclass
class ProbeResult:
    """How well sleep stages can be read from an encoder with few labels.

    Attributes
    ----------
    rows : DataFrame
        One row a share of the labels and an input: ``share`` (NaN in the control), ``control`` (labels shuffled), ``minutes`` of labels, ``input``, ``kappa``
        with ``low`` and ``high``, ``accuracy``, ``macro_f1``, and ``gain`` (kappa of the pretrained encoder minus that of this input, paired) with
        ``gain_low`` and ``gain_high``. Kappa, accuracy and F1 are means over subjects and seeds; intervals are 95 %.
    subjects : DataFrame
        Kappa of every subject (mean over seeds), by share and input.
    split : {"subject", "time"}
    stages : tuple of str
    n_epochs, n_subjects, n_recordings, n_folds, n_seeds, n_groups : int
    without : tuple of str
        Kinds removed from what is tested.
    chance : float
        Accuracy of naming the commonest stage throughout; kappa of that is 0.
    notes : list of str
    seconds : float
    """

    rows: pd.DataFrame
    subjects: pd.DataFrame
    split: str
    stages: tuple[str, ...]
    n_epochs: int
    n_subjects: int
    n_recordings: int
    n_folds: int
    n_seeds: int
    without: tuple[str, ...]
    chance: float
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    n_groups: int = 0

    def to_frame(self) -> pd.DataFrame:
        """`rows`, a copy."""
        return self.rows.copy()

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values, for JSON."""
        own = {k: getattr(self, k) for k in ("split", "n_epochs", "n_subjects", "n_recordings", "n_folds", "n_seeds", "n_groups", "seconds")}
        lists = {"stages": list(self.stages), "without": list(self.without), "notes": list(self.notes)}
        chance = {"kappa": 0.0, "commonest_stage": self.chance}
        return own | lists | {"chance": chance, "rows": self.rows.to_dict("records"), "subjects": self.subjects.to_dict("records")}

    def __str__(self) -> str:
        what = "new subjects" if self.split == "subject" else "other times of the same subjects, which says nothing of new animals"
        left_out = f", without {', '.join(self.without)} in what is tested" if self.without else ""
        count = f"{self.n_subjects} subject{'s' * (self.n_subjects != 1)}, {self.n_recordings} recording{'s' * (self.n_recordings != 1)}"
        lines = [
            f"linear read-out of {'/'.join(self.stages)}, tested on {what}{left_out}",
            f"  n = {self.n_epochs} epochs, {count}; {self.n_folds} folds, {self.n_seeds} seeds; {self.seconds:.0f} s",
            f"  chance: kappa 0; accuracy of naming the commonest stage {self.chance:.3f}",
            "",
            f"  {'labels':<20}" + "".join(f"{x:<23}" for x in INPUTS) + "".join(f"pretrained - {x:<15}" for x in INPUTS[:2]).rstrip(),
        ]  # fmt: skip
        for _, part in self.rows.groupby(["control", "share"], sort=False, dropna=False):
            by = part.set_index("input")
            share = "shuffled" if by["control"].all() else f"{100 * by['share'].iloc[0]:.3g} %"
            name = f"{share} ({by['minutes'].iloc[0]:.0f} min)"
            kappas = "".join(f"{_cell(by.loc[x], 'kappa', 'low', 'high', '.3f'):<23}" for x in INPUTS)
            gains = "".join(f"{_cell(by.loc[x], 'gain', 'gain_low', 'gain_high', '+.3f'):<28}" for x in INPUTS[:2])
            lines.append(f"  {name:<20}{kappas}{gains}".rstrip())
        lines += ["", *(f"  {sentence}" for sentence in self.verdict()), *(f"  note: {n}" for n in self.notes)]
        return "\n".join(lines)

    def verdict(self) -> list[str]:
        """Where the pretrained encoder is ahead of each other input, where behind, where the interval cannot tell: a sentence each."""
        if self.split == "subject" and self.n_groups < LEAST:
            of = "subjects" if self.n_groups == self.n_subjects else "groups of subjects"
            return [f"{self.n_groups} {of} are too few to say whether pretrained is ahead or behind"]
        out = []
        for name in INPUTS[:2]:
            rows = self.rows[(self.rows["input"] == name) & ~self.rows["control"]]
            by: dict[str, list[str]] = {"ahead of": [], "behind": [], "not told from": []}
            for _, r in rows.iterrows():
                by["ahead of" if r["gain_low"] > 0 else "behind" if r["gain_high"] < 0 else "not told from"].append(f"{100 * r['share']:.3g}")
            out.append("pretrained is " + "; ".join(f"{how} {name} at {', '.join(at)} %" for how, at in by.items() if at))
        return out


def _cell(row: pd.Series, value: str, low: str, high: str, form: str) -> str:
    if not np.isfinite(row[low]):
        return f"{row[value]:{form}}"
    return f"{row[value]:{form}} [{row[low]:{form}}, {row[high]:{form}}]"


def compare_inputs(
    data: Sequence[Scoring], parts: Sequence[Fold], inputs: Callable[[int], Mapping[str, Input]], *, stages: Sequence[str], epochs: Sequence[float],
    shares: Sequence[float] = SHARES, seeds: int = 5, seed: int = 0, split: str = "subject", progress: Callable[[str, float], None] | None = None,
) -> ProbeResult:  # fmt: skip
    """Fit a read-out for every fold, input, share of the labels and seed, and a control; all inputs are given the same labels.

    Parameters
    ----------
    data : labels of each recording
    parts : folds
    inputs : callable(fold number) -> mapping
        Inputs of that fold: "classical", "pretrained", and "untrained 0" … of as many seeds.
    stages : names of the codes
    epochs : float, s
        Length of an epoch of each recording.
    shares, seeds, seed, split, progress
        As :func:`brainmu.sleep.probing.probe`.
    """
    began = time.perf_counter()
    runner = _Runner(list(data), list(epochs), tuple(stages), list(parts), shares, seeds, seed, split)
    for k in range(len(runner.parts)):
        runner.run(k, inputs(k))
        if progress is not None:
            progress("read-out", (k + 1) / len(runner.parts))
    return runner.result(time.perf_counter() - began)


class _Runner:
    """Fits the read-outs of every fold and keeps confusion tables by input, share and subject: (seed, cluster, K, K).

    The clusters of a subject are what is drawn anew within it: stretches of time in a split by time, itself as one otherwise.
    """

    CONTROL = -1.0
    """Stands for the share of the control, whose labels are shuffled."""
    MOST = 4000
    """Epochs that the control is trained on."""

    def __init__(
        self, data: list[Scoring], epochs: list[float], stages: tuple[str, ...], parts: list[Fold], shares: Sequence[float], seeds: int, seed: int, split: str
    ) -> None:  # fmt: skip
        self.data, self.epochs, self.stages, self.parts, self.split = data, epochs, stages, parts, split
        self.shares, self.seeds, self.seed = [float(s) for s in dict.fromkeys(shares)], seeds, seed
        self.subjects = sorted({d.subject for d in data})
        named = {d.subject: d.group for d in data}
        self.groups = np.unique([named[s] for s in self.subjects], return_inverse=True)[1].astype(np.int64)
        starts = np.cumsum([0, *(len(d.codes) // d.stretch + 1 for d in data)])
        self.stretch = [a + np.arange(len(d.codes)) // d.stretch for a, d in zip(starts, data)]
        self.cluster = self._clusters() if split == "time" else [np.zeros(len(d.codes), dtype=np.int64) for d in data]
        sizes = [1 + max(int(c.max()) for c, d in zip(self.cluster, data) if d.subject == s) for s in self.subjects]
        every, k = [*self.shares, self.CONTROL], len(stages)
        # One shuffle says little: a read-out of a fold is right or wrong on all its subjects together.
        self.shuffles = int(np.ceil(10 / seeds))
        rows = {s: seeds * (self.shuffles if s == self.CONTROL else 1) for s in every}
        self.tables = {(i, s): [np.zeros((rows[s], size, k, k), dtype=np.int64) for size in sizes] for i in INPUTS for s in every}
        self.minutes: dict[float, list[float]] = {s: [] for s in every}

    def _clusters(self) -> list[NDArray[np.int64]]:
        """The stretch of each epoch, counted within its subject."""
        out = []
        for d, own in zip(self.data, self.stretch):
            theirs = np.unique(np.concatenate([k for other, k in zip(self.data, self.stretch) if other.subject == d.subject]))
            out.append(np.searchsorted(theirs, own))
        return out

    def run(self, k: int, inputs: dict[str, Input]) -> None:
        """Train and test fold `k` with every input, share and seed; inputs are "classical", "pretrained" and "untrained <seed>"."""
        fold = self.parts[k]
        # One generator a seed and fold: a smaller share's labels are among those of a larger one, and every input gets the same.
        draws = [{s: draw_labels(self.data, fold.train, s, np.random.default_rng([self.seed, i, k])) for s in self.shares} for i in range(self.seeds)]
        for i in range(self.seeds):
            draws[i][self.CONTROL] = draws[i][max(self.shares)]
            for share, masks in draws[i].items():
                self.minutes[share].append(sum(m.sum() * e for m, e in zip(masks, self.epochs)) / 60)
        for name, x in inputs.items():
            kind, _, own = name.partition(" ")
            train, test = _scaled(x, fold)
            whole = None
            for i in [int(own)] if own else range(self.seeds):
                for share in self.shares:
                    # All labels are the same labels for every seed.
                    found = whole if share == 1 and whole else self._read(train, test, fold, draws[i][share])
                    whole = found if share == 1 else whole
                    self._count(kind, share, i, fold, found)
                for j in range(i * self.shuffles, (i + 1) * self.shuffles):
                    found = self._read(train, test, fold, draws[i][self.CONTROL], np.random.default_rng([self.seed, j, k, 1]))
                    self._count(kind, self.CONTROL, j, fold, found)

    def _read(
        self, train: list[NDArray[Any]], test: list[NDArray[Any]], fold: Fold, masks: list[NDArray[np.bool_]], control: np.random.Generator | None = None
    ) -> list[NDArray[np.int8]]:  # fmt: skip
        """Stages of the tested, scored epochs of each recording."""
        x = np.concatenate([v[m] for v, m in zip(train, masks)])
        y = np.concatenate([d.codes[m] for d, m in zip(self.data, masks)])
        if control is not None:
            y, every = shuffled(y, max(d.stretch for d in self.data), control), len(y) // self.MOST + 1
            model = ReadOut(USUAL).fit(x[::every], y[::every])
        else:
            subject = np.concatenate([np.full(m.sum(), self.subjects.index(d.subject)) for d, m in zip(self.data, masks)])
            model = ReadOut().fit(x, y, subject, np.concatenate([c[m] for c, m in zip(self.stretch, masks)]))
        return [model.predict(v[ok]) if (ok := m & (d.codes >= 0)).any() else d.codes[:0] for d, v, m in zip(self.data, test, fold.test)]

    def _count(self, kind: str, share: float, seed: int, fold: Fold, found: list[NDArray[np.int8]]) -> None:
        for d, cluster, mask, codes in zip(self.data, self.cluster, fold.test, found):
            ok = mask & (d.codes >= 0)
            np.add.at(self.tables[kind, share][self.subjects.index(d.subject)], (seed, cluster[ok], d.codes[ok], codes), 1)

    # -- what came out ------------------------------------------------------------------------------------------------
    def result(self, seconds: float) -> ProbeResult:
        """Means, intervals and paired differences over subjects and seeds."""
        rows = [self._row(name, share) for share in [*self.shares, self.CONTROL] for name in INPUTS]
        apart = len(set(self.groups.tolist()))
        what = f"{apart} subjects" if apart == len(self.subjects) else f"{len(self.subjects)} subjects in {apart} groups"
        notes = [f"{what}: intervals over so few are too narrow"] if self.split == "subject" and apart < FEW else []
        one = [s for s, t in zip(self.subjects, self.tables["classical", self.CONTROL]) if (t[0].sum(0).sum(-1) > 0).sum() == 1]
        notes += [f"{', '.join(one)}: one stage only in what is tested, so no kappa: left out of the means"] if one else []
        pooled = np.sum([t.sum(1)[0] for t in self.tables["classical", self.CONTROL]], axis=0)
        subjects = [
            {"share": share, "input": name, "subject": s, "n": int(t[0].sum()), "kappa": _mean(kappa_of(t.sum(1)))}
            for share in self.shares for name in INPUTS for s, t in zip(self.subjects, self.tables[name, share])
        ]  # fmt: skip
        return ProbeResult(
            pd.DataFrame(rows), pd.DataFrame(subjects), self.split, self.stages, int(pooled.sum()), len(self.subjects), len(self.data), len(self.parts),
            self.seeds, (), float(pooled.sum(1).max() / pooled.sum()), notes, seconds, apart,
        )  # fmt: skip

    def _row(self, name: str, share: float) -> dict[str, Any]:
        within, tables = self.split == "time", self.tables[name, share]
        kappa, low, high = interval(tables, None, self.groups, within=within)
        gain = interval(self.tables["pretrained", share], tables, self.groups, within=within) if name != "pretrained" else (float("nan"),) * 3
        by_seed = [m for t in tables for m in t.sum(1)]
        return {
            "share": float("nan") if share == self.CONTROL else share, "control": share == self.CONTROL, "minutes": float(np.mean(self.minutes[share])),
            "input": name, "kappa": kappa, "low": low, "high": high, "accuracy": _mean([np.trace(m) / m.sum() for m in by_seed]),
            "macro_f1": _mean([_mean(f1_by_class(m)) for m in by_seed]), "gain": gain[0], "gain_low": gain[1], "gain_high": gain[2],
        }  # fmt: skip


def _scaled(x: Input, fold: Fold) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """What trains and what is tested (epoch, d), each divided by the SD of the training epochs; what is missing is their mean."""
    total, square, count = 0.0, 0.0, 0.0
    for v, m in zip(x.whole, fold.train):
        ok = np.isfinite(v[m])
        known = np.where(ok, v[m], 0.0).astype(np.float64)
        total, square, count = total + known.sum(0), square + (known**2).sum(0), count + ok.sum(0)
    mean = total / np.maximum(count, 1)
    sd = np.sqrt(np.maximum(square / np.maximum(count, 1) - mean**2, 0.0))
    sd = np.where(sd > 1e-6, sd, np.inf)  # a column that does not vary says nothing

    def scale(v: NDArray[Any]) -> NDArray[Any]:
        return np.nan_to_num((v - mean) / sd, nan=0.0, posinf=0.0, neginf=0.0).astype(np.float32)

    train = [scale(v) for v in x.whole]
    return train, [t if b is w else scale(b) for t, b, w in zip(train, x.bare, x.whole)]


def _mean(values: Any) -> float:
    v = np.asarray(values, dtype=np.float64)
    return float(v[np.isfinite(v)].mean()) if np.isfinite(v).any() else float("nan")
