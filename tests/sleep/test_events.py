"""Spindles and slow waves: planted ones are found at any gain, noise holds almost none."""

from __future__ import annotations

import numpy as np
import pytest

from brainmu.core import Hypnogram, Intervals, Recording
from brainmu.core.metrics import event_scores
from brainmu.errors import MissingDataError
from brainmu.sleep import find_slow_waves, find_spindles


def _noise(seed: int, seconds: float, rate: float) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n = int(seconds * rate)
    f = np.fft.rfftfreq(n, 1 / rate)
    x = np.fft.irfft((rng.standard_normal(len(f)) + 1j * rng.standard_normal(len(f))) / np.maximum(f, 0.5), n)
    return 20 * x / x.std()


def _planted(seed: int = 0, rate: float = 128.0, frequency: float = 13.0, gain: float = 1.0, species: str = "human") -> tuple[Recording, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = _noise(seed, 600, rate)
    starts = np.sort(rng.choice(np.arange(5, 590, 8), 40, replace=False)) + rng.random(40)
    length = rng.uniform(0.7, 1.4, 40)
    for a, d in zip(starts, length):
        i, j = int(a * rate), int((a + d) * rate)
        t = np.arange(j - i) / rate
        x[i:j] += 25 * np.hanning(j - i) * np.sin(2 * np.pi * frequency * t)
    signals = {"eeg": {"values": gain * x, "rate": rate, "unit": "uV", "kind": "eeg"}}
    return Recording.from_arrays("s", species=species, signals=signals), np.c_[starts, starts + length]


@pytest.mark.parametrize(("rate", "gain"), [(128.0, 1.0), (500.0, 1e-4), (1250.0, 30.0)])
def test_planted_spindles(rate, gain):
    rec, truth = _planted(1, rate=rate, gain=gain)
    e = find_spindles(rec)
    scores = event_scores(np.c_[e.start, e.stop], truth, 0.2)
    assert scores["f1"] > 0.85
    assert abs(np.median(e.frequency) - 13) < 0.5
    assert e.baseline == "session" and e.surrogate_rate < 0.2 * e.rate
    assert ((e.peak >= e.start) & (e.peak <= e.stop)).all()


def test_gain_changes_nothing():
    a, b = (find_spindles(_planted(2, gain=g)[0]) for g in (1.0, 1000.0))
    assert len(a) == len(b) > 0 and np.allclose(a.start, b.start, atol=0.02)
    assert np.allclose(a.amplitude * 1000, b.amplitude, rtol=1e-2)


def test_rodent_band_is_wider():
    rec, truth = _planted(3, rate=250.0, frequency=9.5, species="mouse")
    recall = {}
    for species in ("mouse", "human"):
        e = find_spindles(Recording.from_arrays("r", species=species, signals=rec.signals))
        recall[species] = event_scores(np.c_[e.start, e.stop], truth, 0.2)["recall"]
    assert recall["mouse"] > 0.6 and recall["mouse"] > recall["human"] + 0.3


def test_noise_holds_few():
    rec = Recording.from_arrays("n", signals={"eeg": {"values": _noise(5, 900, 128.0), "rate": 128.0, "kind": "eeg"}})
    assert find_spindles(rec).rate < 1.0


def test_only_nrem_when_scored():
    rec, _ = _planted(6)
    rec.labels["scoring"] = Hypnogram(np.r_[np.zeros(10, int), np.full(10, 2)], "aasm5", 30.0)
    e = find_spindles(rec)
    assert e.baseline == "NREM" and len(e) and (e.peak >= 299).all()
    inside = find_spindles(rec, within=Intervals([[0.0, 200.0]]))
    assert len(inside) and (inside.peak < 200).all()


def test_a_hypnogram_of_other_times_is_refused():
    rec, _ = _planted(3)
    later = Hypnogram(np.ones(150, dtype=int), "rodent3", 4.0, 5000.0)
    for find in (find_spindles, find_slow_waves):
        with pytest.raises(MissingDataError, match="5000-5600 s and the data 0-600 s"):
            find(rec, hypnogram=later)


def test_gap_is_not_an_event():
    rec, _ = _planted(7)
    x = rec.signals["eeg"].values.copy()
    x[20_000:26_000] = np.nan
    e = find_spindles(Recording.from_arrays("g", signals={"eeg": {"values": x, "rate": 128.0, "kind": "eeg"}}))
    assert len(e) > 20
    assert not ((e.start < 26_000 / 128) & (e.stop > 20_000 / 128)).any()


def test_wrong_use():
    rec, _ = _planted(9)
    with pytest.raises(MissingDataError, match="not together"):
        find_spindles(rec, channels=["Cz"])
    with pytest.raises(MissingDataError, match="no data"):
        find_spindles(rec, within=Intervals([[5000.0, 6000.0]]))
    slow = Recording.from_arrays("s", signals={"eeg": {"values": np.zeros(100), "rate": 20.0, "kind": "eeg"}})
    with pytest.raises(MissingDataError, match="at least"):
        find_spindles(slow)
    flat = Recording.from_arrays("f", signals={"eeg": {"values": np.zeros(20_000), "rate": 100.0, "kind": "eeg"}})
    with pytest.raises(MissingDataError, match="flat"):
        find_spindles(flat)


@pytest.mark.realdata
@pytest.mark.slow
def test_dreams_against_experts(real_data):
    folder = real_data / "human-dreams-spindles"
    scores = []
    for i, rate in {1: 100.0, 2: 200.0, 3: 50.0, 5: 200.0}.items():
        x = np.loadtxt(folder / f"excerpt{i}.txt", skiprows=1)
        e = find_spindles(Recording.from_arrays(f"e{i}", species="human", signals={"eeg": {"values": x, "rate": rate, "unit": "uV", "kind": "eeg"}}))
        for s in (1, 2):
            v = np.loadtxt(folder / f"Visual_scoring{s}_excerpt{i}.txt", skiprows=1)
            scores.append(event_scores(np.c_[e.start, e.stop], np.c_[v[:, 0], v[:, 0] + v[:, 1]], 0.2)["f1"])
    assert np.mean(scores) > 0.48
