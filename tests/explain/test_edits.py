"""Edits remove what they say, and placebo edits are of equal size somewhere else."""

import numpy as np
import pytest

from brainmu.core import EventTable, Intervals, Recording
from brainmu.errors import InputError, MissingDataError
from brainmu.explain.edits import apply_edits
from brainmu.explain.operations import placebo_edits, removal_edits

RATE = 1250.0


@pytest.fixture
def planted():
    """Noise with a 180 Hz burst and a volley of spikes at 10 s."""
    rng = np.random.default_rng(0)
    t = np.arange(int(30 * RATE)) / RATE
    x = rng.standard_normal((len(t), 2)).cumsum(0) * 0.5
    x[:, 0] += 30 * np.sin(2 * np.pi * 180 * t) * np.exp(-0.5 * ((t - 10.05) / 0.015) ** 2)
    spikes = np.sort(np.r_[rng.uniform(0, 30, 300), rng.uniform(10.0, 10.1, 20)])
    rec = Recording.from_arrays(
        "a", signals={"lfp": dict(values=x.astype(np.float32), rate=RATE, unit="uV", kind="lfp")}, spikes=dict(times=spikes, unit=np.arange(320) % 7)
    )
    return rec, EventTable([10.0], [10.1])


def band_power(rec, start, stop):
    from scipy.signal import welch

    _, x = rec.signals["lfp"].span(start - 0.2, stop + 0.2)
    f, p = welch(x[:, 0], RATE, nperseg=len(x))
    return p[(f > 150) & (f < 210)].sum()


def test_removal_takes_the_ripple_and_the_spikes_and_nothing_else(planted):
    rec, events = planted
    edited = apply_edits(rec, removal_edits(rec, events))
    assert band_power(edited, 10, 10.1) < 0.05 * band_power(rec, 10, 10.1)
    assert len(edited.spikes.span(10.0, 10.1)[0]) == 0 and len(rec.spikes) - len(edited.spikes) == len(rec.spikes.span(10.0, 10.1)[0])
    before, after = rec.signals["lfp"].read(), edited.signals["lfp"].read()
    outside = (rec.signals["lfp"].read_times() < 9.98) | (rec.signals["lfp"].read_times() > 10.12)
    assert np.array_equal(before[outside], after[outside])
    # The slow part of the event stays.
    assert np.corrcoef(before[12500:12625, 1], after[12500:12625, 1])[0, 1] > 0.95


def test_slices_of_an_edited_signal_agree(planted):
    rec, events = planted
    s = apply_edits(rec, removal_edits(rec, events)).signals["lfp"]
    whole = s.read()
    for i, j in [(0, 100), (12490, 12510), (12550, 12700), (12620, 12621), (37490, 37500)]:
        assert np.array_equal(s.read(i, j), whole[i:j])


def test_placebo_has_equal_norm_duration_and_spikes_in_the_allowed_time(planted):
    rec, events = planted
    edits = removal_edits(rec, events)
    allowed = Intervals([[15, 25]])
    (placebo,) = placebo_edits(rec, edits, [allowed], np.random.default_rng(1))
    assert placebo.norm == pytest.approx(edits[0].norm) and placebo.stop - placebo.start == pytest.approx(0.1)
    assert len(placebo.drop) == len(edits[0].drop) and allowed.covers(placebo.start, placebo.stop).all()


def test_no_room_for_a_placebo_is_said(planted):
    rec, events = planted
    assert placebo_edits(rec, removal_edits(rec, events), [Intervals([[15, 15.05]])], np.random.default_rng(0)) == [None]


def test_refusals(planted):
    rec, events = planted
    with pytest.raises(InputError, match="spikes, ripple"):
        removal_edits(rec, events, what=["theta"])
    eeg = Recording.from_arrays("b", signals={"eeg": dict(values=np.zeros((100, 1)), rate=100.0, kind="eeg")})
    with pytest.raises(MissingDataError, match="nothing to remove"):
        removal_edits(eeg, events)
