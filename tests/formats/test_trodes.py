"""A Trodes position file and MatClust spikes, written byte by byte."""

import numpy as np
import pytest
import scipy.io

from brainmu.errors import FormatError
from brainmu.formats import read, sniff

HEAD = (
    b"<Start settings>\nthreshold: 199\nclockrate: 30000\ncamera resolution: 640x480\npixel scale: %s pix/cm\n"
    b"Fields: <time uint32><xloc uint16><yloc uint16><xloc2 uint16><yloc2 uint16>\n<End settings>\n"
)
DTYPE = [("t", "<u4"), ("x", "<u2"), ("y", "<u2"), ("x2", "<u2"), ("y2", "<u2")]


def _cell(*items):
    out = np.empty((1, len(items)), dtype=object)
    out[0, :] = items
    return out


def _unit(times):
    return {"time": np.array(times, float).reshape(-1, 1), "timerange": np.array([[0.0, 10.0]])}


@pytest.fixture
def folder(tmp_path):
    frames = [(3000, 10, 20, 0, 0), (3500, 11, 21, 0, 0), (3500, 12, 22, 0, 0), (4000, 0, 0, 0, 0), (3900, 13, 23, 0, 0), (6000, 14, 24, 0, 0)]
    (tmp_path / "a.videoPositionTracking").write_bytes(HEAD % b"0" + np.array(frames, dtype=DTYPE).tobytes())
    empty = np.empty((1, 0))
    tetrodes = [_cell(_unit([1.0, 3.0]), empty), empty, _cell(_unit([]), _unit([2.0]))]
    inner = np.empty((1, 3), dtype=object)
    inner[0, :] = tetrodes
    epoch, day = np.empty((1, 1), dtype=object), np.empty((1, 1), dtype=object)
    epoch[0, 0] = inner
    day[0, 0] = epoch
    scipy.io.savemat(tmp_path / "spikes.mat", {"spikes": day})
    return tmp_path


def test_position_keeps_what_the_camera_saw(folder):
    assert sniff(folder) == "trodes"
    rec = read(folder)
    p = rec.signals["position"]
    assert (p.rate, p.unit, p.names, set(p.channels["kind"])) == (None, "px", ["x", "y"], {"position"})
    np.testing.assert_allclose(p.times, np.array([3000, 3500, 4000, 6000]) / 30000)
    np.testing.assert_array_equal(p.read(), [[10, 20], [11, 21], [np.nan, np.nan], [14, 24]])
    said = " ".join(rec.warnings)
    assert "2 of 6 frames repeat or precede" in said
    assert "1 of 4 frames have no position" in said
    assert "position is in px" in said


def test_a_known_scale_gives_metres(folder):
    assert read(folder, pixels_per_cm=2.0).signals["position"].read(0, 1).tolist() == [[pytest.approx(0.05), pytest.approx(0.1)]]
    track = folder / "a.videoPositionTracking"
    track.write_bytes(track.read_bytes().replace(b"scale: 0", b"scale: 2"))
    assert read(folder).signals["position"].unit == "m"


def test_every_unit_that_fired(folder):
    rec = read(folder)
    assert rec.spikes is not None
    assert rec.spikes.units[["id", "day", "epoch", "tetrode", "cell", "n_spikes"]].to_numpy().tolist() == [[0, 1, 1, 1, 1, 2], [1, 1, 1, 3, 2, 1]]
    assert rec.spikes.times.tolist() == [1.0, 2.0, 3.0]
    assert rec.events("sorted_span").stop.tolist() == [10.0]


def test_position_alone(folder):
    (folder / "spikes.mat").unlink()
    rec = read(folder / "a.videoPositionTracking")
    assert rec.spikes is None
    assert any("no spikes.mat" in w for w in rec.warnings)


def test_damaged_files(folder):
    track = folder / "a.videoPositionTracking"
    whole = track.read_bytes()
    for content, message in (
        (whole[:-5], "not whole records of 12 bytes"), (b"x" * 100, "no Trodes header"), (whole.replace(b"<time uint32>", b""), "expected <time uint32>"),
        (whole.replace(b"30000", b"0"), "clockrate is 0"),
    ):  # fmt: skip
        track.write_bytes(content)
        with pytest.raises(FormatError, match=message):
            read(folder)
    track.write_bytes(whole)
    bad = _cell(_unit([1.0, np.nan]))
    scipy.io.savemat(folder / "spikes.mat", {"spikes": bad})
    with pytest.raises(FormatError, match="1 spike times are NaN"):
        read(folder)
    scipy.io.savemat(folder / "other.mat", {"spikes": bad})
    with pytest.raises(FormatError, match="all hold spikes: name one with spikes="):
        read(folder)
