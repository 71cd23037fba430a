"""The stager: learns what is there, not what is not; survives missing channels, saving and odd input."""

from __future__ import annotations

import numpy as np
import pytest

import brainmu.loading
from brainmu.core import Hypnogram, Recording
from brainmu.errors import CheckpointError, InputError, MissingDataError, NotFoundError, OutputExistsError
from brainmu.sleep import SleepStager, evaluate


@pytest.fixture(scope="module")
def mice(make_mouse):
    return [make_mouse(s, epochs=240, rate=100.0) for s in range(4)]


@pytest.fixture(scope="module")
def stager(mice):
    return SleepStager(stages="rodent3", epoch=4.0).fit(mice[:3], labels="scoring")


def test_unseen_mouse(stager, mice):
    h = stager.predict(mice[3])
    assert evaluate(h, mice[3].labels["scoring"])["kappa"] > 0.85
    assert h.attrs["centred"] is True and h.attrs["method"] == "boosting"
    assert stager.score(mice[3:], labels="scoring") > 0.85
    assert stager.predict_proba(mice[3]).shape == (240, 3)
    assert stager.classes_ == ("WAKE", "NREM", "REM") and stager.n_subjects_ == 3


def test_other_gain_rate_and_channels(stager, make_mouse):
    other = make_mouse(11, epochs=240, gain=1e-4, rate=256.0, channels=2)
    assert evaluate(stager.predict(other), other.labels["scoring"])["kappa"] > 0.8


def test_missing_muscle_at_test(stager, make_mouse):
    h = stager.predict(make_mouse(12, epochs=240, emg=False))
    scores = evaluate(h, make_mouse(12, epochs=240).labels["scoring"])
    assert scores["kappa"] > 0.6


def test_shuffled_labels_teach_nothing(make_night):
    rng = np.random.default_rng(0)
    train, test = [make_night(s, epochs=120) for s in range(4)], make_night(20)
    honest = SleepStager(epoch=30.0).fit(train).score(test)
    for r in train:
        h = r.labels["scoring"]
        r.labels["scoring"] = Hypnogram(rng.permutation(h.codes), "aasm5", 30.0)
    shuffled = SleepStager(epoch=30.0).fit(train).score(test)
    assert honest > 0.75
    assert abs(shuffled) < 0.15


def test_features_stream_must_match(make_night):
    s = SleepStager().fit([make_night(k, epochs=120) for k in range(3)])
    renamed = make_night(9, epochs=120)
    signals = {"other": renamed.signals["power"]}
    with pytest.raises(MissingDataError, match="fitted on features"):
        s.predict(Recording.from_arrays("x", signals=signals))


def test_spikes_alone(make_mouse):
    def spiking(seed: int) -> Recording:
        h = make_mouse(seed, epochs=200).labels["scoring"]
        rng = np.random.default_rng(seed)
        rate = np.array([[8.0, 3.0, 6.0], [2.0, 6.0, 3.0], [4.0, 2.0, 9.0]])[h.codes]
        times, units = [], []
        for k in range(9):
            n = rng.poisson(rate[:, k % 3] * h.epoch)
            times.append(np.repeat(h.times, n) + rng.random(n.sum()) * h.epoch)
            units.append(np.full(n.sum(), k))
        return Recording.from_arrays(
            f"s{seed}", f"s{seed}", "mouse", spikes={"times": np.concatenate(times), "unit": np.concatenate(units)}, labels={"scoring": h}
        )

    s = SleepStager(stages="rodent3").fit([spiking(k) for k in range(3)])
    test = spiking(7)
    assert evaluate(s.predict(test), test.labels["scoring"])["kappa"] > 0.5


def test_where_to_begin_and_how_much_to_leave_out_are_checked(stager, mice):
    for start in (1e5, float("nan")):
        with pytest.raises(InputError, match=r"start is .* s, expected a time before the end of the recording"):
            stager.predict(mice[3], start=start)
    for share in ("much", 1.5, -0.1, 1):
        with pytest.raises(InputError, match="expected True, False or a share"):
            stager.predict(mice[3], abstain=share)


@pytest.mark.parametrize("gain", [1e-9, 1e9])
def test_no_unit_is_too_large_or_small(stager, mice, gain):
    other = {n: {"values": s.values * gain, "rate": s.rate, "kind": s.kind} for n, s in mice[3].signals.items()}
    a, b = stager.predict(mice[3]), stager.predict(Recording.from_arrays("g", "g", "mouse", signals=other))
    assert (a.codes == b.codes).mean() > 0.99


def test_an_infinite_sample_costs_its_own_epoch(mice):
    from brainmu.sleep.features import epoch_table

    signals = {}
    for value in (np.inf, np.nan):
        x = mice[3].signals["eeg"].values.copy()
        x[10_000] = value
        eeg = {"values": x, "rate": 100.0, "kind": "eeg"}
        signals[value] = epoch_table(Recording.from_arrays("i", "i", "mouse", signals={"eeg": eeg}), 4.0).values
    np.testing.assert_array_equal(*signals.values())
    assert np.isfinite(signals[np.inf][30:, : len(signals[np.inf][0]) // 4]).all()


def test_muscle_tone_alone_is_doubted(stager, mice):
    emg = Recording.from_arrays("emg", "x", "mouse", signals={"emg": mice[3].signals["emg"]})
    assert any("EMG alone" in r for r in stager.predict(emg).attrs["reasons"])
    assert not stager.predict(mice[3]).attrs["reasons"]


def test_muscles_among_the_eeg_are_doubted(stager, mice):
    values = np.concatenate([s.values for s in mice[3].signals.values()], axis=1)
    for names, doubted in ((["EEG1", "EMG neck"], True), (["F3", "F4"], False)):
        one = {"psg": {"values": values, "rate": 100.0, "kind": "eeg", "channels": names}}
        reasons = stager.predict(Recording.from_arrays("one", "x", "mouse", signals=one)).attrs["reasons"]
        assert any("channels EMG neck are among the EEG" in r for r in reasons) == doubted


def test_it_counts_and_names_what_it_was_fitted_on(mice, tmp_path):
    signals = {n: {"values": np.where(np.arange(len(s.values))[:, None] < 60 * 400, np.nan, s.values), "rate": s.rate, "kind": s.kind}
               for n, s in mice[0].signals.items()}  # fmt: skip
    gap = Recording.from_arrays("gap", "gap", "mouse", signals=signals, labels={"scoring": mice[0].labels["scoring"]})
    s = SleepStager(stages="rodent3", method="boosting").fit([gap, mice[1]], labels="scoring")
    assert 420 <= s.n_epochs_ <= 421 and s.subjects_ == ("gap", mice[1].subject)
    assert SleepStager.load(s.save(tmp_path / "s")).subjects_ == s.subjects_


def test_causal_ignores_the_future(mice):
    s = SleepStager(stages="rodent3", causal=True).fit(mice[:2])
    assert s.predict(mice[3]).attrs["centred"] is False
    assert s.model_.decoding.durations is None
    from brainmu.sleep.features import add_context

    x = np.random.default_rng(0).standard_normal((50, 2))
    y = x.copy()
    y[30:] += 5
    assert np.array_equal(add_context(x, 4.0, "rodent3", causal=True)[:30], add_context(y, 4.0, "rodent3", causal=True)[:30], equal_nan=True)
    assert not np.array_equal(add_context(x, 4.0, "rodent3")[:30], add_context(y, 4.0, "rodent3")[:30], equal_nan=True)


def test_a_causal_stager_keeps_past_stages_whatever_follows(mice, make_mouse, tmp_path):
    s = SleepStager(stages="rodent3", method="boosting", causal=True).fit(mice[:2])
    r, rate, epoch = mice[3], 100.0, 150
    other = {}
    for name, signal in r.signals.items():
        x = signal.values.copy()
        x[int((epoch * 4 + 1.5) * rate) :] *= 20.0  # the last spectral window of an epoch reaches a second beyond it
        x[int((epoch * 4 + 200) * rate) :] = np.nan
        other[name] = {"values": x, "rate": rate, "unit": "uV", "kind": signal.kind}
    changed = Recording.from_arrays("later", "later", "mouse", signals=other)
    a, b = s.predict(r), s.predict(changed)
    np.testing.assert_allclose(a.proba[:epoch], b.proba[:epoch], atol=1e-6)
    assert not np.allclose(np.nan_to_num(a.proba[epoch:]), np.nan_to_num(b.proba[epoch:]), atol=0.01)
    assert (a.codes[:74] == -2).all() and (a.codes[75:] >= 0).all()
    assert a.attrs["scale"] == "past" and evaluate(a, r.labels["scoring"])["kappa"] > 0.75
    # A causal stager that an earlier version saved knows the scale of the whole recording only, and says so.
    import yaml

    config = yaml.safe_load((s.save(tmp_path / "new") / "config.yaml").read_text())
    del config["boosting"]["running"], config["boosting"]["offset"]
    (tmp_path / "new" / "config.yaml").write_text(yaml.safe_dump(config))
    assert SleepStager.load(tmp_path / "new").predict(r).attrs["scale"] == "whole recording"


def test_a_causal_stager_says_the_same_of_a_recording_that_is_cut(mice):
    s = SleepStager(stages="rodent3", method="boosting", causal=True, duration=False).fit(mice[:2])
    epochs = 190  # in the middle of a chunk of ten minutes that features are read in
    part = {n: {"values": x.values[: epochs * 400], "rate": 100.0, "unit": "uV", "kind": x.kind} for n, x in mice[3].signals.items()}
    before = s.predict(Recording.from_arrays("cut", "cut", "mouse", signals=part)).proba
    after = s.predict(mice[3]).proba[:epochs]
    assert before is not None and np.isfinite(after[75:]).all()
    np.testing.assert_array_equal(before[:-1], after[:-1])  # the last epoch's spectrum reaches a second beyond it


def test_confidence_is_learnt_without_durations_too(make_night):
    nights = [make_night(k, epochs=100, signal=0.5) for k in range(4)]
    for options in ({"duration": False}, {"causal": True}):
        d = SleepStager(method="boosting", **options).fit(nights).model_.decoding
        assert d.durations is None and d.temperature > 1


def test_recordings_without_a_subject_are_said_to_count_each(make_night):
    nights = [make_night(k, epochs=40) for k in range(3)]
    for r in nights[:2]:
        r.subject = ""
    with pytest.warns(UserWarning, match="2 recordings name no subject") as caught:
        SleepStager(method="boosting", duration=False).fit(nights)
    assert len(caught) == 1


def test_abstains_only_when_asked(stager, mice):
    assert (stager.predict(mice[3]).codes >= 0).all()
    h = SleepStager.set_params(SleepStager(**stager.get_params()), confidence=1.0)
    h.method_, h.model_, h.classes_ = stager.method_, stager.model_, stager.classes_
    doubtful = h.predict(mice[3], abstain=True)
    assert (doubtful.codes == -2).mean() == doubtful.attrs["abstained"] > 0.5


def test_save_and_load(stager, mice, tmp_path):
    folder = stager.save(tmp_path / "stager")
    again = brainmu.loading.load(folder)
    assert np.array_equal(again.predict_proba(mice[3]), stager.predict_proba(mice[3]))
    assert again.get_params() == stager.get_params()
    with pytest.raises(OutputExistsError, match="overwrite=True"):
        stager.save(folder)
    stager.save(folder, overwrite=True)
    (folder / "trees.npz").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="damaged"):
        brainmu.loading.load(folder)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "data.txt").write_text("precious")
    with pytest.raises(OutputExistsError, match="not a saved stager"):
        stager.save(tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "data.txt").exists()


def test_same_seed_same_bytes(mice, tmp_path):
    a, b = (SleepStager(stages="rodent3", seed=3).fit(mice[:2]).save(tmp_path / n) for n in "ab")
    assert all((a / f.name).read_bytes() == f.read_bytes() for f in b.iterdir())


def test_rules_need_no_fit(mice, tmp_path):
    s = SleepStager(stages="rodent3", epoch=4.0, method="rules")
    assert s.score(mice[3]) > 0.85
    assert brainmu.loading.load(s.save(tmp_path / "rules")).predict(mice[3]) == s.predict(mice[3])


def test_wrong_use(mice, make_night, tmp_path):
    with pytest.raises(InputError, match="not fitted"):
        SleepStager().predict(mice[0])
    with pytest.raises(InputError, match="stages is"):
        SleepStager(stages="aasm")
    with pytest.raises(InputError, match="rodent3"):
        SleepStager(stages="aasm5", method="rules")
    with pytest.raises(InputError, match="cannot be causal"):
        SleepStager(stages="rodent3", method="rules", causal=True)
    with pytest.raises(InputError, match="labels are WAKE NREM REM"):
        SleepStager(stages="aasm5").fit(mice[0])
    with pytest.raises(MissingDataError, match="no hypnogram named 'other'"):
        SleepStager(stages="rodent3").fit(mice[0], labels="other")
    with pytest.raises(InputError, match="no recordings"):
        SleepStager().fit([])
    with pytest.raises(MissingDataError, match="expected at least 20"):
        short = make_night(0, epochs=10)
        SleepStager().fit(short)
    with pytest.raises(MissingDataError, match="one stage"):
        one = make_night(0)
        one.labels["scoring"] = Hypnogram(np.zeros(240, int), "aasm5", 30.0)
        SleepStager().fit(one)
    with pytest.raises(NotFoundError):
        brainmu.loading.load(tmp_path / "absent")
    with pytest.raises(NotFoundError, match=r"no config\.yaml"):
        brainmu.loading.load(tmp_path)


def test_human_labels_for_a_rodent_stager(make_night):
    s = SleepStager(stages="rodent3", epoch=30.0).fit([make_night(k, epochs=150) for k in range(3)])
    assert set(s.predict(make_night(8, epochs=150)).stages) == {"WAKE", "NREM", "REM"}


@pytest.mark.parametrize("causal", [False, True])
def test_a_long_recording_is_walked_in_parts_that_make_no_difference(make_mouse, monkeypatch, causal):
    s = SleepStager(stages="rodent3", method="boosting", causal=causal).fit([make_mouse(0, epochs=150)], labels="scoring")
    whole = s.predict_proba(make_mouse(5, epochs=150))
    monkeypatch.setattr("brainmu.sleep.boosting._ROWS", 17)
    assert np.allclose(s.predict_proba(make_mouse(5, epochs=150)), whole, atol=1e-9, equal_nan=True)


@pytest.mark.slow
def test_encoder(make_mouse, tmp_path):
    train = [make_mouse(s, epochs=150, rate=100.0) for s in range(2)]
    test = make_mouse(5, epochs=150, rate=100.0)
    s = SleepStager(stages="rodent3", epoch=4.0, method="encoder").fit(train, labels="scoring")
    h = s.predict(test)
    assert evaluate(h, test.labels["scoring"])["kappa"] > 0.5
    assert h.attrs["method"] == "encoder"
    again = brainmu.loading.load(s.save(tmp_path / "encoder"))
    assert np.allclose(again.predict_proba(test), s.predict_proba(test), atol=1e-5, equal_nan=True)


@pytest.mark.slow
def test_encoder_is_decoded_as_the_subjects_held_out_want_it(make_mouse, tmp_path):
    mice = [make_mouse(s, epochs=120, rate=100.0) for s in range(4)]
    s = SleepStager(stages="rodent3", encoder="brainmu-tiny-rodent3", mode="probe", config={"steps": 20}).fit(mice, labels="scoring")
    held = s._subjects_held_out(mice, "scoring")
    assert len(held) == 1 and f"held-out subjects: {held.pop()}" in s.model_.notes[0]
    assert s.decoding_ is not None and 0.5 <= s.decoding_.temperature <= 4
    again = brainmu.loading.load(s.save(tmp_path / "encoder"))
    assert again.decoding_.to_dict() == s.decoding_.to_dict()
    causal = SleepStager(stages="rodent3", encoder="brainmu-tiny-rodent3", mode="probe", config={"steps": 20}, causal=True).fit(mice, labels="scoring")
    assert causal.decoding_.durations is None
    few = SleepStager(stages="rodent3", encoder="brainmu-tiny-rodent3", mode="probe", config={"steps": 20}).fit(mice[:2], labels="scoring")
    assert few.decoding_ is None


def test_a_dead_recording_is_left_unscored_and_another_species_is_said(make_mouse):
    stager = SleepStager(stages="rodent3", epoch=4.0, method="boosting").fit([make_mouse(i) for i in range(3)], labels="scoring")
    rec = make_mouse(4)
    for dead in (np.nan, 0.0):
        signals = {k: {"values": np.full_like(s.values, dead), "rate": s.rate, "kind": s.kind} for k, s in rec.signals.items()}
        assert (stager.predict(Recording.from_arrays("dead", signals=signals)).codes == -2).all()
    person = Recording.from_arrays("p", species="human", signals=dict(rec.signals))
    assert any("human" in r for r in stager.predict(person).attrs["reasons"]) and not any("mouse" in r for r in stager.predict(rec).attrs["reasons"])
