"""brainmu intervene: edit events inside the model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, note, open_sessions, progress, refuse_existing, warn

if TYPE_CHECKING:
    from brainmu.core import Effect

COMMON = Common()


def intervene(
    stores: Annotated[list[Path], Parameter(help="A store (*.zarr), several, or folders of them; animals are told apart by their subject.", negative="")],
    /,
    *,
    model: Annotated[str, Parameter(help="A stager folder, or a packaged checkpoint's name.")],
    events: Annotated[str, Parameter(help="A BIDS events.tsv (from brainmu events or replay), or the name of an event label of the stores.")],
    operation: Annotated[
        Literal["remove", "replace", "shift", "permute", "scale", "insert"],
        Parameter(help="What is done to the events (insert: synthetic ones elsewhere)."),
    ] = "remove",
    what: Annotated[Literal["spikes", "ripple", "both"], Parameter(help="What of an event is edited.")] = "both",
    outcome: Annotated[str, Parameter(help="FROM->TO: events in FROM, change of the predicted probability of TO afterwards.")] = "NREM->WAKE",
    horizon: Annotated[float | None, Parameter(help="Seconds after the event's epoch; a multiple of the epoch (default three epochs).")] = None,
    placebos: Annotated[int, Parameter(help="Placebo edits of each event.")] = 19,
    max_events: Annotated[int, Parameter(help="Edit at most this many events of a store.")] = 200,
    content: Annotated[list[str] | None, Parameter(help="Only events of this content.", consume_multiple=True, negative="")] = None,
    dose: Annotated[list[float] | None, Parameter(help="Share of the events edited; several give a curve.", consume_multiple=True, negative="")] = None,
    factor: Annotated[float | None, Parameter(help="Operation scale: what ripple and number of spikes are multiplied by (default 0.5).")] = None,
    blank: Annotated[float, Parameter(help="Epochs that begin sooner than this many seconds after the event are not read.")] = 0.0,
    blind: Annotated[bool, Parameter(negative="", help="Epochs that are read do not see the edited streams themselves.")] = False,
    scale: Annotated[
        Literal["probability", "log_hazard"], Parameter(help="The estimate: change of probability, or of the log hazard of the outcome.")
    ] = "probability",
    risk: Annotated[
        str | None, Parameter(help="A scoring of the stores: what is edited and read lies in its stage, not in the one the model predicts.")
    ] = None,
    gate: Annotated[str | None, Parameter(help="A pretrained encoder, such as brainmu-tiny: flag edits by its pretraining loss.")] = None,
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
    from brainmu.errors import UsageError

    if out is not None:
        refuse_existing(out, overwrite)
    if factor is not None and operation != "scale":
        raise UsageError(f"--factor is for --operation scale, not for {operation}: leave it out")
    sessions = open_sessions(stores, common)
    named = all(events in s.labels for s in sessions)
    if not named and len(sessions) > 1:
        raise UsageError(f"--events {events}: expected the name of an event label that all {len(sessions)} stores hold (a file goes with one store)")
    if not named and not Path(events).exists():
        have = sorted({k for s in sessions for k, v in s.labels.items() if isinstance(v, EventTable)})
        raise UsageError(f"--events {events}: neither a file nor an event label of {sessions[0].id}, which has {', '.join(have) or 'none'}")
    tables = [s.events(events) for s in sessions] if named else [EventTable.from_bids(events)]
    stager = brainmu.loading.load(model)
    by = 0.5 if factor is None else factor
    with progress(common, "intervene") as report:
        effect = brainmu.explain.intervene(
            stager, sessions, tables, operation, what=("spikes", "ripple") if what == "both" else (what,), outcome=outcome, horizon=horizon,
            placebos=placebos, max_events=max_events, content=content, dose=dose or 1.0, factor=by, blank=blank, blind=blind, gate=gate, scale=scale,
            risk=risk, seed=common.seed, progress=report,
        )  # fmt: skip
    warn(common, list(effect.diagnostics["warnings"]))
    emit(common, effect.to_dict(), "\n".join([str(effect), *_beside(effect)]))
    if out is not None:
        # After it is printed: a disk that filled up meanwhile does not cost the result.
        out.write_text(effect.to_json(indent=1), encoding="utf-8")
        note(common, f"wrote {out}")
    return 0


def _beside(effect: Effect) -> list[str]:
    """Lines of the other read-outs and of the doses."""
    from brainmu.core.effect import interval_text
    from brainmu.explain.readouts import SCALES

    d = effect.diagnostics
    rows = [(name, r, r["unit"]) for name, r in d["readouts"].items() if SCALES.get(name, ("", ""))[1] != effect.scale]
    if len(d["doses"]) > 1:
        rows += [(f"dose {r['dose']:.0%}", r, f"{effect.unit}, in the model") for r in d["doses"]]
    return [f"  {name}: {interval_text(r['estimate'], r['low'], r['high'])} ({unit}; n = {r['n']})" for name, r, unit in rows if math.isfinite(r["estimate"])]
