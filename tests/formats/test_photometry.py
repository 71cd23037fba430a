"""Fibre photometry files, written byte by byte as pyPhotometry, Neurophotometrics and Doric write them."""

import json

import numpy as np
import pandas as pd
import pytest

from brainmu.errors import FormatError, InputError
from brainmu.formats import read, sniff


def ppd(path, mode="2EX_1EM_pulsed", n_analog=2, n_digital=2, rate=130, n=260, old=False):
    """Each sample is a uint16: 15 bits of light, and the digital line in the lowest."""
    light = np.random.default_rng(0).integers(0, 1 << 15, (n, n_analog)).astype("<u2")
    line = np.zeros((n, n_analog), dtype="<u2")
    line[26:52, 0] = 1
    line[-13:, n_digital - 1] = 1
    header = {"subject_ID": "m7", "date_time": "2024-05-01T10:00:00", "mode": mode, "sampling_rate": rate, "volts_per_division": [1e-4, 2e-4], "version": "1.0"}
    header |= {} if old else {"n_analog_signals": n_analog, "n_digital_signals": n_digital}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(2, "little") + text + ((light << 1) | line).tobytes())
    return light


@pytest.mark.parametrize("old", [True, False])
def test_pyphotometry(tmp_path, old):
    light = ppd(tmp_path / "m7.ppd", old=old)
    assert sniff(tmp_path / "m7.ppd") == "photometry"
    rec = read(tmp_path / "m7.ppd", start=2.0)
    s = rec.signals["photometry"]
    assert (rec.subject, s.rate, s.start, s.unit, s.kind) == ("m7", 130, 2.0, "V", "photometry")
    np.testing.assert_allclose(s.read(50, 60), light[50:60] * [1e-4, 2e-4], rtol=1e-6)
    assert s.channels[["name", "role", "isosbestic"]].to_numpy().tolist() == [["analog_1", "signal", "analog_2"], ["analog_2", "isosbestic", ""]]
    assert rec.labels["digital_1"].start.tolist() == [2.2]
    assert rec.labels["digital_1"].stop.tolist() == pytest.approx([2.4])
    assert rec.labels["digital_2"].stop.tolist() == pytest.approx([4.0])
    assert any("analog_2 is taken as the isosbestic channel of analog_1" in w for w in rec.warnings)


def test_pyphotometry_three_signals_and_unknown_modes(tmp_path):
    light = ppd(tmp_path / "a.ppd", "3EX_2EM_pulsed", 3)
    s = read(tmp_path / "a.ppd").signals["photometry"]
    np.testing.assert_allclose(s.read(), light * [1e-4, 2e-4, 1e-4], rtol=1e-6)
    assert s.channels["isosbestic"].tolist() == ["analog_3", "", ""]
    ppd(tmp_path / "b.ppd", "2EX_2EM_continuous")
    rec = read(tmp_path / "b.ppd")
    assert rec.signals["photometry"].channels["isosbestic"].tolist() == ["", ""]
    assert any("does not say which of analog_1, analog_2 is isosbestic" in w for w in rec.warnings)
    assert read(tmp_path / "b.ppd", isosbestic="analog_1").signals["photometry"].channels["isosbestic"].tolist() == ["", "analog_1"]
    with pytest.raises(InputError, match="has no channel 'analog_9': did you mean 'analog_"):
        read(tmp_path / "b.ppd", isosbestic="analog_9")
    (tmp_path / "b.ppd").write_bytes((tmp_path / "b.ppd").read_bytes()[:-2])
    with pytest.raises(FormatError, match="not whole samples of 2 channels"):
        read(tmp_path / "b.ppd")
    (tmp_path / "b.ppd").write_bytes(b"\x02\x00{}1234")
    with pytest.raises(FormatError, match="no pyPhotometry header"):
        read(tmp_path / "b.ppd")


def npm(path, states, flag="LedState", regions=("Region0G", "Region1R"), drop=()):
    """Frames at 90 Hz, one LED after another."""
    n = len(states)
    rng = np.random.default_rng(2)
    frame = pd.DataFrame(
        {"FrameCounter": range(n), "SystemTimestamp": 4000.5 + np.arange(n) / 90, flag: states, "ComputerTimestamp": 5e7 + np.arange(n) * 100 / 9}
    )
    for r in regions:
        frame[r] = rng.uniform(0.01, 0.2, n)
    frame = frame.drop(index=list(drop))
    frame.to_csv(path, index=False)
    return frame


def test_neurophotometrics_interleaved(tmp_path):
    states = [0, *[1, 2, 4] * 100]
    states[31:61] = [s + 8 for s in states[31:61]]  # a digital line is high for ten cycles
    frame = npm(tmp_path / "fp.csv", states)
    assert sniff(tmp_path / "fp.csv") == "photometry"
    rec = read(tmp_path / "fp.csv")
    assert list(rec.signals) == ["photometry_415", "photometry_470", "photometry_560"]
    s = rec.signals["photometry_470"]
    assert (s.rate, s.n_samples, s.start) == (pytest.approx(30.0), 100, pytest.approx(2 / 90))
    np.testing.assert_allclose(s.read(), frame.loc[2::3, ["Region0G", "Region1R"]], rtol=1e-5)
    assert s.channels[["name", "role", "isosbestic"]].to_numpy().tolist() == [["Region0G_470", "signal", "Region0G_415"], ["Region1R_470", "", ""]]
    assert rec.signals["photometry_560"].channels["isosbestic"].tolist() == ["", "Region1R_415"]
    assert rec.source["first_timestamp"] == 4000.5
    assert any("1 of 301 frames with no LED or several on (LedState 0)" in w for w in rec.warnings)
    line = rec.labels["digital_bit3"]
    assert (line.start.tolist(), line.stop.tolist()) == (pytest.approx([31 / 90]), pytest.approx([61 / 90]))


def test_neurophotometrics_flags_and_two_leds_at_once(tmp_path):
    # Flags of the FP3001: 17 and 18 are 415 and 470 nm; 22 lights 470 and 560 nm together.
    npm(tmp_path / "a.csv", [17, 18] * 50, "Flags", ("G0", "R1"))
    rec = read(tmp_path / "a.csv")
    assert [rec.signals[n].n_samples for n in ("photometry_415", "photometry_470")] == [50, 50]
    assert not [k for k in rec.labels if k.startswith("digital")]
    frame = npm(tmp_path / "b.csv", [17, 22] * 50, "Flags", ("G0", "R1"), drop=(10, 11))
    rec = read(tmp_path / "b.csv")
    assert [(k, s.names) for k, s in rec.signals.items()] == [
        ("photometry_415", ["G0_415", "R1_415"]),
        ("photometry_470", ["G0_470"]),
        ("photometry_560", ["R1_560"]),
    ]
    assert any("jumps over 2 frames" in w for w in rec.warnings)
    assert len(rec.signals["photometry_560"].gaps) == 1
    assert np.nansum(rec.signals["photometry_560"].read()) == pytest.approx(frame.loc[frame["Flags"] == 22, "R1"].sum(), rel=1e-5)
    with pytest.raises(InputError, match="leave signal= and isosbestic= out"):
        read(tmp_path / "b.csv", signal="G0")
    npm(tmp_path / "c.csv", [0, 7] * 10)
    with pytest.raises(FormatError, match=r"no frame has one LED on .LedState holds 0, 7"):
        read(tmp_path / "c.csv")
    frame["SystemTimestamp"] = 1.0
    frame.to_csv(tmp_path / "d.csv", index=False)
    with pytest.raises(FormatError, match="SystemTimestamp does not increase at row 2"):
        read(tmp_path / "d.csv")


def test_doric(tmp_path):
    n = 120
    t = np.arange(n) / 120.48 + 0.25
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0, 1, (2, n))
    di = (np.arange(n) // 20) % 2
    rows = ["---,Analog In. | Ch.1,Analog In. | Ch.1,Digital I/O | Ch.1,", "Time(s),AIn-1 - Dem (AOut-1),AIn-1 - Dem (AOut-2),DI/O-1,"]
    rows += [f"{t[k]:.6f},{a[k]:.6f},{b[k]:.6f},{di[k]}," for k in range(n)]
    path = tmp_path / "doric.csv"
    path.write_text("\n".join(rows) + "\n")
    assert sniff(path) == "photometry"
    rec = read(path)
    s = rec.signals["photometry"]
    assert (s.names, s.start) == (["AIn-1 - Dem (AOut-1)", "AIn-1 - Dem (AOut-2)"], 0.0)
    assert s.rate == pytest.approx(120.48, rel=1e-4)
    assert any("is isosbestic, so dF/F has no control" in w for w in rec.warnings)
    rec = read(path, signal="AIn-1 - Dem (AOut-1)", isosbestic="AIn-1 - Dem (AOut-2)")
    assert rec.signals["photometry"].channels["isosbestic"].tolist() == ["AIn-1 - Dem (AOut-2)", ""]
    np.testing.assert_allclose(rec.signals["photometry"].read(), np.c_[a, b], atol=1e-6)
    assert rec.labels["DI_O_1"].start == pytest.approx((t[20::40] - t[0]).tolist(), abs=1e-5)


def test_plain_table(tmp_path):
    n = 50
    path = tmp_path / "fp.csv"
    frame = pd.DataFrame({"ms": np.arange(n) * 50.0, "GCaMP_465": 1.0, "iso_405": 2.0, "note": "x"})
    frame.to_csv(path, index=False)
    with pytest.raises(InputError, match="none of which is a time: pass time="):
        read(path, format="photometry")
    rec = read(path, format="photometry", time="ms", time_unit="ms", unit="V")
    s = rec.signals["photometry"]
    assert (s.rate, s.names) == (pytest.approx(20.0), ["GCaMP_465", "iso_405"])
    assert s.channels["isosbestic"].tolist() == ["iso_405", ""]
    assert s.channels["excitation"].tolist() == [465.0, 405.0]
    assert any("isosbestic by name: iso_405" in w for w in rec.warnings)
    assert read(path, format="photometry", rate=10.0, signal="GCaMP_465", isosbestic="iso_405").duration == pytest.approx(5.0)
    with pytest.raises(InputError, match="2 isosbestic channels for 1 signals"):
        read(path, format="photometry", rate=10.0, signal="ms", isosbestic=["iso_405", "GCaMP_465"])


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "FrameCounter,SystemTimestamp,LedState,Region0G\n", "holds no frames"),
        ("a.csv", "FrameCounter,SystemTimestamp,LedState,Region0G\n0,1.0,1,x\n1,1.1,2,y\n", "column Region0G holds 'x'"),
        ("a.csv", "Time(s),AIn-1 - Dem (AOut-1)\n", "holds no rows"),
        ("a.csv", "Time(s),AIn-1 - Dem (AOut-1)\n0.0,1\n,2\n0.2,3\n", r"Time\(s\) is nan in row 2"),
        ("a.ppd", "x", "no pyPhotometry header"),
    ],
)
def test_damaged_photometry(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(FormatError, match=message):
        read(tmp_path / name)


def test_a_time_column_says_its_unit(tmp_path):
    file = tmp_path / "plain.csv"
    file.write_text("timestamp_ms,gcamp,iso\n" + "".join(f"{10 * k},{1 + k % 3},{1 + k % 2}\n" for k in range(50)))
    signal = read(file, format="photometry", time="timestamp_ms", signal="gcamp", isosbestic="iso").signals["photometry"]
    assert (signal.rate, signal.duration) == (100.0, 0.5)
