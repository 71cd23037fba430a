"""A Kilosort folder as Phy leaves it."""

import numpy as np
import pytest

from brainmu.errors import FormatError, InputError
from brainmu.formats import read, sniff


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "spike_times.npy", np.array([30, 60, 90, 120, 150, 180], dtype=np.uint64).reshape(-1, 1))
    np.save(tmp_path / "spike_clusters.npy", np.array([4, 4, 9, 7, 9, 11], dtype=np.int32))
    np.save(tmp_path / "spike_templates.npy", np.array([0, 0, 1, 2, 1, 2], dtype=np.uint32))
    np.save(tmp_path / "amplitudes.npy", np.array([1.0, 3.0, 5.0, 7.0, 6.0, 2.0]))
    templates = np.zeros((3, 20, 2), dtype=np.float32)
    templates[0, 5, 0], templates[0, 9, 0] = -4, 2
    templates[1, 5, 1], templates[1, 12, 1] = -4, 1
    templates[2, 5, 1] = -1
    np.save(tmp_path / "templates.npy", templates)
    np.save(tmp_path / "channel_positions.npy", np.array([[0.0, 10.0], [16.0, 30.0]]))
    (tmp_path / "params.py").write_text("import os\ndat_path = os.path.join('x', 'y')\nn_channels_dat = 2\nsample_rate = 30000.\nos.remove('never run')\n")
    (tmp_path / "cluster_KSLabel.tsv").write_text("cluster_id\tKSLabel\n4\tgood\n7\tmua\n9\tgood\n11\tgood\n")
    (tmp_path / "cluster_group.tsv").write_text("cluster_id\tgroup\n11\tnoise\n")
    return tmp_path


def test_good_units_with_their_features(folder):
    assert sniff(folder) == "phy"
    rec = read(folder)
    assert rec.spikes is not None
    np.testing.assert_allclose(rec.spikes.times, [0.001, 0.002, 0.003, 0.005])
    assert rec.spikes.unit_id.tolist() == [4, 4, 9, 9]
    columns = ["id", "quality", "amplitude", "peak_channel", "trough_to_peak_samples", "x", "y"]
    assert rec.spikes.units[columns].to_numpy().tolist() == [[4, "good", 2.0, 0, 4, 0.0, 10.0], [9, "good", 5.5, 1, 7, 16.0, 30.0]]
    assert any("left out 2 clusters (1 mua, 1 noise; 2 spikes)" in w for w in rec.warnings)


def test_the_curator_overrules_kilosort(folder):
    rec = read(folder, groups=("good", "mua", "noise"))
    assert rec.spikes is not None
    assert dict(zip(rec.spikes.units["id"], rec.spikes.units["quality"], strict=True)) == {4: "good", 7: "mua", 9: "good", 11: "noise"}
    with pytest.raises(InputError, match=r"no cluster is unsorted, there are 2 good"):
        read(folder, groups="unsorted")


def test_kilosort_alone_without_labels(folder):
    for name in ("spike_clusters.npy", "cluster_KSLabel.tsv", "cluster_group.tsv"):
        (folder / name).unlink()
    rec = read(folder, groups="unsorted")
    assert rec.spikes is not None
    assert rec.spikes.units["id"].tolist() == [0, 1, 2]


def test_damaged_folders(folder):
    (folder / "params.py").write_text("sample_rate = ")
    with pytest.raises(FormatError, match="not readable as Python assignments"):
        read(folder)
    (folder / "params.py").unlink()
    with pytest.raises(FormatError, match=r"sampling rate is unknown .* pass rate=30000"):
        read(folder)
    assert read(folder, rate=15000).duration > 0
    np.save(folder / "spike_clusters.npy", np.array([1, 2]))
    with pytest.raises(FormatError, match="6 spike times and 2 clusters"):
        read(folder, rate=15000)
    np.save(folder / "spike_clusters.npy", np.array([4, 4, 9, 7, 9, 11]))
    (folder / "cluster_group.tsv").write_text("a\tb\n1\t2\n")
    with pytest.raises(FormatError, match="expected cluster_id and group"):
        read(folder, rate=15000)
