"""Every array file opens by shape, reads right, and fails with its name and the fix."""

import tracemalloc

import h5py
import numpy as np
import pytest
import scipy.io

from brainmu.errors import FormatError, NotFoundError
from brainmu.formats.arrays import load_array, members, open_array
from brainmu.formats.sources import ArrayFile

X = np.random.default_rng(0).standard_normal((200, 3)).astype(np.float32)


def _write(tmp_path, name):
    path = tmp_path / name
    match path.suffix:
        case ".npy":
            np.save(path, X)
        case ".npz":
            np.savez(path, x=X, y=X[:, :1]) if "raw" in name else np.savez_compressed(path, x=X)
        case ".mat":
            if "v73" in name:
                with h5py.File(path, "w", userblock_size=512) as f:
                    f["x"] = X.T
                    f["s/inner"] = X.T
                with path.open("r+b") as f:
                    f.write(b"MATLAB 7.3 MAT-file")
            else:
                scipy.io.savemat(path, {"x": X, "s": {"inner": X}})
        case ".csv":
            path.write_text("a,b,c\n" + "\n".join(",".join(map(repr, map(float, r))) for r in X) + "\n")
        case ".txt":
            path.write_text("[C3-A1]\n" + "\n".join("  ".join(map(repr, map(float, r))) for r in X) + "\n\n")
        case ".h5":
            with h5py.File(path, "w") as f:
                f["x"] = X
        case ".bin":
            X.tofile(path)
    return path


CASES = [
    ("a.npy", {}), ("a.npz", {"key": "x"}), ("raw.npz", {"key": "x"}), ("a.mat", {"key": "x"}), ("a.mat", {"key": "s.inner"}), ("v73.mat", {"key": "x"}),
    ("v73.mat", {"key": "s.inner"}), ("a.csv", {}), ("a.txt", {"skiprows": 1}), ("a.h5", {}), ("a.bin", {"dtype": "float32", "n_channels": 3}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "options"), CASES)
def test_reads_what_was_written(tmp_path, name, options):
    path = _write(tmp_path, name)
    a = open_array(path, ArrayFile(name, **options))
    assert a.shape == (200, 3)
    np.testing.assert_allclose(a[50:60], X[50:60], rtol=1e-6)
    np.testing.assert_allclose(np.asarray(load_array(path, ArrayFile(name, **options)), dtype=float).reshape(200, 3), X, rtol=1e-6)


@pytest.mark.parametrize(("name", "options"), [c for c in CASES if c[0] not in ("a.csv", "a.txt", "a.bin")])
def test_transpose_reads_channel_by_time(tmp_path, name, options):
    path = _write(tmp_path, name)
    a = open_array(path, ArrayFile(name, transpose=True, **options))
    assert a.shape == (3, 200)
    np.testing.assert_allclose(a[1:3], X.T[1:3], rtol=1e-6)


def test_columns_of_tables_and_arrays(tmp_path):
    csv = _write(tmp_path, "a.csv")
    np.testing.assert_allclose(open_array(csv, ArrayFile("a.csv", columns=["c", "a"]))[:], X[:, [2, 0]], rtol=1e-6)
    with pytest.raises(FormatError, match=r"has no column 'd', it has a, b, c"):
        open_array(csv, ArrayFile("a.csv", columns=["d"]))
    npy = _write(tmp_path, "a.npy")
    np.testing.assert_array_equal(open_array(npy, ArrayFile("a.npy", columns=[2, 0]))[3:5], X[3:5, [2, 0]])
    with pytest.raises(FormatError, match="indices from 0 to 2"):
        open_array(npy, ArrayFile("a.npy", columns=["c"]))


def test_channel_by_channel_files_and_headers(tmp_path):
    path = tmp_path / "f.bin"
    path.write_bytes(b"\0" * 16 + X.T.copy().tobytes())
    a = open_array(path, ArrayFile("f.bin", dtype="<f4", n_channels=3, order="F", header_bytes=16))
    np.testing.assert_array_equal(a[7:9], X[7:9])


def test_more_than_two_axes(tmp_path):
    x = np.arange(120.0).reshape(20, 3, 2)
    for order in ("C", "F"):
        path = tmp_path / f"{order}.npy"
        np.save(path, np.asarray(x, order=order))
        with pytest.raises(FormatError, match="flatten: true"):
            open_array(path, ArrayFile(path.name))
        np.testing.assert_array_equal(open_array(path, ArrayFile(path.name, flatten=True))[:], x.reshape(20, 6))


def test_members_names_what_a_file_holds(tmp_path):
    assert members(_write(tmp_path, "raw.npz"))["y"][0] == (200, 1)
    assert members(_write(tmp_path, "a.csv"))[""] == ((200, 3), "table: a, b, c")
    assert members(_write(tmp_path, "v73.mat"))["s/inner"][0] == (3, 200)


def test_cells_of_spike_times(tmp_path):
    cells = np.empty((1, 2), dtype=object)
    cells[0, 0], cells[0, 1] = np.array([1.0, 2.0]), np.array([3.0])
    scipy.io.savemat(tmp_path / "u.mat", {"u": cells})
    out = load_array(tmp_path / "u.mat", ArrayFile("u.mat"))
    assert [c.ravel().tolist() for c in out.ravel()] == [[1.0, 2.0], [3.0]]


@pytest.mark.parametrize(
    ("name", "content", "options", "message"),
    [
        ("e.npy", b"", {}, "is empty"),
        ("e.npy", b"\x93NUMPY", {}, "not a .npy file"),
        ("e.npz", b"PK nonsense", {}, "damaged"),
        ("e.mat", b"not matlab" * 30, {}, "not readable as a MATLAB file"),
        ("e.h5", b"\x89HDF\r\n\x1a\n" + b"x" * 100, {}, "not readable as HDF5"),
        ("e.csv", b"a,b\n1,2\n3,four\n", {}, "row 2, expected numbers"),
        ("e.csv", b"a,b\n", {}, "no rows"),
        ("e.txt", b"\xff\xfe\x00\x81", {}, "not a text table"),
        ("e.bin", b"12345", {"dtype": "int16", "n_channels": 2}, "not a multiple of 4 .2 channels of int16"),
        ("e.bin", b"1234", {"dtype": "int16"}, "give n_channels"),
        ("e.bin", b"1234", {"dtype": "int17", "n_channels": 1}, "expected a NumPy type"),
        ("e.doc", b"1234", {}, "is not an array file"),
    ],
)
def test_bad_files_name_themselves_and_the_fix(tmp_path, name, content, options, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        open_array(tmp_path / name, ArrayFile(name, **options))[:]
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_truncated_arrays(tmp_path):
    for name, key in (("a.npy", None), ("raw.npz", "x"), ("a.mat", "x"), ("a.h5", None), ("v73.mat", "x")):
        path = _write(tmp_path, name)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
        with pytest.raises(FormatError, match=r"truncated|damaged|not readable"):
            open_array(path, ArrayFile(name, key=key))[:]


def test_wrong_shapes_and_types(tmp_path):
    np.save(tmp_path / "wide.npy", X.T)
    with pytest.raises(FormatError, match="say transpose: true"):
        open_array(tmp_path / "wide.npy", ArrayFile("wide.npy"))
    assert open_array(tmp_path / "wide.npy", ArrayFile("wide.npy", transpose=False)).shape == (3, 200)
    np.save(tmp_path / "text.npy", np.array(["W", "N1"]))
    with pytest.raises(FormatError, match="expected numbers"):
        open_array(tmp_path / "text.npy", ArrayFile("text.npy"))
    np.save(tmp_path / "none.npy", np.empty((0, 3)))
    with pytest.raises(FormatError, match="holds no samples"):
        open_array(tmp_path / "none.npy", ArrayFile("none.npy"))
    np.save(tmp_path / "obj.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(FormatError, match="pickled"):
        open_array(tmp_path / "obj.npy", ArrayFile("obj.npy"))


def test_missing_files_and_keys_name_the_nearest(tmp_path):
    _write(tmp_path, "raw.npz")
    with pytest.raises(NotFoundError, match=r"did you mean raw.npz"):
        open_array(tmp_path / "raww.npz", ArrayFile("raww.npz"))
    with pytest.raises(NotFoundError, match=r"the folder .* does not exist"):
        open_array(tmp_path / "no" / "x.npy", ArrayFile("x.npy"))
    with pytest.raises(FormatError, match=r"holds 2 arrays .x, y.: say which"):
        open_array(tmp_path / "raw.npz", ArrayFile("raw.npz"))
    with pytest.raises(FormatError, match="has no array 'xx'"):
        open_array(tmp_path / "raw.npz", ArrayFile("raw.npz", key="xx"))


def test_opening_ten_gigabytes_reads_no_samples(tmp_path):
    """Sparse files of 10 GB: opened and one span read with a few MB."""
    raw = tmp_path / "big.bin"
    with raw.open("wb") as f:
        f.truncate(10 * 2**30)
    npy = tmp_path / "big.npy"
    with npy.open("wb") as f:
        np.lib.format.write_array_header_1_0(f, {"descr": "<f4", "fortran_order": False, "shape": (2**30, 2)})
        f.truncate(f.tell() + 8 * 2**30)
    h5 = tmp_path / "big.h5"
    with h5py.File(h5, "w") as f:
        f.create_dataset("x", shape=(2**31, 2), dtype="<i2")
    tracemalloc.start()
    try:
        for path, options in ((raw, {"dtype": "int16", "n_channels": 64}), (raw, {"dtype": "int16", "n_channels": 64, "order": "F"}), (npy, {}), (h5, {})):
            a = open_array(path, ArrayFile(path.name, **options))
            assert a.shape[0] > 2**20
            assert a[10**6 : 10**6 + 1000].shape == (1000, a.shape[1])
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()
