"""What preprocessing can be told. `configs/preprocess/default.yaml` holds the same values."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

from brainmu.errors import ConfigError

__all__ = ["PreprocessConfig"]


@dataclass(frozen=True)
class PreprocessConfig:
    """Everything that decides the bytes of a store, besides its sources.

    Attributes
    ----------
    lfp_rate : float or None, Hz
        Rate that faster voltage signals (lfp, eeg, emg, eog, ecg) are brought to; slower ones and all other kinds keep their own.
        None keeps every rate.
    compression : "none" or "lz4"
        "none" is mapped into memory and read at the speed of copying it; "lz4" (after bit-shuffling) makes float32 LFP about 13 % and
        int16 about 24 % smaller, and is decoded as it is read.
    flat : float, s
        Voltage that does not change for this long is marked as flat.
    chunk_kib, shard_mib : int
        Size of the checksummed piece, and of the files, of signals.
    """

    lfp_rate: float | None = 1250.0
    compression: Literal["none", "lz4"] = "none"
    flat: float = 0.5
    chunk_kib: int = 1024
    shard_mib: int = 128

    def __post_init__(self) -> None:
        if self.lfp_rate is not None and not 0 < self.lfp_rate < 1e9:
            raise ConfigError(f"lfp_rate is {self.lfp_rate!r}, expected a positive number of Hz, or null to keep each signal's rate")
        if not self.flat > 0:
            raise ConfigError(f"flat is {self.flat!r} s, expected a positive number")
        if not 1 <= self.chunk_kib <= 1 << 16 or not self.chunk_kib <= self.shard_mib * 1024 <= 1 << 22:
            raise ConfigError(f"chunk_kib is {self.chunk_kib} and shard_mib {self.shard_mib}, expected a chunk of 1 KiB to 64 MiB in a shard of at most 4 GiB")

    def describe(self) -> dict[str, Any]:
        """What goes into the store."""
        return dataclasses.asdict(self)
