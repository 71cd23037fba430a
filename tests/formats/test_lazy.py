"""Lazy arrays read the same rows as the whole array would give, by any key."""

import pickle

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainmu.errors import FormatError
from brainmu.formats.lazy import Calibrated, H5Rows, OnDemand, RawRows, Spread, Stacked

X = np.arange(60, dtype=np.int16).reshape(20, 3)


def _raw(tmp_path, order):
    path = tmp_path / f"x_{order}.bin"
    path.write_bytes(b"head" + X.tobytes(order=order))
    return RawRows(path, "<i2", (20, 3), order, 4)


def _h5(tmp_path, time_last):
    path = tmp_path / f"x_{time_last}.h5"
    with h5py.File(path, "w") as f:
        f["x"] = X.T if time_last else X
    return H5Rows(path, "x", time_last=time_last)


@pytest.fixture(params=["C", "F", "h5", "h5_time_last", "on_demand", "stacked"])
def lazy(request, tmp_path):
    match request.param:
        case "C" | "F":
            return _raw(tmp_path, request.param)
        case "h5":
            return _h5(tmp_path, False)
        case "h5_time_last":
            return _h5(tmp_path, True)
        case "on_demand":
            return OnDemand((20, 3), np.int16, X.copy)
        case _:
            return Stacked([X[:, :1], X[:, 1:]])


@pytest.mark.parametrize(
    "key",
    [
        slice(None),
        slice(3, 7),
        slice(7, 3),
        slice(None, None, 4),
        slice(None, None, -1),
        slice(-5, None),
        4,
        -1,
        [0, 5, 19],
        [-1, 2],
        (slice(2, 9), [0, 2]),
        (3, 1),
    ],
)
def test_any_key_reads_what_numpy_reads(lazy, key):
    np.testing.assert_array_equal(lazy[key], X[key])


def test_mask_and_bounds(lazy):
    mask = np.arange(20) % 3 == 0
    np.testing.assert_array_equal(lazy[mask], X[mask])
    with pytest.raises(IndexError, match="20 is outside the 20"):
        lazy[20]


def test_pickled_arrays_read_on(tmp_path):
    for a in (_raw(tmp_path, "F"), _h5(tmp_path, True)):
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(a))[2:5], X[2:5])


def test_a_file_cut_after_opening_is_an_error(tmp_path):
    a = _raw(tmp_path, "C")
    a.path.write_bytes(b"short")
    with pytest.raises(FormatError, match="changed since it was opened"):
        a[:]


def test_calibrated_keeps_24_bits():
    digital = np.array([[8_388_607], [-8_388_608], [1]], dtype=np.int32)
    out = Calibrated(digital, [0.03125], [0.5])[:]
    np.testing.assert_allclose(out[:, 0], [262144.46875, -262143.5, 0.53125], rtol=1e-7)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 6)), min_size=1, max_size=6), st.data())
def test_spread_is_the_dense_array(pieces, data):
    first, at = [], 0
    for gap, n in pieces:
        first.append(at + gap)
        at += gap + n
    length = np.array([n for _, n in pieces])
    base = np.arange(2 * length.sum(), dtype=float).reshape(-1, 2)
    dense = np.full((at, 2), np.nan)
    source = 0
    for f, n in zip(first, length, strict=True):
        dense[f : f + n] = base[source : source + n]
        source += n
    spread = Spread(base, np.array(first), length)
    i = data.draw(st.integers(0, at))
    j = data.draw(st.integers(i, at))
    np.testing.assert_array_equal(spread[i:j], dense[i:j].astype(np.float32))
