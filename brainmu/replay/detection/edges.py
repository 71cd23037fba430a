"""From log odds a bin to events with edges between bins."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d, maximum_filter1d

from brainmu.replay.bursts import run_above
from brainmu.replay.detection.traces import BIN

__all__ = ["FEATURES", "FLOOR", "events_in"]

FEATURES = ("peak_log_odds", "mean_log_odds", "log_duration")
FLOOR = 0.02
"""Least probability of a bin, before calibration, at which there may be a candidate."""
_SIGMA = 1.5
_APART = 0.05


def events_in(log_odds: NDArray[np.float32], start: float, *, floor: float = FLOOR, shortest: float, longest: float) -> NDArray[np.float64]:
    """Candidates (n, 6): start, stop, peak (s), then FEATURES.

    A candidate is a peak of the smoothed probability above `floor`; it reaches as far as the probability stays above half its peak.
    """
    x = gaussian_filter1d(log_odds.astype(np.float64), _SIGMA, mode="nearest")
    p = 1 / (1 + np.exp(-x))
    reach = int(longest / BIN)
    rows: list[tuple[float, ...]] = []
    for top in np.flatnonzero((p >= floor) & (p == maximum_filter1d(p, int(_APART / BIN) | 1))):
        if rows and start + top * BIN < rows[-1][1] and x[top] <= rows[-1][3]:
            continue  # a lesser peak of the event before
        level = p[top] / 2
        a, b = run_above(p, int(top), level, reach)
        first = a - (p[a] - level) / max(p[a] - p[a - 1], 1e-9) if a > 0 else float(a)
        last = b - 1 + (p[b - 1] - level) / max(p[b - 1] - p[b], 1e-9) if b < len(p) else float(b)
        row = (start + (first + 0.5) * BIN, start + (last + 0.5) * BIN, start + (top + 0.5) * BIN, float(x[top]), float(x[a:b].mean()))
        while rows and row[0] < rows[-1][1]:
            before = rows.pop()
            high = row if row[3] >= before[3] else before
            row = (min(row[0], before[0]), max(row[1], before[1]), *high[2:])
        rows.append(row)
    out = np.array(rows, dtype=np.float64).reshape(-1, 5)
    length = out[:, 1] - out[:, 0]
    keep = (length >= shortest) & (length <= longest)
    return np.c_[out, np.log(np.maximum(length, BIN))][keep]
