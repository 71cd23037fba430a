"""brainmu demo: the whole chain in one command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, note, progress

COMMON = Common()


def demo(
    *,
    data: Annotated[list[Path] | None, Parameter(help="Recordings to analyse instead of a synthetic one.", consume_multiple=True, negative="")] = None,
    manifest: Annotated[Path | None, Parameter(help="A brainmu.yaml that lies elsewhere than in --data.")] = None,
    out: Annotated[Path, Parameter(help="Folder for stores, results and report.html.")] = Path("demo"),
    quick: Annotated[bool, Parameter(negative="", help="Under a minute: smaller samples, rougher numbers.")] = False,
    overwrite: Annotated[bool, Parameter(negative="", help="Replace an earlier demo in --out.")] = False,
    common: Common = COMMON,
) -> int:
    """The whole chain on a synthetic recording, or on yours with --data.

    Synthetic: two tracks, sleep, ripples, replay of two memories, randomised stimulation; ends in a table of planted against
    found. With --data: everything the modalities of your recordings allow; what they lack is said.

    For example:

    brainmu demo --quick

    brainmu demo --data day1/ night.edf --out mine
    """
    import brainmu.demo
    from brainmu.config import load_config

    config = load_config(brainmu.demo.DemoConfig, common.config) if common.config else None
    with progress(common, "demo") as report:
        result = brainmu.demo.demo(out, data, quick=quick, manifest=manifest, seed=common.seed, overwrite=overwrite, config=config, progress=report)
    lines = [result.table()] if result.comparison else []
    lines += [f"not done: {s}" for s in result.lacking]
    lines.append(f"report: {result.report}")
    summary = {"report": str(result.report), "comparison": result.comparison, "lacking": result.lacking, "seconds": result.seconds}
    emit(common, summary, "\n".join(lines))
    note(common, f"{sum(result.seconds.values()):.0f} s in all: " + ", ".join(f"{k} {v:.0f}" for k, v in result.seconds.items()))
    return 0
