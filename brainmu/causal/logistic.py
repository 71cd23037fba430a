"""Logistic regression by Newton's method, fast enough to be fitted thousands of times."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from brainmu.errors import DesignError

__all__ = ["Fit", "expit", "fit_logistic", "fit_multinomial", "fit_or_shrink", "firth_by_group", "independent_columns"]

_MAX_ITER = 60
_SEPARATED = 25.0  # a linear predictor beyond this has left the data behind


def expit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1.0 + np.tanh(0.5 * x))


@dataclass(frozen=True)
class Fit:
    """A fitted logistic regression: coefficients (p,), inverse information (p, p), linear predictor and probability (n,)."""

    coef: NDArray[np.float64]
    covariance: NDArray[np.float64]
    eta: NDArray[np.float64]
    p: NDArray[np.float64]
    log_likelihood: float


def independent_columns(x: NDArray[np.float64], tolerance: float = 1e-7) -> NDArray[np.intp]:
    """Columns of `x` (n, p) that the ones before them do not span, found from the Gram matrix."""
    scale = np.sqrt((x * x).sum(0))
    keep: list[int] = []
    gram = x.T @ x / np.outer(np.where(scale > 0, scale, 1), np.where(scale > 0, scale, 1))
    factor = np.zeros((0, 0))
    for j in range(x.shape[1]):
        if scale[j] == 0:
            continue
        v = np.linalg.solve(factor, gram[keep, j]) if keep else np.empty(0)
        left = gram[j, j] - v @ v
        if left > tolerance:
            row = np.zeros((1, len(keep) + 1))
            row[0, :-1], row[0, -1] = v, np.sqrt(left)
            factor = np.block([[factor, np.zeros((len(keep), 1))], [row]]) if keep else row
            keep.append(j)
    return np.array(keep, dtype=np.intp)


def fit_logistic(
    x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64] | None = None, offset: NDArray[np.float64] | None = None,
    ridge: NDArray[np.float64] | None = None, what: str = "the outcome model", near: NDArray[np.float64] | None = None,
) -> Fit:  # fmt: skip
    """Maximum likelihood logistic regression.

    Parameters
    ----------
    x : float64 (n, p)
        Columns, the intercept included; linearly independent.
    y : float64 (n,), 0 or 1
    weights, offset : float64 (n,) or None
    ridge : float64 (p,) or None
        Penalty on each squared coefficient (half of it is subtracted from the log likelihood).
    near : float64 (n,) or None
        A linear predictor close to the answer, such as that of a fit to nearly the same rows: half the steps. The answer is the same.

    Raises
    ------
    DesignError
        If the fit does not converge or the data are separated.
    """
    n, p = x.shape
    w = np.ones(n) if weights is None else weights
    o = np.zeros(n) if offset is None else offset
    penalty = np.zeros(p) if ridge is None else ridge
    coef = np.zeros(p) if near is None else np.linalg.lstsq(x.T @ x, x.T @ (near - o), rcond=None)[0]
    eta = x @ coef + o
    ll = _log_likelihood(eta, y, w)
    for _ in range(_MAX_ITER):
        mu = expit(eta)
        gradient = x.T @ (w * (y - mu)) - penalty * coef
        hessian = (x * (w * mu * (1 - mu))[:, None]).T @ x + np.diag(penalty)
        try:
            step = np.linalg.solve(hessian, gradient)
        except np.linalg.LinAlgError:
            raise DesignError(f"{what} cannot be fitted: a covariate is constant or a copy of others within the {n} epochs at risk; drop it") from None
        size = 1.0
        while True:
            new = coef + size * step
            new_eta = x @ new + o
            new_ll = _log_likelihood(new_eta, y, w) - 0.5 * float(penalty @ new**2)
            if new_ll >= ll - 1e-9 * abs(ll) or size < 1e-4:
                break
            size /= 2
        done = float(gradient @ step) < 1e-10 * max(1.0, abs(ll)) * 1e-2
        coef, eta, ll = new, new_eta, new_ll
        if done:
            break
    else:
        raise DesignError(f"{what} does not converge: some covariate or animal predicts it perfectly; merge or drop it, or add recordings")
    mu = expit(eta)
    if n and np.abs(eta).max() > _SEPARATED:
        raise DesignError(f"{what} has no finite fit: some covariate or animal predicts it perfectly; merge or drop it, or add recordings")
    hessian = (x * (w * mu * (1 - mu))[:, None]).T @ x + np.diag(penalty)
    return Fit(coef, np.linalg.pinv(hessian, hermitian=True), eta, mu, ll)


def fit_or_shrink(
    x: NDArray[np.float64], y: NDArray[np.float64], free: int, weights: NDArray[np.float64] | None = None, near: NDArray[np.float64] | None = None,
) -> tuple[Fit, bool]:  # fmt: skip
    """Maximum likelihood, or where the data are separated a fit whose columns after the first `free` are held back; and whether they were.

    The penalty is that of a normal prior of SD 3 on each column's standardised coefficient: nothing beside data that say anything.
    """
    try:
        return fit_logistic(x, y, weights, near=near), False
    except DesignError:
        ridge = np.var(x, axis=0) / 9.0
        ridge[:free] = 1e-6
        return fit_logistic(x, y, weights, ridge=ridge), True


def _log_likelihood(eta: NDArray[np.float64], y: NDArray[np.float64], w: NDArray[np.float64]) -> float:
    return float(w @ (y * eta - np.logaddexp(0.0, eta)))


def firth_by_group(
    x: NDArray[np.float64], y: NDArray[np.float64], group: NDArray[np.int64], n_groups: int, offset: NDArray[np.float64],
) -> NDArray[np.float64]:  # fmt: skip
    """Slope of `x` and an intercept in each group, by Firth's penalised likelihood, all groups at once.

    The penalty removes the first-order bias that maximum likelihood has with few transitions an animal, and keeps an animal without
    a transition in exposed epochs finite.

    Returns
    -------
    float64 (n_groups,)
        The slopes.

    References
    ----------
    Firth, Biometrika 80:27 (1993); Heinze & Schemper, Statistics in Medicine 21:2409 (2002).
    """

    def total(v: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.bincount(group, v, n_groups)

    a, b = np.zeros(n_groups), np.zeros(n_groups)
    for _ in range(_MAX_ITER):
        mu = expit(offset + a[group] + b[group] * x)
        v = mu * (1 - mu)
        s0, s1, s2 = total(v), total(v * x), total(v * x * x)
        det = np.maximum(s0 * s2 - s1**2, 1e-12)
        # Leverage of each row in its group's two-parameter fit.
        h = v * (s2[group] - 2 * s1[group] * x + s0[group] * x * x) / det[group]
        r = y - mu + h * (0.5 - mu)
        u0, u1 = total(r), total(r * x)
        da, db = (s2 * u0 - s1 * u1) / det, (s0 * u1 - s1 * u0) / det
        big = np.maximum(np.abs(da), np.abs(db))
        damp = np.minimum(1.0, 2.0 / np.maximum(big, 1e-300))
        a, b = a + damp * da, b + damp * db
        if big.max() < 1e-8:
            break
    return b


def fit_multinomial(x: NDArray[np.float64], y: NDArray[np.int64], n_classes: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Multinomial logistic regression against class 0: coefficients (n_classes - 1, p) and their standard errors.

    Raises DesignError if it does not converge.
    """
    p = x.shape[1]
    k = n_classes - 1
    hit = (y[:, None] == np.arange(1, n_classes)).astype(np.float64)
    coef = np.zeros((k, p))
    ll = -np.inf
    for _ in range(_MAX_ITER):
        eta = x @ coef.T
        top = np.maximum(eta.max(1), 0.0)
        log_z = top + np.log(np.exp(-top) + np.exp(eta - top[:, None]).sum(1))
        mu = np.exp(eta - log_z[:, None])
        new = float((hit * eta).sum() - log_z.sum())
        gradient = ((hit - mu).T @ x).ravel()
        hessian = np.empty((k * p, k * p))
        for i in range(k):
            for j in range(i, k):
                v = mu[:, i] * ((i == j) - mu[:, j])
                block = (x * v[:, None]).T @ x
                hessian[i * p : (i + 1) * p, j * p : (j + 1) * p] = block
                hessian[j * p : (j + 1) * p, i * p : (i + 1) * p] = block
        step = np.linalg.lstsq(hessian, gradient, rcond=None)[0]
        if float(gradient @ step) < 1e-10:
            return coef, np.sqrt(np.diag(np.linalg.pinv(hessian, hermitian=True))).reshape(k, p)
        size = 1.0 if new >= ll - 1e-6 else 0.5
        ll = max(ll, new)
        coef = coef + (size * np.clip(step, -5, 5)).reshape(k, p)
    raise DesignError("the multinomial model does not converge: one of the exits is too rare beside these covariates")
