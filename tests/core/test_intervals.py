"""Interval algebra against a brute-force grid, and the refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainmu.core import Intervals
from brainmu.errors import InputError

# Whole seconds, so that a grid of half-second points tells the truth about every interval.
spans = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 10)), max_size=8).map(lambda v: Intervals.merge([(a, a + d) for a, d in v]))
GRID = np.arange(0, 60, 0.5)


@given(spans, spans)
def test_algebra_agrees_with_membership(a, b):
    x, y = a.contains(GRID), b.contains(GRID)
    assert (a.union(b).contains(GRID) == (x | y)).all()
    assert (a.intersect(b).contains(GRID) == (x & y)).all()
    assert (a.subtract(b).contains(GRID) == (x & ~y)).all()
    inside = (GRID >= 5) & (GRID < 50)
    assert (a.complement(5, 50).contains(GRID) == (~x & inside)).all()


@given(spans, spans)
def test_durations_add_up(a, b):
    assert a.duration + b.duration == pytest.approx(a.union(b).duration + a.intersect(b).duration)
    assert a.subtract(b).duration == pytest.approx(a.duration - a.intersect(b).duration)


@given(st.lists(st.booleans(), max_size=50), st.sampled_from([0.25, 1.0, 1250.0]), st.floats(-100, 1e5))
def test_mask_round_trip(mask, rate, start):
    i = Intervals.from_mask(mask, rate, start)
    middle = start + (np.arange(len(mask)) + 0.5) / rate
    assert (i.contains(middle) == np.array(mask, dtype=bool)).all()


def test_half_open():
    assert Intervals([[1, 2]]).contains([1.0, 2.0, np.nan]).tolist() == [True, False, False]
    assert bool(Intervals([[1, 2]]).contains(1.5)) and not bool(Intervals().contains(1.5))


def test_touching_intervals_stay_apart_until_merged():
    touching = Intervals([[0, 1], [1, 2]])
    assert len(touching) == 2 and len(Intervals.merge(touching.bounds)) == 1
    assert touching.covers([0.5], [1.5]).all()
    assert not Intervals([[0, 1], [1.1, 2]]).covers([0.5], [1.5]).any()


def test_windows_fit_inside():
    assert Intervals([[0, 10], [20, 23]]).windows(4.0).tolist() == [0, 4] and Intervals([[0, 0.3]]).windows(0.1).tolist() == pytest.approx([0, 0.1, 0.2])
    assert Intervals([[0, 10]]).windows(4.0, 2.0).tolist() == [0, 2, 4, 6]


@pytest.mark.parametrize(
    ("bounds", "says"),
    [
        ([[0, 1, 2]], "expected \\(n, 2\\)"),
        ([[0, np.nan]], "finite"),
        ([[2, 1]], "stop > start"),
        ([[1, 1]], "stop > start"),
        ([[0, 2], [1, 3]], "Intervals.merge"),
        ([[5, 6], [1, 3]], "Intervals.merge"),
    ],
)
def test_refusals(bounds, says):
    with pytest.raises(InputError, match=says):
        Intervals(bounds)
