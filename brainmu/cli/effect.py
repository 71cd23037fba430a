"""brainmu effect: a causal estimate with everything one needs to doubt it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, note, open_sessions, progress, refuse_existing, warn

COMMON = Common()


def effect(
    stores: Annotated[list[Path] | None, Parameter(help="Stores, or folders of stores; animals are told apart by their subject.", negative="")] = None,
    /,
    *,
    design: Annotated[
        Literal["trials", "hazard", "msm", "matched", "glm", "mediation", "threshold", "factorial"],
        Parameter(
            help="trials: randomised; hazard, msm, matched (like epochs without an event), glm (time course of an event's effect): observational; mediation: "
            "how much of a trial's effect goes through --mediator; threshold: the --level of a probe that wakes; factorial: two --factors by animal."
        ),
    ],
    exposure: Annotated[
        str | None, Parameter(help="Name of the event label: the trial log, the reactivation events, or the probes (default trials; threshold: probes).")
    ] = None,
    outcome: Annotated[
        str,
        Parameter(
            help="Transition FROM->TO (TO may be microarousal); trials, matched: also 'time to WAKE', 'bout length', signal:, change:, depth:, rebound:NAME."
        ),
    ] = "NREM->WAKE",
    horizon: Annotated[
        float | None,
        Parameter(help="Seconds after exposure that count (default: trials, threshold 10, mediation 20, glm ten epochs, others one; 60 s if no transition)."),
    ] = None,
    adjust: Annotated[
        list[str] | None,
        Parameter(
            help="Signals to adjust for; their last value before the exposure. Trials of a signal: in the same seconds.", consume_multiple=True, negative=""
        ),
    ] = None,
    labels: Annotated[str, Parameter(help="Name of the hypnogram.")] = "scoring",
    lag: Annotated[int | None, Parameter(help="Epochs between exposure and the first outcome epoch (not trials; default 1).")] = None,
    content: Annotated[
        list[str] | None, Parameter(help="Only events of this content; of two, the first against the second.", consume_multiple=True, negative="")
    ] = None,
    contrast: Annotated[tuple[str, str] | None, Parameter(help="Trials: compare these two arms.")] = None,
    arms: Annotated[
        tuple[str, str] | None,
        Parameter(help="Trials: effect of assignment in the first arm less that in the second (opsin no_opsin). Threshold: how far the first moves it."),
    ] = None,
    blank: Annotated[
        float | None,
        Parameter(help="Seconds at the end of the exposure epoch in which events do not count; trials of a signal, mediation: after the onset, left out."),
    ] = None,
    dose: Annotated[Literal["count"] | None, Parameter(help="Count the events of an epoch instead of asking whether there was one.")] = None,
    adjust_window: Annotated[float | None, Parameter(help="Adjust for the mean over this many seconds before the exposure instead of the last value.")] = None,
    competing: Annotated[str | None, Parameter(help="Trials: how other endings inside the horizon are handled.")] = None,
    clock: Annotated[bool, Parameter(help="Adjust for time since sleep onset and zeitgeber time (not trials).")] = True,
    scheme: Annotated[str | None, Parameter(help="How trials were assigned, where the log holds no probability (bernoulli).")] = None,
    weight: Annotated[Literal["animal", "event"], Parameter(help="Whom the estimate stands for.")] = "animal",
    matches: Annotated[int | None, Parameter(help="Matched: most unexposed epochs an exposed one (default 5).")] = None,
    distance: Annotated[
        Literal["propensity", "mahalanobis"] | None, Parameter(help="Matched: nearest in the odds of exposure (default), or in clock and covariates.")
    ] = None,
    caliper: Annotated[float | None, Parameter(help="Matched: SD by which they may differ at most (default 0.2; mahalanobis 0.5).")] = None,
    basis: Annotated[int | None, Parameter(help="Glm: raised cosines that make up the time course (default 4).")] = None,
    recall: Annotated[
        list[float] | None,
        Parameter(help="Hazard, matched, glm: share of the events that the detector finds, or its two limits.", consume_multiple=True, negative=""),
    ] = None,
    precision: Annotated[
        list[float] | None, Parameter(help="The same: share of what it finds that are events, or its two limits.", consume_multiple=True, negative="")
    ] = None,
    stage_draws: Annotated[
        int | None, Parameter(help="Hypnograms drawn from the scorer's probabilities, where it gave them, that widen the interval (default 5; 0: certain).")
    ] = None,
    settle: Annotated[
        float | None, Parameter(help="Hazard, matched, glm: seconds after a bout began from which events count (default: the decay of their indicator, or 0).")
    ] = None,
    mediator: Annotated[
        str | None, Parameter(help="Mediation: 'spikes', 'spikes:region=LC' (any column of the units table), signal:NAME, or column:NAME of the trial log.")
    ] = None,
    window: Annotated[float | None, Parameter(help="Mediation: seconds after the onset over which the mediator is read (default 2).")] = None,
    gap: Annotated[float | None, Parameter(help="Mediation: seconds between that window and the first outcome (default half an epoch).")] = None,
    level: Annotated[str | None, Parameter(help="Threshold: column of the probes that holds their level (default level).")] = None,
    factors: Annotated[
        list[str] | None,
        Parameter(
            help="Factorial: two of NAME=TREATED/REFERENCE, keys of the animal's metadata (stress=stressed/control).", consume_multiple=True, negative=""
        ),
    ] = None,
    cluster: Annotated[
        str | None, Parameter(help="Factorial: key of the metadata whose animals share a fate (default cage; none: each animal its own).")
    ] = None,
    draws: Annotated[int, Parameter(help="Draws of the randomisation test.")] = 10_000,
    power: Annotated[bool, Parameter(negative="", help="Simulate studies instead of reading stores: how often would the effect be found?")] = False,
    animals: Annotated[list[int] | None, Parameter(help="Power: numbers of animals (default 4 6 8 10).", consume_multiple=True, negative="")] = None,
    trials_per_animal: Annotated[int, Parameter(help="Power of trials.")] = 60,
    hours: Annotated[float | None, Parameter(help="Power: length of each recording, h (default: as long as the trials take; 2 h without).")] = None,
    effect_size: Annotated[float, Parameter(help="Power: planted log hazard ratio.")] = 0.9,
    animal_sd: Annotated[float, Parameter(help="Power: SD between animals of the log hazard of waking.")] = 0.3,
    effect_sd: Annotated[float, Parameter(help="Power: SD between animals of the effect.")] = 0.0,
    studies: Annotated[int, Parameter(help="Power: simulated studies.")] = 200,
    preregister: Annotated[Path | None, Parameter(help="Write the question, its options and their hash to this Markdown file; no data are read.")] = None,
    epoch: Annotated[float, Parameter(help="Preregistration: length of the scored epochs, s.")] = 4.0,
    out: Annotated[Path | None, Parameter(help="Write the effect as JSON (brainmu report draws it).")] = None,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace an existing file.")] = False,
    common: Common = COMMON,
) -> int:
    """Does reactivation change sleep? Trials, hazards, marginal structural models, matching, coupling, mediation, thresholds, factorials.

    The estimand is printed as a sentence before the number, assumptions and warnings after it.

    For example:

    brainmu effect stores/ --design trials --horizon 10

    brainmu effect stores/ --design hazard --exposure reactivation --horizon 4 --adjust pressure

    brainmu effect stores/ --design mediation --mediator spikes:region=LC --window 2 --horizon 20

    brainmu effect stores/ --design threshold --exposure probes --level dB --arms reactivated quiet

    brainmu effect stores/ --design factorial --factors stress=stressed/control virus=opsin/no_opsin --cluster cage

    brainmu effect --power --design trials --animals 4 8 --trials-per-animal 80 --effect-size 0.7

    brainmu effect --design trials --horizon 20 --preregister question.md
    """
    from brainmu.errors import UsageError

    if content is not None and len(content) > 2:
        raise UsageError(f"--content takes one content, or two to compare, and got {len(content)}: {' '.join(content)}")
    one_or_two = content and (content[0] if len(content) == 1 else tuple(content))
    shares = {k: v and (v[0] if len(v) == 1 else tuple(v)) for k, v in (("recall", recall), ("precision", precision))}
    own = {"mediator": mediator, "window": window, "gap": gap, "level": level, "factors": factors, "cluster": cluster}
    if design in OWN_QUESTIONS:
        if power or preregister is not None:
            raise UsageError(f"{'--power' if power else '--preregister'} is of the designs of estimate_effect, and --design {design} is not one of them")
        shared = {
            "exposure": exposure, "horizon": horizon, "adjust": adjust, "content": one_or_two, "contrast": contrast, "arms": arms, "blank": blank,
            "competing": competing, "scheme": scheme,
        }  # fmt: skip
        other = {"lag": lag, "dose": dose, "adjust_window": adjust_window, "matches": matches, "distance": distance, "caliper": caliper, "basis": basis}
        other |= {"stage_draws": stage_draws, "settle": settle} | shares
        asked = {k: v for k, v in (shared | own | other).items() if v is not None}
        common_to_all = {"outcome": outcome, "labels": labels, "draws": draws, "seed": common.seed}
        return _estimate(stores, _own_question(design, asked, common_to_all), out, overwrite, common, design)
    _refuse(design, [k for k, v in own.items() if v is not None])
    question: dict[str, Any] = {
        "exposure": exposure or "trials", "outcome": outcome, "design": design, "horizon": horizon, "adjust": adjust or [], "labels": labels, "weight": weight,
        "clock": clock, "draws": draws, "seed": common.seed,
    }  # fmt: skip
    given = {
        "lag": lag, "content": one_or_two, "contrast": contrast, "arms": arms, "blank": blank,
        "dose": dose, "adjust_window": adjust_window, "competing": competing,
        "scheme": scheme, "matches": matches, "distance": distance, "caliper": caliper, "basis": basis, "stage_draws": stage_draws,
        "settle": settle,
    } | shares  # fmt: skip
    question |= {k: v for k, v in given.items() if v is not None}
    if power and preregister is not None:
        raise UsageError("--power and --preregister are two tasks: run one after the other")
    if stores and (power or preregister is not None):
        raise UsageError(f"{'--power' if power else '--preregister'} reads no stores: leave {stores[0]} out")
    if preregister is not None:
        return _preregister(question, preregister, epoch, overwrite, common)
    if power:
        sizes = {"trials": trials_per_animal, "hours": hours, "effect": effect_size, "animal_sd": animal_sd, "effect_sd": effect_sd, "studies": studies}
        return _power(question, sizes | ({"animals": animals} if animals else {}), common)
    return _estimate(stores, question, out, overwrite, common)


OWN_QUESTIONS: dict[str, tuple[str, ...]] = {
    "mediation": ("mediator", "exposure", "outcome", "window", "blank", "gap", "horizon", "adjust", "labels", "content", "contrast", "scheme", "competing"),
    "threshold": ("exposure", "level", "outcome", "horizon", "arms", "labels"),
    "factorial": ("factors", "outcome", "cluster", "labels", "draws", "seed"),
}
"""Options of the questions that are not asked through estimate_effect."""


def _own_question(design: str, given: dict[str, Any], common: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a question of its own; UsageError where an option does not belong to it or is missing."""
    from brainmu.errors import UsageError

    takes = OWN_QUESTIONS[design]
    _refuse(design, [k for k in given if k not in takes])
    if design == "mediation" and "mediator" not in given:
        raise UsageError("--design mediation needs --mediator: what was recorded between the trial and the outcome, such as spikes:region=LC or signal:NAME")
    if design == "mediation" and isinstance(given.get("content"), tuple):
        raise UsageError("--design mediation takes one --content: ask for each, one after the other")
    question = {k: v for k, v in common.items() if k in takes} | given
    if design == "factorial":
        question["factors"] = _factors(given.get("factors") or [])
        if str(question.get("cluster", "")).lower() == "none":
            question["cluster"] = None
    return question


def _refuse(design: str, options: list[str]) -> None:
    from brainmu.errors import UsageError

    if options:
        raise UsageError(f"--design {design} does not take {', '.join('--' + k.replace('_', '-') for k in options)}")


def _factors(texts: list[str]) -> dict[str, tuple[str, str]]:
    from brainmu.errors import UsageError

    out = {}
    for text in texts:
        name, _, values = text.partition("=")
        treated, slash, reference = values.partition("/")
        if not (name and treated and slash and reference):
            raise UsageError(f"--factors got {text!r}, expected NAME=TREATED/REFERENCE such as stress=stressed/control")
        out[name] = (treated, reference)
    if len(out) != 2:
        raise UsageError(f"--design factorial needs two --factors and got {len(out)}: --factors stress=stressed/control virus=opsin/no_opsin")
    return out


def _estimate(stores: list[Path] | None, question: dict[str, Any], out: Path | None, overwrite: bool, common: Common, design: str = "") -> int:
    import brainmu.causal
    from brainmu.errors import UsageError

    if not stores:
        other = "" if design else ", or --power, or --preregister FILE.md"
        raise UsageError(f"no stores were given: brainmu effect STORE… --design {design or 'trials'}{other}")
    if out is not None:
        refuse_existing(out, overwrite)
    sessions = open_sessions(stores, common)
    with progress(common, "effect") as report:
        if design:
            ask = {"mediation": brainmu.causal.mediation, "threshold": brainmu.causal.arousal_threshold, "factorial": brainmu.causal.factorial}[design]
            estimate = ask(sessions, **question)
        else:
            estimate = brainmu.causal.estimate_effect(sessions, progress=report, **question)
    if out is not None:
        out.write_text(estimate.to_json(indent=1), encoding="utf-8")
        note(common, f"wrote {out}")
    warn(common, list(estimate.diagnostics.get("warnings", [])))
    text = [str(estimate), "  it holds if: " + "; ".join(estimate.assumptions)]
    if estimate.diagnostics.get("verdict"):
        text.append(f"  verdict: {estimate.diagnostics['verdict']}")
    emit(common, estimate.to_dict(), "\n".join(text))
    return 0


def _power(question: dict[str, Any], sizes: dict[str, Any], common: Common) -> int:
    import brainmu.causal

    # The exposure is what the generator makes, and 499 draws tell 0.05 well enough.
    asked = {k: v for k, v in question.items() if k not in ("exposure", "draws", "labels")}
    with progress(common, "power") as report:
        table = brainmu.causal.power(progress=report, **asked, **sizes)
    emit(common, {"rows": table.to_dict(orient="records"), **sizes}, table.round(3).to_string(index=False))
    return 0


def _preregister(question: dict[str, Any], path: Path, epoch: float, overwrite: bool, common: Common) -> int:
    import re

    import brainmu.causal

    refuse_existing(path, overwrite)
    text = brainmu.causal.preregister(path, epoch=epoch, overwrite=overwrite, **question)
    note(common, f"wrote {path}")
    emit(common, {"file": str(path), "hash": re.findall(r"`([0-9a-f]{64})`", text)[0]}, text)
    return 0
