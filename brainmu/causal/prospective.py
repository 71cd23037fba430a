"""Power before the experiment: simulated studies with a planted effect, analysed as the real one would be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from brainmu.errors import BrainmuError, InputError

if TYPE_CHECKING:
    import pandas as pd

    from brainmu.core.recording import Recording

__all__ = ["power"]

_MARGIN = 1.6  # of the hours that the asked number of trials takes on average, because animals differ


def power(
    *, design: Literal["trials", "hazard", "matched", "glm"] = "trials", animals: Sequence[int] = (4, 6, 8, 10), trials: int = 60, hours: float | None = None,
    effect: float = 0.9, animal_sd: float = 0.3, effect_sd: float = 0.0, studies: int = 200, draws: int = 499, seed: int = 0,
    progress: Callable[[str, float], None] | None = None, mechanism: dict[str, Any] | None = None, **question: Any,
) -> pd.DataFrame:  # fmt: skip
    """Share of simulated studies that find a planted effect, with exact 95 % limits.

    Parameters
    ----------
    design : {"trials", "hazard", "matched", "glm"}
    animals : sequence of int
        Numbers of animals; a study of the most is simulated and smaller ones are its first animals.
    trials : int
        Trials an animal (design "trials"), the first so many of its recording.
    hours : float or None, h
        Length of each recording. None: for trials as long as they take; 2 h otherwise.
    effect : float
        Planted log hazard ratio of leaving NREM for WAKE, of a delivered trial or of a reactivation. 0 gives the rate of false alarms.
    animal_sd, effect_sd : float
        SD between animals of the log hazard of waking (and of the log rate of reactivation), and of the effect.
    studies, draws : int
        Simulated studies; draws of the randomisation test in each.
    seed : int
    progress : callable or None
    mechanism : dict or None
        Other arguments of :func:`brainmu.synth.study` (`trial_spacing`, `trial_duration`, `confounding`, `reactivation_rate`, …).
    **question
        Other arguments of :func:`brainmu.estimate_effect` (`horizon`, `outcome`, `adjust`, …).

    Returns
    -------
    DataFrame, one row a number of animals
        animals, trials (median an animal), studies, failed (not analysable: counted as not found), power, power_low, power_high (p < 0.05),
        interval_power (the interval over animals leaves out zero), estimate (mean), half_width (median).

    Raises
    ------
    InputError
        If a number is out of range.

    Examples
    --------
    >>> table = power(animals=[3], trials=10, hours=0.4, effect=3.0, studies=2, draws=99)
    >>> table["animals"].tolist(), table["studies"].tolist()
    ([3], [2])
    """
    import pandas as pd

    from brainmu.causal.effect import estimate_effect

    if design not in ("trials", "hazard", "matched", "glm"):
        raise InputError(f"design is {design!r}, expected trials, hazard, matched or glm")
    numbers = sorted({int(n) for n in animals})
    if not numbers or numbers[0] < 2:
        raise InputError(f"animals is {list(animals)}, expected numbers of 2 or more: one animal says nothing of others")
    if studies < 1 or trials < 2:
        raise InputError(f"studies is {studies} and trials {trials}, expected at least 1 and 2")
    plan = _plan(design, trials, hours, effect, animal_sd, effect_sd, mechanism or {}, seed)
    ask = {"exposure": "trials" if design == "trials" else "reactivation", "design": design, "diagnostics": False, "draws": draws} | question
    if design != "trials":
        ask = {"content": "negative"} | ask
    found: dict[int, list[tuple[float, float, float, float]]] = {n: [] for n in numbers}
    counts = []
    for s in range(studies):
        herd = _herd(plan, numbers[-1], trials if design == "trials" else None, seed, s)
        counts += [len(r.events("trials")) for r in herd] if design == "trials" else []
        for n in numbers:
            try:
                e = estimate_effect(herd[:n], seed=s, **ask)
                found[n].append((e.estimate, e.low, e.high, e.p_value))
            except BrainmuError:
                # A study too small to be analysed is one that found nothing; a question that cannot be asked at all fails every time.
                if s == 0 and n == numbers[-1]:
                    raise
                found[n].append((float("nan"),) * 4)
        if progress is not None:
            progress("simulated studies", (s + 1) / studies)
    return pd.DataFrame([_row(n, np.array(found[n]), counts) for n in numbers])


def _plan(
    design: str, trials: int, hours: float | None, effect: float, animal_sd: float, effect_sd: float, mechanism: dict[str, Any], seed: int
) -> dict[str, Any]:  # fmt: skip
    """Arguments of the generator."""
    from brainmu.synth import study

    plan: dict[str, Any] = {"animal_sd": animal_sd, "effect_sd": effect_sd}
    if design == "trials":
        plan |= {"log_hazard_ratio": {"negative": 0.0, "positive": 0.0}, "trial_log_hazard_ratio": {"negative": float(effect)}} | mechanism
        if hours is None:
            pilot = study(n_animals=8, hours=2.0, seed=seed, **plan)[0]
            rate = float(np.mean([len(r.events("trials")) for r in pilot])) / 2.0
            if rate <= 0:
                raise InputError("no trial was gated in 8 pilot animals of 2 h: shorten trial_spacing or trial_min_age")
            hours = _MARGIN * trials / rate
        return plan | {"hours": max(float(hours), 0.1)}
    plan |= {"log_hazard_ratio": {"negative": float(effect), "positive": 0.0}, "trials": False, "hours": 2.0 if hours is None else float(hours)}
    return plan | mechanism


def _herd(plan: dict[str, Any], n: int, trials: int | None, seed: int, number: int) -> list[Recording]:
    """The animals of one study, each with its first `trials` trials."""
    from brainmu.synth import study

    herd = study(n_animals=n, seed=int(np.random.SeedSequence([seed, number, 9]).generate_state(1)[0]), **plan)[0]
    if trials is not None:
        for r in herd:
            r.labels["trials"] = r.events("trials").sorted()[:trials]
    return herd


def _row(n: int, found: np.ndarray, counts: list[int]) -> dict[str, float]:
    from scipy import stats

    total = len(found)
    with np.errstate(invalid="ignore"):
        hits = int((found[:, 3] < 0.05).sum())
        clear = int(((found[:, 1] > 0) | (found[:, 2] < 0)).sum())
    limits = stats.binomtest(hits, total).proportion_ci(0.95, method="exact")
    ok = found[np.isfinite(found[:, 0])]
    return {
        "animals": n, "trials": float(np.median(counts)) if counts else float("nan"), "studies": total, "failed": total - len(ok), "power": hits / total,
        "power_low": float(limits.low), "power_high": float(limits.high), "interval_power": clear / total,
        "estimate": float(ok[:, 0].mean()) if len(ok) else float("nan"),
        "half_width": float(np.nanmedian((ok[:, 2] - ok[:, 1]) / 2)) if len(ok) else float("nan"),
    }  # fmt: skip
