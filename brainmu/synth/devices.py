"""Devices beside the amplifier: a microscope, a fibre, and clocks of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from brainmu.core import EventTable, Recording
from brainmu.errors import InputError
from brainmu.synth.calcium import CalciumModel, PhotometryModel, calcium, chosen, photometry
from brainmu.synth.clocks import clock_models, on_clocks
from brainmu.synth.truth import Truth

__all__ = ["check_devices", "with_devices"]


def with_devices(
    rec: Recording, truth: Truth, *, calcium: Any = None, photometry: Any = None, clocks: Mapping[str, Any] | None = None, seed: int = 0
) -> tuple[Recording, Truth]:
    """The recording with light from its cells and streams on their devices' clocks, and the truth that knows of it; both are changed."""
    stop = rec.stop
    if (imaging := chosen(CalciumModel, calcium, "calcium")) is not None:
        _image(rec, truth, imaging, stop, seed)
    if (fibre := chosen(PhotometryModel, photometry, "photometry")) is not None:
        _fibre(rec, truth, fibre, stop, seed)
    if clocks is not None:
        rec, truth.clocks = on_clocks(rec, clocks, seed=seed)
        truth.parameters["clocks"] = {k: dict(m) if isinstance(m, Mapping) else dataclasses.asdict(m) for k, m in clocks.items()}
    return rec, truth


def check_devices(calcium: Any, photometry: Any, clocks: Any) -> None:
    """Refuse what the devices cannot be, before anything is simulated."""
    chosen(CalciumModel, calcium, "calcium")
    chosen(PhotometryModel, photometry, "photometry")
    if clocks is not None:
        clock_models(clocks)


def _image(rec: Recording, truth: Truth, model: CalciumModel, stop: float, seed: int) -> None:
    if truth.spikes is None:
        raise InputError(f"{rec.id}: calcium needs cells, the recording has none: give n_cells, or leave calcium out")
    signals, truth.calcium = calcium(truth.spikes, stop, model=model, seed=seed)
    rec.signals |= signals
    truth.parameters["calcium"] = dataclasses.asdict(model)


def _fibre(rec: Recording, truth: Truth, model: PhotometryModel, stop: float, seed: int) -> None:
    source: Any = truth.spikes if model.drive == "spikes" else rec.labels.get(model.drive)
    if source is None or (model.drive != "spikes" and not isinstance(source, EventTable)):
        have = [*(["spikes"] if truth.spikes is not None else []), *(k for k, v in rec.labels.items() if isinstance(v, EventTable))]
        raise InputError(f"{rec.id}: photometry is driven by {model.drive!r}, which the recording does not have; it has {', '.join(have) or 'no events'}")
    signals, truth.photometry = photometry(source, stop, model=model, seed=seed)
    rec.signals |= signals
    truth.parameters["photometry"] = dataclasses.asdict(model)
