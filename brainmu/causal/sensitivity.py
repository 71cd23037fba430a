"""How strong an unmeasured or badly measured cause would have to be to explain an estimate away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.covariates import value_before
from brainmu.causal.inference import Estimate
from brainmu.core.recording import Recording

__all__ = [
    "confounder_contour", "describe_sensitivity", "e_value", "e_value_of_difference", "failed_controls", "noisy_covariates", "reliability", "reliability_table",
]  # fmt: skip

RELIABILITIES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)


def e_value(log_odds_ratio: float, outcome_risk: float) -> float:
    """Least risk ratio by which an unmeasured cause must be tied to both exposure and outcome to explain the estimate away.

    The odds ratio stands for the risk ratio where the outcome is rare (< 15 %), its square root otherwise.

    References
    ----------
    VanderWeele & Ding, Ann Intern Med 167:268 (2017).

    Examples
    --------
    >>> round(e_value(np.log(3.9), 0.01), 2)
    7.26
    """
    if not np.isfinite(log_odds_ratio):
        return float("nan")
    rr = float(np.exp(abs(log_odds_ratio) * (1.0 if outcome_risk < 0.15 else 0.5)))
    return rr + float(np.sqrt(rr * (rr - 1)))


def e_value_of_difference(difference: float, sd: float) -> float:
    """The same for a difference in means: in SD of the outcome, times 0.91, it stands for a log risk ratio.

    References
    ----------
    VanderWeele & Ding, Ann Intern Med 167:268 (2017).

    Examples
    --------
    >>> round(e_value_of_difference(0.5, 1.0), 2)
    2.53
    """
    if not (np.isfinite(difference) and sd > 0):
        return float("nan")
    rr = float(np.exp(0.91 * abs(difference) / sd))
    return rr + float(np.sqrt(rr * (rr - 1)))


def describe_sensitivity(result: Estimate, risk: float, recordings: Sequence[Recording], adjust: Sequence[str], epoch: float) -> dict[str, Any]:
    """E-values of a log odds ratio and of the end of its interval nearer to nothing, a confounder's contour, and how noisy the covariates look.

    Parameters
    ----------
    risk : float
        Of the outcome, unexposed.
    """
    bound = result.low if result.estimate > 0 else result.high
    crosses = not np.isfinite(bound) or bound * result.estimate <= 0
    out: dict[str, Any] = {
        "e_value": e_value(result.estimate, risk), "e_value_interval": 1.0 if crosses else e_value(bound, risk), "confounder": confounder_contour(result),
    }  # fmt: skip
    if adjust:
        out["reliability_if_noise_is_white"] = {name: reliability(recordings, name, epoch) for name in adjust}
    return out


def noisy_covariates(seen: dict[str, Any], what: str) -> list[str]:
    """A sentence for each covariate that looks noisy; `what` is incomplete then."""
    return [
        f"covariate {name!r} looks noisy (reliability about {value:.2f} if its noise is white), {what} is incomplete: use adjust_window"
        for name, value in seen.get("reliability_if_noise_is_white", {}).items()
        if value < 0.9
    ]


def failed_controls(controls: Sequence[dict[str, Any]]) -> list[str]:
    """A sentence for each negative control that the exposure 'predicts', at 5 % over all of them."""
    return [
        f"negative control fails: the exposure 'predicts' the {c['quantity']} (p = {c['p_value']:.2g}), which it cannot cause: a confounder is left"
        for c in controls
        if c["p_value"] < 0.05 / len(controls)
    ]


def confounder_contour(result: Estimate) -> dict[str, Any]:
    """The estimate if there were a confounder: `imbalance` (SD higher in exposed epochs) by `strength` (log odds ratio per SD).

    To first order such a cause shifts the log odds ratio by imbalance x strength; its share that a proxy of reliability r leaves
    is 1 - r of that.
    """
    imbalance, strength = np.array([0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0]), np.array([0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 1.0])
    sign = np.sign(result.estimate) or 1.0
    bound = result.low if result.estimate > 0 else result.high
    bias = np.outer(imbalance, strength)
    needed = max(0.0, sign * bound) if np.isfinite(bound) else float("nan")
    return {
        "imbalance_sd": imbalance.tolist(), "strength_log_odds": strength.tolist(), "estimate": (result.estimate - sign * bias).tolist(),
        "product_that_removes_significance": needed, "product_that_removes_the_estimate": abs(result.estimate),
    }  # fmt: skip


def reliability(recordings: Sequence[Recording], name: str, step: float) -> float:
    """Share of a signal's variance that is not white noise from one step to the next: acf(1)**2 / acf(2), 1 at most.

    Exact for a first-order autoregression seen through white noise. NaN where the signal is constant or shorter than 50 steps.
    """
    signal_name, _, channel = name.partition(":")
    acf = []
    for rec in recordings:
        s = rec.signals[signal_name]
        s = s.pick([channel]) if channel else s
        t = np.arange(s.start, s.stop, step)
        if len(t) < 50:
            continue
        v = value_before(s, t)
        if np.isfinite(v).all(1).sum() < 50:
            continue
        v = v - np.nanmean(v, axis=0)
        r = [np.nanmean(v[:-d] * v[d:], axis=0) if d else np.nanmean(v * v, axis=0) for d in (0, 1, 2)]
        if (r[0] > 0).all():
            acf.append(np.array([r[1] / r[0], r[2] / r[0]]))
    if not acf:
        return float("nan")
    one, two = np.mean(acf, axis=0).reshape(2, -1)
    with np.errstate(divide="ignore", invalid="ignore"):
        values = np.where((two > 0.02) & (one > 0), one**2 / two, np.nan)
    return float(np.nanmin(np.minimum(values, 1.0))) if np.isfinite(values).any() else float("nan")


def reliability_table(adjusted: Estimate, unadjusted: float) -> list[dict[str, float]]:
    """The estimate if the covariates had been measured with reliability r: adjustment would then have moved it 1 / r times as far."""
    moved = adjusted.estimate - unadjusted
    out = []
    for r in RELIABILITIES:
        shift = moved * (1 - r) / r
        out.append({"reliability": r, "estimate": adjusted.estimate + shift, "low": adjusted.low + shift, "high": adjusted.high + shift})
    return out


def benchmark(values: NDArray[np.float64], exposed: NDArray[np.bool_], animal: NDArray[np.int64]) -> NDArray[np.float64]:
    """How many within-animal SD each measured covariate (n, c) is higher in exposed epochs: a yardstick for `imbalance`."""
    n = int(animal.max()) + 1 if len(animal) else 0
    out = np.empty(values.shape[1])
    size = np.maximum(np.bincount(animal, minlength=n), 1)
    for j, v in enumerate(values.T):
        c = v - (np.bincount(animal, v, n) / size)[animal]
        spread = c.std()
        out[j] = (c[exposed].mean() - c[~exposed].mean()) / spread if spread > 0 else 0.0
    return out
