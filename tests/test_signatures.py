"""The calls that other people's code is written against, in the order of the work; each must keep working as it stands here."""

import numpy as np
import pytest

import brainmu as bm


@pytest.fixture(scope="module")
def mice():
    return [r for r, _ in bm.synth.corpus(3, hours=0.3, seed=4, n_channels=2, n_cells=20)]


def test_arrays_to_a_store_and_back(tmp_path):
    x, t, u = np.random.default_rng(0).standard_normal((12_500, 2)).astype(np.float32), np.arange(1.0, 9.0), np.arange(8) % 3
    rec = bm.Recording.from_arrays(
        id="m1_day2", subject="m1", species="mouse",
        signals={"lfp": dict(values=x, rate=1250.0, unit="uV", kind="lfp", channels=["CA1_1", "CA1_2"], start=0.0)},
        spikes=dict(times=t, unit=u),
        labels={"scoring": bm.Hypnogram.from_stages(["WAKE", "NREM"], epoch=4.0, start=0.0),
                "reactivation": bm.EventTable(start=[1.0], stop=[1.1], content=["A"])},
    )  # fmt: skip
    session = bm.preprocess(rec, tmp_path / "m1_day2.zarr", lfp_rate=1250.0)
    assert session.signals["lfp"].rate == 1250.0
    session = bm.open(tmp_path / "m1_day2.zarr")
    assert np.array_equal(session.window(2.0, 3.0).signals["lfp"], x[2500:3750]) and session.hypnogram("scoring") == rec.hypnogram()
    assert bm.preprocess(rec, tmp_path / "kept.zarr", lfp_rate=None).signals["lfp"].rate == 1250.0


@pytest.mark.slow
def test_a_stager_for_people(tmp_path):
    nights = [bm.synth.recording(hours=3, seed=s, species="human", subject=f"s{s}", id=f"night{s}")[0] for s in range(4)]
    train, test = bm.split(nights, by="subject", test=0.3, seed=0)
    assert {r.subject for r in train}.isdisjoint(r.subject for r in test) and len(train) + len(test) == 4
    stager = bm.SleepStager(stages="aasm5", epoch=30.0).fit(train, labels="scoring")
    stager.save(tmp_path / "stager")
    stager = bm.load(tmp_path / "stager")
    hypnogram = stager.predict(test[0])
    assert len(hypnogram.stages_list()) == len(hypnogram) and hypnogram.proba.shape == (len(hypnogram), 5)
    assert stager.score(test, labels="scoring") > 0.5
    maps = bm.attribute(stager, test[0], target="REM", shifts=1)
    assert set(maps["eeg"].dims) == {"time_eeg", "channel_eeg", "band"}


@pytest.mark.slow
def test_events_replay_and_the_model(mice):
    session = mice[0]
    ripples = bm.find_events(session, kind="ripple", within=None)
    assert len(ripples) and (ripples.start <= ripples.peak).all() and (ripples.peak <= ripples.stop).all() and "score" in ripples.to_frame()
    result = bm.find_replay(session, run="run", rest="rest", shuffles=50, null_sessions=2, null_shuffles=20)
    assert result.decoding_error["median"] < result.decoding_error["chance"] and {"p_value", "content"} <= set(result.columns)
    stager = bm.SleepStager(stages="rodent3", epoch=4.0).fit(mice[1:], labels="scoring")
    delta = bm.intervene(stager, session, events=ripples, operation="remove", placebos=3, max_events=10)
    assert delta.level == "model" and "in the model" in str(delta).lower()


def test_effects_of_reactivation_and_of_trials():
    sessions, _ = bm.synth.study(n_animals=6, hours=2, seed=1)
    effect = bm.estimate_effect(
        sessions, exposure="reactivation", outcome="NREM->WAKE", design="hazard", adjust=["pressure"], horizon=4.0, labels="scoring", diagnostics=False
    )
    assert effect.low <= effect.estimate <= effect.high and effect.unit == "log odds ratio" and effect.level == "observational"
    assert 0 <= effect.p_value <= 1 and isinstance(effect.diagnostics, dict)
    trial = bm.estimate_effect(sessions, exposure="trials", outcome="NREM->WAKE", design="trials", horizon=10.0, labels="scoring")
    assert trial.level == "experimental" and trial.unit == "risk difference" and trial.n_units == 6


def test_every_public_name_resolves():
    for name in bm.__all__:
        assert getattr(bm, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'frobnicate'"):
        bm.frobnicate  # noqa: B018
