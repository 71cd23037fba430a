"""Maps of what a detector used: planted ripples and the units that tell a content."""

from __future__ import annotations

import numpy as np
import pytest

import brainmu as bm
from brainmu.core import EventTable, Recording
from brainmu.errors import InputError, MissingDataError
from brainmu.explain import attribute_events, recovery
from brainmu.replay import ReplayDetector

SECONDS, RATE, UNITS = 90.0, 625.0, 16


def animal(seed: int) -> Recording:
    """Events with a ripple on the first of two channels; units 0-3 fire in content A and 4-7 in content B; the rest, faster, at any time."""
    rng = np.random.default_rng(seed)
    start = np.cumsum(rng.uniform(1.5, 3.0, 60))
    start = start[start < SECONDS - 2]
    stop, what = start + rng.uniform(0.06, 0.15, len(start)), rng.integers(0, 2, len(start))
    t = np.arange(int(SECONDS * RATE)) / RATE
    x = rng.standard_normal((len(t), 2)) * np.array([1.0, 4.0])
    times, units = [rng.uniform(0, SECONDS, 6000)], [rng.integers(8, UNITS, 6000)]
    for a, b, k in zip(start, stop, what):
        inside = (t >= a) & (t < b)
        x[inside, 0] += 4.0 * np.sin(2 * np.pi * 185 * (t[inside] - a))
        n = rng.poisson(200 * (b - a))
        times.append(rng.uniform(a, b, n))
        units.append(4 * k + rng.integers(0, 4, n))
    events = EventTable(start, stop, content=np.array(["A", "B"], dtype=object)[what])
    signals = {"lfp": {"values": x, "rate": RATE, "unit": "uV", "kind": "lfp", "channels": ["pyr", "loud"]}}
    spikes = {"times": np.concatenate(times), "unit": np.concatenate(units)}
    return Recording.from_arrays(f"r{seed}", "m0", "mouse", signals=signals, spikes=spikes, labels={"reactivation": events})


@pytest.fixture(scope="module")
def detector() -> ReplayDetector:
    return ReplayDetector(encoder=None, steps=30, folds=2).fit([animal(k) for k in range(3)])


def test_the_ripple_is_found_on_its_channel_and_the_map_passes(detector) -> None:
    maps = bm.attribute(detector, animal(9), target="event", max_epochs=8, shifts=1)
    assert maps["lfp"].dims == ("time_lfp", "channel_lfp", "band") and maps["spikes"].sizes["unit"] == UNITS
    band = maps["lfp"].mean("time_lfp")
    assert abs(float(band.sel(channel_lfp="pyr", band="ripple"))) == pytest.approx(float(np.abs(band).max()))
    assert maps.attrs["n_events"] == 8 and maps.attrs["verdict"] == "passed" and "head" in maps.attrs["explains"]


def test_a_content_is_told_by_its_own_units(detector) -> None:
    maps = attribute_events(detector, animal(9), "A", max_events=12)
    assert list(maps.data_vars) == ["spikes"] and maps.attrs["verdict"] == "passed"
    assert recovery(maps, [("spikes", str(k)) for k in range(4)]) > 0.95
    share = maps["spikes"].mean("time_spikes")
    assert float(share.sel(unit=["0", "1", "2", "3"]).sum()) > 10 * abs(float(share.sel(unit=[str(k) for k in range(8, UNITS)]).sum()))


def test_a_map_that_was_cut_off_goes_on_and_is_scored_against_what_was_planted(detector, tmp_path) -> None:
    ask = dict(target="A", max_epochs=6, shifts=1, planted=[("spikes", str(k)) for k in range(4)])
    whole = bm.attribute(detector, animal(9), **ask)

    def cut(_what: str, done: float) -> None:
        if done > 0.5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bm.attribute(detector, animal(9), parts=tmp_path / "p", progress=cut, **ask)
    kept = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "p").glob("occlude.*.npz")}
    assert 0 < len(kept) < UNITS
    again = bm.attribute(detector, animal(9), parts=tmp_path / "p", **ask)
    assert np.array_equal(again["spikes"], whole["spikes"]) and again.attrs["recovery"] == whole.attrs["recovery"] > 0.95
    assert all((tmp_path / "p" / k).stat().st_mtime_ns == t for k, t in kept.items())
    with pytest.raises(InputError, match="with target 'A', now 'B'"):
        bm.attribute(detector, animal(9), parts=tmp_path / "p", **{**ask, "target": "B"})


def test_log_odds_are_high_in_events_and_low_elsewhere(detector) -> None:
    rec = animal(9)
    events = rec.labels["reactivation"]
    between = EventTable(events.stop[:-1] + 0.4, events.stop[:-1] + 0.5)
    assert detector.log_odds(rec, events).mean() > 2 + detector.log_odds(rec, between).mean()
    odds = detector.log_odds(rec, events, "A")
    assert (odds[events.content == "A"] > 0).all() and (odds[events.content == "B"] < 0).all()
    outside = EventTable([SECONDS + 5.0], [SECONDS + 5.1])
    assert np.isnan(detector.log_odds(rec, outside)).all()


def test_what_cannot_be_explained_is_refused(detector) -> None:
    rec = animal(9)
    with pytest.raises(InputError, match="content 'C' was not shown"):
        attribute_events(detector, rec, "C")
    with pytest.raises(InputError, match="occlusion alone"):
        bm.attribute(detector, rec, target="event", method="gradient_shap")
    with pytest.raises(InputError, match="max_events is 0"):
        attribute_events(detector, rec, max_events=0)
    with pytest.raises(MissingDataError, match="no event"):
        attribute_events(detector, rec, events=EventTable([], []))
    with pytest.raises(InputError, match="not fitted"):
        bm.attribute(ReplayDetector(encoder=None), rec, target="event")
