"""Bursts of tagged cells and of their matches: found where they were planted, matched in number, rate and region, and told apart by the hazard."""

import numpy as np
import pandas as pd
import pytest

import brainmu as bm
from brainmu.causal import tagged_events
from brainmu.core import EventTable, Hypnogram, Recording
from brainmu.core.spikes import Spikes
from brainmu.errors import InputError, MissingDataError

N, SECONDS = 30, 3600.0


def animal(seed, effect=2.0):
    """Six tagged cells burst together every 20 s or so; six others of like rate do too. Only after the former does the animal wake more often."""
    rng = np.random.default_rng(seed)
    rate = np.r_[np.full(12, 2.0), rng.uniform(0.2, 8.0, N - 12)]
    times = [rng.uniform(0, SECONDS, rng.poisson(r * SECONDS)) for r in rate]
    bursts = {}
    for name, cells in (("tagged", range(6)), ("like", range(6, 12))):
        at = np.sort(rng.uniform(5, SECONDS - 5, 180))
        bursts[name] = at
        for c in cells:
            times[c] = np.r_[times[c], np.concatenate([a + rng.uniform(0, 0.08, 3) for a in at])]
    n = int(SECONDS / 4)
    hit = np.zeros(n, dtype=bool)
    hit[(bursts["tagged"] / 4).astype(int)] = True
    codes, asleep = np.ones(n, dtype=np.int8), True
    for k in range(2, n):
        p = 1 / (1 + np.exp(-(-3.0 + effect * hit[k - 2]))) if asleep else 0.4
        asleep = bool(rng.random() > p) if asleep else bool(rng.random() < p)
        codes[k] = 1 if asleep else 0
    t, u = np.concatenate(times), np.repeat(np.arange(N), [len(x) for x in times])
    units = pd.DataFrame({"id": np.arange(N), "region": "CA1", "tagged": np.arange(N) < 6})
    inside = (t >= 0) & (t < SECONDS)
    return Recording(
        id=f"r{seed}", subject=f"m{seed}", spikes=Spikes(t[inside], u[inside], units), labels={"scoring": Hypnogram(codes, "rodent3", 4.0)}
    ), bursts  # fmt: skip


@pytest.fixture(scope="module")
def animals():
    return [animal(s) for s in range(5)]


def test_bursts_of_the_tagged_cells_are_found_beside_those_of_their_matches(animals):
    session, bursts = animals[0]
    events = tagged_events(session)
    assert set(events.content) == {"tagged", "untagged"} and (np.diff(events.start) >= 0).all()
    assert events.attrs["tagged"] == list(range(6)) and not set(events.attrs["untagged"]) & set(range(6))
    assert not events.attrs["warnings"] and np.abs(np.log10(np.array(events.attrs["rates"])).T).shape == (2, 6)
    asleep = session.hypnogram().intervals("NREM")
    planted = EventTable(bursts["tagged"], bursts["tagged"] + 0.08).within(asleep)
    mine = events[np.asarray(events.content) == "tagged"]
    assert (planted.match(mine, iou=0.01) >= 0).mean() > 0.8


def test_what_follows_the_tagged_cells_alone_is_told_from_what_follows_their_matches(animals):
    sessions = [s for s, _ in animals]
    ask = {"design": "hazard", "horizon": 4.0, "clock": False, "diagnostics": False}
    exposure = {s.id: tagged_events(s) for s in sessions}
    gap = bm.estimate_effect(sessions, exposure=exposure, content=("tagged", "untagged"), **ask)
    alone = bm.estimate_effect(sessions, exposure=exposure, content="untagged", **ask)
    assert gap.low > 0.5 and alone.low < 0 < alone.high


def test_ensembles_that_cannot_be_matched_are_refused(animals):
    session = animals[0][0]
    with pytest.raises(InputError, match="no column 'engram'"):
        tagged_events(session, "engram")
    with pytest.raises(InputError, match="expected a mask of the 30 units"):
        tagged_events(session, np.ones(3, bool))
    with pytest.raises(MissingDataError, match="2 of 30 cells are tagged"):
        tagged_events(session, np.arange(N) < 2)
    with pytest.raises(MissingDataError, match="10 untagged cells for 20"):
        tagged_events(session, np.arange(N) < 20)
    far = Recording(id="far", subject="m", spikes=Spikes(session.spikes.times, session.spikes.unit_id, session.spikes.units.assign(
        region=["CA1"] * 6 + ["ACC"] * (N - 6))), labels=session.labels)  # fmt: skip
    with pytest.raises(MissingDataError, match="too few untagged cells in region 'CA1'"):
        tagged_events(far)
    assert len(tagged_events(session, within=None)) >= len(tagged_events(session))
