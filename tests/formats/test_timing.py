"""Time stamps become a rate only where they are even."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainmu.errors import FormatError
from brainmu.formats.timing import as_grid, lay_out, seconds


@given(st.floats(0.1, 40000), st.floats(-1e4, 1e6), st.integers(3, 2000))
def test_even_times_give_back_rate_and_start(rate, start, n):
    grid = as_grid(start + np.arange(n) / rate)
    # Float64 seconds at 1e6 s step by 1e-10 s, which is 4e-6 of a 40 kHz sample.
    assert grid is not None
    assert grid.rate == pytest.approx(rate, rel=1e-5)
    assert grid.start == start
    assert len(grid.first) == 1


def test_a_missing_piece_is_a_gap():
    index = np.r_[0:1000, 1500:3000]
    laid = lay_out(np.arange(2500.0)[:, None], 10 + index / 1250)
    assert laid["rate"] == 1250
    assert laid["gaps"].bounds.tolist() == [[10.8, 11.2]]
    assert laid["values"].shape == (3000, 1)
    assert laid["values"][999, 0] == 999
    assert np.isnan(laid["values"][1000:1500]).all()
    assert laid["values"][1500, 0] == 1000


def test_a_clock_that_runs_fast_keeps_its_rate():
    grid = as_grid(np.arange(100_000) / (1250 * (1 + 32e-6)))
    assert grid is not None
    assert grid.rate == pytest.approx(1250.04, abs=1e-6)


@pytest.mark.parametrize("times", [[0.0, 1.0], [0, 1, 1, 2], [0, 2, 1, 3], np.cumsum(np.random.default_rng(0).exponential(size=50))])
def test_uneven_times_stay(times):
    assert as_grid(times) is None


def test_units_of_time():
    np.testing.assert_allclose(seconds([1500], "ms", None, "f"), [1.5])
    np.testing.assert_allclose(seconds([30000], "samples", 20000.0, "f"), [1.5])
    with pytest.raises(FormatError, match="give rate"):
        seconds([1], "samples", None, "f")
    with pytest.raises(FormatError, match="expected one of s, ms"):
        seconds([1], "seconds", None, "f")
