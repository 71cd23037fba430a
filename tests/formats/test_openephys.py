"""Open Ephys recordings written as the GUI documents them: binary of versions 0.5 and 0.6, and the legacy format."""

import json
import pickle
import struct

import numpy as np
import pytest

from brainmu.errors import FormatError
from brainmu.formats import read, read_all, sniff

RNG = np.random.default_rng(0)
X = RNG.integers(-500, 500, (3000, 6)).astype("<i2")
NAMES = ["CH1", "CH2", "CH3", "AUX1", "ADC1", "ADC2"]


def _binary(root, *, experiment=1, recording=1, streams=("Rhythm-100.acq",), modern=True, first=5000, t0=2.5, ppm=0.0, gap=0, synced=True, x=X):
    rate, names = 1000.0, NAMES
    inner = root / "Record Node 101" / f"experiment{experiment}" / f"recording{recording}"
    continuous = []
    for k, stream in enumerate(streams):
        folder = inner / "continuous" / stream
        folder.mkdir(parents=True)
        (folder / "continuous.dat").write_bytes(x.tobytes())
        numbers = first + 70_000 * k + np.arange(len(x)) + np.where(np.arange(len(x)) >= 2000, gap, 0)
        if modern:
            np.save(folder / "sample_numbers.npy", numbers)
            seconds = t0 + (numbers - numbers[0]) / rate / (1 + ppm * 1e-6) if synced or k == 0 else np.full(len(x), -1.0)
            np.save(folder / "timestamps.npy", seconds)
        else:
            np.save(folder / "timestamps.npy", numbers)
        bits = {"CH": (0.195, "uV"), "AUX": (37.4e-6, "V"), "ADC": (152.6e-6, "V")}
        channels = [{"channel_name": n, "bit_volts": bits[n.rstrip("0123456789")][0], "units": bits[n.rstrip("0123456789")][1]} for n in names]
        continuous.append({"folder_name": f"{stream}/", "sample_rate": rate, "stream_name": stream, "num_channels": len(names), "channels": channels})
    about = {"GUI version": "0.6.4" if modern else "0.5.5", "continuous": continuous, "events": [], "spikes": []}
    (inner / "structure.oebin").write_text(json.dumps(about))
    return inner


def _ttl(inner, stream, numbers, states, seconds=None, rate=1000.0):
    folder = inner / "events" / stream / "TTL"
    folder.mkdir(parents=True)
    np.save(folder / ("states.npy" if seconds is not None else "channel_states.npy"), np.array(states, dtype=np.int16))
    if seconds is not None:
        np.save(folder / "sample_numbers.npy", np.array(numbers))
        np.save(folder / "timestamps.npy", np.array(seconds, dtype=float))
    else:
        np.save(folder / "timestamps.npy", np.array(numbers))
    about = json.loads((inner / "structure.oebin").read_text())
    about["events"].append({"folder_name": f"{stream}/TTL/", "sample_rate": rate, "stream_name": stream})
    (inner / "structure.oebin").write_text(json.dumps(about))


def test_binary_on_synchronised_time_stamps(tmp_path):
    inner = _binary(tmp_path, ppm=50.0, x=np.tile(X, (30, 1)))
    _ttl(inner, "Rhythm-100.acq", [5100, 5200, 5300, 5400], [1, 3, -1, -3], seconds=[2.6, 2.7, 2.8, 2.9])
    folder = inner / "events" / "MessageCenter"
    folder.mkdir(parents=True)
    np.save(folder / "text.npy", np.array(["lights off"], dtype="S10"))
    np.save(folder / "sample_numbers.npy", [5000])
    np.save(folder / "timestamps.npy", [3.0])
    about = json.loads((inner / "structure.oebin").read_text())
    about["events"].append({"folder_name": "MessageCenter/"})
    (inner / "structure.oebin").write_text(json.dumps(about))
    assert sniff(tmp_path) == "openephys"
    rec = read(tmp_path)
    lfp = rec.signals["lfp"]
    assert (lfp.names, lfp.unit, lfp.clock, lfp.start) == (["CH1", "CH2", "CH3"], "uV", "session", 2.5)
    assert lfp.rate == pytest.approx(1000 * (1 + 50e-6), rel=1e-8)
    assert any("+50.00 ppm" in w for w in rec.warnings)
    np.testing.assert_allclose(lfp.read(10, 500), X[10:500, :3] * 0.195, rtol=1e-5)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(lfp.values))[5:9], X[5:9, :3])
    np.testing.assert_allclose(rec.signals["Rhythm-100.acq_adc"].read(0, 5), X[:5, 4:] * 152.6, rtol=1e-5)
    assert rec.signals["Rhythm-100.acq_aux"].names == ["AUX1"]
    assert (rec.events("ttl_1").start.tolist(), rec.events("ttl_1").stop.tolist(), rec.events("ttl_3").stop.tolist()) == ([2.6], [2.8], [2.9])
    assert (rec.events("messages").content.tolist(), rec.events("messages").start.tolist()) == (["lights off"], [3.0])


def test_gaps_and_several_recordings(tmp_path):
    _binary(tmp_path, gap=500)
    _binary(tmp_path, recording=2, first=20_000, t0=17.5)
    lfp = read(tmp_path).signals["lfp"]
    np.testing.assert_allclose(lfp.gaps.bounds, [[4.5, 5.0], [6.0, 17.5]])
    np.testing.assert_allclose(lfp.span(5.0, 5.01)[1][0], X[2000, :3] * 0.195, rtol=1e-5)
    np.testing.assert_allclose(lfp.span(17.5, 17.51)[1][0], X[0, :3] * 0.195, rtol=1e-5)
    _binary(tmp_path, recording=3, first=0, t0=0.0)
    with pytest.raises(FormatError, match="overlap in time"):
        read(tmp_path)


def test_streams_without_synchronised_stamps_have_clocks_of_their_own(tmp_path):
    inner = _binary(tmp_path / "a", streams=("NP-100.ProbeA-AP", "NP-100.ProbeA-LFP", "NI-102.PXI"), synced=False)
    _ttl(inner, "NI-102.PXI", [150_000, 150_500], [1, -1], seconds=[-1, -1])
    rec = read(tmp_path / "a", wideband=True)
    assert {n: s.clock for n, s in rec.signals.items() if s.names == ["CH1", "CH2", "CH3"]} == {
        "lfp": "session", "NP-100.ProbeA-LFP": "session", "NI-102.PXI": "NI-102.PXI",
    }  # fmt: skip
    assert (rec.events("ttl_1").start.tolist(), rec.events("ttl_1").attrs["clock"]) == ([150.0], "NI-102.PXI")
    assert any("clock of its own" in w for w in rec.warnings)
    assert "spike band" in read(tmp_path / "a").source["notes"]


def test_version_0_5_counts_in_samples(tmp_path):
    inner = _binary(tmp_path, modern=False)
    _ttl(inner, "Rhythm-100.acq", [6000, 6100, 7000], [2, -2, 2])
    rec = read(tmp_path)
    assert (rec.signals["lfp"].start, rec.signals["lfp"].rate) == (5.0, 1000)
    assert (rec.events("ttl_2").start.tolist(), rec.events("ttl_2").stop.tolist(), rec.events("ttl_2").attrs["open_stop"]) == ([6, 7], [6.1, 8], 1)


def test_spikes_of_the_binary_format(tmp_path):
    inner = _binary(tmp_path)
    folder = inner / "spikes" / "Rhythm-100.acq" / "Tetrode_1"
    folder.mkdir(parents=True)
    np.save(folder / "sample_numbers.npy", [5100, 5200, 5300])
    np.save(folder / "timestamps.npy", [2.6, 2.7, 2.8])
    np.save(folder / "clusters.npy", np.array([0, 2, 2], dtype=np.uint16))
    about = json.loads((inner / "structure.oebin").read_text())
    about["spikes"].append({"folder": "Rhythm-100.acq/Tetrode_1", "name": "Tetrode 1", "sample_rate": 1000})
    (inner / "structure.oebin").write_text(json.dumps(about))
    rec = read(tmp_path)
    assert rec.spikes is not None
    assert rec.spikes.units[["cluster", "quality"]].to_numpy().tolist() == [[0, "unsorted"], [2, "online"]]
    assert rec.spikes.of(1).tolist() == [2.7, 2.8]


def test_experiments_are_recordings_of_their_own(tmp_path):
    _binary(tmp_path)
    _binary(tmp_path, experiment=2)
    assert [r.id for r in read_all(tmp_path)] == ["experiment1", "experiment2"]
    with pytest.raises(FormatError, match="several recordings"):
        read(tmp_path)


def test_damaged_binary(tmp_path):
    inner = _binary(tmp_path)
    dat = inner / "continuous" / "Rhythm-100.acq" / "continuous.dat"
    dat.write_bytes(X.tobytes()[:-1000])
    rec = read(tmp_path)
    assert any("the shorter counts" in w for w in rec.warnings)
    assert rec.signals["lfp"].n_samples == 2916
    numbers = np.load(inner / "continuous" / "Rhythm-100.acq" / "sample_numbers.npy")
    np.save(inner / "continuous" / "Rhythm-100.acq" / "sample_numbers.npy", numbers[::-1])
    with pytest.raises(FormatError, match="go backwards"):
        read(tmp_path)
    (inner / "continuous" / "Rhythm-100.acq" / "sample_numbers.npy").write_bytes(b"x")
    with pytest.raises(FormatError, match=r"not readable as \.npy"):
        read(tmp_path)
    dat.unlink()
    with pytest.raises(FormatError, match="no stream whose folder is there"):
        read(tmp_path)
    about = json.loads((inner / "structure.oebin").read_text())
    for broken in ([1], about | {"continuous": [{"folder_name": "x"}]}, about | {"events": [{}]}):
        (inner / "structure.oebin").write_text(json.dumps(broken))
        with pytest.raises(FormatError, match=r"structure\.oebin: (a continuous stream lacks|an entry of events lacks|holds a list)"):
            read(tmp_path)
    (inner / "structure.oebin").write_text("{")
    with pytest.raises(FormatError, match="not readable as JSON"):
        read(tmp_path)


# -- legacy ---------------------------------------------------------------------------------------------------------
def _head(rate=1000, **more):
    lines = {
        "format": "'Open Ephys Data Format'",
        "version": "0.4",
        "date_created": "'1-May-2024 10000'",
        "header_bytes": 1024,
        "sampleRate": rate,
        "bitVolts": 0.195,
        **more,
    }
    return "".join(f"header.{k} = {v};\n" for k, v in lines.items()).encode().ljust(1024, b" ")


def _continuous(path, x, first=4096, gap_after=None, **more):
    body = b""
    for k in range(len(x) // 1024):
        stamp = first + 1024 * k + (3000 if gap_after is not None and k >= gap_after else 0)
        body += struct.pack("<qHH", stamp, 1024, 0) + x[k * 1024 : (k + 1) * 1024].astype(">i2").tobytes() + bytes([0, 1, 2, 3, 4, 5, 6, 7, 8, 255])
    path.write_bytes(_head(**more) + body)


def _legacy(folder, gap_after=None):
    folder.mkdir(exist_ok=True)
    x = RNG.integers(-500, 500, (4096, 3)).astype("<i2")
    for k, name in enumerate(("CH2", "CH10", "ADC1")):
        _continuous(folder / f"100_{name}.continuous", x[:, k], gap_after=gap_after, bitVolts=0.195 if k < 2 else 0.00015258789)
    event = np.zeros(4, dtype=[("t", "<i8"), ("p", "<i2"), ("type", "u1"), ("proc", "u1"), ("id", "u1"), ("ch", "u1"), ("rec", "<u2")])
    event["t"], event["type"], event["id"], event["ch"], event["proc"] = [5000, 5100, 5200, 5300], [3, 3, 5, 3], [1, 0, 1, 1], [4, 4, 0, 4], 100
    (folder / "all_channels.events").write_bytes(_head() + event.tobytes())
    (folder / "messages.events").write_text("5000 start\n")
    return x


def test_legacy(tmp_path):
    x = _legacy(tmp_path / "rec")
    assert sniff(tmp_path / "rec") == "openephys"
    rec = read(tmp_path / "rec")
    lfp = rec.signals["lfp"]
    assert rec.source["system"] == "Open Ephys legacy"
    assert (lfp.names, lfp.rate, lfp.start, lfp.unit, lfp.values.dtype) == (["CH2", "CH10"], 1000, 4.096, "uV", np.int16)
    np.testing.assert_allclose(lfp.read(1000, 3000), x[1000:3000, :2] * 0.195, rtol=1e-5)
    np.testing.assert_allclose(rec.signals["ADC"].read(0, 3)[:, 0], x[:3, 2] * 152.58789, rtol=1e-5)
    e = rec.events("ttl_4")
    np.testing.assert_allclose(np.c_[e.start, e.stop], [[5.0, 5.1], [5.3, lfp.stop]])


def test_legacy_as_neo_reads_it(tmp_path):
    from neo.rawio import OpenEphysRawIO

    _legacy(tmp_path / "rec")
    raw = OpenEphysRawIO(str(tmp_path / "rec"))
    raw.parse_header()
    theirs = raw.rescale_signal_raw_to_float(raw.get_analogsignal_chunk(stream_index=0), dtype="float64", stream_index=0)
    np.testing.assert_allclose(read(tmp_path / "rec").signals["lfp"].read(), theirs, rtol=1e-5)


def test_legacy_gaps_parts_and_spikes(tmp_path):
    folder = tmp_path / "rec"
    x = _legacy(folder, gap_after=2)
    layout = np.dtype([
        ("type", "u1"), ("t", "<i8"), ("s", "<i8"), ("src", "<u2"), ("nc", "<u2"), ("ns", "<u2"), ("sorted", "<u2"), ("e", "<u2"), ("c", "<u2"),
        ("col", "u1", 3), ("pca", "<f4", 2), ("rate", "<u2"), ("w", "<u2", (4, 40)), ("g", "<f4", 4), ("th", "<u2", 4), ("rec", "<u2"),
    ])  # fmt: skip
    spikes = np.zeros(3, dtype=layout)
    spikes["t"], spikes["nc"], spikes["ns"], spikes["sorted"] = [4200, 4300, 4400], 4, 40, [0, 1, 1]
    (folder / "TT0.spikes").write_bytes(_head() + spikes.tobytes())
    rec = read(folder)
    lfp = rec.signals["lfp"]
    np.testing.assert_allclose(lfp.gaps.bounds, [[6.144, 9.144]])
    np.testing.assert_allclose(lfp.read(2048 + 3000, 2048 + 3100), x[2048:2148, :2] * 0.195, rtol=1e-5)
    assert rec.spikes is not None
    assert (rec.spikes.units["quality"].tolist(), rec.spikes.of(1).tolist()) == (["unsorted", "online"], [4.3, 4.4])
    for k, name in enumerate(("CH2", "CH10", "ADC1")):
        _continuous(folder / f"100_{name}_2.continuous", x[:, k], first=20_000)
    np.testing.assert_allclose(read(folder).signals["lfp"].gaps.bounds, [[6.144, 9.144], [11.192, 20.0]])


def test_damaged_legacy(tmp_path):
    folder = tmp_path / "rec"
    _legacy(folder)
    path = folder / "100_CH2.continuous"
    whole = path.read_bytes()
    damaged = [(whole[:500], "has no header"), (whole[:1500], "no whole record"), (b"", "is empty"), (whole[:1024] + bytes(2070), "not end with the mark")]
    for content, message in damaged:
        path.write_bytes(content)
        with pytest.raises(FormatError, match=message) as caught:
            read(folder)
        assert "\n" not in str(caught.value)
    _continuous(path, X[:2048, 0], gap_after=1)
    with pytest.raises(FormatError, match="gaps lie elsewhere"):
        read(folder)
