"""Edges of digital words, whatever the chunk, and the pulses they make."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from brainmu.formats.digital import edges_of_words, pulses


@given(st.lists(st.integers(0, 7), min_size=1, max_size=60), st.integers(1, 70))
def test_edges_rebuild_every_line_whatever_the_chunk(words, chunk):
    w = np.array(words, dtype=np.int16)
    found = edges_of_words(w, {0: 10, 1: 11, 2: 12}, chunk=chunk)
    for bit in range(3):
        state = np.zeros(len(w), dtype=bool)
        if 10 + bit in found:
            for k, up in zip(*found[10 + bit], strict=True):
                state[k:] = up
        np.testing.assert_array_equal(state, (w >> bit) & 1 == 1)


def test_negative_words_are_bits_like_others():
    found = edges_of_words(np.array([0, -32768, 0], dtype=np.int16), {15: 15, 6: 6})
    assert {k: (a.tolist(), b.tolist()) for k, (a, b) in found.items()} == {15: ([1, 2], [True, False])}


def test_pulses_at_the_ends_and_lost_edges():
    e = pulses([1.0, 2.0, 3.0], [True, False, True], 5.0, line=2, first=0.0)
    assert (e.start.tolist(), e.stop.tolist(), e.attrs["open_stop"], e.attrs["open_start"]) == ([1, 3], [2, 5], 1, 0)
    e = pulses([1.0, 2.0, 3.0], [False, True, False], 5.0, line=2, first=0.5)
    assert (e.start.tolist(), e.stop.tolist(), e.attrs["open_start"]) == ([0.5, 2], [1, 3], 1)
    e = pulses([1.0, 2.0, 2.5], [True, True, False], 5.0, line=2)
    assert (e.start.tolist(), e.stop.tolist(), e.attrs["lost_edges"]) == ([1, 2], [2, 2.5], 1)
    assert len(pulses([], [], 5.0, line=1)) == 0
