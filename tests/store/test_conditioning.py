"""Reference, notch and band on the way into a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from brainmu.core import Intervals, Recording
from brainmu.dsp.conditioning import Band, Notch, filtered
from brainmu.dsp.resample import resample
from brainmu.errors import ConfigError, InputError
from brainmu.store import preprocess
from brainmu.store import streams as streams_module
from brainmu.store.config import PreprocessConfig
from brainmu.store.streams import Stream

RATE = 5000.0
N = 120_000


def raw(channels: int = 6, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(N) / RATE
    slow = 300 * np.sin(2 * np.pi * 8 * t)[:, None] + 80 * np.sin(2 * np.pi * 50 * t)[:, None]
    return (slow + rng.standard_normal((N, channels)) * 100 + 200).astype(np.int16)


def recording(values: Any = None, **more: Any) -> Recording:
    x = raw() if values is None else values
    return Recording.from_arrays("r", signals={"lfp": {"values": x, "rate": RATE, "unit": "uV", "kind": "lfp", "scale": 0.5, "start": 3.0} | more})


def stored(path: Path, rec: Recording | None = None, **options: Any) -> Any:
    return preprocess(rec or recording(), path, chunk_kib=16, shard_mib=1, **options).signals["lfp"]


def bytes_of(path: Path) -> dict[str, bytes]:
    return {p.relative_to(path).as_posix(): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_int16_stays_as_it_is_when_nothing_is_asked(tmp_path: Path) -> None:
    s = stored(tmp_path / "a.zarr", lfp_rate=None)
    assert s.values.dtype == np.int16
    np.testing.assert_array_equal(s.values[:], raw())
    assert "filters" not in s.attrs and "centred" not in s.attrs and "reference" not in s.attrs
    assert stored(tmp_path / "b.zarr", lfp_rate=None, notch=50.0).values.dtype == np.float32


@pytest.mark.parametrize("lfp_rate", [1250.0, None])
def test_the_store_holds_what_the_whole_array_gives(tmp_path: Path, lfp_rate: float | None) -> None:
    s = stored(tmp_path / "a.zarr", lfp_rate=lfp_rate, notch=50.0, band=(2.0, 300.0), reference="average")
    x = raw() * 0.5
    x = x - x.mean(axis=1, keepdims=True)
    rate = RATE if lfp_rate is None else lfp_rate
    y = x if lfp_rate is None else resample(x, RATE, lfp_rate)[0]
    y = filtered(y, [Notch(rate, 50.0), Band(rate, 2.0, 300.0)])
    assert np.abs(s.read() - y).max() < 1e-5 * y.std()
    notch, band = s.attrs["filters"]
    assert notch["filter"] == "notch" and notch["frequencies"][:2] == [50.0, 100.0] and notch["attenuation_db_at_half_width"] == 3.0
    assert band["low"] == 2.0 and band["half_amplitude_at"] == [1.0, 337.5] and band["attenuation_db"] == 80.0 and band["taps"] > 100
    assert s.attrs["centred"] is True


@pytest.mark.parametrize("options", [{"notch": 50.0}, {"reference": "median"}, {"notch": 60.0, "band": (1.0, None), "reference": "average"}, {}])
def test_same_bytes_whatever_the_blocks_threads_and_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    x = raw()
    x[50_000:60_000, 2] = -32768
    x[90_000, :3] = -32768
    x[100_000:100_400] = x[100_000]
    rec = recording(x, gaps=Intervals([[22.0, 22.5]]), missing=None)
    a = tmp_path / "a.zarr"
    stored(a, rec, threads=1, **options)
    if options.get("reference") == "average":  # the slow way, once
        stored(tmp_path / "b.zarr", rec, threads=2, jobs=2, **options)
        assert bytes_of(tmp_path / "b.zarr") == bytes_of(a)
    monkeypatch.setattr(streams_module, "_BLOCK_VALUES", 50_000)
    stored(tmp_path / "c.zarr", rec, threads=2, **options)
    assert bytes_of(tmp_path / "c.zarr") == bytes_of(a)


def test_blocks_in_any_order_are_the_same(tmp_path: Path) -> None:
    config = PreprocessConfig(notch=50.0, band=(1.0, 400.0), reference="average")
    stream = Stream("lfp", recording().signals["lfp"], config)
    whole = stream.block(0, stream.n)[0]
    rng = np.random.default_rng(0)
    for _ in range(8):
        a, b = np.sort(rng.integers(0, stream.n, 2))
        np.testing.assert_array_equal(stream.block(a, b)[0], whole[a:b])


def test_only_brain_channels_are_filtered_and_referenced(tmp_path: Path) -> None:
    channels = pd.DataFrame({"name": list("abcdef"), "kind": ["eeg"] * 4 + ["emg", "eog"]})
    rec = recording(kind="eeg", channels=channels)
    plain = stored(tmp_path / "a.zarr", rec).read()
    s = stored(tmp_path / "b.zarr", rec, band=(20.0, None), reference="average")
    np.testing.assert_array_equal(s.read()[:, 4:], plain[:, 4:])
    assert np.abs(s.read()[:, :4]).max() < np.abs(plain[:, :4]).max() / 2
    assert s.attrs["reference"]["groups"] == [["a", "b", "c", "d"]]
    hum = stored(tmp_path / "c.zarr", rec, notch=50.0).read()[2000:-2000]
    t = 3.0 + np.arange(2000, 2000 + len(hum)) / 1250
    assert np.abs((np.exp(-2j * np.pi * 50 * t)[:, None] * hum).mean(axis=0)).max() < 1.0  # 20 before: also of EMG and EOG


def test_references_are_of_the_good_channels_of_each_group(tmp_path: Path) -> None:
    x = raw(10)
    x[:, 1] = 7  # dead
    x[:, 2] = np.clip(x[:, 2].astype(int) * 8, -32000, 32000)  # noisy
    channels = pd.DataFrame({"name": list("abcdefghij"), "shank": [0] * 6 + [1] * 2 + [2] * 2, "bad": [False] * 5 + [True] + [False] * 4})
    rec = recording(x[:, :10], channels=channels, scale=np.linspace(0.9, 1.1, 10))
    s = stored(tmp_path / "a.zarr", rec, lfp_rate=None, reference="median")
    said = s.attrs["reference"]
    assert said["groups"] == [list("abcdef")] and said["kept_as_recorded"] == list("ghij")
    assert set(said["left_out"]) == {"b", "c", "f"} and said["left_out"]["b"] == "dead or missing" and said["left_out"]["f"] == "marked bad"
    y = x * np.linspace(0.9, 1.1, 10)
    y[:, :6] -= np.median(y[:, [0, 3, 4]], axis=1)[:, None]
    np.testing.assert_allclose(s.read(), y, rtol=1e-5, atol=1e-3)
    warnings = "\n".join(preprocess(rec, tmp_path / "b.zarr", reference="median").provenance["warnings"])
    assert "the median reference leaves out b (dead or missing), c (" in warnings and "4 channels of groups with fewer than three good ones keep" in warnings


def test_reference_to_a_channel(tmp_path: Path) -> None:
    rec = recording(channels=list("abcdef"))
    s = stored(tmp_path / "a.zarr", rec, lfp_rate=None, reference="c")
    x = raw() * 0.5
    np.testing.assert_array_equal(s.read(), (x - x[:, 2:3]).astype(np.float32))
    with pytest.raises(ConfigError, match=r"reference is 'averge', expected average, median or an lfp or eeg channel \(there are a, b.*did you mean 'average'"):
        stored(tmp_path / "b.zarr", rec, reference="averge")


def test_what_does_not_apply_is_said(tmp_path: Path) -> None:
    slow = recording(raw()[:5000], rate=80.0)
    session = preprocess(slow, tmp_path / "a.zarr", notch=50.0, band=(1.0, 60.0))
    said = "\n".join(session.provenance["warnings"])
    assert "has no hum of 50 Hz to take out" in said and "the band ends at 60 Hz but half its rate is 40 Hz" in said
    assert [f["filter"] for f in session.signals["lfp"].attrs["filters"]] == ["band"]
    with pytest.raises(InputError, match="band begins at 50 Hz"):
        preprocess(slow, tmp_path / "b.zarr", band=(50.0, None))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"band": (300.0, 1.0)}, "0 < low < high"), ({"band": (None, None)}, "one may be null"), ({"band": (1.0,)}, "two edges"),
        ({"notch": -50.0}, "mains frequency"), ({"notch": 50.0, "notch_width": 80.0}, "at most the notch's 50 Hz"),
        ({"notch_harmonics": 0}, "1 or more"), ({"reference": ""}, "reference is empty"), ({"artefact": 0.0}, "positive number"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        PreprocessConfig(**options)


def test_a_rate_that_cannot_be_is_refused_before_any_filter_is_made(tmp_path):
    rec = Recording.from_arrays("m1", signals={"lfp": dict(values=np.zeros((100, 2)), rate=1e12, unit="uV", kind="lfp")})
    with pytest.raises(InputError, match=r"signal 'lfp': its rate is 1e\+12 Hz and lfp_rate 1250 Hz, expected at most 1000 times less"):
        preprocess(rec, tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()
    assert preprocess(rec, tmp_path / "a.zarr", lfp_rate=None).signals["lfp"].rate == 1e12
