"""The two Lightning modules of pretraining: hidden tokens of windows, then hidden windows of hours."""

from __future__ import annotations

import abc
import warnings
from collections.abc import Callable, Iterable

# Lightning's import runs third-party code that warns about itself; nothing a user of this package could act on.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lightning.pytorch as pl

import numpy as np
import torch
from torch import Tensor

from brainmu.errors import InputError
from brainmu.models.encoder import Encoder
from brainmu.models.heads import Gist, Reconstruction, SummaryPrediction
from brainmu.models.tokens import Hidden
from brainmu.train.flops import context_flops, window_flops
from brainmu.train.objectives import MaskConfig, baselines, draw_masks, draw_spans, gist_counts, gist_losses, losses
from brainmu.train.processes import average_over_processes, shard
from brainmu.train.schedule import optimiser, warm_cosine
from brainmu.windows.batch import Batch
from brainmu.windows.interpolation import interpolate
from brainmu.windows.sampler import WindowSampler
from brainmu.windows.spectra import N_BANDS

__all__ = ["ContextTask", "SummarySpans", "WindowTask", "hidden_counts"]

# A spike bin holds far less than one spike, so its likelihood moves far less than a squared error does.
WEIGHTS = {
    "spectrum": 1.0, "waveform": 1.0, "slow": 0.5, "features": 1.0, "spikes": 5.0,
    "summary_spectrum": 1.0, "summary_slow": 0.5, "summary_features": 1.0, "summary_spikes": 0.25,
}  # fmt: skip


class _Task(pl.LightningModule, abc.ABC):
    """What both share: an optimiser with warm-up and cosine, dropout that is a function of (seed, step), and guards of loss and gradient.

    Attributes
    ----------
    last : dict
        Loss and its parts of the last batch, over all processes.
    work : dict
        What the last batch was, over all processes: hours of recording, tokens, floating-point operations.
    norm : float
        Norm of the last step's gradient before clipping.
    """

    targets: tuple[str, ...] = ()

    def __init__(self, steps: int, rate: float, weight_decay: float, seed: int, clip: float = 1.0, warm: float = 0.05) -> None:
        super().__init__()
        self.steps, self.rate, self.weight_decay, self.seed, self.clip, self.warm = steps, rate, weight_decay, seed, clip, warm
        self.last: dict[str, float] = {}
        self.work: dict[str, float] = {}
        self.norm = 0.0
        self.sharded = False
        self._places: list[str] = []

    def configure_optimizers(self) -> dict[str, object]:
        o = optimiser([(self, self.rate)], self.weight_decay)
        schedule = warm_cosine(o, self.steps, warm=max(1, int(self.steps * self.warm)))
        return {"optimizer": o, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_model(self) -> None:
        if self.sharded and not self._shards:
            shard(self, self.blocks(), self.device_mesh["data_parallel"])  # type: ignore[index]
            self._shards = True

    _shards = False

    @abc.abstractmethod
    def blocks(self) -> list[torch.nn.Module]:
        """Blocks of attention that run once a batch, in any process."""

    def on_train_batch_start(self, batch: tuple[int, object], batch_idx: int) -> None:
        torch.manual_seed((self.seed * 1_000_003 + batch[0] + 7_919 * self.global_rank) % (1 << 63))

    def configure_gradient_clipping(
        self, optimizer: torch.optim.Optimizer, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        free = [p for g in optimizer.param_groups for p in g["params"]]
        places, self._places = self._places, []
        try:
            # Where a scaler guards half precision it takes a step that overflowed back itself.
            norm = torch.nn.utils.clip_grad_norm_(free, self.clip or torch.inf, error_if_nonfinite=self.trainer.scaler is None)
        except RuntimeError as error:
            if "non-finite" not in str(error):
                raise
            bad = [n for n, p in self.named_parameters() if p.grad is not None and not bool(torch.isfinite(_local(p.grad)).all())]
            named = f"{', '.join(bad[:3])}{', …' if len(bad) > 3 else ''}" if bad else "its norm"
            raise InputError(
                f"pretraining: the gradient is not finite at step {self.trainer.global_step} (of {named}) on {'; '.join(places)}: "
                "look at these windows, or lower the learning rate; the run resumes from its last checkpoint"
            ) from None
        self.norm = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    @property
    def _world(self) -> int:
        return self._trainer.world_size if self._trainer is not None else 1

    def _note(self, parts: dict[str, Tensor], total: Tensor, step: int, where: str, work: dict[str, float], why: Callable[[], str]) -> None:
        """Remember losses and work of a batch; stop, in every process, where the loss is not finite."""
        self.work, self.last = work, {"loss": float(total.detach()), **{k: float(v.detach()) for k, v in parts.items()}}
        mine = self.last
        if self._world > 1:
            self._gather(total.device)
        self._places.append(where)
        if not np.isfinite(self.last["loss"]):
            found = why() if not np.isfinite(list(mine.values())).all() else ""
            if self._world > 1:
                every: list[str] = [""] * self._world
                torch.distributed.all_gather_object(every, found)
                found = "; ".join(x for x in every if x)
            values = ", ".join(f"{k} {v:g}" for k, v in self.last.items() if k != "loss")
            raise InputError(f"pretraining: the loss is not finite at step {step} ({values}) on {found}; the run resumes from its last checkpoint")

    def _gather(self, device: torch.device) -> None:
        """Losses as their mean and work as its sum over all processes."""
        names = ("loss", *self.targets)
        row = [self.last.get(k, 0.0) for k in names] + [float(k in self.last) for k in names] + list(self.work.values())
        # Single precision on devices that know no double one.
        values = torch.tensor(row, dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
        mean = average_over_processes(values).tolist()
        n = len(names)
        self.last = {k: v for k, v, there in zip(names, mean[:n], mean[n : 2 * n]) if there}
        self.work = {k: v * self._world for k, v in zip(self.work, mean[2 * n :])}


def _local(x: Tensor) -> Tensor:
    return x.to_local() if hasattr(x, "to_local") else x  # type: ignore[operator]


WindowItem = tuple[int, Batch, list[Hidden], dict[str, float]]


def _weight_of_others(step: int, steps: int) -> float:
    """Weight of all targets but the waveform at a step.

    Waveforms come first. Of all targets theirs has the longest way to a first success, and to the others they are noise: asked
    for at once, the encoder learns to drop them and never recovers them (held-out error 1.00 of the mean's after 800 steps,
    0.81 after 400 when they come first, 0.73 in the released weights).
    """
    first, all_of_them = min(100.0, steps / 6), min(250.0, steps * 5 / 12)
    return min(1.0, max(0.02, (step - first) / max(1.0, all_of_them - first)))


class WindowTask(_Task):
    """Window encoder: what was hidden from it, from its latents, and the gist of the window from its summary."""

    targets = tuple(WEIGHTS)

    def __init__(
        self, encoder: Encoder, masks: MaskConfig, names: list[str], steps: int, rate: float, weight_decay: float, seed: int,
        clip: float = 1.0, warm: float = 0.05, waveforms: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(steps, rate, weight_decay, seed, clip, warm)
        # Whether any training recording has a signal with a waveform, for which the other targets wait.
        self.waveforms = waveforms
        self.window, self.summarise = encoder.window, encoder.summarise
        self.reconstruction = Reconstruction(encoder.config.width, encoder.config.heads)
        self.gist = Gist(encoder.config.width)
        self.masks, self.names = masks, names

    def blocks(self) -> list[torch.nn.Module]:
        return [self.window.read, *self.window.blocks, self.reconstruction.read]

    def draw(self, sampler: WindowSampler, step: int) -> WindowItem:
        """This process's share of batch `step`, what is hidden of it (drawn for the whole batch, whatever the number of processes), and its size."""
        batch, rng = sampler.batch(step), np.random.default_rng([self.seed, 5, step, 0])
        work = {"hours": len(batch) * batch.length / 3600, "tokens": float(batch.n_tokens), "flops": window_flops(self.window, batch)}
        if sampler.world == 1:
            return step, batch, draw_masks(batch, self.masks, rng), work
        outline, mine = sampler.outline(step)
        shares = [(h, torch.from_numpy(mine[s.rows.numpy()])) for s, h in zip(outline.streams, draw_masks(outline, self.masks, rng))]
        return step, batch, [Hidden(h.tokens[k], None if h.units is None else h.units[k]) for h, k in shares if bool(k.any())], work

    def transfer_batch_to_device(self, batch: WindowItem, device: torch.device, dataloader_idx: int) -> WindowItem:
        step, windows, hidden, work = batch
        return step, windows.to(device), [_moved(h, device) for h in hidden], work

    def training_step(self, batch: WindowItem, batch_idx: int) -> Tensor:
        step, windows, hidden, work = batch
        parts = self(windows, hidden)
        if self._world > 1:
            parts = self._shared(parts, windows, hidden)
        # A batch in which nothing is measured still has a gradient, of zero: other processes wait for it.
        nothing = parts.pop("nothing", torch.zeros((), device=self.device))
        total = sum((WEIGHTS[k] * v for k, v in parts.items()), nothing)
        self._note(parts, total, step, self._where(windows, range(len(windows))), work, lambda: self._why(windows))
        others = _weight_of_others(self.global_step, self.steps) if self.waveforms else 1.0
        return sum((WEIGHTS[k] * v * (1.0 if k == "waveform" else others) for k, v in parts.items()), nothing)

    def forward(self, batch: Batch, hidden: list[Hidden]) -> dict[str, Tensor]:
        return self.parts(batch, hidden)

    def _shared(self, parts: dict[str, Tensor], batch: Batch, hidden: list[Hidden]) -> dict[str, Tensor]:
        """Losses whose mean over processes is that of the whole batch: each weighed by its share of what is hidden there."""
        mine = hidden_counts(batch, hidden) | {f"summary_{k}": n for k, n in gist_counts(batch).items()}
        counts = torch.stack([mine.get(k, torch.zeros((), device=self.device)) for k in WEIGHTS])
        share = dict(zip(WEIGHTS, counts / average_over_processes(counts.clone()).clamp(min=1e-9)))
        return {k: v * share.get(k, 1.0) for k, v in parts.items()}

    def _where(self, windows: Batch, rows: Iterable[int]) -> str:
        rows = list(rows)
        named = ", ".join(f"{self.names[int(windows.session[i])]} at {windows.start[i]:.1f} s" for i in rows[:4])
        return f"{named}{', …' if len(rows) > 4 else ''}"

    def _why(self, windows: Batch) -> str:
        """The windows whose inputs are not finite, with their streams; where all are finite, the batch."""
        found = []
        for s in windows.streams:
            bad = (~torch.isfinite(s.values.flatten(1))).any(1).cpu()
            if bool(bad.any()):
                rows = s.rows.cpu()[bad].tolist()
                found.append(f"{self._where(windows, rows)} (signal {s.name}, modality {s.modality}: not finite itself; mend or leave out this stretch)")
        return "; ".join(found) or f"{self._where(windows, range(len(windows)))}: look at these windows, or lower the learning rate"

    def parts(self, batch: Batch, hidden: list) -> dict[str, Tensor]:
        """Losses by target: of what was hidden, from the latents; of the gist of the window (prefix ``summary_``), from its summary."""
        latents, _ = self.window(batch, hidden)
        made = losses(batch, hidden, self.reconstruction(batch, latents, self.window, hidden))
        told = self.gist(batch, self.summarise(latents.flatten(1)))
        found = made | {f"summary_{k}": v for k, v in gist_losses(batch, told).items()}
        return found or {"nothing": 0.0 * latents.sum()}

    @torch.no_grad()
    def compare(self, batches: list[Batch], seed: int) -> dict[str, dict[str, float]]:
        """Held-out losses of the model and of each baseline, by target."""
        self.eval()
        rows: dict[str, dict[str, list[float]]] = {}
        for i, batch in enumerate(batches):
            hidden = draw_masks(batch, self.masks, np.random.default_rng([seed, 6, i]))
            for name, parts in {"model": self.parts(batch, hidden), **baselines(batch, hidden)}.items():
                for target, value in parts.items():
                    rows.setdefault(target, {}).setdefault(name, []).append(float(value))
        return {t: {n: float(np.mean(v)) for n, v in r.items()} for t, r in rows.items() if t in WEIGHTS and not t.startswith("summary_")}


def hidden_counts(batch: Batch, hidden: list[Hidden]) -> dict[str, Tensor]:
    """How many hidden values each loss of :func:`brainmu.train.objectives.losses` is a mean over, by target."""
    out: dict[str, Tensor] = {}
    for s, h in zip(batch.streams, hidden):
        if s.modality == "spikes":
            assert h.units is not None
            found = {"spikes": ((h.tokens[:, None, :] | h.units[:, :, None]) & s.valid[:, None, :]).sum()}
        else:
            where = h.tokens & s.valid
            found = {s.modality: where.sum()}
            if s.modality == "field":
                found = {"spectrum": ((s.values[..., :N_BANDS] != 0) & where[..., None]).sum(), "waveform": where.sum()}
        out |= {k: out.get(k, 0) + n.float() for k, n in found.items()}
    return out


Stack = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Summaries (span, window, width), which are present, hidden and within the span (span, window), and time (1, window), s."""
ContextItem = tuple[int, Stack, float, list[tuple[int, int, int]]]


class SummarySpans:
    """Cached summaries of recordings, in spans padded to the longest."""

    def __init__(self, cached: list[tuple[Tensor, Tensor]], masks: MaskConfig, length: float, seed: int) -> None:
        self.cached, self.share, self.length, self.seed = cached, masks.context, length, seed
        self.longest = max(1, round(masks.longest / length))

    def stack(self, spans: list[tuple[int, int, int]], step: int) -> Stack:
        rng = np.random.default_rng([self.seed, 7, step])
        size = max(b - a for _, a, b in spans)
        width = self.cached[0][0].shape[1]
        values, present = torch.zeros(len(spans), size, width), torch.zeros(len(spans), size, dtype=torch.bool)
        hidden, within = torch.zeros_like(present), torch.zeros_like(present)
        for i, (r, a, b) in enumerate(spans):
            values[i, : b - a], present[i, : b - a] = self.cached[r][0][a:b], self.cached[r][1][a:b]
            within[i, : b - a] = True
            if b - a > 1:
                hidden[i, : b - a] = torch.from_numpy(draw_spans(b - a, self.share, self.longest, rng))
        return values, present, hidden & present, within, torch.arange(size, dtype=torch.float64)[None] * self.length

    def item(self, spans: list[tuple[int, int, int]], step: int, rank: int = 0, world: int = 1) -> ContextItem:
        """A process's share of a batch of spans, and how many windows are hidden in the whole batch.

        A process that no span is left for gets one of which nothing is hidden: its loss is zero.
        """
        values, present, hidden, within, time = self.stack(spans, step)
        total = float(hidden.sum())
        if world > 1:
            mine = slice(rank, None, world) if rank < len(spans) else slice(0, 1)
            values, present, within, hidden = values[mine], present[mine], within[mine], hidden[mine] & (rank < len(spans))
            spans = spans[rank::world]
        return step, (values, present, hidden, within, time), total, spans


class ContextTask(_Task):
    """Context encoder and prediction of hidden window summaries, which are cached and fixed: there is nothing to collapse."""

    targets = ("context",)

    def __init__(
        self, encoder: Encoder, length: float, steps: int, rate: float, weight_decay: float, seed: int, clip: float = 1.0, warm: float = 0.05,
        names: list[str] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(steps, rate, weight_decay, seed, clip, warm)
        self.names = names or []
        self.context = encoder.context
        self.prediction = SummaryPrediction(encoder.config.width)
        self.length = length

    def blocks(self) -> list[torch.nn.Module]:
        return list(self.context.blocks)

    def training_step(self, batch: ContextItem, batch_idx: int) -> Tensor:
        step, stack, total, spans = batch
        values, present, hidden, *_ = stack
        # The mean over processes is the mean over all hidden windows of the batch.
        loss = self(*stack) / (max(total, 1.0) / self._world)
        windows = sum(b - a for _, a, b in spans)
        sizes = (present & ~hidden).sum() / len(values), hidden.sum() / len(values)
        flops = context_flops(self.context, *values.shape[:2], *map(float, sizes)) if spans else 0.0
        work = {"hours": windows * self.length / 3600, "tokens": float(windows), "flops": flops}
        where = "cached summaries of " + ", ".join(f"{self._name(r)} from window {a} to {b}" for r, a, b in spans)
        self._note({"context": loss}, loss, step, where, work, lambda: f"{where}: look at these windows, or lower the learning rate")
        return loss

    def _name(self, recording: int) -> str:
        return self.names[recording] if self.names else f"recording {recording}"

    def predicted(self, values: Tensor, present: Tensor, hidden: Tensor, within: Tensor, time: Tensor) -> Tensor:
        return self.prediction(self.context(values, time, present & ~hidden, self.length, asked=hidden, within=None if bool(within.all()) else within))

    def forward(self, values: Tensor, present: Tensor, hidden: Tensor, within: Tensor, time: Tensor) -> Tensor:
        """Squared error, summed over the hidden windows."""
        error = (self.predicted(values, present, hidden, within, time) - self.prediction.standardise(values)).square().mean(-1)
        return (error * hidden).sum()

    @torch.no_grad()
    def compare(self, stacks: list[Stack]) -> dict[str, dict[str, float]]:
        """Held-out loss of the model, of the corpus mean, and of interpolation between the visible neighbours; empty where nothing is hidden."""
        self.eval()
        rows: dict[str, list[float]] = {"model": [], "mean": [], "interpolation": [], "last": []}
        for values, present, hidden, within, time in stacks:
            if not bool(hidden.any()):
                continue
            target, seen = self.prediction.standardise(values), present & ~hidden
            guesses = {"model": self.predicted(values, present, hidden, within, time), "mean": torch.zeros_like(target)}
            guesses |= {k: interpolate(target, seen, k) for k in ("interpolation", "last")}
            for k, g in guesses.items():
                rows[k].append(float(((g - target).square().mean(-1) * hidden).sum() / hidden.sum()))
        return {"context": {k: float(np.mean(v)) for k, v in rows.items()}} if rows["model"] else {}


def _moved(h: Hidden, device: torch.device) -> Hidden:
    return Hidden(h.tokens.to(device), None if h.units is None else h.units.to(device))
