"""Intervals and tests when animals are the clusters and there are few of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["Estimate", "WEBB", "animal_mean", "jackknife", "random_effects", "welch", "wild_bootstrap"]

WEBB = np.array([-np.sqrt(1.5), -1.0, -np.sqrt(0.5), np.sqrt(0.5), 1.0, np.sqrt(1.5)])
"""Webb's six-point weights: four animals give 6**4 sign patterns where Rademacher weights give 2**4 (p >= 0.125)."""


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error, degrees of freedom, interval and p value."""

    estimate: float
    se: float
    df: float
    low: float
    high: float
    p_value: float

    @classmethod
    def t(cls, estimate: float, se: float, df: float, level: float = 0.95) -> Estimate:
        """From Student's t with `df` degrees of freedom (NaN interval where there are none)."""
        from scipy import stats

        if not (np.isfinite(se) and df > 0):
            return cls(estimate, float("nan"), float(df), float("nan"), float("nan"), float("nan"))
        half = float(stats.t.ppf(0.5 + level / 2, df)) * se
        p = float(2 * stats.t.sf(abs(estimate) / se, df)) if se > 0 else (1.0 if estimate == 0 else 0.0)
        return cls(float(estimate), float(se), float(df), estimate - half, estimate + half, p)

    def as_dict(self) -> dict[str, float]:
        return {"estimate": self.estimate, "se": self.se, "df": self.df, "low": self.low, "high": self.high, "p_value": self.p_value}


def animal_mean(values: ArrayLike, weights: ArrayLike | None = None, variances: ArrayLike | None = None) -> Estimate:
    """Weighted mean of one value an animal, with a t interval over animals.

    Parameters
    ----------
    values : float64 (n,)
    weights : float64 (n,) or None
        What each animal counts for; equal where None.
    variances : float64 (n,) or None
        Sampling variance of each value. The interval is then no narrower than the normal one that they alone would leave: four animals are alike by
        chance now and then, and an interval by their spread misses the mean too often where values are skewed (risk differences near zero risk).

    References
    ----------
    Röver, Knapp & Friede, BMC Medical Research Methodology 15:99 (2015), the same floor for random effects.

    Examples
    --------
    >>> e = animal_mean([0.1, 0.2, 0.3])
    >>> round(e.estimate, 3), round(e.se, 4), e.df
    (0.2, 0.0577, 2.0)
    """
    b = np.asarray(values, dtype=np.float64)
    u = np.full(len(b), 1.0) if weights is None else np.asarray(weights, dtype=np.float64)
    u = u / u.sum()
    mean = float(u @ b)
    n = len(b)
    if n < 2:
        return Estimate.t(mean, np.nan, 0)
    # For equal weights this is the standard error of the mean; the divisor keeps it unbiased for unequal ones where animals vary alike.
    shrink = float(u**2 @ (1 - 2 * u + u @ u) / (u @ u))
    spread = float(u**2 @ (b - mean) ** 2) / max(shrink, 1e-9)
    least = 0.0 if variances is None else float(u**2 @ np.asarray(variances, dtype=np.float64))
    return Estimate.t(mean, max(float(np.sqrt(spread)), _floor(np.sqrt(least), n)), n - 1)


def welch(one: Estimate, two: Estimate) -> Estimate:
    """The mean of some animals less that of others, whose variances may differ (Welch 1947, *Biometrika* 34:28); no interval where either side has none."""
    squares = [one.se**2, two.se**2]
    gap, total = one.estimate - two.estimate, sum(squares)
    if not np.isfinite(total) or total == 0:
        return Estimate.t(gap, float("nan"), 0)
    return Estimate.t(gap, float(np.sqrt(total)), total**2 / sum(s**2 / p.df for s, p in zip(squares, (one, two))))


def jackknife(value: float, left: ArrayLike, least: float = 0.0) -> Estimate:
    """An estimate with the t interval of its values `left` (n,) without each animal in turn; no interval with fewer than two.

    Their spread is about the estimate, not about their mean: a little wider, and nearer its level with few animals. `least` is the standard error that
    sampling within the animals alone leaves: the interval is never narrower than the normal one by it (as in :func:`animal_mean`).
    """
    without = np.asarray(left, dtype=np.float64)
    n = len(without)
    if n < 2:
        return Estimate.t(value, float("nan"), 0)
    return Estimate.t(value, max(float(np.sqrt((n - 1) / n * ((without - value) ** 2).sum())), _floor(least, n)), n - 1)


def _floor(se: float, n: int) -> float:
    """The standard error whose t interval on n - 1 degrees of freedom is as wide as the normal one of `se`: a sampling error is known better than a spread."""
    from scipy import stats

    return float(se * stats.norm.ppf(0.975) / stats.t.ppf(0.975, n - 1))


def random_effects(values: ArrayLike, variances: ArrayLike, weights: ArrayLike | None = None, *, floored: bool = False) -> tuple[Estimate, float]:
    """Mean effect over a population of animals, with the Hartung–Knapp t interval on n - 1 degrees of freedom.

    Parameters
    ----------
    values, variances : float64 (n,)
        One estimate an animal and its sampling variance.
    weights : float64 (n,) or None
        Fixed weights that name another population; the precision of each animal (with the spread between animals) where None.
    floored : bool
        Never narrower than the normal interval by `variances` alone (as in :func:`animal_mean`): animals that agree by chance are no evidence that
        sampling errs less.

    Returns
    -------
    Estimate, and the standard deviation between animals.

    References
    ----------
    Hartung & Knapp, Statistics in Medicine 20:3875 (2001); Chung et al., Psychometrika 78:685 (2013), the prior that avoids zero.
    """
    b, v = np.asarray(values, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    n = len(b)
    tau2 = _between_variance(b, v) if n > 1 else 0.0
    w = 1 / (v + tau2)
    u = w / w.sum() if weights is None else np.asarray(weights, dtype=np.float64) / np.sum(weights)
    mean = float(u @ b)
    if n < 2:
        return Estimate.t(mean, np.nan, 0), float("nan")
    centre = float(w @ b / w.sum())
    q = float(w @ (b - centre) ** 2) / (n - 1)
    least = _floor(float(np.sqrt(u**2 @ v)), n) if floored else 0.0
    return Estimate.t(mean, max(float(np.sqrt(q * (u**2 @ (1 / w)))), least), n - 1), float(np.sqrt(tau2))


def _between_variance(b: NDArray[np.float64], v: NDArray[np.float64]) -> float:
    """Variance between animals: mode of the restricted likelihood times a weak prior that keeps it off zero.

    With few animals the plain maximum is zero by chance, the weights then follow the sampling variances alone, and the test rejects up
    to twice too often; the prior (proportional to the standard deviation) makes weights more equal where the data cannot tell.
    """
    scale = float(np.sqrt(v.mean() + np.var(b)))
    grid = scale * np.linspace(0.0, 4.0, 161)[1:]
    for _ in range(2):
        value = _restricted(grid, b, v)
        i = int(np.argmax(value))
        low, high = grid[max(i - 1, 0)] if i else 0.0, grid[min(i + 1, len(grid) - 1)]
        best = float(grid[i])
        grid = np.linspace(low, high, 41)[1:]
    return best**2


def _restricted(sd: NDArray[np.float64], b: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log restricted likelihood plus log prior at each standard deviation between animals."""
    w = 1 / (v + sd[:, None] ** 2)
    total = w.sum(1)
    mean = (w @ b) / total
    return 0.5 * (np.log(w).sum(1) - np.log(total) - (w * (b - mean[:, None]) ** 2).sum(1)) + np.log(sd)


def wild_bootstrap(scores: ArrayLike, draws: int = 9999, seed: int = 0) -> float:
    """Two-sided p value of sum(scores) = 0 from a wild cluster bootstrap of the scores under the null, Webb weights.

    Parameters
    ----------
    scores : float64 (n,)
        Each animal's efficient score for the effect, at the fit without the effect.

    References
    ----------
    Kline & Santos, J Econometric Methods 1:23 (2012); Webb, Queen's Economics 1315 (2014).
    """
    s = np.asarray(scores, dtype=np.float64)
    n = len(s)
    if n < 2 or not np.any(s):
        return float("nan")
    rng = np.random.default_rng(seed)
    drawn = WEBB[rng.integers(0, 6, (draws, n))] * s
    total = drawn.sum(1)
    spread = np.sqrt(((drawn - total[:, None] / n) ** 2).sum(1))
    observed = abs(s.sum()) / np.sqrt(((s - s.mean()) ** 2).sum())
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.abs(total) / spread
    return float((1 + np.sum(~(t < observed - 1e-12))) / (draws + 1))
