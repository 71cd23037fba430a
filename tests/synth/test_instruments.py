from __future__ import annotations

import numpy as np
import pytest

import brainmu.synth as synth
from brainmu.errors import InputError


def _bad(**faults):
    return synth.recording(hours=0.15, seed=4, n_channels=3, n_cells=20, **faults)


def test_faults_show_where_the_truth_says():
    clean, _ = _bad()
    rec, truth = _bad(dead_channels=1, drifting_channels=1, pop_rate=0.05, gap_rate=0.02, saturation=600.0)
    f, x, y = truth.faults, rec.signals["lfp"].read(), clean.signals["lfp"].read()
    t = np.arange(len(x)) / 1250.0
    gone = np.isnan(x).all(1)
    assert np.array_equal(gone, f.gaps.contains(t + 1e-9))
    assert rec.signals["lfp"].gaps == f.gaps
    assert not np.isnan(x[~gone]).any()
    dead = f.dead[0]
    assert np.nanstd(x[:, dead]) < 0.1 * y[:, dead].std()
    assert np.nanmax(np.abs(x)) <= 600.0
    untouched = next(c for c in range(4) if c not in (*f.dead, *f.drifting))
    far = ~gone & (np.abs(t[:, None] - f.pops.start).min(1) > 0.5) & (np.abs(y[:, untouched]) < 600)
    assert np.array_equal(x[far, untouched], y[far, untouched])
    hit = f.pops.start[f.pops.channel == untouched]
    assert len(hit)
    step = [np.abs(x[int(p * 1250) + 1, untouched] - y[int(p * 1250) + 1, untouched]) for p in hit if not f.gaps.contains([p, p + 0.01]).any()]
    assert np.median(step) > 150


def test_a_sorter_misses_and_confuses():
    clean, _ = _bad()
    rec, _ = _bad(missed=0.2, contamination=0.1)
    assert len(rec.spikes) == pytest.approx(0.8 * len(clean.spikes), rel=0.03)
    own = [np.isin(rec.spikes.of(u), clean.spikes.of(u)).mean() for u in clean.spikes.units["id"] if len(clean.spikes.of(u)) > 100]
    assert 0.05 < 1 - np.mean(own) < 0.15


def test_a_scorer_errs_mostly_at_transitions():
    _, truth = synth.recording(hours=2.0, seed=1, n_cells=0)
    rec, told = synth.recording(hours=2.0, seed=1, n_cells=0, scorer_error=0.02)
    wrong = rec.hypnogram().codes != told.hypnogram.codes
    assert told.hypnogram == truth.hypnogram
    assert 0.01 < wrong.mean() < 0.12
    edges = told.bouts.start.to_numpy()
    near = np.array([(np.abs(edges - t - 2.0) < 2.0).any() for t in told.hypnogram.times])
    assert wrong[near].mean() > 3 * wrong[~near].mean()


@pytest.mark.parametrize("change", [dict(missed=1.0), dict(dead_channels=9), dict(pop_rate=-1.0), dict(scorer_error=2.0)])
def test_impossible_faults_are_refused(change):
    with pytest.raises(InputError, match=next(iter(change)).split("_")[0]):
        _bad(**change)


def test_shuffled_decoys_fire_like_replay_but_in_no_order():
    rec, truth = synth.recording(hours=0.5, seed=6, shuffled_share=0.6, n_cells=50)
    r, fields = truth.ripples, truth.place_fields
    place = np.flatnonzero((rec.spikes.units["type"] == "place").to_numpy())
    centre = fields.rate[:, place].argmax(2)
    order, count = {}, {}
    for what, track in (("reactivation", 0), ("shuffled", 0)):
        rows = np.flatnonzero((r.carries == what) & (r.duration > 0.1))
        value, number = [], []
        for i in rows:
            c = {"A": 0, "B": 1}[truth.reactivation.context[r.replay[i]]] if what == "reactivation" else track
            t, u = rec.spikes.span(r.start[i], r.stop[i])
            keep = np.isin(u, place[fields.rate[c, place].max(1) > 2])
            number.append(keep.sum())
            if keep.sum() > 5:
                value.append(abs(np.corrcoef(t[keep], centre[c][u[keep]])[0, 1]))
        order[what], count[what] = np.median(value), np.median(number)
    assert order["reactivation"] > order["shuffled"] + 0.2
    assert count["shuffled"] > 0.5 * count["reactivation"]


def test_pauses_on_a_track_replay_that_track():
    rec, truth = synth.recording(hours=0.3, seed=2, wake_ripple_rate=0.3, awake_replay=0.9, n_cells=15)
    awake = truth.awake_replay
    assert len(awake) > 5
    assert rec.labels["run"].contains(awake.start).all()
    context = rec.labels["context"]
    here = np.searchsorted(context.start, awake.start, side="right") - 1
    assert (awake.context == context.content[here]).all()


def test_every_unit_is_contaminated_alike_by_its_own_region_and_none_is_emptied():
    rec, truth = synth.recording(hours=0.5, seed=3, n_cells=30, n_cortical=20, n_head=8, n_channels=1, contamination=0.1, missed=0.15)
    fired, sorted_ = truth.spikes, rec.spikes
    region = dict(zip(fired.units["id"], fired.units["region"]))
    source = fired.unit_id[np.searchsorted(fired.times, sorted_.times)]
    assert 1 - len(sorted_) / len(fired) == pytest.approx(0.15, abs=0.01)
    for unit in fired.units["id"]:
        mine = source[sorted_.unit_id == unit]
        assert {region[k] for k in mine} <= {region[unit]}
        if len(mine) > 1000:
            assert (mine != unit).mean() == pytest.approx(0.1, abs=0.03)
            assert (mine == unit).sum() > 0.65 * (fired.unit_id == unit).sum()

    # Later spikes of a burst are smaller: more of them are missed.
    def follows(s):
        return np.mean([(np.diff(s.of(k)) < 0.01).mean() for k in fired.units["id"][:20]])

    assert follows(sorted_) < 0.8 * follows(fired)


def test_noise_is_of_the_stated_size_on_every_recorded_potential_and_nowhere_else():
    clean, _ = synth.recording(hours=0.1, seed=4, n_channels=2, n_cells=5)
    before = {name: s.read().copy() for name, s in clean.signals.items()}
    noisy = synth.with_noise(clean, 2.0, seed=1)
    for name, s in clean.signals.items():
        assert np.array_equal(s.read(), before[name], equal_nan=True)
        loud = s.channels["kind"].isin(["lfp", "eeg", "eog", "emg"]).to_numpy()
        added = noisy.signals[name].read() - before[name]
        assert np.nanstd(added[:, loud], axis=0) == pytest.approx(2.0 * np.nanstd(before[name][:, loud], axis=0), rel=0.02)
        assert np.nansum(np.abs(added[:, ~loud])) == 0
    assert noisy.spikes is clean.spikes and noisy.labels == clean.labels
    again = synth.with_noise(clean, 2.0, seed=1)
    assert all(np.array_equal(s.read(), again.signals[name].read(), equal_nan=True) for name, s in noisy.signals.items())


@pytest.mark.parametrize("amount", [-1.0, np.nan, np.inf])
def test_an_impossible_amount_of_noise_is_refused(amount):
    with pytest.raises(InputError, match="amount"):
        synth.with_noise(synth.recording(hours=0.1, seed=4, n_cells=5)[0], amount)
