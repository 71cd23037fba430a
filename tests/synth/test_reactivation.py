"""The table of planted events says what was planted: forms, spans, contents, decoys, assemblies, before and after the running."""

from __future__ import annotations

import numpy as np
import pytest

import brainmu.synth as synth
from brainmu.core import Intervals
from brainmu.synth.arenas import make_arena, route_maker

_THREE = {"A": "negative", "B": "neutral", "C": "positive"}


def _made(**given):
    return synth.recording(**(dict(hours=0.5, seed=3, n_cells=30, n_channels=1, n_cortex=0) | given))


@pytest.mark.parametrize("arena", ["linear", "open", "arms"])
def test_every_replay_says_where_it_went_and_how_fast(arena):
    _, truth = _made(arena=arena, contexts=_THREE, fragmented=0.4)
    a, f = truth.reactivation, truth.fragments
    assert {"content", "context", "direction", "path", "span", "speed", "compression", "jumps", "phase", "n_spikes", "n_cells", "ripple"} <= set(a.columns)
    assert set(zip(a.content, a.context)) == {(c, k) for k, c in _THREE.items()}
    assert (a.span > 0).all()
    assert (a.span < 1).all()
    np.testing.assert_allclose(a.speed / truth.parameters["run_speed"], a.compression)
    assert np.median(a.compression) == pytest.approx(15 if arena != "open" else 13, rel=0.35)
    # Fragments tile their event, one more than the jumps.
    assert np.array_equal(np.bincount(f.event, minlength=len(a)), a.jumps + 1)
    first, last = np.flatnonzero(np.diff(f.event, prepend=-1)), np.r_[np.flatnonzero(np.diff(f.event)), len(f) - 1]
    np.testing.assert_allclose(f.start[first], a.start)
    np.testing.assert_allclose(f.stop[last], a.stop)
    assert (a.jumps[a.path == "sweep"] == 0).all()
    assert (a.jumps[a.path == "fragmented"] >= 1).mean() > 0.9
    if arena == "linear":
        assert ((a.x_to > a.x_from) == (a.direction == "forward")).all()
        np.testing.assert_allclose(np.abs(a.x_to - a.x_from), a.speed * a.duration)
    if arena == "arms":
        order = {"stem": 0, "left": 1, "right": 2}
        i, j = ([order[x] for x in getattr(a, c)] for c in ("arm_from", "arm_to"))
        assert (np.sign(np.subtract(j, i))[a.direction == "forward"] >= 0).all()
        assert np.mean(np.array(i) != np.array(j)) > 0.3
    if arena == "open":
        place = truth.place_fields.xy[[truth.place_fields.contexts.index(c) for c in a.context]]
        for x, y in ((a.x_from, a.y_from), (a.x_to, a.y_to)):
            assert (np.abs(np.c_[x, y][:, None] - place).max(2).min(1) < 1e-9).all()


def test_partial_replays_are_short_and_the_rest_is_as_it_was():
    _, whole = _made(compression_spread=0.0)
    _, part = _made(compression_spread=0.0, partial=0.5, partial_span=0.3)
    share = part.reactivation.span / whole.reactivation.span
    short = share < 0.5
    assert 0.3 < short.mean() < 0.7
    assert share[short] == pytest.approx(0.3, abs=1e-9)
    assert np.array_equal(whole.reactivation.start, part.reactivation.start)


def test_compression_has_its_own_factor_and_spread():
    _, slow = _made(compression=4.0, compression_spread=0.0)
    assert slow.reactivation.compression == pytest.approx(4.0)
    _, wide = _made(compression=4.0, compression_spread=0.5)
    assert 0.3 < np.std(np.log(wide.reactivation.compression)) < 0.7


def test_several_jumps():
    _, truth = _made(fragmented=1.0, jumps=3)
    assert truth.reactivation.jumps.mean() > 2


def test_ripples_and_events_point_to_each_other_inside_and_outside():
    _, truth = _made(outside_ripples=0.5, rate_matched_share=0.3, burst_share=0.3, burst_rate=0.1, pre_rest_minutes=8.0, hours=1.0)
    r, a, d = truth.ripples, truth.reactivation, truth.replay_decoys
    inside = a.ripple >= 0
    assert 0.3 < inside.mean() < 0.8
    assert np.array_equal(r.start[a.ripple[inside]], a.start[inside])
    assert np.array_equal(r.replay[a.ripple[inside]], np.flatnonzero(inside))
    assert (r.replay >= 0).sum() == inside.sum()
    assert (a.amplitude[inside] > 0).all()
    assert (a.amplitude[~inside] == 0).all()
    names = {"identity_shuffled": "shuffled", "rate_matched": "rate_matched", "burst": "burst", "other_map": "other_map"}
    assert set(d.kind) == set(names)
    held = d.ripple >= 0
    assert np.array_equal(r.start[d.ripple[held]], d.start[held])
    assert [names[k] for k in d.kind[held]] == r.carries[d.ripple[held]].tolist()
    assert set(d.kind[~held]) == {"burst"}
    assert (d.n_spikes >= d.n_cells).all()
    assert (np.asarray(d.context)[d.kind == "burst"] == "").all()
    assert not set(d.context[d.kind != "burst"]) - {"A", "B"}
    assert not r.intervals().contains((d.start[~held] + d.stop[~held]) / 2).any()


def test_a_rate_matched_decoy_keeps_the_cells_and_loses_the_order():
    _, truth = _made(shuffled_share=0.0, rate_matched_share=0.5, hours=1.0)
    d, a = truth.replay_decoys, truth.reactivation
    assert set(d.kind) == {"rate_matched"}
    assert np.mean(d.n_spikes) == pytest.approx(np.mean(a.n_spikes), rel=0.2)
    assert np.mean(d.n_cells) == pytest.approx(np.mean(a.n_cells), rel=0.2)


def test_an_identity_shuffled_decoy_is_played_by_the_cells_of_its_context():
    rec, truth = _made(shuffled_share=0.6, hours=1.0)
    fields, d = truth.place_fields, truth.replay_decoys
    place = np.asarray(rec.spikes.units["type"]) == "place"
    for k, context in enumerate(fields.contexts):
        mine = d[np.asarray(d.context) == context]
        assert len(mine) > 20
        with_field = np.flatnonzero(place & (np.ptp(fields.rate[k], axis=1) > 0))
        of_others = np.setdiff1d(np.flatnonzero(place), with_field)
        inside = mine.intervals()
        per_cell = [np.mean([inside.contains(truth.spikes.of(u)).sum() for u in fields.unit_id[cells]]) for cells in (with_field, of_others)]
        assert per_cell[0] > 2 * per_cell[1]  # all fire somewhat in ripples


def _told(a, b):
    """Area under the curve of telling `a` from `b`, whichever is larger."""
    share = (a[:, None] > b).mean() + 0.5 * (a[:, None] == b).mean()
    return max(share, 1 - share)


def _counted(truth, events, place):
    """Spikes of place cells, and cells that fire, in each event."""
    mine = np.isin(truth.spikes.unit_id, truth.spikes.units["id"].to_numpy()[place])
    t, u = truth.spikes.times[mine], truth.spikes.unit_id[mine]
    spans = list(zip(np.searchsorted(t, events.start), np.searchsorted(t, events.stop)))
    return np.array([[b - a, len(np.unique(u[a:b]))] for a, b in spans]).T


def test_neither_length_nor_the_number_of_spikes_alone_tells_ripples_with_a_replay():
    rec, truth = _made(hours=2.0, n_cells=60, shuffled_share=0.2, rate_matched_share=0.2, burst_share=0.2)
    place = np.asarray(rec.spikes.units["type"]) == "place"
    r, d = truth.ripples, truth.replay_decoys
    replays, plain = truth.reactivation, r[(r.carries == "") & (r.stage == "NREM")]
    assert 0.7 < _told(replays.duration, plain.duration) < 0.93
    assert _told(_counted(truth, replays, place)[0], _counted(truth, plain, place)[0]) < 0.93
    # Decoys of replay are played as long, by as many cells, with as many spikes.
    for kind in ("identity_shuffled", "rate_matched", "burst"):
        decoys = d[d.kind == kind]
        assert len(decoys) > 100
        assert _told(replays.duration, decoys.duration) < 0.6, kind
        for mine, theirs in zip(_counted(truth, replays, place), _counted(truth, decoys, place)):
            assert _told(mine, theirs) < 0.68, kind


def test_a_rate_matched_decoy_plays_volleys():
    rec, truth = _made(hours=2.0, n_cells=60, shuffled_share=0.0, rate_matched_share=0.5)
    spread = []
    for events in (truth.reactivation, truth.replay_decoys):
        out = []
        for a, b in zip(events.start, events.stop):
            t, u = rec.spikes.span(a, b)
            out.append(np.mean([np.std((t[u == k] - a) / (b - a)) for k in np.unique(u) if (u == k).sum() > 1] or [0.3]))
        spread.append(np.array(out))
    assert _told(*spread) < 0.8


def test_rest_before_the_running_comes_before_it_and_is_the_same_animal():
    rec, truth = _made(hours=1.5, pre_rest_minutes=30.0, confounding=0.0, n_cells=10)
    run = rec.labels["run"]
    assert run.start[0] == 1800.0
    assert rec.labels["pre_rest"] == Intervals([[0.0, 1800.0]])
    assert rec.labels["post_rest"].start[0] > run.stop[-1]
    assert len(rec.labels["rest"]) == 2
    assert (truth.reactivation.phase == "post").all()
    assert (truth.replay_decoys.stop[truth.replay_decoys.kind == "other_map"] < 1800.0).all()
    assert truth.bouts["start"].iloc[0] == 0
    assert np.array_equal(truth.bouts["start"].to_numpy()[1:], truth.bouts["stop"].to_numpy()[:-1])
    assert {"NREM", "WAKE"} <= set(truth.bouts["stage"][truth.bouts["stop"] < 1800.0])
    assert len(rec.labels["reactivation"]) == len(truth.reactivation)
    _, planted = _made(hours=1.5, pre_rest_minutes=30.0, confounding=0.0, preplay=0.5, n_cells=10)
    both = planted.reactivation.start[planted.reactivation.phase == "pre"], planted.replay_decoys.start[planted.replay_decoys.kind == "other_map"]
    assert 0.2 < len(both[0]) / (len(both[0]) + len(both[1])) < 0.8
    assert len(rec.labels["trials"]) == 0 or rec.labels["trials"].start.min() > run.stop[-1]


def test_assemblies_fire_together_in_their_context_and_when_it_is_reactivated():
    rec, truth = _made(hours=1.0, n_assemblies=2, assembly_share=0.5, contexts=_THREE)
    groups, a, run = truth.assemblies, truth.reactivation, rec.labels["context"]
    assert groups.groupby("context").size().to_dict() == {"A": 2, "B": 2, "C": 2}
    assert all(len(set(x) & set(y)) == 0 for x, y in groups.groupby("context")["members"].apply(list))
    unordered = a.path == "assembly"
    assert 0.35 < unordered.mean() < 0.65
    assert (groups["content"].to_numpy()[a.assembly[unordered]] == a.content[unordered]).all()
    assert (a.assembly[~unordered] == -1).all()
    assert np.isnan(a.span[unordered]).all()

    def active(row, moments, width=0.03):
        """Mean share of the members that fire within `width` s of each moment."""
        fired = [[np.searchsorted(s, m + width) > np.searchsorted(s, m - width) for m in moments] for s in map(rec.spikes.of, groups["members"][row])]
        return np.mean(fired)

    for row in (0, 3):
        v = truth.volleys[truth.volleys.assembly == row]
        there = run[run.content == groups["context"][row]].intervals()
        assert there.contains(v.peak).all()
        assert active(row, v.peak) > 0.7
        assert active(row, v.peak + 0.5) < 0.3
        again = a[a.assembly == row]
        assert active(row, (again.start + again.stop) / 2, 0.06) > 0.7


def test_a_third_neutral_content_works_everywhere():
    rec, truth = _made(contexts=_THREE, n_amygdala_cells=9, n_cortical=9, pre_rest_minutes=5.0, n_assemblies=1, burst_rate=0.05, arena="open")
    assert set(rec.labels["reactivation"].content) == {"negative", "neutral", "positive"}
    assert set(truth.populations["prefers"]) >= {"negative", "neutral", "positive"}
    assert len(truth.place_fields.contexts) == 3
    assert "neutral" in truth.summary()
    rec, truth = synth.study(2, hours=0.5, log_hazard_ratio={"negative": 0.5, "neutral": 0.0, "positive": -0.5})
    assert "neutral" in set(rec[0].labels["reactivation"].content)


def test_without_cells_the_events_are_still_told():
    rec, truth = _made(n_cells=0, burst_share=0.3, outside_ripples=0.3)
    assert rec.spikes is None
    assert {"identity_shuffled", "burst"} <= set(truth.replay_decoys.kind)
    assert len(truth.reactivation)
    assert len(truth.fragments) == 0


def test_new_events_are_the_same_bytes_every_time_and_the_old_ones_do_not_move():
    given = dict(
        outside_ripples=0.3, rate_matched_share=0.2, burst_share=0.2, burst_rate=0.1, pre_rest_minutes=5.0, n_assemblies=1, partial=0.3, rate_drift=0.2
    )
    (one, first), (two, second) = _made(**given), _made(**given)
    assert np.array_equal(one.spikes.times, two.spikes.times)
    assert first.replay_decoys.to_frame().equals(second.replay_decoys.to_frame())
    _, plain = _made()
    _, more = _made(partial=0.3, n_head=3, outside_ripples=0.4, rate_matched_share=0.2)
    assert np.array_equal(plain.reactivation.start, more.reactivation.start)
    assert np.array_equal(plain.place_fields.rate, more.place_fields.rate)
    assert np.array_equal(plain.slow_waves.start, more.slow_waves.start)


@pytest.mark.parametrize(("kind", "arms"), [("linear", ()), ("open", ()), ("arms", ("stem", "left", "right")), ("arms", ("a", "b", "c", "d", "e"))])
@pytest.mark.parametrize("seed", range(3))
def test_places_distances_and_routes_agree(kind, arms, seed):
    rng = np.random.default_rng(seed)
    arena = make_arena(kind, int(rng.integers(3)), float(rng.uniform(0.3, 3.0)), arms)
    n = len(arena.grid)
    assert np.array_equal(arena.bins(arena.xy if kind == "open" else arena.grid), np.arange(n))
    way = np.stack([arena.distance(k) for k in range(n)])
    np.testing.assert_allclose(way, way.T, atol=1e-9)
    assert (np.diag(way) == 0).all()
    # No way is shorter than the straight line, and none via a third place is shorter.
    straight = np.hypot(*(arena.xy[:, None] - arena.xy).transpose(2, 0, 1))
    assert (way >= straight - 1e-9).all()
    k = int(rng.integers(n))
    assert (way <= way[:, [k]] + way[[k], :] + 1e-9).all()
    route = route_maker(arena, None, rng)
    for _ in range(5):
        r = route()
        assert set(r.bins) <= set(range(n))
        assert (r.at(np.array([0.0, r.length])) == r.bins[[0, -1]]).all()
        # A route has no gaps: neighbouring steps are neighbouring bins.
        assert way[r.bins[:-1], r.bins[1:]].max() < 2.3 * max(np.sort(way[0])[1], r.length / len(r.bins))
