from __future__ import annotations

import itertools
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainmu.dsp.levels import Levels, find_artefacts, find_noisy, measure, window_length

RATE = 500.0


def noise(seconds: int, channels: int, seed: int = 0, rate: float = RATE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.standard_normal((round(seconds * rate) + 199, channels)), axis=0)
    return (x[99:-100] - np.apply_along_axis(lambda c: np.convolve(c, np.ones(200) / 200, "valid"), 0, x)) * 20


def levels_of(x: np.ndarray, borders: tuple[int, ...] = (), rate: float = RATE) -> Levels:
    length = window_length(rate)
    edges = sorted({0, -(-len(x) // length), *borders})
    pieces = [measure(x[a * length : b * length], rate, a) for a, b in itertools.pairwise(edges)]
    return Levels.of(json.loads(json.dumps(pieces)), x.shape[1])


@given(st.data())
@settings(deadline=None, max_examples=30)
def test_measures_do_not_depend_on_the_blocks(data: st.DataObject) -> None:
    x = noise(40, 3, data.draw(st.integers(0, 100)))[: data.draw(st.integers(1, 20000))]
    x[data.draw(st.integers(0, 19999)) :, 1] = np.nan
    x[300:900, 0] = np.nan
    one = levels_of(x)
    many = levels_of(x, tuple(data.draw(st.lists(st.integers(1, max(1, len(one.codes) - 1)), max_size=5))))
    np.testing.assert_array_equal(one.codes, many.codes)
    for name in ("deviation", "roughness", "hum"):
        np.testing.assert_array_equal(getattr(one, name), getattr(many, name))


def test_measures_say_what_they_measure() -> None:
    t = np.arange(20000) / RATE
    x = np.c_[100 * np.sin(2 * np.pi * 50 * t), 100 * np.sin(2 * np.pi * 10 * t), np.full(len(t), 3.0), np.full(len(t), np.nan)] + 1e5
    levels = levels_of(x)
    np.testing.assert_allclose(2.0 ** levels.deviation[:2], 100 / np.sqrt(2), rtol=0.01)
    assert 2.0 ** levels.hum[0] == pytest.approx(100, rel=0.01)
    assert levels.hum[1] < -3
    assert np.isnan(levels.deviation[2:]).all() and not levels.codes[:, 2:].any()
    # Six codes an octave from 2**-20 on, of the range and the largest step.
    size, step = 2.0 ** ((levels.codes[5, 1].astype(float) - 1) / 6 - 20)
    assert size == pytest.approx(200, rel=0.06)
    assert step == pytest.approx(100 * 2 * np.pi * 10 / RATE, rel=0.06)


def test_fast_signals_are_averaged_first_so_spikes_are_no_artefacts() -> None:
    rate = 30000.0
    x = np.random.default_rng(0).standard_normal((30 * 30000, 1)) * 10
    x += np.interp(np.arange(len(x)), np.arange(0, len(x), 300), np.random.default_rng(1).standard_normal(len(x) // 300) * 100)[:, None]
    for k in range(5, 30, 2):
        x[k * 30000 + 100 : k * 30000 + 120] -= 300  # 0.7 ms
    found = find_artefacts(levels_of(x, rate=rate), 6.0, np.array([True]))
    assert found.own == [[]] and found.common == []


def test_planted_artefacts_are_found_in_their_seconds() -> None:
    x = noise(600, 5)
    sd = x.std(axis=0)
    x[round(100.5 * RATE) : round(100.52 * RATE), 2] += 10 * sd[2]  # a pop
    burst = slice(round(300.2 * RATE), round(300.8 * RATE))
    x[burst] += np.random.default_rng(1).standard_normal((300, 1)) * 2 * sd  # movement
    found = find_artefacts(levels_of(x), 6.0, np.ones(5, dtype=bool))
    assert found.common == [(300, 301)]
    assert found.own == [[], [], [(100, 101)], [], []]
    only = find_artefacts(levels_of(x), 6.0, np.array([True, True, False, False, False]))
    assert only.common == [] and only.own[2:] == [[], [], []]


def planted(what: str) -> np.ndarray:
    x = noise(120, 6)
    t = np.arange(len(x)) / RATE
    if what == "large":
        x[:, 4] *= 5
    elif what == "rough":
        x[:, 4] += np.random.default_rng(2).standard_normal(len(x)) * x[:, 4].std()
    elif what == "hum":
        x[:, 4] += 0.8 * x[:, 4].std() * np.sin(2 * np.pi * 60 * t)
    return x


@pytest.mark.parametrize(("what", "says"), [("large", "deviation"), ("rough", "high frequencies"), ("hum", "mains hum")])
def test_a_noisy_channel_is_found_and_why(what: str, says: str) -> None:
    found = find_noisy(levels_of(planted(what)), np.ones(6, dtype=bool))
    assert list(found) == [4] and says in found[4]


def test_what_is_alike_or_alone_or_of_another_kind_is_not_noisy() -> None:
    everyone = np.ones(6, dtype=bool)
    assert find_noisy(levels_of(planted("nothing")), everyone) == {}
    assert find_noisy(levels_of(planted("large")[:, 4:5]), everyone[:1]) == {}
    assert find_noisy(levels_of(planted("large")[:, 3:5]), everyone[:2]) == {}
    assert find_noisy(levels_of(planted("large")), everyone, ["lfp"] * 4 + ["eeg"] * 2) == {}
    dead = np.arange(6) != 4
    assert find_noisy(levels_of(planted("large")), dead) == {}


@pytest.mark.parametrize("rate", [1.0, 25.0, 128.0, 1249.998, 30000.0])
def test_any_rate(rate: float) -> None:
    length = window_length(rate)
    x: Any = np.random.default_rng(0).standard_normal((3 * length + length // 3, 1))
    levels = levels_of(x, rate=rate)
    assert levels.codes.shape == (4, 1, 2)
    assert levels.codes[:3].all() and not levels.codes[3].any()  # less than half a window is not judged
