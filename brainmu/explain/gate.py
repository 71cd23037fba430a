"""How much worse a pretrained encoder reconstructs edited windows than it did: whether an edit is like anything that recordings hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Recording
from brainmu.errors import CheckpointError
from brainmu.explain.edits import TAPER, Edit, apply_edits

if TYPE_CHECKING:
    from brainmu.models.encoder import Encoder
    from brainmu.models.heads import Reconstruction
    from brainmu.windows.grid import WindowGrid

__all__ = ["loss_shift"]

_WINDOWS = 48
_MASKS = 4


def loss_shift(checkpoint: str | Path, recording: Recording, edits: Sequence[Edit], placebos: Sequence[Edit], seed: int = 0) -> dict[str, Any]:
    """Rise of the masked-reconstruction loss of edited windows, in SDs of the loss over unedited windows.

    The same parts of a window are hidden before and after the edit. Of the targets (spectrum, waveform, spikes, …) the largest rise counts.

    Returns
    -------
    dict
        ``events`` and ``placebos``: the rise; ``targets``: the rise by events of each target; ``windows``; ``unit``.

    Raises
    ------
    CheckpointError
        If the checkpoint holds no reconstruction head.
    """
    encoder, head = _pretrained(checkpoint)
    c = encoder.config
    from brainmu.windows.grid import WindowGrid

    grid = WindowGrid(recording, c.window, patch=c.patch, bin=c.bin, cache=0)

    def again(made: Sequence[Edit]) -> tuple[WindowGrid, NDArray[np.int64]]:
        rows = {int((t - grid.start) // grid.window) for e in made for p in e.places() for t in (p.start - 2 * TAPER, p.stop + 2 * TAPER)}
        inside = np.array(sorted(k for k in rows if 0 <= k < len(grid)), dtype=np.int64)
        pick = np.unique(np.linspace(0, len(inside) - 1, _WINDOWS).round().astype(np.int64)) if len(inside) else inside
        edited = apply_edits(recording, made)
        return WindowGrid(edited, c.window, grid.start, len(grid), statistics=grid.statistics, patch=c.patch, bin=c.bin, cache=0), inside[pick]

    rises, spread = [], {}
    for made in (edits, placebos):
        edited, rows = again(made)
        before, after = _losses(encoder, head, grid, rows, seed), _losses(encoder, head, edited, rows, seed)
        spread = spread or {k: float(np.nanstd(v)) for k, v in before.items()}
        rises.append({k: float(np.nanmean(after[k] - v)) / spread[k] for k, v in before.items() if spread.get(k, 0.0) > 0 and k in after})
    events, others = (max(r.values(), default=float("nan")) for r in rises)
    return {"events": events, "placebos": others, "targets": rises[0], "windows": len(again(edits)[1]), "unit": "SD of the loss over windows"}


def _pretrained(checkpoint: str | Path) -> tuple[Encoder, Reconstruction]:
    from brainmu.models.checkpoint import fit_weights, load_encoder, read_checkpoint
    from brainmu.models.heads import Reconstruction

    encoder = load_encoder(checkpoint)
    path, _, weights = read_checkpoint(checkpoint, ("encoder", "stage_model"))
    inner = {k.removeprefix("reconstruction."): v for k, v in weights.items() if k.startswith("reconstruction.")}
    if not inner:
        raise CheckpointError(f"{path}: holds no pretraining head, expected a checkpoint of brainmu pretrain (such as brainmu-tiny) as gate")
    head = Reconstruction(encoder.config.width, encoder.config.heads)
    fit_weights(head, inner)
    return encoder, head.eval()


def _losses(encoder: Encoder, head: Reconstruction, grid: WindowGrid, rows: NDArray[np.int64], seed: int) -> dict[str, NDArray[np.float64]]:
    """Loss of each window (window,), by target, the mean over several draws of what is hidden."""
    import torch

    from brainmu.train.objectives import MaskConfig, draw_masks, losses

    found: dict[str, list[float]] = {}
    with torch.no_grad():
        for k in rows.tolist():
            batch, sums = grid.batch([k]), {}
            for m in range(_MASKS):
                hidden = draw_masks(batch, MaskConfig(), np.random.default_rng([seed, k, m]))
                latents, _ = encoder.window(batch, hidden)
                for target, value in losses(batch, hidden, head(batch, latents, encoder.window, hidden)).items():
                    sums.setdefault(target, []).append(float(value))
            for target in {*found, *sums}:
                found.setdefault(target, []).append(float(np.mean(sums[target])) if target in sums else float("nan"))
    return {k: np.array(v) for k, v in found.items() if len(v) == len(rows)}
