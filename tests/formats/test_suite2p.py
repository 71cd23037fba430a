"""Suite2p folders, written as Suite2p does: numpy.save of arrays, of a list of dicts and of a dict."""

import datetime
import pickle

import numpy as np
import pytest

from brainmu.errors import FormatError, InputError
from brainmu.formats import read, sniff

N, T = 5, 300
RNG = np.random.default_rng(1)


def plane(folder, number=0, n_planes=1, fs=7.5, frames=T, **more):
    """One plane as suite2p.run_s2p leaves it; returns F, Fneu, spks."""
    folder.mkdir(parents=True)
    f, neu, spks = (RNG.gamma(3, 50, (N, frames)).astype(np.float32) for _ in range(3))
    iscell = np.c_[[1, 0, 1, 1, 0], [0.9, 0.1, 0.8, 0.7, 0.2]]
    stat = np.array([{"med": [10 + k, 20 + k], "ypix": np.arange(3), "iplane": number, "npix": np.int64(3), "radius": 2.5} for k in range(N)])
    ops = {"fs": fs, "nplanes": n_planes, "tau": 1.0, "date_proc": datetime.datetime(2024, 1, 1), "xrange": [0, 5], "meanImg": np.zeros((4, 4), "f4")} | more
    for name, value in (("F", f), ("Fneu", neu), ("spks", spks), ("iscell", iscell), ("stat", stat), ("ops", ops)):
        np.save(folder / f"{name}.npy", value, allow_pickle=True)
    return f, neu, spks


def test_one_plane(tmp_path):
    f, neu, spks = plane(tmp_path / "m1_day2" / "suite2p" / "plane0")
    for path in (tmp_path / "m1_day2", tmp_path / "m1_day2" / "suite2p", tmp_path / "m1_day2" / "suite2p" / "plane0"):
        rec = read(path)
        assert rec.id == "m1_day2"
    assert sniff(tmp_path / "m1_day2" / "suite2p") == "suite2p"
    c = rec.signals["calcium"]
    assert (c.rate, c.names, c.kind, c.attrs["neuropil"]) == (7.5, ["roi_0", "roi_2", "roi_3"], "calcium", 0.7)
    np.testing.assert_allclose(c.read(), (f - 0.7 * neu)[[0, 2, 3]].T, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(rec.signals["fluorescence"].read(10, 20), f[[0, 2, 3], 10:20].T)
    np.testing.assert_array_equal(rec.signals["deconvolved"].read(), spks[[0, 2, 3]].T)
    assert c.channels[["x", "y", "cell_probability"]].to_numpy().tolist() == [[20, 10, 0.9], [22, 12, 0.8], [23, 13, 0.7]]
    assert any("3 of 5 ROIs are cells by iscell.npy" in w for w in rec.warnings)
    assert len(rec.source["files"]) == 6
    every = read(path, cells_only=False, neuropil=0.5, traces=("corrected",))
    assert list(every.signals) == ["calcium"]
    np.testing.assert_allclose(every.signals["calcium"].read(), (f - 0.5 * neu).T, rtol=1e-5, atol=1e-4)
    assert not every.warnings


def test_planes_start_one_after_another(tmp_path):
    for k in range(3):
        plane(tmp_path / "suite2p" / f"plane{k}", k, 3, fs=10.0, frames=T - k)
    plane(tmp_path / "suite2p" / "combined", 2, 3, fs=10.0)
    rec = read(tmp_path / "suite2p", start=5.0)
    assert [rec.signals[f"calcium_plane{k}"].start for k in range(3)] == pytest.approx([5, 5 + 1 / 30, 5 + 2 / 30])
    assert rec.signals["calcium_plane1"].names[0] == "plane1_roi_0"
    assert "combined/ holds the same ROIs" in rec.source["notes"]
    alone = read(tmp_path / "suite2p" / "combined")
    assert any("up to 66.7 ms early" in w for w in alone.warnings)


def test_pickles_are_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            import os

            return os.mkdir, (str(tmp_path / "bang"),)

    folder = tmp_path / "plane0"
    plane(folder, bomb=Bomb())
    with pytest.raises(FormatError, match=r"more than numbers, text, lists and arrays \(it names (posix|nt)\.mkdir\).*pass rate="):
        read(folder)
    assert not (tmp_path / "bang").exists()
    (folder / "ops.npy").unlink()
    with pytest.raises(InputError, match=r"there is no frame rate \(no ops\.npy"):
        read(folder)
    assert read(folder, rate=12.0).signals["calcium"].rate == 12.0
    np.save(folder / "stat.npy", np.array([Bomb()] * N), allow_pickle=True)
    with pytest.raises(FormatError, match=r"move stat\.npy away"):
        read(folder, rate=12.0)
    (folder / "stat.npy").unlink()
    rec = read(folder, rate=12.0)
    assert np.isnan(rec.signals["calcium"].channels["x"]).all()
    assert any("ROIs have no place" in w for w in rec.warnings)
    assert not (tmp_path / "bang").exists()


def test_every_protocol_of_pickle(tmp_path):
    folder = tmp_path / "plane0"
    plane(folder)
    ops = np.load(folder / "ops.npy", allow_pickle=True)
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        with (folder / "ops.npy").open("wb") as f:
            np.lib.format.write_array_header_1_0(f, {"descr": "|O", "fortran_order": False, "shape": ()})
            pickle.dump(ops, f, protocol=protocol)
        assert read(folder).signals["calcium"].rate == 7.5


def test_parts_that_do_not_fit(tmp_path):
    folder = tmp_path / "plane0"
    f, *_ = plane(folder)
    np.save(folder / "Fneu.npy", f[:-1])
    with pytest.raises(FormatError, match=r"Fneu.npy: holds 4 ROIs and iscell.npy 5"):
        read(folder)
    np.save(folder / "Fneu.npy", f[:, :-1])
    with pytest.raises(FormatError, match=r"holds 299 frames and F.npy 300"):
        read(folder)
    (folder / "Fneu.npy").unlink()
    assert any("no Fneu.npy" in w for w in read(folder).warnings)
    np.save(folder / "iscell.npy", np.zeros((N, 2)))
    with pytest.raises(FormatError, match="none of 5 ROIs is called a cell"):
        read(folder)
    np.save(folder / "ops.npy", {"fs": "fast"}, allow_pickle=True)
    with pytest.raises(FormatError, match="fs is 'fast', expected a number"):
        read(folder, cells_only=False)
    plane(tmp_path / "plane1")
    folder = tmp_path / "plane1"
    (folder / "ops.npy").write_bytes((folder / "ops.npy").read_bytes()[:-200])
    with pytest.raises(FormatError, match="pickle is damaged"):
        read(folder, cells_only=False)
    with pytest.raises(InputError, match="neuropil is 7"):
        read(folder, neuropil=7)
