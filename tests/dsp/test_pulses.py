"""Pairing pulses of two devices."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainmu.dsp.pulses import edges, match_pulses
from brainmu.errors import InputError


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), ppm=st.floats(-100, 100), offset=st.floats(-5000, 5000))
def test_irregular_pulses_are_paired_with_their_own(seed: int, ppm: float, offset: float) -> None:
    rng = np.random.default_rng(seed)
    true = np.cumsum(rng.uniform(0.5, 1.5, 400))
    own = (true - offset) / (1 + 1e-6 * ppm)
    mine, theirs = rng.random(400) > 0.05, rng.random(400) > 0.05
    m = match_pulses(own[mine], true[theirs])
    same = np.flatnonzero(mine)[m.own] == np.flatnonzero(theirs)[m.other]
    assert same.all()
    assert len(m.own) >= 0.99 * (mine & theirs).sum()


def test_regular_pulses_that_last_equally_long_begin_together() -> None:
    own = np.arange(500.0)
    m = match_pulses(own, own * (1 + 5e-5) + 123.4)
    assert (m.own == m.other).all()
    assert m.period == pytest.approx(1.0, abs=1e-3)


def test_a_pause_singles_out_the_offset_of_regular_pulses() -> None:
    true = np.delete(np.arange(900.0), np.r_[100:110, 400:420, 600:603])
    m = match_pulses(true[40:] - 55.5, true)
    assert len(m.own) == len(true) - 40
    assert (m.other == m.own + 40).all()


def test_regular_pulses_without_a_hint_are_refused_and_with_one_paired() -> None:
    true = np.arange(900.0)
    with pytest.raises(InputError, match=r"regular \(every 1 s\).*give a rough offset \(within 0.5 s\)"):
        match_pulses(true[40:600] - 55.5, true)
    m = match_pulses(true[40:600] - 55.5, true, offset=55.3)
    assert (m.other == m.own + 40).all()


@pytest.mark.parametrize(
    ("own", "other", "what"),
    [
        ([1.0, 2.0], [1.0, 2.0, 3.0], "own pulses: 2 of them, expected at least 3"),
        ([1.0, 3.0, 2.0], [1.0, 2.0, 3.0], r"do not increase at pulse 2 \(3.000000 then 2.000000 s\)"),
        ([1.0, np.nan, 2.0], [1.0, 2.0, 3.0], "1 times are NaN or infinite"),
    ],
)
def test_bad_trains(own: list[float], other: list[float], what: str) -> None:
    with pytest.raises(InputError, match=what):
        match_pulses(own, other)


def test_trains_of_different_sources_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"not of one *source"):
        match_pulses(np.cumsum(rng.uniform(0.5, 1.5, 1000)), np.cumsum(rng.uniform(0.5, 1.5, 1000)))


def test_edges_across_blocks_are_those_of_the_whole() -> None:
    trace = np.repeat([0, 5, 0, 5, 5, 0], 7)
    whole, _ = edges(trace, 2.5)
    first, last = edges(trace[:20], 2.5)
    second, _ = edges(trace[20:], 2.5, last=last)
    assert whole.tolist() == [*first, *(second + 20)] == [7, 21]
    assert edges(trace, 2.5, edge="both")[0].tolist() == [7, 14, 21, 35]
