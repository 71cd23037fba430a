from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from brainmu.core import Intervals, Signal
from brainmu.dsp.emg import emg_from_lfp_signal
from brainmu.errors import InputError, MissingDataError


def moving(rate: float, seconds: float = 40.0, sites: int = 3, moves: tuple[float, float] = (15.0, 25.0), **more: Any) -> Signal:
    """Independent noise at each site, and noise of the same size that all share while the animal moves."""
    rng = np.random.default_rng(0)
    n = round(rate * seconds)
    x = rng.standard_normal((n, sites))
    t = np.arange(n) / rate
    x[(t >= moves[0]) & (t < moves[1])] += 2 * rng.standard_normal((n, 1))[(t >= moves[0]) & (t < moves[1])]
    x += 30 * np.sin(2 * np.pi * 8 * t)[:, None]  # theta, shared and much larger, is not in the band
    channels = pd.DataFrame({"name": [f"c{i}" for i in range(sites)], "shank": range(sites)})
    return Signal(**({"values": x * 20, "rate": rate, "start": 7.0, "unit": "uV", "kind": "lfp", "channels": channels} | more))


@pytest.mark.parametrize("rate", [1250.0, 1249.998, 2000.0, 20000.0, 24414.0625])
def test_movement_is_seen_where_it_is_and_theta_is_not(rate: float) -> None:
    emg = emg_from_lfp_signal(moving(rate))
    assert (emg.rate, emg.start, emg.unit, emg.kind) == (2.0, 7.25, "1", "emg")
    assert emg.n_samples == int(moving(rate).duration / 0.5 + 1e-9)
    level, t = emg.read()[:, 0], emg.read_times()
    inside = (t > 7 + 15.5) & (t < 7 + 24.5)
    outside = (t < 7 + 14.5) | (t > 7 + 25.5)
    assert level[inside].min() > 0.65 and level[outside][1:-1].max() < 0.2
    assert emg.attrs["derived"]["sites"] == ["c0", "c1", "c2"] and "spikes" in emg.attrs["derived"]["caution"] and emg.attrs["centred"]


def test_the_same_however_it_is_sliced() -> None:
    source = moving(2500.0, 100.0)
    whole = emg_from_lfp_signal(source).values[:]
    again = emg_from_lfp_signal(source).values
    for a, b in ((150, 200), (0, 3), (60, 70), (63, 65), (199, 200), (5, 5)):
        np.testing.assert_array_equal(again[a:b], whole[a:b])
    np.testing.assert_array_equal(again[::7], whole[::7])
    np.testing.assert_array_equal(again[3:90, 0], whole[3:90, 0])
    assert again[11].shape == (1,) and again[-1] == whole[-1]


def test_gaps_are_missing_and_a_dead_site_is_left_out() -> None:
    source = moving(2000.0, gaps=Intervals([[12.0, 15.0]]))
    values = np.array(source.values)
    values[:, 1] = 3.0
    values[5 * 2000 : 8 * 2000] = 1e6  # what lies in a gap counts for nothing
    emg = emg_from_lfp_signal(source.with_values(values))
    level = emg.read()[:, 0]
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(level)), np.arange(10, 16))
    assert level[32:48].min() > 0.6 and np.nanmax(level[:28]) < 0.25


def test_refused_without_the_band_or_separate_sites() -> None:
    with pytest.raises(MissingDataError, match=r"at least 1250 Hz; 'lfp' has 1000 Hz"):
        emg_from_lfp_signal(moving(1000.0))
    with pytest.raises(MissingDataError, match="at least two separate sites"):
        emg_from_lfp_signal(moving(1250.0, sites=1))
    one_shank = pd.DataFrame({"name": list("abc"), "shank": [1, 1, 1]})
    with pytest.raises(MissingDataError, match="two separate sites"):
        emg_from_lfp_signal(moving(1250.0, channels=one_shank))
    hippocampal = pd.DataFrame({"name": list("abc"), "region": ["CA1", "dentate gyrus", "PFC"]})
    with pytest.raises(MissingDataError, match=r"1 of 3 channels .* \(2 inside\)"):
        emg_from_lfp_signal(moving(1250.0, channels=hippocampal))
    with pytest.raises(MissingDataError, match="no shank, group or region"):
        emg_from_lfp_signal(moving(1250.0, channels=list("abc")))
    assert emg_from_lfp_signal(moving(1250.0, channels=list("abc")), sites=["a", "c"]).attrs["derived"]["sites"] == ["a", "c"]
    with pytest.raises(MissingDataError, match="'z' is not in the signal"):
        emg_from_lfp_signal(moving(1250.0, channels=list("abc")), sites=["a", "z"])
    with pytest.raises(InputError, match=r"windows are 0.01 s"):
        emg_from_lfp_signal(moving(1250.0), window=0.01)
    with pytest.raises(InputError, match="band is 300-900 Hz"):
        emg_from_lfp_signal(moving(1250.0), band=(300, 900))


def test_every_eeg_electrode_is_a_site_and_bad_channels_are_none() -> None:
    source = moving(1250.0, kind="eeg", channels=pd.DataFrame({"name": list("abc"), "bad": [False, True, False]}))
    assert emg_from_lfp_signal(source).attrs["derived"]["sites"] == ["a", "c"]


def test_shorter_than_a_window_is_empty() -> None:
    assert emg_from_lfp_signal(moving(1250.0, 0.3)).read().shape == (0, 1)
