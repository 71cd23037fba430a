"""dF/F as a derived stream: photometry against its isosbestic channel or its bleaching, calcium imaging against a running baseline."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.config import suggest
from brainmu.core import Recording, Signal
from brainmu.dsp.photometry import baseline_step, bleaching, bleaching_curve, fit_control, running_baseline
from brainmu.errors import ConfigError, InputError, MissingDataError
from brainmu.store.tiles import TILE_VALUES, Tiles, described, exact, like

__all__ = ["DffSettings", "dff_of"]

Note = Callable[[str], None]
_FIT_BINS = 1 << 16
_SLOPES_AGREE = 0.25
"""Of the larger: slopes of the channels with and without their bleaching that differ by more are said."""


@dataclass(frozen=True)
class DffSettings:
    """Of `dff`.

    Attributes
    ----------
    method : "both", "isosbestic", "exponential", "baseline" or None
        What is taken as F0 of photometry. "both": a constant and decaying exponentials for the bleaching of each channel, then the isosbestic channel for
        what the two share besides (motion). "isosbestic": the isosbestic channel fitted robustly to the signal as it is (Lerner et al. 2015), which
        overcorrects motion, to the point of inverting it, where the two bleach differently. "exponential": the exponentials alone. Calcium imaging has
        its running baseline. None takes "both" where there is an isosbestic channel and "exponential" where not.
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


def dff_of(recording: Recording, name: str, settings: DffSettings, note: Note) -> dict[str, Signal]:
    """The dF/F of every photometry and calcium signal of the recording."""
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
        # From a multiple of the step, so that every tile averages the same samples.
        step = baseline_step(s.rate, self.settings.sigma)
        a, b = max(0, first - pad - 2 * step) // step * step, min(s.n_samples, last + pad + 2 * step)
        x = exact(s, a, b)
        base = running_baseline(x, s.rate, self.settings.window, self.settings.sigma)
        return _ratio(x, base)[first - a : last - a]


def _ratio(x: NDArray[np.float64], base: NDArray[np.float64]) -> NDArray[np.float64]:
    """(x - base) / base; missing where the baseline is not positive, for a ratio to nothing means nothing."""
    positive = base > 0
    return np.where(positive, (x - base) / np.where(positive, base, 1.0), np.nan)


def _running_dff(key: str, source: Signal, settings: DffSettings) -> Signal:
    if source.rate is None:
        raise InputError(f"derive: dff: signal {key!r} is sampled at uneven times, its running baseline needs a rate")
    tile = max(1 << 10, TILE_VALUES * 16 // source.n_channels)
    values = Tiles((source.n_samples, source.n_channels), tile, _Running(source, settings))
    used = dataclasses.replace(settings, method="baseline")
    return like(source, values, source.channels["kind"].iloc[0], "dF/F", source.channels, described("dff", [key], used))


@dataclass(frozen=True)
class _Pair:
    """A signal channel and its isosbestic one, on the signal's samples."""

    source: Signal
    control: Signal | None

    def read(self, i: int, j: int) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        """Times since the recording's start, F and control (zeros where there is none) of the samples [i, j)."""
        s, c = self.source, self.control
        t, f = s.read_times(i, j), exact(s, i, j)[:, 0]
        if c is None:
            return t - s.start, f, np.zeros_like(f)
        if c.n_samples == s.n_samples and c.start == s.start and c.rate == s.rate and s.times is None:
            return t - s.start, f, exact(c, i, j)[:, 0]
        # Interleaved excitation: the control between its own frames, not beyond two steps of its nearest.
        a, b = max(0, c.index(t[0]) - 2), min(c.n_samples, c.index(t[-1]) + 2)
        tc, x = c.read_times(a, b), exact(c, a, b)[:, 0]
        if not len(tc):
            return t - s.start, f, np.full_like(f, np.nan)
        step = c.duration / max(1, c.n_samples)
        out = np.interp(t, tc, x)
        out[(t < tc[0] - 2 * step) | (t > tc[-1] + 2 * step)] = np.nan
        return t - s.start, f, out

    def tiles(self) -> Iterator[tuple[int, int]]:
        for i in range(0, self.source.n_samples, TILE_VALUES):
            yield i, min(i + TILE_VALUES, self.source.n_samples)

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
    method = method or ("both" if pair.control is not None else "exponential")
    if method != "exponential" and pair.control is None:
        raise InputError(f"derive: dff: channel {name!r} has no isosbestic channel, which method {method!r} needs: name it, or use method: exponential")
    t, f, c = pair.binned()
    decay = bleaching(t, f)
    if method == "exponential":
        return {"method": method, "decay": decay.tolist()}
    whole = fit_control(f, c)  # also refuses a control that does not change
    control_decay = bleaching(t, c)
    detrended = fit_control(f - bleaching_curve(t, decay), c - bleaching_curve(t, control_decay), intercept=False)
    if method == "both":
        fit, more = detrended, {"decay": decay.tolist(), "control_decay": control_decay.tolist(), "slope": detrended.slope}
        if not c.mean() > 0:
            note(f"dff: the isosbestic channel of {name!r} is {c.mean():.3g} on average, and light is positive: its bleaching cannot be told from it")
    else:
        fit, more = whole, {"intercept": whole.intercept, "slope": whole.slope, "detrended_slope": detrended.slope}
        if abs(whole.slope - detrended.slope) > _SLOPES_AGREE * max(abs(whole.slope), abs(detrended.slope)):
            note(
                f"dff: the isosbestic channel of {name!r} is fitted with a slope of {whole.slope:.3g}, but {detrended.slope:.3g} without the bleaching of the "
                "two: they bleach differently or share little else, and motion may come out wrong, even inverted; method: both avoids that"
            )
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
            try:
                fits[name] = _fit(pairs[-1], name, settings.method, note)
            except InputError as error:
                raise InputError(f"{recording.id}: derive: dff: channel {name!r}: {str(error).removeprefix('derive: dff: ')}") from None
        if pairs:
            values = Tiles((signal.n_samples, len(pairs)), TILE_VALUES, _Fitted(tuple(pairs), tuple(fits.values())))
            sources = list(dict.fromkeys([key, *(k for k, s in light.items() if any(c in s.names for c in chosen.values() if c))]))
            channels = signal.channels[signal.channels["name"].isin(chosen)]
            out[key] = like(signal, values, "photometry", "dF/F", channels, described("dff", sources, settings, fit=fits))
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
