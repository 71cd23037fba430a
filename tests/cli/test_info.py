"""brainmu info: folders of stores, checkpoints, unfinished runs, and names that are nothing."""

import json
import shutil

import numpy as np
import pytest
import torch

import brainmu as bm
from brainmu.cli import main
from brainmu.models import Encoder, EncoderConfig
from brainmu.models.checkpoint import plain, write_checkpoint


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two stores, a small encoder's checkpoint, and a run of pretraining that was interrupted."""
    path = tmp_path_factory.mktemp("info")
    for i in range(2):
        values = np.random.default_rng(i).standard_normal((2000, 1))
        rec = bm.Recording.from_arrays(f"s{i}", f"m{i}", "mouse", signals={"eeg": {"values": values, "rate": 100.0, "unit": "uV", "kind": "eeg"}})
        bm.preprocess(rec, path / "stores" / f"s{i}.zarr", lfp_rate=None)
    torch.manual_seed(0)
    small = Encoder(EncoderConfig(width=16, heads=2, latents=2, window_layers=1, context_layers=1))
    whole = torch.nn.ModuleDict({"encoder": small, "gist": torch.nn.Linear(2, 3)})
    write_checkpoint(path / "encoder", whole, {"type": "encoder", "encoder": plain(small.config)}, "# Encoder\n")
    (path / "run" / "resume").mkdir(parents=True)
    (path / "run" / "resume" / "run.json").write_text("{}")
    (path / "run" / "metrics.csv").write_text("stage,step,loss\nwindow,1,2.0\nwindow,2,1.5\n")
    return path


def test_a_folder_of_stores_is_listed(folder, tmp_path, capsys):
    assert main(["info", str(folder / "stores")]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].endswith("folder of 2 stores of 2 subjects, 0.0 h") and out[1].startswith("  s0.zarr: s0 (subject m0, mouse)") and len(out) == 3
    shutil.copytree(folder / "stores", tmp_path / "stores")
    first = next(p for p in sorted((tmp_path / "stores" / "s1.zarr").rglob("c/*/*")) if p.is_file())
    first.write_bytes(first.read_bytes()[:-1] + b"\0")
    assert main(["info", str(tmp_path / "stores"), "--verify", "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert [s["verified"] for s in found["stores"]] == [True, False]


def test_raw_data_beside_a_store_is_what_a_folder_holds(folder, tmp_path, capsys):
    shutil.copytree(folder / "stores" / "s0.zarr", tmp_path / "s0.zarr")
    np.save(tmp_path / "eeg.npy", np.zeros((400, 1)))
    (tmp_path / "brainmu.yaml").write_text("id: raw\nsignals: {eeg: {file: eeg.npy, rate: 200, unit: uV, kind: eeg}}")
    assert main(["info", str(tmp_path)]) == 0
    assert "raw: 0 min 02 s" in capsys.readouterr().out


def test_a_checkpoint_is_counted_in_parts_and_verified(folder, tmp_path, capsys):
    assert main(["info", str(folder / "encoder"), "--verify"]) == 0
    out = capsys.readouterr().out
    n = sum(p.numel() for p in Encoder(EncoderConfig(width=16, heads=2, latents=2, window_layers=1, context_layers=1)).parameters())
    assert f"{n + 9:,} numbers ({n:,} of the encoder, 9 of the heads of pretraining)" in out and "verified: it loads" in out
    shutil.copytree(folder / "encoder", tmp_path / "other")
    config = (tmp_path / "other" / "config.yaml").read_text().replace("width: 16", "width: 32")
    (tmp_path / "other" / "config.yaml").write_text(config)
    assert main(["info", str(tmp_path / "other"), "--verify"]) == 1
    assert "does not fit" in capsys.readouterr().err


def test_weights_that_are_not_finite_are_found(folder, tmp_path, capsys):
    small = Encoder(EncoderConfig(width=16, heads=2, latents=2, window_layers=1, context_layers=1))
    with torch.no_grad():
        small.summarise.bias[0] = float("nan")
    write_checkpoint(tmp_path / "e", torch.nn.ModuleDict({"encoder": small}), {"type": "encoder", "encoder": plain(small.config)}, "")
    assert main(["info", str(tmp_path / "e")]) == 0
    assert main(["info", str(tmp_path / "e"), "--verify"]) == 1
    assert "not finite (summarise.bias)" in capsys.readouterr().err


def test_an_unfinished_run_says_how_to_go_on(folder, capsys):
    assert main(["info", str(folder / "run")]) == 0
    out = capsys.readouterr().out
    assert "unfinished run" in out and "step 2 of stage window" in out and f"--out {folder / 'run'} --resume" in out
    assert main(["info", str(folder / "run"), "--verify"]) == 1 and "nothing whole to verify" in capsys.readouterr().err
    assert main(["evaluate", str(folder / "stores"), "--model", str(folder / "run"), "--quiet"]) == 1
    assert "unfinished pretraining run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "says"),
    [("brainmu-tinny", "did you mean 'brainmu-tiny'?"), ("nothere.edf", "nothere.edf: no such file or folder\n")],
)
def test_a_near_name_is_suggested_and_a_far_one_is_not(tmp_path, monkeypatch, capsys, name, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "note.md").write_text("")
    assert main(["info", name]) == 1
    assert says in capsys.readouterr().err


def test_verify_of_a_recording_is_refused(tmp_path, capsys):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    assert main(["info", str(tmp_path / "x.csv"), "--verify"]) == 2
    assert "neither" in capsys.readouterr().err
