"""Agreement between scorers, and of a model with them: pair by pair, with intervals over subjects."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from brainmu.core.hypnogram import Hypnogram
from brainmu.core.metrics import accuracy, bootstrap_interval, cohen_kappa, confusion, f1_by_class, fraction_bias
from brainmu.errors import InputError
from brainmu.sleep.agreement import aligned

__all__ = ["between_scorers"]


def between_scorers(scorings: Mapping[str, Mapping[str, Hypnogram]], *, model: str | None = None, draws: int = 1000, seed: int = 0) -> pd.DataFrame:
    """Agreement of every pair of scorers, one row a pair.

    Parameters
    ----------
    scorings : mapping of subject to mapping of scorer to Hypnogram
        Scorers may lack subjects; a pair is compared on those that both scored.
    model : str or None
        Name of the scorer that is a model: its agreement with people is then set against theirs among themselves.
    draws : int
        Bootstrap draws over subjects.
    seed : int

    Returns
    -------
    DataFrame
        ``kind`` (scorers, model, or the difference), a, b, n_subjects, n (epochs), kappa (mean over subjects), low, high (95 %, subjects resampled; NaN with
        one subject), accuracy, ``f1_<stage>`` (pooled) and ``bias_<stage>_pct`` (share in `a` less share in `b`). With `model` two rows more: "all scorers",
        and "model minus scorers", the mean kappa of the model with people less that of people with each other, paired by subject (n_subjects: those with
        at least two people and the model). A lower limit above 0 says that the model agrees with people more than they do among themselves.

    Raises
    ------
    InputError
        With fewer than two scorers on any subject, stage sets that mix within a pair of stages, or a model that scored nothing.
    """
    if model is not None and not any(model in s for s in scorings.values()):
        names = sorted({k for s in scorings.values() for k in s})
        raise InputError(f"the model {model!r} is not among the scorers {', '.join(names)}")
    matrices, stages = _matrices(scorings)
    if not matrices:
        raise InputError(f"no subject of {len(scorings)} was scored by two in common epochs: give at least two hypnograms of a subject")
    rows = []
    for (a, b), by_subject in matrices.items():
        kind = "model" if model in (a, b) else "scorers"
        rows.append({"kind": kind, "a": a, "b": b} | _pair(by_subject, stages, draws, seed))
    if model is not None:
        rows += _against_people(matrices, model, draws, seed)
    return pd.DataFrame(rows)


def _matrices(scorings: Mapping[str, Mapping[str, Hypnogram]]) -> tuple[dict[tuple[str, str], dict[str, Any]], tuple[str, ...]]:
    """Confusion (b in rows, a in columns) of each pair by subject, and the stages of all."""
    sets = {h.stage_set for s in scorings.values() for h in s.values()}
    found: dict[tuple[str, str], dict[str, Any]] = {}
    stages: tuple[str, ...] = ()
    for subject, by_scorer in scorings.items():
        for a, b in combinations(sorted(by_scorer), 2):
            one, two = by_scorer[a], by_scorer[b]
            if len(sets) > 1:  # one table needs one set of stages
                one, two = one.as_rodent3(), two.as_rodent3()
            h, _, r = aligned(one, two)
            m = confusion(r, h.codes, len(h.stages))
            stages = h.stages
            if m.sum():
                found.setdefault((a, b), {})[subject] = m
    return found, stages


def _pair(by_subject: dict[str, Any], stages: tuple[str, ...], draws: int, seed: int) -> dict[str, Any]:
    kappas = [k for m in by_subject.values() if np.isfinite(k := cohen_kappa(m))]
    low, high = bootstrap_interval(kappas, lambda v: float(np.mean(v)), draws=draws, seed=seed)
    m = np.sum(list(by_subject.values()), axis=0)
    row = {"n_subjects": len(by_subject), "n": int(m.sum()), "kappa": float(np.mean(kappas)) if kappas else float("nan"), "low": low, "high": high,
           "accuracy": accuracy(m)}  # fmt: skip
    row |= {f"f1_{s}": float(v) for s, v in zip(stages, f1_by_class(m))}
    return row | {f"bias_{s}_pct": 100 * float(v) for s, v in zip(stages, fraction_bias(m))}


def _against_people(matrices: dict[tuple[str, str], dict[str, Any]], model: str, draws: int, seed: int) -> list[dict[str, Any]]:
    """Mean kappa of people with each other, and how far the model's with them lies above it, by subject."""
    people: dict[str, list[float]] = {}
    its: dict[str, list[float]] = {}
    for pair, by_subject in matrices.items():
        for subject, m in by_subject.items():
            if np.isfinite(kappa := cohen_kappa(m)):
                (its if model in pair else people).setdefault(subject, []).append(kappa)
    both = sorted(set(people) & set(its))
    rows = []
    for kind, values in (
        ("all scorers", [float(np.mean(v)) for v in people.values()]),
        ("model minus scorers", [float(np.mean(its[s]) - np.mean(people[s])) for s in both]),
    ):
        low, high = bootstrap_interval(values, lambda v: float(np.mean(v)), draws=draws, seed=seed)
        mean = float(np.mean(values)) if values else float("nan")
        rows.append({"kind": kind, "a": "" if kind == "all scorers" else model, "b": "", "n_subjects": len(values), "kappa": mean, "low": low, "high": high})
    return rows
