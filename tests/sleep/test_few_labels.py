"""A few labelled minutes of one animal: they help where the animal is unlike the others, and change nothing where they cannot tell."""

from __future__ import annotations

import numpy as np
import pytest

import brainmu.loading
from brainmu.core.hypnogram import Hypnogram
from brainmu.errors import InputError, MissingDataError
from brainmu.sleep import SleepStager, evaluate
from brainmu.sleep.features import Table
from brainmu.sleep.few_labels import Calibration
from brainmu.sleep.frames import Grid


def animal(seed: int, n: int = 600, wrong: bool = False) -> tuple[Table, np.ndarray, np.ndarray]:
    """Features that tell three stages apart, codes, and a stager's probabilities; `wrong` ones confuse the first two stages."""
    rng = np.random.default_rng(seed)
    y = np.repeat(rng.integers(0, 3, n // 10), 10)
    x = 2.0 * np.eye(3)[y] + rng.standard_normal((n, 3))
    seen = np.where(y == 2, 2, rng.integers(0, 2, n)) if wrong else np.where(rng.random(n) < 0.05, (y + 1) % 3, y)
    p = 0.1 + 0.7 * np.eye(3)[seen]
    return Table(Grid(0.0, 4.0, n, 2), x, ["eeg:a", "eeg:b", "eeg:c"]), p / p.sum(1, keepdims=True), y


def test_it_helps_where_the_stager_is_wrong():
    table, p, y = animal(0, wrong=True)
    given = np.where(np.arange(600) % 100 < 15, y, -2)
    c = Calibration.fit(table, p, given)
    rest = given < 0
    before, after = ((v.argmax(1) == y)[rest].mean() for v in (p, c(table, p)))
    assert c.changes and after > before + 0.1
    assert "likelier an epoch" in c.note and c.n_epochs == 90
    back = Calibration.from_dict(c.to_dict())
    np.testing.assert_allclose(back(table, p), c(table, p))


def test_it_never_costs_much():
    # Twenty animals that the stager already knows: on average nothing is lost, and none loses more than a few epochs.
    changes = []
    for seed in range(20):
        table, p, y = animal(seed, n=400)
        given = np.where(np.arange(400) % 80 < 15, y, -2)
        rest = given < 0
        after = Calibration.fit(table, p, given)(table, p)
        changes.append((after.argmax(1) == y)[rest].mean() - (p.argmax(1) == y)[rest].mean())
    assert np.mean(changes) >= -0.002 and min(changes) > -0.03


def test_stages_without_labels_keep_the_probability_they_had():
    table, p, y = animal(1, wrong=True)
    given = np.where((y < 2) & (np.arange(600) % 100 < 25), y, -2)
    c = Calibration.fit(table, p, given)
    assert c.changes and c.present == [0, 1]
    after = c(table, p)
    np.testing.assert_allclose(after[:, 2], p[:, 2], atol=1e-9)
    np.testing.assert_allclose(after.sum(1), 1)
    assert np.abs(after[:, 0] - p[:, 0]).max() > 0.1
    assert (after.argmax(1) == 2)[y == 2].mean() >= (p.argmax(1) == 2)[y == 2].mean() - 0.01


def test_random_labels_change_nothing():
    changed = 0
    for seed in range(10):
        table, p, _ = animal(seed, n=300)
        c = Calibration.fit(table, np.full_like(p, 1 / 3), np.random.default_rng(seed).permutation(np.repeat([0, 1, 2], 100)))
        changed += c.changes
    assert changed <= 2


def test_too_few_or_one_stage():
    table, p, y = animal(0)
    with pytest.raises(MissingDataError, match="10 labelled epochs"):
        Calibration.fit(table, p, np.where(np.arange(600) < 10, y, -2))
    c = Calibration.fit(table, p, np.where((y == 0), y, -2))
    assert not c.changes and "one stage" in c.note
    assert c(table, p) is p


@pytest.mark.parametrize("method", ["boosting", "rules"])
def test_calibrated_stager(make_mouse, tmp_path, method):
    s = SleepStager(stages="rodent3", method=method)
    if method == "boosting":
        s.fit([make_mouse(k, epochs=150, rate=100.0) for k in range(2)])
    r = make_mouse(9, epochs=200, rate=100.0)
    c = s.calibrate(r, "scoring", minutes=5)
    assert s.calibration_ is None and c.calibration_.n_epochs == 75
    assert "calibration" in c.predict(r).attrs
    assert evaluate(c.predict(r), r.labels["scoring"])["kappa"] >= evaluate(s.predict(r), r.labels["scoring"])["kappa"] - 0.03
    again = brainmu.loading.load(c.save(tmp_path / "mine"))
    np.testing.assert_allclose(again.predict_proba(r), c.predict_proba(r), atol=1e-6)
    with pytest.raises(InputError, match="minutes"):
        s.calibrate(r, minutes=0)
    with pytest.raises(MissingDataError, match="labelled epochs"):
        s.calibrate(r, minutes=0.5)
    with pytest.raises(InputError, match="not fitted"):
        SleepStager(stages="rodent3").calibrate(r)


def test_a_share_to_leave_unscored(make_mouse):
    r = make_mouse(3, epochs=200, rate=100.0)
    s = SleepStager(stages="rodent3", method="rules")
    h = s.predict(r, abstain=0.05)
    assert (h.codes == -2).sum() == 10 and h.attrs["abstained"] == 0.05
    sure = h.proba.max(1)
    assert sure[h.codes == -2].max() <= sure[h.codes >= 0].min()
    assert h.attrs["expected_error"] < s.predict(r).attrs["expected_error"]
    assert (s.predict(r, abstain=0.0).codes >= 0).all()
    with pytest.raises(InputError, match="abstain is 1"):
        s.predict(r, abstain=1.0)


def test_a_packaged_stage_model_is_a_stager(make_mouse, tmp_path):
    s = SleepStager.load("brainmu-tiny-rodent3")
    r = make_mouse(3, epochs=100, rate=100.0)
    h = s.predict(r)
    assert len(h) == 100 and h.attrs["method"] == "encoder"
    again = SleepStager.load(s.save(tmp_path / "mine"))
    np.testing.assert_allclose(again.predict_proba(r), s.predict_proba(r), atol=1e-5)
    h = Hypnogram(r.labels["scoring"].codes, "rodent3", 4.0)
    assert s.calibrate(r).calibration_.n_epochs == 100


def test_labels_that_contradict_each_other_change_nothing():
    table, p, y = animal(2)
    c = Calibration.fit(table, p, np.random.default_rng(0).permutation(y))
    assert not c.changes and "nothing changed" in c.note
    assert any("contradict each other" in d for d in c.doubts) and any("no stages are swapped" in d for d in c.doubts)


def test_swapped_labels_are_doubted_and_sound_ones_are_not():
    table, p, y = animal(3)
    swapped = Calibration.fit(table, p, np.array([1, 0, 2])[y])
    assert len(swapped.doubts) == 1 and "no stages are swapped" in swapped.doubts[0]
    assert Calibration.from_dict(swapped.to_dict()).doubts == swapped.doubts
    assert not Calibration.fit(table, p, y).doubts
    nearly_one = np.where((y == 0) | (np.arange(600) == np.flatnonzero(y == 1)[0]), y, -2)
    assert not Calibration.fit(table, p, nearly_one).doubts  # kappa is low where nearly all is one stage


def test_labels_outside_the_recording_are_said(make_mouse):
    r = make_mouse(0, epochs=200, rate=100.0)
    truth = r.labels["scoring"]
    stager = SleepStager(stages="rodent3", method="rules")
    for start, outside in ((1e5, 200), (740.0, 185)):
        r.labels["few"] = Hypnogram(truth.codes, "rodent3", 4.0, start)
        with pytest.raises(MissingDataError, match=f"{outside} of 200 labelled epochs lie outside .*check the start"):
            stager.calibrate(r, "few")
    r.labels["few"] = Hypnogram(truth.codes, "rodent3", 4.0, 400.0)
    h = stager.calibrate(r, "few").predict(r)
    assert any("100 of 200 labelled epochs lie outside" in s for s in h.attrs["reasons"])
