"""The arithmetic of mediation: a model of the mediator, a model of the outcome, and the four risks they give (g-computation)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.inference import Estimate, jackknife
from brainmu.causal.logistic import expit, fit_or_shrink, independent_columns

__all__ = ["MediationRows", "decompose", "jackknifed", "linear_by_animal", "residual_correlation"]


@dataclass(frozen=True)
class MediationRows:
    """Trials that are analysed.

    Attributes
    ----------
    animal : int (n,)
        0 to n_animals - 1.
    assigned, y : float64 (n,), 0 or 1
    m : float64 (n,)
        Mediator less the animal's mean, in the animal's own SD within arms.
    z : float64 (n, c)
        What is adjusted for, each column of mean 0.
    seen : float64 (n,)
        Inverse chance of not having been cut short; 0 where the trial was.
    coin : float64 (n,)
        Inverse chance of the assignment that was made, 1 on average.
    """

    animal: NDArray[np.int64]
    assigned: NDArray[np.float64]
    y: NDArray[np.float64]
    m: NDArray[np.float64]
    z: NDArray[np.float64]
    seen: NDArray[np.float64]
    coin: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.animal)

    @property
    def n_animals(self) -> int:
        return len(np.unique(self.animal))

    def without(self, animal: int) -> MediationRows:
        """All animals but one, numbered anew."""
        keep = self.animal != animal
        rows = {k: v[keep] for k, v in vars(self).items()}
        return replace(self, **rows | {"animal": np.unique(rows["animal"], return_inverse=True)[1]})


def decompose(rows: MediationRows) -> dict[str, float]:
    """Natural direct and indirect effects as differences in risk, animals counting equally.

    The mediator: a mean and a shift by assignment of each animal's own, common slopes of what is adjusted for. The outcome: logistic, an intercept of each
    animal's own, assignment, mediator, their product, and what is adjusted for. Risks p(a, b), of assignment a with the mediator as under b, are averaged
    over each animal's trials; the mediator of a trial under the other assignment is its own, shifted.

    Returns
    -------
    dict
        `total`, `indirect`, `direct`: p(1, 1) - p(0, 0) and what it is made of, each the mean over both arms; by arm `indirect_control` p(0, 1) - p(0, 0),
        `direct_control` p(1, 0) - p(0, 0) and the like. `mediator_shift` by assignment, SD; `per_sd`, `interaction` and `first_covariate` in log odds an SD.

    References
    ----------
    Imai, Keele & Yamamoto, Statistical Science 25:51 (2010); VanderWeele, Explanation in Causal Inference, ch. 2 (2015).
    """
    n = rows.n_animals
    dummies = (rows.animal[:, None] == np.arange(n)).astype(np.float64)
    shift = _shifts(rows, dummies)
    x = np.column_stack([dummies, rows.z, rows.assigned, rows.m, rows.assigned * rows.m])
    used = rows.seen > 0
    # Columns that others span, such as a covariate that is constant here, say nothing of their own.
    keep = independent_columns(x[used])
    coef = np.zeros(x.shape[1])
    fit, _ = fit_or_shrink(x[np.ix_(used, keep)], rows.y[used], int((keep < n).sum()), (rows.seen * rows.coin)[used])
    coef[keep] = fit.coef
    base = x[:, : n + rows.z.shape[1]] @ coef[: n + rows.z.shape[1]]
    c, b, d = coef[-3:]
    own = rows.m - rows.assigned * shift[rows.animal]

    def risk(arm: int, mediator: int) -> float:
        p = expit(base + c * arm + (b + d * arm) * (own + mediator * shift[rows.animal]))
        return float((np.bincount(rows.animal, p, n) / np.bincount(rows.animal, minlength=n)).mean())

    p00, p01, p10, p11 = risk(0, 0), risk(0, 1), risk(1, 0), risk(1, 1)
    return {
        "total": p11 - p00, "indirect": 0.5 * (p11 - p10 + p01 - p00), "direct": 0.5 * (p11 - p01 + p10 - p00), "indirect_control": p01 - p00,
        "indirect_assigned": p11 - p10, "direct_control": p10 - p00, "direct_assigned": p11 - p01, "mediator_shift": float(shift.mean()),
        "per_sd": float(b + 0.5 * d), "interaction": float(d), "first_covariate": float(coef[n]) if rows.z.shape[1] else 0.0, "risk_control": p00,
    }  # fmt: skip


def _shifts(rows: MediationRows, dummies: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far assignment moves each animal's mediator, SD."""
    w = np.sqrt(rows.coin)[:, None]
    x = np.column_stack([dummies, dummies * rows.assigned[:, None], rows.z])
    coef = np.linalg.lstsq(x * w, rows.m * w[:, 0], rcond=None)[0]
    return coef[dummies.shape[1] : 2 * dummies.shape[1]]


def jackknifed(rows: MediationRows) -> tuple[dict[str, Estimate], dict[str, float], list[dict[str, float]]]:
    """Each part with its interval over animals, and the parts with all animals and without each in turn."""
    whole = decompose(rows)
    left = [decompose(rows.without(j)) for j in range(rows.n_animals)] if rows.n_animals > 1 else []
    return {k: jackknife(v, [x[k] for x in left]) for k, v in whole.items()}, whole, left


def linear_by_animal(rows: MediationRows) -> dict[str, NDArray[np.float64]]:
    """`shift`, `slope` (risk an SD), `direct`, `indirect` and `total` of each animal (n_animals,), by straight lines: no shape and no slope is shared."""
    n = rows.n_animals
    dummies = (rows.animal[:, None] == np.arange(n)).astype(np.float64)
    shift = _shifts(rows, dummies)
    w = np.sqrt(rows.seen * rows.coin)[:, None]
    x = np.column_stack([dummies, dummies * rows.assigned[:, None], dummies * rows.m[:, None], rows.z])
    coef = np.linalg.lstsq(x * w, rows.y * w[:, 0], rcond=None)[0]
    direct, slope = coef[n : 2 * n], coef[2 * n : 3 * n]
    return {"shift": shift, "slope": slope, "direct": direct, "indirect": shift * slope, "total": direct + shift * slope}


def residual_correlation(rows: MediationRows, drop: Sequence[int] = ()) -> tuple[float, float, float]:
    """What assignment and the covariates leave of mediator and outcome: their correlation, and the SD of either (mediator, outcome).

    `drop` names columns of `z` that are left out.
    """
    n = rows.n_animals
    dummies = (rows.animal[:, None] == np.arange(n)).astype(np.float64)
    z = np.delete(rows.z, list(drop), axis=1)
    w = np.sqrt(rows.seen * rows.coin)[:, None]
    x = np.column_stack([dummies, dummies * rows.assigned[:, None], z]) * w
    both = np.c_[rows.m, rows.y] * w
    rest = both - x @ np.linalg.lstsq(x, both, rcond=None)[0]
    sd = np.sqrt((rest**2).sum(0) / max(len(rows) - x.shape[1], 1))
    total = float(np.sqrt((rest[:, 0] ** 2).sum() * (rest[:, 1] ** 2).sum()))
    return float(rest[:, 0] @ rest[:, 1]) / total if total > 0 else 0.0, float(sd[0]), float(sd[1])
