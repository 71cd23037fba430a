"""brainmu stage: a packaged model by name, a few labelled minutes, a share left unscored; what does not fit is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

import brainmu as bm
from brainmu.cli import main
from brainmu.cli.stage import unused
from brainmu.core import Hypnogram, Recording


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    rng = np.random.default_rng(0)
    codes = np.repeat([0, 1, 2, 0, 1, 2, 0, 1], 20)
    gain = np.repeat(codes, 400)
    t = np.arange(len(gain)) / 100.0
    eeg = 3 * (gain == 1) * np.sin(2 * np.pi * 2 * t) + 2 * (gain == 2) * np.sin(2 * np.pi * 7 * t) + rng.standard_normal(len(t))
    emg = rng.standard_normal(len(t)) * np.array([3.0, 1.0, 0.6])[gain]
    signals = {k: {"values": v[:, None], "rate": 100.0, "unit": "uV", "kind": k} for k, v in (("eeg", eeg), ("emg", emg))}
    few = np.where(np.arange(len(codes)) % 20 < 8, codes, -2)
    labels = {"scoring": Hypnogram(codes, "rodent3", 4.0), "few": Hypnogram(few, "rodent3", 4.0)}
    return bm.preprocess(Recording.from_arrays("m", "m", "mouse", signals=signals, labels=labels), tmp_path_factory.mktemp("stores") / "m.zarr").path


def test_packaged_model_with_a_few_minutes(store, tmp_path, capsys):
    out = tmp_path / "m.tsv"
    given = ["stage", str(store), "--model", "brainmu-tiny-rodent3", "--calibrate", "few", "--abstain-rate", "0.05", "--out", str(out), "--json"]
    assert main(given) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["fractions"]["UNS"] == pytest.approx(0.05) and result["attrs"]["abstained"] == pytest.approx(0.05)
    assert "calibration" in result["attrs"] and 0 < result["attrs"]["expected_error"] < 1
    assert out.is_file()


def test_epochs_that_calibrate_are_not_scored(store, tmp_path, capsys):
    given = ["stage", str(store), "--calibrate", "few", "--labels", "scoring", "--out", str(tmp_path / "m.tsv")]
    assert main([*given, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    assert scores["n"] == 160 - 64 and scores["left_out"] == 64
    minutes = ["stage", str(store), "--calibrate", "scoring", "--calibrate-minutes", "6", "--labels", "scoring", "--out", str(tmp_path / "n.tsv")]
    assert main(minutes) == 0
    assert "n = 70 epochs, without the 90 that calibrated the stager" in capsys.readouterr().out


def test_an_epoch_that_reaches_into_a_calibrating_one_is_left_out():
    reference = Hypnogram(np.array([0, 1, 1, -2, 2, 0]), "rodent3", 4.0, start=2.0)
    left, n = unused(reference, Hypnogram(np.array([-2, -2, 1, 1, -2]), "rodent3", 2.5, start=1.0), None, 0.0)  # scores 6.0 to 11.0 s
    assert left.codes.tolist() == [0, -2, -2, -2, 2, 0] and n == 2
    assert unused(reference, Hypnogram(np.array([0, 0]), "rodent3", 4.0, start=50.0), None, 0.0)[1] == 0
    # Minutes are counted from where there are data to calibrate by.
    late = Hypnogram(np.zeros(10, int), "rodent3", 4.0)
    assert unused(late, late, 8 / 60, 20.0)[0].codes.tolist() == [0] * 5 + [-2] * 2 + [0] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--abstain", "--abstain-rate", "0.1"], "leave one of them out"),
        (["--abstain-rate", "1.5"], "abstain is 1.5"),
        (["--calibrate", "nobody"], "nobody"),
        (["--calibrate", "scoring", "--labels", "scoring"], "every epoch that it scores calibrates the stager"),
        (["--calibrate-minutes", "5"], "goes with --calibrate NAME"),
        (["--model", "brainmu-tiny"], "fit one with brainmu finetune"),
    ],
)
def test_what_does_not_fit(store, tmp_path, capsys, options, message):
    assert main(["stage", str(store), "--out", str(tmp_path / "m.tsv"), *options]) > 0
    assert message in capsys.readouterr().err
    assert not (tmp_path / "m.tsv").exists()


def test_a_folder_of_several_stores_is_refused(store, tmp_path, capsys):
    for name in ("a", "b"):
        rng = np.random.default_rng(ord(name))
        lfp = {"values": rng.standard_normal((8_000, 1)), "rate": 100.0, "unit": "uV", "kind": "lfp"}
        bm.preprocess(Recording.from_arrays(name, name, "mouse", signals={"lfp": lfp}), tmp_path / f"{name}.zarr")
    assert main(["stage", str(tmp_path), "--model", "rules", "--out", str(tmp_path / "out.tsv")]) == 2
    assert "2 stores (a, b), expected one" in capsys.readouterr().err and not (tmp_path / "out.tsv").exists()
