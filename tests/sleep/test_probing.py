"""What an encoder adds where labels are few: nothing leaks, the control is at chance, a missing modality is missing."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

from brainmu.core import Hypnogram, Recording
from brainmu.core.effect import jsonable
from brainmu.errors import InputError, MissingDataError
from brainmu.models import Encoder, EncoderConfig
from brainmu.sleep.comparison import compare_inputs
from brainmu.sleep.probe_inputs import Input, centred
from brainmu.sleep.probing import probe, taps, without_kinds
from brainmu.sleep.readout import Scoring, folds_by_group
from brainmu.windows import WindowGrid

SMALL = EncoderConfig(width=16, heads=2, latents=2, window_layers=1, context_layers=1)


@pytest.fixture(scope="module")
def encoder():
    torch.manual_seed(3)
    return Encoder(SMALL).eval()


@pytest.fixture(scope="module")
def mice(make_mouse):
    return [make_mouse(i, epochs=200) for i in range(3)]


@pytest.fixture(scope="module")
def result(mice, encoder):
    return probe(mice, encoder, shares=[0.05, 1.0], seeds=2)


class TestProbe:
    def test_says_all_of_it(self, result):
        f = result.to_frame()
        assert list(f["input"]) == ["classical", "untrained", "pretrained"] * 3 and f["control"].sum() == 3
        assert result.n_epochs == 600 and result.n_subjects == result.n_folds == 3 and result.stages == ("WAKE", "NREM", "REM")
        by = f[f["share"] == 1.0].set_index("input")
        assert by.loc["classical", "kappa"] > 0.8 > by.loc["untrained", "low"]
        assert by.loc["classical", "gain"] == pytest.approx(by.loc["pretrained", "kappa"] - by.loc["classical", "kappa"])
        assert (f["minutes"].to_numpy()[:3] < f["minutes"].to_numpy()[3:6]).all()
        text = str(result)
        assert "new subjects" in text and "chance: kappa 0" in text
        assert "shuffled" in text and "3 subjects are too few to say" in text and "3 subjects: intervals" in text
        json.dumps(jsonable(result.to_dict()), allow_nan=False)

    def test_shuffled_labels_are_at_chance(self, result):
        control = result.rows[result.rows["control"]]
        assert (control["kappa"].abs() < 0.25).all() and (control["low"] < 0.05).all()

    def test_is_the_same_again_and_leaves_the_recordings_alone(self, mice, encoder, result):
        before = [r.hypnogram("scoring").codes.copy() for r in mice]
        state = torch.random.get_rng_state()
        again = probe(mice, encoder, shares=[0.05, 1.0], seeds=2)
        assert again.rows.equals(result.rows) and torch.equal(state, torch.random.get_rng_state())
        assert all(np.array_equal(a, r.hypnogram("scoring").codes) for a, r in zip(before, mice))

    def test_within_one_animal_only_on_request(self, mice, encoder):
        with pytest.raises(InputError, match="split by time"):
            probe(mice[0], encoder)
        r = probe(mice[0], encoder, split="time", folds=3, guard=20.0, seeds=2, shares=[1.0])
        assert "nothing of new animals" in str(r) and r.n_subjects == 1 and r.n_epochs == 200
        assert np.isfinite(r.rows["low"]).all()

    def test_a_missing_modality_is_missing_where_it_is_tested(self, mice, encoder, result):
        r = probe(mice, encoder, shares=[1.0], seeds=1, without="eeg")
        assert r.without == ("eeg",) and "without eeg in what is tested" in str(r)
        whole, bare = (x.rows[(x.rows["share"] == 1) & (x.rows["input"] == "classical")]["kappa"].item() for x in (result, r))
        assert 0.2 < bare < whole - 0.1

    def test_an_encoder_for_each_fold_sees_its_training_subjects_only(self, mice, encoder):
        seen = []

        def made(training):
            seen.append({r.subject for r in training})
            return encoder

        probe(mice, made, shares=[1.0], seeds=1)
        assert seen == [{"m1", "m2"}, {"m0", "m2"}, {"m0", "m1"}]

    def test_in_time_it_sees_what_is_not_tested(self, mice, encoder):
        seen = []

        def made(training):
            seen.append([(r.start, r.stop) for r in training])
            return encoder

        probe(mice[0], made, split="time", folds=2, guard=40.0, shares=[1.0], seeds=1)
        assert seen == [[(440.0, 800.0)], [(0.0, 360.0)]]

    def test_five_stages_from_band_powers(self, make_night, encoder):
        r = probe([make_night(i, epochs=150, signal=3.0) for i in range(2)], encoder, shares=[1.0], seeds=1)
        assert r.stages == ("W", "N1", "N2", "N3", "R")
        assert r.rows.set_index(["input", "control"]).loc[("classical", False), "kappa"] > 0.5

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"shares": [5]}, "0.05 is 5 %"),
            ({"shares": []}, "at least one"),
            ({"seeds": 0}, "at least 1"),
            ({"split": "night"}, "'subject' or 'time'"),
            ({"guard": -1.0}, "seconds >= 0"),
            ({"without": "ecg"}, "they have eeg, emg"),
            ({"groups": ["a"]}, "1 groups came for 3"),
        ],
    )
    def test_refuses_in_a_line(self, mice, encoder, options, says):
        with pytest.raises(InputError, match=says):
            probe(mice, encoder, **options)

    def test_refuses_recordings_that_cannot_be_compared(self, mice, encoder, make_night):
        with pytest.raises(InputError, match="as_rodent3"):
            probe([mice[0], make_night(1)], encoder)
        with pytest.raises(InputError, match="expected all its recordings in one"):
            probe([mice[0], mice[0]], encoder, groups=["a", "b"])
        with pytest.raises(MissingDataError, match="no hypnogram named 'sleep'"):
            probe(mice, encoder, labels="sleep")
        with pytest.raises(MissingDataError, match="nothing to read stages from is left"):
            probe(mice, encoder, without=["eeg", "emg"])
        unscored = Recording.from_arrays("x", "x", signals=mice[0].signals, labels={"scoring": Hypnogram([-2] * 50, "rodent3", 4.0)})
        with pytest.raises(MissingDataError, match="no epoch"):
            probe([mice[0], unscored], encoder)


class TestInputs:
    def test_taps_are_summary_and_context(self, mice, encoder):
        x = taps(encoder, mice[0], 4.0, 20, 8.0)
        c = encoder.config
        out = encoder.taps(WindowGrid(mice[0], 4.0, 8.0, 20, patch=c.patch, bin=c.bin))
        assert x.shape == (20, 32) and np.allclose(x, np.concatenate([out["summary"], out["context"]], axis=1))

    def test_position_is_not_shown(self, mice, encoder):
        moved = Recording.from_arrays(
            "p", "p", signals=mice[0].signals | {"speed": {"values": np.random.default_rng(0).random((8000, 1)), "rate": 10.0, "kind": "speed"}}
        )
        assert np.array_equal(taps(encoder, mice[0], 4.0, 10), taps(encoder, moved, 4.0, 10))

    def test_centring_forgets_an_offset_and_keeps_what_is_missing(self):
        x = np.random.default_rng(0).standard_normal((50, 3))
        x[:10, 1], x[:, 2] = np.nan, np.nan
        assert np.allclose(centred(x + 7), centred(x), equal_nan=True)
        assert np.array_equal(np.isnan(centred(x)), np.isnan(x)) and abs(np.nanmean(centred(x)[:, 1])) < 1e-12

    def test_without_kinds_takes_channels_from_shared_signals(self):
        both = {"values": np.zeros((100, 2), dtype=np.float32), "rate": 100.0, "channels": pd.DataFrame({"name": ["a", "b"], "kind": ["eeg", "emg"]})}
        r = Recording.from_arrays("r", "r", signals={"both": both}, spikes={"times": np.array([0.1]), "unit": np.array([1])})
        bare = without_kinds(r, ["emg", "spikes"])
        assert bare.signals["both"].names == ["a"] and bare.spikes is None
        assert r.signals["both"].n_channels == 2 and r.spikes is not None


class TestCompare:
    def data(self, subjects=6, n=60):
        rng = np.random.default_rng(0)
        return [Scoring(f"s{i}", f"s{i}", np.repeat(rng.integers(0, 2, n // 3), 3).astype(np.int8), 10) for i in range(subjects)]

    def test_tells_a_good_input_from_noise_by_its_interval(self):
        data = self.data()
        rng = np.random.default_rng(1)

        def read(strength):
            arrays = [(rng.standard_normal((60, 4)) + strength * d.codes[:, None]).astype(np.float32) for d in data]
            return Input(arrays, arrays)

        inputs = {"classical": read(2.0), "pretrained": read(2.0), "untrained 0": read(0.0), "untrained 1": read(0.0)}
        r = compare_inputs(data, folds_by_group(data, 3), lambda k: inputs, stages=("a", "b"), epochs=[4.0] * 6, shares=[1.0], seeds=2)
        by = r.rows[~r.rows["control"]].set_index("input")
        assert by.loc["untrained", "gain_low"] > 0.5 and by.loc["classical", "gain_low"] < 0 < by.loc["classical", "gain_high"]
        assert r.verdict() == ["pretrained is not told from classical at 100 %", "pretrained is ahead of untrained at 100 %"]

    def test_the_tested_subject_does_not_matter_for_its_own_read_out(self):
        # Labels of the tested subjects are turned round: a read-out that had seen them would not fall below chance.
        data = self.data()
        arrays = [d.codes[:, None].astype(np.float32) + np.zeros((1, 2), np.float32) for d in data]
        data[0].codes = (1 - data[0].codes).astype(np.int8)
        inputs = {k: Input(arrays, arrays) for k in ("classical", "pretrained", "untrained 0")}
        r = compare_inputs(data, folds_by_group(data, 6), lambda k: inputs, stages=("a", "b"), epochs=[4.0] * 6, shares=[1.0], seeds=1)
        kappa = r.subjects[r.subjects["input"] == "pretrained"].set_index("subject")["kappa"]
        assert kappa["s0"] < -0.5 and (kappa.drop("s0") > 0.9).all()


def test_epochs_without_data_do_not_reach_the_centring(mice, encoder):
    """A hypnogram that outlasts its signals: the encoder's answer to nothing must not shift what it says of something."""
    r = mice[0]
    h = r.hypnogram("scoring")
    longer = Hypnogram(np.r_[h.codes, np.full(300, -2, dtype=np.int8)], h.stages, h.epoch, h.start)
    x = taps(encoder, r, h.epoch, len(longer), h.start)
    assert np.isnan(x[-290:]).all() and np.isfinite(x[: len(h) - 1]).all()
