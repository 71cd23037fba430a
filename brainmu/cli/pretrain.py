"""brainmu pretrain: masked pretraining of the encoder."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, note, open_sessions, progress

COMMON = Common()


def pretrain(
    stores: Annotated[list[Path], Parameter(help="Stores, or folders of stores; labels are not used.", negative="")],
    /,
    *,
    out: Annotated[Path, Parameter(help="Run folder: the encoder, metrics.csv, a card.")],
    max_minutes: Annotated[float | None, Parameter(help="Stop after this many minutes (the learning rate is planned for the steps of the config).")] = None,
    resume: Annotated[bool, Parameter(negative="", help="Go on with an interrupted run in --out; begin one where there is none.")] = False,
    devices: Annotated[int, Parameter(help="Processes or GPUs on this node.")] = 1,
    nodes: Annotated[int, Parameter(help="Nodes, with --devices processes each, started by srun or torchrun.")] = 1,
    strategy: Annotated[str, Parameter(help="auto, ddp, fsdp (weights shared out among processes), or another of Lightning's.")] = "auto",
    common: Common = COMMON,
) -> int:
    """Pretrain the encoder on stores by masking.

    Time, channels, units and whole modalities are hidden and predicted; losses stand beside trivial baselines (mean,
    interpolation; the rate for spikes) on held-out windows. Sizes: --config pretrain/tiny, small, base, large.

    For example:

    brainmu pretrain stores/ --out run/ --config pretrain/tiny --max-minutes 10
    """
    import brainmu.train
    from brainmu.train.processes import is_first_process

    if not is_first_process():  # one of several speaks
        common = replace(common, quiet=True)
    sessions = open_sessions(stores)
    options = {"config": str(common.config)} if common.config is not None else {}
    with progress(common, "pretrain") as report:
        status = _Status(report) if report is not None else None
        run = brainmu.train.pretrain(
            sessions, out, max_minutes=max_minutes, resume=resume, seed=common.seed, devices=devices, nodes=nodes, strategy=strategy,
            progress=status, on_log=None if status is None else status.log, **options,
        )  # fmt: skip
    if not is_first_process():
        return 0
    lines = [f"held-out losses of {run.path} (trivial baselines beside them):"]
    for target, losses in run.report.items():
        lines.append(f"  {target}: " + ", ".join(f"{name} {value:.4g}" for name, value in losses.items()))
    emit(common, {"out": str(run.path), "report": run.report}, "\n".join(lines))
    note(common, f"wrote {out}")
    return 0


class _Status:
    """Progress with the time that is left in the stage and the hours of recording seen.

    A terminal shows every change; elsewhere each new text is a new line, so it changes once in half a minute.
    """

    def __init__(self, report: Callable[[str, float], None], every: float | None = None) -> None:
        self.report = report
        self.every = every if every is not None else 0.0 if sys.stderr.isatty() else 30.0
        self.stage, self.text, self.began, self.from_, self.told = "", "", 0.0, 0.0, 0.0
        self.row: dict[str, Any] = {}

    def log(self, row: dict[str, Any]) -> None:
        """Remember a row of metrics.csv; `__call__` follows it."""
        self.row = row

    def __call__(self, stage: str, fraction: float) -> None:
        now = time.monotonic()
        if stage != self.stage:
            self.stage, self.text, self.began, self.from_, self.told = stage, stage.removeprefix("pretrain: "), now, fraction, now
        elif now - self.told >= self.every and fraction > self.from_:
            self.told = now
            left = (1 - fraction) * (now - self.began) / (fraction - self.from_)
            name = stage.removeprefix("pretrain: ")
            seen = f", {self.row['hours']:.1f} h of recording seen" if self.row.get("stage") == name else ""
            self.text = f"{name}{seen}, {_clock(left)} left"
        self.report(self.text, fraction)


def _clock(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{s:02d}"
