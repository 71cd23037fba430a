"""Metrics against scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, f1_score, roc_auc_score

from brainmu.core import metrics
from brainmu.errors import InputError

pairs = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=5).map(lambda v: np.array(v).T)


@given(pairs)
@settings(max_examples=50)
def test_agree_with_sklearn(tp):
    t, p = tp
    m = metrics.confusion(t, p, 3)
    if len(set(t)) > 1:
        assert metrics.cohen_kappa(m) == pytest.approx(cohen_kappa_score(t, p))
        if set(p) <= set(t):
            assert metrics.balanced_accuracy(m) == pytest.approx(balanced_accuracy_score(t, p))
    here = sorted(set(t) | set(p))
    assert metrics.f1_by_class(m)[here] == pytest.approx(f1_score(t, p, labels=here, average=None, zero_division=0))
    assert metrics.accuracy(m) == pytest.approx((t == p).mean())


@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), min_size=3))
@settings(max_examples=50)
def test_auroc_agrees_with_sklearn(v):
    s, y = np.array([a for a, _ in v]), np.array([b for _, b in v])
    if y.all() or not y.any():
        assert np.isnan(metrics.auroc(s, y))
    else:
        assert metrics.auroc(s, y) == pytest.approx(roc_auc_score(y, s))


def test_unscored_epochs_count_on_neither_side():
    assert metrics.confusion([0, 1, -2, 1], [0, 1, 1, -1], 2).sum() == 2


def test_nothing_to_score_is_nan_not_zero():
    assert np.isnan(metrics.cohen_kappa(np.zeros((3, 3)))) and np.isnan(metrics.event_scores([], [])["f1"])
    assert metrics.event_scores([], [[0, 1]])["f1"] == 0


def test_calibration():
    rng = np.random.default_rng(0)
    p = rng.dirichlet([1, 1, 1], 20000)
    y = (p.cumsum(1) > rng.random((20000, 1))).argmax(1)
    assert metrics.calibration_error(p, y) < 0.02 < 0.2 < metrics.calibration_error(np.eye(3)[p.argmax(1)], y)


def test_bootstrap_interval_covers():
    rng = np.random.default_rng(0)
    hits = sum(lo <= 0 <= hi for lo, hi in (metrics.bootstrap_interval(list(rng.standard_normal(30)), np.mean, draws=200, seed=i) for i in range(100)))
    assert 85 <= hits <= 100 and np.isnan(metrics.bootstrap_interval([1], np.mean)).all()


def test_shapes_must_agree():
    with pytest.raises(InputError, match="same"):
        metrics.confusion([0, 1], [0], 2)
