"""The drafted manifest sees what is there, asks for the rest, and reads once it is filled in."""

import re

import numpy as np
import pytest

from brainmu.errors import BrainmuError, FormatError, NotFoundError
from brainmu.formats import draft_manifest, read, read_all


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for run, n in (("day1", 4000), ("day2", 8000)):
        np.save(tmp_path / f"EEG_{run}.npy", rng.standard_normal(n))
        np.save(tmp_path / f"EMG_{run}.npy", rng.standard_normal((2, n)))
        np.save(tmp_path / f"States_{run}.npy", rng.integers(1, 4, n // 800))
    np.savez(tmp_path / "spikes_day1.npz", times=np.sort(rng.random(50)), cluster=rng.integers(0, 3, 50))
    (tmp_path / "LICENSE.txt").write_text("MIT License\n\nCopyright (c) nobody\n")
    return tmp_path


def test_draft_reads_once_filled_in(folder):
    text = draft_manifest(folder)
    (folder / "brainmu.yaml").write_text(text)
    with pytest.raises(BrainmuError, match="line"):
        read_all(folder)
    filled = re.sub(r"rate: +#.*", "rate: 200", text)
    filled = re.sub(r"unit: +# <- FILL IN: uV.*", "unit: uV", filled)
    filled = re.sub(r"epoch: +#.*", "epoch: 4", filled)
    filled = re.sub(r"map: \{\} +#.*", "map: {1: WAKE, 2: NREM, 3: REM}", filled)
    (folder / "brainmu.yaml").write_text(filled)
    one, two = read_all(folder)
    assert [one.id, two.id] == ["day1", "day2"]
    assert one.signals["eeg"].duration == 20
    assert one.signals["emg"].n_channels == 2
    assert len(two.hypnogram()) == 10
    assert one.spikes is not None
    assert len(one.spikes) == 50
    assert two.spikes is None
    assert read(folder, recording="day2").labels.keys() == {"scoring"}


def test_draft_tells_what_it_sees(folder):
    text = draft_manifest(folder)
    assert "(800 samples an epoch)" in text
    assert re.search(r"it holds 1 \(\d+\), 2 \(\d+\), 3 \(\d+\)|it holds", text)
    assert "LICENSE" not in text
    assert "transpose: true" in text


def test_alike_files_become_one_pattern(tmp_path):
    for i in range(5):
        np.savez(tmp_path / f"m{i}__1.npz", features=np.zeros((10, 3, 2)), labels=np.zeros(10, int), onsets=np.arange(10.0) * 30)
    text = draft_manifest(tmp_path)
    assert 'each: "{subject}__{session}.npz"' in text
    assert "flatten: true" in text
    assert 'times: {file: "{subject}__{session}.npz", key: onsets}' in text


def test_what_cannot_be_drafted(tmp_path):
    with pytest.raises(FormatError, match="holds no array file"):
        draft_manifest(tmp_path)
    with pytest.raises(NotFoundError, match="no such folder"):
        draft_manifest(tmp_path / "no")
    (tmp_path / "f").write_text("x")
    with pytest.raises(FormatError, match="is a file"):
        draft_manifest(tmp_path / "f")
