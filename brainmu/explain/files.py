"""Attribution maps on disk: netCDF, readable by any tool of the field."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from brainmu.errors import FormatError, InputError, NotFoundError

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["check_suffix", "load_map", "save_map"]


def check_suffix(path: str | Path) -> Path:
    """The path of a map that is to be written. Raises InputError where it does not end in .nc: told before the work, not after."""
    p = Path(path)
    if p.suffix != ".nc":
        raise InputError(f"{p}: attribution maps are written as netCDF: end the name in .nc")
    return p


def save_map(maps: xr.Dataset, path: str | Path) -> Path:
    """Write a map as netCDF (3, through scipy; the suffix must be .nc). Attributes become text or numbers.

    Raises InputError for another suffix.
    """
    p = check_suffix(path)
    flat = maps.copy()
    # netCDF 3 knows text and numbers only; a list of stages is a text with spaces.
    flat.attrs = {k: " ".join(map(str, v)) if isinstance(v, (list, tuple)) else v for k, v in maps.attrs.items() if v is not None}
    texts = {n: c for n, c in flat.coords.items() if c.dtype == object}
    flat = flat.assign_coords({n: (c.dims, c.to_numpy().astype("U")) for n, c in texts.items()})
    partial = p.with_name(p.name + ".partial")
    flat.to_netcdf(partial, engine="scipy")
    partial.replace(p)
    return p


def load_map(path: str | Path) -> xr.Dataset:
    """Read what :func:`save_map` wrote. Raises NotFoundError or FormatError."""
    import xarray as xr

    p = Path(path)
    if not p.exists():
        raise NotFoundError(f"{p}: no such file, expected an attribution map (.nc)")
    try:
        with xr.open_dataset(p, engine="scipy") as opened:
            maps = opened.load()
    except (OSError, ValueError, TypeError) as error:
        raise FormatError(f"{p}: not a netCDF file ({error}), expected an attribution map written by brainmu attribute") from None
    for name in ("stages", "planted"):
        if isinstance(maps.attrs.get(name), str):
            maps.attrs[name] = maps.attrs[name].split()
    return maps
