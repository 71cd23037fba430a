"""Runs the two stages of pretraining under Lightning: batches by step, logs, checkpoints to resume from, a quiet console."""

from __future__ import annotations

import csv
import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from brainmu.core.recording import Recording
from brainmu.errors import InputError
from brainmu.models.encoder import Encoder
from brainmu.train.tasks import ContextTask, SummarySpans, WindowTask, pl
from brainmu.windows.grid import WindowGrid
from brainmu.windows.sampler import Prefetch, SpanSampler, WindowSampler
from brainmu.windows.splits import split

if TYPE_CHECKING:
    from brainmu.train.pretraining import PretrainConfig, Progress

__all__ = ["Engine"]


class Engine:
    """One pretraining run: its data, its encoder, its two stages."""

    def __init__(self, recordings: list[Recording], folder: Path, c: PretrainConfig, seed: int, devices: int, strategy: str, progress: Progress | None) -> None:
        self.folder, self.c, self.seed, self.devices, self.strategy, self.progress = folder, c, seed, devices, strategy, progress
        train, held = _hold_out(recordings, c.held_out, seed)
        self.grids, self.held = [self._grid(r) for r in train], [self._grid(r) for r in held]
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder = Encoder(c.encoder)
            names = [g.recording.id for g in self.grids]
            self.window_task = WindowTask(self.encoder, c.masks, names, c.steps, c.learning_rate, c.weight_decay, seed)
            self.context_task = ContextTask(self.encoder, c.encoder.window, c.context_steps, c.learning_rate, c.weight_decay, seed)
        self.is_first_process = True

    def _grid(self, recording: Recording) -> WindowGrid:
        e = self.c.encoder
        return WindowGrid(recording, e.window, kinds=self.c.kinds, patch=e.patch, bin=e.bin)

    def train_windows(self, minutes: float | None) -> WindowTask:
        def batches(rank: int, world: int) -> Callable[[int], Any]:
            sampler = WindowSampler(self.grids, self.c.batch, self.seed, rank=rank, world=world)
            return lambda step: (step, sampler.batch(step))

        if self.c.compile:
            self.window_task.window.compile()
        self._fit("window", self.window_task, batches, self.c.steps, minutes)
        return self.window_task

    def train_context(self, minutes: float | None) -> ContextTask:
        self.encoder.eval()
        cached = [tuple(x.cpu() for x in self.encoder.summaries(g, self._stage("encode"))) for g in self.grids]
        every = torch.cat([v[ok] for v, ok in cached])
        head = self.context_task.prediction
        head.mean.copy_(every.mean(0))
        head.sd.copy_(every.std(0).clamp(min=1e-4))
        spans = SummarySpans(cached, self.c.masks.context, self.c.encoder.window, self.seed)
        sampler = SpanSampler([len(g) for g in self.grids], self.c.span, self.c.context_batch, self.seed)

        def batches(rank: int, world: int) -> Callable[[int], Any]:
            epochs: dict[int, list[list[tuple[int, int, int]]]] = {}

            def make(step: int) -> Any:
                # Epochs differ in their number of batches: walk through them, remembering the last one.
                first, number = 0, 0
                while True:
                    if number not in epochs:
                        epochs[number] = sampler.epoch(number)
                    if step < first + len(epochs[number]):
                        mine = epochs[number][step - first]
                        return step, spans.stack(mine[rank::world] or mine, step)
                    first += len(epochs[number])
                    number += 1

            return make

        self._fit("context", self.context_task, batches, self.c.context_steps, minutes)
        return self.context_task

    def report(self) -> dict[str, dict[str, float]]:
        """Held-out losses of model and baselines."""
        for task in (self.window_task, self.context_task):
            task.to("cpu")
        self.encoder.to("cpu").eval()
        sampler = WindowSampler(self.held, min(128, sum(len(g) for g in self.held)), seed=self.seed)
        count = max(1, min(8, sampler.n_windows // sampler.size))
        table = self.window_task.compare([sampler.batch(i) for i in range(count)], self.seed)
        cached = [self.encoder.summaries(g) for g in self.held]
        spans = SummarySpans(cached, self.c.masks.context, self.c.encoder.window, self.seed + 1)
        batches = SpanSampler([len(g) for g in self.held], self.c.span, self.c.context_batch, self.seed).epoch(0)
        return table | self.context_task.compare([spans.stack(b, i) for i, b in enumerate(batches)])

    def _stage(self, name: str) -> Callable[[str, float], None] | None:
        return None if self.progress is None else (lambda _, f: self.progress(f"pretrain: {name}", f))  # type: ignore[misc]

    def _fit(self, name: str, task: pl.LightningModule, batches: Callable[[int, int], Callable[[int], Any]], steps: int, minutes: float | None) -> None:
        kept = self.folder / "resume" / f"{name}.ckpt"
        state = torch.load(kept, map_location="cpu", weights_only=False) if kept.is_file() else None
        done = 0 if state is None else int(state["global_step"])
        loader = _Steps(batches, done * self.c.accumulate, steps * self.c.accumulate)
        watch = _Watch(name, self.folder, kept, steps, self.c.save_every, minutes, loader, self._stage(name))
        if state is not None and (done >= steps or state.get("brainmu_finished", False)):
            task.load_state_dict(state["state_dict"])
            return
        with _quiet(), torch.random.fork_rng():
            trainer = pl.Trainer(
                max_steps=steps, accelerator="auto", devices=self.devices, strategy=self.strategy, precision=self.c.precision,  # type: ignore[arg-type]
                accumulate_grad_batches=self.c.accumulate, gradient_clip_val=1.0, callbacks=[watch], logger=False, enable_checkpointing=False,
                enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False, default_root_dir=self.folder,
            )  # fmt: skip
            loader.trainer = trainer
            trainer.fit(task, train_dataloaders=loader, ckpt_path=kept if state is not None else None, **_trusting())
            watch.keep(trainer, finished=True)
            self.is_first_process = trainer.is_global_zero


def _trusting() -> dict[str, Any]:
    """Our own checkpoints hold the loop's state beside tensors; newer Lightning asks before it unpickles them."""
    import inspect

    return {"weights_only": False} if "weights_only" in inspect.signature(pl.Trainer.fit).parameters else {}


class _Steps:
    """Batches first, first+1, …, last-1 from one prefetch thread; a loader that Lightning may ask for its state."""

    def __init__(self, make: Callable[[int, int], Callable[[int], Any]], first: int, last: int) -> None:
        self.make, self.first, self.last = make, first, last
        self.trainer: pl.Trainer | None = None
        self.prefetch: Prefetch[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer is not None else (0, 1)
        self.prefetch = Prefetch(self.make(rank, world), self.first, self.last)
        return iter(self.prefetch)

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Nothing to restore: the first step comes from the checkpoint's own count."""


class _Watch(pl.Callback):
    """Writes metrics.csv, keeps checkpoints, tells progress, stops on time."""

    def __init__(
        self, name: str, folder: Path, kept: Path, steps: int, every: int, minutes: float | None, loader: _Steps, progress: Callable[[str, float], None] | None
    ) -> None:
        self.name, self.metrics, self.kept, self.steps, self.every = name, folder / "metrics.csv", kept, steps, every
        self.minutes, self.loader, self.progress = minutes, loader, progress
        self.began = self.before = time.perf_counter()
        self.tokens = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.began = self.before = time.perf_counter()
        if trainer.is_global_zero:
            _forget_after(self.metrics, self.name, trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        now = time.perf_counter()
        seconds, self.before = now - self.before, now
        tokens = getattr(batch[1], "n_tokens", None)
        if trainer.is_global_zero:
            stall = self.loader.prefetch.stall if self.loader.prefetch is not None else 0.0
            row = {"stage": self.name, "step": trainer.global_step, "seconds": round(seconds, 4), "stall": round(stall / max(now - self.began, 1e-9), 4)}
            row |= {"tokens_per_s": "" if tokens is None else round(tokens / seconds), "learning_rate": trainer.optimizers[0].param_groups[0]["lr"]}
            _append(self.metrics, row | pl_module.last)
            if self.progress is not None:
                self.progress(self.name, trainer.global_step / self.steps)
        if trainer.global_step % self.every == 0:
            self.keep(trainer)
        if self.minutes is not None and now - self.began > 60 * self.minutes:
            trainer.should_stop = True

    def keep(self, trainer: pl.Trainer, finished: bool = False) -> None:
        part = self.kept.with_suffix(".partial")
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            if finished:
                state = torch.load(part, map_location="cpu", weights_only=False)
                torch.save(state | {"brainmu_finished": True}, part)
            part.replace(self.kept)


_COLUMNS = ("stage", "step", "loss", "spectrum", "waveform", "slow", "features", "spikes", "summary_spectrum", "summary_waveform", "summary_slow",
            "summary_features", "summary_spikes", "context", "learning_rate", "seconds", "tokens_per_s", "stall")  # fmt: skip


def _append(path: Path, row: dict[str, Any]) -> None:
    fresh = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, _COLUMNS, extrasaction="raise")
        if fresh:
            writer.writeheader()
        writer.writerow(row)


def _forget_after(path: Path, stage: str, step: int) -> None:
    """Drop rows of `stage` past `step`: steps taken after the checkpoint that a resumed run takes again."""
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as f:
        rows = [r for r in csv.DictReader(f) if r["stage"] != stage or int(r["step"]) <= step]
    path.unlink()
    for r in rows:
        _append(path, r)


def _hold_out(recordings: list[Recording], share: float, seed: int) -> tuple[list[Recording], list[Recording]]:
    """Training and held-out recordings: by subject where there are several, else the last part of each recording."""
    if all(r.subject for r in recordings) and len({r.subject for r in recordings}) > 1:
        return split(recordings, by="subject", test=share, seed=seed)
    shortest = min(r.duration for r in recordings)
    try:
        return split(recordings, by="time", test=share, guard=min(600.0, 0.05 * shortest))
    except InputError as error:
        raise InputError(f"pretrain: nothing can be held out for the report ({error})") from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Lightning without its banner and tips; warnings that its own design causes are silenced one by one."""
    loggers = [
        logging.getLogger(n) for n in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero")
    ]
    levels = [x.level for x in loggers]
    with warnings.catch_warnings():
        # Lightning calls deprecated parts of torch, and advises worker processes where one prefetch thread feeds the loop.
        warnings.filterwarnings("ignore", module=r"lightning\.")
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        for x in loggers:
            x.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for x, level in zip(loggers, levels):
                x.setLevel(level)
