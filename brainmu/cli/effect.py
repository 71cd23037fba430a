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
        Literal["trials", "hazard", "msm", "matched", "glm"],
        Parameter(help="trials: randomised; hazard, msm, matched (like epochs without an event), glm (time course of an event's effect): observational."),
    ],
    exposure: Annotated[str, Parameter(help="Name of the event label: the trial log, or the reactivation events.")] = "trials",
    outcome: Annotated[
        str,
        Parameter(help="Transition FROM->TO (TO may be microarousal); trials, matched: also 'time to WAKE', 'bout length', signal:NAME, change:NAME."),
    ] = "NREM->WAKE",
    horizon: Annotated[
        float | None,
        Parameter(help="Seconds after exposure in which the outcome counts (default: trials 10, others one epoch, glm ten; 60 if no transition)."),
    ] = None,
    adjust: Annotated[
        list[str] | None, Parameter(help="Signals to adjust for; their last value before the exposure.", consume_multiple=True, negative="")
    ] = None,
    labels: Annotated[str, Parameter(help="Name of the hypnogram.")] = "scoring",
    lag: Annotated[int | None, Parameter(help="Epochs between exposure and the first outcome epoch (not trials; default 1).")] = None,
    content: Annotated[
        list[str] | None, Parameter(help="Only events of this content; of two, the first against the second.", consume_multiple=True, negative="")
    ] = None,
    contrast: Annotated[tuple[str, str] | None, Parameter(help="Trials: compare these two arms.")] = None,
    arms: Annotated[tuple[str, str] | None, Parameter(help="Trials: effect of assignment in the first arm less that in the second (opsin no_opsin).")] = None,
    blank: Annotated[
        float | None, Parameter(help="Seconds at the end of the exposure epoch in which events do not count; trials of a signal: after the onset, left out.")
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
    """Does reactivation change sleep? Trials, hazards, marginal structural models, matching, coupling.

    The estimand is printed as a sentence before the number, assumptions and warnings after it.

    For example:

    brainmu effect stores/ --design trials --horizon 10

    brainmu effect stores/ --design hazard --exposure reactivation --horizon 4 --adjust pressure

    brainmu effect --power --design trials --animals 4 8 --trials-per-animal 80 --effect-size 0.7

    brainmu effect --design trials --horizon 20 --preregister question.md
    """
    from brainmu.errors import UsageError

    question: dict[str, Any] = {
        "exposure": exposure, "outcome": outcome, "design": design, "horizon": horizon, "adjust": adjust or [], "labels": labels, "weight": weight,
        "clock": clock, "draws": draws, "seed": common.seed,
    }  # fmt: skip
    if content is not None and len(content) > 2:
        raise UsageError(f"--content takes one content, or two to compare, and got {len(content)}: {' '.join(content)}")
    given = {
        "lag": lag, "content": content and (content[0] if len(content) == 1 else tuple(content)), "contrast": contrast, "arms": arms, "blank": blank,
        "dose": dose, "adjust_window": adjust_window, "competing": competing,
        "scheme": scheme, "matches": matches, "distance": distance, "caliper": caliper, "basis": basis,
    }  # fmt: skip
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
    if not stores:
        raise UsageError("no stores were given: brainmu effect STORE… --design trials, or --power, or --preregister FILE.md")
    return _estimate(stores, question, out, overwrite, common)


def _estimate(stores: list[Path], question: dict[str, Any], out: Path | None, overwrite: bool, common: Common) -> int:
    import brainmu.causal

    if out is not None:
        refuse_existing(out, overwrite)
    sessions = open_sessions(stores, common)
    with progress(common, "effect") as report:
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
