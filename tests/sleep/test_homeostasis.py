"""The decline of slow-wave activity: planted time constants come back inside their intervals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from brainmu.errors import InputError, MissingDataError
from brainmu.sleep import swa_decline


def _bouts(curve, n: int = 40, noise: float = 0.1, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    start = 3600 + np.sort(rng.uniform(0, 8 * 3600, n))
    start[0] = 3600.0
    middle = (start + 150 - start[0]) / 3600
    return pd.DataFrame({"start": start, "duration": 300.0, "activity": curve(middle) * np.exp(noise * rng.standard_normal(n))})


def _value(table, model, parameter):
    return table.set_index(["model", "parameter"]).loc[(model, parameter)]


def test_an_exponential_is_found_and_chosen():
    table = swa_decline(_bouts(lambda t: 220 * np.exp(-t / 3.0)), draws=200)
    row = _value(table, "exponential", "time constant")
    assert row["low"] < 3.0 < row["high"] and row["value"] == pytest.approx(3.0, rel=0.15) and row["unit"] == "h"
    assert _value(table, "exponential", "half-life")["value"] == pytest.approx(row["value"] * np.log(2))
    assert _value(table, "exponential", "decline")["value"] == pytest.approx(100 * (np.exp(-1 / 3) - 1), abs=5)
    assert _value(table, "linear", "slope")["high"] < 0 and table.attrs["best"].startswith("exponential")
    assert _value(table, "exponential", "aic_c")["value"] < _value(table, "linear", "aic_c")["value"]


def test_a_line_is_chosen_where_it_is_one():
    table = swa_decline(_bouts(lambda t: 160 - 15 * t, noise=0.03), draws=100)
    row = _value(table, "linear", "slope")
    assert table.attrs["best"] == "linear" and row["low"] < -15 < row["high"] and row["unit"] == "%/h"


def test_a_floor_is_found():
    table = swa_decline(_bouts(lambda t: 60 + 150 * np.exp(-t / 1.2), noise=0.03), draws=100)
    assert table.attrs["best"] == "exponential to a floor"
    assert _value(table, "exponential to a floor", "floor")["value"] == pytest.approx(60, abs=8)
    assert _value(table, "exponential to a floor", "time constant")["value"] == pytest.approx(1.2, rel=0.2)


def test_no_decline_is_not_made_one():
    covered = 0
    for seed in range(10):
        row = _value(swa_decline(_bouts(lambda t: 100 + 0 * t, seed=seed), draws=40), "linear", "slope")
        covered += row["low"] <= 0 <= row["high"]
    assert covered >= 7
    rising = swa_decline(_bouts(lambda t: 80 * np.exp(0.1 * t)), draws=50)
    assert np.isinf(_value(rising, "exponential", "half-life")["value"]) and _value(rising, "exponential", "decline")["value"] > 0


def test_refusals():
    with pytest.raises(MissingDataError, match="at least 5 bouts"):
        swa_decline(_bouts(lambda t: 100 + 0 * t, n=4))
    with pytest.raises(InputError, match="lacks activity"):
        swa_decline(pd.DataFrame({"start": [0.0], "duration": [60.0]}))
    with pytest.raises(InputError, match="draws"):
        swa_decline(_bouts(lambda t: 100 + 0 * t), draws=-1)
