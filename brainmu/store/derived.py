"""Streams computed from others and stored beside them: smoothed position, speed, dF/F, EMG from LFP. Lazy, and the same values however they are sliced."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from brainmu.config import load_config, suggest
from brainmu.core import Recording, Signal
from brainmu.core.units import unit_factor
from brainmu.dsp.behaviour import jumps, reach, smooth_position, speed_of
from brainmu.errors import ConfigError, InputError, MissingDataError
from brainmu.store.dff import DffSettings, dff_of
from brainmu.store.tiles import TILE_VALUES, Tiles, described, exact, like

__all__ = ["DERIVED", "derive", "requested"]

Note = Callable[[str], None]


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
    max_speed : float or None, m/s (of a position in px: px/s)
        Points that the tracking reaches and leaves faster than this, within `bridge`, count as lost. 0 keeps every point. None is 2 m/s for positions in
        metres of all but humans, more than a rat or mouse runs in an arena, and 0 for the others.
    """

    sigma: float = 0.1
    bridge: float = 0.5
    signal: str | None = None
    max_speed: float | None = None

    def __post_init__(self) -> None:
        if self.max_speed is not None and not 0 <= self.max_speed < float("inf"):
            raise ConfigError(f"max_speed is {self.max_speed}, expected m/s (px/s for a position in px) > 0, or 0 to keep every point")
        if not (self.sigma >= 0 and self.bridge >= 0):
            raise ConfigError(f"sigma is {self.sigma} s and bridge {self.bridge} s, expected numbers >= 0")


@dataclass(frozen=True)
class EmgSettings:
    """Of `emg_from_lfp` (see :func:`brainmu.dsp.emg.emg_from_lfp_signal`).

    Attributes
    ----------
    signal : str or None
        Which signal; by default the only one with LFP channels (or EEG, where there is no LFP).
    sites : list of channel names, or None
        One a site; None takes a channel of each shank, group or region outside the hippocampus.
    window : float, s
    band : (float, float), Hz
    """

    signal: str | None = None
    sites: tuple[str, ...] | None = None
    window: float = 0.5
    band: tuple[float, float] = (300.0, 600.0)

    def __post_init__(self) -> None:
        if len(self.band) != 2:
            raise ConfigError(f"band is {list(self.band)!r}, expected two edges in Hz")


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
    if isinstance(entries, str | Mapping):
        raise ConfigError(f"derive: is {entries!r}, expected a list of names")
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


_TOP_SPEED = 2.0
"""m/s, where `max_speed` is not given: rats and mice run at up to about 1.5 m/s."""
_RUNNERS = ("human", "homo sapiens")


# -- position ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Track:
    """Smoothed position, or speed, of the samples [first, last)."""

    source: Signal
    factor: float
    sigma: float
    bridge: float
    top: float
    speed: bool

    def __call__(self, first: int, last: int) -> NDArray[Any]:
        a, t, x = self._around(first, last, reach(self.sigma, self.bridge) + 2 * self.bridge)
        if self.top:
            x[jumps(t, x, self.top, self.bridge)[0]] = np.nan
        x = smooth_position(t, x, self.sigma, self.bridge, self.source.rate)
        return (speed_of(t, x, self.bridge)[:, None] if self.speed else x)[first - a : last - a]

    def _around(self, first: int, last: int, pad: float) -> tuple[int, NDArray[np.float64], NDArray[np.float64]]:
        """Samples [first, last) and `pad` s to either side: the first one's number, times and positions."""
        s = self.source
        ends = s.read_times(first, first + 1)[0] - pad, s.read_times(last - 1, last)[0] + pad
        a, b = max(0, s.index(ends[0]) - 2), min(s.n_samples, s.index(ends[1]) + 2)
        return a, s.read_times(a, b), exact(s, a, b) * self.factor

    def jumps(self) -> tuple[int, int]:
        """How many points count as lost because the tracking jumped to them, and how many steps too fast stay. Reads the whole source."""
        lost = stay = 0
        for first in range(0, self.source.n_samples if self.top else 0, TILE_VALUES):
            last = min(first + TILE_VALUES, self.source.n_samples)
            a, t, x = self._around(first, last, 2 * self.bridge)
            away, staying = jumps(t, x, self.top, self.bridge)
            lost, stay = lost + int(away[first - a : last - a].sum()), stay + int(staying[first - a : last - a].sum())
        return lost, stay


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
        top = settings.max_speed
        if top is None:
            top = _TOP_SPEED if unit == "m" and recording.species.lower() not in _RUNNERS else 0.0
        used = dataclasses.replace(settings, bridge=max(settings.bridge, 1.5 * _step(source)), max_speed=top)
        fast = name == "speed"
        track = _Track(source, factor, used.sigma, used.bridge, top, fast)
        lost, stay = track.jumps()
        said = f"faster than {top:g} {unit or 'units'}/s (max_speed)"
        if lost:
            note(f"{name}: {lost} {'points' if lost > 1 else 'point'} of {key!r} that the tracking jumped to and back, {said}, taken as lost")
        if stay:
            note(
                f"{name}: {stay} {'steps' if stay > 1 else 'step'} of {key!r} {said} and without a way back, kept: "
                "the tracking jumped for long, the animal was lifted, or the scale is wrong"
            )
        values = Tiles((source.n_samples, 1 if fast else len(axes)), TILE_VALUES // 2, track)
        attrs = described(name, [key], used, channels=axes)
        own = name if len(found) == 1 or key == "position" else f"{name}_{key.removeprefix('position_')}"
        out[own] = like(source, values, "speed" if fast else "position", f"{unit or 'units'}/s" if fast else unit, ["speed"] if fast else axes, attrs)
    return out


# -- muscle tone ------------------------------------------------------------------------------------------------------
def _emg(recording: Recording, name: str, settings: EmgSettings, note: Note) -> dict[str, Signal]:
    from brainmu.dsp.emg import CAUTION, emg_from_lfp_signal

    found = recording.signals_of("lfp") or recording.signals_of("eeg")
    if settings.signal is not None:
        found = {k: s for k, s in recording.signals_of("lfp", "eeg").items() if k == settings.signal}
    if len(found) != 1:
        have = ", ".join(found) if found else f"no such signal among {', '.join(recording.signals) or 'none'}"
        raise MissingDataError(f"{recording.id}: derive: {name} needs one signal with lfp or eeg channels, there is {have}: name it, {{{name}: {{signal: …}}}}")
    source, signal = next(iter(found.items()))
    try:
        out = emg_from_lfp_signal(signal, sites=settings.sites, window=settings.window, band=settings.band, name=source)
    except (MissingDataError, InputError) as error:
        raise type(error)(f"{recording.id}: derive: {name}: {error}") from None
    note(f"{name}: {CAUTION}")
    out.attrs["derived"] |= described(name, [source], settings)["derived"]
    return {name: out}


DERIVED: dict[str, tuple[type, Callable[[Recording, str, Any, Note], dict[str, Signal]]]] = {
    "position_smoothed": (PositionSettings, _position),
    "speed": (PositionSettings, _position),
    "dff": (DffSettings, dff_of),
    "emg_from_lfp": (EmgSettings, _emg),
}
"""What can be derived, with the settings it takes."""
