"""Slow waves: planted ones are found at any gain, and the down state is told from the up state."""

from __future__ import annotations

import numpy as np
import pytest

import brainmu as bm
from brainmu.core import Recording
from brainmu.core.metrics import event_scores
from brainmu.errors import InputError
from brainmu.sleep import find_slow_waves


def _pink(rng: np.random.Generator, n: int, rate: float) -> np.ndarray:
    f = np.fft.rfftfreq(n, 1 / rate)
    x = np.fft.irfft((rng.standard_normal(len(f)) + 1j * rng.standard_normal(len(f))) / np.maximum(f, 0.5), n)
    return x / x.std()


def _deep(seed: int, side: float = 1.0, *, spikes: bool = False, gamma: bool = False) -> tuple[Recording, np.ndarray]:
    """LFP of a rodent whose down states, every 3 s, are deflections to one side; units are silent and gamma is gone in them where asked for."""
    rng = np.random.default_rng(seed)
    rate, n = 400.0, 400 * 600
    x, t = 20 * _pink(rng, n, rate), np.arange(n) / 400.0
    at = np.arange(5.0, 595.0, 3.0) + rng.uniform(-0.5, 0.5, 197)
    near = np.zeros(n)
    for a in at:
        shape = np.exp(-0.5 * ((t[int((a - 1) * rate) : int((a + 1) * rate)] - a) / 0.08) ** 2)
        near[int((a - 1) * rate) : int((a + 1) * rate)] += shape
    x += side * 120 * near
    fast = np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * ((np.fft.rfftfreq(n, 1 / rate) > 35) & (np.fft.rfftfreq(n, 1 / rate) < 80)), n)
    x += 8 * fast / fast.std() * (1 - 0.9 * near if gamma else 1)
    s = np.sort(rng.uniform(0, 600, 12_000))
    s = s[np.abs(s[:, None] - at[None]).min(axis=1) > 0.1]
    signals = {"lfp": {"values": x, "rate": rate, "unit": "uV", "kind": "lfp"}}
    return Recording.from_arrays("deep", species="mouse", signals=signals, spikes={"times": s, "unit": np.arange(len(s)) % 20} if spikes else None), at


@pytest.mark.parametrize(("species", "frequency"), [("human", 0.8), ("mouse", 2.0)])
def test_planted_slow_waves(species, frequency):
    rate, n = 200.0, 200 * 600
    x = 6 * _pink(np.random.default_rng(8), n, rate)
    at = np.arange(10.0, 590.0, 6.0)
    for a in at:
        i, m = int(a * rate), int(rate / frequency)
        x[i : i + m] -= 100 * np.sin(2 * np.pi * np.arange(m) / m)
    rec = Recording.from_arrays("w", species=species, signals={"eeg": {"values": x[:n], "rate": rate, "unit": "uV", "kind": "eeg"}})
    e = find_slow_waves(rec)
    planted = np.c_[at, at + 1 / frequency]
    assert event_scores(np.c_[e.start, e.stop], planted, 0.3)["recall"] > 0.9
    hit = e[e.match(type(e)(planted[:, 0], planted[:, 1]), 0.3)[:, 0]]
    assert 0.2 < np.median((hit.peak - hit.start) * frequency) < 0.4  # the trough lies in the first half
    flipped = find_slow_waves(Recording.from_arrays("w", species=species, signals={"eeg": {"values": -x, "rate": rate, "kind": "eeg"}}), polarity="positive")
    assert np.allclose(flipped.start, e.start)


@pytest.mark.parametrize(("side", "told"), [(1.0, "spikes"), (-1.0, "spikes"), (1.0, "gamma"), (-1.0, "gamma")])
def test_the_down_state_is_where_units_or_gamma_are_silent(side, told):
    rec, at = _deep(3, side, **{told: True})
    e = find_slow_waves(rec)
    assert e.polarity == ("positive" if side > 0 else "negative")
    assert e.polarity_by.startswith("units are silent" if told == "spikes" else "gamma is low")
    assert (np.abs(e.peak[:, None] - at[None]).min(axis=1) < 0.1).mean() > 0.8 and len(e) > 100


def test_without_a_sign_of_silence_it_is_taken_and_said():
    e = find_slow_waves(_deep(4)[0])
    assert e.polarity == "positive" and "neither" in e.polarity_by
    assert find_slow_waves(_deep(4)[0], polarity="negative").polarity_by == "given"


def test_planted_night_of_k_complexes_and_slow_waves():
    rec, truth = bm.synth.recording(hours=1.2, seed=15, species="human", n_channels=1)
    e = find_slow_waves(rec, hypnogram=truth.hypnogram)
    light = truth.hypnogram.intervals("N2")
    found, planted = e[light.contains(e.peak)], truth.slow_waves[light.contains(truth.slow_waves.peak)]
    scores = event_scores(np.c_[found.start, found.stop], np.c_[planted.start, planted.stop], 0.2)
    # In N3 the planted background is itself slow waves; in N2 the planted ones stand alone.
    assert scores["precision"] > 0.7 and scores["recall"] > 0.5
    lenient = find_slow_waves(rec, hypnogram=truth.hypnogram, threshold=1.25)
    assert len(lenient) > 1.2 * len(e)


def test_a_planted_mouse_is_read_the_right_way_up():
    rec, truth = bm.synth.recording(hours=0.4, seed=5, species="mouse", n_cells=4, lfp_rate=250.0)
    e = find_slow_waves(rec, hypnogram=truth.hypnogram)
    assert e.polarity == "positive"
    assert (np.abs(e.peak[:, None] - truth.slow_waves.peak[None]).min(axis=1) < 0.12).mean() > 0.5
    wrong = find_slow_waves(rec, hypnogram=truth.hypnogram, polarity="negative")
    assert (np.abs(wrong.peak[:, None] - truth.slow_waves.peak[None]).min(axis=1) < 0.12).mean() < 0.1


def test_wrong_polarity_is_refused():
    with pytest.raises(InputError, match="polarity"):
        find_slow_waves(_deep(1)[0], polarity="up")
