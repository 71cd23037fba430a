"""Splitting a measure in two at the dip of its histogram, with a diagnosis where there is none."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from brainmu.errors import MissingDataError

__all__ = ["Threshold", "find_threshold", "sticky"]


@dataclass(frozen=True)
class Threshold:
    """Where a measure was split, and how well it could be.

    Attributes
    ----------
    name : str
    value : float
        The threshold, in the measure's own unit.
    method : str
        "dip" (of a two-humped histogram), "mixture" (where two Gaussians cross; there was no dip) or "stated".
    low, high : float
        The modes on either side.
    depth : float
        1 - density at the dip / density at the lower mode; 0 where there is no dip.
    separation : float
        Ashman's D of two Gaussians; above 2 the two are clearly apart.
    note : str
        The diagnosis, "" where all is well.
    """

    name: str
    value: float
    method: str
    low: float
    high: float
    depth: float
    separation: float
    note: str = ""

    def probability(self, x: ArrayLike) -> NDArray[np.float64]:
        """Probability of lying on the high side: 0.5 at the threshold, 0.95 at the mode of either side."""
        v = np.asarray(x, dtype=np.float64) - self.value
        scale = np.where(v > 0, max(self.high - self.value, 1e-9), max(self.value - self.low, 1e-9))
        return 1 / (1 + np.exp(-np.clip(3.0 * v / scale, -30, 30)))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def find_threshold(x: ArrayLike, name: str = "measure") -> Threshold:
    """Split values at the dip between the two humps of their histogram.

    The density is smoothed more and more until two humps are left. Without two humps, or with too shallow a dip, the threshold is where
    two fitted Gaussians cross, and `method` and `note` say so.

    Parameters
    ----------
    x : float (n,)
        NaN is ignored.

    Raises
    ------
    MissingDataError
        With fewer than 10 finite values or with values that do not vary.

    References
    ----------
    Watson et al. 2016, Neuron 90:839; Ashman, Bird & Zepf 1994, Astron. J. 108:2348.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> t = find_threshold(np.r_[rng.normal(0, 1, 500), rng.normal(6, 1, 300)])
    >>> t.method, round(t.value)
    ('dip', 3)
    """
    v = np.asarray(x, dtype=np.float64)
    v = v[np.isfinite(v)]
    if len(v) < 10:
        raise MissingDataError(f"the {name} measure has {len(v)} values, expected at least 10: the recording is too short, or most of a channel is missing")
    if np.ptp(np.percentile(v, [0.5, 99.5])) < 1e-3 * max(1.0, abs(float(np.median(v)))):
        raise MissingDataError(f"the {name} measure does not vary over {len(v)} values: check for a flat or synthetic channel")
    low, high, sd_low, sd_high, share = _two_gaussians(v)
    separation = float(np.sqrt(2) * (high - low) / np.sqrt(sd_low**2 + sd_high**2))
    dip = _dip(v)
    if dip is not None and dip[3] >= 0.1:
        return Threshold(name, dip[0], "dip", dip[1], dip[2], dip[3], separation)
    grid = np.linspace(low, high, 201)
    gap = np.log(share / sd_high) - 0.5 * ((grid - high) / sd_high) ** 2 - np.log((1 - share) / sd_low) + 0.5 * ((grid - low) / sd_low) ** 2
    crossing = np.flatnonzero(np.diff(np.sign(gap)) > 0)
    value = float(grid[crossing[0]]) if len(crossing) else 0.5 * (low + high)
    said = "one hump" if dip is None else f"dip {dip[3]:.0%} deep, at least 10 % wanted"
    return Threshold(name, value, "mixture", low, high, 0.0, separation, f"{said}; two Gaussians are {separation:.1f} SD apart")


def sticky(x: ArrayLike, t: Threshold) -> NDArray[np.bool_]:
    """High (n,) by a Schmidt trigger: it turns on half-way up to the high mode and off half-way down to the low one. NaN holds the last state."""
    v = np.asarray(x, dtype=np.float64)
    up, down = t.value + 0.5 * (t.high - t.value), t.value - 0.5 * (t.value - t.low)
    with np.errstate(invalid="ignore"):
        mark = np.where(v >= up, 1, np.where(v <= down, 0, -1))
    known = np.flatnonzero(mark >= 0)
    if not len(known):
        return np.nan_to_num(v, nan=-np.inf) >= t.value
    last = np.searchsorted(known, np.arange(len(v)), side="right") - 1
    out = mark[known[np.maximum(last, 0)]].astype(bool)
    # A change is dated back to where the threshold itself was crossed, so stickiness costs no delay.
    with np.errstate(invalid="ignore"):
        side = v >= t.value
    for i in np.flatnonzero(np.diff(out)) + 1:
        j = i
        while j > 0 and side[j - 1] == out[i] and out[j - 1] != out[i]:
            j -= 1
        out[j:i] = out[i]
    return out


def _dip(v: NDArray[np.float64]) -> tuple[float, float, float, float] | None:
    """(position, low mode, high mode, depth) of the dip once the density has two humps; None where it goes to one."""
    from scipy.ndimage import gaussian_filter1d

    low, high = np.percentile(v, [0.5, 99.5])
    if high <= low:
        return None
    edges = np.linspace(low - 0.1 * (high - low), high + 0.1 * (high - low), 257)
    centre = 0.5 * (edges[1:] + edges[:-1])
    count = np.histogram(v, edges)[0].astype(np.float64)
    silverman = 0.9 * min(v.std(), np.subtract(*np.percentile(v, [75, 25])) / 1.34 + 1e-12) * len(v) ** -0.2 / (edges[1] - edges[0])
    for factor in np.geomspace(0.7, 4.0, 15):
        density = gaussian_filter1d(count, max(1.0, factor * silverman), mode="constant")
        humps = _humps(density)
        if len(humps) == 2:
            a, b = humps
            at = a + int(np.argmin(density[a : b + 1]))
            return float(centre[at]), float(centre[a]), float(centre[b]), float(1 - density[at] / min(density[a], density[b]))
        if len(humps) < 2:
            return None
    return None


def _humps(density: NDArray[np.float64]) -> list[int]:
    """Peaks that hold at least 2 % of the mass between their valleys."""
    peaks = [i for i in range(1, len(density) - 1) if density[i] > density[i - 1] and density[i] >= density[i + 1]]
    if len(peaks) < 2:
        return peaks
    valleys = [0, *(a + int(np.argmin(density[a : b + 1])) for a, b in pairwise(peaks)), len(density)]
    total = density.sum()
    return [p for p, a, b in zip(peaks, valleys, valleys[1:]) if density[a:b].sum() >= 0.02 * total]


def _two_gaussians(v: NDArray[np.float64], rounds: int = 60) -> tuple[float, float, float, float, float]:
    """Means, SDs and the share of the higher of two Gaussians (expectation-maximisation from the halves around the middle of the range)."""
    inner = np.clip(v, *np.percentile(v, [0.5, 99.5]))
    mid = 0.5 * sum(np.percentile(inner, [5, 95]))
    w = np.clip((inner > mid).astype(np.float64), 0.02, 0.98)
    floor = 0.02 * inner.std() + 1e-12
    for _ in range(rounds):
        share = float(np.clip(w.mean(), 0.02, 0.98))
        m1, m0 = float(np.average(inner, weights=w)), float(np.average(inner, weights=1 - w))
        s1 = max(floor, float(np.sqrt(np.average((inner - m1) ** 2, weights=w))))
        s0 = max(floor, float(np.sqrt(np.average((inner - m0) ** 2, weights=1 - w))))
        z = np.log(share / (1 - share) * s0 / s1) - 0.5 * ((inner - m1) / s1) ** 2 + 0.5 * ((inner - m0) / s0) ** 2
        w = 1 / (1 + np.exp(-np.clip(z, -30, 30)))
    return (m0, m1, s0, s1, share) if m0 <= m1 else (m1, m0, s1, s0, 1 - share)
