"""Streams that are computed from others and stored beside them: smoothed position, speed, dF/F. Lazy, and the same values however they are sliced."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.config import load_config, suggest
from brainmu.core import Recording, Signal
from brainmu.core.units import unit_factor
from brainmu.dsp.behaviour import reach, smooth_position, speed_of
from brainmu.dsp.photometry import bleaching, bleaching_curve, fit_control, running_baseline
from brainmu.errors import ConfigError, InputError, MissingDataError
from brainmu.formats.lazy import Rows

__all__ = ["DERIVED", "derive", "requested"]

Note = Callable[[str], None]
_TILE_VALUES = 1 << 16
_FIT_BINS = 1 << 16


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


# -- what can be asked for --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class PositionSettings:
    """Of `position_smoothed` and `speed`.

    Attributes
    ----------
    sigma : float, s
        SD of the Gaussian over time.
    bridge : float, s
        Lost points between seen ones at most this far apart are interpolated linearly; nothing reaches across longer holes.
    signal : str or None
        Only this position signal; default all.
    """

    sigma: float = 0.1
    bridge: float = 0.5
    signal: str | None = None

    def __post_init__(self) -> None:
        if not (self.sigma >= 0 and self.bridge >= 0):
            raise ConfigError(f"sigma is {self.sigma} s and bridge {self.bridge} s, expected numbers >= 0")


@dataclass(frozen=True)
class DffSettings:
    """Of `dff`.

    Attributes
    ----------
    method : "isosbestic", "exponential", "both", "baseline" or None
        What is taken as F0 of photometry: the isosbestic channel fitted robustly to the signal (Lerner et al. 2015); a constant and decaying exponentials;
        exponentials for the bleaching of both channels and the isosbestic channel for what they share besides (motion). Calcium imaging has its running
        baseline. None takes "isosbestic" where there is an isosbestic channel and "exponential" where not.
    signal, isosbestic : str or None
        Channels of photometry, where the channel tables do not say which belong together.
    window, sigma : float, s
        Of the running baseline: running maximum of the running minimum over `window` of the trace smoothed with SD `sigma`.
    """

    method: Literal["isosbestic", "exponential", "both", "baseline"] | None = None
    signal: str | None = None
    isosbestic: str | None = None
    window: float = 60.0
    sigma: float = 10.0

    def __post_init__(self) -> None:
        if not (self.window > 0 and self.sigma >= 0):
            raise ConfigError(f"window is {self.window} s and sigma {self.sigma} s, expected positive numbers")
        if self.isosbestic is not None and self.signal is None:
            raise ConfigError(f"isosbestic is {self.isosbestic!r} and signal is not said: name the channel that it belongs to")


def requested(entries: Sequence[Any]) -> list[tuple[str, Any]]:
    """Name and settings of each entry of ``derive:``, which is a name, or a mapping of a name to its settings.

    Raises
    ------
    ConfigError
        If a name or setting is not known, or a name comes twice.

    Examples
    --------
    >>> [(name, s.sigma) for name, s in requested(["position_smoothed", {"speed": {"sigma": 0.25}}])]
    [('position_smoothed', 0.1), ('speed', 0.25)]
    """
    out: list[tuple[str, Any]] = []
    for entry in entries:
        items = {entry: {}} if isinstance(entry, str) else entry
        if not isinstance(items, Mapping) or len(items) != 1:
            raise ConfigError(f"derive: {entry!r} is neither a name nor one name with its settings, e.g. {{speed: {{sigma: 0.25}}}}")
        name, settings = next(iter(items.items()))
        if name not in DERIVED:
            raise ConfigError(f"derive: {name!r} is not known{suggest(str(name), DERIVED)}; known are {', '.join(DERIVED)}")
        if name in [n for n, _ in out]:
            raise ConfigError(f"derive: {name} is asked for twice")
        if settings is not None and not isinstance(settings, Mapping):
            raise ConfigError(f"derive: the settings of {name} are {settings!r}, expected a mapping")
        try:
            out.append((str(name), load_config(DERIVED[name][0], dict(settings or {}))))
        except ConfigError as error:
            raise ConfigError(f"derive: {name}: {str(error).removeprefix(f'{DERIVED[name][0].__name__}: ')}") from None
    return out


def derive(recording: Recording, entries: Sequence[Any], note: Note | None = None) -> dict[str, Signal]:
    """The derived streams that `entries` ask for (see :func:`requested`), as signals of their own.

    Their attrs say ``derived`` (name, sources, parameters and what was fitted) and ``centred`` (True: a sample uses its future, so the stream cannot be a
    covariate of a causal analysis). Position streams and the baseline of calcium imaging are computed when they are read; the fits of photometry are made here.

    Parameters
    ----------
    recording : Recording
    entries : sequence of names, or of mappings of one name to its settings
    note : callable
        Called with a sentence about anything doubtful.

    Raises
    ------
    ConfigError
        If an entry is not known.
    MissingDataError
        If the recording lacks the source of a stream.
    InputError
        If a stream would replace a signal of the same name, or a fit is not possible.

    Examples
    --------
    >>> t = np.arange(500) / 50
    >>> rec = Recording.from_arrays("m1", signals={"position": dict(values=np.c_[0.2 * t, 0 * t], rate=50.0, unit="m", kind="position")})
    >>> speed = derive(rec, ["speed"])["speed"]
    >>> speed.unit, round(float(speed.read(100, 101)[0, 0]), 3), speed.attrs["centred"]
    ('m/s', 0.2, True)
    """
    out: dict[str, Signal] = {}
    for name, settings in requested(entries):
        for key, signal in DERIVED[name][1](recording, name, settings, note or (lambda sentence: None)).items():
            if key in recording.signals or key in out:
                raise InputError(f"{recording.id}: derive: {name} makes a stream {key!r}, and the recording has one already: rename or leave out one of them")
            out[key] = signal
    return out


def _described(name: str, sources: list[str], settings: Any, **fitted: Any) -> dict[str, Any]:
    parameters = {k: v for k, v in dataclasses.asdict(settings).items() if v is not None}
    return {"derived": {"name": name, "from": sources, "parameters": parameters} | fitted, "centred": True}


def _like(source: Signal, values: Any, kind: str, unit: str, channels: Any, attrs: dict[str, Any]) -> Signal:
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


def _exact(s: Signal, i: int, j: int) -> NDArray[np.float64]:
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


# -- position ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Track:
    """Smoothed position, or speed, of the samples [first, last)."""

    source: Signal
    factor: float
    sigma: float
    bridge: float
    speed: bool

    def __call__(self, first: int, last: int) -> NDArray[Any]:
        s = self.source
        pad = reach(self.sigma, self.bridge)
        ends = s.read_times(first, first + 1)[0] - pad, s.read_times(last - 1, last)[0] + pad
        a, b = max(0, s.index(ends[0]) - 2), min(s.n_samples, s.index(ends[1]) + 2)
        t = s.read_times(a, b)
        x = smooth_position(t, _exact(s, a, b) * self.factor, self.sigma, self.bridge, s.rate)
        return (speed_of(t, x, self.bridge)[:, None] if self.speed else x)[first - a : last - a]


def _step(s: Signal) -> float:
    """Usual time between two samples, s."""
    if s.rate is not None:
        return 1 / s.rate
    return float(np.median(np.diff(s.read_times()))) if s.n_samples > 1 else 0.0


def _position(recording: Recording, name: str, settings: PositionSettings, note: Note) -> dict[str, Signal]:
    found = {k: s for k, s in recording.signals_of("position").items() if settings.signal in (None, k) and s.n_samples}
    if not found:
        raise MissingDataError(
            f"{recording.id}: derive: {name} needs a position{f' signal {settings.signal!r}' if settings.signal else ''}, "
            f"the recording has {', '.join(recording.signals) or 'no signals'}"
        )
    out = {}
    for key, signal in found.items():
        axes = [n for n in signal.names if n.lower() in ("x", "y", "z")] or signal.names[: 2 if signal.n_channels > 3 else 3]
        source = signal.pick(axes)
        factor, unit = unit_factor(source.unit, kind="position")
        if unit != "m":
            note(f"{name}: position {key!r} is in {unit or 'an unknown unit'}, so {name} is in {unit or 'units'}{'/s' if name == 'speed' else ''}, not metres")
        # A slow camera's neighbouring frames are no hole: bridge at least one and a half steps.
        used = dataclasses.replace(settings, bridge=max(settings.bridge, 1.5 * _step(source)))
        fast = name == "speed"
        track = _Track(source, factor, used.sigma, used.bridge, fast)
        values = Tiles((source.n_samples, 1 if fast else len(axes)), _TILE_VALUES // 2, track)
        attrs = _described(name, [key], used, channels=axes)
        own = name if len(found) == 1 or key == "position" else f"{name}_{key.removeprefix('position_')}"
        out[own] = _like(source, values, "speed" if fast else "position", f"{unit or 'units'}/s" if fast else unit, ["speed"] if fast else axes, attrs)
    return out


# -- dF/F ---------------------------------------------------------------------------------------------------------------
def _dff(recording: Recording, name: str, settings: DffSettings, note: Note) -> dict[str, Signal]:
    light, cells = recording.signals_of("photometry"), recording.signals_of("calcium")
    if settings.method == "baseline" or settings.signal is not None:
        light, cells = ({}, cells | light) if settings.method == "baseline" else (light, {})
    if not light and not cells:
        raise MissingDataError(f"{recording.id}: derive: dff needs photometry or calcium, the recording has {', '.join(recording.signals) or 'no signals'}")
    made = _photometry_dff(recording, light, settings, note) if light else {}
    made |= {key: _running_dff(key, s, settings) for key, s in cells.items()}
    out: dict[str, Signal] = {}
    for key, signal in made.items():
        short = f"dff{key.removeprefix('photometry').removeprefix('calcium')}" if key.startswith(("photometry", "calcium")) else f"dff_{key}"
        out[short if short not in out else f"dff_{key}"] = signal
    return out


@dataclass(frozen=True)
class _Running:
    """(F - F0) / F0 of the samples [first, last), with F0 the running baseline."""

    source: Signal
    settings: DffSettings

    def __call__(self, first: int, last: int) -> NDArray[Any]:
        s = self.source
        assert s.rate is not None
        pad = int(np.ceil((self.settings.window + 4 * self.settings.sigma) * s.rate)) + 2
        a, b = max(0, first - pad), min(s.n_samples, last + pad)
        x = _exact(s, a, b)
        base = running_baseline(x, s.rate, self.settings.window, self.settings.sigma)
        return _ratio(x, base)[first - a : last - a]


def _ratio(x: NDArray[np.float64], base: NDArray[np.float64]) -> NDArray[np.float64]:
    """(x - base) / base; missing where the baseline is not positive, for a ratio to nothing means nothing."""
    positive = base > 0
    return np.where(positive, (x - base) / np.where(positive, base, 1.0), np.nan)


def _running_dff(key: str, source: Signal, settings: DffSettings) -> Signal:
    if source.rate is None:
        raise InputError(f"derive: dff: signal {key!r} is sampled at uneven times, its running baseline needs a rate")
    tile = max(1 << 10, _TILE_VALUES * 16 // source.n_channels)
    values = Tiles((source.n_samples, source.n_channels), tile, _Running(source, settings))
    used = dataclasses.replace(settings, method="baseline")
    return _like(source, values, source.channels["kind"].iloc[0], "dF/F", source.channels, _described("dff", [key], used))


@dataclass(frozen=True)
class _Pair:
    """A signal channel and its isosbestic one, on the signal's samples."""

    source: Signal
    control: Signal | None

    def read(self, i: int, j: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Times since the recording's start, F and control (zeros where there is none) of the samples [i, j)."""
        s, c = self.source, self.control
        t, f = s.read_times(i, j), _exact(s, i, j)[:, 0]
        if c is None:
            return t - s.start, f, np.zeros_like(f)
        if c.n_samples == s.n_samples and c.start == s.start and c.rate == s.rate and s.times is None:
            return t - s.start, f, _exact(c, i, j)[:, 0]
        # Interleaved excitation: the control between its own frames, not beyond two steps of its nearest.
        a, b = max(0, c.index(t[0]) - 2), min(c.n_samples, c.index(t[-1]) + 2)
        tc, x = c.read_times(a, b), _exact(c, a, b)[:, 0]
        if not len(tc):
            return t - s.start, f, np.full_like(f, np.nan)
        step = c.duration / max(1, c.n_samples)
        out = np.interp(t, tc, x)
        out[(t < tc[0] - 2 * step) | (t > tc[-1] + 2 * step)] = np.nan
        return t - s.start, f, out

    def tiles(self) -> Iterator[tuple[int, int]]:
        for i in range(0, self.source.n_samples, _TILE_VALUES):
            yield i, min(i + _TILE_VALUES, self.source.n_samples)

    def binned(self) -> NDArray[np.float64]:
        """Means of time, F and control (3, bin) in at most 65,536 bins; a bin counts only where both channels are seen."""
        n = self.source.n_samples
        bins = min(n, _FIT_BINS)
        total, count = np.zeros((3, bins)), np.zeros(bins)
        for i, j in self.tiles():
            parts = np.stack(self.read(i, j))
            ok = np.isfinite(parts).all(axis=0)
            where = (np.arange(i, j) * bins // n)[ok]
            count += np.bincount(where, minlength=bins)
            for row, values in zip(total, parts[:, ok]):
                row += np.bincount(where, values, minlength=bins)
        return total[:, count > 0] / count[count > 0]


@dataclass(frozen=True)
class _Fitted:
    """dF/F of the samples [first, last), a channel a pair with what was fitted to it."""

    pairs: tuple[_Pair, ...]
    fits: tuple[dict[str, Any], ...]

    def __call__(self, first: int, last: int) -> NDArray[Any]:
        return np.stack([self._channel(p, fit, first, last) for p, fit in zip(self.pairs, self.fits)], axis=1)

    @staticmethod
    def _channel(pair: _Pair, fit: dict[str, Any], first: int, last: int) -> NDArray[np.float64]:
        t, f, c = pair.read(first, last)
        if fit["method"] == "isosbestic":
            return _ratio(f, fit["intercept"] + fit["slope"] * c)
        base = bleaching_curve(t, np.asarray(fit["decay"]))
        shared = fit["slope"] * (c - bleaching_curve(t, np.asarray(fit["control_decay"]))) if fit["method"] == "both" else 0.0
        return _ratio(f - shared, base)


def _fit(pair: _Pair, name: str, method: str | None, note: Note) -> dict[str, Any]:
    method = method or ("isosbestic" if pair.control is not None else "exponential")
    if method != "exponential" and pair.control is None:
        raise InputError(f"derive: dff: channel {name!r} has no isosbestic channel, which method {method!r} needs: name it, or use method: exponential")
    t, f, c = pair.binned()
    if method == "exponential":
        return {"method": method, "decay": bleaching(t, f).tolist()}
    if method == "both":
        decay, control_decay = bleaching(t, f), bleaching(t, c)
        fit = fit_control(f - bleaching_curve(t, decay), c - bleaching_curve(t, control_decay), intercept=False)
        more: dict[str, Any] = {"decay": decay.tolist(), "control_decay": control_decay.tolist(), "slope": fit.slope}
    else:
        fit = fit_control(f, c)
        more = {"intercept": fit.intercept, "slope": fit.slope}
    if fit.slope <= 0:
        note(f"dff: the isosbestic channel of {name!r} falls where the signal rises (slope {fit.slope:.3g}): check which is which, or use method: exponential")
    return {"method": method, **more, "explained": fit.explained}


def _photometry_dff(recording: Recording, light: dict[str, Signal], settings: DffSettings, note: Note) -> dict[str, Signal]:
    places = {n: s.pick([n]) for s in light.values() for n in s.names}
    for wanted in (settings.signal, settings.isosbestic):
        if wanted is not None and wanted not in places:
            raise MissingDataError(
                f"{recording.id}: derive: dff: there is no photometry channel {wanted!r}{suggest(wanted, places)}; there are {', '.join(places)}"
            )
    out: dict[str, Signal] = {}
    for key, signal in light.items():
        chosen = {settings.signal: settings.isosbestic or ""} if settings.signal in signal.names else {} if settings.signal else _controls(signal.channels)
        pairs, fits = [], {}
        for name, control in chosen.items():
            assert name is not None
            if control and control not in places:
                raise MissingDataError(
                    f"{recording.id}: derive: dff: {name!r} names the isosbestic channel {control!r}, which is not there: {', '.join(places)}"
                )
            pairs.append(_Pair(places[name], places[control] if control else None))
            fits[name] = _fit(pairs[-1], name, settings.method, note)
        if pairs:
            values = Tiles((signal.n_samples, len(pairs)), _TILE_VALUES, _Fitted(tuple(pairs), tuple(fits.values())))
            sources = list(dict.fromkeys([key, *(k for k, s in light.items() if any(c in s.names for c in chosen.values() if c))]))
            channels = signal.channels[signal.channels["name"].isin(chosen)]
            out[key] = _like(signal, values, "photometry", "dF/F", channels, _described("dff", sources, settings, fit=fits))
    if not out:
        raise MissingDataError(
            f"{recording.id}: derive: dff: no photometry channel ({', '.join(places)}) says what its isosbestic channel is: name them, "
            "{dff: {signal: …, isosbestic: …}}, or use {dff: {signal: …, method: exponential}}"
        )
    return out


def _controls(channels: pd.DataFrame) -> dict[str | None, str]:
    """The isosbestic channel of each signal channel, by the channel table ("" where it has none)."""
    control, role = (channels[k].fillna("") if k in channels else [""] * len(channels) for k in ("isosbestic", "role"))
    return {str(n): str(c) for n, c, r in zip(channels["name"], control, role) if c or r == "signal"}


DERIVED: dict[str, tuple[type, Callable[[Recording, str, Any, Note], dict[str, Signal]]]] = {
    "position_smoothed": (PositionSettings, _position),
    "speed": (PositionSettings, _position),
    "dff": (DffSettings, _dff),
}
"""What can be derived, with the settings it takes."""
