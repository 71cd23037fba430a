"""Masked pretraining: recordings in, a checkpoint with an honest card out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainmu.config import load_config, plural
from brainmu.core.recording import Recording, as_list
from brainmu.errors import BrainmuError, CheckpointError, ConfigError, InputError, OutputExistsError
from brainmu.models.encoder import Encoder, EncoderConfig
from brainmu.train.objectives import MaskConfig

if TYPE_CHECKING:
    from brainmu.train.engine import Engine
    from brainmu.train.tasks import ContextTask, WindowTask
    from brainmu.windows.grid import WindowGrid

__all__ = ["PretrainConfig", "Run", "pretrain"]

Progress = Callable[[str, float], None]
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Lightning's names of those that the encoder can be trained in: its weights are single precision."""


@dataclass(frozen=True)
class PretrainConfig:
    """How an encoder is pretrained.

    Attributes
    ----------
    encoder : EncoderConfig
    masks : MaskConfig
    kinds : tuple of str or None
        Channel kinds used, and "spikes"; all a model knows where None.
    steps, batch : int
        Steps of the window encoder, and windows in a step.
    context_steps, span, context_batch : int
        Steps of the context encoder, windows in a span, and spans in a step.
    learning_rate, weight_decay : float
    accumulate : int
        Batches whose gradients are added up in a step of the optimiser.
    precision : str
        "32-true", "bf16-mixed" or "16-mixed".
    compile : bool
        torch.compile the blocks of attention of the window encoder.
    held_out : float
        Share of subjects (of time, with one subject) kept for the report.
    save_every : int
        Steps between checkpoints to resume from.
    save_minutes : float or None
        A checkpoint also after so many minutes without one.
    workers : int
        Processes that make the batches of windows; 0 is one thread, enough where features fit in memory.
    clip : float
        Greatest norm of the gradient; longer ones are shortened to it. 0 is no limit.
    warm_up : float
        Share of the steps over which the learning rate rises. Give no more steps than will be taken: of steps far beyond
        `max_minutes` it never rises.
    ema : float
        Decay of an exponential moving average of the weights, with which each stage ends (0.999, say); 0 is the last weights.
    tensorboard : bool or None
        Write TensorBoard events beside metrics.csv; None: where tensorboardX or tensorboard is installed.
    cache_mib : int, MiB
        Features of recordings kept in memory, over all of them. Recordings that find no room are read anew for each batch.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    masks: MaskConfig = field(default_factory=MaskConfig)
    kinds: tuple[str, ...] | None = None
    steps: int = 600
    batch: int = 64
    context_steps: int = 200
    span: int = 512
    context_batch: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    accumulate: int = 1
    precision: str = "32-true"
    compile: bool = False
    held_out: float = 0.2
    save_every: int = 100
    save_minutes: float | None = 10.0
    workers: int = 0
    clip: float = 1.0
    warm_up: float = 0.05
    ema: float = 0.0
    tensorboard: bool | None = None
    cache_mib: int = 1024

    def __post_init__(self) -> None:
        least = {
            "steps": 0, "batch": 1, "context_steps": 0, "span": 1, "context_batch": 1, "accumulate": 1, "save_every": 1, "workers": 0, "cache_mib": 0,
            "clip": 0.0, "weight_decay": 0.0,
        }  # fmt: skip
        for name, low in least.items():
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= low):
                raise ConfigError(f"pretrain: {name} is {getattr(self, name)}, expected a number >= {low}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ConfigError(f"pretrain: learning_rate is {self.learning_rate}, expected a number > 0")
        if self.precision not in PRECISIONS:
            raise ConfigError(f"pretrain: precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}")
        for name in ("warm_up", "ema"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"pretrain: {name} is {getattr(self, name)}, expected a share in [0, 1)")
        if self.save_minutes is not None and not self.save_minutes > 0:
            raise ConfigError(f"pretrain: save_minutes is {self.save_minutes}, expected minutes > 0, or none")


@dataclass
class Run:
    """A finished pretraining run.

    Attributes
    ----------
    path : Path
        The checkpoint folder: model.safetensors, config.yaml, card.md, metrics.csv, report.json.
    report : dict
        Held-out loss by target ("spectrum", "waveform", "spikes", "context", …) of the model and of the trivial baselines.
    held_out : str
        What the report was measured on.
    n_windows : int
        Windows of it that the report drew; the context encoder reads them all.
    stopped : str
        Where `max_minutes` ended the stages; empty where they took all their steps.
    """

    path: Path
    report: dict[str, dict[str, float]]
    held_out: str = ""
    n_windows: int = 0
    stopped: str = ""

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def encoder(self) -> Encoder:
        """The pretrained encoder."""
        from brainmu.models.checkpoint import load_encoder

        return load_encoder(self.path)


def pretrain(
    sessions: Recording | Sequence[Recording], out: str | Path, *, config: str | Path | dict[str, Any] | PretrainConfig = "pretrain/tiny", seed: int = 0,
    max_minutes: float | None = None, resume: bool = False, devices: int = 1, strategy: str = "auto", progress: Progress | None = None,
    nodes: int = 1, weights: Sequence[float] | None = None, on_log: Callable[[dict[str, Any]], None] | None = None,
) -> Run:  # fmt: skip
    """Pretrain an encoder by masking: first windows, then context on their cached summaries.

    Parameters
    ----------
    sessions : Recording or sequence of Recording
        Any mix of modalities; no labels are read.
    out : path
        Folder of the run.
    config : name, path, mapping or PretrainConfig
        "pretrain/tiny", "pretrain/small", "pretrain/base", "pretrain/large", or your own.
    seed : int
        Same seed, recordings and config: same weights (on one machine).
    max_minutes : float or None
        Stop each stage early so that both fit; the learning rate then has not come down.
    resume : bool
        Go on from the last checkpoint in `out`; the result is that of an uninterrupted run. Starts one where `out` is empty.
    devices : int
        Processes or GPUs on this node. Each takes its share of every batch: losses are those of one process with the same
        batch, but for rounding and for which of its elements dropout drops.
    strategy : str
        "auto" (DDP where there is more than one process), "ddp", "fsdp" (weights and optimiser shared out among processes),
        or another of Lightning's that keeps weights whole: "ddp_fork_find_unused_parameters_true" in a notebook. "ddp" and
        "fsdp" start the running script once more for each process, so guard it with ``if __name__ == "__main__":``.
    progress : callable(stage, fraction) or None
    nodes : int
        Nodes of a cluster, each with `devices` processes, started by ``srun`` or ``torchrun``.
    weights : sequence of float or None
        One a recording: its chance to be drawn for a window of a batch. None: each window once an epoch, so that recordings
        count by their hours. The context encoder always reads each span once an epoch.
    on_log : callable(row) or None
        Called with each row of metrics.csv when it is written.

    Returns
    -------
    Run

    Raises
    ------
    OutputExistsError
        If `out` holds something and `resume` is not set.
    CheckpointError
        If `resume` finds another config or seed, other recordings, a run of another version, or a damaged one.
    StoreError
        If `out` cannot be written.
    KeyboardInterrupt, SystemExit
        If interrupted, or terminated (status 143); the last checkpoint is kept.
    InputError
        If loss, gradient or weights stop being finite (the message names the windows, and the stream where it is at fault),
        no window fits, or `weights` do not.
    ConfigError
        If the config asks for what cannot be done together, or for a package that is not installed.
    """
    from brainmu.train.engine import Engine
    from brainmu.train.processes import check_strategy, is_first_process, wait_for_all

    recordings = as_list(sessions)
    if not recordings:
        raise InputError("pretrain: no recordings came, expected at least one")
    c = config if isinstance(config, PretrainConfig) else load_config(PretrainConfig, config)
    shares = None if weights is None else _weights(recordings, weights)
    if min(devices, nodes) < 1:
        raise ConfigError(f"pretrain: devices is {devices} and nodes is {nodes}, expected numbers >= 1")
    if strategy == "fsdp" and (c.ema or c.compile):
        raise ConfigError(f"pretrain: {'ema' if c.ema else 'compile'} does not go with strategy 'fsdp': switch it off, or use strategy 'ddp'")
    check_strategy(strategy)
    if not (isinstance(seed, int) and 0 <= seed < 1 << 62):
        raise InputError(f"pretrain: seed is {seed!r}, expected an integer from 0 to 2**62")
    if max_minutes is not None and not max_minutes > 0:
        raise InputError(f"pretrain: max_minutes is {max_minutes}, expected minutes > 0, or none")
    folder = Path(out)
    if is_first_process():
        _claim(folder, c, seed, resume, recordings, shares)
    engine = Engine(recordings, folder, c, seed, devices, strategy, progress, nodes=nodes, weights=shares, on_log=on_log)
    window = engine.train_windows(None if max_minutes is None else 0.8 * max_minutes)
    context = engine.train_context(None if max_minutes is None else 0.2 * max_minutes)
    report = engine.report()
    if engine.is_first_process:
        _write(folder, engine, window, context, c, report, seed)
    wait_for_all()
    return Run(folder, report, _held_out(engine.grids, engine.held), engine.n_reported, _stopped(engine, c))


def _weights(recordings: list[Recording], weights: Sequence[float]) -> dict[str, float]:
    """Weights by recording."""
    if len(weights) != len(recordings) or len({r.id for r in recordings}) < len(recordings):
        raise InputError(f"pretrain: {len(weights)} weights came for {len(recordings)} recordings, expected one for each, and an id of its own for each")
    return {r.id: float(w) for r, w in zip(recordings, weights)}


_WITHOUT_EFFECT = ("save_every", "save_minutes", "workers", "tensorboard", "cache_mib")
"""Settings that leave the result as it is: a run may be resumed with others."""


def _mark(c: PretrainConfig, seed: int, weights: dict[str, float] | None, recordings: list[Recording]) -> dict[str, Any]:
    """What decides a run's result, as JSON keeps it."""
    from brainmu.models.checkpoint import plain
    from brainmu.models.migration import FORMAT

    shown = [[r.id, r.subject, round(r.duration, 3)] for r in recordings]
    found = {"seed": seed, "format": FORMAT, "recordings": shown, **plain(c)} | ({} if weights is None else {"weights": weights})
    return json.loads(json.dumps({k: v for k, v in found.items() if k not in _WITHOUT_EFFECT}))


def _with_defaults(mark: dict[str, Any]) -> dict[str, Any]:
    """The mark of a run that was begun before some setting existed, which then had its default."""
    from brainmu.models.checkpoint import plain

    default = plain(PretrainConfig())
    held = {k: {**default[k], **v} if isinstance(v, dict) and k in default else v for k, v in {**default, **mark}.items() if k not in _WITHOUT_EFFECT}
    return json.loads(json.dumps(held))


def _claim(
    folder: Path, c: PretrainConfig, seed: int, resume: bool, recordings: list[Recording], weights: dict[str, float] | None = None
) -> None:  # fmt: skip
    """Make the folder a run's, or check that it is this run's."""
    from brainmu.store.folder import disk_error

    mark = _mark(c, seed, weights, recordings)
    note = folder / "resume" / "run.json"
    try:
        if folder.exists() and not folder.is_dir():
            raise OutputExistsError(f"{folder}: is a file, expected a folder; choose another")
        # A claim of a run that failed before its first checkpoint stands in nobody's way.
        if folder.is_dir() and any(p.is_file() and p != note for p in folder.rglob("*")):
            if not resume:
                raise OutputExistsError(f"{folder}: exists and is not empty; choose another folder, or resume the run in it (--resume, resume=True)")
            _check_resumable(folder, note, mark)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(mark, sort_keys=True), encoding="utf-8")
    except OSError as error:
        if isinstance(error, BrainmuError):
            raise
        raise disk_error(error, folder) from None


def _check_resumable(folder: Path, note: Path, mark: dict[str, Any]) -> None:
    if not note.is_file():
        raise CheckpointError(f"{folder}: holds no run to resume; choose another folder")
    try:
        held = _with_defaults(json.loads(note.read_text(encoding="utf-8")))
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{note}: damaged ({error}), so the run cannot be resumed; choose another folder") from None
    other = sorted(k for k in {*held, *mark} if held.get(k) != mark.get(k))
    if other == ["recordings"] and sorted(held["recordings"]) == sorted(mark["recordings"]):
        raise CheckpointError(f"{folder}: holds a run with the same recordings in another order; resume it with them in its own")
    if other:
        said = f"another config or seed (other: {', '.join(other)})"
        raise CheckpointError(f"{folder}: holds a run with {said}; resume it with its own, or choose another folder")


class _Whole:
    """What the checkpoint holds, as one module: encoder and both pretraining heads."""

    def __new__(cls, encoder: Encoder, window: WindowTask, context: ContextTask) -> Any:
        import torch

        return torch.nn.ModuleDict({"encoder": encoder, "reconstruction": window.reconstruction, "gist": window.gist, "prediction": context.prediction})


def _write(
    folder: Path, engine: Engine, window: WindowTask, context: ContextTask, c: PretrainConfig, report: dict[str, dict[str, float]], seed: int
) -> None:  # fmt: skip
    from brainmu.models.checkpoint import plain, write_checkpoint

    (folder / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    config = {"type": "encoder", "encoder": plain(c.encoder), "training": {"seed": seed, **plain(c)}}
    whole = _Whole(engine.encoder, window, context)
    n_weights = sum(v.numel() for v in whole.state_dict().values())
    write_checkpoint(folder, whole, config, _card(engine, report, n_weights, _stopped(engine, c), seed), overwrite=True)


def _card(engine: Engine, report: dict[str, dict[str, float]], n_weights: int, stopped: str, seed: int) -> str:
    encoder, trained = engine.encoder, [g.recording for g in engine.grids]
    subjects = {r.subject or r.id for r in trained}
    species = ", ".join(sorted({r.species or "unknown" for r in trained}))
    hours = sum(r.duration for r in trained) / 3600
    names = ("model", "mean", "interpolation", "last")
    lines = [
        "# Encoder", "",
        f"- The encoder has {encoder.n_parameters:,} weights, the file {n_weights:,} with the heads of pretraining; windows of {encoder.config.window:g} s.",
        f"- Pretrained by masking on {plural(len(trained), 'recording')} of {plural(len(subjects), 'subject')} ({species}), {hours:.1f} h, seed {seed}.",
        *([f"- Stopped {stopped}: the learning rate had not come down."] if stopped else []),
        f"- Held out, and not trained on: {_held_out(engine.grids, engine.held)}.", "",
        f"Loss on hidden parts of {engine.n_reported:,} held-out windows (mean squared error of standardised values; spikes: nats a bin and unit);",
        "lower is better:", "",
        "| target | model | mean | interpolation | last value |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for target, row in report.items():
        lines.append(f"| {target} | {' | '.join(f'{row[k]:.4f}' if np.isfinite(row.get(k, np.nan)) else '–' for k in names)} |")
    return "\n".join([*lines, "", "For spikes, `mean` is each unit's own rate over the recording, known exactly.", ""])


def _held_out(trained: list[WindowGrid], held: list[WindowGrid]) -> str:
    """What the report was measured on, in words."""
    hours = sum(g.recording.duration for g in held) / 3600
    subjects = sorted({g.recording.subject or g.recording.id.removesuffix(".test") for g in held})
    names = ", ".join(subjects[:6]) + (", …" if len(subjects) > 6 else "")
    if not {g.recording.subject for g in held} & {g.recording.subject for g in trained}:
        return f"{plural(len(subjects), 'subject')} ({names}; {plural(len(held), 'recording')}, {hours:.1f} h)"
    # Cut in time: the guard is what lies between the two parts of a recording.
    guard = min(h.recording.start - g.recording.stop for g, h in zip(trained, held))
    what = f"the last part ({hours:.2g} h, in time) of {plural(len(held), 'recording')} of {names}"
    return f"{what}, with a guard of {guard:.0f} s before it: that says nothing of new animals"


def _stopped(engine: Engine, c: PretrainConfig) -> str:
    """Where `max_minutes` ended the stages; empty where they took all their steps."""
    asked = {"window": c.steps, "context": c.context_steps}
    if all(engine.taken[k] >= n for k, n in asked.items()):
        return ""
    return "by max_minutes at step " + ", ".join(f"{engine.taken[k]} of {n} ({k})" for k, n in asked.items())
