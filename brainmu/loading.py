"""Loading whatever brainmu saved: a folder, or the name of a packaged checkpoint."""

from __future__ import annotations

import importlib
from operator import attrgetter
from pathlib import Path
from typing import Any

from brainmu.config import read_yaml, resource, suggest
from brainmu.errors import CheckpointError, NotFoundError

__all__ = ["load"]

# What `type` in a folder's config.yaml says, and the loader of that type: module, attribute.
_TYPES = {
    "SleepStager": ("brainmu.sleep.stager", "SleepStager.load"),
    "ReplayDetector": ("brainmu.replay.detection", "ReplayDetector.load"),
    "stage_model": ("brainmu.models", "StageModel.load"),
    "encoder": ("brainmu.models.checkpoint", "load_encoder"),
}


def load(path: str | Path) -> Any:
    """A fitted stager, detector or model from its folder, or from the name of a packaged checkpoint.

    Parameters
    ----------
    path : str or Path
        A folder that holds ``config.yaml`` with ``type``, or a name such as ``"brainmu-tiny"``.

    Raises
    ------
    NotFoundError
        If there is neither such a folder nor such a name.
    CheckpointError
        If the folder is of an unknown type or damaged.
    """
    folder = Path(path)
    if not folder.exists():
        folder = resource("checkpoints", str(path))
    elif not (folder / "config.yaml").is_file():
        from brainmu.models.checkpoint import refuse_unfinished

        refuse_unfinished(folder)
        raise NotFoundError(f"{folder}: holds no config.yaml, expected the folder of a saved stager or model (a store is opened with brainmu.open)")
    kind = read_yaml(folder / "config.yaml").get("type")
    if kind not in _TYPES:
        raise CheckpointError(f"{folder}: type is {kind!r} in config.yaml, expected one of {', '.join(_TYPES)}{suggest(str(kind), _TYPES)}")
    module, attribute = _TYPES[kind]
    return attrgetter(attribute)(importlib.import_module(module))(folder)
