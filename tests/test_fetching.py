"""Fetching against a real server on this machine that speaks the archives' endpoints, breaks off, lies and goes down."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from brainmu import fetching
from brainmu.cli import main
from brainmu.errors import ConfigError, FetchError, NotFoundError
from brainmu.fetching import LOCK, archives, dataset, dataset_names, fetch, list_files

PIPELINES = Path(__file__).resolve().parents[1] / "pipelines"
BIG = bytes(range(256)) * 8000  # 2 MB


class Archive:
    """What the server holds, how it misbehaves, and what it was asked."""

    def __init__(self) -> None:
        self.pages: dict[str, bytes] = {}
        self.asked: Counter[str] = Counter()
        self.ranges: list[str | None] = []
        self.cut: dict[str, list[int]] = {}  # path -> after how many bytes each further answer breaks off
        self.status: dict[str, list[int]] = {}  # path -> statuses to answer before the real one
        self.redirect: dict[str, str] = {}
        self.ranged = True
        self.slow = 0.0  # s before each 64 KiB
        self.url = ""

    def physionet(self, files: dict[str, bytes], id: str = "night", version: str = "1.0.0") -> None:
        for path, body in files.items():
            self.pages[f"/{id}/{version}/{path}"] = body
        sums = "".join(f"{hashlib.sha256(b).hexdigest()} {p}\n" for p, b in files.items())
        self.pages[f"/{id}/{version}/SHA256SUMS.txt"] = sums.encode()

    def dandi(self, files: dict[str, bytes]) -> None:
        root = "/dandisets/000999"
        self.pages[f"{root}/"] = json.dumps({"most_recent_published_version": {"version": "0.240101.0000"}}).encode()
        root += "/versions/0.240101.0000"
        self.pages[f"{root}/"] = json.dumps({"license": ["spdx:CC-BY-4.0"]}).encode()
        rows = [{"asset_id": f"id{i}", "path": p, "size": len(b), "zarr": None} for i, (p, b) in enumerate(files.items())]
        # One asset comes with its metadata, the others' must be asked for.
        rows[-1]["metadata"] = {"digest": {"dandi:sha2-256": hashlib.sha256([*files.values()][-1]).hexdigest()}}
        rows.append({"asset_id": "z", "path": "sub-1/big.zarr", "size": 1, "zarr": "uuid"})
        for i, body in enumerate(files.values()):
            self.pages[f"{root}/assets/id{i}/"] = json.dumps(
                {"digest": {"dandi:sha2-256": hashlib.sha256(body).hexdigest(), "dandi:dandi-etag": "x-1"}}
            ).encode()
            self.redirect[f"{root}/assets/id{i}/download/"] = f"/blobs/{i}"
            self.pages[f"/blobs/{i}"] = body
        # Two pages, as for a large data set.
        self.pages[f"{root}/assets/?metadata=1&page_size=500"] = json.dumps({"next": f"{self.url}{root}/assets/?page=2", "results": rows[:1]}).encode()
        self.pages[f"{root}/assets/?page=2"] = json.dumps({"next": None, "results": rows[1:]}).encode()

    def zenodo(self, files: dict[str, bytes]) -> None:
        rows = [
            {"key": p, "size": len(b), "checksum": f"md5:{hashlib.md5(b).hexdigest()}", "links": {"self": f"{self.url}/records/77/files/{p}/content"}}
            for p, b in files.items()
        ]
        self.pages["/records/77"] = json.dumps({"files": rows, "metadata": {"license": {"id": "cc-by-4.0"}, "version": "1.0.0"}}).encode()
        self.pages |= {f"/records/77/files/{p}/content": b for p, b in files.items()}


@pytest.fixture
def archive() -> Iterator[Archive]:
    held = Archive()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            held.asked[self.path] += 1
            if held.status.get(self.path):
                self.send_error(held.status[self.path].pop(0))
                return
            if self.path in held.redirect:
                self.send_response(302)
                self.send_header("Location", held.redirect[self.path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = held.pages.get(self.path)
            if body is None:
                self.send_error(404)
                return
            wanted = self.headers.get("Range")
            held.ranges.append(wanted)
            first = int(re.findall(r"\d+", wanted)[0]) if wanted and held.ranged else 0
            if wanted and held.ranged and first >= len(body):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(body)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206 if wanted and held.ranged else 200)
            if wanted and held.ranged:
                self.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
            self.send_header("Content-Length", str(len(body) - first))
            self.end_headers()
            part = body[first:]
            if held.cut.get(self.path):
                part = part[: held.cut[self.path].pop(0)]
                self.close_connection = True
            for i in range(0, len(part), 65_536) if held.slow else ():
                time.sleep(held.slow)
                self.wfile.write(part[i : i + 65_536])
            if not held.slow:
                self.wfile.write(part)

        def log_message(self, format: str, *args: Any) -> None:
            pass

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):  # the other side hung up
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    held.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def described(archive: Archive, tmp_path: Path) -> Callable[..., Path]:
    """A data set of the server, described in a YAML file as the registered ones are."""

    def write(kind: str = "physionet", **changes: str) -> Path:
        id, version = {"physionet": ("night", "1.0.0"), "dandi": ("000999", "latest"), "zenodo": ("77", "")}[kind]
        keys = {
            "title": "Test", "archive": kind, "id": f"'{id}'", "version": f"'{version}'", "species": "mouse", "modality": "[eeg]", "licence": "CC0",
            "citation": "[nobody]", "reads": "EDF", "checked": "here", "server": archive.url,
        }  # fmt: skip
        path = tmp_path / f"{kind}.yaml"
        path.write_text("".join(f"{k}: {v}\n" for k, v in (keys | changes).items()))
        return path

    return write


FILES = {"a/SC1-PSG.edf": BIG, "a/SC1-Hypnogram.edf": b"scored", "RECORDS": b"a/SC1-PSG.edf\n"}


@pytest.mark.parametrize("kind", ["physionet", "dandi", "zenodo"])
def test_everything_comes_once_and_is_pinned(kind: str, archive: Archive, described: Callable[..., Path], tmp_path: Path) -> None:
    files = {k.replace("/", "_") if kind == "zenodo" else k: v for k, v in FILES.items()}
    getattr(archive, kind)(files)
    heard: list[float] = []
    done = fetch(described(kind), tmp_path / "out", progress=lambda label, f: heard.append(f))
    assert done.downloaded == sorted(files) and done.present == []
    assert {p: (tmp_path / "out" / p).read_bytes() for p in files} == files
    assert heard[-1] == pytest.approx(1.0) and all(0 <= f <= 1 for f in heard)
    lock = json.loads((tmp_path / "out" / LOCK).read_text())
    pinned = {f["path"]: f["checksum"] for f in lock["files"]}
    make = hashlib.md5 if kind == "zenodo" else hashlib.sha256
    assert {p: c.partition(":")[2] for p, c in pinned.items()} == {p: make(b).hexdigest() for p, b in files.items()}
    assert lock["licence"] == {"physionet": "", "dandi": "CC-BY-4.0", "zenodo": "cc-by-4.0"}[kind]
    assert done.licence == (lock["licence"] or "CC0") and lock["version"] == {"dandi": "0.240101.0000"}.get(kind, "1.0.0")
    assert kind != "dandi" or "sub-1/big.zarr: is a Zarr asset" in done.notes[0]

    asked = archive.asked.total()
    again = fetch(described(kind), tmp_path / "out")
    assert again.downloaded == [] and again.present == sorted(files) and archive.asked.total() == asked  # not even a listing
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()) == sorted([*files, LOCK])


def test_only_files_that_fit(archive: Archive, described: Callable[..., Path], tmp_path: Path) -> None:
    archive.dandi(FILES)
    where = described("dandi")
    assert [f.path for f in list_files(where, "*.edf")] == ["a/SC1-Hypnogram.edf", "a/SC1-PSG.edf"]
    assert fetch(where, tmp_path / "out", files="*-Hypnogram.edf").downloaded == ["a/SC1-Hypnogram.edf"]
    assert archive.asked["/dandisets/000999/versions/0.240101.0000/assets/id0/"] == 0  # no digest asked for that is not needed
    more = fetch(where, tmp_path / "out", files=["a/*", "RECORDS"])
    assert more.downloaded == ["RECORDS", "a/SC1-PSG.edf"] and more.present == ["a/SC1-Hypnogram.edf"]
    with pytest.raises(NotFoundError, match=r"none of its 3 files fits \*\.nwb; there are RECORDS"):
        fetch(where, tmp_path / "out", files="*.nwb")
    assert fetch(described("dandi", default_files="['RECORDS']"), tmp_path / "few").downloaded == ["RECORDS"]


def test_a_transfer_that_was_led_elsewhere_goes_on_too(archive: Archive, described: Callable[..., Path], tmp_path: Path) -> None:
    archive.dandi({"a.nwb": BIG})
    archive.cut["/blobs/0"] = [655_360]
    fetch(described("dandi"), tmp_path / "out", pause=0.01)
    assert (tmp_path / "out/a.nwb").read_bytes() == BIG and archive.ranges[-1] == "bytes=655360-"


@pytest.mark.parametrize("ranged", [True, False])
def test_a_broken_transfer_goes_on_where_it_stopped(ranged: bool, archive: Archive, described: Callable[..., Path], tmp_path: Path) -> None:
    archive.physionet(FILES)
    archive.ranged = ranged
    path = "/night/1.0.0/a/SC1-PSG.edf"
    archive.cut[path] = [655_360, 458_752] if ranged else [655_360]
    fetch(described(), tmp_path / "out", files="*PSG*", pause=0.01)
    assert (tmp_path / "out/a/SC1-PSG.edf").read_bytes() == BIG
    got = [r for r in archive.ranges if r]
    assert got == ["bytes=655360-", "bytes=1114112-"] if ranged else got == ["bytes=655360-"]


def test_the_next_run_goes_on_too(archive: Archive, described: Callable[..., Path], tmp_path: Path) -> None:
    archive.zenodo({"a.bin": BIG})
    archive.cut["/records/77/files/a.bin/content"] = [262_144]
    with pytest.raises(FetchError, match=r"broke off after 262144 bytes .* the same command goes on"):
        fetch(described("zenodo"), tmp_path / "out", retries=0)
    assert (tmp_path / "out/a.bin.part").read_bytes() == BIG[:262_144] and not (tmp_path / "out/a.bin").exists()
    fetch(described("zenodo"), tmp_path / "out")
    assert (tmp_path / "out/a.bin").read_bytes() == BIG and archive.ranges[-1] == "bytes=262144-" and not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("left", [b"x" * 1000, BIG + b"more", BIG])
def test_a_part_that_does_not_belong_is_replaced(left: bytes, archive: Archive, described: Callable[..., Path], tmp_path: Path) -> None:
    """A part of an older version of the file, one longer than the file, and one that was whole when the program died."""
    archive.physionet({"a.bin": BIG})
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.bin.part").write_bytes(left)
    fetch(described(), tmp_path / "out", pause=0.01)
    assert (tmp_path / "out/a.bin").read_bytes() == BIG and not list(tmp_path.rglob("*.part"))


def test_wrong_bytes_are_refused_and_removed(archive: Archive, described: Callable[..., Path], tmp_path: Path) -> None:
    archive.physionet(FILES)
    archive.pages["/night/1.0.0/a/SC1-Hypnogram.edf"] = b"forged"
    with pytest.raises(FetchError, match=r"is not what the archive's checksum says .* it was removed"):
        fetch(described(), tmp_path / "out", pause=0.01)
    assert not (tmp_path / "out/a/SC1-Hypnogram.edf").exists() and not list((tmp_path / "out/a").glob("*Hypnogram*"))
    archive.pages["/night/1.0.0/a/SC1-Hypnogram.edf"] = b"scored"
    assert "a/SC1-Hypnogram.edf" in fetch(described(), tmp_path / "out").downloaded


def test_local_files_are_never_replaced_unseen(archive: Archive, described: Callable[..., Path], tmp_path: Path) -> None:
    archive.physionet(FILES)
    fetch(described(), tmp_path / "out")
    (tmp_path / "out/RECORDS").write_bytes(b"mine")
    with pytest.raises(FetchError, match="RECORDS: is there already with other bytes"):
        fetch(described(), tmp_path / "out")
    assert (tmp_path / "out/RECORDS").read_bytes() == b"mine"
    assert fetch(described(), tmp_path / "out", overwrite=True).downloaded == ["RECORDS"] and (tmp_path / "out/RECORDS").read_bytes() == FILES["RECORDS"]


def test_an_archive_that_changes_is_noticed(archive: Archive, described: Callable[..., Path], tmp_path: Path) -> None:
    archive.physionet(FILES)
    fetch(described(), tmp_path / "out")
    archive.physionet(FILES | {"RECORDS": b"other"})
    assert fetch(described(), tmp_path / "out").downloaded == []  # the lock file stands
    with pytest.raises(FetchError, match=r"checksum of RECORDS is not the one pinned .* the archive changed"):
        fetch(described(), tmp_path / "out", update=True)
    assert (tmp_path / "out/RECORDS").read_bytes() == FILES["RECORDS"]
    archive.dandi(FILES)
    with pytest.raises(FetchError, match=r"holds physionet 1\.0\.0, not dandi"):
        fetch(described("dandi"), tmp_path / "out")
    (tmp_path / "out" / LOCK).write_text("{")
    with pytest.raises(FetchError, match="cannot be read as the lock file"):
        fetch(described(), tmp_path / "out")


def test_servers_that_fail(archive: Archive, described: Callable[..., Path], tmp_path: Path) -> None:
    archive.physionet(FILES)
    sums, psg = "/night/1.0.0/SHA256SUMS.txt", "/night/1.0.0/a/SC1-PSG.edf"
    archive.status |= {sums: [503], psg: [429, 502]}
    assert len(fetch(described(), tmp_path / "busy", pause=0.01).downloaded) == 3  # asked again
    archive.status[psg] = [403]
    with pytest.raises(FetchError, match=r"refused .403 Forbidden.: it may need a login"):
        fetch(described(), tmp_path / "closed", pause=0.01)
    del archive.pages[psg]
    with pytest.raises(NotFoundError, match=r"SC1-PSG.edf: the server has no such file or record .404."):
        fetch(described(), tmp_path / "gone", pause=0.01)
    with pytest.raises(NotFoundError, match=r"SHA256SUMS.txt"):
        fetch(described(version="'9.9'"), tmp_path / "version")
    with pytest.raises(FetchError, match=r"cannot be reached .ConnectionError., 3 times"):
        fetch(described(server="http://127.0.0.1:1"), tmp_path / "down")
    with pytest.raises(FetchError, match="is not https"):
        fetch(described(server="http://example.invalid"), tmp_path / "plain")
    archive.pages[sums] = b"<html>a portal of the hotel</html>"
    with pytest.raises(FetchError, match="answered something else than it documents"):
        fetch(described(), tmp_path / "portal")
    assert not (tmp_path / "portal").exists() and not (tmp_path / "down").exists()


@pytest.mark.parametrize("path", ["../outside", "/etc/x", "a/../../x", "..\\x"])
def test_paths_that_lead_out_of_the_folder_are_refused(path: str, archive: Archive, described: Callable[..., Path], tmp_path: Path) -> None:
    archive.physionet({path: b"x"})
    with pytest.raises(FetchError, match="outside the folder: refused"):
        fetch(described(), tmp_path / "out")


def test_a_full_disk_is_said_before_and_during(archive: Archive, described: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.zenodo({"a.bin": BIG})
    with monkeypatch.context() as m:
        m.setattr(shutil, "disk_usage", lambda p: shutil._ntuple_diskusage(10**12, 10**12, 1000))  # type: ignore[attr-defined]
        with pytest.raises(FetchError, match=r"needs 0\.00 GB and the disk has 0\.00 GB free"):
            fetch(described("zenodo"), tmp_path / "out")
    full = Path("/dev/full")
    if full.exists():
        # The kernel's own ENOSPC, at the first byte written.
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out/a.bin.part").symlink_to(full)
        with pytest.raises(FetchError, match="the disk is full: free some space and run the same command"):
            fetch(described("zenodo"), tmp_path / "out", retries=0)
    assert errno.ENOSPC == 28


def test_an_interrupted_run_keeps_what_came(archive: Archive, described: Callable[..., Path], tmp_path: Path) -> None:
    """Ctrl-C in the middle of a slow download: one line, status 130, and the next run asks for the rest only."""
    archive.zenodo({"a.bin": BIG * 4})
    archive.slow = 0.01
    command = [sys.executable, "-m", "brainmu", "fetch", str(described("zenodo")), "--out", str(tmp_path / "out"), "--quiet"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        part = tmp_path / "out/a.bin.part"
        deadline = time.monotonic() + 30
        while not (part.exists() and part.stat().st_size > 500_000) and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 130 and said.startswith("brainmu: interrupted") and said.count("\n") == 1
    came = part.stat().st_size
    assert 500_000 < came < len(BIG) * 4
    archive.slow = 0.0
    fetch(described("zenodo"), tmp_path / "out")
    assert archive.ranges[-1] == f"bytes={came}-" and (tmp_path / "out/a.bin").read_bytes() == BIG * 4


def test_one_download_into_a_folder_at_a_time(archive: Archive, described: Callable[..., Path], tmp_path: Path) -> None:
    archive.physionet(FILES)
    (tmp_path / "out").mkdir()
    with fetching._alone(tmp_path / "out"), pytest.raises(FetchError, match="another brainmu fetch"):
        fetch(described(), tmp_path / "out")
    assert len(fetch(described(), tmp_path / "out").downloaded) == 3


def test_descriptions_are_checked(described: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"no data set of that name: did you mean 'sleep-edfx'\?"):
        dataset("sleep-edf")
    with pytest.raises(NotFoundError, match="no such file, expected the description"):
        dataset(tmp_path / "absent.yaml")
    with pytest.raises(ConfigError, match="archive is zenodo and id is not given"):
        dataset(described("zenodo", id="''"))
    with pytest.raises(ConfigError, match="did you mean 'physionet'"):
        dataset(described(archive="physionett"))


# -- the registry ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", dataset_names())
def test_every_entry_says_what_a_lab_must_know(name: str) -> None:
    found = dataset(name)
    assert found.licence and found.species and found.modality and found.reads and found.size and found.page.startswith("https://")
    assert any("doi:10." in c for c in found.citation) or all("https://" in c for c in found.citation), "something to cite"
    assert "not" in found.checked or "run" in found.checked
    assert found.server == "" and (found.archive == "manual" or archives.SERVERS[found.archive].startswith("https://") or found.archive == "list")
    assert all(f.url.startswith("https://") and re.fullmatch("[0-9a-f]{64}", f.sha256) for f in found.files)
    folder = PIPELINES / found.pipeline
    assert found.pipeline and (folder / "README.md").is_file() and (list(folder.glob("*.yaml")) or list(folder.glob("*.py")))
    text = (folder / "README.md").read_text()
    assert f"brainmu fetch {name}" in text and found.licence.split(" (")[0] in text


def test_data_behind_a_login_say_how(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=r"cannot be fetched by a program: .*account"):
        fetch("crcns-hc-11", tmp_path)
    with pytest.raises(FetchError, match="cannot be listed"):
        list_files("crcns-hc-11")


# -- the command ----------------------------------------------------------------------------------------------------
def test_command(archive: Archive, described: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    archive.dandi(FILES)
    where = str(described("dandi"))
    monkeypatch.chdir(tmp_path)
    assert main(["fetch"]) == 0 and "sleep-edfx" in capsys.readouterr().out
    assert main(["fetch", "--list", "--json", "--quiet"]) == 0
    assert {r["name"] for r in json.loads(capsys.readouterr().out)["datasets"]} == set(dataset_names())
    assert main(["fetch", where, "--list", "--files", "*.edf"]) == 0
    assert "2 files, 0.00 GB" in capsys.readouterr().out and not (tmp_path / "dandi").exists()
    assert main(["fetch", where, "--files", "*.edf", "RECORDS", "--json", "--quiet"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert len(result["downloaded"]) == 3 and result["licence"] == "CC-BY-4.0" and err == "" and (tmp_path / "dandi" / LOCK).exists()
    for args, status, says in (
        (["fetch", "nothing"], 1, "no data set of that name"),
        (["fetch", "--out", "x"], 2, "no data set is named"),
        (["fetch", where, "--jobs", "0"], 2, "expected 1 to 16"),
        (["fetch", "crcns-hc-11"], 1, "account"),
        (["fetch", where, "--out", where], 1, "is a file, expected a folder"),
    ):
        assert main(args) == status
        out, err = capsys.readouterr()
        assert out == "" and says in err and err.count("\n") == 1
