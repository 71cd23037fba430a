"""Acquisition systems through Neo, on small recordings written as each system documents its files."""

import gc
import pickle
import struct
import warnings

import numpy as np
import pytest

from brainmu.errors import FormatError
from brainmu.formats import read, read_all, sniff

X = np.random.default_rng(0).integers(-500, 500, (3000, 4)).astype("<i2")


@pytest.fixture(autouse=True)
def _files_that_neo_leaves_open():
    """Neo's readers have no close(); what they leave open is collected here, where the ResourceWarning is known to be theirs."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def _spikeglx(folder, bands=("ap", "lf"), device="imec0"):
    folder.mkdir()
    for band in bands:
        rate = 30000 if band == "ap" else 2500
        (folder / f"run_g0_t0.{device}.{band}.bin").write_bytes(X.tobytes())
        snap = {"ap": "3,0,1", "lf": "0,3,1"}[band]
        gains = "(0 0 0 500 250 1)(1 0 0 500 250 1)(2 0 0 500 250 1)"
        names = "".join(f"({band.upper()}{i};{i}:{i})" for i in range(3)) + "(SY0;384:3)"
        (folder / f"run_g0_t0.{device}.{band}.meta").write_text(
            f"fileName=run_g0_t0.{device}.{band}.bin\nfileSizeBytes={X.nbytes}\nfileTimeSecs={3000 / rate}\nimAiRangeMax=0.6\nimAiRangeMin=-0.6\nimMaxInt=512\n"
            f"imSampRate={rate}\nnSavedChans=4\nsnsApLfSy={snap}\nacqApLfSy=384,384,1\nsnsSaveChanSubset=0:2,768\ntypeThis=imec\nimDatPrb_type=0\nimDatPrb_pn=PRB_1_4_0480_1\n"
            f"firstSample=0\n~imroTbl=(0,3){gains}\n~snsChanMap=(384,384,1){names}\n"
        )
    return folder


def test_spikeglx(tmp_path):
    folder = _spikeglx(tmp_path / "run_g0_imec0")
    assert sniff(folder) == "neo"
    rec = read(folder)
    assert rec.source["system"] == "SpikeGLX"
    lfp = rec.signals["lfp"]
    assert (lfp.rate, lfp.n_channels, lfp.unit, set(lfp.channels["kind"])) == (2500, 3, "uV", {"lfp"})
    # 0.6 V over 512 steps, amplified 250 times.
    np.testing.assert_allclose(lfp.read(100, 200), X[100:200, :3] * (0.6 / 512 / 250 * 1e6), rtol=1e-5)
    assert "spike band" in rec.source["notes"]
    both = read(folder, wideband=True)
    assert {s.rate for s in both.signals.values()} == {2500, 30000}
    again = pickle.loads(pickle.dumps(lfp.values))
    np.testing.assert_array_equal(again[5:9], X[5:9, :3])


def _ncs(path, name, channel, gap_at=None):
    header = (
        f"######## Neuralynx Data File Header\r\n-FileType NCS\r\n-FileVersion 3.4\r\n-RecordSize 1044\r\n-HardwareSubSystemType DigitalLynxSX\r\n"
        f"-AcqEntName {name}\r\n"
        f"-SamplingFrequency 2000\r\n-ADMaxValue 32767\r\n-ADBitVolts 0.000000061037020770982053\r\n-NumADChannels 1\r\n-ADChannel {channel}\r\n"
        "-InputRange 2000\r\n-InputInverted True\r\n-TimeCreated 2024/05/01 10:00:00\r\n-TimeClosed 2024/05/01 10:10:00\r\n"
        "-ApplicationName Cheetah \"6.3.2\"\r\n"
    )  # fmt: skip
    body = b""
    for k in range(5):
        start = 1_000_000 + k * 256_000 + (2_000_000 if gap_at is not None and k >= gap_at else 0)
        body += struct.pack("<QIII", start, channel, 2000, 512) + X[k * 512 : (k + 1) * 512, channel].tobytes()
    path.write_bytes(header.encode("latin-1").ljust(16384, b"\0") + body)


def test_neuralynx_with_a_gap(tmp_path):
    for c in range(2):
        _ncs(tmp_path / f"CSC{c}.ncs", f"CSC{c}", c, gap_at=3)
    rec = read(tmp_path)
    assert rec.source["system"] == "Neuralynx"
    lfp = rec.signals["lfp"]
    assert (lfp.rate, lfp.names, lfp.unit) == (2000, ["CSC0", "CSC1"], "uV")
    assert len(lfp.gaps) == 1
    assert lfp.gaps.duration == pytest.approx(2.0, abs=1e-3)
    sign = np.sign(lfp.read(0, 1)[0, 0] / X[0, 0])
    np.testing.assert_allclose(lfp.read(0, 1536), sign * X[:1536, :2] * 0.061037, rtol=1e-4)
    np.testing.assert_allclose(lfp.read(lfp.n_samples - 512)[:, 0], sign * X[4 * 512 : 5 * 512, 0] * 0.061037, rtol=1e-4)
    assert np.isnan(lfp.read(2000, 5000)).all()


def test_blackrock(tmp_path):
    head = b"NEURALCD" + struct.pack("<BBI16s256sII8HI", 2, 3, 314 + 2 * 66, b"1 kS/s", b"", 30, 30000, 2024, 5, 3, 1, 10, 0, 0, 0, 2)
    for c in range(2):
        head += b"CC" + struct.pack("<H16sBBhhhh16sIIHIIH", c + 1, f"ch{c}".encode(), 1, c, -32764, 32764, -8191, 8191, b"uV", 0, 0, 0, 0, 0, 0)
    body = struct.pack("<BII", 1, 0, 3000) + X[:, :2].tobytes()
    (tmp_path / "d.ns2").write_bytes(head + body)
    rec = read_all(tmp_path)[0]
    assert rec.source["system"] == "Blackrock"
    (lfp,) = rec.signals.values()
    assert (lfp.rate, lfp.n_channels, lfp.unit) == (1000, 2, "uV")
    np.testing.assert_allclose(lfp.read(5, 50), X[5:50, :2] * (8191 / 32764), rtol=1e-4)


def test_spikeglx_sync_word_becomes_pulses_on_the_clock_of_each_device(tmp_path):
    folder = tmp_path / "run_g0"
    folder.mkdir()
    for device, start in (("imec0", 100), ("imec1", 130)):
        x = X.copy()
        x[:, 3] = 0
        x[start : start + 50, 3] = 64
        inner = _spikeglx(folder / f"run_g0_{device}", device=device)
        for band in ("ap", "lf"):
            (inner / f"run_g0_t0.{device}.{band}.bin").write_bytes(x.tobytes())
    word = np.zeros((5000, 3), dtype="<i2")
    word[:, :2] = 100
    word[200:300, 2] = 5
    word[250:300, 2] = 4
    (folder / "run_g0_t0.nidq.bin").write_bytes(word.tobytes())
    (folder / "run_g0_t0.nidq.meta").write_text(
        "fileName=run_g0_t0.nidq.bin\n"
        f"fileSizeBytes={word.nbytes}\nfileTimeSecs=0.5\nniSampRate=10000\nniAiRangeMax=5\nniAiRangeMin=-5\nniMNGain=200\nniMAGain=1\n"
        "nSavedChans=3\nsnsMnMaXaDw=0,0,2,1\nsnsSaveChanSubset=all\ntypeThis=nidq\nfirstSample=0\nniXDBytes1=1\nniXDChans1=0:7\n"
        "~snsChanMap=(0,0,1,1,1)(XA0;0:0)(XA1;1:1)(XD0;2:2)\n"
    )
    rec = read(folder)
    assert rec.signals["lfp"].clock == "session"
    assert {s.attrs["stream"]: s.clock for s in rec.signals.values() if s.attrs["stream"] != "imec0.lf"} == {"imec1.lf": "imec1", "nidq": "nidq"}
    # The word is read from the faster band.
    np.testing.assert_allclose(rec.events("ttl_imec0_6").start, [100 / 30000])
    np.testing.assert_allclose(rec.events("ttl_imec1_6").stop, [180 / 30000])
    assert (rec.events("ttl_imec0_6").attrs["clock"], rec.events("ttl_imec1_6").attrs["clock"]) == ("session", "imec1")
    np.testing.assert_allclose(np.c_[rec.events("ttl_nidq_0").start, rec.events("ttl_nidq_0").stop], [[0.02, 0.025]])
    np.testing.assert_allclose(np.c_[rec.events("ttl_nidq_2").start, rec.events("ttl_nidq_2").stop], [[0.02, 0.03]])
    np.testing.assert_allclose(rec.signals["nidq"].read(0, 1), 100 * 5 / 32768 * 1e6, rtol=1e-5)
    assert any("imec1, nidq: each runs on a clock of its own" in w for w in rec.warnings)
    without = read(folder, ttl=False)
    assert not without.labels
    assert "sync" in set(np.concatenate([s.channels["kind"] for s in without.signals.values()]))


def _neuralynx_head(kind, name, size, **more):
    lines = {"FileType": kind, "FileVersion": "3.4", "RecordSize": size, "HardwareSubSystemType": "DigitalLynxSX", "AcqEntName": name,
             "SamplingFrequency": 32000,
             "ADMaxValue": 32767, "ADBitVolts": "0.000000061037020770982053", "NumADChannels": 1, "ADChannel": 0, "InputRange": 2000, "InputInverted": "True",
             "TimeCreated": "2024/05/01 10:00:00", "TimeClosed": "2024/05/01 10:10:00", "ApplicationName": 'Cheetah "6.3.2"'} | more  # fmt: skip
    lines = {k: v for k, v in lines.items() if v is not None}
    text = "######## Neuralynx Data File Header\r\n" + "".join(f"-{k} {v}\r\n" for k, v in lines.items())
    return text.encode("latin-1").ljust(16384, b"\0")


def test_neuralynx_spikes_events_and_video(tmp_path):
    for c in range(2):
        _ncs(tmp_path / f"CSC{c}.ncs", f"CSC{c}", c)
    spike = np.dtype([("t", "<u8"), ("ch", "<u4"), ("unit", "<u4"), ("f", "<i4", 8), ("w", "<i2", (32, 4))])
    s = np.zeros(4, spike)
    s["t"], s["unit"], s["ch"] = [1_100_000, 1_200_000, 1_300_000, 1_400_000], [0, 1, 1, 2], 5
    volts = "0.00000006 0.00000006 0.00000006 0.00000006"
    head = _neuralynx_head("Spike", "TT1", spike.itemsize, NumADChannels=4, ADChannel="5 6 7 8", ADBitVolts=volts, InputRange="250 250 250 250")
    (tmp_path / "TT1.ntt").write_bytes(head + s.tobytes())
    one = np.dtype([("t", "<u8"), ("ch", "<u4"), ("unit", "<u4"), ("f", "<i4", 8), ("w", "<i2", 32)])
    e = np.zeros(2, one)
    e["t"], e["unit"], e["ch"] = [1_500_000, 1_600_000], 1, 9
    (tmp_path / "SE1.nse").write_bytes(_neuralynx_head("Spike", "SE1", one.itemsize, ADChannel=9) + e.tobytes())
    event = np.dtype([("r", "<i2"), ("sys", "<i2"), ("size", "<i2"), ("t", "<u8"), ("id", "<i2"), ("ttl", "<i2"), ("crc", "<i2"), ("d", "<i2", 2),
                      ("x", "<i4", 8), ("text", "S128")])  # fmt: skip
    v = np.zeros(5, event)
    v["t"], v["id"], v["ttl"] = [1_050_000, 1_100_000, 1_150_000, 1_200_000, 1_250_000], [4, 11, 11, 11, 11], [0, 1, 3, 2, 0]
    board = "TTL Input on AcqSystem1_0 board 0 port 1 value"
    v["text"] = [b"sleep 1", *(f"{board} (0x{w:04X}).".encode() for w in (1, 3, 2, 0))]
    bare = {"ADChannel": None, "NumADChannels": None}
    (tmp_path / "Events.nev").write_bytes(_neuralynx_head("Event", "Events", event.itemsize, SamplingFrequency=None, **bare) + v.tobytes())
    video = np.dtype([("stx", "<u2"), ("id", "<u2"), ("n", "<u2"), ("t", "<u8"), ("p", "<u4", 400), ("crc", "<i2"), ("x", "<i4"), ("y", "<i4"), ("a", "<i4"),
                      ("targets", "<i4", 50)])  # fmt: skip
    p = np.zeros(20, video)
    p["t"], p["x"], p["y"] = 1_000_000 + 40_000 * np.arange(20), 100 + np.arange(20), 200
    p["x"][5], p["y"][5] = 0, 0
    (tmp_path / "VT1.nvt").write_bytes(_neuralynx_head("Video", "VT1", video.itemsize, **bare) + p.tobytes())
    rec = read(tmp_path)
    assert rec.spikes is not None
    assert rec.spikes.units["quality"].tolist().count("unsorted") == 1
    np.testing.assert_allclose(sorted(rec.spikes.times), [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], atol=1e-9)
    np.testing.assert_allclose(np.c_[rec.events("ttl_0").start, rec.events("ttl_0").stop], [[0.1, 0.2]])
    np.testing.assert_allclose(np.c_[rec.events("ttl_1").start, rec.events("ttl_1").stop], [[0.15, 0.25]])
    assert rec.events("events").kind.tolist() == ["sleep 1"]
    position = rec.signals["position"]
    assert (position.rate, position.unit) == (25, "px")
    assert np.isnan(position.read(5, 6)).all()
    np.testing.assert_array_equal(position.read(0, 2), [[100, 200], [101, 200]])


def test_blackrock_spikes_and_digital_port(tmp_path):
    packet = 8 + 96
    head = struct.pack("<8sBBHIIII8H32s256sI", b"NEURALEV", 2, 3, 0, 336 + 32, packet, 30000, 30000, 2024, 5, 3, 1, 10, 0, 0, 0, b"test", b"", 1)
    head += struct.pack("<8sHBBHHhhBBH8s", b"NEUEVWAV", 1, 1, 1, 250, 0, 0, -50, 1, 2, 48, b"")
    body = b""
    for t, unit in ((3000, 0), (6000, 1), (9000, 1)):
        body += struct.pack("<IHBB", t, 1, unit, 0) + bytes(96)
    for t, word in ((12000, 1), (15000, 3), (18000, 2), (21000, 0)):
        body += struct.pack("<IHBBH", t, 0, 1, 0, word).ljust(packet, b"\0")
    (tmp_path / "d.nev").write_bytes(head + body)
    rec = read(tmp_path / "d.nev")
    assert rec.spikes is not None
    assert dict(zip(rec.spikes.units["quality"], rec.spikes.units["n_spikes"], strict=True)) == {"unsorted": 1, "online": 2}
    np.testing.assert_allclose(rec.spikes.times, [0.1, 0.2, 0.3])
    np.testing.assert_allclose(np.c_[rec.events("ttl_0").start, rec.events("ttl_0").stop], [[0.4, 0.6]])
    np.testing.assert_allclose(np.c_[rec.events("ttl_1").start, rec.events("ttl_1").stop], [[0.5, 0.7]])


def test_blackrock_30_khz_with_a_pause(tmp_path):
    head = b"NEURALCD" + struct.pack("<BBI16s256sII8HI", 2, 3, 314 + 66, b"30 kS/s", b"", 1, 30000, 2024, 5, 3, 1, 10, 0, 0, 0, 1)
    head += b"CC" + struct.pack("<H16sBBhhhh16sIIHIIH", 1, b"ch1", 1, 0, -32764, 32764, -8191, 8191, b"uV", 0, 0, 0, 0, 0, 0)
    body = b"".join(struct.pack("<BII", 1, t, 1500) + X[k * 1500 : (k + 1) * 1500, 0].tobytes() for k, t in enumerate((0, 9000)))
    (tmp_path / "d.ns5").write_bytes(head + body)
    lfp = read(tmp_path / "d.ns5").signals["lfp"]
    np.testing.assert_allclose(lfp.gaps.bounds, [[0.05, 0.3]])
    np.testing.assert_allclose(lfp.span(0.3, 0.31)[1][:, 0], X[1500:1800, 0] * (8191 / 32764), rtol=1e-4)


def test_where_neo_fails_on_valid_files(tmp_path):
    """The reasons for what formats.neo_mends mends."""
    from neo.rawio import BlackrockRawIO, PlexonRawIO

    test_blackrock_spikes_and_digital_port(tmp_path)
    with pytest.raises(TypeError, match="unhashable"):
        BlackrockRawIO(str(tmp_path / "d.nev")).parse_header()
    _plx(tmp_path / "d.plx", [(20000, X[:400, 0])])
    raw = PlexonRawIO(str(tmp_path / "d.plx"), progress_bar=False)
    raw.parse_header()
    assert (raw.get_analogsignal_chunk(stream_index=0) == 0).all()


def _plx(path, fragments):
    from neo.rawio import plexonrawio as plexon

    top = np.zeros(1, plexon.GlobalHeader)
    top["MagicNumber"], top["Version"], top["ADFrequency"], top["WaveformFreq"] = 0x58454C50, 106, 40000, 40000
    top["Year"], top["Month"], top["Day"] = 2024, 5, 1
    top["NumDSPChannels"], top["NumEventChannels"], top["NumSlowChannels"], top["NumPointsWave"] = 1, 2, 1, 8
    top["BitsPerSpikeSample"], top["BitsPerSlowSample"], top["SpikeMaxMagnitudeMV"], top["SlowMaxMagnitudeMV"] = 12, 12, 3000, 5000
    top["SpikePreAmpGain"] = 1000
    spike, events, slow = np.zeros(1, plexon.DspChannelHeader), np.zeros(2, plexon.EventChannelHeader), np.zeros(1, plexon.SlowChannelHeader)
    spike["Name"], spike["Channel"], spike["Gain"] = b"sig001", 1, 20
    events["Name"], events["Channel"] = [b"EVT01", b"Strobed"], [1, 257]
    slow["Name"], slow["Channel"], slow["ADFreq"], slow["Gain"], slow["PreampGain"] = b"FP01", 0, 1000, 100, 10

    def block(kind, t, channel, unit=0, samples=()):
        wave = np.asarray(samples, dtype="<i2")
        return struct.pack("<HHIHHHH", kind, 0, t, channel, unit, int(len(wave) > 0), len(wave)) + wave.tobytes()

    body = b"".join(block(5, t, 0, samples=x) for t, x in fragments)
    body += b"".join(block(1, t, 1, u, np.zeros(8)) for t, u in ((40_000, 0), (80_000, 1), (84_000, 1)))
    body += block(4, 60_000, 1) + block(4, 64_000, 257, 7)
    path.write_bytes(top.tobytes() + spike.tobytes() + events.tobytes() + slow.tobytes() + body)


def test_plexon(tmp_path):
    # Fragments of 400 samples at 1 kHz from 0.5 s on, the third after a pause of 2 s.
    at = [0.5, 0.9, 3.3]
    _plx(tmp_path / "d.plx", [(round(t * 40000), X[400 * k : 400 * (k + 1), 0]) for k, t in enumerate(at)])
    rec = read(tmp_path / "d.plx")
    lfp = rec.signals["lfp"]
    assert (lfp.rate, lfp.unit, lfp.start, lfp.names) == (1000, "uV", 0.5, ["FP01"])
    np.testing.assert_allclose(lfp.gaps.bounds, [[1.3, 3.3]])
    step = 5000 / (0.5 * 2**12 * 100 * 10) * 1e3
    np.testing.assert_allclose(lfp.read(0, 800)[:, 0], X[:800, 0] * step, rtol=1e-5)
    np.testing.assert_allclose(lfp.span(3.3, 3.7)[1][:, 0], X[800:1200, 0] * step, rtol=1e-5)
    assert rec.spikes is not None
    assert dict(zip(rec.spikes.units["quality"], rec.spikes.units["n_spikes"], strict=True)) == {"unsorted": 1, "online": 2}
    assert (rec.events("EVT01").start.tolist(), rec.events("Strobed").kind.tolist()) == ([1.5], ["7"])


def test_neuroexplorer(tmp_path):
    from neo.rawio import neuroexplorerrawio as nex

    top, entity = np.zeros(1, nex.GlobalHeader), np.zeros(3, nex.EntityHeader)
    top["signature"], top["version"], top["freq"], top["tend"], top["nvar"] = b"NEX1", 104, 40000, 400_000, 3
    entity["type"], entity["name"] = [0, 1, 5], [b"sig001a", b"cue", b"FP1"]
    entity["n"], entity["WFrequency"], entity["ADtoMV"], entity["NPointsWave"] = [3, 2, 2], 1000, 0.001, 1000
    parts = [np.array([4000, 8000, 12000], "<i4").tobytes(), np.array([20000, 60000], "<i4").tobytes(),
             np.array([40_000, 120_000, 0, 600], "<i4").tobytes() + X[:1000, 0].tobytes()]  # fmt: skip
    offset = 544 + entity.nbytes
    entity["offset"] = offset + np.cumsum([0, *(len(p) for p in parts[:-1])])
    (tmp_path / "d.nex").write_bytes(top.tobytes().ljust(544, b"\0") + entity.tobytes() + b"".join(parts))
    rec = read(tmp_path / "d.nex")
    assert rec.spikes is not None
    np.testing.assert_allclose(rec.spikes.times, [0.1, 0.2, 0.3])
    assert rec.events("cue").start.tolist() == [0.5, 1.5]
    lfp = rec.signals["lfp"]
    np.testing.assert_allclose(lfp.gaps.bounds, [[1.6, 3.0]])
    np.testing.assert_allclose(lfp.span(3.0, 3.4)[1][:, 0], X[600:1000, 0], rtol=1e-5)
    (tmp_path / "d.nex").write_bytes((tmp_path / "d.nex").read_bytes()[:-500])
    with pytest.raises(FormatError, match="750 came: it is truncated"):
        read(tmp_path / "d.nex").signals["lfp"].values.base[0:1000]


def test_winedr_and_mcs(tmp_path):
    lines = {"VER": "6.4", "NC": 2, "NP": 6000, "NBH": 2048, "ADCMAX": 32767, "DT": "0.0005", "TU": "s", "AD": 10.0}
    for c, (name, unit) in enumerate((("Im", "pA"), ("Vm", "mV"))):
        lines |= {f"YN{c}": name, f"YU{c}": unit, f"YO{c}": c, f"YCF{c}": 0.001, f"YAG{c}": 1.0, f"YZ{c}": 0}
    text = "".join(f"{k}={v}\r\n" for k, v in lines.items()).encode()
    (tmp_path / "d.edr").write_bytes(text.ljust(2048, b"\0") + X[:, :2].tobytes())
    rec = read(tmp_path / "d.edr")
    vm = next(s for s in rec.signals.values() if s.unit == "uV")
    assert (vm.rate, vm.names, set(vm.channels["kind"])) == (2000, ["Vm"], {"other"})
    np.testing.assert_allclose(vm.read(0, 100)[:, 0], X[:100, 1] * (10 / (0.001 * 32768)) * 1e3, rtol=1e-4)
    head = "MC_DataTool binary conversion\r\nVersion 2.6.15\r\nMC_REC file = x\r\nSample rate = 10000\r\nADC zero = 32768\r\n"
    head += "El = 0.1042µV/AD\r\nStreams = El_01;El_02\r\nEOH\r\n"
    (tmp_path / "d.raw").write_bytes(head.encode("latin-1") + (X[:, :2].astype(np.int32) + 32768).astype("<u2").tobytes())
    lfp = read(tmp_path / "d.raw").signals["lfp"]
    assert (lfp.rate, lfp.unit, lfp.names) == (10000, "uV", ["El_01", "El_02"])
    np.testing.assert_allclose(lfp.read(0, 50), X[:50, :2] * 0.1042, atol=1e-2)


def test_systems_without_a_test_say_so(tmp_path):
    from brainmu.formats.neo_systems import SYSTEMS, system_of

    assert {n for n, s in SYSTEMS.items() if s.tested} >= {"SpikeGLX", "Neuralynx", "Blackrock", "Plexon"}
    for name, system in (("x.smr", "Spike2"), ("x.pl2", "Plexon 2"), ("x.abf", "Axon"), ("x.xdat.json", "NeuroNexus")):
        (tmp_path / name).write_bytes(b"nothing of the kind" * 20)
        assert system_of(tmp_path / name) == system
        with pytest.raises(FormatError, match=f"as {system}|reads {system} only") as caught:
            read(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["x.plx", "x.ns5"])
def test_damaged_files(tmp_path, name):
    (tmp_path / name).write_bytes(b"nothing of the kind" * 20)
    with pytest.raises(FormatError, match="Neo cannot read it as") as caught:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
