"""Kinds of NWB series that sleep and memory labs write: light, calcium, eyes, wheels, intervals, linked files, and hours of time stamps."""

import datetime
import tracemalloc
import warnings

import h5py
import numpy as np
import pynwb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynwb.behavior import BehavioralEpochs, CompassDirection, IntervalSeries, Position, PupilTracking, SpatialSeries
from pynwb.epoch import TimeIntervals
from pynwb.file import Subject
from pynwb.ophys import ImageSegmentation, OpticalChannel, RoiResponseSeries

from brainmu.errors import FormatError
from brainmu.formats import read, sniff
from brainmu.formats.nwb_stamps import scan, stream_grid
from brainmu.formats.timing import as_grid

RNG = np.random.default_rng(0)


def _file(**more):
    start = datetime.datetime(2024, 5, 1, 10, tzinfo=datetime.UTC)
    return pynwb.NWBFile(session_description="a night", identifier="id-1", session_start_time=start, **more)


def _write(path, nwb):
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(nwb)
    return path


def _light(nwb, data, **timing):
    device = nwb.create_device(name="laser")
    site = pynwb.ogen.OptogeneticStimulusSite(name="left", device=device, description="fibre", excitation_lambda=473.0, location="CA1")
    nwb.add_ogen_site(site)
    nwb.add_stimulus(pynwb.ogen.OptogeneticSeries(name="laser", data=data, site=site, description="power", **timing))


def test_light_as_pulses_and_trains(tmp_path):
    power = np.zeros(20_000)
    for onset in (1000, 1100, 1200, 9000, 9100):
        power[onset : onset + 10] = 5e-3
    power[15_000:] = 2e-3  # still on at the end
    nwb = _file()
    _light(nwb, power, rate=1000.0, starting_time=10.0)
    rec = read(_write(tmp_path / "a.nwb", nwb))
    e = rec.events("laser")
    np.testing.assert_allclose(e.start, [11.0, 11.1, 11.2, 19.0, 19.1, 25.0])
    np.testing.assert_allclose(e.stop, [11.01, 11.11, 11.21, 19.01, 19.11, 30.0])
    np.testing.assert_allclose(e.power, [5e-3] * 5 + [2e-3])
    assert set(e.content) == {"CA1"}
    trains = rec.events("laser_trains")
    np.testing.assert_allclose(np.c_[trains.start, trains.stop, trains.pulses], [[11.0, 11.21, 3], [19.0, 19.11, 2], [25.0, 30.0, 1]])
    assert trains.rate[0] == pytest.approx(10.0)


def test_light_at_time_stamps_and_light_that_is_never_on(tmp_path):
    nwb = _file()
    _light(nwb, np.array([0.0, 1.0, 0.0, 1.0, 0.0]), timestamps=[5.0, 6.0, 6.5, 8.0, 8.25])
    e = read(_write(tmp_path / "a.nwb", nwb)).events("laser")
    assert (e.start.tolist(), e.stop.tolist()) == ([6.0, 8.0], [6.5, 8.25])
    nwb = _file()
    _light(nwb, np.zeros(100), rate=10.0)
    rec = read(_write(tmp_path / "b.nwb", nwb))
    assert not rec.labels
    assert any("never on" in w for w in rec.warnings)


def test_calcium_with_the_ids_of_its_rois(tmp_path):
    nwb = _file()
    device = nwb.create_device(name="scope")
    channel = OpticalChannel(name="green", description="x", emission_lambda=500.0)
    plane = nwb.create_imaging_plane(
        name="plane", optical_channel=channel, description="x", device=device, excitation_lambda=600.0, indicator="GCaMP", location="CA1"
    )
    module = nwb.create_processing_module(name="ophys", description="x")
    segmentation = ImageSegmentation()
    module.add(segmentation)
    table = segmentation.create_plane_segmentation(name="cells", description="x", imaging_plane=plane)
    table.add_column(name="accepted", description="x")
    for i in range(4):
        table.add_roi(id=10 + i, image_mask=np.zeros((5, 5)), accepted=bool(i % 2))
    region = table.create_roi_table_region(region=[3, 1], description="two")
    x = RNG.random((300, 2))
    fluorescence = pynwb.ophys.DfOverF()
    module.add(fluorescence)
    fluorescence.add_roi_response_series(RoiResponseSeries(name="RoiResponseSeries", data=x, rois=region, unit="dF/F", rate=30.0))
    nwb.add_acquisition(pynwb.TimeSeries(name="photometry_405", data=RNG.random(100), unit="V", rate=20.0))
    rec = read(_write(tmp_path / "a.nwb", nwb))
    s = rec.signals["DfOverF_RoiResponseSeries"]
    assert (s.names, s.unit, s.channels["accepted"].tolist(), set(s.channels["kind"])) == (["roi_13", "roi_11"], "dF/F", [True, True], {"calcium"})
    np.testing.assert_allclose(s.read(), x, rtol=1e-6)
    assert set(rec.signals["photometry_405"].channels["kind"]) == {"photometry"}


def test_behaviour_and_its_units(tmp_path):
    nwb = _file()
    module = nwb.create_processing_module(name="behavior", description="x")
    t = {"rate": 50.0, "starting_time": 0.0}
    module.add(Position(spatial_series=[
        SpatialSeries(name="cm", data=np.full((100, 2), 50.0), unit="cm", reference_frame="corner", **t),
        SpatialSeries(name="pixels", data=np.full((100, 2), 50.0), unit="pixels", reference_frame="corner", **t),
        SpatialSeries(name="metres", data=np.full((100, 2), 50.0), unit="meters", reference_frame="corner", conversion=0.01, **t),
    ]))  # fmt: skip
    module.add(CompassDirection(spatial_series=SpatialSeries(name="head", data=np.zeros(100), unit="radians", reference_frame="north", **t)))
    module.add(PupilTracking(time_series=pynwb.TimeSeries(name="diameter", data=np.zeros(100), unit="px", **t)))
    for name, unit in (("wheel_position", "rad"), ("accelerometer", "g"), ("running_speed", "cm/s")):
        module.add(pynwb.TimeSeries(name=name, data=np.full(100, 30.0), unit=unit, **t))
    intervals = IntervalSeries(name="licks", data=np.array([1, -1, 1, -1, 1]), timestamps=[1.0, 2.0, 3.0, 3.5, 9.0])
    module.add(BehavioralEpochs(interval_series=intervals))
    rec = read(_write(tmp_path / "a.nwb", nwb))
    assert {n: (s.unit, set(s.channels["kind"]).pop(), round(float(s.read()[0, 0]), 6)) for n, s in rec.signals.items()} == {
        "cm": ("m", "position", 0.5), "pixels": ("px", "position", 50), "metres": ("m", "position", 0.5), "head": ("radians", "behaviour", 0),
        "diameter": ("px", "behaviour", 0), "wheel_position": ("rad", "behaviour", 30), "accelerometer": ("g", "behaviour", 30),
        "running_speed": ("m/s", "speed", 0.3),
    }  # fmt: skip
    assert rec.signals["head"].attrs["reference_frame"] == "north"
    assert (rec.events("licks").start.tolist(), rec.events("licks").stop.tolist()) == ([1, 3], [2, 3.5])
    assert any("1 edges of its intervals" in w for w in rec.warnings)


def test_one_table_a_stage(tmp_path):
    nwb = _file()
    for name, spans in (("wake_epochs", [(0, 10), (30, 40)]), ("NREM", [(10, 25)]), ("REM", [(25, 30)])):
        table = TimeIntervals(name=name, description="x")
        for a, b in spans:
            table.add_interval(start_time=float(a), stop_time=float(b))
        nwb.add_time_intervals(table)
    h = read(_write(tmp_path / "a.nwb", nwb), epoch=5.0).hypnogram("scoring")
    assert h.stages_list() == ["WAKE"] * 2 + ["NREM"] * 3 + ["REM"] + ["WAKE"] * 2


def test_subject_and_what_is_said_of_the_session(tmp_path):
    nwb = _file(virus="AAV-ChR2", lab="sleep lab", keywords=["sleep"])
    nwb.subject = Subject(subject_id="m1", species="Rattus norvegicus", sex="M", age="P120D", genotype="TH-Cre", strain="LE", weight="0.3 kg")
    rec = read(_write(tmp_path / "a.nwb", nwb))
    assert (rec.species, rec.subject) == ("rat", "m1")
    assert rec.subject_meta == {"sex": "M", "age": "P120D", "genotype": "TH-Cre", "strain": "LE", "weight": "0.3 kg", "virus": "AAV-ChR2"}
    assert rec.source["about"]["keywords"] == ["sleep"]


def test_data_in_another_file_is_read_from_there(tmp_path):
    x = RNG.integers(-500, 500, 5000).astype("<i2")
    inner = _file()
    inner.add_acquisition(pynwb.TimeSeries(name="raw", data=x, unit="mV", rate=1000.0))
    _write(tmp_path / "raw.nwb", inner)
    outer = _file()
    with pynwb.NWBHDF5IO(tmp_path / "raw.nwb", "r") as raw:
        series = raw.read().acquisition["raw"]
        outer.add_acquisition(pynwb.TimeSeries(name="lfp", data=series.data, unit="mV", rate=1000.0))
        with pynwb.NWBHDF5IO(tmp_path / "linked.nwb", "w", manager=raw.manager) as io:
            io.write(outer, link_data=True)
    rec = read(tmp_path / "linked.nwb")
    np.testing.assert_allclose(rec.signals["lfp"].read()[:, 0], x * 1e3, rtol=1e-5)
    assert {f.rsplit("/", 1)[1] for f in rec.source["files"]} == {"linked.nwb", "raw.nwb"}


def test_nwb_in_zarr_is_named(tmp_path):
    folder = tmp_path / "a.nwb.zarr"
    folder.mkdir()
    (folder / ".zattrs").write_text('{"neurodata_type": "NWBFile", "namespace": "core"}')
    (folder / ".zgroup").write_text('{"zarr_format": 2}')
    assert sniff(folder) == "nwb"
    with pytest.raises(FormatError, match="is NWB in zarr, which is not read: export it"):
        read(folder)


def test_chatter_of_pynwb_is_no_note_of_the_recording():
    from brainmu.formats.nwb import _concerns_data

    def said(text, category=UserWarning):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            warnings.warn(text, category, stacklevel=1)
        return _concerns_data(caught[0])

    assert not said("The 'manufacturer' field is deprecated. Instead, use DeviceModel.manufacturer")
    assert not said("Ignoring cached namespace 'core' version 2.2.5 because version 2.9.0 is already loaded.")
    assert not said("x will change", FutureWarning)
    assert said("TimeSeries 'a': Length of data does not match length of timestamps.")
    assert said("Path to Group altered/broken at /acquisition/x")


# -- time stamps ----------------------------------------------------------------------------------------------------
@settings(deadline=None, max_examples=60)
@given(
    n=st.integers(200, 3000), rate=st.sampled_from([1250.0, 30.0, 999.97]), jitter=st.sampled_from([0.0, 0.005]),
    gaps=st.lists(st.tuples(st.integers(10, 190), st.integers(1, 500)), max_size=4), chunk=st.integers(64, 700), seed=st.integers(0, 9),
)  # fmt: skip
def test_streamed_time_stamps_give_the_same_grid(n, rate, jitter, gaps, chunk, seed):
    index = np.arange(n)
    for at, width in gaps:
        index = index + np.where(np.arange(n) >= at, width, 0)
    t = 17.3 + index / rate + np.random.default_rng(seed).uniform(-jitter, jitter, n) / rate
    whole, streamed = as_grid(t), stream_grid(t, chunk)
    assert (whole is None) == (streamed is None)
    if whole is not None and streamed is not None:
        assert streamed.rate == pytest.approx(whole.rate, rel=1e-12)
        assert streamed.start == whole.start
        np.testing.assert_array_equal(streamed.first, whole.first)
        np.testing.assert_array_equal(streamed.length, whole.length)


def test_uneven_time_stamps_and_wrong_ones():
    t = np.sort(RNG.uniform(0, 100, 5000))
    assert stream_grid(t, 512) is None
    assert (scan(t, 512).unfinished, scan(t, 512).backward) == (0, 0)
    t[700], t[2000] = np.nan, t[1990]
    assert scan(t, 512).unfinished == 1
    assert scan(np.array([0.0, 1, 1, 2, 1.5, 3]), 2).backward == 2


@pytest.mark.slow
def test_ten_hours_of_time_stamps_cost_little_memory(tmp_path):
    nwb = _file()
    nwb.add_acquisition(pynwb.TimeSeries(name="lfp", data=np.zeros(100, "<i2"), unit="mV", timestamps=np.arange(100) / 1250))
    path = _write(tmp_path / "a.nwb", nwb)
    n = 10 * 3600 * 1250
    with h5py.File(path, "r+") as f:
        group = f["acquisition/lfp"]
        kept = {k: dict(group[k].attrs) for k in ("data", "timestamps")}
        for k in kept:
            del group[k]
        data = group.create_dataset("data", shape=(n,), dtype="<i2", chunks=(1 << 20,))
        stamps = group.create_dataset("timestamps", shape=(n,), dtype="<f8", chunks=(1 << 18,))
        for i in range(0, n, 1 << 20):
            k = np.arange(i, min(i + (1 << 20), n))
            stamps[k[0] : k[-1] + 1] = 100 + (k + np.where(k > 20_000_000, 5000, 0)) / 1250 * (1 + 2e-6)
        data.attrs.update(kept["data"])
        stamps.attrs.update(kept["timestamps"])
    read(_write(tmp_path / "small.nwb", _file()))
    tracemalloc.start()
    try:
        lfp = read(path).signals["lfp"]
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()
    assert lfp.rate == pytest.approx(1250 / (1 + 2e-6), rel=1e-10)
    assert lfp.n_samples == n + 5000
    assert len(lfp.gaps) == 1
