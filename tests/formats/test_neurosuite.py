"""A Neurosuite session written as ndManager and Klusters write it."""

import numpy as np
import pytest
import scipy.io

from brainmu.core import EventTable
from brainmu.errors import FormatError, NotFoundError
from brainmu.formats import read, sniff

X = np.random.default_rng(0).integers(-2000, 2000, (2500, 3)).astype("<i2")

XML = """<?xml version='1.0'?>
<parameters version="1.0" creator="ndManager-">
 <acquisitionSystem><nBits>16</nBits><nChannels>3</nChannels><samplingRate>20000</samplingRate><voltageRange>20</voltageRange><amplification>1000</amplification></acquisitionSystem>
 <fieldPotentials><lfpSamplingRate>1250</lfpSamplingRate></fieldPotentials>
 <anatomicalDescription><channelGroups>
  <group><channel skip="0">2</channel><channel skip="1">0</channel></group><group><channel skip="0">1</channel></group>
 </channelGroups></anatomicalDescription>
 <units><unit><group>1</group><cluster>3</cluster><structure>CA1</structure><type>pyr</type></unit></units>
</parameters>
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "m.xml").write_text(XML)
    (tmp_path / "m.lfp").write_bytes(X.tobytes())
    (tmp_path / "m.res.1").write_text("100\n200\n300\n400\n500\n \n\n")
    (tmp_path / "m.clu.1").write_text("4\n0\n1\n2\n3\n3\n")
    (tmp_path / "m.res.2").write_text("20000\n40000\n")
    (tmp_path / "m.clu.2").write_text("1\n2\n2\n")
    (tmp_path / "m.evt.py.rip").write_text(
        "".join(f"{t}\tPyRip {w} 1\n" for t, w in ((100, "start"), (120, "peak"), (150, "stop"), (700, "peak"), (800, "start"), (830, "stop")))
    )
    (tmp_path / "m.evt.sti").write_text("10.5\tlaser on\n20\tlaser off\n")
    (tmp_path / "Epoch_TS.csv").write_text("0,1\n1,2\n")
    (tmp_path / "m.nrs").write_text("<neuroscope/>")
    return tmp_path


def test_lfp_in_microvolt_with_shanks(folder):
    assert sniff(folder) == "neurosuite"
    lfp = read(folder).signals["lfp"]
    assert (lfp.rate, lfp.unit, lfp.values.dtype) == (1250, "uV", np.int16)
    assert lfp.channels[["name", "group", "skip", "order"]].to_numpy().tolist() == [["ch0", 1, True, 1], ["ch1", 2, False, 2], ["ch2", 1, False, 0]]
    # 20 V peak to peak over 2^16 steps, amplified 1000 times.
    np.testing.assert_allclose(lfp.read(), X * (20 / 65536 / 1000 * 1e6), rtol=1e-6)


def test_spikes_without_artefacts_and_multiunit(folder):
    rec = read(folder)
    assert rec.spikes is not None
    np.testing.assert_allclose(rec.spikes.times, [0.015, 0.02, 0.025, 1.0, 2.0])
    assert rec.spikes.units[["id", "group", "cluster", "quality", "region"]].to_numpy().tolist() == [
        [0, 1, 2, "good", ""],
        [1, 1, 3, "good", "CA1"],
        [2, 2, 2, "good", ""],
    ]
    assert any("left out 1 of cluster 0 (artefacts) and 1 of cluster 1 (multi-unit" in w for w in rec.warnings)
    kept = read(folder, mua=True)
    assert kept.spikes is not None
    assert kept.spikes.units["quality"].tolist() == ["mua", "good", "good", "good"]


def test_events_epochs_and_files(folder):
    rec = read(folder)
    ripples = rec.events("ripples")
    np.testing.assert_allclose(np.c_[ripples.start, ripples.peak, ripples.stop], [[0.1, 0.12, 0.15], [0.8, 0.815, 0.83]])
    assert set(ripples.kind) == {"ripple"}
    assert any("m.evt.py.rip: 1 lines are not part" in w for w in rec.warnings)
    assert rec.events("events_sti").kind.tolist() == ["laser on", "laser off"]
    epochs = rec.labels["epochs"]
    assert isinstance(epochs, EventTable)
    assert epochs.stop.tolist() == [1, 2]
    assert len(rec.source["files"]) == 10


def test_wideband_and_sleep_states(folder):
    (folder / "m.dat").write_bytes(X.tobytes())
    assert "wideband" not in read(folder).signals
    assert "m.dat" in read(folder).source["notes"]
    assert read(folder, wideband=True).signals["wideband"].rate == 20000
    (folder / "m.lfp").unlink()
    assert read(folder).signals["lfp"].rate == 20000
    idx = {"states": np.array([1, 3, 3, 5, 0]), "timestamps": np.arange(1.0, 6)}
    scipy.io.savemat(folder / "m.SleepState.states.mat", {"SleepState": {"idx": idx}})
    assert read(folder).hypnogram().stages_list() == ["WAKE", "NREM", "NREM", "REM", "UNS"]


def test_without_xml_a_rate_is_asked_for(folder):
    (folder / "m.xml").unlink()
    with pytest.raises(NotFoundError, match=r"sampling rate is unknown: .* pass rate=20000"):
        read(folder)
    rec = read(folder, rate=10000)
    assert rec.spikes is not None
    assert rec.spikes.times[0] == 0.03
    assert rec.signals == {}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.lfp", X.tobytes()[:-1], "bytes are not a multiple of the 3 channels that its .xml names"),
        ("m.clu.1", b"4\n0\n1\n", r"2 cluster numbers .after the count. for 5 spikes in m.res.1"),
        ("m.res.1", b"100\nabc\n", "m.res.1: .*expected one whole number a line"),
        ("m.xml", b"<parameters version='1.0'><acquisitionSystem>", "not well-formed XML"),
        ("m.xml", XML.replace("20000", "0").encode(), "samplingRate is '0', expected a positive number"),
        ("m.xml", XML.replace('"0">2<', '"0">7<').encode(), "channel 7 of group 1 does not exist"),
        ("m.evt.sti", b"soon\tlaser\n", "line 1: is .*, expected milliseconds"),
        ("m.clu.2", b"", "is empty"),
    ],
)
def test_damaged_files(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(FormatError, match=message) as caught:
        read(folder)
    assert "\n" not in str(caught.value)


def test_two_sessions_in_a_folder(folder):
    (folder / "n.xml").write_text(XML)
    (folder / "n.eeg").write_bytes(X.tobytes())
    with pytest.raises(FormatError, match=r"holds 2 sessions .m, n.: name one with base="):
        read(folder)
    assert read(folder, base="n").signals["lfp"].n_samples == 2500
    assert read(folder / "n.xml").spikes is None
