"""One signal on its way into a store: which unit, type and rate it gets, and its samples, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Signal
from brainmu.core.units import unit_factor
from brainmu.dsp.artefacts import Findings, examine
from brainmu.dsp.resample import Resampler
from brainmu.store.config import PreprocessConfig
from brainmu.store.layout import ArrayLayout

__all__ = ["MISSING", "VOLTAGE", "Stream", "split_by_treatment"]

VOLTAGE = frozenset({"lfp", "eeg", "emg", "eog", "ecg"})
"""Kinds of channel that are brought to µV, resampled and searched for artefacts."""
MISSING = -32768
"""The int16 that marks a missing sample in a store."""
_BLOCK_VALUES = 1 << 22


@dataclass
class Stream:
    """How the signal `name` is stored.

    Attributes
    ----------
    rate : float or None, Hz
        Of the stored signal.
    dtype : "int16" or "float32"
    n : int
        Samples stored.
    factor : float or (channel,) array
        From the source's steps to `unit`; for int16 it is stored beside the samples instead of applied.
    layout : ArrayLayout
    """

    name: str
    signal: Signal
    config: PreprocessConfig

    def __post_init__(self) -> None:
        s = self.signal
        kinds = set(s.channels["kind"])
        self.voltage = bool(kinds) and kinds <= VOLTAGE
        gain, self.unit = unit_factor(s.unit, kind=next(iter(kinds)) if len(kinds) == 1 else s.kind)
        scale = np.asarray(s.scale, dtype=np.float64)
        self.factor: Any = float(scale.flat[0]) * gain if scale.size == 1 or (scale.size and (scale == scale.flat[0]).all()) else scale * gain
        target = self.config.lfp_rate
        self.resampler: Resampler | None = None
        if self.voltage and target is not None and s.rate is not None and s.rate > target:
            resampler = Resampler(s.rate, target)
            self.resampler = None if (resampler.up, resampler.down) == (1, 1) else resampler
        self.rate = self.resampler.rate if self.resampler else s.rate
        self.n = self.resampler.n_out(s.n_samples) if self.resampler else s.n_samples
        sixteen = np.dtype(s.values.dtype).kind == "i" and np.dtype(s.values.dtype).itemsize == 2
        self.dtype = "int16" if sixteen and not self.resampler and np.ndim(self.factor) == 0 else "float32"
        self.gap_samples = [(s.index(a), s.index(b)) for a, b in s.gaps]
        self.gap_samples = [(i, j) for i, j in self.gap_samples if i < j]
        self.layout = self._layout()

    def _layout(self) -> ArrayLayout:
        c, size = self.signal.n_channels, np.dtype(self.dtype).itemsize
        # A power of two of samples, so that windows of the usual lengths cross few borders; no longer than the signal needs.
        want = max(1, (self.config.chunk_kib << 10) // max(1, c * size))
        chunk = min(1 << (want.bit_length() - 1), 1 << max(0, (max(1, self.n) - 1).bit_length()))
        shard = chunk * max(1, (self.config.shard_mib << 20) // max(1, chunk * c * size))
        attrs: dict[str, Any] = {"units": self.unit, "rate": self.rate, "start": self.signal.start}
        if self.rate is None:
            attrs["coordinates"] = "times"
        if self.dtype == "int16":
            attrs |= {"scale_factor": self.factor, "_FillValue": MISSING}
        return ArrayLayout((self.n, c), self.dtype, chunk, shard, self.config.compression != "none", ("time", "channel"), attrs)

    @property
    def flat_samples(self) -> int:
        """Equal samples in a row that count as flat."""
        return max(3, round(self.config.flat * self.signal.rate)) if self.signal.rate else 3

    # -- sentences ------------------------------------------------------------------------------------------------
    def warnings(self) -> Iterator[str]:
        """What a reader of the store must know about this signal."""
        s = self.signal
        if self.voltage and self.unit != "uV":
            yield f"signal {self.name!r}: unit {s.unit!r} is not one of voltage, values are kept unscaled; expected V, mV, uV or nV"
        if s.kind == "position" and self.unit != "m":
            yield f"signal {self.name!r}: unit {s.unit or 'unknown'!r} of position is kept unscaled; expected m, cm or mm"
        if s.clock not in ("session", ""):
            yield f"signal {self.name!r}: runs on the clock {s.clock!r} and is not aligned to the session's"
        if self.resampler and self.rate != self.config.lfp_rate:
            r = self.resampler
            yield f"signal {self.name!r}: {s.rate!r} Hz times {r.up}/{r.down} is {self.rate!r} Hz, the nearest to {self.config.lfp_rate} Hz; times stay exact"

    # -- samples --------------------------------------------------------------------------------------------------
    def steps(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Stored samples [first, last) in pieces that fit the cache and memory."""
        ratio = self.resampler.down / self.resampler.up if self.resampler else 1.0
        step = max(1, int(_BLOCK_VALUES / max(1, self.signal.n_channels) / ratio))
        step = max(self.layout.chunk * (step // self.layout.chunk), min(step, self.layout.chunk))
        for a in range(first, last, step):
            yield a, min(last, a + step)

    def block(self, a: int, b: int, pool: ThreadPoolExecutor | None = None) -> tuple[NDArray[Any], Findings, int]:
        """Stored samples [a, b), what is wrong with the source's samples behind them, and how many of those lay on the missing mark."""
        i, j = self.source_span(a, b)
        context = self.flat_samples if self.voltage else 0
        lo, hi = max(0, i - context), min(self.signal.n_samples, j + context)
        if self.resampler:
            k, m = self.resampler.block_support(a, b, self.signal.n_samples, self.signal.n_channels)
            lo, hi = min(lo, k), max(hi, m)
        raw, marked = self._raw(lo, hi)
        near = slice(max(0, i - context) - lo, min(self.signal.n_samples, j + context) - lo)
        mark = MISSING if raw.dtype == np.int16 else None
        findings = examine(raw[near], near.start + lo, inner=(i, j), flat=self.flat_samples, absent=mark)
        if not self.voltage:
            findings.flat = findings.at_low = findings.at_high = [[] for _ in findings.flat]
        if self.resampler is None:
            return self._stored(raw[i - lo : j - lo]), findings, marked
        if mark is not None and (raw == mark).any():
            raw = np.where(raw == mark, np.float32(np.nan), raw.astype(np.float32))
        y = self.resampler.block(lambda p, q: raw[p - lo : q - lo] if q > p else raw[:0], a, b, self.signal.n_samples, pool=pool)
        y *= self.factor
        return y.astype(np.float32), findings, marked

    def source_span(self, a: int, b: int) -> tuple[int, int]:
        """The source samples that stored samples [a, b) stand for; consecutive blocks share none and leave none out."""
        if not self.resampler:
            return a, b
        up, down = self.resampler.up, self.resampler.down
        return a * down // up, self.signal.n_samples if b >= self.n else b * down // up

    def _raw(self, i: int, j: int) -> tuple[NDArray[Any], int]:
        """Source samples in their own steps: int16 with -32768 as missing, other integers, or floats with NaN as missing."""
        s = self.signal
        raw = np.asarray(s.values[i:j])
        if raw.shape != (j - i, s.n_channels):
            raise _short_read(self.name, i, j, raw.shape, s.n_channels)
        kind, marked = raw.dtype.kind, 0
        gaps = [(max(p, i) - i, min(q, j) - i) for p, q in self.gap_samples if p < j and q > i]
        if kind == "i" and raw.dtype.itemsize == 2:
            raw = raw.astype(np.int16)  # a copy, in this machine's byte order
            absent = raw == s.missing if s.missing is not None else None
            if s.missing != MISSING:
                on_mark = raw == MISSING
                marked = int(on_mark.sum())
                if marked:
                    raw[on_mark] = MISSING + 1
                if absent is not None:
                    raw[absent] = MISSING
            for p, q in gaps:
                raw[p:q] = MISSING
            return raw, marked
        if kind in "iub":
            absent = raw == s.missing if s.missing is not None and kind != "b" else None
            if not gaps and (absent is None or not absent.any()) and kind != "b":
                return raw.astype(raw.dtype.newbyteorder("="), copy=False), 0
            raw = raw.astype(np.float64)
            if absent is not None:
                raw[absent] = np.nan
        else:
            raw = raw.astype(np.float64 if raw.dtype.itemsize > 4 else np.float32, copy=bool(gaps))
        for p, q in gaps:
            raw[p:q] = np.nan
        return raw, 0

    def _stored(self, raw: NDArray[Any]) -> NDArray[Any]:
        if self.dtype == "int16":
            return raw
        if raw.dtype == np.float32 and np.ndim(self.factor) == 0 and self.factor == 1.0:
            out = raw
        elif raw.dtype == np.int16 and (raw == MISSING).any():
            out = (np.where(raw == MISSING, np.nan, raw.astype(np.float64)) * self.factor).astype(np.float32)
        else:
            with np.errstate(over="ignore", invalid="ignore"):  # what does not fit becomes infinite, and infinite is missing
                out = (raw.astype(np.float64) * self.factor).astype(np.float32)
        if not np.isfinite(out.sum(dtype=np.float64)):
            out = np.where(np.isinf(out), np.float32(np.nan), out)
        return out


def _short_read(name: str, i: int, j: int, shape: tuple[int, ...], channels: int) -> Exception:
    from brainmu.errors import FormatError

    return FormatError(f"signal {name!r}: reading samples [{i}, {j}) gave an array of shape {shape}, expected ({j - i}, {channels}): the source is truncated")


def split_by_treatment(signals: dict[str, Signal], config: PreprocessConfig, note: Callable[[str], None]) -> dict[str, Signal]:
    """The signals, with those divided that hold both voltages to resample and channels that must keep their rate."""
    out: dict[str, Signal] = {}
    for name, s in signals.items():
        voltage = s.channels["kind"].isin(VOLTAGE).to_numpy()
        faster = config.lfp_rate is not None and s.rate is not None and s.rate > config.lfp_rate
        if not faster or voltage.all() or not voltage.any():
            out[name] = s
            continue
        rest = f"{name}_other"
        while rest in signals:
            rest += "_"
        out[name], out[rest] = s.pick(voltage), s.pick(~voltage)
        note(f"signal {name!r}: its {int((~voltage).sum())} channels that are no voltage keep {s.rate:g} Hz and are stored as {rest!r}")
    return out
