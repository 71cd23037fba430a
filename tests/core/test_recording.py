"""Signals, spikes and recordings: lazy reading, exact time, and errors that name the part."""

from datetime import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from brainmu.core import EventTable, Hypnogram, Intervals, Recording, Signal, Spikes
from brainmu.core.units import unit_factor
from brainmu.errors import InputError, MissingDataError


class Counting:
    """A lazy array that counts the samples read from it."""

    def __init__(self, values):
        self.values, self.read = values, 0
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, key):
        out = self.values[key]
        self.read += len(out)
        return out


def test_nothing_is_read_until_asked():
    lazy = Counting(np.arange(20.0).reshape(10, 2))
    rec = Recording.from_arrays("a", signals={"lfp": dict(values=lazy, rate=10.0, unit="uV", kind="lfp")})
    repr(rec)
    assert lazy.read == 0 and rec.duration == 1.0
    t, v = rec.signals["lfp"].pick(["lfp_1"]).span(0.3, 0.5)
    assert lazy.read == 2 and v.ravel().tolist() == [7, 9] and t.tolist() == pytest.approx([0.3, 0.4])


def test_integers_are_scaled_and_missing_ones_are_nan():
    s = Signal(np.array([[1, 10], [-32768, 20]], np.int16), rate=1.0, scale=[0.5, 2.0], missing=-32768, unit="µV")
    v = s.read()
    assert v[0].tolist() == [0.5, 20] and np.isnan(v[1, 0]) and v[1, 1] == 40 and s.unit == "uV"
    assert s.pick([1]).read().ravel().tolist() == [20, 40]


@given(st.sampled_from([1 / 30, 0.25, 60.0, 1250.0, 24414.0625]), st.floats(0, 1e5), st.integers(0, 500), st.integers(1, 100))
def test_span_finds_exactly_its_samples(rate, start, first, n):
    s = Signal(np.zeros((700, 1), np.float32), rate=rate, start=start)
    t = s.read_times()
    got, _ = s.span(t[first], t[first] + n / rate)
    assert len(got) == min(n, 700 - first) and got[0] == t[first]


def test_irregular_times():
    s = Signal(np.arange(3.0), times=[0.0, 0.5, 2.0], kind="position", unit="m")
    assert s.span(0.5, 2.0)[1].ravel().tolist() == [1] and s.rate is None
    with pytest.raises(InputError, match="do not increase at sample 2"):
        Signal(np.arange(3.0), times=[0.0, 2.0, 2.0])


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 5)), min_size=1))
def test_counts_keep_every_spike(spikes):
    t, u = map(np.array, zip(*spikes))
    s = Spikes(t, u)
    c = s.counts(np.arange(0, 102))
    assert c.sum() == len(t) and (c.sum(0) == [np.sum(u == i) for i in s.units["id"]]).all()


@given(st.lists(st.tuples(st.floats(-1, 5), st.integers(0, 3))), st.lists(st.tuples(st.floats(-1, 5), st.integers(0, 40))), st.sampled_from([0.002, 0.01, 0.1]))
def test_counts_of_many_windows_equal_those_of_each(spikes, windows, bin_size):
    on_edges = [(a + bin_size * k, 0) for a, n in windows for k in range(n + 1)]
    t, u = np.array(spikes + on_edges, dtype=float).reshape(-1, 2).T
    s = Spikes(t, u.astype(int), pd.DataFrame({"id": [3, 1, 0, 2]}))
    found = s.window_counts([a for a, _ in windows], [n for _, n in windows], bin_size)
    assert len(found) == len(windows)
    for c, (a, n) in zip(found, windows):
        assert np.array_equal(c, s.counts(a + bin_size * np.arange(n + 1)))


def test_spikes_are_sorted_and_picked():
    s = Spikes([3.0, 1.0, 2.0], [1, 2, 1])
    assert s.times.tolist() == [1, 2, 3] and s.unit_id.tolist() == [2, 1, 1] and s.span(1, 3)[0].tolist() == [1, 2]
    assert s.pick([1]).n_units == 1
    with pytest.raises(MissingDataError, match="unit 9"):
        s.pick([9])


@pytest.mark.parametrize(
    ("unit", "kind", "factor", "name"),
    [("mV", "", 1e3, "uV"), ("V", "lfp", 1e6, "uV"), ("μV", "", 1, "uV"), ("cm", "position", 0.01, "m"), ("a.u.", "", 1, "a.u.")],
)
def test_units(unit, kind, factor, name):
    assert unit_factor(unit, kind=kind) == (factor, name)


def test_labels_are_found_by_name_or_alone():
    h = Hypnogram.from_stages(["WAKE"], epoch=4)
    rec = Recording.from_arrays("a", labels={"scoring": h, "ripples": EventTable([0], [1])})
    assert rec.hypnogram() is h and rec.hypnogram("scoring") is h and len(rec.events()) == 1
    with pytest.raises(MissingDataError, match="no hypnogram named 'ripples', the recording has scoring"):
        rec.hypnogram("ripples")
    with pytest.raises(MissingDataError, match="score it first"):
        Recording.from_arrays("b").hypnogram()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: dict(signals={"lfp": dict(values=np.zeros((3, 2)), rate=0)}), "'lfp': signal rate is 0"),
        (lambda: dict(signals={"lfp": dict(values=np.zeros((3, 2)), rate=1.0, kind="lfq")}), "'lfp'.*'lfq' is not known"),
        (lambda: dict(signals={"lfp": dict(values=np.zeros((3, 2)), rate=1.0, channels=["a"])}), "1 channel names for 2"),
        (lambda: dict(signals={"lfp": dict(values=np.zeros((3, 2)), rate=1.0, channels=["a", "a"])}), "appears twice"),
        (lambda: dict(signals={"lfp": dict(values=np.zeros((3, 2, 2)), rate=1.0)}), "expected \\(time, channel\\)"),
        (lambda: dict(signals={"lfp": dict(values=np.array([["a"]]), rate=1.0)}), "expected numbers"),
        (lambda: dict(signals={"lfp": dict(data=np.zeros(3), rate=1.0)}), "'lfp'.*expected values"),
        (lambda: dict(spikes=dict(times=[0.0, np.nan], unit=[1, 1])), "1 NaN"),
        (lambda: dict(spikes=dict(times=[0.0], unit=[1, 1])), "one id a spike"),
        (lambda: dict(spikes=dict(times=[0.0], unit=[1.5])), "whole numbers"),
        (lambda: dict(labels={"x": [1, 2]}), "'x' is a list"),
        (lambda: dict(started_at=datetime(2026, 1, 1)), "time zone"),
    ],
)
def test_errors_name_the_part(make, says):
    with pytest.raises(InputError, match=says):
        Recording.from_arrays("a", **make())
    with pytest.raises(InputError, match="without slashes"):
        Recording.from_arrays("a/b")


def test_doubts_name_what_does_not_fit():
    eeg, slow = dict(values=np.zeros((2000, 1)), rate=200.0, kind="eeg"), dict(values=np.zeros((2000, 1)), rate=20.0, kind="emg")
    fits = Hypnogram.from_stages(["WAKE", "NREM"], epoch=4)
    assert Recording.from_arrays("a", signals={"eeg": eeg}, labels={"scoring": fits}).doubts() == []
    assert "check their rates" in Recording.from_arrays("a", signals={"eeg": eeg, "emg": slow}).doubts()[0]
    late, near = EventTable([5.0, 1500.0], [6.0, 1500.5]), EventTable([5.0, 60.0], [6.0, 69.0])
    labels = {"cues": late, "near": near, "run": Intervals([[0.0, 5000.0]])}
    said = Recording.from_arrays("a", signals={"eeg": eeg}, labels=labels, spikes=Spikes([1.0, 9e4], [0, 0])).doubts()
    assert [s.split(" and the signals end at 10 s: check time_unit")[0] for s in said] == [
        "label 'cues' ends at 1500 s", "label 'run' ends at 5000 s", "the last spike is at 90000 s",
    ]  # fmt: skip
    long = Hypnogram.from_stages(["WAKE", "NREM"], epoch=40)
    assert "check its epoch (40 s)" in Recording.from_arrays("a", signals={"eeg": eeg}, labels={"scoring": long}).doubts()[0]


def test_with_fields_changes_a_copy():
    labels = {"sleep": Intervals([[0.0, 1.0]])}
    rec = Recording("a", "m1", labels=labels, clocks={"lfp": {"ppm": 3.0}}, zeitgeber=2.0)
    other = rec.with_fields(id="b", source={"format": "edited"})
    other.labels["more"] = Intervals([[2.0, 3.0]])
    assert (other.id, other.subject, other.zeitgeber, other.clocks, other.source) == ("b", "m1", 2.0, rec.clocks, {"format": "edited"})
    assert rec.id == "a" and list(rec.labels) == ["sleep"] and other.labels["sleep"] is rec.labels["sleep"]
    with pytest.raises(InputError, match="non-empty name"):
        rec.with_fields(id="")
