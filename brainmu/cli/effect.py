"""brainmu effect: a causal estimate with everything one needs to doubt it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, note, open_sessions, progress, refuse_existing, warn

COMMON = Common()


def effect(
    stores: Annotated[list[Path], Parameter(help="Stores, or folders of stores; animals are told apart by their subject.", negative="")],
    /,
    *,
    design: Annotated[Literal["trials", "hazard", "msm"], Parameter(help="trials: randomised; hazard, msm: observational.")],
    exposure: Annotated[str, Parameter(help="Name of the event label: the trial log, or the reactivation events.")] = "trials",
    outcome: Annotated[str, Parameter(help="Transition FROM->TO.")] = "NREM->WAKE",
    horizon: Annotated[float, Parameter(help="Seconds after exposure in which the outcome counts (hazard, msm: a multiple of the epoch).")] = 10.0,
    adjust: Annotated[
        list[str] | None, Parameter(help="Signals to adjust for; their last value before the exposure.", consume_multiple=True, negative="")
    ] = None,
    labels: Annotated[str, Parameter(help="Name of the hypnogram.")] = "scoring",
    lag: Annotated[int | None, Parameter(help="Epochs between exposure and the first outcome epoch (hazard, msm; default 1).")] = None,
    content: Annotated[str | None, Parameter(help="Only events of this content enter as the exposure of interest.")] = None,
    contrast: Annotated[tuple[str, str] | None, Parameter(help="Trials: compare these two arms.")] = None,
    blank: Annotated[float | None, Parameter(help="Seconds at the end of the exposure epoch in which events do not count (hazard, msm).")] = None,
    dose: Annotated[Literal["count"] | None, Parameter(help="Count the events of an epoch instead of asking whether there was one.")] = None,
    adjust_window: Annotated[float | None, Parameter(help="Adjust for the mean over this many seconds before the exposure instead of the last value.")] = None,
    competing: Annotated[str | None, Parameter(help="Trials: how other endings inside the horizon are handled.")] = None,
    clock: Annotated[bool, Parameter(help="Adjust for time since sleep onset and zeitgeber time (hazard, msm).")] = True,
    scheme: Annotated[str | None, Parameter(help="How trials were assigned, where the log holds no probability (bernoulli).")] = None,
    weight: Annotated[Literal["animal", "event"], Parameter(help="Whom the estimate stands for.")] = "animal",
    draws: Annotated[int, Parameter(help="Draws of the randomisation test.")] = 10_000,
    out: Annotated[Path | None, Parameter(help="Write the effect as JSON (brainmu report draws it).")] = None,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace an existing file.")] = False,
    common: Common = COMMON,
) -> int:
    """Does reactivation change sleep? Trials, hazards, marginal structural models.

    The estimand is printed as a sentence before the number, assumptions and warnings after it.

    For example:

    brainmu effect stores/ --design trials --horizon 10

    brainmu effect stores/ --design hazard --exposure reactivation --horizon 4 --adjust pressure
    """
    import brainmu.causal

    if out is not None:
        refuse_existing(out, overwrite)
    sessions = open_sessions(stores)
    given = {"lag": lag, "content": content, "contrast": contrast, "blank": blank, "dose": dose, "adjust_window": adjust_window, "competing": competing}
    options = {k: v for k, v in (given | {"scheme": scheme}).items() if v is not None}
    with progress(common, "effect") as report:
        estimate = brainmu.causal.estimate_effect(
            sessions, exposure=exposure, outcome=outcome, design=design, horizon=horizon, adjust=adjust or [], labels=labels,
            weight=weight, clock=clock, draws=draws, seed=common.seed, progress=report, **options,
        )  # fmt: skip
    if out is not None:
        out.write_text(estimate.to_json(indent=1), encoding="utf-8")
        note(common, f"wrote {out}")
    warn(common, list(estimate.diagnostics.get("warnings", [])))
    text = [str(estimate), "  it holds if: " + "; ".join(estimate.assumptions)]
    if estimate.diagnostics.get("verdict"):
        text.append(f"  verdict: {estimate.diagnostics['verdict']}")
    emit(common, estimate.to_dict(), "\n".join(text))
    return 0
