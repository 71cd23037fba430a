"""Labs: the same animals through different instruments, units, names and habits."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from brainmu.config import suggest
from brainmu.core import Recording, Signal
from brainmu.core.limits import number, whole
from brainmu.errors import InputError
from brainmu.synth.native import FORMATS, write
from brainmu.synth.native.blocks import VOLTAGES
from brainmu.synth.recording import recording
from brainmu.synth.truth import Truth

__all__ = ["LABS", "Lab"]

_UNITS = {"uV": 1.0, "mV": 1e-3, "V": 1e-6}
_PLACES = {"m": 1.0, "cm": 100.0, "mm": 1000.0}
_LOOKS, _LOOK = 4, 2048  # places where the converter's range is tried, and samples at each


@dataclass(frozen=True)
class Lab:
    """What a lab's recordings have in common. All values are assumptions, typical of the instruments that the presets are named after.

    Parameters
    ----------
    name : str
        Of the instrument, never of a person.
    species : {"mouse", "rat", "human"}
    n_channels, n_cortex, n_cells : int
        LFP (or EEG) channels, cortical channels and cells.
    lfp_rate : float, Hz
        Any rate that the hardware divides down to, such as 24414.0625 / 24.
    epoch : float, s
        Of the scorer.
    hum_frequency : float, Hz
        Mains: 50 or 60.
    unit : {"uV", "mV", "V"}
        Of the voltages.
    step : float, uV
        One step of the converter: samples are int16 counts with a scale. 0: floats. A step that clips most samples or makes nearly all of them 0 is refused
        when a recording is made, as far as a few places of each signal show; one that clips 1 % or makes half of them 0 is noted.
    names : str
        Pattern of the channel names: {i} counts from 0, {n} from 1, {region} and {shank} (from 1).
    kind : {"", "eeg"}
        Screws over the cortex instead of a probe: LFP channels are called EEG.
    spacing, per_shank : float, um, and int
        Distance between sites along a shank, and sites on each (0: one shank).
    regions : mapping of region to str
        What the lab calls CA1, CTX, BLA, …
    position_unit : {"m", "cm", "mm", "px"}
    pixels : float, px/m
        Of the camera, where the unit is px.
    format : str
        Native format that :meth:`write` writes: one of those of :func:`brainmu.synth.write`.
    zeitgeber : float or None, h
        Hours since lights on when recording starts; None keeps the model's.
    scorer : mapping
        Habits of the scorer: fields of :class:`ScorerModel`.
    clocks : mapping
        Devices on clocks of their own, as for :func:`recording`.
    parameters : mapping
        Anything else that :func:`recording` takes.
    """

    name: str
    species: str = "mouse"
    n_channels: int = 4
    n_cortex: int = 1
    n_cells: int = 40
    lfp_rate: float = 1250.0
    epoch: float = 4.0
    hum_frequency: float = 50.0
    unit: str = "uV"
    step: float = 0.0
    names: str = "{region}_{n}"
    kind: str = ""
    spacing: float = 50.0
    per_shank: int = 0
    regions: Mapping[str, str] = field(default_factory=dict)
    position_unit: str = "m"
    pixels: float = 400.0
    format: str = "manifest"
    zeitgeber: float | None = None
    scorer: Mapping[str, Any] = field(default_factory=dict)
    clocks: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name or not all(c.isalnum() or c in "-_" for c in self.name):
            raise InputError(f"lab name is {self.name!r}, expected letters, digits, - and _")
        for key, allowed in (("unit", (*_UNITS,)), ("position_unit", (*_PLACES, "px")), ("kind", ("", "eeg")), ("format", (*FORMATS,))):
            if getattr(self, key) not in allowed:
                value = getattr(self, key)
                raise InputError(f"lab {self.name!r}: {key} is {value!r}{suggest(str(value), allowed)}, expected one of {', '.join(map(repr, allowed))}")
        for key in ("regions", "scorer", "clocks", "parameters"):
            if not isinstance(getattr(self, key), Mapping):
                raise InputError(f"lab {self.name!r}: {key} is {getattr(self, key)!r}, expected a mapping")
        if not all(isinstance(x, str) for pair in self.regions.items() for x in pair):
            raise InputError(f"lab {self.name!r}: regions is {self.regions!r}, expected names of regions and what the lab calls them")
        if not isinstance(self.names, str):
            raise InputError(f"lab {self.name!r}: names is {self.names!r}, expected a pattern such as '{{region}}_{{n}}'")
        number("step", self.step)
        number("spacing", self.spacing)
        number("pixels", self.pixels, above=True)
        whole("per_shank", self.per_shank)
        try:
            names = {self.names.format(i=i, n=i + 1, region="CA1", shank=1) for i in range(3)}
        except (KeyError, IndexError, ValueError, AttributeError, TypeError) as error:
            raise InputError(f"lab {self.name!r}: names is {self.names!r} ({error}), expected a pattern of {{i}}, {{n}}, {{region}} and {{shank}}") from None
        if len(names) < 3:
            raise InputError(f"lab {self.name!r}: names is {self.names!r}, expected {{i}} or {{n}} in it, so that channels differ")

    def arguments(self) -> dict[str, Any]:
        """What :func:`recording` is told."""
        own: dict[str, Any] = {"species": self.species, "n_channels": self.n_channels, "lfp_rate": self.lfp_rate, "epoch": self.epoch}
        if self.species != "human":
            own |= {"n_cortex": self.n_cortex, "n_cells": self.n_cells}
            own |= {} if self.zeitgeber is None else {"zeitgeber": self.zeitgeber}
        return own | {"hum_frequency": self.hum_frequency} | dict(self.scorer) | ({"clocks": dict(self.clocks)} if self.clocks else {}) | dict(self.parameters)

    def recording(self, hours: float = 2.0, seed: int = 0, **parameters: Any) -> tuple[Recording, Truth]:
        """A recording of this lab, and its truth (which speaks of µV, metres and the names of the model).

        Examples
        --------
        >>> rec, truth = LABS["neuropixels"].recording(hours=0.1, n_cells=8)
        >>> rec.signals["lfp"].unit, str(rec.signals["lfp"].values.dtype), rec.signals["lfp"].names[0]
        ('uV', 'int16', 'LF0')
        """
        rec, truth = recording(hours, seed, **(self.arguments() | parameters))
        truth.parameters["lab"] = dataclasses.asdict(self)
        return self.convert(rec), truth

    def write(self, recording: Recording, folder: str | Path, *, overwrite: bool = False) -> Path:
        """:func:`brainmu.synth.write` in the lab's own format.

        Examples
        --------
        >>> import tempfile
        >>> rec, _ = LABS["telemetry"].recording(hours=0.1)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     LABS["telemetry"].write(rec, folder).name
        'synth_mouse_0.edf'
        """
        return write(recording, folder, format=self.format, overwrite=overwrite)

    def convert(self, rec: Recording) -> Recording:
        """The recording in the lab's units, counts, names and regions; signals stay lazy.

        Raises
        ------
        InputError
            If the converter's step does not fit the signals.
        """
        doubts = [self._doubt(k, s) for k, s in rec.signals.items() if self.step and s.kind in VOLTAGES and s.n_samples]
        out = copy.copy(rec)
        out.signals = {k: self._converted(s) for k, s in rec.signals.items()}
        out.source = rec.source | {"lab": self.name}
        if any(doubts):
            out.source["warnings"] = list(rec.warnings)
            for sentence in filter(None, doubts):
                out.warn(sentence)
        out.subject_meta = rec.subject_meta | {"lab": self.name}
        if rec.spikes is not None and self.regions:
            out.spikes = copy.copy(rec.spikes)
            out.spikes.units = rec.spikes.units.assign(region=[self.regions.get(str(r), r) for r in rec.spikes.units["region"]])
        return out

    def _doubt(self, name: str, s: Signal) -> str:
        """What is wrong with the converter's step for a signal (uV), at a few places of it; "" where it fits."""
        x = np.concatenate([s.read(i, i + _LOOK) for i in np.linspace(0, max(0, s.n_samples - _LOOK), _LOOKS).astype(int).tolist()])
        x = np.abs(x[np.isfinite(x)])
        if not len(x):
            return ""
        top = 32767 * self.step
        clipped, lost = float((x > top).mean()), float(((x > 0) & (x < self.step / 2)).mean())
        said = f"lab {self.name!r}: step is {self.step:g} uV"
        if clipped > 0.01:
            said += f", which clips {clipped:.0%} of the samples of {name} that were looked at to +-{top:.3g} uV"
        elif lost > 0.5:
            said += f", which makes {lost:.0%} of the samples of {name} that were looked at 0"
        else:
            return ""
        if clipped > 0.5 or lost > 0.99:
            typical = float(np.sqrt(np.mean(x.astype(np.float64) ** 2)))
            raise InputError(f"{said}: expected about {10 * typical / 32767:.2g} to {typical / 4:.2g} uV (or 0 for floats)")
        return said

    def _converted(self, s: Signal) -> Signal:
        table = s.channels.copy()
        table["region"] = [self.regions.get(str(r), r) for r in table["region"]]
        if s.kind == "position":
            factor = self.pixels if self.position_unit == "px" else _PLACES[self.position_unit]
            return dataclasses.replace(s, values=_Converted(s, factor, 0.0), scale=1.0, missing=None, unit=self.position_unit, channels=table)
        if s.kind not in VOLTAGES:
            return dataclasses.replace(s, channels=table)
        kind = s.kind
        if kind == "lfp":
            table = self._sites(table)
            kind = self.kind or kind
            table["kind"] = kind
        if self.step:
            values: Any = _Converted(s, 1.0, self.step)
            return dataclasses.replace(s, values=values, scale=self.step * _UNITS[self.unit], missing=values.missing, unit=self.unit, kind=kind, channels=table)
        return dataclasses.replace(s, values=_Converted(s, _UNITS[self.unit], 0.0), scale=1.0, missing=None, unit=self.unit, kind=kind, channels=table)

    def _sites(self, table: pd.DataFrame) -> pd.DataFrame:
        """Names by the lab's pattern and, for a probe, where the sites lie (um; x across the shanks, y the depth)."""
        n = np.arange(len(table))
        shank = n // self.per_shank if self.per_shank else np.zeros(len(n), dtype=int)
        names = [self.names.format(i=i, n=i + 1, region=r, shank=g + 1) for i, r, g in zip(n, table["region"], shank)]
        table = table.assign(name=names)
        if self.kind == "eeg":
            return table
        deep = n - shank * self.per_shank if self.per_shank else n
        return table.assign(group=shank + 1, x=200.0 * shank, y=self.spacing * deep, z=0.0)


class _Converted:
    """Samples of a signal times a factor (float32), or as steps of a converter (int16, -32768 where missing); (time, channel), lazy."""

    missing = -32768

    def __init__(self, signal: Signal, factor: float, step: float) -> None:
        self.signal, self.factor, self.step = signal, factor, step
        self.shape = (signal.n_samples, signal.n_channels)
        self.dtype = np.dtype(np.int16 if step else np.float32)

    def __getitem__(self, key: Any) -> NDArray[Any]:
        rows, columns = (key[0], key[1:]) if isinstance(key, tuple) else (key, ())
        scalar = isinstance(rows, (int, np.integer))
        if scalar:
            rows = slice(int(rows) % self.shape[0], int(rows) % self.shape[0] + 1)
        if isinstance(rows, slice):
            i, j, step = rows.indices(self.shape[0])
            x = self.signal.read(i, max(i, j))[::step]
        else:
            wanted = np.flatnonzero(rows) if np.asarray(rows).dtype == bool else np.asarray(rows)
            x = np.concatenate([self.signal.read(int(k), int(k) + 1) for k in wanted] or [np.empty((0, self.shape[1]), np.float32)])
        x = x * np.float32(self.factor)
        if self.step:
            counts = np.clip(np.rint(x / np.float32(self.step)), -32767, 32767)
            x = np.where(np.isnan(counts), self.missing, counts).astype(np.int16)
        x = x[0] if scalar else x
        return x[columns if scalar else (slice(None), *columns)] if columns else x


_PRESETS = (
    Lab("silicon-probe", "rat", 8, 1, 60, names="ch{i:03d}", step=0.195, per_shank=4, spacing=20.0, regions={"CTX": "S1"}, position_unit="cm",
        format="neurosuite", scorer={"scorer_error": 0.02}, clocks={"camera": {"streams": ("position",), "ppm": 38.0, "pulses": "barcode", "interval": 5.0}}),
    Lab("neuropixels", "mouse", 12, 4, 80, lfp_rate=2500.0, hum_frequency=60.0, names="LF{i}", step=4.6875, spacing=20.0, position_unit="mm",
        regions={"CA1": "CA1so", "CTX": "VISp"}, format="nwb", scorer={"min_bout": 8.0}),
    Lab("tetrode-drive", "mouse", 6, 0, 30, lfp_rate=30000 / 24, hum_frequency=60.0, unit="mV", names="TT{shank}_{n}", per_shank=2, spacing=0.0,
        position_unit="px", epoch=4.0, scorer={"scorer_error": 0.05},
        clocks={"camera": {"streams": ("position",), "ppm": -21.0, "offset": 12.5, "pulses": "random"}}),
    Lab("telemetry", "mouse", 1, 2, 0, lfp_rate=500.0, unit="V", names="EEG{n}", kind="eeg", epoch=10.0, format="edf", scorer={"scorer_error": 0.03},
        parameters={"run_minutes": 0.0}),
    Lab("tank-and-fibre", "mouse", 2, 1, 20, lfp_rate=24414.0625 / 24, hum_frequency=60.0, unit="V", names="{region}-{n}", position_unit="px",
        scorer={"min_bout": 8.0, "scorer_error": 0.02}, parameters={"photometry": True},
        clocks={"fibre": {"streams": ("photometry",), "ppm": 55.0, "offset": -4.2}}),
    Lab("miniscope", "mouse", 1, 1, 50, lfp_rate=1000.0, names="{region}_{n}", position_unit="cm", parameters={"calcium": {"frame_rate": 20.0}},
        clocks={"scope": {"streams": ("calcium", "neuropil"), "ppm": -60.0, "offset": 1.9, "lost": 1}}),
    Lab("sleep-clinic", "human", 6, 0, 0, lfp_rate=256.0, epoch=30.0, names="{region}_{n}", step=0.1, format="edf", scorer={"disagreement": 1.0}),
)  # fmt: skip

LABS: dict[str, Lab] = {lab.name: lab for lab in _PRESETS}
"""Made-up but typical labs, by their instrument."""


def find_lab(lab: str | Lab) -> Lab:
    """A lab by its name, or the lab itself."""
    if isinstance(lab, Lab):
        return lab
    if lab not in LABS:
        raise InputError(f"lab is {lab!r}{suggest(str(lab), LABS)}, expected a Lab or one of {', '.join(LABS)}")
    return LABS[lab]
