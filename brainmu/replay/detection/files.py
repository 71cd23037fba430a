"""A ReplayDetector as a folder: config.yaml, model.safetensors (the head), novelty.npz, card.md, and the encoder it reads."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brainmu.errors import CheckpointError, NotFoundError, OutputExistsError

if TYPE_CHECKING:
    from brainmu.models import Encoder
    from brainmu.replay.detection.detector import ReplayDetector

__all__ = ["load", "save"]

TYPE = "ReplayDetector"


def save(detector: ReplayDetector, target: Path, overwrite: bool) -> Path:
    """See :meth:`ReplayDetector.save`."""
    from brainmu.models.checkpoint import write_checkpoint

    if target.exists() and not overwrite:
        raise OutputExistsError(f"{target}: exists already: pass overwrite=True to replace it, or choose another folder")
    if target.exists() and not (target / "config.yaml").is_file() and any(target.iterdir() if target.is_dir() else [target]):
        raise OutputExistsError(f"{target}: is not a saved detector, so it is not replaced: choose another folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    encoder = detector._loaded()
    if encoder is not None:
        _save_encoder(encoder, partial / "encoder", str(detector.encoder))
    arrays = {f"{k}:{name}": getattr(n, name) for k, n in detector.novelty_.items() for name in ("mean", "precision", "level")}
    np.savez(partial / "novelty.npz", **arrays)
    params = detector.get_params() | {"encoder": None if detector.encoder is None else str(detector.encoder), "modalities": list(detector.modalities)}
    config: dict[str, Any] = {
        "type": TYPE, "params": params, "labels": detector.labels_,
        "fitted_on": {"sessions": detector.n_sessions_, "subjects": detector.n_subjects_, "events": detector.n_events_}, "notes": detector.notes_,
        "calibration": {k: c.to_dict() for k, c in detector.calibration_.items()}, "content": {k: c.to_dict() for k, c in detector.content_.items()},
    }  # fmt: skip
    write_checkpoint(partial, detector.head_, config, _card(detector), overwrite=True)
    if target.exists():
        shutil.rmtree(target)
    partial.replace(target)
    return target


def load(path: Path) -> ReplayDetector:
    """See :meth:`ReplayDetector.load`."""
    from brainmu.models.checkpoint import fit_weights, load_encoder, read_checkpoint
    from brainmu.replay.detection.confidence import Calibration, Novelty
    from brainmu.replay.detection.contents import ContentReader
    from brainmu.replay.detection.detector import ReplayDetector
    from brainmu.replay.detection.head import EventHead

    if not path.exists():
        raise NotFoundError(f"{path}: no saved detector there: fit one (brainmu finetune --task replay), or check the path")
    path, config, weights = read_checkpoint(path, (TYPE,))
    try:
        self = ReplayDetector(**config["params"])
        if self.encoder is not None:
            self._encoder = load_encoder(path / "encoder")
        self.labels_, self.notes_ = config["labels"], list(config["notes"])
        self.n_sessions_, self.n_subjects_, self.n_events_ = (config["fitted_on"][k] for k in ("sessions", "subjects", "events"))
        self.calibration_ = {k: Calibration.from_dict(c) for k, c in config["calibration"].items()}
        self.content_ = {k: ContentReader.from_dict(c) for k, c in config["content"].items()}
        with np.load(path / "novelty.npz", allow_pickle=False) as stored:
            self.novelty_ = {k: Novelty(stored[f"{k}:mean"], stored[f"{k}:precision"], float(stored[f"{k}:level"])) for k in self.calibration_}
        head = EventHead(len(weights["mean"]))
        fit_weights(head, weights)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise CheckpointError(f"{path}: the saved detector is damaged ({type(error).__name__}: {error}): save it again") from error
    self.head_ = head.eval()
    return self


def _save_encoder(encoder: Encoder, folder: Path, name: str) -> None:
    from torch import nn

    from brainmu.models.checkpoint import plain, write_checkpoint

    config = {"type": "encoder", "encoder": plain(encoder.config)}
    write_checkpoint(folder, nn.ModuleDict({"encoder": encoder}), config, f"# Encoder\n\nA copy of {name}, used as it is by the detector beside it.\n")


def _card(detector: ReplayDetector) -> str:
    rows = [f"| {k} | {c.n_events} | {c.minutes:.0f} | {c.error:.3f} |" for k, c in detector.calibration_.items()]
    table = "\n".join(["| reads | events of held-out subjects | minutes | calibration error |", "|---|---|---|---|", *rows])
    return (
        f"# Replay detector\n\nFitted on {detector.n_events_} events ({detector.labels_}) of {detector.n_sessions_} recordings of "
        f"{detector.n_subjects_} subjects; encoder {detector.encoder}, frozen.\n\n{table}\n"
    )
