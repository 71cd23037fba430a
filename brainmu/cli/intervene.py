"""brainmu intervene: edit events inside the model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, note, open_sessions, progress, refuse_existing, warn

COMMON = Common()


def intervene(
    store: Annotated[Path, Parameter(help="A store (*.zarr).")],
    /,
    *,
    model: Annotated[str, Parameter(help="A stager folder, or a packaged checkpoint's name.")],
    events: Annotated[str, Parameter(help="A BIDS events.tsv (from brainmu events or replay), or the name of an event label of the store.")],
    operation: Annotated[Literal["remove"], Parameter(help="What is done to the events.")] = "remove",
    what: Annotated[Literal["spikes", "ripple", "both"], Parameter(help="What of an event is taken out.")] = "both",
    outcome: Annotated[str, Parameter(help="FROM->TO: events in FROM, change of the predicted probability of TO afterwards.")] = "NREM->WAKE",
    horizon: Annotated[float | None, Parameter(help="Seconds after the event's epoch; a multiple of the epoch (default three epochs).")] = None,
    placebos: Annotated[int, Parameter(help="Placebo edits of each event.")] = 19,
    max_events: Annotated[int, Parameter(help="Edit at most this many events.")] = 200,
    out: Annotated[Path | None, Parameter(help="Write the effect as JSON (brainmu report draws it).")] = None,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace an existing file.")] = False,
    common: Common = COMMON,
) -> int:
    """Edit events inside the model, beside placebo edits.

    The result is an effect in the model, never in the brain.

    For example:

    brainmu intervene m1.zarr --model stager/ --events m1_ripples.tsv
    """
    import brainmu.explain
    import brainmu.loading
    from brainmu.core import EventTable

    if out is not None:
        refuse_existing(out, overwrite)
    session = open_sessions([store])[0]
    table = session.events(events) if events in session.labels else EventTable.from_bids(events)
    stager = brainmu.loading.load(model)
    parts = ("spikes", "ripple") if what == "both" else (what,)
    with progress(common, "intervene") as report:
        effect = brainmu.explain.intervene(
            stager, session, table, operation, what=parts, outcome=outcome, horizon=horizon, placebos=placebos, max_events=max_events, seed=common.seed,
            progress=report,
        )  # fmt: skip
    if out is not None:
        out.write_text(effect.to_json(indent=1), encoding="utf-8")
        note(common, f"wrote {out}")
    warn(common, list(effect.diagnostics["warnings"]))
    emit(common, effect.to_dict(), str(effect))
    return 0
