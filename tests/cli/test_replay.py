"""brainmu replay beyond sequences: assemblies with templates from another day, head direction and labels cross-validated."""

from __future__ import annotations

import json

import numpy as np
import pytest

import brainmu as bm
from brainmu.cli import main
from brainmu.core import EventTable, Intervals
from brainmu.replay import ReplayDetector


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Two days of the same units: volleys of six in run and rest, a heading that the others follow, two cues."""
    folder = tmp_path_factory.mktemp("stores")
    for day in range(2):
        rng = np.random.default_rng(day)
        times, units = [], []
        t = np.arange(200 * 20) / 20
        angle = np.cumsum(rng.normal(0, 0.1, len(t)))
        for k in range(18):
            rate = 2.0 + 25 * np.exp((np.cos(angle - k / 12 * 2 * np.pi) - 1) / 0.3) * (k < 12)
            rate = np.r_[rate, np.full(200 * 20, 2.0)]
            n = rng.poisson(rate / 20)
            times.append(np.repeat(np.arange(len(n)) / 20, n) + rng.uniform(0, 0.05, n.sum()))
            units.append(np.full(n.sum(), k))
        volleys = np.sort(rng.uniform(1, 399, 160))
        for k in range(12, 18):
            fired = volleys[rng.random(160) < 0.85]
            times.append(fired + rng.normal(0, 0.004, len(fired)))
            units.append(np.full(len(fired), k))
        degrees = np.rad2deg(np.angle(np.exp(1j * angle)))[:, None]
        heading = {"values": degrees, "rate": 20.0, "unit": "deg", "kind": "behaviour", "channels": ["heading"]}
        rec = bm.Recording.from_arrays(
            f"day{day}", spikes={"times": np.clip(np.concatenate(times), 0, 399.99), "unit": np.concatenate(units)},
            signals={"heading": heading},
            labels={"run": Intervals([[0, 200]]), "rest": Intervals([[200, 400]]), "cue_A": Intervals([[0, 100]]), "cue_B": Intervals([[250, 350]])},
        )  # fmt: skip
        bm.preprocess(rec, folder / f"day{day}.zarr")
    return folder


def result(capsys, *args) -> dict:
    assert main([*map(str, args), "--json", "--quiet"]) == 0
    return json.loads(capsys.readouterr().out)


def test_templates_of_one_day_find_the_assemblies_of_the_next(stores, tmp_path, capsys) -> None:
    first = result(capsys, "replay", stores / "day0.zarr", "--method", "assembly", "--out", tmp_path / "a.tsv", "--save-templates", tmp_path / "t.npz")
    assert [12, 13, 14, 15, 16, 17] in first["members"] and first["n"] == len(EventTable.from_bids(tmp_path / "a.tsv"))
    second = result(capsys, "replay", stores / "day1.zarr", "--method", "assembly", "--out", tmp_path / "b.tsv", "--templates", tmp_path / "t.npz")
    row = first["members"].index([12, 13, 14, 15, 16, 17])
    assert second["matched"] == [18, 18] and second["recording"] == "day0" and second["members"] == first["members"]
    assert second["rate"][row] > 10 * max(second["surrogate_rate"][row], 0.3) and second["strength"][row]["p_value"] < 0.01
    assert main(["replay", str(stores / "day1.zarr"), "--method", "assembly", "--out", str(tmp_path / "b.tsv")]) == 1  # it is there already
    assert main(["replay", str(stores / "day0.zarr"), "--method", "assembly", "--out", str(tmp_path / "c.tsv"), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "units of the templates are here" in said and "in shifted trains" in said and "dealt units" in said


def test_head_direction_and_labels_are_cross_validated(stores, capsys) -> None:
    heading = result(capsys, "replay", stores / "day0.zarr", "--cross-validate", "--decode", "heading")["decoding_error"]
    assert heading["median"] < 15 and heading["unit"] == "deg" and heading["quality"] == "good"
    cue = result(capsys, "replay", stores / "day0.zarr", "--cross-validate", "--decode", "cue", "--bin-size", "1")["decoding_error"]
    assert cue["accuracy"] > 0.7 and cue["classes"] == ["A", "B"]
    assert main(["replay", str(stores / "day0.zarr"), "--cross-validate", "--decode", "heading", "--quiet"]) == 0
    assert "of the head direction" in capsys.readouterr().out


@pytest.fixture(scope="module")
def bursting(tmp_path_factory):
    """Stores of three animals, 80 s of spikes each, with a burst of all units every two to four seconds."""
    folder = tmp_path_factory.mktemp("bursting")
    for k in range(3):
        rng = np.random.default_rng(k)
        at = np.cumsum(rng.uniform(2, 4, 40))
        at = at[at < 78]
        length = rng.uniform(0.06, 0.12, len(at))
        times = np.concatenate([rng.uniform(0, 80, 1200), *(rng.uniform(a, a + d, 30) for a, d in zip(at, length))])
        rec = bm.Recording.from_arrays(
            f"m{k}", f"m{k}", "mouse", spikes={"times": times, "unit": rng.integers(0, 15, len(times))},
            labels={"reactivation": EventTable(at, at + length), "rest": Intervals([[0, 80]])},
        )  # fmt: skip
        bm.preprocess(rec, folder / f"m{k}.zarr")
    return folder


def test_a_saved_detector_finds_events(bursting, tmp_path, capsys) -> None:
    sessions = [bm.open(bursting / f"m{k}.zarr") for k in range(2)]
    ReplayDetector(encoder=None, steps=30, folds=2).fit(sessions).save(tmp_path / "d")
    args = ["replay", bursting / "m2.zarr", "--method", "detector", "--model", tmp_path / "d", "--out"]
    found = result(capsys, *args, tmp_path / "a.tsv", "--false-rate", "2")
    table = EventTable.from_bids(tmp_path / "a.tsv")
    truth = bm.open(bursting / "m2.zarr").labels["reactivation"]
    assert found["n"] == len(table) and found["within"] == "rest" and found["modalities"] == ["spikes"] and "no LFP" in found["absent"]["lfp"]
    assert len(table.match(truth)) > 0.7 * len(truth) and {"probability", "content_probability"} <= set(table.columns)
    assert main([*map(str, args), str(tmp_path / "b.tsv"), "--rest", "nap", "--probability", "0.3"]) == 0
    said = capsys.readouterr()
    assert "replay events in" in said.out and "read from spikes" in said.out and "lfp not used" in said.out and "no label 'nap'" in said.err


@pytest.mark.slow
def test_finetune_fits_a_detector_and_scores_it_on_another_animal(bursting, tmp_path, capsys) -> None:
    args = ["finetune", bursting, "--task", "replay", "--within", "rest", "--held-out", "0.34", "--out", tmp_path / "d"]
    found = result(capsys, *args)
    assert found["n_train"] == 2 and len(found["subjects_test"]) == 1 and found["held_out"]["average_precision"] > 0.7
    assert found["n_events"] > 40 and set(found["left_out"]) == {"spikes"}
    assert (
        len(result(capsys, "replay", bursting / "m2.zarr", "--method", "detector", "--model", tmp_path / "d", "--out", tmp_path / "a.tsv")["modalities"]) == 1
    )


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--task", "replay", "--epoch", "4"], "--epoch is for --task stage"),
        (["--task", "replay", "--mode", "probe"], "--mode is for --task stage"),
        (["--within", "rest"], "--within rest is for --task replay"),
    ],
)
def test_finetune_options_of_the_other_task_are_one_line(capsys, tmp_path, args, says) -> None:
    assert main(["finetune", "x.zarr", "--out", str(tmp_path / "d"), "--quiet", *args]) == 2
    err = capsys.readouterr().err
    assert says in err and err.strip().count("\n") == 0 and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--templates", "t.npz", "--out", "a.tsv"], "--method assembly"),
        (["--method", "assembly", "--templates", "t.npz", "--save-templates", "u.npz", "--out", "a.tsv"], "give one of them"),
        (["--decode", "heading", "--out", "a.tsv"], "add --cross-validate"),
        (["--method", "assembly", "--candidates", "hse", "--out", "a.tsv"], "--candidates is for --method sequence"),
        (["--method", "assembly"], "--out FILE.tsv"),
        (["--method", "detector", "--out", "a.tsv"], "--model FOLDER go together"),
        (["--model", "d", "--out", "a.tsv"], "--model FOLDER go together"),
        (["--false-rate", "1", "--out", "a.tsv"], "are for --method detector"),
        (["--method", "detector", "--model", "d", "--candidates", "hse", "--out", "a.tsv"], "the detector finds its own"),
        (["--method", "detector", "--model", "d", "--probability", "0.5", "--false-rate", "1", "--out", "a.tsv"], "expected one"),
        (["--method", "detector", "--model", "d", "--templates", "t.npz", "--out", "a.tsv"], "--method assembly"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(capsys, tmp_path, monkeypatch, args, says) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["replay", "x.zarr", *args, "--quiet"]) == 2
    err = capsys.readouterr().err
    assert says in err and err.strip().count("\n") == 0 and list(tmp_path.iterdir()) == []
