"""Single cells: what theta, bursts, down states, drift, place and content do to their spikes, and that each is gone when it is switched off."""

from __future__ import annotations

import numpy as np
import pytest

import brainmu.synth as synth
from brainmu.core import Intervals
from brainmu.errors import InputError
from brainmu.synth.arenas import forage, make_arena


def _place_cells(rec):
    return rec.spikes.units["id"].to_numpy()[(rec.spikes.units["type"] == "place").to_numpy()]


def _isi(rec, ids):
    return np.concatenate([np.diff(rec.spikes.of(u)) for u in ids])


def test_bursts_and_refractoriness_are_what_the_parameters_say():
    rec, _ = synth.recording(hours=0.3, seed=1, n_cells=30)
    flat, _ = synth.recording(hours=0.3, seed=1, n_cells=30, burst=0.0)
    slow, _ = synth.recording(hours=0.3, seed=1, n_cells=30, refractory=0.01)
    assert np.mean(_isi(rec, _place_cells(rec)) < 0.01) > np.mean(_isi(flat, _place_cells(flat)) < 0.01) + 0.05
    assert _isi(rec, rec.spikes.units["id"]).min() >= 0.002
    assert _isi(slow, slow.spikes.units["id"]).min() >= 0.01


def _precession(rec, truth, phase_of):
    """Correlation of theta phase with the way through the field, along the direction of travel, over the place cells with a field."""
    f, out = truth.place_fields, []
    a, b = rec.labels["run"].bounds[0]
    t, xy = rec.signals["position"].span(a, b)
    v = np.gradient(xy, axis=0)
    kernel = np.ones(9) / 9
    v = np.stack([np.convolve(c, kernel, mode="same") for c in v.T], axis=1)
    pace = np.hypot(*v.T)
    for u in _place_cells(rec):
        if f.rate[0, u].max() < 5:
            continue
        s = rec.spikes.of(u)
        s = s[(s > a) & (s < b)]
        k = np.searchsorted(t, s).clip(0, len(t) - 1)
        through = ((xy[k] - f.xy[0, f.rate[0, u].argmax()]) * v[k]).sum(1) / pace[k]
        near = (np.abs(through) < 0.2) & (pace[k] * 40 > 0.1) & (np.hypot(*(xy[k] - f.xy[0, f.rate[0, u].argmax()]).T) < 0.25)
        if near.sum() > 30:
            x, p = through[near], phase_of(s[near])
            # Slope that best straightens the phases.
            slopes = np.linspace(-20, 20, 81)
            out.append(slopes[np.abs(np.exp(1j * (p - slopes[:, None] * x)).mean(1)).argmax()])
    return np.array(out)


@pytest.mark.parametrize("arena", ["linear", "open", "arms"])
def test_phase_precesses_through_the_field_in_every_arena(arena):
    from scipy.signal import butter, hilbert, sosfiltfilt

    rec, truth = synth.recording(hours=0.25, seed=5, n_cells=70, arena=arena, theta_depth=0.9, n_channels=1, n_cortex=0)
    lfp = rec.signals["lfp"].read(0, int(1250 * rec.labels["run"].stop[0]))[::10, 0].astype(float)
    phase = np.unwrap(np.angle(hilbert(sosfiltfilt(butter(2, [5, 10], "bandpass", fs=125, output="sos"), lfp))))
    slopes = _precession(rec, truth, lambda s: np.interp(s, np.arange(len(phase)) / 125.0, phase))
    assert len(slopes) > 8
    assert np.median(slopes) < -2
    assert np.mean(slopes < 0) > 0.75


def test_theta_locks_cells_only_where_it_is_asked_for():
    def locking(depth):
        from scipy.signal import butter, hilbert, sosfiltfilt

        rec, _ = synth.recording(hours=0.2, seed=2, n_cells=30, theta_depth=depth, n_channels=1, n_cortex=0)
        stop = rec.labels["run"].stop[-1]
        lfp = rec.signals["lfp"].read(0, int(1250 * stop))[::10, 0].astype(float)
        phase = np.angle(hilbert(sosfiltfilt(butter(2, [5, 10], "bandpass", fs=125, output="sos"), lfp)))
        inter = rec.spikes.units["id"][rec.spikes.units["type"] == "interneuron"]
        return np.mean([np.abs(np.exp(1j * phase[(s[s < stop - 0.1] * 125).astype(int)]).mean()) for s in map(rec.spikes.of, inter)])

    assert locking(0.8) > 0.12
    assert locking(0.0) < 0.05


def test_rates_drift_over_hours_only_where_asked():
    def spread(drift):
        rec, truth = synth.recording(hours=3.0, seed=3, n_cells=12, rate_drift=drift, drift_tau=1.0, run_minutes=0, inter_share=0.0, trials=False)
        asleep = Intervals(truth.bouts[truth.bouts["stage"] == "NREM"][["start", "stop"]].to_numpy())
        first, last = asleep.intersect(Intervals([[0, 4000]])), asleep.intersect(Intervals([[6800, 10_800]]))
        s = [rec.spikes.of(u) for u in rec.spikes.units["id"]]
        rate = np.array([[np.sum(w.contains(x)) / w.duration for w in (first, last)] for x in s])
        return np.std(np.log(rate[:, 1] / rate[:, 0]))

    assert spread(0.5) > 2.5 * spread(0.0)


def test_cortex_and_amygdala_fall_silent_in_down_states():
    rec, truth = synth.recording(hours=0.5, seed=4, n_cells=20, n_cortical=20, n_amygdala_cells=20)
    waves = truth.slow_waves.peak
    for region, most in (("PFC", 0.25), ("BLA", 0.25), ("CA1", 0.35)):
        ids = rec.spikes.units["id"][rec.spikes.units["region"] == region]
        t = np.sort(np.concatenate([rec.spikes.of(u) for u in ids]))
        count = lambda a, b, t=t: np.sum(np.searchsorted(t, waves + b) - np.searchsorted(t, waves + a)) / (b - a)  # noqa: E731
        assert count(-0.06, 0.06) < most * count(0.12, 0.35)


@pytest.fixture(scope="module")
def answering():
    """Cells outside CA1 that answer to replay, and the same ones cut off."""
    given = dict(hours=0.8, seed=5, n_cells=10, n_cortical=40, n_amygdala_cells=40, contexts={"A": "negative", "B": "neutral", "C": "positive"})
    return synth.recording(**given), synth.recording(**given, cortical_coupling=0.0, amygdala_coupling=0.0)


@pytest.mark.parametrize(("region", "lag"), [("PFC", 0.05), ("BLA", 0.0)])
def test_cells_that_prefer_a_content_answer_to_its_replay_and_to_no_other(answering, region, lag):
    (rec, truth), (off, ablated) = answering

    def evoked(rec, truth, prefers, content):
        p = truth.populations
        ids = p.loc[(p["region"] == region) & (p["prefers"] == prefers) & (p["type"] != "interneuron"), "id"]
        a = truth.reactivation[truth.reactivation.content == content]
        t = np.sort(np.concatenate([rec.spikes.of(u) for u in ids]))
        inside = np.searchsorted(t, a.stop + lag) - np.searchsorted(t, a.start + lag)
        return inside.sum() / a.duration.sum() / len(ids)

    for content in ("negative", "neutral", "positive"):
        others = [evoked(rec, truth, other, content) for other in ("negative", "neutral", "positive", "") if other != content]
        assert evoked(rec, truth, content, content) > 2 * max(others)
        assert evoked(off, ablated, content, content) < 0.5 * evoked(rec, truth, content, content)
    run = rec.labels["context"]
    p = truth.populations
    ids = p.loc[(p["region"] == region) & (p["prefers"] == "neutral"), "id"]
    rate = {c: np.mean([len(rec.spikes.of(u)[run[run.content == c].intervals().contains(rec.spikes.of(u))]) for u in ids]) for c in "ABC"}
    assert rate["B"] > 1.6 * max(rate["A"], rate["C"])


def test_the_cortex_follows_the_hippocampus_by_its_lag():
    for lag in (0.02, 0.12):
        rec, truth = synth.recording(hours=0.6, seed=6, n_cells=10, n_cortical=30, cortical_lag=lag, cortical_gain=40.0)
        p = truth.populations
        edges = np.arange(-0.3, 0.6, 0.02)
        seen = np.zeros(len(edges) - 1)
        for content in ("negative", "positive"):
            t = np.sort(np.concatenate([rec.spikes.of(u) for u in p.loc[p["prefers"] == content, "id"]]))
            start = truth.reactivation.start[truth.reactivation.content == content]
            seen += np.diff(np.searchsorted(t, start[:, None] + edges), axis=1).sum(0)
        begin = edges[np.flatnonzero(seen > seen[edges[:-1] < -0.1].mean() + 0.5 * np.ptp(seen))[0]]
        assert begin == pytest.approx(lag, abs=0.03)


def test_other_cells_leave_those_of_ca1_as_they_were():
    alone, _ = synth.recording(hours=0.2, seed=7, n_cells=20)
    rec, truth = synth.recording(hours=0.2, seed=7, n_cells=20, n_head=6, n_cortical=5, n_amygdala_cells=4)
    again, _ = synth.recording(hours=0.2, seed=7, n_cells=20, n_head=6, n_cortical=5, n_amygdala_cells=4)
    ca1 = rec.spikes.pick(np.arange(20))
    assert np.array_equal(ca1.times, alone.spikes.times)
    assert np.array_equal(rec.spikes.times, again.spikes.times)
    assert np.array_equal(rec.signals["heading"].read(), again.signals["heading"].read(), equal_nan=True)
    assert rec.spikes.units["region"].value_counts().to_dict() == {"CA1": 20, "ADN": 6, "PFC": 5, "BLA": 4}
    assert set(rec.spikes.units["type"]) == {"place", "interneuron", "head_direction", "pyramidal", "principal"}
    assert truth.populations["id"].tolist() == list(range(20, 35))
    assert "heading" not in alone.signals


def test_the_animal_stays_in_its_box_and_visits_all_of_it():
    box = make_arena("open", 1, 0.8, ())
    path = forage(0.8, 40_000, 0.025, 0.3, np.random.default_rng(0))
    assert path.min() >= 0
    assert path.max() <= 0.8
    visits = np.bincount(box.bins(box.corner + path), minlength=400)
    assert np.mean(visits > 5) > 0.9
    rec, _ = synth.recording(hours=0.3, seed=1, arena="open", n_cells=0)
    first, second = (rec.signals["position"].span(*x)[1] for x in rec.labels["run"].bounds)
    assert first[:, 0].max() < second[:, 0].min()
    assert rec.signals["position"].unit == "m"


def test_arms_are_visited_in_turn():
    rec, truth = synth.recording(hours=0.4, seed=2, arena="arms", n_cells=10)
    f = truth.place_fields
    _, xy = rec.signals["position"].span(*rec.labels["run"].bounds[0])
    arm = np.array(f.arm)[np.argmin(np.hypot(*(xy[::10, None] - f.xy[0]).T), axis=0)]
    order = arm[np.r_[True, arm[1:] != arm[:-1]]]
    assert set(order) == {"stem", "left", "right"}
    assert f.to_xarray().coords["arm"].to_numpy()[0] == "stem"
    box = synth.recording(hours=0.1, seed=2, arena="open", n_cells=10)[1].place_fields.to_xarray()
    assert box.dims == ("context", "unit", "y", "x")
    assert box.shape == (2, 10, 20, 20)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (dict(arena="circle"), "circle"), (dict(arena="arms", arms=("a",)), "arms"), (dict(arena="arms", arms=("a", "a")), "arms"), (dict(arms="stem"), "arms"),
        (dict(arms=3), "arms"), (dict(run_minutes=0.05), "run_minutes"),
        (dict(n_head=-1), "n_head"), (dict(n_cortical=1.5), "n_cortical"), (dict(pre_rest_minutes=-1), "pre_rest_minutes"), (dict(preplay=1.2), "preplay"),
        (dict(shuffled_share=0.6, burst_share=0.6), "burst_share"), (dict(n_assemblies=9, assembly_size=9), "assemblies"), (dict(jumps=0), "jumps"),
        (dict(partial_span=0.0), "partial_span"), (dict(head_width=0.0), "head_width"), (dict(species="human", n_head=3), "rodents"),
        (dict(outside_ripples=-0.1), "outside_ripples"), (dict(cortical_lag=-0.1), "cortical_lag"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused_by_name(change, word):
    with pytest.raises(InputError, match=word):
        synth.recording(**({"hours": 0.1} | change))


def test_the_coded_direction_meets_the_true_one_without_a_leap():
    for seed in range(4):
        rec, truth = synth.recording(hours=1.0, seed=seed, n_cells=0, n_head=4, n_channels=1)
        head = truth.head_direction
        step = np.abs(np.diff(head.heading))
        for edge in rec.labels["run"].bounds.ravel():
            assert step[np.abs(head.time[1:] - edge) < 0.1].max(initial=0) < np.deg2rad(30)
