"""Derived streams: what they hold, that slicing does not change a bit, and what the store says of them."""

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import brainmu as bm
from brainmu.core import Intervals, Recording, Signal
from brainmu.errors import ConfigError, InputError, MissingDataError
from brainmu.store.config import PreprocessConfig
from brainmu.store.derived import derive
from brainmu.store.tiles import Tiles

RNG = np.random.default_rng(7)
RATE, N = 50.0, 80_000
T = np.arange(N) / RATE


def circle(noise=0.002):
    """0.4 m around a circle in 10 s (0.251 m/s), with lost points, a hole and a gap."""
    xy = 0.4 * np.c_[np.cos(T / 10 * 2 * np.pi), np.sin(T / 10 * 2 * np.pi)] + noise * RNG.standard_normal((N, 2))
    xy[RNG.random(N) < 0.05] = np.nan
    xy[20_000:20_200] = np.nan
    xy[32_760:32_775:3] += 1.0  # the tracking jumps, where tiles meet
    return xy.astype("f4")


def tracked(**more):
    keys = dict(values=circle(), rate=RATE, unit="m", kind="position", channels=["x", "y"], gaps=Intervals([[1000.0, 1010.0]])) | more
    return Recording.from_arrays("m1", signals={"position": Signal(**keys)})


def fibre(transients=True, n=40_000, rate=20.0):
    """Light that bleaches, moves with the animal and answers to calcium; the control sees all but the last."""
    t = np.arange(n) / rate
    motion = 0.05 * np.sin(t / 7) * (1 + np.sin(t / 91))
    shared = (1 + 0.5 * np.exp(-t / 300)) * (1 + motion)
    truth = np.where(t % 25 < 3, 0.2 * np.exp(-(t % 25)), 0.0) if transients else np.zeros(n)
    control = 0.8 * shared + 0.001 * RNG.standard_normal(n)
    signal = 2.0 * shared * (1 + truth) + 0.002 * RNG.standard_normal(n)
    return t, truth, signal, control


def test_speed_and_position():
    rec = tracked()
    out = derive(rec, ["position_smoothed", {"speed": {"sigma": 0.2}}])
    p, v = out["position_smoothed"], out["speed"]
    assert (p.unit, p.names, v.unit, v.kind, v.n_channels, v.rate) == ("m", ["x", "y"], "m/s", "speed", 1, RATE)
    assert v.attrs == {
        "derived": {"name": "speed", "from": ["position"], "parameters": {"sigma": 0.2, "bridge": 0.5, "max_speed": 2.0}, "channels": ["x", "y"]},
        "centred": True,
    }
    speed = v.read()[:, 0]
    assert np.nanmedian(speed) == pytest.approx(2 * np.pi * 0.4 / 10, rel=0.02)
    hole = np.isnan(speed)
    assert hole[20_000:20_200].all()
    assert hole[50_000:50_500].all(), "a gap has no speed, whatever lies in the array there"
    assert hole.sum() < 720
    xy = 0.4 * np.c_[np.cos(T / 10 * 2 * np.pi), np.sin(T / 10 * 2 * np.pi)]
    assert np.nanmax(np.abs(p.read() - xy)) < 0.02


def test_a_jump_of_the_tracking_is_no_running():
    xy = 0.4 * np.c_[np.cos(T / 10 * 2 * np.pi), np.sin(T / 10 * 2 * np.pi)]
    clean = derive(tracked(values=xy), ["speed"])["speed"].read()
    xy = xy.copy()
    xy[[30_000, 32_767, 32_768, 32_769, 70_000]] += [2.0, 0.0]
    notes: list[str] = []
    speed = derive(tracked(values=xy), ["speed"], notes.append)["speed"].read()
    np.testing.assert_allclose(speed, clean, atol=0.02)
    assert notes == ["speed: 5 points of 'position' that the tracking jumped to and back, faster than 2 m/s (max_speed), taken as lost"]
    notes.clear()
    everything = derive(tracked(values=xy), [{"speed": {"max_speed": 0}}], notes.append)["speed"]
    assert np.nanmax(everything.read()) > 2 and not notes
    pixels = tracked(values=500 * xy, unit="px")
    assert np.nanmax(derive(pixels, ["speed"])["speed"].read()) > 1000
    assert np.nanmax(derive(pixels, [{"speed": {"max_speed": 1000}}])["speed"].read()) < 200
    moved = tracked(values=xy + np.where(T > 500, 0.6, 0.0)[:, None])
    derive(moved, ["speed"], notes.append)
    assert "1 step of 'position' faster than 2 m/s (max_speed) and without a way back, kept" in notes[-1]
    person = tracked(values=xy)
    person.species = "human"
    assert derive(person, ["speed"])["speed"].attrs["derived"]["parameters"]["max_speed"] == 0.0
    with pytest.raises(ConfigError, match="max_speed is -1"):
        PreprocessConfig(derive=({"speed": {"max_speed": -1.0}},))


@pytest.mark.parametrize("irregular", [False, True])
def test_slicing_changes_no_bit(irregular):
    rec = tracked()
    if irregular:
        s = rec.signals["position"]
        rec.signals["position"] = Signal(s.values, times=T + 0.004 * RNG.random(N), unit="cm", kind="position", channels=["x", "y"])
    _, _, signal, control = fibre()
    rec.signals["fp"] = Signal(np.c_[signal, control], rate=20.0, unit="V", kind="photometry", channels=["g", "iso"])
    rec.signals["cells"] = Signal(100 + RNG.gamma(1, 5, (6_000, 90)), rate=5.0, unit="a.u.", kind="calcium")
    entries = ["speed"] if irregular else ["position_smoothed", "speed", {"dff": {"signal": "g", "isosbestic": "iso"}}]
    for name, s in (derive(rec, entries) | ({} if irregular else derive(rec, [{"dff": {"method": "baseline"}}]))).items():
        whole = s.read()
        for step in (2_977, 12_345):
            pieces = np.concatenate([s.read(i, min(i + step, s.n_samples)) for i in range(0, s.n_samples, step)])
            np.testing.assert_array_equal(pieces, whole, err_msg=name)
        again = pickle.loads(pickle.dumps(s.values))
        np.testing.assert_array_equal(again[500:600], whole[500:600])
        np.testing.assert_array_equal(s.values[::1000], whole[::1000])
    if irregular:
        assert derive(rec, ["speed"])["speed"].unit == "m/s"


def test_tiles_agree_with_the_whole_array():
    """The borders of tiles are nowhere to be seen: one tile gives what many give."""
    rec = tracked()
    for name in ("position_smoothed", "speed"):
        values = derive(rec, [name])[name].values
        assert isinstance(values, Tiles)
        assert values.shape[0] > 2 * values.tile
        one = Tiles(values.shape, values.shape[0], values.compute)
        np.testing.assert_allclose(values[:], one[:], atol=1e-6)
    rec.signals["cells"] = Signal(100 + RNG.gamma(1, 5, (20_000, 70)), rate=7.3, unit="a.u.", kind="calcium")
    values = derive(rec, [{"dff": {"window": 20.0, "sigma": 3.0}}])["dff_cells"].values
    assert values.shape[0] > 1.2 * values.tile
    np.testing.assert_allclose(values[:], Tiles(values.shape, values.shape[0], values.compute)[:], atol=1e-6)


@pytest.mark.parametrize("method", ["isosbestic", "both", None])
def test_dff_finds_the_transients_under_motion_and_bleaching(method):
    _, truth, signal, control = fibre()
    table = pd.DataFrame({"name": ["g", "iso"], "isosbestic": ["iso", ""]})
    rec = Recording.from_arrays("m", signals={"photometry": dict(values=np.c_[signal, control], rate=20.0, unit="V", kind="photometry", channels=table)})
    out = derive(rec, [{"dff": {"method": method}}])
    assert list(out) == ["dff"]
    dff = out["dff"]
    assert (dff.unit, dff.names, dff.attrs["centred"]) == ("dF/F", ["g"], True)
    assert np.corrcoef(dff.read()[:, 0], truth)[0, 1] > 0.97
    fit = dff.attrs["derived"]["fit"]["g"]
    assert fit["method"] == (method or "both")
    assert fit["slope"] == pytest.approx(2.5, rel=0.05)
    # Without the control the motion stays in.
    alone = derive(rec, [{"dff": {"method": "exponential"}}])["dff"].read()[:, 0]
    assert np.corrcoef(alone, truth)[0, 1] < 0.9


def test_dff_keeps_motion_out_where_the_channels_bleach_differently():
    rng, rate = np.random.default_rng(3), 20.0
    t = np.arange(30_000) / rate
    slow = np.convolve(rng.standard_normal(len(t)), np.ones(20) / np.sqrt(20), "same")
    motion = 0.024 * slow / slow.std()
    f = 100 * (0.6 + 0.4 * np.exp(-t / 600)) * (1 + motion) + 0.2 * rng.standard_normal(len(t))
    c = 80 * (0.75 + 0.25 * np.exp(-t / 900)) * (1 + motion) + 0.2 * rng.standard_normal(len(t))
    table = pd.DataFrame({"name": ["g", "iso"], "isosbestic": ["iso", ""]})
    rec = Recording.from_arrays("m", signals={"photometry": dict(values=np.c_[f, c], rate=rate, unit="V", kind="photometry", channels=table)})

    def left(method, notes):
        dff = derive(rec, [{"dff": {"method": method}}], notes.append)["dff"].read()[:, 0]
        return np.polyfit(motion, dff, 1)[0]

    quiet: list[str] = []
    assert abs(left(None, quiet)) < 0.2
    assert not quiet
    notes: list[str] = []
    assert left("isosbestic", notes) < -0.5, "the plain fit follows the bleaching and inverts motion"
    assert any("without the bleaching of the two" in n and "method: both" in n for n in notes)


def test_dff_of_interleaved_channels_and_without_a_control():
    _, truth, signal, control = fibre()
    channels = pd.DataFrame({"name": ["G0_470"], "role": ["signal"], "isosbestic": ["G0_415"]})
    rec = Recording.from_arrays("m", signals={
        "photometry_470": dict(values=signal[1::2], rate=10.0, start=0.05, unit="a.u.", kind="photometry", channels=channels),
        "photometry_415": dict(values=control[0::2], rate=10.0, start=0.0, unit="a.u.", kind="photometry", channels=["G0_415"]),
    })  # fmt: skip
    out = derive(rec, ["dff"])
    assert list(out) == ["dff_470"]
    assert out["dff_470"].attrs["derived"]["from"] == ["photometry_470", "photometry_415"]
    assert np.corrcoef(out["dff_470"].read()[:, 0], truth[1::2])[0, 1] > 0.97
    notes: list[str] = []
    rec.signals["photometry_415"] = Signal(-control[0::2], rate=10.0, unit="a.u.", kind="photometry", channels=["G0_415"])
    derive(rec, ["dff"], notes.append)
    assert any("light is positive" in n for n in notes)
    derive(rec, [{"dff": {"method": "isosbestic"}}], notes.append)
    assert any("falls where the signal rises" in n for n in notes)
    del rec.signals["photometry_415"]
    with pytest.raises(MissingDataError, match="names the isosbestic channel 'G0_415', which is not there"):
        derive(rec, ["dff"])
    rec.signals["photometry_470"].channels["isosbestic"] = ""
    with pytest.raises(InputError, match="has no isosbestic channel, which method 'both' needs"):
        derive(rec, [{"dff": {"method": "both"}}])
    assert derive(rec, ["dff"])["dff_470"].attrs["derived"]["fit"]["G0_470"]["method"] == "exponential"
    bare = Recording.from_arrays("m", signals={"fp": dict(values=np.c_[signal, control], rate=20.0, unit="V", kind="photometry")})
    with pytest.raises(MissingDataError, match="says what its isosbestic channel is"):
        derive(bare, ["dff"])
    with pytest.raises(MissingDataError, match="there is no photometry channel 'x'"):
        derive(bare, [{"dff": {"signal": "x"}}])


def test_dff_of_calcium():
    rate = 15.0
    t = np.arange(20_000) / rate
    truth = np.where(t % 40 < 4, np.exp(-(t % 40)), 0.0)
    f = np.c_[(200 + 0.02 * t) * (1 + truth), np.full(len(t), -5.0)] + RNG.standard_normal((len(t), 2))
    rec = Recording.from_arrays("m", signals={"calcium_plane0": dict(values=f, rate=rate, unit="a.u.", kind="calcium")})
    dff = derive(rec, ["dff"])["dff_plane0"]
    values = dff.read()
    assert np.corrcoef(values[:, 0], truth)[0, 1] > 0.97
    assert np.abs(np.median(values[:, 0])) < 0.02
    assert np.isnan(values[:, 1]).all(), "a baseline below zero has no dF/F"
    rec.signals["calcium_plane0"] = Signal(f, times=t + 0.03 * RNG.random(len(t)), kind="calcium")
    with pytest.raises(InputError, match="sampled at uneven times"):
        derive(rec, ["dff"])


def test_what_is_refused():
    rec = tracked()
    for entries, message in (
        (["sped"], "derive: 'sped' is not known: did you mean 'speed'"),
        (["speed", {"speed": {}}], "asked for twice"),
        ([{"speed": {"sigm": 1.0}}], "derive: speed: unknown key 'sigm': did you mean 'sigma'"),
        ([{"speed": 3}], "settings of speed are 3"),
        ([{"speed": {}, "dff": {}}], "neither a name nor one name"),
        ([{"speed": {"sigma": -1.0}}], "derive: speed: sigma is -1.0 s"),
        ([{"dff": {"isosbestic": "iso"}}], "name the channel that it belongs to"),
    ):
        with pytest.raises(ConfigError, match=message):
            PreprocessConfig(derive=tuple(entries))
    with pytest.raises(MissingDataError, match="dff needs photometry or calcium, the recording has position"):
        derive(rec, ["dff"])
    with pytest.raises(MissingDataError, match="needs a position signal 'nose'"):
        derive(rec, [{"speed": {"signal": "nose"}}])
    rec.signals["speed"] = rec.signals["position"]
    with pytest.raises(InputError, match="makes a stream 'speed', and the recording has one already"):
        derive(rec, ["speed"])
    assert derive(rec, []) == {}


def test_emg_from_lfp_before_the_lfp_loses_its_band(tmp_path):
    n, rate = 40_000, 2000.0
    tone = np.repeat(RNG.uniform(0, 3, 40), n // 40)[:, None] * RNG.standard_normal((n, 1))
    table = pd.DataFrame({"name": ["a", "b", "c"], "shank": ["1", "2", "3"]})
    lfp = dict(values=10 * (RNG.standard_normal((n, 3)) + tone), rate=rate, unit="uV", kind="lfp", channels=table)
    rec = Recording.from_arrays("m", signals={"lfp": lfp})
    session = bm.preprocess(rec, tmp_path / "m.zarr", derive=["emg_from_lfp"], lfp_rate=500.0)
    emg = session.signals["emg_from_lfp"]
    assert (emg.kind, emg.rate, session.signals["lfp"].rate, emg.attrs["centred"]) == ("emg", 2.0, 500.0, True)
    assert emg.attrs["derived"]["name"] == "emg_from_lfp"
    assert emg.attrs["derived"]["from"] == ["lfp"]
    power = tone[:, 0].reshape(40, -1).std(axis=1) ** 2
    np.testing.assert_allclose(emg.read()[:, 0], power / (1 + power), atol=0.12)
    assert any("no electromyogram" in w for w in session.provenance["warnings"])
    slow = Recording.from_arrays("m", signals={"lfp": lfp | {"rate": 500.0}})
    with pytest.raises(MissingDataError, match="m: derive: emg_from_lfp: EMG from LFP needs 300-600 Hz"):
        derive(slow, ["emg_from_lfp"])
    with pytest.raises(MissingDataError, match="needs one signal with lfp or eeg channels, there is no such signal among position"):
        derive(tracked(), ["emg_from_lfp"])


def test_several_animals_and_pixels():
    a = circle()[:5000]
    signals = {f"position_{n}": dict(values=a, rate=5.0, unit="px", kind="position", channels=["x", "y"]) for n in ("m1", "m2")}
    notes: list[str] = []
    out = derive(Recording.from_arrays("m", signals=signals), ["speed"], notes.append)
    assert list(out) == ["speed_m1", "speed_m2"]
    assert out["speed_m1"].unit == "px/s"
    assert notes[0] == "speed: position 'position_m1' is in px, so speed is in px/s, not metres"
    slow = Recording.from_arrays("m", signals={"position": dict(values=a, rate=1.0, unit="m", kind="position", channels=["x", "y"])})
    speed = derive(slow, ["speed"])["speed"]
    assert np.isfinite(speed.read()).mean() > 0.8, "frames a second apart are neighbours, not holes"
    assert speed.attrs["derived"]["parameters"]["bridge"] == 1.5


def test_the_store_holds_them(tmp_path):
    rec = tracked()
    entries = ["position_smoothed", {"speed": {"sigma": 0.25}}]
    stores = {k: bm.preprocess(rec, tmp_path / f"{k}.zarr", derive=entries, chunk_kib=k, shard_mib=1) for k in (16, 64)}
    session = stores[16]
    speed = session.signals["speed"]
    assert speed.attrs["centred"] is True
    assert speed.attrs["derived"]["parameters"] == {"sigma": 0.25, "bridge": 0.5, "max_speed": 2.0}
    np.testing.assert_array_equal(speed.read(), derive(rec, entries)["speed"].read())
    np.testing.assert_array_equal(speed.read(), stores[64].signals["speed"].read())
    assert session.provenance["config"]["derive"] == entries
    twin = bm.preprocess(rec, tmp_path / "twin.zarr", derive=entries, chunk_kib=16, shard_mib=1, threads=1)
    assert _digest(Path(twin.path)) == _digest(Path(session.path))
    assert bm.preprocess(rec, tmp_path / "16.zarr", derive=entries, chunk_kib=16, shard_mib=1).already_complete
    with pytest.raises(MissingDataError, match="dff needs"):
        bm.preprocess(rec, tmp_path / "other.zarr", derive=["dff"])
    assert not (tmp_path / "other.zarr").exists()


def _digest(store: Path) -> dict[str, str]:
    return {p.relative_to(store).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(store.rglob("*")) if p.is_file()}


@pytest.mark.realdata
def test_a_rat_on_a_track(real_data):
    rec = bm.read(real_data / "rat-linear-track", pixels_per_cm=3.0)
    speed = derive(rec, [{"speed": {"sigma": 0.25}}])["speed"]
    run, rest = speed.span(0, 17 * 60 + rec.start)[1], speed.span(18 * 60 + rec.start, rec.stop)[1]
    assert np.nanmax(speed.read()) < 3.0, "no rat runs faster than 3 m/s"
    assert np.nanmedian(run) > 5 * np.nanmedian(rest)
