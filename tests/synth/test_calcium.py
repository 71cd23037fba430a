from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import nnls

import brainmu as bm
from brainmu.core import EventTable, Recording, Spikes
from brainmu.errors import InputError
from brainmu.synth import INDICATORS, CalciumModel, Indicator, PhotometryModel, calcium, photometry


@pytest.fixture(scope="module")
def spikes():
    rng = np.random.default_rng(0)
    times = [np.sort(rng.uniform(0, 600, n)) for n in (60, 120, 300)]
    return Spikes(np.concatenate(times), np.repeat([3, 5, 9], [60, 120, 300]))


@pytest.mark.parametrize("name", ["GCaMP6f", "GCaMP6s"])
def test_a_single_spike_looks_as_published(name):
    i = INDICATORS[name]
    t = np.arange(0, 5, 1e-4)
    y = i.response(t)
    assert y.max() == pytest.approx(i.amplitude, rel=1e-3)
    assert t[y.argmax()] == pytest.approx(i.rise, abs=2e-4)
    assert t[y > y.max() / 2].max() - t[y.argmax()] == pytest.approx(i.decay, abs=1e-3)


def test_the_clean_trace_is_the_sum_of_its_spikes(spikes):
    _, truth = calcium(spikes, 600.0, model=CalciumModel(amplitude_spread=0.0), seed=1)
    t = truth.clean.read_times()
    wanted = sum(INDICATORS["GCaMP6f"].response(t - s) for s in spikes.of(5))
    assert np.abs(truth.clean.read()[:, 1] - wanted).max() < 1e-5
    assert truth.clean.channels["unit_id"].tolist() == [3, 5, 9]


def test_same_seed_same_light_however_it_is_sliced(spikes):
    model = CalciumModel(frame_rate=120.0)  # more than one block
    a, b = (calcium(spikes, 600.0, model=model, seed=4)[0]["calcium"] for _ in range(2))
    whole = a.read()
    assert a.n_samples > 65_536
    for i, j in ((0, 10), (32_760, 32_780), (65_000, 71_000)):
        assert np.array_equal(b.read(i, j), whole[i:j])
    assert not np.array_equal(calcium(spikes, 600.0, model=model, seed=5)[0]["calcium"].read(0, 10), whole[:10])
    step = np.abs(np.diff(whole[:, 0]))
    assert step[32_767] < 6 * np.median(step) + 1e-9


def test_deconvolution_finds_the_planted_spikes(spikes):
    signals, truth = calcium(spikes, 200.0, model=CalciumModel(noise=0.3, motion_size=0.0, neuropil=0.0, bleach=0.0, output="dff"), seed=2)
    x = signals["calcium"].read()[:, 0].astype(float)
    # An oracle: non-negative least squares on the true kernel, ten seconds at a time.
    n = 300
    kernel = truth.amplitude[0] / INDICATORS["GCaMP6f"].amplitude * INDICATORS["GCaMP6f"].response(np.arange(n) / 30.0 + 1 / 60)
    design = np.array([[kernel[i - k] if i >= k else 0.0 for k in range(n)] for i in range(n)])
    found = np.concatenate([nnls(design, x[i : i + n])[0] for i in range(0, len(x), n)])
    true = np.histogram(spikes.of(3), np.arange(len(x) + 1) / 30.0 - 0.5 / 30)[0]
    smooth = np.ones(5)
    assert np.corrcoef(np.convolve(found, smooth, "same"), np.convolve(true, smooth, "same"))[0, 1] > 0.8
    assert found[found > 0.3].sum() == pytest.approx(true.sum(), rel=0.3)


def test_noise_neuropil_bleaching_and_motion_are_what_was_asked_for(spikes):
    quiet = Spikes([300.0], [1])
    kind = dict(motion_size=0.0, neuropil=0.0, bleach=0.0, output="dff")
    x = calcium(quiet, 290.0, model=CalciumModel(noise=3.0, **kind))[0]["calcium"].read()[:, 0]
    assert 100 * np.median(np.abs(np.diff(x))) / np.sqrt(30.0) == pytest.approx(3.0, rel=0.05)
    # Over the whole light at rest, neuropil included, the noise is what was asked for as well.
    y = calcium(quiet, 290.0, model=CalciumModel(noise=3.0, **(kind | {"neuropil": 0.7, "output": "raw"})))[0]["calcium"].read()[:, 0]
    assert 100 * np.median(np.abs(np.diff(y / np.median(y)))) / np.sqrt(30.0) == pytest.approx(3.0, rel=0.08)
    raw = calcium(quiet, 290.0, model=CalciumModel(noise=0.0, motion_size=0.0, bleach=0.4, bleach_time=60.0))[0]
    f = raw["calcium"].read()[:, 0]
    assert f[-1] / f[0] == pytest.approx(1 - 0.4 + 0.4 * np.exp(-290 / 60), rel=0.01)
    signals, truth = calcium(spikes, 600.0, model=CalciumModel(noise=0.0, motion_rate=0.2, bleach=0.0), seed=3)
    still = calcium(spikes, 600.0, model=CalciumModel(noise=0.0, motion_size=0.0, bleach=0.0), seed=3)[0]["calcium"].read()
    moved = np.abs(signals["calcium"].read() / still - 1).max(axis=1)
    inside = np.zeros(len(moved), dtype=bool)
    t = signals["calcium"].read_times()
    for a, b in zip(truth.motion.start, truth.motion.stop):
        inside |= (t >= a) & (t <= b)
    assert moved[~inside].max() < 1e-5
    assert moved[inside].max() > 0.01
    around = signals["neuropil"].read()[:, 0]
    assert np.corrcoef(around, truth.clean.read().mean(axis=1))[0, 1] > 0.9


def test_bursts_are_supralinear_and_saturate():
    burst = Spikes([1.0, 1.01, 1.02, 1.03], [0] * 4)
    top = {k: float(calcium(burst, 5.0, model=CalciumModel(amplitude_spread=0.0, **v))[1].clean.read().max())
           for k, v in {"linear": {}, "hill": {"hill": 1.6}, "saturated": {"saturation": 0.3}}.items()}  # fmt: skip
    assert top["hill"] > 1.5 * top["linear"]
    assert top["saturated"] < 0.3 < top["linear"]


def test_preprocess_takes_both_and_its_dff_is_the_planted_one(spikes, tmp_path):
    roi, cells = calcium(spikes, 600.0, model=CalciumModel(noise=0.1, neuropil=0.0, motion_size=0.0), seed=1)
    events = EventTable(np.arange(20.0, 580, 7), np.arange(20.0, 580, 7) + 0.1)
    fibre, light = photometry(events, 600.0, seed=1)
    rec = Recording.from_arrays("m1", "m1", "mouse", signals=roi | fibre)
    with_dff = bm.preprocess(rec, tmp_path / "m1.zarr", derive=["dff"])
    found = with_dff.signals["dff"] if "dff" in with_dff.signals else with_dff.signals["dff_photometry"]
    names = {s.channels["name"].iloc[0]: s for k, s in with_dff.signals.items() if k.startswith("dff")}
    got, true = names["signal_470"].read()[:, 0], light.clean.read()[:, 0]
    assert np.corrcoef(got, true)[0, 1] > 0.8
    imaged = names["roi_3"].read()[:, 0]
    assert np.corrcoef(imaged, cells.clean.read()[:, 0])[0, 1] > 0.9
    assert found.unit == "dF/F"


def test_motion_is_shared_by_the_isosbestic_channel_and_bleaching_is_not():
    events = EventTable([30.0, 90.0], [30.0, 90.0])
    signals, truth = photometry(events, 1200.0, model=PhotometryModel(noise=0.0, drift=0.0), seed=2)
    x, t = signals["photometry"].read().astype(float), signals["photometry"].read_times()
    m = truth.model
    fade = [1 - b + b * np.exp(-t / tau) for b, tau in ((m.bleach, m.bleach_time), (m.isosbestic_bleach, m.isosbestic_time))]
    dff = truth.clean.read()[:, 0].astype(float)
    moved = [x[:, 0] / (m.baseline * fade[0] * (1 + dff)) - 1, x[:, 1] / (m.isosbestic * fade[1] * (1 + m.leak * dff)) - 1]
    assert np.abs(moved[0] - moved[1]).max() < 1e-5
    assert np.abs(moved[0] - truth.shared(t)).max() < 1e-5
    assert np.abs(moved[0]).max() > 0.02
    assert np.ptp(fade[0] / fade[1]) > 0.03


def test_the_light_of_a_population_follows_its_rate(spikes):
    signals, truth = photometry(spikes, 600.0, model=PhotometryModel(bleach=0.0, isosbestic_bleach=0.0, motion_size=0.0, drift=0.0, noise=0.001))
    x = signals["photometry"].read().astype(float)
    ratio = x[:, 0] / x[:, 1] * 0.6 - 1
    assert np.corrcoef(ratio, truth.clean.read()[:, 0])[0, 1] > 0.95


def test_the_microscope_and_the_fibre_move_and_hiss_on_their_own(spikes):
    roi, cells = calcium(spikes, 600.0, model=CalciumModel(frame_rate=100.0, motion_rate=1 / 45), seed=1)
    fibre, light = photometry(spikes, 600.0, seed=1)
    assert not np.array_equal(cells.motion.start[:3], light.motion.start[:3])
    a, b = (np.diff(s.read(0, 20_000)[:, 0].astype(float)) for s in (roi["calcium"], fibre["photometry"]))
    assert abs(np.corrcoef(a, b)[0, 1]) < 0.1


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: CalciumModel(indicator="GCaMP7"), "GCaMP6"), (lambda: CalciumModel(frame_rate=0.0), "frame_rate"), (lambda: CalciumModel(output="F"), "raw"),
        (lambda: CalciumModel(bleach=2.0), "bleach"), (lambda: Indicator(0.2, 0.5, 0.1), "before"), (lambda: PhotometryModel(leak=-0.1), "leak"),
        (lambda: calcium(Spikes([], []), 10.0), "units"), (lambda: calcium(Spikes([1.0], [0]), -1.0), "stop"),
        (lambda: photometry(EventTable([1.0], [1.0]), 10.0, seed=-1), "seed"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_name(make, word):
    with pytest.raises(InputError, match=word):
        make()
