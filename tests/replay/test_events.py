from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import fft as sp_fft

import brainmu as bm
from brainmu.core import Hypnogram, Intervals
from brainmu.errors import BrainmuError, InputError, MissingDataError
from brainmu.replay.events import find_events

RATE = 1250.0


def coloured(seconds: float, seed: int, exponent: float, channels: int = 4, shared: float = 0.5) -> np.ndarray:
    rng = np.random.default_rng(seed)
    n = int(seconds * RATE)
    shape = np.maximum(np.fft.rfftfreq(n, 1 / RATE), 0.5) ** (-exponent / 2)
    x = sp_fft.irfft(sp_fft.rfft(rng.standard_normal((n, channels + 1), dtype=np.float32), axis=0) * shape[:, None].astype(np.float32), n, axis=0)
    x = np.sqrt(1 - shared) * x[:, :-1] + np.sqrt(shared) * x[:, -1:]
    return (100 * x / x.std()).astype(np.float32)


def add_burst(x: np.ndarray, at: float, length: float, frequency: float, size: float) -> None:
    i = int(at * RATE)
    t = np.arange(int(length * RATE)) / RATE
    x[i : i + len(t)] += (size * np.hanning(len(t)) * np.sin(2 * np.pi * frequency * t))[:, None]


def in_band_sd(x: np.ndarray, low: float = 150, high: float = 250) -> float:
    f = np.fft.rfftfreq(len(x), 1 / RATE)
    return float(np.fft.irfft(np.where((f >= low) & (f <= high), np.fft.rfft(x[:, 0]), 0), len(x)).std())


@pytest.fixture(scope="module")
def rippled() -> tuple[np.ndarray, np.ndarray]:
    x = coloured(300, 3, 1.5)
    sd = in_band_sd(x)
    rng = np.random.default_rng(4)
    start = np.arange(3, 297, 3.0) + rng.uniform(0, 1, 98)
    length = rng.uniform(0.05, 0.12, 98)
    for a, d in zip(start, length):
        add_burst(x, a, d, rng.uniform(160, 220), 6 * sd)
    return x, np.c_[start, start + length]


@pytest.mark.parametrize(("exponent", "seed"), [(0.0, 0), (1.0, 1)])
def test_noise_holds_fewer_than_five_ripples_in_ten_minutes(make_lfp, exponent: float, seed: int) -> None:
    found = find_events(make_lfp(coloured(600, seed, exponent, shared=0.0 if exponent == 0 else 0.5)))
    assert len(found) < 5 and found.surrogate_rate < 0.5 and found.baseline == "session"


def test_planted_ripples_are_found_where_they_are(make_lfp, rippled) -> None:
    x, truth = rippled
    found = find_events(make_lfp(x))
    pairs = found.match(bm.EventTable(truth[:, 0], truth[:, 1]), 0.3)
    assert len(pairs) > 0.9 * len(truth) and len(found) < 1.05 * len(truth)
    assert (found.duration <= 3 * (truth[:, 1] - truth[:, 0]).max()).all()
    assert ((found.frequency > 140) & (found.frequency < 240)).mean() > 0.95
    middle = truth.mean(1)[pairs[:, 1]]
    assert np.abs(found.peak[pairs[:, 0]] - middle).mean() < 0.01
    assert found.rate == pytest.approx(len(found) / 5, rel=1e-6) and found.channels == ["lfp_0", "lfp_1", "lfp_2", "lfp_3"]


def test_gamma_muscle_transients_and_hum_are_not_ripples(make_lfp) -> None:
    x = coloured(300, 5, 1.5)
    rng = np.random.default_rng(6)
    for a in np.arange(2, 298, 8.0):
        add_burst(x, a, 0.1, rng.uniform(80, 115), 6 * in_band_sd(x, 70, 130))
        i = int((a + 2) * RATE)
        x[i : i + 300] += (np.diff(rng.normal(size=301)) * 40 * np.hanning(300))[:, None]
        i = int((a + 4) * RATE)
        x[i : i + 100] += (800 * np.exp(-np.arange(100) / 10))[:, None]
    t = np.arange(len(x)) / RATE
    x += sum(30 / k * np.sin(2 * np.pi * 50 * k * t) for k in range(1, 6))[:, None]
    found = find_events(make_lfp(x))
    assert len(found) <= 5 and sum(found.vetoed.values()) > 20


def test_result_does_not_depend_on_where_time_starts_nor_on_units(make_lfp, rippled) -> None:
    x, _ = rippled
    a = find_events(make_lfp(x))
    later = bm.Recording.from_arrays("l", signals={"lfp": {"values": x * 0.001, "rate": RATE, "unit": "x", "kind": "lfp", "start": 1234.0}})
    b = find_events(later)
    assert len(a) == len(b) and np.allclose(b.start - a.start, 1234.0, atol=1e-6)


def test_blocks_do_not_show(make_lfp, rippled, monkeypatch) -> None:
    from brainmu.replay import ripples

    x, _ = rippled
    whole = find_events(make_lfp(x), threshold=5.0)
    monkeypatch.setattr(ripples, "_BLOCK_SECONDS", 17.0)
    parts = find_events(make_lfp(x), threshold=5.0)
    assert len(whole.match(parts, 0.8)) > 0.97 * max(len(whole), len(parts))


def test_within_and_baseline_are_honoured(make_lfp, rippled) -> None:
    x, _ = rippled
    stages = ["WAKE"] * 30 + ["NREM"] * 45
    scored = Hypnogram.from_stages(stages, epoch=4.0)
    rec = make_lfp(x, labels={"scoring": scored})
    inside = Intervals([[100, 160]])
    found = find_events(rec, within=inside)
    assert found.baseline == "NREM" and len(found) > 10
    assert inside.contains(found.peak).all()
    assert find_events(rec, baseline="session").baseline == "session"
    assert find_events(rec, baseline=Intervals([[0, 60]])).baseline == "given"
    with pytest.raises(MissingDataError, match="expected times in common"):
        find_events(rec, hypnogram=Hypnogram.from_stages(stages, epoch=4.0, start=5000.0))


def test_movement_is_left_out_unless_asked_for(make_lfp, rippled) -> None:
    x, _ = rippled
    t = np.arange(300 * 30) / 30
    place = np.where(t < 150, 0.5 * np.sin(t), 0.5 * np.sin(150))
    signals = {
        "lfp": {"values": x, "rate": RATE, "unit": "uV", "kind": "lfp"},
        "position": {"values": place[:, None], "rate": 30.0, "unit": "m", "kind": "position", "channels": ["x"]},
    }
    rec = bm.Recording.from_arrays("m", signals=signals)
    still, all_ = find_events(rec), find_events(rec, movement=True)
    assert still.baseline == "immobility" and len(all_) > 1.6 * len(still) and "0.04 m/s" in still.movement


def test_missing_samples_and_dead_channels(make_lfp, rippled) -> None:
    x, truth = (v.copy() for v in rippled)
    x[:, 1] = 0
    x[100_000:110_000] = np.nan
    found = find_events(make_lfp(x))
    assert found.channels == ["lfp_0", "lfp_2", "lfp_3"] and len(found) > 0.85 * len(truth)
    assert "lfp_1 is flat" in " ".join(found.attrs["warnings"])
    assert found.missing_seconds == pytest.approx(10_000 / RATE) and found.seconds == pytest.approx(300 - 10_000 / RATE)
    assert found.rate == pytest.approx(len(found) / found.seconds * 60)
    gap = Intervals([[80.0, 88.0]])
    assert not gap.contains(found.peak).any()


def test_many_channels_are_narrowed_to_those_with_ripples(make_lfp, rippled) -> None:
    x, _ = rippled
    quiet = coloured(300, 9, 1.5, channels=12)
    found = find_events(make_lfp(np.c_[quiet, x]))
    assert len(found.channels) == 8 and {f"lfp_{k}" for k in range(12, 16)} <= set(found.channels) and "8 of 16" in found.selection


def test_bursts_are_found_and_their_surrogates_counted(make_session) -> None:
    s = make_session(seed=2)
    found = find_events(s.recording, "burst", within=s.recording.labels["rest"], baseline=s.recording.labels["rest"])
    assert len(s.events.match(found, 0.3)) > 50 and found.baseline == "given"
    assert (found.score >= 2).all() and (found.n_units >= 3).all() and found.surrogate_rate > 0


def test_high_synchrony_counts_units_not_spikes(make_session) -> None:
    s = make_session(seed=2)
    rest = s.recording.labels["rest"]
    found = find_events(s.recording, "hse", within=rest, baseline=rest)
    assert len(s.events.match(found, 0.3)) > 50 and set(found.kind) == {"hse"} and found.surrogate_rate < 0.2 * found.rate
    assert (found.n_units >= 5).all() and (found.score >= 3).all() and (found.duration >= 0.05).all()
    # One cell that fires fifty spikes at once is a burst of the multiunit rate and no synchrony.
    quiet = s.events.start[0] - 0.4
    spikes = {"times": np.r_[s.recording.spikes.times, quiet + np.linspace(0, 0.08, 50)], "unit": np.r_[s.recording.spikes.unit_id, np.zeros(50, int)]}
    loud = bm.Recording.from_arrays("loud", signals=s.recording.signals, spikes=spikes, labels=s.recording.labels)
    at = lambda kind, **more: find_events(loud, kind, within=rest, baseline=rest, **more).intervals().contains(quiet + 0.04)  # noqa: E731
    assert at("burst", least_units=1) and not at("hse", least_units=1, least_share=0.0)


def test_active_units_are_counted_as_their_definition_says(make_session) -> None:
    from brainmu.replay.bursts import _active_units

    spikes = make_session(seed=2, bursts=4).recording.spikes
    a, b = 100.0, 103.0
    middle = a + 0.002 * (np.arange(1500) + 0.5)
    counted = sum(((np.abs(middle[:, None] - spikes.of(u)) < 0.01).any(1)).astype(int) for u in spikes.units["id"])
    assert np.abs(_active_units(spikes, a, b, 0.02, 0.0) - counted).max() == 0


@pytest.mark.parametrize("kind", ["burst", "hse"])
def test_the_false_rate_of_bursts_holds_in_another_draw(make_session, kind: str) -> None:
    s = make_session(seed=2)
    rest = s.recording.labels["rest"]
    few, many = (find_events(s.recording, kind, within=rest, baseline=rest, false_rate=r) for r in (0.5, 6.0))
    assert few.threshold > many.threshold and few.surrogate_rate < 2 and 2 < many.surrogate_rate < 14
    with pytest.raises(InputError, match="both given"):
        find_events(s.recording, kind, threshold=2.0, false_rate=1.0)
    with pytest.raises(InputError, match="positive number"):
        find_events(s.recording, kind, false_rate=0.0)


def test_ripples_of_one_channel_stand_beside_those_that_are_shared(make_lfp, rippled) -> None:
    x, truth = (v.copy() for v in rippled)
    own = np.arange(5, 295, 12.0) + 2.2
    own = own[(np.abs(own[:, None] - truth.mean(1)) > 0.3).all(1)]
    for at in own:  # on the first channel only
        add_burst(x[:, :1], at, 0.08, 180, 9 * in_band_sd(x))
    x[:, 3] = 0
    found = find_events(make_lfp(x), per_channel=True)
    assert set(found.channel) == {"lfp_0", "lfp_1", "lfp_2"} == set(found.channels) == set(found.surrogate_rate) == set(found.threshold)
    assert found.unusable == ["lfp_3"] and found.consensus.dtype == bool and set(found.attrs["consensus"]) == {"rate", "surrogate_rate", "threshold"}
    mine = found[found.channel == "lfp_0"]
    near = (np.abs(mine.peak[:, None] - (own + 0.04)) < 0.03).any(1)
    assert near.sum() > 0.8 * len(own) and (mine.n_channels[near] == 1).mean() > 0.8
    shared = found[found.n_channels == 3]
    assert shared.consensus.mean() > 0.9 and len(shared) > 2 * len(truth)
    assert max(found.surrogate_rate.values()) < 0.5 and found.rate["lfp_0"] == pytest.approx(len(mine) / 5, rel=1e-6)
    with pytest.raises(InputError, match="per_channel is for ripples"):
        find_events(make_lfp(x), "burst", per_channel=True)


def test_marked_artefacts_are_left_out_of_search_and_baseline(make_lfp, rippled) -> None:
    x, truth = rippled
    marked = Intervals([[100, 160]])
    noisy = x.copy()
    noisy[int(100 * RATE) : int(160 * RATE)] += np.random.default_rng(0).normal(0, 900, (int(60 * RATE), 1)).astype(np.float32)
    rec = make_lfp(noisy, labels={"artefact": marked, "noisy": marked})
    found = find_events(rec)
    assert not marked.contains(found.peak).any() and found.artefacts == "artefact" and found.vetoed_seconds["artefacts"] == pytest.approx(60.1, abs=0.01)
    outside = ~marked.pad(1, 1).contains(truth.mean(1))
    assert (np.abs(found.peak[:, None] - truth.mean(1)[outside]) < 0.05).any(0).mean() > 0.9
    assert found.baseline_seconds == pytest.approx(239.9, abs=0.01)
    assert find_events(rec, artefacts=[]).artefacts == "none marked" and find_events(rec, artefacts="noisy").artefacts == "noisy"
    assert len(find_events(rec, artefacts=marked)) == len(found)
    with pytest.raises(MissingDataError, match="'chewing'"):
        find_events(rec, artefacts="chewing")
    with pytest.raises(MissingDataError, match="artefact-free"):
        find_events(rec, artefacts=Intervals([[0, 300]]))


def test_muscle_activity_is_left_out_where_asked_for(rippled) -> None:
    x, truth = rippled
    rng = np.random.default_rng(0)
    emg = rng.normal(0, 5, (len(x), 1))
    tense = Intervals([[50, 80], [200, 230]])
    emg[tense.contains(np.arange(len(x)) / RATE)] *= 8
    signals = {
        "lfp": {"values": x, "rate": RATE, "unit": "uV", "kind": "lfp"}, "emg": {"values": emg.astype(np.float32), "rate": RATE, "unit": "uV", "kind": "emg"},
    }  # fmt: skip
    rec = bm.Recording.from_arrays("m", signals=signals)
    assert find_events(rec).emg == "not asked for"
    found = find_events(rec, emg=5.0)
    assert not tense.contains(found.peak).any() and found.vetoed_seconds["emg"] == pytest.approx(60, abs=1) and "5 SD" in found.emg
    calm = ~tense.pad(1, 1).contains(truth.mean(1))
    assert (np.abs(found.peak[:, None] - truth.mean(1)[calm]) < 0.05).any(0).mean() > 0.9
    with pytest.raises(MissingDataError, match="no EMG"):
        find_events(bm.Recording.from_arrays("n", signals={"lfp": signals["lfp"]}), emg=5.0)
    with pytest.raises(InputError, match="positive"):
        find_events(rec, emg=-1.0)


def test_bad_input_is_an_error_that_names_it(make_lfp, make_session) -> None:
    x = coloured(30, 0, 1.0)
    slow = bm.Recording.from_arrays("s", signals={"lfp": {"values": x, "rate": 400.0, "unit": "uV", "kind": "lfp"}})
    for call, words in [
        (lambda: find_events(slow), "sampled at 400 Hz"),
        (lambda: find_events(make_lfp(x), kind="riple"), "did you mean 'ripple'"),
        (lambda: find_events(make_lfp(x), shortes=0.1), "did you mean 'shortest'"),
        (lambda: find_events(make_lfp(x), channels=["CA1"]), "not together"),
        (lambda: find_events(make_lfp(np.full_like(x, np.nan))), "free of gaps"),
        (lambda: find_events(make_lfp(np.zeros_like(x))), "flat"),
        (lambda: find_events(make_session(bursts=4).recording), "no LFP"),
        (lambda: find_events(make_lfp(x), kind="burst"), "no spikes"),
        (lambda: find_events(make_lfp(x), baseline="NREM"), "hypnogram"),
        (lambda: find_events(make_lfp(x), baseline="quiet"), "expected Intervals"),
        (lambda: find_events(make_lfp(x), band=(250, 150)), "low < high"),
        (lambda: find_events(make_lfp(x), band=(0, 150)), "below it"),
        (lambda: find_events(make_lfp(x), shortest=0.5, longest=0.1), "shortest < longest"),
        (lambda: find_events(make_lfp(x), false_rate=-1.0), "false_rate is -1"),
        (lambda: find_events(make_lfp(x), within=Intervals([[900, 960]])), "none of it in the recording"),
        (lambda: find_events(_two_units(), kind="burst"), "2 units fire"),
        (lambda: find_events(_two_units(), kind="hse", least_units=2, shortest=0.5, longest=0.1), "shortest < longest"),
    ]:
        with pytest.raises(BrainmuError, match=words):
            call()
    with pytest.raises(InputError):
        find_events(make_lfp(x), kind="nap")
    with pytest.raises(MissingDataError):
        find_events(make_lfp(x), hypnogram="scoring")


def test_nothing_to_search_gives_an_empty_table(make_lfp) -> None:
    found = find_events(make_lfp(coloured(60, 1, 1.0)), within=Intervals())
    assert len(found) == 0 and "score" in found.columns
    assert found.precision is None and "nothing to look at" in found.attrs["warnings"][0]


def _two_units() -> bm.Recording:
    times = np.sort(np.random.default_rng(0).uniform(0, 60, 2000))
    units = pd.DataFrame({"id": np.arange(8)})
    return bm.Recording.from_arrays("two", spikes={"times": times, "unit": np.arange(2000) % 2, "units": units})


def test_precision_is_what_surrogates_leave_with_the_interval_of_their_count(make_lfp, rippled) -> None:
    found = find_events(make_lfp(rippled[0]), false_rate=2.0)
    low, high = found.precision_interval
    assert found.precision == pytest.approx(1 - found.surrogate_rate / found.rate)
    assert 0.7 < low < found.precision < high < 1
    noise = find_events(make_lfp(coloured(120, 5, 0.0, shared=0.0)), threshold=2.5)
    assert noise.precision < 0.3, "in noise surrogates account for what is found"
    # Louder outside the baseline: what is found there is noise too, though surrogates of the baseline hold next to nothing.
    x = coloured(240, 6, 0.0, shared=0.0)
    x[120_000:] *= 1.5
    quiet = Intervals([[0, 120]])
    loud = find_events(make_lfp(x), baseline=quiet, false_rate=1.0)
    assert loud.surrogate_rate < 3 and loud.surrogate_rate_beyond > 5 * loud.surrogate_rate and loud.precision < 0.4
    assert "surrogate_rate_beyond" not in find_events(make_lfp(x), within=quiet, baseline=quiet).attrs
    each = find_events(make_lfp(rippled[0][:, :2]), per_channel=True)
    assert set(each.precision) == set(each.precision_interval) == {"lfp_0", "lfp_1"}


def test_clipped_channels_are_named(make_lfp, rippled) -> None:
    x = rippled[0].copy()
    assert "warnings" not in find_events(make_lfp(x)).attrs
    x[:, 2] = np.clip(x[:, 2], *np.percentile(x[:, 2], [1, 99]))
    assert "lfp_2 (2.0% of samples) is clipped" in find_events(make_lfp(x)).attrs["warnings"][0]
