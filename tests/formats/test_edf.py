"""EDF, EDF+, BDF against MNE and edfio: native rates and units, gaps, annotations, and damaged files."""

import datetime
import tracemalloc

import edfio
import mne
import numpy as np
import pytest

from brainmu.errors import FormatError
from brainmu.formats import read, read_all
from brainmu.formats.edf import channel_kind

RNG = np.random.default_rng(0)
EEG, EOG, EMG, TEMP = RNG.normal(0, 50, 12000), RNG.normal(0, 80, 12000), RNG.normal(0, 0.02, 1200), RNG.normal(37, 0.1, 60)


def _signals(kind=edfio.EdfSignal):
    return [
        kind(EEG, 200, label="EEG Fpz-Cz", physical_dimension="uV", physical_range=(-400, 400)),
        kind(EOG, 200, label="EOG horizontal", physical_dimension="uV", physical_range=(-600, 600)),
        kind(EMG, 20, label="EMG submental", physical_dimension="mV", physical_range=(-1, 1)),
        kind(TEMP, 1, label="Temp rectal", physical_dimension="DegC", physical_range=(30, 45)),
    ]


STAGES = [
    edfio.EdfAnnotation(0, 30, "Sleep stage W"), edfio.EdfAnnotation(30, 60, "Sleep stage 2"), edfio.EdfAnnotation(90, 30, "Sleep stage 4"),
    edfio.EdfAnnotation(120, 30, "Sleep stage R"), edfio.EdfAnnotation(150, 30, "Movement time"), edfio.EdfAnnotation(180, 30, "Sleep stage ?"),
]  # fmt: skip


@pytest.fixture
def night(tmp_path):
    edf = edfio.Edf(_signals(), annotations=[edfio.EdfAnnotation(12.5, 0.5, "spindle"), edfio.EdfAnnotation(3, None, "lights off"), *STAGES],
                    patient=edfio.Patient(code="s07", sex="F"), recording=edfio.Recording(startdate=datetime.date(2001, 2, 3)),
                    starttime=datetime.time(22, 0, 1))  # fmt: skip
    edf.write(tmp_path / "night.edf")
    return tmp_path / "night.edf"


def test_each_channel_at_its_own_rate_and_unit(night):
    rec = read(night)
    assert {k: (s.rate, s.unit, s.names) for k, s in rec.signals.items()} == {
        "eeg": (200, "uV", ["EEG Fpz-Cz"]), "eog": (200, "uV", ["EOG horizontal"]), "emg": (20, "uV", ["EMG submental"]),
        "Temp_rectal": (1, "DegC", ["Temp rectal"]),
    }  # fmt: skip
    for name, values, step in (("eeg", EEG, 800), ("eog", EOG, 1200), ("emg", EMG * 1000, 2000), ("Temp_rectal", TEMP, 15)):
        np.testing.assert_allclose(rec.signals[name].read()[:, 0], values, atol=step / 65535)
    assert (rec.subject, rec.subject_meta["sex"], rec.source["started_at_local"]) == ("s07", "F", "2001-02-03T22:00:01")


def test_same_values_as_mne(night):
    raw = mne.io.read_raw_edf(night, include=["EEG Fpz-Cz", "EOG horizontal"], verbose="error")
    rec = read(night)
    np.testing.assert_allclose(rec.signals["eeg"].read(150, 2500)[:, 0], raw.get_data(picks=[0], start=150, stop=2500)[0] * 1e6, atol=1e-4)


def test_annotations_become_a_hypnogram_and_events(night):
    rec = read(night)
    h = rec.hypnogram()
    assert h.stages_list() == ["W", "N2", "N2", "N3", "R", "ART", "UNS"]
    assert (h.epoch, h.start) == (30, 0)
    assert any("Sleep stage 4 (R&K) -> N3" in w for w in rec.warnings)
    events = rec.events("annotations")
    assert events.kind.tolist() == ["lights off", "spindle"]
    np.testing.assert_allclose(np.c_[events.start, events.stop], [[3, 3], [12.5, 13]])


def test_a_file_of_annotations_alone_and_beside_another(night, tmp_path):
    only = tmp_path / "hyp.edf"
    edfio.Edf([], annotations=STAGES, starttime=datetime.time(21, 59, 31), recording=edfio.Recording(startdate=datetime.date(2001, 2, 3))).write(only)
    assert read(only).hypnogram().stages_list()[0] == "W"
    plain = tmp_path / "psg.edf"
    edfio.Edf(_signals(), starttime=datetime.time(22, 0, 1), recording=edfio.Recording(startdate=datetime.date(2001, 2, 3))).write(plain)
    rec = read(plain, annotations=only)
    assert rec.hypnogram().start == -30
    assert any("starts -30 s before" in w for w in rec.warnings)
    assert len(rec.source["files"]) == 2


def test_a_sleep_edf_night_finds_its_hypnogram(tmp_path):
    when = {"starttime": datetime.time(22, 0, 0), "recording": edfio.Recording(startdate=datetime.date(2001, 2, 3))}
    for n in "12":
        edfio.Edf(_signals(), **when).write(tmp_path / f"SC400{n}E0-PSG.edf")
        edfio.Edf([], annotations=STAGES, **when).write(tmp_path / f"SC400{n}EC-Hypnogram.edf")
    nights = read_all(tmp_path)
    assert [r.id for r in nights] == ["SC4001E0-PSG", "SC4002E0-PSG"]
    assert all(r.hypnogram().stages_list()[0] == "W" and len(r.source["files"]) == 2 for r in nights)


def test_bdf_keeps_24_bits(tmp_path):
    path = tmp_path / "b.bdf"
    signals = [
        edfio.BdfSignal(EEG, 200, label="Cz", physical_dimension="uV", physical_range=(-400, 400)),
        edfio.BdfSignal(EOG, 200, label="Status", physical_dimension="Boolean"),
    ]
    edfio.Bdf(signals).write(path)
    rec = read(path)
    np.testing.assert_allclose(rec.signals["eeg"].read()[:, 0], EEG, atol=1e-3 / 2)
    assert np.abs(rec.signals["eeg"].read()[:, 0] - EEG).max() < 800 / 2**20
    assert rec.signals["sync"].names == ["Status"]
    raw = mne.io.read_raw_bdf(path, include=["Cz"], verbose="error")
    np.testing.assert_allclose(rec.signals["eeg"].read()[:, 0], raw.get_data()[0] * 1e6, atol=1e-4)


def _patch(path, at, text):
    data = bytearray(path.read_bytes())
    data[at : at + len(text)] = text
    path.write_bytes(bytes(data))


def test_symmetric_digital_range_stays_int16(tmp_path):
    path = tmp_path / "i.edf"
    edfio.Edf([edfio.EdfSignal(EEG, 200, label="C3", physical_dimension="uV", physical_range=(-400, 400), digital_range=(-32767, 32767))]).write(path)
    s = read(path).signals["eeg"]
    assert s.values.dtype == np.int16
    np.testing.assert_allclose(s.read()[:, 0], EEG, atol=400 / 32767)


@pytest.mark.parametrize("spelling", [b"UV", b"\xb5V", b"uv", b"microV"])
def test_spellings_of_microvolt(tmp_path, spelling):
    path = tmp_path / "u.edf"
    edfio.Edf([edfio.EdfSignal(EEG, 200, label="C3-A1", physical_dimension="uV", physical_range=(-400, 400))]).write(path)
    _patch(path, 256 + 16 + 80, spelling.ljust(8))
    s = read(path).signals["eeg" if spelling != b"microV" else "C3-A1"]
    assert s.unit == ("uV" if spelling != b"microV" else "microV")
    np.testing.assert_allclose(s.read()[:, 0], EEG, atol=800 / 65535)


def _discontinuous(tmp_path, onsets):
    """An EDF+D whose one-second records begin at `onsets`, written byte by byte as the specification says."""
    n = len(onsets)
    path = tmp_path / "d.edf"

    def field(values, width):
        return b"".join(str(v).encode().ljust(width) for v in values)

    head = field(["0"], 8) + field(["X X X X"], 80) + field(["Startdate 01-JAN-2020 X X X"], 80) + field(["01.01.20", "10.00.00", 768], 8)
    head += field(["EDF+D"], 44) + field([n, 1], 8) + field([2], 4)
    head += field(["C3", "EDF Annotations"], 16) + field(["", ""], 80) + field(["uV", ""], 8) + field([-100, -1], 8) + field([100, 1], 8)
    head += field([-32767, -32768], 8) + field([32767, 32767], 8) + field(["", ""], 80) + field([10, 16], 8) + field(["", ""], 32)
    body = b""
    for k, t in enumerate(onsets):
        body += (np.arange(10, dtype="<i2") + 10 * k).tobytes()
        body += (f"+{t}\x14\x14\x00" + (f"+{t}\x151\x14note {k}\x14\x00" if k == 1 else "")).encode().ljust(32, b"\0")
    path.write_bytes(head + body)
    return path


def test_gaps_of_a_discontinuous_file_are_missing_samples(tmp_path):
    rec = read(_discontinuous(tmp_path, [0, 1, 5, 6]))
    s = rec.signals["eeg"]
    assert (s.rate, s.n_samples, s.gaps.bounds.tolist()) == (10, 70, [[2, 5]])
    x = s.read()[:, 0] / (100 / 32767)
    np.testing.assert_allclose(x[[0, 19, 50, 69]], [0, 19, 20, 39], atol=1e-3)
    assert np.isnan(x[20:50]).all()
    assert any("1 gaps of 3.0 s" in w for w in rec.warnings)
    assert rec.events("annotations").start.tolist() == [1]


def test_records_out_of_order_are_refused(tmp_path):
    with pytest.raises(FormatError, match=r"record 3 starts at 0.5 s, before record 2"):
        read(_discontinuous(tmp_path, [0, 1, 0.5]))


def test_a_continuous_file_marked_d_has_no_gaps(tmp_path):
    s = read(_discontinuous(tmp_path, [0, 1, 2])).signals["eeg"]
    assert len(s.gaps) == 0
    assert s.n_samples == 30


def test_truncated_files_say_what_is_missing(night):
    whole = night.read_bytes()
    night.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"is truncated, it holds \d+ whole records of the \d+ .* missing, .* truncated=True"):
        read(night)
    rec = read(night, truncated=True)
    assert 0.3 < rec.signals["eeg"].duration / 60 < 0.6
    assert any("is truncated" in w for w in rec.warnings)
    np.testing.assert_allclose(rec.signals["eeg"].read(0, 100)[:, 0], EEG[:100], atol=800 / 65535)
    night.write_bytes(whole[:300])
    with pytest.raises(FormatError, match="truncated within its header"):
        read(night)
    night.write_bytes(whole[:1536])
    with pytest.raises(FormatError, match=r"holds no whole record|is truncated"):
        read(night, truncated=True)


@pytest.mark.parametrize(
    ("at", "text", "message"),
    [
        (0, b"ABCDEFGH", "expected '0"), (252, b"abcd", "number of signals is 'abcd'"), (244, b"0       ", "record duration is 0 s"),
        (184, b"512     ", "header says it has 512 bytes"), (236, b"-1      ", None), (244, b"nan     ", "record duration is 'nan'"),
    ],
)  # fmt: skip
def test_damaged_headers(night, at, text, message):
    _patch(night, at, text)
    if message is None:
        assert any("never closed" in w for w in read(night).warnings)
        return
    with pytest.raises(FormatError, match=message) as caught:
        read(night)
    assert str(night) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_flat_calibration_is_said(tmp_path):
    path = tmp_path / "f.edf"
    edfio.Edf([edfio.EdfSignal(EEG, 200, label="C3", physical_dimension="uV", physical_range=(-400, 400))]).write(path)
    _patch(path, 256 + 16 + 80 + 8 + 8, b"-400    ")
    assert any("range is empty" in w for w in read(path).warnings)


def test_kinds_by_label():
    labels = {"EEG Fpz-Cz": "eeg", "C3-A1": "eeg", "E1": "eog", "LOC": "eog", "ROC": "eog", "Chin1": "emg", "ECG": "ecg", "Status": "sync", "SaO2": "other",
              "F4": "eeg", "O2-M1": "eeg", "EMG submental": "emg", "EOG horizontal": "eog", "LFP CA1": "lfp", "Resp oro-nasal": "other"}  # fmt: skip
    assert {k: channel_kind(k) for k in labels} == labels


def test_kinds_can_be_corrected(night):
    assert read(night, kinds={"EMG submental": "lfp"}).signals["lfp"].names == ["EMG submental"]
    with pytest.raises(FormatError, match="kinds names the channel 'nope'"):
        read(night, kinds={"nope": "eeg"})


def test_opening_a_huge_file_reads_no_samples(tmp_path):
    """9 GB of EDF, sparse: opened, and one second in the middle read, in a few MB."""
    path = tmp_path / "huge.edf"
    edfio.Edf([edfio.EdfSignal(np.zeros(1000), 1000, label=f"C{i}", physical_dimension="uV", physical_range=(-1, 1)) for i in range(50)]).write(path)
    records = 90_000
    _patch(path, 236, str(records).encode().ljust(8))
    with path.open("r+b") as f:
        f.truncate(256 * 51 + records * 1000 * 50 * 2)
    tracemalloc.start()
    try:
        rec = read(path)
        assert rec.duration == records
        assert rec.signals["eeg"].span(45_000, 45_001)[1].shape == (1000, 50)
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_a_folder_of_files(tmp_path, night):
    (tmp_path / "again.edf").write_bytes(night.read_bytes())
    assert [r.id for r in read_all(tmp_path)] == ["again", "night"]
    with pytest.raises(FormatError, match=r"holds several recordings .again.edf, night.edf.: name one"):
        read(tmp_path)


@pytest.mark.parametrize(("texts", "stages"), [
    (("WAKE", "NREM", "REM", "NREM"), ["WAKE", "NREM", "REM", "NREM"]), (("Sleep stage Wake", "SWS", "REM", "SWS"), ["WAKE", "NREM", "REM", "NREM"]),
    (("Wake", "seizure", "REM", "REM"), None), (("NREM", "Sleep stage N2", "REM", "Wake"), None),
])  # fmt: skip
def test_stages_of_a_rodent_are_a_hypnogram_where_nrem_is_among_them(tmp_path, texts, stages):
    edges = [0.0, 20.0, 44.0, 52.0, 80.0]
    notes = [edfio.EdfAnnotation(a, b - a, t) for a, b, t in zip(edges, edges[1:], texts)]
    signal = edfio.EdfSignal(np.zeros(16_000) + np.arange(16_000) % 7, 200.0, label="EEG", physical_dimension="uV")
    edfio.Edf([signal], annotations=notes).write(tmp_path / "m.edf")
    rec = read(tmp_path / "m.edf")
    if stages is None:
        assert rec.labels.get("scoring") is None or rec.labels["scoring"].stage_set == "aasm5"
        assert len(rec.labels["annotations"]) >= 3
        return
    h = rec.labels["scoring"]
    assert (h.stage_set, h.epoch, len(h)) == ("rodent3", 4.0, 20)
    assert [b.stage for b in h.bouts().itertuples()] == stages
    assert "annotations" not in rec.labels
