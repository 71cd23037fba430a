from __future__ import annotations

import numpy as np
import pytest
from scipy import fft as sp_fft

import brainmu as bm
from brainmu.core import Hypnogram, Intervals
from brainmu.errors import BrainmuError, InputError, MissingDataError
from brainmu.replay.events import find_events

RATE = 1250.0


def coloured(seconds: float, seed: int, exponent: float, channels: int = 4, shared: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n = int(seconds * RATE)
    shape = np.maximum(np.fft.rfftfreq(n, 1 / RATE), 0.5) ** (-exponent / 2)
    x = sp_fft.irfft(sp_fft.rfft(rng.standard_normal((n, channels + 1), dtype=np.float32), axis=0) * shape[:, None].astype(np.float32), n, axis=0)
    x = np.sqrt(1 - shared) * x[:, :-1] + np.sqrt(shared) * x[:, -1:]
    return (100 * x / x.std()).astype(np.float32)


def add_burst(x: np.ndarray, at: float, length: float, frequency: float, size: float) -> None:
    i = int(at * RATE)
    t = np.arange(int(length * RATE)) / RATE
    x[i : i + len(t)] += (size * np.hanning(len(t)) * np.sin(2 * np.pi * frequency * t))[:, None]


def in_band_sd(x: np.ndarray, low: float = 150, high: float = 250) -> float:
    f = np.fft.rfftfreq(len(x), 1 / RATE)
    return float(np.fft.irfft(np.where((f >= low) & (f <= high), np.fft.rfft(x[:, 0]), 0), len(x)).std())


@pytest.fixture(scope="module")
def rippled() -> tuple[np.ndarray, np.ndarray]:
    x = coloured(300, 3, 1.5)
    sd = in_band_sd(x)
    rng = np.random.default_rng(4)
    start = np.arange(3, 297, 3.0) + rng.uniform(0, 1, 98)
    length = rng.uniform(0.05, 0.12, 98)
    for a, d in zip(start, length):
        add_burst(x, a, d, rng.uniform(160, 220), 6 * sd)
    return x, np.c_[start, start + length]


@pytest.mark.parametrize(("exponent", "seed"), [(0.0, 0), (1.0, 1)])
def test_noise_holds_fewer_than_five_ripples_in_ten_minutes(make_lfp, exponent: float, seed: int) -> None:
    found = find_events(make_lfp(coloured(600, seed, exponent, shared=0.0 if exponent == 0 else 0.5)))
    assert len(found) < 5 and found.surrogate_rate < 0.5 and found.baseline == "session"


def test_planted_ripples_are_found_where_they_are(make_lfp, rippled) -> None:
    x, truth = rippled
    found = find_events(make_lfp(x))
    pairs = found.match(bm.EventTable(truth[:, 0], truth[:, 1]), 0.3)
    assert len(pairs) > 0.9 * len(truth) and len(found) < 1.05 * len(truth)
    assert (found.duration <= 3 * (truth[:, 1] - truth[:, 0]).max()).all()
    assert ((found.frequency > 140) & (found.frequency < 240)).mean() > 0.95
    middle = truth.mean(1)[pairs[:, 1]]
    assert np.abs(found.peak[pairs[:, 0]] - middle).mean() < 0.01
    assert found.rate == pytest.approx(len(found) / 5, rel=1e-6) and found.channels == ["lfp_0", "lfp_1", "lfp_2", "lfp_3"]


def test_gamma_muscle_transients_and_hum_are_not_ripples(make_lfp) -> None:
    x = coloured(300, 5, 1.5)
    rng = np.random.default_rng(6)
    for a in np.arange(2, 298, 8.0):
        add_burst(x, a, 0.1, rng.uniform(80, 115), 6 * in_band_sd(x, 70, 130))
        i = int((a + 2) * RATE)
        x[i : i + 300] += (np.diff(rng.normal(size=301)) * 40 * np.hanning(300))[:, None]
        i = int((a + 4) * RATE)
        x[i : i + 100] += (800 * np.exp(-np.arange(100) / 10))[:, None]
    t = np.arange(len(x)) / RATE
    x += sum(30 / k * np.sin(2 * np.pi * 50 * k * t) for k in range(1, 6))[:, None]
    found = find_events(make_lfp(x))
    assert len(found) <= 5 and sum(found.vetoed.values()) > 20


def test_result_does_not_depend_on_where_time_starts_nor_on_units(make_lfp, rippled) -> None:
    x, _ = rippled
    a = find_events(make_lfp(x))
    later = bm.Recording.from_arrays("l", signals={"lfp": {"values": x * 0.001, "rate": RATE, "unit": "x", "kind": "lfp", "start": 1234.0}})
    b = find_events(later)
    assert len(a) == len(b) and np.allclose(b.start - a.start, 1234.0, atol=1e-6)


def test_blocks_do_not_show(make_lfp, rippled, monkeypatch) -> None:
    from brainmu.replay import ripples

    x, _ = rippled
    whole = find_events(make_lfp(x), threshold=5.0)
    monkeypatch.setattr(ripples, "_BLOCK_SECONDS", 17.0)
    parts = find_events(make_lfp(x), threshold=5.0)
    assert len(whole.match(parts, 0.8)) > 0.97 * max(len(whole), len(parts))


def test_within_and_baseline_are_honoured(make_lfp, rippled) -> None:
    x, _ = rippled
    stages = ["WAKE"] * 30 + ["NREM"] * 45
    scored = Hypnogram.from_stages(stages, epoch=4.0)
    rec = make_lfp(x, labels={"scoring": scored})
    inside = Intervals([[100, 160]])
    found = find_events(rec, within=inside)
    assert found.baseline == "NREM" and len(found) > 10
    assert inside.contains(found.peak).all()
    assert find_events(rec, baseline="session").baseline == "session"
    assert find_events(rec, baseline=Intervals([[0, 60]])).baseline == "given"


def test_movement_is_left_out_unless_asked_for(make_lfp, rippled) -> None:
    x, _ = rippled
    t = np.arange(300 * 30) / 30
    place = np.where(t < 150, 0.5 * np.sin(t), 0.5 * np.sin(150))
    signals = {
        "lfp": {"values": x, "rate": RATE, "unit": "uV", "kind": "lfp"},
        "position": {"values": place[:, None], "rate": 30.0, "unit": "m", "kind": "position", "channels": ["x"]},
    }
    rec = bm.Recording.from_arrays("m", signals=signals)
    still, all_ = find_events(rec), find_events(rec, movement=True)
    assert still.baseline == "immobility" and len(all_) > 1.6 * len(still) and "0.04 m/s" in still.movement


def test_missing_samples_and_dead_channels(make_lfp, rippled) -> None:
    x, truth = (v.copy() for v in rippled)
    x[:, 1] = 0
    x[100_000:110_000] = np.nan
    found = find_events(make_lfp(x))
    assert found.channels == ["lfp_0", "lfp_2", "lfp_3"] and len(found) > 0.85 * len(truth)
    gap = Intervals([[80.0, 88.0]])
    assert not gap.contains(found.peak).any()


def test_many_channels_are_narrowed_to_those_with_ripples(make_lfp, rippled) -> None:
    x, _ = rippled
    quiet = coloured(300, 9, 1.5, channels=12)
    found = find_events(make_lfp(np.c_[quiet, x]))
    assert len(found.channels) == 8 and {f"lfp_{k}" for k in range(12, 16)} <= set(found.channels) and "8 of 16" in found.selection


def test_bursts_are_found_and_their_surrogates_counted(make_session) -> None:
    s = make_session(seed=2)
    found = find_events(s.recording, "burst", within=s.recording.labels["rest"], baseline=s.recording.labels["rest"])
    assert len(s.events.match(found, 0.3)) > 50 and found.baseline == "given"
    assert (found.score >= 2).all() and (found.n_units >= 3).all() and found.surrogate_rate > 0


def test_bad_input_is_an_error_that_names_it(make_lfp, make_session) -> None:
    x = coloured(30, 0, 1.0)
    slow = bm.Recording.from_arrays("s", signals={"lfp": {"values": x, "rate": 400.0, "unit": "uV", "kind": "lfp"}})
    for call, words in [
        (lambda: find_events(slow), "sampled at 400 Hz"),
        (lambda: find_events(make_lfp(x), kind="riple"), "did you mean 'ripple'"),
        (lambda: find_events(make_lfp(x), shortes=0.1), "did you mean 'shortest'"),
        (lambda: find_events(make_lfp(x), channels=["CA1"]), "not together"),
        (lambda: find_events(make_lfp(np.full_like(x, np.nan))), "free of gaps"),
        (lambda: find_events(make_lfp(np.zeros_like(x))), "flat"),
        (lambda: find_events(make_session(bursts=4).recording), "no LFP"),
        (lambda: find_events(make_lfp(x), kind="burst"), "no spikes"),
        (lambda: find_events(make_lfp(x), baseline="NREM"), "hypnogram"),
        (lambda: find_events(make_lfp(x), baseline="quiet"), "expected Intervals"),
        (lambda: find_events(make_lfp(x), band=(250, 150)), "low < high"),
    ]:
        with pytest.raises(BrainmuError, match=words):
            call()
    with pytest.raises(InputError):
        find_events(make_lfp(x), kind="nap")
    with pytest.raises(MissingDataError):
        find_events(make_lfp(x), hypnogram="scoring")


def test_nothing_to_search_gives_an_empty_table(make_lfp) -> None:
    found = find_events(make_lfp(coloured(60, 1, 1.0)), within=Intervals())
    assert len(found) == 0 and "score" in found.columns
