"""Gradient SHAP, layer conductance, rollout and baselines: they add up, differ where they should, and say what they are not."""

import numpy as np
import pytest

from brainmu.core import Hypnogram, Signal
from brainmu.errors import InputError, MissingDataError
from brainmu.explain import attribute, occlusion, tap_names
from brainmu.explain.asking import Answer, Tempering, ask, beyond_the_network, explains
from brainmu.explain.baselines import baseline_of, stage_means
from brainmu.explain.checks import agreement
from brainmu.explain.parts import Doors
from brainmu.explain.reader import Reader
from brainmu.explain.taps import Inside
from brainmu.models.door import door_inputs

COLUMNS = np.array([1])


def total(maps):
    return sum(float(v.sum()) for v in maps.data_vars.values())


@pytest.fixture(scope="module")
def integrated(decided, sessions):
    return attribute(decided, sessions[0], "NREM", max_epochs=8, epochs=range(20, 22), check=False)


def test_gradient_shap_adds_up_to_what_integrated_gradients_do(decided, sessions, integrated):
    one = integrated
    state = np.random.get_state()[1].tolist()  # noqa: NPY002
    two = attribute(decided, sessions[0], "NREM", max_epochs=8, epochs=range(20, 22), method="gradient_shap", check=False)
    assert np.random.get_state()[1].tolist() == state  # noqa: NPY002
    assert two["lfp"].shape == one["lfp"].shape and two["spikes"].dims == one["spikes"].dims
    assert two.attrs["completeness_error"] < 0.1 and total(two) == pytest.approx(total(one), abs=0.1 * abs(total(one)) + 0.1)
    assert agreement(one, two, draws=20)["correlation"] > 0.8
    again = attribute(decided, sessions[0], "NREM", max_epochs=8, epochs=range(20, 22), method="gradient_shap", check=False)
    assert np.array_equal(again["lfp"], two["lfp"])


@pytest.mark.parametrize("tap", ["latents", "summary", "context"])
def test_conductance_flows_through_the_tap(decided, sessions, integrated, tap):
    maps = attribute(decided, sessions[0], "NREM", max_epochs=8, epochs=range(20, 22), method="layer_conductance", tap=tap, check=False)
    assert maps[tap].shape == (2, 4, 32) if tap == "latents" else maps[tap].shape == (2, 32)
    if tap == "context":
        assert "completeness_error" not in maps.attrs and np.isfinite(maps.attrs["share_through_tap"])
        return
    whole = integrated
    assert maps.attrs["completeness_error"] < 0.05 and maps.attrs["share_through_tap"] == pytest.approx(1, abs=0.05)
    assert total(maps) == pytest.approx(total(whole), rel=0.1, abs=0.1)


def test_baselines_change_what_the_shares_add_up_to(decided, sessions):
    totals = {}
    for name in ("zero", "stage_mean", "stage_mean:REM", "matched", "matched:REM"):
        maps = attribute(decided, sessions[0], "NREM", max_epochs=8, epochs=range(20, 22), baseline=name, check=False)
        assert maps.attrs["completeness_error"] <= 0.01 and maps.attrs["baseline"] == name
        totals[name] = round(total(maps), 4)
    assert len(set(totals.values())) == 5
    assert attribute(decided, sessions[0], "NREM", max_epochs=4, baseline="stage_mean:REM", check=False).attrs["baseline_stage"] == "REM"


def test_a_matched_baseline_is_the_nearest_epoch_of_another_stage(decided, sessions):
    p = np.zeros((12, 3))
    p[:, 1] = 1
    p[2], p[9] = [1, 0, 0], [0, 0, 1]
    answer = Answer(p, 0.0, 4.0, ("WAKE", "NREM", "REM"))
    doors = Doors(decided, sessions[0], [(4, 7)], baseline_of("matched", answer, COLUMNS))
    door = doors.open(0, 2)
    for name, base in zip(door.names, door.baselines):
        other = {k: door_inputs(doors.grid, k, k + 1, door.frequencies)[0][name][0] for k in (2, 9)}
        assert base.shape[0] == 2
        for row, nearest in enumerate((2, 2, 9)):
            assert np.array_equal(base[0, row], other[nearest]) and np.array_equal(base[1, row], other[11 - nearest])


def test_the_mean_of_a_stage_has_its_power_and_the_phases_of_the_recording(decided, sessions):
    rows = np.arange(30, 40)
    p = np.full((50, 3), [0.0, 1.0, 0.0])
    p[rows] = [1, 0, 0]
    doors = Doors(decided, sessions[0], [(4, 6)], baseline_of("stage_mean", Answer(p, 0.0, 4.0, ("WAKE", "NREM", "REM")), COLUMNS))
    door = doors.open(0)
    k = door.names.index("lfp")
    x, base = (t[k][0].numpy() for t in (door.tensors, door.baselines))
    power = np.mean([door_inputs(doors.grid, r, r + 1, door.frequencies)[0]["lfp"][0].square().sum(-1).mean(1).numpy() for r in rows], 0)
    assert np.allclose(np.square(base).sum(-1).mean((0, 2)), power, rtol=1e-3)
    along = (x * base).sum(-1) / np.maximum(np.linalg.norm(x, axis=-1) * np.linalg.norm(base, axis=-1), 1e-9)
    assert np.quantile(along, 0.05) > 0.999
    counts = stage_means(door, doors.grid, rows)["spikes"].numpy()
    spikes = sessions[0].spikes.span(120.0, 160.0)[1]
    assert np.allclose(counts, [np.mean(spikes == u) * len(spikes) / (10 * doors.grid.n_bins) for u in range(6)], rtol=1e-4)


@pytest.mark.parametrize(
    ("kw", "words"),
    [
        (dict(baseline="mean"), "baseline is 'mean', expected one of zero, stage_mean, matched"),
        (dict(baseline="zero:NREM"), "expected one of"),
        (dict(baseline="stage_mean:NREM"), "is the target itself"),
        (dict(baseline="stage_mean:N2"), "baseline 'stage_mean:N2': stage 'N2' is not among"),
        (dict(method="layer_conductance", tap="layer7"), "tap is 'layer7', expected one of window.0"),
        (dict(method="occlusion", baseline="matched"), "came with occlusion"),
        (dict(method="occlusion", rollout=True), "came with occlusion"),
        (dict(max_epochs=0), "whole number of at least 1"),
    ],
)
def test_refusals(decided, sessions, kw, words):
    with pytest.raises(InputError, match=words):
        attribute(decided, sessions[0], "NREM", **kw)


def test_another_method_is_held_beside_a_map(decided, sessions):
    ask = dict(max_epochs=8, epochs=range(20, 28))
    gradients, ablation = (attribute(decided, sessions[0], "NREM", method=m, **ask) for m in ("integrated_gradients", "feature_ablation"))
    assert gradients.attrs["agreement_with"] == "feature_ablation" and ablation.attrs["agreement_with"] == "integrated_gradients"
    same = agreement(gradients, ablation)
    assert gradients.attrs["agreement"] == pytest.approx(same["correlation"], abs=1e-9)
    assert gradients.attrs["agreement_low"] <= gradients.attrs["agreement"] + 0.05
    assert ablation.attrs["agreement"] == pytest.approx(same["correlation"], abs=0.1)
    bare = attribute(decided, sessions[0], "NREM", check=False, **ask)
    assert "agreement" not in bare.attrs and "agreement" not in attribute(decided, sessions[0], "NREM", method="layer_conductance", **ask).attrs


def test_a_driver_that_the_stager_does_not_read_is_told_before_the_map(decided, sessions, tmp_path):
    pressure = Signal(np.zeros((400, 1)), rate=1.0, kind="other", channels=["x"])
    session = sessions[0].with_fields(signals=sessions[0].signals | {"pressure": pressure})
    with pytest.raises(InputError, match="planted 'pressure' is no stream that this stager reads: it reads lfp"):
        attribute(decided, session, "NREM", planted=[("pressure", "x")], parts=tmp_path / "parts")
    assert not list(tmp_path.glob("parts/map*"))


def test_a_stage_that_is_never_taken_is_no_baseline(untrained, sessions):
    with pytest.raises(MissingDataError, match="takes no epoch for REM"):
        attribute(untrained, sessions[0], "NREM", baseline="stage_mean:REM")


def test_rollout_stands_beside_the_map_and_says_that_it_is_none(decided, sessions):
    ask = dict(max_epochs=8, epochs=range(20, 24), method="feature_ablation")
    plain, maps = attribute(decided, sessions[0], "NREM", **ask), attribute(decided, sessions[0], "NREM", rollout=True, **ask)
    assert "attention_lfp" not in plain and np.array_equal(plain["lfp"], maps["lfp"]) and plain.attrs["verdict"] == maps.attrs["verdict"]
    assert maps["attention_lfp"].attrs["unit"] == "share of attention" and maps["attention_lfp"].shape == (16, 2)
    whole = sum(float(v.sum()) for k, v in maps.data_vars.items() if k.startswith("attention_")) / 4
    assert 0.5 < whole <= 1 + 1e-5
    assert "not an attribution" in maps.attrs["attention_note"] and "random weights is" in maps.attrs["attention_note"]
    other = attribute(decided, sessions[0], "WAKE", rollout=True, check=False, **ask)
    assert np.allclose(other["attention_lfp"], maps["attention_lfp"])
    # It takes no part in what is asked of the map.
    assert agreement(plain, maps, draws=5) == agreement(plain, plain, draws=5)


def test_a_temperature_is_explained_and_durations_are_named_as_left_out(decided, sessions, monkeypatch):
    from brainmu.sleep import SleepStager
    from brainmu.sleep.decoding import Decoding
    from brainmu.sleep.durations import Durations

    stager = SleepStager(stages="rodent3", epoch=4.0, method="encoder")
    stager.method_, stager.classes_, stager.model_ = "encoder", ("WAKE", "NREM", "REM"), decided
    few = dict(max_epochs=8, epochs=range(20, 24), check=False)
    plain = attribute(stager, sessions[0], "NREM", **few)
    assert plain.attrs["explains"] == "log odds of the stager"
    stager.decoding_ = Decoding(None, 2.0, np.array([0.5, 0.0, -0.5]))
    tempered = attribute(stager, sessions[0], "NREM", **few)
    assert tempered.attrs["explains"] == "calibrated log odds of the stager" and 0.2 < total(tempered) / total(plain) < 0.8
    tempering, left = beyond_the_network(stager)
    p = np.asarray(decided.predict_proba(sessions[0])[0], dtype=np.float64)
    assert explains(stager) == "calibrated log odds of the stager" and np.allclose(ask(stager, sessions[0]).proba, stager.predict(sessions[0]).proba, atol=1e-4)
    assert isinstance(tempering, Tempering) and left == () and np.allclose(tempering.probabilities(p), stager.predict(sessions[0]).proba, atol=1e-4)
    # Edits and activations are read in the same probabilities, and occlusion compares like with like: where nothing is shifted, nothing falls.
    assert np.allclose(Reader(stager, sessions[0]).answer.proba, ask(stager, sessions[0]).proba, atol=1e-4)
    assert np.allclose(Inside(stager, sessions[0]).proba, ask(stager, sessions[0]).proba, atol=1e-4)
    monkeypatch.setattr(occlusion, "shifted", lambda recording, *_: recording)
    monkeypatch.setattr(occlusion, "_parts", lambda recording, parts=occlusion._parts: parts(recording)[:2])
    still = attribute(stager, sessions[0], "NREM", method="occlusion", shifts=1, check=False)
    assert all(np.allclose(v, 0, atol=1e-4) for v in still.data_vars.values())
    codes = decided.predict_proba(sessions[0])[0].argmax(1)
    stager.decoding_ = Decoding(Durations.fit([np.asarray(codes)], 3), 2.0)
    left = attribute(stager, sessions[0], "NREM", **few)
    assert left.attrs["explains"].endswith("without durations of stages, offset and temperature") and 0 < left.attrs["network_agreement"] <= 1
    assert np.allclose(left["lfp"], plain["lfp"]) and isinstance(stager.predict(sessions[0]), Hypnogram)
    assert tap_names(stager)
