"""DeepLabCut csv and SLEAP analysis h5."""

import h5py
import numpy as np
import pandas as pd
import pytest

from brainmu.errors import FormatError, InputError
from brainmu.formats import read, sniff

XY = np.random.default_rng(0).uniform(10, 400, (100, 2, 2)).astype("f4")


@pytest.fixture
def csv(tmp_path):
    columns = pd.MultiIndex.from_product([["DLC_net"], ["nose", "tail"], ["x", "y", "likelihood"]], names=["scorer", "bodyparts", "coords"])
    data = np.concatenate([np.c_[XY[:, k], np.full(100, 0.99)] for k in range(2)], axis=1)
    data[:30, 2] = 0.1
    data[:5, 5] = 0.1
    path = tmp_path / "vid.csv"
    pd.DataFrame(data, columns=columns).to_csv(path)
    return path


@pytest.fixture
def sleap(tmp_path):
    path = tmp_path / "vid.analysis.h5"
    tracks = np.stack([XY.transpose(2, 1, 0)] * 2)
    tracks[0, :, 1, :40] = np.nan
    with h5py.File(path, "w") as f:
        f["tracks"] = tracks
        f["node_names"] = np.array([b"nose", b"tail"])
    return path


def test_deeplabcut(csv):
    assert sniff(csv) == "pose"
    rec = read(csv, rate=50, pixels_per_cm=10.0)
    p = rec.signals["position"]
    assert (p.rate, p.unit, p.names, p.attrs["part"], p.duration) == (50, "m", ["x", "y"], "tail", 2.0)
    np.testing.assert_allclose(p.read(5), XY[5:, 1] / 1000, rtol=1e-5)
    assert np.isnan(p.read(0, 5)).all()
    assert rec.signals["pose"].names == ["nose_x", "nose_y", "tail_x", "tail_y"]
    assert any("'tail', the part that is seen best (95% of frames)" in w for w in rec.warnings)
    assert read(csv, rate=50, part="nose", likelihood=0.0).signals["position"].read(0, 1).tolist() == XY[:1, 0].tolist()


def test_sleap(sleap):
    assert sniff(sleap) == "pose"
    rec = read(sleap, rate=25)
    assert (rec.signals["position"].attrs["part"], rec.signals["position"].unit) == ("nose", "px")
    np.testing.assert_array_equal(rec.signals["position"].read(), XY[:, 0])
    assert any("holds 2 animals, read number 0" in w for w in rec.warnings)
    with pytest.raises(InputError, match="pass track= below 2"):
        read(sleap, rate=25, track=2)


def test_what_must_be_said(csv, tmp_path):
    with pytest.raises(InputError, match="carry no time: pass rate="):
        read(csv)
    with pytest.raises(InputError, match="has no body part 'ear', it has nose, tail"):
        read(csv, rate=50, part="ear")
    csv.write_text("scorer,a\nbodyparts,nose\ncoords,x\n0,1\n")
    with pytest.raises(FormatError, match="lacks one of x, y, likelihood"):
        read(csv, rate=50)
    csv.write_text("scorer,a\nbodyparts,nose\n")
    with pytest.raises(FormatError, match=r"not a DeepLabCut table|holds no rows"):
        read(csv, rate=50)
