"""Fine-tuning: labelled recordings and an encoder (pretrained, or none) in, a stage model out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from brainmu.config import load_config
from brainmu.core import metrics
from brainmu.core.hypnogram import STAGE_SETS
from brainmu.core.recording import Recording, as_list
from brainmu.errors import InputError, MissingDataError, OutputExistsError
from brainmu.models.checkpoint import load_encoder
from brainmu.models.encoder import Encoder, EncoderConfig
from brainmu.models.stage_model import STAGE_KINDS, StageConfig, StageModel
from brainmu.models.tokens import Hidden
from brainmu.train.schedule import optimiser, warm_cosine
from brainmu.windows.batch import Batch, collate
from brainmu.windows.grid import WindowGrid
from brainmu.windows.sampler import SpanSampler

__all__ = ["MODES", "FinetuneConfig", "finetune"]

Progress = Callable[[str, float], None]
MODES = ("probe", "context", "full")


@dataclass(frozen=True)
class FinetuneConfig:
    """How a head is trained.

    Attributes
    ----------
    encoder : EncoderConfig
        Sizes of a fresh encoder (used where none is given).
    steps : int
        Optimiser steps at most.
    span, batch : int
        Consecutive epochs in a span, and spans in a step.
    learning_rate, encoder_rate : float
        Of the head (and a fresh encoder), and of a pretrained encoder in mode "full".
    weight_decay, label_smoothing : float
    balance : float
        Class weights are frequency ** -balance; 0 is none, 1 makes all stages count alike.
    drop_stream, drop_channel : float
        Chance that a stream of a recording, or a channel, is hidden in a step, so that any of them may be missing later.
    noise : float
        SD of Gaussian noise added to window summaries.
    held_out : float
        Share of subjects that decide when to stop (with at least four subjects; otherwise all steps are taken).
    patience : int
        Rounds without a better held-out score before training stops; a round is a tenth of the steps.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    steps: int = 120
    span: int = 64
    batch: int = 4
    learning_rate: float = 2e-3
    encoder_rate: float = 3e-4
    weight_decay: float = 0.05
    label_smoothing: float = 0.02
    balance: float = 0.5
    drop_stream: float = 0.1
    drop_channel: float = 0.1
    noise: float = 0.0
    held_out: float = 0.2
    patience: int = 5


def finetune(
    sessions: Recording | Sequence[Recording], *, task: str = "stage", labels: str = "scoring", encoder: str | Path | Encoder | None = None,
    stages: str = "rodent3", epoch: float = 4.0, kinds: Sequence[str] | None = None, causal: bool = False, mode: str | None = None,
    config: str | Path | dict[str, Any] | FinetuneConfig | None = None, out: str | Path | None = None, seed: int = 0, progress: Progress | None = None,
) -> StageModel:  # fmt: skip
    """Train a stage model on labelled recordings.

    Parameters
    ----------
    sessions : Recording or sequence of Recording
    task : {"stage"}
    labels : str
        Name of the hypnogram in each recording.
    encoder : path, packaged name, Encoder or None
        Where the encoder's weights come from; None starts from scratch.
    stages : {"rodent3", "aasm5"}
    epoch : float, s
        Length of the model's epochs. Labels of another length are read at the middle of each.
    kinds : sequence of str or None
        Channel kinds the model reads, and "spikes"; all but position, speed and other behaviour where None. A stager whose
        output is the outcome of a causal analysis must leave out what the exposure was found in.
    causal : bool
        Context from the epoch itself and earlier ones only.
    mode : {"probe", "context", "full"} or None
        What is trained: a linear head on the frozen encoder; the context encoder and head on frozen window summaries;
        everything. None is "context" with a pretrained encoder and "full" without.
    config : name, path, mapping or FinetuneConfig
        A packaged config ("finetune/stage", the default; "finetune/features" for one-sample-an-epoch streams).
    out : path or None
        Folder to save the model in.
    seed : int
    progress : callable(stage, fraction) or None

    Returns
    -------
    StageModel
        With its ``history`` and card.

    Raises
    ------
    MissingDataError
        If a recording lacks the labels or anything the model reads, or no epoch is scored.
    InputError
        If an argument is not known, or the labels cannot be brought to `stages`.
    """
    if task != "stage":
        raise InputError(f"finetune: task is {task!r}, expected 'stage'")
    recordings = as_list(sessions)
    if not recordings:
        raise InputError("finetune: no recordings came, expected at least one with labels")
    if out is not None and Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
        raise OutputExistsError(f"{out}: exists and is not empty; choose another folder")
    mode = mode or ("full" if encoder is None else "context")
    if mode not in MODES:
        raise InputError(f"finetune: mode is {mode!r}, expected one of {', '.join(MODES)}")
    c = config if isinstance(config, FinetuneConfig) else load_config(FinetuneConfig, config if config is not None else _default_config(recordings, epoch))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = StageModel(StageConfig(stages, float(epoch), tuple(kinds or STAGE_KINDS)), _encoder(encoder, c, causal))
        data = [_labelled(model, r, labels) for r in recordings]
        training, held = _inner_split(data, c.held_out, seed)
        _weigh(model, training, c.balance)
        trainer = _Trainer(model, training, held, c, mode, seed, fresh=encoder is None)
        trainer.run(progress)
    model.eval()
    model.history = trainer.history
    model.card = _card(model, recordings, trainer, mode, encoder, seed)
    if out is not None:
        model.save(out)
    return model


def _default_config(recordings: list[Recording], epoch: float) -> str:
    """Recordings that hold one sample an epoch and nothing else are trained on whole nights."""
    kinds = {k for r in recordings for s in r.signals.values() for k in s.channels["kind"] if k in STAGE_KINDS}
    return "finetune/features" if kinds == {"features"} and all(r.spikes is None for r in recordings) else "finetune/stage"


def _encoder(source: str | Path | Encoder | None, c: FinetuneConfig, causal: bool) -> Encoder:
    from dataclasses import replace

    if source is None:
        return Encoder(replace(c.encoder, causal=causal))
    given = source if isinstance(source, Encoder) else load_encoder(source)
    # A copy, so that the caller's encoder is not trained; the weights do not depend on `causal`.
    fresh = Encoder(replace(given.config, causal=causal))
    fresh.load_state_dict(given.state_dict())
    return fresh


@dataclass
class _Labelled:
    """A recording's windows and their stage codes (n,); negative where unscored."""

    subject: str
    grid: WindowGrid
    codes: NDArray[np.int64]


def _labelled(model: StageModel, recording: Recording, labels: str) -> _Labelled:
    hypnogram = recording.hypnogram(labels)
    wanted = model.config.stages
    if hypnogram.stage_set != wanted:
        if wanted != "rodent3":
            raise InputError(f"{recording.id}: label {labels!r} holds {' '.join(hypnogram.stages)}, which cannot be refined to {wanted}: pass stages='rodent3'")
        hypnogram = hypnogram.as_rodent3()
    epoch = model.config.epoch
    count = int(np.floor((hypnogram.stop - hypnogram.start) / epoch + 1e-6))
    if count < 1:
        raise MissingDataError(f"{recording.id}: label {labels!r} lasts {hypnogram.stop - hypnogram.start:g} s, shorter than one epoch of {epoch:g} s")
    c = model.encoder.config
    grid = WindowGrid(recording, epoch, hypnogram.start, count, kinds=model.config.kinds, patch=c.patch, bin=c.bin)
    first, last = recording.start, recording.stop
    if hypnogram.stop <= first or hypnogram.start >= last:
        raise MissingDataError(
            f"{recording.id}: label {labels!r} spans {hypnogram.start:g}-{hypnogram.stop:g} s, the data {first:g}-{last:g} s: they do not meet"
        )
    codes = hypnogram.at(grid.times + epoch / 2).astype(np.int64)
    if not (codes >= 0).any():
        raise MissingDataError(f"{recording.id}: no epoch of label {labels!r} is scored")
    return _Labelled(recording.subject or recording.id, grid, codes)


def _inner_split(data: list[_Labelled], share: float, seed: int) -> tuple[list[_Labelled], list[_Labelled]]:
    subjects = sorted({d.subject for d in data})
    if len(subjects) < 4 or share <= 0:
        return data, []
    n = int(np.clip(round(share * len(subjects)), 1, len(subjects) - 2))
    held = {subjects[i] for i in np.random.default_rng([seed, 3]).permutation(len(subjects))[:n]}
    return [d for d in data if d.subject not in held], [d for d in data if d.subject in held]


def _weigh(model: StageModel, data: list[_Labelled], balance: float) -> None:
    codes = np.concatenate([d.codes for d in data])
    counts = np.bincount(codes[codes >= 0], minlength=len(model.stages)).astype(float)
    if (counts > 0).sum() < 2:
        raise MissingDataError(f"finetune: the labels hold only {model.stages[int(counts.argmax())]}, expected at least two stages")
    weight = np.where(counts > 0, (np.maximum(counts, 1) / counts.sum()) ** -balance, 1.0)
    weight /= (weight * counts).sum() / counts.sum()
    model.log_weight.copy_(torch.from_numpy(np.log(weight)).float())


class _Trainer:
    """The loop: steps over spans, a held-out score each round, the best weights kept."""

    def __init__(self, model: StageModel, training: list[_Labelled], held: list[_Labelled], c: FinetuneConfig, mode: str, seed: int, fresh: bool) -> None:
        self.model, self.training, self.held, self.c, self.mode, self.seed = model, training, held, c, mode, seed
        self.history: list[dict[str, float]] = []
        encoder = model.encoder
        encoder.requires_grad_(mode == "full")
        if mode == "context":
            encoder.context.requires_grad_(True)
        rate = c.learning_rate if fresh or mode == "context" else c.encoder_rate
        self.optimiser = optimiser([(encoder, rate), (model.head, c.learning_rate)], c.weight_decay)
        self.schedule = warm_cosine(self.optimiser, c.steps, warm=max(1, c.steps // 20))
        self.sampler = SpanSampler([len(d.codes) for d in training], c.span, c.batch, seed)
        self.frozen: list[tuple[Tensor, Tensor]] | None = None

    def run(self, progress: Progress | None) -> None:
        if self.mode != "full":
            self.frozen = self._summaries(self.training, progress)
        held = self._summaries(self.held, progress) if self.held and self.mode != "full" else None
        rounds = max(1, self.c.steps // 10)
        best, best_state, waited = -np.inf, None, 0
        steps = iter(self._batches())
        for step in range(self.c.steps):
            loss = self._step(next(steps), step)
            if progress is not None:
                progress("train", (step + 1) / self.c.steps)
            if (step + 1) % rounds and step + 1 < self.c.steps:
                continue
            entry = {"step": step + 1, "loss": loss}
            if self.held:
                entry["held_out_kappa"] = score = self._score(held)
                if score > best:
                    best, waited = score, 0
                    best_state = {k: v.clone() for k, v in self.model.state_dict().items()}
                else:
                    waited += 1
            self.history.append(entry)
            if waited >= self.c.patience:
                break
        if best_state is not None:
            self.model.load_state_dict(best_state)

    def _batches(self) -> Any:
        epoch = 0
        while True:
            yield from self.sampler.epoch(epoch)
            epoch += 1

    def _summaries(self, data: list[_Labelled], progress: Progress | None) -> list[tuple[Tensor, Tensor]]:
        """Frozen summaries (window, width) and presence of each recording, encoded once."""
        self.model.eval()
        out = []
        for i, d in enumerate(data):
            out.append(self.model.encoder.summaries(d.grid))
            if progress is not None:
                progress("encode", (i + 1) / len(data))
        return out

    def _step(self, spans: list[tuple[int, int, int]], step: int) -> float:
        self.model.train()
        rng = np.random.default_rng([self.seed, 4, step])
        summaries, present, time = self._spans(spans, rng)
        size = max(b - a for _, a, b in spans)
        target = torch.full((len(spans), size), -100, dtype=torch.long)
        for i, (r, a, b) in enumerate(spans):
            codes = torch.from_numpy(self.training[r].codes[a:b])
            target[i, : b - a] = torch.where(codes >= 0, codes, -100)
        target[~present] = -100
        if not bool((target >= 0).any()):
            return float("nan")
        if self.c.noise:
            summaries = summaries + self.c.noise * torch.randn_like(summaries)
        context = self.model.encoder.context(summaries, time, present, self.model.config.epoch)
        logits = self.model.read_out(summaries, context)
        loss = F.cross_entropy(
            logits.flatten(0, 1), target.flatten(), weight=self.model.log_weight.exp(), ignore_index=-100, label_smoothing=self.c.label_smoothing
        )
        if not torch.isfinite(loss):
            names = ", ".join(f"{self.training[r].grid.recording.id} [{a}, {b})" for r, a, b in spans)
            raise InputError(f"finetune: the loss is {float(loss.detach())} at step {step} on epochs {names}: check these recordings for extreme values")
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.schedule.step()
        return float(loss.detach())

    def _spans(self, spans: list[tuple[int, int, int]], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Summaries (span, window, width), presence (span, window), time (span, window), s."""
        size = max(b - a for _, a, b in spans)
        if self.frozen is not None:
            parts = [(self.frozen[r][0][a:b], self.frozen[r][1][a:b]) for r, a, b in spans]
        else:
            batch = collate([self.training[r].grid.batch(slice(a, b), r) for r, a, b in spans])
            values, ok = self.model.encoder.summary(batch, self._hidden(batch, rng))
            lengths = [b - a for _, a, b in spans]
            parts = list(zip(values.split(lengths), ok.split(lengths)))
        summaries = torch.stack([F.pad(v, (0, 0, 0, size - len(v))) for v, _ in parts])
        present = torch.stack([F.pad(ok, (0, size - len(ok))) for _, ok in parts])
        time = torch.arange(size, dtype=torch.float64) * self.model.config.epoch
        return summaries, present, time[None]

    def _hidden(self, batch: Batch, rng: np.random.Generator) -> list[Hidden] | None:
        """Streams and channels hidden in this step; never all streams of a span."""
        if not (self.c.drop_stream or self.c.drop_channel):
            return None
        spans: dict[int, list[int]] = {}
        for i, s in enumerate(batch.streams):
            spans.setdefault(int(s.rows[0]), []).append(i)
        out: list[Hidden] = []
        spared = {int(rng.choice(members)) for members in spans.values()}
        for i, s in enumerate(batch.streams):
            gone = i not in spared and rng.random() < self.c.drop_stream
            tokens = torch.full(s.valid.shape, gone, dtype=torch.bool)
            units = None
            if s.modality == "spikes":
                units = torch.from_numpy(rng.random((1, s.values.shape[1])) < self.c.drop_channel).expand(len(s.values), -1)
            elif s.valid.shape[1] > 1:
                tokens[:, torch.from_numpy(rng.random(s.valid.shape[1]) < self.c.drop_channel)] = True
            out.append(Hidden(tokens, units))
        return out

    @torch.no_grad()
    def _score(self, frozen: list[tuple[Tensor, Tensor]] | None) -> float:
        """Mean kappa over the held-out subjects."""
        self.model.eval()
        by: dict[str, NDArray[np.int64]] = {}
        for i, d in enumerate(self.held):
            summaries, present = frozen[i] if frozen is not None else self.model.encoder.summaries(d.grid)
            context = self.model.encoder.contexts(summaries, present, d.grid.window)
            found = (self.model.read_out(summaries, context) - self.model.log_weight).argmax(-1).numpy()
            by[d.subject] = by.get(d.subject, 0) + metrics.confusion(d.codes, found, len(self.model.stages))
        kappas = [metrics.cohen_kappa(m) for m in by.values()]
        return float(np.nanmean(kappas)) if np.isfinite(kappas).any() else 0.0


def _card(model: StageModel, recordings: list[Recording], trainer: _Trainer, mode: str, encoder: Any, seed: int) -> str:
    subjects = {r.subject or r.id for r in recordings}
    hours = sum(len(d.codes) for d in trainer.training + trainer.held) * model.config.epoch / 3600
    lines = [
        "# Stage model", "",
        f"- Predicts {' '.join(STAGE_SETS[model.config.stages])} in epochs of {model.config.epoch:g} s from {', '.join(model.config.kinds)}.",
        f"- Trained on {len(recordings)} recordings of {len(subjects)} subjects, {hours:.1f} h, mode {mode}, seed {seed}.",
        f"- Encoder: {'untrained' if encoder is None else encoder if isinstance(encoder, (str, Path)) else 'given in memory'}, "
        f"{'causal' if model.causal else 'bidirectional'}, {model.encoder.n_parameters:,} parameters.",
    ]  # fmt: skip
    best = max((h for h in trainer.history if "held_out_kappa" in h), key=lambda h: h["held_out_kappa"], default=None)
    if best is not None:
        held = len({d.subject for d in trainer.held})
        lines.append(f"- Stopped by {held} held-out subjects of the training set: mean kappa {best['held_out_kappa']:.3f} at step {best['step']} (optimistic).")
    lines += ["- Limits: not validated on any recording outside the training set; score it on your own subjects first.", ""]
    return "\n".join(lines)
