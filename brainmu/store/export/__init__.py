"""Doors out: a recording or an opened store as pynapple, MNE, torch_brain, NWB and xarray.

Each function takes any Recording, keeps the session's clock in seconds, and says through ``recording.warn`` what the other side cannot hold.
The libraries are imported when a function is called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brainmu.store.export.mne import to_mne
    from brainmu.store.export.nwb import to_nwb
    from brainmu.store.export.pynapple import to_pynapple
    from brainmu.store.export.torch_brain import to_torch_brain
    from brainmu.store.export.xarray import to_xarray

__all__ = ["to_mne", "to_nwb", "to_pynapple", "to_torch_brain", "to_xarray"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.{name.removeprefix('to_')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
