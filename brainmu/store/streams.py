"""One signal on its way into a store: which unit, type and rate it gets, and its samples, block by block."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.config import suggest
from brainmu.core import Signal
from brainmu.core.units import unit_factor, unit_hint
from brainmu.dsp.artefacts import Findings, examine
from brainmu.dsp.conditioning import Band, FilterChain, Notch, Stage, rereferenced
from brainmu.dsp.levels import Levels, find_noisy, measure, window_length
from brainmu.dsp.resample import Resampler
from brainmu.errors import ConfigError, InputError
from brainmu.store.config import PreprocessConfig
from brainmu.store.layout import MISSING, ArrayLayout
from brainmu.store.rows import RowCache

__all__ = ["BRAIN", "MISSING", "VOLTAGE", "Reference", "Stream", "split_by_treatment"]

VOLTAGE = frozenset({"lfp", "eeg", "emg", "eog", "ecg"})
"""Kinds of channel that are brought to µV, resampled, freed of hum where asked, and searched for flat and saturated spans."""
BRAIN = frozenset({"lfp", "eeg"})
"""Kinds that are band-passed and re-referenced where asked, and searched for artefacts and noisy channels."""
_BLOCK_VALUES = 1 << 22
_PROBES = 16
_LEAST_REFERENCE = 3
_MOST_DOWN = 1000
"""Times that a rate is brought down: 1.25 MHz to 1,250 Hz. More is a rate in wrong units, and a filter of gigabytes."""
_LARGEST = float(np.finfo(np.float32).max)


@dataclass
class Reference:
    """What is subtracted from which channels.

    Attributes
    ----------
    how : "average", "median" or a channel's name
    groups, sources : lists of channel numbers
        Channels that share a reference, and those it is made of.
    left_out : dict
        {channel name: why} of brain channels that no reference is made of.
    kept : list of str
        Brain channels that keep the reference of the recording: their group has too few good channels.
    """

    how: str
    groups: list[NDArray[np.intp]]
    sources: list[NDArray[np.intp]]
    left_out: dict[str, str]
    kept: list[str]


@dataclass
class Stream:
    """How the signal `name` is stored. Its blocks are for one thread at a time, quickest in ascending order; any order gives the same.

    Attributes
    ----------
    rate : float or None, Hz
        Of the stored signal.
    dtype : "int16" or "float32"
    n : int
        Samples stored.
    factor : float or (channel,) array
        From the source's steps to `unit`; for int16 it is stored beside the samples instead of applied.
    filters : FilterChain or None
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
            if s.rate > _MOST_DOWN * target:
                raise InputError(
                    f"signal {self.name!r}: its rate is {s.rate:g} Hz and lfp_rate {target:g} Hz, expected at most {_MOST_DOWN} times less: "
                    "check the rate, or give a greater lfp_rate (null keeps the rate)"
                )
            resampler = Resampler(s.rate, target)
            self.resampler = None if (resampler.up, resampler.down) == (1, 1) else resampler
        self.rate = self.resampler.rate if self.resampler else s.rate
        self.n = self.resampler.n_out(s.n_samples) if self.resampler else s.n_samples
        self.brain = s.channels["kind"].isin(BRAIN).to_numpy() if self.voltage else np.zeros(s.n_channels, dtype=bool)
        self._doubts: list[str] = []
        self.filters = self._filters()
        self._referenced = self._wants_reference()
        sixteen = np.dtype(s.values.dtype).kind == "i" and np.dtype(s.values.dtype).itemsize == 2
        self.plain = not (self.resampler or self.filters or self._referenced)
        self.dtype = "int16" if sixteen and self.plain and np.ndim(self.factor) == 0 else "float32"
        self.gap_samples = [(s.index(a), s.index(b)) for a, b in s.gaps]
        self.gap_samples = [(i, j) for i, j in self.gap_samples if i < j]
        self.layout = self._layout()
        self._marks: dict[int, int] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._keep = 0
        self._source = RowCache(self._raw, s.n_samples)
        # With filters, samples are made far ahead of where the source is examined: each reads for itself rather than keep all between.
        self._ahead = RowCache(self._raw, s.n_samples) if self.filters else self._source
        grid = self.resampler.segment(s.n_channels) if self.resampler else 1
        self._sampled = RowCache(self._sample, self.n, grid)
        self._final = RowCache(self._filter, self.n, self.filters.segment) if self.filters else self._sampled

    def _filters(self) -> FilterChain | None:
        config, rate = self.config, self.rate
        if not self.voltage or not (config.notch or config.band):
            return None
        if rate is None:
            self._doubts.append(f"signal {self.name!r}: has times instead of a rate, it cannot be filtered")
            return None
        stages: list[tuple[Stage, NDArray[np.intp] | None]] = []
        if config.notch and config.notch + config.notch_width < rate / 2:
            stages.append((Notch(rate, config.notch, config.notch_width, config.notch_harmonics), None))
        elif config.notch:
            self._doubts.append(f"signal {self.name!r}: has no hum of {config.notch:g} Hz to take out, it is stored at {rate:g} Hz")
        if config.band and self.brain.any():
            low, high = config.band
            if high is not None and high >= rate / 2:
                self._doubts.append(f"signal {self.name!r}: the band ends at {high:g} Hz but half its rate is {rate / 2:g} Hz, only its lower edge is applied")
                high = None
            if low is not None and low >= rate / 2:
                raise InputError(f"signal {self.name!r}: the band begins at {low:g} Hz but half its rate is {rate / 2:g} Hz: nothing would be left")
            if low is not None or high is not None:
                stages.append((Band(rate, low, high), None if self.brain.all() else np.flatnonzero(self.brain)))
        return FilterChain(stages) if stages else None

    def _wants_reference(self) -> bool:
        how = self.config.reference
        if how is None or not self.brain.any():
            return False
        if how in ("average", "median") or how in [x for x, b in zip(self.signal.names, self.brain) if b]:
            return True
        self._doubts.append(f"signal {self.name!r}: has no channel {how!r}, it keeps the reference it was recorded with")
        return False

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
    def warnings(self, said: Sequence[str] = ()) -> Iterator[str]:
        """What a reader of the store must know about this signal, beyond what was `said` of the recording."""
        s = self.signal
        hint = unit_hint(s.unit)
        # The reader of a format may have said it already; a likely unit is worth saying once more.
        if self.voltage and self.unit != "uV" and (hint or not any(w.startswith(f"signal {self.name}:") and "not a voltage" in w for w in said)):
            yield f"signal {self.name!r}: unit {s.unit or 'unknown'!r} is not one of voltage, values are kept unscaled{hint or '; expected V, mV, uV or nV'}"
        # A position derived from another has its unit, and says so by itself.
        known = "derived" in s.attrs or any(s.unit in w.split() and (self.name in w or "position" in w.lower()) for w in map(_words, said))
        if s.kind == "position" and self.unit != "m" and not known:
            yield f"signal {self.name!r}: unit {s.unit or 'unknown'!r} of position is kept unscaled; expected m, cm or mm"
        if s.clock not in ("session", ""):
            yield f"signal {self.name!r}: runs on the clock {s.clock!r} and is not aligned to the session's"
        if self.resampler and self.rate != self.config.lfp_rate:
            r = self.resampler
            yield f"signal {self.name!r}: {s.rate!r} Hz times {r.up}/{r.down} is {self.rate!r} Hz, the nearest to {self.config.lfp_rate} Hz; times stay exact"
        yield from self._doubts

    def described(self) -> dict[str, Any]:
        """What was done to the samples, for the signal's attrs. Reads some of the source where a reference is wanted."""
        out: dict[str, Any] = {"resampled_from": self.signal.rate} if self.resampler else {}
        reference = self.reference
        if reference is not None:
            names = self.signal.names
            out["reference"] = {
                "how": reference.how, "groups": [[names[c] for c in group] for group in reference.groups], "left_out": reference.left_out,
                "kept_as_recorded": reference.kept,
            }  # fmt: skip
        if self.filters:
            # A zero-phase filter uses what comes after a sample as well: seconds of it.
            out |= {"filters": self.filters.describe(), "centred": True}
        return out

    @functools.cached_property
    def reference(self) -> Reference | None:
        """What brain channels are referenced to: by a look at the same few seconds of the source, whatever is being written."""
        if not self._referenced:
            return None
        s, how = self.signal, str(self.config.reference)
        brain = np.flatnonzero(self.brain)
        if how not in ("average", "median"):
            return Reference(how, [brain], [np.array([s.names.index(how)])], {}, [])
        bad = self._bad_channels()
        groups, sources, kept = [], [], []
        for members in _groups(s, brain):
            good = np.array([c for c in members if c not in bad], dtype=np.intp)
            if len(good) < _LEAST_REFERENCE:
                kept += [s.names[c] for c in members]
                continue
            groups.append(members)
            sources.append(good)
        return Reference(how, groups, sources, {s.names[c]: why for c, why in bad.items()}, kept)

    def _bad_channels(self) -> dict[int, str]:
        """Brain channels that are marked bad, dead or noisy in sixteen seconds spread over the signal, and why."""
        table = self.signal.channels
        marked = np.zeros(len(table), dtype=bool)
        if "bad" in table:
            marked |= table["bad"].fillna(False).astype(bool).to_numpy()
        if "status" in table:
            marked |= (table["status"].astype(str).str.lower() == "bad").to_numpy()
        out = {int(c): "marked bad" for c in np.flatnonzero(marked & self.brain)}
        if self.rate is None:
            return out
        length = window_length(self.rate)
        pieces = []
        windows = max(1, self.n // length)
        for w in np.unique(np.linspace(0, windows - 1, min(_PROBES, windows)).astype(int)):
            pieces.append(measure(self._as_recorded(w * length, min(self.n, (w + 1) * length)), self.rate, int(w)))
        levels = Levels.of(pieces, self.signal.n_channels)
        silent = self.brain & ~np.isfinite(levels.deviation)
        if silent[self.brain].all():  # too short to tell, or all alike
            return out
        out |= {int(c): "dead or missing" for c in np.flatnonzero(silent) if c not in out}
        return dict(sorted((find_noisy(levels, self.brain & ~marked & ~silent, list(table["kind"])) | out).items()))

    def _as_recorded(self, a: int, b: int) -> NDArray[np.float64]:
        """Stored samples [a, b) as they would be without reference and filters, in `unit`, past every cache."""
        if self.resampler is None:
            return self._in_unit(self._raw(a, b))
        y = self.resampler.block(lambda p, q: _with_nan(self._raw(p, q)), a, b, self.signal.n_samples)
        return y * self.factor

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
        self._pool = pool
        i, j = self.source_span(a, b)
        context = self.flat_samples if self.voltage else 0
        lo, hi = max(0, i - context), min(self.signal.n_samples, j + context)
        self._keep = lo
        # Windows are measured whole, by the block in which they begin.
        length = window_length(self.rate) if self.rate is not None and self.brain.any() else 0
        begin, end = (-(-a // length) * length, min(self.n, -(-b // length) * length)) if length else (b, b)
        if self.plain:
            rows = self._source.get(lo, max(hi, end))
            raw, y = rows[: hi - lo], rows[i - lo :]
            windows = self._in_unit(y[begin - a : end - a]) if end > begin else None
            stored = self._stored(y[: b - a])
        else:
            raw = self._source.get(lo, hi)
            y = self._final.get(a, max(b, end))
            windows = y[begin - a : end - a] if end > begin else None
            stored = y[: b - a].astype(np.float32)
        mark = MISSING if raw.dtype == np.int16 else None
        findings = examine(raw, lo, inner=(i, j), flat=self.flat_samples, absent=mark)
        if not self.voltage:
            findings.flat = findings.at_low = findings.at_high = [[] for _ in findings.flat]
        if windows is not None and self.rate is not None:
            findings.levels = [measure(windows, self.rate, begin // length)]
        self._pool = None  # a stream may be sent to another process
        marked = sum(count for row, count in self._marks.items() if i <= row < j)
        self._marks = {row: count for row, count in self._marks.items() if row >= j}
        return stored, findings, marked

    def _filter(self, a: int, b: int) -> NDArray[np.float32]:
        """Filtered samples [a, b)."""
        assert self.filters is not None
        return self.filters.block(self._sampled.get, a, b, self.n, pool=self._pool).astype(np.float32)

    def _sample(self, a: int, b: int) -> NDArray[np.float64]:
        """Samples [a, b) referenced and at the stored rate, in `unit`, NaN where missing."""
        n = self.signal.n_samples
        if self.resampler is None:
            return self._referenced_rows(a, b) if self._referenced else self._in_unit(self._read(a, b))
        if self._referenced:
            return self.resampler.block(self._referenced_rows, a, b, n, pool=self._pool)
        y = self.resampler.block(lambda p, q: _with_nan(self._read(p, q)), a, b, n, pool=self._pool)
        y *= self.factor
        return y

    def _read(self, i: int, j: int) -> NDArray[Any]:
        return self._ahead.get(i, j, keep=self._keep if self._ahead is self._source else i)

    def _referenced_rows(self, i: int, j: int) -> NDArray[np.float64]:
        reference = self.reference
        rows = self._in_unit(self._read(i, j))
        if reference is None:
            return rows
        return rereferenced(rows, reference.groups, reference.sources, "median" if reference.how == "median" else "average")

    def _in_unit(self, raw: NDArray[Any]) -> NDArray[np.float64]:
        """Source samples as float64 in `unit`, NaN where missing."""
        out = raw.astype(np.float64)
        if raw.dtype == np.int16:
            out[raw == MISSING] = np.nan
        with np.errstate(over="ignore", invalid="ignore"):
            out *= self.factor
        if raw.dtype.kind == "f":
            out[np.isinf(out)] = np.nan
        return out

    def source_span(self, a: int, b: int) -> tuple[int, int]:
        """The source samples that stored samples [a, b) stand for; consecutive blocks share none and leave none out."""
        if not self.resampler:
            return a, b
        up, down = self.resampler.up, self.resampler.down
        return a * down // up, self.signal.n_samples if b >= self.n else b * down // up

    def _raw(self, i: int, j: int) -> NDArray[Any]:
        """Source samples in their own steps: int16 with -32768 as missing, other integers, or floats with NaN as missing.

        A float that is too large to be stored is infinite, and all that is infinite counts as missing.
        """
        s = self.signal
        raw = np.asarray(s.values[i:j])
        if raw.shape != (j - i, s.n_channels):
            raise _short_read(self.name, i, j, raw.shape, s.n_channels)
        kind = raw.dtype.kind
        gaps = [(max(p, i) - i, min(q, j) - i) for p, q in self.gap_samples if p < j and q > i]
        if kind == "i" and raw.dtype.itemsize == 2:
            raw = raw.astype(np.int16)  # a copy, in this machine's byte order
            absent = raw == s.missing if s.missing is not None else None
            if s.missing != MISSING:
                on_mark = raw == MISSING
                if on_mark.any():
                    rows = on_mark.sum(axis=1)
                    self._marks |= {i + int(k): int(rows[k]) for k in np.flatnonzero(rows)}
                    raw[on_mark] = MISSING + 1
                if absent is not None:
                    raw[absent] = MISSING
            for p, q in gaps:
                raw[p:q] = MISSING
            return raw
        if kind in "iub":
            absent = raw == s.missing if s.missing is not None and kind != "b" else None
            if not gaps and (absent is None or not absent.any()) and kind != "b":
                return raw.astype(raw.dtype.newbyteorder("="), copy=False)
            raw = raw.astype(np.float64)
            if absent is not None:
                raw[absent] = np.nan
        else:
            raw = self._storable(raw.astype(np.float64 if raw.dtype.itemsize > 4 else np.float32, copy=bool(gaps)))
        for p, q in gaps:
            raw[p:q] = np.nan
        return raw

    def _storable(self, raw: NDArray[Any]) -> NDArray[Any]:
        """Floats, infinite where float32 could not hold them in `unit`."""
        with np.errstate(divide="ignore", over="ignore"):
            most = _LARGEST / np.abs(np.asarray(self.factor, dtype=np.float64))
        if not raw.size or (raw.dtype == np.float32 and np.min(most) >= _LARGEST):
            return raw
        beyond = np.abs(raw) > most
        return np.where(beyond, raw.dtype.type(np.inf), raw) if beyond.any() else raw

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
        absent = np.isinf(out)
        return np.where(absent, np.float32(np.nan), out) if absent.any() else out


def _words(sentence: str) -> str:
    return sentence.translate(str.maketrans(":;,.()'\"", " " * 8))


def _with_nan(raw: NDArray[Any]) -> NDArray[Any]:
    """Source samples with NaN where int16 holds the missing mark, or floats are infinite."""
    if raw.dtype.kind == "f":
        absent = np.isinf(raw)
        return np.where(absent, raw.dtype.type(np.nan), raw) if absent.any() else raw
    if raw.dtype == np.int16:
        absent = raw == MISSING
        if absent.any():
            return np.where(absent, np.float32(np.nan), raw.astype(np.float32))
    return raw


def _groups(signal: Signal, which: NDArray[np.intp]) -> list[NDArray[np.intp]]:
    """The channels `which` by shank, else group, else region (and by probe), as far as the channel table has one; otherwise all together."""
    table = signal.channels
    columns = ["probe"] if "probe" in table else []
    for column in ("shank", "group", "region"):
        if column in table and (table[column].iloc[which].fillna("").astype(str) != "").any():
            columns.append(column)
            break
    keys = [tuple(str(table[c].iloc[k]) for c in columns) for k in which]
    return [np.array([c for c, key in zip(which, keys) if key == one], dtype=np.intp) for one in dict.fromkeys(keys)]


def _short_read(name: str, i: int, j: int, shape: tuple[int, ...], channels: int) -> Exception:
    from brainmu.errors import FormatError

    return FormatError(f"signal {name!r}: reading samples [{i}, {j}) gave an array of shape {shape}, expected ({j - i}, {channels}): the source is truncated")


def split_by_treatment(signals: dict[str, Signal], config: PreprocessConfig, note: Callable[[str], None]) -> dict[str, Signal]:
    """The signals, with those divided that hold both voltages to resample and channels that must keep their rate."""
    out: dict[str, Signal] = {}
    _check_reference(signals, config.reference)
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


def _check_reference(signals: dict[str, Signal], how: str | None) -> None:
    """Raise ConfigError if the reference is a channel that no brain signal has."""
    if how in (None, "average", "median"):
        return
    names = [n for s in signals.values() for n, kind in zip(s.names, s.channels["kind"]) if kind in BRAIN]
    if how not in names:
        known = ", ".join(names[:20]) or "none"
        hint = suggest(str(how), ["average", "median", *names])
        raise ConfigError(f"reference is {how!r}, expected average, median or an lfp or eeg channel (there are {known}){hint}")
