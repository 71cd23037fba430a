"""What every derived stream is made of: rows computed tile by tile, exact samples of its source, and attrs that say what it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Signal
from brainmu.formats.lazy import Rows

__all__ = ["TILE_VALUES", "Tiles", "described", "exact", "like"]

TILE_VALUES = 1 << 16


class Tiles(Rows):
    """Rows that are computed tile by tile, each from the same source samples whatever span is asked for, so that blocks do not change bits."""

    dtype = np.dtype(np.float32)

    def __init__(self, shape: tuple[int, int], tile: int, compute: Callable[[int, int], NDArray[Any]]) -> None:
        self.shape, self.tile, self.compute = shape, tile, compute
        self._kept: tuple[int, NDArray[np.float32]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_kept": None}

    def read_rows(self, i: int, j: int) -> NDArray[Any]:
        out = np.empty((max(j - i, 0), self.shape[1]), dtype=np.float32)
        for k in range(i // self.tile, -(-j // self.tile) if j > i else 0):
            first = k * self.tile
            block = self._block(k)
            lo, hi = max(i, first), min(j, first + len(block))
            out[lo - i : hi - i] = block[lo - first : hi - first]
        return out

    def _block(self, k: int) -> NDArray[np.float32]:
        kept = self._kept  # one assignment, so that threads may read side by side
        if kept is None or kept[0] != k:
            first = k * self.tile
            kept = k, np.asarray(self.compute(first, min(first + self.tile, self.shape[0])), dtype=np.float32)
            self._kept = kept
        return kept[1]


def described(name: str, sources: list[str], settings: Any, **fitted: Any) -> dict[str, Any]:
    """The attrs of a derived stream: name, sources, parameters and what was fitted; and that its samples use their future."""
    parameters = {k: list(v) if isinstance(v, tuple) else v for k, v in dataclasses.asdict(settings).items() if v is not None}
    return {"derived": {"name": name, "from": sources, "parameters": parameters} | fitted, "centred": True}


def like(source: Signal, values: Any, kind: str, unit: str, channels: Any, attrs: dict[str, Any]) -> Signal:
    """A signal on the samples, gaps and clock of another."""
    return Signal(
        values,
        rate=source.rate,
        start=source.start,
        times=source.times,
        unit=unit,
        kind=kind,
        channels=channels,
        gaps=source.gaps,
        clock=source.clock,
        attrs=attrs,
    )


def exact(s: Signal, i: int, j: int) -> NDArray[np.float64]:
    """Samples [i, j) in the signal's unit; missing samples, gaps and infinities are NaN."""
    raw = np.asarray(s.values[i:j])
    out = raw.astype(np.float64)
    if s.missing is not None and raw.dtype.kind in "iu":
        out[raw == s.missing] = np.nan
    out *= np.asarray(s.scale, dtype=np.float64)
    for a, b in s.gaps:
        out[max(s.index(a), i) - i : max(s.index(b) - i, 0)] = np.nan
    out[np.isinf(out)] = np.nan
    return out
