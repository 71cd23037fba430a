"""Negative controls: the exposure held against quantities that were fixed before it and that it cannot have changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.covariates import read_covariates
from brainmu.causal.grid import EpochGrid
from brainmu.causal.inference import Estimate, random_effects
from brainmu.causal.risk_set import RiskSet

__all__ = ["covariate_response", "past_controls", "past_quantities", "regress_on_exposure"]

PAST_SPANS = (120.0, 600.0)
"""Seconds before the bout over which the share of the target stage is taken."""


def past_controls(
    grids: Sequence[EpochGrid], rows: RiskSet, x: NDArray[np.float64], z: NDArray[np.float64], scale: NDArray[np.float64] | None = None
) -> list[dict[str, Any]]:  # fmt: skip
    """Does the exposure 'predict' how the animal slept before the bout began, given what is adjusted for?

    The quantities are the share of the target stage in the last two and ten minutes before the bout, and the length of the
    previous bout. A cause of both events and transitions that was left out, or measured with noise, shows up here. `scale` (n,) multiplies the quantity
    where `x` and `z` were multiplied by it, the root of weights.

    Returns
    -------
    One dict a quantity: name, estimate, low, high, p_value (per exposed epoch, in the quantity's standard deviations).
    """
    out = []
    for name, q in past_quantities(grids, rows).items():
        ok = np.isfinite(q)
        if ok.sum() < 50 or np.ptp(q[ok]) == 0:
            continue
        est = regress_on_exposure(q[ok] / q[ok].std() * (1.0 if scale is None else scale[ok]), x[ok], z[ok], rows[ok])
        if np.isfinite(est.p_value):
            out.append({"quantity": name} | est.as_dict())
    return out


class Places(Protocol):
    """Rows that lie in a bout: recording, epoch, epochs since the bout began (1 for the first), and its number."""

    session: NDArray[np.int64]
    k: NDArray[np.int64]
    age: NDArray[np.int64]
    bout: NDArray[np.int64]

    def __len__(self) -> int: ...


def past_quantities(grids: Sequence[EpochGrid], rows: Places) -> dict[str, NDArray[np.float64]]:
    """How the animal slept before each row's bout began, by name, each (n,); NaN where it was not seen."""
    names = [f"target share in the {int(s)} s before the bout" for s in PAST_SPANS] + ["length of the previous bout"]
    out = {name: np.full(len(rows), np.nan) for name in names}
    for i, g in enumerate(grids):
        mine = rows.session == i
        if not mine.any():
            continue
        begin = rows.k[mine] - rows.age[mine] + 1  # first epoch of the bout
        target, scored = np.r_[0, np.cumsum(g.target)], np.r_[0, np.cumsum(g.scored)]
        for name, span in zip(names, PAST_SPANS):
            lo = np.maximum(begin - round(span / g.epoch), 0)
            n = scored[begin] - scored[lo]
            out[name][mine] = np.where(n > 0, (target[begin] - target[lo]) / np.maximum(n, 1), np.nan)
        length = np.bincount(g.bout[g.bout >= 0]).astype(np.float64)
        previous = np.r_[np.nan, np.log2(length[:-1])] if len(length) else length
        out[names[-1]][mine] = previous[rows.bout[mine]]
    return out


def regress_on_exposure(q: NDArray[np.float64], x: NDArray[np.float64], z: NDArray[np.float64], rows: RiskSet) -> Estimate:
    """Slope of `q` on the exposure given `z`, a value an animal, combined over animals; bouts are the units within an animal."""
    rx = x - z @ np.linalg.lstsq(z.T @ z, z.T @ x, rcond=None)[0]
    rq = q - z @ np.linalg.lstsq(z.T @ z, z.T @ q, rcond=None)[0]
    n = len(rows.names)
    weight = np.bincount(rows.animal, rx * rx, n)
    slope = np.bincount(rows.animal, rx * rq, n) / np.maximum(weight, 1e-12)
    _, unit = np.unique(np.c_[rows.session, rows.bout], axis=0, return_inverse=True)
    unit = unit.ravel()
    score = np.bincount(unit, rx * (rq - slope[rows.animal] * rx))
    owner = np.zeros(len(score), dtype=np.int64)
    owner[unit] = rows.animal
    variance = np.bincount(owner, score**2, n) / np.maximum(weight, 1e-12) ** 2
    bouts = np.bincount(owner, minlength=n)
    use = (weight > 1e-3 * weight.max()) & (bouts > 2) & (variance > 0)
    if use.sum() >= 2:
        return random_effects(slope[use], variance[use])[0]
    j = int(np.argmax(weight))
    return Estimate.t(float(slope[j]), float(np.sqrt(variance[j])), int(bouts[j]) - 1)


def covariate_response(
    grids: Sequence[EpochGrid], rows: RiskSet, x: NDArray[np.float64], z: NDArray[np.float64], adjust: Sequence[str], window: float | None
) -> list[dict[str, Any]]:  # fmt: skip
    """Does a covariate move with the exposure? Then it lies on the path for any longer effect, and carries past exposures to the outcome.

    The quantity is the value one epoch after the reference time less the value one epoch before it: noise in the measurement, which makes
    an exposure 'predict' both alike, cancels.
    """
    if not adjust:
        return []
    moved = np.full(rows.values.shape, np.nan)
    for i, g in enumerate(grids):
        mine = rows.session == i
        if mine.any():
            after, before = (read_covariates(g.recording, adjust, rows.reference[mine] + d * g.epoch, window)[1] for d in (1, -1))
            moved[mine] = after - before
    out = []
    for j, name in enumerate(rows.covariates):
        q = moved[:, j]
        ok = np.isfinite(q)
        if ok.sum() < 50 or np.std(q[ok]) == 0:
            continue
        est = regress_on_exposure(q[ok] / rows.values[ok, j].std(), x[ok], z[ok], rows[ok])
        out.append({"covariate": name} | est.as_dict())
    return out
