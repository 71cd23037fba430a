"""Maps of an encoder, a run of epochs at a time, by any of the methods that look inside; each run is kept as it is done."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.explain.baselines import MATCHES
from brainmu.explain.parts import Doors, Map, Part, door_odds, feature_ablation
from brainmu.explain.saved import Saved

__all__ = ["RUN", "Asked", "map_of", "odds_of", "runs_of"]

RUN = 8
"""Epochs of one run: neighbours share their context, so a run costs little more than an epoch."""

Report = Callable[[float], None]


@dataclass(frozen=True)
class Asked:
    """How to look: the method, the tap of layer conductance, the seed of what is drawn."""

    method: str
    tap: str = ""
    seed: int = 0


def map_of(doors: Doors, columns: NDArray[np.intp], asked: Asked, saved: Saved, name: str, report: Report, quick: bool = False) -> tuple[Map, dict[str, Any]]:
    """A map by one of the methods that look into the encoder, and what there is to say of it; `quick` with fewer steps, for comparison only."""
    found: list[dict[str, NDArray[Any]]] = []
    for i in range(len(doors)):
        part = saved.get(f"{name}.{i}")
        if part is None:
            part = _one(doors, i, columns, asked, quick)
            saved.put(f"{name}.{i}", **part)
        found.append(part)
        report((i + 1) / len(doors))
    streams = {asked.tap: ((), "tap")} if asked.method == "layer_conductance" else doors.streams()
    maps: Map = {k: (np.concatenate([f[f"map.{k}"] for f in found]), *about) for k, about in streams.items()}
    if asked.method == "feature_ablation":
        return maps, {}
    facts: dict[str, Any] = {"steps": int(max(f["steps"] for f in found))}
    if asked.method == "layer_conductance":
        through, difference = sum(float(f["total"]) for f in found), sum(float(f["difference"]) for f in found)
        facts["difference"] = difference / sum(b - a for a, b in doors.runs)
        facts["share_through_tap"] = through / difference if abs(difference) > 1e-9 else float("nan")
        if asked.tap.startswith("context"):
            return maps, facts
    return maps, facts | {"completeness_error": float(np.median([f["error"] for f in found]))}


def _one(doors: Doors, i: int, columns: NDArray[np.intp], asked: Asked, quick: bool) -> dict[str, Any]:
    """The map of run i."""
    from brainmu.explain import conductance, gradients

    door = doors.open(i, MATCHES if asked.method == "gradient_shap" else 1)
    if asked.method == "feature_ablation":
        return {f"map.{k}": v for k, v in feature_ablation(door, columns).items()}
    if asked.method == "layer_conductance":
        flow, total, difference, n = conductance.conductance(doors.model, door, columns, asked.tap, *([(32,)] if quick else []))
        return {
            f"map.{asked.tap}": flow, "total": total, "difference": difference, "error": gradients.incompleteness(total, difference), "steps": n,
        }  # fmt: skip
    if asked.method == "gradient_shap":
        maps, error, n = gradients.shap(door, columns, asked.seed + i, *([64] if quick else []))
    else:
        maps, error, n = gradients.integrate(door, columns, *([((1, 32),)] if quick else []))
    return {f"map.{k}": v for k, v in maps.items()} | {"error": error, "steps": n}


def odds_of(doors: Doors, columns: NDArray[np.intp], saved: Saved, name: str, report: Report) -> Callable[[Sequence[Collection[Part]]], NDArray[np.float64]]:
    """A function from sets of parts to the mean log odds (set,) of the target without them, over the epochs of the runs; to be asked once."""

    def odds(sets: Sequence[Collection[Part]]) -> NDArray[np.float64]:
        found = []
        for i in range(len(doors)):
            part = saved.get(f"{name}.{i}")
            if part is None:
                part = {"odds": door_odds(doors.open(i), columns, sets)}
                saved.put(f"{name}.{i}", **part)
            found.append(part["odds"])
            report((i + 1) / len(doors))
        return np.concatenate(found, axis=1).mean(1)

    return odds


def runs_of(taken: NDArray[np.bool_], most: int) -> list[tuple[int, int]]:
    """Runs of up to `RUN` consecutive target epochs, spread evenly over the recording, `most` epochs in all."""
    edge = np.flatnonzero(np.diff(np.r_[False, taken, False].astype(np.int8))).reshape(-1, 2)
    pieces = [(i, min(i + RUN, int(b))) for a, b in edge for i in range(int(a), int(b), RUN)]
    # As few pieces as hold so many epochs: short runs make room for others.
    n = max(1, min(len(pieces), most // RUN))
    while True:
        spread = [pieces[i] for i in np.unique(np.linspace(0, len(pieces) - 1, n).round().astype(int))]
        if n == len(pieces) or sum(b - a for a, b in spread) >= most:
            break
        n += 1
    out: list[tuple[int, int]] = []
    for a, b in spread:
        left = most - sum(y - x for x, y in out)
        if left > 0:
            out.append((a, min(b, a + left)))
    return out
