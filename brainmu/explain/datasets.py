"""Maps as xarray: one variable a stream, in the recording's own coordinates, with units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from brainmu.core import Recording
from brainmu.explain.asking import Answer
from brainmu.explain.bands import BANDS
from brainmu.explain.checks import ATTENTION, SAME, similarity
from brainmu.explain.parts import Doors, Map

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["as_dataset", "with_rollout"]


def as_dataset(maps: Map, epochs: NDArray[np.float64], length: float, attrs: dict[str, Any], session: Recording) -> xr.Dataset:
    """Maps as one Dataset; the time of a stream counts from the start of the session, its steps within an epoch evenly. Regions stand beside channels and
    units where the session knows them."""
    import xarray as xr

    variables = {name: _variable(name, values, keys, modality, epochs, length, "log odds") for name, (values, keys, modality) in maps.items()}
    out = xr.Dataset(variables, attrs=attrs | {"epoch": length})
    for member in [str(d) for d in out.dims if d == "unit" or str(d).startswith("channel_")]:
        regions = _regions(session, member)
        if any(regions.values()):
            beside = "region_unit" if member == "unit" else member.replace("channel_", "region_", 1)
            out = out.assign_coords({beside: (member, np.array([regions.get(str(k), "") for k in out[member].to_numpy()], dtype=object))})
    return out


def _regions(session: Recording, member: str) -> dict[str, str]:
    """Region of each channel or unit of a dimension, by name; "" where unknown."""
    if member == "unit":
        units = session.spikes.units if session.spikes is not None else None
        return {} if units is None else dict(zip(units["id"].astype(str), units["region"].fillna("").astype(str)))
    signal = session.signals.get(member.removeprefix("channel_"))
    return {} if signal is None else dict(zip(signal.names, signal.channels["region"].fillna("").astype(str)))


def _variable(
    name: str, values: NDArray[np.float64], keys: tuple[str, ...], modality: str, epochs: NDArray[np.float64], length: float, unit: str
) -> xr.DataArray:  # fmt: skip
    import xarray as xr

    per = len(values) // len(epochs)
    times = (epochs[:, None] + np.arange(per) * (length / per)).ravel()
    coords: dict[str, Any] = {f"time_{name}": (f"time_{name}", times, {"unit": "s"})}
    if modality == "tap":
        dims: tuple[str, ...] = (f"time_{name}", *(("latent", "dimension") if values.ndim == 3 else ("dimension",)))
        coords |= {d: np.arange(n) for d, n in zip(dims[1:], values.shape[1:])}
        return xr.DataArray(values, dims=dims, coords=coords, attrs={"unit": unit, "modality": modality})
    member = "unit" if modality == "spikes" and unit != ATTENTION else f"channel_{name}"
    coords[member] = np.array(keys, dtype=object)
    dims = (f"time_{name}", member)
    if values.ndim == 3:
        dims = (*dims, "band")
        coords["band"] = np.array(list(BANDS), dtype=object)
    return xr.DataArray(values, dims=dims, coords=coords, attrs={"unit": unit, "modality": modality})


def with_rollout(out: xr.Dataset, doors: Doors, random: Doors | None, chosen: NDArray[np.intp], answer: Answer) -> xr.Dataset:
    """The map with attention rollout of the same epochs beside it, and what that is worth."""
    from brainmu.explain.rollout import rollout

    attention = rollout(doors.model, doors.grid, chosen)
    for name, (values, keys, modality) in attention.items():
        variable = _variable(f"attention_{name}", values, keys, modality, answer.times[chosen], answer.epoch, ATTENTION)
        out[f"attention_{name}"] = variable
    note = "attention rollout is not an attribution of the output: it says where the network reads, whatever the target"
    if random is not None:
        same = similarity(attention, rollout(random.model, random.grid, chosen))
        out.attrs["attention_randomised_weights_correlation"] = same
        worth = "so it shows the layout of the input and nothing that was learned" if same > SAME else "so part of it was learned"
        few = "; whether any of it was learned cannot be told: fewer than three parts stand beside those of random weights"
        note += f"; its rank correlation with that of random weights is {same:.2f}, {worth}" if np.isfinite(same) else few
    out.attrs["attention_note"] = note
    return out
