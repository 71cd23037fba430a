"""Acquisition systems through Neo, on small recordings written as each system documents its files."""

import gc
import json
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


def _spikeglx(folder, bands=("ap", "lf")):
    folder.mkdir()
    for band in bands:
        rate = 30000 if band == "ap" else 2500
        (folder / f"run_g0_t0.imec0.{band}.bin").write_bytes(X.tobytes())
        snap = {"ap": "3,0,1", "lf": "0,3,1"}[band]
        gains = "(0 0 0 500 250 1)(1 0 0 500 250 1)(2 0 0 500 250 1)"
        names = "".join(f"({band.upper()}{i};{i}:{i})" for i in range(3)) + "(SY0;384:3)"
        (folder / f"run_g0_t0.imec0.{band}.meta").write_text(
            f"fileName=run_g0_t0.imec0.{band}.bin\nfileSizeBytes={X.nbytes}\nfileTimeSecs={3000 / rate}\nimAiRangeMax=0.6\nimAiRangeMin=-0.6\nimMaxInt=512\n"
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


@pytest.mark.parametrize("name", ["x.plx", "x.ns5"])
def test_damaged_files(tmp_path, name):
    (tmp_path / name).write_bytes(b"nothing of the kind" * 20)
    with pytest.raises(FormatError, match="Neo cannot read it as") as caught:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)
