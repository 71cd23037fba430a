"""brainmu preprocess and info on files: options of readers, settings, clocks, URLs, several processes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from brainmu.cli import main


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Arrays of two devices whose clocks differ by 2 s and 40 ppm, and a manifest."""
    rng = np.random.default_rng(0)
    pulses = np.cumsum(rng.uniform(0.5, 1.5, 300))
    root = tmp_path / "day1"
    root.mkdir()
    np.save(root / "eeg.npy", (rng.standard_normal((60_000, 2)) * 100).astype(np.int16))
    np.save(root / "x.npy", np.cumsum(rng.standard_normal((9000, 2)), axis=0))
    np.save(root / "sync.npy", pulses)
    np.save(root / "frames.npy", (pulses - 2.0) / (1 + 40e-6))
    (root / "brainmu.yaml").write_text(
        """
id: day1
subject: m1
species: mouse
clocks:
  rig: {pulses: sync.npy, reference: true}
  camera: {pulses: frames.npy}
signals:
  eeg: {file: eeg.npy, rate: 200, unit: uV, kind: eeg, clock: rig}
  position: {file: x.npy, rate: 30, unit: cm, kind: position, channels: [x, y], clock: camera}
"""
    )
    return root


def result(capsys: pytest.CaptureFixture[str], *args: object) -> dict:
    capsys.readouterr()
    assert main([*map(str, args), "--json", "--quiet"]) == 0
    return json.loads(capsys.readouterr().out)


def test_clocks_of_a_manifest_end_in_the_store(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "day1.zarr"
    assert main(["preprocess", str(folder), "--out", str(out), "--derive", "speed", "--jobs", "2"]) == 0
    assert "clock 'camera' against 'rig': offset +1.9999" in capsys.readouterr().err
    session = result(capsys, "info", out, "--verify")
    assert session["verified"]
    assert session["provenance"]["clocks"]["camera"]["ppm"] == pytest.approx(40, abs=0.1)
    assert session["signals"]["position"]["start"] == pytest.approx(2.0, abs=1e-4)
    assert {"eeg", "position", "speed"} <= set(session["signals"])


def test_a_clock_left_alone_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["preprocess", str(folder), "--out", str(tmp_path / "d.zarr"), "--clock", "none", "--quiet"]
    assert main(args) == 1
    assert "raise --max-drift" in capsys.readouterr().err
    assert main([*args, "--max-drift", "5"]) == 0


def test_settings_files_hold_options_of_any_verb(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "info.yaml"
    settings.write_text("verify: true\nquiet: true\n")
    out = tmp_path / "day1.zarr"
    assert main(["preprocess", str(folder), "--out", str(out), "--quiet"]) == 0
    assert result(capsys, "info", out, "--config", settings)["verified"]
    settings.write_text("verfy: true\n")
    assert main(["info", str(out), f"--config={settings}"]) == 1
    assert "unknown key 'verfy': did you mean 'verify'" in capsys.readouterr().err
    assert main(["info", str(out), "--config", "absent.yaml"]) == 1


def test_options_go_to_the_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "tracking.csv"
    rows = "\n".join(f"{k},{k}.0,2.0,0.99" for k in range(100))
    table.write_text("scorer,net,net,net\nbodyparts,nose,nose,nose\ncoords,x,y,likelihood\n" + rows + "\n")
    assert main(["info", str(table), "--quiet"]) == 1
    assert "rate=" in capsys.readouterr().err
    found = result(capsys, "info", table, "--option", "rate=25", "--option", "pixels_per_cm=8")
    assert found["recordings"][0]["signals"]["position"]["unit"] == "m"
    assert found["recordings"][0]["duration"] == pytest.approx(4.0)
    assert main(["info", str(table), "--option", "rate"]) == 2
    assert "expected key=value" in capsys.readouterr().err
    assert main(["info", str(table), "--option", "rte=25", "--quiet"]) == 1
    assert "did you mean 'rate'" in capsys.readouterr().err


def test_urls_are_stores_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = "memory://cli/day1.zarr"
    assert main(["preprocess", str(folder), "--out", url, "--quiet"]) == 0
    assert result(capsys, "info", url, "--verify")["verified"]
    assert main(["info", "memory://cli/absent.zarr"]) == 1
    assert "no such store" in capsys.readouterr().err


def test_a_plan_reads_and_writes_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(tmp_path.rglob("*"))
    plan = result(capsys, "preprocess", folder, "--out", tmp_path / "d.zarr", "--plan", "--lfp-rate", "100", "--notch", "50")["plans"][0]
    assert {s["name"]: s["action"] for s in plan["signals"]}["eeg"] != "keep"
    assert any("clock 'camera'" in w for w in plan["warnings"])
    assert sorted(tmp_path.rglob("*")) == before
