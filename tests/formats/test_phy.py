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


def test_features_of_the_units(folder):
    np.save(folder / "channel_map.npy", np.array([[40], [41]]))
    np.save(folder / "channel_shanks.npy", np.array([1.0, 2.0]))
    (folder / "cluster_ContamPct.tsv").write_text("cluster_id\tContamPct\n4\t1.5\n9\t20.0\n")
    (folder / "cluster_region.tsv").write_text("cluster_id\tregion\n9\tCA1\n")
    units = read(folder, start=100.0).spikes.units
    np.testing.assert_allclose(units["trough_to_peak_ms"], [4 / 30, 7 / 30])
    assert units[["source_channel", "group", "contamination_percent", "region"]].to_numpy().tolist() == [[40, 1, 1.5, ""], [41, 2, 20.0, "CA1"]]
    np.testing.assert_allclose(units["depth"], [10.0, 30.0])
    assert read(folder, start=100.0).spikes.times[0] == pytest.approx(100.001)
    # Kilosort 4 knows where each spike was.
    np.save(folder / "spike_positions.npy", np.c_[np.full(6, 5.0), [11, 13, 30, 0, 32, 0]])
    np.testing.assert_allclose(read(folder).spikes.units["depth"], [12.0, 31.0])
    np.save(folder / "spike_positions.npy", np.zeros((4, 2)))
    assert any("spike_positions.npy has the shape" in w for w in read(folder).warnings)


def test_sparse_templates_name_their_channels(folder):
    np.save(folder / "templates_ind.npy", np.array([[1, 0], [0, 1], [0, 1]]))
    assert read(folder).spikes.units["peak_channel"].tolist() == [1, 1]


def test_the_folder_that_a_sorter_made_around_it(folder, tmp_path_factory):
    outer = tmp_path_factory.mktemp("probe0")
    folder.rename(outer / "kilosort4")
    assert sniff(outer) == "phy"
    assert (read(outer).spikes.n_units, read(outer).id) == (2, outer.name)


def test_recordings_that_were_joined_for_sorting(folder):
    params = (folder / "params.py").read_text().replace("dat_path = os.path.join('x', 'y')", "dat_path = ['a.dat', 'b.dat']") + "dtype = 'int16'\noffset = 0\n"
    (folder / "params.py").write_text(params)
    assert any("not all of their files are here" in w for w in read(folder).warnings)
    for name, n in (("a.dat", 60), ("b.dat", 90)):
        (folder / name).write_bytes(bytes(2 * 2 * n))
    e = read(folder).events("recordings")
    np.testing.assert_allclose(np.c_[e.start, e.stop], [[0, 0.002], [0.002, 0.005]])
    assert e.content.tolist() == ["a.dat", "b.dat"]


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
