"""The one door: ``estimate_effect`` checks the question and hands it to a design."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

from brainmu._version import __version__
from brainmu.causal.coupling import estimate_coupling
from brainmu.causal.exposures import check_exposures
from brainmu.causal.grid import EpochGrid, check_epoch, epochs_in, events_of, subjects_of
from brainmu.causal.hazard import HazardModel, estimate_hazard
from brainmu.causal.matched import estimate_matched
from brainmu.causal.matching import Matching
from brainmu.causal.measurement import Share, carry_detection, carry_stages, check_share
from brainmu.causal.msm import estimate_msm
from brainmu.causal.outcome import Outcome
from brainmu.causal.preregistration import question_hash
from brainmu.causal.trials import estimate_trials
from brainmu.core.effect import Effect
from brainmu.core.events import EventTable
from brainmu.core.recording import Recording, as_list
from brainmu.errors import DesignError

__all__ = ["DESIGNS", "check_question", "default_horizon", "estimate_effect"]

DESIGNS = ("trials", "hazard", "msm", "matched", "glm")
FOLLOWED = 60.0
"""Seconds for which outcomes other than a transition are followed where no horizon is given."""


def estimate_effect(
    sessions: Recording | Iterable[Recording], *, exposure: str | Mapping[str, EventTable], outcome: str = "NREM->WAKE",
    design: Literal["trials", "hazard", "msm", "matched", "glm"] = "trials", adjust: Sequence[str] = (), adjust_window: float | None = None,
    horizon: float | None = None,
    labels: str | None = "scoring", lag: int = 1, blank: float = 0.0, dose: Literal["count"] | None = None, clock: bool = True,
    weight: Literal["animal", "event"] = "animal", competing: str | Mapping[str, str] | None = None, scheme: Literal["bernoulli", "blocked"] | None = None,
    content: str | tuple[str, str] | None = None, contrast: tuple[str, str] | None = None, arms: tuple[str, str] | None = None,
    truncate: float | None = None, matches: int = 5, distance: Literal["propensity", "mahalanobis"] = "propensity", caliper: float | None = None,
    basis: int = 4, recall: Share | None = None, precision: Share | None = None, stage_draws: int = 5, settle: float | None = None,
    diagnostics: bool = True, draws: int = 10_000, seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
) -> Effect:  # fmt: skip
    """Does an exposure change how sleep goes on?

    Parameters
    ----------
    sessions : Recording or Session, or several
        Any number an animal; the animal (`recording.subject`) is the cluster.
    exposure : str or mapping of recording id to EventTable
        The label that holds the events (observation) or the ledger of trials (`trials`: columns `assigned`, `probability`, and where known
        `delivered`, `block`, `gate_time`, `arm`, `content`).
    outcome : str
        "NREM->WAKE": who is at risk, and what counts as leaving. WAKE, NREM and REM also name groups of AASM stages; a target may also be
        "microarousal" (WAKE of at most 15 s, then the source again), "awakening" (longer) or "any". With `trials` and `matched` also
        "time to WAKE", "bout length" (what is left of it), "signal:bands:delta" (its mean after the exposure) or "change:bands:delta" (less the
        mean over as long before), "depth:bands:delta" and "rebound:bands:delta" (the same two, of the NREM in these seconds alone: how deep sleep is, and the
        homeostatic rebound of sleep that was lost), each up to the horizon, and each "… from REM" where it is not NREM that is at risk.
    design : {"trials", "hazard", "msm", "matched", "glm"}
        Randomised trials by intention to treat (risk difference); observation (conditional log odds ratio an epoch); observation of
        a window of exposure that itself moves the confounder (marginal structural model: marginal log odds ratio); exposed epochs against
        like unexposed ones (risk-set matching: conditional log odds ratio); or the time course of an event's effect (point-process
        regression: log odds ratio an event, averaged over the horizon).
    adjust : sequence of str
        Signals to adjust for ("pressure", or one channel, "bands:delta"): the last sample at or before the reference time, which is the
        start of the first event, and for unexposed epochs is drawn from the exposed ones' within-epoch distribution. `trials` need no adjustment; of a signal
        ("signal:pupil") they take off what goes with other signals ("light") in the same seconds, linearly within animals and arms.
    adjust_window : float or None, s
        Mean over the seconds that end at the reference time instead of the last sample.
    horizon : float or None, s
        Seconds after the exposure. `hazard`, `msm`, `matched`: a multiple of the epoch (default: one epoch); longer asks for any event in as
        many epochs at risk. `glm`: the time since an event over which its effect is followed, a multiple of the epoch (default: ten epochs).
        `trials`: the target is first reached in (onset, onset + horizon] (default: 10 s). Outcomes that are no transition: how long they are
        followed (default: 60 s).
    labels : str or None
        Name of the hypnogram; None takes the only one.
    lag : int
        Epochs between exposure and the epoch whose outcome is read, all at risk. 0 reproduces published practice and warns.
    blank : float, s
        End of the exposure epoch in which events do not count. `trials` of a signal: seconds from the onset that are left out in both arms
        (a stimulation artefact).
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
        Only events of this content (the others stand beside it); or, in `hazard`, `glm` and `trials`, the first against the second. In `trials` that is
        how much more assignment does with the first content than with the second, within animals.
    contrast : (str, str) or None
        `trials` with several arms: the first arm against the second.
    arms : (str, str) or None
        `trials`: how much more assignment does in the first arm than in the second, such as ("opsin", "no_opsin"). A trial's arm is what it would deliver
        (column `planned` or `arm`) or its animal's `arm`, `group` or `virus` (`subject_meta`). Within animals where these have both, between them otherwise.
    truncate : float or None
        `msm`: percentile at which weights are cut; None leaves them. Cutting has ruined coverage in validation.
    matches, distance, caliper
        `matched`: most unexposed epochs an exposed one; nearest in the odds of exposure ("propensity") or in clock and covariates
        ("mahalanobis"); and by how many SD at most they may differ (None: 0.2 and 0.5). Time in bout is matched exactly.
    basis : int
        `glm`: raised cosines, in log time since the event, that make up the time course.
    recall, precision : float or (float, float), or None
        `hazard`, `matched`, `glm`: share of the events that the detector finds, and share of what it finds that are events, or their 95 % limits. The
        estimate is then that of all events, and its interval holds the error of both (``diagnostics["detection"]``).
    stage_draws : int
        Where the hypnograms hold probabilities: hypnograms drawn from them, whose answers widen the interval (``diagnostics["uncertain_stages"]``). 0
        takes stages as certain.
    settle : float or None, s
        `hazard`, `matched`, `glm`: how long after a bout began events count; the epochs before are left out. A calcium or photometry signal still shows the
        movement of waking for as long as its indicator takes to decay. None takes ``attrs["kernel"]`` of the events, where they have it, else 0.
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
        `msm`: log odds ratio averaged over confounders and animals. `matched`: log odds ratio conditional on the matched set, of exposed epochs.
        `glm`: log odds ratio an event, conditional as in `hazard`. Other outcomes: difference in means, in s or in the signal's unit.

    Raises
    ------
    DesignError
        If the data cannot answer the question: no animal names, an empty arm, overlapping trials, a ledger that contradicts itself,
        exposure outside the recording or after the outcome, trials logged twice, a horizon off the grid, a covariate that uses its future.

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
    question = {
        "exposure": exposure, "outcome": outcome, "design": design, "adjust": adjust, "adjust_window": adjust_window, "horizon": horizon, "labels": labels,
        "lag": lag, "blank": blank, "dose": dose, "clock": clock, "weight": weight, "competing": competing, "scheme": scheme, "content": content,
        "contrast": contrast, "arms": arms, "truncate": truncate, "matches": matches, "distance": distance, "caliper": caliper, "basis": basis,
        "recall": recall, "precision": precision, "stage_draws": stage_draws, "settle": settle, "draws": draws, "seed": seed,
    }  # fmt: skip
    wanted = check_question(question)
    transition = wanted.transition
    grids = [EpochGrid.of(r, s, transition, labels) for r, s in zip(recordings, subjects)]
    epoch = check_epoch(grids)
    if not any(g.source.any() for g in grids):
        raise DesignError(f"no epoch of {len(grids)} hypnograms is scored {transition.source}, expected some at risk of {transition}")
    notes += check_exposures(grids, exposure, trials=design == "trials")
    centred = [g.recording.id for g in grids if g.hypnogram.attrs.get("centred")]
    span = default_horizon(design, wanted, epoch) if horizon is None else float(horizon)
    if design == "trials":
        effect = estimate_trials(
            grids, exposure, wanted, horizon=span, content=content, contrast=contrast, arms=arms, weight=weight,
            competing=competing, scheme=scheme, blank=float(blank), adjust=(adjust,) if isinstance(adjust, str) else tuple(adjust),
            diagnostics=diagnostics, draws=draws, seed=seed, progress=progress,
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
        if not (np.isfinite(span) and span > 0):
            raise DesignError(f"horizon is {horizon!r} s, expected a positive number of seconds: {epoch:g} s is one epoch")
        kernel = max((float(events_of(g.recording, exposure).attrs.get("kernel", 0.0)) for g in grids), default=0.0)
        rest = (kernel if design != "msm" else 0.0) if settle is None else float(settle)
        if kernel > rest:
            notes.append(f"events come from an indicator that decays over {kernel:g} s, and count {rest:g} s after waking: they may still show its movement")
        width = epochs_in(span, epoch) if wanted.kind == "transition" else 1
        names = (adjust,) if isinstance(adjust, str) else tuple(adjust)
        model = HazardModel(
            lag=lag, width=width, blank=float(blank), adjust=names, adjust_window=adjust_window, content=content,
            count=dose == "count", clock=clock, weight=weight, settle=rest,
        )  # fmt: skip
        ask: dict[str, Any] = {"horizon": span, "model": model, "diagnostics": diagnostics, "seed": seed, "progress": progress}
        if design == "msm":
            effect = estimate_msm(grids, exposure, wanted, truncate=truncate, **ask)
        elif design == "matched":
            effect = estimate_matched(grids, exposure, wanted, matching=Matching(matches, distance, caliper), draws=draws, **ask)
        elif design == "glm":
            effect = estimate_coupling(grids, exposure, wanted, basis=basis, draws=draws, **ask)
        else:
            effect = estimate_hazard(grids, exposure, wanted, draws=draws, **ask)
        if rest:
            effect.risk_set += f"; exposure from {model.settled(epoch) * epoch:g} s after the bout began"
    if recall is not None or precision is not None:
        effect = carry_detection(
            effect, grids, [events_of(g.recording, exposure) for g in grids], content=model.content if isinstance(model.content, str) else None,
            width=1 if design == "glm" else width, blank=model.blank, counted=model.count or design == "glm", recall=recall, precision=precision, seed=seed,
        )  # fmt: skip
    again = question | {"diagnostics": False, "draws": 0, "stage_draws": 0}
    effect = carry_stages(effect, grids, labels, lambda drawn: estimate_effect(drawn, **again), stage_draws, seed)
    if diagnostics:
        effect.diagnostics["warnings"] = notes + effect.diagnostics.get("warnings", [])
        effect.diagnostics["question"] = {"hash": question_hash(question), "version": __version__}
    return effect


def default_horizon(design: str, outcome: Outcome, epoch: float) -> float:
    """Seconds that are looked at where no horizon is given."""
    if outcome.kind != "transition":
        return FOLLOWED
    return {"trials": 10.0, "glm": 10 * epoch}.get(design, epoch)


def check_question(asked: Mapping[str, Any], epoch: float | None = None) -> Outcome:
    """The outcome, understood, of a question (arguments of :func:`estimate_effect`) that can be asked; `epoch` checks its horizon too.

    Raises DesignError where it cannot.
    """
    outcome = Outcome.parse(asked["outcome"])
    design, horizon, content = asked["design"], asked["horizon"], asked["content"]
    _check_choices(**{k: asked[k] for k in ("design", "weight", "dose", "draws", "lag", "blank", "adjust_window")}, seed=asked.get("seed", 0))
    rest = asked.get("settle")
    if rest is not None and (isinstance(rest, str) or not (np.isfinite(rest) and rest >= 0)):
        raise DesignError(f"settle is {rest!r}, expected seconds, 0 or more")
    if rest and design in ("trials", "msm"):
        raise DesignError(f"settle is of observed events, and design '{design}' does not carry it: use 'hazard', 'matched' or 'glm'")
    _check_measurement(design, content, asked.get("recall"), asked.get("precision"), asked.get("stage_draws", 0))
    if outcome.kind != "transition" and design not in ("trials", "matched"):
        raise DesignError(f"design '{design}' reads transitions and outcome is '{outcome}': use design='trials' or 'matched', or a transition ('NREM->WAKE')")
    if design == "trials" and len(asked["adjust"]) and outcome.kind != "signal":
        raise DesignError(f"adjust is {asked['adjust']!r}: randomised trials of '{outcome}' need no adjustment, leave it out (of 'signal:NAME' they take one)")
    pairs = {k: asked.get(k) for k in ("content", "contrast", "arms")}
    for name, pair in pairs.items():
        if pair is not None and not isinstance(pair, str) and (len(pair) != 2 or pair[0] == pair[1]):
            raise DesignError(f"{name} is {pair!r}, expected two different names")
    if design != "trials" and pairs["arms"] is not None:
        raise DesignError(f"arms is {pairs['arms']!r}: only design 'trials' compares arms")
    if pairs["arms"] is not None and (pairs["contrast"] is not None or isinstance(content, tuple)):
        raise DesignError("arms, contrast and a pair of contents are three comparisons: ask for one at a time (arms with one content is fine)")
    if design == "matched":
        Matching(asked["matches"], asked["distance"], asked["caliper"])
    if epoch is not None:
        if not (np.isfinite(epoch) and epoch > 0):
            raise DesignError(f"epoch is {epoch} s, expected a positive number")
        if design != "trials" and outcome.kind == "transition" and horizon is not None:
            epochs_in(float(horizon), epoch)
    return outcome


def _check_measurement(design: str, content: Any, recall: Share | None, precision: Share | None, stage_draws: int) -> None:
    for name, value in (("recall", recall), ("precision", precision)):
        check_share(name, value)
        if value is not None and design not in ("hazard", "matched", "glm"):
            raise DesignError(f"{name} is of events that were detected, and design '{design}' does not carry it: use 'hazard', 'matched' or 'glm'")
        if value is not None and isinstance(content, tuple):
            raise DesignError(f"{name} is of one content, and content is {content!r}: ask for each with its own")
    if isinstance(stage_draws, bool) or not isinstance(stage_draws, (int, np.integer)) or stage_draws < 0:
        raise DesignError(f"stage_draws is {stage_draws!r}, expected a whole number, 0 (stages are certain) or more")


def _check_choices(
    *, design: str, weight: str, dose: str | None, draws: int, lag: int, blank: float, adjust_window: float | None, seed: int,
) -> None:  # fmt: skip
    if design not in DESIGNS:
        raise DesignError(f"design is {design!r}, expected one of {', '.join(DESIGNS)}")
    if weight not in ("animal", "event"):
        raise DesignError(f"weight is {weight!r}, expected 'animal' or 'event'")
    if dose not in (None, "count"):
        raise DesignError(f"dose is {dose!r}, expected None (at least one event) or 'count'")
    for name, value in (("draws", draws), ("seed", seed)):
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
            raise DesignError(f"{name} is {value!r}, expected a whole number")
    if seed < 0:
        raise DesignError(f"seed is {seed}, expected 0 or more")
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
