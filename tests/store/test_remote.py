"""Stores behind a URL: the same bytes, the same readings, the same strictness, through memory, S3 (a real server on loopback) and plain HTTP."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr
from zarr.core.sync import sync as zarr_sync

from brainmu.core import Intervals, Recording
from brainmu.errors import BrainmuError, InputError, NotFoundError, OutputExistsError, StoreError
from brainmu.store import open, places, preprocess, remote, verify
from brainmu.store.places import LocalPlace, RemotePlace, is_url, place_of, url_of
from brainmu.store.session import is_store

SMALL = {"chunk_kib": 4, "shard_mib": 1}


class ObjectServer:
    """A bucket of a real S3-compatible server."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.env = {"AWS_ENDPOINT_URL": endpoint, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="session")
def s3_server() -> Iterator[ObjectServer]:
    pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'brainmu[remote]'")
    moto = pytest.importorskip("moto.server", reason="the S3-compatible server moto is not installed: pip install 'brainmu[dev]'")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    found = ObjectServer(f"http://{host}:{port}")
    urllib.request.urlopen(urllib.request.Request(f"{found.endpoint}/lab", method="PUT")).close()  # make the bucket
    yield found
    server.stop()


@pytest.fixture
def s3(s3_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> ObjectServer:
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture(autouse=True)
def connections() -> Iterator[None]:
    """Close what fsspec keeps open for the next call, after each test."""
    yield
    for scheme in ("http", "s3"):
        if scheme == "http" or "s3fs" in sys.modules:
            kind = fsspec.get_filesystem_class(scheme)
            for fs in list(kind._cache.values()):
                session = getattr(fs, "_session" if scheme == "http" else "_s3creator", None)
                if session is not None and fs.asynchronous:  # zarr's, in its own loop
                    zarr_sync(session.__aexit__(None, None, None))
                elif session is not None:
                    kind.close_session(fs.loop, session)
            kind.clear_instance_cache()


@pytest.fixture(params=["memory", "s3"])
def url(request: pytest.FixtureRequest) -> str:
    """A place of its own for a store."""
    if request.param == "s3":
        request.getfixturevalue("s3")
    return f"{request.param}://lab/{uuid.uuid4().hex}.zarr"


@pytest.fixture
def memory() -> str:
    return f"memory://lab/{uuid.uuid4().hex}.zarr"


@contextlib.contextmanager
def web(root: Path, answer: Callable[[str], int] = lambda path: 200, ranges: bool = True) -> Iterator[str]:
    """A plain web server of a folder; `answer` gives the status of a path."""

    class Handler(http.server.BaseHTTPRequestHandler):
        disable_nagle_algorithm = True

        def log_message(self, *_: Any) -> None: ...

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            file, status = root / self.path.lstrip("/"), answer(self.path)
            data = file.read_bytes() if status == 200 and file.is_file() else b""
            status = 404 if status == 200 and not file.is_file() else status
            wanted = self.headers.get("Range")
            if ranges and wanted and status == 200:
                a, _, b = wanted.removeprefix("bytes=").partition("-")
                total, status = len(data), 206
                first, last = (total - int(b), total - 1) if not a else (int(a), int(b) if b else total - 1)
                data = data[first : last + 1]
            self.send_response(status)
            if status == 206:
                self.send_header("Content-Range", f"bytes {first}-{last}/{total}")
            if ranges:
                self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

    class Server(http.server.ThreadingHTTPServer):
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def objects(url: str) -> dict[str, bytes]:
    place = RemotePlace(url)
    return {name: place.read(name) for name in place.sizes() or {}}


def files(root: Path) -> dict[str, bytes]:
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def noise(n: int = 400_000, seed: int = 0, **about: Any) -> Recording:
    x = np.random.default_rng(seed).standard_normal((n, 2)).astype(np.float32)
    return Recording.from_arrays("r", signals={"lfp": {"values": x, "rate": 1000.0, "unit": "uV", "kind": "lfp"}}, **about)


def small(seed: int = 0) -> Recording:
    """Few objects: every one is a request to a slow server."""
    rng = np.random.default_rng(seed)
    lfp = {"values": (rng.standard_normal((60_000, 3)) * 300).astype(np.int16), "rate": 20_000.0, "unit": "uV", "kind": "lfp", "start": 12.5}
    pose = {"values": rng.random((300, 2)), "times": np.sort(rng.random(300)) * 3 + 12, "unit": "m", "kind": "position"}
    spikes = {"times": np.sort(rng.random(500) * 35), "unit": rng.integers(0, 4, 500)}
    return Recording.from_arrays("small", signals={"lfp": lfp, "pose": pose}, spikes=spikes, labels={"run": Intervals([[12.0, 13.0], [13.0, 14.5]])})


# -- names ----------------------------------------------------------------------------------------------------------------
def test_urls_are_told_from_paths(tmp_path: Path) -> None:
    assert url_of("s3://bucket/a/x.zarr/") == "s3://bucket/a/x.zarr" == url_of(Path("s3://bucket/a/x.zarr"))
    assert url_of("simplecache::s3://b/x.zarr") == "simplecache::s3://b/x.zarr"
    for text in ("x.zarr", "./s3/x.zarr", "/data/x:y.zarr", tmp_path, "a:b", "file:///data/x.zarr"):
        assert not is_url(text), text
    assert isinstance(place_of("file:///data/x.zarr"), LocalPlace) and str(place_of("file:///data/x.zarr")) == "/data/x.zarr"
    for wrong, message in (
        (lambda: open("nowhere://x/a.zarr"), "Protocol not known: nowhere"),
        (lambda: open("https://x/a.zarr?token=1"), "expected the plain address of one store"),
        (lambda: open("memory://a*.zarr"), "expected the plain address"),
        (lambda: open(tmp_path, storage_options={"anon": True}), "storage_options are for remote stores"),
        (lambda: open(42), "named by a path or a URL, got int"),  # type: ignore[arg-type]
        (lambda: open(tmp_path, cache_mib=-1), "expected 0 or more MiB"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            wrong()
        assert "\n" not in str(caught.value)


# -- the same bytes, the same readings --------------------------------------------------------------------------------------
@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_a_remote_store_is_the_local_one(tmp_path: Path, url: str, compression: str) -> None:
    recording = small()
    near = preprocess(recording, tmp_path / "a.zarr", compression=compression, **SMALL)
    far = preprocess(recording, url, compression=compression, **SMALL)
    assert objects(url) == files(near.path)
    assert far.path == url and verify(url) == [] and is_store(url) and not far.already_complete
    assert preprocess(recording, url, compression=compression, **SMALL).already_complete
    for session in (far, pickle.loads(pickle.dumps(far)), open(Path(url), cache_mib=0)):
        assert list(session.signals) == list(near.signals) and list(session.labels) == list(near.labels)
        for name, s in near.signals.items():
            t = session.signals[name]
            np.testing.assert_array_equal(t.read(), s.read())
            np.testing.assert_array_equal(t.read(3, 5), s.read(3, 5))
            np.testing.assert_array_equal(t.values[-7:, 0], s.values[-7:, 0])
            np.testing.assert_array_equal(t.read_times(), s.read_times())
            assert session.quality(name).equals(near.quality(name))
        np.testing.assert_array_equal(session.spikes.times, near.spikes.times)
        for start, stop in ((12.5, 13.5), (0.0, 100.0), (600.0, 700.0)):
            a, b = session.window(start, stop), near.window(start, stop)
            for name in near.signals:
                np.testing.assert_array_equal(a.signals[name], b.signals[name])
            np.testing.assert_array_equal(a.spike_times, b.spike_times)
    assert far.provenance == near.provenance


def test_xarray_opens_it_by_its_url(url: str) -> None:
    far = preprocess(small(), url, compression="lz4", **SMALL)
    for tree in (far.tree, xr.open_datatree(url, engine="zarr")):  # a warning would be an error
        for name, s in far.signals.items():
            np.testing.assert_allclose(tree[f"signals/{name}/values"].values, s.read(), rtol=1e-6)
        np.testing.assert_array_equal(tree["labels/run/bounds"].values, [[12.0, 13.0], [13.0, 14.5]])


def test_storage_options_reach_the_service(s3_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    options = {"key": "key", "secret": "secret", "endpoint_url": s3_server.endpoint, "client_kwargs": {"region_name": "us-east-1"}}
    url = f"s3://lab/{uuid.uuid4().hex}.zarr"
    rec = noise(2000)
    with remote.writing(url, "job", storage_options=options) as folder:
        folder.group("", {"brainmu_schema": 1})
    assert verify(url, storage_options=options) == []
    place_of(url, options).remove(["zarr.json", ".sha256"])
    session = preprocess(rec, url, storage_options=options)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(session)).signals["lfp"].read(), rec.signals["lfp"].values)
    np.testing.assert_array_equal(session.tree["signals/lfp/values"].values, rec.signals["lfp"].values)


def test_the_plain_web_is_read_and_not_written(tmp_path: Path) -> None:
    recording = small()
    near = preprocess(recording, tmp_path / "a.zarr", compression="lz4", **SMALL)
    with web(tmp_path) as address:
        far = open(f"{address}/a.zarr")
        for name, s in near.signals.items():
            np.testing.assert_array_equal(far.signals[name].read(), s.read())
        assert far.labels["run"] == Intervals([[12.0, 13.0], [13.0, 14.5]])
        assert verify(f"{address}/a.zarr") == []
        file = near.path / "signals/lfp/values/c/0/0"
        data = file.read_bytes()
        file.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
        assert verify(f"{address}/a.zarr") == ["signals/lfp/values/c/0/0: bytes changed"]
        with pytest.raises(StoreError, match="the plain web takes no objects"):
            preprocess(recording, f"{address}/b.zarr")
        with pytest.raises(NotFoundError, match="no such store"):
            open(f"{address}/b.zarr")


# -- reading ----------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_a_window_is_few_requests_and_a_second_one_none(memory: str, recording: Recording, compression: str, monkeypatch: pytest.MonkeyPatch) -> None:
    preprocess(recording, memory, compression=compression, **SMALL)
    asked: list[int] = []
    plain = RemotePlace.ranges
    monkeypatch.setattr(RemotePlace, "ranges", lambda self, wanted: asked.append(len(wanted)) or plain(self, wanted))
    session = open(memory)
    session.window(12.5, 14.0)
    assert len(asked) == (2 if compression == "lz4" else 1)  # the indices of all signals together, then the chunks of all
    session.window(12.6, 13.9)
    assert len(asked) == (2 if compression == "lz4" else 1)


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_the_cache_counts_decoded_bytes_and_keeps_its_bound(memory: str, compression: str) -> None:
    rec = noise(700_000)
    preprocess(rec, memory, compression=compression, chunk_kib=64, shard_mib=1)
    session = open(memory, cache_mib=1)
    np.testing.assert_array_equal(session.signals["lfp"].read(), rec.signals["lfp"].values)
    held = list(session._cache._chunks.values())
    assert 0 < sum(c.nbytes for c in held) == session._cache.size <= 1 << 20
    owners = [c if c.base is None else c.base for c in held]
    assert all(getattr(o, "nbytes", len(o) if isinstance(o, bytes) else 0) <= (64 << 10) + 4 for o in owners)  # none keeps its neighbours alive
    none = open(memory, cache_mib=0)
    np.testing.assert_array_equal(none.signals["lfp"].read(5, 90_000), rec.signals["lfp"].values[5:90_000])
    assert none._cache.size == 0


@pytest.mark.parametrize("compression", ["none", "lz4"])
def test_every_chunk_is_checked(memory: str, compression: str) -> None:
    session = preprocess(noise(), memory, compression=compression, **SMALL)
    place, name = RemotePlace(memory), "signals/lfp/values/c/1/0"
    whole = place.read(name)
    for at in (3, len(whole) // 2) if compression == "none" else (3, len(whole) // 2, len(whole) - 3):
        place.put(name, whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
        with pytest.raises(StoreError, match=rf"{name}: bytes do not match their checksum"):
            open(memory).signals["lfp"].read()
    place.put(name, whole[:1000])
    with pytest.raises(StoreError, match=r"truncated|match their checksum"):
        open(memory).signals["lfp"].read()
    place.remove([name])
    with pytest.raises(StoreError, match=f"{name}: is missing from the store"):
        open(memory).signals["lfp"].read()
    place.remove(["labels/zarr.json", "spikes/time/c/0"])
    assert session.labels == {}


def test_verify_finds_any_flipped_byte_missing_and_extra_object(memory: str) -> None:
    rec = small()
    rec = Recording.from_arrays("r", signals={"emg": {"values": np.ones((500, 2)), "rate": 100.0, "unit": "uV", "kind": "emg"}}, labels=rec.labels)
    preprocess(rec, memory)
    place, rng = RemotePlace(memory), np.random.default_rng(0)
    for name, data in objects(memory).items():
        for at in {0, len(data) - 1, *rng.integers(0, len(data), 2).tolist()}:
            broken = bytearray(data)
            broken[at] ^= 1 << int(rng.integers(0, 8))
            place.put(name, bytes(broken))
            assert verify(memory), f"{name} byte {at}"
        place.put(name, data)
    assert verify(memory) == []
    place.put("extra", b"")
    assert verify(memory) == ["extra: not part of the store"]
    place.remove(["extra", "signals/emg/values/c/0/0"])
    assert verify(memory) == ["signals/emg/values/c/0/0: missing"]
    place.remove([".sha256"])
    assert verify(memory) == [".sha256: missing, nothing can be checked"]
    with pytest.raises(NotFoundError, match="no such store"):
        verify(memory + "x")


def test_large_objects_are_verified_in_pieces(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    preprocess(noise(), memory)
    monkeypatch.setattr(places, "_BLOCK", 1000)
    assert verify(memory) == []
    place = RemotePlace(memory)
    data = bytearray(place.read("signals/lfp/values/c/0/0"))
    data[123_456] ^= 1
    place.put("signals/lfp/values/c/0/0", bytes(data))
    assert verify(memory) == ["signals/lfp/values/c/0/0: bytes changed"]


def test_troubles_on_the_way_are_one_line(tmp_path: Path) -> None:
    preprocess(noise(4000), tmp_path / "a.zarr", **SMALL)
    status = {"values": 200}

    def answer(path: str) -> int:
        return status["values"] if "/values/" in path else 200

    with web(tmp_path, answer) as address:
        for code, message in (
            (403, "access denied.*check the credentials"),
            (500, "cannot be reached.*check the address and the network"),
            (404, "is missing"),
        ):
            status["values"] = code
            with pytest.raises(StoreError, match=f"a.zarr/signals/lfp/values/c/0/0: {message}") as caught:
                open(f"{address}/a.zarr").signals["lfp"].read()
            assert "\n" not in str(caught.value)
        status["values"] = 200
        assert open(f"{address}/a.zarr").signals["lfp"].read().shape == (4000, 2)
    with pytest.raises(StoreError, match="cannot be reached") as caught:
        open(f"{address}/a.zarr")
    assert "\n" not in str(caught.value)
    with web(tmp_path, ranges=False) as address, pytest.raises(StoreError, match="the server does not serve byte ranges"):
        open(f"{address}/a.zarr").signals["lfp"].read(0, 100)


def test_a_bucket_that_is_not_there(s3: ObjectServer) -> None:
    with pytest.raises(NotFoundError, match=r"s3://nobody/a\.zarr: no such store"):
        open("s3://nobody/a.zarr")
    with pytest.raises(BrainmuError, match=r"s3://nobody/a\.zarr") as caught:
        preprocess(small(), "s3://nobody/a.zarr")
    assert "\n" not in str(caught.value)


# -- whole or not at all ------------------------------------------------------------------------------------------------------
def stop_after(fraction: float) -> Callable[[str, float], None]:
    def progress(label: str, done: float) -> None:
        if done > fraction:
            raise KeyboardInterrupt

    return progress


def test_a_cut_off_run_goes_on_and_never_opens(tmp_path: Path, url: str) -> None:
    rec = noise(400_000)
    near = preprocess(rec, tmp_path / "a.zarr", **SMALL)
    with pytest.raises(KeyboardInterrupt):
        preprocess(rec, url, progress=stop_after(0.7), **SMALL)
    place = RemotePlace(url)
    there = place.sizes() or {}
    shards = [n for n in there if n.startswith("signals/lfp/values/c/")]
    assert len(shards) >= 2 and "zarr.json" not in there
    with pytest.raises(StoreError, match="is an unfinished store: run the same brainmu preprocess again"):
        open(url)
    made: list[str] = []
    plain = remote.RemoteSink.commit

    def commit(self: remote.RemoteSink, temporary: Path, name: str) -> None:
        made.append(name)
        plain(self, temporary, name)

    vouched = [json.loads(place.read(n))["file"] for n in there if n.startswith(".work/done/")]
    place.put(vouched[0], b"cut")  # in another length
    place.put("signals/lfp/values/c/99/0", b"stray")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(remote.RemoteSink, "commit", commit)
        preprocess(rec, url, **SMALL)
    assert vouched[0] in made and not set(vouched[1:]) & set(made)
    assert objects(url) == files(near.path)


def test_another_job_keeps_nothing_of_the_last(memory: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        preprocess(noise(seed=1), memory, progress=stop_after(0.7), **SMALL)
    rec = noise(seed=2)
    np.testing.assert_array_equal(preprocess(rec, memory, **SMALL).signals["lfp"].read(), rec.signals["lfp"].values)
    assert verify(memory) == []


def test_other_stores_need_overwrite_and_what_is_no_store_is_never_replaced(memory: str) -> None:
    url, make = memory, small
    preprocess(make(0), url)
    with pytest.raises(OutputExistsError, match=r"exists and holds another store.*--overwrite"):
        preprocess(make(1), url)
    session = preprocess(make(1), url, overwrite=True)
    assert verify(url) == [] and session.provenance["identity"] == open(url).provenance["identity"]
    place = RemotePlace(url)
    place.put("zarr.json", b"{")  # damaged, and still a store by its checksums
    assert verify(preprocess(make(1), url, overwrite=True).path) == []
    place.remove(list(place.sizes() or {}))
    place.put("thesis.txt", b"important")
    for overwrite in (False, True):
        with pytest.raises(OutputExistsError, match="something that is no store"):
            preprocess(make(0), url, overwrite=overwrite)
    assert objects(url) == {"thesis.txt": b"important"}


def test_a_store_that_lost_an_object_is_not_called_complete(memory: str, recording: Recording) -> None:
    preprocess(recording, memory)
    RemotePlace(memory).remove(["spikes/time/c/0"])
    with pytest.raises(OutputExistsError, match="--overwrite to replace it"):
        preprocess(recording, memory)


def test_two_writers(memory: str, recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "BEAT", 0.1)
    with pytest.raises(KeyboardInterrupt), remote.writing(memory, "some job"):
        with pytest.raises(StoreError, match="is being written by another process"):
            preprocess(recording, memory)
        raise KeyboardInterrupt
    assert verify(preprocess(recording, memory).path) == []  # it let go


@pytest.mark.parametrize("text", [b'{"token": "x", "beat": 3, "machine": "elsewhere", "process": 1}', b"not json"])
def test_a_writer_that_shows_no_life_is_replaced(memory: str, recording: Recording, monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    monkeypatch.setattr(remote, "BEAT", 0.1)
    RemotePlace(memory).put(".work/writer", text)
    assert verify(preprocess(recording, memory).path) == []


def test_a_writer_that_was_taken_over_stops(memory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def seize(label: str, done: float) -> None:
        if label == "lfp":
            RemotePlace(memory).put(".work/writer", b'{"token": "another"}')

    with pytest.raises(StoreError, match="another process began to write it while this one was out of touch"):
        preprocess(noise(), memory, progress=seize, **SMALL)
    assert RemotePlace(memory).read(".work/writer") == b'{"token": "another"}'


def test_what_a_writer_left_in_its_last_moment_is_removed(memory: str, recording: Recording) -> None:
    preprocess(recording, memory)
    RemotePlace(memory).put(".work/job", b"x")
    assert verify(memory) == [".work/job: not part of the store"]
    assert preprocess(recording, memory).already_complete and verify(memory) == []


CHILD = """
import sys, numpy as np
from brainmu.core import Intervals, Recording
from brainmu.store import preprocess
rec = Recording.from_arrays("r", signals={"lfp": dict(values=np.load(sys.argv[1], mmap_mode="r"), rate=1000.0, unit="uV", kind="lfp")})
print("begin", flush=True)
preprocess(rec, sys.argv[2], chunk_kib=16, shard_mib=1, jobs=int(sys.argv[3]))
"""


def kill_and_finish(tmp_path: Path, kills: int, jobs: int) -> None:
    source = tmp_path / "source.npy"
    x = np.random.default_rng(0).standard_normal((1_500_000, 2)).astype(np.float32)
    np.save(source, x)
    rec = Recording.from_arrays("r", signals={"lfp": {"values": x, "rate": 1000.0, "unit": "uV", "kind": "lfp"}})
    expected = files(preprocess(rec, tmp_path / "a.zarr", chunk_kib=16, shard_mib=1).path)

    def start(url: str) -> subprocess.Popen[str]:
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(source), url, str(jobs)], stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert child.stdout is not None and child.stdout.readline() == "begin\n"
        child.stdout.close()
        return child

    shards = sum("/values/c/" in n for n in expected)
    for k in range(kills):
        url = f"s3://lab/killed{jobs}{k}.zarr"
        child, place = start(url), RemotePlace(url)
        while child.poll() is None and sum(n.startswith(".work/done/") for n in place.sizes() or {}) < (k + 1) * shards // (kills + 1):
            time.sleep(0.01)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        assert "zarr.json" not in (place.sizes() or {})
        assert start(url).wait(120) == 0
        assert objects(url) == expected


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 2])
def test_killed_runs_end_in_the_same_objects(tmp_path: Path, s3: ObjectServer, jobs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # a killed process leaves its temporary files
    kill_and_finish(tmp_path, 3, jobs)
