"""Sessions with planted replay, small enough for a test: laps on one or two tracks, then rest with bursts of the place cells."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

import brainmu as bm
from brainmu.core import EventTable, Intervals, Recording


@dataclass
class Planted:
    recording: Recording
    events: EventTable  # all bursts; column `true` says which carry a trajectory


def session(
    seed: int = 0, cells: int = 40, contexts: tuple[str, ...] = ("A",), bursts: int = 60, true: float = 0.5, laps: float = 240.0, rate_in_event: float = 25.0,
    length: float = 1.0, noise_rate: float = 0.3,
) -> Planted:  # fmt: skip
    """A share `true` of the bursts run along the track; in the others each cell fires at random by its own rate."""
    rng = np.random.default_rng(seed)
    rate = 30.0
    peaks = {c: rng.uniform(0, length, cells) for c in contexts}
    width, top = 0.08 * length, rng.lognormal(np.log(12), 0.4, cells)
    times, xy, spans, spikes, units = [], [], {}, [], []
    t0 = 0.0
    for k, c in enumerate(contexts):
        t = t0 + np.arange(int(laps * rate)) / rate
        turns = t0 + np.r_[0, np.cumsum(rng.uniform(6, 10, int(laps / 6) + 2))]  # a way takes 6-10 s
        phase = np.abs(np.interp(t, turns, np.arange(len(turns))) % 2 - 1)
        s = length * np.clip(1.15 * phase - 0.075, 0, 1)
        times.append(t)
        xy.append(np.c_[0.05 + s + 0.003 * rng.normal(size=len(t)), k + 0.003 * rng.normal(size=len(t))])
        spans[c] = Intervals([[t[0], t[-1]]])
        moving = np.abs(np.gradient(s) * rate) > 0.02
        f = top * np.exp(-0.5 * ((s[:, None] - peaks[c]) / width) ** 2) * moving[:, None] + noise_rate
        n = rng.poisson(f / rate)
        i, u = np.nonzero(n)
        m = n[i, u]
        spikes.append(np.repeat(t[i], m) + rng.uniform(0, 1 / rate, m.sum()))
        units.append(np.repeat(u, m))
        t0 = t[-1] + 10
    rest0, rest1 = t0 + 10, t0 + 10 + 4.0 * bursts
    start = rest0 + 4.0 * np.arange(bursts) + rng.uniform(0.5, 3, bursts)
    duration = rng.uniform(0.12, 0.3, bursts)
    is_true = np.arange(bursts) < true * bursts
    content = rng.choice(list(contexts), bursts)
    for a, d, yes, c in zip(start, duration, is_true, content):
        u = np.arange(0, d, 0.002)
        if yes:
            lo, hi = rng.uniform(0, 0.3), rng.uniform(0.7, 1)
            s = length * (lo + (hi - lo) * u / d)
            if rng.random() < 0.5:
                s = s[::-1]
            f = np.exp(-0.5 * ((s[:, None] - peaks[c]) / width) ** 2)
        else:
            f = np.repeat(rng.gamma(1.0, 1.0, cells)[None] * 0.15, len(u), axis=0)
        n = rng.poisson(f * rate_in_event * 2 * 0.002)
        i, w = np.nonzero(n)
        m = n[i, w]
        spikes.append(a + np.repeat(u[i], m) + rng.uniform(0, 0.002, m.sum()))
        units.append(np.repeat(w, m))
    quiet = rng.poisson(noise_rate * (rest1 - rest0), cells)
    spikes.append(rng.uniform(rest0, rest1, quiet.sum()))
    units.append(np.repeat(np.arange(cells), quiet))
    labels = {"rest": Intervals([[rest0, rest1]]), "run": Intervals([[spans[contexts[0]].start[0], spans[contexts[-1]].stop[-1]]])}
    if len(contexts) > 1:
        labels |= {f"run_{c}": v for c, v in spans.items()}
    signals = {"position": {"values": np.concatenate(xy), "times": np.concatenate(times), "unit": "m", "kind": "position", "channels": ["x", "y"]}}
    rec = bm.Recording.from_arrays(
        f"planted{seed}", "s", "rat", signals=signals, spikes={"times": np.concatenate(spikes), "unit": np.concatenate(units)}, labels=labels
    )
    return Planted(rec, EventTable(start, start + duration, content=content.astype(object), kind="burst", true=is_true))


@pytest.fixture(scope="session")
def make_session() -> Callable[..., Planted]:
    return session


@pytest.fixture(scope="session")
def two_tracks() -> Planted:
    return session(seed=1, contexts=("A", "B"), bursts=80)


def lfp_recording(values: np.ndarray, rate: float = 1250.0, **more) -> Recording:
    return bm.Recording.from_arrays("noise", signals={"lfp": {"values": values.astype(np.float32), "rate": rate, "unit": "uV", "kind": "lfp"}}, **more)


@pytest.fixture(scope="session")
def make_lfp() -> Callable[..., Recording]:
    return lfp_recording
