"""Batches are pure functions of (seed, step), for any number of ranks and workers; nothing is counted twice; splits keep their guard."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainmu.core import Recording
from brainmu.errors import InputError
from brainmu.windows import SpanSampler, WindowGrid, WindowSampler, split
from brainmu.windows.sampler import Prefetch, Workers


def recording(name: str, seconds: float, channels: int = 2, units: int = 3, seed: int = 0) -> Recording:
    rng = np.random.default_rng(seed)
    signals = {"lfp": dict(values=rng.standard_normal((round(seconds * 50), channels)), rate=50.0, kind="lfp")}
    n = round(seconds * 5)
    spikes = dict(times=np.sort(rng.uniform(0, seconds, n)), unit=rng.integers(0, units, n)) if units else None
    return Recording.from_arrays(name, name, "mouse", signals=signals, spikes=spikes)


@pytest.fixture(scope="module")
def grids() -> list[WindowGrid]:
    return [WindowGrid(recording(n, s, c, u, i)) for i, (n, s, c, u) in enumerate([("a", 60.0, 2, 3), ("b", 200.0, 1, 0), ("c", 28.0, 3, 7)])]


WEIGHTS = st.sampled_from([None, (1.0, 1.0, 1.0), (5.0, 0.0, 1.0)])


class TestWindows:
    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 5), steps=st.lists(st.integers(0, 60), min_size=1, max_size=6), size=st.integers(4, 20), weights=WEIGHTS)
    def test_a_batch_does_not_know_what_was_asked_before(self, grids, seed, steps, size, weights):
        used = WindowSampler(grids, size, seed, weights=weights)
        for step in steps:
            for x, y in zip(used.index(step), WindowSampler(grids, size, seed, weights=weights).index(step)):
                np.testing.assert_array_equal(x, y)

    @settings(max_examples=40, deadline=None)
    @given(world=st.integers(1, 4), step=st.integers(0, 30), size=st.integers(4, 20), weights=WEIGHTS)
    def test_ranks_share_a_batch_out_and_the_outline_says_how(self, grids, world, step, size, weights):
        whole = WindowSampler(grids, size, 1, weights=weights).batch(step)
        samplers = [WindowSampler(grids, size, 1, weights=weights, rank=r, world=world) for r in range(world)]
        owner = np.full(len(whole), -1)
        for rank, sampler in enumerate(samplers):
            share, (outline, mine) = sampler.batch(step), sampler.outline(step)
            assert (owner[mine] == -1).all()
            owner[mine] = rank
            # The outline is the batch of one process, without samples.
            np.testing.assert_array_equal(outline.session, whole.session)
            np.testing.assert_array_equal(outline.start, whole.start)
            for a, b in zip(outline.streams, whole.streams):
                assert (a.name, a.modality, a.values.shape, a.valid.shape) == (b.name, b.modality, b.values.shape, b.valid.shape)
                assert torch.equal(a.rows, b.rows) and a.values.untyped_storage().nbytes() <= 8
            # Its rows that are mine are my batch.
            np.testing.assert_array_equal(share.session, whole.session[mine])
            np.testing.assert_array_equal(share.start, whole.start[mine])
            kept = [s for s in whole.streams if mine[s.rows.numpy()].any()]
            for a, b in zip(share.streams, kept, strict=True):
                assert a.name == b.name and torch.equal(a.values, b.values[torch.from_numpy(mine[b.rows.numpy()])])
        assert (owner >= 0).all()

    @settings(max_examples=20, deadline=None)
    @given(size=st.integers(1, 30), epoch=st.integers(0, 3), seed=st.integers(0, 3))
    def test_every_window_once_an_epoch_so_that_recordings_count_by_their_hours(self, grids, size, epoch, seed):
        sampler = WindowSampler(grids, size, seed)
        n = sampler.n_windows
        first, last = epoch * n, (epoch + 1) * n
        seen = []
        for step in range(first // size, (last - 1) // size + 1):
            session, window = sampler.index(step)
            place = np.arange(step * size, (step + 1) * size)
            inside = (place >= first) & (place < last)
            seen += list(zip(session[inside].tolist(), window[inside].tolist()))
        assert len(seen) == len(set(seen)) == n
        assert [sum(s == k for s, _ in seen) for k in range(3)] == [len(g) for g in grids]

    def test_weights_are_chances_and_a_recording_without_weight_never_comes(self, grids):
        session = np.concatenate([WindowSampler(grids, 100, 0, weights=[3.0, 0.0, 1.0]).index(i)[0] for i in range(30)])
        assert set(session.tolist()) == {0, 2}
        assert (session == 0).mean() == pytest.approx(0.75, abs=0.03)


class TestSpans:
    @settings(max_examples=30, deadline=None)
    @given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5), span=st.integers(1, 40), size=st.integers(1, 4), steps=st.integers(1, 20))
    def test_batches_walk_through_the_epochs_from_anywhere(self, lengths, span, size, steps):
        walked = [SpanSampler(lengths, span, size, seed=1).batch(i) for i in range(steps)]
        sampler = SpanSampler(lengths, span, size, seed=1)
        assert [sampler.batch(i) for i in reversed(range(steps))][::-1] == walked
        in_turn = [spans for number in range(steps) for spans in sampler.epoch(number)]  # an epoch has a batch at least
        assert walked == in_turn[:steps]

    @settings(max_examples=60, deadline=None)
    @given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5), span=st.integers(1, 40), size=st.integers(1, 4), epoch=st.integers(0, 3))
    def test_no_window_twice_in_an_epoch_and_none_left_out(self, lengths, span, size, epoch):
        seen = [(r, w) for spans in SpanSampler(lengths, span, size, seed=2).epoch(epoch) for r, a, b in spans for w in range(a, b)]
        assert sorted(seen) == [(r, w) for r, n in enumerate(lengths) for w in range(n)]

    def test_a_step_before_the_first(self):
        with pytest.raises(InputError, match="step is -1"):
            SpanSampler([5], 2, 1).batch(-1)


class TestSources:
    def test_workers_give_what_the_thread_gives_and_leave_the_random_state_alone(self, grids):
        sampler = WindowSampler(grids, 8, 0)
        sampler.prepare()
        before = torch.random.get_rng_state()
        a, b = Prefetch(sampler.batch, 3, 9), Workers(sampler.batch, 3, 9, 2)
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x.start, y.start)
            assert all(torch.equal(s.values, t.values) and torch.equal(s.valid, t.valid) for s, t in zip(x.streams, y.streams, strict=True))
        assert torch.equal(before, torch.random.get_rng_state())
        assert a.stall > 0 and b.stall > 0

    def test_an_error_in_a_worker_reaches_the_caller(self):
        def fail(step: int) -> int:
            if step == 2:
                raise InputError("recording s1 cannot be read")
            return step

        with pytest.raises(InputError, match="recording s1 cannot be read"):
            list(Workers(fail, 0, 5, 1))


class TestGuard:
    whole = recording("a", 200.0)

    @settings(max_examples=10, deadline=None)
    @given(share=st.floats(0.1, 0.6), guard=st.floats(0, 20), window=st.sampled_from([2.0, 4.0, 7.5]))
    def test_no_sample_of_a_training_window_is_within_the_guard_of_a_test_window(self, share, guard, window):
        (train,), (test,) = split([self.whole], by="time", test=share, guard=max(guard, 0.1))
        a, b = (WindowGrid(r, window) for r in (train, test))
        # Signals are cut at whole samples, which lie 20 ms apart.
        assert b.times[0] - (a.times[-1] + window) >= guard - 0.04
        assert train.spikes.times.max() < test.spikes.times.min()
