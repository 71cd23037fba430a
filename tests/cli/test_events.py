"""brainmu events: slow waves say which way up they were read."""

import json

import numpy as np
import pytest

import brainmu as bm
from brainmu.cli import main


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Ten minutes of a mouse's cortical LFP with positive down states every two seconds, in which units are silent."""
    rng = np.random.default_rng(0)
    t = np.arange(600 * 100) / 100
    at = np.arange(2.0, 598.0, 2.0) + rng.uniform(-0.3, 0.3, 298)
    x = 15 * rng.standard_normal(len(t)) + sum(100 * np.exp(0.4 * rng.standard_normal()) * np.exp(-0.5 * ((t - a) / 0.08) ** 2) for a in at)
    s = np.sort(rng.uniform(0, 600, 10_000))
    s = s[np.abs(s[:, None] - at[None]).min(axis=1) > 0.1]
    signals = {"lfp": {"values": x[:, None], "rate": 100.0, "unit": "uV", "kind": "lfp"}}
    rec = bm.Recording.from_arrays("m", "m", "mouse", signals=signals, spikes={"times": s, "unit": np.arange(len(s)) % 10})
    path = tmp_path_factory.mktemp("events") / "m.zarr"
    bm.preprocess(rec, path, lfp_rate=None)
    return path


def test_slow_waves_are_written_and_their_side_is_said(store, tmp_path, capsys):
    args = ["events", str(store), "--kind", "slow_wave", "--quiet"]
    assert main([*args, "--out", str(tmp_path / "a_events.tsv")]) == 0
    said = capsys.readouterr().out
    assert "down state: positive (units are silent on that side" in said
    assert main([*args, "--out", str(tmp_path / "b_events.tsv"), "--threshold", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    first, second = (bm.EventTable.from_bids(tmp_path / f"{k}_events.tsv") for k in "ab")
    assert found["against"] == "mean" and found["threshold"] == 2.0 and len(second) == found["n"] <= len(first)
    assert len(first) > 50
