"""Attribution finds what was planted, not what is loud, and a stager that learned nothing shows another map."""

import itertools

import numpy as np
import pytest

from brainmu.core import Hypnogram, Recording
from brainmu.errors import InputError, MissingDataError
from brainmu.explain import attribute, recovery
from brainmu.explain.bands import BANDS, band_index, bands_below
from brainmu.explain.runs import runs_of

RATE = 250.0


def planted(seed, minutes=12):
    """Three channels: a loud 1.7 Hz that says nothing, 7.3 Hz in REM, 2.3 Hz in NREM."""
    rng = np.random.default_rng(seed)
    n = int(minutes * 15)
    stages = [s for _ in range(n) for s in [["WAKE", "NREM", "REM"][rng.integers(3)]] * rng.integers(5, 15)][:n]
    h = Hypnogram.from_stages(stages, epoch=4.0)
    code, t = np.repeat(h.codes, int(4 * RATE)), np.arange(n * int(4 * RATE)) / RATE
    x = rng.standard_normal((len(t), 3)).astype(np.float32) * 10
    x[:, 0] += 60 * np.sin(2 * np.pi * 1.7 * t)
    x[:, 1] += 12 * np.sin(2 * np.pi * 7.3 * t) * (code == 2)
    x[:, 2] += 15 * np.sin(2 * np.pi * 2.3 * t) * (code == 1)
    signals = {"lfp": dict(values=x, rate=RATE, unit="uV", kind="lfp", channels=["loud", "theta", "delta"])}
    return Recording.from_arrays(f"r{seed}", f"m{seed}", "mouse", signals=signals, labels={"scoring": h})


@pytest.fixture(scope="module")
def boosted():
    from brainmu.sleep import SleepStager

    return SleepStager(stages="rodent3", epoch=4.0, method="boosting").fit([planted(i) for i in range(3)], labels="scoring")


@pytest.mark.slow
def test_integrated_gradients_find_the_planted_channel_and_band():
    from brainmu.train import finetune

    model = finetune([planted(i, 20) for i in range(3)], labels="scoring", stages="rodent3", epoch=4.0)
    session = planted(9, 20)
    for target, where in (("REM", ("theta", "theta")), ("NREM", ("delta", "delta"))):
        maps = attribute(model, session, target)
        mean = maps["lfp"].mean("time_lfp")
        best = mean.where(mean == mean.max(), drop=True)
        assert (str(best["channel_lfp"].item()), str(best["band"].item())) == where
        rest = np.abs(mean.where(mean < mean.max())).max().item()
        assert mean.max().item() > 3 * rest
        assert maps.attrs["completeness_error"] <= 0.01
        assert maps["lfp"].sizes["time_lfp"] == maps.attrs["n_epochs"] * 4
        assert maps.attrs["randomised_weights_correlation"] < 0.95
        assert maps.attrs["beats_random"] == 1 and maps.attrs["skill"] > 0.9
        assert recovery(maps, [("lfp", *where)]) == 1.0


def test_occlusion_finds_the_planted_channel_in_any_stager(boosted):
    # The trees see the mean over channels, so the channel counts as well as the band.
    maps = attribute(boosted, planted(9), "REM", shifts=1, planted=[("lfp", "theta", "theta")])
    mean = maps["lfp"].mean("time_lfp")
    best = mean.where(mean == mean.max(), drop=True)
    assert (str(best["channel_lfp"].item()), str(best["band"].item())) == ("theta", "theta")
    assert maps.attrs["planted"] == ["lfp/theta/theta"]
    assert maps.attrs["recovery"] == 1.0 == recovery(maps, [("lfp", "theta", "theta")])
    assert maps.attrs["method"] == "occlusion" and maps["lfp"].attrs["unit"] == "log odds"


def test_refusals(boosted):
    session = planted(9, 4)
    with pytest.raises(InputError, match="nothing to differentiate"):
        attribute(boosted, session, "REM", method="integrated_gradients")
    with pytest.raises(InputError, match="expected one of"):
        attribute(boosted, session, "REM", method="gradients")
    with pytest.raises(InputError, match="not among"):
        attribute(boosted, session, "N2")
    asleep = planted(9, 4)
    keep = asleep.signals["lfp"].read()[asleep.hypnogram().at(asleep.signals["lfp"].read_times()) == 1]
    only_nrem = Recording.from_arrays("n", signals={"lfp": dict(values=np.tile(keep, (3, 1)), rate=RATE, unit="uV", kind="lfp")})
    wake = boosted.predict(only_nrem).mask("REM")
    if not wake.any():
        with pytest.raises(MissingDataError, match="no epoch for REM"):
            attribute(boosted, only_nrem, "REM")


@pytest.mark.parametrize(
    ("known", "words"),
    [
        ([], "planted is empty"),
        (["eeg"], "'eeg' is no stream"),
        ([("lfp", "loudest")], "'loudest' is not in lfp"),
        ([("lfp", "loud", "gammaray")], "lfp/loud/gammaray"),
        ([("spikes", "3")], "'spikes' is no stream"),
    ],
)
def test_drivers_that_the_session_does_not_hold_are_told_before_the_work(known, words):
    with pytest.raises(InputError, match=words):
        attribute(None, planted(9, 4), "REM", method="occlusion", planted=known)


def test_runs_stay_inside_the_target_and_the_budget():
    taken = np.zeros(100, bool)
    taken[10:33] = taken[50:52] = taken[90:100] = True
    runs = runs_of(taken, 16)
    assert sum(b - a for a, b in runs) <= 16 and all(taken[a:b].all() for a, b in runs)
    assert runs_of(taken, 3) and sum(b - a for a, b in runs_of(taken, 3)) <= 3
    # Epochs that stand alone make room for others, until the budget is spent.
    alone = np.zeros(100, bool)
    alone[::5] = True
    assert len(runs_of(alone, 16)) == 16 and len(runs_of(alone, 32)) == 20


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"epochs": []}, "epochs names none"),
        ({"epochs": [0.5]}, "expected whole numbers"),
        ({"epochs": [9999]}, "epoch 9999 is outside"),
        ({"epochs": np.ones(3, bool)}, "a mask of 3"),
        ({"shifts": 0}, "shifts is 0"),
        ({"max_epochs": 2.5}, "max_epochs is 2.5"),
        ({"seed": "x"}, "seed is 'x'"),
        ({"labels": "nobody"}, "nobody"),
        ({"planted": [("lfp", "theta", "fast")]}, "of which a map has"),
        ({"planted": [("lfp", "theta", "slow")]}, "of which a map has delta"),
        ({"planted": [("lfp", "theta", "delta", "")]}, "expected STREAM/CHANNEL"),
        ({"planted": [("lfp", "theta", "ripples")]}, "expected STREAM/CHANNEL"),
        ({"planted": [()]}, "planted is empty"),
    ],
)
def test_what_cannot_be_asked_is_told_before_the_work(boosted, more, words):
    with pytest.raises((InputError, MissingDataError), match=words):
        attribute(boosted, planted(9, 4), "REM", **more)


def test_epochs_are_named_by_index_or_by_a_mask():
    from brainmu.explain.asking import epoch_indices

    session, there = planted(9, 4), np.ones(60, bool)
    mask = np.zeros(60, bool)
    mask[[3, 7]] = True
    assert epoch_indices(session, mask, there).tolist() == epoch_indices(session, [7, 3, 3.0], there).tolist() == [3, 7]
    there[7] = False
    with pytest.raises(InputError, match="epoch 7 holds no data"):
        epoch_indices(session, mask, there)


def test_bands_are_contiguous_and_below_half_the_rate():
    edges = list(BANDS.values())
    assert all(a[1] == b[0] for a, b in itertools.pairwise(edges))
    assert [list(BANDS)[i] for i in band_index([0, 0.5, 3.9, 4, 7, 150, 400])] == ["slow", "delta", "delta", "theta", "theta", "ripple", "fast"]
    assert max(hi for _, hi in bands_below(250.0).values()) == pytest.approx(112.5) and list(bands_below(1.0)) == []
