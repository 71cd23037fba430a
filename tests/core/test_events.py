"""Event tables: free columns, overlap, merging, matching, BIDS."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainmu.core import EventTable, Intervals
from brainmu.core.events import match_events
from brainmu.errors import FormatError, InputError, NotFoundError

spans = st.lists(st.tuples(st.integers(0, 100), st.integers(1, 20)), max_size=15).map(lambda v: np.array([(a, a + d) for a, d in v], float).reshape(-1, 2))


def test_columns_and_attrs_are_attributes():
    e = EventTable([0, 1], [1, 3], content=["A", "B"], kind="replay", attrs={"decoding_error": {"median": 3}}, p_value=[0.1, 0.2], arm="stim")
    assert e.p_value.tolist() == [0.1, 0.2] and e.arm.tolist() == ["stim", "stim"] and e.decoding_error["median"] == 3
    assert e.peak.tolist() == [0.5, 2] and e.kind.tolist() == ["replay", "replay"]
    with pytest.raises(AttributeError, match="p_value"):
        e.q_value  # noqa: B018


def test_order_and_overlap_are_kept():
    e = EventTable([5, 1, 2], [6, 4, 3])
    assert e.start.tolist() == [5, 1, 2] and e.sorted().start.tolist() == [1, 2, 5]


@given(spans)
def test_merge_covers_the_same_time(b):
    e = EventTable(b[:, 0], b[:, 1])
    m = e.merge()
    assert m.intervals() == e.intervals() and len(m) == len(m.intervals())


def test_merge_keeps_the_row_of_highest_score():
    m = EventTable([0, 1, 5], [2, 3, 6], score=[1.0, 9.0, 2.0], content=["x", "y", "z"]).merge()
    assert m.content.tolist() == ["y", "z"] and m.start.tolist() == [0, 5] and m.stop.tolist() == [3, 6]
    assert len(EventTable([0, 1.5], [1, 2]).merge(gap=0.5)) == 1


@given(spans, spans, st.sampled_from([0.1, 0.2, 0.5]))
def test_matching_is_one_to_one_and_good_enough(a, b, iou):
    pairs = match_events(a, b, iou)
    assert len(set(pairs[:, 0].tolist())) == len(pairs) == len(set(pairs[:, 1].tolist()))
    for i, j in pairs:
        inter = min(a[i, 1], b[j, 1]) - max(a[i, 0], b[j, 0])
        assert inter / (max(a[i, 1], b[j, 1]) - min(a[i, 0], b[j, 0])) >= iou
    # Greedy matching is maximal: nothing that could still be paired is left.
    for i in set(range(len(a))) - set(pairs[:, 0].tolist()):
        for j in set(range(len(b))) - set(pairs[:, 1].tolist()):
            inter = min(a[i, 1], b[j, 1]) - max(a[i, 0], b[j, 0])
            assert inter <= 0 or inter / (max(a[i, 1], b[j, 1]) - min(a[i, 0], b[j, 0])) < iou


@given(spans)
def test_matching_itself_is_perfect(b):
    b = np.unique(b, axis=0)
    assert len(match_events(b, b, 0.99)) == len(b)


def test_within():
    e = EventTable([0, 2, 5, 9.5], [1, 2, 7, 11])
    assert e.within(Intervals([[0, 6], [9, 20]])).start.tolist() == [0, 2, 9.5]


def test_bids_round_trip(tmp_path):
    e = EventTable([0.125, 3.5], [0.25, 3.5], peak=[0.2, 3.5], kind=["ripple", "cue"], content=["", "B"], score=[1.5, np.nan])
    e.to_bids(tmp_path / "events.tsv")
    back = EventTable.from_bids(tmp_path / "events.tsv")
    pd.testing.assert_frame_equal(back.to_frame()[e.columns], e.to_frame(), check_dtype=False)


def test_bids_unknown_content_stays_empty_text(tmp_path):
    e = EventTable([0.1, 3.5], [0.2, 3.6], kind="ripple")
    e.to_bids(tmp_path / "events.tsv")
    assert EventTable.from_bids(tmp_path / "events.tsv").content.tolist() == ["", ""]


def test_bids_missing_duration_is_a_point(tmp_path):
    (tmp_path / "e.tsv").write_text("onset\tduration\ttrial_type\n1.5\tn/a\tcue\n")
    assert EventTable.from_bids(tmp_path / "e.tsv").duration.tolist() == [0]


def test_refusals(tmp_path):
    with pytest.raises(InputError, match="before it starts"):
        EventTable([1], [0])
    with pytest.raises(InputError, match="NaN"):
        EventTable([np.nan], [0])
    with pytest.raises(InputError, match="'score' has shape"):
        EventTable([0, 1], [1, 2], score=[1.0])
    with pytest.raises(NotFoundError, match="no such file"):
        EventTable.from_bids(tmp_path / "absent.tsv")
    (tmp_path / "bad.tsv").write_text("time\tlength\n1\t2\n")
    with pytest.raises(FormatError, match="expected onset and duration"):
        EventTable.from_bids(tmp_path / "bad.tsv")
    (tmp_path / "empty.tsv").write_text("")
    with pytest.raises(FormatError, match="tab-separated"):
        EventTable.from_bids(tmp_path / "empty.tsv")
