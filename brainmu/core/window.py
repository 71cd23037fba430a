"""Every modality of one span of one recording, as numpy arrays."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["Window"]


@dataclass
class Window:
    """All modalities in [start, stop).

    Attributes
    ----------
    id : str
        The recording.
    start, stop : float, s
        Session time.
    signals : dict of float32 (time, channel)
        In each signal's unit; NaN where missing.
    times : dict of float64 (time,), s
        Session time of each sample.
    spike_times : float64 (n,), s
        Session time of each spike.
    spike_units : int32 (n,)
        Unit ids.
    """

    id: str
    start: float
    stop: float
    signals: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    times: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    spike_times: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    spike_units: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, dtype=np.int32))
