"""Grids, splits and samplers: aligned, leak-free, repeatable."""

from __future__ import annotations

import sys
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from brainmu.core import EventTable, Hypnogram, Intervals, Recording
from brainmu.errors import InputError, MissingDataError
from brainmu.windows import Prefetch, SpanSampler, WindowGrid, WindowSampler, collate, measure, split
from brainmu.windows.grid import CacheBudget
from brainmu.windows.mapped import give_back
from brainmu.windows.spectra import BANDS, EPSILON, N_BANDS, patch_features


def recording(name="a", subject="m1", seconds=40.0, rate=250.0, lfp=2, units=3, position=True, seed=0) -> Recording:
    rng = np.random.default_rng(seed)
    signals = {}
    if lfp:
        signals["lfp"] = dict(values=rng.standard_normal((round(seconds * rate), lfp)) * 50 + 7, rate=rate, unit="uV", kind="lfp")
    if position:
        signals["position"] = dict(
            values=np.cumsum(rng.standard_normal((round(seconds * 30), 2)), 0), rate=30.0, unit="m", kind="position", channels=["x", "y"]
        )
    spikes = None
    if units:
        n = round(seconds * 10)
        spikes = dict(times=np.sort(rng.uniform(0, seconds, n)), unit=rng.integers(0, units, n))
    label = Hypnogram.from_stages(["WAKE", "NREM"] * round(seconds / 8), epoch=4.0)
    events = EventTable([1.0, seconds - 2], [1.5, seconds - 1])
    return Recording.from_arrays(
        name, subject, "mouse", signals=signals, spikes=spikes, labels={"scoring": label, "e": events, "run": Intervals([[0, seconds]])}
    )


class TestSplit:
    def test_no_subject_on_both_sides_and_nothing_lost(self):
        recs = [recording(f"r{i}", f"m{i % 4}", lfp=0) for i in range(9)]
        train, test = split(recs, test=0.3, seed=1)
        assert not {r.subject for r in train} & {r.subject for r in test}
        assert sorted(r.id for r in train + test) == sorted(r.id for r in recs)
        assert [r.id for r in split(recs, seed=1)[1]] == [r.id for r in test]

    def test_one_subject_names_the_alternative(self):
        with pytest.raises(InputError, match="by='time'"):
            split([recording("a"), recording("b")])

    def test_nameless_subject(self):
        with pytest.raises(InputError, match="names no subject"):
            split([recording("a", ""), recording("b", "m2")])

    def test_by_time_leaves_the_guard_out_and_keeps_the_clock(self):
        (train,), (test,) = split([recording(seconds=100.0)], by="time", test=0.3, guard=10.0)
        assert train.stop <= 65.0 + 1e-9 and test.start >= 75.0 - 1 / 30
        whole = recording(seconds=100.0)
        a, values = test.signals["lfp"].span(80.0, 81.0)
        b, expected = whole.signals["lfp"].span(80.0, 81.0)
        np.testing.assert_allclose(a, b)
        np.testing.assert_array_equal(values, expected)
        assert train.hypnogram("scoring").stop <= 65.0 and test.hypnogram("scoring").start >= 75.0
        assert len(train.events("e")) == 1 and len(test.events("e")) == 1
        assert test.spikes is not None and test.spikes.times.min() >= 75.0

    def test_guard_too_wide(self):
        with pytest.raises(InputError, match="lower guard="):
            split([recording()], by="time")

    @pytest.mark.parametrize("bad", [{"by": "session"}, {"test": 0.0}, {"test": 1.0}])
    def test_bad_arguments(self, bad):
        with pytest.raises(InputError):
            split([recording("a", "m1"), recording("b", "m2")], **bad)


class TestSpectra:
    @pytest.mark.parametrize("rate", [1250.0, 1000.0, 500.0, 200.0])
    def test_band_powers_of_white_noise_add_up_to_its_variance(self, rate):
        x = torch.from_numpy(np.random.default_rng(0).standard_normal((1, 400, round(rate))).astype(np.float32))
        f = patch_features(x, rate, torch.ones(1, N_BANDS))
        power = (torch.exp(f[..., :N_BANDS]) - EPSILON).mean(1)[0]
        covered = torch.tensor([high <= rate / 2 and low >= 1 for low, high in BANDS])
        width = torch.tensor([min(high, rate / 2) - low for low, high in BANDS]) / (rate / 2)
        assert torch.allclose(power[covered], width[covered], rtol=0.25)
        assert (f[..., :N_BANDS][..., ~covered] == 0).all()

    def test_a_tone_lands_in_its_band_and_keeps_its_waveform_at_any_rate(self):
        waves = []
        for rate in (1250.0, 200.0):
            t = np.arange(round(rate)) / rate
            f = patch_features(torch.tensor(np.sin(2 * np.pi * 7 * t), dtype=torch.float32)[None, None], rate, torch.ones(1, N_BANDS))[0, 0]
            assert BANDS[int(torch.where(f[:N_BANDS] == 0, -torch.inf, f[:N_BANDS]).argmax())] == (7, 8)
            waves.append(f[N_BANDS:])
        assert torch.allclose(waves[0], waves[1], atol=1e-3)
        assert torch.allclose(waves[0], torch.sin(2 * torch.pi * 7 * torch.arange(64) / 64), atol=1e-3)


def _size(rec: Recording) -> int:
    budget = CacheBudget(1 << 30)
    grid = WindowGrid(rec, cache=budget)
    assert len(grid) == 10
    return budget.used


def _mapped_kib() -> int:
    """Memory of mapped files that this process holds."""
    with open("/proc/self/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("RssFile"))


@pytest.fixture(scope="module")
def cached_and_not() -> tuple[WindowGrid, WindowGrid]:
    return WindowGrid(recording()), WindowGrid(recording(), cache=CacheBudget(0))


class TestGrid:
    def test_arrays_are_the_standardised_samples_of_their_window(self):
        rec = recording()
        grid = WindowGrid(rec, 4.0)
        assert len(grid) == 10
        arrays = grid.arrays(2, 4)
        s = grid.statistics.signals["lfp"]
        _, raw = rec.signals["lfp"].span(12.0, 16.0)
        np.testing.assert_allclose(arrays["lfp"][1].T * s.scale + s.centre, raw, rtol=1e-4, atol=1e-2)
        assert arrays["spikes"].sum() == len(rec.spikes.span(8.0, 16.0)[0])
        assert arrays["spikes"].shape == (2, 3, 80) and arrays["position"].shape == (2, 2, 32)

    def test_standardised_to_unit_scale(self):
        x = WindowGrid(recording(seconds=80.0)).arrays(0, 20)["lfp"]
        assert abs(np.median(x)) < 0.05 and abs(x.std() - 1) < 0.05

    def test_cached_and_uncached_batches_agree(self):
        rec = recording()
        a, b = WindowGrid(rec).batch([7, 1, 2, 9]), WindowGrid(rec, cache=0).batch([7, 1, 2, 9])
        assert [s.name for s in a.streams] == [s.name for s in b.streams]
        for x, y in zip(a.streams, b.streams):
            assert torch.allclose(x.values, y.values, atol=5e-3, rtol=2e-3) and torch.equal(x.valid, y.valid)

    @settings(max_examples=15, deadline=None)
    @given(rows=st.lists(st.integers(0, 9), min_size=1, max_size=30))
    def test_a_recording_looks_the_same_whether_its_features_found_room_or_not(self, cached_and_not, rows):
        for x, y in zip(*(g.batch(rows).streams for g in cached_and_not)):
            # Rounding of a transform of another number of windows may tip float16 over by a step.
            assert torch.equal(x.rows, y.rows) and torch.equal(x.valid, y.valid) and torch.allclose(x.values, y.values, rtol=2e-3, atol=1e-6)
            assert torch.equal(y.values, y.values.half().float())

    def test_a_single_pass_keeps_nothing_and_equals_what_is_kept(self):
        grid = WindowGrid(recording(seconds=400.0))
        passing = [grid.batch(slice(i, min(i + 128, 100)), keep=False) for i in range(0, 100, 128)]
        assert grid._cached is None
        kept = grid.batch(slice(None))
        assert grid._cached is not None and all(torch.equal(a.values, b.values) for a, b in zip(passing[0].streams, kept.streams))

    def test_grids_share_a_budget_in_the_order_they_are_made(self):
        rec = recording()
        budget = CacheBudget(2 * _size(rec))
        grids = [WindowGrid(rec, cache=budget) for _ in range(3)]
        for g in reversed(grids):
            g.batch([0])
        assert [g._cached is not None for g in grids] == [True, True, False] and budget.used == budget.size
        del grids, g
        assert budget.used == 0
        with pytest.raises(InputError, match="cache is -1"):
            CacheBudget(-1)

    @pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
    def test_pages_of_a_mapped_file_are_given_back_and_nothing_is_lost(self, tmp_path):
        x = np.random.default_rng(0).standard_normal((2_000_000, 1)).astype(np.float32)
        np.save(tmp_path / "x.npy", x)
        values = np.load(tmp_path / "x.npy", mmap_mode="r")
        before = _mapped_kib()
        assert float(values[:].sum()) == pytest.approx(float(x.sum()), abs=1.0) and _mapped_kib() > before + 4000
        give_back(values, 0, len(values))
        assert _mapped_kib() < before + 2000
        np.testing.assert_array_equal(values[500:600], x[500:600])
        changed = np.load(tmp_path / "x.npy", mmap_mode="c")
        changed[7] = 5.0
        give_back(changed, 0, len(changed))
        give_back(x, 0, len(x))
        assert changed[7] == 5.0

    def test_missing_samples_hide_their_patches(self):
        rec = recording(position=False)
        values = np.array(rec.signals["lfp"].values)
        values[250 * 4 : 250 * 5] = np.nan  # the first second of the second window
        holed = Recording.from_arrays("h", signals={"lfp": dict(values=values, rate=250.0, kind="lfp")})
        batch = WindowGrid(holed).batch([0, 1])
        assert batch.streams[0].valid[0].all() and batch.streams[0].valid[1].tolist() == [[False, True, True, True]] * 2
        assert torch.isfinite(batch.streams[0].values).all()

    def test_windows_beyond_a_signal_are_missing(self):
        grid = WindowGrid(recording(position=False, units=0), start=-4.0, count=12)
        valid = grid.batch(slice(None)).streams[0].valid
        assert not valid[0].any() and valid[1:11].all() and not valid[11].any()

    def test_one_sample_a_window(self):
        values = np.random.default_rng(0).standard_normal((20, 5))
        values[3, 2] = np.nan
        rec = Recording.from_arrays("f", signals={"bands": dict(values=values, rate=1 / 30, kind="features", start=10.0)})
        grid = WindowGrid(rec, 30.0)
        stream = grid.batch(slice(None)).streams[0]
        assert len(grid) == 20 and grid.start == 10.0 and stream.values.shape == (20, 5)
        assert not stream.valid[3, 2] and stream.valid.sum() == 99
        s = grid.statistics.signals["bands"]
        np.testing.assert_allclose(stream.values[5].numpy() * s.scale + s.centre, values[5], rtol=5e-3, atol=5e-3)

    def test_features_slower_than_windows_are_held(self):
        rec = Recording.from_arrays("f", signals={"bands": dict(values=np.arange(10.0)[:, None], rate=0.1, kind="features")})
        x = WindowGrid(rec, 5.0).arrays(0, 20)["bands"][:, 0]
        np.testing.assert_allclose(x[::2], x[1::2])
        assert len(np.unique(x)) == 10

    def test_infinite_samples_count_as_missing(self):
        x = np.random.default_rng(0).standard_normal((4000, 1))
        x[300] = np.inf
        rec = Recording.from_arrays("i", signals={"lfp": dict(values=x, rate=250.0, kind="lfp")})
        found = WindowGrid(rec).arrays(0, 1)["lfp"]
        assert np.isnan(found[0, 0, 300]) and np.isnan(found).sum() == 1

    def test_dead_channels_and_unusable_kinds(self):
        x = np.random.default_rng(0).standard_normal((4000, 3))
        x[:, 1] = 5.0
        rec = Recording.from_arrays("d", signals={"lfp": dict(values=x, rate=250.0, kind="lfp"), "ttl": dict(values=x, rate=250.0, kind="sync")})
        found = measure(rec)
        assert list(found.signals) == ["lfp"] and found.signals["lfp"].names == ("lfp_0", "lfp_2")
        assert any("lfp_1" in w for w in rec.warnings)
        with pytest.raises(MissingDataError, match="none usable"):
            measure(rec, kinds=("emg",))
        with pytest.raises(InputError, match="does not enter a model"):
            measure(rec, kinds=("lfq",))

    def test_mixed_kinds_in_one_signal(self):
        import pandas as pd

        table = pd.DataFrame({"name": ["a", "b", "t"], "kind": ["lfp", "position", "sync"]})
        rec = Recording.from_arrays("m", signals={"all": dict(values=np.random.default_rng(0).standard_normal((4000, 3)), rate=250.0, channels=table)})
        assert {k: v.modality for k, v in measure(rec).signals.items()} == {"all:field": "field", "all:slow": "slow"}

    def test_shorter_than_a_window(self):
        with pytest.raises(InputError, match="shorter than one window"):
            WindowGrid(recording(seconds=3.0))

    def test_unit_counts_survive_any_order_of_ids(self):
        spikes = dict(times=[0.1, 0.2, 1.0, 3.9], unit=[9, 2, 9, 5], units=None)
        rec = Recording.from_arrays("u", signals={"l": dict(values=np.random.default_rng(0).standard_normal((1000, 1)), rate=250.0, kind="lfp")}, spikes=spikes)
        grid = WindowGrid(rec)
        counts = dict(zip(grid.statistics.spikes.ids.tolist(), grid.arrays(0, 1)["spikes"][0].sum(1)))
        assert counts == {9: 2.0, 2: 1.0, 5: 1.0}


class TestSamplers:
    def grids(self):
        return [WindowGrid(recording("a", seconds=40.0)), WindowGrid(recording("b", seconds=90.0, lfp=1, units=5, position=False, rate=100.0))]

    def test_a_batch_is_a_function_of_seed_and_step(self):
        a, b = WindowSampler(self.grids(), 8, seed=3), WindowSampler(self.grids(), 8, seed=3)
        for step in (5, 0, 11):
            x, y = a.batch(step), b.batch(step)
            np.testing.assert_array_equal(x.start, y.start)
            assert all(torch.equal(s.values, t.values) for s, t in zip(x.streams, y.streams))
        assert not np.array_equal(a.batch(0).start, WindowSampler(self.grids(), 8, seed=4).batch(0).start)

    @settings(max_examples=25, deadline=None)
    @given(size=st.integers(2, 20), world=st.integers(1, 2), epoch=st.integers(0, 2))
    def test_every_window_once_an_epoch_over_all_ranks(self, size, world, epoch):
        lengths = [7, 11, 5]
        grids = [_Length(n) for n in lengths]
        total = sum(lengths)
        seen = []
        for step in range(epoch * total // size, (epoch + 1) * total // size + 1):
            session, window = WindowSampler(grids, size, seed=0).index(step)
            place = np.arange(step * size, (step + 1) * size)
            inside = (place >= epoch * total) & (place < (epoch + 1) * total)
            for rank in range(world):
                mine = np.flatnonzero(inside)[np.flatnonzero(inside) % world == rank]
                seen += list(zip(session[mine], window[mine]))
        assert len(seen) == total and len(set(seen)) == total

    def test_weights(self):
        session, _ = WindowSampler(self.grids(), 200, seed=0, weights=[3.0, 1.0]).index(0)
        assert 0.6 < (session == 0).mean() < 0.9
        with pytest.raises(InputError, match="weights"):
            WindowSampler(self.grids(), 4, weights=[1.0])

    def test_collate_keeps_rows_apart_and_time_in_double(self):
        a, b = (g.batch([0, 1]) for g in self.grids())
        both = collate([a, b])
        assert len(both) == 4 and both.start.dtype == np.float64
        assert [s.rows.tolist() for s in both.streams] == [[0, 1]] * 3 + [[2, 3]] * 2
        with pytest.raises(InputError, match="one length"):
            collate([a, WindowGrid(recording(), 8.0).batch([0])])

    @settings(max_examples=50, deadline=None)
    @given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=5), span=st.integers(1, 40), batch=st.integers(1, 4), epoch=st.integers(0, 3))
    def test_spans_tile_every_recording(self, lengths, span, batch, epoch):
        spans = [s for b in SpanSampler(lengths, span, batch, seed=1).epoch(epoch) for s in b]
        for r, n in enumerate(lengths):
            covered = np.concatenate([np.arange(a, b) for q, a, b in spans if q == r])
            assert sorted(covered.tolist()) == list(range(n))
        assert all(b - a <= span for _, a, b in spans)

    def test_prefetch_gives_items_in_order_and_hands_errors_over(self):
        assert list(Prefetch(lambda i: i * i, 2, 6)) == [4, 9, 16, 25]

        def fail(i):
            raise KeyError(i)

        with pytest.raises(KeyError):
            list(Prefetch(fail, 0, 3))

    def test_prefetch_stops_when_left(self):
        import threading

        for item in Prefetch(lambda i: i, 0, 1000):
            if item == 2:
                break
        assert not [t for t in threading.enumerate() if t.name == "brainmu-prefetch" and t.is_alive()]


class _Length:
    def __init__(self, n: int) -> None:
        self.n = n

    def __len__(self) -> int:
        return self.n


def test_no_warning_anywhere_in_a_pass():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        WindowGrid(recording()).batch(slice(None))
