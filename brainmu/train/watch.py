"""What accompanies a stage of pretraining: batches by step, a row of the log a step, checkpoints, averaged weights, an end on time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from brainmu.errors import InputError
from brainmu.train.flops import peak_flops
from brainmu.train.logs import append_row, forget_after, peak_memory
from brainmu.train.processes import RequeueSignal, any_process
from brainmu.train.tasks import pl
from brainmu.windows.sampler import Prefetch, Workers

if TYPE_CHECKING:
    from brainmu.train.pretraining import PretrainConfig

__all__ = ["Averaging", "Steps", "Watch"]

_TRY_AGAIN = 75
"""Exit status of a job that asked to be run again (EX_TEMPFAIL of sysexits.h)."""


class Steps:
    """Batches first, first+1, …, last-1 from one prefetch thread or from worker processes; a loader that Lightning may ask for its state."""

    def __init__(self, make: Callable[[int, int], Callable[[int], Any]], first: int, last: int, workers: int = 0) -> None:
        self.make, self.first, self.last, self.workers = make, first, last, workers
        self.trainer: pl.Trainer | None = None
        self.source: Prefetch[Any] | Workers[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
        make = self.make(rank, world)
        self.source = Workers(make, self.first, self.last, self.workers) if self.workers else Prefetch(make, self.first, self.last)
        return iter(self.source)

    @property
    def stall(self) -> float:
        """Seconds spent waiting for a batch so far."""
        return 0.0 if self.source is None else self.source.stall

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing to restore: the first step comes from the checkpoint's own count."""


class Averaging(pl.Callback):
    """An exponential moving average of the weights, which the stage ends with. Early steps count less than `decay` says, as there is little to average.

    References
    ----------
    Polyak & Juditsky 1992, SIAM J. Control Optim. 30: 838 (averaging of the iterates of stochastic approximation).
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.average: dict[str, Tensor] = {}
        self.count = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        kept = self.average or dict(pl_module.named_parameters())
        self.average = {k: v.detach().to(pl_module.device, copy=True) for k, v in kept.items()}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.count:
            return
        self.count = trainer.global_step
        decay = min(self.decay, (1 + self.count) / (10 + self.count))
        for k, v in pl_module.named_parameters():
            self.average[k].lerp_(v, 1 - decay)

    @torch.no_grad()
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        for k, v in pl_module.named_parameters():
            v.copy_(self.average[k])

    def state_dict(self) -> dict[str, Any]:
        return {"average": self.average, "count": self.count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.average, self.count = state_dict["average"], state_dict["count"]


class Watch(pl.Callback):
    """Writes a row of metrics.csv a step, keeps checkpoints between steps, tells progress, stops on time or at SLURM's signal."""

    def __init__(
        self, name: str, folder: Path, kept: Path, steps: int, c: PretrainConfig, minutes: float | None, loader: Steps,
        progress: Callable[[str, float], None] | None, on_log: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:  # fmt: skip
        self.name, self.metrics, self.kept, self.steps, self.c = name, folder / "metrics.csv", kept, steps, c
        self.minutes, self.loader, self.progress, self.on_log = minutes, loader, progress, on_log
        self.began = self.before = self.saved = time.perf_counter()
        self.done, self.hours, self.waited = 0, 0.0, 0.0
        self.batches: list[tuple[dict[str, float], dict[str, float]]] = []
        self.signal = RequeueSignal()
        self.stopped_by: BaseException | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"hours": self.hours}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.hours = float(state_dict["hours"])

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.began = self.before = self.saved = time.perf_counter()
        # Lightning asks for the first batch before it says that training starts.
        self.done, self.waited = trainer.global_step, self.loader.stall
        self.signal.listen()
        if trainer.is_global_zero:
            forget_after(self.metrics, self.name, trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.batches.append((pl_module.last, pl_module.work))
        if trainer.global_step == self.done:  # gradients are being added up: nothing may be saved here
            return
        self.done = trainer.global_step
        self._log(trainer, pl_module)
        self._between_steps(trainer)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.stopped_by = exception

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.signal.stop()

    # -- the log --------------------------------------------------------------------------------------------------------
    def _log(self, trainer: pl.Trainer, module: Any) -> None:
        now = time.perf_counter()
        seconds, self.before = max(now - self.before, 1e-9), now
        losses, work = _mean([a for a, _ in self.batches]), _sum([b for _, b in self.batches])
        self.batches.clear()
        self.hours += work["hours"]
        if not trainer.is_global_zero:
            return
        device, flops = trainer.strategy.root_device, work["flops"] / seconds
        peak = peak_flops(device)
        row = {
            "stage": self.name, "step": self.done, **losses, "learning_rate": trainer.optimizers[0].param_groups[0]["lr"], "seconds": round(seconds, 4),
            "tokens_per_s": round(work["tokens"] / seconds), "stall": round((self.loader.stall - self.waited) / max(now - self.began, 1e-9), 4),
            "gradient_norm": module.norm, "tflops_per_s": float(f"{flops / 1e12:.4g}"),
            "mfu": "" if peak is None else float(f"{flops / peak / trainer.world_size:.4g}"),
            "memory_gb": round(peak_memory(device), 3), "hours": round(self.hours, 4),
        }  # fmt: skip
        append_row(self.metrics, row)
        if trainer.logger is not None:
            trainer.logger.log_metrics({k: float(v) for k, v in row.items() if k not in ("stage", "step") and v != ""}, step=self.done)
        if self.on_log is not None:
            self.on_log(row)
        if self.progress is not None:
            self.progress(self.name, self.done / self.steps)

    # -- saving and stopping --------------------------------------------------------------------------------------------
    def _between_steps(self, trainer: pl.Trainer) -> None:
        now = time.perf_counter()
        due = self.c.save_minutes is not None and now - self.saved > 60 * self.c.save_minutes
        late = self.minutes is not None and now - self.began > 60 * self.minutes
        due, late, leave = any_process(trainer.world_size, trainer.strategy.root_device, due, late, self.signal.came)
        if due or leave or self.done % self.c.save_every == 0:
            self.keep(trainer)
        if leave:
            if trainer.is_global_zero:
                self.signal.requeue()
            raise SystemExit(_TRY_AGAIN)
        if late:
            trainer.should_stop = True

    def keep(self, trainer: pl.Trainer, finished: bool = False) -> None:
        """Put the state of this moment in place of the kept checkpoint, unless its weights are not finite."""
        module = trainer.lightning_module
        broken = not all(bool(torch.isfinite(getattr(p, "_local_tensor", p)).all()) for p in module.parameters())
        if any_process(trainer.world_size, trainer.strategy.root_device, broken)[0]:
            raise InputError(
                f"pretraining: the weights are not finite after step {trainer.global_step}: lower the learning rate; "
                f"the checkpoint of an earlier step is kept in {self.kept.parent}"
            )
        part = self.kept.with_suffix(".partial")
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            if finished:
                state = torch.load(part, map_location="cpu", weights_only=False)
                torch.save(state | {"brainmu_finished": True}, part)
            part.replace(self.kept)
        self.saved = time.perf_counter()


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    """Mean of each key over the rows that have it."""
    found: dict[str, list[float]] = {}
    for row in rows:
        for k, v in row.items():
            found.setdefault(k, []).append(v)
    return {k: sum(v) / len(v) for k, v in found.items()}


def _sum(rows: list[dict[str, float]]) -> dict[str, float]:
    return {k: sum(r[k] for r in rows) for k in rows[0]}
