"""Closed loops: when gates opened, how long until the onset, at which phase, and whether both arms were logged alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.causal.trial_table import Trials

__all__ = ["closed_loop"]

TIMES = ("detected", "detection_time", "detector_time")
"""Columns that hold when the detector found its event, s."""
PHASES = ("phase", "stim_phase")
"""Columns that hold the phase at the onset, rad."""


def closed_loop(ledger: Trials) -> dict[str, Any]:
    """Latency from detection (or gate) to onset and phase at the onset, by arm; empty where the ledger holds none.

    In a closed loop the gate comes first and the coin after it, so that sham trials are logged like the others: latency and phase must not
    differ between the arms. `warnings` says where they do, and where one arm lacks what the other has.
    """
    out: dict[str, Any] = {}
    said: list[str] = []
    found = next((c for c in TIMES if c in ledger.extra), None)
    since = ledger.onset - (ledger.extra[found] if found else ledger.gate)
    if found or (ledger.gate != ledger.onset).any():
        out["latency"] = _by_arm(ledger, since, _summary)
        late = since < -1e-6
        if late.any():
            said.append(f"{int(late.sum())} trials began before their detection: check the clock of column {found!r}")
        p = _rank_test(since, ledger.assigned)
        out["latency"]["p_value"] = p
        if p < 0.01:
            said.append(f"latency from detection to onset differs between the arms (p = {p:.2g}): sham trials are not logged as the delivered ones are")
    phase = next((c for c in PHASES if c in ledger.extra), None)
    if phase:
        out["phase"] = _by_arm(ledger, ledger.extra[phase], _circular)
        z = np.exp(1j * ledger.extra[phase])
        p = min(1.0, 2 * min(_rank_test(z.real, ledger.assigned), _rank_test(z.imag, ledger.assigned)))
        out["phase"]["p_value"] = p
        if p < 0.01:
            said.append(f"the phase at the onset differs between the arms (p = {p:.2g}): sham trials are not gated as the delivered ones are")
    for name in (c for c in (found, phase) if c):
        missing = [float(np.isnan(ledger.extra[name][ledger.assigned == a]).mean()) for a in (True, False)]
        if abs(missing[0] - missing[1]) > 0.05:
            said.append(f"column {name!r} is missing in {missing[0]:.0%} of assigned and {missing[1]:.0%} of control trials: sham is not logged identically")
    return out | {"warnings": said} if out else {}


def _by_arm(ledger: Trials, values: NDArray[np.float64], summary: Any) -> dict[str, Any]:
    return {name: summary(values[rows & np.isfinite(values)]) for name, rows in (("assigned", ledger.assigned), ("control", ~ledger.assigned))}


def _summary(v: NDArray[np.float64]) -> dict[str, float]:
    if not len(v):
        return {"n": 0}
    q = np.quantile(v, [0.05, 0.5, 0.95])
    return {"n": len(v), "median": float(q[1]), "p05": float(q[0]), "p95": float(q[2])}


def _circular(v: NDArray[np.float64]) -> dict[str, float]:
    if not len(v):
        return {"n": 0}
    z = np.exp(1j * v).mean()
    return {"n": len(v), "mean": float(np.angle(z)), "resultant": float(np.abs(z))}


def _rank_test(values: NDArray[np.float64], arm: NDArray[np.bool_]) -> float:
    """Two-sided rank test of one arm against the other; 1 where it cannot be made."""
    from scipy import stats

    a, b = values[arm & np.isfinite(values)], values[~arm & np.isfinite(values)]
    if min(len(a), len(b)) < 5 or np.ptp(np.r_[a, b]) == 0:
        return 1.0
    return float(stats.mannwhitneyu(a, b).pvalue)
