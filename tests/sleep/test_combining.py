"""Trees and a recurrent network, weighed by held-out subjects: the weights go to who is right, order in time is used, and what is stored comes back."""

from __future__ import annotations

import numpy as np
import pytest

import brainmu.loading
from brainmu.core.hypnogram import Hypnogram
from brainmu.errors import InputError, MissingDataError
from brainmu.sleep import SleepStager
from brainmu.sleep.combining import FEWEST_SUBJECTS, CombinedStager, Stack
from brainmu.sleep.decoding import Decoding, fit_offset, fit_temperature, tempered
from brainmu.sleep.durations import Durations
from brainmu.sleep.features import epoch_table
from brainmu.sleep.sequences import SequenceNet

SMALL = {"width": 16, "layers": 1, "passes": 20.0, "span": 60, "batch": 8}


def test_the_stack_weighs_who_is_right():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 3000)
    good = 2.0 * np.eye(3)[y] + rng.standard_normal((3000, 3))
    guess = rng.standard_normal((3000, 3))
    logs = np.stack([v - np.log(np.exp(v).sum(1, keepdims=True)) for v in (good, guess)], axis=1)
    s = Stack.fit(logs, y)
    assert s.weight[0] > 0.9 and s.weight[1] < 0.1
    p = s([np.exp(logs[:, 0]), np.exp(logs[:, 1])])
    np.testing.assert_allclose(p.sum(1), 1)
    # Stage fractions of the mixture are those of the labels: the bias sees to it.
    np.testing.assert_allclose(p.mean(0), np.bincount(y) / len(y), atol=0.01)


def test_the_network_reads_what_came_before_and_after():
    # The feature says only where a stage begins; what lasts until the next beginning has to be remembered.
    rng = np.random.default_rng(1)

    def sequence() -> tuple[np.ndarray, np.ndarray]:
        y = np.repeat(rng.integers(0, 2, 30), rng.integers(3, 7, 30))
        x = np.zeros((len(y), 2))
        first = np.flatnonzero(np.r_[True, np.diff(y) != 0])
        x[first, y[first]] = 1.0
        return x, y

    train, (x, y) = [sequence() for _ in range(10)], sequence()
    net = SequenceNet(2, rate=1e-2, noise=0.0, drop=0.0, **(SMALL | {"passes": 60.0})).fit([a for a, _ in train], [b for _, b in train])
    assert (net.predict_proba(x).argmax(1) == y).mean() > 0.95
    later = x.copy()
    later[60:] = 5.0
    causal = SequenceNet(2, causal=True, **SMALL).fit([a for a, _ in train[:2]], [b for _, b in train[:2]])
    np.testing.assert_array_equal(causal.predict_proba(x)[:60], causal.predict_proba(later)[:60])
    assert not np.array_equal(net.predict_proba(x)[:60], net.predict_proba(later)[:60])


def test_combined_nights(make_night, tmp_path):
    nights = [make_night(s, epochs=80, signal=1.0) for s in range(4)]
    values = nights[0].signals["power"].values.copy()
    values[30:40] = np.nan
    nights[0].signals["power"].values = values
    tables = [epoch_table(r, 30.0) for r in nights]
    codes = [r.labels["scoring"].codes for r in nights]
    m = CombinedStager("aasm5", 30.0, 5, folds=2, settings=SMALL).fit(tables, codes, [r.subject for r in nights])
    assert len(m.nets) == 2
    p = m.predict_proba(tables[0])
    assert np.isnan(p[30:40]).all() and np.isfinite(p[:30]).all() and np.isfinite(p[40:]).all()
    test = make_night(20, epochs=80, signal=1.0)
    s = SleepStager(method="combined")
    s.method_, s.model_, s.classes_, s.n_subjects_, s.n_epochs_ = "combined", m, ("W", "N1", "N2", "N3", "R"), 4, 320
    assert s.score(test) > 0.4
    again = brainmu.loading.load(s.save(tmp_path / "stager"))
    np.testing.assert_allclose(again.predict_proba(test), s.predict_proba(test), atol=1e-6)
    assert not any(f.suffix in (".pkl", ".pt") for f in (tmp_path / "stager").rglob("*"))


def test_too_few_subjects(make_night):
    two = [make_night(s, epochs=80) for s in range(2)]
    with pytest.raises(InputError, match="three or more, got 2"):
        SleepStager(method="combined").fit(two)
    s = SleepStager()
    s.n_subjects_ = FEWEST_SUBJECTS - 1
    assert s._usual_method() == "boosting"
    s.n_subjects_ = FEWEST_SUBJECTS
    assert s._usual_method() == "combined"
    assert SleepStager(encoder="brainmu-tiny")._usual_method() == "encoder"
    with pytest.raises(MissingDataError, match="no feature"):
        SequenceNet(2).fit([np.full((30, 2), np.nan)], [np.zeros(30, int)])


def test_many_nights_are_smoothed_as_one_by_one():
    rng = np.random.default_rng(2)
    codes = [np.repeat(rng.integers(0, 3, 30), rng.integers(1, 9, 30)) for _ in range(3)]
    probas = [rng.dirichlet(np.ones(3), len(c)) for c in codes]
    probas[1][4:9] = np.nan
    d = Durations.fit(codes, 3, phases=2)
    for p, q in zip(probas, d.smooth_many(probas)):
        np.testing.assert_allclose(q, d.smooth(p), equal_nan=True)
        assert np.array_equal(np.isnan(q), np.isnan(p))


def test_decoding_is_chosen_by_what_helps_held_out_subjects():
    rng = np.random.default_rng(3)
    codes = [np.repeat(rng.integers(0, 3, 40), 15) for _ in range(4)]
    known = [np.ones(len(c), bool) for c in codes]

    def told(strength: float) -> dict[int, np.ndarray]:
        s = [strength * np.eye(3)[c] + rng.standard_normal((len(c), 3)) for c in codes]
        return {i: np.exp(v) / np.exp(v).sum(1, keepdims=True) for i, v in enumerate(s)}

    d = Decoding.fit(codes, told(1.0), known, list("abcd"), 3, True)
    fresh = told(1.0)
    before = np.mean([(fresh[i].argmax(1) == c).mean() for i, c in enumerate(codes)])
    after = np.mean([(d(fresh[i]).argmax(1) == c).mean() for i, c in enumerate(codes)])
    assert d.durations is not None and after > before + 0.1
    assert Decoding.fit(codes, told(1.0), known, list("abcd"), 3, False).durations is None
    back = Decoding.from_dict(d.to_dict())
    np.testing.assert_allclose(back(fresh[0]), d(fresh[0]))
    # Overconfident answers are softened, and stages stay as they were.
    sharp = {i: tempered(p, 0.2) for i, p in fresh.items()}
    t = fit_temperature(codes, sharp, known)
    assert t > 2 and np.array_equal(tempered(sharp[0], t).argmax(1), sharp[0].argmax(1))


def test_a_rare_and_doubtful_stage_is_told_as_often_as_it_occurs():
    # The third stage is rare and looks like the second: the likeliest stage is hardly ever it, however right the probabilities are.
    rng = np.random.default_rng(4)
    centre = np.array([[4.0, 0.0], [0.0, 0.0], [0.0, 1.2]])
    prior = np.array([0.4, 0.5, 0.1])

    def subjects(n: int) -> tuple[list[np.ndarray], dict[int, np.ndarray]]:
        codes = [rng.choice(3, 800, p=prior) for _ in range(n)]
        x = [centre[c] + rng.standard_normal((800, 2)) for c in codes]
        logs = [np.log(prior) - 0.5 * ((v[:, None] - centre) ** 2).sum(2) for v in x]
        return codes, {i: np.exp(v) / np.exp(v).sum(1, keepdims=True) for i, v in enumerate(logs)}

    codes, told = subjects(12)
    known = [np.ones(800, bool)] * 12
    groups = [f"s{i}" for i in range(12)]
    d = Decoding.fit(codes, told, known, groups, 3, False)
    assert d.offset is not None and d.offset[2] > 0.2
    fresh_codes, fresh = subjects(12)
    wanted = np.bincount(np.concatenate(fresh_codes), minlength=3) / 9600
    before, after = (np.bincount(np.concatenate([f(p).argmax(1) for p in fresh.values()]), minlength=3) / 9600 for f in (lambda p: p, d))
    assert np.abs(before - wanted)[2] > 0.03 and np.abs(after - wanted).mean() < 0.6 * np.abs(before - wanted).mean()
    right = [np.mean([(f(p).argmax(1) == c).mean() for p, c in zip(fresh.values(), fresh_codes)]) for f in (lambda p: p, d)]
    assert right[1] > right[0] - 0.02
    back = Decoding.from_dict(d.to_dict())
    np.testing.assert_allclose(back(fresh[0]), d(fresh[0]))
    np.testing.assert_allclose(d(fresh[0]).sum(1), 1)
    # What earlier versions saved has no offset; two subjects tell nothing of a third.
    assert Decoding.from_dict({"durations": None, "temperature": 1.5}).offset is None
    assert fit_offset(codes[:2], {i: told[i] for i in range(2)}, known[:2], groups[:2], 3) is None


def test_right_fractions_are_left_alone():
    rng = np.random.default_rng(5)
    codes = [rng.integers(0, 3, 400) for _ in range(6)]
    sharp = {i: 0.01 + 0.97 * np.eye(3)[c] for i, c in enumerate(codes)}
    assert fit_offset(codes, sharp, [np.ones(400, bool)] * 6, list("abcdef"), 3) is None


def test_hypnogram_codes_are_left_as_they_were(make_night):
    r = make_night(0, epochs=80)
    before = r.labels["scoring"].codes.copy()
    SleepStager(method="boosting").fit([r])
    assert isinstance(r.labels["scoring"], Hypnogram) and np.array_equal(before, r.labels["scoring"].codes)
