"""How well a pretrained encoder fills in what is hidden, subject by subject, beside the trivial answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from brainmu.config import load_config
from brainmu.core.metrics import bootstrap_interval
from brainmu.core.recording import Recording, as_list
from brainmu.errors import CheckpointError, InputError
from brainmu.models.checkpoint import fit_weights, read_checkpoint
from brainmu.models.encoder import Encoder, EncoderConfig
from brainmu.models.heads import Reconstruction
from brainmu.train.objectives import MaskConfig, baselines, draw_masks, losses
from brainmu.windows.grid import WindowGrid
from brainmu.windows.sampler import WindowSampler

__all__ = ["reconstruction_scores", "reconstruction_table"]

TRIVIAL = ("mean", "interpolation", "last")


@torch.no_grad()
def reconstruction_scores(
    checkpoint: str | Path, sessions: Recording | Sequence[Recording], *, masks: MaskConfig | None = None, windows: int = 256, seed: int = 0
) -> pd.DataFrame:
    """Losses on hidden parts of recordings, of a pretrained encoder and of the trivial answers.

    Parameters
    ----------
    checkpoint : path or name
        A pretraining run, or a packaged encoder ("brainmu-tiny").
    sessions : Recording or sequence of Recording
        Subjects that the encoder was not trained on.
    masks : MaskConfig or None
        What is hidden; as in training where None.
    windows : int
        Windows drawn of each recording (all of them, where it has fewer).
    seed : int

    Returns
    -------
    DataFrame, one row a subject and target
        ``subject``, ``target`` (spectrum, waveform, slow, features: mean squared error of standardised values; spikes: nats a bin
        and unit), ``model``, ``mean``, ``interpolation``, ``last`` (:func:`brainmu.train.objectives.baselines`), ``windows``.

    Raises
    ------
    NotFoundError, CheckpointError
        If there is no such checkpoint, or it holds no heads of pretraining, or those of an older format.
    InputError
        If no recordings came.
    """
    recordings = as_list(sessions)
    if not recordings:
        raise InputError("reconstruction_scores: no recordings came, expected at least one")
    path, config, weights = read_checkpoint(checkpoint, ("encoder",))
    if int(config["format"]) < 2:
        raise CheckpointError(f"{path}: its encoder loads, but its heads of pretraining are of format {config['format']}, expected 2: pretrain it again")
    if not any(k.startswith("reconstruction.") for k in weights):
        raise CheckpointError(f"{path}: holds no heads of pretraining, expected the folder of a pretraining run")
    c = load_config(EncoderConfig, config.get("encoder", {}))
    made = torch.nn.ModuleDict({"encoder": Encoder(c), "reconstruction": Reconstruction(c.width, c.heads)}).eval()
    fit_weights(made, weights, may_be_missing=["gist.", "prediction."])
    kinds = config.get("training", {}).get("kinds")
    rows = []
    for recording in recordings:
        grid = WindowGrid(recording, c.window, kinds=kinds, patch=c.patch, bin=c.bin)
        size = min(64, len(grid))
        sampler = WindowSampler([grid], size, seed=seed)
        drawn = [sampler.batch(i) for i in range(max(1, min(windows, len(grid)) // size))]
        found: dict[str, dict[str, list[float]]] = {}
        for i, batch in enumerate(drawn):
            hidden = draw_masks(batch, masks or MaskConfig(), np.random.default_rng([seed, 6, i]))
            window = made["encoder"].window
            answers = losses(batch, hidden, made["reconstruction"](batch, window(batch, hidden)[0], window, hidden))
            for name, parts in {"model": answers, **baselines(batch, hidden)}.items():
                for target, value in parts.items():
                    found.setdefault(target, {}).setdefault(name, []).append(float(value))
        subject = recording.subject or recording.id
        rows += [{"subject": subject, "target": t, **{k: float(np.mean(v)) for k, v in r.items()}, "windows": size * len(drawn)} for t, r in found.items()]
    columns = ["subject", "target", "model", *TRIVIAL, "windows"]
    # Several recordings of a subject are one subject.
    how = {k: "sum" if k == "windows" else "mean" for k in columns[2:]}
    return pd.DataFrame(rows).groupby(["target", "subject"], sort=False).agg(how).reset_index()[columns]


def reconstruction_table(scores: pd.DataFrame) -> str:
    """Scores as a Markdown table: means over subjects, and by how much the model is ahead of the best trivial answer [95 % interval over subjects]."""
    lines = ["| target | subjects | model | mean | interpolation | last value | ahead of the best by |", "|---|---|---|---|---|---|---|"]
    for target, rows in scores.groupby("target", sort=False):
        best = min(TRIVIAL, key=lambda k: float(rows[k].mean()))
        ahead = (rows[best] - rows["model"]).tolist()
        low, high = bootstrap_interval(ahead, lambda d: float(np.mean(d)))
        cells = [f"{rows[k].mean():.4f}" for k in ("model", *TRIVIAL)]
        lines.append(f"| {target} | {len(rows)} | {' | '.join(cells)} | {np.mean(ahead):+.4f} [{low:+.4f}, {high:+.4f}] |")
    return "\n".join(lines)
