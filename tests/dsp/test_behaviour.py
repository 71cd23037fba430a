"""Smoothing and speed of a tracked position."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainmu.dsp.behaviour import bridge_lost, jumps, reach, runs_of, smooth_position, speed_of
from brainmu.errors import InputError

T = np.arange(3000) / 50.0
XY = np.c_[0.5 * np.sin(2 * np.pi * T / 20), 0.3 * np.cos(2 * np.pi * T / 20)]


def test_speed_of_a_circle_survives_noise_and_lost_points():
    radius, turns = 0.4, 1 / 10
    xy = radius * np.c_[np.cos(2 * np.pi * turns * T), np.sin(2 * np.pi * turns * T)] + 10.0
    rng = np.random.default_rng(0)
    noisy = xy + 0.003 * rng.standard_normal(xy.shape)
    noisy[rng.random(len(T)) < 0.1] = np.nan
    smoothed = smooth_position(T, noisy, 0.2, rate=50.0)
    speed = speed_of(T, smoothed)
    assert np.nanmedian(speed) == pytest.approx(2 * np.pi * turns * radius, rel=0.02)
    assert np.isnan(speed).mean() < 0.01
    assert np.nanmedian(speed_of(T, bridge_lost(T, noisy, 0.5))) > np.nanmedian(speed)


def test_uneven_times_agree_with_even_ones():
    even = smooth_position(T, XY, 0.15, rate=50.0)
    np.testing.assert_allclose(smooth_position(T, XY, 0.15), even, atol=1e-4)
    keep = np.random.default_rng(1).random(len(T)) < 0.7
    uneven = smooth_position(T[keep], XY[keep], 0.15)
    inner = slice(50, -50)
    np.testing.assert_allclose(uneven[inner], even[keep][inner], atol=2e-3)


def test_nothing_reaches_across_a_long_hole():
    xy = XY.copy()
    xy[1000:1100] = np.nan  # 2 s
    xy[2000:2020] = np.nan  # 0.4 s
    other = xy.copy()
    other[1100:] += 1e6
    a, b = smooth_position(T, xy, 0.3, rate=50.0), smooth_position(T, other, 0.3, rate=50.0)
    np.testing.assert_array_equal(a[:1000], b[:1000])
    assert np.isnan(a[1000:1100]).all()
    assert np.isfinite(a[2000:2020]).all()
    speed = speed_of(T, a)
    assert np.isnan(speed).nonzero()[0].tolist() == list(range(1000, 1100))
    assert runs_of(T, a, 0.5).tolist() == [[0, 1000], [1100, 3000]]
    # A jump in the times is a hole as well.
    t = T.copy()
    t[1500:] += 10
    assert runs_of(t, XY, 0.5).tolist() == [[0, 1500], [1500, 3000]]
    assert np.nanmax(speed_of(t, XY)) < 0.3


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.integers(0, 900), even=st.booleans(), sigma=st.sampled_from([0.0, 0.05, 0.2]))
def test_a_piece_with_its_surroundings_gives_what_the_whole_gives(seed, cut, even, sigma):
    rng = np.random.default_rng(seed)
    t = np.arange(1000) / 50 if even else np.cumsum(rng.uniform(0.005, 0.04, 1000))
    x = np.cumsum(rng.standard_normal((1000, 2)), axis=0)
    for _ in range(6):
        i = rng.integers(0, 1000)
        x[i : i + rng.integers(1, 60)] = np.nan
    rate = 50.0 if even else None
    whole = smooth_position(t, x, sigma, 0.5, rate)
    i, j = cut, cut + 100
    pad = reach(sigma, 0.5) + 0.1
    a, b = np.searchsorted(t, [t[i] - pad, t[min(j, 999)] + pad])
    np.testing.assert_allclose(smooth_position(t[a:b], x[a:b], sigma, 0.5, rate)[i - a : j - a], whole[i:j], atol=1e-9)


def test_what_is_refused():
    with pytest.raises(InputError, match="expected finite numbers >= 0"):
        smooth_position(T, XY, -1.0)
    with pytest.raises(InputError, match=r"expected \(n,\) and \(n, axis\)"):
        bridge_lost(T, XY[:5], 1.0)
    assert smooth_position([], np.empty((0, 2)), 0.1).shape == (0, 2)
    assert np.isnan(speed_of([0.0, 5.0], [[0.0], [1.0]])).all()


def test_jumps_are_told_from_running_lost_points_and_jitter():
    rng = np.random.default_rng(2)
    x = XY + 0.002 * rng.standard_normal(XY.shape)
    x[500:520] = np.nan
    assert not np.any(jumps(T, x, 2.0))
    planted = np.r_[100, 200, 201, 202, 519 + 3, 1000:1010]
    x[planted] += [2.0, 0.0]
    x[2000:] += [0.5, 0.5]
    away, staying = jumps(T, x, 2.0)
    np.testing.assert_array_equal(np.flatnonzero(away), planted)
    np.testing.assert_array_equal(np.flatnonzero(staying), [2000])
    fine = np.arange(5000) / 500
    assert not np.any(jumps(fine, 0.003 * rng.standard_normal((5000, 2)), 2.0)), "jitter of 3 mm is 1.5 m/s and more from frame to frame"
    assert not np.any(jumps(T[:0], XY[:0], 2.0)) and not np.any(jumps(T[:1], XY[:1], 2.0))
