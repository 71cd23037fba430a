"""The answer to a causal question, with everything one needs to doubt it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.errors import InputError

__all__ = ["LEVELS", "Effect", "interval_text", "jsonable"]

LEVELS = ("experimental", "observational", "model")


@dataclass
class Effect:
    """An estimated effect.

    Parameters
    ----------
    estimand : str
        The question as a sentence: which intervention, on which events, read out how, in which animals.
    estimate, low, high : float
        Point estimate and 95 % interval, in `unit`.
    p_value : float
        Two-sided, against no effect; NaN where no test was made.
    unit : str
        "log odds ratio", "risk difference", …
    level : {"experimental", "observational", "model"}
        What kind of evidence it is. A model-level effect is never a brain effect.
    null : float64 (n,)
        Draws of the estimate under the null (randomisation test, placebo edits); empty where none.
    n_units, n_events : int
        Animals (clusters), and exposures or trials.
    assumptions : list of str
        What must hold for the number to mean what the estimand says.
    diagnostics : dict
        Effective sample size, positivity, negative controls, sensitivity, lag scan, warnings, …
    scale, regime, population, risk_set : str
        Scale of the estimate; the intervention compared; whom the weights stand for; who is at risk.
    lag : int
        Epochs between exposure and the first outcome epoch.
    blank, horizon : float, s
        Excluded end of the exposure epoch; how long after exposure the outcome counts.
    n_exposed, n_transitions : int
        Exposed epochs (or treated trials) and outcome transitions in the risk set.
    """

    estimand: str
    estimate: float
    low: float
    high: float
    p_value: float
    unit: str
    level: str
    null: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    n_units: int = 0
    n_events: int = 0
    assumptions: list[str] = field(default_factory=list)
    diagnostics: dict[str, Any] = field(default_factory=dict)
    scale: str = ""
    regime: str = ""
    population: str = ""
    risk_set: str = ""
    lag: int = 0
    blank: float = 0.0
    horizon: float = float("nan")
    n_exposed: int = 0
    n_transitions: int = 0

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise InputError(f"effect level is {self.level!r}, expected one of {', '.join(LEVELS)}")
        if np.isfinite([self.low, self.high]).all() and self.low > self.high:
            raise InputError(f"effect interval is [{self.low}, {self.high}], expected low <= high")
        self.null = np.asarray(self.null, dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain Python values (for JSON)."""
        return jsonable({f.name: getattr(self, f.name) for f in dataclasses.fields(self)})

    def to_json(self, indent: int | None = None) -> str:
        return json.dumps(self.to_dict(), indent=indent, allow_nan=False)

    def __str__(self) -> str:
        where = {"model": " in the model", "observational": " (observational)", "experimental": " (randomised)"}[self.level]
        p = "" if np.isnan(self.p_value) else f", p = {self.p_value:.3g}"
        interval = interval_text(self.estimate, self.low, self.high)
        counts = ", ".join(f"{n} {what}{'' if n == 1 else 's'}" for n, what in ((self.n_units, "animal"), (self.n_events, "event")))
        return f"{self.estimand}\n  {self.unit}{where}: {interval}{p}; {counts}"


def interval_text(estimate: float, low: float, high: float) -> str:
    """An estimate with its interval: three decimals, and more where all of it would be zero.

    Examples
    --------
    >>> interval_text(0.12, -0.01, 0.25), interval_text(-5.9e-05, -2.9e-04, 9e-06)
    ('+0.120 [-0.010, +0.250]', '-0.00006 [-0.00029, +0.00001]')
    """
    sizes = [abs(v) for v in (estimate, low, high) if np.isfinite(v) and v]
    digits = 3 if not sizes or max(sizes) >= 0.01 else min(1 - int(np.floor(np.log10(max(sizes)))), 12)
    return f"{estimate:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"


def jsonable(value: Any) -> Any:
    """`value` with numpy, dataclasses and NaN turned into what strict JSON can hold (NaN becomes None)."""
    if isinstance(value, dict):
        return {str(k): jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [jsonable(v) for v in value]
    if isinstance(value, np.ndarray):
        return jsonable(value.tolist())
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return jsonable({f.name: getattr(value, f.name) for f in dataclasses.fields(value)})
    if value is None or isinstance(value, str):
        return value
    return str(value)
