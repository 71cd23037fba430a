"""Checkpoints: a folder of model.safetensors, config.yaml and card.md, loaded strictly and with a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from brainmu.config import load_config, read_yaml, resource
from brainmu.errors import CheckpointError, NotFoundError, OutputExistsError
from brainmu.models.migration import FORMAT, migrate

if TYPE_CHECKING:
    from torch import Tensor, nn

    from brainmu.models.encoder import Encoder

__all__ = ["LoadReport", "find_checkpoint", "fit_weights", "is_unfinished", "load_encoder", "read_checkpoint", "refuse_unfinished", "write_checkpoint"]


@dataclass
class LoadReport:
    """What happened to the weights of a checkpoint.

    Attributes
    ----------
    matched : list of str
        Weights that were loaded.
    new : list of str
        Weights of the model that the checkpoint does not hold: they keep their initial values.
    missing : list of str
        Weights of the checkpoint that the model has no place for.
    reshaped : list of str
        Weights whose shapes differ: not loaded.
    """

    matched: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{len(self.matched)} weights matched"]
        for what, names in (("new", self.new), ("missing", self.missing), ("of another shape", self.reshaped)):
            if names:
                parts.append(f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})")
        return "; ".join(parts)


def write_checkpoint(folder: str | Path, module: nn.Module, config: Mapping[str, Any], card: str, overwrite: bool = False) -> Path:
    """Write weights, config and card into `folder`; the config last, so that a folder with one is whole.

    Raises
    ------
    OutputExistsError
        If the folder holds anything and `overwrite` is not set.
    """
    from safetensors.torch import save

    path = Path(folder)
    if path.exists() and (not path.is_dir() or any(path.iterdir())) and not overwrite:
        raise OutputExistsError(f"{path}: exists and is not empty; choose another folder, or overwrite it")
    path.mkdir(parents=True, exist_ok=True)
    (path / "config.yaml").unlink(missing_ok=True)
    (path / "model.safetensors").write_bytes(save({k: v.detach().cpu().contiguous() for k, v in module.state_dict().items()}))
    (path / "card.md").write_text(card, encoding="utf-8")
    (path / "config.yaml").write_text(yaml.safe_dump({"format": FORMAT, **config}, sort_keys=False), encoding="utf-8")
    return path


def find_checkpoint(path_or_name: str | Path) -> Path:
    """The folder of a checkpoint: a path, or the name of a packaged one.

    Raises
    ------
    NotFoundError
        If there is neither; the packaged names are listed.
    """
    path = Path(path_or_name)
    if path.is_dir():
        refuse_unfinished(path)
        if not (path / "config.yaml").is_file():
            raise NotFoundError(f"{path}: holds no config.yaml, expected a checkpoint folder (model.safetensors, config.yaml, card.md)")
        return path
    if path.is_file():
        raise NotFoundError(f"{path}: is a file, expected a checkpoint folder (model.safetensors, config.yaml, card.md)")
    return resource("checkpoints", str(path_or_name))


def is_unfinished(folder: str | Path) -> bool:
    """Whether a folder holds a pretraining run that was interrupted, or is still going on."""
    path = Path(folder)
    return (path / "resume" / "run.json").is_file() and not (path / "config.yaml").is_file()


def refuse_unfinished(folder: Path) -> None:
    """Raise NotFoundError, which says how to go on, where `folder` holds an unfinished pretraining run."""
    if is_unfinished(folder):
        raise NotFoundError(f"{folder}: is an unfinished pretraining run, no checkpoint yet: end it with brainmu pretrain STORES --out {folder} --resume")


def read_checkpoint(path_or_name: str | Path, kinds: Iterable[str]) -> tuple[Path, dict[str, Any], dict[str, Tensor]]:
    """Folder, config and weights of a checkpoint whose ``type`` is one of `kinds`; of a fitted stager, those of the model inside it.

    Raises
    ------
    CheckpointError
        If it is of another type, of a newer format, or its weights cannot be read.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = find_checkpoint(path_or_name)
    config = read_yaml(path / "config.yaml")
    wanted = tuple(kinds)
    if config.get("type") == "SleepStager":
        if not (path / "encoder" / "config.yaml").is_file():
            raise CheckpointError(f"{path}: is a stager of method {config.get('method')!r}, which has no encoder, expected {' or '.join(wanted)}")
        path = path / "encoder"
        config = read_yaml(path / "config.yaml")
    if config.get("type") not in wanted:
        raise CheckpointError(f"{path}: is a checkpoint of type {config.get('type')!r}, expected {' or '.join(wanted)}")
    if type(config.get("format")) is not int or not 1 <= config["format"] <= FORMAT:
        raise CheckpointError(f"{path}: has checkpoint format {config.get('format')!r}, this brainmu reads 1 to {FORMAT}: update brainmu, or mend config.yaml")
    try:
        return path, config, migrate(config, load_file(path / "model.safetensors"))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path / 'model.safetensors'}: cannot be read ({error}): the checkpoint is incomplete or damaged") from None


def fit_weights(module: nn.Module, weights: Mapping[str, Tensor], *, may_be_new: Iterable[str] = (), may_be_missing: Iterable[str] = ()) -> LoadReport:
    """Load `weights` into `module`; what does not fit is an error unless its name begins with one of the allowed prefixes.

    Raises
    ------
    CheckpointError
        If no weight matched, a shape differs, or a weight is new or missing without leave.
    """
    own = module.state_dict()
    report = LoadReport(
        matched=[k for k in own if k in weights and own[k].shape == weights[k].shape], new=[k for k in own if k not in weights],
        missing=[k for k in weights if k not in own], reshaped=[k for k in own if k in weights and own[k].shape != weights[k].shape],
    )  # fmt: skip
    new_ok, missing_ok = tuple(may_be_new), tuple(may_be_missing)
    bad = [k for k in report.new if not k.startswith(new_ok)] if new_ok else report.new
    gone = [k for k in report.missing if not k.startswith(missing_ok)] if missing_ok else report.missing
    if not report.matched:
        raise CheckpointError(f"checkpoint: none of its {len(weights)} weights fits the model's {len(own)}: it is of another model")
    if bad or gone or report.reshaped:
        raise CheckpointError(f"checkpoint does not fit the model: {report}; load it with the config it was trained with")
    module.load_state_dict({**own, **{k: weights[k] for k in report.matched}})
    return report


def load_encoder(path_or_name: str | Path) -> Encoder:
    """The encoder of a checkpoint (an encoder, or a stage model's), in evaluation mode.

    Parameters
    ----------
    path_or_name : path of a folder, or name of a packaged checkpoint ("brainmu-tiny")

    Raises
    ------
    NotFoundError, CheckpointError
        If there is none, or its weights do not fit its own config.

    Notes
    -----
    ``encoder.load_report`` says what matched.
    """
    from brainmu.models.encoder import Encoder, EncoderConfig

    path, config, weights = read_checkpoint(path_or_name, ("encoder", "stage_model"))
    encoder = Encoder(load_config(EncoderConfig, config.get("encoder", {})))
    inner = {k.removeprefix("encoder."): v for k, v in weights.items() if k.startswith("encoder.")}
    try:
        encoder.load_report = fit_weights(encoder, inner)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    return encoder.eval()


def plain(config: Any) -> dict[str, Any]:
    """A dataclass as a mapping that YAML can hold."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(config).items()}
