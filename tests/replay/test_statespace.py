from __future__ import annotations

import numpy as np
import pytest

from brainmu.core import EventTable
from brainmu.errors import InputError
from brainmu.replay.contexts import fit_contexts
from brainmu.replay.decode import units_and_position
from brainmu.replay.statespace import STATES, classify_dynamics, smooth_states

PLACES, UNITS = 12, 8


def exact(counts: np.ndarray, rates: np.ndarray, x: np.ndarray, dt: float, walk: float, stay: float) -> np.ndarray:
    """Forward-backward on the joint chain of dynamic and place, in float64, with its full transition matrix."""
    p = len(x)
    move = np.exp(-0.5 * ((x[:, None] - x[None]) / walk) ** 2)
    move /= move.sum(1, keepdims=True)
    uniform, same = np.full((p, p), 1 / p), np.eye(p)
    step = {0: move, 1: uniform, 2: same}
    z = np.where(np.eye(3) > 0, stay, (1 - stay) / 2)
    a = np.block([[z[i, j] * (uniform if i == 1 else step[j]) for j in range(3)] for i in range(3)])
    like = np.tile(np.exp(counts @ np.log(rates) - dt * rates.sum(0)), (1, 3))
    f = np.empty((len(counts), 3 * p))
    f[0] = like[0] / like[0].sum()
    for t in range(1, len(counts)):
        f[t] = (f[t - 1] @ a) * like[t]
        f[t] /= f[t].sum()
    b = np.ones(3 * p)
    for t in range(len(counts) - 2, -1, -1):
        b = a @ (b * like[t + 1])
        b /= b.max()
        f[t] *= b
        f[t] /= f[t].sum()
    return f.reshape(len(counts), 3, p)


@pytest.mark.parametrize("device", [None, "cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_batched_smoothing_equals_the_exact_chain(device) -> None:
    rng = np.random.default_rng(0)
    x = np.linspace(0, 1, PLACES)
    rates = rng.uniform(0.5, 40, (UNITS, PLACES)).astype(np.float32)
    counts = [rng.poisson(0.15, (n, UNITS)).astype(np.int32) for n in (30, 5, 1, 22)]
    found = smooth_states(counts, rates, x, 0.01, 0.1, device=device)
    for c, p in zip(counts, found):
        assert np.allclose(p, exact(c, rates.astype(float), x, 0.01, 0.1, 0.98), atol=2e-4)


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="device is 'abacus'"):
        smooth_states([np.zeros((3, 1), dtype=np.int32)], np.ones((1, 4), dtype=np.float32), np.arange(4.0), 0.01, 1.0, device="abacus")


@pytest.fixture(scope="module")
def kinds(make_session):
    s = make_session(seed=11, bursts=4, cells=60)
    spikes, position = units_and_position(s.recording)
    context = fit_contexts(s.recording, spikes, position)[0]["run"]
    rng = np.random.default_rng(1)
    x, rates = context.x, context.fields.rates
    places = {
        "continuous": np.interp(np.arange(75), [0, 74], [0.1, 0.9]) * (len(x) - 1),
        "fragmented": np.repeat(rng.integers(0, len(x), 38), 2)[:75].astype(float),
        "stationary": np.full(75, len(x) // 2, dtype=float),
    }
    counts = [rng.poisson(rates[:, p.astype(int)].T * 0.002 * 6).astype(np.int32) for p in places.values() for _ in range(10)]
    return list(np.repeat(list(places), 10)), counts, context


def test_the_three_dynamics_are_told_apart(kinds) -> None:
    names, counts, context = kinds
    found = smooth_states(counts, context.fields.rates, context.x, 0.002, 0.0245)
    guess = [STATES[int(p.sum(2).mean(0).argmax())] for p in found]
    assert np.mean([g == n for g, n in zip(guess, names)]) > 0.9


def test_planted_trajectories_are_continuous(make_session) -> None:
    s = make_session(seed=12, bursts=20, true=1.0, cells=60)
    spikes, position = units_and_position(s.recording)
    context = fit_contexts(s.recording, spikes, position)[0]["run"]
    table, posteriors = classify_dynamics(s.recording, s.events, context)
    assert len(posteriors) == 20 and np.allclose(posteriors[0].posterior.sum((1, 2)), 1, atol=1e-4)
    assert np.median(table.continuous) > 0.7 and (table.dynamics == "continuous").mean() > 0.6
    none, empty = classify_dynamics(s.recording, EventTable([], []), context)
    assert len(none) == 0 and empty == []
    with pytest.raises(InputError, match="bin_size"):
        classify_dynamics(s.recording, s.events, context, bin_size=0.0)
