"""The encoder with a stage head: a recording in, stage probabilities an epoch out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from brainmu.config import load_config
from brainmu.core.hypnogram import STAGE_SETS
from brainmu.core.recording import Recording
from brainmu.errors import CheckpointError, ConfigError
from brainmu.models.adapters import merged
from brainmu.models.checkpoint import LoadReport, fit_weights, plain, read_checkpoint, write_checkpoint
from brainmu.models.door import Door
from brainmu.models.encoder import Encoder, EncoderConfig
from brainmu.windows.grid import WindowGrid
from brainmu.windows.statistics import Statistics

__all__ = ["STAGE_KINDS", "StageConfig", "StageModel"]

STAGE_KINDS = ("lfp", "eeg", "eog", "emg", "features", "spikes")
"""What a stage model reads unless told otherwise. Not position or speed: where an animal is must not decide whether it sleeps."""


@dataclass(frozen=True)
class StageConfig:
    """What a stage model predicts and reads.

    Attributes
    ----------
    stages : str
        "rodent3" or "aasm5".
    epoch : float, s
    kinds : tuple of str
        Channel kinds it reads, and "spikes".
    """

    stages: str = "rodent3"
    epoch: float = 4.0
    kinds: tuple[str, ...] = STAGE_KINDS

    def __post_init__(self) -> None:
        if self.stages not in STAGE_SETS:
            raise ConfigError(f"stages are {self.stages!r}, expected one of {', '.join(STAGE_SETS)}")
        if not (np.isfinite(self.epoch) and self.epoch > 0):
            raise ConfigError(f"epoch is {self.epoch!r} s, expected a positive number")


class StageModel(nn.Module):
    """Stage probabilities from any mix of modalities, one row an epoch.

    Parameters
    ----------
    config : StageConfig
    encoder : Encoder
        Its context decides whether the model is causal (past and present epochs only) or reads the whole recording.

    Attributes
    ----------
    stages : tuple of str
    card : str
        What it was trained on and how it scored, in Markdown.
    history : list of dict
        Loss and held-out score a round of the training that made it; empty once loaded.
    notes : list of str
        What that training has to say: what decided when to stop, what was unusual. Empty once loaded; the card keeps it.
    n_trained : int
        Weights that it trained; 0 once loaded.
    n_epochs : int
        Scored epochs with data that it was given; 0 once loaded.

    Notes
    -----
    Every channel is standardised over the whole recording, also in a causal model: the scale is a constant of the
    recording, the dynamics are causal. The head reads two taps, the summary of the epoch's own window and its context.
    """

    log_weight: Tensor

    def __init__(self, config: StageConfig, encoder: Encoder) -> None:
        super().__init__()
        self.config, self.encoder = config, encoder
        width = encoder.config.width
        self.head = nn.Sequential(nn.LayerNorm(2 * width), nn.Dropout(encoder.config.dropout), nn.Linear(2 * width, len(STAGE_SETS[config.stages])))
        # Log of the class weights of training, taken off again so that probabilities answer to the real frequencies.
        self.register_buffer("log_weight", torch.zeros(len(STAGE_SETS[config.stages])))
        self.card = ""
        self.history: list[dict[str, float]] = []
        self.notes: list[str] = []
        self.n_trained = 0
        self.n_epochs = 0
        self.load_report: LoadReport | None = None

    @property
    def stages(self) -> tuple[str, ...]:
        return STAGE_SETS[self.config.stages]

    @property
    def causal(self) -> bool:
        """Whether the probabilities of an epoch depend on that epoch and earlier ones only."""
        return self.encoder.config.causal

    def __repr__(self) -> str:
        how = "causal" if self.causal else "bidirectional"
        return f"StageModel({' '.join(self.stages)}, epochs of {self.config.epoch:g} s, {how}, {sum(p.numel() for p in self.parameters()):,} weights)"

    # -- prediction ---------------------------------------------------------------------------------------------------
    def grid(self, recording: Recording, statistics: Statistics | None = None, start: float | None = None, count: int | None = None) -> WindowGrid:
        """The epochs of a recording as the model's windows. `statistics` of another grid keep the scales of an unedited recording."""
        c = self.encoder.config
        kinds = self.config.kinds
        return WindowGrid(recording, self.config.epoch, start, count, kinds=kinds, statistics=statistics, patch=c.patch, bin=c.bin, cache=0)

    def read_out(self, summaries: Tensor, context: Tensor) -> Tensor:
        """Logits (…, stage) from the two taps (…, width); weighted as in training."""
        return self.head(torch.cat([summaries, context], dim=-1))

    @torch.no_grad()
    def predict_proba(
        self, recording: Recording, *, statistics: Statistics | None = None, start: float | None = None, progress: Callable[[str, float], None] | None = None
    ) -> tuple[NDArray[np.float32], float, float]:
        """Stage probabilities of a recording.

        Parameters
        ----------
        recording : Recording
        statistics : Statistics or None
            Scales to use instead of the recording's own (for an edited copy: ``model.grid(original).statistics``).
        start : float or None, s
            Where the first epoch begins; the start of the earliest stream the model reads where None.
        progress : callable(stage, fraction) or None

        Returns
        -------
        proba : float32 (epoch, stage)
            Rows sum to 1; NaN where an epoch holds no data.
        start : float, s
        epoch : float, s

        Raises
        ------
        MissingDataError
            If the recording has nothing the model reads.
        """
        self.eval()
        grid = self.grid(recording, statistics, start)
        summaries, present = self.encoder.summaries(grid, progress)
        proba = np.empty((len(grid), len(self.stages)), dtype=np.float32)
        for span, context in self.encoder.contexts_by_span(summaries, present, grid.window):
            proba[span] = (self.read_out(summaries[span], context) - self.log_weight).softmax(-1).cpu().numpy()
        proba[~present.cpu().numpy()] = np.nan
        return proba, grid.start, grid.window

    # -- attribution --------------------------------------------------------------------------------------------------
    def door(
        self, recording: Recording, first: int = 0, last: int | None = None, *, domain: str = "time", surround: int = 256, statistics: Statistics | None = None
    ) -> Door:
        """Inputs of epochs [first, last) as tensors, and the function from them to logits; see :class:`Door`.

        Parameters
        ----------
        domain : {"time", "fourier"}
            Field signals as samples, or as the Fourier coefficients of their patches (for attribution to bands).
        surround : int
            Epochs on either side that give context; they stay as they are.
        """
        self.eval()
        grid = self.grid(recording, statistics)
        return Door.of(self, grid, first, len(grid) if last is None else last, domain, surround)

    # -- files --------------------------------------------------------------------------------------------------------
    def save(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Write model.safetensors, config.yaml (``type: stage_model``) and card.md; adapters are folded into the weights written.

        Raises OutputExistsError if `folder` is not empty.
        """
        config = {"type": "stage_model", "stage": plain(self.config), "encoder": plain(self.encoder.config)}
        return write_checkpoint(folder, merged(self), config, self.card or _default_card(self), overwrite)

    @classmethod
    def load(cls, path_or_name: str | Path) -> StageModel:
        """The stage model of a folder, or of a packaged checkpoint. Raises NotFoundError or CheckpointError; ``load_report`` says what matched."""
        path, config, weights = read_checkpoint(path_or_name, ("stage_model",))
        model = cls(load_config(StageConfig, config.get("stage", {})), Encoder(load_config(EncoderConfig, config.get("encoder", {}))))
        try:
            model.load_report = fit_weights(model, weights)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        model.card = (path / "card.md").read_text(encoding="utf-8") if (path / "card.md").is_file() else ""
        return model.eval()


def _default_card(model: StageModel) -> str:
    reads: Sequence[str] = model.config.kinds
    return f"# Stage model\n\nStages {' '.join(model.stages)} in epochs of {model.config.epoch:g} s from {', '.join(reads)}.\n"
