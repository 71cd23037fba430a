"""Samples as they are read: every span, whatever the layout; checks on first touch; threads and forks."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from brainmu.core import Recording
from brainmu.errors import StoreError
from brainmu.store import arrays, open, preprocess
from brainmu.store.arrays import ChunkCache

N = 30_000


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, np.ndarray]]:
    """Float and int16 samples, with missing ones, mapped and compressed, in many chunks and several shards."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, 16)).astype(np.float32)
    x[5000:5100, 3] = np.nan
    k = (rng.standard_normal((N, 16)) * 300).astype(np.int16)
    k[7000:7005, 2] = 999
    out = {}
    for name, about in {"float32": {"values": x}, "int16": {"values": k, "scale": 0.5, "missing": 999}}.items():
        expected = x if name == "float32" else np.where(k == 999, np.float32(np.nan), k * np.float32(0.5))
        for compression in ("none", "lz4"):
            path = tmp_path_factory.mktemp("stores") / "a.zarr"
            rec = Recording.from_arrays("r", signals={"lfp": {"rate": 1000.0, "unit": "uV", "kind": "lfp", **about}})
            preprocess(rec, path, compression=compression, chunk_kib=8, shard_mib=1)
            out[f"{name} {compression}"] = (path, expected)
    return out


@given(st.sampled_from(["float32 none", "float32 lz4", "int16 none", "int16 lz4"]), st.integers(0, N), st.integers(0, N), st.sampled_from([0, 1, 64]))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_span_reads_what_was_written(stores: dict[str, tuple[Path, np.ndarray]], name: str, i: int, j: int, cache_mib: int) -> None:
    path, expected = stores[name]
    i, j = min(i, j), max(i, j)
    s = open(path, cache_mib=cache_mib, check=bool(i % 2)).signals["lfp"]
    np.testing.assert_array_equal(s.read(i, j), expected[i:j])
    assert s.values[i:j].shape == (j - i, 16)


def test_long_spans_are_decoded_by_threads_in_order(stores: dict[str, tuple[Path, np.ndarray]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_AHEAD", 1 << 16)
    for name in ("float32 lz4", "int16 lz4"):
        path, expected = stores[name]
        np.testing.assert_array_equal(open(path, cache_mib=0).signals["lfp"].read(), expected)


def test_many_threads_read_one_session(stores: dict[str, tuple[Path, np.ndarray]]) -> None:
    path, expected = stores["float32 lz4"]
    s = open(path, cache_mib=1).signals["lfp"]
    spans = [(int(a), int(a) + 900) for a in np.random.default_rng(1).integers(0, N - 900, 200)]
    with ThreadPoolExecutor(4) as pool:
        for (a, b), got in zip(spans, pool.map(lambda ab: s.read(*ab), spans)):
            np.testing.assert_array_equal(got, expected[a:b])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")  # what the test is about: loaders do it
def test_a_forked_child_reads_what_its_parent_opened(stores: dict[str, tuple[Path, np.ndarray]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "_AHEAD", 1 << 16)
    path, expected = stores["float32 lz4"]
    s = open(path, cache_mib=0).signals["lfp"]
    s.read()  # starts the threads
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(s.read(), expected, equal_nan=True) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_check_finds_damage_in_mapped_samples_when_they_are_touched(stores: dict[str, tuple[Path, np.ndarray]], tmp_path: Path) -> None:
    path, expected = stores["float32 none"]
    file = path / "signals/lfp/values/c/1/0"
    whole = file.read_bytes()
    span = open(path).signals["lfp"].values.layout.span(1)
    try:
        file.write_bytes(whole[:100] + bytes([whole[100] ^ 8]) + whole[101:])
        plain, checked = open(path).signals["lfp"], open(path, check=True).signals["lfp"]
        assert not np.array_equal(plain.read(span[0], span[0] + 10), expected[span[0] : span[0] + 10])  # the price of speed: seen by verify only
        np.testing.assert_array_equal(checked.read(0, span[0]), expected[: span[0]])
        for read in (lambda: checked.read(span[0], span[0] + 10), checked.read):
            with pytest.raises(StoreError, match=r"c/1/0: bytes do not match their checksum"):
                read()
        np.testing.assert_array_equal(checked.read(span[1] - 10), expected[span[1] - 10 :])  # another chunk
    finally:
        file.write_bytes(whole)


def test_a_map_that_was_closed_is_not_checked_again(stores: dict[str, tuple[Path, np.ndarray]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrays, "MAX_MAPS", 1)
    s = open(stores["float32 none"][0], check=True).signals["lfp"]
    s.read()
    asked: list[str] = []
    monkeypatch.setattr(arrays, "unseal", lambda data, where: asked.append(where))
    s.read()
    assert not asked and len(s.values._shards) == 1


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 400))), st.integers(0, 1000))
def test_the_cache_never_holds_more_than_its_limit(puts: list[tuple[int, int]], limit: int) -> None:
    cache = ChunkCache(limit)
    for key, size in puts:
        cache.put(key, np.empty(size, dtype=np.uint8))
        held = [c.nbytes for c in cache._chunks.values()]
        assert sum(held) == cache.size <= limit
        if size <= limit and cache.get(key) is not None:
            assert next(reversed(cache._chunks)) == key  # the last one used goes last
