import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from brainmu.causal.covariates import natural_spline, read_covariates, spline_knots, value_before
from brainmu.core import Recording, Signal
from brainmu.errors import DesignError, MissingDataError


@given(st.lists(st.floats(-3, 40, allow_nan=False), min_size=1, max_size=30), st.floats(0.3, 7), st.floats(-1, 5))
def test_the_value_is_the_last_sample_at_or_before(times, rate, start):
    s = Signal(np.arange(60.0), rate=rate, start=start)
    stamps = start + np.arange(60) / rate
    got = value_before(s, np.array(times))[:, 0]
    for t, v in zip(times, got):
        if np.abs(stamps - t).min() < 1e-4 / rate:
            continue
        past = stamps[stamps <= t]
        expected = np.nan if not len(past) or t >= s.stop + 1 / rate else float(len(past) - 1)
        assert np.array_equal(v, expected, equal_nan=True)


@example([0.5, 0.4375], 0.5)  # not in order, with the same last sample
@given(st.lists(st.floats(0, 30, allow_nan=False), min_size=1, max_size=20), st.floats(0.5, 9))
def test_the_window_mean_never_looks_ahead(times, window):
    rng = np.random.default_rng(0)
    values = rng.standard_normal(150)
    s = Signal(values.astype(np.float32), rate=5.0)
    stamps = np.arange(150) / 5.0
    got = value_before(s, np.array(times), window)[:, 0]
    for t, v in zip(times, got):
        if min(np.abs(stamps - t).min(), np.abs(stamps - (t - window)).min()) < 1e-4:
            continue
        inside = values[(stamps <= t) & (stamps > t - window)]
        if len(inside):
            assert v == pytest.approx(inside.mean(), abs=1e-5)


def test_changing_the_future_changes_nothing():
    rng = np.random.default_rng(0)
    a = rng.standard_normal((1000, 2)).astype(np.float32)
    b = a.copy()
    b[501:] = 99
    times = np.array([500 / 50 + 0.001, 3.3])
    for window in (None, 2.0):
        assert np.array_equal(value_before(Signal(a, rate=50.0), times, window), value_before(Signal(b, rate=50.0), times, window))


def test_a_sample_an_epoch_is_the_one_at_the_start_of_the_epoch():
    s = Signal(np.arange(2000.0), rate=1 / 4.0, start=0.3)
    k = np.arange(2000)
    assert np.array_equal(value_before(s, 0.3 + 4.0 * k)[:, 0], k)
    assert np.array_equal(value_before(s, 0.3 + 4.0 * k + 3.99)[:, 0], k)


def test_irregular_samples_and_missing_ones():
    s = Signal(np.array([1.0, np.nan, 3.0]), times=np.array([0.0, 1.0, 5.0]))
    assert np.array_equal(value_before(s, np.array([-1.0, 0.5, 1.5, 5.0]))[:, 0], [np.nan, 1, np.nan, 3], equal_nan=True)


def test_centred_streams_and_absent_ones_are_refused():
    rec = Recording("r", "m", signals={"delta": Signal(np.zeros(10), rate=1.0, attrs={"centred": True}), "bands": Signal(np.zeros((10, 2)), rate=1.0)})
    with pytest.raises(DesignError, match="centred"):
        read_covariates(rec, ["delta"], np.array([1.0]), None)
    with pytest.raises(MissingDataError, match="no signal 'pressure'"):
        read_covariates(rec, ["pressure"], np.array([1.0]), None)
    names, values = read_covariates(rec, ["bands"], np.array([1.0]), None)
    assert names == ["bands:other_0", "bands:other_1"] and values.shape == (1, 2)
    assert read_covariates(rec, ["bands:other_1"], np.array([1.0]), None)[0] == ["bands:other_1"]


def test_the_spline_is_linear_beyond_its_knots_and_smooth_within():
    knots = np.array([0.0, 1.0, 2.0, 4.0])
    x = np.linspace(-3, 8, 2201)
    b = natural_spline(x, knots)
    assert b.shape[1] == 3
    curve = np.abs(np.diff(b, 2, axis=0)).max(1)
    outside = (x[1:-1] < -0.01) | (x[1:-1] > 4.01)
    assert curve[outside].max() < 1e-10
    assert np.linalg.matrix_rank(np.c_[np.ones(len(x)), b]) == 4
    assert natural_spline(x, spline_knots(np.array([1.0, 1.0, 2.0]), 1)).shape[1] == 1
