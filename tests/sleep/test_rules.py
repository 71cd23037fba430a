"""Rule-based staging: right on clean mice of any gain, rate and channel count, refuses and grades where it cannot be."""

from __future__ import annotations

import numpy as np
import pytest

from brainmu.core import Hypnogram, Recording, Signal
from brainmu.errors import InputError, MissingDataError
from brainmu.sleep import evaluate, stage_by_rules
from brainmu.sleep.rules import absorb_short
from brainmu.sleep.thresholds import find_threshold, sticky


@pytest.mark.parametrize(
    "options",
    [{}, {"rectify": True}, {"gain": 1e-3, "rate": 250.0}, {"gain": 1e4, "channels": 3}, {"rate": 128.0}],
    ids=["plain", "rectified", "small", "three channels", "slow"],
)
def test_planted_stages(make_mouse, options):
    rec = make_mouse(1, **options)
    h = stage_by_rules(rec, 4.0)
    scores = evaluate(h, rec.labels["scoring"])
    assert scores["kappa"] > 0.85
    assert scores["f1"]["REM"] > 0.8
    assert h.attrs["centred"] is True and h.attrs["muscle"] == "emg"
    assert np.allclose(h.proba.sum(1), 1, atol=1e-4)


@pytest.mark.parametrize("epoch", [1.0, 2.5, 10.0])
def test_epoch_lengths(make_mouse, epoch):
    rec = make_mouse(2)
    h = stage_by_rules(rec, epoch)
    assert h.epoch == epoch and evaluate(h, rec.labels["scoring"])["kappa"] > 0.8


def test_noise_is_graded_poor():
    rng = np.random.default_rng(0)
    noise = {k: {"values": rng.standard_normal((200 * 2400, 1)), "rate": 200.0, "kind": k} for k in ("eeg", "emg")}
    h = stage_by_rules(Recording.from_arrays("noise", signals=noise), 4.0)
    assert h.attrs["quality"] == "poor"
    assert any("no dip" in r for r in h.attrs["reasons"])


def test_gaps_are_unscored(make_mouse):
    rec = make_mouse(3)
    x = rec.signals["eeg"].values.copy()
    x[200 * 400 : 200 * 480] = np.nan
    rec = Recording.from_arrays("gap", signals={"eeg": {"values": x, "rate": 200.0, "kind": "eeg"}, "emg": rec.signals["emg"]}, labels=rec.labels)
    h = stage_by_rules(rec, 4.0)
    assert (h.codes[101:119] == -2).all() and (h.codes[:98] >= 0).all() and (h.codes[122:] >= 0).all()
    assert np.isnan(h.proba[105]).all()


def test_without_muscle_is_refused_with_the_reason(make_mouse):
    with pytest.raises(MissingDataError, match="muscle tone"):
        stage_by_rules(make_mouse(1, emg=False), 4.0)
    lfp = {"values": np.random.default_rng(0).standard_normal((60_000, 4)), "rate": 1000.0, "kind": "lfp"}
    with pytest.raises(MissingDataError, match="1250 Hz"):
        stage_by_rules(Recording.from_arrays("lfp", signals={"lfp": lfp}), 4.0)


@pytest.mark.parametrize("share", [0.9, 0.45, 0.3])
def test_where_the_emg_is_missing_nothing_is_scored_and_the_grade_says_so(make_mouse, share):
    rec = make_mouse(1, epochs=900)
    emg = rec.signals["emg"].values.copy()
    emg[int(share * len(emg)) :] = np.nan
    signals = {"eeg": rec.signals["eeg"], "emg": {"values": emg, "rate": 200.0, "kind": "emg"}}
    h = stage_by_rules(Recording.from_arrays("unplugged", signals=signals, labels=rec.labels), 4.0)
    last = int(share * 900)
    assert (h.codes[: last - 1] >= 0).all() and (h.codes[last + 2 :] == -2).all()
    assert evaluate(h, rec.labels["scoring"])["kappa"] > 0.85
    assert h.attrs["quality"] == ("fair" if share == 0.9 else "poor")
    assert any(f"unscored, for want of muscle tone in {1 - share:.0%}" in r for r in h.attrs["reasons"])


def test_another_species_is_graded_poor(make_mouse):
    rec = make_mouse(1)
    person = stage_by_rules(Recording.from_arrays("p", species="human", signals=dict(rec.signals)), 4.0)
    assert person.attrs["quality"] == "poor" and "human" in person.attrs["reasons"][0]


def test_an_emg_of_a_few_minutes_is_no_muscle_tone(make_mouse):
    rec = make_mouse(1)
    emg = rec.signals["emg"].values.copy()
    emg[len(emg) // 20 :] = np.nan
    signals = {"eeg": rec.signals["eeg"], "emg": {"values": emg, "rate": 200.0, "kind": "emg"}}
    with pytest.raises(MissingDataError, match="every EMG channel is flat or missing"):
        stage_by_rules(Recording.from_arrays("short", signals=signals), 4.0)


@pytest.mark.parametrize("level", [0.01, 0.3, 3.0])
def test_an_emg_of_noise_alone_is_graded_whatever_its_level(make_mouse, level):
    rec = make_mouse(6, rate=100.0)
    emg, half = rec.signals["emg"].values.copy(), len(rec.signals["emg"].values) // 2
    sound = stage_by_rules(rec, 4.0)
    emg[half:] = level * np.random.default_rng(0).standard_normal((len(emg) - half, 1))
    signals = {"eeg": rec.signals["eeg"], "emg": {"values": emg, "rate": 100.0, "unit": "uV", "kind": "emg"}}
    h = stage_by_rules(Recording.from_arrays("loose", species="mouse", signals=signals), 4.0)
    assert h.attrs["quality"] == "poor" and any("min as even as noise while slow waves" in r for r in h.attrs["reasons"])
    assert not any("as even as noise" in r for r in sound.attrs["reasons"])


def test_eog_without_a_species_speaks_for_people(make_mouse):
    rec = make_mouse(7, epochs=200, rate=100.0)
    signals = rec.signals | {"eog": {"values": rec.signals["eeg"].values, "rate": 100.0, "kind": "eog"}}
    reasons = stage_by_rules(Recording.from_arrays("psg", signals=signals), 4.0).attrs["reasons"]
    assert any("holds EOG and names no species" in r for r in reasons)
    assert not any("EOG" in r for r in stage_by_rules(Recording.from_arrays("m", species="mouse", signals=signals), 4.0).attrs["reasons"])


def test_emg_from_lfp_finds_shared_muscle():
    rng = np.random.default_rng(4)
    rate, epochs = 1250.0, 200
    codes = np.repeat([0, 1, 0, 1, 2], 40)
    n = int(epochs * 4 * rate)
    state = codes[np.minimum((np.arange(n) / rate / 4).astype(int), epochs - 1)]
    t = np.arange(n) / rate
    shared = rng.standard_normal(n) * np.array([1.0, 0.1, 0.05])[state]
    slow = np.array([0.3, 3.0, 0.3])[state] * np.sin(2 * np.pi * 2 * t + np.cumsum(rng.standard_normal(n)) * 0.02)
    theta = np.array([0.3, 0.2, 2.0])[state] * np.sin(2 * np.pi * 7 * t)
    x = np.stack([slow + theta + shared + 0.5 * rng.standard_normal(n) for _ in range(3)], axis=1)
    rec = Recording.from_arrays("lfp", signals={"lfp": {"values": x, "rate": rate, "kind": "lfp"}})
    h = stage_by_rules(rec, 4.0)
    assert h.attrs["muscle"] == "lfp" and "muscle tone is estimated from LFP" in h.attrs["reasons"]
    assert evaluate(h, Hypnogram(codes, "rodent3", 4.0))["kappa"] > 0.85


def test_a_stored_correlation_of_lfp_sites_serves_where_there_is_no_emg_and_gives_way_where_there_is(make_mouse):
    rec = make_mouse(1)
    with_emg = stage_by_rules(rec, 4.0)
    emg = rec.signals["emg"]
    t = np.arange(emg.start + 0.25, emg.stop - 0.25, 0.5)
    level = np.array([np.log10(emg.span(a - 0.25, a + 0.25)[1].std()) for a in t])
    level = (level - level.min()) / np.ptp(level)
    rec.signals["emg_from_lfp"] = Signal(level, 2.0, t[0], unit="1", kind="emg", attrs={"derived": {"from": "lfp"}})
    np.testing.assert_array_equal(stage_by_rules(rec, 4.0).codes, with_emg.codes)
    del rec.signals["emg"]
    h = stage_by_rules(rec, 4.0)
    assert h.attrs["muscle"] == "lfp" and any("'emg_from_lfp'" in reason for reason in h.attrs["reasons"])
    assert evaluate(h, rec.labels["scoring"])["kappa"] > 0.8


@pytest.mark.parametrize("epoch", [0.5, 30.0])
def test_epoch_out_of_range(make_mouse, epoch):
    with pytest.raises(InputError, match="1 to 10 s"):
        stage_by_rules(make_mouse(1, epochs=20), epoch)


def test_flat_channel(make_mouse):
    rec = make_mouse(1, channels=2)
    x = rec.signals["eeg"].values.copy()
    x[:, 1] = 7.0
    rec = Recording.from_arrays("flat", signals={"eeg": {"values": x, "rate": 200.0, "kind": "eeg"}, "emg": rec.signals["emg"]}, labels=rec.labels)
    h = stage_by_rules(rec, 4.0)
    assert evaluate(h, rec.labels["scoring"])["kappa"] > 0.85
    assert any("flat or missing" in r for r in h.attrs["reasons"])
    x[:] = 0.0
    with pytest.raises(MissingDataError, match="flat"):
        stage_by_rules(Recording.from_arrays("dead", signals={"eeg": {"values": x, "rate": 200.0, "kind": "eeg"}, "emg": rec.signals["emg"]}), 4.0)


def test_threshold_of_one_hump_says_so():
    t = find_threshold(np.random.default_rng(0).standard_normal(2000))
    assert t.method == "mixture" and ("hump" in t.note or "deep" in t.note)
    with pytest.raises(MissingDataError, match="does not vary"):
        find_threshold(np.ones(100))


def test_sticky_ignores_grazes():
    t = find_threshold(np.r_[np.random.default_rng(0).normal(0, 0.5, 500), np.random.default_rng(1).normal(4, 0.5, 500)])
    x = np.r_[np.zeros(5), [t.value + 0.2], np.zeros(5), np.full(5, 4.0), [t.value - 0.2], np.full(5, 4.0)]
    assert sticky(x, t).tolist() == [False] * 11 + [True] * 11


def test_absorb_short():
    assert absorb_short(np.array([0, 0, 0, 1, 0, 0, 2, 2, 2, 2], dtype=np.int8), 2).tolist() == [0] * 6 + [2] * 4


@pytest.mark.realdata
def test_real_mouse(real_data):
    folder = real_data / "mouse-eeg-emg"
    eeg, emg, codes = (np.load(folder / f"{k}_Acq4_hr0.npy") for k in ("EEG", "EMG", "States"))
    reference = Hypnogram.from_stages([("UNS", "WAKE", "NREM", "REM")[int(c)] for c in codes], epoch=4.0)
    signals = {k: {"values": v, "rate": 200.0, "kind": k} for k, v in (("eeg", eeg), ("emg", emg))}
    scores = evaluate(stage_by_rules(Recording.from_arrays("real", species="mouse", signals=signals), 4.0), reference)
    assert scores["kappa"] >= 0.8 and scores["f1"]["REM"] > 0.7
    # The wire comes loose halfway: what is left is the noise of the amplifier, and waking without muscle tone looks like REM.
    loose, half = emg.ravel().copy(), emg.size // 2
    loose[half:] = np.abs(np.random.default_rng(0).standard_normal(emg.size - half)) * 0.01 * emg.std()
    h = stage_by_rules(Recording.from_arrays("loose", species="mouse", signals=signals | {"emg": {"values": loose, "rate": 200.0, "kind": "emg"}}), 4.0)
    assert h.attrs["quality"] == "poor" and "the EMG changes its level for good at 11 min" in h.attrs["reasons"][0]


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "seed"), [("typical", 5), ("hard", 4)])
def test_synthetic_mice(preset, seed):
    from brainmu.synth import recording

    rec, _ = recording(hours=1, seed=seed, preset=preset, lfp_rate=250.0, n_cells=0, n_channels=2, run_minutes=0)
    scores = evaluate(stage_by_rules(rec, 4.0), rec.labels["scoring"])
    assert scores["kappa"] > 0.85 and scores["f1"]["REM"] > 0.85
