"""Runs the two stages of pretraining under Lightning, on any number of processes, from the start or from where they were killed."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from brainmu.core.recording import Recording
from brainmu.errors import CheckpointError, ConfigError, InputError
from brainmu.models.encoder import Encoder
from brainmu.train.logs import event_logger
from brainmu.train.processes import SHARDED, choose_strategy, is_first_process, slurm_plugins, whole
from brainmu.train.tasks import ContextTask, SummarySpans, WindowTask, pl
from brainmu.train.watch import Averaging, Steps, Watch
from brainmu.windows.grid import CacheBudget, WindowGrid
from brainmu.windows.sampler import SpanSampler, WindowSampler
from brainmu.windows.splits import split

if TYPE_CHECKING:
    from brainmu.train.pretraining import PretrainConfig, Progress

__all__ = ["Engine"]


class Engine:
    """One pretraining run: its data, its encoder, its two stages."""

    def __init__(
        self, recordings: list[Recording], folder: Path, c: PretrainConfig, seed: int, devices: int, strategy: str, progress: Progress | None, *,
        nodes: int = 1, weights: Mapping[str, float] | None = None, on_log: Callable[[dict[str, Any]], None] | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.c, self.seed, self.devices, self.strategy, self.progress = folder, c, seed, devices, strategy, progress
        self.nodes, self.on_log = nodes, on_log
        # Steps taken in each stage, and held-out windows in the report.
        self.taken: dict[str, int] = {}
        self.n_reported = 0
        train, held = _hold_out(recordings, c.held_out, seed)
        # One budget for all recordings; what is held out is read once and has no part in it.
        budget = CacheBudget(c.cache_mib << 20)
        self.grids, self.held = [self._grid(r, budget) for r in train], [self._grid(r, CacheBudget(0)) for r in held]
        # A recording cut in time bears the name of its part.
        self.weights = None if weights is None else [weights[r.id if r.id in weights else r.id.removesuffix(".train")] for r in train]
        names = [g.recording.id for g in self.grids]
        waveforms = any(s.modality == "field" for g in self.grids for s in g.statistics.signals.values())
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder = Encoder(c.encoder)
            self.window_task = WindowTask(self.encoder, c.masks, names, c.steps, c.learning_rate, c.weight_decay, seed, c.clip, c.warm_up, waveforms)
            self.context_task = ContextTask(
                self.encoder, c.encoder.window, c.context_steps, c.learning_rate, c.weight_decay, seed, c.clip, c.warm_up, names
            )  # fmt: skip
        self.is_first_process = True

    def _grid(self, recording: Recording, budget: CacheBudget) -> WindowGrid:
        e = self.c.encoder
        return WindowGrid(recording, e.window, kinds=self.c.kinds, patch=e.patch, bin=e.bin, cache=budget)

    def train_windows(self, minutes: float | None) -> WindowTask:
        def batches(rank: int, world: int) -> Callable[[int], Any]:
            sampler = WindowSampler(self.grids, self.c.batch, self.seed, weights=self.weights, rank=rank, world=world)
            if self.c.workers:
                sampler.prepare()
            return lambda step: self.window_task.draw(sampler, step)

        self._fit("window", self.window_task, batches, self.c.steps, minutes, self.c.workers)
        return self.window_task

    def train_context(self, minutes: float | None) -> ContextTask:
        self.encoder.eval().to(self._device())
        cached = [tuple(x.cpu() for x in self.encoder.summaries(g, self._stage("encode"))) for g in self.grids]
        self.encoder.cpu()
        # Lightning trains a module in the mode it finds it in.
        self.context_task.train()
        every = torch.cat([v[ok] for v, ok in cached])
        head = self.context_task.prediction
        head.mean.copy_(every.mean(0))
        head.sd.copy_(every.std(0).clamp(min=1e-4))
        spans = SummarySpans(cached, self.c.masks, self.c.encoder.window, self.seed)
        sampler = SpanSampler([len(g) for g in self.grids], self.c.span, self.c.context_batch, self.seed)

        def batches(rank: int, world: int) -> Callable[[int], Any]:
            return lambda step: spans.item(sampler.batch(step), step, rank, world)

        self._fit("context", self.context_task, batches, self.c.context_steps, minutes)
        return self.context_task

    def report(self) -> dict[str, dict[str, float]]:
        """Held-out losses of model and baselines."""
        for task in (self.window_task, self.context_task):
            task.to("cpu")
        self.encoder.to("cpu").eval()
        sampler = WindowSampler(self.held, min(128, sum(len(g) for g in self.held)), seed=self.seed)
        count = max(1, min(8, sampler.n_windows // sampler.size))
        self.n_reported = count * sampler.size
        table = self.window_task.compare([sampler.batch(i) for i in range(count)], self.seed)
        cached = [self.encoder.summaries(g) for g in self.held]
        spans = SummarySpans(cached, self.c.masks, self.c.encoder.window, self.seed + 1)
        batches = SpanSampler([len(g) for g in self.held], self.c.span, self.c.context_batch, self.seed).epoch(0)
        return table | self.context_task.compare([spans.stack(b, i) for i, b in enumerate(batches)])

    def _stage(self, name: str) -> Callable[[str, float], None] | None:
        return None if self.progress is None or not is_first_process() else (lambda _, f: self.progress(f"pretrain: {name}", f))  # type: ignore[misc]

    def _device(self) -> torch.device:
        """Where summaries are computed between the stages."""
        # A process that has used CUDA can no longer be forked.
        if not torch.cuda.is_available() or "fork" in self.strategy:
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", "0"))))

    def _fit(self, name: str, task: Any, batches: Callable[[int, int], Callable[[int], Any]], steps: int, minutes: float | None, workers: int = 0) -> None:
        kept = self.folder / "resume" / f"{name}.ckpt"
        state = _kept(kept)
        done = 0 if state is None else int(state["global_step"])
        if state is not None:
            _restore(task, state, kept)
            if done >= steps or state.get("brainmu_finished", False):
                self.taken[name] = done
                return
        loader = Steps(batches, done * self.c.accumulate, steps * self.c.accumulate, workers)
        watch = Watch(name, self.folder, kept, steps, self.c, minutes, loader, self._stage(name), self.on_log)
        # Sharing the weights out changes a module for good, so a copy is trained.
        fitted = copy.deepcopy(task) if self.strategy == SHARDED else task
        fitted.sharded = self.strategy == SHARDED
        if self.c.compile and name == "window":
            # The blocks, whose shapes differ in one number; all around them differs from batch to batch and would be compiled anew each time.
            for block in fitted.blocks():
                block.compile(dynamic=True)
        with _quiet(), torch.random.fork_rng():
            trainer = self._trainer(name, steps, [*([Averaging(self.c.ema)] if self.c.ema else []), watch], done)
            loader.trainer = trainer
            with _told_of_interrupts(watch):
                trainer.fit(fitted, train_dataloaders=loader, ckpt_path=kept if state is not None else None, **_trusting())
            watch.keep(trainer, finished=True)
            self.taken[name] = trainer.global_step
            self.is_first_process = trainer.is_global_zero
        if fitted is not task:
            task.load_state_dict(whole(fitted.state_dict()))

    def _trainer(self, name: str, steps: int, callbacks: list[pl.Callback], done: int) -> pl.Trainer:
        from lightning.pytorch.utilities.exceptions import MisconfigurationException

        processes = self.devices * self.nodes
        options: dict[str, Any] = dict(
            max_steps=steps, accelerator="auto", devices=self.devices, num_nodes=self.nodes, strategy=choose_strategy(self.strategy, processes),
            precision=self.c.precision, accumulate_grad_batches=self.c.accumulate, callbacks=callbacks, plugins=slurm_plugins(processes),
            logger=event_logger(self.folder, name, self.c.tensorboard, done) or False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, use_distributed_sampler=False, default_root_dir=self.folder,
        )  # fmt: skip
        try:
            return pl.Trainer(**options)
        except MisconfigurationException as error:  # more devices than there are, say
            raise ConfigError(f"pretrain: {self.devices} devices with strategy {self.strategy!r}: {' '.join(str(error).split())}") from None


def _kept(path: Path) -> dict[str, Any] | None:
    """The checkpoint to go on from; None where there is none yet."""
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=False)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError, ValueError) as error:
        line = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(f"{path}: damaged ({line[:120]}); delete it and resume, which begins this stage anew") from None
    if not (isinstance(state, dict) and {"state_dict", "global_step"} <= state.keys()):
        raise CheckpointError(f"{path}: no checkpoint of pretraining; delete it and resume, which begins this stage anew")
    return state


def _restore(task: Any, state: dict[str, Any], path: Path) -> None:
    try:
        task.load_state_dict(state["state_dict"])
    except RuntimeError as error:
        line = " ".join(str(error).split())
        raise CheckpointError(f"{path}: of another encoder ({line[:160]}); choose another folder") from None


@contextmanager
def _told_of_interrupts(watch: Watch) -> Iterator[None]:
    """Lightning ends the process with status 1 at an interrupt and 0 at SIGTERM: an interrupt stays one, and SIGTERM is 143."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit as stop:
        if isinstance(watch.stopped_by, KeyboardInterrupt):
            if main:  # Lightning has had further interrupts ignored
                signal.signal(signal.SIGINT, before)
            raise KeyboardInterrupt from None
        if not stop.code and isinstance(watch.stopped_by, SystemExit):
            raise SystemExit(128 + signal.SIGTERM) from None
        raise


def _trusting() -> dict[str, Any]:
    """Our own checkpoints hold the loop's state beside tensors; newer Lightning asks before it unpickles them."""
    import inspect

    return {"weights_only": False} if "weights_only" in inspect.signature(pl.Trainer.fit).parameters else {}


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
