"""Every folder of real recordings becomes stores with one command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brainmu.cli import main
from brainmu.store import verify

PIPELINES = Path(__file__).parents[2] / "pipelines"
FOLDERS = {
    "human-dreams-spindles": ("dreams_spindles", 4), "human-sleepedf-hypnograms": ("", 12), "mouse-eeg-emg": ("mouse_eeg_emg", 2),
    "mouse-hd-neurosuite": ("", 1), "mouse-hd-sleep-spikes": ("mouse_hd_sleep_spikes", 3), "mouse-ieeg": ("mouse_ieeg", 2), "nwb": ("", 2),
    "rat-hpc-units": ("rat_hpc_units", 1), "rat-linear-track": ("", 1),
}  # fmt: skip
"""Folder: its manifest in pipelines/ (none where the format says enough), and the recordings in it."""


@pytest.mark.realdata
@pytest.mark.parametrize("name", FOLDERS)
def test_one_command(real_data: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    manifest, n = FOLDERS[name]
    options = ["--manifest", str(PIPELINES / manifest / "brainmu.yaml")] if manifest else []
    assert main(["preprocess", str(real_data / name), "--out", str(tmp_path), *options, "--json", "--quiet"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert (len(done["stores"]), done["failed"]) == (n, {})
    for store in done["stores"]:
        assert store["duration"] > 0
        assert verify(store["path"]) == []


@pytest.mark.realdata
@pytest.mark.slow
def test_a_hundred_nights_of_features(real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = PIPELINES / "sleepedf_bandpower" / "brainmu.yaml"
    args = ["preprocess", str(real_data / "human-sleepedf-bandpower"), "--manifest", str(manifest), "--out", str(tmp_path), "--json", "--quiet"]
    assert main(args) == 0
    assert len(json.loads(capsys.readouterr().out)["stores"]) == 104
    assert main(args) == 0
    assert all(s["already_complete"] for s in json.loads(capsys.readouterr().out)["stores"])
