"""A small made-up mouse: ten minutes on a track, half an hour of sleep, with ripples, place cells and trials."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from brainmu.core import EventTable, Hypnogram, Intervals, Recording


def make_mouse(seed: int = 0) -> SimpleNamespace:
    rng = np.random.default_rng(seed)
    rate, run_s, total, epoch = 625.0, 600.0, 2400.0, 4.0
    n_epochs = int(total / epoch)
    codes = np.zeros(n_epochs, dtype=np.int8)
    k = int(run_s / epoch)
    while k < n_epochs:
        for stage, mean in ((1, 60), (2, 15), (0, 4)):
            length = 1 + int(rng.exponential(mean))
            codes[k : k + length] = stage
            k += length
    proba = np.full((n_epochs, 3), 0.08) + 0.76 * np.eye(3)[codes] + rng.uniform(0, 0.25, (n_epochs, 3))
    proba /= proba.sum(1, keepdims=True)
    truth = Hypnogram(codes, "rodent3", epoch, scorer="expert")
    model_codes = np.where(rng.random(n_epochs) < 0.07, rng.integers(0, 3, n_epochs), codes).astype(np.int8)
    model = Hypnogram(model_codes, "rodent3", epoch, proba=proba, scorer="stager")

    n = int(total * rate)
    t = np.arange(n) / rate
    stage = codes[np.minimum((t / epoch).astype(int), n_epochs - 1)]
    noise = np.cumsum(rng.standard_normal((n, 2)), 0)
    noise -= np.convolve(noise[:, 0], np.ones(625) / 625, "same")[:, None]
    lfp = 12 * noise
    lfp += (np.where(stage == 1, 160, 20) * np.sin(2 * np.pi * 2.1 * t))[:, None]
    lfp += (np.where(stage == 2, 120, np.where(stage == 0, 50, 5)) * np.sin(2 * np.pi * 7.5 * t))[:, None]
    nrem = np.flatnonzero(codes == 1)
    peaks = np.sort(rng.choice(nrem, 150) * epoch + rng.uniform(0.3, 3.7, 150))
    peaks = peaks[np.r_[True, np.diff(peaks) > 0.4]]
    content = rng.choice(["A", "B"], len(peaks))
    x_pos = 1.5 + 1.5 * np.sin(2 * np.pi * np.arange(int(run_s * 30)) / 30 / 22.0)
    centres = np.linspace(0.1, 2.9, 24)
    times, units = [], []
    for u, c in enumerate(centres):
        lam = 0.2 + 14 * np.exp(-0.5 * ((x_pos - c) / 0.18) ** 2)
        fired = np.repeat(np.arange(len(x_pos)), rng.poisson(lam / 30)) / 30
        times.append(fired + rng.uniform(0, 1 / 30, len(fired)))
        units.append(np.full(len(fired), u))
        background = rng.uniform(run_s, total, rng.poisson(0.3 * (total - run_s)))
        times.append(background)
        units.append(np.full(len(background), u))
    for p, what in zip(peaks, content):
        i = int(p * rate)
        w = np.arange(-40, 40)
        lfp[i + w] += (110 * np.exp(-0.5 * (w / 14) ** 2) * np.sin(2 * np.pi * 180 * w / rate))[:, None]
        order = np.arange(24) if what == "A" else np.arange(24)[::-1]
        for rank, u in enumerate(order):
            if rng.random() < 0.7:
                times.append(np.array([p - 0.05 + 0.1 * rank / 23 + 0.003 * rng.standard_normal()]))
                units.append(np.array([u]))
    lfp[int(1500 * rate) : int(1530 * rate)] = np.nan
    emg = rng.standard_normal((n, 1)) * np.where(stage == 0, 40, np.where(stage == 1, 12, 6))[:, None]
    events = EventTable(peaks - 0.05, peaks + 0.05, peaks, content, "ripple", score=rng.gamma(4, 1, len(peaks)) + 2, p_value=rng.beta(0.5, 2, len(peaks)),
                        attrs={"method": "consensus", "rate_in_surrogates": 0.02})  # fmt: skip
    onset = np.sort(rng.uniform(run_s, total - 20, 60))
    assigned = rng.random(60) < 0.5
    trials = EventTable(onset, onset, kind="trial", content="A", assigned=assigned, delivered=assigned, probability=0.5, block=0,
                        arm=np.where(assigned, "stimulated", "control"))  # fmt: skip
    rec = Recording.from_arrays(
        "m1_day2", "m1", "mouse",
        signals={
            "lfp": dict(values=lfp.astype(np.float32), rate=rate, unit="uV", kind="lfp", channels=["CA1_1", "CA1_2"], gaps=Intervals([[1500.0, 1530.0]])),
            "emg": dict(values=emg.astype(np.float32), rate=rate, unit="uV", kind="emg", channels=["neck"]),
            "position": dict(values=x_pos.astype(np.float32), rate=30.0, unit="m", kind="position", channels=["x"]),
        },
        spikes=dict(times=np.concatenate(times), unit=np.concatenate(units)),
        labels={"scoring": truth, "run": Intervals([[0, run_s]]), "rest": Intervals([[run_s, total]]), "trials": trials},
        source={"format": "arrays", "files": [], "warnings": ["EMG starts 2 ms late"]},
    )  # fmt: skip
    return SimpleNamespace(recording=rec, truth=truth, model=model, events=events, trials=trials, centres=centres)


@pytest.fixture(scope="session")
def mouse() -> SimpleNamespace:
    return make_mouse()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "report.html"
