"""Folds that do not leak, labels in stretches, and intervals that behave."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brainmu.core.metrics import cohen_kappa
from brainmu.errors import InputError, MissingDataError
from brainmu.sleep.readout import USUAL, ReadOut, Scoring, draw_labels, folds_by_group, folds_by_time, interval, kappa_of, shuffled


def scored(subject, n, seed=0, stretch=10, group=None):
    codes = np.repeat(np.random.default_rng(seed).integers(0, 3, n // 5 + 1), 5)[:n].astype(np.int8)
    return Scoring(subject, group or subject, codes, stretch)


class TestFolds:
    @given(st.lists(st.sampled_from("abcdef"), min_size=2, max_size=10), st.integers(2, 7))
    @settings(max_examples=40, deadline=None)
    def test_each_subject_is_tested_once_and_never_trained_on_then(self, subjects, folds):
        data = [scored(s, 12, i) for i, s in enumerate(subjects)]
        if len(set(subjects)) < 2:
            with pytest.raises(InputError, match="two or more subjects"):
                folds_by_group(data, folds)
            return
        parts = folds_by_group(data, folds)
        assert sum(m.sum() for f in parts for m in f.test) == sum(len(d.codes) for d in data)
        for f in parts:
            tested = {d.subject for d, m in zip(data, f.test) if m.any()}
            assert tested and not tested & {d.subject for d, m in zip(data, f.train) if m.any()}

    @given(st.integers(40, 200), st.integers(2, 5), st.integers(0, 6))
    @settings(max_examples=40, deadline=None)
    def test_blocks_of_time_are_guarded(self, n, folds, guard):
        parts = folds_by_time([scored("a", n)], folds, [guard])
        assert sum(f.test[0].sum() for f in parts) == n
        for f in parts:
            gap = np.abs(np.flatnonzero(f.train[0])[:, None] - np.flatnonzero(f.test[0])).min()
            assert gap == guard + 1

    def test_refuses_what_leaves_nothing(self):
        with pytest.raises(InputError, match="lower guard"):
            folds_by_time([scored("a", 50)], 2, [30])
        with pytest.raises(InputError, match="fewer folds"):
            folds_by_time([scored("a", 4)], 5, [0])
        with pytest.raises(InputError, match="at least 2"):
            folds_by_group([scored("a", 9), scored("b", 9)], 1)


class TestLabels:
    @given(st.integers(0, 200), st.sampled_from([0.01, 0.1, 0.3, 1.0]))
    @settings(max_examples=60, deadline=None)
    def test_draws_whole_stretches_until_every_stage_is_there(self, seed, share):
        data = [scored("a", 95, seed), scored("b", 60, seed + 1)]
        data[0].codes[3:6] = -2
        allowed = [np.arange(95) < 70, np.ones(60, dtype=bool)]
        masks = draw_labels(data, allowed, share, np.random.default_rng(seed))
        ok = [m & (d.codes >= 0) for d, m in zip(data, allowed)]
        for d, m, o in zip(data, masks, ok):
            assert not (m & ~o).any()
            for a in range(0, len(m), d.stretch):
                part = slice(a, a + d.stretch)
                assert not m[part].any() or (m[part] == o[part]).all()
        stages = [{int(c) for d, m in zip(data, which) for c in d.codes[m]} for which in (masks, ok)]
        assert stages[0] == stages[1]
        assert share < 1 or all((m == o).all() for m, o in zip(masks, ok))

    def test_small_shares_lie_inside_large_ones(self):
        data = [scored("a", 400)]
        every = [np.ones(400, dtype=bool)]
        small, large = (draw_labels(data, every, s, np.random.default_rng(4))[0] for s in (0.2, 0.5))
        assert small.sum() < large.sum() and not (small & ~large).any()

    def test_refuses_one_stage(self):
        data = [Scoring("a", "a", np.zeros(30, dtype=np.int8), 10)]
        with pytest.raises(MissingDataError, match="at least two"):
            draw_labels(data, [np.ones(30, dtype=bool)], 0.5, np.random.default_rng(0))

    def test_shuffling_keeps_the_labels_and_breaks_their_order(self):
        y = np.repeat(np.arange(3, dtype=np.int8), 100)
        z = shuffled(y, 75, np.random.default_rng(0))
        assert np.array_equal(np.bincount(z), np.bincount(y)) and (z == y).mean() < 0.7


class TestReadOut:
    def test_learns_and_penalises_more_where_inputs_are_noise(self):
        rng = np.random.default_rng(0)
        y = rng.integers(0, 3, 600)
        who, stretch = np.repeat(np.arange(6), 100), np.arange(600) // 20
        clear = np.eye(3)[y] @ rng.standard_normal((3, 5)) * 4 + rng.standard_normal((600, 5))
        model = ReadOut().fit(clear, y, who, stretch)
        assert (model.predict(clear) == y).mean() > 0.95
        noise = rng.standard_normal((600, 80))
        noise[:, 0] += y
        assert ReadOut().fit(noise, y, who, stretch).strength_ < 0.1

    def test_takes_the_usual_strength_where_there_is_nothing_to_choose_from(self):
        x, y = np.random.default_rng(0).standard_normal((20, 2)), np.arange(20) % 2
        assert ReadOut().fit(x, y, np.zeros(20), np.arange(20) // 10).strength_ == USUAL
        assert ReadOut(0.5).fit(x, y).strength_ == 0.5


class TestInterval:
    def tables(self, subjects, seeds, right, clusters=1, seed=0):
        rng = np.random.default_rng(seed)
        out = []
        for _ in range(subjects):
            hit = rng.binomial(40, right, (seeds, clusters, 2))
            t = np.zeros((seeds, clusters, 2, 2), dtype=np.int64)
            t[..., 0, 0], t[..., 1, 1] = hit[..., 0], hit[..., 1]
            t[..., 0, 1], t[..., 1, 0] = 40 - hit[..., 0], 40 - hit[..., 1]
            out.append(t)
        return out

    def test_kappa_is_that_of_the_metrics(self):
        t = np.random.default_rng(0).integers(0, 20, (5, 4, 3, 3))
        assert np.allclose(kappa_of(t), [[cohen_kappa(m) for m in row] for row in t])
        assert np.isnan(kappa_of(np.array([[5, 0], [0, 0]]))) and np.isnan(kappa_of(np.zeros((2, 2))))

    @pytest.mark.parametrize("within", [False, True])
    def test_finds_a_difference_and_no_difference(self, within):
        good, bad, same = self.tables(10, 3, 0.9, 4), self.tables(10, 3, 0.6, 4, 1), self.tables(10, 3, 0.9, 4, 2)
        fold = np.arange(10)
        mean, low, high = interval(good, bad, fold, within=within)
        assert 0.4 < low < mean < high < 0.8
        mean, low, high = interval(good, same, fold, within=within)
        assert low < 0 < high
        assert interval(good, good, fold, within=within) == (0, 0, 0)

    def test_seeds_that_differ_widen_it(self):
        steady, uneven = self.tables(8, 4, 0.8), self.tables(8, 4, 0.8)
        for t in uneven:
            t[0], t[1] = t[0][:, ::-1], t[1]  # seed 0 is wrong for every subject
        width = [high - low for _, low, high in (interval(t, None, np.arange(8), within=False) for t in (steady, uneven))]
        assert width[1] > 3 * width[0]

    def test_groups_are_drawn_as_wholes(self):
        """Subjects of a lab that all gain or all lose are no ten independent witnesses."""
        tables = self.tables(5, 2, 0.95) + self.tables(5, 2, 0.7, seed=1)
        alone = interval(tables, None, np.arange(10), within=False)
        labs = interval(tables, None, np.repeat([0, 1], 5), within=False)
        assert alone[0] == labs[0] and labs[2] - labs[1] > 1.5 * (alone[2] - alone[1])

    def test_one_subject_and_one_seed_have_none(self):
        mean, low, high = interval(self.tables(1, 1, 0.9), None, np.zeros(1, dtype=np.int64), within=False)
        assert mean > 0.5 and np.isnan([low, high]).all()
