"""What preprocessing can be told. `configs/preprocess/default.yaml` holds the same values."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any, Literal

from brainmu.errors import ConfigError
from brainmu.store.derived import requested

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
    reference : "average", "median", a channel's name, or None
        What lfp and eeg channels are referenced to before they are resampled: the average or median of the good channels of their shank
        (group, region: what the channel table has), or a channel. None keeps the reference of the recording.
    notch : float or None, Hz
        Mains frequency (50 or 60) to take out of voltage signals, with its harmonics.
    notch_width : float, Hz
        Between the points where the notch takes 3 dB.
    notch_harmonics : int or None
        How many multiples of `notch`, itself included; None takes out all below half the stored rate.
    band : (float or None, float or None) or None, Hz
        Pass band of lfp and eeg signals; null leaves a side open.
    artefact : float
        Robust standard deviations (of the logarithm) by which the range or the largest step of a second exceeds what is usual for the
        channel, for it to be marked as an artefact. Nothing is removed.
    flat : float, s
        Voltage that does not change for this long is marked as flat.
    derive : list of names, or of mappings of a name to its settings
        Streams computed from others and stored beside them: position_smoothed, speed, dff, emg_from_lfp (see :func:`brainmu.store.derived.derive`).
    clock : str or None
        Clock whose time is the session's, where streams run on several (see :func:`brainmu.store.align`); "none" aligns nothing.
    sync : mapping of a clock's name to a label or signal
        Which event label or sync signal holds the shared pulses of each clock, where the recording does not say so itself.
    max_residual : float, s
        How far a sync pulse may lie from the fitted map of its clock.
    max_drift : float, s
        With clock "none": the largest error of a stream's time that is accepted.
    chunk_kib, shard_mib : int
        Size of the checksummed piece, and of the files, of signals.
    """

    lfp_rate: float | None = 1250.0
    compression: Literal["none", "lz4"] = "none"
    reference: str | None = None
    notch: float | None = None
    notch_width: float = 2.0
    notch_harmonics: int | None = None
    band: tuple[float | None, float | None] | None = None
    artefact: float = 6.0
    flat: float = 0.5
    derive: tuple[Any, ...] = ()
    clock: str | None = None
    sync: dict[str, Any] = dataclasses.field(default_factory=dict)
    max_residual: float = 0.005
    max_drift: float = 0.005
    chunk_kib: int = 1024
    shard_mib: int = 128

    def __post_init__(self) -> None:
        if self.lfp_rate is not None and not 0 < self.lfp_rate < 1e9:
            raise ConfigError(f"lfp_rate is {self.lfp_rate!r}, expected a positive number of Hz, or null to keep each signal's rate")
        self._check_filters()
        if not self.artefact > 0:
            raise ConfigError(f"artefact is {self.artefact!r}, expected a positive number of robust standard deviations")
        if not self.flat > 0:
            raise ConfigError(f"flat is {self.flat!r} s, expected a positive number")
        requested(self.derive)
        if not self.max_residual > 0 or not self.max_drift > 0:
            raise ConfigError(f"max_residual is {self.max_residual!r} and max_drift {self.max_drift!r} s, expected positive numbers of seconds")
        if not 1 <= self.chunk_kib <= 1 << 16 or not self.chunk_kib <= self.shard_mib * 1024 <= 1 << 22:
            raise ConfigError(f"chunk_kib is {self.chunk_kib} and shard_mib {self.shard_mib}, expected a chunk of 1 KiB to 64 MiB in a shard of at most 4 GiB")

    def _check_filters(self) -> None:
        if self.notch is not None and not 0 < self.notch < 1e6:
            raise ConfigError(f"notch is {self.notch!r}, expected the mains frequency in Hz (50 or 60), or null")
        if self.notch is not None and not 0 < self.notch_width <= self.notch:
            raise ConfigError(f"notch_width is {self.notch_width!r} Hz, expected more than 0 and at most the notch's {self.notch:g} Hz")
        if self.notch_harmonics is not None and self.notch_harmonics < 1:
            raise ConfigError(f"notch_harmonics is {self.notch_harmonics!r}, expected 1 or more (the first is the notch itself), or null for all")
        if self.reference == "":
            raise ConfigError("reference is empty, expected average, median, a channel's name, or null")
        if self.band is None:
            return
        if len(self.band) != 2 or self.band == (None, None):
            raise ConfigError(f"band is {list(self.band)!r}, expected two edges in Hz, of which one may be null: [1, 300]")
        low, high = self.band
        if not 0 < (1e-9 if low is None else low) < (1e9 if high is None else high):
            raise ConfigError(f"band is {list(self.band)!r} Hz, expected 0 < low < high; null leaves a side open")

    def describe(self) -> dict[str, Any]:
        """What goes into the store, as JSON gives it back (lists, no tuples)."""
        return json.loads(json.dumps(dataclasses.asdict(self)))
