"""The infraslow fluctuation of sigma: found at its planted frequency and phase, and not made out of drift."""

from __future__ import annotations

import numpy as np
import pytest

from brainmu.core import EventTable, Hypnogram, Recording
from brainmu.errors import InputError, MissingDataError
from brainmu.sleep import infraslow_sigma

RATE = 64.0


def _night(envelope, seconds: float = 3600.0, seed: int = 0, channels: int = 1) -> Recording:
    """Sigma waves with an envelope over time, in NREM of 10 min between 2 min of WAKE."""
    rng = np.random.default_rng(seed)
    n = int(seconds * RATE)
    t = (np.arange(n) + 0.5) / RATE
    f = np.fft.rfftfreq(n, 1 / RATE)
    sigma = np.fft.irfft((rng.standard_normal(len(f)) + 1j * rng.standard_normal(len(f))) * ((f > 12) & (f < 15)), n)
    x = np.sqrt(np.maximum(envelope(t), 0.05)) * sigma / sigma.std() + 0.3 * rng.standard_normal(n)
    stage = np.where((np.arange(seconds // 4) * 4) % 720 < 600, 1, 0)
    signals = {"eeg": {"values": np.repeat(x[:, None], channels, axis=1), "rate": RATE, "unit": "uV", "kind": "eeg"}}
    return Recording.from_arrays("i", species="mouse", signals=signals, labels={"scoring": Hypnogram(stage, "rodent3", 4.0)})


@pytest.mark.parametrize("frequency", [0.015, 0.02, 0.03])
def test_frequency_depth_and_phase_are_the_planted_ones(frequency):
    found = infraslow_sigma(_night(lambda t: 1 + 0.6 * np.cos(2 * np.pi * frequency * t)), draws=100)
    row = found.summary.iloc[0]
    assert row["peak_frequency_hz"] == pytest.approx(frequency, abs=0.0015) and row["period_s"] == pytest.approx(1 / row["peak_frequency_hz"])
    assert row["p_value"] < 0.02 and 45 < row["depth_pct"] < 75 and row["bouts"] == 5
    crest = np.arange(1, 3600 * frequency) / frequency
    phase = found.phase_at(crest)
    assert np.isnan(found.phase_at([650.0])).all()
    assert np.median(np.abs(phase[np.isfinite(phase)])) < 15


def test_events_keep_to_the_phase_they_were_planted_at():
    found = infraslow_sigma(_night(lambda t: 1 + 0.6 * np.cos(2 * np.pi * 0.02 * t)), draws=20)
    rng = np.random.default_rng(0)
    late = np.arange(50.0, 3550.0, 50.0) + 12.5 + 2 * rng.standard_normal(70)  # a quarter of a cycle after the crest
    row = found.coupling(EventTable(late, late), draws=200).iloc[0]
    assert abs(row["mean_phase_deg"] - 90) < 20 and row["resultant"] > 0.8 and row["p_value"] < 0.1
    loose = rng.uniform(0, 3600, 150)
    assert found.coupling(EventTable(loose, loose), draws=200)["p_value"].iloc[0] > 0.01
    with pytest.raises(MissingDataError, match="none of"):
        found.coupling(EventTable([1e6], [1e6]))


def test_drift_is_no_rhythm():
    p = []
    for seed in range(8):
        drive = np.random.default_rng(100 + seed).standard_normal(3700)
        drift = np.zeros(3700)
        for k in range(1, 3700):
            drift[k] = 0.95 * drift[k - 1] + 0.31 * drive[k]
        rec = _night(lambda t, d=drift: np.exp(0.4 * np.interp(t, np.arange(3700), d)), seed=seed)
        p.append(infraslow_sigma(rec, draws=60).summary["p_value"].iloc[0])
    assert np.mean(np.array(p) < 0.05) < 0.3 and np.median(p) > 0.1


def test_tables_are_tidy_and_channels_stand_beside_their_mean():
    found = infraslow_sigma(_night(lambda t: 1 + 0.5 * np.cos(2 * np.pi * 0.02 * t), channels=2), draws=20)
    assert found.summary["channel"].tolist()[-1] == "mean" and len(found.summary) == 3
    assert set(found.spectrum["channel"]) == set(found.summary["channel"])
    assert found.series["sigma_pct"].mean() == pytest.approx(100, rel=0.05) and found.series["phase_deg"].abs().max() <= 180


def test_refusals():
    rec = _night(lambda t: 1 + 0 * t, seconds=720)
    with pytest.raises(MissingDataError, match="at least 10"):
        infraslow_sigma(rec, shortest=601.0)
    flat = np.c_[rec.signals["eeg"].values, np.zeros(len(rec.signals["eeg"].values))]
    two = {"eeg": {"values": flat, "rate": RATE, "kind": "eeg", "channels": ["a", "dead"]}}
    with pytest.raises(MissingDataError, match="channel dead"):
        infraslow_sigma(Recording.from_arrays("f", species="mouse", signals=two, labels=rec.labels), draws=20)
    with pytest.raises(InputError, match="surrogates"):
        infraslow_sigma(rec, draws=3)
    with pytest.raises(MissingDataError, match="no hypnogram"):
        infraslow_sigma(Recording.from_arrays("n", signals=rec.signals))


@pytest.mark.realdata
def test_a_real_mouse_has_tables(real_data):
    folder = real_data / "mouse-eeg-emg"
    eeg, codes = (np.load(folder / f"{k}_Acq4_hr0.npy") for k in ("EEG", "States"))
    h = Hypnogram.from_stages([("UNS", "WAKE", "NREM", "REM")[int(c)] for c in codes], epoch=4.0)
    rec = Recording.from_arrays("real", species="mouse", signals={"eeg": {"values": eeg, "rate": 200.0, "kind": "eeg"}}, labels={"scoring": h})
    found = infraslow_sigma(rec, draws=100)
    row = found.summary.iloc[0]
    # Twelve minutes of NREM: a smoke test, no claim about the rhythm.
    assert 10 < row["minutes"] < 13 and 0.008 <= row["peak_frequency_hz"] <= 0.05 and 0 < row["p_value"] <= 1
    assert found.series["sigma_pct"].mean() == pytest.approx(100, rel=0.15)
