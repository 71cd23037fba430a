from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainmu.dsp.artefacts import Findings, examine, join, limits_only


def in_blocks(x: np.ndarray, borders: list[int], flat: int, absent: int | None = None) -> Findings:
    edges = sorted({0, len(x), *(b for b in borders if 0 < b < len(x))})
    parts = []
    for a, b in itertools.pairwise(edges):
        lo, hi = max(0, a - flat), min(len(x), b + flat)
        parts.append(examine(x[lo:hi], lo, inner=(a, b), flat=flat, absent=absent))
    return join(parts)


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_findings_do_not_depend_on_the_blocks(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 300))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    x = rng.integers(-3, 4, (n, 2)).astype(np.float32)
    for _ in range(data.draw(st.integers(0, 4))):
        a = int(rng.integers(0, n))
        x[a : a + int(rng.integers(1, 60)), int(rng.integers(0, 2))] = rng.choice([np.nan, 1.0, 9.0, np.inf])
    flat = data.draw(st.integers(3, 40))
    borders = data.draw(st.lists(st.integers(1, max(1, n - 1)), max_size=6))
    one, many = in_blocks(x, [], flat), in_blocks(x, borders, flat)
    assert (one.missing, one.flat, one.at_low, one.at_high, one.count) == (many.missing, many.flat, many.at_low, many.at_high, many.count)
    np.testing.assert_array_equal(one.low, many.low)
    np.testing.assert_allclose(one.deviation, many.deviation, equal_nan=True)


def test_each_fault_is_found_where_it_was_planted() -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((20000, 5)) * 300).astype(np.int16)
    x[3000:3600, 1] = 17
    x[5000:5100, 2] = -32768
    x[:, 3] = 4
    x[[100, 101, 102, 103, 9000, 9001, 9002, 9003], 4] = 32767
    found = limits_only(in_blocks(x, [3300, 9001], flat=500, absent=-32768), rails=(-32767, 32767))
    assert found.flat == [[], [(3000, 3600)], [], [(0, 20000)], []]
    assert found.missing == [[], [], [(5000, 5100)], [], []]
    assert found.saturated == [[], [], [], [], [(100, 104), (9000, 9004)]]
    assert found.dead.tolist() == [False, False, False, True, False]
    assert found.deviation[0] == pytest.approx(300, rel=0.02)


def test_clipped_floats_are_saturated_and_a_single_plateau_is_not() -> None:
    t = np.arange(20000) / 1000
    clipped = np.clip(np.sin(2 * np.pi * t), -0.9, 0.9)
    plateau = np.sin(2 * np.pi * t) * 0.5
    plateau[5250:5260] = 0.7
    found = limits_only(in_blocks(np.c_[clipped, plateau].astype(np.float32), [7777], flat=500))
    assert len(found.saturated[0]) == 40 and found.saturated[1] == []
    assert found.flat == [[], []]


def test_plain_noise_has_no_findings() -> None:
    x = np.random.default_rng(1).standard_normal((50000, 4)).astype(np.float32)
    found = limits_only(in_blocks(x, [20000], flat=500))
    assert not any(found.missing) and not any(found.flat) and not any(found.saturated) and not found.dead.any()
