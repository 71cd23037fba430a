"""Trees as arrays give what scikit-learn gives."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from brainmu.sleep.trees import Trees


@pytest.mark.parametrize("classes", [[0, 1, 2], [0, 2]])
def test_same_as_scikit_learn(classes):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((600, 5))
    x[rng.random(x.shape) < 0.1] = np.nan
    y = np.array(classes)[np.digitize(np.nan_to_num(x[:, 0]), np.linspace(-0.5, 0.5, len(classes) - 1))]
    ours = Trees.fit(x, y, 3, rounds=20, columns=1.0)
    theirs = HistGradientBoostingClassifier(
        max_iter=20, learning_rate=0.1, max_leaf_nodes=31, min_samples_leaf=30, l2_regularization=1.0, early_stopping=False, random_state=0
    ).fit(x, y)  # fmt: skip
    p = ours.predict_proba(x)
    assert np.allclose(p[:, classes], theirs.predict_proba(x), atol=1e-9)
    again = Trees.from_arrays(ours.to_arrays("t_"), "t_")
    assert np.array_equal(again.predict_proba(x), p)


def test_one_class_and_no_rows():
    t = Trees.fit(np.zeros((5, 2)), np.full(5, 1), 3)
    assert t.predict_proba(np.zeros((2, 2))).argmax(1).tolist() == [1, 1]
    assert t.predict_proba(np.zeros((0, 2))).shape == (0, 3)


def test_rodent_features_do_not_move_with_how_much_an_animal_slept():
    from brainmu.sleep.boosting import _between_ends

    rng = np.random.default_rng(0)

    def level(awake: int) -> np.ndarray:
        x = np.r_[rng.normal(3.0, 0.3, awake), rng.normal(0.0, 0.3, 500 - awake)]
        return np.stack([x, np.full(500, 2.0), np.full(500, np.nan)], axis=1)

    sleepy, lively = _between_ends(level(80)), _between_ends(level(420))
    assert abs(np.median(sleepy[:80, 0]) - np.median(lively[:420, 0])) < 0.1
    assert abs(np.median(sleepy[80:, 0]) - np.median(lively[420:, 0])) < 0.1
    assert (sleepy[:, 1] == 0).all() and np.isnan(sleepy[:, 2]).all()
