"""Fine-tuning: labelled recordings and an encoder (pretrained, or none) in, a stage model out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from brainmu.config import load_config, plural
from brainmu.core import metrics
from brainmu.core.hypnogram import STAGE_SETS
from brainmu.core.recording import Recording, as_list
from brainmu.errors import ConfigError, InputError, MissingDataError, OutputExistsError
from brainmu.models.adapters import AdapterConfig, add_adapters, merge_adapters, merged
from brainmu.models.checkpoint import load_encoder
from brainmu.models.encoder import Encoder, EncoderConfig
from brainmu.models.stage_model import STAGE_KINDS, StageConfig, StageModel
from brainmu.models.tokens import Hidden
from brainmu.train.labelled import Labelled, hold_out, holds_data, labelled, leave_out
from brainmu.train.schedule import optimiser, warm_cosine
from brainmu.windows.batch import Batch, collate
from brainmu.windows.grid import CacheBudget
from brainmu.windows.sampler import SpanSampler

__all__ = ["MODES", "FinetuneConfig", "finetune"]

Progress = Callable[[str, float], None]
MODES = ("probe", "adapters", "context", "full")
DROWNED = 5.0
"""How many times what all window summaries share may exceed what tells them apart; beyond that they are standardised."""


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
    learning_rate, encoder_rate, adapter_rate : float
        Of the head (and a fresh encoder), of a pretrained encoder in mode "full", and of adapters.
    layer_decay : float
        Mode "full": the layer below learns at this share of the rate of the one above, from the head down to the tokens. 1 is none.
    adapters : AdapterConfig
        Rank, alpha and dropout of mode "adapters".
    weight_decay, label_smoothing : float
    balance : float
        Class weights are frequency ** -balance; 0 is none, 1 makes all stages count alike.
    drop_stream, drop_channel : float
        Chance that a stream of a recording, or a channel, is hidden in a step, so that any of them may be missing later.
    noise : float
        SD of Gaussian noise added to window summaries.
    held_out : float
        Share of the subjects, or of the time, that decides when to stop.
    stop_on : {"auto", "subjects", "time", "none"}
        What is held out for that. "time" is the end of each recording, which says nothing of new animals. "auto": subjects where there
        are four or more; time where there is one, if both parts are long enough; otherwise nothing, and all steps are taken.
    guard : float, s
        Left out between the two parts of a recording.
    patience : int
        Rounds without a better held-out score before training stops; a round is a tenth of the steps.
    cache_mib : int, MiB
        Features of recordings kept in memory, over all of them, for modes that read them again and again.
    gradient_windows : int
        Modes "full" and "adapters": windows of a step that gradients pass through into the window encoder, drawn anew each step.
        The context reads the others as summaries of the encoder as it was, made afresh after each round, so that the window
        encoder's memory does not grow with `span`. A step of no more windows than that is trained through all of them.
    """

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    steps: int = 120
    span: int = 64
    batch: int = 4
    learning_rate: float = 2e-3
    encoder_rate: float = 3e-4
    adapter_rate: float = 1e-3
    layer_decay: float = 1.0
    adapters: AdapterConfig = field(default_factory=AdapterConfig)
    weight_decay: float = 0.05
    label_smoothing: float = 0.02
    balance: float = 0.5
    drop_stream: float = 0.1
    drop_channel: float = 0.1
    noise: float = 0.0
    held_out: float = 0.2
    stop_on: Literal["auto", "subjects", "time", "none"] = "auto"
    guard: float = 300.0
    patience: int = 5
    cache_mib: int = 1024
    gradient_windows: int = 1024

    def __post_init__(self) -> None:
        if min(self.steps, self.span, self.batch, self.patience) < 1:
            raise ConfigError(f"finetune: steps {self.steps}, span {self.span}, batch {self.batch}, patience {self.patience}: expected integers >= 1")
        if self.gradient_windows < 1:
            raise ConfigError(f"finetune: gradient_windows is {self.gradient_windows}, expected an integer >= 1; mode 'context' trains without such windows")
        if self.cache_mib < 0:
            raise ConfigError(f"finetune: cache_mib is {self.cache_mib}, expected MiB >= 0; 0 keeps nothing")
        if not 0 < self.layer_decay <= 1:
            raise ConfigError(f"finetune: layer_decay is {self.layer_decay}, expected a share in (0, 1]; 1 is none")
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"finetune: held_out is {self.held_out}, expected a share in [0, 1); 0 takes all steps")
        for name in ("learning_rate", "encoder_rate", "adapter_rate"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) > 0):
                raise ConfigError(f"finetune: {name} is {getattr(self, name)}, expected a number > 0")
        for name in ("weight_decay", "noise", "balance"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ConfigError(f"finetune: {name} is {getattr(self, name)}, expected a number >= 0")
        for name in ("label_smoothing", "drop_stream", "drop_channel"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"finetune: {name} is {getattr(self, name)}, expected a share in [0, 1)")
        if not (np.isfinite(self.guard) and self.guard >= 0):
            raise ConfigError(f"finetune: guard is {self.guard}, expected seconds >= 0")


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
    mode : {"probe", "adapters", "context", "full"} or None
        What is trained: a linear head on the frozen encoder; low-rank adapters of the whole encoder and the head; the context encoder
        and head on frozen window summaries; everything. None is "context" with a pretrained encoder and "full" without.
    config : name, path, mapping or FinetuneConfig
        A packaged config ("finetune/stage", the default; "finetune/features" for one-sample-an-epoch streams).
    out : path or None
        Folder to save the model in.
    seed : int
    progress : callable(stage, fraction) or None

    Returns
    -------
    StageModel
        With ``history``, ``notes``, ``n_trained``, ``n_epochs`` and card. Adapters are folded in. Where rounds were scored, the weights are those of the best.

    Raises
    ------
    MissingDataError
        If a recording lacks the labels or anything the model reads, fewer than 20 scored epochs hold data, or all are of one stage.
    InputError
        If an argument is not known, the labels cannot be brought to `stages`, or what ``stop_on`` names cannot be held out.

    Notes
    -----
    The window summaries of a barely trained encoder are nearly the same vector: the layer norms of context and head then pass on what
    all windows share and next to nothing of what tells them apart, and one stage is predicted throughout. Where the shared part is more
    than five times the rest, in the training recordings, the summaries of a given encoder are standardised; the scale is
    folded into the layer that makes them, and the model says so in its notes.

    Nothing is kept of an interrupted training: the same call begins again and ends with the same weights.
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
        budget = CacheBudget(c.cache_mib << 20)
        data = [labelled(model, r, labels, budget) for r in recordings]
        training, held, notes = hold_out(data, c.stop_on, c.held_out, c.guard, seed)
        notes += _weigh(model, training, c.balance)
        if encoder is not None:
            notes += _centre(model, training)
        elif mode != "full":
            notes.append(f"The encoder is untrained and mode {mode!r} does not train all of it: name one to begin from, or use mode 'full'.")
        trainer = _Trainer(model, training, held, c, mode, seed, fresh=encoder is None)
        notes = list(dict.fromkeys(notes + trainer.prepare(progress)))
        trainer.run(progress)
    merge_adapters(model).eval()
    model.history, model.notes, model.n_trained, model.n_epochs = trainer.history, notes, trainer.n_trained, trainer.n_epochs
    model.card = _card(model, trainer, mode, encoder, seed)
    if out is not None:
        model.save(out)
    return model


def _default_config(recordings: list[Recording], epoch: float) -> str:
    """Recordings that hold one sample an epoch and nothing else are trained on whole nights."""
    kinds = {k for r in recordings for s in r.signals.values() for k in s.channels["kind"] if k in STAGE_KINDS}
    return "finetune/features" if kinds == {"features"} and all(r.spikes is None for r in recordings) else "finetune/stage"


def _encoder(source: str | Path | Encoder | None, c: FinetuneConfig, causal: bool) -> Encoder:
    if source is None:
        return Encoder(replace(c.encoder, causal=causal))
    given = source if isinstance(source, Encoder) else load_encoder(source)
    # A copy, so that the caller's encoder is not trained; the weights do not depend on `causal`.
    fresh = Encoder(replace(given.config, causal=causal))
    fresh.load_state_dict(merged(given).state_dict())
    return fresh


def _weigh(model: StageModel, data: list[Labelled], balance: float) -> list[str]:
    """Give the model its class weights; a sentence on stages without labels."""
    codes = np.concatenate([d.codes for d in data])
    counts = np.bincount(codes[codes >= 0], minlength=len(model.stages)).astype(float)
    if (counts > 0).sum() < 2:
        raise MissingDataError(f"finetune: the labels hold only {model.stages[int(counts.argmax())]}, expected at least two stages")
    weight = np.where(counts > 0, (np.maximum(counts, 1) / counts.sum()) ** -balance, 1.0)
    weight /= (weight * counts).sum() / counts.sum()
    model.log_weight.copy_(torch.from_numpy(np.log(weight)).float())
    absent = [s for s, n in zip(model.stages, counts) if n == 0]
    return [f"No epoch is labelled {' or '.join(absent)}: the model has not learnt what that looks like."] if absent else []


@torch.no_grad()
def _centre(model: StageModel, data: list[Labelled]) -> list[str]:
    """Standardise the summaries of the encoder where what they share drowns what tells them apart; a sentence if so."""
    encoder = model.eval().encoder
    parts = []
    for d in data:
        values, present = encoder.summary(d.grid.batch(np.unique(np.linspace(0, len(d.codes) - 1, 64).astype(int)), keep=False))
        parts.append(values[present])
    summaries = torch.cat(parts)
    if len(summaries) < 2:
        return []
    shared, apart = summaries.mean(0), summaries.std(0)
    # Below float32's rounding there is nothing to bring out.
    if not 1e-5 * shared.norm() < apart.norm() < shared.norm() / DROWNED:
        return []
    sd = apart.clamp(min=0.01 * float(apart.square().mean().sqrt()))
    encoder.summarise.bias.sub_(shared).div_(sd)
    encoder.summarise.weight.div_(sd[:, None])
    ratio = float(shared.norm() / apart.norm())
    return [f"Window summaries were standardised: what they share was {ratio:.0f} times what tells them apart, as of a barely trained encoder."]


def _layers(encoder: Encoder) -> list[list[nn.Parameter]]:
    """Weights of the encoder by depth, from the head down to the tokens; each once."""
    window, context = encoder.window, encoder.context
    # What stands alone (norms, learnt vectors) goes with its neighbours; the last step takes all that is left.
    steps: list[list[nn.Module]] = [[b, near] for b, near in zip(context.blocks, context.locals)][::-1]
    steps += [[context.enter, encoder.summarise], *([b] for b in reversed(window.blocks)), [window.read], [encoder]]
    steps[0].append(context.norm)
    taken: set[int] = set()
    out = []
    for modules in steps:
        new = [p for m in modules for p in m.parameters() if id(p) not in taken]
        taken |= {id(p) for p in new}
        out.append(new)
    return out


class _Trainer:
    """The loop: steps over spans, a held-out score each round, the best weights kept."""

    def __init__(self, model: StageModel, training: list[Labelled], held: list[Labelled], c: FinetuneConfig, mode: str, seed: int, fresh: bool) -> None:
        self.model, self.training, self.held, self.c, self.mode, self.seed = model, training, held, c, mode, seed
        self.history: list[dict[str, float]] = []
        encoder = model.encoder
        encoder.requires_grad_(mode == "full")
        if mode == "context":
            encoder.context.requires_grad_(True)
        elif mode == "adapters":
            add_adapters(encoder, c.adapters)
        rate = c.adapter_rate if mode == "adapters" else c.learning_rate if fresh or mode == "context" else c.encoder_rate
        parts: list[tuple[nn.Module, float]] = [(encoder, rate)]
        if mode == "full" and c.layer_decay < 1:
            parts = [(nn.ParameterList(layer), rate * c.layer_decay**depth) for depth, layer in enumerate(_layers(encoder))]
        self.optimiser = optimiser([*parts, (model.head, c.learning_rate)], c.weight_decay)
        self.n_trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.schedule = warm_cosine(self.optimiser, c.steps, warm=max(1, c.steps // 20))
        self.sampler = SpanSampler([len(d.codes) for d in training], c.span, c.batch, seed)
        self.frozen: list[tuple[Tensor, Tensor]] | None = None
        self.frozen_held: list[tuple[Tensor, Tensor]] | None = None
        self.n_epochs = 0
        # Summaries of whole recordings by the encoder as it was, for steps of more windows than gradients pass through.
        self.stale: dict[int, tuple[Tensor, Tensor]] = {}

    def prepare(self, progress: Progress | None) -> list[str]:
        """Encode once what stays as it is, and leave out epochs without data; sentences where there are such epochs."""
        if self.mode in ("probe", "context"):
            self.frozen, self.frozen_held = self._summaries(self.training, progress), self._summaries(self.held, progress)
            present = [ok.numpy() for _, ok in [*self.frozen, *self.frozen_held]]
        else:
            present = [holds_data(d.grid) for d in [*self.training, *self.held]]
        self.n_epochs, absent = leave_out(self.training, self.held, present)
        if not absent:
            return []
        return [f"{absent} of {self.n_epochs + absent} scored epochs hold no data: they were left out.", *_weigh(self.model, self.training, self.c.balance)]

    def run(self, progress: Progress | None) -> None:
        rounds = max(1, self.c.steps // 10)
        best, best_state, waited = -np.inf, None, 0
        steps = iter(self._batches())
        for step in range(self.c.steps):
            loss = self._step(next(steps), step)
            if progress is not None:
                progress("train", (step + 1) / self.c.steps)
            if (step + 1) % rounds and step + 1 < self.c.steps:
                continue
            self.stale.clear()
            entry = {"step": step + 1, "loss": loss}
            if self.held:
                entry["held_out_kappa"] = score = self._score(self.frozen_held)
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

    def _summaries(self, data: list[Labelled], progress: Progress | None) -> list[tuple[Tensor, Tensor]]:
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
        summaries, present, within, time = self._spans(spans, rng)
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
        context = self.model.encoder.context(summaries, time, present, self.model.config.epoch, within=within)
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

    def _spans(self, spans: list[tuple[int, int, int]], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Summaries (span, window, width), which are present, which are within their span if not all (span, window), time (1, window), s."""
        size = max(b - a for _, a, b in spans)
        if self.frozen is not None:
            parts = [(self.frozen[r][0][a:b], self.frozen[r][1][a:b]) for r, a, b in spans]
        else:
            parts = self._encoded(spans, rng)
        summaries = torch.stack([F.pad(v, (0, 0, 0, size - len(v))) for v, _ in parts])
        present = torch.stack([F.pad(ok, (0, size - len(ok))) for _, ok in parts])
        within = None if all(len(v) == size for v, _ in parts) else torch.stack([torch.arange(size) < len(v) for v, _ in parts])
        time = torch.arange(size, dtype=torch.float64) * self.model.config.epoch
        return summaries, present, within, time[None]

    def _encoded(self, spans: list[tuple[int, int, int]], rng: np.random.Generator) -> list[tuple[Tensor, Tensor]]:
        """Summaries (window, width) and presence of each span; gradients pass through at most `gradient_windows` of them all."""
        lengths = [b - a for _, a, b in spans]
        drawn = _drawn(lengths, self.c.gradient_windows, rng)
        pieces = [(r, a + w) for (r, a, _), w in zip(spans, drawn) if len(w)]
        batch = collate([self.training[r].grid.batch(w, r) for r, w in pieces])
        values, ok = self.model.encoder.summary(batch, self._hidden(batch, rng))
        if len(values) == sum(lengths):
            return list(zip(values.split(lengths), ok.split(lengths)))
        counts, parts = [len(w) for w in drawn], []
        for (r, a, b), w, v, p in zip(spans, drawn, values.split(counts), ok.split(counts)):
            summaries, present = self._as_they_were(r)
            at = torch.from_numpy(w)
            parts.append((summaries[a:b].index_copy(0, at, v), present[a:b].index_copy(0, at, p)))
        return parts

    def _as_they_were(self, r: int) -> tuple[Tensor, Tensor]:
        """Summaries of recording `r` without dropout and with all channels, encoded when first needed in a round."""
        if r not in self.stale:
            self.model.eval()
            self.stale[r] = self.model.encoder.summaries(self.training[r].grid, keep=True)
            self.model.train()
        return self.stale[r]

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
            summaries, present = frozen[i] if frozen is not None else self.model.encoder.summaries(d.grid, keep=True)
            context = self.model.encoder.contexts(summaries, present, d.grid.window)
            found = (self.model.read_out(summaries, context) - self.model.log_weight).argmax(-1).numpy()
            codes = np.where(present.numpy(), d.codes, -1)
            by[d.subject] = by.get(d.subject, 0) + metrics.confusion(codes, found, len(self.model.stages))
        # Kappa of a subject with one stage is 0 or undefined, whatever the model says.
        kappas = [metrics.cohen_kappa(m) for m in by.values() if (m.sum(1) > 0).sum() > 1]
        if not kappas:
            names = ", ".join(by)
            raise MissingDataError(f"finetune: held out is {names}, without two stages on epochs that hold data: pass stop_on 'none', or another seed")
        return float(np.mean(kappas))


def _drawn(lengths: list[int], most: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """At most `most` windows over all spans of these lengths, any as likely as another, in order: their places in each span."""
    total = sum(lengths)
    if total <= most:
        return [np.arange(n) for n in lengths]
    chosen = np.sort(rng.choice(total, most, replace=False))
    edges = np.cumsum([0, *lengths])
    return [chosen[(chosen >= a) & (chosen < b)] - a for a, b in pairwise(edges)]


def _card(model: StageModel, trainer: _Trainer, mode: str, encoder: Any, seed: int) -> str:
    epoch = model.config.epoch
    trained, held = (sum(int((d.codes >= 0).sum()) for d in part) for part in (trainer.training, trainer.held))
    lines = [
        "# Stage model", "",
        f"- Predicts {' '.join(STAGE_SETS[model.config.stages])} in epochs of {epoch:g} s from {', '.join(model.config.kinds)}.",
        f"- Trained on {trained:,} epochs ({trained * epoch / 3600:.1f} h) of {_whose(trainer.training)}, mode {mode}, seed {seed};",
        f"  {_trained(model, trainer)}.",
        *([f"- Held out to decide when to stop: {held:,} epochs ({held * epoch / 3600:.1f} h) of {_whose(trainer.held)}."] if held else []),
        f"- Encoder: {'untrained' if encoder is None else encoder if isinstance(encoder, (str, Path)) else 'given in memory'}, "
        f"{'causal' if model.causal else 'bidirectional'}, {model.encoder.n_parameters:,} parameters.",
        *(f"- {note}" for note in model.notes),
    ]  # fmt: skip
    best = max((h for h in trainer.history if "held_out_kappa" in h), key=lambda h: h["held_out_kappa"], default=None)
    if best is not None:
        lines.append(f"- Kept are the weights of step {best['step']}: held-out mean kappa {best['held_out_kappa']:.3f} (optimistic).")
    lines += ["- Limits: not validated on any recording outside the training set; score it on your own subjects first.", ""]
    return "\n".join(lines)


def _whose(data: list[Labelled]) -> str:
    return f"{plural(len(data), 'recording')} of {plural(len({d.subject for d in data}), 'subject')}"


def _trained(model: StageModel, trainer: _Trainer) -> str:
    a = trainer.c.adapters
    how = f" (adapters of rank {a.rank}, folded in, and the head)" if trainer.mode == "adapters" else ""
    return f"{trainer.n_trained:,} weights trained{how}, of a model of {sum(p.numel() for p in model.parameters()):,}"
