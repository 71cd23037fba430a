"""Stimulation, cue and trial logs: columns by name, units by name, and yes or no where it must be."""

import numpy as np
import pandas as pd
import pytest

from brainmu.core import EventTable
from brainmu.errors import FormatError, InputError, NotFoundError
from brainmu.formats.eventlogs import read_events


def log(path, sep=",", **columns):
    pd.DataFrame(columns).to_csv(path, sep=sep, index=False)
    return path


def test_a_trial_log(tmp_path):
    path = log(
        tmp_path / "trials.csv", onset=[10.0, 20.0, 35.5], duration=[2, 2, 2], assigned=["yes", "no", "yes"], delivered=[1, 0, 0], probability=[0.5] * 3,
        block=["a", "a", "b"], content=["tone A", "", "tone B"], gate_time=[9.9, 19.9, 35.4],
    )  # fmt: skip
    t = read_events(path, kind="cue", start=100.0)
    assert t.start.tolist() == [110.0, 120.0, 135.5]
    assert t.stop.tolist() == [112.0, 122.0, 137.5]
    assert (t.assigned.tolist(), t.delivered.tolist()) == ([True, False, True], [True, False, False])
    assert (t.content.tolist(), t.block.tolist(), t.kind.tolist()) == (["tone A", "", "tone B"], ["a", "a", "b"], ["cue"] * 3)
    log(path, onset=[1.0], assigned=["sham"])
    with pytest.raises(InputError, match=r"column 'assigned' holds 'sham' \(1\), expected yes or no .*put arms in a column arm"):
        read_events(path)
    log(path, onset=[1.0], probability=[1.5])
    with pytest.raises(InputError, match=r"'probability' holds 1\.5"):
        read_events(path)


@pytest.mark.parametrize(
    ("columns", "options"),
    [
        ({"onset_ms": [1500.0], "end_ms": [1700.0]}, {}),
        ({"Time (s)": [1.5], "Duration (ms)": [200.0]}, {}),
        ({"timestamp": [1.5], "dur": [0.2]}, {}),
        ({"onset": [1500.0], "offset": [1700.0]}, {"time_unit": "ms"}),
        ({"onset_samples": [45000], "stop_samples": [51000]}, {"rate": 30000.0}),
        ({"TTL": [1.5], "off": [1.7]}, {"rename": {"start": "TTL"}}),
        ({"start_us": [1.5e6], "stop_us": [1.7e6]}, {"rename": {"start": "start_us", "stop": "stop_us"}}),
        ({"cue_ms": [1500.0], "long_s": [0.2]}, {"rename": {"onset": "cue_ms", "duration": "long_s"}}),
        ({"Start Time [s]": [1.5], "End_Time": [1.7]}, {}),
    ],
)
def test_spellings_and_units(tmp_path, columns, options):
    for name, sep in (("a.csv", ","), ("a.tsv", "\t"), ("b.csv", ";"), ("c.txt", "\t")):
        e = read_events(log(tmp_path / name, sep, **columns, laser=[5]), **options)
        assert (e.start.tolist(), e.stop.round(9).tolist(), e.laser.tolist()) == ([1.5], [1.7], [5])


def test_bids_and_back(tmp_path):
    e = EventTable([1.0, 2.0], [1.5, 2.0], kind=["ripple", "stim"], content=["A", ""], score=[1.5, np.nan])
    e.to_bids(tmp_path / "events.tsv")
    back = read_events(tmp_path / "events.tsv")
    pd.testing.assert_frame_equal(back.to_frame(), e.to_frame(), check_dtype=False)


def test_what_is_refused(tmp_path):
    with pytest.raises(InputError, match="has columns a, b, none of which is the onset"):
        read_events(log(tmp_path / "a.csv", a=[1], b=[2]))
    with pytest.raises(FormatError, match="row 2 has no time in column 'onset'"):
        read_events(log(tmp_path / "a.csv", onset=[1.0, None], b=[2, 3]))
    with pytest.raises(FormatError, match="holds 'soon' in row 2, expected numbers"):
        read_events(log(tmp_path / "a.csv", onset=["1.0", "soon"], b=[2, 3]))
    with pytest.raises(InputError, match=r"holds clock times .10:00:01"):
        read_events(log(tmp_path / "a.csv", onset=["10:00:01"], b=[2]))
    with pytest.raises(FormatError, match=r"event 0 stops at 1\.0 s before it starts at 3\.0 s"):
        read_events(log(tmp_path / "a.csv", onset=[3.0], stop=[1.0]))
    with pytest.raises(FormatError, match="contradict each other"):
        read_events(log(tmp_path / "a.csv", onset=[3.0], stop=[4.0], duration=[2.0]))
    with pytest.raises(InputError, match="says ms and time_unit is 's'"):
        read_events(log(tmp_path / "a.csv", onset_ms=[3.0]), time_unit="s")
    with pytest.raises(InputError, match=r"makes the column 'cue_ms' \(ms\) 'start_s' \(s\): give both the same unit"):
        read_events(log(tmp_path / "a.csv", cue_ms=[3.0]), rename={"start_s": "cue_ms"})
    with pytest.raises(InputError, match="says ms and time_unit is 's'"):
        read_events(log(tmp_path / "a.csv", cue_ms=[3.0]), rename={"start": "cue_ms"}, time_unit="s")
    with pytest.raises(InputError, match="two columns 'start' after rename"):
        read_events(log(tmp_path / "a.csv", start=[1.0], cue=[3.0]), rename={"start": "cue"})
    with pytest.raises(InputError, match="rename names the column 'x'"):
        read_events(log(tmp_path / "a.csv", onset=[3.0]), rename={"stop": "x"})
    with pytest.raises(NotFoundError):
        read_events(tmp_path / "none.csv")
    assert len(read_events(log(tmp_path / "a.csv", onset=[], duration=[]))) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("onset,dur\n1,2,3\n2,3\n", "not a table .*expected a header line and rows of as many cells"),
        ("1.0,2.0\n3.0,4.0\n", r"has columns 1\.0, 2\.0 \(is there a header line"),
        ("onset,self\n1,2\n", "a column is called 'self'"),
        ("onset,delivered\n1,\n2,1\n", "'missing' is neither"),
        ("onset;duration\n1,5;2,5\n", "holds '1,5' in row 1, expected numbers with a decimal point .it has a decimal comma"),
        ("onset,duration\n1,-2\n", "stops at .* before it starts"),
    ],
)
def test_tables_as_they_come(tmp_path, text, message):
    (tmp_path / "log.csv").write_text(text)
    with pytest.raises((FormatError, InputError), match=message):
        read_events(tmp_path / "log.csv")
