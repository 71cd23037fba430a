"""Signals: coherence over distance, spindles on up states in an infraslow rhythm, artefacts, and decoys that fool the naive."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import maximum_filter1d
from scipy.signal import butter, coherence, hilbert, sosfiltfilt, welch

import brainmu.synth as synth
from brainmu.errors import InputError
from brainmu.synth.noise import BlockNoise

_PLAIN = {"n_cells": 0, "run_minutes": 0.0, "trials": False}


def _spectrum(x, rate):
    return welch(x, rate, nperseg=int(4 * rate), axis=0)


def test_noise_has_the_coherence_it_was_given_and_leaves_the_first_source_as_it_was():
    def wanted(f):
        near = np.exp(-0.5 * (1 + f / 25))
        return np.array([[1.0, near], [near, 1.0]])

    def spectra(f):
        return np.stack([1 / (1 + f), 1 / (1 + f)], axis=1)

    plain, mixed = (BlockNoise(spectra, 250.0, (1, 2), c) for c in (None, wanted))
    x = np.concatenate([mixed.block(k) for k in range(20)], axis=1)
    assert np.array_equal(x[0, :32_768], plain.block(0)[0])
    f, found = coherence(x[0], x[1], 250.0, nperseg=500)
    for low, high in ((2, 6), (10, 20), (40, 60)):
        band = (f >= low) & (f < high)
        assert found[band].mean() == pytest.approx(np.exp(-0.5 * (1 + f[band] / 25)).mean() ** 2, abs=0.04)
    assert x[1].std() == pytest.approx(x[0].std(), rel=0.05)


@pytest.fixture(scope="module")
def regions():
    rec, truth = synth.recording(hours=0.2, seed=4, n_channels=6, n_cortex=3, n_amygdala=2, lfp_rate=500.0, **_PLAIN)
    return rec, truth, rec.signals["lfp"].read()


def _coherence(x, i, j, low, high, rate=500.0):
    f, c = coherence(x[:, i], x[:, j], rate, nperseg=int(rate))
    return float(c[(f >= low) & (f < high)].mean())


def test_coherence_falls_with_distance_within_and_between_regions(regions):
    rec, _, x = regions
    table = rec.signals["lfp"].channels
    assert table["region"].tolist() == ["CA1"] * 6 + ["CTX"] * 3 + ["BLA"] * 2
    place = table[["x", "y", "z"]].to_numpy() / 1000
    for low, high in ((12, 30), (60, 90)):
        down = [_coherence(x, 0, j, low, high) for j in range(1, 6)]
        assert (np.diff(down) < 0.02).all()
        assert down[0] > down[-1] + 0.02
        near, far = _coherence(x, 0, 6, low, high), _coherence(x, 0, 9, low, high)
        assert np.linalg.norm(place[0] - place[6]) < np.linalg.norm(place[0] - place[9])
        assert down[-1] > near + 0.05
        assert near > far - 0.01
    assert _coherence(x, 0, 6, 12, 30) > _coherence(x, 0, 6, 60, 90) + 0.03
    alone, _ = synth.recording(hours=0.2, seed=4, n_channels=2, n_cortex=2, lfp_rate=500.0, coherence_length=0.0, **_PLAIN)
    assert _coherence(alone.signals["lfp"].read(), 2, 3, 12, 30) < _coherence(x, 6, 7, 12, 30) - 0.1


def test_the_pyramidal_channel_keeps_its_size_whatever_lies_beside_it(regions):
    few, _ = synth.recording(hours=0.2, seed=4, n_channels=6, n_cortex=1, lfp_rate=500.0, **_PLAIN)
    one, many = few.signals["lfp"].read(0, 30_000)[:, 0], regions[2][:30_000, 0]
    assert few.signals["lfp"].names[-1] == "CTX_1"
    assert one.std() == pytest.approx(many.std(), rel=0.3)
    dense, _ = synth.recording(hours=0.1, seed=4, n_channels=256, lfp_rate=200.0, **_PLAIN)
    assert np.isfinite(dense.signals["lfp"].read(0, 100)).all()


def test_the_amygdala_follows_theta_in_rem_and_has_no_ripples(regions):
    _rec, truth, x = regions
    rem = np.repeat(truth.hypnogram.mask("REM"), 2000)[: len(x)]
    if rem.sum() < 10_000:
        pytest.fail("the recording of this seed holds too little REM for the test: choose another seed")
    assert _coherence(x[rem], 0, 9, 6, 8.5) > _coherence(x[rem], 0, 9, 12, 30) + 0.1


def _sigma(x, rate, low=10.0, high=15.0):
    sos = butter(3, [low, high], "bandpass", fs=rate, output="sos")
    return np.abs(hilbert(sosfiltfilt(sos, x.astype(float))))


def test_spindles_lie_on_the_up_state_where_coupled():
    after = {}
    for share in (0.0, 0.9):
        rec, truth = synth.recording(hours=0.7, seed=6, lfp_rate=250.0, spindle_coupling=share, spindle_rate=0.2, **_PLAIN)
        wave, begin = truth.slow_waves.peak, truth.spindles.start
        since = begin - wave[np.clip(np.searchsorted(wave, begin) - 1, 0, None)]
        sigma = _sigma(rec.signals["lfp"].read()[:, 4], 250.0)
        at = (wave[5:-5] * 250).astype(int)
        after[share] = float(np.mean((since > 0.1) & (since < 0.35))), sigma[at + 140].mean() / sigma[at - 60].mean()
    assert after[0.9][0] > 0.75
    assert after[0.0][0] < 0.45
    assert after[0.9][1] > 1.1 * after[0.0][1]


def infraslow(t, power, keep, frequencies):
    """Share of the variance of log power (n,) at `t`, s, that a sine of each frequency explains, over the moments to `keep`."""
    t, y = t[keep], np.log(power[keep])
    y = y - y.mean()
    out = []
    for f in frequencies:
        basis = np.c_[np.ones(len(t)), np.cos(2 * np.pi * f * t), np.sin(2 * np.pi * f * t)]
        out.append(1 - np.var(y - basis @ np.linalg.lstsq(basis, y, rcond=None)[0]) / np.var(y))
    return np.array(out)


def _sigma_rhythm(truth, x, rate):
    n = int(2 * rate)
    power = [(_sigma(x, rate, *b) ** 2)[: len(x) // n * n].reshape(-1, n).mean(1) for b in ((10, 15), (6, 9), (17, 25))]
    sigma = power[0] / np.sqrt(power[1] * power[2])
    t = 1.0 + 2.0 * np.arange(len(sigma))
    nrem = truth.bouts[truth.bouts.stage.isin(["NREM", "N2", "N3"])]
    keep = np.zeros(len(t), dtype=bool)
    for a, b in zip(nrem.start, nrem.stop):
        keep |= (t > a + 3) & (t < b - 3)
    frequencies = np.arange(0.010, 0.050, 0.001)
    return frequencies, infraslow(t, sigma, keep, frequencies)


@pytest.mark.slow
def test_sigma_waxes_and_wanes_at_a_fiftieth_of_a_hertz():
    """In the signal, from the power of sigma over its neighbours in NREM; the default, another period, and none."""
    for depth, period in ((0.6, 50.0), (0.9, 40.0), (0.0, 50.0)):
        settings = {"hours": 2.0, "lfp_rate": 125.0, "infraslow_depth": depth, "infraslow_period": period, **_PLAIN}
        found = [_sigma_rhythm(truth, rec.signals["lfp"].read()[:, 4], 125.0) for rec, truth in (synth.recording(seed=s, **settings) for s in range(4))]
        f, share = found[0][0], np.mean([s for _, s in found], axis=0)
        if depth:
            assert f[share.argmax()] == pytest.approx(1 / period, abs=0.0015)
            assert share.max() > 4 * np.median(share)
        else:
            assert share.max() < 4 * np.median(share)


def _naive_ripples(x, rate, low, high=250.0, threshold=2.0):
    """The detector of many a methods section: band-pass, envelope, 2 SD over its mean for 15 ms."""
    sos = butter(3, [low, high], "bandpass", fs=rate, output="sos")
    envelope = np.convolve(np.abs(hilbert(sosfiltfilt(sos, x.astype(float)))), np.ones(10) / 10, "same")
    above = np.r_[False, envelope > envelope.mean() + threshold * envelope.std(), False]
    edges = np.flatnonzero(np.diff(above.astype(int)))
    spans = edges.reshape(-1, 2) / rate
    return spans[spans[:, 1] - spans[:, 0] > 0.015]


def _found(table, spans):
    return np.array([((spans[:, 0] < b) & (spans[:, 1] > a)).any() for a, b in zip(table.start, table.stop)])


def test_a_naive_ripple_detector_takes_the_decoys_for_ripples():
    rates = {"gamma_burst_rate": 0.15, "spike_leak_rate": 0.1}
    rec, truth = synth.recording(hours=0.4, seed=3, **rates, **_PLAIN)
    x = rec.signals["lfp"].read()[:, 0]
    spans = {"gamma": _naive_ripples(x, 1250.0, 80.0), "spike_leak": _naive_ripples(x, 1250.0, 150.0)}
    decoys = truth.decoys
    by = {k: decoys[decoys.kind == k] for k in ("gamma", "spike_leak")}
    assert set(decoys.kind) == set(by)
    assert _found(by["gamma"], spans["gamma"]).mean() > 0.5
    assert _found(by["spike_leak"], spans["spike_leak"]).mean() > 0.5
    assert ((by["gamma"].frequency >= 60) & (by["gamma"].frequency <= 100)).all()
    alone, same = synth.recording(hours=0.4, seed=3, **_PLAIN)
    assert np.array_equal(same.ripples.start, truth.ripples.start)
    assert len(same.decoys) == 0
    assert _found(decoys, _naive_ripples(alone.signals["lfp"].read()[:, 0], 1250.0, 80.0)).mean() < 0.15
    for a, b in zip(decoys.start, decoys.stop):
        assert not ((truth.ripples.start < b + 0.14) & (truth.ripples.stop > a - 0.14)).any()
    stage = truth.bouts.stage.to_numpy()[np.searchsorted(truth.bouts.start.to_numpy(), by["gamma"].peak, side="right") - 1]
    assert (stage != "NREM").mean() > 0.9


def _log_powers(rec, channel=4):
    """Log band powers of every 4-s epoch, by the middle of the band, Hz."""
    x = rec.signals["lfp"].read()[:, channel]
    rate = rec.signals["lfp"].rate
    n = int(4 * rate)
    f, p = welch(x[: len(x) // n * n].reshape(-1, n), rate, nperseg=n // 2, axis=1)
    bands = [(1, 4), (6, 9), (11, 15), (20, 28), (34, 38), (48, 52), (60, 90)]
    return {(a + b) / 2: np.log(p[:, (f >= a) & (f < b)].mean(1)) for a, b in bands}


def test_a_map_by_power_alone_ranks_the_nuisance_first():
    """Correlating band power with the stage puts the planted nuisance on top; the truth, and another laboratory, say that it means nothing."""

    def ranking(nuisance, stage="NREM", seed=5):
        rec, truth = synth.recording(hours=0.4, seed=seed, lfp_rate=250.0, nuisance_power=nuisance, nuisance_stage=stage, **_PLAIN)
        nrem = truth.hypnogram.mask("NREM")
        return {k: np.corrcoef(p[: len(nrem)], nrem)[0, 1] for k, p in _log_powers(rec).items()}, truth

    fooled, truth = ranking(15.0)
    assert max(fooled, key=lambda k: abs(fooled[k])) == 36.0
    planted = truth.decoys[truth.decoys.kind == "nuisance"]
    assert set(planted.frequency) == {36.0}
    nrem = truth.bouts[truth.bouts.stage == "NREM"]
    assert np.array_equal(planted.start, nrem.start)
    assert truth.planted["nuisance_log_hazard_ratio"].value == 0.0
    clean, without = ranking(0.0)
    assert abs(clean[36.0]) < max(abs(v) for v in clean.values())
    assert abs(clean[36.0]) < abs(fooled[36.0]) - 0.2
    assert len(without.decoys) == 0
    assert "nuisance_log_hazard_ratio" not in without.planted
    other, _ = ranking(15.0, "WAKE", seed=6)
    assert other[36.0] < -0.5 < 0.5 < fooled[36.0]
    assert other[2.5] > 0.4
    assert fooled[2.5] > 0.4


def test_mains_of_either_frequency_with_harmonics_that_wander():
    settings = {"hours": 0.1, "seed": 1, "hum": 40.0, **_PLAIN}
    plain, full = (
        synth.recording(**settings, **more)[0].signals["lfp"].read()[:, 0] for more in ({}, {"hum_frequency": 60.0, "hum_harmonics": 0.5, "hum_wander": 0.5})
    )
    at = {}
    for name, x in (("plain", plain), ("full", full)):
        f, p = _spectrum(x, 1250.0)
        at[name] = {k: p[np.argmin(np.abs(f - k))] / np.median(p[(np.abs(f - k) > 1) & (np.abs(f - k) < 5)]) for k in (50, 60, 180)}
    assert at["plain"][50] > 100
    assert at["plain"][60] < 3
    assert at["plain"][180] < 3
    assert at["full"][50] < 3
    assert at["full"][60] > 100
    assert at["full"][180] > 100
    sos = butter(2, [58, 62], "bandpass", fs=1250, output="sos")
    size = np.abs(hilbert(sosfiltfilt(sos, full.astype(float))))[::1250][5:-5]
    assert np.log(size).std() > 0.2


def test_muscle_bursts_reach_the_emg_and_leak_into_the_lfp():
    rec, truth = synth.recording(hours=0.2, seed=2, emg_burst_rate=0.1, emg_leak=0.1, **_PLAIN)
    calm, _ = synth.recording(hours=0.2, seed=2, emg_leak=0.1, **_PLAIN)
    more = [r.signals["emg"].read()[:, 0].std() for r in (rec, calm)]
    assert more[0] > 1.2 * more[1]
    assert set(truth.artefacts.kind) >= {"twitch", "emg"}
    sos = butter(3, 250, "highpass", fs=1250, output="sos")
    high = [np.abs(hilbert(sosfiltfilt(sos, r.signals["lfp"].read()[:, 0].astype(float)))) for r in (rec, calm)]
    at = (truth.artefacts[truth.artefacts.kind == "emg"].intervals().bounds.mean(1) * 1250).astype(int)
    assert high[0][at].mean() > 2 * high[1][at].mean()


_EVERYTHING = {
    "preset": "hard", "n_amygdala": 2, "nuisance_power": 10.0, "spike_leak_rate": 0.2, "gamma_burst_rate": 0.2, "hum_wander": 0.3, "saturation": 900.0,
    "drifting_channels": 1,
}  # fmt: skip


def test_slices_agree_with_everything_switched_on():
    first, second = (synth.recording(hours=0.1, seed=7, **_EVERYTHING, **_PLAIN)[0].signals["lfp"] for _ in range(2))
    whole = first.read()
    rng = np.random.default_rng(0)
    for a in rng.integers(0, len(whole) - 30_000, size=5):
        assert np.array_equal(second.read(a, a + 30_000), whole[a : a + 30_000], equal_nan=True)
    assert np.nanmax(np.abs(whole)) <= 900.0


@pytest.mark.parametrize(("size", "values"), [("ripple_amplitude", (1e-6, 55.0)), ("gamma_burst_amplitude", (0.0, 150.0))])
def test_nothing_that_is_added_begins_or_ends_with_a_step(size, values):
    many = {"hours": 0.3, "seed": 7, "n_channels": 4, "gamma_burst_rate": 0.1, **_PLAIN}
    without, with_it = (synth.recording(**many, **{size: v})[0].signals["lfp"].read().astype(np.float64) for v in values)
    x = np.abs(with_it - without).max(1)
    # Below 1e-3 uV lies the rounding of float32; a carrier that crosses zero is no end.
    inside = maximum_filter1d(x, 25) > 1e-3
    edge = np.flatnonzero(np.diff(inside))
    assert len(edge) > 20
    assert max(x[i - 12 : i + 14].max() for i in edge) < 0.01 < 10 < x.max()


@pytest.mark.parametrize("rate", [60.0, 128.0, 512.0, 2500.0])
def test_any_rate_and_channel_count(rate):
    rec, truth = synth.recording(
        hours=0.1, seed=7, lfp_rate=rate, n_channels=1, n_cortex=0, **(_EVERYTHING | {"drifting_channels": 0, "gap_rate": 0.0}), **_PLAIN
    )
    x = rec.signals["lfp"].read()
    assert x.shape == (int(360 * rate), 3)
    assert np.isfinite(x).all()
    assert any("leaked spikes" in w for w in rec.warnings) == (rate <= 600)
    assert len(truth.decoys)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"nuisance_stage": "N2"}, "N2"), ({"nuisance_frequency": 0.0}, "nuisance_frequency"), ({"coherence_length": -1.0}, "coherence_length"),
        ({"coherence_length": float("inf")}, "coherence_length"), ({"n_amygdala": -1}, "n_amygdala"), ({"n_amygdala": 1.5}, "n_amygdala"),
        ({"hum_frequency": 0.0}, "hum_frequency"), ({"spindle_coupling": 1.5}, "spindle_coupling"), ({"infraslow_period": 0.0}, "infraslow_period"),
        ({"gamma_burst_rate": -1.0}, "gamma_burst_rate"), ({"species": "human", "eyes_closed": 2.0}, "eyes_closed"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(change, word):
    with pytest.raises(InputError, match=word):
        synth.recording(hours=0.1, **change)


@pytest.fixture(scope="module")
def night():
    return synth.recording(hours=3.0, seed=2, species="human", n_channels=8)


def test_human_eyes_chin_and_k_complexes(night):
    rec, truth = night
    x, eog, chin = (rec.signals[k].read() for k in ("eeg", "eog", "emg"))
    rate = 128.0
    stage = truth.bouts.stage.to_numpy()

    def where(t):
        return stage[np.searchsorted(truth.bouts.start.to_numpy(), t, side="right") - 1]

    eyes = truth.eyes
    assert (where(eyes.start[eyes.kind == "blink"]) == "W").all()
    assert (where(eyes.start[eyes.kind == "saccade"]) == "R").all()
    # A saccade turns both eyes one way: the two derivations, each against its own mastoid, go opposite ways.
    rem = np.repeat(truth.hypnogram.mask("R"), 3840)[: len(eog)]
    assert np.corrcoef(eog[rem].T)[0, 1] < -0.2
    assert set(where(truth.slow_waves.start[truth.slow_waves.kind == "k_complex"])) == {"N2"}
    tone = {s: np.median(np.abs(chin[np.repeat(truth.hypnogram.mask(s), 3840)[: len(chin)], 0])) for s in ("W", "N2", "R")}
    assert tone["W"] > tone["N2"] > tone["R"]
    # Twitches break the atonia.
    twitches = truth.artefacts[truth.artefacts.kind == "twitch"]
    at = (np.asarray(twitches.start + twitches.stop) / 2 * rate).astype(int)
    assert np.abs(chin[at[:, None] + np.arange(-3, 4), 0]).mean() > 3 * np.abs(chin[rem, 0]).mean()
    # Alpha comes and goes with the eyes, blinks with the alpha gone.
    sos = butter(3, [8, 12], "bandpass", fs=rate, output="sos")
    alpha = np.abs(hilbert(sosfiltfilt(sos, x[:, 6].astype(float))))
    at = (eyes.start[eyes.kind == "blink"] * rate).astype(int)
    wake = np.repeat(truth.hypnogram.mask("W"), 3840)[: len(x)]
    assert alpha[at].mean() < 0.7 * alpha[wake].mean()


def test_human_coherence_falls_over_the_scalp(night):
    x = night[0].signals["eeg"].read()[: 128 * 3600]
    names = night[0].signals["eeg"].names
    i, near, far = names.index("Fpz-Cz"), names.index("F3-A2"), names.index("Pz-Oz")
    assert _coherence(x, i, near, 20, 40, 128.0) > _coherence(x, i, far, 20, 40, 128.0) + 0.03


@pytest.mark.slow
def test_human_sigma_has_the_infraslow_rhythm():
    rhythm = {}
    for depth in (0.0, 0.9):
        _, truth = synth.recording(hours=8.0, seed=2, species="human", infraslow_depth=depth, spindle_coupling=0.0, spindle_rate=0.1)
        phase = np.exp(2j * np.pi * truth.spindles.start / 50.0)
        rhythm[depth] = abs(phase.mean())
    assert rhythm[0.0] < 0.1
    assert rhythm[0.9] > 0.3


def test_human_spindles_lie_on_up_states_where_coupled():
    share = {}
    for coupling in (0.0, 1.0):
        _, truth = synth.recording(hours=3.0, seed=2, species="human", spindle_coupling=coupling)
        middle, up = 0.5 * (truth.spindles.start + truth.spindles.stop), truth.slow_waves.peak + 0.42
        share[coupling] = np.mean(np.abs(middle[:, None] - up[None]).min(1) < 0.25)
        assert (np.diff(truth.spindles.start) > 1.0).all()
    assert share[1.0] > 0.2 > 0.1 > share[0.0]


@pytest.mark.parametrize("species", ["mouse", "human"])
def test_the_infraslow_rhythm_of_spindles_begins_anywhere(species):
    own = {"n_cells": 0} if species == "mouse" else {}
    phases = []
    for seed in range(6):
        spindles = synth.recording(hours=6.0, seed=seed, species=species, **own)[1].spindles
        phases.append(np.angle(np.exp(2j * np.pi * spindles.start / 50.0).mean()))
    assert np.abs(np.exp(1j * np.array(phases)).mean()) < 0.85


def test_a_rat_and_a_mouse_of_one_seed_share_nothing():
    mouse, rat = (synth.recording(hours=0.1, seed=1, species=s, n_cells=0)[0].signals["lfp"].read(0, 60_000)[:, 0] for s in ("mouse", "rat"))
    assert abs(np.corrcoef(np.diff(mouse, 2), np.diff(rat, 2))[0, 1]) < 0.02


def test_ripples_peak_at_any_phase():
    many = {"hours": 0.5, "seed": 7, "n_channels": 1, "n_cortex": 0, **_PLAIN}
    (_, truth), (with_it, _) = synth.recording(**many, ripple_amplitude=1e-6), synth.recording(**many)
    without = synth.recording(**many, ripple_amplitude=1e-6)[0]
    x = (with_it.signals["lfp"].read() - without.signals["lfp"].read())[:, 0].astype(np.float64)
    fast = sosfiltfilt(butter(3, 100, "highpass", fs=1250.0, output="sos"), x)
    middle = np.rint(0.5 * (truth.ripples.start + truth.ripples.stop) * 1250).astype(int)
    assert 0.3 < (fast[middle] > 0).mean() < 0.7


def test_k_complexes_reach_the_eyes(night):
    rec, truth = night
    waves = truth.slow_waves[truth.slow_waves.kind == "k_complex"]
    at = np.rint(waves.peak * 128).astype(int)
    eog = rec.signals["eog"].read()[:, 0].astype(np.float64)
    mean = np.mean([eog[k - 64 : k + 64] for k in at if 64 < k < len(eog) - 64], axis=0)
    assert mean[54:74].min() < -10
