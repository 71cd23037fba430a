"""Every operation does what it says, and its placebo is of equal duration, norm and number of spikes."""

import numpy as np
import pytest

from brainmu.core import EventTable, Intervals, Recording
from brainmu.errors import InputError, MissingDataError
from brainmu.explain.edits import apply_edits
from brainmu.explain.operations import OPERATIONS, operation_of
from brainmu.explain.placing import Places, choose

RATE = 1250.0
EVENTS = EventTable([20.0, 60.0, 90.0], [20.1, 60.12, 90.08], content=["A", "B", "A"])


@pytest.fixture(scope="module")
def planted():
    """Noise, 180 Hz bursts with a volley of units 0-2 at the events, and units 0-6 at low rate throughout."""
    rng = np.random.default_rng(0)
    t = np.arange(int(120 * RATE)) / RATE
    x = rng.standard_normal((len(t), 2)).cumsum(0) * 0.2 + rng.standard_normal((len(t), 2))
    times, units = [rng.uniform(0, 120, 2000)], [rng.integers(0, 7, 2000)]
    for a, b in zip(EVENTS.start, EVENTS.stop):
        x[:, 0] += 30 * np.sin(2 * np.pi * 180 * t) * np.exp(-0.5 * ((t - (a + b) / 2) / 0.02) ** 2)
        times.append(rng.uniform(a, b, 25))
        units.append(rng.integers(0, 3, 25))
    signals = {"lfp": dict(values=x.astype(np.float32), rate=RATE, unit="uV", kind="lfp")}
    return Recording.from_arrays("a", signals=signals, spikes=dict(times=np.concatenate(times), unit=np.concatenate(units)))


def places(ahead=1):
    return Places.of(np.ones(30, bool), 0.0, 4.0, ahead, EVENTS)


def made(planted, name, what=("spikes", "ripple"), seed=0, **settings):
    rng = np.random.default_rng(seed)
    op = operation_of(name, planted, ("spikes",) if name == "permute" else what, EVENTS, places().room, rng, **settings)
    ends = places().destinations(list(EVENTS.start), list(EVENTS.duration), rng) if op.second_place else [None] * 3
    return op, [op.edit(a, b, d) for a, b, d in zip(EVENTS.start, EVENTS.stop, ends)], rng


def power(rec, start, stop):
    _, x = rec.signals["lfp"].span(start - 0.1, stop + 0.1)
    p = np.abs(np.fft.rfft(x[:, 0] * np.hanning(len(x)))) ** 2
    f = np.fft.rfftfreq(len(x), 1 / RATE)
    return p[(f > 160) & (f < 200)].sum()


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("seed", range(4))
def test_placebo_is_of_equal_duration_norm_and_spikes_away_from_events(planted, name, seed):
    op, edits, rng = made(planted, name, seed=seed)
    starts, crowded = places(1).draw([e.stop - e.start for e in edits], rng)
    assert crowded == 0 and min(np.diff(np.sort(starts))) >= 8.0
    ends = places().destinations(starts, list(EVENTS.duration), rng) if op.second_place else [None] * 3
    for edit, start, end in zip(edits, starts, ends):
        placebo = op.placebo(edit, start, end)
        assert placebo.norm == pytest.approx(edit.norm, rel=1e-4) and (edit.norm > 0) == (name != "permute")
        assert placebo.stop - placebo.start == pytest.approx(edit.stop - edit.start)
        if name == "shift":
            assert len(placebo.twin.put_times) == len(edit.twin.put_times)
        elif name != "replace":  # what comes in from elsewhere is as many spikes as were there
            assert len(placebo.put_times) == len(edit.put_times)
        if name != "insert":
            assert len(placebo.drop) == len(edit.drop)
        assert not places().bouts.subtract(places().room).contains([p.start for p in placebo.places()]).any()


def test_nothing_outside_the_event_changes(planted):
    t = planted.signals["lfp"].read_times()
    for name in ("remove", "replace", "scale"):
        _, edits, _ = made(planted, name)
        inside = np.any([(t > a - 0.02) & (t < b + 0.02) for a, b in zip(EVENTS.start, EVENTS.stop)], axis=0)
        after = apply_edits(planted, edits)
        assert np.array_equal(after.signals["lfp"].read()[~inside], planted.signals["lfp"].read()[~inside])
        assert (after.signals["lfp"].read()[inside] != planted.signals["lfp"].read()[inside]).any()


def test_replace_leaves_neither_ripple_nor_volley(planted):
    _, edits, _ = made(planted, "replace")
    after = apply_edits(planted, edits)
    for a, b in zip(EVENTS.start, EVENTS.stop):
        assert power(after, a, b) < 0.1 * power(planted, a, b)
        assert len(after.spikes.span(a, b)[0]) < 0.5 * len(planted.spikes.span(a, b)[0])


def test_shift_moves_ripple_and_spikes_within_the_bout(planted):
    _, edits, _ = made(planted, "shift")
    after = apply_edits(planted, edits)
    assert len(after.spikes) == len(planted.spikes) and (np.bincount(after.spikes.unit_id) == np.bincount(planted.spikes.unit_id)).all()
    for e in edits:
        assert power(after, e.start, e.stop) < 0.1 * power(planted, e.start, e.stop)
        assert power(after, e.twin.start, e.twin.stop) == pytest.approx(power(planted, e.start, e.stop), rel=0.2)
        moved = after.spikes.span(e.twin.start, e.twin.stop)[0] - e.twin.start
        assert np.allclose(moved, planted.spikes.span(e.start, e.stop)[0] - e.start, atol=1e-9)


def test_permute_keeps_times_and_rates_and_changes_identity(planted):
    _, edits, _ = made(planted, "permute")
    after = apply_edits(planted, edits)
    assert np.array_equal(after.spikes.times, planted.spikes.times)
    for a, b in zip(EVENTS.start, EVENTS.stop):
        before, now = planted.spikes.span(a, b)[1], after.spikes.span(a, b)[1]
        assert (np.bincount(before, minlength=7) == np.bincount(now, minlength=7)).all() and (before != now).any()


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_scale_multiplies_ripple_and_spikes(planted, factor):
    _, edits, _ = made(planted, "scale", factor=factor)
    after = apply_edits(planted, edits)
    n = [sum(len(r.spikes.span(a, b)[0]) for a, b in zip(EVENTS.start, EVENTS.stop)) for r in (planted, after)]
    assert n[1] / n[0] == pytest.approx(factor, rel=0.35)
    assert power(after, 20, 20.1) / power(planted, 20, 20.1) == pytest.approx(factor**2, rel=0.2)


def test_insert_puts_in_the_ripple_and_the_units_of_its_model(planted):
    op, _, rng = made(planted, "insert")
    (start,), _ = places().draw([0.1], rng)
    after = apply_edits(planted, [op.edit(start, start + 0.1)])
    assert power(after, start, start + 0.1) > 5 * power(planted, start, start + 0.1)
    assert op.loudness["lfp"][1] == pytest.approx(180, abs=5)
    # Units 0-2 fire in the events that it is modelled on; the others hardly.
    assert op.rates[:3].min() > 3 * op.rates[3:].max()


def test_no_place_is_no_edit(planted):
    everywhere = EventTable([0.0], [120.0])
    nowhere = Places.of(np.ones(30, bool), 0.0, 4.0, 1, everywhere)
    assert nowhere.draw([0.1], np.random.default_rng(0)) == ([None], 0)
    assert operation_of("replace", planted, "both", EVENTS, nowhere.room, np.random.default_rng(0)).edit(20.0, 20.1) is None
    assert operation_of("shift", planted, "both", EVENTS, nowhere.room, np.random.default_rng(0)).edit(20.0, 20.1) is None


def test_crowded_places_are_counted(planted):
    starts, crowded = places(20).draw([0.1] * 4, np.random.default_rng(0))
    assert None not in starts and crowded >= 1


def test_destinations_stay_in_the_bout_and_out_of_read_outs():
    at_risk = np.ones(30, bool)
    at_risk[10:15] = False
    p = Places.of(at_risk, 0.0, 4.0, 2, EVENTS)
    for seed in range(20):
        for start, place in zip(EVENTS.start, p.destinations(list(EVENTS.start), list(EVENTS.duration), np.random.default_rng(seed))):
            assert (place < 40) == (start < 40) and p.bouts.contains([place])[0]
            assert not any(a <= place // 4 <= a + 1 for a in (6, 16, 23))


def test_chosen_events_do_not_reach_into_each_other():
    rng = np.random.default_rng(0)
    for ahead in (1, 3):
        at = np.sort(rng.uniform(0, 400, 150))
        chosen = choose(EventTable(at, at + 0.1), 0.0, 4.0, np.ones(100, bool), ahead, 1000, rng)
        assert len(chosen) > 5 and np.diff(np.floor(chosen.start / 4)).min() > ahead


def test_refusals(planted):
    rng, none = np.random.default_rng(0), Intervals()
    with pytest.raises(InputError, match="expected one of remove, replace"):
        operation_of("delete", planted, "both", EVENTS, none, rng)
    with pytest.raises(InputError, match="leaves them out"):
        operation_of("permute", planted, "ripple", EVENTS, none, rng)
    with pytest.raises(InputError, match="factor is 1"):
        operation_of("scale", planted, "both", EVENTS, none, rng, factor=1.0)
    silent = Recording.from_arrays("b", signals={"lfp": dict(values=np.zeros((1000, 1)), rate=RATE, kind="lfp")})
    with pytest.raises(MissingDataError, match="no spikes"):
        operation_of("permute", silent, "spikes", EVENTS, none, rng)
