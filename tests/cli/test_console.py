"""What verbs share: stores opened once each, folders for results refused before any work."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import brainmu as bm
from brainmu.cli.console import Common, open_sessions, refuse_folder
from brainmu.errors import OutputExistsError, StoreError


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    path = tmp_path_factory.mktemp("stores")
    for i in range(2):
        values = np.random.default_rng(i).standard_normal((400, 1))
        rec = bm.Recording.from_arrays("night", f"m{i}", "mouse", signals={"eeg": {"values": values, "rate": 100.0, "unit": "uV", "kind": "eeg"}})
        bm.preprocess(rec, path / f"s{i}.zarr", lfp_rate=None)
    return path


def test_a_store_that_comes_twice_counts_once(stores, tmp_path, monkeypatch, capsys):
    shutil.copytree(stores / "s0.zarr", tmp_path / "copy.zarr")
    (tmp_path / "link.zarr").symlink_to(stores / "s0.zarr")
    monkeypatch.chdir(stores)
    given = [Path("s0.zarr"), stores, stores / "s1.zarr", tmp_path / "copy.zarr", tmp_path / "link.zarr"]
    found = open_sessions(given, Common())
    assert [s.subject for s in found] == ["m0", "m1"]  # two subjects with recordings of one name are two
    err = capsys.readouterr().err
    assert err.count("comes twice: it counts once") == 3 and "copy.zarr is a copy of s0.zarr" in err
    assert len(open_sessions(given, Common(quiet=True))) == 2 and capsys.readouterr().err == ""


def test_a_folder_that_cannot_be_made_is_refused_and_none_is_left_behind(tmp_path):
    refuse_folder(tmp_path / "runs" / "a")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("x")
    for place, error, says in (
        (tmp_path / "file", OutputExistsError, "is a file"),
        (tmp_path / "file" / "below", StoreError, "no folder can be made"),
        (Path("/proc/nothing"), StoreError, "no folder can be made"),
    ):
        with pytest.raises(error, match=says):
            refuse_folder(place)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("x")
    with pytest.raises(OutputExistsError, match="--overwrite"):
        refuse_folder(tmp_path / "full")
    with pytest.raises(OutputExistsError, match="no saved model"):
        refuse_folder(tmp_path / "full", overwrite=True)
    (tmp_path / "full" / "config.yaml").write_text("")
    refuse_folder(tmp_path / "full", overwrite=True)
    assert (tmp_path / "full" / "precious").is_file()
