from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.signal import butter, hilbert, sosfiltfilt, welch

import brainmu.synth as synth
from brainmu.core import Intervals
from brainmu.errors import InputError


@pytest.fixture(scope="module")
def pair():
    return synth.recording(hours=0.5, seed=2)


@pytest.fixture(scope="module")
def lfp(pair):
    return pair[0].signals["lfp"].read()


def test_the_recording_is_what_it_says(pair):
    rec, truth = pair
    assert rec.duration == 1800.0
    assert rec.signals["lfp"].rate == 1250.0
    assert rec.signals["lfp"].channels["region"].tolist() == ["CA1"] * 4 + ["CTX"]
    assert list(rec.signals_of("emg")) == ["emg"]
    assert rec.hypnogram() == truth.hypnogram
    assert len(rec.hypnogram()) == 450
    assert set(rec.hypnogram().stages_list()) == {"WAKE", "NREM", "REM"}
    assert rec.labels["run"].duration + rec.labels["rest"].duration == pytest.approx(1800, rel=0.05)
    assert set(rec.labels["reactivation"].content) == {"negative", "positive"}
    assert "mouse" in truth.summary()


def test_same_seed_same_bytes_whole_or_in_slices(pair, lfp):
    again, _ = synth.recording(hours=0.5, seed=2)
    other, _ = synth.recording(hours=0.5, seed=3)
    s = again.signals["lfp"]
    rng = np.random.default_rng(0)
    for first in rng.integers(0, s.n_samples - 40_000, size=6):
        n = int(rng.integers(1, 40_000))
        assert np.array_equal(s.read(first, first + n), lfp[first : first + n])
    assert np.array_equal(again.signals["emg"].read(5000, 90_000), pair[0].signals["emg"].read(5000, 90_000))
    assert np.array_equal(again.spikes.times, pair[0].spikes.times)
    assert not np.array_equal(other.signals["lfp"].read(0, 100), lfp[:100])
    copy = pickle.loads(pickle.dumps(s))
    assert np.array_equal(copy.read(70_000, 70_100), lfp[70_000:70_100])


def test_no_border_shows_between_blocks(lfp):
    from brainmu.synth.noise import BLOCK

    steps = np.abs(np.diff(lfp[:, 0]))
    at = steps[np.arange(BLOCK, len(lfp) - 1, BLOCK) - 1]
    assert at.max() < 6 * np.quantile(steps, 0.95)
    assert at.mean() < 1.6 * steps.mean()


def _power(x, rate, low, high):
    f, p = welch(x, rate, nperseg=int(4 * rate))
    return p[(f >= low) & (f < high)].mean()


def test_spectra_differ_by_stage_as_in_rodents(pair, lfp):
    rec, truth = pair
    ca1, ctx = ({s: x[np.repeat(truth.hypnogram.mask(s), 5000)] for s in ("WAKE", "NREM", "REM")} for x in (lfp[:, 2], lfp[:, 4]))
    delta, theta = ({s: _power(ca1[s], 1250, *b) for s in ca1} for b in ((1, 4), (6, 9)))
    assert delta["NREM"] > 2 * max(delta["WAKE"], delta["REM"])
    assert theta["REM"] > 3 * theta["NREM"]
    assert theta["REM"] / delta["REM"] > 3 * theta["NREM"] / delta["NREM"]
    assert _power(ctx["NREM"], 1250, 11, 14) > 1.3 * _power(ctx["WAKE"], 1250, 11, 14)
    emg = rec.signals["emg"].read()[:, 0]
    tone = {s: emg[np.repeat(truth.hypnogram.mask(s), 5000)].std() for s in ca1}
    assert tone["WAKE"] > 3 * tone["NREM"] > 3 * tone["REM"]
    f, p = welch(ca1["NREM"], 1250, nperseg=2500)
    fit = (f > 20) & (f < 120)
    assert -3.0 < np.polyfit(np.log(f[fit]), np.log(p[fit]), 1)[0] < -1.2


def test_ripples_stand_out_in_their_band_and_carry_their_amplitude(pair, lfp):
    _, truth = pair
    sos = butter(3, [140, 230], "bandpass", fs=1250, output="sos")
    envelope = np.abs(hilbert(sosfiltfilt(sos, lfp[:, 0].astype(float))))
    r = truth.ripples
    peak = np.array([envelope[int(a * 1250) : int(b * 1250) + 1].max() for a, b in zip(r.start, r.stop)])
    quiet = np.quantile(envelope[np.repeat(truth.hypnogram.mask("NREM"), 5000)], 0.5)
    assert np.corrcoef(np.log(r.amplitude), np.log(peak))[0, 1] > 0.7
    assert np.median(peak) > 3 * quiet
    assert (r.snr < 4).any()
    assert (r.snr > 6).any()
    assert r.duration.min() > 0.02
    assert np.quantile(r.duration, 0.9) < 0.25


def test_every_reactivation_has_its_ripple_and_its_row(pair):
    _, truth = pair
    a, r = truth.reactivation, truth.ripples
    assert np.array_equal(r.start[a.ripple], a.start)
    assert np.array_equal(r.replay[a.ripple], np.arange(len(a)))
    assert (r.replay >= 0).sum() == len(a)
    assert (np.diff(r.start) > 0).all()
    assert dict(zip(a.content, a.context)) == {"negative": "A", "positive": "B"}


def _decode(spikes, fields, context, start, stop, bin_size=0.02):
    """Oracle Bayesian decoding (Poisson, flat prior) with the true fields: probability (bin, place)."""
    edges = np.arange(start, stop + 1e-9, bin_size)
    place = np.flatnonzero(fields.rate[:, :, :].max(2).max(0) - fields.rate.min(2).min(0) > 1)
    n = spikes.counts(edges)[:, place]
    rate = fields.rate[context][place] + 0.2
    log = n @ np.log(rate) - bin_size * rate.sum(0)
    p = np.exp(log - log.max(1, keepdims=True))
    return p / p.sum(1, keepdims=True), n.sum(1) > 0


def _score(spikes, fields, context, start, stop):
    """Weighted correlation of decoded place and time."""
    p, some = _decode(spikes, fields, context, start, stop)
    if some.sum() < 4:
        return np.nan
    w, t, x = p * some[:, None], np.arange(len(p))[:, None], fields.grid[None, :]
    total = w.sum()
    mt, mx = (w * t).sum() / total, (w * x).sum() / total
    return (w * (t - mt) * (x - mx)).sum() / np.sqrt((w * (t - mt) ** 2).sum() * (w * (x - mx) ** 2).sum())


def test_an_oracle_decodes_place_while_running(pair):
    rec, truth = pair
    a, b = rec.labels["run"].bounds[0]
    p, _ = _decode(rec.spikes, truth.place_fields, 0, a, b, 0.25)
    t, xy = rec.signals["position"].span(a, b)
    where = np.interp(a + 0.125 + 0.25 * np.arange(len(p)), t, xy[:, 0]) - 0.1
    moving = np.abs(np.gradient(where) / 0.25) > 0.1
    error = np.abs(truth.place_fields.grid[p.argmax(1)] - where)[moving]
    assert np.median(error) < 0.15
    wrong, _ = _decode(rec.spikes, truth.place_fields, 1, a, b, 0.25)
    assert np.median(np.abs(truth.place_fields.grid[wrong.argmax(1)] - where)[moving]) > 0.3


def test_an_oracle_finds_replay_its_direction_and_its_track(pair):
    rec, truth = pair
    f, a = truth.place_fields, truth.reactivation
    long = np.flatnonzero(a.duration > 0.12)
    true = np.array([[_score(rec.spikes, f, c, a.start[i], a.stop[i]) for c in (0, 1)] for i in long])
    own = np.array([0 if c == "A" else 1 for c in a.context[long]])
    rows = np.arange(len(long))
    assert np.nanmedian(np.abs(true[rows, own])) > 0.7
    sign = np.where(a.direction[long] == "forward", 1, -1)
    assert np.nanmean(np.sign(true[rows, own]) == sign) > 0.85
    assert np.nanmedian(np.abs(true[rows, own])) > np.nanmedian(np.abs(true[rows, 1 - own])) + 0.2
    decoys = truth.ripples[(truth.ripples.replay < 0) & (truth.ripples.duration > 0.09)]
    false = [abs(_score(rec.spikes, f, 0, x, y)) for x, y in zip(decoys.start, decoys.stop)]
    assert np.nanmedian(false) < 0.55


def test_cells_fire_like_cells(pair):
    rec, _ = pair
    kinds = rec.spikes.units.set_index("id")["type"]
    rate = {k: np.array([len(rec.spikes.of(i)) for i in kinds.index[kinds == k]]) / rec.duration for k in ("place", "interneuron")}
    assert np.median(rate["place"]) < 3
    assert np.median(rate["interneuron"]) > 8
    for unit in kinds.index:
        assert np.diff(rec.spikes.of(unit)).min() >= 0.002
    assert rec.spikes.times[0] >= 0
    assert rec.spikes.times[-1] < 1800


def test_cells_follow_the_theta_of_the_lfp(pair, lfp):
    rec, _ = pair
    sos = butter(2, [5, 10], "bandpass", fs=125, output="sos")
    a, b = rec.labels["run"].bounds[0]
    phase = np.angle(hilbert(sosfiltfilt(sos, lfp[::10, 2].astype(float))))
    t = rec.spikes.times[(rec.spikes.times > a) & (rec.spikes.times < b) & (rec.spikes.unit_id >= 35)]
    u = rec.spikes.unit_id[(rec.spikes.times > a) & (rec.spikes.times < b) & (rec.spikes.unit_id >= 35)]
    strength = [np.abs(np.exp(1j * phase[(t[u == i] * 125).astype(int)]).mean()) for i in np.unique(u)]
    assert np.mean(strength) > 0.1


def test_position_stays_on_the_tracks_and_is_missing_between(pair):
    rec, truth = pair
    s = rec.signals["position"]
    t, xy = s.span(0, s.stop)
    inside = rec.labels["run"].contains(t)
    assert np.isfinite(xy[inside]).all()
    assert np.isnan(xy[~inside]).all()
    assert (Intervals(s.gaps.bounds).contains(t[~inside])).all()
    for (a, b), row in zip(rec.labels["run"], truth.place_fields.xy):
        on = xy[(t >= a) & (t < b)]
        assert np.abs(on[:, 1] - row[0, 1]).max() < 0.08
        assert on[:, 0].min() < 0.15
        assert on[:, 0].max() > 1.6


def test_a_recording_without_this_or_that():
    rec, truth = synth.recording(hours=0.1, seed=0, n_cells=0, run_minutes=0, n_channels=1, n_cortex=0, trials=False)
    assert rec.spikes is None
    assert "run" not in rec.labels
    assert "position" not in rec.signals
    assert len(rec.labels["trials"]) == 0
    assert truth.place_fields is None
    assert rec.signals["lfp"].names == ["CA1_1"]
    slow, _ = synth.recording(hours=0.1, seed=0, lfp_rate=200.0, n_cells=0)
    assert "ripples" in slow.warnings[0]
    assert np.isfinite(slow.signals["lfp"].read(0, 100)).all()


@pytest.mark.parametrize("preset", ["easy", "hard"])
def test_presets_and_rats(preset):
    rec, truth = synth.recording(hours=0.15, seed=1, species="rat", preset=preset, n_cells=12)
    assert rec.species == "rat"
    assert truth.parameters["preset"] == preset
    assert np.isfinite(rec.signals["lfp"].read(0, 5000)).all()


def test_humans_sleep_by_the_manual():
    rec, truth = synth.recording(hours=2.0, seed=4, species="human")
    assert rec.hypnogram().epoch == 30.0
    assert set(rec.hypnogram().stages_list()) == {"W", "N1", "N2", "N3", "R"}
    assert set(rec.signals) == {"eeg", "eog", "emg"}
    x, tone = rec.signals["eeg"].read()[:, 2], rec.signals["emg"].read()[:, 0]
    by = {s: np.repeat(truth.hypnogram.mask(s), 3840) for s in truth.hypnogram.stages}
    delta = {s: _power(x[m], 128, 0.75, 4) for s, m in by.items()}
    assert delta["N3"] > 2.5 * delta["N2"] > 2.5 * delta["R"]
    assert _power(x[by["W"]], 128, 8, 12) > 2 * _power(x[by["R"]], 128, 8, 12)
    assert _power(x[by["N2"]], 128, 12, 15) > 1.5 * _power(x[by["R"]], 128, 12, 15)
    assert tone[by["W"]].std() > 3 * tone[by["R"]].std()
    again, _ = synth.recording(hours=2.0, seed=4, species="human")
    assert np.array_equal(again.signals["eeg"].read(1000, 50_000), rec.signals["eeg"].read(1000, 50_000))


def test_a_corpus_varies_its_animals_and_grows_without_changing():
    small, large = synth.corpus(2, hours=0.1, seed=1), synth.corpus(3, hours=0.1, seed=1)
    assert [r.subject for r, _ in large] == ["mouse01", "mouse02", "mouse03"]
    assert np.array_equal(small[1][0].signals["lfp"].read(0, 100), large[1][0].signals["lfp"].read(0, 100))
    gains = {t.parameters["lfp"]["gain"] for _, t in large}
    assert len(gains) == 3
    equal = synth.corpus(2, hours=0.1, seed=1, variation=0.0, n_cells=0)
    assert equal[0][1].parameters["lfp"] == equal[1][1].parameters["lfp"]


@pytest.mark.parametrize("species", ["mouse", "rat", "human"])
@pytest.mark.parametrize("preset", ["easy", "typical", "hard"])
def test_animals_that_do_not_vary_are_those_of_their_species_and_preset(species, preset):
    [(_, of_corpus)] = synth.corpus(1, hours=0.1, species=species, preset=preset, variation=0.0)
    _, alone = synth.recording(0.1, species=species, preset=preset)
    for model in {"lfp", "ripples", "sleep", "eeg"} & set(alone.parameters):
        assert of_corpus.parameters[model] == pytest.approx(alone.parameters[model]), model


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (dict(hours=0.0), "0.1"), (dict(hours=float("nan")), "nan"), (dict(hours="2"), "hours"), (dict(seed=-1), "seed"), (dict(epoch=0.0), "epoch"),
        (dict(track_length=-1.0), "track_length"), (dict(position_rate=0), "position_rate"), (dict(ripple_length=-1.0), "ripple_length"),
        (dict(inter_share=2.0), "inter_share"), (dict(confounding=5.0), "confounding"), (dict(contexts={}), "one track"),
        (dict(n_channels=2.5), "n_channels"), (dict(species="cat"), "cat"), (dict(preset="simple"), "simple"),
        (dict(n_channels=0), "n_channels"), (dict(confouding=1.0), "confounding"), (dict(contexts={"A": "x", "B": "x"}), "different"),
        (dict(contexts={"A": "negatve"}), "negative"), (dict(epoch=1e6), "longer"), (dict(species="human", n_cells=3), "rodents"),
        (dict(species="human", run_minutes=5.0), "run_minutes"), (dict(arena="arms", arms=("left", "stem", "right")), "stem"), (dict(arena=["open"]), "arena"),
        (dict(trials="yes"), "True or False"), (dict(clocks={"camera": {"interval": 1e-7}}), "interval"), (dict(calcium={"frame_rate": 0.001}), "frame_rate"),
        (dict(position_rate=1e5), "position_rate"), (dict(head_peak=1e5), "head_peak"), (dict(reactivation_rate={"odd": 0.1}), "odd"),
        (dict(species="human", n_place=3), "n_place"), (dict(lfp_rate=-1.0), "lfp_rate"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused_by_name(change, word):
    with pytest.raises(InputError, match=word):
        synth.recording(**({"hours": 0.1} | change))


def test_every_parameter_has_one_owner_and_a_description():
    import dataclasses

    from brainmu.synth.recording import _MODELS

    names = [f.name for cls in _MODELS.values() for f in dataclasses.fields(cls)]
    assert len(names) == len(set(names))
    for cls in _MODELS.values():
        for f in dataclasses.fields(cls):
            assert f.name in (cls.__doc__ or ""), f"{cls.__name__}.{f.name} is not described"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"contexts": ["A", "B"]}, "a mapping of track to content"),
        ({"contexts": {"A": None}}, "a mapping of track to content"),
        ({"reactivation_rate": 5}, "reactivation_rate is 5, expected a mapping"),
        ({"log_hazard_ratio": 3}, "log_hazard_ratio is 3, expected a mapping"),
        ({"n_cel": 3}, "did you mean 'n_cells'"),
        ({"confounding": "high"}, "expected a finite number"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(given, says):
    with pytest.raises(InputError, match=says):
        synth.recording(hours=0.2, **given)
