"""Two factors allotted to whole animals, such as chronic stress and inhibition: main effects and their interaction, with the cage as the cluster."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.grid import EpochGrid, check_epoch, subjects_of
from brainmu.causal.inference import Estimate
from brainmu.causal.outcome import Outcome
from brainmu.core.effect import Effect
from brainmu.core.recording import Recording, as_list
from brainmu.errors import DesignError

__all__ = ["factorial"]


def factorial(
    sessions: Recording | Iterable[Recording], *, factors: Mapping[str, tuple[str, str]], outcome: str = "NREM->WAKE", cluster: str | None = "cage",
    labels: str | None = "scoring", draws: int = 9_999, seed: int = 0,
) -> Effect:  # fmt: skip
    """Does one factor change what another does to sleep? A 2 x 2 factorial by animal.

    Each animal counts once: the log rate of the transition (an hour at risk), or the mean of a signal over its epochs at risk. The number is the interaction:
    the first factor's effect where the second is present less where it is absent.

    Parameters
    ----------
    sessions : Recording or Session, or several
        Any number an animal.
    factors : mapping of two names to (treated, reference)
        ``{"stress": ("stressed", "control"), "virus": ("opsin", "no_opsin")}``: keys of `subject_meta` and the two values they take.
    outcome : str
        A transition ("NREM->WAKE") or "signal:NAME".
    cluster : str or None
        Key of `subject_meta` whose animals share a fate; None takes each animal as its own.
    draws : int
        Of the randomisation test, which permutes each factor as it was allotted: over clusters where all animals of each share it, else within them.

    Returns
    -------
    Effect
        Level "experimental". The interval is that of a jackknife over clusters on (clusters - 4) degrees of freedom. `diagnostics`: each factor's effect,
        the four cells, each animal's value.

    Raises
    ------
    DesignError
        If an animal lacks a factor or the cluster, a cell is empty, or there are fewer than five clusters.

    References
    ----------
    Cameron & Miller, J Human Resources 50:317 (2015), inference with few clusters.
    """
    recordings = as_list(sessions)
    subjects, notes = subjects_of(recordings)
    wanted = Outcome.parse(outcome)
    if wanted.kind == "time" or wanted.change:
        raise DesignError(f"outcome is '{wanted}': a factorial reads whole recordings, expected a transition, 'signal:NAME' or 'depth:NAME'")
    if len(factors) != 2 or any(len(v) != 2 or v[0] == v[1] for v in factors.values()):
        raise DesignError(f"factors is {dict(factors)!r}, expected two names, each with (treated, reference)")
    grids = [EpochGrid.of(r, s, wanted.transition, labels) for r, s in zip(recordings, subjects)]
    check_epoch(grids)
    names = list(dict.fromkeys(subjects))
    levels = np.array([[_level(_meta(recordings, subjects, n, f), pair, n, f) for f, pair in factors.items()] for n in names], dtype=np.float64)
    groups = names if cluster is None else [str(_meta(recordings, subjects, n, cluster)) for n in names]
    _, cage = np.unique(groups, return_inverse=True)
    n_cages, unit_of = int(cage.max()) + 1, cluster or "animal"
    _check_cells(levels, factors)
    if n_cages < 5:
        raise DesignError(f"{len(names)} animals lie in {n_cages} {unit_of}s, expected at least 5: with fewer, four cells leave no degree of freedom")
    value = np.array([_value([g for g, s in zip(grids, subjects) if s == n], wanted) for n in names])
    # Effect coding: a coefficient of the main effects is half the difference, of the product a quarter of the interaction.
    x = _design(levels)
    scale = np.array([1.0, 2.0, 2.0, 4.0])
    whole = _fit(x, value)
    left = np.array([_fit(x[cage != c], value[cage != c]) for c in range(n_cages)])
    if not np.isfinite(left).all():
        raise DesignError(f"without one {unit_of} a cell is empty, so the interval cannot be had: expected two {unit_of}s a cell or more")
    se = np.sqrt((n_cages - 1) / n_cages * ((left - whole) ** 2).sum(0))
    terms = [Estimate.t(float(s * b), float(s * e), n_cages - 4) for s, b, e in zip(scale, whole, se)]
    null = _permuted(levels, value, cage, draws, seed)
    p = float((1 + np.sum(np.abs(null) >= abs(terms[3].estimate) - 1e-12)) / (draws + 1)) if draws else float("nan")
    first, second = factors
    (on, off), (with_, without) = factors.values()
    result, log = terms[3], wanted.kind == "transition"
    unit = "log rate ratio" if log else f"units of {wanted.signal}"
    what = f"log rate of {wanted.transition}" if log else f"mean of {wanted.signal} in {wanted.transition.source}"
    shared = [f for i, f in enumerate(factors) if _by_cluster(levels[:, i], cage)]
    if n_cages < 8:
        notes.append(f"{n_cages} clusters: the interval rests on {n_cages - 4} degrees of freedom")
    sure = p < 0.05 if draws else result.p_value < 0.05
    verdict = (
        f"{first} does {result.estimate:+.2f} ({unit}) more with {with_} than with {without}" if sure
        else f"No interaction of {first} and {second} is shown; the interval admits {result.low:+.2f} to {result.high:+.2f} ({unit})"
    )  # fmt: skip
    lonely = "effects shared by a cage, " if cluster is None else ""
    verdict += f". What would overturn it: allotment that was not random, {lonely}or a scorer who knew the group."
    return Effect(
        estimand=f"How much more does {first} ({on} against {off}) change an animal's {what} where {second} is {with_} than where it is {without}, in "
        f"{len(names)} animals of {n_cages} {unit_of}s?",
        estimate=result.estimate, low=result.low, high=result.high, p_value=p if draws else result.p_value, unit=unit, level="experimental", null=null,
        n_units=n_cages, n_events=len(names),
        assumptions=[
            *(f"{f} was allotted at random to {_to_whom(cluster, f in shared)}" for f in factors),
            f"animals of different {unit_of}s do not influence each other", "the scoring did not know the group",
        ],
        diagnostics={
            "interaction": result.as_dict() | {"randomisation_p": p}, first: terms[1].as_dict(), second: terms[2].as_dict(),
            "cells": _cells(levels, value, cage, factors), "allotted_by_cluster": shared,
            "animals": [{"animal": n, "cluster": g, first: on if a > 0 else off, second: with_ if b > 0 else without, "value": float(v)}
                        for n, g, (a, b), v in zip(names, groups, levels, value)],
            "warnings": notes, "verdict": verdict,
        },
        scale="difference of differences", regime=f"{on}, {off} by {with_}, {without}", population="animals, each counting equally",
        risk_set=f"epochs scored {wanted.transition.source}", n_exposed=int(((levels > 0).all(1)).sum()),
        n_transitions=int(sum((g.at_risk[:-1] & g.target[1:]).sum() for g in grids)),
    )  # fmt: skip


def _to_whom(cluster: str | None, shared: bool) -> str:
    return "animals" if cluster is None else f"whole {cluster}s" if shared else f"animals within {cluster}s"


def _meta(recordings: Sequence[Recording], subjects: Sequence[str], name: str, key: str) -> Any:
    """What all recordings of an animal say of it."""
    said = {str(r.subject_meta.get(key, "")) for r, s in zip(recordings, subjects) if s == name}
    if said == {""}:
        raise DesignError(f"animal {name} has no {key!r} in subject_meta: set recording.subject_meta[{key!r}]" + ", or cluster=None" * (key == "cage"))
    if len(said) > 1:
        raise DesignError(f"recordings of animal {name} disagree on {key!r} ({', '.join(sorted(said))}): a factorial is by animal, expected one value")
    return said.pop()


def _level(value: str, pair: tuple[str, str], name: str, factor: str) -> float:
    if value not in pair:
        raise DesignError(f"animal {name} has {factor} {value!r}, expected {pair[0]!r} or {pair[1]!r}")
    return 1.0 if value == pair[0] else -1.0


def _check_cells(levels: NDArray[np.float64], factors: Mapping[str, tuple[str, str]]) -> None:
    for a, b in itertools.product((1.0, -1.0), repeat=2):
        if not ((levels == (a, b)).all(1)).any():
            names = [pair[0] if v > 0 else pair[1] for v, pair in zip((a, b), factors.values())]
            raise DesignError(f"no animal is both {names[0]} and {names[1]}: a factorial needs animals in all four cells")


def _value(grids: Sequence[EpochGrid], outcome: Outcome) -> float:
    """The log rate an hour of an animal, or the mean of its signal, over its epochs at risk."""
    if outcome.kind == "signal":
        from brainmu.causal.outcome import signal_after

        inside = dataclasses.replace(outcome, asleep=True)
        starts = [g.time(np.flatnonzero(g.source)) for g in grids]
        parts = [signal_after(g, inside, t, g.epoch, t) for g, t in zip(grids, starts)]
        return float(np.nanmean(np.concatenate(parts)))
    hits = sum(int((g.at_risk[:-1] & g.target[1:]).sum()) for g in grids)
    hours = sum(float(g.at_risk.sum()) * g.epoch / 3600 for g in grids)
    if not hours:
        raise DesignError(f"animal {grids[0].subject} has no epoch at risk of {outcome.transition}")
    # Half an event keeps the log of an animal without any finite, and biases the others little.
    return float(np.log((hits + 0.5) / hours))


def _design(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    a, b = levels.T
    return np.c_[np.ones(len(a)), a, b, a * b]


def _fit(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    if np.linalg.matrix_rank(x) < x.shape[1]:
        return np.full(x.shape[1], np.nan)
    return np.linalg.lstsq(x, y, rcond=None)[0]


def _by_cluster(level: NDArray[np.float64], cage: NDArray[np.int64]) -> bool:
    return all(len(set(level[cage == c])) == 1 for c in range(int(cage.max()) + 1))


def _permuted(levels: NDArray[np.float64], value: NDArray[np.float64], cage: NDArray[np.int64], draws: int, seed: int) -> NDArray[np.float64]:
    """Interactions (draws,) with both factors allotted again, of what the main effects leave."""
    rng = np.random.default_rng(seed)
    x = _design(levels)
    rest = value - x[:, :3] @ np.linalg.lstsq(x[:, :3], value, rcond=None)[0]
    n_cages = int(cage.max()) + 1
    shared = [_by_cluster(v, cage) for v in levels.T]
    first = np.array([np.flatnonzero(cage == c)[0] for c in range(n_cages)])
    out = np.empty(draws)
    for i in range(draws):
        new = np.empty_like(levels)
        for j, whole in enumerate(shared):
            if whole:
                new[:, j] = levels[first, j][rng.permutation(n_cages)][cage]
            else:
                order = np.lexsort((rng.random(len(cage)), cage))
                new[np.lexsort((np.arange(len(cage)), cage)), j] = levels[order, j]
        found = _fit(_design(new), rest)[3]
        out[i] = 4 * found if np.isfinite(found) else 0.0
    return out


def _cells(levels: NDArray[np.float64], value: NDArray[np.float64], cage: NDArray[np.int64], factors: Mapping[str, tuple[str, str]]) -> list[dict[str, Any]]:
    out = []
    for a, b in itertools.product((1.0, -1.0), repeat=2):
        mine = (levels == (a, b)).all(1)
        names = {f: pair[0] if v > 0 else pair[1] for (f, pair), v in zip(factors.items(), (a, b))}
        out.append({**names, "animals": int(mine.sum()), "clusters": len(set(cage[mine])), "mean": float(value[mine].mean())})
    return out
