"""brainmu evaluate: stagers as ever, encoders by what they add, options that do not fit refused."""

import json

import numpy as np
import pytest
import torch

import brainmu as bm
from brainmu.cli import main
from brainmu.models import Encoder, EncoderConfig
from brainmu.models.checkpoint import plain, write_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stores of two mice, and a small encoder's checkpoint."""
    path = tmp_path_factory.mktemp("evaluate")
    for i in range(2):
        rng = np.random.default_rng(i)
        codes = np.repeat(np.tile([0, 1, 2], 4), 10).astype(np.int8)
        loud = np.repeat(np.array([3.0, 1.0, 0.7])[codes], 400)
        slow = np.repeat(np.array([0.3, 3.0, 0.3])[codes], 400)
        t = np.arange(len(loud)) / 100
        eeg = slow * np.sin(2 * np.pi * 2 * t) + rng.standard_normal(len(t))
        signals = {
            "eeg": {"values": eeg[:, None], "rate": 100.0, "unit": "uV", "kind": "eeg"},
            "emg": {"values": (loud * rng.standard_normal(len(t)))[:, None], "rate": 100.0, "unit": "uV", "kind": "emg"},
        }
        rec = bm.Recording.from_arrays(f"m{i}", f"m{i}", "mouse", signals=signals, labels={"scoring": bm.Hypnogram(codes, "rodent3", 4.0)})
        bm.preprocess(rec, path / "stores" / f"m{i}.zarr", lfp_rate=None)
    torch.manual_seed(0)
    small = Encoder(EncoderConfig(width=16, heads=2, latents=2, window_layers=1, context_layers=1))
    whole = torch.nn.ModuleDict({"encoder": small})
    write_checkpoint(path / "encoder", whole, {"type": "encoder", "encoder": plain(small.config)}, "# Encoder\n")
    return path


def test_an_encoder_is_asked_what_it_adds(folder, tmp_path, capsys):
    out = tmp_path / "scores.json"
    args = ["evaluate", str(folder / "stores"), "--model", str(folder / "encoder"), "--shares", "0.2", "1", "--seeds", "1", "--out", str(out), "--quiet"]
    assert main([*args, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n_subjects"] == 2 and [r["share"] for r in found["rows"]] == [0.2] * 3 + [1.0] * 3 + [None] * 3
    assert found == json.loads(out.read_text())
    assert main(args) == 1 and "overwrite" in capsys.readouterr().err
    assert main([*args[:2], "--model", str(folder / "encoder"), "--split", "time", "--guard", "8", "--seeds", "1", "--shares", "1", "--quiet"]) == 0
    assert "nothing of new animals" in capsys.readouterr().out


def test_a_stager_is_scored(folder, capsys):
    assert main(["evaluate", str(folder / "stores"), "--model", "rules", "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out)["kappa"] > 0.5


def test_subjects_that_the_stager_was_fitted_on_are_named(folder, tmp_path, capsys):
    one = bm.open(folder / "stores" / "m0.zarr")
    bm.SleepStager(stages="rodent3", method="boosting").fit(one, "scoring").save(tmp_path / "stager")
    args = ["evaluate", str(folder / "stores"), "--model", str(tmp_path / "stager"), "--quiet"]
    assert main(args) == 0
    said = capsys.readouterr().out
    assert "fitted on 1 of these subjects (m0)" in said and "2 subjects: intervals over so few are too narrow" in said
    assert main([*args, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fitted_on"] == ["m0"]


def test_a_packaged_stage_model_is_scored_by_name(folder, capsys):
    assert main(["evaluate", str(folder / "stores" / "m0.zarr"), "--model", "brainmu-tiny-rodent3", "--json", "--quiet"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 120 and 0 <= found["accuracy"] <= 1


def test_disagreements_are_drawn(folder, tmp_path, capsys):
    picture = tmp_path / "differ.png"
    args = ["evaluate", str(folder / "stores"), "--model", "rules", "--quiet", "--plot", str(picture)]
    assert main([*args, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["plot"] == str(picture) and picture.read_bytes()[:4] == b"\x89PNG" and [p.name for p in tmp_path.iterdir()] == ["differ.png"]
    assert found["calibration"] and found["abstention"][0]["abstained_pct"] == 0 and found["shuffled"]["kappa"] < 0.3
    assert main(args) == 1 and "overwrite" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "status", "says"),
    [
        (["--model", "rules", "--shares", "0.1"], 2, "--shares is for encoders, and rules is a stager"),
        (["--model", "ENCODER", "--guard", "10"], 2, "goes with --split time"),
        (["--model", "ENCODER", "--plot", "x.png"], 2, "draws what a stager scored"),
        (["--model", "rules", "--plot", "x.doc"], 2, "no suffix of a picture"),
        (["--model", "ENCODER", "--shares", "20"], 1, "0.05 is 5 %"),
        (["--model", "ENCODER", "--without", "ecg"], 1, "which no recording has"),
        (["--model", "brainmu-tiney"], 1, "did you mean 'brainmu-tiny'"),
        (["--model", "ENCODER", "--labels", "sleep"], 1, "no hypnogram named 'sleep'"),
    ],
)
def test_refuses_in_a_line(folder, capsys, args, status, says):
    args = [str(folder / "encoder") if a == "ENCODER" else a for a in args]
    assert main(["evaluate", str(folder / "stores"), *args, "--quiet"]) == status
    out, err = capsys.readouterr()
    assert out == "" and says in err and err.strip().count("\n") == 0


def test_one_subject_is_refused(folder, capsys):
    assert main(["evaluate", str(folder / "stores" / "m0.zarr"), "--model", str(folder / "encoder"), "--quiet"]) == 1
    assert "two or more subjects" in capsys.readouterr().err
