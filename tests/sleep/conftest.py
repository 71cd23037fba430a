"""Small recordings whose stages are known: spectra and muscle tone that change with a hypnogram."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from brainmu.core import Hypnogram, Recording


def hypnogram(rng: np.random.Generator, epochs: int, epoch: float = 4.0) -> Hypnogram:
    """WAKE, NREM, REM in turn, with bouts of about a minute; REM from NREM only."""
    codes: list[int] = []
    while len(codes) < epochs:
        codes += [0] * int(rng.integers(8, 40)) + [1] * int(rng.integers(15, 50)) + ([2] * int(rng.integers(8, 25)) if rng.random() < 0.7 else [])
    return Hypnogram(np.array(codes[:epochs]), "rodent3", epoch)


def mouse(seed: int = 0, *, epochs: int = 450, rate: float = 200.0, channels: int = 1, gain: float = 1.0, rectify: bool = False, emg: bool = True) -> Recording:
    """EEG with delta in NREM and theta in REM (and some in WAKE), EMG with tone in WAKE; the label "scoring"."""
    rng = np.random.default_rng(seed)
    h = hypnogram(rng, epochs)
    n = int(epochs * h.epoch * rate)
    state = h.codes[np.minimum((np.arange(n) / rate / h.epoch).astype(int), epochs - 1)]
    f = np.fft.rfftfreq(n, 1 / rate)

    def band(low: float, high: float) -> np.ndarray:
        spectrum = (rng.standard_normal(len(f)) + 1j * rng.standard_normal(len(f))) * ((f >= low) & (f < high))
        x = np.fft.irfft(spectrum, n)
        return x / x.std()

    pink = np.fft.irfft((rng.standard_normal(len(f)) + 1j * rng.standard_normal(len(f))) / np.maximum(f, 0.5), n)
    delta, theta = band(1, 4) * np.array([0.5, 3.0, 0.5])[state], band(6, 8.5) * np.array([0.5, 0.3, 2.0])[state]
    eeg = np.stack([gain * (0.8 * pink / pink.std() + delta + theta + 0.2 * rng.standard_normal(n)) for _ in range(channels)], axis=1)
    tone = rng.standard_normal(n) * np.array([3.0, 1.0, 0.7])[state] * gain
    signals = {"eeg": {"values": eeg, "rate": rate, "unit": "uV", "kind": "eeg"}}
    if emg:
        signals["emg"] = {"values": np.abs(tone) if rectify else tone, "rate": rate, "unit": "uV", "kind": "emg"}
    return Recording.from_arrays(f"mouse_{seed}", f"m{seed}", "mouse", signals=signals, labels={"scoring": h})


def night(seed: int, *, epochs: int = 240, features: int = 6, signal: float = 1.5) -> Recording:
    """A features stream of one value in 30 s that tells AASM stages apart by `signal` SDs."""
    rng = np.random.default_rng(seed)
    codes: list[int] = []
    while len(codes) < epochs:
        codes += [int(rng.choice(5, p=[0.2, 0.1, 0.4, 0.15, 0.15]))] * int(rng.integers(3, 20))
    y = np.array(codes[:epochs])
    centres = np.random.default_rng(99).standard_normal((5, features)) * signal
    x = centres[y] + rng.standard_normal((epochs, features))
    stream = {"values": x.astype(np.float32), "rate": 1 / 30, "kind": "features"}
    return Recording.from_arrays(f"night_{seed}", f"h{seed}", "human", signals={"power": stream}, labels={"scoring": Hypnogram(y, "aasm5", 30.0)})


@pytest.fixture(scope="session")
def make_mouse() -> Callable[..., Recording]:
    return mouse


@pytest.fixture(scope="session")
def make_night() -> Callable[..., Recording]:
    return night
