"""A true map passes its checks, a false one is marked, and shifting parts of a recording is exact and lazy."""

import numpy as np
import pytest
import xarray as xr

from brainmu.core import Recording
from brainmu.errors import InputError
from brainmu.explain import agreement, attribute, recovery
from brainmu.explain.bands import BANDS, band_index, bands_held
from brainmu.explain.checks import curves, ranked, similarity, verdict
from brainmu.explain.files import load_map, save_map
from brainmu.explain.occlusion import shifted

WEIGHTS = np.array([4.0, 2.0, 1.0, 0.5, 0.0, 0.0, -1.0, 0.0])
PARTS = [("lfp", i, -1) for i in range(8)]


def additive(sets):
    """Log odds of a model that adds up the weights of the parts it has."""
    return np.array([WEIGHTS[[i for i in range(8) if PARTS[i] not in s]].sum() for s in sets])


def test_the_true_order_beats_random_ones_and_its_reverse_does_not():
    true = curves(additive, PARTS, 8, 20, np.random.default_rng(0))
    assert true["beats_random"] and true["deletion_auc"] < true["random_deletion_auc"]
    assert true["random_insertion_auc"] < true["insertion_auc"]
    assert true["deletion"][0] == 1 and true["deletion"][-1] == 0 and true["difference"] == pytest.approx(6.5)
    false = curves(additive, PARTS[::-1], 8, 20, np.random.default_rng(0))
    assert not false["beats_random"] and false["deletion_auc"] > true["deletion_auc"]


def test_one_part_that_decides_all_is_no_failure_where_a_random_order_begins_with_it():
    found = [curves(lambda sets: np.array([0.0 if PARTS[0] in s else 5.0 for s in sets]), PARTS, 8, 20, np.random.default_rng(i)) for i in range(10)]
    assert all(f["beats_random"] for f in found)
    random = [curves(additive, [PARTS[i] for i in np.random.default_rng(i).permutation(8)], 8, 20, np.random.default_rng(i)) for i in range(10)]
    assert sum(f["beats_random"] for f in random) <= 4


def test_verdict_names_what_failed():
    good = {"randomised_weights_correlation": 0.2, "beats_random": True, "difference": 3.0, "skill": 0.9, "completeness_error": 0.005}
    assert verdict(good) == "passed" and verdict({}) == "passed"
    for change, word in (
        ({"randomised_weights_correlation": 0.95}, "randomised weights"), ({"randomised_labels_correlation": 0.95}, "randomised labels"),
        ({"beats_random": False}, "random order"), ({"difference": 0.1}, "hardly depend"), ({"skill": 0.5}, "does not tell"),
        ({"completeness_error": 0.2}, "add up"),
    ):  # fmt: skip
        assert verdict(good | change).startswith("failed: ") and word in verdict(good | change)
    # What could not be checked is no failure, and is not passed over either.
    said = verdict(good | {"randomised_weights_correlation": np.nan})
    assert said.startswith("passed, but for what could not be checked") and "fewer than three parts" in said


def a_map(values, units=None):
    """A map of two channels in all bands from shares (channel, band), with a little noise over 50 epochs."""
    rng = np.random.default_rng(0)
    x = np.asarray(values, float)[None] * (1 + 0.1 * rng.standard_normal((50, 2, len(BANDS))))
    coords = {"channel_lfp": np.array(["a", "b"], object), "band": np.array(list(BANDS), object)}
    out = {"lfp": xr.DataArray(x, dims=("time_lfp", "channel_lfp", "band"), coords=coords)}
    if units is not None:
        out["spikes"] = xr.DataArray(
            np.tile(units, (50, 1)), dims=("time_spikes", "unit"), coords={"unit": np.array([str(i) for i in range(len(units))], object)}
        )
    return xr.Dataset(out)


def test_recovery_is_the_auroc_of_what_was_planted():
    shares = np.full((2, len(BANDS)), 0.1)
    shares[1, 2], shares[0, 1], shares[:, 7] = -3.0, 2.0, 0.0
    maps = a_map(shares, units=[0.5, 0.01, 0.02])
    assert recovery(maps, [("lfp", "b", "theta"), ("lfp", "a", "delta"), ("spikes", "0")]) == 1.0
    assert recovery(maps, [("spikes", "1")]) == 0.0
    # A channel alone stands for all bands that the map holds, and bands that it cannot hold do not count.
    assert 0.2 < recovery(maps, [("lfp", "a")]) < 0.8
    # A driver that the map gives nothing is a miss, and no error.
    assert recovery(maps, [("lfp", "b", "fast")]) < 0.2
    with pytest.raises(InputError, match="not in the map"):
        recovery(maps, [("lfp", "c", "theta")])
    with pytest.raises(InputError, match="expected a list of drivers"):
        recovery(maps, ("lfp", "a", "theta"))
    with pytest.raises(InputError, match="all parts"):
        recovery(maps, [("lfp", "a"), ("lfp", "b"), ("spikes", "0"), ("spikes", "1"), ("spikes", "2")])


def test_parts_that_neither_map_holds_do_not_make_them_alike():
    zeros = np.zeros((1, 5))
    a, b = ({"lfp": (np.c_[v, zeros][:, None], ("x",), "field")} for v in ([[0.2, 0.6, 0.3]], [[0.2, 0.4, 0.8]]))
    assert similarity(a, b) == pytest.approx(0.5)
    few = [{"lfp": (np.c_[v, zeros][:, None], ("x",), "field")} for v in ([[1.0, 2.0]], [[2.0, 1.0]])]
    assert np.isnan(similarity(*few))


def test_checks_that_could_not_be_made_do_not_pass_in_silence():
    fine = {"beats_random": True, "difference": 2.0, "randomised_weights_correlation": 0.1, "n_epochs": 32}
    assert verdict(fine) == "passed" and verdict(fine | {"difference": float("nan")}).startswith("failed")
    assert "rests on 1 epoch alone" in verdict(fine | {"n_epochs": 1})


def test_agreement_with_itself_is_whole_and_with_another_order_is_not():
    shares = np.random.default_rng(1).standard_normal((2, len(BANDS)))
    same = agreement(a_map(shares), a_map(shares), draws=100)
    assert same["correlation"] == 1.0 and same["low"] > 0.8 and same["n"] == 2 * len(BANDS)
    other = agreement(a_map(shares), a_map(-shares), draws=100)
    assert other["correlation"] == -1.0 and other["high"] < 0
    with pytest.raises(InputError, match="in common"):
        agreement(a_map(shares), a_map(shares, units=[1.0]).drop_vars("lfp"))


def test_a_shifted_part_is_the_same_whatever_is_read_and_wraps_around():
    rng = np.random.default_rng(0)
    n = 100 * 300
    x = rng.standard_normal((n, 2)).astype(np.float32)
    rec = Recording.from_arrays(
        "a", signals={"eeg": dict(values=x, rate=100.0, unit="uV", kind="eeg"), "p": dict(values=np.arange(75.0), rate=0.25, kind="features")}
    )
    band = list(BANDS).index("theta")
    s = shifted(rec, {("eeg", 0, band), ("p", 0, -1)}, 80.0).signals
    whole = s["eeg"].read()
    for i, j in [(0, 10), (11_900, 12_100), (29_990, n), (5_000, 5_000)]:
        assert np.array_equal(s["eeg"].read(i, j), whole[i:j])
    assert np.array_equal(whole[:, 1], x[:, 1]) and not np.allclose(whole[:, 0], x[:, 0])
    # The band comes from 80 s before; everything else stays.
    from brainmu.dsp.filters import bandpass

    theta = bandpass(x[:, 0], 100.0, 4.0, 10.0)
    expected = x[:, 0] - theta + np.roll(theta, 8000)
    inner = np.r_[1000:7000, 9000:29_000]
    assert np.corrcoef(whole[inner, 0] - x[inner, 0], expected[inner] - x[inner, 0])[0, 1] > 0.999
    assert np.array_equal(s["p"].read()[:, 0], np.roll(np.arange(75.0), 20))


def test_maps_of_an_untrained_model_are_marked(untrained, sessions, tmp_path):
    maps = attribute(untrained, sessions[0], "NREM", max_epochs=8, method="feature_ablation")
    assert maps.attrs["verdict"].startswith("failed: ") and "speaks against the target" in maps.attrs["verdict"]
    assert {"deletion_auc", "insertion_auc", "random_deletion_auc", "randomised_weights_correlation"} <= set(maps.attrs)
    assert maps["spikes"].dims == ("time_spikes", "unit") and maps["lfp"].shape == (8, 2, len(BANDS))
    assert load_map(save_map(maps, tmp_path / "m.nc")).attrs["verdict"] == maps.attrs["verdict"]


def test_feature_ablation_and_gradients_share_their_coordinates(untrained, sessions):
    one = attribute(untrained, sessions[0], "NREM", max_epochs=4, method="feature_ablation", check=False)
    two = attribute(untrained, sessions[0], "NREM", max_epochs=4, check=False)
    assert agreement(one, two, draws=20)["n"] > 20 and "verdict" not in one.attrs


def test_a_control_that_is_the_stager_itself_fails(untrained, sessions):
    maps = attribute(untrained, sessions[0], "NREM", max_epochs=4, method="feature_ablation", control=untrained)
    assert maps.attrs["randomised_labels_correlation"] == pytest.approx(1.0) and "randomised labels" in maps.attrs["verdict"]
    with pytest.raises(InputError, match="control compares"):
        attribute(untrained, sessions[0], "NREM", method="occlusion", control=untrained)


def test_ranked_leaves_out_what_is_zero():
    values = np.zeros((5, 2, len(BANDS)))
    values[:, 1, 3], values[:, 0, 2] = 2.0, -1.0
    assert ranked({"lfp": (values, ("a", "b"), "field"), "spikes": (np.ones((5, 1)), ("all",), "spikes")}) == [("lfp", 1, 3), ("spikes", 0, -1), ("lfp", 0, 2)]


def test_the_verdict_tells_an_input_that_speaks_against_the_target_from_one_that_says_nothing():
    assert verdict({"difference": -0.8}) == "failed: the input as a whole speaks against the target"
    assert verdict({"difference": 0.1}) == "failed: the stager's log odds hardly depend on its input"
    assert verdict({"difference": 0.8, "n_epochs": 1}).endswith("it rests on 1 epoch alone")


def test_half_the_rate_closes_the_band_below():
    names = list(BANDS)
    assert [names[i] for i in band_index(np.linspace(0, 100, 201))][-1] == "gamma" and "ripple" not in bands_held(200.0)
    assert [names[i] for i in band_index(np.linspace(0, 101, 203))][-1] == "ripple" and bands_held(202.0)[-1] == "ripple"
    assert band_index([0.0]).tolist() == [0] and bands_held(200.0)[0] == "slow"


@pytest.mark.parametrize("by", [0.5, 13.0, 99.9, 150.0, -20.0])
def test_spikes_go_around_the_end_and_keep_their_units(by):
    rng = np.random.default_rng(0)
    signals = {"lfp": dict(values=np.zeros((1000, 1)), rate=10.0, kind="lfp", start=5.0)}
    rec = Recording.from_arrays("a", signals=signals, spikes={"times": np.sort(rng.uniform(5, 105, 500)), "unit": rng.integers(0, 5, 500)})
    s = shifted(rec, {("spikes", 0, -1)}, by).spikes
    there = 5 + (rec.spikes.times - 5 + by) % 100
    assert np.allclose(s.times, np.sort(there)) and (s.unit_id == rec.spikes.unit_id[np.argsort(there)]).all()
