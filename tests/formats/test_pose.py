"""DeepLabCut csv and h5, SLEAP analysis h5, one animal and several."""

import json
import pickle

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
    assert any("holds 2 animals (0, 1), read number 0" in w for w in rec.warnings)
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


# -- several animals, frame times, DeepLabCut's h5 -----------------------------------------------------------------------
def _frame(animals=("m1", "m2"), n=60):
    rng = np.random.default_rng(3)
    levels = [["DLC_net"], list(animals), ["nose", "tail"], ["x", "y", "likelihood"]]
    names = ["scorer", "individuals", "bodyparts", "coords"]
    if not animals:
        levels, names = [levels[0], *levels[2:]], [names[0], *names[2:]]
    columns = pd.MultiIndex.from_product(levels, names=names)
    data = rng.uniform(5, 300, (n, len(columns)))
    data[:, 2::3] = 0.99
    data[7, 2] = 0.5
    return pd.DataFrame(data, columns=columns)


def _as_table(frame, path):
    """What DataFrame.to_hdf(format="table") writes, as far as a reader needs it (compared with pandas in the next test)."""
    columns = [tuple(map(str, c)) for c in frame.columns]
    with h5py.File(path, "w") as f:
        group = f.create_group("df_with_missing")
        group.attrs["pandas_type"] = np.bytes_(b"frame_table")
        group.attrs["non_index_axes"] = np.bytes_(pickle.dumps([(1, columns)], 0))
        group.attrs["info"] = np.bytes_(pickle.dumps({1: {"names": list(frame.columns.names), "type": "MultiIndex"}, "index": {}}, 0))
        rows = np.zeros(len(frame), dtype=[("index", "<i8"), ("values_block_0", "<f8", (len(columns),))])
        rows["index"], rows["values_block_0"] = frame.index, frame.to_numpy()
        group.create_dataset("table", data=rows).attrs["values_block_0_kind"] = np.bytes_(pickle.dumps(columns, 0))


def _as_fixed(frame, path):
    """What DataFrame.to_hdf() writes."""
    with h5py.File(path, "w") as f:
        group = f.create_group("df_with_missing")
        group.attrs["pandas_type"] = np.bytes_(b"frame")
        group.attrs["nblocks"] = 1
        for axis in ("axis0", "block0_items"):
            group.attrs[f"{axis}_nlevels"] = frame.columns.nlevels
            for k, name in enumerate(frame.columns.names):
                level = group.create_dataset(f"{axis}_level{k}", data=np.array([str(v).encode() for v in frame.columns.levels[k]]))
                level.attrs["name"] = np.bytes_(name.encode())
                group[f"{axis}_label{k}"] = np.asarray(frame.columns.codes[k], dtype="i1")
        group["axis1"] = frame.index.to_numpy()
        group["block0_values"] = frame.to_numpy()


@pytest.mark.parametrize("write", [_as_table, _as_fixed, lambda frame, path: frame.to_csv(path)])
@pytest.mark.parametrize("animals", [(), ("m1", "m2")])
def test_deeplabcut_in_every_layout(tmp_path, write, animals):
    frame = _frame(animals)
    path = tmp_path / ("vid.csv" if write.__name__ == "<lambda>" else "vid.h5")
    write(frame, path)
    assert sniff(path) == "pose"
    rec = read(path, rate=30, track=animals[-1] if animals else 0, part="tail")
    want = frame["DLC_net"][animals[-1]] if animals else frame["DLC_net"]
    np.testing.assert_allclose(rec.signals["position"].read(), want["tail"][["x", "y"]].to_numpy(), rtol=1e-5)
    if animals:
        every = read(path, rate=30, track="all")
        assert list(every.signals) == ["position_m1", "pose_m1", "position_m2", "pose_m2"]
        assert every.signals["position_m2"].attrs["animal"] == "m2"
        assert np.isnan(every.signals["pose_m1"].read(7, 8)).tolist() == [[True, True, False, False]]
        with pytest.raises(InputError, match=r"has no animal 'm3'; it has m1, m2 \(or all"):
            read(path, rate=30, track="m3")


@pytest.mark.parametrize("options", [{}, {"format": "table"}])
def test_deeplabcut_as_pandas_writes_it(tmp_path, options):
    pytest.importorskip("tables", reason="needs PyTables, with which pandas writes HDF5")
    frame = _frame()
    frame.to_hdf(tmp_path / "vid.h5", key="df_with_missing", mode="w", **options)
    ours = {}
    for name, write in (("table", _as_table), ("fixed", _as_fixed)):
        write(frame, tmp_path / f"{name}.h5")
        ours[name] = read(tmp_path / f"{name}.h5", rate=30, track="all")
    theirs = read(tmp_path / "vid.h5", rate=30, track="all")
    for rec in ours.values():
        for name, s in theirs.signals.items():
            np.testing.assert_array_equal(rec.signals[name].read(), s.read())


def test_sleap_says_its_axes(tmp_path, sleap):
    # The layout of sleap-io's preset "standard": frames first, the order of the axes in an attribute.
    path = tmp_path / "other.h5"
    with h5py.File(sleap) as f, h5py.File(path, "w") as g:
        g["tracks"] = np.asarray(f["tracks"]).transpose(3, 0, 2, 1)
        g["tracks"].attrs["dims"] = json.dumps(["frame", "track", "node", "xy"])
        g["node_names"] = f["node_names"][()]
        g["track_names"] = np.array([b"ann", b"bob"])
        scores = np.full((100, 2, 2), 0.9)
        scores[3, 0, 0] = 0.1
        g["point_scores"] = scores
        g["point_scores"].attrs["dims"] = json.dumps(["frame", "track", "node"])
    a, b = read(sleap, rate=25).signals["pose"].read(), read(path, rate=25, track="ann").signals["pose"].read()
    np.testing.assert_array_equal(a, b)
    masked = read(path, rate=25, likelihood=0.5).signals["pose"].read()
    assert np.argwhere(np.isnan(masked) & ~np.isnan(a)).tolist() == [[3, 0], [3, 1]]


def test_sleap_as_sleap_io_writes_it(tmp_path):
    sio = pytest.importorskip("sleap_io", reason="needs sleap-io, which writes SLEAP's files")
    skeleton = sio.Skeleton(nodes=["nose", "tail"])
    video = sio.Video(filename="v.mp4", open_backend=False)
    tracks = [sio.Track("ann"), sio.Track("bob")]
    frames = []
    for k in range(20):
        seen = [sio.PredictedInstance.from_numpy(XY[k] + 10 * i, skeleton=skeleton, track=t, score=0.9) for i, t in enumerate(tracks) if (k, i) != (4, 1)]
        frames.append(sio.LabeledFrame(video=video, frame_idx=k, instances=seen))
    for preset in ("matlab", "standard"):
        path = tmp_path / f"{preset}.h5"
        sio.save_analysis_h5(sio.Labels(frames), str(path), preset=preset)
        rec = read(path, rate=25, track="all", part="tail")
        np.testing.assert_allclose(rec.signals["position_ann"].read(), XY[:20, 1], rtol=1e-6)
        assert np.isnan(rec.signals["position_bob"].read()).all(axis=1).nonzero()[0].tolist() == [4]


def test_times_of_the_frames(csv, tmp_path):
    t = 5 + np.arange(100) / 25.0
    np.save(tmp_path / "t.npy", t)
    rec = read(csv, times="t.npy", start=1.0)
    assert (rec.signals["position"].rate, rec.signals["position"].start) == (25.0, 6.0)
    assert str((tmp_path / "t.npy").resolve()) in rec.source["files"]
    # Ten frames were dropped: a gap on the grid, and later frames keep their time.
    pd.DataFrame({"frame": range(100), "timestamp": 1000 * np.r_[t[:50], t[50:] + 10 / 25]}).to_csv(tmp_path / "t.csv", index=False)
    rec = read(csv, times=tmp_path / "t.csv", time_unit="ms")
    s = rec.signals["position"]
    assert (s.rate, s.n_samples, len(s.gaps)) == (25.0, 110, 1)
    assert np.isnan(s.read(50, 60)).all()
    assert any("dropped frames are missing" in w for w in rec.warnings)
    pd.DataFrame({"a": t, "b": t}).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(InputError, match="say which holds the time of each frame with time_column="):
        read(csv, times=tmp_path / "t.csv")
    assert read(csv, times=tmp_path / "t.csv", time_column="b").duration == pytest.approx(4.0)
    np.save(tmp_path / "t.npy", t[:-1])
    with pytest.raises(FormatError, match=r"100 frames, and t.npy has 99 times"):
        read(csv, times="t.npy")
    with pytest.raises(InputError, match="pass rate="):
        read(csv, times="t.npy", rate=25)


def test_missing_rows_and_foreign_tables(tmp_path):
    frame = _frame(())
    frame.iloc[[0, 1, 4, 5]].to_csv(tmp_path / "vid.csv")
    rec = read(tmp_path / "vid.csv", rate=10)
    assert np.isnan(rec.signals["pose"].read()).all(axis=1).nonzero()[0].tolist() == [2, 3]
    assert any("2 of 6 frames have no row" in w for w in rec.warnings)
    with h5py.File(tmp_path / "x.h5", "w") as f:
        f.create_group("g").attrs["pandas_type"] = np.bytes_(b"series")
    with pytest.raises(FormatError, match="holds no table that pandas wrote, it holds g"):
        read(tmp_path / "x.h5", rate=10, format="pose")
    _as_table(frame, tmp_path / "y.h5")
    with h5py.File(tmp_path / "y.h5", "a") as f:
        f["df_with_missing"].attrs["non_index_axes"] = np.bytes_(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(FormatError, match=r"it names os\.system"):
        read(tmp_path / "y.h5", rate=10)
    (tmp_path / "z.h5").write_bytes((tmp_path / "x.h5").read_bytes()[:700])
    with pytest.raises(FormatError, match=r"cannot be read \(.*copy it again"):
        read(tmp_path / "z.h5", rate=10, format="pose")
    with h5py.File(tmp_path / "none.h5", "w") as f:
        f["tracks"], f["node_names"] = np.zeros((0, 2, 1, 5)), np.array([b"nose"])
    with pytest.raises(FormatError, match="nothing was tracked"):
        read(tmp_path / "none.h5", rate=10)
