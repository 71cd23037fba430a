"""Calibration and abstention of probabilities whose truth was drawn from them, and of ones that claim too much."""

from __future__ import annotations

import numpy as np
import pytest

from brainmu.core import Hypnogram
from brainmu.errors import InputError, MissingDataError
from brainmu.sleep import abstention, calibration, evaluate, evaluate_many
from brainmu.sleep.reliability import doubts


def _pair(seed: int, sharpen: float = 1.0, n: int = 3000) -> tuple[Hypnogram, Hypnogram]:
    """Truth drawn from probabilities, which are then told `sharpen` times as sure as they are."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([0.7, 0.7, 0.7], n)
    truth = (p.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    told = p**sharpen / (p**sharpen).sum(axis=1, keepdims=True)
    return Hypnogram(told.argmax(axis=1), "rodent3", 4.0, proba=told), Hypnogram(truth, "rodent3", 4.0)


def test_honest_probabilities_are_calibrated_and_boasting_ones_are_not():
    honest, boast = calibration(*_pair(0)), calibration(*_pair(0, sharpen=4.0))
    assert honest.attrs["ece"] < 0.03 and abs(honest.attrs["overconfidence"]) < 0.03
    assert boast.attrs["ece"] > 0.1 and boast.attrs["overconfidence"] > 0.1 and boast.attrs["brier"] > honest.attrs["brier"]
    assert honest["n"].sum() == honest.attrs["n"] == 3000
    inside = (honest["low"] <= honest["confidence"]) & (honest["confidence"] <= honest["high"])
    assert inside.mean() >= 0.6 and honest["confidence"].is_monotonic_increasing


def test_abstaining_buys_accuracy():
    table = abstention(*_pair(1))
    assert table["abstained_pct"].iloc[0] == 0 and table["abstained_pct"].is_monotonic_increasing
    assert table["accuracy"].iloc[-1] > table["accuracy"].iloc[0] + 0.15
    assert np.allclose(table["n"], 3000 * (1 - table["abstained_pct"] / 100))
    assert {"abstained_WAKE_pct", "abstained_NREM_pct", "abstained_REM_pct"} <= set(table)


def test_pairs_are_pooled():
    pairs = [_pair(k, n=400) for k in range(3)]
    assert calibration(pairs).attrs["n"] == 1200
    result = evaluate_many([(f"s{k}", *p) for k, p in enumerate(pairs)], draws=50)
    assert sum(r["n"] for r in result["calibration"]) == 1200 and result["abstention"][0]["n"] == 1200
    assert result["abstained"] == 0.0


def test_unscored_epochs_are_abstention():
    h, ref = _pair(2, n=100)
    h.codes[:25] = -2
    assert evaluate(h, ref, draws=0)["abstained"] == 0.25


def test_refusals():
    h, ref = _pair(0, n=20)
    with pytest.raises(MissingDataError, match="no probabilities"):
        calibration(ref, h)
    with pytest.raises(InputError, match="second argument"):
        calibration(h)
    with pytest.raises(InputError, match="expected probabilities"):
        abstention(h, ref, thresholds=[1.5])
    with pytest.raises(MissingDataError, match="no epoch"):
        calibration(h, Hypnogram(np.full(20, -2), "rodent3", 4.0))
    with pytest.raises(InputError, match="bins"):
        calibration(h, ref, bins=0)


def test_one_stage_all_the_time_is_doubted():
    mixed, one = (Hypnogram(c, "rodent3", 4.0) for c in (np.arange(600) % 3, np.r_[np.zeros(595, int), 1, 1, 2, -2, -2]))
    assert doubts(mixed) == []
    assert len(doubts(one)) == 1 and "WAKE makes 99% of 39.9 min" in doubts(one)[0]
    assert "WAKE makes 100% of 6.7 min" in doubts(Hypnogram(np.zeros(100, int), "rodent3", 4.0))[0]
    assert "28 s is too short" in doubts(Hypnogram(np.array([0, 1, 0, 1, 1, 0, 0]), "rodent3", 4.0))[0]
    assert "25% of the recording is unscored" in doubts(Hypnogram(np.where(np.arange(600) < 450, np.arange(600) % 3, -2), "rodent3", 4.0))[0]
