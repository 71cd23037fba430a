"""brainmu finetune without an encoder: trees, or trees and a network over the night, from labelled stores."""

from __future__ import annotations

import json

import numpy as np
import pytest

import brainmu as bm
from brainmu.cli import main


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Stores of four mice whose EEG is slow in NREM and whose EMG is loud in WAKE."""
    folder = tmp_path_factory.mktemp("stores")
    for i in range(4):
        rng = np.random.default_rng(i)
        codes = np.repeat(np.tile([0, 1, 2], 5), rng.integers(5, 12, 15)).astype(np.int8)
        state = np.repeat(codes, 400)
        t = np.arange(len(state)) / 100
        eeg = 3 * (state == 1) * np.sin(2 * np.pi * 2 * t) + 2 * (state == 2) * np.sin(2 * np.pi * 7 * t) + rng.standard_normal(len(t))
        emg = np.array([3.0, 1.0, 0.6])[state] * rng.standard_normal(len(t))
        signals = {k: {"values": v[:, None], "rate": 100.0, "unit": "uV", "kind": k} for k, v in (("eeg", eeg), ("emg", emg))}
        rec = bm.Recording.from_arrays(f"m{i}", f"m{i}", "mouse", signals=signals, labels={"scoring": bm.Hypnogram(codes, "rodent3", 4.0)})
        bm.preprocess(rec, folder / f"m{i}.zarr", lfp_rate=None)
    return folder


def test_a_stager_from_stores_is_scored_on_who_it_has_not_seen_and_loads_again(stores, tmp_path, capsys):
    out = tmp_path / "stager"
    assert main(["finetune", str(stores), "--method", "boosting", "--out", str(out), "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["method"] == "boosting" and found["n_train"] == 3 and found["held_out"]["kappa"] > 0.6
    assert main(["evaluate", str(stores / f"{found['subjects_test'][0]}.zarr"), "--model", str(out), "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["kappa"] == pytest.approx(found["held_out"]["kappa"])


def test_a_combination_needs_three_subjects_and_no_encoder(stores, tmp_path, capsys):
    args = ["finetune", "--method", "combined", "--out", str(tmp_path / "x"), "--quiet"]
    assert main([*args, str(stores / "m0.zarr"), str(stores / "m1.zarr"), "--held-out", "0"]) == 1
    assert "needs three or more, got 2" in capsys.readouterr().err
    assert main([*args, str(stores), "--from", "brainmu-tiny"]) == 2
    assert "--method combined uses none" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
