"""Synthetic animals lie where the literature and real recordings lie; the table of the documentation is made by the same code."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path

import numpy as np
import pytest

import brainmu.synth as synth

_SCRIPTS = Path(__file__).resolve().parents[2] / "docs" / "figures"


@pytest.fixture(scope="module")
def script():
    """Import a script of the documentation by its name."""

    def load(name):
        spec = importlib.util.spec_from_file_location(name, _SCRIPTS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(_SCRIPTS))
        yield load


@pytest.fixture(scope="module")
def realism(script):
    return script("synth_realism")


@pytest.mark.slow
def test_mice_lie_within_the_ranges_of_the_literature(realism):
    found = [realism.measure(*synth.recording(hours=2.0, seed=s)) for s in range(3)]
    outside = {}
    for name, (_, low, high, _) in realism.BANDS.items():
        value = float(np.mean([f[name] for f in found]))
        if not low <= value <= high:
            outside[name] = value
    assert not outside


@pytest.mark.slow
@pytest.mark.realdata
def test_units_ripples_and_coherence_lie_near_real_ones(realism, script, real_data):
    """Within a factor of what several real recordings span: the sets differ in region, species and sorter."""
    real = script("real_recordings").real_rodents(real_data, realism.spectra, realism.theta_index)
    found = realism.measure(*synth.recording(hours=2.0, seed=0))
    for name, factor in (
        ("ripple, median", 1.5), ("ripples in NREM", 3.0), ("place cells in rest, median", 3.0), ("log-normal spread of their rates", 1.5),
        ("place-cell intervals below 10 ms", 2.0), ("delta power NREM/WAKE", 2.0),
    ):  # fmt: skip
        values = list(real[name].values())
        assert min(values) / factor < found[name] < max(values) * factor, name


@pytest.mark.slow
@pytest.mark.realdata
def test_human_shares_of_power_are_those_of_scored_nights(realism, script, real_data):
    real = script("real_recordings").sleep_edf(real_data)
    made = [synth.recording(hours=8.0, seed=s, species="human", n_channels=1, lfp_rate=100.0) for s in range(2)]
    share = np.mean([realism.relative_powers(r.signals["eeg"].read()[:, 0], t.hypnogram.codes) for r, t in made], axis=0)
    low, high = np.quantile(real, (0.05, 0.95), axis=0)
    inside = (share > low - 0.02) & (share < high + 0.02)
    assert inside.mean() > 0.9, np.argwhere(~inside)


@pytest.mark.slow
@pytest.mark.realdata
def test_the_classifier_is_at_chance_between_alike_and_not_between_unlike(script, real_data):
    """Without a difference it finds none, so that what it reports of real against synthetic is not a leak between its folds."""
    classifier = script("synth_classifier")
    real, _, rate = classifier.intracranial(real_data)
    halves = [(x[side::2], g) for x, g in real for side in (0, 1)]
    bands = [(1, 4), (4, 9), (9, 16), (16, 30)]
    alike = classifier.tell_apart(halves[0::2], halves[1::2], rate, bands, shapes=False)
    assert 0.4 < float(alike.split()[0]) < 0.6
    noise = [(np.random.default_rng(g).standard_normal((200, 2000)), g) for g in (0, 1)]
    assert float(classifier.tell_apart(real, noise, rate, bands, shapes=False).split()[0]) > 0.95


@pytest.mark.realdata
def test_human_nights_look_like_scored_ones(real_data):
    import mne

    codes = {"Sleep stage W": "W", "Sleep stage 1": "N1", "Sleep stage 2": "N2", "Sleep stage 3": "N3", "Sleep stage 4": "N3", "Sleep stage R": "R"}
    real = []
    for file in sorted((real_data / "human-sleepedf-hypnograms").glob("*.edf")):
        notes = mne.read_annotations(file)
        night = np.array([codes.get(d, "UNS") for d, n in zip(notes.description, notes.duration) for _ in range(round(n / 30))])
        asleep = np.flatnonzero(np.isin(night, ["N1", "N2", "N3", "R"]))
        real.append(night[asleep[0] : asleep[-1] + 1])
    made = [np.array(synth.recording(hours=8.0, seed=s, species="human")[1].hypnogram.stages_list()) for s in range(10)]
    made = [n[np.flatnonzero(n != "W")[0] :] for n in made]

    def moves(nights):
        counts = np.zeros((5, 5))
        for n in nights:
            for a, b in itertools.pairwise(n):
                if a != b and "UNS" not in (a, b):
                    counts[("W", "N1", "N2", "N3", "R").index(a), ("W", "N1", "N2", "N3", "R").index(b)] += 1
        return counts / counts.sum(1, keepdims=True)

    for stage in ("W", "N1", "N2", "N3", "R"):
        assert abs(np.mean([np.mean(n == stage) for n in made]) - np.mean([np.mean(n == stage) for n in real])) < 0.06
    assert np.abs(moves(made) - moves(real)).max() < 0.15
    assert np.mean([np.sum(n[1:] != n[:-1]) for n in made]) == pytest.approx(np.mean([np.sum(n[1:] != n[:-1]) for n in real]), rel=0.35)


def test_a_mechanism_switched_off_leaves_no_trace():
    """Ablation: without ripples, theta locking or slow-wave coupling, each is gone from the recording."""
    with_, truth = synth.recording(hours=0.3, seed=5, n_cells=20)
    without, ablated = synth.recording(
        hours=0.3, seed=5, n_cells=20, ripple_rate=0.0, wake_ripple_rate=0.0, reactivation_rate={"negative": 0.0, "positive": 0.0}
    )
    assert len(truth.ripples) > 30
    assert len(ablated.ripples) == 0
    nrem = np.repeat(ablated.hypnogram.mask("NREM"), 5000)
    x = without.signals["lfp"].read()[: len(nrem), 0][nrem].astype(float)
    y = with_.signals["lfp"].read()[: len(nrem), 0][np.repeat(truth.hypnogram.mask("NREM"), 5000)].astype(float)

    def kurtosis(v):
        from scipy.signal import butter, sosfiltfilt
        from scipy.stats import kurtosis

        return float(kurtosis(sosfiltfilt(butter(3, [140, 230], "bandpass", fs=1250, output="sos"), v)))

    assert kurtosis(y) > 3 > 0.5 > kurtosis(x)


def test_ripples_follow_slow_waves_only_where_coupled():
    def coupled(**changes):
        _, t = synth.recording(hours=0.5, seed=3, n_cells=0, **changes)
        waves, nrem = t.slow_waves.peak, t.ripples.stage == "NREM"
        start = t.ripples.start[nrem]
        before = start - waves[np.clip(np.searchsorted(waves, start) - 1, 0, None)]
        return float(np.mean((before > 0.05) & (before < 0.3)))

    assert coupled(ripple_coupling=0.9) > 0.7
    assert coupled(ripple_coupling=0.0) < 0.35
