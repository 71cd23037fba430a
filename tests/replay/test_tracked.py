"""Samples with holes: every second is counted once or lies in a hole, and position and head direction share one rule."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from brainmu.replay.heading import HeadDirection
from brainmu.replay.position import Position
from brainmu.replay.tracked import GAP, dwell, in_hole, known, stretches


@given(st.lists(st.sampled_from([0.02, 0.1, GAP, 0.51, 3.0]), min_size=1, max_size=40), st.floats(0, 1e5))
def test_every_second_between_samples_is_dwelt_or_in_a_hole(steps, start) -> None:
    times = start + np.r_[0.0, np.cumsum(steps)]
    holes = np.diff(times)[np.diff(times) > GAP].sum()
    assert np.isclose(dwell(times).sum() + holes, times[-1] - times[0])
    assert np.isclose(known(times).duration, dwell(times).sum())
    assert [i for i, _ in stretches(times)] == [0, *[j for _, j in stretches(times)][:-1]] and stretches(times)[-1][1] == len(times)
    middles = (times[1:] + times[:-1]) / 2
    assert (in_hole(times, middles) == (np.diff(times) > GAP)).all()


def test_position_and_head_direction_have_the_same_holes() -> None:
    times = np.r_[np.arange(0, 10, 0.1), np.arange(12, 20, 0.1)]
    where = Position(times, times[:, None], np.zeros(len(times)), "m", ("x",))
    heading = HeadDirection(times, np.mod(times, 2 * np.pi), "hd")
    at = np.array([5.0, 11.0, 15.0])
    assert (np.isnan(where.at(at))[:, 0] == np.isnan(heading.at(at))).all() and np.isnan(heading.at(at)).tolist() == [False, True, False]
    assert (where.dwell == heading.dwell).all() and len(heading.known) == 2
