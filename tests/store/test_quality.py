"""What a store says of the quality of its signals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brainmu.core import Recording
from brainmu.store import preprocess
from brainmu.synth import recording as synthetic

RATE = 1250.0


def faulty(seed: int = 5) -> tuple[Recording, dict[str, Any]]:
    """A synthetic recording with pops, muscle bursts, a noisy channel and one with hum."""
    rec, _ = synthetic(hours=0.22, seed=seed, n_channels=5)
    lfp = rec.signals["lfp"]
    x, rng = lfp.read().astype(np.float64), np.random.default_rng(seed)
    sd, names = x.std(axis=0), lfp.names
    pops, bursts = [100.3, 400.1, 700.7], [200.2, 500.4]
    for t in pops:
        x[round(t * RATE) : round((t + 0.02) * RATE), 0] += 10 * sd[0]
    for t in bursts:
        n = round(0.5 * RATE)
        x[round(t * RATE) : round(t * RATE) + n] += rng.standard_normal((n, 1)) * np.hanning(n)[:, None] * 2 * sd
    x[:, 1] *= 5
    x[:, 3] += sd[3] * np.sin(2 * np.pi * 50 * np.arange(len(x)) / RATE)
    rec.signals = {"lfp": lfp.with_values(x.astype(np.float32))}
    return rec, {"pops": pops, "bursts": bursts, "popping": names[0], "noisy": names[1], "humming": names[3]}


@pytest.mark.parametrize(("species", "seed"), [("mouse", 0), ("mouse", 1), ("human", 1), ("human", 2)])
def test_clean_recordings_have_no_noisy_channel_and_hardly_an_artefact(tmp_path: Path, species: str, seed: int) -> None:
    rec, _ = synthetic(hours=0.25, seed=seed, species=species)
    session = preprocess(rec, tmp_path / "a.zarr")
    for name in rec.signals_of("lfp", "eeg"):
        channels = session.channel_quality(name)
        assert not channels["noisy"].any() and channels["artefact"].max() < 0.01
    assert not any("noisy" in w or "artefact" in w for w in session.provenance["warnings"])


def test_planted_faults_are_found(tmp_path: Path) -> None:
    rec, planted = faulty()
    session = preprocess(rec, tmp_path / "a.zarr")
    spans, channels = session.quality("lfp"), session.channel_quality("lfp").set_index("name")
    found = spans[spans["kind"] == "artefact"]

    def covers(channel: str, t: float) -> bool:
        rows = found[found["channel"] == channel]
        return bool(((rows["start"] <= t) & (rows["stop"] > t)).any())

    assert all(covers(planted["popping"], t) for t in planted["pops"])
    assert all(covers("", t + 0.25) for t in planted["bursts"])
    assert set(channels.index[channels["noisy"]]) == {planted["noisy"], planted["humming"]}
    assert channels["artefact"].max() < 0.02
    assert channels.loc[planted["popping"], "artefact"] > channels.loc[planted["humming"], "artefact"] > 0
    said = "\n".join(session.provenance["warnings"])
    assert "2 noisy channels" in said and "times the others' deviation" in said and "mains hum" in said
    assert np.isfinite(session.signals["lfp"].read()).all()  # nothing is removed


def test_artefacts_do_not_depend_on_shards(tmp_path: Path) -> None:
    rec, _ = faulty()
    a = preprocess(rec, tmp_path / "a.zarr")
    b = preprocess(rec, tmp_path / "b.zarr", chunk_kib=16, shard_mib=1)
    assert len(a.quality("lfp")) > 4
    assert a.quality("lfp").equals(b.quality("lfp"))
    assert a.channel_quality("lfp").drop(columns="deviation").equals(b.channel_quality("lfp").drop(columns="deviation"))


def test_a_single_channel_and_muscles_are_compared_with_nothing(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((200_000, 4)) * 50
    x[:, 3] *= 30
    rec = Recording.from_arrays("r", signals={
        "one": {"values": x[:, 3], "rate": RATE, "unit": "uV", "kind": "eeg"}, "emg": {"values": x, "rate": RATE, "unit": "uV", "kind": "emg"},
    })  # fmt: skip
    session = preprocess(rec, tmp_path / "a.zarr")
    for name in ("one", "emg"):
        assert not session.channel_quality(name)["noisy"].any()
        assert not len(session.quality(name))


@pytest.mark.parametrize(("unit", "sd", "doubted"), [("uV", 20_000, True), ("mV", 20, True), ("uV", 0.001, True), ("V", 5e-5, False), ("uV", 50, False)])
def test_a_size_no_brain_has_is_doubted(tmp_path: Path, unit: str, sd: float, doubted: bool) -> None:
    x = np.random.default_rng(0).standard_normal((20_000, 2)) * sd
    rec = Recording.from_arrays("r", signals={"eeg": {"values": x, "rate": 250.0, "unit": unit, "kind": "eeg"}})
    said = [w for w in preprocess(rec, tmp_path / "a.zarr").provenance["warnings"] if "standard deviation" in w]
    assert bool(said) == doubted
    if doubted:
        assert f"most often the unit ({unit!r})" in said[0] or "uV" in said[0]


def test_an_unknown_unit_is_kept_and_the_likely_one_named(tmp_path: Path) -> None:
    x = np.random.default_rng(0).standard_normal((20_000, 2))
    for unit, says in (("uVolt", "did you mean 'uV'?"), ("a.u.", "expected V, mV, uV or nV"), ("", "unit 'unknown' is not one of voltage")):
        rec = Recording.from_arrays("r", signals={"eeg": {"values": x, "rate": 250.0, "unit": unit, "kind": "eeg"}})
        session = preprocess(rec, tmp_path / f"{len(unit)}.zarr")
        assert any(says in w for w in session.provenance["warnings"])
        np.testing.assert_allclose(session.signals["eeg"].read(), x.astype(np.float32))


@pytest.mark.parametrize("options", [{}, {"lfp_rate": 500.0}, {"notch": 50.0, "reference": "median"}])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_infinite_and_huge_samples_are_missing_and_counted(tmp_path: Path, dtype: str, options: dict[str, Any]) -> None:
    x = (np.random.default_rng(1).standard_normal((60_000, 4)) * 50e-6).astype(dtype)
    clean = x.copy()
    x[20_000:20_010, 1] = np.inf
    x[30_000, 2] = -np.inf
    x[40_000:40_002, 3] = 1e37 if dtype == "f4" else 1e200  # V: beyond float32 only once it is in uV, or at once
    clean[x != clean] = np.nan
    said, stored = {}, {}
    for name, values in (("inf", x), ("nan", clean)):
        rec = Recording.from_arrays("r", signals={"lfp": {"values": values, "rate": 1000.0, "unit": "V", "kind": "lfp"}})
        session = preprocess(rec, tmp_path / f"{name}.zarr", **options)
        said[name], stored[name] = session.provenance["warnings"], session.signals["lfp"].read()
    assert "signal 'lfp': 13 samples are infinite or too large for float32, kept as missing" in said["inf"]
    assert not any("nan" in w or "infinite" in w for w in said["nan"])
    np.testing.assert_array_equal(stored["inf"], stored["nan"])


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
@pytest.mark.parametrize("kind", ["lfp", "other"])
def test_a_signal_without_a_finite_value_says_so(tmp_path: Path, value: float, kind: str) -> None:
    rec = Recording.from_arrays("r", signals={"x": {"values": np.full((5_000, 2), value), "rate": 1000.0, "unit": "uV", "kind": kind}})
    said = preprocess(rec, tmp_path / "a.zarr").provenance["warnings"]
    assert "signal 'x': holds no finite value" in said
    assert any("10000 samples are infinite" in w for w in said) == (not np.isnan(value))
    assert not any("deviation" in w or "dead" in w for w in said)
