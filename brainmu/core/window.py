"""Every modality of one span of one recording, as numpy arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

__all__ = ["SampleTimes", "Window"]


class SampleTimes(Mapping[str, NDArray[np.float64]]):
    """Times of samples by signal, each made from its parts when it is first asked for: most readers of a window want its values only."""

    def __init__(self, parts: dict[str, Callable[[], NDArray[np.float64]]]) -> None:
        self._parts, self._made = parts, {}

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        if name not in self._made:
            self._made[name] = self._parts[name]()
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __reduce__(self) -> tuple[type[dict[str, NDArray[np.float64]]], tuple[dict[str, NDArray[np.float64]]]]:
        return dict, (dict(self),)


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
    times : mapping of float64 (time,), s
        Session time of each sample; of stored signals made when asked for.
    spike_times : float64 (n,), s
        Session time of each spike.
    spike_units : int32 (n,)
        Unit ids.
    """

    id: str
    start: float
    stop: float
    signals: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    times: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    spike_times: NDArray[np.float64] = field(default_factory=lambda: np.empty(0))
    spike_units: NDArray[np.int32] = field(default_factory=lambda: np.empty(0, dtype=np.int32))
