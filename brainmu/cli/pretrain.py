"""brainmu pretrain: masked pretraining of the encoder."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from brainmu.cli.console import Common, emit, note, open_sessions, progress, refuse_folder

if TYPE_CHECKING:
    from brainmu.train import Run

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
    from brainmu.config import load_config
    from brainmu.errors import UsageError
    from brainmu.train.processes import is_first_process

    if not is_first_process():  # one of several speaks
        common = replace(common, quiet=True)
    if max_minutes is not None and not max_minutes > 0:
        raise UsageError(f"--max-minutes {max_minutes:g}: expected minutes above 0")
    if is_first_process():
        _refuse_run(out, resume)
    options = {}
    if common.config is not None:  # read before recordings are
        options["config"] = load_config(brainmu.train.PretrainConfig, str(common.config))
    sessions = open_sessions(stores, common)
    with progress(common, "pretrain") as report:
        status = _Status(report) if report is not None else None
        run = brainmu.train.pretrain(
            sessions, out, max_minutes=max_minutes, resume=resume, seed=common.seed, devices=devices, nodes=nodes, strategy=strategy,
            progress=status, on_log=None if status is None else status.log, **options,
        )  # fmt: skip
    if not is_first_process():
        return 0
    result = {"out": str(run.path), "report": run.report, "held_out": run.held_out, "n_windows": run.n_windows, "stopped": run.stopped}
    emit(common, result, "\n".join(_lines(run)))
    if run.stopped:
        note(common, f"note: stopped {run.stopped.replace('max_minutes', '--max-minutes')}: the learning rate had not come down")
    if unlearnt := _unlearnt(run.report):
        note(common, f"note: not learned yet: {', '.join(unlearnt)} (model not below mean and interpolation): train longer")
    note(common, f"wrote {out}")
    return 0


def _refuse_run(out: Path, resume: bool) -> None:
    """Refuse before any recording is read a folder that cannot take this run."""
    from brainmu.errors import OutputExistsError
    from brainmu.models.checkpoint import is_unfinished

    # The mark of a run that failed before its first checkpoint stands in nobody's way.
    if out.is_dir() and any(p.is_file() and p.name != "run.json" for p in out.rglob("*")):
        if resume:
            return
        if is_unfinished(out):
            raise OutputExistsError(f"{out}: holds an unfinished run: go on with it by --resume, or choose another --out")
        raise OutputExistsError(f"{out}: exists already and is not empty: choose another --out (--resume goes on with an interrupted run)")
    if not out.is_dir():
        refuse_folder(out)


def _lines(run: Run) -> list[str]:
    """The report for people: targets below one another, so that columns are compared at a glance."""
    from brainmu.config import plural

    names = ("model", "mean", "interpolation", "last")
    lines = [
        f"losses of {run.path} on hidden parts of {plural(run.n_windows, 'held-out window')}: {run.held_out}",
        "(mean squared error of standardised values; spikes: nats a bin and unit; lower is better)",
        f"  {'':<12}" + "".join(f"{name:>14}" for name in names),
    ]
    for target, losses in run.report.items():
        lines.append(f"  {target:<12}" + "".join(f"{losses[n]:>14.4g}" if n in losses else f"{'–':>14}" for n in names))
    return lines


def _unlearnt(report: dict[str, dict[str, float]]) -> list[str]:
    """Targets whose loss is not below that of the mean and of interpolation."""
    return [target for target, row in report.items() if not all(row["model"] < row[k] for k in ("mean", "interpolation") if k in row)]


class _Status:
    """Progress with the time that is left in the stage and the hours of recording seen.

    A terminal shows every change; elsewhere each new text is a new line, so it changes once in half a minute, and at the end of a stage.
    """

    def __init__(self, report: Callable[[str, float], None], every: float | None = None) -> None:
        self.report = report
        self.every = every if every is not None else 0.0 if sys.stderr.isatty() else 30.0
        self.stage, self.text, self.began, self.from_, self.told = "", "", 0.0, 0.0, 0.0
        self.fraction = self.shown = 0.0
        self.row: dict[str, Any] = {}

    def log(self, row: dict[str, Any]) -> None:
        """Remember a row of metrics.csv; `__call__` follows it."""
        self.row = row

    def __call__(self, stage: str, fraction: float) -> None:
        now = time.monotonic()
        if stage != self.stage and self.shown < self.fraction and self.row.get("stage") == self._name():
            self.report(f"{self._name()}{self._seen()}", self.fraction)  # an end before the last step, by --max-minutes
        if stage != self.stage:
            self.shown = fraction
            self.stage, self.text, self.began, self.from_, self.told = stage, stage.removeprefix("pretrain: "), now, fraction, now
        elif (now - self.told >= self.every or fraction >= 1) and fraction > self.from_:
            self.told, self.shown = now, fraction
            left = (1 - fraction) * (now - self.began) / (fraction - self.from_)
            self.text = f"{self._name()}{self._seen()}" + (f", {_clock(left)} left" if fraction < 1 else "")
        self.fraction = fraction
        self.report(self.text, fraction)

    def _name(self) -> str:
        return self.stage.removeprefix("pretrain: ")

    def _seen(self) -> str:
        return f", {self.row['hours']:.1f} h of recording seen" if self.row.get("stage") == self._name() else ""


def _clock(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{s:02d}"
