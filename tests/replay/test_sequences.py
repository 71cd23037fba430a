from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import brainmu as bm
from brainmu.core import EventTable, Intervals
from brainmu.errors import BrainmuError, InputError, MissingDataError
from brainmu.replay.contexts import fit_contexts, run_epochs_by_context
from brainmu.replay.decode import units_and_position
from brainmu.replay.sequences import find_replay, posterior
from brainmu.replay.significance import Candidates, benjamini_hochberg, calibrated, exchanged_fields, log_evidence, tuned, weighted_correlation

QUICK = {"shuffles": 100, "null_sessions": 5, "null_shuffles": 30}


@pytest.fixture(scope="module")
def found(two_tracks) -> EventTable:
    return find_replay(two_tracks.recording, candidates=two_tracks.events, **QUICK)


def _truth(found: EventTable, planted: EventTable) -> tuple[np.ndarray, np.ndarray]:
    pairs = found.match(planted, 0.5)
    true, content = np.zeros(len(found), bool), np.full(len(found), "", dtype=object)
    true[pairs[:, 0]], content[pairs[:, 0]] = planted.true[pairs[:, 1]], planted.content[pairs[:, 1]]
    return true, content


def test_planted_replay_is_found_with_its_content(found, two_tracks) -> None:
    true, content = _truth(found, two_tracks.events)
    assert (found.p_value[true] < 0.05).mean() > 0.9
    assert (found.content[true] == content[true]).mean() > 0.95
    assert (found.p_content[true] < 0.05).mean() > 0.8
    assert (found.q_value[true] < 0.05).mean() > 0.8
    assert (found.p_value[~true] < 0.05).mean() < 0.2


def test_the_table_carries_its_provenance(found) -> None:
    assert found.decoding_error["median"] < 0.05 and found.quality == "good"
    assert set(found.nulls) == {"temporal", "spatial", "joint"} and found.contexts == ["A", "B"]
    assert found.epochs["run"] == "labels" and found.unit == "m"
    assert set(found.direction) <= {"forward", "reverse"} and (found.n_cells >= 5).all() and (found.n_bins >= 5).all()
    assert found.span.max() <= 1.1 and (found.q_value >= found.p_value).all()
    assert "warnings" not in found.attrs and "way" not in found.columns
    null = np.array(found.null_scores)
    assert len(null) == 200 and null.min() >= 0 and null.max() <= 1 and np.median(null) < np.median(found.score)


def test_doubtful_input_is_flagged(two_tracks) -> None:
    """Units that do not fit the numbers, holes in the position, and a decoder that cannot decode are said in the result."""
    rec, quick = two_tracks.recording, QUICK | {"null_sessions": 1}
    p = rec.signals["position"]
    values, times = p.read().astype(float), p.read_times()

    def said(v, spikes=rec.spikes) -> str:
        signals = {"position": {"values": v, "times": times, "unit": "m", "kind": "position", "channels": ["x", "y"]}}
        other = bm.Recording.from_arrays("o", signals=signals, spikes=spikes, labels=rec.labels)
        return " ".join(find_replay(other, candidates=two_tracks.events, **quick).attrs["warnings"])

    assert "is 'm' the position's unit?" in said(values * 100)
    copies = bm.Spikes(np.repeat(rec.spikes.times, 2), np.repeat(rec.spikes.unit_id, 2), rec.spikes.units)
    assert "50% of the spikes stand twice" in said(values, copies)
    a = rec.labels["run_A"]
    hole = values.copy()
    hole[(times > a.start[0] + 60) & (times < a.start[0] + 150)] = np.nan
    assert "'A' have no position" in said(hole)
    gone = values.copy()
    gone[::40] = 0.0
    assert "at one exact place" in said(gone)
    s = rec.spikes
    thirds = values.copy()  # cells with a field in each third of the track: tuned, but they cannot say which third it is
    low, length = values[:, 0].min(), np.ptp(values[:, 0])
    thirds[:, 0] = low + (values[:, 0] - low + (times // 8 % 3) * length / 3) % length
    signals = {"position": {"values": thirds, "times": times, "unit": "m", "kind": "position", "channels": ["x", "y"]}}
    other = bm.Recording.from_arrays("o", signals=signals, spikes=s, labels={"rest": rec.labels["rest"]})
    run = {"A": a}
    found = find_replay(other, run=run, candidates=two_tracks.events, **quick)
    assert found.quality == "poor", found.decoding_error
    assert "decoding is poor" in found.attrs["warnings"][0]


def test_one_lap_is_flagged(make_session) -> None:
    """A slow animal on a long track: enough time to decode, hardly any laps."""
    lap = make_session(seed=3, laps=24.0, length=3.0, bursts=20)
    rec, slow = lap.recording, 4.0
    p, s = rec.signals["position"], rec.spikes
    signals = {"position": {"values": p.read(), "times": p.read_times() * slow, "unit": "m", "kind": "position", "channels": ["x", "y"]}}
    labels = {k: Intervals(v.bounds * slow) for k, v in rec.labels.items()}
    stretched = bm.Recording.from_arrays("slow", signals=signals, spikes={"times": s.times * slow, "unit": s.unit_id}, labels=labels)
    events = bm.EventTable(lap.events.start * slow, lap.events.stop * slow, kind="burst")
    found = find_replay(stretched, candidates=events, **QUICK | {"null_sessions": 1})
    assert any("times along the track 'run', expected 4 or more" in w for w in found.attrs["warnings"])


def test_same_seed_same_table(two_tracks, found) -> None:
    again = find_replay(two_tracks.recording, candidates=two_tracks.events, **QUICK)
    assert again.to_frame().equals(found.to_frame())


def test_null_sessions_give_no_more_than_the_nominal_rate(make_session) -> None:
    p = []
    for seed in range(5):
        s = make_session(seed=20 + seed, true=0.0, bursts=60, laps=60.0)
        p.append(find_replay(s.recording, candidates=s.events, shuffles=60, null_sessions=5, null_shuffles=30).p_value)
    p = np.concatenate(p)
    # 300 events: 0.05 ± 0.0126; three standard errors.
    assert (p < 0.05).mean() <= 0.088 and (p < 0.5).mean() == pytest.approx(0.5, abs=0.08)


def test_shuffled_cell_identities_destroy_replay(make_session) -> None:
    s = make_session(seed=5, true=1.0, bursts=60)
    rest = s.recording.labels["rest"]
    spikes = s.recording.spikes
    deal = np.random.default_rng(0).permutation(spikes.n_units)
    unit = np.where(rest.contains(spikes.times), deal[spikes.unit_id], spikes.unit_id)
    broken = bm.Recording.from_arrays("b", signals=s.recording.signals, spikes={"times": spikes.times, "unit": unit}, labels=s.recording.labels)
    good = find_replay(s.recording, candidates=s.events, **QUICK).p_value
    bad = find_replay(broken, candidates=s.events, **QUICK).p_value
    assert (good < 0.05).mean() > 0.9 and (bad < 0.05).mean() < 0.15


def test_a_context_in_which_all_cells_fire_more_is_not_read_into_every_event(make_session) -> None:
    s = make_session(seed=1, contexts=("A", "B"), bursts=80, true=1.0)
    spikes, rest = s.recording.spikes, s.recording.labels["rest"]
    deal = np.random.default_rng(0).permutation(spikes.n_units)
    keep = ~s.recording.labels["run_A"].contains(spikes.times) | (np.arange(len(spikes)) % 2 == 0)  # A with half of its spikes

    def read(unit: np.ndarray) -> EventTable:
        arrays = {"times": spikes.times[keep], "unit": unit[keep]}
        return find_replay(
            bm.Recording.from_arrays("g", signals=s.recording.signals, spikes=arrays, labels=s.recording.labels), candidates=s.events, **QUICK, least_spikes=10
        )  # fmt: skip

    null = read(np.where(rest.contains(spikes.times), deal[spikes.unit_id], spikes.unit_id))
    assert 0.2 < (null.content == "A").mean() < 0.8 and (null.p_content < 0.05).mean() < 0.15
    planted = read(spikes.unit_id)
    assert (planted.content == _truth(planted, s.events)[1]).mean() > 0.95 and (planted.p_content < 0.05).mean() > 0.8


def test_evidence_knows_no_gain() -> None:
    rng = np.random.default_rng(0)
    rates = rng.uniform(0.5, 20, (8, 30)).astype(np.float32)
    binned = Candidates.of([rng.poisson(0.6, (n, 8)) for n in (5, 9)], 0.02)
    assert np.allclose(log_evidence(binned, binned.counts, rates), log_evidence(binned, binned.counts, 7 * rates), atol=1e-3)


def test_p_is_calibrated_at_every_size_of_event() -> None:
    rng = np.random.default_rng(0)
    size = np.tile([1.0, 2.0, 3.0], 400)
    mean, sd = np.array([-0.5, 0.0, 0.3])[size.astype(int) - 1], np.array([0.5, 1.0, 1.5])[size.astype(int) - 1]
    p = calibrated(mean + sd * rng.normal(size=1200), mean + sd * rng.normal(size=(20, 1200)), size)
    for k in (1, 2, 3):
        assert 0.02 < (p[size == k] < 0.05).mean() < 0.08 and (p[size == k] < 0.5).mean() == pytest.approx(0.5, abs=0.08)
    assert calibrated(np.full(3, 9.0), np.zeros((20, 3)), np.ones(3)).tolist() == pytest.approx([1 / 61] * 3)
    assert (calibrated(np.zeros(3), np.zeros((20, 3)), np.ones(3)) == 1).all()


def test_bursts_are_the_default_candidates(make_session) -> None:
    s = make_session(seed=7, bursts=20, laps=120.0)
    found = find_replay(s.recording, **QUICK)
    assert found.candidates == "burst" and found.n_candidates >= 20 and len(found.match(s.events, 0.3)) > 14


def test_posterior_follows_a_planted_trajectory(make_session) -> None:
    s = make_session(seed=8, true=1.0, bursts=10)
    spikes, position = units_and_position(s.recording)
    contexts, _ = fit_contexts(s.recording, spikes, position)
    p = posterior(s.recording, s.events.start[0], s.events.stop[0], contexts["run"])
    assert p.dims == ("time", "position") and np.allclose(p.sum("position"), 1, atol=1e-4) and p.position.attrs["units"] == "m"
    mean = (p * p.position).sum("position")
    assert abs(np.corrcoef(p.time, mean)[0, 1]) > 0.8


def test_weighted_correlation_of_a_perfect_line_is_one_and_of_its_mirror_minus_one() -> None:
    x = np.linspace(0, 1, 50, dtype=np.float32)
    rates = (20 * np.exp(-0.5 * ((x - np.linspace(0, 1, 20)[:, None]) / 0.06) ** 2) + 0.1).astype(np.float32)
    counts = 3 * np.eye(20, dtype=np.int32)
    for c, sign in ((counts, 1), (counts[::-1], -1)):
        binned = Candidates.of([c, c], 0.02)
        s = weighted_correlation(binned, binned.counts, rates, x)
        assert np.allclose(s.r, sign, atol=0.03) and np.allclose(s.slope, sign / 0.38, rtol=0.1)


def test_rolling_keeps_every_units_spikes_in_every_event() -> None:
    rng = np.random.default_rng(0)
    counts = [rng.poisson(1, (n, 6)) for n in (5, 9, 12)]
    binned = Candidates.of(counts, 0.02)
    rolled = binned.rolled(rng)
    for e in range(3):
        assert np.array_equal(np.sort(rolled[binned.event == e], axis=0), np.sort(counts[e], axis=0))
    assert not np.array_equal(rolled, binned.counts)


def test_dealing_fields_anew_keeps_mean_rates_and_flat_fields() -> None:
    x = np.linspace(0, 1, 30)
    rates = (8 * np.exp(-0.5 * ((x - np.linspace(0, 1, 12)[:, None]) / 0.08) ** 2) + 0.2).astype(np.float32)
    rates[:3] = 15 + 0.5 * np.sin(6 * x)
    which = tuned(rates)
    assert which.tolist() == [False] * 3 + [True] * 9
    dealt = exchanged_fields(rates, which, np.random.default_rng(2))
    assert np.allclose(dealt.mean(1), rates.mean(1), rtol=1e-5) and np.allclose(dealt[:3], rates[:3])
    assert not np.allclose(dealt[3:], rates[3:], rtol=0.1)


@given(st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=40))
@settings(deadline=None)
def test_benjamini_hochberg_agrees_with_statsmodels(p: list[float]) -> None:
    from statsmodels.stats.multitest import fdrcorrection

    assert np.allclose(benjamini_hochberg(p), fdrcorrection(p)[1])


def test_contexts_from_labels_tables_and_mappings(two_tracks) -> None:
    rec = two_tracks.recording
    a, b = rec.labels["run_A"], rec.labels["run_B"]
    assert list(run_epochs_by_context(rec, "run")[0]) == ["A", "B"]
    table = EventTable([a.start[0], b.start[0]], [a.stop[0], b.stop[0]], content=["x", "y"])
    labelled = bm.Recording.from_arrays("t", signals=rec.signals, spikes=rec.spikes, labels={"run": table})
    assert list(run_epochs_by_context(labelled, "run")[0]) == ["x", "y"]
    assert list(run_epochs_by_context(rec, {"one": a})[0]) == ["one"]


def test_bad_input_is_an_error_that_names_it(two_tracks, make_session) -> None:
    rec, ev = two_tracks.recording, two_tracks.events
    a = rec.labels["run_A"]
    for call, words in [
        (lambda: find_replay(rec, run={"A": a, "B": Intervals([[a.start[0] + 5, a.stop[0] + 5]])}), "overlap"),
        (lambda: find_replay(rec, rest=a), "overlap"),
        (lambda: find_replay(rec, rest="nap"), "no label 'nap'"),
        (lambda: find_replay(rec, run="maze"), "no label 'maze'"),
        (lambda: find_replay(rec, run={"A": Intervals([[a.start[0], a.start[0] + 8]])}), "too few laps"),
        (lambda: find_replay(rec, candidates="wave"), "candidates"),
        (lambda: find_replay(rec, candidates="ripple"), "no LFP"),
        (lambda: find_replay(rec, candidates=ev, shuffles=2), "at least 20"),
        (lambda: find_replay(rec, candidates=ev, bin_size=0.0), "bin_size"),
    ]:
        with pytest.raises(BrainmuError, match=words):
            call()
    s = rec.spikes
    keep = (s.unit_id == 0) | ~a.union(rec.labels["run_B"]).contains(s.times)
    silent = bm.Recording.from_arrays("s", signals=rec.signals, spikes={"times": s.times[keep], "unit": s.unit_id[keep]}, labels=rec.labels)
    with pytest.raises(MissingDataError, match="on the track"):
        find_replay(silent, candidates=ev)
    with pytest.raises(InputError, match="Intervals"):
        find_replay(rec, run={"A": "yes"})


def test_replay_of_units_without_place_is_flagged(make_session) -> None:
    s = make_session(seed=4, bursts=10)
    spikes, run = s.recording.spikes, s.recording.labels["run"]
    anywhere = np.random.default_rng(0).uniform(run.start[0], run.stop[0], len(spikes))
    times = np.where(run.contains(spikes.times) & (spikes.unit_id > 2), anywhere, spikes.times)  # three units keep their place
    rec = bm.Recording.from_arrays("flat", signals=s.recording.signals, spikes={"times": times, "unit": spikes.unit_id}, labels=s.recording.labels)
    found = find_replay(rec, candidates=s.events, **QUICK)
    assert found.quality == "poor" and found.n_tuned == 3 and "3 of 40 units are tuned" in found.attrs["warnings"][-1]


def test_no_event_rich_enough_gives_an_empty_table_with_all_columns(two_tracks, found) -> None:
    short = EventTable([two_tracks.recording.labels["rest"].start[0] + 1], [two_tracks.recording.labels["rest"].start[0] + 1.05], kind="burst")
    none = find_replay(two_tracks.recording, candidates=short, **QUICK)
    assert len(none) == 0 and none.columns == found.columns and none.n_candidates == 1


@pytest.mark.realdata
def test_rest_of_the_rat_holds_little_replay(real_data) -> None:
    found = find_replay(bm.read(real_data / "rat-linear-track"), shuffles=200, null_sessions=10)
    assert found.decoding_error["median"] < 30 and found.decoding_error["unit"] == "px"
    assert "derived from speed" in found.epochs["rest"]
    # Weak: no more than a few per cent beyond chance, whichever way it falls.
    assert 100 < len(found) < 400 and (found.p_value < 0.05).mean() < 0.15
