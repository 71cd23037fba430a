"""The two Lightning modules of pretraining: hidden tokens of windows, then hidden windows of hours."""

from __future__ import annotations

import warnings

# Lightning's import runs third-party code that warns about itself; nothing a user of this package could act on.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import lightning.pytorch as pl

import numpy as np
import torch
from torch import Tensor

from brainmu.errors import InputError
from brainmu.models.encoder import Encoder
from brainmu.models.heads import Reconstruction, SummaryPrediction
from brainmu.train.objectives import MaskConfig, baselines, draw_masks, draw_spans, interpolate, losses
from brainmu.train.schedule import optimiser, warm_cosine
from brainmu.windows.batch import Batch

__all__ = ["ContextTask", "SummarySpans", "WindowTask"]

# A spike bin holds far less than one spike, so its likelihood moves far less than a squared error does.
WEIGHTS = {"spectrum": 1.0, "waveform": 0.5, "slow": 0.5, "features": 1.0, "spikes": 5.0}


class _Task(pl.LightningModule):
    """What both share: an optimiser with warm-up and cosine, and dropout that is a function of (seed, step)."""

    def __init__(self, steps: int, rate: float, weight_decay: float, seed: int) -> None:
        super().__init__()
        self.steps, self.rate, self.weight_decay, self.seed = steps, rate, weight_decay, seed
        self.last: dict[str, float] = {}

    def configure_optimizers(self) -> dict[str, object]:
        o = optimiser([(self, self.rate)], self.weight_decay)
        schedule = warm_cosine(o, self.steps, warm=max(1, self.steps // 20))
        return {"optimizer": o, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_batch_start(self, batch: tuple[int, object], batch_idx: int) -> None:
        torch.manual_seed((self.seed * 1_000_003 + batch[0]) % (1 << 63))

    def _note(self, parts: dict[str, Tensor], total: Tensor, step: int, where: str) -> None:
        if not bool(torch.isfinite(total)):
            values = ", ".join(f"{k} {float(v.detach()):g}" for k, v in parts.items())
            raise InputError(f"pretraining: the loss is not finite at step {step} ({values}) on {where}: look at these windows, or lower the learning rate")
        self.last = {"loss": float(total.detach()), **{k: float(v.detach()) for k, v in parts.items()}}


class WindowTask(_Task):
    """Window encoder and reconstruction of what was hidden from it."""

    def __init__(self, encoder: Encoder, masks: MaskConfig, names: list[str], steps: int, rate: float, weight_decay: float, seed: int) -> None:
        super().__init__(steps, rate, weight_decay, seed)
        self.window, self.summarise = encoder.window, encoder.summarise
        self.reconstruction = Reconstruction(encoder.config.width, encoder.config.heads)
        self.summary_reconstruction = torch.nn.Linear(encoder.config.width, encoder.config.latents * encoder.config.width)
        self.masks, self.names = masks, names

    def transfer_batch_to_device(self, batch: tuple[int, Batch], device: torch.device, dataloader_idx: int) -> tuple[int, Batch]:
        # Masks are drawn from the batch on the CPU.
        return batch

    def training_step(self, batch: tuple[int, Batch], batch_idx: int) -> Tensor:
        step, windows = batch
        hidden = draw_masks(windows, self.masks, np.random.default_rng([self.seed, 5, step, self.global_rank]))
        parts = self.parts(windows.to(self.device), [_moved(h, self.device) for h in hidden])
        total = sum((WEIGHTS[k.removeprefix("summary_")] * v for k, v in parts.items()), torch.zeros((), device=self.device))
        where = ", ".join(f"{self.names[int(s)]} at {t:.1f} s" for s, t in list(zip(windows.session, windows.start))[:4])
        self._note(parts, total, step, f"{where}{', …' if len(windows) > 4 else ''}")
        return total

    def parts(self, batch: Batch, hidden: list) -> dict[str, Tensor]:
        """Losses by target, from the latents and (prefix ``summary_``) from latents remade of the summary alone."""
        latents, _ = self.window(batch, hidden)
        made = losses(batch, hidden, self.reconstruction(batch, latents, self.window))
        # The same asked of the summary keeps it from forgetting what the latents know.
        again = self.summary_reconstruction(self.summarise(latents.flatten(1))).unflatten(1, latents.shape[1:])
        return made | {f"summary_{k}": v for k, v in losses(batch, hidden, self.reconstruction(batch, again, self.window)).items()}

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
        return {t: {n: float(np.mean(v)) for n, v in r.items()} for t, r in rows.items() if not t.startswith("summary_")}


class SummarySpans:
    """Cached summaries of recordings, in spans: (summaries, presence, hidden, time), padded."""

    def __init__(self, cached: list[tuple[Tensor, Tensor]], share: float, length: float, seed: int) -> None:
        self.cached, self.share, self.length, self.seed = cached, share, length, seed

    def stack(self, spans: list[tuple[int, int, int]], step: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rng = np.random.default_rng([self.seed, 7, step])
        size = max(b - a for _, a, b in spans)
        width = self.cached[0][0].shape[1]
        values, present = torch.zeros(len(spans), size, width), torch.zeros(len(spans), size, dtype=torch.bool)
        hidden = torch.zeros(len(spans), size, dtype=torch.bool)
        for i, (r, a, b) in enumerate(spans):
            values[i, : b - a], present[i, : b - a] = self.cached[r][0][a:b], self.cached[r][1][a:b]
            if b - a > 1:
                hidden[i, : b - a] = torch.from_numpy(draw_spans(b - a, self.share, rng))
        return values, present, hidden & present, torch.arange(size, dtype=torch.float64)[None] * self.length


class ContextTask(_Task):
    """Context encoder and prediction of hidden window summaries, which are cached and fixed: there is nothing to collapse."""

    def __init__(self, encoder: Encoder, length: float, steps: int, rate: float, weight_decay: float, seed: int) -> None:
        super().__init__(steps, rate, weight_decay, seed)
        self.context = encoder.context
        self.prediction = SummaryPrediction(encoder.config.width)
        self.length = length

    def training_step(self, batch: tuple[int, tuple[Tensor, Tensor, Tensor, Tensor]], batch_idx: int) -> Tensor:
        step, (values, present, hidden, time) = batch
        loss = self.loss(values, present, hidden, time)
        self._note({"context": loss}, loss, step, "cached window summaries")
        return loss

    def predicted(self, values: Tensor, present: Tensor, hidden: Tensor, time: Tensor) -> Tensor:
        return self.prediction(self.context(values, time, present & ~hidden, self.length))

    def loss(self, values: Tensor, present: Tensor, hidden: Tensor, time: Tensor) -> Tensor:
        error = (self.predicted(values, present, hidden, time) - self.prediction.standardise(values)).square().mean(-1)
        return (error * hidden).sum() / hidden.sum().clamp(min=1)

    @torch.no_grad()
    def compare(self, stacks: list[tuple[Tensor, Tensor, Tensor, Tensor]]) -> dict[str, dict[str, float]]:
        """Held-out loss of the model, of the corpus mean, and of interpolation between the visible neighbours."""
        self.eval()
        rows: dict[str, list[float]] = {"model": [], "mean": [], "interpolation": [], "last": []}
        for values, present, hidden, time in stacks:
            target, seen = self.prediction.standardise(values), present & ~hidden
            guesses = {"model": self.predicted(values, present, hidden, time), "mean": torch.zeros_like(target)}
            guesses |= {k: interpolate(target, seen, k) for k in ("interpolation", "last")}
            for k, g in guesses.items():
                rows[k].append(float(((g - target).square().mean(-1) * hidden).sum() / hidden.sum().clamp(min=1)))
        return {"context": {k: float(np.mean(v)) for k, v in rows.items()}}


def _moved(h, device: torch.device):
    from brainmu.models.tokens import Hidden

    return Hidden(h.tokens.to(device), None if h.units is None else h.units.to(device))
