"""Headers of Intan RHD and RHS files, every published version (RHD 1.0 to 3.x, RHS 1.0 to 3.x).

References
----------
Intan Technologies, "RHD2000 Application Note: Data File Formats" and "RHS2000 Data File Formats".
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brainmu.errors import FormatError

__all__ = ["TYPES", "Channel", "Header", "block_dtype", "read_header"]

_MAGIC = {0xC6912702: "rhd", 0xD69127AC: "rhs"}
TYPES = {
    "rhd": {0: "amplifier", 1: "auxiliary", 2: "supply", 3: "analog_in", 4: "digital_in", 5: "digital_out"},
    "rhs": {0: "amplifier", 3: "analog_in", 4: "analog_out", 5: "digital_in", 6: "digital_out"},
}
"""What the signal types of a channel mean."""


@dataclass(frozen=True)
class Channel:
    """One enabled channel: its native name (A-000), the name the user gave it, the bit or place it has on the board, and its impedance (ohm)."""

    native: str
    custom: str
    order: int
    kind: str
    impedance: float


@dataclass(frozen=True)
class Header:
    """What the header of a file says. `size` is its length in bytes, `block` the samples of a data block."""

    path: Path
    family: str
    version: tuple[int, int]
    rate: float
    size: int
    block: int
    board_mode: int
    n_temperatures: int
    dc_saved: bool
    stim_step: float
    notes: tuple[str, ...]
    channels: tuple[Channel, ...]

    def of(self, kind: str) -> list[Channel]:
        """Channels of one kind, in the order of the file."""
        return [c for c in self.channels if c.kind == kind]


class _Reader:
    """Little-endian values one after the other."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path, self.data, self.at = path, data, 0

    def take(self, code: str) -> Any:
        n = struct.calcsize("<" + code)
        if self.at + n > len(self.data):
            raise FormatError(f"{self.path}: ends inside its header (byte {len(self.data)}): it is truncated, copy it again")
        values = struct.unpack_from("<" + code, self.data, self.at)
        self.at += n
        return values[0] if len(values) == 1 else values

    def text(self) -> str:
        """A QString: length in bytes (0xFFFFFFFF for none), then UTF-16."""
        n = self.take("I")
        if n == 0xFFFFFFFF or n == 0:
            return ""
        if n % 2 or self.at + n > len(self.data):
            raise FormatError(f"{self.path}: a text of its header is said to have {n} bytes at byte {self.at}: the header is damaged or not Intan's")
        raw = self.data[self.at : self.at + n]
        self.at += n
        return raw.decode("utf-16-le", errors="replace")


def read_header(path: Path) -> Header:
    """The header of an .rhd or .rhs file.

    Raises
    ------
    FormatError
        If it is not Intan's, is damaged, or names nothing that is enabled.
    """
    with path.open("rb") as f:
        # Headers of 1,024 channels have 200 kB.
        r = _Reader(path, f.read(4 << 20))
    magic = r.take("I")
    family = _MAGIC.get(magic)
    if family is None:
        raise FormatError(f"{path}: starts with 0x{magic:08X}, expected 0xC6912702 (.rhd) or 0xD69127AC (.rhs): it is not an Intan recording, or is damaged")
    version = r.take("hh")
    rate = float(r.take("f"))
    r.take("hffffff" if family == "rhd" else "hffffffff")  # DSP, bandwidths
    r.take("hff")  # notch filter, impedance test frequencies
    stim_step, dc_saved, temperatures, mode = 0.0, False, 0, 0
    if family == "rhs":
        _, _, stim_step, _, _ = r.take("hhfff")
    notes = tuple(r.text() for _ in range(3))
    if family == "rhs":
        dc_saved, mode = bool(r.take("h")), r.take("h")
        r.text()  # reference channel
    else:
        temperatures = r.take("h") if version >= (1, 1) else 0
        mode = r.take("h") if version >= (1, 3) else 0
        if version >= (2, 0):
            r.text()
    channels = _channels(r, family)
    if not (np.isfinite(rate) and rate > 0):
        raise FormatError(f"{path}: its header names a sampling rate of {rate:g} Hz, expected a positive one: the header is damaged")
    if not channels:
        raise FormatError(f"{path}: its header enables no channel: there is nothing to read")
    block = 128 if family == "rhs" or version >= (2, 0) else 60
    return Header(path, family, version, rate, r.at, block, mode, temperatures, dc_saved, float(stim_step), tuple(n for n in notes if n), tuple(channels))


def _channels(r: _Reader, family: str) -> list[Channel]:
    found = []
    groups = r.take("h")
    if not 0 <= groups <= 64:
        raise FormatError(f"{r.path}: its header names {groups} groups of channels, expected a few: the header is damaged")
    for _ in range(groups):
        r.text()
        r.text()
        enabled, n, _ = r.take("hhh")
        # A disabled group still counts its channels and holds none of them.
        for _ in range(n if enabled else 0):
            native, custom = r.text(), r.text()
            order, _, kind, on = r.take("hhhh")
            r.take("hh" if family == "rhd" else "hhh")
            r.take("hhhh")
            impedance, _ = r.take("ff")
            if kind not in TYPES[family]:
                raise FormatError(f"{r.path}: channel {native!r} has the signal type {kind}, expected {', '.join(map(str, TYPES[family]))}: damaged header")
            if on:
                found.append(Channel(native, custom or native, order, TYPES[family][kind], float(impedance)))
    return found


def block_dtype(h: Header) -> np.dtype[Any]:
    """How one data block of a traditional file lies: (channel, sample) for each kind."""
    n, count = h.block, {k: len(h.of(k)) for k in TYPES[h.family].values()}
    fields: list[Any] = [("time", "<i4" if h.family == "rhs" or h.version >= (1, 2) else "<u4", (n,))]
    amplifier = count["amplifier"]
    if h.family == "rhd":
        parts = [("amplifier", "<u2", (amplifier, n)), ("auxiliary", "<u2", (count["auxiliary"], n // 4)), ("supply", "<u2", (count["supply"], 1)),
                 ("temperature", "<i2", (h.n_temperatures, 1)), ("analog_in", "<u2", (count["analog_in"], n))]  # fmt: skip
    else:
        parts = [("amplifier", "<u2", (amplifier, n)), ("dc", "<u2", (amplifier * h.dc_saved, n)), ("stim", "<u2", (amplifier, n)),
                 ("analog_in", "<u2", (count["analog_in"], n)), ("analog_out", "<u2", (count["analog_out"], n))]  # fmt: skip
    parts += [(k, "<u2", (1, n)) for k in ("digital_in", "digital_out") if count[k]]
    return np.dtype(fields + [p for p in parts if p[2][0]])
