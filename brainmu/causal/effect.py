"""The one door: ``estimate_effect`` checks the question and hands it to a design."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from brainmu.causal.grid import EpochGrid, Transition, check_epoch, epochs_in, subjects_of
from brainmu.causal.hazard import HazardModel, estimate_hazard
from brainmu.causal.msm import estimate_msm
from brainmu.causal.trials import estimate_trials
from brainmu.core.effect import Effect
from brainmu.core.events import EventTable
from brainmu.core.recording import Recording, as_list
from brainmu.errors import DesignError

__all__ = ["DESIGNS", "estimate_effect"]

DESIGNS = ("trials", "hazard", "msm")


def estimate_effect(
    sessions: Recording | Iterable[Recording], *, exposure: str | Mapping[str, EventTable], outcome: str = "NREM->WAKE",
    design: Literal["trials", "hazard", "msm"] = "trials", adjust: Sequence[str] = (), adjust_window: float | None = None, horizon: float | None = None,
    labels: str | None = "scoring", lag: int = 1, blank: float = 0.0, dose: Literal["count"] | None = None, clock: bool = True,
    weight: Literal["animal", "event"] = "animal", competing: str | Mapping[str, str] | None = None, scheme: Literal["bernoulli", "blocked"] | None = None,
    content: str | tuple[str, str] | None = None, contrast: tuple[str, str] | None = None,
    truncate: float | None = None, diagnostics: bool = True, draws: int = 10_000, seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Effect:  # fmt: skip
    """Does an exposure change when a stage of sleep ends?

    Parameters
    ----------
    sessions : Recording or Session, or several
        Any number an animal; the animal (`recording.subject`) is the cluster.
    exposure : str or mapping of recording id to EventTable
        The label that holds the events (`hazard`) or the ledger of trials (`trials`: columns `assigned`, `probability`, and where known
        `delivered`, `block`, `gate_time`, `arm`, `content`).
    outcome : str
        "NREM->WAKE": who is at risk, and what counts as leaving. WAKE, NREM and REM also name groups of AASM stages.
    design : {"trials", "hazard", "msm"}
        Randomised trials by intention to treat (risk difference); observation (conditional log odds ratio an epoch); or observation of
        a window of exposure that itself moves the confounder (marginal structural model: marginal log odds ratio).
    adjust : sequence of str
        Signals to adjust for ("pressure", or one channel, "bands:delta"): the last sample at or before the reference time, which is the
        start of the first event, and for unexposed epochs is drawn from the exposed ones' within-epoch distribution.
    adjust_window : float or None, s
        Mean over the seconds that end at the reference time instead of the last sample.
    horizon : float or None, s
        Seconds after the exposure. `hazard`: a multiple of the epoch (default: one epoch); longer asks for any event in as many epochs at
        risk. `trials`: the target is first reached in (onset, onset + horizon] (default: 10 s).
    labels : str or None
        Name of the hypnogram; None takes the only one.
    lag : int
        Epochs between exposure and the epoch whose outcome is read, all at risk. 0 reproduces published practice and warns.
    blank : float, s
        End of the exposure epoch in which events do not count.
    dose : "count" or None
        Events counted, instead of at least one.
    clock : bool
        Adjust `hazard` for time since sleep onset, and for zeitgeber time where the recordings know it.
    weight : {"animal", "event"}
        Whom the estimate stands for: animals, or events (trials).
    competing : {"zero", "censor", "exclude"}, or mapping of "exit", "next", "end" to one of them
        `trials`: what a trial counts as when another stage, the next trial or the end of scoring comes first. By default another stage
        first is "zero" (the target was not reached), the other two are "censor" (unknown: weighted for).
    scheme : {"bernoulli", "blocked"} or None
        How trials were randomised; None reads it off the ledger.
    content : str, (str, str) or None
        Only events of this content (the others stand beside it); or, in `hazard`, the first against the second.
    contrast : (str, str) or None
        `trials` with several arms: the first arm against the second.
    truncate : float or None
        `msm`: percentile at which weights are cut; None leaves them. Cutting has ruined coverage in validation.
    diagnostics : bool
        False returns the estimate alone, fast.
    draws : int
        Draws of the randomisation test and of the wild bootstrap.
    seed : int
    progress : callable or None
        Called with a stage's label and the fraction done.

    Returns
    -------
    Effect
        `hazard`: log odds ratio conditional on `adjust`, a spline of time in bout and animal intercepts. `trials`: risk difference.
        `msm`: log odds ratio averaged over confounders and animals.

    Raises
    ------
    DesignError
        If the data cannot answer the question: no animal names, an empty arm, overlapping trials, a ledger that contradicts itself,
        exposure after the outcome, a horizon off the grid, a covariate that uses its future.

    Examples
    --------
    >>> from brainmu import EventTable, Hypnogram, Recording
    >>> rng = np.random.default_rng(0)
    >>> def night(mouse):
    ...     coin = rng.random(60) < 0.5
    ...     stages = []
    ...     for c in coin:  # 40 s of NREM a trial; a trial that is assigned wakes the mouse after 8 s more often
    ...         stages += ["NREM"] * 6 + (["WAKE"] * 2 if rng.random() < 0.2 + 0.4 * c else ["NREM"] * 2) + ["NREM"] * 2
    ...     on = np.arange(60) * 40.0 + 16
    ...     trials = EventTable(on, on + 1, kind="trial", assigned=coin, probability=0.5)
    ...     return Recording.from_arrays(mouse, mouse, "mouse", labels={"scoring": Hypnogram.from_stages(stages, epoch=4.0), "trials": trials})
    >>> effect = estimate_effect([night(m) for m in "abcd"], exposure="trials", horizon=10.0)
    >>> effect.unit, 0.2 < effect.estimate < 0.6, effect.p_value < 0.01
    ('risk difference', True, True)
    """
    recordings = as_list(sessions)
    subjects, notes = subjects_of(recordings)
    transition = Transition.parse(outcome)
    _check_choices(design=design, weight=weight, dose=dose, draws=draws, lag=lag, blank=blank, adjust_window=adjust_window)
    grids = [EpochGrid.of(r, s, transition, labels) for r, s in zip(recordings, subjects)]
    epoch = check_epoch(grids)
    if not any(g.source.any() for g in grids):
        raise DesignError(f"no epoch of {len(grids)} hypnograms is scored {transition.source}, expected some at risk of {transition}")
    centred = [g.recording.id for g in grids if g.hypnogram.attrs.get("centred")]
    if design == "trials":
        if isinstance(content, tuple):
            raise DesignError(f"content is {content!r}: trials take one content; their contrasts stand in diagnostics['contents']")
        effect = estimate_trials(
            grids, exposure, transition, horizon=10.0 if horizon is None else float(horizon), content=content, contrast=contrast, weight=weight,
            competing=competing, scheme=scheme, diagnostics=diagnostics, draws=draws, seed=seed, progress=progress,
        )  # fmt: skip
        if centred:
            notes.append(f"the hypnogram of {centred[0]} is centred (an epoch's label used its future): transitions are smeared over its window")
    else:
        known = [r.zeitgeber is not None for r in recordings]
        if clock and any(known) and not all(known):
            notes.append(f"{known.count(False)} of {len(known)} recordings do not know their zeitgeber time, so none is adjusted for it")
        if centred:
            raise DesignError(
                f"the hypnogram of {centred[0]} is centred (an epoch's label used its future), so it cannot be the outcome of an observational analysis: "
                "stage with past-only features"
            )
        if not 0 <= blank < epoch:
            raise DesignError(f"blank is {blank:g} s, expected at least 0 and less than the {epoch:g} s epoch")
        horizon = epoch if horizon is None else float(horizon)
        names = (adjust,) if isinstance(adjust, str) else tuple(adjust)
        model = HazardModel(
            lag=lag, width=epochs_in(horizon, epoch), blank=float(blank), adjust=names, adjust_window=adjust_window, content=content,
            count=dose == "count", clock=clock, weight=weight,
        )  # fmt: skip
        if design == "msm":
            effect = estimate_msm(
                grids, exposure, transition, horizon=horizon, model=model, truncate=truncate, diagnostics=diagnostics, seed=seed, progress=progress
            )  # fmt: skip
        else:
            effect = estimate_hazard(
                grids, exposure, transition, horizon=horizon, model=model, diagnostics=diagnostics, draws=draws, seed=seed, progress=progress
            )  # fmt: skip
    if diagnostics:
        effect.diagnostics["warnings"] = notes + effect.diagnostics.get("warnings", [])
    return effect


def _check_choices(
    *, design: str, weight: str, dose: str | None, draws: int, lag: int, blank: float, adjust_window: float | None,
) -> None:  # fmt: skip
    if design not in DESIGNS:
        raise DesignError(f"design is {design!r}, expected one of {', '.join(DESIGNS)}")
    if weight not in ("animal", "event"):
        raise DesignError(f"weight is {weight!r}, expected 'animal' or 'event'")
    if dose not in (None, "count"):
        raise DesignError(f"dose is {dose!r}, expected None (at least one event) or 'count'")
    if draws < 0:
        raise DesignError(f"draws is {draws}, expected 0 (no test) or more; 10000 resolves p to 0.0001")
    if lag != int(lag):
        raise DesignError(f"lag is {lag} epochs, expected a whole number: 1 is the default")
    if lag < 0:
        raise DesignError(f"lag is {lag} epochs, so the exposure would follow the outcome: expected 0, 1, 2, …")
    if not np.isfinite(blank):
        raise DesignError(f"blank is {blank} s, expected a finite number")
    if adjust_window is not None and not (np.isfinite(adjust_window) and adjust_window > 0):
        raise DesignError(f"adjust_window is {adjust_window} s, expected a positive number: only the past may be averaged")
