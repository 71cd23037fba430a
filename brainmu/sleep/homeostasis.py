"""The homeostatic decline of slow-wave activity over sleep: a line and an exponential, each with an interval, and which of the two fits."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.errors import InputError, MissingDataError

__all__ = ["swa_decline"]

Float = NDArray[np.float64]
_LEAST = 5  # bouts; three parameters need more than three


def swa_decline(activity: pd.DataFrame, *, draws: int = 500, seed: int = 0) -> pd.DataFrame:
    """Fit the decline of slow-wave activity with time asleep or awake in the recording.

    Parameters
    ----------
    activity : DataFrame
        From :func:`brainmu.sleep.slow_wave_activity`: start, duration (s) and activity (% of the NREM mean) of NREM bouts.
    draws : int
        Resamples of whole bouts, for the intervals.
    seed : int

    Returns
    -------
    DataFrame
        model, parameter, value, low, high (95 %), unit. ``linear``: start (%), slope (%/h). ``exponential`` (towards zero): start (%), time constant and
        half-life (h; infinite where activity does not fall), decline (%/h, negative when it falls). ``exponential to a floor``: start above the floor,
        floor (%), time constant (h, looked for between a tenth and three times the span). Each model also has ``aic_c``
        (lower is better) and ``r2``. Where bouts do not tell a parameter, its interval is wide: report it.
        ``attrs``: ``bouts``, ``hours`` (from the first to the last), ``best`` (model of least AICc).

    Raises
    ------
    MissingDataError
        With fewer than five bouts, or bouts within less than half an hour.

    References
    ----------
    Borbély 1982, Hum. Neurobiol. 1:195; Achermann et al. 1993, Brain Res. Bull. 31:97; Huber et al. 2000, Sleep 23:1019 (mice);
    Hurvich & Tsai 1989, Biometrika 76:297 (AICc).

    Examples
    --------
    >>> t = np.arange(12) * 2400.0
    >>> bouts = pd.DataFrame({"start": t, "duration": 600.0, "activity": 200 * np.exp(-(t + 300) / 3600 / 4)})
    >>> found = swa_decline(bouts, draws=50).set_index(["model", "parameter"])["value"]
    >>> round(float(found["exponential", "time constant"]), 2)
    4.0
    """
    missing = {"start", "duration", "activity"} - set(activity.columns)
    if missing:
        raise InputError(f"the table of slow-wave activity lacks {', '.join(sorted(missing))}: take it from brainmu.sleep.slow_wave_activity")
    if draws < 0:
        raise InputError(f"the decline was asked for {draws} draws, expected 0 or more")
    table = activity[np.isfinite(activity["activity"]) & (activity["activity"] > 0)]
    first = float(table["start"].min()) if len(table) else 0.0
    hours = (table["start"] + table["duration"] / 2 - first).to_numpy(dtype=np.float64) / 3600
    span = float(np.ptp(hours)) if len(hours) else 0.0
    if len(table) < _LEAST or span < 0.5:
        raise MissingDataError(f"slow-wave activity of {len(table)} NREM bouts over {span:.1f} h, expected at least {_LEAST} bouts over half an hour")
    y, weight = table["activity"].to_numpy(dtype=np.float64), table["duration"].to_numpy(dtype=np.float64)
    weight = weight / weight.mean()
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, len(y), len(y)) for _ in range(draws)]
    models = {"linear": _line, "exponential": _exponential, "exponential to a floor": _to_floor}
    rows, scores = [], {}
    for name, fit in models.items():
        found, fitted, n_free = fit(hours, y, weight)
        again = [fit(hours[k], y[k], weight[k])[0] for k in drawn if len(np.unique(k)) > n_free]
        for parameter, (value, unit) in found.items():
            spread = np.array([a[parameter][0] for a in again])
            low, high = np.quantile(spread, [0.025, 0.975], method="closest_observation") if len(spread) else (np.nan, np.nan)
            rows.append((name, parameter, value, float(low), float(high), unit))
        scores[name] = _aic(y, fitted, weight, n_free)
        r2 = 1 - float((weight * (y - fitted) ** 2).sum() / (weight * (y - np.average(y, weights=weight)) ** 2).sum()) if np.ptp(y) > 0 else float("nan")
        rows += [(name, "aic_c", scores[name], np.nan, np.nan, ""), (name, "r2", r2, np.nan, np.nan, "")]
    out = pd.DataFrame(rows, columns=["model", "parameter", "value", "low", "high", "unit"])
    out.attrs = {"bouts": len(y), "hours": span, "best": min(scores, key=lambda k: scores[k])}
    return out


Fit = tuple[dict[str, tuple[float, str]], Float, int]


def _line(t: Float, y: Float, weight: Float) -> Fit:
    slope, start = _weighted_line(t, y, weight)
    return {"start": (start, "%"), "slope": (slope, "%/h")}, start + slope * t, 2


def _exponential(t: Float, y: Float, weight: Float) -> Fit:
    """Least squares on the activity itself, so that its error can be compared with the line's."""
    guess, _ = _weighted_line(t, np.log(y), weight)
    rate = _best_rate(t, y, weight, np.clip(guess, -5, 5) + np.linspace(-1, 1, 41), floor=False)
    start, _ = _amplitude(t, y, weight, rate, floor=False)
    falls = rate < 0
    found = {"start": (start, "%"), "decline": (100 * float(np.expm1(rate)), "%/h"), "time constant": (-1 / rate if falls else float("inf"), "h"),
             "half-life": (float(np.log(2)) / -rate if falls else float("inf"), "h")}  # fmt: skip
    return found, start * np.exp(rate * t), 2


def _to_floor(t: Float, y: Float, weight: Float) -> Fit:
    # A time constant much longer than the recording is a line, and one much shorter a step: neither is told.
    span = max(float(np.ptp(t)), 1e-6)
    rate = _best_rate(t, y, weight, -1 / (span * np.geomspace(0.1, 3.0, 60)), floor=True)
    start, floor = _amplitude(t, y, weight, rate, floor=True)
    return {"start": (start, "%"), "floor": (floor, "%"), "time constant": (-1 / rate, "h")}, floor + start * np.exp(rate * t), 3


def _best_rate(t: Float, y: Float, weight: Float, rates: Float, *, floor: bool) -> float:
    """The rate (1/h) of least squared error: a grid, then its best cell again."""
    best = float(rates[0])
    for _ in range(3):
        start, level = _amplitudes(t, y, weight, rates, floor=floor)
        error = (weight * (y - level[:, None] - start[:, None] * np.exp(rates[:, None] * t)) ** 2).sum(axis=1)
        k = int(np.argmin(error))
        best = float(rates[k])
        rates = np.linspace(rates[max(k - 1, 0)], rates[min(k + 1, len(rates) - 1)], 21)
    return best


def _amplitudes(t: Float, y: Float, weight: Float, rates: Float, *, floor: bool) -> tuple[Float, Float]:
    """Start and floor (rate,) of least squared error at each rate; the floor is not below zero."""
    wave = np.exp(rates[:, None] * t)
    start, level = (weight * wave * y).sum(axis=1) / (weight * wave**2).sum(axis=1), np.zeros(len(rates))
    if floor:
        mx, my = (weight * wave).sum(axis=1) / weight.sum(), float(np.average(y, weights=weight))
        off = wave - mx[:, None]
        slope = (weight * off * (y - my)).sum(axis=1) / np.maximum((weight * off**2).sum(axis=1), 1e-30)
        free = my - slope * mx
        start, level = np.where(free >= 0, slope, start), np.maximum(free, 0.0)
    return start, level


def _amplitude(t: Float, y: Float, weight: Float, rate: float, *, floor: bool) -> tuple[float, float]:
    start, level = _amplitudes(t, y, weight, np.array([rate]), floor=floor)
    return float(start[0]), float(level[0])


def _weighted_line(x: Float, y: Float, weight: Float) -> tuple[float, float]:
    mx, my = np.average(x, weights=weight), np.average(y, weights=weight)
    spread = float((weight * (x - mx) ** 2).sum())
    slope = float((weight * (x - mx) * (y - my)).sum() / spread) if spread > 0 else 0.0
    return slope, float(my - slope * mx)


def _aic(y: Float, fitted: Float, weight: Float, n_free: int) -> float:
    n, k = len(y), n_free + 1  # the variance is a parameter too
    error = max(float((weight * (y - fitted) ** 2).sum()) / n, 1e-12)
    return float(n * np.log(error) + 2 * k + (2 * k * (k + 1) / (n - k - 1) if n - k > 1 else np.inf))
