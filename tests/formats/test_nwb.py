"""NWB as pynwb writes it: series with conversion, gaps and electrodes, units, intervals, sleep states, the subject; and no samples on opening."""

import datetime
import tracemalloc

import h5py
import numpy as np
import pynwb
import pytest
from pynwb.behavior import Position, SpatialSeries
from pynwb.ecephys import LFP, ElectricalSeries
from pynwb.epoch import TimeIntervals

from brainmu.errors import FormatError
from brainmu.formats import read

RNG = np.random.default_rng(0)
COUNTS = RNG.integers(-3000, 3000, (5000, 4)).astype(np.int16)
T_POS = np.sort(RNG.uniform(100, 104, 300))


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    path = tmp_path_factory.mktemp("nwb") / "m5_day1.nwb"
    start = datetime.datetime(2024, 5, 1, 10, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    nwb = pynwb.NWBFile(session_description="a session", identifier="id-1", session_start_time=start)
    nwb.subject = pynwb.file.Subject(subject_id="m5", species="Mus musculus", sex="F", age="P90D", genotype="WT")
    device = nwb.create_device(name="probe")
    group = nwb.create_electrode_group(name="shank0", description="four sites", location="CA1", device=device)
    for i in range(4):
        nwb.add_electrode(x=float(i), y=20.0 * i, z=0.0, location=["CA1", "CA1", "CA3", "unknown"][i], group=group)
    region = nwb.create_electrode_table_region(region=[0, 2, 1, 3], description="all")
    module = nwb.create_processing_module(name="ecephys", description="lfp")
    lfp = LFP()
    module.add(lfp)
    es = ElectricalSeries(name="ElectricalSeries", data=COUNTS, electrodes=region, starting_time=100.0, rate=1250.0, conversion=0.195e-6)
    lfp.add_electrical_series(es)
    gapped = np.r_[100 + np.arange(2000) / 1000, 105 + np.arange(3000) / 1000]
    one = nwb.create_electrode_table_region(region=[0], description="one")
    nwb.add_acquisition(ElectricalSeries(name="EMG_raw", data=COUNTS[:, :1], electrodes=one, timestamps=gapped, conversion=1e-6, offset=1e-3))
    behaviour = nwb.create_processing_module(name="behavior", description="position")
    position = Position()
    behaviour.add(position)
    position.add_spatial_series(SpatialSeries(name="track", data=RNG.random((300, 2)) * 100, timestamps=T_POS, unit="cm", reference_frame="corner"))
    behaviour.add(pynwb.TimeSeries(name="pupil", data=RNG.random(400), unit="mm", rate=100.0, starting_time=100.0))
    nwb.add_acquisition(pynwb.TimeSeries(name="ttl", data=np.array([1, 2, 1], dtype=np.int8), timestamps=[100.5, 101.0, 102.0], unit="n/a"))
    for name in ("quality", "brain_area"):
        nwb.add_unit_column(name=name, description=name)
    for i, q in enumerate(("good", "mua", "good")):
        nwb.add_unit(spike_times=np.sort(RNG.uniform(100, 104, 50 * i)), quality=q, brain_area="CA1", electrodes=[i])
    nwb.add_trial(start_time=100.0, stop_time=101.0)
    nwb.add_epoch(start_time=100.0, stop_time=102.0, tags=["sleep"])
    states = TimeIntervals(name="sleep_states", description="scored")
    states.add_column(name="state", description="stage")
    for a, b, s in ((100, 101, "WAKE"), (101, 103, "NREM"), (103, 104, "REM")):
        states.add_interval(start_time=float(a), stop_time=float(b), state=s)
    nwb.add_time_intervals(states)
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(nwb)
    return path


def test_series_in_microvolt_with_electrodes(session):
    rec = read(session)
    lfp = rec.signals["ElectricalSeries"] if "ElectricalSeries" in rec.signals else rec.signals["LFP"]
    assert (lfp.rate, lfp.start, lfp.unit, set(lfp.channels["kind"])) == (1250, 100, "uV", {"lfp"})
    assert lfp.channels["region"].tolist() == ["CA1", "CA3", "CA1", ""]
    assert lfp.channels["y"].tolist() == [0, 40, 20, 60]
    assert lfp.values.dtype == np.int16
    np.testing.assert_allclose(lfp.read(100, 200), COUNTS[100:200] * 0.195, rtol=1e-5)


def test_time_stamps_with_a_gap_and_an_offset(session):
    emg = read(session).signals["EMG_raw"]
    assert (emg.rate, set(emg.channels["kind"])) == (1000, {"emg"})
    np.testing.assert_allclose(emg.gaps.bounds, [[102, 105]])
    np.testing.assert_allclose(emg.span(101.999, 102.001)[1], [[COUNTS[1999, 0] + 1000], [np.nan]])
    np.testing.assert_allclose(emg.span(105, 105.001)[1], [[COUNTS[2000, 0] + 1000]])


def test_position_and_behaviour(session):
    rec = read(session)
    track = rec.signals["track"]
    assert (track.rate, track.unit, track.names, set(track.channels["kind"])) == (None, "m", ["x", "y"], {"position"})
    assert 0.9 < track.read().max() <= 1.0
    np.testing.assert_array_equal(track.times, T_POS)
    assert (rec.signals["pupil"].unit, set(rec.signals["pupil"].channels["kind"])) == ("mm", {"behaviour"})


def test_units_intervals_states_and_subject(session):
    rec = read(session)
    assert rec.spikes is not None
    assert rec.spikes.units[["id", "nwb_id", "quality", "region", "n_spikes"]].to_numpy().tolist() == [[1, 1, "mua", "CA1", 50], [2, 2, "good", "CA1", 100]]
    assert any("1 of 3 units have no spikes" in w for w in rec.warnings)
    assert rec.events("trials").kind.tolist() == ["trial"]
    assert rec.events("ttl").value.tolist() == [1, 2, 1]
    assert rec.events("epochs").tags.tolist() == ["sleep"]
    assert rec.hypnogram("scoring").stages_list() == ["WAKE", "NREM", "NREM", "REM"]
    assert rec.hypnogram("scoring").start == 100
    assert (rec.subject, rec.species, rec.subject_meta["sex"]) == ("m5", "mouse", "F")
    assert rec.started_at is not None
    assert rec.started_at.isoformat() == "2024-05-01T10:00:00+02:00"


def test_finer_epochs(session):
    assert read(session, epoch=0.5).hypnogram("scoring").stages_list() == ["WAKE"] * 2 + ["NREM"] * 4 + ["REM"] * 2


def test_what_is_not_nwb(tmp_path, session):
    for name, content, message in (
        ("a", b"", "is empty"),
        ("b", b"something else", "is not HDF5"),
        ("c", session.read_bytes()[:30_000], "pynwb cannot read"),
    ):
        path = tmp_path / f"{name}.nwb"
        path.write_bytes(content)
        with pytest.raises(FormatError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
    with h5py.File(tmp_path / "d.nwb", "w") as f:
        f["x"] = 1
    with pytest.raises(FormatError, match="pynwb cannot read"):
        read(tmp_path / "d.nwb")


def test_tables_of_others_keep_their_own_meaning(tmp_path, session):
    """Only brainmu's own notes make a column the peak, kind or content of events, and invalid times the gaps of a signal."""
    start = datetime.datetime(2024, 5, 1, 10, tzinfo=datetime.UTC)
    nwb = pynwb.NWBFile(session_description="a session", identifier="id-2", session_start_time=start, notes="brainmu.synth {damaged")
    cues = TimeIntervals(name="cues", description="cues")
    for column in ("content", "peak", "kind"):
        cues.add_column(name=column, description=column)
    cues.add_interval(start_time=1.0, stop_time=2.0, content="tone", peak=0.7, kind="go")
    nwb.add_time_intervals(cues)
    nwb.add_invalid_times_column(name="signal", description="which")
    nwb.add_invalid_time_interval(start_time=0.0, stop_time=1.0, signal="x")
    nwb.add_acquisition(pynwb.TimeSeries(name="x", data=np.zeros(100), unit="V", rate=10.0))
    path = tmp_path / "other.nwb"
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(nwb)
    rec = read(path)
    frame = rec.events("cues").to_frame()
    assert frame[["content", "content_", "peak", "peak_", "kind", "kind_"]].to_numpy().tolist() == [["", "tone", 1.5, 0.7, "cues", "go"]]
    assert rec.events("invalid_times").signal.tolist() == ["x"]
    assert not len(rec.signals["x"].gaps)
    assert rec.source["about"]["notes"] == "brainmu.synth {damaged"
    assert any("changed by another program" in w for w in rec.warnings)


def test_nan_spike_times_are_refused(tmp_path, session):
    path = tmp_path / "n.nwb"
    path.write_bytes(session.read_bytes())
    with h5py.File(path, "r+") as f:
        f["units/spike_times"][7] = np.nan
    with pytest.raises(FormatError, match="1 of 150 spike times are NaN"):
        read(path)


def test_opening_a_huge_series_reads_no_samples(tmp_path, session):
    path = tmp_path / "huge.nwb"
    path.write_bytes(session.read_bytes())
    with h5py.File(path, "r+") as f:
        group = f["processing/ecephys/LFP/ElectricalSeries"]
        attrs = dict(group["data"].attrs)
        del group["data"]
        data = group.create_dataset("data", shape=(2**30, 4), dtype="<i2")
        data.attrs.update(attrs)
    read(path)
    tracemalloc.start()
    try:
        lfp = next(iter(read(path).signals_of("lfp").values()))
        assert lfp.n_samples == 2**30
        assert lfp.read(10**9, 10**9 + 100).shape == (100, 4)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()
