"""Recordings whose streams ran on several clocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainmu.core import EventTable, Hypnogram, Intervals, Recording
from brainmu.errors import InputError, MissingDataError
from brainmu.store import align, plan, preprocess
from brainmu.store import open as open_store

PPM, OFFSET = 50e-6, 3.0
PULSES = np.cumsum(np.random.default_rng(0).uniform(0.5, 1.5, 700))


def own(t: Any, jump: float = 0.0, at: float = 300.0) -> Any:
    """Time on the box's clock of session time `t`; from `at` on the box lacks `jump` seconds."""
    t = np.asarray(t, dtype=float)
    return (t - OFFSET) / (1 + PPM) - np.where(t >= at, jump, 0.0)


def two_clocks(jump: float = 0.0) -> Recording:
    """A 2-Hz sine on the box's clock, a position, spikes and labels of both."""
    rate, n = 200.0, 110_000
    t_own = own(20.0) + np.arange(n) / rate
    session = OFFSET + t_own * (1 + PPM) if not jump else np.where(t_own < own(300.0), OFFSET + t_own * (1 + PPM), OFFSET + (t_own + jump) * (1 + PPM))
    rec = Recording.from_arrays(
        "m1",
        signals={
            "eeg": {
                "values": np.sin(2 * np.pi * 2 * session)[:, None] * 100,
                "rate": rate,
                "start": float(t_own[0]),
                "unit": "uV",
                "kind": "eeg",
                "clock": "box",
            },
            "lfp": {"values": np.zeros((1000, 1)), "rate": 10.0, "unit": "uV", "kind": "lfp"},
        },
        spikes={"times": own([30.0, 200.0, 400.0], jump), "unit": [0, 1, 0]},
        labels={
            "cues": EventTable(own([50.0, 450.0], jump), own([51.0, 451.0], jump), content=["a", "b"]),
            "run": Intervals(own([[100.0, 150.0]], jump)),
            "scoring": Hypnogram.from_stages(["WAKE"] * 50 + ["NREM"] * 50, 4.0, float(own(40.0))),
            "mine": EventTable([10.0], [11.0]),
        },
    )
    rec.clocks = {"session": {"pulses": PULSES}, "box": {"pulses": own(PULSES, jump), "streams": ["spikes", "cues", "run", "scoring"]}}
    return rec


def test_a_constant_drift_is_absorbed_in_rate_and_start() -> None:
    rec = two_clocks()
    out = align(rec)
    eeg = out.signals["eeg"]
    assert (eeg.clock, eeg.attrs["clock"]) == ("session", "box")
    assert eeg.values is rec.signals["eeg"].values
    assert eeg.start == pytest.approx(20.0, abs=1e-6)
    assert eeg.rate == pytest.approx(200.0 / (1 + PPM), rel=1e-9)
    assert out.spikes is not None
    np.testing.assert_allclose(out.spikes.times, [30.0, 200.0, 400.0], atol=1e-6)
    np.testing.assert_allclose(out.events("cues").stop, [51.0, 451.0], atol=1e-6)
    np.testing.assert_allclose(out.labels["run"].bounds, [[100.0, 150.0]], atol=1e-6)  # type: ignore[union-attr]
    assert out.events("mine").start.tolist() == [10.0]
    scoring = out.hypnogram("scoring")
    assert (scoring.epoch, len(scoring)) == (4.0, 100)
    assert scoring.start == pytest.approx(40.0, abs=1e-6)
    assert rec.signals["eeg"].clock == "box"  # the recording itself is left alone


def test_a_jump_lays_the_signal_on_a_uniform_grid_with_a_gap() -> None:
    out = align(two_clocks(jump=0.5))
    eeg = out.signals["eeg"]
    t, x = eeg.span(21.0, 500.0)
    expected = 100 * np.sin(2 * np.pi * 2 * t)
    missing = np.isnan(x[:, 0])
    assert 0.4 < missing.sum() / 200 < 0.6
    near = np.abs(t - 300.0) < 2.0  # the jump is only known to lie between two pulses
    assert missing[near].sum() == missing.sum()
    np.testing.assert_allclose(x[~near, 0], expected[~near], atol=0.05)
    assert out.clocks["box"]["jumps"][0]["size"] == pytest.approx(0.5, abs=1e-3)
    assert any("1 jump" in w for w in out.warnings)
    assert eeg.gaps.duration == pytest.approx(0.5, abs=1e-3)


def test_the_value_of_a_sample_does_not_depend_on_the_block() -> None:
    values = align(two_clocks(jump=0.5)).signals["eeg"].values
    whole = values[50_000:70_000]
    pieces = [values[i : min(70_000, i + 777)] for i in range(50_000, 70_000, 777)]
    np.testing.assert_array_equal(whole, np.concatenate(pieces))


@pytest.mark.parametrize("jump", [0.0, 0.5])
def test_a_store_holds_the_map(tmp_path: Path, jump: float) -> None:
    session = preprocess(two_clocks(jump), tmp_path / "m1.zarr")
    again = open_store(session.path)
    described = again.clocks["box"]
    assert described["ppm"] == pytest.approx(50.0, abs=0.5)
    assert described["residual_max_us"] < 100
    assert again.provenance["clocks"]["box"]["streams"] == ["spikes", "cues", "run", "scoring", "eeg"]
    t, x = again.signals["eeg"].span(100.0, 200.0)
    np.testing.assert_allclose(x[:, 0], 100 * np.sin(4 * np.pi * t), atol=0.05)
    assert align(again) is again
    assert any("clock 'box'" in w for w in plan(two_clocks(jump))["warnings"])
    assert preprocess(two_clocks(jump), tmp_path / "m1.zarr").already_complete


def test_a_stream_left_on_its_clock_is_refused_with_the_numbers(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"on clock 'box' drift \+\d+\.\d ms over .* h against 'session'.*\(--clock session\), or raise --max-drift"):
        preprocess(two_clocks(), tmp_path / "m1.zarr", clock="none")
    session = preprocess(two_clocks(), tmp_path / "m1.zarr", clock="none", max_drift=10.0)
    assert session.signals["eeg"].start == pytest.approx(float(own(20.0)))
    assert any("not aligned" in w for w in session.warnings)


def test_pulses_that_scatter_are_refused() -> None:
    rec = two_clocks()
    rec.clocks["box"]["pulses"] = rec.clocks["box"]["pulses"] + np.random.default_rng(1).normal(0, 0.004, len(PULSES))
    with pytest.raises(InputError, match=r"pulses of clock 'box' lie up to \d+\.\d ms from where 'session' puts them .*limit 5 ms.*raise --max-residual"):
        align(rec)
    assert align(rec, max_residual=0.1).signals["eeg"].start == pytest.approx(20.0, abs=2e-3)


def test_another_clock_can_be_the_session() -> None:
    out = align(two_clocks(), clock="box")
    assert out.signals["eeg"].start == pytest.approx(float(own(20.0)))
    assert out.signals["lfp"].start == pytest.approx(float(own(0.0)), abs=1e-6)
    assert out.events("mine").start.tolist() == pytest.approx([float(own(10.0))], abs=1e-6)
    with pytest.raises(InputError, match=r"has no clock 'bxo': did you mean 'box'"):
        align(two_clocks(), clock="bxo")


def test_pulses_by_the_name_of_a_label_or_a_signal() -> None:
    rec = two_clocks()
    trace = np.zeros((600_000, 1), dtype=np.int16)
    for p in PULSES[PULSES < 590]:
        trace[round(p * 1000) : round(p * 1000) + 50] = 1000
    rec.signals |= Recording.from_arrays("x", signals={"sync": {"values": trace, "rate": 1000.0, "unit": "uV", "kind": "sync"}}).signals
    rec.labels["ttl"] = EventTable(own(PULSES), own(PULSES) + 0.05)
    rec.clocks = {"session": {"pulses": "sync"}, "box": {"pulses": "ttl"}}
    out = align(rec)
    assert out.signals["eeg"].start == pytest.approx(20.0, abs=1e-3)
    np.testing.assert_allclose(out.events("ttl").start, PULSES, atol=1e-3)
    rec.clocks["box"]["pulses"] = "tll"
    with pytest.raises(MissingDataError, match="did you mean 'ttl'"):
        align(rec)


def test_a_known_map_needs_no_pulses() -> None:
    rec = two_clocks()
    rec.clocks = {"box": {"offset": OFFSET, "ppm": 1e6 * PPM}}
    assert align(rec).signals["eeg"].start == pytest.approx(20.0, abs=1e-6)


def test_without_pulses_nothing_is_aligned_and_that_is_said() -> None:
    rec = two_clocks()
    del rec.clocks["session"]
    out = align(rec)
    assert out.signals["eeg"].clock == "session" or any("not aligned" in w for w in rec.warnings)


def test_a_stream_that_is_not_there() -> None:
    rec = two_clocks()
    rec.clocks["box"]["streams"] = ["spiks"]
    with pytest.raises(InputError, match="names the stream 'spiks': did you mean 'spikes'"):
        align(rec)


def test_lines_of_two_devices_are_suggested_and_taken(tmp_path: Path) -> None:
    rec = two_clocks()
    rec.clocks = {}
    rec.labels["ttl_6"] = EventTable(PULSES, PULSES + 0.05, attrs={"clock": "session"})
    rec.labels["ttl_box_0"] = EventTable(np.r_[-3.1, own(PULSES)], np.r_[-3.0, own(PULSES) + 0.05], attrs={"clock": "box", "open_start": 1})
    assert any("--sync session=ttl_6 --sync box=ttl_box_0" in w for w in align(rec).warnings)
    session = preprocess(rec, tmp_path / "m1.zarr", sync={"session": "ttl_6", "box": "ttl_box_0"})
    assert session.signals["eeg"].start == pytest.approx(20.0, abs=1e-6)
    assert session.clocks["box"]["matched"] == len(PULSES)
    np.testing.assert_allclose(session.events("ttl_box_0").start[1:], PULSES, atol=1e-6)
