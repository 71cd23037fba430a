"""A map comes back from disk as it was."""

import numpy as np
import pytest
import xarray as xr

from brainmu.errors import FormatError, InputError, NotFoundError
from brainmu.explain.files import load_map, save_map


def test_round_trip(tmp_path):
    coords = {"time_lfp": ("time_lfp", np.arange(4.0), {"unit": "s"}), "channel_lfp": np.array(["CA1 µ", "b"], object), "band": np.array(["delta"], object)}
    lfp = xr.DataArray(np.random.default_rng(0).random((4, 2, 1)), dims=("time_lfp", "channel_lfp", "band"), coords=coords, attrs={"unit": "log odds"})
    lfp = lfp.assign_coords(region_lfp=("channel_lfp", np.array(["CA1", ""], object)))
    maps = xr.Dataset({"lfp": lfp}, attrs={"target": "REM", "stages": ["WAKE", "NREM", "REM"], "completeness_error": 0.01})
    back = load_map(save_map(maps, tmp_path / "m.nc"))
    xr.testing.assert_identical(back.drop_vars(list(back.coords)), maps.drop_vars(list(maps.coords)))
    assert back["channel_lfp"].to_numpy().tolist() == ["CA1 µ", "b"] and back["time_lfp"].attrs["unit"] == "s"
    assert back["lfp"].groupby("region_lfp").sum().sizes["region_lfp"] == 2 and back["region_lfp"].dims == ("channel_lfp",)


def test_refusals(tmp_path):
    with pytest.raises(InputError, match=r"\.nc"):
        save_map(xr.Dataset(), tmp_path / "m.zarr")
    with pytest.raises(NotFoundError, match="no such file"):
        load_map(tmp_path / "absent.nc")
    (tmp_path / "bad.nc").write_bytes(b"nonsense")
    with pytest.raises(FormatError, match="not a netCDF"):
        load_map(tmp_path / "bad.nc")
