"""The learned detector: unseen animals, either modality, silence with a reason, content, files; and the parts it is made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import brainmu as bm
from brainmu.core import EventTable, Intervals, Recording
from brainmu.errors import BrainmuError, CheckpointError, InputError, MissingDataError, OutputExistsError
from brainmu.replay import ReplayDetector
from brainmu.replay.detection import detector as module
from brainmu.replay.detection.confidence import Calibration, Novelty
from brainmu.replay.detection.edges import events_in
from brainmu.replay.detection.traces import BIN, LfpTraces, SpikeTraces

SECONDS, RATE, UNITS = 120.0, 625.0, 20


def animal(seed: int, content: tuple[str, ...] = ("",)) -> tuple[Recording, EventTable]:
    """Two minutes with some thirty events of 60-150 ms: a ripple on two channels, in which half of the units fire (which half tells the content)."""
    rng = np.random.default_rng(seed)
    start = np.cumsum(rng.uniform(2.5, 5.0, 60))
    start = start[start < SECONDS - 2]
    stop = start + rng.uniform(0.06, 0.15, len(start))
    what = rng.integers(0, len(content), len(start))
    t = np.arange(int(SECONDS * RATE)) / RATE
    # A few are faint: nobody can be sure of those.
    loud = np.where(rng.random(len(start)) < 0.25, 0.45, 1.0)
    x = np.cumsum(rng.standard_normal((len(t), 2)), axis=0) * 0.2 + rng.standard_normal((len(t), 2))
    x -= np.array([np.convolve(v, np.ones(625) / 625, mode="same") for v in x.T]).T
    times, units = [rng.uniform(0, SECONDS, 3000)], [rng.integers(0, UNITS, 3000)]
    for a, b, k, size in zip(start, stop, what, loud):
        inside = (t >= a) & (t < b)
        x[inside] += 3.0 * size * np.sin(2 * np.pi * 185 * (t[inside] - a))[:, None]
        n = rng.poisson(250 * size * (b - a))
        times.append(rng.uniform(a, b, n))
        units.append(rng.integers(0, UNITS // 2, n) + (k % 2) * (UNITS // 2) if len(content) > 1 else rng.integers(0, UNITS, n))
    events = EventTable(start, stop, content=np.array(content, dtype=object)[what])
    rec = Recording.from_arrays(
        f"r{seed}", f"m{seed}", "mouse", signals={"lfp": {"values": x, "rate": RATE, "unit": "uV", "kind": "lfp"}},
        spikes={"times": np.concatenate(times), "unit": np.concatenate(units)}, labels={"reactivation": events, "rest": Intervals([[0.0, SECONDS]])},
    )  # fmt: skip
    return rec, events


def without(rec: Recording, *what: str) -> Recording:
    signals = {k: v for k, v in rec.signals.items() if k not in what}
    return Recording(rec.id, rec.subject, rec.species, signals=signals, spikes=None if "spikes" in what else rec.spikes, labels=rec.labels)


def with_lfp(rec: Recording, values: np.ndarray, rate: float = RATE) -> Recording:
    signals = {"lfp": {"values": values, "rate": rate, "unit": "uV", "kind": "lfp"}}
    spikes = None if rec.spikes is None else {"times": rec.spikes.times, "unit": rec.spikes.unit_id}
    return Recording.from_arrays(rec.id, rec.subject, "mouse", signals=signals, spikes=spikes)


@pytest.fixture(scope="module")
def fitted() -> ReplayDetector:
    sessions = [animal(k, ("A", "B"))[0] for k in range(3)]
    return ReplayDetector(encoder=None, steps=30, folds=2).fit(sessions, within="rest")


@pytest.fixture(scope="module")
def unseen() -> tuple[Recording, EventTable]:
    return animal(50)


@pytest.mark.parametrize("missing", [(), ("spikes",), ("lfp",)])
def test_an_unseen_animal_with_both_or_either(fitted, unseen, missing) -> None:
    rec, truth = unseen
    found = fitted.predict(without(rec, *missing))
    pairs = found.match(truth)
    assert len(pairs) >= 0.8 * len(truth) and len(pairs) >= 0.85 * len(found)
    error = 1000 * np.abs(np.c_[found.start, found.stop][pairs[:, 0]] - np.c_[truth.start, truth.stop][pairs[:, 1]])
    assert (np.median(error, axis=0) < 15).all()
    assert (found.probability >= 0.5).all() and (np.diff(found.start) > 0).all() and set(found.kind) == {"replay"}
    assert set(found.attrs["modalities"]) == {"lfp", "spikes"} - set(missing) == set("+".join(found.modalities[0:1]).split("+"))
    assert set(found.absent) == set(missing) and sum(found.abstained.values()) <= 8


def test_where_a_recording_is_cut_changes_nothing(fitted, unseen, monkeypatch) -> None:
    whole = fitted.predict(unseen[0])
    monkeypatch.setattr(module, "CHUNK", 40)
    parts = fitted.predict(unseen[0])
    assert len(whole) == len(parts) and np.allclose(whole.start, parts.start, atol=1e-3) and np.allclose(whole.probability, parts.probability, atol=0.02)


def test_probability_and_false_rate_choose_among_the_same_events(fitted, unseen) -> None:
    everything = fitted.predict(unseen[0], probability=0.0)
    ordered = np.sort(everything.probability.astype(float))
    middle = float(ordered[len(ordered) // 2 - 1 : len(ordered) // 2 + 1].mean())  # between two events
    likely = fitted.predict(unseen[0], probability=middle)
    assert 0 < len(likely) < len(everything) and set(likely.peak) == set(everything.peak[everything.probability > middle])
    some = fitted.predict(unseen[0], false_rate=1.0)
    assert set(some.peak) <= set(everything.peak) and some.attrs["false_rate"] == 1.0
    inside = fitted.predict(unseen[0], Intervals([[10.0, 30.0]]), probability=0.0)
    assert inside.attrs["seconds"] == pytest.approx(20.0) and set(inside.peak) <= set(everything.peak) and (inside.start >= 10).all()
    assert fitted.score([unseen[0]]) > 0.9


def test_it_says_nothing_where_it_has_nothing_to_read(fitted, unseen) -> None:
    rec = unseen[0]
    nothing = fitted.predict(Recording.from_arrays("n", "n", "mouse", signals={"emg": {"values": np.zeros((2000, 1)), "rate": 100.0, "kind": "emg"}}))
    assert len(nothing) == 0 and len(nothing.abstained) == 1 and "nothing to read" in next(iter(nothing.abstained)) and nothing.warnings
    slow = fitted.predict(with_lfp(without(rec, "spikes"), np.random.default_rng(0).standard_normal((20_000, 2)), 200.0))
    assert len(slow) == 0 and "sampled at 200 Hz" in slow.absent["lfp"] and sum(slow.abstained.values()) == pytest.approx(100.0)
    x = rec.signals["lfp"].read().copy()
    x[int(40 * RATE) : int(60 * RATE)] = np.nan
    gap = fitted.predict(with_lfp(without(rec, "spikes"), x))
    (span,) = gap.abstained_spans["neither LFP nor spikes there"]
    assert span == pytest.approx([40, 60], abs=0.05) and not ((gap.stop > 40) & (gap.start < 60)).any() and len(gap) > 8
    both = fitted.predict(with_lfp(rec, x))
    assert sum(both.abstained.values()) <= 8 and {"spikes", "lfp+spikes"} <= set(both.modalities)


@pytest.mark.parametrize("times", [[], [5.0], [0.1, 0.2], [0.1, 2.9]])
def test_hardly_a_spike_is_an_answer_not_a_crash(fitted, times) -> None:
    lfp = {"lfp": {"values": np.random.default_rng(0).standard_normal((300, 2)), "rate": RATE, "unit": "uV", "kind": "lfp"}}
    for signals in ({}, lfp):
        found = fitted.predict(Recording.from_arrays("few", "few", "mouse", signals=signals, spikes={"times": times, "unit": [0] * len(times)}))
        assert len(found) == 0 and "expected at least 10 s" in found.absent["lfp"] if signals else "lfp" in found.absent


def test_it_says_nothing_about_what_is_unlike_its_training(fitted, unseen) -> None:
    rng = np.random.default_rng(3)
    noise = fitted.predict(
        with_lfp(without(unseen[0], "spikes"), np.sign(rng.standard_normal((int(SECONDS * RATE), 2))) * rng.pareto(1.0, (int(SECONDS * RATE), 2)))
    )
    assert noise.abstained["unlike the recordings it was fitted on"] > 0.8 * SECONDS and len(noise) < 3


def test_content_is_told_for_animals_whose_events_were_shown(fitted, unseen) -> None:
    rec, truth = animal(0, ("A", "B"))
    found = fitted.predict(rec)
    pairs = found.match(truth)
    assert (found.content[pairs[:, 0]] == truth.content[pairs[:, 1]]).mean() > 0.95 and (found.content_probability[pairs[:, 0]] > 0.5).all()
    other = fitted.predict(unseen[0])
    assert set(other.content) == {""} and np.isnan(other.content_probability).all() and "not for m50" in other.attrs["content"]
    assert set(fitted.predict(without(rec, "spikes")).content) == {""}


def test_saved_and_loaded_it_finds_the_same(fitted, unseen, tmp_path) -> None:
    folder = fitted.save(tmp_path / "detector")
    again = ReplayDetector.load(folder)
    one, two = fitted.predict(unseen[0]), again.predict(unseen[0])
    assert (one.to_frame() == two.to_frame()).drop(columns="content_probability").all(axis=None) and one.abstained == two.abstained
    assert {p.name for p in folder.iterdir()} == {"config.yaml", "model.safetensors", "novelty.npz", "card.md"}
    with pytest.raises(OutputExistsError, match="exists already"):
        fitted.save(folder)
    fitted.save(folder, overwrite=True)
    (folder / "novelty.npz").unlink()
    with pytest.raises(CheckpointError, match="damaged"):
        ReplayDetector.load(folder)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match="not a saved detector"):
        fitted.save(tmp_path / "other", overwrite=True)


@pytest.mark.slow
def test_classical_ripples_as_labels() -> None:
    sessions = [without(animal(k)[0], "spikes") for k in (0, 1)]
    detector = ReplayDetector(encoder=None, modalities=("lfp",), steps=40, folds=2).fit(sessions, "ripple")
    found = detector.predict(without(animal(7)[0], "spikes"))
    assert set(found.kind) == {"ripple"} and len(found.match(animal(7)[1])) > 20 and set(detector.calibration_) == {"lfp"}
    alone = detector.predict(without(animal(7)[0], "lfp"))
    assert len(alone) == 0 and len(alone.abstained) == 1


@pytest.mark.slow
def test_labels_that_mean_nothing_are_refused_or_uncertain() -> None:
    """Labels moved in time: no probability may be high, or fitting refuses."""
    sessions = [animal(k) for k in range(2)]
    moved = [EventTable((e.start + 1.1) % 115, (e.start + 1.1) % 115 + e.duration) for _, e in sessions]
    detector = ReplayDetector(encoder=None, steps=40, folds=2)
    try:
        detector.fit([r for r, _ in sessions], moved)
    except MissingDataError as error:
        assert "too few events" in str(error)
    else:
        assert (detector.predict(animal(9)[0], probability=0.0).probability < 0.5).mean() > 0.9


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: ReplayDetector(modalities=("eeg",)), InputError, "expected some of lfp, spikes"),
        (lambda: ReplayDetector(probability=1.5), InputError, "expected 0 to 1"),
        (lambda: ReplayDetector(shortest=0.2, longest=0.1), InputError, "shortest < longest"),
        (lambda: ReplayDetector(encoder=None).predict(animal(0)[0]), InputError, "not fitted"),
        (lambda: ReplayDetector(encoder=None).fit(animal(0)[0]), InputError, "two or more"),
        (lambda: ReplayDetector(encoder=None).fit([animal(0)[0], animal(1)[0]], "replays"), MissingDataError, "there are reactivation"),
        (lambda: ReplayDetector(encoder=None).fit([animal(0)[0], animal(1)[0]], within="sleep"), MissingDataError, "there are rest"),
        (lambda: ReplayDetector(encoder=None).fit([animal(0)[0], animal(1)[0]], [EventTable([1.0], [1.1])] * 2), MissingDataError, "2 events in 2"),
        (lambda: ReplayDetector.load("no/such/folder"), BrainmuError, "no saved detector"),
    ],
)
def test_wrong_values_say_what_was_expected(call, error, says) -> None:
    with pytest.raises(error, match=says) as raised:
        call()
    assert "\n" not in str(raised.value)


# -- parts -----------------------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0.05, 0.6), st.floats(0.03, 0.3)), min_size=1, max_size=6), st.floats(0, 1e4))
@settings(max_examples=40, deadline=None)
def test_edges_lie_where_the_probability_rises_and_falls(plan, start) -> None:
    edges, t = [], 0.0
    for gap, length in plan:
        edges.append((t + gap + 0.1, t + gap + 0.1 + length))
        t = edges[-1][1]
    centres = (np.arange(int((t + 0.5) / BIN)) + 0.5) * BIN
    inside = np.any([(centres >= a) & (centres < b) for a, b in edges], axis=0)
    found = events_in(np.where(inside, 6.0, -8.0).astype(np.float32), start, floor=0.02, shortest=0.01, longest=1.0)
    assert len(found) == len(edges) and np.abs(found[:, :2] - start - np.array(edges)).max() < 2.5 * BIN
    assert (found[:, 0] <= found[:, 2]).all() and (found[:, 2] <= found[:, 1]).all()


@given(st.floats(0, 20), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_a_false_rate_is_kept_on_the_candidates_that_set_it(rate, seed) -> None:
    rng = np.random.default_rng(seed)
    true = rng.random(300) < 0.3
    features = rng.standard_normal((300, 3)) + true[:, None]
    c = Calibration.fit(features, true, 10.0, int(true.sum()))
    p = c.probability(features)
    assert (p[~true] >= c.threshold(rate)).sum() <= rate * 10.0 and abs(p.mean() - true.mean()) < 0.02
    same = Calibration.from_dict(c.to_dict())
    assert (same.probability(features) == p).all() and same.threshold(rate) == c.threshold(rate)


def test_novelty_lets_its_like_pass_and_stops_the_rest() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.standard_normal((300, 5)) * [1, 1, 1, 1, 0.1] for _ in range(3)]
    novelty = Novelty.fit(parts)
    assert (novelty.distance(rng.standard_normal((1000, 5)) * [1, 1, 1, 1, 0.1]) > novelty.level).mean() < 0.02
    assert (novelty.distance(np.full((10, 5), [0, 0, 0, 0, 1.0])) > novelty.level).all()


@pytest.mark.parametrize("which", ["lfp", "spikes"])
def test_traces_do_not_depend_on_where_reading_begins(unseen, which) -> None:
    rec = unseen[0]
    traces = LfpTraces.fit(rec.signals["lfp"], (150.0, 250.0)) if which == "lfp" else SpikeTraces.fit(rec.spikes, 0.0, SECONDS)
    whole, known = traces.read(0.0, 15_000)
    part, _ = traces.read(20.0, 2_500)
    assert known.all() and np.abs(part - whole[5000:7500])[50:-50].mean() < 0.02 and np.abs(np.median(whole, axis=0)[:5]).max() < 1.5


def test_units_count_whatever_their_number(unseen) -> None:
    s = unseen[0].spikes
    order = np.random.default_rng(0).permutation(UNITS)
    renamed = bm.Spikes(s.times, order[s.unit_id])
    a, b = (SpikeTraces.fit(x, 0.0, SECONDS).read(10.0, 2000)[0] for x in (s, renamed))
    assert np.allclose(a, b, atol=1e-4)


@pytest.mark.slow
def test_on_the_latents_of_the_packaged_encoder(tmp_path) -> None:
    sessions = [animal(k)[0] for k in range(3)]
    detector = ReplayDetector(steps=60).fit(sessions)
    rec, truth = animal(50)
    for missing in ((), ("spikes",), ("lfp",)):
        found = detector.predict(without(rec, *missing))
        assert len(found.match(truth)) >= 0.9 * max(len(truth), len(found))
    again = ReplayDetector.load(detector.save(tmp_path / "d"))
    assert np.allclose(again.predict(rec).start, detector.predict(rec).start) and (tmp_path / "d" / "encoder" / "model.safetensors").is_file()


@pytest.mark.realdata
def test_real_units_are_read_or_refused_with_a_reason(fitted, real_data) -> None:
    rec = bm.read(real_data / "rat-linear-track")
    found = fitted.predict(rec)
    said = sum(found.abstained.values())
    assert found.seconds + said == pytest.approx(rec.duration, abs=1.0) and "lfp" in found.absent
    assert np.isfinite(found.probability).all() and (found.stop > found.start).all() and set(found.attrs["modalities"]) == {"spikes"}
