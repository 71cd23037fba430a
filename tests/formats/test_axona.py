"""An Axona session written byte by byte: LFP, wide band, position, tetrodes with cuts, digital inputs, keys, stimulation."""

import struct

import numpy as np
import pytest

from brainmu.errors import FormatError
from brainmu.formats import read, sniff

RNG = np.random.default_rng(0)


def _file(path, header, data):
    path.write_bytes("".join(f"{k} {v}\r\n" for k, v in header.items()).encode("cp1252") + b"data_start" + data + b"\r\ndata_end\r\n")


@pytest.fixture
def session(tmp_path):
    gains = "".join(f"gain_ch_{i} {[8000, 4000][i % 2]}\r\n" for i in range(64))
    (tmp_path / "r1 open.set").write_bytes(
        (
            "trial_date Tuesday, 14 Dec 2010\r\ntrial_time 10:44:07\r\nduration 20\r\nADC_fullscale_mv 1500\r\nrawRate 48000\r\n"
            + "".join(f"collectMask_{t} {int(t in (1, 3))}\r\n" for t in range(1, 17))
            + f"{gains}EEG_ch_1 5\r\nsaveEEG_ch_1 1\r\nEEG_ch_2 6\r\n"
        ).encode("cp1252")
    )
    data = {
        "eeg": RNG.integers(-128, 128, 5000).astype("i1"),
        "eeg2": RNG.integers(-128, 128, 5000).astype("i1"),
        "egf": RNG.integers(-3000, 3000, 96000).astype("<i2"),
    }
    for suffix in ("eeg", "eeg2"):
        head = {"sample_rate": "250.0 hz", "bytes_per_sample": 1, "num_EEG_samples": 5000}
        _file(tmp_path / f"r1 open.{suffix}", head, data[suffix].tobytes())
    _file(tmp_path / "r1 open.egf", {"sample_rate": "4800 hz", "bytes_per_sample": 2, "num_EGF_samples": 96000}, data["egf"].tobytes())
    xy = RNG.integers(100, 600, (1000, 4))
    xy[10] = 1023
    body = b"".join(struct.pack(">I8H", k, *xy[k], 20, 20, 40, 0) for k in range(1000))
    head = {"timebase": "50 hz", "sample_rate": "50.0 hz", "bytes_per_timestamp": 4, "bytes_per_coord": 2, "pixels_per_metre": 500,
            "pos_format": "t,x1,y1,x2,y2,numpix1,numpix2", "num_pos_samples": 1000}  # fmt: skip
    _file(tmp_path / "r1 open.pos", head, body)
    data["xy"] = xy
    stamps = np.sort(RNG.integers(0, 20 * 96000, 30))
    wave = np.round(100 * np.exp(-0.5 * ((np.arange(50) - 12) / 2.0) ** 2) - 40 * np.exp(-0.5 * ((np.arange(50) - 30) / 4.0) ** 2)).astype("i1")
    spikes = b"".join(struct.pack(">I", t) + (wave // [2, 1, 3, 4][c]).astype("i1").tobytes() for t in stamps for c in range(4))
    for tetrode in (1, 3):
        head = {"num_spikes": 30, "num_chans": 4, "timebase": "96000 hz", "bytes_per_timestamp": 4, "samples_per_spike": 50, "sample_rate": "48000 hz"}
        _file(tmp_path / f"r1 open.{tetrode}", head, spikes)
    clusters = np.tile([0, 1, 2], 10)
    cut = f"n_clusters: 3\nn_channels: 4\ncluster: 0 center: 1\nExact_cut_for: r1 open spikes: 30\n{' '.join(map(str, clusters))}\n"
    (tmp_path / "r1 open_1.cut").write_text(cut)
    data |= {"stamps": stamps, "clusters": clusters}
    inputs = [(1000, b"I", 1), (1500, b"I", 5), (2000, b"I", 4), (2500, b"K", ord("z")), (3000, b"I", 0)]
    _file(tmp_path / "r1 open.inp", {"timebase": "1000 hz", "num_inp_samples": 5}, b"".join(struct.pack(">IsH", *i) for i in inputs))
    _file(tmp_path / "r1 open.stm", {"timebase": "1000 hz", "num_stm_samples": 2}, struct.pack(">II", 5000, 6000))
    return tmp_path, data


def test_lfp_from_a_session_without_bin(session):
    folder, data = session
    assert sniff(folder) == "axona"
    rec = read(folder)
    lfp, low = rec.signals["lfp"], rec.signals["lfp_250Hz"]
    assert (lfp.rate, lfp.names, lfp.unit, low.rate, low.names) == (4800, ["ch5"], "uV", 250, ["ch6"])
    np.testing.assert_allclose(lfp.read(1000, 2000)[:, 0], data["egf"][1000:2000] * (1.5e6 / 8000 / 32768), rtol=1e-5)
    np.testing.assert_allclose(low.read()[:, 0], data["eeg2"] * (1.5e6 / 4000 / 128), rtol=1e-5)
    assert "repeat the .egf" in rec.source["notes"]
    assert rec.source["started_at_local"] == "Tuesday, 14 Dec 2010 10:44:07"


def test_position_in_metres(session):
    folder, data = session
    rec = read(folder)
    p = rec.signals["position"]
    assert (p.rate, p.unit, p.names, len(rec.signals["position_2"].channels)) == (50, "m", ["x", "y"], 2)
    assert np.isnan(p.read(10, 11)).all()
    np.testing.assert_allclose(p.read(11, 50), data["xy"][11:50, :2] / 500, rtol=1e-5)


def test_units_of_a_cut(session):
    folder, data = session
    rec = read(folder)
    assert rec.spikes is not None
    u = rec.spikes.units
    assert u[["group", "cluster", "quality", "n_spikes", "peak_channel"]].to_numpy().tolist() == [
        [1, 1, "good", 10, 1], [1, 2, "good", 10, 1], [3, 0, "mua", 30, 9],
    ]  # fmt: skip
    np.testing.assert_allclose(u["trough_to_peak_ms"], 18 / 48, atol=0.03)
    np.testing.assert_allclose(u["amplitude"], 140 * 1.5e6 / 4000 / 128, rtol=0.02)
    np.testing.assert_allclose(rec.spikes.of(0), data["stamps"][data["clusters"] == 1] / 96000)
    assert any("left out 10 of cluster 0" in w for w in rec.warnings)
    assert any("tetrode 3: no .cut" in w for w in rec.warnings)
    assert read(folder, mua=True).spikes.n_units == 4
    (folder / "r1 open.clu.3").write_text("3\n" + "\n".join(["1", "2", "3"] * 10))
    assert read(folder).spikes.units["cluster"].tolist() == [1, 2, 2, 3]


def test_inputs_keys_and_stimulation(session):
    rec = read(session[0])
    assert (rec.events("ttl_0").start.tolist(), rec.events("ttl_0").stop.tolist()) == ([1.0], [2.0])
    assert (rec.events("ttl_2").start.tolist(), rec.events("ttl_2").stop.tolist()) == ([1.5], [3.0])
    assert (rec.events("keys").content.tolist(), rec.events("stim").start.tolist()) == (["z"], [5.0, 6.0])


def test_wide_band_as_neo_reads_it(session):
    from neo.rawio import AxonaRawIO

    folder, _ = session
    counts = RNG.integers(-3000, 3000, (40, 192)).astype("<i2")
    (folder / "r1 open.bin").write_bytes(b"".join(b"ADU1" + struct.pack("<I", k) + bytes(24) + counts[k].tobytes() + bytes(16) for k in range(40)))
    assert "wideband=True" in read(folder).source["notes"]
    wide = read(folder, wideband=True).signals["wideband"]
    assert (wide.rate, wide.n_samples, wide.names[:5]) == (48000, 120, ["ch1", "ch2", "ch3", "ch4", "ch9"])
    for i in (1, 3):
        (folder / f"r1 open.{i}").unlink()
    # Neo numbers the collected channels from the first; its packets are compared for tetrode 1, which is first in both.
    raw = AxonaRawIO(str(folder / "r1 open.bin"))
    raw.parse_header()
    theirs = raw.get_analogsignal_chunk(stream_index=0, channel_indexes=[0, 1, 2, 3])
    np.testing.assert_array_equal(wide.values[:, :4], theirs)
    np.testing.assert_allclose(wide.read(0, 5)[:, 0], theirs[:5, 0] * (1.5e6 / 8000 / 32768), rtol=1e-5)
    for suffix in ("eeg", "eeg2", "egf"):
        (folder / f"r1 open.{suffix}").unlink()
    assert read(folder).signals["lfp"].rate == 48000


def test_damaged_sessions(session):
    folder, _ = session
    path = folder / "r1 open.egf"
    whole = path.read_bytes()
    for content, message in ((whole[:-5000], "holds .* of the 96000 records"), (b"something", "no data_start"), (b"", "is empty")):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=message) as caught:
            read(folder)
        assert "\n" not in str(caught.value)
    path.write_bytes(whole)
    (folder / "r1 open_1.cut").write_text("Exact_cut_for: x spikes: 30\n1 2 3\n")
    with pytest.raises(FormatError, match="3 clusters for 30 spikes"):
        read(folder)
    (folder / "r1 open_1.cut").unlink()
    (folder / "r1 open.set").write_text("trial_date x\nADC_fullscale_mv 1500\n")
    with pytest.raises(FormatError, match="names no gain"):
        read(folder)
    for p in folder.iterdir():
        if p.suffix != ".set":
            p.unlink()
    with pytest.raises(FormatError, match="copy the whole session"):
        read(folder)
