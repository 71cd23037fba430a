"""brainmu pretrain: masked pretraining of the encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, note, open_sessions, progress

COMMON = Common()


def pretrain(
    stores: Annotated[list[Path], Parameter(help="Stores, or folders of stores; labels are not used.", negative="")],
    /,
    *,
    out: Annotated[Path, Parameter(help="Run folder: the encoder, metrics.csv, a card.")],
    max_minutes: Annotated[float | None, Parameter(help="Stop after this many minutes (the learning rate is planned for the steps of the config).")] = None,
    resume: Annotated[bool, Parameter(negative="", help="Go on with an interrupted run in --out.")] = False,
    common: Common = COMMON,
) -> int:
    """Pretrain the encoder on stores by masking.

    Time, channels, units and whole modalities are hidden and predicted; losses stand beside trivial baselines (mean,
    interpolation; the rate for spikes) on held-out windows. Sizes: --config pretrain/tiny, small, base, large.

    For example:

    brainmu pretrain stores/ --out run/ --config pretrain/tiny --max-minutes 10
    """
    import brainmu.train

    sessions = open_sessions(stores)
    options = {"config": str(common.config)} if common.config is not None else {}
    with progress(common, "pretrain") as report:
        run = brainmu.train.pretrain(sessions, out, max_minutes=max_minutes, resume=resume, seed=common.seed, progress=report, **options)
    lines = [f"held-out losses of {run.path} (trivial baselines beside them):"]
    for target, losses in run.report.items():
        lines.append(f"  {target}: " + ", ".join(f"{name} {value:.4g}" for name, value in losses.items()))
    emit(common, {"out": str(run.path), "report": run.report}, "\n".join(lines))
    note(common, f"wrote {out}")
    return 0
